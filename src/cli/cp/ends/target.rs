//! Where a file is copied to: a temporary file beside it, until that is complete.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blake2::{Blake2s256, Digest as _};
use bowline::client::{Error, Export, File, OpenOptions};
use bowline::model::{ExportPath, FileName, Reason, SetTime, SyncScope, len_u64};
use bowline::net::Clock;
use bytes::Bytes;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::source::{State, read_local, read_remote};
use super::{Trouble, Turns, blocking};
use crate::cli::cp::How;
use crate::cli::remote::Remote;

/// Where a file is copied to, under its temporary name.
#[derive(Debug, Clone)]
pub(in crate::cli::cp) enum Target {
    Remote {
        file: Arc<File>,
        export: Export,
        temporary: ExportPath,
        path: ExportPath,
        memory: String,
        turns: Turns,
    },
    Local {
        file: Arc<std::fs::File>,
        temporary: PathBuf,
        path: PathBuf,
    },
}

impl Target {
    /// Opens the temporary file beside a server's file, for what comes from `origin`, where it will be in a `memory`;
    /// nobody else writes to it meanwhile.
    pub(super) async fn open_remote(
        export: Export,
        remote: &Remote,
        (origin, memory): (&str, String),
        options: OpenOptions,
        turns: Turns,
    ) -> Result<(Self, u64), Trouble> {
        let temporary = temporary_path(&remote.path, origin)?;
        let file = open_alone(&export, &temporary, &options.grace(PART_GRACE)).await?;
        let had = file.state().attributes.len;
        let (file, path) = (Arc::new(file), remote.path.clone());
        Ok((Self::Remote { file, export, temporary, path, memory, turns }, had))
    }

    /// Opens the temporary file beside a file of this machine; no other copy writes to it meanwhile.
    pub(super) fn open_local(path: PathBuf, origin: &str, permissions: u32) -> Result<(Self, u64), Trouble> {
        let name = path.file_name().map_or(&b""[..], |name| name.as_bytes());
        let temporary = path.with_file_name(temporary_name(name, origin));
        for _ in 0..PART_TRIES {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(permissions)
                // A link in its place is not followed.
                .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
                .open(&temporary)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(Trouble::Busy),
                locked => locked?,
            }
            let of = file.metadata()?;
            // That other one may just have given it its final name.
            let is_there = std::fs::symlink_metadata(&temporary)
                .is_ok_and(|there| (there.dev(), there.ino()) == (of.dev(), of.ino()));
            if is_there {
                return Ok((Self::Local { file: Arc::new(file), temporary, path }, of.len()));
            }
        }
        Err(Trouble::Busy)
    }

    /// Whose memory holds what is written until it is synced.
    pub(in crate::cli::cp) fn memory(&self) -> String {
        match self {
            Self::Remote { memory, .. } => memory.clone(),
            // Where the system does not tell, it is another one each time: then only what was synced is relied upon.
            Self::Local { .. } => bowline::net::boot_id()
                .map_or_else(|_| std::process::id().to_string(), |boot| format!("{boot:?}")),
        }
    }

    /// Writes bytes at an offset.
    pub(in crate::cli::cp) fn write(
        &self,
        at: u64,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), Trouble>> + Send + use<> {
        let target = self.clone();
        async move {
            match target {
                Self::Remote { file, turns, .. } => {
                    let _turn = turns.take(len_u64(bytes.len())).await?;
                    Ok(file.write_bytes_at(at, bytes).await?)
                }
                Self::Local { file, .. } => blocking(move || Ok(file.write_all_at(&bytes, at)?)).await,
            }
        }
    }

    /// What is there, for a look at what an earlier run has left.
    pub(in crate::cli::cp) async fn bytes(&self, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        match self {
            Self::Remote { file, .. } => read_remote(file, start, len).await,
            Self::Local { file, .. } => read_local(Arc::clone(file), start, len).await,
        }
    }

    /// Gives the file this length.
    pub(in crate::cli::cp) async fn set_len(&self, len: u64) -> Result<(), Trouble> {
        match self {
            Self::Remote { file, .. } => Ok(file.set_len(len).await.map(drop)?),
            Self::Local { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || Ok(file.set_len(len)?)).await
            }
        }
    }

    /// Waits until what was written is on the disk.
    pub(in crate::cli::cp) async fn sync(&self, scope: SyncScope) -> Result<(), Trouble> {
        match self {
            Self::Remote { file, .. } => Ok(file.sync(scope).await?),
            Self::Local { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || match scope {
                    SyncScope::Data => Ok(file.sync_data()?),
                    SyncScope::All => Ok(file.sync_all()?),
                })
                .await
            }
        }
    }

    /// Gives the complete file the permissions that it is to have, and the source's time of change where that is kept.
    pub(in crate::cli::cp) async fn put_on(&self, state: &State, preserve: bool) -> Result<(), Trouble> {
        let source = state.permissions & 0o777;
        let modified_ns = preserve.then_some(state.version.modified_ns);
        // What the mask has taken stays away; what was given for the copy's sake goes.
        let wanted = move |now: u32| if preserve { source } else { now & 0o777 & source };
        match self {
            Self::Remote { file, .. } => {
                let now = file.state().attributes.permissions;
                if wanted(now) != now & 0o777 {
                    file.set_permissions(wanted(now)).await?;
                }
                if let Some(ns) = modified_ns {
                    file.set_times(None, Some(SetTime::At(ns))).await?;
                }
                Ok(())
            }
            Self::Local { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || {
                    let now = file.metadata()?.mode();
                    if wanted(now) != now & 0o777 {
                        file.set_permissions(Permissions::from_mode(wanted(now)))?;
                    }
                    if let Some(ns) = modified_ns {
                        file.set_modified(time_at(ns))?;
                    }
                    Ok(())
                })
                .await
            }
        }
    }

    /// Gives the complete file its final name.
    pub(in crate::cli::cp) async fn take_name(&self, how: How) -> Result<(), Trouble> {
        match self {
            Self::Remote { export, temporary, path, .. } => {
                let (from, to) = (temporary.as_bytes(), path.as_bytes());
                match how.no_clobber {
                    true => Ok(export.rename_no_replace(from, to).await?),
                    false => Ok(export.rename(from, to).await?),
                }
            }
            Self::Local { temporary, path, .. } => {
                let (temporary, path) = (temporary.clone(), path.clone());
                blocking(move || {
                    if how.no_clobber {
                        let (here, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
                        Ok(rustix::fs::renameat_with(here, &temporary, here, &path, flags)?)
                    } else {
                        Ok(std::fs::rename(&temporary, &path)?)
                    }
                })
                .await
            }
        }
    }

    /// Ends with a file that has its final name; and the disk knows that when this returns, unless nobody wants to wait
    /// for it.
    pub(in crate::cli::cp) async fn finish(self, how: How) -> Result<(), Trouble> {
        match self {
            Self::Remote { file, .. } if how.sync => {
                // Everything is durable and has its name: what is left is a close that has nothing to tell.
                Ok(file.sync(SyncScope::All).await?)
            }
            Self::Remote { file, .. } => match Arc::into_inner(file) {
                Some(file) => Ok(file.close().await?),
                None => Ok(()),
            },
            // The lock goes with the file, when it has its name.
            Self::Local { file: _file, path, .. } if how.sync => {
                blocking(move || {
                    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                    Ok(std::fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?)
                })
                .await
            }
            Self::Local { .. } => Ok(()),
        }
    }
}

