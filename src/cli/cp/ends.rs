//! The two ends of a copy: files of servers, and files of this machine, read and written alike.

use std::collections::VecDeque;
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blake2::{Blake2s256, Digest as _};
use bowline::client::{Error, Export, File, OpenOptions};
use bowline::model::{ExportPath, FileName, Reason, SetTime, SyncScope, len_u64};
use bowline::net::Clock;
use bytes::Bytes;
use rustix::fs::{FlockOperation, SeekFrom};
use rustix::io::Errno;
use tokio_util::task::AbortOnDropHandle;

use super::How;
use super::journal::Version;
use super::plan::Action;
use crate::cli::arguments::ClientArguments;
use crate::cli::failure::{Code, Failure, code_of_io};
use crate::cli::remote::{Connected, Place, Remote, connect, local};

/// Bytes that are moved at a time: a chunk of the session, which goes over one line as a whole.
pub(super) const CHUNK: u64 = 512 << 10;
/// Files that are shorter have no resume key of their own: they are copied anew instead.
const KEY_LEN_MIN: u64 = super::journal::LEN_MIN;

/// The servers of a copy.
pub(super) struct Ends {
    connected: Vec<Connected>,
}

/// What went wrong at one of the ends.
#[derive(Debug)]
pub(super) enum Trouble {
    /// At a server.
    Remote(Error),
    /// On this machine.
    Local(io::Error),
    /// The source is not what it was.
    Changed,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Remote(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        Self::Local(error.into())
    }
}

impl Trouble {
    /// Whether the same copy can succeed when it begins anew: the server has forgotten the file.
    pub(super) fn is_forgotten(&self) -> bool {
        matches!(self, Self::Remote(Error::StateLost | Error::NotResumable))
    }

    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Remote(error) => error.reason() == Some(Reason::NotFound),
            Self::Local(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Changed => false,
        }
    }
}

/// Runs what waits for this machine's file system where nobody waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Trouble::Local(io::Error::other(error)))?
}

impl Ends {
    /// Sessions with all servers that these places name.
    pub(super) async fn connect(
        arguments: &ClientArguments,
        places: impl Iterator<Item = &Place>,
    ) -> Result<Self, Failure> {
        let mut connected: Vec<Connected> = Vec::new();
        for place in places {
            let Place::Remote(remote) = place else { continue };
            if connected.iter().all(|connected| connected.peer.name != remote.peer) {
                connected.push(connect(arguments, &remote.peer, "nothing was copied").await?);
            }
        }
        Ok(Self { connected })
    }

    /// The sessions.
    pub(super) fn all(&self) -> &[Connected] {
        &self.connected
    }

    fn of(&self, peer: &str) -> Result<&Connected, Trouble> {
        let found = self.connected.iter().find(|connected| connected.peer.name == peer);
        found.ok_or_else(|| Trouble::Local(io::ErrorKind::NotConnected.into()))
    }

