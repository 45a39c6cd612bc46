//! What somebody can do to a server without being known to it: garbage, silence, failed handshakes and binds, in any
//! number. Others go on, and everything is as it was when it is over.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a panic fails the test, and the clock says how many lines a log may have"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bowline::client::{
    ChannelState, Client, Error, File, LineConfig, OpenOptions, Peer, Session, server_key,
};
use bowline::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Limits, LineRole, Locator, Protection, PublicKey, SessionId,
    Suite,
};
use bowline::net::{SystemEntropy, Via, exchange, socket};
use bowline::secure::mac1::mac1;
use bowline::secure::{BindInitiator, Identity, SessionInitiator};
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use bowline::wire::control::BindSecret;
use bowline::wire::hello::{BindOffer, EnrolOffer, Hello, Offer, SessionOffer, checked, prologue};
use support::{EXPORT, LONG, Searched, World, new_identity, pattern};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];
/// Attackers at work at the same time.
const ATTACKERS: u32 = 8;

/// An address of the loopback network `number`, which is a /24 of its own.
fn network(number: u32) -> IpAddr {
    Ipv4Addr::new(127, 0, u8::try_from(number).unwrap(), 1).into()
}

async fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    socket::connect(to, Some(&Via::Address(from))).await
}

/// Sends bytes from an address and tells what comes back until the server closes. A connection that is reset before it
/// has taken the bytes is closed as well.
async fn answer_to(from: IpAddr, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let asking = async {
        let Ok(mut stream) = connect_from(from, to).await else { return };
        if stream.write_all(bytes).await.is_ok() {
            drop(stream.read_to_end(&mut answer).await);
        }
    };
    tokio::time::timeout(LONG, asking).await.expect("the server closes what it refuses");
    answer
}

/// Sends all hellos from `networks` networks, by several attackers; not one is answered.
async fn flood(to: SocketAddr, networks: u32, hellos: Vec<Vec<u8>>) {
    let hellos = Arc::new(hellos);
    let mut attackers = JoinSet::new();
    for attacker in 0..ATTACKERS {
        let hellos = Arc::clone(&hellos);
        attackers.spawn(async move {
            for at in (attacker as usize..hellos.len()).step_by(ATTACKERS as usize) {
                let from = network(20 + at as u32 % networks);
                assert!(answer_to(from, to, &hellos[at]).await.is_empty(), "a refusal has no bytes");
            }
        });
    }
    while let Some(attacker) = attackers.join_next().await {
        attacker.unwrap();
    }
}

/// Garbage of three kinds: random bytes; our form with a wrong check; the right check over a Noise message that is none.
fn garbage(server: &PublicKey, count: usize) -> [Vec<Vec<u8>>; 3] {
    let noise = pattern(96 * count);
    let prologue = prologue(&Offer::Session(SessionOffer::OURS));
    let with_check = |at: usize, key: &PublicKey| {
        let mut bytes = checked(&prologue, &noise[at * 96..][..96]);
        bytes.extend(mac1(key, &bytes));
        bytes
    };
    [
        (0..count).map(|at| noise[at * 96..][..96].to_vec()).collect(),
        (0..count).map(|at| with_check(at, &PublicKey([9; 32]))).collect(),
        (0..count).map(|at| with_check(at, server)).collect(),
    ]
}

/// Far above what anything takes beside a flood, and far below what being kept out would look like.
const STILL: Duration = Duration::from_secs(5);

