//! A key ring's file: made, checked, locked, written and removed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::KeyRingError;
use super::format::{HEADER, Place, Reading, STATE_AT, Slots, read};
use crate::model::{InstanceId, Limits, len_u64};
use crate::net::Locked;
use crate::net::key_file::sync_folder;

/// What the names of rings end in; before it stands the owner's instance.
const SUFFIX: &str = ".keys";
/// How often a ring is made anew because somebody took it for one whose owner has died before it was locked.
const ATTEMPTS: usize = 8;

/// A ring's file, which is locked as long as this is there.
#[derive(Debug)]
pub(super) struct RingFile {
    path: PathBuf,
    file: Locked,
}

impl RingFile {
    /// Makes the ring of an instance, on the disk, for its owner alone.
    ///
    /// # Errors
    /// [`KeyRingError::Io`], [`KeyRingError::Folder`].
    pub(super) fn create(folder: &Path, instance: InstanceId) -> Result<Self, KeyRingError> {
        let path = folder.join(format!("{instance}{SUFFIX}"));
        for _ in 0..ATTEMPTS {
            let made = make(&path).map_err(|errno| cannot("make", &path, errno.into()))?;
            if let Some(file) = made {
                let ring = Self { path, file };
                ring.write(0, HEADER)?;
                ring.sync()?;
                sync_folder(folder)?;
                return Ok(ring);
            }
        }
        Err(cannot("make", &path, Errno::AGAIN.into()))
    }

    /// Takes over the ring `path`, and what is in it; `None` if its owner lives, or if there is nothing to take.
    ///
    /// # Errors
    /// As [`look`]; and what is wrong with it, which is left as it is.
    pub(super) fn adopt(path: &Path) -> Result<Option<(Self, Slots)>, KeyRingError> {
        let Some(file) = open(path)? else { return Ok(None) };
        let file = match Locked::try_new(file) {
            Ok(file) => file,
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(cannot("lock", path, errno.into())),
        };
        // Somebody else may have finished with it before it was locked here.
        if !has_name(file.as_file()).map_err(|errno| cannot("look at", path, errno.into()))? {
            return Ok(None);
        }
        let reading = read(&bytes_of(path, file.as_file())?);
        let ring = Self { path: path.to_owned(), file };
        match reading {
            Reading::Ring(slots) => Ok(Some((ring, slots))),
            Reading::Unfinished => {
                ring.remove()?;
                Ok(None)
            }
            Reading::Unknown => Err(KeyRingError::Unknown { path: path.to_owned() }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), KeyRingError> {
        self.file.as_file().write_all_at(bytes, at).map_err(|error| cannot("write to", &self.path, error))
    }

    /// Overwrites a slot with zeros, but for its length.
    pub(super) fn wipe(&self, place: Place) -> Result<(), KeyRingError> {
        let zeros = vec![0; place.len.saturating_sub(STATE_AT)];
        self.write(place.at.saturating_add(len_u64(STATE_AT)), &zeros)
    }

    /// Takes away what was appended from `end` on.
    pub(super) fn cut(&self, end: u64) -> Result<(), KeyRingError> {
        self.file.as_file().set_len(end).map_err(|error| cannot("cut", &self.path, error))
    }

    /// Waits until the disk has what was written.
    pub(super) fn sync(&self) -> Result<(), KeyRingError> {
        self.file.as_file().sync_data().map_err(|error| cannot("write to", &self.path, error))
    }

    /// Removes a ring in which every slot is wiped. The disk has the zeros before it gives the blocks to others.
    pub(super) fn remove(&self) -> Result<(), KeyRingError> {
        self.sync()?;
        std::fs::remove_file(&self.path).map_err(|error| cannot("remove", &self.path, error))
    }
}

/// The rings in a folder, whoever owns them; none if there is no folder.
pub(super) fn rings(folder: &Path) -> Result<Vec<PathBuf>, KeyRingError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| cannot("look for", folder, error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| cannot("look for", folder, error))?;
        if entry.file_name().to_str().is_some_and(is_ring) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn is_ring(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|instance| {
        instance.len() == 32 && instance.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// What is in a ring, without taking it over, and whether its owner lives; `None` if there is none any more.
///
/// # Errors
/// [`KeyRingError::NotRegular`], [`KeyRingError::Owner`], [`KeyRingError::Permissions`], [`KeyRingError::TooLong`],
/// [`KeyRingError::Unknown`], [`KeyRingError::Io`].
pub(super) fn look(path: &Path) -> Result<Option<(Slots, bool)>, KeyRingError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let reading = read(&bytes_of(path, &file)?);
    let is_living = match Locked::try_new(file) {
        Ok(_) => false,
        Err(Errno::WOULDBLOCK) => true,
        Err(errno) => return Err(cannot("lock", path, errno.into())),
    };
    match reading {
        Reading::Ring(slots) => Ok(Some((slots, is_living))),
        Reading::Unfinished => Ok(None),
        Reading::Unknown => Err(KeyRingError::Unknown { path: path.to_owned() }),
    }
}

/// A new and locked file; `None` if somebody has removed it before it was locked.
fn make(path: &Path) -> Result<Option<Locked>, Errno> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = File::from(rustix::fs::open(path, flags, mode)?);
    // The umask may have taken bits away.
    rustix::fs::fchmod(&file, mode)?;
    let file = Locked::wait_new(file)?;
    let is_there = has_name(file.as_file())?;
    Ok(is_there.then_some(file))
}

fn has_name(file: &File) -> Result<bool, Errno> {
    Ok(rustix::fs::fstat(file)?.st_nlink > 0)
}

/// Opens a ring, and refuses what is none, or what is not its user's alone; `None` if it is not there any more.
fn open(path: &Path) -> Result<Option<File>, KeyRingError> {
    // Non-blocking, so that a pipe without a writer is refused instead of waited for.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        // A link, a folder, a socket.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
            return Err(KeyRingError::NotRegular { path: path.to_owned() });
        }
        Err(errno) => return Err(cannot("open", path, errno.into())),
    };
    let path = || path.to_owned();
    let stat = rustix::fs::fstat(&file).map_err(|errno| cannot("look at", &path(), errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(KeyRingError::NotRegular { path: path() });
    }
    if let Some(owner) = foreign(stat.st_uid, rustix::process::geteuid().as_raw()) {
        return Err(KeyRingError::Owner { path: path(), owner });
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(KeyRingError::Permissions { path: path(), mode: stat.st_mode & 0o7777 });
    }
    Ok(Some(file))
}

/// The owner of a ring, if it is somebody else. Also root's rings are not a user's, nor a user's root's: whose key it
/// is decides whose files it opens.
pub(super) fn foreign(owner: u32, own: u32) -> Option<u32> {
    (owner != own).then_some(owner)
}

fn bytes_of(path: &Path, mut file: &File) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let len = file.metadata().map_err(|error| cannot("look at", path, error))?.len();
    if len > Limits::RING_LEN_MAX {
        return Err(KeyRingError::TooLong { path: path.to_owned() });
    }
    // Room for all of it at once, and for one slot that a living owner appends meanwhile: a buffer that grows leaves
    // copies of keys behind.
    let room = usize::try_from(len).unwrap_or(0).saturating_add(READ_SLACK);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.by_ref().take(len).read_to_end(&mut bytes).map_err(|error| cannot("read", path, error))?;
    Ok(bytes)
}

/// Room beyond the length of a file, so that the read that finds its end does not make the buffer grow.
const READ_SLACK: usize = 64;

fn cannot(what: &'static str, path: &Path, source: io::Error) -> KeyRingError {
    KeyRingError::Io { what, path: path.to_owned(), source }
}
