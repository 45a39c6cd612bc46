//! Pinning a server: what the list of peers says of it already, and the one change that adds what is missing.
//!
//! The file is the user's. What stands in it stays, byte for byte, comments included; an edit is made where the parser
//! says that a value is, and counts only if the edited text then says exactly what was meant. What cannot be edited so
//! is not guessed at: the error says what to write.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Spanned;

use super::{File, LineConfig, Peer, Peers, PeersError, PeersProblem};
use crate::model::{LineRole, PublicKey, len_u64};
use crate::net::KeyFileError;
use crate::net::replace::Replacement;
use crate::net::settings::{LEN_MAX, TextProblem, from_toml, is_plain_name, load, with_entry, without_entry};

/// A server to be pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// What the user calls it.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// Where it was reached.
    pub address: SocketAddr,
}

/// What a list of peers says of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing.
    New,
    /// Its key is pinned.
    Pinned {
        /// The peer of this key, perhaps under another name.
        peer: Peer,
        /// Whether its address is one of the peer's lines.
        has_line: bool,
    },
    /// A peer of this name or at this address has another key.
    Changed {
        /// The peer, with the key that is pinned.
        peer: Peer,
    },
}

/// What was done to a list of peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pinned {
    /// Nothing: it said so already.
    AsBefore,
    /// The server has an entry now.
    Added,
    /// The entry has a line more.
    LineAdded,
    /// Nothing: its key is pinned, and only the user can say what the new line may carry or where it stands.
    LineLeft,
    /// The entry has another key.
    Replaced,
}

