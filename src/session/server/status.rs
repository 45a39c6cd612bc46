//! What the server tells its administrator: its sessions with their channels, its opens with their holders and locks.
//!
//! It is told in *pages*, sessions first, then opens, each in the order of their ids: a server with a hundred thousand
//! opens is not stopped until all of them are written down. A page is of one moment, and the next page of a later one:
//! nothing is told twice, and what is there all the time is told once. Paths are not told: names are their clients' own.

use core::time::Duration;

use super::record::Session;
use super::{ConnectionId, ServerCore};
use crate::model::{
    ByteRange, ChannelKind, ChannelNumber, ExportName, FileIdentity, HandleId, InstanceId, Limits, LockMode,
    OpenId, OpenMode, Protection, PublicKey, Rights, SessionId, Time,
};
use crate::opens::{HolderPhase, HolderView, OpenPhase, OpenView};

/// What to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusQuery {
    /// Where the page begins.
    pub from: StatusFrom,
    /// How many rows it may have: sessions, channels, opens, holders and locks. [`Limits::STATUS_ROWS_MAX`] at most. A
    /// page has one session or open at least, and none is cut, so that it can have a few more.
    pub rows: usize,
}

/// Where a page of a status begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusFrom {
    /// With the first session.
    Start,
    /// With the session after this one.
    Session(SessionId),
    /// With the first open.
    Opens,
    /// With the open after this one.
    Open(OpenId),
}

/// The first page, as long as it may be.
impl Default for StatusQuery {
    fn default() -> Self {
        Self { from: StatusFrom::Start, rows: Limits::STATUS_ROWS_MAX }
    }
}

/// A page of the server's state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerStatus {
    /// The server's own public key.
    pub key: PublicKey,
    /// How many there are of everything.
    pub counts: StatusCounts,
    /// Sessions, by their ids.
    pub sessions: Vec<SessionStatus>,
    /// Opens, by their ids.
    pub opens: Vec<OpenStatus>,
    /// What to ask for the next page with; `None`: this is the last one.
    pub next: Option<StatusQuery>,
}

/// How many there are of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StatusCounts {
    /// Sessions.
    pub sessions: usize,
    /// Channels of all sessions.
    pub channels: usize,
    /// Opens, orphans included.
    pub opens: usize,
    /// Opens that no channel reaches.
    pub orphans: usize,
    /// Holders of all opens.
    pub holders: usize,
    /// Ranges that all opens have locked.
    pub locks: usize,
    /// Locks that wait, of all opens.
    pub waits: usize,
}

/// How much a server has of everything, by the little that tells it apart.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerLoad {
    /// Sessions.
    pub sessions: usize,
    /// Channels of all sessions, by kind and protection; those of which there are none are left out.
    pub channels: Vec<(ChannelKind, Protection, usize)>,
    /// Opens that a channel reaches, or that are about to end.
    pub held: usize,
    /// Opens that no channel reaches, within their grace.
    pub orphaned: usize,
    /// Opens that no channel reaches, beyond their grace.
    pub lapsed: usize,
    /// Holders of all opens.
    pub holders: usize,
    /// Ranges that all opens have locked.
    pub locks: usize,
    /// Locks that wait, of all opens.
    pub waits: usize,
}

/// A client.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClientLabel {
    /// Its public key.
    pub key: PublicKey,
    /// What the list of clients calls it, if it is on it.
    pub name: Option<String>,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Its id.
    pub session: SessionId,
    /// Whose it is.
    pub client: ClientLabel,
    /// The client's process, by its random name.
    pub instance: InstanceId,
    /// The client's process, by the number that it states.
    pub process_id: u32,
    /// How long it is kept at least, if no channel reaches it; it is kept for longer while it has handles. `None`: a
    /// channel reaches it.
    pub away: Option<Duration>,
    /// Its channels, by their numbers.
    pub channels: Vec<ChannelStatus>,
    /// How many handles it has.
    pub handles: usize,
    /// Requests of it that are executing.
    pub requests: u32,
    /// Bytes that those hold.
    pub bytes: u64,
}

