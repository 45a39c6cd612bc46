//! Orphans: how long they keep contenders out, how long they stay when nobody wants them, and how many there may be.
//!
//! An orphan whose grace is over has *lapsed*. It keeps nobody out any more: whoever conflicts with it breaks it. Nobody
//! does, and it stays, so that its owner can still come back to it; up to a number for each client and for all, and up
//! to an age. Within its grace an orphan is never given up for a bound: the bound on opens is what limits those.

use core::time::Duration;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::ended::Tombstone;
use super::events::{OpenEnd, TableEvent};
use super::open::Presence;
use super::table::OpenTable;
use crate::model::planted::{self, Bug};
use crate::model::{Ending, FileIdentity, Limits, OpenId, PublicKey, Reason, Refusal, SessionId, Time};

/// The orphans whose grace is known to be over, in the order in which it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Lapsed {
    all: BTreeSet<(Time, OpenId)>,
    by_owner: HashMap<PublicKey, BTreeSet<(Time, OpenId)>>,
}

/// How many lapsed orphans stay, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct LapsedBounds {
    pub(super) per_client: usize,
    pub(super) total: usize,
    pub(super) age: Duration,
}

impl From<&Limits> for LapsedBounds {
    fn from(limits: &Limits) -> Self {
        Self { per_client: limits.lapsed_per_client, total: limits.lapsed_total, age: limits.orphan_age_max }
    }
}

impl Lapsed {
    fn insert(&mut self, owner: PublicKey, place: (Time, OpenId)) {
        self.all.insert(place);
        self.by_owner.entry(owner).or_default().insert(place);
    }

    pub(super) fn remove(&mut self, owner: PublicKey, place: (Time, OpenId)) {
        self.all.remove(&place);
        if let Entry::Occupied(mut places) = self.by_owner.entry(owner) {
            places.get_mut().remove(&place);
            if places.get().is_empty() {
                places.remove();
            }
        }
    }

    pub(super) fn contains(&self, place: (Time, OpenId)) -> bool {
        self.all.contains(&place)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Since when the oldest one has lapsed.
    pub(super) fn first(&self) -> Option<(Time, OpenId)> {
        self.all.first().copied()
    }

    fn oldest_of(&self, owner: &PublicKey) -> Option<OpenId> {
        self.by_owner.get(owner).and_then(BTreeSet::first).map(|(_, id)| *id)
    }

    /// One that has to go: the oldest of whoever has most.
    fn excess(&self, bounds: &LapsedBounds, newcomer: &PublicKey) -> Option<OpenId> {
        if self.by_owner.get(newcomer).is_some_and(|places| places.len() > bounds.per_client) {
            return self.oldest_of(newcomer);
        }
        if self.all.len() <= bounds.total {
            return None;
        }
        let (biggest, _) = self.by_owner.iter().max_by_key(|(owner, places)| (places.len(), owner.0))?;
        self.oldest_of(biggest)
    }
}

impl OpenTable {
    /// Ends every waiting lock whose time is over, and lets orphans lapse whose grace is over: who waits for a lock of
    /// one gets it, and the orphan is closed for that. Closes those that have lapsed too long ago, and those that
    /// cannot be resumed. Ends the grants whose time is over, and forgets what is left of opens that ended too long ago. What
    /// still executes is waited for.
    pub fn expire(&mut self, now: Time) {
        self.end_overdue(now);
        self.end_grants(now);
        while let Some(place) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.on_grace_over(place);
        }
        let age = self.lapsed_bounds.age;
        while let Some((_, id)) = self.lapsed.first().filter(|(since, _)| since.after(age) <= now) {
            self.end_absent(id, OpenEnd::Expired);
        }
        self.tombstones.expire(now, self.tombstone_bounds);
        self.finish();
    }

    /// Ends an open for good, whoever holds it, live or not: every holder of it stops, its resume keys die, its owner is
    /// told when it asks, and it is gone when nothing of it is executing. One that is ending already goes on to end.
    /// `false`: there is no such open.
    pub fn release(&mut self, now: Time, open: OpenId) -> bool {
        self.end_overdue(now);
        let is_there = self.opens.contains_key(&open);
        self.end_absent(open, OpenEnd::Released);
        self.finish();
        is_there
    }

    /// How many orphans have lapsed, as far as [`OpenTable::expire`] was called.
    #[must_use]
    pub fn lapsed_len(&self) -> usize {
        self.lapsed.len()
    }

    /// How many opens are remembered that ended under their absent owners.
    #[must_use]
    pub fn tombstones_len(&self) -> usize {
        self.tombstones.len()
    }

