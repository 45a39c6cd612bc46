//! The server's process ends and another one starts on its store: opens, locks and keys are there again, and nothing that
//! anybody was told is missing.

use bowline::model::{ByteRange, Create, CreateId, LockMode, Meanwhile, OpenMode, Reason};
use bowline::opens::OpenEnd;
use bowline::session::client::{Answer, Ticket};
use bowline::session::server::ServerNote;
use bowline::wire::ServerControl;

use super::opens::refusal;
use super::pair::{Cut, LineSpec, OpenSpec, Pair, Who};
use super::{L0, L1, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

fn start(seed: u64) -> (Pair, Who) {
    let mut pair = Pair::new(seed);
    pair.disk.put("a", vec![7; 1000]);
    pair.disk.put("b", vec![8; 1000]);
    let who = pair.complete_client(1, &LINES);
    (pair, who)
}

fn exclusive(pair: &mut Pair, who: Who) -> Ticket {
    let mode = OpenMode::READ_WRITE.exclusive();
    pair.open_as(who, OpenSpec { mode, create_id: CreateId([9; 16]), ..OpenSpec::of("a") })
}

fn exclusive_of(pair: &mut Pair, who: Who, path: &str) -> Ticket {
    let mode = OpenMode::READ_WRITE.exclusive();
    pair.open_as(who, OpenSpec { mode, create_id: CreateId([8; 16]), ..OpenSpec::of(path) })
}

/// What a resume said of the time between.
fn meanwhile(pair: &Pair, who: Who, ticket: Ticket) -> Option<Meanwhile> {
    match pair.outcome(who, ticket) {
        Some(Ok(Answer::Control(ServerControl::Opened(opened), _))) => opened.meanwhile,
        other => panic!("not opened: {other:?}"),
    }
}

#[test]
fn b33_b34_b35_a_key_works_with_the_next_server_and_the_next_client() {
    for is_reboot in [false, true] {
        let (mut pair, first) = start(1);
        let open = exclusive(&mut pair, first);
        let (handle, key) = pair.opened(first, open);
        if is_reboot {
            pair.reboot_server()
        } else {
            pair.restart_server()
        }
        // Others wait for their turn as before, and hear how long.
        let contender = pair.complete_client(2, &LINES);
        let early = exclusive(&mut pair, contender);
        let busy = refusal(pair.error(contender, early));
        assert!(busy.reason == Reason::Busy && busy.retry_after().is_some(), "{busy:?}");
        let heir = pair.complete_client(1, &LINES);
        let resumed = pair.resume(heir, &key.unwrap(), Some(handle));
        let (duplicate, _) = pair.opened(heir, resumed);
        assert_eq!(meanwhile(&pair, heir, resumed), Some(Meanwhile::Unchanged));
        let write = pair.write(heir, duplicate, 0, *b"heir");
        pair.finish(heir, write);
        assert_eq!(&pair.disk.bytes("a")[..4], b"heir");
        assert_eq!((pair.server.table().opens_len(), pair.server.table().holders_len()), (1, 1));
    }
}

#[test]
fn b35_locks_hold_across_a_restart() {
    let (mut pair, first) = start(2);
    let open = pair.open(first, "a");
    let (handle, key) = pair.opened(first, open);
    let lock = pair.lock(first, handle, (ByteRange::between(0, 10).unwrap(), LockMode::Exclusive), millis(0));
    pair.finish(first, lock);
    pair.restart_server();
    let other = pair.complete_client(2, &LINES);
    let foreign = pair.handle(other, "a");
    let read = pair.read(other, foreign, 0, 5);
    assert_eq!(refusal(pair.error(other, read)).reason, Reason::Locked);
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key.unwrap(), None);
    let (duplicate, _) = pair.opened(heir, resumed);
    let write = pair.write(heir, duplicate, 0, *b"mine");
    pair.finish(heir, write);
}

