//! The open table as a state machine: events and the time in, decisions and effects out.
//!
//! An *open* is the server's record of one open file: which file it is, in which mode it is open, whose it is,
//! the hashes of its resume keys and its byte-range locks. A *holder* is one session's part in an open, and a handle is the client's
//! name of a holder. A duplicate handle is a further holder of the same open. The share mode belongs to the
//! open, never to a session or a channel; so an open outlives both, and resuming it adds a holder and never
//! re-points one.
//!
//! ```text
//!   holder:   open, resume               open:   first holder
//!                  |                                  |
//!                  v      session away                v     none Live, one Away
//!                Live -----------------> Away       Held ------------------------> Orphaned (deadline)
//!                  |  <-----------------  |           |  <------------------------  |
//!                  |      session back    |           |          one Live           |
//!                  |                      |           |                             |
//!                  | close, replaced, session ended,  | every holder that           |
//!                  | broken, aged out     |           | is left drains              |
//!                  v                      |           v                             |
//!               Draining <----------------+        Closing <------------------------+
//!                  | nothing executing                | no holder left
//!                  v                                  v
//!                Gone: Drained                      Ended: CloseFile
//! ```
//!
//! The transitions stand as data in `state.rs`. The one function that decides whether a resume key may resume
//! is `keys::decide`. What happens to orphans stands in `orphans.rs`, what is kept of those that ended in
//! `ended.rs`. Locks stand in `locks.rs` (the rules of one file), with its indexes in `ranges.rs` (held) and
//! `queued.rs` (waited for), and `waits.rs` (the table's).
//!
//! **Rules that hold at every moment** ([`OpenTable::check_invariants`]):
//! - Two opens of one file that exist side by side are compatible. An open that ends counts until nothing of it
//!   is executing.
//! - A holder that drains takes no new operation, and it is gone as soon as nothing of it is executing.
//! - An open is orphaned when it has holders that are away and none that is live; its deadline, the end of its grace, is
//!   the latest of theirs. A deadline is over from its very microsecond on, whether a sweeper has run or not. An orphan
//!   keeps out whoever conflicts with it until then, a guarded one everybody; afterwards it stays while nobody conflicts.
//! - An open that ends under its absent owner leaves a tombstone if it has keys.
//! - Two locks of different opens that overlap are shared ones. A lock lasts as long as its open, a waiting lock as
//!   long as its holder is reachable; each waiter has something before it that really keeps it out.
//! - A grant has the holder that gave it, unless that was given up, and never more rights nor a later end than the part
//!   that it was given from; a holder or a key that came of a grant is there no longer than the grant.
//! - A file is joint exactly while holders of two sessions may write to it.
//! - The table has no secret of a resume key, only a keyed hash; and a resume that fails changes nothing.
//!
//! The parts in an open that are granted to others stand in `grants.rs`. Who changed which file stands in `changes.rs`, which files two sessions may write to in `writers.rs`, the table beyond the server's life in `stored.rs`.
//!
//! It does no file work: [`TableEvent::CloseFile`] says when a descriptor can go. It keeps nothing on disk, but says what is to be kept, and
//! knows nothing of channels: `session` says when a session is away, back or over. It does not bound its queue
//! of events by itself: one call makes at most two events for each holder, open and waiting lock that it ends, and
//! the caller drains [`OpenTable::poll_event`] after each call.

mod changes;
mod check;
mod contenders;
mod ended;
mod events;
mod grants;
mod keys;
mod locks;
mod open;
mod orphans;
mod queued;
mod ranges;
mod resume;
mod sessions;
mod state;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod views;
mod waits;
mod writers;

pub use events::{OpenEnd, TableEvent};
pub use grants::{GrantRequest, KeyStamp, Offer};
pub use keys::{Claim, ResumeDenial};
pub use open::{Admission, Admitted, HolderView, OpenView, Repeat};
pub use state::{HolderPhase, OpenPhase};
pub use stored::{Restart, RestoreError, TableChanges};
pub use table::OpenTable;
pub use waits::{LockAnswer, LockRequest};
