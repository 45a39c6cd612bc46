//! Two sessions that may write to one file: what either is told of is durable, and neither loses anything with the machine.

use bowline::model::{CreateId, HandleId, LineId, OpenMode, Reason, Rights, Stability};
use bowline::session::client::{Answer, RequestError, SessionEvent, Ticket};

use super::opens::refusal;
use super::pair::{LineSpec, OpenSpec, Pair, Who};
use super::{millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];
const READ_ONLY: OpenMode = OpenMode { rights: Rights::READ, ..OpenMode::READ_WRITE };

fn start() -> (Pair, Who, Who) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![b'.'; 32]);
    let (first, second) = (pair.complete_client(1, &LINES), pair.complete_client(1, &LINES));
    (pair, first, second)
}

fn open(pair: &mut Pair, who: Who, mode: OpenMode) -> Ticket {
    let create_id = CreateId([u8::try_from(who.0).unwrap() + 1; 16]);
    pair.open_as(who, OpenSpec { mode, create_id, ..OpenSpec::of("a") })
}

fn stability(pair: &mut Pair, who: Who, request: Ticket) -> Stability {
    let told = match pair.finish(who, request) {
        Answer::Written(done) => Some(done.stability),
        Answer::Appended(done) => Some(done.stability),
        _ => None,
    };
    told.unwrap_or_else(|| pair.fail("it was no write"))
}

fn write(pair: &mut Pair, who: Who, handle: HandleId, (at, bytes): (u64, &str)) -> Stability {
    let write = pair.write(who, handle, at, bytes);
    stability(pair, who, write)
}

fn synced(pair: &mut Pair, who: Who, handle: HandleId) {
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
}

/// How the second one comes to write: with an open of its own, or with a duplicate of the first one's.
#[derive(Debug, Clone, Copy)]
enum Way {
    Open,
    Key,
}

/// The first one has written, and the second one has come.
fn both(pair: &mut Pair, first: Who, second: Who, way: Way) -> [HandleId; 2] {
    let mode = if matches!(way, Way::Open) { OpenMode::READ_WRITE } else { OpenMode::READ_WRITE.exclusive() };
    let opened = open(pair, first, mode);
    let (handle, key) = pair.opened(first, opened);
    assert_eq!(write(pair, first, handle, (0, "older")), Stability::Received);
    assert_eq!(&pair.disk.durable_bytes("a")[..5], b".....");
    let request = match way {
        Way::Open => open(pair, second, mode),
        Way::Key => pair.resume(second, &key.unwrap(), None),
    };
    let other = pair.opened(second, request).0;
    assert_eq!(
        &pair.disk.durable_bytes("a")[..5],
        b"older",
        "{way:?}: synced before the second one was told"
    );
    [handle, other]
}

#[test]
fn while_two_sessions_may_write_what_is_acknowledged_is_durable() {
    for way in [Way::Open, Way::Key] {
        let (mut pair, first, second) = start();
        let [handle, other] = both(&mut pair, first, second, way);
        for (who, handle, what) in [(second, other, (3, "new")), (first, handle, (8, "more"))] {
            assert_eq!(write(&mut pair, who, handle, what), Stability::Durable, "{way:?}");
            let (at, bytes) = (usize::try_from(what.0).unwrap(), what.1.as_bytes());
            assert_eq!(&pair.disk.durable_bytes("a")[at..at + bytes.len()], bytes);
            assert_eq!(pair.core(who).unsynced_bytes(), 0, "and what was before it as well");
        }
        let append = pair.append(second, other, *b"end");
        assert_eq!(stability(&mut pair, second, append), Stability::Durable);
        assert!(pair.disk.durable_bytes("a").ends_with(b"end"));
        let cut = pair.set_len(first, handle, 10);
        pair.finish(first, cut);
        assert_eq!(pair.disk.durable_bytes("a"), b"oldnew..mo");
        // The second one leaves.
        let close = pair.close(second, other);
        pair.finish(second, close);
        assert_eq!(write(&mut pair, first, handle, (0, "alone")), Stability::Received);
        assert_eq!(&pair.disk.durable_bytes("a")[..5], b"oldne");
        assert!(pair.core(first).unsynced_bytes() > 0);
    }
}

