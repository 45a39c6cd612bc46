//! What a server tells about a file.

use serde::{Deserialize, Serialize};

use super::{OpenMode, Rights};

/// Which file it is, on one server: two opens of one file have equal identities. Never sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
}

/// Size and times of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// Length in bytes.
    pub len: u64,
    /// Permission bits, as in `st_mode & 0o7777`.
    pub permissions: u32,
    /// Time of the last change of the bytes, in nanoseconds since 1970 (negative: before).
    pub modified_ns: i64,
    /// Time of the last change of bytes or attributes, in nanoseconds since 1970 (negative: before).
    pub changed_ns: i64,
}

/// The state that comes with a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileState {
    /// The mode in which the file is open.
    pub mode: OpenMode,
    /// What this handle may be used for.
    pub rights: Rights,
    /// Size and times, as they were when the answer was made.
    pub attributes: Attributes,
}

/// What a sync makes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SyncScope {
    /// The bytes, and what is needed to read them back.
    Data,
    /// The bytes and all attributes.
    All,
}

/// How far an acknowledged write has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stability {
    /// In the server's page cache: it survives the server process, not the server machine.
    Received,
    /// On the server's disk.
    Durable,
}
