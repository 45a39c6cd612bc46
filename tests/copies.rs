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

use std::cell::RefCell;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use bowline::net::Clock;
use nix::pty::{OpenptyResult, Winsize, openpty};
use program::{Done, RIGHTS, Server, User, client_entry, export, finish, finish_child, peer_entry};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use schema::objects;
use serde_json::Value;
use support::{LONG, pattern};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

#[path = "support/schema.rs"]
mod schema;

/// A server of the export `media` on two lines, and a client that knows it as `store`.
struct Scene {
    store: User,
    station: User,
    server: Server,
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
        store.set("clients.toml", &client_entry("station", &client_key, &RIGHTS));
        let media = export("media", folder);
        let options =
            ["--until-stdin-closes", "--durability", "process", "--listen", "127.0.0.1:0", "127.0.0.2:0"];
        let server = store.serve_logging(&[&[media.as_str()], &options[..]].concat(), "info");
        station.set("peers.toml", &peer_entry(&server_key, &server.addresses()));
        Self { store, station, server }
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

/// The temporary files beside `path`.
fn parts_of(path: &Path) -> Vec<PathBuf> {
    let start = format!(".{}.", path.file_name().unwrap().to_str().unwrap());
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&start) && name.ends_with(".bowline-part")
    };
    names.filter(is_part).collect()
}

/// The one temporary file beside `path`, and its length; 0 while there is none.
fn part_len(path: &Path) -> u64 {
    let parts = parts_of(path);
    assert!(parts.len() <= 1, "{parts:?}");
    parts.first().map_or(0, |part| fs::metadata(part).map_or(0, |part| part.len()))
}

/// Kills a copy when it has written so much of its target's part.
fn kill_at(mut child: Child, len: impl Fn() -> u64, until: u64) {
    let begun = Clock.now();
    while len() < until {
        assert!(Clock.now().since(begun) < LONG, "the copy does not get on");
        assert!(child.try_wait().unwrap().is_none(), "{:?}", finish_child(child));
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
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

/// What only its owner may look into is never open to others, and what its owner may not write to is copied all the same.
#[test]
fn directories_have_the_permissions_of_the_originals_with_and_without_p() {
    let scene = Scene::start();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let plant = |tree: &Path| {
        for (folder, permissions) in [("", 0o710), ("/private", 0o700), ("/open", 0o777), ("/sealed", 0o550)]
        {
            let folder = PathBuf::from(format!("{}{folder}", tree.display()));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("file"), "content").unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(permissions)).unwrap();
        }
        let folder = File::open(tree.join("sealed")).unwrap();
        folder.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(7)).unwrap();
    };
    plant(&scene.station.at("tree"));
    plant(&scene.remote("tree"));
    let umask = 0o777
        & !{
            fs::create_dir(scene.station.at("probe")).unwrap();
            mode(&scene.station.at("probe"))
        };
    for is_upload in [false, true] {
        let at = |name: &str| if is_upload { scene.remote(name) } else { scene.station.at(name) };
        let copy = |options: &[&str], name: &str| {
            let (here, there) = (scene.local(if is_upload { "tree" } else { name }), "store:media/");
            let there = format!("{there}{}", if is_upload { name } else { "tree" });
            let (from, to) = if is_upload { (here, there) } else { (there, here) };
            scene.cp(&[options, &[&from, &to]].concat()).success();
            at(name)
        };
        let of = |copy: &Path| ["", "private", "open", "sealed"].map(|folder| mode(&copy.join(folder)));
        let plain = copy(&["-r"], "plain");
        assert_eq!(of(&plain), [0o710, 0o700, 0o777, 0o550].map(|permissions| permissions & !umask));
        let exact = copy(&["-r", "-p"], "exact");
        assert_eq!(of(&exact), [0o710, 0o700, 0o777, 0o550]);
        assert_eq!(fs::metadata(exact.join("sealed")).unwrap().mtime(), 7);
        assert_eq!(fs::read(exact.join("sealed/file")).unwrap(), b"content");
        // What is there has its own, unless they are to be those of the original.
        fs::set_permissions(plain.join("private"), Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(plain.join("sealed"), Permissions::from_mode(0o750)).unwrap();
        fs::create_dir(at("into")).unwrap();
        fs::rename(&plain, at("into/tree")).unwrap();
        copy(&["-r"], "into");
        assert_eq!(mode(&at("into/tree/private")), 0o750);
        copy(&["-r", "-p"], "into");
        assert_eq!(of(&at("into/tree")), [0o710, 0o700, 0o777, 0o550]);
        // So that they can be removed.
        for copied in [exact, at("into/tree")] {
            fs::set_permissions(copied.join("sealed"), Permissions::from_mode(0o750)).unwrap();
        }
    }
    for tree in [scene.station.at("tree"), scene.remote("tree")] {
        fs::set_permissions(tree.join("sealed"), Permissions::from_mode(0o750)).unwrap();
    }
}

