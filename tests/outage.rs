//! Outages as networks have them: two lines over interfaces of their own between a client and a server process in
//! network name spaces of their own, and what becomes of calls when an interface is silent, hears and is not heard, loses
//! its address or is gone. And what each line carries while nothing of that happens and each is as fast as the other.
//!
//! A test starts itself again inside `unshare`, where it may do with interfaces what it likes. Where a user may not have
//! that, or `ip` is missing, it says so in a line.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a panic fails the test, and how long an outage is felt is measured"
)]

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{ChannelState, Client, File, LineConfig, OpenOptions, Peer, Session, SessionEvent};
use bowline::model::{ChannelKind, Limits, LineId, LineRole, PublicKey, SyncScope};
use bowline::net::Via;
use bowline::secure::Identity;
use program::{User, export, finish, finish_child, peer_entry};
use support::{EXPORT, LONG, new_identity, pattern};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout};

/// Set where a test is in a network of its own.
const INSIDE: &str = "BOWLINE_TEST_IN_A_NETWORK";
const WRITERS: u8 = 8;
const BLOCK_LEN: usize = 4096;

/// Starts the test again in a network of its own, and waits for its end. True inside of it.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "--"]);
        unshare
    };
    let probe = unshare().args(["ip", "link", "add", "c1", "type", "veth", "peer", "name", "s1"]).output();
    if !probe.is_ok_and(|done| done.status.success()) {
        println!("skipped {test}: it needs unshare, ip and user name spaces");
        return false;
    }
    let mut again = unshare();
    again.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    // What waits in there has its own bounds.
    let done = again.stdin(Stdio::null()).output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{out}\n{}", String::from_utf8_lossy(&done.stderr));
    out.lines().filter(|line| line.starts_with(test)).for_each(|line| println!("{line}"));
    false
}

fn run(command: &mut Command) {
    let done = finish(command);
    assert!(done.status.success(), "{command:?}: {}", done.err);
}

/// `ip` in the client's network, which is the test's own.
fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

/// A server process behind two lines.
struct Network {
    store: User,
    /// A user of the program, whom the server knows as well.
    station: User,
    child: Child,
    listen: Vec<SocketAddr>,
    key: PublicKey,
    client: Arc<Identity>,
}

