//! What becomes of a file while its holder is out of reach, and what is told of it.

use super::*;
use crate::model::{Attributes, Meanwhile};

/// How a file looks.
fn look(len: u64, changed_ns: i64) -> Attributes {
    Attributes { len, changed_ns, ..Attributes::default() }
}

fn unchanged() -> Attributes {
    look(MARK.len, MARK.changed_ns)
}

fn looks_wanted(table: &mut OpenTable) -> Vec<OpenId> {
    let all = core::iter::from_fn(|| table.poll_event());
    all.filter_map(|event| match event {
        TableEvent::LookAt { open } => Some(open),
        _ => None,
    })
    .collect()
}

fn write(table: &mut OpenTable, now: Time, session: SessionId, handle: u64) {
    table.begin_operation(session, HandleId(handle), Rights::WRITE).unwrap();
    table.note_change(now, HandleId(handle));
    table.note_change(now, HandleId(handle));
    table.end_operation(HandleId(handle));
}

/// Three opens of one file: two of Alice, one of Bob.
fn three() -> OpenTable {
    let mut table = table();
    for (session, n) in [(A1, 1), (A2, 2), (B1, 3)] {
        admit(&mut table, second(0), session, n, OpenMode::READ_WRITE).unwrap();
    }
    table
}

#[test]
fn b17_nobody_has_changed_the_file() {
    let mut table = three();
    table.session_away(second(10), A1);
    assert_eq!(looks_wanted(&mut table), [OpenId(1)]);
    table.looked_at(OpenId(1), second(9), &unchanged());
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &unchanged()), Meanwhile::Unchanged);
}

/// A second writer comes, for whose sake what the absent one wrote is synced: that is no look, which would take the file as
/// a local program has left it for what the absent one knows.
#[test]
fn b17_what_is_synced_for_others_does_not_hide_a_local_change() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, OpenMode::READ_WRITE).unwrap();
    write(&mut table, second(1), A1, 1);
    table.note_unsynced(OpenId(1));
    table.session_away(second(10), A1);
    assert_eq!(looks_wanted(&mut table), [OpenId(1)]);
    // A look that comes when something is executing is of no use, and asked for once more behind that.
    admit(&mut table, second(11), B1, 2, OpenMode::READ_WRITE).unwrap();
    let settling = table.begin_settling(OpenId(2));
    assert_eq!(settling, [(OpenId(1), HandleId(1))]);
    table.looked_at(OpenId(1), second(9), &unchanged());
    table.settled(settling[0], false);
    assert_eq!(looks_wanted(&mut table), [OpenId(1)]);
    table.looked_at(OpenId(1), second(9), &unchanged());
    for settling in table.begin_settling(OpenId(2)) {
        table.settled(settling, true);
    }
    assert_eq!(looks_wanted(&mut table), []);
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &unchanged()), Meanwhile::Unchanged);
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &look(8, 2)), Meanwhile::ChangedLocally);
}

#[test]
fn b16_another_client_has_changed_the_file_or_the_same_one_through_another_open() {
    for (session, n) in [(B1, 3), (A2, 2)] {
        let mut table = three();
        table.session_away(second(10), A1);
        table.looked_at(OpenId(1), second(9), &unchanged());
        write(&mut table, second(11), session, n);
        let told = table.meanwhile(OpenId(1), &ALICE, second(9), &look(8, 2));
        assert_eq!(told, Meanwhile::ChangedByClient);
        // However the file looks: it may have been changed back.
        let told = table.meanwhile(OpenId(1), &ALICE, second(9), &unchanged());
        assert_eq!(told, Meanwhile::ChangedByClient);
    }
}

#[test]
fn what_others_did_before_the_client_was_last_heard_of_is_no_news() {
    let mut table = three();
    write(&mut table, second(5), B1, 3);
    table.session_away(second(10), A1);
    table.looked_at(OpenId(1), second(9), &look(8, 2));
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &look(8, 2)), Meanwhile::Unchanged);
    // Between the last word of the client and the moment at which it was missed.
    let told = table.meanwhile(OpenId(1), &ALICE, second(4), &look(8, 2));
    assert_eq!(told, Meanwhile::ChangedByClient);
}

