//! The table: its indexes, opening, operations and closing. Resuming stands in `resume.rs`, sessions and time
//! in `sessions.rs`, what is told of its state in `views.rs`.

use core::fmt;
use core::time::Duration;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::changes::FileChanges;
use super::ended::{TombstoneBounds, Tombstones};
use super::events::TableEvent;
use super::keys::KeyHasher;
use super::locks::FileLocks;
use super::open::{Admission, Admitted, Holder, HolderView, Open, Origin, Presence, Repeat, first_rights};
use super::orphans::{Lapsed, LapsedBounds};
use super::sessions::SessionPart;
use super::state::{HolderPhase, OpenEvent, OpenPhase};
use super::waits::{LockOwner, LockUse, Wait, WaitKey};
use crate::model::planted::{self, Bug};
use crate::model::{
    CreateId, ExportName, ExportPath, FileIdentity, GrantId, HandleId, Limits, OpenId, OpenMode, PublicKey,
    Reason, Refusal, Rights, SessionId, Time,
};

/// The opens of a server: the one owner of share modes, grace times and resume keys.
///
/// The time and all random ids come in; what is to be done comes out of [`OpenTable::poll_event`], which the
/// caller drains after each call.
///
/// ```
/// use core::time::Duration;
/// use bowline::model::{
///     CreateId, FileIdentity, HandleId, Limits, OpenId, OpenMode, PublicKey, Rights, SessionId, Time,
/// };
/// use bowline::opens::{Admission, Claim, OpenTable};
///
/// let mut table = OpenTable::new([7; 32], &Limits::default());
/// let owner = PublicKey([1; 32]);
/// let first = SessionId([1; 16]);
/// let admitted = table.admit(Time(0), Admission {
///     session: first,
///     owner,
///     open: OpenId(10),
///     handle: HandleId(100),
///     file: FileIdentity { device: 1, inode: 2, born_ns: 0 },
///     export: "media".parse().unwrap(),
///     mode: OpenMode::READ_WRITE,
///     rights: OpenMode::READ_WRITE.rights,
///     create_id: CreateId([1; 16]),
///     grace: Duration::from_secs(60),
///     lock: None,
///     resumable: true,
///     guard: false,
///     path: bowline::model::ExportPath::new(*b"clip.mov").unwrap(),
///     mark: bowline::model::FileMark { len: 0, changed_ns: 0 },
/// })?;
/// let key = table.issue_key(first, admitted.handle, 1_700_000_000_000_000, 4711, [9; 16])?;
///
/// // The session loses its last channel; within the grace the key gets a duplicate handle.
/// table.session_away(Time(1_000_000), first);
/// assert_eq!(table.next_deadline(), Some(Time(61_000_000)));
/// let duplicate = table.resume(Time(2_000_000), &key, Claim {
///     session: SessionId([2; 16]),
///     identity: &owner,
///     handle: HandleId(101),
///     predecessor: None,
///     may_use: &|_| Some(Rights::ALL),
/// })?;
/// assert_eq!((duplicate.open, duplicate.rights), (admitted.open, admitted.rights));
/// # Ok::<(), bowline::model::Refusal>(())
/// ```
pub struct OpenTable {
    pub(super) hasher: KeyHasher,
    pub(super) opens_per_client: usize,
    pub(super) keys_per_open: usize,
    grace_max: Duration,
    /// Each in a place of its own: a hash map has room for up to twice as many as are in it.
    pub(super) opens: HashMap<OpenId, Box<Open>>,
    /// The ids of all opens in order: their state is told in pages, and each page begins where the last one ended.
    pub(super) ids: BTreeSet<OpenId>,
    pub(super) holders: HashMap<HandleId, Box<Holder>>,
    /// The names of the exports that opens are of, so that all opens of one share it.
    pub(super) exports: HashSet<ExportName>,
    /// The opens of each file, by their modes: a newcomer is compared with a few modes, not with every open.
    pub(super) by_file: HashMap<FileIdentity, Vec<(OpenMode, BTreeSet<OpenId>)>>,
    /// The opens of each identity, by their create ids.
    pub(super) by_owner: HashMap<PublicKey, HashMap<CreateId, OpenId>>,
    pub(super) by_session: HashMap<SessionId, SessionPart>,
    /// The orphans in the order of their deadlines, until these are known to be over.
    pub(super) deadlines: BTreeSet<(Time, OpenId)>,
    /// The orphans whose deadlines are known to be over.
    pub(super) lapsed: Lapsed,
    pub(super) lapsed_bounds: LapsedBounds,
    /// The orphans of each file that keep everybody out.
    pub(super) guards: HashMap<FileIdentity, BTreeSet<OpenId>>,
    pub(super) tombstones: Tombstones,
    pub(super) tombstone_bounds: TombstoneBounds,
    pub(super) grants_per_open: usize,
    pub(super) offers_per_client: usize,
    pub(super) offers_per_giver: usize,
    /// The open of each grant, also of those that are over and remembered.
    pub(super) grants: HashMap<GrantId, OpenId>,
    /// The grants that end at a time, in the order in which they do.
    pub(super) grant_ends: BTreeSet<(Time, GrantId)>,
    /// The grants that the server delivers and nobody has taken, by their grantees, with their givers.
    pub(super) offers: HashMap<PublicKey, BTreeMap<GrantId, PublicKey>>,
    /// Who changed the files that somebody has open.
    pub(super) changes: HashMap<FileIdentity, FileChanges>,
    /// The files to which holders of two sessions may write.
    pub(super) joint: HashSet<FileIdentity>,
    /// The opens whose records have changed, and somebody is to be told.
    pub(super) dirty: BTreeSet<OpenId>,
    /// The others whose records have changed.
    pub(super) dirty_lazily: BTreeSet<OpenId>,
    /// Files of opens whose records now say who has written.
    pub(super) newly_marked: Vec<FileIdentity>,
    pub(super) locks_per_open: usize,
    pub(super) locks_per_client: usize,
    pub(super) lock_waits_per_client: usize,
    pub(super) lock_wait_max: Duration,
    /// The locks of the files that have any, or waiters.
    pub(super) locks: HashMap<FileIdentity, FileLocks>,
    /// What the identities have of locks.
    pub(super) lock_use: HashMap<PublicKey, LockUse>,
    pub(super) waits: HashMap<WaitKey, Wait>,
    /// The waiting locks in the order of their deadlines.
    pub(super) wait_deadlines: BTreeSet<(Time, WaitKey)>,
    /// The turn of the latest waiter.
    pub(super) turns: u64,
    /// Files of which something was unlocked or a waiter left, within a call.
    pub(super) freed: Vec<FileIdentity>,
    /// The removals of each file that are executing.
    pub(super) removals: HashMap<FileIdentity, usize>,
    pub(super) events: VecDeque<TableEvent>,
}

