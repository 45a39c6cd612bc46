//! Orphans after their grace: they stay, they are broken, they are told about.

use super::*;
use crate::model::Ending;

/// Opens `n` of a file of its own for each number, and a key of each.
fn opens(table: &mut OpenTable, session: SessionId, numbers: core::ops::Range<u64>) -> Vec<ResumeKey> {
    let open = |n| {
        let file = FileIdentity { inode: 100 + n, ..FILE };
        table.admit(second(0), admission(session, n, file, EXCLUSIVE)).unwrap();
        issue(table, session, n)
    };
    numbers.map(open).collect()
}

fn assert_told(table: &mut OpenTable, now: Time, key: &ResumeKey, session: SessionId, reason: Reason) {
    let hashed = table.hasher.count.get();
    assert_eq!(table.resume(now, key, claim(session, 999)), Err(refused(reason)));
    assert_eq!(table.hasher.count.get() - hashed, 1, "as much work as for a good key");
}

#[test]
fn b13_an_orphan_that_nobody_wants_outlasts_its_grace() {
    let mut table = table();
    let key = opens(&mut table, A1, 1..2).remove(0);
    table.session_away(second(0), A1);
    table.expire(second(3600));
    assert_eq!((table.opens_len(), table.lapsed_len()), (1, 1));
    assert_eq!(table.resume(second(3601), &key, claim(A2, 2)).unwrap().open, OpenId(1));
    assert_eq!((table.lapsed_len(), table.next_deadline()), (0, None));
}

#[test]
fn b16_the_owner_hears_that_another_client_took_the_file_and_nobody_else_does() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.session_away(second(0), A1);
    table.expire(second(60));
    admit(&mut table, second(60), B1, 2, EXCLUSIVE).unwrap();
    assert_told(&mut table, second(61), &key, A2, Reason::TakenOver);
    assert_told(&mut table, second(62), &key, B1, Reason::ResumeRefused);
    let mut wrong = key.clone();
    wrong.secret[0] ^= 1;
    assert_told(&mut table, second(63), &wrong, A2, Reason::ResumeRefused);
    assert_told(&mut table, second(64), &key, A2, Reason::TakenOver);
}

/// A session that comes back to its handle has no key to ask with: it is told that and why the handle has ended.
#[test]
fn b16_a_session_is_told_why_its_open_has_ended() {
    for (at, why) in [(60, OpenEnd::TakenOver), (61 + 86_400, OpenEnd::Expired)] {
        let mut table = table();
        admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
        table.session_away(second(0), A1);
        table.expire(second(at));
        drop(admit(&mut table, second(at), B1, 2, EXCLUSIVE));
        let told = TableEvent::OpenEnded { session: A1, handle: HandleId(1), ending: why.ending() };
        let all: Vec<_> = core::iter::from_fn(|| table.poll_event()).collect();
        let at = |event: &TableEvent| all.iter().position(|one| one == event);
        assert!(at(&told).is_some() && at(&told) < at(&drained(A1, 1)), "{all:?}");
        let orphan = TableEvent::Ended { open: OpenId(1), owner: ALICE, why };
        assert_eq!(all.iter().filter(|event| **event == orphan).count(), 1, "{all:?}");
    }
}

