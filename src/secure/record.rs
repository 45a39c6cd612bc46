//! Records: what a channel carries after its handshake. protocol.md: Records.
//!
//! ```text
//! head (40) | body | tag_h (16) | payload | tag_p (16)       without payload, tag_p is missing too
//! ```
//!
//! | | `sealed` | `signed` | `clear` |
//! | --- | --- | --- | --- |
//! | `tag_h` | body encrypted, head is associated data | head and body are associated data | as signed |
//! | `tag_p` | payload encrypted, no associated data | payload is associated data | there is none |
//!
//! All tags and ciphertexts are those of the channel's suite under two keys, one for head and body and one for the
//! payload; the nonce is zeros and the sequence number. The payload's place is bound by its key, the
//! sequence and the length that `tag_h` covers, so the payload needs no second pass with the head.
//!
//! A `Rekey` record is the last one under its keys: sealer and opener derive the next ones behind it. The sequence goes
//! on. When that is due, the caller decides, by [`Sealer::used`] and the time; an opener refuses keys that are used far
//! beyond the limits of the protocol.
//!
//! Non-goal: hiding lengths.

use core::fmt;
use core::marker::PhantomData;

use thiserror::Error;
use zeroize::Zeroize;

use super::cipher::{RecordCipher, Tag, cipher};
use super::handshake::allowed;
use super::keys::DirectionKeys;
use crate::model::{ChannelKind, ChannelNumber, Limits, Protection, RequestId, Suite, len_u64};
use crate::wire::data::Rekey;
use crate::wire::head::{Head, HeadError};
use crate::wire::message::is_known;
use crate::wire::{DecodeError, Message};

/// Room that is made for a record before its body is written, in bytes. Messages that hold secrets are shorter, so
/// their plain bodies are never left behind by a growing buffer.
const ROOM: usize = 512;

/// Why a record was not made or not accepted. Variants are in order of blame: the peer, the caller, the channel's age.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The head is not one of this version.
    #[error("the record's head is malformed")]
    Head(#[source] HeadError),
    /// The record was made for another channel.
    #[error("the record is for channel {found}, this is channel {expected}")]
    Channel {
        /// This channel.
        expected: ChannelNumber,
        /// What the head says.
        found: ChannelNumber,
    },
    /// The record is not the next one: repeated, left out, or moved.
    #[error("the record has number {found}, expected is number {expected}")]
    Sequence {
        /// The next number.
        expected: u64,
        /// What the head says.
        found: u64,
    },
    /// The tag over head and body is wrong.
    #[error("the record's head and body do not verify")]
    Body,
    /// The tag over the payload is wrong.
    #[error("the record's payload does not verify")]
    Payload,
    /// A message that other channels or the other direction may carry.
    #[error("a message of kind {0:#04x} does not belong on this channel in this direction")]
    WrongStream(u8),
    /// The body is not the encoding of its message.
    #[error("the record's body is malformed")]
    Message(#[source] DecodeError),
    /// A protection that the channel's kind cannot have: control channels are sealed.
    #[error("a {kind} channel cannot be {protection}")]
    Protection {
        /// What the channel is for.
        kind: ChannelKind,
        /// The protection that was to be used.
        protection: Protection,
    },
    /// A body or a payload over its limit.
    #[error("a body of {body_len} or a payload of {payload_len} bytes is over the limit")]
    TooLong {
        /// Length of the body; 0 when the payload alone was too long.
        body_len: usize,
        /// Length of the payload.
        payload_len: usize,
    },
    /// A suite that this build does not have.
    #[error("this build has no {0}")]
    Suite(Suite),
    /// A payload that cannot be encrypted in place, on a sealed channel, or one that is not at hand, on a channel that is
    /// not clear.
    #[error("a payload that is read-only or not at hand cannot be protected")]
    ReadOnly,
    /// Head, body and payload were not given in turn, or with other lengths than the head states.
    #[error("the record's parts were not given in turn and with the lengths of its head")]
    Order,
    /// An earlier record was refused; nothing is accepted any more.
    #[error("an earlier record of this channel was refused")]
    Dead,
    /// All sequence numbers are used up.
    #[error("the channel has no sequence numbers left")]
    Exhausted,
    /// The peer goes on with keys that it should have replaced long ago.
    #[error("the peer has not replaced its keys in time")]
    Overused,
    /// The next keys cannot be derived.
    #[error("the keys of the channel cannot be replaced")]
    Rekey,
    /// The cipher refused lengths that are within the limits: our bug.
    #[error("the record cannot be encrypted")]
    Cipher,
}

/// The payload of a record that is to be sent.
pub enum Payload<'a> {
    /// There is none.
    None,
    /// Bytes that are sent as they are; on a signed channel only.
    Readable(&'a [u8]),
    /// Bytes that a sealed channel encrypts in place and others leave alone.
    Buffer(&'a mut [u8]),
    /// So many bytes that reach the wire without passing through here; on a clear channel only.
    Elsewhere(usize),
}

/// What a verified head and body hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming<M> {
    /// A message.
    Message(M),
    /// A message of a kind that no stream of this version has: a newer peer's, to be refused politely.
    Unknown(u8),
    /// The peer has replaced its keys, and so has the opener: nothing for a session.
    Rekeyed,
}

/// How much was sealed under the keys in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Records.
    pub records: u64,
    /// Bytes of their heads, bodies and payloads.
    pub bytes: u64,
}

