//! What a client asks: each request is claimed in its session's window, checked, and turned into file work or an
//! answer. protocol.md: Requests.

use core::time::Duration;

use super::effects::{Giving, Job, Opening, Sequel, Task};
use super::output::{
    ClientMessage, ConnectionId, Effect, FileTarget, NameWork, Offence, ServerMessage, ServerNote,
};
use super::{ServerCore, ServerOutput};
use crate::model::{
    ByteRange, ChannelKind, Create, Entropy as _, HandleId, Limits, LockMode, OpenId, Reason, Refusal,
    RequestId, Rights, SessionId, Time,
};
use crate::opens::{Claim as KeyClaim, Repeat};
use crate::session::subject::subject;
use crate::session::{Claim, Input, LossReason};
use crate::wire::control::{
    CancelLock, Close, Granted, IssueKey, KeyIssued, Open, Opened, Refused, Resume, Stat, Sync,
};
use crate::wire::data::Pong;
use crate::wire::notices::Heard;
use crate::wire::{ClientControl, ClientData, ServerControl, ServerData, message};

/// When a session that has not heard enough of what it was told is to ask for an open again: many times what its client
/// takes to hear all that waits.
const HEARING_RETRY: Duration = Duration::from_secs(1);

/// A request that was claimed and is being served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) session: SessionId,
    pub(super) request: RequestId,
    pub(super) kind: ChannelKind,
}

impl<P: Clone> ServerCore<P> {
    /// A verified record has arrived on a channel. Tells whether it is a request that is answered there for the first time,
    /// now or later.
    pub fn handle_input(
        &mut self,
        now: Time,
        connection: ConnectionId,
        input: Input<ClientMessage, P>,
    ) -> bool {
        self.end_expired(now);
        let Some(channel) = self.channels.get_mut(&connection) else { return false };
        channel.liveness.on_heard(now);
        let (session, kind) = (channel.session, channel.kind);
        if let Some(record) = self.sessions.get_mut(&session) {
            record.heard = now;
            record.window.settle(input.settled);
            self.intents.settle(now, session, input.settled);
            let later = record.untold.split_off(&input.settled);
            let told = core::mem::replace(&mut record.untold, later);
            told.values().for_each(|handle| self.table.note_told(*handle));
        }
        let mut is_claimed = false;
        match &input.message {
            Ok(ClientMessage::Control(ClientControl::Ping(_)) | ClientMessage::Data(ClientData::Ping(_))) => {
                let pong = match kind {
                    ChannelKind::Control => ServerMessage::Control(Pong {}.into()),
                    ChannelKind::Data => ServerMessage::Data(Pong {}.into()),
                };
                self.send(connection, RequestId::NONE, pong, None);
            }
            Ok(ClientMessage::Control(ClientControl::Pong(_)) | ClientMessage::Data(ClientData::Pong(_))) => {
                self.on_pong(session, connection);
            }
            Ok(ClientMessage::Control(ClientControl::Heard(Heard { notice }))) => {
                self.on_heard(now, connection, session, *notice);
            }
            Ok(
                ClientMessage::Control(ClientControl::Farewell(_))
                | ClientMessage::Data(ClientData::Farewell(_)),
            ) => self.close(now, connection, LossReason::Farewell),
            Ok(
                ClientMessage::Control(
                    ClientControl::Begin(_) | ClientControl::Attach(_) | ClientControl::Rekey(_),
                )
                | ClientMessage::Data(ClientData::Attach(_) | ClientData::Rekey(_)),
            ) => self.offend(now, connection, session, Offence::OutOfPlace),
            Ok(_) | Err(_) => {
                let ticket = Ticket { session, request: input.request, kind };
                is_claimed = self.claim(now, connection, ticket, input);
            }
        }
        self.settle_table();
        is_claimed
    }

