//! What the kernel tells of a file (`statx`): which file it is, and its attributes. The one place that asks, so that
//! two answers about one file are always filled in the same way.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, makedev};
use rustix::io::Errno;

use crate::model::{Attributes, FileIdentity, FileKind};

/// The unit of `stx_blocks`, in bytes, on every file system.
const STAT_BLOCK: u64 = 512;

/// The file systems that give a file its time of birth once, and let nobody set it: ext4, XFS, Btrfs, F2FS, bcachefs,
/// ZFS and tmpfs.
const BIRTH_KEEPERS: [u64; 7] =
    [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xCA45_1A4E, 0x2FC1_2FC1, 0x0102_1994];

/// Whether a file system's times of birth tell its files apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Births {
    /// A file has one for its whole life.
    Kept,
    /// There are none, or a file's can change: an overlay gives a file another one with its first change, and on the
    /// file systems of other systems users can set it. One file would look like two, and its locks would hold for
    /// neither.
    Uncertain,
}

impl Births {
    /// How it is on the file system of a descriptor.
    pub(super) fn of(file: impl AsFd) -> Result<Self, Errno> {
        let kind = u64::try_from(rustix::fs::fstatfs(file)?.f_type).unwrap_or(0);
        Ok(if BIRTH_KEEPERS.contains(&kind) { Self::Kept } else { Self::Uncertain })
    }
}

/// What the kernel tells of what a descriptor leads to.
pub(super) fn stat_of(file: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Which file it is.
pub(super) fn identity_of(stat: &Statx, births: Births) -> FileIdentity {
    let is_told =
        births == Births::Kept && StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let born = &stat.stx_btime;
    FileIdentity {
        device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        born_ns: if is_told { nanoseconds(born.tv_sec, born.tv_nsec) } else { 0 },
    }
}

/// Its size and times.
pub(super) fn attributes_of(stat: &Statx) -> Attributes {
    Attributes {
        kind: kind_of(file_type(stat)),
        len: stat.stx_size,
        allocated: stat.stx_blocks.saturating_mul(STAT_BLOCK),
        permissions: u32::from(stat.stx_mode) & 0o7777,
        links: u64::from(stat.stx_nlink),
        accessed_ns: nanoseconds(stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
        modified_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        changed_ns: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    }
}

/// What kind of file it is, in the kernel's words.
pub(super) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// What clients call a kind of file.
pub(super) fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn nanoseconds(seconds: i64, rest: u32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest.into())
}

#[cfg(test)]
mod tests {
    use std::os::linux::fs::MetadataExt as _;
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let make = || {
            let at = folder.path().join("file");
            let file = std::fs::File::create(&at).unwrap();
            std::fs::remove_file(at).unwrap();
            let births = Births::of(&file).unwrap();
            (identity_of(&stat_of(&file).unwrap(), births), births)
        };
        let clock = tempfile::NamedTempFile::new_in(&folder).unwrap();
        let a_tick_later = |than: FileIdentity| loop {
            clock.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            if attributes_of(&stat_of(clock.as_file()).unwrap()).changed_ns > than.born_ns {
                return make();
            }
        };
        // The file system may take another inode than the one that has just become free, or keep no births.
        let pairs = std::iter::repeat_with(make).map(|(first, _)| (first, a_tick_later(first)));
        let pair = pairs.take(100).find(|(first, (second, _))| first.inode == second.inode);
        let Some((first, (second, births))) = pair else { return };
        assert_eq!(first.device, second.device);
        assert_eq!(first != second, births == Births::Kept);
    }

    #[test]
    fn it_is_what_everybody_else_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let stat = stat_of(file.as_file()).unwrap();
        let identity = identity_of(&stat, Births::Kept);
        assert_eq!((identity.device, identity.inode), (metadata.st_dev(), metadata.st_ino()));
        let born = metadata.created().map_or(0, |at| at.duration_since(UNIX_EPOCH).unwrap().as_nanos());
        assert_eq!(i128::from(identity.born_ns), i128::try_from(born).unwrap());
        assert_eq!(identity_of(&stat, Births::Uncertain), FileIdentity { born_ns: 0, ..identity });
        let attributes = attributes_of(&stat);
        assert_eq!(attributes.changed_ns, metadata.st_ctime() * 1_000_000_000 + metadata.st_ctime_nsec());
        assert_eq!((attributes.links, attributes.kind), (1, FileKind::File));
        assert_eq!((nanoseconds(i64::MAX, 1), nanoseconds(-1, 5)), (i64::MAX, -999_999_995));
    }

    /// Its births are those of layers.
    #[test]
    fn a_file_system_without_births_tells_none() {
        let proc = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(Births::of(&proc), Ok(Births::Uncertain));
        assert_eq!(identity_of(&stat_of(&proc).unwrap(), Births::Kept).born_ns, 0);
    }
}