impl OpenTable {
    /// Most holders of one open. One is needed for each process that shares the open, and one for each session
    /// that was lost and not named as predecessor.
    pub const HOLDERS_PER_OPEN_MAX: usize = 256;

    /// What a contender is told to wait while an open that ends still has operations executing: longer than a
    /// write to a page cache takes, shorter than a user notices.
    pub const DRAIN_RETRY: Duration = Duration::from_millis(100);

    /// An empty table. `hash_key` is random and new at each start of a server; it is wiped with the table.
    #[must_use]
    pub fn new(hash_key: [u8; 32], limits: &Limits) -> Self {
        Self {
            hasher: KeyHasher::new(hash_key),
            opens_per_client: limits.opens_per_client,
            keys_per_open: limits.keys_per_open,
            grace_max: limits.grace_max,
            opens: HashMap::new(),
            ids: BTreeSet::new(),
            holders: HashMap::new(),
            exports: HashSet::new(),
            by_file: HashMap::new(),
            by_owner: HashMap::new(),
            by_session: HashMap::new(),
            deadlines: BTreeSet::new(),
            lapsed: Lapsed::default(),
            lapsed_bounds: limits.into(),
            guards: HashMap::new(),
            tombstones: Tombstones::default(),
            tombstone_bounds: limits.into(),
            grants_per_open: limits.grants_per_open,
            offers_per_client: limits.offers_per_client,
            offers_per_giver: limits.offers_per_giver,
            grants: HashMap::new(),
            grant_ends: BTreeSet::new(),
            offers: HashMap::new(),
            changes: HashMap::new(),
            joint: HashSet::new(),
            dirty: BTreeSet::new(),
            dirty_lazily: BTreeSet::new(),
            newly_marked: Vec::new(),
            locks_per_open: limits.locks_per_open,
            locks_per_client: limits.locks_per_client,
            lock_waits_per_client: limits.lock_waits_per_client,
            lock_wait_max: limits.lock_wait_max,
            locks: HashMap::new(),
            lock_use: HashMap::new(),
            waits: HashMap::new(),
            wait_deadlines: BTreeSet::new(),
            turns: 0,
            freed: Vec::new(),
            removals: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Looks for the open that an earlier request with the same create id made, before any file work.
    ///
    /// The session that made it, or repeated it before, gets the same handle again. Another session of the same
    /// identity gets a holder of its own, and an orphan is held again by that, as with a resume key.
    ///
    /// # Errors
    /// - [`Reason::Invalid`]: the create id was used with another export or mode, or for an open that can be
    ///   resumed where this one cannot or the other way round; or the mode neither reads nor writes.
    /// - [`Reason::PermissionDenied`]: the rights do not cover the mode.
    /// - [`Reason::Busy`]: the open is ending, and something of it is still executing.
    /// - [`Reason::Quota`]: the open has too many holders.
    /// - [`Reason::Exhausted`]: the random id for the holder is taken.
    pub fn find_created(&mut self, now: Time, repeat: &Repeat<'_>) -> Result<Option<Admitted>, Refusal> {
        self.end_overdue(now);
        let found = self.repeat(now, repeat, None);
        self.finish();
        found
    }

    /// Opens a file that was found by its identity, if no other open keeps it out.
    ///
    /// Every other open of the same file counts, whoever it belongs to. A request whose create id is known by
    /// now is answered as [`OpenTable::find_created`] does: two copies of it may have been looking for the file
    /// at the same time; its lock was taken with the first one and is not taken again. A request that is refused
    /// touches no other open, with one exception: orphans whose grace is over and of which something is still
    /// executing are stopped, and the request is to come again.
    ///
    /// # Errors
    /// - [`Reason::Busy`]: an incompatible open is held (no time is named), is an orphan within its grace (the
    ///   time left is named), or ends and is still executing ([`OpenTable::DRAIN_RETRY`]); or a name of the file
    ///   is being removed, and the mode does not share that ([`OpenTable::DRAIN_RETRY`] too).
    /// - [`Reason::Locked`]: another open's lock, or an earlier waiter's, excludes the lock that was asked for.
    /// - [`Reason::PermissionDenied`]: it asks for a lock without [`Rights::LOCK`].
    /// - [`Reason::Quota`]: the identity has as many opens or locks as it may have.
    /// - [`Reason::Exhausted`]: a random id is taken.
    /// - As [`OpenTable::find_created`]; [`Reason::Invalid`] too where the create id belongs to another file.
    pub fn admit(&mut self, now: Time, admission: Admission) -> Result<Admitted, Refusal> {
        self.end_overdue(now);
        let admitted = self.try_admit(now, &admission);
        self.finish();
        admitted
    }

    /// Counts an operation of a holder as executing, until [`OpenTable::end_operation`].
    ///
    /// # Errors
    /// - [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed.
    /// - [`Reason::PermissionDenied`]: the handle has not all of `needed`.
    pub fn begin_operation(
        &mut self,
        session: SessionId,
        handle: HandleId,
        needed: Rights,
    ) -> Result<OpenId, Refusal> {
        let holder = self
            .holders
            .get_mut(&handle)
            .filter(|holder| holder.session == session && !holder.is_draining())
            .ok_or(Reason::BadHandle)?;
        if !holder.rights.permits(needed) {
            return Err(Reason::PermissionDenied.into());
        }
        holder.executing = holder.executing.checked_add(1).ok_or(Reason::Exhausted)?;
        Ok(holder.open)
    }

    /// An operation that [`OpenTable::begin_operation`] counted has ended, however it did. A holder that drains
    /// ends with its last one.
    pub fn end_operation(&mut self, handle: HandleId) {
        let is_gone = self.holders.get_mut(&handle).map(|holder| holder.on_operation_ended());
        debug_assert!(is_gone.is_some(), "an operation ended on a holder that does not exist");
        let open = self.holders.get(&handle).map(|holder| holder.open);
        if is_gone == Some(true) {
            self.remove_holder(handle);
            self.finish();
        }
        if let Some(open) = open {
            self.ask_for_look(open);
        }
    }

    /// Closes a handle on purpose: its intake stops, its resume keys die, and [`TableEvent::Drained`] says when
    /// nothing of it is executing any more. The last handle takes its open along.
    ///
    /// # Errors
    /// [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed already.
    pub fn begin_close(&mut self, session: SessionId, handle: HandleId) -> Result<(), Refusal> {
        let (holder, open) = self.open_of(session, handle)?;
        if planted::is(Bug::CloseDropsLocks) {
            let (open, file, identity) = (holder.open, open.file, open.owner);
            self.drop_locks(LockOwner { open, file, identity });
        }
        self.stop_holder(handle);
        self.finish();
        Ok(())
    }

    /// A handle of a session; also while it is being closed, because its last answers are still to be made.
    ///
    /// # Errors
    /// [`Reason::BadHandle`]: the handle is not one of this session.
    pub fn holder(&self, session: SessionId, handle: HandleId) -> Result<HolderView<'_>, Refusal> {
        let holder =
            self.holders.get(&handle).filter(|holder| holder.session == session).ok_or(Reason::BadHandle)?;
        self.view(handle, holder).ok_or_else(|| Reason::BadHandle.into())
    }

    /// Whether a handle exists, of whichever session; one that is being closed still does.
    #[must_use]
    pub fn has_holder(&self, handle: HandleId) -> bool {
        self.holders.contains_key(&handle)
    }

    /// When [`OpenTable::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let orphan = self.deadlines.first().map(|(deadline, _)| *deadline);
        let wait = self.wait_deadlines.first().map(|(deadline, _)| *deadline);
        let aged = self.lapsed.first().map(|(since, _)| since.after(self.lapsed_bounds.age));
        let grant = self.grant_ends.first().map(|(end, _)| *end);
        let forgotten = self.tombstones.first_end(self.tombstone_bounds).map(|(end, _)| end);
        orphan.into_iter().chain(wait).chain(aged).chain(grant).chain(forgotten).min()
    }

