//! The directories that a server exports, opened once at its start and refused there where they cannot be served
//! safely; and how a name in one becomes an open file. Paths are resolved in `beneath`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, Statx};
use rustix::io::Errno;
use rustix::path::DecInt;
use thiserror::Error;

use super::beneath::{NameIn, Root, reopen, resolve, resolve_link};
use super::files::{Descriptor, refusal};
use super::stat::{attributes_of, stat_of};
use crate::model::{
    Attributes, ExportName, ExportPath, FileIdentity, NameError, Protection, Reason, Refusal, Rights,
};

/// Why a server does not start with these exports.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// An argument that is not of the form `NAME=DIR`.
    #[error("{0:?} is no export: write NAME=DIR")]
    Argument(OsString),
    /// A name that no export can have.
    #[error("{name:?} is no name for an export: {reason}; use 1 to 64 of a-z A-Z 0-9 . _ -")]
    Name {
        /// What stands there.
        name: OsString,
        /// What is wrong with it.
        reason: NameError,
    },
    /// Two exports of one name.
    #[error("there are two exports \"{0}\"")]
    Double(ExportName),
    /// The root of the file system, which holds the keys of everything.
    #[error("export \"{0}\": \"/\" is never exported")]
    Root(ExportName),
    /// There is nothing there.
    #[error("export \"{name}\": there is no directory {path:?}")]
    Missing {
        /// The export.
        name: ExportName,
        /// Where it should be.
        path: PathBuf,
    },
    /// There is something else there.
    #[error("export \"{name}\": {path:?} is not a directory")]
    NotDirectory {
        /// The export.
        name: ExportName,
        /// Where it should be.
        path: PathBuf,
    },
    /// It is there and cannot be used.
    #[error("export \"{name}\": {path:?} cannot be opened")]
    Unusable {
        /// The export.
        name: ExportName,
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One directory is the other, or lies in it: one file would have two names and two sets of rights.
    #[error("the exports \"{first}\" ({first_path:?}) and \"{second}\" ({second_path:?}) overlap")]
    Overlap {
        /// The export that was named first.
        first: ExportName,
        /// Where it is.
        first_path: PathBuf,
        /// The other one.
        second: ExportName,
        /// Where that is.
        second_path: PathBuf,
    },
    /// Something is said of an export that is not served.
    #[error("there is no export \"{0}\" to protect")]
    Unknown(ExportName),
    /// A client could read, or write, what decides who the server is and whom it serves.
    #[error("export \"{name}\" ({path:?}) would serve the server's own {file:?}")]
    Settings {
        /// The export.
        name: ExportName,
        /// Where it is.
        path: PathBuf,
        /// The server's key file or list of clients.
        file: PathBuf,
    },
    /// The kernel cannot resolve paths safely.
    #[error("Linux 5.6 or newer is needed")]
    OldKernel,
    /// Descriptors cannot be opened again.
    #[error("\"/proc\" is needed: mount it")]
    NoProc(#[source] io::Error),
}

/// One exported directory.
#[derive(Debug)]
struct Export {
    name: ExportName,
    /// Opened once; what is renamed or mounted over its path later changes nothing.
    root: Root,
    /// Held by whoever relates a path in it to a file, and by whoever renames something in it alone.
    moves: RwLock<()>,
    /// Where it was found, without links.
    path: PathBuf,
    identity: FileIdentity,
    /// What it demands of its clients' data channels; [`Protection::Clear`]: nothing of its own.
    protection: Protection,
}

/// The exported directories, by their names.
#[derive(Debug)]
pub struct Exports {
    by_name: BTreeMap<ExportName, Export>,
    /// This process's table of descriptors, through which a file is opened a second time.
    descriptors: OwnedFd,
}

/// Where something is in an export, by the kernel's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// At this path, which has no link in it; empty for the top.
    At(Vec<u8>),
    /// It has no name in the export any more.
    Nowhere,
    /// The kernel does not tell.
    Unknown,
}

/// A file that was opened, and what it was at that moment.
#[derive(Debug)]
pub struct OpenedFile {
    /// The open file.
    pub file: Descriptor,
    /// Which file it is.
    pub identity: FileIdentity,
    /// Its size and times.
    pub attributes: Attributes,
}

