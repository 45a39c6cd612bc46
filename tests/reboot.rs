//! The server ends, by `kill -9` or because it is told to, and another one starts on its state: what was open is open,
//! what was locked is locked, and the key that was issued gets it back. Real processes, real sockets, real files.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, KeyInit, Update as _};
use bowline::client::OpenOptions;
use bowline::model::{ByteRange, LineRole, LineSet, LockMode, Meanwhile, Reason, SyncScope};
use support::{Entry, World, new_identity, pattern, reason};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

/// A world with a second client of its own.
async fn two_clients() -> (World, Arc<bowline::secure::Identity>) {
    let (first, second) = (new_identity(), new_identity());
    let entries = [Entry::all(first.public()), Entry::all(second.public())];
    (World::with_clients(&pattern(5000), first, &entries).await, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn b33_b35_an_open_its_locks_and_its_key_outlive_the_server() {
    for is_killed in [true, false] {
        let (mut world, second) = two_clients().await;
        let session = world.connect(BOTH).await;
        let file = world.open(&session, &read_write()).await.unwrap();
        file.write_at(0, b"before").await.unwrap();
        file.lock(ByteRange::between(100, 200).unwrap(), LockMode::Exclusive, Duration::ZERO).await.unwrap();
        let (key, rights) = (world.key_of(&file).await, file.state().rights);
        if is_killed {
            world.kill()
        } else {
            world.stop()
        }
        // It would come back by itself, and hold its file again.
        drop((file, session));
        world.start_again();

        let other = world.connect_as(&second, &world.peer(BOTH)).await;
        let foreign = world.open(&other, &read_write()).await.unwrap();
        assert_eq!(reason(foreign.write_at(150, b"x").await), Reason::Locked);
        assert_eq!(reason(foreign.read_at(150, &mut [0; 1]).await), Reason::Locked);
        foreign.write_at(300, b"beside it").await.unwrap();

        let heir = world.connect(BOTH).await;
        let back = world.resume(&heir, &key, LineSet::ALL).await.unwrap();
        assert_eq!(back.state().rights, rights);
        assert_eq!(back.meanwhile(), Some(Meanwhile::ChangedByClient));
        back.write_at(150, b"mine").await.unwrap();
        let mut start = [0; 6];
        back.read_at(0, &mut start).await.unwrap();
        assert_eq!(&start, b"before");
        // Given back on purpose, it is gone for everybody.
        back.close().await.unwrap();
        foreign.write_at(150, b"free").await.unwrap();
        assert_eq!(reason(world.resume(&heir, &key, LineSet::ALL).await), Reason::ResumeRefused);
        for session in [other, heir] {
            session.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_b16_others_wait_for_their_turn_at_the_next_server_too_and_files_without_orphans_do_not() {
    let (mut world, second) = two_clients().await;
    std::fs::write(world.file("unrelated"), b"free").unwrap();
    let session = world.connect(BOTH).await;
    let options = read_write().exclusive();
    let file = world.open(&session, &options).await.unwrap();
    let key = world.key_of(&file).await;
    world.kill();
    drop((file, session));
    world.start_again();
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    // No grace of the whole server: what nobody has open is there at once.
    let unrelated = world.noted(other.open(support::EXPORT, "unrelated", &options).await).unwrap();
    unrelated.close().await.unwrap();
    let busy = world.open(&other, &options).await.unwrap_err();
    assert_eq!(busy.reason(), Some(Reason::Busy));
    let left = busy.retry_after().unwrap();
    assert!(left > Duration::from_secs(30) && left <= Duration::from_secs(60), "{left:?}");
    let heir = world.connect(BOTH).await;
    let back = world.resume(&heir, &key, LineSet::ALL).await.unwrap();
    assert_eq!(back.meanwhile(), Some(Meanwhile::Unchanged));
    for session in [other, heir] {
        session.close().await;
    }
}

/// Makes of a killed server's state what is found of it after its machine has ended, with durability `machine`: the next
/// server runs on another boot, and on that no page cache is what it was.
fn end_machine(world: &World) {
    let path = world.folder.path().join("state/state");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines =
        text.lines().filter(|line| !line.starts_with("sum ")).map(|line| match line.split_once(' ') {
            Some((name @ ("boot" | "records"), id)) => {
                let first = if id.starts_with('0') { "1" } else { "0" };
                format!("{name} {first}{}\n", &id[1..])
            }
            Some(("durability", _)) => "durability machine\n".to_owned(),
            _ => format!("{line}\n"),
        });
    let text: String = lines.collect();
    let mut key = [0; 32];
    key[..16].copy_from_slice(b"bowline state v1");
    let mut mac = <Blake2sMac<U16> as KeyInit>::new(&key.into());
    mac.update(&[0; 9]);
    mac.update(text.as_bytes());
    let sum = data_encoding::HEXLOWER.encode(&mac.finalize_fixed());
    std::fs::write(&path, format!("{text}sum {sum}\n")).unwrap();
}

/// Of which boot a state says that it was used last, and that its records are.
fn boots(world: &World) -> [String; 2] {
    let text = std::fs::read_to_string(world.folder.path().join("state/state")).unwrap();
    ["boot ", "records "]
        .map(|name| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned())
}

/// Before that a next server must not take them for its own boot's.
#[tokio::test(flavor = "multi_thread")]
async fn f33_the_first_server_after_a_machine_s_end_stores_what_it_has_found_anew() {
    let (mut world, _) = two_clients().await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    file.write_at(0, b"kept").await.unwrap();
    world.kill();
    let now = boots(&world);
    assert_eq!(now[0], now[1]);
    end_machine(&world);
    assert_ne!(boots(&world), now);
    world.start_again();
    world.until("its records are of this boot", || boots(&world) == now).await;
    file.sync(SyncScope::All).await.unwrap();
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b33_two_writers_of_one_file_lose_nothing_with_the_servers_machine() {
    let (mut world, second) = two_clients().await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    file.write_at(0, b"older older").await.unwrap();
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    let beside = world.open(&other, &read_write()).await.unwrap();
    beside.write_at(6, b"newer").await.unwrap();
    file.write_at(100, b"the first").await.unwrap();
    let end = beside.append(b"the second").await.unwrap();
    world.kill();
    end_machine(&world);
    world.start_again();
    for file in [&file, &beside] {
        // It tells what was lost, if anything was.
        file.sync(SyncScope::All).await.unwrap();
        for (at, what) in [(0, "older newer"), (100, "the first"), (end, "the second")] {
            let mut bytes = vec![0; what.len()];
            file.read_at(at, &mut bytes).await.unwrap();
            assert_eq!(bytes, what.as_bytes());
        }
    }
    for session in [session, other] {
        session.close().await;
    }
}

/// What the server has received it executes and answers; what it has not received, the next one does.
#[tokio::test(flavor = "multi_thread")]
async fn f43_appends_that_are_under_way_when_the_server_is_told_to_stop_are_made_once_and_answered() {
    const WRITERS: usize = 16;
    let (mut world, _) = two_clients().await;
    std::fs::write(world.file("log"), b"").unwrap();
    let session = world.connect(BOTH).await;
    let options = OpenOptions::new().append(true);
    let file = Arc::new(world.noted(session.open(support::EXPORT, "log", &options).await).unwrap());
    let (made, mut each) = mpsc::unbounded_channel();
    let mut acknowledged = BTreeMap::new();
    for round in 0..10 {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (file, made, is_over) = (Arc::clone(&file), made.clone(), Arc::clone(&is_over));
            writers.spawn(async move {
                let mut own = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let record = format!("{round:>4}{writer:>4}{:>23}\n", own.len());
                    own.push((file.append(record.as_bytes()).await, record));
                    made.send(()).unwrap();
                }
                own
            });
        }
        for is_before in [true, false] {
            for _ in 0..WRITERS * 8 {
                timeout(support::LONG, each.recv()).await.unwrap().unwrap();
            }
            if is_before {
                world.terminate();
                world.start_again();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for (outcome, record) in writers.join_all().await.into_iter().flatten() {
            let offset = outcome.unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(acknowledged.insert(offset, record), None);
        }
    }
    let log: String = acknowledged.into_values().collect();
    assert_eq!(
        std::fs::read_to_string(world.file("log")).unwrap(),
        log,
        "each is there once, where it was told to be"
    );
    session.close().await;
}

/// F38: the identity of the file counts, not its name.
#[tokio::test(flavor = "multi_thread")]
async fn f38_a_file_that_was_replaced_while_the_server_was_down_is_stale_and_a_renamed_one_is_found() {
    let (mut world, _) = two_clients().await;
    std::fs::write(world.file("other"), b"renamed through the server").unwrap();
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    let other = world.noted(session.open(support::EXPORT, "other", &read_write()).await).unwrap();
    let keys = [world.key_of(&file).await, world.key_of(&other).await];
    session.export(support::EXPORT).unwrap().rename_no_replace("other", "moved").await.unwrap();
    world.kill();
    let before = std::fs::metadata(world.file("file")).unwrap().ino();
    std::fs::write(world.file("new"), pattern(5000)).unwrap();
    std::fs::rename(world.file("new"), world.file("file")).unwrap();
    assert_ne!(std::fs::metadata(world.file("file")).unwrap().ino(), before);
    drop((file, other, session));
    world.start_again();
    let heir = world.connect(BOTH).await;
    assert_eq!(reason(world.resume(&heir, &keys[0], LineSet::ALL).await), Reason::Stale);
    let back = world.resume(&heir, &keys[1], LineSet::ALL).await.unwrap();
    let mut start = [0; 7];
    back.read_at(0, &mut start).await.unwrap();
    assert_eq!(&start, b"renamed");
    heir.close().await;
}

/// B17 with a real file system's times.
#[tokio::test(flavor = "multi_thread")]
async fn b17_a_local_change_is_told_from_none() {
    for is_changed in [false, true] {
        let (world, _) = two_clients().await;
        let session = world.connect(BOTH).await;
        let file = world.open(&session, &read_write()).await.unwrap();
        file.write_at(0, b"mine").await.unwrap();
        let key = world.key_of(&file).await;
        session.close().await;
        world.until_log_says("no channel reaches the session").await;
        if is_changed {
            // Not within the same tick of the kernel's clock.
            let before = std::fs::metadata(world.file("file")).unwrap();
            while std::fs::metadata(world.file("file")).unwrap().ctime_nsec() == before.ctime_nsec() {
                std::fs::write(world.file("file"), pattern(5000)).unwrap();
            }
        }
        let heir = world.connect(BOTH).await;
        let back = world.resume(&heir, &key, LineSet::ALL).await.unwrap();
        let expected = if is_changed { Meanwhile::ChangedLocally } else { Meanwhile::Unchanged };
        assert_eq!(back.meanwhile(), Some(expected));
        heir.close().await;
    }
}

/// A client that was taken off the list while the server was down holds nothing when it is up again.
#[tokio::test(flavor = "multi_thread")]
async fn t26_what_a_client_held_goes_with_its_entry_across_a_restart() {
    let (mut world, second) = two_clients().await;
    let session = world.connect_as(&second, &world.peer(BOTH)).await;
    let file = world.open(&session, &read_write().exclusive()).await.unwrap();
    drop(world.key_of(&file).await);
    world.kill();
    world.set_clients(&[Entry::all(world.identity.public())]);
    world.start_again();
    let own = world.connect(BOTH).await;
    world.open(&own, &read_write().exclusive()).await.unwrap();
    own.close().await;
}

/// T11: who has a copy of the table has no key.
#[tokio::test(flavor = "multi_thread")]
async fn t11_the_stored_table_holds_no_key() {
    let (mut world, _) = two_clients().await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    let key = world.key_of(&file).await;
    session.close().await;
    world.stop();
    let mut files = 0;
    for entry in std::fs::read_dir(world.folder.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(support::recorder::contains_secret(&bytes, &key.secret), None, "{path:?}");
        files += 1;
    }
    assert!(files >= 3, "{files} files");
    world.start_again();
}
