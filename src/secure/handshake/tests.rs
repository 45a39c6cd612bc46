//! Both handshakes from end to end, every way to change them, and what a listener can make of them.

use core::error::Error as _;

use blake2::{Blake2s256, Digest};

use super::super::keys::{DirectionKeys, Split, direction_keys};
use super::super::mac1::verify as verify_mac1;
use super::super::noise::testing::{Seeded, low_order};
use super::super::{EnrolResponder, Incoming, Opener, Payload, Sealer};
use super::*;
use crate::model::{AttemptNonce, HandleId, Locator, RequestId};
use crate::wire::data::{Read, ReadDone};
use crate::wire::hello::MAC1_LEN;
use crate::wire::{ClientData, Message, ServerData};

mod impersonation;
mod stolen;

const SESSION_ID: SessionId = SessionId([0x51; 16]);
const CHOICE: SessionChoice = SessionChoice { version: 1, session: SESSION_ID };
const BIND_CHOICE: BindChoice = BindChoice { protection: Protection::Sealed, suite: Suite::ChaCha20Poly1305 };
const BIND_OFFER: BindOffer = BindOffer {
    locator: Locator([0x10; 16]),
    number: ChannelNumber(3),
    nonce: AttemptNonce([0x20; 16]),
    kind: ChannelKind::Data,
    protection: Protection::Signed,
    suite: Suite::ChaCha20Poly1305,
};

fn client() -> Identity {
    Identity::generate(&mut Seeded::new(1)).unwrap()
}

fn server() -> Identity {
    Identity::generate(&mut Seeded::new(2)).unwrap()
}

fn stranger() -> Identity {
    Identity::generate(&mut Seeded::new(3)).unwrap()
}

fn secret() -> BindSecret {
    BindSecret([0x77; 32])
}

fn begin_session() -> (SessionInitiator, Vec<u8>) {
    SessionInitiator::begin(&client(), &server().public(), SessionOffer::OURS, &mut Seeded::new(4)).unwrap()
}

fn read_session(hello: &[u8]) -> Result<SessionResponder, HandshakeError> {
    SessionResponder::read(&server(), &Hello::decode(hello).unwrap(), &mut Seeded::new(5))
}

fn begin_bind_with(offer: BindOffer) -> Result<(BindInitiator, Vec<u8>), HandshakeError> {
    BindInitiator::begin(&client(), &server().public(), &secret(), SESSION_ID, offer, &mut Seeded::new(6))
}

fn begin_bind() -> (BindInitiator, Vec<u8>) {
    begin_bind_with(BIND_OFFER).unwrap()
}

fn read_bind(hello: &[u8]) -> Result<BindResponder, HandshakeError> {
    let hello = Hello::decode(hello).unwrap();
    BindResponder::read(&server(), &client().public(), &secret(), SESSION_ID, &hello, &mut Seeded::new(7))
}

fn unframed(message2: &[u8]) -> &[u8] {
    let (len, noise) = message2.split_first_chunk::<2>().unwrap();
    assert_eq!(usize::from(u16::from_le_bytes(*len)), noise.len());
    noise
}

/// Whatever the keyed check covers, an attacker can compute it again: the server's key is public.
fn with_new_mac1(bytes: &[u8]) -> Vec<u8> {
    let checked = &bytes[..bytes.len() - MAC1_LEN];
    [checked, &mac1(&server().public(), checked)].concat()
}

fn record<M: Message>(keys: DirectionKeys, channel: ChannelNumber, message: &M) -> Vec<u8> {
    let mut sealer = Sealer::<M>::new(keys, channel, Protection::Sealed).unwrap();
    let mut out = Vec::new();
    sealer.seal(message, RequestId(1), RequestId(1), Payload::None, &mut out).unwrap();
    out
}

fn open<M: Message>(keys: DirectionKeys, channel: ChannelNumber, record: &[u8]) -> Option<Incoming<M>> {
    let mut opener = Opener::<M>::new(keys, channel, Protection::Sealed).unwrap();
    let (head_bytes, rest) = record.split_first_chunk().unwrap();
    let head = opener.read_head(head_bytes).ok()?;
    opener.open_body(&head, head_bytes, &mut rest.to_vec()).ok()
}

