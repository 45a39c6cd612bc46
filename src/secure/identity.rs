//! The secret half of an identity.

use core::fmt;

use thiserror::Error;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::model::{Entropy, EntropyError, PublicKey, base32};

const TEXT_PREFIX: &str = "bowline-identity-1-";
const TEXT_LEN: usize = 52;

/// An X25519 static key pair: who a client or a server is.
///
/// `Debug` shows the fingerprint of the public key and nothing else; the secret is wiped when the identity is
/// dropped. There is no `Clone`: one process has one copy.
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
}

/// Why a text is no identity. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "this is not an identity: one starts with \"{TEXT_PREFIX}\" and has {TEXT_LEN} characters of a-z and 2-7 after it"
)]
pub struct IdentityTextError;

impl Identity {
    /// A new identity.
    ///
    /// # Errors
    /// [`EntropyError`] when there are no random bytes.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(&mut *bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// The identity that `text` spells.
    ///
    /// # Errors
    /// [`IdentityTextError`] for everything but what [`Identity::to_text`] gives.
    pub fn from_text(text: &str) -> Result<Self, IdentityTextError> {
        let encoded = text.strip_prefix(TEXT_PREFIX).ok_or(IdentityTextError)?;
        if encoded.len() != TEXT_LEN {
            return Err(IdentityTextError);
        }
        let decoded = Zeroizing::new(base32().decode(encoded.as_bytes()).map_err(|_| IdentityTextError)?);
        let bytes: &[u8; 32] = decoded.first_chunk().ok_or(IdentityTextError)?;
        Ok(Self::from_bytes(bytes))
    }

    /// The text form, for a file that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(base32().encode(self.secret.as_bytes()));
        let mut text = Zeroizing::new(String::with_capacity(TEXT_PREFIX.len() + TEXT_LEN));
        text.push_str(TEXT_PREFIX);
        text.push_str(&encoded);
        text
    }

    /// The public half: the name by which others know this identity.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret half, for the handshake alone.
    pub(super) fn secret(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, ..)", self.public.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::noise::testing::Seeded;

    #[test]
    fn text_comes_back_as_the_same_identity() {
        let identity = Identity::generate(&mut Seeded::new(1)).unwrap();
        let text = identity.to_text();
        assert_eq!(text.len(), TEXT_PREFIX.len() + TEXT_LEN);
        let again = Identity::from_text(&text).unwrap();
        assert_eq!((again.public(), again.secret()), (identity.public(), identity.secret()));
        let other = Identity::generate(&mut Seeded::new(2)).unwrap();
        assert_ne!(other.public(), identity.public());
    }

    /// RFC 7748, section 6.1: the secret of Alice and her public key.
    #[test]
    fn the_public_key_is_the_curve_s() {
        let secret = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let public = [
            0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a,
            0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a,
        ];
        assert_eq!(Identity::from_bytes(&secret).public(), PublicKey(public));
    }

    #[test]
    fn other_texts_are_refused() {
        let text = Identity::generate(&mut Seeded::new(1)).unwrap().to_text().to_string();
        let encoded = &text[TEXT_PREFIX.len()..];
        let wrong = [
            String::new(),
            encoded.to_owned(),
            text[..text.len() - 1].to_owned(),
            format!("{text}a"),
            format!("{text}\n"),
            format!("{TEXT_PREFIX}{}", encoded.to_uppercase()),
            format!("{TEXT_PREFIX}{}", "1".repeat(TEXT_LEN)),
            format!("{TEXT_PREFIX}{}7", &encoded[..TEXT_LEN - 1]),
            format!("bowline-identity-2-{encoded}"),
        ];
        for text in wrong {
            let refused = Identity::from_text(&text);
            assert_eq!(refused.map(|identity| identity.public()), Err(IdentityTextError), "{text}");
        }
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let identity = Identity::generate(&mut Seeded::new(1)).unwrap();
        let debug = format!("{identity:?}");
        assert_eq!(debug, format!("Identity({}, ..)", identity.public().fingerprint()));
        assert!(!IdentityTextError.to_string().contains(&identity.to_text()[TEXT_PREFIX.len()..]));
    }

    #[test]
    fn without_random_bytes_there_is_no_identity() {
        assert_eq!(Identity::generate(&mut Seeded::empty()).map(|_| ()), Err(EntropyError));
    }
}
