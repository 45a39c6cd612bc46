//! Sessions that their server does not know any more: another one takes their place, and what was open in them goes on.

use bowline::model::{
    ByteRange, ChannelKind, Create, CreateId, HandleId, LockMode, Meanwhile, OpenMode, Reason, StoreId,
};
use bowline::session::LossReason;
use bowline::session::client::{Answer, HandleLoss, RequestError, SessionEvent, Ticket};
use bowline::session::server::ServerNote;
use bowline::wire::ServerControl;

use super::pair::{Cut, LineSpec, OpenSpec, Pair, Who};
use super::{L0, L1, kind, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

fn start() -> (Pair, Who) {
    let mut pair = Pair::new(1);
    for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
        pair.disk.put(name, vec![byte; 64]);
    }
    let who = pair.complete_client(1, &LINES);
    (pair, who)
}

fn id(byte: u8) -> CreateId {
    CreateId([byte; 16])
}

fn exclusive(path: &str, byte: u8) -> OpenSpec<'_> {
    OpenSpec { mode: OpenMode::READ_WRITE.exclusive(), create_id: id(byte), ..OpenSpec::of(path) }
}

fn reason(pair: &mut Pair, who: Who, request: Ticket) -> Reason {
    match pair.error(who, request) {
        RequestError::Refused(refusal) => refusal.reason,
        other => pair.fail(&format!("{request:?} was not refused: {other}")),
    }
}

fn events(pair: &Pair, who: Who) -> Vec<SessionEvent> {
    let is_channels = |event: &SessionEvent| {
        matches!(
            event,
            SessionEvent::ChannelUp { .. }
                | SessionEvent::ChannelDown { .. }
                | SessionEvent::LineFailed { .. }
        )
    };
    pair.events(who).iter().map(|(_, event)| event.clone()).filter(|event| !is_channels(event)).collect()
}

fn no_offence(pair: &Pair) {
    let offence = pair.notes.iter().find(|note| matches!(note, ServerNote::Offence { .. }));
    pair.check(offence.is_none(), "a client that keeps the protocol was called an offender");
}

fn handles(count: u64) -> impl Iterator<Item = CreateId> {
    (0..count).map(|at| {
        CreateId(core::array::from_fn(
            |byte| if byte == 0 { 9 } else { u8::try_from((at >> byte) & 0xff).unwrap() },
        ))
    })
}

#[test]
fn b32_a_file_goes_on_behind_its_handle_when_the_server_has_forgotten_the_session() {
    let (mut pair, who) = start();
    let open = pair.open_as(who, exclusive("a", 1));
    let (handle, key) = pair.opened(who, open);
    let (former, opens) = (pair.session(who), pair.server.table().opens_len());
    pair.forget_session(who);
    let (write, stat) = (pair.write(who, handle, 0, *b"later"), pair.stat(who, handle));
    let read = pair.read(who, handle, 60, 100);
    pair.finish(who, write);
    pair.finish(who, stat);
    assert_eq!(*pair.bytes(who, read), vec![1; 4]);
    assert_eq!(&pair.disk.bytes("a")[..5], b"later");
    assert_ne!(pair.session(who), former);
    assert_eq!(pair.server.table().opens_len(), opens, "it is the same open");
    let current = pair.core(who).current(handle);
    assert_ne!(current, handle, "the server calls it by another name");
    let (epoch, meanwhile) = (pair.core(who).terms().epoch, Meanwhile::Unchanged);
    let state = pair.core(who).file_state(handle).unwrap();
    let told = events(&pair, who);
    assert_eq!(told[..2], [SessionEvent::Lost, SessionEvent::Returned { epoch }]);
    let SessionEvent::Resumed { state: resumed, .. } = told[2] else { panic!("{told:?}") };
    assert_eq!(resumed.rights, state.rights);
    assert_eq!(
        told[2..],
        [SessionEvent::Resumed { handle: current, former: handle, meanwhile, state: resumed }]
    );
    assert_eq!(pair.core(who).meanwhile(handle), Some(meanwhile));
    assert_ne!(pair.core(who).resume_key(handle), key, "with a key of its own");

    // And again, by the name that its user knows.
    pair.forget_session(who);
    let write = pair.write(who, handle, 5, *b" still");
    pair.finish(who, write);
    assert_eq!(&pair.disk.bytes("a")[..11], b"later still");
    pair.run_until("all channels are there", seconds(10), |pair| pair.core(who).is_complete());
    let close = pair.close(who, handle);
    pair.finish(who, close);
    assert_eq!((pair.disk.descriptors(), pair.core(who).held_handles().count()), (0, 0));
    no_offence(&pair);
}

