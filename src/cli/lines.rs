//! Over which lines a command reaches its server, where its user has a say: `--via`, `--bulk-via`, `--keys-via` and
//! `--protection`.
//!
//! An interface is paired with the addresses of the server that are on its own network, and with all of them where none
//! is. Interfaces that could take the same addresses share them out, so that each address and each interface has a line.

use std::net::{IpAddr, SocketAddr};

use bowline::client::{LineConfig, Peer};
use bowline::model::{LineRole, Protection};
use bowline::net::Via;

use super::arguments::LineArguments;
use super::failure::{Code, Failure};

/// The interfaces of this machine with their addresses and the lengths of their networks' prefixes.
#[derive(Debug, Clone, Default)]
pub(super) struct Interfaces(Vec<(String, IpAddr, u8)>);

impl Interfaces {
    /// Those that the system has now.
    pub(super) fn of_system() -> Result<Self, Failure> {
        let found = if_addrs::get_if_addrs()
            .map_err(|error| Failure::of("cannot list this machine's interfaces", &error))?;
        let of = |interface: if_addrs::Interface| {
            let (ip, prefix) = match interface.addr {
                if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
                if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
            };
            (interface.name, ip, prefix)
        };
        Ok(Self(found.into_iter().map(of).collect()))
    }

    /// The networks that `via` is in: an address and the length of the prefix of each; `None` if it is not there.
    fn networks(&self, via: &Via) -> Option<Vec<(IpAddr, u8)>> {
        let found: Vec<(IpAddr, u8)> = match via {
            Via::Interface(name) => {
                self.0.iter().filter(|(own, ..)| own == name).map(|(_, ip, prefix)| (*ip, *prefix)).collect()
            }
            // Any address of the loopback network is this machine's.
            Via::Address(address) => {
                let is_own = |(_, ip, prefix): &&(String, IpAddr, u8)| {
                    ip == address || (address.is_loopback() && is_in(*address, *ip, *prefix))
                };
                self.0.iter().filter(is_own).map(|(_, _, prefix)| (*address, *prefix)).collect()
            }
        };
        (!found.is_empty()).then_some(found)
    }

    fn names(&self) -> String {
        let mut names: Vec<String> = self.0.iter().map(|(name, ip, _)| format!("{name} ({ip})")).collect();
        names.dedup();
        names.join(", ")
    }
}

