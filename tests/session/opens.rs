//! What becomes of opens when sessions go away, come back, end, or belong to somebody else.

use bowline::model::{CreateId, OpenMode, PublicKey, Reason, Refusal, Rights, Time};
use bowline::session::client::{ConnectFailure, RequestError, SessionEvent, SessionLoss};
use bowline::session::server::{ServerNote, SessionEnd};

use super::pair::{Cut, LineSpec, OpenSpec, Pair, Who, policy};
use super::{L0, L1, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

fn start() -> (Pair, Who) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![1; 64]);
    pair.disk.put("b", vec![2; 64]);
    let who = pair.complete_client(1, &LINES);
    (pair, who)
}

fn cut_all(pair: &mut Pair, who: Who) {
    [L0, L1].into_iter().for_each(|line| pair.cut(who, line, Cut::NOW));
    pair.run_for(millis(1));
}

fn heal_all(pair: &mut Pair, who: Who) {
    [L0, L1].into_iter().for_each(|line| pair.heal(who, line));
}

fn exclusive(pair: &mut Pair, who: Who, create_id: u8, grace_ms: u64) -> bowline::session::client::Ticket {
    pair.open_as(
        who,
        OpenSpec {
            mode: OpenMode::READ_WRITE.exclusive(),
            create_id: CreateId([create_id; 16]),
            grace_ms,
            ..OpenSpec::of("a")
        },
    )
}

pub(super) fn refusal(error: RequestError) -> Refusal {
    match error {
        RequestError::Refused(refusal) => refusal,
        other => panic!("not refused but {other:?}"),
    }
}

fn is_over(pair: &Pair, who: Who, loss: SessionLoss) -> bool {
    pair.events(who).iter().any(|(_, event)| *event == SessionEvent::Ended(loss))
}

#[test]
fn a_guard_needs_an_open_that_can_be_resumed() {
    let (mut pair, who) = start();
    let guarded = OpenSpec { guard: true, with_key: false, ..OpenSpec::of("a") };
    let open = pair.open_as(who, OpenSpec { create_id: CreateId([1; 16]), ..guarded });
    assert!(pair.opened(who, open).1.is_none());
    let open = pair.open_as(who, OpenSpec { create_id: CreateId([2; 16]), resumable: false, ..guarded });
    assert_eq!(refusal(pair.error(who, open)), Reason::Invalid.into());
}

#[test]
fn a_session_that_lost_all_channels_goes_on_with_its_handles() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    let session = pair.session(who);
    cut_all(&mut pair, who);
    let write = pair.write(who, handle, 0, *b"later");
    let stat = pair.stat(who, handle);
    pair.run_for(seconds(20));
    assert!(pair.outcome(who, write).is_none() && pair.outcome(who, stat).is_none());
    assert!(pair.notes.iter().any(|note| matches!(note, ServerNote::SessionAway { .. })));
    heal_all(&mut pair, who);
    pair.finish(who, write);
    pair.finish(who, stat);
    assert_eq!(&pair.disk.bytes("a")[..5], b"later");
    assert_eq!((pair.server.sessions_len(), pair.session(who), pair.core(who).loss()), (1, session, None));
}

#[test]
fn refused_binds_prove_nothing_while_the_server_says_that_the_session_lives() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    cut_all(&mut pair, who);
    heal_all(&mut pair, who);
    [L0, L1].into_iter().for_each(|line| pair.fail_binds(who, line, Some(ConnectFailure::Refused)));
    let stat = pair.stat(who, handle);
    pair.run_for(seconds(20));
    assert_eq!((pair.core(who).loss(), pair.outcome(who, stat).is_none()), (None, true));
    [L0, L1].into_iter().for_each(|line| pair.fail_binds(who, line, None));
    pair.finish(who, stat);
}

