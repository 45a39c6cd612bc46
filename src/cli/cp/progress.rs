//! What people see while files are copied: on a terminal one bar for all and below it one for each line with what its data
//! channels have carried, elsewhere a line of text now and then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline::client::{ChannelState, ChannelStatus, LineStatus};
use bowline::model::{ChannelKind, ChannelNumber, LineId, Time};
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
                        None => say(&counts.line(&out_of_reach(&ends))),
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

/// The servers that no channel reaches.
fn out_of_reach(ends: &Ends) -> Vec<&str> {
    let is_reached = |channels: &[ChannelStatus]| channels.iter().any(is_live);
    let lost = ends.all().filter(|connected| !is_reached(&connected.session.channels()));
    lost.map(|connected| connected.peer.name.as_str()).collect()
}

fn is_live(channel: &ChannelStatus) -> bool {
    channel.state == ChannelState::Live
}

impl Counts {
    fn line(&self, out_of_reach: &[&str]) -> String {
        let waiting = match out_of_reach {
            [] => String::new(),
            names => format!("; no line reaches {}, waiting", names.join(", ")),
        };
        format!(
            "copied {} of {} files, {} of {}{waiting}\n",
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
    lines: Lines,
    /// One for each of the lines.
    below: Vec<ProgressBar>,
    looked: Time,
}

impl Drawn {
    fn new(bars: MultiProgress, counts: &Counts) -> Self {
        let total = bars.add(ProgressBar::new(counts.bytes_in_all));
        let form = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(form) = ProgressStyle::with_template(form) {
            total.set_style(form.progress_chars("=> "));
        }
        Self { bars, total, lines: Lines::default(), below: Vec::new(), looked: Clock.now() }
    }

    fn look(&mut self, ends: &Ends, counts: &Counts) {
        let files = counts.files.load(Ordering::Relaxed);
        self.total.set_message(format!("{files} of {} files", counts.files_in_all));
        self.total.set_position(counts.done.load(Ordering::Relaxed));
        let now = Clock.now();
        let seconds = now.since(self.looked).as_secs_f64().max(0.001);
        self.looked = now;
        for connected in ends.all() {
            let session = &connected.session;
            let looked = (session.lines(), session.channels());
            for (at, text) in self.lines.look(&connected.peer.name, (&looked.0, &looked.1), seconds) {
                self.bar(at).set_message(text);
            }
        }
    }

    /// The bar of a line: they come one after the other, and stay.
    fn bar(&mut self, at: usize) -> &ProgressBar {
        while self.below.len() <= at {
            let bar = self.bars.add(ProgressBar::new_spinner());
            if let Ok(form) = ProgressStyle::with_template("  {msg}") {
                bar.set_style(form);
            }
            self.below.push(bar);
        }
        self.below.get(at).unwrap_or(&self.total)
    }
}

/// The lines that have carried something, and how much: whatever channels a line has had, one after the other.
#[derive(Default)]
struct Lines(Vec<Carried>);

struct Carried {
    peer: String,
    line: LineId,
    /// What each of its channels had carried at the last look. A number may come again, in a session that was started anew.
    seen: BTreeMap<ChannelNumber, u64>,
    bytes: u64,
}

impl Lines {
    /// Looks at the lines to a server, this long after the last look: which of them are to be shown how.
    fn look(
        &mut self,
        peer: &str,
        (lines, channels): (&[LineStatus], &[ChannelStatus]),
        seconds: f64,
    ) -> Vec<(usize, String)> {
        let mut shown = Vec::new();
        for line in lines {
            let of_line =
                |channel: &&ChannelStatus| channel.kind == ChannelKind::Data && channel.line == line.id;
            let live = channels.iter().filter(of_line).find(|channel| is_live(channel));
            let known = self.0.iter().position(|known| known.line == line.id && known.peer == peer);
            let at = match known {
                Some(at) => at,
                None if live.is_none() => continue,
                None => {
                    let (peer, line, seen) = (peer.to_owned(), line.id, BTreeMap::new());
                    self.0.push(Carried { peer, line, seen, bytes: 0 });
                    self.0.len().saturating_sub(1)
                }
            };
            let Some(carried) = self.0.get_mut(at) else { continue };
            let more = carried.look(channels.iter().filter(of_line));
            let via = line.config.via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default();
            let state = match live {
                Some(live) => format!("{}, {}", per_second(more, seconds), live.protection),
                None => ", lost".to_owned(),
            };
            shown.push((at, format!("{}{via}: {}{state}", line.config.address, HumanBytes(carried.bytes))));
        }
        shown
    }
}

impl Carried {
    /// Bytes that came since the last look.
    fn look<'a>(&mut self, channels: impl Iterator<Item = &'a ChannelStatus>) -> u64 {
        let now: BTreeMap<ChannelNumber, u64> = channels
            .map(|channel| (channel.number, channel.read_bytes.saturating_add(channel.written_bytes)))
            .collect();
        let more = now.iter().fold(0_u64, |sum, (number, &bytes)| {
            let before = self.seen.get(number).copied().filter(|&before| before <= bytes).unwrap_or(0);
            sum.saturating_add(bytes.saturating_sub(before))
        });
        self.seen = now;
        self.bytes = self.bytes.saturating_add(more);
        more
    }
}

#[cfg(test)]
mod tests {
    use bowline::client::LineConfig;
    use bowline::model::{LineRole, Protection};

