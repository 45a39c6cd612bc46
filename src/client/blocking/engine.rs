//! The thread that serves a blocking client's sessions, and the way to wait for what it does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::TaskTracker;

use crate::client::Error;
use crate::net::Clock;

/// How long the last user waits for the farewells of sessions that nobody has closed.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// A runtime with one thread.
#[derive(Debug)]
pub(super) struct Engine {
    /// There but while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    /// The tasks of the sessions' channels.
    channels: Mutex<Vec<TaskTracker>>,
}

impl Engine {
    pub(super) fn start() -> Result<Arc<Self>, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bowline-client")
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        let handle = runtime.handle().clone();
        Ok(Arc::new(Self { runtime: Some(runtime), handle, channels: Mutex::default() }))
    }

    /// Blocks until `work` is done.
    pub(super) fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if may_block() { self.handle.block_on(work) } else { Err(Error::InsideRuntime) }
    }

    /// Waits for the last words of these channels before the thread ends.
    pub(super) fn watch(&self, channels: TaskTracker) {
        let mut all = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|channels| !channels.is_empty());
        all.push(channels);
    }
}

/// Whether this thread belongs to no runtime that it would hold up, and is not ending.
pub(super) fn may_block() -> bool {
    Handle::try_current().is_err_and(|error| error.is_missing_context())
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if may_block() {
            let channels = std::mem::take(self.channels.get_mut().unwrap_or_else(PoisonError::into_inner));
            runtime.block_on(async {
                let farewells = async {
                    for channels in channels {
                        channels.close();
                        channels.wait().await;
                    }
                };
                Clock.timeout(FAREWELL_LIMIT, farewells).await
            });
        }
        // Dropped as it is, it would wait for its thread, which panics inside another runtime.
        runtime.shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_a_runtime_waits_for_what_is_done() {
        let engine = Engine::start().unwrap();
        let done = engine.run(async {
            tokio::task::yield_now().await;
            Ok(7)
        });
        assert_eq!(done.unwrap(), 7);
        engine.watch(TaskTracker::new());
    }

    #[tokio::test]
    async fn inside_a_runtime_it_is_refused_and_dropped_without_a_panic() {
        let engine = Engine::start().unwrap();
        assert!(matches!(engine.run(async { Ok(()) }), Err(Error::InsideRuntime)));
        drop(engine);
        let inside = tokio::task::spawn_blocking(|| Engine::start().unwrap().run(async { Ok(()) }));
        assert!(matches!(inside.await.unwrap(), Err(Error::InsideRuntime)));
    }
}
