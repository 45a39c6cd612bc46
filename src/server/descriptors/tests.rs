//! Opens that outnumber their descriptors, against real files: what is closed and opened again is always the right
//! file, and nothing is lost with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path as FilePath;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use rustix::io::Errno;

use super::table::Next;
use super::*;
use crate::model::{Allocation, ByteRange, Removal, RenameHow};
use crate::server::change::ModePolicy;
use crate::server::ground::{Ground, identity_at, media, path, reason};
use crate::server::names::Outcome;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

const A: OpenId = OpenId(1);
const B: OpenId = OpenId(2);
const C: OpenId = OpenId(3);

/// A place where so many descriptors may be open, half of them pinned.
fn ground(open: usize) -> Ground {
    Ground::with(ModePolicy::default(), Bounds { open, pinned: open / 2 })
}

impl Ground {
    fn write_file(&self, at: &str, content: &str) {
        fs::write(self.at(at), content).unwrap();
    }

    /// Makes a file and opens it.
    fn put(&self, open: OpenId, at: &str, content: &str) {
        self.write_file(at, content);
        self.keep(open, at, Rights::ALL).unwrap();
    }

    /// What an open reads.
    fn read(&self, open: OpenId) -> Result<String, Reason> {
        let mut bytes = BytesMut::new();
        let file = reason(self.files.find(open))?;
        reason(Descriptor::read(&file, 0, 100, &mut bytes))?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn write(&self, open: OpenId, bytes: &str) -> Result<u32, Reason> {
        reason(self.files.find(open).and_then(|file| file.write(0, bytes.as_bytes())))
    }

    fn sync(&self, open: OpenId) -> Result<(), Reason> {
        reason(self.files.sync(open, SyncScope::Data))
    }

    fn is_here(&self, open: OpenId) -> bool {
        self.files.table().entry_of(open).unwrap().held().is_some()
    }

    /// Closes the descriptors of everything that is not used, in the order in which it was.
    fn close_all(&self) {
        while self.files.make_room().is_some() {}
    }

    fn fail_next_sync(&self, open: OpenId) {
        *self.files.here(open).unwrap().next_sync.lock().unwrap() = Some(Errno::IO);
    }
}

#[test]
fn what_was_used_longest_ago_is_closed_and_opened_again() {
    let ground = ground(3);
    for (open, at) in [(A, "a"), (B, "b"), (C, "c")] {
        ground.put(open, at, at);
    }
    assert!(ground.files.here(A).is_some(), "which is a use");
    ground.put(OpenId(4), "d", "d");
    assert_eq!([A, B, C].map(|open| ground.is_here(open)), [true, false, true]);
    assert!(ground.files.here(B).is_none());
    assert_eq!(ground.read(B), Ok("b".into()));
    assert_eq!([A, B, C].map(|open| ground.is_here(open)), [true, true, false]);
    assert_eq!(ground.files.counts(), Counts { opens: 4, open: 3, pinned: 0 });

    drop(ground.files.remove(B));
    drop(ground.files.remove(C));
    assert_eq!(ground.files.counts(), Counts { opens: 2, open: 2, pinned: 0 });
    assert_eq!(ground.read(B), Err(Reason::BadHandle));
    assert_eq!(ground.sync(C), Err(Reason::BadHandle));
}

#[test]
fn half_of_what_the_process_may_have_is_for_files() {
    let limits = Limits::default();
    let bounds = |max| Bounds::new(&limits, max);
    assert_eq!(bounds(None), Bounds { open: limits.descriptors_max, pinned: limits.pinned_descriptors_max });
    assert_eq!(bounds(Some(1 << 40)), bounds(None));
    assert_eq!(bounds(Some(1024)), Bounds { open: 512, pinned: 256 });
    assert_eq!(bounds(Some(0)), Bounds { open: 1, pinned: 0 });
}

#[test]
fn what_somebody_uses_is_not_closed_and_others_wait_for_it() {
    let ground = ground(2);
    ground.put(A, "a", "a");
    ground.put(B, "b", "b");
    ground.files.adopt(C, (&media(), &path("file"), Rights::READ), identity_at(&ground.at("file"))).unwrap();
    let [first, second] = [A, B].map(|open| ground.files.here(open).unwrap());
    assert_eq!(ground.read(C), Err(Reason::Exhausted), "a bounded time");
    assert!(ground.is_here(A) && ground.is_here(B));

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ground.read(C));
        while ground.files.waiters.0.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        drop(first);
        assert_eq!(waiting.join().unwrap(), Ok("public".into()));
    });
    assert!(!ground.is_here(A));
    assert!(second.attributes().is_ok());
    // What is sent from a file holds it as well, also when its open has ended.
    drop(ground.files.remove(B));
    assert_eq!(ground.files.counts().open, 2);
    drop(second);
    assert_eq!(ground.files.counts().open, 1);
}

