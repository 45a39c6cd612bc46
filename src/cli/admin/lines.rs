//! What is said on the admin socket: one JSON object a line, each with a `type`. `bowline status --json` prints them as
//! they are; docs/status.md says what stands in them.

use std::fmt::Display;
use std::time::Duration;

use bowline::model::{ByteRange, EffectiveProtection, LockMode, OpenId, Protection};
use bowline::opens::{HolderPhase, OpenPhase};
use bowline::session::server::{
    ChannelStatus, ClientLabel, HolderStatus, OpenStatus, ServerStatus, SessionStatus,
};
use serde::{Deserialize, Serialize};

/// What is asked, in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::cli) enum Request {
    /// Tell everything.
    Status {},
    /// End an open.
    Release {
        /// Its id, in hexadecimal.
        open: String,
    },
}

/// A line of an answer. The last one is an end, an error or a release: an answer without it is cut.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(in crate::cli) enum Line {
    Server(ServerLine),
    Protection(ProtectionLine),
    Session(SessionLine),
    Channel(ChannelLine),
    Open(OpenLine),
    Holder(HolderLine),
    Program(ProgramLine),
    PeerSession(PeerSessionLine),
    #[serde(rename = "peer-line")]
    LineToPeer(LineToPeer),
    PeerChannel(PeerChannelLine),
    /// The open was ended.
    Released {
        open: String,
    },
    /// Nothing was done.
    Error {
        message: String,
        /// What to try.
        hint: Option<String>,
        /// The code of the error, where it has one of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Everything was told.
    End,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ServerLine {
    pub(in crate::cli) version: String,
    pub(in crate::cli) process_id: u32,
    pub(in crate::cli) key: String,
    pub(in crate::cli) fingerprint: String,
    pub(in crate::cli) sessions: usize,
    pub(in crate::cli) channels: usize,
    pub(in crate::cli) opens: usize,
    pub(in crate::cli) orphans: usize,
    pub(in crate::cli) holders: usize,
    pub(in crate::cli) locks: usize,
    pub(in crate::cli) waits: usize,
}

/// How data channels are protected at least, with everything stricter taken into account.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ProtectionLine {
    /// Whose: `server`, `export` or `client`.
    pub(in crate::cli) of: String,
    /// Of the export or client; none: all data channels.
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) least: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct SessionLine {
    pub(in crate::cli) session: String,
    /// The fingerprint of the client's key.
    pub(in crate::cli) client: String,
    pub(in crate::cli) client_name: Option<String>,
    pub(in crate::cli) instance: String,
    pub(in crate::cli) process_id: u32,
    /// `live` or `away`.
    pub(in crate::cli) state: String,
    /// How long it is kept at least, if it is away.
    pub(in crate::cli) kept_ms: Option<u64>,
    pub(in crate::cli) channels: usize,
    pub(in crate::cli) handles: usize,
    pub(in crate::cli) requests: u32,
    pub(in crate::cli) bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ChannelLine {
    pub(in crate::cli) session: String,
    pub(in crate::cli) channel: u32,
    /// `control` or `data`.
    pub(in crate::cli) kind: String,
    pub(in crate::cli) protection: String,
    pub(in crate::cli) unwritten: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct OpenLine {
    pub(in crate::cli) open: String,
    /// The fingerprint of the owner's key.
    pub(in crate::cli) owner: String,
    pub(in crate::cli) owner_name: Option<String>,
    pub(in crate::cli) export: String,
    pub(in crate::cli) device: u64,
    pub(in crate::cli) inode: u64,
    pub(in crate::cli) rights: Vec<String>,
    pub(in crate::cli) share: Vec<String>,
    /// `held`, `orphaned` or `closing`.
    pub(in crate::cli) state: String,
    /// What is left of its grace, if it is orphaned; 0: the grace is over.
    pub(in crate::cli) grace_left_ms: Option<u64>,
    pub(in crate::cli) keys: usize,
    pub(in crate::cli) holders: usize,
    pub(in crate::cli) waits: usize,
    pub(in crate::cli) locks: Vec<LockPart>,
}

/// A locked range of an open.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct LockPart {
    pub(in crate::cli) start: u64,
    /// The byte behind the last one; none: the range ends where the file does.
    pub(in crate::cli) end: Option<u64>,
    /// `shared` or `exclusive`.
    pub(in crate::cli) mode: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct HolderLine {
    pub(in crate::cli) open: String,
    pub(in crate::cli) handle: String,
    pub(in crate::cli) session: String,
    /// The fingerprint of the key of the session's client; none: the session is over, and the holder only finishes.
    pub(in crate::cli) client: Option<String>,
    pub(in crate::cli) client_name: Option<String>,
    pub(in crate::cli) rights: Vec<String>,
    /// `live`, `away` or `draining`.
    pub(in crate::cli) state: String,
    pub(in crate::cli) executing: u32,
}

/// A running client.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ProgramLine {
    pub(in crate::cli) process_id: u32,
    pub(in crate::cli) command: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) key: String,
    pub(in crate::cli) fingerprint: String,
    pub(in crate::cli) sessions: usize,
}

