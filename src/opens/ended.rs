//! Tombstones: what is kept of an open that ended under its absent owner, so that the owner hears why when it comes
//! back with a key.
//!
//! A tombstone has the file id, the hashes of the keys, whose they are, and why the open ended; no path. It has no more
//! keys than an owner can have; those of grants come behind the owner's own. There is a bound for each client and for all, and
//! one in time; beyond them the oldest goes, and its owner hears what everybody else hears.

use core::time::Duration;
use std::collections::{BTreeSet, HashMap};

use super::keys::KeyHash;
use super::open::Open;
use crate::model::{Ending, Limits, OpenId, PublicKey, Time};

/// What is left of an open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tombstone {
    pub(super) owner: PublicKey,
    pub(super) keys: Vec<EndedKey>,
    pub(super) ending: Ending,
    /// When the open ended.
    pub(super) ended: Time,
}

/// What is left of a resume key.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedKey {
    pub(super) generation: u32,
    pub(super) hash: KeyHash,
    /// Whose it is if not the owner's.
    pub(super) bearer: Option<PublicKey>,
}

impl PartialEq for EndedKey {
    fn eq(&self, other: &Self) -> bool {
        self.generation == other.generation
            && bool::from(self.hash.ct_eq(&other.hash))
            && self.bearer == other.bearer
    }
}

impl Eq for EndedKey {}

/// All tombstones, within their bounds.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    by_open: HashMap<OpenId, (u64, Tombstone)>,
    /// In the order in which they came.
    order: BTreeSet<(u64, OpenId)>,
    by_owner: HashMap<PublicKey, BTreeSet<(u64, OpenId)>>,
    next: u64,
    /// The latest time that the table was told: calls that tell none can end opens too.
    now: Time,
    /// Those that came or went since somebody asked.
    changed: BTreeSet<OpenId>,
}

/// How many there may be, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct TombstoneBounds {
    pub(super) per_client: usize,
    pub(super) total: usize,
    pub(super) age: Duration,
}

impl From<&Limits> for TombstoneBounds {
    fn from(limits: &Limits) -> Self {
        let (per_client, total) = (limits.tombstones_per_client, limits.tombstones_total);
        Self { per_client, total, age: limits.tombstone_age_max }
    }
}

impl Tombstones {
    /// Time has come to `now`.
    pub(super) fn note_time(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Puts one in; beyond the bounds the oldest one goes, of its owner or of all.
    pub(super) fn insert(&mut self, open: OpenId, tombstone: Tombstone, bounds: TombstoneBounds) {
        self.next = self.next.saturating_add(1);
        self.changed.insert(open);
        self.insert_at((self.next, open), tombstone, bounds);
    }

    /// Puts one back in at the place that it had. `is_stored`: the store has it as it is.
    pub(super) fn restore(
        &mut self,
        (order, open): (u64, OpenId),
        tombstone: Tombstone,
        bounds: TombstoneBounds,
        is_stored: bool,
    ) {
        self.next = self.next.max(order);
        if !is_stored {
            self.changed.insert(open);
        }
        self.insert_at((order, open), tombstone, bounds);
    }

    fn insert_at(&mut self, place: (u64, OpenId), tombstone: Tombstone, bounds: TombstoneBounds) {
        let ((order, open), owner) = (place, tombstone.owner);
        self.remove(open);
        self.order.insert(place);
        self.by_owner.entry(owner).or_default().insert(place);
        self.by_open.insert(open, (order, tombstone));
        let of_owner = |all: &Self| all.by_owner.get(&owner).map_or(0, BTreeSet::len);
        while of_owner(self) > bounds.per_client {
            let Some(&(_, oldest)) = self.by_owner.get(&owner).and_then(BTreeSet::first) else { break };
            self.remove(oldest);
        }
        while self.order.len() > bounds.total {
            let Some(&(_, oldest)) = self.order.first() else { break };
            self.remove(oldest);
        }
    }

    pub(super) fn remove(&mut self, open: OpenId) {
        let Some((at, tombstone)) = self.by_open.remove(&open) else { return };
        self.order.remove(&(at, open));
        if let Some(places) = self.by_owner.get_mut(&tombstone.owner) {
            places.remove(&(at, open));
            if places.is_empty() {
                self.by_owner.remove(&tombstone.owner);
            }
        }
        self.changed.insert(open);
    }

    /// Drops those that ended too long ago.
    pub(super) fn expire(&mut self, now: Time, bounds: TombstoneBounds) {
        while let Some((_, oldest)) = self.first_end(bounds).filter(|(end, _)| *end <= now) {
            self.remove(oldest);
        }
    }

    /// Until when the oldest one is remembered. None that came later goes before it.
    pub(super) fn first_end(&self, bounds: TombstoneBounds) -> Option<(Time, OpenId)> {
        let &(_, oldest) = self.order.first()?;
        Some((self.by_open.get(&oldest)?.1.end(bounds), oldest))
    }

    /// What is left of an open at `now`, whether the sweeper has come or not.
    pub(super) fn find_at(&self, now: Time, open: OpenId, bounds: TombstoneBounds) -> Option<&Tombstone> {
        self.find(open).map(|(_, tombstone)| tombstone).filter(|tombstone| now < tombstone.end(bounds))
    }

    /// What is left of an open, and its place in the order.
    pub(super) fn find(&self, open: OpenId) -> Option<(u64, &Tombstone)> {
        self.by_open.get(&open).map(|(order, tombstone)| (*order, tombstone))
    }

    pub(super) fn len(&self) -> usize {
        self.by_open.len()
    }

    /// What there is of an open that ended has to be stored once more.
    pub(super) fn store_again(&mut self, open: OpenId) {
        if self.by_open.contains_key(&open) {
            self.changed.insert(open);
        }
    }

    /// Whatever there is of it has to be stored.
    pub(super) fn touch(&mut self, open: OpenId) {
        self.changed.insert(open);
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Those that came or went since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<OpenId> {
        core::mem::take(&mut self.changed)
    }

    /// Asserts that the indexes agree.
    pub(super) fn check(&self) {
        assert_eq!(self.order.len(), self.by_open.len(), "the order of tombstones");
        assert_eq!(self.by_owner.values().map(BTreeSet::len).sum::<usize>(), self.by_open.len(), "by owner");
    }
}

impl Tombstone {
    pub(super) fn new(open: &Open, (ending, ended): (Ending, Time), keys_max: usize) -> Self {
        let of_owner = open.keys.of(None).map(|record| (record.image(), None));
        let of_grants = open.grants().live().flat_map(|grant| {
            let keys = open.keys.of(Some(grant.id)).map(super::keys::KeyRecord::image);
            keys.chain(grant.key).map(|image| (image, Some(grant.to)))
        });
        let left = |(image, bearer): (super::keys::KeyImage, Option<PublicKey>)| EndedKey {
            generation: image.generation,
            hash: image.hash,
            bearer,
        };
        let keys = of_owner.chain(of_grants).take(keys_max.max(1)).map(left).collect();
        Self { owner: open.owner, keys, ending, ended }
    }

    /// Until when it is remembered.
    fn end(&self, bounds: TombstoneBounds) -> Time {
        self.ended.after(bounds.age)
    }

    pub(super) fn key(&self, generation: u32) -> Option<&EndedKey> {
        self.keys.iter().find(|key| key.generation == generation)
    }
}
