//! Locks that wait: whose turn it is, and every way in which a wait ends.

use super::super::queued::LOOKS;
use super::*;

const SHARED: LockMode = LockMode::Shared;
const WRITER: LockMode = LockMode::Exclusive;
const MINUTE: Duration = Duration::from_secs(60);

/// A table with one open for each of `handles`; handle, open and create id are the same number. The odd ones are
/// A1's, the even ones B1's.
fn lockers(handles: u64) -> OpenTable {
    let mut table = table();
    (1..=handles).for_each(|n| admit_locker(&mut table, session_of(n), n));
    table
}

fn session_of(handle: u64) -> SessionId {
    if handle % 2 == 1 { A1 } else { B1 }
}

/// Asks for a lock under the number of the handle as request.
fn ask(table: &mut OpenTable, handle: u64, range: ByteRange, mode: LockMode, wait: Duration) -> LockAnswer {
    let asked = LockRequest { request: RequestId(handle), range, mode, wait };
    table.lock(second(0), session_of(handle), HandleId(handle), asked).unwrap()
}

fn take(table: &mut OpenTable, handle: u64, range: ByteRange, mode: LockMode) {
    assert_eq!(ask(table, handle, range, mode, Duration::ZERO), LockAnswer::Granted, "{handle}");
}

fn wait(table: &mut OpenTable, handle: u64, range: ByteRange, mode: LockMode) {
    assert_eq!(ask(table, handle, range, mode, MINUTE), LockAnswer::Queued, "{handle}");
}

fn is_refused(table: &mut OpenTable, handle: u64, range: ByteRange, mode: LockMode) -> bool {
    let asked = LockRequest { request: RequestId(99), range, mode, wait: Duration::ZERO };
    let answer = table.lock(second(0), session_of(handle), HandleId(handle), asked);
    answer == Err(refused(Reason::Locked))
}

fn unlock(table: &mut OpenTable, handle: u64, range: ByteRange) {
    table.unlock(second(0), session_of(handle), HandleId(handle), range).unwrap();
}

/// The locks that ended, in order: the request and how.
fn ended(table: &mut OpenTable) -> Vec<(u64, Result<(), Reason>)> {
    let ended = |event| match event {
        TableEvent::LockEnded { request, outcome, .. } => {
            Some((request.0, outcome.map_err(|refusal: Refusal| refusal.reason)))
        }
        _ => None,
    };
    events(table).into_iter().filter_map(ended).collect()
}

#[test]
fn who_waits_gets_the_lock_when_it_is_unlocked_and_hears_which() {
    let mut table = lockers(2);
    take(&mut table, 1, range(0, 10), WRITER);
    wait(&mut table, 2, range(5, 15), SHARED);
    unlock(&mut table, 1, range(0, 5));
    assert_eq!(events(&mut table), [], "that was not in its way");
    unlock(&mut table, 1, range(5, 10));
    let (session, handle, request) = (B1, HandleId(2), RequestId(2));
    let (range, mode, outcome) = (range(5, 15), SHARED, Ok(()));
    assert_eq!(
        events(&mut table),
        [TableEvent::LockEnded { session, handle, request, range, mode, outcome }]
    );
    assert_eq!(table.locks(OpenId(2)), [(range, SHARED)]);
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn a_lock_that_is_free_is_granted_at_once_whatever_the_wait() {
    let mut table = lockers(1);
    assert_eq!(ask(&mut table, 1, range(0, 1), WRITER, MINUTE), LockAnswer::Granted);
    assert_eq!(events(&mut table), []);
}

#[test]
fn waiters_are_served_in_their_order() {
    let mut table = lockers(6);
    take(&mut table, 1, range(0, 10), WRITER);
    for handle in 2..=4 {
        wait(&mut table, handle, range(0, 10), WRITER);
    }
    for handle in 1..=4 {
        unlock(&mut table, handle, ByteRange::ALL);
        let next = if handle < 4 { vec![(handle + 1, Ok(()))] } else { vec![] };
        assert_eq!(ended(&mut table), next);
    }
    // Readers come in together, and a writer between them is not passed.
    take(&mut table, 1, range(0, 10), WRITER);
    for (handle, mode) in [(2, SHARED), (3, SHARED), (4, WRITER), (5, SHARED), (6, SHARED)] {
        wait(&mut table, handle, range(0, 10), mode);
    }
    unlock(&mut table, 1, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(2, Ok(())), (3, Ok(()))]);
    unlock(&mut table, 2, ByteRange::ALL);
    assert_eq!(ended(&mut table), []);
    unlock(&mut table, 3, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(4, Ok(()))]);
    unlock(&mut table, 4, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(5, Ok(())), (6, Ok(()))]);
}

