//! The resume key: names an open and carries the secret that, together with the right identity, gets a
//! duplicate handle to it.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::OpenId;
use super::key::base32;

/// Length of a resume key's secret, in bytes.
pub const SECRET_LEN: usize = 16;

const TEXT_PREFIX: &str = "bowline-resume-1-";

/// A resume key. The first four fields select and can be guessed; the secret authorises, and only together
/// with the identity that the key was issued to.
///
/// It has no plain-text encoding on the wire: only control messages can carry one. `Debug` shows the file id
/// and nothing else; the secret is wiped when the key is dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ResumeKey {
    /// The random index under which the server finds the open's state.
    #[zeroize(skip)]
    pub file_id: OpenId,
    /// When the key was issued, in microseconds since 1970 by the server's clock.
    pub time_stamp_us: u64,
    /// The process that the key belongs to, as the client states it.
    pub process_id: u32,
    /// Counts the keys of one open.
    pub generation: u32,
    /// What the holder of the key knows and the server keeps only as a keyed hash.
    pub secret: [u8; SECRET_LEN],
}

/// Why a text is no resume key. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "this is not a resume key: one starts with \"{TEXT_PREFIX}\" and has 64 characters of a-z and 2-7 after it"
)]
pub struct ResumeKeyTextError;

impl ResumeKey {
    /// Length of the binary form, in bytes.
    pub const LEN: usize = 8 + 8 + 4 + 4 + SECRET_LEN;

    /// The text form, for a store that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = self.to_bytes();
        let mut text = Zeroizing::new(String::with_capacity(TEXT_PREFIX.len() + Self::LEN * 8 / 5));
        text.push_str(TEXT_PREFIX);
        let encoded = Zeroizing::new(base32().encode(bytes.as_slice()));
        text.push_str(&encoded);
        text
    }

    /// The binary form: the fields in their order, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::LEN]> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        let fields = self
            .file_id
            .0
            .to_le_bytes()
            .into_iter()
            .chain(self.time_stamp_us.to_le_bytes())
            .chain(self.process_id.to_le_bytes())
            .chain(self.generation.to_le_bytes())
            .chain(self.secret);
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// The key that a binary form spells.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            let mut part = [0; N];
            part.iter_mut().zip(bytes.iter().skip(at)).for_each(|(to, from)| *to = *from);
            part
        }
        Self {
            file_id: OpenId(u64::from_le_bytes(part(bytes, 0))),
            time_stamp_us: u64::from_le_bytes(part(bytes, 8)),
            process_id: u32::from_le_bytes(part(bytes, 16)),
            generation: u32::from_le_bytes(part(bytes, 20)),
            secret: part(bytes, 24),
        }
    }
}

impl FromStr for ResumeKey {
    type Err = ResumeKeyTextError;

    fn from_str(text: &str) -> Result<Self, ResumeKeyTextError> {
        let encoded = text.strip_prefix(TEXT_PREFIX).ok_or(ResumeKeyTextError)?;
        let bytes = Zeroizing::new(base32().decode(encoded.as_bytes()).map_err(|_| ResumeKeyTextError)?);
        let bytes: &[u8; Self::LEN] = bytes.as_slice().try_into().map_err(|_| ResumeKeyTextError)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeKey").field("file_id", &self.file_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ResumeKey {
        ResumeKey {
            file_id: OpenId(0x0102_0304_0506_0708),
            time_stamp_us: 7,
            process_id: 4711,
            generation: 3,
            secret: *b"0123456789abcdef",
        }
    }

    #[test]
    fn text_and_bytes_come_back() {
        let key = key();
        assert_eq!(key.to_text().parse::<ResumeKey>().unwrap(), key);
        assert_eq!(ResumeKey::from_bytes(&key.to_bytes()), key);
        assert_eq!(key.to_text().len(), TEXT_PREFIX.len() + 64);
    }

    #[test]
    fn other_texts_are_refused() {
        let text = key().to_text().to_string();
        for bad in ["", "bowline-resume-1-", &text[1..], &text[..text.len() - 1], &text.to_uppercase()] {
            assert_eq!(bad.parse::<ResumeKey>(), Err(ResumeKeyTextError));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", key());
        assert_eq!(shown, "ResumeKey { file_id: OpenId(102030405060708), .. }");
    }
}
