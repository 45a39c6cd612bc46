//! Both cores against each other, in one thread and on a virtual clock: what must hold whatever the lines do.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::time::Duration;

use bowline::model::{LineId, LineSet};

#[path = "session/binds.rs"]
mod binds;
#[path = "session/channels.rs"]
mod channels;
#[path = "session/comeback.rs"]
mod comeback;
#[path = "session/copies.rs"]
mod copies;
#[path = "session/credit.rs"]
mod credit;
#[path = "session/grants.rs"]
mod grants;
#[path = "session/guesses.rs"]
mod guesses;
#[path = "session/hostile.rs"]
mod hostile;
#[path = "session/intents.rs"]
mod intents;
#[path = "session/locks.rs"]
mod locks;
#[path = "session/lost_answers.rs"]
mod lost_answers;
#[path = "session/opens.rs"]
mod opens;
#[path = "session/orphans.rs"]
mod orphans;
#[path = "support/pair.rs"]
#[allow(dead_code, reason = "the simulation of whole runs uses the rest")]
mod pair;
#[path = "session/protection.rs"]
mod protection;
#[path = "session/restart.rs"]
mod restart;
#[path = "session/status.rs"]
mod status;
#[path = "session/unsynced.rs"]
mod unsynced;

const L0: LineId = LineId(0);
const L1: LineId = LineId(1);
const L2: LineId = LineId(2);

/// Kinds of messages, as protocol.md numbers them.
mod kind {
    pub(crate) const OPEN: u8 = 0x10;
    pub(crate) const RESUME: u8 = 0x11;
    pub(crate) const ISSUE_KEY: u8 = 0x12;
    pub(crate) const CLOSE: u8 = 0x13;
    pub(crate) const SYNC: u8 = 0x15;
    pub(crate) const READ: u8 = 0x20;
    pub(crate) const WRITE: u8 = 0x21;
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn only(line: LineId) -> LineSet {
    LineSet::NONE.with(line)
}
