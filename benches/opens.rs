//! What opens cost that outlive their server: how many a second, how long after a start they are back, how long an
//! unrelated file takes then, and what each takes of the server's memory.
//!
//! The server is a process of its own, so that it can be killed and its memory read. `BOWLINE_BENCH_OPENS` is the number
//! of opens of the larger restart (10,000), `BOWLINE_BENCH_MANY` that of opens over all (100,000).
#![expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a benchmark that goes wrong may end"
)]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::client::{Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{LineSet, PublicKey, ResumeKey};
use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

#[path = "opens/server.rs"]
mod server;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Requests that a client has under way at once.
const IN_FLIGHT: usize = 64;

fn main() -> Outcome<()> {
    if let Some(folder) = server::asked_for() {
        return server::serve(&folder);
    }
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        println!("| durable opens | in flight | opens/s |\n| --- | --- | --- |");
        for durability in ["process", "machine"] {
            for in_flight in [1, IN_FLIGHT] {
                let rate = rate(durability, in_flight).await?;
                println!("| {durability} | {in_flight} | {rate:.0} |");
            }
        }
        println!("\n| opens | back after the start, s | the first of them | an unrelated file |\n| --- | --- | --- | --- |");
        for opens in [1000, number("BOWLINE_BENCH_OPENS", 10_000)?] {
            let [all, first, unrelated] = restart(opens).await?;
            println!("| {opens} | {all:.2} | {first:.3} | {unrelated:.3} |");
        }
        memory().await?;
        many(number("BOWLINE_BENCH_MANY", 100_000)?).await
    })
}

/// A server process and the clients that it knows.
struct World {
    folder: tempfile::TempDir,
    server: PublicKey,
    clients: Vec<Arc<Identity>>,
    durability: &'static str,
    child: Child,
    address: SocketAddr,
}

impl World {
    fn start(durability: &'static str, clients: usize, files: usize) -> Outcome<Self> {
        let folder = match std::env::var_os("BOWLINE_BENCH_DIR") {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
        };
        std::fs::create_dir(folder.path().join("data"))?;
        for file in 0..files {
            std::fs::write(folder.path().join("data").join(file.to_string()), b"content")?;
        }
        let server = Identity::generate(&mut SystemEntropy)?;
        key_file::create(&folder.path().join("server.key"), &server.to_text())?;
        let clients = (0..clients)
            .map(|_| Ok(Arc::new(Identity::generate(&mut SystemEntropy)?)))
            .collect::<Outcome<Vec<_>>>()?;
        let entry = |(at, client): (usize, &Arc<Identity>)| {
            format!(
                "[[client]]\nkey = \"{}\"\nname = \"client-{at}\"\nexports = [\"data\"]\nrights = [\"read\", \"write\", \"lock\"]\n",
                client.public()
            )
        };
        let list: String = clients.iter().enumerate().map(entry).collect();
        std::fs::write(folder.path().join("clients.toml"), list)?;
        let (child, address) = spawn(folder.path(), durability, "127.0.0.1:0")?;
        Ok(Self { folder, server: server.public(), clients, durability, child, address })
    }

    async fn session(&self, client: usize) -> Outcome<Session> {
        let peer = Peer {
            name: "server".into(),
            key: self.server,
            protection_min: None,
            lines: vec![LineConfig::new(self.address)],
        };
        Ok(Client::new(Arc::clone(&self.clients[client]))?.connect(&peer).await?)
    }

    /// Kills the server and starts it again; says when that was.
    fn restart(&mut self) -> Outcome<Instant> {
        self.child.kill()?;
        self.child.wait()?;
        let begin = Instant::now();
        (self.child, self.address) = spawn(self.folder.path(), self.durability, &self.address.to_string())?;
        Ok(begin)
    }

    fn rss_kib(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(rss.ok_or("no VmRSS")?.parse()?)
    }

    fn descriptors(&self) -> Outcome<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(folder: &Path, durability: &str, listen: &str) -> Outcome<(Child, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([server::ARGUMENT, durability, listen])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first)?;
    Ok((child, first.trim().parse()?))
}

fn options() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

/// Runs `count` pieces of work, `in_flight` at a time, and collects what comes of them.
async fn run<T: Send + 'static, F>(
    count: usize,
    in_flight: usize,
    work: impl Fn(usize) -> F,
) -> Outcome<Vec<T>>
where
    F: Future<Output = Outcome<T>> + Send + 'static,
{
    let (mut tasks, mut done) = (JoinSet::new(), Vec::with_capacity(count));
    for at in 0..count {
        if tasks.len() >= in_flight
            && let Some(outcome) = tasks.join_next().await
        {
            done.push(outcome??);
        }
        tasks.spawn(work(at));
    }
    while let Some(outcome) = tasks.join_next().await {
        done.push(outcome??);
    }
    Ok(done)
}

