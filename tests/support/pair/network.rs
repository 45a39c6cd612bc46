//! Lines and the connections over them. Records of one direction of a connection keep their order; between
//! connections there is none.

use std::collections::{BTreeMap, VecDeque};

use bowline::model::{ChannelKind, ChannelNumber, LineId, LineRole, Protection, SessionId, Time};
use bowline::session::Input;
use bowline::session::client::{ConnectFailure, FromServer};
use bowline::session::server::{Binding, ClientMessage, ConnectionId};

use super::{Payload, Who};

/// What a line is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineSpec {
    /// What it may carry.
    pub(crate) role: LineRole,
    /// How long a record takes, in microseconds.
    pub(crate) delay_us: u64,
    /// How much longer at most, in microseconds.
    pub(crate) jitter_us: u64,
    /// The protection that its data channels ask for.
    pub(crate) protection: Protection,
}

impl LineSpec {
    /// A line of role `both`.
    pub(crate) const BOTH: Self =
        Self { role: LineRole::Both, delay_us: 500, jitter_us: 200, protection: Protection::Sealed };
    /// A line for data channels only.
    pub(crate) const BULK: Self = Self { role: LineRole::Bulk, ..Self::BOTH };
    /// A line for control channels only.
    pub(crate) const KEYS: Self = Self { role: LineRole::Keys, ..Self::BOTH };
}

/// How a line treats what is sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineState {
    /// It works.
    Up,
    /// New connections fail at once.
    Down,
    /// Whatever is sent vanishes, and nobody hears anything.
    Hole,
    /// Whatever is sent stays on its way until the line is healed, as where the transport sends it again.
    Stalled,
}

/// One client's line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) spec: LineSpec,
    pub(super) state: LineState,
    /// How attempts to bind fail, where they are made to.
    pub(super) failing: Option<ConnectFailure>,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// What travels on a connection.
#[derive(Debug)]
pub(super) enum Record {
    /// The first message of a bind's handshake.
    Hello,
    /// The second one.
    Choice,
    /// The client's first record.
    Attach,
    /// The server's first record.
    Attached,
    FromClient(Input<ClientMessage, Payload>),
    FromServer(Input<FromServer, Payload>),
    /// The end of the stream.
    Fin,
}

/// One connection, which is a channel or is to be one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Who,
    /// The session that it belongs to: what happens on it is nothing to a later one.
    pub(super) session: SessionId,
    pub(super) number: ChannelNumber,
    pub(super) line: LineId,
    pub(super) kind: ChannelKind,
    pub(super) protection: Protection,
    pub(super) binding: Option<Binding>,
    /// The client's core was told that it is bound.
    pub(super) is_bound: bool,
    /// The server's core knows it.
    pub(super) is_joined: bool,
    pub(super) client_end: Direction,
    pub(super) server_end: Direction,
    /// What is sent on it vanishes.
    pub(super) is_swallowed: bool,
}

/// What travels towards one end.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// The end does not read any more.
    pub(super) is_closed: bool,
    /// When the newest record arrives.
    pub(super) last: Time,
    /// What arrived while it was held.
    pub(super) held: Option<VecDeque<Record>>,
}

impl Connection {
    /// A connection over which nothing has gone yet.
    pub(super) fn new(
        client: Who,
        session: SessionId,
        line: LineId,
        (number, kind): (ChannelNumber, ChannelKind),
    ) -> Self {
        Self {
            client,
            session,
            number,
            line,
            kind,
            protection: Protection::Sealed,
            binding: None,
            is_bound: false,
            is_joined: false,
            client_end: Direction::default(),
            server_end: Direction::default(),
            is_swallowed: false,
        }
    }

    pub(super) fn end(&mut self, end: End) -> &mut Direction {
        match end {
            End::Client => &mut self.client_end,
            End::Server => &mut self.server_end,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.client_end.is_closed && self.server_end.is_closed
    }
}

/// All lines and connections.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) lines: BTreeMap<(Who, LineId), Line>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
}

impl Network {
    pub(super) fn next_connection(&mut self) -> ConnectionId {
        self.next += 1;
        ConnectionId(self.next)
    }

    pub(super) fn on_line(&self, client: Who, line: LineId) -> Vec<ConnectionId> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.client == client && connection.line == line)
            .map(|(&id, _)| id)
            .collect()
    }
}
