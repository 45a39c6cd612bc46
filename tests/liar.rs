//! A server that lies: real TCP, real handshakes with the key that the client has pinned, and answers that a seed makes
//! up. Every call of the library ends in time, nothing panics, memory is bounded, and no name comes out of the
//! library that could mean something else where it is used.
//!
//! `BOWLINE_SEED=N cargo test --test liar` plays one seed again.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

mod support;

#[path = "liar/calls.rs"]
mod calls;
#[path = "support/pair/seed.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod seed;
#[path = "liar/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline::client::{Client, Error, SessionEvent};
use bowline::model::{Epoch, Limits, LineId};
use bowline::session::client::ConnectFailure;
use server::{Liar, Slip};
use support::new_identity;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many seeds there are if `BOWLINE_LIAR_SEEDS` does not say another number, and how many of them run at a time.
const SEEDS: u64 = 500;
const AT_A_TIME: usize = 16;
/// How long any call may take, whatever the server does.
const CALL_MAX: Duration = Duration::from_secs(15);
/// How much memory the process may take more than at its start.
const GROWTH_MAX_KIB: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn t24_a_lying_server_breaks_no_client() {
    let panics = count_panics();
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let count = number("BOWLINE_LIAR_SEEDS").unwrap_or(SEEDS);
    let replayed = number("BOWLINE_SEED");
    let seeds = replayed.map_or(0..count, |seed| seed..seed + 1);
    let server = new_identity();
    let mut limits = Limits::default();
    limits.ping_after = Duration::from_millis(100);
    limits.dead_after_ping = Duration::from_millis(200);
    limits.handshake = Duration::from_secs(1);
    // One client, so that its buffers are shared as they would be in a program.
    let client = Client::new(new_identity()).unwrap().with_limits(limits);
    let client = client.with_request_timeout(Duration::from_millis(150));
    let before = peak_kib();
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let mut running = JoinSet::new();
    for seed in seeds {
        let (client, server, turns) = (client.clone(), Arc::clone(&server), Arc::clone(&turns));
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let played = tokio::spawn(calls::play(seed, client, server)).await;
            played.unwrap_or_else(|error| panic!("BOWLINE_SEED={seed} repeats it: {error}"))
        });
    }
    let mut tally = calls::Tally::default();
    while let Some(played) = running.join_next().await {
        tally.add(&played.unwrap());
    }
    let grown = peak_kib().saturating_sub(before);
    println!("{tally:?}; the peak of memory rose by {grown} KiB");
    assert_eq!(panics.load(Ordering::SeqCst), 0, "a task has panicked: its message is above");
    assert!(grown < GROWTH_MAX_KIB, "memory rose by {grown} KiB");
    // The liar does not always lie: calls that were answered right have succeeded.
    assert!(replayed.is_some() || (tally.succeeded > 1000 && tally.failed > 1000), "{tally:?}");
}

/// Every bit of what a server's first record of a session repeats: 4 bytes of offer, 2 of version, 16 of session.
#[tokio::test(flavor = "multi_thread")]
async fn t06_a_server_that_repeats_something_else_gets_no_session() {
    let (client, server) = (Client::new(new_identity()).unwrap(), new_identity());
    let honest = Liar::start(0, Arc::clone(&server)).await;
    drop(client.connect(&honest.peer()).await.unwrap());
    for bit in 0..22 * 8 {
        let liar = Liar::slipping(Slip::Welcome(bit), Arc::clone(&server)).await;
        let error = client.connect(&liar.peer()).await.unwrap_err();
        assert!(matches!(error, Error::Protocol), "bit {bit}: {error}");
    }
}

/// The same for further channels: none of them is ever in use.
#[tokio::test(flavor = "multi_thread")]
async fn t06_a_server_that_repeats_something_else_gets_no_further_channel() {
    let (client, server) = (Client::new(new_identity()).unwrap(), new_identity());
    // Of locator, number, nonce, kind, protection, suite, and both of the choice: the first bit and another one.
    let bits = [0, 7, 16, 20, 25, 36, 40, 44, 48, 52].map(|byte| [byte * 8, byte * 8 + 3]);
    for bit in bits.into_iter().flatten() {
        let liar = Liar::slipping(Slip::Attached(bit), Arc::clone(&server)).await;
        let session = client.connect(&liar.peer()).await.unwrap();
        let mut events = session.events();
        // One attempt for each channel that is missing, at least.
        let mut failed = 0;
        while failed < 3 {
            match tokio::time::timeout(support::LONG, events.recv()).await.unwrap().unwrap() {
                SessionEvent::LineFailed { failure, .. } => {
                    assert_eq!(failure, ConnectFailure::Refused);
                    failed += 1;
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
        session.close().await;
    }
}

/// A server that was replaced on its data store and does not know it: a client that has met the other one goes to that.
#[tokio::test(flavor = "multi_thread")]
async fn t30_a_server_of_an_earlier_life_is_not_believed() {
    let (client, server) = (Client::new(new_identity()).unwrap(), new_identity());
    let newer = Liar::living(5, Arc::clone(&server)).await;
    let older = Liar::living(4, Arc::clone(&server)).await;
    client.connect(&older.peer()).await.unwrap().close().await;
    client.connect(&newer.peer()).await.unwrap().close().await;
    let error = client.connect(&older.peer()).await.unwrap_err();
    let Error::StaleServer { epoch, seen, .. } = error else { panic!("{error}") };
    assert_eq!((epoch, seen), (Epoch(4), Epoch(5)));
    // A line that leads there is passed over.
    let mut both = older.peer();
    both.lines = vec![both.lines[0].clone(), newer.peer().lines[0].clone()];
    let session = client.connect(&both).await.unwrap();
    assert_eq!((session.epoch(), session.channels()[0].line), (Epoch(5), LineId(1)));
    session.close().await;
    // Somebody else has not met the other one.
    let other = Client::new(new_identity()).unwrap();
    other.connect(&older.peer()).await.unwrap().close().await;
}

/// Panics of tasks that nobody waits for are seen too.
fn count_panics() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, print) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        counted.fetch_add(1, Ordering::SeqCst);
        print(info);
    }));
    panics
}

/// The most memory that this process has ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