/// The export that the argument `NAME=DIR` describes.
///
/// # Errors
/// [`ExportError::Argument`] if there is no `=` or nothing after it; [`ExportError::Name`].
pub fn parse_export_argument(argument: &OsStr) -> Result<(ExportName, PathBuf), ExportError> {
    let wrong = || ExportError::Argument(argument.to_owned());
    let mut parts = argument.as_bytes().splitn(2, |&byte| byte == b'=');
    let name = parts.next().ok_or_else(wrong)?;
    let path = parts.next().filter(|path| !path.is_empty()).ok_or_else(wrong)?;
    let parsed = str::from_utf8(name).map_err(|_| NameError::Byte).and_then(str::parse);
    let name =
        parsed.map_err(|reason| ExportError::Name { name: OsStr::from_bytes(name).to_owned(), reason })?;
    Ok((name, PathBuf::from(OsStr::from_bytes(path))))
}

impl Exports {
    /// Opens the directories, or refuses them all.
    ///
    /// # Errors
    /// [`ExportError`] with the first thing that is wrong.
    pub fn open(list: impl IntoIterator<Item = (ExportName, PathBuf)>) -> Result<Self, ExportError> {
        let descriptors = open_descriptor_table().map_err(|errno| ExportError::NoProc(errno.into()))?;
        let mut exports: Vec<Export> = Vec::new();
        for (name, path) in list {
            if exports.iter().any(|other| other.name == name) {
                return Err(ExportError::Double(name));
            }
            let export = open_export(&descriptors, name, &path)?;
            if let Some(other) = exports.iter().find(|other| other.overlaps(&export)) {
                return Err(ExportError::Overlap {
                    first: other.name.clone(),
                    first_path: other.path.clone(),
                    second: export.name,
                    second_path: export.path,
                });
            }
            exports.push(export);
        }
        let by_name = exports.into_iter().map(|export| (export.name.clone(), export)).collect();
        Ok(Self { by_name, descriptors })
    }

    /// Demands that the data channels of every client that may use the export are protected at least so, all of them:
    /// a data channel carries what a session reads and writes of all its files. Of several demands the strictest
    /// holds, and so do the server's and the list of clients' own.
    ///
    /// # Errors
    /// [`ExportError::Unknown`] if there is no such export; nothing is changed then.
    pub fn protect(&mut self, name: &ExportName, least: Protection) -> Result<(), ExportError> {
        let export = self.by_name.get_mut(name).ok_or_else(|| ExportError::Unknown(name.clone()))?;
        export.protection = export.protection.max(least);
        Ok(())
    }

    /// What each export demands of its clients' data channels.
    #[must_use]
    pub fn protection(&self) -> BTreeMap<ExportName, Protection> {
        self.by_name.iter().map(|(name, export)| (name.clone(), export.protection)).collect()
    }

    /// The names of the exports.
    pub fn names(&self) -> impl Iterator<Item = &ExportName> {
        self.by_name.keys()
    }

    /// Opens the regular file `path` of the export for what `rights` say: reading, writing or both. Never waits
    /// for anything but the file system: not for a pipe's writer, not for a device, not for the end of a lease.
    ///
    /// The first open has no rights and no effects, so that a pipe, a device or a socket is recognised before
    /// anything is done to it. The second open is of that same file, by its descriptor and not by its name.
    ///
    /// # Errors
    /// A [`Refusal`]: [`Reason::NotFound`], also for an unknown export; [`Reason::Invalid`] without a right to
    /// read or write; [`Reason::IsDirectory`], [`Reason::NotRegular`]; [`Reason::Outside`] if the path leads out
    /// of the export or into another file system; [`Reason::Busy`] if names in the path do not stop moving, or
    /// another program holds a lease on the file; else what the file system reports.
    pub fn open_file(
        &self,
        export: &ExportName,
        path: &ExportPath,
        rights: Rights,
    ) -> Result<OpenedFile, Refusal> {
        self.open_if(export, path, rights, |_| true)
    }

    /// As [`Exports::open_file`], if it is this file.
    ///
    /// # Errors
    /// [`Reason::Stale`] if it is another one, which is not opened.
    pub(super) fn open_same(
        &self,
        export: &ExportName,
        path: &ExportPath,
        rights: Rights,
        identity: FileIdentity,
    ) -> Result<OpenedFile, Refusal> {
        self.open_if(export, path, rights, |found| found == identity)
    }

