//! What an open has while no client reaches it: who gets it back, who waits for it and for how long, and how many of them a
//! client may leave behind. Real servers, real sockets.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{
    ByteRange, HandleId, Limits, LineRole, LineSet, LockMode, Meanwhile, Reason, ResumeKey,
};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use support::{EXPORT, Entry, LINE_1, LONG, Searched, World, new_identity, pattern, reason, two};
use tokio::time::timeout;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

fn locked() -> ByteRange {
    ByteRange::between(100, 200).unwrap()
}

/// Opens the world's file in a session of its own, and leaves it behind: its key.
async fn leave(world: &World, options: &OpenOptions) -> ResumeKey {
    leave_handle(world, options).await.1
}

async fn leave_handle(world: &World, options: &OpenOptions) -> (HandleId, ResumeKey) {
    let session = world.connect(BOTH).await;
    let file = world.open(&session, options).await.unwrap();
    let key = (file.handle(), world.key_of(&file).await);
    file.leave_open();
    session.close().await;
    key
}

/// How long somebody else has to wait for the world's file, by the server's word.
async fn left(world: &World, other: &Session) -> Duration {
    loop {
        let busy = world.open(other, &read_write().exclusive()).await.unwrap_err();
        assert_eq!(busy.reason(), Some(Reason::Busy));
        // Until the server has noticed that nobody is there, it cannot say.
        if let Some(left) = busy.retry_after() {
            return left;
        }
    }
}

/// Both get a handle of the one open: what one of them has locked is the other's as well, and neither is moved or ended.
/// Somebody else who presents the key at the same moment gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn f33_two_clients_that_present_one_key_at_once_share_the_open_and_a_third_gets_nothing() {
    let (world, first, thief) = two(&pattern(5000)).await;
    let second = world.connect(BOTH).await;
    for round in 0..20_u8 {
        let options = read_write().exclusive().lock(locked(), LockMode::Exclusive);
        let (handle, key) = leave_handle(&world, &options).await;
        // Each of them as the one that goes on after an outage.
        let resume = async |session: &Session| {
            world.noted(session.resume_in_place_of(handle, &key, LineSet::ALL).await)
        };
        let (one, stolen, other) = tokio::join!(resume(&first), resume(&thief), resume(&second));
        assert_eq!(reason(stolen), Reason::ResumeRefused);
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_ne!(one.handle(), other.handle());
        one.write_at(150, &[round]).await.unwrap();
        let mut byte = [0];
        other.read_at(150, &mut byte).await.unwrap();
        assert_eq!(byte, [round]);
        // It ends with the last of them.
        one.close().await.unwrap();
        other.write_at(150, &[round + 100]).await.unwrap();
        assert_eq!(reason(world.open(&thief, &read_write()).await), Reason::Busy);
        other.close().await.unwrap();
        world.open(&thief, &read_write()).await.unwrap().close().await.unwrap();
    }
}

/// The one who comes last in time has as much time again when it goes.
#[tokio::test(flavor = "multi_thread")]
async fn f36_who_comes_back_near_the_end_of_the_grace_has_all_of_it_again() {
    let (world, _, other) = two(&pattern(5000)).await;
    let grace = Duration::from_secs(2);
    let mut key = leave(&world, &read_write().exclusive().grace(grace)).await;
    for _ in 0..2 {
        // The server is asked again and again, because nothing tells how much is left.
        while left(&world, &other).await > grace / 4 {}
        let session = world.connect(BOTH).await;
        let back = world.resume(&session, &key, LineSet::ALL).await.unwrap();
        assert_eq!(back.meanwhile(), Some(Meanwhile::Unchanged));
        key = world.key_of(&back).await;
        back.leave_open();
        session.close().await;
        let left = left(&world, &other).await;
        assert!(left > grace / 2 && left <= grace, "{left:?}");
    }
}

/// For its grace an orphan refuses who conflicts with it, by its share mode or by its locks, and lets the others in; then
/// it gives way, and its owner hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn f37_who_conflicts_with_an_orphan_is_refused_for_its_grace_and_gets_its_place_after_it() {
    let (world, own, other) = two(&pattern(5000)).await;
    let grace = Duration::from_secs(1);
    let key = leave(&world, &read_write().exclusive().grace(grace)).await;
    let opening = async {
        loop {
            match world.open(&other, &read_write()).await {
                Ok(file) => return file,
                Err(error) => {
                    assert_eq!(error.reason(), Some(Reason::Busy));
                    assert!(error.retry_after().is_none_or(|left| left <= grace));
                }
            }
        }
    };
    let taken = timeout(LONG, opening).await.unwrap();
    assert_eq!(reason(world.resume(&own, &key, LineSet::ALL).await), Reason::TakenOver);
    taken.close().await.unwrap();

    let key = leave(&world, &read_write().grace(grace).lock(locked(), LockMode::Exclusive)).await;
    let beside = world.open(&other, &read_write()).await.unwrap();
    beside.write_at(500, b"not locked").await.unwrap();
    let refused = reason(beside.try_lock(locked(), LockMode::Shared).await);
    assert!(matches!(refused, Reason::Locked | Reason::Busy), "{refused:?}");
    // Who waits gets it when the grace is over.
    timeout(LONG, beside.lock(locked(), LockMode::Exclusive, LONG)).await.unwrap().unwrap();
    beside.write_at(150, b"mine now").await.unwrap();
    assert_eq!(reason(world.resume(&own, &key, LineSet::ALL).await), Reason::TakenOver);
}

