//! The client's requests: queued under tickets, numbered when they are first sent, pulled by channels, repeated
//! under their ids when a channel is lost, and answered once.

use super::answers::outcome;
use super::channels::Channel;
use super::handles::Outcome;
use super::output::{
    Answer, ClientOutput, FromServer, Operation, RequestError, SessionLoss, Ticket, ToServer,
};
use super::request::{Purpose, Request, handle_mut, makes_new};
use super::{ClientCore, DataQueue, IDS_FOR_CONTROL, Phase, REQUESTS_FOR_CONTROL};
use crate::model::planted::{self, Bug};
use crate::model::{ChannelKind, ChannelNumber, HandleId, LineId, LineSet, Reason, RequestId, Time};
use crate::session::{Input, LossReason, Payload};
use crate::wire::control::{Close, Closed, EndReason, IssueKey, Stat, Unlock};
use crate::wire::data::{Append, Read, Write};
use crate::wire::grants::Revoke;
use crate::wire::{ClientControl, ServerControl, ServerData};

impl<P: Payload> ClientCore<P> {
    /// Queues what a caller wants; its outcome comes as [`ClientOutput::Complete`]. Reads and writes go over
    /// `lines` only.
    pub fn handle_request(&mut self, now: Time, mut operation: Operation<P>, lines: LineSet) -> Ticket {
        if let Operation::Control(ClientControl::Resume(resume)) = &mut operation {
            resume.predecessor = resume.predecessor.map(|predecessor| self.local(predecessor));
        }
        self.begin(now, (operation, lines), true, Purpose::Caller)
    }

    pub(super) fn begin(
        &mut self,
        now: Time,
        (operation, lines): (Operation<P>, LineSet),
        is_wanted: bool,
        purpose: Purpose,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.saturating_add(1);
        let ended = match (self.phase, self.loss_of(&operation)) {
            (Phase::Ended(loss), _) => Some(Err(RequestError::Ended(loss))),
            (_, Some(loss)) if purpose == Purpose::Caller => Some(self.end_without_handle(&operation, loss)),
            _ => None,
        };
        if let Some(outcome) = ended {
            self.outputs.push_back(ClientOutput::Complete { ticket, outcome });
            return ticket;
        }
        let (on, id, sent_at, covers) = (None, None, None, 0);
        let (former, is_executed) = (None, false);
        let request =
            Request { operation, lines, on, id, is_wanted, purpose, sent_at, covers, former, is_executed };
        if let Operation::Control(ClientControl::Unlock(unlock)) = &request.operation {
            self.unlocking.insert(ticket, (unlock.handle, unlock.range));
        }
        self.enqueue(ticket, &request);
        self.requests.insert(ticket, request);
        self.pull(now);
        ticket
    }

    /// Nobody waits for a request any more. One that was never sent is never sent then, and has no outcome: tells
    /// whether it is so. One that was sent may be executing, and goes on; the handle or the lock that it brings is
    /// given back, and a lock that waits is cancelled. What gives something back is sent all the same.
    pub fn handle_withdrawn(&mut self, now: Time, ticket: Ticket) -> bool {
        let Some(request) = self.requests.get_mut(&ticket) else { return false };
        if request.id.is_none() && !request.needs_no_credit() && !request.may_have_left_something() {
            let handle = request.waits_for();
            self.requests.remove(&ticket);
            self.dequeue(ticket, handle);
            return true;
        }
        request.is_wanted = false;
        if let Operation::Control(ClientControl::Lock(lock)) = &request.operation {
            self.unlocking.insert(ticket, (lock.handle, lock.wanted.range));
        }
        if let Some(id) = request.id.filter(|id| self.waiting.contains_key(id)) {
            self.cancel_lock(now, id);
        }
        false
    }

