//! `bowline peer`: keep the list of known servers.
//!
//! A server's key is pinned on the user's word alone: after a look at what the server shows, or with a key that came
//! by another way. The two never turn into each other: a server that cannot prove the given key is not asked for
//! another one.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{
    DEFAULT_PORT, Error, LineConfig, Peer, Peers, Pin, PinError, Pinned, Standing, forget, parse_address,
    peer_name, prove, server_key,
};
use bowline::model::{Limits, PublicKey};
use bowline::net::Clock;
use bowline::secure::Identity;
use serde::Serialize;

use super::arguments::{PeerAddArguments, PeerCommand, TrustArguments};
use super::failure::{Code, Failure};
use super::output::{clean, insist, say, show_either};
use super::places::{identity_if_any, place};
use super::remote::{Ends, describe_peers, unknown_peer};

/// Where a server is, as its user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Address(SocketAddr),
    Name(String, u16),
}

pub(super) async fn run(command: PeerCommand) -> Result<(), Failure> {
    match command {
        PeerCommand::Add(arguments) => add(arguments).await,
        PeerCommand::Ls { peers } => list(peers),
        PeerCommand::Trust(arguments) => trust(arguments).await,
        PeerCommand::Rm { name, peers } => remove(&name, peers),
    }
}

/// A known server as an object.
#[derive(Serialize)]
struct PeerObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    key: String,
    fingerprint: String,
    lines: Vec<LineObject>,
}

#[derive(Serialize)]
struct LineObject {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    role: String,
    protection: String,
}

impl<'a> PeerObject<'a> {
    fn new(kind: &'static str, peer: &'a Peer) -> Self {
        let object = |line: &LineConfig| LineObject {
            address: line.address.to_string(),
            via: line.via.as_ref().map(ToString::to_string),
            role: line.role.to_string(),
            protection: peer.offered(line).to_string(),
        };
        let lines = peer.lines.iter().map(object).collect();
        Self { kind, name: &peer.name, key: peer.key.to_string(), fingerprint: peer.key.fingerprint(), lines }
    }
}

fn list(file: Option<PathBuf>) -> Result<(), Failure> {
    let file = place(file, "peers.toml")?;
    let peers = Peers::load_or_none(&file).map_err(|error| describe_peers(&error, &file))?;
    if peers.iter().next().is_none() {
        say(&format!("no server is in {}: bowline peer trust HOST\n", file.display()));
    }
    for peer in &peers {
        let object = PeerObject::new("peer", peer);
        show_either(&object, || {
            let line = |line: &LineObject| {
                let via = line.via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default();
                format!("  {}{via}, {}, {}\n", line.address, line.role, line.protection)
            };
            format!(
                "{}  {}\n{}",
                peer.name,
                object.fingerprint,
                object.lines.iter().map(line).collect::<String>()
            )
        })?;
    }
    Ok(())
}

/// Adds a server whose key came by another way; nobody is asked for anything.
async fn add(arguments: PeerAddArguments) -> Result<(), Failure> {
    let PeerAddArguments { name, key, hosts, peers } = arguments;
    let file = place(peers, "peers.toml")?;
    for host in &hosts {
        for address in host.addresses().await? {
            let pin = Pin { name: name.clone(), key, address };
            let known = Peers::load_or_none(&file).map_err(|error| describe_peers(&error, &file))?;
            if let Standing::Changed { peer } = pin.standing(&known) {
                return Err(changed(&peer, &pin, host));
            }
            report(&pin, &file, pin.write(&file, None))?;
        }
    }
    Ok(())
}

fn remove(name: &str, file: Option<PathBuf>) -> Result<(), Failure> {
    let file = place(file, "peers.toml")?;
    let known = Peers::load_or_none(&file).map_err(|error| describe_peers(&error, &file))?;
    match forget(&file, name) {
        Ok(Some(peer)) => show_either(&PeerObject::new("peer_removed", &peer), || {
            format!("removed \"{name}\" from {}\n", file.display())
        }),
        Ok(None) => Err(unknown_peer(name, &known, &file)),
        Err(error) => Err(Failure::of(&format!("\"{}\" was not removed", clean(name)), &error)),
    }
}

