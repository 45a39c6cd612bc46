//! The table in a database of one tree: `redb` over a [`Medium`].
//!
//! | key (kind, number) | value, with a sum of 16 bytes behind it |
//! | --- | --- |
//! | (0, 0) | the head: format (`u32`), version of the records (`u32`), store id (16 bytes), epoch (`u64`), commits (`u64`), little-endian |
//! | (1, open id) | an open |
//! | (2, key) | a tombstone |
//! | (3, key) | an intent |
//! | (4, key) | a grant |
//!
//! A commit is one transaction, and counts itself in the head. The database commits in two phases: the new state is
//! written beside the old one and the disk waited for, then one byte makes it the valid one and the disk is waited for
//! again. One phase would need one wait; but then a last commit that is damaged looks like one that was cut off, and the
//! state before it is taken in silence. With two, what the byte points to must match its sums. For the byte itself the
//! count of commits is kept outside too: a table that ends before the last count is damaged.
//!
//! Every page is checked at the start, and each record has a sum of its own. With that check on, the database reports
//! what it finds damaged and does not panic: that is promised by its makers, and tried in the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::error::is_full;
use super::medium::{Backend, Medium};
use super::seal::Seal;
use super::{Damage, StoreError, TableStore};
use crate::model::{Limits, Record, RecordChange, RecordKind, StoreId};
use crate::wire::stored;

/// The format of the tree and of the head. What the records say has a version of its own, [`stored::VERSION`].
pub(super) const FORMAT: u32 = 2;

const TREE: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("bowline");
const HEAD_KEY: (u8, u64) = (0, 0);

/// What the table says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    /// The version of what the records say.
    records: u32,
    store: StoreId,
    epoch: u64,
    commits: u64,
}

/// What is known of a table before it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expected {
    /// The store that it belongs to.
    pub(super) store: StoreId,
    /// The epoch in which it was written at least.
    pub(super) epoch: u64,
    /// How many commits it has at least.
    pub(super) commits: u64,
}

/// The open table in a `redb` database.
#[derive(Debug)]
pub(super) struct RedbStore {
    path: PathBuf,
    medium: Arc<dyn Medium>,
    backend: Backend,
    /// None once it failed or was closed.
    database: Option<Database>,
    seal: Seal,
    head: Head,
}

impl RedbStore {
    /// A new, empty table on an empty medium.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`].
    pub(super) fn create(medium: Arc<dyn Medium>, path: &Path, store: StoreId) -> Result<Self, StoreError> {
        let head = Head { records: stored::VERSION, store, epoch: 0, commits: 0 };
        let mut table = Self::over(medium, path, head)?;
        table.transact(0, &[])?;
        Ok(table)
    }

    /// The table on a medium that has one.
    ///
    /// # Errors
    /// [`StoreError::Format`], [`StoreError::Damaged`], [`StoreError::OtherStore`], [`StoreError::NoSpace`],
    /// [`StoreError::Io`].
    pub(super) fn open(
        medium: Arc<dyn Medium>,
        path: &Path,
        expected: &Expected,
    ) -> Result<Self, StoreError> {
        let len = medium.len().map_err(|source| StoreError::io("read", path, source))?;
        // The database would take it for a new one.
        if len == 0 {
            return Err(StoreError::damaged(path, Damage::NoTable { commits: expected.commits }));
        }
        let head = Head { records: stored::VERSION, store: expected.store, epoch: 0, commits: 0 };
        let mut table = Self::over(medium, path, head)?;
        let believed = table.read_head().and_then(|head| head.check(path, expected).map(|()| head));
        match believed {
            Ok(head) => {
                table.head = head;
                Ok(table)
            }
            Err(error) => {
                table.give_up();
                Err(error)
            }
        }
    }

    fn over(medium: Arc<dyn Medium>, path: &Path, head: Head) -> Result<Self, StoreError> {
        let backend = Backend::new(Arc::clone(&medium));
        let database = Builder::new()
            .set_cache_size(Limits::STORE_CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend.clone())
            .map_err(|error| blame(path, error.into()))?;
        let seal = Seal::new(head.store);
        Ok(Self { path: path.to_owned(), medium, backend, database: Some(database), seal, head })
    }

    /// In which epoch it was written last.
    pub(super) fn epoch(&self) -> u64 {
        self.head.epoch
    }

