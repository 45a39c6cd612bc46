//! The client's requests: queued under tickets, numbered when they are first sent, pulled by channels, repeated
//! under their ids when a channel is lost, and answered once.

use super::answers::outcome;
use super::channels::Channel;
use super::output::{
    Answer, ClientOutput, FromServer, Operation, RequestError, SessionLoss, Ticket, ToServer,
};
use super::{ClientCore, IDS_FOR_CONTROL, LineKey, Phase, REQUESTS_FOR_CONTROL};
use crate::model::{ChannelKind, ChannelNumber, LineId, LineSet, RequestId, Time};
use crate::session::{Input, LossReason};
use crate::wire::control::{Close, Unlock};
use crate::wire::grants::Revoke;
use crate::wire::{ClientControl, ServerControl, ServerData};

/// A request without an answer. Callers know it by its ticket, which is given when it is queued, the server by its
/// id, which is given when it is first sent: what waits for a lost line holds up no window.
#[derive(Debug)]
pub(super) struct Request<P> {
    pub(super) operation: Operation<P>,
    lines: LineSet,
    /// The channel that it is under way on; `None`: it is queued, or it is a lock that waits.
    on: Option<ChannelNumber>,
    /// Its id, once it was sent.
    pub(super) id: Option<RequestId>,
    /// Whether anybody still waits for its answer: what nobody wants is given back.
    pub(super) is_wanted: bool,
}

impl<P> Request<P> {
    /// Bytes of credit: those of the payload, on its way there or back.
    fn bytes(&self) -> u64 {
        match &self.operation {
            Operation::Control(
                ClientControl::List(_) | ClientControl::XattrGet(_) | ClientControl::XattrList(_),
            ) => LIST_CREDIT,
            Operation::Control(_) => 0,
            Operation::Read(read) => u64::from(read.len),
            Operation::ControlWith(_, _, len)
            | Operation::Write(_, _, len)
            | Operation::Append(_, _, len) => u64::from(*len),
        }
    }

    fn is_writing(&self) -> bool {
        matches!(self.operation, Operation::Write(..) | Operation::Append(..))
    }

    fn kind(&self) -> ChannelKind {
        match &self.operation {
            Operation::Control(_) | Operation::ControlWith(..) => ChannelKind::Control,
            Operation::Read(_) | Operation::Write(..) | Operation::Append(..) => ChannelKind::Data,
        }
    }

    /// How many requests of the credit it takes.
    fn credit(&self) -> u32 {
        u32::from(!self.needs_no_credit())
    }

    /// Giving something back must not wait for others to give back.
    fn needs_no_credit(&self) -> bool {
        matches!(
            &self.operation,
            Operation::Control(
                ClientControl::Close(_)
                    | ClientControl::Unlock(_)
                    | ClientControl::CancelLock(_)
                    | ClientControl::Revoke(_)
            )
        )
    }
}

impl<P: Clone> ClientCore<P> {
    /// Queues what a caller wants; its outcome comes as [`ClientOutput::Complete`]. Reads and writes go over
    /// `lines` only.
    pub fn handle_request(&mut self, now: Time, operation: Operation<P>, lines: LineSet) -> Ticket {
        self.begin(now, (operation, lines), true)
    }