    /// A name was changed through this server: the opens whose files it leads to, itself or on the way, are found under
    /// the new one from now on. An exchange works both ways.
    pub fn renamed(&mut self, export: &ExportName, from: &ExportPath, to: &ExportPath, is_exchange: bool) {
        let moved: Vec<(OpenId, ExportPath)> = (self.opens.iter())
            .filter(|(_, open)| open.export == *export)
            .filter_map(|(id, open)| {
                let back = || open.path.moved(to, from).filter(|_| is_exchange);
                Some((*id, open.path.moved(from, to).or_else(back)?))
            })
            .collect();
        for (id, path) in moved {
            if let Some(open) = self.opens.get_mut(&id) {
                open.path = path;
            }
            self.touch(id);
        }
    }

    /// Which file an open is.
    #[must_use]
    pub fn file_of(&self, open: OpenId) -> Option<FileIdentity> {
        self.opens.get(&open).map(|open| open.file)
    }

    /// Whether this identity may have one more open, or has one that would go for it: an orphan whose grace is over.
    #[must_use]
    pub fn has_room(&self, now: Time, owner: &PublicKey) -> bool {
        self.is_below_quota(owner) || self.spare(now, owner).is_some()
    }

    /// How many opens there are.
    #[must_use]
    pub fn opens_len(&self) -> usize {
        self.opens.len()
    }

