//! How a client finds out what became of a request whose session is gone. protocol.md: What became of a request.

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, RequestId, SessionId};

/// Tell what became of a request of a session of this client that the server does not know any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquire {
    /// The session that it was sent in.
    pub session: SessionId,
    /// Its id there.
    pub request: RequestId,
    /// The life of the server in which that session was started.
    pub epoch: Epoch,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// It.
    pub became: Became,
}

/// What became of a request of a former session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Became {
    /// It was executed.
    Executed,
    /// Bytes were appended.
    Appended {
        /// Where they are, in bytes.
        offset: u64,
        /// How many they are.
        written: u32,
    },
    /// It was not executed, and will not be: it can be asked for again.
    NotExecuted,
    /// Nobody can tell.
    Unknown,
}
