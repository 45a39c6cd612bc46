//! What became of a file while its holder was out of reach.

use core::fmt;

use serde::{Deserialize, Serialize};

/// What became of a file while no channel reached its holder: told with a resumed handle, to its rightful owner only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Meanwhile {
    /// Nothing: what the client knows of the file still holds.
    Unchanged,
    /// Another client has changed it.
    ChangedByClient,
    /// Somebody else than a client has changed it, such as a program on the server.
    ChangedLocally,
    /// It cannot be told.
    Unknown,
}

impl fmt::Display for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "unchanged",
            Self::ChangedByClient => "changed by another client",
            Self::ChangedLocally => "changed on the server",
            Self::Unknown => "cannot tell",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_words() {
        let all =
            [Meanwhile::Unchanged, Meanwhile::ChangedByClient, Meanwhile::ChangedLocally, Meanwhile::Unknown];
        let words = all.map(|meanwhile| meanwhile.to_string());
        assert_eq!(words, ["unchanged", "changed by another client", "changed on the server", "cannot tell"]);
    }
}
