//! An open file with calls that block, and with the traits of the standard library.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::engine::{Engine, may_block};
use crate::client::calls::Pending;
use crate::client::cursor::Cursor;
use crate::client::stream::as_io;
use crate::client::{self, Error, Grant, GrantOptions};
use crate::model::{
    Allocation, Attributes, ByteRange, FileState, GrantId, HandleId, LockMode, Meanwhile, PublicKey,
    ResumeKey, SetTime, SyncScope, XattrHow, XattrName,
};

/// As [`crate::client::File`], and as [`std::fs::File`]: [`Read`], [`Write`] and [`Seek`] by a place in the file, also
/// for `&File`; [`FileExt`] at offsets, without that place.
///
/// Reading reads ahead and writing writes behind, as [`crate::client::FileStream`] does. Every other call waits for the
/// writes before it, so that it sees them. One that changes the file's bytes, or locks them, throws away what was read
/// ahead, so that reading goes on with what is there then; changes through another handle, or by others, show only
/// beyond what was read ahead.
///
/// A write that fails is told by the next write, flush, sync or close. Dropping a file waits for its writes, tells
/// nothing, and closes it; [`File::close`] tells. Dropped where a call would be [`Error::InsideRuntime`], it cannot
/// wait: writes that were not sent by then are withdrawn, and nobody is told.
#[derive(Debug)]
pub struct File {
    cursor: Mutex<Cursor<Pending>>,
    /// Whether writes may be under way behind their callers. Changed under the cursor's lock only, and read without it,
    /// so that calls at offsets need not wait for each other.
    is_behind: AtomicBool,
    /// Whether bytes may be read ahead; changed and read as `is_behind`.
    is_ahead: AtomicBool,
    file: client::File,
    engine: Arc<Engine>,
}

/// Calls of the async file, blocking, by one of the ways below.
macro_rules! calls {
    ($way:ident: $($name:ident($($argument:ident: $kind:ty),*) -> $value:ty;)+) => {
        impl File {
            $(
                #[doc = concat!("As [`crate::client::File::", stringify!($name), "`].")]
                ///
                /// # Errors
                /// As there, and [`Error::InsideRuntime`].
                pub fn $name(&self, $($argument: $kind),*) -> Result<$value, Error> {
                    self.$way(self.file.$name($($argument),*))
                }
            )+
        }
    };
}

