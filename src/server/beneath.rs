//! How a client's path becomes a descriptor: by the kernel, beneath an export's root, in one step (`openat2`). It does
//! not climb, follow links out, pass through `/proc` or cross into another file system, whatever other programs rename
//! meanwhile.
//!
//! What makes, removes or renames a name takes the directory's descriptor from here and then a name of one component
//! relative to it: such a name can neither climb nor be followed. Nothing takes a path in two steps, and nothing
//! compares paths of clients as text.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::files::refusal;
use super::stat::{Births, file_type, identity_of, stat_of};
use crate::model::{ExportPath, FileIdentity, Reason, Refusal};

/// How often a path is resolved again because names in it moved meanwhile. Whoever moves them all the time keeps
/// one request busy this long, and no longer.
pub(super) const RESOLVE_ATTEMPTS_MAX: u32 = 16;

/// How far a path may lead.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// A descriptor without rights and without effects: a pipe, a device or a socket does not notice it.
const BARE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The top of an export: nothing above it is reached, and nothing beneath it lies on another file system.
#[derive(Debug)]
pub(super) struct Root {
    top: OwnedFd,
    births: Births,
}

/// The directory of a name, held, and the name in it.
#[derive(Debug)]
pub(super) struct NameIn<'a> {
    /// The directory.
    pub(super) directory: OwnedFd,
    /// One component.
    pub(super) name: &'a [u8],
    /// The export that it is in.
    pub(super) root: &'a Root,
}

impl Root {
    /// The top of the export that `top` is open on.
    pub(super) fn new(top: OwnedFd) -> Result<Self, Errno> {
        Ok(Self { births: Births::of(&top)?, top })
    }

    /// Which file of the export it is.
    pub(super) fn identity(&self, stat: &Statx) -> FileIdentity {
        identity_of(stat, self.births)
    }

    /// Which regular file of the export it is; anything else is refused.
    pub(super) fn regular(&self, stat: &Statx) -> Result<FileIdentity, Reason> {
        match file_type(stat) {
            FileType::RegularFile => Ok(self.identity(stat)),
            FileType::Directory => Err(Reason::IsDirectory),
            _ => Err(Reason::NotRegular),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// Finds what `path` names beneath `root`, links followed, without opening it for anything.
pub(super) fn resolve(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, BARE, Mode::empty())
}

/// Finds what `path` names beneath `root`; a symbolic link in the last place is found itself.
pub(super) fn resolve_link(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, BARE.union(OFlags::NOFOLLOW), Mode::empty())
}

/// Opens a directory beneath `root` for reading its names.
pub(super) fn open_directory(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    open(root, path, flags, Mode::empty())
}

/// Holds the directory of a name.
///
/// # Errors
/// [`Reason::Invalid`] for the root itself, which is a name in no directory of its export; else what the file system
/// reports.
pub(super) fn name_in<'a>(root: &'a Root, path: &'a ExportPath) -> Result<NameIn<'a>, Refusal> {
    let (directory, name) = path.split_last().ok_or(Reason::Invalid)?;
    let directory = open(root, directory, BARE.union(OFlags::DIRECTORY), Mode::empty()).map_err(refusal)?;
    Ok(NameIn { directory, name, root })
}

impl NameIn<'_> {
    /// Which file that is that was found by the name.
    pub(super) fn identity_of(&self, found: Option<&(OwnedFd, Statx)>) -> Option<FileIdentity> {
        found.map(|(_, stat)| self.root.identity(stat))
    }

    /// Whether the name stands for a symbolic link.
    pub(super) fn is_link(&self) -> Result<bool, Errno> {
        Ok(self.find()?.is_some_and(|(_, stat)| file_type(&stat) == FileType::Symlink))
    }

    /// Holds what the name stands for, a link not followed; `None` if there is no such name.
    ///
    /// A name on which something is mounted stands for what is outside, and is refused as such.
    pub(super) fn find(&self) -> Result<Option<(OwnedFd, Statx)>, Errno> {
        match resolve_link(&self.directory, self.name) {
            Ok(found) => stat_of(&found).map(|stat| Some((found, stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a file of this name and opens it. It is a regular file, because there was nothing of this name before.
    pub(super) fn create(&self, access: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        open(&self.directory, self.name, access | new | OFlags::CLOEXEC | OFlags::NOCTTY, mode)
    }

    /// Makes a file in the name's directory that has no name yet, and opens it.
    pub(super) fn create_unnamed(&self, access: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        open(&self.directory, b"", access | OFlags::TMPFILE | OFlags::CLOEXEC | OFlags::NOCTTY, mode)
    }
}

/// Opens the file behind a descriptor again, for `access`, through the table of this process's descriptors.
pub(super) fn reopen(descriptors: &OwnedFd, found: &OwnedFd, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::io::retry_on_intr(|| {
        rustix::fs::openat(descriptors, DecInt::from_fd(found), flags, Mode::empty())
    })
}

fn open(root: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // The kernel has no name for "here" but this one.
    let path = if path.is_empty() { b"." } else { path };
    retry_moved(|| rustix::fs::openat2(&root, path, flags, mode, RESOLVE))
}

/// Tries again, a bounded number of times, while the kernel says that names moved under it.
pub(super) fn retry_moved<T>(mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..RESOLVE_ATTEMPTS_MAX {
        match attempt() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            outcome => return outcome,
        }
    }
    attempt()
}
