//! An open that the administrator ends, against the will of whoever holds it.

use thiserror::Error;

use super::{ServerCore, ServerNote};
use crate::model::{OpenId, Time};

/// Why an open was not released.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It has ended, or there never was one.
    #[error("there is no open {0}")]
    NoSuchOpen(OpenId),
}

impl<P: Clone> ServerCore<P> {
    /// Ends an open, whoever holds it, live or away: its holders take no new operation, its resume keys die, and its
    /// locks go with it. What is executing is finished first, and contenders hear busy until then. An open that is
    /// ending already goes on to end.
    ///
    /// Its holders are told at once; whoever comes back with a key later hears that the open was released.
    ///
    /// # Errors
    /// [`ReleaseError::NoSuchOpen`].
    pub fn handle_release(&mut self, now: Time, open: OpenId) -> Result<(), ReleaseError> {
        self.end_expired(now);
        let view = self.table.open(open).ok_or(ReleaseError::NoSuchOpen(open))?;
        let (owner, holders) = (*view.owner, view.holders.len());
        self.note(ServerNote::OpenReleased { open, owner, holders });
        self.table.release(now, open);
        self.settle_table();
        Ok(())
    }
}
