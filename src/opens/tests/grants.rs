//! Grants: who may give what, who gets in by it, and with what it ends.

use super::stored::{Records, restart};
use super::*;
use crate::model::GrantId;

const CAROL: PublicKey = PublicKey([0xc0; 32]);
const C1: SessionId = SessionId([4; 16]);
const READER: Rights = Rights::READ;
const ALL: Rights = Rights::READ.union(Rights::WRITE).union(Rights::LOCK).union(Rights::GRANT);

fn asked(n: u64, to: PublicKey, rights: Rights) -> GrantRequest {
    GrantRequest { grant: GrantId(n), to, rights, lasts: None, deliver: false, gives_up: false }
}

fn stamp() -> KeyStamp {
    KeyStamp { stamp_us: STAMP_US, process_id: PROCESS_ID, secret: SECRET }
}

fn claim_of(identity: &'static PublicKey, session: SessionId, handle: u64) -> Claim<'static> {
    Claim { session, identity, handle: HandleId(handle), predecessor: None, may_use: &everything }
}

fn bob(handle: u64) -> Claim<'static> {
    claim_of(&BOB, B1, handle)
}

fn carol(handle: u64) -> Claim<'static> {
    claim_of(&CAROL, C1, handle)
}

/// Alice's open 1 with every right, by handle 1.
fn opened() -> OpenTable {
    let mut table = table();
    let mode = OpenMode::READ_WRITE.exclusive();
    table.admit(second(0), Admission { rights: ALL, ..admission(A1, 1, FILE, mode) }).unwrap();
    table
}

fn give(table: &mut OpenTable, session: SessionId, handle: u64, asked: &GrantRequest) -> ResumeKey {
    table.grant(second(1), session, HandleId(handle), asked, &stamp()).unwrap().unwrap()
}

fn ended(session: SessionId, handle: u64, reason: Reason) -> TableEvent {
    TableEvent::HolderEnded { session, handle: HandleId(handle), reason }
}

#[test]
fn b18_b19_a_grantee_gets_the_rights_that_it_was_given_beside_the_giver() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    let admitted = table.resume(second(2), &key, bob(2)).unwrap();
    assert_eq!((admitted.open, admitted.rights, admitted.came_from), (OpenId(1), READER, None));
    assert_eq!(table.begin_operation(B1, HandleId(2), Rights::READ), Ok(OpenId(1)));
    for beyond in [Rights::WRITE, Rights::LOCK, Rights::GRANT, Rights::APPEND] {
        assert_eq!(table.begin_operation(B1, HandleId(2), beyond), Err(refused(Reason::PermissionDenied)));
    }
    table.end_operation(HandleId(2));
    assert_eq!(
        table.begin_operation(A1, HandleId(1), Rights::WRITE),
        Ok(OpenId(1)),
        "the giver keeps its own"
    );
    // Its own key is good for the grantee, with the same rights.
    let own = table.issue_key(B1, HandleId(2), STAMP_US, PROCESS_ID, SECRET).unwrap();
    assert_eq!(table.resume(second(3), &own, bob(3)).unwrap().rights, READER);
    assert_eq!(table.resume(second(3), &own, claim(A1, 4)), Err(refused(Reason::ResumeRefused)));
}

#[test]
fn t08_a_grant_is_good_for_its_grantee_alone() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    for other in [carol(2), claim(A2, 2)] {
        let before = image(&table);
        assert_eq!(table.resume(second(2), &key, other), Err(refused(Reason::ResumeRefused)));
        assert_eq!(image(&table), before);
        let said = events(&mut table);
        assert!(
            matches!(said[..], [TableEvent::ResumeRefused { why: ResumeDenial::WrongIdentity, .. }]),
            "{said:?}"
        );
    }
    // And the giver's key is of no use to the grantee.
    let own = issue(&mut table, A1, 1);
    assert_eq!(table.resume(second(2), &own, bob(2)), Err(refused(Reason::ResumeRefused)));
}

