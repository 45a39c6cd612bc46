//! Crashes and failures at every call of a script: the next start finds the content after some commit, and none before
//! one that was acknowledged.

use std::io::ErrorKind;

use super::disk::{Crash, Disk};
use super::*;

const OPERATIONS: usize = 400;

/// Runs the script until something fails; how many batches were acknowledged, and with what it failed.
fn run(disk: &Disk, script: &[Vec<RecordChange>]) -> (usize, Option<StoreError>) {
    let mut store = match create(disk.medium()) {
        Ok(store) => store,
        Err(error) => return (0, Some(error)),
    };
    for (acknowledged, batch) in script.iter().enumerate() {
        if let Err(error) = store.commit(batch) {
            // A failed store is not touched again, also not when it is dropped.
            let calls = disk.calls();
            assert!(matches!(store.commit(&[]), Err(StoreError::Failed)));
            assert!(matches!(store.load(), Err(StoreError::Failed)));
            assert!(matches!(store.close(), Err(StoreError::Failed)));
            drop(store);
            assert_eq!(disk.calls(), calls, "after {error}");
            return (acknowledged, Some(error));
        }
    }
    match store.close() {
        Ok(()) => (script.len(), None),
        Err(error) => (script.len(), Some(error)),
    }
}

/// The table on a disk after a crash; none if it was not made, and nothing was acknowledged then.
fn recover(disk: &Disk, acknowledged: usize, context: &str) -> Option<RedbStore> {
    // The making of the table is a commit too.
    let least = disk.noted().unwrap_or(0).max(acknowledged as u64);
    match reopen(disk.medium(), least) {
        Ok(store) => Some(store),
        // A table that was not made is made anew: `state` says that it has no commits.
        Err(StoreError::Damaged { .. }) if acknowledged == 0 && disk.noted().is_none() => None,
        Err(error) => panic!("{context}: {error}"),
    }
}

fn check_content(store: &mut RedbStore, contents: &[Content], acknowledged: usize, context: &str) {
    let found = load(store);
    let begun = (acknowledged + 1).min(contents.len() - 1);
    let allowed = &contents[acknowledged..=begun];
    assert!(
        allowed.contains(&found),
        "{context}: after {acknowledged} commits the content is that after {:?}",
        contents.iter().position(|content| *content == found)
    );
}

#[test]
fn f49_a_failure_at_any_call_loses_nothing_that_was_acknowledged() {
    let script = script(7, OPERATIONS);
    let contents = contents(&script);
    let whole = Disk::default();
    assert!(matches!(run(&whole, &script), (_, None)));
    let calls = whole.calls();
    assert!(calls > 800, "{calls} calls are too few to say much");
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    // Each call, each thread its share of them.
    let (recovered, ahead) = std::thread::scope(|scope| {
        let (script, contents) = (&script, &contents);
        let share = |first| (first..=calls).step_by(threads as usize);
        let started: Vec<_> = (1..=threads)
            .map(|first| {
                scope
                    .spawn(move || share(first).map(|call| fail_at(call, script, contents)).fold((0, 0), add))
            })
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).fold((0, 0), add)
    });
    assert!(recovered > 2 * calls, "{recovered} starts after {calls} calls found a table");
    assert!(ahead > 100, "a commit that was not acknowledged was there {ahead} times");
}

fn add(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0 + other.0, one.1 + other.1)
}

/// Runs the script with one call that fails, and then starts in each way that there is. How many starts found a table,
/// and how many a commit that was not acknowledged.
fn fail_at(call: u64, script: &[Vec<RecordChange>], contents: &[Content]) -> (u64, u64) {
    let disk = Disk::default();
    disk.fail_at(call, ErrorKind::Other, call);
    let (acknowledged, error) = run(&disk, script);
    assert!(matches!(error, Some(StoreError::Io { .. })), "call {call}: {error:?}");
    let (mut recovered, mut ahead) = (0, 0);
    for (crash, seed) in [(Crash::Kill, 0), (Crash::Power, call), (Crash::Power, !call)] {
        let context = format!("call {call}, {crash:?}");
        let disk = disk.after(crash, seed);
        let Some(mut store) = recover(&disk, acknowledged, &context) else { continue };
        check_content(&mut store, contents, acknowledged, &context);
        let mut found = load(&mut store);
        ahead += u64::from(contents.get(acknowledged + 1) == Some(&found));
        recovered += 1;
        // It goes on from there, and the next start is none the wiser.
        let batch = [put(call, 300), remove(call + 1)];
        store.commit(&batch).unwrap();
        apply(&mut found, &batch);
        if crash == Crash::Kill {
            let commits = store.commits();
            store.close().unwrap();
            let disk = disk.after(Crash::Power, 0);
            assert_eq!(load(&mut reopen(disk.medium(), commits).unwrap()), found, "{context}");
        }
    }
    (recovered, ahead)
}

#[test]
fn f41_a_recovery_that_is_cut_off_again_and_again_loses_nothing() {
    let script = script(8, 60);
    let contents = contents(&script);
    let whole = Disk::default();
    run(&whole, &script);
    let mut cut = 0;
    for seed in 0..8 {
        let mut random = Seeded(seed);
        let mut disk = Disk::default();
        disk.fail_at(20 + random.below(whole.calls() as usize - 20) as u64, ErrorKind::Other, seed);
        let (acknowledged, _) = run(&disk, &script);
        for nested in 0..100 {
            let crash = if random.below(2) == 0 { Crash::Kill } else { Crash::Power };
            disk = disk.after(crash, random.next());
            disk.fail_at(1 + random.below(8) as u64, ErrorKind::Other, random.next());
            let context = format!("seed {seed}, recovery {nested}");
            match reopen(disk.medium(), acknowledged as u64) {
                // It had come to its end: what is cut off is the epoch that begins.
                Ok(mut store) => {
                    check_content(&mut store, &contents, acknowledged, &context);
                    cut += usize::from(store.begin_epoch(nested + 1).is_err());
                }
                Err(StoreError::Io { .. }) => cut += 1,
                Err(error) => panic!("{context}: {error}"),
            }
        }
        let disk = disk.after(Crash::Power, seed);
        let mut store = reopen(disk.medium(), acknowledged as u64).unwrap();
        check_content(&mut store, &contents, acknowledged, &format!("seed {seed}"));
    }
    assert!(cut > 500, "{cut} of 800 were cut off");
}

#[test]
fn f50_a_full_disk_is_told_from_a_broken_one() {
    let script = script(9, 40);
    let disk = Disk::default();
    disk.fail_at(40, ErrorKind::StorageFull, 1);
    assert!(matches!(run(&disk, &script), (_, Some(StoreError::NoSpace { .. }))));
}
