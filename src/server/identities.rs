//! The server's keys: the one that it has, and while it changes the one that it had.

use std::sync::Arc;

use crate::secure::{Identity, mac1};
use crate::session::server::ServerKeys;
use crate::wire::hello::Hello;

/// The keys that are valid. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Identities {
    current: Arc<Identity>,
    previous: Option<Arc<Identity>>,
}

impl Identities {
    pub(super) fn new(current: Arc<Identity>, previous: Option<Arc<Identity>>) -> Self {
        let previous = previous.filter(|previous| previous.public() != current.public());
        Self { current, previous }
    }

    /// The key that a hello was made for. Its keyed check tells, for about a microsecond and without memory.
    pub(super) fn meant_by(&self, hello: &Hello) -> Option<Arc<Identity>> {
        let mut valid = std::iter::once(&self.current).chain(&self.previous);
        valid.find(|identity| mac1::verify(&identity.public(), hello)).map(Arc::clone)
    }

    pub(super) fn public(&self) -> ServerKeys {
        ServerKeys {
            current: self.current.public(),
            previous: self.previous.as_ref().map(|previous| previous.public()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SystemEntropy;
    use crate::secure::SessionInitiator;
    use crate::wire::hello::SessionOffer;

    #[test]
    fn a_hello_tells_which_key_it_was_made_for() {
        let new = || Arc::new(Identity::generate(&mut SystemEntropy).unwrap());
        let (current, previous, other, client) = (new(), new(), new(), new());
        let identities = Identities::new(Arc::clone(&current), Some(Arc::clone(&previous)));
        let meant = |identities: &Identities, key| {
            let begun =
                SessionInitiator::begin(&client, &key, SessionOffer::OURS, &mut SystemEntropy).unwrap();
            identities.meant_by(&Hello::decode(&begun.1).unwrap()).map(|identity| identity.public())
        };
        for identity in [&current, &previous] {
            assert_eq!(meant(&identities, identity.public()), Some(identity.public()));
        }
        assert_eq!(meant(&identities, other.public()), None);
        let alone = Identities::new(Arc::clone(&current), None);
        assert_eq!(meant(&alone, previous.public()), None);
        let twice = Identities::new(Arc::clone(&current), Some(current));
        assert_eq!(twice.public().previous, None, "one key is not valid twice");
    }
}
