//! What is known of each open: where its file is found again, which file it must be, and its descriptor if it is
//! there. A value: it opens and closes nothing, and asks nobody.

use core::ops::Bound;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::Held;
use super::order::Order;
use crate::model::{ExportName, FileIdentity, OpenId, Reason, Rights};

/// Where an open's entry stands.
pub(super) type Slot = u32;

/// A path beneath an export's top, without links in it as far as that is known.
pub(super) type Path = Arc<[u8]>;

/// What is known of all opens.
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_open: HashMap<OpenId, Slot>,
    /// The entries whose descriptors may be closed, by their last use.
    closable: Order,
    /// The entries by where their files are.
    paths: BTreeSet<(u16, Path, Slot)>,
    /// The exports that were ever named here, by their numbers.
    exports: Vec<ExportName>,
    /// Names that are about to go.
    going: Vec<Going>,
    pinned: usize,
    pinned_max: usize,
}

/// What is known of an open.
pub(super) struct Entry {
    pub(super) open: OpenId,
    pub(super) identity: FileIdentity,
    /// What the descriptor must be good for.
    pub(super) rights: Rights,
    export: u16,
    /// `None`: the file has no name beneath its export any more, and there is no way back to it.
    path: Option<Path>,
    presence: Presence,
    /// A failed sync that nobody who has the open has heard of.
    untold: Option<Reason>,
    /// How many syncs have failed, and why the last one did.
    failed_syncs: u32,
    sync_failure: Option<Reason>,
    /// How often it was tried to open the file again, and what became of the last time.
    attempts: u32,
    failure: Option<Reason>,
    /// Whether the file's permissions forbid to open it again.
    is_forbidden: bool,
    is_pinned: bool,
}

pub(super) enum Presence {
    Away,
    /// Somebody opens it again.
    Opening,
    Here(Arc<Held>),
}

/// A name that somebody is about to take away from its file: what is open there stays open.
struct Going {
    export: u16,
    path: Path,
    /// How many opens there are, whose descriptors will be pinned.
    opens: usize,
}

/// How to open an open's file again.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) export: ExportName,
    pub(super) path: Option<Path>,
    pub(super) rights: Rights,
    pub(super) identity: FileIdentity,
}

/// How somebody who wants a descriptor gets it.
pub(super) enum Next {
    Here(Arc<Held>),
    /// By opening it; everybody else waits until [`Table::finish`].
    Open(Origin),
    /// By waiting for somebody who opens it; the number is to be handed in the next time.
    Wait(u32),
    /// Not: whom it waited for has failed.
    Failed(Reason),
    /// There is no such open.
    Unknown,
}

/// A descriptor that may be closed.
pub(super) struct Candidate {
    pub(super) slot: Slot,
    pub(super) open: OpenId,
    pub(super) held: Arc<Held>,
}

