//! Clients that die, and those that go on in their place: what a process had open when it was killed comes back in another
//! one, by the keys that the dead one has kept. Real processes, real sockets, real files.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, Error, File, OpenOptions, Resumed, Session, Survey, blocking};
use bowline::model::{ByteRange, LineRole, LineSet, LockMode, Meanwhile, Reason, ResumeKey};
use bowline::net::key_file;
use bowline::secure::Identity;
use support::{EXPORT, Entry, LONG, World, new_identity, pattern, reason};
use tokio::task::JoinSet;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

fn locked() -> ByteRange {
    ByteRange::between(100, 200).unwrap()
}

/// What a child of a test is to do: `files`, how many it opens.
const TASK: &str = "BOWLINE_TEST_RING_CHILD";

/// A world with a second client, and with what its first client has on its machine.
async fn world() -> (World, Arc<Identity>) {
    let (first, second) = (new_identity(), new_identity());
    let entries = [Entry::all(first.public()), Entry::all(second.public())];
    let world = World::with_clients(&pattern(5000), first, &entries).await;
    key_file::create(&at(&world, "client.key"), &world.identity.to_text()).unwrap();
    let addresses: Vec<String> =
        world.recorders.iter().map(|recorder| recorder.address().to_string()).collect();
    let peer =
        format!("[[peer]]\nname = \"store\"\nkey = \"{}\"\naddresses = {addresses:?}\n", world.server_key);
    std::fs::write(at(&world, "peers.toml"), peer).unwrap();
    (world, second)
}

fn at(world: &World, name: &str) -> PathBuf {
    world.folder.path().join(name)
}

fn rings(world: &World) -> PathBuf {
    at(world, "keys")
}