    /// Serves a request if it is the first copy of it. Tells whether an answer will be made that goes to this connection.
    fn claim(
        &mut self,
        now: Time,
        connection: ConnectionId,
        ticket: Ticket,
        input: Input<ClientMessage, P>,
    ) -> bool {
        let Some(bytes) = bytes_of(&input) else {
            self.offend(now, connection, ticket.session, Offence::OutOfPlace);
            return false;
        };
        let Some(session) = self.sessions.get_mut(&ticket.session) else { return false };
        match session.window.claim(ticket.request, connection, needs_credit(&input.message).then_some(bytes))
        {
            Claim::Run => {}
            Claim::InProgress => return true,
            Claim::Settled => return false,
            Claim::Done(answer) => {
                self.send(connection, ticket.request, answer, None);
                return false;
            }
            Claim::Beyond => {
                self.offend(now, connection, ticket.session, Offence::RequestBeyondWindow);
                return false;
            }
        }
        while needs_credit(&input.message) && self.is_over_credit(ticket.session) {
            if let Some(given_up) = self.most_silent_holder(ticket.session, connection) {
                self.close(now, given_up, LossReason::Silent);
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&ticket.session) {
                session.window.finish(ticket.request, None);
            }
            self.offend(now, connection, ticket.session, Offence::OverCredit);
            return false;
        }
        let payload = input.payload.map(|payload| (payload, input.payload_len));
        match input.message {
            Ok(ClientMessage::Control(message)) => self.serve_control(now, ticket, message, payload),
            Ok(ClientMessage::Data(message)) => self.serve_data(now, connection, ticket, (message, payload)),
            Err(_) => self.answer_refused(ticket, Reason::Unsupported.into()),
        }
        true
    }

    fn serve_control(
        &mut self,
        now: Time,
        ticket: Ticket,
        message: ClientControl,
        payload: Option<(P, u32)>,
    ) {
        let handle = subject(&message);
        let served = match message {
            ClientControl::Open(open) => self.serve_open(now, ticket, open),
            ClientControl::Resume(resume) => self.serve_resume(now, ticket, &resume),
            ClientControl::IssueKey(IssueKey { handle }) => self.serve_issue_key(now, ticket, handle),
            ClientControl::Close(Close { handle }) => self.serve_close(ticket, handle),
            ClientControl::Stat(Stat { handle }) => self.serve_stat(now, ticket, handle),
            ClientControl::Sync(Sync { handle, scope }) => self.serve_sync(now, ticket, handle, scope),
            ClientControl::Change(change) => self.serve_change(now, ticket, change),
            ClientControl::Allocate(allocate) => self.serve_allocate(now, ticket, &allocate),
            ClientControl::Seek(seek) => self.serve_seek(now, ticket, &seek),
            ClientControl::Lock(lock) => self.serve_lock(now, ticket, &lock),
            ClientControl::Unlock(unlock) => self.serve_unlock(now, ticket, &unlock),
            ClientControl::CancelLock(CancelLock { lock }) => {
                self.serve_cancel_lock(ticket, lock);
                Ok(())
            }
            ClientControl::XattrSet(set) => self.serve_xattr_set(now, ticket, set, payload),
            message @ (ClientControl::Lookup(_)
            | ClientControl::List(_)
            | ClientControl::ReadLink(_)
            | ClientControl::StatSpace(_)
            | ClientControl::MakeDirectory(_)
            | ClientControl::Remove(_)
            | ClientControl::Rename(_)
            | ClientControl::Symlink(_)
            | ClientControl::HardLink(_)
            | ClientControl::XattrGet(_)
            | ClientControl::XattrList(_)
            | ClientControl::XattrRemove(_)) => self.serve_name(now, ticket, message),
            ClientControl::Grant(grant) => self.serve_grant(now, ticket, grant),
            ClientControl::Revoke(revoke) => self.serve_revoke(ticket, revoke),
            ClientControl::TakeGrant(take) => self.serve_take_grant(now, ticket, take),
            ClientControl::Inquire(asked) => {
                self.serve_inquire(ticket, asked);
                Ok(())
            }
            // Taken care of before the claim.
            ClientControl::Heard(_)
            | ClientControl::Rekey(_)
            | ClientControl::Begin(_)
            | ClientControl::Attach(_)
            | ClientControl::Ping(_)
            | ClientControl::Pong(_)
            | ClientControl::Farewell(_) => Ok(()),
        };
        if let Err(refusal) = served {
            self.answer_refused(ticket, self.untold(ticket.session, handle, refusal));
        }
    }

