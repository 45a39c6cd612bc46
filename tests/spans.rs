//! The log of `bowline serve`: every line of a session says whose it is, in every form that the log has, and none names a
//! file unless names are asked for.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs;
use std::sync::Arc;

use bowline::client::{Client, OpenOptions, Peers, Session};
use bowline::model::LineSet;
use bowline::secure::Identity;
use program::{Server, User, export};
use rustix::process::Signal;
use serde_json::Value;
use support::new_identity;

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A name that would write lines of its own.
const HOSTILE: &[u8] = b"sub/harm\n2026-01-01T00:00:00.000000Z  INFO bowline: \x1b[2J\xff";
/// The same in a log.
const HARMLESS: &str = "sub/harm\\n2026-01-01T00:00:00.000000Z  INFO bowline: \\u{1b}[2J\\xff";

/// A user with something to serve, and two clients of theirs.
struct Scene {
    store: User,
    key: String,
    clients: [Arc<Identity>; 2],
}

impl Scene {
    fn new() -> Self {
        let store = User::new();
        let key = store.make_key();
        fs::create_dir_all(store.at("media/sub")).unwrap();
        fs::write(store.at("media/film.mov"), "0123456789").unwrap();
        let clients = [new_identity(), new_identity()];
        let entry = |(identity, name): (&Arc<Identity>, &str)| {
            let key = identity.public();
            format!(
                "[[client]]\nkey = \"{key}\"\nname = \"{name}\"\nexports = [\"media\"]\nrights = [\"read\", \"write\"]\n"
            )
        };
        store.set("clients.toml", &clients.iter().zip(["first", "second"]).map(entry).collect::<String>());
        Self { store, key, clients }
    }

    fn serve(&self, filter: &str, more: &[&str]) -> Server {
        let media = export("media", &self.store.at("media"));
        let usual = [&media, "--until-stdin-closes", "--listen", "127.0.0.1:0"];
        self.store.serve_logging(&[&usual, more].concat(), filter)
    }

    async fn connect(&self, server: &Server, client: usize) -> Session {
        let peers = self.store.at("peers.toml");
        let (key, address) = (&self.key, server.addresses()[0]);
        let entry = format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n");
        fs::write(&peers, entry).unwrap();
        let peers = Peers::load(&peers).unwrap();
        let client = Client::new(Arc::clone(&self.clients[client])).unwrap();
        client.connect(peers.named("store").unwrap()).await.unwrap()
    }

    fn fingerprint(&self, client: usize) -> String {
        self.clients[client].public().fingerprint()
    }
}

/// The rest of a server's log, to its end.
fn log_of(mut server: Server) -> Vec<String> {
    server.close_input();
    let (status, _, log) = server.ended();
    assert_eq!(status.code(), Some(0));
    log
}

/// Opens, reads, writes, renames and removes.
async fn work(session: &Session) {
    let options = OpenOptions::new().read(true).write(true);
    let media = session.export("media").unwrap();
    let film = media.open("film.mov", &options).await.unwrap();
    assert_eq!(film.read_at(0, &mut [0; 10]).await.unwrap(), 10);
    let harm = media.open(HOSTILE, &options.clone().create(true)).await.unwrap();
    harm.write_at(0, b"abc").await.unwrap();
    media.rename(HOSTILE, "sub/renamed").await.unwrap();
    media.symlink("elsewhere", "sub/shortcut").await.unwrap();
    media.remove_file("sub/renamed").await.unwrap();
    assert!(media.open("missing", &options).await.is_err());
    harm.close().await.unwrap();
    media.remove_file("sub/shortcut").await.unwrap();
}

/// Names of [`work`]; those of exports and clients are the administrator's own.
const NAMES: [&str; 6] = ["film.mov", "harm", "renamed", "shortcut", "elsewhere", "missing"];

