//! Names and what they stand for: looked up, made, removed and renamed.
//!
//! Whatever changes a name holds the name's directory, and then makes one system call with a name of one component.
//! Among the changes that clients ask for, looking at a name and changing it is one step: they hold the lock of the
//! directory for both. Programs on the server do not, so a name can change between the look and the call; what is
//! changed then is still a name of that directory.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::beneath::{NameIn, RESOLVE_ATTEMPTS_MAX, Root, name_in, resolve, resolve_link};
use super::change::{ModePolicy, attributes_now, change_found, changeable};
use super::descriptors::Descriptors;
use super::exports::{Exports, OpenedFile, access_of};
use super::files::refusal;
use super::listing::{self, CookieKey};
use super::stat::{file_type, stat_of};
use crate::model::{
    AttributeChange, Attributes, Create, ExportName, ExportPath, FileIdentity, LinkTarget, NameState, Reason,
    Refusal, Removal, RenameHow, Rights, Space, len_u64,
};
use crate::wire::names::{Cookie, HardLink, List, MakeDirectory, Place, Remove, Rename, Symlink};

/// How many directories can have their names changed at once. More of them than there are threads for file work, so
/// that two directories rarely wait for each other.
const LOCKS: usize = 128;

/// What became of a change of names that was decided on by what the names stood for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was made.
    Done,
    /// A name stands for another file than it did; nothing was changed.
    Moved,
}

/// All names that clients can use, and the rules for them.
#[derive(Debug)]
pub(super) struct Names {
    exports: Arc<Exports>,
    files: Arc<Descriptors>,
    modes: ModePolicy,
    cookies: CookieKey,
    locks: NameLocks,
}

impl Names {
    /// The names of `exports`, of which `files` are open. `cookie_key` is random.
    pub(super) fn new(
        exports: Arc<Exports>,
        files: Arc<Descriptors>,
        modes: ModePolicy,
        cookie_key: [u8; CookieKey::LEN],
    ) -> Self {
        Self { exports, files, modes, cookies: CookieKey::new(cookie_key), locks: NameLocks::new() }
    }

    /// Opens a regular file, and makes it before if `create` says so. A symbolic link in the last place is followed
    /// to a file that is there; nothing is made at the end of one.
    ///
    /// # Errors
    /// As [`Exports::open_file`]. [`Reason::IsDirectory`] for the root; [`Reason::Exists`] with [`Create::New`] if
    /// there is anything of this name; [`Reason::NotFound`] without a directory for it, and with
    /// [`Create::IfMissing`] for a symbolic link that leads to nothing; [`Reason::Busy`] if the name comes and goes.
    pub(super) fn open_file(
        &self,
        export: &ExportName,
        path: &ExportPath,
        rights: Rights,
        create: Create,
        permissions: u32,
    ) -> Result<OpenedFile, Refusal> {
        let access = access_of(rights).ok_or(Reason::Invalid)?;
        let root = self.exports.root(export)?;
        if path.is_root() {
            return Err(Reason::IsDirectory.into());
        }
        let make = |name: &NameIn<'_>| name.create(access, self.modes.file(permissions));
        match create {
            Create::Never => self.exports.open_file(export, path, rights),
            Create::New => {
                let name = name_in(root, path)?;
                let _turn = self.locks.hold(&[&name])?;
                OpenedFile::new(root, make(&name).map_err(refusal)?)
            }
            Create::IfMissing => {
                let mut leads_nowhere = false;
                for _ in 0..RESOLVE_ATTEMPTS_MAX {
                    match self.exports.open_file(export, path, rights) {
                        Err(refused) if refused.reason == Reason::NotFound && !leads_nowhere => {}
                        outcome => return outcome,
                    }
                    let name = name_in(root, path)?;
                    let _turn = self.locks.hold(&[&name])?;
                    match make(&name) {
                        Err(Errno::EXIST) => leads_nowhere = name.is_link().map_err(refusal)?,
                        made => return OpenedFile::new(root, made.map_err(refusal)?),
                    }
                }
                Err(Reason::Busy.into())
            }
        }
    }

