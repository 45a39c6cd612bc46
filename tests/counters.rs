//! What a server counts, word by word: each reason for which sessions, channels and opens end and each way in which a
//! handshake ends is brought about once, and its count rises. `metrics.rs` shows that watchers are told the same.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, Error, File, LineConfig, OpenOptions, Peer, Session, server_key};
use bowline::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Limits, Policy, Protection, ProtectionMinima, PublicKey, Suite,
};
use bowline::net::{SystemEntropy, Via, exchange, socket};
use bowline::secure::mac1::mac1;
use bowline::secure::{BindInitiator, HandshakeError, Identity, SessionInitiator};
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use bowline::session::server::StatusQuery;
use bowline::wire::hello::{BindOffer, Offer, SessionOffer, checked, prologue};
use support::raw::RawClient;
use support::{EXPORT, LONG, new_identity, pattern};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A server in this process, with limits that are reached soon, and two clients that it knows.
struct Place {
    server: Server,
    identity: Arc<Identity>,
    clients: [Arc<Identity>; 2],
    folder: TempDir,
}

fn policy(clients: &[Arc<Identity>]) -> Policy {
    let entry = |(at, client): (usize, &Arc<Identity>)| {
        format!(
            "[[client]]\nkey = \"{}\"\nname = \"client-{at}\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\nprotection = \"clear\"\n",
            client.public()
        )
    };
    parse_clients(&clients.iter().enumerate().map(entry).collect::<String>()).unwrap()
}

impl Place {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), pattern(5000)).unwrap();
        let (identity, clients) = (new_identity(), [new_identity(), new_identity()]);
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let mut config = ServerConfig::new(Arc::clone(&identity), exports, policy(&clients));
        config.listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        config.protection_min = Protection::Clear;
        let limits = &mut config.limits;
        // Whoever is honest answers within these also where the machine has much else to do.
        (limits.ping_after, limits.ping_idle_after) =
            (Duration::from_millis(300), Duration::from_millis(300));
        (limits.dead_after_ping, limits.handshake) = (Duration::from_secs(2), Duration::from_secs(2));
        (limits.grace_default, limits.orphan_age_max) = (Duration::from_secs(1), Duration::from_secs(1));
        (limits.lapsed_per_client, limits.descriptors_max) = (1, 2);
        limits.handshake_burst = 10_000;
        let server = Server::start(config).unwrap();
        Self { server, identity, clients, folder }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    async fn try_connect(&self, identity: &Arc<Identity>, protection: Protection) -> Result<Session, Error> {
        let mut line = LineConfig::new(self.address());
        line.protection = Some(protection);
        let key = self.identity.public();
        let peer = Peer { name: "server".into(), key, protection_min: None, lines: vec![line] };
        Client::new(Arc::clone(identity)).unwrap().connect(&peer).await
    }

    async fn connect(&self, client: usize, protection: Protection) -> Session {
        self.try_connect(&self.clients[client], protection).await.unwrap()
    }

    fn raw(&self) -> RawClient<'_> {
        RawClient { identity: &self.clients[0], server: self.identity.public(), address: self.address() }
    }

    async fn open(&self, session: &Session, name: &str, grace: Duration) -> File {
        fs::write(self.folder.path().join(name), name).unwrap();
        let options = OpenOptions::new().read(true).write(true).exclusive().grace(grace);
        session.open(EXPORT, name, &options).await.unwrap()
    }

    /// Leaves an open behind whose grace is over at once.
    async fn leave(&self, name: &str) {
        let session = self.connect(0, Protection::Sealed).await;
        self.open(&session, name, Duration::from_millis(1)).await.leave_open();
        session.close().await;
    }

    fn sessions(&self, why: &str) -> u64 {
        of(&self.server.counts().session_ends, why)
    }

    fn channels(&self, why: &str) -> u64 {
        of(&self.server.counts().channel_losses, why)
    }

    fn opens(&self, why: &str) -> u64 {
        of(&self.server.counts().open_ends, why)
    }

    fn handshakes(&self, how: &str) -> u64 {
        of(&self.server.counts().handshakes, how)
    }

    /// Sends bytes and waits until the server closes, whatever it says.
    async fn refuses(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        drop(tokio::time::timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("it closes"));
    }
}

