//! What a server tells about a file, and what a client can change of it.

use serde::{Deserialize, Serialize};

use super::{OpenMode, Rights};

/// Which file it is, on one server: two opens of one file have equal identities, and a file that gets the inode of one
/// that is gone has another. Never sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970, to a tick of the kernel's clock, which tells it from an earlier
    /// file of the same inode; 0 where the file system does not tell.
    pub born_ns: i64,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file: the only kind that can be opened.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, a socket or a device: listed, never opened.
    Other,
}

/// Kind, size, permissions and times of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub len: u64,
    /// Bytes of storage that it takes; below the length where the file has holes.
    pub allocated: u64,
    /// Permission bits, as in `st_mode & 0o7777`.
    pub permissions: u32,
    /// How many names it has.
    pub links: u64,
    /// Time of the last read, as far as the file system keeps it, in nanoseconds since 1970 (negative: before).
    pub accessed_ns: i64,
    /// Time of the last change of the bytes, in nanoseconds since 1970 (negative: before).
    pub modified_ns: i64,
    /// Time of the last change of bytes or attributes, in nanoseconds since 1970 (negative: before).
    pub changed_ns: i64,
}

/// A time to put on a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SetTime {
    /// The server's present time.
    Now,
    /// This many nanoseconds since 1970 (negative: before).
    At(i64),
}

/// What to change of a file's attributes; what is `None` stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Cut or extend the file to this length, in bytes. Through a handle only: share modes and locks hold for it.
    pub len: Option<u64>,
    /// New permission bits; the server masks them.
    pub permissions: Option<u32>,
    /// New time of the last read.
    pub accessed: Option<SetTime>,
    /// New time of the last change of the bytes.
    pub modified: Option<SetTime>,
}

/// What is to become of a range's storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Allocation {
    /// Reserve storage; the file grows to the end of the range if it is shorter.
    Reserve,
    /// Reserve storage, also behind the end of the file, whose length stays.
    ReserveKeepLen,
    /// Give the storage back: the range reads as zeros. The length stays.
    PunchHole,
}

/// What to look for in a file with holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seekable {
    /// The next byte that may hold data.
    Data,
    /// The next byte of a hole; the end of the file counts as one.
    Hole,
}

/// How full a file system is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Space {
    /// Its size in bytes.
    pub total: u64,
    /// Free bytes, those kept for the administrator included.
    pub free: u64,
    /// Bytes that the server can still write.
    pub available: u64,
    /// How many files it can hold; 0 where it has no bound.
    pub files_total: u64,
    /// How many more it can hold.
    pub files_free: u64,
}

/// Whether an open makes the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Create {
    /// The file must be there.
    #[default]
    Never,
    /// The file is made if it is not there.
    IfMissing,
    /// The file must not be there, in no form: it is made.
    New,
}

/// What a rename does with a target that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameHow {
    /// Replaces it at one stroke.
    Replace,
    /// Is refused.
    NoReplace,
    /// Changes places with it at one stroke; it must be there.
    Exchange,
}

/// What kind of name is to be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Removal {
    /// A file's, a link's or whatever is no directory.
    File,
    /// An empty directory's.
    Directory,
}

/// Whether an extended attribute may or must be there when it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum XattrHow {
    /// Either.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
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
