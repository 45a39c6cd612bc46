//! The body codec, and the only module that names the crate behind it.
//!
//! Little-endian, fixed-width integers, lengths as 64-bit numbers, enum variants as 32-bit numbers, options as
//! one byte 0 or 1: each value has one encoding. A body is decoded whole, with nothing left over, and never
//! allocates more than [`Limits::BODY_LEN_MAX`].

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::model::Limits;

type Config = Configuration<LittleEndian, Fixint, Limit<{ Limits::BODY_LEN_MAX }>>;

fn config() -> Config {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<{ Limits::BODY_LEN_MAX }>()
}

/// Why bytes are not the encoding of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end early, or spell no value of the type.
    #[error("the bytes spell no value of this message")]
    Malformed,
    /// Bytes are left over.
    #[error("{0} bytes are left over behind the message")]
    Trailing(usize),
    /// More bytes than any body may have.
    #[error("the body has {0} bytes, the limit is {max}", max = Limits::BODY_LEN_MAX)]
    TooLong(usize),
    /// No message of this direction and channel has this kind.
    #[error("no message of this direction and channel has kind {0:#04x}")]
    UnknownKind(u8),
}

type RecordConfig = Configuration<LittleEndian, Fixint, Limit<{ Limits::RECORD_LEN_MAX }>>;

fn record_config() -> RecordConfig {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<{ Limits::RECORD_LEN_MAX }>()
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the encoding of `value` to `to`.
///
/// All types given here are plain data with known lengths, which the encoder cannot refuse; if it ever did, the
/// peer would see a malformed body.
pub fn encode<T: Serialize>(value: &T, to: &mut Vec<u8>) {
    let outcome = bincode::serde::encode_into_writer(value, Appender(to), config());
    debug_assert!(outcome.is_ok(), "messages hold nothing that the codec refuses");
}

/// The value that `bytes` spell, all of them.
///
/// # Errors
/// [`DecodeError::TooLong`], [`DecodeError::Malformed`] or [`DecodeError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > Limits::BODY_LEN_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|_| DecodeError::Malformed)?;
    match bytes.len().checked_sub(used) {
        Some(0) => Ok(value),
        left => Err(DecodeError::Trailing(left.unwrap_or(0))),
    }
}

/// The encoding of a record of the open table, which may be longer than a body.
pub(super) fn encode_record<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let outcome = bincode::serde::encode_into_writer(value, Appender(&mut bytes), record_config());
    debug_assert!(outcome.is_ok(), "records hold nothing that the codec refuses");
    // Thousands of them may wait for the store.
    bytes.shrink_to_fit();
    bytes
}

/// The record that `bytes` spell, all of them.
///
/// # Errors
/// [`DecodeError::TooLong`], [`DecodeError::Malformed`] or [`DecodeError::Trailing`].
pub(super) fn decode_record<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > Limits::RECORD_LEN_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, record_config()).map_err(|_| DecodeError::Malformed)?;
    match bytes.len().checked_sub(used) {
        Some(0) => Ok(value),
        left => Err(DecodeError::Trailing(left.unwrap_or(0))),
    }
}

/// The value that the first of `bytes` spell, and how many they are.
///
/// # Errors
/// [`DecodeError::Malformed`].
pub(super) fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    bincode::serde::decode_from_slice(bytes, config()).map_err(|_| DecodeError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_encoding() {
        let mut bytes = Vec::new();
        encode(&(7_u32, Some(true), "ab"), &mut bytes);
        assert_eq!(bytes, [7, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        assert!(decode::<(u32, Option<bool>, String)>(&bytes).is_ok());
        for (at, wrong) in [(4, 2), (5, 2), (14, 0xff)] {
            let mut changed = bytes.clone();
            changed[at] = wrong;
            assert_eq!(decode::<(u32, Option<bool>, String)>(&changed), Err(DecodeError::Malformed));
        }
    }

    #[test]
    fn a_lying_length_allocates_nothing() {
        let mut bytes = Vec::new();
        encode(&u64::MAX, &mut bytes);
        bytes.extend_from_slice(b"xyz");
        assert_eq!(decode::<Vec<u8>>(&bytes), Err(DecodeError::Malformed));
        assert_eq!(decode::<String>(&bytes), Err(DecodeError::Malformed));
    }

    #[test]
    fn trailing_and_oversized_bytes_are_refused() {
        assert_eq!(decode::<u8>(&[1, 2, 3]), Err(DecodeError::Trailing(2)));
        let long = vec![0; Limits::BODY_LEN_MAX + 1];
        assert_eq!(decode::<Vec<u8>>(&long), Err(DecodeError::TooLong(long.len())));
    }
}
