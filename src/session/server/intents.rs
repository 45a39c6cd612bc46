//! The records of changes that must not run twice, from before they are made until their clients have the answers.
//! protocol.md: What became of a request.
//!
//! A record is stored before the change begins: it makes its step's commit urgent, so that the file work waits for it. What
//! came of the change rides on the next commit of anything, or has one of its own soon after, and so does the end of the
//! record when the client has its answer. Those that an earlier life of the server has left are decided when a core
//! begins, and stay for whoever comes back and asks.
//!
//! Records are bounded, for each client and in all. If one has to go before its time, the *horizon* rises to the life that
//! it is from: from then on it means nothing that there is no record of a request of that life or an earlier one.

#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::commits::Records;
use super::effects::{Job, Opening, Task};
use super::output::{Completion, Effect, ServerMessage, ServerOutput};
use super::requests::Ticket;
use super::{ServerControl, ServerCore};
use crate::model::{
    Create, CreateId, Epoch, FileIdentity, IntendedChange, IntendedName, IntentOutcome, Limits, NameState,
    PublicKey, Reason, Refusal, RequestId, SessionId, StoredIntent, Time,
};
use crate::opens::TableChanges;
use crate::wire::ServerData;
use crate::wire::control::Open;
use crate::wire::outcomes::{Became, Inquire, Outcome};

/// The records of one server.
#[derive(Debug)]
pub(super) struct Intents {
    /// This life of the server.
    epoch: Epoch,
    records: BTreeMap<u64, StoredIntent>,
    next_key: u64,
    by_request: BTreeMap<(SessionId, RequestId), u64>,
    by_create_id: HashMap<(PublicKey, CreateId), u64>,
    by_client: HashMap<PublicKey, BTreeSet<u64>>,
    /// When those go that nobody can settle, because their sessions are over.
    ends: BTreeSet<(Time, u64)>,
    horizon: Option<Epoch>,
    changed: BTreeSet<u64>,
    is_horizon_changed: bool,
    /// Whether one of the changes has to be stored before its step goes on.
    is_urgent: bool,
    /// When changes are stored that nothing waits for, if no other commit takes them along.
    flush_at: Option<Time>,
    is_flush_new: bool,
}

impl Intents {
    /// Takes up what an earlier life has left.
    pub(super) fn new(
        epoch: Epoch,
        now: Time,
        (stored, horizon): (Vec<(u64, StoredIntent)>, Option<Epoch>),
    ) -> Self {
        let mut intents = Self {
            epoch,
            records: BTreeMap::new(),
            next_key: 1,
            by_request: BTreeMap::new(),
            by_create_id: HashMap::new(),
            by_client: HashMap::new(),
            ends: BTreeSet::new(),
            horizon,
            changed: BTreeSet::new(),
            is_horizon_changed: false,
            is_urgent: false,
            flush_at: None,
            is_flush_new: false,
        };
        for (key, intent) in stored {
            intents.next_key = intents.next_key.max(key.saturating_add(1));
            intents.insert(key, intent);
            intents.ends.insert((now.after(Limits::INTENT_KEPT), key));
        }
        intents
    }

    /// Notes that a change is about to begin. One that begins anew with other evidence takes the place of its record.
    pub(super) fn begin(&mut self, client: PublicKey, ticket: Ticket, change: IntendedChange) {
        let known = self.by_request.get(&(ticket.session, ticket.request)).copied();
        let key = known.unwrap_or(self.next_key);
        if known.is_none() {
            self.make_room(client);
            self.next_key = self.next_key.saturating_add(1);
        } else {
            self.remove(key);
        }
        let (session, request) = (ticket.session, ticket.request);
        let intent = StoredIntent { client, session, request, epoch: self.epoch, change, outcome: None };
        self.insert(key, intent);
        self.changed.insert(key);
        self.is_urgent = true;
    }

    /// Whether there is a record of a request without an outcome.
    fn is_open(&self, ticket: Ticket) -> bool {
        let key = self.by_request.get(&(ticket.session, ticket.request));
        key.and_then(|key| self.records.get(key)).is_some_and(|intent| intent.outcome.is_none())
    }

