//! Records on a byte stream: one reader and one writer own each half of a socket, and neither is ever stopped in
//! the middle of a record other than by closing the connection.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::buffers::{Block, Buffers};
use super::clock::Clock;
use super::lent::{self, Lent, Sink};
use super::read_ahead::ReadAhead;
use crate::model::{Limits, Protection, Refusal, RequestId, Time, len_u64};
use crate::secure::{Incoming, KeyUse, Opener, Payload, RecordError, Sealer};
use crate::session::{Input, UnknownKind};
use crate::wire::data::Trailer;
use crate::wire::{DecodeError, Head, Message};

/// Payload up to this length is copied behind its head, so that many small records leave in one call.
const COPIED_PAYLOAD_MAX: usize = 16 << 10;
/// Sealed bytes that are collected before a write.
const BATCH: usize = 64 << 10;
/// Room for sealed bytes that an idle writer keeps: for signs of life, and not more, because most channels of a server are
/// idle.
const BATCH_KEPT: usize = 1 << 10;
/// In place of promised bytes that a file does not have any more.
const ZEROS: [u8; 4096] = [0; 4096];

/// Why no further record can be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The stream ended between two records, without a farewell.
    #[error("the connection ended without a farewell")]
    Ended,
    /// The stream ended inside a record, or broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The record does not verify, or its head is out of bounds.
    #[error("a record was refused")]
    Record(#[from] RecordError),
    /// The record is authentic and spells no message.
    #[error("a record has a malformed body")]
    Body(#[from] DecodeError),
    /// The payload of a clear channel was not followed by what says how much of it counts.
    #[error("a payload without a fitting trailer")]
    Trailer,
}

/// A record that was read and verified.
#[derive(Debug)]
pub struct Received<M> {
    /// The request that it belongs to.
    pub request: RequestId,
    /// The peer has the answers to all requests with lower ids.
    pub settled: RequestId,
    /// The message, or the kind of one that this version does not know.
    pub message: Result<M, UnknownKind>,
    /// The payload, decrypted, if there is one.
    pub payload: Option<BytesMut>,
}

impl<M> Received<M> {
    /// The record as a core takes it: its message as `message` makes it, its payload as `payload` does.
    pub fn into_input<C, P>(
        self,
        message: impl FnOnce(M) -> C,
        payload: impl FnOnce(BytesMut) -> P,
    ) -> Input<C, P> {
        let payload_len = self.payload.as_ref().map_or(0, BytesMut::len);
        Input {
            request: self.request,
            settled: self.settled,
            message: self.message.map(message),
            // Bounded by the head's check, far below the type's end.
            payload_len: u32::try_from(payload_len).unwrap_or(u32::MAX),
            payload: self.payload.map(payload),
        }
    }
}

/// Reads and verifies the records of one direction of a channel.
#[derive(Debug)]
pub struct RecordReader<M: Message, R> {
    stream: ReadAhead<R>,
    opener: Opener<M>,
    buffers: Buffers,
    body: Vec<u8>,
}

/// How many bytes a channel has received, and how many of long payloads the kernel has taken from it: signs of life
/// even in the middle of a record. The kernel takes a long payload only as fast as the peer acknowledges it, but for
/// a bounded buffer; short records it always takes, so those count nothing, or a ping would answer itself.
pub type Meter = Arc<AtomicU64>;

impl<M: Message, R: AsyncRead + Unpin> RecordReader<M, R> {
    /// A reader of `stream` with payload buffers from `buffers`, and the meter of what it receives.
    pub fn new(stream: R, opener: Opener<M>, buffers: Buffers) -> (Self, Meter) {
        let meter = Meter::default();
        let stream = ReadAhead::new(stream, Meter::clone(&meter));
        (Self { stream, opener, buffers, body: Vec::new() }, meter)
    }

    /// What it reads from.
    pub(super) fn transport(&self) -> &R {
        self.stream.transport()
    }

    /// The next record, whole and verified.
    ///
    /// # Errors
    /// [`ReadError`]; no record can be read after one.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped future may leave half a record read. Whoever stops waiting closes the connection.
    pub async fn next(&mut self) -> Result<Received<M>, ReadError> {
        let (head, message) = loop {
            match self.head_and_body().await? {
                (_, Incoming::Rekeyed) => {}
                (head, Incoming::Message(message)) => break (head, Ok(message)),
                (head, Incoming::Unknown(kind)) => break (head, Err(UnknownKind(kind))),
            }
        };
        let payload_len = usize::try_from(head.payload_len).unwrap_or(0);
        let payload = if payload_len > 0 { Some(self.payload(payload_len).await?) } else { None };
        let received = Received { request: head.request, settled: head.settled, message, payload };
        if M::HAS_TRAILERS && payload_len > 0 && self.opener.protection() == Protection::Clear {
            return self.trailed(received).await;
        }
        Ok(received)
    }

    /// The answer as its trailer leaves it.
    async fn trailed(&mut self, mut received: Received<M>) -> Result<Received<M>, ReadError> {
        let (head, message) = match self.head_and_body().await {
            Ok((head, Incoming::Message(message))) => (head, message),
            Ok(_) => return Err(ReadError::Trailer),
            // The answer is not whole, so this is no end between two of them.
            Err(ReadError::Ended) => return Err(ReadError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(error),
        };
        let Trailer { valid, refused } = message.as_trailer().ok_or(ReadError::Trailer)?;
        let valid = usize::try_from(valid).map_err(|_| ReadError::Trailer)?;
        let promised = received.payload.as_ref().map_or(0, BytesMut::len);
        if head.request != received.request || head.payload_len != 0 || valid > promised {
            return Err(ReadError::Trailer);
        }
        if let Some(refusal) = refused {
            received.message = M::refused(refusal).ok_or(ReadError::Trailer).map(Ok)?;
            received.payload = None;
        } else {
            received.payload = received.payload.filter(|_| valid > 0);
            received.payload.iter_mut().for_each(|payload| payload.truncate(valid));
        }
        Ok(received)
    }

    async fn head_and_body(&mut self) -> Result<(Head, Incoming<M>), ReadError> {
        let mut head_bytes = [0; Limits::HEAD_LEN];
        // The end of the stream between two records is told apart from one inside a record.
        if self.stream.read(head_bytes.get_mut(..1).unwrap_or_default()).await.map_err(ReadError::Broken)?
            == 0
        {
            return Err(ReadError::Ended);
        }
        let rest = head_bytes.get_mut(1..).unwrap_or_default();
        self.stream.read_exact(rest).await.map_err(ReadError::Broken)?;
        let head = self.opener.read_head(&head_bytes)?;
        // Bounded by the head's check: at most Limits::BODY_LEN_MAX.
        let body_len = usize::try_from(head.body_len).unwrap_or(0).saturating_add(Limits::TAG_LEN);
        self.body.clear();
        self.body.resize(body_len, 0);
        self.stream.read_exact(&mut self.body).await.map_err(ReadError::Broken)?;
        let message = self.opener.open_body(&head, &head_bytes, &mut self.body)?;
        Ok((head, message))
    }

    /// Reads a payload of verified length and opens it in place.
    async fn payload(&mut self, len: usize) -> Result<BytesMut, ReadError> {
        let whole = len.saturating_add(self.opener.payload_tag_len());
        let mut payload = self.buffers.take(whole);
        let mut rest = (&mut self.stream).take(len_u64(whole));
        while payload.len() < whole {
            if rest.read_buf(&mut payload).await.map_err(ReadError::Broken)? == 0 {
                return Err(ReadError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let tag = payload.split_off(len);
        self.opener.open_payload(&mut payload, &tag)?;
        Ok(payload)
    }
}

/// A payload to be sent.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// Ours alone: encrypted where it lies.
    Owned(BytesMut),
    /// Read from a file: encrypted where it lies.
    Block(Block),
    /// Kept for a repeat by somebody else: encrypted in a copy.
    Shared(Bytes),
    /// So many bytes from this offset of a file, read when they are sent.
    Lent(Arc<dyn Lent>, u64, u32),
}

impl Outbound {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Block(block) => block.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Lent(_, _, len) => usize::try_from(*len).unwrap_or(usize::MAX),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, as far as they are in memory: none of what is lent.
    #[must_use]
    pub fn in_memory(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Block(block) => block.as_ref(),
            Self::Shared(bytes) => bytes,
            Self::Lent(..) => &[],
        }
    }
}

/// When a channel's sender replaces its keys: after so many records, so many bytes, or so long, with the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyLimits {
    /// Records under one key.
    pub records: u64,
    /// Bytes under one key.
    pub bytes: u64,
    /// Age of a key.
    pub after: Duration,
}

impl From<&Limits> for RekeyLimits {
    fn from(limits: &Limits) -> Self {
        // A receiver ends a channel at twice what the protocol allows a sender.
        let records = limits.rekey_records.min(Limits::KEY_RECORDS_MAX / 2);
        let bytes = limits.rekey_bytes.min(Limits::KEY_BYTES_MAX / 2);
        Self { records, bytes, after: limits.rekey_after }
    }
}

/// Seals and writes the records of one direction of a channel.
#[derive(Debug)]
pub struct RecordWriter<M: Message, W> {
    stream: W,
    sealer: Sealer<M>,
    batch: Vec<u8>,
    copy: BytesMut,
    meter: Meter,
    /// The socket again, for work on the blocking pool; only of a clear channel, from its first lent payload on.
    socket: Option<Arc<OwnedFd>>,
    rekey: RekeyLimits,
    keys_since: Time,
}

impl<M: Message, W: Sink> RecordWriter<M, W> {
    /// A writer to `stream`, which adds to the `meter` of the channel's reader and replaces its keys by these limits.
    pub fn new(stream: W, sealer: Sealer<M>, meter: Meter, rekey: RekeyLimits) -> Self {
        let (batch, copy) = (Vec::new(), BytesMut::new());
        Self { stream, sealer, batch, copy, meter, socket: None, rekey, keys_since: Clock.now() }
    }

    /// Seals a record. It is on its way after [`Self::flush`] at the latest.
    ///
    /// # Errors
    /// What the connection or the sealing says; nothing can be written after one.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped future may leave half a record written. Whoever stops waiting closes the
    /// connection.
    pub async fn write(
        &mut self,
        message: &M,
        (request, settled): (RequestId, RequestId),
        payload: Option<Outbound>,
    ) -> io::Result<()> {
        self.rekey_if_due(settled)?;
        match payload {
            None => {
                self.seal(message, (request, settled), Payload::None)?;
                self.flush_above(BATCH).await
            }
            Some(Outbound::Lent(lent, offset, len)) => {
                self.write_lent(message, (request, settled), (lent, offset, len)).await
            }
            Some(payload) => {
                let valid = u32::try_from(payload.len()).map_err(io::Error::other)?;
                self.write_payload(message, (request, settled), payload).await?;
                self.end_payload((request, settled), Trailer { valid, refused: None }).await
            }
        }
    }

    async fn write_payload(
        &mut self,
        message: &M,
        (request, settled): (RequestId, RequestId),
        payload: Outbound,
    ) -> io::Result<()> {
        let (payload, is_copy) = self.make_mutable(payload);
        let (payload, tag) = match payload {
            Outbound::Owned(mut bytes) => {
                let part = Payload::Buffer(&mut bytes);
                let tag = self.sealer.seal(message, request, settled, part, &mut self.batch);
                (Outbound::Owned(bytes), tag)
            }
            Outbound::Block(mut block) => {
                let part = Payload::Buffer(block.as_mut());
                let tag = self.sealer.seal(message, request, settled, part, &mut self.batch);
                (Outbound::Block(block), tag)
            }
            Outbound::Shared(bytes) => {
                let part = Payload::Readable(&bytes);
                let tag = self.sealer.seal(message, request, settled, part, &mut self.batch);
                (Outbound::Shared(bytes), tag)
            }
            lent @ Outbound::Lent(..) => (lent, Err(RecordError::ReadOnly)),
        };
        let tag = tag.map_err(io::Error::other)?;
        let tag = tag.as_ref().map_or(&[][..], |tag| &tag[..]);
        if payload.len() <= COPIED_PAYLOAD_MAX {
            self.batch.extend_from_slice(payload.in_memory());
            self.batch.extend_from_slice(tag);
            return self.flush_above(BATCH).await;
        }
        let mut parts = [IoSlice::new(&self.batch), IoSlice::new(payload.in_memory()), IoSlice::new(tag)];
        write_all_vectored(&mut self.stream, &mut parts, &self.meter).await?;
        self.batch.clear();
        if let (Outbound::Owned(bytes), true) = (payload, is_copy) {
            // Kept for the next payload that has to be copied.
            self.copy = bytes;
        }
        Ok(())
    }

    /// Sends a part of a file: past our memory on a clear channel, else by way of it.
    async fn write_lent(
        &mut self,
        message: &M,
        ids: (RequestId, RequestId),
        (lent, offset, len): (Arc<dyn Lent>, u64, u32),
    ) -> io::Result<()> {
        let promised = usize::try_from(len).map_err(io::Error::other)?;
        if self.sealer.protection() == Protection::Clear && self.socket.is_none() {
            self.socket = lent::shared_socket(&self.stream);
        }
        let Some(socket) = self.socket.clone() else {
            return self.write_read(message, ids, lent::read(lent, offset, promised).await).await;
        };
        self.seal(message, ids, Payload::Elsewhere(promised))?;
        self.flush_above(0).await?;
        let stream = self.stream.socket().ok_or(io::ErrorKind::Unsupported)?;
        let mut sent =
            lent::send((stream, &socket), Arc::clone(&lent), (offset, promised), &self.meter).await?;
        if sent.is_unsupported {
            let (from, rest) =
                (offset.saturating_add(len_u64(sent.bytes)), promised.saturating_sub(sent.bytes));
            match lent::read(lent, from, rest).await {
                Ok(bytes) => {
                    write_metered(&mut self.stream, &bytes, &self.meter).await?;
                    sent.bytes = sent.bytes.saturating_add(bytes.len());
                }
                Err(refusal) => sent.refused = Some(refusal),
            }
        }
        // The length was promised: what the file does not have any more is made up for, and taken back.
        let mut missing = promised.saturating_sub(sent.bytes);
        while missing > 0 {
            let zeros = ZEROS.get(..missing).unwrap_or(&ZEROS);
            write_metered(&mut self.stream, zeros, &self.meter).await?;
            missing = missing.saturating_sub(zeros.len());
        }
        let valid = u32::try_from(sent.bytes).map_err(io::Error::other)?;
        self.end_payload(ids, Trailer { valid, refused: sent.refused }).await
    }

    /// Sends the part of a file that was read, or says that it could not be read.
    async fn write_read(
        &mut self,
        message: &M,
        ids: (RequestId, RequestId),
        read: Result<BytesMut, Refusal>,
    ) -> io::Result<()> {
        match read {
            Ok(bytes) if bytes.is_empty() => self.seal(message, ids, Payload::None),
            Ok(bytes) => {
                let valid = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                self.write_payload(message, ids, Outbound::Owned(bytes)).await?;
                self.end_payload(ids, Trailer { valid, refused: None }).await
            }
            Err(refusal) => {
                let refused = M::refused(refusal).ok_or(io::ErrorKind::InvalidInput)?;
                self.seal(&refused, ids, Payload::None)
            }
        }
    }

    /// Says what became of a payload, where nothing else does.
    async fn end_payload(&mut self, ids: (RequestId, RequestId), trailer: Trailer) -> io::Result<()> {
        if self.sealer.protection() == Protection::Clear
            && let Some(trailer) = M::trailer(trailer)
        {
            self.seal(&trailer, ids, Payload::None)?;
            self.flush_above(BATCH).await?;
        }
        Ok(())
    }

    fn seal(
        &mut self,
        message: &M,
        (request, settled): (RequestId, RequestId),
        payload: Payload<'_>,
    ) -> io::Result<()> {
        let sealed = self.sealer.seal(message, request, settled, payload, &mut self.batch);
        sealed.map(drop).map_err(io::Error::other)
    }

    fn rekey_if_due(&mut self, settled: RequestId) -> io::Result<()> {
        let KeyUse { records, bytes } = self.sealer.used();
        let RekeyLimits { records: records_max, bytes: bytes_max, after } = self.rekey;
        let now = Clock.now();
        if records >= records_max || bytes >= bytes_max || now >= self.keys_since.after(after) {
            self.sealer.rekey(settled, &mut self.batch).map_err(io::Error::other)?;
            self.keys_since = now;
        }
        Ok(())
    }

    /// Puts everything that was sealed on the wire.
    ///
    /// # Errors
    /// As [`Self::write`].
    ///
    /// # Cancel safety
    /// As [`Self::write`].
    pub async fn flush(&mut self) -> io::Result<()> {
        self.flush_above(0).await?;
        if self.batch.capacity() > BATCH_KEPT {
            self.batch = Vec::new();
        }
        Ok(())
    }

    /// Ends this direction of the stream.
    pub async fn shutdown(&mut self) {
        // The peer may be gone already; there is nobody left to tell.
        drop(self.stream.shutdown().await);
    }

    async fn flush_above(&mut self, len: usize) -> io::Result<()> {
        if self.batch.len() > len {
            self.stream.write_all(&self.batch).await?;
            self.batch.clear();
        }
        Ok(())
    }

    /// A shared payload that must be encrypted is copied; the caller's bytes stay as they are.
    fn make_mutable(&mut self, payload: Outbound) -> (Outbound, bool) {
        match payload {
            Outbound::Shared(bytes) if self.sealer.protection() == Protection::Sealed => {
                let mut copy = std::mem::take(&mut self.copy);
                copy.clear();
                copy.extend_from_slice(&bytes);
                (Outbound::Owned(copy), true)
            }
            other => (other, false),
        }
    }
}

/// Writes bytes that stand for payload, which the kernel takes only as fast as the peer does.
async fn write_metered<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8], meter: &Meter) -> io::Result<()> {
    stream.write_all(bytes).await?;
    meter.fetch_add(len_u64(bytes.len()), Ordering::Relaxed);
    Ok(())
}

async fn write_all_vectored<W: AsyncWrite + Unpin>(
    stream: &mut W,
    parts: &mut [IoSlice<'_>],
    meter: &Meter,
) -> io::Result<()> {
    let mut parts = parts;
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match stream.write_vectored(parts).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                meter.fetch_add(len_u64(written), Ordering::Relaxed);
                IoSlice::advance_slices(&mut parts, written);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
