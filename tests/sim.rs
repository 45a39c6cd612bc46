//! The simulation: both cores, a network, a clock, disks and a store that one seed makes fail in every way, and a shadow of
//! what everybody was told, which says at each step whether it may be so.
//!
//! | file | what it has |
//! | --- | --- |
//! | `sim/script.rs` | one run: what clients ask, what goes wrong, and the quiet end in which everything has to finish |
//! | `sim/asks.rs` | each thing that a client can ask |
//! | `sim/settle.rs` | what an answer may be, and what follows from it |
//! | `sim/shadow.rs` | what clients were told: opens, locks, the versions of each block |
//! | `sim/watch.rs` | what must hold of the server after each single step |
//! | `sim/causes.rs` | whether "changed by another client" has a cause |
//! | `sim/seen.rs` | what must happen in some seed |
//! | `sim/planted.rs` | faults that are put into the cores, each of which has to be found |
//!
//! `BOWLINE_SEED=n cargo test --test sim` runs that seed alone; a failing one prints this line. `BOWLINE_SIM_SEEDS=n` runs so
//! many.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "sim/asks.rs"]
mod asks;
#[path = "sim/causes.rs"]
mod causes;
#[path = "support/pair.rs"]
#[allow(dead_code, reason = "tests of single cases use the rest")]
mod pair;
#[cfg(feature = "planted-bugs")]
#[path = "sim/planted.rs"]
mod planted;
#[path = "sim/script.rs"]
mod script;
#[path = "sim/seen.rs"]
mod seen;
#[path = "sim/settle.rs"]
mod settle;
#[path = "sim/shadow.rs"]
mod shadow;
#[path = "sim/watch.rs"]
mod watch;

use self::script::{Sim, Told};
use self::seen::{Seen, Tally};

const SEEDS: u64 = 2_000;

#[test]
fn whatever_fails_nothing_that_was_told_is_untrue_and_everything_ends() {
    let one = number("BOWLINE_SEED");
    let seeds: Vec<u64> = match one {
        Some(seed) => vec![seed],
        None => (0..number("BOWLINE_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let (even, odd): (Vec<u64>, Vec<u64>) = seeds.iter().partition(|&seed| seed % 2 == 0);
    let (first, second) = std::thread::scope(|threads| {
        let beside = threads.spawn(|| run_all(&odd));
        (run_all(&even), beside.join().unwrap())
    });
    let failed = [first.1, second.1].concat();
    let seen = first.0.and(second.0);
    println!("{seen}");
    for seed in &failed {
        println!("to run it again: BOWLINE_SEED={seed} cargo test --test sim");
    }
    assert!(failed.is_empty(), "{} of {} seeds failed: {failed:?}", failed.len(), seeds.len());
    if one.is_none() && seeds.len() >= 2_000 {
        let missing: Vec<Seen> = seen.missing();
        assert!(missing.is_empty(), "these never happened: {missing:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(run(seed).trace, run(seed).trace, "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace, "the hash tells runs apart");
}

/// Runs them all; tells what was seen, and those that failed.
fn run_all(seeds: &[u64]) -> (Tally, Vec<u64>) {
    let (mut seen, mut failed) = (Tally::default(), Vec::new());
    for &seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(told) => seen = seen.and(told.seen),
            Err(_) => failed.push(seed),
        }
        if failed.len() >= 20 {
            break;
        }
    }
    (seen, failed)
}

fn run(seed: u64) -> Told {
    Sim::new(seed).run()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