calls! {
    settled:
    read_vectored_at(offset: u64, into: &mut [IoSliceMut<'_>]) -> usize;
    read_ranges(ranges: &[(u64, usize)]) -> Vec<Bytes>;
    stat() -> FileState;
    resume_key() -> ResumeKey;
    grant(to: &PublicKey, options: GrantOptions) -> Grant;
    revoke(grant: GrantId) -> ();
    set_times(accessed: Option<SetTime>, modified: Option<SetTime>) -> Attributes;
    set_permissions(permissions: u32) -> Attributes;
    seek_data(offset: u64) -> Option<u64>;
    seek_hole(offset: u64) -> Option<u64>;
    unlock(range: ByteRange) -> ();
    xattr(name: impl AsRef<[u8]>) -> Bytes;
    set_xattr(name: impl AsRef<[u8]>, value: &[u8], how: XattrHow) -> ();
    xattr_names() -> Vec<XattrName>;
    remove_xattr(name: impl AsRef<[u8]>) -> ();
}

calls! {
    changing:
    write_vectored_at(offset: u64, parts: &[IoSlice<'_>]) -> ();
    write_bytes_at(offset: u64, bytes: Bytes) -> ();
    append(bytes: &[u8]) -> u64;
    append_bytes(bytes: Bytes) -> u64;
    set_len(len: u64) -> Attributes;
    allocate(range: ByteRange, how: Allocation) -> ();
    punch_hole(range: ByteRange) -> ();
    lock(range: ByteRange, mode: LockMode, wait: Duration) -> ();
    try_lock(range: ByteRange, mode: LockMode) -> ();
}

impl File {
    pub(super) fn new(file: client::File, engine: &Arc<Engine>) -> Self {
        let (cursor, engine) = (Mutex::new(Cursor::new(0)), Arc::clone(engine));
        let (is_behind, is_ahead) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { cursor, is_behind, is_ahead, file, engine }
    }

    /// The same handle, whose calls wait this long for their answers.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.file.set_timeout(timeout);
        self
    }

    /// As [`crate::client::File::sync`], with the error of a write before it that nobody has heard of yet.
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn sync(&self, scope: SyncScope) -> Result<(), Error> {
        self.flush_behind()?;
        self.engine.run(self.file.sync(scope))
    }

    /// As [`crate::client::File::state`].
    #[must_use]
    pub fn state(&self) -> FileState {
        self.file.state()
    }

    /// As [`crate::client::File::handle`].
    #[must_use]
    pub fn handle(&self) -> HandleId {
        self.file.handle()
    }

    /// As [`crate::client::File::meanwhile`].
    #[must_use]
    pub fn meanwhile(&self) -> Option<Meanwhile> {
        self.file.meanwhile()
    }

    /// As [`crate::client::File::kept_key`].
    #[must_use]
    pub fn kept_key(&self) -> Option<ResumeKey> {
        self.file.kept_key()
    }

    /// As [`crate::client::File::close`], behind the writes before it.
    ///
    /// # Errors
    /// As there, with the error of a write that nobody has heard of yet; [`Error::InsideRuntime`].
    pub fn close(self) -> Result<(), Error> {
        let flushed = self.flush_behind();
        let closed = self.engine.run(self.file.shut());
        flushed.and(closed)
    }

    /// As [`crate::client::File::leave_open`], behind the writes before it.
    ///
    /// # Errors
    /// The error of a write that nobody has heard of yet; [`Error::InsideRuntime`].
    pub fn leave_open(self) -> Result<(), Error> {
        self.file.give_up();
        self.flush_behind()
    }

    /// Does something behind the writes before it.
    fn settled<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.settle()?;
        self.engine.run(work)
    }

    /// As [`Self::settled`], for what changes bytes that may have been read ahead, or keeps others from changing them
    /// from now on. They are thrown away also if it failed: a part may be done.
    fn changing<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let outcome = self.settled(work);
        if may_block() && self.is_ahead.load(Ordering::Acquire) {
            let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
            cursor.forget_reads();
            self.is_ahead.store(false, Ordering::Release);
        }
        outcome
    }

    /// Waits for the writes that are under way, and leaves their errors to the next write, flush, sync or close.
    fn settle(&self) -> Result<(), Error> {
        if !self.is_behind.load(Ordering::Acquire) {
            return Ok(());
        }
        self.drive(|cursor, _, cx| {
            cursor.poll_settled(cx).map(|()| {
                self.is_behind.store(false, Ordering::Release);
                Ok(())
            })
        })
    }

    fn flush_behind(&self) -> Result<(), Error> {
        self.drive(|cursor, _, cx| {
            let flushed = cursor.poll_flush(cx);
            if flushed.is_ready() {
                self.is_behind.store(false, Ordering::Release);
            }
            flushed
        })
    }

    /// Blocks on what a stream does.
    fn drive<T>(
        &self,
        mut poll: impl FnMut(&mut Cursor<Pending>, &client::File, &mut Context<'_>) -> Poll<Result<T, Error>>,
    ) -> Result<T, Error> {
        if !may_block() {
            return Err(Error::InsideRuntime);
        }
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        self.engine.run(poll_fn(|cx| poll(&mut cursor, &self.file, cx)))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if may_block() {
            // Whoever wants to know calls close.
            drop(self.settle());
        }
    }
}

impl Read for &File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let bytes = self.drive(|cursor, file, cx| {
            self.is_ahead.store(true, Ordering::Release);
            cursor.poll_read(file, cx, into.len())
        });
        let bytes = bytes.map_err(as_io)?;
        // As many as were asked for at most, so that nothing is left over.
        bytes.as_ref().read(into)
    }
}

impl Write for &File {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.drive(|cursor, file, cx| {
            self.is_behind.store(true, Ordering::Release);
            cursor.poll_write(file, cx, from)
        })
        .map_err(as_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_behind().map_err(as_io)
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut to = Some(to);
        self.drive(|cursor, file, cx| {
            if let Some(to) = to.take() {
                cursor.start_seek(to);
            }
            cursor.poll_seek(file, cx)
        })
        .map_err(as_io)
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self).read(into)
    }
}

impl Write for File {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        (&*self).write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

/// Reads are short at the end of the file only, and writes never: all is written, or an error told. Errors are those of
/// [`Read`] and [`Write`], as [`crate::client::FileStream`] has them: bytes that others have locked are `EACCES`.
impl FileExt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.settled(self.file.read_at(offset, into)).map_err(as_io)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<usize> {
        self.changing(self.file.write_at(offset, from)).map_err(as_io)?;
        Ok(from.len())
    }
}