    fn open_if(
        &self,
        export: &ExportName,
        path: &ExportPath,
        rights: Rights,
        is_wanted: impl FnOnce(FileIdentity) -> bool,
    ) -> Result<OpenedFile, Refusal> {
        let access = access_of(rights).ok_or(Reason::Invalid)?;
        let root = self.root(export)?;
        let found = resolve(root, path.as_bytes()).map_err(refusal)?;
        let identity = root.regular(&stat_of(&found).map_err(refusal)?)?;
        if !is_wanted(identity) {
            return Err(Reason::Stale.into());
        }
        let opened = OpenedFile::new(root, reopen(&self.descriptors, &found, access).map_err(refusal)?)?;
        if opened.identity != identity {
            // A descriptor that leads to another file than its own: nothing that it is asked can be trusted.
            return Err(Reason::Io.into());
        }
        Ok(opened)
    }

    /// Whether the file behind a descriptor could be opened for `rights` now, as far as its permissions go.
    pub(super) fn may_open_again(&self, file: BorrowedFd<'_>, rights: Rights) -> bool {
        let mut access = Access::empty();
        access.set(Access::READ_OK, rights.contains(Rights::READ));
        access.set(Access::WRITE_OK, rights.is_writing());
        rustix::fs::accessat(&self.descriptors, DecInt::from_fd(file), access, AtFlags::EACCESS).is_ok()
    }