/// A channel of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ChannelStatus {
    /// Its number.
    pub number: ChannelNumber,
    /// What it carries.
    pub kind: ChannelKind,
    /// How it is protected.
    pub protection: Protection,
    /// Bytes of answers that its writer holds.
    pub unwritten: u64,
}

/// An open.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OpenStatus {
    /// Its id.
    pub open: OpenId,
    /// Whose it is.
    pub owner: ClientLabel,
    /// The export through which the file was opened.
    pub export: ExportName,
    /// Which file it is.
    pub file: FileIdentity,
    /// The mode in which it is open.
    pub mode: OpenMode,
    /// How it stands.
    pub phase: OpenPhase,
    /// How much of its grace is left, if it is orphaned; zero when the grace is over.
    pub grace_left: Option<Duration>,
    /// How many resume keys of it are valid.
    pub keys: usize,
    /// Its holders, in the order in which they came.
    pub holders: Vec<HolderStatus>,
    /// What it has locked, in the order of the file.
    pub locks: Vec<(ByteRange, LockMode)>,
    /// How many locks of it wait.
    pub waits: usize,
}

/// A holder of an open.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HolderStatus {
    /// Tells it from the other holders of its open: the upper half of its handle, which is no use to anybody.
    pub handle: u32,
    /// The session that it belongs to.
    pub session: SessionId,
    /// Whose session that is; `None` if it is over and the holder only finishes.
    pub client: Option<ClientLabel>,
    /// What it may be used for.
    pub rights: Rights,
    /// How it stands.
    pub phase: HolderPhase,
    /// Operations of it that are executing.
    pub executing: u32,
}

impl<P: Clone> ServerCore<P> {
    /// A page of the server's state. It changes nothing, and takes time for the rows of the page alone.
    #[must_use]
    pub fn status(&self, now: Time, query: StatusQuery) -> ServerStatus {
        let rows = query.rows.clamp(1, Limits::STATUS_ROWS_MAX);
        let mut page = Page { left: rows, is_empty: true, last: query.from };
        let mut status = ServerStatus {
            key: self.server_keys.current,
            counts: self.counts(),
            sessions: Vec::new(),
            opens: Vec::new(),
            next: None,
        };
        let is_whole =
            self.tell_sessions(now, &mut page, &mut status) && self.tell_opens(now, &mut page, &mut status);
        status.next = (!is_whole).then_some(StatusQuery { from: page.last, rows });
        status
    }

    /// Sessions that the page has room for; whether that is the last of them.
    fn tell_sessions(&self, now: Time, page: &mut Page, status: &mut ServerStatus) -> bool {
        let after = match page.last {
            StatusFrom::Start => None,
            StatusFrom::Session(after) => Some(after),
            StatusFrom::Opens | StatusFrom::Open(_) => return true,
        };
        let first = after.map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
        for (id, session) in self.sessions.range((first, core::ops::Bound::Unbounded)) {
            if !page.take(1 + session.channels.len()) {
                return false;
            }
            status.sessions.push(self.session_status(now, session));
            page.last = StatusFrom::Session(*id);
        }
        page.last = StatusFrom::Opens;
        true
    }

    /// Opens that the page has room for; whether that is the last of them.
    fn tell_opens(&self, now: Time, page: &mut Page, status: &mut ServerStatus) -> bool {
        let after = match page.last {
            StatusFrom::Open(after) => Some(after),
            StatusFrom::Start | StatusFrom::Session(_) | StatusFrom::Opens => None,
        };
        for open in self.table.opens_after(after) {
            let locks = self.table.locks(open.open);
            if !page.take(1 + open.holders.len() + locks.len()) {
                return false;
            }
            status.opens.push(self.open_status(now, &open, locks));
            page.last = StatusFrom::Open(open.open);
        }
        true
    }