async fn trust(arguments: TrustArguments) -> Result<(), Failure> {
    let TrustArguments { host, name, yes, replace, peers: file, key } = arguments;
    let file = place(file, "peers.toml")?;
    let peers = Peers::load_or_none(&file).map_err(|error| describe_peers(&error, &file))?;
    let own = identity_if_any(key)?;
    let name = name.unwrap_or_else(|| peer_name(&host.name()));
    say(&match &own {
        Some(own) => format!("this client's key is {}: the server has to list it\n", own.public()),
        None => "this client has no key yet, which the server has to list: bowline key new\n".to_owned(),
    });
    let is_told = yes.is_some();
    let pin = match yes {
        Some(key) => given_key(&host, &name, key, own, (&peers, replace)).await?,
        None => shown_key(&host, &name).await?,
    };
    let question = match pin.standing(&peers) {
        Standing::Pinned { .. } => None,
        Standing::New => Some(format!("pin this key as \"{name}\" in {}?", file.display())),
        Standing::Changed { peer } if replace => {
            say(&format!("\"{}\" is pinned with another key\n{}", peer.name, key_lines(&peer.key)));
            Some(format!("replace the key of \"{}\" in {}?", peer.name, file.display()))
        }
        Standing::Changed { peer } => return Err(changed(&peer, &pin, &host)),
    };
    if !is_told {
        insist(&format!(
            "the server at {} shows the key\n{}so it says itself: compare with `bowline key show` on that machine\n",
            pin.address,
            key_lines(&pin.key)
        ));
        if question.is_some_and(|question| !is_yes(&question)) {
            return Err(Failure::new("nothing was pinned").because("the answer was not yes"));
        }
    }
    let given_up = match pin.standing(&peers) {
        Standing::Changed { peer } if replace => Some(peer.key),
        _ => None,
    };
    report(&pin, &file, pin.write(&file, given_up.as_ref()))
}

impl Host {
    /// The host that an argument names.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || "write an IP address, [IPv6 address] or host name, and :PORT if it is not 4477".to_owned();
        if let Some(address) = parse_address(text) {
            return Ok(Self::Address(address));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
            None => (text, DEFAULT_PORT),
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        // Digits alone are an address that is none; a first dash, a mistyped option.
        let is_name = (1..=253).contains(&name.len())
            && name.bytes().all(is_allowed)
            && !name.starts_with(['-', '.'])
            && name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_name { Ok(Self::Name(name.to_owned(), port)) } else { Err(wrong()) }
    }

    fn name(&self) -> String {
        match self {
            Self::Address(address) => address.ip().to_string(),
            Self::Name(name, _) => name.clone(),
        }
    }

    /// The host's addresses, in the order in which they are to be tried.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let (name, port) = match self {
            Self::Address(address) => return Ok(vec![*address]),
            Self::Name(name, port) => (name, *port),
        };
        let cannot = |why: &str| {
            Failure::coded(Code::Unreachable, format!("cannot find the host \"{name}\"")).because(why)
        };
        let lookup = tokio::net::lookup_host((name.as_str(), port));
        let found = Clock.timeout(limit(), lookup).await.ok_or_else(|| cannot("no answer in time"))?;
        let found = found.map_err(|error| cannot(&error.to_string()))?;
        let is_usable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        let found: Vec<SocketAddr> = found.filter(|address| is_usable(address.ip())).take(8).collect();
        if found.is_empty() { Err(cannot("it has no address")) } else { Ok(found) }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The server that answers at the first address of the host that can be reached, with the key that it shows.
