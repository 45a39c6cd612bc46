//! Trusting a server: what `bowline peer trust` shows, asks and writes, and what nobody who poses as the server gets.
//! Real programs, real sockets.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bowline::client::{Client, Error, ErrorKind, Peer, Peers, prove, server_key};
use bowline::model::{LineRole, PublicKey};
use bowline::net::{Via, key_file};
use bowline::secure::{Identity, SessionResponder};
use bowline::wire::hello::Hello;
use program::{Done, RIGHTS, Server, User, client_entry, export, finish_child, message};
use socket2::{Domain, Socket, Type};
use support::recorder::{Kind, Recorder, contains_secret};
use support::{LINE_1, LONG, World, lost, new_identity};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A server with one export, and a user who does not know it yet.
struct Scene {
    store: User,
    station: User,
    server: Server,
    server_key: String,
}

impl Scene {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        let (store, station) = (User::new(), User::new());
        let server_key = store.make_key();
        fs::create_dir(store.at("media")).unwrap();
        fs::write(store.at("media/file"), "content").unwrap();
        store.set("clients.toml", "# nobody yet\n");
        let server = Self::serve(&store, more);
        Self { store, station, server, server_key }
    }

    fn serve(store: &User, more: &[&str]) -> Server {
        let media = export("media", &store.at("media"));
        let arguments = [&[&media, "--until-stdin-closes", "--listen", "127.0.0.1:0"], more].concat();
        // What the tests wait for is told at this level.
        let mut all = vec!["serve"];
        all.extend(arguments);
        store.serve_logging(&all[1..], "bowline=info")
    }

    fn address(&self) -> String {
        self.server.addresses()[0].to_string()
    }

    /// Puts the station on the server's list, as its administrator does; tells the station's key.
    fn list_station(&self) -> String {
        let key = self.station.make_key();
        self.store.set("clients.toml", &client_entry("station", &key, &RIGHTS));
        self.server.log_has("the list of clients is in force");
        key
    }

    fn trust(&self, answer: &str, more: &[&str]) -> Done {
        trust(&self.station, answer, &[&[&*self.address()], more].concat())
    }

    fn peers(&self) -> Option<String> {
        fs::read_to_string(self.station.settings("peers.toml")).ok()
    }
}