/// The list of clients is changed while a file is open: what is not allowed any more is refused, and the server and the
/// session go on.
#[tokio::test(flavor = "multi_thread")]
async fn f39_a_client_whose_entry_becomes_read_only_or_loses_its_export_is_refused_and_nothing_breaks() {
    let world = World::start(&pattern(5000)).await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    file.write_at(0, b"before").await.unwrap();
    let all = Entry::all(world.identity.public());
    let in_force = || world.log().matches("the list of clients is in force").count();
    let change = async |entry: Entry| {
        let before = in_force();
        world.set_clients(&[entry]);
        world.until("the new list is in force", || in_force() > before).await;
    };
    change(Entry { rights: &["read"], ..all.clone() }).await;
    assert_eq!(reason(file.write_at(0, b"after!").await), Reason::PermissionDenied);
    assert_eq!(reason(file.set_len(0).await), Reason::PermissionDenied);
    let mut bytes = [0; 6];
    file.read_at(0, &mut bytes).await.unwrap();
    assert_eq!(&bytes, b"before");

    change(Entry { exports: &[], ..all.clone() }).await;
    assert!(file.read_at(0, &mut bytes).await.is_err());
    assert!(world.open(&session, &read_write()).await.is_err());

    change(all).await;
    let again = world.open(&session, &read_write()).await.unwrap();
    again.write_at(0, b"again!").await.unwrap();
    assert_eq!(&std::fs::read(world.file("file")).unwrap()[..6], b"again!");
}

/// A server in this process, whose bounds can be reached, and its clients.
struct Place {
    server: Server,
    key: bowline::model::PublicKey,
    folder: tempfile::TempDir,
    searched: Searched,
}

impl Place {
    fn start(limits: Limits, clients: &[&Arc<Identity>]) -> Self {
        let (folder, identity) = (tempfile::tempdir().unwrap(), new_identity());
        let entries = clients.iter().enumerate().map(|(at, client)| {
            format!(
                "[[client]]\nkey = \"{}\"\nname = \"client-{at}\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\n",
                client.public()
            )
        });
        let policy = parse_clients(&entries.collect::<String>()).unwrap();
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let config = ServerConfig::new(Arc::clone(&identity), exports, policy);
        let listen = vec![(LINE_1, 0).into()];
        let server = Server::start(ServerConfig { limits, listen, ..config }).unwrap();
        let searched = Searched::new(clients.iter().copied().chain([&identity]));
        Self { server, key: identity.public(), folder, searched }
    }

    async fn connect(&self, client: &Arc<Identity>) -> Session {
        let address = self.server.addresses()[0];
        let line = LineConfig { address, via: None, role: LineRole::Both, protection: None };
        let peer = Peer { name: "server".into(), key: self.key, protection_min: None, lines: vec![line] };
        Client::new(Arc::clone(client)).unwrap().connect(&peer).await.unwrap()
    }

    async fn open(&self, session: &Session, name: &str) -> Result<File, bowline::client::Error> {
        std::fs::write(self.folder.path().join(name), name).unwrap();
        let options = read_write().grace(Duration::from_millis(1));
        self.searched.noted(session.open(EXPORT, name, &options).await)
    }

    /// Leaves an orphan behind, in a session of its own.
    async fn leave(&self, client: &Arc<Identity>, name: &str) -> ResumeKey {
        let session = self.connect(client).await;
        let file = self.open(&session, name).await.unwrap();
        let key = file.kept_key().unwrap();
        file.leave_open();
        session.close().await;
        key
    }
}

/// Who leaves much behind loses what it has left longest. Others lose nothing by it, however long theirs has been there.
#[tokio::test(flavor = "multi_thread")]
async fn t18_who_has_most_opens_and_orphans_is_bounded_and_nobody_else_notices() {
    let (greedy, modest) = (new_identity(), new_identity());
    let mut limits = Limits::default();
    (limits.opens_per_client, limits.lapsed_per_client, limits.lapsed_total) = (20, 20, 10);
    let place = Place::start(limits, &[&greedy, &modest]);

    // Opens that are held.
    let session = place.connect(&greedy).await;
    let mut held = Vec::new();
    for number in 0..20 {
        held.push(place.open(&session, &format!("held-{number}")).await.unwrap());
    }
    assert_eq!(reason(place.open(&session, "one-more").await), Reason::Quota);
    let other = place.connect(&modest).await;
    place.open(&other, "beside").await.unwrap().close().await.unwrap();
    for file in held {
        file.close().await.unwrap();
    }

    // Orphans: the modest client's are the oldest of all.
    let mut kept = Vec::new();
    for number in 0..2 {
        kept.push(place.leave(&modest, &format!("modest-{number}")).await);
    }
    let mut keys = Vec::new();
    for number in 0..20 {
        keys.push(place.leave(&greedy, &format!("greedy-{number}")).await);
    }
    let trimmed = async {
        while place.server.opens_len() > 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, trimmed).await.unwrap();
    let ended = place.server.counts().open_ends;
    assert_eq!(ended, [("taken_over", 0), ("expired", 0), ("evicted", 12), ("released", 0)]);
    for key in &kept {
        let back = place.searched.noted(other.resume(key, LineSet::ALL).await).unwrap();
        assert_eq!(back.meanwhile(), Some(Meanwhile::Unchanged));
    }
    for (number, key) in keys.iter().enumerate() {
        let outcome = place.searched.noted(session.resume(key, LineSet::ALL).await);
        match number {
            0..12 => assert_eq!(reason(outcome), Reason::Expired, "{number}"),
            _ => assert_eq!(outcome.unwrap().meanwhile(), Some(Meanwhile::Unchanged), "{number}"),
        }
    }
    for session in [session, other] {
        session.close().await;
    }
    place.server.stop().await;
}
