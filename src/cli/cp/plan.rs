//! What is copied where: trees are walked, and their directories are made.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use bowline::client::Error;
use bowline::model::{Attributes, ExportPath, FileKind, len_u64};

use super::How;
use super::ends::{Ends, Trouble, is_part};
use super::folders::{Made, Traits, make};
use crate::cli::failure::{Code, Failure};
use crate::cli::output::say;
use crate::cli::remote::Place;
use crate::cli::sessions::tell;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Copy the bytes of a file.
    File { source: Place, target: Place, len: u64 },
    /// Make a symbolic link like the source.
    Link { source: Place, target: Place },
}

impl Action {
    /// From where to where, for people.
    pub(super) fn shown(&self) -> (String, String) {
        let (Self::File { source, target, .. } | Self::Link { source, target }) = self;
        (source.shown(), target.shown())
    }
}

/// What is to be copied.
pub(super) struct Plan<'a> {
    ends: &'a Ends,
    how: How,
    target: &'a Place,
    /// The target is a directory: what is copied goes into it.
    is_into: bool,
    pub(super) actions: VecDeque<Action>,
    /// The directories that they are in, each behind the one that it is in itself.
    pub(super) made: Vec<Made>,
    /// How many things the command names.
    sources: usize,
    /// What the sources of the command become.
    targets: BTreeSet<String>,
    /// How many things cannot be copied; they were told.
    pub(super) failed: u64,
    /// One of them for want of room.
    pub(super) is_full: bool,
}

/// A directory of the target, and what goes into it.
struct Folder {
    target: Place,
    /// What the original has.
    traits: Traits,
    /// Where the one that it is in stands in the list; `None` for what the command names.
    parent: Option<usize>,
    files: VecDeque<Action>,
    links: VecDeque<Action>,
    /// It is there, and what leads to it is what the user named.
    is_there: bool,
}

/// A name and what it is.
pub(super) struct Found {
    name: Vec<u8>,
    kind: FileKind,
    len: u64,
    traits: Traits,
}

impl Found {
    fn of_server(name: Vec<u8>, of: &Attributes) -> Self {
        let traits = Traits { permissions: of.permissions, modified_ns: Some(of.modified_ns) };
        Self { name, kind: of.kind, len: of.len, traits }
    }

    fn of_local(name: Vec<u8>, of: &Metadata) -> Self {
        let modified_ns = of.mtime().saturating_mul(1_000_000_000).saturating_add(of.mtime_nsec());
        let traits = Traits { permissions: of.mode(), modified_ns: Some(modified_ns) };
        Self { name, kind: kind_of(of.file_type()), len: of.len(), traits }
    }
}

impl<'a> Plan<'a> {
    /// A plan for `sources` things to be copied to `target`.
    pub(super) async fn new(
        ends: &'a Ends,
        how: How,
        target: &'a Place,
        sources: usize,
    ) -> Result<Self, Failure> {
        let what = format!("cannot copy to {}", target.shown());
        let there = match look(ends, target).await {
            Ok(found) => Some(found.kind),
            Err(trouble) if trouble.is_missing() => None,
            Err(trouble) => return Err(ends.failure(&what, target, &trouble)),
        };
        let is_into = there == Some(FileKind::Directory);
        // Recursive copies make directories.
        let can_become_one = there.is_none() && how.recursive;
        if !is_into && (sources > 1 || (target.is_meant_as_directory() && !can_become_one)) {
            return Err(no_directory(what, target));
        }
        let (actions, targets) = (VecDeque::new(), BTreeSet::new());
        let made = Vec::new();
        Ok(Self { ends, how, target, is_into, actions, made, sources, targets, failed: 0, is_full: false })
    }

    /// Adds a source with all that is in it.
    pub(super) async fn add(&mut self, source: &Place) -> Result<(), Failure> {
        let what = format!("cannot copy {}", source.shown());
        let found = match look(self.ends, source).await {
            Ok(found) => found,
            Err(trouble) => return self.cannot_add(self.ends.failure(&what, source, &trouble)),
        };
        let name = last_name(source);
        let target = match (self.is_into, &name[..]) {
            // The root of an export has no name: what is in it is copied.
            (true, b"") | (false, _) => self.target.clone(),
            (true, name) => match join(self.target, name) {
                Ok(target) => target,
                Err(trouble) => return self.cannot_add(self.ends.failure(&what, source, &trouble)),
            },
        };
        if let Some(why) = self.in_the_way(source, &target) {
            let failure = Failure::coded(Code::Settings, what).because(why);
            return self.cannot_add(failure.data("nothing of it was copied"));
        }
        match found.kind {
            FileKind::Directory if self.how.recursive => {
                self.walk(source.clone(), target, found.traits).await
            }
            FileKind::Directory => {
                self.cannot_add(Failure::new(what).because("it is a directory").try_this("bowline cp -r"))
            }
            FileKind::File if target.is_meant_as_directory() && !self.is_into => {
                self.cannot_add(no_directory(what, &target))
            }
            FileKind::File => {
                self.actions.push_back(Action::File { source: source.clone(), target, len: found.len });
                Ok(())
            }
            _ => self.cannot_add(Failure::new(what).because("it is neither a file nor a directory")),
        }
    }

