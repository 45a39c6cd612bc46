//! The liar: does each handshake as it should be done, and then what its seed says.

use std::sync::{Arc, Mutex};

use bowline::client::{LineConfig, Peer};
use bowline::model::{
    Attributes, BootId, ByteRange, ChannelNumber, Entropy as _, Epoch, ExportPath, FileKind, FileState,
    GrantId, HandleId, LinkTarget, Locator, OpenId, OpenMode, Protection, PublicKey, Reason, Refusal,
    RequestId, ResumeKey, Rights, SessionId, Space, Stability, StoreId, Suite, SuiteSet, Verifier, XattrName,
};
use bowline::net::{SystemEntropy, read_hello};
use bowline::secure::{BindResponder, Identity, SessionResponder};
use bowline::wire::control::{
    Attached, BindSecret, Changed, Closed, Done, EndReason, Ended, Granted, KeyIssued, LockQueued, Locked,
    Opened, Refused, Sought, Started, Stated, Synced, Welcome, WelcomeAnswer,
};
use bowline::wire::data::{AppendDone, Farewell, Ping, Pong, ReadDone, WriteDone};
use bowline::wire::hello::{BindChoice, Hello, Offer, SessionChoice};
use bowline::wire::names::{
    Cookie, DirectoryEntry, Found, Link, Listed, SpaceStated, XattrNames, XattrValue, encode_list,
};
use bowline::wire::notices::{GrantOffered, HandleEnded, LockEnded};
use bowline::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::seed::Seed;
use crate::support::raw::{Channel, Odd};

/// A server with a right key and nothing else that is right. Dropping it ends it.
pub(crate) struct Liar {
    peer: Peer,
    accepting: AbortHandle,
}

/// What the liar's connections have in common.
struct Mind {
    identity: Arc<Identity>,
    session: Mutex<Option<(SessionId, PublicKey)>>,
    seed: u64,
    /// How many of a hundred answers are lies.
    lies: u64,
    /// A bit of a first record that is another one than it should be.
    slip: Option<Slip>,
    epoch: u64,
}

/// Which bit of a first record's body is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slip {
    Welcome(usize),
    Attached(usize),
}

const SECRET: BindSecret = BindSecret([7; 32]);

impl Liar {
    /// One that answers as its seed says.
    pub(crate) async fn start(seed: u64, identity: Arc<Identity>) -> Self {
        // Some are honest for a while, so that their clients get far.
        let lies = [2, 10, 30, 60, 95][usize::try_from(seed % 5).unwrap()];
        Self::with(identity, (seed, lies), None, 1).await
    }

    /// One that is honest, and the server's life of this number.
    pub(crate) async fn living(epoch: u64, identity: Arc<Identity>) -> Self {
        Self::with(identity, (0, 0), None, epoch).await
    }

    /// One that is honest but for one bit.
    pub(crate) async fn slipping(slip: Slip, identity: Arc<Identity>) -> Self {
        Self::with(identity, (0, 0), Some(slip), 1).await
    }

    async fn with(identity: Arc<Identity>, (seed, lies): (u64, u64), slip: Option<Slip>, epoch: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = LineConfig::new(address);
        let key = identity.public();
        let peer = Peer { name: "liar".into(), key, protection_min: None, lines: vec![line.clone(), line] };
        let mind = Arc::new(Mind { identity, session: Mutex::new(None), seed, lies, slip, epoch });
        let accepting = tokio::spawn(async move {
            for connection in 1.. {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(Arc::clone(&mind), stream, connection));
            }
        });
        Self { peer, accepting: accepting.abort_handle() }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer.clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mind: Arc<Mind>, mut stream: TcpStream, connection: u64) {
    let random = Seed::new(mind.seed, 1000 + connection);
    drop(stream.set_nodelay(true));
    let Ok(hello) = read_hello(&mut stream).await else { return };
    if let Offer::Session(_) = hello.offer {
        serve_session(&mind, stream, &hello, random).await;
    } else if let Offer::Bind(_) = hello.offer {
        serve_bind(&mind, stream, &hello, random).await;
    }
}

