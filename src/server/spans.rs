//! What the log hears of sessions, channels and requests: the spans that everything of theirs stands in, and the core's
//! notes.
//!
//! A session and a channel have a span for as long as they last, so that a warning says whose it is. A request has one
//! only where the log shows `debug`, and so has what a channel's tasks do: below that they say nothing, and a span that is
//! entered at every poll is not free. No line names a file, unless names are asked for; then those of `debug` do.

use core::fmt;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use tracing::{Level, Span, debug_span, error_span};

use crate::model::{
    ChannelNumber, ExportName, ExportPath, OpenId, Protection, PublicKey, RequestId, SessionId,
};
use crate::opens::OpenEnd;
use crate::session::server::{ClientMessage, ServerNote};
use crate::wire::control::{Change, Open, Target};
use crate::wire::names::{
    HardLink, List, Lookup, MakeDirectory, Place, ReadLink, Remove, Rename, StatSpace, Symlink, XattrGet,
    XattrList, XattrRemove, XattrSet,
};
use crate::wire::{ClientControl, ClientData};

/// The spans of a server's sessions.
#[derive(Debug, Default)]
pub(super) struct Spans {
    sessions: HashMap<SessionId, Span>,
}

/// Where a connection came to, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// The server's address, as the client knows it too.
    to: SocketAddr,
    from: IpAddr,
}

impl Line {
    /// An address of IPv4 is one, also where it came through a socket of IPv6.
    pub(super) fn new(to: SocketAddr, from: IpAddr) -> Self {
        Self { to: SocketAddr::new(to.ip().to_canonical(), to.port()), from: from.to_canonical() }
    }
}

/// A connection as the log and the counters know it: a channel with a span once it is bound.
#[derive(Debug)]
pub(super) struct Traced {
    line: Line,
    span: Span,
    protection: Option<Protection>,
}

impl Traced {
    pub(super) fn new(line: Line) -> Self {
        Self { line, span: Span::none(), protection: None }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// How its channel is protected, once it is bound.
    pub(super) fn protection(&self) -> Option<Protection> {
        self.protection
    }
}

/// The connection that a note is about, as far as it names one.
pub(super) fn connection_of(note: &ServerNote) -> Option<crate::session::server::ConnectionId> {
    match note {
        ServerNote::ChannelBound { connection, .. } | ServerNote::ChannelLost { connection, .. } => {
            Some(*connection)
        }
        _ => None,
    }
}

impl Spans {
    /// Our log says exactly what the other side is not told. `of` is the connection that the note is about.
    pub(super) fn tell(&mut self, note: &ServerNote, of: Option<&mut Traced>) {
        match note {
            ServerNote::SessionStarted { session, client } => {
                let span = session_span(session, client);
                tracing::info!(parent: &span, "session started");
                self.sessions.insert(*session, span);
            }
            ServerNote::SessionEnded { session, reason } => {
                let span = self.sessions.remove(session).unwrap_or_else(Span::none);
                tracing::info!(parent: &span, ?reason, "session ended");
            }
            ServerNote::ChannelBound { session, number, kind, protection, .. } => {
                let of_session = self.of(session);
                let Some(of) = of else { return };
                let Line { to, from } = of.line;
                let span =
                    error_span!(parent: &of_session, "channel", %number, %kind, line = %to, peer = %from);
                tracing::info!(parent: &span, %protection, "channel bound");
                (of.span, of.protection) = (span, Some(*protection));
            }
            ServerNote::ChannelLost { session, number, reason, .. } => match of {
                Some(of) => tracing::info!(parent: &of.span, %reason, "channel lost"),
                None => self.lost(session, *number, reason),
            },
            ServerNote::SessionAway { session, kept } => {
                tracing::info!(parent: &self.of(session), ?kept, "no channel reaches the session; its opens wait");
            }
            ServerNote::StartedUnderPreviousKey { session, .. } => {
                let why = "the session began under the server's previous key, which its client still has";
                tracing::warn!(parent: &self.of(session), "{why}");
            }
            // Its connection's end tells the log, as often as the log is told of refusals.
            ServerNote::BindRefused { why } => tracing::debug!(?why, "bind refused"),
            ServerNote::ResumeRefused { session, why } => {
                tracing::warn!(parent: &self.of(session), ?why, "resume key refused");
            }
            ServerNote::ResumeThrottled { session } => {
                let why = "resume key not looked at: too many were refused just before";
                tracing::warn!(parent: &self.of(session), "{why}");
            }
            ServerNote::OpenReleased { open, owner, holders } => {
                tracing::warn!(parent: None, %open, ?owner, holders, "the administrator has ended the open");
            }
            // Its release was told of.
            ServerNote::OpenEnded { why: OpenEnd::Released, .. } => {}
            ServerNote::OpenEnded { open, owner, why } => {
                let owner = owner.fingerprint();
                tracing::info!(parent: None, %open, %owner, ?why, "an absent client's open has ended");
            }
            ServerNote::Offence { session, what } => {
                tracing::warn!(parent: &self.of(session), ?what, "the peer broke the protocol");
            }
        }
    }

