//! Resume keys: who gets in, who does not, and what stays.

use super::*;

/// A table with one open whose session went away at 10 s, and its key.
fn orphan() -> (OpenTable, ResumeKey) {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.session_away(second(10), A1);
    (table, key)
}

/// Asserts that a resume fails with what is told of `why` and the work of one hash, changes nothing, and tells the log.
fn assert_denied(table: &mut OpenTable, now: Time, key: &ResumeKey, claim: Claim<'_>, why: ResumeDenial) {
    let (before, hashed) = (image(table), table.hasher.count.get());
    let session = claim.session;
    assert_eq!(table.resume(now, key, claim), Err(why.told()), "{why:?}");
    assert_eq!(table.hasher.count.get() - hashed, 1, "{why:?}: as much work as for a good key");
    assert_eq!(image(table), before, "{why:?}");
    let open = key.file_id;
    assert_eq!(events(table), [TableEvent::ResumeRefused { session, open, why }]);
}

#[test]
fn b39_b40_a_key_names_open_stamp_and_process_and_counts_up() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    assert_eq!((key.file_id, key.time_stamp_us, key.process_id), (OpenId(1), STAMP_US, PROCESS_ID));
    assert_eq!((key.generation, key.secret), (1, SECRET));
    assert_eq!(issue(&mut table, A1, 1).generation, 2);
}

#[test]
fn b12_b17_a_key_brings_an_orphan_back_with_the_same_rights() {
    let (mut table, key) = orphan();
    let admitted = table.resume(second(20), &key, claim(A2, 2)).unwrap();
    assert_eq!((admitted.open, admitted.handle, admitted.mode), (OpenId(1), HandleId(2), EXCLUSIVE));
    assert_eq!((admitted.rights, admitted.is_new_open), (EXCLUSIVE.rights, false));
    assert_eq!(table.next_deadline(), None);
    assert_eq!(table.begin_operation(A2, HandleId(2), Rights::WRITE), Ok(OpenId(1)));
}

#[test]
fn b01_b24_a_key_gets_a_duplicate_beside_the_first_handle_as_often_as_it_comes() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    for (handle, session) in [(2, A1), (3, A2), (4, A1)] {
        assert_eq!(table.resume(second(1), &key, claim(session, handle)).unwrap().handle, HandleId(handle));
    }
    assert_eq!(table.holder(A1, HandleId(1)).unwrap().session, A1, "no holder is re-pointed");
    assert_eq!(table.holders_len(), 4);
}

#[test]
fn every_wrong_bit_of_a_key_is_refused() {
    let (mut table, key) = orphan();
    let now = second(20);
    for bit in 0..ResumeKey::LEN * 8 {
        let mut bytes = key.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let why = match bit / 8 {
            0..8 => ResumeDenial::NoSuchOpen,
            20..24 => ResumeDenial::NoSuchKey,
            _ => ResumeDenial::WrongSecret,
        };
        assert_denied(&mut table, now, &ResumeKey::from_bytes(&bytes), claim(A2, 2), why);
    }
    assert!(table.resume(now, &key, claim(A2, 2)).is_ok());
}

#[test]
fn t10_a_selector_that_is_there_and_one_that_is_not_cost_one_hash_each() {
    // `assert_denied` counts the hashes of each attempt.
    let (mut table, key) = orphan();
    let absent = ResumeKey { file_id: OpenId(99), ..key.clone() };
    assert_denied(&mut table, second(20), &absent, claim(A2, 2), ResumeDenial::NoSuchOpen);
    let never_issued = ResumeKey { generation: 9, ..key.clone() };
    assert_denied(&mut table, second(20), &never_issued, claim(A2, 2), ResumeDenial::NoSuchKey);
    for at in [0, SECRET.len() - 1] {
        let mut wrong = key.clone();
        wrong.secret[at] ^= 1;
        assert_denied(&mut table, second(20), &wrong, claim(A2, 2), ResumeDenial::WrongSecret);
    }
    assert_denied(&mut table, second(20), &key, claim(B1, 2), ResumeDenial::WrongIdentity);
    table.release(second(20), OpenId(1));
    drop(events(&mut table));
    assert_denied(&mut table, second(21), &absent, claim(A2, 2), ResumeDenial::NoSuchOpen);
    assert_denied(&mut table, second(21), &key, claim(B1, 2), ResumeDenial::WrongIdentity);
    let hashed = table.hasher.count.get();
    assert_eq!(table.resume(second(21), &key, claim(A2, 2)), Err(refused(Reason::Released)));
    assert_eq!(table.hasher.count.get() - hashed, 1, "what its owner hears costs the same");
}

