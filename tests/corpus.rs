//! Replays the committed fuzz corpus, and holds it complete: one seed for each message and form, made here.
//!
//! The seeds are golden bytes at the same time. Where a format changes on purpose, or a message comes, write them
//! anew with `BOWLINE_WRITE_SEEDS=1 cargo test --test corpus` and look at the difference. Files that a fuzzer found
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
    AttemptNonce, Attributes, ChannelKind, ChannelNumber, CreateId, ExportPath, FileState, HandleId,
    InstanceId, Limits, Locator, OpenId, OpenMode, Protection, Reason, Refusal, RequestId, ResumeKey, Rights,
    SessionId, Stability, Suite, SyncScope,
};
use bowline::wire::control::{
    Attach, Attached, Begin, BindSecret, Close, Closed, EndReason, Ended, IssueKey, KeyIssued, Open, Opened,
    Purpose, Refused, Resume, Started, Stat, Stated, Sync, Synced, Welcome, WelcomeAnswer,
};
use bowline::wire::data::{Farewell, Ping, Pong, Read, ReadDone, Write, WriteDone};
use bowline::wire::hello::{
    self, BindChoice, BindOffer, Hello, MAC1_LEN, Offer, PROTOCOL_VERSION, SessionChoice, SessionOffer,
};
use bowline::wire::{ClientControl, ClientData, DecodeError, Head, Message, ServerControl, ServerData};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "in the fuzz package it is a library")]
mod targets;

/// What a fuzz target does with its bytes.
type Run = fn(&[u8]);

/// The fuzz targets: the name of each is the name of its folder.
const TARGETS: [(&str, Run); 4] = [
    ("hello", targets::hello),
    ("head", targets::head),
    ("body", targets::body),
    ("resume_key_text", targets::resume_key_text),
];

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
    let seeds: BTreeSet<_> = messages().into_iter().map(|seed| (seed.stream, seed.kind)).collect();
    let kinds: BTreeSet<_> =
        bowline::wire::message::kinds().into_iter().map(|(stream, _, kind)| (stream, kind)).collect();
    assert_eq!(seeds, kinds);
}