    /// A verified record has arrived on a channel.
    pub fn handle_input(&mut self, now: Time, number: ChannelNumber, input: Input<FromServer, P>) {
        let Some(channel) = self.channels.get_mut(&number).filter(|channel| channel.is_live()) else {
            return;
        };
        channel.liveness.on_heard(now);
        let kind = channel.status.kind;
        match &input.message {
            Ok(FromServer::Control(ServerControl::Ping(_)) | FromServer::Data(ServerData::Ping(_))) => {
                self.on_ping(number, kind);
            }
            Ok(FromServer::Control(ServerControl::Pong(_)) | FromServer::Data(ServerData::Pong(_))) => {}
            Ok(
                FromServer::Control(ServerControl::Farewell(_)) | FromServer::Data(ServerData::Farewell(_)),
            ) => {
                self.drop_channel(now, number, LossReason::Farewell);
            }
            Ok(FromServer::Control(ServerControl::Stopping(_))) => self.is_held = true,
            Ok(FromServer::Control(ServerControl::Ended(ended))) => match ended.reason {
                EndReason::NotAllowed => self.end(now, SessionLoss::NotAllowed),
                EndReason::Stopping => self.come_back(now),
            },
            Ok(FromServer::Control(
                ServerControl::LockEnded(_) | ServerControl::GrantOffered(_) | ServerControl::HandleEnded(_),
            )) => self.on_notice(now, number, input),
            Ok(_) => self.on_answer(now, number, input),
            // A server may say what an older client need not understand, as long as it answers nothing.
            Err(_) if input.request == RequestId::NONE && input.payload_len == 0 => {}
            Err(_) => self.drop_channel(now, number, LossReason::Offence),
        }
    }

    /// How much is queued or under way: requests and their bytes.
    #[must_use]
    pub fn outstanding(&self) -> (usize, u64) {
        (self.requests.len(), self.requests.values().map(Request::bytes).sum())
    }

    /// What is in flight now, and never above the credit: requests and their bytes.
    #[must_use]
    pub fn in_flight(&self) -> (u32, u64) {
        (self.in_flight_requests, self.in_flight_bytes)
    }

    /// Lets channels pull what is queued. The unit of bulk work is (handle, offset, length); a channel takes the
    /// oldest that it may carry while its bytes in flight are below its window, the emptiest channel first, so that
    /// a faster one takes more; of those that are equally empty, the one that has waited longest.
    pub(super) fn pull(&mut self, now: Time) {
        self.pull_control(now);
        while self.pull_one_chunk(now) {}
    }

    /// Queues what was under way on a lost channel, in its old order.
    pub(super) fn requeue(&mut self, channel: &Channel) {
        for &ticket in &channel.in_flight {
            let Some(mut request) = self.requests.remove(&ticket) else { continue };
            self.in_flight_requests = self.in_flight_requests.saturating_sub(request.credit());
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(request.bytes());
            request.on = None;
            self.enqueue(ticket, &request);
            self.requests.insert(ticket, request);
        }
    }

    /// Ends everything, and forgets what is held: the session is over.
    pub(super) fn fail_requests(&mut self, error: &RequestError) {
        self.queued_control.clear();
        self.queued_free.clear();
        self.queued_data.clear();
        (self.in_flight_requests, self.in_flight_bytes) = (0, 0);
        self.sent.clear();
        self.waiting.clear();
        self.unlocking.clear();
        self.written.clear();
        self.kept_bytes = 0;
        for (ticket, request) in core::mem::take(&mut self.requests) {
            if request.purpose == Purpose::Caller {
                self.outputs.push_back(ClientOutput::Complete { ticket, outcome: Err(error.clone()) });
            }
        }
    }

    pub(super) fn send(
        &mut self,
        number: ChannelNumber,
        (ticket, request): (Option<Ticket>, RequestId),
        message: ToServer,
        payload: Option<P>,
    ) {
        // Everything below the oldest request without an answer has its answer.
        let settled = self.settled();
        self.outputs.push_back(ClientOutput::Send { number, ticket, request, settled, message, payload });
    }

    /// Everything below the oldest sent request without an answer has its answer.
    pub(super) fn settled(&self) -> RequestId {
        self.sent.first_key_value().map_or(self.next_request, |(&first, _)| first)
    }

