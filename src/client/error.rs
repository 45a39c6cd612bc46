//! What can go wrong for somebody who uses the client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::model::{EntropyError, PublicKey, Reason, Refusal};
use crate::session::client::{RequestError, SessionLoss};

/// Anything that can go wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No line that may carry control channels reaches the server.
    #[error("cannot reach server \"{peer}\" on any of its lines; the last one, {address}, failed")]
    Unreachable {
        /// The peer's name.
        peer: String,
        /// The address that was tried last.
        address: SocketAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The server was reached and closed the connection during the handshake, as it does for every cause.
    #[error(
        "the server at {address} ended the handshake: its key has changed and is not {pinned} any more, or it does not allow this client's key {own}"
    )]
    HandshakeRefused {
        /// The address.
        address: SocketAddr,
        /// The key that is pinned for it.
        pinned: PublicKey,
        /// This client's key.
        own: PublicKey,
    },
    /// The server answered the handshake with something that its pinned key did not make.
    #[error("the server at {address} could not prove that it has the key {pinned}")]
    ServerKeyChanged {
        /// The address.
        address: SocketAddr,
        /// The key that is pinned for it.
        pinned: PublicKey,
    },
    /// The handshake took too long.
    #[error("the server at {address} did not answer the handshake within {limit:?}")]
    HandshakeTimedOut {
        /// The address.
        address: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// The peer's lines allow no session.
    #[error(
        "peer \"{0}\" has no line that may carry control channels: give one the role \"both\" or \"keys\""
    )]
    NoControlLine(String),
    /// The server refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The session is over.
    #[error("the session is over: {0}")]
    SessionEnded(SessionLoss),
    /// No answer came in time; the request may still be executed.
    #[error("no answer within {0:?}; the request may still be executed")]
    TimedOut(Duration),
    /// The handle was closed.
    #[error("the file is closed")]
    FileClosed,
    /// The server answered with something that fits no request of this version.
    #[error("the server broke the protocol")]
    Protocol,
    /// There are no random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl Error {
    /// The reason of a refusal, if it was one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    /// Whether the same call can succeed later without anything else being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut(_)
                | Self::HandshakeTimedOut { .. }
                | Self::Refused(Refusal { reason: Reason::Busy | Reason::Exhausted, .. })
        )
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(refusal) => Self::Refused(refusal),
            RequestError::Ended(loss) => Self::SessionEnded(loss),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Unreachable { source, .. } => source.kind(),
            Error::HandshakeRefused { .. } | Error::ServerKeyChanged { .. } => {
                io::ErrorKind::PermissionDenied
            }
            Error::HandshakeTimedOut { .. } | Error::TimedOut(_) => io::ErrorKind::TimedOut,
            Error::SessionEnded(_) => io::ErrorKind::NotConnected,
            Error::Refused(refusal) => kind_of(refusal.reason),
            Error::NoControlLine(_) | Error::FileClosed => io::ErrorKind::InvalidInput,
            Error::Protocol => io::ErrorKind::InvalidData,
            Error::Entropy(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn kind_of(reason: Reason) -> io::ErrorKind {
    match reason {
        Reason::NotFound => io::ErrorKind::NotFound,
        Reason::PermissionDenied | Reason::ResumeRefused | Reason::Outside => io::ErrorKind::PermissionDenied,
        Reason::Busy => io::ErrorKind::ResourceBusy,
        Reason::BadHandle | Reason::Invalid | Reason::NotRegular => io::ErrorKind::InvalidInput,
        Reason::IsDirectory => io::ErrorKind::IsADirectory,
        Reason::NoSpace => io::ErrorKind::StorageFull,
        Reason::Quota => io::ErrorKind::QuotaExceeded,
        Reason::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
        Reason::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    }
}
