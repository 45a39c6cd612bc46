//! The two ends of a copy: files of servers, and files of this machine, read and written alike.

mod source;
mod target;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{ChannelState, Client, Error, Export, OpenOptions};
use bowline::model::{Limits, Reason, Time};
use bowline::net::Clock;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use source::{Source, State};
pub(super) use target::{Target, is_part, time_at};

use crate::cli::arguments::ClientArguments;
use crate::cli::failure::{Code, Failure, code_of_io};
use crate::cli::remote::{Connected, Place, Remote, connect, local};

/// Bytes that are moved at a time: a chunk of the session, which goes over one line as a whole.
pub(super) const CHUNK: u64 = 512 << 10;
/// Files that are shorter have no resume key of their own: they are copied anew instead.
const KEY_LEN_MIN: u64 = super::journal::LEN_MIN;

/// How long an answer is waited for: a copy stands still for as long as no line is there, over a night if need be, and goes
/// on. Whoever does not want to wait for so long ends it, and the same command goes on where it was.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a copy goes on hoping where a server cannot be had back before somebody changes something: as long as other
/// calls wait for it.
const HOPE: Duration = Client::REQUEST_TIMEOUT;
/// Time between two looks at that.
const LOOK: Duration = Duration::from_secs(1);

/// The servers of a copy, and the room that all of its files have together.
pub(super) struct Ends {
    servers: Vec<Server>,
    room: Room,
}

/// A server, and what it may be asked for at a time.
struct Server {
    connected: Connected,
    turns: Turns,
}

/// An export whose calls wait as long as a copy waits, and those of its files with them.
fn patient(export: &Export) -> Export {
    export.with_timeout(PATIENCE)
}

/// How much a server is asked to give and to take ahead, by all files together: twice what a session may have in flight. So
/// there is always something to send next, and no request of another file stands behind a long row of what nobody needs yet.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

/// A part of that, until it is dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Turns {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(
            usize::try_from(turns_of(asked_max())).unwrap_or(Semaphore::MAX_PERMITS),
        )))
    }

    /// The turn of so many bytes, if it is theirs already.
    fn try_take(&self, bytes: u64) -> Option<Turn> {
        Arc::clone(&self.0).try_acquire_many_owned(turns_of(bytes)).ok()
    }

    /// Waits for the turn of so many bytes.
    async fn take(&self, bytes: u64) -> Result<Turn, Trouble> {
        let taken = Arc::clone(&self.0).acquire_many_owned(turns_of(bytes)).await;
        taken.map_err(|closed| Trouble::Local(io::Error::other(closed)))
    }
}

/// Bytes that a server is asked for ahead.
fn asked_max() -> u64 {
    Limits::default().bytes.saturating_mul(2)
}

