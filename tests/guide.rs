//! The guide's commands, executed in its order, with real keys, a temporary folder and loopback addresses in place of the
//! ones that it makes up.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::net::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const GUIDE: &str = include_str!("../docs/guide.md");
/// How long anything may take before the test fails.
const LONG: Duration = Duration::from_secs(60);

/// The guide's commands in order, each with the machine that it is for.
fn commands() -> Vec<(&'static str, String)> {
    let blocks = GUIDE.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let command = |line: &str| {
        let server = line.strip_prefix("server$ ").map(|command| ("server", command.to_owned()));
        server.or_else(|| line.strip_prefix("client$ ").map(|command| ("client", command.to_owned())))
    };
    blocks.flat_map(str::lines).map(|line| command(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
}

/// The guide's configuration file of a server.
fn service() -> String {
    let blocks = GUIDE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut of_servers = blocks.filter(|block| block.contains("[[export]]"));
    of_servers.next().expect("the guide configures a server").to_owned()
}

/// The two machines of the guide.
struct Machines {
    folder: TempDir,
    server_key: String,
    client_key: String,
    /// Where the server listens.
    bound: Vec<String>,
}

impl Machines {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for machine in ["server", "client"] {
            fs::create_dir(folder.path().join(machine)).unwrap();
        }
        let clips = folder.path().join("media/clips");
        fs::create_dir_all(&clips).unwrap();
        for (at, name) in (1_u8..).zip(["first.mov", "second.mov", "third.mov"]) {
            fs::write(clips.join(name), vec![at; 3_000_000]).unwrap();
        }
        Self { folder, server_key: String::new(), client_key: String::new(), bound: Vec::new() }
    }

    fn home(&self, machine: &str) -> PathBuf {
        self.folder.path().join(machine)
    }

    /// A command with what is real in place of what the guide makes up.
    fn real(&self, command: &str) -> String {
        let mut command = command
            .replace("CLIENT_KEY", &self.client_key)
            .replace("SERVER_KEY", &self.server_key)
            .replace("/srv/media", self.folder.path().join("media").to_str().unwrap());
        let places: [(&str, Option<&String>); 6] = [
            ("10.0.0.1:4477", None),
            ("10.0.1.1:4477", None),
            ("10.0.0.1", self.bound.first()),
            ("10.0.1.1", self.bound.get(1)),
            ("10.0.0.2", None),
            ("10.0.1.2", None),
        ];
        let loopback = ["127.0.0.1:0", "127.0.0.2:0", "", "", "127.0.0.1", "127.0.0.2"];
        for ((written, bound), loopback) in places.into_iter().zip(loopback) {
            command = command.replace(written, bound.map_or(loopback, String::as_str));
        }
        // This machine's only interface that is always there.
        command.replace("--via eth0 --via eth1", "--via lo")
    }

    fn shell(&self, machine: &str, command: &str) -> Command {
        let home = self.home(machine);
        let program = Path::new(env!("CARGO_BIN_EXE_bowline")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).env_clear().env("PATH", path).env("HOME", &home).current_dir(&home);
        shell
    }
}

/// A server that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_guide_works_as_written() {
    let mut machines = Machines::new();
    let mut server = None;
    let all = commands();
    assert!(all.len() >= 18, "{} commands", all.len());
    for (machine, written) in &all {
        let command = machines.real(written);
        if written.starts_with("bowline serve") {
            // One that runs already has the identity, and gives it up for one that is configured otherwise.
            drop(server.take());
            let file = machines.real(&service()).replace("127.0.0.1:9477", "127.0.0.1:0");
            fs::write(machines.home("server").join(".config/bowline/serve.toml"), file).unwrap();
            let mut started = machines.shell(machine, &format!("exec {command}"));
            let mut child = started.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut first = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
            server = Some(Ended(child));
            let bound = first.trim().strip_prefix("listening on ").unwrap();
            machines.bound = bound.split(' ').map(str::to_owned).collect();
            continue;
        }
        let mut running = machines.shell(machine, &command);
        let mut child =
            running.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Only `peer trust` asks; the others have ended, or do not listen.
        drop(child.stdin.take().unwrap().write_all(b"yes\n"));
        let done = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{machine}$ {command}\n{out}{err}");
        if written == "bowline key new" {
            let key = out.lines().find_map(|line| line.strip_prefix("key ")).unwrap().to_owned();
            *(if *machine == "server" { &mut machines.server_key } else { &mut machines.client_key }) = key;
        }
    }
    let (clips, copy) = (machines.folder.path().join("media/clips"), machines.home("client").join("clips"));
    for name in ["first.mov", "second.mov", "third.mov"] {
        assert!(fs::read(copy.join(name)).unwrap() == fs::read(clips.join(name)).unwrap(), "{name}");
    }
    drop(server);
}

