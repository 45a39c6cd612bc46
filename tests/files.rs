//! The program's commands for files and servers, against a server process: what they do, what they print, with which number
//! they end.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, symlink};

use program::{Done, RIGHTS, Server, User, client_entry, export, finish};
use schema::objects;
use serde_json::Value;

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

#[path = "support/schema.rs"]
mod schema;

/// A server of the export `media` on two lines, and a client that has it in its list by `bowline peer add`.
struct Scene {
    store: User,
    station: User,
    server: Server,
    server_key: String,
    client_key: String,
}

impl Scene {
    fn start() -> Self {
        Self::with_rights(&RIGHTS)
    }

    fn with_rights(rights: &[&str]) -> Self {
        let (store, station) = (User::new(), User::new());
        let (server_key, client_key) = (store.make_key(), station.make_key());
        fs::create_dir(store.at("media")).unwrap();
        store.set("clients.toml", &client_entry("station", &client_key, rights));
        let media = export("media", &store.at("media"));
        let server = store.serve(&[&media, "--until-stdin-closes", "--listen", "127.0.0.1:0", "127.0.0.2:0"]);
        let scene = Self { store, station, server, server_key, client_key };
        let addresses: Vec<String> = scene.server.addresses().iter().map(ToString::to_string).collect();
        let add = [&["peer", "add", "store", &scene.server_key][..], &addresses.each_str()].concat();
        scene.station.run(&add).success();
        scene
    }

    fn run(&self, arguments: &[&str]) -> Done {
        self.station.run(arguments)
    }