fn read_message() -> ClientData {
    Read { handle: HandleId(9), offset: 4096, len: 512 }.into()
}

fn done_message() -> ServerData {
    ReadDone {}.into()
}

fn assert_they_match(channel: ChannelNumber, client: RecordKeys, server: RecordKeys) {
    let up = record(client.send, channel, &read_message());
    let down = record(server.send, channel, &done_message());
    assert_eq!(open(server.receive, channel, &up), Some(Incoming::Message(read_message())));
    assert_eq!(open(client.receive, channel, &down), Some(Incoming::Message(done_message())));
}

#[test]
fn a_session_gives_both_ends_the_same_keys() {
    let (initiator, hello) = begin_session();
    assert!(verify_mac1(&server().public(), &Hello::decode(&hello).unwrap()));
    let responder = read_session(&hello).unwrap();
    assert_eq!((responder.client(), responder.offer()), (client().public(), SessionOffer::OURS));
    let (message2, server_keys) = responder.finish(CHOICE).unwrap();
    let (choice, client_keys) = initiator.finish(unframed(&message2)).unwrap();
    assert_eq!(choice, CHOICE);
    assert_they_match(ChannelNumber(0), client_keys, server_keys);
}

#[test]
fn a_bind_gives_both_ends_the_same_keys() {
    for protection in [Protection::Signed, Protection::Sealed] {
        let (initiator, hello) = begin_bind();
        assert!(verify_mac1(&server().public(), &Hello::decode(&hello).unwrap()));
        let responder = read_bind(&hello).unwrap();
        assert_eq!(responder.offer(), BIND_OFFER);
        let (message2, server_keys) = responder.finish(BindChoice { protection, ..BIND_CHOICE }).unwrap();
        let (choice, client_keys) = initiator.finish(unframed(&message2)).unwrap();
        assert_eq!(choice.protection, protection);
        assert_they_match(BIND_OFFER.number, client_keys, server_keys);
    }
}

#[test]
fn equal_random_bytes_give_equal_handshakes_and_others_give_others() {
    let hello = begin_session().1;
    assert_eq!(hello, begin_session().1);
    let again =
        SessionInitiator::begin(&client(), &server().public(), SessionOffer::OURS, &mut Seeded::new(8));
    assert_ne!(hello, again.unwrap().1);
    let message2 = |seed| {
        let hello = Hello::decode(&hello).unwrap();
        SessionResponder::read(&server(), &hello, &mut Seeded::new(seed)).unwrap().finish(CHOICE).unwrap().0
    };
    assert_eq!(message2(5), message2(5));
    assert_ne!(message2(5), message2(9));
    assert_eq!(begin_bind().1, begin_bind().1);
}

#[test]
fn every_bit_of_a_hello_counts() {
    for (hello, bind) in [(begin_session().1, false), (begin_bind().1, true)] {
        for bit in 0..hello.len() * 8 {
            let mut changed = hello.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(changed) = Hello::decode(&changed) {
                assert!(!verify_mac1(&server().public(), &changed), "bit {bit} of hello {bind}");
            }
            if bit / 8 >= hello.len() - MAC1_LEN {
                continue;
            }
            let forged = with_new_mac1(&changed);
            let Ok(parsed) = Hello::decode(&forged) else { continue };
            if let Offer::Enrol(_) = parsed.offer {
                // A session's hello whose pattern was changed has the wrong check, and too much in it.
                assert!(!verify_mac1(&server().public(), &parsed));
                let outcome = EnrolResponder::read(&server(), &parsed, &mut Seeded::new(5)).map(|_| ());
                assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Input)));
                continue;
            }
            assert!(verify_mac1(&server().public(), &Hello::decode(&forged).unwrap()));
            let outcome =
                if bind { read_bind(&forged).map(|_| ()) } else { read_session(&forged).map(|_| ()) };
            assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Decrypt)), "bit {bit} of hello {bind}");
        }
    }
}

