//! `snow`, and the only module that names what is inside it: it runs the handshakes and nothing after them.
//!
//! `snow` has no source of random bytes here: each handshake gets a small pool that was filled beforehand. Its
//! Diffie-Hellman accepts public keys of low order and does not wipe its secrets, so it is replaced by
//! [`Curve`]; hash and cipher are its own.

use core::cell::Cell;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Identity;
use super::handshake::HandshakeError;
use super::keys::Split;
use crate::model::{Entropy, Limits, PublicKey};

/// The handshake that starts a session.
pub(super) const SESSION: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// The handshake that binds a channel.
pub(super) const BIND: &str = "Noise_KKpsk0_25519_ChaChaPoly_BLAKE2s";
/// The handshake whose first two messages show the server's key.
pub(super) const ENROL: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";

/// What a handshake begins with.
pub(super) struct Setup<'a> {
    pub(super) name: &'static str,
    pub(super) prologue: &'a [u8],
    pub(super) identity: &'a Identity,
    pub(super) remote: Option<&'a PublicKey>,
    pub(super) psk: Option<&'a [u8; 32]>,
}

impl Setup<'_> {
    /// The client's state.
    pub(super) fn initiator(&self, entropy: &mut dyn Entropy) -> Result<HandshakeState, HandshakeError> {
        let pool = Pool::filled(entropy)?;
        self.builder(pool).and_then(Builder::build_initiator).map_err(HandshakeError::Local)
    }

    /// The server's state.
    pub(super) fn responder(&self, entropy: &mut dyn Entropy) -> Result<HandshakeState, HandshakeError> {
        let pool = Pool::filled(entropy)?;
        self.builder(pool).and_then(Builder::build_responder).map_err(HandshakeError::Local)
    }

    fn builder(&self, pool: Box<Pool>) -> Result<Builder<'_>, Error> {
        let params: NoiseParams = self.name.parse()?;
        let mut builder = Builder::with_resolver(params, Box::new(Resolver { pool: Cell::new(Some(pool)) }))
            .prologue(self.prologue)?
            .local_private_key(self.identity.secret())?;
        if let Some(remote) = self.remote {
            builder = builder.remote_public_key(&remote.0)?;
        }
        if let Some(psk) = self.psk {
            builder = builder.psk(0, psk)?;
        }
        Ok(builder)
    }
}

/// Our next message, with this payload.
pub(super) fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; Limits::HELLO_LEN_MAX];
    let len = state.write_message(payload, &mut message).map_err(|error| match error {
        Error::Dh => HandshakeError::WeakKey,
        other => HandshakeError::Local(other),
    })?;
    message.truncate(len);
    Ok(message)
}

/// The payload of the peer's next message.
pub(super) fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = vec![0; message.len()];
    let len = state.read_message(message, &mut payload).map_err(|error| match error {
        Error::Dh => HandshakeError::WeakKey,
        Error::Decrypt | Error::Input => HandshakeError::Peer(error),
        other => HandshakeError::Local(other),
    })?;
    payload.truncate(len);
    Ok(payload)
}

/// The static key that the peer has shown, if it is in its one form.
pub(super) fn remote_key(state: &HandshakeState) -> Result<PublicKey, HandshakeError> {
    let remote = state.get_remote_static().and_then(|key| key.try_into().ok());
    let key = remote.map(PublicKey).ok_or(HandshakeError::Derive)?;
    if key.is_provable() { Ok(key) } else { Err(HandshakeError::WeakKey) }
}

/// Takes the raw keys out of a finished handshake, whose state ends here.
pub(super) fn split(mut state: HandshakeState) -> Result<Split, HandshakeError> {
    let finished = state.is_handshake_finished();
    let hash = state.get_handshake_hash().try_into();
    let (Ok(hash), true) = (hash, finished) else {
        return Err(HandshakeError::Derive);
    };
    let mut raw = state.dangerously_get_raw_split();
    drop(state);
    let split = Split { hash, to_server: Zeroizing::new(raw.0), to_client: Zeroizing::new(raw.1) };
    raw.0.zeroize();
    raw.1.zeroize();
    Ok(split)
}

/// Random bytes for one handshake: one ephemeral secret. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Pool {
    bytes: [u8; 32],
    used: usize,
}

impl Pool {
    fn filled(entropy: &mut dyn Entropy) -> Result<Box<Self>, HandshakeError> {
        let mut pool = Box::new(Self { bytes: [0; 32], used: 0 });
        entropy.fill(&mut pool.bytes)?;
        Ok(pool)
    }
}

impl Random for Pool {
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        let end = self.used.checked_add(to.len()).ok_or(Error::Rng)?;
        let bytes = self.bytes.get(self.used..end).ok_or(Error::Rng)?;
        to.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }
}