    /// A request is answered, or is executed and waits for what its answer says of the disk: then it may still be refused.
    pub(super) fn on_answered(&mut self, now: Time, ticket: Ticket, message: &ServerMessage) {
        let own = (ticket.session, ticket.request);
        let Some(&key) = self.by_request.get(&own) else { return };
        if self.records.get(&key).is_none_or(|intent| (intent.session, intent.request) != own) {
            // It is a question that is answered.
            return;
        }
        let outcome = match message {
            ServerMessage::Control(ServerControl::Refused(_))
            | ServerMessage::Data(ServerData::Refused(_)) => None,
            ServerMessage::Data(ServerData::AppendDone(done)) => {
                Some(IntentOutcome::Appended { offset: done.offset, written: done.written })
            }
            _ => Some(IntentOutcome::Executed),
        };
        match (outcome, self.records.get_mut(&key)) {
            (Some(outcome), Some(intent)) => {
                intent.outcome = Some(outcome);
                self.touch(now, key);
            }
            // It is made, and what could not be had is that it is durable. It must not be made once more.
            (None, Some(intent)) if intent.outcome.is_some() => {
                intent.outcome = Some(IntentOutcome::Unknown);
                self.touch(now, key);
            }
            _ => self.drop_record(now, key),
        }
    }

    /// A client has the answers to all requests of a session below `settled`.
    pub(super) fn settle(&mut self, now: Time, session: SessionId, settled: RequestId) {
        let range = (session, RequestId::NONE)..(session, settled);
        let settled: Vec<(RequestId, u64)> =
            self.by_request.range(range).map(|((_, request), key)| (*request, *key)).collect();
        for (request, key) in settled {
            let is_under_way = self.records.get(&key).is_some_and(|intent| intent.outcome.is_none());
            if !is_under_way {
                self.by_request.remove(&(session, request));
                self.drop_record(now, key);
            }
        }
    }

    /// A session is over. What its client may still ask for stays for a while.
    pub(super) fn on_session_over(&mut self, now: Time, session: SessionId, may_ask: bool) {
        let range = (session, RequestId::NONE)..=(session, RequestId(u64::MAX));
        let found: Vec<(RequestId, u64)> =
            self.by_request.range(range).map(|((_, request), key)| (*request, *key)).collect();
        for (request, key) in found {
            let is_own = self.records.get(&key).is_some_and(|intent| intent.session == session);
            if !is_own {
                self.by_request.remove(&(session, request));
            }
            if may_ask {
                self.ends.insert((now.after(Limits::INTENT_KEPT), key));
            } else {
                self.drop_record(now, key);
            }
        }
    }

    /// What became of a request of a former session; `ticket` is of the question, and with it the record is settled.
    fn inquire(&mut self, client: PublicKey, ticket: Ticket, asked: Inquire) -> IntentOutcome {
        let found = self.by_request.get(&(asked.session, asked.request)).copied();
        let found = found.and_then(|key| Some((key, self.records.get(&key)?)));
        match found.filter(|(_, intent)| intent.client == client) {
            Some((key, intent)) => {
                let outcome = intent.outcome.unwrap_or(IntentOutcome::Unknown);
                self.by_request.insert((ticket.session, ticket.request), key);
                outcome
            }
            // It was not begun when that life ended.
            None if asked.epoch < self.epoch && self.horizon.is_none_or(|horizon| asked.epoch > horizon) => {
                IntentOutcome::NotExecuted
            }
            None => IntentOutcome::Unknown,
        }
    }

    /// What became of a file that a client wanted made in an earlier life of the server.
    pub(super) fn made_before(&self, client: PublicKey, create_id: CreateId) -> Option<MadeBefore> {
        let intent = self.records.get(self.by_create_id.get(&(client, create_id))?)?;
        let IntendedChange::Make { file, .. } = &intent.change else { return None };
        if intent.epoch >= self.epoch {
            return None;
        }
        match (intent.outcome, file) {
            (Some(IntentOutcome::Executed), Some(file)) => Some(MadeBefore::Made(*file)),
            (Some(IntentOutcome::NotExecuted), _) => None,
            _ => Some(MadeBefore::Unknown),
        }
    }