/// Why a server was not pinned. The file is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PinError {
    /// The file is no list of peers.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The name cannot stand in commands.
    #[error("{0:?} is no peer's name: use 1 to 64 of a-z A-Z 0-9 . _ -")]
    Name(String),
    /// Another key is pinned than the one to be replaced.
    #[error("the server's key has changed: \"{}\" is pinned with another one, {}", peer.name, peer.key)]
    Changed {
        /// The peer, with the key that is pinned.
        peer: Box<Peer>,
    },
    /// The file cannot be edited without guessing.
    #[error("{} cannot be edited safely", file.display())]
    Uneditable {
        /// The list of peers.
        file: PathBuf,
        /// What to write into it by hand.
        write: String,
    },
    /// The folder of the file cannot be used.
    #[error(transparent)]
    Folder(#[from] KeyFileError),
    /// The file cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The list of peers.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A peer's name made of the name or the address of a host.
#[must_use]
pub fn peer_name(host: &str) -> String {
    let plain = |letter: char| if is_plain_name(&letter.to_string()) { letter } else { '-' };
    let name: String = host.trim_end_matches('.').chars().map(plain).take(64).collect();
    // "::1" and the like: a name that begins so looks like an option.
    match name.trim_matches('-') {
        "" => "peer".to_owned(),
        name => name.to_owned(),
    }
}

impl Peers {
    /// The servers that the file `path` names; a file that is not there names none.
    ///
    /// # Errors
    /// As [`Peers::load`].
    pub fn load_or_none(path: &Path) -> Result<Self, PeersError> {
        Ok(load_text(path)?.1)
    }
}

impl Pin {
    /// What `peers` says of this server. A name that is taken by another key says more than an address where the right
    /// one is pinned.
    #[must_use]
    pub fn standing(&self, peers: &Peers) -> Standing {
        let same = peers.iter().find(|peer| peer.key == self.key);
        let has_line = |peer: &Peer| peer.lines.iter().any(|line| line.address == self.address);
        let others = || peers.iter().filter(|peer| peer.key != self.key);
        let changed = |peer: &Peer| Standing::Changed { peer: peer.clone() };
        if let Some(other) = others().find(|peer| peer.name == self.name) {
            return changed(other);
        }
        match (same, others().find(|peer| has_line(peer))) {
            (Some(peer), _) if has_line(peer) => Standing::Pinned { peer: peer.clone(), has_line: true },
            (_, Some(other)) => changed(other),
            (Some(peer), None) => Standing::Pinned { peer: peer.clone(), has_line: false },
            (None, None) => Standing::New,
        }
    }

    /// The entry of this server, as it is written into a list of peers.
    #[must_use]
    pub fn entry(&self) -> String {
        let Self { name, key, address } = self;
        format!("[[peer]]\nname = \"{name}\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n")
    }

    /// Makes the file `path` say that this server is known: adds an entry, or a line to the one it has. With
    /// `replaced`, the key that the user has given up, that key is replaced; no other one is.
    ///
    /// The file and its folders are made if they are missing, for their owner alone; the file is replaced as a whole.
    ///
    /// # Errors
    /// [`PinError`], and nothing was changed.
    pub fn write(&self, path: &Path, replaced: Option<&PublicKey>) -> Result<Pinned, PinError> {
        if !is_plain_name(&self.name) {
            return Err(PinError::Name(self.name.clone()));
        }
        let replacement = Replacement::begin(path)?;
        // Where it is now: a link that moves meanwhile leads elsewhere.
        let (text, peers) = load_text(replacement.path())?;
        let (edited, meant, pinned) = match self.standing(&peers) {
            Standing::Pinned { has_line: true, .. } => return Ok(Pinned::AsBefore),
            Standing::New => self.with_entry(&text, peers),
            Standing::Pinned { peer, .. } => self.with_line(&text, peers, &peer),
            Standing::Changed { peer } if replaced == Some(&peer.key) => self.with_key(&text, peers, &peer),
            Standing::Changed { peer } => return Err(PinError::Changed { peer: Box::new(peer) }),
        };
        // Whatever the file's form is: an edit that says anything else than what is meant is none.
        let is_meant = |text: &String| {
            len_u64(text.len()) <= LEN_MAX && Peers::parse(text).is_ok_and(|said| said == meant)
        };
        let Some(edited) = edited.filter(is_meant) else {
            let write = match pinned {
                Pinned::LineAdded => return Ok(Pinned::LineLeft),
                Pinned::Replaced => format!("key = \"{}\" in the entry", self.key),
                _ => self.entry().trim_end().replace('\n', ", "),
            };
            return Err(PinError::Uneditable { file: path.to_owned(), write });
        };
        let file = replacement.path().to_owned();
        replacement.finish(&edited).map_err(|source| PinError::Write { file, source })?;
        Ok(pinned)
    }

    fn with_entry(&self, text: &str, mut peers: Peers) -> (Option<String>, Peers, Pinned) {
        let edited = with_entry(text, &self.entry());
        peers.peers.push(Peer {
            name: self.name.clone(),
            key: self.key,
            protection_min: None,
            lines: vec![LineConfig::new(self.address)],
        });
        (Some(edited), peers, Pinned::Added)
    }

    /// A plain address is a line for everything: where lines have roles, only the user can say which one it has.
    fn with_line(&self, text: &str, mut peers: Peers, peer: &Peer) -> (Option<String>, Peers, Pinned) {
        let has_roles = peer.lines.iter().any(|line| line.role != LineRole::Both);
        let edited = entry_of(text, &peer.name).filter(|_| !has_roles).and_then(|entry| {
            let list = entry.addresses?;
            let (at, gap) = match list.get_ref().last() {
                Some(last) => (last.span().end, ", "),
                None => (list.span().start.checked_add(1)?, ""),
            };
            insert(text, at, &format!("{gap}\"{}\"", self.address))
        });
        // Plain addresses come before the lines that are described and stand nowhere else.
        let said = edited.as_deref().and_then(|text| Peers::parse(text).ok());
        let lines = said.and_then(|said| said.named(&peer.name).map(|peer| peer.lines.clone()));
        if let Some(meant) = peers.peers.iter_mut().find(|other| other.name == peer.name) {
            meant.lines =
                lines.filter(|lines| is_one_more(&peer.lines, lines, self.address)).unwrap_or_default();
        }
        (edited, peers, Pinned::LineAdded)
    }

    fn with_key(&self, text: &str, mut peers: Peers, peer: &Peer) -> (Option<String>, Peers, Pinned) {
        let edited = entry_of(text, &peer.name).and_then(|entry| replace_key(text, &entry.key, &self.key));
        if let Some(meant) = peers.peers.iter_mut().find(|other| other.name == peer.name) {
            meant.key = self.key;
        }
        (edited, peers, Pinned::Replaced)
    }
}

/// Takes the server of this name off the list in the file `path`, and gives its entry back; `None` if the list has none of
/// this name. Everything else in the file stays as it is.
///
/// # Errors
/// [`PinError`], and nothing was changed.
pub fn forget(path: &Path, name: &str) -> Result<Option<Peer>, PinError> {
    let replacement = Replacement::begin(path)?;
    let (text, mut peers) = load_text(replacement.path())?;
    let Some(at) = peers.peers.iter().position(|peer| peer.name == name) else { return Ok(None) };
    let peer = peers.peers.remove(at);
    let edited =
        entry_of(&text, name).and_then(|entry| without_entry(&text, "[[peer]]", entry.name.span().start));
    let is_meant = |text: &String| Peers::parse(text).is_ok_and(|said| said == peers);
    let Some(edited) = edited.filter(is_meant) else {
        let write = format!("nothing any more of the [[peer]] with name = \"{name}\"");
        return Err(PinError::Uneditable { file: path.to_owned(), write });
    };
    let file = replacement.path().to_owned();
    replacement.finish(&edited).map_err(|source| PinError::Write { file, source })?;
    Ok(Some(peer))
}

fn load_text(path: &Path) -> Result<(String, Peers), PeersError> {
    match load(path, |text| Peers::parse(text).map(|peers| (text.to_owned(), peers))) {
        Err(error) if is_missing(&error.problem) => Ok((String::new(), Peers::default())),
        read => read,
    }
}

fn is_missing(problem: &PeersProblem) -> bool {
    matches!(problem, PeersProblem::Text(TextProblem::Read(error)) if error.kind() == io::ErrorKind::NotFound)
}

/// The entry of this name, with the places of its values.
fn entry_of(text: &str, name: &str) -> Option<super::Entry> {
    let file: File = from_toml::<_, TextProblem>(text).ok()?;
    file.peer.into_iter().find(|entry| entry.name.get_ref() == name)
}

/// Whether `new` is `old` and a plain line to `address`.
fn is_one_more(old: &[LineConfig], new: &[LineConfig], address: SocketAddr) -> bool {
    let rest: Vec<&LineConfig> = new.iter().filter(|line| **line != LineConfig::new(address)).collect();
    rest.len().checked_add(1) == Some(new.len()) && rest == old.iter().collect::<Vec<_>>()
}

/// The text with the key that stands at `key` replaced, if it stands there as it is: between two quotes, without
/// escapes.
fn replace_key(text: &str, key: &Spanned<String>, new: &PublicKey) -> Option<String> {
    let span = key.span();
    let literal = text.get(span.clone())?;
    let is_quoted = ['"', '\''].iter().any(|quote| literal == format!("{quote}{}{quote}", key.get_ref()));
    let (start, end) = (span.start.checked_add(1)?, span.end.checked_sub(1)?);
    is_quoted.then(|| Some([text.get(..start)?, &new.to_string(), text.get(end..)?].concat()))?
}

fn insert(text: &str, at: usize, more: &str) -> Option<String> {
    let (before, behind) = text.split_at_checked(at)?;
    Some([before, more, behind].concat())
}

#[cfg(test)]
mod tests;
