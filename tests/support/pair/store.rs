//! The server's store: commits take their time, and what was not committed when the server ends is gone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bowline::model::{
    Epoch, Evidence, IntendedChange, OpenId, StoredIntent, StoredOpen, StoredTombstone, Time,
};
use bowline::opens::{Restart, TableChanges};
use bowline::session::recovery::recover;
use bowline::session::server::{CommitId, StoredTable};

/// Records as the next server finds them, and those on their way.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// What is stored of opens.
    pub(crate) opens: BTreeMap<OpenId, StoredOpen>,
    /// What is stored of opens that ended.
    pub(crate) tombstones: BTreeMap<OpenId, StoredTombstone>,
    /// What is stored of changes that must not run twice.
    pub(crate) intents: BTreeMap<u64, StoredIntent>,
    horizon: Option<Epoch>,
    /// How many commits there were.
    pub(crate) commits: u64,
    /// Whether it has no room for new records.
    pub(crate) is_full: bool,
    /// How many commits it has refused.
    pub(crate) refused: u64,
    pending: VecDeque<(CommitId, TableChanges)>,
    /// When the latest commit will be done.
    last: Time,
    /// Records are of an earlier boot until the first commit of a server's life is done, which has all of them.
    is_of_earlier_boot: bool,
}

impl Store {
    /// Takes a commit on; says when it is done if it takes `takes` by itself.
    pub(super) fn begin(
        &mut self,
        now: Time,
        takes: Duration,
        commit: CommitId,
        changes: TableChanges,
    ) -> Time {
        assert!(self.pending.back().is_none_or(|(last, _)| *last < commit), "commits rise");
        assert!(!changes.is_empty(), "a commit says something");
        self.pending.push_back((commit, changes));
        self.last = self.last.max(now.after(takes));
        self.last
    }

    /// Refuses a commit that has a new record, whole; says whether it did.
    pub(super) fn refuse(&mut self, commit: CommitId) -> bool {
        let Some((first, changes)) = self.pending.front() else { return false };
        assert_eq!(*first, commit);
        let is_new =
            |(id, open): &(OpenId, Option<StoredOpen>)| open.is_some() && !self.opens.contains_key(id);
        let is_new_intent =
            |(key, intent): &(u64, Option<StoredIntent>)| intent.is_some() && !self.intents.contains_key(key);
        let is_refused = changes.opens.iter().any(is_new) || changes.intents.iter().any(is_new_intent);
        if is_refused {
            self.refused += 1;
            self.pending.pop_front();
        }
        is_refused
    }

    /// A commit is done; they are in order.
    pub(super) fn finish(&mut self, commit: CommitId) {
        let (first, changes) = self.pending.pop_front().unwrap();
        assert_eq!(first, commit);
        self.commits += 1;
        self.is_of_earlier_boot = false;
        for (id, open) in changes.opens {
            match open {
                Some(open) => drop(self.opens.insert(id, open)),
                None => drop(self.opens.remove(&id)),
            }
        }
        for (key, intent) in changes.intents {
            match intent {
                Some(intent) => drop(self.intents.insert(key, intent)),
                None => drop(self.intents.remove(&key)),
            }
        }
        self.horizon = changes.horizon.or(self.horizon);
        for (id, tombstone) in changes.tombstones {
            match tombstone {
                Some(tombstone) => drop(self.tombstones.insert(id, tombstone)),
                None => drop(self.tombstones.remove(&id)),
            }
        }
    }

    /// How many commits have begun and are not done.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The server ends, and so many of the commits that have begun are in the store: each whole, and in their order.
    pub(super) fn keep_of_pending(&mut self, count: usize) {
        for _ in 0..count {
            let Some(&(first, _)) = self.pending.front() else { return };
            self.finish(first);
        }
    }

    /// What the next server starts with, at `now`.
    pub(super) fn load(
        &mut self,
        now: Time,
        is_same_boot: bool,
        evidence: impl FnMut(&IntendedChange) -> Evidence,
    ) -> StoredTable {
        self.is_of_earlier_boot |= !is_same_boot;
        let is_same_boot = !self.is_of_earlier_boot;
        let left: Vec<_> = self.intents.iter().map(|(key, intent)| (*key, intent.clone())).collect();
        self.intents.extend(recover(&left, is_same_boot, evidence));
        self.pending.clear();
        self.last = now;
        let grace_min = Duration::from_secs(10);
        StoredTable {
            hash_key: [0x5a; 32].into(),
            restart: Restart { now, is_same_boot, grace_min, renewals_max: 3 },
            opens: self.opens.iter().map(|(id, open)| (*id, open.clone())).collect(),
            tombstones: self.tombstones.iter().map(|(id, tombstone)| (*id, tombstone.clone())).collect(),
            intents: self.intents.iter().map(|(key, intent)| (*key, intent.clone())).collect(),
            horizon: self.horizon,
        }
    }
}
