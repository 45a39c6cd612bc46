//! Random bytes from the operating system.

use crate::model::{Entropy, EntropyError};

/// The system's source of random bytes (`getrandom`). It waits for the kernel's generator to be seeded, once
/// after the machine's start, and never again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(bytes).map_err(|_| EntropyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_filled_and_no_two_fills_agree() {
        let mut entropy = SystemEntropy;
        let first: [u8; 256] = entropy.bytes().unwrap();
        let second: [u8; 256] = entropy.bytes().unwrap();
        assert_ne!(first, second);
        for part in first.chunks(32) {
            assert_ne!(part, [0; 32], "a part was left out");
        }
        entropy.fill(&mut []).unwrap();
    }
}
