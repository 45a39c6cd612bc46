//! A server process that is killed, held still or told to end while eight clients write: nothing that was acknowledged
//! is lost, nothing that was locked is given away, and nothing happens twice. Real processes and sockets.
//!
//! `BOWLINE_KILL_CYCLES=200 cargo test --release --test kills` is the soak, `BOWLINE_SEED=N` plays its moments again.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a panic fails the test, and how soon clients are back is measured"
)]

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, Error, File, LineConfig, OpenOptions, Peer, Session, SessionEvent};
use bowline::model::{ByteRange, Durability, Limits, LineRole, LockMode, PublicKey, Reason, SyncScope};
use bowline::net::key_file;
use bowline::secure::Identity;
use bowline::server::{Exports, ServerConfig, StateConfig, load_clients};
use program::{Server, User, export};
use rustix::process::Signal;
use support::{EXPORT, LONG, new_identity};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 8;
/// The blocks that a writer has to itself in the file of all of them.
const BLOCKS: usize = 4;
const BLOCK_LEN: usize = 16 << 10;
/// A record of a log. It divides a page, so that the kernel writes it whole or not at all, whenever the process is killed.
const RECORD_LEN: usize = 32;
/// After so many rounds a writer syncs.
const SYNC_EVERY: u64 = 8;

/// A server process, those who write to it, and somebody else who would like to have their files.
struct Scene {
    store: User,
    server: Option<Server>,
    listen: Vec<String>,
    key: PublicKey,
    writers: Arc<Identity>,
    contender: Arc<Identity>,
    own: Option<Limits>,
}

impl Scene {
    fn start() -> Self {
        Self::with_limits(None)
    }

    /// A scene whose server and clients have other bounds than usual.
    fn with_limits(own: Option<Limits>) -> Self {
        let store = User::new();
        let key = store.make_key().parse().unwrap();
        let (writers, contender) = (new_identity(), new_identity());
        let entry = |name: &str, key| {
            format!(
                "[[client]]\nkey = \"{key}\"\nname = \"{name}\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\", \"lock\"]\n"
            )
        };
        store.set(
            "clients.toml",
            &[entry("writers", writers.public()), entry("contender", contender.public())].concat(),
        );
        fs::create_dir(store.at("data")).unwrap();
        fs::write(store.at("data/blocks"), vec![0; WRITERS * BLOCKS * BLOCK_LEN]).unwrap();
        for writer in 0..WRITERS {
            fs::write(store.at("data").join(log_name(writer)), b"").unwrap();
        }
        let listen = ["127.0.0.1:0", "127.0.0.2:0"].map(str::to_owned).to_vec();
        let mut scene = Self { store, server: None, listen, key, writers, contender, own };
        scene.start_server();
        scene.listen = scene.server().addresses().iter().map(ToString::to_string).collect();
        scene
    }

    /// The command of a server on the scene's state.
    fn command(&self) -> Command {
        let fixed = ["serve", "--until-stdin-closes", "--no-admin-socket", "--durability", "process"];
        let mut command = self.store.command(&fixed);
        command.arg(export(EXPORT, &self.store.at("data"))).arg("--listen").args(&self.listen);
        command.env("BOWLINE_LOG", "warn");
        command
    }

    /// In which epoch the server's state is.
    fn epoch(&self) -> u64 {
        let key = self.key.fingerprint();
        let state = self.store.at("home/.local/state/bowline").join(format!("server-{key}/state"));
        let text = fs::read_to_string(state).unwrap();
        text.lines().find_map(|line| line.strip_prefix("epoch ")).unwrap().parse().unwrap()
    }

