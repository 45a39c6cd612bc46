//! What each operation on names does, and what it refuses.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use rustix::fs::{CWD, Mode, mknodat};

use super::*;
use crate::model::{FileKind, SetTime};
use crate::server::descriptors::Bounds;
use crate::server::ground::{Ground, PUBLIC, identity_at, media, path, place, reason};

mod hostile;
mod swap;

fn contents(ground: &Ground, at: &str) -> Vec<u8> {
    fs::read(ground.at(at)).unwrap()
}

fn mode(ground: &Ground, at: &str) -> u32 {
    fs::symlink_metadata(ground.at(at)).unwrap().mode() & 0o7777
}

#[test]
fn a_file_is_made_only_where_that_is_wanted() {
    let ground = Ground::new();
    let open = |at: &str, create| ground.open(at, Rights::ALL, create);
    assert_eq!(open("new", Create::Never).unwrap_err(), Reason::NotFound);
    let made = open("new", Create::IfMissing).unwrap();
    assert_eq!(made.file.write(0, b"abc"), Ok(3));
    assert_eq!((made.attributes.len, made.attributes.permissions), (0, 0o640));
    let again = open("new", Create::IfMissing).unwrap();
    assert_eq!((again.identity, again.attributes.len), (made.identity, 3), "it is opened as it is");
    assert_eq!(open("new", Create::New).unwrap_err(), Reason::Exists);
    assert!(open("dir/newer", Create::New).is_ok());
    for create in [Create::IfMissing, Create::New] {
        assert_eq!(open("none/new", create).unwrap_err(), Reason::NotFound);
        assert_eq!(open("file/new", create).unwrap_err(), Reason::NotDirectory);
        assert_eq!(ground.open("", Rights::READ, create).unwrap_err(), Reason::IsDirectory);
    }
    assert_eq!(ground.open("", Rights::READ, Create::Never).unwrap_err(), Reason::IsDirectory);
    assert_eq!(open("dir", Create::IfMissing).unwrap_err(), Reason::IsDirectory);
    assert_eq!(open("dir", Create::New).unwrap_err(), Reason::Exists);
    assert_eq!(ground.open("x", Rights::LOCK, Create::New).unwrap_err(), Reason::Invalid);
    assert!(!ground.at("x").exists(), "what is refused makes nothing");
    let unknown = ground.names.open_file(
        &"other".parse().unwrap(),
        &path("file"),
        Rights::READ,
        Create::IfMissing,
        0o600,
    );
    assert_eq!(reason(unknown).unwrap_err(), Reason::NotFound);
}

#[test]
fn nothing_is_made_at_the_end_of_a_link() {
    let ground = Ground::new();
    ground.symlink("alias", "dir/file").unwrap();
    ground.symlink("dangling", "dir/none").unwrap();
    ground.symlink("out", "../outside/none").unwrap();
    let open = |at: &str, create| ground.open(at, Rights::ALL, create).map(|opened| opened.identity);
    assert_eq!(open("alias", Create::IfMissing), open("dir/file", Create::Never));
    assert_eq!(open("dangling", Create::IfMissing), Err(Reason::NotFound));
    assert_eq!(open("out", Create::IfMissing), Err(Reason::Outside));
    for link in ["alias", "dangling", "out"] {
        assert_eq!(open(link, Create::New), Err(Reason::Exists));
    }
    assert!(!ground.at("dir/none").exists() && !ground.outside().join("none").exists());
}

#[test]
fn an_appender_writes_and_reads_nothing() {
    let ground = Ground::new();
    for create in [Create::Never, Create::IfMissing] {
        let opened = ground.open("file", Rights::APPEND, create).unwrap();
        assert!(opened.file.read(0, 1, &mut BytesMut::new()).is_err());
    }
    let opened = ground.open("file", Rights::APPEND, Create::Never).unwrap();
    assert_eq!(opened.file.append(b"+"), Ok((6, 1)));
    let reader = ground.open("file", Rights::READ, Create::Never).unwrap();
    assert_eq!(reason(reader.file.append(b"+")), Err(Reason::PermissionDenied));
    assert_eq!(contents(&ground, "file"), b"public+");
}

