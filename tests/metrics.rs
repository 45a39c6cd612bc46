//! `bowline serve --metrics`: each metric moves with what it counts, and none tells a name.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bowline::client::{Client, GrantOptions, OpenOptions, Peers, Session};
use bowline::model::{
    Allocation, ByteRange, GrantId, LineSet, LockMode, Reason, Rights, SyncScope, XattrHow,
};
use bowline::wire::{ClientControl, ClientData};
use program::{Server, User, export};
use support::{LONG, new_identity};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// What a server answers to a request of its metrics' address.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The samples, by name and labels.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: server\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    for word in ["media", "edit-station", "film.mov", "gone.mov", "/tmp"] {
        assert!(!body.contains(word), "{word} is told: {body}");
    }
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Asks until a sample is as it should be.
fn until(address: SocketAddr, name: &str, is_right: impl Fn(f64) -> bool) {
    for _ in 0..4_000 {
        if scrape(address).get(name).copied().is_some_and(&is_right) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{name}: {:#?}", scrape(address));
}

/// A server with metrics, and two sessions of a client of its.
async fn scene() -> (User, Server, SocketAddr, [Session; 2]) {
    scene_of(&[]).await
}

/// As [`scene`], with a server that another program starts.
async fn scene_of(starter: &[&str]) -> (User, Server, SocketAddr, [Session; 2]) {
    let store = User::new();
    let key = store.make_key();
    fs::create_dir(store.at("media")).unwrap();
    fs::write(store.at("media/film.mov"), "0123456789").unwrap();
    let identity = new_identity();
    store.set(
        "clients.toml",
        &format!(
            "[[client]]\nkey = \"{}\"\nname = \"edit-station\"\nexports = [\"media\"]\nrights = [\"read\", \"write\", \"lock\"]\n",
            identity.public()
        ),
    );
    let media = export("media", &store.at("media"));
    let arguments =
        ["serve", &media, "--until-stdin-closes", "--metrics", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let mut command = match starter {
        [] => store.command(&arguments),
        [program, more @ ..] => {
            let all = [more, &[env!("CARGO_BIN_EXE_bowline")], &arguments[..]].concat();
            store.command_of(program, &all)
        }
    };
    let server = Server::start(command.env("BOWLINE_LOG", "info"), store.secrets());
    let line = server.out_has("metrics on ");
    let address = line.strip_prefix("metrics on http://").unwrap().strip_suffix("/metrics").unwrap();
    let peers = store.at("peers.toml");
    let entry =
        format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"{}\"]\n", server.addresses()[0]);
    fs::write(&peers, entry).unwrap();
    let peers = Peers::load(&peers).unwrap();
    let connect =
        async || Client::new(identity.clone()).unwrap().connect(peers.named("store").unwrap()).await.unwrap();
    let sessions = [connect().await, connect().await];
    (store, server, address.parse().unwrap(), sessions)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_metric_moves_with_what_it_counts() {
    let (store, server, address, [first, second]) = scene().await;
    let options = OpenOptions::new().read(true).write(true);
    let file = first.open("media", "film.mov", &options).await.unwrap();
    let other = second.open("media", "film.mov", &options).await.unwrap();
    let gone = first.open("media", "gone.mov", &options.clone().create(true)).await.unwrap();
    fs::remove_file(store.at("media/gone.mov")).unwrap();
    gone.write_at(0, b"kept").await.unwrap();
    assert!(first.open("media", "missing", &options).await.is_err());
    let range = ByteRange::between(0, 4).unwrap();
    file.lock(range, LockMode::Exclusive, Duration::ZERO).await.unwrap();
    let waiting = tokio::spawn(async move {
        other.lock(range, LockMode::Exclusive, LONG).await.unwrap();
        other
    });
    let before = scrape(address);
    file.write_at(4, b"abc").await.unwrap();
    assert_eq!(file.read_at(0, &mut [0; 10]).await.unwrap(), 10);
    let after = scrape(address);
    let rise = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    assert_eq!(rise("bowline_written_bytes_total"), 3.0);
    assert_eq!(rise("bowline_read_bytes_total"), 10.0);
    assert_eq!(rise("bowline_payload_bytes_total{direction=\"in\",protection=\"sealed\"}"), 3.0);
    assert_eq!(rise("bowline_payload_bytes_total{direction=\"out\",protection=\"sealed\"}"), 10.0);
    assert_eq!(rise("bowline_requests_total{kind=\"Write\",outcome=\"done\"}"), 1.0);
    assert_eq!(rise("bowline_requests_total{kind=\"Read\",outcome=\"done\"}"), 1.0);
    assert_eq!(after["bowline_requests_total{kind=\"Open\",outcome=\"done\"}"], 3.0);
    assert_eq!(after["bowline_requests_total{kind=\"Open\",outcome=\"refused\"}"], 1.0);
    assert_eq!(after["bowline_sessions"], 2.0);
    assert_eq!(after["bowline_channels{kind=\"control\",protection=\"sealed\"}"], 2.0);
    assert_eq!(after["bowline_opens{state=\"held\"}"], 3.0);
    assert_eq!(after["bowline_holders"], 3.0);
    assert_eq!(after["bowline_locks"], 1.0);
    until(address, "bowline_lock_waits", |waits| waits == 1.0);
    assert!(after["bowline_descriptors{state=\"open\"}"] >= 2.0, "{after:#?}");
    assert!(after["bowline_handshakes_total{outcome=\"proven\"}"] >= 2.0);
    assert!(after["bowline_handshake_steps_total"] >= 4.0);
    assert!(
        after["bowline_store_commit_seconds_count"] >= 3.0 && after["bowline_store_commit_seconds_sum"] > 0.0
    );

    file.unlock(range).await.unwrap();
    let other = waiting.await.unwrap();
    until(address, "bowline_lock_waits", |waits| waits == 0.0);

    // A session that is gone.
    drop((other, second));
    until(address, "bowline_sessions", |sessions| sessions == 1.0);

    // A connection that says nothing, then many that say nonsense.
    let silent = TcpStream::connect(server.addresses()[0]).unwrap();
    until(address, "bowline_half_open_connections", |half_open| half_open == 1.0);
    drop(silent);
    let refused = "bowline_handshakes_total{outcome=\"no_hello\"}";
    until(address, refused, |count| count >= 1.0);
    let turned_away = "bowline_turned_away_total{reason=\"no_token\"}";
    let listen = server.addresses()[0];
    let fails = |_| {
        drop(TcpStream::connect(listen).unwrap());
        scrape(address)[turned_away] > 0.0
    };
    assert!((0..4_000).any(fails), "a network that fails is turned away");
    drop((file, gone, first));

    // All of this was logged, and no name of a file is in it.
    let mut server = server;
    server.close_input();
    let (status, _, log) = server.ended();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("channel bound")), "{log:#?}");
    for name in ["film.mov", "gone.mov", "missing"] {
        assert!(log.iter().all(|line| !line.contains(name)), "{name} is in the log: {log:#?}");
    }
    drop(store);
}

/// Requests that clients make; the others begin and end channels, are answered by nothing, or are made after an outage only.
fn is_request(name: &str) -> bool {
    !["Inquire", "Begin", "Attach", "Ping", "Pong", "Farewell", "Rekey", "Heard", "Trailer"].contains(&name)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_request_is_counted_and_each_state_of_an_open() {
    let (store, server, address, [first, second]) = scene().await;
    let options = OpenOptions::new().read(true).write(true);
    let media = first.export("media").unwrap();
    let file = media.open("film.mov", &options).await.unwrap();
    let names = async {
        media.create_dir("dir", 0o755).await?;
        media.symlink("elsewhere", "link").await?;
        media.read_link("link").await?;
        media.hard_link("film.mov", "again").await?;
        media.rename("again", "dir/again").await?;
        media.metadata("film.mov").await?;
        media.space("").await?;
        media.set_permissions("film.mov", 0o600).await?;
        let mut entries = media.read_dir("").await?;
        while entries.next_entry().await?.is_some() {}
        media.remove_file("dir/again").await
    };
    names.await.unwrap();
    let attribute = "user.kind";
    file.set_xattr(attribute, b"film", XattrHow::Set).await.unwrap();
    file.xattr(attribute).await.unwrap();
    file.xattr_names().await.unwrap();
    file.remove_xattr(attribute).await.unwrap();
    file.write_at(0, b"abc").await.unwrap();
    file.read_at(0, &mut [0; 3]).await.unwrap();
    file.append(b"end").await.unwrap();
    file.stat().await.unwrap();
    file.sync(SyncScope::All).await.unwrap();
    file.seek_data(0).await.unwrap();
    let range = ByteRange::between(0, 4).unwrap();
    file.allocate(range, Allocation::ReserveKeepLen).await.unwrap();
    file.lock(range, LockMode::Exclusive, Duration::ZERO).await.unwrap();
    // One who waits and gives up.
    let other = second.open("media", "film.mov", &options).await.unwrap();
    let waiting = tokio::spawn(async move { other.lock(range, LockMode::Shared, LONG).await });
    until(address, "bowline_lock_waits", |waits| waits == 1.0);
    waiting.abort();
    until(address, "bowline_lock_waits", |waits| waits == 0.0);
    file.unlock(range).await.unwrap();
    let keyless = media.open("film.mov", &options.clone().with_key(false)).await.unwrap();
    let key = keyless.resume_key().await.unwrap();
    second.resume(&key, LineSet::ALL).await.unwrap().close().await.unwrap();
    // To another identity of the list; it need not be there to take it.
    let to = new_identity();
    let refused = file.grant(&to.public(), GrantOptions::of(Rights::READ)).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::PermissionDenied), "{refused}");
    keyless.close().await.unwrap();
    let none = GrantId(9);
    first.take_grant(none).await.unwrap_err();
    drop(file.revoke(none).await);

    let told = scrape(address);
    let kinds = ClientControl::KINDS.iter().chain(ClientData::KINDS);
    for (name, _) in kinds.filter(|(name, _)| is_request(name)) {
        let count = |outcome: &str| {
            let sample = format!("bowline_requests_total{{kind=\"{name}\",outcome=\"{outcome}\"}}");
            told.get(&sample).copied().unwrap_or(0.0)
        };
        assert!(count("done") + count("refused") >= 1.0, "{name} is not counted: {told:#?}");
    }

    // Held, left behind, and left behind for longer than it keeps others out.
    let held = "bowline_opens{state=\"held\"}";
    until(address, held, |opens| opens >= 1.0);
    file.leave_open();
    let short = options.clone().grace(Duration::from_millis(1));
    media.open("film.mov", &short).await.unwrap().leave_open();
    drop(media);
    first.close().await;
    until(address, "bowline_opens{state=\"orphaned\"}", |opens| opens == 1.0);
    until(address, "bowline_opens{state=\"lapsed\"}", |opens| opens == 1.0);
    until(address, "bowline_sessions_ended_total{reason=\"closed\"}", |_| true);
    until(address, "bowline_channels_lost_total{reason=\"farewell\"}", |lost| lost >= 2.0);
    // Another client that wants all of it: one gives way, the other one is within its grace.
    let exclusive = options.clone().exclusive();
    assert!(second.open("media", "film.mov", &exclusive).await.is_err());

    // A file without a name keeps its descriptor.
    let gone = second.open("media", "gone.mov", &options.clone().create(true)).await.unwrap();
    let pinned = "bowline_descriptors{state=\"pinned\"}";
    let before = scrape(address)[pinned];
    second.export("media").unwrap().remove_file("gone.mov").await.unwrap();
    until(address, pinned, |now| now == before + 1.0);
    drop(gone);
    drop((store, server));
}

