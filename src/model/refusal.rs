//! Why a server refuses a request, as far as the other side may know.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The reason of a refusal. One answer per reason, whatever lies behind it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum Reason {
    /// No such file, or no such export for this client.
    #[error("no such file or export")]
    NotFound,
    /// The client's rights, or the file's, do not allow it.
    #[error("permission denied")]
    PermissionDenied,
    /// Another open keeps this one out; see [`Refusal::retry_after`].
    #[error("the file is in use by another client")]
    Busy,
    /// The handle names nothing in this session.
    #[error("the handle is not open")]
    BadHandle,
    /// The request contradicts itself or a limit.
    #[error("the request is not valid")]
    Invalid,
    /// The path names a directory.
    #[error("it is a directory")]
    IsDirectory,
    /// The path names something that is neither a file nor a directory.
    #[error("it is not a regular file")]
    NotRegular,
    /// The path leads out of the export, or through too many links.
    #[error("the path leads outside the export")]
    Outside,
    /// The file system is full.
    #[error("no space is left on the server's file system")]
    NoSpace,
    /// A quota of the file system or of the server is used up.
    #[error("a quota is used up")]
    Quota,
    /// The file system is read-only.
    #[error("the file system is read-only")]
    ReadOnly,
    /// The resume key opens nothing: one answer for every cause.
    #[error("the resume key was refused")]
    ResumeRefused,
    /// The server does not know this kind of request.
    #[error("the server does not support this request")]
    Unsupported,
    /// The file system reported an error.
    #[error("input/output error on the server")]
    Io,
    /// The server is out of something it needs (descriptors, memory, random bytes).
    #[error("the server is out of resources")]
    Exhausted,
    /// The request ran before and its answer is no longer kept, so it is not known here what it said.
    #[error("the outcome is not known any more")]
    Unknown,
    /// The name is taken already.
    #[error("the name exists already")]
    Exists,
    /// A component of the path, or what it names, is no directory.
    #[error("it is not a directory")]
    NotDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Another open has locked bytes of the range; see [`Refusal::retry_after`].
    #[error("another client has locked the range")]
    Locked,
    /// What the request goes on from is not there any more: a program on the server has replaced or removed the file of
    /// an open, a directory changed its place, or a cookie is not one of this server.
    #[error("the file, the directory or the cookie is not there any more: begin again")]
    Stale,
    /// The file has as many names as the file system allows.
    #[error("the file has too many links")]
    TooManyLinks,
    /// Longer than the file system allows.
    #[error("the name is too long for the file system")]
    NameTooLong,
    /// The file has no extended attribute of this name.
    #[error("the file has no such extended attribute")]
    NoAttribute,
    /// More than the file system takes in one piece.
    #[error("too large for the file system")]
    TooBig,
    /// A waiting lock was given up: the session had no channel left, or the handle was closed.
    #[error("the lock was not waited for any longer")]
    Interrupted,
    /// The value of an extended attribute is longer than the system allows.
    #[error("the attribute's value is too long")]
    AttributeTooBig,
    /// The name of an extended attribute is longer than the system allows.
    #[error("the attribute's name is too long")]
    AttributeNameTooLong,
    /// Told to the rightful owner of a resume key only: while nobody held the open, another client took the file.
    #[error("the open was closed because another client took the file")]
    TakenOver,
    /// Told to the rightful owner of a resume key only: the open waited as long as the server keeps one.
    #[error("the open was closed: nobody came back for too long")]
    Expired,
    /// Told to the rightful owner of a resume key, or of a handle, only: the server's administrator ended the open.
    #[error("the open was ended by the server's administrator")]
    Released,
    /// Told to the rightful owner of a resume key, or of a handle, only: what it was granted is not granted any more.
    #[error("the grant was revoked or has ended")]
    Revoked,
}

/// A refused request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// For [`Reason::Busy`] and [`Reason::Locked`]: how long until a retry can succeed, in milliseconds; 0 where nobody can say.
    pub retry_after_ms: u64,
}

impl Refusal {
    /// Busy, with the time after which a retry can succeed.
    #[must_use]
    pub fn busy(retry_after: Duration) -> Self {
        // Rounded up: a client that waits exactly this long finds the grace over.
        let ms = retry_after.as_micros().div_ceil(1000);
        Self { reason: Reason::Busy, retry_after_ms: u64::try_from(ms).unwrap_or(u64::MAX) }
    }

    /// How long until a retry can succeed, where the server can say.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after_ms > 0).then(|| Duration::from_millis(self.retry_after_ms))
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after_ms: 0 }
    }
}
