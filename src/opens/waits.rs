//! Byte-range locks of opens: taking and giving up, waiting, and what a lock keeps out.
//!
//! The rules between ranges stand in `locks.rs`. Here stand those between locks and the rest of the table: whose
//! a lock is, how many there can be, when a wait is over. A lock belongs to the open, so it lasts as long as the
//! open does, whichever holders come and go, and as an orphan too. A *waiting* lock belongs to the holder whose
//! request it is, and ends with that holder or when its session goes away.
//!
//! A call that frees something only notes the file; [`OpenTable::serve_waiters`] runs when the call has done all
//! that it does. So nobody gets a lock in the middle of a call that would take it away again. A wait is over from
//! the very microsecond of its deadline on, for every call that is told the time; the few that are not (a close,
//! the end of an operation) can still serve a waiter that [`OpenTable::expire`] has not ended yet.

use core::time::Duration;

use super::events::{OpenEnd, TableEvent};
use super::locks::{FileLocks, Obstacle, Turn, Waiter};
use super::ranges::{Lock, Splice};
use super::table::OpenTable;
use crate::model::{
    ByteRange, FileIdentity, HandleId, LockMode, OpenId, PublicKey, Reason, Refusal, RequestId, Rights,
    SessionId, Time,
};

/// A request for a byte-range lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockRequest {
    /// Names the request in its session, while it waits.
    pub request: RequestId,
    /// Which bytes.
    pub range: ByteRange,
    /// How they are to be locked.
    pub mode: LockMode,
    /// How long to wait for it at most; zero: not at all. Cut to [`crate::model::Limits::lock_wait_max`].
    pub wait: Duration,
}

/// What became of a request for a lock that was not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockAnswer {
    /// The open has the lock.
    Granted,
    /// It waits for its turn; [`TableEvent::LockEnded`] says how that ended.
    Queued,
}

/// A waiting lock, as the table finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wait {
    pub(super) handle: HandleId,
    pub(super) owner: LockOwner,
    pub(super) turn: Turn,
    /// Over from this very microsecond on.
    pub(super) deadline: Time,
}

/// Names a waiting lock.
pub(super) type WaitKey = (SessionId, RequestId);

/// What one identity has of what is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LockUse {
    pub(super) ranges: usize,
    pub(super) waits: usize,
}

/// An open as the owner of locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LockOwner {
    pub(super) open: OpenId,
    pub(super) file: FileIdentity,
    /// Whose bounds count.
    pub(super) identity: PublicKey,
}

/// Up to this many locks are looked at for the time until a retry can succeed. It is a hint, and no more than a
/// handful of locks is in anybody's way unless somebody wants it so.
const KEEPERS_ASKED_MAX: usize = 64;

impl OpenTable {
    /// Locks a range for the open of a handle, or puts the request into the queue if it may wait.
    ///
    /// The lock replaces what the open has locked of the range before. A request that conflicts with that of an
    /// earlier waiter of another open waits behind it, or is refused if it must not wait; but not a request for
    /// bytes that its open has all locked already. Orphans whose grace is over are stopped if nothing else is
    /// in the way. A request that is refused changes no lock.
    ///
    /// # Errors
    /// - [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed.
    /// - [`Reason::PermissionDenied`]: the handle has no [`Rights::LOCK`].
    /// - [`Reason::Locked`]: it must not wait, and another open is in the way: an orphan within its grace (the
    ///   time left is named), one that ends ([`OpenTable::DRAIN_RETRY`]), or any other (no time is named).
    /// - [`Reason::Quota`]: the open or its identity would have too many ranges or waiting locks. One that was
    ///   granted while it waited can end so too.
    /// - [`Reason::Invalid`]: a lock of this session waits under the same request.
    /// - [`Reason::Interrupted`]: it would have to wait, and no channel reaches the session.
    pub fn lock(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
        lock: LockRequest,
    ) -> Result<LockAnswer, Refusal> {
        self.end_overdue(now);
        let answer = self.try_lock(now, session, handle, &lock);
        self.finish();
        answer
    }

    /// Unlocks whatever the open of a handle has locked of `range`, in whichever modes; if that is nothing, it
    /// is no mistake.
    ///
    /// # Errors
    /// - [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed.
    /// - [`Reason::PermissionDenied`]: the handle has no [`Rights::LOCK`].
    /// - [`Reason::Quota`]: a lock would fall into two, and that is one too many.
    pub fn unlock(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
        range: ByteRange,
    ) -> Result<(), Refusal> {
        self.end_overdue(now);
        let answer = self.try_unlock(session, handle, range);
        self.finish();
        answer
    }

