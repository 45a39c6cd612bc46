//! Showing the server's key to somebody who does not know it yet. protocol.md: Hello, pattern 3.
//!
//! Whoever asks is nobody: there is no identity to look up, nothing is kept, and nothing follows the one answer. So
//! this is the only handshake that a server may switch off, and the one whose rate is bounded by itself.

use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use super::shared::Shared;
use crate::net::{NotDone, SystemEntropy};
use crate::secure::{EnrolResponder, HandshakeError, Identity};
use crate::wire::hello::{EnrolOffer, Hello};

/// Why the key was not shown. For our log; the other side sees a closed connection in every case.
#[derive(Debug, Error)]
pub(super) enum NotShown {
    #[error("enrolment is switched off")]
    Off,
    #[error("the server's key was asked for too often just before")]
    TooOften,
    #[error("the client speaks no version that this server does")]
    Version,
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    #[error("the handshake cannot be computed")]
    NotComputed(#[from] NotDone),
}

/// Message 2, behind its length, with the key that this server has now. The connection ends behind it.
///
/// # Cancel safety
/// Dropping the future asks nobody again.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    identity: Arc<Identity>,
    (hello, offer, source): (Hello, EnrolOffer, IpAddr),
) -> Result<Vec<u8>, NotShown> {
    // Before any Diffie-Hellman, which is what a flood of these would be after.
    if !shared.enrolment {
        return Err(NotShown::Off);
    }
    // What is not going to be answered takes nothing from others.
    let choice = offer.choice().ok_or(NotShown::Version)?;
    if !shared.gate.may_enrol(source) {
        return Err(NotShown::TooOften);
    }
    let step = move || EnrolResponder::read(&identity, &hello, &mut SystemEntropy)?.finish(choice);
    Ok(shared.compute(step).await??)
}
