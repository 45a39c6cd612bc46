//! What our code takes for a hello that is not for this server, without sockets: reading, and the keyed check against
//! two keys.

use std::hint::black_box;

use bowline::model::PublicKey;
use bowline::net::read_hello;
use bowline::secure::mac1;
use bowline::wire::hello::{Offer, SessionOffer, checked, prologue};
use rustix::time::{ClockId, clock_gettime};

use super::Outcome;

const ROUNDS: u32 = 200_000;

pub(crate) fn measure() -> Outcome<()> {
    let mut bytes = checked(&prologue(&Offer::Session(SessionOffer::OURS)), &[0x5a; 96]);
    bytes.extend(mac1::mac1(&PublicKey([9; 32]), &bytes));
    let keys = [PublicKey([1; 32]), PublicKey([2; 32])];
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let begin = thread_seconds();
    runtime.block_on(async {
        for _ in 0..ROUNDS {
            let hello = read_hello(&mut black_box(&bytes[..])).await?;
            assert!(!keys.iter().any(|key| mac1::verify(key, &hello)));
        }
        Outcome::Ok(())
    })?;
    let each = (thread_seconds() - begin) * 1e6 / f64::from(ROUNDS);
    println!("reading a hello and checking it against two keys, without the socket: {each:.2} us");
    Ok(())
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