    /// Gives up a waiting lock of a session: it ends with [`Reason::Interrupted`]. One that does not wait, or
    /// not any more, is left as it is.
    pub fn cancel_lock(&mut self, session: SessionId, request: RequestId) {
        self.end_wait((session, request), Err(Reason::Interrupted.into()));
        self.finish();
    }

    /// Lets `open` read or write `range`, unless another open's lock keeps it out: an exclusive one does both, a shared
    /// one keeps from writing. Locks are mandatory, for opens without any lock too. Orphans whose grace is over are
    /// stopped if nothing else is in the way.
    ///
    /// # Errors
    /// [`Reason::Locked`], with a time as [`OpenTable::lock`] names it.
    pub fn check_io(
        &mut self,
        now: Time,
        open: OpenId,
        range: ByteRange,
        is_write: bool,
    ) -> Result<(), Refusal> {
        let lock = (range, if is_write { LockMode::Exclusive } else { LockMode::Shared });
        let Some(file) = self.file_of(open).filter(|_| self.is_kept_out(open, lock)) else { return Ok(()) };
        let over = self.weigh(now, self.keepers(open, file, lock)).map_err(locked)?;
        let ended = self.stop_opens(&over);
        self.finish();
        // There may be more than were looked at.
        match ended {
            Ok(()) if !self.is_kept_out(open, lock) => Ok(()),
            Ok(()) | Err(_) => Err(locked(Self::DRAIN_RETRY)),
        }
    }

    /// Whether any byte of the file is locked by another open than `open`, one way or the other.
    #[must_use]
    pub fn has_foreign_locks(&self, open: OpenId) -> bool {
        self.is_kept_out(open, (ByteRange::ALL, LockMode::Exclusive))
    }

    fn is_kept_out(&self, open: OpenId, lock: Lock) -> bool {
        // Most files have no locks, and every read asks.
        !self.locks.is_empty()
            && self.file_of(open).is_some_and(|file| self.keepers(open, file, lock).next().is_some())
    }

    /// The locks of an open, in the order of the file; none for an open that does not exist.
    #[must_use]
    pub fn locks(&self, open: OpenId) -> Vec<(ByteRange, LockMode)> {
        let locks = self.file_of(open).and_then(|file| self.locks.get(&file));
        locks.map(|locks| locks.locks(open).collect()).unwrap_or_default()
    }

    fn try_lock(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
        request: &LockRequest,
    ) -> Result<LockAnswer, Refusal> {
        let owner = self.lock_owner(session, handle)?;
        if self.waits.contains_key(&(session, request.request)) {
            return Err(Reason::Invalid.into());
        }
        let (range, mode) = (request.range, request.mode);
        self.plan(owner, range, Some(mode))?;
        let wait_left = self.make_lock_way(now, owner, (range, mode));
        // The way that was made may have given this open locks that it had waited for.
        let splice = self.plan(owner, range, Some(mode))?;
        match self.obstacle(owner, (range, mode)) {
            None => {
                self.apply(owner, range, &splice);
                Ok(LockAnswer::Granted)
            }
            Some(_) if request.wait.is_zero() => Err(locked(wait_left)),
            Some(obstacle) => {
                let deadline = now.after(request.wait.min(self.lock_wait_max));
                let waiter = Waiter { owner: owner.open, session, request: request.request, range, mode };
                self.queue(owner, handle, waiter, obstacle, deadline)
            }
        }
    }

    fn try_unlock(&mut self, session: SessionId, handle: HandleId, range: ByteRange) -> Result<(), Refusal> {
        let owner = self.lock_owner(session, handle)?;
        if self.locks.contains_key(&owner.file) {
            let splice = self.plan(owner, range, None)?;
            self.apply(owner, range, &splice);
        }
        Ok(())
    }

    /// Whether an open that is to be admitted could have its first lock, as far as nothing has to be stopped for
    /// it.
    ///
    /// # Errors
    /// [`Reason::Quota`] and [`Reason::Locked`], as [`OpenTable::lock`].
    pub(super) fn check_first_lock(&self, now: Time, owner: LockOwner, lock: Lock) -> Result<(), Refusal> {
        self.plan(owner, lock.0, Some(lock.1))?;
        if let Some(wait) = self.wait_for(now, owner.open, owner.file, lock) {
            return Err(locked(wait));
        }
        // Who waits now gets the lock of an orphan that is stopped.
        match self.obstacle(owner, lock) {
            Some(Obstacle::Before(_)) => Err(Reason::Locked.into()),
            Some(Obstacle::Held(_)) | None => Ok(()),
        }
    }

