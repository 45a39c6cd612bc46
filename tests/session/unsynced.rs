//! Bytes that were acknowledged and not synced, when the server's page cache is lost: written again where nobody else can
//! have written, and else given up and told.

use bowline::model::{ByteRange, CreateId, HandleId, Meanwhile, OpenMode, Reason, Rights, ShareMode};
use bowline::session::client::{RequestError, Ticket};

use super::pair::{LineSpec, OpenSpec, Pair, Seed, Who};
use super::{kind, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];
/// Others may read and remove the file, and not write to it.
const ALONE: OpenMode =
    OpenMode { rights: Rights::READ.union(Rights::WRITE), share: ShareMode::READ.union(ShareMode::DELETE) };

fn start() -> (Pair, Who) {
    start_with(64 << 20)
}

fn start_with(budget: u64) -> (Pair, Who) {
    let mut pair = Pair::new(1);
    pair.client_limits.unsynced_bytes = budget;
    for (name, byte) in [("a", 1), ("b", 2)] {
        pair.disk.put(name, vec![byte; 64]);
    }
    let who = pair.complete_client(1, &LINES);
    (pair, who)
}

fn open(pair: &mut Pair, who: Who, path: &str, mode: OpenMode) -> HandleId {
    let create_id = CreateId(core::array::from_fn(|at| path.as_bytes().get(at).copied().unwrap_or(0)));
    let open = pair.open_as(who, OpenSpec { mode, create_id, ..OpenSpec::of(path) });
    pair.opened(who, open).0
}