    fn serve_data(
        &mut self,
        now: Time,
        connection: ConnectionId,
        ticket: Ticket,
        (message, payload): (ClientData, Option<(P, u32)>),
    ) {
        let handle = match &message {
            ClientData::Read(read) => Some(read.handle),
            ClientData::Write(write) => Some(write.handle),
            ClientData::Append(append) => Some(append.handle),
            _ => None,
        };
        let served = match message {
            ClientData::Read(read) => self.serve_read(now, connection, ticket, read),
            ClientData::Write(write) => self.serve_write(now, ticket, write, payload),
            ClientData::Append(append) => self.serve_append(now, ticket, append.handle, payload),
            // Taken care of before the claim.
            ClientData::Attach(_)
            | ClientData::Ping(_)
            | ClientData::Pong(_)
            | ClientData::Rekey(_)
            | ClientData::Farewell(_) => Ok(()),
        };
        if let Err(refusal) = served {
            self.answer_refused(ticket, self.untold(ticket.session, handle, refusal));
        }
    }

    fn serve_open(&mut self, now: Time, ticket: Ticket, open: Open) -> Result<(), Refusal> {
        let session = self.sessions.get(&ticket.session).ok_or(Reason::NotFound)?;
        if !Self::hears(session) {
            return Err(Refusal::busy(HEARING_RETRY));
        }
        let allowed = self.export_rights(now, session, &open.export).ok_or(Reason::NotFound)?;
        let lock = opening_lock(&open, allowed)?;
        if !allowed.permits(open.mode.rights) {
            return Err(Reason::PermissionDenied.into());
        }
        let owner = session.client;
        // A handle may lock and grant where its client may.
        let rights = open.mode.rights.union(allowed.intersection(Rights::LOCK.union(Rights::GRANT)));
        let handle = self.new_handle()?;
        let repeat = Repeat {
            session: ticket.session,
            owner: &owner,
            create_id: open.create_id,
            handle,
            export: &open.export,
            mode: open.mode,
            rights,
            resumable: open.resumable,
        };
        if let Some(admitted) = self.table.find_created(now, &repeat)? {
            self.check_prepared(ticket, &admitted, handle)?;
            let (handle, with_key) = (admitted.handle, open.with_key);
            let task = Task::Admitted(Giving { handle, with_key, since: None });
            return self.give(now, ticket, admitted.handle, task);
        }
        if open.create != Create::Never && !self.table.has_room(now, &owner) {
            // Before a file is made that nobody gets.
            return Err(Reason::Quota.into());
        }
        let id = OpenId(u64::from_le_bytes(self.entropy.bytes().map_err(|_| Reason::Exhausted)?));
        let opening = Opening { open, id, handle, rights, lock, made: None };
        self.open_or_make(ticket, opening, owner)
    }

