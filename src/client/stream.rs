//! A file as a stream of bytes: tokio's `AsyncRead`, `AsyncWrite` and `AsyncSeek` over requests of which many are
//! under way.

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use super::ahead::Window;
use super::calls::Pending;
use super::cursor::{Cursor, Requests};
use super::error::Error;
use super::file::File;
use crate::wire::control::Stat;

/// A file with a place in it, from [`File::into_stream`].
///
/// - **Reading** reads ahead: the further, the longer the reader goes on without a jump. So bytes may have been read
///   before others changed them, before [`FileStream::file`] was used to change them, or before a lock was taken that
///   is to keep them as they are: [`FileStream::discard_read_ahead`] has them read again.
/// - **Writing** writes behind: a write returns when its bytes are queued, of which a bounded number is under way at
///   once. Flushing waits until the server has all of them, and so does shutting down, which closes nothing. Flush a
///   stream before it is dropped: what was not sent by then is not sent any more. Small writes are small requests; put
///   a [`BufWriter`](tokio::io::BufWriter) around the stream where there are many. Writes to the same bytes happen in
///   order: the later one waits for the earlier one. Those to different bytes may happen in any.
/// - **Reading behind a write** waits for the write, and sees it.
/// - **Seeking** throws away what was read ahead, and keeps what is being written. The end is where the server says it
///   is once it has all writes.
/// - A file that was opened for [`append`](super::OpenOptions::append) is written at its end, wherever the stream is,
///   chunk after chunk; behind a write the stream stands at the end of what was written.
/// - **The error of a write behind** is that of the next write, flush or shutdown, once. Then the stream writes no more:
///   each further try ends with [`Error::EarlierWrite`]. It can still be read.
///
/// Errors are [`io::Error`]s with the kernel's number ([`Error::errno`]), but for two that callers of such traits take
/// for something else. A read or write is never [`Interrupted`](io::ErrorKind::Interrupted), which is a request to try
/// again without end: that is `EIO`. And never [`WouldBlock`](io::ErrorKind::WouldBlock), which is a promise to be woken
/// later: bytes that others have locked are `EACCES`, as POSIX allows.
#[derive(Debug)]
pub struct FileStream {
    file: File,
    cursor: Cursor<Pending>,
    wakers: Arc<Wakers>,
}

impl FileStream {
    pub(super) fn new(file: File, offset: u64) -> Self {
        Self { file, cursor: Cursor::new(offset), wakers: Arc::default() }
    }

    /// The file, for everything but its bytes in order. Its own reads and writes know nothing of the stream's: flush
    /// the stream before, and after a change or a lock call [`FileStream::discard_read_ahead`].
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Throws away what was read ahead and not taken yet, and keeps the stream where it is: what is read next is asked
    /// for after this call. What was read before a lock was taken may be older than the lock.
    pub fn discard_read_ahead(&mut self) {
        self.cursor.forget_reads();
    }

    /// The file again. Writes that were not sent are withdrawn, as when the stream is dropped, and others go on: flush
    /// the stream before. If one of its writes failed or was withdrawn and nobody has heard of it, the next
    /// [`File::flush`] or [`File::close`] tells: with the error of the write, or with [`Error::EarlierWrite`] if it was
    /// withdrawn.
    #[must_use]
    pub fn into_file(self) -> File {
        let Self { file, mut cursor, .. } = self;
        if let Some(error) = cursor.take_untold() {
            file.ledger().keep(error);
        }
        file
    }
}

