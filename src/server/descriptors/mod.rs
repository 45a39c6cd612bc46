//! The descriptors of opens. An open is not a descriptor: there may be many more opens than the process may have
//! descriptors, so the ones that were used longest ago are closed and opened again when they are needed.
//!
//! ```text
//!                     insert                  adopt
//!                       |                       |
//!                       v    used longest ago   v
//!            +-----> here  ----------------->  away
//!            |          |    synced, closed     |
//!            |          |                       | used: opened again by its path
//!            |          | no name left          +---> the same file: here
//!            |          v                       +---> another one, or none: stale, until it is back
//!            |       pinned: closed with its
//!            |       open only
//!            +--- a path is told
//! ```
//!
//! **Rules that hold at every moment**:
//! - There are never more descriptors than the bound: whoever opens one has a [`Place`] for it before, and the place
//!   comes back when the descriptor is really closed.
//! - What somebody uses ([`Lease`]) is not closed.
//! - What was written is synced before its descriptor is closed. An error of that stays with the open and is what its
//!   next sync comes to: the kernel tells it once.
//! - An open's file is the one that it was: what is opened again is compared by device, inode and birth.
//! - A file without a name is not closed while it is open: nobody could open it again. How many there are is bounded:
//!   clients cannot remove more names of open files; if programs on the server do, no more files are opened.
//!
//! Where a file is, the kernel knows as long as there is a descriptor. It is asked when one is closed, and then the
//! path is followed through the renames of clients; what a program on the server renames meanwhile is not found
//! again. While a client renames something, nobody relates a path to a file ([`Exports::still`]).
//!
//! [`Descriptors::here`] is for tasks, and costs one look into a table; all else is for threads that may wait.

mod evict;
mod order;
mod places;
mod reopen;
mod table;
#[cfg(test)]
mod tests;
mod tracking;

use core::fmt;
use core::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;

pub(super) use self::places::Place;
use self::places::{Bell, Places};
use self::table::{Origin, Table};
use super::exports::{Exports, OpenedFile, Whereabouts};
use super::files::Descriptor;
use crate::model::{
    Attributes, ExportName, ExportPath, FileIdentity, Limits, OpenId, Reason, Refusal, Rights, SyncScope,
};
use crate::net::{Lent, LentSend};

/// How many entries are looked at in one go, while everybody else waits.
const SCAN: usize = 64;

/// The descriptors of all opens.
pub(super) struct Descriptors {
    exports: Arc<Exports>,
    table: Mutex<Table>,
    places: Arc<Places>,
    /// Threads that wait for a place.
    waiters: Count,
    /// Descriptors that were closed to make room.
    evicted: AtomicU64,
}

/// How many descriptors a server's opens may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// All of them.
    pub open: usize,
    /// Those of them that stay open as long as their opens.
    pub pinned: usize,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Opens, with a descriptor or without one.
    pub(super) opens: usize,
    /// Descriptors, those included that are being opened and closed.
    pub(super) open: usize,
    /// Descriptors of them that cannot be closed while their opens last.
    pub(super) pinned: usize,
}

/// What became of a sync of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SyncedAll {
    /// Opens whose bytes are on the disk now and may not have been before.
    pub(super) synced: usize,
    /// Opens whose sync failed; they hear of it at their next one.
    pub(super) failed: usize,
}

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new open, which can be refused before anything is done.
    New,
    /// An open that is there.
    Again,
}

/// A descriptor and its place, which is given back when the descriptor is closed, and not before.
struct Held {
    file: Descriptor,
    _place: Place,
}

/// The use of an open's descriptor: it is not closed meanwhile.
pub(super) struct Lease {
    held: Arc<Held>,
    /// After the use has ended, somebody may close it.
    _bell: Bell,
}

impl Bounds {
    /// Those of `limits`, and no more than half of what the process may have: the other half is for connections.
    pub(super) fn new(limits: &Limits, process_max: Option<u64>) -> Self {
        let process_max = process_max.and_then(|max| usize::try_from(max / 2).ok()).unwrap_or(usize::MAX);
        let open = limits.descriptors_max.min(process_max).max(1);
        Self { open, pinned: limits.pinned_descriptors_max.min(open / 2) }
    }
}