fn assert_nameless(log: &[String]) {
    for name in NAMES {
        assert!(log.iter().all(|line| !line.contains(name)), "{name} is in the log: {log:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_session_says_whose_it_is() {
    let scene = Scene::new();
    let server = scene.serve("info", &[]);
    let address = server.addresses()[0];
    let (first, second) = (scene.connect(&server, 0).await, scene.connect(&server, 1).await);
    work(&first).await;
    work(&second).await;
    first.close().await;
    second.close().await;
    let log = log_of(server);
    let about = |client: usize, what: &str| -> Vec<&String> {
        let whose = format!(" client={}}}", scene.fingerprint(client));
        log.iter().filter(|line| line.contains(&whose) && line.contains(what)).collect()
    };
    for client in [0, 1] {
        for what in ["session started", "session ended"] {
            let [line] = about(client, what)[..] else { panic!("{what} of {client}: {log:#?}") };
            assert!(line.contains(" INFO session{id="), "{line}");
        }
        let bound = about(client, "channel bound");
        assert!(bound.len() >= 2 && bound.len() == about(client, "channel lost").len(), "{log:#?}");
        for (number, kind) in [(0, "control"), (1, "data")] {
            let channel = format!(":channel{{number={number} kind={kind} line={address} peer=127.0.0.1}}: ");
            assert!(bound.iter().any(|line| line.contains(&channel)), "{channel}: {bound:#?}");
        }
    }
    let whose = ["session", "channel"];
    let nobodys = |line: &&String| {
        whose.iter().any(|of| line.contains(&format!(": {of} "))) && !line.contains("client=")
    };
    assert_eq!(log.iter().filter(nobodys).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(log.iter().all(|line| !line.contains("request{")), "{log:#?}");
    assert_nameless(&log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_says_whose_it_is_where_the_log_has_nothing_else() {
    let scene = Scene::new();
    let server = scene.serve("warn", &[]);
    let (first, second) = (scene.connect(&server, 0).await, scene.connect(&server, 1).await);
    let film = first.open("media", "film.mov", &OpenOptions::new().read(true)).await.unwrap();
    let key = film.resume_key().await.unwrap();
    second.resume(&key, LineSet::ALL).await.unwrap_err();
    let line = server.log_has("resume key refused");
    assert!(line.contains(" WARN session{id="), "{line}");
    assert!(line.contains(&format!(" client={}}}: ", scene.fingerprint(1))), "{line}");
    drop((first, second, film));
    assert_nameless(&log_of(server));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_no_level_a_file_is_named_until_names_are_asked_for() {
    let scene = Scene::new();
    let server = scene.serve("trace", &[]);
    let session = scene.connect(&server, 0).await;
    work(&session).await;
    session.close().await;
    let log = log_of(server);
    assert_nameless(&log);
    let opened: Vec<&String> = log.iter().filter(|line| line.contains("the file is opened open=")).collect();
    assert_eq!(opened.len(), 3, "{log:#?}");
    let of = format!("client={}}}:channel{{number=0 kind=control", scene.fingerprint(0));
    let is_whole = |line: &&String| {
        line.contains(&of) && line.contains("}:request{id=") && line.contains(" kind=Open}: ")
    };
    assert!(opened.iter().all(is_whole), "{opened:#?}");
    let answered = |how: &str| log.iter().any(|line| line.contains(how));
    assert!(answered("kind=Open}: bowline::server::shared: answered outcome=\"refused\""), "{log:#?}");
    assert!(answered("kind=Read}: bowline::server::shared: answered outcome=\"done\""), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_logged_where_they_are_asked_for_and_write_no_lines_of_their_own() {
    let scene = Scene::new();
    let config = scene.store.at("serve.toml");
    fs::write(&config, "log_names = false\n").unwrap();
    let with = ["--config", config.to_str().unwrap()];
    let server = scene.serve("debug", &with);
    let session = scene.connect(&server, 0).await;
    let media = session.export("media").unwrap();
    media.metadata("film.mov").await.unwrap();
    fs::write(&config, "log_names = true\n").unwrap();
    server.signal(Signal::HUP);
    server.log_has("names=true");
    work(&session).await;
    session.close().await;
    assert_named(&log_of(server));

    let server = scene.serve("debug", &["--log-names"]);
    let session = scene.connect(&server, 0).await;
    work(&session).await;
    session.close().await;
    assert_named(&log_of(server));

    let server = scene.serve("info", &["--log-names"]);
    let session = scene.connect(&server, 0).await;
    work(&session).await;
    session.close().await;
    assert_nameless(&log_of(server));
}

fn assert_named(log: &[String]) {
    let has = |parts: &[&str]| {
        let found = log.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "{parts:?} is not in the log: {log:#?}");
    };
    has(&[" DEBUG session{", " kind=Open}: ", "the file is opened open=", "export=media path=film.mov"]);
    has(&[" kind=Open}: ", &format!("path={HARMLESS}")]);
    has(&[" kind=Rename}: ", &format!("path={HARMLESS} to=sub/renamed")]);
    has(&[" kind=Symlink}: ", "path=sub/shortcut to=elsewhere"]);
    has(&[" kind=Remove}: ", "path=sub/renamed"]);
    for line in log {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(!line.starts_with("2026-01-01T00:00:00"), "{line:?}");
        let names = NAMES.iter().any(|name| line.contains(name));
        assert!(!names || line.contains(" DEBUG "), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_of_the_log_has_the_spans() {
    let scene = Scene::new();
    let logs = async |format: &str| {
        let server = scene.serve("debug", &["--log-names", "--log-format", format]);
        let session = scene.connect(&server, 1).await;
        work(&session).await;
        session.close().await;
        log_of(server)
    };
    let objects: Vec<Value> =
        logs("json").await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let opened = objects.iter().find(|object| object["fields"]["path"] == HARMLESS).unwrap();
    let [session, channel, request] = &opened["spans"].as_array().unwrap()[..] else { panic!("{opened}") };
    assert_eq!((&session["name"], &session["client"]), (&"session".into(), &scene.fingerprint(1).into()));
    assert_eq!(session["id"].as_str().unwrap().len(), 32, "{session}");
    assert_eq!((&channel["name"], &channel["kind"]), (&"channel".into(), &"control".into()));
    assert_eq!((&channel["number"], &channel["peer"]), (&"0".into(), &"127.0.0.1".into()));
    assert!(channel["line"].as_str().unwrap().starts_with("127.0.0.1:"), "{channel}");
    assert_eq!((&request["name"], &request["kind"]), (&"request".into(), &"Open".into()));
    assert!(request["id"].is_string(), "{request}");

    let whose = format!(" client={}}}:channel{{", scene.fingerprint(1));
    let is_whole = |line: &String| {
        let parts = ["DEBUG session{id=", &whose, " kind=Open}: ", HARMLESS];
        line.starts_with("<7>") && parts.iter().all(|part| line.contains(part))
    };
    let journal = logs("journald").await;
    assert!(journal.iter().any(is_whole), "{journal:#?}");
}