#[test]
fn what_cannot_be_granted_is_not() {
    let mut table = opened();
    let denied = |table: &mut OpenTable, session, handle, asked: &GrantRequest| {
        let before = image(table);
        let error = table.grant(second(1), session, HandleId(handle), asked, &stamp()).unwrap_err();
        assert_eq!(image(table), before, "{asked:?}");
        error.reason
    };
    assert_eq!(denied(&mut table, A1, 1, &asked(5, ALICE, READER)), Reason::Invalid);
    assert_eq!(denied(&mut table, A1, 1, &asked(5, BOB, Rights::LOCK)), Reason::Invalid);
    assert_eq!(denied(&mut table, B1, 1, &asked(5, BOB, READER)), Reason::BadHandle);
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    assert_eq!(denied(&mut table, A1, 1, &asked(5, CAROL, READER)), Reason::Exhausted);
    table.resume(second(2), &key, bob(2)).unwrap();
    assert_eq!(denied(&mut table, B1, 2, &asked(6, CAROL, READER)), Reason::PermissionDenied);
    let key = give(&mut table, A1, 1, &asked(7, BOB, READER.union(Rights::GRANT)));
    table.resume(second(2), &key, bob(3)).unwrap();
    let more = READER.union(Rights::WRITE);
    assert_eq!(denied(&mut table, B1, 3, &asked(8, CAROL, more)), Reason::PermissionDenied);
    let unresumable = Admission { resumable: false, rights: ALL, ..admission(A1, 9, OTHER_FILE, EXCLUSIVE) };
    table.admit(second(1), unresumable).unwrap();
    assert_eq!(denied(&mut table, A1, 9, &asked(8, BOB, READER)), Reason::PermissionDenied);
    for n in 100..130 {
        give(&mut table, A1, 1, &asked(n, BOB, READER));
    }
    assert_eq!(denied(&mut table, A1, 1, &asked(8, BOB, READER)), Reason::Quota);
}

#[test]
fn a_grantee_takes_no_place_and_no_key_of_the_owner() {
    let mut table = opened();
    let own = issue(&mut table, A1, 1);
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    let mut first = None;
    for n in 0..u64::try_from(Limits::HOLDERS_PER_GRANT).unwrap() {
        table.resume(second(2), &key, bob(10 + n)).unwrap();
        let issued = table.issue_key(B1, HandleId(10 + n), STAMP_US, PROCESS_ID, SECRET).unwrap();
        first.get_or_insert(issued);
    }
    assert_eq!(table.resume(second(2), &key, bob(99)), Err(refused(Reason::Quota)));
    assert_eq!(table.resume(second(2), &first.unwrap(), bob(99)), Err(refused(Reason::ResumeRefused)));
    assert!(table.resume(second(2), &key, replacing(10, bob(98))).is_ok(), "one in place of another");
    // Nor may it put itself in the owner's place.
    assert_eq!(table.resume(second(2), &key, replacing(1, bob(99))), Err(refused(Reason::Invalid)));
    assert!(table.resume(second(2), &own, claim(A2, 2)).is_ok());
}

#[test]
fn a_revoked_grant_ends_with_its_handles_its_keys_and_what_was_granted_on() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, ALL));
    table.resume(second(2), &key, bob(2)).unwrap();
    let own = table.issue_key(B1, HandleId(2), STAMP_US, PROCESS_ID, SECRET).unwrap();
    let on = give(&mut table, B1, 2, &asked(6, CAROL, READER));
    table.resume(second(3), &on, carol(3)).unwrap();
    table.begin_operation(C1, HandleId(3), Rights::READ).unwrap();
    events(&mut table);
    // Only who stands above it may.
    assert_eq!(table.revoke(C1, HandleId(3), GrantId(5)), Err(refused(Reason::PermissionDenied)));
    assert_eq!(table.revoke(B1, HandleId(2), GrantId(5)), Err(refused(Reason::PermissionDenied)));
    assert_eq!(table.revoke(A1, HandleId(1), GrantId(5)), Ok(vec![HandleId(3)]), "one still executes");
    assert_eq!(
        events(&mut table),
        [ended(C1, 3, Reason::Revoked), ended(B1, 2, Reason::Revoked), drained(B1, 2)]
    );
    table.end_operation(HandleId(3));
    assert_eq!(events(&mut table), [drained(C1, 3)]);
    for (key, claim) in [(&key, bob(4)), (&own, bob(4)), (&on, carol(4))] {
        assert_eq!(table.resume(second(4), key, claim), Err(refused(Reason::Revoked)));
    }
    for (key, claim) in [(&key, carol(4)), (&own, claim(A1, 4)), (&on, bob(4))] {
        assert_eq!(table.resume(second(4), key, claim), Err(refused(Reason::ResumeRefused)));
    }
    assert_eq!(table.revoke(A1, HandleId(1), GrantId(5)), Ok(vec![]), "it is over already");
    assert_eq!((table.grants_len(), table.holders_len()), (0, 1));
}