/// A client that reads and writes until it is told to stop; each operation must succeed, and soon.
struct Busy {
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Busy {
    fn start(file: File) -> Self {
        let (stop, operations) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&operations));
        let task = tokio::spawn(async move {
            let mut bytes = vec![0; 20_000];
            while !is_over.load(Ordering::SeqCst) {
                let operation = async {
                    file.write_at(0, &pattern(20_000)).await.unwrap();
                    assert_eq!(file.read_at(0, &mut bytes).await.unwrap(), 20_000);
                };
                tokio::time::timeout(STILL, operation).await.expect("no operation stands still");
                assert_eq!(bytes, pattern(20_000));
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { stop, operations, task }
    }

    /// How often it read and wrote.
    async fn stopped(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.operations.load(Ordering::SeqCst)
    }
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "never: {what}");
}

/// A server in this process, of which more can be seen, and a client that it knows.
struct Place {
    folder: TempDir,
    server: Server,
    key: PublicKey,
    identity: Arc<Identity>,
    _searched: Searched,
}

impl Place {
    /// With bounds that differ from the usual ones.
    fn start(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), pattern(20_000)).unwrap();
        let (own, identity) = (new_identity(), new_identity());
        let (key, searched) = (own.public(), Searched::new([&own, &identity]));
        let entry = format!(
            "[[client]]\nkey = \"{}\"\nname = \"client\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\n",
            identity.public()
        );
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let config = ServerConfig::new(own, exports, parse_clients(&entry).unwrap());
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let server = Server::start(ServerConfig { limits, listen, ..config }).unwrap();
        Self { folder, server, key, identity, _searched: searched }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    fn peer(&self, from: &[IpAddr]) -> Peer {
        let line = |&from| LineConfig {
            address: self.address(),
            via: Some(Via::Address(from)),
            role: LineRole::Both,
            protection: None,
        };
        Peer {
            name: "server".into(),
            key: self.key,
            protection_min: None,
            lines: from.iter().map(line).collect(),
        }
    }

    async fn connect(&self, from: &[IpAddr]) -> Result<Session, Error> {
        let session = Client::new(Arc::clone(&self.identity)).unwrap().connect(&self.peer(from)).await?;
        session.all_lines_up(LONG).await?;
        Ok(session)
    }

    async fn all_is_quiet(&self) {
        until("nothing is half-open", || self.server.gate().half_open == 0).await;
        until("no session is left", || self.server.sessions_len() == 0).await;
        assert_eq!((self.server.channels_len(), self.server.opens_len()), (0, 0));
    }

