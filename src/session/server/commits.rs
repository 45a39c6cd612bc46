//! What may be told only when it is stored.
//!
//! A *step* is everything that follows from one fact: the answers, the file work, the changes of the table's records. If
//! a change is urgent ([`is_urgent`](crate::opens::TableChanges::is_urgent)), all that the step wants told or done waits
//! until the store has it. So an open, a key, a lock or a close that a client has heard of is there after the server has
//! been killed, and a write is noted before it executes. Reads and further writes change no record, and wait for nothing.
//!
//! Commits are in order, and what waits for them leaves in order. While one is under way, whatever any step says on a
//! control channel goes behind it: notices are numbered, a repeated answer must not overtake the first one's commit, and
//! what an answer takes for granted may be an earlier step's change. Signs of life, notes and the begin and end of sessions and
//! channels wait for nothing, and neither does the end of a connection on which nothing waits.
//!
//! That somebody went away or came back is stored too, and nobody waits for it. There may be thousands of such records at
//! once, so they go in parts: the next one when the store has the last.

use std::collections::{HashMap, VecDeque};

use super::ServerCore;
use super::output::{CloseManner, CommitId, ConnectionId, ServerMessage, ServerOutput};
use crate::model::planted::{self, Bug};
use crate::model::{Limits, OpenId, Reason, RequestId, Time};
use crate::wire::control::Refused;
use crate::wire::{ServerControl, ServerData};

/// The outputs that wait for the store.
#[derive(Debug)]
pub(super) struct Commits<P> {
    /// Whether the table is stored at all.
    persists: bool,
    next: u64,
    waiting: VecDeque<Waiting<P>>,
    /// The commit under way that has records of no urgency.
    lazy: Option<CommitId>,
    /// How many records for each connection wait.
    connections: HashMap<ConnectionId, usize>,
}

#[derive(Debug)]
struct Waiting<P> {
    commit: CommitId,
    /// Whose records it changes.
    opens: Vec<OpenId>,
    outputs: Vec<ServerOutput<P>>,
}

impl<P> Commits<P> {
    pub(super) fn new(persists: bool) -> Self {
        Self { persists, next: 0, waiting: VecDeque::new(), lazy: None, connections: HashMap::new() }
    }

    /// Whether an output of a step has to wait; `is_urgent`: for a commit of that step itself.
    fn keeps(&self, output: &ServerOutput<P>, is_urgent: bool) -> bool {
        match output {
            ServerOutput::Send { .. } if planted::is(Bug::ToldBeforeStored) => false,
            ServerOutput::Send { message, .. } => {
                !is_said_anyway(message)
                    && (is_urgent || !self.waiting.is_empty() && matches!(message, ServerMessage::Control(_)))
            }
            ServerOutput::Effect { .. } | ServerOutput::CloseFile { .. } => is_urgent,
            ServerOutput::Close { connection, manner, .. } => {
                *manner == CloseManner::InOrder && self.connections.contains_key(connection)
            }
            ServerOutput::Note(_)
            | ServerOutput::Commit { .. }
            | ServerOutput::AdoptFile { .. }
            | ServerOutput::Drained => false,
        }
    }

    fn hold(&mut self, output: ServerOutput<P>) {
        if let ServerOutput::Send { connection, .. } = output {
            *self.connections.entry(connection).or_default() += 1;
        }
        if let Some(last) = self.waiting.back_mut() {
            last.outputs.push(output);
        }
    }

    /// Whether anything for a connection waits.
    pub(super) fn has_waiting(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    /// Whether the table outlives this core.
    pub(super) fn persists(&self) -> bool {
        self.persists
    }

    /// How many records of no urgency the next commit takes.
    fn lazy_max(&self, is_stopping: bool) -> usize {
        match self.lazy {
            // There is no later one.
            _ if is_stopping || !self.persists => usize::MAX,
            Some(_) => 0,
            None => Limits::LAZY_RECORDS_MAX,
        }
    }

    /// The store has done with a commit and all before it.
    fn on_done(&mut self, commit: CommitId) {
        self.lazy = self.lazy.filter(|lazy| *lazy > commit);
    }

    fn opens_of(&self, commit: CommitId) -> Vec<OpenId> {
        let waiting = self.waiting.iter().find(|waiting| waiting.commit == commit);
        waiting.map(|waiting| waiting.opens.clone()).unwrap_or_default()
    }

    /// What waited for `commit` and those before it.
    fn release(&mut self, commit: CommitId) -> Vec<ServerOutput<P>> {
        let mut released = Vec::new();
        while self.waiting.front().is_some_and(|first| first.commit <= commit) {
            released.extend(self.waiting.pop_front().map(|first| first.outputs).unwrap_or_default());
        }
        for output in &released {
            let ServerOutput::Send { connection, .. } = output else { continue };
            let left = self.connections.get(connection).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                self.connections.remove(connection);
            } else {
                self.connections.insert(*connection, left);
            }
        }
        released
    }
}