#[test]
fn every_bit_of_message_2_counts() {
    let whole = read_session(&begin_session().1).unwrap().finish(CHOICE).unwrap().0;
    let message2 = unframed(&whole);
    for bit in 0..message2.len() * 8 {
        let mut changed = message2.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let outcome = begin_session().0.finish(&changed).map(|(choice, _)| choice);
        assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Decrypt)), "bit {bit} of a session");
    }
    let whole = read_bind(&begin_bind().1).unwrap().finish(BIND_CHOICE).unwrap().0;
    let message2 = unframed(&whole);
    for bit in 0..message2.len() * 8 {
        let mut changed = message2.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let outcome = begin_bind().0.finish(&changed).map(|(choice, _)| choice);
        assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Decrypt)), "bit {bit} of a bind");
    }
}

#[test]
fn cut_and_long_messages_are_refused() {
    let (_, hello) = begin_session();
    let noise = Hello::decode(&hello).unwrap().noise;
    let message2 = read_session(&hello).unwrap().finish(CHOICE).unwrap().0;
    let cut_or_long = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let longer = [bytes, b"x"].concat();
        (0..bytes.len()).map(|len| bytes[..len].to_vec()).chain([longer]).collect()
    };
    for noise in cut_or_long(&noise) {
        let hello = Hello { noise, ..Hello::decode(&hello).unwrap() };
        let outcome = SessionResponder::read(&server(), &hello, &mut Seeded::new(5)).map(|_| ());
        assert!(matches!(outcome, Err(HandshakeError::Peer(_))), "{outcome:?}");
    }
    for message2 in cut_or_long(unframed(&message2)) {
        let outcome = begin_session().0.finish(&message2).map(|_| ());
        assert!(matches!(outcome, Err(HandshakeError::Peer(_))), "{outcome:?}");
    }
}

#[test]
fn a_hello_for_another_server_is_refused() {
    let (_, hello) =
        SessionInitiator::begin(&client(), &stranger().public(), SessionOffer::OURS, &mut Seeded::new(4))
            .unwrap();
    assert!(!verify_mac1(&server().public(), &Hello::decode(&hello).unwrap()));
    assert_eq!(read_session(&hello).map(|_| ()), Err(HandshakeError::Peer(snow::Error::Decrypt)));
}

#[test]
fn a_server_with_another_key_cannot_answer() {
    let (initiator, hello) = begin_session();
    let other = SessionResponder::read(&stranger(), &Hello::decode(&hello).unwrap(), &mut Seeded::new(5));
    assert_eq!(other.map(|_| ()), Err(HandshakeError::Peer(snow::Error::Decrypt)));
    let foreign =
        SessionInitiator::begin(&client(), &stranger().public(), SessionOffer::OURS, &mut Seeded::new(4))
            .unwrap()
            .1;
    let foreign = SessionResponder::read(&stranger(), &Hello::decode(&foreign).unwrap(), &mut Seeded::new(5));
    let message2 = foreign.unwrap().finish(CHOICE).unwrap().0;
    let outcome = initiator.finish(unframed(&message2)).map(|_| ());
    assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Decrypt)));
}

#[test]
fn all_ways_to_fail_a_bind_look_alike() {
    let hello = Hello::decode(&begin_bind().1).unwrap();
    let read = |identity: &Identity, client: PublicKey, secret: [u8; 32], session: u8, hello: &Hello| {
        let session = SessionId([session; 16]);
        BindResponder::read(identity, &client, &BindSecret(secret), session, hello, &mut Seeded::new(7))
            .map(|_| ())
    };
    let number = Offer::Bind(BindOffer { number: ChannelNumber(4), ..BIND_OFFER });
    let other_number = Hello { offer: number, ..hello.clone() };
    let right = client().public();
    assert_eq!(read(&server(), right, [0x77; 32], 0x51, &hello), Ok(()));
    let failures = [
        read(&stranger(), right, [0x77; 32], 0x51, &hello),
        read(&server(), stranger().public(), [0x77; 32], 0x51, &hello),
        read(&server(), right, [0x78; 32], 0x51, &hello),
        read(&server(), right, [0x77; 32], 0x52, &hello),
        read(&server(), right, [0x77; 32], 0x51, &other_number),
        BindResponder::decoy(&server(), &hello, &mut Seeded::new(7)).map(|_| ()),
    ];
    for failure in failures {
        assert_eq!(failure, Err(HandshakeError::Peer(snow::Error::Decrypt)));
    }
}

