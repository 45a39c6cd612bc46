//! `bowline status` and `bowline release`: what a server on this machine has, and this user's running clients; and an open
//! that is to end.
//!
//! An answer is read to its end before anything of it is printed: one that is cut says nothing, and whoever reads the
//! output slowly keeps no server waiting.

mod text;

use std::path::{Path, PathBuf};

use bowline::model::Limits;
use bowline::net::Clock;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::admin::{Line, Request, SocketProblem, living, reach};
use super::arguments::{AdminArguments, ReleaseArguments, StatusArguments};
use super::failure::{Code, Failure};
use super::output::{show, show_either, style};
use super::places::{admin_sockets, client_sockets};

/// Longest line of an answer, in bytes: an open with all the locks that it may have takes a third of it.
const LINE_LEN_MAX: u64 = 1 << 20;
/// Longest answer, in bytes: about a million opens.
const ANSWER_LEN_MAX: usize = 1 << 30;

pub(super) async fn status(arguments: StatusArguments) -> Result<(), Failure> {
    if let Some(socket) = &arguments.at.socket {
        return show_server(&ask_at(socket, arguments.at.owner, &Request::Status {}).await?);
    }
    // The clients of this user, and the server if there is one.
    let mut clients = Vec::new();
    for socket in client_sockets().iter().flat_map(|folder| living(folder)) {
        // One that ends while it is asked has no sessions any more.
        if let Ok(told) = ask_at(&socket, None, &Request::Status {}).await {
            clients.push(told);
        }
    }
    let server = match usual(arguments.at.owner).await {
        Ok(Some((path, stream))) => ask(&path, stream, &Request::Status {}).await.map(Some),
        // The clients are all that there is.
        Ok(None) if !clients.is_empty() => Ok(None),
        Ok(None) => Err(no_server("; and no client of this user is running")),
        Err(failure) => Err(failure),
    };
    let mut is_first = true;
    if let Ok(Some(told)) = &server {
        show_server(told)?;
        is_first = false;
    }
    for client in &clients {
        if !is_first && !style().json {
            show("\n")?;
        }
        show_told(client)?;
        is_first = false;
    }
    server.map(drop)
}

fn show_server(told: &Told) -> Result<(), Failure> {
    if !matches!(told.end, Line::End) {
        return Err(not_understood());
    }
    show_told(told)
}

fn show_told(told: &Told) -> Result<(), Failure> {
    if style().json { show(&told.text) } else { show(&text::text(&told.lines()?)) }
}

pub(super) async fn release(arguments: ReleaseArguments) -> Result<(), Failure> {
    let ReleaseArguments { open, at: AdminArguments { socket, owner } } = arguments;
    let request = Request::Release { open: open.to_string() };
    let told = match socket {
        Some(socket) => ask_at(&socket, owner, &request).await?,
        None => match usual(owner).await? {
            Some((path, stream)) => ask(&path, stream, &request).await?,
            None => return Err(no_server("")),
        },
    };
    match told.end {
        Line::Released { open } => {
            let shown = Released { kind: "released", open: &open };
            show_either(&shown, || format!("released open {}\n", open.escape_debug()))
        }
        _ => Err(not_understood()),
    }
}

/// An open that was ended, as an object.
#[derive(Serialize)]
struct Released<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    open: &'a str,
}

/// An answer: what was told, a JSON object a line, and how it ended.
struct Told {
    text: String,
    end: Line,
}

impl Told {
    fn lines(&self) -> Result<Vec<Line>, Failure> {
        self.text.lines().map(|line| serde_json::from_str(line).map_err(|_| not_understood())).collect()
    }
}

/// Asks whoever is behind the socket at `path`, and hears it out.
async fn ask_at(path: &Path, owner: Option<u32>, request: &Request) -> Result<Told, Failure> {
    let stream = reach(path, owner).await.map_err(|problem| describe(&problem))?;
    ask(path, stream, request).await
}