#[test]
fn a_message_is_refused_cut_or_with_more_behind_it() {
    for Seed { stream, name, kind, body, decode } in messages() {
        assert_eq!(decode(kind, &body), Ok(()), "{stream} {name}");
        for len in 0..body.len() {
            assert_eq!(
                decode(kind, &body[..len]),
                Err(DecodeError::Malformed),
                "{stream} {name} cut to {len}"
            );
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(decode(kind, &longer), Err(DecodeError::Trailing(1)), "{stream} {name}");
        let longest = vec![0; Limits::BODY_LEN_MAX + 1];
        assert_eq!(decode(kind, &longest), Err(DecodeError::TooLong(longest.len())), "{stream} {name}");
    }
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
        ("hello", "bind".to_owned(), first_flight(&Offer::Bind(bind_offer()))),
        ("hello", "another_protocol".to_owned(), b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("head", "read".to_owned(), HEAD.encode().to_vec()),
        ("head", "zeros".to_owned(), vec![0; Limits::HEAD_LEN]),
        ("head", "too_long".to_owned(), vec![0xff; Limits::HEAD_LEN]),
        ("resume_key_text", "key".to_owned(), key().to_text().as_bytes().to_vec()),
        ("resume_key_text", "upper_case".to_owned(), key().to_text().to_uppercase().into_bytes()),
    ];
    assert!(Hello::decode(&seeds[0].2).is_ok() && Hello::decode(&seeds[1].2).is_ok());
    seeds.extend(messages().into_iter().map(|Seed { stream, name, kind, body, .. }| {
        ("body", format!("{stream}-{name}"), [&[kind][..], &body].concat())
    }));
    seeds
}

struct Seed {
    stream: &'static str,
    name: String,
    kind: u8,
    body: Vec<u8>,
    decode: fn(u8, &[u8]) -> Result<(), DecodeError>,
}

/// A seed for each message; for some, one for each form of their answer.
fn messages() -> Vec<Seed> {
    let mut seeds = Vec::new();
    client_control().into_iter().for_each(|(name, it)| seeds.push(seed("ClientControl", name, &it)));
    server_control().into_iter().for_each(|(name, it)| seeds.push(seed("ServerControl", name, &it)));
    client_data().into_iter().for_each(|(name, it)| seeds.push(seed("ClientData", name, &it)));
    server_data().into_iter().for_each(|(name, it)| seeds.push(seed("ServerData", name, &it)));
    seeds
}

fn seed<M: Message>(stream: &'static str, name: &str, message: &M) -> Seed {
    let mut body = Vec::new();
    message.encode_body(&mut body);
    let decode = |kind: u8, body: &[u8]| M::decode_body(kind, body).map(drop);
    Seed { stream, name: name.to_owned(), kind: message.kind(), body, decode }
}

fn client_control() -> Vec<(&'static str, ClientControl)> {
    let begin = Begin {
        offer: SessionOffer::OURS,
        choice: SESSION_CHOICE,
        instance: InstanceId([4; 16]),
        process_id: 4711,
        purpose: Purpose::New,
    };
    let ask = Begin { purpose: Purpose::Ask(SessionId([5; 16])), ..begin.clone() };
    let open = Open {
        export: "media".parse().unwrap(),
        path: ExportPath::new(&b"films/a\xff"[..]).unwrap(),
        mode: OpenMode::READ_WRITE.exclusive(),
        create_id: CreateId([6; 16]),
        with_key: true,
        grace_ms: 30_000,
    };
    let resume = Resume { key: key(), predecessor: Some(HANDLE), with_key: false };
    let replacing_nothing = Resume { predecessor: None, ..resume.clone() };
    vec![
        ("Begin", begin.into()),
        ("Begin_ask", ask.into()),
        ("Attach", Attach { offer: bind_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Open", open.into()),
        ("Resume", resume.into()),
        ("Resume_replacing_nothing", replacing_nothing.into()),
        ("IssueKey", IssueKey { handle: HANDLE }.into()),
        ("Close", Close { handle: HANDLE }.into()),
        ("Stat", Stat { handle: HANDLE }.into()),
        ("Sync", Sync { handle: HANDLE, scope: SyncScope::Data }.into()),
        ("Sync_all", Sync { handle: HANDLE, scope: SyncScope::All }.into()),
    ]
}

fn server_control() -> Vec<(&'static str, ServerControl)> {
    let welcome = |answer| Welcome { offer: SessionOffer::OURS, choice: SESSION_CHOICE, answer }.into();
    let started = Started {
        locator: Locator([1; 16]),
        secret: BindSecret([7; 32]),
        requests: 64,
        bytes: 8 << 20,
        payload_max: 1 << 20,
    };
    let attributes = Attributes { len: 4096, permissions: 0o640, modified_ns: -1, changed_ns: 1_700_000_000 };
    let state = FileState { mode: OpenMode::READ, rights: Rights::READ, attributes };
    vec![
        ("Welcome", welcome(WelcomeAnswer::Started(started))),
        ("Welcome_lives", welcome(WelcomeAnswer::Lives)),
        ("Welcome_gone", welcome(WelcomeAnswer::Gone)),
        ("Attached", Attached { offer: bind_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Opened", Opened { handle: HANDLE, state, key: Some(key()) }.into()),
        ("Opened_without_key", Opened { handle: HANDLE, state, key: None }.into()),
        ("KeyIssued", KeyIssued { key: Some(key()) }.into()),
        ("KeyIssued_again", KeyIssued { key: None }.into()),
        ("Closed", Closed {}.into()),
        ("Stated", Stated { state }.into()),
        ("Synced", Synced {}.into()),
        ("Refused", Refused { refusal: BUSY }.into()),
        ("Ended", Ended { reason: EndReason::Stopping }.into()),
    ]
}

fn client_data() -> Vec<(&'static str, ClientData)> {
    vec![
        ("Attach", Attach { offer: bind_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Read", Read { handle: HANDLE, offset: 1 << 40, len: 512 << 10 }.into()),
        ("Write", Write { handle: HANDLE, offset: u64::MAX }.into()),
    ]
}

fn server_data() -> Vec<(&'static str, ServerData)> {
    vec![
        ("Attached", Attached { offer: bind_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("ReadDone", ReadDone {}.into()),
        ("WriteDone", WriteDone { written: 4096, stability: Stability::Durable }.into()),
        ("Refused", Refused { refusal: BUSY }.into()),
    ]
}

const HANDLE: HandleId = HandleId(0x0102_0304_0506_0708);
const SESSION_CHOICE: SessionChoice =
    SessionChoice { version: PROTOCOL_VERSION, session: SessionId([3; 16]) };
const BIND_CHOICE: BindChoice = BindChoice { protection: Protection::Sealed, suite: Suite::ChaCha20Poly1305 };
const BUSY: Refusal = Refusal { reason: Reason::Busy, retry_after_ms: 1500 };
const HEAD: Head = Head {
    body_len: 20,
    payload_len: 0,
    kind: 0x20,
    channel: ChannelNumber(7),
    request: RequestId(42),
    sequence: 9,
    settled: RequestId(40),
};

fn bind_offer() -> BindOffer {
    BindOffer {
        locator: Locator([1; 16]),
        number: ChannelNumber(7),
        nonce: AttemptNonce([2; 16]),
        kind: ChannelKind::Data,
        protection: Protection::Signed,
        suite: Suite::ChaCha20Poly1305,
    }
}

fn key() -> ResumeKey {
    ResumeKey {
        file_id: OpenId(0x1112_1314_1516_1718),
        time_stamp_us: 1_700_000_000_000_000,
        process_id: 4711,
        generation: 1,
        secret: *b"a seed, no secre",
    }
}

fn first_flight(offer: &Offer) -> Vec<u8> {
    let mut bytes = hello::checked(&hello::prologue(offer), &[8; 96]);
    bytes.extend([9; MAC1_LEN]);
    bytes
}