#[test]
fn nothing_matches_the_values_that_stand_in_for_an_absent_open() {
    let mut table = table();
    let nobody = PublicKey([0; 32]);
    let key =
        ResumeKey { file_id: OpenId(0), time_stamp_us: 0, process_id: 0, generation: 0, secret: [0; 16] };
    let asked = Claim { identity: &nobody, ..claim(A1, 2) };
    assert_denied(&mut table, second(0), &key, asked, ResumeDenial::NoSuchOpen);
}

#[test]
fn another_identity_with_the_right_secret_is_refused() {
    let (mut table, key) = orphan();
    assert_denied(&mut table, second(20), &key, claim(B1, 2), ResumeDenial::WrongIdentity);
    assert!(table.resume(second(20), &key, claim(A2, 2)).is_ok(), "another session of the same one is not");
}

#[test]
fn the_hashes_of_a_table_are_worth_nothing_under_another_hash_key() {
    let (mut table, key) = orphan();
    table.hasher = crate::opens::keys::KeyHasher::new([0x5b; 32]);
    assert_denied(&mut table, second(20), &key, claim(A2, 2), ResumeDenial::WrongSecret);
}

#[test]
fn the_configuration_of_today_bounds_the_rights() {
    let (mut table, key) = orphan();
    let nothing = |_: &ExportName| None;
    let asked = Claim { may_use: &nothing, ..claim(A2, 2) };
    assert_denied(&mut table, second(20), &key, asked, ResumeDenial::ExportNotAllowed);
    let lock = |_: &ExportName| Some(Rights::LOCK);
    let asked = Claim { may_use: &lock, ..claim(A2, 2) };
    assert_denied(&mut table, second(20), &key, asked, ResumeDenial::NoRights);
    let read = |name: &ExportName| (*name == export()).then_some(Rights::READ.union(Rights::LOCK));
    let asked = Claim { may_use: &read, ..claim(A2, 2) };
    assert_eq!(table.resume(second(20), &key, asked).unwrap().rights, Rights::READ);
    // A key that was issued to the lesser handle stays the lesser key.
    let lesser = issue(&mut table, A2, 2);
    assert_eq!(table.resume(second(20), &lesser, claim(A2, 3)).unwrap().rights, Rights::READ);
    assert_eq!(table.resume(second(20), &key, claim(A2, 4)).unwrap().rights, EXCLUSIVE.rights);
}

#[test]
fn a_predecessor_of_another_open_is_refused() {
    let (mut table, key) = orphan();
    table.admit(second(11), admission(A2, 5, OTHER_FILE, EXCLUSIVE)).unwrap();
    table.admit(second(11), admission(B1, 6, OTHER_FILE, EXCLUSIVE)).unwrap_err();
    let asked = replacing(5, claim(A2, 2));
    assert_denied(&mut table, second(20), &key, asked, ResumeDenial::WrongPredecessor);
    assert_denied(&mut table, second(20), &key, claim(A2, 5), ResumeDenial::HandleTaken);
}

#[test]
fn a_predecessor_goes_and_its_key_stays_so_that_a_lost_answer_locks_nobody_out() {
    let (mut table, key) = orphan();
    table.resume(second(20), &key, replacing(1, claim(A2, 2))).unwrap();
    assert_eq!(events(&mut table), [drained(A1, 1)]);
    // The answer is lost, with its key; the client comes again with what it has.
    let lost = issue(&mut table, A2, 2);
    table.resume(second(21), &key, replacing(1, claim(A1, 3))).unwrap();
    assert_eq!(events(&mut table), [], "the predecessor is gone already");
    table.resume(second(22), &lost, replacing(2, claim(A1, 4))).unwrap();
    assert_eq!(events(&mut table), [drained(A2, 2)]);
    assert!(table.resume(second(23), &key, claim(A1, 5)).is_ok());
    assert!(table.resume(second(23), &lost, claim(A1, 6)).is_ok());
}

