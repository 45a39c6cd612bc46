//! The table beyond the server's life: what was stored is a table again.

use super::*;
use crate::model::{Attributes, Meanwhile, StoredOpen, StoredTombstone};

/// What a store has.
#[derive(Default)]
pub(super) struct Records {
    pub(super) opens: BTreeMap<OpenId, StoredOpen>,
    pub(super) tombstones: BTreeMap<OpenId, StoredTombstone>,
}

impl Records {
    /// Stores what has changed.
    pub(super) fn take(&mut self, table: &mut OpenTable) {
        assert!(table.has_changes() || table.take_changes(usize::MAX).is_empty());
        let changes = table.take_changes(usize::MAX);
        for (id, open) in changes.opens {
            match open {
                Some(open) => drop(self.opens.insert(id, open)),
                None => drop(self.opens.remove(&id)),
            }
        }
        for (id, tombstone) in changes.tombstones {
            match tombstone {
                Some(tombstone) => drop(self.tombstones.insert(id, tombstone)),
                None => drop(self.tombstones.remove(&id)),
            }
        }
    }

    /// The table of the next server.
    pub(super) fn table(&self, restart: &Restart) -> Result<OpenTable, RestoreError> {
        let mut table = OpenTable::new([0x5a; 32], &Limits::default());
        table.restore_tombstones(restart, self.tombstones.clone());
        for (id, open) in &self.opens {
            table.restore(restart, *id, open)?;
        }
        table.check_invariants();
        Ok(table)
    }
}

pub(super) fn restart(now: Time, is_same_boot: bool) -> Restart {
    Restart { now, is_same_boot, grace_min: Duration::from_secs(10), renewals_max: 3 }
}

fn stored(table: &mut OpenTable) -> Records {
    let mut records = Records::default();
    records.take(table);
    records
}

#[test]
fn b35_the_next_server_knows_the_open_its_locks_and_its_key() {
    let mut table = table();
    admit_locker(&mut table, A1, 1);
    let key = issue(&mut table, A1, 1);
    let mode = LockMode::Exclusive;
    let lock = LockRequest { request: RequestId(1), range: range(5, 9), mode, wait: Duration::ZERO };
    table.lock(second(1), A1, HandleId(1), lock).unwrap();
    let mut next = stored(&mut table).table(&restart(second(100), true)).unwrap();
    assert_eq!(next.locks(OpenId(1)), [(range(5, 9), mode)]);
    assert_eq!(next.next_deadline(), Some(second(160)), "it was reachable: its grace begins now");
    admit(&mut next, second(101), B1, 3, OpenMode::READ_WRITE).unwrap();
    assert_eq!(next.check_io(second(101), OpenId(3), range(5, 6), false).unwrap_err().reason, Reason::Locked);
    let resumed = next.resume(second(102), &key, claim(A2, 2)).unwrap();
    assert_eq!((resumed.open, resumed.mode, resumed.came_from), (OpenId(1), OpenMode::READ_WRITE, Some(A1)));
    assert_eq!(
        events(&mut next),
        [drained(A1, 1)],
        "its session never comes back: the new one takes its place"
    );
    assert_eq!((next.holders_len(), next.next_deadline()), (2, None));
    // The same key once more, as after a lost answer.
    assert!(next.resume(second(103), &key, claim(A2, 4)).is_ok());
    // And closing what was resumed ends the open: nothing of the earlier server holds it.
    next.begin_close(A2, HandleId(2)).unwrap();
    next.begin_close(A2, HandleId(4)).unwrap();
    assert!(events(&mut next).contains(&closed(1)));
}

/// They go into one commit, with which they are of this boot: the next server believes that of all of them.
#[test]
fn f33_on_another_boot_every_record_is_stored_anew_at_once() {
    let mut table = table();
    for n in 0..300 {
        admit(&mut table, second(0), A1, n, OpenMode::READ_WRITE).unwrap();
    }
    let records = stored(&mut table);
    for (is_same_boot, stored_at_once) in [(true, 0), (false, 300)] {
        let mut next = records.table(&restart(second(100), is_same_boot)).unwrap();
        let changes = next.take_changes(0);
        assert_eq!((changes.opens.len(), changes.is_urgent), (stored_at_once, !is_same_boot));
    }
}

