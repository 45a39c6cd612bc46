//! Byte-range locks that need no waiting: who gets one, whose it is, what it keeps out, how many there can be.

use super::*;

const SHARED: LockMode = LockMode::Shared;
const WRITER: LockMode = LockMode::Exclusive;

/// Handle `n` is A1's, 1; A2's, 2; B1's, 3.
fn three() -> OpenTable {
    let mut table = table();
    for (n, session) in [(1, A1), (2, A2), (3, B1)] {
        admit_locker(&mut table, session, n);
    }
    table
}

fn session_of(handle: u64) -> SessionId {
    [A1, A2, B1][usize::try_from(handle - 1).unwrap() % 3]
}

fn attempt(
    table: &mut OpenTable,
    now: Time,
    handle: u64,
    range: ByteRange,
    mode: LockMode,
) -> Result<LockAnswer, Refusal> {
    let asked = LockRequest { request: RequestId(1), range, mode, wait: Duration::ZERO };
    table.lock(now, session_of(handle), HandleId(handle), asked)
}

fn unlock(table: &mut OpenTable, handle: u64, range: ByteRange) {
    table.unlock(second(0), session_of(handle), HandleId(handle), range).unwrap();
}

fn held(left: Duration) -> Refusal {
    Refusal { reason: Reason::Locked, ..Refusal::busy(left) }
}

const NOBODY_KNOWS: Duration = Duration::ZERO;

#[test]
fn b29_an_exclusive_lock_excludes_and_shared_ones_do_not() {
    let mut table = three();
    assert_eq!(attempt(&mut table, second(0), 1, range(0, 10), SHARED), Ok(LockAnswer::Granted));
    assert_eq!(attempt(&mut table, second(0), 2, range(5, 15), SHARED), Ok(LockAnswer::Granted));
    let before = image(&table);
    assert_eq!(attempt(&mut table, second(0), 3, range(9, 10), WRITER), Err(held(NOBODY_KNOWS)));
    assert_eq!(attempt(&mut table, second(0), 1, range(0, 6), WRITER), Err(held(NOBODY_KNOWS)));
    assert_eq!(image(&table), before);
    assert_eq!(attempt(&mut table, second(0), 1, range(0, 5), WRITER), Ok(LockAnswer::Granted));
    assert_eq!(attempt(&mut table, second(0), 2, range(4, 5), SHARED), Err(held(NOBODY_KNOWS)));
    assert_eq!(table.locks(OpenId(1)), [(range(0, 5), WRITER), (range(5, 10), SHARED)]);
    unlock(&mut table, 1, range(3, 7));
    assert_eq!(table.locks(OpenId(1)), [(range(0, 3), WRITER), (range(7, 10), SHARED)]);
    assert_eq!(attempt(&mut table, second(0), 2, range(3, 5), WRITER), Ok(LockAnswer::Granted));
    assert_eq!(events(&mut table), [], "nobody waited");
}

#[test]
fn locks_are_of_one_file() {
    let mut table = three();
    let rights = OpenMode::READ_WRITE.rights.union(Rights::LOCK);
    let other = Admission { rights, ..admission(A1, 4, OTHER_FILE, OpenMode::READ_WRITE) };
    table.admit(second(0), other).unwrap();
    attempt(&mut table, second(0), 1, ByteRange::ALL, WRITER).unwrap();
    assert_eq!(attempt(&mut table, second(0), 4, ByteRange::ALL, WRITER), Ok(LockAnswer::Granted));
    assert_eq!(table.file_of(OpenId(4)), Some(OTHER_FILE));
    assert_eq!(table.file_of(OpenId(5)), None);
    assert_eq!(table.locks(OpenId(5)), []);
}

#[test]
fn locking_needs_the_right_and_the_handle() {
    let mut table = three();
    admit(&mut table, second(0), A1, 4, OpenMode::READ_WRITE).unwrap();
    let denied = refused(Reason::PermissionDenied);
    assert_eq!(attempt(&mut table, second(0), 4, range(0, 1), SHARED), Err(denied));
    assert_eq!(table.unlock(second(0), A1, HandleId(4), range(0, 1)), Err(denied));
    let asked = LockRequest { request: RequestId(1), range: range(0, 1), mode: SHARED, wait: NOBODY_KNOWS };
    for (session, handle) in [(A2, 1), (A1, 9)] {
        let bad = refused(Reason::BadHandle);
        assert_eq!(table.lock(second(0), session, HandleId(handle), asked), Err(bad));
        assert_eq!(table.unlock(second(0), session, HandleId(handle), range(0, 1)), Err(bad));
    }
    unlock(&mut table, 1, ByteRange::ALL);
    assert_eq!(table.locks(OpenId(1)), []);
}

