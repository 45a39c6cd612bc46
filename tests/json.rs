//! `--json` on every command there is: what it prints is objects of `docs/output.schema.json`, one a line, or it says that
//! what it prints is none.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitStatus;

use bowline::client::{Client, OpenOptions, Peers};
use bowline::net::key_file;
use bowline::secure::Identity;
use program::{Done, Server, User, client_entry, export, peer_entry};
use schema::objects;
use serde_json::Value;

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

#[path = "support/schema.rs"]
mod schema;

const KEY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Every command, and the types of the objects that it prints here, in their order; none where it refuses `--json`.
const COMMANDS: [(&str, &[&str]); 27] = [
    ("accept", &["accepted"]),
    ("cat", &[]),
    ("client-add", &["client_added"]),
    ("client-ls", &["client", "client", "client"]),
    ("client-rm", &["client_removed"]),
    ("completions", &[]),
    ("config-show", &["setting"; 12]),
    ("cp", &["copied", "copy_summary"]),
    ("explain", &["explanation"]),
    ("grant", &["granted"]),
    ("key-new", &["key"]),
    ("key-show", &["key"]),
    ("ls", &["entry", "entry"]),
    ("man", &[]),
    ("mkdir", &["made"]),
    ("mv", &["moved"]),
    ("peer-add", &["pin"]),
    ("peer-ls", &["peer"]),
    ("peer-rm", &["peer_removed"]),
    ("peer-trust", &["pin"]),
    ("ping", &["line"]),
    ("release", &["released"]),
    ("resume", &["kept_open", "resumed"]),
    ("rm", &["removed"]),
    ("serve", &["listening"]),
    ("stat", &["stat"]),
    // Its objects stand in docs/status.md, against which tests/status.rs holds them.
    ("status", &["server"]),
];

/// The commands that the program has, by their manual pages: those that have no commands of their own.
fn commands(user: &User) -> BTreeSet<String> {
    fs::create_dir(user.at("man")).unwrap();
    user.run(&["man", "--dir", user.at("man").to_str().unwrap()]).success();
    let pages = fs::read_dir(user.at("man")).unwrap().map(|page| page.unwrap().file_name());
    let pages: Vec<String> = pages.map(|name| name.into_string().unwrap()).collect();
    let names: Vec<&str> =
        pages.iter().filter_map(|page| page.strip_prefix("bowline-")?.strip_suffix(".1")).collect();
    let is_leaf = |name: &&&str| !names.iter().any(|other| other.starts_with(&format!("{name}-")));
    names.iter().filter(is_leaf).map(|name| (*name).to_owned()).collect()
}

struct Scene {
    store: User,
    station: User,
    server: Server,
    heir: User,
    store_key: String,
    heir_key: String,
}

impl Scene {
    fn start() -> Self {
        let (store, station, heir) = (User::new(), User::new(), User::new());
        let (store_key, key, heir_key) = (store.make_key(), station.make_key(), heir.make_key());
        fs::create_dir(store.at("media")).unwrap();
        fs::write(store.at("media/file"), "content").unwrap();
        let entry = |name, key: &str| client_entry(name, key, &["read", "write", "grant"]);
        store.set("clients.toml", &format!("{}{}", entry("station", &key), entry("heir", &heir_key)));
        let media = export("media", &store.at("media"));
        let server = store.serve(&[&media, "--until-stdin-closes", "--listen", "127.0.0.1:0"]);
        for user in [&station, &heir] {
            user.set("peers.toml", &peer_entry(&store_key, &server.addresses()));
        }
        Self { store, station, server, heir, store_key, heir_key }
    }

    /// Opens the file as a program does that dies with it.
    async fn leave_open(&self, ring: &Path) {
        let identity = Identity::from_text(&key_file::read(&self.station.settings("key")).unwrap()).unwrap();
        let peers = Peers::load(&self.station.settings("peers.toml")).unwrap();
        let client = Client::new(identity.into()).unwrap().with_key_ring(ring).unwrap();
        let session = client.connect(peers.named("store").unwrap()).await.unwrap();
        session.open("media", "file", &OpenOptions::new().read(true)).await.unwrap().leave_open();
        session.close().await;
    }
}

/// What a command printed first, as if it was all.
fn first_of(server: &Server) -> Done {
    Done { status: ExitStatus::default(), out: format!("{}\n", server.first).into(), err: String::new() }
}

fn of(done: &Done) -> Vec<Value> {
    assert!(done.status.success(), "{done:?}");
    objects(done)
}

