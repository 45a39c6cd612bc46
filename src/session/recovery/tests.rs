//! Every kind of change against every way in which its places may look.

use super::*;
use crate::model::{CreateId, Epoch, LinkTarget, PublicKey, RequestId, SessionId};

fn file(inode: u64) -> Option<FileIdentity> {
    Some(FileIdentity { device: 1, inode, born_ns: 5 })
}

fn state(found: Option<FileIdentity>) -> NameState {
    NameState { directory: file(99), file: found }
}

fn name(path: &str, before: Option<FileIdentity>) -> IntendedName {
    IntendedName {
        export: "data".parse().unwrap(),
        path: ExportPath::new(path.as_bytes()).unwrap(),
        before: state(before),
    }
}

fn seen(names: &[Option<FileIdentity>]) -> Evidence {
    Evidence { names: names.iter().map(|found| state(*found)).collect(), ..Evidence::default() }
}

const F: u64 = 1;
const T: u64 = 2;
const OTHER: u64 = 3;

use IntentOutcome::{Executed, NotExecuted, Unknown};

/// What is decided of a change, and what if another one of the same name was under way too.
fn check(change: &IntendedChange, cases: &[(&[Option<FileIdentity>], IntentOutcome, IntentOutcome)]) {
    for (names, alone, contested) in cases {
        let evidence = seen(names);
        assert_eq!(judge(change, &evidence, false), *alone, "{change:?} {names:?}");
        assert_eq!(judge(change, &evidence, true), *contested, "{change:?} {names:?}, contested");
        let mut moved = evidence.clone();
        moved.names[0].directory = file(98);
        assert_eq!(judge(change, &moved, false), Unknown, "{change:?} {names:?}, in another directory");
    }
    assert_eq!(judge(change, &Evidence::default(), false), Unknown, "{change:?}, without evidence");
}

#[test]
fn t32_what_makes_a_name_is_decided_by_what_the_name_stands_for() {
    let make = |made| IntendedChange::Make { at: name("a", None), create_id: CreateId([1; 16]), file: made };
    let own: &[(&[Option<FileIdentity>], IntentOutcome, IntentOutcome)] = &[
        (&[file(F)], Executed, Executed),
        (&[None], NotExecuted, Unknown),
        (&[file(OTHER)], Unknown, Unknown),
    ];
    check(&make(file(F)), own);
    check(&make(None), &[(&[file(F)], Unknown, Unknown), (&[None], NotExecuted, Unknown)]);
    check(&IntendedChange::HardLink(name("a", None), file(F).unwrap()), own);
    check(
        &IntendedChange::HardLink(name("a", file(F)), file(F).unwrap()),
        &[(&[file(F)], NotExecuted, Unknown), (&[None], Unknown, Unknown)],
    );
    check(
        &IntendedChange::MakeDirectory(name("a", None)),
        &[(&[file(F)], Unknown, Unknown), (&[None], NotExecuted, Unknown)],
    );
    check(
        &IntendedChange::MakeDirectory(name("a", file(T))),
        &[(&[file(T)], NotExecuted, Unknown), (&[file(F)], Unknown, Unknown), (&[None], Unknown, Unknown)],
    );
    let target = LinkTarget::new(*b"there").unwrap();
    let symlink = IntendedChange::Symlink(name("a", None), target.clone());
    check(&symlink, &[(&[file(F)], Unknown, Unknown), (&[None], NotExecuted, Unknown)]);
    let made = Evidence { target: Some(target), ..seen(&[file(F)]) };
    assert_eq!((judge(&symlink, &made, false), judge(&symlink, &made, true)), (Executed, Unknown));
}

#[test]
fn t32_what_takes_a_name_away_is_decided_by_what_the_names_stand_for() {
    check(
        &IntendedChange::Remove(name("a", file(F))),
        &[
            (&[None], Executed, Unknown),
            (&[file(OTHER)], Executed, Unknown),
            (&[file(F)], NotExecuted, Unknown),
        ],
    );
    let rename = |to: Option<FileIdentity>, how| IntendedChange::Rename {
        from: name("a", file(F)),
        to: name("b", to),
        how,
    };
    for how in [RenameHow::Replace, RenameHow::NoReplace] {
        for to in [None, file(T)] {
            check(
                &rename(to, how),
                &[
                    (&[None, file(F)], Executed, Executed),
                    (&[file(F), to], NotExecuted, Unknown),
                    (&[None, to], Unknown, Unknown),
                    (&[None, file(OTHER)], Unknown, Unknown),
                    (&[file(OTHER), file(F)], Unknown, Unknown),
                    (&[file(F), file(F)], Unknown, Unknown),
                ],
            );
        }
    }
    check(
        &rename(file(T), RenameHow::Exchange),
        &[
            (&[file(T), file(F)], Executed, Executed),
            (&[file(F), file(T)], NotExecuted, Unknown),
            (&[None, file(F)], Unknown, Unknown),
            (&[file(T), None], Unknown, Unknown),
        ],
    );
    check(
        &rename(file(F), RenameHow::Replace),
        &[(&[file(F), file(F)], Executed, Executed), (&[None, file(F)], Unknown, Unknown)],
    );
}

