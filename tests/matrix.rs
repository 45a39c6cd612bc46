//! Who gets a duplicate handle with which key: everybody who could come by a key, with every key that there is. Real
//! server processes, recorded sockets.
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
use std::time::Duration;

use bowline::client::{Error, File, OpenOptions, Session};
use bowline::model::{ByteRange, LineRole, LineSet, LockMode, Reason, ResumeKey};
use bowline::secure::Identity;
use support::{EXPORT, Entry, LONG, World, new_identity, reason};

mod support;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

/// Those who present a key.
struct Callers {
    owner: Arc<Identity>,
    /// Listed with the owner's own rights, as another key of the same person is.
    twin: Arc<Identity>,
    /// Listed with rights of its own.
    other: Arc<Identity>,
    /// Listed, and nothing of the export is for it.
    outsider: Arc<Identity>,
}

impl Callers {
    fn new() -> Self {
        let [owner, twin, other, outsider] = [(); 4].map(|()| new_identity());
        Self { owner, twin, other, outsider }
    }

    async fn world(&self) -> World {
        let entries = [
            Entry::all(self.owner.public()),
            Entry::all(self.twin.public()),
            Entry { rights: &["read", "write"], ..Entry::all(self.other.public()) },
            Entry { exports: &[], ..Entry::all(self.outsider.public()) },
        ];
        let world = World::with_clients(b"content", Arc::clone(&self.owner), &entries).await;
        for name in ["valid", "expired", "revoked", "closed"] {
            fs::write(world.file(name), name).unwrap();
        }
        world
    }

    fn each(&self) -> [(&'static str, &Arc<Identity>); 4] {
        [
            ("the owner", &self.owner),
            ("another key of the same account", &self.twin),
            ("another account", &self.other),
            ("one without rights on the file", &self.outsider),
        ]
    }
}

async fn open(world: &World, session: &Session, name: &str, grace: Duration) -> (File, ResumeKey) {
    let options = OpenOptions::new().read(true).write(true).grace(grace);
    let file = session.open(EXPORT, name, &options).await.unwrap();
    let key = world.key_of(&file).await;
    (file, key)
}

/// Whether the server has this file open.
fn is_open(world: &World, name: &str) -> bool {
    let folder = fs::read_dir(format!("/proc/{}/fd", world.pid())).unwrap();
    folder.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == world.file(name)))
}

async fn until_closed(world: &World, name: &str) {
    let closed = async {
        while is_open(world, name) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, closed).await.expect("the open ends");
}