/// A time of a file, in ns since 1970.
pub(in crate::cli::cp) fn time_at(ns: i64) -> SystemTime {
    let span = Duration::from_nanos(ns.unsigned_abs());
    let at = if ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(span)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(span)
    };
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Opens a part that nobody else is to write to. One whose writer was killed a moment ago is free in a moment.
async fn open_alone(export: &Export, path: &ExportPath, options: &OpenOptions) -> Result<File, Error> {
    for _ in 0..PART_TRIES {
        match export.open(path.as_bytes(), options).await {
            Err(error) if error.reason() == Some(Reason::Busy) && error.retry_after().is_some() => {
                Clock.sleep(error.retry_after().unwrap_or_default().min(PART_GRACE)).await;
            }
            opened => return opened,
        }
    }
    export.open(path.as_bytes(), options).await
}

/// How long the part of a copy that was killed is kept from the copy that goes on with it. Somebody else's copy of the same
/// file may then take it from one whose lines are all lost: the part is the same.
const PART_GRACE: Duration = Duration::from_millis(500);
/// How often it is tried.
const PART_TRIES: u32 = 20;

/// What the names of temporary files end in.
const PART: &[u8] = b".bowline-part";

/// Whether a file is one that a copy has left, or is at.
pub(in crate::cli::cp) fn is_part(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(PART)
}

/// The name of a file while it is not complete: beside the final one, hidden, and the same each time that the same source is
/// copied there by the same client. What comes from elsewhere has another one, and is never mixed with it.
fn temporary_name(name: &[u8], origin: &str) -> OsString {
    let mut from = data_encoding::HEXLOWER.encode(&Blake2s256::digest(origin));
    from.truncate(8);
    let long = [b".", name, b".", from.as_bytes(), PART].concat();
    let name = if long.len() <= FileName::LEN_MAX {
        long
    } else {
        let sum = data_encoding::HEXLOWER.encode(&Blake2s256::digest(name));
        [b".", sum.as_bytes(), b".", from.as_bytes(), PART].concat()
    };
    OsString::from_vec(name)
}

fn temporary_path(path: &ExportPath, origin: &str) -> Result<ExportPath, Trouble> {
    let (folder, name) = path.split_last().unwrap_or_default();
    let name = temporary_name(name, origin);
    let joined =
        if folder.is_empty() { name.as_bytes().to_vec() } else { [folder, b"/", name.as_bytes()].concat() };
    Ok(ExportPath::new(joined).map_err(Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_names_whatever_the_final_one_is() {
        let name = temporary_name(b"a.mov", "here");
        let text = name.to_str().unwrap();
        assert!(text.starts_with(".a.mov.") && text.len() == ".a.mov.".len() + 8 + PART.len(), "{text}");
        assert!(is_part(name.as_bytes()) && !is_part(b"a.mov"));
        assert_eq!(temporary_name(b"a.mov", "here"), name);
        assert_ne!(temporary_name(b"a.mov", "there"), name);
        let long = temporary_name(&[b'x'; 255], "here");
        assert!(long.len() <= FileName::LEN_MAX && long != temporary_name(&[b'y'; 255], "here"));
        let path = ExportPath::new(b"clips/a.mov".to_vec()).unwrap();
        let temporary = temporary_path(&path, "here").unwrap();
        assert_eq!(temporary.as_bytes().strip_prefix(b"clips/"), Some(name.as_bytes()));
    }

    #[test]
    fn times_before_1970_are_times() {
        assert_eq!(time_at(-1_000_000_000), SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    }
}