    use super::*;

    fn line(id: u8) -> LineStatus {
        let address = std::net::SocketAddr::from(([10, 0, id, 1], 4477));
        let config = LineConfig { address, via: None, role: LineRole::Both, protection: None };
        LineStatus { id: LineId(id), config, offered: Protection::Sealed }
    }

    fn channel(number: u32, line: u8, bytes: u64, state: ChannelState) -> ChannelStatus {
        ChannelStatus {
            number: ChannelNumber(number),
            line: LineId(line),
            kind: ChannelKind::Data,
            offered: Protection::Sealed,
            protection: Protection::Sealed,
            state,
            read_bytes: bytes,
            written_bytes: 0,
            requests: 0,
            repeats: 0,
            busy: Duration::ZERO,
        }
    }

    /// A line that comes and goes a thousand times has one bar, with all that its channels have carried.
    #[test]
    fn a_line_that_flaps_has_one_bar() {
        let both = [line(0), line(1)];
        let (live, lost) = (ChannelState::Live, ChannelState::Lost(bowline::session::LossReason::Broken));
        let mut lines = Lines::default();
        let mut steady = 0;
        for number in 1..=1000 {
            steady += 1 << 20;
            let mut channels = vec![channel(0, 1, steady, live), channel(number, 0, 1 << 20, live)];
            if number > 1 {
                channels.push(channel(number - 1, 0, 1 << 20, lost));
            }
            let shown = lines.look("store", (&both, &channels), 1.0);
            let at: Vec<usize> = shown.iter().map(|(at, _)| *at).collect();
            assert_eq!(at, [0, 1]);
        }
        assert_eq!(lines.0.len(), 2);
        let shown = lines.look("store", (&both, &[channel(1000, 0, 1 << 20, lost)]), 1.0);
        assert_eq!(shown[0], (0, "10.0.0.1:4477: 1000.00 MiB, lost".to_owned()));
        // A session that was started anew counts its channels from the first one again.
        let anew = [channel(1000, 0, 1 << 10, live), channel(1, 1, 24 << 20, live)];
        let shown = lines.look("store", (&both, &anew), 2.0);
        assert_eq!(shown[0].1, "10.0.0.1:4477: 1000.00 MiB, 512 B/s, sealed");
        assert_eq!(shown[1].1, "10.0.1.1:4477: 1.00 GiB, 12.00 MiB/s, sealed");
        // Another server's lines have bars of their own.
        let other = lines.look("other", (&both, &[channel(0, 0, 1, live)]), 1.0);
        assert_eq!(other, [(2, "10.0.0.1:4477: 1 B, 1 B/s, sealed".to_owned())]);
    }

    #[test]
    fn a_line_of_text_says_how_far_it_is_and_what_is_waited_for() {
        let counts = Counts { files_in_all: 3, bytes_in_all: 4 << 20, ..Counts::default() };
        counts.files.store(1, Ordering::Relaxed);
        counts.done.store(1 << 20, Ordering::Relaxed);
        assert_eq!(counts.line(&[]), "copied 1 of 3 files, 1.00 MiB of 4.00 MiB\n");
        assert_eq!(
            counts.line(&["store"]),
            "copied 1 of 3 files, 1.00 MiB of 4.00 MiB; no line reaches store, waiting\n"
        );
    }
}