/// More open files than descriptors, and an open that ends without its client's doing.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_make_room_and_opens_that_are_ended_are_counted() {
    let (store, _server, address, [first, second]) =
        scene_of(&["sh", "-c", "ulimit -n 512 && exec \"$@\"", "sh"]).await;
    let evicted = "bowline_descriptors_evicted_total";
    assert_eq!(scrape(address)[evicted], 0.0);
    let options = OpenOptions::new().read(true).write(true);
    let mut files = Vec::new();
    // As many as there can be descriptors in all: some are kept for connections.
    for number in 0..512 {
        let name = format!("many-{number}");
        files.push(first.open("media", &name, &options.clone().create(true)).await.unwrap());
    }
    until(address, evicted, |count| count >= 1.0);
    drop(files);

    let ended = "bowline_opens_ended_total{reason=\"released\"}";
    let before = scrape(address).get(ended).copied().unwrap_or(0.0);
    let held = second.open("media", "film.mov", &options.exclusive()).await.unwrap();
    let status = store.run(&["--json", "status"]).success();
    let is_held = |line: &&str| line.contains("\"type\":\"open\"") && line.contains("\"share\":[]");
    let open: serde_json::Value = serde_json::from_str(status.lines().find(is_held).unwrap()).unwrap();
    store.run(&["release", open["open"].as_str().unwrap()]).success();
    until(address, ended, |count| count == before + 1.0);
    assert_eq!(held.stat().await.unwrap_err().reason(), Some(Reason::Released));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_metrics_is_answered() {
    let (_store, server, address, _sessions) = scene().await;
    let status = |request: &str| ask(address, request).lines().next().unwrap_or_default().to_owned();
    assert_eq!(status("GET /etc/passwd HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status("DELETE /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status("hello\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert!(scrape(address)["bowline_sessions"] >= 1.0, "it goes on");
    drop(server);
}
