//! What a running client of this user tells: with whom it has sessions, and what each line to them carries.
//!
//! It has a socket as a server has one, named after its process, from its first session to its last. Nothing depends on
//! it: where none can be made, the client goes on without.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline::client::{ChannelState, Peer, Session};
use bowline::model::PublicKey;
use bowline::secure::Identity;
use tokio::task::AbortHandle;

use super::lines::{Line, LineToPeer, PeerChannelLine, PeerSessionLine, ProgramLine};
use super::socket::{AdminSocket, Place};
use super::{Subject, accept_all};
use crate::cli::places::client_sockets;

/// The sessions of this process.
static PRESENCE: Mutex<Presence> =
    Mutex::new(Presence { command: String::new(), own: None, sessions: Vec::new(), next: 0, served: None });

struct Presence {
    command: String,
    own: Option<PublicKey>,
    sessions: Vec<Known>,
    next: u64,
    served: Option<Served>,
}

struct Known {
    number: u64,
    peer: String,
    server: PublicKey,
    session: Session,
}

/// The socket and the task that answers on it.
struct Served {
    _place: Place,
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As long as this lives, `bowline status` shows the session.
#[derive(Debug)]
pub(in crate::cli) struct Shown(u64);

impl Drop for Shown {
    fn drop(&mut self) {
        let mut presence = presence();
        presence.sessions.retain(|known| known.number != self.0);
        if presence.sessions.is_empty() {
            // Its name goes with it, so that nobody asks a process that is ending.
            presence.served = None;
        }
    }
}

/// Says which command this process is.
pub(in crate::cli) fn name(command: &str) {
    command.clone_into(&mut presence().command);
}

/// Shows a session from now on. To be called in a runtime.
pub(in crate::cli) fn show(peer: &Peer, own: &Identity, session: &Session) -> Shown {
    let mut presence = presence();
    let number = presence.next;
    presence.next = number.wrapping_add(1);
    presence.own = Some(own.public());
    let (peer, server, session) = (peer.name.clone(), peer.key, session.clone());
    presence.sessions.push(Known { number, peer, server, session });
    if presence.served.is_none() {
        presence.served = serve();
    }
    Shown(number)
}

fn presence() -> MutexGuard<'static, Presence> {
    // What a thread that panicked has left is whole: each change is one call.
    PRESENCE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers on a socket in the first usual place.
fn serve() -> Option<Served> {
    let folder: PathBuf = client_sockets().into_iter().next()?;
    let path = folder.join(format!("{}.sock", std::process::id()));
    match AdminSocket::make_of_process(&path) {
        Ok(AdminSocket { listener, place }) => {
            let stop = tokio_util::sync::CancellationToken::new();
            let task = tokio::spawn(accept_all(listener, Subject::Client, stop)).abort_handle();
            Some(Served { _place: place, task })
        }
        Err(problem) => {
            tracing::debug!(
                why = bowline::net::with_sources(&problem),
                "nobody can ask this client for its status"
            );
            None
        }
    }
}

/// All that there is to tell.
pub(super) fn lines() -> Vec<Line> {
    let presence = presence();
    let Some(own) = presence.own else { return Vec::new() };
    let process_id = std::process::id();
    let mut lines = vec![Line::Program(ProgramLine {
        process_id,
        command: presence.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key: own.to_string(),
        fingerprint: own.fingerprint(),
        sessions: presence.sessions.len(),
    })];
    for known in &presence.sessions {
        lines.push(Line::PeerSession(PeerSessionLine {
            process_id,
            session: known.session.id().to_string(),
            peer: known.peer.clone(),
            server: known.server.fingerprint(),
        }));
        lines.extend(lines_of(process_id, &known.session));
    }
    lines
}

fn lines_of(process_id: u32, session: &Session) -> Vec<Line> {
    let (id, channels) = (session.id().to_string(), session.channels());
    let mut told = Vec::new();
    for line in session.lines() {
        let of_line = || channels.iter().filter(|channel| channel.line == line.id);
        let in_state = |is_meant: fn(&ChannelState) -> bool| {
            of_line().filter(|channel| is_meant(&channel.state)).count()
        };
        told.push(Line::LineToPeer(LineToPeer {
            process_id,
            session: id.clone(),
            line: line.id.0,
            address: line.config.address.to_string(),
            via: line.config.via.as_ref().map(ToString::to_string),
            role: line.config.role.to_string(),
            live: in_state(|state| matches!(state, ChannelState::Live)),
            lost: in_state(|state| matches!(state, ChannelState::Lost(_))),
            read_bytes: of_line().map(|channel| channel.read_bytes).fold(0, u64::saturating_add),
            written_bytes: of_line().map(|channel| channel.written_bytes).fold(0, u64::saturating_add),
            requests: of_line().map(|channel| channel.requests).fold(0, u64::saturating_add),
            repeats: of_line().map(|channel| channel.repeats).fold(0, u64::saturating_add),
        }));
        for channel in of_line().filter(|channel| !matches!(channel.state, ChannelState::Lost(_))) {
            let state = if channel.state == ChannelState::Live { "live" } else { "connecting" };
            told.push(Line::PeerChannel(PeerChannelLine {
                process_id,
                session: id.clone(),
                line: line.id.0,
                channel: channel.number.0,
                kind: channel.kind.to_string(),
                protection: channel.protection.to_string(),
                state: state.to_owned(),
                read_bytes: channel.read_bytes,
                written_bytes: channel.written_bytes,
                requests: channel.requests,
            }));
        }
    }
    told
}
