//! Behaviours of the table, one story each; `shadow.rs` compares random runs with a naive model.

mod changes;
mod grants;
mod keys;
mod locks;
mod orphans;
mod removal;
mod shadow;
mod sharing;
mod stored;
mod views;
mod waits;

use core::time::Duration;
use std::collections::BTreeMap;

use super::locks::FileLocks;
use super::open::{Holder, Open};
use super::sessions::SessionPart;
use super::waits::{LockUse, Wait, WaitKey};
use super::*;
use crate::model::{
    ByteRange, CreateId, ExportName, ExportPath, FileIdentity, FileMark, HandleId, Limits, LockMode, OpenId,
    OpenMode, PublicKey, Reason, Refusal, RequestId, ResumeKey, Rights, SessionId, ShareMode, Time,
};

const ALICE: PublicKey = PublicKey([0xa1; 32]);
const BOB: PublicKey = PublicKey([0xb0; 32]);
/// Two sessions of Alice and one of Bob.
const A1: SessionId = SessionId([1; 16]);
const A2: SessionId = SessionId([2; 16]);
const B1: SessionId = SessionId([3; 16]);

const FILE: FileIdentity = FileIdentity { device: 1, inode: 10, born_ns: 0 };
const OTHER_FILE: FileIdentity = FileIdentity { device: 1, inode: 11, born_ns: 0 };
const EXCLUSIVE: OpenMode = OpenMode::READ_WRITE.exclusive();
const GRACE: Duration = Duration::from_secs(60);

/// A secret whose bytes are easy to find in a text.
const SECRET: [u8; 16] = *b"sixteen secrets!";
const STAMP_US: u64 = 1_700_000_000_000_000;
const PROCESS_ID: u32 = 4711;
/// How every file looks until somebody changes it.
const MARK: FileMark = FileMark { len: 7, changed_ns: 1 };

fn export() -> ExportName {
    "media".parse().unwrap()
}

fn second(at: u64) -> Time {
    Time(at * 1_000_000)
}

fn table() -> OpenTable {
    OpenTable::new([0x5a; 32], &Limits::default())
}

/// Number `n` of a session's requests to open: its open, handle and create id are all `n`.
fn admission(session: SessionId, n: u64, file: FileIdentity, mode: OpenMode) -> Admission {
    Admission {
        session,
        owner: if session == B1 { BOB } else { ALICE },
        open: OpenId(n),
        handle: HandleId(n),
        file,
        export: export(),
        mode,
        rights: mode.rights,
        create_id: create_id(n),
        grace: GRACE,
        lock: None,
        resumable: true,
        guard: false,
        path: ExportPath::new(format!("file-{}", file.inode)).unwrap(),
        mark: MARK,
    }
}

fn create_id(n: u64) -> CreateId {
    let mut id = [u8::try_from(n % 256).unwrap(); 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    CreateId(id)
}

fn admit(
    table: &mut OpenTable,
    now: Time,
    session: SessionId,
    n: u64,
    mode: OpenMode,
) -> Result<Admitted, Refusal> {
    table.admit(now, admission(session, n, FILE, mode))
}

fn issue(table: &mut OpenTable, session: SessionId, handle: u64) -> ResumeKey {
    table.issue_key(session, HandleId(handle), STAMP_US, PROCESS_ID, SECRET).unwrap()
}

fn everything(_: &ExportName) -> Option<Rights> {
    Some(Rights::ALL)
}

/// A claim of a session for handle `handle`, with nothing to hinder it.
fn claim(session: SessionId, handle: u64) -> Claim<'static> {
    Claim {
        session,
        identity: if session == B1 { &BOB } else { &ALICE },
        handle: HandleId(handle),
        predecessor: None,
        may_use: &everything,
    }
}

fn replacing(predecessor: u64, claim: Claim<'static>) -> Claim<'static> {
    Claim { predecessor: Some(HandleId(predecessor)), ..claim }
}

fn repeat(session: SessionId, n: u64, handle: u64, export: &ExportName) -> Repeat<'_> {
    Repeat {
        session,
        owner: if session == B1 { &BOB } else { &ALICE },
        create_id: create_id(n),
        handle: HandleId(handle),
        export,
        mode: EXCLUSIVE,
        rights: EXCLUSIVE.rights,
        resumable: true,
    }
}