#[test]
fn nobody_passes_a_waiter_that_would_conflict() {
    let mut table = lockers(4);
    take(&mut table, 1, range(0, 10), SHARED);
    wait(&mut table, 2, range(5, 20), WRITER);
    assert!(is_refused(&mut table, 3, range(0, 6), SHARED), "a stream of readers must not starve the writer");
    assert!(is_refused(&mut table, 3, range(15, 16), SHARED), "also where nothing is locked");
    take(&mut table, 3, range(0, 5), SHARED);
    take(&mut table, 3, range(20, 30), WRITER);
    wait(&mut table, 4, range(15, 16), SHARED);
    // The one ahead goes, and the one behind is served though nothing was unlocked.
    table.cancel_lock(B1, RequestId(2));
    assert_eq!(ended(&mut table), [(2, Err(Reason::Interrupted)), (4, Ok(()))]);
}

#[test]
fn the_own_bytes_are_changed_without_queueing() {
    let mut table = lockers(3);
    take(&mut table, 1, range(0, 10), SHARED);
    wait(&mut table, 2, range(0, 10), WRITER);
    // Behind the waiter, who waits for this very open, it would wait for itself.
    take(&mut table, 1, range(2, 8), WRITER);
    take(&mut table, 1, range(2, 8), SHARED);
    assert!(is_refused(&mut table, 1, range(2, 11), SHARED), "a byte that is not its own");
    take(&mut table, 1, range(0, 10), WRITER);
    take(&mut table, 1, range(0, 5), SHARED);
    assert!(is_refused(&mut table, 3, range(0, 5), SHARED));
    assert_eq!(ended(&mut table), []);
    unlock(&mut table, 1, range(0, 10));
    assert_eq!(ended(&mut table), [(2, Ok(()))]);
}

#[test]
fn an_upgrade_waits_for_other_readers_only() {
    let mut table = lockers(3);
    take(&mut table, 1, range(0, 10), SHARED);
    take(&mut table, 2, range(0, 10), SHARED);
    wait(&mut table, 3, range(0, 10), WRITER);
    wait(&mut table, 1, range(0, 10), WRITER);
    unlock(&mut table, 2, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(1, Ok(()))], "though it came later");
    unlock(&mut table, 1, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(3, Ok(()))]);
}

#[test]
fn a_request_passes_those_ahead_once_its_open_has_the_bytes() {
    let mut table = lockers(3);
    take(&mut table, 3, range(0, 1), WRITER);
    wait(&mut table, 2, range(0, 10), SHARED);
    wait(&mut table, 1, range(4, 10), WRITER);
    // A reader passes the reader ahead. From now on the one ahead waits for this open, if not before it.
    let asked = LockRequest { request: RequestId(9), range: range(4, 10), mode: SHARED, wait: MINUTE };
    assert_eq!(table.lock(second(0), A1, HandleId(1), asked), Ok(LockAnswer::Granted));
    assert_eq!(ended(&mut table), [(1, Ok(()))]);
    unlock(&mut table, 3, ByteRange::ALL);
    assert_eq!(ended(&mut table), []);
    unlock(&mut table, 1, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(2, Ok(()))]);
}

#[test]
fn a_downgrade_lets_readers_in() {
    let mut table = lockers(3);
    take(&mut table, 1, range(0, 10), WRITER);
    wait(&mut table, 2, range(0, 10), SHARED);
    wait(&mut table, 3, range(3, 4), SHARED);
    take(&mut table, 1, range(3, 10), SHARED);
    assert_eq!(ended(&mut table), [(3, Ok(()))]);
    take(&mut table, 1, range(0, 3), SHARED);
    assert_eq!(ended(&mut table), [(2, Ok(()))]);
}