    /// How many holders there are.
    #[must_use]
    pub fn holders_len(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn view(&self, handle: HandleId, holder: &Holder) -> Option<HolderView<'_>> {
        self.opens.get(&holder.open).map(|open| HolderView {
            open: holder.open,
            session: holder.session,
            handle,
            rights: holder.rights,
            mode: open.mode,
            export: &open.export,
            phase: holder.phase,
            deadline: holder.deadline,
            executing: holder.executing,
        })
    }

    pub(super) fn is_below_quota(&self, owner: &PublicKey) -> bool {
        self.by_owner.get(owner).is_none_or(|opens| opens.len() < self.opens_per_client)
    }

    fn try_admit(&mut self, now: Time, admission: &Admission) -> Result<Admitted, Refusal> {
        let repeat = Repeat {
            session: admission.session,
            owner: &admission.owner,
            create_id: admission.create_id,
            handle: admission.handle,
            export: &admission.export,
            mode: admission.mode,
            rights: admission.rights,
            resumable: admission.resumable,
        };
        if let Some(admitted) = self.repeat(now, &repeat, Some(admission.file))? {
            return Ok(admitted);
        }
        let rights = first_rights(admission.mode, admission.rights)?;
        if admission.lock.is_some() && !rights.permits(Rights::LOCK) {
            return Err(Reason::PermissionDenied.into());
        }
        if !self.has_room(now, &admission.owner) {
            return Err(Reason::Quota.into());
        }
        if self.opens.contains_key(&admission.open) || self.holders.contains_key(&admission.handle) {
            return Err(Reason::Exhausted.into());
        }
        let first_lock = self.make_way(now, admission)?;
        self.make_room(now, &admission.owner)?;
        let admitted = self.insert_open(admission, rights);
        self.add_holder(
            now,
            admission.handle,
            Holder::new(admission.open, (admission.session, admission.owner), rights, Origin::Opened),
        );
        if let Some((range, splice)) = first_lock {
            self.apply(admission.lock_owner(), range, &splice);
        }
        Ok(admitted)
    }

