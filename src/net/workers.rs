//! Threads for work that takes a processor's time and never waits: a few, with a bounded queue before them.
//!
//! The runtime's own threads would stand still for everybody while they compute, and its blocking pool is for work that
//! waits: disks that hang can fill that one.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use thiserror::Error;
use tokio::sync::oneshot;

/// Work, and the thread's way to ask whether anybody still wants it.
trait Job: Send {
    fn run(self: Box<Self>);

    /// Whether somebody waits for it.
    fn is_wanted(&self) -> bool;
}

/// A bounded queue and the threads that work it off, oldest first. Dropping it ends the threads, each after what it is
/// doing; what is queued then is not done.
#[derive(Debug)]
pub struct Workers {
    queue: Arc<Queue>,
}

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotDone {
    /// As much is queued as may be.
    #[error("too much work is queued")]
    Full,
    /// It panicked, or the threads have ended.
    #[error("the work ended without a result")]
    Abandoned,
}

struct Queue {
    state: Mutex<State>,
    /// There is a job, or it is over.
    changed: Condvar,
    len_max: usize,
}

struct State {
    jobs: VecDeque<Box<dyn Job>>,
    is_over: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("len_max", &self.len_max).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts `threads` threads of this name; at most `len_max` jobs wait for them.
    ///
    /// # Errors
    /// What the system says when there is no thread to be had; none stays then.
    pub fn start(name: &str, threads: NonZeroUsize, len_max: usize) -> io::Result<Self> {
        let state = State { jobs: VecDeque::with_capacity(len_max), is_over: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new(), len_max });
        // Dropped after an error, it ends those that have started.
        let workers = Self { queue };
        for at in 0..threads.get() {
            let queue = Arc::clone(&workers.queue);
            thread::Builder::new().name(format!("{name}-{at}")).spawn(move || queue.work_off())?;
        }
        Ok(workers)
    }

    /// Has `work` done by one of the threads, and tells its result.
    ///
    /// # Errors
    /// [`NotDone::Full`] at once; [`NotDone::Abandoned`] if it panicked.
    ///
    /// # Cancel safety
    /// Dropping the future gives the work up: if no thread has begun it, none does.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let (asker, result) = oneshot::channel();
        self.queue.add(Box::new(Asked { work, asker }))?;
        result.await.map_err(|_| NotDone::Abandoned)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.is_over = true;
        // Whoever waits for these hears that they are abandoned.
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.queue.changed.notify_all();
        drop(jobs);
    }
}

struct Asked<F, T> {
    work: F,
    asker: oneshot::Sender<T>,
}

impl<T: Send, F: FnOnce() -> T + Send> Job for Asked<F, T> {
    fn run(self: Box<Self>) {
        let Self { work, asker } = *self;
        if asker.is_closed() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(work)) {
            // Nobody has to wait for it any more.
            Ok(value) => drop(asker.send(value)),
            Err(_) => tracing::error!("work on a thread of its own panicked"),
        }
    }

    fn is_wanted(&self) -> bool {
        !self.asker.is_closed()
    }
}

impl Queue {
    fn add(&self, job: Box<dyn Job>) -> Result<(), NotDone> {
        let mut state = self.lock();
        let mut forgotten = VecDeque::new();
        if state.jobs.len() >= self.len_max {
            // What nobody waits for any more keeps nobody out.
            let (wanted, unwanted) =
                std::mem::take(&mut state.jobs).into_iter().partition(|job| job.is_wanted());
            (state.jobs, forgotten) = (wanted, unwanted);
        }
        if state.jobs.len() >= self.len_max {
            drop(state);
            drop(forgotten);
            return Err(NotDone::Full);
        }
        state.jobs.push_back(job);
        drop(state);
        // Not under the lock: it may hold anything.
        drop(forgotten);
        self.changed.notify_one();
        Ok(())
    }

    fn work_off(&self) {
        while let Some(job) = self.next() {
            job.run();
        }
    }

    fn next(&self) -> Option<Box<dyn Job>> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing that is done under the lock panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn workers(threads: usize, len_max: usize) -> Workers {
        Workers::start("test", NonZeroUsize::new(threads).unwrap(), len_max).unwrap()
    }

    /// A worker's thread that is busy until the sender is dropped.
    async fn busy(
        workers: &Arc<Workers>,
    ) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), NotDone>>) {
        let (release, held) = mpsc::channel::<()>();
        let (began, begun) = oneshot::channel();
        let workers = Arc::clone(workers);
        let held = tokio::spawn(async move {
            let work = move || {
                began.send(()).unwrap();
                held.recv_timeout(LONG).ok();
            };
            workers.run(work).await
        });
        begun.await.unwrap();
        (release, held)
    }

    #[tokio::test]
    async fn results_come_back_from_named_threads() {
        let workers = workers(2, 8);
        let name = workers.run(|| thread::current().name().map(str::to_owned)).await.unwrap().unwrap();
        assert!(name == "test-0" || name == "test-1", "{name}");
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_what_nobody_waits_for_is_not_done() {
        let workers = Arc::new(workers(1, 2));
        let (release, held) = busy(&workers).await;
        let done = Arc::new(AtomicUsize::new(0));
        let count = |done: &Arc<AtomicUsize>| {
            let done = Arc::clone(done);
            move || done.fetch_add(1, Ordering::SeqCst)
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut kept = Box::pin(workers.run(count(&done)));
        let mut given_up = Box::pin(workers.run(count(&done)));
        assert!(kept.as_mut().poll(&mut context).is_pending());
        assert!(given_up.as_mut().poll(&mut context).is_pending());
        assert_eq!(workers.run(count(&done)).await, Err(NotDone::Full));
        drop(given_up);
        let mut instead = Box::pin(workers.run(count(&done)));
        assert!(instead.as_mut().poll(&mut context).is_pending(), "it has the place of what was given up");
        assert_eq!(workers.run(count(&done)).await, Err(NotDone::Full));
        drop(release);
        assert_eq!((kept.await, instead.await), (Ok(0), Ok(1)));
        held.await.unwrap().unwrap();
        // Behind everything that was queued.
        workers.run(|| ()).await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_panic_ends_its_work_and_nothing_else() {
        let workers = workers(1, 8);
        for _ in 0..3 {
            assert_eq!(
                workers.run(|| panic!("as this test wants it")).await,
                Err::<(), _>(NotDone::Abandoned)
            );
        }
        assert_eq!(workers.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn threads_end_with_their_workers_and_queued_work_is_abandoned() {
        let workers = Arc::new(workers(3, 8));
        let queue = Arc::downgrade(&workers.queue);
        let mut ends = Vec::new();
        for _ in 0..3 {
            ends.push(busy(&workers).await);
        }
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut queued = pin!(workers.run(|| panic!("nobody begins this")));
            assert!(queued.as_mut().poll(&mut context).is_pending());
        }
        for (release, held) in ends {
            drop(release);
            held.await.unwrap().unwrap();
        }
        drop(Arc::into_inner(workers).unwrap());
        // Each thread holds the queue until it ends.
        let ended = async {
            while queue.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, ended).await.unwrap();
    }
}
