//! Files of servers as arguments name them, and the sessions through which commands reach them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::client::{Client, Error, Peer, Peers, PeersError, PeersProblem, Session};
use bowline::model::{ExportPath, NameError, PublicKey, Reason};
use bowline::secure::Identity;
use thiserror::Error;

use super::admin::{self, Shown};
use super::arguments::ClientArguments;
use super::failure::{Code, Failure};
use super::lines::{Interfaces, with_vias};
use super::output::{clean, clean_bytes};
use super::places::{identity, is_missing, place};

/// `PEER:EXPORT/PATH`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) peer: String,
    pub(super) export: String,
    pub(super) path: ExportPath,
    /// It was written with a slash at its end: it is a directory, or else a mistake.
    pub(super) is_directory: bool,
}

/// Why an argument names no file of a server.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}; write PEER:EXPORT/PATH, as in store:media/clips/first.mov")]
pub(super) struct RemoteError(String);

impl Remote {
    /// A file or a directory, the export's own included: `store:media/` and `store:media` are one.
    pub(super) fn parse(argument: &OsStr) -> Result<Self, RemoteError> {
        let wrong = |why: &str| RemoteError(why.to_owned());
        let bytes = argument.as_bytes();
        let colon = bytes.iter().position(|&byte| byte == b':').ok_or_else(|| wrong("there is no colon"))?;
        let (peer, rest) = bytes.split_at(colon);
        let rest = rest.get(1..).unwrap_or_default();
        let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (export, path) = rest.split_at(slash);
        let text = |bytes: &[u8], what: &str| match String::from_utf8(bytes.to_vec()) {
            Ok(text) if text.is_empty() => Err(RemoteError(format!("the {what} is empty"))),
            Ok(text) => Ok(text),
            Err(_) => Err(RemoteError(format!("the {what} is no text"))),
        };
        let path = path.get(1..).unwrap_or_default();
        // A slash at the end says "directory", as it does elsewhere.
        let (path, is_directory) = path.strip_suffix(b"/").map_or((path, false), |path| (path, true));
        let path = ExportPath::new(path).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { peer: text(peer, "peer")?, export: text(export, "export")?, path, is_directory })
    }

    /// A file in an export, not the export itself.
    pub(super) fn parse_file(argument: &OsStr) -> Result<Self, RemoteError> {
        let remote = Self::parse(argument)?;
        if remote.path.is_root() {
            return Err(RemoteError(NameError::Empty.to_string()));
        }
        Ok(remote)
    }

    /// Whether an argument names a file of a server: it has a colon before its first slash. `./a:b` is a local file.
    pub(super) fn is_meant(argument: &OsStr) -> bool {
        let before_slash = argument.as_bytes().split(|&byte| byte == b'/').next().unwrap_or_default();
        before_slash.contains(&b':')
    }

    /// How people read it.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}/{}", clean(&self.peer), clean(&self.export), clean_bytes(self.path.as_bytes()))
    }

    /// The same place of the server, another path.
    pub(super) fn at(&self, path: ExportPath) -> Self {
        Self { path, is_directory: false, ..self.clone() }
    }
}

/// A session with a known server.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) peer: Peer,
    own: Arc<Identity>,
    _shown: Shown,
}

/// Connects to a peer of the list of known ones; `what` says what fails without.
pub(super) async fn connect(
    arguments: &ClientArguments,
    name: &str,
    what: &str,
) -> Result<Connected, Failure> {
    let (peer, own) = known_peer(arguments, name)?;
    let client = Client::new(Arc::clone(&own)).map_err(|error| Failure::of("cannot start", &error))?;
    match client.connect(&peer).await {
        Ok(session) => {
            let shown = admin::show(&peer, &own, &session);
            Ok(Connected { session, peer, own, _shown: shown })
        }
        Err(error) => Err(describe(what, &error, &peer, &own)),
    }
}

/// A peer of the list of known ones, over the lines that the arguments ask for, and this client's identity.
pub(super) fn known_peer(arguments: &ClientArguments, name: &str) -> Result<(Peer, Arc<Identity>), Failure> {
    let own = identity(arguments.key.clone())?;
    let file = place(arguments.peers.clone(), "peers.toml")?;
    let known = Peers::load(&file).map_err(|error| describe_peers(&error, &file))?;
    let peer = known.named(name).ok_or_else(|| unknown_peer(name, &known, &file))?;
    let lines = arguments.lines.clone().or_settings()?;
    Ok((with_vias(peer, &lines, &Interfaces::of_system)?, own))
}

/// A peer that nobody has heard of.
pub(super) fn unknown_peer(name: &str, known: &Peers, file: &Path) -> Failure {
    let names: Vec<&str> = known.iter().map(|peer| peer.name.as_str()).collect();
    let why = match &names[..] {
        [] => format!("{} names no peer", file.display()),
        names => format!("{} names {}", file.display(), names.join(", ")),
    };
    let failure = Failure::coded(Code::UnknownPeer, format!("there is no peer \"{name}\"")).because(why);
    failure.try_this(format!("bowline peer trust HOST --name {}", clean(name)))
}

