//! The first flight of a connection in the hands of somebody who can change it: whatever is changed, no handshake comes
//! of it, so that nothing that was offered or chosen can be lowered on the way. What the four demands on protection
//! make of an unchanged one stands in `tests/session/protection.rs`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]
#![allow(dead_code, reason = "the seed has more than is used here")]

use bowline::model::{AttemptNonce, ChannelKind, ChannelNumber, Locator, Protection, SessionId, Suite};
use bowline::secure::{
    BindInitiator, BindResponder, EnrolResponder, Identity, SessionInitiator, SessionResponder, mac1,
};
use bowline::wire::control::BindSecret;
use bowline::wire::hello::{
    self, BindChoice, BindOffer, Hello, MAC1_LEN, Offer, SessionChoice, SessionOffer,
};
use seed::Seed;

#[path = "support/pair/seed.rs"]
mod seed;

const SESSION: SessionId = SessionId([0x51; 16]);
const OFFER: BindOffer = BindOffer {
    locator: Locator([0x10; 16]),
    number: ChannelNumber(3),
    nonce: AttemptNonce([0x20; 16]),
    kind: ChannelKind::Data,
    protection: Protection::Signed,
    suite: Suite::ChaCha20Poly1305,
};

/// Both ends of each handshake, always the same.
struct Ends {
    client: Identity,
    server: Identity,
    secret: BindSecret,
}

impl Ends {
    fn new() -> Self {
        let identity = |seed| Identity::generate(&mut Seed::new(seed, 1)).unwrap();
        Self { client: identity(1), server: identity(2), secret: BindSecret([0x77; 32]) }
    }

    fn begin_session(&self) -> (SessionInitiator, Vec<u8>) {
        let (server, entropy) = (self.server.public(), &mut Seed::new(3, 1));
        SessionInitiator::begin(&self.client, &server, SessionOffer::OURS, entropy).unwrap()
    }

    fn begin_bind(&self) -> (BindInitiator, Vec<u8>) {
        let (server, entropy) = (self.server.public(), &mut Seed::new(4, 1));
        BindInitiator::begin(&self.client, &server, &self.secret, SESSION, OFFER, entropy).unwrap()
    }

    /// What the server does with a hello, up to its answer; `None`: it closes the connection.
    fn answer(&self, hello: &[u8]) -> Option<Vec<u8>> {
        let hello = Hello::decode(hello).ok().filter(|hello| mac1::verify(&self.server.public(), hello))?;
        let entropy = &mut Seed::new(5, 1);
        let answer = match hello.offer {
            Offer::Session(_) => {
                let choice = SessionChoice { version: 1, session: SESSION };
                SessionResponder::read(&self.server, &hello, entropy).ok()?.finish(choice).ok()?.0
            }
            Offer::Enrol(offer) => {
                let choice = offer.choice()?;
                EnrolResponder::read(&self.server, &hello, entropy).ok()?.finish(choice).ok()?
            }
            Offer::Bind(offer) => {
                let client = self.client.public();
                let responder =
                    BindResponder::read(&self.server, &client, &self.secret, SESSION, &hello, entropy)
                        .ok()?;
                let choice = BindChoice { protection: offer.protection, suite: offer.suite };
                responder.finish(choice).ok()?.0
            }
        };
        Some(answer)
    }

    /// The keyed check is over public things: whoever changes a hello can make a new one.
    fn with_new_check(&self, hello: &[u8]) -> Vec<u8> {
        let checked = &hello[..hello.len() - MAC1_LEN];
        [checked, &mac1::mac1(&self.server.public(), checked)].concat()
    }
}

/// Message 2 as the client's reader takes it from the stream: as many bytes as are stated, if there are as many.
fn unframed(answer: &[u8]) -> Option<&[u8]> {
    let (len, rest) = answer.split_first_chunk::<2>()?;
    rest.get(..hello::part_len(*len).ok()?)
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    changed
}

