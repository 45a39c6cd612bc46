//! The keyed check at the end of a hello: whoever computes it knows the server's public key.
//!
//! It is `mac1` of WireGuard (the WireGuard whitepaper, section 5.4.4) under a label of our own: a keyed BLAKE2s-128
//! under the hash of label and public key. It proves no identity; it lets a server drop what was not meant for it
//! before the first Diffie-Hellman, at a hundredth of the cost.
//!
//! Who asks for a server's key does not know it: the check of such a hello is made under [`NO_KEY`] and tells no more
//! than that the hello has not been damaged.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use subtle::ConstantTimeEq;

use crate::model::PublicKey;
use crate::wire::hello::{Hello, MAC1_LEN, Offer};

/// Stands in place of the server's key in the check of a hello that asks for it. It is no key: every secret gives
/// the all-zero value with it, which handshakes refuse.
pub const NO_KEY: PublicKey = PublicKey([0; 32]);

const LABEL: &[u8] = b"bowline mac1";

/// The check over `checked` for a hello to `server`.
#[must_use]
pub fn mac1(server: &PublicKey, checked: &[u8]) -> [u8; MAC1_LEN] {
    let key = Blake2s256::new().chain_update(LABEL).chain_update(server.0).finalize();
    let mut mac = <Blake2sMac<U16> as KeyInit>::new(&key);
    mac.update(checked);
    mac.finalize_fixed().into()
}

/// Whether the check of `hello` is the one for `server`, or the one of everybody if the hello asks for the key; takes
/// the same time for each wrong one.
#[must_use]
pub fn verify(server: &PublicKey, hello: &Hello) -> bool {
    let key = match hello.offer {
        Offer::Session(_) | Offer::Bind(_) => server,
        Offer::Enrol(_) => &NO_KEY,
    };
    mac1(key, &hello.checked).ct_eq(&hello.mac1).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hello::{EnrolOffer, SessionOffer, checked, prologue};

    const SERVER: PublicKey = PublicKey([7; 32]);

    /// Computed with another implementation: `blake2s(checked, digest_size=16, key=blake2s(label + key))`.
    #[test]
    fn golden_bytes() {
        let golden =
            [0xd6, 0x96, 0x24, 0x59, 0x3a, 0xd8, 0x21, 0x17, 0x5d, 0x0b, 0xe9, 0xdc, 0x9c, 0x91, 0x66, 0xc0];
        assert_eq!(mac1(&SERVER, b"checked"), golden);
    }

    #[test]
    fn every_bit_of_check_and_checked_counts() {
        let checked = checked(&prologue(&Offer::Session(SessionOffer::OURS)), b"noise");
        let bytes = [&checked[..], &mac1(&SERVER, &checked)].concat();
        let mut hello = Hello::decode(&bytes).unwrap();
        assert!(verify(&SERVER, &hello));
        assert!(!verify(&PublicKey([8; 32]), &hello));
        for bit in 0..MAC1_LEN * 8 {
            hello.mac1[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&SERVER, &hello), "bit {bit} of the check");
            hello.mac1[bit / 8] ^= 1 << (bit % 8);
        }
        for bit in 0..checked.len() * 8 {
            hello.checked[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&SERVER, &hello), "bit {bit} of what is checked");
            hello.checked[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(verify(&SERVER, &hello));
    }
    #[test]
    fn a_hello_that_asks_for_the_key_is_checked_without_one() {
        let hello = |offer, key| {
            let checked = checked(&prologue(&offer), b"noise");
            Hello::decode(&[&checked[..], &mac1(key, &checked)].concat()).unwrap()
        };
        let enrol = Offer::Enrol(EnrolOffer::OURS);
        assert!(verify(&SERVER, &hello(enrol, &NO_KEY)));
        assert!(!verify(&SERVER, &hello(enrol, &SERVER)), "there is one check for each hello");
        // And no other hello gets away with it.
        assert!(!verify(&SERVER, &hello(Offer::Session(SessionOffer::OURS), &NO_KEY)));
    }
}
