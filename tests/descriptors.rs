//! Opens that outnumber the server's descriptors: everything works through them, and a file that is opened again is the
//! one that it was.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic fails the test, and the clock says how busy a server is"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bowline::client::{Client, Export, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{Limits, LineRole, LineSet, PublicKey, Reason, ResumeKey, SyncScope};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use support::{EXPORT, LONG, Searched, World, new_identity, pattern, reason};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How many descriptors the server in this process has for files.
const FEW: usize = 8;

/// A server in this process whose opens have few descriptors, and a client that it knows.
struct Place {
    folder: TempDir,
    server: Server,
    key: PublicKey,
    identity: Arc<Identity>,
    searched: Searched,
}

impl Place {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (own, identity) = (new_identity(), new_identity());
        let (key, searched) = (own.public(), Searched::new([&own, &identity]));
        let entry = format!(
            "[[client]]\nkey = \"{}\"\nname = \"client\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\n",
            identity.public()
        );
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let mut config = ServerConfig::new(own, exports, parse_clients(&entry).unwrap());
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.limits.descriptors_max = FEW;
        let server = Server::start(config).unwrap();
        Self { folder, server, key, identity, searched }
    }

    async fn connect(&self) -> Session {
        let line = LineConfig {
            address: self.server.addresses()[0],
            via: None,
            role: LineRole::Both,
            protection: None,
        };
        let peer = Peer { name: "server".into(), key: self.key, protection_min: None, lines: vec![line] };
        let session = Client::new(Arc::clone(&self.identity)).unwrap().connect(&peer).await.unwrap();
        session.all_lines_up(LONG).await.unwrap();
        session
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a file and opens it.
    async fn put(&self, session: &Session, name: &str, content: &str) -> File {
        fs::write(self.at(name), content).unwrap();
        self.searched.noted(session.open(EXPORT, name, &both()).await).unwrap()
    }

    async fn resume(&self, session: &Session, key: &ResumeKey) -> Result<File, bowline::client::Error> {
        self.searched.noted(session.resume(key, LineSet::ALL).await)
    }

    /// Uses other files until nothing else has a descriptor.
    async fn use_others(&self, session: &Session) {
        let mut others = Vec::new();
        for number in 0..FEW {
            let name = format!("other-{number}");
            others.push(self.put(session, &name, &name).await);
        }
        for (number, other) in others.into_iter().enumerate() {
            assert_eq!(read(&other).await, Ok(format!("other-{number}")));
            other.close().await.unwrap();
        }
    }

    async fn end(self) {
        tokio::time::timeout(LONG, self.server.stop()).await.unwrap();
        self.folder.close().unwrap();
    }
}

fn both() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

