//! How commands talk, and how they end when somebody ends them: colors, `-q` and `-v`, the order of settings, signals.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};

use program::{Done, RIGHTS, Server, User, client_entry, export, finish, peer_entry};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::{LONG, pattern};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A user without rights, by a number that nobody has.
const NOBODY: u32 = 54_321;
const PLAIN: &str = "error[unknown-peer]: no server is known yet";
const PAINTED: &str = "\u{1b}[1;31merror\u{1b}[0m[unknown-peer]: no server is known yet";
/// A command that fails.
const FAILS: [&str; 2] = ["ls", "store:media"];

fn user() -> User {
    let user = User::new();
    user.make_key();
    user
}

/// A server, and a client of it.
fn scene() -> (User, User, Server) {
    let (store, station) = (user(), User::new());
    let key = station.make_key();
    fs::create_dir(store.at("media")).unwrap();
    fs::write(store.at("media/file"), pattern(8 << 20)).unwrap();
    store.set("clients.toml", &client_entry("station", &key, &RIGHTS));
    let media = export("media", &store.at("media"));
    let server = store.serve(&[&media, "--until-stdin-closes", "--listen", "127.0.0.1:0"]);
    let key = program::key_in(&store.run(&["key", "show"]).success());
    station.set("peers.toml", &peer_entry(&key, &server.addresses()));
    (store, station, server)
}

#[test]
fn the_word_error_has_a_color_where_that_is_wanted() {
    let user = user();
    let told = |more: &[&str], variables: &[(&str, &str)]| {
        let mut command = user.command(&[more, &FAILS].concat());
        finish(command.envs(variables.iter().copied())).err
    };
    let starts = |told: String, start: &str| assert!(told.starts_with(start), "{told:?}");
    starts(told(&[], &[]), PLAIN);
    starts(told(&["--color", "always"], &[]), PAINTED);
    starts(told(&["--color", "always"], &[("NO_COLOR", "1")]), PAINTED);
    starts(told(&[], &[("BOWLINE_COLOR", "always")]), PAINTED);
    starts(told(&["--color", "never"], &[("BOWLINE_COLOR", "always")]), PLAIN);
    user.set("config.toml", "color = \"always\"\n");
    starts(told(&[], &[]), PAINTED);
    starts(told(&[], &[("BOWLINE_COLOR", "never")]), PLAIN);
    // JSON is for programs.
    let json = finish(&mut user.command(&[&["--json"][..], &FAILS].concat()));
    assert!(!json.out.contains(&0x1b) && json.err.is_empty(), "{json:?}");
}

#[test]
fn on_a_terminal_there_are_colors_unless_somebody_wants_none() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: no script(1), which makes terminals");
        return;
    }
    let user = user();
    let told = |more: &str, variables: &[(&str, &str)]| {
        let line = format!("{} ls store:media {more}", env!("CARGO_BIN_EXE_bowline"));
        let mut script = user.command_of("script", &["-qec", &line, "/dev/null"]);
        script.env("TERM", "xterm").env_remove("NO_COLOR").envs(variables.iter().copied());
        String::from_utf8(finish(&mut script).out).unwrap()
    };
    for (more, variables, is_painted) in [
        ("", &[][..], true),
        ("", &[("NO_COLOR", "")], true),
        ("", &[("NO_COLOR", "1")], false),
        ("", &[("TERM", "dumb")], false),
        ("--color never", &[], false),
        ("--color always", &[("NO_COLOR", "1")], true),
    ] {
        let told = told(more, variables);
        assert!(told.contains(if is_painted { PAINTED } else { PLAIN }), "{more} {variables:?}: {told:?}");
        assert_eq!(told.contains('\u{1b}'), is_painted, "{told:?}");
    }
}

#[test]
fn quiet_commands_say_results_and_errors_and_verbose_ones_more() {
    let (_store, station, _server) = scene();
    let forced = ["rm", "-f", "store:media/nothing"];
    assert_eq!(station.run(&forced).err, "store:media/nothing was not there\n");
    assert_eq!(station.run(&[&["-q"], &forced[..]].concat()).err, "");
    assert_eq!(station.run(&["-q", "ls", "store:media"]).success(), "file\n");
    station
        .run(&["-q", "ls", "store:media/no"])
        .failure_with(3, &["error[not-found]", "bowline ls store:media/,"]);
    let made = |flags: &[&str], name: &str| {
        let place = format!("store:media/{name}");
        let done = station.run(&[flags, &["mkdir", &place]].concat());
        assert!(done.status.success() && done.out.is_empty(), "{done:?}");
        done.err
    };
    assert_eq!(made(&[], "a"), "");
    let more = made(&["-v"], "b");
    assert!(more.contains("made") && more.contains("store:media/b"), "{more}");
    let most = made(&["-vv"], "c");
    assert!(most.lines().count() > more.lines().count(), "{most}");
    station.run(&["-q", "-v", "ls", "store:media"]).misuse("cannot be used with");
    // What there is nothing of is said in the same way of each list, and is no failure.
    let nobody = User::new();
    for (command, file, next) in [
        ("client", "clients.toml", "bowline client add NAME KEY EXPORT"),
        ("peer", "peers.toml", "bowline peer trust HOST"),
    ] {
        let done = nobody.run(&[command, "ls"]);
        assert!(
            done.err.lines().count() == 1 && done.err.contains(file) && done.err.contains(next),
            "{done:?}"
        );
        assert_eq!(done.success(), "");
        assert_eq!(nobody.run(&["-q", command, "ls"]).err, "");
    }
}