/// The first server tells nobody of what its store does not have.
#[test]
fn what_was_told_was_stored_before_and_what_was_not_stored_was_not_told() {
    for (delay_us, seed) in [(0, 1), (2_000, 2), (50_000, 3)]
        .into_iter()
        .flat_map(|(delay, seed)| (0..20).map(move |more| (delay, seed * 100 + more)))
    {
        let (mut pair, who) = start(seed);
        pair.store_us = (delay_us, delay_us);
        let opens: Vec<_> = (0..8).map(|_| pair.open(who, "a")).collect();
        pair.run_for(millis(seed % 60));
        let answered: Vec<Ticket> =
            opens.into_iter().filter(|&open| pair.outcome(who, open).is_some()).collect();
        let told: Vec<_> = answered.into_iter().map(|open| pair.opened(who, open)).collect();
        pair.restart_server();
        let heir = pair.complete_client(1, &LINES);
        for (_, key) in told {
            let resumed = pair.resume(heir, &key.unwrap(), None);
            pair.opened(heir, resumed);
        }
    }
}

#[test]
fn a_commit_that_takes_long_holds_up_what_it_is_for_and_no_reads() {
    let (mut pair, who) = start(3);
    let handle = pair.handle(who, "a");
    pair.store_us = (500_000, 500_000);
    let open = pair.open(who, "a");
    let read = pair.read(who, handle, 0, 10);
    pair.run_for(millis(400));
    assert!(pair.outcome(who, read).is_some());
    assert!(pair.outcome(who, open).is_none());
    pair.opened(who, open);
}

/// B16: the first foreign write is noted before it executes, so that the next server knows it.
#[test]
fn b16_f37_the_next_server_knows_that_another_client_has_written() {
    let (mut pair, first) = start(4);
    let open = pair.open(first, "a");
    let (_, key) = pair.opened(first, open);
    let other = pair.complete_client(2, &LINES);
    let foreign = pair.handle(other, "a");
    let write = pair.write(other, foreign, 0, *b"else");
    pair.finish(other, write);
    pair.restart_server();
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key.unwrap(), None);
    pair.opened(heir, resumed);
    assert_eq!(meanwhile(&pair, heir, resumed), Some(Meanwhile::ChangedByClient));
}

/// Also of writes that follow the first one at once, whenever the server's process ends.
#[test]
fn b16_whatever_was_acknowledged_of_another_client_the_next_server_knows_of_it() {
    let mut acknowledged = 0;
    for wait in 0..8 {
        let (mut pair, first) = start(4);
        let open = pair.open(first, "a");
        let (_, key) = pair.opened(first, open);
        let other = pair.complete_client(2, &LINES);
        let foreign = pair.handle(other, "a");
        pair.store_us = (20_000, 20_000);
        let writes: Vec<Ticket> = (0..4).map(|at| pair.write(other, foreign, at * 10, *b"else")).collect();
        pair.run_for(millis(wait * 10));
        let is_told = writes.iter().any(|&write| pair.outcome(other, write).is_some());
        acknowledged += usize::from(is_told);
        pair.restart_server();
        let heir = pair.complete_client(1, &LINES);
        let resumed = pair.resume(heir, &key.unwrap(), None);
        pair.opened(heir, resumed);
        if is_told {
            assert_eq!(meanwhile(&pair, heir, resumed), Some(Meanwhile::ChangedByClient), "after {wait}");
        }
    }
    assert!((1..8).contains(&acknowledged), "{acknowledged}");
}

#[test]
fn b17_who_comes_back_hears_exactly_what_became_of_the_file() {
    type Change = fn(&mut Pair);
    let cases: [(Change, Meanwhile); 3] = [
        (|_| (), Meanwhile::Unchanged),
        (|pair| pair.disk.change_locally("a", 0, b"local"), Meanwhile::ChangedLocally),
        (
            |pair| {
                let other = pair.complete_client(2, &LINES);
                let foreign = pair.handle(other, "a");
                let write = pair.write(other, foreign, 0, *b"else");
                pair.finish(other, write);
            },
            Meanwhile::ChangedByClient,
        ),
    ];
    for (change, expected) in cases {
        let (mut pair, first) = start(5);
        let open = pair.open(first, "a");
        let (handle, key) = pair.opened(first, open);
        let write = pair.write(first, handle, 0, *b"mine");
        pair.finish(first, write);
        pair.close_session(first);
        pair.run_for(seconds(1));
        change(&mut pair);
        let heir = pair.complete_client(1, &LINES);
        let resumed = pair.resume(heir, &key.unwrap(), None);
        pair.opened(heir, resumed);
        assert_eq!(meanwhile(&pair, heir, resumed), Some(expected));
    }
}