    /// What `find_created` does; `file` is known once the file was found.
    fn repeat(
        &mut self,
        now: Time,
        repeat: &Repeat<'_>,
        file: Option<FileIdentity>,
    ) -> Result<Option<Admitted>, Refusal> {
        let own = self.by_owner.get(repeat.owner);
        let Some(&id) = own.and_then(|own| own.get(&repeat.create_id)) else { return Ok(None) };
        if planted::is(Bug::CreateIdIgnored) {
            return Ok(None);
        }
        let Some(open) = self.opens.get(&id) else { return Ok(None) };
        match open.presence(now) {
            Presence::Held | Presence::Grace(_) | Presence::Over => {}
            Presence::Closing => return Err(Refusal::busy(Self::DRAIN_RETRY)),
        }
        let is_same =
            open.export == *repeat.export && open.mode == repeat.mode && open.resumable == repeat.resumable;
        if !is_same || file.is_some_and(|file| file != open.file) {
            return Err(Reason::Invalid.into());
        }
        let rights = first_rights(repeat.mode, repeat.rights)?;
        let is_same_request =
            |holder: &Holder| holder.session == repeat.session && holder.origin == Origin::Opened;
        let same = open.holders.iter().find_map(|handle| {
            let holder = self.holders.get(handle)?;
            (is_same_request(holder) && !holder.is_draining()).then_some((*handle, holder.rights))
        });
        if let Some((handle, rights)) = same {
            return Ok(Some(open.admitted(id, handle, rights)));
        }
        if open.holders.len() >= Self::HOLDERS_PER_OPEN_MAX {
            return Err(Reason::Quota.into());
        }
        if self.holders.contains_key(&repeat.handle) {
            return Err(Reason::Exhausted.into());
        }
        let admitted = open.admitted(id, repeat.handle, rights);
        // What the same request has left from before the server started anew.
        let is_left = |handle: &HandleId| {
            self.is_left(*handle)
                && self
                    .holders
                    .get(handle)
                    .is_some_and(|holder| holder.origin == Origin::Opened && holder.identity == *repeat.owner)
        };
        let left: Vec<HandleId> = open.holders.iter().copied().filter(is_left).collect();
        let holder = Holder::new(id, (repeat.session, *repeat.owner), rights, Origin::Opened);
        self.add_holder(now, repeat.handle, holder);
        left.into_iter().for_each(|left| self.replace_holder(left, repeat.handle));
        Ok(Some(admitted))
    }

