//! Names and directories, against a real server process. What hostile names do to every operation, with links swapped
//! meanwhile, stands beside the file work itself, in `src/server`; so do cookies of listings that nobody was given, which this client
//! cannot send: `t22_a_cookie_that_was_not_given_out_is_stale` in `src/server/listing/tests.rs`.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use bowline::client::{Export, OpenOptions};
use bowline::model::{FileKind, LineRole, Reason};
use support::{EXPORT, World, reason};

mod support;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

async fn start() -> (World, Export) {
    let world = World::start(b"0123456789").await;
    let export = world.connect(BOTH).await.export(EXPORT).unwrap();
    (world, export)
}

async fn names(export: &Export, path: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let mut listing = export.read_dir(path).await.unwrap();
    while let Some(entry) = listing.next_entry().await.unwrap() {
        assert!(names.insert(entry.name().as_bytes().to_vec()), "a name was listed twice");
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_names_that_cannot_be_are_refused_and_all_others_keep_their_bytes() {
    let (world, export) = start().await;
    let write = OpenOptions::new().write(true).create_new(true);
    let mut made = BTreeSet::from([b"file".to_vec()]);
    for name in [&b"CON"[..], b"a\nb", b"\xff\xfe", b"-rf", b"...", b" ", b"a\\b", &[b'x'; 255]] {
        world.noted(export.open(name, &write).await).unwrap().close().await.unwrap();
        made.insert(name.to_vec());
    }
    assert_eq!(names(&export, b"").await, made);
    let local: BTreeSet<Vec<u8>> = fs::read_dir(world.file(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    assert_eq!(local, made);
    for name in [&b"."[..], b"..", b"a//b", b"/etc/passwd", b"a\0b", b"../x", b"x/..", b"file/"] {
        assert_eq!(reason(export.open(name, &write).await), Reason::Invalid, "{name:?}");
        assert_eq!(reason(export.metadata(name).await), Reason::Invalid, "{name:?}");
        assert_eq!(reason(export.rename("file", name).await), Reason::Invalid, "{name:?}");
    }
    for name in [&[b'x'; 256][..], &[b'x'; 4096]] {
        assert_eq!(reason(export.open(name, &write).await), Reason::NameTooLong);
    }
    assert_eq!(reason(export.open(b"", &write).await), Reason::IsDirectory);
    for refused in [export.remove_dir(b"").await, export.create_dir(b"", 0o777).await] {
        assert_eq!(reason(refused), Reason::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_links_are_followed_beneath_the_export_and_never_out_of_it() {
    let (world, export) = start().await;
    let secret = world.folder.path().join("secret");
    fs::write(&secret, b"not exported").unwrap();
    let read = OpenOptions::new().read(true);
    // What may be written and what may be followed are two things.
    export.symlink(secret.as_os_str().as_bytes(), b"absolute").await.unwrap();
    export.symlink(b"../secret", b"climbing").await.unwrap();
    export.symlink(b"/proc/self/root/etc/passwd", b"magic").await.unwrap();
    export.create_dir(b"folder", 0o777).await.unwrap();
    export.symlink(b"../file", b"folder/inside").await.unwrap();
    for name in ["absolute", "climbing", "magic"] {
        for outcome in [
            export.open(name, &read).await.map(drop),
            export.metadata(name).await.map(drop),
            export.set_permissions(name, 0o600).await.map(drop),
            export.xattr_names(name).await.map(drop),
        ] {
            assert_eq!(reason(outcome), Reason::Outside, "{name}");
        }
        assert_eq!(export.symlink_metadata(name).await.unwrap().kind, FileKind::Symlink);
        assert_eq!(
            export.read_link(name).await.unwrap().as_bytes(),
            fs::read_link(world.file(name)).unwrap().as_os_str().as_bytes()
        );
    }
    let file = world.noted(export.open(b"folder/inside", &read).await).unwrap();
    let mut into = [0; 10];
    assert_eq!(file.read_at(0, &mut into).await.unwrap(), 10);
    assert_eq!(fs::read(&secret).unwrap(), b"not exported");
}

#[tokio::test(flavor = "multi_thread")]
async fn t22_a_listing_of_100_000_entries_costs_the_server_less_than_4_mib() {
    const ENTRIES: usize = 100_000;
    let (world, export) = start().await;
    let folder = world.file("many");
    fs::create_dir(&folder).unwrap();
    for number in 0..ENTRIES {
        // Links need no inode each, which makes them quicker than files.
        if number % 1000 == 0 {
            fs::write(folder.join(format!("{number:06} a name of a usual length.jpeg")), b"").unwrap();
        } else {
            let first = folder.join(format!("{:06} a name of a usual length.jpeg", number - number % 1000));
            fs::hard_link(first, folder.join(format!("{number:06} a name of a usual length.jpeg"))).unwrap();
        }
    }
    // Whatever the server needs once.
    assert_eq!(names(&export, b"").await.len(), 2);
    reset_peak(world.pid());
    let before = peak_kib(world.pid());
    assert_eq!(names(&export, b"many").await.len(), ENTRIES);
    let grown = peak_kib(world.pid()) - before;
    println!("the server's peak grew by {grown} KiB");
    assert!(grown < 4096, "{grown} KiB");
}

/// The peak of resident memory of a process counts from now on.
fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn peak_kib(pid: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_else(|_| panic!("{line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn t22_a_deep_tree_is_no_trouble_and_one_that_is_gone_is_not_found() {
    let (world, export) = start().await;
    let mut path = Vec::new();
    for depth in 0..60 {
        if depth > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&[b'd'; 60]);
        export.create_dir(&path, 0o777).await.unwrap();
    }
    assert_eq!(names(&export, &path).await.len(), 0);
    assert_eq!(export.metadata(&path).await.unwrap().kind, FileKind::Directory);
    fs::remove_dir_all(world.file(&"d".repeat(60))).unwrap();
    assert_eq!(reason(export.read_dir(&path).await.map(drop)), Reason::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_what_is_no_file_is_named_and_never_opened() {
    let (world, export) = start().await;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.file("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.file("socket")).unwrap();
    for name in ["pipe", "socket"] {
        assert_eq!(export.symlink_metadata(name).await.unwrap().kind, FileKind::Other);
        for options in [
            OpenOptions::new().read(true),
            OpenOptions::new().write(true).create(true),
            OpenOptions::new().append(true),
        ] {
            assert_eq!(reason(export.open(name, &options).await), Reason::NotRegular, "{name}");
        }
        export.rename(name, "moved").await.unwrap();
        export.remove_file("moved").await.unwrap();
    }
    assert_eq!(names(&export, b"").await.len(), 1);
}
