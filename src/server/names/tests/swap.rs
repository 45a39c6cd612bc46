//! The race: a directory and a link to the secret change places all the time, while every operation goes through
//! them. A check of the path before its use would lose it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::renameat_with;

use super::hostile::{OPERATIONS, Use};
use super::*;
use crate::server::ground::{identities, snapshot};

/// How often the two change places; `BOWLINE_SWAP_ROUNDS` sets another number.
const ROUNDS: u64 = 100_000;
const WORKERS: usize = 4;

#[test]
fn t12_cve_2021_20316_cve_2021_43566_a_directory_that_is_swapped_for_a_link_shows_and_loses_nothing() {
    let rounds = std::env::var("BOWLINE_SWAP_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let ground = Ground::new();
    symlink("../outside", ground.at("swapped")).unwrap();
    let (first, second) = (ground.at("dir"), ground.at("swapped"));
    let swap = || renameat_with(CWD, &first, CWD, &second, RenameFlags::EXCHANGE);
    if let Err(errno) = swap() {
        eprintln!("skipped: this file system cannot exchange two names ({errno})");
        return;
    }
    let before = snapshot(&ground.outside());
    let secrets = identities(&before);
    let (is_over, done, refused, shown) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = |worker: usize| {
        let paths = [
            path("dir/file"),
            path("dir/deep/file"),
            path("dir/secret-name"),
            path("dir/deep"),
            path("dir/link"),
            path(format!("dir/made-{worker}")),
            path("dir"),
        ];
        while !is_over.load(Ordering::Relaxed) {
            for at in &paths {
                // The component that is swapped is not itself taken away, and no secret name is made.
                let is_kept = matches!(at.as_bytes(), b"dir" | b"dir/secret-name");
                for operation in OPERATIONS.iter().filter(|op| !is_kept || op.uses != Use::Changes) {
                    match (operation.run)(&ground, at) {
                        Ok(seen) if seen.is_secret(&secrets) => {
                            eprintln!("{} of {at:?} shows a secret", operation.name);
                            shown.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(Reason::Outside) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => {}
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let work = &work;
            scope.spawn(move || work(worker));
        }
        // Whatever happens, the workers end.
        let outcome = (0..rounds).try_for_each(|_| swap());
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
    assert_eq!(shown.into_inner(), 0);
    assert_eq!(snapshot(&ground.outside()), before);
    let (done, refused) = (done.into_inner(), refused.into_inner());
    assert!(done > 0 && refused > 0, "the race was not run: {done} done, {refused} refused");
    eprintln!("{rounds} rounds: {done} operations done, {refused} refused as leading outside");
}
