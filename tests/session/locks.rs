//! Range locks between two clients: what they exclude, what they wait for, and how the end of a wait reaches its client
//! over channels that are lost. And what share modes do to names.

use bowline::model::{ByteRange, CreateId, HandleId, LockMode, OpenMode, Reason, Rights, ShareMode};
use bowline::session::client::{Answer, RequestError, SessionLoss, Ticket};
use bowline::wire::ServerControl;
use bowline::wire::control::LockWanted;
use core::time::Duration;

use super::pair::{Cut, LineSpec, OpenSpec, Pair, Payload, Who};
use super::{L0, L1, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];
const NOT: Duration = Duration::ZERO;

/// A pair of clients that have the file "a" open.
fn start() -> (Pair, [(Who, HandleId); 2]) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![1; 64]);
    let both = [1, 2].map(|key| {
        let who = pair.complete_client(key, &LINES);
        (who, pair.handle(who, "a"))
    });
    (pair, both)
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

fn exclusive(start: u64, end: u64) -> (ByteRange, LockMode) {
    (range(start, end), LockMode::Exclusive)
}

fn reason(pair: &mut Pair, who: Who, request: Ticket) -> Reason {
    match pair.error(who, request) {
        RequestError::Refused(refusal) => refusal.reason,
        other => panic!("not refused but {other:?}"),
    }
}

fn is_locked(answer: &Answer<Payload>) -> bool {
    matches!(answer, Answer::Control(ServerControl::Locked(_), None))
}

fn locked(pair: &mut Pair, who: Who, request: Ticket) {
    assert!(is_locked(pair.finish(who, request)));
}

/// The request succeeds.
fn done(pair: &mut Pair, who: Who, request: Ticket) {
    pair.finish(who, request);
}

#[test]
fn a_locked_range_is_its_owners_and_the_rest_is_everybodys() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(10, 20), NOT);
    locked(&mut pair, a, lock);
    for request in [pair.read(b, hb, 19, 1), pair.write(b, hb, 0, [7; 11])] {
        assert_eq!(reason(&mut pair, b, request), Reason::Locked);
    }
    // Beside it, behind it, and through a duplicate of the owner.
    for request in [pair.read(b, hb, 20, 5), pair.write(b, hb, 0, [7; 10]), pair.append(b, hb, [8; 1])] {
        done(&mut pair, b, request);
    }
    let write = pair.write(a, ha, 10, [9; 10]);
    done(&mut pair, a, write);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    let read = pair.read(b, hb, 10, 10);
    assert_eq!(pair.bytes(b, read).as_slice(), [9; 10]);
}

#[test]
fn a_shared_lock_lets_others_read_and_nobody_write() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    for (who, handle) in [(a, ha), (b, hb)] {
        let lock = pair.lock(who, handle, (ByteRange::ALL, LockMode::Shared), NOT);
        locked(&mut pair, who, lock);
    }
    let read = pair.read(b, hb, 0, 5);
    done(&mut pair, b, read);
    for request in [pair.write(b, hb, 0, [7; 1]), pair.append(b, hb, [7; 1])] {
        assert_eq!(reason(&mut pair, b, request), Reason::Locked);
    }
    assert_eq!(pair.disk.bytes("a"), [1; 64]);
}

#[test]
fn a_lock_is_told_when_what_it_excludes_and_was_executing_is_done() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    pair.disk.hold_writes = 1;
    let write = pair.write(b, hb, 0, [7; 8]);
    pair.run_until("the write executes", seconds(5), |pair| pair.disk.held() == 1);
    let lock = pair.lock(a, ha, exclusive(4, 6), NOT);
    let elsewhere = pair.lock(a, ha, exclusive(20, 30), NOT);
    locked(&mut pair, a, elsewhere);
    pair.run_for(seconds(2));
    assert!(pair.outcome(a, lock).is_none(), "bytes of the range are still being written");
    // Nothing new gets in meanwhile.
    let late = pair.write(b, hb, 5, [8; 1]);
    assert_eq!(reason(&mut pair, b, late), Reason::Locked);
    pair.release_disk();
    locked(&mut pair, a, lock);
    done(&mut pair, b, write);
}