async fn open(session: &Session, count: usize, in_flight: usize, files: usize) -> Outcome<Vec<File>> {
    run(count, in_flight, |at| {
        let session = session.clone();
        async move { Ok(session.open("data", (at % files).to_string(), &options()).await?) }
    })
    .await
}

/// Durable opens a second: opened, with a key, and not closed.
async fn rate(durability: &'static str, in_flight: usize) -> Outcome<f64> {
    let world = World::start(durability, 1, 100)?;
    let session = world.session(0).await?;
    open(&session, 50, in_flight, 100).await?;
    let count = if in_flight == 1 { 500 } else { 5000 };
    let begin = Instant::now();
    let files = open(&session, count, in_flight, 100).await?;
    let took = begin.elapsed().as_secs_f64();
    drop(files);
    Ok(count as f64 / took)
}

/// Seconds from the start of a server until all opens are back, until the first is, and for a file nobody had open.
async fn restart(opens: usize) -> Outcome<[f64; 3]> {
    let mut world = World::start("process", 2, 101)?;
    let session = world.session(0).await?;
    let files = open(&session, opens, IN_FLIGHT, 100).await?;
    let keys: Vec<ResumeKey> = files.iter().filter_map(File::kept_key).collect();
    if keys.len() != opens {
        return Err(format!("{} keys for {opens} opens", keys.len()).into());
    }
    let begin = world.restart()?;
    let other = world.session(1).await?;
    other.open("data", "100", &options()).await?;
    let unrelated = begin.elapsed();
    let heir = world.session(0).await?;
    let keys = Arc::new(keys);
    let back = run(opens, IN_FLIGHT, |at| {
        let (heir, keys) = (heir.clone(), Arc::clone(&keys));
        async move {
            let file = heir.resume(&keys[at], LineSet::ALL).await?;
            if at == 0 {
                file.read_at(0, &mut [0; 7]).await?;
            }
            Ok((at, begin.elapsed(), file))
        }
    })
    .await?;
    let all = begin.elapsed();
    let first = back.iter().map(|(_, at, _)| *at).min().unwrap_or_default();
    Ok([all, first, unrelated].map(|span: Duration| span.as_secs_f64()))
}

/// What the server takes for each open that is held, for each orphan, and for each idle session.
async fn memory() -> Outcome<()> {
    const OPENS: usize = 10_000;
    let world = World::start("process", 1, 100)?;
    let session = world.session(0).await?;
    let warm = open(&session, 200, IN_FLIGHT, 100).await?;
    let before = world.rss_kib()?;
    let files = open(&session, OPENS - 200, IN_FLIGHT, 100).await?;
    let held = world.rss_kib()?;
    drop((warm, files));
    session.close().await;
    let away = world.rss_kib()?;
    let each = |kib: u64| kib.saturating_sub(before) as f64 * 1024.0 / (OPENS - 200) as f64;
    println!("\nmemory: {:.0} bytes for each held open, {:.0} for each orphan", each(held), each(away));
    let world = World::start("process", 60, 1)?;
    let warm = world.session(0).await?;
    warm.all_lines_up(Duration::from_secs(10)).await?;
    let before = world.rss_kib()?;
    let mut sessions = vec![warm];
    for client in 1..60 {
        let session = world.session(client).await?;
        session.all_lines_up(Duration::from_secs(10)).await?;
        sessions.push(session);
    }
    let each = world.rss_kib()?.saturating_sub(before) as f64 / 59.0;
    println!("memory: {each:.1} KiB for each idle session with two channels");
    Ok(())
}

/// Very many opens of many clients, and the descriptors that they have.
async fn many(opens: usize) -> Outcome<()> {
    let clients = opens.div_ceil(10_000).max(1);
    let world = World::start("process", clients, 1000)?;
    let before = world.rss_kib()?;
    let mut sessions = Vec::new();
    let begin = Instant::now();
    for client in 0..clients {
        let session = world.session(client).await?;
        let files = open(&session, opens / clients, IN_FLIGHT, 1000).await?;
        sessions.push((session, files));
    }
    let took = begin.elapsed().as_secs_f64();
    let descriptors = world.descriptors()?;
    let each = world.rss_kib()?.saturating_sub(before) as f64 * 1024.0 / opens as f64;
    // Every one of them is usable, whichever have a descriptor.
    let step = (opens / clients / 100).max(1);
    let mut read = 0_usize;
    for (_, files) in &sessions {
        for file in files.iter().step_by(step) {
            read += file.read_at(0, &mut [0; 7]).await?;
        }
    }
    println!(
        "\n{opens} opens of {clients} clients in {took:.1} s: {descriptors} descriptors, {each:.0} bytes of memory each; {read} bytes read through some of them"
    );
    Ok(())
}

fn number(name: &str, default: usize) -> Outcome<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}={text}: {error}").into()),
        Err(_) => Ok(default),
    }
}
