//! The locks of the open table beside those of the kernel: what one grants, refuses and holds, the other does too.
//!
//! An open file description that locks with `F_OFD_SETLK` is to the kernel what an open is to the table. Programs
//! that run on a mount or a share expect no other rules than those of `fcntl`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::time::Duration;

use bowline::model::{
    ByteRange, CreateId, FileIdentity, HandleId, Limits, LockMode, OpenId, OpenMode, PublicKey, RawRange,
    Reason, Refusal, RequestId, Rights, SessionId, Time,
};
use bowline::opens::{Admission, LockAnswer, LockRequest, OpenTable};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const OWNERS: u64 = 4;
const NOW: Time = Time(1);
const FIRST: u64 = 0;
const LAST: u64 = i64::MAX.unsigned_abs();

/// One step of one owner; `None`: unlock.
#[derive(Clone, Copy, Debug)]
struct Step {
    owner: u64,
    range: RawRange,
    target: Option<LockMode>,
    /// Compare everything that is locked afterwards.
    looks: bool,
}

fn step() -> impl Strategy<Value = Step> {
    // Close together at the beginning, and close to the last byte that a file can have and beyond it.
    let start = prop_oneof![5 => 0..24_u64, 2 => (0..12_u64).prop_map(|back| LAST - back)];
    let len = prop_oneof![6 => 1..12_u64, 1 => Just(0), 1 => Just(LAST), 1 => LAST - 12..LAST];
    let target = prop_oneof![
        2 => Just(None),
        2 => Just(Some(LockMode::Shared)),
        2 => Just(Some(LockMode::Exclusive)),
    ];
    let looks = proptest::bool::weighted(0.05);
    (0..OWNERS, start, len, target, looks).prop_map(|(owner, start, len, target, looks)| Step {
        owner,
        range: RawRange { start, len },
        target,
        looks,
    })
}

/// A table with one open for each owner: open and handle are its number.
fn table() -> OpenTable {
    let mut table = OpenTable::new([7; 32], &Limits::default());
    let rights = OpenMode::READ_WRITE.rights.union(Rights::LOCK);
    for owner in 0..OWNERS {
        let admission = Admission {
            session: SessionId([1; 16]),
            owner: PublicKey([1; 32]),
            open: OpenId(owner),
            handle: HandleId(owner),
            file: FileIdentity { device: 1, inode: 2, born_ns: 0 },
            export: "media".parse().unwrap(),
            mode: OpenMode::READ_WRITE,
            rights,
            create_id: CreateId([u8::try_from(owner).unwrap(); 16]),
            grace: Duration::from_secs(60),
            lock: None,
            resumable: true,
            guard: false,
            path: bowline::model::ExportPath::new(*b"file").unwrap(),
            mark: bowline::model::FileMark { len: 0, changed_ns: 0 },
        };
        table.admit(NOW, admission).unwrap();
    }
    table
}

/// What the table says to a step: granted, refused because of another owner, or no range at all.
fn ask_table(table: &mut OpenTable, step: Step) -> Result<bool, Reason> {
    let range = ByteRange::new(step.range).ok_or(Reason::Invalid)?;
    let (session, handle) = (SessionId([1; 16]), HandleId(step.owner));
    let answer = match step.target {
        None => table.unlock(NOW, session, handle, range),
        Some(mode) => {
            let asked = LockRequest { request: RequestId(1), range, mode, wait: Duration::ZERO };
            table.lock(NOW, session, handle, asked).map(|answer| assert_eq!(answer, LockAnswer::Granted))
        }
    };
    match answer {
        Ok(()) => Ok(true),
        Err(Refusal { reason: Reason::Locked, .. }) => Ok(false),
        Err(refusal) => Err(refusal.reason),
    }
}

fn kind(target: Option<LockMode>) -> i32 {
    match target {
        None => libc::F_UNLCK,
        Some(LockMode::Shared) => libc::F_RDLCK,
        Some(LockMode::Exclusive) => libc::F_WRLCK,
    }
}

fn record(range: RawRange, target: Option<LockMode>) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind(target)).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: i64::try_from(range.start).unwrap(),
        l_len: i64::try_from(range.len).unwrap(),
        l_pid: 0,
    }
}

