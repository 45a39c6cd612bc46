//! The byte-range locks of one file: who has what, who waits, and whose turn it is.
//!
//! Locks are POSIX record locks whose owner is the *open*: within one owner a new lock replaces what it overlaps;
//! between owners a shared lock excludes exclusive ones and an exclusive lock excludes all.
//!
//! Waiters are served in the order of their *turns*. A request goes behind an earlier waiter of another owner
//! that it would conflict with, so that a stream of readers cannot starve a writer. One kind of request looks at
//! held locks only: that whose every byte its own open has locked already. Whoever waits there waits for that
//! open, so going behind them would be a deadlock.
//!
//! Each waiter knows one *obstacle*: an owner with a lock, or an earlier waiter, that keeps it out. Nobody looks
//! at it again before its obstacle goes: a thousand waiters for one byte form a chain, and an unlock wakes one.
//! What was woken and not yet looked at again is *stirred*; [`FileLocks::next_ready`] looks at it, lowest turn
//! first, so that the result is the same as if all waiters were looked at in order again and again.

use std::collections::{BTreeMap, BTreeSet};

use super::queued::WaitIndex;
use super::ranges::{Lock, Pieces, RangeIndex, Splice};
use crate::model::{ByteRange, LockMode, OpenId, RequestId, SessionId};

/// The place of a waiter in the queue of its file; lower comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Turn(pub(super) u64);

impl Turn {
    /// Behind every waiter.
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// A request that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiter {
    pub(super) owner: OpenId,
    pub(super) session: SessionId,
    pub(super) request: RequestId,
    pub(super) range: ByteRange,
    pub(super) mode: LockMode,
}

/// Why a request cannot have its lock yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// Another open has a lock that excludes it.
    Held(OpenId),
    /// An earlier waiter is to have such a lock.
    Before(Turn),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Queued {
    waiter: Waiter,
    /// None while it is stirred.
    obstacle: Option<Obstacle>,
    /// The waiters whose obstacle it is.
    blocks: BTreeSet<Turn>,
}

impl Queued {
    fn is_behind(&self) -> bool {
        matches!(self.obstacle, Some(Obstacle::Before(_)))
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Owner {
    pieces: Pieces,
    /// How many waiters are its own.
    waits: usize,
    /// Those of them whose obstacle is an earlier waiter: with more bytes of its own, one of them may pass it.
    behind: BTreeSet<Turn>,
    /// The waiters whose obstacle its locks are.
    blocks: BTreeSet<Turn>,
    /// Whether it is an orphan whose grace is over: its locks go as soon as they are all that keeps somebody out.
    is_lapsed: bool,
}

/// The locks of one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FileLocks {
    owners: BTreeMap<OpenId, Owner>,
    shared: RangeIndex,
    exclusive: RangeIndex,
    queue: BTreeMap<Turn, Queued>,
    /// The queue by what they wait for.
    waiting_shared: WaitIndex,
    waiting_exclusive: WaitIndex,
    stirred: BTreeSet<Turn>,
    /// Waiters that nothing but lapsed orphans keeps out, until somebody asks.
    pressing: Vec<Turn>,
}

impl FileLocks {
    /// Carries out what [`FileLocks::splice`] said for the same owner and range.
    pub(super) fn apply(&mut self, id: OpenId, range: ByteRange, splice: &Splice) {
        let owner = self.owners.entry(id).or_default();
        owner.pieces.apply(splice);
        let passing = splice.gains().then_some(&owner.behind);
        let let_in = splice.frees().then_some(&owner.blocks);
        let woken: Vec<Turn> = passing.into_iter().chain(let_in).flatten().copied().collect();
        splice.out().for_each(|(piece, mode)| self.index(mode).remove(piece, id));
        splice.into().for_each(|(piece, mode)| self.index(mode).insert(piece, id));
        self.stir(woken, |waiter| waiter.range.overlaps(range));
        self.forget_if_idle(id);
    }

    /// Puts a request into the queue. Its turn is later than all others, and `obstacle` keeps it out.
    pub(super) fn enqueue(&mut self, turn: Turn, waiter: Waiter, obstacle: Obstacle) {
        self.owners.entry(waiter.owner).or_default().waits += 1;
        self.waiting(waiter.mode).insert(waiter.range, turn, waiter.owner);
        self.queue.insert(turn, Queued { waiter, obstacle: None, blocks: BTreeSet::new() });
        self.attach(turn, obstacle);
    }

