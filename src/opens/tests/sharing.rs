//! Contenders and create ids.

use super::*;

#[test]
fn b28_a_held_exclusive_open_keeps_everybody_out_and_nobody_can_say_how_long() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    for session in [A1, A2, B1] {
        let answer = admit(&mut table, second(1), session, 2, OpenMode::READ);
        assert_eq!(answer, Err(busy(Duration::ZERO)), "also to the same identity");
    }
    assert!(table.admit(second(1), admission(B1, 2, OTHER_FILE, EXCLUSIVE)).is_ok());
}

#[test]
fn compatible_opens_exist_side_by_side_also_beside_an_orphan() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, OpenMode::READ_WRITE).unwrap();
    table.session_away(second(1), A1);
    admit(&mut table, second(2), B1, 2, OpenMode::READ).unwrap();
    assert_eq!(table.opens_len(), 2);
    assert_eq!(admit(&mut table, second(3), B1, 3, EXCLUSIVE), Err(busy(Duration::ZERO)));
}

#[test]
fn b14_a_contender_within_the_grace_hears_the_time_that_is_left() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(10), A1);
    let before = image(&table);
    for (now, left_ms) in [
        (second(10), 60_000),
        (second(30), 40_000),
        (Time(second(70).0 - 1500), 2),
        (Time(second(70).0 - 1), 1),
    ] {
        let refusal = admit(&mut table, now, B1, 2, OpenMode::READ).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after_ms), (Reason::Busy, left_ms), "at {now:?}");
    }
    assert_eq!(image(&table), before);
}

#[test]
fn the_longest_of_several_graces_counts() {
    let mut table = table();
    let read_alone = OpenMode { rights: Rights::READ, share: ShareMode::READ };
    admit(&mut table, second(0), A1, 1, read_alone).unwrap();
    admit(&mut table, second(0), B1, 2, read_alone).unwrap();
    table.session_away(second(0), A1);
    table.session_away(second(20), B1);
    let writer = OpenMode::READ_WRITE;
    assert_eq!(admit(&mut table, second(30), A2, 3, writer), Err(busy(Duration::from_secs(50))));
    assert_eq!(admit(&mut table, second(60), A2, 3, writer), Err(busy(Duration::from_secs(20))));
    assert_eq!(table.opens_len(), 2, "a contender that must wait anyway breaks nothing");
    assert!(admit(&mut table, second(80), A2, 3, writer).is_ok());
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1), drained(B1, 2), closed(2)]);
}

#[test]
fn b15_a_contender_after_the_grace_breaks_the_orphan_without_a_sweeper() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.session_away(second(10), A1);
    assert!(admit(&mut table, second(70), B1, 2, EXCLUSIVE).unwrap().is_new_open);
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    table.session_back(A1);
    assert_eq!(table.holder(A1, HandleId(1)), Err(refused(Reason::BadHandle)));
    assert_eq!(table.resume(second(71), &key, claim(A1, 3)), Err(refused(Reason::TakenOver)));
}

#[test]
fn an_orphan_that_still_writes_after_its_grace_is_waited_for() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.session_away(second(10), A1);
    assert_eq!(admit(&mut table, second(70), B1, 2, EXCLUSIVE), Err(busy(OpenTable::DRAIN_RETRY)));
    table.session_back(A1);
    let answer = table.begin_operation(A1, HandleId(1), Rights::WRITE);
    assert_eq!(answer, Err(refused(Reason::BadHandle)), "the contender was promised its end");
    assert_eq!(admit(&mut table, second(71), B1, 2, EXCLUSIVE), Err(busy(OpenTable::DRAIN_RETRY)));
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    assert!(admit(&mut table, second(72), B1, 2, EXCLUSIVE).is_ok());
}

#[test]
fn a_contender_without_quota_breaks_nothing() {
    let limits = Limits { opens_per_client: 1, ..Limits::default() };
    let mut table = OpenTable::new([0; 32], &limits);
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(0), A1);
    table.admit(second(0), admission(B1, 2, OTHER_FILE, EXCLUSIVE)).unwrap();
    let before = image(&table);
    assert_eq!(admit(&mut table, second(99), B1, 3, EXCLUSIVE), Err(refused(Reason::Quota)));
    assert_eq!(image(&table), before);
}