impl KeyUse {
    fn count(&mut self, body_len: usize, payload_len: usize) {
        let bytes = len_u64(body_len.saturating_add(payload_len).saturating_add(Limits::HEAD_LEN));
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Makes the records of one direction of one channel.
///
/// `M` is the stream, and no message of another stream can be given to it: a resume key cannot reach a data channel.
///
/// ```
/// use bowline::model::RequestId;
/// use bowline::secure::{Payload, RecordError, Sealer};
/// use bowline::wire::{ClientData, data};
///
/// fn send(sealer: &mut Sealer<ClientData>, write: data::Write) -> Result<Vec<u8>, RecordError> {
///     let mut out = Vec::new();
///     sealer.seal(&write.into(), RequestId(7), RequestId(7), Payload::None, &mut out)?;
///     Ok(out)
/// }
/// ```
///
/// The same with a message that bears a key is no program:
///
/// ```compile_fail,E0277
/// use bowline::model::RequestId;
/// use bowline::secure::{Payload, RecordError, Sealer};
/// use bowline::wire::{ClientData, control};
///
/// fn send(sealer: &mut Sealer<ClientData>, resume: control::Resume) -> Result<Vec<u8>, RecordError> {
///     let mut out = Vec::new();
///     sealer.seal(&resume.into(), RequestId(7), RequestId(7), Payload::None, &mut out)?;
///     Ok(out)
/// }
/// ```
///
/// ```compile_fail,E0308
/// use bowline::model::RequestId;
/// use bowline::secure::{Payload, RecordError, Sealer};
/// use bowline::wire::{ClientControl, ClientData};
///
/// fn send(sealer: &mut Sealer<ClientData>, message: &ClientControl) -> Result<Vec<u8>, RecordError> {
///     let mut out = Vec::new();
///     sealer.seal(message, RequestId(7), RequestId(7), Payload::None, &mut out)?;
///     Ok(out)
/// }
/// ```
pub struct Sealer<M: Message> {
    direction: Direction,
    next: u64,
    stream: PhantomData<fn(&M)>,
}

/// Verifies the records of one direction of one channel: for each record [`Opener::read_head`], then
/// [`Opener::open_body`], then, exactly if the head states a payload, [`Opener::open_payload`]. After any error it
/// accepts nothing more.
pub struct Opener<M: Message> {
    direction: Direction,
    next: u64,
    expect: Expect,
    /// Head and body of a signed record, one behind the other for the tag; kept for its allocation.
    signed: Vec<u8>,
    stream: PhantomData<fn() -> M>,
}

/// The part of a record that an opener takes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Record,
    Payload { sequence: u64, len: usize },
    Nothing,
}

/// What both ends of a direction have in common. The keys of a direction come to one of these and are used with one
/// protection only, because it takes them away.
struct Direction {
    keys: DirectionKeys,
    head: Box<dyn RecordCipher>,
    payload: Box<dyn RecordCipher>,
    channel: ChannelNumber,
    protection: Protection,
    used: KeyUse,
}

impl<M: Message> Sealer<M> {
    /// A sealer for the direction of `keys`, from sequence number 0.
    ///
    /// # Errors
    /// [`RecordError::Protection`] for a control channel that is not sealed, [`RecordError::Suite`].
    pub fn new(
        keys: DirectionKeys,
        channel: ChannelNumber,
        protection: Protection,
    ) -> Result<Self, RecordError> {
        let direction = Direction::new(keys, channel, M::CHANNEL, protection)?;
        Ok(Self { direction, next: 0, stream: PhantomData })
    }

