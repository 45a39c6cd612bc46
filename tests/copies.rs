//! `bowline cp` against a server process: whole trees, holes, what is in the way, and copies that are killed, run out of
//! room or find their source changed.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use bowline::net::Clock;
use program::{Done, Server, User, export, finish_child};
use rustix::process::geteuid;
use serde_json::Value;
use support::{LONG, pattern};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A server of the export `media` on two lines, and a client that knows it as `store`.
struct Scene {
    store: User,
    station: User,
    _server: Server,
}

impl Scene {
    fn start() -> Self {
        let store = User::new();
        fs::create_dir(store.at("media")).unwrap();
        let media = store.at("media");
        Self::serving(store, &media)
    }

    fn serving(store: User, folder: &Path) -> Self {
        let station = User::new();
        let (server_key, client_key) = (store.make_key(), station.make_key());
        let rights = "rights = [\"read\", \"write\", \"lock\"]";
        let entry = format!(
            "[[client]]\nkey = \"{client_key}\"\nname = \"station\"\nexports = [\"media\"]\n{rights}\n"
        );
        store.set("clients.toml", &entry);
        let media = export("media", folder);
        let options =
            ["--until-stdin-closes", "--durability", "process", "--listen", "127.0.0.1:0", "127.0.0.2:0"];
        let server = store.serve_logging(&[&[media.as_str()], &options[..]].concat(), "info");
        let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
        let peer = format!("[[peer]]\nname = \"store\"\nkey = \"{server_key}\"\naddresses = {addresses:?}\n");
        station.set("peers.toml", &peer);
        Self { store, station, _server: server }
    }

    fn remote(&self, name: &str) -> PathBuf {
        self.store.at("media").join(name)
    }

    fn local(&self, name: &str) -> String {
        self.station.at(name).to_str().unwrap().to_owned()
    }

    fn cp(&self, arguments: &[&str]) -> Done {
        self.station.run(&[&["cp"], arguments].concat())
    }

