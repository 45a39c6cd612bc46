//! `bowline grant` and `bowline accept`: an open file in two hands.

use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use bowline::client::{
    Error, File, GrantOptions, HandleLoss, OpenOptions, Session, SessionEvent, SessionLoss,
};
use bowline::model::{HandleId, LineSet, PublicKey, Reason, ResumeKey, Rights};
use bowline::net::Clock;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use zeroize::Zeroizing;

use super::arguments::{AcceptArguments, GrantArguments};
use super::beside::Unfinished;
use super::failure::{Code, Failure};
use super::output::{line, say, show, show_bytes, style, unless_closed};
use super::remote::{Remote, connect, local};

/// Longer than any text of a key with what an editor adds to it.
const KEY_TEXT_MAX: u64 = 4096;
/// How long a grant that is to end waits for the server to hear of it. Lines that are down may stay so.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn grant(arguments: GrantArguments) -> Result<(), Failure> {
    let GrantArguments { source, to, rights, lasts, deliver, gives_up, client } = arguments;
    let what = format!("cannot grant {}", source.shown());
    let connected = connect(&client, &source.peer, &what).await?;
    let (session, failure) =
        (&connected.session, |error: Error| connected.failure_at(&source, &what, &error));
    let rights = rights.into_iter().fold(Rights::NONE, Rights::union);
    let options = OpenOptions::new()
        .read(rights.contains(Rights::READ))
        .write(rights.contains(Rights::WRITE))
        .append(rights.contains(Rights::APPEND) && !rights.contains(Rights::WRITE))
        .with_key(false);
    let mut events = session.events();
    let file = session.open(&source.export, source.path.as_bytes(), &options).await.map_err(failure)?;
    let granted =
        file.grant(&to, GrantOptions { rights, lasts, deliver, gives_up }).await.map_err(failure)?;
    show_granted(&source, &to, rights, granted.key.as_ref())?;
    // Before anybody hears that they may be sent.
    let mut signals = Signals::new()?;
    say("the file stays open, and the grant good, until this ends (Ctrl-C)\n");
    let over = format!("the grant of {} is over", source.shown());
    let handle = file.handle();
    tokio::select! {
        ended = ended(&mut events, handle) => match ended {
            error if error.reason() == Some(Reason::TakenOver) => {
                say("the other client has the file now\n");
                file.leave_open();
            }
            error => return Err(connected.failure(&over, &error)),
        },
        () = stopped(&mut signals) => {
            say("closing the file; a second signal ends this at once\n");
            tokio::select! {
                closed = Clock.timeout(CLOSE_LIMIT, file.close()) => match closed {
                    Some(closed) => closed.map_err(failure)?,
                    None => return Err(unheard(&over)),
                },
                status = signals.end() => std::process::exit(status),
            }
        }
    }
    connected.session.close().await;
    Ok(())
}

/// A grant as an object; the key is what this command is there to print.
#[derive(Serialize)]
struct Granted<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    path: String,
    to: String,
    rights: String,
    /// None, where the server delivers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

fn show_granted(
    source: &Remote,
    to: &PublicKey,
    rights: Rights,
    key: Option<&ResumeKey>,
) -> Result<(), Failure> {
    let text = key.map(ResumeKey::to_text);
    let key = text.as_ref().map(|text| text.as_str());
    if style().json {
        let (path, to, rights) = (source.shown(), to.to_string(), rights.to_string());
        // Room for all of it, so that no half of the key is left behind where it was before it was moved.
        let mut line = Zeroizing::new(Vec::with_capacity(path.len().saturating_mul(6).saturating_add(1024)));
        serde_json::to_writer(&mut *line, &Granted { kind: "granted", path, to, rights, key })
            .map_err(|error| Failure::of("cannot print the grant", &error))?;
        line.push(b'\n');
        return show_bytes(&line);
    }
    match key {
        Some(key) => show(&Zeroizing::new(format!("{key}\n"))),
        None => {
            say("the server tells the other client: bowline accept --wait\n");
            Ok(())
        }
    }
}

/// Waits until the handle is no good any more, and tells why.
async fn ended(events: &mut Receiver<SessionEvent>, handle: HandleId) -> Error {
    loop {
        match events.recv().await {
            Ok(SessionEvent::HandleEnded { handle: ended, refusal }) if ended == handle => {
                return Error::Refused(refusal);
            }
            // The open had no key with which to be had again in another session.
            Ok(SessionEvent::ResumeFailed { handle: lost, loss }) if lost == handle => {
                return match loss {
                    HandleLoss::Refused(refusal) => Error::Refused(refusal),
                    HandleLoss::NoKey => Error::NotResumable,
                    _ => Error::StateLost,
                };
            }
            Ok(SessionEvent::Ended(loss)) => return Error::SessionEnded(loss),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Error::SessionEnded(SessionLoss::Closed),
        }
    }
}

/// The server has not heard that the file is to be closed.
fn unheard(over: &str) -> Failure {
    Failure::coded(Code::TimedOut, over)
        .because(format!("the server has not answered within {CLOSE_LIMIT:?}"))
        .data("the server closes the file, and ends the grant, when it has missed this client for its grace")
        .try_this("on the server: bowline status, and bowline release with the open's id")
}