    /// How much there is of everything.
    #[must_use]
    pub fn load(&self) -> ServerLoad {
        let mut channels: Vec<(ChannelKind, Protection, usize)> = Vec::new();
        for channel in self.channels.values() {
            let same = |counted: &&mut (ChannelKind, Protection, usize)| {
                (counted.0, counted.1) == (channel.kind, channel.protection)
            };
            match channels.iter_mut().find(same) {
                Some((_, _, count)) => *count = count.saturating_add(1),
                None => channels.push((channel.kind, channel.protection, 1)),
            }
        }
        let (orphaned, lapsed) = (self.table.orphans_len(), self.table.lapsed_len());
        ServerLoad {
            sessions: self.sessions.len(),
            channels,
            held: self.table.opens_len().saturating_sub(orphaned).saturating_sub(lapsed),
            orphaned,
            lapsed,
            holders: self.table.holders_len(),
            locks: self.table.locks_len(),
            waits: self.table.waits_len(),
        }
    }

    fn counts(&self) -> StatusCounts {
        StatusCounts {
            sessions: self.sessions.len(),
            channels: self.channels.len(),
            opens: self.table.opens_len(),
            orphans: self.table.orphans_len(),
            holders: self.table.holders_len(),
            locks: self.table.locks_len(),
            waits: self.table.waits_len(),
        }
    }

    fn label(&self, key: &PublicKey) -> ClientLabel {
        let name = self.policy.clients.get(key).map(|access| access.name.clone());
        ClientLabel { key: *key, name }
    }

    fn session_status(&self, now: Time, session: &Session) -> SessionStatus {
        let kept = || session.away_until.map_or(Duration::ZERO, |end| end.since(now));
        let channel = |connection: &ConnectionId| {
            self.channels.get(connection).map(|channel| ChannelStatus {
                number: channel.number,
                kind: channel.kind,
                protection: channel.protection,
                unwritten: channel.unwritten,
            })
        };
        SessionStatus {
            session: session.id,
            client: self.label(&session.client),
            instance: session.instance,
            process_id: session.process_id,
            away: session.channels.is_empty().then(kept),
            channels: session.channels.values().filter_map(channel).collect(),
            handles: self.table.session_holders(session.id),
            requests: session.window.executing(),
            bytes: session.window.bytes(),
        }
    }

    fn open_status(&self, now: Time, open: &OpenView<'_>, locks: Vec<(ByteRange, LockMode)>) -> OpenStatus {
        OpenStatus {
            open: open.open,
            owner: self.label(open.owner),
            export: open.export.clone(),
            file: open.file,
            mode: open.mode,
            phase: open.phase,
            grace_left: open.deadline.map(|deadline| deadline.since(now)),
            keys: open.keys,
            holders: self.table.holders_of(open.open).map(|holder| self.holder_status(&holder)).collect(),
            locks,
            waits: self.table.waits_of(open.open),
        }
    }

    fn holder_status(&self, holder: &HolderView<'_>) -> HolderStatus {
        HolderStatus {
            handle: shown(holder.handle),
            session: holder.session,
            client: self.sessions.get(&holder.session).map(|session| self.label(&session.client)),
            rights: holder.rights,
            phase: holder.phase,
            executing: holder.executing,
        }
    }
}

/// How much more a page may have, and where it has come to.
struct Page {
    left: usize,
    is_empty: bool,
    last: StatusFrom,
}

impl Page {
    /// Takes these rows if they fit, or if they are the first of the page; else it has come to its end.
    fn take(&mut self, rows: usize) -> bool {
        let fits = self.is_empty || rows <= self.left;
        if fits {
            self.is_empty = false;
            self.left = self.left.saturating_sub(rows);
        }
        fits
    }
}

/// The half of a handle that is told.
fn shown(handle: HandleId) -> u32 {
    u32::try_from(handle.0 >> u32::BITS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
