//! The two ends of a copy: files of servers, and files of this machine, read and written alike.

mod source;
mod target;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bowline::client::{Error, Export, OpenOptions};
use bowline::model::Reason;
use rustix::io::Errno;
use tokio::sync::Semaphore;

pub(super) use source::{Source, State};
pub(super) use target::{Target, is_part};

use crate::cli::arguments::ClientArguments;
use crate::cli::failure::{Code, Failure, code_of_io};
use crate::cli::remote::{Connected, Place, Remote, connect, local};

/// Bytes that are moved at a time: a chunk of the session, which goes over one line as a whole.
pub(super) const CHUNK: u64 = 512 << 10;
/// Files that are shorter have no resume key of their own: they are copied anew instead.
const KEY_LEN_MIN: u64 = super::journal::LEN_MIN;

/// The servers of a copy, and the room that all of its files have together.
pub(super) struct Ends {
    connected: Vec<Connected>,
    room: Room,
}

/// Room for chunks in memory, from when they are asked for until they are written.
pub(super) type Room = Arc<Semaphore>;

/// Chunks that all files have in memory at a time: 256 MiB.
const ROOM: usize = 512;

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
pub(super) async fn blocking<T: Send + 'static>(
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
        Ok(Self { connected, room: Arc::new(Semaphore::new(ROOM)) })
    }

    /// Where chunks have their room.
    pub(super) fn room(&self) -> &Room {
        &self.room
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

    /// Opens the temporary file of a target, as an earlier run of this copy left it; with its length, which is 0 if it is
    /// new. It can be written to, whatever the source's permissions are; those it is given at the end.
    pub(super) async fn target(
        &self,
        place: &Place,
        origin: &str,
        state: &State,
    ) -> Result<(Target, u64), Trouble> {
        let whose = self.connected.first().map(|connected| connected.own_key().to_string());
        let origin = format!("{} {origin}", whose.unwrap_or_default());
        let permissions = state.permissions & 0o777 | 0o600;
        match place {
            Place::Remote(remote) => {
                let Connected { session, .. } = self.of(&remote.peer)?;
                let is_long = state.version.len >= KEY_LEN_MIN;
                let options =
                    OpenOptions::new().read(true).write(true).create(true).mode(permissions).exclusive();
                let options = options.with_key(is_long).resumable(is_long);
                Target::open_remote(session, remote, &origin, options).await
            }
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || Target::open_local(path, &origin, permissions)).await
            }
        }
    }
}

/// A local path as people read it.
pub(super) fn shown(path: &Path) -> String {
    local(path)
}
