//! The file of known servers: their keys, and the lines on which they are reached.
//!
//! ```toml
//! [[peer]]
//! name = "store"
//! key = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
//! addresses = ["10.0.0.1:4477", "10.0.1.1"]   # each is a line for everything
//! protection = "signed"                       # least protection of data channels; without it each line's own holds
//!
//! [[peer.line]]                               # says more about a line, or adds one
//! address = "10.0.0.1:4477"
//! via = "10.0.0.2"                            # from this local address, or through this interface
//! role = "bulk"                               # both, bulk (file data only) or keys (all but file data)
//! protection = "clear"                        # of data channels; without it: bulk signs, both seals
//! ```

mod pin;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

pub use pin::{Pin, PinError, Pinned, Standing, forget, peer_name};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::model::{ChannelKind, KeyTextError, Limits, LineRole, Protection, PublicKey};
use crate::net::Via;
use crate::net::settings::{
    ProtectionProblem, SettingsError, TextProblem, data_protection, from_toml, is_plain_name, load,
};

/// The TCP port of a server whose address is written without one.
pub const DEFAULT_PORT: u16 = 4477;

/// Why a file of servers is not used.
pub type PeersError = SettingsError<PeersProblem>;

/// What is wrong with a file of servers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PeersProblem {
    /// It cannot be read, or is no TOML of this form.
    #[error(transparent)]
    Text(#[from] TextProblem),
    /// A key that is none.
    #[error("{text:?} is no server's key: {reason}")]
    Key {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        reason: KeyTextError,
    },
    /// Two servers with one key.
    #[error("this key is that of the peer {0:?} already")]
    DoubleKey(String),
    /// Two servers of one name.
    #[error("there is a peer {0:?} already")]
    DoubleName(String),
    /// A name that cannot stand in commands.
    #[error("{0:?} is no peer's name: use 1 to 64 of a-z A-Z 0-9 . _ -")]
    Name(String),
    /// An address that cannot be connected to.
    #[error(
        "{0:?} is no address of a server: write an IP address and a port, as in 10.0.0.1:4477 or [fd00::1]:4477"
    )]
    Address(String),
    /// Nothing by which a line can be bound.
    #[error("{0:?} is neither a local IP address nor the name of an interface")]
    Via(String),
    /// A local address of the other family.
    #[error("a line to {address} cannot start at {via}: one is IPv4, the other IPv6")]
    Family {
        /// The server's address.
        address: IpAddr,
        /// The local address.
        via: IpAddr,
    },
    /// A role that does not exist.
    #[error("{0:?} is no role: use \"both\", \"bulk\" or \"keys\"")]
    Role(String),
    /// A protection that does not exist.
    #[error(transparent)]
    Protection(#[from] ProtectionProblem),
    /// A protection of data channels where there are none.
    #[error("a line of role \"keys\" has no data channels to protect: control channels are always sealed")]
    NothingToProtect,
    /// One line twice.
    #[error("the peer {0:?} has this line already")]
    DoubleLine(String),
    /// No way to the server.
    #[error("the peer {0:?} has no line: give it addresses")]
    NoLine(String),
    /// More lines than a session can have.
    #[error("the peer {0:?} has more than {max} lines", max = Limits::LINES_MAX)]
    Lines(String),
    /// Traffic of one kind would wait for ever.
    #[error("no line of the peer {name:?} carries {kind} channels: give one the role \"both\"")]
    Uncarried {
        /// The peer.
        name: String,
        /// What none of its lines carries.
        kind: ChannelKind,
    },
}

/// The known servers, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peers {
    peers: Vec<Peer>,
}

/// A known server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// What the user calls it.
    pub name: String,
    /// Its key: whoever has another one is another server.
    pub key: PublicKey,
    /// The weakest protection that data channels to it may have; `None`: what each line itself asks for.
    pub protection_min: Option<Protection>,
    /// The lines to it, at least one, in the order of the file.
    pub lines: Vec<LineConfig>,
}

/// A line as the user describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineConfig {
    /// The server's address on this line.
    pub address: SocketAddr,
    /// Where the line starts; `None`: the routing table says.
    pub via: Option<Via>,
    /// What the line may carry.
    pub role: LineRole,
    /// The protection that data channels on it ask for; `None`: the role's default. [`Protection::Clear`] is asked for
    /// here or nowhere.
    pub protection: Option<Protection>,
}

