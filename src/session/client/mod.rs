//! The client's core: one session, its lines, channels and requests.
//!
//! `channels` keeps one data channel on every line that may carry one, one control channel in use and one spare on
//! another line; `requests` queues what callers want and lets channels pull it, and `request` is one of them; `answers`
//! says which answer fits which request; `locks` keeps the locks that wait, `notices` hears what the server tells without
//! being asked. `comeback` has a session started in place of one that the server does not know any more, `handles`
//! resumes what callers have open, `written` and `unsynced` keep the bytes that may have to be written again. Per-line
//! rates, hedging and the `suspect` state have their place in `Channel` and `pull`; this form has a fixed window a
//! channel. protocol.md: Sessions, Requests, Coming back.

mod answers;
mod channels;
mod comeback;
mod handles;
mod locks;
mod notices;
mod output;
mod pace;
mod request;
mod requests;
#[cfg(test)]
mod tests;
mod unsynced;
mod written;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use comeback::Epochs;
pub use output::{
    Answer, ChannelState, ChannelStatus, ClientOutput, ConnectFailure, FromServer, HandleLoss, LineSetup,
    Operation, RequestError, SessionEvent, SessionLoss, Terms, Ticket, ToServer,
};
pub use requests::give_back;

use self::channels::{Channel, Link};
use self::comeback::Return;
use self::handles::Handle;
use self::request::Request;
use self::written::Written;
use crate::model::{ChannelKind, ChannelNumber, HandleId, Limits, LineId, OpenId, RawRange, RequestId, Time};
use crate::session::Payload;

/// The client's side. `P` is the shell's payload.
#[derive(Debug)]
pub struct ClientCore<P> {
    /// Bounds of this side.
    own_limits: Limits,
    /// Bounds in force: the server's credit included.
    limits: Limits,
    lines: Vec<LineSetup>,
    phase: Phase,
    /// Of the present session.
    terms: Terms,
    /// When the present session was started.
    started_at: Time,
    /// Sessions in a row that the server has dropped soon after it had started them.
    short_lives: u32,
    /// Whether the present session has done something that a caller had asked for.
    has_served: bool,
    /// Whether any channel is live.
    is_reached: bool,
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
    /// Whether the server is about to stop: what it has not had yet waits for the next one.
    is_held: bool,
    /// Locks that the server has queued: answered, so that they hold neither credit nor the window, and not ended.
    waiting: BTreeMap<RequestId, Ticket>,
    /// Unlocks without an answer, and locks without an end that nobody wants any more: what they may still unlock.
    unlocking: BTreeMap<Ticket, (HandleId, RawRange)>,
    /// The highest notice that was taken; 0: none yet.
    heard: u64,
    queued_control: BTreeSet<Ticket>,
    /// Those among the queued control requests that need no credit.
    queued_free: BTreeSet<Ticket>,
    /// Queued reads and writes.
    queued_data: BTreeMap<DataQueue, BTreeSet<Ticket>>,
    in_flight_requests: u32,
    in_flight_bytes: u64,
    /// By the names by which callers know them.
    handles: BTreeMap<HandleId, Handle>,
    /// Those names, by what the server calls the handles in the present session.
    names: BTreeMap<HandleId, HandleId>,
    /// Handles that the server could not give out, and when they are asked for again.
    resume_again: BTreeSet<(Time, HandleId)>,
    /// What is kept of each open that can come back.
    written: BTreeMap<OpenId, Written<P>>,
    /// What all of that is charged, in bytes.
    kept_bytes: u64,
    /// Opens with something kept to whose files others may write.
    shared_kept: usize,
    /// The one of them, if there is one, since whose oldest kept write no other open of this session has written to a
    /// file that might be the same.
    sole: Option<OpenId>,
    /// The open that is being synced because too much is kept.
    syncing: Option<OpenId>,
    /// The number of the last write that was acknowledged.
    next_write: u64,
    /// Counts the page caches that the server has had: writes that were acknowledged under another one may be lost.
    cache: u64,
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
    /// What the server grants.
    pub terms: Terms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    ComingBack(Return),
    Ended(SessionLoss),
}