#[test]
fn a_decoy_fails_like_a_wrong_secret_on_bad_messages_too() {
    let hello = Hello::decode(&begin_bind().1).unwrap();
    let mut messages = vec![Vec::new(), hello.noise[..31].to_vec(), hello.noise[..40].to_vec()];
    messages.extend(low_order().into_iter().map(|key| [&key[..], &[0; 16]].concat()));
    for noise in messages {
        let hello = Hello { noise, ..hello.clone() };
        let wrong = BindResponder::read(
            &server(),
            &client().public(),
            &BindSecret([1; 32]),
            SESSION_ID,
            &hello,
            &mut Seeded::new(7),
        );
        let decoy = BindResponder::decoy(&server(), &hello, &mut Seeded::new(7));
        assert_eq!(wrong.map(|_| ()), decoy.map(|_| ()));
    }
}

#[test]
fn a_client_with_another_key_cannot_bind() {
    let hello = BindInitiator::begin(
        &stranger(),
        &server().public(),
        &secret(),
        SESSION_ID,
        BIND_OFFER,
        &mut Seeded::new(6),
    );
    let outcome = read_bind(&hello.unwrap().1).map(|_| ());
    assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Decrypt)));
}

#[test]
fn a_hello_is_read_for_its_own_handshake_only() {
    let (session, bind) = (begin_session().1, begin_bind().1);
    assert_eq!(read_session(&bind).map(|_| ()), Err(HandshakeError::OtherPattern));
    assert_eq!(read_bind(&session).map(|_| ()), Err(HandshakeError::OtherPattern));
    let decoy = BindResponder::decoy(&server(), &Hello::decode(&session).unwrap(), &mut Seeded::new(7));
    assert_eq!(decoy.map(|_| ()), Err(HandshakeError::OtherPattern));
}

#[test]
fn versions_outside_the_offer_are_refused_by_both_ends() {
    for version in [0, 2, u16::MAX] {
        let choice = SessionChoice { version, ..CHOICE };
        let (initiator, hello) = begin_session();
        let outcome = read_session(&hello).unwrap().finish(choice).map(|_| ());
        assert_eq!(outcome, Err(HandshakeError::Unoffered));
        let mut responder = read_session(&hello).unwrap();
        let message2 = write_choice(&mut responder.state, &choice).unwrap();
        let outcome = initiator.finish(unframed(&message2)).map(|_| ());
        assert_eq!(outcome, Err(HandshakeError::OtherVersion(version)));
        // What a server says that has no such version: the same, and there are no keys at either end.
        let (initiator, hello) = begin_session();
        let message2 = read_session(&hello).unwrap().decline(version).unwrap();
        let outcome = initiator.finish(unframed(&message2)).map(|_| ());
        assert_eq!(outcome, Err(HandshakeError::OtherVersion(version)));
    }
}

#[test]
fn a_weaker_choice_is_refused_by_both_ends() {
    use ChannelKind::{Control, Data};
    use Protection::{Clear, Sealed, Signed};
    let cases = [
        (Data, Sealed, Signed, false),
        (Data, Sealed, Clear, false),
        (Data, Signed, Clear, false),
        (Control, Sealed, Signed, false),
        (Control, Sealed, Clear, false),
        (Data, Clear, Clear, true),
        (Data, Clear, Signed, true),
        (Data, Signed, Signed, true),
        (Data, Signed, Sealed, true),
        (Control, Sealed, Sealed, true),
    ];
    for (kind, offered, chosen, good) in cases {
        let choice = BindChoice { protection: chosen, ..BIND_CHOICE };
        let offer = BindOffer { kind, protection: offered, ..BIND_OFFER };
        let (initiator, hello) = begin_bind_with(offer).unwrap();
        let finished = read_bind(&hello).unwrap().finish(choice).map(|_| ());
        let mut responder = read_bind(&hello).unwrap();
        let message2 = write_choice(&mut responder.state, &choice).unwrap();
        let accepted = initiator.finish(unframed(&message2)).map(|_| ());
        let expected = if good { Ok(()) } else { Err(HandshakeError::Unoffered) };
        assert_eq!((&finished, &accepted), (&expected, &expected), "{kind} {offered} {chosen}");
    }
}