    /// A place under a name that means the same in every run: with the server's key, and from the root of this machine.
    pub(super) fn lasting(&self, place: &Place) -> String {
        match place {
            Place::Remote(remote) => {
                let key = self.of(&remote.peer).map(|connected| connected.peer.key.to_string());
                format!("{} {}", key.unwrap_or_default(), remote.shown())
            }
            Place::Local(path) => local(&std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        }
    }

    /// The export that a place of a server is in.
    pub(super) fn export(&self, remote: &Remote) -> Result<Export, Trouble> {
        Ok(self.of(&remote.peer)?.session.export(&remote.export)?)
    }

    /// What a user reads when `what` fails, at `place` or its other end.
    pub(super) fn failure(&self, what: &str, place: &Place, trouble: &Trouble) -> Failure {
        match (trouble, place) {
            (Trouble::Remote(error), Place::Remote(remote)) => match self.of(&remote.peer) {
                Ok(connected) => connected.failure(what, error),
                Err(_) => Failure::of(what, error),
            },
            (Trouble::Remote(error), Place::Local(_)) => match self.connected.first() {
                Some(connected) => connected.failure(what, error),
                None => Failure::of(what, error),
            },
            (Trouble::Local(error), _) => {
                let host = rustix::system::uname();
                let host = host.nodename().to_string_lossy().into_owned();
                Failure::coded(code_of_io(error), what).because(format!("{error}, on this machine ({host})"))
            }
            (Trouble::Changed, _) => Failure::coded(Code::Changed, what)
                .because("the source was changed while it was copied")
                .data("the part is kept under its temporary name, and the final name was not touched")
                .try_this("the same command again"),
        }
    }

    pub(super) async fn close(self) {
        for connected in self.connected {
            connected.session.close().await;
        }
    }

    /// Opens what is to be copied.
    pub(super) async fn source(&self, place: &Place, len: u64) -> Result<Source, Trouble> {
        match place {
            Place::Remote(remote) => {
                let options = OpenOptions::new().read(true).with_key(len >= KEY_LEN_MIN);
                let options = options.resumable(len >= KEY_LEN_MIN);
                let file = self.export(remote)?.open(remote.path.as_bytes(), &options).await?;
                Ok(Source::Remote(Arc::new(file)))
            }
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || Ok(Source::Local(Arc::new(std::fs::File::open(path)?)))).await
            }
        }
    }

    /// Opens the temporary file of a target, as an earlier run left it; with its length, which is 0 if it is new.
    pub(super) async fn target(
        &self,
        place: &Place,
        permissions: u32,
        len: u64,
    ) -> Result<(Target, u64), Trouble> {
        match place {
            Place::Remote(remote) => {
                let temporary = temporary_path(&remote.path)?;
                let options =
                    OpenOptions::new().read(true).write(true).create(true).mode(permissions).exclusive();
                let options = options.with_key(len >= KEY_LEN_MIN).resumable(len >= KEY_LEN_MIN);
                let export = self.export(remote)?;
                let file = open_alone(&export, &temporary, &options.grace(PART_GRACE)).await?;
                let had = file.state().attributes.len;
                let memory = self.of(&remote.peer)?.session.epoch();
                Ok((
                    Target::Remote {
                        file: Arc::new(file),
                        export,
                        temporary,
                        path: remote.path.clone(),
                        memory: memory.to_string(),
                    },
                    had,
                ))
            }
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || {
                    let temporary = path
                        .with_file_name(temporary_name(path.file_name().map_or(b"", |name| name.as_bytes())));
                    let file = std::fs::OpenOptions::new()
                        .read(true)
                        .write(true)
                        .create(true)
                        .truncate(false)
                        .mode(permissions)
                        .custom_flags(NOFOLLOW)
                        .open(&temporary)?;
                    // Another copy of the same file is at it.
                    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                    let had = file.metadata()?.len();
                    Ok((Target::Local { file: Arc::new(file), temporary, path }, had))
                })
                .await
            }
        }
    }

    /// Makes a symbolic link like the source.
    pub(super) async fn copy_link(&self, action: &Action) -> Result<(), Failure> {
        let Action::Link { source, target } = action else { return Ok(()) };
        let what = format!("cannot copy {} to {}", source.shown(), target.shown());
        let copied = async {
            let leads_to = match source {
                Place::Remote(remote) => {
                    self.export(remote)?.read_link(remote.path.as_bytes()).await?.as_bytes().to_vec()
                }
                Place::Local(path) => {
                    let path = path.clone();
                    blocking(move || Ok(std::fs::read_link(path)?.as_os_str().as_bytes().to_vec())).await?
                }
            };
            match target {
                Place::Remote(remote) => {
                    let made = self.export(remote)?.symlink(&leads_to, remote.path.as_bytes()).await;
                    match made {
                        Err(error) if error.reason() == Some(Reason::Exists) => {
                            let there = self.export(remote)?.read_link(remote.path.as_bytes()).await;
                            if there.is_ok_and(|there| there.as_bytes() == leads_to) {
                                Ok(())
                            } else {
                                Err(error.into())
                            }
                        }
                        made => Ok(made?),
                    }
                }
                Place::Local(path) => {
                    let path = path.clone();
                    blocking(move || {
                        let wanted = PathBuf::from(std::ffi::OsStr::from_bytes(&leads_to));
                        match std::os::unix::fs::symlink(&wanted, &path) {
                            Err(error) if std::fs::read_link(&path).is_ok_and(|there| there == wanted) => {
                                drop(error);
                                Ok(())
                            }
                            made => Ok(made?),
                        }
                    })
                    .await
                }
            }
        };
        copied.await.map_err(|trouble: Trouble| self.failure(&what, target, &trouble))
    }
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

