//! What can go wrong for somebody who uses the client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use super::{KeyRingError, reasons};
use crate::model::{ByteRange, EntropyError, Epoch, NameError, PublicKey, Reason, Refusal};
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
        "the server at {address} ended the handshake: its key has changed and is not {pinned} any more, it does not allow this client's key {own}, or it has too many connections at the moment"
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
    /// The server proved its key, and speaks no version of the protocol that this client does. Nothing else was sent.
    #[error(
        "the server at {address} speaks version {theirs} of the protocol, and this client version {ours}"
    )]
    OtherVersion {
        /// The address.
        address: SocketAddr,
        /// What the server speaks, by its own word.
        theirs: u16,
        /// What this client speaks.
        ours: u16,
    },
    /// The server was reached and did not show its key.
    #[error(
        "the server at {address} does not show its key: enrolment is switched off there, it was asked too often just now, or it is none of this kind"
    )]
    KeyNotShown {
        /// The address.
        address: SocketAddr,
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
    /// The server that answers at this address has been replaced on its data store, and does not know it.
    #[error(
        "the server at {address} is out of date: its data store had epoch {seen} already, and this is epoch {epoch}"
    )]
    StaleServer {
        /// The address.
        address: SocketAddr,
        /// The epoch that it has.
        epoch: Epoch,
        /// The highest one that was seen.
        seen: Epoch,
    },
    /// The server has lost its state, and the open with it: it does not know the file to be open any more.
    #[error("the server has lost its state, and does not know that the file is open")]
    StateLost,
    /// The server does not know the session any more, and the file was open without a resume key
    /// ([`OpenOptions::resumable`](super::OpenOptions::resumable), [`OpenOptions::with_key`](super::OpenOptions::with_key)).
    #[error("the file was open without a resume key, and its session is gone")]
    NotResumable,
    /// Bytes that were written and not synced are lost: the server's machine, or its host, is another one than it was,
    /// and somebody else may have written there since. Told once, by the next sync or close; what is written later goes
    /// on as always.
    #[error("bytes that were written and not synced are lost with the server's memory: {}", shown(ranges))]
    LostWrites {
        /// Where they were.
        ranges: Vec<ByteRange>,
    },
    /// No answer came in time; the request may still be executed.
    #[error("no answer within {0:?}; the request may still be executed")]
    TimedOut(Duration),
    /// The handle was closed.
    #[error("the file is closed")]
    FileClosed,
    /// The options of an open contradict each other; nothing was sent.
    #[error("the file cannot be opened so: {0}")]
    Options(#[from] OptionsError),
    /// A write behind of a stream failed, and its error was told before: the stream writes no more. Or the stream was
    /// given up before the write was sent.
    #[error("an earlier write of a stream failed or was never sent")]
    EarlierWrite,
    /// A blocking call was made where it would block an async runtime.
    #[error("a blocking call was made inside an async runtime")]
    InsideRuntime,
    /// The thread of a blocking client cannot be started.
    #[error("cannot start the client's thread")]
    Thread(#[source] io::Error),
    /// The server answered with something that fits no request of this version.
    #[error("the server broke the protocol")]
    Protocol,
    /// The ring of resume keys could not be used. A file that was to be kept in it is not open.
    #[error("cannot keep or find resume keys")]
    KeyRing(#[source] KeyRingError),
    /// There are no random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Why options allow no open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Neither read, nor write, nor append.
    #[error("ask for read, write or append")]
    NoAccess,
    /// The file is to be truncated or made, and not to be written.
    #[error("truncate, create and create_new need write or append")]
    NotWriting,
    /// What is appended to is to be truncated.
    #[error("append keeps what truncate throws away")]
    AppendAndTruncate,
}

/// What kind of error it is, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The files are not so: nothing has the name, something has it already, it is of another kind.
    Files,
    /// Others are in the way: their opens or their locks. Later it may succeed.
    Conflict,
    /// The client, or the server, may not.
    Denied,
    /// A file system or a quota is full, or something is too large for it.
    Full,
    /// The caller asked for something that cannot be.
    Misuse,
    /// The server could not do its part.
    Server,
    /// The server cannot be reached.
    Unreachable,
    /// The server could not prove who it is, or does not take this client.
    Untrusted,
    /// No answer came in time.
    TimedOut,
    /// The session is over.
    SessionEnded,
    /// The server broke the protocol, or speaks another version of it.
    Protocol,
    /// This machine has not what is needed.
    System,
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

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refusal) => reasons::kind(refusal.reason),
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::HandshakeRefused { .. }
            | Self::ServerKeyChanged { .. }
            | Self::KeyNotShown { .. }
            | Self::StaleServer { .. } => ErrorKind::Untrusted,
            Self::HandshakeTimedOut { .. } | Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::SessionEnded(_) => ErrorKind::SessionEnded,
            Self::NoControlLine(_) | Self::FileClosed | Self::Options(_) | Self::InsideRuntime => {
                ErrorKind::Misuse
            }
            Self::EarlierWrite | Self::LostWrites { .. } => ErrorKind::Server,
            Self::StateLost | Self::NotResumable => ErrorKind::Files,
            Self::Protocol | Self::OtherVersion { .. } => ErrorKind::Protocol,
            Self::Entropy(_) | Self::Thread(_) | Self::KeyRing(_) => ErrorKind::System,
        }
    }

    /// Whether the same call can succeed later without anything else being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut(_) | Self::HandshakeTimedOut { .. } => true,
            Self::Refused(refusal) => {
                self.kind() == ErrorKind::Conflict || refusal.reason == Reason::Exhausted
            }
            _ => false,
        }
    }

    /// How long until a retry can succeed, where the server has said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after(),
            _ => None,
        }
    }

    /// The number by which the kernel would report this, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(reasons::errno(refusal.reason).raw_os_error()),
            Self::Unreachable { source, .. } | Self::Thread(source) => source.raw_os_error(),
            Self::HandshakeTimedOut { .. } | Self::TimedOut(_) => Some(Errno::TIMEDOUT.raw_os_error()),
            Self::SessionEnded(_) => Some(Errno::NOTCONN.raw_os_error()),
            Self::FileClosed => Some(Errno::BADF.raw_os_error()),
            Self::Options(_) => Some(Errno::INVAL.raw_os_error()),
            Self::EarlierWrite | Self::LostWrites { .. } => Some(Errno::IO.raw_os_error()),
            Self::StateLost | Self::NotResumable => Some(Errno::STALE.raw_os_error()),
            Self::HandshakeRefused { .. }
            | Self::ServerKeyChanged { .. }
            | Self::OtherVersion { .. }
            | Self::KeyNotShown { .. }
            | Self::StaleServer { .. }
            | Self::NoControlLine(_)
            | Self::InsideRuntime
            | Self::Protocol
            | Self::KeyRing(_)
            | Self::Entropy(_) => None,
        }
    }

    /// The same error once more, of one that says why no session can be had: it lasts until something is changed.
    pub(super) fn lasting(&self) -> Option<Self> {
        Some(match *self {
            Self::HandshakeRefused { address, pinned, own } => {
                Self::HandshakeRefused { address, pinned, own }
            }
            Self::ServerKeyChanged { address, pinned } => Self::ServerKeyChanged { address, pinned },
            Self::OtherVersion { address, theirs, ours } => Self::OtherVersion { address, theirs, ours },
            Self::StaleServer { address, epoch, seen } => Self::StaleServer { address, epoch, seen },
            _ => return None,
        })
    }

    /// This error as one of [`io`] that keeps all of it: its text is this one's, and
    /// `error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())` is this error itself. An [`io::Error`] has
    /// either a number or something inside: this one has no [`io::Error::raw_os_error`], and the `From` conversion
    /// makes one that has.
    #[must_use]
    pub fn into_detailed(self) -> io::Error {
        let kind = match self.errno() {
            Some(errno) => io::Error::from_raw_os_error(errno).kind(),
            None => match self.kind() {
                ErrorKind::Untrusted => io::ErrorKind::PermissionDenied,
                ErrorKind::Misuse => io::ErrorKind::InvalidInput,
                ErrorKind::Protocol => io::ErrorKind::InvalidData,
                _ => io::ErrorKind::Other,
            },
        };
        io::Error::new(kind, self)
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(refusal) => Self::Refused(refusal),
            RequestError::Ended(loss) => Self::SessionEnded(loss),
            RequestError::StateLost => Self::StateLost,
            RequestError::NotResumable => Self::NotResumable,
            RequestError::LostWrites(ranges) => Self::LostWrites { ranges },
        }
    }
}

