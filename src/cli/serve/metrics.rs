//! What a server tells Prometheus: its counts as text, over as little HTTP/1.1 as that takes.
//!
//! Labels are words of this program, and there are few of them: no path, no name and no key is ever one.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::net::Clock;
use bowline::server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::Failure;

/// Connections at once: more than one watcher is rare.
const CONNECTIONS_MAX: usize = 8;
/// Longest head of a request, in bytes: watchers send a few hundred.
const HEAD_MAX: usize = 8 << 10;
/// How long a connection may take for all of it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A metric: its name, its type, and what it says.
type Metric = (&'static str, &'static str, &'static str);

const SESSIONS: Metric = ("bowline_sessions", "gauge", "Sessions.");
const CHANNELS: Metric = ("bowline_channels", "gauge", "Channels of all sessions, by kind and protection.");
const OPENS: Metric =
    ("bowline_opens", "gauge", "Open files, by state: held, orphaned, or lapsed when its grace is over.");
const HOLDERS: Metric = ("bowline_holders", "gauge", "Holders of all open files.");
const LOCKS: Metric = ("bowline_locks", "gauge", "Ranges that are locked.");
const LOCK_WAITS: Metric = ("bowline_lock_waits", "gauge", "Locks that wait.");
const HALF_OPEN: Metric = ("bowline_half_open_connections", "gauge", "Connections in their handshake.");
const DESCRIPTORS: Metric = (
    "bowline_descriptors",
    "gauge",
    "Descriptors of open files, by state: all that are open, and those that are pinned.",
);
const EVICTED: Metric = (
    "bowline_descriptors_evicted_total",
    "counter",
    "Descriptors of open files that were closed to make room for others.",
);
const SESSION_ENDS: Metric =
    ("bowline_sessions_ended_total", "counter", "Sessions that have ended, by reason.");
const CHANNEL_LOSSES: Metric =
    ("bowline_channels_lost_total", "counter", "Channels that sessions have lost, by reason.");
const OPEN_ENDS: Metric = (
    "bowline_opens_ended_total",
    "counter",
    "Open files that have ended without their clients' doing, by reason.",
);
const PAYLOAD: Metric = (
    "bowline_payload_bytes_total",
    "counter",
    "Payload that channels have carried, by direction and protection.",
);
const READ: Metric = ("bowline_read_bytes_total", "counter", "Bytes of files that were read for clients.");
const WRITTEN: Metric =
    ("bowline_written_bytes_total", "counter", "Bytes that clients have written to files.");
const REQUESTS: Metric = ("bowline_requests_total", "counter", "Answered requests, by kind and outcome.");
const HANDSHAKES: Metric = ("bowline_handshakes_total", "counter", "Handshakes that have ended, by outcome.");
const STEPS: Metric = (
    "bowline_handshake_steps_total",
    "counter",
    "Steps of handshakes that were computed, each with Diffie-Hellmans.",
);
const TURNED_AWAY: Metric = (
    "bowline_turned_away_total",
    "counter",
    "Connections that were closed before a handshake or instead of one, by reason.",
);
const COMMITS: Metric = (
    "bowline_store_commit_seconds",
    "summary",
    "Batches that the store of the open table has recorded, and how long they waited for it.",
);

/// Every metric, in the order in which they are told.
#[cfg(test)]
const ALL: [Metric; 20] = [
    SESSIONS,
    CHANNELS,
    OPENS,
    HOLDERS,
    LOCKS,
    LOCK_WAITS,
    HALF_OPEN,
    DESCRIPTORS,
    EVICTED,
    SESSION_ENDS,
    CHANNEL_LOSSES,
    OPEN_ENDS,
    READ,
    WRITTEN,
    PAYLOAD,
    REQUESTS,
    HANDSHAKES,
    STEPS,
    TURNED_AWAY,
    COMMITS,
];

/// The task that answers watchers.
pub(super) struct Metrics {
    task: JoinHandle<()>,
    stop: CancellationToken,
    /// Where it answers.
    pub(super) address: SocketAddr,
}

impl Metrics {
    /// Listens on `address`; port 0 takes a free one.
    pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "whoever reaches this address can read the metrics");
        }
        TcpListener::bind(address).await.map_err(|error| {
            Failure::of(&format!("cannot answer for metrics on {address}"), &error)
                .try_this("another --metrics ADDR")
        })
    }

    /// Answers from now on.
    pub(super) fn start(listener: TcpListener, server: &Arc<Server>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept_all(listener, Arc::clone(server), stop.clone()));
        Ok(Self { task, stop, address })
    }

    /// Ends its connections: nobody has the server afterwards.
    ///
    /// # Cancel safety
    /// It is going from the first poll on.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of the metrics has failed");
        }
    }
}

