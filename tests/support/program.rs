//! The program as its users meet it: a folder with their settings, commands that run to their end, and servers that
//! end when their standard input closes. Everything that waits has a bound.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use bowline::secure::Identity;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::support::recorder::contains_secret;
use super::support::{LONG, secret_half};

/// A user of the program: a home and a folder of settings, which start empty.
pub(crate) struct User {
    folder: TempDir,
}

/// A command that has run to its end.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the program looks for a settings file by itself.
    pub(crate) fn settings(&self, name: &str) -> PathBuf {
        self.at("config/bowline").join(name)
    }

    /// Puts a settings file in its place as a whole, as an editor does.
    pub(crate) fn set(&self, name: &str, text: &str) {
        fs::create_dir_all(self.at("config/bowline")).unwrap();
        let new = self.settings("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.settings(name)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_bowline"), arguments)
    }

    /// Another program, which may start this one, with the user's places.
    pub(crate) fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let own = ["BOWLINE_KEY", "BOWLINE_CLIENTS", "BOWLINE_PEERS", "BOWLINE_LOG", "BOWLINE_STATE_DIR"];
        // Each user has the places that follow from its home.
        for variable in own.into_iter().chain(["XDG_RUNTIME_DIR", "XDG_STATE_HOME"]) {
            command.env_remove(variable);
        }
        command.env("HOME", self.at("home")).env("XDG_CONFIG_HOME", self.at("config")).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        let done = finish(&mut self.command(arguments));
        let secrets = self.secrets();
        assert_hides(&done.out, &secrets);
        assert_hides(done.err.as_bytes(), &secrets);
        done
    }

    /// The secret halves of the identities that the user has.
    pub(crate) fn secrets(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.at("config/bowline")).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.filter_map(|text| Identity::from_text(text.trim()).ok()).map(|own| secret_half(&own)).collect()
    }

    /// Makes the user's identity, and tells its public key.
    pub(crate) fn make_key(&self) -> String {
        let out = self.run(&["key", "new"]).success();
        key_in(&out)
    }

    /// Starts a server whose first line says where it listens.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server {
        self.serve_logging(arguments, "trace")
    }

    /// As [`User::serve`], with a log of its own filter.
    pub(crate) fn serve_logging(&self, arguments: &[&str], filter: &str) -> Server {
        let mut command = self.command(&[&["serve"], arguments].concat());
        Server::start(command.env("BOWLINE_LOG", filter), self.secrets())
    }
}

/// Nothing that the program says shows a secret of its user, in any form.
fn assert_hides(said: &[u8], secrets: &[Vec<u8>]) {
    for secret in secrets {
        assert_eq!(contains_secret(said, secret), None, "{}", String::from_utf8_lossy(said));
    }
}

/// The key in what `key new` and `key show` print.
pub(crate) fn key_in(out: &str) -> String {
    let lines: Vec<&str> = out.lines().collect();
    let [key, fingerprint] = lines[..] else { panic!("not two lines: {out:?}") };
    let key = key.strip_prefix("key ").unwrap();
    assert_eq!(key.len(), 52);
    let groups = [&key[0..4], &key[4..8], &key[8..12], &key[12..16]].join("-");
    assert_eq!(fingerprint, format!("fingerprint {groups}"));
    key.to_owned()
}

/// Runs a command to its end, with nothing to read, unless it was given other streams.
pub(crate) fn finish(command: &mut Command) -> Done {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish_child(child)
}

/// Waits for the end of a child, and takes what it wrote to its pipes.
pub(crate) fn finish_child(mut child: Child) -> Done {
    let out = child.stdout.take().map(all_of);
    let err = child.stderr.take().map(all_of);
    let mut taken = [out, err].map(|stream| match stream.map(|stream| stream.recv_timeout(LONG)) {
        None => Some(Vec::new()),
        Some(bytes) => bytes.ok(),
    });
    if taken.iter().any(Option::is_none) {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let [out, err] = taken.each_mut().map(|bytes| bytes.take().expect("the program ended in time"));
    Done { status, out, err: String::from_utf8(err).unwrap() }
}

fn all_of(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        drop(sender.send(bytes));
    });
    receiver
}

impl Done {
    /// What a successful command printed, which had nothing to complain about.
    pub(crate) fn success(self) -> String {
        assert!(self.status.success(), "{self:?}");
        String::from_utf8(self.out).unwrap()
    }