    /// A copy that is under way.
    fn begin(&self, from: &str, to: &str) -> Child {
        let mut command = self.station.command(&["--json", "cp", from, to]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What a finished copy of one file has moved, and what an earlier one had.
    #[track_caller]
    fn moved(done: Done) -> (u64, u64) {
        let text = done.success();
        let copied: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        (copied["moved"].as_u64().unwrap(), copied["resumed"].as_u64().unwrap())
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    let compared = Command::new("diff").args(["-r", "--no-dereference"]).arg(a).arg(b).output().unwrap();
    compared.status.success()
}

/// The temporary file beside `path`.
fn part_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!(".{name}.bowline-part"))
}

#[test]
fn a_tree_is_copied_there_and_back_with_links_holes_times_and_permissions() {
    let scene = Scene::start();
    let tree = scene.station.at("tree");
    for folder in ["deep/er", "empty"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    for at in 0..200 {
        fs::write(tree.join(format!("deep/{at}")), pattern(at * 7)).unwrap();
    }
    fs::write(tree.join("deep/er/large"), pattern(9_000_001)).unwrap();
    fs::write(tree.join("odd \u{1b}[1m\nname"), "odd").unwrap();
    symlink("../elsewhere", tree.join("deep/link")).unwrap();
    let holes = File::create(tree.join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    holes.write_all_at(b"island", 40 << 20).unwrap();
    fs::set_permissions(tree.join("deep/7"), Permissions::from_mode(0o750)).unwrap();
    File::open(tree.join("deep/7"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
        .unwrap();

    let source = scene.local("tree");
    let done = scene.cp(&["-r", "-p", &source, "store:media/copy"]);
    assert!(done.err.contains("copied 204 files"), "{}", done.err);
    done.success();
    assert!(is_same(&tree, &scene.remote("copy")));
    assert!(fs::metadata(scene.remote("copy/holes")).unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    let seven = fs::metadata(scene.remote("copy/deep/7")).unwrap();
    assert_eq!((seven.mode() & 0o777, seven.mtime()), (0o750, 1));

    // Into a directory that is there, under its own name; and all that is in an export.
    fs::create_dir(scene.station.at("back")).unwrap();
    scene.cp(&["-r", "store:media/copy", &scene.local("back")]).success();
    assert!(is_same(&tree, &scene.station.at("back/copy")));
    assert!(fs::metadata(scene.station.at("back/copy/holes")).unwrap().blocks() * 512 < 1 << 20);
    scene.cp(&["-r", "store:media/", &scene.local("all")]).success();
    assert!(is_same(&tree, &scene.station.at("all/copy")));
    // From the server to itself, through this machine.
    scene.cp(&["-r", "store:media/copy/deep", "store:media/again"]).success();
    assert!(is_same(&tree.join("deep"), &scene.remote("again")));
}

#[test]
fn what_is_in_the_way_is_said_and_untouched() {
    let scene = Scene::start();
    fs::write(scene.remote("file"), "new").unwrap();
    fs::write(scene.station.at("file"), "old").unwrap();
    fs::create_dir(scene.remote("folder")).unwrap();
    scene.cp(&[&scene.local("a"), &scene.local("b")]).failure_with(2, &["nothing of this is on a server"]);
    scene
        .cp(&["store:media/nothing", &scene.local("x")])
        .failure_with(3, &["error[not-found]", "store:media/nothing"]);
    scene
        .cp(&["store:media/folder", &scene.local("x")])
        .failure_with(1, &["it is a directory", "bowline cp -r"]);
    let two = scene.cp(&["store:media/file", "store:media/folder", &scene.local("file")]);
    two.failure_with(2, &["several files need a directory"]);
    scene.cp(&["-n", "store:media/file", &scene.local("file")]).success();
    assert_eq!(fs::read(scene.station.at("file")).unwrap(), b"old");
    scene.cp(&["store:media/file", &scene.local("file")]).success();
    assert_eq!(fs::read(scene.station.at("file")).unwrap(), b"new");

    // What a server names never leads out of the target through a link that is there.
    fs::create_dir_all(scene.remote("tree/sub")).unwrap();
    fs::write(scene.remote("tree/sub/file"), "evil").unwrap();
    fs::create_dir_all(scene.station.at("target")).unwrap();
    fs::create_dir(scene.station.at("outside")).unwrap();
    symlink(scene.station.at("outside"), scene.station.at("target/sub")).unwrap();
    fs::create_dir(scene.station.at("target/tree")).unwrap();
    fs::remove_dir(scene.station.at("target/tree")).unwrap();
    symlink(scene.station.at("outside"), scene.station.at("target/tree")).unwrap();
    let done = scene.cp(&["-r", "store:media/tree", &scene.local("target")]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(done.err.contains("cannot make the directory"), "{}", done.err);
    assert_eq!(fs::read_dir(scene.station.at("outside")).unwrap().count(), 0);
}

#[test]
fn a_copy_has_an_end_and_each_target_one_source() {
    let scene = Scene::start();
    for folder in ["tree/deep", "other", "treetop", "into"] {
        fs::create_dir_all(scene.remote(folder)).unwrap();
    }
    fs::write(scene.remote("tree/file"), "one").unwrap();
    fs::write(scene.remote("other/file"), "other").unwrap();
    for (source, target) in [
        ("store:media/tree", "store:media/tree/deep"),
        ("store:media", "store:media/into"),
        ("store:media/tree", "store:media/tree/new"),
    ] {
        let done = scene.cp(&["-r", source, target]);
        assert!(done.err.contains("is in it") && !done.status.success(), "{done:?}");
    }
    assert_eq!(fs::read_dir(scene.remote("tree")).unwrap().count(), 2, "nothing was made");
    scene.cp(&["store:media/tree/file", "store:media/tree/file"]).failure_with(2, &["are the same"]);
    // A name that only begins so is another one.
    scene.cp(&["-r", "store:media/tree", "store:media/treetop"]).success();
    assert!(scene.remote("treetop/tree/file").exists());

    let both = scene.cp(&["store:media/tree/file", "store:media/other/file", "store:media/into"]);
    assert_eq!(both.status.code(), Some(4), "{both:?}");
    assert!(both.err.contains("another one of these would be store:media/into/file too"), "{}", both.err);
    assert_eq!(fs::read(scene.remote("into/file")).unwrap(), b"one");
    let missing = scene.cp(&["store:media/tree/file", &scene.local("no/such/folder")]);
    assert!(!missing.failure_with(3, &["error[not-found]"]).contains("copied"));
}

/// What an earlier run of the same words has left somewhere else is not gone on with.
#[test]
fn a_relative_target_is_one_in_its_own_folder() {
    let scene = Scene::start();
    let content = pattern(24 << 20);
    fs::write(scene.remote("file"), &content).unwrap();
    for folder in ["one", "two"] {
        fs::create_dir(scene.station.at(folder)).unwrap();
    }
    let copy = |folder: &str| {
        let mut command = scene.station.command(&["--json", "cp", "store:media/file", "file"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir(scene.station.at(folder)).spawn().unwrap()
    };
    let mut child = copy("one");
    let part = scene.station.at("one/.file.bowline-part");
    while fs::metadata(&part).map_or(0, |part| part.len()) < 12 << 20 {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", finish_child(child));
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // A part as long, of holes but for its end.
    let other = File::create(scene.station.at("two/.file.bowline-part")).unwrap();
    other.write_all_at(&content[8 << 20..], 8 << 20).unwrap();
    let (moved, resumed) = Scene::moved(finish_child(copy("two")));
    assert_eq!((moved, resumed), (24 << 20, 0));
    assert!(fs::read(scene.station.at("two/file")).unwrap() == content);
}

/// Size of the file that is killed again and again, in MiB; a soak sets more.
fn killed_len() -> u64 {
    std::env::var("BOWLINE_KILLED_MIB").map_or(192, |mib| mib.parse().unwrap()) << 20
}

/// B11 with the program killed instead of a line lost: what was copied is not copied again.
#[test]
fn b11_a_copy_that_is_killed_ten_times_goes_on_where_it_was() {
    let len = killed_len();
    for is_upload in [false, true] {
        let scene = Scene::start();
        let (local, remote) = (scene.station.at("file"), scene.remote("file"));
        let (source, target) = if is_upload { (&local, &remote) } else { (&remote, &local) };
        let file = File::create(source).unwrap();
        let block = pattern(1 << 20);
        for at in 0..len >> 20 {
            file.write_all_at(&block, at << 20).unwrap();
            file.write_all_at(&at.to_le_bytes(), at << 20).unwrap();
        }
        drop(file);
        let (local, remote) = (local.to_str().unwrap().to_owned(), "store:media/file".to_owned());
        let (from, to) = if is_upload { (&local, &remote) } else { (&remote, &local) };
        let part = part_of(target);
        let mut resumed = 0;
        for kill in 1..=10_u64 {
            let mut child = scene.begin(from, to);
            let until = len * kill / 11;
            let begun = Clock.now();
            // A part has the length up to which it was written.
            while fs::metadata(&part).map_or(0, |part| part.len()) < until {
                assert!(Clock.now().since(begun) < LONG, "the copy does not get on");
                assert!(child.try_wait().unwrap().is_none(), "{:?}", finish_child(child));
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(!target.exists(), "no final name on a part");
            let had = fs::metadata(&part).unwrap().len();
            assert!(had >= resumed, "a part does not shrink");
            resumed = had;
        }
        let (moved, resumed_bytes) = Scene::moved(finish_child(scene.begin(from, to)));
        assert_eq!(moved + resumed_bytes, len);
        // A step of the journal and what was being written when it was killed; a hundredth of a large file.
        let again = resumed.saturating_sub(resumed_bytes);
        assert!(again <= (len / 100).max(10 << 20), "{again} of {resumed} bytes were copied again");
        assert!(is_same(source, target) && !part.exists());
    }
}

#[test]
fn b26_a_source_that_changes_is_not_copied_half_and_half() {
    let scene = Scene::start();
    let source = scene.remote("file");
    fs::write(&source, pattern(64 << 20)).unwrap();
    let part = part_of(&scene.station.at("file"));
    let mut child = scene.begin("store:media/file", &scene.local("file"));
    while fs::metadata(&part).map_or(0, |part| part.len()) < 8 << 20 {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", finish_child(child));
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Another version: what was copied of the old one is no part of it.
    let new: Vec<u8> = pattern(64 << 20).into_iter().rev().collect();
    fs::write(&source, &new).unwrap();
    let (moved, resumed) = Scene::moved(finish_child(scene.begin("store:media/file", &scene.local("file"))));
    assert_eq!((moved, resumed), (64 << 20, 0));
    assert!(fs::read(scene.station.at("file")).unwrap() == new);
}

/// F55 with the program: the disk is full on either side.
#[test]
fn f55_a_full_disk_ends_a_copy_with_10_and_keeps_the_part() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let small = tempfile::tempdir().unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(small.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    }
    let _unmounted = Unmounted(small.path().to_owned());
    let scene = Scene::start();
    fs::write(scene.remote("file"), pattern(32 << 20)).unwrap();
    let target = small.path().join("file");
    let target = target.to_str().unwrap();
    let full = scene.cp(&["store:media/file", target]).failure_with(
        10,
        &["error[no-space]", "on this machine", "data: the part is kept", "the same command again"],
    );
    assert!(!full.contains("panicked"));
    let part = part_of(Path::new(target));
    let kept = fs::metadata(&part).unwrap().len();
    assert!(!Path::new(target).exists() && kept > 8 << 20, "{kept}");
    remount(small.path(), "size=64m");
    let (moved, resumed) = Scene::moved(finish_child(scene.begin("store:media/file", target)));
    assert!(resumed > 8 << 20 && moved + resumed == 32 << 20, "{moved} {resumed}");
    assert!(is_same(Path::new(target), &scene.remote("file")));
    fs::remove_file(target).unwrap();

    // The other way: the server's disk.
    remount(small.path(), "size=24m");
    let served = Scene::serving(User::new(), small.path());
    fs::write(served.station.at("file"), pattern(32 << 20)).unwrap();
    served
        .cp(&[&served.local("file"), "store:media/file"])
        .failure_with(10, &["error[no-space]", "server \"store\"", "data: the part is kept"]);
    assert!(!Path::new(target).exists() && part.exists());
    remount(small.path(), "size=64m");
    let (moved, resumed) =
        Scene::moved(finish_child(served.begin(&served.local("file"), "store:media/file")));
    assert!(resumed > 8 << 20 && moved + resumed == 32 << 20, "{moved} {resumed}");
    assert!(is_same(Path::new(target), &served.station.at("file")));
}

struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn remount(at: &Path, size: &str) {
    let status = Command::new("mount").args(["-o", &format!("remount,{size}")]).arg(at).status().unwrap();
    assert!(status.success());
}
