//! Who poses as somebody else, and with what: another name with the same Diffie-Hellmans, a third party in the middle
//! that both ends know, the client's own stolen secret. Each attack has its twin that succeeds because the attacker is
//! given the one thing that it lacks, so that it is known to fail for that alone.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::StaticSecret;

use super::super::super::{EnrolInitiator, EnrolResponder};
use super::*;
use crate::wire::hello::{EnrolChoice, EnrolOffer};

const REFUSED: Result<(), HandshakeError> = Err(HandshakeError::Peer(snow::Error::Decrypt));

/// A second name of a key: X25519 ignores the highest bit, so each Diffie-Hellman with it is the same.
fn alias(key: PublicKey) -> PublicKey {
    let mut alias = key;
    alias.0[31] |= 0x80;
    assert_ne!(alias, key);
    let secret = StaticSecret::from(*stranger().secret());
    let shared = |key: PublicKey| secret.diffie_hellman(&x25519_dalek::PublicKey::from(key.0)).to_bytes();
    assert_eq!(shared(alias), shared(key), "all that differs is the name");
    alias
}

#[test]
fn t25_a_server_under_another_name_is_another_server() {
    let to = |server: PublicKey| {
        let begun = SessionInitiator::begin(&client(), &server, SessionOffer::OURS, &mut Seeded::new(4));
        read_session(&begun.unwrap().1).map(|_| ())
    };
    assert_eq!(to(server().public()), Ok(()));
    assert_eq!(to(alias(server().public())), REFUSED);

    let bind = |server: PublicKey| {
        let entropy = &mut Seeded::new(6);
        let begun = BindInitiator::begin(&client(), &server, &secret(), SESSION_ID, BIND_OFFER, entropy);
        read_bind(&begun.unwrap().1).map(|_| ())
    };
    assert_eq!(bind(server().public()), Ok(()));
    assert_eq!(bind(alias(server().public())), REFUSED);
}

#[test]
fn t25_a_client_under_another_name_is_another_client() {
    let hello = Hello::decode(&begin_bind().1).unwrap();
    let read = |client: PublicKey| {
        BindResponder::read(&server(), &client, &secret(), SESSION_ID, &hello, &mut Seeded::new(7))
            .map(|_| ())
    };
    assert_eq!(read(client().public()), Ok(()));
    assert_eq!(read(alias(client().public())), REFUSED);
    // In a session's hello the client names itself.
    let lying = lying::hello(&client(), alias(client().public()), &server().public());
    assert!(read_session(&lying).is_err());
    assert!(read_session(&lying::hello(&client(), client().public(), &server().public())).is_ok());
}

/// A third party that is a server to the client and a client to the server, and that makes both handshakes of the
/// same random bytes: what one end says to it is not what the other end hears.
#[test]
fn t25_nobody_in_the_middle_joins_two_handshakes_into_one() {
    let offer = SessionOffer::OURS;
    let (to_middle, hello) =
        SessionInitiator::begin(&client(), &stranger().public(), offer, &mut Seeded::new(4)).unwrap();
    let middle =
        SessionResponder::read(&stranger(), &Hello::decode(&hello).unwrap(), &mut Seeded::new(5)).unwrap();
    // The client's own hello leads to the server it was made for, and to no other.
    assert_eq!(read_session(&hello).map(|_| ()), REFUSED);
    let (to_server, hello) =
        SessionInitiator::begin(&stranger(), &server().public(), offer, &mut Seeded::new(4)).unwrap();
    let at_server = read_session(&hello).unwrap();
    assert_eq!((middle.client(), at_server.client()), (client().public(), stranger().public()));

    let (message2, of_middle) = middle.finish(CHOICE).unwrap();
    let (_, of_client) = to_middle.finish(unframed(&message2)).unwrap();
    let (message2, of_server) = at_server.finish(CHOICE).unwrap();
    let (_, to_server) = to_server.finish(unframed(&message2)).unwrap();
    let channel = ChannelNumber(0);
    let up = record(of_client.send, channel, &read_message());
    assert_eq!(open(of_middle.receive, channel, &up), Some(Incoming::Message(read_message())));
    assert_eq!(open::<ClientData>(of_server.receive, channel, &up), None, "passed on as it is");
    let down = record(of_server.send, channel, &done_message());
    assert_eq!(open(to_server.receive, channel, &down), Some(Incoming::Message(done_message())));
}

/// Somebody who claims the server's key, has the secrets `known`, and makes up what takes the server's.
struct Forger {
    known: Vec<[u8; 32]>,
}

impl Forger {
    fn responder(&self, name: &str, prologue: &[u8]) -> HandshakeState {
        self.builder(name, prologue).build_responder().unwrap()
    }

    /// A forger of a bind knows the session's secret too.
    fn bind_responder(&self, hello: &Hello) -> HandshakeState {
        let Offer::Bind(offer) = hello.offer else { panic!("a bind's hello") };
        let psk = bind_psk(&secret(), SESSION_ID, offer.number, offer.nonce).unwrap();
        let remote = client().public();
        self.builder(noise::BIND, &hello.prologue)
            .remote_public_key(&remote.0)
            .and_then(|builder| builder.psk(0, &psk))
            .and_then(snow::Builder::build_responder)
            .unwrap()
    }

