//! What the list of peers accepts, and what it says of the rest.

use super::*;

const KEY_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const KEY_B: &str = "baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// One peer with `more` in its entry, from line 4 on.
fn peer(more: &str) -> String {
    format!("[[peer]]\nname = \"store\"\nkey = \"{KEY_A}\"\n{more}\n")
}

fn only(text: &str) -> Peer {
    let peers = Peers::parse(text).unwrap();
    assert_eq!(peers.iter().count(), 1);
    peers.named("store").unwrap().clone()
}

fn refused(text: &str) -> String {
    let error = Peers::parse(text).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_peer_has_a_key_and_lines() {
    let peer = only(&peer(
        "addresses = [\"10.0.0.1:4477\", \"10.0.1.1\", \"fd00::1\", \"[fd00::2]:99\"]\nprotection = \"sealed\"",
    ));
    let lines = ["10.0.0.1:4477", "10.0.1.1:4477", "[fd00::1]:4477", "[fd00::2]:99"];
    let expected = Peer {
        name: "store".to_owned(),
        key: KEY_A.parse().unwrap(),
        protection_min: Some(Protection::Sealed),
        lines: lines.map(|text| LineConfig::new(address(text))).into(),
    };
    assert_eq!(peer, expected);
    assert_eq!(Peers::parse("").unwrap(), Peers::default());
}

#[test]
fn a_described_line_takes_the_place_of_the_plain_one() {
    let peer = only(&peer(
        "addresses = [\"10.0.0.1\", \"10.0.0.2\"]\n\
         [[peer.line]]\naddress = \"10.0.0.3\"\nrole = \"keys\"\n\
         [[peer.line]]\naddress = \"10.0.0.1:4477\"\nvia = \"10.0.0.9\"\nrole = \"bulk\"\n\
         [[peer.line]]\naddress = \"10.0.0.1\"\nvia = \"eth0\"\n",
    ));
    let expected = [
        LineConfig {
            address: address("10.0.0.1:4477"),
            via: Some(Via::Address("10.0.0.9".parse().unwrap())),
            role: LineRole::Bulk,
            protection: None,
        },
        LineConfig {
            address: address("10.0.0.1:4477"),
            via: Some(Via::Interface("eth0".to_owned())),
            role: LineRole::Both,
            protection: None,
        },
        LineConfig::new(address("10.0.0.2:4477")),
        LineConfig { role: LineRole::Keys, ..LineConfig::new(address("10.0.0.3:4477")) },
    ];
    assert_eq!(peer.lines, expected);
    assert_eq!(peer.protection_min, None);
}

#[test]
fn a_lines_own_word_replaces_its_roles_default_and_the_peers_minimum_raises_both() {
    use Protection::{Clear, Sealed, Signed};
    let offered = |minimum: Option<Protection>, role: LineRole, word: Option<Protection>| {
        let minimum = minimum.map(|least| format!("protection = \"{least}\"\n")).unwrap_or_default();
        let word = word.map(|word| format!("protection = \"{word}\"\n")).unwrap_or_default();
        let text = format!(
            "addresses = [\"10.0.0.2\"]\n{minimum}[[peer.line]]\naddress = \"10.0.0.1\"\nrole = \"{role}\"\n{word}"
        );
        let peer = only(&peer(&text));
        let line = peer.lines.iter().find(|line| line.address == address("10.0.0.1:4477")).unwrap();
        peer.offered(line)
    };
    for (role, default) in [(LineRole::Both, Sealed), (LineRole::Bulk, Signed)] {
        assert_eq!(offered(None, role, None), default);
        for &word in Protection::EACH {
            assert_eq!(offered(None, role, Some(word)), word);
            for &minimum in Protection::EACH {
                assert_eq!(offered(Some(minimum), role, Some(word)), word.max(minimum));
                assert_eq!(offered(Some(minimum), role, None), default.max(minimum));
            }
        }
    }
    assert_eq!(offered(Some(Clear), LineRole::Bulk, None), Signed, "clear is asked for by lines alone");
}

#[test]
fn roles_together_must_carry_everything() {
    let line =
        |address: &str, role: &str| format!("[[peer.line]]\naddress = \"{address}\"\nrole = \"{role}\"\n");
    let split = only(&peer(&(line("10.0.0.1", "bulk") + &line("10.0.0.2", "keys"))));
    assert_eq!(split.lines.len(), 2);
    let control = refused(&peer(&line("10.0.0.1", "bulk")));
    assert_eq!(
        control,
        "line 2: no line of the peer \"store\" carries control channels: give one the role \"both\""
    );
    assert!(refused(&peer(&line("10.0.0.1", "keys"))).contains("carries data channels"));
}

#[test]
fn a_session_has_so_many_lines() {
    let addresses = |count: usize| {
        let each: Vec<String> = (1..=count).map(|at| format!("\"10.0.0.{at}\"")).collect();
        peer(&format!("addresses = [{}]", each.join(",")))
    };
    assert_eq!(only(&addresses(Limits::LINES_MAX)).lines.len(), Limits::LINES_MAX);
    assert_eq!(
        refused(&addresses(Limits::LINES_MAX + 1)),
        "line 2: the peer \"store\" has more than 64 lines"
    );
}

#[test]
fn mistakes_are_refused_with_line_and_reason() {
    let good = peer("addresses = [\"10.0.0.1\"]");
    let line = |more: &str| {
        peer(&format!("addresses = [\"10.0.0.2\"]\n[[peer.line]]\naddress = \"10.0.0.1\"\n{more}"))
    };
    let cases = [
        (format!("{good}{}", good.replace(KEY_A, KEY_B)), 6, "there is a peer \"store\" already"),
        (
            format!("{good}{}", good.replace("store", "other")),
            7,
            "this key is that of the peer \"store\" already",
        ),
        (good.replace("store", "st ore"), 2, "\"st ore\" is no peer's name"),
        (good.replace(KEY_A, "x"), 3, "\"x\" is no server's key: a public key has 52 characters"),
        (good.replace("addresses", "address"), 4, "unknown field `address`"),
        (good.replace("10.0.0.1", "store.example:1"), 4, "\"store.example:1\" is no address of a server"),
        (good.replace("10.0.0.1", "10.0.0.1:0"), 4, "is no address"),
        (good.replace("10.0.0.1", "10.0.0.1:65536"), 4, "is no address"),
        (good.replace("10.0.0.1", "0.0.0.0:4477"), 4, "is no address"),
        (good.replace("10.0.0.1", "224.0.0.1"), 4, "is no address"),
        (good.replace("10.0.0.1", "[10.0.0.1]"), 4, "is no address"),
        (good.replace("10.0.0.1", ""), 4, "\"\" is no address"),
        (
            peer("addresses = [\"10.0.0.1\", \"10.0.0.1:4477\"]"),
            4,
            "the peer \"store\" has this line already",
        ),
        (peer(""), 2, "the peer \"store\" has no line: give it addresses"),
        (peer("addresses = []"), 2, "has no line"),
        (peer("addresses = \"10.0.0.1\""), 4, "invalid type: string"),
        (peer("protection = \"strong\""), 4, "\"strong\" is no protection: use \"clear\", \"signed\""),
        (line("protection = \"none\""), 7, "\"none\" is no protection: use \"clear\", \"signed\""),
        (line("protection = 1"), 7, "invalid type: integer"),
        (
            line("role = \"keys\"\nprotection = \"sealed\""),
            8,
            "a line of role \"keys\" has no data channels to protect",
        ),
        (line("role = \"fast\""), 7, "\"fast\" is no role: use \"both\", \"bulk\" or \"keys\""),
        (line("via = \"eth 0\""), 7, "\"eth 0\" is neither a local IP address nor the name of an interface"),
        (line("via = \"a/b\""), 7, "is neither"),
        (line("via = \"0123456789abcdef\""), 7, "is neither"),
        (line("via = \"\""), 7, "is neither"),
        (line("via = \"..\""), 7, "is neither"),
        (line("via = \"0.0.0.0\""), 7, "is neither"),
        (
            line("via = \"fd00::1\""),
            7,
            "a line to 10.0.0.1 cannot start at fd00::1: one is IPv4, the other IPv6",
        ),
        (line("weight = 7"), 7, "unknown field `weight`"),
        (line("[[peer.line]]\naddress = \"10.0.0.1\""), 8, "has this line already"),
        (line("[[peer.line]]\nrole = \"both\""), 7, "missing field `address`"),
        ("[[peers]]".to_owned(), 1, "unknown field `peers`"),
        ("[peer]".to_owned(), 1, "invalid type: map"),
    ];
    for (text, at, message) in cases {
        let error = refused(&text);
        assert!(error.starts_with(&format!("line {at}: ")) && error.contains(message), "{text}: {error}");
    }
}

#[test]
fn interfaces_are_named_as_the_kernel_allows() {
    for good in ["e", "eth0", "enp1s0f0.100", "wg-home", "0123456789abcde"] {
        assert_eq!(parse_via(good), Some(Via::Interface(good.to_owned())));
    }
    assert_eq!(parse_via("::1"), Some(Via::Address("::1".parse().unwrap())));
    assert_eq!(parse_via("eth0:1"), None);
}

#[test]
fn a_file_is_named_in_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.toml");
    std::fs::write(&path, peer("addresses = [\"10.0.0.1\"]")).unwrap();
    assert_eq!(Peers::load(&path).unwrap().iter().count(), 1);
    std::fs::write(&path, peer("")).unwrap();
    let error = Peers::load(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: line 2: ", path.display())), "{error}");
}