/// Which reads and writes stand in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DataQueue {
    /// The set of lines that may carry them, as its bits.
    lines: u64,
    /// Whether they are kept once they are acknowledged, so that they wait while too much is.
    is_kept: bool,
}

/// Requests kept for control channels, so that reads and writes that wait for a lost line never keep a key from
/// being sent.
const REQUESTS_FOR_CONTROL: u32 = 8;
/// The part of the window of ids that is kept for control requests: one in so many.
const IDS_FOR_CONTROL: u64 = 16;
/// Lost channels of which the statistics are kept.
const HISTORY_MAX: usize = 64;

/// Bounds in force under a server's terms.
fn limits_under(own: &Limits, terms: &Terms) -> Limits {
    let mut limits = own.clone();
    limits.requests = limits.requests.min(terms.requests).max(REQUESTS_FOR_CONTROL + 1);
    limits.bytes = limits.bytes.min(terms.bytes);
    limits.chunk = limits.chunk.min(terms.payload_max).min(u32::try_from(limits.bytes).unwrap_or(u32::MAX));
    limits
}

impl<P: Payload> ClientCore<P> {
    /// A session that was just started on channel 0; its other channels are asked for in the first outputs.
    #[must_use]
    pub fn new(now: Time, setup: ClientSetup) -> Self {
        let mut core = Self {
            limits: limits_under(&setup.limits, &setup.terms),
            own_limits: setup.limits,
            lines: setup.lines,
            phase: Phase::Running,
            terms: setup.terms,
            started_at: now,
            short_lives: 0,
            has_served: false,
            is_reached: true,
            channels: BTreeMap::new(),
            history: VecDeque::new(),
            next_number: 1,
            links: BTreeMap::new(),
            asked_until: None,
            requests: BTreeMap::new(),
            next_ticket: 0,
            sent: BTreeMap::new(),
            next_request: RequestId::FIRST,
            is_held: false,
            waiting: BTreeMap::new(),
            unlocking: BTreeMap::new(),
            heard: 0,
            queued_control: BTreeSet::new(),
            queued_free: BTreeSet::new(),
            queued_data: BTreeMap::new(),
            in_flight_requests: 0,
            in_flight_bytes: 0,
            handles: BTreeMap::new(),
            names: BTreeMap::new(),
            resume_again: BTreeSet::new(),
            written: BTreeMap::new(),
            kept_bytes: 0,
            shared_kept: 0,
            sole: None,
            syncing: None,
            next_write: 0,
            cache: 0,
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
        match self.phase {
            Phase::Running => {
                let resume = self.resume_again.first().map(|(at, _)| *at);
                self.pulse_deadlines(now).chain(self.retry_deadlines()).chain(resume).min()
            }
            Phase::ComingBack(_) => self.return_deadline(),
            Phase::Ended(_) => None,
        }
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.try_to_return(now);
        if self.phase == Phase::Running {
            self.check_pulses(now);
            self.seek_channels(now);
            self.resume_due(now);
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
            Phase::Running | Phase::ComingBack(_) => None,
            Phase::Ended(loss) => Some(loss),
        }
    }

    fn end(&mut self, now: Time, loss: SessionLoss) {
        if self.loss().is_some() {
            return;
        }
        self.phase = Phase::Ended(loss);
        for number in self.channels.keys().copied().collect::<Vec<_>>() {
            self.outputs.push_back(ClientOutput::Disconnect { number });
            self.retire(now, number, crate::session::LossReason::SessionEnded);
        }
        self.fail_requests(&RequestError::Ended(loss));
        self.outputs.push_back(ClientOutput::Event(SessionEvent::Ended(loss)));
    }
}