/// What there is to do. How files look, and who is told why, is asked for where it matters.
fn events(table: &mut OpenTable) -> Vec<TableEvent> {
    let all = core::iter::from_fn(|| table.poll_event());
    let is_elsewhere = |event: &TableEvent| {
        matches!(event, TableEvent::LookAt { .. } | TableEvent::OpenEnded { .. } | TableEvent::Ended { .. })
    };
    all.filter(|event| !is_elsewhere(event)).collect()
}

fn closed(open: u64) -> TableEvent {
    TableEvent::CloseFile { open: OpenId(open) }
}

fn drained(session: SessionId, handle: u64) -> TableEvent {
    TableEvent::Drained { session, handle: HandleId(handle) }
}

fn refused(reason: Reason) -> Refusal {
    reason.into()
}

fn busy(left: Duration) -> Refusal {
    Refusal::busy(left)
}

/// An open of [`FILE`] with the right to lock, that reads and writes and shares everything.
fn admit_locker(table: &mut OpenTable, session: SessionId, n: u64) {
    let asked = admission(session, n, FILE, OpenMode::READ_WRITE);
    let rights = asked.rights.union(Rights::LOCK);
    table.admit(second(0), Admission { rights, ..asked }).unwrap();
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

/// Everything that a call can change, but for the events.
#[derive(PartialEq, Debug)]
struct Image {
    opens: BTreeMap<OpenId, Open>,
    holders: BTreeMap<HandleId, Holder>,
    sessions: BTreeMap<SessionId, SessionPart>,
    locks: BTreeMap<FileIdentity, FileLocks>,
    lock_use: BTreeMap<PublicKey, LockUse>,
    waits: BTreeMap<WaitKey, Wait>,
    removals: BTreeMap<FileIdentity, usize>,
    next_deadline: Option<Time>,
}

fn image(table: &OpenTable) -> Image {
    table.check_invariants();
    Image {
        opens: table.opens.iter().map(|(id, open)| (*id, Open::clone(open))).collect(),
        holders: table.holders.iter().map(|(handle, holder)| (*handle, Holder::clone(holder))).collect(),
        sessions: table.by_session.iter().map(|(id, part)| (*id, part.clone())).collect(),
        locks: table.locks.iter().map(|(file, locks)| (*file, locks.clone())).collect(),
        lock_use: table.lock_use.iter().map(|(owner, used)| (*owner, *used)).collect(),
        waits: table.waits.iter().map(|(key, wait)| (*key, *wait)).collect(),
        removals: table.removals.clone().into_iter().collect(),
        next_deadline: table.next_deadline(),
    }
}

#[test]
fn b11_b13_the_file_stays_open_when_the_session_is_away() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(5), A1);
    assert_eq!(events(&mut table), []);
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Orphaned);
    assert_eq!(table.next_deadline(), Some(second(65)));
    table.session_back(A1);
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Held);
    assert_eq!(table.next_deadline(), None);
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::WRITE), Ok(OpenId(1)));
}

#[test]
fn the_grace_counts_from_the_last_disconnect_and_not_from_a_second_report_of_it() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.session_away(second(5), A1);
    table.session_away(second(20), A1);
    assert_eq!(table.next_deadline(), Some(second(65)));
    table.session_back(A1);
    table.session_away(second(30), A1);
    assert_eq!(table.next_deadline(), Some(second(90)));
}

#[test]
fn the_deadline_of_an_orphan_is_the_latest_of_its_holders() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(1), &key, claim(A2, 2)).unwrap();
    table.session_away(second(10), A1);
    assert_eq!(table.next_deadline(), None, "a holder is live");
    table.session_away(second(15), A2);
    assert_eq!(table.next_deadline(), Some(second(75)));
    let asked = || admission(B1, 3, FILE, EXCLUSIVE);
    assert_eq!(table.admit(Time(second(75).0 - 1), asked()), Err(Refusal::busy(Duration::from_millis(1))));
    assert!(table.admit(second(75), asked()).is_ok());
    assert_eq!(events(&mut table), [drained(A1, 1), drained(A2, 2), closed(1)]);
}

#[test]
fn a_close_waits_for_what_is_executing_and_takes_nothing_new() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::READ).unwrap();
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::READ), Err(refused(Reason::BadHandle)));
    assert_eq!(table.begin_close(A1, HandleId(1)), Err(refused(Reason::BadHandle)));
    assert!(table.issue_key(A1, HandleId(1), 0, 0, SECRET).is_err());
    assert_eq!(table.holder(A1, HandleId(1)).unwrap().phase, HolderPhase::Draining);
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), []);
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Closing);
    assert_eq!(admit(&mut table, second(1), B1, 2, OpenMode::READ), Err(busy(OpenTable::DRAIN_RETRY)));
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), [drained(A1, 1), closed(1)]);
    assert!(admit(&mut table, second(1), B1, 2, OpenMode::READ).is_ok());
}

