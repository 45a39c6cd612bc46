//! What the log is told of refused connections: one line per network and minute, and no more than a handful a second
//! from all networks together; the rest is counted.

use core::time::Duration;

use super::bucket::{Bucket, Rule};
use crate::model::{Limits, Time};

/// How long a network's next refusals are only counted.
const SPAN: Duration = Duration::from_secs(60);

/// Whether the log is to be told of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Yes.
    Now {
        /// How many of the same network were not told since the last line.
        untold: u64,
    },
    /// No; it is counted.
    Later,
}

/// What the log was told of one network.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Time>,
    untold: u64,
}

#[derive(Debug)]
pub(super) struct Refusals {
    lines: Bucket,
    rule: Rule,
    untold: u64,
}

impl Refusals {
    pub(super) fn new(limits: &Limits) -> Self {
        let rule = Rule { size: limits.refusal_lines_burst, rate: limits.refusal_lines_rate };
        Self { lines: Bucket::full(rule), rule, untold: 0 }
    }

    pub(super) fn on_refusal(&mut self, now: Time, told: Option<&mut Told>) -> Said {
        let mut nobody = Told::default();
        let told = told.unwrap_or(&mut nobody);
        let is_due = told.last.is_none_or(|last| now >= last.after(SPAN));
        if is_due && self.lines.take(now, self.rule) {
            told.last = Some(now);
            return Said::Now { untold: core::mem::take(&mut told.untold) };
        }
        told.untold = told.untold.saturating_add(1);
        self.untold = self.untold.saturating_add(1);
        Said::Later
    }

    /// All that the log was not told of so far; a network's own count goes on.
    pub(super) fn take_untold(&mut self) -> u64 {
        core::mem::take(&mut self.untold)
    }
}