#[test]
fn who_was_granted_a_part_takes_back_what_it_gave_and_nothing_else() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, ALL));
    table.resume(second(2), &key, bob(2)).unwrap();
    give(&mut table, B1, 2, &asked(6, CAROL, READER));
    give(&mut table, A1, 1, &asked(7, CAROL, READER));
    assert_eq!(table.revoke(B1, HandleId(2), GrantId(7)), Err(refused(Reason::PermissionDenied)));
    assert_eq!(table.revoke(B1, HandleId(2), GrantId(6)), Ok(vec![]));
    assert_eq!(table.grants_len(), 2);
}

#[test]
fn a_grant_ends_with_the_giver_s_handle_and_moves_with_it_when_that_is_replaced() {
    let mut table = opened();
    let own = issue(&mut table, A1, 1);
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    table.resume(second(2), &key, bob(2)).unwrap();
    table.resume(second(3), &own, replacing(1, claim(A2, 3))).unwrap();
    assert_eq!(table.grants_len(), 1);
    events(&mut table);
    table.begin_close(A2, HandleId(3)).unwrap();
    assert_eq!(
        events(&mut table),
        [ended(B1, 2, Reason::Revoked), drained(B1, 2), drained(A2, 3), closed(1)]
    );
}

#[test]
fn b14_an_open_stays_as_long_as_a_grantee_holds_it() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    table.resume(second(2), &key, bob(2)).unwrap();
    table.session_away(second(3), A1);
    table.expire(second(100_000));
    assert_eq!(table.open(OpenId(1)).unwrap().phase, OpenPhase::Held);
    assert!(table.admit(second(100_000), admission(C1, 9, FILE, OpenMode::READ)).is_err());
}

#[test]
fn a_grant_ends_at_its_time_and_no_grant_of_it_lasts_longer() {
    let mut table = opened();
    let ten = Duration::from_secs(10);
    let key = give(&mut table, A1, 1, &GrantRequest { lasts: Some(ten), ..asked(5, BOB, ALL) });
    table.resume(second(2), &key, bob(2)).unwrap();
    let on = give(&mut table, B1, 2, &asked(6, CAROL, READER));
    table.resume(second(3), &on, carol(3)).unwrap();
    assert_eq!(table.next_deadline(), Some(second(11)));
    table.expire(Time(second(11).0 - 1));
    assert_eq!(table.holders_len(), 3);
    // Nobody comes in by it at its end, whether the timer has run or not.
    assert_eq!(table.resume(second(11), &key, bob(4)), Err(refused(Reason::Revoked)));
    events(&mut table);
    table.expire(second(11));
    let said = events(&mut table);
    assert!(said.contains(&ended(B1, 2, Reason::Revoked)) && said.contains(&ended(C1, 3, Reason::Revoked)));
    assert_eq!((table.holders_len(), table.next_deadline()), (1, None));
    assert_eq!(table.resume(second(12), &on, carol(4)), Err(refused(Reason::Revoked)));
}