#[test]
fn t06_each_bit_of_the_first_flight_counts() {
    let ends = Ends::new();
    let mut cases = 0;
    for hello in [ends.begin_session().1, ends.begin_bind().1] {
        assert!(ends.answer(&hello).is_some(), "as it was sent it is answered");
        for bit in 0..hello.len() * 8 {
            let changed = flipped(&hello, bit);
            assert_eq!(ends.answer(&changed), None, "bit {bit} of a hello");
            cases += 1;
            if bit / 8 < hello.len() - MAC1_LEN {
                assert_eq!(ends.answer(&ends.with_new_check(&changed)), None, "bit {bit}, with a new check");
                cases += 1;
            }
        }
    }
    let finish_session = |message2: &[u8]| ends.begin_session().0.finish(message2).is_ok();
    let finish_bind = |message2: &[u8]| ends.begin_bind().0.finish(message2).is_ok();
    let session = ends.answer(&ends.begin_session().1).unwrap();
    let bind = ends.answer(&ends.begin_bind().1).unwrap();
    let finish = |is_bind: bool, answer: &[u8]| {
        let finish = |message2: &[u8]| if is_bind { finish_bind(message2) } else { finish_session(message2) };
        unframed(answer).is_some_and(finish)
    };
    for (is_bind, answer) in [(false, session), (true, bind)] {
        assert!(finish(is_bind, &answer), "as it was sent it ends the handshake");
        for bit in 0..answer.len() * 8 {
            // With what a stream could bring behind it, for a length that was made greater.
            let changed = [flipped(&answer, bit), vec![0; 1024]].concat();
            assert!(!finish(is_bind, &changed), "bit {bit} of message 2");
            cases += 1;
        }
    }
    println!("{cases} changed first flights, and no handshake");
    assert!(cases >= 4_000, "{cases}");
}

/// Not only bits: every other thing that could have been offered, well-formed and with a good check.
#[test]
fn t06_nothing_that_is_offered_can_be_replaced() {
    let ends = Ends::new();
    let versions = [(0, 1), (1, 2), (1, u16::MAX), (0, 0), (2, 2)];
    let sessions = versions.map(|(version_min, version_max)| SessionOffer { version_min, version_max });
    let weaker = BindOffer { protection: Protection::Clear, ..OFFER };
    let binds = [
        weaker,
        BindOffer { protection: Protection::Sealed, ..OFFER },
        BindOffer { kind: ChannelKind::Control, ..OFFER },
        BindOffer { kind: ChannelKind::Control, protection: Protection::Sealed, ..OFFER },
        BindOffer { number: ChannelNumber(4), ..OFFER },
        BindOffer { nonce: AttemptNonce([0x21; 16]), ..OFFER },
        BindOffer { locator: Locator([0x11; 16]), ..OFFER },
    ];
    let suites = Suite::EACH.iter().filter(|suite| **suite != OFFER.suite);
    let suites = suites.map(|suite| Offer::Bind(BindOffer { suite: *suite, ..OFFER }));
    let (session, bind) = (ends.begin_session().1, ends.begin_bind().1);
    let replaced = sessions.map(Offer::Session).into_iter().chain(binds.map(Offer::Bind)).chain(suites);
    for offer in replaced {
        // Under each of both handshakes' own message 1.
        for hello in [&session, &bind] {
            let noise = Hello::decode(hello).unwrap().noise;
            let changed = hello::checked(&hello::prologue(&offer), &noise);
            let changed = ends.with_new_check(&[&changed[..], &[0; MAC1_LEN]].concat());
            assert!(Hello::decode(&changed).is_ok(), "{offer:?} is well-formed");
            assert_eq!(ends.answer(&changed), None, "{offer:?}");
        }
    }
}

/// One handshake's answer is of no use in another one, however alike they are.
#[test]
fn t06_an_answer_belongs_to_its_own_hello() {
    let ends = Ends::new();
    let server = ends.server.public();
    let begin = |seed: u64, offer| {
        let entropy = &mut Seed::new(seed, 1);
        BindInitiator::begin(&ends.client, &server, &ends.secret, SESSION, offer, entropy).unwrap()
    };
    let stronger = BindOffer { protection: Protection::Sealed, ..OFFER };
    let (_, weak_hello) = begin(4, OFFER);
    let weak_answer = ends.answer(&weak_hello).unwrap();
    for (other, _) in [begin(6, OFFER), begin(4, stronger)] {
        assert!(other.finish(unframed(&weak_answer).unwrap()).is_err());
    }
    assert!(ends.begin_session().0.finish(unframed(&weak_answer).unwrap()).is_err());
}
