//! The table's file, and the note beside it of how many commits it has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::StoreError;
use super::medium::Medium;
use super::seal::{SUM_LEN, Seal};
use crate::net::Locked;

/// Least room that is worth a claim of its own, in bytes.
const CLAIM_MIN: u64 = 16 << 10;
/// Length of the note: the number and its sum.
const NOTE_LEN: usize = 8 + SUM_LEN;
/// The kind that the note's sum is made for: no record has it.
const NOTE_KIND: u8 = 255;

/// A table's file. It is locked, so that no two programs write to it, and checked to be where its path says.
#[derive(Debug)]
pub(super) struct TableFile {
    path: PathBuf,
    file: Locked,
    note: Note,
    /// Whether `sync` waits for the disk.
    waits: AtomicBool,
}

impl TableFile {
    /// Opens the file `path`, which has to be there, or makes it.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Io`], which is "not found" where the file is missing.
    pub(super) fn open(path: &Path, note: Note, is_new: bool) -> Result<Self, StoreError> {
        let cannot = |errno: Errno| StoreError::io("open", path, errno.into());
        let file = open_file(path, is_new).map_err(cannot)?;
        let file = match Locked::try_new(file) {
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse { path: path.to_owned() }),
            outcome => outcome.map_err(cannot)?,
        };
        Ok(Self { path: path.to_owned(), file, note, waits: AtomicBool::new(true) })
    }

    /// Says whether a commit waits for the disk from now on. It does until this is said.
    pub(super) fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
    }

    /// Whether a commit waits for the disk.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }
}

impl Medium for TableFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.as_file().metadata()?.len())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.as_file().read_exact_at(into, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.as_file().set_len(len)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file().write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        if self.waits() {
            return self.file.as_file().sync_data();
        }
        // What is written is the kernel's, and outlives this process.
        Ok(())
    }

    fn note(&self, commits: u64) -> io::Result<()> {
        self.note.write(commits)
    }

    fn claim(&self, at: u64, len: u64) -> io::Result<()> {
        let mut len = len;
        // Some file systems give a part of what they have, others all or nothing.
        while len >= CLAIM_MIN {
            match rustix::fs::fallocate(self.file.as_file(), FallocateFlags::KEEP_SIZE, at, len) {
                Err(Errno::NOSPC | Errno::DQUOT) => len /= 2,
                // Then the writes take it, one by one.
                Err(Errno::OPNOTSUPP) => break,
                outcome => return Ok(outcome?),
            }
        }
        Ok(())
    }

    fn check_place(&self) -> Result<(), StoreError> {
        let of_file = rustix::fs::fstat(self.file.as_file());
        let of_path = rustix::fs::lstat(&self.path);
        match (of_file, of_path) {
            (Ok(file), Ok(path))
                if (file.st_dev, file.st_ino) == (path.st_dev, path.st_ino) && file.st_nlink > 0 =>
            {
                Ok(())
            }
            (Ok(_), Ok(_) | Err(Errno::NOENT | Errno::NOTDIR)) => {
                Err(StoreError::Gone { path: self.path.clone() })
            }
            (Err(errno), _) | (_, Err(errno)) => Err(StoreError::io("look at", &self.path, errno.into())),
        }
    }
}

/// The note of how many commits a table has: it says so when a table has lost its last ones by damage, and nothing else
/// can, because a commit that was cut off looks the same. It is written after each commit and not waited for, so it is
/// good for as long as the machine runs.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
    seal: Seal,
}

impl Note {
    /// The note in the file `path`, which is made if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn open(path: &Path, seal: Seal) -> Result<Self, StoreError> {
        let file = open_or_make(path)?;
        Ok(Self { file, seal })
    }

    /// The number that was noted last; none if nothing was noted for this store.
    pub(super) fn read(&self) -> io::Result<Option<u64>> {
        let mut bytes = [0; NOTE_LEN];
        match self.file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        let noted = bytes.first_chunk().map(|number| u64::from_le_bytes(*number));
        Ok(noted.filter(|commits| self.seal.close(NOTE_KIND, 0, &commits.to_le_bytes()) == bytes))
    }

    fn write(&self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&self.seal.close(NOTE_KIND, 0, &commits.to_le_bytes()), 0)
    }
}

/// Opens a file of the state directory, and makes it if it is missing.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::NoSpace`].
pub(super) fn open_or_make(path: &Path) -> Result<File, StoreError> {
    let opened = match open_file(path, false) {
        Err(Errno::NOENT) => open_file(path, true),
        opened => opened,
    };
    opened.map_err(|errno| StoreError::io("open", path, errno.into()))
}

/// Opens a file of the state directory that is there, or makes one that is not, for its owner alone.
pub(super) fn open_file(path: &Path, is_new: bool) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR;
    let new = if is_new { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
    let file = File::from(rustix::fs::open(path, flags | new, mode)?);
    if is_new {
        // The umask may have taken bits away.
        rustix::fs::fchmod(&file, mode)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;
    use crate::model::StoreId;

    #[test]
    fn a_sync_waits_for_the_disk_until_it_is_said_not_to() {
        let folder = tempfile::tempdir().unwrap();
        let note = Note::open(&folder.path().join("commits"), Seal::new(StoreId([1; 16]))).unwrap();
        // A pipe has no disk to wait for, and the kernel says so to who tries.
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let file = TableFile::open(&path, note, false).unwrap();
        assert!(file.sync().is_err(), "it does from the start");
        for waits in [false, true, false] {
            file.set_waits(waits);
            assert_eq!(file.sync().is_err(), waits);
        }
    }

    #[test]
    fn a_note_is_of_one_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commits");
        let note = Note::open(&path, Seal::new(StoreId([1; 16]))).unwrap();
        assert_eq!(note.read().unwrap(), None);
        for commits in [0, 1, u64::MAX] {
            note.write(commits).unwrap();
            assert_eq!(note.read().unwrap(), Some(commits));
        }
        let other = Note::open(&path, Seal::new(StoreId([2; 16]))).unwrap();
        assert_eq!(other.read().unwrap(), None);
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bad).unwrap();
            assert_eq!(note.read().unwrap(), None, "bit {bit}");
        }
    }
}