#[test]
fn somebody_else_than_a_client_has_changed_the_file() {
    let mut table = three();
    table.session_away(second(10), A1);
    table.looked_at(OpenId(1), second(9), &unchanged());
    for changed in [look(MARK.len + 1, MARK.changed_ns), look(MARK.len, MARK.changed_ns + 1)] {
        let told = table.meanwhile(OpenId(1), &ALICE, second(9), &changed);
        assert_eq!(told, Meanwhile::ChangedLocally);
    }
}

#[test]
fn what_the_client_wrote_itself_is_no_news_once_all_of_it_is_done() {
    let mut table = three();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.note_change(second(1), HandleId(1));
    table.session_away(second(10), A1);
    assert_eq!(looks_wanted(&mut table), [], "it is still executing");
    table.looked_at(OpenId(1), second(9), &look(8, 2));
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &look(8, 2)), Meanwhile::Unknown);
    table.note_change(second(11), HandleId(1));
    table.end_operation(HandleId(1));
    assert_eq!(looks_wanted(&mut table), [OpenId(1)]);
    table.looked_at(OpenId(1), second(9), &look(9, 3));
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &look(9, 3)), Meanwhile::Unchanged);
}

#[test]
fn while_the_client_writes_nobody_can_tell_what_else_happens() {
    let mut table = three();
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &unchanged()), Meanwhile::Unchanged);
    write(&mut table, second(1), A1, 1);
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &unchanged()), Meanwhile::Unknown);
}

#[test]
fn a_change_of_the_name_is_one_by_a_client() {
    let mut table = three();
    table.session_away(second(10), A1);
    table.looked_at(OpenId(1), second(9), &unchanged());
    table.note_change_of_name(second(11), OTHER_FILE, BOB);
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &unchanged()), Meanwhile::Unchanged);
    table.note_change_of_name(second(11), FILE, BOB);
    assert_eq!(table.meanwhile(OpenId(1), &ALICE, second(9), &look(7, 2)), Meanwhile::ChangedByClient);
}

/// Marks have to be stored before the first write of each kind executes, and once.
#[test]
fn a_first_write_is_an_urgent_change_of_the_records_and_the_next_one_is_none() {
    let mut table = three();
    table.take_changes(usize::MAX);
    let marks = |table: &mut OpenTable| -> Vec<(OpenId, bool, bool)> {
        let changes = table.take_changes(usize::MAX);
        assert_eq!(changes.is_urgent, !changes.is_empty());
        let of = |(id, open): &(OpenId, Option<crate::model::StoredOpen>)| {
            open.as_ref().map(|open| (*id, open.wrote, open.others_wrote))
        };
        changes.opens.iter().filter_map(of).collect()
    };
    table.note_change(second(1), HandleId(1));
    let expected = [(OpenId(1), true, false), (OpenId(2), false, true), (OpenId(3), false, true)];
    assert_eq!(marks(&mut table), expected);
    table.note_change(second(2), HandleId(1));
    assert_eq!(marks(&mut table), []);
    table.note_change(second(3), HandleId(3));
    assert_eq!(marks(&mut table), [(OpenId(1), true, true), (OpenId(3), true, true)]);
    for handle in [1, 3, 1] {
        table.note_change(second(4), HandleId(handle));
        assert_eq!(marks(&mut table), []);
    }
    // A newcomer, and a file that was looked at, are marked again.
    admit(&mut table, second(5), B1, 4, OpenMode::READ).unwrap();
    table.take_changes(usize::MAX);
    table.note_change(second(5), HandleId(1));
    assert_eq!(marks(&mut table), [(OpenId(4), false, true)]);
    table.session_away(second(6), A1);
    table.looked_at(OpenId(1), second(6), &unchanged());
    table.take_changes(usize::MAX);
    table.note_change(second(7), HandleId(3));
    assert_eq!(marks(&mut table), [(OpenId(1), false, true)]);
}