#[test]
fn another_suite_than_the_offered_one_and_a_second_one_of_a_control_channel_are_refused_by_both_ends() {
    use Suite::{Aegis128X2, ChaCha20Poly1305};
    let cases = [
        (ChannelKind::Data, Aegis128X2, Aegis128X2, true),
        (ChannelKind::Data, Aegis128X2, ChaCha20Poly1305, false),
        (ChannelKind::Data, ChaCha20Poly1305, Aegis128X2, false),
        (ChannelKind::Control, Aegis128X2, Aegis128X2, false),
        (ChannelKind::Control, ChaCha20Poly1305, Aegis128X2, false),
    ];
    for (kind, offered, chosen, good) in cases {
        let choice = BindChoice { suite: chosen, protection: Protection::Sealed };
        let offer = BindOffer { kind, suite: offered, protection: Protection::Sealed, ..BIND_OFFER };
        let (initiator, hello) = begin_bind_with(offer).unwrap();
        let finished = read_bind(&hello).unwrap().finish(choice).map(|_| ());
        let mut responder = read_bind(&hello).unwrap();
        let message2 = write_choice(&mut responder.state, &choice).unwrap();
        let accepted = initiator.finish(unframed(&message2)).map(|_| ());
        let expected = if good { Ok(()) } else { Err(HandshakeError::Unoffered) };
        assert_eq!((&finished, &accepted), (&expected, &expected), "{kind} {offered} {chosen}");
    }
}

#[test]
fn impossible_protections_are_not_offered() {
    for (kind, protection) in
        [(ChannelKind::Control, Protection::Signed), (ChannelKind::Control, Protection::Clear)]
    {
        let outcome = begin_bind_with(BindOffer { kind, protection, ..BIND_OFFER }).map(|_| ());
        assert_eq!(outcome, Err(HandshakeError::Protection { kind, protection }));
    }
}

#[test]
fn a_choice_that_does_not_decode_is_refused() {
    for payload in [&b""[..], b"short", &[0xff; 40]] {
        let (initiator, hello) = begin_bind();
        let mut responder = read_bind(&hello).unwrap();
        let message2 = noise::write(&mut responder.state, payload).unwrap();
        let outcome = initiator.finish(&message2).map(|_| ());
        assert!(matches!(outcome, Err(HandshakeError::Choice(_))), "{outcome:?}");
    }
}

#[test]
fn a_payload_in_message_1_is_refused() {
    let prologue = hello::prologue(&Offer::Session(SessionOffer::OURS));
    let (client, server) = (client(), server().public());
    let mut state = session_setup(&prologue, &client, Some(&server)).initiator(&mut Seeded::new(4)).unwrap();
    let noise = noise::write(&mut state, b"early").unwrap();
    let outcome = read_session(&whole_hello(&server, &prologue, &noise)).map(|_| ());
    assert_eq!(outcome, Err(HandshakeError::Peer(snow::Error::Input)));
}

