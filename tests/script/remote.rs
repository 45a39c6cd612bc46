//! Operations through bowline.

use std::collections::BTreeMap;
use std::io::{IoSlice, SeekFrom};

use bowline::client::{Error, Export, OpenOptions};
use bowline::model::{Attributes, ByteRange, FileKind, RenameHow, SetTime};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{Operation, time_that_was_set};

/// Does it through bowline.
#[expect(clippy::too_many_lines, reason = "one arm for each operation")]
pub(crate) async fn remotely(export: &Export, operation: &Operation) -> Result<String, Error> {
    let open = |path: String, options: OpenOptions| async move {
        export.open(&path, &options.with_key(false).resumable(false)).await
    };
    let done = String::new();
    Ok(match operation {
        Operation::Write { path, open: how, offset, bytes } => {
            let options = OpenOptions::new().write(true).create(how.create).create_new(how.create_new);
            let file = open(path.clone(), options.truncate(how.truncate).mode(0o666)).await?;
            file.write_at(*offset, bytes).await?;
            file.close().await?;
            done
        }
        Operation::Append { path, bytes } => {
            let file = open(path.clone(), OpenOptions::new().append(true)).await?;
            let offset = file.append(bytes).await?;
            file.close().await?;
            offset.to_string()
        }
        Operation::Read { path, offset, len } => {
            let file = open(path.clone(), OpenOptions::new().read(true)).await?;
            let mut into = vec![0; *len];
            let read = file.read_at(*offset, &mut into).await?;
            file.close().await?;
            format!("{:?}", &into[..read])
        }
        Operation::SetLen { path, len } => {
            let file = open(path.clone(), OpenOptions::new().write(true)).await?;
            file.set_len(*len).await?;
            file.close().await?;
            done
        }
        Operation::Punch { path, offset, len } => {
            let file = open(path.clone(), OpenOptions::new().write(true)).await?;
            file.punch_hole(ByteRange::between(*offset, *offset + *len).unwrap()).await?;
            file.close().await?;
            done
        }
        Operation::Allocate { path, offset, len, how } => {
            let file = open(path.clone(), OpenOptions::new().write(true)).await?;
            file.allocate(ByteRange::between(*offset, *offset + *len).unwrap(), *how).await?;
            file.close().await?;
            done
        }
        Operation::SeekHole { path, offset } => {
            let file = open(path.clone(), OpenOptions::new().read(true)).await?;
            let found = file.seek_hole(*offset).await?;
            file.close().await?;
            format!("{found:?}")
        }
        Operation::SeekData { path, offset } => {
            let file = open(path.clone(), OpenOptions::new().read(true)).await?;
            let found = file.seek_data(*offset).await?;
            file.close().await?;
            format!("{found:?}")
        }
        Operation::WriteVectored { path, offset, parts } => {
            let file = open(path.clone(), OpenOptions::new().write(true)).await?;
            let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            file.write_vectored_at(*offset, &parts).await?;
            file.close().await?;
            done
        }
        Operation::Stream { path, offset } => {
            let file = open(path.clone(), OpenOptions::new().read(true)).await?;
            let (mut stream, mut into) = (file.into_stream(), Vec::new());
            assert_eq!(stream.seek(SeekFrom::Start(*offset)).await.unwrap(), *offset);
            stream.read_to_end(&mut into).await.unwrap();
            stream.into_file().close().await?;
            format!("{into:?}")
        }
        Operation::MakeDirectory { path } => export.create_dir(path, 0o777).await.map(|()| done)?,
        Operation::RemoveFile { path } => export.remove_file(path).await.map(|()| done)?,
        Operation::RemoveDirectory { path } => export.remove_dir(path).await.map(|()| done)?,
        Operation::Rename { from, to, how } => match how {
            RenameHow::Replace => export.rename(from, to).await.map(|()| done)?,
            RenameHow::NoReplace => export.rename_no_replace(from, to).await.map(|()| done)?,
            RenameHow::Exchange => export.exchange(from, to).await.map(|()| done)?,
        },
        Operation::Symlink { target, path } => export.symlink(target, path).await.map(|()| done)?,
        Operation::HardLink { from, to } => export.hard_link(from, to).await.map(|()| done)?,
        Operation::ReadLink { path } => format!("{:?}", export.read_link(path).await?.as_bytes()),
        Operation::Stat { path, follow: true } => shown(&export.metadata(path).await?),
        Operation::Stat { path, follow: false } => shown(&export.symlink_metadata(path).await?),
        Operation::List { path } => {
            let mut entries = BTreeMap::new();
            let mut listing = export.read_dir(path).await?;
            while let Some(entry) = listing.next_entry().await? {
                assert!(
                    entries.insert(entry.name().as_bytes().to_vec(), entry.kind()).is_none(),
                    "listed twice"
                );
            }
            format!("{entries:?}")
        }
        Operation::Permissions { path, bits } => export.set_permissions(path, *bits).await.map(|_| done)?,
        Operation::Times { path, modified_s } => {
            let at = SetTime::At(modified_s * 1_000_000_000);
            time_that_was_set(export.set_times(path, Some(at), Some(at)).await?.modified_ns)
        }
        Operation::XattrSet { path, name, value, how } => {
            export.set_xattr(path, name, value, *how).await.map(|()| done)?
        }
        Operation::XattrGet { path, name } => format!("{:?}", export.xattr(path, name).await?.to_vec()),
        Operation::XattrList { path } => {
            let mut names: Vec<Vec<u8>> =
                export.xattr_names(path).await?.iter().map(|name| name.as_bytes().to_vec()).collect();
            names.sort();
            format!("{names:?}")
        }
        Operation::XattrRemove { path, name } => export.remove_xattr(path, name).await.map(|()| done)?,
    })
}

/// What can be compared of attributes: the lengths of directories and times that nobody has set are the file system's affair.
fn shown(attributes: &Attributes) -> String {
    let len = if attributes.kind == FileKind::Directory { 0 } else { attributes.len };
    let kind = attributes.kind;
    let modified = time_that_was_set(attributes.modified_ns);
    format!("{kind:?} {len} {:o} {} {modified}", attributes.permissions, attributes.links)
}
