//! What an identity may do on a server: the parsed form of one entry of its list of clients.

use std::collections::{BTreeMap, BTreeSet};

use super::{ExportName, Protection, PublicKey, Rights};

/// What one client may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// What the server's logs call the client.
    pub name: String,
    /// The exports that exist for this client.
    pub exports: BTreeSet<ExportName>,
    /// The most that a handle of this client can have.
    pub rights: Rights,
    /// The weakest protection that its data channels may have.
    pub protection_min: Protection,
    /// Until when the entry holds, in seconds since 1970 by the server's clock; `None`: for good.
    pub expires_s: Option<u64>,
}

/// Everybody who may connect, and the server's own minimum.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// The allowed clients, by their keys.
    pub clients: BTreeMap<PublicKey, Access>,
}

impl Policy {
    /// What `client` may do at `now_s` (seconds since 1970); `None` if it may do nothing.
    #[must_use]
    pub fn access(&self, client: &PublicKey, now_s: u64) -> Option<&Access> {
        self.clients.get(client).filter(|access| access.expires_s.is_none_or(|end| now_s < end))
    }
}