    /// Takes a waiter out of the queue, and wakes those behind it.
    pub(super) fn leave(&mut self, turn: Turn) -> Option<Waiter> {
        self.detach(turn);
        self.stirred.remove(&turn);
        let queued = self.queue.remove(&turn)?;
        self.waiting(queued.waiter.mode).remove(queued.waiter.range, turn);
        self.stir(queued.blocks, |_| true);
        let id = queued.waiter.owner;
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.waits = owner.waits.saturating_sub(1);
        }
        self.forget_if_idle(id);
        Some(queued.waiter)
    }

    /// Takes everything that an owner has locked; its waiters have left before. Says how many ranges those were.
    pub(super) fn unlock_all(&mut self, id: OpenId) -> usize {
        let Some(owner) = self.owners.get_mut(&id) else { return 0 };
        debug_assert!(owner.waits == 0, "{id:?} ends and still waits");
        let (pieces, blocks) = (core::mem::take(&mut owner.pieces), owner.blocks.clone());
        pieces.iter().for_each(|(piece, mode)| self.index(mode).remove(piece, id));
        self.stir(blocks, |_| true);
        self.forget_if_idle(id);
        pieces.len()
    }

    /// The first waiter that nothing keeps out any more; it is to leave, with its lock or without. `None`: all
    /// who are left have to wait.
    pub(super) fn next_ready(&mut self) -> Option<(Turn, Waiter)> {
        while let Some(turn) = self.stirred.pop_first() {
            let Some(waiter) = self.queue.get(&turn).map(|queued| queued.waiter) else { continue };
            // Locks first, as they are what most wait for. Those who come in go behind the last waiter instead,
            // and so form a chain.
            let obstacle = self
                .obstacle_held(&waiter)
                .or_else(|| self.obstacle_before(turn, waiter.owner, waiter.range, waiter.mode));
            match obstacle {
                Some(obstacle) => {
                    self.attach(turn, obstacle);
                    if matches!(obstacle, Obstacle::Held(id) if self.is_lapsed(id)) {
                        self.pressing.push(turn);
                    }
                }
                None => return Some((turn, waiter)),
            }
        }
        None
    }

    /// Says of an owner whether it is an orphan whose grace is over; those who wait for it are looked at again then.
    pub(super) fn set_lapsed(&mut self, id: OpenId, is_lapsed: bool) {
        let Some(owner) = self.owners.get_mut(&id) else { return };
        owner.is_lapsed = is_lapsed;
        if is_lapsed {
            let blocks = owner.blocks.clone();
            self.stir(blocks, |_| true);
        }
    }

    /// The lapsed orphans that are all that keeps somebody out.
    pub(super) fn take_pressed(&mut self) -> BTreeSet<OpenId> {
        let turns = core::mem::take(&mut self.pressing);
        let waiters = turns.iter().filter_map(|turn| self.queue.get(turn)).map(|queued| queued.waiter);
        waiters.flat_map(|waiter| self.keepers(waiter.owner, waiter.range, waiter.mode)).collect()
    }

    /// What it takes to give an owner `range` in the mode `target`, or to unlock it for `None`.
    pub(super) fn splice(&self, id: OpenId, range: ByteRange, target: Option<LockMode>) -> Splice {
        self.owners.get(&id).map_or_else(
            || Pieces::default().splice(range, target),
            |owner| owner.pieces.splice(range, target),
        )
    }

    /// The owners that keep `id` from having `range` in `mode`, one of several ranges perhaps more than once.
    pub(super) fn keepers(
        &self,
        id: OpenId,
        range: ByteRange,
        mode: LockMode,
    ) -> impl Iterator<Item = OpenId> {
        let shared = (mode == LockMode::Exclusive).then(|| self.shared.others(range, id));
        self.exclusive.others(range, id).chain(shared.into_iter().flatten())
    }