/// Bytes are counted in KiB, and never more of them than there can be.
fn turns_of(bytes: u64) -> u32 {
    u32::try_from(bytes.min(asked_max()).div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// Since when a server cannot be had back. Not every line says so each time, so only a channel that is there again is an
/// end of it.
#[derive(Default)]
struct Hope {
    lost: Option<Time>,
}

impl Hope {
    /// A look: whether it is reached, and why it cannot be, if that is known. Gives that back when it has been so for long
    /// enough.
    fn look(&mut self, now: Time, is_reached: bool, trouble: Option<Error>) -> Option<Error> {
        if is_reached {
            self.lost = None;
        }
        let trouble = trouble.filter(|_| !is_reached)?;
        (now.since(*self.lost.get_or_insert(now)) >= HOPE).then_some(trouble)
    }
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
    /// Another copy of this machine is at the same part.
    Busy,
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
            Self::Changed | Self::Busy => false,
        }
    }

    /// Whether what was asked was not done: somebody says so who knows it.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Remote(error) => error.reason().is_some_and(|reason| reason != Reason::Unknown),
            Self::Local(_) | Self::Changed | Self::Busy => true,
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
        let mut servers: Vec<Server> = Vec::new();
        for place in places {
            let Place::Remote(remote) = place else { continue };
            if servers.iter().all(|server| server.connected.peer.name != remote.peer) {
                let connected = connect(arguments, &remote.peer, "nothing was copied").await?;
                servers.push(Server { connected, turns: Turns::new() });
            }
        }
        Ok(Self { servers, room: Arc::new(Semaphore::new(ROOM)) })
    }

    /// Waits until one of the servers cannot be had back, whatever is waited for; with what a user reads then.
    pub(super) async fn given_up(&self) -> Failure {
        let mut hopes: Vec<Hope> = self.servers.iter().map(|_| Hope::default()).collect();
        loop {
            Clock.sleep(LOOK).await;
            let now = Clock.now();
            for (Server { connected, .. }, hope) in self.servers.iter().zip(&mut hopes) {
                let session = &connected.session;
                let is_reached = session.channels().iter().any(|channel| channel.state == ChannelState::Live);
                if let Some(error) = hope.look(now, is_reached, session.trouble()) {
                    return connected
                        .failure("the copy has broken off", &error)
                        .data("what is complete has its final name; parts are kept under temporary names");
                }
            }
        }
    }

    /// Where chunks have their room.
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// The sessions.
    pub(super) fn all(&self) -> impl Iterator<Item = &Connected> {
        self.servers.iter().map(|server| &server.connected)
    }

    fn of(&self, peer: &str) -> Result<&Server, Trouble> {
        let found = self.servers.iter().find(|server| server.connected.peer.name == peer);
        found.ok_or_else(|| Trouble::Local(io::ErrorKind::NotConnected.into()))
    }

    /// A place under a name that means the same in every run: with the server's key, and from the root of this machine.
    pub(super) fn lasting(&self, place: &Place) -> String {
        match place {
            Place::Remote(remote) => {
                let key = self.of(&remote.peer).map(|server| server.connected.peer.key.to_string());
                format!("{} {}", key.unwrap_or_default(), remote.shown())
            }
            Place::Local(path) => local(&std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        }
    }

    /// The export that a place of a server is in. Its calls wait as long as a copy waits, and so do those of its files.
    pub(super) fn export(&self, remote: &Remote) -> Result<Export, Trouble> {
        Ok(patient(&self.of(&remote.peer)?.connected.session.export(&remote.export)?))
    }

    /// What a user reads when `what` fails, at `place` or its other end.
    pub(super) fn failure(&self, what: &str, place: &Place, trouble: &Trouble) -> Failure {
        match (trouble, place) {
            (Trouble::Remote(error), Place::Remote(remote)) => match self.of(&remote.peer) {
                Ok(server) => server.connected.failure_at(remote, what, error),
                Err(_) => Failure::of(what, error),
            },
            (Trouble::Remote(error), Place::Local(_)) => match self.all().next() {
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
                .try_this("the same command again"),
            (Trouble::Busy, _) => Failure::coded(Code::ShareViolation, what)
                .because("another copy of this file is running")
                .try_this("the same command again, when that one has ended"),
        }
    }

    /// Ends the sessions.
    pub(super) async fn close(&self) {
        for connected in self.all() {
            connected.session.clone().close().await;
        }
    }

    /// Opens what is to be copied.
    pub(super) async fn source(&self, place: &Place, len: u64) -> Result<Source, Trouble> {
        match place {
            Place::Remote(remote) => {
                let options = OpenOptions::new().read(true).with_key(len >= KEY_LEN_MIN);
                let options = options.resumable(len >= KEY_LEN_MIN);
                let file = self.export(remote)?.open(remote.path.as_bytes(), &options).await?;
                Ok(Source::Remote(Arc::new(file), self.of(&remote.peer)?.turns.clone()))
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
        let whose = self.all().next().map(|connected| connected.own_key().to_string());
        let origin = format!("{} {origin}", whose.unwrap_or_default());
        let permissions = state.permissions & 0o777 | 0o600;
        match place {
            Place::Remote(remote) => {
                let Server { connected, turns } = self.of(&remote.peer)?;
                let memory = format!("{:?}", connected.session.verifier());
                let is_long = state.version.len >= KEY_LEN_MIN;
                let options =
                    OpenOptions::new().read(true).write(true).create(true).mode(permissions).exclusive();
                let options = options.with_key(is_long).resumable(is_long);
                let (export, turns) = (self.export(remote)?, turns.clone());
                Target::open_remote(export, remote, (&origin, memory), options, turns).await
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

#[cfg(test)]
mod tests {
    use bowline::client::{LineConfig, Peer};
    use bowline::model::LineRole;
    use bowline::net::SystemEntropy;
    use bowline::secure::Identity;
    use bowline::server::{Exports, Server, ServerConfig, parse_clients};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::*;

    /// A line to `server` on which nothing goes on while the gate is shut.
    async fn line_with_a_gate(server: std::net::SocketAddr, gate: watch::Receiver<bool>) -> LineConfig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(server).await.unwrap();
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pump(near_read, far_write, gate.clone()));
                tokio::spawn(pump(far_read, near_write, gate.clone()));
            }
        });
        LineConfig { address, via: None, role: LineRole::Both, protection: None }
    }

    async fn pump(
        mut from: impl tokio::io::AsyncRead + Unpin,
        mut to: impl tokio::io::AsyncWrite + Unpin,
        mut gate: watch::Receiver<bool>,
    ) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if gate.wait_for(|is_open| *is_open).await.is_err()
                || to.write_all(&bytes[..count]).await.is_err()
            {
                return;
            }
        }
    }

    /// What a copy asks for is waited for beyond the time that a session gives its calls.
    #[tokio::test]
    async fn what_a_copy_asks_waits_for_longer_than_other_calls() {
        const SHORT: Duration = Duration::from_millis(100);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"content").unwrap();
        let [own, client] = [(), ()].map(|()| Arc::new(Identity::generate(&mut SystemEntropy).unwrap()));
        let clients = format!(
            "[[client]]\nkey = \"{}\"\nname = \"client\"\nexports = [\"media\"]\nrights = [\"read\"]\n",
            client.public()
        );
        let exports = Exports::open([("media".parse().unwrap(), folder.path().to_owned())]).unwrap();
        let key = own.public();
        let mut config = ServerConfig::new(own, exports, parse_clients(&clients).unwrap());
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        let server = Server::start(config).unwrap();
        let (gate, is_open) = watch::channel(true);
        let lines = vec![line_with_a_gate(server.addresses()[0], is_open).await];
        let peer = Peer { name: "store".to_owned(), key, protection_min: None, lines };
        let client = Client::new(client).unwrap().with_request_timeout(SHORT);
        let session = client.connect(&peer).await.unwrap();
        session.all_lines_up(HOPE).await.unwrap();
        let usual = session.export("media").unwrap();
        let asked = patient(&usual);
        let file = asked.open("file", &OpenOptions::new().read(true)).await.unwrap();
        gate.send(false).unwrap();
        let reading = tokio::spawn(async move { file.read_ranges(&[(0, 7)]).await });
        let looking = tokio::spawn(async move { asked.metadata("file").await });
        // By the end of that, the time of both is over by far if it is the usual one.
        assert!(matches!(usual.metadata("file").await, Err(Error::TimedOut(SHORT))));
        assert!(matches!(usual.metadata("file").await, Err(Error::TimedOut(SHORT))));
        assert!(!reading.is_finished() && !looking.is_finished());
        gate.send(true).unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), [&b"content"[..]]);
        assert_eq!(looking.await.unwrap().unwrap().len, 7);
        session.close().await;
    }

    #[tokio::test]
    async fn a_server_is_asked_for_twice_its_credit_and_the_rest_waits_for_its_turn() {
        let turns = Turns::new();
        let credit = Limits::default().bytes;
        let mut taken = Vec::new();
        while let Some(turn) = turns.try_take(CHUNK) {
            taken.push(turn);
        }
        assert_eq!(bowline::model::len_u64(taken.len()) * CHUNK, 2 * credit);
        assert!(turns.try_take(1).is_none());
        // What waits goes first, whatever else would still find room.
        let mut waiting = std::pin::pin!(turns.take(CHUNK));
        let mut look = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut look).is_pending());
        taken.pop();
        assert!(turns.try_take(1).is_none());
        let _turn = waiting.await.unwrap();
        taken.clear();
        assert!(turns.try_take(u64::MAX).is_none() && turns.try_take(2 * credit - CHUNK).is_some());
    }

    #[test]
    fn hope_is_given_up_when_it_has_been_in_vain_for_long_enough() {
        let key = bowline::model::PublicKey([7; 32]);
        let trouble = || {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            Some(Error::ServerKeyChanged { address, pinned: key })
        };
        let mut hope = Hope::default();
        let at = |span: Duration| Time::default().after(span);
        let short = HOPE.saturating_sub(LOOK);
        assert!(hope.look(at(Duration::ZERO), false, trouble()).is_none());
        assert!(hope.look(at(short), false, trouble()).is_none());
        // The server was there again.
        assert!(hope.look(at(HOPE), true, None).is_none());
        assert!(hope.look(at(HOPE + LOOK), false, trouble()).is_none());
        assert!(hope.look(at(HOPE + short), false, trouble()).is_none());
        // Another line says nothing.
        assert!(hope.look(at(HOPE + LOOK + HOPE), false, None).is_none());
        let over = hope.look(at(HOPE + LOOK + HOPE), false, trouble());
        assert!(matches!(over, Some(Error::ServerKeyChanged { .. })), "{over:?}");
    }
}