    /// Whether a request may be sent as far as the server's memory of ids goes: a repeat always, a new one if its
    /// id is not too far ahead of the oldest sent request without an answer. The end of the window is kept for
    /// control requests, so that a write that waits for its lost line keeps no key from being sent.
    fn is_in_window(&self, ticket: Ticket) -> bool {
        let Some(request) = self.requests.get(&ticket) else { return false };
        let kept = match request.kind() {
            ChannelKind::Control => 0,
            ChannelKind::Data => self.limits.window / IDS_FOR_CONTROL,
        };
        let end = self.settled().0.saturating_add(self.limits.window).saturating_sub(kept);
        request.id.is_some() || self.next_request.0 < end
    }

    /// Whether a request may go to the server: to one that is about to stop only what it may have had already.
    fn may_go(&self, ticket: Ticket) -> bool {
        !self.is_held || self.requests.get(&ticket).is_some_and(|request| request.id.is_some())
    }

    /// Puts a request where it waits: for its handle, if that is away, else for a channel.
    pub(super) fn enqueue(&mut self, ticket: Ticket, request: &Request<P>) {
        if let Some(handle) = self.parking_of(request) {
            handle.parked.insert(ticket);
            return;
        }
        match request.kind() {
            ChannelKind::Control if request.needs_no_credit() => self.queued_free.insert(ticket),
            ChannelKind::Control => self.queued_control.insert(ticket),
            ChannelKind::Data => {
                let queue = DataQueue { lines: request.lines.bits(), is_kept: self.is_kept(request) };
                self.queued_data.entry(queue).or_default().insert(ticket)
            }
        };
    }

    fn pull_control(&mut self, now: Time) {
        // One control channel is in use; the spare one waits until that is lost.
        let in_use = self
            .channels
            .values()
            .find(|channel| channel.is_live() && channel.status.kind == ChannelKind::Control)
            .map(|channel| channel.status.number);
        let Some(number) = in_use else { return };
        // In the order in which they were queued; those that wait for credit hold up none that needs none.
        let (mut next, mut next_free) = (Ticket(0), Ticket(0));
        let mut has_credit = true;
        loop {
            let may_go = |ticket: &&Ticket| self.may_go(**ticket);
            let first = self.queued_control.range(next..).find(may_go).copied().filter(|_| has_credit);
            let first_free = self.queued_free.range(next_free..).find(may_go).copied();
            let ticket = match (first, first_free) {
                (None, None) => return,
                (Some(ticket), free) if free.is_none_or(|free| ticket < free) => {
                    next = ticket.next();
                    let bytes = self.requests.get(&ticket).map_or(0, Request::bytes);
                    has_credit = (self.in_flight_requests < self.limits.requests
                        || planted::is(Bug::CreditExceeded))
                        && self.has_credit_for(bytes)
                        && self.is_in_window(ticket);
                    if !has_credit || self.may_be_unlocked(ticket) {
                        continue;
                    }
                    ticket
                }
                (_, Some(free)) => {
                    next_free = free.next();
                    if !self.is_in_window(free) {
                        return;
                    }
                    free
                }
                (Some(_), None) => return,
            };
            self.queued_control.remove(&ticket);
            self.queued_free.remove(&ticket);
            self.put(now, ticket, number);
        }
    }

    /// Gives one chunk to the emptiest channel that may take one.
    fn pull_one_chunk(&mut self, now: Time) -> bool {
        if self.in_flight_requests >= self.limits.requests.saturating_sub(REQUESTS_FOR_CONTROL) {
            return false;
        }
        let mut ready: Vec<(u64, Option<Ticket>, ChannelNumber, LineId)> = self
            .channels
            .values()
            .filter(|channel| channel.is_live() && channel.status.kind == ChannelKind::Data)
            .filter(|channel| channel.in_flight_bytes < channel.pace.window(&self.limits))
            .map(|channel| {
                (channel.in_flight_bytes, channel.last, channel.status.number, channel.status.line)
            })
            .collect();
        ready.sort_unstable();
        for (_, _, number, line) in ready {
            if let Some((key, ticket)) = self.oldest_for(line) {
                let bytes = self.requests.get(&ticket).map_or(0, Request::bytes);
                if !self.has_credit_for(bytes) {
                    return false;
                }
                if !self.is_in_window(ticket) {
                    // What holds the window up may be waiting for this line's neighbour.
                    continue;
                }
                if let Some(queue) = self.queued_data.get_mut(&key) {
                    queue.remove(&ticket);
                    if queue.is_empty() {
                        self.queued_data.remove(&key);
                    }
                }
                self.put(now, ticket, number);
                return true;
            }
        }
        false
    }

