//! Hostile names, special files and races: what is opened, and what is not.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use rustix::fs::{FileType, RenameFlags, mknodat, renameat_with};
use tempfile::TempDir;

use super::*;
use crate::server::beneath::retry_moved;

/// What stands in every file that no client may see.
const SECRET: &[u8] = b"secret";
/// What stands in every file that clients may see.
const PUBLIC: &[u8] = b"public";

fn name(text: &str) -> ExportName {
    text.parse().unwrap()
}

fn open(list: &[(&str, &Path)]) -> Result<Exports, ExportError> {
    Exports::open(list.iter().map(|(export, path)| (name(export), path.to_path_buf())))
}

/// A directory `export` with `file` and `dir/file` in it, and beside it `outside/file`.
struct Ground {
    folder: TempDir,
    exports: Exports,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["export/dir/deep", "outside"] {
            fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        for file in ["export/file", "export/dir/file", "export/dir/deep/file"] {
            fs::write(folder.path().join(file), PUBLIC).unwrap();
        }
        fs::write(folder.path().join("outside/file"), SECRET).unwrap();
        let exports = open(&[("media", &folder.path().join("export"))]).unwrap();
        Self { folder, exports }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("export").join(path)
    }

    fn open(&self, path: impl Into<Vec<u8>>, rights: Rights) -> Result<OpenedFile, Reason> {
        let path = ExportPath::new(path).unwrap();
        self.exports.open_file(&name("media"), &path, rights).map_err(|refusal| refusal.reason)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Reason> {
        let opened = self.open(path, Rights::READ)?;
        let mut bytes = BytesMut::new();
        opened.file.read(0, 100, &mut bytes).map_err(|refusal| refusal.reason)?;
        Ok(bytes.to_vec())
    }
}

#[test]
fn a_file_is_opened_for_what_is_asked() {
    let ground = Ground::new();
    let read = ground.open("dir/file", Rights::READ).unwrap();
    assert_eq!(read.attributes.len, len(PUBLIC));
    assert!(read.file.write(0, b"x").is_err());
    let write = ground.open("dir/file", Rights::WRITE).unwrap();
    assert_eq!(write.identity, read.identity);
    assert_eq!(write.file.write(0, b"P"), Ok(1));
    assert!(write.file.read(0, 1, &mut BytesMut::new()).is_err());
    let both = ground.open("dir/file", Rights::ALL).unwrap();
    let mut bytes = BytesMut::new();
    both.file.read(0, 100, &mut bytes).unwrap();
    assert_eq!((both.file.write(6, b"!"), &bytes[..]), (Ok(1), &b"Public"[..]));
    assert_ne!(ground.open("file", Rights::READ).unwrap().identity, both.identity);
    for rights in [Rights::NONE, Rights::LOCK, Rights::LOCK.union(Rights::GRANT)] {
        assert_eq!(ground.open("file", rights).unwrap_err(), Reason::Invalid);
    }
}

#[test]
fn descriptors_are_closed_in_children_and_do_not_block() {
    let ground = Ground::new();
    let opened = ground.open("file", Rights::READ).unwrap();
    assert!(rustix::io::fcntl_getfd(&opened.file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    let export = &ground.exports.by_name[&name("media")];
    assert!(rustix::io::fcntl_getfd(&export.root).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

fn len(bytes: &[u8]) -> u64 {
    crate::model::len_u64(bytes.len())
}

#[test]
fn names_are_bytes() {
    let ground = Ground::new();
    for odd in
        [&b"CON"[..], b"a\nb", b"\xff\xfe", b"-rf", b"...", b" ", b"a\\b", b"%2e%2e", b"~", b"a:b", b"\x01"]
    {
        fs::write(ground.folder.path().join("export").join(OsStr::from_bytes(odd)), PUBLIC).unwrap();
        assert!(ground.open(odd, Rights::READ).is_ok(), "{odd:?}");
    }
    assert_eq!(ground.read("FILE"), Err(Reason::NotFound));
    assert_eq!(ground.read(&"x".repeat(255)), Err(Reason::NotFound));
    assert_eq!(ground.read(&["x"; 2048].join("/")), Err(Reason::NotFound));
    assert_eq!(ground.read("file/file"), Err(Reason::NotDirectory));
    let unknown = ground.exports.open_file(&name("other"), &ExportPath::new("file").unwrap(), Rights::READ);
    assert_eq!(unknown.unwrap_err(), Refusal::from(Reason::NotFound));
}

/// Ways to write `..` and absolute paths around the ends of a good path.
fn climbing_names() -> Vec<Vec<u8>> {
    let outside = ["outside/file", "etc/passwd", "file", ""];
    let before = [
        "..",
        "../..",
        "dir/..",
        "dir/../..",
        "dir/deep/../../..",
        "dir/./..",
        "./..",
        ".",
        "",
        "/",
        "//",
        "dir//..",
    ];
    let mut names: Vec<Vec<u8>> = Vec::new();
    for start in before {
        for end in outside {
            names.push(format!("{start}/{end}").into_bytes());
            names.push(format!("{start}/{end}/").into_bytes());
        }
    }
    names.extend((1..=40).map(|depth| format!("{}etc/passwd", "../".repeat(depth)).into_bytes()));
    names.extend(
        [&b"file\0"[..], b"dir\0/../file", b"file/.", b"file/..", b"dir/", b"dir/."].map(<[u8]>::to_vec),
    );
    names
}

/// Names that climb do not even become paths; handed to the kernel all the same, they lead nowhere.
#[test]
fn climbing_names_are_refused_twice() {
    let ground = Ground::new();
    let root = &ground.exports.by_name[&name("media")].root;
    let names = climbing_names();
    assert!(names.len() >= 100, "{}", names.len());
    for hostile in names {
        assert!(ExportPath::new(hostile.clone()).is_err(), "{:?}", OsStr::from_bytes(&hostile));
        let Ok(found) = resolve(root, &hostile) else { continue };
        let inside = path_of(&ground.exports.descriptors, &found).unwrap();
        let export = fs::canonicalize(ground.at("")).unwrap();
        assert!(inside.starts_with(export), "{:?} led to {inside:?}", OsStr::from_bytes(&hostile));
    }
}

/// Names that stay, and lead through links that do not.
#[test]
fn links_lead_no_further_than_the_export() {
    let ground = Ground::new();
    let outside = ground.folder.path().join("outside");
    let absolute = fs::canonicalize(ground.at("file")).unwrap();
    let targets = [
        outside.join("file"),
        outside.clone(),
        absolute,
        PathBuf::from("/"),
        PathBuf::from("/etc/passwd"),
        PathBuf::from(".."),
        PathBuf::from("../outside/file"),
        PathBuf::from("../export/file"),
        PathBuf::from("dir/../../outside/file"),
        PathBuf::from("/proc/self/root/etc/passwd"),
        PathBuf::from("/proc/self/fd/0"),
        PathBuf::from("/dev/null"),
    ];
    let mut tried = 0;
    for target in &targets {
        symlink(target, ground.at("link")).unwrap();
        symlink("link", ground.at("link2")).unwrap();
        symlink("../link", ground.at("dir/up")).unwrap();
        for first in ["link", "link2", "dir/up"] {
            for rest in ["", "/file", "/etc/passwd", "/outside/file", "/export/file"] {
                for rights in [Rights::READ, Rights::WRITE, Rights::ALL] {
                    let refused = ground.open(format!("{first}{rest}"), rights).unwrap_err();
                    assert_eq!(refused, Reason::Outside, "{first}{rest} to {target:?}");
                    tried += 1;
                }
            }
        }
        for link in ["link", "link2", "dir/up"] {
            fs::remove_file(ground.at(link)).unwrap();
        }
    }
    assert!(tried >= 100);
    assert_eq!(fs::read(outside.join("file")).unwrap(), SECRET);
}

#[test]
fn links_inside_the_export_work_and_loops_end() {
    let ground = Ground::new();
    symlink("dir/../file", ground.at("inside")).unwrap();
    symlink("../file", ground.at("dir/up")).unwrap();
    symlink("dir", ground.at("alias")).unwrap();
    symlink("loop", ground.at("loop")).unwrap();
    symlink("nothing", ground.at("dangling")).unwrap();
    for path in ["inside", "dir/up", "alias/file", "alias/deep/file"] {
        assert_eq!(ground.read(path).unwrap(), PUBLIC, "{path}");
    }
    assert_eq!(ground.read("loop"), Err(Reason::Outside));
    assert_eq!(ground.read("loop/file"), Err(Reason::Outside));
    assert_eq!(ground.read("dangling"), Err(Reason::NotFound));
}

#[test]
fn proc_is_no_way_out() {
    let exports = open(&[("proc", Path::new("/proc"))]).unwrap();
    let names = [
        "self/root/etc/passwd",
        "self/cwd/Cargo.toml",
        "self/fd/0",
        "self/exe",
        "self/task/self/root",
        "thread-self/root/etc/passwd",
    ];
    for path in names {
        let refused =
            exports.open_file(&name("proc"), &ExportPath::new(path).unwrap(), Rights::READ).unwrap_err();
        assert!(matches!(refused.reason, Reason::Outside | Reason::NotFound), "{path}: {refused}");
    }
    let own = std::process::id();
    for path in [format!("{own}/root/etc/passwd"), format!("{own}/exe"), format!("{own}/cwd")] {
        let refused =
            exports.open_file(&name("proc"), &ExportPath::new(path).unwrap(), Rights::READ).unwrap_err();
        assert_eq!(refused.reason, Reason::Outside);
    }
}

/// `/dev/shm` is another file system than `/dev` on nearly every Linux.
#[test]
fn another_file_system_is_outside() {
    let Ok(file) = tempfile::NamedTempFile::new_in("/dev/shm") else {
        eprintln!("skipped: /dev/shm cannot be written to");
        return;
    };
    let device = |path: &str| rustix::fs::stat(path).unwrap().st_dev;
    if device("/dev") == device("/dev/shm") {
        eprintln!("skipped: /dev/shm is no file system of its own");
        return;
    }
    let exports = open(&[("dev", Path::new("/dev"))]).unwrap();
    let path =
        ExportPath::new(format!("shm/{}", file.path().file_name().unwrap().to_str().unwrap())).unwrap();
    let refused = exports.open_file(&name("dev"), &path, Rights::READ).unwrap_err();
    assert_eq!(refused.reason, Reason::Outside);
    let exports = open(&[("shm", Path::new("/dev/shm"))]).unwrap();
    let path = ExportPath::new(file.path().file_name().unwrap().as_bytes()).unwrap();
    assert!(exports.open_file(&name("shm"), &path, Rights::READ).is_ok(), "the file itself can be opened");
}

/// A pipe's reader waits for a writer, for ever; here it is refused before anything is opened.
#[test]
fn only_regular_files_are_opened_and_nothing_hangs() {
    let ground = Ground::new();
    mknodat(CWD, ground.at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(ground.at("socket")).unwrap();
    symlink("pipe", ground.at("link")).unwrap();
    for rights in [Rights::READ, Rights::WRITE, Rights::ALL] {
        assert_eq!(ground.open("pipe", rights).unwrap_err(), Reason::NotRegular);
        assert_eq!(ground.open("link", rights).unwrap_err(), Reason::NotRegular);
        assert_eq!(ground.open("socket", rights).unwrap_err(), Reason::NotRegular);
        assert_eq!(ground.open("dir", rights).unwrap_err(), Reason::IsDirectory);
    }
    let device = rustix::fs::makedev(1, 3);
    match mknodat(CWD, ground.at("null"), FileType::CharacterDevice, Mode::RWXU, device) {
        Ok(()) => assert_eq!(ground.open("null", Rights::ALL).unwrap_err(), Reason::NotRegular),
        Err(errno) => eprintln!("skipped: no device can be made here ({errno})"),
    }
    let exports = open(&[("dev", Path::new("/dev"))]).unwrap();
    for path in ["null", "zero", "full", "tty"] {
        let path = ExportPath::new(path).unwrap();
        let refused = exports.open_file(&name("dev"), &path, Rights::ALL).unwrap_err();
        assert!(matches!(refused.reason, Reason::NotRegular | Reason::NotFound), "{refused}");
    }
}

#[test]
fn what_the_file_system_forbids_stays_forbidden() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let ground = Ground::new();
    rustix::fs::chmod(ground.at("file"), Mode::empty()).unwrap();
    assert_eq!(ground.read("file"), Err(Reason::PermissionDenied));
}

/// A directory and a link to the secret change places all the time, and a reader goes through them: it sees the
/// public file or a refusal, whatever the moment. A check of the path before its use would lose this race.
#[test]
fn a_swapped_link_shows_no_secret() {
    const ROUNDS: usize = 20_000;
    let ground = Ground::new();
    symlink("../outside", ground.at("link")).unwrap();
    let (first, second) = (ground.at("dir"), ground.at("link"));
    let swap = || renameat_with(CWD, &first, CWD, &second, RenameFlags::EXCHANGE);
    if let Err(errno) = swap() {
        eprintln!("skipped: this file system cannot exchange two names ({errno})");
        return;
    }
    assert_eq!(ground.read("dir/file"), Err(Reason::Outside));
    swap().unwrap();
    assert_eq!(ground.read("dir/file").unwrap(), PUBLIC);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                swap().unwrap();
            }
        });
        // Whatever happens below, the other thread ends.
        let outcome = (0..ROUNDS).try_for_each(|_| match ground.read("dir/file") {
            Ok(bytes) if bytes == PUBLIC => Ok(()),
            Err(Reason::Outside | Reason::NotFound | Reason::Busy) => Ok(()),
            other => Err(other),
        });
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(outcome, Ok(()));
    });
}

