//! Opening a file again, by where it was, if it is the same file.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::table::{Next, Origin, Table};
use super::{Descriptors, Held, Lease, Purpose};
use crate::model::{ExportPath, Limits, OpenId, Reason, Refusal};
use crate::server::exports::OpenedFile;

impl Descriptors {
    /// The descriptor of an open; if it is not there, the file is opened again. Blocks as long as the file system does,
    /// and a bounded time for a place.
    ///
    /// # Errors
    /// [`Reason::BadHandle`] without such an open; [`Reason::Stale`] if where the file was there is another one or
    /// none; [`Reason::Exhausted`] if every descriptor is in use; else what the file system reports.
    pub(in crate::server) fn find(&self, open: OpenId) -> Result<Lease, Refusal> {
        if let Some(file) = self.here(open) {
            return Ok(file);
        }
        let mut waited = None;
        loop {
            let listening = self.places.listen();
            let next = self.table().next(open, waited);
            match next {
                Next::Here(held) => return Ok(self.lease(held)),
                Next::Open(origin) => {
                    drop(listening);
                    return self.open_again(open, origin);
                }
                Next::Wait(number) => {
                    waited = Some(number);
                    listening.wait(Limits::DESCRIPTOR_WAIT);
                }
                Next::Failed(reason) => return Err(reason.into()),
                Next::Unknown => return Err(Reason::BadHandle.into()),
            }
        }
    }

    /// Opens the file of an open for everybody who waits for it.
    fn open_again(&self, open: OpenId, origin: Origin) -> Result<Lease, Refusal> {
        let mut attempt = Attempt { descriptors: self, open, outcome: Err(Reason::Io) };
        let held = self.reserve(Purpose::Again).and_then(|place| {
            let opened = self.with_room(|| self.open_the_same(open, &origin))?;
            Ok(Arc::new(Held { file: opened.file, _place: place }))
        });
        attempt.outcome = held.as_ref().map(Arc::clone).map_err(|refusal| refusal.reason);
        held.map(|held| self.lease(held))
    }

    fn open_the_same(&self, open: OpenId, origin: &Origin) -> Result<OpenedFile, Refusal> {
        match self.open_where(origin) {
            Err(Refusal { reason: Reason::Stale, .. }) => {
                // It may have been renamed just now: its path is looked at again while no client renames anything.
                let _still = self.exports.still(&origin.export)?;
                let origin = self.table().origin(open).ok_or(Reason::BadHandle)?;
                self.open_where(&origin)
            }
            outcome => outcome,
        }
    }

    /// Opens what is where the file was, if it is the file.
    fn open_where(&self, origin: &Origin) -> Result<OpenedFile, Refusal> {
        let path = origin.path.as_ref().ok_or(Reason::Stale)?;
        let path = ExportPath::new(&path[..]).map_err(|_| Reason::Stale)?;
        let opened = self.exports.open_same(&origin.export, &path, origin.rights, origin.identity);
        opened.map_err(|refusal| match refusal.reason {
            Reason::NotFound
            | Reason::NotDirectory
            | Reason::IsDirectory
            | Reason::NotRegular
            | Reason::Outside
            | Reason::NameTooLong => Reason::Stale.into(),
            _ => refusal,
        })
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // Its entries are put right by the single call that changes them.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt to open a file again. Those who wait for it hear how it ended, however it ended.
struct Attempt<'a> {
    descriptors: &'a Descriptors,
    open: OpenId,
    outcome: Result<Arc<Held>, Reason>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let outcome = core::mem::replace(&mut self.outcome, Err(Reason::Io));
        let superfluous = self.descriptors.table().finish(self.open, outcome);
        drop(superfluous);
        self.descriptors.places.ring();
    }
}