    /// How many commits it has.
    pub(super) fn commits(&self) -> u64 {
        self.head.commits
    }

    /// Records that the server is in this epoch.
    ///
    /// # Errors
    /// As [`TableStore::commit`].
    pub(super) fn begin_epoch(&mut self, epoch: u64) -> Result<(), StoreError> {
        self.transact(epoch, &[])
    }

    fn read_head(&self) -> Result<Head, StoreError> {
        let found = self.reading(|tree| Ok(tree.get(HEAD_KEY)?.map(|value| value.value().to_vec())))?;
        let damaged =
            || StoreError::damaged(&self.path, Damage::Record { kind: HEAD_KEY.0, key: HEAD_KEY.1 });
        let found = found.ok_or_else(damaged)?;
        let format = found.first_chunk().map(|format| u32::from_le_bytes(*format)).ok_or_else(damaged)?;
        if format != FORMAT {
            return Err(StoreError::Format {
                path: self.path.clone(),
                found: format.to_string(),
                expected: FORMAT,
            });
        }
        let head = Head::decode(&found).ok_or_else(damaged)?;
        // A table of another store has sums of its own, and is to be told from a damaged one.
        Seal::new(head.store).open(HEAD_KEY.0, HEAD_KEY.1, &found).ok_or_else(damaged)?;
        if head.records != stored::VERSION {
            return Err(StoreError::Format {
                path: self.path.clone(),
                found: format!("{FORMAT} with records of version {}, not {}", head.records, stored::VERSION),
                expected: FORMAT,
            });
        }
        Ok(head)
    }

    /// One transaction: the changes, and the head that counts it.
    fn transact(&mut self, epoch: u64, batch: &[RecordChange]) -> Result<(), StoreError> {
        let head = Head { epoch, commits: self.head.commits.saturating_add(1), ..self.head };
        let outcome = self.write(head, batch);
        match outcome {
            Ok(()) => self.head = head,
            // The database does not know what is on the disk now, and neither does anybody else before it is read again.
            Err(_) => self.give_up(),
        }
        outcome
    }

    fn write(&self, head: Head, batch: &[RecordChange]) -> Result<(), StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Failed)?;
        self.try_write(database, head, batch).map_err(|error| blame(&self.path, error))?;
        // What is acknowledged is in the file that the next start will find.
        self.medium.check_place()?;
        self.medium.note(head.commits).map_err(|source| StoreError::io("write", &self.path, source))
    }

    fn try_write(&self, database: &Database, head: Head, batch: &[RecordChange]) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let mut tree = transaction.open_table(TREE)?;
        for change in batch {
            let key = (code(change.kind), change.key);
            match &change.value {
                Some(value) => drop(tree.insert(key, &*self.seal.close(key.0, key.1, value))?),
                None => drop(tree.remove(key)?),
            }
        }
        let value = self.seal.close(HEAD_KEY.0, HEAD_KEY.1, &head.encode());
        tree.insert(HEAD_KEY, &*value)?;
        drop(tree);
        Ok(transaction.commit()?)
    }

    /// What `read` finds in the tree.
    fn reading<T>(&self, read: impl FnOnce(&Tree) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Failed)?;
        let found = || read(&database.begin_read()?.open_table(TREE)?);
        found().map_err(|error| blame(&self.path, error))
    }

    /// Ends the use of the database, which can change nothing any more.
    fn give_up(&mut self) {
        self.backend.give_up();
        self.database = None;
    }
}

impl Drop for RedbStore {
    /// The database would write that it was closed. A store that was not closed is one whose server was killed.
    fn drop(&mut self) {
        self.give_up();
    }
}

type Tree = redb::ReadOnlyTable<(u8, u64), &'static [u8]>;

