//! What integration tests stand on: a real server process, recorders between it and its clients, and the check
//! that no recorded data channel ever shows a key.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

pub(crate) mod raw;
pub(crate) mod recorder;
pub(crate) mod tamperer;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bowline::client::{
    ChannelState, ChannelStatus, Client, Error, File, LineConfig, OpenOptions, Peer, Session,
};
use bowline::model::{ChannelKind, LineId, LineRole, LineSet, Protection, PublicKey, Reason, ResumeKey};
use bowline::net::{SystemEntropy, Via, key_file};
use bowline::secure::Identity;
use recorder::{Kind, Recorder, Recording, contains_secret};
use tempfile::TempDir;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// The export of every world.
pub(crate) const EXPORT: &str = "data";

pub(crate) const LINE_1: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
pub(crate) const LINE_2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// An entry of the server's list of clients.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: PublicKey,
    pub(crate) rights: &'static [&'static str],
    pub(crate) protection: Protection,
    pub(crate) exports: &'static [&'static str],
}

impl Entry {
    pub(crate) fn all(key: PublicKey) -> Self {
        let rights = &["read", "write", "lock", "grant"];
        Self { key, rights, protection: Protection::Signed, exports: &[EXPORT] }
    }
}

/// A server process, two recorded lines to it, and a client identity that it knows. Dropping it checks every
/// recorded data channel for every key that the test has seen.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) server_key: PublicKey,
    pub(crate) identity: Arc<Identity>,
    pub(crate) recorders: Vec<Recorder>,
    pub(crate) addresses: Vec<SocketAddr>,
    child: Child,
    /// What must never be readable, with what it is.
    secrets: Mutex<Vec<Vec<u8>>>,
}

impl World {
    /// A world with one allowed client, and this file content under the name `file`.
    pub(crate) async fn start(content: &[u8]) -> Self {
        let identity = new_identity();
        let entry = Entry::all(identity.public());
        Self::with_clients(content, identity, &[entry]).await
    }

    pub(crate) async fn with_clients(content: &[u8], identity: Arc<Identity>, entries: &[Entry]) -> Self {
        Self::with_program(program(), content, identity, entries, |_| {}).await
    }

    /// A world with one allowed client, whose exported folder is prepared before anything is in it.
    pub(crate) async fn prepared(content: &[u8], prepare: impl FnOnce(&Path)) -> Self {
        let identity = new_identity();
        let entry = Entry::all(identity.public());
        Self::with_program(program(), content, identity, &[entry], prepare).await
    }

    /// A world whose server process may have so many descriptors.
    pub(crate) async fn with_descriptors(most: u32, content: &[u8]) -> Self {
        let mut limited = Command::new("sh");
        limited
            .arg("-c")
            .arg(format!("ulimit -n {most} && exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_bowline"));
        let identity = new_identity();
        let entry = Entry::all(identity.public());
        Self::with_program(limited, content, identity, &[entry], |_| {}).await
    }

    async fn with_program(
        bowline: Command,
        content: &[u8],
        identity: Arc<Identity>,
        entries: &[Entry],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        client_log();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        prepare(&data);
        fs::write(data.join("file"), content).unwrap();
        let server = new_identity();
        key_file::create(&folder.path().join("server.key"), &server.to_text()).unwrap();
        write_clients(folder.path(), entries);
        let (child, addresses) =
            serve(bowline, folder.path(), &["127.0.0.1:0".into(), "127.0.0.2:0".into()], "process");
        let mut recorders = Vec::new();
        for (line, &address) in [LINE_1, LINE_2].into_iter().zip(&addresses) {
            recorders.push(Recorder::start(line, address).await.unwrap());
        }
        let server_key = server.public();
        // Nobody ever shows the identities' secret halves either.
        let secrets = Mutex::new(vec![secret_half(&server), secret_half(&identity)]);
        Self { folder, server_key, identity, recorders, addresses, child, secrets }
    }