async fn serve_session(mind: &Mind, mut stream: TcpStream, hello: &Hello, mut random: Seed) {
    let Ok(responder) = SessionResponder::read(&mind.identity, hello, &mut SystemEntropy) else { return };
    let (client, offer) = (responder.client(), responder.offer());
    let choice = SessionChoice { version: 1, session: SessionId(random.bytes().unwrap()) };
    let Ok((message2, keys)) = responder.finish(choice) else { return };
    if stream.write_all(&message2).await.is_err() {
        return;
    }
    let mut channel = Channel::<true>::new(stream, keys, (ChannelNumber(0), Protection::Sealed));
    if channel.next().await.is_none() {
        return;
    }
    mind.session.lock().unwrap().get_or_insert((choice.session, client));
    let is_lie = random.below(400) < mind.lies;
    let started = Started { epoch: Epoch(mind.epoch), ..started(&mut random, is_lie) };
    let mut welcome = Welcome { offer, choice, answer: WelcomeAnswer::Started(started) };
    if is_lie {
        match random.below(5) {
            0 => welcome.choice.version = 2,
            1 => welcome.choice.session.0[3] ^= 1,
            2 => welcome.offer.version_max += 1,
            3 => welcome.answer = WelcomeAnswer::Gone,
            _ => {}
        }
    }
    let slip = mind.slip.and_then(|slip| if let Slip::Welcome(bit) = slip { Some(bit) } else { None });
    send_first(&mut channel, Odd::of(&ServerControl::from(welcome)), slip).await;
    lie_on(mind, channel, random).await;
}

async fn send_first<const IS_CONTROL: bool>(
    channel: &mut Channel<IS_CONTROL>,
    mut first: Odd<IS_CONTROL>,
    slip: Option<usize>,
) {
    if let Some(bit) = slip {
        first.body[bit / 8] ^= 1 << (bit % 8);
    }
    let frame = channel.seal(&first, 0, &[]);
    channel.write(&frame).await;
}

fn started(random: &mut Seed, is_lie: bool) -> Started {
    let mut started = Started {
        locator: Locator([1; 16]),
        secret: SECRET,
        requests: 64,
        bytes: 8 << 20,
        payload_max: 1 << 20,
        suites: SuiteSet::ALWAYS,
        epoch: Epoch(1),
        verifier: Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 0 },
    };
    if is_lie {
        let edges = [0, 1, u32::MAX];
        let mut edge = || edges[usize::try_from(random.below(3)).unwrap()];
        (started.requests, started.bytes, started.payload_max) = (edge(), u64::from(edge()) << 32, edge());
        started.suites = SuiteSet::of(Suite::Aegis128X2);
    }
    started
}

async fn serve_bind(mind: &Mind, mut stream: TcpStream, hello: &Hello, mut random: Seed) {
    let Offer::Bind(offer) = hello.offer else { return };
    let Some((session, client)) = *mind.session.lock().unwrap() else { return };
    if random.below(200) < mind.lies {
        return;
    }
    let read = BindResponder::read(&mind.identity, &client, &SECRET, session, hello, &mut SystemEntropy);
    let Ok(responder) = read else { return };
    let choice = BindChoice { protection: offer.protection, suite: offer.suite };
    let Ok((message2, keys)) = responder.finish(choice) else { return };
    if stream.write_all(&message2).await.is_err() {
        return;
    }
    let mut attached = Attached { offer, choice };
    if random.below(200) < mind.lies {
        attached.offer.number.0 ^= 1;
    }
    let slip = mind.slip.and_then(|slip| if let Slip::Attached(bit) = slip { Some(bit) } else { None });
    let at = (offer.number, choice.protection);
    if offer.kind == bowline::model::ChannelKind::Control {
        let mut channel = Channel::<true>::new(stream, keys, at);
        if channel.next().await.is_some() {
            send_first(&mut channel, Odd::of(&ServerControl::from(attached)), slip).await;
            lie_on(mind, channel, random).await;
        }
    } else {
        let mut channel = Channel::<false>::new(stream, keys, at);
        if channel.next().await.is_some() {
            send_first(&mut channel, Odd::of(&ServerData::from(attached)), slip).await;
            lie_on(mind, channel, random).await;
        }
    }
}

/// An answer as it would go on the wire.
struct Answer {
    kind: u8,
    body: Vec<u8>,
    payload: Vec<u8>,
}

fn answer<M: Message>(message: impl Into<M>, payload: Vec<u8>) -> Answer {
    let message: M = message.into();
    let mut body = Vec::new();
    message.encode_body(&mut body);
    Answer { kind: message.kind(), body, payload }
}

fn control(message: impl Into<ServerControl>) -> Answer {
    answer::<ServerControl>(message, Vec::new())
}