impl Connected {
    /// The key that this client is known by.
    pub(super) fn own_key(&self) -> PublicKey {
        self.own.public()
    }

    /// What a user reads when `what` fails at this place of the server.
    pub(super) fn failure_at(&self, place: &Remote, what: &str, error: &Error) -> Failure {
        let failure = self.failure(what, error);
        match error.reason() {
            Some(Reason::NotFound) if place.path.is_root() => failure.try_this(format!(
                "ask whoever runs \"{}\" for the exports that are on its list for this client",
                place.peer
            )),
            Some(Reason::NotFound) => failure.try_this(format!(
                "bowline ls {}:{}/, to see what is there",
                clean(&place.peer),
                clean(&place.export)
            )),
            _ => failure,
        }
    }

    /// What a user reads when `what` fails with this error.
    pub(super) fn failure(&self, what: &str, error: &Error) -> Failure {
        describe(what, error, &self.peer, &self.own)
    }
}

/// What a user reads if the list of peers cannot be used.
pub(super) fn describe_peers(error: &PeersError, file: &Path) -> Failure {
    let failure = Failure::of("cannot use the list of peers", error);
    match &error.problem {
        PeersProblem::Text(problem) if is_missing(problem) => {
            let first = Failure::coded(Code::UnknownPeer, "no server is known yet");
            first
                .because(format!("{} does not exist", file.display()))
                .try_this("bowline peer trust HOST, with the address or name of the server")
        }
        _ => failure.code(Code::Settings),
    }
}

/// What a user reads when `what` fails between this client and a peer.
pub(super) fn describe(what: &str, error: &Error, peer: &Peer, own: &Identity) -> Failure {
    let first = peer.lines.first().map(|line| line.address);
    Ends { name: &peer.name, first, own: Some(own.public()), is_known: true }.describe(what, error)
}

/// The two machines between which something failed.
pub(super) struct Ends<'a> {
    /// What the server is called.
    pub(super) name: &'a str,
    /// Its first address, for errors that name none.
    pub(super) first: Option<SocketAddr>,
    /// This client's key, if it has one.
    pub(super) own: Option<PublicKey>,
    /// Whether the server is on the list of peers, where commands find it.
    pub(super) is_known: bool,
}

impl Ends<'_> {
    /// The two machines, as a message names them.
    fn between(&self, address: Option<&SocketAddr>) -> String {
        let address =
            address.or(self.first.as_ref()).map(|address| format!(" ({address})")).unwrap_or_default();
        let host = rustix::system::uname();
        let host = clean(&host.nodename().to_string_lossy());
        let key = self.own.map_or_else(|| "no key".to_owned(), |own| format!("key {}", own.fingerprint()));
        format!("server \"{}\"{address}, client {host} ({key})", self.name)
    }

    /// How to find out whether the server can be reached by now.
    fn again(&self) -> String {
        if self.is_known {
            format!("bowline ping {}", self.name)
        } else {
            "the same command again".to_owned()
        }
    }

    /// What a user reads when `what` fails: the root cause first, then between whom.
    pub(super) fn describe(&self, what: &str, error: &Error) -> Failure {
        let why = bowline::net::with_sources(error);
        let failure = |code: Code, address: Option<&SocketAddr>| {
            Failure::coded(code, what).because(format!("{why}; {}", self.between(address)))
        };
        let name = self.name;
        match error {
            Error::HandshakeRefused { address, own, .. } => failure(Code::WrongKey, Some(address)).try_this(format!(
                "on the server: bowline key show, and compare; then bowline client add NAME {own} EXPORT"
            )),
            Error::ServerKeyChanged { address, .. } => failure(Code::WrongKey, Some(address)).try_this(format!(
                "ask whoever runs \"{name}\" for its key; if it is new on purpose: bowline peer trust {address} --name {name} --replace"
            )),
            Error::KeyNotShown { address } => failure(Code::Identity, Some(address)).try_this(format!(
                "ask whoever runs it for its key, then: bowline peer trust {address} --name {name} --yes KEY"
            )),
            Error::StaleServer { address, .. } => failure(Code::StaleServer, Some(address))
                .try_this("stop this server: another one has taken its data store over"),
            Error::Unreachable { address, source, .. } => self.unreachable(failure, *address, source),
            Error::HandshakeTimedOut { address, .. } => {
                failure(Code::TimedOut, Some(address)).try_this(self.again())
            }
            Error::TimedOut(_) => failure(Code::TimedOut, None).try_this(self.again()),
            Error::SessionEnded(_) => failure(Code::SessionEnded, None)
                .try_this(format!("ask whoever runs \"{name}\" whether this client is still on its list")),
            Error::NoControlLine(_) => failure(Code::Settings, None)
                .try_this("--via or --keys-via with an interface that keys may pass"),
            Error::StateLost | Error::NotResumable => failure(Code::StateLost, None)
                .try_this("the same command again: it opens the file anew"),
            Error::LostWrites { .. } => failure(Code::LostWrites, None)
                .data("the bytes named above were acknowledged and are lost; all others are there")
                .try_this("write them again"),
            Error::OtherVersion { address, theirs, ours } => failure(Code::Version, Some(address)).try_this(
                match theirs > ours {
                    true => format!("bowline --version here, and a newer bowline on this machine: \"{name}\" has one"),
                    false => format!("bowline --version on \"{name}\", and a newer bowline there: this machine has one"),
                },
            ),
            Error::Protocol => failure(Code::Version, None)
                .try_this("the same version of bowline on both machines: bowline --version"),
            _ => match error.reason() {
                Some(reason) => {
                    let (code, hint) = of_reason(reason, error, name);
                    let failure = failure(code, None);
                    match hint {
                        Some(hint) => failure.try_this(hint),
                        None => failure,
                    }
                }
                None => failure(Code::Other, None),
            },
        }
    }

    fn unreachable(
        &self,
        failure: impl Fn(Code, Option<&SocketAddr>) -> Failure,
        address: SocketAddr,
        source: &std::io::Error,
    ) -> Failure {
        let port = address.port();
        match source.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                failure(Code::PortClosed, Some(&address)).try_this(format!(
                    "on the server: bowline serve ... --listen {}:{port}; then {}",
                    match address {
                        SocketAddr::V4(address) => address.ip().to_string(),
                        SocketAddr::V6(address) => format!("[{}]", address.ip()),
                    },
                    self.again()
                ))
            }
            std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::NotFound => {
                failure(Code::InterfaceMissing, Some(&address))
                    .try_this("ip -br address, and an interface or address of this machine for --via")
            }
            _ => {
                // A device that is bound to and is not there.
                let is_no_device = source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error());
                if is_no_device {
                    return failure(Code::InterfaceMissing, Some(&address))
                        .try_this("ip -br link, and an interface of this machine for --via");
                }
                failure(Code::Unreachable, Some(&address)).try_this(self.again())
            }
        }
    }
}