/// A change is told to whoever hears of it: an answer that found its client dead has told nobody, and the next process
/// with the former key hears of the change as if nobody had come back in between.
#[test]
fn b16_a_change_that_was_told_to_a_client_that_died_before_the_answer_is_told_to_the_next() {
    for (seed, is_restarted) in [(21, false), (22, true)] {
        let (mut pair, first) = start(seed);
        let open = pair.open(first, "a");
        let (handle, key) = pair.opened(first, open);
        let key = key.unwrap();
        pair.close_session(first);
        pair.run_for(seconds(1));
        let other = pair.complete_client(2, &LINES);
        let foreign = pair.handle(other, "a");
        let write = pair.write(other, foreign, 0, *b"else");
        pair.finish(other, write);
        if is_restarted {
            pair.restart_server();
        }
        let unlucky = pair.complete_client(1, &LINES);
        let lost = pair.resume(unlucky, &key, Some(handle));
        pair.run_until("the server has it", seconds(1), |pair| {
            pair.server.table().holders().any(|holder| holder.session == pair.session(unlucky))
        });
        assert!(pair.outcome(unlucky, lost).is_none());
        pair.kill_client(unlucky, false);
        pair.run_for(seconds(1));
        let heir = pair.complete_client(1, &LINES);
        let resumed = pair.resume(heir, &key, Some(handle));
        pair.opened(heir, resumed);
        assert_eq!(meanwhile(&pair, heir, resumed), Some(Meanwhile::ChangedByClient), "{is_restarted}");
    }
}

/// What another client wrote before the server started anew is told once, and not each time from then on.
#[test]
fn b17_after_a_restart_a_change_by_another_client_is_told_once() {
    let (mut pair, first) = start(9);
    let open = pair.open(first, "a");
    let (_, key) = pair.opened(first, open);
    pair.close_session(first);
    pair.run_for(seconds(1));
    let other = pair.complete_client(2, &LINES);
    let foreign = pair.handle(other, "a");
    let write = pair.write(other, foreign, 0, *b"else");
    pair.finish(other, write);
    pair.close_session(other);
    pair.restart_server();
    let mut key = key.unwrap();
    let expected = [Meanwhile::ChangedByClient, Meanwhile::Unchanged, Meanwhile::Unchanged];
    for (time, expected) in expected.into_iter().enumerate() {
        let heir = pair.complete_client(1, &LINES);
        let resumed = pair.resume(heir, &key, None);
        let (_, next) = pair.opened(heir, resumed);
        assert_eq!(meanwhile(&pair, heir, resumed), Some(expected), "the time {time}");
        key = next.unwrap();
        pair.close_session(heir);
        pair.run_for(seconds(1));
    }
    pair.restart_server();
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key, None);
    pair.opened(heir, resumed);
    assert_eq!(meanwhile(&pair, heir, resumed), Some(Meanwhile::Unchanged));
}

/// Without its store the server knows nothing, and says no more than to a stranger.
#[test]
fn a_server_without_its_store_refuses_every_key() {
    let (mut pair, first) = start(6);
    let open = pair.open(first, "a");
    let (_, key) = pair.opened(first, open);
    pair.replace_server();
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key.unwrap(), None);
    assert_eq!(refusal(pair.error(heir, resumed)).reason, Reason::ResumeRefused);
}