    fn start_server(&mut self) {
        let server = match &self.own {
            None => Server::start(&mut self.command(), Vec::new()),
            Some(_) => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "a_server_with_short_deadlines", "--nocapture"]);
                command.env(SERVE_IN, self.store.at("")).env("RUST_BACKTRACE", "0");
                // A blank line and a headline come first.
                Server::start_after(2, &mut command, Vec::new())
            }
        };
        self.server = Some(server);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Kills the server, as `kill -9` does, and waits until it is gone.
    fn kill(&mut self) {
        let server = self.server.take().unwrap();
        server.signal(Signal::KILL);
        let (status, ..) = server.ended();
        assert!(!status.success());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.store.at("data").join(name)
    }

    fn peer(&self) -> Peer {
        let addresses = self.listen.iter().map(|address| address.parse::<SocketAddr>().unwrap());
        let lines = addresses.map(|address| LineConfig {
            address,
            via: None,
            role: LineRole::Both,
            protection: None,
        });
        Peer { name: "store".into(), key: self.key, protection_min: None, lines: lines.collect() }
    }

    /// A new client. Nothing that it asks for fails because the server is away for a while.
    async fn connect(&self, identity: &Arc<Identity>) -> Result<Session, Error> {
        let client =
            Client::new(Arc::clone(identity)).unwrap().with_limits(self.own.clone().unwrap_or_default());
        client.with_request_timeout(LONG * 3).connect(&self.peer()).await
    }

    /// Sends eight writers to work, each in a session of its own.
    async fn crew(&self) -> Crew {
        let stop = CancellationToken::new();
        let (mut writing, mut progress, mut sessions) = (JoinSet::new(), Vec::new(), Vec::new());
        for at in 0..WRITERS {
            let session = self.connect(&self.writers).await.unwrap();
            let log = OpenOptions::new().read(true).append(true).exclusive();
            let log = session.open(EXPORT, log_name(at), &log).await.unwrap();
            let blocks = OpenOptions::new().read(true).write(true).lock(region(at), LockMode::Exclusive);
            let blocks = session.open(EXPORT, "blocks", &blocks).await.unwrap();
            let (sender, receiver) = watch::channel(0);
            let mut writer = Writer { at, log, blocks, account: Account::default(), progress: sender };
            let stop = stop.clone();
            writing.spawn(async move {
                while !stop.is_cancelled() {
                    writer.round().await;
                }
                writer.end().await
            });
            progress.push(receiver);
            sessions.push(session);
        }
        Crew { stop, writing, progress, sessions }
    }

    /// Somebody else tries for everything that the writers have, and is told each time that it is taken.
    async fn contend(&self) {
        let session = loop {
            // A server that is being killed again and again is not always there.
            match self.connect(&self.contender).await {
                Ok(session) => break session,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        };
        let options = OpenOptions::new().read(true).write(true);
        let blocks = session.open(EXPORT, "blocks", &options).await.unwrap();
        for writer in 0..WRITERS {
            let locked = blocks.try_lock(region(writer), LockMode::Exclusive).await.unwrap_err();
            assert!(matches!(locked.reason(), Some(Reason::Locked | Reason::Busy)), "{locked}");
            let written = blocks.write_at(region(writer).start(), b"stolen").await.unwrap_err();
            assert!(matches!(written.reason(), Some(Reason::Locked | Reason::Busy)), "{written}");
            let taken = session.open(EXPORT, log_name(writer), &options).await.unwrap_err();
            assert_eq!(taken.reason(), Some(Reason::Busy), "{taken}");
        }
        blocks.close().await.unwrap();
        session.close().await;
    }

    /// Everything that was acknowledged is there, once, and nothing that nobody has written.
    fn judge(&self, accounts: &BTreeMap<usize, Account>) {
        let blocks = fs::read(self.file("blocks")).unwrap();
        assert_eq!(blocks.len(), WRITERS * BLOCKS * BLOCK_LEN);
        for (&writer, account) in accounts {
            let log = fs::read(self.file(&log_name(writer))).unwrap();
            account.judge_log(writer, &log);
            for (block, &round) in account.blocks.iter().enumerate() {
                let start = (writer * BLOCKS + block) * BLOCK_LEN;
                let is_whole = blocks[start..start + BLOCK_LEN] == filling(writer, round);
                assert!(is_whole, "writer {writer} has lost block {block} of round {round}");
            }
        }
    }
}

