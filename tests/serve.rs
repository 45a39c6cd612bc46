//! `bowline serve` as a service: its configuration file, the signals that it answers, and what passes between it and a
//! service manager.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::process::{Command, Stdio};

use program::{Server, User};
use rustix::process::{Pid, Signal, kill_process};
use support::LONG;

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A user with an identity, an empty list of clients, and a folder to serve.
fn store() -> User {
    let user = User::new();
    user.make_key();
    user.set("clients.toml", "# nobody\n");
    fs::create_dir(user.at("media")).unwrap();
    user
}

/// A configuration file that serves the folder, with `more` at its beginning.
fn configuration(user: &User, more: &str) -> String {
    let folder = user.at("media").display().to_string();
    format!("{more}\nlisten = [\"127.0.0.1:0\"]\n[[export]]\nname = \"media\"\npath = \"{folder}\"\n")
}

/// A server whose log is as its file says.
fn serve(user: &User, arguments: &[&str], set: impl FnOnce(&mut Command)) -> Server {
    let mut command = user.command(&[&["serve", "--until-stdin-closes"], arguments].concat());
    for variable in
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM"]
    {
        command.env_remove(variable);
    }
    set(&mut command);
    Server::start(&mut command, Vec::new())
}

fn stop(mut server: Server) -> Vec<String> {
    server.close_input();
    let (status, out, _log) = server.ended();
    assert_eq!(status.code(), Some(0));
    out
}

#[test]
fn a_configuration_file_says_what_is_served_and_flags_go_before_it() {
    let user = store();
    user.set("serve.toml", &configuration(&user, "protection = \"sealed\""));
    let out = stop(serve(&user, &[], |_| ()));
    assert_eq!(
        out,
        ["data channels at least sealed", "export media at least sealed"],
        "it is where users look"
    );

    let out = stop(serve(&user, &["--protection", "signed"], |_| ()));
    assert_eq!(out[0], "data channels at least signed");

    fs::create_dir(user.at("other")).unwrap();
    let other = program::export("other", &user.at("other"));
    let out = stop(serve(&user, &[&other, "--listen", "127.0.0.1:0"], |_| ()));
    assert_eq!(
        out,
        ["data channels at least signed", "export other at least signed"],
        "the file is not used"
    );

    let elsewhere = user.at("elsewhere.toml");
    fs::write(&elsewhere, configuration(&user, "protection = \"clear\"")).unwrap();
    let out = stop(serve(&user, &["--config", elsewhere.to_str().unwrap()], |_| ()));
    assert_eq!(out[0], "data channels at least clear");
}

#[test]
fn a_mistake_in_the_configuration_file_is_one_error_with_its_line() {
    let user = store();
    let file = user.settings("serve.toml").display().to_string();
    user.set("serve.toml", &configuration(&user, "protection = \"none\""));
    user.run(&["serve"])
        .failure_with(2, &["cannot use the configuration file", &file, "line 1", "is none of"]);
    user.set("serve.toml", &configuration(&user, "").replace("path", "paths"));
    user.run(&["serve"]).failure_with(2, &[&file, "unknown field `paths`"]);
    user.set("serve.toml", "listen = [\"127.0.0.1:0\"]\n");
    user.run(&["serve"]).failure_with(2, &["there is nothing to serve", "--config FILE"]);
    user.set("serve.toml", &configuration(&user, "").replace("listen", "#"));
    user.run(&["serve"]).failure_with(2, &["no address to listen on", "--listen ADDR"]);
    let missing = user.at("missing.toml").display().to_string();
    user.run(&["serve", "--config", &missing]).failure_with(2, &[&missing, "cannot be read"]);
    user.set("serve.toml", &configuration(&user, &format!("key = \"{}/media/key\"", user.at("").display())));
    user.run(&["key", "new", "--key", user.at("media/key").to_str().unwrap()]).success();
    user.run(&["serve"]).failure(&["cannot serve"]);
}

