//! The public half of an identity: the name by which clients and servers know each other.

use core::fmt;
use core::str::FromStr;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// An X25519 public key: the name of a client or a server.
///
/// Its text form is 52 characters of lower-case base32 (RFC 4648 alphabet, no padding), one for each key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Why a text is no public key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// The text has another length than 52 characters.
    #[error("a public key has 52 characters, this text has {0}")]
    Length(usize),
    /// The text has a character outside `a-z2-7`, or bits beyond the key's 256.
    #[error("a public key is written with a-z and 2-7 only")]
    Alphabet,
}

/// Lower-case base32 without padding, in which each value has one text and each text one value.
pub(crate) fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The specification is a constant; the fall-back only spares a panic path.
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}

impl PublicKey {
    /// Whether a handshake can prove that somebody has this key, under this name. X25519 ignores the highest bit
    /// (RFC 7748, section 5), so a key with that bit set would be a second name; one of low order is nobody's.
    #[must_use]
    pub fn is_provable(&self) -> bool {
        self.0.last().is_some_and(|last| last & 0x80 == 0) && !LOW_ORDER.contains(&self.0)
    }

    /// A short form for people to compare: four groups of four characters, 80 bits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let text = self.to_string();
        let groups: Vec<&str> = [0, 4, 8, 12].iter().filter_map(|&at| text.get(at..at + 4)).collect();
        groups.join("-")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32().encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl FromStr for PublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        if text.len() != 52 {
            return Err(KeyTextError::Length(text.len()));
        }
        let bytes = base32().decode(text.as_bytes()).map_err(|_| KeyTextError::Alphabet)?;
        bytes.try_into().map(Self).map_err(|_| KeyTextError::Alphabet)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            // What comes over a wire names somebody who can be met.
            let key = Self(<[u8; 32]>::deserialize(deserializer)?);
            if key.is_provable() { Ok(key) } else { Err(serde::de::Error::custom(NOT_PROVABLE)) }
        }
    }
}

const NOT_PROVABLE: &str = "a public key is of low order or not in its one form";

/// The public keys below 2^255 of low order: 0, 1, two of order 8 and the prime less one, then the prime and the prime
/// plus one, which are other spellings of 0 and 1.
const LOW_ORDER: [[u8; 32]; 7] = {
    let mut one = [0; 32];
    one[0] = 1;
    [
        [0; 32],
        one,
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
            0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        near_prime(0xec),
        near_prime(0xed),
        near_prime(0xee),
    ]
};

const fn near_prime(first: u8) -> [u8; 32] {
    let mut key = [0xff; 32];
    key[0] = first;
    key[31] = 0x7f;
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_one_to_one() {
        let key = PublicKey(core::array::from_fn(|at| u8::try_from(at).unwrap() * 7));
        let text = key.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse::<PublicKey>().unwrap(), key);
        assert_eq!(text.to_uppercase().parse::<PublicKey>(), Err(KeyTextError::Alphabet));
        assert_eq!("abc".parse::<PublicKey>(), Err(KeyTextError::Length(3)));
        let mut other = text.clone();
        other.pop();
        other.push('7');
        assert_eq!(other.parse::<PublicKey>(), Err(KeyTextError::Alphabet), "spare bits must be zero");
    }

    #[test]
    fn the_fingerprint_is_the_start_of_the_text() {
        let key = PublicKey([0xa5; 32]);
        let text = key.to_string();
        assert_eq!(key.fingerprint().replace('-', ""), text[..16]);
    }
}
