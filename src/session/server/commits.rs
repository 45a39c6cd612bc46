//! What may be told only when it is stored.
//!
//! A *step* is everything that follows from one fact: the answers, the file work, the changes of the table's records. If
//! a change is urgent ([`TableChanges::is_urgent`]), all that the step wants told or done waits until the store has it. So
//! an open, a key, a lock or a close that a client has heard of is there after the server has been killed, and a write is
//! noted before it executes. Reads and further writes change no record, and wait for nothing.
//!
//! Commits are in order, and what waits for them leaves in order. What a later step says on a control channel of a
//! session of which something waits goes behind that: notices are numbered, and a repeated answer must not overtake the
//! first one's commit. Signs of life, notes and ends of connections wait for nothing.

use std::collections::{HashMap, VecDeque};

use super::output::{CloseManner, CommitId, ServerMessage, ServerOutput};
use super::{ChannelKind, ServerCore};
use crate::model::{RequestId, SessionId, Time};
use crate::wire::{ServerControl, ServerData};

/// The outputs that wait for the store.
#[derive(Debug)]
pub(super) struct Commits<P> {
    /// Whether the table is stored at all.
    persists: bool,
    next: u64,
    waiting: VecDeque<Waiting<P>>,
    /// How many outputs of each session wait.
    sessions: HashMap<SessionId, usize>,
}

#[derive(Debug)]
struct Waiting<P> {
    commit: CommitId,
    outputs: Vec<(Option<SessionId>, ServerOutput<P>)>,
}

impl<P> Commits<P> {
    pub(super) fn new(persists: bool) -> Self {
        Self { persists, next: 0, waiting: VecDeque::new(), sessions: HashMap::new() }
    }

    fn hold(&mut self, session: Option<SessionId>, output: ServerOutput<P>) {
        let Some(last) = self.waiting.back_mut() else { return };
        last.outputs.push((session, output));
        if let Some(session) = session {
            *self.sessions.entry(session).or_default() += 1;
        }
    }

    /// What waited for `commit` and those before it.
    fn release(&mut self, commit: CommitId) -> Vec<ServerOutput<P>> {
        let mut released = Vec::new();
        while self.waiting.front().is_some_and(|first| first.commit <= commit) {
            for (session, output) in self.waiting.pop_front().map(|first| first.outputs).unwrap_or_default() {
                if let Some(session) = session
                    && let Some(count) = self.sessions.get_mut(&session)
                {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.sessions.remove(&session);
                    }
                }
                released.push(output);
            }
        }
        released
    }
}

impl<P: Clone> ServerCore<P> {
    /// The store has a commit, and all before it.
    pub fn handle_committed(&mut self, now: Time, commit: CommitId) {
        self.end_expired(now);
        // What this step may have said itself comes behind what it was waited with for.
        self.seal_step();
        let released = self.commits.release(commit);
        self.ready.extend(released);
    }

    /// Ends a step: what it wants told and done is ready, or waits for what it wants stored.
    pub(super) fn seal_step(&mut self) {
        let changes = self.table.take_changes();
        let step = core::mem::take(&mut self.outputs);
        if !self.commits.persists {
            self.ready.extend(step);
            return;
        }
        let is_urgent = changes.is_urgent && !step.is_empty();
        if !changes.is_empty() {
            self.commits.next = self.commits.next.saturating_add(1);
            let commit = CommitId(self.commits.next);
            if is_urgent {
                self.commits.waiting.push_back(Waiting { commit, outputs: Vec::new() });
            }
            self.ready.push_back(ServerOutput::Commit { commit, changes });
        }
        for output in step {
            let session = self.told_on_control(&output);
            let is_behind = session.is_some_and(|session| self.commits.sessions.contains_key(&session));
            if (is_urgent || is_behind) && waits(&output) {
                self.commits.hold(session, output);
            } else {
                self.ready.push_back(output);
            }
        }
    }

    /// The session that is told something on a control channel.
    fn told_on_control(&self, output: &ServerOutput<P>) -> Option<SessionId> {
        let ServerOutput::Send { connection, message: ServerMessage::Control(_), .. } = output else {
            return None;
        };
        let channel = self.channels.get(connection).filter(|channel| channel.kind == ChannelKind::Control);
        channel.map(|channel| channel.session)
    }
}

/// Whether an output of a step says or does anything that its commit has to be there for.
fn waits<P>(output: &ServerOutput<P>) -> bool {
    match output {
        ServerOutput::Send { request: RequestId::NONE, message, .. } => !matches!(
            message,
            ServerMessage::Control(ServerControl::Ping(_) | ServerControl::Pong(_))
                | ServerMessage::Data(ServerData::Ping(_) | ServerData::Pong(_))
        ),
        ServerOutput::Send { .. } | ServerOutput::Effect { .. } | ServerOutput::CloseFile { .. } => true,
        ServerOutput::Close { manner, .. } => *manner == CloseManner::InOrder,
        ServerOutput::Note(_) | ServerOutput::Commit { .. } | ServerOutput::AdoptFile { .. } => false,
    }
}
