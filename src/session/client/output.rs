//! What goes in and out of a client's core beside verified records.

use core::time::Duration;

use thiserror::Error;

use crate::model::{
    ByteRange, ChannelKind, ChannelNumber, Epoch, ExportName, ExportPath, FileState, GrantId, HandleId,
    LineId, LineRole, Meanwhile, Protection, PublicKey, Reason, Refusal, RequestId, Rights, SessionId,
    Verifier,
};
use crate::session::LossReason;
use crate::wire::control::Started;
use crate::wire::data::{Append, AppendDone, Read, Write, WriteDone};
use crate::wire::{ClientControl, ClientData, ServerControl, ServerData};

/// A line as the core sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSetup {
    /// What it may carry.
    pub role: LineRole,
    /// The protection that its data channels ask for.
    pub protection: Protection,
}

/// What a server has granted a session when it started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The session.
    pub session: SessionId,
    /// Requests that may be in flight at once.
    pub requests: u32,
    /// Bytes of reads and writes that may be in flight at once.
    pub bytes: u64,
    /// Longest payload of one record, in bytes.
    pub payload_max: u32,
    /// The server's life on its data store.
    pub epoch: Epoch,
    /// Whether what was acknowledged before can still be there.
    pub verifier: Verifier,
}

impl Terms {
    /// The terms of `session`, as its server told them.
    #[must_use]
    pub fn new(session: SessionId, started: &Started) -> Self {
        let &Started { requests, bytes, payload_max, epoch, verifier, .. } = started;
        Self { session, requests, bytes, payload_max, epoch, verifier }
    }
}

/// The core's name for what a caller wants; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a caller wants done.
#[derive(Debug, Clone)]
pub enum Operation<P> {
    /// A request of control channels.
    Control(ClientControl),
    /// A request of control channels with a payload of at most one record, and its length in bytes; with a length
    /// of 0 the record has none.
    ControlWith(ClientControl, P, u32),
    /// A read of at most one record's payload.
    Read(Read),
    /// A write of at most one record's payload, and its length in bytes.
    Write(Write, P, u32),
    /// As a write, at the end of the file.
    Append(Append, P, u32),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer<P> {
    /// The answer to a control request, and its payload where that kind of answer has one: a list or a value.
    Control(ServerControl, Option<P>),
    /// What was read; nothing at the end of the file.
    Read(Option<P>),
    /// What was written.
    Written(WriteDone),
    /// What was appended.
    Appended(AppendDone),
}

/// Why an operation has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The server refused it, or what became of it is not known ([`Reason::Unknown`]).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The session is over; whether the server executed the request is not known.
    #[error("the session is over: {0}")]
    Ended(SessionLoss),
    /// The server has lost its state, and the open with it.
    #[error("the server has lost its state: it does not know the open any more")]
    StateLost,
    /// The open had no resume key, and ended with its session.
    #[error("the open had no resume key and ended with its session")]
    NotResumable,
    /// Bytes that were acknowledged and not synced are lost with the server's page cache. Told once.
    #[error("bytes that were written before are lost: {} ranges", .0.len())]
    LostWrites(Vec<ByteRange>),
}

impl From<Reason> for RequestError {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason.into())
    }
}

/// Why a handle did not come back with its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandleLoss {
    /// The server refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server has lost its state.
    #[error("the server has lost its state: it does not know the open any more")]
    StateLost,
    /// There was no resume key.
    #[error("the open had no resume key and ended with its session")]
    NoKey,
}

impl From<HandleLoss> for RequestError {
    fn from(loss: HandleLoss) -> Self {
        match loss {
            HandleLoss::Refused(refusal) => Self::Refused(refusal),
            HandleLoss::StateLost => Self::StateLost,
            HandleLoss::NoKey => Self::NotResumable,
        }
    }
}

/// Why a session is over. One that its server does not know any more, or that its server ends because it stops, is not:
/// it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionLoss {
    /// This client is not allowed any more.
    #[error("the server does not allow this client any more")]
    NotAllowed,
    /// This side closed it.
    #[error("it was closed")]
    Closed,
}

/// Why a connection attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The server cannot be reached on this line.
    Unreachable,
    /// The server was reached and closed the connection during the handshake. Proves nothing about the session.
    Refused,
}

/// A message from a server, by the kind of channel that it came on.
#[derive(Debug, Clone, PartialEq)]
pub enum FromServer {
    /// On a control channel.
    Control(ServerControl),
    /// On a data channel.
    Data(ServerData),
}

/// A message to a server, by the kind of channel that it may go on.
#[derive(Debug, Clone, PartialEq)]
pub enum ToServer {
    /// On a control channel.
    Control(ClientControl),
    /// On a data channel.
    Data(ClientData),
}

