//! Payload that is a part of a file, and reaches the wire without passing through our memory (`sendfile`). Only a clear
//! channel can carry it so: whatever protects a payload has to see it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncWrite, DuplexStream, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::clock::Clock;
use super::records::Meter;
use crate::model::{Reason, Refusal, len_u64};

/// A file of which a part is to be sent. Its functions wait for the file system, and run on the blocking pool.
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
    /// The file system cannot do that; the file can be read.
    Unsupported,
    /// The file cannot be read.
    Refused(Refusal),
    /// The socket is broken.
    Broken(io::Error),
}

/// How long a socket is left alone that says it has room and takes nothing.
const FULL_PAUSE: Duration = Duration::from_millis(1);

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
    /// The rest has to be read.
    pub(super) is_unsupported: bool,
}

/// The socket of a stream for work on the blocking pool, which needs a descriptor that lives as long as the work;
/// `None` where there is no socket, or no further descriptor to be had.
pub(super) fn shared_socket<W: Sink>(stream: &W) -> Option<Arc<OwnedFd>> {
    stream.socket()?.as_fd().try_clone_to_owned().ok().map(Arc::new)
}

/// Sends a part of a file, waiting for the file on the blocking pool and for the socket here.
///
/// # Errors
/// Those of the socket; those of the file are in the progress.
///
/// # Cancel safety
/// Not cancel safe: a dropped future may leave a part sent.
pub(super) async fn send(
    (socket, out): (&TcpStream, &Arc<OwnedFd>),
    lent: Arc<dyn Lent>,
    (offset, len): (u64, usize),
    meter: &Meter,
) -> io::Result<Progress> {
    let mut progress = Progress::default();
    let mut was_full = false;
    while progress.bytes < len && progress.refused.is_none() {
        let (lent, out) = (Arc::clone(&lent), Arc::clone(out));
        let (from, rest) =
            (offset.saturating_add(len_u64(progress.bytes)), len.saturating_sub(progress.bytes));
        match on_pool(move || lent.send(out.as_fd(), from, rest)).await? {
            LentSend::Sent(0) => break,
            LentSend::Sent(bytes) => {
                was_full = false;
                progress.bytes = progress.bytes.saturating_add(bytes);
                meter.fetch_add(len_u64(bytes), Ordering::Relaxed);
            }
            LentSend::Full => {
                if was_full {
                    // There was room, and still nothing could be sent: the kernel is out of memory for it.
                    Clock.sleep(FULL_PAUSE).await;
                }
                was_full = true;
                wait_for_room(socket).await?;
            }
            LentSend::Unsupported => {
                progress.is_unsupported = true;
                break;
            }
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