    /// Whether the credit holds `bytes` more; a single request always has its turn, whatever the server grants.
    fn has_credit_for(&self, bytes: u64) -> bool {
        self.in_flight_bytes.saturating_add(bytes) <= self.limits.bytes.max(bytes)
    }

    /// The oldest queued read or write that `line` may carry, and that need not wait for a sync.
    fn oldest_for(&self, line: LineId) -> Option<(DataQueue, Ticket)> {
        let writes_wait = self.writes_wait();
        self.queued_data
            .iter()
            .filter(|(key, _)| LineSet::from_bits(key.lines).contains(line) && !(key.is_kept && writes_wait))
            .filter_map(|(&key, queue)| Some((key, *queue.iter().find(|ticket| self.may_go(**ticket))?)))
            .min_by_key(|&(_, ticket)| ticket)
    }

    /// Sends a request on a channel, with the handle that it names as the server calls it now.
    fn put(&mut self, now: Time, ticket: Ticket, number: ChannelNumber) {
        let (next_write, next_request) = (self.next_write, self.next_request);
        let (Some(request), Some(channel)) = (self.requests.get_mut(&ticket), self.channels.get_mut(&number))
        else {
            return;
        };
        let bytes = request.bytes();
        let id = if let Some(id) = request.id {
            channel.status.repeats = channel.status.repeats.saturating_add(1);
            id
        } else {
            self.next_request = next_request.next();
            self.sent.insert(next_request, ticket);
            request.shorten_wait(now);
            request.covers = next_write.saturating_add(1);
            *request.id.insert(next_request)
        };
        request.sent_at.get_or_insert(now);
        request.on = Some(number);
        channel.in_flight.insert(ticket);
        channel.last = Some(ticket);
        channel.in_flight_bytes = channel.in_flight_bytes.saturating_add(bytes);
        channel.busy_since.get_or_insert(now);
        if channel.in_flight.len() == 1 {
            // Silence counts from when there was something to answer.
            channel.liveness.on_asked(now);
            channel.pace.on_begun(now);
        }
        self.in_flight_requests = self.in_flight_requests.saturating_add(request.credit());
        self.in_flight_bytes = self.in_flight_bytes.saturating_add(bytes);
        let mut operation = request.operation.clone();
        if let (true, Operation::Control(ClientControl::Change(asked))) =
            (request.is_executed, &mut operation)
        {
            // It has the length, and others may have written since.
            asked.change.len = None;
        }
        let (message, payload) = self.spell(operation);
        self.send(number, (Some(ticket), id), message, payload);
    }

    /// The record of an operation.
    fn spell(&self, operation: Operation<P>) -> (ToServer, Option<P>) {
        let current = |handle: HandleId| self.current(handle);
        let translated = |mut message: ClientControl| {
            if let Some(handle) = handle_mut(&mut message) {
                *handle = current(*handle);
            }
            ToServer::Control(message)
        };
        let some = |payload: P, len: u32| (len > 0).then_some(payload);
        match operation {
            Operation::Control(message) => (translated(message), None),
            Operation::ControlWith(message, payload, len) => (translated(message), some(payload, len)),
            Operation::Read(read) => {
                let read = Read { handle: current(read.handle), ..read };
                (ToServer::Data(read.into()), None)
            }
            Operation::Write(write, payload, len) => {
                let write = Write { handle: current(write.handle), ..write };
                (ToServer::Data(write.into()), some(payload, len))
            }
            Operation::Append(append, payload, len) => {
                let append = Append { handle: current(append.handle) };
                (ToServer::Data(append.into()), some(payload, len))
            }
        }
    }