#[test]
fn an_open_that_ends_lets_others_in() {
    let mut table = lockers(3);
    take(&mut table, 1, range(0, 10), WRITER);
    wait(&mut table, 2, range(0, 10), WRITER);
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(ended(&mut table), [(2, Ok(()))]);
    // An orphan too, when its grace is over.
    wait(&mut table, 3, range(0, 10), WRITER);
    table.session_away(second(0), B1);
    assert_eq!(ended(&mut table), []);
    assert_eq!(table.next_deadline(), Some(second(60)), "of both");
    let asked = LockRequest { request: RequestId(8), range: range(0, 1), mode: SHARED, wait: 2 * MINUTE };
    assert_eq!(table.lock(second(1), A1, HandleId(3), asked), Ok(LockAnswer::Queued));
    table.expire(second(60));
    assert_eq!(ended(&mut table), [(3, Err(Reason::Locked)), (8, Ok(()))]);
}

#[test]
fn a_wait_is_over_from_its_very_microsecond() {
    let mut table = lockers(2);
    take(&mut table, 1, range(0, 10), WRITER);
    wait(&mut table, 2, range(0, 10), WRITER);
    assert_eq!(table.next_deadline(), Some(second(60)));
    table.expire(Time(second(60).0 - 1));
    assert_eq!(ended(&mut table), []);
    table.expire(second(60));
    assert_eq!(ended(&mut table), [(2, Err(Reason::Locked))]);
    // Without a sweeper: an unlock comes first, and is too late for the waiter all the same.
    wait(&mut table, 2, range(0, 10), WRITER);
    table.unlock(second(60), A1, HandleId(1), ByteRange::ALL).unwrap();
    assert_eq!(ended(&mut table), [(2, Err(Reason::Locked))]);
    assert_eq!(table.locks(OpenId(2)), []);
}

#[test]
fn who_waits_behind_an_overdue_waiter_is_not_held_up_by_it() {
    let mut table = lockers(3);
    take(&mut table, 1, range(0, 1), SHARED);
    wait(&mut table, 2, range(0, 10), WRITER);
    let asked = LockRequest { request: RequestId(3), range: range(5, 6), mode: SHARED, wait: Duration::ZERO };
    assert_eq!(table.lock(second(60), A1, HandleId(3), asked), Ok(LockAnswer::Granted));
    assert_eq!(ended(&mut table), [(2, Err(Reason::Locked))]);
}

#[test]
fn the_longest_wait_is_cut() {
    let mut table = lockers(2);
    take(&mut table, 1, range(0, 10), WRITER);
    ask(&mut table, 2, range(0, 1), SHARED, Duration::MAX);
    assert_eq!(table.next_deadline(), Some(second(0).after(Limits::default().lock_wait_max)));
}

#[test]
fn t17_a_deadlock_of_two_ends_by_deadline() {
    let mut table = lockers(2);
    take(&mut table, 1, range(0, 1), WRITER);
    take(&mut table, 2, range(1, 2), WRITER);
    wait(&mut table, 1, range(1, 2), WRITER);
    let asked = LockRequest { request: RequestId(2), range: range(0, 1), mode: WRITER, wait: 2 * MINUTE };
    assert_eq!(table.lock(second(0), B1, HandleId(2), asked), Ok(LockAnswer::Queued));
    table.expire(second(60));
    assert_eq!(ended(&mut table), [(1, Err(Reason::Locked))]);
    table.expire(second(120));
    assert_eq!(ended(&mut table), [(2, Err(Reason::Locked))]);
    assert_eq!((table.locks(OpenId(1)).len(), table.locks(OpenId(2)).len()), (1, 1), "nobody lost a lock");
}