    /// Makes a file without a name where `path` is to name it, if the file system can; and tells how the name is before.
    ///
    /// # Errors
    /// As [`Names::open_file`]; [`Reason::Exists`] if there is anything of this name already.
    pub(super) fn make_file(
        &self,
        export: &ExportName,
        path: &ExportPath,
        rights: Rights,
        permissions: u32,
    ) -> Result<(NameState, Option<OpenedFile>), Refusal> {
        let access = access_of(rights).ok_or(Reason::Invalid)?;
        let root = self.exports.root(export)?;
        if path.is_root() {
            return Err(Reason::IsDirectory.into());
        }
        let before = state_of(root, path)?;
        if before.file.is_some() {
            return Err(Reason::Exists.into());
        }
        let name = name_in(root, path)?;
        match name.create_unnamed(access, self.modes.file(permissions)) {
            Ok(file) => OpenedFile::new(root, file).map(|made| (before, Some(made))),
            // Not every file system can, and each says so in its own way.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                Ok((before, None))
            }
            Err(errno) => Err(refusal(errno)),
        }
    }

    /// Gives a file that was made without a name its name, if there is nothing of this name.
    ///
    /// # Errors
    /// [`Reason::Exists`], and what the file system reports.
    pub(super) fn name_file(
        &self,
        export: &ExportName,
        path: &ExportPath,
        made: OpenedFile,
    ) -> Result<OpenedFile, Refusal> {
        let name = name_in(self.exports.root(export)?, path)?;
        let _turn = self.locks.hold(&[&name])?;
        let own = DecInt::from_fd(&made.file);
        let descriptors = self.exports.descriptors();
        rustix::fs::linkat(descriptors, own, &name.directory, name.name, AtFlags::SYMLINK_FOLLOW)
            .map_err(refusal)?;
        Ok(made)
    }

    /// What a name stands for; a symbolic link in the last place is followed if `follow` says so.
    pub(super) fn lookup(&self, place: &Place, follow: bool) -> Result<Attributes, Refusal> {
        let root = self.exports.root(&place.export)?;
        let find = if follow { resolve } else { resolve_link };
        attributes_now(&find(root, place.path.as_bytes()).map_err(refusal)?)
    }

    /// What `names` stand for, links in the last place not followed.
    pub(super) fn identify(
        &self,
        export: &ExportName,
        names: &[ExportPath],
    ) -> Result<Vec<NameState>, Refusal> {
        let root = self.exports.root(export)?;
        names.iter().map(|path| state_of(root, path)).collect()
    }

    /// A page of a directory, and where it goes on.
    pub(super) fn list(&self, list: &List) -> Result<(Vec<u8>, Option<Cookie>), Refusal> {
        listing::page(self.exports.root(&list.place.export)?, list, &self.cookies)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// [`Reason::Invalid`] for what is no symbolic link.
    pub(super) fn read_link(&self, place: &Place) -> Result<LinkTarget, Refusal> {
        let link = resolve_link(self.exports.root(&place.export)?, place.path.as_bytes()).map_err(refusal)?;
        if file_type(&stat_of(&link).map_err(refusal)?) != FileType::Symlink {
            return Err(Reason::Invalid.into());
        }
        // The link itself is held: no name is needed any more.
        let target = rustix::fs::readlinkat(&link, c"", Vec::new()).map_err(refusal)?;
        LinkTarget::new(target.into_bytes()).map_err(|_| Reason::Io.into())
    }

    /// How full the file system of a name is.
    pub(super) fn space(&self, place: &Place) -> Result<Space, Refusal> {
        let found = resolve(self.exports.root(&place.export)?, place.path.as_bytes()).map_err(refusal)?;
        let stat = rustix::fs::fstatvfs(&found).map_err(refusal)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space {
            total: bytes(stat.f_blocks),
            free: bytes(stat.f_bfree),
            available: bytes(stat.f_bavail),
            files_total: stat.f_files,
            files_free: stat.f_ffree,
        })
    }

    /// Changes what a name stands for, a link followed: a file or a directory, whose length is not changed so.
    pub(super) fn change(&self, place: &Place, change: &AttributeChange) -> Result<Attributes, Refusal> {
        change_found(self.exports.descriptors(), &self.find(place)?, change, self.modes)
    }

    /// Holds the file or the directory that a name stands for, a link followed.
    ///
    /// # Errors
    /// [`Reason::NotRegular`] for anything else.
    pub(super) fn find(&self, place: &Place) -> Result<OwnedFd, Refusal> {
        changeable(resolve(self.exports.root(&place.export)?, place.path.as_bytes()).map_err(refusal)?)
    }

    /// The rules for modes.
    pub(super) fn modes(&self) -> ModePolicy {
        self.modes
    }

    /// Makes a directory.
    pub(super) fn make_directory(&self, make: &MakeDirectory) -> Result<(), Refusal> {
        let name = name_in(self.exports.root(&make.place.export)?, &make.place.path)?;
        let _turn = self.locks.hold(&[&name])?;
        rustix::fs::mkdirat(&name.directory, name.name, self.modes.directory(make.permissions))
            .map_err(refusal)
    }

    /// Makes a symbolic link. It may lead anywhere: where it leads out, nothing follows it.
    pub(super) fn symlink(&self, symlink: &Symlink) -> Result<(), Refusal> {
        let name = name_in(self.exports.root(&symlink.place.export)?, &symlink.place.path)?;
        let _turn = self.locks.hold(&[&name])?;
        rustix::fs::symlinkat(symlink.target.as_bytes(), &name.directory, name.name).map_err(refusal)
    }

    /// Gives a regular file a further name.
    ///
    /// # Errors
    /// [`Reason::IsDirectory`], [`Reason::NotRegular`] for anything else.
    pub(super) fn hard_link(&self, link: &HardLink) -> Result<(), Refusal> {
        let root = self.exports.root(&link.export)?;
        let (from, to) = (name_in(root, &link.from)?, name_in(root, &link.to)?);
        let _turn = self.locks.hold(&[&from, &to])?;
        let (file, stat) = from.find().map_err(refusal)?.ok_or(Reason::NotFound)?;
        root.regular(&stat)?;
        // The file that was looked at gets the name, and not what its name may stand for by now.
        let own = DecInt::from_fd(&file);
        let descriptors = self.exports.descriptors();
        rustix::fs::linkat(descriptors, own, &to.directory, to.name, AtFlags::SYMLINK_FOLLOW).map_err(refusal)
    }

    /// Removes a name, if it stands for `expected`. What is open there stays open.
    ///
    /// # Errors
    /// [`Reason::IsDirectory`] and [`Reason::NotDirectory`] for a name of the other kind; [`Reason::NotEmpty`];
    /// [`Reason::Exhausted`] if too many files are open that have no name.
    pub(super) fn remove(&self, remove: &Remove, expected: FileIdentity) -> Result<Outcome, Refusal> {
        let export = &remove.place.export;
        let name = name_in(self.exports.root(export)?, &remove.place.path)?;
        let leaving = self.files.keep_open(export, &name, &remove.place.path)?;
        // Let go of last: to give a file's storage back can take long.
        let found;
        let _turn = self.locks.hold(&[&name])?;
        found = name.find().map_err(refusal)?;
        if name.identity_of(found.as_ref()) != Some(expected) {
            return Ok(Outcome::Moved);
        }
        let _still = self.exports.still(export)?;
        if self.exports.place_of(export, &name, &remove.place.path) != leaving.path() {
            return Ok(Outcome::Moved);
        }
        let flags = match remove.what {
            Removal::File => AtFlags::empty(),
            Removal::Directory => AtFlags::REMOVEDIR,
        };
        rustix::fs::unlinkat(&name.directory, name.name, flags).map_err(refusal)?;
        leaving.gone();
        Ok(Outcome::Done)
    }

    /// Renames, if the names stand for what is `expected` of them. Opens follow their files; what is open of a file that
    /// is replaced stays open.
    ///
    /// # Errors
    /// [`Reason::Exhausted`] if too many files are open that have no name; else what the file system reports.
    pub(super) fn rename(
        &self,
        rename: &Rename,
        expected: [Option<FileIdentity>; 2],
    ) -> Result<Outcome, Refusal> {
        let export = &rename.export;
        let root = self.exports.root(export)?;
        let (from, to) = (name_in(root, &rename.from)?, name_in(root, &rename.to)?);
        let leaving = match rename.how {
            RenameHow::Replace => Some(self.files.keep_open(export, &to, &rename.to)?),
            RenameHow::NoReplace | RenameHow::Exchange => None,
        };
        // Let go of last: to give a file's storage back can take long.
        let found;
        let _turn = self.locks.hold(&[&from, &to])?;
        found = [from.find().map_err(refusal)?, to.find().map_err(refusal)?];
        let [first, second] = &found;
        if [from.identity_of(first.as_ref()), to.identity_of(second.as_ref())] != expected {
            return Ok(Outcome::Moved);
        }
        let _moving = self.exports.moving(export)?;
        let source = self.exports.place_of(export, &from, &rename.from);
        let target = self.exports.place_of(export, &to, &rename.to);
        if leaving.as_ref().is_some_and(|leaving| leaving.path() != target) {
            return Ok(Outcome::Moved);
        }
        let flags = match rename.how {
            RenameHow::Replace => RenameFlags::empty(),
            RenameHow::NoReplace => RenameFlags::NOREPLACE,
            RenameHow::Exchange => RenameFlags::EXCHANGE,
        };
        rustix::fs::renameat_with(&from.directory, from.name, &to.directory, to.name, flags)
            .map_err(refusal)?;
        let [first, second] = expected;
        if first == second {
            // Two names of one file: both are still there.
            return Ok(Outcome::Done);
        }
        if let Some(leaving) = leaving {
            leaving.gone();
        }
        let moved = self.files.renamed(export, &source, &target, rename.how == RenameHow::Exchange);
        tracing::debug!(opens = moved.len(), "opens follow a rename");
        Ok(Outcome::Done)
    }
}

