//! Room on the disk for when it is full. An open that cannot be recorded is refused; a close or an expiry that could
//! not be recorded would stop the server.
//!
//! The room is held by a file. When the table gets none, most of it changes its owner: the file gives it up, and the table
//! takes it at once, from where it was writing on, before others eat it. A little stays for `state`, which is replaced at
//! a start and at an end.

use core::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::StoreError;
use super::error::is_full;
use super::medium::Medium;
use crate::model::{Limits, len_u64};

/// Room that can be taken ahead of need, and given back.
pub(super) trait Room: fmt::Debug + Send + Sync {
    /// Takes all of it, or changes nothing.
    fn take(&self) -> io::Result<()>;

    /// Gives back what is meant for the table; how many bytes that is.
    fn give_back(&self) -> io::Result<u64>;

    /// Gives back as much as a small file takes; false if there is nothing left.
    fn give_back_some(&self) -> io::Result<bool>;
}

/// A medium that takes over its reserve when the disk is full, and then says that it has no room for more.
#[derive(Debug)]
pub(super) struct Reserved<M, R> {
    medium: M,
    room: R,
    is_held: AtomicBool,
}

impl<M: Medium, R: Room> Reserved<M, R> {
    /// The medium with as much room in reserve as there is.
    ///
    /// # Errors
    /// What the system says, unless it is that the disk is full: then there is no reserve.
    pub(super) fn new(medium: M, room: R) -> io::Result<Self> {
        let reserved = Self { medium, room, is_held: AtomicBool::new(false) };
        match reserved.hold() {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(reserved),
        }
    }

    pub(super) fn medium(&self) -> &M {
        &self.medium
    }

    fn hold(&self) -> io::Result<()> {
        self.room.take()?;
        self.is_held.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives back to the disk what a small file takes; false if there is nothing left.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn give_back_some(&self) -> io::Result<bool> {
        // So that it is taken again when there is room.
        self.is_held.store(false, Ordering::Release);
        self.room.give_back_some()
    }
}

impl<M: Medium, R: Room> Medium for Reserved<M, R> {
    fn len(&self) -> io::Result<u64> {
        self.medium.len()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.medium.read(at, into)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A length takes no room.
        self.medium.set_len(len)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let full = match self.medium.write(at, bytes) {
            Err(error) if is_full(&error) => error,
            outcome => return outcome,
        };
        self.is_held.store(false, Ordering::Release);
        match self.room.give_back()? {
            0 => Err(full),
            len => {
                tracing::warn!("the disk is full: closes are still recorded, and new opens refused");
                self.medium.claim(at, len)?;
                self.medium.write(at, bytes)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.sync()
    }

    fn note(&self, commits: u64) -> io::Result<()> {
        self.medium.note(commits)
    }

    fn claim(&self, at: u64, len: u64) -> io::Result<()> {
        self.medium.claim(at, len)
    }

    fn check_place(&self) -> Result<(), StoreError> {
        self.medium.check_place()
    }

    fn has_room(&self) -> bool {
        if self.is_held.load(Ordering::Acquire) {
            return true;
        }
        let is_held = self.hold().is_ok();
        if is_held {
            tracing::info!("there is room on the disk again");
        }
        is_held
    }
}

/// A file that is nothing but its length.
#[derive(Debug)]
pub(super) struct ReserveFile(File);

/// What is kept for `state`, in bytes: several times what one replacement takes.
const SMALL_PART: u64 = 64 << 10;
/// What one replacement of a small file takes, in bytes: a block or two.
const SMALL_STEP: u64 = 8 << 10;

impl ReserveFile {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Room for ReserveFile {
    fn take(&self) -> io::Result<()> {
        let before = self.len()?;
        let taken = match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, Limits::STORE_RESERVE) {
            Err(Errno::OPNOTSUPP) => fill(&self.0),
            outcome => outcome.map_err(io::Error::from),
        };
        if taken.is_err() {
            // A part of it may have been there, and is not needed.
            self.0.set_len(before)?;
        }
        taken
    }

    fn give_back(&self) -> io::Result<u64> {
        let before = self.len()?;
        self.0.set_len(before.min(SMALL_PART))?;
        Ok(before.saturating_sub(SMALL_PART))
    }

    fn give_back_some(&self) -> io::Result<bool> {
        let before = self.len()?;
        self.0.set_len(before.saturating_sub(SMALL_STEP))?;
        Ok(before > 0)
    }
}

/// Takes the room where the file system has no call for it.
fn fill(mut file: &File) -> io::Result<()> {
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    let block = [0; 4096];
    let mut left = Limits::STORE_RESERVE;
    while left > 0 {
        file.write_all(&block)?;
        left = left.saturating_sub(len_u64(block.len()));
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_reserve_takes_room_and_gives_it_back() {
        let file = tempfile::tempfile().unwrap();
        let room = ReserveFile::new(file.try_clone().unwrap());
        let taken = || file.metadata().unwrap().blocks() * 512;
        for _ in 0..2 {
            room.take().unwrap();
            assert!(taken() >= Limits::STORE_RESERVE, "{}", taken());
            assert_eq!(room.give_back().unwrap(), Limits::STORE_RESERVE - SMALL_PART);
            assert_eq!(taken(), SMALL_PART);
        }
        for step in 1..=SMALL_PART / SMALL_STEP {
            assert!(room.give_back_some().unwrap());
            assert_eq!(taken(), SMALL_PART - step * SMALL_STEP);
        }
        assert!(!room.give_back_some().unwrap());
        assert_eq!(room.give_back().unwrap(), 0);
        fill(&file).unwrap();
        assert!(taken() >= Limits::STORE_RESERVE, "{}", taken());
    }
}
