//! Who has changed which file, for whoever comes back and wants to know what became of it.
//!
//! A *writer* is an identity through an open: its duplicates are one writer with it, another identity that was granted a
//! part is another one. What writers did while the server runs is known with its time. What has to outlast the server is
//! two marks of each open, *its owner wrote* and *somebody else wrote*, which stand in its record before the first such
//! write executes; and how the file looked when everything that bowline did to it was done. Whoever else changes the
//! file, a local program say, is found out by that look alone, and only as long as nobody writes through bowline.
//!
//! Whoever comes back is told in the answer, which may be lost. Until it is known that a client has it, its absence has
//! not ended: when it comes once more, it is told of all since it was away first.

use super::events::TableEvent;
use super::keys::KeyRecord;
use super::open::{Holder, Open};
use super::state::OpenPhase;
use super::table::OpenTable;
use crate::model::planted::{self, Bug};
use crate::model::{
    Attributes, FileIdentity, FileMark, HandleId, Meanwhile, OpenId, PublicKey, ResumeKey, SessionId, Time,
};

/// Somebody who changes a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Writer {
    /// The open; none for changes of names.
    open: Option<OpenId>,
    identity: PublicKey,
}

/// The changes of one file while somebody has it open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FileChanges {
    latest: Option<(Time, Writer)>,
    /// The latest one of anybody but the writer of that.
    before: Option<(Time, Writer)>,
    /// Whose changes every open of the file has a mark of.
    marked: Vec<Writer>,
}

impl FileChanges {
    fn note(&mut self, now: Time, writer: Writer) {
        if let Some(latest) = self.latest.replace((now, writer))
            && latest.1 != writer
        {
            self.before = Some(latest);
        }
    }

    /// When anybody but this writer changed the file last.
    fn by_others(&self, writer: Writer) -> Option<Time> {
        self.latest.into_iter().chain(self.before).find(|(_, other)| *other != writer).map(|(at, _)| at)
    }

    /// An open is there, or gone, of which the marks know nothing.
    pub(super) fn forget_marks(&mut self) {
        self.marked.clear();
    }
}

impl OpenTable {
    /// A change of a handle's file begins or is done. To be told both times: whoever reads in between has seen neither
    /// all nor nothing of it.
    pub fn note_change(&mut self, now: Time, handle: HandleId) {
        let Some(holder) = self.holders.get(&handle) else { return };
        let writer = Writer { open: Some(holder.open), identity: holder.identity };
        let (id, session) = (holder.open, holder.session);
        let Some(file) = self.file_of(id) else { return };
        self.note(now, file, writer);
        self.note_joint(id, session);
    }

    /// A client that has a duplicate of another one's handle writes beside it. While the server runs they are one writer;
    /// when it has lost what was not synced, each of them would write again what it has kept from the time when it was
    /// alone, over the other's newer bytes: so from now on each is told, after such a loss, that another client has
    /// changed the file.
    fn note_joint(&mut self, id: OpenId, writing: SessionId) {
        // All sessions of one client process are one.
        let writing = self.first_session(writing);
        let Some(open) = self.opens.get(&id).filter(|open| !open.keeps_mark) else { return };
        if open.holders.len() == 1 && !open.is_usurped {
            return;
        }
        let may_keep = |handle: &HandleId| {
            let holder = self.holders.get(handle).filter(|holder| holder.rights.is_writing());
            holder.is_some_and(|holder| self.first_session(holder.session) != writing)
        };
        if !open.is_usurped && !open.holders.iter().any(may_keep) {
            return;
        }
        let Some(open) = self.opens.get_mut(&id) else { return };
        open.keeps_mark = true;
        if !core::mem::replace(&mut open.others_wrote, true) {
            self.touch_before_writes(id);
        }
    }

    /// The file of a handle.
    #[must_use]
    pub fn file_of_handle(&self, handle: HandleId) -> Option<FileIdentity> {
        self.file_of(self.holders.get(&handle)?.open)
    }

    /// A client has changed the name or the attributes of a file without an open of its own.
    pub fn note_change_of_name(&mut self, now: Time, file: FileIdentity, client: PublicKey) {
        if self.by_file.contains_key(&file) {
            self.note(now, file, Writer { open: None, identity: client });
        }
    }

    /// How the file of an orphan looks, after [`TableEvent::LookAt`] has asked for it. `since`: until when its holders
    /// were heard of. It is of use as long as nothing that was received before is executing.
    pub fn looked_at(&mut self, id: OpenId, since: Time, attributes: &Attributes) {
        if !self.is_idle_orphan(id) {
            self.owe_look(id);
            return;
        }
        let is_untold = self.holders_in(id).any(|holder| holder.untold.is_some());
        let Some(open) = self.opens.get_mut(&id) else { return };
        if is_untold {
            // The look would make unsaid what somebody has not heard. What the former one saw is no answer for the others.
            open.expected = open.expected.filter(|_| open.holders.len() == 1);
            return;
        }
        let writer = Writer { open: Some(id), identity: open.owner };
        // Most files are never changed while they are open, and nothing is kept of those.
        let changes = self.changes.get_mut(&open.file);
        let by_others = changes.as_ref().and_then(|changes| changes.by_others(writer));
        open.expected = Some(attributes.into());
        open.wrote = false;
        open.others_wrote = open.keeps_mark || by_others.is_some_and(|at| at > since);
        open.is_restored &= open.keeps_mark;
        if let Some(changes) = changes {
            changes.forget_marks();
        }
        self.touch_lazily(id);
    }

    /// A client has come back to this handle, which was last heard of at `since`: until [`Self::note_told`] it may not have
    /// the answer, and its absence goes on.
    pub fn note_untold(&mut self, handle: HandleId, since: Option<Time>) {
        if let Some(holder) = self.holders.get_mut(&handle) {
            holder.untold = since;
        }
    }