/// A link in the place of a temporary file is not followed.
const NOFOLLOW: i32 = 0o400_000;

/// The name of a file while it is not complete: beside the final one, hidden, and the same each time.
fn temporary_name(name: &[u8]) -> std::ffi::OsString {
    let long = [b".", name, b".bowline-part"].concat();
    let name = if long.len() <= FileName::LEN_MAX {
        long
    } else {
        let sum = data_encoding::HEXLOWER.encode(&Blake2s256::digest(name));
        format!(".{sum}.bowline-part").into_bytes()
    };
    std::ffi::OsStr::from_bytes(&name).to_owned()
}

fn temporary_path(path: &ExportPath) -> Result<ExportPath, Trouble> {
    let (folder, name) = path.split_last().unwrap_or_default();
    let name = temporary_name(name);
    let joined =
        if folder.is_empty() { name.as_bytes().to_vec() } else { [folder, b"/", name.as_bytes()].concat() };
    Ok(ExportPath::new(joined).map_err(Error::from)?)
}

/// What is copied.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Remote(Arc<File>),
    Local(Arc<std::fs::File>),
}

/// What a file is at one moment.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) version: Version,
    pub(super) allocated: u64,
    pub(super) permissions: u32,
}

impl Source {
    /// What the source is now.
    pub(super) async fn state(&self) -> Result<State, Trouble> {
        match self {
            Self::Remote(file) => {
                let of = file.stat().await?.attributes;
                Ok(State {
                    version: Version { len: of.len, modified_ns: of.modified_ns, changed_ns: of.changed_ns },
                    allocated: of.allocated,
                    permissions: of.permissions,
                })
            }
            Self::Local(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let of = file.metadata()?;
                    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
                    Ok(State {
                        version: Version {
                            len: of.len(),
                            modified_ns: ns(of.mtime(), of.mtime_nsec()),
                            changed_ns: ns(of.ctime(), of.ctime_nsec()),
                        },
                        allocated: of.blocks().saturating_mul(512),
                        permissions: of.mode() & 0o7777,
                    })
                })
                .await
            }
        }
    }

    /// What the source was when it was opened, without a question to anybody; `None` where that has to be asked.
    pub(super) fn opened(&self) -> Option<State> {
        let Self::Remote(file) = self else { return None };
        let of = file.state().attributes;
        Some(State {
            version: Version { len: of.len, modified_ns: of.modified_ns, changed_ns: of.changed_ns },
            allocated: of.allocated,
            permissions: of.permissions,
        })
    }

    /// The first piece from `from` on that is no hole; `None` if there is none before the end.
    pub(super) async fn next_data(&self, from: u64, len: u64) -> Result<Option<(u64, u64)>, Trouble> {
        match self {
            Self::Remote(file) => {
                let Some(start) = file.seek_data(from).await? else { return Ok(None) };
                let end = file.seek_hole(start).await?.unwrap_or(len);
                Ok(Some((start, end.min(len))).filter(|(start, end)| start < end))
            }
            Self::Local(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let start = match rustix::fs::seek(&file, SeekFrom::Data(from)) {
                        Ok(start) => start,
                        Err(Errno::NXIO) => return Ok(None),
                        // A file system without holes.
                        Err(Errno::INVAL) => from,
                        Err(errno) => return Err(errno.into()),
                    };
                    let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap_or(len);
                    Ok(Some((start, end.min(len))).filter(|(start, end)| start < end))
                })
                .await
            }
        }
    }

    /// The bytes from `start` to `end`, in order; of a server's file so many are asked for ahead.
    pub(super) fn chunks(&self, start: u64, end: u64, window: u64) -> Chunks {
        match self {
            Self::Remote(file) => {
                Chunks::Remote { file: Arc::clone(file), asked: VecDeque::new(), at: start, end, window }
            }
            Self::Local(file) => Chunks::Local { file: Arc::clone(file), at: start, end },
        }
    }

    /// The bytes before `end`, at most so many; fewer where the file is shorter.
    pub(super) async fn bytes(&self, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        match self {
            Self::Remote(file) => read_remote(file, start, len).await,
            Self::Local(file) => read_local(Arc::clone(file), start, len).await,
        }
    }

    /// Gives the source back.
    pub(super) async fn close(self) {
        if let Self::Remote(file) = self
            && let Some(file) = Arc::into_inner(file)
        {
            // It was read, and that is all that was wanted of it.
            drop(file.close().await);
        }
    }
}