#[test]
fn an_orphan_that_is_too_old_is_closed_and_its_owner_hears_it() {
    let limits = Limits { orphan_age_max: Duration::from_secs(1000), ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    let key = opens(&mut table, A1, 1..2).remove(0);
    table.session_away(second(0), A1);
    table.expire(second(60));
    assert_eq!(table.next_deadline(), Some(second(1060)));
    table.expire(Time(second(1060).0 - 1));
    assert_eq!(table.opens_len(), 1);
    table.expire(second(1060));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    assert_told(&mut table, second(2000), &key, A1, Reason::Expired);
}

#[test]
fn an_orphan_that_cannot_be_resumed_goes_with_its_grace() {
    let mut table = table();
    let asked = Admission { resumable: false, ..admission(A1, 1, FILE, EXCLUSIVE) };
    table.admit(second(0), asked).unwrap();
    table.session_away(second(0), A1);
    table.expire(second(60));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    assert_eq!(table.tombstones_len(), 0, "nobody has a key to ask with");
}

#[test]
fn who_waits_for_a_lock_gets_that_of_an_orphan_whose_grace_is_over() {
    let mut table = table();
    for (session, n) in [(A1, 1), (A2, 2), (B1, 3)] {
        admit_locker(&mut table, session, n);
    }
    let key = issue(&mut table, A1, 1);
    let lock = |n, mode, wait| LockRequest { request: RequestId(n), range: range(0, 10), mode, wait };
    for (session, n) in [(A1, 1), (A2, 2)] {
        let asked = lock(n, LockMode::Shared, Duration::ZERO);
        assert_eq!(table.lock(second(0), session, HandleId(n), asked), Ok(LockAnswer::Granted));
    }
    let asked = lock(9, LockMode::Exclusive, Duration::from_secs(3000));
    assert_eq!(table.lock(second(0), B1, HandleId(3), asked), Ok(LockAnswer::Queued));
    table.session_away(second(0), A1);
    table.expire(second(60));
    assert_eq!((table.opens_len(), table.lapsed_len()), (3, 1), "another lock is in the way as well");
    table.unlock(second(70), A2, HandleId(2), range(0, 10)).unwrap();
    let said = events(&mut table);
    assert!(said.contains(&closed(1)), "{said:?}");
    let is_granted = |event: &TableEvent| {
        matches!(event, TableEvent::LockEnded { request: RequestId(9), outcome: Ok(()), .. })
    };
    assert!(said.iter().any(is_granted), "{said:?}");
    assert_told(&mut table, second(71), &key, A1, Reason::TakenOver);
}

#[test]
fn t18_of_lapsed_orphans_the_oldest_go_and_within_the_grace_none() {
    let limits = Limits { lapsed_per_client: 3, lapsed_total: 5, ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    let keys = opens(&mut table, A1, 1..11);
    let others = opens(&mut table, B1, 11..14);
    table.session_away(second(0), A1);
    table.expire(second(59));
    assert_eq!(table.opens_len(), 13);
    table.expire(second(60));
    assert_eq!((table.lapsed_len(), table.opens_len()), (3, 6));
    for key in &keys[..7] {
        assert_told(&mut table, second(61), key, A2, Reason::Expired);
    }
    // Over the bound of all, whoever has most gives.
    table.session_away(second(61), B1);
    table.expire(second(121));
    assert_eq!(table.lapsed_len(), 5);
    let back = |table: &mut OpenTable, key: &ResumeKey, session, handle| {
        table.resume(second(122), key, claim(session, handle)).is_ok()
    };
    let mine: Vec<bool> =
        keys[7..].iter().zip(500..).map(|(key, handle)| back(&mut table, key, A2, handle)).collect();
    let his: Vec<bool> =
        others.iter().zip(600..).map(|(key, handle)| back(&mut table, key, B1, handle)).collect();
    assert_eq!(mine.iter().chain(&his).filter(|is_back| **is_back).count(), 5);
    assert!(his.iter().all(|is_back| *is_back) || mine.iter().all(|is_back| *is_back));
}

#[test]
fn a_client_that_has_all_its_opens_gives_up_a_lapsed_one_for_a_new_one() {
    let limits = Limits { opens_per_client: 2, ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    let keys = opens(&mut table, A1, 1..3);
    table.session_away(second(0), A1);
    let asked = || admission(A2, 3, FILE, EXCLUSIVE);
    assert!(!table.has_room(second(59), &ALICE));
    assert_eq!(table.admit(second(59), asked()), Err(refused(Reason::Quota)));
    assert!(table.has_room(second(60), &ALICE));
    table.admit(second(60), asked()).unwrap();
    assert_told(&mut table, second(60), &keys[0], A2, Reason::Expired);
    assert!(table.resume(second(60), &keys[1], claim(A2, 9)).is_ok());
}

#[test]
fn tombstones_are_bounded_and_the_oldest_goes() {
    let limits = Limits { tombstones_per_client: 2, tombstones_total: 3, ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    let keys = opens(&mut table, A1, 1..4);
    let others = opens(&mut table, B1, 4..6);
    for open in 1..4 {
        assert!(table.release(second(1), OpenId(open)));
    }
    assert_eq!(table.tombstones_len(), 2);
    assert_told(&mut table, second(1), &keys[0], A1, Reason::ResumeRefused);
    assert_told(&mut table, second(1), &keys[1], A1, Reason::Released);
    table.release(second(1), OpenId(4));
    table.release(second(1), OpenId(5));
    assert_eq!(table.tombstones_len(), 3);
    assert_told(&mut table, second(1), &keys[1], A1, Reason::ResumeRefused);
    assert_told(&mut table, second(1), &others[0], B1, Reason::Released);
}

#[test]
fn an_ending_is_remembered_for_an_age_and_the_oldest_is_forgotten_first() {
    let limits = Limits { tombstone_age_max: Duration::from_secs(50), ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    let keys = opens(&mut table, A1, 1..4);
    for (open, at) in [(1, 1), (2, 2), (3, 40)] {
        table.release(second(at), OpenId(open));
    }
    assert_eq!(table.next_deadline(), Some(second(51)));
    assert_told(&mut table, second(51), &keys[0], A1, Reason::ResumeRefused);
    assert_told(&mut table, second(51), &keys[1], A1, Reason::Released);
    assert_eq!(table.tombstones_len(), 3, "no timer has come by");
    table.expire(second(52));
    assert_eq!((table.tombstones_len(), table.next_deadline()), (1, Some(second(90))));
    assert_told(&mut table, second(89), &keys[2], A1, Reason::Released);
}

#[test]
fn a_released_open_ends_under_its_holder() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    assert!(table.release(second(1), OpenId(1)));
    assert!(!table.release(second(1), OpenId(2)));
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::READ), Err(refused(Reason::BadHandle)));
    assert_eq!(events(&mut table), []);
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
}

#[test]
fn a_guarded_orphan_keeps_everybody_out_for_its_grace_and_no_longer() {
    let mut table = table();
    let asked = Admission { guard: true, ..admission(A1, 1, FILE, OpenMode::READ) };
    table.admit(second(0), asked).unwrap();
    admit(&mut table, second(0), B1, 2, OpenMode::READ).unwrap();
    table.session_away(second(10), A1);
    let left = Err(busy(Duration::from_secs(10)));
    assert_eq!(admit(&mut table, second(60), B1, 3, OpenMode::READ), left, "though it is compatible");
    assert_eq!(admit(&mut table, second(60), A2, 3, OpenMode::READ), left, "its owner has the key");
    assert_eq!(table.begin_removal(second(60), B1, &[FILE]), left.map(drop));
    assert_eq!(table.begin_operation(B1, HandleId(2), Rights::READ), Ok(OpenId(2)), "who is in is in");
    admit(&mut table, second(70), B1, 3, OpenMode::READ).unwrap();
    assert_eq!(table.opens_len(), 3, "and it stays, because nothing is in its way");
    table.session_back(A1);
    admit(&mut table, second(71), B1, 4, OpenMode::READ).unwrap();
}

#[test]
fn what_is_told_of_an_ending_is_what_it_was() {
    let told = [Ending::TakenOver, Ending::Expired, Ending::Released].map(Ending::reason);
    assert_eq!(told, [Reason::TakenOver, Reason::Expired, Reason::Released]);
}
