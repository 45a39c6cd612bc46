//! What opens cost that outlive their server: how many a second, how long after a start they are back, how long an
//! unrelated file takes then, and what each takes of the server's memory.
//!
//! The server is a process of its own, so that it can be killed and its memory read. Every figure stands beside its floor
//! in the same round: what the database, the kernel or an empty server takes for the same. A row is the median of all
//! rounds, with least and most.
//!
//! `cargo bench --bench opens -- rate memory` measures only what is named: of `rate`, `restart`, `memory` and `many`.
//! `BOWLINE_BENCH_ROUNDS` is the number of rounds (5), `BOWLINE_BENCH_DIR` the folder of all files,
//! `BOWLINE_BENCH_OPENS` the number of opens of the larger restart (10,000), `BOWLINE_BENCH_MANY` that of opens over all
//! (100,000).
#![expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a benchmark that goes wrong may end"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::client::{File, OpenOptions, Session};
use bowline::model::{LineSet, ResumeKey};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use self::figures::Figures;
use self::world::World;

#[path = "opens/figures.rs"]
mod figures;
#[path = "opens/floor.rs"]
mod floor;
#[path = "opens/server.rs"]
mod server;
#[path = "opens/world.rs"]
mod world;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Requests that a client has under way at once.
const IN_FLIGHT: usize = 64;

fn main() -> Outcome<()> {
    if let Some(folder) = server::asked_for() {
        return server::serve(&folder);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    let rounds = number("BOWLINE_BENCH_ROUNDS", 5)?;
    Runtime::new()?.block_on(async {
        if is_wanted("rate") {
            rates(rounds).await?;
        }
        if is_wanted("restart") {
            restarts(rounds).await?;
        }
        if is_wanted("memory") {
            memory(rounds).await?;
        }
        if is_wanted("many") {
            many(number("BOWLINE_BENCH_MANY", 100_000)?).await?;
        }
        Ok(())
    })
}

fn options() -> OpenOptions {
    // Longer than any round takes.
    OpenOptions::new().read(true).write(true).grace(Duration::from_secs(300))
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

async fn open(
    session: &Session,
    options: &OpenOptions,
    (count, in_flight): (usize, usize),
    files: usize,
) -> Outcome<Vec<File>> {
    run(count, in_flight, |at| {
        let (session, options) = (session.clone(), options.clone());
        async move { Ok(session.open("data", (at % files).to_string(), &options).await?) }
    })
    .await
}

async fn rates(rounds: usize) -> Outcome<()> {
    println!(
        "| durable opens | in flight | opens/s | commits of as many records, records/s | of that | opens that are not durable, /s | of that |\n\
         | --- | --- | --- | --- | --- | --- | --- |"
    );
    let cases = [("process", 1), ("process", IN_FLIGHT), ("machine", 1), ("machine", IN_FLIGHT)];
    let mut figures: [[Figures; 5]; 4] = Default::default();
    for _ in 0..rounds {
        for (at, (durability, in_flight)) in cases.into_iter().enumerate() {
            let count = if in_flight == 1 { 500 } else { 10_000 };
            let durable = rate(durability, &options(), (count, in_flight)).await?;
            let not_durable = rate(durability, &options().resumable(false), (count, in_flight)).await?;
            let floor = floor::commits(durability == "machine", in_flight, count)?;
            let values = [durable, floor, durable / floor, not_durable, durable / not_durable];
            figures[at].iter_mut().zip(values).for_each(|(figures, value)| figures.push(value));
        }
    }
    for ((durability, in_flight), [opens, floor, of_floor, plain, of_plain]) in cases.iter().zip(&figures) {
        println!(
            "| {durability} | {in_flight} | {} | {} | {} | {} | {} |",
            opens.row(0),
            floor.row(0),
            of_floor.row(2),
            plain.row(0),
            of_plain.row(2)
        );
    }
    Ok(())
}

/// Opens a second, none of which is closed.
async fn rate(
    durability: &'static str,
    options: &OpenOptions,
    (count, in_flight): (usize, usize),
) -> Outcome<f64> {
    let world = World::start(durability, 1, 100)?;
    let session = world.session(0).await?;
    // The first ones warm up.
    drop(open(&session, options, (100, in_flight), 100).await?);
    let count = count - 100;
    let begin = Instant::now();
    let files = open(&session, options, (count, in_flight), 100).await?;
    let took = begin.elapsed().as_secs_f64();
    drop(files);
    Ok(count as f64 / took)
}

async fn restarts(rounds: usize) -> Outcome<()> {
    println!(
        "\n| opens | all back, s | floor, s | times the floor | the first, s | an unrelated file, s | with an empty table, s |\n\
         | --- | --- | --- | --- | --- | --- | --- |"
    );
    for opens in [1000, number("BOWLINE_BENCH_OPENS", 10_000)?] {
        let mut figures: [Figures; 6] = Default::default();
        for _ in 0..rounds {
            let [_, _, empty] = restart(0).await?;
            let [all, first, unrelated] = restart(opens).await?;
            let floor = floor::comeback(opens, IN_FLIGHT)?;
            let values = [all, floor, all / floor, first, unrelated, empty];
            figures.iter_mut().zip(values).for_each(|(figures, value)| figures.push(value));
        }
        let [all, floor, times, first, unrelated, empty] = figures;
        println!(
            "| {opens} | {} | {} | {} | {} | {} | {} |",
            all.row(2),
            floor.row(2),
            times.row(1),
            first.row(3),
            unrelated.row(3),
            empty.row(3)
        );
    }
    Ok(())
}

/// Seconds from the start of a server's program until all opens are back, until one of them was read from, and until a
/// file was open that nobody had open.
async fn restart(opens: usize) -> Outcome<[f64; 3]> {
    let mut world = World::start("process", 2, 101)?;
    let session = world.session(0).await?;
    let files = open(&session, &options(), (opens, IN_FLIGHT), 100).await?;
    let keys: Vec<ResumeKey> = files.iter().filter_map(File::kept_key).collect();
    if keys.len() != opens {
        return Err(format!("{} keys for {opens} opens", keys.len()).into());
    }
    // The client has died as well: nothing of it comes back by itself.
    files.into_iter().for_each(File::leave_open);
    session.close().await;
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
            let is_first = at == 0;
            if is_first {
                file.read_at(0, &mut [0; 7]).await?;
            }
            Ok((is_first.then(|| begin.elapsed()), file))
        }
    })
    .await?;
    let all = begin.elapsed();
    let first = back.iter().find_map(|(first, _)| *first).unwrap_or_default();
    Ok([all, first, unrelated].map(|span: Duration| span.as_secs_f64()))
}

