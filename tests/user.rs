//! As whom the program serves: with root's rights given up, and only what that user may do is done.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};

use program::{User, export};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A user and a group without rights, by numbers that nobody has.
const USER: u32 = 54_321;
const GROUP: u32 = 54_322;

/// A store whose settings and export belong to the user as whom it is to serve.
fn store() -> User {
    let store = User::new();
    store.make_key();
    store.set("clients.toml", "# nobody\n");
    fs::create_dir(store.at("media")).unwrap();
    fs::set_permissions(store.at("."), Permissions::from_mode(0o755)).unwrap();
    for at in ["config", "config/bowline", "config/bowline/key", "config/bowline/clients.toml", "media"] {
        chown(store.at(at), Some(USER), Some(GROUP)).unwrap();
    }
    store
}

#[test]
fn root_gives_up_its_rights_before_it_serves() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root has rights to give up");
        return;
    }
    let store = store();
    let media = export("media", &store.at("media"));
    let user = format!("{USER}:{GROUP}");
    let server = store.serve(&[
        &media,
        "--until-stdin-closes",
        "--no-state",
        "--user",
        &user,
        "--listen",
        "127.0.0.1:0",
    ]);
    for task in fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("Uid:"), vec![USER.to_string(); 4], "of every thread");
        assert_eq!(line("Gid:"), vec![GROUP.to_string(); 4]);
        assert_eq!(line("Groups:"), Vec::<String>::new());
        assert_eq!(line("CapEff:"), ["0000000000000000"]);
    }
    drop(server);
    let refused = store.run(&["serve", &media, "--user", "0", "--listen", "127.0.0.1:0"]);
    refused.misuse("root");
    let mask = store.run(&["serve", &media, "--mode-mask", "1777", "--listen", "127.0.0.1:0"]);
    mask.misuse("three octal digits");
}

#[test]
fn serving_as_root_is_warned_of() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this is about root");
        return;
    }
    let store = User::new();
    store.make_key();
    store.set("clients.toml", "# nobody\n");
    fs::create_dir(store.at("media")).unwrap();
    let server = store.serve(&[
        &export("media", &store.at("media")),
        "--until-stdin-closes",
        "--listen",
        "127.0.0.1:0",
    ]);
    server.log_has("serving as root");
}
