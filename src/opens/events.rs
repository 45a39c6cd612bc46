//! What the table has to say: what is to be done, and what somebody is to be told.

use std::collections::VecDeque;

use super::keys::ResumeDenial;
use super::table::OpenTable;
use crate::model::{
    ByteRange, Ending, HandleId, LockMode, OpenId, PublicKey, Reason, Refusal, RequestId, SessionId,
};

/// Why an open ends without its client's doing: as [`Ending`], and apart what its owner need not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenEnd {
    /// Its grace was over, and another client wanted the file.
    TakenOver,
    /// Nobody came back to it for too long.
    Expired,
    /// Too many such opens were kept, or its owner needed its place.
    Evicted,
    /// The server's administrator ended it.
    Released,
}

impl OpenEnd {
    /// What its owner is told.
    #[must_use]
    pub fn ending(self) -> Ending {
        match self {
            Self::TakenOver => Ending::TakenOver,
            Self::Expired | Self::Evicted => Ending::Expired,
            Self::Released => Ending::Released,
        }
    }
}

/// What the table has to say after a call; see [`OpenTable::poll_event`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableEvent {
    /// An open has ended: its descriptor can go.
    CloseFile {
        /// The open that was.
        open: OpenId,
    },
    /// A holder is gone: it was closed, replaced or ended, or its open expired, and nothing of it is executing.
    Drained {
        /// The session that it belonged to.
        session: SessionId,
        /// Its handle.
        handle: HandleId,
    },
    /// An open has become an orphan of which nothing is executing: how its file looks now is to be told with
    /// [`OpenTable::looked_at`].
    LookAt {
        /// The open.
        open: OpenId,
    },
    /// A holder ends by somebody else's will: its grant is over ([`Reason::Revoked`]), or its part was given up to a
    /// grantee, who has taken it ([`Reason::TakenOver`]). [`TableEvent::Drained`] follows.
    HolderEnded {
        /// The session that it belongs to.
        session: SessionId,
        /// Its handle.
        handle: HandleId,
        /// Why.
        reason: Reason,
    },
    /// A holder ends with its open. Its session may live, and come back to it without a key. [`TableEvent::Drained`]
    /// follows.
    OpenEnded {
        /// The session that it belongs to.
        session: SessionId,
        /// Its handle.
        handle: HandleId,
        /// Why the open ends.
        ending: Ending,
    },
    /// An open begins to end without its client's doing, held or not. For the server's own log; who held it hears of it by
    /// [`TableEvent::OpenEnded`].
    Ended {
        /// The open.
        open: OpenId,
        /// Whose it is.
        owner: PublicKey,
        /// Why.
        why: OpenEnd,
    },
    /// A resume key was refused. For the server's own log: the client hears one answer for every cause.
    ResumeRefused {
        /// The session that presented the key.
        session: SessionId,
        /// The open that the key names; it need not exist.
        open: OpenId,
        /// The cause.
        why: ResumeDenial,
    },
    /// A lock that was [`Queued`](super::LockAnswer::Queued) waits no more.
    LockEnded {
        /// The session that asked for it.
        session: SessionId,
        /// The handle that it was to be taken with.
        handle: HandleId,
        /// The request.
        request: RequestId,
        /// Which bytes.
        range: ByteRange,
        /// How they were to be locked.
        mode: LockMode,
        /// `Ok`: the open has the lock. [`Reason::Locked`]: the wait is over. [`Reason::Interrupted`]: it was
        /// given up, its handle or its open ended, or its session went away. [`Reason::Quota`]: its turn came,
        /// and it would have been one range too many.
        outcome: Result<(), Refusal>,
    },
}

/// Events for which there is room all the time.
const EVENTS_KEPT: usize = 1024;

impl OpenTable {
    /// The next thing that the caller has to do or to know, in the order in which it came about.
    pub fn poll_event(&mut self) -> Option<TableEvent> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > EVENTS_KEPT {
            // A client with thousands of opens went away.
            self.events = VecDeque::new();
        }
        event
    }
}
