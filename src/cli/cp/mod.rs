//! `bowline cp`: files to a server, from one, or from one to another, many at a time.
//!
//! ```text
//! plan      what is copied where: trees are walked, directories made
//! copy      one file: its source (ends), its target (ends) under a temporary name, what was done so far (journal)
//! progress  what people see meanwhile
//! ```

mod copy;
mod ends;
mod journal;
mod plan;
mod progress;

use std::collections::VecDeque;
use std::sync::Arc;

use bowline::model::len_u64;
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
use plan::{Action, Plan};
use progress::Progress;

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

/// What came of all, as an object.
#[derive(Serialize)]
struct Summary {
    #[serde(rename = "type")]
    kind: &'static str,
    files: u64,
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
    let ends = Arc::new(Ends::connect(&client, places.iter().chain([&target])).await?);
    let mut plan = Plan::new(&ends, how, &target, places.len()).await?;
    for place in &places {
        plan.add(place).await?;
    }
    let Plan { actions, failed, .. } = plan;
    let progress = Arc::new(Progress::start(&ends, &actions));
    let outcome = copy_all(&ends, how, jobs_of(jobs)?, actions, &progress).await;
    let seconds = progress.stop();
    let (files, broken) = outcome?;
    let failed = failed.saturating_add(broken.0);
    let (bytes, moved) = progress.bytes();
    if style().json {
        show(&line(&Summary { kind: "copy_summary", files, failed, bytes, moved, seconds }))?;
    } else if files > 0 || failed == 0 {
        say(&progress::summary(files, bytes, moved, seconds));
    }
    if let Some(ends) = Arc::into_inner(ends) {
        ends.close().await;
    }
    match (failed, files, broken.1) {
        (0, ..) => Ok(()),
        (1, 0, Some(only)) => Err(only),
        (failed, files, last) => {
            if let Some(last) = &last {
                tell(last)?;
            }
            let total = failed.saturating_add(files);
            let code =
                last.filter(|last| last.code == Code::NoSpace).map_or(Code::SomeFailed, |last| last.code);
            Err(Failure::coded(code, format!("{failed} of {total} files were not copied"))
                .data(format!("{files} are complete; parts are kept under temporary names"))
                .try_this("the same command again: it goes on where it was"))
        }
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

/// Files that are copied at a time where nothing is said: a round trip of 20 ms then costs a file a third of a
/// millisecond.
const JOBS: u16 = 64;
/// Most of them.
const JOBS_MAX: u16 = 1024;

fn is_local(place: &Place) -> bool {
    matches!(place, Place::Local(_))
}

/// The number of failures, and the last one, of which nobody was told yet.
type Broken = (u64, Option<Failure>);

/// Carries the actions out, `jobs` at a time; gives how many files were copied, and what failed.
async fn copy_all(
    ends: &Arc<Ends>,
    how: How,
    jobs: u16,
    actions: VecDeque<Action>,
    progress: &Arc<Progress>,
) -> Result<(u64, Broken), Failure> {
    let mut left = actions;
    let mut running = JoinSet::new();
    let (mut files, mut failed, mut last) = (0_u64, 0_u64, None::<Failure>);
    loop {
        while running.len() < usize::from(jobs)
            && let Some(action) = left.pop_front()
        {
            let (ends, progress) = (Arc::clone(ends), Arc::clone(progress));
            running.spawn(async move {
                let outcome = match &action {
                    Action::File { .. } => copy_file(&ends, how, &action, &progress).await,
                    Action::Link { .. } => ends.copy_link(&action).await.map(|()| Copied::default()),
                };
                (action, outcome)
            });
        }
        let Some(ended) = running.join_next().await else { break };
        let (action, outcome) = ended.map_err(|error| Failure::of("a copy has broken off", &error))?;
        match outcome {
            Ok(copied) => {
                files = files.saturating_add(1);
                progress.file_done();
                report(&action, &copied)?;
            }
            Err(failure) => {
                failed = failed.saturating_add(1);
                // Nothing more finds room, or reaches the server: it would only fail once for each file.
                if matches!(failure.code, Code::NoSpace | Code::SessionEnded) {
                    failed = failed.saturating_add(len_u64(left.len()));
                    left.clear();
                }
                if let Some(earlier) = last.replace(failure) {
                    progress.beside(|| tell(&earlier))?;
                }
            }
        }
    }
    Ok((files, (failed, last)))
}

fn report(action: &Action, copied: &Copied) -> Result<(), Failure> {
    let (source, target) = action.shown();
    tracing::debug!(source, target, moved = copied.moved, resumed = copied.resumed, "copied");
    if !style().json {
        return Ok(());
    }
    let Copied { len, moved, resumed } = *copied;
    show(&line(&CopiedObject { kind: "copied", source: &source, target: &target, len, moved, resumed }))
}