#[test]
fn b04_b30_a_lock_is_for_all_duplicates_and_outlasts_each() {
    let mut table = three();
    attempt(&mut table, second(0), 1, range(0, 10), WRITER).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(0), &key, Claim { handle: HandleId(5), ..claim(A2, 5) }).unwrap();
    assert_eq!(
        table.check_io(second(0), OpenId(1), range(0, 10), true),
        Ok(()),
        "also through the duplicate"
    );
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(table.locks(OpenId(1)), [(range(0, 10), WRITER)]);
    // The duplicate unlocks what the first handle locked.
    table.unlock(second(0), A2, HandleId(5), range(0, 5)).unwrap();
    assert_eq!(table.locks(OpenId(1)), [(range(5, 10), WRITER)]);
    table.begin_close(A2, HandleId(5)).unwrap();
    assert_eq!(table.locks(OpenId(1)), []);
    assert_eq!(attempt(&mut table, second(0), 3, range(5, 10), WRITER), Ok(LockAnswer::Granted));
}

#[test]
fn locks_last_while_an_open_drains() {
    let mut table = three();
    attempt(&mut table, second(0), 1, range(0, 10), WRITER).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(
        attempt(&mut table, second(0), 2, range(0, 1), SHARED),
        Err(held(OpenTable::DRAIN_RETRY)),
        "a write may still be under way"
    );
    table.end_operation(HandleId(1));
    assert_eq!(attempt(&mut table, second(0), 2, range(0, 1), SHARED), Ok(LockAnswer::Granted));
}

#[test]
fn locks_keep_others_from_reading_and_writing() {
    let mut table = three();
    for (open, is_write) in [(1, true), (2, true), (3, false)] {
        assert_eq!(table.check_io(second(0), OpenId(open), ByteRange::ALL, is_write), Ok(()));
    }
    attempt(&mut table, second(0), 1, range(10, 20), WRITER).unwrap();
    attempt(&mut table, second(0), 1, range(20, 30), SHARED).unwrap();
    for (start, end, may_read, may_write) in [
        (0, 10, true, true),
        (9, 11, false, false),
        (19, 20, false, false),
        (20, 30, true, false),
        (29, 40, true, false),
        (30, 40, true, true),
        (0, 100, false, false),
    ] {
        for (is_write, is_allowed) in [(false, may_read), (true, may_write)] {
            let answer = table.check_io(second(0), OpenId(2), range(start, end), is_write);
            assert_eq!(answer.is_ok(), is_allowed, "{start}..{end} {is_write}");
            assert!(answer.is_ok() || answer == Err(held(NOBODY_KNOWS)));
            assert_eq!(table.check_io(second(0), OpenId(1), range(start, end), is_write), Ok(()));
        }
    }
    attempt(&mut table, second(0), 2, range(25, 30), SHARED).unwrap();
    let answer = table.check_io(second(0), OpenId(1), range(25, 26), true);
    assert_eq!(answer, Err(held(NOBODY_KNOWS)), "a lock of its own does not help");
}

#[test]
fn an_orphan_keeps_its_locks_for_its_grace_and_says_how_long() {
    let mut table = three();
    attempt(&mut table, second(0), 1, range(0, 10), WRITER).unwrap();
    table.session_away(second(10), A1);
    let left = Err(held(Duration::from_secs(40)));
    assert_eq!(attempt(&mut table, second(30), 3, range(0, 1), SHARED), left);
    assert_eq!(table.check_io(second(30), OpenId(3), range(0, 1), false), left.map(drop));
    // A live one beside it: nobody knows.
    attempt(&mut table, second(30), 2, range(20, 30), SHARED).unwrap();
    assert_eq!(attempt(&mut table, second(30), 3, range(5, 25), WRITER), Err(held(NOBODY_KNOWS)));
    // The grace is over.
    assert_eq!(attempt(&mut table, second(70), 3, range(5, 25), WRITER), Err(held(NOBODY_KNOWS)));
    assert_eq!(table.opens_len(), 3, "a contender that must wait anyway breaks nothing");
    assert_eq!(attempt(&mut table, second(70), 3, range(0, 1), WRITER), Ok(LockAnswer::Granted));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
}

