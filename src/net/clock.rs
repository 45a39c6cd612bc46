//! The only place that reads a clock. Everything else is handed a [`Time`] or asks this one.
//!
//! [`Clock::now`] counts from the start of the machine and goes on while the machine sleeps (`CLOCK_BOOTTIME`):
//! a grace that ends at a given moment ends then, also if the lid was closed in between. The wall clock, which
//! people and time servers set, is for what people read and for expiries that people write; nothing is timed by it.

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::time::Instant;

use crate::model::Time;

/// The machine's clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock;

impl Clock {
    /// This moment. It never falls; it is comparable between processes for as long as the machine runs.
    #[must_use]
    pub fn now(self) -> Time {
        Time(micros(clock_gettime(ClockId::Boottime)))
    }

    /// Microseconds since 1970 by the wall clock; 0 if that is set to an earlier time.
    #[must_use]
    pub fn wall_us(self) -> u64 {
        micros(clock_gettime(ClockId::Realtime))
    }

    /// Whole seconds since 1970 by the wall clock; 0 if that is set to an earlier time.
    #[must_use]
    pub fn wall_s(self) -> u64 {
        self.wall_us() / 1_000_000
    }

    /// The moment at which a tokio timer that stands for `at` fires.
    ///
    /// tokio's timers stand still while the machine sleeps, so one that fires late after a sleep is for its
    /// user to notice: compare [`Clock::now`] with `at`.
    #[must_use]
    pub fn deadline(self, at: Time) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
        let now = Instant::now();
        // Even the last moment that a `Time` can name is no more than 600,000 years away: no overflow.
        now + at.since(self.now())
    }
}

/// The microseconds of a clock's reading, rounded down; 0 for what lies before its start.
fn micros(at: Timespec) -> u64 {
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let rest = u64::try_from(at.tv_nsec).unwrap_or(0) / 1000;
    seconds.saturating_mul(1_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn readings_are_in_microseconds_and_saturate() {
        assert_eq!(micros(Timespec { tv_sec: 2, tv_nsec: 3_999 }), 2_000_003);
        assert_eq!(micros(Timespec { tv_sec: -1, tv_nsec: 0 }), 0);
        assert_eq!(micros(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }), u64::MAX);
    }

    #[test]
    fn now_never_falls_and_the_wall_clock_is_past_2020() {
        let clock = Clock;
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second && first > Time(0));
        assert!(clock.wall_s() > 1_577_836_800);
        assert!(clock.wall_us() / 1_000_000 - clock.wall_s() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_as_far_as_its_time() {
        let clock = Clock;
        let near = clock.deadline(clock.now().after(Duration::from_secs(5)));
        let wait = near.duration_since(clock.deadline(Time(0)));
        assert!(wait <= Duration::from_secs(5) && wait > Duration::from_secs(4), "{wait:?}");
        assert!(clock.deadline(Time(u64::MAX)) > near, "the end of time is a timer too");
    }
}
