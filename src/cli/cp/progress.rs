//! What people see while files are copied: on a terminal one bar for all and a line for each channel, elsewhere a line now
//! and then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline::client::{ChannelState, ChannelStatus};
use bowline::model::{ChannelKind, Time};
use bowline::net::Clock;
use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ends::Ends;
use super::plan::Action;
use crate::cli::output::{say, style};

/// Time between two looks, on a terminal and elsewhere.
const LOOK: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(10);

/// How far a copy is.
pub(super) struct Progress {
    counts: Arc<Counts>,
    begun: Time,
    bars: Option<MultiProgress>,
    looking: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    files_in_all: u64,
    /// Bytes of files that need not be moved any more: they were, or they are holes.
    done: AtomicU64,
    moved: AtomicU64,
    bytes_in_all: u64,
}

impl Progress {
    /// Begins to show how far the actions are.
    pub(super) fn start(ends: &Arc<Ends>, actions: &VecDeque<Action>) -> Self {
        let len = |action: &Action| match action {
            Action::File { len, .. } => *len,
            Action::Link { .. } => 0,
        };
        let counts = Arc::new(Counts {
            files_in_all: bowline::model::len_u64(actions.len()),
            bytes_in_all: actions.iter().map(len).fold(0, u64::saturating_add),
            ..Counts::default()
        });
        let is_drawn = style().is_drawn();
        let bars = is_drawn.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let is_told = is_drawn || !(style().quiet || style().json);
        let looking = is_told.then(|| {
            let (ends, counts, bars) = (Arc::downgrade(ends), Arc::clone(&counts), bars.clone());
            tokio::spawn(async move {
                let mut drawn = bars.map(|bars| Drawn::new(bars, &counts));
                loop {
                    Clock.sleep(if drawn.is_some() { LOOK } else { LINE }).await;
                    let Some(ends) = ends.upgrade() else { break };
                    match &mut drawn {
                        Some(drawn) => drawn.look(&ends, &counts),
                        None => say(&counts.line()),
                    }
                }
            })
        });
        Self { counts, begun: Clock.now(), bars, looking }
    }

    /// Bytes were moved.
    pub(super) fn moved(&self, bytes: u64) {
        self.counts.moved.fetch_add(bytes, Ordering::Relaxed);
        self.counts.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes need not be moved.
    pub(super) fn skipped(&self, bytes: u64) {
        self.counts.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file is complete.
    pub(super) fn file_done(&self) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Says something where the bars are not.
    pub(super) fn beside<T>(&self, saying: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(saying),
            None => saying(),
        }
    }

    /// Shows nothing more.
    pub(super) fn stop(&self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
        if let Some(bars) = &self.bars {
            drop(bars.clear());
        }
    }

    /// How many seconds it has taken so far.
    pub(super) fn seconds(&self) -> f64 {
        Clock.now().since(self.begun).as_secs_f64()
    }
}

impl Counts {
    fn line(&self) -> String {
        format!(
            "copied {} of {} files, {} of {}\n",
            self.files.load(Ordering::Relaxed),
            self.files_in_all,
            HumanBytes(self.done.load(Ordering::Relaxed)),
            HumanBytes(self.bytes_in_all)
        )
    }
}

/// What was copied, in one line.
pub(super) fn summary(files: u64, skipped: u64, (bytes, moved): (u64, u64), seconds: f64) -> String {
    let mut text =
        format!("copied {files} {}, {}", if files == 1 { "file" } else { "files" }, HumanBytes(bytes));
    if moved < bytes {
        text.push_str(&format!(" ({} moved)", HumanBytes(moved)));
    }
    if skipped > 0 {
        text.push_str(&format!(", left {skipped} as they were"));
    }
    let span = match Duration::from_secs_f64(seconds) {
        short if short < Duration::from_secs(10) => format!("{seconds:.1} seconds"),
        long => HumanDuration(long).to_string(),
    };
    let rate = if seconds >= 1.0 { per_second(moved, seconds) } else { String::new() };
    format!("{text} in {span}{rate}\n")
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "a rate for people"
)]
fn per_second(bytes: u64, seconds: f64) -> String {
    format!(", {}/s", HumanBytes((bytes as f64 / seconds) as u64))
}

/// The bars on a terminal.
struct Drawn {
    bars: MultiProgress,
    total: ProgressBar,
    channels: Vec<(String, ProgressBar, u64)>,
    looked: Time,
}

impl Drawn {
    fn new(bars: MultiProgress, counts: &Counts) -> Self {
        let total = bars.add(ProgressBar::new(counts.bytes_in_all));
        let form = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(form) = ProgressStyle::with_template(form) {
            total.set_style(form.progress_chars("=> "));
        }
        Self { bars, total, channels: Vec::new(), looked: Clock.now() }
    }

    fn look(&mut self, ends: &Ends, counts: &Counts) {
        let files = counts.files.load(Ordering::Relaxed);
        self.total.set_message(format!("{files} of {} files", counts.files_in_all));
        self.total.set_position(counts.done.load(Ordering::Relaxed));
        let now = Clock.now();
        let seconds = now.since(self.looked).as_secs_f64().max(0.001);
        self.looked = now;
        for connected in ends.all() {
            let lines = connected.session.lines();
            for channel in connected.session.channels() {
                if channel.kind != ChannelKind::Data {
                    continue;
                }
                let line = lines.iter().find(|line| line.id == channel.line);
                let address = line.map(|line| line.config.address.to_string()).unwrap_or_default();
                let via = line.and_then(|line| line.config.via.as_ref());
                let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
                let name = format!("{address}{via}");
                self.channel(
                    &format!("{} {}", connected.peer.name, channel.number.0),
                    &name,
                    &channel,
                    seconds,
                );
            }
        }
    }

    fn channel(&mut self, key: &str, name: &str, channel: &ChannelStatus, seconds: f64) {
        let bytes = channel.read_bytes.saturating_add(channel.written_bytes);
        let at = self.channels.iter().position(|(known, ..)| known == key);
        let is_live = channel.state == ChannelState::Live;
        let at = match at {
            Some(at) => at,
            None if !is_live => return,
            None => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                if let Ok(form) = ProgressStyle::with_template("  {msg}") {
                    bar.set_style(form);
                }
                self.channels.push((key.to_owned(), bar, bytes));
                self.channels.len().saturating_sub(1)
            }
        };
        let Some((_, bar, before)) = self.channels.get_mut(at) else { return };
        let rate = per_second(bytes.saturating_sub(*before), seconds);
        *before = bytes;
        let state = if is_live { rate } else { ", lost".to_owned() };
        bar.set_message(format!("{name}: {}{state}, {}", HumanBytes(bytes), channel.protection));
    }
}