/// One of its two handles is back, and the other one is still of the session that it had with the earlier server.
#[test]
fn a_client_is_not_another_one_than_it_was_with_the_earlier_server() {
    for (client, is_joint) in [(ALICE, false), (BOB, true)] {
        let mut table = table();
        admit(&mut table, second(0), A1, 1, OpenMode::READ_WRITE).unwrap();
        let key = issue(&mut table, A1, 1);
        table.resume(second(1), &key, claim(A1, 2)).unwrap();
        let mut next = stored(&mut table).table(&restart(second(100), false)).unwrap();
        next.session_follows_over(A2, A1, &client);
        let predecessor = Some(HandleId(1));
        next.resume(second(101), &key, Claim { predecessor, ..claim(A2, 3) }).unwrap();
        assert_eq!(next.is_joint(OpenId(1)), is_joint, "what anybody else says of a session says nothing");
    }
}

#[test]
fn deadlines_on_the_same_boot_are_what_they_were_with_a_least_time_and_on_another_begin_anew() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(100), A1);
    let records = stored(&mut table);
    let deadline = |records: &Records, now, same| records.table(&restart(now, same)).unwrap().next_deadline();
    assert_eq!(deadline(&records, second(120), true), Some(second(160)));
    assert_eq!(deadline(&records, second(155), true), Some(second(165)));
    assert_eq!(deadline(&records, second(999), true), Some(second(1009)));
    assert_eq!(deadline(&records, second(5), false), Some(second(65)));
    // Three times for one orphan, and then it has the least time.
    let mut records = records;
    for boot in 1..=5 {
        let mut next = records.table(&restart(second(5), false)).unwrap();
        let left = if boot <= 3 { second(65) } else { second(15) };
        assert_eq!(next.next_deadline(), Some(left), "boot {boot}");
        records.take(&mut next);
    }
}

#[test]
fn f34_a_key_of_an_earlier_server_is_good_before_and_after_the_deadline_and_a_contender_decides() {
    let mut first = table();
    admit(&mut first, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut first, A1, 1);
    let records = stored(&mut first);
    let (before, after) = (Time(second(70).0 - 1000), Time(second(70).0 + 1000));
    let mut next = records.table(&restart(second(10), true)).unwrap();
    assert!(admit(&mut next, before, B1, 2, EXCLUSIVE).is_err());
    assert!(next.resume(before, &key, claim(A2, 3)).is_ok());
    let mut next = records.table(&restart(second(10), true)).unwrap();
    admit(&mut next, after, B1, 2, EXCLUSIVE).unwrap();
    assert_eq!(next.resume(after, &key, claim(A2, 3)), Err(refused(Reason::TakenOver)));
    // The owner of the file hears it from the server after that, too.
    let mut records = records;
    records.take(&mut next);
    let mut last = records.table(&restart(second(99), true)).unwrap();
    assert_eq!(last.resume(second(99), &key, claim(A2, 3)), Err(refused(Reason::TakenOver)));
    assert_eq!(last.resume(second(99), &key, claim(B1, 3)), Err(refused(Reason::ResumeRefused)));
}

#[test]
fn what_is_left_of_an_open_lasts_for_a_week_of_the_machine_across_servers() {
    let week = Limits::default().tombstone_age_max;
    let mut first = table();
    admit(&mut first, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut first, A1, 1);
    first.release(second(100), OpenId(1));
    let end = second(100).after(week);
    let mut records = stored(&mut first);
    assert_eq!(records.tombstones[&OpenId(1)].ended, second(100));
    let heard = |at, same, now| {
        let mut next = records.table(&restart(at, same)).unwrap();
        next.resume(now, &key, claim(A2, 2)).unwrap_err().reason
    };
    let before = Time(end.0 - 1);
    assert_eq!(heard(second(200), true, before), Reason::Released);
    assert_eq!(heard(second(200), true, end), Reason::ResumeRefused, "though no timer has come by");
    assert_eq!(heard(second(200), false, end), Reason::Released, "a week from the start on");
    assert_eq!(heard(second(200), false, second(200).after(week)), Reason::ResumeRefused);
    // And the store hears of it.
    let mut next = records.table(&restart(second(200), true)).unwrap();
    assert_eq!(next.next_deadline(), Some(end));
    next.expire(before);
    assert_eq!(next.tombstones_len(), 1);
    next.expire(end);
    assert_eq!((next.tombstones_len(), next.next_deadline()), (0, None));
    records.take(&mut next);
    assert!(records.tombstones.is_empty());
}

