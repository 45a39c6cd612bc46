//! The state directory: what a server keeps between its lives, and has to itself while it runs.
//!
//! | file | what it is |
//! | --- | --- |
//! | `lock` | locked for the server's life |
//! | `state` | what is known of the table, see [`Header`]; replaced as a whole |
//! | `table-<store>.redb` | the open table |
//! | `commits` | how many commits the table has, see [`Note`]; good until the machine stops |
//! | `resume.key` | the key under which the table keeps the hashes of resume keys |
//! | `reserve` | room for when the disk is full |
//! | `set-aside-<store>.redb` | a table that is not believed any more; nobody reads it, and it can be deleted |
//!
//! A start takes these steps, and each can be the last one: the next start begins again from what it finds. `state` is
//! read and believed or not; a table that cannot be believed is set aside and `state` begun anew; a table of no commits
//! is made anew; the table's epoch rises and is on the disk; `state` is on the disk with the new epoch. Until then every
//! commit waits for the disk, whatever the durability, so that the two agree.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::file::{Note, TableFile, open_or_make};
use super::header::Header;
use super::reserve::{ReserveFile, Reserved};
use super::seal::Seal;
use super::table::{Expected, RedbStore};
use super::{Damage, HashKey, StoreError, TableStore};
use crate::model::{BootId, Durability, Entropy as _, PublicKey, Record, RecordChange, RecordKind, StoreId};
use crate::net::key_file::{make_folders, sync_folder};
use crate::net::{Locked, SystemEntropy};

/// With what a state directory is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StateSetup {
    /// What commits survive from now on.
    pub durability: Durability,
    /// The server: its key, and the one before while both are valid. A state belongs to one server.
    pub servers: Vec<PublicKey>,
    /// The machine's present boot.
    pub boot: BootId,
}

impl StateSetup {
    /// The setup on this machine, in this boot.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the kernel does not tell its boot.
    pub fn new(durability: Durability, servers: Vec<PublicKey>) -> Result<Self, StoreError> {
        Ok(Self { durability, servers, boot: this_boot(Path::new(BOOT_ID))? })
    }
}

/// What a state directory knew.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The records of the table, in the order of their kinds and keys.
    pub records: Vec<Record>,
    /// Names the table: another id means that what the other one knew is lost.
    pub store_id: StoreId,
    /// The machine's present boot.
    pub boot_id: BootId,
    /// Whether all of it was written in that boot: its times are of the clock that runs. If not, it has to be stored anew,
    /// and then [`StateFile::note_stored_anew`] told.
    pub is_same_boot: bool,
    /// The number of this life of the server: higher than that of every earlier one.
    pub epoch: u64,
    /// How often another host took the state over.
    pub takeovers: u64,
    /// The key for the hashes of resume keys.
    pub hash_key: HashKey,
    /// What became of the table that was there, if it could not be believed: this one is new and empty then.
    pub set_aside: Option<SetAside>,
}

/// A table that is not believed.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetAside {
    /// Where it is now.
    pub path: PathBuf,
    /// Why: [`StoreError::OtherBoot`].
    pub because: StoreError,
}

/// The state directory of a running server, and the table in it.
///
/// Dropping it without [`TableStore::close`] writes nothing, and is like a kill: what was committed is there at the next
/// start on the same boot, and on another boot with durability `machine`.
#[derive(Debug)]
pub struct StateDir {
    store: RedbStore,
    state: StateFile,
    _lock: Locked,
}

type Medium = Reserved<TableFile, ReserveFile>;

/// The file `state` of a state directory that is open.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: Arc<Path>,
    header: Arc<Mutex<Header>>,
    medium: Arc<Medium>,
}

impl StateFile {
    /// Records under which keys the server is known from now on: its key, and the one before while both are valid. A start
    /// under neither of them is refused.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`], [`StoreError::NoSpace`], [`StoreError::Io`]; what was recorded stays then.
    pub fn set_servers(&self, servers: Vec<PublicKey>) -> Result<(), StoreError> {
        self.change(|header| header.servers = servers)
    }

    /// Every record that is of an earlier boot is stored anew, by the clock of this one.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`], [`StoreError::NoSpace`], [`StoreError::Io`]; the next start then takes the records to be of the
    /// earlier boot once more.
    pub fn note_stored_anew(&self) -> Result<(), StoreError> {
        self.change(|header| header.records = header.boot)
    }

    fn change(&self, change: impl FnOnce(&mut Header)) -> Result<(), StoreError> {
        let mut header = self.header();
        let mut changed = header.clone();
        change(&mut changed);
        if changed != *header {
            write(&changed, &self.path, &self.medium)?;
            *header = changed;
        }
        Ok(())
    }

    fn header(&self) -> MutexGuard<'_, Header> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateDir {
    /// Opens the state directory `path`, and makes it if it is missing. It is this process's until it is dropped.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is served without the state. A table of durability `process` from another boot is no error:
    /// see [`Loaded::set_aside`].
    pub fn open(path: &Path, setup: &StateSetup) -> Result<(Self, Loaded), StoreError> {
        Self::open_by_steps(path, setup, &mut |_| {})
    }

