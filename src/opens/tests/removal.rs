//! Names that are removed or replaced, and the opens that do not share that.

use super::*;

const KEPT: OpenMode = OpenMode { rights: Rights::READ, share: ShareMode::READ.union(ShareMode::WRITE) };

#[test]
fn an_open_that_does_not_share_deleting_keeps_its_names() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, KEPT).unwrap();
    for session in [A2, B1] {
        let before = image(&table);
        assert_eq!(table.begin_removal(second(1), session, &[OTHER_FILE, FILE]), Err(busy(Duration::ZERO)));
        assert_eq!(image(&table), before, "nothing is kept for a removal that was refused");
    }
    assert_eq!(table.begin_removal(second(1), B1, &[OTHER_FILE]), Ok(()));
    table.end_removal(&[OTHER_FILE]);
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(table.begin_removal(second(1), B1, &[FILE]), Ok(()));
}

#[test]
fn an_open_that_shares_deleting_does_not() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, OpenMode { share: ShareMode::DELETE, ..OpenMode::READ }).unwrap();
    assert_eq!(table.begin_removal(second(1), B1, &[FILE]), Ok(()));
}

#[test]
fn a_session_removes_what_it_has_open_itself() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, KEPT).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(0), &key, claim(A2, 2)).unwrap();
    for session in [A1, A2] {
        assert_eq!(table.begin_removal(second(1), session, &[FILE]), Ok(()));
        table.end_removal(&[FILE]);
    }
    table.begin_operation(A1, HandleId(1), Rights::READ).unwrap();
    table.begin_close(A1, HandleId(1)).unwrap();
    let answer = table.begin_removal(second(1), A1, &[FILE]);
    assert_eq!(answer, Err(busy(Duration::ZERO)), "a handle that is being closed is none");
    admit(&mut table, second(1), B1, 3, KEPT).unwrap();
    assert_eq!(
        table.begin_removal(second(1), A2, &[FILE]),
        Err(busy(Duration::ZERO)),
        "another open keeps it"
    );
}

#[test]
fn an_orphan_keeps_its_names_for_its_grace() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, KEPT).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::READ).unwrap();
    table.session_away(second(10), A1);
    assert_eq!(table.begin_removal(second(30), B1, &[FILE]), Err(busy(Duration::from_secs(40))));
    assert_eq!(events(&mut table), []);
    assert_eq!(table.begin_removal(second(70), B1, &[FILE]), Err(busy(OpenTable::DRAIN_RETRY)));
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    assert_eq!(table.begin_removal(second(70), B1, &[FILE]), Ok(()));
}

#[test]
fn while_a_name_is_removed_nobody_comes_who_would_keep_it() {
    let mut table = table();
    table.begin_removal(second(0), B1, &[FILE, OTHER_FILE, FILE]).unwrap();
    for session in [A1, B1] {
        assert_eq!(admit(&mut table, second(0), session, 1, KEPT), Err(busy(OpenTable::DRAIN_RETRY)));
    }
    admit(&mut table, second(0), A1, 1, OpenMode::READ).unwrap();
    table.begin_removal(second(0), A1, &[FILE]).unwrap();
    table.end_removal(&[FILE, OTHER_FILE, FILE]);
    assert_eq!(admit(&mut table, second(0), A1, 2, KEPT), Err(busy(OpenTable::DRAIN_RETRY)), "one is left");
    assert!(table.admit(second(0), admission(A1, 3, OTHER_FILE, KEPT)).is_ok());
    table.end_removal(&[FILE]);
    assert!(admit(&mut table, second(0), A1, 2, KEPT).is_ok());
    assert!(table.removals.is_empty());
}
