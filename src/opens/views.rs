//! The table's state as its administrator is told it, open by open in the order of their ids, so that it can be told in
//! pages. Nothing here serves a request, and nothing changes the table.

use core::ops::Bound;

use super::open::{HolderView, OpenView};
use super::table::OpenTable;
use crate::model::OpenId;

impl OpenTable {
    /// Every open, in no particular order: for telling the state of the server, not for serving requests.
    pub fn opens(&self) -> impl Iterator<Item = OpenView<'_>> {
        self.opens.iter().map(|(id, open)| open.view(*id))
    }

    /// Every holder, in no particular order: for telling the state of the server, not for serving requests.
    pub fn holders(&self) -> impl Iterator<Item = HolderView<'_>> {
        self.holders.iter().filter_map(|(handle, holder)| self.view(*handle, holder))
    }

    /// One open.
    #[must_use]
    pub fn open(&self, id: OpenId) -> Option<OpenView<'_>> {
        self.opens.get(&id).map(|open| open.view(id))
    }

    /// The opens whose ids come after `after`, all of them for `None`, in the order of their ids.
    pub fn opens_after(&self, after: Option<OpenId>) -> impl Iterator<Item = OpenView<'_>> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.ids.range((first, Bound::Unbounded)).filter_map(|id| self.open(*id))
    }

    /// The holders of an open, in the order in which they came; none for an open that does not exist.
    pub fn holders_of(&self, open: OpenId) -> impl Iterator<Item = HolderView<'_>> {
        let handles = self.opens.get(&open).into_iter().flat_map(|open| &open.holders);
        handles.filter_map(|handle| self.view(*handle, self.holders.get(handle)?))
    }

    /// How many locks of an open wait.
    #[must_use]
    pub fn waits_of(&self, open: OpenId) -> usize {
        let locks = self.file_of(open).and_then(|file| self.locks.get(&file));
        locks.map_or(0, |locks| locks.waits_len(open))
    }

    /// How many opens are orphans.
    #[must_use]
    pub fn orphans_len(&self) -> usize {
        self.deadlines.len()
    }

    /// How many ranges all opens have locked.
    #[must_use]
    pub fn locks_len(&self) -> usize {
        self.lock_use.values().map(|used| used.ranges).sum()
    }

    /// How many locks wait, of all opens.
    #[must_use]
    pub fn waits_len(&self) -> usize {
        self.waits.len()
    }
}
