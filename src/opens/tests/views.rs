//! What the administrator is told of the table, and an open that the administrator ends.

use super::*;

#[test]
fn opens_are_told_in_the_order_of_their_ids_from_any_place_on() {
    let mut table = table();
    for n in [5, 1, 4, 2, 3] {
        table.admit(second(0), admission(A1, n, FILE, OpenMode::READ)).unwrap();
    }
    let after = |table: &OpenTable, after: Option<u64>| {
        table.opens_after(after.map(OpenId)).map(|open| open.open.0).collect::<Vec<_>>()
    };
    assert_eq!(after(&table, None), [1, 2, 3, 4, 5]);
    assert_eq!(after(&table, Some(2)), [3, 4, 5]);
    table.begin_close(A1, HandleId(3)).unwrap();
    assert_eq!(after(&table, Some(2)), [4, 5]);
    assert_eq!(after(&table, Some(3)), [4, 5], "the place of an open that is gone is a place");
    assert_eq!(after(&table, Some(5)), [0; 0]);
    assert_eq!((table.open(OpenId(3)), table.holders_of(OpenId(3)).count()), (None, 0));
    assert_eq!(table.open(OpenId(4)).unwrap().holders, [HandleId(4)]);
}

#[test]
fn holders_locks_and_waits_are_counted_where_they_are() {
    let mut table = table();
    for (n, session) in [(1, A1), (2, B1)] {
        admit_locker(&mut table, session, n);
    }
    let key = issue(&mut table, A1, 1);
    table.resume(second(0), &key, claim(A2, 7)).unwrap();
    let lock = |start, end, wait| LockRequest {
        request: RequestId(start),
        range: range(start, end),
        mode: LockMode::Exclusive,
        wait,
    };
    table.lock(second(0), A1, HandleId(1), lock(1, 10, Duration::ZERO)).unwrap();
    table.lock(second(0), A2, HandleId(7), lock(20, 30, Duration::ZERO)).unwrap();
    table.lock(second(0), B1, HandleId(2), lock(5, 6, GRACE)).unwrap();
    let handles: Vec<HandleId> = table.holders_of(OpenId(1)).map(|holder| holder.handle).collect();
    assert_eq!(handles, [HandleId(1), HandleId(7)]);
    assert_eq!((table.locks_len(), table.waits_len(), table.orphans_len()), (2, 1, 0));
    assert_eq!((table.waits_of(OpenId(1)), table.waits_of(OpenId(2)), table.waits_of(OpenId(3))), (0, 1, 0));
    table.session_away(second(1), A1);
    table.session_away(second(1), A2);
    assert_eq!(table.orphans_len(), 1);
}

#[test]
fn an_open_that_is_released_ends_whoever_holds_it_and_its_keys_die() {
    let mut table = table();
    admit_locker(&mut table, A1, 1);
    admit_locker(&mut table, B1, 2);
    let key = issue(&mut table, A1, 1);
    table.resume(second(0), &key, claim(A2, 7)).unwrap();
    let lock = LockRequest {
        request: RequestId(1),
        range: ByteRange::ALL,
        mode: LockMode::Exclusive,
        wait: Duration::ZERO,
    };
    table.lock(second(0), A1, HandleId(1), lock).unwrap();
    table.lock(second(0), B1, HandleId(2), LockRequest { wait: GRACE, ..lock }).unwrap();
    table.session_away(second(0), A2);
    events(&mut table);

    assert!(table.release(second(1), OpenId(1)));
    let said = events(&mut table);
    assert_eq!(said[..3], [drained(A1, 1), drained(A2, 7), closed(1)]);
    let granted = |event: &TableEvent| matches!(event, TableEvent::LockEnded { outcome: Ok(()), .. });
    assert!(granted(&said[3]) && said.len() == 4, "its lock goes to who waited: {said:?}");
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::READ), Err(refused(Reason::BadHandle)));
    assert_eq!(table.resume(second(1), &key, claim(A2, 8)), Err(refused(Reason::Released)));
    assert!(!table.release(second(1), OpenId(1)), "there is none any more");
}

#[test]
fn what_executes_is_finished_before_a_released_open_is_gone() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    for _ in 0..2 {
        assert!(table.release(second(1), OpenId(1)), "the second time it is ending already");
        assert_eq!(events(&mut table), []);
        assert_eq!(table.open(OpenId(1)).unwrap().phase, OpenPhase::Closing);
    }
    assert_eq!(admit(&mut table, second(1), B1, 2, EXCLUSIVE), Err(busy(OpenTable::DRAIN_RETRY)));
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    admit(&mut table, second(1), B1, 2, EXCLUSIVE).unwrap();
}
