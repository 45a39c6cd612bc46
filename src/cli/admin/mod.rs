//! The end of an admin socket that answers: whoever runs a server, or root, asks what it is doing, or ends an open; and a
//! client of this user's tells what its sessions are doing.
//!
//! One request a connection, in one line; the answer in lines, page by page, so that the server is never stopped for all
//! of it. A connection that does not come on is ended, and there are few at once: what administers a server must not be
//! what overwhelms it.

mod lines;
mod presence;
mod socket;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bowline::model::{Limits, OpenId};
use bowline::net::Clock;
use bowline::server::{Exports, Server};
use bowline::session::server::StatusQuery;
use rustix::process::geteuid;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(super) use self::lines::{
    ChannelLine, HolderLine, Line, LineToPeer, LockPart, OpenLine, PeerChannelLine, PeerSessionLine,
    ProgramLine, ProtectionLine, Request, ServerLine, SessionLine,
};
use self::lines::{lines_of, protection_lines};
pub(super) use self::presence::{Shown, name, show};
use self::socket::is_same_or_root;
pub(super) use self::socket::{AdminSocket, SocketProblem, living, reach};
use super::failure::{Code, Failure};
use super::places::admin_sockets;

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a server is to have its admin socket.
pub(super) enum Wanted {
    /// There, or it does not start.
    At(PathBuf),
    /// In the usual place, if that is free.
    Usual,
    /// Nowhere.
    None,
}

/// Makes the admin socket, where one is wanted. A place that the user has named is a must. The usual place is not: a
/// second server of the same user is to start as well, and so is one that cannot write there.
pub(super) fn open(wanted: Wanted, exports: &Exports) -> Result<Option<AdminSocket>, Failure> {
    match wanted {
        Wanted::None => Ok(None),
        Wanted::At(path) => open_at(&path, exports).map(Some),
        Wanted::Usual => {
            let opened = match admin_sockets().first() {
                Some(path) => open_at(path, exports),
                None => Err(Failure::new("XDG_RUNTIME_DIR, XDG_STATE_HOME and HOME are not set")
                    .try_this("--admin-socket PATH, or --no-admin-socket")),
            };
            Ok(opened
                .inspect_err(|failure| {
                    let hint = failure.hint.as_deref().unwrap_or_default();
                    tracing::warn!(why = failure.line(), r#try = hint, "serving without an admin socket");
                })
                .ok())
        }
    }
}

fn open_at(path: &Path, exports: &Exports) -> Result<AdminSocket, Failure> {
    let keep_out = || {
        exports.keep_out(path).map_err(|error| {
            Failure::of("cannot serve", &error).try_this("an --admin-socket outside of what is served")
        })
    };
    keep_out()?;
    let socket = AdminSocket::make(path).map_err(|problem| describe(&problem))?;
    // A folder that was missing before can be compared with what is served now.
    keep_out()?;
    Ok(socket)
}

fn describe(problem: &SocketProblem) -> Failure {
    let failure = Failure::of("no admin socket", problem);
    match problem {
        SocketProblem::OpenFolder { .. } => failure.try_this(
            "an --admin-socket in a folder of its own, which is made, or in one that only this user can change",
        ),
        SocketProblem::NoSocket { .. } | SocketProblem::Owner { .. } => {
            failure.try_this("another --admin-socket, or move away what is there")
        }
        _ => failure.try_this("another --admin-socket, or --no-admin-socket"),
    }
}

/// The task that serves an admin socket.
pub(super) struct Admin {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Admin {
    /// Serves the socket from now on.
    pub(super) fn start(socket: AdminSocket, server: &Arc<Server>) -> Self {
        let stop = CancellationToken::new();
        let AdminSocket { listener, place } = socket;
        let accepting = accept_all(listener, Subject::Server(Arc::clone(server)), stop.clone());
        let task = tokio::spawn(async move {
            accepting.await;
            drop(place);
        });
        Self { task, stop }
    }

    /// Removes the socket and ends its connections: nobody has the server afterwards.
    ///
    /// # Cancel safety
    /// The socket is going from the first poll on.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the admin socket's task has failed");
        }
    }
}

/// Who is asked.
#[derive(Clone)]
enum Subject {
    Server(Arc<Server>),
    /// This process's sessions with servers.
    Client,
}

