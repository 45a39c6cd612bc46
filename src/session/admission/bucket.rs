//! A token bucket: so many at once, so many per second.

use crate::model::Time;

/// Parts of a token that a microsecond adds for each token per second.
const PARTS: u64 = 1_000_000;

/// How large buckets are and how fast they fill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Tokens that a full one holds.
    pub(super) size: u32,
    /// Tokens that come back in a second.
    pub(super) rate: u32,
}

impl Rule {
    fn brim(self) -> u64 {
        u64::from(self.size).saturating_mul(PARTS)
    }
}

/// What is left in a bucket. Its rule is told with each question: thousands share one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// In millionths of a token, at `at`.
    level: u64,
    at: Time,
}

impl Bucket {
    pub(super) fn full(rule: Rule) -> Self {
        Self { level: rule.brim(), at: Time(0) }
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Time, rule: Rule) -> bool {
        self.refill(now, rule);
        match self.level.checked_sub(PARTS) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }

    /// Puts a token back; what would run over is lost.
    pub(super) fn give_back(&mut self, now: Time, rule: Rule) {
        self.refill(now, rule);
        self.level = self.level.saturating_add(PARTS).min(rule.brim());
    }

    fn refill(&mut self, now: Time, rule: Rule) {
        self.level = self.level_at(now, rule);
        self.at = self.at.max(now);
    }

    /// In millionths of a token.
    pub(super) fn level_at(&self, now: Time, rule: Rule) -> u64 {
        let passed = now.0.saturating_sub(self.at.0);
        let added = passed.saturating_mul(u64::from(rule.rate));
        self.level.saturating_add(added).min(rule.brim())
    }

    /// Whole tokens.
    pub(super) fn tokens_at(&self, now: Time, rule: Rule) -> u32 {
        u32::try_from(self.level_at(now, rule) / PARTS).unwrap_or(u32::MAX)
    }

    pub(super) fn is_full(&self, now: Time, rule: Rule) -> bool {
        self.level_at(now, rule) >= rule.brim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { size: 3, rate: 2 };

    #[test]
    fn a_bucket_gives_its_size_at_once_and_its_rate_after_that() {
        let mut bucket = Bucket::full(RULE);
        let start = Time(1_000_000_000);
        assert_eq!((0..10).filter(|_| bucket.take(start, RULE)).count(), 3);
        assert!(!bucket.take(Time(start.0 + 499_999), RULE), "a whole token takes half a second");
        assert!(bucket.take(Time(start.0 + 500_000), RULE));
        let later = Time(start.0 + 3_600_000_000);
        assert!(bucket.is_full(later, RULE));
        assert_eq!((0..10).filter(|_| bucket.take(later, RULE)).count(), 3, "an hour fills it once");
    }

    #[test]
    fn what_is_put_back_does_not_run_over_and_time_does_not_run_back() {
        let rule = Rule { size: 2, rate: 1 };
        let mut bucket = Bucket::full(rule);
        bucket.give_back(Time(10), rule);
        assert_eq!(bucket.tokens_at(Time(10), rule), 2);
        assert!(bucket.take(Time(10), rule) && bucket.take(Time(5), rule) && !bucket.take(Time(5), rule));
        assert!(!bucket.take(Time(1_000_009), rule), "counted from the latest time that was told");
        assert!(bucket.take(Time(1_000_010), rule));
        let none = Rule { size: 0, rate: u32::MAX };
        assert!(!Bucket::full(none).take(Time(u64::MAX), none), "nothing fits into a bucket without size");
    }
}
