//! Faults that are put into the cores on purpose: each has to be found by some seed. What is not found here would not be found
//! if somebody made it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use bowline::model::planted::{Bug, choose};

use super::script::{STEPS, Sim};

#[test]
fn each_planted_fault_is_found() {
    // What a found fault says is of no interest: it is expected, and there are many.
    std::panic::set_hook(Box::new(|_| ()));
    let next = AtomicUsize::new(0);
    let find_each = || -> Vec<(Bug, Option<Found>)> {
        let bugs = std::iter::from_fn(|| Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)).copied());
        bugs.map(|bug| (bug, find(bug))).collect()
    };
    let found = std::thread::scope(|threads| {
        let beside = threads.spawn(find_each);
        [find_each(), beside.join().unwrap()].concat()
    });
    drop(std::panic::take_hook());
    for (bug, found) in &found {
        match found {
            Some(Found { seed, step, why }) => println!("{bug:?}: seed {seed}, step {step}: {why}"),
            None => println!("{bug:?}: not found"),
        }
    }
    assert_eq!(found.len(), Bug::ALL.len());
    let missed: Vec<Bug> = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "no seed finds {missed:?}");
}

#[derive(Clone)]
struct Found {
    seed: u64,
    step: u64,
    why: String,
}

/// The first seed that fails with this fault, and how.
fn find(bug: Bug) -> Option<Found> {
    let found = (0..super::SEEDS).find_map(|seed| {
        choose(Some(bug));
        let failed = catch_unwind(AssertUnwindSafe(|| Sim::new(seed).run())).err()?;
        let said = failed.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| failed.downcast_ref::<&str>().copied()).unwrap_or("?");
        let why = said.lines().next().unwrap_or("?").to_owned();
        Some(Found { seed, step: STEPS.get(), why })
    });
    choose(None);
    found
}