async fn read(file: &File) -> Result<String, Reason> {
    let bytes = file.read_chunk(0, 1000).await.map_err(|error| error.reason().unwrap())?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

fn export(session: &Session) -> Export {
    session.export(EXPORT).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn f57_two_hundred_files_are_read_and_written_through_eight_descriptors() {
    const TASKS: usize = 8;
    let place = Arc::new(Place::start());
    let sessions = [place.connect().await, place.connect().await];
    let (is_over, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let watching = std::thread::spawn({
        let (place, is_over, highest) = (Arc::clone(&place), Arc::clone(&is_over), Arc::clone(&highest));
        move || {
            while !is_over.load(Ordering::Relaxed) {
                highest.fetch_max(place.server.descriptors().open, Ordering::Relaxed);
                std::thread::yield_now();
            }
        }
    });
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let mut files = Vec::new();
        for number in 0..25 {
            let name = format!("{task}-{number}");
            files.push((place.put(&sessions[task % 2], &name, &name).await, name));
        }
        tasks.spawn(async move {
            for (at, byte) in pattern(150).into_iter().enumerate() {
                let (file, content) = &mut files[usize::from(byte) % 25];
                match byte / 25 {
                    0..4 => {
                        let new = format!("{at:03}");
                        file.write_at(0, new.as_bytes()).await.unwrap();
                        content.replace_range(..3, &new);
                    }
                    4 => file.sync(SyncScope::Data).await.unwrap(),
                    5 => assert_eq!(
                        file.stat().await.unwrap().attributes.len,
                        u64::try_from(content.len()).unwrap()
                    ),
                    _ => assert_eq!(read(file).await.as_ref(), Ok(&*content)),
                }
            }
            for (file, content) in &files {
                assert_eq!(read(file).await.as_ref(), Ok(content));
            }
            files
        });
    }
    let mut all = Vec::new();
    while let Some(files) = tasks.join_next().await {
        all.extend(files.unwrap());
    }
    is_over.store(true, Ordering::Relaxed);
    watching.join().unwrap();
    let status = place.server.descriptors();
    assert_eq!((status.opens, status.bounds.open), (200, FEW));
    assert_eq!(highest.load(Ordering::Relaxed), FEW, "never more, and all of them");
    for (file, _) in all {
        file.close().await.unwrap();
    }
    // The last descriptor is closed behind the answer to the close.
    let is_empty = || {
        let status = place.server.descriptors();
        (status.opens, status.open, status.pinned) == (0, 0, 0)
    };
    tokio::time::timeout(LONG, async {
        while !is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("no descriptor stays");
    for session in sessions {
        session.close().await;
    }
    Arc::into_inner(place).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f38_files_are_followed_through_what_clients_do_with_their_names() {
    let place = Place::start();
    let (session, other) = (place.connect().await, place.connect().await);
    fs::create_dir(place.at("folder")).unwrap();
    let renamed = place.put(&session, "folder/renamed", "renamed").await;
    let exchanged = place.put(&session, "exchanged", "exchanged").await;
    let removed = place.put(&session, "removed", "removed").await;
    let replaced = place.put(&session, "replaced", "replaced").await;
    let all =
        [(&renamed, "renamed"), (&exchanged, "exchanged"), (&removed, "removed"), (&replaced, "replaced")];
    place.use_others(&session).await;
    let names = export(&other);
    names.rename("folder", "moved").await.unwrap();
    names.rename("moved/renamed", "moved/again").await.unwrap();
    names.exchange("exchanged", "moved/again").await.unwrap();
    names.remove_file("removed").await.unwrap();
    names.rename("other-1", "replaced").await.unwrap();
    place.use_others(&session).await;
    for (file, content) in all {
        assert_eq!(read(file).await.as_deref(), Ok(content));
        file.write_at(0, b"R").await.unwrap();
        file.sync(SyncScope::All).await.unwrap();
    }
    assert_eq!(fs::read_to_string(place.at("exchanged")).unwrap(), "Renamed");
    assert_eq!(fs::read_to_string(place.at("moved/again")).unwrap(), "Rxchanged");
    assert_eq!(fs::read_to_string(place.at("replaced")).unwrap(), "other-1");
    assert_eq!(place.server.descriptors().pinned, 2);
    removed.close().await.unwrap();
    replaced.close().await.unwrap();
    assert_eq!(place.server.descriptors().pinned, 0);
    session.close().await;
    other.close().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f38_an_orphan_is_its_file_again_or_stale_and_never_another_file() {
    let place = Place::start();
    let (session, other) = (place.connect().await, place.connect().await);
    let mut keys = BTreeMap::new();
    for name in ["moved", "replaced", "deleted", "deleted-early"] {
        let file = place.put(&session, name, name).await;
        keys.insert(name, file.kept_key().unwrap());
        file.leave_open();
    }
    // While the descriptor is there, nothing that programs on the server do with the name is in the way.
    fs::remove_file(place.at("deleted-early")).unwrap();
    place.use_others(&other).await;
    export(&other).rename("moved", "somewhere else").await.unwrap();
    fs::write(place.at("new"), "another file").unwrap();
    fs::rename(place.at("new"), place.at("replaced")).unwrap();
    fs::remove_file(place.at("deleted")).unwrap();
    session.close().await;
    for (name, content) in [("moved", "moved"), ("deleted-early", "deleted-early")] {
        assert_eq!(read(&place.resume(&other, &keys[name]).await.unwrap()).await.as_deref(), Ok(content));
    }
    for name in ["replaced", "deleted"] {
        for _ in 0..2 {
            assert_eq!(reason(place.resume(&other, &keys[name]).await), Reason::Stale);
        }
    }
    assert_eq!(fs::read_to_string(place.at("replaced")).unwrap(), "another file");
    other.close().await;
    place.end().await;
}

/// Processor time of a process so far.
fn processor_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name stands in parentheses and may hold anything; proc(5) numbers the field behind it 3.
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |number: usize| fields[number - 3].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(14) + ticks(15)))
}

#[tokio::test(flavor = "multi_thread")]
async fn f57_a_server_whose_descriptors_connections_have_taken_pauses_and_recovers() {
    let world = World::with_descriptors(64, b"content").await;
    let session = world.connect([LineRole::Both; 2]).await;
    let mut files = Vec::new();
    for number in 0..100 {
        let name = format!("{number}");
        fs::write(world.file(&name), &name).unwrap();
        files.push(world.noted(session.open(EXPORT, &name, &both()).await).unwrap());
    }
    for (number, file) in files.iter().enumerate() {
        assert_eq!(read(file).await, Ok(number.to_string()));
    }

    // More silent connections than there are descriptors: most of them wait with the kernel.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(world.addresses[0]).await.unwrap());
    }
    let failures = || world.log().lines().filter(|line| line.contains("cannot accept a connection")).count();
    let until_failed = async |times: usize| {
        while failures() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, until_failed(1)).await.expect("it runs out of descriptors");
    let (began, before, first) = (Instant::now(), processor_time(world.pid()), failures());
    tokio::time::timeout(LONG, until_failed(first + 10)).await.unwrap();
    let (elapsed, used) = (began.elapsed(), processor_time(world.pid()) - before);
    assert!(used <= elapsed / 20, "{used:?} of {elapsed:?} spent on accepting nothing");

    // Those who are there go on: what is open can be used, or is refused for this reason; never anything else.
    for (number, file) in files.iter().enumerate() {
        match read(file).await {
            Ok(content) => assert_eq!(content, number.to_string()),
            Err(refused) => assert_eq!(refused, Reason::Exhausted),
        }
    }
    drop(silent);
    // A new client comes in, and everything is as it was.
    let other = world.connect([LineRole::Both; 2]).await;
    for (number, file) in files.iter().enumerate() {
        assert_eq!(read(file).await, Ok(number.to_string()));
    }
    let file = world.open(&other, &both()).await.unwrap();
    assert_eq!(read(&file).await.as_deref(), Ok("content"));
    assert!(Limits::default().descriptors_max > 32, "the process's limit is what counted");
}
