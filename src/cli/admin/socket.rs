//! The admin socket in the file system: how a server makes its own, and how a command finds out that it is one.
//!
//! Whoever can change the folder of a socket can put another one in its place, and whoever is asked can lie. So a server
//! makes its socket only where nobody else can write, and a command believes only a socket that belongs to root or to
//! whoever runs the command, and only if the process behind it does too. Links are not followed, at neither end.
//!
//! Of two servers with one place the first has it, for as long as it runs: it holds a lock on a file beside the socket.
//! The kernel gives up the lock with the process, so what a server that was killed leaves behind is known as such.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::UnixStream;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 8;

/// Why a server has no admin socket, or a command cannot use one.
#[derive(Debug, Error)]
pub(in crate::cli) enum SocketProblem {
    #[error("{} names no file", path.display())]
    NoName { path: PathBuf },
    #[error("cannot use the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("others than its user can change the folder {} (its mode is {mode:04o}, its user {owner})", path.display())]
    OpenFolder { path: PathBuf, mode: u32, owner: u32 },
    #[error("another server has the admin socket {}", path.display())]
    InUse { path: PathBuf },
    #[error("what is at {} is no socket", path.display())]
    NoSocket { path: PathBuf },
    #[error("the socket {} belongs to user {owner}", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("cannot make the admin socket {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("there is no admin socket {}", path.display())]
    Missing { path: PathBuf },
    #[error("no server is behind the admin socket {} any more", path.display())]
    Dead { path: PathBuf },
    #[error("cannot reach a server through the admin socket {}", path.display())]
    Reach { path: PathBuf, source: io::Error },
}

/// A socket on which a process tells how it is.
#[derive(Debug)]
pub(in crate::cli) struct AdminSocket {
    pub(super) listener: tokio::net::UnixListener,
    pub(super) place: Place,
}

/// The name of a socket. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
    name: OsString,
    /// Holds the lock as long as it is open. The file stays: to remove it would take the lock from whoever waits for it.
    _lock: Option<File>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is known to be dead by the lock that goes with it, or when somebody asks.
        let _removed = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}

impl AdminSocket {
    /// Makes a server's socket `path`, for its user alone (mode 0600), and its folder if that is missing (mode 0700). What
    /// a server that is gone has left in its place is replaced; anything else stays as it is. To be called in a runtime.
    ///
    /// # Errors
    /// [`SocketProblem`].
    pub(super) fn make(path: &Path) -> Result<Self, SocketProblem> {
        Self::make_with(path, |folder, name| lock(path, folder, name).map(Some))
    }

    /// Makes a socket `path` that has this process in its name: nobody else wants it, so there is no lock.
    ///
    /// # Errors
    /// [`SocketProblem`].
    pub(super) fn make_of_process(path: &Path) -> Result<Self, SocketProblem> {
        Self::make_with(path, |_, _| Ok(None))
    }

    fn make_with(
        path: &Path,
        lock: impl FnOnce(&OwnedFd, &OsStr) -> Result<Option<File>, SocketProblem>,
    ) -> Result<Self, SocketProblem> {
        let at = || path.to_owned();
        let cannot = |source: io::Error| SocketProblem::Make { path: at(), source };
        let name = path.file_name().ok_or_else(|| SocketProblem::NoName { path: at() })?;
        let folder = own_folder(folder_of(path))?;
        let lock = lock(&folder, name)?;
        clear(path, &folder, name)?;
        let listener = listen(&folder, name).map_err(cannot)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(cannot)?;
        Ok(Self { listener, place: Place { folder, name: name.to_owned(), _lock: lock } })
    }
}

/// Removes the sockets in a folder of this user's that nobody is behind any more, and gives the others.
pub(in crate::cli) fn living(folder: &Path) -> Vec<PathBuf> {
    let Ok(names) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = names.flatten().map(|name| name.path()).collect();
    paths.retain(|path| path.extension() == Some(OsStr::new("sock")));
    paths.sort();
    if let Ok(folder) = own_folder(folder) {
        paths.retain(|path| {
            let name = path.file_name().unwrap_or_default();
            // It is alive, or not what it seems to be.
            clear(path, &folder, name).is_err()
        });
    }
    paths
}

/// A connection to the server behind the socket `path`, which belongs to root, to whoever asks, or to `owner`.
///
/// # Errors
/// [`SocketProblem`].
pub(in crate::cli) async fn reach(path: &Path, owner: Option<u32>) -> Result<UnixStream, SocketProblem> {
    let at = || path.to_owned();
    let cannot = |source: io::Error| SocketProblem::Reach { path: at(), source };
    let is_believed = |uid: u32| is_same_or_root(uid, geteuid().as_raw()) || owner == Some(uid);
    // What is looked at is what is connected to, whatever its name leads to meanwhile.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Err(SocketProblem::Missing { path: at() }),
        Err(errno) => return Err(cannot(errno.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| cannot(errno.into()))?;
    if !is_socket(&stat) {
        return Err(SocketProblem::NoSocket { path: at() });
    }
    if !is_believed(stat.st_uid) {
        return Err(SocketProblem::Owner { path: at(), owner: stat.st_uid });
    }
    let stream = match UnixStream::connect(by_descriptor(&file)).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(SocketProblem::Dead { path: at() });
        }
        Err(error) => return Err(cannot(error)),
    };
    let server = stream.peer_cred().map_err(cannot)?.uid();
    if is_believed(server) { Ok(stream) } else { Err(SocketProblem::Owner { path: at(), owner: server }) }
}