/// The code of a refusal, and what to try.
fn of_reason(reason: Reason, error: &Error, peer: &str) -> (Code, Option<String>) {
    let later = || {
        let wait =
            error.retry_after().map(|wait| format!(" in {} s", wait.as_millis().div_ceil(1000).max(1)));
        format!("again{}; on the server, bowline status shows who has it", wait.unwrap_or_default())
    };
    let ask = |what: &str| Some(format!("ask whoever runs \"{peer}\" {what}"));
    match reason {
        Reason::NotFound => {
            (Code::NotFound, Some(format!("bowline ls {peer}:EXPORT/, to see what is there")))
        }
        Reason::PermissionDenied => {
            (Code::Permission, ask("for the right to do that, and that the server may use the file"))
        }
        Reason::Outside | Reason::NotRegular => (Code::Permission, None),
        Reason::ReadOnly => (Code::ReadOnly, None),
        Reason::Busy => (Code::ShareViolation, Some(later())),
        Reason::Locked => (Code::LockConflict, Some(later())),
        Reason::Exists => (Code::Exists, Some("another name, or bowline rm first".to_owned())),
        Reason::NotEmpty => (Code::Exists, Some("bowline rm -r, if all that is in it is to go".to_owned())),
        Reason::NoSpace | Reason::Quota => (Code::NoSpace, ask("for room; what was there is untouched")),
        Reason::ResumeRefused => (Code::ResumeRefused, Some("bowline resume --list".to_owned())),
        Reason::Expired => (Code::ResumeExpired, Some("open the file anew".to_owned())),
        Reason::TakenOver => (Code::TakenOver, Some("look at the file, then open it anew".to_owned())),
        Reason::Released | Reason::Revoked => (Code::ResumeRefused, ask("why it was ended")),
        Reason::Unsupported => (
            Code::Version,
            Some("the same version of bowline on both machines: bowline --version".to_owned()),
        ),
        Reason::IsDirectory => (Code::Other, Some("name a file in it, or use -r".to_owned())),
        Reason::Stale => (Code::Changed, Some("the same command again".to_owned())),
        _ => (Code::Other, None),
    }
}

/// A local path as messages show it.
pub(super) fn local(path: &Path) -> String {
    clean_bytes(path.as_os_str().as_bytes())
}

/// A file of a server, or one of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Remote(Remote),
    Local(PathBuf),
}

impl Place {
    /// What an argument of `bowline cp` names.
    pub(super) fn parse(argument: &OsStr) -> Result<Self, RemoteError> {
        if Remote::is_meant(argument) {
            return Remote::parse(argument).map(Self::Remote);
        }
        if argument.is_empty() {
            return Err(RemoteError("the path is empty".to_owned()));
        }
        Ok(Self::Local(argument.into()))
    }

    /// Whether it was written with a slash at its end: it is a directory, or else a mistake.
    pub(super) fn is_meant_as_directory(&self) -> bool {
        match self {
            Self::Remote(remote) => remote.is_directory,
            Self::Local(path) => path.as_os_str().as_bytes().ends_with(b"/"),
        }
    }

    /// How people read it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Remote(remote) => remote.shown(),
            Self::Local(path) => local(path),
        }
    }
}

#[cfg(test)]
mod tests;