/// What a name stands for, a link in the last place not followed, and the directory that it is in.
pub(super) fn state_of(root: &Root, path: &ExportPath) -> Result<NameState, Refusal> {
    let name = match name_in(root, path) {
        Ok(name) => name,
        Err(refused) if refused.reason == Reason::NotFound => return Ok(NameState::default()),
        Err(refused) => return Err(refused),
    };
    let directory = root.identity(&stat_of(&name.directory).map_err(refusal)?);
    let found = name.find().map_err(refusal)?;
    Ok(NameState { directory: Some(directory), file: name.identity_of(found.as_ref()) })
}

/// The locks under which names are looked at and changed, each for many directories.
#[derive(Debug)]
struct NameLocks(Vec<Mutex<()>>);

impl NameLocks {
    fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    /// Takes the locks of the names' directories: each once and always in the same order, so that nobody who waits
    /// for a lock holds one that its holder waits for.
    fn hold(&self, names: &[&NameIn<'_>]) -> Result<Vec<MutexGuard<'_, ()>>, Refusal> {
        let number = |name: &&NameIn<'_>| {
            let stat = stat_of(&name.directory).map_err(refusal)?;
            Ok(number_of(name.root.identity(&stat)))
        };
        let wanted = names.iter().map(number).collect::<Result<BTreeSet<u64>, Refusal>>()?;
        let locks = self.0.iter().enumerate().filter(|(at, _)| wanted.contains(&len_u64(*at)));
        Ok(locks.map(|(_, lock)| lock.lock().unwrap_or_else(PoisonError::into_inner)).collect())
    }
}

/// Which lock a directory has. Inodes of neighbours differ in their low bits.
fn number_of(directory: FileIdentity) -> u64 {
    (directory.inode ^ directory.device) % len_u64(LOCKS)
}

#[cfg(test)]
mod tests;
