//! The client's channels: which are wanted, how a lost one comes back, when one is dead.

use core::time::Duration;
use std::collections::BTreeSet;

use super::output::{
    ChannelState, ChannelStatus, ClientOutput, ConnectFailure, SessionEvent, Ticket, ToServer,
};
use super::pace::Pace;
use super::{ClientCore, HISTORY_MAX, Phase};
use crate::model::{ChannelKind, ChannelNumber, LineId, Protection, RequestId, Time};
use crate::session::{Liveness, LossReason, Payload, Pulse};
use crate::wire::data::{Farewell, Ping, Pong};
use crate::wire::{ClientControl, ClientData};

/// A channel that is live or being bound.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) status: ChannelStatus,
    pub(super) liveness: Liveness,
    /// Reads and writes under way on it, in bytes.
    pub(super) in_flight_bytes: u64,
    /// How many of them there may be.
    pub(super) pace: Pace,
    /// Requests under way on it.
    pub(super) in_flight: BTreeSet<Ticket>,
    /// The last request that it took.
    pub(super) last: Option<Ticket>,
    pub(super) busy_since: Option<Time>,
}

/// The place of a channel of one kind on one line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    /// The channel that is live or being bound.
    pub(super) taken: Option<ChannelNumber>,
    /// When the next attempt may start.
    pub(super) retry_at: Time,
    /// Attempts that failed in a row.
    pub(super) failures: u32,
}

impl Channel {
    fn new(
        now: Time,
        number: ChannelNumber,
        line: LineId,
        (kind, protection): (ChannelKind, Protection),
    ) -> Self {
        let status = ChannelStatus {
            number,
            line,
            kind,
            offered: protection,
            protection,
            state: ChannelState::Connecting,
            read_bytes: 0,
            written_bytes: 0,
            requests: 0,
            repeats: 0,
            busy: Duration::ZERO,
        };
        Self {
            status,
            liveness: Liveness::new(now),
            in_flight_bytes: 0,
            pace: Pace::new(now),
            in_flight: BTreeSet::new(),
            last: None,
            busy_since: None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.status.state == ChannelState::Live
    }
}

impl<P: Payload> ClientCore<P> {
    /// A channel that was asked for is bound, with this protection.
    pub fn handle_bound(&mut self, now: Time, number: ChannelNumber, protection: Protection) {
        let Some(channel) = self.channels.get_mut(&number) else {
            self.outputs.push_back(ClientOutput::Disconnect { number });
            return;
        };
        channel.status.state = ChannelState::Live;
        channel.status.protection = protection;
        channel.liveness = Liveness::new(now);
        let (line, kind) = (channel.status.line, channel.status.kind);
        self.links.entry((line, kind)).or_default().failures = 0;
        self.outputs.push_back(ClientOutput::Event(SessionEvent::ChannelUp { number, line, kind }));
        self.note_reached();
        self.pull(now);
    }

    /// A channel that was asked for could not be bound.
    pub fn handle_connect_failed(&mut self, now: Time, number: ChannelNumber, failure: ConnectFailure) {
        // What is reported late of a session that is gone concerns no channel.
        let Some(channel) = self.channels.remove(&number) else { return };
        let line = channel.status.line;
        let retry_in = self.free_link(now, line, channel.status.kind);
        self.outputs.push_back(ClientOutput::Event(SessionEvent::LineFailed { line, failure, retry_in }));
        // A refusal proves nothing. Only where no channel speaks for the session is it worth a question, and the line
        // that was refused is the one that is known to reach the server.
        let may_ask =
            self.lines.get(usize::from(line.0)).is_some_and(|line| line.role.carries(ChannelKind::Control));
        let is_reached = self.channels.values().any(Channel::is_live);
        if failure == ConnectFailure::Refused
            && may_ask
            && !is_reached
            && self.asked_until.is_none_or(|until| now >= until)
        {
            self.asked_until = Some(now.after(self.limits.handshake));
            self.outputs.push_back(ClientOutput::Ask { line });
        }
        self.seek_channels(now);
    }