    /// Opens it, and says after each step what was done: a test can end there.
    pub(super) fn open_by_steps(
        path: &Path,
        setup: &StateSetup,
        step: &mut dyn FnMut(&'static str),
    ) -> Result<(Self, Loaded), StoreError> {
        let folder = Folder::make(path)?;
        step("folder made");
        let lock = folder.lock()?;
        step("locked");
        folder.sweep()?;
        step("swept");
        let (header, set_aside) = folder.begin(setup, step)?;
        let (mut store, medium) = folder.table(&header, setup, step)?;
        let records = store.load()?;
        let hash_key = folder.hash_key(&header, &records)?;
        step("key found or made");
        let is_same_boot = header.records == setup.boot;
        let epoch = header.epoch.max(store.epoch()).saturating_add(1);
        store.begin_epoch(epoch)?;
        step("epoch recorded in the table");
        let header = Header {
            epoch,
            boot: setup.boot,
            durability: setup.durability,
            is_closed: false,
            commits: store.commits(),
            key_check: hash_key.check(),
            servers: setup.servers.clone(),
            ..header
        };
        let path = folder.file("state");
        write(&header, &path, &medium)?;
        step("state written");
        medium.medium().set_waits(setup.durability == Durability::Machine);
        tracing::info!(
            store = %header.store, epoch, durability = %setup.durability, records = records.len(), "open table loaded"
        );
        let loaded = Loaded {
            records,
            store_id: header.store,
            boot_id: setup.boot,
            is_same_boot,
            epoch,
            takeovers: header.takeovers,
            hash_key,
            set_aside,
        };
        let header = Arc::new(Mutex::new(header));
        let state = StateFile { path: path.into(), header, medium };
        Ok((Self { store, state, _lock: lock }, loaded))
    }

    /// Whether a commit waits for the disk.
    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        self.state.medium.medium().waits()
    }

    /// A handle on the file `state` if records are of an earlier boot, and to be stored anew.
    #[must_use]
    pub fn owes_records(&self) -> Option<StateFile> {
        let header = self.state.header();
        (header.records != header.boot).then(|| self.state.clone())
    }

    /// A handle on the file `state`, for who does not have the table.
    #[must_use]
    pub fn state_file(&self) -> StateFile {
        self.state.clone()
    }
}

impl TableStore for StateDir {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        self.store.load()
    }

    fn check(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        self.store.check(batch)
    }

    fn commit(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        self.store.commit(batch)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.state.medium.medium().set_waits(true);
        self.store.close()?;
        let commits = self.store.commits();
        self.state.change(|header| {
            header.is_closed = true;
            header.commits = commits;
        })
    }
}

/// A state directory that exists and that nobody else can write to.
struct Folder(PathBuf);