    fn serve_resume(&mut self, now: Time, ticket: Ticket, resume: &Resume) -> Result<(), Refusal> {
        let handle = self.new_handle()?;
        let session = self.sessions.get(&ticket.session).ok_or(Reason::ResumeRefused)?;
        let client = session.client;
        if !Self::hears(session) {
            return Err(Reason::Quota.into());
        }
        let wait = self.throttle.wait(now, &client);
        if wait > Duration::ZERO {
            self.note(ServerNote::ResumeThrottled { session: ticket.session });
            return Err(Refusal::busy(wait));
        }
        let access = self.policy.access(&session.client, self.wall_us(now) / 1_000_000);
        let may_use = |export: &crate::model::ExportName| {
            access.filter(|access| access.exports.contains(export)).map(|access| access.rights)
        };
        let claim = KeyClaim {
            session: ticket.session,
            identity: &session.client,
            handle,
            predecessor: resume.predecessor,
            may_use: &may_use,
        };
        // The old handle's operations must not run behind the new one's back.
        let draining = resume.predecessor.filter(|&predecessor| self.table.has_holder(predecessor));
        let resumed = self.table.resume(now, &resume.key, claim);
        let admitted = resumed.inspect_err(|refusal| {
            // Who has the secret guesses nothing.
            if refusal.reason == Reason::ResumeRefused {
                self.throttle.on_failure(now, client);
            }
        })?;
        let (handle, with_key) = (admitted.handle, resume.with_key);
        let since = admitted.untold.or_else(|| self.heard_before(ticket.session, admitted.came_from));
        self.table.note_untold(handle, since);
        if let Some(session) = self.sessions.get_mut(&ticket.session) {
            session.untold.insert(ticket.request, handle);
        }
        let task = Task::Admitted(Giving { handle, with_key, since });
        match draining {
            Some(predecessor) => {
                self.sequels.entry(predecessor).or_default().push(Sequel::Describe { ticket, handle, task });
                Ok(())
            }
            None => self.give(now, ticket, handle, task),
        }
    }

    fn serve_issue_key(&mut self, now: Time, ticket: Ticket, handle: HandleId) -> Result<(), Refusal> {
        let key = self.issue_key(now, ticket.session, handle)?;
        self.answer(ticket, ServerControl::from(KeyIssued { key: Some(key) }).into(), None);
        Ok(())
    }

    fn serve_close(&mut self, ticket: Ticket, handle: HandleId) -> Result<(), Refusal> {
        self.table.begin_close(ticket.session, handle)?;
        self.sequels.entry(handle).or_default().push(Sequel::Closed { ticket });
        Ok(())
    }

    /// Ends a request with an answer. The kept copy of it has no secrets; answers to reads are not kept at all.
    pub(super) fn answer(&mut self, ticket: Ticket, message: ServerMessage, payload: Option<(P, u64)>) {
        self.intents.on_answered(self.now, ticket, &message);
        self.stopping.note();
        let Some(session) = self.sessions.get_mut(&ticket.session) else { return };
        let mut connections = session.window.finish(ticket.request, kept(&message));
        let Some(last) = connections.pop() else {
            self.forget_if_left(ticket.session);
            return;
        };
        for connection in connections {
            self.send(connection, ticket.request, message.clone(), payload.clone());
        }
        self.send(last, ticket.request, message, payload);
    }

    pub(super) fn answer_refused(&mut self, ticket: Ticket, refusal: Refusal) {
        let refused = Refused { refusal };
        let message = match ticket.kind {
            ChannelKind::Control => ServerMessage::Control(refused.into()),
            ChannelKind::Data => ServerMessage::Data(ServerData::from(refused)),
        };
        self.answer(ticket, message, None);
    }

    fn new_handle(&mut self) -> Result<HandleId, Refusal> {
        let bytes = self.entropy.bytes().map_err(|_| Refusal::from(Reason::Exhausted))?;
        // 0 and the last value are reserved, so that neither can be mistaken for a handle.
        Ok(HandleId(u64::from_le_bytes(bytes).clamp(1, u64::MAX - 1)))
    }

    pub(super) fn offend(&mut self, now: Time, connection: ConnectionId, session: SessionId, what: Offence) {
        self.note(ServerNote::Offence { session, what });
        self.close(now, connection, LossReason::Offence);
    }

