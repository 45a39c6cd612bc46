//! A flood of garbage hellos beside a client that sets up sessions and one that transfers: what a rejection costs the
//! server, and what the two notice.
//!
//! `cargo bench --bench flood` measures; `BOWLINE_FLOOD_SECONDS` sets how long each flood lasts, `BOWLINE_FLOOD_RATE` how
//! many hellos a second are tried. Server and attacker have processes of their own. Without `--bench`, as `cargo test`
//! runs it, the program does nothing. Machines are shared, so nothing is asserted unless `BOWLINE_FLOOD_ASSERT=1` is
//! set: a bar that is missed is then named, and the exit code says so. docs/performance.md says what was found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a benchmark stops where it fails, reads the clock, and counts in floating point"
)]

#[path = "flood/attacker.rs"]
mod attacker;
#[path = "flood/rejection.rs"]
mod rejection;
#[path = "flood/usage.rs"]
mod usage;
#[path = "flood/victims.rs"]
mod victims;

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bowline::model::PublicKey;
use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use usage::Usage;
use victims::Victims;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What marks this program's second run, and what it is then.
const SERVER: &str = "--as-flood-server-of";
const ATTACKER: &str = "--as-attacker-of";
const BARE: &str = "--as-bare-server";

/// A flood: what is sent, and from how many source networks.
struct Flood {
    what: &'static str,
    kind: attacker::Kind,
    networks: u32,
}

const FLOODS: [Flood; 4] = [
    Flood { what: "few networks, no token left", kind: attacker::Kind::Unchecked, networks: 4 },
    Flood { what: "random bytes, 2,000 networks", kind: attacker::Kind::Random, networks: 2000 },
    Flood { what: "wrong check, 2,000 networks", kind: attacker::Kind::Unchecked, networks: 2000 },
    Flood { what: "right check, no Noise, 16 networks", kind: attacker::Kind::NoNoise, networks: 16 },
];

/// How often all floods come: what one of them leaves, the same one must not leave twice.
const PASSES: usize = 3;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [SERVER, folder] => serve(Path::new(folder)),
        [BARE] => serve_bare(),
        [ATTACKER, address, key, kind, networks, rate, seconds] => {
            let made = attacker::attack(
                address.parse()?,
                &key.parse()?,
                attacker::Kind::named(kind).ok_or("no such kind")?,
                (networks.parse()?, rate.parse()?),
                Duration::from_secs(seconds.parse()?),
            );
            println!("{made}");
            Ok(())
        }
        _ if arguments.iter().any(|argument| argument == "--bench") => run(),
        _ => {
            println!("nothing is measured without --bench");
            Ok(())
        }
    }
}