/// Answers what comes until the client has enough of it.
async fn lie_on<const IS_CONTROL: bool>(mind: &Mind, mut channel: Channel<IS_CONTROL>, mut random: Seed) {
    let mut notice = 0;
    loop {
        // A client that is silent for as long as a test waits is gone; it ends with the liar.
        let Ok(Some(received)) = tokio::time::timeout(super::CALL_MAX, channel.next()).await else { return };
        let Ok(asked) = received.message else { return };
        let request = received.request.0;
        let written = received.payload.map_or(0, |payload| u32::try_from(payload.len()).unwrap());
        let right = if IS_CONTROL {
            asked.says().and_then(|asked| right_control(&asked, &mut random))
        } else {
            asked.says().and_then(|asked| right_data(&asked, written))
        };
        if random.below(100) >= mind.lies {
            if let Some(right) = right {
                send(&mut channel, request, &right).await;
            }
            continue;
        }
        match random.below(6) {
            0 => flood(&mut channel, &mut random, &mut notice).await,
            1 => {
                if !end(&mut channel, &mut random).await {
                    return;
                }
            }
            _ => {
                for (request, lie) in lies(right, request, &mut random, IS_CONTROL) {
                    send(&mut channel, request, &lie).await;
                }
            }
        }
    }
}

async fn send<const IS_CONTROL: bool>(channel: &mut Channel<IS_CONTROL>, request: u64, answer: &Answer) {
    let odd = Odd { kind: answer.kind, body: answer.body.clone() };
    let frame = channel.seal(&odd, request, &answer.payload);
    channel.write(&frame).await;
}

/// Many things that were not asked for: signs of life, notices of locks that nobody has.
async fn flood<const IS_CONTROL: bool>(
    channel: &mut Channel<IS_CONTROL>,
    random: &mut Seed,
    notice: &mut u64,
) {
    let mut bytes = Vec::new();
    for _ in 0..random.below(3000) {
        let message = if IS_CONTROL && random.chance(50) {
            *notice += if random.chance(95) { 1 } else { random.below(5) };
            let lock = RequestId(random.below(50));
            let locked = Locked { handle: HandleId(1), range: ByteRange::between(0, 10).unwrap().raw() };
            let outcome = if random.chance(50) { Ok(locked) } else { Err(refusal(random)) };
            let told = match random.below(3) {
                0 => LockEnded { notice: *notice, lock, outcome }.into(),
                1 => HandleEnded { notice: *notice, handle: HandleId(1), refusal: refusal(random) }.into(),
                _ => GrantOffered {
                    notice: *notice,
                    grant: GrantId(1),
                    from: PublicKey([1; 32]),
                    export: "data".parse().unwrap(),
                    path: ExportPath::ROOT,
                    rights: Rights::ALL,
                }
                .into(),
            };
            Odd::of::<ServerControl>(&told)
        } else if random.chance(50) {
            Odd::of(&ServerControl::from(Ping {}))
        } else {
            Odd::of(&ServerControl::from(Pong {}))
        };
        bytes.extend(channel.seal(&message, 0, &[]));
    }
    channel.write(&bytes).await;
}

/// The end, in one of its forms; false where nothing can follow.
async fn end<const IS_CONTROL: bool>(channel: &mut Channel<IS_CONTROL>, random: &mut Seed) -> bool {
    match random.below(6) {
        0 if IS_CONTROL => {
            let reason = if random.chance(50) { EndReason::Stopping } else { EndReason::NotAllowed };
            channel.send(&ServerControl::from(Ended { reason }), 0).await;
        }
        1 => channel.send(&ServerControl::from(Farewell {}), 0).await,
        2 => {
            let mut garbage = vec![0; usize::try_from(random.below(5000)).unwrap()];
            random.fill(&mut garbage).unwrap();
            channel.write(&garbage).await;
        }
        3 => {
            let head = crate::support::raw::head(u32::MAX, u32::MAX, (0, 5));
            channel.write(&head).await;
        }
        4 => return false,
        // Silence.
        _ => return true,
    }
    true
}