/// Writers at work.
struct Crew {
    stop: CancellationToken,
    writing: JoinSet<(usize, Account)>,
    progress: Vec<watch::Receiver<u64>>,
    sessions: Vec<Session>,
}

impl Crew {
    /// Waits until a writer has done so many more rounds.
    async fn until(&mut self, writer: usize, more: u64) {
        let progress = &mut self.progress[writer];
        let goal = *progress.borrow_and_update() + more;
        match timeout(LONG, progress.wait_for(|rounds| *rounds >= goal)).await {
            Ok(reached) => drop(reached.unwrap_or_else(|_| panic!("writer {writer} has failed"))),
            Err(_) => panic!("writer {writer} does not get to round {goal}"),
        }
    }

    /// Waits until each writer goes on: what was on its way at a kill counts for nothing.
    async fn until_all(&mut self) {
        for writer in 0..WRITERS {
            self.until(writer, 2).await;
        }
    }

    /// Lets each writer finish its round, and gets their accounts.
    async fn end(mut self) -> BTreeMap<usize, Account> {
        self.stop.cancel();
        let mut accounts = BTreeMap::new();
        while let Some(ended) = timeout(LONG, self.writing.join_next()).await.unwrap() {
            let (writer, account) = ended.unwrap();
            accounts.insert(writer, account);
        }
        for session in self.sessions {
            session.close().await;
        }
        assert_eq!(accounts.len(), WRITERS);
        accounts
    }
}

struct Writer {
    at: usize,
    log: File,
    blocks: File,
    account: Account,
    progress: watch::Sender<u64>,
}

/// What a writer was told.
#[derive(Default)]
struct Account {
    round: u64,
    /// The records that were acknowledged, each with its place.
    acknowledged: BTreeMap<u64, u64>,
    /// The records of which nobody knows whether they were written.
    unknown: Vec<u64>,
    /// The round that wrote each block last.
    blocks: [u64; BLOCKS],
}

impl Writer {
    async fn round(&mut self) {
        let Self { at, log, blocks, account, .. } = self;
        account.round += 1;
        let round = account.round;
        match log.append(&record(*at, round)).await {
            Ok(offset) => drop(account.acknowledged.insert(round, offset)),
            Err(error) if error.reason() == Some(Reason::Unknown) => account.unknown.push(round),
            Err(error) => panic!("writer {at}, round {round}: {error}"),
        }
        let block = usize::try_from(round).unwrap() % BLOCKS;
        let offset = region(*at).start() + u64::try_from(block * BLOCK_LEN).unwrap();
        blocks.write_at(offset, &filling(*at, round)).await.unwrap();
        account.blocks[block] = round;
        if round.is_multiple_of(SYNC_EVERY) {
            log.sync(SyncScope::Data).await.unwrap();
            blocks.sync(SyncScope::Data).await.unwrap();
        }
        self.progress.send_replace(round);
    }

    async fn end(mut self) -> (usize, Account) {
        // Each block is one that somebody has written.
        while self.account.blocks.contains(&0) {
            self.round().await;
        }
        self.log.close().await.unwrap();
        self.blocks.close().await.unwrap();
        (self.at, self.account)
    }
}

impl Account {
    fn judge_log(&self, writer: usize, log: &[u8]) {
        assert_eq!(log.len() % RECORD_LEN, 0, "writer {writer}");
        let mut seen = BTreeMap::new();
        for (at, bytes) in log.chunks(RECORD_LEN).enumerate() {
            let round: u64 = std::str::from_utf8(&bytes[8..RECORD_LEN - 1]).unwrap().parse().unwrap();
            assert_eq!(bytes, record(writer, round), "writer {writer}");
            let offset = u64::try_from(at * RECORD_LEN).unwrap();
            let earlier = seen.insert(round, offset);
            assert_eq!(earlier, None, "writer {writer}: record {round} was written twice");
        }
        for (round, offset) in &self.acknowledged {
            assert_eq!(seen.remove(round), Some(*offset), "writer {writer}: record {round} was acknowledged");
        }
        for round in seen.keys() {
            assert!(self.unknown.contains(round), "writer {writer}: nobody knows of record {round}");
        }
    }
}