#[test]
fn readers_and_further_handles_of_the_same_session_change_nothing() {
    let (mut pair, first, second) = start();
    let opened = open(&mut pair, first, OpenMode::READ_WRITE);
    let (handle, key) = pair.opened(first, opened);
    let reader = open(&mut pair, second, READ_ONLY);
    pair.opened(second, reader);
    let resume = pair.resume(first, &key.unwrap(), None);
    let (duplicate, _) = pair.opened(first, resume);
    let syncs = pair.disk.syncs;
    for handle in [handle, duplicate] {
        assert_eq!(write(&mut pair, first, handle, (0, "bytes")), Stability::Received);
    }
    assert_eq!(pair.disk.syncs, syncs);
}

#[test]
fn what_is_written_while_a_sync_is_under_way_shares_the_next_one() {
    let (mut pair, first, second) = start();
    let [handle, _] = both(&mut pair, first, second, Way::Open);
    pair.disk_us = (5_000, 0);
    let syncs = pair.disk.syncs;
    let writes: Vec<Ticket> = (0..32_u64).map(|at| pair.write(first, handle, at, *b"x")).collect();
    for write in writes {
        assert_eq!(stability(&mut pair, first, write), Stability::Durable);
    }
    assert!((1..=8).contains(&(pair.disk.syncs - syncs)), "{} syncs", pair.disk.syncs - syncs);
}

#[test]
fn a_write_that_cannot_be_made_durable_is_refused_and_the_others_hear_of_it() {
    let (mut pair, first, second) = start();
    let [handle, other] = both(&mut pair, first, second, Way::Key);
    pair.disk.fail_sync = Some(Reason::Io.into());
    let refused = pair.write(first, handle, 8, *b"more");
    assert_eq!(pair.error(first, refused), Reason::Io.into());
    let sync = pair.sync(second, other);
    assert_eq!(pair.error(second, sync), Reason::Io.into());
    synced(&mut pair, second, other);
}

#[test]
fn with_the_machine_neither_of_two_writers_loses_anything() {
    for way in [Way::Open, Way::Key] {
        for first_writes_too in [false, true] {
            let (mut pair, first, second) = start();
            let [handle, other] = both(&mut pair, first, second, way);
            write(&mut pair, second, other, (3, "new"));
            if first_writes_too {
                write(&mut pair, first, handle, (8, "more"));
            }
            let file = pair.disk.bytes("a").to_vec();
            pair.reboot_server();
            for (who, handle) in [(first, handle), (second, other)] {
                let read = pair.read(who, handle, 0, 100);
                assert_eq!(*pair.bytes(who, read), file, "{way:?}");
                synced(&mut pair, who, handle);
            }
            assert_eq!(pair.disk.executions(b"older"), 1, "nothing is written again");
        }
    }
}

/// The first one keeps what it wrote before the second one came, because nobody has told it that it is durable.
#[test]
fn what_the_second_one_wrote_over_is_not_written_again_when_it_is_gone() {
    for way in [Way::Open, Way::Key] {
        let (mut pair, first, second) = start();
        let [handle, other] = both(&mut pair, first, second, way);
        write(&mut pair, second, other, (0, "newer"));
        let close = pair.close(second, other);
        pair.finish(second, close);
        assert_eq!(write(&mut pair, first, handle, (10, "alone")), Stability::Received);
        // Its file is looked at while it is away, and the look has nothing to say of what was before.
        (0..2).for_each(|line| pair.black_hole(first, LineId(line)));
        let is_orphan = |pair: &Pair| pair.server.table().opens().any(|open| open.deadline.is_some());
        pair.run_until("it is away", seconds(30), is_orphan);
        pair.run_for(seconds(1));
        pair.reboot_server();
        (0..2).for_each(|line| pair.heal(first, LineId(line)));
        let sync = pair.sync(first, handle);
        assert!(matches!(pair.error(first, sync), RequestError::LostWrites(_)), "{way:?}");
        assert_eq!(&pair.disk.bytes("a")[..5], b"newer", "{way:?}");
        assert_eq!(pair.disk.executions(b"older"), 1);
    }
}

/// After a loss with the machine somebody else comes first with the key, and writes.
#[test]
fn what_another_process_wrote_in_the_place_of_one_that_is_away_is_not_written_over() {
    let (mut pair, first, second) = start();
    let opened = open(&mut pair, first, OpenMode::READ_WRITE.exclusive());
    let (handle, key) = pair.opened(first, opened);
    write(&mut pair, first, handle, (0, "older"));
    (0..2).for_each(|line| pair.black_hole(first, LineId(line)));
    pair.reboot_server();
    let resume = pair.resume(second, &key.unwrap(), None);
    let (other, _) = pair.opened(second, resume);
    write(&mut pair, second, other, (0, "newer"));
    (0..2).for_each(|line| pair.heal(first, LineId(line)));
    let sync = pair.sync(first, handle);
    assert!(matches!(pair.error(first, sync), RequestError::LostWrites(_)));
    assert_eq!(&pair.disk.bytes("a")[..5], b"newer");
}