/// Runs the command with an answer to what it asks.
fn trust(station: &User, answer: &str, arguments: &[&str]) -> Done {
    let mut command = station.command(&[&["peer", "trust"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that asks nothing may have ended already.
    drop(child.stdin.take().unwrap().write_all(answer.as_bytes()));
    finish_child(child)
}

/// The last error of a command that said more before it.
#[track_caller]
fn refused(done: &Done, parts: &[&str]) -> String {
    assert!(matches!(done.status.code(), Some(1..=11)), "{done:?}");
    assert_eq!(done.out, b"", "nothing but results on standard output");
    let error = message(&done.err).unwrap_or_else(|| panic!("{done:?}"));
    for part in parts {
        assert!(done.err.contains(part), "{part:?} is not in: {}", done.err);
    }
    error
}

fn fingerprint(key: &str) -> String {
    key.parse::<PublicKey>().unwrap().fingerprint()
}

fn entry(name: &str, key: &str, address: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n")
}

#[test]
fn a_yes_pins_the_shown_key() {
    let scene = Scene::start();
    let own = scene.list_station();
    let done = scene.trust("yes\n", &["--name", "store"]);
    for shown in [&own, &scene.server_key, &fingerprint(&scene.server_key), "`bowline key show`"] {
        assert!(done.err.contains(shown), "{shown} is not in: {}", done.err);
    }
    let out = done.success();
    assert!(out.starts_with("pinned \"store\"") && out.lines().count() == 1, "{out}");
    let file = scene.station.settings("peers.toml");
    assert_eq!(scene.peers().unwrap(), entry("store", &scene.server_key, &scene.address()));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    // And it is all that was missing.
    assert_eq!(scene.station.run(&["cat", "store:media/file"]).success(), "content");
    scene.server.log_has("session started");
}

#[test]
fn anything_but_a_yes_is_a_no() {
    // One server for each answer: one is asked for its key a few times at once, and then once a second.
    for answer in ["no\n", "", "\n", "yess\n", "YES please\n", "n\nyes\n", &"y".repeat(100)] {
        let scene = Scene::start();
        let done = scene.trust(answer, &[]);
        refused(&done, &["[yes/no]", "the answer was not yes", &scene.server_key, "bowline key new"]);
        assert_eq!(scene.peers(), None, "{answer:?}");
    }
    let scene = Scene::start();
    for answer in ["y\n", "yes"] {
        let station = User::new();
        trust(&station, answer, &[&scene.address()]).success();
        let peers = fs::read_to_string(station.settings("peers.toml")).unwrap();
        assert_eq!(peers, entry("127.0.0.1", &scene.server_key, &scene.address()), "{answer:?}");
    }
}

#[test]
fn what_stands_in_the_file_stays() {
    let scene = Scene::start();
    let other = User::new().make_key();
    let before = format!("# mine\n\n{}# the end, without a line end", entry("attic", &other, "10.0.0.7:1"));
    scene.station.set("peers.toml", &before);
    scene.trust("yes\n", &["--name", "store"]).success();
    let new = entry("store", &scene.server_key, &scene.address());
    assert_eq!(scene.peers().unwrap(), format!("{before}\n\n{new}"));

    // Again: nothing to ask, nothing to write, under whatever name.
    for name in ["store", "cellar"] {
        let done = scene.trust("", &["--name", name]);
        assert!(!done.err.contains("[yes/no]"), "{}", done.err);
        assert!(done.success().contains("is pinned already"));
        assert_eq!(scene.peers().unwrap(), format!("{before}\n\n{new}"));
    }
    scene.station.set("peers.toml", "[[peer]]\nkey = 7\n");
    refused(&scene.trust("yes\n", &[]), &["cannot use the list of peers", "line 2"]);
    assert_eq!(scene.peers().unwrap(), "[[peer]]\nkey = 7\n");
}

#[test]
fn another_way_to_a_pinned_server_is_a_line_more() {
    let (store, station) = (User::new(), User::new());
    let key = store.make_key();
    fs::create_dir(store.at("media")).unwrap();
    store.set("clients.toml", "# nobody\n");
    let media = export("media", &store.at("media"));
    let server = store.serve(&[&media, "--until-stdin-closes", "--listen", "127.0.0.1:0", "127.0.0.2:0"]);
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let [one, two] = &addresses[..] else { panic!("two addresses") };
    trust(&station, "yes\n", &[one, "--name", "store"]).success();
    let done = trust(&station, "", &[two]);
    assert!(done.success().contains("added the line"));
    let peers = Peers::load(&station.settings("peers.toml")).unwrap();
    let lines: Vec<String> =
        peers.named("store").unwrap().lines.iter().map(|line| line.address.to_string()).collect();
    assert_eq!((peers.iter().count(), lines), (1, vec![one.clone(), two.clone()]));

    // Where lines have roles, nobody but the user knows which one a new line has.
    let roles = format!(
        "[[peer]]\nname = \"store\"\nkey = \"{key}\"\n[[peer.line]]\naddress = \"{one}\"\nrole = \"keys\"\n\
         [[peer.line]]\naddress = \"10.0.0.9\"\nrole = \"bulk\"\n"
    );
    station.set("peers.toml", &roles);
    let done = trust(&station, "", &[two]);
    assert!(done.err.contains("[[peer.line]]") && done.err.contains(two), "{}", done.err);
    assert!(done.success().contains("is pinned already"));
    assert_eq!(fs::read_to_string(station.settings("peers.toml")).unwrap(), roles);
}

#[test]
fn a_changed_key_is_never_taken_silently() {
    let old = User::new().make_key();
    // The name is another server's, or the address is.
    let pinned = |scene: &Scene, is_name: bool| {
        let entry =
            if is_name { entry("store", &old, "10.0.0.7:1") } else { entry("attic", &old, &scene.address()) };
        format!("# kept\n{entry}# kept as well\n")
    };
    for is_name in [true, false] {
        let scene = Scene::start();
        let before = pinned(&scene, is_name);
        for answer in ["", "yes\n", "yes\nyes\n"] {
            scene.station.set("peers.toml", &before);
            let done = scene.trust(answer, &["--name", "store"]);
            let error = refused(&done, &[&fingerprint(&old), &fingerprint(&scene.server_key), "--replace"]);
            assert!(error.starts_with("the key of \"") && error.contains("\" has changed"), "{error}");
            assert!(!done.err.contains("[yes/no]"), "{}", done.err);
            assert_eq!(scene.peers().unwrap(), before);
        }
        // One server is asked for its key a few times at once, and then once a second.
        let scene = Scene::start();
        let before = pinned(&scene, is_name);
        scene.station.set("peers.toml", &before);
        let done = scene.trust("no\n", &["--name", "store", "--replace"]);
        refused(&done, &["[yes/no]", &old, &scene.server_key]);
        assert_eq!(scene.peers().unwrap(), before);

        assert!(scene.trust("yes\n", &["--name", "store", "--replace"]).success().contains("replaced"));
        assert_eq!(scene.peers().unwrap(), before.replace(&old, &scene.server_key), "nothing but the key");
    }
}

#[test]
fn a_given_key_is_proven_before_it_is_pinned() {
    let scene = Scene::start();
    let key = scene.server_key.clone();
    let without = scene.trust("yes\n", &["--yes", &key]);
    refused(&without, &["has no identity", "bowline key new"]);

    // A client that the server does not list, and a key that it does not have, look the same: both are said.
    let own = scene.station.make_key();
    let wrong = User::new().make_key();
    for given in [&key, &wrong] {
        let done = scene.trust("yes\n", &["--yes", given]);
        let error =
            refused(&done, &["it has another key", "does not list this client's key", "bowline key show"]);
        assert!(error.contains(given.as_str()) && error.contains(&own), "{error}");
        assert_eq!(scene.peers(), None);
    }
    scene.store.set("clients.toml", &client_entry("station", &own, &RIGHTS));
    scene.server.log_has("the list of clients is in force");
    refused(&scene.trust("yes\n", &["--yes", &wrong]), &["it has another key"]);
    assert_eq!(scene.peers(), None);
    let done = scene.trust("", &["--yes", &key, "--name", "store"]);
    assert!(!done.err.contains("[yes/no]"), "{}", done.err);
    done.success();
    assert_eq!(scene.peers().unwrap(), entry("store", &key, &scene.address()));

    // In the place of another pinned key it needs the word as well.
    let before = entry("store", &wrong, &scene.address());
    scene.station.set("peers.toml", &before);
    refused(
        &scene.trust("yes\n", &["--yes", &key, "--name", "store"]),
        &["the key of \"store\" has changed"],
    );
    assert_eq!(scene.peers().unwrap(), before);
    scene.trust("", &["--yes", &key, "--name", "store", "--replace"]).success();
    assert_eq!(scene.peers().unwrap(), before.replace(&wrong, &key));
}

#[test]
fn a_server_can_keep_its_key_to_itself() {
    let scene = Scene::with(&["--no-enrolment"]);
    scene.list_station();
    let done = scene.trust("yes\n", &[]);
    refused(&done, &["does not show its key", "--yes KEY"]);
    assert_eq!(scene.peers(), None);
    scene.trust("", &["--yes", &scene.server_key.clone(), "--name", "store"]).success();
    assert_eq!(scene.station.run(&["cat", "store:media/file"]).success(), "content");
}

/// Each failure has the code, the number and the hint that it has elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_key_from_being_pinned_has_its_own_number() {
    let station = User::new();
    let own = station.make_key();
    // One that takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let done = trust(&station, "yes\n", &[&address]);
    assert_eq!(done.status.code(), Some(6), "{done:?}");
    refused(&done, &["error[timed-out]", &address, "try: the same command again"]);
    let (_held, closed) = nobody();
    let done = trust(&station, "yes\n", &[&closed.to_string()]);
    assert_eq!(done.status.code(), Some(6), "{done:?}");
    refused(&done, &["error[port-closed]", &format!("bowline serve ... --listen {closed}")]);

    // One of a later version, whose key the user was told.
    let server = new_identity();
    let key = server.public().to_string();
    let newer = Fake::answering(move |hello| {
        let hello = Hello::decode(hello).unwrap();
        let responder = SessionResponder::read(&server, &hello, &mut bowline::net::SystemEntropy);
        responder.unwrap().decline(7).unwrap()
    });
    let address = newer.address.to_string();
    let done = trust(&station, "", &[&address, "--yes", &key]);
    assert_eq!(done.status.code(), Some(11), "{done:?}");
    refused(&done, &["error[version]", "speaks version 7", "a newer bowline on this machine"]);
    newer.end();

    // One that does not have this client on its list.
    let scene = Scene::start();
    let done = trust(&station, "", &[&scene.address(), "--yes", &scene.server_key]);
    assert_eq!(done.status.code(), Some(5), "{done:?}");
    refused(&done, &["error[wrong-key]", &format!("bowline client add NAME {own} EXPORT")]);
}

#[test]
fn hosts_are_found_by_name_or_refused() {
    let scene = Scene::start();
    // The server has one of the addresses of this name.
    let port = scene.server.addresses()[0].port();
    trust(&scene.station, "yes\n", &[&format!("localhost:{port}")]).success();
    assert_eq!(scene.peers().unwrap(), entry("localhost", &scene.server_key, &scene.address()));

    let (_held, closed) = nobody();
    let closed = closed.to_string();
    refused(&trust(&scene.station, "yes\n", &[&closed]), &["cannot reach", &closed]);
    scene.station.run(&["peer", "trust", "10.0.0"]).misuse("write an IP address");
    scene.station.run(&["peer", "trust", "store", "--name", "a b"]).misuse("use 1 to 64");
    scene.station.run(&["peer", "trust", "store", "--yes", "abc"]).misuse("52 characters");
}

/// An address at which nobody listens, and nobody else can as long as the socket is held.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A server that notes the pattern of each hello that it hears, and answers with `answer`.
struct Fake {
    address: SocketAddr,
    patterns: Arc<Mutex<Vec<u8>>>,
    /// What it heard on each connection, whole.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn answering(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (patterns, heard) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let notes = (Arc::clone(&patterns), Arc::clone(&heard));
        let serve = move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut hello = vec![0; 4096];
                let len = stream.read(&mut hello).unwrap_or(0);
                hello.truncate(len);
                let Some(&pattern) = hello.get(5) else { return };
                notes.0.lock().unwrap().push(pattern);
                drop(stream.write_all(&answer(&hello)));
                drop(stream.shutdown(Shutdown::Write));
                // Whatever else the client says to somebody who has not proven the key.
                drop(stream.read_to_end(&mut hello));
                notes.1.lock().unwrap().push(hello);
            }
        };
        Self { address, patterns, heard, thread: Some(std::thread::spawn(serve)) }
    }

    /// What it has heard until now, and its end.
    fn end(mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        // A connection that says nothing ends it, after those before.
        drop(std::net::TcpStream::connect(self.address).unwrap());
        self.thread.take().unwrap().join().unwrap();
        (self.patterns.lock().unwrap().clone(), self.heard.lock().unwrap().clone())
    }
}

