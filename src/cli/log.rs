//! The program's log on standard error: how much of it there is, and in which form.
//!
//! The journal is written to through standard error with `<N>` before each line, which it takes for the line's priority: no
//! further crate is needed for that, and a log that is piped elsewhere is still read by people.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::failure::{Code, Failure};
use super::output::style;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
    /// A line for people behind a priority, as the journal of systemd takes it; the time is the journal's.
    Journald,
}

/// What the log shows.
const LOG_VARIABLE: &str = "BOWLINE_LOG";

/// The log's filter, while it can be changed.
struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// Whether the variable or a flag says what the log shows, so that no file does.
    is_fixed: bool,
    usual: &'static str,
}

static FILTER: OnceLock<Filter> = OnceLock::new();

/// Starts the log: what the variable says, or so much as was asked for with `-v`.
pub(super) fn start(verbose: u8, format: Option<LogFormat>) -> Result<(), Failure> {
    let usual = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let variable = std::env::var_os(LOG_VARIABLE);
    let shown = match variable {
        None => EnvFilter::new(usual),
        Some(_) => EnvFilter::try_from_env(LOG_VARIABLE).map_err(|error| {
            // What is behind the error says the same again.
            Failure::coded(Code::Settings, format!("cannot use the log filter in {LOG_VARIABLE}"))
                .because(error.to_string())
                .try_this("error, warn, info, debug or trace")
        })?,
    };
    let is_fixed = variable.is_some() || verbose > 0;
    let (layer, handle) = reload::Layer::new(shown);
    let plain = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(style().is_colored());
    let format = format.unwrap_or_else(|| if is_journal() { LogFormat::Journald } else { LogFormat::Text });
    let written: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => Box::new(plain),
        LogFormat::Json => Box::new(plain.json()),
        LogFormat::Journald => Box::new(plain.with_ansi(false).event_format(Prioritised::new())),
    };
    // A second start in one process keeps the first; there is nothing to report.
    if tracing_subscriber::registry().with(layer).with(written).try_init().is_ok() {
        let _first = FILTER.set(Filter { handle, is_fixed, usual });
    }
    Ok(())
}

/// The filter that `text` asks for.
///
/// # Errors
/// What is wrong with it.
pub(super) fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| format!("\"{}\" is no log filter: {error}", text.escape_debug()))
}

/// Shows what a file asks for, or as much as is usual if it asks for nothing, unless the variable or a flag says more.
/// Whether anything was changed.
pub(super) fn show_as_in_file(text: Option<&str>) -> bool {
    let Some(log) = FILTER.get().filter(|log| !log.is_fixed) else { return false };
    filter(text.unwrap_or(log.usual)).is_ok_and(|filter| log.handle.reload(filter).is_ok())
}

/// Whether standard error is a stream to the journal: systemd says which file that is.
fn is_journal() -> bool {
    let Ok(said) = std::env::var("JOURNAL_STREAM") else { return false };
    let own = std::fs::metadata("/proc/self/fd/2");
    own.is_ok_and(|own| said == format!("{}:{}", own.dev(), own.ino()))
}

/// A line for people behind its priority.
struct Prioritised(Format<Full, ()>);

impl Prioritised {
    fn new() -> Self {
        Self(Format::default().without_time())
    }
}

impl<S, N> FormatEvent<S, N> for Prioritised
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // As syslog numbers them: error, warning, informational, debug.
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
