//! Key files: how they are made, and which are refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use rustix::fs::{FileType, mknodat};

use super::*;

const TEXT: &str = "bowline-identity-1-aaaa";
/// Names the umask for the run of this program in which one test has the process to itself.
const UMASK: &str = "BOWLINE_TEST_UMASK";

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A file with these bytes and this mode.
fn file_with(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_file_comes_back_and_is_alone_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/key");
    create(&path, TEXT).unwrap();
    assert_eq!(*read(&path).unwrap(), TEXT);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{TEXT}\n"));
    assert_eq!(names_in(path.parent().unwrap()), ["key"]);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    assert_eq!((mode_of(&path), mode_of(&folder.path().join("a"))), (0o600, 0o700));
}

/// The umask belongs to the process, so each value gets a process.
#[test]
fn the_modes_are_the_same_under_every_umask() {
    if let Ok(umask) = std::env::var(UMASK) {
        let folder = tempfile::tempdir().unwrap();
        rustix::process::umask(Mode::from_raw_mode(u32::from_str_radix(&umask, 8).unwrap()));
        let path = folder.path().join("new/deep/key");
        create(&path, TEXT).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(mode_of(path.parent().unwrap()), 0o700);
        assert_eq!(mode_of(&folder.path().join("new")), 0o700);
        assert_eq!(*read(&path).unwrap(), TEXT);
        return;
    }
    for umask in ["0", "22", "777"] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "net::key_file::tests::the_modes_are_the_same_under_every_umask"])
            .env(UMASK, umask)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && output.contains("1 passed"), "umask {umask}: {output}");
    }
}

#[test]
fn what_has_the_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "mine").unwrap();
    fs::write(at("victim"), "mine").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("victim", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    for name in ["file", "folder", "link", "dangling"] {
        let error = create(&at(name), TEXT).unwrap_err();
        assert!(matches!(&error, KeyFileError::Exists { path } if *path == at(name)), "{error}");
    }
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), "mine");
    assert_eq!(names_in(folder.path()), ["dangling", "file", "folder", "link", "victim"]);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(300));
    let error = create(&long, TEXT).unwrap_err();
    assert!(
        matches!(&error, KeyFileError::Write { source, .. } if source.raw_os_error().is_some()),
        "{error}"
    );
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
    fs::write(folder.path().join("file"), "").unwrap();
    let error = create(&folder.path().join("file/key"), TEXT).unwrap_err();
    assert!(matches!(error, KeyFileError::Folder { .. }), "{error}");
    assert!(matches!(create(Path::new("/"), TEXT), Err(KeyFileError::NoName { .. })));
    assert!(matches!(create(Path::new("a/.."), TEXT), Err(KeyFileError::NoName { .. })));
}

#[test]
fn a_file_that_others_can_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o777] {
        file_with(&path, TEXT.as_bytes(), mode);
        let error = read(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Permissions { mode: m, .. } if m == mode), "{error}");
        let shown = error.to_string();
        assert!(shown.ends_with(&format!("chmod 600 {}", path.display())), "{shown}");
        assert!(shown.contains(&format!("{mode:04o}")) && !shown.contains(TEXT), "{shown}");
    }
    for mode in [0o600, 0o400] {
        file_with(&path, TEXT.as_bytes(), mode);
        assert_eq!(*read(&path).unwrap(), TEXT);
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file to another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    file_with(&path, TEXT.as_bytes(), 0o600);
    std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
    let error = read(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Owner { owner: 4711, .. }), "{error}");
}

#[test]
fn only_a_regular_file_is_read_and_nothing_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::set_permissions(at("socket"), fs::Permissions::from_mode(0o600)).unwrap();
    for path in [at("pipe"), at("socket"), folder.path().to_owned(), PathBuf::from("/dev/null")] {
        let error = read(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::NotRegular { .. }), "{error}");
    }
    assert!(matches!(read(&at("none")), Err(KeyFileError::Missing { .. })));
    assert!(matches!(read(&at("pipe/key")), Err(KeyFileError::Read { .. })));
}

#[test]
fn length_and_text_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    file_with(&path, &[b'a'; 4096], 0o600);
    assert_eq!(read(&path).unwrap().len(), 4096);
    file_with(&path, &[b'a'; 4097], 0o600);
    assert!(matches!(read(&path), Err(KeyFileError::TooLong { .. })));
    file_with(&path, b"\xff\xfe", 0o600);
    assert!(matches!(read(&path), Err(KeyFileError::NotText { .. })));
    for (bytes, text) in
        [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k ", " k "), ("", "")]
    {
        file_with(&path, bytes.as_bytes(), 0o600);
        assert_eq!(*read(&path).unwrap(), text, "{bytes:?}");
    }
}

#[test]
fn a_link_to_a_good_key_file_is_followed_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    symlink("key", at("link")).unwrap();
    file_with(&at("key"), TEXT.as_bytes(), 0o600);
    assert_eq!(*read(&at("link")).unwrap(), TEXT);
    file_with(&at("key"), TEXT.as_bytes(), 0o644);
    assert!(matches!(read(&at("link")), Err(KeyFileError::Permissions { .. })));
}
