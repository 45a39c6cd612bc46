//! What the server's deadlines are measured by: the time since its machine was started, and never the clock on the wall,
//! which people set. Real server processes.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bowline::client::OpenOptions;
use bowline::model::{LineRole, LineSet, Meanwhile, Reason};
use support::{EXPORT, Entry, World, new_identity, pattern};

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

/// `bowline` with this much more on the clock that goes on while the machine sleeps; none where that cannot be had.
fn after_a_sleep(span: Duration) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        let seconds = span.as_secs().to_string();
        unshare.args(["--map-root-user", "--time", "--fork", "--kill-child", "--boottime", &seconds, "--"]);
        unshare
    };
    let probe = unshare().arg("true").output();
    if !probe.is_ok_and(|done| done.status.success()) {
        return None;
    }
    let mut bowline = unshare();
    bowline.arg(env!("CARGO_BIN_EXE_bowline"));
    Some(bowline)
}

/// The server is killed, the machine sleeps for most of a day, and a server is started again: every deadline has passed
/// meanwhile, and nobody's client had a server to come back to. So each orphan has ten seconds from then on.
#[tokio::test(flavor = "multi_thread")]
async fn t34_after_a_machine_has_slept_beyond_every_grace_its_orphans_still_have_ten_seconds() {
    let Some(bowline) = after_a_sleep(Duration::from_secs(86_400 - 3600)) else {
        println!("skipped: it needs unshare, user and time name spaces");
        return;
    };
    let (first, second) = (new_identity(), new_identity());
    let entries = [Entry::all(first.public()), Entry::all(second.public())];
    let mut world = World::with_clients(&pattern(5000), first, &entries).await;
    let options = OpenOptions::new().read(true).write(true).exclusive();
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &options).await.unwrap();
    let (key, handle) = (world.key_of(&file).await, file.handle());
    file.leave_open();
    session.close().await;
    world.until_log_says("no channel reaches the session").await;
    // What somebody is told afterwards is stored afterwards.
    fs::write(world.file("unrelated"), b"").unwrap();
    let witness = world.connect_as(&second, &world.peer(BOTH)).await;
    let unrelated = OpenOptions::new().read(true);
    world.noted(witness.open(EXPORT, "unrelated", &unrelated).await).unwrap().close().await.unwrap();
    witness.close().await;
    world.kill();
    world.start_again_as(bowline);

    let other = world.connect_as(&second, &world.peer(BOTH)).await;
    let busy = world.open(&other, &options).await.unwrap_err();
    assert_eq!(busy.reason(), Some(Reason::Busy));
    let left = busy.retry_after().unwrap();
    assert!(left > Duration::from_secs(2) && left <= Duration::from_secs(10), "{left:?}");
    let heir = world.connect(BOTH).await;
    let back = world.noted(heir.resume_in_place_of(handle, &key, LineSet::ALL).await).unwrap();
    assert_eq!(back.meanwhile(), Some(Meanwhile::Unchanged));
    back.close().await.unwrap();
    world.open(&other, &options).await.unwrap();
    for session in [heir, other] {
        session.close().await;
    }
}

/// Nothing that ends by itself looks at the clock on the wall: in the server, only what people write by it does, the
/// last day of an entry in the list of clients, and what people read, the time stamp in a key. A clock that is set, in
/// either direction and however far, can end an orphan neither early nor late.
#[test]
fn t34_the_clock_on_the_wall_decides_about_entries_and_stamps_and_nothing_else() {
    let mut readers = Vec::new();
    for folder in ["opens", "session", "server"] {
        visit(Path::new("src").join(folder), &mut |file, text| {
            for line in text.lines().map(str::trim).filter(|line| line.contains("wall_us(")) {
                let is_for_an_entry = line.contains(".access(") || line.starts_with("let now_s =");
                let is_for_a_stamp = line.contains("stamp_us");
                // How the core is told, and keeps it.
                let is_its_way = line.contains("fn ") || line.contains("clock.wall_us()");
                let is_its_keeping =
                    line.contains("if wall_us < self.wall_us(now)") || line.contains("handle_wall_clock");
                if !(is_for_an_entry || is_for_a_stamp || is_its_way || is_its_keeping) {
                    readers.push(format!("{}: {line}", file.display()));
                }
            }
        });
    }
    assert_eq!(readers, Vec::<String>::new());
}

/// Shows each source file of a folder and of those in it.
fn visit(folder: PathBuf, each: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(path, each);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            each(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
