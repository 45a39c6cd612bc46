//! What the random runs are made of.

use proptest::prelude::*;

use super::*;

/// One call. Numbers pick from what there is, modulo its length.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Open { session: usize, file: usize, mode: usize, create: u8, looks_first: bool, how: How },
    Issue { holder: usize },
    Resume { session: usize, key: usize, predecessor: Option<usize>, spoil: Option<usize> },
    Begin { holder: usize, as_other: bool, write: bool },
    End { holder: usize },
    Close { holder: usize },
    Away { session: usize },
    Back { session: usize },
    Ended { session: usize },
    Expire,
    Wait { ms: u64 },
    Allow { rights: Option<Rights> },
    Lock { holder: usize, wish: Wish, wait_ms: u64 },
    Unlock { holder: usize, wish: Wish },
    Cancel { waiter: usize },
    Io { holder: usize, wish: Wish },
    Closed { session: usize },
    Remove { session: usize, files: usize },
    Removed,
}

/// What else an open is asked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) may_lock: bool,
    pub(super) lock: Option<Wish>,
    pub(super) resumable: bool,
    pub(super) guard: bool,
}

/// The files of removals.
pub(super) const REMOVED: [&[FileIdentity]; 3] = [&[FILE], &[OTHER_FILE], &[FILE, OTHER_FILE, FILE]];

fn how() -> impl Strategy<Value = How> {
    let often = || proptest::bool::weighted(0.9);
    let guard = proptest::bool::weighted(0.1);
    (often(), proptest::option::weighted(0.2, wish()), often(), guard)
        .prop_map(|(may_lock, lock, resumable, guard)| How { may_lock, lock, resumable, guard })
}

fn wish() -> impl Strategy<Value = Wish> {
    let mode = prop_oneof![Just(LockMode::Shared), Just(LockMode::Exclusive)];
    (0..locks::CELLS, 0..locks::CELLS, mode).prop_map(|(a, b, mode)| (a.min(b), a.max(b) + 1, mode))
}

pub(super) fn call() -> impl Strategy<Value = Call> {
    let session = || 0..SESSIONS.len();
    let pick = || 0..64_usize;
    prop_oneof![
        6 => (session(), 0..2_usize, 0..MODES.len(), 0..9_u8, proptest::bool::weighted(0.2), how()).prop_map(
            |(session, file, mode, create, looks_first, how)| {
                Call::Open { session, file, mode, create, looks_first, how }
            }
        ),
        6 => pick().prop_map(|holder| Call::Issue { holder }),
        7 => (session(), pick(), proptest::option::of(pick()), proptest::option::weighted(0.2, 0..320_usize))
            .prop_map(|(session, key, predecessor, spoil)| Call::Resume { session, key, predecessor, spoil }),
        4 => (pick(), proptest::bool::weighted(0.1), any::<bool>())
            .prop_map(|(holder, as_other, write)| Call::Begin { holder, as_other, write }),
        4 => pick().prop_map(|holder| Call::End { holder }),
        2 => pick().prop_map(|holder| Call::Close { holder }),
        2 => session().prop_map(|session| Call::Away { session }),
        2 => session().prop_map(|session| Call::Back { session }),
        1 => session().prop_map(|session| Call::Ended { session }),
        1 => Just(Call::Expire),
        4 => prop_oneof![Just(0), 1..3_000_u64, 1..70_000_u64].prop_map(|ms| Call::Wait { ms }),
        1 => prop_oneof![1 => Just(None), 1 => Just(Some(Rights::READ)), 4 => Just(Some(Rights::ALL))]
            .prop_map(|rights| Call::Allow { rights }),
        15 => lock_call(),
        1 => session().prop_map(|session| Call::Closed { session }),
        1 => (session(), 0..REMOVED.len()).prop_map(|(session, files)| Call::Remove { session, files }),
        2 => Just(Call::Removed),
    ]
}

fn lock_call() -> impl Strategy<Value = Call> {
    let pick = || 0..64_usize;
    prop_oneof![
        12 => (pick(), wish(), prop_oneof![Just(0), 1..90_000_u64])
            .prop_map(|(holder, wish, wait_ms)| Call::Lock { holder, wish, wait_ms }),
        8 => (pick(), wish()).prop_map(|(holder, wish)| Call::Unlock { holder, wish }),
        1 => pick().prop_map(|waiter| Call::Cancel { waiter }),
        4 => (pick(), wish()).prop_map(|(holder, wish)| Call::Io { holder, wish }),
    ]
}

/// A few opens of one file that let each other be, and then above all locks.
pub(super) fn locking() -> impl Strategy<Value = Vec<Call>> {
    let how = How { may_lock: true, lock: None, resumable: true, guard: false };
    let open = move |create: u8| {
        let session = usize::from(create) % SESSIONS.len();
        Call::Open { session, file: 0, mode: 1, create, looks_first: false, how }
    };
    let calls = vec(prop_oneof![30 => lock_call(), 1 => call()], 1..200);
    calls.prop_map(move |calls| (0..5).map(open).chain(calls).collect())
}