    fn on_grace_over(&mut self, place: (Time, OpenId)) {
        self.deadlines.remove(&place);
        let (_, id) = place;
        let Some(open) = self.opens.get(&id) else { return };
        if !open.resumable {
            // Only its session could come back, and that has had its time.
            self.end_absent(id, OpenEnd::Expired);
            return;
        }
        let (owner, file) = (open.owner, open.file);
        self.lapsed.insert(owner, place);
        if let Some(locks) = self.locks.get_mut(&file) {
            locks.set_lapsed(id, true);
            self.freed.push(file);
            self.serve_waiters();
        }
        while let Some(excess) = self.lapsed.excess(&self.lapsed_bounds, &owner) {
            self.end_absent(excess, OpenEnd::Evicted);
        }
    }

    /// An open of an identity that can best be spared: the orphan whose grace has been over for longest.
    pub(super) fn spare(&self, now: Time, owner: &PublicKey) -> Option<OpenId> {
        self.lapsed.oldest_of(owner).or_else(|| {
            // The timer may be late.
            let over = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
            let mut own = over.filter(|(_, id)| self.opens.get(id).is_some_and(|open| open.owner == *owner));
            own.next().map(|(_, id)| *id)
        })
    }

    /// Makes room for one more open of an identity that has all that it may have, if one of them can be spared.
    ///
    /// # Errors
    /// [`crate::model::Reason::Busy`] while that one still executes, [`crate::model::Reason::Quota`] if there is none.
    pub(super) fn make_room(&mut self, now: Time, owner: &PublicKey) -> Result<(), Refusal> {
        if self.is_below_quota(owner) {
            return Ok(());
        }
        let spare = self.spare(now, owner).ok_or(Reason::Quota)?;
        self.stop_open(spare, OpenEnd::Evicted)
    }

    /// Stops every holder of an open whose owner is not there to see it, and keeps a tombstone. What is executing goes
    /// on.
    pub(super) fn end_absent(&mut self, id: OpenId, why: OpenEnd) {
        // It is Closing then if something of it is executing, and ends by itself.
        let _still_executing = self.stop_open(id, why);
    }

    /// Stops every holder of an open for a reason that its owner is to hear. `Err` says that it is still executing and
    /// when to ask again.
    pub(super) fn stop_open(&mut self, id: OpenId, why: OpenEnd) -> Result<(), Refusal> {
        let ending = why.ending();
        self.bury(id, ending);
        // They end with the open, of which their holders hear otherwise.
        self.forget_grants(id);
        let Some(open) = self.opens.get(&id) else { return Ok(()) };
        let (owner, handles) = (open.owner, open.holders.clone());
        // One that is ending is told of once, however often it is wanted meanwhile.
        if handles.iter().any(|handle| self.holders.get(handle).is_some_and(|holder| !holder.is_draining())) {
            self.events.push_back(TableEvent::Ended { open: id, owner, why });
        }
        for handle in handles {
            if let Some(holder) = self.holders.get(&handle).filter(|holder| !holder.is_draining()) {
                let session = holder.session;
                self.events.push_back(TableEvent::OpenEnded { session, handle, ending });
            }
            self.stop_holder(handle);
        }
        if self.opens.contains_key(&id) { Err(Refusal::busy(Self::DRAIN_RETRY)) } else { Ok(()) }
    }

    /// Keeps what is left of an open, if it has keys with which somebody can ask.
    pub(super) fn bury(&mut self, id: OpenId, ending: Ending) {
        let Some(open) = self.opens.get(&id) else { return };
        let tombstone = Tombstone::new(open, (ending, self.tombstones.now()), self.keys_per_open);
        if tombstone.keys.is_empty() {
            return;
        }
        self.tombstones.insert(id, tombstone, self.tombstone_bounds);
    }

    /// How long guarded orphans keep a newcomer out of a file, if any does. `except`: a session whose own ones do not.
    pub(super) fn guard_left(
        &self,
        now: Time,
        file: FileIdentity,
        except: Option<SessionId>,
    ) -> Result<(), Refusal> {
        let guarded = self.guards.get(&file).into_iter().flatten();
        let guarded = guarded.filter(|_| !planted::is(Bug::GuardIgnored));
        let others = guarded.filter(|id| except.is_none_or(|session| !self.has_part(session, **id)));
        let left = others.filter_map(|id| match self.opens.get(id)?.presence(now) {
            Presence::Grace(left) => Some(left),
            Presence::Held | Presence::Over | Presence::Closing => None,
        });
        left.max().map_or(Ok(()), |left| Err(Refusal::busy(left)))
    }
}
