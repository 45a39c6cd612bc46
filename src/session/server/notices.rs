//! What a session is told without being asked. A notice is kept and repeated until the client has heard it, because it
//! answers no request that could be repeated. protocol.md: Notices.

use super::ServerCore;
use super::output::{ConnectionId, Offence};
use crate::model::{ChannelKind, HandleId, Reason, Refusal, RequestId, SessionId, Time};
use crate::wire::ServerControl;
use crate::wire::notices::Notice;

/// Notices that are on their way at once. A channel's writer takes far more records, and a client that hears none of
/// them is not sent more.
const NOTICES_AHEAD_MAX: u64 = 256;

impl<P: Clone> ServerCore<P> {
    /// Keeps a notice, which is made with its number, and sends it where a control channel is live.
    pub(super) fn notify(&mut self, id: SessionId, told: impl FnOnce(u64) -> Notice) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let notice = told(session.next_notice);
        session.next_notice = session.next_notice.saturating_add(1);
        session.notices.push_back(notice);
        self.send_notices(id);
    }

    /// What a request for a handle that has ended is told: why, as long as its client need not have heard of that.
    pub(super) fn untold(&self, id: SessionId, handle: Option<HandleId>, refusal: Refusal) -> Refusal {
        if refusal.reason != Reason::BadHandle {
            return refusal;
        }
        let mut notices = self.sessions.get(&id).into_iter().flat_map(|session| &session.notices);
        let why = notices.find_map(|notice| match notice {
            Notice::HandleEnded(ended) if Some(ended.handle) == handle => Some(ended.refusal),
            _ => None,
        });
        why.unwrap_or(refusal)
    }

    /// The client has heard the notices up to this one.
    pub(super) fn on_heard(&mut self, now: Time, connection: ConnectionId, id: SessionId, notice: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if notice >= session.next_notice {
            self.offend(now, connection, id, Offence::OutOfPlace);
            return;
        }
        while session.notices.front().is_some_and(|first| first.number() <= notice) {
            session.notices.pop_front();
        }
        self.send_notices(id);
    }

    /// Sends the notices that the client may be told now: a bounded number beyond what it has heard. If the channel that
    /// carried them is gone, another one begins again with the first that was not heard.
    pub(super) fn send_notices(&mut self, id: SessionId) {
        let Some(connection) = self.notice_channel(id) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(first) = session.notices.front().map(Notice::number) else { return };
        let end = first.saturating_add(NOTICES_AHEAD_MAX);
        let sent = session.notices_sent;
        let due: Vec<Notice> = (session.notices.iter())
            .skip(usize::try_from(sent.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX))
            .take_while(|notice| notice.number() < end)
            .cloned()
            .collect();
        session.notices_sent = due.last().map_or(sent, Notice::number);
        for notice in due {
            self.send(connection, RequestId::NONE, ServerControl::from(notice).into(), None);
        }
    }

    /// The channel that carries the notices of a session, chosen anew if it has none.
    fn notice_channel(&mut self, id: SessionId) -> Option<ConnectionId> {
        let session = self.sessions.get_mut(&id)?;
        let is_control = |connection: &ConnectionId| {
            self.channels.get(connection).is_some_and(|channel| channel.kind == ChannelKind::Control)
        };
        if session.notices_on.is_none_or(|connection| !is_control(&connection)) {
            session.notices_on = session.channels.values().copied().find(is_control);
            session.notices_sent = 0;
        }
        session.notices_on
    }
}