fn ask_kernel(file: &File, step: Step) -> Result<bool, Reason> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&record(step.range, step.target))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(Errno::EINVAL | Errno::EOVERFLOW) => Err(Reason::Invalid),
        Err(other) => panic!("{step:?}: {other}"),
    }
}

/// The lock that keeps an owner from locking `range`, as the kernel names it.
fn kernel_keeper(file: &File, range: ByteRange, mode: LockMode) -> Option<(ByteRange, LockMode)> {
    let mut found = record(range.raw(), Some(mode));
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
    let mode = match i32::from(found.l_type) {
        libc::F_UNLCK => return None,
        libc::F_RDLCK => LockMode::Shared,
        libc::F_WRLCK => LockMode::Exclusive,
        other => panic!("a lock of kind {other}"),
    };
    let range = RawRange { start: found.l_start.try_into().unwrap(), len: found.l_len.try_into().unwrap() };
    Some((ByteRange::new(range).unwrap(), mode))
}

/// Compares what every owner finds in its way, byte by byte at both ends and between them.
fn compare(table: &mut OpenTable, files: &[File]) {
    let bytes = (FIRST..40).chain(LAST - 13..=LAST).map(|at| ByteRange::between(at, at + 1).unwrap());
    let rest = [ByteRange::between(40, LAST - 13).unwrap(), ByteRange::ALL];
    for range in bytes.chain(rest) {
        for (owner, file) in (0..OWNERS).zip(files) {
            for mode in [LockMode::Shared, LockMode::Exclusive] {
                // Reading and writing meet the locks that a shared and an exclusive lock would meet.
                let is_free = table.check_io(NOW, OpenId(owner), range, mode == LockMode::Exclusive).is_ok();
                let keeper = kernel_keeper(file, range, mode);
                assert_eq!(keeper.is_none(), is_free, "{owner} {mode:?} {range}: {keeper:?}");
                let mut others = (0..OWNERS).filter(|other| *other != owner).map(OpenId);
                let is_known = |keeper| others.any(|other| table.locks(other).contains(&keeper));
                assert!(keeper.is_none_or(is_known), "{keeper:?}: the table has split or merged otherwise");
            }
        }
    }
}

#[test]
fn f13_locks_are_what_the_kernel_makes_of_the_same_calls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locked");
    File::create(&path).unwrap();
    let open = |_| OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let files: Vec<File> = (0..OWNERS).map(open).collect();
    let config = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let answers = [const { Cell::new(0_u32) }; 3];
    let outcome = runner.run(&vec(step(), 15..25), |steps| {
        let mut table = table();
        for file in &files {
            fcntl(file, FcntlArg::F_OFD_SETLK(&record(ByteRange::ALL.raw(), None))).unwrap();
        }
        for step in steps {
            let file = &files[usize::try_from(step.owner).unwrap()];
            let answer = ask_kernel(file, step);
            prop_assert_eq!(ask_table(&mut table, step), answer, "{:?}", step);
            let seen = &answers[answer.map_or(2, usize::from)];
            seen.set(seen.get() + 1);
            if step.looks {
                compare(&mut table, &files);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let answers = answers.map(Cell::into_inner);
    assert!(answers.iter().all(|count| *count > 10_000), "refused, granted, no range: {answers:?}");
}

#[test]
fn f13_the_edges_of_ranges_are_those_of_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("locked")).unwrap();
    let mut table = table();
    for (start, len) in
        [(0, 0), (LAST, 0), (LAST, 1), (LAST, 2), (1, LAST), (2, LAST), (0, LAST), (LAST, LAST)]
    {
        let range = RawRange { start, len };
        let step = Step { owner: 0, range, target: Some(LockMode::Exclusive), looks: false };
        assert_eq!(ask_table(&mut table, step), ask_kernel(&file, step), "{start} {len}");
    }
    // What the kernel's signed numbers cannot say at all is no range either.
    for (start, len) in
        [(LAST + 1, 1), (LAST + 1, 0), (u64::MAX, 0), (u64::MAX, 2), (1, u64::MAX), (0, LAST + 2)]
    {
        assert_eq!(ByteRange::new(RawRange { start, len }), None, "{start} {len}");
    }
}