async fn read_remote(file: &File, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
    let mut bytes = vec![0; len];
    let read = file.read_at(start, &mut bytes).await?;
    bytes.truncate(read);
    Ok(bytes)
}

async fn read_local(file: Arc<std::fs::File>, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
    blocking(move || {
        let mut bytes = vec![0; len];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, start.saturating_add(len_u64(read)))? {
                0 => break,
                more => read = read.saturating_add(more),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    })
    .await
}

/// Bytes of a source in order.
pub(super) enum Chunks {
    Remote {
        file: Arc<File>,
        /// What was asked for, oldest first.
        asked: VecDeque<AbortOnDropHandle<Result<Bytes, Error>>>,
        at: u64,
        end: u64,
        window: u64,
    },
    Local {
        file: Arc<std::fs::File>,
        at: u64,
        end: u64,
    },
}

impl Chunks {
    /// The next ones; `None` at the end of the piece, or of the file.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        match self {
            Self::Remote { file, asked, at, end, window } => {
                while *at < *end && len_u64(asked.len()).saturating_mul(CHUNK) < *window {
                    let (file, start) = (Arc::clone(file), *at);
                    let len = end.saturating_sub(start).min(CHUNK);
                    let wanted = usize::try_from(len).unwrap_or(usize::MAX);
                    let asking = tokio::spawn(async move {
                        let ranges = file.read_ranges(&[(start, wanted)]).await?;
                        Ok(ranges.into_iter().next().unwrap_or_default())
                    });
                    asked.push_back(AbortOnDropHandle::new(asking));
                    *at = start.saturating_add(len);
                }
                let Some(oldest) = asked.pop_front() else { return Ok(None) };
                let bytes = oldest.await.map_err(|error| Trouble::Local(io::Error::other(error)))??;
                // A chunk that is cut is the end of the file, and what was asked for behind it is nothing.
                let is_cut = len_u64(bytes.len()) < CHUNK && !asked.is_empty();
                Ok((!bytes.is_empty() && !is_cut).then_some(bytes))
            }
            Self::Local { file, at, end } => {
                let left = end.saturating_sub(*at).min(CHUNK);
                if left == 0 {
                    return Ok(None);
                }
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                let bytes = read_local(Arc::clone(file), *at, left).await?;
                *at = at.saturating_add(len_u64(bytes.len()));
                Ok((!bytes.is_empty()).then(|| bytes.into()))
            }
        }
    }
}

/// Where a file is copied to, under its temporary name.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Remote { file: Arc<File>, export: Export, temporary: ExportPath, path: ExportPath, memory: String },
    Local { file: Arc<std::fs::File>, temporary: PathBuf, path: PathBuf },
}

