//! A file that one program has to itself.

use std::fs::File;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A file that is locked as long as this is there. The lock belongs to the open file.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Takes the lock, or fails at once if somebody else has it.
    ///
    /// # Errors
    /// [`Errno::WOULDBLOCK`], and what else the system says.
    pub(crate) fn try_new(file: File) -> Result<Self, Errno> {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(file))
    }

    /// Takes the lock, and waits for it: for a file that nobody keeps locked.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn wait_new(file: File) -> Result<Self, Errno> {
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self(file))
    }

    /// The file.
    pub(crate) fn as_file(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    /// A child that is just being started has the file open too, until it runs its program: closing it here would then
    /// not end the lock.
    fn drop(&mut self) {
        // It ends with the process at the latest.
        let _unlocked = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}