    /// Kills the server, as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the server ended with {status}");
    }

    /// Starts a server again where the last one was, with the same state.
    pub(crate) fn start_again(&mut self) {
        self.start_again_as(program());
    }

    /// As [`World::start_again`], by a command of its own that runs the program.
    pub(crate) fn start_again_as(&mut self, bowline: Command) {
        let listen: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let (child, addresses) = serve(bowline, self.folder.path(), &listen, "process");
        assert_eq!(addresses, self.addresses);
        self.child = child;
    }

    /// A peer over the two recorded lines, with these roles.
    pub(crate) fn peer(&self, roles: [LineRole; 2]) -> Peer {
        let lines = self.recorders.iter().zip(roles).zip([LINE_1, LINE_2]);
        let lines = lines.map(|((recorder, role), from)| LineConfig {
            address: recorder.address(),
            via: Some(Via::Address(from)),
            role,
            protection: None,
        });
        Peer { name: "server".into(), key: self.server_key, protection_min: None, lines: lines.collect() }
    }

    /// A peer over one recorded line.
    pub(crate) fn peer_on(&self, line: usize) -> Peer {
        let mut peer = self.peer([LineRole::Both; 2]);
        peer.lines = vec![peer.lines[line].clone()];
        peer
    }

    /// A session of the world's own client over both lines, with all its channels up.
    pub(crate) async fn connect(&self, roles: [LineRole; 2]) -> Session {
        self.connect_as(&self.identity, &self.peer(roles)).await
    }

    pub(crate) async fn connect_as(&self, identity: &Arc<Identity>, peer: &Peer) -> Session {
        self.note_identity(identity);
        let session = Client::new(Arc::clone(identity)).unwrap().connect(peer).await.unwrap();
        let mut events = session.events();
        session.all_lines_up(LONG).await.unwrap();
        // And the spare control channel, which the session itself can do without.
        let controls =
            peer.lines.iter().filter(|line| line.role.carries(ChannelKind::Control)).count().min(2);
        let live = || {
            let is_live = |status: &ChannelStatus| {
                status.kind == ChannelKind::Control && status.state == ChannelState::Live
            };
            session.channels().into_iter().filter(is_live).count()
        };
        while live() < controls {
            tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap();
        }
        session
    }

    /// Opens the world's file; its key is noted as a secret.
    pub(crate) async fn open(&self, session: &Session, options: &OpenOptions) -> Result<File, Error> {
        self.noted(session.open(EXPORT, "file", options).await)
    }

    /// Gets a duplicate handle; its key is noted as a secret.
    pub(crate) async fn resume(
        &self,
        session: &Session,
        key: &ResumeKey,
        lines: LineSet,
    ) -> Result<File, Error> {
        self.noted(session.resume(key, lines).await)
    }

    /// What an open or a resume came to; its key is noted as a secret.
    pub(crate) fn noted(&self, opened: Result<File, Error>) -> Result<File, Error> {
        if let Some(key) = opened.as_ref().ok().and_then(File::kept_key) {
            self.note_key(&key);
        }
        opened
    }

    /// Waits until the server's log says so.
    pub(crate) async fn until_log_says(&self, what: &str) {
        self.until(what, || self.log().contains(what)).await;
    }

    /// Waits until something is so that announces itself to nobody.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome = tokio::time::timeout(LONG, waiting).await;
        assert!(outcome.is_ok(), "never: {what}; the log:\n{}", self.log());
    }

    /// The key of a file, noted as a secret.
    pub(crate) async fn key_of(&self, file: &File) -> ResumeKey {
        let key = file.resume_key().await.unwrap();
        self.note_key(&key);
        key
    }

    /// Remembers a key that nothing may ever show.
    pub(crate) fn note_key(&self, key: &ResumeKey) {
        self.note_secret(key.secret.to_vec());
    }

    /// Remembers the secret half of an identity that nothing may ever show.
    pub(crate) fn note_identity(&self, identity: &Identity) {
        self.note_secret(secret_half(identity));
    }

    /// Remembers the secret of a session that nothing may ever show.
    pub(crate) fn note_session(&self, session: &raw::RawSession) {
        self.note_secret(session.started.secret.0.to_vec());
    }

    fn note_secret(&self, secret: Vec<u8>) {
        let mut secrets = self.secrets.lock().unwrap();
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }

    /// Everything that was recorded, on both lines.
    pub(crate) fn recordings(&self, line: usize) -> Vec<Recording> {
        self.recorders[line].connections()
    }

    pub(crate) fn data_recordings(&self, line: usize) -> Vec<Recording> {
        self.recordings(line).into_iter().filter(|recording| recording.kind == Kind::BindData).collect()
    }

    /// Puts another list of clients in the server's place.
    pub(crate) fn set_clients(&self, entries: &[Entry]) {
        write_clients(self.folder.path(), entries);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the server is asked for its status.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// No connection of either line shows a secret in any form, whatever it carried; nor does the log of either side.
    pub(crate) fn check_secrets(&self) {
        let secrets = self.secrets.lock().unwrap();
        for secret in secrets.iter() {
            for line in 0..self.recorders.len() {
                for recording in self.recordings(line) {
                    for bytes in [&recording.to_server, &recording.to_client] {
                        let found = contains_secret(bytes, secret);
                        assert_eq!(
                            found, None,
                            "line {line}, connection {}, {:?}",
                            recording.number, recording.kind
                        );
                    }
                }
            }
            assert_eq!(contains_secret(self.log().as_bytes(), secret), None, "the server's log");
            assert_eq!(contains_secret(&client_log().lock().unwrap(), secret), None, "the client's log");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The child ends when its standard input closes; a test that has failed does not wait for it.
        drop(self.child.stdin.take());
        if std::thread::panicking() {
            drop(self.child.kill());
            eprintln!("--- the server's log ---\n{}", self.log());
        }
        let status = self.child.wait().unwrap();
        if !std::thread::panicking() {
            assert!(status.success(), "the server ended with {status}");
            self.check_secrets();
        }
    }
}

/// Waits until every connection of a line is gone on the client's side.
pub(crate) async fn lost(session: &Session, line: usize) {
    let mut events = session.events();
    let line = LineId(u8::try_from(line).unwrap());
    let is_live = |status: &ChannelStatus| status.line == line && status.state == ChannelState::Live;
    while session.channels().iter().any(is_live) {
        tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bowline"))
}

/// Starts a server process that keeps its opens in the world's folder.
fn serve(
    mut bowline: Command,
    folder: &Path,
    listen: &[String],
    durability: &str,
) -> (Child, Vec<SocketAddr>) {
    let log = fs::File::options().create(true).append(true).open(folder.join("server.log")).unwrap();
    let mut child = bowline
        .arg("serve")
        .arg(format!("{EXPORT}={}", folder.join("data").display()))
        .arg("--listen")
        .args(listen)
        .args(["--until-stdin-closes", "--key"])
        .arg(folder.join("server.key"))
        .arg("--clients")
        .arg(folder.join("clients.toml"))
        .args(["--durability", durability, "--state-dir"])
        .arg(folder.join("state"))
        .arg("--admin-socket")
        .arg(folder.join("admin.sock"))
        .env("BOWLINE_LOG", "trace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let words = first.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("first line {first:?}"));
    let addresses = words.split(' ').map(|word| word.parse().unwrap()).collect();
    (child, addresses)
}

/// A world with a second client, and a session of each over both lines.
pub(crate) async fn two(content: &[u8]) -> (World, Session, Session) {
    let (first, second) = (new_identity(), new_identity());
    let entries = [Entry::all(first.public()), Entry::all(second.public())];
    let world = World::with_clients(content, first, &entries).await;
    let own = world.connect([LineRole::Both; 2]).await;
    let other = world.connect_as(&second, &world.peer([LineRole::Both; 2])).await;
    (world, own, other)
}

pub(crate) fn new_identity() -> Arc<Identity> {
    Arc::new(Identity::generate(&mut SystemEntropy).unwrap())
}

/// Everything that the library has logged in this process, as the client that it is here, at every level.
pub(crate) fn client_log() -> &'static Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Arc::default();
        let written = LogWriter(Arc::clone(&log));
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        subscriber.with_writer(move || written.clone()).init();
        log
    })
}

