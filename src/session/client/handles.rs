//! The handles that a client has. Callers know each by one name for as long as they have it; the server calls it by
//! another one in each session. protocol.md: Coming back.
//!
//! ```text
//!          ┌───────────── the session is gone, and there is a key ─────────────┐
//!  Opened ─▶ live ──the session is gone──▶ away ──Resumed──▶ rewriting ──▶ live ┘
//!             └──── no key, or the server has ended it ──┐    └──▶ live (nothing to write again)
//!                                away ──refused──▶ lost ◀┘
//! ```
//!
//! A request that names a handle which is away waits with it (*parked*); one of a handle that is lost ends with why.
//! Names are translated in one place on the way out, `put`, and in one on the way in, `on_answer` and notices.

use std::collections::BTreeSet;

use super::output::{Answer, ClientOutput, HandleLoss, Operation, RequestError, SessionEvent, Ticket};
use super::request::{Purpose, Request, handle_of, rename};
use super::{ClientCore, Phase};
use crate::model::{
    Attributes, FileState, HandleId, LineSet, Meanwhile, OpenId, Reason, Refusal, ResumeKey, Rights,
    ShareMode, StoreId, Time,
};
use crate::session::Payload;
use crate::wire::control::{Closed, IssueKey, Opened, Resume};
use crate::wire::{ClientControl, ServerControl};

/// A handle of a caller.
#[derive(Debug)]
pub(super) struct Handle {
    /// What the server calls it in the present session, or called it in the last one that knew it.
    pub(super) current: HandleId,
    /// The newest key; none if none was asked for.
    pub(super) key: Option<ResumeKey>,
    /// The data store whose server has given the handle out.
    pub(super) store: StoreId,
    pub(super) state: FileState,
    /// What became of the file while no channel reached it, when the handle was resumed last.
    pub(super) meanwhile: Option<Meanwhile>,
    pub(super) standing: HandleLife,
    /// The open that it is a part of, by its first key.
    pub(super) open: Option<OpenId>,
    /// Requests that wait until it is there again.
    pub(super) parked: BTreeSet<Ticket>,
}

/// Where a handle stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandleLife {
    /// The server knows it.
    Live,
    /// Its session is gone, and it is to be resumed.
    Away,
    /// It was resumed, and bytes of its open are being written again.
    Rewriting,
    /// It is gone for good.
    Lost(HandleLoss),
}

impl Handle {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.standing, HandleLife::Away | HandleLife::Rewriting)
    }
}

impl<P: Payload> ClientCore<P> {
    /// The name by which the server knows a handle now: what names it in
    /// [`Resume`], in events, and in the server's log.
    #[must_use]
    pub fn current(&self, handle: HandleId) -> HandleId {
        self.handles.get(&handle).map_or(handle, |held| held.current)
    }

    /// The newest resume key of a handle, if there is one here.
    #[must_use]
    pub fn resume_key(&self, handle: HandleId) -> Option<ResumeKey> {
        self.handles.get(&handle)?.key.clone()
    }

    /// The state of a handle's file, as the server told it last.
    #[must_use]
    pub fn file_state(&self, handle: HandleId) -> Option<FileState> {
        self.handles.get(&handle).map(|held| held.state)
    }

    /// What became of a handle's file while no channel reached it, when it was resumed last.
    #[must_use]
    pub fn meanwhile(&self, handle: HandleId) -> Option<Meanwhile> {
        self.handles.get(&handle)?.meanwhile
    }

    /// The handles that callers have, those that did not come back included.
    pub fn held_handles(&self) -> impl Iterator<Item = HandleId> {
        self.handles.keys().copied()
    }

    /// Keeps a state of a handle's file that the server has told.
    pub(super) fn note_state(&mut self, handle: HandleId, state: FileState) {
        if let Some(held) = self.handles.get_mut(&handle) {
            held.state = state;
        }
    }