fn of(counts: &[(&'static str, u64)], word: &str) -> u64 {
    counts.iter().find(|(own, _)| *own == word).unwrap_or_else(|| panic!("{word} is counted")).1
}

/// Waits until something is counted.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_for_which_a_channel_or_a_session_ends_is_counted() {
    let place = Place::start();
    let session = place.connect(1, Protection::Sealed).await;
    session.all_lines_up(LONG).await.unwrap();
    session.close().await;
    until("closed", || place.sessions("closed") == 1).await;
    until("farewell", || place.channels("farewell") >= 1).await;

    // One that is gone without a word, and is not kept longer than its grace.
    drop(place.raw().start().await);
    until("broken", || place.channels("broken") >= 1).await;
    until("expired", || place.sessions("expired") >= 1).await;

    let mut offender = place.raw().start().await;
    offender.control.write(&[0xff; 256]).await;
    until("offence", || place.channels("offence") == 1).await;
    // One that answers nothing, and keeps its connection.
    let silent = place.raw().start().await;
    until("silent", || place.channels("silent") >= 1).await;
    drop((offender, silent));

    // What is weaker than is now demanded is closed, and its client comes with more.
    let signed = place.connect(1, Protection::Signed).await;
    signed.all_lines_up(LONG).await.unwrap();
    let exports = [(EXPORT.parse().unwrap(), Protection::Clear)].into();
    place.server.set_protection(ProtectionMinima { server: Protection::Sealed, exports });
    until("closed on purpose", || place.channels("closed") >= 1).await;
    place.server.set_policy(policy(&place.clients[..1]));
    until("not allowed", || place.sessions("not_allowed") == 1).await;
    until("with its session", || place.channels("session_ended") >= 1).await;

    let last = place.connect(0, Protection::Sealed).await;
    place.server.set_identities(new_identity(), None);
    until("key retired", || place.sessions("key_retired") >= 1).await;
    drop((signed, last));
    place.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t18_each_reason_for_which_an_open_ends_without_its_client_is_counted() {
    let place = Place::start();
    let other = place.connect(1, Protection::Sealed).await;
    // Nobody comes back to it.
    place.leave("old").await;
    until("expired", || place.opens("expired") == 1).await;
    // One more than are kept of one client.
    place.leave("first").await;
    place.leave("second").await;
    until("evicted", || place.opens("evicted") == 1).await;
    until("nothing is left", || place.server.opens_len() == 0).await;
    assert_eq!(place.opens("expired"), 2, "the one that was evicted did not expire as well");

    // Somebody else wants it, before nobody has for too long.
    let taken = async {
        for number in 0.. {
            let name = format!("wanted-{number}");
            place.leave(&name).await;
            let options = OpenOptions::new().read(true).exclusive();
            while let Err(busy) = other.open(EXPORT, &name, &options).await {
                assert!(busy.is_retryable(), "{busy}");
            }
            if place.opens("taken_over") > 0 {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, taken).await.expect("somebody gets it in time");

    let held = place.open(&other, "held", Duration::ZERO).await;
    let all = place.server.status(StatusQuery::default()).opens;
    for open in all {
        place.server.release(open.open).unwrap();
    }
    until("released", || place.opens("released") >= 1).await;
    drop(held);

    // More files than descriptors.
    assert_eq!(place.server.descriptors().bounds.open, 2);
    let mut files = Vec::new();
    for number in 0..4 {
        files.push(place.open(&other, &format!("many-{number}"), Duration::ZERO).await);
    }
    for file in &files {
        file.read_at(0, &mut [0; 4]).await.unwrap();
    }
    assert!(place.server.descriptors().evicted >= 2, "{:?}", place.server.descriptors());
    drop((files, other));
    place.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_is_counted_by_direction_and_protection() {
    let place = Place::start();
    let all = [Protection::Sealed, Protection::Signed, Protection::Clear];
    let carried = |of: Protection| {
        let payload = place.server.counts().payload;
        let (_, came, went) = payload.into_iter().find(|(protection, ..)| *protection == of).unwrap();
        (came, went)
    };
    for protection in all {
        let session = place.connect(0, protection).await;
        session.all_lines_up(LONG).await.unwrap();
        let before = all.map(carried);
        let file = session.open(EXPORT, "file", &OpenOptions::new().read(true).write(true)).await.unwrap();
        file.write_at(0, &[7; 300]).await.unwrap();
        assert_eq!(file.read_at(0, &mut [0; 5000]).await.unwrap(), 5000);
        for (other, (came, went)) in all.into_iter().zip(before) {
            let expected = if other == protection { (came + 300, went + 5000) } else { (came, went) };
            assert_eq!(carried(other), expected, "{other} of {protection}");
        }
        drop(file);
        session.close().await;
    }
    place.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_in_which_a_handshake_ends_is_counted() {
    let place = Place::start();
    let key = place.identity.public();
    assert_eq!(server_key(place.address(), None, LONG).await.unwrap(), key);
    until("key_shown", || place.handshakes("key_shown") == 1).await;

    place.refuses(b"GET / HTTP/1.1\r\n\r\n").await;
    until("no_hello", || place.handshakes("no_hello") == 1).await;
    let start = checked(&prologue(&Offer::Session(SessionOffer::OURS)), &pattern(96));
    let with_check = |key: &PublicKey| [&start[..], &mac1(key, &start)].concat();
    place.refuses(&with_check(&PublicKey([9; 32]))).await;
    until("wrong_server", || place.handshakes("wrong_server") == 1).await;
    place.refuses(&with_check(&key)).await;
    until("failed", || place.handshakes("failed") == 1).await;

    let stranger = place.try_connect(&new_identity(), Protection::Sealed).await;
    assert!(matches!(stranger, Err(Error::HandshakeRefused { .. })), "{stranger:?}");
    until("not_allowed", || place.handshakes("not_allowed") == 1).await;
    let newer = SessionOffer { version_min: 7, version_max: 9 };
    let (initiator, hello) =
        SessionInitiator::begin(&place.clients[0], &key, newer, &mut SystemEntropy).unwrap();
    let mut stream = TcpStream::connect(place.address()).await.unwrap();
    let answer = exchange(&mut stream, &hello).await.unwrap();
    assert_eq!(initiator.finish(&answer).unwrap_err(), HandshakeError::OtherVersion(1));
    until("other_version", || place.handshakes("other_version") == 1).await;

    // A channel's number is used once.
    let session = place.raw().start().await;
    until("proven", || place.handshakes("proven") == 1).await;
    let (locator, number) = (session.started.locator, ChannelNumber(0));
    let (kind, protection, suite) = (ChannelKind::Data, Protection::Sealed, Suite::ChaCha20Poly1305);
    let offer = BindOffer { locator, number, nonce: AttemptNonce([1; 16]), kind, protection, suite };
    let (secret, own) = (&session.started.secret, &place.clients[0]);
    let hello = BindInitiator::begin(own, &key, secret, session.id, offer, &mut SystemEntropy).unwrap().1;
    place.refuses(&hello).await;
    until("refused", || place.handshakes("refused") == 1).await;

    // Whoever says nothing has its time, and one network its share.
    let silent = TcpStream::connect(place.address()).await.unwrap();
    until("too_slow", || place.handshakes("too_slow") >= 1).await;
    let mut crowd = Vec::new();
    while place.handshakes("drawn") == 0 {
        assert!(crowd.len() < 4 * Limits::HALF_OPEN_SHARE, "{:?}", place.server.gate());
        crowd.push(TcpStream::connect(place.address()).await.unwrap());
    }
    assert!(place.server.gate().counts.drawn >= 1);
    drop((silent, crowd, session));

    // Whoever is gone by the time at which it would be answered: earlier or later, until it is that time.
    for number in 0..20_000_u32 {
        if place.handshakes("broken") > 0 {
            place.server.stop().await;
            return;
        }
        let (_, hello) =
            SessionInitiator::begin(&place.clients[0], &key, SessionOffer::OURS, &mut SystemEntropy).unwrap();
        let from = Ipv4Addr::new(127, 3, u8::try_from(number % 200).unwrap(), 1).into();
        let mut stream = socket::connect(place.address(), Some(&Via::Address(from))).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        for _ in 0..number % 50 {
            tokio::task::yield_now().await;
        }
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    panic!("no connection broke at the right time: {:?}", place.server.counts().handshakes);
}
