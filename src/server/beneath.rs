//! How a client's path becomes a descriptor: by the kernel, beneath an export's root, in one step (`openat2`). It does
//! not climb, follow links out, pass through `/proc` or cross into another file system, whatever other programs rename
//! meanwhile.
//!
//! What makes, removes or renames a name takes the directory's descriptor from here and then a name of one component
//! relative to it: such a name can neither climb nor be followed. Nothing takes a path in two steps, and nothing
//! compares paths of clients as text.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::files::{identity_of, refusal};
use crate::model::{ExportPath, FileIdentity, Reason, Refusal};

/// How often a path is resolved again because names in it moved meanwhile. Whoever moves them all the time keeps
/// one request busy this long, and no longer.
pub(super) const RESOLVE_ATTEMPTS_MAX: u32 = 16;

/// How far a path may lead.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// A descriptor without rights and without effects: a pipe, a device or a socket does not notice it.
const BARE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The directory of a name, held, and the name in it.
#[derive(Debug)]
pub(super) struct NameIn<'a> {
    /// The directory.
    pub(super) directory: OwnedFd,
    /// One component.
    pub(super) name: &'a [u8],
}

/// Finds what `path` names beneath `root`, links followed, without opening it for anything.
pub(super) fn resolve(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, BARE, Mode::empty())
}

/// Finds what `path` names beneath `root`; a symbolic link in the last place is found itself.
pub(super) fn resolve_link(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, BARE.union(OFlags::NOFOLLOW), Mode::empty())
}

/// Opens a directory beneath `root` for reading its names.
pub(super) fn open_directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    open(root, path, flags, Mode::empty())
}

/// Holds the directory of a name.
///
/// # Errors
/// [`Reason::Invalid`] for the root itself, which is a name in no directory of its export; else what the file system
/// reports.
pub(super) fn name_in<'a>(root: &OwnedFd, path: &'a ExportPath) -> Result<NameIn<'a>, Refusal> {
    let (directory, name) = path.split_last().ok_or(Reason::Invalid)?;
    let directory = open(root, directory, BARE.union(OFlags::DIRECTORY), Mode::empty()).map_err(refusal)?;
    Ok(NameIn { directory, name })
}

impl NameIn<'_> {
    /// Which file the name stands for, a link not followed; `None` if there is no such name.
    ///
    /// A name on which something is mounted stands for what is outside, and is refused as such.
    pub(super) fn identity(&self) -> Result<Option<FileIdentity>, Errno> {
        Ok(self.find()?.map(|(_, stat)| identity_of(&stat)))
    }

    /// Whether the name stands for a symbolic link.
    pub(super) fn is_link(&self) -> Result<bool, Errno> {
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        Ok(self.find()?.is_some_and(|(_, stat)| is_link(stat)))
    }

    /// Holds what the name stands for, a link not followed; `None` if there is no such name.
    pub(super) fn find(&self) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        match resolve_link(&self.directory, self.name) {
            Ok(found) => rustix::fs::fstat(&found).map(|stat| Some((found, stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a file of this name and opens it. It is a regular file, because there was nothing of this name before.
    pub(super) fn create(&self, access: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        open(&self.directory, self.name, access | new | OFlags::CLOEXEC | OFlags::NOCTTY, mode)
    }
}

/// Opens the file behind a descriptor again, for `access`, through the table of this process's descriptors.
pub(super) fn reopen(descriptors: &OwnedFd, found: &OwnedFd, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::io::retry_on_intr(|| {
        rustix::fs::openat(descriptors, DecInt::from_fd(found), flags, Mode::empty())
    })
}

/// The identity of a regular file; anything else is refused.
pub(super) fn regular(stat: &Stat) -> Result<FileIdentity, Reason> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(identity_of(stat)),
        FileType::Directory => Err(Reason::IsDirectory),
        _ => Err(Reason::NotRegular),
    }
}

fn open(root: &OwnedFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // The kernel has no name for "here" but this one.
    let path = if path.is_empty() { b"." } else { path };
    retry_moved(|| rustix::fs::openat2(root, path, flags, mode, RESOLVE))
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
