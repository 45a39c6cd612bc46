//! `bowline status` and `bowline release`: what a server on this machine has, and this user's running clients; and an open
//! that is to end.
//!
//! An answer is read to its end before anything of it is printed: one that is cut says nothing, and whoever reads the
//! output slowly keeps no server waiting.

mod text;

use std::path::PathBuf;

use bowline::model::Limits;
use bowline::net::Clock;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::admin::{Line, Request, SocketProblem, living, reach};
use super::arguments::{AdminArguments, ReleaseArguments, StatusArguments};
use super::failure::Failure;
use super::output::{show, show_either, style};
use super::places::{admin_sockets, client_sockets};

/// Longest line of an answer, in bytes: an open with all the locks that it may have takes a third of it.
const LINE_LEN_MAX: u64 = 1 << 20;
/// Longest answer, in bytes: about a million opens.
const ANSWER_LEN_MAX: usize = 1 << 30;

pub(super) async fn status(arguments: StatusArguments) -> Result<(), Failure> {
    if arguments.at.socket.is_some() {
        return show_status(arguments.at).await;
    }
    // The clients of this user, and the server if there is one.
    let mut clients = Vec::new();
    for socket in client_sockets().iter().flat_map(|folder| living(folder)) {
        // One that ends while it is asked has no sessions any more.
        if let Ok(told) = ask(AdminArguments { socket: Some(socket), owner: None }, &Request::Status {}).await
        {
            clients.push(told);
        }
    }
    let is_server_there = usual().is_ok();
    if is_server_there || clients.is_empty() {
        show_status(arguments.at).await?;
    }
    for (at, client) in clients.iter().enumerate() {
        if (at > 0 || is_server_there) && !style().json {
            show("\n")?;
        }
        show_told(client)?;
    }
    Ok(())
}

async fn show_status(at: AdminArguments) -> Result<(), Failure> {
    let told = ask(at, &Request::Status {}).await?;
    if !matches!(told.end, Line::End) {
        return Err(not_understood());
    }
    show_told(&told)
}

fn show_told(told: &Told) -> Result<(), Failure> {
    if style().json { show(&told.text) } else { show(&text::text(&told.lines()?)) }
}

pub(super) async fn release(arguments: ReleaseArguments) -> Result<(), Failure> {
    let told = ask(arguments.at, &Request::Release { open: arguments.open.to_string() }).await?;
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

/// Asks the server, and hears it out.
async fn ask(at: AdminArguments, request: &Request) -> Result<Told, Failure> {
    let path = match at.socket {
        Some(path) => path,
        None => usual()?,
    };
    // A server that is busy with others has its next place free after its own limit.
    let limit = Limits::ADMIN_WAIT.saturating_mul(2);
    let cut =
        |why: &str| Failure::new(format!("no whole answer from the server at {}: {why}", path.display()));
    let mut stream = reach(&path, at.owner).await.map_err(|problem| describe(&problem))?;
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
            Line::Error { message, hint } => {
                let failure = Failure::new(message.escape_debug().to_string());
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

/// The socket in the first usual place that has one.
fn usual() -> Result<PathBuf, Failure> {
    let places = admin_sockets();
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.into_iter().find(|place| place.symlink_metadata().is_ok()).ok_or_else(|| {
        let nowhere = "XDG_RUNTIME_DIR, XDG_STATE_HOME and HOME are not set".to_owned();
        let what = if looked.is_empty() { nowhere } else { format!("nothing is at {}", looked.join(" or ")) };
        Failure::new(format!("no server's admin socket: {what}; and no client of this user is running"))
            .try_this("--socket PATH, the server's --admin-socket; or run this as the server's user")
    })
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