#[test]
fn a_contender_hears_the_time_left_and_gets_the_file_when_the_grace_is_over() {
    let (mut pair, first) = start();
    let second = pair.complete_client(2, &LINES);
    let open = exclusive(&mut pair, first, 1, 30_000);
    pair.opened(first, open);
    let held = exclusive(&mut pair, second, 2, 0);
    let busy = refusal(pair.error(second, held));
    assert_eq!((busy.reason, busy.retry_after()), (Reason::Busy, None), "it is in use, and nobody can say");
    cut_all(&mut pair, first);
    let away_at = pair.now();
    pair.run_for(seconds(10));
    let orphaned = exclusive(&mut pair, second, 3, 0);
    let busy = refusal(pair.error(second, orphaned));
    assert_eq!(busy.reason, Reason::Busy);
    let left = busy.retry_after().expect("an orphan has a deadline");
    // The answer was made a moment ago, on its way back for at most this long.
    let ends = pair.now().after(left).since(away_at);
    assert!(ends >= seconds(30) - millis(2) && ends <= seconds(30) + millis(3), "{ends:?}");
    pair.run_for(left);
    let granted = exclusive(&mut pair, second, 4, 0);
    pair.opened(second, granted);
    assert_eq!((pair.server.table().opens_len(), pair.disk.descriptors()), (1, 1), "the orphan was closed");
}

/// B13, B14, B15, B16 in one life: refused with the time that is left, let in after it, and the owner is told.
#[test]
fn b14_b15_b16_an_orphan_keeps_a_contender_out_for_its_grace_and_gives_way_after_it() {
    let (mut pair, who) = start();
    let open = exclusive(&mut pair, who, 1, 30_000);
    let (_, key) = pair.opened(who, open);
    cut_all(&mut pair, who);
    let contender = pair.complete_client(2, &LINES);
    pair.run_for(seconds(10));
    let early = exclusive(&mut pair, contender, 2, 30_000);
    let busy = refusal(pair.error(contender, early));
    assert_eq!(busy.reason, Reason::Busy);
    let left = busy.retry_after().unwrap();
    assert!(left > seconds(15) && left < seconds(20), "{left:?}");
    // The one who waits just so long is let in, though nothing else has happened meanwhile.
    pair.run_for(left);
    assert_eq!((pair.disk.descriptors(), pair.server.table().opens_len()), (1, 1));
    let late = exclusive(&mut pair, contender, 3, 30_000);
    pair.opened(contender, late);
    assert_eq!((pair.disk.descriptors(), pair.server.table().opens_len()), (1, 1));
    // The first client's session lives on, and hears what became of its file.
    heal_all(&mut pair, who);
    pair.run_for(seconds(5));
    assert_eq!(pair.core(who).loss(), None, "its session is kept for the default grace");
    let back = pair.resume(who, &key.unwrap(), None);
    assert_eq!(refusal(pair.error(who, back)).reason, Reason::TakenOver);
}

#[test]
fn b13_an_orphan_that_nobody_wants_is_there_after_its_grace_and_not_for_ever() {
    let (mut pair, who) = start();
    let open = exclusive(&mut pair, who, 1, 30_000);
    let (_, key) = pair.opened(who, open);
    let key = key.unwrap();
    cut_all(&mut pair, who);
    pair.run_for(seconds(3600));
    assert_eq!((pair.disk.closed.len(), pair.server.table().opens_len()), (0, 1));
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key, None);
    let (duplicate, _) = pair.opened(heir, resumed);
    let write = pair.write(heir, duplicate, 0, *b"heir");
    pair.finish(heir, write);
    pair.close_session(heir);
    pair.run_until("it is closed", seconds(2 * 86_400), |pair| pair.disk.closed.len() == 1);
    let late = pair.complete_client(1, &LINES);
    let resumed = pair.resume(late, &key, None);
    assert_eq!(refusal(pair.error(late, resumed)).reason, Reason::Expired);
}

#[test]
fn another_session_of_the_same_identity_resumes_and_another_identity_changes_nothing() {
    let (mut pair, first) = start();
    let open = exclusive(&mut pair, first, 1, 30_000);
    let (handle, key) = pair.opened(first, open);
    let key = key.unwrap();
    cut_all(&mut pair, first);
    let stranger = pair.complete_client(2, &LINES);
    let refused = pair.resume(stranger, &key, None);
    assert_eq!(refusal(pair.error(stranger, refused)), Reason::ResumeRefused.into());
    let dropping = pair.resume(stranger, &key, Some(handle));
    assert_eq!(refusal(pair.error(stranger, dropping)), Reason::ResumeRefused.into());
    let image: Vec<_> =
        pair.server.table().holders().map(|view| (view.handle, view.phase, view.executing)).collect();
    assert_eq!(image.len(), 1, "{image:?}");
    assert_eq!(pair.server.table().opens().map(|open| open.keys).collect::<Vec<_>>(), [1]);

    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key, Some(handle));
    let (duplicate, _) = pair.opened(heir, resumed);
    let write = pair.write(heir, duplicate, 0, *b"heir");
    pair.finish(heir, write);
    assert_eq!(&pair.disk.bytes("a")[..4], b"heir");
    assert_eq!((pair.server.table().opens_len(), pair.server.table().holders_len()), (1, 1));
    heal_all(&mut pair, first);
    let old = pair.read(first, handle, 0, 1);
    assert_eq!(refusal(pair.error(first, old)).reason, Reason::BadHandle, "it was replaced");
}