#[test]
fn a_close_that_waits_is_no_way_back_in() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.begin_close(A1, HandleId(1)).unwrap();
    let before = image(&table);
    assert_eq!(table.resume(second(1), &key, claim(A1, 2)), Err(refused(Reason::ResumeRefused)));
    let export = export();
    let again = table.find_created(second(1), &repeat(A1, 1, 3, &export));
    assert_eq!(again, Err(busy(OpenTable::DRAIN_RETRY)));
    assert_eq!(image(&table), before);
    table.session_away(second(2), A1);
    table.session_back(A1);
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Closing);
}

#[test]
fn closing_one_of_two_handles_leaves_the_other() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(1), &key, claim(A1, 2)).unwrap();
    table.begin_close(A1, HandleId(1)).unwrap();
    assert_eq!(events(&mut table), [drained(A1, 1)]);
    assert_eq!(table.begin_operation(A1, HandleId(2), Rights::WRITE), Ok(OpenId(1)));
    // The last reachable handle closes while another waits: the open waits for that one.
    table.end_operation(HandleId(2));
    let key = issue(&mut table, A1, 2);
    table.resume(second(2), &key, claim(A2, 3)).unwrap();
    table.session_away(second(3), A2);
    table.begin_close(A1, HandleId(2)).unwrap();
    assert_eq!(table.next_deadline(), Some(second(63)));
}

#[test]
fn handles_work_in_their_own_session_and_within_their_rights() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, OpenMode::READ).unwrap();
    for session in [A2, B1] {
        assert_eq!(table.holder(session, HandleId(1)), Err(refused(Reason::BadHandle)));
        assert_eq!(
            table.begin_operation(session, HandleId(1), Rights::READ),
            Err(refused(Reason::BadHandle))
        );
        assert_eq!(table.begin_close(session, HandleId(1)), Err(refused(Reason::BadHandle)));
        assert!(table.issue_key(session, HandleId(1), 0, 0, SECRET).is_err());
    }
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::WRITE), Err(refused(Reason::PermissionDenied)));
    assert_eq!(table.holder(A1, HandleId(1)).unwrap().executing, 0, "what was refused does not count");
}

#[test]
fn b02_the_view_of_a_handle_tells_mode_rights_and_export() {
    let mut table = table();
    let rights = EXCLUSIVE.rights.union(Rights::LOCK);
    let asked = Admission { rights, ..admission(A1, 1, FILE, EXCLUSIVE) };
    let admitted = table.admit(second(0), asked).unwrap();
    assert!(admitted.is_new_open);
    assert_eq!((admitted.mode, admitted.rights), (EXCLUSIVE, rights));
    let export = export();
    let view = table.holder(A1, HandleId(1)).unwrap();
    assert_eq!((view.open, view.mode, view.rights, view.export), (OpenId(1), EXCLUSIVE, rights, &export));
}

#[test]
fn a_mode_is_useful_and_covered_by_the_rights() {
    let mut table = table();
    let lock_only = OpenMode { rights: Rights::LOCK, share: ShareMode::ALL };
    assert_eq!(admit(&mut table, second(0), A1, 1, lock_only), Err(refused(Reason::Invalid)));
    let asked = Admission { rights: Rights::READ, ..admission(A1, 1, FILE, OpenMode::READ_WRITE) };
    assert_eq!(table.admit(second(0), asked), Err(refused(Reason::PermissionDenied)));
    // A handle never writes through an open that others were told only reads.
    let asked = Admission { rights: Rights::ALL, ..admission(A1, 1, FILE, OpenMode::READ) };
    let rights = table.admit(second(0), asked).unwrap().rights;
    assert!(!rights.contains(Rights::WRITE));
    assert!(rights.contains(Rights::LOCK) && rights.contains(Rights::GRANT));
}