    /// The client of a handle has heard of it, and so of what became of the file before.
    pub fn note_told(&mut self, handle: HandleId) {
        if let Some(holder) = self.holders.get_mut(&handle) {
            holder.untold = None;
        }
    }

    /// Whether the client of a handle is known to have heard of it.
    #[must_use]
    pub fn is_told(&self, handle: HandleId) -> bool {
        self.holders.get(&handle).is_some_and(|holder| holder.untold.is_none())
    }

    /// Until when a client was heard of that comes back with a key of the handle `home`, if the answer with that handle may
    /// not have reached it. Who names the handle has the answer, and so has who has a key that was issued with it.
    pub(super) fn untold_by(
        &mut self,
        home: HandleId,
        key: &ResumeKey,
        named: Option<HandleId>,
    ) -> Option<Time> {
        let holder = self.holders.get(&home)?;
        let since = holder.untold?;
        let writer = Writer { open: Some(holder.open), identity: holder.identity };
        let open = self.opens.get_mut(&holder.open)?;
        let is_its = |record: &KeyRecord| record.is_own && record.generation == key.generation;
        if named != Some(home) && !open.keys.records().iter().any(is_its) {
            return Some(since);
        }
        let changes = self.changes.get(&open.file);
        let was_changed = changes.and_then(|changes| changes.by_others(writer)).is_some_and(|at| at > since);
        if was_changed || open.is_restored && open.others_wrote {
            // It was told of that, and the file has not been looked at since.
            open.expected = None;
        }
        open.is_restored &= open.keeps_mark;
        self.note_told(home);
        None
    }

    /// What became of the file of an open for a client that was last heard of at `since`; `attributes`: as they are now.
    #[must_use]
    pub fn meanwhile(
        &self,
        id: OpenId,
        identity: &PublicKey,
        since: Time,
        attributes: &Attributes,
    ) -> Meanwhile {
        let Some(open) = self.opens.get(&id) else { return Meanwhile::Unknown };
        let writer = Writer { open: Some(id), identity: *identity };
        let by_others = self.changes.get(&open.file).and_then(|changes| changes.by_others(writer));
        let is_owner = open.owner == *identity;
        let was_marked = open.is_restored && (open.others_wrote || open.wrote && !is_owner);
        if was_marked || by_others.is_some_and(|at| at > since) {
            return Meanwhile::ChangedByClient;
        }
        match open.expected.filter(|_| !open.wrote) {
            Some(expected) if expected == FileMark::from(attributes) => Meanwhile::Unchanged,
            Some(_) => Meanwhile::ChangedLocally,
            None => Meanwhile::Unknown,
        }
    }

    /// The sessions of an open's holders, for finding out until when they were heard of.
    pub fn sessions_of(&self, id: OpenId) -> impl Iterator<Item = SessionId> {
        let handles = self.opens.get(&id).into_iter().flat_map(|open| &open.holders);
        handles.filter_map(|handle| self.holders.get(handle)).map(|holder| holder.session)
    }

    /// The handles of an open.
    pub fn handles_of_open(&self, id: OpenId) -> impl Iterator<Item = HandleId> {
        self.opens.get(&id).into_iter().flat_map(|open| &open.holders).copied()
    }

    /// Asks for the look that an orphan owes, once nothing of it is executing. Not after every operation that ends: what begins
    /// later, for the sake of others, would have the file looked at once more, and hide what became of it in between.
    pub(super) fn ask_for_look(&mut self, id: OpenId) {
        let is_due = self.is_idle_orphan(id) && self.opens.get(&id).is_some_and(|open| open.owes_look);
        if let Some(open) = self.opens.get_mut(&id).filter(|_| is_due) {
            open.owes_look = false;
            self.events.push_back(TableEvent::LookAt { open: id });
        }
    }

    /// The file of an open is to be looked at if it is an orphan now.
    pub(super) fn owe_look(&mut self, id: OpenId) {
        if let Some(open) = self.opens.get_mut(&id) {
            open.owes_look = open.resumable && open.phase == OpenPhase::Orphaned;
            self.ask_for_look(id);
        }
    }

    fn is_idle_orphan(&self, id: OpenId) -> bool {
        let is_orphan = self.opens.get(&id).is_some_and(|open| open.phase == OpenPhase::Orphaned);
        is_orphan && self.holders_in(id).all(|holder| holder.executing == 0)
    }

    fn holders_in(&self, id: OpenId) -> impl Iterator<Item = &Holder> {
        self.handles_of_open(id).filter_map(|handle| self.holders.get(&handle)).map(|holder| &**holder)
    }

    fn note(&mut self, now: Time, file: FileIdentity, writer: Writer) {
        if planted::is(Bug::ChangesForgotten) {
            return;
        }
        let changes = self.changes.entry(file).or_default();
        changes.note(now, writer);
        if changes.marked.contains(&writer) {
            return;
        }
        changes.marked.push(writer);
        let opens = self.by_file.get(&file).into_iter().flatten().flat_map(|(_, ids)| ids);
        for id in opens.copied().collect::<Vec<_>>() {
            if self.opens.get_mut(&id).is_some_and(|open| open.mark(id, writer)) {
                self.touch_before_writes(id);
            }
        }
    }
}

impl Open {
    /// Notes that somebody writes; says whether that is news.
    fn mark(&mut self, id: OpenId, writer: Writer) -> bool {
        if writer.open == Some(id) && writer.identity == self.owner {
            self.expected = None;
            !core::mem::replace(&mut self.wrote, true)
        } else {
            // No look makes it unsaid where the owner may keep older bytes.
            self.keeps_mark |= self.has_kept;
            !core::mem::replace(&mut self.others_wrote, true)
        }
    }
}