/// F50: the store's disk is full. What is there goes on, and can be given up; new opens that would last are refused.
#[test]
fn f50_opens_that_cannot_be_stored_are_refused_and_the_others_go_on() {
    let (mut pair, who) = start(7);
    let open = pair.open(who, "a");
    let (handle, key) = pair.opened(who, open);
    pair.store.is_full = true;
    let late = pair.open(who, "a");
    assert_eq!(refusal(pair.error(who, late)).reason, Reason::NoSpace);
    assert_eq!((pair.server.table().opens_len(), pair.disk.descriptors()), (1, 1), "nothing is left of it");
    let short = pair.open_as(who, OpenSpec { resumable: false, with_key: false, ..OpenSpec::of("a") });
    pair.opened(who, short);
    let write = pair.write(who, handle, 0, *b"goes on");
    pair.finish(who, write);
    let lock = pair.lock(who, handle, (ByteRange::between(0, 10).unwrap(), LockMode::Exclusive), millis(0));
    pair.finish(who, lock);
    let other = pair.complete_client(1, &LINES);
    let resumed = pair.resume(other, &key.unwrap(), Some(handle));
    let (duplicate, _) = pair.opened(other, resumed);
    let close = pair.close(other, duplicate);
    pair.finish(other, close);
    assert!(pair.store.opens.is_empty());
    pair.store.is_full = false;
    let again = pair.open(who, "a");
    pair.opened(who, again);
}

/// An orphan that was broken for an open that could not be stored is gone all the same, and its owner hears it from the
/// next server too.
#[test]
fn f50_what_was_broken_for_a_refused_open_is_stored_as_ended() {
    let (mut pair, first) = start(8);
    let open = exclusive(&mut pair, first);
    let (_, key) = pair.opened(first, open);
    pair.close_session(first);
    pair.run_for(seconds(61));
    pair.store.is_full = true;
    let contender = pair.complete_client(2, &LINES);
    let late = exclusive(&mut pair, contender);
    assert_eq!(refusal(pair.error(contender, late)).reason, Reason::NoSpace);
    let is_noted = |note: &ServerNote| matches!(note, ServerNote::OpenEnded { why: OpenEnd::TakenOver, .. });
    assert_eq!(pair.notes.iter().filter(|note| is_noted(note)).count(), 1);
    pair.run_for(seconds(1));
    pair.restart_server();
    assert_eq!(pair.server.table().opens_len(), 0);
    let heir = pair.complete_client(1, &LINES);
    let resumed = pair.resume(heir, &key.unwrap(), None);
    assert_eq!(refusal(pair.error(heir, resumed)).reason, Reason::TakenOver);
}

/// Its client lost its channels while the commit was under way, and repeats the open when it has others; or it lost them
/// before the file was open, so that no answer waited when the store refused the record.
#[test]
fn f50_whoever_repeats_an_open_that_was_refused_in_between_hears_so() {
    for is_open_slow in [false, true] {
        let (mut pair, who) = start(10);
        pair.handle(who, "a");
        pair.store.is_full = true;
        *(if is_open_slow { &mut pair.disk_us } else { &mut pair.store_us }) = (50_000, 51_000);
        let late = exclusive_of(&mut pair, who, "b");
        pair.run_for(millis(10));
        for line in [L0, L1] {
            pair.cut(who, line, Cut::NOW);
        }
        pair.run_for(millis(100));
        for line in [L0, L1] {
            pair.heal(who, line);
        }
        assert_eq!(refusal(pair.error(who, late)).reason, Reason::NoSpace, "{is_open_slow}");
        assert_eq!((pair.server.table().opens_len(), pair.core(who).held_handles().count()), (1, 1));
    }
}