#[test]
fn an_unlock_waits_for_what_its_own_open_writes_there() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    pair.disk.hold_writes = 1;
    let write = pair.write(a, ha, 0, [7; 8]);
    pair.run_until("the write executes", seconds(5), |pair| pair.disk.held() == 1);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    let contender = pair.lock(b, hb, exclusive(0, 8), seconds(60));
    pair.run_for(seconds(5));
    assert!(pair.outcome(a, unlock).is_none() && pair.outcome(b, contender).is_none());
    pair.release_disk();
    done(&mut pair, a, write);
    done(&mut pair, a, unlock);
    locked(&mut pair, b, contender);
}

#[test]
fn a_lock_that_waits_comes_in_its_turn_and_holds_no_credit() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let first = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, first);
    let waiting: Vec<Ticket> = (0..200).map(|_| pair.lock(b, hb, exclusive(0, 8), seconds(300))).collect();
    pair.run_for(seconds(5));
    assert_eq!(pair.core(b).in_flight(), (0, 0), "waiting locks gave their credit back");
    let read = pair.read(b, hb, 30, 1);
    done(&mut pair, b, read);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    for request in waiting {
        locked(&mut pair, b, request);
    }
}

#[test]
fn a_wait_ends_with_its_time() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    let at_once = pair.lock(b, hb, exclusive(7, 9), NOT);
    assert_eq!(reason(&mut pair, b, at_once), Reason::Locked);
    let begun = pair.now();
    let waiting = pair.lock(b, hb, exclusive(7, 9), seconds(3));
    assert_eq!(reason(&mut pair, b, waiting), Reason::Locked);
    let took = pair.now().since(begun);
    assert!(took >= seconds(3) && took < millis(3500), "{took:?}");
}

#[test]
fn the_end_of_a_wait_is_told_again_on_another_channel() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    let waiting = pair.lock(b, hb, exclusive(0, 8), seconds(600));
    pair.run_for(seconds(1));
    // The line that carries the notices goes silent before the lock is had: what is told on it is lost.
    pair.black_hole(b, L0);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    locked(&mut pair, b, waiting);
    let read = pair.read(a, ha, 0, 1);
    assert_eq!(reason(&mut pair, a, read), Reason::Locked);
}

#[test]
fn a_wait_ends_with_the_last_channel_of_its_session() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    let waiting = pair.lock(b, hb, exclusive(0, 8), seconds(600));
    pair.run_for(seconds(1));
    [L0, L1].into_iter().for_each(|line| pair.cut(b, line, Cut::NOW));
    pair.run_for(seconds(1));
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    [L0, L1].into_iter().for_each(|line| pair.heal(b, line));
    assert_eq!(reason(&mut pair, b, waiting), Reason::Interrupted);
    let read = pair.read(a, ha, 0, 1);
    done(&mut pair, a, read);
}

#[test]
fn a_lock_that_nobody_waits_for_any_more_is_given_back() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    let waiting = pair.lock(b, hb, exclusive(0, 8), seconds(600));
    pair.run_for(seconds(1));
    pair.withdraw(b, waiting);
    pair.run_for(seconds(1));
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    let again = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, again);
}

#[test]
fn locks_outlive_their_session_and_end_with_their_open() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    [L0, L1].into_iter().for_each(|line| pair.cut(a, line, Cut::NOW));
    pair.run_for(seconds(5));
    let write = pair.write(b, hb, 0, [7; 1]);
    match pair.error(b, write) {
        RequestError::Refused(refusal) => {
            assert_eq!(refusal.reason, Reason::Locked);
            assert!(
                refusal.retry_after().is_some_and(|left| left <= seconds(60)),
                "an orphan's time is told"
            );
        }
        other => panic!("{other:?}"),
    }
    pair.run_for(seconds(60));
    let write = pair.write(b, hb, 0, [7; 1]);
    done(&mut pair, b, write);
}

