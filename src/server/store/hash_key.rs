//! The key under which the table keeps the hashes of resume keys: in a file of its own, so that a copy of the table
//! resumes nothing.

use core::fmt;
use std::path::Path;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use zeroize::Zeroizing;

use super::StoreError;
use super::seal::SUM_LEN;
use crate::model::{Entropy, base32};
use crate::net::{KeyFileError, key_file};

const TEXT_PREFIX: &str = "bowline-resume-hash-1-";

/// The key of the hashes. Nothing shows it, and it is wiped when dropped.
pub struct HashKey(Zeroizing<[u8; 32]>);

impl HashKey {
    /// A key that everybody knows.
    #[cfg(test)]
    pub(super) fn known() -> Self {
        Self(Zeroizing::new([5; 32]))
    }

    /// The key in the file `path`; none if there is no such file.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`], [`StoreError::Damaged`].
    pub(super) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let text = match key_file::read(path) {
            Err(KeyFileError::Missing { .. }) => return Ok(None),
            outcome => outcome?,
        };
        let damaged = || StoreError::damaged(path, super::Damage::Line(1));
        let encoded = text.strip_prefix(TEXT_PREFIX).ok_or_else(damaged)?;
        let bytes = Zeroizing::new(base32().decode(encoded.as_bytes()).map_err(|_| damaged())?);
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged())?;
        Ok(Some(Self(Zeroizing::new(*bytes))))
    }

    /// A new key, in a new file `path`.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`], [`StoreError::Entropy`].
    pub(super) fn create(path: &Path, entropy: &mut dyn Entropy) -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(&mut *bytes)?;
        let encoded = Zeroizing::new(base32().encode(bytes.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(TEXT_PREFIX.len() + encoded.len()));
        text.push_str(TEXT_PREFIX);
        text.push_str(&encoded);
        key_file::create(path, &text)?;
        Ok(Self(bytes))
    }

    /// The key, for who makes the hashes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// By which it is known again. It says nothing of the key.
    pub(super) fn check(&self) -> [u8; SUM_LEN] {
        let mut mac = <Blake2sMac<U16> as KeyInit>::new((&*self.0).into());
        mac.update(b"bowline resume.key v1");
        mac.finalize_fixed().into()
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}