/// A name that cannot exist is refused as the server would, without being asked.
impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        refused(match error {
            NameError::TooLong(_) => Reason::NameTooLong,
            _ => Reason::Invalid,
        })
    }
}

/// With the kernel's number where there is one ([`Error::errno`]), as code that was written for files expects it; the
/// text is then the kernel's for that number. [`Error::into_detailed`] keeps the text and has no number. Errors
/// without a number are kept whole in either way.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error.errno() {
            Some(errno) => Self::from_raw_os_error(errno),
            None => error.into_detailed(),
        }
    }
}

/// The first of some ranges, for people to read.
fn shown(ranges: &[ByteRange]) -> String {
    let mut text: Vec<String> = ranges.iter().take(RANGES_SHOWN).map(ByteRange::to_string).collect();
    if ranges.len() > RANGES_SHOWN {
        text.push(format!("and {} more", ranges.len().saturating_sub(RANGES_SHOWN)));
    }
    text.join(", ")
}

/// How many ranges the text of an error names.
const RANGES_SHOWN: usize = 4;

pub(super) fn refused(reason: Reason) -> Error {
    Error::Refused(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_the_whole_error() {
        let busy = || Error::Refused(Refusal::busy(Duration::from_secs(3)));
        let numbered = io::Error::from(busy());
        assert_eq!(numbered.raw_os_error(), Some(Errno::BUSY.raw_os_error()));
        assert_eq!(numbered.kind(), io::ErrorKind::ResourceBusy);
        let detailed = busy().into_detailed();
        assert_eq!(detailed.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(detailed.to_string(), busy().to_string());
        let inner = detailed.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).unwrap();
        assert_eq!(inner.retry_after(), Some(Duration::from_secs(3)));
        let whole = io::Error::from(Error::Protocol);
        assert_eq!(whole.kind(), io::ErrorKind::InvalidData);
        assert_eq!(whole.to_string(), Error::Protocol.to_string());
    }

    #[test]
    fn errors_without_a_refusal_have_their_numbers() {
        let second = Duration::from_secs(1);
        for (error, kind) in [
            (Error::TimedOut(second), io::ErrorKind::TimedOut),
            (Error::SessionEnded(SessionLoss::Closed), io::ErrorKind::NotConnected),
            (Error::StateLost, io::ErrorKind::StaleNetworkFileHandle),
            (Error::NotResumable, io::ErrorKind::StaleNetworkFileHandle),
            (Error::Options(OptionsError::NoAccess), io::ErrorKind::InvalidInput),
            (Error::InsideRuntime, io::ErrorKind::InvalidInput),
        ] {
            assert_eq!(io::Error::from(error).kind(), kind);
        }
        assert!(Error::TimedOut(second).is_retryable() && !Error::Protocol.is_retryable());
    }

    #[test]
    fn what_was_lost_is_named_and_the_text_stays_short() {
        let range = |at: u64| ByteRange::between(at * 10, at * 10 + 5).unwrap();
        let lost = |count| Error::from(RequestError::LostWrites((0..count).map(range).collect()));
        assert!(lost(2).to_string().ends_with(": 0..5, 10..15"), "{}", lost(2));
        assert!(lost(9).to_string().ends_with("30..35, and 5 more"), "{}", lost(9));
        let Error::LostWrites { ranges } = lost(9) else { panic!() };
        assert_eq!(ranges.len(), 9);
        assert_eq!(io::Error::from(lost(1)).raw_os_error(), Some(Errno::IO.raw_os_error()));
    }

    #[test]
    fn names_that_cannot_exist_are_refused_here() {
        let of = |path: Vec<u8>| Error::from(crate::model::ExportPath::new(path).unwrap_err()).reason();
        for hostile in [&b".."[..], b"a//b", b"/a", b"a\0b", b"."] {
            assert_eq!(of(hostile.to_vec()), Some(Reason::Invalid), "{hostile:?}");
        }
        assert_eq!(of(vec![b'a'; 256]), Some(Reason::NameTooLong));
        assert_eq!(of(b"a/".repeat(3000)), Some(Reason::NameTooLong));
    }
}
