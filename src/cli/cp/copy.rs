//! The copy of one file.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline::model::{SyncScope, len_u64};
use tokio::task::JoinSet;

use super::How;
use super::ends::{Ends, Room, Source, State, Target, Trouble};
use super::journal::{self, Journal};
use super::plan::{self, Action};
use super::progress::Progress;
use crate::cli::failure::{Code, Failure};

/// Bytes that are asked for ahead, and as many that are being written, as a part of the file and in bounds: what a kill takes is less than a hundredth of a
/// large file, and lines with a long way stay busy.
const WINDOW_PART: u64 = 128;
const WINDOW_MIN: u64 = 8 << 20;
const WINDOW_MAX: u64 = 64 << 20;
/// Bytes of a resumed copy that are compared before the rest is taken for what it was.
const COMPARED: usize = 64 << 10;
/// Bytes after which what was written is put on the disk, so that a crash of the machine costs no more.
const SYNC_EVERY: u64 = 256 << 20;
/// How often a small file is begun anew because a server was.
const TRIES: u32 = 5;

/// What was copied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    /// Nothing: something was there, and was to be left.
    pub(super) is_left: bool,
    pub(super) len: u64,
    pub(super) moved: u64,
    pub(super) resumed: u64,
}

/// Copies a file.
pub(super) async fn copy_file(
    ends: &Arc<Ends>,
    how: How,
    action: &Action,
    progress: &Arc<Progress>,
) -> Result<Copied, Failure> {
    let Action::File { source, target, len, .. } = action else { return Ok(Copied::default()) };
    let what = format!("cannot copy {} to {}", source.shown(), target.shown());
    // Told apart before anything is moved; a name that is taken meanwhile is found out at the end.
    if how.no_clobber && plan::is_there(ends, target).await {
        progress.skipped(*len);
        return Ok(Copied { is_left: true, ..Copied::default() });
    }
    for left in (0..TRIES).rev() {
        let from = match ends.source(source, *len).await {
            Ok(from) => from,
            Err(trouble) => return Err(ends.failure(&what, source, &trouble)),
        };
        let mut stage = Stage::Opening;
        let copied = copy_open(ends, how, action, (&from, &mut stage), progress).await;
        // It was read, and that is all that was wanted of it: nobody waits for its close.
        drop(from);
        match copied {
            Ok(copied) => return Ok(copied),
            // A name that this copy has taken is not to be taken for somebody else's.
            Err((trouble, _))
                if trouble.is_forgotten() && left > 0 && !(how.no_clobber && stage == Stage::Named) => {}
            Err((trouble, is_of_source)) => {
                let place = if is_of_source { source } else { target };
                let failure = ends.failure(&what, place, &trouble).data(stage.said_of_data(&trouble));
                return Err(match failure.code {
                    Code::NoSpace => {
                        failure.try_this("make room, and the same command again: it goes on where it was")
                    }
                    _ => failure,
                });
            }
        }
    }
    Err(Failure::new(what).because("the server was started anew too often"))
}

/// How far a copy has got. What is said of the data when it breaks off follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has no part yet.
    Opening,
    /// It has a part, under its temporary name.
    Part,
    /// The part was to take the final name.
    Naming,
    /// The final name is its.
    Named,
}

impl Stage {
    fn said_of_data(self, trouble: &Trouble) -> &'static str {
        match self {
            Self::Opening => "the final name was not touched",
            Self::Naming if !trouble.is_refusal() => "it may have its final name already: look",
            Self::Part | Self::Naming => {
                "the part is kept under its temporary name, and the final name was not touched"
            }
            Self::Named => "it has its final name, and a crash of that machine may still take some of it",
        }
    }
}

/// A trouble, and whether it is the source's.
type At = (Trouble, bool);

fn of_source(trouble: Trouble) -> At {
    (trouble, true)
}

fn of_target(trouble: impl Into<Trouble>) -> At {
    (trouble.into(), false)
}