/// It repeats the open over another line, and that answer waits for a later commit.
#[test]
fn f50_a_repeat_of_a_refused_open_that_waits_for_a_later_commit_hears_so() {
    for line in [L0, L1] {
        let (mut pair, who) = start(11);
        let handle = pair.handle(who, "a");
        (pair.store.is_full, pair.store_us) = (true, (50_000, 0));
        let late = exclusive_of(&mut pair, who, "b");
        pair.run_for(millis(10));
        let range = ByteRange::between(0, 10).unwrap();
        let lock = pair.lock(who, handle, (range, LockMode::Exclusive), millis(0));
        pair.run_for(millis(10));
        // The server hears nothing of it.
        pair.cut(who, line, Cut { client_after: millis(0), server_after: seconds(1), loses_flight: true });
        assert_eq!(refusal(pair.error(who, late)).reason, Reason::NoSpace, "{line:?}");
        pair.finish(who, lock);
        assert_eq!(pair.core(who).held_handles().count(), 1);
    }
}

/// A lock is granted in the step in which an open goes away that cannot be stored. What is told of the lock is stored.
#[test]
fn f50_what_else_a_refused_commit_had_is_told_when_it_is_stored() {
    let (mut pair, first) = start(12);
    let short = pair.open_as(first, OpenSpec { resumable: false, with_key: false, ..OpenSpec::of("a") });
    let (holder, _) = pair.opened(first, short);
    let second = pair.complete_client(2, &LINES);
    let open = pair.open(second, "a");
    let (waiter, key) = pair.opened(second, open);
    let range = (ByteRange::between(0, 10).unwrap(), LockMode::Exclusive);
    let lock = pair.lock(first, holder, range, millis(0));
    pair.finish(first, lock);
    let wait = pair.lock(second, waiter, range, seconds(60));
    pair.run_for(millis(100));
    (pair.store.is_full, pair.store_us) = (true, (50_000, 0));
    exclusive_of(&mut pair, first, "b");
    pair.run_for(millis(10));
    pair.close_session(first);
    pair.finish(second, wait);
    pair.restart_server();
    assert_eq!(pair.server.table().locks(key.unwrap().file_id), [range]);
}

/// Nobody waits for the record of somebody who went away, and it is stored all the same.
#[test]
fn f50_what_nobody_waits_for_is_stored_once_more_when_its_commit_was_refused() {
    let (mut pair, who) = start(13);
    let open = pair.open(who, "a");
    let (_, key) = pair.opened(who, open);
    (pair.store.is_full, pair.store_us) = (true, (50_000, 0));
    exclusive_of(&mut pair, who, "b");
    pair.run_for(millis(10));
    pair.close_session(who);
    pair.run_for(seconds(1));
    let stored = &pair.store.opens[&key.unwrap().file_id];
    assert!(stored.holders.iter().all(|holder| holder.deadline.is_some()), "{stored:?}");
    assert_eq!(pair.store.opens.len(), 1);
}

/// The file is made before its record is refused, and never gets its name.
#[test]
fn f50_nothing_is_left_of_files_whose_records_are_refused() {
    let (mut pair, who) = start(14);
    pair.store.is_full = true;
    for n in 0..5 {
        let new = OpenSpec { create: Create::New, create_id: CreateId([n; 16]), ..OpenSpec::of("new") };
        let open = pair.open_as(who, new);
        assert_eq!(refusal(pair.error(who, open)).reason, Reason::NoSpace);
    }
    assert_eq!((pair.disk.descriptors(), pair.disk.has("new")), (0, false));
}

/// What waits for the second of them is the work itself, and the first one's refusal has moved it behind a later commit.
#[test]
fn f50_of_two_refused_commits_the_second_one_s_change_is_not_made() {
    let (mut pair, who) = start(15);
    let handle = pair.handle(who, "a");
    // Who has written to the file is stored, so that the next append stores its own record alone.
    let before = pair.append(who, handle, "some");
    pair.finish(who, before);
    (pair.store.is_full, pair.store_us) = (true, (50_000, 0));
    exclusive_of(&mut pair, who, "b");
    pair.run_for(millis(10));
    let append = pair.append(who, handle, "more");
    assert_eq!(refusal(pair.error(who, append)).reason, Reason::NoSpace);
    assert_eq!(pair.disk.executions(b"more"), 0);
    pair.store.is_full = false;
    let append = pair.append(who, handle, "more");
    pair.finish(who, append);
    assert_eq!(pair.disk.executions(b"more"), 1);
}