#[test]
fn b20_an_offer_waits_for_its_grantee_who_makes_the_key() {
    let mut table = opened();
    let offered = GrantRequest { deliver: true, ..asked(5, BOB, READER) };
    assert_eq!(table.grant(second(1), A1, HandleId(1), &offered, &stamp()), Ok(None));
    let waiting: Vec<GrantId> = table.offers_to(&BOB).map(|offer| offer.grant).collect();
    assert_eq!((waiting, table.offers_to(&CAROL).count()), (vec![GrantId(5)], 0));
    let take =
        |table: &mut OpenTable, who: &PublicKey| table.take_grant(second(2), who, GrantId(5), &stamp());
    assert_eq!(take(&mut table, &CAROL), Err(refused(Reason::NotFound)));
    let first = take(&mut table, &BOB).unwrap();
    let key = take(&mut table, &BOB).unwrap();
    assert_eq!(table.resume(second(3), &first, bob(2)), Err(refused(Reason::ResumeRefused)), "replaced");
    assert_eq!(table.offers_to(&BOB).count(), 1, "nobody has come by it yet");
    table.resume(second(3), &key, bob(2)).unwrap();
    assert_eq!(table.offers_to(&BOB).count(), 0);
    table.revoke(A1, HandleId(1), GrantId(5)).unwrap();
    assert_eq!(take(&mut table, &BOB), Err(refused(Reason::Revoked)));
    assert_eq!(take(&mut table, &CAROL), Err(refused(Reason::NotFound)));
    // One whose key was handed out is not to be had so.
    give(&mut table, A1, 1, &asked(6, BOB, READER));
    assert_eq!(table.take_grant(second(2), &BOB, GrantId(6), &stamp()), Err(refused(Reason::NotFound)));
}

#[test]
fn offers_to_one_identity_are_bounded() {
    let limits = Limits { offers_per_client: 2, ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    table.admit(second(0), Admission { rights: ALL, ..admission(A1, 1, FILE, EXCLUSIVE) }).unwrap();
    let mut offer = |n, to| {
        let asked = GrantRequest { deliver: true, ..asked(n, to, READER) };
        table.grant(second(1), A1, HandleId(1), &asked, &stamp()).map(drop)
    };
    assert_eq!((offer(1, BOB), offer(2, BOB)), (Ok(()), Ok(())));
    assert_eq!((offer(3, BOB), offer(4, CAROL)), (Err(refused(Reason::Quota)), Ok(())));
}

#[test]
fn one_giver_does_not_fill_what_others_may_offer() {
    let limits = Limits { offers_per_client: 4, offers_per_giver: 2, ..Limits::default() };
    let mut table = OpenTable::new([0x5a; 32], &limits);
    table.admit(second(0), Admission { rights: ALL, ..admission(A1, 1, FILE, EXCLUSIVE) }).unwrap();
    table.admit(second(0), Admission { rights: ALL, ..admission(A1, 2, OTHER_FILE, EXCLUSIVE) }).unwrap();
    let third = FileIdentity { inode: 12, ..FILE };
    table.admit(second(0), Admission { rights: ALL, ..admission(B1, 3, third, EXCLUSIVE) }).unwrap();
    let offer = |table: &mut OpenTable, session, handle, n| {
        let asked = GrantRequest { deliver: true, ..asked(n, CAROL, READER) };
        table.grant(second(1), session, HandleId(handle), &asked, &stamp()).map(drop)
    };
    assert_eq!(offer(&mut table, A1, 1, 1), Ok(()));
    assert_eq!(offer(&mut table, A1, 2, 2), Ok(()));
    assert_eq!(offer(&mut table, A1, 2, 3), Err(refused(Reason::Quota)), "also of another open");
    assert_eq!(offer(&mut table, B1, 3, 4), Ok(()), "another giver has its own share");
    assert_eq!(table.offers_to(&CAROL).count(), 3);
    // What is not delivered fills nobody's offers.
    give(&mut table, A1, 1, &asked(5, CAROL, READER));
    // One that is taken back, or was taken, makes room.
    table.revoke(A1, HandleId(1), GrantId(1)).unwrap();
    assert_eq!(offer(&mut table, A1, 2, 6), Ok(()));
    assert_eq!(offer(&mut table, A1, 2, 7), Err(refused(Reason::Quota)));
    let key = table.take_grant(second(2), &CAROL, GrantId(6), &stamp()).unwrap();
    table.resume(second(2), &key, carol(9)).unwrap();
    assert_eq!(offer(&mut table, A1, 2, 8), Ok(()));
}

#[test]
fn a_move_takes_the_giver_s_handle_and_stands_on_its_own() {
    let mut table = opened();
    let own = issue(&mut table, A1, 1);
    let key = give(&mut table, A1, 1, &GrantRequest { gives_up: true, ..asked(5, BOB, ALL) });
    assert_eq!(events(&mut table), []);
    table.resume(second(2), &key, bob(2)).unwrap();
    assert_eq!(events(&mut table), [ended(A1, 1, Reason::TakenOver), drained(A1, 1)]);
    assert_eq!(table.resume(second(3), &own, claim(A1, 3)), Err(refused(Reason::ResumeRefused)));
    drop(events(&mut table));
    // The open was never closed between them.
    assert!(admit(&mut table, second(3), A1, 9, OpenMode::READ).is_err());
    assert_eq!(table.begin_operation(B1, HandleId(2), Rights::WRITE), Ok(OpenId(1)));
    table.end_operation(HandleId(2));
    // It ends when the giver is not allowed any more.
    table.end_holders_of(|identity| *identity == ALICE);
    assert_eq!(events(&mut table), [ended(B1, 2, Reason::Revoked), drained(B1, 2), closed(1)]);
}

#[test]
fn a_lock_that_a_grantee_takes_is_the_open_s() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, ALL));
    table.resume(second(2), &key, bob(2)).unwrap();
    let lock = |n| LockRequest {
        request: RequestId(n),
        range: range(0, 10),
        mode: LockMode::Exclusive,
        wait: Duration::ZERO,
    };
    assert_eq!(table.lock(second(2), B1, HandleId(2), lock(1)), Ok(LockAnswer::Granted));
    assert_eq!(table.lock(second(2), A1, HandleId(1), lock(1)), Ok(LockAnswer::Granted), "one owner");
    table.revoke(A1, HandleId(1), GrantId(5)).unwrap();
    assert_eq!(table.locks(OpenId(1)).len(), 1, "it stays with the open");
}