/// For a server in the test's own process, where both ends write one log: when it is dropped, nothing that was logged
/// may show any of these secrets.
pub(crate) struct Searched(Mutex<Vec<Vec<u8>>>);

impl Searched {
    /// Begins to collect the log, if nobody has yet, and remembers the secret halves of these identities.
    pub(crate) fn new<'a>(identities: impl IntoIterator<Item = &'a Arc<Identity>>) -> Self {
        client_log();
        Self(Mutex::new(identities.into_iter().map(|identity| secret_half(identity)).collect()))
    }

    /// What an open came to; its key is one of the secrets.
    pub(crate) fn noted(&self, opened: Result<File, Error>) -> Result<File, Error> {
        if let Some(key) = opened.as_ref().ok().and_then(File::kept_key) {
            self.0.lock().unwrap().push(key.secret.to_vec());
        }
        opened
    }
}

impl Drop for Searched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = client_log().lock().unwrap();
        assert!(!log.is_empty(), "nothing was logged");
        for secret in self.0.lock().unwrap().iter() {
            assert_eq!(contains_secret(&log, secret), None, "the log of both ends");
        }
    }
}

#[derive(Clone)]
struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The 32 bytes that an identity keeps to itself.
pub(crate) fn secret_half(identity: &Identity) -> Vec<u8> {
    let text = identity.to_text();
    let encoded = text.rsplit('-').next().unwrap().to_uppercase();
    data_encoding::BASE32_NOPAD.decode(encoded.as_bytes()).unwrap()
}

fn write_clients(folder: &Path, entries: &[Entry]) {
    use std::fmt::Write as _;
    // Never blank: a blank list is a writer that has just begun.
    let mut text = "# The clients of a test.\n".to_owned();
    for (at, entry) in entries.iter().enumerate() {
        let Entry { key, rights, protection, exports } = entry;
        writeln!(
            text,
            "[[client]]\nkey = \"{key}\"\nname = \"client-{at}\"\nexports = {exports:?}\nrights = {rights:?}\nprotection = \"{protection}\"\n"
        )
        .unwrap();
    }
    // Replaced as a whole, as an administrator's editor does.
    let new = folder.join("clients.toml.new");
    fs::write(&new, text).unwrap();
    fs::rename(new, folder.join("clients.toml")).unwrap();
}

/// Bytes that are found again wherever they are readable, and different at each offset.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Whether a whole block of `content` is readable in `recorded`.
pub(crate) fn shows(recorded: &[u8], content: &[u8]) -> bool {
    let needle = &content[content.len() / 2..content.len() / 2 + 64];
    recorded.windows(needle.len()).any(|window| window == needle)
}

pub(crate) fn only(line: usize) -> LineSet {
    [LineId(u8::try_from(line).unwrap())].into_iter().collect()
}

/// The reason of an expected refusal.
pub(crate) fn reason<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Reason {
    let error = outcome.unwrap_err();
    error.reason().unwrap_or_else(|| panic!("no refusal: {error}"))
}