#[test]
fn a_wait_ends_with_its_session_and_the_locks_stay() {
    let mut table = lockers(4);
    take(&mut table, 1, range(0, 1), WRITER);
    take(&mut table, 2, range(1, 2), WRITER);
    wait(&mut table, 3, range(0, 5), WRITER);
    wait(&mut table, 4, range(0, 5), WRITER);
    table.session_away(second(1), A1);
    assert_eq!(ended(&mut table), [(3, Err(Reason::Interrupted))]);
    assert_eq!(table.locks(OpenId(1)), [(range(0, 1), WRITER)]);
    // What was received before the channel broke is not queued for nobody to hear.
    let asked = LockRequest { request: RequestId(9), range: range(1, 2), mode: SHARED, wait: MINUTE };
    assert_eq!(table.lock(second(1), A1, HandleId(3), asked), Err(refused(Reason::Interrupted)));
    table.session_ended(B1);
    assert_eq!(ended(&mut table), [(4, Err(Reason::Interrupted))]);
    table.session_back(A1);
    assert_eq!(table.lock(second(1), A1, HandleId(3), asked), Ok(LockAnswer::Granted));
}

#[test]
fn a_wait_ends_with_its_handle_and_not_with_another_of_the_open() {
    let mut table = lockers(2);
    take(&mut table, 2, range(0, 10), WRITER);
    let key = issue(&mut table, A1, 1);
    table.resume(second(0), &key, claim(A2, 5)).unwrap();
    wait(&mut table, 1, range(0, 10), WRITER);
    let asked = LockRequest { request: RequestId(1), range: range(0, 10), mode: SHARED, wait: MINUTE };
    assert_eq!(table.lock(second(0), A2, HandleId(5), asked), Ok(LockAnswer::Queued), "its own request 1");
    assert_eq!(table.lock(second(0), A2, HandleId(5), asked), Err(refused(Reason::Invalid)));
    // Replaced by a resume.
    table.resume(second(1), &key, replacing(1, claim(A1, 6))).unwrap();
    assert_eq!(ended(&mut table), [(1, Err(Reason::Interrupted))]);
    table.cancel_lock(A1, RequestId(1));
    table.cancel_lock(A2, RequestId(2));
    assert_eq!(ended(&mut table), [], "neither waits");
    unlock(&mut table, 2, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(1, Ok(()))]);
    // The lock is the open's: the other handle has it too.
    assert_eq!(table.locks(OpenId(1)), [(range(0, 10), SHARED)]);
}

#[test]
fn nobody_gets_a_lock_in_the_middle_of_a_call_that_takes_it_away() {
    let mut table = lockers(4);
    take(&mut table, 1, range(0, 10), WRITER);
    wait(&mut table, 3, range(0, 10), WRITER);
    wait(&mut table, 4, range(0, 10), WRITER);
    table.session_ended(A1);
    assert_eq!(ended(&mut table), [(3, Err(Reason::Interrupted)), (4, Ok(()))]);
}

#[test]
fn a_wait_that_would_end_in_one_range_too_many_ends_without() {
    let limits = Limits { locks_per_open: 2, lock_waits_per_client: 2, ..Limits::default() };
    let mut table = OpenTable::new([0; 32], &limits);
    (1..=4).for_each(|n| admit_locker(&mut table, session_of(n), n));
    take(&mut table, 1, range(0, 10), WRITER);
    wait(&mut table, 2, range(0, 1), SHARED);
    wait(&mut table, 4, range(0, 1), SHARED);
    for (request, start) in [(20, 20), (21, 30)] {
        let (range, wait) = (range(start, start + 1), Duration::ZERO);
        let asked = LockRequest { request: RequestId(request), range, mode: SHARED, wait };
        assert_eq!(table.lock(second(0), B1, HandleId(2), asked), Ok(LockAnswer::Granted));
    }
    unlock(&mut table, 1, ByteRange::ALL);
    assert_eq!(ended(&mut table), [(2, Err(Reason::Quota)), (4, Ok(()))]);
}

