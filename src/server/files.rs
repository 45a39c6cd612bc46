//! File work on one open descriptor: reads, writes, appends, syncs, storage, attributes. Every function here blocks
//! for as long as the file system does, but for [`Descriptor::read_cached`], which takes only what is in memory and so
//! may run on a task.
//!
//! Offsets are always given. The kernel's position of a descriptor is moved by appends and seeks only, and they take
//! turns.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::{Errno, IoSlice, IoSliceMut, ReadWriteFlags};

use super::stat::{attributes_of, stat_of};
use crate::model::{
    Allocation, Attributes, ByteRange, Limits, Reason, Refusal, Seekable, SyncScope, len_u64,
};
use crate::net::{Lent, LentSend, Room};

/// The greatest offset that a file can have, and so the greatest end of a range.
const END_MAX: u64 = i64::MAX.unsigned_abs();

/// The offset that means the descriptor's own position, which a write then moves.
const AT_POSITION: u64 = u64::MAX;

/// What a read from memory came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CachedRead {
    /// The whole range was read, or all of it up to the end of the file.
    Done,
    /// Some bytes were read; the next one is not in memory.
    Partial,
    /// Nothing was read: the first byte is not in memory, or the file system cannot say, or something is wrong
    /// that [`Descriptor::read`] will name.
    NotCached,
}

/// An open regular file.
#[derive(Debug)]
pub struct Descriptor {
    fd: OwnedFd,
    /// Held by whoever moves the descriptor's position until it is read back.
    position: Mutex<()>,
    /// Held by whoever syncs until what came of it is known to everybody else.
    syncing: Mutex<()>,
    /// How often bytes were changed through it, and how many of those changes have been synced.
    changes: AtomicU64,
    synced: AtomicU64,
    /// What the next sync comes to, in place of a real one.
    #[cfg(test)]
    pub(super) next_sync: Mutex<Option<Errno>>,
}