    /// Why a source cannot have this target, if that is so: it is the source itself, or in it, so that the copy would have
    /// no end; or another source has it.
    fn in_the_way(&mut self, source: &Place, target: &Place) -> Option<String> {
        if let (Place::Remote(from), Place::Remote(to)) = (source, target)
            && (&from.peer, &from.export) == (&to.peer, &to.export)
            && let Some(rest) = to.path.as_bytes().strip_prefix(from.path.as_bytes())
        {
            match rest {
                b"" => return Some(format!("it and {} are the same", target.shown())),
                [b'/', ..] => return Some(format!("{} is in it", target.shown())),
                _ if from.path.is_root() => return Some(format!("{} is in it", target.shown())),
                _ => {}
            }
        }
        let is_new = self.targets.insert(target.shown());
        (!is_new).then(|| format!("another one of these would be {} too", target.shown()))
    }

    /// Adds a tree. It is seen as a whole before anything of the target is made: what this copy makes is no part of it.
    async fn walk(&mut self, source: Place, target: Place, traits: Traits) -> Result<(), Failure> {
        // What the user names may be a link to a directory.
        let is_there = self.is_into && target == *self.target;
        let (files, links) = Default::default();
        let first = Folder { target, traits, parent: None, files, links, is_there };
        let mut folders = vec![first];
        let mut left = vec![(source, 0)];
        while let Some((source, at)) = left.pop() {
            let listed = match list(self.ends, &source).await {
                Ok(listed) => listed,
                Err(trouble) => {
                    let what = format!("cannot list {}", source.shown());
                    self.cannot(&self.ends.failure(&what, &source, &trouble))?;
                    continue;
                }
            };
            for found in listed {
                if let Some((source, folder)) = self.found(found, &source, at, &mut folders)? {
                    left.push((source, folders.len()));
                    folders.push(folder);
                }
            }
        }
        self.make_all(folders).await
    }

    /// Adds a name that is in a directory, to that; gives what it is if it is a directory itself.
    fn found(
        &mut self,
        Found { name, kind, len, traits }: Found,
        inside: &Place,
        at: usize,
        folders: &mut [Folder],
    ) -> Result<Option<(Place, Folder)>, Failure> {
        let Some(folder) = folders.get_mut(at) else { return Ok(None) };
        let places = join(inside, &name).and_then(|from| Ok((from, join(&folder.target, &name)?)));
        let (from, to) = match places {
            Ok(places) => places,
            Err(trouble) => {
                let what = format!("cannot copy a name in {}", inside.shown());
                self.cannot(&self.ends.failure(&what, inside, &trouble))?;
                return Ok(None);
            }
        };
        match kind {
            FileKind::Directory => {
                let (files, links) = Default::default();
                let parent = Some(at);
                let folder = Folder { target: to, traits, parent, files, links, is_there: false };
                return Ok(Some((from, folder)));
            }
            FileKind::File if is_part(&name) => {
                say(&format!("{} is what a copy has left, and is left out\n", from.shown()));
            }
            FileKind::File => folder.files.push_back(Action::File { source: from, target: to, len }),
            FileKind::Symlink => folder.links.push_back(Action::Link { source: from, target: to }),
            FileKind::Other => self.cannot(
                &Failure::new(format!("cannot copy {}", from.shown()))
                    .because("it is a pipe, a socket or a device"),
            )?,
        }
        Ok(None)
    }

    /// Makes the directories. Where one cannot be, nothing that was to be in it is copied: what is in its place may lead
    /// elsewhere.
    async fn make_all(&mut self, folders: Vec<Folder>) -> Result<(), Failure> {
        let mut missing = BTreeSet::new();
        let mut links = VecDeque::new();
        for (at, mut folder) in folders.into_iter().enumerate() {
            let is_lost = folder.parent.is_some_and(|parent| missing.contains(&parent));
            let made = match is_lost || folder.is_there {
                true => Ok(None),
                false => make(self.ends, &folder.target, folder.traits).await.map(Some),
            };
            if let Err(trouble) = &made {
                let what = format!("cannot make the directory {}", folder.target.shown());
                self.cannot(&self.ends.failure(&what, &folder.target, trouble))?;
            }
            if is_lost || made.is_err() {
                missing.insert(at);
                let lost = folder.files.len().saturating_add(folder.links.len());
                self.failed = self.failed.saturating_add(len_u64(lost));
                continue;
            }
            self.made.extend(made.into_iter().flatten());
            self.actions.append(&mut folder.files);
            links.append(&mut folder.links);
        }
        // Links come last: no file is written through one that this copy has made.
        self.actions.append(&mut links);
        Ok(())
    }

