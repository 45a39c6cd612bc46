//! What a client is told of the time in which no channel reached it: until when it was heard of, and how the file looked
//! when nothing of it was executing any more. The rules stand in `opens/changes.rs`.

use super::ServerCore;
use super::output::{Completion, Effect, ServerOutput};
use crate::model::{Limits, OpenId, SessionId, Time};

impl<P: Clone> ServerCore<P> {
    /// Until when the client was heard of that comes back with a key of the session `came_from`; `None` if it was there
    /// all the time, or if it comes with a grant's own key.
    pub(super) fn heard_before(&self, asking: SessionId, came_from: Option<SessionId>) -> Option<Time> {
        let former = self.sessions.get(&came_from?);
        match former {
            Some(session) if session.id == asking => session.heard_before_away,
            Some(session) => Some(session.heard),
            // From before the server started.
            None => Some(Time(0)),
        }
    }

    /// The file of an orphan is to be looked at. There may be thousands of them at once, whose turn comes; one that comes
    /// and goes in the meantime waits once.
    pub(super) fn look_at(&mut self, open: OpenId) {
        if self.looks.len() >= Limits::LOOKS_MAX {
            self.looks_waiting.insert(open);
            return;
        }
        let id = self.next_effect_id();
        self.looks.insert(id, open);
        self.outputs.push_back(ServerOutput::Effect { id, effect: Effect::Attributes { open } });
    }

    pub(super) fn on_looked(&mut self, open: OpenId, completion: Completion<P>) {
        if let Some(next) = self.looks_waiting.pop_first() {
            self.look_at(next);
        }
        // Without a look nobody can tell whether the file is as it was, and nobody says so.
        let Completion::Attributes(Ok(attributes)) = completion else { return };
        let heard = |session| self.sessions.get(&session).map_or(Time(0), |session| session.heard);
        let since = self.table.sessions_of(open).map(heard).min().unwrap_or_default();
        self.table.looked_at(open, since, &attributes);
    }
}
