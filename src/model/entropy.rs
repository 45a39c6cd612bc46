//! The seam through which random bytes are handed to the pure tiers.

use thiserror::Error;

/// A source of random bytes.
pub trait Entropy: Send {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source has none; `bytes` must not be used then.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError>;

    /// `N` random bytes.
    ///
    /// # Errors
    /// As [`Entropy::fill`].
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], EntropyError>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl<E: Entropy + ?Sized> Entropy for Box<E> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(bytes)
    }
}

/// The source of random bytes failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the system's source of random bytes failed")]
pub struct EntropyError;
