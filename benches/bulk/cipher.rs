//! What the cipher alone costs at both ends, on one thread: with the floor it makes what a line has to cost.

use std::hint::black_box;
use std::time::Duration;

use aegis::aegis128x2::Aegis128X2;
use bowline::model::{Limits, Protection, Suite};
use chacha20poly1305::{AeadInPlace as _, ChaCha20Poly1305, KeyInit as _, Nonce};
use rustix::time::{ClockId, clock_gettime};

/// How much is sealed and opened for one figure.
const ROUNDS: u32 = 512;

/// Processor seconds per GiB of sealing and opening, over the payload alone; nothing on a clear channel.
pub(crate) fn cost(protection: Protection, suite: Suite) -> f64 {
    let pass: fn(u32, bool, &mut [u8]) = match suite {
        _ if protection == Protection::Clear => return 0.0,
        Suite::ChaCha20Poly1305 => chacha,
        Suite::Aegis128X2 => aegis,
    };
    let chunk = Limits::default().chunk;
    let mut buffer = vec![0x5a; chunk as usize];
    let begin = processor_time();
    for round in 0..ROUNDS {
        pass(round, protection == Protection::Sealed, black_box(&mut buffer));
    }
    let gib = f64::from(ROUNDS) * f64::from(chunk) / f64::from(1 << 30);
    (processor_time() - begin).as_secs_f64() / gib
}

/// Of this thread: whoever else uses the machine does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// As text if it is encrypted, else as associated data.
fn chacha(round: u32, is_encrypted: bool, buffer: &mut [u8]) {
    let cipher = ChaCha20Poly1305::new(&[7; 32].into());
    let mut nonce = Nonce::default();
    nonce[..4].copy_from_slice(&round.to_le_bytes());
    if is_encrypted {
        let tag = cipher.encrypt_in_place_detached(&nonce, &[], buffer).unwrap();
        cipher.decrypt_in_place_detached(&nonce, &[], buffer, &tag).unwrap();
    } else {
        let tag = cipher.encrypt_in_place_detached(&nonce, buffer, &mut []).unwrap();
        cipher.decrypt_in_place_detached(&nonce, buffer, &mut [], &tag).unwrap();
    }
}

/// The same.
fn aegis(round: u32, is_encrypted: bool, buffer: &mut [u8]) {
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&round.to_le_bytes());
    let cipher = Aegis128X2::<16>::new(&[7; 16], &nonce);
    if is_encrypted {
        let tag = cipher.encrypt_in_place(buffer, &[]);
        cipher.decrypt_in_place(buffer, &tag, &[]).unwrap();
    } else {
        let tag = cipher.encrypt_in_place(&mut [], buffer);
        cipher.decrypt_in_place(&mut [], &tag, buffer).unwrap();
    }
}
