//! Handles that were guessed, reserved, closed, or belong to another session; and lengths that are too long.

use core::time::Duration;

use bowline::model::{
    ByteRange, CreateId, FileIdentity, HandleId, Limits, LockMode, OpenId, OpenMode, PublicKey, Reason,
    ResumeKey, Rights, SessionId, Time,
};
use bowline::opens::{Admission, OpenTable};
use bowline::session::client::{RequestError, Ticket};
use bowline::session::server::ServerNote;

use super::pair::{LineSpec, Pair, Seed, Who};
use super::seconds;

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

fn reason(pair: &mut Pair, who: Who, request: Ticket) -> Reason {
    match pair.error(who, request) {
        RequestError::Refused(refusal) => refusal.reason,
        other => panic!("not refused but {other:?}"),
    }
}

fn start() -> (Pair, Who) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![1; 64]);
    let who = pair.complete_client(1, &LINES);
    (pair, who)
}

/// Everything that can be asked of a handle.
fn requests(pair: &mut Pair, who: Who, handle: HandleId) -> Vec<Ticket> {
    vec![
        pair.read(who, handle, 0, 1),
        pair.write(who, handle, 0, [9; 1]),
        pair.append(who, handle, [9; 1]),
        pair.stat(who, handle),
        pair.sync(who, handle),
        pair.issue_key(who, handle),
        pair.lock(who, handle, (ByteRange::ALL, LockMode::Shared), Duration::ZERO),
        pair.unlock(who, handle, ByteRange::ALL),
        pair.close(who, handle),
    ]
}

#[test]
fn t09_guessed_handles_hit_nothing_among_10_000_opens() {
    let mut table = OpenTable::new([7; 32], &Limits::default());
    let mut seed = Seed::new(9, 0);
    let owner = PublicKey([1; 32]);
    let session = |number: u8| SessionId([number; 16]);
    let mut handles = Vec::new();
    for number in 0..10_000_u64 {
        let mut create_id = [0; 16];
        create_id[..8].copy_from_slice(&number.to_le_bytes());
        let admission = Admission {
            session: session(u8::try_from(number % 100).unwrap()),
            owner,
            open: OpenId(seed.next()),
            handle: HandleId(seed.next()),
            file: FileIdentity { device: 1, inode: number, born_ns: 0 },
            export: "data".parse().unwrap(),
            mode: OpenMode::READ_WRITE,
            rights: Rights::ALL,
            create_id: CreateId(create_id),
            grace: Duration::from_secs(60),
            lock: None,
            resumable: true,
            guard: false,
            path: bowline::model::ExportPath::new(*b"file").unwrap(),
            mark: bowline::model::FileMark { len: 0, changed_ns: 0 },
        };
        handles.push(table.admit(Time(0), admission).unwrap().handle);
    }
    // Guesses of a session that has a hundred opens itself; the neighbours of its own; everybody else's.
    let mut hits = 0;
    for _ in 0..10_000_000_u32 {
        hits += u32::from(table.holder(session(0), HandleId(seed.next())).is_ok());
    }
    for (at, handle) in handles.iter().enumerate() {
        let own = at % 100 == 0;
        assert_eq!(table.holder(session(0), *handle).is_ok(), own);
        for neighbour in [handle.0.wrapping_add(1), handle.0.wrapping_sub(1), handle.0 ^ 1 << 63] {
            hits += u32::from(table.holder(session(0), HandleId(neighbour)).is_ok());
        }
    }
    assert_eq!(hits, 0);
}

#[test]
fn t09_after_100_bad_keys_a_client_is_not_listened_to_for_a_while() {
    let (mut pair, who) = start();
    let request = pair.open(who, "a");
    let (_, key) = pair.opened(who, request);
    let key = key.unwrap();
    for number in 0..100_u8 {
        let wrong = ResumeKey { secret: [number; 16], ..key.clone() };
        let request = pair.resume(who, &wrong, None);
        assert_eq!(reason(&mut pair, who, request), Reason::ResumeRefused);
    }
    let request = pair.resume(who, &key, None);
    match pair.error(who, request) {
        RequestError::Refused(refusal) => {
            assert_eq!(refusal.reason, Reason::Busy);
            assert!(refusal.retry_after().is_some_and(|wait| wait <= seconds(10)));
        }
        other => panic!("{other:?}"),
    }
    assert!(pair.notes.iter().any(|note| matches!(note, ServerNote::ResumeThrottled { .. })));
    pair.run_for(seconds(10));
    let request = pair.resume(who, &key, None);
    pair.opened(who, request);
}

#[test]
fn t23_a_closed_handle_and_another_sessions_are_none() {
    let (mut pair, who) = start();
    let other = pair.complete_client(2, &LINES);
    let foreign = pair.handle(other, "a");
    for request in requests(&mut pair, who, foreign) {
        assert_eq!(reason(&mut pair, who, request), Reason::BadHandle);
    }
    let handle = pair.handle(who, "a");
    let close = pair.close(who, handle);
    pair.finish(who, close);
    for _ in 0..100_000 / 9 {
        for request in requests(&mut pair, who, handle) {
            assert_eq!(reason(&mut pair, who, request), Reason::BadHandle);
        }
    }
    // The other session noticed nothing.
    let read = pair.read(other, foreign, 0, 1);
    pair.finish(other, read);
}

#[test]
fn f16_reserved_handles_are_none() {
    let (mut pair, who) = start();
    pair.handle(who, "a");
    for handle in [HandleId(0), HandleId(u64::MAX)] {
        for request in requests(&mut pair, who, handle) {
            assert_eq!(reason(&mut pair, who, request), Reason::BadHandle);
        }
    }
}

#[test]
fn f09_t15_offsets_beyond_the_edges_are_invalid_and_move_no_byte() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    let last = i64::MAX.unsigned_abs();
    for offset in [last, last + 1, u64::MAX - 1, u64::MAX] {
        for request in [pair.read(who, handle, offset, 1), pair.write(who, handle, offset, [9; 1])] {
            assert_eq!(reason(&mut pair, who, request), Reason::Invalid, "{offset}");
        }
    }
    let read = pair.read(who, handle, last - 1, 1);
    assert_eq!(pair.bytes(who, read).len(), 0);
    assert_eq!(pair.disk.bytes("a"), [1; 64]);
}
