//! A small file that takes the place of an old one as a whole: whoever reads sees the one or the other.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::key_file::{KeyFileError, folder_of, make_folders, open_folder, unfinished_name};

/// A file to be replaced, in a folder that is locked among those that do the same, so that what is read under the
/// lock is what is replaced.
#[derive(Debug)]
pub(crate) struct Replacement {
    folder: OwnedFd,
    /// Where the file is, links followed.
    path: PathBuf,
}

/// How often the lock is tried, and how long after a try the next one comes: 10 s in all.
const LOCK_TRIES: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl Replacement {
    /// Waits for the lock on the folder of `path`, which is made if it is missing. A link is followed, so that it stays
    /// one. Whoever can open the folder can take the lock, so the wait is bounded. It blocks the thread.
    ///
    /// # Errors
    /// [`KeyFileError::Folder`]; [`KeyFileError::Locked`] after 10 s.
    pub(crate) fn begin(path: &Path) -> Result<Self, KeyFileError> {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = folder_of(&path);
        make_folders(folder)?;
        let opened = open_folder(folder)?;
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { folder: opened, path }),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(errno) => {
                    return Err(KeyFileError::Folder { path: folder.to_owned(), source: errno.into() });
                }
            }
        }
        Err(KeyFileError::Locked { path: folder.to_owned() })
    }

    /// Where the file is, links followed.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `text` in the file's place, on the disk. A new file is its owner's alone; one that was there keeps its
    /// owner and its permissions.
    ///
    /// # Errors
    /// What the system says, and the file is as it was.
    pub(crate) fn finish(self, text: &str) -> io::Result<()> {
        let unfinished = unfinished_name().map_err(io::Error::other)?;
        let written = self.write(&unfinished, text);
        if written.is_err() {
            // What cannot be removed either is left under a name that nobody reads.
            let _removed = rustix::fs::unlinkat(&self.folder, &unfinished, AtFlags::empty());
        }
        written
    }

    fn write(&self, unfinished: &OsStr, text: &str) -> io::Result<()> {
        let name = self.path.file_name().ok_or(Errno::INVAL)?;
        let old = match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Some(stat),
            // A folder, a device, or a link that leads nowhere.
            Ok(_) => return Err(io::Error::other("this is not a regular file")),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let owner_s = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.folder, unfinished, flags, owner_s)?);
        // The umask may have taken bits away.
        rustix::fs::fchmod(&file, owner_s)?;
        file.write_all(text.as_bytes())?;
        if let Some(old) = old {
            take_after(&file, &old)?;
        }
        file.sync_all()?;
        rustix::fs::renameat(&self.folder, unfinished, &self.folder, name)?;
        Ok(rustix::fs::fsync(self.folder.as_fd())?)
    }
}

/// Gives a file the owner and the permissions of another one.
fn take_after(file: &File, old: &Stat) -> io::Result<()> {
    let new = rustix::fs::fstat(file)?;
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
        rustix::fs::fchown(file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))?;
    }
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(old.st_mode & 0o777))?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn replace(path: &Path, text: &str) -> io::Result<()> {
        Replacement::begin(path).unwrap().finish(text)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owner_s_and_an_old_one_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        replace(&path, "one\n").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        replace(&path, "two\n").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two\n", 0o644));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing unfinished is left: {names:?}");
    }

    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("link"), folder.path().join("real"));
        fs::create_dir(&real).unwrap();
        fs::write(real.join("file"), "one").unwrap();
        symlink("real/file", &link).unwrap();
        replace(&link, "two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(real.join("file")).unwrap(), "two");
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, "text").is_err());
        assert!(path.is_dir());
        let nowhere = folder.path().join("nowhere");
        symlink("missing", &nowhere).unwrap();
        assert!(replace(&nowhere, "text").is_err());
        assert!(fs::symlink_metadata(&nowhere).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        fs::write(folder.path().join("text"), "").unwrap();
        let below = Replacement::begin(&folder.path().join("text/file"));
        assert!(matches!(below, Err(KeyFileError::Folder { .. })));
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        // Each adds to what it has read: none is lost.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let replacement = Replacement::begin(&path).unwrap();
                        let text = fs::read_to_string(replacement.path()).unwrap();
                        replacement.finish(&(text + "x")).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "x".repeat(80));
    }
}