impl AsyncRead for FileStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { file, cursor, wakers } = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let waker = wakers.enter(Side::Read, cx);
        let cx = &mut Context::from_waker(&waker);
        let bytes = ready!(cursor.poll_read(file, cx, into.remaining())).map_err(as_io)?;
        into.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let Self { file, cursor, wakers } = self.get_mut();
        let waker = wakers.enter(Side::Write, cx);
        cursor.poll_write(file, &mut Context::from_waker(&waker), from).map_err(as_io)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { cursor, wakers, .. } = self.get_mut();
        let waker = wakers.enter(Side::Write, cx);
        cursor.poll_flush(&mut Context::from_waker(&waker)).map_err(as_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl AsyncSeek for FileStream {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        self.get_mut().cursor.start_seek(to);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let Self { file, cursor, wakers } = self.get_mut();
        let waker = wakers.enter(Side::Seek, cx);
        cursor.poll_seek(file, &mut Context::from_waker(&waker)).map_err(as_io)
    }
}

/// Who waits for the stream. A reader and a writer may be two tasks, as behind [`tokio::io::split`], and wait for one
/// request, which knows but the last one that asked: so it wakes all.
#[derive(Debug, Default)]
struct Wakers {
    sides: Mutex<[Option<Waker>; 3]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Read,
    Write,
    Seek,
}

impl Wakers {
    /// Enters who waits, and tells what wakes all that do.
    fn enter(self: &Arc<Self>, side: Side, cx: &Context<'_>) -> Waker {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let [read, write, seek] = &mut *sides;
        let own = match side {
            Side::Read => read,
            Side::Write => write,
            Side::Seek => seek,
        };
        match own {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *own = Some(cx.waker().clone()),
        }
        drop(sides);
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        let sides = std::mem::take(&mut *self.sides.lock().unwrap_or_else(PoisonError::into_inner));
        sides.into_iter().flatten().for_each(Waker::wake);
    }
}

/// An error for code that was written for files: that tries again without end what was interrupted, and waits for a
/// wake-up after what would block, though nobody wakes it when others unlock.
pub(super) fn as_io(error: Error) -> io::Error {
    let error = io::Error::from(error);
    let instead = match error.kind() {
        io::ErrorKind::Interrupted => Errno::IO,
        io::ErrorKind::WouldBlock => Errno::ACCESS,
        _ => return error,
    };
    io::Error::from_raw_os_error(instead.raw_os_error())
}

impl Requests for File {
    type Reply = Pending;

    fn window(&self) -> Window {
        Window::of(self.limits())
    }

    fn appends(&self) -> bool {
        self.is_appending()
    }

    fn read(&self, offset: u64, len: u32) -> Pending {
        self.begin_read(offset, len)
    }

    fn write(&self, offset: u64, part: (Bytes, u32)) -> Pending {
        self.begin_write(offset, part, self.caller().deadline(), true)
    }

    fn append(&self, part: (Bytes, u32)) -> Pending {
        self.begin_append(part, self.caller().deadline(), true)
    }

    fn stat(&self) -> Pending {
        self.caller().begin_control(Stat { handle: self.name() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    struct Count(std::sync::atomic::AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn one_request_wakes_reader_and_writer() {
        let wakers: Arc<Wakers> = Arc::default();
        let tasks = [(); 2].map(|()| Arc::new(Count(0.into())));
        let [reader, writer] = tasks.clone().map(Waker::from);
        drop(wakers.enter(Side::Read, &Context::from_waker(&reader)));
        let last = wakers.enter(Side::Write, &Context::from_waker(&writer));
        last.wake_by_ref();
        last.wake();
        for task in tasks {
            assert_eq!(
                task.0.load(std::sync::atomic::Ordering::Relaxed),
                1,
                "woken once, until it asks again"
            );
        }
    }

    #[test]
    fn a_server_cannot_make_a_reader_try_for_ever() {
        let error = as_io(Error::Refused(Reason::Interrupted.into()));
        assert_ne!(error.kind(), io::ErrorKind::Interrupted);
        // Nor to wait for a wake-up that never comes.
        let error = as_io(Error::Refused(Reason::Locked.into()));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(as_io(Error::Refused(Reason::NoSpace.into())).kind(), io::ErrorKind::StorageFull);
    }
}