    /// The message of a failed command, with all of `parts` in it: a line that says what failed, and one each for why, for
    /// what became of the data and for what to try, as far as there is something to say. Results it has none.
    #[track_caller]
    pub(crate) fn failure(self, parts: &[&str]) -> String {
        assert!(matches!(self.status.code(), Some(1..=11)), "{self:?}");
        assert_eq!(self.out, b"", "nothing but results on standard output");
        assert!(message(&self.err).is_some(), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
        self.err
    }

    /// As [`Done::failure`], of a command that ends with this number.
    #[track_caller]
    pub(crate) fn failure_with(self, exit: i32, parts: &[&str]) -> String {
        assert_eq!(self.status.code(), Some(exit), "{self:?}");
        self.failure(parts)
    }

    /// Wrong usage: exit code 2, and a message that names `part`.
    pub(crate) fn misuse(&self, part: &str) {
        assert_eq!(self.status.code(), Some(2), "{self:?}");
        assert_eq!(self.out, b"", "nothing but results on standard output");
        assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
    }
}

/// The last error in a text, if it has the form that every error has: what failed, and why if that is said.
pub(crate) fn message(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().rposition(|line| line.starts_with("error[") || line.starts_with("error: "))?;
    let (_, what) = lines[at].split_once(": ")?;
    let mut labels = ["  why: ", "  data: ", "  try: "].iter();
    let mut message = what.to_owned();
    for line in &lines[at + 1..] {
        let label = labels.find(|label| line.starts_with(**label))?;
        if *label == "  why: " {
            message = format!("{message}: {}", &line[label.len()..]);
        }
    }
    Some(message)
}

/// A server that runs. Dropping it closes its standard input, which ends it.
pub(crate) struct Server {
    child: Child,
    /// The first line of its output.
    pub(crate) first: String,
    out: Receiver<String>,
    log: Receiver<String>,
    /// What neither may show.
    secrets: Vec<Vec<u8>>,
}

impl Server {
    pub(crate) fn start(command: &mut Command, secrets: Vec<Vec<u8>>) -> Self {
        Self::start_after(0, command, secrets)
    }

    /// As [`Server::start`], of a program that prints so many lines before it is one.
    pub(crate) fn start_after(lines: usize, command: &mut Command, secrets: Vec<Vec<u8>>) -> Self {
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        let out = lines_of(child.stdout.take().unwrap());
        let log = lines_of(child.stderr.take().unwrap());
        let mut next = || {
            out.recv_timeout(LONG).unwrap_or_else(|_| {
                drop(child.kill());
                panic!("the server does not start: {:?}", log.iter().collect::<Vec<_>>())
            })
        };
        (0..lines).for_each(|_| drop(next()));
        let first = next();
        Self { child, first, out, log, secrets }
    }

    /// Where it listens, by its own account.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let words = self.first.strip_prefix("listening on ").unwrap();
        words.split(' ').map(|word| word.parse().unwrap()).collect()
    }

    /// Waits for a line of the log with `part` in it.
    pub(crate) fn log_has(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(LONG) {
                Ok(line) => {
                    assert_hides(line.as_bytes(), &self.secrets);
                    if line.contains(part) {
                        return line;
                    }
                    seen.push(line);
                }
                Err(_) => panic!("the log has no {part:?}: {seen:#?}"),
            }
        }
    }

    /// The next line of its output that begins so.
    pub(crate) fn out_has(&self, start: &str) -> String {
        loop {
            let line = self.out.recv_timeout(LONG).expect("the server says so in time");
            if line.starts_with(start) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for the end of the process; what it wrote after its first line, and its log since it was last read.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let (out, log) = (rest(&self.out), rest(&self.log));
        if out.is_none() || log.is_none() {
            drop(self.child.kill());
        }
        let status = self.child.wait().unwrap();
        let mut log = log.expect("the server ended in time");
        assert_hides(log.join("\n").as_bytes(), &self.secrets);
        // Whether tests are run by root is no business of theirs.
        log.retain(|line| !line.contains("serving as root"));
        (status, out.expect("the server ended in time"), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close_input();
        if std::thread::panicking() {
            drop(self.child.kill());
            for line in self.log.try_iter() {
                eprintln!("server: {line}");
            }
        }
        // After a failure, or `ended`, the status has been judged.
        drop(self.child.wait());
        if !std::thread::panicking() {
            self.log.try_iter().for_each(|line| assert_hides(line.as_bytes(), &self.secrets));
        }
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            drop(sender.send(line.unwrap()));
        }
    });
    receiver
}

/// The lines up to the end of the stream; `None` if it does not end.
fn rest(lines: &Receiver<String>) -> Option<Vec<String>> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(LONG) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return Some(rest),
            Err(RecvTimeoutError::Timeout) => return None,
        }
    }
}

/// The argument `NAME=DIR`.
pub(crate) fn export(name: &str, folder: &Path) -> String {
    format!("{name}={}", folder.display())
}

/// A client's entry in a server's list: it may use the export `media`, with these rights.
pub(crate) fn client_entry(name: &str, key: &str, rights: &[&str]) -> String {
    format!("[[client]]\nkey = \"{key}\"\nname = \"{name}\"\nexports = [\"media\"]\nrights = {rights:?}\n")
}

/// The entry of the server `store` in a client's list.
pub(crate) fn peer_entry(key: &str, addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = {addresses:?}\n")
}

/// All rights that an entry of the list of clients can give, but the one to give parts on.
pub(crate) const RIGHTS: [&str; 3] = ["read", "write", "lock"];
