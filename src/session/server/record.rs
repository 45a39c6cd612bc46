//! What the server keeps of one session.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::output::{ConnectionId, ServerMessage};
use crate::model::{
    AttemptNonce, ChannelKind, ChannelNumber, HandleId, InstanceId, Limits, Locator, Protection, PublicKey,
    RequestId, SessionId, Time,
};
use crate::session::Window;
use crate::session::liveness::Liveness;
use crate::wire::control::BindSecret;
use crate::wire::notices::Notice;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The server's key that it began under.
    pub(super) server: PublicKey,
    pub(super) client: PublicKey,
    pub(super) instance: InstanceId,
    pub(super) process_id: u32,
    pub(super) locator: Locator,
    pub(super) secret: BindSecret,
    pub(super) channels: BTreeMap<ChannelNumber, ConnectionId>,
    pub(super) window: Window<ConnectionId, ServerMessage>,
    /// Notices that the client has not heard yet, oldest first.
    pub(super) notices: VecDeque<Notice>,
    /// The number of the next one.
    pub(super) next_notice: u64,
    /// The channel that carries them.
    pub(super) notices_on: Option<ConnectionId>,
    /// The last one that was sent on it.
    pub(super) notices_sent: u64,
    /// Whether its last channel said farewell: it is forgotten when nothing of it is left.
    pub(super) has_left: bool,
    /// When it was last heard of, on any channel.
    pub(super) heard: Time,
    /// When it was last heard of before it was away the last time.
    pub(super) heard_before_away: Option<Time>,
    /// Handles that it has come back to, by the requests of which it may not have the answers.
    pub(super) untold: BTreeMap<RequestId, HandleId>,
    /// Until when a session without channels and holders is kept.
    pub(super) away_until: Option<Time>,
    used: UsedNumbers,
    nonces: Nonces,
}

/// One channel, by its connection.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) session: SessionId,
    pub(super) number: ChannelNumber,
    pub(super) kind: ChannelKind,
    pub(super) protection: Protection,
    pub(super) liveness: Liveness,
    /// Pings that it has not answered.
    pub(super) pings: u32,
    /// Bytes of answers that its writer holds.
    pub(super) unwritten: u64,
    /// Answers that its writer holds.
    pub(super) unwritten_answers: u32,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        (server, client): (PublicKey, PublicKey),
        (instance, process_id): (InstanceId, u32),
        (locator, secret): (Locator, BindSecret),
        limits: &Limits,
    ) -> Self {
        Self {
            id,
            server,
            client,
            instance,
            process_id,
            locator,
            secret,
            channels: BTreeMap::new(),
            window: Window::new(limits.window),
            notices: VecDeque::new(),
            next_notice: 1,
            notices_on: None,
            notices_sent: 0,
            has_left: false,
            heard: Time(0),
            heard_before_away: None,
            untold: BTreeMap::new(),
            away_until: None,
            used: UsedNumbers::default(),
            nonces: Nonces::default(),
        }
    }

    /// Takes the nonce of an attempt; false if it was taken before.
    pub(super) fn take_nonce(&mut self, nonce: AttemptNonce) -> bool {
        self.nonces.take(nonce)
    }

    /// Whether a channel number is free.
    pub(super) fn is_free(&self, number: ChannelNumber) -> bool {
        !self.used.contains(number)
    }

    /// Uses a channel number up; false if it was used up before.
    pub(super) fn take_number(&mut self, number: ChannelNumber) -> bool {
        self.used.take(number)
    }
}

/// The channel numbers that are used up: all below a floor, and a few above it. A client counts upwards, so gaps
/// come of failed attempts only; beyond a bound the floor closes over the oldest gap.
#[derive(Debug, Default)]
struct UsedNumbers {
    /// One more than a number has bits for: the last number is used up like any other.
    floor: u64,
    above: BTreeSet<u32>,
}

impl UsedNumbers {
    const GAPS_MAX: usize = 1024;

    fn contains(&self, number: ChannelNumber) -> bool {
        u64::from(number.0) < self.floor || self.above.contains(&number.0)
    }

    fn take(&mut self, number: ChannelNumber) -> bool {
        if self.contains(number) {
            return false;
        }
        self.above.insert(number.0);
        while self.above.len() > Self::GAPS_MAX || self.first_above() == Some(self.floor) {
            if let Some(first) = self.above.pop_first() {
                self.floor = u64::from(first).saturating_add(1);
            }
        }
        true
    }

    fn first_above(&self) -> Option<u64> {
        self.above.first().map(|first| u64::from(*first))
    }
}

/// The nonces of attempts whose first message verified: only the client itself can fill this, and the oldest is
/// forgotten first. A replayed forgotten one still cannot make the record that puts a bind in force.
#[derive(Debug, Default)]
struct Nonces {
    known: HashSet<AttemptNonce>,
    order: VecDeque<AttemptNonce>,
}

impl Nonces {
    fn take(&mut self, nonce: AttemptNonce) -> bool {
        if !self.known.insert(nonce) {
            return false;
        }
        self.order.push_back(nonce);
        if self.order.len() > Limits::NONCES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_once_and_the_set_stays_small() {
        let mut used = UsedNumbers::default();
        for number in (0..10_000).step_by(2) {
            assert!(used.take(ChannelNumber(number)));
            assert!(!used.take(ChannelNumber(number)));
        }
        assert!(used.above.len() <= UsedNumbers::GAPS_MAX);
        assert!(used.contains(ChannelNumber(1)), "the floor closed over the oldest gaps");
        assert!(!used.contains(ChannelNumber(9_999)));
    }

    #[test]
    fn the_last_number_is_used_once_like_any_other() {
        let mut used = UsedNumbers::default();
        let last = u32::MAX - 2000;
        for number in (last..=u32::MAX).rev() {
            assert!(used.take(ChannelNumber(number)) || number < u32::MAX - 1023, "{number}");
        }
        for number in [0, last, u32::MAX - 1, u32::MAX] {
            assert!(used.contains(ChannelNumber(number)) && !used.take(ChannelNumber(number)), "{number}");
        }
    }

    #[test]
    fn nonces_are_taken_once_and_bounded() {
        let mut nonces = Nonces::default();
        for at in 0..=u16::try_from(Limits::NONCES_MAX).unwrap() {
            let mut nonce = [0; 16];
            nonce[..2].copy_from_slice(&at.to_le_bytes());
            assert!(nonces.take(AttemptNonce(nonce)));
            assert!(!nonces.take(AttemptNonce(nonce)));
        }
        assert_eq!(nonces.order.len(), Limits::NONCES_MAX);
        assert_eq!(nonces.known.len(), Limits::NONCES_MAX);
    }
}
