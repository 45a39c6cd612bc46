//! Somebody on the wire who changes a bit of a first flight, between the library and a server on real sockets: of the
//! hello or of the answer, of each handshake, with the hello's check made anew where that helps. Nothing comes of it but
//! an attempt that fails, and the next one does not. Each bit that there is has its turn in `policy`, without a network.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test"
)]

mod support;

use std::time::Duration;

use bowline::client::{ChannelState, Client, Error, LineConfig, OpenOptions, Peer, Session, server_key};
use bowline::model::{ChannelKind, Limits, PublicKey};
use bowline::net::Via;
use bowline::secure::mac1::NO_KEY;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use support::tamperer::{Flight, Handshake, Tamperer};
use support::{EXPORT, LINE_1, LINE_2, LONG, Searched, new_identity};
use tempfile::TempDir;

/// A server in this process, and two lines to it that somebody sits on.
struct Scene {
    server: Server,
    key: PublicKey,
    lines: [Tamperer; 2],
    client: Client,
    _folder: TempDir,
    _searched: Searched,
}

/// The lengths of a first flight's parts, as protocol.md has them.
struct Lengths {
    offer: usize,
    noise: usize,
    answer: usize,
}

const CHECK_LEN: usize = 16;
const SESSION: Lengths = Lengths { offer: 4, noise: 96, answer: 2 + 32 + 18 + 16 };
const BIND: Lengths = Lengths { offer: 48, noise: 48, answer: 2 + 32 + 8 + 16 };
const ENROLMENT: Lengths = Lengths { offer: 4, noise: 32, answer: 2 + 32 + 48 + 2 + 16 };

impl Lengths {
    /// A bit of every third byte, but of no length: who reads one too long waits for more, which is tried by itself.
    fn flights(&self, handshake: Handshake, key: PublicKey) -> Vec<Flight> {
        let Self { offer, noise, answer } = *self;
        let checked = 8 + offer + 2 + noise;
        let is_len = |at: &usize| [6, 7, 8 + offer, 9 + offer].contains(at);
        let bit = |at: usize| at * 8 + at % 8;
        let up = |at, check| Flight { handshake, is_up: true, bit: bit(at), check };
        let as_it_was = (0..checked + CHECK_LEN).step_by(3).filter(|at| !is_len(at)).map(|at| up(at, None));
        let made_anew = (0..checked).step_by(3).filter(|at| !is_len(at)).map(|at| up(at, Some(key)));
        let down =
            (2..answer).step_by(3).map(|at| Flight { handshake, is_up: false, bit: bit(at), check: None });
        as_it_was.chain(made_anew).chain(down).collect()
    }
}

/// A hello of this handshake that becomes one of another pattern, with the check that such a one has.
fn of_another_pattern(handshake: Handshake, bit: usize, key: PublicKey) -> Flight {
    Flight { handshake, is_up: true, bit: 5 * 8 + bit, check: Some(key) }
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "content").unwrap();
        let (server, identity) = (new_identity(), new_identity());
        let (key, searched) = (server.public(), Searched::new([&server, &identity]));
        let list =
            format!("[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"{EXPORT}\"]\n", identity.public());
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let mut config = ServerConfig::new(server, exports, parse_clients(&list).unwrap());
        config.listen = [LINE_1, LINE_2].map(|line| (line, 0).into()).to_vec();
        // Attempts that fail are paid for, and here there are many.
        config.limits.handshake_burst = 1_000_000;
        (config.limits.enrol_burst, config.limits.enrol_burst_per_network) = (1_000_000, 1_000_000);
        let server = Server::start(config).unwrap();
        let addresses = server.addresses().to_vec();
        let lines =
            [Tamperer::start(LINE_1, addresses[0]).await, Tamperer::start(LINE_2, addresses[1]).await];
        let client = Client::new(identity).unwrap();
        Self { server, key, lines, client, _folder: folder, _searched: searched }
    }

    /// The server over the first so many lines.
    fn peer(&self, lines: usize) -> Peer {
        let lines = self.lines.iter().zip([LINE_1, LINE_2]).take(lines).map(|(line, from)| LineConfig {
            via: Some(Via::Address(from)),
            ..LineConfig::new(line.address())
        });
        Peer { name: "server".into(), key: self.key, protection_min: None, lines: lines.collect() }
    }

    /// How many connections have been believed so far.
    fn proven(&self) -> u64 {
        self.server.gate().counts.proven
    }

    /// How many first flights have been changed so far.
    fn hits(&self) -> usize {
        self.lines.iter().map(Tamperer::hits).sum()
    }

    async fn end(self) {
        tokio::time::timeout(LONG, self.server.stop()).await.unwrap();
    }
}

/// The session can be used, and ends.
async fn is_whole(session: Session) {
    let file = session.open(EXPORT, "file", &OpenOptions::new().read(true)).await.unwrap();
    assert_eq!(file.read_chunk(0, 100).await.unwrap()[..], *b"content");
    file.close().await.unwrap();
    session.close().await;
}