    /// The objects that a command prints, each of a type that the schema names.
    #[track_caller]
    fn objects(&self, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
        let done = self.run(&[&["--json"], arguments].concat());
        (done.status.code(), objects(&done))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.store.at("media").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

trait EachStr {
    fn each_str(&self) -> Vec<&str>;
}

impl EachStr for Vec<String> {
    fn each_str(&self) -> Vec<&str> {
        self.iter().map(String::as_str).collect()
    }
}

#[test]
fn a_directory_is_listed_and_a_file_looked_at() {
    let scene = Scene::start();
    scene.write("clips/b.mov", "four");
    scene.write("clips/a.mov", "");
    scene.write("clips/deep/c", "c");
    scene.write("odd\u{1b}[31m\nname", "");
    symlink("a.mov", scene.store.at("media/clips/link")).unwrap();
    assert_eq!(scene.run(&["ls", "store:media/clips"]).success(), "a.mov\nb.mov\ndeep/\nlink\n");
    assert_eq!(scene.run(&["ls", "store:media/clips/b.mov"]).success(), "b.mov\n");
    let root = scene.run(&["ls", "store:media"]).success();
    assert_eq!(root, "clips/\nodd\\u{1b}[31m\\nname\n", "names from the other side stay on their line");
    let long = scene.run(&["ls", "-l", "store:media/clips/"]).success();
    assert!(
        long.lines().any(|line| line.starts_with("-rw-") && line.contains(" 4 ") && line.ends_with(" b.mov"))
    );
    let deep = scene.run(&["ls", "-R", "store:media"]).success();
    assert!(deep.contains("store:media/clips/deep:\nc\n"), "{deep}");

    let (code, entries) = scene.objects(&["ls", "-R", "store:media"]);
    assert_eq!((code, entries.len()), (Some(0), 7));
    let (_, stat) = scene.objects(&["stat", "store:media/clips/b.mov", "store:media/clips/link"]);
    assert_eq!(
        (&stat[0]["len"], &stat[1]["file"], &stat[1]["target"]),
        (&4.into(), &"symlink".into(), &"a.mov".into())
    );
    let text = scene.run(&["stat", "store:media/clips/b.mov"]).success();
    assert!(text.starts_with("store:media/clips/b.mov\n  file -rw-") && text.contains("4 bytes"), "{text}");
}

#[test]
fn names_are_made_moved_and_removed() {
    let scene = Scene::start();
    let media = scene.store.at("media");
    assert_eq!(scene.run(&["mkdir", "-p", "store:media/a/b/c", "store:media/a"]).success(), "");
    scene.run(&["mkdir", "store:media/a"]).failure_with(8, &["error[exists]", "cannot make the directory"]);
    scene.write("a/file", "bytes");
    scene.run(&["mv", "store:media/a/file", "store:media/a/b"]).success();
    assert_eq!(fs::read(media.join("a/b/file")).unwrap(), b"bytes");
    scene.write("taken", "taken");
    scene
        .run(&["mv", "-n", "store:media/a/b/file", "store:media/taken"])
        .failure_with(8, &["error[exists]", "data: nothing was moved"]);
    scene.run(&["mv", "store:media/a/b/file", "store:media/taken"]).success();
    assert_eq!(fs::read(media.join("taken")).unwrap(), b"bytes");

    scene.run(&["mv", "store:media/a", "store:media/a/b/a"]).failure_with(2, &["cannot go into itself"]);
    scene
        .run(&["rm", "store:media/a"])
        .failure_with(1, &["it is a directory", "bowline rm -r store:media/a"]);
    scene.run(&["rm", "store:media/nothing"]).failure_with(3, &["error[not-found]"]);
    scene.run(&["rm", "-f", "store:media/nothing"]).success();
    symlink(scene.station.at("config"), media.join("a/out")).unwrap();
    let (code, objects) = scene.objects(&["rm", "-r", "store:media/a", "store:media/taken"]);
    assert_eq!((code, objects.len()), (Some(0), 2));
    assert!(
        !media.join("a").exists() && scene.station.settings("key").exists(),
        "the link went, not what it leads to"
    );

    let failed = scene.run(&["rm", "store:media/one", "store:media/other"]);
    assert_eq!(failed.status.code(), Some(4), "{failed:?}");
    assert_eq!(failed.err.matches("error[not-found]").count(), 2, "{}", failed.err);
    assert!(failed.err.contains("error[some-failed]: 2 of 2 could not be removed"), "{}", failed.err);
}

/// A server that is down keeps nobody from what the others have, before it and behind it.
#[test]
fn places_of_a_server_that_is_down_fail_alone() {
    let scene = Scene::start();
    scene.write("first", "1");
    scene.write("last", "2");
    let nobody = unused().to_string();
    scene.run(&["peer", "add", "down", &scene.client_key, &nobody]).success();
    let places = ["store:media/missing", "down:media/a", "down:media/b", "store:media/last"];
    for command in [&["ls"][..], &["stat"], &["mkdir", "-p"], &["rm", "-f"]] {
        let places = match command[0] {
            "mkdir" => ["store:media/first/no", "down:media/a", "down:media/b", "store:media/made"],
            "rm" => ["store:media/made/no/no", "down:media/a", "down:media/b", "store:media/last"],
            _ => places,
        };
        let done = scene.run(&[command, &places].concat());
        assert_eq!(done.status.code(), Some(4), "{command:?}: {done:?}");
        for place in ["down:media/a", "down:media/b"] {
            let failed = done
                .err
                .lines()
                .filter(|line| line.starts_with("error[port-closed]: ") && line.ends_with(place));
            assert_eq!(failed.count(), 1, "{place} is told once: {}", done.err);
        }
        if command[0] != "rm" {
            assert!(done.err.contains(&format!(" {}\n", places[0])), "{}", done.err);
            assert!(done.err.contains("error[some-failed]: 3 of 4 could not be "), "{}", done.err);
        }
    }
    assert!(scene.store.at("media/made").is_dir(), "the place behind was made");
    assert!(!scene.store.at("media/last").exists(), "the place behind was removed");
    let alone = scene.run(&["ls", "down:media"]);
    alone.failure_with(6, &["error[port-closed]: cannot list down:media/"]);
}

#[test]
fn servers_are_added_listed_tried_and_taken_off() {
    let scene = Scene::start();
    let addresses = scene.server.addresses();
    let listed = scene.run(&["peer", "ls"]).success();
    assert!(listed.starts_with("store  "), "{listed}");
    for address in &addresses {
        assert!(listed.contains(&format!("  {address}, both, sealed\n")), "{listed}");
    }
    let (_, objects) = scene.objects(&["peer", "ls"]);
    assert_eq!(
        (&objects[0]["key"], objects[0]["lines"].as_array().unwrap().len()),
        (&scene.server_key.clone().into(), 2)
    );

    let (code, lines) = scene.objects(&["ping", "store", "--count", "2"]);
    assert_eq!((code, lines.len()), (Some(0), 2));
    for line in &lines {
        assert_eq!((&line["reached"], &line["protection"]), (&2.into(), &"sealed".into()), "{line}");
        assert!(line["rtt_median_ms"].as_f64().unwrap() >= line["rtt_min_ms"].as_f64().unwrap());
    }
    let roles = ["ping", "store", "--bulk-via", "127.0.0.1", "--keys-via", "127.0.0.2"];
    let (_, lines) = scene.objects(&roles);
    assert!(lines.iter().any(|line| line["role"] == "bulk" && line["protection"] == "signed"), "{lines:?}");
    assert!(lines.iter().any(|line| line["role"] == "keys" && line.get("protection").is_none()), "{lines:?}");

    // One line that nobody answers on.
    let nobody = unused();
    scene.run(&["peer", "add", "store", &scene.server_key, &nobody.to_string()]).success();
    let done = scene.run(&["ping", "store"]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    let text = String::from_utf8(done.out).unwrap();
    assert!(text.contains(&format!("{nobody} (both): not reached, Connection refused")), "{text}");

    let other = scene.run(&["peer", "add", "store", &scene.client_key, "127.0.0.1:1"]);
    other.failure_with(5, &["error[wrong-key]", "has changed", "--replace"]);
    scene.run(&["peer", "rm", "other"]).failure_with(3, &["error[unknown-peer]", "names store"]);
    scene.run(&["peer", "rm", "store"]).success();
    assert_eq!(scene.run(&["peer", "ls"]).success(), "");
}

/// An address that nobody listens at: bound, so that nobody else has it meanwhile.
fn unused() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // It is kept for as long as the test runs.
    std::mem::forget(socket);
    address
}

#[test]
fn b10_a_command_says_over_which_lines_it_goes_and_how_they_are_protected() {
    let scene = Scene::start();
    scene.write("file", "bytes");
    let missing = scene.run(&["ls", "store:media", "--via", "no-such-if0"]);
    missing.failure_with(6, &["error[interface-missing]", "no-such-if0", "127.0.0.1"]);
    scene
        .run(&["ls", "store:media", "--bulk-via", "127.0.0.1"])
        .failure_with(2, &["error[settings]", "--keys-via"]);
    let entry = fs::read_to_string(scene.station.settings("peers.toml")).unwrap();
    scene.station.set("peers.toml", &format!("{}protection = \"sealed\"\n", entry));
    let weak = scene.run(&["cat", "store:media/file", "--protection", "signed"]);
    weak.failure_with(7, &["error[policy]", "asks for sealed at least", "data: nothing was sent"]);
    assert_eq!(scene.run(&["cat", "store:media/file", "--protection", "sealed"]).success(), "bytes");
    // Two interfaces of this machine, or addresses, are two lines, and each is where its connections come from.
    let two = ["--json", "ping", "store", "--via", "127.0.0.1", "--via", "127.0.0.2"];
    let (code, told) = scene.objects(&two[1..]);
    let told: Vec<_> = told.iter().map(|line| (line["via"].as_str().unwrap(), &line["reached"])).collect();
    assert_eq!((code, told), (Some(0), vec![("127.0.0.1", &5.into()), ("127.0.0.2", &5.into())]));
    scene.write("large", support::pattern(8 << 20));
    let copy = scene.station.at("large");
    let both = [&["cp", "store:media/large", copy.to_str().unwrap()], &two[3..]].concat();
    scene.run(&both).success();
    assert!(fs::read(copy).unwrap() == support::pattern(8 << 20));
    for from in ["127.0.0.1", "127.0.0.2"] {
        scene.server.log_has(&format!(" peer={from}}}"));
    }
    // Lines are described in one place: where arguments do it, a variable adds none that they do not name.
    let roles = ["--json", "ping", "store", "--bulk-via", "127.0.0.1", "--keys-via", "127.0.0.2"];
    let told = objects(&finish(scene.station.command(&roles).env("BOWLINE_VIA", "127.0.0.1")));
    let told: Vec<_> = told.iter().map(|line| line["role"].as_str().unwrap()).collect();
    assert!(told.contains(&"bulk") && told.contains(&"keys") && !told.contains(&"both"), "{told:?}");
    let told = objects(&finish(scene.station.command(&roles[..3]).env("BOWLINE_VIA", "127.0.0.1")));
    assert!(!told.is_empty() && told.iter().all(|line| line["via"] == "127.0.0.1"), "{told:?}");
}

#[test]
fn settings_come_from_files_variables_and_arguments_in_this_order() {
    let scene = Scene::start();
    scene.write("file", "bytes");
    let elsewhere = scene.station.at("elsewhere.toml");
    fs::rename(scene.station.settings("peers.toml"), &elsewhere).unwrap();
    scene
        .run(&["cat", "store:media/file"])
        .failure_with(3, &["error[unknown-peer]", "no server is known yet"]);
    scene.station.set("config.toml", &format!("peers = {elsewhere:?}\nvia = [\"127.0.0.1\"]\n"));
    assert_eq!(scene.run(&["cat", "store:media/file"]).success(), "bytes");
    let shown = scene.run(&["config", "show", "--origin"]).success();
    assert!(
        shown.contains(&format!("peers = {}  # ", elsewhere.display()))
            && shown.contains("config.toml: line 1")
    );
    let variable = finish(scene.station.command(&["--json", "config", "show"]).env("BOWLINE_PEERS", "/none"));
    let settings = objects(&variable);
    let of = |name: &str| settings.iter().find(|setting| setting["name"] == name).unwrap().clone();
    assert_eq!(
        (&of("peers")["value"], &of("peers")["origin"]),
        (&"/none".into(), &"environment: BOWLINE_PEERS".into())
    );
    assert_eq!((&of("via")["value"], of("key").get("value")), (&"127.0.0.1".into(), None));
    let denied = finish(scene.station.command(&["cat", "store:media/file"]).env("BOWLINE_PEERS", "/none"));
    denied.failure_with(3, &["/none does not exist"]);
    scene.station.set("config.toml", "jobs = 0\n");
    let copy = scene.station.at("copy");
    let copy = ["cp", "store:media/file", copy.to_str().unwrap()];
    finish(scene.station.command(&copy).env("BOWLINE_PEERS", &elsewhere))
        .failure_with(2, &["\"jobs\"", "from 1 to 1024", "--jobs"]);
    scene.station.set("config.toml", "peer = \"/none\"\n");
    scene
        .run(&["ls", "store:media"])
        .failure_with(2, &["error[settings]", "config.toml: line 1", "there is no setting \"peer\""]);
    assert!(
        scene.run(&["explain", "settings"]).success().contains("config show --origin"),
        "it can be looked up all the same"
    );
}

#[test]
fn codes_are_explained_and_the_manual_and_completions_are_there() {
    let user = User::new();
    let all = user.run(&["explain"]).success();
    let one = user.run(&["explain", "wrong-key"]).success();
    assert!(all.contains(&one) && one.starts_with("wrong-key\n  Ends with 5."), "{one}");
    user.run(&["explain", "nothing"]).failure_with(3, &["wrong-key", "bowline explain"]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(user.run(&["completions", shell]).success().contains("bowline"));
    }
    assert!(user.run(&["man"]).success().contains(".TH bowline 1"));
    fs::create_dir(user.at("man")).unwrap();
    user.run(&["man", "--dir", user.at("man").to_str().unwrap()]).success();
    assert!(user.at("man/bowline-peer-trust.1").metadata().unwrap().size() > 0);
}