/// There may be tens of thousands of them, and whoever comes first would wait for all to be stored.
#[test]
fn a_start_stores_what_is_left_of_opens_once_more_only_where_it_is_not_the_same() {
    let mut first = table();
    for n in 1..6 {
        admit(&mut first, second(0), A1, n, OpenMode::READ).unwrap();
        issue(&mut first, A1, n);
        first.release(second(n), OpenId(n));
    }
    let mut records = stored(&mut first);
    assert_eq!(records.tombstones.len(), 5);
    assert!(!records.table(&restart(second(50), true)).unwrap().has_changes());
    // The next ones come behind them.
    let mut next = records.table(&restart(second(50), true)).unwrap();
    admit(&mut next, second(60), A1, 6, OpenMode::READ).unwrap();
    issue(&mut next, A1, 6);
    next.release(second(61), OpenId(6));
    records.take(&mut next);
    let orders: Vec<u64> = (1..7).map(|open| records.tombstones[&OpenId(open)].order).collect();
    assert!(orders.is_sorted_by(|one, next| one < next), "{orders:?}");
    let changes = records.table(&restart(second(70), false)).unwrap().take_changes(usize::MAX);
    assert_eq!(changes.tombstones.len(), 6, "on another boot their times are others");
}

#[test]
fn what_can_be_told_after_the_server_was_killed() {
    let look = |len, changed_ns| Attributes { len, changed_ns, ..Attributes::default() };
    let told = |records: &Records, identity: &PublicKey, attributes: Attributes| {
        let next = records.table(&restart(second(50), true)).unwrap();
        next.meanwhile(OpenId(1), identity, Time(0), &attributes)
    };
    let mut table = table();
    admit(&mut table, second(0), A1, 1, OpenMode::READ_WRITE).unwrap();
    admit(&mut table, second(0), B1, 2, OpenMode::READ_WRITE).unwrap();
    let mut records = stored(&mut table);
    assert_eq!(told(&records, &ALICE, look(7, 1)), Meanwhile::Unchanged);
    assert_eq!(told(&records, &ALICE, look(7, 2)), Meanwhile::ChangedLocally);
    table.note_change(second(1), HandleId(1));
    records.take(&mut table);
    assert_eq!(told(&records, &ALICE, look(8, 2)), Meanwhile::Unknown, "its own writes hide everything");
    table.note_change(second(2), HandleId(2));
    records.take(&mut table);
    assert_eq!(told(&records, &ALICE, look(8, 2)), Meanwhile::ChangedByClient);
    // Once it was seen to be away, and looked at, all is known again.
    table.session_away(second(5), A1);
    table.looked_at(OpenId(1), second(5), &look(9, 3));
    records.take(&mut table);
    assert_eq!(told(&records, &ALICE, look(9, 3)), Meanwhile::Unchanged);
    assert_eq!(told(&records, &ALICE, look(9, 4)), Meanwhile::ChangedLocally);
}

#[test]
fn a_repeated_open_takes_the_place_of_what_it_left_with_the_earlier_server() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    let mut next = stored(&mut table).table(&restart(second(10), true)).unwrap();
    let export = export();
    let found = next.find_created(second(11), &repeat(A2, 1, 9, &export)).unwrap().unwrap();
    assert_eq!((found.open, found.handle), (OpenId(1), HandleId(9)));
    assert_eq!(events(&mut next), [drained(A1, 1)]);
    assert!(next.resume(second(12), &key, claim(A2, 10)).is_ok(), "its key has moved along");
}