/// A session of a running client.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct PeerSessionLine {
    pub(in crate::cli) process_id: u32,
    pub(in crate::cli) session: String,
    pub(in crate::cli) peer: String,
    /// The fingerprint of the server's key.
    pub(in crate::cli) server: String,
}

/// A line of such a session, with all channels that it has had.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct LineToPeer {
    pub(in crate::cli) process_id: u32,
    pub(in crate::cli) session: String,
    pub(in crate::cli) line: u8,
    pub(in crate::cli) address: String,
    pub(in crate::cli) via: Option<String>,
    /// `bulk`, `keys` or `both`.
    pub(in crate::cli) role: String,
    pub(in crate::cli) live: usize,
    pub(in crate::cli) lost: usize,
    pub(in crate::cli) read_bytes: u64,
    pub(in crate::cli) written_bytes: u64,
    pub(in crate::cli) requests: u64,
    pub(in crate::cli) repeats: u64,
}

/// A channel of such a session that is not lost.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct PeerChannelLine {
    pub(in crate::cli) process_id: u32,
    pub(in crate::cli) session: String,
    pub(in crate::cli) line: u8,
    pub(in crate::cli) channel: u32,
    /// `control` or `data`.
    pub(in crate::cli) kind: String,
    pub(in crate::cli) protection: String,
    /// `connecting` or `live`.
    pub(in crate::cli) state: String,
    pub(in crate::cli) read_bytes: u64,
    pub(in crate::cli) written_bytes: u64,
    pub(in crate::cli) requests: u64,
}

/// The lines of a page; the server's own line is for the first one.
pub(super) fn lines_of(page: &ServerStatus, is_first: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    if is_first {
        lines.push(Line::Server(server_line(page)));
    }
    for session in &page.sessions {
        lines.push(Line::Session(session_line(session)));
        lines.extend(session.channels.iter().map(|channel| Line::Channel(channel_line(session, channel))));
    }
    for open in &page.opens {
        lines.push(Line::Open(open_line(open)));
        lines.extend(open.holders.iter().map(|holder| Line::Holder(holder_line(open.open, holder))));
    }
    lines
}

/// What is in force, one fact a line.
pub(super) fn protection_lines(effective: &EffectiveProtection) -> Vec<Line> {
    let line = |of: &str, name: Option<String>, least: Protection| {
        Line::Protection(ProtectionLine { of: of.to_owned(), name, least: least.to_string() })
    };
    let exports =
        effective.exports.iter().map(|(name, least)| line("export", Some(name.to_string()), *least));
    let clients = effective.clients.iter().map(|(name, least)| line("client", Some(name.clone()), *least));
    std::iter::once(line("server", None, effective.server)).chain(exports).chain(clients).collect()
}

fn server_line(page: &ServerStatus) -> ServerLine {
    ServerLine {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process_id: std::process::id(),
        key: page.key.to_string(),
        fingerprint: page.key.fingerprint(),
        sessions: page.counts.sessions,
        channels: page.counts.channels,
        opens: page.counts.opens,
        orphans: page.counts.orphans,
        holders: page.counts.holders,
        locks: page.counts.locks,
        waits: page.counts.waits,
    }
}

fn session_line(session: &SessionStatus) -> SessionLine {
    let (client, client_name) = label(&session.client);
    SessionLine {
        session: session.session.to_string(),
        client,
        client_name,
        instance: session.instance.to_string(),
        process_id: session.process_id,
        state: if session.away.is_some() { "away" } else { "live" }.to_owned(),
        kept_ms: session.away.map(millis),
        channels: session.channels.len(),
        handles: session.handles,
        requests: session.requests,
        bytes: session.bytes,
    }
}