async fn accept_all(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    let server = Arc::clone(&server);
                    drop(connections.spawn(async move {
                        // Who does not come to an end is ended; who goes away is nobody's loss.
                        let _answered = Clock.timeout(DEADLINE, serve(&server, stream)).await;
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    Clock.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// One request a connection.
async fn serve(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() <= HEAD_MAX {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            len => head.extend_from_slice(piece.get(..len).unwrap_or_default()),
        }
    }
    let answer = match asked(&head) {
        Ok(()) => answer("200 OK", &text(server)),
        Err(status) => answer(status, &format!("{status}\n")),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Whether the metrics are asked for.
///
/// # Errors
/// The status to answer with.
fn asked(head: &[u8]) -> Result<(), &'static str> {
    if head.len() > HEAD_MAX {
        return Err("431 Request Header Fields Too Large");
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics"), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Ok(()),
        (Some(b"GET"), Some(_), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Err("404 Not Found"),
        (Some(_), Some(_), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Err("405 Method Not Allowed"),
        _ => Err("400 Bad Request"),
    }
}

fn answer(status: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {len}\r\nAllow: GET\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Text as Prometheus reads it.
struct Text(String);

impl Text {
    fn metric(&mut self, (name, kind, help): Metric, samples: impl IntoIterator<Item = (String, u64)>) {
        self.head((name, kind, help));
        for (labels, value) in samples {
            self.0.push_str(&format!("{name}{labels} {value}\n"));
        }
    }

    fn one(&mut self, metric: Metric, value: usize) {
        self.metric(metric, [(String::new(), wide(value))]);
    }

    fn head(&mut self, (name, kind, help): Metric) {
        // A string takes everything.
        let _written = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

/// What the server has, and what it has done.
fn text(server: &Server) -> String {
    let (load, counts, gate, descriptors) =
        (server.load(), server.counts(), server.gate(), server.descriptors());
    let mut text = Text(String::new());
    text.one(SESSIONS, load.sessions);
    text.metric(
        CHANNELS,
        load.channels.iter().map(|(kind, protection, count)| {
            (format!("{{kind=\"{kind}\",protection=\"{protection}\"}}"), wide(*count))
        }),
    );
    let states = [("held", load.held), ("orphaned", load.orphaned), ("lapsed", load.lapsed)];
    text.metric(OPENS, states.map(|(state, count)| (label("state", state), wide(count))));
    text.one(HOLDERS, load.holders);
    text.one(LOCKS, load.locks);
    text.one(LOCK_WAITS, load.waits);
    text.one(HALF_OPEN, gate.half_open);
    let states = [("open", descriptors.open), ("pinned", descriptors.pinned)];
    text.metric(DESCRIPTORS, states.map(|(state, count)| (label("state", state), wide(count))));
    text.metric(EVICTED, [(String::new(), descriptors.evicted)]);
    let by_reason = [
        (SESSION_ENDS, &counts.session_ends),
        (CHANNEL_LOSSES, &counts.channel_losses),
        (OPEN_ENDS, &counts.open_ends),
    ];
    for (metric, ends) in by_reason {
        text.metric(metric, ends.iter().map(|(reason, count)| (label("reason", reason), *count)));
    }
    text.metric(READ, [(String::new(), counts.read)]);
    text.metric(WRITTEN, [(String::new(), counts.written)]);
    let carried = counts.payload.iter().flat_map(|(protection, came, went)| {
        [("in", came), ("out", went)].map(|(direction, bytes)| {
            (format!("{{direction=\"{direction}\",protection=\"{protection}\"}}"), *bytes)
        })
    });
    text.metric(PAYLOAD, carried);
    let outcomes = counts.requests.iter().flat_map(|request| {
        [("done", request.done), ("refused", request.refused)]
            .map(|(outcome, count)| (format!("{{kind=\"{}\",outcome=\"{outcome}\"}}", request.kind), count))
    });
    text.metric(REQUESTS, outcomes);
    text.metric(HANDSHAKES, counts.handshakes.iter().map(|(how, count)| (label("outcome", how), *count)));
    text.metric(STEPS, [(String::new(), gate.handshake_steps)]);
    let reasons = [("no_token", gate.counts.without_token), ("drawn", gate.counts.drawn)];
    text.metric(TURNED_AWAY, reasons.map(|(reason, count)| (label("reason", reason), count)));
    text.head(COMMITS);
    let (name, ..) = COMMITS;
    let seconds = counts.commit_time.as_secs_f64();
    text.0.push_str(&format!("{name}_sum {seconds}\n{name}_count {}\n", counts.commits));
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_metric_and_no_other() {
        let page = include_str!("../../../docs/metrics.md");
        // Its labels have a table of their own.
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter(|row| row.starts_with("bowline_"));
        let documented: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
        assert_eq!(documented, ALL.map(|(name, ..)| name));
        for (name, kind, help) in ALL {
            assert!(page.contains(&format!("| `{name}` | {kind} | {help} |")), "{name}");
        }
    }

    #[test]
    fn only_the_metrics_are_served() {
        assert_eq!(asked(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(()));
        for (head, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"GET /metrics/../x HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics HTTP/2\r\n\r\n", "400"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"\r\n\r\n", "400"),
            (&[b'a'; HEAD_MAX + 1], "431"),
        ] {
            assert!(asked(head).unwrap_err().starts_with(status), "{status}");
        }
    }
}
