//! Enrolment from end to end, every way to change it, and what it leaves behind: nothing.

use super::super::mac1::{mac1, verify};
use super::super::noise::testing::{Seeded, low_order};
use super::super::{SessionInitiator, SessionResponder};
use super::*;
use crate::wire::hello::{MAC1_LEN, PROTOCOL_VERSION, SessionOffer};

const CHOICE: EnrolChoice = EnrolChoice { version: PROTOCOL_VERSION };
/// Length of the public ephemeral key at the start of both messages.
const KEY_LEN: usize = 32;

fn server() -> Identity {
    Identity::generate(&mut Seeded::new(2)).unwrap()
}

fn begin() -> (EnrolInitiator, Vec<u8>) {
    EnrolInitiator::begin(EnrolOffer::OURS, &mut Seeded::new(4)).unwrap()
}

fn read(hello: &[u8]) -> Result<EnrolResponder, HandshakeError> {
    EnrolResponder::read(&server(), &Hello::decode(hello).unwrap(), &mut Seeded::new(5))
}

/// What the server answers to this hello, without the length.
fn answer(hello: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let message2 = read(hello)?.finish(CHOICE)?;
    let (len, noise) = message2.split_first_chunk::<2>().unwrap();
    assert_eq!(usize::from(u16::from_le_bytes(*len)), noise.len());
    Ok(noise.to_vec())
}

#[test]
fn a_client_learns_the_key_and_the_server_nothing() {
    let (initiator, hello) = begin();
    let parsed = Hello::decode(&hello).unwrap();
    assert!(verify(&server().public(), &parsed));
    assert_eq!(parsed.noise.len(), KEY_LEN, "an ephemeral key and nothing more");
    assert_eq!(read(&hello).unwrap().offer(), EnrolOffer::OURS);
    let message2 = answer(&hello).unwrap();
    assert_eq!(initiator.finish(&message2), Ok(server().public()));
    // The key is not readable on the way.
    assert!(!message2.windows(KEY_LEN).any(|bytes| bytes == server().public().0));
}

#[test]
fn every_changed_bit_is_refused() {
    let (_, hello) = begin();
    let message2 = answer(&hello).unwrap();
    for bit in 0..message2.len() * 8 {
        let mut changed = message2.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // X25519 ignores the highest bit of a point, and the transcript does not.
        let refused = begin().0.finish(&changed);
        assert!(matches!(refused, Err(HandshakeError::Peer(_))), "bit {bit}: {refused:?}");
    }
    for len in 0..message2.len() {
        assert!(begin().0.finish(&message2[..len]).is_err(), "cut to {len}");
    }
    assert!(begin().0.finish(&[&message2[..], &[0]].concat()).is_err());
    // The same for what the client sends: its offer and its ephemeral key are in the transcript. The check at the end
    // is made again, as everybody can.
    let checked_len = hello.len() - MAC1_LEN;
    for bit in 0..checked_len * 8 {
        let mut changed = hello[..checked_len].to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let whole = [&changed[..], &mac1(&NO_KEY, &changed)].concat();
        let Ok(parsed) = Hello::decode(&whole) else { continue };
        let Ok(responder) = EnrolResponder::read(&server(), &parsed, &mut Seeded::new(5)) else { continue };
        let Ok(answered) = responder.finish(CHOICE) else { continue };
        let refused = begin().0.finish(&answered[2..]);
        assert!(matches!(refused, Err(HandshakeError::Peer(_))), "bit {bit}: {refused:?}");
    }
}

#[test]
fn an_answer_fits_one_question() {
    let (_, hello) = begin();
    let other = EnrolInitiator::begin(EnrolOffer::OURS, &mut Seeded::new(6)).unwrap().0;
    assert!(matches!(other.finish(&answer(&hello).unwrap()), Err(HandshakeError::Peer(_))));
}

#[test]
fn only_what_was_offered_is_chosen() {
    let wrong = EnrolChoice { version: PROTOCOL_VERSION + 1 };
    let (initiator, hello) = begin();
    assert_eq!(read(&hello).unwrap().finish(wrong), Err(HandshakeError::Unoffered));
    // And a server that does not care is not believed.
    let mut careless = read(&hello).unwrap();
    let message2 = write_choice(&mut careless.state, &wrong).unwrap();
    assert_eq!(initiator.finish(&message2[2..]), Err(HandshakeError::Unoffered));
    let mut empty = read(&hello).unwrap();
    let message2 = noise::write(&mut empty.state, &[]).unwrap();
    assert!(matches!(begin().0.finish(&message2), Err(HandshakeError::Choice(_))));
}

#[test]
fn weak_ephemeral_keys_are_refused_by_both() {
    let (_, hello) = begin();
    let at = hello.len() - MAC1_LEN - KEY_LEN;
    for key in low_order() {
        let mut checked = hello[..hello.len() - MAC1_LEN].to_vec();
        checked[at..].copy_from_slice(&key);
        let whole = [&checked[..], &mac1(&NO_KEY, &checked)].concat();
        assert_eq!(answer(&whole), Err(HandshakeError::WeakKey), "{key:x?}");
        let mut message2 = answer(&hello).unwrap();
        message2[..KEY_LEN].copy_from_slice(&key);
        assert_eq!(begin().0.finish(&message2), Err(HandshakeError::WeakKey), "{key:x?}");
    }
}

#[test]
fn no_handshake_is_taken_for_another() {
    let client = Identity::generate(&mut Seeded::new(1)).unwrap();
    let (session, session_hello) =
        SessionInitiator::begin(&client, &server().public(), SessionOffer::OURS, &mut Seeded::new(4))
            .unwrap();
    assert_eq!(read(&session_hello).map(|_| ()), Err(HandshakeError::OtherPattern));
    let (_, hello) = begin();
    let parsed = Hello::decode(&hello).unwrap();
    let read_as_session = SessionResponder::read(&server(), &parsed, &mut Seeded::new(5));
    assert_eq!(read_as_session.map(|_| ()), Err(HandshakeError::OtherPattern));
    // A client that wanted a session does not take the key instead.
    let outcome = session.finish(&answer(&hello).unwrap()).map(|_| ());
    assert!(matches!(outcome, Err(HandshakeError::Peer(_))), "{outcome:?}");
}

#[test]
fn a_payload_in_message_1_is_refused() {
    let prologue = hello::prologue(&Offer::Enrol(EnrolOffer::OURS));
    let nobody = server();
    let mut state = setup(&prologue, &nobody).initiator(&mut Seeded::new(4)).unwrap();
    let noise = noise::write(&mut state, b"x").unwrap();
    let refused = read(&whole_hello(&NO_KEY, &prologue, &noise)).map(|_| ());
    assert!(matches!(refused, Err(HandshakeError::Peer(_))), "{refused:?}");
}

#[test]
fn without_random_bytes_nothing_begins() {
    let begun = EnrolInitiator::begin(EnrolOffer::OURS, &mut Seeded::empty()).map(|_| ());
    assert!(matches!(begun, Err(HandshakeError::Entropy(_))));
    let hello = Hello::decode(&begin().1).unwrap();
    let read = EnrolResponder::read(&server(), &hello, &mut Seeded::empty()).map(|_| ());
    assert!(matches!(read, Err(HandshakeError::Entropy(_))));
}