/// Length of the hello at the start of what a client sent.
fn hello_len(sent: &[u8]) -> usize {
    let part = |at: usize| usize::from(u16::from_le_bytes([sent[at], sent[at + 1]]));
    let noise = 8 + part(6);
    noise + 2 + part(noise) + 16
}

fn peer_at(address: SocketAddr, key: PublicKey) -> Peer {
    let line = bowline::client::LineConfig {
        via: Some(Via::Address(LINE_1)),
        ..bowline::client::LineConfig::new(address)
    };
    Peer { name: "store".to_owned(), key, protection_min: None, lines: vec![line] }
}

/// Whatever a failed handshake looks like, nobody is asked for another key after it: not by the library, not by `cat`,
/// not by `peer trust --yes`.
#[tokio::test(flavor = "multi_thread")]
async fn t25_a_failed_handshake_never_becomes_an_enrolment() {
    type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;
    let answers: [Answer; 4] = [
        Box::new(|_| Vec::new()),
        Box::new(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Box::new(|_| [&[96, 0][..], &[7; 96]].concat()),
        // The message that it would like to be asked for.
        Box::new(|_| bowline::wire::hello::framed(&[9; 100])),
    ];
    for answer in answers {
        let fake = Fake::answering(answer);
        let (station, pinned) = (User::new(), new_identity().public());
        let own = station.make_key();
        let identity = Identity::from_text(&key_file::read(&station.settings("key")).unwrap()).unwrap();
        let identity = Arc::new(identity);
        assert_eq!(identity.public().to_string(), own);
        let library =
            Client::new(Arc::clone(&identity)).unwrap().connect(&peer_at(fake.address, pinned)).await;
        assert!(matches!(library.unwrap_err().kind(), ErrorKind::Untrusted | ErrorKind::Protocol));
        let proving = prove(&identity, &pinned, fake.address, None, LONG).await;
        assert!(matches!(proving.unwrap_err().kind(), ErrorKind::Untrusted | ErrorKind::Protocol));
        let address = fake.address.to_string();
        refused(&trust(&station, "yes\nyes\n", &[&address, "--yes", &pinned.to_string()]), &[]);
        assert!(!station.settings("peers.toml").exists());
        station.set("peers.toml", &entry("store", &pinned.to_string(), &address));
        station.run(&["cat", "store:media/file"]).failure(&["cannot read"]);

        let (patterns, heard) = fake.end();
        assert_eq!(patterns, [1, 1, 1, 1], "a session's hello each time, and nothing after it");
        for said in heard {
            assert_eq!(said.len(), hello_len(&said), "message 1 and no more");
            assert_eq!(contains_secret(&said, &identity.public().0), None);
        }
    }
}

/// All that a session does to come back over cut lines, binds and the question whether it lives, is done under the
/// pinned key.
#[tokio::test(flavor = "multi_thread")]
async fn t25_a_session_that_loses_its_lines_asks_nobody_for_a_key() {
    let world = World::start(b"content").await;
    let session = world.connect([LineRole::Both; 2]).await;
    for recorder in &world.recorders {
        recorder.refuse(true);
        recorder.cut_all();
    }
    lost(&session, 0).await;
    lost(&session, 1).await;
    for recorder in &world.recorders {
        recorder.refuse(false);
    }
    session.all_lines_up(LONG).await.unwrap();
    session.close().await;
    let kinds: Vec<Kind> =
        [0, 1].into_iter().flat_map(|line| world.recordings(line)).map(|recording| recording.kind).collect();
    assert!(kinds.len() > 4, "{kinds:?}");
    assert!(!kinds.contains(&Kind::Enrol), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t25_a_wrong_key_is_refused_before_any_secret_is_sent() {
    let scene = Scene::start();
    scene.list_station();
    let recorder = Recorder::start(LINE_1, scene.server.addresses()[0]).await.unwrap();
    let text = key_file::read(&scene.station.settings("key")).unwrap();
    let identity = Arc::new(Identity::from_text(&text).unwrap());
    let own = identity.public();
    let expected = new_identity();
    let client = Client::new(identity).unwrap();
    let error = client.connect(&peer_at(recorder.address(), expected.public())).await.unwrap_err();
    assert!(matches!(error, Error::HandshakeRefused { .. }), "{error}");
    assert!(error.to_string().contains("its key has changed"), "{error}");

    let [recording] = &recorder.connections()[..] else { panic!("one connection") };
    assert_eq!(recording.kind, Kind::Session);
    assert_eq!(recording.to_server.len(), hello_len(&recording.to_server), "message 1 and no more");
    assert!(recording.to_client.is_empty());
    let secret = text.rsplit('-').next().unwrap().to_uppercase();
    let secret = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    for hidden in [&own.0[..], &secret] {
        assert_eq!(contains_secret(&recording.to_server, hidden), None);
    }
    // What there is of the client's key only the server that was meant can read.
    let hello = Hello::decode(&recording.to_server).unwrap();
    let mut entropy = bowline::net::SystemEntropy;
    let meant = SessionResponder::read(&expected, &hello, &mut entropy).unwrap();
    assert_eq!(meant.client(), own);
    assert!(SessionResponder::read(&new_identity(), &hello, &mut entropy).is_err());
}

/// Enrolment shows the key to whoever asks, tells the server nothing of who that is, and leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn t25_an_enrolment_is_one_question_and_one_answer() {
    let scene = Scene::start();
    let own = scene.list_station();
    let recorder = Recorder::start(LINE_1, scene.server.addresses()[0]).await.unwrap();
    let via = Via::Address(LINE_1);
    let shown = server_key(recorder.address(), Some(&via), LONG).await.unwrap();
    assert_eq!(shown.to_string(), scene.server_key);
    scene.server.log_has("the server's key was shown");
    let address = recorder.address().to_string();
    trust(&scene.station, "no\n", &[&address]);

    let recordings = recorder.connections();
    assert_eq!(recordings.len(), 2);
    for recording in recordings {
        assert_eq!(recording.kind, Kind::Enrol);
        assert_eq!(recording.to_server.len(), hello_len(&recording.to_server), "message 1 and no more");
        assert_eq!(Hello::decode(&recording.to_server).unwrap().noise.len(), 32, "an ephemeral key");
        let len = usize::from(u16::from_le_bytes([recording.to_client[0], recording.to_client[1]]));
        assert_eq!(recording.to_client.len(), 2 + len, "message 2 and no more");
        let own: PublicKey = own.parse().unwrap();
        for key in [own, shown] {
            assert_eq!(contains_secret(&recording.to_server, &key.0), None);
            assert_eq!(contains_secret(&recording.to_client, &key.0), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_shown_is_none() {
    let scene = Scene::with(&["--no-enrolment"]);
    let address = scene.server.addresses()[0];
    let hidden = server_key(address, None, LONG).await.unwrap_err();
    assert!(matches!(hidden, Error::KeyNotShown { .. }) && hidden.kind() == ErrorKind::Untrusted, "{hidden}");
    scene.server.log_has("enrolment is switched off");
    let fake = Fake::answering(|_| [&[96, 0][..], &[7; 96]].concat());
    let forged = server_key(fake.address, None, LONG).await.unwrap_err();
    assert!(matches!(forged, Error::Protocol), "{forged}");
    fake.end();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let limit = std::time::Duration::from_millis(50);
    let slow = server_key(silent.local_addr().unwrap(), None, limit).await.unwrap_err();
    assert!(matches!(slow, Error::HandshakeTimedOut { .. }), "{slow}");
    let (_held, closed) = nobody();
    let gone = server_key(closed, None, LONG).await.unwrap_err();
    assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
}