/// Runs a command so that it succeeds, and gives what it prints. Those that print no objects are refused.
async fn objects_of(scene: &Scene, name: &str) -> Vec<Value> {
    let Scene { store, station, server, store_key, .. } = scene;
    let here = |arguments: &[&str]| of(&station.run(&[&["--json"], arguments].concat()));
    let there = |arguments: &[&str]| of(&store.run(&[&["--json"], arguments].concat()));
    let refused = |arguments: &[&str]| {
        let done = station.run(&[&["--json"], arguments].concat());
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        let told = objects(&done);
        assert_eq!((told.len(), &told[0]["type"]), (1, &"error".into()));
        Vec::new()
    };
    let at = |name: &str| station.at(name).display().to_string();
    let address = server.addresses()[0].to_string();
    match name {
        "accept" => accept(scene),
        "cat" => refused(&["cat", "store:media/file"]),
        "client-add" => there(&["client", "add", "other", KEY, "media"]),
        "client-ls" => there(&["client", "ls"]),
        "client-rm" => there(&["client", "rm", "other"]),
        "completions" => refused(&["completions", "bash"]),
        "config-show" => here(&["config", "show"]),
        "cp" => here(&["cp", "store:media/file", &at("copy")]),
        "explain" => here(&["explain", "wrong-key"]),
        "grant" => grant(scene),
        "key-new" => here(&["key", "new", "--key", &at("another")]),
        "key-show" => here(&["key", "show"]),
        "ls" => here(&["ls", "store:media"]),
        "man" => refused(&["man"]),
        "mkdir" => here(&["mkdir", "store:media/folder"]),
        "mv" => here(&["mv", "store:media/folder", "store:media/moved"]),
        "peer-add" => here(&["peer", "add", "second", store_key, &address, "--peers", &at("second")]),
        "peer-ls" => here(&["peer", "ls"]),
        "peer-rm" => here(&["peer", "rm", "second", "--peers", &at("second")]),
        "peer-trust" => {
            here(&["peer", "trust", &address, "--yes", store_key, "--name", "third", "--peers", &at("third")])
        }
        "ping" => here(&["ping", "store"]),
        "release" => {
            scene.leave_open(&station.at("ring")).await;
            let listed = here(&["resume", "--list", "--ring", &at("ring")]);
            let released = there(&["release", listed[0]["open"].as_str().unwrap()]);
            // What was released does not come back, which is the command's own failure.
            let gone = station.run(&["--json", "resume", "--all", "--ring", &at("ring")]);
            let told = objects(&gone);
            assert_eq!(
                (gone.status.code(), &told[0]["code"]),
                (Some(9), &"resume-refused".into()),
                "{told:?}"
            );
            released
        }
        "resume" => {
            scene.leave_open(&station.at("ring")).await;
            let listed = here(&["resume", "--list", "--ring", &at("ring")]);
            [listed, here(&["resume", "--all", "--ring", &at("ring")])].concat()
        }
        "rm" => here(&["rm", "-r", "store:media/moved"]),
        "serve" => serve(),
        "stat" => here(&["stat", "store:media/file"]),
        "status" => {
            let done = store.run(&["--json", "status"]);
            let lines = String::from_utf8(done.out).unwrap();
            let told = lines.lines().map(|line| serde_json::from_str(line).unwrap());
            told.filter(|told: &Value| told["type"] == "server").collect()
        }
        other => panic!("what does {other} --json print?"),
    }
}

fn accept(Scene { station, heir, heir_key, .. }: &Scene) -> Vec<Value> {
    let grant = ["grant", "store:media/file", "--to", heir_key];
    let grant = Server::start(&mut station.command(&grant), Vec::new());
    let (key, out) = (heir.at("key"), heir.at("out"));
    fs::write(&key, &grant.first).unwrap();
    let asked = ["--json", "accept", "store", key.to_str().unwrap()];
    assert_eq!(heir.run(&asked).status.code(), Some(2), "what a file holds is no JSON");
    let accepted = of(&heir.run(&[&asked[..], &["--output", out.to_str().unwrap()]].concat()));
    assert_eq!((&accepted[0]["len"], fs::read(out).unwrap()), (&7.into(), b"content".to_vec()));
    accepted
}

fn grant(Scene { station, heir_key, .. }: &Scene) -> Vec<Value> {
    let asked = ["--json", "grant", "store:media/file", "--to", heir_key];
    let grant = Server::start(&mut station.command(&asked), Vec::new());
    let granted = of(&first_of(&grant));
    assert!(granted[0]["key"].as_str().unwrap().starts_with("bowline-resume-1-"), "{granted:?}");
    granted
}

fn serve() -> Vec<Value> {
    let other = User::new();
    other.make_key();
    other.set("clients.toml", "# nobody\n");
    fs::create_dir(other.at("media")).unwrap();
    let media = export("media", &other.at("media"));
    let serve = ["--json", "serve", &media, "--until-stdin-closes", "--listen", "127.0.0.1:0"];
    let serve = [&serve[..], &["--metrics", "127.0.0.1:0"]].concat();
    let serving = Server::start(&mut other.command(&serve), Vec::new());
    let listening = of(&first_of(&serving));
    assert!(listening[0]["metrics"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(listening[0]["protection"], "signed");
    listening
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_objects_of_the_schema_or_refuses_to() {
    let scene = Scene::start();
    let known: BTreeSet<String> = COMMANDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(commands(&scene.station), known, "each command has its line in this file");
    // Some need what others have done.
    let first = ["client-add", "mkdir", "mv", "peer-add"];
    let others =
        COMMANDS.iter().map(|(name, _)| *name).filter(|name| !first.contains(name) && *name != "accept");
    for name in first.into_iter().chain(others).chain(["accept"]) {
        let told = objects_of(&scene, name).await;
        let types: Vec<&str> = told.iter().map(|object| object["type"].as_str().unwrap()).collect();
        let (_, expected) = COMMANDS.iter().find(|(known, _)| *known == name).unwrap();
        assert_eq!(types, *expected, "{name}");
    }
}
