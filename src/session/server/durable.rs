//! Writes beside another session's: acknowledged when they are durable. The rules stand in `opens/writers.rs`.
//!
//! ```text
//!   written ──▶ waits for a sync of its open that begins after it ──▶ answered
//! ```
//!
//! An open has one such sync under way at a time, and what was written meanwhile shares the next one.
//!
//! A client whose handle was resumed after a loss with the machine may be *rewriting* what it has kept. That is older than
//! whatever another session writes, so it is refused once another one may write, and the other one is told of its handle
//! when all of it is done that was not refused. A look at its state, a read, a sync or an append says that its
//! rewriting is over.

use std::collections::HashMap;

use super::ServerCore;
use super::effects::Job;
use super::output::{Completion, Effect, EffectId, ServerMessage, ServerOutput};
use super::requests::Ticket;
use crate::model::planted::{self, Bug};
use crate::model::{HandleId, Meanwhile, OpenId, Reason, Refusal, Stability, SyncScope};

/// The syncs that nobody has asked for, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Durable {
    syncs: HashMap<EffectId, Purpose>,
    groups: HashMap<OpenId, Group>,
    /// The handles that may be rewriting, and whether that is refused.
    rewriting: HashMap<HandleId, bool>,
}

/// What such a sync is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// Answers of this open wait for it.
    Answers(OpenId),
    /// Another session may write to the file of this open.
    Settle(OpenId, HandleId),
}

/// The answers of one open that wait.
#[derive(Debug, Default)]
struct Group {
    /// For the sync that is under way.
    now: Vec<Answer>,
    /// For the next one.
    next: Vec<Answer>,
}

#[derive(Debug)]
struct Answer {
    ticket: Ticket,
    handle: HandleId,
    message: ServerMessage,
}

impl<P: Clone> ServerCore<P> {
    fn stability(&self, open: OpenId) -> Stability {
        if self.table.may_be_unsynced(open) { Stability::Received } else { Stability::Durable }
    }

    /// How what was just written through a handle is acknowledged.
    pub(super) fn stability_of(&self, ticket: Ticket, handle: HandleId) -> Stability {
        self.table
            .holder(ticket.session, handle)
            .map_or(Stability::Received, |holder| self.stability(holder.open))
    }

    /// Ends a change of bytes and its request: at once, or when it is durable.
    pub(super) fn end_change(
        &mut self,
        ticket: Ticket,
        handle: HandleId,
        outcome: Result<ServerMessage, Refusal>,
    ) {
        let open = self.table.holder(ticket.session, handle).map(|holder| holder.open);
        match (outcome, open) {
            (Ok(message), Ok(open))
                if self.stability(open) == Stability::Durable && !planted::is(Bug::DurableUnsynced) =>
            {
                self.intents.on_answered(self.now, ticket, &message);
                let group = self.durable.groups.entry(open).or_default();
                group.next.push(Answer { ticket, handle, message });
                if group.now.is_empty() {
                    self.sync_next(open);
                }
            }
            (outcome, _) => self.end(ticket, handle, outcome.map(|message| (message, None))),
        }
    }

    /// Before a handle is given out, with which a second session may write to its file: begins to make durable what the
    /// others have been told of, and tells which work that is, what was begun for others before included.
    pub(super) fn settle_others(&mut self, open: OpenId) -> Vec<EffectId> {
        for (owing, handle) in self.table.begin_settling(open) {
            self.start_sync(Purpose::Settle(owing, handle));
        }
        if !self.table.is_joint(open) {
            return Vec::new();
        }
        let file = self.table.file_of(open);
        for (handle, is_refused) in &mut self.durable.rewriting {
            *is_refused |= self.table.file_of_handle(*handle) == file;
        }
        let is_of_file = |purpose: &Purpose| match purpose {
            Purpose::Settle(owing, _) => self.table.file_of(*owing) == file,
            Purpose::Answers(_) => false,
        };
        let is_refused = |handle| self.durable.rewriting.get(&handle) == Some(&true);
        let is_older = |job: &Job<P>| {
            job.io.as_ref().is_some_and(|io| io.is_write && self.table.file_of(io.open) == file)
                && job.task.handle().is_some_and(is_refused)
        };
        let older = self.jobs.iter().filter(|(_, job)| is_older(job)).map(|(&id, _)| id);
        let syncs = self.durable.syncs.iter().filter(|(_, purpose)| is_of_file(purpose));
        syncs.map(|(&id, _)| id).chain(older).collect()
    }

    /// A handle is given out again: its client may write again what went with a machine, unless it hears that that is older
    /// than the file.
    pub(super) fn may_rewrite(&mut self, (open, handle): (OpenId, HandleId), meanwhile: Option<Meanwhile>) {
        let is_told_so = matches!(meanwhile, Some(Meanwhile::Unchanged | Meanwhile::Unknown));
        if is_told_so && self.table.is_lost(open) {
            self.durable.rewriting.insert(handle, self.table.is_joint(open));
        }
    }

    /// Refuses to change bytes again that another session may have changed meanwhile.
    pub(super) fn check_rewriting(&self, handle: HandleId) -> Result<(), Refusal> {
        match self.durable.rewriting.get(&handle) {
            Some(true) => Err(Reason::Busy.into()),
            Some(false) | None => Ok(()),
        }
    }

    /// Nothing is written again through a handle any more.
    pub(super) fn end_rewriting(&mut self, handle: HandleId) {
        self.durable.rewriting.remove(&handle);
    }

    /// Whether `id` is a sync that nobody has asked for; then it is done.
    pub(super) fn on_own_sync(&mut self, id: EffectId, completion: &Completion<P>) -> bool {
        let Some(purpose) = self.durable.syncs.remove(&id) else { return false };
        let result = match completion {
            Completion::Synced(result) => *result,
            _ => Err(Reason::Io.into()),
        };
        match purpose {
            Purpose::Settle(open, handle) => {
                // Who has a failed sync to hear of may have lost something, whatever this one says.
                let is_heard =
                    !self.table.handles_of_open(open).any(|handle| self.sync_errors.contains_key(&handle));
                if let Err(refusal) = result {
                    self.spread_sync_error(open, &[], refusal);
                }
                self.table.settled((open, handle), result.is_ok() && is_heard);
            }
            Purpose::Answers(open) => self.on_group_synced(open, result),
        }
        true
    }

    fn on_group_synced(&mut self, open: OpenId, result: Result<(), Refusal>) {
        let Some(group) = self.durable.groups.get_mut(&open) else { return };
        let told = core::mem::take(&mut group.now);
        if let Err(refusal) = result {
            let hearing: Vec<HandleId> = told.iter().map(|answer| answer.handle).collect();
            self.spread_sync_error(open, &hearing, refusal);
        }
        for Answer { ticket, handle, message } in told {
            self.end(ticket, handle, result.map(|()| (message, None)));
        }
        self.sync_next(open);
    }

    /// Begins the sync that the next answers of an open wait for.
    fn sync_next(&mut self, open: OpenId) {
        let Some(group) = self.durable.groups.get_mut(&open) else { return };
        if group.next.is_empty() {
            self.durable.groups.remove(&open);
            return;
        }
        group.now = core::mem::take(&mut group.next);
        self.start_sync(Purpose::Answers(open));
    }

    fn start_sync(&mut self, purpose: Purpose) {
        let (Purpose::Answers(open) | Purpose::Settle(open, _)) = purpose;
        let id = self.next_effect_id();
        self.durable.syncs.insert(id, purpose);
        let effect = Effect::Sync { open, scope: SyncScope::Data };
        self.outputs.push_back(ServerOutput::Effect { id, effect });
    }
}
