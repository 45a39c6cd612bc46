//! Entries that follow their handles: when a session has come back, each handle has another number and another key, and its
//! entry gets them. The former key stays good for a while, but not for ever, so a ring that was not written again would some
//! day be worth nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::format::Entry;
use super::{Kept, KeptOpen, KeyRing, KeyRingError};
use crate::client::session::Inner;
use crate::model::HandleId;
use crate::net::Clock;

/// A handle's entry in a ring, whichever it is by now. It stays when this is dropped.
pub(in crate::client) struct Keeper {
    ring: Arc<KeyRing>,
    kept: KeptOpen,
    /// The handle that the entry names. Who holds it writes the next one.
    named: tokio::sync::Mutex<HandleId>,
    /// None once it was forgotten.
    entry: Mutex<Option<Kept>>,
}

/// The entries of a session's handles, by the names of the handles.
#[derive(Debug, Default)]
pub(in crate::client) struct Keepers(Mutex<HashMap<HandleId, Weak<Keeper>>>);

impl Keeper {
    pub(super) fn new(ring: &Arc<KeyRing>, kept: KeptOpen, named: HandleId, entry: Kept) -> Self {
        let (named, entry) = (tokio::sync::Mutex::new(named), Mutex::new(Some(entry)));
        Self { ring: Arc::clone(ring), kept, named, entry }
    }

    /// Wipes the entry: its handle is closed.
    pub(in crate::client) fn forget(&self) {
        if let Some(entry) = self.lock().take() {
            entry.forget();
        }
    }

    /// Writes the entry anew if its handle is another one by now. The old one is wiped when the disk has the new one: a
    /// process that dies in between leaves both, and the new one names the other.
    async fn renew(&self, inner: &Inner, name: HandleId) -> Result<(), KeyRingError> {
        let mut named = self.named.lock().await;
        let now = {
            let state = inner.lock();
            let key = state.core.resume_key(name);
            key.map(|key| (key, state.core.current(name), state.core.terms().verifier.store))
        };
        let Some((key, handle, store)) = now.filter(|(_, handle, _)| *handle != *named) else {
            return Ok(());
        };
        let kept = KeptOpen { kept_us: Clock.wall_us(), ..self.kept.clone() };
        let entry = Entry { kept, store, handle, in_place_of: Some(*named), key };
        let added = self.ring.add(&entry)?;
        drop(entry);
        if let Err(error) = self.ring.settle(&inner.runtime).await {
            added.forget();
            return Err(error);
        }
        let mut present = self.lock();
        match present.replace(added) {
            Some(former) => former.forget(),
            // The handle was closed meanwhile.
            None => present.take().into_iter().for_each(Kept::forget),
        }
        *named = handle;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keepers {
    pub(super) fn insert(&self, name: HandleId, keeper: &Arc<Keeper>) {
        self.lock().insert(name, Arc::downgrade(keeper));
    }

    pub(in crate::client) fn remove(&self, name: HandleId) {
        self.lock().remove(&name);
    }

    /// A handle has come back with another number, and perhaps another key.
    pub(in crate::client) fn renew(&self, inner: &Arc<Inner>, name: HandleId) {
        let Some(keeper) = self.lock().get(&name).and_then(Weak::upgrade) else { return };
        let inner = Arc::clone(inner);
        inner.runtime.clone().spawn(async move {
            // The former key stays in the ring then, and is good for a while.
            if let Err(error) = keeper.renew(&inner, name).await {
                tracing::warn!(%error, "the new resume key of a file is not in its ring");
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HandleId, Weak<Keeper>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}