/// The successor must not be told the file's state while its predecessor still writes.
#[test]
fn a_resume_waits_until_nothing_of_the_predecessor_is_executing() {
    let (mut pair, first) = start();
    let open = exclusive(&mut pair, first, 1, 30_000);
    let (handle, key) = pair.opened(first, open);
    pair.disk.hold_writes = 1;
    let write = pair.write(first, handle, 0, *b"old");
    pair.run_until("it is executing", seconds(1), |pair| pair.disk.held() == 1);
    cut_all(&mut pair, first);
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key.unwrap(), Some(handle));
    pair.run_for(seconds(1));
    assert!(pair.outcome(heir, resumed).is_none());
    pair.release_disk();
    pair.opened(heir, resumed);
    assert_eq!(pair.disk.executions(b"old"), 1);
    heal_all(&mut pair, first);
    pair.run_until("the write is answered", seconds(5), |pair| pair.outcome(first, write).is_some());
}

#[test]
fn a_handle_is_of_no_use_in_a_session_of_another_identity() {
    let (mut pair, first) = start();
    let handle = pair.handle(first, "a");
    let second = pair.complete_client(2, &LINES);
    let twin = pair.complete_client(1, &LINES);
    for other in [second, twin] {
        let tries = [
            pair.read(other, handle, 0, 1),
            pair.write(other, handle, 0, *b"x"),
            pair.stat(other, handle),
            pair.sync(other, handle),
            pair.issue_key(other, handle),
            pair.close(other, handle),
        ];
        for request in tries {
            assert_eq!(refusal(pair.error(other, request)).reason, Reason::BadHandle);
        }
    }
    let read = pair.read(first, handle, 0, 1);
    assert_eq!(pair.bytes(first, read).as_slice(), [1]);
    assert!(pair.disk.writes.is_empty());
}

#[test]
fn a_client_that_is_not_allowed_any_more_is_told_and_its_files_close_when_they_are_idle() {
    let (mut pair, who) = start();
    let other = pair.complete_client(2, &LINES);
    let handle = pair.handle(who, "a");
    let kept = pair.handle(other, "b");
    pair.disk.hold_writes = 1;
    let write = pair.write(who, handle, 0, *b"one");
    pair.run_until("it is executing", seconds(1), |pair| pair.disk.held() == 1);
    let mut fewer = policy();
    fewer.clients.remove(&PublicKey([1; 32]));
    pair.change_policy(fewer);
    assert_eq!(pair.error(who, write), RequestError::Ended(SessionLoss::NotAllowed));
    assert!(is_over(&pair, who, SessionLoss::NotAllowed));
    pair.run_for(seconds(1));
    assert!(pair.disk.closed.is_empty(), "a write of it is executing");
    pair.release_disk();
    pair.run_for(seconds(1));
    assert_eq!(pair.disk.closed.len(), 1);
    assert!(
        pair.notes
            .iter()
            .any(|note| matches!(note, ServerNote::SessionEnded { reason: SessionEnd::NotAllowed, .. }))
    );
    let read = pair.read(other, kept, 0, 1);
    assert_eq!(pair.bytes(other, read).as_slice(), [2], "others go on");
}

#[test]
fn a_right_that_was_taken_away_refuses_the_next_write() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    let before = pair.write(who, handle, 0, *b"one");
    pair.finish(who, before);
    let mut less = policy();
    less.clients.get_mut(&PublicKey([1; 32])).unwrap().rights = Rights::READ;
    pair.change_policy(less);
    let write = pair.write(who, handle, 0, *b"two");
    assert_eq!(refusal(pair.error(who, write)).reason, Reason::PermissionDenied);
    let read = pair.read(who, handle, 0, 3);
    assert_eq!(pair.bytes(who, read).as_slice(), b"one");
    assert_eq!(pair.disk.executions(b"two"), 0);
}