/// Many open a file that is not there at once: one makes it, all have it.
#[test]
fn a_file_that_appears_meanwhile_is_opened() {
    let ground = Ground::new();
    for round in 0..50 {
        let at = format!("shared-{round}");
        let (made, opened) = std::thread::scope(|scope| {
            let open = |create| {
                let (ground, at) = (&ground, at.as_str());
                move || ground.open(at, Rights::ALL, create).map(|opened| opened.identity)
            };
            let new: Vec<_> = (0..2).map(|_| scope.spawn(open(Create::New))).collect();
            let any: Vec<_> = (0..2).map(|_| scope.spawn(open(Create::IfMissing))).collect();
            let join = |threads: Vec<std::thread::ScopedJoinHandle<'_, _>>| {
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            };
            (join(new), join(any))
        });
        assert!(made.iter().filter(|made| made.is_ok()).count() <= 1, "{made:?}");
        assert!(opened.iter().all(|outcome| *outcome == opened[0] && outcome.is_ok()), "{opened:?}");
    }
}

/// What comes of permissions is what the masks and the process's umask leave.
#[test]
fn t13_modes_are_masked_and_special_bits_dropped() {
    let umask = {
        let file = tempfile::tempdir().unwrap();
        fs::write(file.path().join("probe"), "").unwrap();
        0o666 & !fs::metadata(file.path().join("probe")).unwrap().mode()
    };
    let ground = Ground::new();
    let open = |ground: &Ground, at: &str, permissions| {
        let opened = ground.names.open_file(&media(), &path(at), Rights::ALL, Create::New, permissions);
        reason(opened).map(|opened| opened.attributes.permissions).unwrap()
    };
    assert_eq!(open(&ground, "a", 0o7777), 0o777 & !umask);
    assert_eq!(open(&ground, "b", u32::MAX), 0o777 & !umask);
    ground.mkdir("c", 0o7777).unwrap();
    assert_eq!(mode(&ground, "c"), 0o777 & !umask);
    let chmod = |ground: &Ground, at: &str, permissions| {
        let change = AttributeChange { permissions: Some(permissions), ..AttributeChange::default() };
        ground.change(at, &change).unwrap().permissions
    };
    assert_eq!(chmod(&ground, "a", 0o6755), 0o755);
    assert_eq!(chmod(&ground, "c", 0o1770), 0o770);
    fs::set_permissions(ground.at("b"), fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(chmod(&ground, "b", 0o4755), 0o755, "one that was there goes as well");

    let strict = ModePolicy { file_mask: 0o640, directory_mask: 0o750, allow_special_bits: false };
    let ground = Ground::with_modes(strict);
    assert_eq!(open(&ground, "a", 0o777), 0o640 & !umask);
    ground.mkdir("c", 0o777).unwrap();
    assert_eq!(mode(&ground, "c"), 0o750 & !umask);
    assert_eq!((chmod(&ground, "a", 0o7777), chmod(&ground, "c", 0o7777)), (0o640, 0o750));
    let opened = ground.open("a", Rights::ALL, Create::Never).unwrap();
    let change = AttributeChange { permissions: Some(0o7777), ..AttributeChange::default() };
    let changed = crate::server::change::change_open(&opened.file, &change, strict).unwrap();
    assert_eq!(changed.permissions, 0o640, "an open is no way around the mask");

    let trusting = ModePolicy { allow_special_bits: true, ..ModePolicy::default() };
    let ground = Ground::with_modes(trusting);
    assert_eq!(open(&ground, "a", 0o4711) & 0o7000, 0o4000);
    assert_eq!(chmod(&ground, "a", 0o6711), 0o6711);
}

#[test]
fn t13_special_files_are_refused_at_once() {
    let ground = Ground::new();
    mknodat(CWD, ground.at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(ground.at("socket")).unwrap();
    let mut specials = vec!["pipe", "socket"];
    match mknodat(CWD, ground.at("null"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 3)) {
        Ok(()) => specials.push("null"),
        Err(errno) => eprintln!("skipped: no device can be made here ({errno})"),
    }
    for special in specials {
        for rights in [Rights::READ, Rights::WRITE, Rights::APPEND, Rights::ALL] {
            for create in [Create::Never, Create::IfMissing] {
                assert_eq!(ground.open(special, rights, create).unwrap_err(), Reason::NotRegular);
            }
            assert_eq!(ground.open(special, rights, Create::New).unwrap_err(), Reason::Exists);
        }
        let touch = AttributeChange { modified: Some(SetTime::Now), ..AttributeChange::default() };
        let chmod = AttributeChange { permissions: Some(0o777), ..AttributeChange::default() };
        assert_eq!(ground.change(special, &touch), Err(Reason::NotRegular));
        assert_eq!(ground.change(special, &chmod), Err(Reason::NotRegular));
        assert_eq!(reason(ground.names.find(&place(special))).unwrap_err(), Reason::NotRegular);
        assert_eq!(ground.hard_link(special, "linked"), Err(Reason::NotRegular));
        assert_eq!(ground.page(special, None, true).unwrap_err(), Reason::NotDirectory);
        assert_eq!(ground.lookup(special).unwrap().kind, FileKind::Other, "it can be seen");
        assert_eq!(ground.rename(special, "moved", RenameHow::Replace), Ok(Outcome::Done));
        assert_eq!(ground.remove("moved", Removal::File), Ok(Outcome::Done), "and removed");
    }
}

#[test]
fn lookups_follow_the_last_link_only_if_told_to() {
    let ground = Ground::new();
    ground.symlink("alias", "dir/file").unwrap();
    ground.symlink("folder", "dir").unwrap();
    ground.symlink("dangling", "none").unwrap();
    let lookup = |at: &str, follow| reason(ground.names.lookup(&place(at), follow));
    assert_eq!(lookup("alias", false).unwrap().kind, FileKind::Symlink);
    assert_eq!(lookup("alias", true), lookup("dir/file", false));
    assert_eq!(lookup("folder/file", false), lookup("dir/file", false));
    assert_eq!(lookup("dangling", false).unwrap().kind, FileKind::Symlink);
    assert_eq!(lookup("dangling", true), Err(Reason::NotFound));
    assert_eq!(lookup("", false).unwrap().kind, FileKind::Directory);
    assert_eq!(lookup("file/x", true), Err(Reason::NotDirectory));
    assert_eq!(lookup("file", false).unwrap().len, len_u64(PUBLIC.len()));
    let long = "x".repeat(255);
    assert_eq!(lookup(&long, true), Err(Reason::NotFound));
    assert_eq!(
        reason(ground.names.lookup(&Place { export: "other".parse().unwrap(), path: path("file") }, true)),
        Err(Reason::NotFound)
    );
}

#[test]
fn names_are_told_apart_by_their_files() {
    let ground = Ground::new();
    ground.hard_link("file", "dir/twin").unwrap();
    ground.symlink("alias", "file").unwrap();
    let names = ["file", "dir/twin", "alias", "none", "none/deeper", "dir"].map(path);
    let states = ground.names.identify(&media(), &names).unwrap();
    assert_eq!(states[0].directory, states[5].directory);
    assert_eq!((states[1].directory, states[4].directory), (states[5].file, None));
    let found: Vec<_> = states.iter().map(|state| state.file).collect();
    assert!(found[0].is_some() && found[0] == found[1]);
    assert!(found[2].is_some() && found[2] != found[0], "a link is not followed");
    assert_eq!((found[3], found[4]), (None, None));
    assert_eq!(found[5], Some(identity_at(&ground.at("dir"))));
    assert_eq!(reason(ground.names.identify(&media(), &[path("file/x")])), Err(Reason::NotDirectory));
    assert_eq!(ground.names.identify(&media(), &[]), Ok(Vec::new()));
}

#[test]
fn links_are_read_as_they_are_written() {
    let ground = Ground::new();
    let long = "../".repeat(1300);
    for (at, target) in [("a", "dir/file"), ("b", "/etc/passwd"), ("c", "\u{e4} b\n"), ("d", &long)] {
        ground.symlink(at, target).unwrap();
        let read = reason(ground.names.read_link(&place(at))).unwrap();
        assert_eq!(read.as_bytes(), target.as_bytes());
    }
    let read = |at: &str| reason(ground.names.read_link(&place(at))).unwrap_err();
    assert_eq!((read("file"), read("dir"), read("")), (Reason::Invalid, Reason::Invalid, Reason::Invalid));
    assert_eq!(read("none"), Reason::NotFound);
    assert_eq!(ground.symlink("file", "x"), Err(Reason::Exists));
    assert_eq!(ground.symlink("none/x", "x"), Err(Reason::NotFound));
}

#[test]
fn space_is_that_of_the_file_system() {
    let ground = Ground::new();
    let local = rustix::fs::statvfs(ground.at("")).unwrap();
    for at in ["", "file", "dir"] {
        let space = ground.names.space(&place(at)).unwrap();
        assert_eq!(space.total, local.f_blocks * local.f_frsize);
        assert_eq!(space.files_total, local.f_files);
        assert!(space.available <= space.free && space.free <= space.total);
    }
    assert_eq!(reason(ground.names.space(&place("none"))), Err(Reason::NotFound));
}

#[test]
fn directories_are_made_and_removed_empty() {
    let ground = Ground::new();
    ground.mkdir("new", 0o700).unwrap();
    assert_eq!(mode(&ground, "new"), 0o700);
    assert_eq!(ground.mkdir("new", 0o700), Err(Reason::Exists));
    assert_eq!(ground.mkdir("file", 0o700), Err(Reason::Exists));
    assert_eq!(ground.mkdir("none/new", 0o700), Err(Reason::NotFound));
    assert_eq!(ground.mkdir("file/new", 0o700), Err(Reason::NotDirectory));
    ground.mkdir("new/er", 0o700).unwrap();
    assert_eq!(ground.remove("new", Removal::Directory), Err(Reason::NotEmpty));
    assert_eq!(ground.remove("new/er", Removal::Directory), Ok(Outcome::Done));
    assert_eq!(ground.remove("new", Removal::File), Err(Reason::IsDirectory));
    assert_eq!(ground.remove("new", Removal::Directory), Ok(Outcome::Done));
    assert!(!ground.at("new").exists());
}

#[test]
fn a_name_is_removed_and_not_what_it_leads_to() {
    let ground = Ground::new();
    ground.symlink("alias", "file").unwrap();
    ground.symlink("folder", "dir").unwrap();
    assert_eq!(ground.remove("folder", Removal::Directory), Err(Reason::NotDirectory));
    assert_eq!(ground.remove("file", Removal::Directory), Err(Reason::NotDirectory));
    assert_eq!(ground.remove("folder", Removal::File), Ok(Outcome::Done));
    assert_eq!(ground.remove("alias", Removal::File), Ok(Outcome::Done));
    assert_eq!(contents(&ground, "file"), PUBLIC);
    assert_eq!(ground.remove("dir/file", Removal::File), Ok(Outcome::Done));
    assert!(!ground.at("dir/file").exists());
}

#[test]
fn what_was_decided_on_another_file_is_not_done() {
    let ground = Ground::new();
    let (file, other) =
        (ground.identity(&path("file")).unwrap(), ground.identity(&path("dir/file")).unwrap());
    let remove = |at: &str, expected: Option<FileIdentity>| {
        reason(ground.names.remove(&Remove { place: place(at), what: Removal::File }, expected.unwrap()))
    };
    assert_eq!(remove("file", other), Ok(Outcome::Moved));
    assert_eq!(remove("none", file), Ok(Outcome::Moved));
    let rename = |from: &str, to: &str, expected| {
        let rename = Rename { export: media(), from: path(from), to: path(to), how: RenameHow::Replace };
        reason(ground.names.rename(&rename, expected))
    };
    assert_eq!(rename("file", "new", [other, None]), Ok(Outcome::Moved));
    assert_eq!(rename("file", "new", [file, other]), Ok(Outcome::Moved));
    assert_eq!(rename("file", "dir/file", [file, None]), Ok(Outcome::Moved));
    assert_eq!(rename("none", "dir/file", [file, other]), Ok(Outcome::Moved));
    assert_eq!(contents(&ground, "file"), PUBLIC);
    assert!(ground.at("dir/file").exists() && !ground.at("new").exists());
    assert_eq!(rename("file", "dir/file", [file, other]), Ok(Outcome::Done));
    assert_eq!(ground.identity(&path("dir/file")), Ok(file));
    assert_eq!(rename("file", "new", [None, None]), Err(Reason::NotFound));
}

#[test]
fn renames_replace_refuse_or_exchange() {
    let ground = Ground::new();
    fs::write(ground.at("a"), "a").unwrap();
    fs::write(ground.at("dir/b"), "b").unwrap();
    assert_eq!(ground.rename("a", "dir/b", RenameHow::NoReplace), Err(Reason::Exists));
    assert_eq!(ground.rename("a", "dir/b", RenameHow::Exchange), Ok(Outcome::Done));
    assert_eq!((contents(&ground, "a"), contents(&ground, "dir/b")), (b"b".to_vec(), b"a".to_vec()));
    assert_eq!(ground.rename("a", "none", RenameHow::Exchange), Err(Reason::NotFound));
    assert_eq!(ground.rename("a", "dir/b", RenameHow::Replace), Ok(Outcome::Done));
    assert_eq!(contents(&ground, "dir/b"), b"b");
    assert_eq!(ground.rename("dir/b", "c", RenameHow::NoReplace), Ok(Outcome::Done));
    assert_eq!(ground.rename("c", "c", RenameHow::Replace), Ok(Outcome::Done), "nothing happens");
    assert_eq!(ground.rename("none", "x", RenameHow::Replace), Err(Reason::NotFound));
    assert_eq!(ground.rename("c", "dir", RenameHow::Replace), Err(Reason::IsDirectory));
    assert_eq!(ground.rename("dir", "c", RenameHow::Replace), Err(Reason::NotDirectory));
    assert_eq!(ground.rename("dir", "dir/deep/x", RenameHow::Replace), Err(Reason::Invalid));
    ground.mkdir("empty", 0o755).unwrap();
    assert_eq!(ground.rename("empty", "dir", RenameHow::Replace), Err(Reason::NotEmpty));
    assert_eq!(ground.rename("dir", "empty", RenameHow::Replace), Ok(Outcome::Done));
    ground.symlink("alias", "c").unwrap();
    assert_eq!(ground.rename("alias", "moved", RenameHow::Replace), Ok(Outcome::Done));
    assert_eq!(fs::read_link(ground.at("moved")).unwrap().as_os_str().as_bytes(), b"c", "the link itself");
}

#[test]
fn only_regular_files_get_further_names() {
    let ground = Ground::new();
    ground.hard_link("file", "dir/twin").unwrap();
    assert_eq!(ground.lookup("file").unwrap().links, 2);
    ground.symlink("alias", "file").unwrap();
    ground.symlink("out", "../outside/file").unwrap();
    assert_eq!(ground.hard_link("alias", "x"), Err(Reason::NotRegular));
    assert_eq!(ground.hard_link("out", "x"), Err(Reason::NotRegular));
    assert_eq!(ground.hard_link("dir", "x"), Err(Reason::IsDirectory));
    assert_eq!(ground.hard_link("none", "x"), Err(Reason::NotFound));
    assert_eq!(ground.hard_link("file", "dir/twin"), Err(Reason::Exists));
    assert_eq!(ground.hard_link("file", "none/x"), Err(Reason::NotFound));
}

#[test]
fn attributes_of_names_change_but_for_their_length() {
    let ground = Ground::new();
    ground.symlink("alias", "dir/file").unwrap();
    let times = AttributeChange {
        accessed: Some(SetTime::At(-1)),
        modified: Some(SetTime::At(1_500_000_000)),
        ..AttributeChange::default()
    };
    for at in ["alias", "dir", ""] {
        let changed = ground.change(at, &times).unwrap();
        assert_eq!((changed.accessed_ns, changed.modified_ns), (-1, 1_500_000_000), "{at}");
    }
    let target = fs::metadata(ground.at("dir/file")).unwrap();
    assert_eq!((target.atime(), target.atime_nsec()), (-1, 999_999_999), "the link is followed");
    let touch = AttributeChange { modified: Some(SetTime::Now), ..AttributeChange::default() };
    let touched = ground.change("dir/file", &touch).unwrap();
    assert!(touched.modified_ns > 1_700_000_000_000_000_000 && touched.accessed_ns == -1);
    let chmod = AttributeChange { permissions: Some(0o600), ..AttributeChange::default() };
    assert_eq!(ground.change("alias", &chmod).unwrap().permissions, 0o600);
    assert_eq!(mode(&ground, "dir/file"), 0o600);
    let before = ground.lookup("file");
    assert_eq!(ground.change("file", &AttributeChange::default()), before, "nothing to change");
    let cut = AttributeChange { len: Some(0), permissions: Some(0), ..AttributeChange::default() };
    assert_eq!(ground.change("file", &cut), Err(Reason::Invalid));
    assert_eq!(ground.lookup("file"), before);
    assert_eq!(ground.change("none", &chmod), Err(Reason::NotFound));
}

#[test]
fn the_root_is_looked_at_and_not_changed_as_a_name() {
    let ground = Ground::new();
    for how in [RenameHow::Replace, RenameHow::NoReplace, RenameHow::Exchange] {
        assert_eq!(ground.rename("", "x", how), Err(Reason::Invalid));
        assert_eq!(ground.rename("file", "", how), Err(Reason::Invalid));
    }
    for what in [Removal::File, Removal::Directory] {
        assert_eq!(ground.remove("", what), Err(Reason::Invalid));
    }
    assert_eq!(ground.mkdir("", 0o700), Err(Reason::Invalid));
    assert_eq!(ground.symlink("", "x"), Err(Reason::Invalid));
    assert_eq!(
        (ground.hard_link("", "x"), ground.hard_link("file", "")),
        (Err(Reason::Invalid), Err(Reason::Invalid))
    );
    let chmod = AttributeChange { permissions: Some(0o711), ..AttributeChange::default() };
    assert_eq!(ground.change("", &chmod).unwrap().permissions, 0o711);
    assert!(ground.page("", None, true).unwrap().0.len() == 2);
}

/// Two directories with one lock, and two with two: nobody waits for himself, or in a circle.
#[test]
fn locks_are_taken_once_and_in_one_order() {
    let ground = Ground::new();
    let identity = |at: &str| ground.identity(&path(at)).unwrap().unwrap();
    let mut same = None;
    for number in 0..=LOCKS {
        let at = format!("d{number}");
        ground.mkdir(&at, 0o700).unwrap();
        let twin = (0..number).map(|other| format!("d{other}"));
        same = same.or_else(|| {
            let mut twin = twin.into_iter();
            twin.find(|other| number_of(identity(other)) == number_of(identity(&at)))
                .map(|other| (other, at.clone()))
        });
    }
    let (one, other) = same.expect("more directories than locks");
    for (from, to) in [(one.as_str(), other.as_str()), (&one, &one), ("d0", "d1"), ("d1", "d0")] {
        fs::write(ground.at(format!("{from}/f")), "").unwrap();
        assert_eq!(
            ground.rename(&format!("{from}/f"), &format!("{to}/g"), RenameHow::Replace),
            Ok(Outcome::Done)
        );
    }
    std::thread::scope(|scope| {
        for (from, to) in [("d0", "d1"), ("d1", "d0"), ("d0", "d1"), ("d1", "d0")] {
            let ground = &ground;
            scope.spawn(move || {
                for _ in 0..500 {
                    let _ = ground.rename(&format!("{from}/g"), &format!("{to}/g"), RenameHow::Exchange);
                }
            });
        }
    });
}

/// Of many that decide on the same names at once, one changes them; the others hear that they have changed. Without
/// the lock, two look before either acts.
#[test]
fn a_look_and_a_change_are_one_step() {
    const ROUNDS: usize = 2000;
    const THREADS: usize = 3;
    let ground = Ground::new();
    let now = || ["file", "dir/file"].map(|at| ground.identity(&path(at)).unwrap());
    let (expected, done, wrong) = (Mutex::new(now()), AtomicUsize::new(0), AtomicUsize::new(0));
    let barrier = Barrier::new(THREADS);
    let exchange = || {
        for _ in 0..ROUNDS {
            let decided = *expected.lock().unwrap();
            let (from, to) = (path("file"), path("dir/file"));
            let rename = Rename { export: media(), from, to, how: RenameHow::Exchange };
            barrier.wait();
            if ground.names.rename(&rename, decided) == Ok(Outcome::Done) {
                done.fetch_add(1, Ordering::Relaxed);
            }
            if barrier.wait().is_leader() {
                let is_wrong = done.swap(0, Ordering::Relaxed) != 1;
                wrong.fetch_add(usize::from(is_wrong), Ordering::Relaxed);
                *expected.lock().unwrap() = now();
            }
            barrier.wait();
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(exchange))));
    assert_eq!(wrong.into_inner(), 0);
}

/// Of many that remove one name at once, one has removed it.
#[test]
fn a_name_is_removed_once() {
    let ground = Ground::new();
    for _ in 0..100 {
        fs::write(ground.at("prey"), "").unwrap();
        let expected = ground.identity(&path("prey")).unwrap().unwrap();
        let remove = || ground.names.remove(&Remove { place: place("prey"), what: Removal::File }, expected);
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(remove)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap().unwrap())
                .filter(|done| *done == Outcome::Done)
                .count()
        });
        assert_eq!(done, 1);
    }
}

