//! Changes of attributes, of an open file or of what a name stands for, and the mask that every mode from a client
//! goes through.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::path::DecInt;

use super::files::{Descriptor, refusal};
use super::stat::{attributes_of, file_type, stat_of};
use crate::model::{AttributeChange, Attributes, FileKind, Reason, Refusal, SetTime};

/// Set-user-id, set-group-id and sticky.
const SPECIAL_BITS: u32 = 0o7000;
/// What may be done with a file by its owner, its group and others.
const PERMISSION_BITS: u32 = 0o777;

/// Which permission bits clients can put on what they make and change. What is made goes through the process's umask
/// as well, as in every program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModePolicy {
    /// The permission bits that a file can get.
    pub file_mask: u32,
    /// The permission bits that a directory can get.
    pub directory_mask: u32,
    /// Whether clients can set the set-user-id, set-group-id and sticky bits. If not, they are dropped, also from a
    /// file whose permissions are changed.
    pub allow_special_bits: bool,
}

impl Default for ModePolicy {
    /// All permission bits, and none of the special ones: a file with a set-user-id bit would give the rights of the
    /// server's user to whoever runs it on the server.
    fn default() -> Self {
        Self { file_mask: PERMISSION_BITS, directory_mask: PERMISSION_BITS, allow_special_bits: false }
    }
}

impl ModePolicy {
    /// What becomes of the `permissions` of a file.
    pub(super) fn file(self, permissions: u32) -> Mode {
        self.masked(permissions, self.file_mask)
    }

    /// What becomes of the `permissions` of a directory.
    pub(super) fn directory(self, permissions: u32) -> Mode {
        self.masked(permissions, self.directory_mask)
    }

    fn masked(self, permissions: u32, mask: u32) -> Mode {
        let special = if self.allow_special_bits { SPECIAL_BITS } else { 0 };
        Mode::from_raw_mode(permissions & ((mask & PERMISSION_BITS) | special))
    }
}

/// Changes an open file: its length first, then its permissions, then its times. What was changed before something
/// fails stays changed.
pub(super) fn change_open(
    file: &Descriptor,
    change: &AttributeChange,
    modes: ModePolicy,
) -> Result<Attributes, Refusal> {
    if let Some(len) = change.len {
        file.set_len(len)?;
    }
    if let Some(permissions) = change.permissions {
        rustix::fs::fchmod(file, modes.file(permissions)).map_err(refusal)?;
    }
    if let Some(times) = times_of(change) {
        rustix::fs::futimens(file, &times).map_err(refusal)?;
    }
    file.attributes()
}

/// Changes a file or a directory that is held without rights, through the table of this process's descriptors: it is
/// the one that was found, whatever its name stands for by now.
pub(super) fn change_found(
    descriptors: &OwnedFd,
    found: &OwnedFd,
    change: &AttributeChange,
    modes: ModePolicy,
) -> Result<Attributes, Refusal> {
    if change.len.is_some() {
        return Err(Reason::Invalid.into());
    }
    if let Some(permissions) = change.permissions {
        let mode = match attributes_now(found)?.kind {
            FileKind::Directory => modes.directory(permissions),
            _ => modes.file(permissions),
        };
        rustix::fs::chmodat(descriptors, DecInt::from_fd(found), mode, AtFlags::empty()).map_err(refusal)?;
    }
    if let Some(times) = times_of(change) {
        rustix::fs::utimensat(descriptors, DecInt::from_fd(found), &times, AtFlags::empty())
            .map_err(refusal)?;
    }
    attributes_now(found)
}

/// Whether it is a file or a directory: nothing else has attributes that clients change.
pub(super) fn changeable(found: OwnedFd) -> Result<OwnedFd, Refusal> {
    match file_type(&stat_of(&found).map_err(refusal)?) {
        FileType::RegularFile | FileType::Directory => Ok(found),
        _ => Err(Reason::NotRegular.into()),
    }
}

/// The attributes of what is held.
pub(super) fn attributes_now(found: &OwnedFd) -> Result<Attributes, Refusal> {
    stat_of(found).map(|stat| attributes_of(&stat)).map_err(refusal)
}

fn times_of(change: &AttributeChange) -> Option<Timestamps> {
    if change.accessed.is_none() && change.modified.is_none() {
        return None;
    }
    let time = |wanted: Option<SetTime>| match wanted {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(SetTime::At(ns)) => {
            Timespec { tv_sec: ns.div_euclid(SECOND_NS), tv_nsec: ns.rem_euclid(SECOND_NS) }
        }
    };
    Some(Timestamps { last_access: time(change.accessed), last_modification: time(change.modified) })
}

/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;
