//! Group commit: order, failures, and the end.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::model::Limits;
use crate::server::store::{Committer, MemoryStore};

/// A store that tells of each commit how many changes it has, and waits to be let go on.
struct Held {
    store: MemoryStore,
    begun: Sender<usize>,
    go_on: Receiver<Result<(), StoreError>>,
}

impl TableStore for Held {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        self.store.load()
    }

    fn check(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        self.store.check(batch)
    }

    fn commit(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        self.begun.send(batch.len()).unwrap();
        self.go_on.recv().unwrap()?;
        self.store.commit(batch)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.begun.send(usize::MAX).unwrap();
        self.store.close()
    }
}

/// What was told, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Heard>>>);

/// Whose batch, and what became of it.
type Heard = (usize, Result<(), Arc<StoreError>>);

impl Told {
    fn done(&self, at: usize) -> impl FnOnce(Result<(), Arc<StoreError>>) + Send + use<> {
        let told = self.clone();
        move |outcome| told.0.lock().unwrap().push((at, outcome))
    }

    fn take(&self) -> Vec<(usize, Result<(), Arc<StoreError>>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn held() -> (Committer, Receiver<usize>, Sender<Result<(), StoreError>>) {
    let (begun, begins) = channel();
    let (lets, go_on) = channel();
    let store = Held { store: MemoryStore::new(), begun, go_on };
    (Committer::start(Box::new(store)).unwrap(), begins, lets)
}

fn broken() -> StoreError {
    StoreError::io("sync", Path::new("table"), std::io::ErrorKind::Other.into())
}

#[test]
fn all_that_waits_goes_into_one_transaction_in_order() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    committer.submit(vec![put(0, 1)], told.done(0));
    assert_eq!(begins.recv().unwrap(), 1);
    for at in 1..=64 {
        committer.submit(vec![put(7, at), put(8, at)], told.done(at));
    }
    assert!(told.take().is_empty(), "nothing is committed yet");
    lets.send(Ok(())).unwrap();
    assert_eq!(begins.recv().unwrap(), 128, "the other 64 wait together");
    lets.send(Ok(())).unwrap();
    committer.close().unwrap();
    let told = told.take();
    assert!(told.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(told.iter().map(|(at, _)| *at).collect::<Vec<_>>(), (0..=64).collect::<Vec<_>>());
    assert_eq!(begins.recv().unwrap(), usize::MAX, "the store is closed at the end");
}

#[test]
fn a_transaction_is_bounded_and_nothing_overtakes() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    committer.submit(vec![put(0, 1)], told.done(0));
    assert_eq!(begins.recv().unwrap(), 1);
    let each = Limits::RECORD_LEN_MAX;
    let fit = Limits::COMMIT_LEN_MAX / each;
    for at in 1..=fit + 3 {
        committer.submit(vec![put(at as u64, each)], told.done(at));
    }
    for len in [fit, 3] {
        lets.send(Ok(())).unwrap();
        assert_eq!(begins.recv().unwrap(), len);
    }
    lets.send(Ok(())).unwrap();
    committer.close().unwrap();
    let order: Vec<_> = told.take().into_iter().map(|(at, _)| at).collect();
    assert_eq!(order, (0..=fit + 3).collect::<Vec<_>>());
}

#[tokio::test]
async fn f49_after_a_failure_the_store_is_not_touched_again() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    let failed = committer.failed();
    committer.submit(vec![put(1, 1)], told.done(1));
    assert_eq!(begins.recv().unwrap(), 1);
    // They wait while the commit before them fails.
    committer.submit(vec![put(2, 1)], told.done(2));
    committer.submit(vec![], told.done(3));
    assert!(committer.failure().is_none());
    lets.send(Err(broken())).unwrap();
    let failure = failed.await;
    assert!(matches!(*failure, StoreError::Io { .. }), "{failure}");
    committer.submit(vec![put(4, 1)], told.done(4));
    assert!(Arc::ptr_eq(&committer.failure().unwrap(), &failure));
    assert!(Arc::ptr_eq(&committer.failed().await, &failure), "whoever asks later hears it too");
    let closed = committer.close().unwrap_err();
    assert!(Arc::ptr_eq(&closed, &failure));
    let told = told.take();
    assert_eq!(told.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(told.iter().all(|(_, outcome)| Arc::ptr_eq(outcome.as_ref().unwrap_err(), &failure)));
    assert!(begins.recv().is_err(), "no further commit, and no close");
}

#[test]
fn what_is_refused_is_refused_alone_and_in_its_turn() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    committer.submit(vec![put(0, 1)], told.done(0));
    assert_eq!(begins.recv().unwrap(), 1);
    committer.submit(vec![put(1, 1)], told.done(1));
    committer.submit(vec![put(2, 1), put(3, Limits::RECORD_LEN_MAX + 1)], told.done(2));
    committer.submit(vec![put(4, 1)], told.done(3));
    lets.send(Ok(())).unwrap();
    assert_eq!(begins.recv().unwrap(), 2, "without the two of the refused batch");
    lets.send(Ok(())).unwrap();
    committer.close().unwrap();
    let told = told.take();
    let outcomes: Vec<_> = told.iter().map(|(at, outcome)| (*at, outcome.is_ok())).collect();
    assert_eq!(outcomes, [(0, true), (1, true), (2, false), (3, true)]);
}

#[test]
fn an_empty_batch_comes_after_all_before_it_and_takes_no_commit() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    let (sender, alone) = channel();
    committer.submit(vec![], move |outcome| sender.send(outcome.is_ok()).unwrap());
    assert!(alone.recv().unwrap());
    committer.submit(vec![put(0, 1)], told.done(0));
    committer.submit(vec![], told.done(1));
    assert_eq!(begins.recv().unwrap(), 1);
    lets.send(Ok(())).unwrap();
    committer.close().unwrap();
    assert_eq!(told.take().iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(begins.recv().unwrap(), usize::MAX);
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_thread_that_panicked() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    committer.submit(vec![put(0, 1)], told.done(0));
    assert_eq!(begins.recv().unwrap(), 1);
    committer.submit(vec![put(1, 1)], told.done(1));
    // The store panics where it waits to be let go on.
    drop(lets);
    let failure = committer.failed().await;
    assert!(matches!(*failure, StoreError::Closed), "{failure}");
    committer.submit(vec![put(2, 1)], told.done(2));
    assert!(committer.close().is_err());
    let mut told = told.take();
    told.sort_by_key(|(at, _)| *at);
    assert_eq!(told.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(told.iter().all(|(_, outcome)| outcome.is_err()));
}

#[test]
fn a_committer_that_is_dropped_commits_what_it_was_given() {
    let (committer, begins, lets) = held();
    let told = Told::default();
    committer.submit(vec![put(0, 1)], told.done(0));
    assert_eq!(begins.recv().unwrap(), 1);
    committer.submit(vec![put(1, 1)], told.done(1));
    drop(committer);
    lets.send(Ok(())).unwrap();
    assert_eq!(begins.recv().unwrap(), 1);
    lets.send(Ok(())).unwrap();
    assert_eq!(begins.recv().unwrap(), usize::MAX, "and closes the store");
    assert!(told.take().iter().all(|(_, outcome)| outcome.is_ok()));
}