#[test]
fn an_ended_session_stops_at_once_and_takes_its_keys_along() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.admit(second(0), admission(A1, 2, OTHER_FILE, OpenMode::READ)).unwrap();
    let key = issue(&mut table, A1, 1);
    table.resume(second(0), &key, claim(A2, 3)).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.session_ended(A1);
    assert_eq!(events(&mut table), [drained(A1, 2), closed(2)]);
    assert_eq!(table.begin_operation(A1, HandleId(1), Rights::WRITE), Err(refused(Reason::BadHandle)));
    assert_eq!(table.resume(second(1), &key, claim(A2, 4)), Err(refused(Reason::ResumeRefused)));
    table.end_operation(HandleId(1));
    let said = events(&mut table);
    assert_eq!(said[1..], [drained(A1, 1)], "the duplicate of the other session keeps the open");
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Held);
}

#[test]
fn an_answer_that_comes_after_the_channel_broke_makes_an_orphan_and_no_held_open() {
    let mut table = table();
    table.session_away(second(1), A1);
    admit(&mut table, second(2), A1, 1, EXCLUSIVE).unwrap();
    assert_eq!(table.next_deadline(), Some(second(62)));
    table.session_back(A1);
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn an_operation_that_began_before_the_channel_broke_ends_in_peace() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, EXCLUSIVE).unwrap();
    table.begin_operation(A1, HandleId(1), Rights::WRITE).unwrap();
    table.session_away(second(1), A1);
    table.end_operation(HandleId(1));
    assert_eq!(events(&mut table), []);
    assert_eq!(table.opens().next().unwrap().phase, OpenPhase::Orphaned);
}

#[test]
fn a_grace_over_the_limit_is_cut_to_it() {
    let mut table = table();
    let asked = Admission { grace: Duration::from_secs(1 << 40), ..admission(A1, 1, FILE, EXCLUSIVE) };
    table.admit(second(0), asked).unwrap();
    table.session_away(second(0), A1);
    assert_eq!(table.next_deadline(), Some(Time::default().after(Limits::default().grace_max)));
}

#[test]
fn the_quota_counts_the_opens_of_one_identity_and_frees_them() {
    let limits = Limits { opens_per_client: 2, ..Limits::default() };
    let mut table = OpenTable::new([0; 32], &limits);
    admit(&mut table, second(0), A1, 1, OpenMode::READ).unwrap();
    admit(&mut table, second(0), A2, 2, OpenMode::READ).unwrap();
    assert_eq!(admit(&mut table, second(0), A1, 3, OpenMode::READ), Err(refused(Reason::Quota)));
    assert!(admit(&mut table, second(0), B1, 4, OpenMode::READ).is_ok());
    table.begin_close(A2, HandleId(2)).unwrap();
    assert!(admit(&mut table, second(0), A1, 3, OpenMode::READ).is_ok());
}

#[test]
fn a_random_id_that_is_taken_is_refused() {
    let mut table = table();
    admit(&mut table, second(0), A1, 1, OpenMode::READ).unwrap();
    let before = image(&table);
    for (open, handle) in [(1, 2), (2, 1)] {
        let asked = Admission {
            open: OpenId(open),
            handle: HandleId(handle),
            ..admission(A1, 9, FILE, OpenMode::READ)
        };
        assert_eq!(table.admit(second(0), asked), Err(refused(Reason::Exhausted)));
    }
    assert_eq!(image(&table), before);
}

#[test]
fn nothing_is_left_when_all_is_closed() {
    let mut table = table();
    for n in 1..=20 {
        let session = if n % 2 == 0 { A1 } else { B1 };
        admit_locker(&mut table, session, n);
        let wait = Duration::from_secs(u64::from(n > 15));
        let (request, mode) = (RequestId(n), if n > 15 { LockMode::Exclusive } else { LockMode::Shared });
        let asked = LockRequest { request, range: range(n % 3, 7), mode, wait };
        table.lock(second(0), session, HandleId(n), asked).unwrap();
    }
    table.session_away(second(1), A1);
    table.session_ended(A1);
    for n in (1..=20).filter(|n| n % 2 == 1) {
        table.begin_close(B1, HandleId(n)).unwrap();
    }
    table.session_away(second(2), B1);
    table.session_back(B1);
    assert_eq!(events(&mut table).len(), 45);
    assert!(table.opens.is_empty() && table.holders.is_empty() && table.deadlines.is_empty());
    assert!(table.by_file.is_empty() && table.by_owner.is_empty());
    assert!(table.by_session.is_empty());
    assert!(table.locks.is_empty() && table.lock_use.is_empty() && table.waits.is_empty());
}