/// What the core wants done.
#[derive(Debug)]
pub enum ClientOutput<P> {
    /// Connect on a line and bind the connection as this channel; report with `handle_bound` or
    /// `handle_connect_failed`.
    Connect {
        /// The channel's number to be.
        number: ChannelNumber,
        /// The line.
        line: LineId,
        /// What it is for.
        kind: ChannelKind,
        /// The protection to ask for.
        protection: Protection,
    },
    /// Ask the server in a fresh handshake whether the session lives; report with `handle_asked`.
    Ask {
        /// The line to ask on.
        line: LineId,
    },
    /// Start a session in place of this one, which the server does not know any more or has ended, over whichever line
    /// does; report with `handle_restarted` or `handle_restart_failed`. Nothing of the former session is reported after
    /// that.
    Restart {
        /// The session that is given up.
        former: SessionId,
    },
    /// Give this record to the channel's writer.
    Send {
        /// The channel.
        number: ChannelNumber,
        /// Whose request it is, if it is one.
        ticket: Option<Ticket>,
        /// The request.
        request: RequestId,
        /// Answers to all requests with lower ids are in.
        settled: RequestId,
        /// The message.
        message: ToServer,
        /// The payload, if any.
        payload: Option<P>,
    },
    /// Close the channel's connection once what was given to its writer is out.
    Disconnect {
        /// The channel.
        number: ChannelNumber,
    },
    /// Give the caller its answer.
    Complete {
        /// The request.
        ticket: Ticket,
        /// What came of it.
        outcome: Result<Answer<P>, RequestError>,
    },
    /// Tell whoever listens.
    Event(SessionEvent),
}

/// Something that a user of the session may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A channel is in use.
    ChannelUp {
        /// The channel.
        number: ChannelNumber,
        /// Its line.
        line: LineId,
        /// What it carries.
        kind: ChannelKind,
    },
    /// A channel is lost; what was under way on it is repeated elsewhere.
    ChannelDown {
        /// The channel.
        number: ChannelNumber,
        /// Its line.
        line: LineId,
        /// What it carried.
        kind: ChannelKind,
        /// Why.
        reason: LossReason,
    },
    /// A line could not be used; it is tried again.
    LineFailed {
        /// The line.
        line: LineId,
        /// How.
        failure: ConnectFailure,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// No channel reaches the session. What is asked waits until one does.
    Lost,
    /// A channel reaches the session again, or one that has taken its place.
    Returned {
        /// The server's life on its data store: a higher one than before is another server process.
        epoch: Epoch,
    },
    /// The server does not know the session any more, and another one could not be started; it is tried again.
    RestartFailed {
        /// How.
        failure: ConnectFailure,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// A handle is there again, in the session that has taken the former one's place.
    Resumed {
        /// The handle.
        handle: HandleId,
        /// What it was before.
        former: HandleId,
        /// What became of the file while no channel reached it.
        meanwhile: Meanwhile,
        /// The file's state.
        state: FileState,
    },
    /// A handle is gone with its session. The others go on.
    ResumeFailed {
        /// The handle.
        handle: HandleId,
        /// Why.
        loss: HandleLoss,
    },
    /// Another client lets this one have a part in an open.
    GrantOffered {
        /// The grant.
        grant: GrantId,
        /// Who grants.
        from: PublicKey,
        /// The export.
        export: ExportName,
        /// The file in it.
        path: ExportPath,
        /// What the handle will be good for.
        rights: Rights,
    },
    /// The server has ended a handle.
    HandleEnded {
        /// The handle.
        handle: HandleId,
        /// Why.
        refusal: Refusal,
    },
    /// The session is over.
    Ended(SessionLoss),
}

/// Where a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// It is being bound.
    Connecting,
    /// It is in use.
    Live,
    /// It is gone.
    Lost(LossReason),
}

/// A channel and what it has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelStatus {
    /// Its number.
    pub number: ChannelNumber,
    /// Its line.
    pub line: LineId,
    /// What it carries.
    pub kind: ChannelKind,
    /// The protection that it asked for.
    pub offered: Protection,
    /// How it is protected: as the server chose, never less than was asked for. While it is connecting, as it asks.
    pub protection: Protection,
    /// Where it stands.
    pub state: ChannelState,
    /// Payload bytes of answered reads.
    pub read_bytes: u64,
    /// Payload bytes of answered writes.
    pub written_bytes: u64,
    /// Requests answered on it.
    pub requests: u64,
    /// Requests that were sent on it because another channel was lost.
    pub repeats: u64,
    /// Time on the shell's clock from its first request to its last answer.
    pub busy: Duration,
}