/// Settings that are not for this user are left alone, and that is told to whoever wants to be told.
#[test]
fn a_settings_file_of_somebody_else_is_warned_of_unless_nobody_wants_to_know() {
    let user = User::new();
    user.set("config.toml", "jobs = 3\n");
    fs::set_permissions(user.settings("config.toml"), Permissions::from_mode(0o000)).unwrap();
    // Where another user may run it.
    let program = user.at("program");
    fs::copy(env!("CARGO_BIN_EXE_bowline"), &program).unwrap();
    for path in [user.at("."), user.at("config"), user.at("config/bowline"), program.clone()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let said = |flags: &[&str]| -> Done {
        let mut command = Command::new(&program);
        command.env("HOME", user.at("home")).env("XDG_CONFIG_HOME", user.at("config"));
        command.args(flags).args(["config", "show"]);
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        finish(&mut command)
    };
    let warning = format!("the settings in {} are not used", user.settings("config.toml").display());
    let told = said(&[]);
    assert!(
        told.status.success() && told.err.starts_with("warning: ") && told.err.contains(&warning),
        "{told:?}"
    );
    assert_eq!(told.err.lines().count(), 1, "{told:?}");
    assert!(said(&["--color", "always"]).err.starts_with("\u{1b}[1;33mwarning\u{1b}[0m: "));
    assert_eq!(said(&["-q"]).err, "");
}

/// An argument goes before a variable, that before the user's file, and that before the system's, which is one of a file
/// system of its own here.
#[test]
fn settings_are_taken_from_the_nearest_that_says_something() {
    let root: &[&str] = if geteuid().is_root() { &[] } else { &["--map-root-user"] };
    let unshare = [&["--mount"], root].concat();
    let is_possible =
        Command::new("unshare").args(&unshare).args(["mount", "-t", "tmpfs", "none", "/etc"]).output();
    if !is_possible.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no file systems of one's own");
        return;
    }
    let user = user();
    let system = "mount -t tmpfs none /etc && mkdir /etc/bowline && printf '%s\\n' 'jobs = 3' 'color = \"never\"' 'ring = \"/system\"' > /etc/bowline/config.toml && exec \"$@\"";
    let wrapper = [&unshare[..], &["sh", "-c", system, "sh", env!("CARGO_BIN_EXE_bowline")]].concat();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = user.command_of("unshare", &[&wrapper, arguments].concat());
        finish(command.envs(variables.iter().copied()))
    };
    let starts = |done: Done, start: &str| assert!(done.err.starts_with(start), "{done:?}");
    user.set("config.toml", "\n");
    starts(run(&FAILS, &[("TERM", "xterm")]), PLAIN);
    user.set("config.toml", "color = \"always\"\nring = \"/user\"\n");
    starts(run(&FAILS, &[]), PAINTED);
    starts(run(&FAILS, &[("BOWLINE_COLOR", "never")]), PLAIN);
    let argument = [&FAILS[..], &["--color", "always"]].concat();
    starts(run(&argument, &[("BOWLINE_COLOR", "never")]), PAINTED);

    let shown = run(&["config", "show", "--origin"], &[("BOWLINE_RING", "/variable")]).success();
    let file = user.settings("config.toml");
    for line in [
        "jobs = 3  # /etc/bowline/config.toml: line 1".to_owned(),
        format!("color = always  # {}: line 1", file.display()),
        "ring = /variable  # environment: BOWLINE_RING".to_owned(),
        "protection = (sealed; signed on lines that carry file data only)  # usual".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in: {shown}");
    }
    let shown = run(&["config", "show", "--origin"], &[]).success();
    assert!(shown.contains(&format!("ring = /user  # {}: line 2", file.display())), "{shown}");
}

/// The number with which a process ended, as a shell counts.
fn number(mut child: Child) -> Option<i32> {
    let status = child.wait().unwrap();
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

#[test]
fn a_client_that_is_interrupted_ends_at_once_with_the_signal_s_number() {
    let (_store, station, _server) = scene();
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // It has read more than fits into the pipe, and waits for somebody to take it.
        let mut cat = station.command(&["cat", "store:media/file"]);
        let mut cat = cat.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
        kill_process(Pid::from_child(&cat), signal).unwrap();
        assert_eq!(number(cat), Some(expected), "cat");

        // It waits for somebody to grant something.
        let mut accept = station.command(&["accept", "store", "--wait"]);
        let accept = accept.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let begun = bowline::net::Clock.now();
        while !station.run(&["status"]).err.is_empty() {
            assert!(bowline::net::Clock.now().since(begun) < LONG, "it has no session");
        }
        kill_process(Pid::from_child(&accept), signal).unwrap();
        assert_eq!(number(accept), Some(expected), "accept");
    }
}
