//! `bowline cp`: files to a server, from one, or from one to another, many at a time.
//!
//! ```text
//! plan      what is copied where: trees are walked
//! folders   the directories of the target: made first, finished last
//! copy      one file: its source (ends), its target (ends) under a temporary name, what was done so far (journal)
//! link      one symbolic link
//! progress  what people see meanwhile
//! totals    what came of all, and what the command ends with
//! ```

mod copy;
mod ends;
mod folders;
mod journal;
mod link;
mod plan;
mod progress;
mod totals;

use std::collections::VecDeque;
use std::sync::Arc;

use bowline::model::len_u64;
use bowline::net::raise_descriptor_limit;
use serde::Serialize;
use tokio::task::JoinSet;

use super::arguments::CopyArguments;
use super::config;
use super::failure::{Code, Failure};
use super::output::{line, say, show, style};
use super::remote::Place;
use super::sessions::tell;
use copy::{Copied, copy_file};
use ends::Ends;
use link::copy_link;
use plan::{Action, Plan};
use progress::Progress;
use totals::Totals;

/// How files are copied.
#[derive(Debug, Clone, Copy)]
struct How {
    recursive: bool,
    preserve: bool,
    no_clobber: bool,
    restart: bool,
    sync: bool,
}

/// A copied file as an object.
#[derive(Serialize)]
struct CopiedObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'a str,
    target: &'a str,
    len: u64,
    /// Bytes that were moved: holes are not, nor what an earlier run had moved.
    moved: u64,
    /// Bytes that an earlier run had moved.
    resumed: u64,
}

/// A file that was left as it was, as an object.
#[derive(Serialize)]
struct SkippedObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'a str,
    target: &'a str,
}

/// What came of all, as an object.
#[derive(Serialize)]
struct Summary {
    #[serde(rename = "type")]
    kind: &'static str,
    files: u64,
    skipped: u64,
    failed: u64,
    bytes: u64,
    moved: u64,
    seconds: f64,
}

pub(super) async fn run(arguments: CopyArguments) -> Result<(), Failure> {
    let CopyArguments { mut places, recursive, preserve, no_clobber, restart, jobs, no_sync, client } =
        arguments;
    let how = How { recursive, preserve, no_clobber, restart, sync: !no_sync };
    // There are two at least.
    let Some(target) = places.pop() else { return Ok(()) };
    if let (Place::Local(_), Some(Place::Local(_))) = (&target, places.iter().find(|place| is_local(place))) {
        return Err(Failure::coded(Code::Settings, "nothing of this is on a server")
            .data("nothing was copied")
            .try_this("PEER:EXPORT/PATH on one side, as in store:media/clips; or cp"));
    }
    let jobs = jobs_within(jobs_of(jobs)?, raise_descriptor_limit());
    let ends = Arc::new(Ends::connect(&client, places.iter().chain([&target])).await?);
    let watched = Arc::clone(&ends);
    tokio::select! {
        outcome = copy(ends, how, jobs, &places, &target) => outcome,
        failure = watched.given_up() => Err(failure),
    }
}

/// Copies what these places are, and tells what came of it.
async fn copy(ends: Arc<Ends>, how: How, jobs: u16, places: &[Place], target: &Place) -> Result<(), Failure> {
    let mut plan = Plan::new(&ends, how, target, places.len()).await?;
    for place in places {
        plan.add(place).await?;
    }
    let Plan { actions, made, failed, is_full, .. } = plan;
    let progress = Arc::new(Progress::start(&ends, &actions));
    // Also where the copy is given up in the middle, nothing is shown any more when that is told.
    let shown = Shown(&progress);
    let begun = Totals::after(failed, is_full);
    let outcome = copy_all(&ends, how, jobs, (actions, begun), &progress).await;
    drop(shown);
    let seconds = progress.seconds();
    let mut totals = outcome?;
    if !totals.is_over() {
        let failed = folders::finish(&ends, how, made, totals.failed == 0).await?;
        totals.failed = totals.failed.saturating_add(failed);
    }
    let Totals { files, skipped, failed, bytes, moved, .. } = totals;
    if style().json {
        show(&line(&Summary { kind: "copy_summary", files, skipped, failed, bytes, moved, seconds }))?;
    } else if files > 0 || failed == 0 {
        say(&progress::summary(files, skipped, (bytes, moved), seconds));
    }
    ends.close().await;
    match totals.end() {
        None => Ok(()),
        Some((untold, failure)) => {
            if let Some(untold) = untold {
                tell(&untold)?;
            }
            Err(failure)
        }
    }
}

