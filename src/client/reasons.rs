//! What each reason of a refusal is in the words of others: the kernel's numbers, and kinds.

use rustix::io::Errno;

use super::error::ErrorKind;
use crate::model::Reason;

/// The kernel's number for a reason.
pub(super) fn errno(reason: Reason) -> Errno {
    row(reason).0
}

/// The kind of a reason.
pub(super) fn kind(reason: Reason) -> ErrorKind {
    row(reason).1
}

/// The table. Two reasons share a number where the kernel has one for both.
fn row(reason: Reason) -> (Errno, ErrorKind) {
    match reason {
        Reason::NotFound => (Errno::NOENT, ErrorKind::Files),
        Reason::PermissionDenied => (Errno::ACCESS, ErrorKind::Denied),
        Reason::Busy => (Errno::BUSY, ErrorKind::Conflict),
        Reason::BadHandle => (Errno::BADF, ErrorKind::Misuse),
        Reason::Invalid => (Errno::INVAL, ErrorKind::Misuse),
        Reason::IsDirectory => (Errno::ISDIR, ErrorKind::Files),
        Reason::NotRegular => (Errno::INVAL, ErrorKind::Files),
        Reason::Outside => (Errno::XDEV, ErrorKind::Denied),
        Reason::NoSpace => (Errno::NOSPC, ErrorKind::Full),
        Reason::Quota => (Errno::DQUOT, ErrorKind::Full),
        Reason::ReadOnly => (Errno::ROFS, ErrorKind::Denied),
        Reason::ResumeRefused => (Errno::ACCESS, ErrorKind::Denied),
        Reason::Unsupported => (Errno::OPNOTSUPP, ErrorKind::Server),
        Reason::Io => (Errno::IO, ErrorKind::Server),
        Reason::Exhausted => (Errno::NFILE, ErrorKind::Server),
        Reason::Unknown => (Errno::IO, ErrorKind::Server),
        Reason::Exists => (Errno::EXIST, ErrorKind::Files),
        Reason::NotDirectory => (Errno::NOTDIR, ErrorKind::Files),
        Reason::NotEmpty => (Errno::NOTEMPTY, ErrorKind::Files),
        Reason::Locked => (Errno::AGAIN, ErrorKind::Conflict),
        Reason::Stale => (Errno::STALE, ErrorKind::Files),
        Reason::TooManyLinks => (Errno::MLINK, ErrorKind::Full),
        Reason::NameTooLong => (Errno::NAMETOOLONG, ErrorKind::Misuse),
        Reason::NoAttribute => (Errno::NODATA, ErrorKind::Files),
        Reason::TooBig => (Errno::FBIG, ErrorKind::Full),
        Reason::Interrupted => (Errno::INTR, ErrorKind::Conflict),
        Reason::AttributeTooBig => (Errno::TOOBIG, ErrorKind::Full),
        Reason::AttributeNameTooLong => (Errno::RANGE, ErrorKind::Misuse),
        // What the key or the handle led to is not there any more.
        Reason::TakenOver | Reason::Expired | Reason::Released => (Errno::STALE, ErrorKind::Files),
        Reason::Revoked => (Errno::STALE, ErrorKind::Denied),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Error;
    use super::*;

    /// Every reason, with the kind that the standard library makes of its number where it has one.
    const KINDS: &[(Reason, Option<io::ErrorKind>)] = &[
        (Reason::NotFound, Some(io::ErrorKind::NotFound)),
        (Reason::PermissionDenied, Some(io::ErrorKind::PermissionDenied)),
        (Reason::Busy, Some(io::ErrorKind::ResourceBusy)),
        (Reason::BadHandle, None),
        (Reason::Invalid, Some(io::ErrorKind::InvalidInput)),
        (Reason::IsDirectory, Some(io::ErrorKind::IsADirectory)),
        (Reason::NotRegular, Some(io::ErrorKind::InvalidInput)),
        (Reason::Outside, Some(io::ErrorKind::CrossesDevices)),
        (Reason::NoSpace, Some(io::ErrorKind::StorageFull)),
        (Reason::Quota, Some(io::ErrorKind::QuotaExceeded)),
        (Reason::ReadOnly, Some(io::ErrorKind::ReadOnlyFilesystem)),
        (Reason::ResumeRefused, Some(io::ErrorKind::PermissionDenied)),
        (Reason::Unsupported, Some(io::ErrorKind::Unsupported)),
        (Reason::Io, None),
        (Reason::Exhausted, None),
        (Reason::Unknown, None),
        (Reason::Exists, Some(io::ErrorKind::AlreadyExists)),
        (Reason::NotDirectory, Some(io::ErrorKind::NotADirectory)),
        (Reason::NotEmpty, Some(io::ErrorKind::DirectoryNotEmpty)),
        (Reason::Locked, Some(io::ErrorKind::WouldBlock)),
        (Reason::Stale, Some(io::ErrorKind::StaleNetworkFileHandle)),
        (Reason::TooManyLinks, Some(io::ErrorKind::TooManyLinks)),
        (Reason::NameTooLong, Some(io::ErrorKind::InvalidFilename)),
        (Reason::NoAttribute, None),
        (Reason::TooBig, Some(io::ErrorKind::FileTooLarge)),
        (Reason::Interrupted, Some(io::ErrorKind::Interrupted)),
        (Reason::AttributeTooBig, Some(io::ErrorKind::ArgumentListTooLong)),
        (Reason::AttributeNameTooLong, None),
        (Reason::TakenOver, Some(io::ErrorKind::StaleNetworkFileHandle)),
        (Reason::Expired, Some(io::ErrorKind::StaleNetworkFileHandle)),
        (Reason::Released, Some(io::ErrorKind::StaleNetworkFileHandle)),
        (Reason::Revoked, Some(io::ErrorKind::StaleNetworkFileHandle)),
    ];

    #[test]
    fn every_reason_has_its_number_and_nothing_is_lost_on_the_way() {
        for &(reason, kind) in KINDS {
            let error = Error::Refused(reason.into());
            let (number, text) = (error.errno(), error.to_string());
            assert_eq!(number, Some(errno(reason).raw_os_error()), "{reason:?}");
            let detailed = Error::Refused(reason.into()).into_detailed();
            assert_eq!(detailed.to_string(), text, "{reason:?}");
            let plain = io::Error::from(error);
            assert_eq!(plain.raw_os_error(), number, "{reason:?}");
            assert_eq!(plain.kind(), detailed.kind(), "{reason:?}");
            if let Some(kind) = kind {
                assert_eq!(plain.kind(), kind, "{reason:?}");
            }
        }
    }

    /// The wire's numbers of reasons are without a gap: one that is missing above would decode here.
    #[test]
    fn the_table_has_every_reason() {
        for number in 0..64_u32 {
            let mut body = number.to_le_bytes().to_vec();
            body.extend_from_slice(&[0; 8]);
            let refused =
                crate::wire::ServerData::KINDS.iter().find(|(name, _)| *name == "Refused").unwrap().1;
            let decoded = <crate::wire::ServerData as crate::wire::Message>::decode_body(refused, &body);
            let reason = match decoded {
                Ok(crate::wire::ServerData::Refused(refused)) => Some(refused.refusal.reason),
                _ => None,
            };
            let known = KINDS.get(usize::try_from(number).unwrap()).map(|&(reason, _)| reason);
            assert_eq!(reason, known, "{number}");
        }
    }

    #[test]
    fn what_others_are_in_the_way_of_can_be_tried_again() {
        let retryable: Vec<Reason> = KINDS
            .iter()
            .map(|row| row.0)
            .filter(|&reason| Error::Refused(reason.into()).is_retryable())
            .collect();
        assert_eq!(retryable, [Reason::Busy, Reason::Exhausted, Reason::Locked, Reason::Interrupted]);
    }
}
