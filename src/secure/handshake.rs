//! The two handshakes that lead to channels, client and server side. protocol.md: Handshakes. The third one, which
//! leads nowhere, is in `enrol`.
//!
//! - Noise `IK` starts a session: the client knows the server's key and tells its own, encrypted. The first channel
//!   has number 0.
//! - Noise `KKpsk0` binds a further channel: both prove their keys again, and that they know the session's secret.
//!
//! The hello's offer is the prologue, the server's choice the payload of message 2. Message 1 has no payload: it
//! can be sent again by anyone who saw it, so nothing may come of it before the client's first record.

use snow::HandshakeState;
use thiserror::Error;

use super::Identity;
use super::keys::{Context, RecordKeys, bind_psk};
use super::mac1::mac1;
use super::noise::{self, Setup};
use crate::model::{
    ChannelKind, ChannelNumber, Entropy, EntropyError, Protection, PublicKey, SessionId, Suite,
};
use crate::wire::control::BindSecret;
use crate::wire::hello::{self, BindChoice, BindOffer, Hello, Offer, SessionChoice, SessionOffer};
use crate::wire::{DecodeError, codec};

/// Why a handshake ended. Variants are in order of blame: the peer, the caller, this end.
#[derive(Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's message was changed, cut, or made with other keys, another secret or another offer than ours:
    /// these cannot be told apart.
    #[error("the peer's handshake message does not verify")]
    Peer(#[source] snow::Error),
    /// A public key that adds nothing to the secret, or that is another spelling of one.
    #[error("a public key in the handshake is of low order or not in its one form")]
    WeakKey,
    /// The server's choice does not decode.
    #[error("the server's choice is malformed")]
    Choice(#[source] DecodeError),
    /// The choice is outside what was offered, or weaker.
    #[error("the server's choice is not one that the client offered")]
    Unoffered,
    /// The server speaks this version of the protocol, and none that was offered. It is the server's own word.
    #[error("the server speaks version {0} of the protocol")]
    OtherVersion(u16),
    /// The hello begins the other handshake.
    #[error("the hello begins another handshake than the one it is read for")]
    OtherPattern,
    /// The offer names a protection that the channel's kind cannot have: control channels are sealed.
    #[error("a {kind} channel cannot be {protection}")]
    Protection {
        /// What the channel is for.
        kind: ChannelKind,
        /// The protection that was to be offered.
        protection: Protection,
    },
    /// There are no random bytes.
    #[error("the handshake has no random bytes")]
    Entropy(#[from] EntropyError),
    /// The handshake cannot go on for a reason of this end.
    #[error("the handshake failed at this end")]
    Local(#[source] snow::Error),
    /// A key was asked for that cannot be derived.
    #[error("a key of the handshake cannot be derived")]
    Derive,
}

/// A client that has sent its hello for a session.
#[derive(Debug)]
pub struct SessionInitiator {
    state: HandshakeState,
    offer: SessionOffer,
}

/// A server that has read a client's hello for a session.
#[derive(Debug)]
pub struct SessionResponder {
    state: HandshakeState,
    offer: SessionOffer,
    client: PublicKey,
}

/// A client that has sent its hello for a further channel.
#[derive(Debug)]
pub struct BindInitiator {
    state: HandshakeState,
    offer: BindOffer,
    session: SessionId,
}

/// A server that has read a client's hello for a further channel.
#[derive(Debug)]
pub struct BindResponder {
    state: HandshakeState,
    offer: BindOffer,
    session: SessionId,
}

impl SessionInitiator {
    /// Begins a session with `server`; the bytes are the whole hello.
    ///
    /// # Errors
    /// [`HandshakeError::WeakKey`] for a server key of low order, [`HandshakeError::Entropy`],
    /// [`HandshakeError::Local`].
    pub fn begin(
        identity: &Identity,
        server: &PublicKey,
        offer: SessionOffer,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let prologue = hello::prologue(&Offer::Session(offer));
        let setup = session_setup(&prologue, identity, Some(server));
        let mut state = setup.initiator(entropy)?;
        let noise = noise::write(&mut state, &[])?;
        Ok((Self { state, offer }, whole_hello(server, &prologue, &noise)))
    }

    /// Ends the handshake with the server's message 2, without its length.
    ///
    /// # Errors
    /// [`HandshakeError::Peer`] for a message that does not verify, [`HandshakeError::WeakKey`],
    /// [`HandshakeError::Choice`], [`HandshakeError::OtherVersion`] for a version outside the offer,
    /// [`HandshakeError::Derive`].
    pub fn finish(mut self, message2: &[u8]) -> Result<(SessionChoice, RecordKeys), HandshakeError> {
        let payload = noise::read(&mut self.state, message2)?;
        let choice: SessionChoice = codec::decode(&payload).map_err(HandshakeError::Choice)?;
        if !self.offer.has(choice.version) {
            return Err(HandshakeError::OtherVersion(choice.version));
        }
        let keys = noise::split(self.state)?.into_client_keys(first_channel(&choice))?;
        Ok((choice, keys))
    }
}

impl SessionResponder {
    /// Reads a hello for a session. The caller has verified its [`mac1`] before, because this costs three
    /// Diffie-Hellmans.
    ///
    /// # Errors
    /// [`HandshakeError::Peer`] for a message that does not verify or has a payload, [`HandshakeError::WeakKey`],
    /// [`HandshakeError::OtherPattern`], [`HandshakeError::Entropy`], [`HandshakeError::Local`].
    ///
    /// [`mac1`]: super::mac1::verify
    pub fn read(
        identity: &Identity,
        hello: &Hello,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, HandshakeError> {
        let Offer::Session(offer) = hello.offer else {
            return Err(HandshakeError::OtherPattern);
        };
        let mut state = session_setup(&hello.prologue, identity, None).responder(entropy)?;
        read_hello(&mut state, hello)?;
        let client = noise::remote_key(&state)?;
        Ok(Self { state, offer, client })
    }

    /// Ends the handshake; the bytes are message 2 behind its length.
    ///
    /// # Errors
    /// [`HandshakeError::Unoffered`] for a version outside the offer, [`HandshakeError::WeakKey`],
    /// [`HandshakeError::Local`], [`HandshakeError::Derive`].
    pub fn finish(mut self, choice: SessionChoice) -> Result<(Vec<u8>, RecordKeys), HandshakeError> {
        if !self.offer.has(choice.version) {
            return Err(HandshakeError::Unoffered);
        }
        let message2 = write_choice(&mut self.state, &choice)?;
        let keys = noise::split(self.state)?.into_server_keys(first_channel(&choice))?;
        Ok((message2, keys))
    }

    /// Ends the handshake without keys, because the client offers no version that this end speaks: the bytes are message 2
    /// behind its length, which tells `version`. Only the client that the hello names can read it, and knows whose word it
    /// is.
    ///
    /// # Errors
    /// [`HandshakeError::WeakKey`], [`HandshakeError::Local`].
    pub fn decline(mut self, version: u16) -> Result<Vec<u8>, HandshakeError> {
        write_choice(&mut self.state, &SessionChoice { version, session: SessionId([0; 16]) })
    }

    /// The client that the hello names. It is proven by the client's first record only: a hello can be sent again.
    #[must_use]
    pub fn client(&self) -> PublicKey {
        self.client
    }

    /// What the client offers.
    #[must_use]
    pub fn offer(&self) -> SessionOffer {
        self.offer
    }
}

impl BindInitiator {
    /// Begins to bind a channel to `session`; the bytes are the whole hello.
    ///
    /// # Errors
    /// [`HandshakeError::Protection`] for an offer that no channel can have, [`HandshakeError::WeakKey`] for a server
    /// key of low order, [`HandshakeError::Entropy`], [`HandshakeError::Local`], [`HandshakeError::Derive`].
    pub fn begin(
        identity: &Identity,
        server: &PublicKey,
        secret: &BindSecret,
        session: SessionId,
        offer: BindOffer,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        if !allowed(offer.kind, offer.protection) {
            return Err(HandshakeError::Protection { kind: offer.kind, protection: offer.protection });
        }
        let prologue = hello::prologue(&Offer::Bind(offer));
        let psk = bind_psk(secret, session, offer.number, offer.nonce)?;
        let mut state = bind_setup(&prologue, identity, server, &psk).initiator(entropy)?;
        let noise = noise::write(&mut state, &[])?;
        Ok((Self { state, offer, session }, whole_hello(server, &prologue, &noise)))
    }

    /// Ends the handshake with the server's message 2, without its length.
    ///
    /// # Errors
    /// [`HandshakeError::Peer`] for a message that does not verify, [`HandshakeError::WeakKey`],
    /// [`HandshakeError::Choice`], [`HandshakeError::Unoffered`] for a weaker protection or another suite than
    /// offered, [`HandshakeError::Derive`].
    pub fn finish(mut self, message2: &[u8]) -> Result<(BindChoice, RecordKeys), HandshakeError> {
        let payload = noise::read(&mut self.state, message2)?;
        let choice: BindChoice = codec::decode(&payload).map_err(HandshakeError::Choice)?;
        check_choice(&self.offer, &choice)?;
        let context = bound_channel(self.session, &self.offer, &choice);
        Ok((choice, noise::split(self.state)?.into_client_keys(context)?))
    }
}

impl BindResponder {
    /// Reads a hello for a further channel of `session`, which belongs to `client`. The caller has verified its
    /// [`mac1`] before.
    ///
    /// # Errors
    /// [`HandshakeError::Peer`] for a message that does not verify or has a payload, whatever is wrong with it;
    /// [`HandshakeError::WeakKey`], [`HandshakeError::OtherPattern`], [`HandshakeError::Entropy`],
    /// [`HandshakeError::Local`], [`HandshakeError::Derive`].
    ///
    /// [`mac1`]: super::mac1::verify
    pub fn read(
        identity: &Identity,
        client: &PublicKey,
        secret: &BindSecret,
        session: SessionId,
        hello: &Hello,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, HandshakeError> {
        let Offer::Bind(offer) = hello.offer else {
            return Err(HandshakeError::OtherPattern);
        };
        let psk = bind_psk(secret, session, offer.number, offer.nonce)?;
        let mut state = bind_setup(&hello.prologue, identity, client, &psk).responder(entropy)?;
        read_hello(&mut state, hello)?;
        Ok(Self { state, offer, session })
    }

    /// Stands in for [`BindResponder::read`] where no session has the hello's locator: does the same work against
    /// random keys, and always fails, with the error that a wrong secret gives. So neither answer nor time tells which
    /// locators are in use.
    ///
    /// # Errors
    /// As [`BindResponder::read`].
    pub fn decoy(
        identity: &Identity,
        hello: &Hello,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, HandshakeError> {
        let mut secret = BindSecret([0; 32]);
        let mut client = PublicKey([0; 32]);
        let mut session = SessionId([0; 16]);
        entropy.fill(&mut secret.0)?;
        entropy.fill(&mut client.0)?;
        entropy.fill(&mut session.0)?;
        Self::read(identity, &client, &secret, session, hello, entropy)
            .and(Err(HandshakeError::Peer(snow::Error::Decrypt)))
    }

    /// Ends the handshake; the bytes are message 2 behind its length.
    ///
    /// # Errors
    /// [`HandshakeError::Unoffered`] for a weaker protection or another suite than offered,
    /// [`HandshakeError::WeakKey`], [`HandshakeError::Local`], [`HandshakeError::Derive`].
    pub fn finish(mut self, choice: BindChoice) -> Result<(Vec<u8>, RecordKeys), HandshakeError> {
        check_choice(&self.offer, &choice)?;
        let message2 = write_choice(&mut self.state, &choice)?;
        let context = bound_channel(self.session, &self.offer, &choice);
        Ok((message2, noise::split(self.state)?.into_server_keys(context)?))
    }

    /// What the client offers.
    #[must_use]
    pub fn offer(&self) -> BindOffer {
        self.offer
    }
}

fn session_setup<'a>(prologue: &'a [u8], identity: &'a Identity, remote: Option<&'a PublicKey>) -> Setup<'a> {
    Setup { name: noise::SESSION, prologue, identity, remote, psk: None }
}

fn bind_setup<'a>(
    prologue: &'a [u8],
    identity: &'a Identity,
    remote: &'a PublicKey,
    psk: &'a [u8; 32],
) -> Setup<'a> {
    Setup { name: noise::BIND, prologue, identity, remote: Some(remote), psk: Some(psk) }
}

pub(super) fn whole_hello(server: &PublicKey, prologue: &[u8], noise: &[u8]) -> Vec<u8> {
    let mut bytes = hello::checked(prologue, noise);
    bytes.extend(mac1(server, &bytes));
    bytes
}

pub(super) fn read_hello(state: &mut HandshakeState, hello: &Hello) -> Result<(), HandshakeError> {
    let payload = noise::read(state, &hello.noise)?;
    if payload.is_empty() { Ok(()) } else { Err(HandshakeError::Peer(snow::Error::Input)) }
}

pub(super) fn write_choice<C: serde::Serialize>(
    state: &mut HandshakeState,
    choice: &C,
) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = Vec::new();
    codec::encode(choice, &mut payload);
    noise::write(state, &payload).map(|message| hello::framed(&message))
}

/// The server may choose a stronger protection than the offered one, and nothing else. Control channels have one suite.
fn check_choice(offer: &BindOffer, choice: &BindChoice) -> Result<(), HandshakeError> {
    let has_suite = offer.kind == ChannelKind::Data || choice.suite == Suite::ChaCha20Poly1305;
    let offered = has_suite
        && choice.suite == offer.suite
        && choice.protection >= offer.protection
        && allowed(offer.kind, choice.protection);
    if offered { Ok(()) } else { Err(HandshakeError::Unoffered) }
}

/// Whether a channel of `kind` can have `protection`.
pub(super) fn allowed(kind: ChannelKind, protection: Protection) -> bool {
    match kind {
        ChannelKind::Control => protection == Protection::Sealed,
        ChannelKind::Data => true,
    }
}

fn first_channel(choice: &SessionChoice) -> Context {
    Context { suite: Suite::ChaCha20Poly1305, session: choice.session, channel: ChannelNumber(0) }
}

fn bound_channel(session: SessionId, offer: &BindOffer, choice: &BindChoice) -> Context {
    Context { suite: choice.suite, session, channel: offer.number }
}

#[cfg(test)]
mod tests;