/// The question must go where the server was heard: over the line that refused, not over one that is dead.
#[test]
fn a_session_comes_back_over_whichever_line_works() {
    for dead in [L0, L1] {
        let (mut pair, who) = start();
        let handle = pair.handle(who, "a");
        pair.forget_session(who);
        pair.black_hole(who, dead);
        let pending = pair.stat(who, handle);
        pair.finish(who, pending);
        pair.check(pair.live(who, ChannelKind::Control).iter().all(|live| live.line != dead), "it is dead");
    }
}

/// Each was sent, and the server has seen none of them or all of them: nobody can say.
#[test]
fn what_may_run_twice_is_asked_again_and_of_the_rest_nobody_knows_the_outcome() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    [L0, L1].into_iter().for_each(|line| pair.stall_towards_server(who, line));
    let range = ByteRange::between(0, 8).unwrap();
    let again = [
        pair.read(who, handle, 0, 10),
        pair.write(who, handle, 10, *b"twice"),
        pair.stat(who, handle),
        pair.sync(who, handle),
        pair.lock(who, handle, (range, LockMode::Exclusive), millis(0)),
        pair.unlock(who, handle, range),
        pair.punch(who, handle, ByteRange::between(20, 24).unwrap()),
        pair.issue_key(who, handle),
        pair.open(who, "b"),
        pair.open_as(who, OpenSpec { create: Create::IfMissing, create_id: id(4), ..OpenSpec::of("new") }),
        pair.open_as(who, OpenSpec { create: Create::New, create_id: id(5), ..OpenSpec::of("newer") }),
    ];
    let unknown = [
        pair.append(who, handle, *b"once"),
        pair.set_len(who, handle, 32),
        pair.remove(who, "c"),
        pair.open_as(who, OpenSpec { truncate: true, create_id: id(6), ..OpenSpec::of("b") }),
    ];
    pair.run_for(millis(5));
    pair.forget_session(who);
    pair.run_for(millis(1));
    // Never sent, so there is nothing that could have been executed.
    let late = [pair.append(who, handle, *b"late"), pair.set_len(who, handle, 100), pair.remove(who, "b")];
    for request in unknown {
        assert_eq!(reason(&mut pair, who, request), Reason::Unknown);
    }
    for request in again.into_iter().chain(late) {
        pair.finish(who, request);
    }
    assert_eq!((pair.disk.executions(b"once"), pair.disk.executions(b"late")), (0, 1));
    assert_eq!(pair.disk.bytes("c").len(), 64);
    // The length may have been set before or after the bytes were appended.
    assert!([100, 104].contains(&pair.disk.bytes("a").len()));
    no_offence(&pair);
}

#[test]
fn an_open_whose_answer_was_lost_with_its_session_is_the_same_open() {
    let (mut pair, who) = start();
    pair.disk.hold_opens = 1;
    let spec = OpenSpec { create: Create::New, ..exclusive("new", 1) };
    let open = pair.open_as(who, spec);
    pair.run_until("the open is held", seconds(1), |pair| pair.disk.held() == 1);
    pair.forget_session(who);
    pair.release_disk();
    let (handle, _) = pair.opened(who, open);
    assert_eq!(pair.disk.opened, 1, "the file was not looked for again");
    pair.run_until("its key has come", seconds(1), |pair| pair.core(who).resume_key(handle).is_some());
    let write = pair.write(who, handle, 0, *b"mine");
    pair.finish(who, write);
    assert_eq!(pair.server.table().opens_len(), 1);
}

