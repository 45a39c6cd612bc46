//! Files that two sessions may write to, and what is not on the disk of what was acknowledged through an open.
//!
//! A client keeps what was acknowledged as received, and writes it again when the server's page cache was lost. Where a
//! second session may write, that would be older bytes over newer ones, or nobody could tell. So a file is *joint* while
//! holders of two sessions may write to it, and nothing of it is acknowledged before it is durable; and what was
//! acknowledged before is synced before the second one is told of its handle. A session that a client process has begun in
//! the place of another one is one with it.
//!
//! What is stored of it: whether anything may have been acknowledged through an open as received only (`unsynced`, there
//! before the first such write executes), and whether some of that went with a machine (`lost`, until everybody who has
//! the open has synced it). Where neither is so, who comes back has lost nothing. And whether anything ever was (`has_kept`):
//! then a change by another client stays noted, because what is kept may be older.

use super::open::Holder;
use super::table::OpenTable;
use crate::model::{FileIdentity, HandleId, OpenId, SessionId};

impl OpenTable {
    /// Whether holders of two sessions may write to the file of an open; those that are away count.
    #[must_use]
    pub fn is_joint(&self, id: OpenId) -> bool {
        self.opens.get(&id).is_some_and(|open| self.joint.contains(&open.file))
    }

    /// Whether a change of the file through this open may be acknowledged before it is durable.
    #[must_use]
    pub fn may_be_unsynced(&self, id: OpenId) -> bool {
        self.opens
            .get(&id)
            .is_some_and(|open| open.unsynced && !open.is_settling && !self.joint.contains(&open.file))
    }

    /// A change of an open's bytes begins. Unless the file is joint, it may be acknowledged before it is durable, which is
    /// noted before it executes.
    pub fn note_unsynced(&mut self, id: OpenId) {
        let Some(open) = self.opens.get_mut(&id) else { return };
        if open.unsynced || open.is_settling || self.joint.contains(&open.file) {
            return;
        }
        (open.unsynced, open.has_kept) = (true, true);
        if let Some(changes) = self.changes.get_mut(&open.file) {
            // Whoever writes from now on may write over what is kept of it.
            changes.forget_marks();
        }
        self.touch_before_writes(id);
    }

    /// The opens of a joint file, of this open's, that are to be synced before anybody else may write: until
    /// [`Self::settled`] nothing more of them is acknowledged before it is durable.
    ///
    /// Each is an operation of the handle that is told with it, which `settled` ends.
    pub fn begin_settling(&mut self, id: OpenId) -> Vec<(OpenId, HandleId)> {
        let Some(file) = self.file_of(id).filter(|file| self.joint.contains(file)) else { return Vec::new() };
        let ids = self.by_file.get(&file).into_iter().flatten().flat_map(|(_, ids)| ids);
        let is_owing =
            |id: &OpenId| self.opens.get(id).is_some_and(|open| open.unsynced && !open.is_settling);
        let staying =
            |handle: &&HandleId| self.holders.get(*handle).is_some_and(|holder| !holder.is_draining());
        // One that ends owes nobody anything.
        let staying = |id: OpenId| Some((id, *self.opens.get(&id)?.holders.iter().find(staying)?));
        let owing: Vec<_> = ids.copied().filter(is_owing).filter_map(staying).collect();
        for (id, handle) in &owing {
            if let (Some(open), Some(holder)) = (self.opens.get_mut(id), self.holders.get_mut(handle)) {
                open.is_settling = true;
                holder.executing = holder.executing.saturating_add(1);
            }
        }
        owing
    }

    /// A sync that [`Self::begin_settling`] wanted is done: `is_durable` says whether all is on the disk that was
    /// acknowledged through the open.
    pub fn settled(&mut self, (id, handle): (OpenId, HandleId), is_durable: bool) {
        if let Some(open) = self.opens.get_mut(&id) {
            open.is_settling = false;
            if is_durable {
                open.unsynced = false;
                self.touch(id);
            }
        }
        self.end_operation(handle);
    }

    /// Whether all that was ever acknowledged through an open is durable, for all that the server knows.
    #[must_use]
    pub fn is_durable(&self, id: OpenId) -> bool {
        self.opens.get(&id).is_some_and(|open| !open.unsynced && !open.lost)
    }

    /// Whether something went with a machine that had been acknowledged through an open, and its clients may write it again.
    #[must_use]
    pub fn is_lost(&self, id: OpenId) -> bool {
        self.opens.get(&id).is_some_and(|open| open.lost)
    }

    /// A holder's sync has succeeded: its client has nothing left of what went with a machine. When all of them have
    /// synced, and nobody may come back whom another one has taken the place of, that is over.
    pub fn note_synced(&mut self, handle: HandleId) {
        let Some(holder) = self.holders.get_mut(&handle) else { return };
        holder.has_synced = true;
        let id = holder.open;
        let Some(open) = self.opens.get_mut(&id).filter(|open| open.lost && !open.keeps_mark) else { return };
        let mut holders = open.holders.iter().filter_map(|handle| self.holders.get(handle));
        if holders.all(|holder| holder.has_synced) {
            open.lost = false;
            self.touch_lazily(id);
        }
    }

    /// A holder has come.
    pub(super) fn note_writer(&mut self, handle: HandleId) {
        let Some(holder) = self.holders.get(&handle).filter(|holder| holder.is_writer()) else { return };
        let Some(file) = self.file_of(holder.open).filter(|file| !self.joint.contains(file)) else { return };
        let session = self.first_session(holder.session);
        // As long as the file is not joint, all others are of one.
        let other = self.writers(file).find(|(other, _)| *other != handle);
        if other.is_some_and(|(_, other)| other != session) {
            self.joint.insert(file);
        }
    }

    /// A holder writes no more, or the file's last open has gone.
    pub(super) fn forget_writer(&mut self, file: FileIdentity) {
        if self.joint.contains(&file) {
            self.left.insert(file);
        }
    }

    /// Looks once for all writers that a call has ended whether others are left: a session may have thousands in one file.
    pub(super) fn settle_writers(&mut self) {
        for file in core::mem::take(&mut self.left) {
            if !self.has_two_writers(file) {
                self.joint.remove(&file);
            }
        }
    }

    pub(super) fn has_two_writers(&self, file: FileIdentity) -> bool {
        let mut sessions = self.writers(file).map(|(_, session)| session);
        sessions.next().is_some_and(|first| sessions.any(|other| other != first))
    }

    /// Who may write to a file, and in which session; those of one client process are one.
    fn writers(&self, file: FileIdentity) -> impl Iterator<Item = (HandleId, SessionId)> {
        let groups = self.by_file.get(&file).into_iter().flatten();
        let ids = groups.filter(|(mode, _)| mode.rights.is_writing()).flat_map(|(_, ids)| ids);
        let handles = ids.filter_map(|id| self.opens.get(id)).flat_map(|open| &open.holders);
        let holders = handles.filter_map(|handle| Some((*handle, self.holders.get(handle)?)));
        holders
            .filter(|(_, holder)| holder.is_writer())
            .map(|(handle, holder)| (handle, self.first_session(holder.session)))
    }
}

impl Holder {
    fn is_writer(&self) -> bool {
        self.rights.is_writing() && !self.is_draining()
    }
}
