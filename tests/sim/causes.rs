//! Whether "changed by another client" has a cause. It is checked where the server knows exactly: of an open that has had
//! one holder at a time, whose holder came back with a key and has certainly heard so, was gone long enough that the file was
//! looked at and the look stored, and comes back once more. Whoever hears it then must have a write of somebody else behind its former return.
//!
//! Nothing was written through the open, either. A client that has written may keep bytes from before the change, and
//! hears of that again when it comes back once more: after a loss it must not write them over the newer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline::model::{HandleId, OpenId, Time};
use bowline::opens::{HolderPhase, HolderView, OpenPhase};

use super::pair::Pair;

/// A look and its record take a few milliseconds.
const LOOKED: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Causes {
    /// When the latest write through each open of each file has begun or ended.
    writes: BTreeMap<(u64, OpenId), Time>,
    begun: usize,
    executed: usize,
    refused: u64,
    /// When the store has refused a commit: an append that could not be recorded was noted as a change, and not made.
    refused_at: Time,
    opens: BTreeMap<OpenId, Followed>,
}

#[derive(Default)]
struct Followed {
    inode: u64,
    handles: BTreeSet<HandleId>,
    /// When its present holder came, with a key.
    returned: Option<Time>,
    /// Its client has the answer that said so, as of when it was there last.
    is_told: bool,
    /// It has had several holders at once.
    is_shared: bool,
    /// Somebody has held it in this life of the server.
    was_held: bool,
    gone_since: Option<Time>,
    was_looked_at: bool,
    /// From when on there has to be a write, if its present holder is told of one.
    due_from: Option<Time>,
}

impl Causes {
    /// Nobody looks at what a restart has brought back.
    pub(crate) fn after_restart(&mut self) {
        for open in self.opens.values_mut() {
            (open.was_held, open.gone_since) = (false, None);
        }
    }

    pub(crate) fn look(&mut self, pair: &Pair) {
        let now = pair.now();
        for &(inode, open) in &pair.disk.begun[self.begun..] {
            self.writes.insert((inode, open), now);
        }
        for write in &pair.disk.writes[self.executed..] {
            self.writes.insert((write.inode, write.open), now);
        }
        if std::mem::replace(&mut self.refused, pair.store.refused) < pair.store.refused {
            self.refused_at = now;
        }
        (self.begun, self.executed) = (pair.disk.begun.len(), pair.disk.writes.len());
        for open in pair.server.table().opens() {
            let holders: Vec<HolderView<'_>> = pair.server.table().holders_of(open.open).collect();
            let followed = self.opens.entry(open.open).or_default();
            followed.inode = open.file.inode;
            followed.step(now, open.phase, &holders, pair.store.is_full);
            if open.phase == OpenPhase::Held {
                let mut live = holders.iter().filter(|holder| holder.phase == HolderPhase::Live);
                followed.is_told = live.any(|holder| pair.server.table().is_told(holder.handle));
            }
        }
    }

    /// Somebody hears that another client has changed the file.
    pub(crate) fn check(&self, pair: &Pair, open: OpenId) {
        let Some(followed) = self.opens.get(&open).filter(|followed| !followed.is_shared) else { return };
        let Some(from) = followed.due_from else { return };
        if self.writes.contains_key(&(followed.inode, open)) {
            return;
        }
        let of_others = self.writes.iter().filter(|((inode, by), _)| *inode == followed.inode && *by != open);
        let has_cause = of_others.into_iter().any(|(_, at)| *at >= from) || self.refused_at >= from;
        pair.check(has_cause, "a change by another client was told, and there was none since the last time");
    }
}

impl Followed {
    fn step(&mut self, now: Time, phase: OpenPhase, holders: &[HolderView<'_>], is_store_full: bool) {
        let there = holders.iter().filter(|holder| holder.phase != HolderPhase::Draining);
        self.is_shared |= there.clone().count() > 1;
        for holder in there {
            let is_first = self.handles.is_empty();
            if self.handles.insert(holder.handle) {
                let was_looked_at = std::mem::take(&mut self.was_looked_at);
                let was_told = std::mem::take(&mut self.is_told);
                self.due_from = self.returned.filter(|_| was_looked_at && was_told);
                self.returned = (!is_first).then_some(now);
            }
        }
        self.was_held |= phase == OpenPhase::Held;
        let is_idle = holders.iter().all(|holder| holder.executing == 0);
        if phase != OpenPhase::Orphaned || !is_idle || !self.was_held || is_store_full {
            self.gone_since = None;
            return;
        }
        let since = *self.gone_since.get_or_insert(now);
        self.was_looked_at |= now.since(since) >= LOOKED;
    }
}