impl Network {
    fn start() -> Self {
        let store = User::new();
        let key: PublicKey = store.make_key().parse().unwrap();
        let (client, station) = (new_identity(), User::new());
        let entry = |name: &str, key: String| {
            format!(
                "[[client]]\nkey = \"{key}\"\nname = \"{name}\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\", \"lock\"]\n"
            )
        };
        let known = entry("client", client.public().to_string()) + &entry("station", station.make_key());
        store.set("clients.toml", &known);
        fs::create_dir(store.at("data")).unwrap();
        fs::write(store.at("data/log"), b"").unwrap();
        fs::write(store.at("data/file"), vec![0; usize::from(WRITERS) * BLOCK_LEN]).unwrap();
        let serve = ["--no-admin-socket", "--until-stdin-closes", "--listen", "10.77.1.2:0", "10.77.2.2:0"];
        let bowline = store.command(&serve);
        // It waits for its interfaces, which need it to be there.
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; read go; exec \"$0\" serve \"$@\""]);
        command.arg(bowline.get_program()).arg(export(EXPORT, &store.at("data"))).args(bowline.get_args());
        for (name, value) in bowline.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(out.next().unwrap().unwrap(), "ready");
        ip("link set lo up");
        let mut network = Self { store, station, child, listen: Vec::new(), key, client };
        for line in [1, 2] {
            network.plug(line, 1);
        }
        network.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let listening = out.next().unwrap().unwrap();
        let addresses = listening.strip_prefix("listening on ").unwrap().split(' ');
        network.listen = addresses.map(|address| address.parse().unwrap()).collect();
        std::thread::spawn(move || out.for_each(drop));
        network
    }

    /// `ip` in the server's network.
    fn server_ip(&self, arguments: &str) {
        let pid = self.child.id().to_string();
        run(Command::new("nsenter").args(["--net", "--target", &pid, "ip"]).args(arguments.split(' ')));
    }

    /// A cable between both, with this address at the client's end.
    fn plug(&self, line: u8, host: u8) {
        ip(&format!("link add c{line} type veth peer name s{line} netns {}", self.child.id()));
        self.server_ip(&format!("addr add 10.77.{line}.2/24 dev s{line}"));
        self.server_ip(&format!("link set s{line} up"));
        ip(&format!("addr add 10.77.{line}.{host}/24 dev c{line}"));
        ip(&format!("link set c{line} up"));
    }

    /// What the server says on a line is heard by nobody.
    fn mute(&self, line: u8, is_mute: bool) {
        let neighbour = format!("10.77.{line}.1 dev s{line}");
        match is_mute {
            true => {
                self.server_ip(&format!("neigh replace {neighbour} lladdr 02:00:00:00:00:01 nud permanent"))
            }
            false => self.server_ip(&format!("neigh del {neighbour}")),
        }
    }

    /// What the client says on a line is heard by nobody.
    fn gag(&self, line: u8, is_gagged: bool) {
        let neighbour = format!("10.77.{line}.2 dev c{line}");
        match is_gagged {
            true => ip(&format!("neigh replace {neighbour} lladdr 02:00:00:00:00:01 nud permanent")),
            false => ip(&format!("neigh del {neighbour}")),
        }
    }

    /// A session whose lines each have an interface of their own, and which finds out soon that one is silent.
    async fn connect(&self) -> Session {
        let lines = self.listen.iter().zip(["c1", "c2"]).map(|(&address, interface)| LineConfig {
            address,
            via: Some(Via::Interface(interface.into())),
            role: LineRole::Both,
            protection: None,
        });
        let peer = Peer { name: "store".into(), key: self.key, protection_min: None, lines: lines.collect() };
        let client = Client::new(Arc::clone(&self.client)).unwrap().with_limits(limits());
        let session = client.with_request_timeout(LONG).connect(&peer).await.unwrap();
        session.all_lines_up(LONG).await.unwrap();
        session
    }

    async fn open(&self, session: &Session) -> Work {
        let options = OpenOptions::new().read(true).write(true);
        let file = session.open(EXPORT, "file", &options).await.unwrap();
        let log = session.open(EXPORT, "log", &options).await.unwrap();
        Work { file: Arc::new(file), log: Arc::new(log), round: 0 }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if std::thread::panicking() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

/// A client's, which finds out soon that a line is silent.
fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.ping_after, limits.dead_after_ping) = (Duration::from_millis(100), Duration::from_millis(300));
    (limits.ping_idle_after, limits.handshake) = (Duration::from_millis(300), Duration::from_millis(500));
    limits.rebind_max = Duration::from_millis(200);
    limits
}

/// Eight writers, round after round.
struct Work {
    file: Arc<File>,
    log: Arc<File>,
    round: u64,
}

impl Work {
    /// Each writer appends a record of its own and writes its block, all at once. The longest that one of them took.
    async fn round(&mut self) -> Duration {
        self.round += 1;
        let round = self.round;
        let writers = (0..WRITERS).map(|writer| {
            let (file, log) = (Arc::clone(&self.file), Arc::clone(&self.log));
            tokio::spawn(async move {
                let began = Instant::now();
                log.append(&record(writer, round)).await.unwrap();
                let offset = u64::from(writer) * u64::try_from(BLOCK_LEN).unwrap();
                file.write_at(offset, &record(writer, round).repeat(BLOCK_LEN / 16)).await.unwrap();
                began.elapsed()
            })
        });
        let mut longest = Duration::ZERO;
        for writer in writers.collect::<Vec<_>>() {
            longest = longest.max(timeout(LONG, writer).await.unwrap().unwrap());
        }
        longest
    }

    /// Everything is there that was acknowledged, and once.
    async fn judge(self, network: &Network) {
        self.file.sync(SyncScope::Data).await.unwrap();
        let log = fs::read(network.store.at("data/log")).unwrap();
        let records: BTreeSet<&[u8]> = log.chunks(16).collect();
        let expected = usize::from(WRITERS) * usize::try_from(self.round).unwrap();
        assert_eq!((records.len(), log.len() / 16), (expected, expected), "each append is there once");
        let file = fs::read(network.store.at("data/file")).unwrap();
        for (writer, block) in (0..WRITERS).zip(file.chunks(BLOCK_LEN)) {
            assert!(block == record(writer, self.round).repeat(BLOCK_LEN / 16), "{writer}");
        }
    }
}

fn record(writer: u8, round: u64) -> Vec<u8> {
    format!("{writer:>4}{round:>11}\n").into_bytes()
}

