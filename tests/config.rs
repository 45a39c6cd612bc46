//! Mistakes in what a server is told: each refuses the start with one clear line, and nothing is served meanwhile.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use program::{User, export, message};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];
const KEY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER_KEY: &str = "baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A user whose server would start, but for the one mistake of each case.
struct Store {
    user: User,
}

impl Store {
    fn new() -> Self {
        let user = User::new();
        user.make_key();
        for folder in ["media", "media/clips", "other"] {
            fs::create_dir(user.at(folder)).unwrap();
        }
        let store = Self { user };
        store.list("# nobody\n");
        store
    }

    fn list(&self, text: &str) {
        self.user.set("clients.toml", text);
    }

    fn export(&self, name: &str, folder: &str) -> String {
        export(name, &self.user.at(folder))
    }

    /// The one line with which the program refuses to start with these arguments, without what to try.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let done = self.user.run(&[&["serve"], arguments].concat());
        assert!(matches!(done.status.code(), Some(1..=11)), "{done:?}");
        assert_eq!(done.out, b"", "it never said that it listens");
        let errors = done.err.lines().filter(|line| line.starts_with("error"));
        assert_eq!(errors.count(), 1, "one clear error: {}", done.err);
        if let Some(usage) = done.err.strip_prefix("error: ") {
            return usage.lines().next().unwrap().to_owned();
        }
        message(&done.err).unwrap_or_else(|| panic!("no error in {}", done.err))
    }

    /// What is refused of the usual command with other exports.
    #[track_caller]
    fn refused_exports(&self, exports: &[&str]) -> String {
        self.refused(&[exports, &LISTEN].concat())
    }

    /// What is refused of the usual command.
    #[track_caller]
    fn refused_as_it_is(&self) -> String {
        self.refused_exports(&[&self.export("media", "media")])
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn t40_without_a_mistake_it_starts() {
    let store = Store::new();
    store.list(&client("rights = [\"read\", \"write\"]\nprotection = \"sealed\"\n"));
    let media = store.export("media", "media");
    let other = store.export("other", "other");
    let server = store.user.serve(&[&media, &other, "--until-stdin-closes", LISTEN[0], LISTEN[1]]);
    assert_eq!(server.addresses().len(), 1);
}

#[test]
fn t40_a_key_file_that_is_not_the_server_s_alone_is_refused() {
    let store = Store::new();
    let key = store.user.settings("key");
    let shown = key.display().to_string();
    for (mode, text) in [(0o604, "0604"), (0o640, "0640"), (0o602, "0602")] {
        set_mode(&key, mode);
        let error = store.refused_as_it_is();
        assert_eq!(
            error,
            format!(
                "cannot use the identity: others can use the key file {shown:?} (its mode is {text}): chmod 600 {shown}"
            )
        );
    }
    set_mode(&key, 0o600);

    let text = fs::read_to_string(&key).unwrap();
    fs::write(&key, &text[..text.len() - 9]).unwrap();
    assert!(store.refused_as_it_is().contains("holds no identity: this is not an identity"));
    fs::remove_file(&key).unwrap();
    assert_eq!(store.refused_as_it_is(), format!("there is no identity in {shown}"));
    fs::create_dir(&key).unwrap();
    assert!(store.refused_as_it_is().contains("is not a regular file"));
}

#[test]
fn t40_two_servers_of_one_identity_are_refused() {
    let store = Store::new();
    let media = store.export("media", "media");
    let start = || store.user.serve(&[&media, "--until-stdin-closes", LISTEN[0], LISTEN[1]]);
    let first = start();
    let key = store.user.settings("key");
    let in_use = format!(
        "cannot use the identity: the key file {key:?} is in use by another server: give each server an identity of its own"
    );
    // Whatever else is different about it, and whatever the key file is called.
    assert_eq!(store.refused_exports(&[&store.export("other", "other")]), in_use);
    symlink(&key, store.user.at("alias")).unwrap();
    let alias = store.user.at("alias");
    let error = store.refused(&[
        &store.export("other", "other"),
        LISTEN[0],
        LISTEN[1],
        "--key",
        alias.to_str().unwrap(),
    ]);
    assert!(error.contains("is in use by another server"), "{error}");
    // Clients, and whoever wants to see the key, are not kept from it.
    store.user.run(&["key", "show"]).success();
    drop(first);
    drop(start());
}

#[test]
fn t40_exports_that_cannot_be_served_safely_are_refused() {
    let store = Store::new();
    let at = |path: &str| fs::canonicalize(store.user.at(path)).unwrap().display().to_string();
    symlink("/", store.user.at("top")).unwrap();
    symlink("media", store.user.at("link")).unwrap();
    symlink("media/clips", store.user.at("deep")).unwrap();
    fs::write(store.user.at("file"), "").unwrap();

    for root in ["media=/".to_owned(), "media=/usr/..".to_owned(), store.export("media", "top")] {
        assert_eq!(
            store.refused_exports(&[&root]),
            "cannot serve: export \"media\": \"/\" is never exported"
        );
    }
    let media = store.export("media", "media");
    for (path, real) in [
        ("media/clips", "media/clips"),
        ("media", "media"),
        ("link", "media"),
        ("deep", "media/clips"),
        ("other/../media", "media"),
    ] {
        let second = store.export("second", path);
        let overlap = |one: (&str, &str), two: (&str, &str)| {
            format!(
                "cannot serve: the exports \"{}\" ({:?}) and \"{}\" ({:?}) overlap",
                one.0,
                at(one.1),
                two.0,
                at(two.1)
            )
        };
        let (first, other) = (("media", "media"), ("second", real));
        assert_eq!(store.refused_exports(&[&media, &second]), overlap(first, other), "{path}");
        assert_eq!(store.refused_exports(&[&second, &media]), overlap(other, first), "{path}");
    }
    let twice = store.refused_exports(&[&media, &store.export("media", "other")]);
    assert_eq!(twice, "cannot serve: there are two exports \"media\"");
    let missing = store.refused_exports(&[&store.export("media", "nothing")]);
    assert!(missing.starts_with("cannot serve: export \"media\": there is no directory"), "{missing}");
    let file = store.refused_exports(&[&store.export("media", "file")]);
    assert!(file.ends_with("is not a directory"), "{file}");
    for (argument, why) in [
        ("media", "\"media\" is no export: write NAME=DIR"),
        ("media=", "\"media=\" is no export: write NAME=DIR"),
        ("a/b=/srv", "\"a/b\" is no name for an export"),
        ("..=/srv", "\"..\" is no name for an export"),
    ] {
        let error = store.refused_exports(&[argument]);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn t40_the_server_s_own_files_are_never_served() {
    let store = Store::new();
    let settings = store.user.at("config/bowline");
    for folder in ["config", "config/bowline", "."] {
        let error = store.refused_exports(&[&store.export("media", folder)]);
        assert!(error.starts_with("cannot serve: export \"media\""), "{error}");
        assert!(
            error.ends_with(&format!("would serve the server's own {:?}", settings.join("key"))),
            "{error}"
        );
    }
    // A list that is elsewhere than the key, and a link that clients could lead elsewhere.
    let media = store.export("media", "media");
    let list = store.user.at("media/clients.toml");
    fs::write(&list, "# nobody\n").unwrap();
    let error = store.refused(&[&media, LISTEN[0], LISTEN[1], "--clients", list.to_str().unwrap()]);
    assert!(error.ends_with(&format!("would serve the server's own {list:?}")), "{error}");
    let link = store.user.at("media/clips/key");
    symlink(store.user.settings("key"), &link).unwrap();
    let error = store.refused(&[&media, LISTEN[0], LISTEN[1], "--key", link.to_str().unwrap()]);
    assert!(error.ends_with(&format!("would serve the server's own {link:?}")), "{error}");
}

fn client(more: &str) -> String {
    format!("[[client]]\nkey = \"{KEY}\"\nname = \"station\"\nexports = [\"media\"]\n{more}")
}

#[test]
fn t40_a_list_of_clients_with_a_mistake_is_refused() {
    let store = Store::new();
    let list = store.user.settings("clients.toml");
    let good = client("");
    let cases = [
        (client("colour = \"red\"\n"), 5, "unknown field `colour`"),
        (format!("colour = \"red\"\n{good}"), 1, "unknown field `colour`"),
        (good.replace("[[client]]", "[[clients]]"), 1, "unknown field `clients`"),
        (client("protection = \"strong\"\n"), 5, "\"strong\" is no protection"),
        (client("protection = \"Sealed\"\n"), 5, "\"Sealed\" is no protection"),
        (client("rights = [\"read\", \"delete\"]\n"), 5, "\"delete\" is no right"),
        (client("rights = []\n"), 5, "need \"read\", \"write\" or \"append\""),
        (client("expires = 2027-01-31\n"), 5, "is no moment"),
        (good.replace(KEY, "abc"), 2, "\"abc\" is no client's key"),
        (good.replace("\"media\"", "\"me/dia\""), 4, "\"me/dia\" is no export's name"),
        (good.replace("\"station\"", "\"my station\""), 3, "\"my station\" is no client's name"),
        (
            format!("{good}{}", good.replace("station", "other")),
            6,
            "this key is that of the client \"station\"",
        ),
        (format!("{good}{}", good.replace(KEY, OTHER_KEY)), 7, "there is a client \"station\" already"),
        (good.replace("exports", "#"), 1, "missing field `exports`"),
        ("[[client]\n".to_owned(), 1, ""),
    ];
    for (text, line, why) in cases {
        store.list(&text);
        let error = store.refused_as_it_is();
        let start = format!("cannot use the list of clients: {}: line {line}: ", list.display());
        assert!(error.starts_with(&start) && error.contains(why), "{text}: {error}");
    }
    store.list(&good);
    set_mode(&list, 0o666);
    assert!(
        store.refused_as_it_is().ends_with("every user of this machine can write to the file: chmod o-w it")
    );
    fs::write(&list, b"\xff").unwrap();
    set_mode(&list, 0o600);
    assert!(store.refused_as_it_is().ends_with("the file is not UTF-8 text"));
    fs::remove_file(&list).unwrap();
    assert!(store.refused_as_it_is().contains("the file cannot be read"));
}

#[test]
fn t40_wrong_arguments_are_refused() {
    let store = Store::new();
    let media = store.export("media", "media");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let with = |more: &[&str]| store.refused(&[&[media.as_str()], more].concat());
    for (error, why) in [
        (with(&[]), "no address to listen on"),
        (with(&["--listen"]), "a value is required for '--listen"),
        (with(&["--listen", ""]), "invalid value ''"),
        (with(&["--listen", "store:4477"]), "invalid value 'store:4477'"),
        (with(&["--listen", "127.0.0.1"]), "invalid value '127.0.0.1'"),
        (with(&["--listen", "192.0.2.1:0"]), "cannot listen on 192.0.2.1:0"),
        (with(&["--listen", &taken]), "cannot listen on"),
        (with(&["--listen", "127.0.0.1:0", &taken]), "cannot listen on"),
        (with(&[LISTEN[0], LISTEN[1], "--protection", "strong"]), "invalid value 'strong'"),
        (with(&[LISTEN[0], LISTEN[1], "--protection", ""]), "invalid value ''"),
        (with(&[LISTEN[0], LISTEN[1], "--mode-mask", "888"]), "three octal digits"),
        (with(&[LISTEN[0], LISTEN[1], "--user", "0"]), "user 0 is root"),
        (with(&[LISTEN[0], LISTEN[1], "--user", "nobody"]), "write numbers, UID or UID:GID"),
        (with(&[LISTEN[0], LISTEN[1], "--colour"]), "unexpected argument '--colour'"),
        (store.refused(&LISTEN), "there is nothing to serve"),
    ] {
        assert!(error.contains(why), "{error}");
    }
}
