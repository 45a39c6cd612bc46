//! The client's core: one session, its lines, channels and requests.
//!
//! `channels` keeps one data channel on every line that may carry one, one control channel in use and one spare on
//! another line; `requests` queues what callers want and lets channels pull it; `answers` says which answer fits
//! which request; `locks` keeps the locks that wait, `notices` hears what the server tells without being asked. Per-line rates, hedging and the `suspect` state have their place
//! in `Channel` and `pull`; this form has a fixed window a channel. protocol.md: Sessions, Requests.

mod answers;
mod channels;
mod locks;
mod notices;
mod output;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use output::{
    Answer, ChannelState, ChannelStatus, ClientOutput, ConnectFailure, FromServer, LineSetup, Operation,
    RequestError, SessionEvent, SessionLoss, Ticket, ToServer,
};

pub use requests::give_back;

use self::channels::{Channel, Link};
use self::requests::Request;
use crate::model::{ChannelKind, ChannelNumber, HandleId, Limits, LineId, RawRange, RequestId, Time};

/// The client's side. `P` is the shell's payload; a clone of it must be cheap.
#[derive(Debug)]
pub struct ClientCore<P> {
    limits: Limits,
    lines: Vec<LineSetup>,
    phase: Phase,
    /// Live and connecting channels.
    channels: BTreeMap<ChannelNumber, Channel>,
    /// Channels that are gone, newest last; bounded.
    history: VecDeque<ChannelStatus>,
    next_number: u32,
    links: BTreeMap<(LineId, ChannelKind), Link>,
    /// When a question whether the session lives was put, and may be put again.
    asked_until: Option<Time>,
    requests: BTreeMap<Ticket, Request<P>>,
    next_ticket: u64,
    /// The ids of what was sent and has no answer.
    sent: BTreeMap<RequestId, Ticket>,
    next_request: RequestId,
    /// Locks that the server has queued: answered, so that they hold neither credit nor the window, and not ended.
    waiting: BTreeMap<RequestId, Ticket>,
    /// Unlocks without an answer, and locks without an end that nobody wants any more: what they may still unlock.
    unlocking: BTreeMap<Ticket, (HandleId, RawRange)>,
    /// The highest notice that was taken; 0: none yet.
    heard: u64,
    queued_control: BTreeSet<Ticket>,
    /// Those among the queued control requests that need no credit.
    queued_free: BTreeSet<Ticket>,
    /// Queued reads and writes, by the set of lines that may carry them (as its bits).
    queued_data: BTreeMap<LineKey, BTreeSet<Ticket>>,
    in_flight_requests: u32,
    in_flight_bytes: u64,
    outputs: VecDeque<ClientOutput<P>>,
}

/// What a client's core is made of, once its session was started on channel 0.
#[derive(Debug, Clone)]
pub struct ClientSetup {
    /// Bounds of this side; requests and bytes in flight are bounded by the server's credit as well.
    pub limits: Limits,
    /// The lines; at least one of them may carry control channels.
    pub lines: Vec<LineSetup>,
    /// The line of channel 0.
    pub first_line: LineId,
    /// The server's credit, in requests.
    pub requests: u32,
    /// The server's credit, in bytes of reads and writes.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Ended(SessionLoss),
}

/// A [`crate::model::LineSet`] in the order of its bits.
type LineKey = u64;

/// Requests kept for control channels, so that reads and writes that wait for a lost line never keep a key from
/// being sent.
const REQUESTS_FOR_CONTROL: u32 = 8;
/// The part of the window of ids that is kept for control requests: one in so many.
const IDS_FOR_CONTROL: u64 = 16;
/// Lost channels of which the statistics are kept.
const HISTORY_MAX: usize = 64;

impl<P: Clone> ClientCore<P> {
    /// A session that was just started on channel 0; its other channels are asked for in the first outputs.
    #[must_use]
    pub fn new(now: Time, setup: ClientSetup) -> Self {
        let mut limits = setup.limits;
        limits.requests = limits.requests.min(setup.requests).max(REQUESTS_FOR_CONTROL + 1);
        limits.bytes = limits.bytes.min(setup.bytes);
        limits.chunk = limits.chunk.min(u32::try_from(limits.bytes).unwrap_or(u32::MAX));
        let mut core = Self {
            limits,
            lines: setup.lines,
            phase: Phase::Running,
            channels: BTreeMap::new(),
            history: VecDeque::new(),
            next_number: 1,
            links: BTreeMap::new(),
            asked_until: None,
            requests: BTreeMap::new(),
            next_ticket: 0,
            sent: BTreeMap::new(),
            next_request: RequestId::FIRST,
            waiting: BTreeMap::new(),
            unlocking: BTreeMap::new(),
            heard: 0,
            queued_control: BTreeSet::new(),
            queued_free: BTreeSet::new(),
            queued_data: BTreeMap::new(),
            in_flight_requests: 0,
            in_flight_bytes: 0,
            outputs: VecDeque::new(),
        };
        core.adopt_first(now, setup.first_line);
        core.seek_channels(now);
        core
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<ClientOutput<P>> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        if self.phase != Phase::Running {
            return None;
        }
        self.pulse_deadlines(now).chain(self.retry_deadlines()).min()
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.phase == Phase::Running {
            self.check_pulses(now);
            self.seek_channels(now);
            self.pull(now);
        }
    }

    /// Ends the session on purpose: farewell on every channel, an error for every request without an answer.
    pub fn handle_close(&mut self, now: Time) {
        self.say_farewell();
        self.end(now, SessionLoss::Closed);
    }

    /// Every channel, also those that are gone, oldest first.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelStatus> {
        self.history.iter().copied().chain(self.channels.values().map(|channel| channel.status)).collect()
    }

    /// Whether a control channel and the data channels of all lines that may carry one are live.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_live = |kind, line: Option<LineId>| {
            self.channels.values().any(|channel| {
                channel.is_live()
                    && channel.status.kind == kind
                    && line.is_none_or(|line| channel.status.line == line)
            })
        };
        is_live(ChannelKind::Control, None)
            && (self.lines_for(ChannelKind::Data).iter())
                .all(|&(line, _)| is_live(ChannelKind::Data, Some(line)))
    }

    /// Bounds in force, the server's credit included.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Why the session is over, if it is.
    #[must_use]
    pub fn loss(&self) -> Option<SessionLoss> {
        match self.phase {
            Phase::Running => None,
            Phase::Ended(loss) => Some(loss),
        }
    }

    fn end(&mut self, now: Time, loss: SessionLoss) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Ended(loss);
        for number in self.channels.keys().copied().collect::<Vec<_>>() {
            self.outputs.push_back(ClientOutput::Disconnect { number });
            self.retire(now, number, crate::session::LossReason::SessionEnded);
        }
        self.fail_requests(RequestError::Ended(loss));
        self.outputs.push_back(ClientOutput::Event(SessionEvent::Ended(loss)));
    }
}
