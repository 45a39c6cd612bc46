//! Keys that are derived: those of records, of a handshake's end, and the PSK of a bind. protocol.md: Keys.
//!
//! Record keys are HKDF-BLAKE2s with the handshake hash as salt and that direction's raw split key as key material.
//! The info names everything that a key is for, so that no two uses share one:
//!
//! | bytes | field |
//! | --- | --- |
//! | 17 | `bowline record v1` |
//! | 1 | suite: 1 for ChaCha20-Poly1305, 2 for AEGIS-128X2 |
//! | 16 | session id |
//! | 4 | channel number |
//! | 1 | direction: 0 client to server, 1 server to client |
//! | 1 | use: 0 head and body, 1 payload, 2 the keys after these |
//!
//! A *rekey* derives all three anew from the third, with the label `bowline rekey v1 ` and no salt, and wipes what it was
//! derived from: whoever learns the keys of one generation cannot compute those before it.

use core::fmt;

use blake2::Blake2s256;
use hkdf::SimpleHkdf;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::cipher::Key;
use super::handshake::HandshakeError;
use crate::model::{AttemptNonce, ChannelNumber, SessionId, Suite};
use crate::wire::control::BindSecret;

const RECORD_LABEL: &[u8] = b"bowline record v1";
/// As long as the label of the first generation, so that the fields behind it have the same places.
const REKEY_LABEL: &[u8] = b"bowline rekey v1 ";
const BIND_LABEL: &[u8] = b"bowline bind v1";

/// The keys of one direction of one channel. They belong to one [`super::Sealer`] or [`super::Opener`], which
/// takes them away; nothing shows them, and they are wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DirectionKeys {
    pub(super) head: Key,
    pub(super) payload: Key,
    /// Of which the next generation is derived.
    next: Key,
    #[zeroize(skip)]
    context: Context,
    #[zeroize(skip)]
    direction: u8,
}

impl DirectionKeys {
    /// Keys that a test chooses.
    #[cfg(test)]
    pub(super) fn fixed(suite: Suite, head: Key, payload: Key) -> Self {
        let context = Context { suite, session: SessionId([0; 16]), channel: ChannelNumber(0) };
        Self { head, payload, next: [9; 32], context, direction: 0 }
    }

    /// The cipher that the keys were derived for.
    pub(super) fn suite(&self) -> Suite {
        self.context.suite
    }

    /// Replaces the keys by those of the next generation.
    ///
    /// # Errors
    /// [`HandshakeError::Derive`]; the keys are as they were.
    pub(super) fn rekey(&mut self) -> Result<(), HandshakeError> {
        let from = Zeroizing::new(self.next);
        *self = Self::derive(None, &*from, REKEY_LABEL, self.context, self.direction)?;
        Ok(())
    }

    fn derive(
        salt: Option<&[u8]>,
        from: &[u8],
        label: &[u8],
        context: Context,
        direction: u8,
    ) -> Result<Self, HandshakeError> {
        let mut keys = Self { head: [0; 32], payload: [0; 32], next: [0; 32], context, direction };
        let suite = match context.suite {
            Suite::ChaCha20Poly1305 => 1,
            Suite::Aegis128X2 => 2,
        };
        let channel = context.channel.0.to_le_bytes();
        for (use_byte, key) in [(0, &mut keys.head), (1, &mut keys.payload), (2, &mut keys.next)] {
            let info = [label, &[suite], &context.session.0, &channel, &[direction], &[use_byte]];
            expand(salt, from, &info, key)?;
        }
        Ok(keys)
    }
}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionKeys(..)")
    }
}

/// The keys of one channel, as one end sees them.
#[derive(Debug)]
pub struct RecordKeys {
    /// For what this end sends.
    pub send: DirectionKeys,
    /// For what this end receives.
    pub receive: DirectionKeys,
}

/// The end of a handshake: its hash, which is public, and the two raw keys, which exist for the derivation only.
pub(super) struct Split {
    pub(super) hash: [u8; 32],
    pub(super) to_server: Zeroizing<[u8; 32]>,
    pub(super) to_client: Zeroizing<[u8; 32]>,
}

/// What the keys of a channel are bound to.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) suite: Suite,
    pub(super) session: SessionId,
    pub(super) channel: ChannelNumber,
}

impl Split {
    /// The record keys as the client holds them.
    pub(super) fn into_client_keys(self, context: Context) -> Result<RecordKeys, HandshakeError> {
        let (to_server, to_client) = self.into_directions(context)?;
        Ok(RecordKeys { send: to_server, receive: to_client })
    }

    /// The record keys as the server holds them.
    pub(super) fn into_server_keys(self, context: Context) -> Result<RecordKeys, HandshakeError> {
        let (to_server, to_client) = self.into_directions(context)?;
        Ok(RecordKeys { send: to_client, receive: to_server })
    }

    fn into_directions(self, context: Context) -> Result<(DirectionKeys, DirectionKeys), HandshakeError> {
        let to_server = direction_keys(&self.hash, &*self.to_server, context, 0)?;
        let to_client = direction_keys(&self.hash, &*self.to_client, context, 1)?;
        Ok((to_server, to_client))
    }
}

/// The PSK of one attempt to bind one channel.
///
/// # Errors
/// [`HandshakeError::Derive`].
pub(super) fn bind_psk(
    secret: &BindSecret,
    session: SessionId,
    number: ChannelNumber,
    nonce: AttemptNonce,
) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
    let mut psk = Zeroizing::new([0; 32]);
    let info = [BIND_LABEL, &session.0, &number.0.to_le_bytes(), &nonce.0];
    expand(None, &secret.0, &info, &mut psk)?;
    Ok(psk)
}

