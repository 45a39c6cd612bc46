//! Who keeps whom out: newcomers to a file, and those who remove or replace its names.

use core::time::Duration;
use std::collections::hash_map::Entry;

use super::events::OpenEnd;
use super::open::{Admission, Presence};
use super::ranges::Splice;
use super::table::OpenTable;
use crate::model::{ByteRange, FileIdentity, OpenId, Refusal, SessionId, ShareMode, Time};

impl OpenTable {
    /// Asks whether names of `files` may be removed or replaced for `session`, and keeps it so until
    /// [`OpenTable::end_removal`]: meanwhile no open of these files is admitted that does not share
    /// [`ShareMode::DELETE`].
    ///
    /// An open that does not share it is in the way, whoever it belongs to, unless the session itself has a
    /// handle of it that is not being closed. Orphans whose grace is over are stopped if nothing else is in the
    /// way. A file that is named twice is kept twice. How many removals there are at once is the caller's to
    /// bound.
    ///
    /// # Errors
    /// [`crate::model::Reason::Busy`], with a time as [`OpenTable::admit`] names it. Then nothing is kept.
    pub fn begin_removal(
        &mut self,
        now: Time,
        session: SessionId,
        files: &[FileIdentity],
    ) -> Result<(), Refusal> {
        self.end_overdue(now);
        let cleared = self.clear_for_removal(now, session, files);
        if cleared.is_ok() {
            files.iter().for_each(|file| *self.removals.entry(*file).or_default() += 1);
        }
        self.finish();
        cleared
    }

    /// The removal that [`OpenTable::begin_removal`] allowed for the same `files` is over, however it ended.
    pub fn end_removal(&mut self, files: &[FileIdentity]) {
        for file in files {
            let Entry::Occupied(mut removals) = self.removals.entry(*file) else {
                debug_assert!(false, "a removal of {file:?} ended that never began");
                continue;
            };
            *removals.get_mut() = removals.get().saturating_sub(1);
            if *removals.get() == 0 {
                removals.remove();
            }
        }
    }

    fn clear_for_removal(
        &mut self,
        now: Time,
        session: SessionId,
        files: &[FileIdentity],
    ) -> Result<(), Refusal> {
        let groups = files.iter().filter_map(|file| self.by_file.get(file)).flatten();
        let keeping = groups.filter(|(mode, _)| !mode.share.contains(ShareMode::DELETE));
        let others = keeping.flat_map(|(_, ids)| ids).copied().filter(|id| !self.has_part(session, *id));
        let over = self.weigh(now, others).map_err(Refusal::busy)?;
        files.iter().try_for_each(|file| self.guard_left(now, *file, Some(session)))?;
        self.stop_opens(&over)
    }

    /// Whether a session has a handle of an open that it can use.
    pub(super) fn has_part(&self, session: SessionId, id: OpenId) -> bool {
        let handles = self.opens.get(&id).into_iter().flat_map(|open| &open.holders);
        let mut holders = handles.filter_map(|handle| self.holders.get(handle));
        holders.any(|holder| holder.session == session && !holder.is_draining())
    }

    /// Stops the orphans that stand in the way and whose grace is over, and says what the first lock changes; or
    /// says why the newcomer has to wait, and touches nothing.
    pub(super) fn make_way(
        &mut self,
        now: Time,
        admission: &Admission,
    ) -> Result<Option<(ByteRange, Splice)>, Refusal> {
        let Admission { file, mode, .. } = *admission;
        if !mode.share.contains(ShareMode::DELETE) && self.removals.contains_key(&file) {
            return Err(Refusal::busy(Self::DRAIN_RETRY));
        }
        self.guard_left(now, file, None)?;
        let groups = self.by_file.get(&file).into_iter().flatten();
        let rivals = groups.filter(|(other, _)| !mode.is_compatible(*other)).flat_map(|(_, ids)| ids);
        let over = self.weigh(now, rivals.copied()).map_err(Refusal::busy)?;
        let owner = admission.lock_owner();
        if let Some(lock) = admission.lock {
            self.check_first_lock(now, owner, lock)?;
        }
        self.stop_opens(&over)?;
        self.serve_waiters();
        let Some(lock) = admission.lock else { return Ok(None) };
        self.plan_first_lock(now, owner, lock).map(|splice| Some((lock.0, splice)))
    }

    /// Those of `ids` that are orphans whose grace is over, if all of them are. `Err`: how long the others are
    /// there at least; zero where nobody can say.
    pub(super) fn weigh(
        &self,
        now: Time,
        ids: impl Iterator<Item = OpenId>,
    ) -> Result<Vec<OpenId>, Duration> {
        let mut wait = Duration::ZERO;
        let mut over = Vec::new();
        for id in ids {
            match self.opens.get(&id).map(|open| open.presence(now)) {
                Some(Presence::Held) => return Err(Duration::ZERO),
                Some(Presence::Grace(left)) => wait = wait.max(left),
                Some(Presence::Closing) => wait = wait.max(Self::DRAIN_RETRY),
                Some(Presence::Over) => over.push(id),
                None => {}
            }
        }
        if wait > Duration::ZERO { Err(wait) } else { Ok(over) }
    }

    /// Stops several opens for somebody who wants what they have, every one, so that one retry finds all of them gone.
    pub(super) fn stop_opens(&mut self, ids: &[OpenId]) -> Result<(), Refusal> {
        ids.iter().map(|id| self.stop_open(*id, OpenEnd::TakenOver)).fold(Ok(()), Result::and)
    }
}