/// What is answered instead, under which ids.
fn lies(right: Option<Answer>, request: u64, random: &mut Seed, is_control: bool) -> Vec<(u64, Answer)> {
    let Some(mut right) = right else { return Vec::new() };
    let wrong_ids = [0, 1, request + 1, request.saturating_sub(1), request + 10_000, u64::MAX];
    match random.below(12) {
        0 => vec![(wrong_ids[usize::try_from(random.below(6)).unwrap()], right)],
        1 => {
            let twin = Answer { kind: right.kind, body: right.body.clone(), payload: right.payload.clone() };
            vec![(request, right), (request, twin)]
        }
        2 => Vec::new(),
        3 if is_control => vec![(request, control(Refused { refusal: refusal(random) }))],
        3 => vec![(request, answer::<ServerData>(Refused { refusal: refusal(random) }, Vec::new()))],
        4 => {
            // Another kind that there is, or none that there is.
            let kinds = bowline::wire::message::kinds();
            let at = usize::try_from(random.below(u64::try_from(kinds.len()).unwrap())).unwrap();
            right.kind = if random.chance(80) { kinds[at].2 } else { 0x77 };
            vec![(request, right)]
        }
        5 => {
            let len = usize::try_from(random.below(200)).unwrap();
            right.body = vec![0; len];
            random.fill(&mut right.body).unwrap();
            vec![(request, right)]
        }
        6 => {
            let at = random.below(u64::try_from(right.body.len().max(1)).unwrap());
            if let Some(byte) = right.body.get_mut(usize::try_from(at).unwrap()) {
                *byte ^= 1 << random.below(8);
            }
            vec![(request, right)]
        }
        7 => {
            let len =
                [1, right.payload.len() + 1, 70_000, 1 << 20][usize::try_from(random.below(4)).unwrap()];
            right.payload.resize(len, 0xee);
            vec![(request, right)]
        }
        8 => {
            let len = random.below(u64::try_from(right.payload.len() + 1).unwrap());
            right.payload.truncate(usize::try_from(len).unwrap());
            vec![(request, right)]
        }
        9 => {
            right.payload = evil_names(random);
            vec![(request, right)]
        }
        10 if is_control => vec![(request, control(LockQueued {}))],
        _ => vec![(request, exaggerate(random, is_control))],
    }
}