#[test]
fn an_entry_that_expires_ends_the_session_at_that_moment() {
    let (mut pair, who) = start();
    pair.handle(who, "a");
    let mut soon = policy();
    // The wall clock shows 1,700,000,000 s when the virtual one shows 0.
    soon.clients.get_mut(&PublicKey([1; 32])).unwrap().expires_s = Some(1_700_000_100);
    pair.change_policy(soon);
    pair.run_until("the session is over", seconds(120), |pair| is_over(pair, who, SessionLoss::NotAllowed));
    let at = pair.now();
    assert!(at >= Time(100_000_000) && at < Time(100_010_000), "{at:?}");
    assert_eq!(pair.disk.descriptors(), 0);
}

#[test]
fn a_session_that_is_closed_on_purpose_leaves_an_orphan_only_where_it_kept_handles() {
    let (mut pair, tidy) = start();
    let untidy = pair.complete_client(1, &LINES);
    let handle = pair.handle(tidy, "a");
    pair.handle(untidy, "b");
    let close = pair.close(tidy, handle);
    pair.finish(tidy, close);
    [tidy, untidy].into_iter().for_each(|who| pair.close_session(who));
    pair.run_for(seconds(1));
    assert_eq!((pair.server.sessions_len(), pair.server.table().opens_len()), (1, 1));
    assert!(is_over(&pair, tidy, SessionLoss::Closed));
    // The one who left it is gone, and it stays for whoever has the key, within the bounds of such opens.
    pair.run_for(seconds(61));
    assert_eq!((pair.server.sessions_len(), pair.disk.descriptors()), (1, 1));
    pair.run_for(seconds(86_400));
    assert_eq!((pair.server.sessions_len(), pair.disk.descriptors()), (0, 0));
}

/// A replayed reconnect got a handle that was connected, and took it from its holder.
#[test]
fn cve_durable_v2_a_key_that_is_replayed_at_a_live_open_takes_the_handle_from_nobody() {
    let (mut pair, first) = start();
    let open = exclusive(&mut pair, first, 1, 0);
    let (handle, key) = pair.opened(first, open);
    let key = key.unwrap();
    let sessions = [first, pair.complete_client(1, &LINES), pair.complete_client(1, &LINES)];
    let stranger = pair.complete_client(2, &LINES);
    let mut handles = vec![(first, handle)];
    let mut written = Vec::new();
    for round in 0..12_u64 {
        // In the first holder's own session as well as in others, while everybody writes.
        let who = sessions[usize::try_from(round % 3).unwrap()];
        let resumed = pair.resume(who, &key, None);
        for &(who, handle) in &handles {
            let at = u64::try_from(written.len()).unwrap();
            written.push((who, pair.write(who, handle, at, [b'x'])));
        }
        handles.push((who, pair.opened(who, resumed).0));
        let stolen = pair.resume(stranger, &key, None);
        assert_eq!(refusal(pair.error(stranger, stolen)).reason, Reason::ResumeRefused);
    }
    for (who, write) in written {
        pair.finish(who, write);
    }
    // Each handle is where it was given, and nowhere else; one that is closed takes nothing with it.
    let owners: Vec<_> =
        pair.server.table().holders().map(|holder| (holder.handle, holder.session)).collect();
    assert_eq!(owners.len(), 13);
    assert!(handles.iter().all(|(who, handle)| owners.contains(&(*handle, pair.session(*who)))));
    let others = handles.split_off(1);
    for (who, other) in others {
        let foreign = sessions.into_iter().find(|session| *session != who).unwrap();
        let misused = pair.read(foreign, other, 0, 1);
        assert_eq!(refusal(pair.error(foreign, misused)).reason, Reason::BadHandle);
        let close = pair.close(who, other);
        pair.finish(who, close);
        let write = pair.write(first, handle, 0, *b"still");
        pair.finish(first, write);
    }
    assert_eq!(&pair.disk.bytes("a")[..5], b"still");
}
