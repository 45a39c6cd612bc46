//! Samples of every message, in every form that its options and enums give it. Fields that stand beside each other
//! have different values, so that two which change places change the bytes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use bowline::model::{
    Allocation, AttemptNonce, AttributeChange, Attributes, BootId, ChannelKind, ChannelNumber, Create,
    CreateId, Epoch, ExportPath, FileKind, FileState, GrantId, HandleId, InstanceId, LinkTarget, Locator,
    LockMode, Meanwhile, OpenId, OpenMode, Protection, PublicKey, RawRange, Reason, Refusal, Removal,
    RenameHow, RequestId, ResumeKey, Rights, Seekable, SessionId, SetTime, ShareMode, Space, Stability,
    StoreId, Suite, SuiteSet, SyncScope, Verifier, XattrHow, XattrName,
};
use bowline::wire::control::{
    Allocate, Attach, Attached, Begin, BindSecret, CancelLock, Change, Changed, Close, Closed, Done,
    EndReason, Ended, Granted, IssueKey, KeyIssued, Lock, LockQueued, LockWanted, Locked, Open, Opened,
    Purpose, Refused, Resume, Seek, Sought, Started, Stat, Stated, Sync, Synced, Target, Unlock, Welcome,
    WelcomeAnswer,
};
use bowline::wire::data::{
    Append, AppendDone, Farewell, Ping, Pong, Read, ReadDone, Rekey, Trailer, Write, WriteDone,
};
use bowline::wire::grants::{Grant, Revoke, TakeGrant};
use bowline::wire::hello::{BindChoice, BindOffer, SessionChoice, SessionOffer};
use bowline::wire::names::{
    Cookie, Found, HardLink, Link, List, Listed, Lookup, MakeDirectory, Place, ReadLink, Remove, Rename,
    SpaceStated, StatSpace, Symlink, XattrGet, XattrList, XattrNames, XattrRemove, XattrSet, XattrValue,
};
use bowline::wire::notices::{GrantOffered, HandleEnded, Heard, LockEnded};
use bowline::wire::outcomes::{Became, Inquire, Outcome};
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
        purpose: Purpose::New { former: None },
    };
    let former = Some(SessionId([9; 16]));
    let in_place = Begin { purpose: Purpose::New { former }, ..begin.clone() };
    let ask = Begin { purpose: Purpose::Ask(SessionId([5; 16])), ..begin.clone() };
    let resume = Resume { key: key(), predecessor: Some(HANDLE), with_key: false };
    let replacing_nothing = Resume { predecessor: None, with_key: true, ..resume.clone() };
    vec![
        ("Begin", begin.into()),
        ("Begin_in_place", in_place.into()),
        ("Begin_ask", ask.into()),
        ("Attach", Attach { offer: control_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Rekey", Rekey {}.into()),
        ("Open", open().into()),
        ("Open_shared", open_shared().into()),
        ("Resume", resume.into()),
        ("Resume_replacing_nothing", replacing_nothing.into()),
        ("IssueKey", IssueKey { handle: HANDLE }.into()),
        ("Close", Close { handle: HANDLE }.into()),
        ("Stat", Stat { handle: HANDLE }.into()),
        ("Sync", Sync { handle: HANDLE, scope: SyncScope::Data }.into()),
        ("Sync_all", Sync { handle: HANDLE, scope: SyncScope::All }.into()),
        ("Grant", grant(3_600_000, true, false).into()),
        ("Grant_move", grant(0, false, true).into()),
        ("Revoke", Revoke { handle: HANDLE, grant: GRANT }.into()),
        ("TakeGrant", TakeGrant { grant: GRANT }.into()),
        (
            "Inquire",
            Inquire { session: SessionId([0x19; 16]), request: RequestId(0x1122), epoch: Epoch(3) }.into(),
        ),
    ]
    .into_iter()
    .chain(client_files())
    .chain(client_names())
    .collect()
}

const GRANT: GrantId = GrantId(0x2122_2324_2526_2728);
const PEER: PublicKey = PublicKey([0x15; 32]);

fn grant(lasts_ms: u64, deliver: bool, gives_up: bool) -> Grant {
    let rights = Rights::READ.union(Rights::LOCK);
    Grant { handle: HANDLE, to: PEER, rights, lasts_ms, deliver, gives_up }
}

fn place() -> Place {
    Place { export: "media".parse().expect("a name"), path: path() }
}

fn path() -> ExportPath {
    ExportPath::new(&b"films/a\xff"[..]).expect("a path")
}

fn xattr() -> XattrName {
    XattrName::new("user.tag").expect("a name")
}

const RANGE: RawRange = RawRange { start: 0x0a, len: 0x0b };

/// What is asked of open files.
fn client_files() -> Vec<(&'static str, ClientControl)> {
    let handle = HANDLE;
    let all = AttributeChange {
        len: Some(7),
        permissions: Some(0o640),
        accessed: Some(SetTime::Now),
        modified: Some(SetTime::At(-2)),
    };
    let change = Change { target: Target::Handle(handle), change: all };
    let of_name = Change { target: Target::Name(place()), change: AttributeChange::default() };
    let allocate = |how| Allocate { handle, range: RANGE, how }.into();
    let seek = |what| Seek { handle, offset: 9, what }.into();
    let lock = |mode, wait_ms| Lock { handle, wanted: LockWanted { mode, range: RANGE }, wait_ms }.into();
    vec![
        ("Change", change.into()),
        ("Change_of_a_name", of_name.into()),
        ("Allocate", allocate(Allocation::Reserve)),
        ("Allocate_keep", allocate(Allocation::ReserveKeepLen)),
        ("Allocate_punch", allocate(Allocation::PunchHole)),
        ("Seek", seek(Seekable::Data)),
        ("Seek_hole", seek(Seekable::Hole)),
        ("Lock", lock(LockMode::Exclusive, 5000)),
        ("Lock_shared", lock(LockMode::Shared, 0)),
        ("Unlock", Unlock { handle, range: RANGE }.into()),
        ("CancelLock", CancelLock { lock: RequestId(0x0c) }.into()),
        ("Heard", Heard { notice: 3 }.into()),
    ]
}

/// What is asked of names.
fn client_names() -> Vec<(&'static str, ClientControl)> {
    let export = place().export;
    let to = ExportPath::new("b").expect("a path");
    let remove = |what| Remove { place: place(), what }.into();
    let rename = |how| Rename { export: export.clone(), from: path(), to: to.clone(), how }.into();
    let set = |how| XattrSet { target: Target::Handle(HANDLE), name: xattr(), how }.into();
    let list = List { place: place(), cookie: Some(Cookie([4; 24])), with_attributes: true };
    let root = Place { export: export.clone(), path: ExportPath::ROOT };
    let link = LinkTarget::new("../x").expect("a target");
    vec![
        ("Lookup", Lookup { place: place(), follow: true }.into()),
        ("List", list.into()),
        ("List_from_the_start", List { place: root, cookie: None, with_attributes: false }.into()),
        ("ReadLink", ReadLink { place: place() }.into()),
        ("StatSpace", StatSpace { place: place() }.into()),
        ("MakeDirectory", MakeDirectory { place: place(), permissions: 0o755 }.into()),
        ("Remove", remove(Removal::File)),
        ("Remove_directory", remove(Removal::Directory)),
        ("Rename", rename(RenameHow::Replace)),
        ("Rename_no_replace", rename(RenameHow::NoReplace)),
        ("Rename_exchange", rename(RenameHow::Exchange)),
        ("Symlink", Symlink { place: place(), target: link }.into()),
        ("HardLink", HardLink { export: export.clone(), from: path(), to }.into()),
        ("XattrGet", XattrGet { target: Target::Name(place()), name: xattr() }.into()),
        ("XattrSet", set(XattrHow::Set)),
        ("XattrSet_create", set(XattrHow::Create)),
        ("XattrSet_replace", set(XattrHow::Replace)),
        ("XattrList", XattrList { target: Target::Handle(HANDLE) }.into()),
        ("XattrRemove", XattrRemove { target: Target::Handle(HANDLE), name: xattr() }.into()),
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
        suites: SuiteSet::ALWAYS.with(Suite::Aegis128X2),
        epoch: Epoch(0x31),
        verifier: Verifier { store: StoreId([0x32; 16]), boot: BootId([0x33; 16]), takeovers: 0x34 },
    };
    let state = state();
    let opened = |key, meanwhile| Opened { handle: HANDLE, state, key, meanwhile }.into();
    vec![
        ("Welcome", welcome(WelcomeAnswer::Started(started))),
        ("Welcome_lives", welcome(WelcomeAnswer::Lives)),
        ("Welcome_gone", welcome(WelcomeAnswer::Gone)),
        ("Attached", Attached { offer: control_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Rekey", Rekey {}.into()),
        ("Opened", opened(Some(key()), None)),
        ("Opened_again", opened(Some(key()), Some(Meanwhile::ChangedByClient))),
        ("Opened_without_key", opened(None, None)),
        ("Opened_again_without_key", opened(None, Some(Meanwhile::Unknown))),
        ("KeyIssued", KeyIssued { key: Some(key()) }.into()),
        ("KeyIssued_again", KeyIssued { key: None }.into()),
        ("Closed", Closed {}.into()),
        ("Stated", Stated { state }.into()),
        ("Synced", Synced {}.into()),
        ("Refused", Refused { refusal: BUSY }.into()),
        ("Refused_for_good", Refused { refusal: UNKNOWN }.into()),
        ("Ended", Ended { reason: EndReason::Stopping }.into()),
        ("Ended_not_allowed", Ended { reason: EndReason::NotAllowed }.into()),
        ("Changed", Changed { attributes: state.attributes }.into()),
        ("Done", Done {}.into()),
        ("Sought", Sought { offset: Some(0x0d) }.into()),
        ("Sought_nothing", Sought { offset: None }.into()),
        ("Locked", locked().into()),
        ("LockQueued", LockQueued {}.into()),
        ("LockEnded", LockEnded { notice: 2, lock: RequestId(3), outcome: Ok(locked()) }.into()),
        ("LockEnded_refused", LockEnded { notice: 4, lock: RequestId(5), outcome: Err(BUSY) }.into()),
        ("Granted", Granted { handle: HANDLE, grant: GRANT, key: Some(key()) }.into()),
        ("Outcome", Outcome { became: Became::Executed }.into()),
        ("Outcome_appended", Outcome { became: Became::Appended { offset: 0x1000, written: 0x20 } }.into()),
        ("Outcome_none", Outcome { became: Became::NotExecuted }.into()),
        ("Outcome_unknown", Outcome { became: Became::Unknown }.into()),
        ("Granted_without_key", Granted { handle: HANDLE, grant: GRANT, key: None }.into()),
        ("GrantOffered", offered().into()),
        ("HandleEnded", HandleEnded { notice: 7, handle: HANDLE, refusal: Reason::Revoked.into() }.into()),
        ("Found", Found { attributes: directory() }.into()),
        ("Listed", Listed { next: Some(Cookie([5; 24])) }.into()),
        ("Listed_the_last", Listed { next: None }.into()),
        ("Link", Link { target: LinkTarget::new("../x").expect("a target") }.into()),
        ("SpaceStated", SpaceStated { space: SPACE }.into()),
        ("XattrValue", XattrValue {}.into()),
        ("XattrNames", XattrNames {}.into()),
    ]
}

fn locked() -> Locked {
    Locked { handle: HANDLE, range: RANGE }
}

fn offered() -> GrantOffered {
    let Place { export, path } = place();
    GrantOffered {
        notice: 6,
        grant: GRANT,
        from: PEER,
        export,
        path,
        rights: Rights::READ.union(Rights::LOCK),
    }
}

const SPACE: Space = Space { total: 9, free: 8, available: 7, files_total: 6, files_free: 5 };

fn directory() -> Attributes {
    Attributes { kind: FileKind::Directory, ..state().attributes }
}

pub(crate) fn client_data() -> Vec<(&'static str, ClientData)> {
    vec![
        ("Attach", Attach { offer: data_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Rekey", Rekey {}.into()),
        ("Read", Read { handle: HANDLE, offset: 1 << 40, len: 512 << 10 }.into()),
        ("Write", Write { handle: HANDLE, offset: u64::MAX }.into()),
        ("Append", Append { handle: HANDLE }.into()),
    ]
}

pub(crate) fn server_data() -> Vec<(&'static str, ServerData)> {
    vec![
        ("Attached", Attached { offer: data_offer(), choice: BIND_CHOICE }.into()),
        ("Ping", Ping {}.into()),
        ("Pong", Pong {}.into()),
        ("Farewell", Farewell {}.into()),
        ("Rekey", Rekey {}.into()),
        ("ReadDone", ReadDone {}.into()),
        ("Trailer", Trailer { valid: 17, refused: None }.into()),
        ("Trailer_refused", Trailer { valid: 0, refused: Some(UNKNOWN) }.into()),
        ("WriteDone", WriteDone { written: 4096, stability: Stability::Durable }.into()),
        ("WriteDone_received", WriteDone { written: 0, stability: Stability::Received }.into()),
        ("AppendDone", AppendDone { offset: 14, written: 15, stability: Stability::Received }.into()),
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
        create: Create::New,
        truncate: true,
        permissions: 0o640,
        lock: Some(LockWanted { mode: LockMode::Exclusive, range: RANGE }),
        resumable: true,
        create_id: CreateId([6; 16]),
        with_key: true,
        grace_ms: 30_000,
        guard: true,
    }
}

fn open_shared() -> Open {
    let mode = OpenMode {
        rights: Rights::WRITE.union(Rights::LOCK).union(Rights::GRANT),
        share: ShareMode::READ.union(ShareMode::DELETE),
    };
    Open {
        mode,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: false,
        with_key: false,
        grace_ms: 0,
        guard: false,
        ..open()
    }
}

fn state() -> FileState {
    let attributes = Attributes {
        kind: FileKind::File,
        len: 4096,
        allocated: 8192,
        permissions: 0o640,
        links: 2,
        accessed_ns: 1_600_000_000,
        modified_ns: -1,
        changed_ns: 1_700_000_000,
    };
    let mode = OpenMode { rights: Rights::ALL, share: ShareMode::ALL };
    FileState { mode, rights: Rights::READ.union(Rights::GRANT), attributes }
}
