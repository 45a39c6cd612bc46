//! What tests of names stand on: a directory that is exported, and one beside it that no client may see or change.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Dir, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use super::change::ModePolicy;
use super::descriptors::{Bounds, Descriptors, Purpose};
use super::exports::{Exports, OpenedFile};
use super::names::{Names, Outcome};
use super::stat::{Births, identity_of, stat_of};
use crate::model::{
    AttributeChange, Attributes, Create, ExportName, ExportPath, FileIdentity, LinkTarget, OpenId, Reason,
    Refusal, Removal, RenameHow, Rights,
};
use crate::wire::names::{
    Cookie, DirectoryEntry, HardLink, List, MakeDirectory, Place, Remove, Rename, Symlink, decode_list,
};

/// Stands in every file, name, link and attribute that no client may see, and nowhere else.
pub(super) const SECRET: &str = "secret";
/// Stands in every file that clients may see.
pub(super) const PUBLIC: &[u8] = b"public";
/// When everything that no client may see was changed, in seconds since 1970.
pub(super) const SECRET_TIME_S: i64 = 1_111_111_111;

/// A directory `export` with `file`, `dir/file` and `dir/deep/file` in it, and `outside`.
pub(super) struct Ground {
    folder: TempDir,
    pub(super) names: Names,
    pub(super) files: Arc<Descriptors>,
}

/// The export's name.
pub(super) fn media() -> ExportName {
    "media".parse().unwrap()
}

pub(super) fn path(path: impl Into<Vec<u8>>) -> ExportPath {
    ExportPath::new(path).unwrap()
}

pub(super) fn place(text: impl Into<Vec<u8>>) -> Place {
    Place { export: media(), path: path(text) }
}

/// Only the reason counts.
pub(super) fn reason<T>(outcome: Result<T, Refusal>) -> Result<T, Reason> {
    outcome.map_err(|refusal| refusal.reason)
}

impl Ground {
    pub(super) fn new() -> Self {
        Self::with_modes(ModePolicy::default())
    }

    pub(super) fn with_modes(modes: ModePolicy) -> Self {
        Self::with(modes, Bounds { open: 100, pinned: 50 })
    }

    pub(super) fn with(modes: ModePolicy, bounds: Bounds) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(top.join("export/dir/deep")).unwrap();
        for file in ["file", "dir/file", "dir/deep/file"] {
            fs::write(top.join("export").join(file), PUBLIC).unwrap();
        }
        plant_secrets(&top.join("outside"));
        let exports = Exports::open([(media(), top.join("export"))]).unwrap();
        let exports = Arc::new(exports);
        let files = Arc::new(Descriptors::new(Arc::clone(&exports), bounds));
        let names = Names::new(exports, Arc::clone(&files), modes, [7; 32]);
        Self { folder, names, files }
    }

    /// Where a path of the export is.
    pub(super) fn at(&self, path: impl AsRef<[u8]>) -> PathBuf {
        self.folder.path().join("export").join(OsStr::from_bytes(path.as_ref()))
    }

    pub(super) fn outside(&self) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap().join("outside")
    }

    pub(super) fn open(&self, at: &str, rights: Rights, create: Create) -> Result<OpenedFile, Reason> {
        reason(self.names.open_file(&media(), &path(at), rights, create, 0o640))
    }

    /// Opens a file and keeps its descriptor, as the server does for a client.
    pub(super) fn keep(&self, open: OpenId, at: &str, rights: Rights) -> Result<FileIdentity, Reason> {
        reason(self.files.reserve(Purpose::New).and_then(|place| {
            let opened = self.names.open_file(&media(), &path(at), rights, Create::Never, 0)?;
            self.files.insert(open, (&media(), &path(at), rights), (opened, place))
        }))
        .map(|(identity, _)| identity)
    }

    pub(super) fn lookup(&self, at: &str) -> Result<Attributes, Reason> {
        reason(self.names.lookup(&place(at), false))
    }

    pub(super) fn identity(&self, at: &ExportPath) -> Result<Option<FileIdentity>, Reason> {
        reason(self.names.identify(&media(), std::slice::from_ref(at))).map(|found| found[0].file)
    }

    pub(super) fn change(&self, at: &str, change: &AttributeChange) -> Result<Attributes, Reason> {
        reason(self.names.change(&place(at), change))
    }

    pub(super) fn mkdir(&self, at: &str, permissions: u32) -> Result<(), Reason> {
        reason(self.names.make_directory(&MakeDirectory { place: place(at), permissions }))
    }

    pub(super) fn symlink(&self, at: &str, target: &str) -> Result<(), Reason> {
        let target = LinkTarget::new(target).unwrap();
        reason(self.names.symlink(&Symlink { place: place(at), target }))
    }

    pub(super) fn hard_link(&self, from: &str, to: &str) -> Result<(), Reason> {
        reason(self.names.hard_link(&HardLink { export: media(), from: path(from), to: path(to) }))
    }

    /// Removes what the name stands for now.
    pub(super) fn remove(&self, at: &str, what: Removal) -> Result<Outcome, Reason> {
        let expected = self.identity(&path(at))?.ok_or(Reason::NotFound)?;
        reason(self.names.remove(&Remove { place: place(at), what }, expected))
    }

    /// Renames what the names stand for now.
    pub(super) fn rename(&self, from: &str, to: &str, how: RenameHow) -> Result<Outcome, Reason> {
        let (from, to) = (path(from), path(to));
        let expected = [self.identity(&from)?, self.identity(&to)?];
        reason(self.names.rename(&Rename { export: media(), from, to, how }, expected))
    }

    pub(super) fn page(
        &self,
        at: &str,
        cookie: Option<Cookie>,
        with_attributes: bool,
    ) -> Result<(Vec<DirectoryEntry>, Option<Cookie>), Reason> {
        let list = List { place: place(at), cookie, with_attributes };
        let (page, next) = reason(self.names.list(&list))?;
        Ok((decode_list(&page).unwrap(), next))
    }
}