impl Descriptor {
    /// Wraps the descriptor of a regular file.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            position: Mutex::new(()),
            syncing: Mutex::new(()),
            changes: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            #[cfg(test)]
            next_sync: Mutex::new(None),
        }
    }

    /// Appends to `into` what of the `len` bytes at `offset` can be had without waiting for a disk. Fewer bytes
    /// than `len` with [`CachedRead::Done`] mean that the file ends there.
    ///
    /// A `len` beyond [`Limits::PAYLOAD_LEN_MAX`] is never cached.
    pub fn read_cached(&self, offset: u64, len: u32, into: &mut impl Room) -> CachedRead {
        let Some(len) = checked_len(offset, len) else { return CachedRead::NotCached };
        read_cached_with(offset, len, into, |at, buffer| {
            let mut buffers = [IoSliceMut::new(buffer)];
            rustix::io::preadv2(&self.fd, &mut buffers, at, ReadWriteFlags::NOWAIT)
        })
    }

    /// Appends to `into` the `len` bytes at `offset`, fewer only where the file ends before.
    ///
    /// # Errors
    /// A [`Refusal`]: [`Reason::Invalid`] beyond the greatest offset or [`Limits::PAYLOAD_LEN_MAX`], else what the
    /// file system reports. `into` is then as it was: bytes before a bad block are not passed off as the end of
    /// the file.
    pub fn read(&self, offset: u64, len: u32, into: &mut impl Room) -> Result<(), Refusal> {
        let len = checked_len(offset, len).ok_or(Reason::Invalid)?;
        read_with(offset, len, into, |at, buffer| rustix::io::pread(&self.fd, buffer, at)).map_err(refusal)
    }

    /// As [`Lent::send`].
    fn send_to(&self, socket: BorrowedFd<'_>, offset: u64, len: usize) -> LentSend {
        let mut sent = 0;
        while sent < len {
            let mut at = offset.saturating_add(len_u64(sent));
            match rustix::io::retry_on_intr(|| {
                rustix::fs::sendfile(socket, &self.fd, Some(&mut at), len - sent)
            }) {
                Ok(0) => break,
                Ok(more) => sent = sent.saturating_add(more),
                Err(_) if sent > 0 => break,
                Err(Errno::AGAIN) => return LentSend::Full,
                Err(errno @ (Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT)) => {
                    return LentSend::Broken(errno.into());
                }
                // What the file system cannot splice can be read all the same.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return LentSend::Unsupported,
                Err(errno) => return LentSend::Refused(refusal(errno)),
            }
        }
        LentSend::Sent(sent)
    }

    /// Writes `bytes` at `offset` and returns how many were written; fewer than given only where the file
    /// system refused the rest, which the next write there is told. Nothing to write changes nothing, no time
    /// stamp either.
    ///
    /// # Errors
    /// A [`Refusal`] if nothing was written: [`Reason::Invalid`] beyond the greatest offset, else what the file
    /// system reports.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<u32, Refusal> {
        let len = u32::try_from(bytes.len()).map_err(|_| Reason::Invalid)?;
        if offset.checked_add(u64::from(len)).is_none_or(|end| end > END_MAX) {
            return Err(Reason::Invalid.into());
        }
        let _change = self.change();
        write_with(offset, bytes, |at, rest| rustix::io::pwrite(&self.fd, rest, at)).map_err(refusal)
    }

    /// Writes `bytes` at the end of the file, wherever that is at this moment, and returns where they are and how
    /// many were written; fewer than given only where the file system refused the rest. No other writer's bytes come
    /// between them, not those of programs on the server either. Nothing to write changes nothing.
    ///
    /// # Errors
    /// A [`Refusal`] if nothing was written, with what the file system reports; [`Reason::Unsupported`] where it
    /// cannot append in one step.
    pub fn append(&self, bytes: &[u8]) -> Result<(u64, u32), Refusal> {
        if bytes.is_empty() {
            return Ok((self.attributes()?.len, 0));
        }
        let _turn = self.position_turn();
        let _change = self.change();
        // The kernel finds the end and writes there in one step, and leaves the position behind the last byte.
        let write =
            || rustix::io::pwritev2(&self.fd, &[IoSlice::new(bytes)], AT_POSITION, ReadWriteFlags::APPEND);
        let written = match rustix::io::retry_on_intr(write).map_err(refusal)? {
            0 => return Err(Reason::Io.into()),
            written => u32::try_from(written).map_err(|_| Reason::Invalid)?,
        };
        let end = rustix::fs::tell(&self.fd).map_err(refusal)?;
        Ok((end.saturating_sub(u64::from(written)), written))
    }

    /// Reserves the storage of a range or gives it back.
    ///
    /// # Errors
    /// A [`Refusal`]: [`Reason::Unsupported`] where the file system cannot do it, else what it reports.
    pub fn allocate(&self, range: ByteRange, how: Allocation) -> Result<(), Refusal> {
        let flags = match how {
            Allocation::Reserve => FallocateFlags::empty(),
            Allocation::ReserveKeepLen => FallocateFlags::KEEP_SIZE,
            Allocation::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        };
        let len = range.end().saturating_sub(range.start());
        let _change = self.change();
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.fd, flags, range.start(), len))
            .map_err(refusal)
    }

    /// Where the next data or hole from `offset` on begins; `None` if there is none before the end of the file. A
    /// file system that does not keep track of holes calls everything data.
    ///
    /// # Errors
    /// A [`Refusal`]: [`Reason::Invalid`] beyond the greatest offset, else what the file system reports.
    pub fn seek(&self, offset: u64, what: Seekable) -> Result<Option<u64>, Refusal> {
        if offset > END_MAX {
            return Err(Reason::Invalid.into());
        }
        let target = match what {
            Seekable::Data => SeekFrom::Data(offset),
            Seekable::Hole => SeekFrom::Hole(offset),
        };
        let _turn = self.position_turn();
        match rustix::fs::seek(&self.fd, target) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(refusal(errno)),
        }
    }

    /// Cuts or extends the file to `len` bytes.
    ///
    /// # Errors
    /// A [`Refusal`]: [`Reason::Invalid`] beyond the greatest offset; [`Reason::PermissionDenied`] if the descriptor
    /// is not open for writing; else what the file system reports.
    pub fn set_len(&self, len: u64) -> Result<(), Refusal> {
        if len > END_MAX {
            return Err(Reason::Invalid.into());
        }
        let access = rustix::fs::fcntl_getfl(&self.fd).map_err(refusal)? & OFlags::ACCMODE;
        if access == OFlags::RDONLY {
            // The kernel would call the request invalid.
            return Err(Reason::PermissionDenied.into());
        }
        let _change = self.change();
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.fd, len)).map_err(refusal)
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// A [`Refusal`] if it may not be there. The system reports a lost write once, so the caller must pass this
    /// on to everybody who has written without a sync since the last success.
    pub fn sync(&self, scope: SyncScope) -> Result<(), Refusal> {
        let sync = || match scope {
            SyncScope::Data => rustix::fs::fdatasync(&self.fd),
            SyncScope::All => rustix::fs::fsync(&self.fd),
        };
        #[cfg(test)]
        if let Some(errno) = self.next_sync.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(refusal(errno));
        }
        // A change that ends from here on may not be in it.
        let changes = self.changes.load(Ordering::Acquire);
        rustix::io::retry_on_intr(sync).map_err(refusal)?;
        self.synced.fetch_max(changes, Ordering::Release);
        Ok(())
    }

    /// A number that is there while changes of bytes through this descriptor have not been synced successfully, and
    /// grows with each.
    pub(super) fn unsynced(&self) -> Option<u64> {
        let changes = self.changes.load(Ordering::Acquire);
        (changes > self.synced.load(Ordering::Acquire)).then_some(changes)
    }

    /// For whoever syncs, until what came of it is known to those who ask before they sync.
    pub(super) fn sync_turn(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size and times as they are now.
    ///
    /// # Errors
    /// A [`Refusal`] with what the file system reports.
    pub fn attributes(&self) -> Result<Attributes, Refusal> {
        stat_of(&self.fd).map(|stat| attributes_of(&stat)).map_err(refusal)
    }

    fn change(&self) -> Change<'_> {
        Change(&self.changes)
    }

    fn position_turn(&self) -> MutexGuard<'_, ()> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of bytes, which counts when it has ended, also if it has failed: a part of it may be there.