#[test]
fn public_keys_of_low_order_are_refused_everywhere() {
    let hello = begin_session().1;
    let message2 = read_session(&hello).unwrap().finish(CHOICE).unwrap().0;
    for key in low_order() {
        let weak = PublicKey(key);
        let begun = SessionInitiator::begin(&client(), &weak, SessionOffer::OURS, &mut Seeded::new(4));
        assert_eq!(begun.map(|_| ()), Err(HandshakeError::WeakKey), "the server's static key");
        let mut forged = Hello::decode(&hello).unwrap();
        forged.noise[..32].copy_from_slice(&key);
        let read = SessionResponder::read(&server(), &forged, &mut Seeded::new(5)).map(|_| ());
        assert_eq!(read, Err(HandshakeError::WeakKey), "the client's ephemeral key");
        let mut forged = unframed(&message2).to_vec();
        forged[..32].copy_from_slice(&key);
        let finished = begin_session().0.finish(&forged).map(|_| ());
        assert_eq!(finished, Err(HandshakeError::WeakKey), "the server's ephemeral key");
        let hello = Hello::decode(&begin_bind().1).unwrap();
        let bind = BindResponder::read(&server(), &weak, &secret(), SESSION_ID, &hello, &mut Seeded::new(7));
        assert_eq!(bind.map(|_| ()), Err(HandshakeError::WeakKey), "the client's static key");
    }
}

/// The static key of an `IK` client is encrypted, so a client that tells another spelling of its key, or one of low
/// order, is made here with a Diffie-Hellman that lies about its public key.
#[test]
fn a_client_has_one_name() {
    let mut alias = client().public();
    alias.0[31] |= 0x80;
    let hello = lying::hello(&client(), alias, &server().public());
    assert_eq!(read_session(&hello).map(|_| ()), Err(HandshakeError::WeakKey));
    let honest = lying::hello(&client(), client().public(), &server().public());
    assert_eq!(read_session(&honest).map(|responder| responder.client()), Ok(client().public()));
    for key in low_order() {
        let hello = lying::hello(&client(), PublicKey(key), &server().public());
        assert_eq!(read_session(&hello).map(|_| ()), Err(HandshakeError::WeakKey));
    }
}

#[test]
fn without_random_bytes_there_is_no_handshake() {
    let begun =
        SessionInitiator::begin(&client(), &server().public(), SessionOffer::OURS, &mut Seeded::empty())
            .map(|_| ());
    assert_eq!(begun, Err(HandshakeError::Entropy(EntropyError)));
    let hello = Hello::decode(&begin_bind().1).unwrap();
    let decoy = BindResponder::decoy(&server(), &hello, &mut Seeded::empty()).map(|_| ());
    assert_eq!(decoy, Err(HandshakeError::Entropy(EntropyError)));
}

#[test]
fn debug_and_errors_show_no_secret() {
    let (initiator, _) = begin_bind();
    let debug = format!("{initiator:?}");
    assert!(debug.contains("state: HandshakeState,"), "{debug}");
    assert!(!debug.contains("119"), "a byte of the secret, in decimal: {debug}");
    let error = HandshakeError::Peer(snow::Error::Decrypt);
    assert_eq!(error.to_string(), "the peer's handshake message does not verify");
    assert!(error.source().is_some());
}

/// Tasks hold these while they wait for the network.
#[test]
fn handshakes_and_records_can_go_to_another_thread() {
    fn goes<T: Send + Sync>() {}
    goes::<(Identity, SessionInitiator, SessionResponder, BindInitiator, BindResponder)>();
    goes::<(Sealer<ClientData>, Opener<ServerData>, RecordKeys, HandshakeError)>();
}

