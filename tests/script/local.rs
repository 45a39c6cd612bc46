//! Operations on a local directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use bowline::model::{Allocation, FileKind, RenameHow, XattrHow};
use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, Timespec, Timestamps, XattrFlags};

use super::{Operation, time_that_was_set};

/// Does it on a local directory.
#[expect(clippy::too_many_lines, reason = "one arm for each operation")]
pub(crate) fn locally(root: &Path, operation: &Operation) -> std::io::Result<String> {
    let at = |path: &String| root.join(path);
    let done = String::new();
    Ok(match operation {
        Operation::Write { path, open, offset, bytes } => {
            // bowline makes no file where a link leads nowhere.
            let is_dangling = at(path).is_symlink() && !at(path).exists();
            if is_dangling && !open.create_new {
                fs::metadata(at(path))?;
            }
            let mut options = fs::OpenOptions::new();
            options.write(true).create(open.create).create_new(open.create_new).truncate(open.truncate);
            options.mode(0o666).open(at(path))?.write_all_at(bytes, *offset).map(|()| done)?
        }
        Operation::Append { path, bytes } => {
            let mut file = fs::OpenOptions::new().append(true).open(at(path))?;
            let offset = file.metadata()?.len();
            file.write_all(bytes)?;
            offset.to_string()
        }
        Operation::Read { path, offset, len } => {
            let mut file = file_at(&at(path))?;
            let mut into = Vec::new();
            file.seek(SeekFrom::Start(*offset))?;
            file.take((*len).try_into().unwrap()).read_to_end(&mut into)?;
            format!("{into:?}")
        }
        Operation::SetLen { path, len } => {
            fs::OpenOptions::new().write(true).open(at(path))?.set_len(*len).map(|()| done)?
        }
        Operation::Punch { path, offset, len } => {
            let file = fs::OpenOptions::new().write(true).open(at(path))?;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, *offset, *len)?;
            done
        }
        Operation::Allocate { path, offset, len, how } => {
            let file = fs::OpenOptions::new().write(true).open(at(path))?;
            let flags = match how {
                Allocation::Reserve => FallocateFlags::empty(),
                Allocation::ReserveKeepLen => FallocateFlags::KEEP_SIZE,
                Allocation::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            };
            rustix::fs::fallocate(&file, flags, *offset, *len)?;
            done
        }
        Operation::SeekHole { path, offset } => sought(&at(path), rustix::fs::SeekFrom::Hole(*offset))?,
        Operation::SeekData { path, offset } => sought(&at(path), rustix::fs::SeekFrom::Data(*offset))?,
        Operation::WriteVectored { path, offset, parts } => {
            let file = fs::OpenOptions::new().write(true).open(at(path))?;
            file.write_all_at(&parts.concat(), *offset).map(|()| done)?
        }
        Operation::Stream { path, offset } => {
            let mut file = file_at(&at(path))?;
            let mut into = Vec::new();
            file.seek(SeekFrom::Start(*offset))?;
            file.read_to_end(&mut into)?;
            format!("{into:?}")
        }
        Operation::MakeDirectory { path } => {
            fs::DirBuilder::new().mode(0o777).create(at(path)).map(|()| done)?
        }
        Operation::RemoveFile { path } => fs::remove_file(at(path)).map(|()| done)?,
        Operation::RemoveDirectory { path } => fs::remove_dir(at(path)).map(|()| done)?,
        Operation::Rename { from, to, how } => {
            let flags = match how {
                RenameHow::Replace => RenameFlags::empty(),
                RenameHow::NoReplace => RenameFlags::NOREPLACE,
                RenameHow::Exchange => RenameFlags::EXCHANGE,
            };
            rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags).map(|()| done)?
        }
        Operation::Symlink { target, path } => std::os::unix::fs::symlink(target, at(path)).map(|()| done)?,
        Operation::HardLink { from, to } => {
            let kind = fs::symlink_metadata(at(from))?.file_type();
            // bowline gives further names to files only, and says so before it looks at the new name.
            if kind.is_dir() {
                return Err(rustix::io::Errno::ISDIR.into());
            }
            if kind.is_symlink() {
                return Err(rustix::io::Errno::INVAL.into());
            }
            fs::hard_link(at(from), at(to)).map(|()| done)?
        }
        Operation::ReadLink { path } => format!("{:?}", fs::read_link(at(path))?.as_os_str().as_bytes()),
        Operation::Stat { path, follow } => {
            let path = at(path);
            shown_local(&if *follow { fs::metadata(path)? } else { fs::symlink_metadata(path)? })
        }
        Operation::List { path } => {
            let mut entries = BTreeMap::new();
            for entry in fs::read_dir(at(path))? {
                let entry = entry?;
                entries.insert(entry.file_name().as_bytes().to_vec(), kind_of(entry.file_type()?));
            }
            format!("{entries:?}")
        }
        Operation::Permissions { path, bits } => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(*bits)).map(|()| done)?
        }
        Operation::Times { path, modified_s } => {
            let time = Timespec { tv_sec: *modified_s, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, at(path), &times, AtFlags::empty())?;
            let metadata = fs::metadata(at(path))?;
            time_that_was_set(metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec())
        }
        Operation::XattrSet { path, name, value, how } => {
            let flags = match how {
                XattrHow::Set => XattrFlags::empty(),
                XattrHow::Create => XattrFlags::CREATE,
                XattrHow::Replace => XattrFlags::REPLACE,
            };
            rustix::fs::setxattr(at(path), *name, value, flags).map(|()| done)?
        }
        Operation::XattrGet { path, name } => {
            let mut into = vec![0; 65_536];
            let len = rustix::fs::getxattr(at(path), *name, &mut into[..])?;
            format!("{:?}", &into[..len])
        }
        Operation::XattrList { path } => {
            let mut into = vec![0; 65_536];
            let len = rustix::fs::listxattr(at(path), &mut into[..])?;
            let names = into[..len].split(|&byte| byte == 0).filter(|name| name.starts_with(b"user."));
            let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
            names.sort();
            format!("{names:?}")
        }
        Operation::XattrRemove { path, name } => rustix::fs::removexattr(at(path), *name).map(|()| done)?,
    })
}

