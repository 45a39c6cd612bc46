//! Networks that connections come from, their tokens, and what each holds half-open.
//!
//! The table is bounded. When it is full, a hand goes round it and looks at a few networks: one whose bucket is full
//! again is forgotten without a loss. If there is none, the fullest of those looked at makes room, and the newcomer
//! gets what was left in its bucket: so pushing others out makes no tokens, and whoever has spent least loses least.

use std::collections::HashMap;
use std::net::IpAddr;

use super::bucket::{Bucket, Rule};
use super::half_open::HalfOpenId;
use super::refusals::Told;
use crate::model::{Limits, Time};

/// A network as far as tokens are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// A /24 of IPv4, also of an address that is mapped into IPv6.
    V4([u8; 3]),
    /// A /64 of IPv6: what one customer or one link has.
    V6([u8; 8]),
}

impl Network {
    /// The network of an address.
    #[must_use]
    pub fn of(source: IpAddr) -> Self {
        match source.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl core::fmt::Display for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::V4([a, b, c]) => write!(f, "{}/24", std::net::Ipv4Addr::new(a, b, c, 0)),
            Self::V6([a, b, c, d, e, g, h, i]) => {
                let octets = [a, b, c, d, e, g, h, i, 0, 0, 0, 0, 0, 0, 0, 0];
                write!(f, "{}/64", std::net::Ipv6Addr::from(octets))
            }
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Networks {
    rule: Rule,
    enrolment_rule: Rule,
    entries: Vec<Entry>,
    places: HashMap<Network, usize>,
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    network: Network,
    bucket: Bucket,
    enrolments: Bucket,
    /// Short: a share of the cap at most.
    half_open: Vec<HalfOpenId>,
    told: Told,
}

/// How many networks are looked at for one that may be forgotten.
const LOOKS: usize = 8;

impl Networks {
    pub(super) fn new(rule: Rule, enrolment_rule: Rule) -> Self {
        Self {
            rule,
            enrolment_rule,
            entries: Vec::with_capacity(Limits::NETWORKS_MAX),
            // With so much room that a table in which names come and go never grows.
            places: HashMap::with_capacity(2 * Limits::NETWORKS_MAX),
            hand: 0,
        }
    }

    /// Where a network is; it gets a place if it has none.
    pub(super) fn place(&mut self, now: Time, network: Network) -> usize {
        if let Some(&at) = self.places.get(&network) {
            return at;
        }
        if self.entries.len() < Limits::NETWORKS_MAX {
            let at = self.entries.len();
            let (bucket, enrolments) = (Bucket::full(self.rule), Bucket::full(self.enrolment_rule));
            self.entries.push(Entry {
                network,
                bucket,
                enrolments,
                half_open: Vec::new(),
                told: Told::default(),
            });
            self.places.insert(network, at);
            return at;
        }
        let at = self.one_to_forget(now);
        if let Some(entry) = self.entries.get_mut(at) {
            self.places.remove(&entry.network);
            debug_assert!(entry.half_open.is_empty(), "what is half-open keeps its network's place");
            // The bucket stays: it is full, or the rest of it is what there is.
            entry.network = network;
            entry.told = Told::default();
            self.places.insert(network, at);
        }
        at
    }

    pub(super) fn take_token(&mut self, now: Time, at: usize) -> bool {
        let rule = self.rule;
        self.entries.get_mut(at).is_some_and(|entry| entry.bucket.take(now, rule))
    }

    /// Takes one of the network's own enrolments.
    pub(super) fn take_enrolment(&mut self, now: Time, at: usize) -> bool {
        let rule = self.enrolment_rule;
        self.entries.get_mut(at).is_some_and(|entry| entry.enrolments.take(now, rule))
    }

    pub(super) fn give_back(&mut self, now: Time, at: usize) {
        let rule = self.rule;
        if let Some(entry) = self.entries.get_mut(at) {
            entry.bucket.give_back(now, rule);
        }
    }

    pub(super) fn enter(&mut self, at: usize, id: HalfOpenId) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.half_open.push(id);
        }
    }

    pub(super) fn leave(&mut self, at: usize, id: HalfOpenId) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        if let Some(place) = entry.half_open.iter().position(|own| *own == id) {
            entry.half_open.swap_remove(place);
        }
        if entry.half_open.is_empty() {
            // The memory of a burst does not stay with each of thousands of networks.
            entry.half_open = Vec::new();
        }
    }

    pub(super) fn half_open(&self, at: usize) -> &[HalfOpenId] {
        self.entries.get(at).map(|entry| entry.half_open.as_slice()).unwrap_or_default()
    }

    /// What the log was told of a network.
    pub(super) fn told(&mut self, at: usize) -> Option<&mut Told> {
        self.entries.get_mut(at).map(|entry| &mut entry.told)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn tokens(&self, now: Time, network: Network) -> u32 {
        let entry = self.places.get(&network).and_then(|&at| self.entries.get(at));
        entry.map_or(self.rule.size, |entry| entry.bucket.tokens_at(now, self.rule))
    }

    /// One that has nothing half-open: its place would be lost to those. At most [`Limits::HALF_OPEN_MAX`] have, which
    /// is less than the table holds, so the hand finds one.
    fn one_to_forget(&mut self, now: Time) -> usize {
        let mut fullest: Option<(u64, usize)> = None;
        let mut looks = 0;
        for _ in 0..Limits::HALF_OPEN_MAX.saturating_add(LOOKS) {
            let at = self.hand;
            self.hand = at.saturating_add(1);
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let Some(entry) = self.entries.get(at).filter(|entry| entry.half_open.is_empty()) else {
                continue;
            };
            if entry.bucket.is_full(now, self.rule) {
                return at;
            }
            let level = entry.bucket.level_at(now, self.rule);
            if fullest.is_none_or(|(most, _)| level > most) {
                fullest = Some((level, at));
            }
            looks += 1;
            if looks == LOOKS {
                break;
            }
        }
        fullest.map_or(self.hand, |(_, at)| at)
    }
}