#[test]
fn who_reads_or_writes_locked_bytes_is_a_contender_too() {
    for is_write in [false, true] {
        let mut table = three();
        attempt(&mut table, second(0), 1, range(0, 10), WRITER).unwrap();
        table.session_away(second(10), A1);
        let left = Err(held(Duration::from_millis(1)));
        assert_eq!(table.check_io(Time(second(70).0 - 1), OpenId(3), range(0, 1), is_write), left);
        table.expire(second(70));
        assert_eq!(
            table.check_io(second(70), OpenId(3), range(10, 11), is_write),
            Ok(()),
            "no lock is in the way"
        );
        assert_eq!(table.opens_len(), 3);
        assert_eq!(table.check_io(second(70), OpenId(3), range(0, 1), is_write), Ok(()));
        assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    }
}

#[test]
fn an_orphan_that_still_writes_after_its_grace_keeps_its_locks_until_then() {
    let mut table = three();
    attempt(&mut table, second(0), 1, range(0, 10), WRITER).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.session_away(second(10), A1);
    let wait = Err(held(OpenTable::DRAIN_RETRY));
    assert_eq!(attempt(&mut table, second(70), 3, range(0, 1), WRITER), wait);
    assert_eq!(attempt(&mut table, second(71), 3, range(0, 1), WRITER), wait);
    table.end_operation(HandleId(1));
    assert_eq!(attempt(&mut table, second(72), 3, range(0, 1), WRITER), Ok(LockAnswer::Granted));
}

fn with_lock(session: SessionId, n: u64, lock: (ByteRange, LockMode)) -> Admission {
    let asked = admission(session, n, FILE, OpenMode::READ_WRITE);
    Admission { rights: asked.rights.union(Rights::LOCK), lock: Some(lock), ..asked }
}

#[test]
fn a_lock_that_comes_with_an_open_is_taken_with_it_or_nothing_is() {
    let mut table = table();
    table.admit(second(0), with_lock(A1, 1, (range(0, 10), WRITER))).unwrap();
    assert_eq!(table.locks(OpenId(1)), [(range(0, 10), WRITER)]);
    let before = image(&table);
    let answer = table.admit(second(0), with_lock(B1, 2, (range(9, 20), SHARED)));
    assert_eq!(answer, Err(held(NOBODY_KNOWS)));
    let denied =
        Admission { rights: OpenMode::READ_WRITE.rights, ..with_lock(B1, 2, (range(10, 20), SHARED)) };
    assert_eq!(table.admit(second(0), denied), Err(refused(Reason::PermissionDenied)));
    assert_eq!(image(&table), before);
    table.admit(second(0), with_lock(B1, 2, (range(10, 20), WRITER))).unwrap();
    // The same request again: its lock is as its owner has left it.
    table.unlock(second(0), B1, HandleId(2), range(10, 15)).unwrap();
    let again = table.admit(second(0), with_lock(B1, 2, (range(10, 20), WRITER))).unwrap();
    assert!(!again.is_new_open);
    assert_eq!(table.locks(OpenId(2)), [(range(15, 20), WRITER)]);
}

#[test]
fn an_open_with_a_lock_breaks_orphans_whose_grace_is_over_and_waits_for_others() {
    let mut table = table();
    table.admit(second(0), with_lock(A1, 1, (range(0, 10), WRITER))).unwrap();
    table.session_away(second(10), A1);
    let before = image(&table);
    let answer = table.admit(second(60), with_lock(B1, 2, (ByteRange::ALL, WRITER)));
    assert_eq!(answer, Err(held(Duration::from_secs(10))));
    assert_eq!(image(&table), before);
    table.admit(second(70), with_lock(B1, 2, (ByteRange::ALL, WRITER))).unwrap();
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
}