impl Peers {
    /// The servers that `text` names. An empty text is valid, and names none.
    ///
    /// # Errors
    /// [`SettingsError`] with the line and a [`PeersProblem`].
    pub fn parse(text: &str) -> Result<Self, PeersError> {
        let file: File = from_toml(text)?;
        let mut peers: Vec<Peer> = Vec::new();
        for entry in file.peer {
            let at = |span: &Spanned<String>, problem| PeersError::at(text, &span.span(), problem);
            let peer = entry.peer(text)?;
            if peers.iter().any(|other| other.name == peer.name) {
                return Err(at(&entry.name, PeersProblem::DoubleName(peer.name)));
            }
            if let Some(other) = peers.iter().find(|other| other.key == peer.key) {
                return Err(at(&entry.key, PeersProblem::DoubleKey(other.name.clone())));
            }
            peers.push(peer);
        }
        Ok(Self { peers })
    }

    /// The servers that the file `path` names.
    ///
    /// # Errors
    /// As [`Peers::parse`], with the file's name; [`PeersProblem::Text`] if it cannot be read, or can be
    /// written to by every user of the machine.
    pub fn load(path: &Path) -> Result<Self, PeersError> {
        load(path, Self::parse)
    }

    /// The server of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> core::slice::Iter<'_, Peer> {
        self.peers.iter()
    }
}

impl<'a> IntoIterator for &'a Peers {
    type Item = &'a Peer;
    type IntoIter = core::slice::Iter<'a, Peer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Peer {
    /// The protection that data channels on `line` ask the server for: the line's own or its role's default, and not
    /// less than this peer's minimum. The server may choose a stronger one, and a weaker one is refused.
    #[must_use]
    pub fn offered(&self, line: &LineConfig) -> Protection {
        let wanted = line.protection.unwrap_or_else(|| line.role.default_protection());
        self.protection_min.map_or(wanted, |least| least.max(wanted))
    }
}

impl LineConfig {
    /// A line to `address` for everything, from wherever the routing table says, protected as its role says.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, via: None, role: LineRole::Both, protection: None }
    }
}

/// The address that `text` spells, with [`DEFAULT_PORT`] where it has no port; `None` if it spells none that
/// can be connected to.
#[must_use]
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    let bare = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT));
    let in_brackets =
        || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|ip| ip.contains(':'));
    let address = text.parse().ok().or_else(|| bare(text)).or_else(|| in_brackets().and_then(bare))?;
    let is_peer = !address.ip().is_unspecified() && !address.ip().is_multicast() && address.port() != 0;
    is_peer.then_some(address)
}