impl TableStore for RedbStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let entries = self.reading(|tree| {
            let mut entries = Vec::new();
            for entry in tree.iter()? {
                let (key, value) = entry?;
                entries.push((key.value(), value.value().to_vec()));
            }
            Ok(entries)
        })?;
        let records = entries.into_iter().filter(|(key, _)| *key != HEAD_KEY);
        records.map(|((kind, key), sealed)| self.record(kind, key, &sealed)).collect()
    }

    fn commit(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        self.transact(self.head.epoch, batch)
    }

    fn check(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        super::check_lengths(batch)?;
        if self.database.is_none() {
            return Err(StoreError::Failed);
        }
        let adds =
            |change: &&RecordChange| change.value.is_some() && may_wait(change.kind) && !is_horizon(change);
        if !batch.iter().any(|change| adds(&change)) || self.medium.has_room() {
            return Ok(());
        }
        // Full: what is there already may still change.
        for change in batch.iter().filter(adds) {
            if self.reading(|tree| Ok(tree.get((code(change.kind), change.key))?.is_none()))? {
                return Err(StoreError::NoSpace { path: self.path.clone() });
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let database = self.database.take().ok_or(StoreError::Failed)?;
        let closed = database.close().map_err(|error| blame(&self.path, error.into()));
        let synced = || self.medium.sync().map_err(|source| StoreError::io("sync", &self.path, source));
        let outcome = closed.and_then(|()| synced()).and_then(|()| self.medium.check_place());
        self.backend.give_up();
        outcome
    }
}

impl RedbStore {
    /// The record that an entry of the tree holds.
    fn record(&self, kind: u8, key: u64, sealed: &[u8]) -> Result<Record, StoreError> {
        let damaged = || StoreError::damaged(&self.path, Damage::Record { kind, key });
        let value = self.seal.open(kind, key, sealed).ok_or_else(damaged)?;
        let known = RecordKind::EACH.iter().find(|known| code(**known) == kind);
        let kind = *known.ok_or_else(|| StoreError::Format {
            path: self.path.clone(),
            found: format!("{FORMAT} with records of kind {kind}"),
            expected: FORMAT,
        })?;
        Ok(Record { kind, key, value: value.to_vec() })
    }
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.store.0);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.commits.to_le_bytes());
        bytes
    }

    /// Whether the table is the one that is expected, and as new.
    fn check(&self, path: &Path, expected: &Expected) -> Result<(), StoreError> {
        let damaged = |damage| Err(StoreError::damaged(path, damage));
        if self.store != expected.store {
            let (found, expected) = (self.store, expected.store);
            return Err(StoreError::OtherStore { path: path.to_owned(), found, expected });
        }
        if self.commits < expected.commits {
            return damaged(Damage::Older { found: self.commits, expected: expected.commits });
        }
        if self.epoch < expected.epoch {
            return damaged(Damage::OlderEpoch { found: self.epoch, expected: expected.epoch });
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(size_of_val(&FORMAT)..)?;
        let (records, rest) = rest.split_first_chunk()?;
        let (store, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (commits, _) = rest.split_first_chunk()?;
        let (records, store) = (u32::from_le_bytes(*records), StoreId(*store));
        let (epoch, commits) = (u64::from_le_bytes(*epoch), u64::from_le_bytes(*commits));
        Some(Self { records, store, epoch, commits })
    }
}

/// The number of a kind in the tree.
fn code(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Open => 1,
        RecordKind::Tombstone => 2,
        RecordKind::Intent => 3,
        RecordKind::Grant => 4,
    }
}

/// Whether a new record of this kind begins something that can be refused, where others record what has happened.
fn may_wait(kind: RecordKind) -> bool {
    match kind {
        RecordKind::Open | RecordKind::Intent | RecordKind::Grant => true,
        RecordKind::Tombstone => false,
    }
}

/// Whether a record says up to which life intents were given up. It is there once, and small; without it a change of which
/// the record is gone would be taken for one that was never begun.
fn is_horizon(change: &RecordChange) -> bool {
    change.kind == RecordKind::Intent && change.key == RecordKind::HORIZON_KEY
}

/// Who is to blame for what the database says.
fn blame(path: &Path, error: redb::Error) -> StoreError {
    let damaged = |text: String| StoreError::damaged(path, Damage::Database(text));
    match error {
        redb::Error::Io(source) if is_full(&source) => StoreError::NoSpace { path: path.to_owned() },
        // It says so of a file that is none of its own, and of one that ends before its data do.
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            damaged(source.to_string())
        }
        redb::Error::Io(source) => StoreError::io("read or write", path, source),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Failed,
        redb::Error::UpgradeRequired(version) => StoreError::Format {
            path: path.to_owned(),
            found: format!("{version} of the database"),
            expected: FORMAT,
        },
        other => damaged(other.to_string()),
    }
}
