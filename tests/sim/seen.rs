//! What must happen in some seed: a simulation in which the rare things never happen shows nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Something that a run has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seen {
    /// A repeat met its original while that was executing.
    RepeatWhileExecuting,
    /// A repeat met its original after its answer.
    RepeatAfterAnswer,
    /// A contender came one tick before the grace of an orphan was over, and was refused.
    OneTickBefore,
    /// A contender came at the tick at which it was over, or one after, and was admitted.
    OneTickAfter,
    /// A handle was resumed while what a restart protects was still protected.
    ResumeInRecovery,
    /// The answer of an open was lost with its session, and the same create id got the same open.
    OpenedByCreateId,
    /// A session died while a lock of it was being waited for.
    WaiterDied,
    /// A lock was given to somebody who had waited for it.
    WaiterServed,
    /// A contender heard busy because the open that it took was still executing.
    BusyForADrain,
    /// A contender took the file of an orphan.
    OrphanBroken,
    /// An owner heard what had become of its open.
    TombstoneAnswered,
    /// A grant was taken while no channel reached its giver.
    GrantOfTheAbsent,
    /// A grant was taken with which the giver gave its handle up.
    Moved,
    /// A sync told of bytes that were lost.
    LostBytesTold,
    /// Bytes that were not synced were written again.
    WrittenAgain,
    /// A handle came back and heard that another client had changed the file.
    ChangedByClient,
    /// A handle came back and heard that nothing had happened.
    Unchanged,
    /// A guard kept out somebody who would have been compatible.
    Guarded,
    /// Somebody else's key was refused.
    StrangerRefused,
    /// The server ended with commits under way, and some of them were stored.
    TornCommits,
    /// A dead client's handle came back in another process.
    Inherited,
    /// An append whose outcome nobody knows was not repeated.
    AppendUnknown,
    /// An open was refused because the store had no room for it.
    OpenNotStored,
    /// Nobody knew the table any more, and every key was refused.
    TableLost,
}

impl Seen {
    pub(crate) const ALL: [Self; 24] = [
        Self::RepeatWhileExecuting,
        Self::RepeatAfterAnswer,
        Self::OneTickBefore,
        Self::OneTickAfter,
        Self::ResumeInRecovery,
        Self::OpenedByCreateId,
        Self::WaiterDied,
        Self::WaiterServed,
        Self::BusyForADrain,
        Self::OrphanBroken,
        Self::TombstoneAnswered,
        Self::GrantOfTheAbsent,
        Self::Moved,
        Self::LostBytesTold,
        Self::WrittenAgain,
        Self::ChangedByClient,
        Self::Unchanged,
        Self::Guarded,
        Self::StrangerRefused,
        Self::TornCommits,
        Self::Inherited,
        Self::AppendUnknown,
        Self::OpenNotStored,
        Self::TableLost,
    ];
}

/// How often each was met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(BTreeMap<Seen, u64>);

impl Tally {
    pub(crate) fn note(&mut self, seen: Seen) {
        self.add(seen, 1);
    }

    pub(crate) fn add(&mut self, seen: Seen, times: u64) {
        *self.0.entry(seen).or_default() += times;
    }

    pub(crate) fn and(mut self, other: Self) -> Self {
        other.0.into_iter().for_each(|(seen, times)| self.add(seen, times));
        self
    }

    pub(crate) fn missing(&self) -> Vec<Seen> {
        Seen::ALL.into_iter().filter(|seen| self.0.get(seen).is_none_or(|times| *times == 0)).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seen in Seen::ALL {
            writeln!(f, "{:>8} {seen:?}", self.0.get(&seen).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}
