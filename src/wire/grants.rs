//! How a client lets another one have a part in an open. What bears the key is in `control`. protocol.md: Grants.

use serde::{Deserialize, Serialize};

use crate::model::{GrantId, HandleId, PublicKey, Rights};

/// Let somebody else have a part in the open that a handle is a part of. Mutating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The handle.
    pub handle: HandleId,
    /// Who may have it.
    pub to: PublicKey,
    /// The rights that it is to have; never more than the handle's.
    pub rights: Rights,
    /// How long the grant lasts, in milliseconds; 0: as long as the open.
    pub lasts_ms: u64,
    /// Whether the server tells the grantee; if not, the giver gets the key and hands it on.
    pub deliver: bool,
    /// Whether the handle is closed when the grantee has taken the grant.
    pub gives_up: bool,
}

/// Take a grant back, with all that came of it. Mutating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// A handle of the open.
    pub handle: HandleId,
    /// The grant.
    pub grant: GrantId,
}

/// Get the key of a grant that was offered; it is used as any resume key. Mutating: the key replaces one that was given
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeGrant {
    /// The grant.
    pub grant: GrantId,
}