/// The start of a line that `text` spells; an interface's name has 1 to 15 bytes, none of them a slash, a colon
/// or a space.
#[must_use]
pub fn parse_via(text: &str) -> Option<Via> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let is_usable = !address.is_unspecified() && !address.is_multicast();
        return is_usable.then_some(Via::Address(address));
    }
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    let is_name =
        (1..=15).contains(&text.len()) && text.bytes().all(is_allowed) && !matches!(text, "." | "..");
    is_name.then(|| Via::Interface(text.to_owned()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    peer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    key: Spanned<String>,
    /// The whole list has a place too, so that an address can be added to an empty one.
    addresses: Option<Spanned<Vec<Spanned<String>>>>,
    protection: Option<Spanned<String>>,
    #[serde(default)]
    line: Vec<LineEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineEntry {
    address: Spanned<String>,
    via: Option<Spanned<String>>,
    role: Option<Spanned<String>>,
    protection: Option<Spanned<String>>,
}

impl Entry {
    fn peer(&self, text: &str) -> Result<Peer, PeersError> {
        let name = self.name.get_ref().clone();
        if !is_plain_name(&name) {
            return Err(PeersError::at(text, &self.name.span(), PeersProblem::Name(name)));
        }
        let key = self.key.get_ref().parse().map_err(|reason| {
            let problem = PeersProblem::Key { text: self.key.get_ref().clone(), reason };
            PeersError::at(text, &self.key.span(), problem)
        })?;
        let protection_min = self.protection.as_ref().map(|word| protection(text, word)).transpose()?;
        Ok(Peer { key, protection_min, lines: self.lines(text)?, name })
    }

    fn addresses(&self) -> &[Spanned<String>] {
        self.addresses.as_ref().map(|list| list.get_ref().as_slice()).unwrap_or_default()
    }

    /// The plain addresses in their order, each replaced by the lines that say more about it; then the lines
    /// whose addresses stand nowhere else.
    fn lines(&self, text: &str) -> Result<Vec<LineConfig>, PeersError> {
        let plain = self.addresses().iter().map(|address| plain_line(text, address));
        let plain = unique(text, &self.name, plain.collect::<Result<Vec<_>, _>>()?)?;
        let described = self.line.iter().map(|line| line.config(text));
        let mut described = unique(text, &self.name, described.collect::<Result<Vec<_>, _>>()?)?;
        let mut lines = Vec::new();
        for line in plain {
            let (mut more, rest) = described.into_iter().partition(|other| other.address == line.address);
            described = rest;
            if more.is_empty() {
                more = vec![line];
            }
            lines.append(&mut more);
        }
        lines.append(&mut described);
        self.check(&lines).map_err(|problem| PeersError::at(text, &self.name.span(), problem))?;
        Ok(lines)
    }

    /// Refuses lines with which no session can work.
    fn check(&self, lines: &[LineConfig]) -> Result<(), PeersProblem> {
        let name = || self.name.get_ref().clone();
        if lines.is_empty() {
            return Err(PeersProblem::NoLine(name()));
        }
        if lines.len() > Limits::LINES_MAX {
            return Err(PeersProblem::Lines(name()));
        }
        for &kind in ChannelKind::EACH {
            if !lines.iter().any(|line| line.role.carries(kind)) {
                return Err(PeersProblem::Uncarried { name: name(), kind });
            }
        }
        Ok(())
    }
}

impl LineEntry {
    fn config<'a>(&'a self, text: &str) -> Result<(&'a Spanned<String>, LineConfig), PeersError> {
        let (at, mut line) = plain_line(text, &self.address)?;
        if let Some(via) = &self.via {
            let wrong = |problem| PeersError::at(text, &via.span(), problem);
            let found =
                parse_via(via.get_ref()).ok_or_else(|| wrong(PeersProblem::Via(via.get_ref().clone())))?;
            if let Via::Address(via) = found
                && via.is_ipv4() != line.address.is_ipv4()
            {
                return Err(wrong(PeersProblem::Family { address: line.address.ip(), via }));
            }
            line.via = Some(found);
        }
        if let Some(role) = &self.role {
            let wrong = |_| PeersError::at(text, &role.span(), PeersProblem::Role(role.get_ref().clone()));
            line.role = role.get_ref().parse().map_err(wrong)?;
        }
        if let Some(word) = &self.protection {
            line.protection = Some(protection(text, word)?);
            if !line.role.carries(ChannelKind::Data) {
                return Err(PeersError::at(text, &word.span(), PeersProblem::NothingToProtect));
            }
        }
        Ok((at, line))
    }
}

fn protection(text: &str, word: &Spanned<String>) -> Result<Protection, PeersError> {
    data_protection(word.get_ref()).map_err(|problem| PeersError::at(text, &word.span(), problem))
}

/// A line of which only the address is known, with the place of the address.
fn plain_line<'a>(
    text: &str,
    address: &'a Spanned<String>,
) -> Result<(&'a Spanned<String>, LineConfig), PeersError> {
    let wrong = || PeersError::at(text, &address.span(), PeersProblem::Address(address.get_ref().clone()));
    parse_address(address.get_ref()).map(|found| (address, LineConfig::new(found))).ok_or_else(wrong)
}

/// The lines without their places, if no two are one.
fn unique(
    text: &str,
    name: &Spanned<String>,
    lines: Vec<(&Spanned<String>, LineConfig)>,
) -> Result<Vec<LineConfig>, PeersError> {
    let mut seen = BTreeSet::new();
    for (at, line) in &lines {
        if !seen.insert((line.address, line.via.clone())) {
            let problem = PeersProblem::DoubleLine(name.get_ref().clone());
            return Err(PeersError::at(text, &at.span(), problem));
        }
    }
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

#[cfg(test)]
mod tests;
