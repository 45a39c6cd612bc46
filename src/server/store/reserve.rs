//! Room on the disk for when it is full. An open that cannot be recorded is refused; a close or an expiry that could
//! not be recorded would stop the server.

use core::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::StoreError;
use super::error::is_full;
use super::medium::Medium;
use crate::model::{Limits, len_u64};

/// Room that can be taken ahead of need, and given back.
pub(super) trait Room: fmt::Debug + Send + Sync {
    fn take(&self) -> io::Result<()>;

    fn give_back(&self) -> io::Result<()>;
}

/// A medium that gives its reserve back when the disk is full, and then says that it has no room for more.
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
        if let Err(error) = self.room.take() {
            // A part of it may have been there, and is somebody else's now.
            self.room.give_back()?;
            return Err(error);
        }
        self.is_held.store(true, Ordering::Release);
        Ok(())
    }

    /// Does what needs room; if there is none, once more with the reserve.
    fn with_reserve(&self, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match act() {
            Err(error) if is_full(&error) && self.give_back()? => act(),
            outcome => outcome,
        }
    }

    /// Gives the reserve back to the disk; false if there is none.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn give_back(&self) -> io::Result<bool> {
        let is_held = self.is_held.swap(false, Ordering::AcqRel);
        if is_held {
            tracing::warn!("the disk is full: closes are still recorded, and new opens refused");
            self.room.give_back()?;
        }
        Ok(is_held)
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
        self.with_reserve(|| self.medium.set_len(len))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with_reserve(|| self.medium.write(at, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.sync()
    }

    fn note(&self, commits: u64) -> io::Result<()> {
        self.medium.note(commits)
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

impl ReserveFile {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Room for ReserveFile {
    fn take(&self) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, Limits::STORE_RESERVE) {
            Err(Errno::OPNOTSUPP) => fill(&self.0),
            outcome => Ok(outcome?),
        }
    }

    fn give_back(&self) -> io::Result<()> {
        self.0.set_len(0)
    }
}

/// Takes the room where the file system has no call for it.
fn fill(file: &File) -> io::Result<()> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0))?;
    let block = [0; 4096];
    let mut left = Limits::STORE_RESERVE;
    let mut file = file;
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
            room.give_back().unwrap();
            assert_eq!(taken(), 0);
        }
        fill(&file).unwrap();
        assert!(taken() >= Limits::STORE_RESERVE, "{}", taken());
    }
}
