//! `bowline grant` and `bowline accept`, as their users run them: a file in two hands, and every way in which that ends.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs;
use std::process::Stdio;

use program::{Server, User, client_entry, export, finish, finish_child, message, peer_entry};
use rustix::process::Signal;
use support::pattern;

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

const RIGHTS: [&str; 3] = ["read", "write", "grant"];

/// A server with a file, and a client that may grant parts in it to a second one; a third one gets none.
struct Scene {
    store: User,
    users: [User; 3],
    keys: [String; 3],
}

impl Scene {
    fn start() -> (Self, Server) {
        let store = User::new();
        let store_key = store.make_key();
        let users = [User::new(), User::new(), User::new()];
        let keys = users.each_ref().map(User::make_key);
        fs::create_dir(store.at("media")).unwrap();
        fs::write(store.at("media/file"), "content").unwrap();
        let entries: Vec<_> = ["giver", "heir", "thief"]
            .iter()
            .zip(&keys)
            .map(|(name, key)| client_entry(name, key, &RIGHTS))
            .collect();
        store.set("clients.toml", &entries.concat());
        let server = serve(&store, &["127.0.0.1:0", "127.0.0.2:0"]);
        for user in &users {
            user.set("peers.toml", &peer_entry(&store_key, &server.addresses()));
        }
        (Self { store, users, keys }, server)
    }

    /// A grant of the file to the second client that stands, with what follows its key on standard error still to come.
    fn grant(&self) -> Server {
        let [giver, ..] = &self.users;
        let asked = ["grant", "store:media/file", "--to", &self.keys[1], "--rights", "read", "--for", "1h"];
        let grant = Server::start(&mut giver.command(&asked), Vec::new());
        grant.log_has("until this ends");
        grant
    }
}

fn serve(store: &User, listen: &[&str]) -> Server {
    let media = export("media", &store.at("media"));
    store.serve(&[&[media.as_str(), "--until-stdin-closes", "--listen"], listen].concat())
}

/// The last error of a grant that ended by itself, with its number.
#[track_caller]
fn ended(grant: Server, exit: i32, parts: &[&str]) {
    let (status, _, log) = grant.ended();
    assert_eq!(status.code(), Some(exit), "{log:?}");
    let log = log.join("\n");
    assert!(
        message(&log).is_some_and(|error| error.starts_with("the grant of store:media/file is over")),
        "{log}"
    );
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in: {log}");
    }
}

/// The key goes through a file from one user to the other, and is good for that one alone.
#[test]
fn b18_b19_a_file_is_granted_by_one_client_and_accepted_by_another() {
    let (scene, _server) = Scene::start();
    let ([giver, heir, thief], [_, heir_key, _]) = (&scene.users, &scene.keys);
    let mut grant = scene.grant();
    let key_file = heir.at("given.key");
    fs::write(&key_file, format!("{}\n", grant.first)).unwrap();
    let key_file = key_file.to_str().unwrap();
    let accepted = heir.run(&["accept", "store", key_file]);
    assert!(accepted.status.success(), "{accepted:?}");
    assert_eq!(accepted.out, b"content");
    assert!(accepted.err.contains("7 bytes") && accepted.err.contains("read"), "{}", accepted.err);
    thief.run(&["accept", "store", key_file]).failure(&["cannot accept a file from store"]);
    // What the giver has ended is over.
    grant.close_input();
    assert!(grant.ended().0.success());
    heir.run(&["accept", "store", key_file]).failure(&["cannot accept a file from store"]);

    let asked =
        ["grant", "store:media/file", "--to", heir_key, "--rights", "read,write", "--deliver", "--move"];
    let mut command = giver.command(&asked);
    let moved = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = heir.at("copy");
    let waited = heir.run(&["accept", "store", "--wait", "--output", output.to_str().unwrap()]);
    assert!(waited.status.success() && waited.out.is_empty(), "{waited:?}");
    assert_eq!(fs::read(output).unwrap(), b"content");
    let moved = finish_child(moved);
    assert!(moved.status.success() && moved.err.contains("the other client has the file now"), "{moved:?}");
}

/// What is accepted has its name when it is complete, and what had the name before keeps it until then.
#[test]
fn what_is_accepted_is_complete_or_not_there() {
    let (scene, _server) = Scene::start();
    fs::write(scene.store.at("media/file"), pattern(3 << 20)).unwrap();
    let grant = scene.grant();
    let [_, heir, _] = &scene.users;
    fs::create_dir(heir.at("out")).unwrap();
    let (key_file, output) = (heir.at("given.key"), heir.at("out/copy"));
    fs::write(&key_file, &grant.first).unwrap();
    fs::write(&output, "as it was").unwrap();
    let accept = ["accept", "store", key_file.to_str().unwrap(), "--output", output.to_str().unwrap()];
    // No file of this process may have more than a mebibyte: it is told so instead of being ended.
    let limited = ["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_bowline")];
    let failed = finish(&mut heir.command_of("sh", &[&limited[..], &accept].concat()));
    assert_eq!(failed.status.code(), Some(10), "{failed:?}");
    assert!(
        failed.err.contains("error[no-space]: cannot write ") && failed.err.contains("is as it was"),
        "{failed:?}"
    );
    assert_eq!(fs::read(&output).unwrap(), b"as it was");
    assert_eq!(fs::read_dir(heir.at("out")).unwrap().count(), 1, "no part is left");
    assert!(heir.run(&accept).status.success());
    assert!(fs::read(&output).unwrap() == pattern(3 << 20));
    assert_eq!(fs::read_dir(heir.at("out")).unwrap().count(), 1);
}

#[test]
fn a_grant_ends_when_its_giver_is_taken_off_the_list() {
    let (scene, _server) = Scene::start();
    let grant = scene.grant();
    scene.store.set("clients.toml", &client_entry("heir", &scene.keys[1], &RIGHTS));
    ended(grant, 6, &["error[session-ended]", "does not allow this client any more"]);
}

#[test]
fn a_grant_ends_when_the_server_has_forgotten_it() {
    let (scene, server) = Scene::start();
    let grant = scene.grant();
    server.signal(Signal::KILL);
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    // The one before has its addresses and its key for as long as it lives.
    server.ended();
    let _again = serve(&scene.store, &addresses);
    ended(grant, 9, &["error[state-lost]", "without a resume key"]);
}

/// Lines may be down when somebody wants out: that takes a few seconds at most, and no time if it is said twice.
#[test]
fn a_grant_can_be_ended_while_the_server_does_not_answer() {
    let (scene, server) = Scene::start();
    let (patient, hasty) = (scene.grant(), scene.grant());
    server.signal(Signal::STOP);
    for grant in [&patient, &hasty] {
        grant.signal(Signal::INT);
        grant.log_has("a second signal ends this at once");
    }
    hasty.signal(Signal::TERM);
    assert_eq!(hasty.ended().0.code(), Some(143));
    ended(patient, 6, &["error[timed-out]", "within 5s", "data: ", "bowline release"]);
    server.signal(Signal::CONT);
}