    fn insert_open(&mut self, admission: &Admission, rights: Rights) -> Admitted {
        let open = Open::new(admission, admission.grace.min(self.grace_max));
        let admitted =
            Admitted { is_new_open: true, ..open.admitted(admission.open, admission.handle, rights) };
        self.insert_record(admission.open, open);
        admitted
    }

    /// Puts the record of an open and its places in the indexes in; its holders are to follow.
    pub(super) fn insert_record(&mut self, id: OpenId, mut open: Open) {
        if let Some(export) = self.exports.get(&open.export) {
            open.export = export.clone();
        } else {
            self.exports.insert(open.export.clone());
        }
        let groups = self.by_file.entry(open.file).or_default();
        if let Some((_, ids)) = groups.iter_mut().find(|(mode, _)| *mode == open.mode) {
            ids.insert(id);
        } else {
            // Nearly every file is open in one mode.
            groups.reserve_exact(1);
            groups.push((open.mode, BTreeSet::from([id])));
        }
        if let Some(changes) = self.changes.get_mut(&open.file) {
            changes.forget_marks();
        }
        self.by_owner.entry(open.owner).or_default().insert(open.create_id, id);
        self.opens.insert(id, Box::new(open));
        self.ids.insert(id);
    }

    /// Puts a holder in. While no channel reaches its session it starts away: the answer to a request can be
    /// ready after the channel has broken.
    pub(super) fn add_holder(&mut self, now: Time, handle: HandleId, mut holder: Holder) {
        let id = holder.open;
        let Some(open) = self.opens.get_mut(&id) else { return };
        let part = self.by_session.entry(holder.session).or_default();
        part.handles.insert(handle);
        if part.is_away {
            holder.on_session_away(now.after(open.grace));
        }
        open.holders.push(handle);
        self.holders.insert(handle, Box::new(holder));
        self.note_writer(handle);
        self.settle(id);
        self.touch(id);
    }

    /// Stops the intake of a holder; it goes at once if nothing of it is executing.
    pub(super) fn stop_holder(&mut self, handle: HandleId) {
        self.interrupt_waits(&[handle]);
        let Some(holder) = self.holders.get_mut(&handle) else { return };
        let id = holder.open;
        let is_gone = holder.on_stop();
        self.touch(id);
        if let Some(open) = self.opens.get_mut(&id) {
            open.keys.forget(handle);
            let file = open.file;
            self.forget_writer(file);
        }
        self.end_grants_of(id, handle);
        if is_gone {
            self.remove_holder(handle);
        } else {
            self.settle(id);
        }
    }

    /// What every call that may have freed a lock does last.
    pub(super) fn finish(&mut self) {
        self.serve_waiters();
        self.check_in_debug();
    }

    /// A holder that this session can still use.
    pub(super) fn usable(&self, session: SessionId, handle: HandleId) -> Result<&Holder, Refusal> {
        let holder = self.holders.get(&handle).map(|holder| &**holder);
        let usable = holder.filter(|holder| holder.session == session && !holder.is_draining());
        usable.ok_or_else(|| Reason::BadHandle.into())
    }