    /// Whether a session has more executing and unwritten than a well-behaved client can cause on live channels.
    fn is_over_credit(&self, session: SessionId) -> bool {
        let (answers, bytes) = self.unwritten(session);
        let Some(session) = self.sessions.get(&session) else { return false };
        let requests_max = self.limits.requests.saturating_mul(Limits::CREDIT_SLACK);
        let bytes_max = self.limits.bytes.saturating_mul(u64::from(Limits::CREDIT_SLACK));
        session.window.credited().saturating_add(answers) > requests_max
            || session.window.bytes().saturating_add(bytes) > bytes_max
    }

    /// The channel of a session, other than `asking`, that holds answers with payload and was silent for the longest.
    /// A client that asks for so much elsewhere has given it up: it repeats what it lost with a channel long before
    /// the server notices the silence.
    fn most_silent_holder(&self, session: SessionId, asking: ConnectionId) -> Option<ConnectionId> {
        let connections = self.sessions.get(&session)?.channels.values();
        connections
            .filter(|&&connection| connection != asking)
            .filter_map(|&connection| Some((self.channels.get(&connection)?, connection)))
            .filter(|(channel, _)| channel.unwritten_answers > 0)
            .min_by_key(|(channel, _)| channel.liveness.heard())
            .map(|(_, connection)| connection)
    }

    /// Answers and bytes that the writers of a session's channels hold.
    fn unwritten(&self, session: SessionId) -> (u32, u64) {
        let Some(session) = self.sessions.get(&session) else { return (0, 0) };
        session.channels.values().filter_map(|connection| self.channels.get(connection)).fold(
            (0, 0),
            |(answers, bytes): (u32, u64), channel| {
                (answers.saturating_add(channel.unwritten_answers), bytes.saturating_add(channel.unwritten))
            },
        )
    }

    pub(super) fn start(&mut self, mut job: Job<P>, effect: Effect<P>) {
        job.changes = job.task.handle().filter(|_| changes_file(&effect));
        if let Some(handle) = job.changes {
            if let Some(open) = open_whose_bytes_change(&effect) {
                self.table.note_unsynced(open);
            }
            self.table.note_change(self.now, handle);
        }
        let id = self.next_effect_id();
        self.jobs.insert(id, job);
        self.outputs.push_back(ServerOutput::Effect { id, effect });
    }

    pub(super) fn next_effect_id(&mut self) -> super::EffectId {
        let id = super::EffectId(self.next_effect);
        self.next_effect = self.next_effect.saturating_add(1);
        id
    }

    pub(super) fn grace(&self, asked_ms: u64) -> Duration {
        if asked_ms == 0 {
            self.limits.grace_default
        } else {
            Duration::from_millis(asked_ms).min(self.limits.grace_max)
        }
    }
}

/// The open whose bytes work changes, if it does.
fn open_whose_bytes_change<P>(effect: &Effect<P>) -> Option<OpenId> {
    match effect {
        Effect::Write { open, .. } | Effect::Append { open, .. } | Effect::Allocate { open, .. } => {
            Some(*open)
        }
        Effect::Change { target: FileTarget::Open(open), change } => change.len.map(|_| *open),
        _ => None,
    }
}

/// Whether work changes the bytes or the attributes of an open file.
fn changes_file<P>(effect: &Effect<P>) -> bool {
    match effect {
        Effect::Write { .. } | Effect::Append { .. } | Effect::Allocate { .. } => true,
        Effect::Change { target, .. } => matches!(target, FileTarget::Open(_)),
        Effect::Name(NameWork::XattrSet { target, .. } | NameWork::XattrRemove { target, .. }) => {
            matches!(target, FileTarget::Open(_))
        }
        Effect::OpenFile { .. }
        | Effect::Attributes { .. }
        | Effect::Read { .. }
        | Effect::Sync { .. }
        | Effect::Seek { .. }
        | Effect::Identify { .. }
        | Effect::MakeFile { .. }
        | Effect::Weigh { .. }
        | Effect::Name(_) => false,
    }
}

