//! Replays the committed fuzz corpus, and holds it complete: one seed for each message and form, made here
//! and in `support/samples.rs`.
//!
//! The seeds are golden bytes at the same time. Where a format changes on purpose, or a message comes, write them
//! anew with `BOWLINE_WRITE_SEEDS=1 cargo test --test corpus` and look at the difference; where the records of the stored
//! table change, `wire::stored::VERSION` rises. Files that a fuzzer found
//! stay beside them under any name.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use bowline::model::{
    ChannelNumber, CreateId, Ending, ExportPath, FileIdentity, FileMark, GrantId, HandleId, Limits, LockMode,
    OpenMode, PublicKey, RawRange, RequestId, Rights, SessionId, StoredEndedGrant, StoredGrant, StoredHolder,
    StoredKey, StoredOpen, StoredTombstone, Time,
};
use bowline::wire::hello::{self, EnrolOffer, Hello, MAC1_LEN, Offer, SessionOffer};
use bowline::wire::{Head, stored};
use samples::Sample;

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "in the fuzz package it is a library")]
mod targets;

#[path = "support/samples.rs"]
mod samples;

/// What a fuzz target does with its bytes.
type Run = fn(&[u8]);

/// The fuzz targets: the name of each is the name of its folder.
const TARGETS: [(&str, Run); 10] = [
    ("hello", targets::hello),
    ("head", targets::head),
    ("body", targets::body),
    ("resume_key_text", targets::resume_key_text),
    ("frames", targets::frames),
    ("handshake", targets::handshake),
    ("key_text", targets::key_text),
    ("settings", targets::settings),
    ("key_ring", targets::key_ring),
    ("record", targets::record),
];

/// A target that a fuzzer runs and nobody replays would be found out by no test.
#[test]
fn every_target_of_the_fuzzer_is_replayed() {
    let in_fuzz = |path: &str| [env!("CARGO_MANIFEST_DIR"), "fuzz", path].iter().collect::<PathBuf>();
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(in_fuzz(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let replayed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(replayed.len(), TARGETS.len());
    assert_eq!(names("fuzz_targets"), replayed);
    assert_eq!(names("corpus"), replayed);
    let manifest = std::fs::read_to_string(in_fuzz("Cargo.toml")).unwrap();
    for name in &replayed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
        let source = std::fs::read_to_string(in_fuzz(&format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("bowline_fuzz::{name}(bytes)")), "{name} runs something else");
    }
}

#[test]
fn every_file_of_the_corpus_passes() {
    for (target, run) in TARGETS {
        let files = files(target);
        assert!(!files.is_empty(), "the corpus has nothing for {target}");
        for (name, bytes) in files {
            println!("{target}/{name}");
            run(&bytes);
        }
    }
}

#[test]
fn the_seeds_are_as_they_are_made_here() {
    let is_writing = std::env::var_os("BOWLINE_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds() {
        let file = folder(target).join(name);
        if is_writing {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let committed = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(committed == bytes, "{} differs: the format has changed", file.display());
    }
}

#[test]
fn every_message_has_a_seed() {
    let seeds: BTreeSet<_> = samples::all().into_iter().map(|sample| (sample.stream, sample.kind)).collect();
    let kinds: BTreeSet<_> =
        bowline::wire::message::kinds().into_iter().map(|(stream, _, kind)| (stream, kind)).collect();
    assert_eq!(seeds, kinds);
}

#[test]
fn no_changed_byte_of_a_seed_breaks_a_target() {
    for (target, run) in TARGETS {
        for (_, bytes) in files(target) {
            for at in 0..bytes.len() {
                for change in [1, 0x20, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    run(&changed);
                }
            }
        }
    }
}

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target)).expect("the corpus has a folder for each target");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the corpus can be read"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// The seeds of every target: the target, the name of the file, the bytes.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = vec![
        ("hello", "session".to_owned(), first_flight(&Offer::Session(SessionOffer::OURS))),
        ("hello", "bind".to_owned(), first_flight(&Offer::Bind(samples::data_offer()))),
        ("hello", "enrol".to_owned(), enrolment()),
        ("hello", "enrol_with_payload".to_owned(), first_flight(&Offer::Enrol(EnrolOffer::OURS))),
        ("hello", "unknown_pattern".to_owned(), [&b"BWLN\x01\x04\x04\x00"[..], &enrolment()[8..]].concat()),
        ("hello", "another_protocol".to_owned(), b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("head", "read".to_owned(), HEAD.encode().to_vec()),
        ("head", "zeros".to_owned(), vec![0; Limits::HEAD_LEN]),
        ("head", "too_long".to_owned(), vec![0xff; Limits::HEAD_LEN]),
        ("resume_key_text", "key".to_owned(), samples::key().to_text().as_bytes().to_vec()),
        ("resume_key_text", "upper_case".to_owned(), samples::key().to_text().to_uppercase().into_bytes()),
    ];
    assert!(seeds[..4].iter().all(|(_, _, bytes)| Hello::decode(bytes).is_ok()));
    assert!(seeds[4..6].iter().all(|(_, _, bytes)| Hello::decode(bytes).is_err()));
    seeds.extend(frame_seeds());
    seeds.extend(text_seeds());
    seeds.extend(record_seeds());
    let steps =
        ["session_hello", "bind_hello", "session_answer", "bind_answer", "enrol_hello", "enrol_answer"];
    assert_eq!(steps.len(), usize::from(targets::STEPS));
    seeds.extend((0..).zip(steps).map(|(step, name)| ("handshake", name.to_owned(), targets::honest(step))));
    seeds.extend(samples::all().into_iter().map(|Sample { stream, name, kind, body, .. }| {
        ("body", format!("{stream}-{name}"), [&[kind][..], &body].concat())
    }));
    seeds
}