    /// The open of a handle that this session can still use.
    pub(super) fn open_of(
        &mut self,
        session: SessionId,
        handle: HandleId,
    ) -> Result<(&Holder, &mut Open), Refusal> {
        let usable = |holder: &&Holder| holder.session == session && !holder.is_draining();
        let holder =
            self.holders.get(&handle).map(|holder| &**holder).filter(usable).ok_or(Reason::BadHandle)?;
        let open = self.opens.get_mut(&holder.open).ok_or(Reason::BadHandle)?;
        Ok((holder, open))
    }

    /// Brings the phase of an open in line with its holders, after one of them has changed.
    pub(super) fn settle(&mut self, id: OpenId) {
        let Some(open) = self.opens.get_mut(&id) else { return };
        let mut event = OpenEvent::Emptied;
        let mut latest = None;
        for holder in open.holders.iter().filter_map(|handle| self.holders.get(handle)) {
            latest = latest.max(holder.deadline);
            event = match (event, holder.phase) {
                (OpenEvent::Reached, _) | (_, HolderPhase::Live) => OpenEvent::Reached,
                (OpenEvent::Unreached, _) | (_, HolderPhase::Away) => OpenEvent::Unreached,
                (_, HolderPhase::Draining | HolderPhase::Gone) => OpenEvent::Stopped,
            };
        }
        let before = open.deadline;
        open.step(event, latest);
        if open.deadline != before {
            if let Some(deadline) = before {
                self.deadlines.remove(&(deadline, id));
                self.lapsed.remove(open.owner, (deadline, id));
                if let Some(locks) = self.locks.get_mut(&open.file) {
                    locks.set_lapsed(id, false);
                }
            }
            self.deadlines.extend(open.deadline.map(|deadline| (deadline, id)));
        }
        if open.guard {
            let guards = self.guards.entry(open.file).or_default();
            if open.phase == OpenPhase::Orphaned {
                guards.insert(id)
            } else {
                guards.remove(&id)
            };
            if guards.is_empty() {
                self.guards.remove(&open.file);
            }
        }
        if open.phase == OpenPhase::Ended {
            self.remove_open(id);
        }
    }

    fn remove_holder(&mut self, handle: HandleId) {
        let Some(holder) = self.holders.remove(&handle) else { return };
        self.forget_handle(holder.session, handle);
        self.events.push_back(TableEvent::Drained { session: holder.session, handle });
        if let Some(open) = self.opens.get_mut(&holder.open) {
            open.holders.retain(|other| *other != handle);
        }
        self.settle(holder.open);
    }

    fn remove_open(&mut self, id: OpenId) {
        self.forget_grants(id);
        let Some(open) = self.opens.remove(&id) else { return };
        self.ids.remove(&id);
        self.drop_locks(LockOwner { open: id, file: open.file, identity: open.owner });
        if let Entry::Occupied(mut groups) = self.by_file.entry(open.file) {
            groups.get_mut().retain_mut(|(_, ids)| {
                ids.remove(&id);
                !ids.is_empty()
            });
            if groups.get().is_empty() {
                groups.remove();
                self.changes.remove(&open.file);
            }
        }
        if let Entry::Occupied(mut own) = self.by_owner.entry(open.owner) {
            own.get_mut().remove(&open.create_id);
            if own.get().is_empty() {
                own.remove();
            }
        }
        self.events.push_back(TableEvent::CloseFile { open: id });
    }
}

/// Counts only: the table holds names of files and of clients.
impl fmt::Debug for OpenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTable")
            .field("opens", &self.opens.len())
            .field("holders", &self.holders.len())
            .field("orphans", &self.deadlines.len().saturating_add(self.lapsed.len()))
            .field("waits", &self.waits.len())
            .finish_non_exhaustive()
    }
}