async fn copy_open(
    ends: &Ends,
    how: How,
    action: &Action,
    (from, stage): (&Source, &mut Stage),
    progress: &Progress,
) -> Result<Copied, At> {
    let Action::File { source, target, .. } = action else { return Ok(Copied::default()) };
    let state = match from.opened() {
        Some(state) => state,
        None => from.state().await.map_err(of_source)?,
    };
    let len = state.version.len;
    let origin = ends.lasting(source);
    let (to, had) = ends.target(target, &origin, &state).await.map_err(of_target)?;
    *stage = Stage::Part;
    let mut journal = None;
    let mut done = 0;
    if len >= journal::LEN_MIN {
        let opened = Journal::open(origin, ends.lasting(target), state.version.clone(), to.memory());
        if let Some((opened, earlier)) = opened {
            journal = Some(opened);
            done = earlier.min(had);
        }
    }
    if how.restart || (done > 0 && !is_as_it_was(from, &to, done).await?) {
        done = 0;
    }
    if let Some(journal) = &mut journal {
        journal.go_on_from(done).map_err(of_target)?;
    }
    if done == 0 && had > 0 {
        // What an earlier run has left is of no use.
        to.set_len(0).await.map_err(of_target)?;
    }
    progress.skipped(done);
    let mut run = Run { to: &to, journal, progress, moved: 0, resumed: done, synced: done };
    run.copy(from, &state, done, ends.room()).await?;
    let Run { journal, moved, .. } = run;
    // Also cuts what a longer source had left, and makes the hole at the end.
    to.set_len_if_needed(len, had.max(done), &state).await.map_err(of_target)?;
    to.put_on(&state, how.preserve).await.map_err(of_target)?;
    if how.sync {
        to.sync(SyncScope::All).await.map_err(of_target)?;
    }
    // What was copied is one version of the source, or nothing that anybody asked for.
    let now = from.state().await.map_err(of_source)?;
    if now.version != state.version {
        return Err(of_source(Trouble::Changed));
    }
    *stage = Stage::Naming;
    to.take_name(how).await.map_err(of_target)?;
    *stage = Stage::Named;
    to.finish(how).await.map_err(of_target)?;
    if let Some(journal) = journal {
        journal.remove();
    }
    Ok(Copied { is_left: false, len, moved, resumed: done })
}

/// Whether the last bytes that an earlier run has copied are those of the source.
async fn is_as_it_was(from: &Source, to: &Target, done: u64) -> Result<bool, At> {
    let start = done.saturating_sub(len_u64(COMPARED));
    let (ours, theirs) = tokio::join!(from.bytes(start, COMPARED), to.bytes(start, COMPARED));
    let (mut ours, mut theirs) = (ours.map_err(of_source)?, theirs.map_err(of_target)?);
    let compared = usize::try_from(done.saturating_sub(start)).unwrap_or(COMPARED);
    ours.truncate(compared);
    theirs.truncate(compared);
    Ok(ours == theirs)
}

/// A copy that is under way.
struct Run<'a> {
    to: &'a Target,
    journal: Option<Journal>,
    progress: &'a Progress,
    moved: u64,
    resumed: u64,
    synced: u64,
}