    /// An answer, which must fit what was asked: the server is not trusted to be well-behaved.
    fn on_answer(&mut self, now: Time, number: ChannelNumber, mut input: Input<FromServer, P>) {
        let (id, read) = (input.request, u64::from(input.payload_len));
        if let Ok(FromServer::Control(ServerControl::Locked(locked))) = &mut input.message {
            locked.handle = self.local(locked.handle);
        }
        if let Ok(FromServer::Control(ServerControl::Granted(granted))) = &mut input.message {
            granted.handle = self.local(granted.handle);
        }
        let found = self.sent.get(&id).and_then(|&ticket| Some((ticket, self.requests.get(&ticket)?)));
        let Some((ticket, request)) = found else {
            // The answer to a copy whose twin was answered first; an id that was never used is an offence.
            if id == RequestId::NONE || id >= self.next_request {
                self.drop_channel(now, number, LossReason::Offence);
            }
            return;
        };
        let Some(outcome) = outcome(&request.operation, input) else {
            self.drop_channel(now, number, LossReason::Offence);
            return;
        };
        let (bytes, is_write) = (request.bytes(), request.is_writing());
        self.has_served |= request.purpose == Purpose::Caller && outcome.is_ok();
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pace.on_answered(now, bytes, &self.limits);
            let status = &mut channel.status;
            status.requests = status.requests.saturating_add(1);
            if outcome.is_ok() {
                if is_write {
                    status.written_bytes = status.written_bytes.saturating_add(bytes);
                } else {
                    status.read_bytes = status.read_bytes.saturating_add(read);
                }
            }
            status.busy = now.since(channel.busy_since.unwrap_or(now));
        }
        self.release(ticket);
        if matches!(outcome, Ok(Answer::Control(ServerControl::LockQueued(_), _))) {
            self.on_lock_queued(now, id, ticket);
        } else {
            self.complete(now, ticket, outcome);
        }
        self.pull(now);
    }

    /// Ends a request. What nobody wants any more is given back.
    pub(super) fn complete(&mut self, now: Time, ticket: Ticket, outcome: Outcome<P>) {
        let Some(request) = self.requests.remove(&ticket) else { return };
        self.unlocking.remove(&ticket);
        match request.purpose {
            Purpose::Caller => self.complete_call(now, ticket, &request, outcome),
            Purpose::Resume(name) => self.on_resumed(now, name, outcome),
            Purpose::Key(name, left) => {
                if let Ok(Answer::Control(ServerControl::KeyIssued(issued), _)) = outcome {
                    match issued.key {
                        Some(key) => self.take_key(name, key),
                        // That answer was lost as well.
                        None => self.ask_for_key(now, name, left),
                    }
                }
            }
            Purpose::Sync(open) => self.on_own_sync(now, open, &request, &outcome),
            Purpose::Inquire(asked) => self.on_told(now, asked, outcome),
            Purpose::GoOn(name) => self.on_told_to_go_on(now, name),
            Purpose::Rewrite(open, what) => self.on_rewritten(now, open, what, &outcome),
        }
    }

    /// Ends a caller's request, and keeps what it tells of handles and of what was written.
    fn complete_call(&mut self, now: Time, ticket: Ticket, request: &Request<P>, mut outcome: Outcome<P>) {
        match &mut outcome {
            Ok(Answer::Control(ServerControl::Opened(opened), _)) => {
                self.hold(now, &request.operation, opened);
            }
            Ok(answer) => {
                self.on_done(now, request, answer);
                self.note_told(&request.operation, answer);
                if let Some(untold) = self.take_untold(&request.operation) {
                    outcome = Err(untold);
                }
            }
            // What was made by the first run of a request whose session was lost is there when it runs again.
            Err(RequestError::Refused(refusal))
                if refusal.reason == Reason::Exists
                    && makes_new(&request.operation)
                    && request.is_again(self.started_at) =>
            {
                *refusal = Reason::Unknown.into();
            }
            // It was sent before the client heard why there is no such handle any more.
            Err(RequestError::Refused(refusal))
                if refusal.reason == Reason::BadHandle && self.loss_of(&request.operation).is_some() =>
            {
                if let Some(loss) = self.loss_of(&request.operation) {
                    outcome = self.end_without_handle(&request.operation, loss);
                }
            }
            // The handle was closed, and the answer lost.
            Err(RequestError::Refused(refusal))
                if refusal.reason == Reason::BadHandle && request.is_again(self.started_at) =>
            {
                if let Operation::Control(ClientControl::Close(_)) = &request.operation {
                    outcome = Ok(Answer::Control(Closed {}.into(), None));
                }
            }
            Err(_) => {}
        }
        if let Operation::Control(ClientControl::Close(close)) = &request.operation {
            self.forget_handle(close.handle);
        }
        let unwanted = if request.is_wanted { None } else { give_back(&outcome) };
        self.outputs.push_back(ClientOutput::Complete { ticket, outcome });
        if let Some(unwanted) = unwanted {
            self.begin(now, (Operation::Control(unwanted), LineSet::ALL), false, Purpose::Caller);
        }
    }

    /// Keeps what an answer tells of a handle.
    fn note_told(&mut self, operation: &Operation<P>, answer: &Answer<P>) {
        let (Operation::Control(asked), Answer::Control(told, _)) = (operation, answer) else { return };
        match (asked, told) {
            (ClientControl::IssueKey(IssueKey { handle }), ServerControl::KeyIssued(issued)) => {
                if let Some(key) = issued.key.clone() {
                    self.take_key(*handle, key);
                }
            }
            (ClientControl::Stat(Stat { handle }), ServerControl::Stated(stated)) => {
                self.note_state(*handle, stated.state);
            }
            _ => {}
        }
    }

    /// Takes a request that has its answer off its channel or its queue, and its credit back.
    pub(super) fn release(&mut self, ticket: Ticket) {
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        let (bytes, credit, on) = (request.bytes(), request.credit(), request.on.take());
        let handle = request.waits_for();
        if let Some(id) = request.id {
            self.sent.remove(&id);
        }
        match on {
            Some(on) => {
                let credit = if planted::is(Bug::CreditKept) { 0 } else { credit };
                self.in_flight_requests = self.in_flight_requests.saturating_sub(credit);
                self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
                if let Some(channel) = self.channels.get_mut(&on) {
                    channel.in_flight.remove(&ticket);
                    channel.in_flight_bytes = channel.in_flight_bytes.saturating_sub(bytes);
                }
            }
            // Queued again, and answered through the first copy after all.
            None => self.dequeue(ticket, handle),
        }
    }

    fn dequeue(&mut self, ticket: Ticket, handle: Option<HandleId>) {
        if let Some(held) = handle.and_then(|handle| self.handles.get_mut(&handle)) {
            held.parked.remove(&ticket);
        }
        self.queued_control.remove(&ticket);
        self.queued_free.remove(&ticket);
        self.queued_data.retain(|_, queue| {
            queue.remove(&ticket);
            !queue.is_empty()
        });
    }
}

/// What gives an answer back that nobody takes: a handle would keep others out of the file and a lock out of its
/// range, this client among them, and a grant would let somebody in of whom nobody knows.
pub fn give_back<P>(outcome: &Result<Answer<P>, RequestError>) -> Option<ClientControl> {
    match outcome {
        Ok(Answer::Control(ServerControl::Opened(opened), _)) => Some(Close { handle: opened.handle }.into()),
        Ok(Answer::Control(ServerControl::Locked(locked), _)) => {
            Some(Unlock { handle: locked.handle, range: locked.range }.into())
        }
        Ok(Answer::Control(ServerControl::Granted(granted), _)) => {
            Some(Revoke { handle: granted.handle, grant: granted.grant }.into())
        }
        _ => None,
    }
}
