//! The thread that commits: everything that waits when a commit begins goes into one transaction.
//!
//! While one transaction waits for the disk, the next ones gather; so a store that can commit 300 times a second records
//! thousands of opens, and a single one waits for nobody. Nothing is delayed to wait for company.
//!
//! The queue has no bound of its own: what stands in it are requests that are being executed, and those are bounded.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

use super::{StoreError, TableStore};
use crate::model::{Limits, RecordChange};

type Done = Box<dyn FnOnce(Result<(), Arc<StoreError>>) + Send>;
type Failure = Option<Arc<StoreError>>;

/// Commits batches of changes, in their order, on a thread of its own.
///
/// Dropping it lets what is queued be committed and the store be closed, and waits for neither; [`Committer::close`] does.
#[derive(Debug)]
pub struct Committer {
    queue: Sender<Ask>,
    failure: watch::Receiver<Failure>,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread, which has the store from now on.
    ///
    /// # Errors
    /// What the system says when there is no thread to be had; the store is closed then, as far as that goes.
    pub fn start(store: Box<dyn TableStore>) -> io::Result<Self> {
        let (queue, asks) = channel();
        let (failed, failure) = watch::channel(None);
        let work = Work { store, asks, next: None, failed, is_over: false };
        let thread = thread::Builder::new().name("table".to_owned()).spawn(move || work.run())?;
        Ok(Self { queue, failure, thread })
    }

    /// Has a batch committed, and calls `done` when it is, or is not. What is submitted first is committed first, and its
    /// `done` called first; a batch is committed as a whole. An empty batch is a way to hear that all before it are done.
    ///
    /// `done` is called exactly once, on the committing thread: it must neither wait nor panic. It gets:
    ///
    /// - [`StoreError::NoSpace`] or [`StoreError::TooLong`] where this batch alone was refused, without a trace;
    /// - the first failure of the store, for this batch and all after it: [`Committer::failed`] tells it too. Whether the
    ///   batch was committed is then not known, before the next start.
    ///
    /// Which of the two a [`StoreError::NoSpace`] is, [`Committer::failure`] tells.
    pub fn submit(
        &self,
        batch: Vec<RecordChange>,
        done: impl FnOnce(Result<(), Arc<StoreError>>) + Send + 'static,
    ) {
        // One that cannot be sent is dropped, and so told.
        drop(self.queue.send(Ask { batch, done: Some(Box::new(done)) }));
    }

    /// Waits until the store has failed, and tells why. It is for a server that has to stop then.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn failed(&self) -> impl Future<Output = Arc<StoreError>> + Send + use<> {
        let mut failure = self.failure.clone();
        async move {
            let failed = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
            match failed {
                Some(error) => error,
                // It was closed without a failure: there will be none.
                None => std::future::pending().await,
            }
        }
    }

    /// Why the store has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<StoreError>> {
        self.failure.borrow().clone()
    }

    /// Commits what is queued, closes the store and ends the thread. It waits for all of that.
    ///
    /// # Errors
    /// Why the store has failed, now or before.
    pub fn close(self) -> Result<(), Arc<StoreError>> {
        let Self { queue, failure, thread } = self;
        drop(queue);
        // A panic has been told as a failure.
        let _ended = thread.join();
        let failed = failure.borrow().clone();
        failed.map_or(Ok(()), Err)
    }
}

/// A batch, and whom to tell.
struct Ask {
    batch: Vec<RecordChange>,
    done: Option<Done>,
}

impl Ask {
    fn len(&self) -> usize {
        self.batch.iter().map(RecordChange::value_len).sum()
    }

    fn tell(mut self, outcome: Result<(), Arc<StoreError>>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(Arc::new(StoreError::Closed)));
        }
    }
}

/// What the thread has.
struct Work {
    store: Box<dyn TableStore>,
    asks: Receiver<Ask>,
    /// Taken from the queue, and too long for the group before it.
    next: Option<Ask>,
    failed: watch::Sender<Failure>,
    /// Whether the thread has come to its end, and not been torn from its work.
    is_over: bool,
}

impl Work {
    fn run(mut self) {
        while let Some(group) = self.group() {
            self.commit(group);
        }
        let failure = self.failed.borrow().clone();
        if failure.is_none()
            && let Err(error) = self.store.close()
        {
            self.fail(error);
        }
        self.is_over = true;
    }

    /// Waits for something to do, and takes all that waits with it; none when there will be no more.
    fn group(&mut self) -> Option<Vec<Ask>> {
        let first = match self.next.take() {
            Some(next) => next,
            None => self.asks.recv().ok()?,
        };
        let mut len = first.len();
        let mut group = vec![first];
        loop {
            match self.asks.try_recv() {
                Ok(ask) => {
                    len = len.saturating_add(ask.len());
                    if len > Limits::COMMIT_LEN_MAX {
                        self.next = Some(ask);
                        return Some(group);
                    }
                    group.push(ask);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Some(group),
            }
        }
    }

    /// One transaction of what may be committed; all are told in their order.
    fn commit(&mut self, group: Vec<Ask>) {
        let failure = self.failed.borrow().clone();
        if let Some(failure) = failure {
            group.into_iter().for_each(|ask| ask.tell(Err(Arc::clone(&failure))));
            return;
        }
        let mut changes = Vec::new();
        let mut asked = Vec::with_capacity(group.len());
        for mut ask in group {
            let refused = self.store.check(&ask.batch).err().map(Arc::new);
            if refused.is_none() {
                changes.append(&mut ask.batch);
            }
            asked.push((ask, refused));
        }
        let committed = if changes.is_empty() { Ok(()) } else { self.store.commit(&changes) };
        let failure = committed.err().map(|error| self.fail(error));
        for (ask, refused) in asked {
            ask.tell(refused.or_else(|| failure.clone()).map_or(Ok(()), Err));
        }
    }

    fn fail(&mut self, error: StoreError) -> Arc<StoreError> {
        let error = Arc::new(error);
        self.failed.send_replace(Some(Arc::clone(&error)));
        error
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.is_over {
            self.failed.send_replace(Some(Arc::new(StoreError::Closed)));
        }
    }
}
