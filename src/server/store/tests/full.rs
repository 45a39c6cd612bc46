//! A full disk: new opens are refused, and what has happened is still recorded.

use std::sync::mpsc::channel;

use super::disk::{Crash, Disk, Reserve};
use super::*;
use crate::server::store::Committer;
use crate::server::store::reserve::Reserved;

const RESERVE: usize = 64;

/// Submits a batch and waits for what becomes of it.
fn commit(committer: &Committer, batch: Vec<RecordChange>) -> Result<(), Arc<StoreError>> {
    let (sender, outcome) = channel();
    committer.submit(batch, move |outcome| sender.send(outcome).unwrap());
    outcome.recv().unwrap()
}

#[test]
fn f50_closes_are_recorded_where_opens_are_refused() {
    let disk = Disk::default();
    disk.set_blocks_max(400);
    let medium = Reserved::new(disk.clone(), Reserve(disk.clone(), RESERVE)).unwrap();
    let committer = Committer::start(Box::new(create(Arc::new(medium)).unwrap())).unwrap();
    let mut shadow = Content::new();
    let mut opens = 0;
    let refused = loop {
        let batch = vec![put(opens, 1500)];
        match commit(&committer, batch.clone()) {
            Ok(()) => apply(&mut shadow, &batch),
            Err(error) => break error,
        }
        opens += 1;
        assert!(opens < 2000, "the disk is not full yet");
    };
    assert!(matches!(*refused, StoreError::NoSpace { .. }), "{refused}");
    assert!(opens > 100 && committer.failure().is_none(), "{opens}");
    // Somebody else takes whatever is left.
    disk.set_blocks_max(disk.blocks());
    // New ones are refused, with all that comes with them; what is there changes, and goes.
    for kind in [RecordKind::Open, RecordKind::Grant, RecordKind::Intent] {
        let new = RecordChange::put(kind, 77_777, vec![1]);
        let error = commit(&committer, vec![remove(1), new]).unwrap_err();
        assert!(matches!(*error, StoreError::NoSpace { .. }), "{error}");
    }
    let close = |key| vec![remove(key), RecordChange::put(RecordKind::Tombstone, key, vec![3; 100])];
    for key in 0..opens {
        let batch = if key % 2 == 0 { vec![put(key, 1400)] } else { close(key) };
        commit(&committer, batch.clone()).unwrap();
        apply(&mut shadow, &batch);
    }
    assert!(committer.failure().is_none());
    // Somebody frees space: all is as before.
    disk.set_blocks_max(800);
    let batch = vec![put(77_777, 1500)];
    commit(&committer, batch.clone()).unwrap();
    apply(&mut shadow, &batch);
    assert!(disk.blocks() > RESERVE, "the reserve is held again");
    committer.close().unwrap();
    let disk = disk.after(Crash::Power, 1);
    assert_eq!(load(&mut reopen(disk.medium(), 0).unwrap()), shadow);
}

#[test]
fn f50_without_a_reserve_too_it_is_told_from_a_broken_disk() {
    let disk = Disk::default();
    disk.set_blocks_max(60);
    let medium = Reserved::new(disk.clone(), Reserve(disk.clone(), 61)).unwrap();
    let mut store = create(Arc::new(medium)).unwrap();
    assert!(matches!(store.check(&[put(1, 1)]), Err(StoreError::NoSpace { .. })), "there is no reserve");
    let mut acknowledged = 0;
    let error = loop {
        match store.commit(&[put(acknowledged, 1500)]) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    drop(store);
    // What was acknowledged is there; the disk has room for the start.
    let disk = disk.after(Crash::Power, 2);
    let found = load(&mut reopen(disk.medium(), 0).unwrap());
    assert!(found.len() as u64 >= acknowledged && acknowledged > 10, "{acknowledged}");
}
