//! The ciphers of records behind one trait, and which of them this machine offers.
//!
//! - ChaCha20-Poly1305 (RFC 8439) is always there, and the only one on control channels.
//! - AEGIS-128X2 (draft-irtf-cfrg-aegis-aead) is for data channels: where the processor has instructions for AES it
//!   costs about as much as a copy, as a cipher and as a message authentication code. It is not offered where it would
//!   have to do without those instructions: it would be slower there than ChaCha20, and its time would depend on keys.

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};

use super::record::RecordError;
use crate::model::{Limits, Suite, SuiteSet};

/// A tag behind a head and body, or behind a payload.
pub(super) type Tag = [u8; Limits::TAG_LEN];

/// The key of one cipher. Wiped by whoever holds it.
pub(super) type Key = [u8; 32];

/// What a suite does for records: authenticated encryption under one key, with the record's number as nonce. Without
/// text it is a message authentication code.
pub(super) trait RecordCipher: Send + Sync {
    /// Encrypts `text` in place and gives the tag over it and `associated`. No number may come twice under one key.
    ///
    /// # Errors
    /// [`RecordError::Cipher`] for lengths that the cipher cannot have.
    fn seal(&self, number: u64, associated: &[u8], text: &mut [u8]) -> Result<Tag, RecordError>;

    /// Whether `tag` is the one over `associated` and the encrypted `text`, which is decrypted in place if it is. The tag
    /// is compared in constant time. Nothing of a text whose tag is wrong is ever left decrypted.
    fn open(&self, number: u64, associated: &[u8], text: &mut [u8], tag: &Tag) -> bool;
}

/// The suites that this build has and this processor runs well.
#[must_use]
pub fn suites() -> SuiteSet {
    if cfg!(feature = "aegis") && has_aes() {
        SuiteSet::ALWAYS.with(Suite::Aegis128X2)
    } else {
        SuiteSet::ALWAYS
    }
}

/// A cipher of `suite` under `key`, of which AEGIS uses the first half.
///
/// # Errors
/// [`RecordError::Suite`] where this build does not have the suite.
pub(super) fn cipher(suite: Suite, key: &Key) -> Result<Box<dyn RecordCipher>, RecordError> {
    let cipher: Box<dyn RecordCipher> = match suite {
        Suite::ChaCha20Poly1305 => Box::new(ChaCha20Poly1305::new(key.into())),
        #[cfg(feature = "aegis")]
        Suite::Aegis128X2 => Box::new(aegis::Aegis::new(key)),
        #[cfg(not(feature = "aegis"))]
        Suite::Aegis128X2 => return Err(RecordError::Suite(suite)),
    };
    #[cfg(test)]
    let cipher: Box<dyn RecordCipher> = Box::new(uses::Noted { suite, key: *key, cipher });
    Ok(cipher)
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    // Without AVX the library falls back to code without AES instructions as well.
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("avx")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

impl RecordCipher for ChaCha20Poly1305 {
    fn seal(&self, number: u64, associated: &[u8], text: &mut [u8]) -> Result<Tag, RecordError> {
        self.encrypt_in_place_detached(&nonce::<12>(number).into(), associated, text)
            .map(Into::into)
            .map_err(|_| RecordError::Cipher)
    }

    fn open(&self, number: u64, associated: &[u8], text: &mut [u8], tag: &Tag) -> bool {
        self.decrypt_in_place_detached(&nonce::<12>(number).into(), associated, text, tag.into()).is_ok()
    }
}

/// The nonce of a record: zeros, and its number in the last eight bytes, little-endian.
fn nonce<const LEN: usize>(number: u64) -> [u8; LEN] {
    let mut nonce = [0; LEN];
    nonce.iter_mut().rev().zip(number.to_le_bytes().into_iter().rev()).for_each(|(to, from)| *to = from);
    nonce
}

#[cfg(feature = "aegis")]
mod aegis {
    //! AEGIS-128X2 of the crate `aegis`, whose C code asks the processor at run time what it can.

    use aegis::aegis128x2::Aegis128X2;
    use zeroize::{Zeroize, ZeroizeOnDrop};

    use super::{Key, RecordCipher, Tag, nonce};
    use crate::secure::record::RecordError;

    #[derive(Zeroize, ZeroizeOnDrop)]
    pub(super) struct Aegis {
        key: [u8; 16],
    }

    impl Aegis {
        pub(super) fn new(key: &Key) -> Self {
            let mut half = [0; 16];
            half.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
            let cipher = Self { key: half };
            half.zeroize();
            cipher
        }

        fn at(&self, number: u64) -> Aegis128X2<16> {
            Aegis128X2::new(&self.key, &nonce(number))
        }
    }

    impl RecordCipher for Aegis {
        fn seal(&self, number: u64, associated: &[u8], text: &mut [u8]) -> Result<Tag, RecordError> {
            Ok(self.at(number).encrypt_in_place(text, associated))
        }

        fn open(&self, number: u64, associated: &[u8], text: &mut [u8], tag: &Tag) -> bool {
            self.at(number).decrypt_in_place(text, tag, associated).is_ok()
        }
    }
}

#[cfg(test)]
mod uses;

#[cfg(test)]
mod tests {
    use super::*;

    fn each() -> Vec<(Suite, Box<dyn RecordCipher>)> {
        let key = core::array::from_fn(|at| u8::try_from(at).unwrap());
        Suite::EACH.iter().filter_map(|&suite| Some((suite, cipher(suite, &key).ok()?))).collect()
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        for (suite, cipher) in each() {
            for len in [0, 1, 15, 16, 63, 64, 65, 1000] {
                let plain: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[0]).collect();
                let mut text = plain.clone();
                let tag = cipher.seal(7, b"head", &mut text).unwrap();
                assert!(len == 0 || text != plain, "{suite}");
                let mut wrong = tag;
                wrong[15] ^= 1;
                for (number, associated, tag) in
                    [(8, &b"head"[..], tag), (7, b"heap", tag), (7, b"head", wrong)]
                {
                    let mut other = text.clone();
                    assert!(!cipher.open(number, associated, &mut other, &tag), "{suite} {len}");
                    assert!(len < 16 || other != plain, "{suite} {len}: decrypted without a right tag");
                }
                assert!(cipher.open(7, b"head", &mut text, &tag), "{suite} {len}");
                assert_eq!(text, plain);
            }
        }
    }

    #[test]
    fn the_number_is_the_end_of_the_nonce() {
        assert_eq!(nonce::<12>(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(nonce::<16>(1), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_offered_can_be_made() {
        let made: Vec<Suite> = each().into_iter().map(|(suite, _)| suite).collect();
        assert!(suites().iter().all(|suite| made.contains(&suite)));
        assert!(suites().contains(Suite::ChaCha20Poly1305));
        assert_eq!(made.contains(&Suite::Aegis128X2), cfg!(feature = "aegis"));
    }
}