    /// Appends head, body and their tag to `out` and gives the payload's tag, if there is a payload and the channel is
    /// not clear: on the wire the payload and then this tag follow.
    ///
    /// # Errors
    /// [`RecordError::ReadOnly`], [`RecordError::TooLong`], [`RecordError::Exhausted`], [`RecordError::Cipher`].
    /// `out` is as before then; after all but the last, so is the sealer.
    pub fn seal(
        &mut self,
        message: &M,
        request: RequestId,
        settled: RequestId,
        payload: Payload<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<[u8; Limits::TAG_LEN]>, RecordError> {
        let fits = match payload {
            Payload::Readable(_) => self.direction.protection != Protection::Sealed,
            Payload::Elsewhere(_) => self.direction.protection == Protection::Clear,
            Payload::None | Payload::Buffer(_) => true,
        };
        if !fits {
            return Err(RecordError::ReadOnly);
        }
        let start = out.len();
        let outcome = self.append(message, request, settled, payload, out);
        if outcome.is_err() {
            if let Some(plain) = out.get_mut(start..) {
                plain.zeroize();
            }
            out.truncate(start);
        }
        outcome
    }

    /// Replaces the keys: appends a record that says so to `out`; all records behind it are under the new keys.
    ///
    /// # Errors
    /// [`RecordError::Rekey`], [`RecordError::Exhausted`], [`RecordError::Cipher`]; the channel must end then.
    pub fn rekey(&mut self, settled: RequestId, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.seal(&Rekey {}.into(), RequestId::NONE, settled, Payload::None, out)?;
        self.direction.rekey()
    }

    /// How much was sealed under the keys in use.
    #[must_use]
    pub fn used(&self) -> KeyUse {
        self.direction.used
    }

    /// How payload is protected: on a sealed channel it must be given as [`Payload::Buffer`].
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.direction.protection
    }

    fn append(
        &mut self,
        message: &M,
        request: RequestId,
        settled: RequestId,
        payload: Payload<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<[u8; Limits::TAG_LEN]>, RecordError> {
        let start = out.len();
        out.reserve(ROOM);
        out.extend_from_slice(&[0; Limits::HEAD_LEN]);
        message.encode_body(out);
        let body_len = out.len() - start - Limits::HEAD_LEN;
        let payload_len = payload.len();
        let too_long = RecordError::TooLong { body_len, payload_len };
        if body_len > Limits::BODY_LEN_MAX || payload_len > Limits::PAYLOAD_LEN_MAX {
            return Err(too_long);
        }
        let sequence = self.next;
        let head = Head {
            body_len: u32::try_from(body_len).map_err(|_| too_long.clone())?,
            payload_len: u32::try_from(payload_len).map_err(|_| too_long)?,
            kind: message.kind(),
            channel: self.direction.channel,
            request,
            sequence,
            settled,
        };
        // The number is used up before the first tag: whatever fails behind this line, no nonce comes twice.
        self.next = sequence.checked_add(1).ok_or(RecordError::Exhausted)?;
        let record = out.get_mut(start..).unwrap_or_default();
        let (head_bytes, body) = record.split_first_chunk_mut().ok_or(RecordError::Cipher)?;
        *head_bytes = head.encode();
        let tag = match self.direction.protection {
            Protection::Sealed => self.direction.head.seal(sequence, head_bytes, body)?,
            Protection::Signed | Protection::Clear => self.direction.head.seal(sequence, record, &mut [])?,
        };
        out.extend_from_slice(&tag);
        self.direction.used.count(body_len, payload_len);
        self.direction.seal_payload(sequence, payload)
    }
}

impl<M: Message> Opener<M> {
    /// An opener for the direction of `keys`, from sequence number 0.
    ///
    /// # Errors
    /// [`RecordError::Protection`] for a control channel that is not sealed, [`RecordError::Suite`].
    pub fn new(
        keys: DirectionKeys,
        channel: ChannelNumber,
        protection: Protection,
    ) -> Result<Self, RecordError> {
        let direction = Direction::new(keys, channel, M::CHANNEL, protection)?;
        Ok(Self { direction, next: 0, expect: Expect::Record, signed: Vec::new(), stream: PhantomData })
    }