impl Run<'_> {
    /// Copies everything from `done` on that is no hole.
    async fn copy(&mut self, from: &Source, state: &State, done: u64, room: &Room) -> Result<(), At> {
        let len = state.version.len;
        let is_sparse = state.allocated < len;
        let window = (len / WINDOW_PART).clamp(WINDOW_MIN, WINDOW_MAX);
        let mut writes = JoinSet::new();
        // Where the writes begin that are under way, and how much was begun before each: before the first of them everything
        // is done. One that is late keeps those behind it from getting any further ahead than a kill may cost.
        let mut under_way = BTreeMap::new();
        let (mut at, mut begun) = (done, 0_u64);
        while at < len {
            let piece =
                if is_sparse { from.next_data(at, len).await.map_err(of_source)? } else { Some((at, len)) };
            let Some((start, end)) = piece else {
                self.progress.skipped(len.saturating_sub(at));
                break;
            };
            self.progress.skipped(start.saturating_sub(at));
            at = start;
            let mut chunks = from.chunks(start, end, window, room);
            while at < end {
                let Some((bytes, held)) = chunks.next().await.map_err(of_source)? else {
                    // It has become shorter.
                    return Err(of_source(Trouble::Changed));
                };
                while under_way
                    .first_key_value()
                    .is_some_and(|(_, first)| begun.saturating_sub(*first) >= window)
                {
                    self.written(&mut writes, &mut under_way, at).await?;
                }
                let count = len_u64(bytes.len());
                let (start, write) = (at, self.to.write(at, bytes));
                under_way.insert(start, begun);
                begun = begun.saturating_add(count);
                writes.spawn(async move {
                    let written = write.await.map(|()| (start, count));
                    drop(held);
                    written
                });
                at = at.saturating_add(count);
                if at.saturating_sub(self.synced) >= SYNC_EVERY && self.journal.is_some() {
                    self.settle(&mut writes, &mut under_way, at).await?;
                }
            }
        }
        while !writes.is_empty() {
            self.written(&mut writes, &mut under_way, at).await?;
        }
        Ok(())
    }

    /// Waits for one write.
    async fn written(
        &mut self,
        writes: &mut JoinSet<Result<(u64, u64), Trouble>>,
        under_way: &mut BTreeMap<u64, u64>,
        at: u64,
    ) -> Result<(), At> {
        let Some(ended) = writes.join_next().await else { return Ok(()) };
        let ended = ended.map_err(|error| of_target(std::io::Error::other(error)))?;
        let (start, count) = ended.map_err(of_target)?;
        under_way.remove(&start);
        self.moved = self.moved.saturating_add(count);
        self.progress.moved(count);
        let done = under_way.first_key_value().map_or(at, |(&start, _)| start);
        if let Some(journal) = &mut self.journal {
            journal.note(done.max(self.resumed));
        }
        Ok(())
    }

    /// Puts on the disk what was written so far.
    async fn settle(
        &mut self,
        writes: &mut JoinSet<Result<(u64, u64), Trouble>>,
        under_way: &mut BTreeMap<u64, u64>,
        at: u64,
    ) -> Result<(), At> {
        while !writes.is_empty() {
            self.written(writes, under_way, at).await?;
        }
        self.to.sync(SyncScope::Data).await.map_err(of_target)?;
        self.synced = at;
        if let Some(journal) = &mut self.journal {
            journal.note_synced(at);
        }
        Ok(())
    }
}

impl Target {
    /// Gives the file its length where writing has not: it ends in a hole, or was longer.
    async fn set_len_if_needed(&self, len: u64, had: u64, state: &State) -> Result<(), Trouble> {
        if had > len || state.allocated < len {
            self.set_len(len).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bowline::client::{Error, SessionLoss};
    use bowline::model::Reason;

    use super::*;

    /// Nothing is said of the data but what is known of it.
    #[test]
    fn what_is_said_of_the_data_is_what_is_known_at_each_stage() {
        const UNTOUCHED: &str = "the final name was not touched";
        const KEPT: &str = "the part is kept under its temporary name, and the final name was not touched";
        const PERHAPS: &str = "it may have its final name already: look";
        const NAMED: &str = "it has its final name, and a crash of that machine may still take some of it";
        let refused = |reason: Reason| Trouble::Remote(Error::Refused(reason.into()));
        let timed_out = || Trouble::Remote(Error::TimedOut(std::time::Duration::from_secs(1)));
        let ended = || Trouble::Remote(Error::SessionEnded(SessionLoss::Closed));
        let local = || Trouble::Local(io::ErrorKind::StorageFull.into());
        for (trouble, naming) in [
            (refused(Reason::NoSpace), KEPT),
            (refused(Reason::PermissionDenied), KEPT),
            (local(), KEPT),
            (refused(Reason::Unknown), PERHAPS),
            (timed_out(), PERHAPS),
            (ended(), PERHAPS),
            (Trouble::Remote(Error::StateLost), PERHAPS),
        ] {
            let said = [Stage::Opening, Stage::Part, Stage::Naming, Stage::Named]
                .map(|stage| stage.said_of_data(&trouble));
            assert_eq!(said, [UNTOUCHED, KEPT, naming, NAMED], "{trouble:?}");
        }
    }
}
