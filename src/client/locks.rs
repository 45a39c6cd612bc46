//! Locking ranges of bytes.

use std::time::Duration;

use super::calls::control_answer;
use super::error::Error;
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
    /// server gave up because no channel reached the session is begun again.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::Locked`] if the range is still locked by others after `wait`,
    /// [`Reason::PermissionDenied`], [`Reason::Quota`] and others; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Dropping the future, as [`Error::TimedOut`], cancels the wait. A lock that is granted all the same is given back:
    /// the range is unlocked then, with whatever else the open has locked in it.
    pub async fn lock(&self, range: ByteRange, mode: LockMode, wait: Duration) -> Result<(), Error> {
        let caller = self.caller();
        let until = caller.now().after(wait);
        let mut left = wait;
        loop {
            let wanted = LockWanted { mode, range: range.raw() };
            let lock = Lock { handle: self.handle(), wanted, wait_ms: millis(left) };
            // The answer that the wait is over comes after the wait.
            let deadline = caller.deadline_after(left);
            let mut pending = caller.begin(Operation::Control(lock.into()), LineSet::ALL, deadline);
            match pending.outcome().await.and_then(control_answer) {
                Ok((ServerControl::Locked(_), _)) => return Ok(()),
                Ok(_) => return Err(Error::Protocol),
                Err(error) if error.reason() == Some(Reason::Interrupted) => {
                    // Not at once: a server that interrupts each attempt is not to be asked without pause.
                    caller.sleep(self.limits().rebind_min).await;
                    left = until.since(caller.now());
                    if left.is_zero() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
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
        self.caller().done(Unlock { handle: self.handle(), range: range.raw() }).await
    }
}
