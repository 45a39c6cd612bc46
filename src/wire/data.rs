//! Messages of data channels: reads, writes and their answers, nothing with a name or a secret in it.
//! protocol.md: Data messages.

use serde::{Deserialize, Serialize};

use super::control::{Attach, Attached, Refused};
use super::message::stream;
use crate::model::{HandleId, Refusal, Stability};

stream! {
    /// What a client sends on a data channel.
    ClientData on Data {
        /// First record after a bind handshake.
        Attach = 0x02,
        /// A sign of life is wanted.
        Ping = 0x30,
        /// A sign of life.
        Pong = 0x31,
        /// The sender closes the channel; nothing follows.
        Farewell = 0x32,
        /// The sender's next record is under new keys.
        Rekey = 0x34,
        /// Read bytes.
        Read = 0x20,
        /// Write the payload.
        Write = 0x21,
        /// Write the payload at the end of the file.
        Append = 0x22,
    }
}

stream! {
    /// What a server sends on a data channel.
    ServerData on Data, with trailers {
        /// Answer to [`Attach`].
        Attached = 0x82,
        /// A sign of life is wanted.
        Ping = 0x30,
        /// A sign of life.
        Pong = 0x31,
        /// The sender closes the channel; nothing follows.
        Farewell = 0x32,
        /// The sender's next record is under new keys.
        Rekey = 0x34,
        /// Answer to [`Read`]; the payload is what was read.
        ReadDone = 0xa0,
        /// Answer to [`Write`].
        WriteDone = 0xa1,
        /// Answer to [`Append`].
        AppendDone = 0xa2,
        /// Answer to any request.
        Refused = 0x9f,
        /// Ends an answer whose payload nothing protects.
        Trailer = 0xa3,
    }
}

/// A sign of life is wanted; the receiver's reader answers before any file work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

/// The sender closes the channel on purpose. Without it, the end of the stream is a lost channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {}

/// The sender's next record on this channel is under new keys, derived from those of this one. It belongs to the
/// records, not to the session: no core sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekey {}

impl Rekey {
    /// Its kind, in every stream.
    pub const KIND: u8 = 0x34;
}

/// Read `len` bytes at `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The handle.
    pub handle: HandleId,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// How many bytes at most.
    pub len: u32,
}

/// Write the payload at `offset`. Mutating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The handle.
    pub handle: HandleId,
    /// Where to begin, in bytes.
    pub offset: u64,
}

/// Write the payload where the file ends, at one stroke: the server chooses the offset. Mutating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The handle.
    pub handle: HandleId,
}

/// The payload is what was read, fewer bytes than asked only at the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadDone {}

/// Follows an answer with payload on a clear channel, and says what became of the payload: the file may have become
/// shorter, or unreadable, after its length was promised. The answer counts from here on. Like [`Rekey`] it belongs to
/// the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// How many bytes of the payload, from its beginning, are the file's; the others are nobody's.
    pub valid: u32,
    /// The answer is this refusal instead, and none of the payload is valid.
    pub refused: Option<Refusal>,
}

/// The bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteDone {
    /// How many bytes; fewer than given only where the file system had no room for more.
    pub written: u32,
    /// How far they have come.
    pub stability: Stability,
}

/// The bytes were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendDone {
    /// Where the first of them is, in bytes.
    pub offset: u64,
    /// How many bytes; fewer than given only where the file system had no room for more.
    pub written: u32,
    /// How far they have come.
    pub stability: Stability,
}