#[test]
fn an_open_takes_its_lock_along_or_is_refused() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    let wanted = |range: ByteRange| Some(LockWanted { mode: LockMode::Exclusive, range: range.raw() });
    let mode = OpenMode { rights: OpenMode::READ_WRITE.rights.union(Rights::LOCK), share: ShareMode::ALL };
    let spec = |id: u8, range| OpenSpec {
        mode,
        lock: wanted(range),
        create_id: CreateId([id; 16]),
        ..OpenSpec::of("a")
    };
    let refused = pair.open_as(b, spec(50, range(7, 9)));
    assert_eq!(reason(&mut pair, b, refused), Reason::Locked);
    let opened = pair.open_as(b, spec(51, range(8, 9)));
    let (handle, _) = pair.opened(b, opened);
    for request in [pair.read(a, ha, 8, 1), pair.write(a, ha, 8, [7; 1])] {
        assert_eq!(reason(&mut pair, a, request), Reason::Locked);
    }
    let own = pair.read(b, handle, 8, 1);
    done(&mut pair, b, own);
    let other = pair.read(b, hb, 8, 1);
    assert_eq!(reason(&mut pair, b, other), Reason::Locked, "the lock is the open's, not the session's");
    let close = pair.close(b, handle);
    done(&mut pair, b, close);
    let free = pair.read(a, ha, 8, 1);
    done(&mut pair, a, free);
}

#[test]
fn an_open_that_cuts_does_so_when_nobody_keeps_it_out() {
    let (mut pair, [(a, ha), (b, _)]) = start();
    let cutting = |id: u8| OpenSpec { truncate: true, create_id: CreateId([id; 16]), ..OpenSpec::of("a") };
    let lock = pair.lock(a, ha, exclusive(0, 1), NOT);
    locked(&mut pair, a, lock);
    let refused = pair.open_as(b, cutting(50));
    assert_eq!(reason(&mut pair, b, refused), Reason::Locked);
    assert_eq!(pair.disk.bytes("a").len(), 64);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    let opened = pair.open_as(b, cutting(51));
    let (handle, _) = pair.opened(b, opened);
    assert_eq!(pair.disk.bytes("a").len(), 0);
    let closed = pair.disk.closed.len();
    let close = pair.close(b, handle);
    done(&mut pair, b, close);
    assert_eq!(pair.disk.closed.len(), closed + 1);
}

#[test]
fn an_open_that_is_not_resumable_ends_with_its_session() {
    let (mut pair, [(a, ha), (b, _)]) = start();
    let spec = |id: u8, resumable| OpenSpec {
        mode: OpenMode::READ_WRITE,
        create_id: CreateId([id; 16]),
        with_key: false,
        resumable,
        ..OpenSpec::of("a")
    };
    let kept = pair.open_as(b, spec(50, true));
    let ended = pair.open_as(b, spec(51, false));
    pair.opened(b, kept);
    let (handle, _) = pair.opened(b, ended);
    let key = pair.issue_key(b, handle);
    assert_eq!(reason(&mut pair, b, key), Reason::PermissionDenied);
    let lock = pair.lock(b, handle, exclusive(0, 8), NOT);
    locked(&mut pair, b, lock);
    let opens = pair.server.table().opens_len();
    pair.close_session(b);
    pair.run_for(seconds(1));
    assert_eq!(pair.server.table().opens_len(), opens - 1);
    let read = pair.read(a, ha, 0, 1);
    done(&mut pair, a, read);
    assert_eq!(pair.core(b).loss(), Some(SessionLoss::Closed));
}

#[test]
fn a_name_is_removed_only_if_its_opens_share_that() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    for (who, handle) in [(a, ha), (b, hb)] {
        let close = pair.close(who, handle);
        done(&mut pair, who, close);
    }
    let mode = OpenMode { rights: Rights::READ, share: ShareMode::READ };
    let spec = OpenSpec { mode, create_id: CreateId([50; 16]), ..OpenSpec::of("a") };
    let opened = pair.open_as(a, spec);
    let (handle, _) = pair.opened(a, opened);
    let refused = pair.remove(b, "a");
    assert_eq!(reason(&mut pair, b, refused), Reason::Busy);
    // Whoever holds the open is no contender of it.
    let own = pair.remove(a, "a");
    done(&mut pair, a, own);
    let missing = pair.remove(a, "a");
    assert_eq!(reason(&mut pair, a, missing), Reason::NotFound);
    let read = pair.read(a, handle, 0, 1);
    done(&mut pair, a, read);
}