/// Nobody else looks into a private directory while it is copied into, also where the copy is killed.
#[test]
fn a_private_directory_is_private_from_its_first_moment() {
    let scene = Scene::start();
    fs::create_dir(scene.remote("tree")).unwrap();
    fs::set_permissions(scene.remote("tree"), Permissions::from_mode(0o500)).unwrap();
    fs::write(scene.remote("tree/file"), pattern(64 << 20)).unwrap();
    let mut command = scene.station.command(&["cp", "-r", "store:media/tree", &scene.local("copy")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let target = scene.station.at("copy");
    let len = || if target.exists() { part_len(&target.join("file")) } else { 0 };
    kill_at(command.spawn().unwrap(), len, 1 << 20);
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o700);
}

/// What is a hole is not moved, however large it is, and is a hole in the copy.
#[test]
fn ten_gib_with_a_mib_of_data_move_two_mib_at_most() {
    const LEN: u64 = 10 << 30;
    const MOVED_MAX: u64 = 2 << 20;
    let scene = Scene::start();
    let source = scene.station.at("sparse");
    let file = File::create(&source).unwrap();
    let is_sparse = file.set_len(LEN).is_ok() && file.write_all_at(&pattern(1 << 20), 7 << 30).is_ok();
    let allocated = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    if !is_sparse || allocated(&source) > MOVED_MAX {
        eprintln!("skipped: the file system of temporary files keeps no file of 10 GiB with holes");
        return;
    }
    for (from, to, target) in [
        (scene.local("sparse"), "store:media/sparse".to_owned(), scene.remote("sparse")),
        ("store:media/sparse".to_owned(), scene.local("back"), scene.station.at("back")),
    ] {
        let (moved, _) = Scene::moved(finish_child(scene.begin(&from, &to)));
        assert!((1 << 20..=MOVED_MAX).contains(&moved), "{moved}");
        assert_eq!(fs::metadata(&target).unwrap().len(), LEN);
        assert!(allocated(&target) <= MOVED_MAX, "{}", allocated(&target));
        let mut bytes = vec![0; (1 << 20) + 2];
        File::open(&target).unwrap().read_exact_at(&mut bytes, (7 << 30) - 1).unwrap();
        assert!(bytes[1..=1 << 20] == pattern(1 << 20) && (bytes[0], bytes[(1 << 20) + 1]) == (0, 0));
    }
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
    two.failure_with(2, &["needs a directory to go into"]);
    scene.cp(&["-n", "store:media/file", &scene.local("file")]).success();
    assert_eq!(fs::read(scene.station.at("file")).unwrap(), b"old");
    scene.cp(&["store:media/file", &scene.local("file")]).success();
    assert_eq!(fs::read(scene.station.at("file")).unwrap(), b"new");

    // What a server names never leads out of the target through a link that is there.
    fs::create_dir_all(scene.remote("tree/sub")).unwrap();
    fs::write(scene.remote("tree/sub/file"), "evil").unwrap();
    fs::create_dir_all(scene.station.at("target")).unwrap();
    fs::create_dir(scene.station.at("outside")).unwrap();
    symlink(scene.station.at("outside"), scene.station.at("target/tree")).unwrap();
    let done = scene.cp(&["-r", "store:media/tree", &scene.local("target")]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(done.err.contains("cannot make the directory"), "{}", done.err);
    assert_eq!(fs::read_dir(scene.station.at("outside")).unwrap().count(), 0);
    // Nor does what is in a directory that a link stands for, when that directory is deeper.
    fs::remove_file(scene.station.at("target/tree")).unwrap();
    fs::create_dir(scene.station.at("target/tree")).unwrap();
    symlink(scene.station.at("outside"), scene.station.at("target/tree/sub")).unwrap();
    fs::write(scene.remote("tree/beside"), "good").unwrap();
    let done = scene.cp(&["-r", "store:media/tree", &scene.local("target")]);
    done.failure_with(4, &["cannot make the directory", "2 of 3 files were not copied"]);
    assert_eq!(fs::read_dir(scene.station.at("outside")).unwrap().count(), 0);
    assert_eq!(fs::read(scene.station.at("target/tree/beside")).unwrap(), b"good");
    // The target that the user names may be a link.
    symlink(scene.station.at("outside"), scene.station.at("link")).unwrap();
    scene.cp(&["-r", "store:media/tree", &scene.local("link")]).success();
    assert_eq!(fs::read(scene.station.at("outside/tree/sub/file")).unwrap(), b"evil");
    scene.cp(&["-r", "store:media/", &scene.local("link")]).success();
    assert_eq!(fs::read(scene.station.at("outside/file")).unwrap(), b"new");
}

/// What can be copied is, and the rest is said.
#[test]
fn one_of_several_that_is_missing_does_not_keep_the_others() {
    let scene = Scene::start();
    fs::write(scene.remote("good"), "good").unwrap();
    fs::create_dir(scene.station.at("into")).unwrap();
    for sources in [["store:media/no", "store:media/good"], ["store:media/good", "store:media/no"]] {
        let done = scene.cp(&[&sources[..], &[&scene.local("into")]].concat());
        done.failure_with(4, &["error[not-found]", "1 of 2 files were not copied"]);
        assert_eq!(fs::read(scene.station.at("into/good")).unwrap(), b"good");
        fs::remove_file(scene.station.at("into/good")).unwrap();
    }
}

#[test]
fn a_slash_at_the_end_means_a_directory() {
    let scene = Scene::start();
    fs::write(scene.remote("file"), "new").unwrap();
    fs::write(scene.station.at("file"), "local").unwrap();
    for (source, target) in [
        ("store:media/file", scene.local("no/")),
        ("store:media/file", scene.local("file/")),
        (&*scene.local("file"), "store:media/no/".to_owned()),
        (&*scene.local("file"), "store:media/file/".to_owned()),
    ] {
        let done = scene.cp(&[source, &target]);
        assert!(!done.status.success() && done.err.contains("directory"), "{target}: {done:?}");
    }
    assert_eq!(fs::read(scene.station.at("file")).unwrap(), b"local");
    assert_eq!(fs::read(scene.remote("file")).unwrap(), b"new");
    assert!(!scene.remote("no").exists() && !scene.station.at("no").exists());
    let mv = scene.station.run(&["mv", "store:media/file", "store:media/no/"]);
    mv.failure_with(2, &["is a directory, and it is none", "nothing was moved"]);
    // A directory that is made may be written so.
    fs::create_dir(scene.remote("folder")).unwrap();
    scene.station.run(&["mv", "store:media/folder", "store:media/moved/"]).success();
    scene.cp(&["-r", "store:media/moved", &scene.local("new/")]).success();
    assert!(scene.remote("moved").is_dir() && scene.station.at("new").is_dir());
}

/// What is there already is told from what was copied.
#[test]
fn no_clobber_leaves_files_and_links() {
    let scene = Scene::start();
    fs::create_dir(scene.remote("tree")).unwrap();
    fs::write(scene.remote("tree/old"), "new").unwrap();
    fs::write(scene.remote("tree/new"), "new").unwrap();
    fs::write(scene.remote("tree/.x.01234567.bowline-part"), "part").unwrap();
    symlink("elsewhere", scene.remote("tree/link")).unwrap();
    fs::create_dir(scene.station.at("tree")).unwrap();
    fs::write(scene.station.at("tree/old"), "old").unwrap();
    symlink("here", scene.station.at("tree/link")).unwrap();
    let here = scene.local(".");
    let copy = |more: &[&str]| {
        let source_and_target = ["-r", "store:media/tree", here.as_str()];
        scene.station.run(&[&["--json", "cp"], more, &source_and_target[..]].concat())
    };
    let objects = objects(&copy(&["-n"]));
    let of = |kind: &str| objects.iter().filter(|object| object["type"] == kind).count();
    assert_eq!((of("copied"), of("skipped"), of("copy_summary")), (1, 2, 1), "{objects:?}");
    let summary = objects.last().unwrap();
    assert_eq!(
        (&summary["files"], &summary["skipped"], &summary["moved"]),
        (&1.into(), &2.into(), &3.into())
    );
    assert_eq!(fs::read(scene.station.at("tree/old")).unwrap(), b"old");
    assert_eq!(fs::read_link(scene.station.at("tree/link")).unwrap(), Path::new("here"));
    assert_eq!(fs::read_dir(scene.station.at("tree")).unwrap().count(), 3, "no part of another copy");
    // Without it the file is replaced, and a link that leads elsewhere is said.
    let failed = copy(&[]);
    assert_eq!(failed.status.code(), Some(4), "{failed:?}");
    assert_eq!(fs::read(scene.station.at("tree/old")).unwrap(), b"new");
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

/// A second copy of a file that is being copied says so, in both directions, and the first one goes on.
#[test]
fn two_copies_of_one_file_are_one_too_many() {
    for is_upload in [false, true] {
        let scene = Scene::start();
        let (local, remote) = (scene.station.at("file"), scene.remote("file"));
        let (source, target) = if is_upload { (&local, &remote) } else { (&remote, &local) };
        fs::write(source, pattern(128 << 20)).unwrap();
        let (local, remote) = (scene.local("file"), "store:media/file".to_owned());
        let (from, to) = if is_upload { (&local, &remote) } else { (&remote, &local) };
        let first = scene.begin(from, to);
        let begun = Clock.now();
        while part_len(target) == 0 {
            assert!(Clock.now().since(begun) < LONG, "the copy does not get on");
            std::thread::yield_now();
        }
        // It stands still, so that it is not over when the second one begins.
        let first_one = Pid::from_child(&first);
        kill_process(first_one, Signal::STOP).unwrap();
        let second = scene.cp(&[from, to]);
        kill_process(first_one, Signal::CONT).unwrap();
        let why = if is_upload { "in use by" } else { "another copy of this file is running" };
        let parts = ["error[share-violation]", why, "data: the final name was not touched", "  try: "];
        second.failure_with(8, &parts);
        assert_eq!(Scene::moved(finish_child(first)), (128 << 20, 0));
        assert!(is_same(source, target) && parts_of(target).is_empty());
    }
}

/// The soft limit is what a shell gives everybody; the hard one is what there is.
#[test]
fn many_files_at_a_time_find_descriptors_beyond_the_soft_limit() {
    let scene = Scene::start();
    fs::create_dir(scene.remote("tree")).unwrap();
    for at in 0..600 {
        fs::write(scene.remote("tree").join(at.to_string()), pattern(1 << 16)).unwrap();
    }
    let bowline = scene.station.command(&["cp", "-r", "--jobs", "600", "store:media/tree", "tree"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 64 && exec \"$0\" \"$@\""]).arg(bowline.get_program());
    limited.args(bowline.get_args()).current_dir(scene.station.at(""));
    for (name, value) in bowline.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    finish(&mut limited).success();
    assert!(is_same(&scene.remote("tree"), &scene.station.at("tree")));
}

#[test]
fn what_cannot_be_meant_is_said_before_anything_is_done() {
    let station = User::new();
    station.run(&["cp", "--jobs", "0", "store:media/a", "b"]).misuse("0 is not in 1..=1024");
    station.run(&["cp", "-r", "store:media/a"]).misuse("2 values required");
}

/// While a copy lasts, a terminal shows a bar for all and one for each line; elsewhere there is a line now and then, and
/// never anything on standard output. The server stands still while that is looked at.
#[test]
fn b10_progress_is_drawn_on_a_terminal_and_told_elsewhere() {
    let scene = Scene::start();
    for name in ["drawn", "told"] {
        fs::write(scene.remote(name), pattern(256 << 20)).unwrap();
    }
    let screen = Winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&screen, None).unwrap();
    let mut drawn = scene.station.command(&["cp", "store:media/drawn", &scene.local("drawn")]);
    drawn.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(slave);
    let mut told = scene.station.command(&["cp", "store:media/told", &scene.local("told")]);
    told.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (drawn_child, mut told_child) = (drawn.spawn().unwrap(), told.spawn().unwrap());
    // The terminal's other side, which ends when nobody has it any more.
    drop(drawn);
    let terminal = Said::by(File::from(master));
    let text = Said::by(told_child.stderr.take().unwrap());
    let begun = Clock.now();
    let (drawn_at, told_at) = (scene.station.at("drawn"), scene.station.at("told"));
    while part_len(&drawn_at) < 8 << 20 || part_len(&told_at) < 8 << 20 {
        assert!(Clock.now().since(begun) < LONG, "the copies do not get on");
        std::thread::yield_now();
    }
    // Each look draws all lines that are there; the second one has joined by one of the next.
    let line_of = |address: &SocketAddr| format!("{address}: ");
    let addresses = scene.server.addresses();
    loop {
        scene.server.signal(Signal::STOP);
        terminal.until("0 of 1 files [", terminal.count("0 of 1 files [") + 2);
        if addresses.iter().all(|address| terminal.all().contains(&line_of(address))) {
            break;
        }
        scene.server.signal(Signal::CONT);
        terminal.until("0 of 1 files [", terminal.count("0 of 1 files [") + 1);
    }
    text.until("copied 0 of 1 files, ", 1);
    scene.server.signal(Signal::CONT);
    for child in [drawn_child, told_child] {
        assert_eq!(finish_child(child).success(), "", "nothing on standard output");
    }
    terminal.until("copied 1 file, 256.00 MiB", 1);
    text.until("copied 1 file, 256.00 MiB", 1);
    assert!(terminal.all().contains(" of 256.00 MiB") && terminal.all().contains(", sealed"));
    let text = text.all();
    assert!(text.lines().all(|line| line.starts_with("copied ")) && !text.contains('\u{1b}'), "{text:?}");
    assert!(is_same(&drawn_at, &scene.remote("drawn")) && is_same(&told_at, &scene.remote("told")));
}

/// What a program says on a stream, as it comes.
struct Said {
    coming: Receiver<String>,
    so_far: RefCell<String>,
}

impl Said {
    fn by(mut stream: impl Read + Send + 'static) -> Self {
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal that nobody has any more ends with an error.
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                drop(sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned()));
            }
        });
        Self { coming, so_far: RefCell::default() }
    }

    /// Waits until `part` was said so many times in all.
    #[track_caller]
    fn until(&self, part: &str, times: usize) {
        while self.count(part) < times {
            match self.coming.recv_timeout(LONG) {
                Ok(more) => self.so_far.borrow_mut().push_str(&more),
                Err(_) => panic!("no {part:?} in {:?}", self.so_far),
            }
        }
    }

    fn count(&self, part: &str) -> usize {
        self.all().matches(part).count()
    }

    fn all(&self) -> String {
        self.coming.try_iter().for_each(|more| self.so_far.borrow_mut().push_str(&more));
        self.so_far.borrow().clone()
    }
}

