//! The end of trust: the server's key is changed without an interruption, an old key is retired, and a client that is
//! taken off the list is gone with everything it held. That a recording cannot be read with both static keys is shown
//! where the handshakes are: `src/secure/handshake/tests/stolen.rs`.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod program;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bowline::client::{
    ChannelState, Client, Error, LineConfig, OpenOptions, Peer, Session, SessionEvent, SessionLoss,
};
use bowline::model::{LineRole, LineSet, PublicKey, Reason};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use support::{EXPORT, Entry, LINE_1, LINE_2, LONG, Searched, World, new_identity, pattern, reason};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

/// A server in this process, on two lines, that two clients may use.
struct Place {
    server: Server,
    clients: [Arc<Identity>; 2],
    _folder: TempDir,
    _searched: Searched,
}

/// A client's place on the list.
fn entry(client: &Identity, name: &str) -> String {
    let key = client.public();
    format!(
        "[[client]]\nkey = \"{key}\"\nname = \"{name}\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\n"
    )
}

impl Place {
    fn start(identity: &Arc<Identity>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            std::fs::write(folder.path().join(name), pattern(100_000)).unwrap();
        }
        let clients = [new_identity(), new_identity()];
        let entries = clients.iter().zip(["a", "b"]).map(|(client, name)| entry(client, name));
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let policy = parse_clients(&entries.collect::<String>()).unwrap();
        let listen: Vec<SocketAddr> = [LINE_1, LINE_2].map(|line| SocketAddr::new(line, 0)).to_vec();
        let config = ServerConfig::new(Arc::clone(identity), exports, policy);
        let server = Server::start(ServerConfig { listen, ..config }).unwrap();
        let searched = Searched::new(clients.iter().chain([identity]));
        Self { server, clients, _folder: folder, _searched: searched }
    }

    async fn connect(&self, client: usize, pinned: PublicKey) -> Result<Session, Error> {
        let line = |(&address, via): (&SocketAddr, IpAddr)| LineConfig {
            address,
            via: Some(bowline::net::Via::Address(via)),
            role: LineRole::Both,
            protection: None,
        };
        let lines = self.server.addresses().iter().zip([LINE_1, LINE_2]).map(line).collect();
        let peer = Peer { name: "server".into(), key: pinned, protection_min: None, lines };
        let session = Client::new(Arc::clone(&self.clients[client])).unwrap().connect(&peer).await?;
        session.all_lines_up(LONG).await?;
        Ok(session)
    }
}

/// A client that reads, writes and opens until it is told to stop, under the key that it has pinned at the moment.
struct Load {
    stop: AtomicBool,
    operations: AtomicU64,
    switches: tokio::sync::watch::Sender<PublicKey>,
}

impl Load {
    fn new(pinned: PublicKey) -> Arc<Self> {
        let switches = tokio::sync::watch::Sender::new(pinned);
        Arc::new(Self { stop: AtomicBool::new(false), operations: AtomicU64::new(0), switches })
    }

    /// Each operation must succeed. When the pin changes, a second session begins before the first one is given up.
    async fn run(self: Arc<Self>, place: Arc<Place>, client: usize, name: &str) -> Session {
        let mut pin = self.switches.subscribe();
        let options = OpenOptions::new().read(true).write(true);
        let pinned = *pin.borrow_and_update();
        let mut session = place.connect(client, pinned).await.unwrap();
        let mut file = session.open(EXPORT, name, &options).await.unwrap();
        let content = pattern(100_000);
        let mut bytes = vec![0; content.len()];
        while !self.stop.load(Ordering::SeqCst) {
            if pin.has_changed().unwrap() {
                let pinned = *pin.borrow_and_update();
                let next = place.connect(client, pinned).await.unwrap();
                let moved = next.open(EXPORT, name, &options).await.unwrap();
                file.close().await.unwrap();
                session.close().await;
                (session, file) = (next, moved);
            }
            file.write_at(0, &content).await.unwrap();
            assert_eq!(file.read_at(0, &mut bytes).await.unwrap(), content.len());
            assert!(bytes == content);
            self.operations.fetch_add(1, Ordering::SeqCst);
        }
        file.close().await.unwrap();
        session
    }

    /// Waits for some more operations.
    async fn goes_on(&self) {
        let from = self.operations.load(Ordering::SeqCst);
        let waiting = async {
            while self.operations.load(Ordering::SeqCst) < from + 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, waiting).await.expect("the load goes on");
    }
}

