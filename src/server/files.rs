//! File work on one open descriptor: reads, writes, syncs, attributes. Every function here blocks for as long as
//! the file system does, but for [`Descriptor::read_cached`], which takes only what is in memory and so may run
//! on a task.
//!
//! Offsets are always given; a descriptor has no position that two requests could fight over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::BytesMut;
use rustix::fs::Stat;
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags};

use crate::model::{Attributes, FileIdentity, Limits, Reason, Refusal, SyncScope, len_u64};

/// The greatest offset that a file can have, and so the greatest end of a range.
const END_MAX: u64 = i64::MAX.unsigned_abs();

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
}

impl Descriptor {
    /// Wraps the descriptor of a regular file.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Appends to `into` what of the `len` bytes at `offset` can be had without waiting for a disk. Fewer bytes
    /// than `len` with [`CachedRead::Done`] mean that the file ends there.
    ///
    /// A `len` beyond [`Limits::PAYLOAD_LEN_MAX`] is never cached.
    pub fn read_cached(&self, offset: u64, len: u32, into: &mut BytesMut) -> CachedRead {
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
    pub fn read(&self, offset: u64, len: u32, into: &mut BytesMut) -> Result<(), Refusal> {
        let len = checked_len(offset, len).ok_or(Reason::Invalid)?;
        read_with(offset, len, into, |at, buffer| rustix::io::pread(&self.fd, buffer, at)).map_err(refusal)
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
        write_with(offset, bytes, |at, rest| rustix::io::pwrite(&self.fd, rest, at)).map_err(refusal)
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
        rustix::io::retry_on_intr(sync).map_err(refusal)
    }

    /// Size and times as they are now.
    ///
    /// # Errors
    /// A [`Refusal`] with what the file system reports.
    pub fn attributes(&self) -> Result<Attributes, Refusal> {
        rustix::fs::fstat(&self.fd).map(|stat| attributes_of(&stat)).map_err(refusal)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Which file a `stat` describes.
pub(crate) fn identity_of(stat: &Stat) -> FileIdentity {
    FileIdentity { device: stat.st_dev, inode: stat.st_ino }
}

/// Size and times in a `stat`.
pub(crate) fn attributes_of(stat: &Stat) -> Attributes {
    Attributes {
        len: u64::try_from(stat.st_size).unwrap_or(0),
        permissions: stat.st_mode & 0o7777,
        modified_ns: nanoseconds(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        changed_ns: nanoseconds(stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
    }
}

/// What the other side is told of an error of the file system. The one place that decides it.
pub(crate) fn refusal(errno: Errno) -> Refusal {
    let reason = match errno {
        Errno::NOENT | Errno::NOTDIR => Reason::NotFound,
        Errno::ACCESS | Errno::PERM => Reason::PermissionDenied,
        Errno::XDEV | Errno::LOOP => Reason::Outside,
        Errno::ISDIR => Reason::IsDirectory,
        Errno::NOSPC => Reason::NoSpace,
        Errno::DQUOT => Reason::Quota,
        Errno::ROFS => Reason::ReadOnly,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Reason::Exhausted,
        // A file too large or a name too long for this file system.
        Errno::INVAL | Errno::FBIG | Errno::NAMETOOLONG => Reason::Invalid,
        // Names that move while they are resolved; a lease of another program; a program that runs.
        Errno::AGAIN | Errno::TXTBSY => Reason::Busy,
        _ => Reason::Io,
    };
    reason.into()
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// The length of a read, if it stays below the greatest offset and the longest payload.
fn checked_len(offset: u64, len: u32) -> Option<usize> {
    let end = offset.checked_add(u64::from(len))?;
    usize::try_from(len).ok().filter(|&len| len <= Limits::PAYLOAD_LEN_MAX && end <= END_MAX)
}

/// Appends `len` bytes to `into`, has `read` fill them from `offset`, and takes back what it did not fill.
///
/// They are zeroed before they are filled, which makes a read from memory about a sixth slower: handing out
/// memory that holds nothing yet is not possible here without unsafe code.
fn append(
    into: &mut BytesMut,
    len: usize,
    offset: u64,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let start = into.len();
    into.resize(start.saturating_add(len), 0);
    let outcome = loop {
        match into.get_mut(start..).map_or(Ok(0), |buffer| read(offset, buffer)) {
            Err(Errno::INTR) => {}
            outcome => break outcome,
        }
    };
    let filled = outcome.unwrap_or(0).min(len);
    into.truncate(start.saturating_add(filled));
    outcome.map(|_| filled)
}

fn read_cached_with(
    offset: u64,
    len: usize,
    into: &mut BytesMut,
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
    into: &mut BytesMut,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    let start = into.len();
    let mut done: usize = 0;
    while done < len {
        match append(into, len.saturating_sub(done), offset.saturating_add(len_u64(done)), &mut read) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(errno) => {
                into.truncate(start);
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