impl Table {
    pub(super) fn new(pinned_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_open: HashMap::new(),
            closable: Order::default(),
            paths: BTreeSet::new(),
            exports: Vec::new(),
            going: Vec::new(),
            pinned: 0,
            pinned_max,
        }
    }

    /// Puts an open in; with a descriptor, or without one until it is needed.
    ///
    /// # Errors
    /// Gives the descriptor back where it would have to be pinned and there is no place among the pins, or the table
    /// is full.
    pub(super) fn insert(
        &mut self,
        open: OpenId,
        origin: Origin,
        held: Option<Arc<Held>>,
    ) -> Result<(), Option<Arc<Held>>> {
        let Origin { export, path, rights, identity } = origin;
        let Some(export) = self.number_of(&export) else { return Err(held) };
        let going = path.as_ref().and_then(|path| self.going_at(export, path));
        if held.is_some() && (path.is_none() || going.is_some()) && !self.may_pin(1) {
            return Err(held);
        }
        let Some(slot) = self.free.pop().or_else(|| Slot::try_from(self.entries.len()).ok()) else {
            return Err(held);
        };
        if let Some(going) = going.and_then(|at| self.going.get_mut(at)) {
            going.opens = going.opens.saturating_add(1);
        }
        let entry = Entry {
            open,
            identity,
            rights,
            export,
            path: None,
            presence: held.map_or(Presence::Away, Presence::Here),
            untold: None,
            failed_syncs: 0,
            sync_failure: None,
            attempts: 0,
            failure: None,
            is_forbidden: false,
            is_pinned: false,
        };
        let at = index(slot);
        if self.entries.len() <= at {
            self.entries.resize_with(at.saturating_add(1), || None);
        }
        if let Some(place) = self.entries.get_mut(at) {
            *place = Some(entry);
        }
        let replaced = self.by_open.insert(open, slot);
        debug_assert!(replaced.is_none(), "an open's id is drawn once");
        self.set_path(slot, path);
        Ok(())
    }

    /// Forgets an open. What is returned is to be dropped where nobody waits.
    pub(super) fn remove(&mut self, open: OpenId) -> Option<Arc<Held>> {
        let slot = self.by_open.remove(&open)?;
        self.set_path(slot, None);
        let mut entry = self.entries.get_mut(index(slot))?.take()?;
        self.closable.remove(slot);
        self.pinned = self.pinned.saturating_sub(usize::from(entry.is_pinned));
        self.free.push(slot);
        match core::mem::replace(&mut entry.presence, Presence::Away) {
            Presence::Here(held) => Some(held),
            Presence::Away | Presence::Opening => None,
        }
    }

    /// The descriptor of an open, if it is there.
    pub(super) fn here(&mut self, open: OpenId) -> Option<Arc<Held>> {
        let slot = *self.by_open.get(&open)?;
        let Presence::Here(held) = &self.entry(slot)?.presence else { return None };
        let held = Arc::clone(held);
        self.closable.touch(slot);
        Some(held)
    }

    /// How to get the descriptor of an open; `waited` if [`Next::Wait`] was the answer before.
    pub(super) fn next(&mut self, open: OpenId, waited: Option<u32>) -> Next {
        if let Some(held) = self.here(open) {
            return Next::Here(held);
        }
        let Some(entry) = self.slot_of(open).and_then(|slot| self.entry_mut(slot)) else {
            return Next::Unknown;
        };
        if matches!(entry.presence, Presence::Opening) {
            return Next::Wait(entry.attempts);
        }
        if let Some(reason) = entry.failure.filter(|_| waited.is_some_and(|before| before != entry.attempts))
        {
            return Next::Failed(reason);
        }
        entry.presence = Presence::Opening;
        let origin = self.origin(open);
        debug_assert!(origin.is_some(), "an open that is there has an origin");
        origin.map_or(Next::Unknown, Next::Open)
    }

    /// Whoever was to open a file has, or has not. What is returned belongs to an open that is gone.
    pub(super) fn finish(&mut self, open: OpenId, outcome: Result<Arc<Held>, Reason>) -> Option<Arc<Held>> {
        let Some(slot) = self.slot_of(open) else { return outcome.ok() };
        let entry = self.entry_mut(slot)?;
        entry.attempts = entry.attempts.wrapping_add(1);
        entry.failure = outcome.as_ref().err().copied();
        entry.presence = outcome.map_or(Presence::Away, Presence::Here);
        entry.is_forbidden = false;
        self.settle(slot);
        None
    }

    /// A sync has failed, and whoever asked for it is told; or nobody has asked, and the next one who does is.
    pub(super) fn sync_failed(&mut self, open: OpenId, reason: Reason, is_told: bool) {
        let Some(entry) = self.entry_of(open) else { return };
        entry.failed_syncs = entry.failed_syncs.wrapping_add(1);
        entry.sync_failure = Some(reason);
        if !is_told {
            entry.untold.get_or_insert(reason);
        }
    }

    /// How many syncs of an open have failed.
    pub(super) fn failed_syncs(&mut self, open: OpenId) -> u32 {
        self.entry_of(open).map_or(0, |entry| entry.failed_syncs)
    }

    /// What somebody is to be told who asked for a sync when so many had failed `before`: a failure that nobody has heard
    /// of, or one that has come while he waited.
    pub(super) fn take_untold(&mut self, open: OpenId, before: u32) -> Option<Reason> {
        let entry = self.entry_of(open)?;
        let since = entry.sync_failure.filter(|_| entry.failed_syncs != before);
        entry.untold.take().or(since)
    }

    /// The descriptor that was used longest ago and may be closed, and which nobody uses now, if it is one of the `most`
    /// that were; and how many were looked at. Each of them becomes the one that was used last.
    pub(super) fn candidate(&mut self, most: usize) -> (Option<Candidate>, usize) {
        let most = most.min(self.closable.len());
        for looked in 1..=most {
            let Some(slot) = self.closable.oldest() else { break };
            self.closable.touch(slot);
            let Some(entry) = self.entry(slot) else { continue };
            let Presence::Here(held) = &entry.presence else { continue };
            if Arc::strong_count(held) == 1 && !self.is_going(entry) {
                // What the last user has done through it is seen from here on.
                fence(Ordering::Acquire);
                let held = Arc::clone(held);
                return (Some(Candidate { slot, open: entry.open, held }), looked);
            }
        }
        (None, most)
    }

    /// Takes a candidate's descriptor out, unless somebody uses it, its name is about to go, or `is_clean` says no. It
    /// is the last one but the candidate's own.
    pub(super) fn take(
        &mut self,
        candidate: &Candidate,
        is_clean: impl FnOnce() -> bool,
    ) -> Option<Arc<Held>> {
        let entry = self.same(candidate)?;
        let is_ours = matches!(&entry.presence, Presence::Here(held) if Arc::ptr_eq(held, &candidate.held));
        let is_used = Arc::strong_count(&candidate.held) > 2;
        if !is_ours || is_used || entry.is_pinned || self.is_going(entry) {
            return None;
        }
        fence(Ordering::Acquire);
        if !is_clean() {
            return None;
        }
        let entry = self.entry_mut(candidate.slot)?;
        let taken = core::mem::replace(&mut entry.presence, Presence::Away);
        self.settle(candidate.slot);
        match taken {
            Presence::Here(held) => Some(held),
            Presence::Away | Presence::Opening => None,
        }
    }

    /// Keeps a candidate's descriptor because the file's permissions forbid to open it again, as long as that takes
    /// no more than half of the pins.
    pub(super) fn forbid(&mut self, candidate: &Candidate) -> bool {
        let has_room = self.pinned.saturating_add(self.going_len()) < self.pinned_max / 2;
        if !has_room || self.same(candidate).is_none() {
            return false;
        }
        if let Some(entry) = self.entry_mut(candidate.slot) {
            entry.is_forbidden = true;
        }
        self.settle(candidate.slot);
        true
    }

    /// Where an open's file is now.
    pub(super) fn set_path(&mut self, slot: Slot, path: Option<Path>) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let export = entry.export;
        if let Some(old) = core::mem::replace(&mut entry.path, path.clone()) {
            self.paths.remove(&(export, old, slot));
        }
        if let Some(path) = path {
            self.paths.insert((export, path, slot));
        }
        self.settle(slot);
    }

    /// Says that a name is about to go; what is open there stays open until [`Table::end_going`]. Tells which opens have
    /// no descriptor; `None` if there is no place for so many pins.
    pub(super) fn begin_going(&mut self, export: &ExportName, path: &Path) -> Option<Vec<OpenId>> {
        let number = self.number_of(export)?;
        let at = self.slots_at(number, path);
        if !at.is_empty() && !self.may_pin(at.len()) {
            return None;
        }
        self.going.push(Going { export: number, path: Arc::clone(path), opens: at.len() });
        let away = at.into_iter().filter_map(|slot| self.entry(slot));
        Some(
            away.filter(|entry| !matches!(entry.presence, Presence::Here(_)))
                .map(|entry| entry.open)
                .collect(),
        )
    }

    /// The name is gone, or is there to stay.
    pub(super) fn end_going(&mut self, export: &ExportName, path: &Path, is_gone: bool) {
        let Some(export) = self.number_of(export) else { return };
        if let Some(at) = self.going_at(export, path) {
            self.going.swap_remove(at);
        }
        if is_gone {
            for slot in self.slots_at(export, path) {
                self.set_path(slot, None);
            }
        }
    }

    /// Up to `most` entries whose files are at `path` or beneath it, from the one behind `after` on.
    pub(super) fn beneath(
        &self,
        export: &ExportName,
        path: &Path,
        after: Option<&(Path, Slot)>,
        most: usize,
    ) -> Vec<(Path, Slot)> {
        let Some(at) = self.exports.iter().position(|name| name == export) else { return Vec::new() };
        let Ok(export) = u16::try_from(at) else { return Vec::new() };
        let key = |path: &[u8], slot| (export, Path::from(path), slot);
        let after = after.map(|(path, slot)| Bound::Excluded((export, Arc::clone(path), *slot)));
        let is_at =
            |bound: &Bound<(u16, Path, Slot)>| matches!(bound, Bound::Excluded((_, at, _)) if at == path);
        let (start, below) = match after {
            Some(after) if is_at(&after) => (Some(after), None),
            Some(after) => (None, Some(after)),
            None => (Some(Bound::Included(key(path, 0))), None),
        };
        let exactly = start.map(|start| self.paths.range((start, Bound::Included(key(path, Slot::MAX)))));
        // All that begins with the path and a slash stands together; a zero is the byte behind the slash.
        let below = below.unwrap_or_else(|| Bound::Included(key(&[path, &b"/"[..]].concat(), 0)));
        let below = self.paths.range((below, Bound::Excluded(key(&[path, &b"0"[..]].concat(), 0))));
        let found = exactly.into_iter().flatten().chain(below);
        found.take(most).map(|(_, found, slot)| (Arc::clone(found), *slot)).collect()
    }

    /// The entries in these slots, from `from` on; and where to go on.
    pub(super) fn slots(&self, from: usize, most: usize) -> (impl Iterator<Item = &Entry>, Option<usize>) {
        let behind = from.saturating_add(most);
        let next = (behind < self.entries.len()).then_some(behind);
        (self.entries.iter().skip(from).take(most).flatten(), next)
    }

    pub(super) fn entry_of(&mut self, open: OpenId) -> Option<&mut Entry> {
        self.slot_of(open).and_then(|slot| self.entry_mut(slot))
    }

    pub(super) fn slot_of(&self, open: OpenId) -> Option<Slot> {
        self.by_open.get(&open).copied()
    }

    pub(super) fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(index(slot))?.as_ref()
    }

    /// How an open's file is opened again.
    pub(super) fn origin(&self, open: OpenId) -> Option<Origin> {
        let entry = self.entry(self.slot_of(open)?)?;
        Some(Origin {
            export: self.exports.get(usize::from(entry.export))?.clone(),
            path: entry.path.clone(),
            rights: entry.rights,
            identity: entry.identity,
        })
    }

    /// A candidate's entry, if its open is still there.
    pub(super) fn same(&self, candidate: &Candidate) -> Option<&Entry> {
        self.entry(candidate.slot).filter(|entry| entry.open == candidate.open)
    }

    pub(super) fn len(&self) -> usize {
        self.by_open.len()
    }

    /// How many descriptors can never be closed while their opens last, as far as is known.
    pub(super) fn pinned(&self) -> usize {
        self.pinned
    }

    pub(super) fn pinned_max(&self) -> usize {
        self.pinned_max
    }

    /// Whether more are pinned than there should be, by programs on the server.
    pub(super) fn is_overpinned(&self) -> bool {
        self.pinned > self.pinned_max
    }

    /// How many descriptors may be closed.
    pub(super) fn closable_len(&self) -> usize {
        self.closable.len()
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(index(slot))?.as_mut()
    }

    /// Brings what follows from an entry up to date: whether its descriptor is pinned, and whether it may be closed.
    fn settle(&mut self, slot: Slot) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let is_here = matches!(entry.presence, Presence::Here(_));
        let is_pinned = is_here && (entry.path.is_none() || entry.is_forbidden);
        let was_pinned = core::mem::replace(&mut entry.is_pinned, is_pinned);
        self.pinned =
            self.pinned.saturating_add(usize::from(is_pinned)).saturating_sub(usize::from(was_pinned));
        if !is_here || is_pinned {
            self.closable.remove(slot);
        } else if !self.closable.contains(slot) {
            self.closable.put(slot);
        }
    }

    fn may_pin(&self, more: usize) -> bool {
        self.pinned.saturating_add(self.going_len()).saturating_add(more) <= self.pinned_max
    }

    fn going_len(&self) -> usize {
        self.going.iter().map(|going| going.opens).sum()
    }

    fn going_at(&self, export: u16, path: &Path) -> Option<usize> {
        self.going.iter().position(|going| going.export == export && going.path == *path)
    }

    fn is_going(&self, entry: &Entry) -> bool {
        entry.path.as_ref().is_some_and(|path| self.going_at(entry.export, path).is_some())
    }

    fn slots_at(&self, export: u16, path: &Path) -> Vec<Slot> {
        let range = (export, Arc::clone(path), 0)..=(export, Arc::clone(path), Slot::MAX);
        self.paths.range(range).map(|(_, _, slot)| *slot).collect()
    }

    /// The number of an export, which it gets when it is first named.
    fn number_of(&mut self, export: &ExportName) -> Option<u16> {
        let at = self.exports.iter().position(|name| name == export);
        let at = at.unwrap_or_else(|| {
            self.exports.push(export.clone());
            self.exports.len().saturating_sub(1)
        });
        u16::try_from(at).ok()
    }
}

impl Entry {
    /// The descriptor, if it is there.
    pub(super) fn held(&self) -> Option<&Arc<Held>> {
        match &self.presence {
            Presence::Here(held) => Some(held),
            Presence::Away | Presence::Opening => None,
        }
    }

    #[cfg(test)]
    pub(super) fn is_forbidden(&self) -> bool {
        self.is_forbidden
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }
}

fn index(slot: Slot) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