    /// Keeps clients from renaming anything in the export as long as what is returned is there.
    ///
    /// # Errors
    /// [`Reason::NotFound`] for an unknown export.
    pub(super) fn still(&self, export: &ExportName) -> Result<RwLockReadGuard<'_, ()>, Refusal> {
        Ok(self.find(export)?.moves.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`Exports::still`], if nothing is being renamed at this moment.
    pub(super) fn try_still(&self, export: &ExportName) -> Option<RwLockReadGuard<'_, ()>> {
        match self.find(export).ok()?.moves.try_read() {
            Ok(still) => Some(still),
            Err(TryLockError::Poisoned(still)) => Some(still.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// For whoever renames something in the export: nobody relates a path in it to a file meanwhile.
    ///
    /// # Errors
    /// [`Reason::NotFound`] for an unknown export.
    pub(super) fn moving(&self, export: &ExportName) -> Result<RwLockWriteGuard<'_, ()>, Refusal> {
        Ok(self.find(export)?.moves.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where what a descriptor is open on is now, in the export.
    pub(super) fn whereabouts(&self, export: &ExportName, file: BorrowedFd<'_>) -> Whereabouts {
        self.find(export)
            .and_then(|export| self.locate(export, file).map_err(refusal))
            .unwrap_or(Whereabouts::Unknown)
    }

    /// The path of a name in the export, without links in it; the one that was asked for, where the kernel does not
    /// tell.
    pub(super) fn place_of(&self, export: &ExportName, name: &NameIn<'_>, asked: &ExportPath) -> Vec<u8> {
        match self.whereabouts(export, name.directory.as_fd()) {
            Whereabouts::At(directory) if directory.is_empty() => name.name.to_vec(),
            Whereabouts::At(directory) => [&directory, &b"/"[..], name.name].concat(),
            Whereabouts::Nowhere | Whereabouts::Unknown => asked.as_bytes().to_vec(),
        }
    }

    /// Refuses exports that hold `file`, which is the server's own: both the path that is given and, if that is a
    /// link, where it leads. What is not there yet is where its nearest folder is.
    ///
    /// # Errors
    /// [`ExportError::Settings`].
    pub fn keep_out(&self, file: &Path) -> Result<(), ExportError> {
        // Itself, and the folder that it is in or will be made in.
        let above = file.ancestors().skip(1);
        let folders = above.map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
        let folder = folders.into_iter().find_map(|folder| std::fs::canonicalize(folder).ok());
        for place in std::fs::canonicalize(file).into_iter().chain(folder) {
            // Not only by its name: a file system may be mounted in several places.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let held = |folder: &Path| rustix::fs::openat(CWD, folder, flags, Mode::empty()).ok();
            let above: Vec<Statx> =
                place.ancestors().filter_map(|folder| stat_of(held(folder)?).ok()).collect();
            let is_above =
                |export: &Export| above.iter().any(|stat| export.root.identity(stat) == export.identity);
            let holds = |export: &&Export| place.starts_with(&export.path) || is_above(export);
            if let Some(export) = self.by_name.values().find(holds) {
                return Err(ExportError::Settings {
                    name: export.name.clone(),
                    path: export.path.clone(),
                    file: file.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The root of an export.
    ///
    /// # Errors
    /// [`Reason::NotFound`] for an unknown export.
    pub(super) fn root(&self, export: &ExportName) -> Result<&Root, Refusal> {
        Ok(&self.find(export)?.root)
    }

    /// This process's table of descriptors, through which a held file is reached a second time.
    pub(super) fn descriptors(&self) -> &OwnedFd {
        &self.descriptors
    }

    fn find(&self, export: &ExportName) -> Result<&Export, Refusal> {
        self.by_name.get(export).ok_or_else(|| Reason::NotFound.into())
    }

    fn locate(&self, export: &Export, file: BorrowedFd<'_>) -> Result<Whereabouts, Errno> {
        let found = path_of(&self.descriptors, file)?;
        if !found.is_absolute() {
            // Outside of what the process sees.
            return Ok(Whereabouts::Unknown);
        }
        let beneath = match found.strip_prefix(&export.path) {
            Ok(beneath) => beneath.to_owned(),
            // The export itself may have been renamed.
            Err(_) => match found.strip_prefix(path_of(&self.descriptors, &export.root)?) {
                Ok(beneath) => beneath.to_owned(),
                Err(_) => return Ok(Whereabouts::Nowhere),
            },
        };
        let path = beneath.into_os_string().into_vec();
        if path.ends_with(DELETED) {
            // That is what the kernel says of a name that is gone; and a file can have such a name.
            let identity = |stat: Statx| export.root.identity(&stat);
            let named = resolve_link(&export.root, &path).and_then(stat_of).map(identity);
            if named != stat_of(file).map(identity) {
                return Ok(Whereabouts::Nowhere);
            }
        }
        Ok(ExportPath::new(path.clone()).map_or(Whereabouts::Unknown, |_| Whereabouts::At(path)))
    }
}

/// How a path ends, by the kernel's account, that leads nowhere any more.
const DELETED: &[u8] = b" (deleted)";

impl OpenedFile {
    /// What a descriptor is open on, if that is a regular file.
    pub(super) fn new(root: &Root, file: OwnedFd) -> Result<Self, Refusal> {
        let stat = stat_of(&file).map_err(refusal)?;
        let identity = root.regular(&stat)?;
        Ok(Self { file: Descriptor::new(file), identity, attributes: attributes_of(&stat) })
    }
}

impl Export {
    /// Whether one is the other, or lies in it; by place, and by identity for what is mounted twice.
    fn overlaps(&self, other: &Self) -> bool {
        self.identity == other.identity
            || self.path.starts_with(&other.path)
            || other.path.starts_with(&self.path)
    }
}

/// How a file is opened for `rights`; `None` if they neither read nor write.
pub(super) fn access_of(rights: Rights) -> Option<OFlags> {
    match (rights.contains(Rights::READ), rights.is_writing()) {
        (true, true) => Some(OFlags::RDWR),
        (true, false) => Some(OFlags::RDONLY),
        (false, true) => Some(OFlags::WRONLY),
        (false, false) => None,
    }
}

/// Opens this process's table of descriptors, if that is what is there.
fn open_descriptor_table() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let table = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
    let is_proc = rustix::fs::fstatfs(&table)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
    if is_proc { Ok(table) } else { Err(Errno::NOENT) }
}

fn open_export(descriptors: &OwnedFd, name: ExportName, path: &Path) -> Result<Export, ExportError> {
    let failed = |errno: Errno| export_error(name.clone(), path, errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let root = Root::new(root).map_err(failed)?;
    let identity = root.identity(&stat_of(&root).map_err(failed)?);
    let found = path_of(descriptors, &root).map_err(failed)?;
    let top = rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(failed)?;
    let top = stat_of(&top).map_err(failed)?;
    if found == Path::new("/") || identity == root.identity(&top) {
        return Err(ExportError::Root(name));
    }
    // Proves, before a client asks, that the kernel has what every later open needs.
    resolve(&root, b".").map_err(failed)?;
    Ok(Export { name, root, moves: RwLock::new(()), path: found, identity, protection: Protection::Clear })
}

/// Where a descriptor's directory is, by the kernel's account: absolute and without links.
fn path_of(descriptors: &OwnedFd, directory: impl AsFd) -> Result<PathBuf, Errno> {
    let link = rustix::fs::readlinkat(descriptors, DecInt::from_fd(directory.as_fd()), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(link.into_bytes())))
}

fn export_error(name: ExportName, path: &Path, errno: Errno) -> ExportError {
    let path = path.to_owned();
    match errno {
        Errno::NOENT => ExportError::Missing { name, path },
        Errno::NOTDIR => ExportError::NotDirectory { name, path },
        Errno::NOSYS => ExportError::OldKernel,
        errno => ExportError::Unusable { name, path, source: errno.into() },
    }
}

#[cfg(test)]
mod tests;