    /// Makes way for the first lock of an open that is to be admitted. Says what [`OpenTable::apply`] is to do
    /// once the open is there.
    ///
    /// # Errors
    /// As [`OpenTable::check_first_lock`].
    pub(super) fn plan_first_lock(
        &mut self,
        now: Time,
        owner: LockOwner,
        lock: Lock,
    ) -> Result<Splice, Refusal> {
        let wait_left = self.make_lock_way(now, owner, lock);
        match self.obstacle(owner, lock) {
            None => self.plan(owner, lock.0, Some(lock.1)),
            Some(_) => Err(locked(wait_left)),
        }
    }

    /// What it takes to give `range` to an open in the mode `target`, or to unlock it for `None`, if the bounds
    /// allow it. They count ranges and never keep anybody from having fewer.
    fn plan(&self, owner: LockOwner, range: ByteRange, target: Option<LockMode>) -> Result<Splice, Refusal> {
        let (len, splice) = match self.locks.get(&owner.file) {
            Some(locks) => (locks.len(owner.open), locks.splice(owner.open, range, target)),
            None => (0, FileLocks::default().splice(owner.open, range, target)),
        };
        let used = self.lock_use.get(&owner.identity).map_or(0, |used| used.ranges);
        let len_after = splice.len_after(len);
        let used_after = used.saturating_sub(len).saturating_add(len_after);
        let is_over = len_after > self.locks_per_open || used_after > self.locks_per_client;
        if is_over && len_after > len { Err(Reason::Quota.into()) } else { Ok(splice) }
    }

    /// Carries out what [`OpenTable::plan`] said.
    pub(super) fn apply(&mut self, owner: LockOwner, range: ByteRange, splice: &Splice) {
        let locks = self.locks.entry(owner.file).or_default();
        let len = locks.len(owner.open);
        locks.apply(owner.open, range, splice);
        let len_after = locks.len(owner.open);
        self.freed.push(owner.file);
        self.count(owner, |used| used.ranges = used.ranges.saturating_sub(len).saturating_add(len_after));
        self.touch(owner.open);
    }

    /// What it takes to give a stored lock back; `None` if it cannot have been one.
    pub(super) fn plan_restored(&self, owner: LockOwner, lock: Lock) -> Option<Splice> {
        let is_free = self.keepers(owner.open, owner.file, lock).next().is_none();
        self.plan(owner, lock.0, Some(lock.1)).ok().filter(|_| is_free)
    }

    fn obstacle(&self, owner: LockOwner, (range, mode): Lock) -> Option<Obstacle> {
        self.locks.get(&owner.file).and_then(|locks| locks.obstacle(owner.open, range, mode))
    }

    /// Stops the orphans whose locks are in the way and whose grace is over, if nothing else is. Says how long a
    /// request has to wait if something is left; zero where nobody can say.
    fn make_lock_way(&mut self, now: Time, owner: LockOwner, lock: Lock) -> Duration {
        let over = match self.weigh(now, self.keepers(owner.open, owner.file, lock)) {
            Ok(over) => over,
            Err(wait) => return wait,
        };
        if over.is_empty() {
            return Duration::ZERO;
        }
        let ended = self.stop_opens(&over);
        self.serve_waiters();
        if ended.is_ok() { Duration::ZERO } else { Self::DRAIN_RETRY }
    }

    /// How long the locks in the way will be there, zero where nobody can say; `None`: nothing is in the way but
    /// orphans whose grace is over.
    fn wait_for(&self, now: Time, open: OpenId, file: FileIdentity, lock: Lock) -> Option<Duration> {
        self.weigh(now, self.keepers(open, file, lock)).err()
    }

    /// The opens whose locks keep `open` from having `lock`; no more than are worth a look.
    fn keepers(&self, open: OpenId, file: FileIdentity, (range, mode): Lock) -> impl Iterator<Item = OpenId> {
        let keepers = self.locks.get(&file).map(|locks| locks.keepers(open, range, mode));
        keepers.into_iter().flatten().take(KEEPERS_ASKED_MAX)
    }

    /// The open of a handle that may lock.
    fn lock_owner(&self, session: SessionId, handle: HandleId) -> Result<LockOwner, Refusal> {
        let holder = self.usable(session, handle)?;
        if !holder.rights.permits(Rights::LOCK) {
            return Err(Reason::PermissionDenied.into());
        }
        let open = self.opens.get(&holder.open).ok_or(Reason::BadHandle)?;
        Ok(LockOwner { open: holder.open, file: open.file, identity: open.owner })
    }