struct Change<'a>(&'a AtomicU64);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Lent for Descriptor {
    fn send(&self, socket: BorrowedFd<'_>, offset: u64, len: usize) -> LentSend {
        self.send_to(socket, offset, len)
    }

    fn read(&self, offset: u64, len: usize) -> Result<BytesMut, Refusal> {
        let mut into = BytesMut::with_capacity(len);
        let len = u32::try_from(len).map_err(|_| Reason::Invalid)?;
        Self::read(self, offset, len, &mut into)?;
        Ok(into)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the other side is told of an error of the file system. The one place that decides it.
pub(crate) fn refusal(errno: Errno) -> Refusal {
    let reason = match errno {
        Errno::NOENT => Reason::NotFound,
        Errno::NOTDIR => Reason::NotDirectory,
        Errno::EXIST => Reason::Exists,
        Errno::NOTEMPTY => Reason::NotEmpty,
        Errno::MLINK => Reason::TooManyLinks,
        Errno::NAMETOOLONG => Reason::NameTooLong,
        // A descriptor that is open, as all of ours are, is bad only for what it was not opened for.
        Errno::ACCESS | Errno::PERM | Errno::BADF => Reason::PermissionDenied,
        // The kernel's word for a path beneath a directory that leads out of it, and for links without end.
        Errno::XDEV | Errno::LOOP => Reason::Outside,
        Errno::ISDIR => Reason::IsDirectory,
        Errno::NOSPC => Reason::NoSpace,
        Errno::DQUOT => Reason::Quota,
        Errno::ROFS => Reason::ReadOnly,
        Errno::NODATA => Reason::NoAttribute,
        Errno::FBIG => Reason::TooBig,
        // Of extended attributes only.
        Errno::TOOBIG => Reason::AttributeTooBig,
        Errno::RANGE => Reason::AttributeNameTooLong,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Reason::Exhausted,
        Errno::INVAL => Reason::Invalid,
        Errno::OPNOTSUPP | Errno::NOSYS => Reason::Unsupported,
        Errno::STALE => Reason::Stale,
        // Names that move while they are resolved; a lease of another program; a program that runs; a directory that
        // something is mounted on.
        Errno::AGAIN | Errno::TXTBSY | Errno::BUSY => Reason::Busy,
        _ => Reason::Io,
    };
    reason.into()
}

/// The length of a read, if it stays below the greatest offset and the longest payload.
fn checked_len(offset: u64, len: u32) -> Option<usize> {
    let end = offset.checked_add(u64::from(len))?;
    usize::try_from(len).ok().filter(|&len| len <= Limits::PAYLOAD_LEN_MAX && end <= END_MAX)
}

/// Appends up to `len` bytes to `into` that `read` reads from `offset`.
fn append(
    into: &mut impl Room,
    len: usize,
    offset: u64,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    into.append(len, |buffer| {
        loop {
            match read(offset, buffer) {
                Err(Errno::INTR) => {}
                outcome => return outcome,
            }
        }
    })
}

fn read_cached_with(
    offset: u64,
    len: usize,
    into: &mut impl Room,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, Errno>,
) -> CachedRead {
    let mut done: usize = 0;
    while done < len {
        match append(into, len.saturating_sub(done), offset.saturating_add(len_u64(done)), &mut read) {
            Ok(0) => return CachedRead::Done,
            Ok(count) => done = done.saturating_add(count),
            Err(_) if done > 0 => return CachedRead::Partial,
            Err(_) => return CachedRead::NotCached,
        }
    }
    CachedRead::Done
}

fn read_with(
    offset: u64,
    len: usize,
    into: &mut impl Room,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    let start = into.filled();
    let mut done: usize = 0;
    while done < len {
        match append(into, len.saturating_sub(done), offset.saturating_add(len_u64(done)), &mut read) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(errno) => {
                into.cut(start);
                return Err(errno);
            }
        }
    }
    Ok(())
}

fn write_with(
    offset: u64,
    bytes: &[u8],
    mut write: impl FnMut(u64, &[u8]) -> Result<usize, Errno>,
) -> Result<u32, Errno> {
    let mut done: usize = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match write(offset.saturating_add(len_u64(done)), rest) {
            Err(Errno::INTR) => {}
            Err(errno) if done == 0 => return Err(errno),
            // A file system that takes nothing and names no reason would be asked for ever.
            Ok(0) if done == 0 => return Err(Errno::IO),
            Err(_) | Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
        }
    }
    u32::try_from(done).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests;