#[test]
fn only_so_many_wait_for_a_descriptor() {
    let ground = ground(1);
    ground.put(A, "a", "a");
    let _used = ground.files.here(A).unwrap();
    let taken: Vec<Counted<'_>> =
        (0..Limits::DESCRIPTOR_WAITERS_MAX).map_while(|_| ground.files.waiters.enter(usize::MAX)).collect();
    let before = crate::net::Clock.now();
    assert_eq!(ground.keep(B, "file", Rights::READ), Err(Reason::Exhausted));
    assert!(crate::net::Clock.now().since(before) < Limits::DESCRIPTOR_WAIT, "at once");
    drop(taken);
}

#[test]
fn those_who_need_the_same_descriptor_open_it_once() {
    let ground = ground(2);
    for (open, at) in [(B, "b"), (A, "a")] {
        ground.put(open, at, at);
    }
    ground.close_all();
    let _used = ground.files.find(B).unwrap();
    // There is one place, for all of them.
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        let read = || {
            barrier.wait();
            let file = ground.files.find(A);
            // Nobody gives the place back before everybody has been there.
            barrier.wait();
            file.is_ok()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
    assert_eq!(ground.files.counts().open, 2);
}

#[test]
fn those_who_wait_for_somebody_in_vain_hear_why() {
    let ground = ground(2);
    ground.put(A, "a", "a");
    ground.close_all();
    let mut table = ground.files.table();
    let Next::Open(_) = table.next(A, None) else { panic!("the first one opens it") };
    let Next::Wait(number) = table.next(A, None) else { panic!("the second one waits") };
    assert!(table.finish(A, Err(Reason::Exhausted)).is_none());
    assert!(matches!(table.next(A, Some(number)), Next::Failed(Reason::Exhausted)));
    assert!(matches!(table.next(A, None), Next::Open(_)), "whoever comes later tries again");
    // The open can end meanwhile.
    assert!(table.remove(A).is_none() && table.finish(A, Err(Reason::Io)).is_none());
    assert!(matches!(table.next(A, Some(number)), Next::Unknown));
}

#[test]
fn f38_a_file_is_found_again_where_clients_have_renamed_it() {
    let ground = ground(20);
    let files = [(A, "dir/file"), (B, "dir/deep/file"), (C, "file")];
    for (open, at) in files {
        ground.put(open, at, at);
    }
    // Of these names none is beneath "dir".
    for (open, at) in [(OpenId(4), "dir-file"), (OpenId(5), "dir.d"), (OpenId(6), "dir0")] {
        ground.put(open, at, at);
    }
    let check = || {
        for (open, content) in files {
            assert_eq!(ground.read(open), Ok(content.into()));
        }
        for (open, at) in [(OpenId(4), "dir-file"), (OpenId(5), "dir.d"), (OpenId(6), "dir0")] {
            assert_eq!(ground.read(open), Ok(at.into()));
        }
    };
    let rename = |from: &str, to: &str, how| {
        ground.close_all();
        assert_eq!(ground.files.counts().open, 0);
        assert_eq!(ground.rename(from, to, how), Ok(Outcome::Done));
    };
    // A file, a directory with a directory in it, and back; each while everything is closed, and twice in a row.
    rename("file", "dir/deep/moved", RenameHow::Replace);
    check();
    rename("dir", "other", RenameHow::NoReplace);
    rename("other/deep", "deeper", RenameHow::Replace);
    check();
    rename("deeper/moved", "other/file", RenameHow::Exchange);
    check();
    rename("deeper", "other", RenameHow::Exchange);
    check();
    assert_eq!(fs::read_to_string(ground.at("deeper/file")).unwrap(), "file");

    // By a way that leads through a link.
    std::os::unix::fs::symlink("deeper", ground.at("link")).unwrap();
    rename("link/file", "link/again", RenameHow::NoReplace);
    check();
    // Nothing moves with a rename that comes to nothing.
    ground.close_all();
    assert_eq!(ground.rename("deeper/again", "dir-file", RenameHow::NoReplace), Err(Reason::Exists));
    assert_eq!(ground.rename("none", "deeper/again", RenameHow::Replace), Err(Reason::NotFound));
    check();
}

#[test]
fn f38_many_opens_follow_the_rename_of_a_directory() {
    let ground = ground(10);
    let count = 5 * u64::try_from(SCAN).unwrap() / 2;
    for number in 0..count {
        let (at, side) = (format!("dir/{number}"), number % 2 == 0);
        ground.put(OpenId(number), &at, &at);
        if side {
            // Several opens of one name.
            ground.keep(OpenId(1000 + number), &at, Rights::READ).unwrap();
        }
    }
    let moved = ground.files.renamed(&media(), b"dir", b"none", false);
    assert_eq!(moved.len(), usize::try_from(count * 3 / 2).unwrap());
    assert_eq!(ground.files.renamed(&media(), b"none", b"dir", false).len(), moved.len());
    ground.close_all();
    ground.rename("dir", "moved", RenameHow::Replace).unwrap();
    for number in 0..count {
        assert_eq!(ground.read(OpenId(number)), Ok(format!("dir/{number}")));
    }
    assert_eq!(ground.read(OpenId(1000)), Ok("dir/0".into()));
}

#[test]
fn f38_what_was_renamed_by_a_program_on_the_server_is_found_while_its_descriptor_is_there() {
    let ground = ground(3);
    ground.put(A, "dir/a", "a");
    fs::rename(ground.at("dir"), ground.at("moved")).unwrap();
    fs::rename(ground.at("moved/a"), ground.at("moved/b")).unwrap();
    ground.close_all();
    assert!(!ground.is_here(A));
    assert_eq!(ground.read(A), Ok("a".into()));
    // And a client's rename of the directory that it is in now.
    ground.close_all();
    ground.rename("moved", "again", RenameHow::Replace).unwrap();
    assert_eq!(ground.read(A), Ok("a".into()));
}

#[test]
fn f38_another_file_or_none_is_stale_until_the_right_one_is_back() {
    let ground = ground(3);
    let stale = |open| {
        for _ in 0..2 {
            assert_eq!(ground.read(open), Err(Reason::Stale));
            assert_eq!(ground.write(open, "x"), Err(Reason::Stale));
        }
        assert_eq!(ground.files.counts().open, 0, "and no descriptor stays");
    };
    ground.put(A, "dir/a", "right");
    ground.close_all();
    fs::rename(ground.at("dir/a"), ground.at("dir/aside")).unwrap();
    stale(A);
    ground.write_file("dir/a", "other");
    stale(A);
    assert_eq!(ground.sync(A), Err(Reason::Stale));
    assert_eq!(fs::read_to_string(ground.at("dir/a")).unwrap(), "other", "it was not written to");
    fs::remove_file(ground.at("dir/a")).unwrap();
    for other in ["/etc/passwd", "../../outside/file", "a", "aside"] {
        std::os::unix::fs::symlink(other, ground.at("dir/a")).unwrap();
        match other {
            // A way to the same file is as good as a name of it.
            "aside" => assert_eq!(ground.read(A), Ok("right".into())),
            _ => assert_eq!(ground.read(A), Err(Reason::Stale)),
        }
        ground.close_all();
        fs::remove_file(ground.at("dir/a")).unwrap();
    }
    // Where the link led, the file was when it was closed.
    fs::rename(ground.at("dir/aside"), ground.at("dir/elsewhere")).unwrap();
    stale(A);
    fs::create_dir(ground.at("dir/aside")).unwrap();
    stale(A);
    fs::remove_dir(ground.at("dir/aside")).unwrap();
    fs::rename(ground.at("dir/elsewhere"), ground.at("dir/aside")).unwrap();
    assert_eq!(ground.read(A), Ok("right".into()));
    ground.close_all();
    fs::rename(ground.at("dir"), ground.at("away")).unwrap();
    stale(A);
    ground.write_file("dir", "a file");
    stale(A);
}

/// The file system gives the next file the inode of the one that was deleted.
#[test]
fn f38_an_inode_that_is_used_again_is_stale() {
    let ground = ground(3);
    ground.put(A, "a", "right");
    let identity = identity_at(&ground.at("a"));
    ground.close_all();
    fs::remove_file(ground.at("a")).unwrap();
    let same_inode = (0..100).any(|number| {
        ground.write_file("a", &format!("other {number}"));
        let found = identity_at(&ground.at("a"));
        found.inode == identity.inode && found != identity || {
            fs::rename(ground.at("a"), ground.at(format!("kept {number}"))).unwrap();
            false
        }
    });
    if !same_inode {
        eprintln!("skipped: this file system does not use inodes again at once, or keeps no births");
        ground.write_file("a", "other");
    }
    assert_eq!(ground.read(A), Err(Reason::Stale));
}

#[test]
fn f38_what_was_open_before_this_process_is_the_same_file_or_stale() {
    let ground = ground(3);
    let identity = identity_at(&ground.at("dir/file"));
    let older = FileIdentity { born_ns: identity.born_ns - 1, ..identity };
    ground.files.adopt(A, (&media(), &path("dir/file"), Rights::READ), identity).unwrap();
    ground.files.adopt(B, (&media(), &path("dir/file"), Rights::READ), older).unwrap();
    ground.files.adopt(C, (&"other".parse().unwrap(), &path("dir/file"), Rights::READ), identity).unwrap();
    assert_eq!(ground.files.counts(), Counts { opens: 3, open: 0, pinned: 0 });
    assert_eq!(ground.read(A), Ok("public".into()));
    assert_eq!(ground.write(A, "x"), Err(Reason::PermissionDenied), "it is opened for what it was open for");
    assert_eq!(ground.read(B), Err(Reason::Stale));
    assert_eq!(ground.read(C), Err(Reason::NotFound), "its export is not served any more");

    // Somebody who knows of a rename tells it.
    ground.close_all();
    fs::rename(ground.at("dir/file"), ground.at("moved")).unwrap();
    assert_eq!(ground.read(A), Err(Reason::Stale));
    ground.files.set_path(A, &path("moved"));
    assert_eq!(ground.read(A), Ok("public".into()));
    // A client's rename is followed, and its removal waited for.
    ground.close_all();
    ground.rename("moved", "dir/again", RenameHow::Replace).unwrap();
    ground.remove("dir/again", Removal::File).unwrap();
    assert_eq!(ground.read(A), Ok("public".into()));
}

#[test]
fn f38_what_clients_remove_or_replace_stays_open_as_long_as_its_opens() {
    let ground = ground(6);
    ground.put(A, "a", "a");
    ground.put(B, "b", "b");
    ground.keep(C, "b", Rights::READ).unwrap();
    ground.close_all();
    ground.remove("a", Removal::File).unwrap();
    ground.rename("file", "b", RenameHow::Replace).unwrap();
    assert_eq!(ground.files.counts(), Counts { opens: 3, open: 3, pinned: 3 });
    ground.close_all();
    assert_eq!(ground.files.counts().open, 3);
    for _ in 0..2 {
        assert_eq!([A, B, C].map(|open| ground.read(open).unwrap()), ["a", "b", "b"]);
    }
    assert_eq!(ground.write(B, "B"), Ok(1));
    assert_eq!(ground.read(C), Ok("B".into()));
    assert_eq!(fs::read_to_string(ground.at("b")).unwrap(), "public");
    // A new file of the name is another one.
    ground.put(OpenId(4), "a", "new");
    ground.close_all();
    assert_eq!((ground.read(A), ground.read(OpenId(4))), (Ok("a".into()), Ok("new".into())));
    [A, B, C].into_iter().for_each(|open| drop(ground.files.remove(open)));
    assert_eq!(ground.files.counts(), Counts { opens: 1, open: 1, pinned: 0 });
}

/// Both names stay: the kernel does nothing.
#[test]
fn f38_a_rename_to_another_name_of_the_file_pins_nothing() {
    let ground = ground(6);
    ground.put(A, "a", "a");
    ground.hard_link("a", "b").unwrap();
    ground.keep(B, "b", Rights::READ).unwrap();
    ground.close_all();
    ground.rename("a", "b", RenameHow::Replace).unwrap();
    ground.close_all();
    assert_eq!(ground.files.counts(), Counts { opens: 2, open: 0, pinned: 0 });
    assert_eq!((ground.read(A), ground.read(B)), (Ok("a".into()), Ok("a".into())));
}

#[test]
fn f38_a_removal_that_comes_to_nothing_pins_nothing() {
    let ground = ground(6);
    ground.put(A, "dir/a", "a");
    ground.close_all();
    assert_eq!(ground.remove("dir/a", Removal::Directory), Err(Reason::NotDirectory));
    assert_eq!(ground.rename("dir/deep", "dir/a", RenameHow::Replace), Err(Reason::NotDirectory));
    let other = identity_at(&ground.at("file"));
    let remove =
        crate::wire::names::Remove { place: crate::server::ground::place("dir/a"), what: Removal::File };
    assert_eq!(ground.names.remove(&remove, other), Ok(Outcome::Moved));
    ground.close_all();
    assert_eq!(ground.files.counts(), Counts { opens: 1, open: 0, pinned: 0 });
    assert!(
        ground.files.table().begin_going(&media(), &b"dir/a"[..].into()).is_some(),
        "nothing of it is left"
    );
}

#[test]
fn clients_cannot_remove_more_names_of_open_files_than_there_are_pins() {
    let ground = ground(8);
    for number in 1..=6 {
        ground.put(OpenId(number), &number.to_string(), &number.to_string());
    }
    for number in 1..=4 {
        ground.remove(&number.to_string(), Removal::File).unwrap();
    }
    assert_eq!(ground.files.counts().pinned, 4);
    assert_eq!(ground.remove("5", Removal::File), Err(Reason::Exhausted));
    assert_eq!(ground.rename("file", "5", RenameHow::Replace), Err(Reason::Exhausted));
    assert!(ground.at("5").exists() && ground.at("file").exists());
    // Everything else goes on: other names can be removed, files be opened, and those that are open be used.
    ground.remove("dir/file", Removal::File).unwrap();
    ground.rename("5", "five", RenameHow::Replace).unwrap();
    ground.keep(OpenId(7), "dir/deep/file", Rights::READ).unwrap();
    ground.close_all();
    for number in 1..=6 {
        assert_eq!(ground.read(OpenId(number)), Ok(number.to_string()));
    }
    // A pin that is free again is another's.
    drop(ground.files.remove(OpenId(1)));
    ground.remove("five", Removal::File).unwrap();
    assert_eq!(ground.read(OpenId(5)), Ok("5".into()));
}

#[test]
fn what_programs_on_the_server_delete_stays_open_and_beyond_the_pins_nothing_more_is_opened() {
    let ground = ground(8);
    for number in 1..=6 {
        let at = number.to_string();
        ground.put(OpenId(number), &at, &at);
        fs::remove_file(ground.at(at)).unwrap();
    }
    // It is found out when they would be closed, also while clients rename something.
    assert_eq!(ground.files.counts().pinned, 0);
    let moving = ground.files.exports.moving(&media()).unwrap();
    ground.close_all();
    drop(moving);
    assert_eq!(ground.files.counts(), Counts { opens: 6, open: 6, pinned: 6 });
    assert_eq!(ground.keep(OpenId(7), "file", Rights::READ), Err(Reason::Exhausted));
    for number in 1..=6 {
        assert_eq!(ground.read(OpenId(number)), Ok(number.to_string()));
    }
    drop(ground.files.remove(OpenId(1)));
    drop(ground.files.remove(OpenId(2)));
    ground.keep(OpenId(7), "file", Rights::READ).unwrap();
}

#[test]
fn when_every_descriptor_is_pinned_what_needs_one_is_refused_at_once() {
    let ground = Ground::with(ModePolicy::default(), Bounds { open: 4, pinned: 4 });
    ground.files.adopt(A, (&media(), &path("file"), Rights::READ), identity_at(&ground.at("file"))).unwrap();
    for number in 10..14 {
        let at = number.to_string();
        ground.put(OpenId(number), &at, &at);
        ground.remove(&at, Removal::File).unwrap();
    }
    assert_eq!(ground.read(A), Err(Reason::Exhausted));
    assert_eq!(ground.keep(B, "file", Rights::READ), Err(Reason::Exhausted));
    assert_eq!(ground.remove("file", Removal::File), Err(Reason::Exhausted), "it could not be kept open");
    drop(ground.files.remove(OpenId(10)));
    assert_eq!(ground.read(A), Ok("public".into()));
}

#[test]
fn what_could_not_be_opened_again_is_kept_as_far_as_there_are_pins() {
    let ground = ground(8);
    for number in 1..=4 {
        ground.put(OpenId(number), &number.to_string(), "x");
    }
    // Whether it could, the kernel decides; it forbids nothing to root.
    let mut table = ground.files.table();
    let forbidden = (0..4).filter(|_| {
        let candidate = table.candidate(SCAN).0.unwrap();
        table.forbid(&candidate)
    });
    assert_eq!(forbidden.count(), 2, "half of the pins");
    assert_eq!((table.pinned(), table.closable_len()), (2, 2));
    drop(table);
    ground.close_all();
    assert_eq!(ground.files.counts(), Counts { opens: 4, open: 2, pinned: 2 });
}

#[test]
fn what_may_not_be_opened_again_is_not_closed() {
    let ground = ground(8);
    ground.put(A, "a", "a");
    ground.put(B, "b", "b");
    ground.keep(C, "b", Rights::READ).unwrap();
    for (at, mode) in [("a", 0), ("b", 0o400)] {
        fs::set_permissions(ground.at(at), fs::Permissions::from_mode(mode)).unwrap();
    }
    ground.close_all();
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!([A, B, C].map(|open| ground.is_here(open)), [!is_root, !is_root, false], "root may always");
    for open in [A, B] {
        ground.write(open, "x").unwrap();
    }
    assert_eq!(ground.read(C), Ok("x".into()));
}

#[test]
fn f38_what_was_renamed_to_where_no_path_leads_stays_open() {
    let ground = ground(8);
    let long = |count: usize| vec!["x".repeat(250); count].join("/");
    ground.put(A, "dir/deep/a", "a");
    for depth in 1..=16 {
        ground.mkdir(&long(depth), 0o700).unwrap();
    }
    let to = format!("{}/{}", long(16), "y".repeat(75));
    ground.rename("dir", &to, RenameHow::Replace).unwrap();
    let file = format!("{to}/deep/a").len();
    assert!(to.len() <= ExportPath::LEN_MAX && file > ExportPath::LEN_MAX);
    ground.close_all();
    assert_eq!(ground.files.counts().pinned, 1);
    assert_eq!(ground.read(A), Ok("a".into()));
}

#[test]
fn a_name_that_looks_like_a_deleted_one_is_a_name() {
    let ground = ground(4);
    let odd = "a (deleted)";
    ground.put(A, odd, "odd");
    ground.close_all();
    assert_eq!(ground.read(A), Ok("odd".into()));
    ground.put(B, "a", "plain");
    ground.hard_link("a", "twin").unwrap();
    fs::remove_file(ground.at("a")).unwrap();
    // The file has another name, which nobody has told; the kernel calls the first one what the other file's is.
    ground.close_all();
    assert_eq!((ground.is_here(A), ground.is_here(B)), (false, true));
    assert_eq!((ground.read(A), ground.read(B)), (Ok("odd".into()), Ok("plain".into())));
}

#[test]
fn what_was_written_is_synced_before_it_is_closed() {
    let ground = ground(3);
    ground.put(A, "a", "abc");
    let unsynced = |open| ground.files.here(open).unwrap().unsynced();
    assert_eq!(unsynced(A), None);
    ground.write(A, "ABC").unwrap();
    let first = unsynced(A);
    assert!(first.is_some());
    ground.sync(A).unwrap();
    assert_eq!(unsynced(A), None);
    let file = ground.files.here(A).unwrap();
    file.append(b"d").unwrap();
    assert!(file.unsynced() > first);
    for change in [
        |file: &Descriptor| file.set_len(2),
        |file: &Descriptor| file.allocate(ByteRange::between(0, 10).unwrap(), Allocation::Reserve),
    ] {
        file.sync(SyncScope::All).unwrap();
        assert_eq!(file.unsynced(), None);
        change(&file).unwrap();
        assert!(file.unsynced().is_some());
    }
    drop(file);
    ground.close_all();
    assert!(!ground.is_here(A));
    assert_eq!(ground.sync(A), Ok(()));
    assert_eq!(fs::read(ground.at("a")).unwrap(), b"AB\0\0\0\0\0\0\0\0");
}

#[test]
fn f54_an_error_of_a_sync_before_closing_is_told_once_and_is_never_lost() {
    let ground = ground(3);
    ground.put(A, "a", "a");
    ground.put(B, "b", "b");
    for open in [A, B] {
        ground.write(open, "x").unwrap();
    }
    ground.fail_next_sync(A);
    ground.close_all();
    assert_eq!([A, B].map(|open| ground.is_here(open)), [false, false], "a bad disk keeps no descriptor");
    // It is told whether the descriptor is away or back.
    assert_eq!(ground.read(A), Ok("x".into()));
    assert_eq!([ground.sync(A), ground.sync(A), ground.sync(B)], [Err(Reason::Io), Ok(()), Ok(())]);
    ground.write(A, "y").unwrap();
    ground.fail_next_sync(A);
    ground.close_all();
    fs::remove_file(ground.at("a")).unwrap();
    assert_eq!([ground.sync(A), ground.sync(A)], [Err(Reason::Io), Err(Reason::Stale)]);

    // One that its open was told of is not told again because the descriptor is closed.
    ground.write(B, "y").unwrap();
    ground.fail_next_sync(B);
    assert_eq!(ground.sync(B), Err(Reason::Io));
    ground.close_all();
    assert_eq!((ground.is_here(B), ground.sync(B)), (false, Ok(())));
}

#[test]
fn f54_what_is_written_while_a_sync_fails_keeps_the_descriptor() {
    let ground = ground(3);
    ground.put(A, "a", "a");
    ground.write(A, "x").unwrap();
    let candidate = ground.files.table().candidate(1).0.unwrap();
    let mark = candidate.held.file.unsynced();
    ground.write(A, "y").unwrap();
    let is_clean = || candidate.held.file.unsynced() == mark;
    assert!(ground.files.table().take(&candidate, is_clean).is_none());
    assert!(ground.is_here(A));
}

/// The kernel has told whoever closes it; whoever asks at that moment must not hear that all is well.
#[test]
fn f54_a_sync_that_is_asked_for_while_a_descriptor_is_closed_hears_of_its_error() {
    let ground = ground(3);
    ground.put(A, "a", "a");
    ground.write(A, "x").unwrap();
    let file = ground.files.here(A).unwrap();
    std::thread::scope(|scope| {
        let turn = file.sync_turn();
        let (began, begun) = mpsc::channel();
        let asking = scope.spawn({
            let ground = &ground;
            move || {
                began.send(()).unwrap();
                ground.sync(A)
            }
        });
        begun.recv_timeout(LONG).unwrap();
        // It waits for its turn, or is about to; either way it finds the error.
        ground.files.table().sync_failed(A, Reason::NoSpace, false);
        drop(turn);
        assert_eq!(asking.join().unwrap(), Err(Reason::NoSpace));
    });
    assert_eq!(ground.sync(A), Ok(()));
}

/// Of two holders that ask at once only one is told by the kernel.
#[test]
fn f54_a_sync_that_waits_for_another_one_that_fails_fails_as_well() {
    let ground = ground(3);
    ground.put(A, "a", "a");
    let mut table = ground.files.table();
    let before = table.failed_syncs(A);
    table.sync_failed(A, Reason::Io, true);
    assert_eq!(table.take_untold(A, before), Some(Reason::Io));
    let before = table.failed_syncs(A);
    assert_eq!(table.take_untold(A, before), None, "whoever comes later is not told");
}

#[test]
fn f54_a_sync_of_everything_leaves_errors_to_their_opens() {
    let ground = ground(200);
    for number in 0..150 {
        ground.put(OpenId(number), &format!("dir/{number}"), "a");
        if number % 3 == 0 {
            ground.write(OpenId(number), "x").unwrap();
        }
    }
    ground.fail_next_sync(OpenId(0));
    ground.fail_next_sync(OpenId(147));
    assert_eq!(ground.files.sync_all(ground.files.all()), SyncedAll { synced: 48, failed: 2 });
    // What failed is tried again, and stays told.
    assert_eq!(ground.files.sync_all(ground.files.all()), SyncedAll { synced: 2, failed: 0 });
    assert_eq!(ground.files.sync_all(ground.files.all()), SyncedAll::default());
    for number in [0, 147] {
        assert_eq!([ground.sync(OpenId(number)), ground.sync(OpenId(number))], [Err(Reason::Io), Ok(())]);
    }
    assert_eq!(ground.sync(OpenId(3)), Ok(()));
}

/// How many descriptors of this process are open on files beneath `folder`; those that only name one are none.
fn open_beneath(folder: &FilePath) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_open = |number: &str| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("010000000");
        u32::from_str_radix(flags.trim(), 8).unwrap() & 0o10_000_000 == 0
    };
    let beneath = links.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(folder)));
    beneath.filter(|entry| is_open(entry.file_name().to_str().unwrap())).count()
}

