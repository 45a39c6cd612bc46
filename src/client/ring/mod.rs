//! Key rings: how the files of a program are found again after its process, or its machine, has died.
//!
//! Each running client has one ring, a file that only its user can read, in a folder that all rings of the user share.
//! It holds, for each open that can be resumed, the resume key and what it is for. An entry is on the disk before the
//! open is told to its caller, and is wiped when the handle is closed. The file is locked for as long as its owner
//! lives, so that others can tell: a ring without an owner is *adopted* by the next client that asks for what its user
//! had open, and each entry moves into that client's own ring when its file is back.
//!
//! A ring never has an entry less than it must: one that is there twice, because a process died between the two, is
//! found out by the handle that the newer one names.
//!
//! What it must not do: keep a key in memory beyond the moment in which it is written or used, or say one to anybody.

mod adopted;
mod error;
mod file;
mod format;
mod renew;
mod resume;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

pub use adopted::{Listed, Survey};
pub use error::KeyRingError;
use file::RingFile;
use format::{Entry, HEADER, Place};
pub(in crate::client) use renew::{Keeper, Keepers};
pub use resume::Resumed;

use crate::model::{ExportName, ExportPath, InstanceId, Limits, OpenId, OpenMode, PublicKey, len_u64};
use crate::net::key_file::make_folders;

/// An open of which a key ring has the key. It says nothing of the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptOpen {
    /// The open's id, as the server's status shows it.
    pub id: OpenId,
    /// The server.
    pub server: PublicKey,
    /// The export.
    pub export: ExportName,
    /// The path at which the file was opened.
    pub path: ExportPath,
    /// The mode in which it is open.
    pub mode: OpenMode,
    /// When the key was put into the ring, in microseconds since 1970 by the wall clock.
    pub kept_us: u64,
}

/// The ring of a running client. Dropping it without an entry removes it; with entries it is there to be adopted.
pub(super) struct KeyRing {
    folder: PathBuf,
    file: Arc<RingFile>,
    book: Mutex<Book>,
    /// Up to which write the disk has the file. Who holds it makes the disk take it, for all that wait.
    synced: tokio::sync::Mutex<u64>,
    /// One adopts at a time: rings that another one holds would look as if their owners lived.
    adopting: tokio::sync::Mutex<()>,
}

/// Where what is in the ring.
#[derive(Debug)]
struct Book {
    /// The end of the last slot.
    end: u64,
    /// Slots without an entry, by their length.
    free: BTreeMap<usize, Vec<u64>>,
    live: usize,
    /// Counts the writes that the disk has to have.
    written: u64,
}

/// An entry of a ring. It stays when this is dropped.
struct Kept {
    ring: Arc<KeyRing>,
    place: Place,
}

impl KeyRing {
    /// Makes the ring of an instance in `folder`, which is made if it is missing.
    pub(super) fn create(folder: &Path, instance: InstanceId) -> Result<Self, KeyRingError> {
        make_folders(folder)?;
        let file = Arc::new(RingFile::create(folder, instance)?);
        let book = Book { end: len_u64(HEADER.len()), free: BTreeMap::new(), live: 0, written: 0 };
        Ok(Self {
            folder: folder.to_owned(),
            file,
            book: Mutex::new(book),
            synced: tokio::sync::Mutex::new(0),
            adopting: tokio::sync::Mutex::new(()),
        })
    }

    /// Puts an entry into the file; [`KeyRing::settle`] waits until the disk has it. It is a short write into the page
    /// cache, so it blocks nobody to speak of.
    fn add(self: &Arc<Self>, entry: &Entry) -> Result<Kept, KeyRingError> {
        let full = || KeyRingError::Full { path: self.file.path().to_owned() };
        let body = format::body(entry);
        let mut book = self.lock();
        if book.live >= Limits::RING_ENTRIES_MAX {
            return Err(full());
        }
        let (place, is_new) = book.room_for(format::slot_len(&body));
        let end = place.at.saturating_add(len_u64(place.len));
        let slot = format::slot(&body, place.len).filter(|_| end <= Limits::RING_LEN_MAX);
        let written = match slot {
            Some(slot) => self.file.write(place.at, &slot),
            None => Err(full()),
        };
        match written {
            Ok(()) => {
                book.end = book.end.max(end);
                book.live += 1;
                book.written += 1;
                Ok(Kept { ring: Arc::clone(self), place })
            }
            Err(error) => {
                // What was written of it must not stay. Where that fails too, the sum tells that it is no entry.
                let undone = if is_new { self.file.cut(place.at) } else { self.file.wipe(place) };
                drop(undone);
                if !is_new {
                    book.give_back(place);
                }
                Err(error)
            }
        }
    }

    /// Waits until the disk has what was added before. Those that wait at the same time share a wait for the disk.
    async fn settle(&self, runtime: &Handle) -> Result<(), KeyRingError> {
        let wanted = self.lock().written;
        let mut synced = self.synced.lock().await;
        if *synced >= wanted {
            return Ok(());
        }
        let reached = self.lock().written;
        let file = Arc::clone(&self.file);
        let waiting = runtime.spawn_blocking(move || file.sync()).await;
        waiting.map_err(|error| self.stopped(error))??;
        *synced = reached;
        Ok(())
    }

    /// The runtime ended while something was under way.
    fn stopped(&self, error: tokio::task::JoinError) -> KeyRingError {
        let path = self.file.path().to_owned();
        KeyRingError::Io { what: "write to", path, source: std::io::Error::other(error) }
    }

    /// Wipes an entry. The server has given the open up or will; so it is no matter when the disk has this.
    fn forget(&self, place: Place) {
        let mut book = self.lock();
        match self.file.wipe(place) {
            Ok(()) => book.give_back(place),
            Err(error) => tracing::warn!(%error, "a resume key stays in its ring"),
        }
        book.live = book.live.saturating_sub(1);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyRing {
    fn drop(&mut self) {
        if self.lock().live == 0
            && let Err(error) = self.file.remove()
        {
            tracing::warn!(%error, "an empty key ring stays");
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").finish_non_exhaustive()
    }
}

impl Book {
    /// A slot for an entry that needs this length, and whether it is a new one.
    fn room_for(&mut self, len: usize) -> (Place, bool) {
        let free = self.free.range_mut(len..).find_map(|(&len, slots)| Some(Place { at: slots.pop()?, len }));
        match free {
            Some(place) => (place, false),
            None => (Place { at: self.end, len }, true),
        }
    }

    fn give_back(&mut self, place: Place) {
        self.free.entry(place.len).or_default().push(place.at);
    }
}

impl Kept {
    /// Wipes the entry: its handle is closed.
    fn forget(self) {
        self.ring.forget(self.place);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
