//! What holds for every store.

use super::disk::Disk;
use super::*;
use crate::model::{Durability, Limits, PublicKey};
use crate::server::store::{MemoryStore, StateDir, StateSetup};

/// A new store of each kind, and what must outlive it.
fn stores() -> Vec<(&'static str, Box<dyn TableStore>, Option<tempfile::TempDir>)> {
    let mut stores: Vec<(_, Box<dyn TableStore>, _)> = vec![
        ("in memory", Box::new(MemoryStore::new()), None),
        ("in a database", Box::new(create(Disk::default().medium()).unwrap()), None),
    ];
    for durability in Durability::EACH {
        let folder = tempfile::tempdir().unwrap();
        let setup = StateSetup::new(*durability, vec![PublicKey([1; 32])]).unwrap();
        let (state, loaded) = StateDir::open(folder.path(), &setup).unwrap();
        assert_eq!(loaded.records, []);
        stores.push((durability.as_str(), Box::new(state), Some(folder)));
    }
    stores
}

#[test]
fn a_store_holds_what_was_committed() {
    for (name, mut store, _folder) in stores() {
        assert_eq!(load(&mut *store), Content::new(), "{name}");
        let mut shadow = Content::new();
        for batch in script(1, 300) {
            store.check(&batch).unwrap();
            store.commit(&batch).unwrap();
            apply(&mut shadow, &batch);
            assert_eq!(load(&mut *store), shadow, "{name}");
        }
    }
}

#[test]
fn changes_of_one_batch_are_made_in_their_order() {
    for (name, mut store, _folder) in stores() {
        store.commit(&[put(1, 3), put(1, 5), put(2, 1), remove(2), remove(3), put(3, 2), remove(9)]).unwrap();
        let lens: Vec<_> =
            load(&mut *store).into_iter().map(|((_, key), value)| (key, value.len())).collect();
        assert_eq!(lens, [(1, 5), (3, 2)], "{name}");
    }
}

#[test]
fn kinds_and_keys_are_apart_and_every_length_comes_back() {
    for (name, mut store, _folder) in stores() {
        let mut batch = Vec::new();
        for (at, kind) in RecordKind::EACH.iter().enumerate() {
            batch.push(RecordChange::put(*kind, 0, vec![]));
            batch.push(RecordChange::put(*kind, u64::MAX, vec![at as u8; Limits::RECORD_LEN_MAX]));
        }
        store.commit(&batch).unwrap();
        let mut shadow = Content::new();
        apply(&mut shadow, &batch);
        assert_eq!(load(&mut *store), shadow, "{name}");
        store.commit(&[RecordChange::remove(RecordKind::Tombstone, u64::MAX)]).unwrap();
        shadow.remove(&(RecordKind::Tombstone, u64::MAX)).unwrap();
        assert_eq!(load(&mut *store), shadow, "{name}");
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_without_a_trace() {
    for (name, mut store, _folder) in stores() {
        let batch = [put(1, 1), put(2, Limits::RECORD_LEN_MAX + 1)];
        let error = store.check(&batch).unwrap_err();
        assert!(matches!(error, StoreError::TooLong { key: 2, .. }), "{name}: {error}");
        assert_eq!(load(&mut *store), Content::new(), "{name}");
        store.commit(&[put(1, 1)]).unwrap();
    }
}

#[test]
fn a_closed_store_does_nothing_more() {
    for (name, mut store, _folder) in stores() {
        store.commit(&[put(1, 1)]).unwrap();
        store.close().unwrap();
        assert!(matches!(store.commit(&[put(2, 1)]), Err(StoreError::Failed)), "{name}");
        assert!(matches!(store.check(&[put(2, 1)]), Err(StoreError::Failed)), "{name}");
        assert!(matches!(store.close(), Err(StoreError::Failed)), "{name}");
    }
}
