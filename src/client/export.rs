//! An export of a server: its names, and what can be done with them. Reads like `tokio::fs`.

use std::time::Duration;

use super::calls::Caller;
use super::error::{Error, refused};
use super::file::File;
use super::options::OpenOptions;
use super::read_dir::ReadDir;
use super::session::Session;
use crate::model::{
    AttributeChange, Attributes, CreateId, Entropy as _, ExportName, ExportPath, FileKind, LinkTarget,
    Reason, Removal, RenameHow, SetTime, Space,
};
use crate::net::SystemEntropy;
use crate::wire::ServerControl;
use crate::wire::control::{Change, Target};
use crate::wire::names::{
    HardLink, Lookup, MakeDirectory, Place, ReadLink, Remove, Rename, StatSpace, Symlink,
};

/// A directory that a server exports, and everything beneath it. Clones are cheap.
///
/// Paths are bytes, relative to the export, with `/` between their components and without `.` and `..`; the path of no
/// bytes is the export itself. One that cannot exist is refused without asking the server: with [`Reason::Invalid`],
/// or [`Reason::NameTooLong`]. Names travel encrypted, on control channels.
///
/// ```no_run
/// # async fn example(session: bowline::client::Session) -> Result<(), bowline::client::Error> {
/// let media = session.export("media")?;
/// media.create_dir_all("clips/today", 0o755).await?;
/// let mut entries = media.read_dir("clips").await?;
/// while let Some(entry) = entries.next_entry().await? {
///     println!("{}", entry.file_name().display());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Export {
    caller: Caller,
    name: ExportName,
}

impl Session {
    /// An export by its name. Whether the server has it, and for this client, shows with the first use.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`] for a name that no export can have.
    pub fn export(&self, name: &str) -> Result<Export, Error> {
        let name = name.parse().map_err(|_| refused(Reason::NotFound))?;
        Ok(Export { caller: Caller::new(self.guard()), name })
    }
}

impl Export {
    /// The same export, whose calls, and those of files that are opened with it, wait this long for their answers.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { caller: self.caller.with_timeout(timeout), name: self.name.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Opens a file, and makes it if that is wanted.
    ///
    /// # Errors
    /// [`Error::Options`] before anything is sent, if the options contradict each other. [`Error::Refused`] with
    /// [`Reason::NotFound`], [`Reason::Exists`], [`Reason::PermissionDenied`], [`Reason::Busy`] (another client keeps
    /// the file), [`Reason::Locked`] (or the range that is to be locked) and others; [`Error::TimedOut`];
    /// [`Error::SessionEnded`]; [`Error::KeyRing`] if the client has a ring and the key cannot be put into it, and then
    /// the file is closed again.
    ///
    /// # Cancel safety
    /// Cancel safe: a handle that comes after the future was dropped is closed. The file may have been made.
    pub async fn open(&self, path: impl AsRef<[u8]>, options: &OpenOptions) -> Result<File, Error> {
        let path = ExportPath::new(path.as_ref())?;
        let mut open = options.request(self.name.clone(), path.clone(), CreateId(SystemEntropy.bytes()?))?;
        let ring = self.caller.guard().ring().filter(|_| open.resumable);
        open.with_key |= ring.is_some();
        let answer = self.caller.control(open).await?;
        let file = File::from_answer(self.caller.clone(), answer, options.lines)?;
        if let Some(ring) = ring {
            file.keep_in(ring, (self.name.clone(), path), None).await?;
        }
        Ok(file)
    }

    /// The attributes of what `path` names; a symbolic link is followed beneath the export.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::Outside`] (a link leads out of the export) and others;
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Attributes, Error> {
        self.lookup(self.place(path)?, true).await
    }