/// Progress is shown as long as this is there.
struct Shown<'a>(&'a Progress);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// How many files are copied at a time: as the arguments say, or else the settings.
fn jobs_of(given: Option<u16>) -> Result<u16, Failure> {
    let Some(text) = given.map(|jobs| jobs.to_string()).or_else(|| config::in_files("jobs")) else {
        return Ok(JOBS);
    };
    text.parse().ok().filter(|jobs| (1..=JOBS_MAX).contains(jobs)).ok_or_else(|| {
        Failure::coded(Code::Settings, "cannot use the setting \"jobs\"")
            .because(format!("\"{text}\" is no number from 1 to {JOBS_MAX}"))
            .data("nothing was copied")
            .try_this(format!("--jobs {JOBS}"))
    })
}

/// As many of them as there are descriptors for.
fn jobs_within(jobs: u16, descriptors: Option<u64>) -> u16 {
    let Some(descriptors) = descriptors else { return jobs };
    let most = descriptors.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_OF_A_JOB;
    u16::try_from(most).map_or(jobs, |most| jobs.min(most)).max(1)
}

/// Descriptors that the copy of a file has at a time: the file, and a directory or the note of how far it is.
const DESCRIPTORS_OF_A_JOB: u64 = 2;
/// Those for everything else: lines, sockets, the runtime, directories that are listed.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Files that are copied at a time where nothing is said: a round trip of 20 ms then costs a file a third of a
/// millisecond.
const JOBS: u16 = 64;
/// Most of them.
const JOBS_MAX: u16 = 1024;

fn is_local(place: &Place) -> bool {
    matches!(place, Place::Local(_))
}

/// Carries the actions out, `jobs` at a time.
async fn copy_all(
    ends: &Arc<Ends>,
    how: How,
    jobs: u16,
    (actions, begun): (VecDeque<Action>, Totals),
    progress: &Arc<Progress>,
) -> Result<Totals, Failure> {
    let (mut left, mut totals) = (actions, begun);
    let mut running = JoinSet::new();
    loop {
        while running.len() < usize::from(jobs)
            && let Some(action) = left.pop_front()
        {
            let (ends, progress) = (Arc::clone(ends), Arc::clone(progress));
            running.spawn(async move {
                let outcome = match &action {
                    Action::File { .. } => copy_file(&ends, how, &action, &progress).await,
                    Action::Link { .. } => copy_link(&ends, how, &action).await,
                };
                (action, outcome)
            });
        }
        let Some(ended) = running.join_next().await else { break };
        let (action, outcome) = ended.map_err(|error| Failure::of("a copy has broken off", &error))?;
        match outcome {
            Ok(copied) => {
                progress.file_done();
                totals.add(&copied);
                report(&action, &copied)?;
            }
            Err(failure) => {
                // Nothing more finds room, or reaches the server: it would only fail once for each file.
                if matches!(failure.code, Code::NoSpace | Code::SessionEnded) {
                    totals.failed = totals.failed.saturating_add(len_u64(left.len()));
                    left.clear();
                }
                if let Some(earlier) = totals.fail(failure) {
                    progress.beside(|| tell(&earlier))?;
                }
            }
        }
    }
    Ok(totals)
}

fn report(action: &Action, copied: &Copied) -> Result<(), Failure> {
    let (source, target) = action.shown();
    let (source, target) = (source.as_str(), target.as_str());
    let Copied { is_left, len, moved, resumed } = *copied;
    match is_left {
        true => tracing::info!(source, target, "left: the name is taken"),
        false => tracing::debug!(source, target, moved, resumed, "copied"),
    }
    match (style().json, is_left) {
        (false, _) => Ok(()),
        (true, true) => show(&line(&SkippedObject { kind: "skipped", source, target })),
        (true, false) => show(&line(&CopiedObject { kind: "copied", source, target, len, moved, resumed })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_files_are_copied_at_a_time_than_there_are_descriptors_for() {
        assert_eq!(jobs_within(1024, None), 1024);
        assert_eq!(jobs_within(1024, Some(1 << 20)), 1024);
        assert_eq!(jobs_within(1024, Some(1024)), 480);
        assert_eq!(jobs_within(64, Some(1024)), 64);
        assert_eq!(jobs_within(64, Some(10)), 1);
    }
}