pub(super) async fn accept(arguments: AcceptArguments) -> Result<(), Failure> {
    let AcceptArguments { peer, key_file, wait, output, client } = arguments;
    let what = format!("cannot accept a file from {}", peer.escape_debug());
    if output.is_none() && style().json {
        return Err(Failure::coded(Code::Settings, "what a file holds is no JSON")
            .try_this("--output FILE, or no --json"));
    }
    // Before the server is asked for anything: what is no key need not reach it.
    let given = if wait { None } else { Some(read_key(key_file.as_deref())?) };
    let connected = connect(&client, &peer, &what).await?;
    let (session, failure) = (&connected.session, |error: Error| connected.failure(&what, &error));
    let resume_key = match given {
        Some(given) => given,
        None => offered(session).await?.map_err(failure)?,
    };
    let file = session.resume(&resume_key, LineSet::ALL).await.map_err(failure)?;
    let state = file.state();
    say(&format!("an open file of {} bytes, with the rights {}\n", state.attributes.len, state.rights));
    if state.rights.contains(Rights::READ) {
        match &output {
            Some(path) => {
                let cannot = |error| Failure::of(&format!("cannot write {}", path.display()), &error);
                let kept = || format!("{} is as it was: only what is complete has its name", path.display());
                let mut out = Unfinished::beside(path).await.map_err(cannot)?;
                let written = |outcome: io::Result<()>| outcome.map(|()| true).map_err(cannot);
                let copied = copy(&file, &mut out.file, failure, written).await;
                copied.map_err(|failure| failure.data(kept()))?;
                out.finish().await.map_err(|error| cannot(error).data(kept()))?;
            }
            None => copy(&file, tokio::io::stdout(), failure, unless_closed).await?,
        }
    }
    file.close().await.map_err(failure)?;
    if style().json {
        let rights = state.rights;
        let output = output.filter(|_| rights.contains(Rights::READ)).map(|path| local(&path));
        show(&line(&Accepted {
            kind: "accepted",
            len: state.attributes.len,
            rights: rights.to_string(),
            output,
        }))?;
    }
    connected.session.close().await;
    Ok(())
}

/// What was accepted, as an object.
#[derive(Serialize)]
struct Accepted {
    #[serde(rename = "type")]
    kind: &'static str,
    len: u64,
    rights: String,
    /// The file that has the content now; none, if the grant lets nobody read.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

/// Waits for a grant that the server delivers, and gets its key.
async fn offered(session: &Session) -> Result<Result<ResumeKey, Error>, Failure> {
    let mut events = session.events();
    loop {
        if let Some(offer) = session.offers().pop() {
            let path = String::from_utf8_lossy(offer.path.as_bytes()).into_owned();
            say(&format!("{} of {}, from {}\n", path.escape_debug(), offer.export, offer.from));
            return Ok(session.take_grant(offer.grant).await);
        }
        match events.recv().await {
            Ok(SessionEvent::Ended(loss)) => return Ok(Err(Error::SessionEnded(loss))),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err(Failure::new("the session is over")),
        }
    }
}

/// The key in a file or in standard input. It is no argument, because every user of the machine can read those.
fn read_key(file: Option<&Path>) -> Result<ResumeKey, Failure> {
    let named = file.filter(|path| *path != Path::new("-"));
    let place = named.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let mut text = Zeroizing::new(String::new());
    let read = match named {
        Some(path) => {
            std::fs::File::open(path).and_then(|file| file.take(KEY_TEXT_MAX).read_to_string(&mut text))
        }
        None => io::stdin().take(KEY_TEXT_MAX).read_to_string(&mut text),
    };
    read.map_err(|error| Failure::of(&format!("cannot read {place}"), &error))?;
    text.trim().parse().map_err(|error| {
        Failure::of(&format!("{place} holds no key"), &error).try_this("what `bowline grant` has printed")
    })
}

/// Writes all of a file to `out`, as long as `written` says of what was written that more is wanted.
async fn copy(
    file: &File,
    mut out: impl AsyncWrite + Unpin,
    failure: impl Fn(Error) -> Failure,
    written: impl Fn(io::Result<()>) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut bytes = file.read_ahead(0, None);
    let mut is_wanted = true;
    while is_wanted && let Some(chunk) = bytes.next().await.map_err(&failure)? {
        is_wanted = written(out.write_all(&chunk).await)?;
    }
    written(out.flush().await).map(drop)
}

/// The signals that end a grant in good order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::of("cannot listen for signals", &error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them, and tells with which number it is said that it ended the process.
    async fn end(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => 128 + SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// Waits until somebody wants this to end.
async fn stopped(signals: &mut Signals) {
    let closed = async {
        let mut stdin = tokio::io::stdin();
        let mut ignored = [0; 64];
        while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        _ = signals.end() => {}
        () = closed => {}
    }
}

/// A right, by its name.
pub(super) fn right(text: &str) -> Result<Rights, String> {
    Rights::from_name(text).ok_or_else(|| "use read, write, append, lock and grant".to_owned())
}

/// A time, as in 90s, 30m, 8h or 7d.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and s, m, h or d, as in 30m".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let span = number.checked_mul(seconds).filter(|span| (1..=u64::from(u32::MAX)).contains(span));
    span.map(Duration::from_secs).ok_or_else(|| "from 1s to 49710d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_bounds() {
        for (text, seconds) in [("1s", 1), ("30m", 1800), ("8h", 28_800), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "30", "0s", "-1s", "1w", "1ss", "99999999999999999999d", "49711d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_and_what_is_none_is_not_shown() {
        let key = ResumeKey {
            file_id: bowline::model::OpenId(1),
            time_stamp_us: 2,
            process_id: 3,
            generation: 4,
            secret: *b"sixteen secrets!",
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{}\n", key.to_text().as_str())).unwrap();
        assert_eq!(read_key(Some(&path)).unwrap(), key);
        std::fs::write(&path, "bowline-resume-1-notakey").unwrap();
        let failure = read_key(Some(&path)).unwrap_err();
        assert!(
            !failure.text().contains("notakey") && failure.what.contains("holds no key"),
            "{}",
            failure.text()
        );
    }
}
