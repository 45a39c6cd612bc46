//! What a server keeps of its open table beyond its own life: the values of its records. No secret is among them; of a
//! resume key there is a keyed hash.

use serde::{Deserialize, Serialize};

use super::{
    Attributes, CreateId, ExportName, ExportPath, FileIdentity, GrantId, HandleId, LockMode, OpenMode,
    PublicKey, RawRange, Reason, Rights, SessionId, Time,
};

/// How a file looked: what any change of it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileMark {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last change of bytes or attributes, in nanoseconds since 1970.
    pub changed_ns: i64,
}

impl From<&Attributes> for FileMark {
    fn from(attributes: &Attributes) -> Self {
        Self { len: attributes.len, changed_ns: attributes.changed_ns }
    }
}

/// An open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredOpen {
    /// Whose it is.
    pub owner: PublicKey,
    /// The export through which the file was opened.
    pub export: ExportName,
    /// Where in it the file is, as far as renames came through the server.
    pub path: ExportPath,
    /// Which file it is.
    pub file: FileIdentity,
    /// The mode in which it is open.
    pub mode: OpenMode,
    /// Made by the client for this open.
    pub create_id: CreateId,
    /// How long it keeps contenders out, in microseconds.
    pub grace_us: u64,
    /// Whether it keeps everybody out meanwhile.
    pub guard: bool,
    /// Whether its owner has written since the look that `expected` is of.
    pub wrote: bool,
    /// Whether anybody else has written since.
    pub others_wrote: bool,
    /// Whether something may have been acknowledged through it as received that is not durable.
    pub unsynced: bool,
    /// Whether some of that went with a machine, and somebody may not have been told.
    pub lost: bool,
    /// Whether anything was ever acknowledged so: its clients may keep it.
    pub has_kept: bool,
    /// How the file looked when nothing was executing.
    pub expected: Option<FileMark>,
    /// Its holders.
    pub holders: Vec<StoredHolder>,
    /// Its resume keys.
    pub keys: Vec<StoredKey>,
    /// The generation of the key that was issued last.
    pub issued: u32,
    /// Its locks, in the order of the file.
    pub locks: Vec<(RawRange, LockMode)>,
    /// How often its grace has begun anew because the machine had been started anew.
    pub renewals: u8,
    /// The parts in it that its holders have granted to others.
    pub grants: Vec<StoredGrant>,
    /// What is left of those that are over, oldest first.
    pub ended_grants: Vec<StoredEndedGrant>,
}

/// One session's part in an open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredHolder {
    /// The name by which the client knows it.
    pub handle: HandleId,
    /// The session that it belonged to.
    pub session: SessionId,
    /// The identity of that session.
    pub identity: PublicKey,
    /// What it may be used for.
    pub rights: Rights,
    /// Whether a request to open made it, and not a key.
    pub is_opened: bool,
    /// Until when it waits, on the clock that counts from the start of the machine; none while it was reachable.
    pub deadline: Option<Time>,
    /// The grant that it came of, if it did.
    pub grant: Option<GrantId>,
}

/// A resume key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredKey {
    /// Names it among the keys of its open.
    pub generation: u32,
    /// The keyed hash of it and its bearer: the grantee if there is a grant, or else the owner of the open.
    pub hash: [u8; 32],
    /// The holder with which it dies.
    pub home: HandleId,
    /// The rights of the holder that it was issued to.
    pub rights: Rights,
    /// Whether it was issued to its home, and not moved there.
    pub is_own: bool,
    /// The grant that its home came of, if it did.
    pub grant: Option<GrantId>,
}

/// A part in an open that was granted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredGrant {
    /// Names it.
    pub grant: GrantId,
    /// The holder with which it ends; none of one that stands on its own.
    pub giver: Option<HandleId>,
    /// The identity that gave it.
    pub from: PublicKey,
    /// The identity that it was given to.
    pub to: PublicKey,
    /// What it is good for.
    pub rights: Rights,
    /// When it ends, on the clock that counts from the start of the machine.
    pub ends: Option<Time>,
    /// How long it lasts from the start on of a machine that was started anew, in microseconds; 0: that was so once.
    pub renewed_us: u64,
    /// Whether the server tells the grantee.
    pub is_delivered: bool,
    /// Whether the giver's handle goes when it is taken.
    pub gives_up: bool,
    /// Whether somebody has resumed with its key.
    pub is_taken: bool,
    /// The grant that the giver's handle came of, if it did.
    pub parent: Option<GrantId>,
    /// Generation and keyed hash of its key, if it has one.
    pub key: Option<(u32, [u8; 32])>,
}

/// What is left of a grant that is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredEndedGrant {
    /// Names it.
    pub grant: GrantId,
    /// The identity that it was given to.
    pub to: PublicKey,
    /// Generation and keyed hash of each key that came of it.
    pub keys: Vec<(u32, [u8; 32])>,
}

/// Why an open ended under its absent owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ending {
    /// Its grace was over, and another client wanted the file.
    TakenOver,
    /// Nobody came back to it for too long, or too many such opens were kept.
    Expired,
    /// The server's administrator ended it.
    Released,
}

impl Ending {
    /// What the rightful owner is told.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::TakenOver => Reason::TakenOver,
            Self::Expired => Reason::Expired,
            Self::Released => Reason::Released,
        }
    }
}

/// What is kept of an open that ended under its absent owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredTombstone {
    /// Its place in the order in which opens ended.
    pub order: u64,
    /// Whose it was.
    pub owner: PublicKey,
    /// Generation and keyed hash of each of its keys, and whose it is if not the owner's.
    pub keys: Vec<(u32, [u8; 32], Option<PublicKey>)>,
    /// Why it ended.
    pub ending: Ending,
    /// When, on the clock that counts from the start of the machine.
    pub ended: Time,
}