/// What the server takes for each open that is held, for each orphan, and for each idle session.
async fn memory(rounds: usize) -> Outcome<()> {
    println!("\n| bytes of the server's memory | |\n| --- | --- |");
    for (clients, opens) in [(1, 10_000), (10, 10_000)] {
        let mut figures: [Figures; 2] = Default::default();
        for _ in 0..rounds {
            let values = memory_of_opens(clients, opens).await?;
            figures.iter_mut().zip(values).for_each(|(figures, value)| figures.push(value));
        }
        let [held, orphans] = figures;
        println!("| of {} opens, each while it is held | {} |", clients * opens, held.row(0));
        println!("| of {} orphans, each | {} |", clients * opens, orphans.row(0));
    }
    let mut idle = Figures::default();
    for _ in 0..rounds {
        idle.push(memory_of_sessions(60).await?);
    }
    println!("| of 60 idle sessions with two channels, each | {} |", idle.row(0));
    Ok(())
}

async fn memory_of_opens(clients: usize, opens: usize) -> Outcome<[f64; 2]> {
    let mut world = World::start("process", clients, 100)?;
    let warm = world.session(0).await?;
    drop(open(&warm, &options(), (200, IN_FLIGHT), 100).await?);
    warm.close().await;
    let before = world.rss()?;
    let mut all = Vec::new();
    for client in 0..clients {
        let session = world.session(client).await?;
        let files = open(&session, &options(), (opens, IN_FLIGHT), 100).await?;
        all.push((session, files));
    }
    let each = |rss: u64| rss.saturating_sub(before) as f64 / (clients * opens) as f64;
    let held = each(world.rss()?);
    for (session, files) in all {
        files.into_iter().for_each(File::leave_open);
        session.close().await;
    }
    world.until_orphans(clients * opens)?;
    Ok([held, each(world.rss()?)])
}

async fn memory_of_sessions(count: usize) -> Outcome<f64> {
    let world = World::start("process", count + 1, 1)?;
    let limit = Duration::from_secs(10);
    let mut sessions = vec![world.session(count).await?];
    sessions[0].all_lines_up(limit).await?;
    let before = world.rss()?;
    for client in 0..count {
        let session = world.session(client).await?;
        session.all_lines_up(limit).await?;
        sessions.push(session);
    }
    Ok(world.rss()?.saturating_sub(before) as f64 / count as f64)
}

/// Very many opens of many clients, and the descriptors that they have.
async fn many(opens: usize) -> Outcome<()> {
    let clients = opens.div_ceil(10_000).max(1);
    let world = World::start("process", clients, 1000)?;
    let mut sessions = Vec::new();
    let begin = Instant::now();
    for client in 0..clients {
        let session = world.session(client).await?;
        let files = open(&session, &options(), (opens / clients, IN_FLIGHT), 1000).await?;
        sessions.push((session, files));
    }
    let took = begin.elapsed().as_secs_f64();
    let floor = floor::opens(opens)?;
    let descriptors = world.descriptors()?;
    // Every one of them is usable, whichever have a descriptor.
    let step = (opens / clients / 100).max(1);
    let mut read = 0_usize;
    for (_, files) in &sessions {
        for file in files.iter().step_by(step) {
            read += file.read_at(0, &mut [0; 7]).await?;
        }
    }
    println!(
        "\n{opens} opens of {clients} clients in {took:.1} s, {:.0} times as long as openat and close take: {descriptors} descriptors; {read} bytes read through some of them",
        took / floor
    );
    Ok(())
}

fn number(name: &str, default: usize) -> Outcome<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}={text}: {error}").into()),
        Err(_) => Ok(default),
    }
}