    /// Keeps attributes of a handle's file that the server has told.
    pub fn note_attributes(&mut self, handle: HandleId, attributes: Attributes) {
        if let Some(held) = self.handles.get_mut(&handle) {
            held.state.attributes = attributes;
        }
    }

    /// The name by which callers know what the server calls so.
    #[must_use]
    pub fn local(&self, current: HandleId) -> HandleId {
        self.names.get(&current).copied().unwrap_or(current)
    }

    /// Why a request cannot be sent any more: its handle is gone.
    pub(super) fn loss_of(&self, operation: &Operation<P>) -> Option<HandleLoss> {
        match self.handles.get(&handle_of(operation)?)?.standing {
            HandleLife::Lost(loss) => Some(loss),
            HandleLife::Live | HandleLife::Away | HandleLife::Rewriting => None,
        }
    }

    /// What a request hears whose handle is gone: there is nothing left to close, and nothing else to be had.
    pub(super) fn end_without_handle(&mut self, operation: &Operation<P>, loss: HandleLoss) -> Outcome<P> {
        match operation {
            Operation::Control(ClientControl::Close(close)) => {
                self.forget_handle(close.handle);
                Ok(Answer::Control(Closed {}.into(), None))
            }
            _ => Err(loss.into()),
        }
    }

    /// Takes a handle that was given out, and puts the caller's name for it in the answer.
    pub(super) fn hold(&mut self, now: Time, operation: &Operation<P>, opened: &mut Opened) {
        let store = self.terms.verifier.store;
        let name = self.names.get(&opened.handle).copied().unwrap_or_else(|| self.free_name(opened.handle));
        let held = self.handles.entry(name).or_insert_with(|| Handle {
            current: opened.handle,
            key: None,
            store,
            state: opened.state,
            meanwhile: None,
            standing: HandleLife::Live,
            open: None,
            parked: BTreeSet::new(),
        });
        (held.state, held.meanwhile) = (opened.state, opened.meanwhile);
        self.names.insert(opened.handle, name);
        opened.handle = name;
        let (wants_key, shown, predecessor) = match operation {
            Operation::Control(ClientControl::Open(open)) => (open.with_key, None, None),
            Operation::Control(ClientControl::Resume(resume)) => {
                (resume.with_key, Some(&resume.key), resume.predecessor)
            }
            _ => (false, None, None),
        };
        if let Some(key) = opened.key.as_ref().or(shown) {
            self.take_key(name, key.clone());
        }
        if wants_key && opened.key.is_none() {
            // The answer that had it was lost, and kept answers have none.
            self.ask_for_key(now, name, KEY_ATTEMPTS);
        }
        if let Some(predecessor) = predecessor.filter(|predecessor| *predecessor != name) {
            self.replace(predecessor);
        }
        if shown.is_some() && !opened.durable {
            if let Some(held) = self.handles.get_mut(&name).filter(|held| held.standing == HandleLife::Live) {
                held.standing = HandleLife::Rewriting;
            }
            self.go_on(now, name, false);
        }
    }

    /// The server has issued a key for a handle.
    pub(super) fn take_key(&mut self, name: HandleId, key: ResumeKey) {
        let is_there = |held: &&mut Handle| !matches!(held.standing, HandleLife::Lost(_));
        let Some(held) = self.handles.get_mut(&name).filter(is_there) else { return };
        let open = *held.open.get_or_insert(key.file_id);
        held.key = Some(key);
        let is_shared = held.state.mode.share.contains(ShareMode::WRITE);
        let written = self.written.entry(open).or_default();
        written.members.insert(name);
        if written.is_rewriting() && held.standing == HandleLife::Live {
            held.standing = HandleLife::Rewriting;
        }
        if is_shared {
            self.share(open);
        }
    }

    pub(super) fn ask_for_key(&mut self, now: Time, name: HandleId, attempts: u8) {
        let Some(left) = attempts.checked_sub(1) else { return };
        let ask = Operation::Control(IssueKey { handle: name }.into());
        self.begin(now, (ask, LineSet::ALL), true, Purpose::Key(name, left));
    }