/// Whether `address` is in the network of `of` with this length of prefix.
fn is_in(address: IpAddr, of: IpAddr, prefix: u8) -> bool {
    match (address, of) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(prefix.into());
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128_u32.saturating_sub(prefix.into());
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

/// The peer over the lines that the arguments ask for; without any, over its own.
pub(super) fn with_vias(
    peer: &Peer,
    arguments: &LineArguments,
    interfaces: &dyn Fn() -> Result<Interfaces, Failure>,
) -> Result<Peer, Failure> {
    let mut peer = peer.clone();
    let wanted = [
        (LineRole::Both, &arguments.via),
        (LineRole::Bulk, &arguments.bulk_via),
        (LineRole::Keys, &arguments.keys_via),
    ];
    if wanted.iter().any(|(_, vias)| !vias.is_empty()) {
        let interfaces = interfaces()?;
        let mut lines = Vec::new();
        for (role, vias) in wanted {
            lines.extend(lines_of_role(&peer, role, vias, &interfaces)?);
        }
        peer.lines = lines;
    }
    if let Some(protection) = arguments.protection {
        protect(&mut peer, protection)?;
    }
    Ok(peer)
}

fn lines_of_role(
    peer: &Peer,
    role: LineRole,
    vias: &[Via],
    interfaces: &Interfaces,
) -> Result<Vec<LineConfig>, Failure> {
    // Interfaces that reach the same addresses, with these.
    let mut groups: Vec<(Vec<SocketAddr>, Vec<&Via>)> = Vec::new();
    for via in vias {
        let reached = reached(peer, via, interfaces)?;
        match groups.iter_mut().find(|(addresses, _)| *addresses == reached) {
            Some((_, vias)) => vias.push(via),
            None => groups.push((reached, vec![via])),
        }
    }
    let mut lines = Vec::new();
    for (addresses, vias) in groups {
        let pairs = addresses.iter().cycle().zip(vias.iter().cycle());
        for (&address, &via) in pairs.take(addresses.len().max(vias.len())) {
            let protection =
                peer.lines.iter().find(|line| line.address == address).and_then(|line| line.protection);
            let protection = protection.filter(|_| role != LineRole::Keys);
            lines.push(LineConfig { address, via: Some(via.clone()), role, protection });
        }
    }
    Ok(lines)
}

/// The peer's addresses that a line from `via` is to lead to.
fn reached(peer: &Peer, via: &Via, interfaces: &Interfaces) -> Result<Vec<SocketAddr>, Failure> {
    let Some(networks) = interfaces.networks(via) else {
        return Err(Failure::coded(Code::InterfaceMissing, format!("no line can start at {via}"))
            .because(format!("this machine has no such interface or address; it has {}", interfaces.names()))
            .try_this("ip -br address, and one of those for --via"));
    };
    let mut all: Vec<SocketAddr> = Vec::new();
    for line in &peer.lines {
        if !all.contains(&line.address) {
            all.push(line.address);
        }
    }
    let is_near =
        |address: &&SocketAddr| networks.iter().any(|(own, prefix)| is_in(address.ip(), *own, *prefix));
    let near: Vec<SocketAddr> = all.iter().filter(is_near).copied().collect();
    if !near.is_empty() {
        return Ok(near);
    }
    let is_of_family =
        |address: &SocketAddr| networks.iter().any(|(own, _)| own.is_ipv4() == address.is_ipv4());
    all.retain(is_of_family);
    if all.is_empty() {
        return Err(Failure::coded(Code::Settings, format!("no line can start at {via}")).because(format!(
            "the addresses of \"{}\" are of the other family, and {via} has none of theirs",
            peer.name
        )));
    }
    Ok(all)
}

/// Asks for this protection on every line that carries file data.
fn protect(peer: &mut Peer, protection: Protection) -> Result<(), Failure> {
    if let Some(least) = peer.protection_min.filter(|least| *least > protection) {
        let what = format!("file data of \"{}\" cannot go {protection}", peer.name);
        return Err(Failure::coded(Code::Policy, what)
            .because(format!("its entry in the list of peers asks for {least} at least"))
            .data("nothing was sent")
            .try_this(format!("--protection {least}, or another protection = in the list of peers")));
    }
    for line in peer.lines.iter_mut().filter(|line| line.role != LineRole::Keys) {
        line.protection = Some(protection);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Interfaces {
        let own = [
            ("lo", "127.0.0.1", 8),
            ("eth0", "10.0.0.2", 24),
            ("eth1", "10.0.1.2", 24),
            ("eth2", "10.0.0.3", 24),
            ("wan", "192.0.2.9", 24),
            ("wan", "2001:db8::9", 64),
        ];
        Interfaces(
            own.iter().map(|(name, ip, prefix)| ((*name).to_owned(), ip.parse().unwrap(), *prefix)).collect(),
        )
    }

    fn peer(addresses: &[&str]) -> Peer {
        let key = bowline::model::PublicKey([1; 32]);
        let line = |address: &&str| LineConfig {
            address: address.parse().unwrap(),
            via: None,
            role: LineRole::Both,
            protection: None,
        };
        Peer {
            name: "store".to_owned(),
            key,
            protection_min: None,
            lines: addresses.iter().map(line).collect(),
        }
    }

    fn lines(addresses: &[&str], arguments: &LineArguments) -> Result<Vec<String>, Failure> {
        let peer = with_vias(&peer(addresses), arguments, &|| Ok(interfaces()))?;
        let shown = |line: &LineConfig| {
            let via = line.via.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{via} {} {}", line.address, line.role)
        };
        Ok(peer.lines.iter().map(shown).collect())
    }

    fn via(names: &[&str]) -> Vec<Via> {
        names.iter().map(|name| bowline::client::parse_via(name).unwrap()).collect()
    }

    #[test]
    fn an_interface_takes_the_addresses_of_its_own_network() {
        let both = ["10.0.0.1:4477", "10.0.1.1:4477"];
        let arguments = LineArguments { via: via(&["eth0", "eth1"]), ..LineArguments::default() };
        assert_eq!(lines(&both, &arguments).unwrap(), ["eth0 10.0.0.1:4477 both", "eth1 10.0.1.1:4477 both"]);
        let arguments = LineArguments {
            bulk_via: via(&["10.0.1.2"]),
            keys_via: via(&["eth0"]),
            ..LineArguments::default()
        };
        assert_eq!(
            lines(&both, &arguments).unwrap(),
            ["10.0.1.2 10.0.1.1:4477 bulk", "eth0 10.0.0.1:4477 keys"]
        );
    }

    #[test]
    fn interfaces_of_one_network_share_its_addresses_out() {
        let arguments = LineArguments { via: via(&["eth0", "eth2"]), ..LineArguments::default() };
        let two = ["eth0 10.0.0.1:1 both", "eth2 10.0.0.9:1 both"];
        assert_eq!(lines(&["10.0.0.1:1", "10.0.0.9:1"], &arguments).unwrap(), two);
        let one = ["eth0 10.0.0.1:1 both", "eth2 10.0.0.1:1 both"];
        assert_eq!(lines(&["10.0.0.1:1"], &arguments).unwrap(), one);
        // Far away: by whichever way there is.
        let far = ["wan 203.0.113.1:1 both", "wan [2001:db8:1::1]:1 both"];
        let arguments = LineArguments { via: via(&["wan"]), ..LineArguments::default() };
        assert_eq!(lines(&["203.0.113.1:1", "[2001:db8:1::1]:1"], &arguments).unwrap(), far);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let arguments = LineArguments { via: via(&["eth9"]), ..LineArguments::default() };
        let failure = lines(&["10.0.0.1:1"], &arguments).unwrap_err();
        assert_eq!(failure.code, Code::InterfaceMissing);
        assert!(failure.why.unwrap().contains("eth1 (10.0.1.2)"));
        let arguments = LineArguments { via: via(&["eth0"]), ..LineArguments::default() };
        assert_eq!(lines(&["[2001:db8::1]:1"], &arguments).unwrap_err().code, Code::Settings);
    }

    #[test]
    fn a_protection_is_not_less_than_the_peer_s() {
        let mut store = peer(&["10.0.0.1:1"]);
        let arguments = LineArguments { protection: Some(Protection::Clear), ..LineArguments::default() };
        let none = || Err(Failure::new("not asked"));
        let clear = with_vias(&store, &arguments, &none).unwrap();
        assert_eq!(clear.lines[0].protection, Some(Protection::Clear));
        store.protection_min = Some(Protection::Signed);
        let failure = with_vias(&store, &arguments, &none).unwrap_err();
        assert_eq!(failure.code, Code::Policy);
    }
}
