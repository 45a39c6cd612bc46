//! The sans-io core of both sides: requests, windows, drains, credits, channels.
//!
//! # The contract
//!
//! A core is a value. It reads no clock, opens no socket and draws no random bytes of its own: time and facts
//! come in through `handle_…`, random bytes through the [`Entropy`](crate::model::Entropy) given at its making.
//! After **one** `handle_…` call the shell drains `poll_output` until it is `None`, and arranges to call
//! `handle_timeout` at `poll_timeout`. Nothing else changes a core.
//!
//! What comes in are *verified* records: `secure` has checked head, body and payload before the core sees them.
//! Payload passes through as an opaque `P`: the core decides on (handle, offset, length), the shell moves bytes.
//!
//! ```text
//!   verified records ─▶ handle_input ─┐                 ┌─▶ Send      (to a channel's writer)
//!   file work done ─▶ handle_completion ├─▶ one change ─▶ poll_output ├─▶ Effect    (to the file system)
//!   the clock ──────▶ handle_timeout ─┘                 ├─▶ Complete  (to a caller)
//!                                                       └─▶ Connect, Close, Note …
//! ```

pub mod admission;
pub mod client;
mod liveness;
pub mod recovery;
pub mod server;
mod subject;
mod window;

use core::fmt;

pub use liveness::{Liveness, Pulse};
pub use window::{Claim, Window};

use bytes::Bytes;

use crate::model::RequestId;

/// Payload as a client's core holds it: opaque, cheap to clone, and a part of it can be had without a copy.
pub trait Payload: Clone {
    /// The part that begins at `start` and has `len` bytes, all of them within.
    #[must_use]
    fn part(&self, start: u32, len: u32) -> Self;
}

impl Payload for Bytes {
    fn part(&self, start: u32, len: u32) -> Self {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let (start, end) = (u64::from(start), u64::from(start).saturating_add(u64::from(len)));
        self.slice(at(start)..at(end))
    }
}

/// A verified record as a core gets it.
#[derive(Debug)]
pub struct Input<M, P> {
    /// The request that it belongs to.
    pub request: RequestId,
    /// The client has the answers to all requests with lower ids; says nothing on the way to the client.
    pub settled: RequestId,
    /// The message, or the kind of one that this version does not know.
    pub message: Result<M, UnknownKind>,
    /// Length of the payload, in bytes.
    pub payload_len: u32,
    /// The payload, if the record has one.
    pub payload: Option<P>,
}

/// The kind byte of an authenticated message that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownKind(pub u8);

/// Why a channel is closed or was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossReason {
    /// The peer said farewell.
    Farewell,
    /// The stream ended or was reset.
    Broken,
    /// Nothing was heard although a sign of life was asked for.
    Silent,
    /// A record did not verify, or a message broke the protocol.
    Offence,
    /// This side closed it on purpose.
    Closed,
    /// The session is over.
    SessionEnded,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Farewell => "the peer closed it",
            Self::Broken => "the connection broke",
            Self::Silent => "the peer went silent",
            Self::Offence => "the peer broke the protocol",
            Self::Closed => "closed on purpose",
            Self::SessionEnded => "the session ended",
        })
    }
}
