//! The time between being told to stop and stopping: what clients have sent is executed and answered, and they have the
//! answers before their channels are closed.
//!
//! For each session:
//!
//! ```text
//!   told to send nothing new ──▶ everything that it has sent is here ──▶ nothing executes ──▶ it has all answers
//! ```
//!
//! Each step but the third is a ping on every channel, and its answer: what was sent on a channel before that was taken
//! by then. How long all of it may take is the shell's affair.

use std::collections::{BTreeMap, BTreeSet};

use super::ServerCore;
use super::output::{ConnectionId, ServerMessage, ServerOutput};
use crate::model::{ChannelKind, RequestId, SessionId, Time};
use crate::wire::control::Stopping as StoppingMessage;
use crate::wire::data::Ping;
use crate::wire::{ServerControl, ServerData};

/// How far the sessions are.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    is_begun: bool,
    /// Those that are not done.
    sessions: BTreeMap<SessionId, Round>,
    /// Whether something has happened that may end a round.
    is_due: bool,
}

#[derive(Debug)]
struct Round {
    stage: Stage,
    /// The channels whose answers to pings are to come.
    awaited: BTreeSet<ConnectionId>,
}

/// What holds when the round is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client knows that the server stops.
    Told,
    /// What it had sent by then has arrived.
    Arrived,
    /// Nothing of it executes.
    Executed,
    /// It has all answers.
    Answered,
}

impl Stopping {
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_begun && self.is_due
    }

    /// Something has happened that may end a round.
    pub(super) fn note(&mut self) {
        self.is_due = true;
    }

    /// A channel has answered all pings, or is gone.
    pub(super) fn on_taken(&mut self, session: SessionId, connection: ConnectionId) {
        if let Some(round) = self.sessions.get_mut(&session) {
            round.awaited.remove(&connection);
            self.is_due = true;
        }
    }
}

impl<P: Clone> ServerCore<P> {
    /// The server is about to stop: no session begins any more, clients are asked to send nothing new, and what they have
    /// sent is executed and answered. [`ServerOutput::Drained`] says when each client that can be reached has its answers;
    /// [`Self::handle_stop`] need not wait for it.
    pub fn handle_drain(&mut self, now: Time) {
        self.now = now;
        self.stopping.is_begun = true;
        self.stopping.is_due = true;
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        all.into_iter().for_each(|session| self.tell_stopping(session));
    }

    /// Tells a session's client that the server stops, also where a new channel reaches it.
    pub(super) fn tell_stopping(&mut self, session: SessionId) {
        for connection in self.connections_of(session, Some(ChannelKind::Control)) {
            let message = ServerMessage::Control(StoppingMessage {}.into());
            self.send(connection, RequestId::NONE, message, None);
        }
        self.begin_round(session, Stage::Told);
    }

    /// Goes on with each session that a round is over of.
    pub(super) fn go_on_stopping(&mut self) {
        self.stopping.is_due = false;
        let is_over = |(_, round): &(&SessionId, &Round)| round.awaited.is_empty();
        let over: Vec<_> = self
            .stopping
            .sessions
            .iter()
            .filter(is_over)
            .map(|(&session, round)| (session, round.stage))
            .collect();
        for (session, stage) in over {
            match stage {
                Stage::Told => self.begin_round(session, Stage::Arrived),
                Stage::Arrived | Stage::Executed if !self.is_answering(session) => {
                    self.begin_round(session, Stage::Answered);
                }
                Stage::Arrived | Stage::Executed => {
                    let round = Round { stage: Stage::Executed, awaited: BTreeSet::new() };
                    self.stopping.sessions.insert(session, round);
                }
                Stage::Answered => drop(self.stopping.sessions.remove(&session)),
            }
        }
        if self.stopping.sessions.is_empty() {
            self.stopping.is_begun = false;
            self.outputs.push_back(ServerOutput::Drained);
        }
    }

    fn begin_round(&mut self, session: SessionId, stage: Stage) {
        let awaited: BTreeSet<ConnectionId> = self.connections_of(session, None).into_iter().collect();
        for &connection in &awaited {
            self.ping(connection);
        }
        // Without a channel there is nothing to wait for.
        self.stopping.is_due |= awaited.is_empty();
        self.stopping.sessions.insert(session, Round { stage, awaited });
    }

    /// Whether answers to a session are still to be made, or wait for the store.
    fn is_answering(&self, session: SessionId) -> bool {
        let executing = self.sessions.get(&session).map_or(0, |session| session.window.executing());
        let mut connections = self.connections_of(session, None).into_iter();
        executing > 0 || connections.any(|connection| self.commits.has_waiting(connection))
    }

    fn connections_of(&self, session: SessionId, kind: Option<ChannelKind>) -> Vec<ConnectionId> {
        let channels = self.sessions.get(&session).into_iter().flat_map(|session| session.channels.values());
        let is_meant = |connection: &&ConnectionId| {
            let channel = self.channels.get(connection);
            channel.is_some_and(|channel| kind.is_none_or(|kind| channel.kind == kind))
        };
        channels.filter(is_meant).copied().collect()
    }

    /// Asks a channel for a sign of life.
    pub(super) fn ping(&mut self, connection: ConnectionId) {
        let Some(channel) = self.channels.get_mut(&connection) else { return };
        channel.pings = channel.pings.saturating_add(1);
        let message = match channel.kind {
            ChannelKind::Control => ServerMessage::Control(ServerControl::from(Ping {})),
            ChannelKind::Data => ServerMessage::Data(ServerData::from(Ping {})),
        };
        self.send(connection, RequestId::NONE, message, None);
    }

    /// A channel has answered a ping.
    pub(super) fn on_pong(&mut self, session: SessionId, connection: ConnectionId) {
        let Some(channel) = self.channels.get_mut(&connection) else { return };
        channel.pings = channel.pings.saturating_sub(1);
        if channel.pings == 0 {
            self.stopping.on_taken(session, connection);
        }
    }
}