/// Whether an operation with two names fails because of either of them, so that it is a matter of order which one is
/// told of.
pub(crate) fn are_both_wrong(root: &Path, operation: &Operation) -> bool {
    let found = |path: &String| fs::symlink_metadata(root.join(path)).map(|metadata| metadata.file_type());
    let has_no_place = |path: &String| !root.join(path).parent().unwrap().is_dir();
    match operation {
        Operation::Rename { from, to, how: RenameHow::Exchange } => {
            found(from).is_err() && found(to).is_err()
        }
        Operation::Rename { from, to, .. } => found(from).is_err() && has_no_place(to),
        Operation::HardLink { from, to } => {
            !found(from).is_ok_and(|kind| kind.is_file()) && (has_no_place(to) || found(to).is_ok())
        }
        _ => false,
    }
}

/// Opens a file to be read; a directory is none.
fn file_at(path: &Path) -> std::io::Result<fs::File> {
    let file = fs::File::open(path)?;
    if file.metadata()?.is_dir() { Err(rustix::io::Errno::ISDIR.into()) } else { Ok(file) }
}

fn sought(path: &Path, to: rustix::fs::SeekFrom) -> std::io::Result<String> {
    match rustix::fs::seek(file_at(path)?, to) {
        Ok(found) => Ok(format!("{:?}", Some(found))),
        Err(rustix::io::Errno::NXIO) => Ok("None".to_owned()),
        Err(errno) => Err(errno.into()),
    }
}

/// What can be compared of attributes.
pub(crate) fn shown_local(metadata: &fs::Metadata) -> String {
    let len = if metadata.is_dir() { 0 } else { metadata.len() };
    let (kind, permissions, links) =
        (kind_of(metadata.file_type()), metadata.mode() & 0o7777, metadata.nlink());
    let modified = time_that_was_set(metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec());
    format!("{kind:?} {len} {permissions:o} {links} {modified}")
}

fn kind_of(kind: fs::FileType) -> FileKind {
    match kind {
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Symlink,
        kind if kind.is_file() => FileKind::File,
        _ => FileKind::Other,
    }
}
