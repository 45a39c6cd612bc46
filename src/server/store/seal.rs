//! Sums over what is stored, so that what comes back is what was written, and in its own place.
//!
//! They are keyed with the store's id: a record of another store, or of another key, is none of this one. The id is no
//! secret; whoever can write the files can make sums that match.

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};

use crate::model::StoreId;

/// Length of a sum, in bytes.
pub(super) const SUM_LEN: usize = 16;

/// Makes and checks the sums of one store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal(StoreId);

impl Seal {
    pub(super) fn new(store: StoreId) -> Self {
        Self(store)
    }

    /// The sum over something that stands at (`kind`, `key`).
    pub(super) fn sum(&self, kind: u8, key: u64, value: &[u8]) -> [u8; SUM_LEN] {
        let mut padded = [0; 32];
        padded.iter_mut().zip(self.0.0).for_each(|(to, from)| *to = from);
        let mut mac = <Blake2sMac<U16> as KeyInit>::new(&padded.into());
        mac.update(&[kind]);
        mac.update(&key.to_le_bytes());
        mac.update(value);
        mac.finalize_fixed().into()
    }

    /// `value` with its sum behind it.
    pub(super) fn close(&self, kind: u8, key: u64, value: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(value.len() + SUM_LEN);
        sealed.extend_from_slice(value);
        sealed.extend_from_slice(&self.sum(kind, key, value));
        sealed
    }

    /// What stands before the sum, if the sum is right.
    pub(super) fn open<'a>(&self, kind: u8, key: u64, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (value, sum) = sealed.split_last_chunk::<SUM_LEN>()?;
        (self.sum(kind, key, value) == *sum).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_every_place_counts() {
        let seal = Seal::new(StoreId([7; 16]));
        let sealed = seal.close(1, 2, b"value");
        assert_eq!(seal.open(1, 2, &sealed), Some(&b"value"[..]));
        assert_eq!(seal.open(2, 2, &sealed), None);
        assert_eq!(seal.open(1, 3, &sealed), None);
        assert_eq!(Seal::new(StoreId([8; 16])).open(1, 2, &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal.open(1, 2, &bad), None, "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(seal.open(1, 2, &sealed[..len]), None, "cut at {len}");
        }
        assert_eq!(seal.open(1, 2, &seal.close(1, 2, b"")), Some(&b""[..]));
    }
}