/// A message of each stream behind the stream's byte, on data channels in each mode, and a head with nothing behind it.
fn frame_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let streams = ["ClientControl", "ServerControl", "ClientData", "ServerData"];
    let wanted = ["Open", "Resume", "Opened", "Listed", "Write", "Read", "ReadDone", "Trailer", "Refused"];
    let mut seeds = vec![("frames", "head_alone".to_owned(), [&[2][..], &HEAD.encode()].concat())];
    for sample in samples::all().into_iter().filter(|sample| wanted.contains(&sample.name)) {
        let stream = streams.iter().position(|stream| *stream == sample.stream).unwrap();
        let modes = if stream < 2 { 1 } else { targets::DATA_MODES.len() };
        for (mode, (protection, suite)) in targets::DATA_MODES.iter().enumerate().take(modes) {
            let first = u8::try_from(stream + 4 * mode).unwrap();
            // The mode that the corpus began with has no name of its own.
            let mode = if mode == 0 { String::new() } else { format!("-{protection}-{suite}") };
            let name = format!("{}-{}{mode}", sample.stream, sample.name);
            seeds.push(("frames", name, [&[first, sample.kind][..], &sample.body].concat()));
        }
    }
    seeds
}

/// Records of the stored table behind the byte of their kind. Those of key rings are made by the tests beside their format.
fn record_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let (owner, grantee) = (PublicKey([1; 32]), PublicKey([2; 32]));
    let held = StoredOpen {
        owner,
        export: "media".parse().unwrap(),
        path: ExportPath::new(*b"films/a").unwrap(),
        file: FileIdentity { device: 2, inode: 3, born_ns: 4 },
        mode: OpenMode::READ_WRITE,
        create_id: CreateId([5; 16]),
        grace_us: 6,
        guard: false,
        wrote: false,
        others_wrote: false,
        unsynced: false,
        has_kept: false,
        lost: false,
        expected: None,
        holders: vec![StoredHolder {
            handle: HandleId(7),
            session: SessionId([8; 16]),
            identity: owner,
            rights: Rights::READ,
            is_opened: true,
            deadline: None,
            grant: None,
        }],
        keys: Vec::new(),
        issued: 0,
        locks: Vec::new(),
        renewals: 0,
        grants: Vec::new(),
        ended_grants: Vec::new(),
    };
    let key = StoredKey {
        generation: 1,
        hash: [9; 32],
        home: HandleId(7),
        rights: Rights::READ,
        is_own: true,
        grant: Some(GrantId(10)),
    };
    let grant = StoredGrant {
        grant: GrantId(10),
        giver: Some(HandleId(7)),
        from: owner,
        to: grantee,
        rights: Rights::READ,
        ends: Some(Time(11)),
        renewed_us: 12,
        is_delivered: true,
        gives_up: false,
        is_taken: false,
        parent: None,
        key: Some((2, [13; 32])),
    };
    let full = StoredOpen {
        guard: true,
        expected: Some(FileMark { len: 14, changed_ns: -15 }),
        keys: vec![key],
        issued: 2,
        locks: vec![(RawRange { start: 16, len: 17 }, LockMode::Exclusive)],
        grants: vec![grant],
        ended_grants: vec![StoredEndedGrant { grant: GrantId(18), to: grantee, keys: vec![(19, [20; 32])] }],
        ..held.clone()
    };
    let tombstone = StoredTombstone {
        order: 1,
        owner,
        keys: vec![(2, [3; 32], None), (3, [4; 32], Some(grantee))],
        ending: Ending::TakenOver,
        ended: Time(5),
    };
    let record = |kind: u8, bytes: Vec<u8>| [&[kind][..], &bytes].concat();
    vec![
        ("record", "held".to_owned(), record(0, stored::encode_open(&held))),
        ("record", "full".to_owned(), record(0, stored::encode_open(&full))),
        ("record", "tombstone".to_owned(), record(1, stored::encode_tombstone(&tombstone))),
    ]
}