/// What a refused caller can learn: everything that the error says.
fn all_of(error: &Error) -> String {
    format!("{error} {error:?} {:?} {:?}", error.errno(), error.retry_after())
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_only_its_owner_resumes_with_a_valid_key_and_all_others_hear_the_same() {
    let callers = Callers::new();
    let (world, elsewhere) = (callers.world().await, callers.world().await);
    let (long, short) = (Duration::from_secs(300), Duration::from_millis(1));

    let session = world.connect(BOTH).await;
    let (kept, valid) = open(&world, &session, "valid", long).await;
    let (original, lasting) = open(&world, &session, "revoked", long).await;
    // The open lives on; the handle whose key it is was given up, and its keys with it.
    let duplicate = world.resume(&session, &lasting, LineSet::ALL).await.unwrap();
    let revoked = world.key_of(&duplicate).await;
    duplicate.close().await.unwrap();
    let (file, closed) = open(&world, &session, "closed", long).await;
    file.close().await.unwrap();
    let leaving = world.connect(BOTH).await;
    let (file, expired) = open(&world, &leaving, "expired", short).await;
    file.leave_open();
    leaving.close().await;
    // Its grace is over, and somebody else takes the file.
    let contender = world.connect_as(&callers.other, &world.peer(BOTH)).await;
    let options = OpenOptions::new().read(true).write(true).exclusive();
    let taking = async {
        loop {
            match contender.open(EXPORT, "expired", &options).await {
                Ok(file) => return file,
                Err(error) => assert_eq!(error.reason(), Some(Reason::Busy)),
            }
        }
    };
    let taken = tokio::time::timeout(LONG, taking).await.expect("the open gives way");
    taken.close().await.unwrap();
    contender.close().await;
    until_closed(&world, "expired").await;
    let far = elsewhere.connect(BOTH).await;
    let (far_file, foreign) = open(&elsewhere, &far, "valid", long).await;
    world.note_key(&foreign);

    let keys = [
        ("valid", &valid),
        ("expired", &expired),
        ("revoked", &revoked),
        ("closed", &closed),
        ("of another server", &foreign),
    ];
    let (mut cells, mut answers) = (0, Vec::new());
    for (who, identity) in callers.each() {
        let presenting = world.connect_as(identity, &world.peer(BOTH)).await;
        for (what, key) in keys {
            cells += 1;
            let outcome = world.resume(&presenting, key, LineSet::ALL).await;
            if (who, what) == ("the owner", "valid") {
                let file = outcome.unwrap();
                assert_eq!(file.read_chunk(0, 100).await.unwrap()[..], *b"valid");
                file.close().await.unwrap();
            } else {
                let error = outcome.err().unwrap_or_else(|| panic!("{who} got in with a key that is {what}"));
                if (who, what) == ("the owner", "expired") {
                    assert_eq!(
                        error.reason(),
                        Some(Reason::TakenOver),
                        "the rightful owner hears what it is"
                    );
                    continue;
                }
                assert_eq!(error.reason(), Some(Reason::ResumeRefused), "{who}, {what}");
                answers.push(all_of(&error));
            }
        }
        presenting.close().await;
    }
    assert_eq!((cells, answers.len()), (20, 18));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "one answer: {answers:#?}");
    // What they are not told stands in the server's log.
    for why in ["WrongIdentity", "NoSuchKey", "NoSuchOpen"] {
        world.until_log_says(why).await;
    }
    // Nobody lost anything by it: neither a handle nor a key.
    for (file, name) in [(&kept, "valid"), (&original, "revoked")] {
        assert_eq!(file.read_chunk(0, 100).await.unwrap()[..], *name.as_bytes());
        file.write_at(0, b"x").await.unwrap();
    }
    assert_eq!(far_file.read_chunk(0, 100).await.unwrap()[..], *b"valid");
    for key in [&valid, &lasting] {
        world.resume(&session, key, LineSet::ALL).await.unwrap();
    }
    elsewhere.resume(&far, &foreign, LineSet::ALL).await.unwrap();
}

/// A reconnect that did not compare owners gave an orphan to whoever knew its name.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_31717_an_orphan_is_given_to_nobody_but_its_owner() {
    let callers = Callers::new();
    let world = callers.world().await;
    let session = world.connect(BOTH).await;
    let options = OpenOptions::new().read(true).write(true).exclusive();
    let file = session.open(EXPORT, "valid", &options).await.unwrap();
    let key = world.key_of(&file).await;
    let handle = file.handle();
    file.lock(ByteRange::ALL, LockMode::Exclusive, LONG).await.unwrap();
    file.leave_open();
    session.close().await;

    for (who, identity) in callers.each().into_iter().skip(1) {
        let thief = world.connect_as(identity, &world.peer(BOTH)).await;
        // With the handle that it replaces, as an owner who was cut off would, and without.
        let outcome = thief.resume_in_place_of(handle, &key, LineSet::ALL).await;
        assert_eq!(reason(outcome), Reason::ResumeRefused, "{who}");
        assert_eq!(reason(thief.resume(&key, LineSet::ALL).await), Reason::ResumeRefused, "{who}");
        let open = thief.open(EXPORT, "valid", &OpenOptions::new().read(true)).await;
        assert!(matches!(reason(open), Reason::Busy | Reason::NotFound), "{who}: it keeps others out still");
    }
    assert!(is_open(&world, "valid"));
    let owner = world.connect(BOTH).await;
    let back = owner.resume_in_place_of(handle, &key, LineSet::ALL).await.unwrap();
    world.key_of(&back).await;
    back.write_at(0, b"mine!").await.unwrap();
    assert_eq!(fs::read(world.file("valid")).unwrap(), b"mine!");
}
