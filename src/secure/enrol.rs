//! The handshake by which a client learns a server's key. protocol.md: Hello, pattern 3.
//!
//! ```text
//! client: e
//! server: e, ee, s, es; payload: the choice        the key, and the proof that the server has its secret half
//! (the third message of XX, which would tell the client's key, is never made)
//! ```
//!
//! It ends there. What comes of it is a [`PublicKey`]: no session, no record and no keys, so that nothing can be said
//! over a connection whose other end has been vouched for by nobody. The client has no identity here: `snow` wants a
//! static key for the third message, and gets one that is thrown away.

use snow::HandshakeState;

use super::Identity;
use super::handshake::{HandshakeError, read_hello, whole_hello, write_choice};
use super::mac1::NO_KEY;
use super::noise::{self, Setup};
use crate::model::{Entropy, PublicKey};
use crate::wire::codec;
use crate::wire::hello::{self, EnrolChoice, EnrolOffer, Hello, Offer};

/// A client that has asked for a server's key.
///
/// ```
/// use bowline::model::PublicKey;
/// use bowline::secure::{EnrolInitiator, HandshakeError};
///
/// /// All that an enrolment can lead to: there is nothing in it to make a channel of.
/// const END: fn(EnrolInitiator, &[u8]) -> Result<PublicKey, HandshakeError> = EnrolInitiator::finish;
/// ```
#[derive(Debug)]
pub struct EnrolInitiator {
    state: HandshakeState,
    offer: EnrolOffer,
}

/// A server that was asked for its key.
#[derive(Debug)]
pub struct EnrolResponder {
    state: HandshakeState,
    offer: EnrolOffer,
}

impl EnrolInitiator {
    /// Asks a server for its key; the bytes are the whole hello. They are the same for every client and every server,
    /// but for the ephemeral key.
    ///
    /// # Errors
    /// [`HandshakeError::Entropy`], [`HandshakeError::Local`].
    pub fn begin(offer: EnrolOffer, entropy: &mut dyn Entropy) -> Result<(Self, Vec<u8>), HandshakeError> {
        let nobody = Identity::generate(entropy)?;
        let prologue = hello::prologue(&Offer::Enrol(offer));
        let mut state = setup(&prologue, &nobody).initiator(entropy)?;
        let noise = noise::write(&mut state, &[])?;
        Ok((Self { state, offer }, whole_hello(&NO_KEY, &prologue, &noise)))
    }

    /// The key that the server's message 2, without its length, shows. The server has proven that it has the secret
    /// half; that it is the server which the user means, it cannot prove.
    ///
    /// # Errors
    /// [`HandshakeError::Peer`] for a message that does not verify, [`HandshakeError::WeakKey`],
    /// [`HandshakeError::Choice`], [`HandshakeError::Unoffered`] for a version outside the offer.
    pub fn finish(mut self, message2: &[u8]) -> Result<PublicKey, HandshakeError> {
        let payload = noise::read(&mut self.state, message2)?;
        let choice: EnrolChoice = codec::decode(&payload).map_err(HandshakeError::Choice)?;
        if !self.offer.allows(choice) {
            return Err(HandshakeError::Unoffered);
        }
        noise::remote_key(&self.state)
    }
}

impl EnrolResponder {
    /// Reads a hello that asks for the key. It costs no Diffie-Hellman yet.
    ///
    /// # Errors
    /// [`HandshakeError::Peer`] for a message that has another form or a payload,
    /// [`HandshakeError::OtherPattern`], [`HandshakeError::Entropy`], [`HandshakeError::Local`].
    pub fn read(
        identity: &Identity,
        hello: &Hello,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, HandshakeError> {
        let Offer::Enrol(offer) = hello.offer else {
            return Err(HandshakeError::OtherPattern);
        };
        let mut state = setup(&hello.prologue, identity).responder(entropy)?;
        read_hello(&mut state, hello)?;
        Ok(Self { state, offer })
    }

    /// Shows the key; the bytes are message 2 behind its length. This costs two Diffie-Hellmans and the making of a
    /// key.
    ///
    /// # Errors
    /// [`HandshakeError::Unoffered`] for a version outside the offer, [`HandshakeError::WeakKey`] for a client's
    /// ephemeral key of low order, [`HandshakeError::Local`].
    pub fn finish(mut self, choice: EnrolChoice) -> Result<Vec<u8>, HandshakeError> {
        if !self.offer.allows(choice) {
            return Err(HandshakeError::Unoffered);
        }
        write_choice(&mut self.state, &choice)
    }

    /// What the client offers.
    #[must_use]
    pub fn offer(&self) -> EnrolOffer {
        self.offer
    }
}

fn setup<'a>(prologue: &'a [u8], identity: &'a Identity) -> Setup<'a> {
    Setup { name: noise::ENROL, prologue, identity, remote: None, psk: None }
}

#[cfg(test)]
mod tests;
