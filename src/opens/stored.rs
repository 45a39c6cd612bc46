//! The table beyond the server's life: which records have changed, and how they become a table again.
//!
//! Only opens that can be resumed have records, and only what the next server needs is in them: no channel, no waiting
//! lock, nothing that executes. A call that changes what a record says notes the open; the caller asks with
//! [`OpenTable::take_changes`] after each call. A change is *urgent* if somebody is to be told of it, who must not be told
//! before it is stored; that somebody went away or came back is not.

use std::collections::BTreeMap;

use core::time::Duration;

use thiserror::Error;

use super::ended::{EndedKey, Tombstone};
use super::grants::Grants;
use super::keys::{KeyHash, KeyRecord, OpenKeys};
use super::open::{Holder, Open, Origin};
use super::sessions::SessionPart;
use super::state::OpenPhase;
use super::table::OpenTable;
use super::waits::LockOwner;
use crate::model::planted::{self, Bug};
use crate::model::{
    ByteRange, Epoch, FileIdentity, HandleId, OpenId, PublicKey, SessionId, StoredHolder, StoredIntent,
    StoredKey, StoredOpen, StoredTombstone, Time,
};

/// What is to be stored after a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TableChanges {
    /// Whether nothing may be told of the call before it is stored.
    pub is_urgent: bool,
    /// How many of the records are of no urgency.
    pub lazy: usize,
    /// The opens whose records changed; none: the record goes.
    pub opens: Vec<(OpenId, Option<StoredOpen>)>,
    /// The same of opens that ended.
    pub tombstones: Vec<(OpenId, Option<StoredTombstone>)>,
    /// The same of changes of the file system that were begun, by the numbers that their server gives them from 1 on. The
    /// table itself has none.
    pub intents: Vec<(u64, Option<StoredIntent>)>,
    /// Up to which life of the server intents were given up, where that has changed.
    pub horizon: Option<Epoch>,
    /// Files of which the records now say who has written: no change of them may execute before that is stored.
    pub marked: Vec<FileIdentity>,
}

impl TableChanges {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.opens.is_empty()
            && self.tombstones.is_empty()
            && self.intents.is_empty()
            && self.horizon.is_none()
    }
}

/// Why records are no table. Whoever has written them has made a mistake, or somebody has changed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Two records have something that can be there once: a handle or a create id.
    #[error("the record of open {0} has what another record has too")]
    Twice(OpenId),
    /// An open excludes another one of the same file.
    #[error("open {0} and another one of the same file exclude each other")]
    Excluded(OpenId),
    /// A lock excludes that of another open, or is no range.
    #[error("open {0} has a lock that it cannot have")]
    Lock(OpenId),
    /// A key or a right that it cannot have, or no holder.
    #[error("the record of open {0} contradicts itself")]
    Contradiction(OpenId),
}

/// When and where a stored table comes back.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// The time.
    pub now: Time,
    /// Whether the machine has run since the table was written: stored times are of the same clock then.
    pub is_same_boot: bool,
    /// Least time that each orphan has from now on, whatever its deadline was.
    pub grace_min: Duration,
    /// How often the grace of one orphan begins anew because the machine was started anew.
    pub renewals_max: u8,
}

