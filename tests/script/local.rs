//! Operations on a local directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use bowline::model::{FileKind, RenameHow, XattrHow};
use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, Timespec, Timestamps, XattrFlags};

use super::Operation;

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
            let mut file = fs::File::open(at(path))?;
            if file.metadata()?.is_dir() {
                return Err(rustix::io::Errno::ISDIR.into());
            }
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
        Operation::SeekHole { path, offset } => {
            let file = fs::File::open(at(path))?;
            if file.metadata()?.is_dir() {
                return Err(rustix::io::Errno::ISDIR.into());
            }
            match rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(*offset)) {
                Ok(found) => format!("{:?}", Some(found)),
                Err(rustix::io::Errno::NXIO) => "None".to_owned(),
                Err(errno) => return Err(errno.into()),
            }
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
            if kind.is_symlink() || kind.is_dir() {
                return Err(rustix::io::Errno::ISDIR.into());
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
            rustix::fs::utimensat(CWD, at(path), &times, AtFlags::empty()).map(|()| done)?
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

/// What can be compared of attributes.
pub(crate) fn shown_local(metadata: &fs::Metadata) -> String {
    let len = if metadata.is_dir() { 0 } else { metadata.len() };
    format!("{:?} {len} {:o} {}", kind_of(metadata.file_type()), metadata.mode() & 0o7777, metadata.nlink())
}

fn kind_of(kind: fs::FileType) -> FileKind {
    match kind {
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Symlink,
        kind if kind.is_file() => FileKind::File,
        _ => FileKind::Other,
    }
}
