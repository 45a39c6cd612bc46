//! Files that hold a secret key: made so that nobody else can read them, and refused when somebody else could.
//!
//! A new file gets its name only when it is complete and on the disk, and never takes the place of one that is
//! there (nor of a link that somebody planted): losing a key means losing the name by which others know it.
//! Whether the text is a key is for the caller to say.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;
use zeroize::Zeroizing;

use super::SystemEntropy;
use crate::model::{Entropy, EntropyError};

/// Longest key file, in bytes: many times the length of an identity's text.
pub const LEN_MAX: u64 = 4096;

/// Why a key file was not made or not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The path does not end in a file's name.
    #[error("{path:?} names no file: give the path of the key file")]
    NoName {
        /// The path that was given.
        path: PathBuf,
    },
    /// Something has the name already; it was left alone.
    #[error("{path:?} exists already: choose another path, or move it away if nobody knows its key any more")]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// The folder could not be made or opened.
    #[error("cannot use the folder {path:?}: check that it is a folder and that you may write to it")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else is changing files in the folder, and does not come to an end.
    #[error("another program has held the lock on the folder {path:?} for 10 s: end it, or try again later")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The file could not be written; there is no file of this name now.
    #[error("cannot write the key file {path:?}: check the folder's file system and its free space")]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No name for the unfinished file could be made.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// There is no such file.
    #[error("there is no key file {path:?}: make one, or give the path of yours")]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The file could not be opened or read.
    #[error("cannot read the key file {path:?}: check that you may read it")]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a pipe, a device or a socket.
    #[error("the key file {path:?} is not a regular file: give the path of the key file itself")]
    NotRegular {
        /// The key file.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "the key file {path:?} belongs to user {owner}: chown it to the user who runs this, or make a new one"
    )]
    Owner {
        /// The key file.
        path: PathBuf,
        /// The number of the user that it belongs to.
        owner: u32,
    },
    /// Others than its owner can use it.
    #[error("others can use the key file {path:?} (its mode is {mode:04o}): chmod 600 {}", path.display())]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is longer than any key file.
    #[error("the key file {path:?} has more than {LEN_MAX} bytes: give the path of a key file")]
    TooLong {
        /// The key file.
        path: PathBuf,
    },
    /// Another server uses it.
    #[error("the key file {path:?} is in use by another server: give each server an identity of its own")]
    InUse {
        /// The key file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("the key file {path:?} is not a text: give the path of a key file")]
    NotText {
        /// The key file.
        path: PathBuf,
    },
}

/// Makes the key file `path` with `text` and a line end in it, for its owner's eyes only (mode 0600, whatever
/// the umask). Folders that are missing are made, for their owner only too (mode 0700).
///
/// When this returns without error, the file is on the disk; otherwise `path` is as it was. Only a crash can
/// leave an unfinished file, under a name of its own that starts with `.new-`.
///
/// # Errors
/// [`KeyFileError::Exists`] if anything has the name, also a link that leads nowhere; [`KeyFileError::NoName`],
/// [`KeyFileError::Folder`], [`KeyFileError::Write`], [`KeyFileError::Entropy`].
pub fn create(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let name = path.file_name().ok_or_else(|| KeyFileError::NoName { path: path.to_owned() })?;
    let folder = folder_of(path);
    make_folders(folder)?;
    let folder = open_folder(folder)?;
    let unfinished = unfinished_name()?;
    let made = write_new(&folder, &unfinished, text).and_then(|()| publish(&folder, &unfinished, name));
    // Also after success: the file has its final name beside this one. A failure here cannot be helped.
    let removed = rustix::fs::unlinkat(&folder, &unfinished, AtFlags::empty());
    match made.and(removed).and_then(|()| rustix::fs::fsync(&folder)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(KeyFileError::Exists { path: path.to_owned() }),
        Err(errno) => Err(KeyFileError::Write { path: path.to_owned(), source: errno.into() }),
    }
}

/// Reads the key file `path`, without the line end at its end. The file is opened once, and what is checked is
/// what is read. Links are followed: what they lead to is checked.
///
/// # Errors
/// [`KeyFileError::Missing`], [`KeyFileError::Read`], [`KeyFileError::NotRegular`]; [`KeyFileError::Owner`] if
/// it belongs neither to the user who runs this nor to root; [`KeyFileError::Permissions`] if group or others
/// have any right to it; [`KeyFileError::TooLong`] beyond [`LEN_MAX`]; [`KeyFileError::NotText`].
pub fn read(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    read_text(path, &open(path)?)
}

