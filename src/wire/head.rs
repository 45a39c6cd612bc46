//! The fixed head of every record. protocol.md: Records.
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of the body |
//! | 4 | 4 | length of the payload |
//! | 8 | 1 | kind of the message |
//! | 9 | 1 | flags, 0 in this version |
//! | 10 | 2 | reserved, 0 |
//! | 12 | 4 | channel number |
//! | 16 | 8 | request id |
//! | 24 | 8 | sequence number |
//! | 32 | 8 | settled: all requests with lower ids have their answers (client to server; else 0) |

use thiserror::Error;

use crate::model::{ChannelNumber, Limits, RequestId};

/// A record's head. Its fields mean nothing before the tag behind the body has been verified; until then only
/// `body_len` is used, to know how much to read, and it is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Length of the body, in bytes, without its tag.
    pub body_len: u32,
    /// Length of the payload, in bytes, without its tag; 0: there is neither payload nor second tag.
    pub payload_len: u32,
    /// Kind of the message.
    pub kind: u8,
    /// The channel that the record was made for.
    pub channel: ChannelNumber,
    /// The request that the record belongs to.
    pub request: RequestId,
    /// Counts the records of one direction of one channel, from 0, without a gap.
    pub sequence: u64,
    /// The client has the answers to all requests with lower ids.
    pub settled: RequestId,
}

/// Why bytes are no head that this version accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// A length over its limit.
    #[error("the record states a body of {body_len} and a payload of {payload_len} bytes, over the limit")]
    TooLong {
        /// Stated length of the body.
        body_len: u32,
        /// Stated length of the payload.
        payload_len: u32,
    },
    /// Flags or reserved bytes that this version does not know.
    #[error("the record has flags that this version does not know")]
    Flags,
}

impl Head {
    /// The head's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Limits::HEAD_LEN] {
        let mut bytes = [0; Limits::HEAD_LEN];
        let fields = (self.body_len.to_le_bytes().into_iter())
            .chain(self.payload_len.to_le_bytes())
            .chain([self.kind, 0, 0, 0])
            .chain(self.channel.0.to_le_bytes())
            .chain(self.request.0.to_le_bytes())
            .chain(self.sequence.to_le_bytes())
            .chain(self.settled.0.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// The head that `bytes` spell.
    ///
    /// # Errors
    /// [`HeadError`], before anything is allocated.
    pub fn decode(bytes: &[u8; Limits::HEAD_LEN]) -> Result<Self, HeadError> {
        let word = |at: usize| -> u32 {
            (0..4).rev().fold(0, |sum, byte| (sum << 8) | bytes.get(at + byte).map_or(0, |&b| u32::from(b)))
        };
        let long = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        let (body_len, payload_len) = (word(0), word(4));
        let fits = |len: u32, max: usize| usize::try_from(len).is_ok_and(|len| len <= max);
        if !fits(body_len, Limits::BODY_LEN_MAX) || !fits(payload_len, Limits::PAYLOAD_LEN_MAX) {
            return Err(HeadError::TooLong { body_len, payload_len });
        }
        let [kind, rest @ ..] = word(8).to_le_bytes();
        if rest != [0; 3] {
            return Err(HeadError::Flags);
        }
        Ok(Self {
            body_len,
            payload_len,
            kind,
            channel: ChannelNumber(word(12)),
            request: RequestId(long(16)),
            sequence: long(24),
            settled: RequestId(long(32)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        body_len: 0x0102,
        payload_len: 0x01_0203,
        kind: 0x20,
        channel: ChannelNumber(0x0a0b_0c0d),
        request: RequestId(0x1112_1314_1516_1718),
        sequence: 0x2122_2324_2526_2728,
        settled: RequestId(0x3132_3334_3536_3738),
    };

    #[test]
    fn golden_bytes() {
        let golden = [
            0x02, 0x01, 0, 0, 0x03, 0x02, 0x01, 0, 0x20, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, //
            0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22,
            0x21, //
            0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
        ];
        assert_eq!(HEAD.encode(), golden);
        assert_eq!(Head::decode(&golden), Ok(HEAD));
    }

    #[test]
    fn lengths_over_the_limit_and_unknown_flags_are_refused() {
        let mut bytes = Head { body_len: u32::MAX, ..HEAD }.encode();
        assert!(matches!(Head::decode(&bytes), Err(HeadError::TooLong { .. })));
        bytes = Head { payload_len: (1 << 20) + 1, ..HEAD }.encode();
        assert!(matches!(Head::decode(&bytes), Err(HeadError::TooLong { .. })));
        for at in 9..12 {
            bytes = HEAD.encode();
            bytes[at] = 1;
            assert_eq!(Head::decode(&bytes), Err(HeadError::Flags));
        }
    }
}