    fn of(&self, session: &SessionId) -> Span {
        self.sessions.get(session).cloned().unwrap_or_else(Span::none)
    }

    /// A channel whose connection is forgotten already.
    fn lost(&self, session: &SessionId, number: ChannelNumber, reason: &dyn fmt::Display) {
        tracing::info!(parent: &self.of(session), channel = %number, %reason, "channel lost");
    }
}

fn session_span(session: &SessionId, client: &PublicKey) -> Span {
    error_span!(parent: None, "session", id = %session, client = %client.fingerprint())
}

/// The span of a request that came on a channel; none where the log does not show `debug`.
pub(super) fn request_span(channel: &Span, request: RequestId, kind: u8) -> Span {
    debug_span!(parent: channel, "request", id = %request, kind = %kind_name(kind))
}

/// The span in which a channel's tasks run: its own where the log shows `debug`.
pub(super) fn of_tasks(channel: &Span) -> Span {
    if tracing::enabled!(Level::DEBUG) { channel.clone() } else { Span::none() }
}

/// What file work takes with it to another thread: the span in which it was asked for, where the log shows `debug`.
pub(super) fn of_work() -> Span {
    if tracing::enabled!(Level::DEBUG) { Span::current() } else { Span::none() }
}

/// A file is about to be opened. Its name is told where it is asked for, as `names` says.
pub(super) fn opening(open: OpenId, export: &ExportName, path: &ExportPath, names: bool) {
    match names {
        true => tracing::debug!(%open, %export, path = %Name(path.as_bytes()), "the file is opened"),
        false => tracing::debug!(%open, "the file is opened"),
    }
}

/// Tells the names in a request: for a log that is to have them.
pub(super) fn tell_names(message: &ClientMessage) {
    let ClientMessage::Control(message) = message else { return };
    let (export, path, other) = match message {
        ClientControl::Open(Open { export, path, .. }) => (export, path, None),
        ClientControl::Rename(Rename { export, from, to, .. })
        | ClientControl::HardLink(HardLink { export, from, to }) => (export, from, Some(to.as_bytes())),
        ClientControl::Symlink(Symlink { place: Place { export, path }, target }) => {
            (export, path, Some(target.as_bytes()))
        }
        ClientControl::Lookup(Lookup { place, .. })
        | ClientControl::List(List { place, .. })
        | ClientControl::ReadLink(ReadLink { place })
        | ClientControl::StatSpace(StatSpace { place })
        | ClientControl::MakeDirectory(MakeDirectory { place, .. })
        | ClientControl::Remove(Remove { place, .. })
        | ClientControl::Change(Change { target: Target::Name(place), .. })
        | ClientControl::XattrGet(XattrGet { target: Target::Name(place), .. })
        | ClientControl::XattrSet(XattrSet { target: Target::Name(place), .. })
        | ClientControl::XattrList(XattrList { target: Target::Name(place) })
        | ClientControl::XattrRemove(XattrRemove { target: Target::Name(place), .. }) => {
            (&place.export, &place.path, None)
        }
        _ => return,
    };
    let other = other.map(|other| tracing::field::display(Name(other)));
    tracing::debug!(%export, path = %Name(path.as_bytes()), to = other, "asked for by name");
}

/// What messages of this kind are called.
fn kind_name(kind: u8) -> &'static str {
    let mut kinds = ClientControl::KINDS.iter().chain(ClientData::KINDS);
    kinds.find(|(_, byte)| *byte == kind).map_or("unknown", |(name, _)| name)
}

/// A name that somebody else has chosen, fit for one line of a log: what is no printable text is written as escapes.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            write!(f, "{}", chunk.valid().escape_debug())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_in_one_printable_line() {
        for (name, told) in [
            (&b"dir/plain name.mov"[..], "dir/plain name.mov"),
            ("grün".as_bytes(), "grün"),
            (b"a\nb\x1b[2J\x7f", "a\\nb\\u{1b}[2J\\u{7f}"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{9b}\u{202e}\u{2028}".as_bytes(), "\\u{9b}\\u{202e}\\u{2028}"),
            (b"a\\n\"b", "a\\\\n\\\"b"),
        ] {
            assert_eq!(Name(name).to_string(), told);
        }
    }

    #[test]
    fn every_kind_of_request_has_a_name() {
        for (name, kind) in ClientControl::KINDS.iter().chain(ClientData::KINDS) {
            assert_eq!(kind_name(*kind), *name);
        }
        assert_eq!(kind_name(0xff), "unknown");
    }
}