#[test]
fn only_what_can_be_resumed_is_stored_and_going_away_is_not_urgent() {
    let mut table = table();
    let asked = Admission { resumable: false, ..admission(A1, 1, FILE, OpenMode::READ) };
    table.admit(second(0), asked).unwrap();
    assert!(!table.has_changes());
    admit(&mut table, second(0), A1, 2, OpenMode::READ).unwrap();
    assert!(table.take_changes(usize::MAX).is_urgent);
    table.session_away(second(1), A1);
    let changes = table.take_changes(usize::MAX);
    assert_eq!((changes.is_urgent, changes.opens.len()), (false, 1));
    table.session_back(A1);
    assert!(!table.take_changes(usize::MAX).is_urgent);
    table.begin_close(A1, HandleId(2)).unwrap();
    let changes = table.take_changes(usize::MAX);
    assert!(changes.is_urgent && changes.opens == [(OpenId(2), None)]);
}

#[test]
fn an_open_follows_its_name_when_it_is_renamed_through_the_server() {
    let path = |text: &str| ExportPath::new(text).unwrap();
    let mut table = table();
    for (n, at) in [(1, "a/b/c"), (2, "a/bc"), (3, "x")] {
        let file = FileIdentity { inode: 50 + n, ..FILE };
        table.admit(second(0), Admission { path: path(at), ..admission(A1, n, file, EXCLUSIVE) }).unwrap();
    }
    let mut records = stored(&mut table);
    let mut renamed = |table: &mut OpenTable, from: &str, to: &str, is_exchange: bool| {
        table.renamed(&export(), &path(from), &path(to), is_exchange);
        records.take(table);
        [1, 2, 3].map(|n| String::from_utf8(records.opens[&OpenId(n)].path.as_bytes().to_vec()).unwrap())
    };
    assert_eq!(renamed(&mut table, "a/b", "d", false), ["d/c", "a/bc", "x"]);
    assert_eq!(renamed(&mut table, "d/c", "a/y", false), ["a/y", "a/bc", "x"]);
    assert_eq!(renamed(&mut table, "a", "x", true), ["x/y", "x/bc", "a"]);
    table.renamed(&"other".parse().unwrap(), &path("x"), &path("z"), false);
    assert!(!table.has_changes());
}

#[test]
fn records_that_are_not_of_one_table_are_refused() {
    let mut table = table();
    admit_locker(&mut table, A1, 1);
    issue(&mut table, A1, 1);
    let lock = LockRequest {
        request: RequestId(1),
        range: range(5, 9),
        mode: LockMode::Exclusive,
        wait: Duration::ZERO,
    };
    table.lock(second(1), A1, HandleId(1), lock).unwrap();
    let good = stored(&mut table).opens.remove(&OpenId(1)).unwrap();
    let with = |change: &dyn Fn(&mut StoredOpen)| {
        let mut second = good.clone();
        second.create_id = create_id(9);
        second.holders[0].handle = HandleId(9);
        second.keys[0].home = HandleId(9);
        second.locks.clear();
        change(&mut second);
        let opens = BTreeMap::from([(OpenId(1), good.clone()), (OpenId(2), second)]);
        Records { opens, ..Records::default() }.table(&restart(Time(9_000_000), true)).map(drop)
    };
    assert_eq!(with(&|_| ()), Ok(()));
    let two = OpenId(2);
    assert_eq!(with(&|open| open.create_id = good.create_id), Err(RestoreError::Twice(two)));
    assert_eq!(with(&|open| open.holders[0].handle = HandleId(1)), Err(RestoreError::Twice(two)));
    assert_eq!(with(&|open| open.mode = EXCLUSIVE), Err(RestoreError::Excluded(two)));
    assert_eq!(with(&|open| open.locks = good.locks.clone()), Err(RestoreError::Lock(two)));
    let beyond = crate::model::RawRange { start: u64::MAX, len: 2 };
    assert_eq!(with(&|open| open.locks = vec![(beyond, LockMode::Shared)]), Err(RestoreError::Lock(two)));
    let contradiction = Err(RestoreError::Contradiction(two));
    assert_eq!(with(&|open| open.holders.clear()), contradiction);
    assert_eq!(with(&|open| open.keys[0].home = HandleId(1)), contradiction);
    assert_eq!(with(&|open| open.keys[0].generation = 99), contradiction);
    assert_eq!(with(&|open| open.mode.rights = Rights::READ), contradiction);
}