/// What an earlier run of the same words has left somewhere else is not gone on with.
#[test]
fn a_relative_target_is_one_in_its_own_folder() {
    let scene = Scene::start();
    let content = pattern(64 << 20);
    fs::write(scene.remote("file"), &content).unwrap();
    for folder in ["one", "two"] {
        fs::create_dir(scene.station.at(folder)).unwrap();
    }
    let copy = |folder: &str| {
        let mut command = scene.station.command(&["--json", "cp", "store:media/file", "file"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir(scene.station.at(folder)).spawn().unwrap()
    };
    let target = scene.station.at("one/file");
    kill_at(copy("one"), || part_len(&target), 12 << 20);
    let parts = parts_of(&target);
    assert!(parts.len() == 1 && !target.exists());
    // A part as long, of holes but for its end.
    let other = File::create(scene.station.at("two").join(parts[0].file_name().unwrap())).unwrap();
    other.write_all_at(&content[8 << 20..], 8 << 20).unwrap();
    let (moved, resumed) = Scene::moved(finish_child(copy("two")));
    assert_eq!((moved, resumed), (64 << 20, 0));
    assert!(fs::read(scene.station.at("two/file")).unwrap() == content);
}

/// Each source has a part of its own, and what one run has noted holds no more when another one begins anew.
#[test]
fn parts_are_never_mixed() {
    for is_upload in [false, true] {
        let scene = Scene::start();
        let place = |name: &str| {
            if is_upload { scene.local(name) } else { format!("store:media/{name}") }
        };
        let at = |name: &str| if is_upload { scene.station.at(name) } else { scene.remote(name) };
        let (to, target) = match is_upload {
            true => ("store:media/target".to_owned(), scene.remote("target")),
            false => (scene.local("target"), scene.station.at("target")),
        };
        let one = pattern(64 << 20);
        let other: Vec<u8> = one.iter().map(|byte| !byte).collect();
        fs::write(at("one"), &one).unwrap();
        fs::write(at("other"), &other).unwrap();
        fs::set_permissions(at("one"), Permissions::from_mode(0o444)).unwrap();
        kill_at(scene.begin(&place("one"), &to), || part_len(&target), 24 << 20);
        let first = parts_of(&target).pop().unwrap();
        // The part can be written to, whatever the source is.
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o700, 0o600);
        let len_of_other = || {
            let parts = parts_of(&target);
            let len = |part: &PathBuf| fs::metadata(part).map_or(0, |part| part.len());
            parts.iter().find(|&part| *part != first).map_or(0, len)
        };
        kill_at(scene.begin(&place("other"), &to), len_of_other, 32 << 20);
        // Somebody cleans up, and the next run is killed before it has got as far.
        fs::remove_file(&first).unwrap();
        let len_of_first = || fs::metadata(&first).map_or(0, |part| part.len());
        kill_at(scene.begin(&place("one"), &to), len_of_first, 4 << 20);
        assert!(!target.exists());
        File::options().write(true).open(&first).unwrap().set_len(48 << 20).unwrap();
        let (moved, resumed) = Scene::moved(finish_child(scene.begin(&place("one"), &to)));
        assert!(moved + resumed == 64 << 20 && resumed < 24 << 20, "{moved} {resumed}");
        assert!(fs::read(&target).unwrap() == one);
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o444);
        let (moved, resumed) = Scene::moved(finish_child(scene.begin(&place("other"), &to)));
        assert!(moved + resumed == 64 << 20 && resumed > 0, "{moved} {resumed}");
        assert!(fs::read(&target).unwrap() == other && parts_of(&target).is_empty());
    }
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
        let mut resumed = 0;
        for kill in 1..=10_u64 {
            // A part has the length up to which it was written.
            kill_at(scene.begin(from, to), || part_len(target), len * kill / 11);
            assert!(!target.exists(), "no final name on a part");
            let had = part_len(target);
            assert!(had >= resumed, "a part does not shrink");
            resumed = had;
        }
        let (moved, resumed_bytes) = Scene::moved(finish_child(scene.begin(from, to)));
        assert_eq!(moved + resumed_bytes, len);
        // A step of the journal and what was being written when it was killed; a hundredth of a large file.
        let again = resumed.saturating_sub(resumed_bytes);
        assert!(again <= (len / 100).max(10 << 20), "{again} of {resumed} bytes were copied again");
        assert!(is_same(source, target) && parts_of(target).is_empty());
    }
}

#[test]
fn b26_a_source_that_changes_is_not_copied_half_and_half() {
    let scene = Scene::start();
    let source = scene.remote("file");
    fs::write(&source, pattern(64 << 20)).unwrap();
    let target = scene.station.at("file");
    kill_at(scene.begin("store:media/file", &scene.local("file")), || part_len(&target), 8 << 20);
    assert!(part_len(&target) > 0 && !target.exists());
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
    let kept = part_len(Path::new(target));
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
    assert!(!Path::new(target).exists() && part_len(Path::new(target)) > 8 << 20);
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