#[test]
fn an_open_whose_lock_somebody_waits_for_is_refused_and_breaks_nothing() {
    let mut table = three();
    attempt(&mut table, second(0), 1, range(0, 10), WRITER).unwrap();
    table.session_away(second(0), A1);
    let wait = Duration::from_secs(1000);
    let waiting = LockRequest { request: RequestId(7), range: range(0, 1), mode: WRITER, wait };
    assert_eq!(table.lock(second(1), A2, HandleId(2), waiting), Ok(LockAnswer::Queued));
    let before = image(&table);
    let answer = table.admit(second(99), with_lock(B1, 4, (range(0, 5), WRITER)));
    assert_eq!(answer, Err(held(NOBODY_KNOWS)), "the orphan's lock would go to who waits");
    assert_eq!(image(&table), before);
}

/// Locks `count` single bytes that do not touch, from `first` on.
fn fill(table: &mut OpenTable, handle: u64, first: u64, count: u64) {
    for n in 0..count {
        let byte = range((first + n) * 2, (first + n) * 2 + 1);
        assert_eq!(attempt(table, second(0), handle, byte, WRITER), Ok(LockAnswer::Granted));
    }
}

#[test]
fn t17_the_4097th_range_of_an_open_is_refused_and_changes_nothing() {
    let mut table = three();
    fill(&mut table, 1, 0, 4095);
    let wide = range(20_000, 20_010);
    attempt(&mut table, second(0), 1, wide, WRITER).unwrap();
    let before = image(&table);
    let quota = refused(Reason::Quota);
    assert_eq!(attempt(&mut table, second(0), 1, range(30_000, 30_001), WRITER), Err(quota));
    assert_eq!(attempt(&mut table, second(0), 1, range(20_004, 20_005), SHARED), Err(quota), "one in three");
    let split = table.unlock(second(0), A1, HandleId(1), range(20_004, 20_005));
    assert_eq!(split, Err(quota), "one in two");
    assert_eq!(image(&table), before);
    // What makes no more of them goes on: widening, merging, changing, unlocking, and another open.
    attempt(&mut table, second(0), 1, range(20_010, 20_020), WRITER).unwrap();
    attempt(&mut table, second(0), 1, range(20_000, 20_020), SHARED).unwrap();
    attempt(&mut table, second(0), 1, range(1, 2), WRITER).unwrap();
    assert_eq!(table.locks(OpenId(1)).len(), 4095);
    table.unlock(second(0), A1, HandleId(1), range(20_004, 20_005)).unwrap();
    assert_eq!(table.locks(OpenId(1)).len(), 4096);
    attempt(&mut table, second(0), 2, range(30_000, 30_001), WRITER).unwrap();
    table.check_invariants();
}

#[test]
fn t17_the_65537th_lock_of_an_identity_is_refused_and_changes_nothing() {
    let mut table = table();
    for handle in 1..=17 {
        let asked = admission(A1, handle, FILE, OpenMode::READ_WRITE);
        let rights = asked.rights.union(Rights::LOCK);
        table.admit(second(0), Admission { rights, ..asked }).unwrap();
    }
    admit_locker(&mut table, B1, 18);
    let byte = |n: u64| range(n * 2, n * 2 + 1);
    let ask = |n| LockRequest { request: RequestId(1), range: byte(n), mode: WRITER, wait: NOBODY_KNOWS };
    for n in 0..65_536 {
        table.lock(second(0), A1, HandleId(n % 16 + 1), ask(n)).unwrap();
    }
    let before = image(&table);
    let quota = refused(Reason::Quota);
    assert_eq!(table.lock(second(0), A1, HandleId(17), ask(70_000)), Err(quota));
    assert_eq!(table.admit(second(0), with_lock(A1, 19, (byte(70_000), SHARED))), Err(quota));
    assert_eq!(image(&table), before);
    assert_eq!(table.lock(second(0), B1, HandleId(18), ask(70_000)), Ok(LockAnswer::Granted));
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(table.lock(second(0), A1, HandleId(17), ask(70_001)), Ok(LockAnswer::Granted));
    assert_eq!(table.lock_use[&ALICE].ranges, 65_536 - 4096 + 1);
}