/// Waits until no channel of a line is in use.
async fn lost(session: &Session, events: &mut Receiver<SessionEvent>, line: u8) {
    let is_on_it = |line_id: LineId| line_id == LineId(line - 1);
    while session.channels().iter().any(|one| is_on_it(one.line) && one.state == ChannelState::Live) {
        timeout(LONG, events.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_f24_a_line_that_is_silent_both_ways_or_one_way_costs_a_pause_and_repeats_nothing() {
    if !is_inside("f23_f24_a_line_that_is_silent_both_ways_or_one_way_costs_a_pause_and_repeats_nothing") {
        return;
    }
    let network = Network::start();
    let session = network.connect().await;
    let mut work = network.open(&session).await;
    work.round().await;
    for line in [1, 2] {
        for (gagged, mute) in [(true, true), (false, true), (true, false)] {
            let mut events = session.events();
            if gagged {
                network.gag(line, true);
            }
            if mute {
                network.mute(line, true);
            }
            // Some of it is under way on the line that is silent.
            let felt = work.round().await;
            println!(
                "f23_f24_a_line_that_is_silent_both_ways_or_one_way_costs_a_pause_and_repeats_nothing: line {line}, gagged {gagged}, mute {mute}: {felt:?}"
            );
            // A silent channel is asked for a sign of life and given up; the rest is for a busy machine.
            let found_out = limits().ping_idle_after + limits().dead_after_ping;
            assert!(felt < found_out + Duration::from_secs(1), "line {line}: {felt:?}");
            lost(&session, &mut events, line).await;
            work.round().await;
            if gagged {
                network.gag(line, false);
            }
            if mute {
                network.mute(line, false);
            }
            session.all_lines_up(LONG).await.unwrap();
            work.round().await;
        }
    }
    work.judge(&network).await;
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f25_a_client_that_comes_back_from_an_outage_with_other_addresses_goes_on() {
    if !is_inside("f25_a_client_that_comes_back_from_an_outage_with_other_addresses_goes_on") {
        return;
    }
    let network = Network::start();
    let session = network.connect().await;
    let id = session.id();
    let mut work = network.open(&session).await;
    work.round().await;
    for host in [7, 9] {
        let mut events = session.events();
        for line in [1, 2] {
            ip(&format!("link del c{line}"));
        }
        let pulling = async {
            while timeout(LONG, events.recv()).await.unwrap().unwrap() != SessionEvent::Lost {}
            // For as long as it takes until both lines have been tried in vain a few times.
            let mut failed = 0;
            while failed < 10 {
                let event = timeout(LONG, events.recv()).await.unwrap().unwrap();
                failed += usize::from(matches!(event, SessionEvent::LineFailed { .. }));
            }
            for line in [1, 2] {
                network.plug(line, host);
            }
        };
        tokio::join!(work.round(), pulling);
        session.all_lines_up(LONG).await.unwrap();
        work.round().await;
    }
    assert_eq!(session.id(), id, "it is the same session, from other addresses");
    work.judge(&network).await;
    session.close().await;
}

/// How long both lines are gone while the program copies, in seconds; a soak sets more than a request waits by itself.
fn outage() -> Duration {
    Duration::from_secs(std::env::var("BOWLINE_OUTAGE_SECONDS").map_or(1, |seconds| seconds.parse().unwrap()))
}

/// The program's copy of many files waits for as long as no line is there, with everything that it has asked for, and goes
/// on.
#[test]
fn f25_a_copy_stands_still_while_both_interfaces_are_gone_and_goes_on() {
    const FILES: usize = 96;
    let test = "f25_a_copy_stands_still_while_both_interfaces_are_gone_and_goes_on";
    if !is_inside(test) {
        return;
    }
    let network = Network::start();
    let station = &network.station;
    station.set("peers.toml", &peer_entry(&network.key.to_string(), &network.listen));
    let tree = network.store.at("data/tree");
    fs::create_dir(&tree).unwrap();
    for file in 0..FILES {
        fs::write(tree.join(file.to_string()), pattern((4 << 20) + file)).unwrap();
    }
    let (remote, local) = (|name: &str| format!("store:{EXPORT}/{name}"), |name: &str| station.at(name));
    for (from, to, target) in [
        (remote("tree"), local("tree").display().to_string(), local("tree")),
        (local("tree").display().to_string(), remote("again"), network.store.at("data/again")),
    ] {
        let mut command =
            station.command(&["cp", "-r", "--no-sync", "--via", "c1", "--via", "c2", &from, &to]);
        let copying = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = copying.spawn().unwrap();
        let complete = || {
            let names = fs::read_dir(&target).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.filter(|name| !name.as_encoded_bytes().starts_with(b".")).count()
        };
        let began = Instant::now();
        while complete() == 0 {
            assert!(
                began.elapsed() < LONG && child.try_wait().unwrap().is_none(),
                "the copy does not get on"
            );
            std::thread::yield_now();
        }
        for line in [1, 2] {
            ip(&format!("link del c{line}"));
        }
        let before = complete();
        // That it lasts is what is tested.
        std::thread::sleep(outage());
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        let after = complete();
        println!("{test}: {before} of {FILES} files before, {after} after {:?} without a line", outage());
        assert!(after < FILES, "it was over before the lines were gone");
        for line in [1, 2] {
            network.plug(line, 1);
        }
        let done = finish_child(child);
        assert!(done.status.success(), "{done:?}");
        for file in 0..FILES {
            let copied = fs::read(target.join(file.to_string())).unwrap();
            assert!(copied == pattern((4 << 20) + file), "{file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_an_address_or_an_interface_that_goes_while_it_is_used_takes_its_line_alone() {
    if !is_inside("f27_an_address_or_an_interface_that_goes_while_it_is_used_takes_its_line_alone") {
        return;
    }
    let network = Network::start();
    let session = network.connect().await;
    let mut work = network.open(&session).await;
    let content = pattern(4 << 20);
    fs::write(network.store.at("data/large"), &content).unwrap();
    let large = session.open(EXPORT, "large", &OpenOptions::new().read(true)).await.unwrap();
    for line in [1, 2] {
        for is_whole_interface in [false, true] {
            let mut events = session.events();
            let mut bytes = vec![0; content.len()];
            let taking = async {
                match is_whole_interface {
                    false => ip(&format!("addr del 10.77.{line}.1/24 dev c{line}")),
                    true => ip(&format!("link del c{line}")),
                }
            };
            let (read, (), _) = tokio::join!(large.read_at(0, &mut bytes), taking, work.round());
            assert_eq!(read.unwrap(), content.len());
            assert!(bytes == content, "line {line}, the whole interface: {is_whole_interface}");
            work.round().await;
            lost(&session, &mut events, line).await;
            match is_whole_interface {
                false => ip(&format!("addr add 10.77.{line}.1/24 dev c{line}")),
                true => network.plug(line, 1),
            }
            session.all_lines_up(LONG).await.unwrap();
            work.round().await;
        }
    }
    work.judge(&network).await;
    session.close().await;
}

/// What the lines carry decides, not who reads and writes: neither of them is as fast as this machine.
#[tokio::test(flavor = "multi_thread")]
async fn b10_two_lines_of_the_same_speed_carry_about_half_each() {
    let test = "b10_two_lines_of_the_same_speed_carry_about_half_each";
    if !is_inside(test) {
        return;
    }
    let network = Network::start();
    let shape = "qdisc add dev c1 root tbf rate 200mbit burst 256kb latency 100ms";
    if !Command::new("tc").args(shape.split(' ')).output().is_ok_and(|done| done.status.success()) {
        println!("{test}: skipped: it needs tc and a kernel with token buckets");
        return;
    }
    run(Command::new("tc").args(shape.replace("c1", "c2").split(' ')));
    let pid = network.child.id().to_string();
    for interface in ["s1", "s2"] {
        let shape = shape.replace("c1", interface);
        run(Command::new("nsenter").args(["--net", "--target", &pid, "tc"]).args(shape.split(' ')));
    }
    let content = pattern(32 << 20);
    fs::write(network.store.at("data/large"), &content).unwrap();
    let session = network.connect().await;
    let file = session.open(EXPORT, "large", &OpenOptions::new().read(true).write(true)).await.unwrap();
    let mut bytes = vec![0; content.len()];
    assert_eq!(file.read_at(0, &mut bytes).await.unwrap(), content.len());
    assert!(bytes == content);
    file.write_at(0, &content).await.unwrap();
    let channels = session.channels();
    let data = || channels.iter().filter(|channel| channel.kind == ChannelKind::Data);
    for carried in [
        data().map(|channel| channel.read_bytes).collect::<Vec<_>>(),
        data().map(|channel| channel.written_bytes).collect(),
    ] {
        println!("{test}: {carried:?}");
        let least = u64::try_from(content.len() * 2 / 5).unwrap();
        assert!(carried.len() == 2 && carried.iter().all(|&bytes| bytes >= least), "{carried:?}");
    }
    file.close().await.unwrap();
    session.close().await;
}