/// Texts that people write.
fn text_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let key = "k".repeat(51) + "a";
    let identity = format!("bowline-identity-1-{key}");
    let clients = format!(
        "[[client]]\nkey = \"{key}\"\nname = \"station\"\nexports = [\"media\"]\nrights = [\"read\", \"lock\"]\n\
         protection = \"sealed\"\nexpires = 2027-01-31T00:00:00Z\n"
    );
    let peers = format!(
        "[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"10.0.0.1\", \"[fd00::1]:4477\"]\n\
         [[peer.line]]\naddress = \"10.0.0.1:4477\"\nvia = \"eth0\"\nrole = \"bulk\"\n"
    );
    let settings = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    vec![
        ("key_text", "key".to_owned(), key.into_bytes()),
        ("key_text", "identity".to_owned(), identity.into_bytes()),
        ("settings", "clients".to_owned(), settings(0, &clients)),
        ("settings", "peers".to_owned(), settings(1, &peers)),
        ("settings", "export".to_owned(), settings(2, "media=/srv/media")),
        ("settings", "address".to_owned(), settings(3, "[fd00::1]:4477")),
        ("settings", "odd_address".to_owned(), settings(3, "10.0.0.1\u{1b}[2J")),
    ]
}

const HEAD: Head = Head {
    body_len: 20,
    payload_len: 0,
    kind: 0x20,
    channel: ChannelNumber(7),
    request: RequestId(42),
    sequence: 9,
    settled: RequestId(40),
};

/// What asks for a server's key: one ephemeral key.
fn enrolment() -> Vec<u8> {
    let mut bytes = hello::checked(&hello::prologue(&Offer::Enrol(EnrolOffer::OURS)), &[8; 32]);
    bytes.extend([9; MAC1_LEN]);
    bytes
}

fn first_flight(offer: &Offer) -> Vec<u8> {
    let mut bytes = hello::checked(&hello::prologue(offer), &[8; 96]);
    bytes.extend([9; MAC1_LEN]);
    bytes
}