fn channel_line(session: &SessionStatus, channel: &ChannelStatus) -> ChannelLine {
    ChannelLine {
        session: session.session.to_string(),
        channel: channel.number.0,
        kind: channel.kind.to_string(),
        protection: channel.protection.to_string(),
        unwritten: channel.unwritten,
    }
}

fn open_line(open: &OpenStatus) -> OpenLine {
    let (owner, owner_name) = label(&open.owner);
    let state = match open.phase {
        OpenPhase::Held => "held",
        OpenPhase::Orphaned => "orphaned",
        OpenPhase::Closing | OpenPhase::Ended => "closing",
    };
    OpenLine {
        open: open.open.to_string(),
        owner,
        owner_name,
        export: open.export.to_string(),
        device: open.file.device,
        inode: open.file.inode,
        rights: words(&open.mode.rights),
        share: words(&open.mode.share),
        state: state.to_owned(),
        grace_left_ms: open.grace_left.map(millis),
        keys: open.keys,
        holders: open.holders.len(),
        waits: open.waits,
        locks: open.locks.iter().map(lock_part).collect(),
    }
}

fn lock_part((range, mode): &(ByteRange, LockMode)) -> LockPart {
    let mode = match mode {
        LockMode::Shared => "shared",
        LockMode::Exclusive => "exclusive",
    };
    let end = Some(range.end()).filter(|end| *end < ByteRange::END_MAX);
    LockPart { start: range.start(), end, mode: mode.to_owned() }
}

fn holder_line(open: OpenId, holder: &HolderStatus) -> HolderLine {
    let (client, client_name) = holder.client.as_ref().map(label).unzip();
    let state = match holder.phase {
        HolderPhase::Live => "live",
        HolderPhase::Away => "away",
        HolderPhase::Draining | HolderPhase::Gone => "draining",
    };
    HolderLine {
        open: open.to_string(),
        handle: format!("{:08x}", holder.handle),
        session: holder.session.to_string(),
        client,
        client_name: client_name.flatten(),
        rights: words(&holder.rights),
        state: state.to_owned(),
        executing: holder.executing,
    }
}

fn label(client: &ClientLabel) -> (String, Option<String>) {
    (client.key.fingerprint(), client.name.clone())
}

/// The members of a set that is written `a|b`, or `none`.
fn words(set: &impl Display) -> Vec<String> {
    let text = set.to_string();
    text.split('|').filter(|word| *word != "none").map(str::to_owned).collect()
}

/// Whole milliseconds, rounded up: what is not over yet does not look as if it were.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_and_sets_are_lists_of_words() {
        use bowline::model::{Rights, ShareMode};
        let micros = |micros| millis(Duration::from_micros(micros));
        assert_eq!((micros(0), micros(1), micros(1000), micros(1001)), (0, 1, 1, 2));
        assert_eq!(words(&Rights::READ.union(Rights::LOCK)), ["read", "lock"]);
        assert_eq!(words(&ShareMode::NONE), [""; 0]);
    }

    #[test]
    fn a_lock_to_the_end_of_the_file_has_no_end() {
        let part = lock_part(&(ByteRange::from_start(7).unwrap(), LockMode::Shared));
        assert_eq!(serde_json::to_string(&part).unwrap(), r#"{"start":7,"end":null,"mode":"shared"}"#);
        let part = lock_part(&(ByteRange::between(7, 9).unwrap(), LockMode::Exclusive));
        assert_eq!(serde_json::to_string(&part).unwrap(), r#"{"start":7,"end":9,"mode":"exclusive"}"#);
    }

    #[test]
    fn requests_are_understood_or_refused() {
        let parse = |text: &str| serde_json::from_str::<Request>(text);
        assert!(matches!(parse(r#"{"command":"status"}"#), Ok(Request::Status {})));
        let release = parse(r#"{"command":"release","open":"1f"}"#);
        assert!(matches!(release, Ok(Request::Release { open }) if open == "1f"));
        for bad in ["", "{}", "[]", r#"{"command":"stop"}"#, r#"{"command":"status","names":true}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(r#"{"command":"release"}"#).is_err() && parse("{\"command\":\"status\"} x").is_err());
    }

    #[test]
    fn lines_of_a_later_version_are_passed_over() {
        let line = serde_json::from_str::<Line>(r#"{"type":"tombstone","open":"1f"}"#);
        assert!(matches!(line, Ok(Line::Unknown)), "{line:?}");
        assert_eq!(serde_json::to_string(&Line::End).unwrap(), r#"{"type":"end"}"#);
    }
}
