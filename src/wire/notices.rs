//! What a server tells a session without being asked: numbered, and repeated on another channel until it was heard.
//! protocol.md: Notices.

use serde::{Deserialize, Serialize};

use super::ServerControl;
use super::control::Locked;
use crate::model::{ExportName, ExportPath, GrantId, HandleId, PublicKey, Refusal, RequestId, Rights};

/// A lock that waited waits no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockEnded {
    /// Its number among the notices of the session, from 1.
    pub notice: u64,
    /// The request that asked for it.
    pub lock: RequestId,
    /// The lock, as [`Locked`] tells it; or why there is none.
    pub outcome: Result<Locked, Refusal>,
}

/// Another client lets this one have a part in an open: [`TakeGrant`](super::grants::TakeGrant) gets the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantOffered {
    /// Its number among the notices of the session, from 1.
    pub notice: u64,
    /// The grant.
    pub grant: GrantId,
    /// Who grants.
    pub from: PublicKey,
    /// The export.
    pub export: ExportName,
    /// The file in it, as the open has it.
    pub path: ExportPath,
    /// What the handle will be good for.
    pub rights: Rights,
}

/// The server has ended a handle: its open was released, has expired or was taken over by another client, its part went to
/// a grantee, or its grant is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleEnded {
    /// Its number among the notices of the session, from 1.
    pub notice: u64,
    /// The handle.
    pub handle: HandleId,
    /// Why.
    pub refusal: Refusal,
}

/// Notices up to this one have arrived, and need not be repeated. Neither request nor answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The notice's number.
    pub notice: u64,
}

/// A notice of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// As named.
    LockEnded(LockEnded),
    /// As named.
    GrantOffered(GrantOffered),
    /// As named.
    HandleEnded(HandleEnded),
}

impl Notice {
    /// The notice that a message is, if it is one.
    #[must_use]
    pub fn of(message: ServerControl) -> Option<Self> {
        match message {
            ServerControl::LockEnded(ended) => Some(Self::LockEnded(ended)),
            ServerControl::GrantOffered(offered) => Some(Self::GrantOffered(offered)),
            ServerControl::HandleEnded(ended) => Some(Self::HandleEnded(ended)),
            _ => None,
        }
    }

    /// Its number among the notices of the session, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::LockEnded(ended) => ended.notice,
            Self::GrantOffered(offered) => offered.notice,
            Self::HandleEnded(ended) => ended.notice,
        }
    }
}

impl From<Notice> for ServerControl {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::LockEnded(ended) => ended.into(),
            Notice::GrantOffered(offered) => offered.into(),
            Notice::HandleEnded(ended) => ended.into(),
        }
    }
}