/// A listener has the whole transcript and both public keys; a client's static key is even told to it, though `IK` hides
/// it. Whatever it can compute of these opens no record.
#[test]
fn a_capture_and_both_public_keys_open_nothing() {
    let context = first_channel(&CHOICE);
    let (initiator, hello) = begin_session();
    let (message2, server_keys) = read_session(&hello).unwrap().finish(CHOICE).unwrap();
    let (_, client_keys) = initiator.finish(unframed(&message2)).unwrap();
    let up = record(client_keys.send, context.channel, &read_message());
    let down = record(server_keys.send, context.channel, &done_message());

    let hash = session_hash(&hello, unframed(&message2));
    // The same handshake once more, for its raw keys: with them and the hash of the capture the records open, so this
    // test derives keys the right way.
    let mut state = begin_session().0.state;
    noise::read(&mut state, unframed(&message2)).unwrap();
    let split = noise::split(state).unwrap();
    assert_eq!(split.hash, hash, "the handshake hash is no secret");
    assert!(opens(&up, &down, direction_pair(&hash, &*split.to_server, &*split.to_client, context)));

    let noise = Hello::decode(&hello).unwrap().noise;
    let publics = [
        client().public().0,
        server().public().0,
        noise[..32].try_into().unwrap(),
        unframed(&message2)[..32].try_into().unwrap(),
    ];
    for candidate in public_values(&hash, &publics, &[&noise, &message2]) {
        let [one, two] = noise_split(&candidate);
        for (to_server, to_client) in [(&candidate[..], &candidate[..]), (&one, &two), (&two, &one)] {
            for salt in [&hash[..], &[], &candidate] {
                let keys = direction_pair(salt, to_server, to_client, context);
                assert!(!opens(&up, &down, keys));
            }
        }
        if let Ok(key) = <[u8; 32]>::try_from(&candidate[..]) {
            let raw = || DirectionKeys::fixed(Suite::ChaCha20Poly1305, key, key);
            assert!(!opens(&up, &down, (raw(), raw())));
        }
    }
}

/// The same for a bind, where the listener is one who also has the locator and the session id.
#[test]
fn a_captured_bind_opens_nothing() {
    let (initiator, hello) = begin_bind();
    let (message2, server_keys) = read_bind(&hello).unwrap().finish(BIND_CHOICE).unwrap();
    let (choice, client_keys) = initiator.finish(unframed(&message2)).unwrap();
    let context = bound_channel(SESSION_ID, &BIND_OFFER, &choice);
    let up = record(client_keys.send, context.channel, &read_message());
    let down = record(server_keys.send, context.channel, &done_message());

    let mut state = begin_bind().0.state;
    noise::read(&mut state, unframed(&message2)).unwrap();
    let Split { hash, to_server, to_client } = noise::split(state).unwrap();
    assert!(opens(&up, &down, direction_pair(&hash, &*to_server, &*to_client, context)));

    let noise = Hello::decode(&hello).unwrap().noise;
    let publics = [
        client().public().0,
        server().public().0,
        noise[..32].try_into().unwrap(),
        unframed(&message2)[..32].try_into().unwrap(),
    ];
    let extra = [&BIND_OFFER.locator.0[..], &SESSION_ID.0, &noise, &message2];
    for candidate in public_values(&hash, &publics, &extra) {
        let [one, two] = noise_split(&candidate);
        for (to_server, to_client) in [(&candidate[..], &candidate[..]), (&one, &two), (&two, &one)] {
            assert!(!opens(&up, &down, direction_pair(&hash, to_server, to_client, context)));
        }
    }
}

/// All that can be computed of public values in one step: each of them, nothing, zeros, Diffie-Hellman with public keys as
/// scalars, and the chaining of Noise over these.
fn public_values(hash: &[u8; 32], publics: &[[u8; 32]; 4], extra: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut values = vec![Vec::new(), vec![0; 32], hash.to_vec()];
    values.extend(publics.iter().map(|key| key.to_vec()));
    values.extend(extra.iter().map(|value| value.to_vec()));
    for scalar in publics {
        for point in publics {
            values.push(x25519_dalek::x25519(*scalar, *point).to_vec());
        }
    }
    let name = Blake2s256::digest(noise::SESSION);
    let chained: Vec<Vec<u8>> = (values.iter())
        .flat_map(|value| noise_hkdf(&name, value).into_iter().chain(noise_hkdf(hash, value)))
        .map(|key| key.to_vec())
        .collect();
    values.extend(chained);
    values
}

/// The handshake hash of `IK`, from the capture and the server's public key alone (the Noise specification, section 5).
fn session_hash(hello: &[u8], message2: &[u8]) -> [u8; 32] {
    let hello = Hello::decode(hello).unwrap();
    let server = server().public();
    let parts = [
        &hello.prologue[..],
        &server.0,
        &hello.noise[..32],
        &hello.noise[32..80],
        &hello.noise[80..],
        &message2[..32],
        &message2[32..],
    ];
    let start: [u8; 32] = Blake2s256::digest(noise::SESSION).into();
    parts
        .iter()
        .fold(start, |hash, part| Blake2s256::new().chain_update(hash).chain_update(part).finalize().into())
}