#[test]
fn the_next_server_knows_the_grants_and_those_that_are_over() {
    let ten = Duration::from_secs(10);
    for is_same_boot in [true, false] {
        let mut table = opened();
        let owner = issue(&mut table, A1, 1);
        let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
        let timed = GrantRequest { lasts: Some(ten), deliver: true, ..asked(6, BOB, READER) };
        table.grant(second(1), A1, HandleId(1), &timed, &stamp()).unwrap();
        table.resume(second(2), &key, bob(2)).unwrap();
        let own = table.issue_key(B1, HandleId(2), STAMP_US, PROCESS_ID, SECRET).unwrap();
        let gone = give(&mut table, A1, 1, &asked(7, CAROL, READER));
        table.revoke(A1, HandleId(1), GrantId(7)).unwrap();
        let mut records = Records::default();
        records.take(&mut table);

        let mut next = records.table(&restart(second(5), is_same_boot)).unwrap();
        assert_eq!(next.resume(second(6), &gone, carol(9)), Err(refused(Reason::Revoked)));
        assert_eq!(next.resume(second(6), &key, claim(A2, 9)), Err(refused(Reason::ResumeRefused)));
        assert_eq!(next.offers_to(&BOB).count(), 1);
        let end = second(if is_same_boot { 11 } else { 15 });
        assert_eq!(next.next_deadline(), Some(end), "{is_same_boot}");
        let resumed = next.resume(second(6), &own, bob(3)).unwrap();
        assert_eq!((resumed.rights, resumed.came_from), (READER, Some(B1)));
        next.resume(second(6), &owner, claim(A2, 4)).unwrap();
        next.revoke(A2, HandleId(4), GrantId(5)).unwrap();
        assert_eq!(next.resume(second(7), &own, bob(8)), Err(refused(Reason::Revoked)));
    }
}

