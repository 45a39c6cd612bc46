//! What an identity may do on a server, and how its data channels must be protected there at least: the parsed form of
//! its list of clients, and the one rule by which the server's own demands and the list's make one minimum.

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

/// Everybody who may connect.
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

/// The least protection that a server demands of data channels by its own settings, beside the list of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtectionMinima {
    /// Of every data channel.
    pub server: Protection,
    /// Of the data channels of every client that may use the export. An export that is not here demands as little as
    /// one with [`Protection::Clear`]: nothing of its own.
    pub exports: BTreeMap<ExportName, Protection>,
}

/// What is in force: every minimum with everything that is stricter taken into account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EffectiveProtection {
    /// Of every data channel.
    pub server: Protection,
    /// Of the data channels of every client that may use the export.
    pub exports: BTreeMap<ExportName, Protection>,
    /// Of each client's data channels, by the client's name.
    pub clients: BTreeMap<String, Protection>,
}

impl ProtectionMinima {
    /// The weakest protection that data channels of a client with this entry may have: the strictest of what the
    /// server, the entry and each export of the entry demand. A data channel carries reads and writes of all opens of
    /// its session, so that one strict export makes all of a client's data channels strict.
    #[must_use]
    pub fn of(&self, access: &Access) -> Protection {
        let exports = access.exports.iter().filter_map(|export| self.exports.get(export).copied());
        exports.fold(self.server.max(access.protection_min), Protection::max)
    }

    /// What is in force with this list of clients.
    #[must_use]
    pub fn effective(&self, policy: &Policy) -> EffectiveProtection {
        let clients = policy.clients.values().map(|access| (access.name.clone(), self.of(access)));
        EffectiveProtection {
            server: self.server,
            exports: self
                .exports
                .iter()
                .map(|(name, least)| (name.clone(), self.server.max(*least)))
                .collect(),
            clients: clients.collect(),
        }
    }
}

/// Data channels are signed at least, and no export demands more.
impl Default for ProtectionMinima {
    fn default() -> Self {
        Self { server: Protection::Signed, exports: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(name: &str) -> ExportName {
        name.parse().unwrap()
    }

    fn access(name: &str, exports: &[&str], protection_min: Protection) -> Access {
        Access {
            name: name.to_owned(),
            exports: exports.iter().map(|name| export(name)).collect(),
            rights: Rights::READ,
            protection_min,
            expires_s: None,
        }
    }

    #[test]
    fn the_strictest_demand_holds() {
        for &server in Protection::EACH {
            for &own in Protection::EACH {
                for &strict in Protection::EACH {
                    let minima = ProtectionMinima { server, exports: [(export("strict"), strict)].into() };
                    assert_eq!(
                        minima.of(&access("a", &["strict", "free"], own)),
                        server.max(own).max(strict)
                    );
                    assert_eq!(minima.of(&access("a", &["free"], own)), server.max(own));
                    assert_eq!(minima.of(&access("a", &[], own)), server.max(own));
                }
            }
        }
    }

    #[test]
    fn without_a_word_nothing_is_clear() {
        let minima = ProtectionMinima::default();
        assert_eq!(minima.of(&access("a", &["media"], Protection::Clear)), Protection::Signed);
    }

    #[test]
    fn what_is_in_force_is_told_for_all() {
        let minima = ProtectionMinima {
            server: Protection::Signed,
            exports: [(export("media"), Protection::Clear), (export("secret"), Protection::Sealed)].into(),
        };
        let entries = [
            access("a", &["media"], Protection::Clear),
            access("b", &["media", "secret"], Protection::Clear),
        ];
        let clients = (1..).zip(entries).map(|(key, access)| (PublicKey([key; 32]), access));
        let effective = minima.effective(&Policy { clients: clients.collect() });
        let expected = EffectiveProtection {
            server: Protection::Signed,
            exports: [(export("media"), Protection::Signed), (export("secret"), Protection::Sealed)].into(),
            clients: [("a".to_owned(), Protection::Signed), ("b".to_owned(), Protection::Sealed)].into(),
        };
        assert_eq!(effective, expected);
    }
}
