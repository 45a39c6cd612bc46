//! Slows down whoever presents resume keys that are none. A 128-bit secret is not guessed at any speed; but somebody
//! who tries is kept from costing much, and shows in the log.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::model::{PublicKey, Time};

/// Failures in a span that bring an identity to a stop.
const FAILURES_MAX: u32 = 100;
/// The span in which they count, and how long the stop lasts.
const SPAN: Duration = Duration::from_secs(10);

/// The failures of each identity. Only allowed clients get here, so it is as long as their list at most.
#[derive(Debug, Default)]
pub(super) struct Throttle(BTreeMap<PublicKey, Failures>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Time,
    count: u32,
}

impl Throttle {
    /// How long an identity has to wait before it may try again; zero: not at all.
    pub(super) fn wait(&self, now: Time, who: &PublicKey) -> Duration {
        match self.0.get(who) {
            Some(failures) if failures.count >= FAILURES_MAX => failures.since.after(SPAN).since(now),
            _ => Duration::ZERO,
        }
    }

    /// A key of this identity was refused. The stop counts from the failure that brought it about.
    pub(super) fn on_failure(&mut self, now: Time, who: PublicKey) {
        let failures = self.0.entry(who).or_insert(Failures { since: now, count: 0 });
        if failures.since.after(SPAN) <= now {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count == FAILURES_MAX {
            failures.since = now;
        }
    }

    /// Forgets what no longer counts.
    pub(super) fn forget_old(&mut self, now: Time) {
        self.0.retain(|_, failures| failures.since.after(SPAN) > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_failures_in_ten_seconds_stop_an_identity_for_ten_seconds() {
        let (who, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let second = |second: u64| Time(second * 1_000_000);
        let mut throttle = Throttle::default();
        for _ in 0..99 {
            throttle.on_failure(second(0), who);
        }
        assert_eq!(throttle.wait(second(0), &who), Duration::ZERO);
        throttle.on_failure(second(9), who);
        assert_eq!(throttle.wait(second(9), &who), Duration::from_secs(10));
        assert_eq!(throttle.wait(second(18), &who), Duration::from_secs(1));
        assert_eq!(throttle.wait(second(9), &other), Duration::ZERO);
        assert_eq!(throttle.wait(second(19), &who), Duration::ZERO);
        throttle.on_failure(second(19), who);
        assert_eq!(throttle.wait(second(19), &who), Duration::ZERO, "it begins anew");
        throttle.forget_old(second(29));
        assert!(throttle.0.is_empty());
    }

    #[test]
    fn failures_that_are_far_apart_stop_nobody() {
        let who = PublicKey([1; 32]);
        let mut throttle = Throttle::default();
        for attempt in 0..1000 {
            throttle.on_failure(Time(attempt * 200_000), who);
            assert_eq!(throttle.wait(Time(attempt * 200_000), &who), Duration::ZERO);
        }
    }
}