/// What the first one keeps is on its way, to be written again, when the second one writes.
#[test]
fn what_is_written_again_does_not_run_over_what_another_one_was_told_of_meanwhile() {
    for comes_late in [true, false] {
        let mut pair = Pair::new(1);
        pair.disk.put("a", vec![b'.'; 32]);
        let first = pair.complete_client(1, &[LineSpec::KEYS, LineSpec::BULK]);
        let second = pair.complete_client(2, &LINES);
        let opened = open(&mut pair, first, OpenMode::READ_WRITE);
        let (handle, _) = pair.opened(first, opened);
        write(&mut pair, first, handle, (0, "older"));
        // Its file is looked at while it is away, so that it hears that nobody has changed it.
        (0..2).for_each(|line| pair.black_hole(first, LineId(line)));
        let is_orphan = |pair: &Pair| pair.server.table().opens().any(|open| open.deadline.is_some());
        pair.run_until("it is away", seconds(30), is_orphan);
        pair.run_for(seconds(1));
        pair.reboot_server();
        let come = |pair: &mut Pair| {
            let opened = open(pair, second, OpenMode::READ_WRITE);
            pair.opened(second, opened).0
        };
        let early = (!comes_late).then(|| come(&mut pair));
        pair.heal(first, LineId(0));
        let is_back = |pair: &Pair| {
            let mut events = pair.events(first).iter();
            events.any(|(_, event)| matches!(event, SessionEvent::Resumed { .. }))
        };
        pair.run_until("it is back", seconds(60), is_back);
        let other = early.unwrap_or_else(|| come(&mut pair));
        assert_eq!(write(&mut pair, second, other, (0, "newer")), Stability::Durable);
        pair.heal(first, LineId(1));
        let sync = pair.sync(first, handle);
        assert!(matches!(pair.error(first, sync), RequestError::LostWrites(_)), "comes late: {comes_late}");
        assert_eq!(&pair.disk.bytes("a")[..5], b"newer", "comes late: {comes_late}");
        // What it writes now is as good as the other one's.
        assert_eq!(write(&mut pair, first, handle, (0, "newest")), Stability::Durable);
    }
}

/// The first one's bytes went with the machine. The next server knows that they did, and ends before anybody came.
#[test]
fn f33_what_went_with_the_machine_is_told_however_soon_the_server_starts_once_more() {
    let (mut pair, first, second) = start();
    let opened = open(&mut pair, first, OpenMode::READ_WRITE);
    let (handle, _) = pair.opened(first, opened);
    assert_eq!(write(&mut pair, first, handle, (0, "older")), Stability::Received);
    [LineId(0), LineId(1)].into_iter().for_each(|line| pair.black_hole(first, line));
    pair.reboot_server();
    pair.restart_server();
    let opened = open(&mut pair, second, OpenMode::READ_WRITE);
    let (other, _) = pair.opened(second, opened);
    assert_eq!(write(&mut pair, second, other, (0, "newer")), Stability::Durable);
    [LineId(0), LineId(1)].into_iter().for_each(|line| pair.heal(first, line));
    let sync = pair.sync(first, handle);
    assert!(matches!(pair.error(first, sync), RequestError::LostWrites(_)));
    assert_eq!(&pair.disk.bytes("a")[..5], b"newer");
}

/// It is made, the sync that its answer waits for fails, and the client does not hear that: it asks the next server.
#[test]
fn an_append_that_could_not_be_made_durable_is_not_made_again() {
    let (mut pair, first, second) = start();
    let [handle, _] = both(&mut pair, first, second, Way::Open);
    pair.disk.fail_sync = Some(Reason::Io.into());
    pair.disk_us = (5_000, 0);
    let append = pair.append(first, handle, "more");
    pair.run_until("it is made", seconds(1), |pair| pair.disk.executions(b"more") == 1);
    [LineId(0), LineId(1)].into_iter().for_each(|line| pair.black_hole(first, line));
    pair.run_for(millis(100));
    pair.restart_server();
    [LineId(0), LineId(1)].into_iter().for_each(|line| pair.heal(first, line));
    assert_eq!(refusal(pair.error(first, append)).reason, Reason::Unknown);
    assert_eq!(pair.disk.executions(b"more"), 1);
}