#[test]
fn t17_the_waiting_locks_of_an_identity_are_counted() {
    let limits = Limits { lock_waits_per_client: 2, ..Limits::default() };
    let mut table = OpenTable::new([0; 32], &limits);
    (1..=7).for_each(|n| admit_locker(&mut table, session_of(n), n));
    take(&mut table, 2, range(0, 10), WRITER);
    wait(&mut table, 1, range(0, 1), SHARED);
    wait(&mut table, 3, range(0, 1), SHARED);
    let before = image(&table);
    let asked = LockRequest { request: RequestId(5), range: range(0, 1), mode: SHARED, wait: MINUTE };
    assert_eq!(table.lock(second(0), A1, HandleId(5), asked), Err(refused(Reason::Quota)));
    assert_eq!(image(&table), before);
    wait(&mut table, 4, range(0, 10), WRITER);
    table.cancel_lock(A1, RequestId(1));
    assert_eq!(table.lock(second(0), A1, HandleId(5), asked), Ok(LockAnswer::Queued));
}

#[test]
fn t17_ten_thousand_waiters_end_with_their_session() {
    let mut table = lockers(4);
    take(&mut table, 1, range(0, 10), WRITER);
    for n in 0..10_000 {
        let (mode, byte) = (if n % 3 == 0 { WRITER } else { SHARED }, range(n % 10, n % 10 + 1));
        let asked = LockRequest { request: RequestId(100 + n), range: byte, mode, wait: MINUTE };
        assert_eq!(table.lock(second(0), B1, HandleId(2 + n % 2 * 2), asked), Ok(LockAnswer::Queued));
    }
    wait(&mut table, 3, range(0, 20), WRITER);
    table.check_invariants();
    table.session_away(second(1), B1);
    let ended = ended(&mut table);
    assert_eq!(ended.len(), 10_000);
    assert!(ended.iter().all(|(_, outcome)| *outcome == Err(Reason::Interrupted)));
    assert_eq!(table.waits.len(), 1);
    table.check_invariants();
}

/// How many nodes of an index of waiters a call looks at.
fn looks(call: impl FnOnce()) -> usize {
    LOOKS.set(0);
    call();
    LOOKS.get()
}

fn wait_as(table: &mut OpenTable, handle: u64, request: u64, range: ByteRange, mode: LockMode) {
    let asked = LockRequest { request: RequestId(request), range, mode, wait: MINUTE };
    assert_eq!(table.lock(second(0), session_of(handle), HandleId(handle), asked), Ok(LockAnswer::Queued));
}

#[test]
fn t17_thousands_who_are_let_in_at_once_do_not_look_at_each_other() {
    let mut table = lockers(2);
    let rest = ByteRange::from_start(1).unwrap();
    take(&mut table, 1, range(0, 1), WRITER);
    take(&mut table, 1, rest, SHARED);
    for n in 0..8192 {
        wait_as(&mut table, 2, 100 + n, range(0, 1), if n % 2 == 0 { SHARED } else { WRITER });
    }
    // They touch, so that it is one lock in the end; and are of one owner, so that none is in another's way.
    for n in 0..8192 {
        wait_as(&mut table, 2, 10_000 + n, range(1 + n, 2 + n), WRITER);
    }
    let looks = looks(|| unlock(&mut table, 1, rest));
    assert_eq!(ended(&mut table).len(), 8192);
    assert_eq!(table.locks(OpenId(2)), [(range(1, 8193), WRITER)]);
    assert!(looks < 8192 * 20, "{looks}");
}

#[test]
fn t17_a_request_does_not_look_at_thousands_who_wait() {
    let mut table = lockers(4);
    take(&mut table, 1, range(0, 10_000), WRITER);
    take(&mut table, 4, range(20_000, 20_001), WRITER);
    for n in 0..16_000 {
        // All on one byte and all different, some of one owner and then some of two.
        let wide = range(5000 - n % 5000, 5001 + n / 4);
        wait_as(&mut table, if n > 12_000 { 2 + n % 2 * 2 } else { 2 }, 100 + n, wide, WRITER);
        if n % 1000 == 0 {
            let own = looks(|| assert!(is_refused(&mut table, 2, range(5000, 5001), SHARED)));
            let other = looks(|| assert!(is_refused(&mut table, 3, range(5000, 5001), SHARED)));
            let aside = looks(|| assert!(is_refused(&mut table, 3, range(20_000, 20_001), SHARED)));
            assert!(own + other + aside < 1000, "{own} {other} {aside} after {n}");
        }
    }
}