#[test]
fn a_session_comes_back_late_if_nobody_took_the_file() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(0), A1);
    table.session_back(A1);
    table.expire(second(1000));
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::WRITE), Ok(OpenId(1)));
}

#[test]
fn the_same_create_id_of_the_same_session_gets_the_same_handle() {
    let mut table = table();
    let export = export();
    assert_eq!(table.find_created(second(0), &repeat(A1, 1, 9, &export)), Ok(None));
    let first = admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let before = image(&table);
    let again = table.find_created(second(1), &repeat(A1, 1, 9, &export)).unwrap().unwrap();
    assert_eq!(again, Admitted { is_new_open: false, ..first });
    assert_eq!(image(&table), before);
    assert_eq!(table.find_created(second(1), &repeat(B1, 1, 9, &export)), Ok(None), "another identity");
}

#[test]
fn the_same_create_id_of_another_session_gets_a_holder_of_its_own() {
    let mut table = table();
    let export = export();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(1), A1);
    let again = table.find_created(second(2), &repeat(A2, 1, 9, &export)).unwrap().unwrap();
    assert_eq!((again.open, again.handle, again.is_new_open), (OpenId(1), HandleId(9), false));
    assert_eq!(table.next_deadline(), None, "the orphan is held again");
    let third = table.find_created(second(3), &repeat(A2, 1, 10, &export)).unwrap().unwrap();
    assert_eq!(third.handle, HandleId(9));
    assert_eq!(table.holders_len(), 2);
}

#[test]
fn a_duplicate_is_not_the_handle_of_a_repeated_open() {
    let mut table = table();
    let export = export();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(1), &key, claim(A2, 2)).unwrap();
    let again = table.find_created(second(2), &repeat(A2, 1, 9, &export)).unwrap().unwrap();
    assert_eq!(again.handle, HandleId(9));
}

#[test]
fn two_copies_of_one_open_that_looked_for_the_file_together_get_one_open() {
    let mut table = table();
    let first = admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let copy = Admission { open: OpenId(2), handle: HandleId(2), ..admission(A1, 1, FILE, EXCLUSIVE) };
    let second_answer = table.admit(second(0), copy).unwrap();
    assert_eq!(second_answer, Admitted { is_new_open: false, ..first });
    assert_eq!((table.opens_len(), table.holders_len()), (1, 1));
}

#[test]
fn a_create_id_is_of_one_file_export_and_mode() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let before = image(&table);
    let asked = Admission { open: OpenId(2), ..admission(A1, 1, OTHER_FILE, EXCLUSIVE) };
    assert_eq!(table.admit(second(0), asked), Err(refused(Reason::Invalid)));
    let (export, other) = (export(), "other".parse().unwrap());
    assert_eq!(table.find_created(second(0), &repeat(A1, 1, 9, &other)), Err(refused(Reason::Invalid)));
    let asked = Repeat { mode: OpenMode::READ, ..repeat(A1, 1, 9, &export) };
    assert_eq!(table.find_created(second(0), &asked), Err(refused(Reason::Invalid)));
    let asked = Repeat { rights: Rights::READ, ..repeat(A2, 1, 9, &export) };
    assert_eq!(table.find_created(second(0), &asked), Err(refused(Reason::PermissionDenied)));
    assert_eq!(image(&table), before);
}

#[test]
fn a_create_id_finds_its_open_after_the_grace_too() {
    let mut table = table();
    let export = export();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(0), A1);
    table.expire(second(60));
    let found = table.find_created(second(61), &repeat(A2, 1, 9, &export)).unwrap().unwrap();
    assert_eq!((found.open, found.handle), (OpenId(1), HandleId(9)));
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Held);
}