    fn queue(
        &mut self,
        owner: LockOwner,
        handle: HandleId,
        waiter: Waiter,
        obstacle: Obstacle,
        deadline: Time,
    ) -> Result<LockAnswer, Refusal> {
        if self.by_session.get(&waiter.session).is_some_and(|part| part.is_away) {
            return Err(Reason::Interrupted.into());
        }
        let waits = self.lock_use.get(&owner.identity).map_or(0, |used| used.waits);
        if waits >= self.lock_waits_per_client {
            return Err(Reason::Quota.into());
        }
        let key = (waiter.session, waiter.request);
        self.turns = self.turns.saturating_add(1);
        let turn = Turn(self.turns);
        self.locks.entry(owner.file).or_default().enqueue(turn, waiter, obstacle);
        self.waits.insert(key, Wait { handle, owner, turn, deadline });
        self.wait_deadlines.insert((deadline, key));
        if let Some(holder) = self.holders.get_mut(&handle) {
            holder.waits.insert(waiter.request);
        }
        self.count(owner, |used| used.waits = used.waits.saturating_add(1));
        Ok(LockAnswer::Queued)
    }

    /// Ends a waiting lock: the one place where a wait ends. A lock that comes of it is the caller's to give.
    fn end_wait(&mut self, key: WaitKey, outcome: Result<(), Refusal>) {
        let Some(Wait { handle, owner, turn, deadline }) = self.waits.remove(&key) else { return };
        let (session, request) = key;
        self.wait_deadlines.remove(&(deadline, key));
        if let Some(holder) = self.holders.get_mut(&handle) {
            holder.waits.remove(&request);
        }
        self.count(owner, |used| used.waits = used.waits.saturating_sub(1));
        let waiter = self.locks.get_mut(&owner.file).and_then(|locks| locks.leave(turn));
        self.freed.push(owner.file);
        if let Some(Waiter { range, mode, .. }) = waiter {
            self.events.push_back(TableEvent::LockEnded { session, handle, request, range, mode, outcome });
        }
    }

    /// Gives up the waiting locks of holders that stop or whose session goes away.
    pub(super) fn interrupt_waits(&mut self, handles: &[HandleId]) {
        for handle in handles {
            let Some(holder) = self.holders.get(handle) else { continue };
            let session = holder.session;
            let requests: Vec<RequestId> = holder.waits.iter().copied().collect();
            for request in requests {
                self.end_wait((session, request), Err(Reason::Interrupted.into()));
            }
        }
    }

    /// Ends the waits that are over at `now`.
    pub(super) fn end_overdue(&mut self, now: Time) {
        self.tombstones.note_time(now);
        while let Some((_, key)) = self.wait_deadlines.first().copied().filter(|(end, _)| *end <= now) {
            self.end_wait(key, Err(Reason::Locked.into()));
        }
        self.serve_waiters();
    }

    /// Takes the locks of an open that ends.
    pub(super) fn drop_locks(&mut self, owner: LockOwner) {
        let Some(locks) = self.locks.get_mut(&owner.file) else { return };
        let len = locks.unlock_all(owner.open);
        self.freed.push(owner.file);
        self.count(owner, |used| used.ranges = used.ranges.saturating_sub(len));
    }

    /// Gives what was freed to those whose turn it is.
    pub(super) fn serve_waiters(&mut self) {
        while let Some(file) = self.freed.pop() {
            while let Some((_, waiter)) = self.locks.get_mut(&file).and_then(FileLocks::next_ready) {
                self.serve(&waiter);
            }
            let pressed = self.locks.get_mut(&file).map(FileLocks::take_pressed).unwrap_or_default();
            // One that still executes keeps its locks until it has done.
            pressed.into_iter().for_each(|id| self.end_absent(id, OpenEnd::TakenOver));
            if self.locks.get(&file).is_some_and(FileLocks::is_empty) {
                self.locks.remove(&file);
            }
        }
    }

    fn serve(&mut self, waiter: &Waiter) {
        let key = (waiter.session, waiter.request);
        let Some(owner) = self.waits.get(&key).map(|wait| wait.owner) else { return };
        match self.plan(owner, waiter.range, Some(waiter.mode)) {
            Ok(splice) => {
                self.end_wait(key, Ok(()));
                self.apply(owner, waiter.range, &splice);
            }
            Err(refusal) => self.end_wait(key, Err(refusal)),
        }
    }

    /// Changes what an identity has; an entry that says nothing goes.
    fn count(&mut self, owner: LockOwner, change: impl FnOnce(&mut LockUse)) {
        let used = self.lock_use.entry(owner.identity).or_default();
        change(used);
        if *used == LockUse::default() {
            self.lock_use.remove(&owner.identity);
        }
    }
}

/// Locked, with the time after which a retry can succeed; zero where nobody can say.
fn locked(retry_after: Duration) -> Refusal {
    Refusal { reason: Reason::Locked, ..Refusal::busy(retry_after) }
}
