//! Faults that the simulation has to find: where each would be made stands in the cores, and whether it is made is chosen by
//! the thread that runs them. Without the feature `planted-bugs` nothing can be chosen, and nothing of this is in the program.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A copy of a request is executed like the original.
    RepeatRunsAgain,
    /// A lock is told before the work is done that it excludes.
    LockBeforeDrain,
    /// A key is good in anybody's hands.
    ResumeForAnybody,
    /// An orphan is broken within its grace.
    BrokenTooEarly,
    /// An orphan has no time left after a restart.
    DeadlinesForgotten,
    /// The epoch that is told is always the same.
    EpochNotRaised,
    /// An open that is asked for again is another one.
    CreateIdIgnored,
    /// An answer does not wait for the store.
    ToldBeforeStored,
    /// A lock is given to a waiter whose session is gone.
    DeadWaiterServed,
    /// Bytes are written again where somebody else has written.
    WrittenOverOthers,
    /// The client's credit does not come back.
    CreditKept,
    /// The client asks for more than its credit.
    CreditExceeded,
    /// A grant has all rights of its giver.
    GrantOfAllRights,
    /// A handle that is closed takes its open's locks along.
    CloseDropsLocks,
    /// A guard keeps nobody out.
    GuardIgnored,
    /// Changes by other clients are not noted.
    ChangesForgotten,
    /// Bytes that are lost are not told.
    LossNotTold,
    /// Locks are not restored.
    LocksForgotten,
    /// An append whose outcome is not known is repeated.
    AppendRepeated,
    /// A sync is answered before it is done.
    SyncTooEarly,
    /// A write beside another session's is acknowledged as durable before it is.
    DurableUnsynced,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::RepeatRunsAgain,
        Self::LockBeforeDrain,
        Self::ResumeForAnybody,
        Self::BrokenTooEarly,
        Self::DeadlinesForgotten,
        Self::EpochNotRaised,
        Self::CreateIdIgnored,
        Self::ToldBeforeStored,
        Self::DeadWaiterServed,
        Self::WrittenOverOthers,
        Self::CreditKept,
        Self::CreditExceeded,
        Self::GrantOfAllRights,
        Self::CloseDropsLocks,
        Self::GuardIgnored,
        Self::ChangesForgotten,
        Self::LossNotTold,
        Self::LocksForgotten,
        Self::AppendRepeated,
        Self::SyncTooEarly,
        Self::DurableUnsynced,
    ];
}

/// Whether this fault is to be made.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
std::thread_local! {
    static CHOSEN: core::cell::Cell<Option<Bug>> = const { core::cell::Cell::new(None) };
}

/// Whether this fault is to be made.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.get() == Some(bug)
}

/// Chooses a fault for what this thread runs from now on, or none.
#[cfg(feature = "planted-bugs")]
pub fn choose(bug: Option<Bug>) {
    CHOSEN.set(bug);
}