pub(super) fn direction_keys(
    hash: &[u8],
    raw: &[u8],
    context: Context,
    direction: u8,
) -> Result<DirectionKeys, HandshakeError> {
    DirectionKeys::derive(Some(hash), raw, RECORD_LABEL, context, direction)
}

fn expand(salt: Option<&[u8]>, from: &[u8], info: &[&[u8]], to: &mut [u8; 32]) -> Result<(), HandshakeError> {
    // A key that was left at zero would protect nothing, so a refusal that cannot happen is still an error.
    SimpleHkdf::<Blake2s256>::new(salt, from).expand_multi_info(info, to).map_err(|_| HandshakeError::Derive)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context {
        suite: Suite::ChaCha20Poly1305,
        session: SessionId([3; 16]),
        channel: ChannelNumber(0x0102_0304),
    };

    fn split() -> Split {
        Split { hash: [1; 32], to_server: Zeroizing::new([2; 32]), to_client: Zeroizing::new([4; 32]) }
    }

    /// Computed with another implementation of HKDF over BLAKE2s.
    #[test]
    fn golden_bytes() {
        let keys = split().into_client_keys(CONTEXT).unwrap();
        let psk = bind_psk(&BindSecret([5; 32]), SessionId([6; 16]), ChannelNumber(7), AttemptNonce([8; 16]));
        let golden = [
            (keys.send.head, "81d98b16bd79cac940acd56d89dd30dae4bfd45cf1ccd37b4b314a3243f0a7c4"),
            (keys.send.payload, "769ba7767e4914edeb9189be30ac16bbdaef6fec50a797fa618d63073d405fd9"),
            (keys.receive.head, "26b0820bf2034fbd00009948bf782859d9e3a00831b5d577b25e96f7ec019052"),
            (keys.receive.payload, "2fd1d815b4b6e567198714903cf94566679a438d8713c0647695a7a2e2a20d10"),
            (*psk.unwrap(), "50f0ea75e3f90f5d3f528673097f4038282fe6fc12b8a3ccb43fd86f122e9673"),
        ];
        for (key, text) in golden {
            assert_eq!(data_encoding::HEXLOWER.encode(&key), text);
        }
        let mut second = keys.send;
        second.rekey().unwrap();
        let golden = [
            (second.head, "d63e49d91b8fb89be62d1aac8272fdb9743c9106c1894ab435765e4cd4310843"),
            (second.payload, "a98052212a56843a7c016909d44da07dd5405bcab0048cf76a0ea568e1a0f20a"),
            (second.next, "f08d32701bec677c95ee1dbcd7ba08b455b8cc746f32413b9a930576d9d3abc5"),
        ];
        for (key, text) in golden {
            assert_eq!(data_encoding::HEXLOWER.encode(&key), text);
        }
        let aegis = split().into_client_keys(Context { suite: Suite::Aegis128X2, ..CONTEXT }).unwrap();
        let head = "7efd12b30d9a1fbbeef0cf4f1affabced00d2384e22c589ebcf74f85c47c889e";
        assert_eq!(data_encoding::HEXLOWER.encode(&aegis.send.head), head);
    }

    #[test]
    fn both_ends_have_the_same_keys_the_other_way_round() {
        let client = split().into_client_keys(CONTEXT).unwrap();
        let server = split().into_server_keys(CONTEXT).unwrap();
        assert_eq!((client.send.head, client.send.payload), (server.receive.head, server.receive.payload));
        assert_eq!((client.receive.head, client.receive.payload), (server.send.head, server.send.payload));
    }

    #[test]
    fn no_two_uses_share_a_key() {
        let contexts = [
            CONTEXT,
            Context { session: SessionId([9; 16]), ..CONTEXT },
            Context { channel: ChannelNumber(5), ..CONTEXT },
            Context { suite: Suite::Aegis128X2, ..CONTEXT },
        ];
        let mut keys = Vec::new();
        for context in contexts {
            // Equal raw keys, so that only the info tells the directions apart.
            for direction in [0, 1] {
                let pair = direction_keys(&[1; 32], &[2; 32], context, direction).unwrap();
                keys.extend([pair.head, pair.payload, pair.next]);
                let mut pair = pair;
                pair.rekey().unwrap();
                keys.extend([pair.head, pair.payload, pair.next]);
            }
        }
        keys.push(direction_keys(&[0; 32], &[2; 32], CONTEXT, 0).unwrap().head);
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), count), (49, 49));
    }

    #[test]
    fn each_attempt_to_bind_has_its_own_psk() {
        let secret = BindSecret([5; 32]);
        let psk = |session, number, nonce| {
            *bind_psk(&secret, SessionId([session; 16]), ChannelNumber(number), AttemptNonce([nonce; 16]))
                .unwrap()
        };
        let first = psk(1, 1, 1);
        assert_eq!(first, psk(1, 1, 1));
        assert!([psk(2, 1, 1), psk(1, 2, 1), psk(1, 1, 2)].iter().all(|other| *other != first));
    }

    #[test]
    fn debug_shows_no_key() {
        let keys = split().into_client_keys(CONTEXT).unwrap();
        assert_eq!(format!("{keys:?}"), "RecordKeys { send: DirectionKeys(..), receive: DirectionKeys(..) }");
    }
}
