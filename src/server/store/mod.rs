//! Where the open table is kept, so that opens outlive the server: a table of records, committed in groups, in a state
//! directory that one server has to itself.
//!
//! ```text
//!  requests ──► ServerCore ──► record changes ──► Committer ──► TableStore ──► table-<store>.redb
//!                                  (values)        one thread      │
//!                                     ▲                            └─ StateDir: lock, state, resume.key, note, reserve
//!                                     └──── done, in order ◄───────
//! ```
//!
//! What a record says is the core's business: here it is bytes under a key, and comes back as it was committed or not at
//! all. Three rules hold for every store, and one suite of tests for all of them:
//!
//! - **A start finds the content after some commit**, never a part of one, and never one before a commit that was
//!   acknowledged, unless the machine stopped and the durability is `process`.
//! - **After a failure the store is not touched again.** What a failed write or sync left on the disk is not known, and a
//!   second sync that succeeds says nothing of it. The server stops; the next start reads what is there.
//! - **Damage is an error**, and no reason to begin anew: that is for the administrator to decide.

mod committer;
mod error;
mod file;
mod hash_key;
mod header;
mod medium;
mod memory;
mod reserve;
mod seal;
mod state_dir;
mod table;
#[cfg(test)]
mod tests;

pub use committer::Committer;
pub use error::{Damage, StoreError};
pub use hash_key::HashKey;
pub use memory::MemoryStore;
pub use state_dir::{Loaded, SetAside, StateDir, StateFile, StateSetup};

use crate::model::{Record, RecordChange};

/// A table of records that persists.
///
/// It is used by one thread at a time, and its calls wait for the disk.
pub trait TableStore: Send {
    /// All records, in the order of their kinds and keys.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Format`], [`StoreError::Io`], [`StoreError::Failed`].
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Whether a batch may be committed. It is asked before each commit, and a batch that may not be is refused without a
    /// trace.
    ///
    /// # Errors
    /// [`StoreError::TooLong`]; [`StoreError::NoSpace`] for a batch with a new record that does not have to be, while the
    /// disk is full; [`StoreError::Failed`].
    fn check(&mut self, batch: &[RecordChange]) -> Result<(), StoreError>;

    /// Makes all changes of a batch, in their order, or none of them. When it returns without error, they last.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Gone`], [`StoreError::Io`], [`StoreError::Damaged`]. After any of them the
    /// store is not used any more: every later call gets [`StoreError::Failed`].
    fn commit(&mut self, batch: &[RecordChange]) -> Result<(), StoreError>;

    /// Ends the use of the store; what was committed is on the disk then, whatever the durability.
    ///
    /// # Errors
    /// As [`TableStore::commit`].
    fn close(&mut self) -> Result<(), StoreError>;
}

/// Refuses a batch with a record that is too long.
fn check_lengths(batch: &[RecordChange]) -> Result<(), StoreError> {
    match batch.iter().find(|change| !change.is_within_limit()) {
        Some(change) => {
            Err(StoreError::TooLong { kind: change.kind, key: change.key, len: change.value_len() })
        }
        None => Ok(()),
    }
}