/// How many bytes a request holds while it executes; `None` if its parts contradict each other.
fn bytes_of<P>(input: &Input<ClientMessage, P>) -> Option<u64> {
    let payload = u64::from(input.payload_len);
    match &input.message {
        Ok(ClientMessage::Data(ClientData::Read(read))) => {
            // A length over the limit is refused later, and reserves nothing.
            let fits = usize::try_from(read.len).is_ok_and(|len| len <= Limits::PAYLOAD_LEN_MAX);
            (payload == 0).then(|| if fits { u64::from(read.len) } else { 0 })
        }
        Ok(
            ClientMessage::Data(ClientData::Write(_) | ClientData::Append(_))
            | ClientMessage::Control(ClientControl::XattrSet(_)),
        ) => Some(payload),
        Ok(ClientMessage::Control(
            ClientControl::List(_) | ClientControl::XattrGet(_) | ClientControl::XattrList(_),
        )) => (payload == 0).then_some(Limits::LIST_LEN_MAX),
        Ok(_) => (payload == 0).then_some(0),
        Err(unknown) => (!message::is_known(unknown.0)).then_some(payload),
    }
}

/// Giving something back must not wait for others to give back. The window of ids bounds how much of it there is.
fn needs_credit(message: &Result<ClientMessage, crate::session::UnknownKind>) -> bool {
    !matches!(
        message,
        Ok(ClientMessage::Control(
            ClientControl::Close(_)
                | ClientControl::Unlock(_)
                | ClientControl::CancelLock(_)
                | ClientControl::Revoke(_)
        ))
    )
}

/// Whether an open's parts agree; and the lock that it wants.
fn opening_lock(open: &Open, allowed: Rights) -> Result<Option<(ByteRange, LockMode)>, Refusal> {
    let is_making = open.create != Create::Never || open.truncate;
    let is_reading_only = !open.mode.rights.is_writing();
    let is_cutting_what_it_may_not = open.truncate && !open.mode.rights.contains(Rights::WRITE);
    if open.mode.rights.intersection(Rights::BYTES) == Rights::NONE
        || (is_making && is_reading_only)
        || is_cutting_what_it_may_not
        || ((open.with_key || open.guard) && !open.resumable)
    {
        return Err(Reason::Invalid.into());
    }
    let Some(wanted) = open.lock else { return Ok(None) };
    if !allowed.permits(Rights::LOCK) {
        return Err(Reason::PermissionDenied.into());
    }
    let range = ByteRange::new(wanted.range).ok_or(Reason::Invalid)?;
    Ok(Some((range, wanted.mode)))
}

/// What is kept of an answer for copies of its request.
fn kept(message: &ServerMessage) -> Option<ServerMessage> {
    match message {
        // What only tells something changes nothing, and may run again: keeping it would be for nothing.
        ServerMessage::Data(ServerData::ReadDone(_))
        | ServerMessage::Control(
            ServerControl::Listed(_)
            | ServerControl::Outcome(_)
            | ServerControl::XattrValue(_)
            | ServerControl::XattrNames(_)
            | ServerControl::Link(_)
            | ServerControl::Found(_)
            | ServerControl::Stated(_)
            | ServerControl::SpaceStated(_)
            | ServerControl::Sought(_),
        ) => None,
        ServerMessage::Control(ServerControl::Opened(opened)) => {
            let without_key = Opened { key: None, ..opened.clone() };
            Some(ServerMessage::Control(without_key.into()))
        }
        ServerMessage::Control(ServerControl::KeyIssued(_)) => {
            Some(ServerMessage::Control(KeyIssued { key: None }.into()))
        }
        ServerMessage::Control(ServerControl::Granted(granted)) => {
            let without_key = Granted { key: None, ..granted.clone() };
            Some(ServerMessage::Control(without_key.into()))
        }
        other => Some(other.clone()),
    }
}