/// Whether a user may ask a server that runs as `own`, and whether `own` believes what belongs to a user.
pub(super) fn is_same_or_root(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// The folder that a path's last component is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The folder, which is made if it is missing, and which nobody else can change.
fn own_folder(path: &Path) -> Result<OwnedFd, SocketProblem> {
    let cannot = |source: io::Error| SocketProblem::Folder { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| cannot(errno.into()))?;
    let stat = rustix::fs::fstat(&folder).map_err(|errno| cannot(errno.into()))?;
    if !is_same_or_root(stat.st_uid, geteuid().as_raw()) || stat.st_mode & 0o022 != 0 {
        let (mode, owner) = (stat.st_mode & 0o7777, stat.st_uid);
        return Err(SocketProblem::OpenFolder { path: path.to_owned(), mode, owner });
    }
    Ok(folder)
}

/// Takes the place `name`, which one server has at a time.
fn lock(path: &Path, folder: &OwnedFd, name: &OsStr) -> Result<File, SocketProblem> {
    let cannot = |errno: Errno| SocketProblem::Make { path: path.to_owned(), source: errno.into() };
    let mut beside = name.to_owned();
    beside.push(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(folder, &beside, flags, Mode::RUSR | Mode::WUSR).map_err(cannot)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(File::from(file)),
        Err(Errno::WOULDBLOCK) => Err(SocketProblem::InUse { path: path.to_owned() }),
        Err(errno) => Err(cannot(errno)),
    }
}

/// Removes the socket of a server that is gone. Another program's socket has no lock that would say whether it lives;
/// so it is asked.
fn clear(path: &Path, folder: &OwnedFd, name: &OsStr) -> Result<(), SocketProblem> {
    let at = || path.to_owned();
    let cannot = |source: io::Error| SocketProblem::Make { path: at(), source };
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(cannot(errno.into())),
    };
    if !is_socket(&stat) {
        return Err(SocketProblem::NoSocket { path: at() });
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(SocketProblem::Owner { path: at(), owner: stat.st_uid });
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(cannot)?;
    match probe.connect(&SockAddr::unix(by_descriptor(folder).join(name)).map_err(cannot)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(|errno| cannot(errno.into()))
        }
        Ok(()) | Err(_) => Err(SocketProblem::InUse { path: at() }),
    }
}

fn listen(folder: &OwnedFd, name: &OsStr) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let mode = Mode::RUSR | Mode::WUSR;
    // What is bound has the mode of the descriptor, so that there is no moment in which it is everybody's.
    rustix::fs::fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(by_descriptor(folder).join(name))?)?;
    // The umask may have taken bits away.
    rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// A path that leads to an open file, whatever has become of its name. It is short as well: the kernel takes no more than
/// 107 bytes as the address of a socket.
fn by_descriptor(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_same_user_are_believed_and_nobody_else() {
        for (uid, own, is_believed) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1000, 0, false),
            (1001, 1000, false),
            (u32::MAX, 1000, false),
        ] {
            assert_eq!(is_same_or_root(uid, own), is_believed, "{uid} and {own}");
        }
    }

    #[tokio::test]
    async fn a_socket_s_name_may_be_longer_than_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f".repeat(200)).join("admin.sock");
        let socket = AdminSocket::make(&path).unwrap();
        let (asked, accepted) = tokio::join!(reach(&path, None), socket.listener.accept());
        assert_eq!(accepted.unwrap().0.peer_cred().unwrap().uid(), geteuid().as_raw());
        drop((asked.unwrap(), socket));
        assert!(matches!(reach(&path, None).await, Err(SocketProblem::Missing { .. })), "it is removed");
    }

    #[tokio::test]
    async fn what_has_the_place_already_keeps_it_unless_it_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let first = AdminSocket::make(&at("a")).unwrap();
        assert!(matches!(AdminSocket::make(&at("a")), Err(SocketProblem::InUse { .. })));
        let beside = AdminSocket::make(&at("b")).unwrap();
        drop((first, beside));
        AdminSocket::make(&at("a")).unwrap();

        // Somebody else's sockets have no lock: the first of these is alive, the second is not.
        let alive = UnixListener::bind(at("c")).unwrap();
        drop(UnixListener::bind(at("d")).unwrap());
        assert!(matches!(AdminSocket::make(&at("c")), Err(SocketProblem::InUse { .. })));
        assert!(matches!(reach(&at("d"), None).await, Err(SocketProblem::Dead { .. })));
        AdminSocket::make(&at("d")).unwrap();
        drop(alive);

        std::fs::write(at("file"), "kept").unwrap();
        std::os::unix::fs::symlink("d", at("link")).unwrap();
        for name in ["file", "link"] {
            assert!(matches!(AdminSocket::make(&at(name)), Err(SocketProblem::NoSocket { .. })), "{name}");
            assert!(matches!(reach(&at(name), None).await, Err(SocketProblem::NoSocket { .. })), "{name}");
        }
        assert_eq!(std::fs::read(at("file")).unwrap(), b"kept");
        assert!(matches!(AdminSocket::make(Path::new("/")), Err(SocketProblem::NoName { .. })));
        assert!(matches!(AdminSocket::make(&at("file/x")), Err(SocketProblem::Folder { .. })));
    }
}