    /// The head that `bytes` spell, to know how much to read. It is **not verified**: of its fields only `body_len` may
    /// be used before [`Opener::open_body`] has accepted it. Channel and sequence are compared already, so that most
    /// strangers end here.
    ///
    /// # Errors
    /// [`RecordError::Head`], [`RecordError::Channel`], [`RecordError::Sequence`], [`RecordError::Exhausted`],
    /// [`RecordError::Overused`]; [`RecordError::Order`] while a payload is expected, [`RecordError::Dead`].
    pub fn read_head(&mut self, bytes: &[u8; Limits::HEAD_LEN]) -> Result<Head, RecordError> {
        self.take_record()?;
        let head = self.checked_head(bytes)?;
        self.expect = Expect::Record;
        Ok(head)
    }

    /// Verifies head and body and gives the message. `head_bytes` are the bytes that `head` was read from,
    /// `body_and_tag` is the body and its tag; the body is decrypted in it, and wiped on a control channel.
    ///
    /// # Errors
    /// [`RecordError::Body`] when the tag is wrong, [`RecordError::WrongStream`], [`RecordError::Message`]; the errors of
    /// [`Opener::read_head`]; [`RecordError::Order`] also for parts that do not fit the head.
    pub fn open_body(
        &mut self,
        head: &Head,
        head_bytes: &[u8; Limits::HEAD_LEN],
        body_and_tag: &mut [u8],
    ) -> Result<Incoming<M>, RecordError> {
        let outcome = self.verify_body(head, head_bytes, body_and_tag);
        if M::CHANNEL == ChannelKind::Control {
            body_and_tag.zeroize();
        }
        outcome
    }

    /// How the channel is protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.direction.protection
    }

    /// Length of the tag behind a payload, in bytes: 0 on a clear channel.
    #[must_use]
    pub fn payload_tag_len(&self) -> usize {
        if self.direction.protection == Protection::Clear { 0 } else { Limits::TAG_LEN }
    }

    /// Verifies the payload of the record whose body was opened last, and decrypts it in place on a sealed channel.
    /// Nothing of it counts before this. `tag` has [`Opener::payload_tag_len`] bytes; of a clear payload only the length
    /// is known to be right.
    ///
    /// # Errors
    /// [`RecordError::Payload`] when the tag is wrong, [`RecordError::Order`] when no payload or one of another length is
    /// expected, [`RecordError::Dead`].
    pub fn open_payload(&mut self, payload: &mut [u8], tag: &[u8]) -> Result<(), RecordError> {
        let (sequence, len) = match self.take()? {
            Expect::Payload { sequence, len } => (sequence, len),
            Expect::Record | Expect::Nothing => return Err(RecordError::Order),
        };
        if payload.len() != len {
            return Err(RecordError::Order);
        }
        let cipher = &self.direction.payload;
        let verified = match (self.direction.protection, <&Tag>::try_from(tag)) {
            (Protection::Sealed, Ok(tag)) => cipher.open(sequence, &[], payload, tag),
            (Protection::Signed, Ok(tag)) => cipher.open(sequence, payload, &mut [], tag),
            (Protection::Clear, _) => tag.is_empty(),
            (Protection::Sealed | Protection::Signed, Err(_)) => false,
        };
        if !verified {
            return Err(RecordError::Payload);
        }
        self.expect = Expect::Record;
        Ok(())
    }

    fn verify_body(
        &mut self,
        head: &Head,
        head_bytes: &[u8; Limits::HEAD_LEN],
        body_and_tag: &mut [u8],
    ) -> Result<Incoming<M>, RecordError> {
        self.take_record()?;
        let given = body_and_tag.len();
        let (body, tag) =
            body_and_tag.split_last_chunk_mut::<{ Limits::TAG_LEN }>().ok_or(RecordError::Order)?;
        if self.checked_head(head_bytes)? != *head || fits(head.body_len)? + Limits::TAG_LEN != given {
            return Err(RecordError::Order);
        }
        if !self.body_verifies(head_bytes, body, tag) {
            return Err(RecordError::Body);
        }
        self.direction.used.count(body.len(), fits(head.payload_len)?);
        let incoming = match M::decode_body(head.kind, body) {
            Ok(_) if head.kind == Rekey::KIND => {
                if head.payload_len != 0 || head.request != RequestId::NONE {
                    return Err(RecordError::Order);
                }
                self.direction.rekey()?;
                Incoming::Rekeyed
            }
            Ok(message) => Incoming::Message(message),
            Err(DecodeError::UnknownKind(kind)) if is_known(kind) => {
                return Err(RecordError::WrongStream(kind));
            }
            Err(DecodeError::UnknownKind(kind)) => Incoming::Unknown(kind),
            Err(error) => return Err(RecordError::Message(error)),
        };
        self.expect = match fits(head.payload_len)? {
            0 => Expect::Record,
            len => Expect::Payload { sequence: self.next, len },
        };
        self.next = self.next.saturating_add(1);
        Ok(incoming)
    }