    /// What keeps a new request out.
    pub(super) fn obstacle(&self, id: OpenId, range: ByteRange, mode: LockMode) -> Option<Obstacle> {
        self.obstacle_before(Turn::LAST, id, range, mode)
            .or_else(|| self.keepers(id, range, mode).next().map(Obstacle::Held))
    }

    /// The locks of an owner, in the order of the file.
    pub(super) fn locks(&self, id: OpenId) -> impl Iterator<Item = Lock> {
        self.owners.get(&id).into_iter().flat_map(|owner| owner.pieces.iter())
    }

    /// How many ranges an owner has locked.
    pub(super) fn len(&self, id: OpenId) -> usize {
        self.owners.get(&id).map_or(0, |owner| owner.pieces.len())
    }

    /// How many waiters of an owner there are.
    pub(super) fn waits_len(&self, id: OpenId) -> usize {
        self.owners.get(&id).map_or(0, |owner| owner.waits)
    }

    /// Everybody who has locks or waits, with the number of ranges.
    pub(super) fn owners(&self) -> impl Iterator<Item = (OpenId, usize)> {
        self.owners.iter().map(|(id, owner)| (*id, owner.pieces.len()))
    }

    pub(super) fn waiters(&self) -> impl Iterator<Item = (Turn, Waiter)> {
        self.queue.iter().map(|(turn, queued)| (*turn, queued.waiter))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// A lock that keeps a waiter out; one of a lapsed orphan only if there is no other.
    fn obstacle_held(&self, waiter: &Waiter) -> Option<Obstacle> {
        let keepers = || self.keepers(waiter.owner, waiter.range, waiter.mode);
        let lasting = keepers().find(|id| !self.is_lapsed(*id));
        lasting.or_else(|| keepers().next()).map(Obstacle::Held)
    }

    fn is_lapsed(&self, id: OpenId) -> bool {
        self.owners.get(&id).is_some_and(|owner| owner.is_lapsed)
    }

    /// A waiter before `turn` that a request has to let pass; for a new request the last one.
    fn obstacle_before(&self, turn: Turn, id: OpenId, range: ByteRange, mode: LockMode) -> Option<Obstacle> {
        let shared =
            (mode == LockMode::Exclusive).then(|| self.waiting_shared.before(turn, id, range)).flatten();
        let found = self.waiting_exclusive.before(turn, id, range).max(shared)?;
        let is_own = self.owners.get(&id).is_some_and(|owner| owner.pieces.covers(range));
        (!is_own).then_some(Obstacle::Before(found))
    }

    fn index(&mut self, mode: LockMode) -> &mut RangeIndex {
        match mode {
            LockMode::Shared => &mut self.shared,
            LockMode::Exclusive => &mut self.exclusive,
        }
    }

    fn waiting(&mut self, mode: LockMode) -> &mut WaitIndex {
        match mode {
            LockMode::Shared => &mut self.waiting_shared,
            LockMode::Exclusive => &mut self.waiting_exclusive,
        }
    }

    /// Marks those of `turns` that `is_touched` for another look.
    fn stir(&mut self, turns: impl IntoIterator<Item = Turn>, is_touched: impl Fn(&Waiter) -> bool) {
        for turn in turns {
            if self.queue.get(&turn).is_some_and(|queued| is_touched(&queued.waiter)) {
                self.detach(turn);
                self.stirred.insert(turn);
            }
        }
    }

    fn attach(&mut self, turn: Turn, obstacle: Obstacle) {
        if let Some(blocks) = self.blocks(obstacle) {
            blocks.insert(turn);
        }
        let Some(queued) = self.queue.get_mut(&turn) else { return };
        queued.obstacle = Some(obstacle);
        if queued.is_behind()
            && let Some(owner) = self.owners.get_mut(&queued.waiter.owner)
        {
            owner.behind.insert(turn);
        }
    }

    fn detach(&mut self, turn: Turn) {
        let Some(queued) = self.queue.get_mut(&turn) else { return };
        let Some(obstacle) = queued.obstacle.take() else { return };
        if let Some(owner) = self.owners.get_mut(&queued.waiter.owner) {
            owner.behind.remove(&turn);
        }
        if let Some(blocks) = self.blocks(obstacle) {
            blocks.remove(&turn);
        }
    }

    fn blocks(&mut self, obstacle: Obstacle) -> Option<&mut BTreeSet<Turn>> {
        match obstacle {
            Obstacle::Held(id) => self.owners.get_mut(&id).map(|owner| &mut owner.blocks),
            Obstacle::Before(turn) => self.queue.get_mut(&turn).map(|queued| &mut queued.blocks),
        }
    }

    fn forget_if_idle(&mut self, id: OpenId) {
        let is_idle = |owner: &Owner| owner.pieces.len() == 0 && owner.waits == 0;
        if self.owners.get(&id).is_some_and(is_idle) {
            self.owners.remove(&id);
        }
    }

    /// Asserts that no two locks conflict, that each waiter really waits for the obstacle it names, and that the
    /// indexes agree with the owners.
    pub(super) fn check(&self) {
        assert!(self.stirred.is_empty(), "somebody was woken and not looked at");
        assert!(self.pressing.is_empty(), "an orphan was in the way and not closed");
        let (mut shared, mut exclusive) = (RangeIndex::default(), RangeIndex::default());
        for (id, owner) in &self.owners {
            owner.pieces.check();
            assert!(owner.pieces.len() > 0 || owner.waits > 0, "{id:?} is kept for nothing");
            for (range, mode) in owner.pieces.iter() {
                assert_eq!(self.keepers(*id, range, mode).next(), None, "{id:?} {range} conflicts");
                let index = if mode == LockMode::Shared { &mut shared } else { &mut exclusive };
                index.insert(range, *id);
            }
            let waits = self.queue.iter().filter(|(_, queued)| queued.waiter.owner == *id);
            assert_eq!(waits.count(), owner.waits, "the waiters of {id:?}");
            let behind =
                self.queue.iter().filter(|(_, queued)| queued.is_behind() && queued.waiter.owner == *id);
            assert!(behind.map(|(turn, _)| turn).eq(&owner.behind), "those of {id:?} behind others");
        }
        assert!(shared == self.shared && exclusive == self.exclusive, "the indexes of ranges");
        let (mut shared, mut exclusive) = (WaitIndex::default(), WaitIndex::default());
        for (turn, Queued { waiter, .. }) in &self.queue {
            let index = if waiter.mode == LockMode::Shared { &mut shared } else { &mut exclusive };
            index.insert(waiter.range, *turn, waiter.owner);
        }
        let is_same = shared == self.waiting_shared && exclusive == self.waiting_exclusive;
        assert!(is_same, "the indexes of waiters");
        self.queue.iter().for_each(|(turn, queued)| self.check_waiter(*turn, queued));
        let blocked = self.owners.values().map(|owner| owner.blocks.len()).sum::<usize>()
            + self.queue.values().map(|queued| queued.blocks.len()).sum::<usize>();
        assert_eq!(blocked, self.queue.len(), "the obstacles");
    }

    /// Whether a waiter has to let one pass that came `earlier`. Asks no index.
    fn is_before(&self, earlier: Turn, waiter: &Waiter) -> bool {
        let Some(other) = self.queue.get(&earlier).map(|queued| queued.waiter) else { return false };
        let has_all = self.owners.get(&waiter.owner).is_some_and(|owner| owner.pieces.covers(waiter.range));
        let excludes = waiter.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
        other.owner != waiter.owner && other.range.overlaps(waiter.range) && excludes && !has_all
    }

    fn check_waiter(&self, turn: Turn, queued: &Queued) {
        let Waiter { owner, range, mode, .. } = queued.waiter;
        assert!(self.owners.contains_key(&owner), "{turn:?} has no owner");
        let (is_obstacle, names_it) = match queued.obstacle {
            Some(Obstacle::Held(id)) => (
                self.keepers(owner, range, mode).any(|keeper| keeper == id),
                self.owners.get(&id).is_some_and(|other| other.blocks.contains(&turn)),
            ),
            Some(Obstacle::Before(earlier)) => (
                earlier < turn && self.is_before(earlier, &queued.waiter),
                self.queue.get(&earlier).is_some_and(|other| other.blocks.contains(&turn)),
            ),
            None => (false, false),
        };
        assert!(is_obstacle, "{turn:?} waits for nothing");
        assert!(names_it, "the obstacle of {turn:?} does not know it");
    }
}