/// Fills `outside`: each kind of thing, each with the secret in it and of the same time.
fn plant_secrets(outside: &Path) {
    fs::create_dir_all(outside.join("deep")).unwrap();
    for file in ["file", "secret-name", "deep/file", "deep/secret-name"] {
        fs::write(outside.join(file), SECRET.repeat(100)).unwrap();
    }
    symlink("secret-target", outside.join("link")).unwrap();
    let attribute =
        rustix::fs::setxattr(outside.join("file"), "user.a", SECRET.as_bytes(), XattrFlags::empty());
    assert!(matches!(attribute, Ok(()) | Err(Errno::OPNOTSUPP)), "{attribute:?}");
    // The time of the last read lies before that of the last change, so that every read is recorded.
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps { last_access: time(SECRET_TIME_S - 1), last_modification: time(SECRET_TIME_S) };
    for at in ["file", "secret-name", "deep/file", "deep/secret-name", "link", "deep", ""] {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, outside.join(at), &times, flags).unwrap();
    }
}

/// Everything that can be known of a tree without leaving a trace in it.
pub(super) type Snapshot = BTreeMap<PathBuf, String>;

pub(super) fn snapshot(top: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut open = vec![top.to_owned()];
    while let Some(at) = open.pop() {
        let metadata = fs::symlink_metadata(&at).unwrap();
        let mut facts = format!(
            "{:o} {} {} {} {} {}.{} {}.{}",
            metadata.mode(),
            metadata.nlink(),
            metadata.uid(),
            metadata.gid(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        if metadata.is_symlink() {
            facts += &format!(" {:?}", fs::read_link(&at).unwrap());
        } else {
            facts += &format!(" read {}.{}", metadata.atime(), metadata.atime_nsec());
            let mut names = vec![0; 1 << 16];
            let len = rustix::fs::llistxattr(&at, &mut names[..]).unwrap_or(0);
            for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
                let mut value = vec![0; 1 << 16];
                let len = rustix::fs::lgetxattr(&at, name, &mut value[..]).unwrap();
                facts += &format!(" {:?}={:?}", OsStr::from_bytes(name), OsStr::from_bytes(&value[..len]));
            }
        }
        let quiet = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
        if metadata.is_file() {
            let file = fs::File::from(rustix::fs::open(&at, quiet, Mode::empty()).unwrap());
            facts += &std::io::read_to_string(file).unwrap();
        } else if metadata.is_dir() {
            for entry in Dir::new(rustix::fs::open(&at, quiet, Mode::empty()).unwrap()).unwrap() {
                let name = entry.unwrap().file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    open.push(at.join(OsStr::from_bytes(&name)));
                }
            }
        }
        found.insert(at, facts);
    }
    found
}

/// Which files no client may see.
pub(super) fn identities(snapshot: &Snapshot) -> BTreeSet<FileIdentity> {
    snapshot.keys().map(|at| identity_at(at)).collect()
}

/// Which file is there, a link not followed.
pub(super) fn identity_at(at: &Path) -> FileIdentity {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::open(at, flags, Mode::empty()).unwrap();
    identity_of(&stat_of(&found).unwrap(), Births::of(&found).unwrap())
}