#[test]
fn from_nothing_to_a_copied_directory_takes_six_commands_a_side_and_no_editor() {
    let all = commands();
    let end = all.iter().position(|(_, command)| command.contains("cp -r")).unwrap();
    for machine in ["server", "client"] {
        let count = all[..=end].iter().filter(|(of, _)| *of == machine).count();
        assert!(count <= 6, "{count} commands on the {machine}");
    }
}

/// The same on two terminals, as people have them.
#[test]
fn b10_a_terminal_session_copies_a_directory_over_two_lines() {
    if Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("skipped: no tmux");
        return;
    }
    let mut machines = Machines::new();
    // So large that the copy can be held still in the middle; nothing but zeros would be holes.
    for (at, name) in (1_u8..).zip(["first.mov", "second.mov", "third.mov"]) {
        fs::write(machines.folder.path().join("media/clips").join(name), vec![at; 200 << 20]).unwrap();
    }
    let terminal = Terminal::start(&machines);
    let all = commands();
    let end = all.iter().position(|(_, command)| command.contains("cp -r")).unwrap();
    for (machine, written) in &all[..=end] {
        let command = machines.real(written);
        terminal.say(machine, &command);
        if written.starts_with("bowline serve") {
            let line = terminal.until(machine, "listening on ");
            let bound = line.trim().strip_prefix("listening on ").unwrap();
            machines.bound = bound.split(' ').map(str::to_owned).collect();
            continue;
        }
        if written.contains("peer trust") {
            terminal.until(machine, "[yes/no]");
            terminal.say(machine, "yes");
        }
        if written.contains("cp -r") {
            look_at_the_bars(&terminal, &machines);
        }
        terminal.until(machine, "done 0");
        if written == "bowline key new" {
            let key = terminal.until(machine, "key ").trim().strip_prefix("key ").unwrap().to_owned();
            *(if *machine == "server" { &mut machines.server_key } else { &mut machines.client_key }) = key;
        }
    }
    let screen = terminal.screen("client");
    assert!(screen.contains("copied 3 files, 600.00 MiB"), "{screen}");
    assert!(machines.home("client").join("clips/third.mov").exists());
    // The server ends with its terminal, also when nobody stops it.
    let told = machines.home("server").join(".local/state/bowline/admin.sock");
    assert!(told.exists());
    drop(terminal);
    let begun = Clock.now();
    while told.exists() {
        assert!(Clock.now().since(begun) < LONG, "the server has outlived its terminal");
        std::thread::yield_now();
    }
}

