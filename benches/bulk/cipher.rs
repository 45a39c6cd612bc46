//! What the cipher alone costs at both ends, on one thread: with the floor it makes what a line has to cost.

use std::hint::black_box;
use std::time::Duration;

use bowline::model::{Limits, Protection};
use chacha20poly1305::{AeadInPlace as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use rustix::time::{ClockId, clock_gettime};

/// How much is sealed and opened for one figure.
const ROUNDS: u32 = 512;

/// Processor seconds per GiB of sealing and opening, over the payload alone.
pub(crate) fn cost(protection: Protection) -> f64 {
    let cipher = ChaCha20Poly1305::new(&[7; 32].into());
    let chunk = Limits::default().chunk;
    let mut buffer = vec![0x5a; chunk as usize];
    let begin = processor_time();
    for round in 0..ROUNDS {
        let mut nonce = Nonce::default();
        nonce[..4].copy_from_slice(&round.to_le_bytes());
        let tag = seal(&cipher, protection, &nonce, &mut buffer);
        open(&cipher, protection, &nonce, black_box(&mut buffer), &tag);
    }
    let gib = f64::from(ROUNDS) * f64::from(chunk) / f64::from(1 << 30);
    (processor_time() - begin).as_secs_f64() / gib
}

/// Of this thread: whoever else uses the machine does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn seal(cipher: &ChaCha20Poly1305, protection: Protection, nonce: &Nonce, buffer: &mut [u8]) -> Tag {
    if protection == Protection::Sealed {
        cipher.encrypt_in_place_detached(nonce, &[], buffer).unwrap()
    } else {
        cipher.encrypt_in_place_detached(nonce, buffer, &mut []).unwrap()
    }
}

fn open(cipher: &ChaCha20Poly1305, protection: Protection, nonce: &Nonce, buffer: &mut [u8], tag: &Tag) {
    if protection == Protection::Sealed {
        cipher.decrypt_in_place_detached(nonce, &[], buffer, tag).unwrap();
    } else {
        cipher.decrypt_in_place_detached(nonce, buffer, &mut [], tag).unwrap();
    }
}
