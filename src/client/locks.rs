//! Locking ranges of bytes.

use std::time::Duration;

use super::calls::control_answer;
use super::error::{Error, refused};
use super::file::File;
use super::options::millis;
use crate::model::{ByteRange, LineSet, LockMode, Reason};
use crate::session::client::Operation;
use crate::wire::ServerControl;
use crate::wire::control::{Lock, LockWanted, Unlock};

/// A lock belongs to the open: to this handle and all its duplicates. Bytes that the open has locked already take the
/// new mode.
impl File {
    /// Locks a range, and waits for others to unlock it for at most `wait`, in the order of arrival. A wait that the
    /// server ended before that is begun again, behind those who arrived meanwhile: because no channel reached the
    /// session, or because it was longer than the server's limit ([`Limits::lock_wait_max`], an hour).
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::Locked`] if the range is still locked by others after `wait`,
    /// [`Reason::PermissionDenied`], [`Reason::Quota`] and others; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Dropping the future, as [`Error::TimedOut`], cancels the wait. A lock that is granted all the same is given back:
    /// the range is unlocked then, with whatever else the open has locked in it. A lock that this handle asks for after
    /// that, with bytes of the same range, waits until that is done, and stays.
    ///
    /// [`Limits::lock_wait_max`]: crate::model::Limits::lock_wait_max
    pub async fn lock(&self, range: ByteRange, mode: LockMode, wait: Duration) -> Result<(), Error> {
        let caller = self.caller();
        let until = caller.now().after(wait);
        let mut left = wait;
        loop {
            let wanted = LockWanted { mode, range: range.raw() };
            let lock = Lock { handle: self.name(), wanted, wait_ms: millis(left) };
            // The answer that the wait is over comes after the wait.
            let deadline = caller.deadline_after(left);
            let mut pending = caller.begin(Operation::Control(lock.into()), LineSet::ALL, deadline);
            match pending.outcome().await.and_then(control_answer) {
                Ok((ServerControl::Locked(_), _)) => return Ok(()),
                Ok(_) => return Err(Error::Protocol),
                Err(error) => {
                    left = until.since(caller.now());
                    if let Some(error) = end(error, left) {
                        return Err(error);
                    }
                    // Not at once: a server that ends each attempt is not to be asked without pause.
                    caller.sleep(self.limits().rebind_min.min(left)).await;
                    left = until.since(caller.now());
                }
            }
        }
    }

    /// Locks a range if nobody else has locked any of it.
    ///
    /// # Errors
    /// As [`File::lock`], with [`Reason::Locked`] at once.
    ///
    /// # Cancel safety
    /// As [`File::lock`].
    pub async fn try_lock(&self, range: ByteRange, mode: LockMode) -> Result<(), Error> {
        self.lock(range, mode, Duration::ZERO).await
    }

    /// Unlocks a range, whatever locks of the open lie in it; parts of them outside stay. Nothing that was begun under
    /// the lock is executing any more when it returns.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe: the range is unlocked all the same.
    pub async fn unlock(&self, range: ByteRange) -> Result<(), Error> {
        self.caller().done(Unlock { handle: self.name(), range: range.raw() }).await
    }
}

/// What an attempt to lock that ended with `error` ends the call with, if the caller has so much time left; `None`: the
/// server has ended the wait before its time, and it is begun again.
fn end(error: Error, left: Duration) -> Option<Error> {
    match error.reason() {
        Some(Reason::Locked | Reason::Interrupted) if !left.is_zero() => None,
        // Time has run out in any case, and why it did so last says nothing.
        Some(Reason::Interrupted) => Some(refused(Reason::Locked)),
        _ => Some(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_begun_again_while_time_is_left_and_ends_as_locked() {
        let reason = |reason, left| end(refused(reason), left).and_then(|error| error.reason());
        for early in [Reason::Locked, Reason::Interrupted] {
            assert_eq!(reason(early, Duration::from_millis(1)), None, "{early:?}");
            assert_eq!(reason(early, Duration::ZERO), Some(Reason::Locked), "{early:?}");
        }
        assert_eq!(reason(Reason::Quota, Duration::MAX), Some(Reason::Quota));
        let error = end(Error::TimedOut(Duration::ZERO), Duration::MAX);
        assert!(matches!(error, Some(Error::TimedOut(_))), "no answer is not asked for twice");
    }
}
