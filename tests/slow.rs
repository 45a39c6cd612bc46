//! Whoever sends slowly, or stops in the middle of something: before it is known it has five seconds for everything, and
//! then as long as it gives signs of life. What is half there is not executed, and nobody leaves a record half sent.
//!
//! Two servers of other people lost whole connections to this: a call that was given up left half a frame on its
//! connection, and everything behind it was read as something else.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a panic fails the test, and one of them measures a limit in time"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, LineConfig, OpenOptions, Peer, Session, SessionEvent};
use bowline::model::{Create, CreateId, ExportPath, HandleId, Limits, OpenMode, Protection, PublicKey};
use bowline::net::{SystemEntropy, Via, socket};
use bowline::secure::{Identity, SessionInitiator};
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use bowline::wire::control::{Open, Stat};
use bowline::wire::data::{Ping, Pong, Read, Write};
use bowline::wire::hello::SessionOffer;
use bowline::wire::{ClientControl, ClientData, ServerControl, ServerData};
use support::raw::{Channel, Odd, RawClient, RawSession};
use support::recorder::{Label, Recorder};
use support::{EXPORT, LINE_1, LONG, World, new_identity, pattern};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

const FILE_LEN: usize = 1 << 20;

/// A server in this process and a client that it knows.
struct Place {
    server: Server,
    key: PublicKey,
    identity: Arc<Identity>,
    folder: TempDir,
}

impl Place {
    fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), pattern(FILE_LEN)).unwrap();
        let (own, identity) = (new_identity(), new_identity());
        let key = own.public();
        let entry = format!(
            "[[client]]\nkey = \"{}\"\nname = \"client\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\n",
            identity.public()
        );
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let config = ServerConfig::new(own, exports, parse_clients(&entry).unwrap());
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let server = Server::start(ServerConfig { limits, listen, ..config }).unwrap();
        Self { server, key, identity, folder }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("file")).unwrap()
    }

    async fn connect(&self) -> Session {
        let (name, lines) = ("server".to_owned(), vec![LineConfig::new(self.address())]);
        let peer = Peer { name, key: self.key, protection_min: None, lines };
        Client::new(Arc::clone(&self.identity)).unwrap().connect(&peer).await.unwrap()
    }

    /// A session in the test's own hands, with a data channel and the file open.
    async fn slow(&self) -> Slow<'_> {
        let client = RawClient { identity: &self.identity, server: self.key, address: self.address() };
        let mut session = client.start().await;
        let data = client.bind(&session, 1, Protection::Signed).await;
        session.control.send(&open(), 1).await;
        let handle = match session.control.answer().await.1 {
            ServerControl::Opened(opened) => opened.handle,
            other => panic!("{other:?}"),
        };
        Slow { client, session, data, handle }
    }
}

/// Somebody who is known, and slow.
struct Slow<'a> {
    client: RawClient<'a>,
    session: RawSession,
    data: Channel<false>,
    handle: HandleId,
}

fn open() -> ClientControl {
    Open {
        export: EXPORT.parse().unwrap(),
        path: ExportPath::new("file").unwrap(),
        mode: OpenMode::READ_WRITE,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: false,
        create_id: CreateId([1; 16]),
        with_key: false,
        grace_ms: 0,
        guard: false,
    }
    .into()
}

/// Gives signs of life, for as long as it is asked for any.
async fn live(control: &mut Channel<true>) {
    while let Some(received) = control.next().await {
        let message = received.message.unwrap();
        assert!(matches!(message.says(), Some(ServerControl::Ping(Ping {}))), "{message:?}");
        control.send(&ClientControl::from(Pong {}), 0).await;
    }
    panic!("the control channel ends");
}

/// What somebody does whom the server does not know yet.
#[derive(Debug, Clone, Copy)]
enum Manner {
    SaysNothing,
    StopsHalfWay,
    /// A byte, and then another one, for as long as there are any.
    ByteByByte,
    /// All of the hello, and no record behind the server's answer.
    StopsBehindTheHello,
}

