//! The store under everything that can happen to it: crashes, failing and full disks, damage, other people's files.

#![expect(clippy::as_conversions, reason = "calls and bytes are few here")]

mod committer;
mod contract;
mod crash;
mod damage;
mod disk;
mod full;
mod intents;
mod state_dir;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::medium::Medium;
use super::table::{Expected, RedbStore};
use super::{StoreError, TableStore};
use crate::model::{Record, RecordChange, RecordKind, StoreId};

const STORE: StoreId = StoreId([0x57; 16]);

/// Numbers that are the same in every run: splitmix64.
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

/// What a store holds, as its shadow: in the order in which `load` tells it.
type Content = BTreeMap<(RecordKind, u64), Vec<u8>>;

fn apply(content: &mut Content, batch: &[RecordChange]) {
    for change in batch {
        match &change.value {
            Some(value) => drop(content.insert((change.kind, change.key), value.clone())),
            None => drop(content.remove(&(change.kind, change.key))),
        }
    }
}

fn content(records: Vec<Record>) -> Content {
    let keys: Vec<_> = records.iter().map(|record| (record.kind, record.key)).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    records.into_iter().map(|record| ((record.kind, record.key), record.value)).collect()
}

/// A change of one of a few records: most say something new, some go, and a few are long.
fn change(random: &mut Seeded) -> RecordChange {
    let kind = RecordKind::EACH[random.below(RecordKind::EACH.len())];
    let key = u64::try_from(random.below(24)).unwrap() * 0x0123_4567_89ab_cdef;
    match random.below(16) {
        0..5 => RecordChange::remove(kind, key),
        5 => {
            let len = 1000 + random.below(30_000);
            RecordChange::put(kind, key, random.bytes(len))
        }
        _ => {
            let len = random.below(600);
            RecordChange::put(kind, key, random.bytes(len))
        }
    }
}

/// A script of `operations` changes in batches, as many as come together when several clients are served.
fn script(seed: u64, operations: usize) -> Vec<Vec<RecordChange>> {
    let mut random = Seeded(seed);
    let mut batches = Vec::new();
    let mut left = operations;
    while left > 0 {
        let len = (1 + random.below(9)).min(left);
        batches.push((0..len).map(|_| change(&mut random)).collect());
        left -= len;
    }
    batches
}

/// What the store holds before the script, and after each batch of it.
fn contents(script: &[Vec<RecordChange>]) -> Vec<Content> {
    let mut contents = vec![Content::new()];
    for batch in script {
        let mut next = contents.last().unwrap().clone();
        apply(&mut next, batch);
        contents.push(next);
    }
    contents
}

fn create(medium: Arc<dyn Medium>) -> Result<RedbStore, StoreError> {
    RedbStore::create(medium, Path::new("table"), STORE)
}

/// Opens the table that has at least so many commits.
fn reopen(medium: Arc<dyn Medium>, commits: u64) -> Result<RedbStore, StoreError> {
    RedbStore::open(medium, Path::new("table"), &Expected { store: STORE, epoch: 0, commits })
}

fn load(store: &mut dyn TableStore) -> Content {
    content(store.load().unwrap())
}

fn put(key: u64, len: usize) -> RecordChange {
    RecordChange::put(RecordKind::Open, key, vec![7; len])
}

fn remove(key: u64) -> RecordChange {
    RecordChange::remove(RecordKind::Open, key)
}