/// A process of the world's client that has `file-0` and so on open, with bytes and a lock in each.
fn child(world: &World, files: usize) -> Child {
    for number in 0..files {
        std::fs::write(world.file(&format!("file-{number}")), pattern(300)).unwrap();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_is_killed", "--nocapture"])
        .env(TASK, files.to_string())
        .env("BOWLINE_TEST_FOLDER", world.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.ends_with("holding")),
        "the child has its files open"
    );
    keys_in(&rings(world)).iter().take(10).for_each(|key| world.note_key(key));
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The child of other tests, which ends by being killed; run by itself, it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed() {
    let Ok(files) = std::env::var(TASK) else { return };
    let folder = PathBuf::from(std::env::var_os("BOWLINE_TEST_FOLDER").unwrap());
    let identity = Identity::from_text(&key_file::read(&folder.join("client.key")).unwrap()).unwrap();
    let peers = bowline::client::Peers::load(&folder.join("peers.toml")).unwrap();
    let client = Client::new(Arc::new(identity)).unwrap().with_key_ring(&folder.join("keys")).unwrap();
    let session = client.connect(peers.named("store").unwrap()).await.unwrap();
    let mut opening = JoinSet::new();
    for number in 0..files.parse().unwrap() {
        let session = session.clone();
        opening.spawn(async move {
            let options = read_write().lock(locked(), LockMode::Exclusive);
            let file = session.open(EXPORT, format!("file-{number}"), &options).await.unwrap();
            file.write_at(0, format!("of {number}").as_bytes()).await.unwrap();
            file
        });
    }
    let _files: Vec<File> = opening.join_all().await;
    println!("holding");
    // It does not outlive its test.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

/// The keys that stand in the rings of a folder.
fn keys_in(folder: &Path) -> Vec<ResumeKey> {
    let mut keys = Vec::new();
    for ring in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(ring.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let found = text.match_indices("bowline-resume-1-").map(|(at, _)| text[at..at + 81].parse().unwrap());
        keys.extend(found);
    }
    keys
}

/// A session of the world's client as another process has it.
async fn heir(world: &World) -> Session {
    heir_of(world, &rings(world)).await
}

async fn heir_of(world: &World, rings: &Path) -> Session {
    let client = Client::new(Arc::clone(&world.identity)).unwrap().with_key_ring(rings).unwrap();
    client.connect(&world.peer(BOTH)).await.unwrap()
}

/// Everything that comes back, its keys noted as secrets.
async fn all(world: &World, session: &Session) -> Vec<Resumed> {
    let resumed = session.resume_all().await.unwrap();
    let keys = resumed.iter().filter_map(|one| one.outcome.as_ref().ok()?.kept_key());
    keys.take(10).for_each(|key| world.note_key(&key));
    resumed
}

/// The one file that comes back.
async fn one(world: &World, session: &Session) -> File {
    let [one] = all(world, session).await.try_into().unwrap_or_else(|all| panic!("not one: {all:?}"));
    one.outcome.unwrap()
}

async fn start_of(file: &File) -> String {
    let mut start = [0; 4];
    file.read_at(0, &mut start).await.unwrap();
    String::from_utf8(start.to_vec()).unwrap()
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn b34_a_new_process_goes_on_with_what_the_killed_one_had_open_and_locked() {
    let (world, second) = world().await;
    let child = child(&world, 1);
    let session = heir(&world).await;
    assert!(all(&world, &session).await.is_empty(), "its owner lives");
    kill(child);
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    let foreign = world.noted(other.open(EXPORT, "file-0", &read_write()).await).unwrap();
    assert_eq!(reason(foreign.write_at(150, b"x").await), Reason::Locked);

    let resumed = all(&world, &session).await;
    assert_eq!(resumed.len(), 1);
    let Resumed { kept, outcome, .. } = resumed.into_iter().next().unwrap();
    assert_eq!((kept.export.as_str(), kept.path.as_bytes()), (EXPORT, &b"file-0"[..]));
    assert_eq!(kept.server, world.server_key);
    let file = outcome.unwrap();
    assert_eq!(file.state().mode, kept.mode);
    assert_eq!(file.meanwhile(), Some(Meanwhile::Unchanged));
    assert_eq!(start_of(&file).await, "of 0");
    file.write_at(150, b"mine").await.unwrap();
    assert_eq!(reason(foreign.write_at(150, b"x").await), Reason::Locked);
    assert!(all(&world, &session).await.is_empty(), "it is back already");
    assert_eq!(count(&rings(&world)), 1, "the ring of the dead is gone");
    file.close().await.unwrap();
    foreign.write_at(150, b"free").await.unwrap();
    for session in [session, other] {
        session.close().await;
    }
    assert_eq!(count(&rings(&world)), 0, "nothing is open, so nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn b34_a_program_without_async_gets_back_what_the_killed_one_had() {
    let (world, _) = world().await;
    kill(child(&world, 3));
    let (identity, peer, rings) = (Arc::clone(&world.identity), world.peer(BOTH), rings(&world));
    // A thread of its own: calls that block are refused within a runtime.
    let (sender, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let client = blocking::Client::new(identity).unwrap().with_key_ring(&rings).unwrap();
        let session = client.connect(&peer).unwrap();
        let some = session.resume_some(|kept| kept.path.as_bytes() == b"file-1").unwrap();
        assert_eq!(some.len(), 1, "only what is wanted");
        let rest = session.resume_all().unwrap();
        let files = some.into_iter().chain(rest).map(|one| (one.kept, one.outcome.unwrap()));
        let mut back: Vec<_> = files
            .map(|(kept, mut file)| {
                let mut start = [0; 4];
                file.read_exact(&mut start).unwrap();
                let key = file.kept_key();
                file.close().unwrap();
                (kept.path.as_bytes().to_vec(), start, key)
            })
            .collect();
        back.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        session.close().unwrap();
        drop(sender.send(back));
    });
    let back = told.await.unwrap();
    thread.join().unwrap();
    for (number, (path, start, key)) in back.iter().enumerate() {
        key.iter().for_each(|key| world.note_key(key));
        assert_eq!(path, format!("file-{number}").as_bytes());
        assert_eq!(start, format!("of {number}").as_bytes());
    }
    assert_eq!(back.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn f31_a_thousand_opens_of_a_killed_process_all_come_back() {
    let (world, second) = world().await;
    kill(child(&world, 1000));
    let session = heir(&world).await;
    let resumed = all(&world, &session).await;
    assert_eq!(resumed.len(), 1000);
    let mut checking = JoinSet::new();
    for Resumed { kept, outcome, .. } in resumed {
        let file = outcome.unwrap();
        checking.spawn(async move {
            let path = String::from_utf8(kept.path.as_bytes().to_vec()).unwrap();
            let number = path.strip_prefix("file-").unwrap().to_owned();
            assert_eq!(start_of(&file).await, format!("of {number}")[..4]);
            (number, file)
        });
    }
    let mut files = checking.join_all().await;
    files.sort_by_key(|(number, _)| number.parse::<usize>().unwrap());
    files.dedup_by_key(|(number, _)| number.clone());
    assert_eq!(files.len(), 1000, "each is there once");
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    for number in [0, 500, 999] {
        let foreign = other.open(EXPORT, format!("file-{number}"), &read_write()).await;
        assert_eq!(reason(world.noted(foreign).unwrap().write_at(150, b"x").await), Reason::Locked);
    }
    for (_, file) in files {
        file.close().await.unwrap();
    }
    for session in [session, other] {
        session.close().await;
    }
    assert_eq!(count(&rings(&world)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b33_b34_the_ring_has_the_newest_key_each_time_the_session_comes_back() {
    let (mut world, _) = world().await;
    let session = heir(&world).await;
    let file = session.open(EXPORT, "file", &read_write()).await.unwrap();
    let mut former = file.kept_key().unwrap();
    world.note_key(&former);
    for _ in 0..3 {
        world.kill();
        world.start_again();
        // The call waits until the session is back.
        file.read_at(0, &mut [0; 4]).await.unwrap();
        let newest = file.kept_key().unwrap();
        world.note_key(&newest);
        assert!(newest != former, "coming back brings another key");
        let renewing = async {
            while keys_in(&rings(&world)) != [newest.clone()] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, renewing).await.expect("the ring has the newest key, and no other");
        former = newest;
    }
    let handle = file.handle();
    file.leave_open();
    session.close().await;
    // The next one names the handle of now, whose late requests it ends.
    let session = heir(&world).await;
    let back = one(&world, &session).await;
    assert_ne!(back.handle(), handle);
    back.close().await.unwrap();
    session.close().await;
    assert_eq!(count(&rings(&world)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_closed_while_its_entry_is_renewed_leaves_none() {
    let (mut world, _) = world().await;
    let session = heir(&world).await;
    let file = session.open(EXPORT, "file", &read_write()).await.unwrap();
    world.note_key(&file.kept_key().unwrap());
    world.kill();
    world.start_again();
    file.read_at(0, &mut [0; 4]).await.unwrap();
    world.note_key(&file.kept_key().unwrap());
    file.close().await.unwrap();
    session.close().await;
    let gone = async {
        while count(&rings(&world)) != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("an empty ring is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn b33_b34_both_ends_are_killed_and_the_file_is_still_open() {
    let (mut world, second) = world().await;
    let child = child(&world, 2);
    world.kill();
    kill(child);
    world.start_again();
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    let foreign = world.noted(other.open(EXPORT, "file-1", &read_write()).await).unwrap();
    assert_eq!(reason(foreign.write_at(150, b"x").await), Reason::Locked);
    let session = heir(&world).await;
    let resumed = all(&world, &session).await;
    assert_eq!(resumed.len(), 2);
    for Resumed { kept, outcome, .. } in resumed {
        let file = outcome.unwrap();
        let number = String::from_utf8_lossy(&kept.path.as_bytes()[5..]).into_owned();
        assert_eq!(start_of(&file).await, format!("of {number}"));
        file.write_at(150, b"mine").await.unwrap();
        file.close().await.unwrap();
    }
    for session in [session, other] {
        session.close().await;
    }
}

/// The old process is taken for dead and is not: its ring has been copied, as a machine is that is started twice.
#[tokio::test(flavor = "multi_thread")]
async fn f32_what_a_replaced_process_sends_late_is_refused() {
    let (world, _) = world().await;
    let session = heir(&world).await;
    let options = read_write().lock(locked(), LockMode::Exclusive);
    let file = world.open(&session, &options).await.unwrap();
    file.write_at(150, b"early").await.unwrap();
    let copy = at(&world, "copy");
    std::fs::create_dir(&copy).unwrap();
    for ring in std::fs::read_dir(rings(&world)).unwrap() {
        let ring = ring.unwrap();
        std::fs::copy(ring.path(), copy.join(ring.file_name())).unwrap();
    }
    let successor = heir_of(&world, &copy).await;
    let back = one(&world, &successor).await;
    assert_eq!(reason(file.write_at(150, b"late!").await), Reason::BadHandle);
    assert_eq!(reason(file.read_at(150, &mut [0; 5]).await), Reason::BadHandle);
    let mut now = [0; 5];
    back.read_at(150, &mut now).await.unwrap();
    assert_eq!(&now, b"early");
    back.write_at(150, b"newer").await.unwrap();
    back.close().await.unwrap();
    for session in [session, successor] {
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f35_resumed_once_twice_and_thrice_it_is_the_same_open() {
    let (world, _) = world().await;
    let session = heir(&world).await;
    let options = read_write().lock(locked(), LockMode::Exclusive);
    let file = world.open(&session, &options).await.unwrap();
    file.write_at(0, b"once").await.unwrap();
    let first = world.key_of(&file).await;
    file.leave_open();
    session.close().await;
    for _ in 0..3 {
        let session = heir(&world).await;
        let file = one(&world, &session).await;
        let key = file.kept_key().unwrap();
        assert_eq!((key.file_id, start_of(&file).await.as_str()), (first.file_id, "once"));
        assert_eq!(keys_in(&rings(&world)).len(), 1, "the new key, and no other");
        assert!(keys_in(&rings(&world)).iter().all(|kept| *kept == key));
        // The key of the first handle has come to the new one, and stays good.
        let duplicate = world.resume(&session, &first, LineSet::ALL).await.unwrap();
        duplicate.write_at(150, b"locked by the open").await.unwrap();
        duplicate.close().await.unwrap();
        file.leave_open();
        session.close().await;
    }
    let session = heir(&world).await;
    one(&world, &session).await.close().await.unwrap();
    assert!(all(&world, &session).await.is_empty());
    session.close().await;
    assert_eq!(count(&rings(&world)), 0);
}

/// A file that is only dropped after its session has ended stays open on the server, and its key in the ring.
#[tokio::test(flavor = "multi_thread")]
async fn b34_two_processes_at_once_share_nothing() {
    let (world, _) = world().await;
    let session = heir(&world).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    session.close().await;
    drop(file);
    let (first, second) = (heir(&world).await, heir(&world).await);
    let (one, other) = tokio::join!(all(&world, &first), all(&world, &second));
    assert_eq!(one.len() + other.len(), 1);
    for resumed in one.into_iter().chain(other) {
        resumed.outcome.unwrap().close().await.unwrap();
    }
    for session in [first, second] {
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b34_what_cannot_come_back_is_told_once_and_forgotten() {
    let (mut world, second) = world().await;
    // One whose file another client took when its grace was over.
    let session = heir(&world).await;
    let brief = read_write().exclusive().grace(Duration::from_millis(1));
    world.open(&session, &brief).await.unwrap().leave_open();
    session.close().await;
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    let taken = loop {
        match world.open(&other, &read_write().exclusive()).await {
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(error.retry_after().unwrap_or(Duration::from_millis(5))).await;
            }
            taken => break taken.unwrap(),
        }
    };
    let session = heir(&world).await;
    let resumed = all(&world, &session).await;
    assert_eq!(resumed.len(), 1);
    assert_eq!(reason(resumed.into_iter().next().unwrap().outcome), Reason::TakenOver);
    assert!(all(&world, &session).await.is_empty());
    taken.close().await.unwrap();
    // One whose server has lost its state.
    world.open(&session, &read_write()).await.unwrap().leave_open();
    for session in [session, other] {
        session.close().await;
    }
    world.stop();
    std::fs::remove_dir_all(at(&world, "state")).unwrap();
    world.start_again();
    let session = heir(&world).await;
    let resumed = all(&world, &session).await;
    assert!(matches!(resumed[..], [Resumed { outcome: Err(Error::StateLost), .. }]), "{resumed:?}");
    assert_eq!(keys_in(&rings(&world)).len(), 0);
    session.close().await;
}

/// An entry of a server that is not asked stays for when it is.
#[tokio::test(flavor = "multi_thread")]
async fn b34_each_server_s_files_come_back_from_it_alone() {
    let (world, _) = world().await;
    let (elsewhere, _) = self::world().await;
    let session = heir_of(&elsewhere, &rings(&world)).await;
    elsewhere.open(&session, &read_write()).await.unwrap().leave_open();
    session.close().await;
    let here = heir(&world).await;
    assert!(all(&world, &here).await.is_empty());
    let there = heir_of(&elsewhere, &rings(&world)).await;
    one(&elsewhere, &there).await.close().await.unwrap();
    for session in [here, there] {
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b34_an_open_that_cannot_be_kept_is_not_made_and_one_that_need_not_be_is() {
    let (world, second) = world().await;
    let session = heir(&world).await;
    let not_kept = session.open(EXPORT, "file", &read_write().resumable(false)).await.unwrap();
    assert_eq!(keys_in(&rings(&world)).len(), 0);
    not_kept.close().await.unwrap();
    // A key is kept also for who wants none.
    let kept = world.open(&session, &read_write().with_key(false)).await.unwrap();
    assert_eq!(keys_in(&rings(&world)).len(), 1);
    drop(kept);
    assert_eq!(keys_in(&rings(&world)).len(), 0, "dropping a file closes it");
    let unusable = Client::new(second).unwrap().with_key_ring(&world.file("file"));
    assert!(unusable.unwrap_err().to_string().contains("cannot make the key ring"));
    session.close().await;
}

fn program(world: &World, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_bowline"))
        .arg("resume")
        .args(arguments)
        .arg("--ring")
        .arg(rings(world))
        .arg("--key")
        .arg(at(world, "client.key"))
        .arg("--peers")
        .arg(at(world, "peers.toml"))
        .env("BOWLINE_LOG", "trace")
        .output()
        .unwrap();
    for key in keys_in(&rings(world)) {
        for said in [&output.stdout, &output.stderr] {
            assert_eq!(support::recorder::contains_secret(said, &key.secret), None);
        }
    }
    output
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_b27_b34_the_program_lists_what_there_is_and_brings_it_back() {
    let (world, second) = world().await;
    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    let exclusive = async || world.noted(other.open(EXPORT, "file-0", &read_write().exclusive()).await);
    let child = child(&world, 2);
    let list = said(&program(&world, &["--list"]));
    assert_eq!(list.lines().filter(|line| line.contains("in use")).count(), 2, "{list}");
    let id = Survey::of(&rings(&world)).unwrap().opens[0].kept.id.to_string();
    let refused = program(&world, &[&id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is running"));
    kill(child);
    let list = said(&program(&world, &["--list", "--peer", "store"]));
    assert!(list.contains("store:data/file-0") && list.contains("store:data/file-1"), "{list}");
    assert!(!list.contains("in use"), "{list}");
    assert_eq!(program(&world, &["--list", "--peer", "other"]).status.code(), Some(3));
    assert_eq!(program(&world, &["1"]).status.code(), Some(3), "no open has this id");
    assert_eq!(program(&world, &[]).status.code(), Some(2));

    let kept = said(&program(&world, &[&id, "--keep"]));
    assert!(kept.starts_with(&id) && kept.contains("unchanged, kept open"), "{kept}");
    assert_eq!(said(&program(&world, &["--list"])).lines().count(), 2, "it can be brought back again");
    // Both processes that had it are gone, and with them their channels: it is open all the same.
    assert_eq!(reason(exclusive().await), Reason::Busy);
    let back = said(&program(&world, &["--all"]));
    assert_eq!(back.lines().filter(|line| line.ends_with("closed")).count(), 2, "{back}");
    assert_eq!(said(&program(&world, &["--list"])), "");
    exclusive().await.unwrap();
    assert_eq!(said(&program(&world, &["--all"])), "");
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b34_what_does_not_come_back_is_the_program_s_own_failure_if_it_is_all_there_is() {
    let (world, _) = world().await;
    let child = child(&world, 1);
    let id = Survey::of(&rings(&world)).unwrap().opens[0].kept.id.to_string();
    kill(child);
    let mut release = Command::new(env!("CARGO_BIN_EXE_bowline"));
    release.args(["release", &id, "--socket"]).arg(world.admin_socket());
    said(&release.output().unwrap());
    let refused = program(&world, &[&id]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(9), "{text}");
    let told = format!("error[resume-refused]: {id} store:data/file-0 did not come back");
    assert!(text.contains(&told) && text.contains("  try: "), "{text}");
}

/// A server that is down keeps no other one from being asked.
#[tokio::test(flavor = "multi_thread")]
async fn b34_what_one_server_has_comes_back_while_another_one_is_down() {
    let (world, _) = world().await;
    let (elsewhere, _) = self::world().await;
    // It has two of the files, and nobody listens at its address any more.
    let session = heir_of(&elsewhere, &rings(&world)).await;
    for _ in 0..2 {
        elsewhere.open(&session, &read_write()).await.unwrap().leave_open();
    }
    session.close().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peers = at(&world, "peers.toml");
    let known = std::fs::read_to_string(&peers).unwrap();
    let down = format!(
        "[[peer]]\nname = \"down\"\nkey = \"{}\"\naddresses = [\"{nobody}\"]\n",
        elsewhere.server_key
    );
    std::fs::write(&peers, format!("{known}{down}")).unwrap();
    let alone = program(&world, &["--all"]);
    let text = String::from_utf8_lossy(&alone.stderr);
    assert_eq!(alone.status.code(), Some(6), "{text}");
    assert!(text.contains("error[port-closed]: cannot ask \"down\"") && text.contains("  try: "), "{text}");

    let session = heir(&world).await;
    world.open(&session, &read_write()).await.unwrap().leave_open();
    session.close().await;
    let some = program(&world, &["--all"]);
    let (out, err) = (String::from_utf8_lossy(&some.stdout), String::from_utf8_lossy(&some.stderr));
    assert_eq!(some.status.code(), Some(4), "{out}{err}");
    assert!(out.contains("store:data/file: unchanged, closed"), "{out}");
    assert!(err.contains("error[port-closed]: cannot ask \"down\""), "{err}");
    assert!(err.contains("error[some-failed]: 2 of 3 could not be brought back"), "{err}");
    // An entry of a server that nobody knows the name of stays as well.
    std::fs::write(&peers, known).unwrap();
    let unknown = program(&world, &["--all"]);
    let text = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(3), "{text}");
    assert!(text.contains(&format!("bowline peer add NAME {} HOST", elsewhere.server_key)), "{text}");
}
