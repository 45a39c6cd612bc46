//! Showing the server's key to somebody who does not know it yet. protocol.md: Hello, pattern 3.
//!
//! Whoever asks is nobody: there is no identity to look up, nothing is kept, and nothing follows the one answer. So
//! this is the only handshake that a server may switch off, and the one whose rate is bounded by itself.

use thiserror::Error;

use super::shared::Shared;
use crate::net::SystemEntropy;
use crate::secure::{EnrolResponder, HandshakeError};
use crate::wire::hello::{EnrolOffer, Hello};

/// Why the key was not shown. For our log; the other side sees a closed connection in every case.
#[derive(Debug, Error)]
pub(super) enum NotShown {
    #[error("enrolment is switched off")]
    Off,
    #[error("the client speaks no version that this server does")]
    Version,
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
}

/// Message 2, behind its length, with the key that this server has now. The connection ends behind it.
pub(super) fn answer(shared: &Shared, hello: &Hello, offer: EnrolOffer) -> Result<Vec<u8>, NotShown> {
    // Before any Diffie-Hellman, which is what a flood of these would be after.
    if !shared.may_enrol() {
        return Err(NotShown::Off);
    }
    let choice = offer.choice().ok_or(NotShown::Version)?;
    let responder = EnrolResponder::read(shared.identity(), hello, &mut SystemEntropy)?;
    Ok(responder.finish(choice)?)
}
