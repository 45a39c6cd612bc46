//! What our code takes for a hello that is not for this server, without sockets: reading, and the keyed check against
//! two keys.

use std::hint::black_box;
use std::net::IpAddr;

use bowline::model::{Limits, PublicKey, Time};
use bowline::net::{SystemEntropy, read_hello};
use bowline::secure::mac1;
use bowline::session::admission::{Admission, Verdict};
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

/// What is decided for a connection whose network has no token left, among many networks.
pub(crate) fn measure_gate() {
    let mut admission = Admission::new(&Limits::default());
    let source = |at: u32| {
        let [low, high, ..] = at.to_le_bytes();
        IpAddr::from([127, high, low, 1])
    };
    let now = Time(1_000_000);
    let mut decide = |at: u32| match admission.handle_accepted(now, source(at % 64), &mut SystemEntropy) {
        Ok(Verdict::Admitted { id, .. }) => admission.handle_ended(id),
        _ => drop(black_box(admission.handle_refused(now, source(at % 64)))),
    };
    (0..64 * 256).for_each(&mut decide);
    let begin = thread_seconds();
    (0..ROUNDS).for_each(&mut decide);
    let each = (thread_seconds() - begin) * 1e6 / f64::from(ROUNDS);
    println!("deciding that a connection is turned away, without the socket: {each:.2} us");
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