impl OpenTable {
    /// Whether there is anything to store.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.dirty.is_empty() || !self.dirty_lazily.is_empty() || self.tombstones.has_changes()
    }

    /// What has to be stored since the last call: all that is urgent, and so many records at most of what is not. The rest of
    /// that waits for the next call.
    pub fn take_changes(&mut self, lazy_max: usize) -> TableChanges {
        let (opens, tombstones) = (core::mem::take(&mut self.dirty), self.tombstones.take_changed());
        let is_urgent = !opens.is_empty() || !tombstones.is_empty();
        let mut lazy = core::mem::take(&mut self.dirty_lazily);
        if let Some(&rest) = lazy.iter().nth(lazy_max) {
            self.dirty_lazily = lazy.split_off(&rest);
        }
        let marked = core::mem::take(&mut self.newly_marked);
        let mut changes = TableChanges { is_urgent, lazy: lazy.len(), marked, ..TableChanges::default() };
        changes.opens.extend(opens.into_iter().chain(lazy).map(|id| (id, self.stored(id))));
        for id in tombstones {
            let stored = self.tombstones.find(id).map(|(order, tombstone)| tombstone.stored(order));
            changes.tombstones.push((id, stored));
        }
        changes
    }

    /// The store has what was to be stored of an open.
    pub fn note_stored(&mut self, id: OpenId) {
        if let Some(open) = self.opens.get_mut(&id) {
            open.is_stored = true;
        }
    }

    /// Whether an open is there that has to have a record and has none.
    #[must_use]
    pub fn is_unstored(&self, id: OpenId) -> bool {
        let Some(open) = self.opens.get(&id) else { return false };
        let is_there = matches!(open.phase, OpenPhase::Held | OpenPhase::Orphaned);
        is_there && open.resumable && !open.is_stored
    }

    /// A handle is given out: its open is to be stored, if it is not.
    pub fn touch_unstored(&mut self, handle: HandleId) {
        if let Some((id, _)) = self.part_of(handle).filter(|(id, _)| self.is_unstored(*id)) {
            self.touch(id);
        }
    }

    /// The open and the session of a handle.
    #[must_use]
    pub fn part_of(&self, handle: HandleId) -> Option<(OpenId, SessionId)> {
        self.holders.get(&handle).map(|holder| (holder.open, holder.session))
    }

    /// The record of an open could not be stored as it was: what there is now has to be stored before anything is told that
    /// waited for it. If it is gone meanwhile, its record goes.
    pub fn store_again(&mut self, id: OpenId) {
        self.dirty_lazily.remove(&id);
        self.dirty.insert(id);
        self.tombstones.store_again(id);
    }

    /// The same of what is left of an open.
    pub fn store_end_again(&mut self, id: OpenId) {
        self.tombstones.touch(id);
    }

    /// It could not be stored that somebody has written to these files.
    pub fn mark_again(&mut self, files: Vec<FileIdentity>) {
        self.newly_marked.extend(files);
    }

    /// Takes back a handle that nobody has heard of.
    pub fn take_back(&mut self, handle: HandleId) {
        self.stop_holder(handle);
        self.finish();
    }

    /// Puts a stored open back in. Its holders are away: their sessions are over for good, and whoever resumes with a key
    /// takes the place of the key's holder. Those that were reachable have all of their grace from now on; those that were
    /// not have what was left of it, and all of it if the machine was started anew, though not for ever.
    ///
    /// # Errors
    /// [`RestoreError`]: the records are not of one table. The table is of no use then.
    pub fn restore(&mut self, at: &Restart, id: OpenId, stored: &StoredOpen) -> Result<(), RestoreError> {
        self.check_stored(id, stored)?;
        let is_renewed = !at.is_same_boot && stored.holders.iter().all(|holder| holder.deadline.is_some());
        let renewals = stored.renewals.saturating_add(u8::from(is_renewed));
        let open = Open::restored(stored, renewals, at.is_same_boot);
        let grace = open.grace;
        let soonest = at.now.after(at.grace_min);
        let deadline = |holder: &StoredHolder| match holder.deadline {
            _ if planted::is(Bug::DeadlinesForgotten) => at.now,
            None => at.now.after(grace).max(soonest),
            Some(deadline) if at.is_same_boot => deadline.max(soonest),
            Some(_) if renewals <= at.renewals_max => at.now.after(grace).max(soonest),
            Some(_) => soonest,
        };
        self.insert_record(id, open);
        for holder in &stored.holders {
            let part = self.by_session.entry(holder.session).or_default();
            *part = SessionPart { is_away: true, is_over: true, ..core::mem::take(part) };
            part.handles.insert(holder.handle);
            let origin = if holder.is_opened { Origin::Opened } else { Origin::Resumed };
            let mut restored = Holder::new(id, (holder.session, holder.identity), holder.rights, origin);
            restored.on_session_away(deadline(holder));
            if let Some(open) = self.opens.get_mut(&id) {
                open.holders.push(holder.handle);
            }
            self.holders.insert(holder.handle, Box::new(restored.of_grant(holder.grant)));
        }
        self.settle(id);
        stored.holders.iter().for_each(|holder| self.note_writer(holder.handle));
        self.restore_grants(at, id, stored);
        self.restore_locks(id, stored)?;
        self.finish();
        // The deadlines are new.
        self.touch_lazily(id);
        Ok(())
    }

    /// Puts the tombstones back in, whichever order they come in. Where the machine was started anew nobody knows how long
    /// ago their opens ended: they are remembered as if they had just ended. Only those are stored once more.
    pub fn restore_tombstones(
        &mut self,
        at: &Restart,
        stored: impl IntoIterator<Item = (OpenId, StoredTombstone)>,
    ) {
        let in_order: BTreeMap<u64, _> =
            stored.into_iter().map(|(id, stored)| (stored.order, (id, stored))).collect();
        for (order, (id, stored)) in in_order {
            let key = |(generation, hash, bearer): &(u32, [u8; 32], Option<PublicKey>)| EndedKey {
                generation: *generation,
                hash: KeyHash::restored(*hash),
                bearer: *bearer,
            };
            let keys = stored.keys.iter().map(key).collect();
            let ended = if at.is_same_boot { stored.ended.min(at.now) } else { at.now };
            let tombstone = Tombstone { owner: stored.owner, keys, ending: stored.ending, ended };
            let is_stored = ended == stored.ended;
            self.tombstones.restore((order, id), tombstone, self.tombstone_bounds, is_stored);
        }
    }

    /// The record of an open has changed, and somebody is to be told.
    pub(super) fn touch(&mut self, id: OpenId) {
        self.touch_as(id, true);
    }

    /// The record of an open has changed, and no change of its file may execute before that is stored.
    pub(super) fn touch_before_writes(&mut self, id: OpenId) {
        self.touch(id);
        let file = self.opens.get(&id).filter(|open| open.resumable).map(|open| open.file);
        self.newly_marked.extend(file);
    }

    /// The record of an open has changed, and nobody is told.
    pub(super) fn touch_lazily(&mut self, id: OpenId) {
        self.touch_as(id, false);
    }

    fn touch_as(&mut self, id: OpenId, is_urgent: bool) {
        if self.opens.get(&id).is_some_and(|open| open.resumable) {
            if is_urgent {
                self.dirty_lazily.remove(&id);
                self.dirty.insert(id);
            } else if !self.dirty.contains(&id) {
                self.dirty_lazily.insert(id);
            }
        }
    }

    fn stored(&self, id: OpenId) -> Option<StoredOpen> {
        let open = self.opens.get(&id)?;
        if !matches!(open.phase, OpenPhase::Held | OpenPhase::Orphaned) {
            return None;
        }
        let holders = open.holders.iter().filter_map(|handle| Some((*handle, self.holders.get(handle)?)));
        let holders =
            holders.filter(|(_, holder)| !holder.is_draining()).map(|(handle, holder)| StoredHolder {
                handle,
                session: holder.session,
                identity: holder.identity,
                rights: holder.rights,
                is_opened: holder.origin == Origin::Opened,
                deadline: holder.deadline,
                grant: holder.grant,
            });
        Some(StoredOpen {
            owner: open.owner,
            export: open.export.clone(),
            path: open.path.clone(),
            file: open.file,
            mode: open.mode,
            create_id: open.create_id,
            grace_us: u64::try_from(open.grace.as_micros()).unwrap_or(u64::MAX),
            guard: open.guard,
            wrote: open.wrote,
            others_wrote: open.others_wrote,
            unsynced: open.unsynced,
            has_kept: open.has_kept,
            lost: open.lost,
            expected: open.expected,
            holders: holders.collect(),
            keys: open.keys.records().iter().map(KeyRecord::stored).collect(),
            issued: open.keys.issued(),
            locks: self.locks(id).into_iter().map(|(range, mode)| (range.raw(), mode)).collect(),
            renewals: open.renewals,
            grants: open.grants().stored(),
            ended_grants: open.grants().stored_ended(),
        })
    }

    fn check_stored(&self, id: OpenId, stored: &StoredOpen) -> Result<(), RestoreError> {
        let is_known = self.opens.contains_key(&id)
            || self.by_owner.get(&stored.owner).is_some_and(|own| own.contains_key(&stored.create_id))
            || stored.holders.iter().any(|holder| self.holders.contains_key(&holder.handle))
            || stored.grants.iter().any(|grant| self.grants.contains_key(&grant.grant));
        if is_known {
            return Err(RestoreError::Twice(id));
        }
        let mut others = self.by_file.get(&stored.file).into_iter().flatten();
        if others.any(|(mode, _)| !mode.is_compatible(stored.mode)) {
            return Err(RestoreError::Excluded(id));
        }
        let has_home = |key: &StoredKey| stored.holders.iter().any(|holder| holder.handle == key.home);
        let is_permitted =
            |holder: &StoredHolder| super::open::rights_max(stored.mode).permits(holder.rights);
        let is_sound = !stored.holders.is_empty()
            && stored.holders.iter().all(is_permitted)
            && stored.keys.iter().all(has_home)
            && stored.keys.iter().all(|key| key.generation <= stored.issued)
            && Grants::is_sound(stored);
        if is_sound { Ok(()) } else { Err(RestoreError::Contradiction(id)) }
    }

    fn restore_locks(&mut self, id: OpenId, stored: &StoredOpen) -> Result<(), RestoreError> {
        let owner = LockOwner { open: id, file: stored.file, identity: stored.owner };
        if planted::is(Bug::LocksForgotten) {
            return Ok(());
        }
        for (range, mode) in &stored.locks {
            let range = ByteRange::new(*range).ok_or(RestoreError::Lock(id))?;
            let splice = self.plan_restored(owner, (range, *mode)).ok_or(RestoreError::Lock(id))?;
            self.apply(owner, range, &splice);
        }
        Ok(())
    }
}

