//! Changes of names and appends whose answers are lost, with the channel or with the server process, which is killed while
//! they are under way: each is done once and told so, or its caller hears that nobody knows. Real processes, real sockets,
//! real files.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bowline::client::{Error, Export, File, OpenOptions};
use bowline::model::{ChannelKind, Create, CreateId, ExportPath, LineRole, OpenMode, Protection, Reason};
use bowline::wire::control::{Attach, Open};
use bowline::wire::data::Append;
use bowline::wire::names::{MakeDirectory, Place};
use bowline::wire::{ClientControl, ClientData, ServerControl, ServerData};
use support::raw::{Channel, Greeted, RawClient};
use support::{EXPORT, LONG, World};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const TASKS: usize = 16;
const KILLS: usize = 6;

/// How many of all are done, and how many nobody knows of.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicUsize,
    unknown: AtomicUsize,
}

impl Counts {
    /// Whether it was done; none if nobody knows. Anything else is a lie: nobody else is there.
    fn told<T>(&self, what: &str, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                Some(value)
            }
            Err(error) if error.reason() == Some(Reason::Unknown) => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
}

/// Makes and removes its own files until it is told to stop, and looks beside the server whether what it was told is so.
async fn work(
    (export, log, task): (Export, File, usize),
    folder: std::path::PathBuf,
    counts: Arc<Counts>,
    stop: CancellationToken,
) -> Vec<(u64, String)> {
    let mut appended = Vec::new();
    let there = |name: &str| folder.join(name).symlink_metadata().is_ok();
    let mut round = 0;
    while !stop.is_cancelled() {
        let name = |what: &str| format!("{what}-{task}-{round}");
        let (made, moved, linked, made_in) = (name("made"), name("moved"), name("linked"), name("folder"));
        let options = OpenOptions::new().write(true).create_new(true);
        if let Some(file) = counts.told("create", export.open(&made, &options).await) {
            assert!(there(&made), "{made}");
            let _unheard = file.close().await;
        } else if !there(&made) {
            fs::write(folder.join(&made), b"").unwrap();
        }
        if counts.told("link", export.hard_link(&made, &linked).await).is_some() {
            assert_eq!(fs::metadata(folder.join(&linked)).unwrap().nlink(), 2, "{linked}");
        }
        if counts.told("rename", export.rename_no_replace(&made, &moved).await).is_some() {
            assert!(there(&moved) && !there(&made), "{moved}");
            if counts.told("remove", export.remove_file(&moved).await).is_some() {
                assert!(!there(&moved), "{moved}");
            }
        }
        if counts.told("mkdir", export.create_dir(&made_in, 0o755).await).is_some() {
            assert!(there(&made_in), "{made_in}");
        }
        let line = format!("{task:04} {round:010}\n");
        if let Some(offset) = counts.told("append", log.append(line.as_bytes()).await) {
            appended.push((offset, line));
        }
        round += 1;
    }
    appended
}

/// Each line is there once at most, and those that were acknowledged where they were said to be.
fn check_log(path: &Path, appended: &[(u64, String)]) {
    let log = fs::read_to_string(path).unwrap();
    let mut times: HashMap<&str, usize> = HashMap::new();
    log.lines().for_each(|line| *times.entry(line).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "a line was appended twice");
    for (offset, line) in appended {
        let at = usize::try_from(*offset).unwrap();
        assert_eq!(log.get(at..at + line.len()), Some(line.as_str()), "at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t32_f40_what_was_under_way_when_the_server_was_killed_is_done_once_or_unknown() {
    let mut world = World::start(b"").await;
    let session = world.connect([LineRole::Both; 2]).await;
    let export = session.export(EXPORT).unwrap().with_timeout(LONG);
    let (counts, stop) = (Arc::new(Counts::default()), CancellationToken::new());
    let folder = world.file("file").parent().unwrap().to_owned();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        // All append to one file.
        let log = world.open(&session, &OpenOptions::new().append(true)).await.unwrap().with_timeout(LONG);
        let own = (export.clone(), log, task);
        tasks.spawn(work(own, folder.clone(), Arc::clone(&counts), stop.clone()));
    }
    for kill in 1..=KILLS {
        // Nothing but work that is done between two kills makes the next one meet work.
        let enough = counts.done.load(Ordering::Relaxed) + 200 + 37 * kill;
        world.until("work is done", || counts.done.load(Ordering::Relaxed) >= enough).await;
        world.kill();
        world.start_again();
    }
    stop.cancel();
    let mut appended = Vec::new();
    while let Some(done) = timeout(LONG, tasks.join_next()).await.expect("they end") {
        appended.extend(done.unwrap());
    }
    check_log(&world.file("file"), &appended);
    let (done, unknown) = (counts.done.load(Ordering::Relaxed), counts.unknown.load(Ordering::Relaxed));
    println!("{done} were done, and of {unknown} nobody knows");
    // With 16 in flight and six kills, some 96 were under way.
    assert!(unknown <= 48, "{unknown} of {done} are unknown");
    session.close().await;
}

fn open() -> ClientControl {
    Open {
        export: EXPORT.parse().unwrap(),
        path: ExportPath::new("file").unwrap(),
        mode: OpenMode::READ_WRITE,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: true,
        create_id: CreateId([1; 16]),
        with_key: false,
        grace_ms: 0,
        guard: false,
    }
    .into()
}

/// Each is executed, and its channel is gone before anybody has taken the answer.
#[tokio::test(flavor = "multi_thread")]
async fn t32_what_is_sent_again_on_a_new_channel_is_executed_once_and_has_its_answer() {
    let world = World::start(b"old").await;
    let (file, folder) = (world.file("file"), world.file("new"));
    let client =
        RawClient { identity: &world.identity, server: world.server_key, address: world.addresses[0] };
    let mut session = client.start().await;
    world.note_session(&session);
    session.control.send(&open(), 1).await;
    let (1, ServerControl::Opened(opened)) = session.control.answer().await else { panic!("not opened") };

    let append = ClientData::from(Append { handle: opened.handle });
    let mut data = client.bind(&session, 1, Protection::Sealed).await;
    data.send_with(&append, 2, b" and new").await;
    world.until("it is appended", || fs::read(&file).unwrap() == b"old and new").await;
    drop(data);
    let mut data = client.bind(&session, 2, Protection::Sealed).await;
    data.send_with(&append, 2, b" and new").await;
    let (2, ServerData::AppendDone(done)) = data.answer().await else { panic!("not appended") };
    assert_eq!((done.offset, done.written), (3, 8));
    assert_eq!(fs::read(&file).unwrap(), b"old and new");

    let place = Place { export: EXPORT.parse().unwrap(), path: ExportPath::new("new").unwrap() };
    let make = ClientControl::from(MakeDirectory { place, permissions: 0o755 });
    session.control.send(&make, 3).await;
    world.until("it is made", || folder.is_dir()).await;
    let kind = (ChannelKind::Control, Protection::Sealed);
    let Greeted { stream, keys, offer, choice } = client.greet_bind(&session, 3, kind).await;
    let mut control: Channel<true> = Channel::new(stream, keys, (offer.number, choice.protection));
    control.send(&ClientControl::from(Attach { offer, choice }), 0).await;
    let attached = control.answer().await;
    assert!(matches!(attached, (0, ServerControl::Attached(_))), "{attached:?}");
    // The first one goes with the answer that nobody has taken.
    session.control = control;
    session.control.send(&make, 3).await;
    let made = session.control.answer().await;
    assert!(matches!(made, (3, ServerControl::Done(_))), "{made:?}");
}
