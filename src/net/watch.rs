//! Notices that a settings file has changed, by looking at it now and then.
//!
//! Looking is used, and no kernel notification, because it holds for every way in which a file changes (written
//! in place, replaced by a rename, reached through a link whose target moves, on a network file system) and
//! costs one `stat` every fifth of a second.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a settings file is looked at. Two looks must agree on what is new, so that a change is known within
/// half a second.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What tells one state of a file from the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    len: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// There is a file, and it is not as it was.
    Changed,
    /// There is no file any more, or it cannot be looked at.
    Gone,
}

/// Reports changes of one file.
///
/// Make the watch before the file is read for the first time: a change in between is then reported, and
/// otherwise lost. A writer that pauses in the middle can still be seen half done; the rest is a change of its own.
#[derive(Debug)]
pub struct FileWatch {
    path: Arc<Path>,
    last: Option<Stamp>,
    /// What the last look found.
    fresh: Option<Option<Stamp>>,
    ticks: Interval,
    /// A look under way. Kept here, so that a caller that gives up waiting again and again loses none.
    look: Option<oneshot::Receiver<Option<Stamp>>>,
    looker: Looker,
}

impl FileWatch {
    /// A watch over `path` that looks every `every`, and at once when first asked. Its starting point is the
    /// file as it is now.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled, and if `every` is zero.
    #[must_use]
    pub fn new(path: PathBuf, every: Duration) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let path: Arc<Path> = path.into();
        Self {
            last: stamp(&path),
            fresh: None,
            looker: Looker::new(Arc::clone(&path)),
            path,
            ticks,
            look: None,
        }
    }

    /// Waits until the file differs from what was last reported, and two looks in a row agree on how: a file that
    /// is being written, or is empty for the moment, is left to its writer.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped, and the next call goes on where this one was.
    pub async fn changed(&mut self) -> Seen {
        loop {
            if let Some(seen) = self.step().await {
                return seen;
            }
        }
    }

    /// One look, and what it settles.
    async fn step(&mut self) -> Option<Seen> {
        let seen = self.look().await;
        let is_settled = self.fresh.replace(seen) == Some(seen);
        if seen == self.last || !is_settled {
            return None;
        }
        self.last = seen;
        Some(if seen.is_some() { Seen::Changed } else { Seen::Gone })
    }

    /// The state of the file at the next tick.
    async fn look(&mut self) -> Option<Stamp> {
        if self.look.is_none() {
            self.ticks.tick().await;
        }
        let looker = &mut self.looker;
        let look = self.look.get_or_insert_with(|| looker.look());
        let seen = look.await;
        self.look = None;
        // Without a thread it is this one that looks: late is better than never.
        seen.unwrap_or_else(|_| stamp(&self.path))
    }
}

/// A thread that looks when it is asked to, and ends with the watch. Not the runtime's blocking pool: work on files that
/// hang can fill that one, and a client that is taken off the list has to go all the same.
#[derive(Debug)]
struct Looker {
    path: Arc<Path>,
    asked: Option<mpsc::Sender<oneshot::Sender<Option<Stamp>>>>,
}

impl Looker {
    fn new(path: Arc<Path>) -> Self {
        Self { path, asked: None }
    }

    /// The state of the file soon. The thread begins with the first look; if there is none to be had, the answer never
    /// comes, and the next look tries once more.
    fn look(&mut self) -> oneshot::Receiver<Option<Stamp>> {
        let (answer, look) = oneshot::channel();
        if self.asked.is_none() {
            self.asked = self.start();
        }
        let is_asked = self.asked.as_ref().is_some_and(|asked| asked.send(answer).is_ok());
        if !is_asked {
            self.asked = None;
        }
        look
    }

    fn start(&self) -> Option<mpsc::Sender<oneshot::Sender<Option<Stamp>>>> {
        let (sender, questions) = mpsc::channel::<oneshot::Sender<Option<Stamp>>>();
        let path = Arc::clone(&self.path);
        let looking = move || {
            // Until the watch is dropped.
            for answer in questions {
                // A watch that ends in between wants no answer.
                let _unwanted = answer.send(stamp(&path));
            }
        };
        let started = thread::Builder::new().name("file-watch".to_owned()).spawn(looking);
        started.inspect_err(|error| tracing::warn!(%error, "no thread to look at a file with")).ok()?;
        Some(sender)
    }
}

