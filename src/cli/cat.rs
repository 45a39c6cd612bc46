//! `bowline cat`: a file of a server to standard output.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;

use bowline::client::{Client, Error, OpenOptions, Peers};
use bowline::model::{ExportPath, Reason};
use tokio::io::AsyncWriteExt as _;

use super::places::{identity, place};
use super::{CatArguments, Failure};

pub(super) async fn run(arguments: CatArguments) -> Result<(), Failure> {
    let source = Source::parse(&arguments.source)?;
    let identity = identity(arguments.key)?;
    let peers = place(arguments.peers, "peers.toml")?;
    let known = Peers::load(&peers).map_err(|error| Failure::of("cannot use the list of peers", &error))?;
    let peer = known.named(&source.peer).ok_or_else(|| {
        Failure::new(format!("no peer \"{}\" in {}", source.peer.escape_debug(), peers.display()))
            .try_this(format!("add a [[peer]] with its name, key and addresses to {}", peers.display()))
    })?;
    let own = identity.public();
    let failure = |error: Error| describe(&error, &source, &own.to_string());
    let client = Client::new(identity).map_err(|error| Failure::of("cannot start", &error))?;
    let session = client.connect(peer).await.map_err(failure)?;
    let options = OpenOptions::new().read(true).with_key(false);
    let file = session.open(&source.export, source.path.as_bytes(), &options).await.map_err(failure)?;
    let mut out = tokio::io::stdout();
    let mut bytes = file.read_ahead(0, None);
    while let Some(chunk) = bytes.next().await.map_err(failure)? {
        match out.write_all(&chunk).await {
            Ok(()) => {}
            // Whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::of("cannot write to standard output", &error)),
        }
    }
    out.flush().await.map_err(|error| Failure::of("cannot write to standard output", &error))?;
    drop(bytes);
    file.close().await.map_err(failure)?;
    session.close().await;
    Ok(())
}

/// `PEER:EXPORT/PATH`, parsed.
#[derive(Debug)]
struct Source {
    peer: String,
    export: String,
    path: ExportPath,
}

impl Source {
    fn parse(argument: &OsStr) -> Result<Self, Failure> {
        let shown = argument.to_string_lossy().escape_debug().to_string();
        let wrong = |why: &str| {
            Failure::new(format!("\"{shown}\" names no remote file: {why}"))
                .try_this("PEER:EXPORT/PATH, as in store:media/clips/first.mov")
        };
        let bytes = argument.as_bytes();
        let colon = bytes.iter().position(|&byte| byte == b':').ok_or_else(|| wrong("it has no colon"))?;
        let (peer, rest) = bytes.split_at(colon);
        let rest = rest.get(1..).unwrap_or_default();
        let slash = rest
            .iter()
            .position(|&byte| byte == b'/')
            .ok_or_else(|| wrong("there is no slash behind the export"))?;
        let (export, path) = rest.split_at(slash);
        let text = |bytes: &[u8], what: &str| {
            String::from_utf8(bytes.to_vec()).map_err(|_| wrong(&format!("the {what} is no text")))
        };
        let path =
            ExportPath::new(path.get(1..).unwrap_or_default()).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { peer: text(peer, "peer")?, export: text(export, "export")?, path })
    }

    fn shown(&self) -> String {
        let path = String::from_utf8_lossy(self.path.as_bytes()).into_owned();
        format!("{}:{}/{}", self.peer, self.export, path.escape_debug())
    }
}

fn describe(error: &Error, source: &Source, own: &str) -> Failure {
    let failure = Failure::of(&format!("cannot read {}", source.shown()), error);
    match error {
        Error::HandshakeRefused { .. } => failure.try_this(format!(
            "ask whoever runs \"{}\" for its key, and to list this client's key {own}",
            source.peer
        )),
        Error::Unreachable { .. } => {
            failure.try_this(format!("check the addresses of \"{}\" in the list of peers", source.peer))
        }
        _ if error.reason() == Some(Reason::NotFound) => {
            failure.try_this("check the path, and that the export is on this client's entry at the server")
        }
        _ => failure,
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
            ("store:media/", "empty"),
            ("store:media/../x", "\"..\""),
        ] {
            let failure = Source::parse(OsStr::new(bad)).unwrap_err();
            assert!(failure.what.contains(why), "{}", failure.what);
            assert!(failure.hint.is_some());
        }
    }
}
