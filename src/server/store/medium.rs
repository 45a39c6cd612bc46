//! What a table is written on: a file, or in tests a disk that fails, tears and forgets.

use core::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use super::StoreError;

/// Bytes that can be read, written and made to last, and beside them one number.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;

    /// Fills `into` from `at` on; an error if there is not as much.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// What is new is zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written last as long as it is to.
    fn sync(&self) -> io::Result<()>;

    /// Notes beside the table that it has as many commits. The note is there until the machine stops, and is not waited for.
    fn note(&self, commits: u64) -> io::Result<()>;

    /// Takes room on the disk for `len` bytes from `at` on, as much as there is.
    fn claim(&self, at: u64, len: u64) -> io::Result<()>;

    /// Fails if what was written is not where the next start will look for it.
    ///
    /// # Errors
    /// [`StoreError::Gone`], [`StoreError::Io`].
    fn check_place(&self) -> Result<(), StoreError>;

    /// Whether more may be written than what closes and expiries need.
    fn has_room(&self) -> bool {
        true
    }
}

/// The medium as the database sees it. Once it is given up, the database reaches it no more: what it does when it is
/// dropped after a failure must not change what is there.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    medium: Arc<dyn Medium>,
    is_given_up: Arc<AtomicBool>,
}

impl Backend {
    pub(super) fn new(medium: Arc<dyn Medium>) -> Self {
        Self { medium, is_given_up: Arc::new(AtomicBool::new(false)) }
    }

    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// The medium, unless it is given up.
    fn reach(&self) -> io::Result<&dyn Medium> {
        if self.is_given_up() {
            return Err(io::Error::other("the table was given up"));
        }
        Ok(&*self.medium)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.reach()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reach()?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.reach()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.reach()?.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.reach()?.write(offset, data)
    }
}