/// Each thread has opens of its own, and one file that all write to; a client renames their directories meanwhile.
#[test]
fn f57_two_hundred_opens_work_with_eight_descriptors() {
    const THREADS: u64 = 8;
    const OPENS: u64 = 25;
    let ground = ground(8);
    let top = fs::canonicalize(ground.at("")).unwrap();
    for thread in 0..THREADS {
        ground.mkdir(&format!("{thread}"), 0o700).unwrap();
        for number in 0..OPENS {
            let at = format!("{thread}/{number}");
            ground.put(OpenId(thread * 100 + number), &at, &format!("{thread:04}"));
        }
    }
    let mut highest = 0;
    for phase in 0..4 {
        highest = highest.max(work_at_once(&ground, phase, (THREADS, OPENS)));
        // Nothing is being opened or closed now.
        assert_eq!(open_beneath(&top), ground.files.counts().open);
    }
    assert_eq!(highest, 8);
    assert_eq!(ground.files.counts().opens, 200);
    check_invariants(&ground.files.table());
}

/// Threads that read, write and sync while directories are renamed; tells how many descriptors there were at most.
fn work_at_once(ground: &Ground, phase: u64, (threads, opens): (u64, u64)) -> usize {
    let (is_over, highest) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rename = || {
        let mut names: Vec<String> = (0..threads).map(|thread| thread.to_string()).collect();
        let mut round = 0;
        // In the end each has its first name.
        while !is_over.load(Ordering::Relaxed) || names.iter().any(|name| name.len() > 1) {
            let at = round % names.len();
            let new = if names[at].len() > 1 { at.to_string() } else { format!("{at}-{round}") };
            assert_eq!(ground.rename(&names[at], &new, RenameHow::NoReplace), Ok(Outcome::Done));
            names[at] = new;
            round += 1;
            highest.fetch_max(ground.files.counts().open, Ordering::Relaxed);
        }
    };
    let work = |thread: u64| {
        let own = |number: u64| OpenId(thread * 100 + number);
        let mut expected: BTreeMap<u64, String> =
            (0..opens).map(|number| (number, ground.read(own(number)).unwrap())).collect();
        let mut random = (phase + 1).wrapping_mul(thread + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for round in 0..100 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let number = random % opens;
            match random >> 60 {
                0..4 => {
                    let new = format!("{phase}{thread}{round:02}");
                    assert_eq!(ground.write(own(number), &new), Ok(4));
                    expected.insert(number, new);
                }
                4 => assert_eq!(ground.sync(own(number)), Ok(())),
                _ => assert_eq!(ground.read(own(number)).as_ref(), Ok(&expected[&number])),
            }
        }
        for (number, content) in expected {
            assert_eq!(ground.read(own(number)), Ok(content));
        }
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let renaming = scope.spawn(rename);
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        renaming.join().unwrap();
        outcomes
    });
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    highest.into_inner()
}