fn log_name(writer: usize) -> String {
    format!("log-{writer}")
}

/// The range that a writer has locked.
fn region(writer: usize) -> ByteRange {
    let len = u64::try_from(BLOCKS * BLOCK_LEN).unwrap();
    let start = u64::try_from(writer).unwrap() * len;
    ByteRange::between(start, start + len).unwrap()
}

fn record(writer: usize, round: u64) -> Vec<u8> {
    format!("writer-{writer}{round:0>23}\n").into_bytes()
}

/// A block that no other round and no other writer has.
fn filling(writer: usize, round: u64) -> Vec<u8> {
    record(writer, round).repeat(BLOCK_LEN / RECORD_LEN)
}

/// Numbers that are the same again for the same seed.
struct Dice(u64);

impl Dice {
    fn of_environment() -> Self {
        let seed = std::env::var("BOWLINE_SEED").map_or(0x6b11_15ed, |seed| seed.parse().unwrap());
        println!("BOWLINE_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_a_server_that_is_killed_again_and_again_under_eight_writers_loses_and_repeats_nothing() {
    let cycles = number("BOWLINE_KILL_CYCLES", 20);
    let mut dice = Dice::of_environment();
    let mut scene = Scene::start();
    let mut crew = scene.crew().await;
    let mut back_after = Vec::new();
    for _ in 0..cycles {
        let writer = usize::try_from(dice.below(8)).unwrap();
        crew.until(writer, 1 + dice.below(12)).await;
        scene.kill();
        scene.start_server();
        let listening = Instant::now();
        let back = async {
            crew.until_all().await;
            listening.elapsed()
        };
        // Also before they are back.
        let ((), elapsed) = tokio::join!(scene.contend(), back);
        back_after.push(elapsed);
    }
    let accounts = crew.end().await;
    scene.judge(&accounts);
    let count = |of: fn(&Account) -> usize| accounts.values().map(of).sum::<usize>();
    let acknowledged = count(|account| account.acknowledged.len());
    let unknown = count(|account| account.unknown.len());
    back_after.sort_unstable();
    let (median, longest) = (back_after[back_after.len() / 2], back_after[back_after.len() - 1]);
    println!(
        "{cycles} kills: {acknowledged} records acknowledged, {unknown} unknown; all writers back after {median:?} (median), {longest:?} (longest)"
    );
    assert!(acknowledged > 0 && median < Duration::from_secs(1), "{median:?}");
}

/// The moments at which a start is killed are random, from before it has read anything to after it has let everybody in.
#[tokio::test(flavor = "multi_thread")]
async fn f41_a_server_that_is_killed_while_it_recovers_again_and_again_has_everything_at_last() {
    let mut dice = Dice::of_environment();
    let mut scene = Scene::start();
    let mut crew = scene.crew().await;
    crew.until_all().await;
    scene.kill();
    let mut early = 0;
    for _ in 0..20 {
        let epoch = scene.epoch();
        let piped = Stdio::piped;
        let mut server = scene.command().stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        tokio::time::sleep(Duration::from_micros(dice.below(30_000))).await;
        server.kill().unwrap();
        let is_silent = server.wait_with_output().unwrap().stdout.is_empty();
        early += usize::from(is_silent && scene.epoch() > epoch);
    }
    println!("{early} of 20 starts were killed when they had their table and did not listen yet");
    assert!(early > 0, "no start was killed while it recovered");
    scene.start_server();
    tokio::join!(scene.contend(), crew.until_all());
    scene.judge(&crew.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn f43_a_server_that_is_told_to_end_under_load_has_ended_within_five_seconds_and_lost_nothing() {
    let mut scene = Scene::start();
    let mut crew = scene.crew().await;
    for _ in 0..5 {
        crew.until_all().await;
        let told = Instant::now();
        let server = scene.server.take().unwrap();
        server.signal(Signal::TERM);
        let (status, _, log) = tokio::task::spawn_blocking(|| server.ended()).await.unwrap();
        let elapsed = told.elapsed();
        assert!(status.success() && elapsed < Duration::from_secs(5), "{status} after {elapsed:?}: {log:?}");
        assert_eq!(log, Vec::<String>::new(), "nothing went wrong");
        scene.start_server();
        tokio::join!(scene.contend(), crew.until_all());
    }
    scene.judge(&crew.end().await);
}

/// Where the server of [`f42_a_server_that_is_stopped_beyond_every_deadline`] has its things.
const SERVE_IN: &str = "BOWLINE_TEST_SERVE_IN";

fn short_deadlines() -> Limits {
    let mut limits = Limits::default();
    (limits.ping_after, limits.ping_idle_after) = (Duration::from_millis(100), Duration::from_millis(200));
    limits.dead_after_ping = Duration::from_millis(200);
    limits.handshake = Duration::from_millis(500);
    (limits.grace_default, limits.orphan_age_max) =
        (Duration::from_millis(1000), Duration::from_millis(1200));
    limits.rebind_max = Duration::from_millis(200);
    limits
}

/// The server process of another test; run by itself, it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_short_deadlines() {
    let Some(folder) = std::env::var_os(SERVE_IN).map(PathBuf::from) else { return };
    let settings = folder.join("config/bowline");
    let identity = Identity::from_text(&key_file::read(&settings.join("key")).unwrap()).unwrap();
    let exports = Exports::open([(EXPORT.parse().unwrap(), folder.join("data"))]).unwrap();
    let policy = load_clients(&settings.join("clients.toml")).unwrap();
    let mut config = ServerConfig::new(Arc::new(identity), exports, policy);
    config.listen = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse().unwrap()).to_vec();
    config.limits = short_deadlines();
    config.state = Some(StateConfig { folder: folder.join("state"), durability: Durability::Process });
    let server = bowline::server::Server::start(config).unwrap();
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    println!("listening on {}", addresses.join(" "));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    server.stop().await;
}

/// While it is stopped its clock goes on, beyond every deadline that it has given: what it owes to nobody but its own
/// silence it takes from nobody.
#[tokio::test(flavor = "multi_thread")]
async fn f42_a_server_that_is_stopped_beyond_every_deadline_goes_on_with_everybody_and_repeats_nothing() {
    let limits = short_deadlines();
    let scene = Scene::with_limits(Some(limits.clone()));
    let mut crew = scene.crew().await;
    crew.until_all().await;
    let mut events: Vec<_> = crew.sessions.iter().map(Session::events).collect();
    let ids: Vec<_> = crew.sessions.iter().map(Session::id).collect();
    scene.server().signal(Signal::STOP);
    let stopped = Instant::now();
    for events in &mut events {
        // Clients look for it in vain all the time.
        let mut is_lost = false;
        while !is_lost || stopped.elapsed() < (limits.grace_default + limits.orphan_age_max) * 2 {
            is_lost |= timeout(LONG, events.recv()).await.unwrap().unwrap() == SessionEvent::Lost;
        }
    }
    // Those who want the files wait before the door as well.
    let contending = async {
        scene.server().signal(Signal::CONT);
        scene.contend().await;
    };
    tokio::join!(contending, crew.until_all());
    assert_eq!(crew.sessions.iter().map(Session::id).collect::<Vec<_>>(), ids, "nobody was forgotten");
    let accounts = crew.end().await;
    assert!(accounts.values().all(|account| account.unknown.is_empty()), "each append has its answer");
    scene.judge(&accounts);
}
