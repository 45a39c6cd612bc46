//! The rules that hold between any two calls.

use std::collections::{BTreeSet, HashMap};

use super::open::{Holder, Open, rights_max};
use super::state::{HolderPhase, OpenPhase};
use super::table::OpenTable;
use super::waits::LockUse;
use crate::model::{HandleId, OpenId, PublicKey};

/// Up to this many holders, and locks and waiters, the whole table is checked after every change in debug builds; beyond it that
/// would make long runs quadratic.
const CHECKED_MAX: usize = 512;

impl OpenTable {
    /// Asserts every rule that the module states, and that each index agrees with the records. Walks the whole
    /// table.
    pub fn check_invariants(&self) {
        self.opens.iter().for_each(|(id, open)| self.check_open(*id, open));
        self.holders.iter().for_each(|(handle, holder)| self.check_holder(*handle, holder));
        self.check_files();
        self.check_indexes();
        self.check_locks();
        self.check_waits();
        self.check_grants();
    }

    pub(super) fn check_in_debug(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let locks: usize = self.lock_use.values().map(|used| used.ranges + used.waits).sum();
        if self.holders.len() <= CHECKED_MAX && locks <= CHECKED_MAX {
            self.check_invariants();
        }
    }

    fn check_open(&self, id: OpenId, open: &Open) {
        let holders: Vec<&Holder> = open
            .holders
            .iter()
            .filter_map(|handle| self.holders.get(handle).map(|holder| &**holder))
            .collect();
        assert_eq!(holders.len(), open.holders.len(), "{id:?} names a holder that does not exist");
        assert!(holders.iter().all(|holder| holder.open == id), "{id:?} names a holder of another open");
        assert!(holders.len() <= Self::HOLDERS_PER_OPEN_MAX + 1, "{id:?} has too many holders");
        let has = |phase| holders.iter().any(|holder| holder.phase == phase);
        let (phase, deadline) = if has(HolderPhase::Live) {
            (OpenPhase::Held, None)
        } else if has(HolderPhase::Away) {
            (OpenPhase::Orphaned, holders.iter().filter_map(|holder| holder.deadline).max())
        } else {
            assert!(has(HolderPhase::Draining), "{id:?} has no holder");
            (OpenPhase::Closing, None)
        };
        assert_eq!((open.phase, open.deadline), (phase, deadline), "{id:?} and its holders differ");
        if let Some(deadline) = open.deadline {
            let is_watched = self.deadlines.contains(&(deadline, id)) != self.lapsed.contains((deadline, id));
            assert!(is_watched, "nobody watches the deadline of {id:?}");
        }
        self.check_keys(id, open);
    }

    fn check_keys(&self, id: OpenId, open: &Open) {
        let records = open.keys.records();
        let of_owner = open.keys.of(None).count();
        assert!(of_owner <= self.keys_per_open.max(1), "{id:?} has too many keys");
        for (at, record) in records.iter().enumerate() {
            assert!(record.generation <= open.keys.issued(), "{id:?} has a key that was not issued");
            let home = self.holders.get(&record.home).filter(|holder| holder.open == id);
            assert!(home.is_some_and(|home| !home.is_draining()), "a key of {id:?} outlived its holder");
            let is_of_home = home.is_some_and(|home| home.grant == record.grant);
            assert!(is_of_home, "a key of {id:?} is of another part than its holder");
            for other in records.iter().skip(at + 1) {
                assert_ne!(record.generation, other.generation, "{id:?} has a generation twice");
                let is_second = record.is_own && other.is_own && record.home == other.home;
                assert!(!is_second, "a holder of {id:?} has two keys of its own");
            }
        }
    }

    fn check_holder(&self, handle: HandleId, holder: &Holder) {
        let open = self.opens.get(&holder.open);
        let times = open.map(|open| open.holders.iter().filter(|other| **other == handle).count());
        assert_eq!(times, Some(1), "the open of {handle:?} does not name it once");
        assert!(
            open.is_some_and(|open| rights_max(open.mode).permits(holder.rights)),
            "{handle:?} has more rights than its open"
        );
        assert_eq!(holder.deadline.is_some(), holder.phase == HolderPhase::Away, "{handle:?}: deadline");
        assert_ne!(holder.phase, HolderPhase::Gone, "{handle:?} is gone and still here");
        assert!(holder.phase != HolderPhase::Draining || holder.executing > 0, "{handle:?} drains nothing");
        let part = self.by_session.get(&holder.session);
        assert!(part.is_some_and(|part| part.handles.contains(&handle)), "the session of {handle:?}");
        let is_away = part.is_some_and(|part| part.is_away);
        assert!(
            holder.phase == HolderPhase::Draining || is_away == (holder.phase == HolderPhase::Away),
            "{handle:?} and its session differ"
        );
    }