impl Folder {
    fn make(path: &Path) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Folder { path: path.to_owned(), source };
        make_folders(path)?;
        let folder = std::fs::canonicalize(path).map_err(cannot)?;
        let stat = rustix::fs::stat(&folder).map_err(|errno| cannot(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(cannot(Errno::NOTDIR.into()));
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != 0 {
            return Err(StoreError::Owner { path: folder, owner: stat.st_uid });
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(StoreError::Permissions { path: folder, mode: stat.st_mode & 0o7777 });
        }
        Ok(Self(folder))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn table_file(&self, store: StoreId) -> PathBuf {
        self.file(&format!("{TABLE_PREFIX}{store}{TABLE_SUFFIX}"))
    }

    fn lock(&self) -> Result<Locked, StoreError> {
        let path = self.file("lock");
        match Locked::try_new(open_or_make(&path)?) {
            Err(Errno::WOULDBLOCK) => Err(StoreError::InUse { path: self.0.clone() }),
            outcome => outcome.map_err(|errno| StoreError::io("lock", &path, errno.into())),
        }
    }

    /// The names in the folder.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let read = || -> std::io::Result<Vec<String>> {
            let names = std::fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name()));
            let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
            Ok(names.iter().filter_map(|name| name.to_str().map(str::to_owned)).collect())
        };
        read().map_err(|source| StoreError::Folder { path: self.0.clone(), source })
    }

    /// Removes what an earlier start did not come to the end of writing: under these names nobody reads it.
    fn sweep(&self) -> Result<(), StoreError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(UNFINISHED_PREFIX)) {
            self.remove(&self.file(name))?;
        }
        Ok(())
    }

    /// What `state` says, if that is to be believed; else what it says from now on, of a table that is not made yet.
    fn begin(
        &self,
        setup: &StateSetup,
        step: &mut dyn FnMut(&'static str),
    ) -> Result<(Header, Option<SetAside>), StoreError> {
        let path = self.file("state");
        let Some(header) = Header::read(&path)? else {
            if self.names()?.iter().any(|name| name.starts_with(TABLE_PREFIX)) {
                return Err(StoreError::damaged(&path, Damage::Missing));
            }
            let header = new_header(setup)?;
            header.write(&path)?;
            step("state begun");
            return Ok((header, None));
        };
        if let Some(found) = header.servers.first()
            && !header.servers.iter().any(|server| setup.servers.contains(server))
        {
            return Err(StoreError::OtherIdentity { path: self.0.clone(), found: *found });
        }
        let is_whole = header.is_closed || header.durability == Durability::Machine || header.commits == 0;
        if is_whole || header.boot == setup.boot {
            return Ok((header, None));
        }
        let table = self.table_file(header.store);
        let because = StoreError::OtherBoot { path: table.clone(), found: header.boot, now: setup.boot };
        let aside = self.file(&format!("set-aside-{}{TABLE_SUFFIX}", header.store));
        match rustix::fs::rename(&table, &aside) {
            // An earlier start has come as far as this.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::io("rename", &table, errno.into())),
        }
        step("table set aside");
        let header = Header { epoch: header.epoch, takeovers: header.takeovers, ..new_header(setup)? };
        header.write(&path)?;
        step("state begun anew");
        tracing::warn!(to = %aside.display(), "the open table is set aside, and all opens are lost: {because}");
        Ok((header, Some(SetAside { path: aside, because })))
    }

    /// The table that `header` speaks of, checked, or made if there is none yet.
    fn table(
        &self,
        header: &Header,
        setup: &StateSetup,
        step: &mut dyn FnMut(&'static str),
    ) -> Result<(RedbStore, Arc<Medium>), StoreError> {
        let path = self.table_file(header.store);
        let is_new = header.commits == 0;
        if is_new {
            self.remove(&path)?;
        } else if matches!(rustix::fs::lstat(&path), Err(Errno::NOENT)) {
            return Err(StoreError::damaged(&path, Damage::NoTable { commits: header.commits }));
        }
        let note_path = self.file("commits");
        let note = Note::open(&note_path, Seal::new(header.store))?;
        let mut commits = header.commits;
        if !is_new && !header.is_closed && header.boot == setup.boot {
            let noted = note.read().map_err(|source| StoreError::io("read", &note_path, source))?;
            commits = commits.max(noted.ok_or_else(|| StoreError::damaged(&note_path, Damage::Missing))?);
        }
        let reserve = self.file("reserve");
        let room = ReserveFile::new(open_or_make(&reserve)?);
        let file = TableFile::open(&path, note, is_new)?;
        let medium = Reserved::new(file, room).map_err(|source| StoreError::io("write", &reserve, source))?;
        let medium = Arc::new(medium);
        if is_new {
            let store = RedbStore::create(medium.clone(), &path, header.store)?;
            sync_folder(&self.0)?;
            step("table made");
            return Ok((store, medium));
        }
        let expected = Expected { store: header.store, epoch: header.epoch, commits };
        let store = RedbStore::open(medium.clone(), &path, &expected)?;
        step("table read");
        Ok((store, medium))
    }

    /// The key of the hashes, which must be the one that the records were made with; if there are none, any is.
    fn hash_key(&self, header: &Header, records: &[Record]) -> Result<HashKey, StoreError> {
        let path = self.file("resume.key");
        let opens = records.iter().filter(|record| record.kind == RecordKind::Open).count();
        let is_needed = !records.is_empty();
        match HashKey::read(&path)? {
            Some(key) if is_needed && key.check() != header.key_check => {
                Err(StoreError::OtherHashKey { path, opens })
            }
            Some(key) => Ok(key),
            None if is_needed => Err(StoreError::HashKeyMissing { path, opens }),
            None => HashKey::create(&path, &mut SystemEntropy),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", path, errno.into())),
        }
    }
}

/// Writes `state`, if need be into the reserve.
fn write(header: &Header, path: &Path, medium: &Medium) -> Result<(), StoreError> {
    let give_back = || medium.give_back_some().map_err(|source| StoreError::io("write", path, source));
    match header.write(path) {
        Err(StoreError::NoSpace { .. }) if give_back()? => header.write(path),
        outcome => outcome,
    }
}

/// What `state` says of a store that is not made yet.
fn new_header(setup: &StateSetup) -> Result<Header, StoreError> {
    Ok(Header {
        store: StoreId(SystemEntropy.bytes()?),
        epoch: 0,
        takeovers: 0,
        boot: setup.boot,
        records: setup.boot,
        durability: setup.durability,
        is_closed: false,
        commits: 0,
        key_check: [0; 16],
        servers: setup.servers.clone(),
    })
}

/// The boot that the kernel tells in the file `path`, as 32 digits and some hyphens.
fn this_boot(path: &Path) -> Result<BootId, StoreError> {
    let text = std::fs::read_to_string(path).map_err(|source| StoreError::io("read", path, source))?;
    let digits: String = text.trim_end().chars().filter(|digit| *digit != '-').collect();
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(BootId).ok_or_else(|| StoreError::damaged(path, Damage::Line(1)))
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const TABLE_PREFIX: &str = "table-";
const TABLE_SUFFIX: &str = ".redb";
/// How names of files begin that are not finished.
const UNFINISHED_PREFIX: &str = ".new-";