impl Target {
    /// Whose memory holds what is written until it is synced.
    pub(super) fn memory(&self) -> String {
        match self {
            Self::Remote { memory, .. } => memory.clone(),
            Self::Local { .. } => {
                bowline::net::boot_id().map_or_else(|_| "unknown".to_owned(), |boot| format!("{boot:?}"))
            }
        }
    }

    /// Writes bytes at an offset.
    pub(super) fn write(
        &self,
        at: u64,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), Trouble>> + Send + use<> {
        let target = self.clone();
        async move {
            match target {
                Self::Remote { file, .. } => Ok(file.write_bytes_at(at, bytes).await?),
                Self::Local { file, .. } => blocking(move || Ok(file.write_all_at(&bytes, at)?)).await,
            }
        }
    }

    /// What is there, for a look at what an earlier run has left.
    pub(super) async fn bytes(&self, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        match self {
            Self::Remote { file, .. } => read_remote(file, start, len).await,
            Self::Local { file, .. } => read_local(Arc::clone(file), start, len).await,
        }
    }

    /// Gives the file this length.
    pub(super) async fn set_len(&self, len: u64) -> Result<(), Trouble> {
        match self {
            Self::Remote { file, .. } => Ok(file.set_len(len).await.map(drop)?),
            Self::Local { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || Ok(file.set_len(len)?)).await
            }
        }
    }

    /// Waits until all that was written is on the disk.
    pub(super) async fn sync(&self) -> Result<(), Trouble> {
        match self {
            Self::Remote { file, .. } => Ok(file.sync(SyncScope::Data).await?),
            Self::Local { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || Ok(file.sync_data()?)).await
            }
        }
    }

    /// Gives the complete file its final name, after the times and permissions of `preserve`.
    pub(super) async fn finish(self, how: How, preserve: Option<&State>) -> Result<(), Trouble> {
        let preserve = preserve.map(|state| (state.permissions & 0o777, state.version.modified_ns));
        match self {
            Self::Remote { file, export, temporary, path, .. } => {
                if let Some((permissions, modified_ns)) = preserve {
                    file.set_permissions(permissions).await?;
                    file.set_times(None, Some(SetTime::At(modified_ns))).await?;
                }
                if let Some(file) = Arc::into_inner(file) {
                    file.close().await?;
                }
                let (from, to) = (temporary.as_bytes(), path.as_bytes());
                match how.no_clobber {
                    true => Ok(export.rename_no_replace(from, to).await?),
                    false => Ok(export.rename(from, to).await?),
                }
            }
            Self::Local { file, temporary, path } => {
                blocking(move || {
                    if let Some((permissions, modified_ns)) = preserve {
                        file.set_permissions(Permissions::from_mode(permissions))?;
                        file.set_modified(time_at(modified_ns))?;
                    }
                    finish_local(&temporary, &path, how)
                })
                .await
            }
        }
    }
}

fn finish_local(temporary: &Path, path: &Path, how: How) -> Result<(), Trouble> {
    if how.no_clobber {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(rustix::fs::CWD, temporary, rustix::fs::CWD, path, flags)?;
    } else {
        std::fs::rename(temporary, path)?;
    }
    Ok(())
}

fn time_at(ns: i64) -> SystemTime {
    let span = Duration::from_nanos(ns.unsigned_abs());
    let at = if ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(span)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(span)
    };
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A local path as people read it.
pub(super) fn shown(path: &Path) -> String {
    local(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_names_whatever_the_final_one_is() {
        assert_eq!(temporary_name(b"a.mov"), ".a.mov.bowline-part");
        let long = temporary_name(&[b'x'; 255]);
        assert!(long.len() <= FileName::LEN_MAX && long != temporary_name(&[b'y'; 255]));
        let path = ExportPath::new(b"clips/a.mov".to_vec()).unwrap();
        assert_eq!(temporary_path(&path).unwrap().as_bytes(), b"clips/.a.mov.bowline-part");
    }

    #[test]
    fn times_before_1970_are_times() {
        assert_eq!(time_at(-1_000_000_000), SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    }
}
