//! What a channel's reader reads ahead: heads and bodies in few calls, and no memory while nothing comes. Most channels of
//! a server are idle, and their buffers would be most of what a session takes.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::records::Meter;
use crate::model::len_u64;

/// How much is read ahead. Payload goes past it straight into its own buffer, but for what came along with a head.
const LEN: usize = 16 << 10;

/// A stream that reads ahead, and counts what it receives.
#[derive(Debug)]
pub(super) struct ReadAhead<R> {
    stream: R,
    meter: Meter,
    /// What was received and not read. It has memory only as long as there is something in it.
    received: BytesMut,
}

impl<R> ReadAhead<R> {
    pub(super) fn new(stream: R, meter: Meter) -> Self {
        Self { stream, meter, received: BytesMut::new() }
    }

    /// What it reads from.
    pub(super) fn transport(&self) -> &R {
        &self.stream
    }

    fn count(&self, received: usize) {
        if received > 0 {
            self.meter.fetch_add(len_u64(received), Ordering::Relaxed);
        }
    }
}

impl<R: AsyncRead + Unpin> ReadAhead<R> {
    /// Receives something, if there is anything.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.received.reserve(LEN);
        // Dropped at the end of this call, which loses nothing: it has either read or it has not.
        let polled = pin!(self.stream.read_buf(&mut self.received)).poll(context);
        match polled {
            Poll::Ready(Ok(received)) => {
                self.count(received);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.received = BytesMut::new();
                Poll::Pending
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ReadAhead<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.received.is_empty() {
            if buffer.remaining() >= LEN {
                let before = buffer.filled().len();
                let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
                this.count(buffer.filled().len().saturating_sub(before));
                return polled;
            }
            match this.poll_receive(context) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        let len = this.received.len().min(buffer.remaining());
        buffer.put_slice(this.received.get(..len).unwrap_or_default());
        this.received.advance(len);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_order_whatever_is_asked_for_and_an_idle_reader_has_no_memory() {
        let (mut sender, receiver) = tokio::io::duplex(100_000);
        let meter = Meter::default();
        let mut reader = ReadAhead::new(receiver, Meter::clone(&meter));
        let bytes: Vec<u8> = (0..80_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        sender.write_all(&bytes).await.unwrap();
        let mut read = Vec::new();
        for len in [1, 39, 100, LEN - 1, LEN, 20_000, 7].into_iter().cycle() {
            let mut piece = vec![0; len.min(bytes.len() - read.len())];
            reader.read_exact(&mut piece).await.unwrap();
            read.extend(piece);
            if read.len() == bytes.len() {
                break;
            }
        }
        assert_eq!(read, bytes);
        assert_eq!(meter.load(Ordering::Relaxed), len_u64(bytes.len()));
        // It waits for more, and has given its memory back.
        let mut more = [0; 1];
        assert!(futures_are_pending(&mut reader, &mut more).await);
        assert_eq!(reader.received.capacity(), 0);
        sender.write_all(&[9, 8]).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), 9);
        drop(sender);
        assert_eq!(reader.read_u8().await.unwrap(), 8);
        assert_eq!(reader.read(&mut more).await.unwrap(), 0, "the end");
    }

    /// Whether a read waits.
    async fn futures_are_pending(reader: &mut ReadAhead<tokio::io::DuplexStream>, into: &mut [u8]) -> bool {
        let mut reading = pin!(reader.read(into));
        std::future::poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_pending())).await
    }
}