/// A copy that runs has on the screen what the guide shows: it is held still by its server until somebody has looked.
fn look_at_the_bars(terminal: &Terminal, machines: &Machines) {
    let shell = terminal.tmux(&["list-panes", "-t", "server", "-F", "#{pane_pid}"]).output().unwrap();
    let shell = String::from_utf8(shell.stdout).unwrap().trim().to_owned();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let server = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    let begun = Clock.now();
    // A tenth of it, by when both lines carry.
    let copied = || {
        let parts = fs::read_dir(machines.home("client").join("clips")).into_iter().flatten().flatten();
        parts.filter_map(|part| part.metadata().ok()).map(|part| part.blocks() * 512).sum::<u64>()
    };
    while copied() < 60 << 20 {
        assert!(Clock.now().since(begun) < LONG, "nothing is copied:\n{}", terminal.screen("client"));
    }
    kill_process(server, Signal::STOP).unwrap();
    for address in &machines.bound {
        terminal.until("client", &format!("  {address}: "));
    }
    let screen = terminal.rows("client");
    // Its shell has taken the terminal back, and gives it to the server again.
    terminal.until("server", "Stopped");
    terminal.say("server", "fg");
    let shown = GUIDE.split("```text\n").map(|rest| rest.split("```").next().unwrap());
    let mut shown = shown.filter(|block| block.contains("12 files ["));
    let shown = shown.next().expect("the guide has the screen of a copy");
    let bars = screen.lines().skip_while(|line| !line.contains(" files [")).take(shown.lines().count());
    for (line, shown) in bars.zip(shown.lines()) {
        assert_eq!(form(line), form(shown), "{screen}");
    }
    assert!(screen.contains(" files ["), "{screen}");
}

/// A line of the screen without what differs from copy to copy: its numbers, their units and how long the bar is.
fn form(line: &str) -> Vec<String> {
    let is_word = |word: &&str| {
        let is_unit = ["B", "KiB", "MiB", "GiB", "MiB/s", "KiB/s", "GiB/s", "B/s"]
            .contains(&word.trim_end_matches(','));
        !is_unit
            && word.chars().any(char::is_alphabetic)
            && !word.starts_with(|first: char| first.is_ascii_digit())
    };
    line.split_whitespace().filter(is_word).map(str::to_owned).collect()
}

/// A terminal for each machine.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn start(machines: &Machines) -> Self {
        let terminal = Self { socket: machines.folder.path().join("tmux") };
        let program = Path::new(env!("CARGO_BIN_EXE_bowline")).parent().unwrap();
        let path = format!("PATH={}:{}", program.display(), std::env::var("PATH").unwrap());
        for machine in ["server", "client"] {
            let home = machines.home(machine);
            let home = home.to_str().unwrap();
            let shell = format!("env -i TERM=screen '{path}' HOME={home} PS1='done $? ' sh");
            let new = ["new-session", "-d", "-s", machine, "-x", "250", "-y", "50", "-c", home, &shell];
            assert!(terminal.tmux(&new).status().unwrap().success());
            terminal.until(machine, "done 0");
        }
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-f").arg("/dev/null").arg("-S").arg(&self.socket).args(arguments);
        tmux
    }

    /// Types a line on an empty screen.
    fn say(&self, machine: &str, line: &str) {
        if line != "yes" {
            assert!(self.tmux(&["send-keys", "-t", machine, "-R"]).status().unwrap().success());
            assert!(self.tmux(&["clear-history", "-t", machine]).status().unwrap().success());
        }
        assert!(self.tmux(&["send-keys", "-t", machine, "-l", line]).status().unwrap().success());
        assert!(self.tmux(&["send-keys", "-t", machine, "Enter"]).status().unwrap().success());
    }

    fn screen(&self, machine: &str) -> String {
        self.captured(&["-J", "-t", machine])
    }

    /// The screen row by row, also where a program has filled one to its end.
    fn rows(&self, machine: &str) -> String {
        self.captured(&["-t", machine])
    }

    fn captured(&self, how: &[&str]) -> String {
        let shown = self.tmux(&[&["capture-pane", "-p"], how].concat()).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    }

    /// The last line of the screen that has `part` in it, once there is one.
    fn until(&self, machine: &str, part: &str) -> String {
        let begun = Clock.now();
        loop {
            let screen = self.screen(machine);
            if let Some(line) = screen.lines().rev().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            assert!(Clock.now().since(begun) < LONG, "no {part:?} on:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.tmux(&["kill-server"]).stderr(Stdio::null()).status());
    }
}