/// The state of the file at `path`; `None` if there is none or it cannot be told.
fn stamp(path: &Path) -> Option<Stamp> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        len: stat.st_size,
        modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    /// What some looks find; none is under way when a test changes the file.
    async fn next(watch: &mut FileWatch) -> Option<Seen> {
        for _ in 0..4 {
            if let Some(seen) = watch.step().await {
                return Some(seen);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_change_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(path.clone(), LOOK_EVERY);
        assert_eq!(next(&mut watch).await, None, "nothing has happened");

        fs::write(&path, "longer").unwrap();
        assert_eq!(next(&mut watch).await, Some(Seen::Changed), "written in place");
        assert_eq!(next(&mut watch).await, None);

        let other = folder.path().join("other");
        fs::write(&other, "LONGER").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(next(&mut watch).await, Some(Seen::Changed), "replaced by one of the same length");
        assert_eq!(next(&mut watch).await, None);

        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watch).await, Some(Seen::Gone));
        assert_eq!(next(&mut watch).await, None, "that it is gone is told once");

        fs::write(&path, "back").unwrap();
        assert_eq!(next(&mut watch).await, Some(Seen::Changed), "it came back");
    }

    /// The half of the promised second that is the watch's.
    #[tokio::test(start_paused = true)]
    async fn a_change_is_known_with_the_second_look_at_it() {
        const { assert!(LOOK_EVERY.as_millis() * 2 < 500, "so much a change can wait for two looks") };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        fs::write(&path, "").unwrap();
        let mut watch = FileWatch::new(path.clone(), LOOK_EVERY);
        for len in 1..=40 {
            assert_eq!(next(&mut watch).await, None);
            fs::write(&path, "#".repeat(len)).unwrap();
            assert_eq!(watch.step().await, None, "it may still be written");
            assert_eq!(watch.step().await, Some(Seen::Changed), "change {len}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_is_moved_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "same").unwrap();
        fs::write(at("b"), "same").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        let mut watch = FileWatch::new(at("link"), LOOK_EVERY);
        assert_eq!(next(&mut watch).await, None);
        std::os::unix::fs::symlink("b", at("new")).unwrap();
        fs::rename(at("new"), at("link")).unwrap();
        assert_eq!(next(&mut watch).await, Some(Seen::Changed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_the_first_call_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("late");
        let mut watch = FileWatch::new(path.clone(), LOOK_EVERY);
        fs::write(&path, "").unwrap();
        assert_eq!(next(&mut watch).await, Some(Seen::Changed));
    }

    /// Work on files that hang keeps no change from being seen.
    #[test]
    fn a_full_blocking_pool_delays_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().max_blocking_threads(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        runtime.block_on(async {
            let stuck = tokio::task::spawn_blocking(move || held.recv().ok());
            let mut watch = FileWatch::new(path.clone(), Duration::from_millis(1));
            fs::write(&path, "").unwrap();
            let seen = timeout(Duration::from_secs(20), watch.changed()).await;
            drop(release);
            stuck.await.unwrap();
            assert_eq!(seen.ok(), Some(Seen::Changed));
        });
    }

    /// A caller that gives up more often than the watch looks must not starve it: its clock goes on.
    #[tokio::test(start_paused = true)]
    async fn giving_up_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watch = FileWatch::new(path.clone(), LOOK_EVERY);
        assert_eq!(timeout(LOOK_EVERY / 2, watch.changed()).await.ok(), None, "the first look finds nothing");
        fs::write(&path, "").unwrap();
        let mut seen = None;
        // Virtual time goes on while the watch's thread looks: as often as it takes.
        for _ in 0..1_000_000 {
            seen = seen.or(timeout(LOOK_EVERY / 5, watch.changed()).await.ok());
            if seen.is_some() {
                break;
            }
        }
        assert_eq!(seen, Some(Seen::Changed));
    }
}