#[test]
fn moving_names_are_tried_a_bounded_number_of_times() {
    let run = |failures: u32, errno| {
        let mut calls = 0;
        let outcome = retry_moved(|| {
            calls += 1;
            if calls <= failures { Err(errno) } else { Ok(()) }
        });
        (outcome, calls)
    };
    assert_eq!(run(0, Errno::AGAIN), (Ok(()), 1));
    assert_eq!(run(15, Errno::AGAIN), (Ok(()), 16));
    assert_eq!(run(100, Errno::AGAIN), (Err(Errno::AGAIN), 16));
    assert_eq!(run(100, Errno::NOENT), (Err(Errno::NOENT), 1));
}

#[test]
fn an_export_stays_where_it_was_opened() {
    let ground = Ground::new();
    let moved = ground.folder.path().join("moved");
    fs::rename(ground.at(""), &moved).unwrap();
    symlink("outside", ground.folder.path().join("export")).unwrap();
    assert_eq!(ground.read("file").unwrap(), PUBLIC);
}

#[test]
fn wrong_exports_are_refused_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let top = fs::canonicalize(folder.path()).unwrap();
    let at = |path: &str| top.join(path);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::create_dir(at("ab")).unwrap();
    fs::write(at("file"), "").unwrap();
    symlink(at("a"), at("link")).unwrap();
    symlink("/", at("top")).unwrap();
    let (a, b) = (at("a"), at("a/b"));
    let text = |path: &str| at(path).to_str().unwrap().to_owned();
    let overlap = |one: &str, two: &str| {
        format!("the exports \"x\" (\"{}\") and \"y\" (\"{}\") overlap", text(one), text(two))
    };
    let cases: [(&[(&str, &Path)], String); 13] = [
        (&[("x", Path::new("/"))], "export \"x\": \"/\" is never exported".into()),
        (&[("x", Path::new("/usr/.."))], "export \"x\": \"/\" is never exported".into()),
        (&[("x", &at("top"))], "export \"x\": \"/\" is never exported".into()),
        (&[("x", &at("none"))], format!("export \"x\": there is no directory \"{}\"", text("none"))),
        (&[("x", &at("file"))], format!("export \"x\": \"{}\" is not a directory", text("file"))),
        (&[("x", &at("file/a"))], format!("export \"x\": \"{}\" is not a directory", text("file/a"))),
        (&[("x", &a), ("x", &at("ab"))], "there are two exports \"x\"".into()),
        (&[("x", &a), ("y", &a)], overlap("a", "a")),
        (&[("x", &a), ("y", &b)], overlap("a", "a/b")),
        (&[("x", &b), ("y", &a)], overlap("a/b", "a")),
        (&[("x", &at("link")), ("y", &b)], overlap("a", "a/b")),
        (&[("x", &at("a/../a")), ("y", &at("link"))], overlap("a", "a")),
        (
            &[("x", &at("x".repeat(300).as_str()))],
            format!("export \"x\": \"{}\" cannot be opened", text(&"x".repeat(300))),
        ),
    ];
    for (list, message) in cases {
        assert_eq!(open(list).unwrap_err().to_string(), message);
    }
    let good = open(&[("x", &a), ("y", &at("ab"))]).unwrap();
    assert_eq!(good.names().map(ExportName::as_str).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(open(&[]).unwrap().names().count(), 0);
    let old = export_error(name("x"), &a, Errno::NOSYS);
    assert_eq!(old.to_string(), "Linux 5.6 or newer is needed");
}