fn noise_split(chaining: &[u8]) -> [[u8; 32]; 2] {
    noise_hkdf(chaining, &[])
}

fn noise_hkdf(chaining: &[u8], from: &[u8]) -> [[u8; 32]; 2] {
    let mut keys = [0; 64];
    hkdf::SimpleHkdf::<Blake2s256>::new(Some(chaining), from).expand(&[], &mut keys).unwrap();
    [keys[..32].try_into().unwrap(), keys[32..].try_into().unwrap()]
}

fn direction_pair(
    salt: &[u8],
    to_server: &[u8],
    to_client: &[u8],
    context: Context,
) -> (DirectionKeys, DirectionKeys) {
    let to_server = direction_keys(salt, to_server, context, 0).unwrap();
    (to_server, direction_keys(salt, to_client, context, 1).unwrap())
}

fn opens(up: &[u8], down: &[u8], keys: (DirectionKeys, DirectionKeys)) -> bool {
    let channel = ChannelNumber(u32::from_le_bytes(up[12..16].try_into().unwrap()));
    open::<ClientData>(keys.0, channel, up).is_some() || open::<ServerData>(keys.1, channel, down).is_some()
}

/// A client whose handshake names another static key than its own.
mod lying {
    use snow::params::{CipherChoice, DHChoice, HashChoice};
    use snow::resolvers::{CryptoResolver, DefaultResolver};
    use snow::types::{Cipher, Dh, Hash, Random};

    use super::*;

    pub(super) struct Fixed(pub(super) Seeded);

    impl Random for Fixed {
        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), snow::Error> {
            self.0.fill(to).map_err(|_| snow::Error::Rng)
        }
    }

    struct Liar {
        inner: Box<dyn Dh>,
        own: PublicKey,
        told: PublicKey,
    }

    impl Dh for Liar {
        fn name(&self) -> &'static str {
            self.inner.name()
        }
        fn pub_len(&self) -> usize {
            self.inner.pub_len()
        }
        fn priv_len(&self) -> usize {
            self.inner.priv_len()
        }
        fn set(&mut self, secret: &[u8]) {
            self.inner.set(secret);
        }
        fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
            self.inner.generate(rng)
        }
        fn pubkey(&self) -> &[u8] {
            let key = self.inner.pubkey();
            if key == self.own.0 { &self.told.0 } else { key }
        }
        fn privkey(&self) -> &[u8] {
            self.inner.privkey()
        }
        fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
            self.inner.dh(public, out)
        }
    }

    struct Resolver(PublicKey, PublicKey);

    impl CryptoResolver for Resolver {
        fn resolve_rng(&self) -> Option<Box<dyn Random>> {
            Some(Box::new(Fixed(Seeded::new(4))))
        }
        fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
            let inner = DefaultResolver.resolve_dh(choice)?;
            Some(Box::new(Liar { inner, own: self.0, told: self.1 }))
        }
        fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
            DefaultResolver.resolve_hash(choice)
        }
        fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
            DefaultResolver.resolve_cipher(choice)
        }
    }

    pub(super) fn hello(client: &Identity, told: PublicKey, server: &PublicKey) -> Vec<u8> {
        let prologue = hello::prologue(&Offer::Session(SessionOffer::OURS));
        let resolver = Box::new(Resolver(client.public(), told));
        let mut state = snow::Builder::with_resolver(noise::SESSION.parse().unwrap(), resolver)
            .prologue(&prologue)
            .and_then(|builder| builder.local_private_key(client.secret()))
            .and_then(|builder| builder.remote_public_key(&server.0))
            .and_then(snow::Builder::build_initiator)
            .unwrap();
        let noise = noise::write(&mut state, &[]).unwrap();
        whole_hello(server, &prologue, &noise)
    }
}