/// How long a server listens to somebody like this.
async fn listened(address: SocketAddr, from: IpAddr, manner: Manner, hello: &[u8]) -> Duration {
    let began = Instant::now();
    let mut stream = socket::connect(address, Some(&Via::Address(from))).await.unwrap();
    let at_once = match manner {
        Manner::SaysNothing | Manner::ByteByByte => 0,
        Manner::StopsHalfWay => hello.len() / 2,
        Manner::StopsBehindTheHello => hello.len(),
    };
    stream.write_all(&hello[..at_once]).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let trickling = async {
        let mut pause = interval(Duration::from_millis(80));
        if matches!(manner, Manner::ByteByByte) {
            for byte in hello {
                pause.tick().await;
                if writer.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A reset is an end as well.
        ended = timeout(LONG, reader.read_to_end(&mut answer)) => drop(ended.unwrap()),
        () = trickling => {}
    }
    began.elapsed()
}

/// Five seconds from the moment at which it is admitted, whatever comes meanwhile. The least of several is what the server
/// takes; the others have waited for a processor as well.
#[tokio::test(flavor = "multi_thread")]
async fn t20_before_it_is_known_a_connection_has_five_seconds_however_slowly_it_sends() {
    const SECONDS: Duration = Duration::from_secs(5);
    assert_eq!(Limits::default().handshake, SECONDS);
    let place = Place::start(Limits::default());
    let (_, hello) =
        SessionInitiator::begin(&place.identity, &place.key, SessionOffer::OURS, &mut SystemEntropy).unwrap();
    assert!(hello.len() * 80 > 6000, "byte by byte it would take longer");
    let manners =
        [Manner::SaysNothing, Manner::StopsHalfWay, Manner::ByteByByte, Manner::StopsBehindTheHello];
    let mut slow = JoinSet::new();
    for (kind, manner) in manners.into_iter().enumerate() {
        for number in 0..10 {
            let (address, hello) = (place.address(), hello.clone());
            let from = Ipv4Addr::new(127, 0, 20 + number, 1);
            slow.spawn(async move { (kind, listened(address, from.into(), manner, &hello).await) });
        }
    }
    // Others come in beside them and are served.
    let mut came = 0;
    let mut took = [const { Vec::new() }; 4];
    while !slow.is_empty() {
        if let Some(joined) = slow.try_join_next() {
            let (kind, time) = joined.unwrap();
            took[kind].push(time);
            continue;
        }
        let session = timeout(SECONDS, place.connect()).await.expect("nobody is kept out");
        let file = session.open(EXPORT, "file", &OpenOptions::new().read(true)).await.unwrap();
        assert_eq!(file.read_chunk(0, 100).await.unwrap()[..], pattern(100)[..]);
        file.close().await.unwrap();
        session.close().await;
        came += 1;
    }
    assert!(came > 0);
    for (manner, took) in manners.into_iter().zip(&took) {
        assert_eq!(took.len(), 10);
        let least = *took.iter().min().unwrap();
        println!("{manner:?}: closed after {least:?}");
        assert!(least >= SECONDS, "{manner:?}: {least:?}");
        assert!(least < SECONDS + Duration::from_secs(1), "{manner:?}: {least:?}");
    }
    assert_eq!(place.server.gate().half_open, 0);
    place.server.stop().await;
}

fn impatient() -> Limits {
    let mut limits = Limits::default();
    (limits.ping_idle_after, limits.dead_after_ping) =
        (Duration::from_millis(500), Duration::from_millis(500));
    limits
}

/// It is not executed, its channel ends like every silent one, and its id is as free as it was.
#[tokio::test(flavor = "multi_thread")]
async fn t20_cve_ttrpc_324_astrid_1146_a_record_that_stops_half_way_is_none() {
    let place = Place::start(impatient());
    let Slow { client, mut session, mut data, handle } = place.slow().await;
    let write = ClientData::from(Write { handle, offset: 100 });
    let payload = vec![0xaa; FILE_LEN / 2];
    let frame = data.seal(&Odd::of(&write), 2, &payload);
    data.write(&frame[..frame.len() / 2]).await;
    tokio::select! {
        // It is asked for a sign of life before.
        asked = data.until_closed() => assert_eq!(asked, 1),
        () = live(&mut session.control) => {}
    }
    assert!(place.content() == pattern(FILE_LEN), "nothing of it was written");
    session.control.send(&ClientControl::from(Stat { handle }), 3).await;
    loop {
        match session.control.answer().await {
            (3, ServerControl::Stated(_)) => break,
            (0, ServerControl::Ping(_)) => session.control.send(&ClientControl::from(Pong {}), 0).await,
            other => panic!("{other:?}"),
        }
    }
    let mut again = client.bind(&session, 2, Protection::Signed).await;
    again.send_with(&write, 2, &payload).await;
    let answer = again.answer().await;
    assert!(matches!(answer, (2, ServerData::WriteDone(_))), "{answer:?}");
    let mut content = pattern(FILE_LEN);
    content[100..100 + payload.len()].copy_from_slice(&payload);
    assert!(place.content() == content);
    drop((session, again));
    place.server.stop().await;
}

/// Three times as slowly as a silent channel lives.
#[tokio::test(flavor = "multi_thread")]
async fn t20_a_record_that_comes_slowly_keeps_its_channel_and_nobody_waits_for_it() {
    let place = Place::start(impatient());
    let Slow { mut session, mut data, handle, .. } = place.slow().await;
    let frame = data.seal(&Odd::of(&ClientData::from(Read { handle, offset: 0, len: 1000 })), 2, &[]);
    let trickling = async {
        let mut pause = interval(Duration::from_millis(40));
        for byte in &frame {
            pause.tick().await;
            data.write(&[*byte]).await;
        }
        data.next().await.expect("the channel lives")
    };
    let others = async {
        let other = place.connect().await;
        let file = other.open(EXPORT, "file", &OpenOptions::new().read(true)).await.unwrap();
        loop {
            let reading = timeout(Duration::from_secs(5), file.read_chunk(0, 1000));
            assert_eq!(reading.await.expect("nobody waits").unwrap()[..], pattern(1000)[..]);
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::select! {
        answer = trickling => answer,
        () = live(&mut session.control) => panic!("it never ends"),
        () = others => panic!("it never ends"),
    };
    assert_eq!((answer.request.0, answer.payload.as_deref()), (2, Some(&pattern(1000)[..])));
    drop((session, data));
    place.server.stop().await;
}

/// What a caller who gives up has asked for may be half in the kernel's hands, and half of an answer may be there: the
/// rest follows, and everything behind it is read as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn t20_cve_ttrpc_324_astrid_1146_a_call_that_is_given_up_in_a_record_leaves_none_half_sent() {
    const PIECE: usize = 512 << 10;
    const READS: usize = 2;
    const PIECES: usize = 16;
    let world = World::start(&vec![0; PIECE * PIECES]).await;
    let recorder = Recorder::narrow(LINE_1, world.addresses[0]).await.unwrap();
    let mut peer = world.peer_on(0);
    peer.lines[0].address = recorder.address();
    // All of it is in flight on one channel: more than a kernel takes that has nowhere to put it.
    let mut limits = Limits::default();
    limits.channel_bytes = limits.bytes;
    assert!(limits.bytes >= u64::try_from(PIECE * PIECES).unwrap());
    let client = Client::new(Arc::clone(&world.identity)).unwrap().with_limits(limits);
    let session = client.connect(&peer).await.unwrap();
    session.all_lines_up(LONG).await.unwrap();
    let file = Arc::new(world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap());
    let mut events = session.events();
    let at = |piece: usize| u64::try_from(piece * PIECE).unwrap();
    let answered = |labels: &[Label]| labels.iter().map(|label| label.to_client_len).sum::<u64>();
    for round in 1..=6_u8 {
        let before = answered(&recorder.labels());
        let mut calls = JoinSet::new();
        for piece in 0..READS {
            let file = Arc::clone(&file);
            calls.spawn(async move { file.read_chunk(at(piece), PIECE).await.map(drop) });
        }
        // Answers are on their way when the line stops.
        recorder.until(|labels| answered(labels) > before + 100_000).await.unwrap();
        recorder.freeze(true);
        for piece in READS..PIECES {
            let file = Arc::clone(&file);
            calls.spawn(async move { file.write_at(at(piece), &vec![round; PIECE]).await });
        }
        let in_kernel = until_full(recorder.address()).await;
        assert!(in_kernel < PIECE * (PIECES - READS), "the kernel has all of it: {in_kernel} bytes");
        calls.shutdown().await;
        recorder.freeze(false);
        // Whatever became of each, it is whole once the server is through with it (a read that it executes beside a write may
        // see half of that), and what comes behind them is right.
        let mut content = vec![0; PIECE * PIECES];
        timeout(LONG, async {
            loop {
                assert_eq!(file.read_at(0, &mut content).await.unwrap(), content.len());
                assert!(content.iter().all(|byte| *byte <= round), "bytes that nobody wrote");
                if content.chunks(PIECE).all(|piece| piece.iter().all(|byte| *byte == piece[0])) {
                    break;
                }
            }
        })
        .await
        .expect("a write in two parts");
        file.write_at(at(PIECES - 1), &vec![round; PIECE]).await.unwrap();
        assert!(file.read_chunk(at(PIECES - 1), PIECE).await.unwrap().iter().all(|byte| *byte == round));
    }
    assert_eq!(events.try_recv(), Err::<SessionEvent, _>(TryRecvError::Empty), "no channel was lost");
}

/// Waits until nobody takes what is sent to this address any more, and tells how many bytes the kernel holds of it.
async fn until_full(address: SocketAddr) -> usize {
    let full = async {
        let mut before = 0;
        loop {
            let (unsent, held) = in_kernel(address);
            // Twice the same: the sender is at rest.
            if unsent > 0 && held == before {
                return held;
            }
            before = held;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, full).await.expect("the line is full")
}

/// Of the connections to this address: bytes that their senders' kernels hold, and with them those that wait to be read.
fn in_kernel(address: SocketAddr) -> (usize, usize) {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let hex = |digits: &str| usize::from_str_radix(digits, 16).unwrap();
    let (mut unsent, mut unread) = (0, 0);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state) = (fields[1], fields[2], fields[3]);
        let (tx, rx) = fields[4].split_once(':').unwrap();
        // Established ones alone: a listener counts its backlog there.
        if state == "01" && remote.ends_with(&port) {
            unsent += hex(tx);
        } else if state == "01" && local.ends_with(&port) {
            unread += hex(rx);
        }
    }
    (unsent, unsent + unread)
}