/// It may have been executed: so the open is asked for once more, without the cut, and given back.
#[test]
fn an_open_that_cuts_is_not_repeated_and_is_given_back() {
    let (mut pair, who) = start();
    pair.disk.hold_opens = 1;
    let open = pair.open_as(who, OpenSpec { truncate: true, ..exclusive("a", 1) });
    pair.run_until("the open is held", seconds(1), |pair| pair.disk.held() == 1);
    pair.forget_session(who);
    pair.release_disk();
    assert_eq!(reason(&mut pair, who, open), Reason::Unknown);
    pair.run_until("nothing is under way", seconds(1), |pair| pair.core(who).outstanding().0 == 0);
    assert_eq!(pair.server.table().session_holders(pair.session(who)), 0);
    let asked = |kind| {
        let sent = pair.sent(who).iter().filter(|sent| sent.kind == kind);
        sent.filter_map(|sent| sent.ticket).collect::<std::collections::BTreeSet<Ticket>>().len()
    };
    assert_eq!((asked(kind::OPEN), asked(kind::CLOSE)), (2, 1));
}

#[test]
fn an_open_that_nobody_wants_any_more_is_given_back_in_the_next_session() {
    let (mut pair, who) = start();
    pair.disk.hold_opens = 1;
    let open = pair.open_as(who, exclusive("a", 1));
    pair.run_until("the open is held", seconds(1), |pair| pair.disk.held() == 1);
    pair.forget_session(who);
    pair.run_for(millis(1));
    pair.withdraw(who, open);
    pair.release_disk();
    pair.run_until("the session is back", seconds(5), |pair| pair.core(who).is_complete());
    pair.run_until("nothing is under way", seconds(5), |pair| pair.core(who).outstanding().0 == 0);
    assert_eq!(pair.server.table().session_holders(pair.session(who)), 0);
    assert_eq!(pair.core(who).held_handles().count(), 0);
}

#[test]
fn a_handle_that_does_not_come_back_says_why_and_the_others_go_on() {
    let (mut pair, who) = start();
    let other = pair.complete_client(2, &LINES);
    let open = pair.open_as(who, OpenSpec { grace_ms: 1, ..exclusive("a", 1) });
    let (taken, _) = pair.opened(who, open);
    let open = pair.open_as(who, exclusive("b", 2));
    let (kept, _) = pair.opened(who, open);
    let open = pair.open_as(who, OpenSpec { with_key: false, create_id: id(3), ..OpenSpec::of("c") });
    let (keyless, _) = pair.opened(who, open);
    [L0, L1].into_iter().for_each(|line| pair.cut(who, line, Cut::NOW));
    pair.run_for(millis(10));
    let open = pair.open_as(other, exclusive("a", 4));
    pair.opened(other, open);
    let waiting = [taken, kept, keyless].map(|handle| pair.stat(who, handle));
    pair.forget_session(who);
    pair.finish(who, waiting[1]);
    assert_eq!(reason(&mut pair, who, waiting[0]), Reason::TakenOver);
    assert_eq!(pair.error(who, waiting[2]), RequestError::NotResumable);
    for (handle, error) in
        [(taken, RequestError::from(Reason::TakenOver)), (keyless, RequestError::NotResumable)]
    {
        let late = pair.write(who, handle, 0, *b"x");
        assert_eq!(pair.error(who, late), error, "what is asked later hears the same");
        let close = pair.close(who, handle);
        pair.finish(who, close);
    }
    let told = events(&pair, who);
    let lost = |handle, loss| told.contains(&SessionEvent::ResumeFailed { handle, loss });
    assert!(lost(taken, HandleLoss::Refused(Reason::TakenOver.into())) && lost(keyless, HandleLoss::NoKey));
    assert_eq!(pair.core(who).held_handles().collect::<Vec<HandleId>>(), [kept]);
}

#[test]
fn a_server_that_has_lost_its_opens_refuses_and_one_with_another_store_has_lost_its_state() {
    for is_other in [false, true] {
        let (mut pair, who) = start();
        // More than may be refused before a client is made to wait.
        let opens: Vec<Ticket> = handles(250)
            .map(|create_id| pair.open_as(who, OpenSpec { create_id, ..OpenSpec::of("a") }))
            .collect();
        let held: Vec<HandleId> = opens.into_iter().map(|open| pair.opened(who, open).0).collect();
        if is_other {
            pair.replace_store();
            pair.restart_server();
        } else {
            pair.replace_server();
        }
        let before = pair.now();
        let all: Vec<Ticket> = held.iter().map(|&handle| pair.stat(who, handle)).collect();
        let span = if is_other { seconds(2) } else { seconds(60) };
        pair.run_until("all have heard", span, |pair| {
            all.iter().all(|&request| pair.outcome(who, request).is_some())
        });
        for request in all {
            let error = pair.error(who, request);
            let is_right = match error {
                RequestError::StateLost => is_other,
                RequestError::Refused(refusal) => !is_other && refusal.reason == Reason::ResumeRefused,
                _ => false,
            };
            pair.check(is_right, &format!("{error:?} after {:?}", pair.now().since(before)));
        }
        let name = pair.remove(who, "b");
        pair.finish(who, name);
    }
}