impl Open {
    fn restored(stored: &StoredOpen, renewals: u8, is_same_boot: bool) -> Self {
        Self {
            owner: stored.owner,
            export: stored.export.clone(),
            path: stored.path.clone(),
            file: stored.file,
            mode: stored.mode,
            create_id: stored.create_id,
            grace: Duration::from_micros(stored.grace_us),
            resumable: true,
            guard: stored.guard,
            phase: OpenPhase::Held,
            deadline: None,
            // Most have one, and there are many opens.
            holders: Vec::with_capacity(1),
            keys: OpenKeys::restored(stored),
            expected: stored.expected,
            wrote: stored.wrote,
            others_wrote: stored.others_wrote,
            // What had come of it was noted as a change by others. Where there are several holders, each of them has to hear
            // of that; where there is one, it does when it comes back, and once.
            keeps_mark: stored.others_wrote && stored.holders.len() > 1,
            is_usurped: false,
            has_kept: stored.has_kept,
            unsynced: stored.unsynced && is_same_boot,
            lost: stored.lost || stored.unsynced && !is_same_boot,
            is_settling: false,
            is_restored: true,
            renewals,
            is_stored: true,
            granted: None,
        }
    }
}

impl KeyRecord {
    fn stored(&self) -> StoredKey {
        StoredKey {
            generation: self.generation,
            hash: self.hash.bytes(),
            home: self.home,
            rights: self.rights,
            is_own: self.is_own,
            grant: self.grant,
        }
    }
}

impl OpenKeys {
    fn restored(stored: &StoredOpen) -> Self {
        let record = |key: &StoredKey| KeyRecord {
            generation: key.generation,
            hash: KeyHash::restored(key.hash),
            home: key.home,
            rights: key.rights,
            is_own: key.is_own,
            grant: key.grant,
        };
        Self::new(stored.keys.iter().map(record).collect(), stored.issued)
    }
}

impl Tombstone {
    fn stored(&self, order: u64) -> StoredTombstone {
        let keys = self.keys.iter().map(|key| (key.generation, key.hash.bytes(), key.bearer)).collect();
        StoredTombstone { order, owner: self.owner, keys, ending: self.ending, ended: self.ended }
    }
}