/// Opens a key file, and refuses what is none.
fn open(path: &Path) -> Result<File, KeyFileError> {
    // Non-blocking, so that a pipe without a writer is refused instead of waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(KeyFileError::Missing { path: path.to_owned() }),
        // A socket, or a device without a driver.
        Err(Errno::NXIO) => return Err(KeyFileError::NotRegular { path: path.to_owned() }),
        Err(errno) => return Err(KeyFileError::Read { path: path.to_owned(), source: errno.into() }),
    };
    check(path, &file)?;
    Ok(file)
}

/// The text of an open key file, without the line end at its end.
fn read_text(path: &Path, file: &File) -> Result<Zeroizing<String>, KeyFileError> {
    let cannot_read = |source: io::Error| KeyFileError::Read { path: path.to_owned(), source };
    // Room for all of it at once: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(5000));
    file.take(LEN_MAX + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if crate::model::len_u64(bytes.len()) > LEN_MAX {
        return Err(KeyFileError::TooLong { path: path.to_owned() });
    }
    let text = str::from_utf8(&bytes).map_err(|_| KeyFileError::NotText { path: path.to_owned() })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// A key file that is in use. Dropping it, or the end of the process, lets the next one use it.
#[derive(Debug)]
pub struct KeyLock {
    /// The lock belongs to the open file: it is held as long as this is open.
    _file: File,
}

/// Reads the key file `path` as [`read`] does, and keeps others that ask for the same from it. It is for a server,
/// which holds its opens alone: two of one identity would each deny what the other has granted.
///
/// # Errors
/// As [`read`]; [`KeyFileError::InUse`] if another process holds it.
pub fn read_locked(path: &Path) -> Result<(Zeroizing<String>, KeyLock), KeyFileError> {
    let file = open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(KeyFileError::InUse { path: path.to_owned() }),
        Err(errno) => return Err(KeyFileError::Read { path: path.to_owned(), source: errno.into() }),
    }
    let text = read_text(path, &file)?;
    Ok((text, KeyLock { _file: file }))
}

/// Refuses a file that is no key file, or that others than its owner can use.
fn check(path: &Path, file: &File) -> Result<(), KeyFileError> {
    let path = || path.to_owned();
    let stat =
        rustix::fs::fstat(file).map_err(|errno| KeyFileError::Read { path: path(), source: errno.into() })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(KeyFileError::NotRegular { path: path() });
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != 0 {
        return Err(KeyFileError::Owner { path: path(), owner: stat.st_uid });
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path(), mode: stat.st_mode & 0o7777 });
    }
    if u64::try_from(stat.st_size).unwrap_or(0) > LEN_MAX {
        return Err(KeyFileError::TooLong { path: path() });
    }
    Ok(())
}

/// The folder that a path's last component is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Makes what is missing of `folder`, from the top.
pub(crate) fn make_folders(folder: &Path) -> Result<(), KeyFileError> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty())
        .take_while(|part| matches!(rustix::fs::stat(*part), Err(Errno::NOENT)))
        .collect();
    for part in missing.into_iter().rev() {
        let cannot = |errno: Errno| KeyFileError::Folder { path: part.to_owned(), source: errno.into() };
        match rustix::fs::mkdir(part, Mode::RWXU) {
            // The umask may have taken bits away.
            Ok(()) => rustix::fs::chmod(part, Mode::RWXU).map_err(cannot)?,
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(cannot(errno)),
        }
        sync_folder(folder_of(part))?;
    }
    Ok(())
}

/// Waits until what was made, renamed and removed in `folder` is on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), KeyFileError> {
    rustix::fs::fsync(open_folder(folder)?)
        .map_err(|errno| KeyFileError::Folder { path: folder.to_owned(), source: errno.into() })
}

pub(super) fn open_folder(folder: &Path) -> Result<OwnedFd, KeyFileError> {
    rustix::fs::openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| KeyFileError::Folder { path: folder.to_owned(), source: errno.into() })
}

/// A name that nobody else uses.
pub(super) fn unfinished_name() -> Result<OsString, EntropyError> {
    let number = u64::from_le_bytes(SystemEntropy.bytes()?);
    Ok(format!(".new-{number:016x}").into())
}

/// Writes the whole file under its first name, to the disk.
fn write_new(folder: &OwnedFd, name: &OsStr, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(folder, name, flags, mode)?);
    // The umask may have taken bits away.
    rustix::fs::fchmod(&file, mode)?;
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(errno)?;
    file.sync_all().map_err(errno)
}

/// Gives the finished file its name. A link, where a rename would take the place of what has the name.
fn publish(folder: &OwnedFd, from: &OsStr, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::linkat(folder, from, folder, name, AtFlags::empty())
}

#[cfg(test)]
mod tests;