    /// One of the things that the command names cannot be copied. If it is the only one, that is what the command ends with.
    fn cannot_add(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.sources == 1 {
            return Err(failure);
        }
        self.cannot(&failure)
    }

    /// Something cannot be copied, and the rest can.
    fn cannot(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.failed = self.failed.saturating_add(1);
        self.is_full |= failure.code == Code::NoSpace;
        tell(failure)
    }
}

/// A place that has to be a directory is none.
fn no_directory(what: String, target: &Place) -> Failure {
    Failure::coded(Code::Settings, what)
        .because("what is to be copied needs a directory to go into, and this is none")
        .data("nothing was copied")
        .try_this(match target {
            Place::Remote(remote) => format!("bowline mkdir {}", remote.shown()),
            Place::Local(path) => format!("mkdir {}", super::ends::shown(path)),
        })
}

/// The last component of a place, empty for the root of an export.
fn last_name(place: &Place) -> Vec<u8> {
    match place {
        Place::Remote(remote) => remote.path.split_last().map_or_else(Vec::new, |(_, name)| name.to_vec()),
        Place::Local(path) => path.file_name().map_or_else(Vec::new, |name| name.as_bytes().to_vec()),
    }
}

fn join(place: &Place, name: &[u8]) -> Result<Place, Trouble> {
    match place {
        Place::Remote(remote) => {
            let folder = remote.path.as_bytes();
            let joined = if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() };
            Ok(Place::Remote(remote.at(ExportPath::new(joined).map_err(Error::from)?)))
        }
        Place::Local(path) => Ok(Place::Local(path.join(OsStr::from_bytes(name)))),
    }
}

/// What a place is; symbolic links that a user names are followed.
pub(super) async fn look(ends: &Ends, place: &Place) -> Result<Found, Trouble> {
    match place {
        Place::Remote(remote) => {
            let of = ends.export(remote)?.metadata(remote.path.as_bytes()).await?;
            Ok(Found::of_server(Vec::new(), &of))
        }
        Place::Local(path) => {
            let of = tokio::fs::metadata(path).await?;
            Ok(Found::of_local(Vec::new(), &of))
        }
    }
}

/// Whether the name is taken, by whatever: a link that leads nowhere is something too.
pub(super) async fn is_there(ends: &Ends, place: &Place) -> bool {
    match place {
        Place::Remote(remote) => match ends.export(remote) {
            Ok(export) => export.symlink_metadata(remote.path.as_bytes()).await.is_ok(),
            Err(_) => false,
        },
        Place::Local(path) => tokio::fs::symlink_metadata(path).await.is_ok(),
    }
}

fn kind_of(of: std::fs::FileType) -> FileKind {
    if of.is_dir() {
        FileKind::Directory
    } else if of.is_file() {
        FileKind::File
    } else if of.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::Other
    }
}

async fn list(ends: &Ends, place: &Place) -> Result<Vec<Found>, Trouble> {
    let mut found = Vec::new();
    match place {
        Place::Remote(remote) => {
            let mut listing = ends.export(remote)?.read_dir_with_attributes(remote.path.as_bytes()).await?;
            while let Some(entry) = listing.next_entry().await? {
                let name = entry.name().as_bytes().to_vec();
                found.push(match entry.attributes() {
                    Some(of) => Found::of_server(name, &of),
                    None => Found { name, kind: entry.kind(), len: 0, traits: Traits::UNKNOWN },
                });
            }
        }
        Place::Local(path) => {
            let mut listing = tokio::fs::read_dir(path).await?;
            while let Some(entry) = listing.next_entry().await? {
                found.extend(found_in(&entry).await?);
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What a name of this machine is; nothing if it is gone since its directory was read.
async fn found_in(entry: &tokio::fs::DirEntry) -> io::Result<Option<Found>> {
    match entry.metadata().await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        of => of.map(|of| Some(Found::of_local(entry.file_name().as_bytes().to_vec(), &of))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_goes_while_its_directory_is_read_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fleeting"), b"here").unwrap();
        let entry = tokio::fs::read_dir(folder.path()).await.unwrap().next_entry().await.unwrap().unwrap();
        let found = found_in(&entry).await.unwrap().unwrap();
        assert_eq!((found.kind, found.len, &found.name[..]), (FileKind::File, 4, &b"fleeting"[..]));
        std::fs::remove_file(folder.path().join("fleeting")).unwrap();
        assert!(found_in(&entry).await.unwrap().is_none());
    }
}