    /// The server has ended a handle, and says why.
    pub(super) fn on_handle_ended(&mut self, now: Time, current: HandleId, refusal: Refusal) {
        self.lose_handle(now, self.local(current), refusal.into());
    }

    /// A handle is gone for good. Whatever waits for it ends, and so does what is asked later.
    pub(super) fn lose_handle(&mut self, now: Time, name: HandleId, loss: HandleLoss) {
        let Some(held) = self.handles.get_mut(&name) else { return };
        held.standing = HandleLife::Lost(loss);
        let parked = core::mem::take(&mut held.parked);
        self.leave_open(name);
        for ticket in parked {
            let Some(request) = self.requests.remove(&ticket) else { continue };
            if handle_of(&request.operation) != Some(name) {
                // There is nothing left whose place it could take.
                self.enqueue(ticket, &request);
                self.requests.insert(ticket, request);
                continue;
            }
            let outcome = self.end_without_handle(&request.operation, loss);
            self.requests.insert(ticket, request);
            self.complete(now, ticket, outcome);
        }
    }

    /// Nobody has the handle any more.
    pub(super) fn forget_handle(&mut self, name: HandleId) {
        self.leave_open(name);
        let Some(held) = self.handles.remove(&name) else { return };
        if self.names.get(&held.current) == Some(&name) {
            self.names.remove(&held.current);
        }
        if held.current == name {
            return;
        }
        // What is still under way goes on under the server's name: its copies must say what its original has said, and
        // its answer says that.
        let is_sent = |request: &&mut Request<P>| request.id.is_some();
        for request in self.requests.values_mut().filter(is_sent) {
            if handle_of(&request.operation) == Some(name) {
                rename(&mut request.operation, held.current);
            }
        }
    }

    /// The session of every handle is gone. Those without a key are lost with it.
    pub(super) fn send_handles_away(&mut self, now: Time) {
        self.names.clear();
        self.resume_again.clear();
        let mut keyless = Vec::new();
        for (&name, held) in &mut self.handles {
            held.parked.clear();
            if matches!(held.standing, HandleLife::Lost(_)) {
                continue;
            }
            held.standing = HandleLife::Away;
            if held.key.is_none() {
                keyless.push(name);
            }
        }
        for name in keyless {
            self.fail_resume(now, name, HandleLoss::NoKey);
        }
    }

    /// Asks for every handle that is away.
    pub(super) fn resume_handles(&mut self, now: Time) {
        let is_away = |held: &Handle| held.standing == HandleLife::Away;
        let away: Vec<HandleId> =
            self.handles.iter().filter(|(_, held)| is_away(held)).map(|(&name, _)| name).collect();
        away.into_iter().for_each(|name| self.resume_handle(now, name));
    }

    /// Asks once more for the handles that the server could not give out before.
    pub(super) fn resume_due(&mut self, now: Time) {
        while let Some((_, name)) = self.resume_again.first().copied().filter(|(at, _)| *at <= now) {
            self.resume_again.pop_first();
            self.resume_handle(now, name);
        }
    }

    /// What came of asking for a handle.
    pub(super) fn on_resumed(&mut self, now: Time, name: HandleId, outcome: Outcome<P>) {
        match outcome {
            Ok(Answer::Control(ServerControl::Opened(opened), _)) => self.take_back(now, name, opened),
            Err(RequestError::Refused(refusal)) => self.on_resume_refused(now, name, refusal),
            // It is not the server that has ended it.
            Ok(_) | Err(_) => {}
        }
    }

    /// A handle is there and nothing is in its way: what waited for it goes on.
    pub(super) fn make_live(&mut self, now: Time, name: HandleId) {
        let Some(held) = self.handles.get_mut(&name) else { return };
        held.standing = HandleLife::Live;
        for ticket in core::mem::take(&mut held.parked) {
            if let Some(request) = self.requests.remove(&ticket) {
                self.enqueue(ticket, &request);
                self.requests.insert(ticket, request);
            }
        }
        self.sync_if_much(now);
        self.pull(now);
    }

