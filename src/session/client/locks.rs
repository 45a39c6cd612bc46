//! Locks that wait, and the notices by which they end. protocol.md: Locks.
//!
//! ```text
//!  Lock ──▶ sent ──LockQueued──▶ waiting ──LockEnded──▶ answered
//!             └────────── Locked, Refused or an early LockEnded ─────────▶ answered
//! ```
//!
//! A lock that waits has its answer, so it holds no credit, no window and no channel: it outlives the channel that it
//! was asked for on. Its end comes as a notice, which may overtake the answer that the lock is queued, if that was sent
//! on another channel.
//!
//! A lock that nobody wants any more is unlocked if it is granted after all. That must not take a lock which was asked
//! for later: one of the same handle with bytes of the same range is not sent before the unlock has its answer, or the
//! unwanted lock has ended without one.

use super::ClientCore;
use super::output::{Answer, Operation, Ticket};
use crate::model::{ByteRange, LineSet, RawRange, RequestId, Time};
use crate::session::Payload;
use crate::wire::control::{CancelLock, Lock};
use crate::wire::notices::LockEnded;
use crate::wire::{ClientControl, ServerControl};

impl<P: Payload> ClientCore<P> {
    /// The server has queued a lock. One that nobody wants any more need not wait.
    pub(super) fn on_lock_queued(&mut self, now: Time, id: RequestId, ticket: Ticket) {
        self.waiting.insert(id, ticket);
        if self.requests.get(&ticket).is_some_and(|request| !request.is_wanted) {
            self.cancel_lock(now, id);
        }
    }

    /// Asks the server to let a lock wait no longer; its end is told as always.
    pub(super) fn cancel_lock(&mut self, now: Time, lock: RequestId) {
        self.handle_request(now, Operation::Control(CancelLock { lock }.into()), LineSet::ALL);
    }

    /// A lock that waited has ended. False if that is none of what was asked for.
    pub(super) fn on_lock_ended(&mut self, now: Time, ended: LockEnded) -> bool {
        let LockEnded { lock, mut outcome, .. } = ended;
        if let Ok(locked) = &mut outcome {
            locked.handle = self.local(locked.handle);
        }
        let ticket = self.waiting.get(&lock).or_else(|| self.sent.get(&lock)).copied();
        // A lock that is not known here has had its answer otherwise.
        let Some(ticket) = ticket else { return true };
        let locked = outcome.as_ref().ok().map(|locked| (locked.handle, locked.range));
        if !self.is_lock(ticket, locked) {
            return false;
        }
        self.waiting.remove(&lock);
        // It may be under way still, if the notice has overtaken the answer.
        self.release(ticket);
        let outcome = match outcome {
            Ok(locked) => Ok(Answer::Control(ServerControl::Locked(locked), None)),
            Err(refusal) => Err(refusal.into()),
        };
        self.complete(now, ticket, outcome);
        true
    }

    /// Whether a request is a lock that was never sent, and that an earlier request of its handle may unlock again.
    pub(super) fn may_be_unlocked(&self, ticket: Ticket) -> bool {
        let Some(request) = self.requests.get(&ticket).filter(|request| request.id.is_none()) else {
            return false;
        };
        let Operation::Control(ClientControl::Lock(lock)) = &request.operation else { return false };
        self.unlocking.iter().any(|(&other, &(handle, range))| {
            // An unlock that a caller wants means what was asked for before it; one that gives back means its own lock.
            let gives_back = || self.requests.get(&other).is_some_and(|other| !other.is_wanted);
            handle == lock.handle && overlap(range, lock.wanted.range) && (other < ticket || gives_back())
        })
    }

    /// Whether a request is a lock, and of this range if it was granted.
    fn is_lock(&self, ticket: Ticket, granted: Option<(crate::model::HandleId, RawRange)>) -> bool {
        match self.requests.get(&ticket).map(|request| &request.operation) {
            Some(Operation::Control(ClientControl::Lock(Lock { handle, wanted, .. }))) => {
                granted.is_none_or(|granted| granted == (*handle, wanted.range))
            }
            _ => false,
        }
    }
}

/// Whether both ranges have a byte in common. The server refuses one that is none.
fn overlap(one: RawRange, other: RawRange) -> bool {
    ByteRange::new(one).zip(ByteRange::new(other)).is_some_and(|(one, other)| one.overlaps(other))
}