#[test]
fn t32_what_changes_bytes_is_decided_by_length_and_hash() {
    let at = || name("a", file(F));
    let set = |from, to| IntendedChange::SetLength { at: at(), from, to };
    let of_len = |found, len| Evidence { len: Some(len), ..seen(&[found]) };
    for (from, to, len, alone, contested) in [
        (10, 4, 4, Executed, Unknown),
        (10, 4, 10, NotExecuted, Unknown),
        (10, 4, 7, Unknown, Unknown),
        (4, 4, 4, Executed, Unknown),
        (0, 9, 9, Executed, Unknown),
    ] {
        assert_eq!(judge(&set(from, to), &of_len(file(F), len), false), alone, "{from} {to} {len}");
        assert_eq!(judge(&set(from, to), &of_len(file(F), len), true), contested, "{from} {to} {len}");
        assert_eq!(judge(&set(from, to), &of_len(file(OTHER), len), false), Unknown);
        assert_eq!(judge(&set(from, to), &of_len(None, len), false), Unknown);
    }
    let append = IntendedChange::Append { at: at(), offset: 100, len: 10, sum: [7; 32] };
    let with = |len, sum| Evidence { sum, ..of_len(file(F), len) };
    let appended = IntentOutcome::Appended { offset: 100, written: 10 };
    for (len, sum, expected) in [
        (100, None, NotExecuted),
        (110, Some([7; 32]), appended),
        (150, Some([7; 32]), appended),
        (110, Some([8; 32]), Unknown),
        (105, None, Unknown),
        (99, None, Unknown),
        (109, Some([7; 32]), Unknown),
    ] {
        assert_eq!(judge(&append, &with(len, sum), false), expected, "{len} {sum:?}");
        assert_eq!(judge(&append, &with(len, sum), true), Unknown, "{len} {sum:?}, contested");
    }
    let replaced = Evidence { sum: Some([7; 32]), ..of_len(file(OTHER), 110) };
    assert_eq!(judge(&append, &replaced, false), Unknown);
}

fn record(change: IntendedChange, outcome: Option<IntentOutcome>) -> StoredIntent {
    let client = PublicKey([1; 32]);
    StoredIntent {
        client,
        session: SessionId([2; 16]),
        request: RequestId(3),
        epoch: Epoch(4),
        change,
        outcome,
    }
}

#[test]
fn t32_an_outcome_stands_on_the_same_boot_and_has_to_be_seen_on_another() {
    let remove = || IntendedChange::Remove(name("a", file(F)));
    for (now, recorded, is_same_boot, expected) in [
        (None, None, true, Some(Executed)),
        (file(F), None, false, Some(NotExecuted)),
        (file(F), Some(Executed), true, None),
        (None, Some(Executed), false, None),
        (file(F), Some(Executed), false, Some(Unknown)),
        (file(F), Some(NotExecuted), false, None),
        (None, Some(Unknown), false, None),
    ] {
        let changed = recover(&[(1, record(remove(), recorded))], is_same_boot, |_| seen(&[now]));
        let outcome = changed.first().and_then(|(_, intent)| intent.outcome);
        assert_eq!(outcome, expected, "{now:?} {recorded:?} {is_same_boot}");
    }
}

#[test]
fn t32_two_that_were_under_way_on_one_name_hide_each_other() {
    let remove = || IntendedChange::Remove(name("a", file(F)));
    let outcomes = |second: Option<IntentOutcome>| -> Vec<_> {
        let records = [(1, record(remove(), None)), (2, record(remove(), second))];
        recover(&records, true, |_| seen(&[None]))
            .into_iter()
            .map(|(key, intent)| (key, intent.outcome))
            .collect()
    };
    assert_eq!(outcomes(None), [(1, Some(Unknown)), (2, Some(Unknown))]);
    assert_eq!(outcomes(Some(NotExecuted)), [(1, Some(Executed))], "the other one was done before");
}