/// Where a name is another file system, everything behind it is outside, and so is what it stands for itself.
#[test]
fn t12_what_is_mounted_on_a_name_is_outside() {
    let device = |at: &str| rustix::fs::stat(at).map(|stat| stat.st_dev);
    if device("/dev").is_err() || device("/dev") == device("/dev/shm") {
        eprintln!("skipped: /dev/shm is no file system of its own");
        return;
    }
    let exports = Arc::new(Exports::open([(media(), "/dev".into())]).unwrap());
    let files = Arc::new(Descriptors::new(Arc::clone(&exports), Bounds { open: 10, pinned: 5 }));
    let names = Names::new(exports, files, ModePolicy::default(), [0; 32]);
    for at in ["shm", "shm/none", "shm/none/none"] {
        for follow in [true, false] {
            assert_eq!(reason(names.lookup(&place(at), follow)), Err(Reason::Outside), "{at}");
        }
        assert_eq!(reason(names.identify(&media(), &[path(at)])), Err(Reason::Outside), "{at}");
        assert_eq!(reason(names.space(&place(at))), Err(Reason::Outside), "{at}");
        assert_eq!(reason(names.find(&place(at))).unwrap_err(), Reason::Outside, "{at}");
        let list = List { place: place(at), cookie: None, with_attributes: false };
        assert_eq!(reason(names.list(&list)).unwrap_err(), Reason::Outside, "{at}");
    }
    let make = MakeDirectory { place: place("shm/bowline"), permissions: 0o700 };
    assert_eq!(reason(names.make_directory(&make)), Err(Reason::Outside));
    let list = List { place: place(""), cookie: None, with_attributes: true };
    let entries: Vec<crate::wire::names::DirectoryEntry> =
        crate::wire::names::decode_list(&names.list(&list).unwrap().0).unwrap();
    let mounted = entries.iter().find(|entry| entry.name.as_bytes() == b"shm").unwrap();
    assert_eq!((mounted.kind, mounted.attributes), (FileKind::Directory, None), "its attributes are outside");
    assert!(entries.iter().any(|entry| entry.attributes.is_some()));
}

#[test]
fn a_link_that_moves_with_its_target_is_held_as_it_was_found() {
    let ground = Ground::new();
    ground.symlink("alias", "dir/file").unwrap();
    let held = ground.names.find(&place("alias")).unwrap();
    fs::remove_file(ground.at("alias")).unwrap();
    symlink(ground.outside().join("file"), ground.at("alias")).unwrap();
    let chmod = AttributeChange { permissions: Some(0o601), ..AttributeChange::default() };
    change_found(ground.names.exports.descriptors(), &held, &chmod, ModePolicy::default()).unwrap();
    assert_eq!(mode(&ground, "dir/file"), 0o601);
}
