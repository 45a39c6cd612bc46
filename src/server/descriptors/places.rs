//! How many descriptors there may be. Whoever opens one has a [`Place`] before, and the place is given back when the
//! descriptor is really closed, whoever had it last: so there are never more than the bound, not for a moment.

use core::fmt;
use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// All places of a server.
pub(super) struct Places {
    max: usize,
    taken: AtomicUsize,
    /// Threads that wait for something to change here or in the table.
    listening: AtomicUsize,
    /// How often it did, while somebody was listening.
    changes: Mutex<u64>,
    changed: Condvar,
}

/// The right to have one descriptor open.
pub(in crate::server) struct Place(Arc<Places>);

/// Tells those who wait when it is dropped.
pub(super) struct Bell(Arc<Places>);

/// Somebody who is told of every change from now on.
pub(super) struct Listening<'a> {
    places: &'a Places,
    heard: u64,
}

impl Places {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            changes: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    /// Takes a place, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken: usize| (taken < self.max).then(|| taken.saturating_add(1));
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(self)))
    }

    /// A bell for whoever gives something back that others may wait for.
    pub(super) fn bell(self: &Arc<Self>) -> Bell {
        Bell(Arc::clone(self))
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Listens. What is looked at afterwards has either changed already, or its change will be heard.
    pub(super) fn listen(&self) -> Listening<'_> {
        self.listening.fetch_add(1, Ordering::SeqCst);
        // Either whoever changes something sees the listener, or the listener sees the change.
        fence(Ordering::SeqCst);
        Listening { places: self, heard: *self.changes.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Something has changed.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.listening.load(Ordering::SeqCst) > 0 {
            let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            *changes = changes.wrapping_add(1);
            self.changed.notify_all();
        }
    }
}

impl Listening<'_> {
    /// Waits for a change since [`Places::listen`], for so long at most.
    pub(super) fn wait(self, limit: Duration) {
        let changes = self.places.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it changed or not, the caller looks again.
        drop(self.places.changed.wait_timeout_while(changes, limit, |changes| *changes == self.heard));
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.places.listening.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.ring();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}
