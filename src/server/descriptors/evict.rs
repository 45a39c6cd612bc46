//! Room for one more descriptor: the one that was used longest ago is closed, once there is nothing left in it that a
//! later open of the file would not have.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::places::Place;
use super::table::Candidate;
use super::{Descriptors, Held, Purpose, SCAN};
use crate::model::{ExportPath, Limits, OpenId, Reason, Refusal, SyncScope};
use crate::net::Clock;
use crate::server::exports::Whereabouts;
use crate::server::files::Descriptor;
use crate::server::stat::stat_of;

/// How many more descriptors are closed for one that is to be opened: that takes a second one for a moment, and somebody
/// else may be faster.
const ROOM_ATTEMPTS: u32 = 3;

impl Descriptors {
    /// A place for a descriptor. Closes another one if there is none, and waits a bounded time if all are in use; so it
    /// is for threads that may wait for the file system.
    ///
    /// # Errors
    /// [`Reason::Exhausted`].
    pub(in crate::server) fn reserve(&self, purpose: Purpose) -> Result<Place, Refusal> {
        if purpose == Purpose::New && self.table().is_overpinned() {
            return Err(Reason::Exhausted.into());
        }
        if let Some(place) = self.places.take().or_else(|| self.make_room()) {
            return Ok(place);
        }
        let _one_of_few = self.waiters.enter(Limits::DESCRIPTOR_WAITERS_MAX).ok_or(Reason::Exhausted)?;
        let until = Clock.now().after(Limits::DESCRIPTOR_WAIT);
        loop {
            let listening = self.places.listen();
            if let Some(place) = self.places.take().or_else(|| self.make_room()) {
                return Ok(place);
            }
            let left = until.since(Clock.now());
            if left.is_zero() || self.table().pinned() >= self.places.max() {
                return Err(Reason::Exhausted.into());
            }
            listening.wait(left);
        }
    }

    /// Does what opens files, and closes a descriptor for another attempt as long as the process has none left: its
    /// connections may have taken more than their half.
    ///
    /// # Errors
    /// Those of `open`.
    pub(in crate::server) fn with_room<T>(
        &self,
        mut open: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        for _ in 0..ROOM_ATTEMPTS {
            match open() {
                Err(Refusal { reason: Reason::Exhausted, .. }) if self.make_room().is_some() => {}
                outcome => return outcome,
            }
        }
        open()
    }

    /// Closes the descriptor that was used longest ago, of those that can be closed now.
    pub(super) fn make_room(&self) -> Option<Place> {
        let (mut looked, most) = (0_usize, self.table().closable_len());
        while looked < most {
            // A few at a time, so that nobody who wants a descriptor that is there waits for the search.
            let (candidate, more) = self.table().candidate(SCAN);
            looked = looked.saturating_add(more.max(1));
            if let Some(place) = candidate.and_then(|candidate| self.close(candidate)) {
                return Some(place);
            }
        }
        None
    }

    /// Closes a descriptor if the file can be had again without it, and nothing is lost with it.
    fn close(&self, candidate: Candidate) -> Option<Place> {
        let file = &candidate.held.file;
        if stat_of(file).ok()?.stx_nlink == 0 {
            self.set_path_of(candidate.open, None);
            return None;
        }
        self.look_where(&candidate);
        let rights = self.table().same(&candidate)?.rights;
        if !self.exports.may_open_again(file.as_fd(), rights) && self.table().forbid(&candidate) {
            return None;
        }
        let told = file.unsynced().map(|mark| (mark, self.sync_for(candidate.open, file)));
        // A failed sync is told by the entry, which has it now; what was written after it is not.
        let is_clean = || match (file.unsynced(), told) {
            (None, _) => true,
            (Some(now), Some((mark, Err(_)))) => now == mark,
            (Some(_), _) => false,
        };
        let taken = self.table().take(&candidate, is_clean)?;
        drop(candidate);
        let Held { file, _place: place } = Arc::into_inner(taken)?;
        drop(file);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        Some(place)
    }

    /// Takes note of where the file is now: programs on the server rename as well, and the kernel knows.
    fn look_where(&self, candidate: &Candidate) {
        let Some(origin) = self.table().origin(candidate.open) else { return };
        // Whoever renames at this moment tells the table.
        let Some(_still) = self.exports.try_still(&origin.export) else { return };
        match self.exports.whereabouts(&origin.export, candidate.held.file.as_fd()) {
            Whereabouts::At(path) if origin.path.as_deref() != Some(&path[..]) => {
                self.set_path_of(candidate.open, Some(path.into()));
            }
            Whereabouts::Nowhere => self.set_path_of(candidate.open, None),
            Whereabouts::Unknown if origin.path.is_some_and(|path| path.len() > ExportPath::LEN_MAX) => {
                // It was renamed to where no path leads.
                self.set_path_of(candidate.open, None);
            }
            Whereabouts::At(_) | Whereabouts::Unknown => {}
        }
    }

    /// Syncs a descriptor though nobody has asked for it. An error stays with the open until its next sync.
    pub(super) fn sync_for(&self, open: OpenId, file: &Descriptor) -> Result<(), Refusal> {
        let _turn = file.sync_turn();
        let synced = file.sync(SyncScope::Data);
        if let Err(refusal) = synced {
            self.table().sync_failed(open, refusal.reason, false);
        }
        synced
    }
}