/// How the session ended whose events these are: taken before the change that ends it.
async fn loss(mut events: Receiver<SessionEvent>) -> SessionLoss {
    let ending = async {
        loop {
            if let SessionEvent::Ended(loss) = events.recv().await.unwrap() {
                break loss;
            }
        }
    };
    timeout(LONG, ending).await.expect("the session ends")
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(LONG, waiting).await.is_ok(), "never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_the_servers_key_changes_under_load_without_a_failed_operation() {
    let (old, new) = (new_identity(), new_identity());
    let place = Arc::new(Place::start(&old));
    let loads = [Load::new(old.public()), Load::new(old.public())];
    let running = [0, 1].map(|at| {
        let (load, place) = (Arc::clone(&loads[at]), Arc::clone(&place));
        tokio::spawn(async move { load.run(place, at, ["first", "second"][at]).await })
    });
    for load in &loads {
        load.goes_on().await;
    }
    // Both keys are valid: one client after the other is given the new one.
    place.server.set_identities(Arc::clone(&new), Some(Arc::clone(&old)));
    for load in &loads {
        load.goes_on().await;
        load.switches.send(new.public()).unwrap();
        load.goes_on().await;
    }
    // One that was forgotten; its channels come back under its own key while that is valid.
    let forgotten = place.connect(0, old.public()).await.unwrap();
    let live = || forgotten.channels().iter().filter(|channel| channel.state == ChannelState::Live).count();
    until("binds under the previous key are taken", || live() == 4).await;
    let held = || (place.server.sessions_len(), place.server.channels_len());
    until("two sessions under the new key, one under the old one", || held() == (3, 12)).await;

    place.server.set_identities(Arc::clone(&new), None);
    // Within the second that is promised: nothing is left to be waited for.
    assert_eq!(held(), (2, 8));
    // It would come back as soon as a server proved the key that it has pinned, and says why none does.
    let export = forgotten.export(EXPORT).unwrap().with_timeout(Duration::from_secs(1));
    let refused = export.open("first", &OpenOptions::new().read(true)).await.unwrap_err();
    assert!(matches!(refused, Error::HandshakeRefused { .. }), "{refused}");
    assert_eq!(held(), (2, 8));
    forgotten.close().await;
    // Whoever has the new key has noticed nothing.
    for load in &loads {
        load.goes_on().await;
        load.stop.store(true, Ordering::SeqCst);
    }
    for load in running {
        let session = load.await.unwrap();
        assert!(session.channels().iter().all(|channel| channel.repeats == 0));
        session.close().await;
    }
    let refused = place.connect(0, old.public()).await.unwrap_err();
    assert!(matches!(refused, Error::HandshakeRefused { .. }), "{refused}");
    place.connect(0, new.public()).await.unwrap().close().await;
    until("nothing is half-open", || place.server.gate().half_open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_revocation_is_complete_when_the_new_list_is_in_force() {
    let identity = new_identity();
    let place = Place::start(&identity);
    let exclusive = OpenOptions::new().read(true).write(true).exclusive();
    let (revoked, other) = (
        place.connect(0, identity.public()).await.unwrap(),
        place.connect(1, identity.public()).await.unwrap(),
    );
    let file = revoked.open(EXPORT, "first", &exclusive).await.unwrap();
    let kept = other.open(EXPORT, "second", &exclusive).await.unwrap();
    let held = || (place.server.sessions_len(), place.server.channels_len(), place.server.opens_len());
    until("both hold all that they can", || held() == (2, 8, 2)).await;
    let events = revoked.events();

    place.server.set_policy(parse_clients(&entry(&place.clients[1], "b")).unwrap());
    // No time passes between the new list and its whole effect: a session, its four channels and its open.
    assert_eq!(held(), (1, 4, 1));
    assert_eq!(loss(events).await, SessionLoss::NotAllowed);
    let outcome = file.read_at(0, &mut [0; 5]).await;
    assert!(matches!(outcome, Err(Error::SessionEnded(SessionLoss::NotAllowed))), "{outcome:?}");
    other.open(EXPORT, "first", &exclusive).await.unwrap().close().await.unwrap();
    kept.close().await.unwrap();
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_session_that_is_half_begun_when_its_key_is_retired_does_not_begin() {
    use bowline::model::{ChannelNumber, InstanceId, Protection, RequestId};
    use bowline::net::{Buffers, Meter, RecordReader, RecordWriter, SystemEntropy, exchange};
    use bowline::secure::{Opener, Sealer, SessionInitiator};
    use bowline::wire::control::{Begin, Purpose};
    use bowline::wire::hello::SessionOffer;
    use bowline::wire::{ClientControl, ServerControl};

    let (old, new) = (new_identity(), new_identity());
    let place = Place::start(&old);
    let mut stream = tokio::net::TcpStream::connect(place.server.addresses()[0]).await.unwrap();
    let offer = SessionOffer::OURS;
    let (initiator, hello) =
        SessionInitiator::begin(&place.clients[0], &old.public(), offer, &mut SystemEntropy).unwrap();
    let (choice, keys) = initiator.finish(&exchange(&mut stream, &hello).await.unwrap()).unwrap();
    place.server.set_identities(new, None);
    let (reader, writer) = stream.into_split();
    let sealer = Sealer::new(keys.send, ChannelNumber(0), Protection::Sealed).unwrap();
    let opener = Opener::new(keys.receive, ChannelNumber(0), Protection::Sealed).unwrap();
    let mut writer: RecordWriter<ClientControl, _> =
        RecordWriter::new(writer, sealer, Meter::default(), (&bowline::model::Limits::default()).into());
    let (mut reader, _): (RecordReader<ServerControl, _>, _) =
        RecordReader::new(reader, opener, Buffers::default());
    let begin = Begin {
        offer,
        choice,
        instance: InstanceId([1; 16]),
        process_id: 1,
        purpose: Purpose::New { former: None },
    };
    writer.write(&begin.into(), (RequestId::NONE, RequestId::FIRST), None).await.unwrap();
    writer.flush().await.unwrap();
    assert!(timeout(LONG, reader.next()).await.unwrap().is_err(), "the connection ends without an answer");
    assert_eq!(place.server.sessions_len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_revoked_client_is_out_with_all_that_it_held() {
    let (revoked, other) = (new_identity(), new_identity());
    let entries = [Entry::all(revoked.public()), Entry::all(other.public())];
    let world = World::with_clients(&pattern(1000), Arc::clone(&revoked), &entries).await;
    std::fs::write(world.file("orphan"), b"orphan").unwrap();
    let bystander = world.connect_as(&other, &world.peer(BOTH)).await;
    let exclusive = OpenOptions::new().read(true).write(true).exclusive();

    // An orphan: its session is gone, and its open waits for whoever has the key.
    let gone = world.connect(BOTH).await;
    let orphan = gone.open(EXPORT, "orphan", &exclusive).await.unwrap();
    let orphan_key = world.key_of(&orphan).await;
    orphan.leave_open();
    gone.close().await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &exclusive).await.unwrap();
    let key = world.key_of(&file).await;
    assert_eq!(session.channels().iter().filter(|channel| channel.state == ChannelState::Live).count(), 4);
    for name in ["file", "orphan"] {
        let refused = bystander.open(EXPORT, name, &exclusive).await;
        assert_eq!(reason(refused), Reason::Busy, "{name}");
    }

    let events = session.events();
    // How soon a changed list is noticed, the watch's own tests say, and how soon it takes effect, the test before.
    world.set_clients(&[Entry::all(other.public())]);
    assert_eq!(loss(events).await, SessionLoss::NotAllowed);
    // All four connections are closed by the server, not only given up by the client.
    for line in 0..2 {
        let closed =
            world.recorders[line].until(|labels| labels.iter().filter(|label| label.is_open).count() == 2);
        timeout(LONG, closed).await.expect("only the bystander's are left").unwrap();
    }
    // What it held is free at once, also what no session reached.
    for name in ["file", "orphan"] {
        bystander.open(EXPORT, name, &exclusive).await.unwrap().close().await.unwrap();
    }
    assert!(matches!(world.connect_result().await, Err(Error::HandshakeRefused { .. })));
    // Back on the list, its keys are worth nothing: what they named has ended.
    world.set_clients(&entries);
    let again = async {
        loop {
            if let Ok(session) = world.connect_result().await {
                break session;
            }
        }
    };
    let again = timeout(LONG, again).await.unwrap();
    for key in [&key, &orphan_key] {
        let refused = again.resume(key, LineSet::ALL).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::ResumeRefused));
    }
    again.close().await;
}

#[test]
fn t26_the_program_serves_under_a_previous_key_beside_its_own() {
    let (store, station) = (program::User::new(), program::User::new());
    let (own, client) = (store.make_key(), station.make_key());
    let previous = store.at("previous");
    let previous_key =
        program::key_in(&store.run(&["key", "new", "--key", previous.to_str().unwrap()]).success());
    std::fs::create_dir(store.at("media")).unwrap();
    std::fs::write(store.at("media").join("file"), "content").unwrap();
    store.set(
        "clients.toml",
        &format!("[[client]]\nkey = \"{client}\"\nname = \"station\"\nexports = [\"media\"]\n"),
    );
    let media = program::export("media", &store.at("media"));
    let server = store.serve(&[
        &media,
        "--listen",
        "127.0.0.1:0",
        "--until-stdin-closes",
        "--previous-key",
        previous.to_str().unwrap(),
    ]);
    for key in [&own, &previous_key] {
        let address = server.addresses()[0];
        let peer = format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n");
        station.set("peers.toml", &peer);
        assert_eq!(station.run(&["cat", "store:media/file"]).success(), "content");
    }
    let warning = server.log_has("previous key");
    assert!(warning.contains("WARN"), "{warning}");
}

impl World {
    /// A session of the world's own client, if it may have one.
    async fn connect_result(&self) -> Result<Session, Error> {
        Client::new(Arc::clone(&self.identity)).unwrap().connect(&self.peer(BOTH)).await
    }
}