    /// Records of sessions that nobody comes back for go.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some(&(end, key)) = self.ends.first().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, key));
            self.give_up(key);
        }
    }

    /// When [`Self::expire`] has something to do, or changes are to be stored.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.ends.first().map(|(end, _)| *end).into_iter().chain(self.flush_at).min()
    }

    /// Whether the deadline may have come nearer since this was asked last.
    pub(super) fn take_new_deadline(&mut self) -> bool {
        core::mem::take(&mut self.is_flush_new)
    }

    /// Whether there is something to be stored now, whatever else is.
    pub(super) fn has_changes(&self, now: Time) -> bool {
        self.is_urgent || self.flush_at.is_some_and(|at| at <= now)
    }

    /// Has everything stored that has changed, with the next step.
    pub(super) fn flush(&mut self, now: Time) {
        if self.flush_at.is_some() {
            self.flush_at = Some(now);
        }
    }

    /// Adds what has changed to what is to be stored, if that is due or there is something to be stored anyway.
    pub(super) fn add_changes(&mut self, now: Time, changes: &mut TableChanges) {
        if changes.is_empty() && !self.has_changes(now) {
            return;
        }
        changes.is_urgent |= core::mem::take(&mut self.is_urgent);
        let keys = core::mem::take(&mut self.changed);
        changes.intents = keys.into_iter().map(|key| (key, self.records.get(&key).cloned())).collect();
        if core::mem::take(&mut self.is_horizon_changed) {
            changes.horizon = self.horizon;
        }
        self.flush_at = None;
    }

    /// Changes could not be stored: they are to be stored once more.
    pub(super) fn store_again(&mut self, now: Time, refused: &Records) {
        refused.intents.iter().for_each(|key| self.touch(now, *key));
        self.is_horizon_changed |= refused.has_horizon;
        self.is_urgent |= refused.has_horizon || !refused.intents.is_empty();
    }

    fn insert(&mut self, key: u64, intent: StoredIntent) {
        self.by_request.insert((intent.session, intent.request), key);
        if let IntendedChange::Make { create_id, .. } = &intent.change {
            self.by_create_id.insert((intent.client, *create_id), key);
        }
        self.by_client.entry(intent.client).or_default().insert(key);
        self.records.insert(key, intent);
    }

    fn remove(&mut self, key: u64) -> Option<StoredIntent> {
        let intent = self.records.remove(&key)?;
        self.by_request.remove(&(intent.session, intent.request));
        if let IntendedChange::Make { create_id, .. } = &intent.change {
            self.by_create_id.remove(&(intent.client, *create_id));
        }
        if let Some(keys) = self.by_client.get_mut(&intent.client) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_client.remove(&intent.client);
            }
        }
        Some(intent)
    }

    fn drop_record(&mut self, now: Time, key: u64) {
        if self.remove(key).is_some() {
            self.touch(now, key);
        }
    }

    /// A record goes that its client might still have asked for.
    fn give_up(&mut self, key: u64) {
        let Some(intent) = self.remove(key) else { return };
        self.changed.insert(key);
        if self.horizon.is_none_or(|horizon| horizon < intent.epoch) {
            self.horizon = Some(intent.epoch);
            self.is_horizon_changed = true;
            self.is_urgent = true;
        }
    }

    fn make_room(&mut self, client: PublicKey) {
        let own = self.by_client.get(&client);
        let full = own.filter(|keys| keys.len() >= Limits::INTENTS_PER_CLIENT);
        let most = || self.by_client.values().max_by_key(|keys| keys.len());
        let from = full.or_else(|| most().filter(|_| self.records.len() >= Limits::INTENTS_TOTAL));
        if let Some(oldest) = from.and_then(|keys| keys.first().copied()) {
            self.give_up(oldest);
        }
    }

    fn touch(&mut self, now: Time, key: u64) {
        self.changed.insert(key);
        if self.flush_at.is_none() {
            self.flush_at = Some(now.after(FLUSH_AFTER));
            self.is_flush_new = true;
        }
    }
}

/// What became of a file that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MadeBefore {
    /// It was made, and is this one.
    Made(FileIdentity),
    /// Nobody can tell.
    Unknown,
}

impl<P: Clone> ServerCore<P> {
    /// Whether a change is recorded before it is made.
    pub(super) fn records_intents(&self) -> bool {
        self.commits.persists()
    }

