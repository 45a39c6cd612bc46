//! Locking and unlocking a range in the open table, beside the kernel's own locks on a local file, both with as many
//! ranges locked already as an open may have.
//!
//! `cargo bench --bench locks` measures. Without `--bench`, as `cargo test` runs it, the program does nothing. Nothing
//! is asserted: machines are shared, and what counts is the ratio of one run. docs/performance.md says what was found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark stops where it fails, and reads the clock"
)]

use std::time::{Duration, Instant};

use bowline::model::{
    ByteRange, CreateId, FileIdentity, HandleId, Limits, LockMode, OpenId, OpenMode, PublicKey, RequestId,
    Rights, SessionId, Time,
};
use bowline::opens::{Admission, LockRequest, OpenTable};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const NOW: Time = Time(1);
const SESSION: SessionId = SessionId([1; 16]);
const HANDLE: HandleId = HandleId(1);
/// Pairs of one lock and one unlock.
const ROUNDS: usize = 20_000;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let held = Limits::default().locks_per_open - 1;
    println!("{held} ranges locked; {ROUNDS} times one more is locked and unlocked; microseconds");
    println!("| | lock p50 | lock p99 | unlock p50 | unlock p99 |");
    println!("| --- | --- | --- | --- | --- |");
    let mut table = table();
    row("open table", held, |range, is_lock| {
        if is_lock {
            let lock =
                LockRequest { request: RequestId(1), range, mode: LockMode::Exclusive, wait: Duration::ZERO };
            table.lock(NOW, SESSION, HANDLE, lock).unwrap();
        } else {
            table.unlock(NOW, SESSION, HANDLE, range).unwrap();
        }
    });
    let file = tempfile::tempfile().unwrap();
    row("kernel, F_OFD_SETLK", held, |range, is_lock| {
        let wanted = libc::flock {
            l_type: i16::try_from(if is_lock { libc::F_WRLCK } else { libc::F_UNLCK }).unwrap(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
            l_start: i64::try_from(range.start()).unwrap(),
            l_len: i64::try_from(range.end() - range.start()).unwrap(),
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&wanted)).unwrap();
    });
}

/// Measures one kind of locks, and prints its row.
fn row(name: &str, held: usize, mut set: impl FnMut(ByteRange, bool)) {
    // Every other byte, so that nothing merges.
    let range = |at: usize| {
        let start = 2 * u64::try_from(at).unwrap();
        ByteRange::between(start, start + 1).unwrap()
    };
    // One place in the middle stays free.
    let free = held / 2;
    (0..=held).filter(|&at| at != free).for_each(|at| set(range(at), true));
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (times, is_lock) in took.iter_mut().zip([true, false]) {
            let begin = Instant::now();
            set(range(free), is_lock);
            times.push(begin.elapsed());
        }
    }
    let cells = took.map(|mut times| {
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
        format!("{:.2} | {:.2}", at(50), at(99))
    });
    println!("| {name} | {} |", cells.join(" | "));
}

/// A table with one open.
fn table() -> OpenTable {
    let mut table = OpenTable::new([7; 32], &Limits::default());
    let admission = Admission {
        session: SESSION,
        owner: PublicKey([1; 32]),
        open: OpenId(1),
        handle: HANDLE,
        file: FileIdentity { device: 1, inode: 1, born_ns: 0 },
        export: "data".parse().unwrap(),
        mode: OpenMode::READ_WRITE,
        rights: OpenMode::READ_WRITE.rights.union(Rights::LOCK),
        create_id: CreateId([1; 16]),
        grace: Duration::from_secs(60),
        lock: None,
        resumable: true,
        guard: false,
        path: bowline::model::ExportPath::new(*b"file").unwrap(),
        mark: bowline::model::FileMark { len: 0, changed_ns: 0 },
    };
    table.admit(NOW, admission).unwrap();
    table
}