#[test]
fn a_server_that_stops_is_waited_for() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    pair.stop_server();
    pair.run_for(millis(5));
    let (gone, name) = (pair.stat(who, handle), pair.remove(who, "b"));
    pair.run_for(seconds(20));
    assert_eq!((pair.core(who).loss(), pair.core(who).is_coming_back()), (None, true));
    assert!(pair.outcome(who, gone).is_none() && pair.outcome(who, name).is_none());
    let attempts =
        pair.events(who).iter().filter(|(_, event)| matches!(event, SessionEvent::RestartFailed { .. }));
    let attempts = attempts.count();
    assert!((8..25).contains(&attempts), "{attempts} attempts in 20 s: it backs off");
    pair.restart_server();
    pair.finish(who, name);
    pair.finish(who, gone);
}

#[test]
fn a_session_that_is_lost_while_it_comes_back_comes_back() {
    let (mut pair, who) = start();
    let open = pair.open_as(who, exclusive("a", 1));
    let (handle, _) = pair.opened(who, open);
    for wait in [0, 200, 700, 1_200, 1_700, 2_300, 3_000, 5_000] {
        pair.forget_session(who);
        let write = pair.write(who, handle, 0, *b"bytes");
        pair.run_for(core::time::Duration::from_micros(wait));
        pair.forget_session(who);
        let read = pair.read(who, handle, 60, 4);
        assert_eq!(*pair.bytes(who, read), vec![1; 4]);
        pair.finish(who, write);
        assert_eq!(&pair.disk.bytes("a")[..5], b"bytes");
    }
    pair.run_until("all channels are there", seconds(60), |pair| pair.core(who).is_complete());
    no_offence(&pair);
}

#[test]
fn a_lock_stays_with_its_open_and_a_wait_goes_on_for_what_is_left_of_it() {
    let range = ByteRange::between(0, 8).unwrap();
    for is_freed in [true, false] {
        let (mut pair, first) = start();
        let second = pair.complete_client(2, &LINES);
        let (held, wanted) = (pair.handle(first, "a"), pair.handle(second, "a"));
        let lock = pair.lock(first, held, (range, LockMode::Exclusive), seconds(0));
        pair.finish(first, lock);
        let begun = pair.now();
        let waiting = pair.lock(second, wanted, (range, LockMode::Exclusive), seconds(10));
        pair.run_for(seconds(4));
        pair.forget_session(first);
        pair.forget_session(second);
        pair.run_for(seconds(2));
        assert!(pair.outcome(second, waiting).is_none(), "the first one has it still");
        if is_freed {
            let unlock = pair.unlock(first, held, range);
            pair.finish(first, unlock);
            match pair.finish(second, waiting) {
                Answer::Control(ServerControl::Locked(locked), _) => assert_eq!(locked.handle, wanted),
                other => panic!("{other:?}"),
            }
        } else {
            assert_eq!(reason(&mut pair, second, waiting), Reason::Locked);
            let waited = pair.now().since(begun);
            assert!(waited >= seconds(10) && waited < millis(10_100), "{waited:?} in all");
        }
    }
}

#[test]
fn a_duplicate_in_place_of_a_handle_leaves_that_no_way_back_in_the_next_session_either() {
    let (mut pair, who) = start();
    let open = pair.open_as(who, exclusive("a", 1));
    let (old, key) = pair.opened(who, open);
    // By the name that the server has for it.
    pair.forget_session(who);
    let stat = pair.stat(who, old);
    pair.finish(who, stat);
    let current = pair.core(who).current(old);
    let resume = pair.resume(who, &key.unwrap(), Some(current));
    let (new, _) = pair.opened(who, resume);
    let late = pair.write(who, old, 0, *b"x");
    assert_eq!(reason(&mut pair, who, late), Reason::BadHandle);
    pair.forget_session(who);
    let (late, write) = (pair.write(who, old, 0, *b"x"), pair.write(who, new, 0, *b"y"));
    pair.finish(who, write);
    assert_eq!(reason(&mut pair, who, late), Reason::BadHandle);
    assert_eq!(pair.server.table().opens_len(), 1);
}