#[test]
fn an_open_has_a_bound_of_holders() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    let max = u64::try_from(OpenTable::HOLDERS_PER_OPEN_MAX).unwrap();
    for handle in 2..=max {
        table.resume(second(0), &key, claim(A1, handle)).unwrap();
    }
    events(&mut table);
    assert!(table.resume(second(0), &key, claim(A1, max + 1)).is_err());
    let why = ResumeDenial::TooManyHolders;
    assert_eq!(events(&mut table), [TableEvent::ResumeRefused { session: A1, open: OpenId(1), why }]);
    let export = export();
    let asked = repeat(A2, 1, max + 1, &export);
    assert_eq!(table.find_created(second(0), &asked), Err(refused(Reason::Quota)));
    assert!(table.resume(second(0), &key, replacing(max, claim(A1, max + 1))).is_ok());
}

/// What an open reads and writes, written down for each, and what it shares as three facts.
type Sharing = (bool, bool, [bool; 3]);

#[test]
fn b03_b28_the_matrix_of_share_modes() {
    let uses = [
        (Rights::READ, true, false),
        (Rights::WRITE, false, true),
        (Rights::READ.union(Rights::WRITE), true, true),
        (Rights::APPEND, false, true),
    ];
    let mut modes: Vec<(OpenMode, Sharing)> = Vec::new();
    for (rights, reads, writes) in uses {
        for bits in 0..8_u8 {
            let shares = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
            let each = [ShareMode::READ, ShareMode::WRITE, ShareMode::DELETE];
            let chosen = each.into_iter().zip(shares).filter(|(_, is_in)| *is_in);
            let share = chosen.fold(ShareMode::NONE, |share, (one, _)| share.union(one));
            modes.push((OpenMode { rights, share }, (reads, writes, shares)));
        }
    }
    let lets_in = |(_, _, shares): Sharing, (reads, writes, _): Sharing| {
        // Deleting is no use of an open: it says nothing about who may be open beside it.
        (!reads || shares[0]) && (!writes || shares[1])
    };
    let mut pairs = 0;
    for (first, first_is) in &modes {
        for (then, then_is) in &modes {
            let mut table = table();
            admit(&mut table, second(0), A1, 1, *first).unwrap();
            let answer = admit(&mut table, second(0), B1, 2, *then).map(|admitted| admitted.is_new_open);
            let is_let_in = lets_in(*first_is, *then_is) && lets_in(*then_is, *first_is);
            let expected = if is_let_in { Ok(true) } else { Err(busy(Duration::ZERO)) };
            assert_eq!(answer, expected, "{first}, then {then}");
            pairs += 1;
        }
    }
    assert_eq!(pairs, 32 * 32);
}

#[test]
fn a_repeat_says_the_same_of_resuming() {
    let mut table = table();
    let export = export();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let before = image(&table);
    let asked = Repeat { resumable: false, ..repeat(A1, 1, 9, &export) };
    assert_eq!(table.find_created(second(1), &asked), Err(refused(Reason::Invalid)));
    let asked = Admission { resumable: false, ..admission(A1, 1, FILE, EXCLUSIVE) };
    assert_eq!(table.admit(second(1), asked), Err(refused(Reason::Invalid)));
    assert_eq!(image(&table), before);
}

#[test]
fn an_open_that_cannot_be_resumed_has_no_key_and_ends_with_a_farewell() {
    let mut table = table();
    let asked = |n, file| Admission { resumable: false, ..admission(A1, n, file, EXCLUSIVE) };
    table.admit(second(0), asked(1, FILE)).unwrap();
    table.admit(second(0), admission(A1, 2, OTHER_FILE, EXCLUSIVE)).unwrap();
    let refusal = table.issue_key(A1, HandleId(1), STAMP_US, PROCESS_ID, SECRET);
    assert_eq!(refusal, Err(refused(Reason::PermissionDenied)));
    let key = issue(&mut table, A1, 2);
    // It waits for its session as any other does, as long as nobody says farewell.
    table.session_away(second(1), A1);
    table.session_back(A1);
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.session_closed(A1);
    assert_eq!(events(&mut table), [], "a write is waited for");
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::WRITE), Err(refused(Reason::BadHandle)));
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    table.session_away(second(2), A1);
    assert!(table.resume(second(3), &key, claim(A2, 3)).is_ok(), "the other one stays");
}
