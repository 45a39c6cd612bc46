//! `bowline cat`: a file of a server to standard output.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bowline::client::{Client, Error, OpenOptions, Peers, PeersError, PeersProblem, Session};
use bowline::model::{ExportPath, NameError, Reason};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;

use super::places::{identity, is_missing, place};
use super::{CatArguments, Failure, unless_closed};

pub(super) async fn run(arguments: CatArguments) -> Result<(), Failure> {
    let source = arguments.source;
    let what = format!("cannot read {}", source.shown());
    let (session, own) = connect(arguments.key, arguments.peers, &source.peer, &what).await?;
    let failure = |error: Error| describe(&error, &what, &source.peer, &own);
    let options = OpenOptions::new().read(true).with_key(false);
    let file = session.open(&source.export, source.path.as_bytes(), &options).await.map_err(failure)?;
    let mut out = tokio::io::stdout();
    let mut bytes = file.read_ahead(0, None);
    let mut is_wanted = true;
    while is_wanted && let Some(chunk) = bytes.next().await.map_err(failure)? {
        is_wanted = unless_closed(out.write_all(&chunk).await)?;
    }
    // Also what was taken before may only now turn out to have gone nowhere.
    unless_closed(out.flush().await)?;
    drop(bytes);
    file.close().await.map_err(failure)?;
    session.close().await;
    Ok(())
}

/// A session with a peer of the list of known ones, and this client's own key; `what` says what fails without.
pub(super) async fn connect(
    key: Option<PathBuf>,
    peers: Option<PathBuf>,
    name: &str,
    what: &str,
) -> Result<(Session, String), Failure> {
    let identity = identity(key)?;
    let peers = place(peers, "peers.toml")?;
    let known = Peers::load(&peers).map_err(|error| describe_peers(&error, &peers))?;
    let peer = known.named(name).ok_or_else(|| {
        Failure::new(format!("no peer \"{}\" in {}", name.escape_debug(), peers.display()))
            .try_this(format!("add a [[peer]] with its name, key and addresses to {}", peers.display()))
    })?;
    let own = identity.public().to_string();
    let client = Client::new(identity).map_err(|error| Failure::of("cannot start", &error))?;
    let session = client.connect(peer).await.map_err(|error| describe(&error, what, name, &own))?;
    Ok((session, own))
}

/// `PEER:EXPORT/PATH`, parsed.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) peer: String,
    pub(super) export: String,
    pub(super) path: ExportPath,
}

/// Why an argument names no file of a server.
#[derive(Debug, Error)]
#[error("{0}; write PEER:EXPORT/PATH, as in store:media/clips/first.mov")]
pub(super) struct SourceError(String);

impl Source {
    pub(super) fn parse(argument: &OsStr) -> Result<Self, SourceError> {
        let wrong = |why: &str| SourceError(why.to_owned());
        let bytes = argument.as_bytes();
        let colon = bytes.iter().position(|&byte| byte == b':').ok_or_else(|| wrong("there is no colon"))?;
        let (peer, rest) = bytes.split_at(colon);
        let rest = rest.get(1..).unwrap_or_default();
        let slash = rest
            .iter()
            .position(|&byte| byte == b'/')
            .ok_or_else(|| wrong("there is no slash behind the export"))?;
        let (export, path) = rest.split_at(slash);
        let text = |bytes: &[u8], what: &str| match String::from_utf8(bytes.to_vec()) {
            Ok(text) if text.is_empty() => Err(SourceError(format!("the {what} is empty"))),
            Ok(text) => Ok(text),
            Err(_) => Err(SourceError(format!("the {what} is no text"))),
        };
        let path =
            ExportPath::new(path.get(1..).unwrap_or_default()).map_err(|error| wrong(&error.to_string()))?;
        if path.is_root() {
            return Err(wrong(&NameError::Empty.to_string()));
        }
        Ok(Self { peer: text(peer, "peer")?, export: text(export, "export")?, path })
    }

    pub(super) fn shown(&self) -> String {
        let path = String::from_utf8_lossy(self.path.as_bytes()).into_owned();
        format!("{}:{}/{}", self.peer, self.export.escape_debug(), path.escape_debug())
    }
}

fn describe_peers(error: &PeersError, file: &Path) -> Failure {
    let failure = Failure::of("cannot use the list of peers", error);
    match &error.problem {
        PeersProblem::Text(problem) if is_missing(problem) => failure.try_this(format!(
            "write a [[peer]] entry with name, key and addresses for each server into {}",
            file.display()
        )),
        _ => failure,
    }
}

/// What a user reads when something with a peer fails: `what` failed, for this client's `own` key.
pub(super) fn describe(error: &Error, what: &str, peer: &str, own: &str) -> Failure {
    let failure = Failure::of(what, error);
    match error {
        Error::HandshakeRefused { .. } => failure.try_this(format!(
            "ask whoever runs \"{}\" for its key, and to list this client's key {own}",
            peer
        )),
        Error::ServerKeyChanged { .. } => failure.try_this(format!(
            "ask whoever runs \"{}\" for its key before anything else is sent there",
            peer
        )),
        Error::Unreachable { .. } | Error::HandshakeTimedOut { .. } => failure.try_this(format!(
            "check that \"{0}\" is running, and the addresses of \"{0}\" in the list of peers",
            peer
        )),
        _ => match error.reason().and_then(|reason| hint(reason, peer)) {
            Some(hint) => failure.try_this(hint),
            None => failure,
        },
    }
}

/// What to try where the server has refused.
fn hint(reason: Reason, peer: &str) -> Option<String> {
    match reason {
        Reason::NotFound => {
            Some("check the path, and that the export is on this client's entry at the server".to_owned())
        }
        Reason::PermissionDenied => Some(format!(
            "ask whoever runs \"{peer}\" for the right to do that, and that the server may read the file"
        )),
        Reason::IsDirectory => Some("name a file in it".to_owned()),
        Reason::Busy => Some("again later: another client keeps the file to itself".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_parse_or_say_what_is_wrong() {
        let source = Source::parse(OsStr::new("store:media/a/b c")).unwrap();
        assert_eq!(source.shown(), "store:media/a/b c");
        for (bad, why) in [
            ("media/a", "no colon"),
            ("store:media", "no slash"),
            (":media/a", "the peer is empty"),
            ("store:/a", "the export is empty"),
            ("store:media/", "the name is empty"),
            ("store:media/../x", "\"..\""),
        ] {
            let error = Source::parse(OsStr::new(bad)).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("write PEER:EXPORT/PATH"), "{error}");
        }
    }
}
