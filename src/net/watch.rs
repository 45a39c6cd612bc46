//! Notices that a settings file has changed, by looking at it now and then.
//!
//! Looking is used, and no kernel notification, because it holds for every way in which a file changes (written
//! in place, replaced by a rename, reached through a link whose target moves, on a network file system) and
//! costs one `stat` every fifth of a second.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;
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
    look: Option<JoinHandle<Option<Stamp>>>,
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
        Self { last: stamp(&path), fresh: None, path: path.into(), ticks, look: None }
    }

    /// Waits until the file differs from what was last reported, and two looks in a row agree on how: a file that
    /// is being written, or is empty for the moment, is left to its writer.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped, and the next call goes on where this one was.
    pub async fn changed(&mut self) -> Seen {
        loop {
            let seen = self.look().await;
            let is_settled = self.fresh.replace(seen) == Some(seen);
            if seen != self.last && is_settled {
                self.last = seen;
                return if seen.is_some() { Seen::Changed } else { Seen::Gone };
            }
        }
    }

    /// The state of the file at the next tick.
    async fn look(&mut self) -> Option<Stamp> {
        if self.look.is_none() {
            self.ticks.tick().await;
        }
        let look = self.look.get_or_insert_with(|| {
            let path = Arc::clone(&self.path);
            tokio::task::spawn_blocking(move || stamp(&path))
        });
        let seen = look.await;
        self.look = None;
        // A look fails only when the runtime is shutting down: no news.
        seen.unwrap_or(self.last)
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

    /// Virtual time: as much as a test likes. It ends between two looks, so that none is under way when a test
    /// changes the file.
    const LONG: Duration = Duration::from_millis(60_100);

    async fn next(watch: &mut FileWatch) -> Option<Seen> {
        timeout(LONG, watch.changed()).await.ok()
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

    /// The half of the promised second that is the watch's, wherever between two looks the change falls.
    #[tokio::test(start_paused = true)]
    async fn a_change_is_known_within_half_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        fs::write(&path, "").unwrap();
        let mut watch = FileWatch::new(path.clone(), LOOK_EVERY);
        for len in 1..=40_u32 {
            // Each time a little later behind a look.
            let quiet = LOOK_EVERY * 3 + LOOK_EVERY / 40 * len;
            assert_eq!(timeout(quiet, watch.changed()).await.ok(), None);
            fs::write(&path, "#".repeat(usize::try_from(len).unwrap())).unwrap();
            let known = timeout(Duration::from_millis(500), watch.changed()).await;
            assert_eq!(known.ok(), Some(Seen::Changed), "change {len}");
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

    /// A caller that gives up more often than the watch looks must not starve it: its clock goes on.
    #[tokio::test(start_paused = true)]
    async fn giving_up_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watch = FileWatch::new(path.clone(), LOOK_EVERY);
        assert_eq!(timeout(LOOK_EVERY / 2, watch.changed()).await.ok(), None, "the first look finds nothing");
        fs::write(&path, "").unwrap();
        let mut seen = None;
        for _ in 0..10 {
            seen = seen.or(timeout(LOOK_EVERY / 5, watch.changed()).await.ok());
        }
        assert_eq!(seen, Some(Seen::Changed));
    }
}
