//! What sessions and the time do to the table.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use super::table::OpenTable;
use crate::model::planted::{self, Bug};
use crate::model::{HandleId, PublicKey, SessionId, Time};

/// What the table knows of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SessionPart {
    /// Its holders, those that drain included.
    pub(super) handles: BTreeSet<HandleId>,
    /// Whether no channel reaches it.
    pub(super) is_away: bool,
    /// Whether it is of an earlier life of the server, and comes back no more.
    pub(super) is_over: bool,
    /// The first of the sessions of one client process that it goes on for: none if it is that.
    pub(super) first: Option<SessionId>,
}

impl OpenTable {
    /// No channel reaches the session any more. Each of its opens that nobody else holds is an orphan from now
    /// on, until its grace, counted from `now`, is over. A session that is away stays so: its deadlines do not
    /// move. Operations that were received before go on, and holders that are still admitted for it start away.
    /// Its waiting locks are given up, because nobody would hear of them; the locks that its opens have stay.
    pub fn session_away(&mut self, now: Time, session: SessionId) {
        self.end_overdue(now);
        self.by_session.entry(session).or_default().is_away = true;
        let handles = self.handles_of(session);
        if !planted::is(Bug::DeadWaiterServed) {
            self.interrupt_waits(&handles);
        }
        for handle in handles {
            let Some(holder) = self.holders.get_mut(&handle) else { continue };
            let id = holder.open;
            if let Some(open) = self.opens.get(&id) {
                holder.on_session_away(now.after(open.grace));
            }
            self.settle(id);
            self.touch_lazily(id);
            self.owe_look(id);
        }
        self.finish();
    }

    /// A channel reaches the session again: what is left of its holders is live. An orphan that nobody has
    /// closed yet is held again even if its deadline has passed, because nobody has taken anything from it.
    pub fn session_back(&mut self, session: SessionId) {
        if let Some(part) = self.by_session.get_mut(&session) {
            part.is_away = false;
        }
        for handle in self.handles_of(session) {
            let Some(holder) = self.holders.get_mut(&handle) else { continue };
            holder.on_session_back();
            let id = holder.open;
            self.settle(id);
            self.touch_lazily(id);
        }
        self.forget_session(session);
        self.check_in_debug();
    }

    /// A client process has begun a session in the place of another one. What it has of both is its own.
    pub fn session_follows(&mut self, session: SessionId, former: SessionId) {
        let first = self.first_session(former);
        self.by_session.entry(session).or_default().first = Some(first);
    }

    /// The same where the former session is of an earlier life of the server, which knows no more of it than whose it was:
    /// `client` is the identity that says so.
    pub fn session_follows_over(&mut self, session: SessionId, former: SessionId, client: &PublicKey) {
        let is_its =
            |handle: &HandleId| self.holders.get(handle).is_some_and(|holder| holder.identity == *client);
        let part = self.by_session.get(&former).filter(|part| part.is_over);
        if part.is_some_and(|part| part.handles.iter().all(is_its)) {
            self.session_follows(session, former);
        }
    }

    /// The first of the sessions that this one goes on for.
    pub(super) fn first_session(&self, session: SessionId) -> SessionId {
        self.by_session.get(&session).and_then(|part| part.first).unwrap_or(session)
    }

    /// The session is over for good: every holder of it stops at once and is dropped when nothing of it is
    /// executing, and their resume keys die. To be called for each session that ends, after which nothing is
    /// admitted or resumed for it.
    pub fn session_ended(&mut self, session: SessionId) {
        if let Some(part) = self.by_session.get_mut(&session) {
            (part.is_away, part.first) = (false, None);
        }
        self.handles_of(session).into_iter().for_each(|handle| self.stop_holder(handle));
        self.forget_session(session);
        self.finish();
    }

    /// The session was closed on purpose: its holders in opens that cannot be resumed stop at once, as with
    /// [`OpenTable::session_ended`]. The others stay, because a resume key may bring them back.
    pub fn session_closed(&mut self, session: SessionId) {
        let is_final = |handle: &HandleId| {
            let open = self.holders.get(handle).and_then(|holder| self.opens.get(&holder.open));
            open.is_some_and(|open| !open.resumable)
        };
        let handles: Vec<HandleId> = self.handles_of(session).into_iter().filter(is_final).collect();
        handles.into_iter().for_each(|handle| self.stop_holder(handle));
        self.finish();
    }

    /// Stops every holder of the identities that `is_meant` names, and ends what they have granted. What can be done in the time of a change of the list of
    /// clients: it looks at all holders.
    pub fn end_holders_of(&mut self, is_meant: impl Fn(&PublicKey) -> bool) {
        let meant = self.holders.iter().filter(|(_, holder)| is_meant(&holder.identity));
        let handles: Vec<HandleId> = meant.map(|(handle, _)| *handle).collect();
        handles.into_iter().for_each(|handle| self.stop_holder(handle));
        self.end_grants_from(is_meant);
        self.finish();
    }

    /// How many handles a session has.
    #[must_use]
    pub fn session_holders(&self, session: SessionId) -> usize {
        self.by_session.get(&session).map_or(0, |part| part.handles.len())
    }

    /// Takes a handle that is gone out of its session.
    pub(super) fn forget_handle(&mut self, session: SessionId, handle: HandleId) {
        if let Some(part) = self.by_session.get_mut(&session) {
            part.handles.remove(&handle);
        }
        self.forget_session(session);
    }

    /// Drops what is known of a session if that is nothing: no holder, and not away.
    fn forget_session(&mut self, session: SessionId) {
        if let Entry::Occupied(part) = self.by_session.entry(session)
            && part.get().handles.is_empty()
            && part.get().first.is_none()
            && (!part.get().is_away || part.get().is_over)
        {
            part.remove();
        }
    }

    fn handles_of(&self, session: SessionId) -> Vec<HandleId> {
        self.by_session.get(&session).map(|part| part.handles.iter().copied().collect()).unwrap_or_default()
    }
}
