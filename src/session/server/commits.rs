//! What may be told only when it is stored.
//!
//! A *step* is everything that follows from one fact: the answers, the file work, the changes of the table's records. If
//! a change is urgent ([`is_urgent`](crate::opens::TableChanges::is_urgent)), all that the step wants told or done waits
//! until the store has it. So an open, a key, a lock or a close that a client has heard of is there after the server has
//! been killed. Reads and most writes change no record, and wait for nothing.
//!
//! A write may be the first one since which a record has to say who has written to the file. That is stored before it
//! executes, and before any other change of the same file does: it would be acknowledged, and after a crash nobody would
//! know that there was a writer.
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
use crate::model::{FileIdentity, HandleId, Limits, OpenId, Time};
use crate::opens::TableChanges;
use crate::wire::{ServerControl, ServerData};

/// The outputs that wait for the store.
#[derive(Debug)]
pub(super) struct Commits<P> {
    /// Whether the table is stored at all.
    persists: bool,
    next: u64,
    /// The commits that the store has not done with, and the records that each of them changes.
    under_way: VecDeque<(CommitId, Records)>,
    waiting: VecDeque<Waiting<P>>,
    /// The commit under way that has records of no urgency.
    lazy: Option<CommitId>,
    /// How many records for each connection wait.
    connections: HashMap<ConnectionId, usize>,
}

/// Whose records a commit changes.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) opens: Vec<OpenId>,
    /// Of opens that have ended.
    pub(super) tombstones: Vec<OpenId>,
    pub(super) intents: Vec<u64>,
    /// Whether it says from which life on records are there.
    pub(super) has_horizon: bool,
}

impl Records {
    fn of(changes: &TableChanges) -> Self {
        Self {
            opens: changes.opens.iter().map(|(id, _)| *id).collect(),
            tombstones: changes.tombstones.iter().map(|(id, _)| *id).collect(),
            intents: changes.intents.iter().map(|(key, _)| *key).collect(),
            has_horizon: changes.horizon.is_some(),
        }
    }
}

#[derive(Debug)]
struct Waiting<P> {
    commit: CommitId,
    /// The files of which it says who has written.
    marked: Vec<FileIdentity>,
    outputs: Vec<ServerOutput<P>>,
}

impl<P> Commits<P> {
    pub(super) fn new(persists: bool) -> Self {
        let (under_way, waiting) = (VecDeque::new(), VecDeque::new());
        Self { persists, next: 0, under_way, waiting, lazy: None, connections: HashMap::new() }
    }

    /// Whether an output of a step has to wait; `is_urgent`: for a commit of that step itself. `changed`: the file that it
    /// changes, if it does.
    fn keeps(&self, output: &ServerOutput<P>, is_urgent: bool, changed: Option<FileIdentity>) -> bool {
        match output {
            ServerOutput::Send { .. } if planted::is(Bug::ToldBeforeStored) => false,
            ServerOutput::Send { message, .. } => {
                !is_said_anyway(message)
                    && (is_urgent || !self.waiting.is_empty() && matches!(message, ServerMessage::Control(_)))
            }
            ServerOutput::Effect { .. } => is_urgent || changed.is_some_and(|file| self.is_marking(file)),
            ServerOutput::CloseFile { .. } => is_urgent,
            ServerOutput::Close { connection, manner, .. } => {
                *manner == CloseManner::InOrder && self.connections.contains_key(connection)
            }
            ServerOutput::Note(_)
            | ServerOutput::Commit { .. }
            | ServerOutput::AdoptFile { .. }
            | ServerOutput::Drained => false,
        }
    }

    /// Whether it is under way to the store who has written to a file.
    fn is_marking(&self, file: FileIdentity) -> bool {
        self.waiting.iter().any(|waiting| waiting.marked.contains(&file))
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

    /// The store has done with a commit and all before it; tells their records, its own last.
    pub(super) fn on_done(&mut self, commit: CommitId) -> Vec<Records> {
        self.lazy = self.lazy.filter(|lazy| *lazy > commit);
        let count = self.under_way.iter().take_while(|(id, _)| *id <= commit).count();
        self.under_way.drain(..count).map(|(_, records)| records).collect()
    }

    /// The handles that wait to be given out.
    pub(super) fn handles(&self) -> Vec<HandleId> {
        let outputs = self.waiting.iter().flat_map(|waiting| &waiting.outputs);
        let opened = outputs.filter_map(|output| match output {
            ServerOutput::Send { message: ServerMessage::Control(ServerControl::Opened(opened)), .. } => {
                Some(opened.handle)
            }
            _ => None,
        });
        opened.collect()
    }

    /// The files of which it is under way to the store who has written to them.
    pub(super) fn marked(&self) -> Vec<FileIdentity> {
        self.waiting.iter().flat_map(|waiting| &waiting.marked).copied().collect()
    }

    /// What waited for `commit` and those before it.
    pub(super) fn release(&mut self, commit: CommitId) -> Vec<ServerOutput<P>> {
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
        for records in self.commits.on_done(commit) {
            self.note_stored(&records);
        }
        // What this step may have said itself comes behind what it was waited with for.
        self.seal_step();
        let released = self.commits.release(commit);
        self.ready.extend(released);
        self.stopping.note();
    }

    pub(super) fn note_stored(&mut self, records: &Records) {
        records.opens.iter().for_each(|open| self.table.note_stored(*open));
    }

    /// Ends a step: what it wants told and done is ready, or waits for what it wants stored.
    pub(super) fn seal_step(&mut self) {
        let mut changes = self.table.take_changes(self.commits.lazy_max(self.is_stopping));
        let marked = core::mem::take(&mut changes.marked);
        let step = core::mem::take(&mut self.outputs);
        if !self.commits.persists {
            self.ready.extend(step);
            return;
        }
        self.intents.add_changes(self.now, &mut changes);
        let is_urgent = changes.is_urgent;
        if !changes.is_empty() {
            self.commits.next = self.commits.next.saturating_add(1);
            let commit = CommitId(self.commits.next);
            if changes.lazy > 0 {
                self.commits.lazy = Some(commit);
            }
            if is_urgent {
                self.commits.waiting.push_back(Waiting { commit, marked, outputs: Vec::new() });
            }
            self.commits.under_way.push_back((commit, Records::of(&changes)));
            self.ready.push_back(ServerOutput::Commit { commit, changes });
        }
        for output in step {
            let changed = self.changed_file(&output);
            if self.commits.keeps(&output, is_urgent, changed) {
                self.commits.hold(output);
            } else {
                self.ready.push_back(output);
            }
        }
    }

    /// The file that a piece of work changes, if it is one that does.
    fn changed_file(&self, output: &ServerOutput<P>) -> Option<FileIdentity> {
        let ServerOutput::Effect { id, .. } = output else { return None };
        self.table.file_of_handle(self.jobs.get(id)?.changes?)
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