    fn begin(&mut self, now: Time, (operation, lines): (Operation<P>, LineSet), is_wanted: bool) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.saturating_add(1);
        let request = Request { operation, lines, on: None, id: None, is_wanted };
        if let Phase::Ended(loss) = self.phase {
            let outcome = Err(RequestError::Ended(loss));
            self.outputs.push_back(ClientOutput::Complete { ticket, outcome });
            return ticket;
        }
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
        if request.id.is_none() && !request.needs_no_credit() {
            self.requests.remove(&ticket);
            self.dequeue(ticket);
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
            Ok(FromServer::Control(ServerControl::Ended(ended))) => {
                let loss = SessionLoss::from(ended.reason);
                self.end(now, loss);
            }
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
    /// a faster one takes more.
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

    pub(super) fn fail_requests(&mut self, error: RequestError) {
        self.queued_control.clear();
        self.queued_free.clear();
        self.queued_data.clear();
        (self.in_flight_requests, self.in_flight_bytes) = (0, 0);
        self.sent.clear();
        self.waiting.clear();
        self.unlocking.clear();
        for (ticket, _) in core::mem::take(&mut self.requests) {
            self.outputs.push_back(ClientOutput::Complete { ticket, outcome: Err(error) });
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

    fn enqueue(&mut self, ticket: Ticket, request: &Request<P>) {
        match request.kind() {
            ChannelKind::Control if request.needs_no_credit() => self.queued_free.insert(ticket),
            ChannelKind::Control => self.queued_control.insert(ticket),
            ChannelKind::Data => self.queued_data.entry(request.lines.bits()).or_default().insert(ticket),
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
            let first = self.queued_control.range(next..).next().copied().filter(|_| has_credit);
            let first_free = self.queued_free.range(next_free..).next().copied();
            let ticket = match (first, first_free) {
                (None, None) => return,
                (Some(ticket), free) if free.is_none_or(|free| ticket < free) => {
                    next = ticket.next();
                    let bytes = self.requests.get(&ticket).map_or(0, Request::bytes);
                    has_credit = self.in_flight_requests < self.limits.requests
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
        let mut ready: Vec<(u64, ChannelNumber, LineId)> = self
            .channels
            .values()
            .filter(|channel| channel.is_live() && channel.status.kind == ChannelKind::Data)
            .filter(|channel| channel.in_flight_bytes < self.limits.channel_bytes)
            .map(|channel| (channel.in_flight_bytes, channel.status.number, channel.status.line))
            .collect();
        ready.sort_unstable();
        for (_, number, line) in ready {
            if let Some((lines, ticket)) = self.oldest_for(line) {
                let bytes = self.requests.get(&ticket).map_or(0, Request::bytes);
                if !self.has_credit_for(bytes) {
                    return false;
                }
                if !self.is_in_window(ticket) {
                    // What holds the window up may be waiting for this line's neighbour.
                    continue;
                }
                if let Some(queue) = self.queued_data.get_mut(&lines) {
                    queue.remove(&ticket);
                    if queue.is_empty() {
                        self.queued_data.remove(&lines);
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

    /// The oldest queued read or write that `line` may carry.
    fn oldest_for(&self, line: LineId) -> Option<(LineKey, Ticket)> {
        self.queued_data
            .iter()
            .filter(|(lines, _)| LineSet::from_bits(**lines).contains(line))
            .filter_map(|(&lines, queue)| Some((lines, *queue.first()?)))
            .min_by_key(|&(_, ticket)| ticket)
    }

    /// Sends a request on a channel.
    fn put(&mut self, now: Time, ticket: Ticket, number: ChannelNumber) {
        let (Some(request), Some(channel)) = (self.requests.get_mut(&ticket), self.channels.get_mut(&number))
        else {
            return;
        };
        let bytes = request.bytes();
        let id = if let Some(id) = request.id {
            channel.status.repeats = channel.status.repeats.saturating_add(1);
            id
        } else {
            let id = self.next_request;
            self.next_request = id.next();
            self.sent.insert(id, ticket);
            *request.id.insert(id)
        };
        request.on = Some(number);
        channel.in_flight.insert(ticket);
        channel.in_flight_bytes = channel.in_flight_bytes.saturating_add(bytes);
        channel.busy_since.get_or_insert(now);
        if channel.in_flight.len() == 1 {
            // Silence counts from when there was something to answer.
            channel.liveness.on_asked(now);
        }
        self.in_flight_requests = self.in_flight_requests.saturating_add(request.credit());
        self.in_flight_bytes = self.in_flight_bytes.saturating_add(bytes);
        let some = |payload: &P, len: u32| (len > 0).then(|| payload.clone());
        let (message, payload) = match &request.operation {
            Operation::Control(message) => (ToServer::Control(message.clone()), None),
            Operation::ControlWith(message, payload, len) => {
                (ToServer::Control(message.clone()), some(payload, *len))
            }
            Operation::Read(read) => (ToServer::Data((*read).into()), None),
            Operation::Write(write, payload, len) => (ToServer::Data((*write).into()), some(payload, *len)),
            Operation::Append(append, payload, len) => {
                (ToServer::Data((*append).into()), some(payload, *len))
            }
        };
        self.send(number, (Some(ticket), id), message, payload);
    }

    /// An answer, which must fit what was asked: the server is not trusted to be well-behaved.
    fn on_answer(&mut self, now: Time, number: ChannelNumber, input: Input<FromServer, P>) {
        let (id, read) = (input.request, u64::from(input.payload_len));
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
        if let Some(channel) = self.channels.get_mut(&number) {
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
    pub(super) fn complete(&mut self, now: Time, ticket: Ticket, outcome: Result<Answer<P>, RequestError>) {
        let Some(request) = self.requests.remove(&ticket) else { return };
        self.unlocking.remove(&ticket);
        let unwanted = if request.is_wanted { None } else { give_back(&outcome) };
        self.outputs.push_back(ClientOutput::Complete { ticket, outcome });
        if let Some(unwanted) = unwanted {
            self.begin(now, (Operation::Control(unwanted), LineSet::ALL), false);
        }
    }

    /// Takes a request that has its answer off its channel or its queue, and its credit back.
    pub(super) fn release(&mut self, ticket: Ticket) {
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        let (bytes, credit, on) = (request.bytes(), request.credit(), request.on.take());
        if let Some(id) = request.id {
            self.sent.remove(&id);
        }
        match on {
            Some(on) => {
                self.in_flight_requests = self.in_flight_requests.saturating_sub(credit);
                self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
                if let Some(channel) = self.channels.get_mut(&on) {
                    channel.in_flight.remove(&ticket);
                    channel.in_flight_bytes = channel.in_flight_bytes.saturating_sub(bytes);
                }
            }
            // Queued again, and answered through the first copy after all.
            None => self.dequeue(ticket),
        }
    }

    fn dequeue(&mut self, ticket: Ticket) {
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

/// What a request counts whose answer is a list or a value, in bytes: the length of a page.
const LIST_CREDIT: u64 = 64 << 10;
