//! The attacker: one thread that connects, sends a hello and goes on to the next.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bowline::model::PublicKey;
use bowline::secure::mac1::mac1;
use bowline::wire::hello::{Offer, SessionOffer, checked, prologue};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that stay open until as many newer ones are there: the server has read them by then.
const HELD: usize = 256;

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Bytes of no form.
    Random,
    /// A hello whose keyed check is another server's.
    Unchecked,
    /// A hello whose keyed check is right, and whose Noise message is none.
    NoNoise,
}

impl Kind {
    const EACH: [Self; 3] = [Self::Random, Self::Unchecked, Self::NoNoise];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Unchecked => "unchecked",
            Self::NoNoise => "no-noise",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::EACH.into_iter().find(|kind| kind.name() == name)
    }

    fn bytes(self, server: &PublicKey) -> Vec<u8> {
        let noise: Vec<u8> = (0..96_u8).map(|at| at.wrapping_mul(151) ^ 0x5a).collect();
        let whole = |key: &PublicKey| {
            let mut bytes = checked(&prologue(&Offer::Session(SessionOffer::OURS)), &noise);
            bytes.extend(mac1(key, &bytes));
            bytes
        };
        match self {
            Self::Random => noise,
            Self::Unchecked => whole(&PublicKey([9; 32])),
            Self::NoNoise => whole(server),
        }
    }
}

/// Tells how many hellos it has sent.
pub(crate) fn attack(
    to: SocketAddr,
    server: &PublicKey,
    kind: Kind,
    (networks, rate): (u32, u64),
    length: Duration,
) -> u64 {
    let bytes = kind.bytes(server);
    let mut held = VecDeque::with_capacity(HELD + 1);
    let (begin, mut made) = (Instant::now(), 0_u64);
    while begin.elapsed() < length {
        let due = begin + Duration::from_nanos(made.saturating_mul(1_000_000_000) / rate);
        let ahead = due.saturating_duration_since(Instant::now());
        if ahead > Duration::from_millis(1) {
            std::thread::sleep(ahead);
        }
        let number = u32::try_from(made % u64::from(networks)).unwrap();
        if let Ok(stream) = hello(number, to, &bytes) {
            held.push_back(stream);
        }
        made += 1;
        if held.len() > HELD {
            held.pop_front();
        }
    }
    made
}

/// From a /24 of its own.
fn hello(network: u32, to: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let [low, high, ..] = network.to_le_bytes();
    // Without it each connection would keep a port for a minute.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 1 + high, low, 1), 0)).into())?;
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    // One that is closed already has been refused.
    drop(stream.write_all(bytes));
    Ok(stream)
}