    async fn end(self) {
        tokio::time::timeout(LONG, self.server.stop()).await.unwrap();
        self.folder.close().unwrap();
    }
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn live(session: &Session) -> usize {
    session.channels().iter().filter(|channel| channel.state == ChannelState::Live).count()
}

/// How many lines a log may have about refusals from so many networks: one for each in each minute that has begun.
fn told_at_most(networks: usize, began: Instant) -> usize {
    networks * (1 + usize::try_from(began.elapsed().as_secs() / 60).unwrap())
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_others_go_on_and_come_in_beside_a_flood_of_garbage_and_nothing_stays_of_it() {
    let world = World::start(&pattern(20_000)).await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
    until("all channels are up", || live(&session) == 4).await;
    let (fds, began) = (descriptors(world.pid()), Instant::now());
    let busy = Busy::start(file);
    // A first round brings the allocator to where it stays.
    let [random, unchecked, no_noise] = garbage(&world.server_key, 1000);
    flood(world.addresses[0], 40, [&random[..200], &unchecked[..200], &no_noise[..200]].concat()).await;
    // The server closes the last ones only after it was told.
    until("the first round is over", || descriptors(world.pid()) <= fds).await;
    let (memory, before) = (resident(world.pid()), busy.operations.load(Ordering::SeqCst));

    let flooding = tokio::spawn(flood(world.addresses[0], 40, [random, unchecked, no_noise].concat()));
    // Another client comes in beside it, several times.
    let (mut came, peer) = (0, world.peer(BOTH));
    while !flooding.is_finished() || came == 0 {
        let client = Client::new(Arc::clone(&world.identity)).unwrap();
        let other = tokio::time::timeout(STILL, client.connect(&peer))
            .await
            .expect("set-ups are not kept out")
            .unwrap();
        let read = world.open(&other, &OpenOptions::new().read(true)).await.unwrap();
        assert_eq!(read.read_chunk(0, 20_000).await.unwrap()[..], pattern(20_000)[..]);
        read.close().await.unwrap();
        other.close().await;
        came += 1;
    }
    flooding.await.unwrap();
    let operations = busy.stopped().await;
    assert!(operations > before && session.channels().iter().all(|channel| channel.repeats == 0));
    assert_eq!(session.channels().len(), 4, "no channel was lost or bound again");

    until("descriptors are back", || descriptors(world.pid()) <= fds).await;
    let grown = resident(world.pid()).saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB have stayed");
    // The log at its usual level has a line for each network and minute, and a client's own network is one.
    let lines = world
        .log()
        .lines()
        .filter(|line| !line.contains("DEBUG") && line.contains("connection refused"))
        .count();
    assert!((1..=told_at_most(41, began)).contains(&lines), "{lines} lines");
}

/// Of every pattern: who knows the server's key can have it answer, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn t27_no_diffie_hellman_is_done_for_a_hello_with_a_wrong_check() {
    let place = Place::start(|limits| {
        limits.handshake_burst = 1_000_000;
        (limits.enrol_burst, limits.enrol_burst_per_network) = (1000, 1000);
    });
    let [random, unchecked, no_noise] = garbage(&place.key, 1000);
    flood(place.address(), 4, [random, unchecked].concat()).await;
    let of_patterns = |keys: [PublicKey; 2]| -> Vec<Vec<u8>> {
        let bind = |at: usize| {
            let (locator, nonce) = (Locator([3; 16]), AttemptNonce([u8::try_from(at % 256).unwrap(); 16]));
            let (kind, number) = (ChannelKind::Data, ChannelNumber(7));
            let (protection, suite) = (Protection::Sealed, Suite::ChaCha20Poly1305);
            checked(
                &prologue(&Offer::Bind(BindOffer { locator, number, nonce, kind, protection, suite })),
                &[8; 48],
            )
        };
        let enrolment = |_| checked(&prologue(&Offer::Enrol(EnrolOffer::OURS)), &[9; 32]);
        let with = |bytes: Vec<u8>, key| [&bytes[..], &mac1(key, &bytes)].concat();
        let [key, enrolment_key] = &keys;
        (0..50).flat_map(|at| [with(bind(at), key), with(enrolment(at), enrolment_key)]).collect()
    };
    // An enrolment's check has no key; the server's own is as wrong there as any.
    flood(place.address(), 4, of_patterns([PublicKey([9; 32]), place.key])).await;
    until("all have come", || place.server.gate().counts.admitted == 2100).await;
    assert_eq!(place.server.gate().handshake_steps, 0);
    // The counter counts.
    flood(place.address(), 4, no_noise[..50].to_vec()).await;
    assert_eq!(place.server.gate().handshake_steps, 50);
    for (at, hello) in of_patterns([place.key, NO_KEY]).iter().enumerate() {
        let answer = answer_to(network(20 + at as u32 % 4), place.address(), hello).await;
        assert_eq!(
            answer.is_empty(),
            at % 2 == 0,
            "a key is shown to whoever asks, and a bind to nothing refused"
        );
    }
    assert_eq!(place.server.gate().handshake_steps, 150);
    place.all_is_quiet().await;
    place.end().await;
}

/// What the check of an enrolment is made with.
const NO_KEY: PublicKey = PublicKey([0; 32]);

/// Each of these is somebody who has proven nothing: few for each network, and few for all together.
#[tokio::test(flavor = "multi_thread")]
async fn t27_a_network_gets_few_enrolments_and_all_together_few_more() {
    let place = Place::start(|limits| (limits.enrol_rate, limits.enrol_rate_per_network) = (0, 0));
    let Limits { enrol_burst: all, enrol_burst_per_network: own, .. } = Limits::default();
    let mut shown = Vec::new();
    for number in 20..26 {
        let mut count = 0;
        for _ in 0..own + 3 {
            let via = Via::Address(network(number));
            match server_key(place.address(), Some(&via), LONG).await {
                Ok(key) => {
                    assert_eq!(key, place.key);
                    count += 1;
                }
                Err(error) => assert!(matches!(error, Error::KeyNotShown { .. }), "{error}"),
            }
        }
        shown.push(count);
    }
    assert_eq!((all, own), (16, 4));
    assert_eq!(shown, [4, 4, 4, 4, 0, 0], "what one network is refused is left for the others");
    assert_eq!(place.server.gate().handshake_steps, u64::from(all), "the rest is refused before any work");
    // Who knows the key already is served as always, also from there.
    place.connect(&[network(20)]).await.unwrap().close().await;
    place.all_is_quiet().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_a_network_without_tokens_is_closed_unread_and_the_others_are_not() {
    let place = Place::start(|limits| limits.handshake_rate = 0);
    let burst = usize::try_from(Limits::default().handshake_burst).unwrap();
    let [random, ..] = garbage(&place.key, burst + 500);
    flood(place.address(), 1, random).await;
    let counts = place.server.gate().counts;
    assert_eq!((counts.admitted, counts.without_token), (burst as u64, 500));
    assert_eq!((place.server.tokens(network(20)), place.server.tokens(network(21))), (0, 256));
    let refused = place.connect(&[network(20)]).await.unwrap_err();
    assert!(matches!(refused, Error::HandshakeRefused { .. } | Error::Unreachable { .. }), "{refused}");
    place.connect(&[network(21)]).await.unwrap().close().await;
    assert_eq!(place.server.tokens(network(21)), 256, "whoever proves itself pays nothing");
    place.all_is_quiet().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_silent_connections_do_not_keep_others_out() {
    let place = Place::start(|limits| {
        limits.handshake = Duration::from_secs(600);
        limits.handshake_burst = 2000;
    });
    let mut silent = Vec::new();
    // As many as it takes: each newcomer above half of the cap may cost the attacker one of his own.
    let mut at = 0;
    while place.server.gate().half_open < Limits::HALF_OPEN_MAX {
        // One that is drawn at once may be reset before it is tuned.
        silent.extend(connect_from(network(20 + at % 8), place.address()).await);
        at += 1;
        assert!(at < 20_000, "the cap is never reached");
    }
    for _ in 0..20 {
        // One newcomer in 1,025 is drawn itself.
        let session = match place.connect(&[network(200)]).await {
            Ok(session) => session,
            Err(_) => place.connect(&[network(200)]).await.unwrap(),
        };
        session.close().await;
        silent.extend(connect_from(network(20), place.address()).await);
        assert!(place.server.gate().half_open <= Limits::HALF_OPEN_MAX);
    }
    assert!(place.server.gate().counts.drawn > 0);
    drop(silent);
    place.all_is_quiet().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_a_network_holds_no_more_than_its_share() {
    let place = Place::start(|limits| {
        limits.handshake = Duration::from_secs(600);
        limits.handshake_burst = 2000;
    });
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.extend(connect_from(network(20), place.address()).await);
    }
    until("all have come", || {
        let counts = place.server.gate().counts;
        counts.admitted + counts.drawn >= 600
    })
    .await;
    assert_eq!(place.server.gate().half_open, Limits::HALF_OPEN_SHARE);
    // The server itself closes those that it draws: they hear it at once, not after their time.
    let is_closed = |stream: &TcpStream| !matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    until("all that were drawn are closed", || {
        silent.iter().filter(|stream| !is_closed(stream)).count() == Limits::HALF_OPEN_SHARE
    })
    .await;
    drop(silent);
    place.all_is_quiet().await;
    place.end().await;
}

/// A server that counted a connection before it was known, and not its end on an error path, let nobody in any more
/// after a while. Here every early end is tried, with tokens that do not come back by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_31711_counters_are_back_after_every_early_end() {
    let place = Place::start(|limits| {
        // Long enough for every honest client below, on a machine that is busy with other things too.
        limits.handshake = Duration::from_secs(3);
        limits.handshake_burst = 5000;
        limits.handshake_rate = 0;
    });
    let from = network(20);
    let begin = |identity: &Identity| {
        SessionInitiator::begin(identity, &place.key, SessionOffer::OURS, &mut SystemEntropy).unwrap()
    };
    let hello = begin(&place.identity).1;
    let mut paid = 0;
    // Cut behind each byte of the first flight: closed by the client.
    for cut in 0..=hello.len() {
        let mut stream = connect_from(from, place.address()).await.unwrap();
        stream.write_all(&hello[..cut]).await.unwrap();
        drop(stream);
        paid += 1;
    }
    // And silent until the server's time is over.
    let mut silent = JoinSet::new();
    for cut in 0..=hello.len() {
        let (address, part) = (place.address(), hello[..cut].to_vec());
        silent.spawn(async move { answer_to(from, address, &part).await.len() });
        paid += 1;
    }
    let answers = silent.join_all().await;
    assert_eq!(answers.iter().filter(|len| **len > 0).count(), 1, "the whole hello alone is answered");
    // Wrong in each way.
    let [random, unchecked, no_noise] = garbage(&place.key, 20);
    let unlisted = begin(&new_identity()).1;
    for bytes in random.iter().chain(&unchecked).chain(&no_noise).chain([&unlisted]) {
        assert!(answer_to(from, place.address(), bytes).await.is_empty());
        paid += 1;
    }
    // A whole handshake, and nothing, half a record or garbage behind it.
    for behind in [&b""[..], &[1; 20], &[1; 4096]] {
        let mut stream = connect_from(from, place.address()).await.unwrap();
        let (initiator, hello) = begin(&place.identity);
        initiator.finish(&exchange(&mut stream, &hello).await.unwrap()).unwrap();
        stream.write_all(behind).await.unwrap();
        drop(stream);
        paid += 1;
    }
    until("nothing is half-open", || place.server.gate().half_open == 0).await;
    assert_eq!(place.server.tokens(from), 5000 - paid, "each has cost one token, and no more");
    for _ in 0..20 {
        place.connect(&[from]).await.unwrap().close().await;
    }
    assert_eq!(place.server.tokens(from), 5000 - paid, "and whoever proved itself nothing");
    place.all_is_quiet().await;

    // The server's own end: it does not wait for connections that say nothing.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(connect_from(from, place.address()).await.unwrap());
    }
    until("all have come", || place.server.gate().half_open >= 50).await;
    place.end().await;
}

/// A bind that failed made the server end the session that it was for.
#[tokio::test(flavor = "multi_thread")]
async fn t28_cve_2026_31476_ten_thousand_failed_binds_at_one_session_that_notices_nothing() {
    const BINDS: usize = 10_000;
    let world = World::start(&pattern(20_000)).await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
    let recorded = world.data_recordings(0).remove(0);
    let own = Hello::decode(&recorded.to_server[..hello_len(&recorded.to_server)]).unwrap();
    let Offer::Bind(offer) = own.offer else { panic!("a bind's offer") };
    let dead = world.connect(BOTH).await;
    let dead_bind = world.data_recordings(0).pop().unwrap();
    let Offer::Bind(dead_offer) =
        Hello::decode(&dead_bind.to_server[..hello_len(&dead_bind.to_server)]).unwrap().offer
    else {
        panic!("a bind's offer")
    };
    assert_ne!(dead_offer.locator, offer.locator);
    dead.close().await;
    world.until_log_says("session ended").await;

    let (before, id, mut events) = (session.channels(), session.id(), session.events());
    let busy = Busy::start(file);
    let stranger = new_identity();
    let (own_identity, key) = (Arc::clone(&world.identity), world.server_key);
    let replay = recorded.to_server[..hello_len(&recorded.to_server)].to_vec();
    let hellos = tokio::task::spawn_blocking(move || {
        (0..BINDS)
            .map(|at| {
                let mut nonce = [7; 16];
                nonce[..8].copy_from_slice(&(at as u64).to_le_bytes());
                let kind = if at % 2 == 0 { ChannelKind::Data } else { ChannelKind::Control };
                let fresh =
                    BindOffer { number: ChannelNumber(900 + at as u32), nonce: AttemptNonce(nonce), ..offer };
                let protection = Protection::Sealed;
                let (identity, offer) = match at % 5 {
                    // The session's own client, without its secret.
                    0 => (&own_identity, BindOffer { kind, protection, ..fresh }),
                    // Another user.
                    1 => (&stranger, BindOffer { kind, protection, ..fresh }),
                    2 => (&own_identity, BindOffer { locator: Locator(nonce), ..fresh }),
                    3 => (&own_identity, BindOffer { locator: dead_offer.locator, ..fresh }),
                    _ => return replay.clone(),
                };
                let (secret, session) = (BindSecret([7; 32]), SessionId([7; 16]));
                BindInitiator::begin(identity, &key, &secret, session, offer, &mut SystemEntropy).unwrap().1
            })
            .collect::<Vec<_>>()
    })
    .await
    .unwrap();
    // So many networks that none runs dry: each bind is refused for what it is.
    let began = Instant::now();
    flood(world.addresses[0], 100, hellos).await;

    assert!(busy.stopped().await > 0);
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty), "the session has heard of nothing");
    assert_eq!(session.id(), id);
    let states = |channels: &[bowline::client::ChannelStatus]| -> Vec<_> {
        channels
            .iter()
            .map(|channel| (channel.number, channel.line, channel.state, channel.repeats))
            .collect()
    };
    assert_eq!(states(&session.channels()), states(&before));
    let log = world.log();
    assert!(!log.contains("its network has failed too often"), "the buckets have decided nothing");
    for why in ["UnknownLocator", "does not verify", "NumberUsed"] {
        assert!(log.contains(why), "{why} was never the reason");
    }
    let is_told = |line: &&str| !line.contains("DEBUG") && line.contains("connection refused");
    let told = log.lines().filter(is_told).count();
    assert!((1..=told_at_most(100, began)).contains(&told), "{told} lines about {BINDS} refusals");
}

