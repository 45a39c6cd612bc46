//! By what a client knows whether the server can still have bytes that it acknowledged without making them durable.

use serde::{Deserialize, Serialize};

use super::{BootId, StoreId};

/// Unchanged while bytes that were acknowledged as received are still in the page cache that holds them. A client that
/// finds another one than before has to send the bytes again that it knows of as received and not as durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Verifier {
    /// The data store.
    pub store: StoreId,
    /// The running system of the host that serves it: its page cache ends with it.
    pub boot: BootId,
    /// How often another host has taken the store over.
    pub takeovers: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_store_boot_or_host_is_another_verifier() {
        let verifier = Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 3 };
        assert_ne!(verifier, Verifier { store: StoreId([2; 16]), ..verifier });
        assert_ne!(verifier, Verifier { boot: BootId([1; 16]), ..verifier });
        assert_ne!(verifier, Verifier { takeovers: 4, ..verifier });
    }
}