impl<P: Clone> ServerCore<P> {
    /// The store has a commit, and all before it.
    pub fn handle_committed(&mut self, now: Time, commit: CommitId) {
        self.end_expired(now);
        self.commits.on_done(commit);
        // What this step may have said itself comes behind what it was waited with for.
        self.seal_step();
        let released = self.commits.release(commit);
        self.ready.extend(released);
        self.stopping.note();
    }

    /// The store has refused a commit, without a trace of it, because it has no room for a new record; it has all before
    /// it. Whoever was to get a handle hears that instead, and the other changes of the commit are to be stored once more.
    pub fn handle_commit_refused(&mut self, now: Time, commit: CommitId) {
        self.end_expired(now);
        self.commits.on_done(commit);
        self.seal_step();
        let opens = self.commits.opens_of(commit);
        for output in self.commits.release(commit) {
            match output {
                ServerOutput::Send {
                    connection,
                    request,
                    message: ServerMessage::Control(ServerControl::Opened(opened)),
                    ..
                } => {
                    self.table.take_back(opened.handle);
                    let refused = Refused { refusal: Reason::NoSpace.into() };
                    let message = ServerMessage::Control(refused.into());
                    self.forget_answer(connection, request);
                    self.ready.push_back(ServerOutput::Send { connection, request, message, payload: None });
                }
                output => self.ready.push_back(output),
            }
        }
        opens.into_iter().for_each(|open| self.table.store_again(open));
        self.settle_table();
    }

    /// An answer is not given after all, and was not told: repeats hear the refusal too.
    fn forget_answer(&mut self, connection: ConnectionId, request: RequestId) {
        let session = self.channels.get(&connection).map(|channel| channel.session);
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(&session)) {
            let refused = Refused { refusal: Reason::NoSpace.into() };
            session.window.replace(request, ServerMessage::Control(refused.into()));
        }
    }

    /// Ends a step: what it wants told and done is ready, or waits for what it wants stored.
    pub(super) fn seal_step(&mut self) {
        let changes = self.table.take_changes(self.commits.lazy_max(self.is_stopping));
        let step = core::mem::take(&mut self.outputs);
        if !self.commits.persists {
            self.ready.extend(step);
            return;
        }
        let is_urgent = changes.is_urgent;
        if !changes.is_empty() {
            self.commits.next = self.commits.next.saturating_add(1);
            let commit = CommitId(self.commits.next);
            if changes.lazy > 0 {
                self.commits.lazy = Some(commit);
            }
            if is_urgent {
                let opens = changes.opens.iter().map(|(id, _)| *id).collect();
                self.commits.waiting.push_back(Waiting { commit, opens, outputs: Vec::new() });
            }
            self.ready.push_back(ServerOutput::Commit { commit, changes });
        }
        for output in step {
            if self.commits.keeps(&output, is_urgent) {
                self.commits.hold(output);
            } else {
                self.ready.push_back(output);
            }
        }
    }
}

/// Whether a message says nothing that any commit has to be there for.
fn is_said_anyway(message: &ServerMessage) -> bool {
    matches!(
        message,
        ServerMessage::Control(
            ServerControl::Welcome(_)
                | ServerControl::Attached(_)
                | ServerControl::Ping(_)
                | ServerControl::Pong(_)
                | ServerControl::Ended(_)
                | ServerControl::Stopping(_)
        ) | ServerMessage::Data(ServerData::Attached(_) | ServerData::Ping(_) | ServerData::Pong(_))
    )
}
