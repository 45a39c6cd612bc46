//! What somebody can make of a recording who later has both static secrets: the order of Noise's keys (the Noise
//! specification, sections 5 and 9), with every Diffie-Hellman that these secrets give.

use super::*;
use crate::secure::keys::bind_psk;

/// One step of a handshake's chaining key: what is mixed in, or `None` for the Diffie-Hellman of the two ephemeral keys,
/// which nobody has whose secrets were static.
type Step<'a> = Option<&'a [u8]>;

/// The raw keys of a handshake, with this in the place of what nobody has.
fn raw_keys(name: &str, steps: &[Step<'_>], ephemeral: &[u8]) -> [[u8; 32]; 2] {
    let start: [u8; 32] = if name.len() <= 32 {
        let mut padded = [0; 32];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        padded
    } else {
        Blake2s256::digest(name).into()
    };
    let chaining =
        steps.iter().fold(start, |chaining, step| noise_hkdf(&chaining, step.unwrap_or(ephemeral))[0]);
    noise_split(&chaining)
}

/// Everything that two static secrets give with the public keys of a recording, alone and with each other.
fn guesses(statics: [[u8; 32]; 2], publics: &[[u8; 32]; 4]) -> Vec<[u8; 32]> {
    let mut values = vec![[0; 32]];
    values.extend(publics);
    values.extend(statics);
    for scalar in statics.iter().chain(publics) {
        values.extend(publics.iter().map(|point| x25519_dalek::x25519(*scalar, *point)));
    }
    values
}

fn ephemeral_secret(mut entropy: Seeded) -> [u8; 32] {
    entropy.bytes().unwrap()
}

fn ephemeral_public(message: &[u8]) -> [u8; 32] {
    message[..32].try_into().unwrap()
}

#[test]
fn t26_a_recording_and_both_static_secrets_open_nothing() {
    let context = first_channel(&CHOICE);
    let (initiator, hello) = begin_session();
    let (message2, server_keys) = read_session(&hello).unwrap().finish(CHOICE).unwrap();
    let (_, client_keys) = initiator.finish(unframed(&message2)).unwrap();
    let up = record(client_keys.send, context.channel, &read_message());
    let down = record(server_keys.send, context.channel, &done_message());
    let hash = session_hash(&hello, unframed(&message2));

    let (client, server) = (client(), server());
    let client_e = ephemeral_public(&Hello::decode(&hello).unwrap().noise);
    let server_e = ephemeral_public(unframed(&message2));
    let es = x25519_dalek::x25519(*server.secret(), client_e);
    let ss = x25519_dalek::x25519(*server.secret(), client.public().0);
    let se = x25519_dalek::x25519(*client.secret(), server_e);
    let steps = [Some(&es[..]), Some(&ss), None, Some(&se)];
    let opened = |ephemeral: &[u8]| {
        let [to_server, to_client] = raw_keys(noise::SESSION, &steps, ephemeral);
        opens(&up, &down, direction_pair(&hash, &to_server, &to_client, context))
    };
    // With one ephemeral secret, which both ends have wiped, it opens: the order of the keys is right.
    assert!(opened(&x25519_dalek::x25519(ephemeral_secret(Seeded::new(4)), server_e)));
    let publics = [client.public().0, server.public().0, client_e, server_e];
    for guess in guesses([*client.secret(), *server.secret()], &publics) {
        assert!(!opened(&guess));
    }
}

/// Nor do they with the session's secret, which is told inside the session.
#[test]
fn t26_a_recorded_bind_and_all_lasting_secrets_open_nothing() {
    let (initiator, hello) = begin_bind();
    let (message2, server_keys) = read_bind(&hello).unwrap().finish(BIND_CHOICE).unwrap();
    let (choice, client_keys) = initiator.finish(unframed(&message2)).unwrap();
    let context = bound_channel(SESSION_ID, &BIND_OFFER, &choice);
    let up = record(client_keys.send, context.channel, &read_message());
    let down = record(server_keys.send, context.channel, &done_message());
    let mut state = begin_bind().0.state;
    noise::read(&mut state, unframed(&message2)).unwrap();
    // The hash is no secret: it is that of the recording and both public keys.
    let hash = noise::split(state).unwrap().hash;

    let (client, server) = (client(), server());
    let client_e = ephemeral_public(&Hello::decode(&hello).unwrap().noise);
    let server_e = ephemeral_public(unframed(&message2));
    let psk = bind_psk(&secret(), SESSION_ID, BIND_OFFER.number, BIND_OFFER.nonce).unwrap();
    let es = x25519_dalek::x25519(*server.secret(), client_e);
    let ss = x25519_dalek::x25519(*server.secret(), client.public().0);
    let se = x25519_dalek::x25519(*client.secret(), server_e);
    // With a shared key, each ephemeral key is mixed in as well.
    let steps = [Some(&psk[..]), Some(&client_e), Some(&es), Some(&ss), Some(&server_e), None, Some(&se)];
    let opened = |ephemeral: &[u8]| {
        let [to_server, to_client] = raw_keys(noise::BIND, &steps, ephemeral);
        opens(&up, &down, direction_pair(&hash, &to_server, &to_client, context))
    };
    assert!(opened(&x25519_dalek::x25519(ephemeral_secret(Seeded::new(6)), server_e)));
    let publics = [client.public().0, server.public().0, client_e, server_e];
    for guess in guesses([*client.secret(), *server.secret()], &publics) {
        assert!(!opened(&guess));
    }
}