    /// The server has answered whether the session lives; `None`: it could not be asked.
    pub fn handle_asked(&mut self, now: Time, lives: Option<bool>) {
        self.asked_until = Some(now.after(self.limits.rebind_max));
        if lives == Some(false) {
            self.come_back(now);
        }
    }

    /// A channel's connection is gone, or is to be closed by the shell, which has found a record that does not
    /// verify. What was under way on it is queued again under its ids.
    pub fn handle_lost(&mut self, now: Time, number: ChannelNumber, reason: LossReason) {
        if self.phase == Phase::Running {
            self.retire(now, number, reason);
            self.seek_channels(now);
            self.pull(now);
        }
    }

    /// The transport of a channel has delivered `bytes` bytes since it began.
    pub fn handle_progress(&mut self, now: Time, number: ChannelNumber, bytes: u64) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.liveness.on_progress(now, bytes);
        }
    }

    pub(super) fn adopt_first(&mut self, now: Time, line: LineId) {
        let number = ChannelNumber(0);
        let kind = ChannelKind::Control;
        let mut channel = Channel::new(now, number, line, (kind, Protection::Sealed));
        channel.status.state = ChannelState::Live;
        self.channels.insert(number, channel);
        self.links.entry((line, kind)).or_default().taken = Some(number);
        self.outputs.push_back(ClientOutput::Event(SessionEvent::ChannelUp { number, line, kind }));
        self.note_reached();
    }

    /// Asks for the channels that are wanted and missing: one for data on every line that may carry one, and
    /// control channels on two lines, so that losing a line never loses the way to send a key.
    pub(super) fn seek_channels(&mut self, now: Time) {
        for (line, protection) in self.lines_for(ChannelKind::Data) {
            self.connect(now, line, (ChannelKind::Data, protection));
        }
        let mut missing = CONTROL_WANTED.saturating_sub(self.count(ChannelKind::Control));
        let mut candidates = self.lines_for(ChannelKind::Control);
        candidates.sort_by_key(|&(line, _)| self.link(line, ChannelKind::Control).failures);
        for (line, _) in candidates {
            if missing > 0 && self.connect(now, line, (ChannelKind::Control, Protection::Sealed)) {
                missing -= 1;
            }
        }
    }

    /// Takes a channel out of use and queues what was under way on it.
    pub(super) fn retire(&mut self, now: Time, number: ChannelNumber, reason: LossReason) {
        let Some(mut channel) = self.channels.remove(&number) else { return };
        self.requeue(&channel);
        channel.status.state = ChannelState::Lost(reason);
        self.free_link(now, channel.status.line, channel.status.kind);
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(channel.status);
        let ChannelStatus { line, kind, .. } = channel.status;
        self.outputs.push_back(ClientOutput::Event(SessionEvent::ChannelDown { number, line, kind, reason }));
        let is_over = matches!(self.phase, Phase::Ended(_));
        if self.is_reached && !is_over && !self.channels.values().any(Channel::is_live) {
            self.is_reached = false;
            self.outputs.push_back(ClientOutput::Event(SessionEvent::Lost));
        }
    }

    /// A channel is live.
    fn note_reached(&mut self) {
        if !core::mem::replace(&mut self.is_reached, true) {
            let epoch = self.terms.epoch;
            self.outputs.push_back(ClientOutput::Event(SessionEvent::Returned { epoch }));
        }
    }

    /// Gives up a channel from this side.
    pub(super) fn drop_channel(&mut self, now: Time, number: ChannelNumber, reason: LossReason) {
        self.outputs.push_back(ClientOutput::Disconnect { number });
        self.handle_lost(now, number, reason);
    }

    pub(super) fn say_farewell(&mut self) {
        self.send_all(|kind| match kind {
            ChannelKind::Control => ToServer::Control(ClientControl::Farewell(Farewell {})),
            ChannelKind::Data => ToServer::Data(ClientData::Farewell(Farewell {})),
        });
    }

    pub(super) fn on_ping(&mut self, number: ChannelNumber, kind: ChannelKind) {
        let message = match kind {
            ChannelKind::Control => ToServer::Control(ClientControl::Pong(Pong {})),
            ChannelKind::Data => ToServer::Data(ClientData::Pong(Pong {})),
        };
        self.send(number, NO_REQUEST, message, None);
    }

    pub(super) fn check_pulses(&mut self, now: Time) {
        let mut pings = Vec::new();
        let mut dead = Vec::new();
        for (&number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.is_live()) {
            match channel.liveness.pulse(now, !channel.in_flight.is_empty(), &self.limits) {
                Pulse::Wait(_) => {}
                Pulse::Ping => {
                    channel.liveness.on_pinged(now);
                    pings.push((number, channel.status.kind));
                }
                Pulse::Dead => dead.push(number),
            }
        }
        for (number, kind) in pings {
            let message = match kind {
                ChannelKind::Control => ToServer::Control(ClientControl::Ping(Ping {})),
                ChannelKind::Data => ToServer::Data(ClientData::Ping(Ping {})),
            };
            self.send(number, NO_REQUEST, message, None);
        }
        for number in dead {
            self.drop_channel(now, number, LossReason::Silent);
        }
    }

    pub(super) fn pulse_deadlines(&self, now: Time) -> impl Iterator<Item = Time> {
        self.channels.values().filter(|channel| channel.is_live()).map(move |channel| {
            match channel.liveness.pulse(now, !channel.in_flight.is_empty(), &self.limits) {
                Pulse::Wait(until) => until,
                Pulse::Ping | Pulse::Dead => now,
            }
        })
    }

    pub(super) fn retry_deadlines(&self) -> impl Iterator<Item = Time> {
        let has_controls = self.count(ChannelKind::Control) >= CONTROL_WANTED;
        let is_wanted = move |kind| kind == ChannelKind::Data || !has_controls;
        self.links
            .iter()
            .filter(move |((_, kind), link)| link.taken.is_none() && is_wanted(*kind))
            .map(|(_, link)| link.retry_at)
    }

    fn send_all(&mut self, message: impl Fn(ChannelKind) -> ToServer) {
        let live: Vec<_> = self
            .channels
            .values()
            .filter(|channel| channel.is_live())
            .map(|channel| (channel.status.number, channel.status.kind))
            .collect();
        for (number, kind) in live {
            self.send(number, NO_REQUEST, message(kind), None);
        }
    }

    pub(super) fn lines_for(&self, kind: ChannelKind) -> Vec<(LineId, Protection)> {
        let ids = (0..=u8::MAX).map(LineId);
        ids.zip(&self.lines)
            .filter(|(_, line)| line.role.carries(kind))
            .map(|(id, line)| (id, line.protection))
            .collect()
    }

    fn count(&self, kind: ChannelKind) -> usize {
        self.channels.values().filter(|channel| channel.status.kind == kind).count()
    }

    fn link(&self, line: LineId, kind: ChannelKind) -> Link {
        self.links.get(&(line, kind)).copied().unwrap_or_default()
    }

    /// Asks for a channel where none is and none failed just now.
    fn connect(&mut self, now: Time, line: LineId, (kind, protection): (ChannelKind, Protection)) -> bool {
        let link = self.link(line, kind);
        if link.taken.is_some() || link.retry_at > now {
            return false;
        }
        let number = ChannelNumber(self.next_number);
        self.next_number = self.next_number.saturating_add(1);
        self.channels.insert(number, Channel::new(now, number, line, (kind, protection)));
        self.links.entry((line, kind)).or_default().taken = Some(number);
        self.outputs.push_back(ClientOutput::Connect { number, line, kind, protection });
        true
    }

    /// Empties a channel's place, and tells how long it stays empty: twice as long after each failure in a row.
    fn free_link(&mut self, now: Time, line: LineId, kind: ChannelKind) -> Duration {
        let link = self.links.entry((line, kind)).or_default();
        link.taken = None;
        let doubled = 1_u32.checked_shl(link.failures).unwrap_or(u32::MAX);
        link.failures = link.failures.saturating_add(1);
        let wait = self.limits.rebind_min.saturating_mul(doubled).min(self.limits.rebind_max);
        link.retry_at = now.after(wait);
        wait
    }
}

/// Control channels that are wanted: one in use and one spare on another line.
const CONTROL_WANTED: usize = 2;
/// What goes with records that are no requests.
const NO_REQUEST: (Option<Ticket>, RequestId) = (None, RequestId::NONE);