#[test]
fn a_hangup_takes_what_can_be_taken_and_names_the_rest() {
    let user = store();
    user.set("serve.toml", &configuration(&user, "log = \"info\""));
    let server = serve(&user, &[], |_| ());
    user.set(
        "serve.toml",
        &configuration(&user, "log = \"info\"\nprotection = \"sealed\"\nenrolment = false"),
    );
    server.signal(Signal::HUP);
    let restart = server.log_has("need a restart");
    assert!(restart.contains("enrolment") && !restart.contains("protection"), "{restart}");
    server.log_has("export media at least sealed");
    server.log_has("the configuration file was read again");
    server.log_has("the list of clients is in force");

    user.set("serve.toml", &configuration(&user, "protection = \"none\""));
    server.signal(Signal::HUP);
    let kept = server.log_has("the old settings stay in force");
    assert!(kept.contains("line 1") && kept.contains("WARN"), "{kept}");
    server.log_has("data channels at least sealed");

    // The server's own demand can be lowered again, and the log be made to say more.
    user.set("serve.toml", &configuration(&user, "log = \"debug\""));
    server.signal(Signal::HUP);
    server.log_has("taken=true");
    server.log_has("data channels at least signed");
    // The second refusal of a network within a minute is told to whoever asks for more.
    for _ in 0..2 {
        drop(TcpStream::connect(server.addresses()[0]).unwrap());
    }
    server.log_has("DEBUG");
    stop(server);
}

#[test]
fn a_variable_goes_before_the_log_of_the_file() {
    let user = store();
    user.set("serve.toml", &configuration(&user, "log = \"trace\""));
    let server = serve(&user, &[], |command| {
        command.env("BOWLINE_LOG", "info");
    });
    user.set("serve.toml", &configuration(&user, "log = \"debug\""));
    server.signal(Signal::HUP);
    server.log_has("taken=false");
    stop(server);
}

#[test]
fn a_second_signal_ends_a_server_that_is_finishing() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (user, station) = (store(), User::new());
        let (key, client) = (user.run(&["key", "show"]).success(), station.make_key());
        let entry = format!("[[client]]\nkey = \"{client}\"\nname = \"station\"\nexports = [\"media\"]\n");
        user.set("clients.toml", &entry);
        File::create(user.at("media/long")).unwrap().set_len(1 << 30).unwrap();
        user.set("serve.toml", &configuration(&user, "log = \"info\""));
        let server = serve(&user, &[], |_| ());
        let (address, key) = (server.addresses()[0], program::key_in(&key));
        station.set(
            "peers.toml",
            &format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n"),
        );
        // A client that takes nothing any more: what is on its way to it cannot be finished.
        let mut reader = station.command(&["cat", "store:media/long"]);
        let mut reader =
            reader.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        reader.stdout.as_mut().unwrap().read_exact(&mut [0; 1 << 20]).unwrap();
        kill_process(Pid::from_child(&reader), Signal::STOP).unwrap();
        server.signal(Signal::TERM);
        server.log_has("stopping: what is executing is finished");
        server.signal(signal);
        let (ended, _, log) = server.ended();
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert_eq!(ended.code(), Some(status), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("stopped at once")), "{log:#?}");
    }
}

/// The manager's end of a datagram socket.
struct Told(UnixDatagram);