#[test]
fn records_whose_grants_contradict_each_other_are_refused() {
    let mut table = opened();
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    table.resume(second(2), &key, bob(2)).unwrap();
    table.issue_key(B1, HandleId(2), STAMP_US, PROCESS_ID, SECRET).unwrap();
    let mut good = Records::default();
    good.take(&mut table);
    assert!(good.table(&restart(second(5), true)).is_ok());
    let changes: [fn(&mut crate::model::StoredOpen); 7] = [
        |open| open.grants.clear(),
        |open| open.grants[0].giver = Some(HandleId(2)),
        |open| open.grants[0].giver = Some(HandleId(77)),
        |open| open.grants[0].parent = Some(GrantId(77)),
        |open| open.grants.push(open.grants[0].clone()),
        |open| open.keys[0].grant = None,
        |open| open.grants[0].key = Some((99, [0; 32])),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut bad = Records { opens: good.opens.clone(), ..Records::default() };
        change(bad.opens.get_mut(&OpenId(1)).unwrap());
        let restored = bad.table(&restart(second(5), true)).map(drop);
        assert_eq!(restored, Err(RestoreError::Contradiction(OpenId(1))), "{at}");
    }
}

#[test]
fn a_tombstone_tells_a_grantee_too() {
    let mut table = opened();
    let owner = issue(&mut table, A1, 1);
    let key = give(&mut table, A1, 1, &asked(5, BOB, READER));
    table.release(second(2), OpenId(1));
    assert_eq!(table.resume(second(3), &owner, claim(A1, 2)), Err(refused(Reason::Released)));
    assert_eq!(table.resume(second(3), &key, bob(2)), Err(refused(Reason::Released)));
    assert_eq!(table.resume(second(3), &key, carol(2)), Err(refused(Reason::ResumeRefused)));
    assert_eq!(table.grants_len(), 0);
}

/// Any order of giving, taking, closing, revoking and waiting keeps the rules, and a grantee never has a handle whose grant
/// is over: the table checks itself after each call.
#[test]
fn random_runs_keep_the_rules() {
    let everybody: [(&PublicKey, SessionId); 3] = [(&ALICE, A1), (&BOB, B1), (&CAROL, C1)];
    let (mut taken, mut told) = (0, 0);
    for seed in 1..=200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut table = opened();
        let mut keys: Vec<(usize, ResumeKey)> = Vec::new();
        let mut handles: Vec<(usize, u64)> = vec![(0, 1)];
        let (mut next, mut now) = (10, 1);
        for _ in 0..60 {
            now += random(4);
            table.end_grants(second(now));
            next += 1;
            let (who, handle) =
                handles[usize::try_from(random(u64::try_from(handles.len()).unwrap())).unwrap()];
            let session = everybody[who].1;
            match random(6) {
                0 | 1 => {
                    let to = usize::try_from(random(3)).unwrap();
                    let each = [Rights::READ, Rights::WRITE, Rights::LOCK, Rights::GRANT];
                    let chosen = each.into_iter().filter(|_| random(3) > 0);
                    let rights = chosen.fold(Rights::NONE, Rights::union);
                    let lasts = (random(2) == 0).then(|| Duration::from_secs(1 + random(20)));
                    let gives_up = random(4) == 0;
                    let asked = GrantRequest { lasts, gives_up, ..asked(next, *everybody[to].0, rights) };
                    if let Ok(Some(key)) =
                        table.grant(second(now), session, HandleId(handle), &asked, &stamp())
                    {
                        keys.push((to, key));
                    }
                }
                2 | 3 if !keys.is_empty() => {
                    let (to, key) =
                        &keys[usize::try_from(random(u64::try_from(keys.len()).unwrap())).unwrap()];
                    let (identity, session) = everybody[*to];
                    if table.resume(second(now), key, claim_of(identity, session, next)).is_ok() {
                        handles.push((*to, next));
                        taken += 1;
                    }
                }
                4 => drop(table.revoke(session, HandleId(handle), GrantId(10 + random(next - 9)))),
                _ if random(4) == 0 => {
                    let _may_be_gone = table.begin_close(session, HandleId(handle));
                }
                _ => {}
            }
            for event in events(&mut table) {
                if let TableEvent::HolderEnded { session, handle, .. } = event {
                    told += 1;
                    assert!(table.begin_operation(session, handle, Rights::NONE).is_err(), "seed {seed}");
                }
            }
            table.check_invariants();
        }
    }
    assert!(taken > 200 && told > 50, "{taken} {told}");
}
