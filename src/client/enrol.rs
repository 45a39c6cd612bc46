//! Before a server is pinned: learning its key, and proving the one that the user was told.
//!
//! The two never mix. [`server_key`] asks whoever answers for a key and believes it nothing else; [`prove`] knows the
//! key, and a server that cannot prove it is told nothing, least of all asked for another one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connect::{self, Party};
use super::error::Error;
use super::peers::LineConfig;
use crate::model::{Entropy as _, InstanceId, Limits, LineId, PublicKey, SessionId, SuiteSet};
use crate::net::{Buffers, Clock, GreetingError, SystemEntropy, Via, exchange, socket};
use crate::secure::{EnrolInitiator, HandshakeError, Identity};
use crate::wire::control::{Purpose, WelcomeAnswer};
use crate::wire::hello::EnrolOffer;

/// The key that whoever answers at `address` shows, within `limit`. It has proven that it has the secret half. That it
/// is the server which the user means is for the user to find out, by another way: compare the key, or its
/// fingerprint, with what `bowline key show` prints on that machine.
///
/// Nothing is told but that somebody asks: the client's identity takes no part.
///
/// # Errors
/// [`Error::Unreachable`]; [`Error::KeyNotShown`] if the connection is closed instead;
/// [`Error::HandshakeTimedOut`]; [`Error::Protocol`] for an answer that does not verify; [`Error::Entropy`].
///
/// # Cancel safety
/// Dropping the future closes the connection; nothing is left of it.
pub async fn server_key(address: SocketAddr, via: Option<&Via>, limit: Duration) -> Result<PublicKey, Error> {
    let asking = async {
        let (initiator, hello) =
            EnrolInitiator::begin(EnrolOffer::OURS, &mut SystemEntropy).map_err(|error| match error {
                HandshakeError::Entropy(error) => Error::Entropy(error),
                _ => Error::Protocol,
            })?;
        let unreachable = |source| Error::Unreachable { peer: address.to_string(), address, source };
        let mut stream = socket::connect(address, via).await.map_err(unreachable)?;
        let message = exchange(&mut stream, &hello).await.map_err(|error| match error {
            GreetingError::Connection(_) => Error::KeyNotShown { address },
            GreetingError::Hello(_) => Error::Protocol,
        })?;
        initiator.finish(&message).map_err(|_| Error::Protocol)
    };
    Clock.timeout(limit, asking).await.unwrap_or(Err(Error::HandshakeTimedOut { address, limit }))
}

/// Proves that the server at `address` has the secret half of `key` and lists this client. It takes one handshake and
/// one record each way, each within `limit`; no session stays.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::HandshakeTimedOut`]; [`Error::HandshakeRefused`] if the server closes the
/// connection, which it does for another key as for a client that it does not list; [`Error::ServerKeyChanged`] for an
/// answer that this key did not make; [`Error::Protocol`], [`Error::Entropy`].
///
/// # Cancel safety
/// Dropping the future closes the connection; nothing is left of it.
pub async fn prove(
    identity: &Arc<Identity>,
    key: &PublicKey,
    address: SocketAddr,
    via: Option<&Via>,
    limit: Duration,
) -> Result<(), Error> {
    let party = Party {
        identity: Arc::clone(identity),
        instance: InstanceId(SystemEntropy.bytes()?),
        server: *key,
        clock: Clock,
        limit,
        buffers: Buffers::default(),
        rekey: (&Limits::default()).into(),
        suites: SuiteSet::ALWAYS,
        epochs: Arc::default(),
    };
    let line = LineConfig { via: via.cloned(), ..LineConfig::new(address) };
    let proven = connect::prove(&party, &address.to_string(), LineId(0), &line).await?;
    // A question with one answer: nobody has a session of a name that was drawn just now.
    let purpose = Purpose::Ask(SessionId(SystemEntropy.bytes()?));
    match connect::first_record(&party, proven, purpose).await? {
        (_, WelcomeAnswer::Gone) => Ok(()),
        _ => Err(Error::Protocol),
    }
}