    /// Two opens of one file are compatible, and so is each mode with itself where it is open twice.
    fn check_files(&self) {
        let is_open = |file| self.by_file.contains_key(file);
        assert!(self.joint.iter().all(is_open), "a file is joint that nobody has open");
        for (file, groups) in &self.by_file {
            assert!(!groups.is_empty(), "{file:?} is listed without an open");
            let is_joint = self.joint.contains(file);
            assert_eq!(is_joint, self.has_two_writers(*file), "the writers of {file:?}");
            for (at, (mode, ids)) in groups.iter().enumerate() {
                assert!(!ids.is_empty(), "{file:?} lists {mode} without an open");
                assert!(ids.len() == 1 || mode.is_compatible(*mode), "{file:?} is open twice in {mode}");
                let mut others = groups.iter().skip(at + 1);
                assert!(
                    others.all(|(other, _)| other != mode && mode.is_compatible(*other)),
                    "{file:?} is open in modes that exclude each other"
                );
                for id in ids {
                    let open = self.opens.get(id);
                    assert!(
                        open.is_some_and(|open| open.file == *file && open.mode == *mode),
                        "{id:?}: file"
                    );
                }
            }
        }
    }

    /// With the checks above, equal counts say that each index has every record and nothing else.
    fn check_indexes(&self) {
        let opens = self.opens.len();
        assert!(
            self.ids.iter().all(|id| self.opens.contains_key(id)),
            "an id is kept of an open that is gone"
        );
        assert_eq!(self.ids.len(), opens, "the ids in order");
        let filed: usize = self.by_file.values().flatten().map(|(_, ids)| ids.len()).sum();
        assert_eq!(filed, opens, "the index of files");
        assert_eq!(self.by_owner.values().map(HashMap::len).sum::<usize>(), opens, "the index of create ids");
        for (owner, own) in &self.by_owner {
            let len = own.len();
            assert!((1..=self.opens_per_client).contains(&len), "{owner:?} has {len} opens");
            for (create_id, id) in own {
                let open = self.opens.get(id);
                assert!(
                    open.is_some_and(|open| open.owner == *owner && open.create_id == *create_id),
                    "{id:?}"
                );
            }
        }
        let orphans = self.opens.values().filter(|open| open.deadline.is_some()).count();
        assert_eq!(self.deadlines.len() + self.lapsed.len(), orphans, "the deadlines");
        self.tombstones.check();
        let guards = self.opens.iter().filter(|(_, open)| open.guard && open.phase == OpenPhase::Orphaned);
        assert_eq!(guards.count(), self.guards.values().map(BTreeSet::len).sum::<usize>(), "the guards");
        let handles: usize = self.by_session.values().map(|part| part.handles.len()).sum();
        assert_eq!(handles, self.holders.len(), "the index of sessions");
        let is_empty = |part: &super::sessions::SessionPart| {
            part.handles.is_empty() && part.first.is_none() && (!part.is_away || part.is_over)
        };
        assert!(!self.by_session.values().any(is_empty), "a session is kept for nothing");
    }

    /// Each lock is an open's of that file, no two conflict, and the counts of identities agree.
    fn check_locks(&self) {
        assert!(self.freed.is_empty(), "something was freed and nobody was asked");
        let mut counts: HashMap<PublicKey, LockUse> = HashMap::new();
        for (file, locks) in &self.locks {
            assert!(!locks.is_empty(), "{file:?} is kept without locks and waiters");
            locks.check();
            for (id, len) in locks.owners() {
                let open = self.opens.get(&id).filter(|open| open.file == *file);
                assert!(open.is_some(), "{id:?} has locks and is no open of {file:?}");
                let Some(open) = open else { continue };
                assert!(len <= self.locks_per_open, "{id:?} has {len} locks");
                counts.entry(open.owner).or_default().ranges += len;
            }
            for (turn, waiter) in locks.waiters() {
                let wait = self.waits.get(&(waiter.session, waiter.request));
                let wait = wait.filter(|wait| wait.turn == turn && wait.owner.file == *file);
                assert!(wait.is_some(), "nobody knows {turn:?}");
                let Some(owner) = wait.map(|wait| wait.owner) else { continue };
                assert_eq!(owner.open, waiter.owner, "{turn:?} waits for another open");
                counts.entry(owner.identity).or_default().waits += 1;
            }
        }
        assert_eq!(counts, self.lock_use, "what identities have of locks");
        assert!(self.removals.values().all(|len| *len > 0), "a removal is kept that is over");
        for (owner, used) in &self.lock_use {
            assert!(used.ranges <= self.locks_per_client, "{owner:?} has {} locks", used.ranges);
            assert!(used.waits <= self.lock_waits_per_client, "{owner:?} has {} waits", used.waits);
        }
    }

    /// Who waits has a live holder, and everybody who waits is known at each place.
    fn check_waits(&self) {
        for (key, wait) in &self.waits {
            let holder = self.holders.get(&wait.handle).filter(|holder| holder.waits.contains(&key.1));
            assert!(
                holder.is_some_and(|holder| holder.phase == HolderPhase::Live
                    && holder.session == key.0
                    && holder.open == wait.owner.open),
                "{key:?} waits without a live holder"
            );
            assert!(self.wait_deadlines.contains(&(wait.deadline, *key)), "nobody watches {key:?}");
        }
        let len = self.waits.len();
        assert_eq!(self.locks.values().map(|locks| locks.waiters().count()).sum::<usize>(), len, "waiters");
        assert_eq!(
            self.holders.values().map(|holder| holder.waits.len()).sum::<usize>(),
            len,
            "holders' waits"
        );
        assert_eq!(self.wait_deadlines.len(), len, "the deadlines of waits");
    }
}