/// What is mounted at two places has two paths and one identity.
#[test]
fn one_directory_under_two_paths_overlaps() {
    let ground = Ground::new();
    let export = |path: &str| {
        let descriptors = &ground.exports.descriptors;
        let export = open_export(descriptors, name("x"), &ground.at(path)).unwrap();
        Export { path: PathBuf::from("/mount").join(path), ..export }
    };
    let twice = Export { path: PathBuf::from("/elsewhere"), ..export("dir") };
    assert!(twice.overlaps(&export("dir")) && !twice.overlaps(&export("dir/deep")));
}

#[test]
fn arguments_name_exports() {
    let parse = |text: &[u8]| parse_export_argument(OsStr::from_bytes(text));
    assert_eq!(parse(b"media=/srv/media").unwrap(), (name("media"), PathBuf::from("/srv/media")));
    assert_eq!(parse(b"m=a=b").unwrap(), (name("m"), PathBuf::from("a=b")));
    assert_eq!(parse(b"m=\xff").unwrap().1.as_os_str().as_bytes(), b"\xff");
    assert_eq!(parse(b"media").unwrap_err().to_string(), "\"media\" is no export: write NAME=DIR");
    assert_eq!(parse(b"media=").unwrap_err().to_string(), "\"media=\" is no export: write NAME=DIR");
    for bad in [&b"=dir"[..], b"a/b=dir", b".x=dir", b"\xff=dir"] {
        let error = parse(bad).unwrap_err();
        assert!(
            matches!(error, ExportError::Name { .. })
                && error.to_string().contains("is no name for an export")
        );
    }
}

#[test]
fn an_export_demands_the_strictest_that_was_said_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    [&a, &b].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let mut exports = open(&[("a", &a), ("b", &b)]).unwrap();
    for said in [Protection::Signed, Protection::Sealed, Protection::Clear] {
        exports.protect(&name("b"), said).unwrap();
    }
    let demanded = [(name("a"), Protection::Clear), (name("b"), Protection::Sealed)];
    assert_eq!(exports.protection(), demanded.clone().into());
    let error = exports.protect(&name("c"), Protection::Sealed).unwrap_err();
    assert_eq!(error.to_string(), "there is no export \"c\" to protect");
    assert_eq!(exports.protection(), demanded.into());
}
