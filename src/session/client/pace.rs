//! How much a data channel has in flight: the whole window, or two chunks where they do as well.
//!
//! What is in flight on a fast line waits in memory on the way, and is in no processor's cache any more when its turn
//! comes: on a line as fast as memory that costs more than the cipher. On a long line the window has to be wide. Which
//! it is cannot be told from latencies, which a queue makes longer as well as a way, so it is tried out:
//!
//! ```text
//!           a round, fast        a round as fast
//!   wide ──────────────> trying ────────────────> narrow
//!    ^ ^                   │ slower                  │ after a while, or slower
//!    │ └───────────────────┘ (tried again later)     │
//!    └───────────────────────────────────────────────┘
//! ```
//!
//! docs/performance.md has the figures.

use core::time::Duration;

use crate::model::{Limits, Time};

/// A data channel's window, and what it is decided by.
#[derive(Debug)]
pub(super) struct Pace {
    width: Width,
    /// When the round that is measured began, and what was answered of it.
    begun: Time,
    answered: u64,
    /// When two chunks are tried next, and how long after a failure.
    try_at: Time,
    pause: Duration,
}

/// Rates are in bytes per second, as they were before with the whole window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Wide,
    Trying { wide: u64 },
    Narrow { wide: u64, until: Time },
}

impl Pace {
    pub(super) fn new(now: Time) -> Self {
        Self { width: Width::Wide, begun: now, answered: 0, try_at: now, pause: PAUSE_MIN }
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self, limits: &Limits) -> u64 {
        match self.width {
            Width::Wide => limits.channel_bytes,
            Width::Trying { .. } | Width::Narrow { .. } => {
                limits.channel_bytes.min(u64::from(limits.chunk).saturating_mul(2))
            }
        }
    }

    /// The channel was empty, and is not any more: time in which nothing was asked for counts nothing.
    pub(super) fn on_begun(&mut self, now: Time) {
        (self.begun, self.answered) = (now, 0);
    }

    /// So many bytes were answered.
    pub(super) fn on_answered(&mut self, now: Time, bytes: u64, limits: &Limits) {
        self.answered = self.answered.saturating_add(bytes);
        if self.answered < ROUND {
            return;
        }
        let micros = u64::try_from(now.since(self.begun).as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = self.answered.saturating_mul(1_000_000) / micros;
        self.on_begun(now);
        self.width = self.next(now, rate, limits);
    }

    fn next(&mut self, now: Time, rate: u64, limits: &Limits) -> Width {
        match self.width {
            Width::Wide if now >= self.try_at && rate / FAST >= limits.channel_bytes => {
                Width::Trying { wide: rate }
            }
            Width::Wide => Width::Wide,
            Width::Trying { wide } if is_as_fast(rate, wide) => {
                self.pause = PAUSE_MIN;
                Width::Narrow { wide, until: now.after(PAUSE_MIN) }
            }
            Width::Trying { .. } => {
                self.try_at = now.after(self.pause);
                self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
                Width::Wide
            }
            // Slower, because something else has changed, or because the line has: what can be seen only with all of it.
            Width::Narrow { wide, until } if now >= until || rate < wide / 2 => Width::Wide,
            narrow @ Width::Narrow { .. } => narrow,
        }
    }
}

/// Whether two chunks have done as well as the whole window, but for what two rounds differ by chance.
fn is_as_fast(rate: u64, wide: u64) -> bool {
    rate >= wide / 10 * 9
}

/// Bytes of a round: so many chunks that a single late one hardly counts, and a hundredth of a second on a fast line.
const ROUND: u64 = 16 << 20;
/// A line is fast if it answers so many whole windows in a second: with 4 MiB, 200 MiB/s. What a slower one costs is not
/// worth a try.
const FAST: u64 = 50;
/// How long two chunks are kept without another look, and how long after a first failure they are tried again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How long after many failures: a line does not change often, and a failed try takes a few hundredths of a second.
const PAUSE_MAX: Duration = Duration::from_secs(64);

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: u64 = 4 << 20;
    const NARROW: u64 = 1 << 20;

    struct Line {
        pace: Pace,
        limits: Limits,
        now: Time,
        /// Windows that were seen, one after the other.
        seen: Vec<u64>,
    }

    impl Line {
        fn new() -> Self {
            let now = Time(5_000_000);
            Self { pace: Pace::new(now), limits: Limits::default(), now, seen: vec![WIDE] }
        }

        /// Answers `bytes` bytes in chunks at this rate, which may depend on the window.
        fn carry(&mut self, bytes: u64, rate: impl Fn(u64) -> u64) {
            let chunk = u64::from(self.limits.chunk);
            for _ in 0..bytes / chunk {
                let window = self.pace.window(&self.limits);
                self.now = Time(self.now.0 + chunk * 1_000_000 / rate(window));
                self.pace.on_answered(self.now, chunk, &self.limits);
                let window = self.pace.window(&self.limits);
                if self.seen.last() != Some(&window) {
                    self.seen.push(window);
                }
            }
        }
    }

    #[test]
    fn two_chunks_are_enough_where_they_are_as_fast() {
        let mut line = Line::new();
        line.carry(256 << 20, |_| 1 << 30);
        assert_eq!(line.seen, [WIDE, NARROW], "they were tried, and kept");
        // Now and then the whole window is looked at again.
        line.carry(2 << 30, |_| 1 << 30);
        assert!(line.seen.len() >= 4 && line.seen.len() <= 8, "{:?}", line.seen);
    }

    #[test]
    fn a_long_line_keeps_its_window_and_is_tried_less_and_less() {
        let mut line = Line::new();
        // What is in flight is answered once in 3 ms.
        line.carry(20 << 30, |window| window * 333);
        let tries = line.seen.iter().filter(|&&window| window == NARROW).count();
        assert!((2..=5).contains(&tries), "{tries} in {:?}", line.now);
        assert_eq!(line.pace.window(&line.limits), WIDE);
    }

    #[test]
    fn a_slow_line_is_not_tried_and_pauses_do_not_count() {
        let mut line = Line::new();
        line.carry(1 << 30, |_| 100 << 20);
        assert_eq!(line.seen, [WIDE]);
        // A fast one of which little is asked at a time has no round.
        for _ in 0..100 {
            line.pace.on_begun(line.now);
            line.carry(8 << 20, |_| 1 << 30);
        }
        assert_eq!(line.seen, [WIDE]);
    }

    #[test]
    fn a_line_that_becomes_longer_gets_its_window_back_at_once() {
        let mut line = Line::new();
        line.carry(64 << 20, |_| 1 << 30);
        assert_eq!(line.pace.window(&line.limits), NARROW);
        line.carry(16 << 20, |window| window * 300);
        assert_eq!(line.pace.window(&line.limits), WIDE);
    }
}