    fn builder<'a>(&self, name: &str, prologue: &'a [u8]) -> snow::Builder<'a> {
        let resolver = Box::new(Tools { known: self.known.clone() });
        snow::Builder::with_resolver(name.parse().unwrap(), resolver)
            .prologue(prologue)
            .and_then(|builder| builder.local_private_key(&[0x42; 32]))
            .unwrap()
    }
}

struct Tools {
    known: Vec<[u8; 32]>,
}

/// A key pair; the static one has the server's public key and no secret.
struct Claimed {
    inner: Box<dyn Dh>,
    claims: Option<[u8; 32]>,
    known: Vec<[u8; 32]>,
}

impl Dh for Claimed {
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
        self.claims = Some(server().public().0);
    }
    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.inner.generate(rng)
    }
    fn pubkey(&self) -> &[u8] {
        match &self.claims {
            Some(claims) => claims,
            None => self.inner.pubkey(),
        }
    }
    fn privkey(&self) -> &[u8] {
        self.inner.privkey()
    }
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let Some(claims) = self.claims else { return self.inner.dh(public, out) };
        // A shared secret can be computed from either end's secret half.
        let mut known = self.known.iter().map(|&secret| StaticSecret::from(secret));
        let of_peer = known.find(|secret| x25519_dalek::PublicKey::from(secret).as_bytes() == &public[..32]);
        match of_peer {
            Some(secret) => {
                let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(claims));
                out[..32].copy_from_slice(shared.as_bytes());
                Ok(())
            }
            None => self.inner.dh(public, out),
        }
    }
}

impl CryptoResolver for Tools {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(lying::Fixed(Seeded::new(9))))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let inner = DefaultResolver.resolve_dh(choice)?;
        Some(Box::new(Claimed { inner, claims: None, known: self.known.clone() }))
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// The ephemeral secret of a client whose random bytes are these: what no thief of its key file gets.
fn ephemeral(seed: u64) -> [u8; 32] {
    Seeded::new(seed).bytes().unwrap()
}

/// The thief has the client's identity, and the public key of the server as which it poses.
#[test]
fn t25_a_stolen_client_secret_makes_nobody_the_server_of_a_session() {
    let pose = |known: Vec<[u8; 32]>| {
        let (initiator, hello) = begin_session();
        let hello = Hello::decode(&hello).unwrap();
        let mut state = Forger { known }.responder(noise::SESSION, &hello.prologue);
        // Who cannot read message 1 has not the keys to make message 2 with.
        noise::read(&mut state, &hello.noise)?;
        let message2 = write_choice(&mut state, &CHOICE)?;
        initiator.finish(unframed(&message2)).map(|_| ())
    };
    let stolen = *client().secret();
    assert_eq!(pose(vec![stolen]), REFUSED);
    assert_eq!(pose(vec![]), REFUSED);
    assert_eq!(pose(vec![stolen, ephemeral(4)]), Ok(()), "the ephemeral secret is what it lacks");
}

/// It may even know the secret of the client's session.
#[test]
fn t25_a_stolen_client_secret_makes_nobody_the_server_of_a_bind() {
    let pose = |known: Vec<[u8; 32]>| {
        let (initiator, hello) = begin_bind();
        let hello = Hello::decode(&hello).unwrap();
        let mut state = Forger { known }.bind_responder(&hello);
        noise::read(&mut state, &hello.noise)?;
        let message2 = write_choice(&mut state, &BIND_CHOICE)?;
        initiator.finish(unframed(&message2)).map(|_| ())
    };
    let stolen = *client().secret();
    assert_eq!(pose(vec![stolen]), REFUSED);
    assert_eq!(pose(vec![stolen, ephemeral(6)]), Ok(()), "the ephemeral secret is what it lacks");
}

/// An enrolment shows no key whose secret half the server does not have.
#[test]
fn t25_nobody_shows_another_server_s_key() {
    let pose = |known: Vec<[u8; 32]>| {
        let mut entropy = Seeded::new(4);
        let (initiator, hello) = EnrolInitiator::begin(EnrolOffer::OURS, &mut entropy).unwrap();
        let hello = Hello::decode(&hello).unwrap();
        let mut state = Forger { known }.responder(noise::ENROL, &hello.prologue);
        noise::read(&mut state, &hello.noise).unwrap();
        let message2 = write_choice(&mut state, &EnrolChoice { version: 1 }).unwrap();
        initiator.finish(unframed(&message2))
    };
    assert_eq!(pose(vec![]), Err(HandshakeError::Peer(snow::Error::Decrypt)));
    assert_eq!(pose(vec![*client().secret()]), Err(HandshakeError::Peer(snow::Error::Decrypt)));
    // The first 32 random bytes are the static key that is thrown away.
    let mut entropy = Seeded::new(4);
    entropy.bytes::<32>().unwrap();
    let ephemeral = entropy.bytes().unwrap();
    assert_eq!(pose(vec![ephemeral]), Ok(server().public()), "the ephemeral secret is what it lacks");

    // An honest server shows its own.
    let (initiator, hello) = EnrolInitiator::begin(EnrolOffer::OURS, &mut Seeded::new(4)).unwrap();
    let hello = Hello::decode(&hello).unwrap();
    let responder = EnrolResponder::read(&stranger(), &hello, &mut Seeded::new(5)).unwrap();
    let message2 = responder.finish(EnrolChoice { version: 1 }).unwrap();
    assert_eq!(initiator.finish(unframed(&message2)), Ok(stranger().public()));
}