    /// The handle that a request has to wait for, if it has to.
    pub(super) fn parking_of(&mut self, request: &Request<P>) -> Option<&mut Handle> {
        self.handles.get_mut(&request.waits_for()?).filter(|held| held.is_waiting())
    }

    fn take_back(&mut self, now: Time, name: HandleId, opened: Opened) {
        let store = self.terms.verifier.store;
        let Some(held) = self.handles.get_mut(&name) else { return };
        let former = core::mem::replace(&mut held.current, opened.handle);
        let meanwhile = opened.meanwhile.unwrap_or(Meanwhile::Unknown);
        (held.state, held.meanwhile, held.store) = (opened.state, Some(meanwhile), store);
        held.standing = HandleLife::Rewriting;
        self.names.insert(opened.handle, name);
        if let Some(key) = &opened.key {
            // A repeated answer has none, and the key that was shown stays good.
            self.take_key(name, key.clone());
        }
        let state = opened.state;
        let resumed = SessionEvent::Resumed { handle: opened.handle, former, meanwhile, state };
        self.outputs.push_back(ClientOutput::Event(resumed));
        self.rewrite_or_go_on(now, name, (meanwhile, opened.durable));
    }

    fn on_resume_refused(&mut self, now: Time, name: HandleId, refusal: Refusal) {
        let Some(held) = self.handles.get(&name) else { return };
        let is_other_store = held.store != self.terms.verifier.store;
        let loss = match refusal.reason {
            Reason::ResumeRefused | Reason::Busy if is_other_store => HandleLoss::StateLost,
            Reason::Busy | Reason::Exhausted => {
                let wait = refusal.retry_after().unwrap_or(self.limits.rebind_max);
                self.resume_again.insert((now.after(wait.max(self.limits.rebind_min)), name));
                return;
            }
            _ => HandleLoss::Refused(refusal),
        };
        self.fail_resume(now, name, loss);
    }

    fn fail_resume(&mut self, now: Time, name: HandleId, loss: HandleLoss) {
        let handle = self.current(name);
        self.outputs.push_back(ClientOutput::Event(SessionEvent::ResumeFailed { handle, loss }));
        self.lose_handle(now, name, loss);
    }

    fn resume_handle(&mut self, now: Time, name: HandleId) {
        let Some(held) = self.handles.get(&name).filter(|held| held.standing == HandleLife::Away) else {
            return;
        };
        let Some(key) = held.key.clone() else { return };
        debug_assert!(self.phase == Phase::Running, "there is somebody to ask");
        let resume = Resume { key, predecessor: Some(name), with_key: true };
        self.begin(now, (Operation::Control(resume.into()), LineSet::ALL), true, Purpose::Resume(name));
    }

    /// A later handle of the same open has taken the place of this one, and the server has dropped it.
    fn replace(&mut self, name: HandleId) {
        if let Some(held) = self.handles.get_mut(&name) {
            held.standing = HandleLife::Lost(HandleLoss::Refused(Reason::BadHandle.into()));
            self.leave_open(name);
        }
    }

    /// A name for a handle that no other one has: what the server calls it, if that is free.
    fn free_name(&self, current: HandleId) -> HandleId {
        let mut name = current;
        while self.handles.contains_key(&name) {
            name = HandleId(name.0.wrapping_add(1));
        }
        name
    }

    /// Whether what was written through a handle can be written through it again.
    pub(super) fn may_write(&self, name: HandleId) -> bool {
        self.handles.get(&name).is_some_and(|held| held.state.rights.contains(Rights::WRITE))
    }
}

/// What came of a request.
pub(super) type Outcome<P> = Result<Answer<P>, RequestError>;

/// How often a key is asked for where answers come without one.
const KEY_ATTEMPTS: u8 = 4;