fn run() -> Outcome<()> {
    let (seconds, rate) = (number("BOWLINE_FLOOD_SECONDS", 10)?, number("BOWLINE_FLOOD_RATE", 20_000)?);
    println!("{} cores", std::thread::available_parallelism()?);
    rejection::measure()?;
    rejection::measure_gate();
    let folder = tempfile::Builder::new().prefix("bowline-bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (own, client) = (new_identity()?, new_identity()?);
    key_file::create(&folder.path().join("server.key"), &own.to_text())?;
    let entry = format!(
        "[[client]]\nkey = \"{}\"\nname = \"bench\"\nexports = [\"data\"]\nrights = [\"read\", \"write\"]\n",
        client.public()
    );
    std::fs::write(folder.path().join("clients.toml"), entry)?;
    std::fs::create_dir(folder.path().join("data"))?;
    std::fs::write(folder.path().join("data/file"), vec![0x5a; 64 << 20])?;
    let server = start(&[SERVER, folder.path().to_str().ok_or("a strange folder")?])?;
    let (child, address): (Child, SocketAddr) = (server.0, server.1.trim().parse()?);
    let pid = child.id();
    let runtime = Runtime::new()?;
    let victims = Victims::start(&runtime, client, own.public(), address)?;
    let mut missed = Vec::new();

    println!("{seconds} s each, {rate} hellos/s wanted; a transfer paced at 50 MB/s beside it\n");
    println!(
        "| flood | hellos/s | user us/hello | all us/hello | set-ups | failed | p50 ms | p99 ms | transfer | RSS MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let length = Duration::from_secs(seconds);
    // The first pass brings everything up to temperature, and is not counted.
    victims.watch(&runtime, pid, Duration::from_secs(2))?;
    let calm = victims.watch(&runtime, pid, length)?;
    row("none", 0.0, &calm, &calm, seconds);
    let mut peaks = Vec::new();
    for pass in 1..=PASSES {
        let mut peak: f64 = 0.0;
        for flood in &FLOODS {
            let attacker = attack(flood, address, &own.public(), rate, seconds)?;
            let seen = victims.watch(&runtime, pid, length)?;
            let made: f64 = std::io::read_to_string(attacker.stdout.ok_or("no output")?)?.trim().parse()?;
            row(&format!("{}, pass {pass}", flood.what), made, &seen, &calm, seconds);
            missed.extend(flood.missed(made, &seen, &calm));
            peak = peak.max(seen.rss_peak);
        }
        peaks.push(peak);
    }
    bare(&own.public(), rate, seconds)?;
    let after = Usage::of(pid)?.rss_mib;
    println!("\nRSS of the server: {:.1} MiB before, {after:.1} when it is over", calm.rss_before);
    println!("the most in each pass over all floods: {peaks:.1?} MiB");
    if after - calm.rss_before > 16.0 {
        missed.push(format!("{:.1} MiB of memory have stayed", after - calm.rss_before));
    }
    drop(victims);
    end(child);
    if number("BOWLINE_FLOOD_ASSERT", 0)? != 0 && !missed.is_empty() {
        return Err(format!("bars missed: {}", missed.join("; ")).into());
    }
    Ok(())
}

impl Flood {
    /// The bars that were missed, in words.
    fn missed(&self, made: f64, seen: &victims::Seen, calm: &victims::Seen) -> Vec<String> {
        let mut missed = Vec::new();
        let user = (seen.usage.user - calm.usage.user) * 1e6 / made;
        if self.networks <= 4 && user >= 5.0 {
            missed.push(format!("{}: {user:.1} us of user time for each that is turned away", self.what));
        }
        let p99 = seen.percentile(99);
        // Not a number where no set-up came through at all.
        if p99.is_nan() || p99 >= 500.0 {
            missed.push(format!("{}: set-ups at p99 took {p99:.1} ms", self.what));
        }
        let transfer = 100.0 * seen.bytes as f64 / calm.bytes as f64;
        if transfer <= 90.0 {
            missed.push(format!("{}: the transfer went at {transfer:.0} %", self.what));
        }
        missed
    }
}

/// What is above the calm is the flood's.
fn row(what: &str, made: f64, seen: &victims::Seen, calm: &victims::Seen, seconds: u64) {
    let each = |all: f64, calm: f64| if made > 0.0 { (all - calm) * 1e6 / made } else { 0.0 };
    let (user, system) = (seen.usage.user - calm.usage.user, seen.usage.system - calm.usage.system);
    println!(
        "| {what} | {:.0} | {:.1} | {:.1} | {} | {} | {:.1} | {:.1} | {:.0} % | {:.1} / {:.1} |",
        made / seconds as f64,
        each(user, 0.0),
        each(user + system, 0.0),
        seen.setups.len(),
        seen.failed,
        seen.percentile(50),
        seen.percentile(99),
        100.0 * seen.bytes as f64 / calm.bytes as f64,
        seen.rss_before,
        seen.rss_peak,
    );
}

fn attack(flood: &Flood, address: SocketAddr, key: &PublicKey, rate: u64, seconds: u64) -> Outcome<Child> {
    let (address, key) = (address.to_string(), key.to_string());
    let (networks, rate, seconds) = (flood.networks.to_string(), rate.to_string(), seconds.to_string());
    let arguments = [ATTACKER, &address, &key, flood.kind.name(), &networks, &rate, &seconds];
    Ok(Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// This program again, and the first line that it prints.
fn start(arguments: &[&str]) -> Outcome<(Child, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first)?;
    Ok((child, first))
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    // A child that is gone already is what is wanted.
    drop(child.wait());
}

fn serve(folder: &Path) -> Outcome<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let identity = Identity::from_text(&key_file::read(&folder.join("server.key"))?)?;
        let exports = Exports::open([("data".parse()?, folder.join("data"))])?;
        let policy = parse_clients(&std::fs::read_to_string(folder.join("clients.toml"))?)?;
        let config = ServerConfig::new(Arc::new(identity), exports, policy);
        let server = Server::start(ServerConfig { listen: vec!["127.0.0.1:0".parse()?], ..config })?;
        println!("{}", server.addresses()[0]);
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        eprintln!("the server's own account: {:?}", server.gate());
        server.stop().await;
        Outcome::Ok(())
    })?;
    // A thread waits for standard input, and it has closed.
    runtime.shutdown_background();
    Ok(())
}

/// What the kernel alone takes for the same connections.
fn bare(key: &PublicKey, rate: u64, seconds: u64) -> Outcome<()> {
    let (child, address) = start(&[BARE])?;
    let before = Usage::of(child.id())?;
    let attacker = attack(&FLOODS[2], address.trim().parse()?, key, rate, seconds)?;
    let made: f64 = std::io::read_to_string(attacker.stdout.ok_or("no output")?)?.trim().parse()?;
    let used = Usage::of(child.id())?.since(before);
    let each = |all: f64| all * 1e6 / made;
    println!(
        "\na bare loop of accept and close: {:.0} hellos/s, {:.1} us user and {:.1} us in all for each",
        made / seconds as f64,
        each(used.user),
        each(used.user + used.system)
    );
    end(child);
    Ok(())
}

/// Accepts and closes, until its standard input closes.
fn serve_bare() -> Outcome<()> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(1024)?;
    let listener = std::net::TcpListener::from(socket);
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || listener.incoming().for_each(drop));
    std::io::read_to_string(std::io::stdin())?;
    Ok(())
}

fn number(name: &str, default: u64) -> Outcome<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}={text}: {error}").into()),
        Err(_) => Ok(default),
    }
}

fn new_identity() -> Outcome<Arc<Identity>> {
    Ok(Arc::new(Identity::generate(&mut SystemEntropy)?))
}