    /// As [`Export::metadata`], of the symbolic link itself if `path` names one.
    ///
    /// # Errors
    /// As [`Export::metadata`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Attributes, Error> {
        self.lookup(self.place(path)?, false).await
    }

    /// Whether there is anything of this name; a symbolic link counts if what it leads to is there.
    ///
    /// # Errors
    /// As [`Export::metadata`], without [`Reason::NotFound`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn try_exists(&self, path: impl AsRef<[u8]>) -> Result<bool, Error> {
        match self.metadata(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.reason() == Some(Reason::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The entries of a directory, without `.` and `..`, in no order.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::NotDirectory`] and others; [`Error::TimedOut`];
    /// [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir, Error> {
        ReadDir::begin(self.caller.clone(), self.place(path)?, false).await
    }

    /// As [`Export::read_dir`], with the attributes of each entry where they can be had: one exchange with the server
    /// for many entries.
    ///
    /// # Errors
    /// As [`Export::read_dir`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_dir_with_attributes(&self, path: impl AsRef<[u8]>) -> Result<ReadDir, Error> {
        ReadDir::begin(self.caller.clone(), self.place(path)?, true).await
    }

    /// Makes a directory; the server masks its permission bits.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::Exists`], [`Reason::NotFound`] (the directory that it is to be in) and others;
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be made all the same.
    pub async fn create_dir(&self, path: impl AsRef<[u8]>, permissions: u32) -> Result<(), Error> {
        let place = self.place(path)?;
        self.caller.done(MakeDirectory { place, permissions }).await
    }

    /// Makes a directory and those that it is to be in. What is there already stays as it is.
    ///
    /// # Errors
    /// As [`Export::create_dir`], with [`Reason::Exists`] only if something there is no directory, and with
    /// [`Reason::NotFound`] also if others keep removing what is made here.
    ///
    /// # Cancel safety
    /// Cancel safe; some of them may be made all the same.
    pub async fn create_dir_all(&self, path: impl AsRef<[u8]>, permissions: u32) -> Result<(), Error> {
        let mut way = Way::new(ExportPath::new(path.as_ref())?);
        while let Some(path) = way.next() {
            let outcome = self.create_one(&path, permissions).await;
            way.on_tried(path, outcome)?;
        }
        way.end()
    }

    /// Removes a file, a symbolic link or whatever is no directory.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::IsDirectory`], [`Reason::Busy`] (an open does not share
    /// it) and others; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be removed all the same.
    pub async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        self.caller.done(Remove { place: self.place(path)?, what: Removal::File }).await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::NotDirectory`], [`Reason::NotEmpty`] and others;
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be removed all the same.
    pub async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        self.caller.done(Remove { place: self.place(path)?, what: Removal::Directory }).await
    }

    /// Renames. A file that has the name `to` is replaced at one stroke.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::Busy`] (an open of either does not share it) and others;
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be renamed all the same.
    pub async fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<(), Error> {
        self.rename_so(from.as_ref(), to.as_ref(), RenameHow::Replace).await
    }

    /// Renames, unless something has the name `to`.
    ///
    /// # Errors
    /// As [`Export::rename`], and [`Reason::Exists`].
    ///
    /// # Cancel safety
    /// As [`Export::rename`].
    pub async fn rename_no_replace(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<(), Error> {
        self.rename_so(from.as_ref(), to.as_ref(), RenameHow::NoReplace).await
    }

    /// Lets two names change places at one stroke.
    ///
    /// # Errors
    /// As [`Export::rename`]; both must be there.
    ///
    /// # Cancel safety
    /// As [`Export::rename`].
    pub async fn exchange(&self, one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> Result<(), Error> {
        self.rename_so(one.as_ref(), other.as_ref(), RenameHow::Exchange).await
    }

    /// Makes a symbolic link at `link` that leads to `target`. The target is kept as it is written and may lead
    /// anywhere; followed it is beneath the export only.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::Exists`] and others; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be made all the same.
    pub async fn symlink(&self, target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<(), Error> {
        let target = LinkTarget::new(target.as_ref())?;
        self.caller.done(Symlink { place: self.place(link)?, target }).await
    }

    /// Gives the file `original` the further name `link`. A symbolic link is not followed.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::Exists`], [`Reason::TooManyLinks`] and others;
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be made all the same.
    pub async fn hard_link(&self, original: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Result<(), Error> {
        let (from, to) = (ExportPath::new(original.as_ref())?, ExportPath::new(link.as_ref())?);
        self.caller.done(HardLink { export: self.name.clone(), from, to }).await
    }

    /// Where a symbolic link leads, as it is written.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::Invalid`] (it is no link) and others;
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<LinkTarget, Error> {
        match self.caller.control(ReadLink { place: self.place(path)? }).await? {
            ServerControl::Link(link) => Ok(link.target),
            _ => Err(Error::Protocol),
        }
    }

    /// How full the file system is that `path` is on.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn space(&self, path: impl AsRef<[u8]>) -> Result<Space, Error> {
        match self.caller.control(StatSpace { place: self.place(path)? }).await? {
            ServerControl::SpaceStated(stated) => Ok(stated.space),
            _ => Err(Error::Protocol),
        }
    }

    /// Sets permission bits, which the server masks; a symbolic link is followed. Tells the attributes as they are
    /// then.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; the change may happen all the same.
    pub async fn set_permissions(
        &self,
        path: impl AsRef<[u8]>,
        permissions: u32,
    ) -> Result<Attributes, Error> {
        let change = AttributeChange { permissions: Some(permissions), ..AttributeChange::default() };
        self.change(self.place(path)?, change).await
    }

    /// Sets the times of the last read and of the last change of the bytes; `None` leaves one as it is, and a symbolic
    /// link is followed. Tells the attributes as they are then.
    ///
    /// # Errors
    /// As [`Export::set_permissions`].
    ///
    /// # Cancel safety
    /// As [`Export::set_permissions`].
    pub async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        accessed: Option<SetTime>,
        modified: Option<SetTime>,
    ) -> Result<Attributes, Error> {
        let change = AttributeChange { accessed, modified, ..AttributeChange::default() };
        self.change(self.place(path)?, change).await
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn place(&self, path: impl AsRef<[u8]>) -> Result<Place, Error> {
        Ok(self.place_of(ExportPath::new(path.as_ref())?))
    }

    fn place_of(&self, path: ExportPath) -> Place {
        Place { export: self.name.clone(), path }
    }

    async fn lookup(&self, place: Place, follow: bool) -> Result<Attributes, Error> {
        match self.caller.control(Lookup { place, follow }).await? {
            ServerControl::Found(found) => Ok(found.attributes),
            _ => Err(Error::Protocol),
        }
    }

    async fn change(&self, place: Place, change: AttributeChange) -> Result<Attributes, Error> {
        match self.caller.control(Change { target: Target::Name(place), change }).await? {
            ServerControl::Changed(changed) => Ok(changed.attributes),
            _ => Err(Error::Protocol),
        }
    }

    async fn rename_so(&self, from: &[u8], to: &[u8], how: RenameHow) -> Result<(), Error> {
        let (from, to) = (ExportPath::new(from)?, ExportPath::new(to)?);
        self.caller.done(Rename { export: self.name.clone(), from, to, how }).await
    }

    /// Makes a directory; one that is there will do.
    async fn create_one(&self, path: &ExportPath, permissions: u32) -> Result<(), Error> {
        if path.is_root() {
            return Ok(());
        }
        let place = self.place_of(path.clone());
        match self.caller.done(MakeDirectory { place, permissions }).await {
            Err(error) if error.reason() == Some(Reason::Exists) => {
                match self.lookup(self.place_of(path.clone()), true).await {
                    Ok(found) if found.kind == FileKind::Directory => Ok(()),
                    _ => Err(error),
                }
            }
            made => made,
        }
    }
}

/// The way to a directory: from the innermost outwards until one is there, then back inwards. Not for ever, if others
/// remove meanwhile what is made here.
struct Way {
    /// What is not there as far as is known, the outermost last.
    missing: Vec<ExportPath>,
    tries: usize,
}

impl Way {
    fn new(path: ExportPath) -> Self {
        let depth = path.as_bytes().split(|&byte| byte == b'/').count();
        Self { missing: vec![path], tries: depth.saturating_mul(2) }
    }

    /// What to make next.
    fn next(&mut self) -> Option<ExportPath> {
        self.tries = self.tries.checked_sub(1)?;
        self.missing.pop()
    }

    /// It was tried to make `path`.
    fn on_tried(&mut self, path: ExportPath, outcome: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = outcome else { return Ok(()) };
        match path.split_last() {
            Some((folder, _)) if error.reason() == Some(Reason::NotFound) && !folder.is_empty() => {
                let folder = ExportPath::new(folder)?;
                self.missing.extend([path, folder]);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// No more is tried.
    fn end(self) -> Result<(), Error> {
        if self.missing.is_empty() { Ok(()) } else { Err(refused(Reason::NotFound)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes the way to `a/b/c`, where `make` says which tries succeed.
    fn go(mut make: impl FnMut(&[u8]) -> bool) -> (Vec<String>, Result<(), Error>) {
        let mut way = Way::new(ExportPath::new(b"a/b/c").unwrap());
        let mut tried = Vec::new();
        while let Some(path) = way.next() {
            tried.push(String::from_utf8(path.as_bytes().to_vec()).unwrap());
            let outcome = if make(path.as_bytes()) { Ok(()) } else { Err(refused(Reason::NotFound)) };
            if let Err(error) = way.on_tried(path, outcome) {
                return (tried, Err(error));
            }
        }
        (tried, way.end())
    }

    #[test]
    fn outwards_until_one_is_there_and_back_inwards() {
        let mut made = vec![b"".to_vec()];
        let (tried, outcome) = go(|path| {
            let folder = path.rsplitn(2, |&byte| byte == b'/').nth(1).unwrap_or_default();
            let can = made.contains(&folder.to_vec());
            made.extend(can.then(|| path.to_vec()));
            can
        });
        outcome.unwrap();
        assert_eq!(tried, ["a/b/c", "a/b", "a", "a/b", "a/b/c"]);
    }

    #[test]
    fn what_others_keep_removing_is_not_found_in_the_end() {
        // `a/b` is gone again whenever `a/b/c` is to be made in it, and the last try makes it.
        let mut tries = 0;
        let (tried, outcome) = go(|path| {
            tries += 1;
            path == b"a" || (path == b"a/b" && tries > 2)
        });
        assert_eq!(tried, ["a/b/c", "a/b", "a", "a/b", "a/b/c", "a/b"]);
        assert_eq!(outcome.unwrap_err().reason(), Some(Reason::NotFound));
        assert!(go(|_| false).1.is_err());
    }
}