/// The length of the hello that begins what a client has sent.
fn hello_len(sent: &[u8]) -> usize {
    let part = |at: usize| usize::from(u16::from_le_bytes([sent[at], sent[at + 1]]));
    let noise = 8 + part(6);
    noise + 2 + part(noise) + 16
}

/// A channel was used by a request while another thread unbound it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cve_2026_23226_a_storm_of_binds_requests_and_ends_leaves_nothing() {
    let rounds = std::env::var("BOWLINE_STORM_ROUNDS").map_or(25, |rounds| rounds.parse::<usize>().unwrap());
    let place = Arc::new(Place::start(|_| ()));
    let mut storm = JoinSet::new();
    for task in 0..4_u32 {
        let place = Arc::clone(&place);
        storm.spawn(async move {
            let from = [network(50 + task), network(60 + task), network(70 + task)];
            for round in 0..rounds {
                let client = Client::new(Arc::clone(&place.identity)).unwrap();
                // Requests begin while lines are still being bound.
                let session = client.connect(&place.peer(&from)).await.unwrap();
                let options = OpenOptions::new().read(true).write(true);
                let file = session.open(EXPORT, "file", &options).await.unwrap();
                let mut requests = JoinSet::new();
                let file = Arc::new(file);
                for at in 0..16_u64 {
                    let file = Arc::clone(&file);
                    requests.spawn(async move {
                        if at % 2 == 0 {
                            file.write_at(at * 1000, &[7; 1000]).await
                        } else {
                            file.read_chunk(at * 1000, 1000).await.map(drop)
                        }
                    });
                }
                match round % 3 {
                    // The end comes in the middle of it all: what is under way then has no outcome.
                    0 => {
                        requests.join_next().await.unwrap().unwrap().unwrap();
                        session.close().await;
                    }
                    1 => {
                        for outcome in requests.join_all().await {
                            outcome.unwrap();
                        }
                        Arc::into_inner(file).unwrap().close().await.unwrap();
                        session.close().await;
                    }
                    _ => {
                        requests.abort_all();
                        drop((file, session));
                    }
                }
            }
        });
    }
    while let Some(task) = storm.join_next().await {
        task.unwrap();
    }
    until("nothing is half-open, no channel is left", || {
        place.server.gate().half_open == 0 && place.server.channels_len() == 0
    })
    .await;
    for task in 0..4 {
        for from in [network(50 + task), network(60 + task), network(70 + task)] {
            until("the tokens are back", || place.server.tokens(from) == Limits::default().handshake_burst)
                .await;
        }
    }
    let place = Arc::into_inner(place).unwrap();
    // What is left waits for its grace, because its end came without a farewell or with files open.
    // A client that is not allowed any more holds nothing.
    place.server.set_policy(bowline::model::Policy::default());
    place.all_is_quiet().await;
    place.end().await;
}
