//! How places parse, and how the commonest failures read.

use super::*;

#[test]
fn sources_parse_or_say_what_is_wrong() {
    let source = Remote::parse_file(OsStr::new("store:media/a/b c")).unwrap();
    assert_eq!(source.shown(), "store:media/a/b c");
    for (bad, why) in [
        ("media/a", "no colon"),
        ("store:media", "the name is empty"),
        (":media/a", "the peer is empty"),
        ("store:/a", "the export is empty"),
        ("store:media/", "the name is empty"),
        ("store:media/../x", "\"..\""),
    ] {
        let error = Remote::parse_file(OsStr::new(bad)).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("write PEER:EXPORT/PATH"), "{error}");
    }
    let root = Remote::parse(OsStr::new("store:media")).unwrap();
    assert!(root.path.is_root() && root == Remote::parse(OsStr::new("store:media/")).unwrap());
    let [folder, file] =
        ["store:media/a/", "store:media/a"].map(|text| Remote::parse(OsStr::new(text)).unwrap());
    assert_eq!(folder.path, file.path);
    assert!(folder.is_directory && !file.is_directory);
}

#[test]
fn a_colon_before_the_first_slash_makes_it_a_server_s() {
    for (argument, is_remote) in
        [("store:media/a", true), ("./store:media", false), ("/a:b", false), ("a", false), ("a:b", true)]
    {
        assert_eq!(Remote::is_meant(OsStr::new(argument)), is_remote, "{argument}");
    }
}

/// What people and programs read of the commonest failures, as it stands in the file beside this one.
#[test]
fn the_commonest_failures_read_as_they_did() {
    let own = Identity::from_text("bowline-identity-1-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq")
        .unwrap();
    let key = PublicKey([7; 32]);
    let address: SocketAddr = "10.0.0.1:4477".parse().unwrap();
    let line = bowline::client::LineConfig {
        address,
        via: None,
        role: bowline::model::LineRole::Both,
        protection: None,
    };
    let peer = Peer { name: "store".to_owned(), key, protection_min: None, lines: vec![line] };
    let io = |errno: rustix::io::Errno| std::io::Error::from(errno);
    let unreachable = |errno| Error::Unreachable { peer: "store".to_owned(), address, source: io(errno) };
    let refused = |reason: Reason| Error::Refused(reason.into());
    let what = "cannot copy clips/a.mov to store:media/a.mov";
    let known =
        Peers::parse(&format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"10.0.0.1\"]\n"));
    let of = |error: Error| describe(what, &error, &peer, &own);
    let busy = bowline::model::Refusal { reason: Reason::Busy, retry_after_ms: 4200 };
    let clear = crate::cli::arguments::LineArguments {
        protection: Some(bowline::model::Protection::Clear),
        ..Default::default()
    };
    let strict = Peer { protection_min: Some(bowline::model::Protection::Signed), ..peer.clone() };
    let failures = [
        of(Error::ServerKeyChanged { address, pinned: key }),
        of(Error::HandshakeRefused { address, pinned: key, own: own.public() }),
        unknown_peer("stor", &known.unwrap(), Path::new("/home/me/.config/bowline/peers.toml")),
        of(unreachable(rustix::io::Errno::CONNREFUSED)),
        of(unreachable(rustix::io::Errno::HOSTUNREACH)),
        of(unreachable(rustix::io::Errno::NODEV)),
        of(refused(Reason::PermissionDenied)),
        of(refused(Reason::Locked)),
        of(Error::Refused(busy)),
        of(refused(Reason::Expired)),
        of(refused(Reason::Stale)),
        of(refused(Reason::TakenOver)),
        of(refused(Reason::NoSpace)),
        of(Error::OtherVersion { address, theirs: 2, ours: 1 }),
        of(Error::OtherVersion { address, theirs: 1, ours: 2 }),
        of(Error::Protocol),
        with_vias(&strict, &clear, &|| Err(Failure::new("not asked"))).unwrap_err(),
    ];
    let host = clean(&rustix::system::uname().nodename().to_string_lossy());
    let said: String =
        failures.iter().map(|failure| format!("{}{}\n", failure.text(), failure.json())).collect();
    let said = said.replace(&format!("client {host} "), "client HOST ");
    let expected = include_str!("failures.txt");
    if said != expected {
        let at = std::env::temp_dir().join("bowline-failures.txt");
        std::fs::write(&at, &said).unwrap();
        panic!("failures read otherwise; what they read now is in {}", at.display());
    }
}
