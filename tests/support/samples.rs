//! Samples of every message, in every form that its options and enums give it. Fields that stand beside each other
//! have different values, so that two which change places change the bytes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use bowline::model::{
    AttemptNonce, Attributes, ChannelKind, ChannelNumber, CreateId, ExportPath, FileState, HandleId,
    InstanceId, Locator, OpenId, OpenMode, Protection, Reason, Refusal, ResumeKey, Rights, SessionId,
    ShareMode, Stability, Suite, SyncScope,
};
use bowline::wire::control::{
    Attach, Attached, Begin, BindSecret, Close, Closed, EndReason, Ended, IssueKey, KeyIssued, Open, Opened,
    Purpose, Refused, Resume, Started, Stat, Stated, Sync, Synced, Welcome, WelcomeAnswer,
};
use bowline::wire::data::{Farewell, Ping, Pong, Read, ReadDone, Write, WriteDone};
use bowline::wire::hello::{BindChoice, BindOffer, SessionChoice, SessionOffer};
use bowline::wire::{ClientControl, ClientData, DecodeError, Message, ServerControl, ServerData};

pub(crate) const HANDLE: HandleId = HandleId(0x0102_0304_0506_0708);
pub(crate) const SESSION_OFFER: SessionOffer = SessionOffer { version_min: 1, version_max: 0x0203 };
pub(crate) const SESSION_CHOICE: SessionChoice = SessionChoice { version: 2, session: SessionId([3; 16]) };
pub(crate) const BIND_CHOICE: BindChoice =
    BindChoice { protection: Protection::Sealed, suite: Suite::ChaCha20Poly1305 };

/// A sample as bytes, of whichever stream it is.
pub(crate) struct Sample {
    pub(crate) stream: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) decode: fn(u8, &[u8]) -> Result<(), DecodeError>,
}

/// The samples of all streams.
pub(crate) fn all() -> Vec<Sample> {
    let mut samples = Vec::new();
    add(&mut samples, "ClientControl", client_control());
    add(&mut samples, "ServerControl", server_control());
    add(&mut samples, "ClientData", client_data());
    add(&mut samples, "ServerData", server_data());
    samples
}

fn add<M: Message>(samples: &mut Vec<Sample>, stream: &'static str, messages: Vec<(&'static str, M)>) {
    for (name, message) in messages {
        let decode = |kind: u8, body: &[u8]| M::decode_body(kind, body).map(drop);
        samples.push(Sample { stream, name, kind: message.kind(), body: body(&message), decode });
    }
}

/// The bytes of a message's body.
pub(crate) fn body<M: Message>(message: &M) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode_body(&mut body);
    body
}

pub(crate) fn client_control() -> Vec<(&'static str, ClientControl)> {
    let begin = Begin {
        offer: SESSION_OFFER,
        choice: SESSION_CHOICE,
        instance: InstanceId([4; 16]),
        process_id: 4711,
        purpose: Purpose::New,
    };
    let ask = Begin { purpose: Purpose::Ask(SessionId([5; 16])), ..begin.clone() };
    let resume = Resume { key: key(), predecessor: Some(HANDLE), with_key: false };
    let replacing_nothing = Resume { predecessor: None, with_key: true, ..resume.clone() };
    vec![
        ("Begin", begin.into()),
        ("Begin_ask", ask.into()),
        ("Attach", Attach { offer: control_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Open", open().into()),
        ("Open_shared", open_shared().into()),
        ("Resume", resume.into()),
        ("Resume_replacing_nothing", replacing_nothing.into()),
        ("IssueKey", IssueKey { handle: HANDLE }.into()),
        ("Close", Close { handle: HANDLE }.into()),
        ("Stat", Stat { handle: HANDLE }.into()),
        ("Sync", Sync { handle: HANDLE, scope: SyncScope::Data }.into()),
        ("Sync_all", Sync { handle: HANDLE, scope: SyncScope::All }.into()),
    ]
}

pub(crate) fn server_control() -> Vec<(&'static str, ServerControl)> {
    let welcome = |answer| Welcome { offer: SESSION_OFFER, choice: SESSION_CHOICE, answer }.into();
    let started = Started {
        locator: Locator([1; 16]),
        secret: BindSecret([7; 32]),
        requests: 64,
        bytes: 8 << 20,
        payload_max: 1 << 20,
    };
    let state = state();
    vec![
        ("Welcome", welcome(WelcomeAnswer::Started(started))),
        ("Welcome_lives", welcome(WelcomeAnswer::Lives)),
        ("Welcome_gone", welcome(WelcomeAnswer::Gone)),
        ("Attached", Attached { offer: control_offer(), choice: BIND_CHOICE }.into()),
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
        ("Refused_for_good", Refused { refusal: UNKNOWN }.into()),
        ("Ended", Ended { reason: EndReason::Stopping }.into()),
        ("Ended_not_allowed", Ended { reason: EndReason::NotAllowed }.into()),
    ]
}

pub(crate) fn client_data() -> Vec<(&'static str, ClientData)> {
    vec![
        ("Attach", Attach { offer: data_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Read", Read { handle: HANDLE, offset: 1 << 40, len: 512 << 10 }.into()),
        ("Write", Write { handle: HANDLE, offset: u64::MAX }.into()),
    ]
}

pub(crate) fn server_data() -> Vec<(&'static str, ServerData)> {
    vec![
        ("Attached", Attached { offer: data_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("ReadDone", ReadDone {}.into()),
        ("WriteDone", WriteDone { written: 4096, stability: Stability::Durable }.into()),
        ("WriteDone_received", WriteDone { written: 0, stability: Stability::Received }.into()),
        ("Refused", Refused { refusal: BUSY }.into()),
    ]
}

const BUSY: Refusal = Refusal { reason: Reason::Busy, retry_after_ms: 1500 };
const UNKNOWN: Refusal = Refusal { reason: Reason::Unknown, retry_after_ms: 0 };

pub(crate) fn data_offer() -> BindOffer {
    BindOffer {
        locator: Locator([1; 16]),
        number: ChannelNumber(7),
        nonce: AttemptNonce([2; 16]),
        kind: ChannelKind::Data,
        protection: Protection::Signed,
        suite: Suite::ChaCha20Poly1305,
    }
}

pub(crate) fn control_offer() -> BindOffer {
    BindOffer { kind: ChannelKind::Control, protection: Protection::Sealed, ..data_offer() }
}

pub(crate) fn key() -> ResumeKey {
    ResumeKey {
        file_id: OpenId(0x1112_1314_1516_1718),
        time_stamp_us: 1_700_000_000_000_000,
        process_id: 4711,
        generation: 1,
        secret: *b"a seed, no secre",
    }
}

fn open() -> Open {
    Open {
        export: "media".parse().expect("a name"),
        path: ExportPath::new(&b"films/a\xff"[..]).expect("a path"),
        mode: OpenMode::READ_WRITE.exclusive(),
        create_id: CreateId([6; 16]),
        with_key: true,
        grace_ms: 30_000,
    }
}

fn open_shared() -> Open {
    let mode = OpenMode {
        rights: Rights::WRITE.union(Rights::LOCK).union(Rights::GRANT),
        share: ShareMode::READ.union(ShareMode::DELETE),
    };
    Open { mode, with_key: false, grace_ms: 0, ..open() }
}

fn state() -> FileState {
    let attributes = Attributes { len: 4096, permissions: 0o640, modified_ns: -1, changed_ns: 1_700_000_000 };
    let mode = OpenMode { rights: Rights::ALL, share: ShareMode::ALL };
    FileState { mode, rights: Rights::READ.union(Rights::GRANT), attributes }
}