struct Resolver {
    /// Given away once: a second state cannot be built of the same bytes.
    pool: Cell<Option<Box<Pool>>>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.pool.take().map(|pool| -> Box<dyn Random> { pool })
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(Curve::default())),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// X25519 that refuses a shared secret to which the other side contributed nothing, and wipes its secret.
struct Curve {
    secret: StaticSecret,
    public: [u8; 32],
}

impl Default for Curve {
    fn default() -> Self {
        Self { secret: StaticSecret::from([0; 32]), public: [0; 32] }
    }
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        self.secret = StaticSecret::from(*bytes);
        self.public = x25519_dalek::PublicKey::from(&self.secret).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *bytes)?;
        self.set(&*bytes);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public: &[u8; 32] = public.first_chunk().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&x25519_dalek::PublicKey::from(*public));
        // RFC 7748, section 6.1: the check for the all-zero value, which keys of low order give.
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.first_chunk_mut::<32>().ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing {
    use crate::model::{Entropy, EntropyError};

    /// Random bytes that are the same in every run: a counter through a mixing function (splitmix64).
    pub(crate) struct Seeded(Option<u64>);

    impl Seeded {
        pub(crate) fn new(seed: u64) -> Self {
            Self(Some(seed << 32))
        }

        /// A source that has failed.
        pub(crate) fn empty() -> Self {
            Self(None)
        }
    }

    impl Entropy for Seeded {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            let counter = self.0.as_mut().ok_or(EntropyError)?;
            for chunk in bytes.chunks_mut(8) {
                *counter += 1;
                let mut word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
            }
            Ok(())
        }
    }

    /// The public keys below 2^255 with which every secret gives the all-zero value: 0, 1, two of order 8 and the
    /// prime less one, then the prime and the prime plus one, which are other spellings of 0 and 1.
    pub(crate) fn low_order() -> Vec<[u8; 32]> {
        let mut one = [0; 32];
        one[0] = 1;
        let near_prime = |last: u8| {
            let mut key = [0xff; 32];
            key[0] = last;
            key[31] = 0x7f;
            key
        };
        let eight_a = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        let eight_b = [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
            0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ];
        vec![[0; 32], one, eight_a, eight_b, near_prime(0xec), near_prime(0xed), near_prime(0xee)]
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Seeded, low_order};
    use super::*;

    #[test]
    fn the_curve_agrees_with_the_one_it_replaces() {
        let secret: [u8; 32] = Seeded::new(1).bytes().unwrap();
        let other: [u8; 32] = Seeded::new(2).bytes().unwrap();
        let (mut ours, mut peer) = (Curve::default(), Curve::default());
        let mut theirs = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        ours.set(&secret);
        peer.set(&other);
        theirs.set(&secret);
        assert_eq!(ours.pubkey(), theirs.pubkey());
        let (mut one, mut two, mut three) = ([0; 32], [0; 32], [0; 32]);
        ours.dh(peer.pubkey(), &mut one).unwrap();
        theirs.dh(peer.pubkey(), &mut two).unwrap();
        peer.dh(ours.pubkey(), &mut three).unwrap();
        assert_eq!((one, one), (two, three));
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        let mut curve = Curve::default();
        curve.set(&Seeded::new(1).bytes::<32>().unwrap());
        for mut key in low_order() {
            assert_eq!(curve.dh(&key, &mut [0; 32]), Err(Error::Dh), "{key:x?}");
            assert!(!PublicKey(key).is_provable(), "{key:x?}");
            key[31] |= 0x80;
            assert_eq!(curve.dh(&key, &mut [0; 32]), Err(Error::Dh), "{key:x?}");
            assert!(!PublicKey(key).is_provable(), "{key:x?}");
        }
        assert_eq!(curve.dh(&[9; 31], &mut [0; 32]), Err(Error::Dh));
    }

    #[test]
    fn a_pool_gives_each_byte_once_and_then_fails() {
        let mut pool = Pool::filled(&mut Seeded::new(1)).unwrap();
        let expected: [u8; 32] = Seeded::new(1).bytes().unwrap();
        let mut bytes = [0; 32];
        pool.try_fill_bytes(&mut bytes[..20]).unwrap();
        assert_eq!(pool.try_fill_bytes(&mut [0; 13]), Err(Error::Rng));
        pool.try_fill_bytes(&mut bytes[20..]).unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(pool.try_fill_bytes(&mut [0; 1]), Err(Error::Rng));
        assert!(matches!(Pool::filled(&mut Seeded::empty()), Err(HandshakeError::Entropy(_))));
    }

    #[test]
    fn a_resolver_gives_its_pool_away_once() {
        let pool = Pool::filled(&mut Seeded::new(1)).unwrap();
        let resolver = Resolver { pool: Cell::new(Some(pool)) };
        assert!(resolver.resolve_rng().is_some());
        assert!(resolver.resolve_rng().is_none());
    }
}