#[test]
fn a_predecessor_that_writes_is_waited_for() {
    let (mut table, key) = {
        let mut table = table();
        admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
        table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
        let key = issue(&mut table, A1, 1);
        (table, key)
    };
    table.resume(second(1), &key, replacing(1, claim(A2, 2))).unwrap();
    assert_eq!(events(&mut table), []);
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::WRITE), Err(refused(Reason::BadHandle)));
    assert_eq!(table.holder(A1, HandleId(1)).unwrap().phase, HolderPhase::Draining);
    // Naming it again while it drains is no mistake.
    table.resume(second(1), &key, replacing(1, claim(A2, 3))).unwrap();
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1)]);
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Held);
}

#[test]
fn a_key_dies_when_its_holder_is_closed_on_purpose() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(1), &key, claim(A1, 2)).unwrap();
    let other = issue(&mut table, A1, 2);
    table.begin_close(A1, HandleId(1)).unwrap();
    events(&mut table);
    assert_denied(&mut table, second(2), &key, claim(A1, 3), ResumeDenial::NoSuchKey);
    assert!(table.resume(second(2), &other, claim(A1, 3)).is_ok());
}

#[test]
fn a_new_key_of_a_handle_replaces_its_own_and_not_the_one_that_was_presented() {
    let (mut table, presented) = orphan();
    table.resume(second(20), &presented, replacing(1, claim(A2, 2))).unwrap();
    let first = issue(&mut table, A2, 2);
    let newer = issue(&mut table, A2, 2);
    events(&mut table);
    assert_denied(&mut table, second(20), &first, claim(A2, 3), ResumeDenial::NoSuchKey);
    assert!(table.resume(second(20), &presented, claim(A2, 3)).is_ok());
    assert!(table.resume(second(20), &newer, claim(A2, 4)).is_ok());
}

#[test]
fn beyond_the_limit_the_oldest_moved_key_goes_before_any_holders_own() {
    let limits = Limits { keys_per_open: 3, ..Limits::default() };
    let mut table = OpenTable::new([0; 32], &limits);
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let own = issue(&mut table, A1, 1);
    table.resume(second(0), &own, claim(A1, 2)).unwrap();
    let moved = issue(&mut table, A1, 2);
    table.resume(second(0), &moved, replacing(2, claim(A1, 3))).unwrap();
    let third = issue(&mut table, A1, 3);
    table.resume(second(0), &third, replacing(3, claim(A1, 4))).unwrap();
    issue(&mut table, A1, 4);
    events(&mut table);
    assert_denied(&mut table, second(0), &moved, claim(A1, 9), ResumeDenial::NoSuchKey);
    for (key, handle) in [(&own, 10), (&third, 11)] {
        assert!(table.resume(second(0), key, claim(A1, handle)).is_ok());
    }
}

#[test]
fn the_table_keeps_and_prints_no_secret() {
    let (mut table, key) = orphan();
    let open = &table.opens[&OpenId(1)];
    let record = &open.keys.records()[0];
    assert!(!record.hash.bytes().windows(4).any(|part| SECRET.windows(4).any(|secret| secret == part)));
    let shown = format!("{table:?} {open:?} {:?} {:?}", table.hasher, claim(A1, 2));
    for secret in ["sixteen", "115, 105, 120", "73697874", "90, 90", "0x5a"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let hash = record.hash.bytes();
    assert!(!shown.contains(&format!("{}, {}", hash[0], hash[1])));
    table.resume(second(99), &key, claim(B1, 2)).unwrap_err();
    assert!(!format!("{:?}", events(&mut table)).contains("sixteen"));
}

#[test]
fn who_may_not_write_any_more_may_still_append() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    let append = |_: &ExportName| Some(Rights::APPEND);
    let asked = Claim { may_use: &append, ..claim(A2, 2) };
    assert_eq!(table.resume(second(1), &key, asked).unwrap().rights, Rights::APPEND);
    assert_eq!(table.begin_operation(A2, HandleId(2), Rights::WRITE), Err(refused(Reason::PermissionDenied)));
    assert!(table.begin_operation(A2, HandleId(2), Rights::APPEND).is_ok());
    assert!(table.begin_operation(A1, HandleId(1), Rights::APPEND).is_ok(), "who may write may append");
}