/// Asks the one that was reached at `path`, and hears it out.
async fn ask(path: &Path, mut stream: UnixStream, request: &Request) -> Result<Told, Failure> {
    // A server that is busy with others has its next place free after its own limit.
    let limit = Limits::ADMIN_WAIT.saturating_mul(2);
    let cut =
        |why: &str| Failure::new(format!("no whole answer from the server at {}: {why}", path.display()));
    let mut asked = serde_json::to_vec(request).map_err(|error| Failure::of("cannot ask", &error))?;
    asked.push(b'\n');
    let (read, mut write) = stream.split();
    // One that does not want to be asked has said so, and that is to be read.
    let _refused = Clock.timeout(limit, write.write_all(&asked)).await;
    let mut read = BufReader::new(read);
    let mut text = String::new();
    loop {
        let start = text.len();
        match Clock.timeout(limit, (&mut read).take(LINE_LEN_MAX).read_line(&mut text)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(cut(&error.to_string())),
            None => return Err(cut(&format!("nothing came for {limit:?}"))),
        }
        let line = text.get(start..).unwrap_or_default();
        if !line.ends_with('\n') {
            return Err(cut("it ends in the middle"));
        }
        if text.len() > ANSWER_LEN_MAX {
            return Err(cut("it does not end"));
        }
        match serde_json::from_str(line).map_err(|_| not_understood())? {
            Line::Error { message, hint, code } => {
                let code = code.as_deref().and_then(Code::named).unwrap_or(Code::Other);
                let failure = Failure::coded(code, message.escape_debug().to_string());
                return Err(match hint {
                    Some(hint) => failure.try_this(hint.escape_debug().to_string()),
                    None => failure,
                });
            }
            end @ (Line::End | Line::Released { .. }) => {
                text.truncate(start);
                return Ok(Told { text, end });
            }
            _ => {}
        }
    }
}

/// The server that lives in the first usual place which has one. A socket that nobody is behind any more, as a server that
/// was killed leaves it, is as good as none; what cannot be asked for another cause is only told of if no other place has
/// a server.
async fn usual(owner: Option<u32>) -> Result<Option<(PathBuf, UnixStream)>, Failure> {
    let mut in_the_way = None;
    for path in admin_sockets() {
        match reach(&path, owner).await {
            Ok(stream) => return Ok(Some((path, stream))),
            Err(SocketProblem::Missing { .. } | SocketProblem::Dead { .. }) => {}
            Err(problem) => in_the_way = in_the_way.or(Some(problem)),
        }
    }
    in_the_way.map_or(Ok(None), |problem| Err(describe(&problem)))
}

fn no_server(more: &str) -> Failure {
    let looked: Vec<String> = admin_sockets().iter().map(|place| place.display().to_string()).collect();
    let what = match &looked[..] {
        [] => "XDG_RUNTIME_DIR, XDG_STATE_HOME and HOME are not set".to_owned(),
        looked => format!("none is at {}", looked.join(" or ")),
    };
    Failure::new(format!("no server's admin socket: {what}{more}"))
        .try_this("--socket PATH, the server's --admin-socket; or run this as the server's user")
}

fn describe(problem: &SocketProblem) -> Failure {
    let failure = Failure::of("cannot ask a server", problem);
    match problem {
        SocketProblem::Dead { .. } => failure.try_this("start the server again: bowline serve"),
        SocketProblem::Missing { .. } | SocketProblem::NoSocket { .. } => {
            failure.try_this("--socket PATH, the server's --admin-socket itself, not a link to it")
        }
        SocketProblem::Owner { owner, .. } => failure.try_this(format!(
            "run this as user {owner}; or as root with --owner {owner}, if that is who runs the server"
        )),
        _ => failure.try_this("run this as root, or as the server's user"),
    }
}

fn not_understood() -> Failure {
    Failure::new("the server's answer is not understood")
        .try_this("the program of the same version as the server's")
}