/// Waits until `session` has so many channels.
async fn until_live(session: &Session, wanted: usize) {
    let live = || session.channels().iter().filter(|status| status.state == ChannelState::Live).count();
    let mut events = session.events();
    while live() < wanted {
        tokio::time::timeout(LONG, events.recv()).await.expect("the channels come").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_a_changed_bit_in_a_session_s_first_flight_begins_none_and_the_next_attempt_does() {
    let scene = Scene::new().await;
    let mut flights = SESSION.flights(Handshake::Session, scene.key);
    flights.push(of_another_pattern(Handshake::Session, 1, NO_KEY));
    for flight in flights {
        let (hits, proven) = (scene.lines[0].hits(), scene.proven());
        scene.lines[0].arm_flight(flight);
        let error = scene.client.connect(&scene.peer(1)).await.unwrap_err();
        assert_eq!((scene.lines[0].hits(), scene.proven()), (hits + 1, proven), "{flight:?}");
        let is_refused = matches!(error, Error::HandshakeRefused { .. });
        let is_wrong = matches!(error, Error::ServerKeyChanged { .. });
        assert!(if flight.is_up { is_refused } else { is_wrong }, "{flight:?}: {error}");
        is_whole(scene.client.connect(&scene.peer(1)).await.unwrap()).await;
    }
    // And where there is another line, one attempt is enough.
    scene.lines[0].arm_flight(Flight { handshake: Handshake::Session, is_up: true, bit: 500, check: None });
    let hits = scene.lines[0].hits();
    is_whole(scene.client.connect(&scene.peer(2)).await.unwrap()).await;
    assert_eq!(scene.lines[0].hits(), hits + 1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_a_changed_bit_in_a_channel_s_first_flight_binds_none_and_the_next_attempt_does() {
    let scene = Scene::new().await;
    for kind in [ChannelKind::Data, ChannelKind::Control] {
        let mut flights = BIND.flights(Handshake::Bind(kind), scene.key);
        flights.push(of_another_pattern(Handshake::Bind(kind), 0, NO_KEY));
        for flight in flights {
            let (hits, before) = (scene.hits(), scene.server.gate().counts);
            // The control channel that is bound is on the line on which the session did not begin.
            let armed = if kind == ChannelKind::Control { &scene.lines[..] } else { &scene.lines[1..] };
            armed.iter().for_each(|line| line.arm_flight(flight));
            let session = scene.client.connect(&scene.peer(2)).await.unwrap();
            let id = session.id();
            until_live(&session, 4).await;
            scene.lines.iter().for_each(Tamperer::disarm);
            assert_eq!(scene.hits(), hits + 1, "{flight:?}");
            let counts = scene.server.gate().counts;
            assert_eq!(counts.proven, before.proven + 4, "{flight:?}: each channel was believed once");
            assert!(counts.admitted > before.admitted + 4, "{flight:?}: one attempt more");
            assert_eq!(session.id(), id);
            is_whole(session).await;
        }
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_a_changed_bit_in_an_enrolment_shows_no_key_and_the_next_attempt_does() {
    let scene = Scene::new().await;
    let address = scene.lines[0].address();
    let mut flights = ENROLMENT.flights(Handshake::Enrolment, NO_KEY);
    flights.push(of_another_pattern(Handshake::Enrolment, 1, scene.key));
    flights.push(of_another_pattern(Handshake::Enrolment, 0, scene.key));
    for flight in flights {
        let hits = scene.lines[0].hits();
        scene.lines[0].arm_flight(flight);
        let error = server_key(address, None, LONG).await.unwrap_err();
        assert_eq!(scene.lines[0].hits(), hits + 1, "{flight:?}");
        assert!(matches!(error, Error::KeyNotShown { .. } | Error::Protocol), "{flight:?}: {error}");
        assert_eq!(server_key(address, None, LONG).await.unwrap(), scene.key);
    }
    assert_eq!(scene.proven(), 0);
    scene.end().await;
}

/// Who waits for more than comes does not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn t06_an_answer_that_seems_longer_than_it_is_is_waited_for_as_long_as_a_handshake_may_take() {
    let scene = Scene::new().await;
    let mut limits = Limits::default();
    limits.handshake = Duration::from_millis(300);
    let hasty = scene.client.clone().with_limits(limits);
    let proven = scene.proven();
    scene.lines[0].arm_flight(Flight { handshake: Handshake::Session, is_up: false, bit: 0, check: None });
    let error = hasty.connect(&scene.peer(1)).await.unwrap_err();
    assert!(matches!(error, Error::HandshakeTimedOut { .. }), "{error}");
    assert_eq!((scene.lines[0].hits(), scene.proven()), (1, proven));
    is_whole(scene.client.connect(&scene.peer(1)).await.unwrap()).await;
    scene.end().await;
}
