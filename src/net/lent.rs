//! Payload that is a part of a file, and reaches the wire without passing through our memory (`sendfile`). Only a clear
//! channel can carry it so: whatever protects a payload has to see it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncWrite, DuplexStream, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::records::Meter;
use crate::model::{Reason, Refusal, len_u64};

/// A file that was lent for as long as a part of it is being sent. Dropping the last handle on it gives it back. Its
/// functions wait for the file system, and run on the blocking pool.
pub trait Lent: Send + Sync + fmt::Debug {
    /// Sends up to `len` bytes from `offset` on to a socket that does not block, as far as the socket takes them.
    fn send(&self, socket: BorrowedFd<'_>, offset: u64, len: usize) -> LentSend;

    /// Reads the `len` bytes at `offset`, fewer only where the file ends before.
    ///
    /// # Errors
    /// A [`Refusal`] with what the file system says.
    fn read(&self, offset: u64, len: usize) -> Result<BytesMut, Refusal>;
}

/// What became of an attempt to send a part of a file.
#[derive(Debug)]
pub enum LentSend {
    /// So many bytes were sent; none: the file ends there.
    Sent(usize),
    /// The socket takes nothing at the moment.
    Full,
    /// The file cannot be read.
    Refused(Refusal),
    /// The socket is broken.
    Broken(io::Error),
}

/// What records are written to.
pub trait Sink: AsyncWrite + Unpin {
    /// The socket behind it, where there is one.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Sink for OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl Sink for DuplexStream {}

/// How far a part of a file was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) bytes: usize,
    pub(super) refused: Option<Refusal>,
}

/// Sends a part of a file, waiting for the file on the blocking pool and for the socket here.
///
/// # Errors
/// Those of the socket; those of the file are in the progress.
///
/// # Cancel safety
/// Not cancel safe: a dropped future may leave a part sent.
pub(super) async fn send<W: Sink>(
    stream: &W,
    lent: Arc<dyn Lent>,
    offset: u64,
    len: usize,
    meter: &Meter,
) -> io::Result<Progress> {
    let socket = stream.socket().ok_or(io::ErrorKind::Unsupported)?;
    // The blocking pool needs a descriptor that lives as long as the work on it.
    let out: Arc<OwnedFd> = Arc::new(socket.as_fd().try_clone_to_owned()?);
    let mut progress = Progress::default();
    while progress.bytes < len && progress.refused.is_none() {
        let (lent, out) = (Arc::clone(&lent), Arc::clone(&out));
        let (from, rest) =
            (offset.saturating_add(len_u64(progress.bytes)), len.saturating_sub(progress.bytes));
        match on_pool(move || lent.send(out.as_fd(), from, rest)).await? {
            LentSend::Sent(0) => break,
            LentSend::Sent(bytes) => {
                progress.bytes = progress.bytes.saturating_add(bytes);
                meter.fetch_add(len_u64(bytes), Ordering::Relaxed);
            }
            LentSend::Full => wait_for_room(socket).await?,
            LentSend::Refused(refusal) => progress.refused = Some(refusal),
            LentSend::Broken(error) => return Err(error),
        }
    }
    Ok(progress)
}

/// Reads a part of a file.
pub(super) async fn read(lent: Arc<dyn Lent>, offset: u64, len: usize) -> Result<BytesMut, Refusal> {
    on_pool(move || lent.read(offset, len)).await.unwrap_or_else(|_| Err(Reason::Io.into()))
}

async fn on_pool<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Waits until the socket takes bytes. tokio did not see it refuse some, so it is asked first.
async fn wait_for_room(socket: &TcpStream) -> io::Result<()> {
    loop {
        socket.writable().await?;
        let has_room = socket.try_io(Interest::WRITABLE, || {
            let mut asked = [PollFd::new(socket, PollFlags::OUT)];
            match poll(&mut asked, Some(&Timespec::default()))? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match has_room {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