async fn accept_all(listener: UnixListener, subject: Subject, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < Limits::ADMIN_CONNECTIONS_MAX;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(subject.clone(), stream))),
                Err(error) => {
                    // Out of descriptors, most often: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "cannot accept a connection to the admin socket");
                    Clock.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn serve(subject: Subject, mut stream: UnixStream) {
    if let Err(error) = answer(&subject, &mut stream).await {
        tracing::debug!(%error, "a connection to the admin socket broke");
    }
}

async fn answer(subject: &Subject, stream: &mut UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let own = geteuid().as_raw();
    let (read, mut write) = stream.split();
    // The socket's mode lets nobody else in; this holds also where somebody has widened it.
    if !is_same_or_root(peer.uid(), own) {
        tracing::warn!(
            uid = peer.uid(),
            pid = peer.pid(),
            "refused on the admin socket: neither root nor this user"
        );
        let this = match subject {
            Subject::Server(_) => "server",
            Subject::Client => "client",
        };
        let message = format!("user {} may not ask this {this}, which runs as user {own}", peer.uid());
        return say(&mut write, &[error(message, None)]).await;
    }
    let request = match Clock.timeout(Limits::ADMIN_WAIT, read_request(read)).await {
        Some(Ok(request)) => request,
        Some(Err(problem)) if problem.kind() == ErrorKind::InvalidData => {
            return say(&mut write, &[error(problem.to_string(), None)]).await;
        }
        Some(Err(problem)) => return Err(problem),
        None => {
            return say(
                &mut write,
                &[error(format!("no request came within {:?}", Limits::ADMIN_WAIT), None)],
            )
            .await;
        }
    };
    match (request, subject) {
        (Request::Status {}, Subject::Server(server)) => tell(server, &mut write).await,
        (Request::Status {}, Subject::Client) => {
            let mut lines = presence::lines();
            lines.push(Line::End);
            say(&mut write, &lines).await
        }
        (Request::Release { .. }, Subject::Client) => {
            let message = "this is a client: it releases nothing".to_owned();
            say(&mut write, &[error(message, Some("--socket with a server's".to_owned()))]).await
        }
        (Request::Release { open }, Subject::Server(server)) => {
            tracing::info!(open, uid = peer.uid(), pid = peer.pid(), "asked to release an open");
            say(&mut write, &[release(server, open)]).await
        }
    }
}

/// One line, which is a request.
async fn read_request(read: impl AsyncRead + Unpin) -> io::Result<Request> {
    let wrong = |why: String| io::Error::new(ErrorKind::InvalidData, why);
    let mut line = Vec::new();
    BufReader::new(read.take(Limits::ADMIN_REQUEST_LEN_MAX)).read_until(b'\n', &mut line).await?;
    if line.last() == Some(&b'\n') {
        return serde_json::from_slice(&line)
            .map_err(|error| wrong(format!("the request is not understood: {error}")));
    }
    if u64::try_from(line.len()).is_ok_and(|len| len >= Limits::ADMIN_REQUEST_LEN_MAX) {
        return Err(wrong(format!("the request has more than {} bytes", Limits::ADMIN_REQUEST_LEN_MAX)));
    }
    Err(ErrorKind::UnexpectedEof.into())
}

async fn tell(server: &Server, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let first = StatusQuery::default();
    let mut next = Some(first);
    while let Some(query) = next {
        let page = server.status(query);
        next = page.next;
        let is_first = query == first;
        let mut lines = lines_of(&page, is_first).into_iter();
        if is_first {
            // The server's own line first, then what is in force.
            say(write, &lines.next().into_iter().collect::<Vec<_>>()).await?;
            for facts in protection_lines(&server.effective_protection()).chunks(Limits::STATUS_ROWS_MAX) {
                say(write, facts).await?;
            }
        }
        say(write, &lines.collect::<Vec<_>>()).await?;
    }
    say(write, &[Line::End]).await
}

fn release(server: &Server, open: String) -> Line {
    let Some(id) = parse_open(&open) else {
        return error(format!("{} is no open's id", open.escape_debug()), None);
    };
    match server.release(id) {
        Ok(()) => Line::Released { open: id.to_string() },
        Err(problem) => Line::Error {
            message: problem.to_string(),
            hint: Some("an id that `bowline status` lists".to_owned()),
            code: Some(Code::NotFound.name().to_owned()),
        },
    }
}

/// The open that a text names: up to 16 hexadecimal digits.
pub(super) fn parse_open(text: &str) -> Option<OpenId> {
    let is_digits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_digits).map(OpenId)
}

fn error(message: String, hint: Option<String>) -> Line {
    Line::Error { message, hint, code: None }
}

/// Writes lines. A reader that does not take them in time gets no more.
async fn say(write: &mut (impl AsyncWrite + Unpin), lines: &[Line]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    Clock
        .timeout(Limits::ADMIN_WAIT, write.write_all(&bytes))
        .await
        .unwrap_or_else(|| Err(ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_opens_are_hexadecimal() {
        assert_eq!(parse_open("1f"), Some(OpenId(31)));
        assert_eq!(parse_open("FFFFFFFFFFFFFFFF"), Some(OpenId(u64::MAX)));
        for bad in ["", "x", "+1", "-1", "0x1", " 1", "00000000000000001"] {
            assert_eq!(parse_open(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_request_is_one_line_of_a_bounded_length() {
        let read = async |bytes: &[u8]| read_request(bytes).await.map_err(|error| error.to_string());
        assert!(matches!(read(b"{\"command\":\"status\"}\nmore").await, Ok(Request::Status {})));
        let padded = |len: usize| {
            let start = "{\"command\":\"status\"}";
            format!("{start}{}\n", " ".repeat(len - start.len() - 1))
        };
        assert!(read(padded(4096).as_bytes()).await.is_ok());
        let long = read(padded(4097).as_bytes()).await.unwrap_err();
        assert_eq!(long, "the request has more than 4096 bytes");
        assert!(read(b"stop\n").await.unwrap_err().starts_with("the request is not understood"));
        assert_eq!(
            read(b"{\"command\":\"status\"}").await.unwrap_err(),
            io::Error::from(ErrorKind::UnexpectedEof).to_string()
        );
    }
}
