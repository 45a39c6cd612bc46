//! Why the table of opens cannot be used, by who has to do something about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::model::{BootId, Durability, EntropyError, Limits, PublicKey, RecordKind, StoreId};
use crate::net::KeyFileError;

/// Why a state directory, or the table in it, cannot be used. Where several processes or people could be meant, the
/// text says what to try.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another server has the directory.
    #[error(
        "the state directory {path:?} is in use by another server: stop that one, or give each server its own"
    )]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// It is not a directory that can be used.
    #[error(
        "cannot use the state directory {path:?}: check that it is a directory and that you may write to it"
    )]
    Folder {
        /// The state directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It belongs to another user.
    #[error(
        "the state directory {path:?} belongs to user {owner}: chown it to the user who runs this, or give another"
    )]
    Owner {
        /// The state directory.
        path: PathBuf,
        /// The number of the user that it belongs to.
        owner: u32,
    },
    /// Others can put files in it.
    #[error("others can write to the state directory {path:?} (its mode is {mode:04o}): chmod go-w {}", path.display())]
    Permissions {
        /// The state directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It was written by a program that this one does not understand.
    #[error(
        "{path:?} has format {found}, and this program knows format {expected}: use the program that wrote it, or \
         give another state directory"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that it says it has.
        found: String,
        /// The format that this program reads and writes.
        expected: u32,
    },
    /// It is not what was written.
    #[error(
        "{path:?} is damaged: {damage}; put back what was there, or move the state directory away to begin without \
         the opens in it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        damage: Damage,
    },
    /// The table was made in another state directory.
    #[error(
        "the table {path:?} belongs to the store {found}, and this state directory to {expected}: put the right one back"
    )]
    OtherStore {
        /// The table.
        path: PathBuf,
        /// The store that it belongs to.
        found: StoreId,
        /// The store that belongs here.
        expected: StoreId,
    },
    /// The state is another server's.
    #[error(
        "the state directory {path:?} belongs to the server {found}: give the one of this server, or that server's key"
    )]
    OtherIdentity {
        /// The state directory.
        path: PathBuf,
        /// The server that it belongs to.
        found: PublicKey,
    },
    /// A table of durability `process` was in use when its machine ended: parts of it may never have reached the disk.
    #[error(
        "the table {path:?} has durability \"{}\" and was in use when the machine stopped (boot {found}, now {now}): \
         nothing in it can be believed; durability \"{}\" outlives that",
        Durability::Process,
        Durability::Machine
    )]
    OtherBoot {
        /// The table.
        path: PathBuf,
        /// The boot in which it was used.
        found: BootId,
        /// This one.
        now: BootId,
    },
    /// The file that holds the key of the hashes is gone.
    #[error(
        "there is no {path:?}, and without it none of the {opens} opens of the table can be resumed: put it back, or \
         move the state directory away to begin without them"
    )]
    HashKeyMissing {
        /// The file.
        path: PathBuf,
        /// How many opens need it.
        opens: usize,
    },
    /// The file holds another key than the one of the hashes.
    #[error(
        "{path:?} is not the key of this table, and none of its {opens} opens could be resumed: put the right one back, \
         or move the state directory away to begin without them"
    )]
    OtherHashKey {
        /// The file.
        path: PathBuf,
        /// How many opens need the right one.
        opens: usize,
    },
    /// A key file of the state directory cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The disk is full, or the user's share of it. What removes or replaces records may still be recorded.
    #[error("no space left for {path:?}: free some, or move the state directory to another disk")]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The file is not where it was: deleted, replaced, or its folder moved.
    #[error(
        "{path:?} was deleted or replaced while it was in use: what is recorded now would be lost, so the server stops; \
         leave the state directory alone while a server runs"
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The system cannot read or write.
    #[error("cannot {doing} {path:?}: check the disk, and the system's log")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// A record is longer than any has to be.
    #[error("the {kind} record {key:x} has {len} bytes, and a record has at most {}", Limits::RECORD_LEN_MAX)]
    TooLong {
        /// What the record is about.
        kind: RecordKind,
        /// Its key.
        key: u64,
        /// Its length, in bytes.
        len: usize,
    },
    /// The store failed before. What it would do now could not be believed.
    #[error("the table is not used any more, because it failed before")]
    Failed,
    /// The store was closed, or what drives it ended.
    #[error("the table is closed")]
    Closed,
}

/// What is wrong with a file of the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Damage {
    /// A file that belongs to the others is not there.
    #[error("it is not there, and its table is")]
    Missing,
    /// There is no table, and there was one.
    #[error("it is not there, and it had {commits} commits")]
    NoTable {
        /// How many commits it had at least.
        commits: u64,
    },
    /// A line of it is not what is written there.
    #[error("line {0} is not what stands there")]
    Line(usize),
    /// Its sum does not match the rest.
    #[error("its sum does not match what it says")]
    Sum,
    /// What the database finds wrong.
    #[error("{0}")]
    Database(String),
    /// A record does not match its sum.
    #[error("the record {key:x} of kind {kind} does not match its sum")]
    Record {
        /// The number of its kind.
        kind: u8,
        /// Its key.
        key: u64,
    },
    /// It is whole, and older than what was acknowledged.
    #[error("it ends with commit {found}, and commit {expected} was acknowledged")]
    Older {
        /// Its last commit.
        found: u64,
        /// The last commit that is known.
        expected: u64,
    },
    /// It is whole, and from an earlier life of the server.
    #[error("it is from epoch {found}, and the server has been in epoch {expected}")]
    OlderEpoch {
        /// The epoch in which it was written last.
        found: u64,
        /// The epoch in which the server was last.
        expected: u64,
    },
}

impl StoreError {
    /// Damage of a file.
    pub(super) fn damaged(path: &Path, damage: Damage) -> Self {
        Self::Damaged { path: path.to_owned(), damage }
    }

    /// What the system said of a file.
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::NoSpace { path: path.to_owned() };
        }
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Whether there is no room on the disk, or none for this user.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