async fn shown_key(host: &Host, name: &str) -> Result<Pin, Failure> {
    let mut failure = None;
    for address in host.addresses().await? {
        match server_key(address, None, limit()).await {
            Ok(key) => return Ok(Pin { name: name.to_owned(), key, address }),
            Err(error @ (Error::Unreachable { .. } | Error::HandshakeTimedOut { .. })) => {
                failure = Some(error)
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    Err(failure.map_or_else(|| Failure::new("no address"), |error| describe(&error, host, name, None)))
}

/// The server at the first address of the host that can be reached, if it proves the key that the user was told, and
/// lists this client.
async fn given_key(
    host: &Host,
    name: &str,
    key: PublicKey,
    own: Option<Arc<Identity>>,
    (peers, replace): (&Peers, bool),
) -> Result<Pin, Failure> {
    let own = own.ok_or_else(|| {
        Failure::coded(Code::Identity, "this client has no identity, which the server would have to list")
            .try_this("bowline key new, and give the printed key to whoever runs the server")
    })?;
    let mut failure = None;
    for address in host.addresses().await? {
        let pin = Pin { name: name.to_owned(), key, address };
        // Before anything is said to anybody.
        if let Standing::Changed { peer } = pin.standing(peers)
            && !replace
        {
            return Err(changed(&peer, &pin, host));
        }
        match prove(&own, &key, address, None, limit()).await {
            Ok(()) => return Ok(pin),
            Err(error @ (Error::Unreachable { .. } | Error::HandshakeTimedOut { .. })) => {
                failure = Some(error)
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    Err(failure
        .map_or_else(|| Failure::new("no address"), |error| describe(&error, host, name, Some(own.public()))))
}

fn limit() -> Duration {
    Limits::default().handshake
}

fn key_lines(key: &PublicKey) -> String {
    format!("  key {key}\n  fingerprint {}\n", key.fingerprint())
}

/// Asks on the terminal. Only "yes" and "y" are a yes; the end of the input is none.
fn is_yes(question: &str) -> bool {
    insist(&format!("{question} [yes/no] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(64).read_line(&mut answer);
    if !answer.ends_with('\n') || !std::io::stdin().is_terminal() {
        // Nobody has ended the line of the question.
        insist("\n");
    }
    read.is_ok() && matches!(answer.trim(), "yes" | "y")
}

/// What became of a pin, as an object.
#[derive(Serialize)]
struct PinObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    key: String,
    address: String,
    outcome: &'static str,
}

fn report(pin: &Pin, file: &Path, written: Result<Pinned, PinError>) -> Result<(), Failure> {
    let Pin { name, key, address } = pin;
    let file = file.display();
    let (outcome, text) = match written {
        Ok(Pinned::Added) => {
            ("added", format!("pinned \"{name}\" at {address} with the key {key} in {file}\n"))
        }
        Ok(Pinned::AsBefore) => {
            ("as_before", format!("the key {key} is pinned already for {address} in {file}\n"))
        }
        Ok(Pinned::LineAdded) => (
            "line_added",
            format!("the key {key} is pinned already; added the line to {address} in {file}\n"),
        ),
        Ok(Pinned::Replaced) => ("replaced", format!("replaced the pinned key by {key} in {file}\n")),
        Ok(Pinned::LineLeft) => {
            say(&format!(
                "to use {address} too, add a [[peer.line]] with address = \"{address}\" to its entry\n"
            ));
            ("line_left", format!("the key {key} is pinned already in {file}\n"))
        }
        Err(error) => {
            let failure = Failure::of("nothing was pinned", &error);
            return Err(match error {
                PinError::Uneditable { write, .. } => failure.try_this(format!("write {write} in {file}")),
                _ => failure,
            });
        }
    };
    let object = PinObject { kind: "pin", name, key: key.to_string(), address: address.to_string(), outcome };
    show_either(&object, || text)
}

fn changed(peer: &Peer, pin: &Pin, host: &Host) -> Failure {
    Failure::coded(Code::WrongKey, format!("the key of \"{}\" has changed", peer.name)).because(format!(
        "\"{}\" is pinned with {} (fingerprint {}), and the one for {} is {} (fingerprint {})",
        peer.name,
        peer.key,
        peer.key.fingerprint(),
        pin.address,
        pin.key,
        pin.key.fingerprint(),
    ))
    .try_this(format!(
        "ask whoever runs it; if it has a new key on purpose: bowline peer trust {host} --name {} --replace",
        peer.name
    ))
}

/// What a user reads when no key can be pinned; the server is on no list yet, or on one with another key.
fn describe(error: &Error, host: &Host, name: &str, own: Option<PublicKey>) -> Failure {
    let ends = Ends { name, first: None, own, is_known: false };
    let failure = ends.describe(&format!("no key of {host} to pin"), error);
    match error {
        // The key that it did not prove came from the user, and stands in no list.
        Error::HandshakeRefused { address, pinned, own } => failure.because(format!(
            "the server at {address} has not proven the key {pinned} to this client: it has another key, or does not list this client's key {own}"
        )),
        Error::ServerKeyChanged { pinned, .. } => failure.try_this(format!(
            "compare {pinned} (fingerprint {}) with `bowline key show` on that machine",
            pinned.fingerprint()
        )),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_parse_or_say_what_is_wrong() {
        let address = |text: &str| Ok(Host::Address(text.parse().unwrap()));
        assert_eq!(Host::parse("10.0.0.1"), address("10.0.0.1:4477"));
        assert_eq!(Host::parse("10.0.0.1:99"), address("10.0.0.1:99"));
        assert_eq!(Host::parse("fd00::1"), address("[fd00::1]:4477"));
        assert_eq!(Host::parse("[fd00::1]"), address("[fd00::1]:4477"));
        assert_eq!(Host::parse("[fd00::1]:99"), address("[fd00::1]:99"));
        assert_eq!(Host::parse("store"), Ok(Host::Name("store".to_owned(), 4477)));
        assert_eq!(Host::parse("store.example:99"), Ok(Host::Name("store.example".to_owned(), 99)));
        for bad in [
            "",
            ":99",
            "store:",
            "store:0",
            "store:65536",
            "store:x",
            "10.0.0",
            "10.0.0.1:0",
            "0.0.0.0",
            "-x",
            ".x",
            "a b",
            "a/b",
            "[store]",
            "fd00::x",
            "a@b",
            &"x".repeat(254),
        ] {
            assert!(Host::parse(bad).unwrap_err().starts_with("write an IP address"), "{bad}");
        }
    }
}