/// Names as a listing has them, and as no listing may have them.
fn evil_names(random: &mut Seed) -> Vec<u8> {
    let names: [&[u8]; 12] = [
        b"/",
        b"..",
        b".",
        b"",
        b"a/b",
        b"a\0b",
        b"\0",
        b"../../etc/passwd",
        b"/etc/passwd",
        b"..\0",
        b"good",
        &[b'x'; 256],
    ];
    let mut payload = Vec::new();
    for _ in 0..=random.below(3) {
        let name = names[usize::try_from(random.below(12)).unwrap()];
        payload.extend(u64::try_from(name.len()).unwrap().to_le_bytes());
        payload.extend(name);
        // A file without attributes; for names of attributes, something else that is left over.
        payload.extend([0, 0, 0, 0, 0]);
    }
    if random.chance(20) {
        payload[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    }
    payload
}

/// Sizes and counts at the end of what there is.
fn exaggerate(random: &mut Seed, is_control: bool) -> Answer {
    let (written, stability) = (u32::MAX, Stability::Durable);
    match (is_control, random.below(4)) {
        (false, 0) => answer::<ServerData>(WriteDone { written, stability }, Vec::new()),
        (false, 1) => answer::<ServerData>(AppendDone { offset: u64::MAX, written, stability }, Vec::new()),
        (false, _) => answer::<ServerData>(ReadDone {}, vec![0xee; 1 << 20]),
        (true, 0) => control(Stated { state: state(u64::MAX) }),
        (true, 1) => control(Sought { offset: Some(u64::MAX) }),
        (true, 2) => {
            let all = u64::MAX;
            let space = Space { total: all, free: all, available: all, files_total: all, files_free: all };
            control(SpaceStated { space })
        }
        (true, _) => control(Found { attributes: Attributes { len: u64::MAX, ..state(0).attributes } }),
    }
}

fn refusal(random: &mut Seed) -> Refusal {
    let reasons = [Reason::NotFound, Reason::Busy, Reason::Locked, Reason::Io, Reason::Exists, Reason::Stale];
    let reason = reasons[usize::try_from(random.below(6)).unwrap()];
    let retry_after_ms = if random.chance(50) { u64::MAX } else { random.below(1000) };
    Refusal { reason, retry_after_ms }
}

fn state(len: u64) -> FileState {
    let attributes = Attributes { kind: FileKind::File, len, permissions: 0o644, ..Attributes::default() };
    FileState { mode: OpenMode::READ_WRITE, rights: Rights::ALL, attributes }
}

/// The right answer, where there is one.
fn right_control(asked: &ClientControl, random: &mut Seed) -> Option<Answer> {
    use ClientControl as C;
    let attributes = Attributes { kind: FileKind::Directory, ..state(0).attributes };
    Some(match asked {
        C::Ping(_) => control(Pong {}),
        C::Open(_) | C::Resume(_) => {
            let handle = HandleId(random.next() | 1);
            let key = Some(key(random));
            control(Opened { handle, state: state(1 << 20), key, meanwhile: None, durable: false })
        }
        C::IssueKey(_) | C::TakeGrant(_) => control(KeyIssued { key: Some(key(random)) }),
        C::Grant(asked) => {
            let (handle, grant) = (asked.handle, GrantId(random.next()));
            control(Granted { handle, grant, key: Some(key(random)) })
        }
        C::Close(_) => control(Closed {}),
        C::Stat(_) => control(Stated { state: state(1 << 20) }),
        C::Sync(_) => control(Synced {}),
        C::Change(_) => control(Changed { attributes: state(1 << 20).attributes }),
        C::Seek(_) => control(Sought { offset: Some(0) }),
        C::Lock(lock) => control(Locked { handle: lock.handle, range: lock.wanted.range }),
        C::Lookup(_) => control(Found { attributes }),
        C::List(list) => listing(list.cookie, random),
        C::ReadLink(_) => {
            let targets: [&[u8]; 4] = [b"a", b"../../../etc", b"/", &[b'x'; 4095]];
            let target = targets[usize::try_from(random.below(4)).unwrap()];
            control(Link { target: LinkTarget::new(target).unwrap() })
        }
        C::StatSpace(_) => {
            let space = Space { total: 9, free: 8, available: 7, files_total: 6, files_free: 5 };
            control(SpaceStated { space })
        }
        C::XattrGet(_) => answer::<ServerControl>(XattrValue {}, vec![1; 100]),
        C::XattrList(_) => {
            let mut names = Vec::new();
            encode_list(&XattrName::new("user.x").unwrap(), &mut names);
            answer::<ServerControl>(XattrNames {}, names)
        }
        C::Allocate(_)
        | C::Unlock(_)
        | C::CancelLock(_)
        | C::Revoke(_)
        | C::MakeDirectory(_)
        | C::Remove(_)
        | C::Rename(_)
        | C::Symlink(_)
        | C::HardLink(_)
        | C::XattrSet(_)
        | C::XattrRemove(_) => control(Done {}),
        _ => return None,
    })
}

/// A page of a listing: mostly it ends after some, sometimes its cookies go round in a circle or go on for ever.
fn listing(cookie: Option<Cookie>, random: &mut Seed) -> Answer {
    let page = cookie.map_or(0, |cookie| cookie.0[0]);
    let next = match random.below(10) {
        0..7 => (page < 3).then(|| page + 1),
        7 => Some(page % 2 + 1),
        8 => Some(page),
        _ => Some(page.wrapping_add(1)),
    };
    let mut entries = Vec::new();
    for _ in 0..random.below(5) {
        let name = format!("entry-{page}-{}", random.below(1000));
        let name = bowline::model::FileName::new(name).unwrap();
        encode_list(&DirectoryEntry { name, kind: FileKind::File, attributes: None }, &mut entries);
    }
    let next = next.map(|page| Cookie([page; 24]));
    answer::<ServerControl>(Listed { next }, entries)
}

fn right_data(asked: &ClientData, written: u32) -> Option<Answer> {
    let stability = Stability::Received;
    Some(match asked {
        ClientData::Ping(_) => answer::<ServerData>(Pong {}, Vec::new()),
        ClientData::Read(read) => {
            let left = (1_u64 << 20).saturating_sub(read.offset).min(u64::from(read.len));
            answer::<ServerData>(ReadDone {}, vec![0xab; usize::try_from(left).unwrap()])
        }
        ClientData::Write(_) => answer::<ServerData>(WriteDone { written, stability }, Vec::new()),
        ClientData::Append(_) => {
            answer::<ServerData>(AppendDone { offset: 0, written, stability }, Vec::new())
        }
        _ => return None,
    })
}

fn key(random: &mut Seed) -> ResumeKey {
    ResumeKey {
        file_id: OpenId(random.next()),
        time_stamp_us: random.next(),
        process_id: 1,
        generation: 1,
        secret: random.bytes().unwrap(),
    }
}