    fn body_verifies(&mut self, head_bytes: &[u8], body: &mut [u8], tag: &[u8; Limits::TAG_LEN]) -> bool {
        let cipher = &self.direction.head;
        if self.direction.protection == Protection::Sealed {
            return cipher.open(self.next, head_bytes, body, tag);
        }
        self.signed.clear();
        self.signed.extend_from_slice(head_bytes);
        self.signed.extend_from_slice(body);
        cipher.open(self.next, &self.signed, &mut [], tag)
    }

    fn checked_head(&self, bytes: &[u8; Limits::HEAD_LEN]) -> Result<Head, RecordError> {
        let head = Head::decode(bytes).map_err(RecordError::Head)?;
        if head.channel != self.direction.channel {
            return Err(RecordError::Channel { expected: self.direction.channel, found: head.channel });
        }
        if head.sequence != self.next {
            return Err(RecordError::Sequence { expected: self.next, found: head.sequence });
        }
        // A sealer never uses the last number, so an opener does not either.
        if self.next == u64::MAX {
            return Err(RecordError::Exhausted);
        }
        let KeyUse { records, bytes } = self.direction.used;
        if records >= Limits::KEY_RECORDS_MAX || bytes >= Limits::KEY_BYTES_MAX {
            return Err(RecordError::Overused);
        }
        Ok(head)
    }

    fn take_record(&mut self) -> Result<(), RecordError> {
        match self.take()? {
            Expect::Record => Ok(()),
            Expect::Payload { .. } | Expect::Nothing => Err(RecordError::Order),
        }
    }

    /// What is expected now. Until a caller that succeeded sets it again, nothing is: so every error is the last.
    fn take(&mut self) -> Result<Expect, RecordError> {
        match core::mem::replace(&mut self.expect, Expect::Nothing) {
            Expect::Nothing => Err(RecordError::Dead),
            expected => Ok(expected),
        }
    }
}

impl Direction {
    fn new(
        keys: DirectionKeys,
        channel: ChannelNumber,
        kind: ChannelKind,
        protection: Protection,
    ) -> Result<Self, RecordError> {
        if !allowed(kind, protection) {
            return Err(RecordError::Protection { kind, protection });
        }
        let head = cipher(keys.suite(), &keys.head)?;
        let payload = cipher(keys.suite(), &keys.payload)?;
        Ok(Self { keys, head, payload, channel, protection, used: KeyUse::default() })
    }

    fn rekey(&mut self) -> Result<(), RecordError> {
        self.keys.rekey().map_err(|_| RecordError::Rekey)?;
        self.head = cipher(self.keys.suite(), &self.keys.head)?;
        self.payload = cipher(self.keys.suite(), &self.keys.payload)?;
        self.used = KeyUse::default();
        Ok(())
    }

    fn seal_payload(
        &self,
        sequence: u64,
        payload: Payload<'_>,
    ) -> Result<Option<[u8; Limits::TAG_LEN]>, RecordError> {
        let tag = match (payload, self.protection) {
            (Payload::None | Payload::Readable([]) | Payload::Buffer([]), _) | (_, Protection::Clear) => {
                return Ok(None);
            }
            (Payload::Readable(_), Protection::Sealed) | (Payload::Elsewhere(_), _) => {
                return Err(RecordError::ReadOnly);
            }
            (Payload::Buffer(bytes), Protection::Sealed) => self.payload.seal(sequence, &[], bytes),
            (Payload::Buffer(bytes), Protection::Signed) => self.payload.seal(sequence, bytes, &mut []),
            (Payload::Readable(bytes), Protection::Signed) => self.payload.seal(sequence, bytes, &mut []),
        };
        tag.map(Some)
    }
}

impl Payload<'_> {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Readable(bytes) => bytes.len(),
            Self::Buffer(bytes) => bytes.len(),
            Self::Elsewhere(len) => *len,
        }
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Direction({}, {}, {}, ..)", self.channel, self.protection, self.keys.suite())
    }
}

impl<M: Message> fmt::Debug for Sealer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:?}, next {})", self.direction, self.next)
    }
}

impl<M: Message> fmt::Debug for Opener<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({:?}, next {}, expects {:?})", self.direction, self.next, self.expect)
    }
}

fn fits(len: u32) -> Result<usize, RecordError> {
    usize::try_from(len).map_err(|_| RecordError::Order)
}

#[cfg(test)]
mod tests;
