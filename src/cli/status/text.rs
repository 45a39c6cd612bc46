//! A server's state for people: a line that sums up, the sessions with their channels, the opens with their holders and
//! locks. Rows of one kind have their columns below each other.

use std::fmt::Write as _;

use super::super::admin::{
    ChannelLine, HolderLine, Line, LineToPeer, LockPart, OpenLine, PeerChannelLine, PeerSessionLine,
    ProgramLine, ProtectionLine, ServerLine, SessionLine,
};

/// A kind of rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Protection,
    Session,
    Channel,
    Open,
    Holder,
    Lock,
    PeerSession,
    PeerLine,
    PeerChannel,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Protection,
        Self::Session,
        Self::Channel,
        Self::Open,
        Self::Holder,
        Self::Lock,
        Self::PeerSession,
        Self::PeerLine,
        Self::PeerChannel,
    ];

    /// What stands before its rows: each is of the row above that has less.
    fn indent(self) -> &'static str {
        match self {
            Self::Protection | Self::Session | Self::Open | Self::PeerSession => "",
            Self::Channel | Self::Holder | Self::Lock | Self::PeerLine => "  ",
            Self::PeerChannel => "    ",
        }
    }
}

type Row = (Kind, Vec<String>);

/// The text of a status.
pub(super) fn text(lines: &[Line]) -> String {
    let mut summary = String::new();
    let (mut sessions, mut opens): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
    let (mut locks, mut protection): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
    for line in lines {
        // An open's locks stand behind its holders.
        if !matches!(line, Line::Holder(_)) {
            opens.append(&mut locks);
        }
        match line {
            Line::Server(server) => summary = summed_up(server),
            Line::Protection(fact) => protection.push((Kind::Protection, protection_cells(fact))),
            Line::Session(session) => sessions.push((Kind::Session, session_cells(session))),
            Line::Channel(channel) => sessions.push((Kind::Channel, channel_cells(channel))),
            Line::Open(open) => {
                opens.push((Kind::Open, open_cells(open)));
                locks.extend(open.locks.iter().map(|lock| (Kind::Lock, lock_cells(lock))));
            }
            Line::Holder(holder) => opens.push((Kind::Holder, holder_cells(holder))),
            Line::Program(program) => summary = program_summed_up(program),
            Line::PeerSession(session) => sessions.push((Kind::PeerSession, peer_session_cells(session))),
            Line::LineToPeer(line) => sessions.push((Kind::PeerLine, peer_line_cells(line))),
            Line::PeerChannel(channel) => sessions.push((Kind::PeerChannel, peer_channel_cells(channel))),
            Line::Released { .. } | Line::Error { .. } | Line::End | Line::Unknown => {}
        }
    }
    opens.append(&mut locks);
    let parts = [summary, aligned(&protection), aligned(&sessions), aligned(&opens)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn summed_up(server: &ServerLine) -> String {
    let ServerLine { fingerprint, version, process_id, orphans, waits, .. } = server;
    format!(
        "server {}: {}, {}, {} ({orphans} orphaned), {}, {}, {waits} waiting; bowline {}, process {process_id}\n",
        shown(fingerprint),
        counted(server.sessions, "session"),
        counted(server.channels, "channel"),
        counted(server.opens, "open"),
        counted(server.holders, "holder"),
        counted(server.locks, "lock"),
        shown(version),
    )
}

fn protection_cells(fact: &ProtectionLine) -> Vec<String> {
    let of = match &fact.name {
        Some(name) => format!("{} {}", shown(&fact.of), shown(name)),
        None => "data channels".to_owned(),
    };
    vec![of, format!("at least {}", shown(&fact.least))]
}

fn session_cells(session: &SessionLine) -> Vec<String> {
    let state = match session.kept_ms {
        Some(kept_ms) => format!("{}, kept {}", shown(&session.state), seconds(kept_ms)),
        None => shown(&session.state),
    };
    vec![
        format!("session {}", shown(&session.session)),
        format!("client {}", client(&session.client, session.client_name.as_deref())),
        format!("process {}", session.process_id),
        state,
        counted(session.handles, "handle"),
        format!("executing {}", session.requests),
        format!("bytes {}", session.bytes),
    ]
}

fn channel_cells(channel: &ChannelLine) -> Vec<String> {
    vec![
        format!("channel {}", channel.channel),
        shown(&channel.kind),
        shown(&channel.protection),
        format!("unwritten {}", channel.unwritten),
    ]
}

fn open_cells(open: &OpenLine) -> Vec<String> {
    let state = match open.grace_left_ms {
        Some(0) => format!("{}, grace over", shown(&open.state)),
        Some(left_ms) => format!("{}, {} left", shown(&open.state), seconds(left_ms)),
        None => shown(&open.state),
    };
    let mode = if open.share.is_empty() {
        format!("{} exclusive", joined(&open.rights))
    } else {
        format!("{} sharing {}", joined(&open.rights), joined(&open.share))
    };
    let (major, minor) = (rustix::fs::major(open.device), rustix::fs::minor(open.device));
    vec![
        format!("open {}", shown(&open.open)),
        state,
        format!("owner {}", client(&open.owner, open.owner_name.as_deref())),
        format!("export {}", shown(&open.export)),
        format!("device {major}:{minor} inode {}", open.inode),
        mode,
        counted(open.keys, "key"),
        format!("waiting {}", open.waits),
    ]
}

fn holder_cells(holder: &HolderLine) -> Vec<String> {
    let client = match &holder.client {
        Some(key) => format!("client {}", client(key, holder.client_name.as_deref())),
        None => "session over".to_owned(),
    };
    vec![
        format!("holder {}", shown(&holder.handle)),
        shown(&holder.state),
        format!("session {}", shown(&holder.session)),
        client,
        joined(&holder.rights),
        format!("executing {}", holder.executing),
    ]
}

fn lock_cells(lock: &LockPart) -> Vec<String> {
    let end = lock.end.map(|end| end.to_string()).unwrap_or_default();
    vec![format!("lock {}..{end}", lock.start), shown(&lock.mode)]
}

fn program_summed_up(program: &ProgramLine) -> String {
    let ProgramLine { process_id, command, version, fingerprint, .. } = program;
    format!(
        "client process {process_id} ({}): key {}, {}; bowline {}\n",
        shown(command),
        shown(fingerprint),
        counted(program.sessions, "session"),
        shown(version),
    )
}

fn peer_session_cells(session: &PeerSessionLine) -> Vec<String> {
    vec![
        format!("session {}", shown(&session.session)),
        format!("server {} {}", shown(&session.server), shown(&session.peer)),
    ]
}

fn peer_line_cells(line: &LineToPeer) -> Vec<String> {
    let via = line.via.as_deref().map(|via| format!(" via {}", shown(via))).unwrap_or_default();
    vec![
        format!("line {}", line.line),
        format!("{}{via}", shown(&line.address)),
        shown(&line.role),
        if line.live == 0 { "not reached".to_owned() } else { format!("{} live", line.live) },
        format!("{} lost", line.lost),
        format!("read {}", line.read_bytes),
        format!("written {}", line.written_bytes),
        format!("repeated {}", line.repeats),
    ]
}

fn peer_channel_cells(channel: &PeerChannelLine) -> Vec<String> {
    vec![
        format!("channel {}", channel.channel),
        shown(&channel.kind),
        shown(&channel.protection),
        shown(&channel.state),
        format!("read {}", channel.read_bytes),
        format!("written {}", channel.written_bytes),
        format!("requests {}", channel.requests),
    ]
}

/// Rows with their columns below each other, one kind of rows apart from the other.
fn aligned(rows: &[Row]) -> String {
    let kinds = Kind::ALL;
    let widths = kinds.map(|kind| widths(rows.iter().filter(|(of, _)| *of == kind)));
    let mut text = String::new();
    for (kind, cells) in rows {
        let widths = kinds.iter().zip(&widths).find(|(of, _)| *of == kind);
        let widths = widths.map(|(_, widths)| widths.as_slice()).unwrap_or_default();
        let mut line = kind.indent().to_owned();
        for (cell, &width) in cells.iter().zip(widths) {
            // A string takes what is written to it.
            let _written = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How wide each column of rows of one kind is.
fn widths<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<usize> {
    let mut widths: Vec<usize> = Vec::new();
    for (_, cells) in rows {
        widths.resize(widths.len().max(cells.len()), 0);
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn client(fingerprint: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{} {}", shown(fingerprint), shown(name)),
        None => format!("{} (not on the list)", shown(fingerprint)),
    }
}

/// What a terminal may be given, whoever said it.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}

fn joined(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { shown(&words.join("|")) }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Seconds with one digit behind the point.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    const STATUS: &str = r#"{"type":"server","version":"1.2.3","process_id":7,"key":"k","fingerprint":"ssss","sessions":2,"channels":1,"opens":2,"orphans":1,"holders":1,"locks":2,"waits":0}
{"type":"protection","of":"server","name":null,"least":"signed"}
{"type":"protection","of":"export","name":"media","least":"sealed"}
{"type":"protection","of":"client","name":"edit","least":"sealed"}
{"type":"session","session":"aa","client":"cccc","client_name":"edit","instance":"ii","process_id":70,"state":"live","kept_ms":null,"channels":1,"handles":1,"requests":0,"bytes":0}
{"type":"channel","session":"aa","channel":0,"kind":"control","protection":"sealed","unwritten":0}
{"type":"session","session":"bb","client":"dddd","client_name":null,"instance":"ii","process_id":7,"state":"away","kept_ms":59999,"channels":0,"handles":2,"requests":0,"bytes":0}
{"type":"open","open":"1","owner":"cccc","owner_name":"edit","export":"media","device":64769,"inode":5,"rights":["read"],"share":[],"state":"held","grace_left_ms":null,"keys":1,"holders":1,"waits":0,"locks":[{"start":0,"end":10,"mode":"shared"},{"start":20,"end":null,"mode":"exclusive"}]}
{"type":"holder","open":"1","handle":"0000abcd","session":"aa","client":"cccc","client_name":"edit","rights":["read","lock"],"state":"live","executing":0}
{"type":"open","open":"22","owner":"dddd","owner_name":null,"export":"m","device":64769,"inode":6,"rights":["read","write"],"share":["read"],"state":"orphaned","grace_left_ms":12345,"keys":0,"holders":0,"waits":3,"locks":[]}
{"type":"news"}"#;

    #[test]
    fn a_status_is_aligned_and_each_open_has_its_holders_and_locks_below_it() {
        let expected = "\
server ssss: 2 sessions, 1 channel, 2 opens (1 orphaned), 1 holder, 2 locks, 0 waiting; bowline 1.2.3, process 7

data channels  at least signed
export media   at least sealed
client edit    at least sealed

session aa  client cccc edit               process 70  live               1 handle   executing 0  bytes 0
  channel 0  control  sealed  unwritten 0
session bb  client dddd (not on the list)  process 7   away, kept 59.9 s  2 handles  executing 0  bytes 0

open 1   held                   owner cccc edit               export media  device 253:1 inode 5  read exclusive           1 key   waiting 0
  holder 0000abcd  live  session aa  client cccc edit  read|lock  executing 0
  lock 0..10  shared
  lock 20..   exclusive
open 22  orphaned, 12.3 s left  owner dddd (not on the list)  export m      device 253:1 inode 6  read|write sharing read  0 keys  waiting 3
";
        let text = text(&lines(STATUS));
        assert_eq!(text, expected, "\n{text}");
    }

    const CLIENT: &str = r#"{"type":"program","process_id":7,"command":"cp","version":"1.2.3","key":"k","fingerprint":"cccc","sessions":1}
{"type":"peer-session","process_id":7,"session":"aa","peer":"store","server":"ssss"}
{"type":"peer-line","process_id":7,"session":"aa","line":0,"address":"10.0.0.1:4477","via":"eth1","role":"bulk","live":1,"lost":2,"read_bytes":5000,"written_bytes":0,"requests":9,"repeats":1}
{"type":"peer-channel","process_id":7,"session":"aa","line":0,"channel":3,"kind":"data","protection":"signed","state":"live","read_bytes":500,"written_bytes":0,"requests":4}
{"type":"peer-line","process_id":7,"session":"aa","line":1,"address":"10.0.1.1:4477","via":null,"role":"both","live":0,"lost":0,"read_bytes":0,"written_bytes":0,"requests":0,"repeats":0}"#;

    #[test]
    fn a_client_s_lines_have_their_channels_below_them() {
        let expected = "\
client process 7 (cp): key cccc, 1 session; bowline 1.2.3

session aa  server ssss store
  line 0  10.0.0.1:4477 via eth1  bulk  1 live       2 lost  read 5000  written 0  repeated 1
    channel 3  data  signed  live  read 500  written 0  requests 4
  line 1  10.0.1.1:4477           both  not reached  0 lost  read 0     written 0  repeated 0
";
        let text = text(&lines(CLIENT));
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_server_with_nothing_says_so_and_nothing_else() {
        let server = STATUS.lines().next().unwrap();
        assert_eq!(text(&lines(server)).lines().count(), 1);
    }

    #[test]
    fn nothing_that_is_told_reaches_the_terminal_as_a_command() {
        let hostile = STATUS.replace("edit", "\\u001b[31m\\u009b2J");
        let text = text(&lines(&hostile));
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{9b}') && text.contains("\\u{1b}[31m"),
            "{text}"
        );
    }

    #[test]
    fn a_grace_that_is_over_is_called_over() {
        let over = STATUS.replace("12345", "0");
        assert!(text(&lines(&over)).contains("orphaned, grace over"));
    }
}