/// What follows from an entry is as it should be.
fn check_invariants(table: &Table) {
    let (entries, next) = table.slots(0, usize::MAX);
    assert!(next.is_none());
    let (mut closable, mut pinned, mut len) = (0, 0, 0);
    for entry in entries {
        len += 1;
        let is_pinned = entry.held().is_some() && (entry.path().is_none() || entry.is_forbidden());
        pinned += usize::from(is_pinned);
        closable += usize::from(entry.held().is_some() && !is_pinned);
        let found = entry.path().map(|path| table.beneath(&media(), path, None, usize::MAX));
        let slot = table.slot_of(entry.open).unwrap();
        assert!(found.is_none_or(|found| found.contains(&(Arc::clone(entry.path().unwrap()), slot))));
    }
    assert_eq!((table.closable_len(), table.pinned(), table.len()), (closable, pinned, len));
}

proptest! {
    #[test]
    fn paths_follow_renames_as_plain_text_does(
        opens in prop::collection::vec("[ab]{1,2}(/[ab-]{1,2}){0,3}", 1..30),
        renames in prop::collection::vec(("[ab]{1,2}(/[ab-]{1,2}){0,2}", "[ab]{1,2}(/[ab-]{1,2}){0,2}", any::<bool>()), 0..12),
        most in 1_usize..4,
    ) {
        let ground = ground(2);
        let identity = identity_at(&ground.at("file"));
        let mut plain: BTreeMap<OpenId, String> = BTreeMap::new();
        for (number, at) in (0..).zip(opens) {
            ground.files.adopt(OpenId(number), (&media(), &path(at.clone()), Rights::READ), identity).unwrap();
            plain.insert(OpenId(number), at);
        }
        let is_beneath = |path: &str, top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        for (from, to, is_exchange) in renames {
            if is_beneath(&from, &to) || is_beneath(&to, &from) {
                continue;
            }
            let mut expected = Vec::new();
            for (open, path) in &mut plain {
                let new = if is_beneath(path, &from) {
                    format!("{to}{}", &path[from.len()..])
                } else if is_exchange && is_beneath(path, &to) {
                    format!("{from}{}", &path[to.len()..])
                } else {
                    continue;
                };
                *path = new;
                expected.push(*open);
            }
            let mut moved = ground.files.renamed(&media(), from.as_bytes(), to.as_bytes(), is_exchange);
            moved.sort();
            prop_assert_eq!(moved, expected);
            let mut found = Vec::new();
            loop {
                let more = ground.files.table().beneath(&media(), &to.as_bytes().into(), found.last(), most);
                if more.is_empty() {
                    break;
                }
                found.extend(more);
            }
            let beneath = plain.values().filter(|path| is_beneath(path, &to)).count();
            prop_assert_eq!(found.len(), beneath);
        }
        let mut table = ground.files.table();
        for (open, path) in &plain {
            prop_assert_eq!(table.entry_of(*open).unwrap().path().map(|path| &path[..]), Some(path.as_bytes()));
        }
        check_invariants(&table);
    }
}