#[test]
fn thousands_of_waits_that_end_at_once_are_told_in_portions() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    let lock = pair.lock(a, ha, exclusive(0, 8), NOT);
    locked(&mut pair, a, lock);
    let shared = (range(0, 8), LockMode::Shared);
    let waiting: Vec<Ticket> = (0..3000).map(|_| pair.lock(b, hb, shared, seconds(600))).collect();
    pair.run_for(seconds(5));
    pair.stall(b, L0);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    pair.run_for(millis(10));
    let told = pair.held_towards_client(b, L0);
    assert_eq!(told, 256, "so many are sent before any was heard");
    pair.heal(b, L0);
    for request in waiting {
        locked(&mut pair, b, request);
    }
}

#[test]
fn what_gives_back_needs_no_credit() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    pair.disk.hold_writes = 1;
    let write = pair.write(a, ha, 0, [7; 8]);
    pair.run_until("the write executes", seconds(5), |pair| pair.disk.held() == 1);
    let unlocks: Vec<Ticket> = (0..300).map(|_| pair.unlock(a, ha, range(0, 8))).collect();
    let read = pair.read(a, ha, 0, 1);
    done(&mut pair, a, read);
    assert!(unlocks.iter().all(|unlock| pair.outcome(a, *unlock).is_none()), "they wait for the write");
    assert_eq!(pair.losses(a), []);
    pair.release_disk();
    done(&mut pair, a, write);
    for unlock in unlocks {
        done(&mut pair, a, unlock);
    }
    let other = pair.stat(b, hb);
    done(&mut pair, b, other);
}

#[test]
fn a_file_is_not_stretched_through_what_another_open_has_locked() {
    let (mut pair, [(a, ha), (b, hb)]) = start();
    // The file has 64 bytes; what is locked lies behind them.
    let lock = pair.lock(a, ha, exclusive(100, 200), NOT);
    locked(&mut pair, a, lock);
    for len in [150, 300] {
        let stretch = pair.set_len(b, hb, len);
        assert_eq!(reason(&mut pair, b, stretch), Reason::Locked, "{len}");
    }
    let own = pair.set_len(a, ha, 300);
    done(&mut pair, a, own);
    let unlock = pair.unlock(a, ha, ByteRange::ALL);
    done(&mut pair, a, unlock);
    let free = pair.set_len(b, hb, 10);
    done(&mut pair, b, free);
    assert_eq!(pair.disk.bytes("a").len(), 10);
}

#[test]
fn a_session_that_left_is_forgotten_when_nothing_of_it_executes() {
    let (mut pair, [(a, ha), _]) = start();
    let close = pair.close(a, ha);
    done(&mut pair, a, close);
    // It has no handle, but work on a name.
    pair.disk.hold_names = 1;
    let _removal = pair.remove(a, "a");
    pair.run_until("the name is looked for", seconds(5), |pair| pair.disk.held() == 1);
    let sessions = pair.server.sessions_len();
    pair.close_session(a);
    pair.run_for(seconds(1));
    assert_eq!(pair.server.sessions_len(), sessions, "its work still executes, and counts as its own");
    pair.release_disk();
    pair.run_for(millis(10));
    assert_eq!(pair.server.sessions_len(), sessions - 1);
}

#[test]
fn an_open_that_is_being_cut_is_given_to_nobody_before() {
    let (mut pair, [_, (b, hb)]) = start();
    pair.disk.hold_changes = 1;
    let cutting = || OpenSpec { truncate: true, create_id: CreateId([61; 16]), ..OpenSpec::of("a") };
    let first = pair.open_as(b, cutting());
    pair.run_until("the cut executes", seconds(5), |pair| pair.disk.held() == 1);
    let again = pair.open_as(b, cutting());
    assert_eq!(reason(&mut pair, b, again), Reason::Busy);
    pair.release_disk();
    let (handle, _) = pair.opened(b, first);
    let again = pair.open_as(b, cutting());
    assert_eq!(pair.opened(b, again).0, handle, "the same open, and not cut again");
    let stat = pair.stat(b, hb);
    done(&mut pair, b, stat);
}