fn finish(pair: &mut Pair, who: Who, requests: impl IntoIterator<Item = Ticket>) {
    for request in requests {
        pair.finish(who, request);
    }
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

/// What is written, cut and punched; tells how the file is then.
fn change(pair: &mut Pair, who: Who, handle: HandleId) -> Vec<u8> {
    let steps: [fn(&mut Pair, Who, HandleId) -> Ticket; 7] = [
        |pair, who, handle| pair.write(who, handle, 10, [b'a'; 20]),
        |pair, who, handle| pair.write(who, handle, 15, [b'b'; 5]),
        |pair, who, handle| pair.set_len(who, handle, 40),
        |pair, who, handle| pair.append(who, handle, [b'c'; 30]),
        |pair, who, handle| pair.punch(who, handle, range(25, 50)),
        |pair, who, handle| pair.set_len(who, handle, 80),
        |pair, who, handle| pair.write(who, handle, 90, [b'd'; 1]),
    ];
    for step in steps {
        let request = step(pair, who, handle);
        pair.finish(who, request);
    }
    let file = pair.disk.bytes("a").to_vec();
    assert_eq!((file.len(), file[15], file[26], file[50], file[90]), (91, b'b', 0, b'c', b'd'));
    file
}

fn lost(pair: &mut Pair, who: Who, handle: HandleId) -> Vec<ByteRange> {
    let sync = pair.sync(who, handle);
    match pair.error(who, sync) {
        RequestError::LostWrites(ranges) => ranges,
        other => pair.fail(&format!("no lost ranges: {other}")),
    }
}

#[test]
fn what_was_not_synced_is_written_again_where_nobody_else_can_have_written() {
    for (mode, told) in [
        (OpenMode::READ_WRITE.exclusive(), Meanwhile::Unknown),
        (ALONE, Meanwhile::Unknown),
        (ALONE, Meanwhile::Unchanged),
        (OpenMode::READ_WRITE, Meanwhile::Unchanged),
    ] {
        let (mut pair, who) = start();
        pair.meanwhile = Some(told);
        let handle = open(&mut pair, who, "a", mode);
        let file = change(&mut pair, who, handle);
        pair.reboot_server_machine(who);
        assert_eq!(pair.disk.bytes("a"), vec![1; 64], "nothing of it was durable");
        // Asked at once, and answered after everything that was acknowledged before.
        let (read, sync) = (pair.read(who, handle, 0, 200), pair.sync(who, handle));
        assert_eq!(*pair.bytes(who, read), file, "{mode} {told}");
        pair.finish(who, sync);
        assert_eq!((pair.disk.bytes("a"), pair.core(who).unsynced_bytes()), (&file[..], 0));
        pair.disk.lose_cache();
        assert_eq!(pair.disk.bytes("a"), file);
    }
}

#[test]
fn what_was_synced_is_not_written_again() {
    let (mut pair, who) = start();
    let handle = open(&mut pair, who, "a", ALONE);
    let write = pair.write(who, handle, 0, *b"synced");
    pair.finish(who, write);
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
    let write = pair.write(who, handle, 4, *b"newer");
    pair.finish(who, write);
    pair.reboot_server_machine(who);
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
    assert_eq!(&pair.disk.bytes("a")[..9], b"syncnewer");
    assert_eq!((pair.disk.executions(b"synced"), pair.disk.executions(b"newer")), (1, 2));
}

#[test]
fn while_the_page_cache_is_the_same_nothing_is_written_again() {
    let (mut pair, who) = start();
    let handle = open(&mut pair, who, "a", ALONE);
    let write = pair.write(who, handle, 0, *b"bytes");
    pair.finish(who, write);
    let kept = pair.core(who).unsynced_bytes();
    assert!(kept >= 5);
    pair.forget_session(who);
    let stat = pair.stat(who, handle);
    pair.finish(who, stat);
    assert_eq!((pair.disk.executions(b"bytes"), pair.core(who).unsynced_bytes()), (1, kept));
    // And if that is lost after all, they are still there.
    pair.reboot_server_machine(who);
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
    assert_eq!((pair.disk.executions(b"bytes"), pair.core(who).unsynced_bytes()), (2, 0));
}

#[test]
fn what_somebody_else_may_have_written_over_is_given_up_and_told_once() {
    for (mode, told) in [
        (OpenMode::READ_WRITE, Meanwhile::Unknown),
        (OpenMode::READ_WRITE, Meanwhile::ChangedByClient),
        (ALONE, Meanwhile::ChangedByClient),
        (ALONE, Meanwhile::ChangedLocally),
    ] {
        let (mut pair, who) = start();
        pair.meanwhile = Some(told);
        let handle = open(&mut pair, who, "a", mode);
        let writes = [(0, "first"), (30, "second"), (5, "third")];
        for (offset, bytes) in writes {
            let write = pair.write(who, handle, offset, bytes);
            pair.finish(who, write);
        }
        pair.reboot_server_machine(who);
        let read = pair.read(who, handle, 0, 100);
        assert_eq!(*pair.bytes(who, read), vec![1; 64], "{mode} {told}");
        let write = pair.write(who, handle, 60, *b"later");
        pair.finish(who, write);
        assert_eq!(lost(&mut pair, who, handle), [range(0, 10), range(30, 36)]);
        let sync = pair.sync(who, handle);
        pair.finish(who, sync);
        assert_eq!(&pair.disk.bytes("a")[60..], b"later");
        assert_eq!(writes.map(|(_, bytes)| pair.disk.executions(bytes.as_bytes())), [1; 3]);
    }
}

#[test]
fn a_close_tells_what_was_lost_as_well() {
    let (mut pair, who) = start();
    pair.meanwhile = Some(Meanwhile::ChangedByClient);
    let handle = pair.handle(who, "a");
    let write = pair.write(who, handle, 3, *b"bytes");
    pair.finish(who, write);
    pair.reboot_server_machine(who);
    let close = pair.close(who, handle);
    assert_eq!(pair.error(who, close), RequestError::LostWrites(vec![range(3, 8)]));
    assert_eq!((pair.core(who).held_handles().count(), pair.core(who).unsynced_bytes()), (0, 0));
    pair.run_until("the handle is closed", seconds(1), |pair| {
        pair.server.table().session_holders(pair.session(who)) == 0
    });
}

/// Two opens that may be of one file: what the second one wrote is newer than what the first one would write again.
#[test]
fn an_open_that_is_not_the_only_one_of_its_session_is_not_alone() {
    let (mut pair, who) = start();
    pair.meanwhile = Some(Meanwhile::Unchanged);
    let first = pair.handle(who, "a");
    let second = pair.handle(who, "a");
    for (handle, bytes) in [(first, b"older"), (second, b"newer")] {
        let write = pair.write(who, handle, 0, *bytes);
        pair.finish(who, write);
    }
    let sync = pair.sync(who, second);
    pair.finish(who, sync);
    pair.reboot_server_machine(who);
    assert_eq!(lost(&mut pair, who, first), [range(0, 5)]);
    assert_eq!(&pair.disk.bytes("a")[..5], b"newer");
    let sync = pair.sync(who, second);
    pair.finish(who, sync);
}

/// One open has one account of what was written, whichever handle wrote it.
#[test]
fn the_newer_bytes_of_a_duplicate_are_over_the_older_ones_of_the_first_handle() {
    let (mut pair, who) = start();
    let open = pair.open_as(who, OpenSpec { mode: ALONE, create_id: CreateId([1; 16]), ..OpenSpec::of("a") });
    let (first, key) = pair.opened(who, open);
    let resume = pair.resume(who, &key.unwrap(), None);
    let (duplicate, _) = pair.opened(who, resume);
    for (handle, offset, bytes) in [(first, 0, "first first"), (duplicate, 3, "second"), (first, 5, "3")] {
        let write = pair.write(who, handle, offset, bytes);
        pair.finish(who, write);
    }
    let file = pair.disk.bytes("a").to_vec();
    assert_eq!(&file[..11], b"firse3ondst");
    pair.reboot_server_machine(who);
    let reads = [first, duplicate].map(|handle| pair.read(who, handle, 0, 100));
    for read in reads {
        assert_eq!(*pair.bytes(who, read), file);
    }
    let sync = pair.sync(who, duplicate);
    pair.finish(who, sync);
    assert_eq!(pair.core(who).unsynced_bytes(), 0, "a sync through either covers what both have written");
}

/// Two processes of one client with one open, of which the first has written.
fn two_processes() -> (Pair, [(Who, HandleId); 2]) {
    let (mut pair, who) = start();
    let mode = OpenMode::READ_WRITE.exclusive();
    let open = pair.open_as(who, OpenSpec { mode, create_id: CreateId([1; 16]), ..OpenSpec::of("a") });
    let (handle, key) = pair.opened(who, open);
    let write = pair.write(who, handle, 0, *b"older");
    pair.finish(who, write);
    let other = pair.complete_client(1, &LINES);
    let resume = pair.resume(other, &key.unwrap(), None);
    let (duplicate, _) = pair.opened(other, resume);
    (pair, [(who, handle), (other, duplicate)])
}

/// The simulation found it: two processes have the open, each keeps what it has written, and after the loss of the page cache
/// the one that came back last wrote its older bytes over the other's newer ones.
#[test]
fn what_another_process_wrote_through_a_duplicate_is_not_written_over() {
    let (mut pair, [(who, handle), (other, duplicate)]) = two_processes();
    let write = pair.write(other, duplicate, 0, *b"newer");
    let sync = pair.sync(other, duplicate);
    finish(&mut pair, other, [write, sync]);
    let sync = pair.sync(other, duplicate);
    pair.finish(other, sync);
    pair.reboot_server();
    // They were made durable before the other one came.
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
    let stat = pair.stat(other, duplicate);
    pair.finish(other, stat);
    assert_eq!(&pair.disk.bytes("a")[..5], b"newer");
    assert_eq!(pair.disk.executions(b"older"), 1);
}

/// The second of two writes at once changes no record: it must not overtake the first one's, or it is acknowledged while
/// nothing says that there was a second writer.
#[test]
fn no_write_of_a_burst_is_acknowledged_before_it_is_stored_that_another_process_writes() {
    let (mut pair, [(who, handle), (other, duplicate)]) = two_processes();
    pair.store_us = (50_000, 50_000);
    let writes = [pair.write(other, duplicate, 20, *b"first"), pair.write(other, duplicate, 0, *b"newer")];
    pair.run_for(millis(20));
    let is_executed = pair.disk.executions(b"newer") > 0;
    assert!(!is_executed && pair.outcome(other, writes[1]).is_none(), "the record is not stored");
    pair.run_until("both are acknowledged", seconds(1), |pair| {
        writes.iter().all(|&write| pair.outcome(other, write).is_some())
    });
    pair.reboot_server();
    // What the first one wrote was durable before the other one had its handle: nothing is lost, or written again.
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
    assert_eq!(pair.disk.executions(b"older"), 1);
    assert_eq!(&pair.disk.bytes("a")[..5], b"newer");
}

/// They could be written only at the end, and nobody knows whether they are there.
#[test]
fn appended_bytes_of_a_handle_that_can_only_append_are_given_up() {
    let (mut pair, who) = start();
    let mode = OpenMode { rights: Rights::APPEND, share: ShareMode::NONE };
    let handle = open(&mut pair, who, "a", mode);
    let append = pair.append(who, handle, *b"bytes");
    pair.finish(who, append);
    pair.reboot_server_machine(who);
    assert_eq!(lost(&mut pair, who, handle), [range(64, 69)]);
    let append = pair.append(who, handle, *b"more");
    let sync = pair.sync(who, handle);
    finish(&mut pair, who, [append, sync]);
    assert_eq!(pair.disk.bytes("a").len(), 68);
}

#[test]
fn what_is_kept_is_bounded_and_a_sync_makes_room_for_more() {
    const BUDGET: u64 = 64 << 10;
    const LEN: usize = 4096;
    let (mut pair, who) = start_with(BUDGET);
    let handles = [open(&mut pair, who, "a", ALONE), open(&mut pair, who, "b", ALONE)];
    pair.disk_us = (2_000, 3_000);
    let writes: Vec<Ticket> = (0..200_u64)
        .map(|at| pair.write(who, handles[usize::from(at % 3 == 0)], at * 4096, vec![b'x'; LEN]))
        .collect();
    // Those that were under way when the room was used up are kept, too.
    let under_way = u64::from(pair.core(who).limits().requests) * 4096;
    let (mut most, mut after) = (0, 0);
    while writes.iter().any(|&write| pair.outcome(who, write).is_none()) {
        pair.step();
        most = most.max(pair.core(who).unsynced_bytes());
        after += 1;
        assert!(after < 100_000);
    }
    finish(&mut pair, who, writes);
    assert!(most >= BUDGET && most <= BUDGET + under_way + (64 << 10), "{most} bytes were kept");
    let syncs = pair.sent(who).iter().filter(|sent| sent.kind == kind::SYNC).count();
    assert!(syncs >= 4, "{syncs} syncs for 13 times the budget");
    pair.run_until("a sync is over", seconds(5), |pair| pair.core(who).unsynced_bytes() < BUDGET);
    pair.reboot_server_machine(who);
    let syncs = handles.map(|handle| pair.sync(who, handle));
    finish(&mut pair, who, syncs);
    let is_whole = |bytes: &[u8]| bytes[4096..].iter().filter(|byte| **byte == b'x').count();
    assert_eq!(is_whole(pair.disk.bytes("a")) + is_whole(pair.disk.bytes("b")), 199 * LEN);
}

/// The kernel tells an error once: the sync that hears it must hand it on.
#[test]
fn a_failed_sync_that_nobody_asked_for_is_told_by_the_next_one() {
    let (mut pair, who) = start_with(8 << 10);
    let handle = open(&mut pair, who, "a", ALONE);
    pair.disk.fail_sync = Some(Reason::Io.into());
    let writes: Vec<Ticket> =
        (0..20).map(|at| pair.write(who, handle, at * 1024, vec![b'x'; 1024])).collect();
    finish(&mut pair, who, writes);
    pair.run_until("a sync was begun", seconds(5), |pair| pair.disk.fail_sync.is_none());
    pair.run_until("its answer is there", seconds(5), |pair| pair.core(who).outstanding().0 == 0);
    let sync = pair.sync(who, handle);
    assert_eq!(pair.error(who, sync), Reason::Io.into());
    let sync = pair.sync(who, handle);
    pair.finish(who, sync);
}

/// A sync that nobody asked for goes through any handle of its open, and that one may be closed just then.
#[test]
fn a_sync_that_comes_behind_the_close_of_its_handle_is_asked_for_through_another_one() {
    let (mut pair, who) = start_with(8 << 10);
    let open = pair.open_as(who, OpenSpec { mode: ALONE, create_id: CreateId([1; 16]), ..OpenSpec::of("a") });
    let (first, key) = pair.opened(who, open);
    let resume = pair.resume(who, &key.unwrap(), None);
    let (duplicate, _) = pair.opened(who, resume);
    // It is the lowest one that is asked.
    let (closed, kept) = (first.min(duplicate), first.max(duplicate));
    let write = pair.write(who, kept, 0, vec![b'x'; 6 << 10]);
    // The close has its answer after the write, and executes before it.
    (pair.disk_us, pair.store_us) = ((5_000, 0), (20_000, 0));
    let close = pair.close(who, closed);
    finish(&mut pair, who, [write, close]);
    pair.run_until("a sync is over", seconds(5), |pair| pair.core(who).unsynced_bytes() == 0);
    pair.disk.lose_cache();
    assert_eq!(pair.disk.bytes("a").len(), 6 << 10, "what is kept no more is durable");
    let sync = pair.sync(who, kept);
    pair.finish(who, sync);
}

#[test]
fn a_sync_that_was_under_way_covers_what_had_to_be_written_again() {
    let (mut pair, who) = start();
    let handle = open(&mut pair, who, "a", ALONE);
    let write = pair.write(who, handle, 0, *b"bytes");
    pair.finish(who, write);
    pair.disk_us = (50_000, 0);
    let sync = pair.sync(who, handle);
    pair.run_for(millis(5));
    pair.disk_us = (100, 200);
    pair.reboot_server_machine(who);
    pair.finish(who, sync);
    pair.disk.lose_cache();
    assert_eq!(&pair.disk.bytes("a")[..5], b"bytes");
}

/// Cut off at any moment, and once more, whatever is being written again: in the end all of it is there.
#[test]
fn a_second_loss_while_bytes_are_written_again_loses_none_of_them() {
    for wait in 0..60 {
        let (mut pair, who) = start();
        let handle = open(&mut pair, who, "a", OpenMode::READ_WRITE.exclusive());
        let mut file = change(&mut pair, who, handle);
        for at in 0..100_u64 {
            let write = pair.write(who, handle, 100 + at * 2, *b"z");
            pair.finish(who, write);
        }
        file.clone_from(&pair.disk.bytes("a").to_vec());
        pair.reboot_server_machine(who);
        pair.run_for(core::time::Duration::from_micros(1_000 + wait * 150));
        if wait % 2 == 0 {
            pair.forget_session(who);
        } else {
            pair.reboot_server_machine(who);
        }
        let read = pair.read(who, handle, 0, 1000);
        assert_eq!(*pair.bytes(who, read), file, "after {wait}");
        let sync = pair.sync(who, handle);
        pair.finish(who, sync);
        pair.disk.lose_cache();
        assert_eq!(pair.disk.bytes("a"), file);
    }
}

#[test]
fn bytes_that_cannot_be_written_again_are_told_by_their_ranges() {
    let (mut pair, who) = start();
    let handle = open(&mut pair, who, "a", ALONE);
    let writes = [pair.write(who, handle, 0, *b"first"), pair.write(who, handle, 20, *b"second")];
    finish(&mut pair, who, writes);
    pair.disk.refuse_writes_at = Some(20);
    pair.reboot_server_machine(who);
    let read = pair.read(who, handle, 0, 5);
    assert_eq!(**pair.bytes(who, read), *b"first");
    assert_eq!(lost(&mut pair, who, handle), [range(20, 26)]);
}

/// Random losses from seeds: a file that nobody else writes to is always as its only client left it.
#[test]
fn random_losses_lose_no_acknowledged_byte() {
    const BLOCK: usize = 64;
    for seed in 0..150 {
        let mut pair = Pair::new(seed);
        let mut random = Seed::new(seed, 60);
        pair.client_limits.unsynced_bytes = [1 << 10, 16 << 10, 64 << 20][usize::try_from(seed % 3).unwrap()];
        pair.disk.put("a", vec![0; 32 * BLOCK]);
        let who = pair.complete_client(1, &LINES);
        let handle = open(&mut pair, who, "a", OpenMode::READ_WRITE.exclusive());
        let mut blocks: Vec<(u8, u8, Option<Ticket>)> = vec![(0, 0, None); 32];
        for _ in 0..80 {
            for _ in 0..random.below(6) {
                let at = usize::try_from(random.below(32)).unwrap();
                let (_, issued, write) = &mut blocks[at];
                if write.is_none() {
                    *issued = issued.wrapping_add(1);
                    let offset = u64::try_from(at * BLOCK).unwrap();
                    *write = Some(pair.write(who, handle, offset, vec![*issued; BLOCK]));
                }
            }
            if random.chance(10) {
                pair.sync(who, handle);
            }
            match random.below(20) {
                0 => pair.forget_session(who),
                1 => pair.reboot_server_machine(who),
                _ => {}
            }
            pair.run_for(core::time::Duration::from_micros(random.below(4_000)));
            for (acknowledged, issued, write) in &mut blocks {
                if let Some(outcome) = write.and_then(|write| pair.outcome(who, write)) {
                    pair.check(outcome.is_ok(), "a write failed");
                    (*acknowledged, *write) = (*issued, None);
                }
            }
            pair.check(pair.core(who).unsynced_bytes() < 1 << 20, "more is kept than there is");
        }
        pair.finish_all(who, seconds(60));
        let sync = pair.sync(who, handle);
        pair.finish(who, sync);
        pair.disk.lose_cache();
        for (at, (_, issued, _)) in blocks.iter().enumerate() {
            let bytes = &pair.disk.bytes("a")[at * BLOCK..(at + 1) * BLOCK];
            pair.check(bytes.iter().all(|byte| byte == issued), "an acknowledged and synced write is lost");
        }
    }
}
