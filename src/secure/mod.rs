//! Identities, handshakes, record keys and records: bytes in, bytes out; randomness is handed in.
//!
//! ```text
//! Identity ── SessionInitiator / SessionResponder   Noise IK      ──┐
//!             BindInitiator    / BindResponder      Noise KKpsk0  ──┴─> RecordKeys ──> Sealer, Opener
//!             EnrolInitiator   / EnrolResponder     Noise XX      ────> the server's PublicKey, and no more
//! ```
//!
//! - One struct for each phase of a handshake; its step consumes it. Nothing of Noise is left after the last
//!   step: the crate `snow` runs the handshakes, and records have a layer of their own ([`Sealer`], [`Opener`]),
//!   because Noise's transport messages have no associated data and end at 64 KiB.
//! - A handshake never falls back to another one, and all ways to fail a bind look alike.
//! - A [`Sealer`] or an [`Opener`] belongs to one stream of messages, so what only a control channel may carry
//!   cannot reach a data channel.
//!
//! # What is wiped, and what is not
//!
//! Wiped when dropped: [`Identity`], ephemeral secrets and the bytes they come of, [`DirectionKeys`], the ciphers
//! made of them, the PSK of a bind, and the bodies of control messages once they are decoded.
//!
//! Not wiped: what `snow` keeps in its `HandshakeState`. Static and ephemeral secrets are not among it, because the
//! Diffie-Hellman that this module hands to `snow` wipes its own. But the chaining key, the copy of the PSK, the
//! keys of its cipher states (the handshake's and, after the last message, the raw split), the state of its hash,
//! and the copies that its functions make of these on the stack stay in freed memory until something overwrites
//! them. The state lives from the first message to the second one at most, and is dropped with the split.

mod cipher;
mod enrol;
mod handshake;
mod identity;
mod keys;
pub mod mac1;
mod noise;
mod record;

pub use cipher::suites;
pub use enrol::{EnrolInitiator, EnrolResponder};
pub use handshake::{BindInitiator, BindResponder, HandshakeError, SessionInitiator, SessionResponder};
pub use identity::{Identity, IdentityTextError};
pub use keys::{DirectionKeys, RecordKeys};
pub use record::{Incoming, KeyUse, Opener, Payload, RecordError, Sealer};
