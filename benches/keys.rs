//! Whether the time of the check of a resume key tells anything of it, to somebody who has no right key.
//!
//! As dudect measures: keys of two classes are presented in random order, each attempt is timed by itself, and the times
//! are compared by Welch's t-test, all of them and with the slowest ones cut off at several places. A value of 4.5 or more
//! says that the classes can be told apart. The first pair is of one class with itself: it shows what the measurement is
//! worth on this machine.
//!
//! `BOWLINE_BENCH_SAMPLES` is the number of attempts of each class (1,000,000); with `BOWLINE_KEYS_ASSERT=1` the exit code
//! is not zero where a bar is missed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a benchmark that goes wrong may end"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bowline::model::{
    CreateId, ExportPath, FileIdentity, FileMark, HandleId, Limits, OpenId, OpenMode, PublicKey, ResumeKey,
    Rights, SessionId, Time,
};
use bowline::opens::{Admission, Claim, OpenTable};

const OWNER: PublicKey = PublicKey([1; 32]);
const SESSION: SessionId = SessionId([1; 16]);
const NOW: Time = Time(1_000_000);
/// From this value of t on two classes can be told apart.
const BAR: f64 = 4.5;
/// Of the attempts of both classes, so many of a thousand count, from the fastest on.
const KEPT: [usize; 5] = [1000, 990, 900, 500, 100];

/// What is wrong with a key.
#[derive(Clone, Copy)]
enum Class {
    /// No open has its file id.
    Absent,
    /// Its open has no key of its generation.
    NeverIssued,
    FirstByte,
    LastByte,
    /// The key is right, and somebody else presents it.
    Identity,
}

/// What is compared, and what it is called.
const PAIRS: [(&str, Class, Class); 5] = [
    ("no such open, no such open", Class::Absent, Class::Absent),
    ("no such open, first byte of the secret", Class::Absent, Class::FirstByte),
    ("no such open, no such key", Class::Absent, Class::NeverIssued),
    ("first byte of the secret, last byte", Class::FirstByte, Class::LastByte),
    ("last byte of the secret, identity", Class::LastByte, Class::Identity),
];

fn main() -> ExitCode {
    let samples = std::env::var("BOWLINE_BENCH_SAMPLES").map_or(1_000_000, |text| text.parse().unwrap());
    println!(
        "| opens | what is wrong | median ns | median ns | largest t |\n| --- | --- | --- | --- | --- |"
    );
    let mut is_told = false;
    for opens in [1000, 50_000] {
        let (mut table, keys) = table(opens);
        for (name, one, other) in PAIRS {
            // The numbers of an open's keys count up from 1: whoever knows the open knows them.
            let has_bar = !matches!(other, Class::NeverIssued);
            let [one, other] = times(&mut table, &keys, [one, other], samples);
            let t = KEPT
                .map(|kept| cropped(&one, &other, kept))
                .into_iter()
                .fold(0.0, |most: f64, t| if t.abs() > most.abs() { t } else { most });
            is_told |= t.abs() >= BAR && has_bar;
            println!("| {opens} | {name} | {} | {} | {t:.2} |", one[one.len() / 2], other[other.len() / 2]);
        }
    }
    let must_not = std::env::var_os("BOWLINE_KEYS_ASSERT").is_some();
    if is_told && must_not { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Nanoseconds of each attempt with keys of two classes, in order.
fn times(table: &mut OpenTable, keys: &[ResumeKey], classes: [Class; 2], samples: usize) -> [Vec<u32>; 2] {
    const WARM: usize = 20_000;
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for at in 0..2 * samples + WARM {
        let class = random.next() as usize % 2;
        let took = attempt(table, keys, classes[class], &mut random);
        if at >= WARM {
            times[class].push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    times
}

/// Presents a key that is wrong in the way of its class, and tells how long the answer took.
fn attempt(table: &mut OpenTable, keys: &[ResumeKey], class: Class, random: &mut Random) -> Duration {
    let mut key = keys[random.next() as usize % keys.len()].clone();
    let mut identity = OWNER;
    // The same work in front of the clock for each class.
    // As likely to be beside any open as that one was to be chosen: the caches tell the classes apart by nothing else.
    let (absent, generation) = (OpenId(key.file_id.0.wrapping_add(2)), key.generation + 7);
    match class {
        Class::Absent => key.file_id = absent,
        Class::NeverIssued => key.generation = generation,
        Class::FirstByte => key.secret[0] ^= 1,
        Class::LastByte => key.secret[15] ^= 1,
        Class::Identity => identity = PublicKey([2; 32]),
    }
    let claim = Claim {
        session: SESSION,
        identity: &identity,
        handle: HandleId(random.next()),
        predecessor: None,
        may_use: &|_| Some(Rights::ALL),
    };
    let begin = Instant::now();
    let outcome = table.resume(NOW, std::hint::black_box(&key), claim);
    let took = begin.elapsed();
    assert!(outcome.is_err(), "a wrong key was right");
    while table.poll_event().is_some() {}
    took
}

/// Welch's t of two classes, of whose attempts the fastest count, by one threshold for both.
fn cropped(one: &[u32], other: &[u32], kept_of_thousand: usize) -> f64 {
    let mut all: Vec<u32> = one.iter().chain(other).copied().collect();
    all.sort_unstable();
    let most = all[(all.len() * kept_of_thousand / 1000).max(1) - 1];
    let of = |times: &[u32]| {
        let kept = &times[..times.partition_point(|time| *time <= most)];
        let len = kept.len() as f64;
        let mean = kept.iter().map(|time| f64::from(*time)).sum::<f64>() / len;
        let squares = kept.iter().map(|time| (f64::from(*time) - mean).powi(2)).sum::<f64>();
        (mean, squares / (len - 1.0) / len)
    };
    let ((one, spread), (other, other_spread)) = (of(one), of(other));
    (one - other) / (spread + other_spread).sqrt()
}

/// A table of opens, and their keys.
fn table(opens: u64) -> (OpenTable, Vec<ResumeKey>) {
    let mut limits = Limits::default();
    limits.opens_per_client = usize::MAX;
    let mut table = OpenTable::new([7; 32], &limits);
    let mut random = Random(1);
    let keys = (0..opens).map(|n| {
        let open = OpenId(random.next());
        let mut create_id = [0; 16];
        create_id[..8].copy_from_slice(&n.to_le_bytes());
        let admission = Admission {
            session: SESSION,
            owner: OWNER,
            open,
            handle: HandleId(n),
            file: FileIdentity { device: 1, inode: n, born_ns: 0 },
            export: "data".parse().unwrap(),
            mode: OpenMode::READ_WRITE,
            rights: OpenMode::READ_WRITE.rights,
            create_id: CreateId(create_id),
            grace: Duration::from_secs(60),
            lock: None,
            resumable: true,
            guard: false,
            path: ExportPath::new(*b"file").unwrap(),
            mark: FileMark { len: 0, changed_ns: 0 },
        };
        table.admit(NOW, admission).unwrap();
        let secret = std::array::from_fn(|_| random.next().to_le_bytes()[0]);
        table.issue_key(SESSION, HandleId(n), 1_700_000_000_000_000, 4711, secret).unwrap()
    });
    let keys = keys.collect();
    drop(table.take_changes(usize::MAX));
    (table, keys)
}

/// Numbers that are random enough to hide an order.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