/// The first copy is in the server, its session is gone, the second one was made in the next session, and a newer write
/// followed: the old one must not be let go after that.
#[test]
fn t31_a_late_first_copy_of_the_former_session_changes_nothing() {
    let (mut pair, who) = start();
    let open = pair.open_as(who, exclusive("a", 1));
    let (handle, _) = pair.opened(who, open);
    pair.disk.hold_writes = 1;
    let first = pair.write(who, handle, 0, *b"first");
    pair.run_until("the write is held", seconds(1), |pair| pair.disk.held() == 1);
    pair.forget_session(who);
    pair.run_for(seconds(1));
    assert!(pair.outcome(who, first).is_none(), "the handle that it was given through is not drained");
    pair.release_disk();
    pair.finish(who, first);
    let newer = pair.write(who, handle, 0, *b"newer");
    pair.finish(who, newer);
    pair.run_for(seconds(5));
    assert_eq!(&pair.disk.bytes("a")[..5], b"newer");
}

#[test]
fn a_server_that_drops_each_session_at_once_is_not_asked_without_a_pause() {
    let (mut pair, who) = start();
    pair.handle(who, "a");
    for _ in 0..400 {
        pair.forget_session(who);
        pair.run_for(millis(50));
    }
    let begun = pair.notes.iter().filter(|note| matches!(note, ServerNote::SessionStarted { .. })).count();
    assert!(begun < 30, "{begun} sessions in 20 s");
    let handle = pair.core(who).held_handles().next().unwrap();
    let stat = pair.stat(who, handle);
    pair.finish(who, stat);
}

/// One that serves is not one that drops what it takes: the pause is for those that never get anywhere.
#[test]
fn a_server_that_is_killed_again_and_again_while_it_serves_is_asked_at_once() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    for round in 0..20 {
        let write = pair.write(who, handle, 0, *b"served");
        pair.finish(who, write);
        pair.forget_session(who);
        let began = pair.now();
        let stat = pair.stat(who, handle);
        pair.finish(who, stat);
        let elapsed = pair.now().since(began);
        assert!(elapsed < millis(500), "back after {elapsed:?} in round {round}");
    }
}

#[test]
fn another_store_is_told_by_its_id() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    assert_eq!(pair.core(who).terms().verifier.store, StoreId([1; 16]));
    pair.replace_store();
    pair.restart_server();
    let stat = pair.stat(who, handle);
    assert_eq!(pair.error(who, stat), RequestError::StateLost);
    let again = pair.handle(who, "a");
    let stat = pair.stat(who, again);
    pair.finish(who, stat);
}

/// The simulation found it: a lock that waited for somebody's read was told when its handle was closed, under a name that the
/// client had forgotten; it called that an offence, bound another channel, and asked again, for ever.
#[test]
fn a_lock_that_is_told_after_its_handle_was_closed_offends_nobody() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    // From now on the server calls it by another name.
    pair.forget_session(who);
    let stat = pair.stat(who, handle);
    pair.finish(who, stat);
    let other = pair.complete_client(2, &LINES);
    let foreign = pair.handle(other, "a");
    pair.disk.hold_reads = 1;
    let read = pair.read(other, foreign, 0, 8);
    pair.run_until("the read is held", seconds(1), |pair| pair.disk.held() == 1);
    let range = ByteRange::between(0, 8).unwrap();
    let lock = pair.lock(who, handle, (range, LockMode::Exclusive), millis(0));
    let close = pair.close(who, handle);
    pair.finish(who, close);
    assert!(pair.outcome(who, lock).is_none());
    pair.release_disk();
    pair.finish(other, read);
    pair.run_until("the lock is answered", seconds(5), |pair| pair.outcome(who, lock).is_some());
    let offences = pair.losses(who).into_iter().filter(|(_, _, reason)| *reason == LossReason::Offence);
    assert_eq!(offences.count(), 0);
    no_offence(&pair);
}