impl Descriptors {
    pub(super) fn new(exports: Arc<Exports>, bounds: Bounds) -> Self {
        let Bounds { open, pinned } = bounds;
        Self {
            exports,
            table: Mutex::new(Table::new(pinned)),
            places: Places::new(open),
            waiters: Count::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Keeps the descriptor of a new open. `asked` is the path by which it was found.
    ///
    /// # Errors
    /// [`Reason::Exhausted`] if the file has no name left and there is no place for more such descriptors.
    pub(super) fn insert(
        &self,
        open: OpenId,
        (export, asked, rights): (&ExportName, &ExportPath, Rights),
        (opened, place): (OpenedFile, Place),
    ) -> Result<(FileIdentity, Attributes), Refusal> {
        let OpenedFile { file, identity, attributes } = opened;
        let _still = self.exports.still(export)?;
        let path = match self.exports.whereabouts(export, file.as_fd()) {
            Whereabouts::At(path) => Some(path.into()),
            Whereabouts::Nowhere => None,
            Whereabouts::Unknown => Some(asked.as_bytes().into()),
        };
        let origin = Origin { export: export.clone(), path, rights, identity };
        let held = Arc::new(Held { file, _place: place });
        let refused = self.table().insert(open, origin, Some(held));
        // What is dropped with a refusal is closed where the table is not locked any more.
        refused.map_err(|_closed| Reason::Exhausted)?;
        Ok((identity, attributes))
    }

    /// Puts an open in whose file is opened when it is first needed: it was open before this process began.
    ///
    /// # Errors
    /// [`Reason::Exhausted`] if no table has so many entries.
    pub(super) fn adopt(
        &self,
        open: OpenId,
        (export, path, rights): (&ExportName, &ExportPath, Rights),
        identity: FileIdentity,
    ) -> Result<(), Refusal> {
        let origin = Origin { export: export.clone(), path: Some(path.as_bytes().into()), rights, identity };
        self.table().insert(open, origin, None).map_err(|_| Reason::Exhausted.into())
    }

    /// Forgets an open. Whoever drops what is returned closes its descriptor, unless it is in use; that can take as long
    /// as the file system does.
    pub(super) fn remove(&self, open: OpenId) -> Option<Lease> {
        let held = self.table().remove(open)?;
        Some(self.lease(held))
    }

    /// The descriptor of an open, if it is there: without waiting for anything. If not, [`Descriptors::find`] says what
    /// is wrong.
    pub(super) fn here(&self, open: OpenId) -> Option<Lease> {
        let held = self.table().here(open)?;
        Some(self.lease(held))
    }

    /// Waits until what was written through the open's descriptors is on the disk.
    ///
    /// # Errors
    /// As [`Descriptors::find`]; else why it may not be there, once: also if that was found out when a descriptor was
    /// closed.
    pub(super) fn sync(&self, open: OpenId, scope: SyncScope) -> Result<(), Refusal> {
        let before = self.table().failed_syncs(open);
        if let Some(reason) = self.table().take_untold(open, before) {
            return Err(reason.into());
        }
        let file = self.find(open)?;
        let _turn = file.sync_turn();
        // Somebody else may have been told meanwhile: another holder, or whoever was about to close it.
        if let Some(reason) = self.table().take_untold(open, before) {
            return Err(reason.into());
        }
        let synced = file.sync(scope);
        if let Err(refusal) = synced {
            self.table().sync_failed(open, refusal.reason, true);
        }
        synced
    }

    /// Every descriptor that is there, which is not closed as long as this is.
    pub(super) fn all(&self) -> Vec<(OpenId, Lease)> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(start) = from {
            let table = self.table();
            let (entries, next) = table.slots(start, SCAN);
            all.extend(entries.filter_map(|entry| Some((entry.open, self.lease(Arc::clone(entry.held()?))))));
            from = next;
        }
        all
    }

    /// Syncs those of `files` through which something was written and not synced. What fails stays with its open, for
    /// its next sync.
    pub(super) fn sync_all(&self, files: Vec<(OpenId, Lease)>) -> SyncedAll {
        let mut all = SyncedAll::default();
        for (open, file) in files.into_iter().filter(|(_, file)| file.unsynced().is_some()) {
            match self.sync_for(open, &file) {
                Ok(()) => all.synced = all.synced.saturating_add(1),
                Err(_) => all.failed = all.failed.saturating_add(1),
            }
        }
        all
    }

    /// How many there may be.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { open: self.places.max(), pinned: self.table().pinned_max() }
    }

    /// How many there are.
    pub(super) fn counts(&self) -> Counts {
        let table = self.table();
        Counts { opens: table.len(), open: self.places.taken(), pinned: table.pinned() }
    }

    /// How many were closed so far to make room for others.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn lease(&self, held: Arc<Held>) -> Lease {
        Lease { held, _bell: self.places.bell() }
    }
}

impl Deref for Lease {
    type Target = Descriptor;

    fn deref(&self) -> &Descriptor {
        &self.held.file
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.file.as_fd()
    }
}

impl Lent for Lease {
    fn send(&self, socket: BorrowedFd<'_>, offset: u64, len: usize) -> LentSend {
        Lent::send(&self.held.file, socket, offset, len)
    }

    fn read(&self, offset: u64, len: usize) -> Result<BytesMut, Refusal> {
        Lent::read(&self.held.file, offset, len)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// Counts only: the table holds names of files.
impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// How many are somewhere.
#[derive(Default)]
struct Count(AtomicUsize);

/// One of them.
struct Counted<'a>(&'a Count);

impl Count {
    fn enter(&self, most: usize) -> Option<Counted<'_>> {
        let more = |count: usize| (count < most).then(|| count.saturating_add(1));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