impl Told {
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let len = self.0.recv(&mut bytes).expect("the manager is told in time");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    /// The next thing that is not a sign of life.
    fn state(&self) -> String {
        loop {
            let told = self.next();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_of_each_state() {
    let user = store();
    user.set("serve.toml", &configuration(&user, ""));
    let path = user.at("notify");
    let hidden = format!("bowline-test-{}", std::process::id());
    let by_path = (UnixDatagram::bind(&path).unwrap(), path.display().to_string());
    let abstracted = UnixAddress::from_abstract_name(&hidden).unwrap();
    let by_name = (UnixDatagram::bind_addr(&abstracted).unwrap(), format!("@{hidden}"));
    for (socket, name) in [by_path, by_name] {
        socket.set_read_timeout(Some(LONG)).unwrap();
        let told = Told(socket);
        let server = serve(&user, &[], |command| {
            command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "100000");
        });
        assert!(told.next().starts_with("READY=1\n"));
        assert_eq!(told.next(), "WATCHDOG=1");
        assert_eq!(told.next(), "WATCHDOG=1", "again and again");
        server.signal(Signal::HUP);
        let reloading = told.state();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
        assert!(told.state().starts_with("READY=1\n"));
        server.signal(Signal::TERM);
        assert!(told.state().starts_with("STOPPING=1\n"));
        assert_eq!(server.ended().0.code(), Some(0));
    }
}

#[test]
fn sockets_that_are_handed_over_are_listened_on() {
    let user = store();
    user.set("serve.toml", &configuration(&user, ""));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let start = |count: &str, handed: OwnedFd| {
        // The shell takes the manager's part: it puts the socket where the convention wants it.
        let program = user.command(&["serve"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=\"$1\" exec \"$0\" serve"]);
        shell.arg(program.get_program()).arg(count);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env_remove("NOTIFY_SOCKET");
        shell.stdin(handed).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = start("1", listener.into());
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, format!("listening on {address}\n"), "and on nothing else");
    TcpStream::connect(address).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let wrong = File::open("/dev/null").unwrap();
    let done = program::finish_child(start("1", wrong.into()));
    done.failure_with(2, &["cannot use a socket that the service manager handed over"]);
}

#[test]
fn the_log_has_the_form_that_is_asked_for() {
    let user = store();
    user.set("serve.toml", &configuration(&user, "log = \"info\""));
    let lines = |format: &str| {
        let mut server = serve(&user, &["--log-format", format], |_| ());
        server.close_input();
        let (_, _, log) = server.ended();
        assert!(!log.is_empty());
        log
    };
    for line in lines("json") {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(object["level"].is_string() && object["fields"]["message"].is_string(), "{line}");
    }
    for line in lines("journald") {
        let rest = line.strip_prefix("<6>").or_else(|| line.strip_prefix("<4>"));
        assert!(rest.is_some_and(|rest| rest.trim_start().starts_with(['I', 'W'])), "{line}");
    }
    assert!(lines("text").iter().all(|line| !line.starts_with(['<', '{'])));
}

/// The unit files, as they are told to be installed.
const UNITS: [(&str, &str); 2] = [
    ("bowline.service", include_str!("../docs/systemd/bowline.service")),
    ("bowline.socket", include_str!("../docs/systemd/bowline.socket")),
];

#[test]
fn the_unit_files_say_what_the_program_takes() {
    let user = User::new();
    let help = user.run(&["serve", "--help"]).success();
    let [(_, service), (_, socket)] = UNITS;
    let start = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let flags: Vec<&str> = start.split(' ').filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() >= 5, "{start}");
    for flag in flags {
        assert!(help.contains(&format!("{flag} <")), "{flag} is no flag of: {help}");
    }
    assert!(service.contains("Type=notify-reload\n") && service.contains("WatchdogSec=30\n"));
    assert!(!socket.contains("Accept=yes"));

    let folder = user.at("units");
    fs::create_dir(&folder).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify");
    for (name, text) in UNITS {
        // One that is surely there.
        let text = text.replace("/usr/local/bin/bowline", env!("CARGO_BIN_EXE_bowline"));
        fs::write(folder.join(name), text).unwrap();
        verify.arg(folder.join(name));
    }
    let Ok(verified) = verify.stdin(Stdio::null()).output() else {
        eprintln!("skipped: no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    // What is newer than this machine's systemd is left out by it, and so it may be.
    let is_ours = |line: &&str| line.contains("/bowline.") && !line.contains("notify-reload");
    assert_eq!(said.lines().filter(is_ours).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(verified.status.success(), "{said}");
}
