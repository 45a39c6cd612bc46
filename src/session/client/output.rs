//! What goes in and out of a client's core beside verified records.

use core::time::Duration;

use thiserror::Error;

use crate::model::{
    ChannelKind, ChannelNumber, ExportName, ExportPath, GrantId, HandleId, LineId, LineRole, Protection,
    PublicKey, Refusal, RequestId, Rights,
};
use crate::session::LossReason;
use crate::wire::control::EndReason;
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

/// The core's name for what a caller wants; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The one that is given next.
    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The server refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The session is over; whether the server executed the request is not known.
    #[error("the session is over: {0}")]
    Ended(SessionLoss),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionLoss {
    /// The server does not know it any more.
    #[error("the server does not know it any more")]
    Gone,
    /// This client is not allowed any more.
    #[error("the server does not allow this client any more")]
    NotAllowed,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// This side closed it.
    #[error("it was closed")]
    Closed,
}

impl From<EndReason> for SessionLoss {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::NotAllowed => Self::NotAllowed,
            EndReason::Stopping => Self::Stopping,
        }
    }
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