    /// Records a change that the step begins.
    ///
    /// # Errors
    /// [`Reason::Interrupted`]: the session is over, and the change is not to be made, because its client may ask
    /// already what became of it.
    pub(super) fn intend(&mut self, ticket: Ticket, change: IntendedChange) -> Result<(), Refusal> {
        if self.commits.persists() {
            let session = self.sessions.get(&ticket.session).ok_or(Reason::Interrupted)?;
            self.intents.begin(session.client, ticket, change);
        }
        Ok(())
    }

    /// Tells what became of a request of a former session of the same client.
    pub(super) fn serve_inquire(&mut self, ticket: Ticket, asked: Inquire) {
        let client = self.sessions.get(&ticket.session).map(|session| session.client);
        let outcome = match client.filter(|_| self.commits.persists()) {
            Some(client) => self.intents.inquire(client, ticket, asked),
            None => IntentOutcome::Unknown,
        };
        let became = match outcome {
            IntentOutcome::Executed => Became::Executed,
            IntentOutcome::Appended { offset, written } => Became::Appended { offset, written },
            IntentOutcome::NotExecuted => Became::NotExecuted,
            IntentOutcome::Unknown => Became::Unknown,
        };
        self.answer(ticket, ServerControl::from(Outcome { became }).into(), None);
    }

    /// Opens a file, or makes it; one that must not be there before is recorded before it gets its name.
    pub(super) fn open_or_make(
        &mut self,
        ticket: Ticket,
        mut opening: Opening,
        owner: PublicKey,
    ) -> Result<(), Refusal> {
        if opening.open.create != Create::New || !self.commits.persists() {
            let effect = opening.effect();
            self.start(Job::new(ticket, Task::Open(Box::new(opening))), effect);
            return Ok(());
        }
        match self.intents.made_before(owner, opening.open.create_id) {
            Some(MadeBefore::Unknown) => return Err(Reason::Unknown.into()),
            Some(MadeBefore::Made(file)) => {
                opening.made = Some(file);
                let effect = opening.effect();
                self.start(Job::new(ticket, Task::Open(Box::new(opening))), effect);
            }
            None => {
                let Open { export, path, permissions, mode, .. } = &opening.open;
                let (open, rights, permissions) = (opening.id, mode.rights, *permissions);
                let (export, path) = (export.clone(), path.clone());
                let effect = Effect::MakeFile { open, export, path, rights, permissions };
                self.start(Job::new(ticket, Task::Make(Box::new(opening))), effect);
            }
        }
        Ok(())
    }

    /// A file was made that has no name yet, or it is known that none can be.
    pub(super) fn on_made(
        &mut self,
        ticket: Ticket,
        opening: Box<Opening>,
        result: Result<(NameState, Option<FileIdentity>), Refusal>,
    ) {
        let intended = result.and_then(|(before, file)| {
            let (export, path) = (opening.open.export.clone(), opening.open.path.clone());
            let at = IntendedName { export, path, before };
            self.intend(ticket, IntendedChange::Make { at, create_id: opening.open.create_id, file })
        });
        if let Err(refusal) = intended {
            self.outputs.push_back(ServerOutput::CloseFile { open: opening.id });
            return self.answer_refused(ticket, refusal);
        }
        let effect = opening.effect();
        self.start(Job::new(ticket, Task::Open(opening)), effect);
    }

    /// The report of work that is not begun, because the record of it cannot be stored, which is one of these; `None` of
    /// other work.
    pub(super) fn unrecorded(
        &self,
        id: super::EffectId,
        refused: &[u64],
        refusal: Refusal,
    ) -> Option<Completion<P>> {
        let job = self.jobs.get(&id).filter(|job| self.intents.is_open(job.ticket))?;
        let key = self.intents.by_request.get(&(job.ticket.session, job.ticket.request))?;
        if !refused.contains(key) {
            return None;
        }
        match &job.task {
            Task::Open(_) => Some(Completion::Opened(Err(refusal))),
            Task::ChangeNames(..) | Task::Named { .. } => Some(Completion::Named(Err(refusal))),
            Task::Append { .. } => Some(Completion::Appended(Err(refusal))),
            Task::Change { .. } => Some(Completion::Attributes(Err(refusal))),
            _ => None,
        }
    }
}

/// How long an outcome waits for a commit that takes it along. A crash in this time is decided by evidence.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
