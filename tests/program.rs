//! The program, run as its users run it: what it prints, what it refuses and why, and how it ends.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use bowline::client::{Client, Error, OpenOptions, Peers, Session, SessionEvent, SessionLoss};
use bowline::net::key_file;
use bowline::secure::Identity;
use jiff::{SignedDuration, Timestamp};
use program::{RIGHTS, Server, User, client_entry, export, finish, finish_child, key_in, peer_entry};
use rustix::process::Signal;
use support::recorder::contains_secret;
use support::{LONG, pattern};
use tokio::time::timeout;

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

const ON_TWO_LINES: [&str; 3] = ["--listen", "127.0.0.1:0", "127.0.0.2:0"];

/// A server of the exports `media` and `private`, and a client of `media`.
struct Scene {
    store: User,
    station: User,
    server: Server,
    server_key: String,
    client_key: String,
}

impl Scene {
    fn start() -> Self {
        let (store, station) = (User::new(), User::new());
        let (server_key, client_key) = (store.make_key(), station.make_key());
        for folder in ["media", "private"] {
            fs::create_dir(store.at(folder)).unwrap();
            fs::write(store.at(folder).join("file"), folder).unwrap();
        }
        store.set("clients.toml", &client_entry("station", &client_key, &RIGHTS));
        let (media, private) = (export("media", &store.at("media")), export("private", &store.at("private")));
        let mut arguments = vec![media.as_str(), &private, "--until-stdin-closes"];
        arguments.extend(ON_TWO_LINES);
        let server = store.serve(&arguments);
        station.set("peers.toml", &peer_entry(&server_key, &server.addresses()));
        Self { store, station, server, server_key, client_key }
    }

    /// The server's end, which is an orderly one, with nothing on its output but how data channels are protected.
    fn end(mut self) -> Vec<String> {
        self.server.close_input();
        let (status, out, log) = self.server.ended();
        let protection = ["data channels", "export media", "export private", "client station"];
        let protection = protection.map(|what| format!("{what} at least signed"));
        assert_eq!((status.code(), &out[..]), (Some(0), &protection[..]));
        log
    }

    /// A session of the station, through the library.
    async fn connect(&self) -> Result<Session, Error> {
        let identity = Identity::from_text(&key_file::read(&self.station.settings("key")).unwrap()).unwrap();
        let peers = Peers::load(&self.station.settings("peers.toml")).unwrap();
        Client::new(Arc::new(identity)).unwrap().connect(peers.named("store").unwrap()).await
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A stream that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_new_identity_is_its_owner_s_and_made_once() {
    let user = User::new();
    let made = user.run(&["key", "new"]);
    let file = user.settings("key");
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(made.err.contains(&file.display().to_string()), "{}", made.err);
    let text = fs::read_to_string(&file).unwrap();
    let secret = text.trim_end().rsplit('-').next().unwrap().to_owned();
    assert_eq!(secret.len(), 52);
    let secret = data_encoding::BASE32_NOPAD.decode(secret.to_uppercase().as_bytes()).unwrap();
    assert_eq!(contains_secret(&[&made.out, made.err.as_bytes()].concat(), &secret), None);
    let out = made.success();
    key_in(&out);

    let again = user.run(&["key", "new"]);
    again.failure(&["cannot make an identity", &file.display().to_string(), "exists already"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "the first one is as it was");

    let shown = user.run(&["key", "show"]);
    assert_eq!(shown.err, "");
    assert_eq!(contains_secret(&shown.out, &secret), None);
    assert_eq!(shown.success(), out);
}

#[test]
fn an_identity_is_where_the_user_says_or_where_users_look() {
    let user = User::new();
    let elsewhere = user.at("a/b/mine");
    let elsewhere = elsewhere.to_str().unwrap();
    let given = key_in(&user.run(&["key", "new", "--key", elsewhere]).success());
    assert_eq!(key_in(&user.run(&["key", "show", "--key", elsewhere]).success()), given);
    assert_eq!(
        key_in(&finish(user.command(&["key", "show"]).env("BOWLINE_KEY", elsewhere)).success()),
        given
    );

    // Without XDG_CONFIG_HOME, and with one that is not absolute, which the convention says to ignore.
    let at_home = key_in(&finish(user.command(&["key", "new"]).env_remove("XDG_CONFIG_HOME")).success());
    assert!(user.at("home/.config/bowline/key").is_file());
    let relative = finish(user.command(&["key", "show"]).env("XDG_CONFIG_HOME", "config"));
    assert_eq!(key_in(&relative.success()), at_home);
    let nowhere = finish(user.command(&["key", "show"]).env_remove("XDG_CONFIG_HOME").env_remove("HOME"));
    nowhere.failure(&["no path for \"key\"", "HOME"]);
}

#[test]
fn an_identity_that_is_not_safe_or_not_there_is_refused() {
    let user = User::new();
    let file = user.settings("key");
    let name = file.display().to_string();
    user.run(&["key", "show"]).failure(&["no identity", &name, "bowline key new"]);

    user.make_key();
    for wrong in [0o640, 0o604, 0o620] {
        fs::set_permissions(&file, Permissions::from_mode(wrong)).unwrap();
        let command = format!("chmod 600 {name}");
        user.run(&["key", "show"]).failure(&["others can use", &name, &format!("{wrong:04o}"), &command]);
    }
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    user.run(&["key", "show"]).success();

    let secret = fs::read_to_string(&file).unwrap();
    let cut = &secret[..secret.len() - 2];
    user.set("key", cut);
    let said = user.run(&["key", "show"]).failure(&[&name, "holds no identity"]);
    assert!(!said.contains(&cut[cut.len() - 20..]), "what may be most of a secret is not shown");
}

#[test]
fn wrong_usage_exits_with_2() {
    let user = User::new();
    user.run(&[]).misuse("Usage");
    user.run(&["fetch"]).misuse("fetch");
    user.run(&["key"]).misuse("Usage");
    user.run(&["serve", "media=/srv"]).misuse("--listen");
    user.run(&["serve", "--listen", "127.0.0.1:0"]).misuse("NAME=DIR");
    user.run(&["serve", "media", "--listen", "127.0.0.1:0"]).misuse("write NAME=DIR");
    user.run(&["serve", "a/b=/srv", "--listen", "127.0.0.1:0"]).misuse("\"a/b\" is no name for an export");
    user.run(&["serve", "media=/srv", "--listen", "store"]).misuse("store");
    for (flag, value, why) in [
        ("--protection", "open", "is none of clear, signed, sealed"),
        ("--export-protection", "sealed", "write NAME=PROTECTION"),
        ("--export-protection", "media=open", "is none of clear, signed, sealed"),
        ("--export-protection", "a/b=sealed", "a/b"),
    ] {
        user.run(&["serve", "media=/srv", "--listen", "127.0.0.1:0", flag, value]).misuse(why);
    }
    user.run(&["cat"]).misuse("PEER:EXPORT/PATH");
    for (source, why) in
        [("file", "no colon"), ("store:media", "the name is empty"), ("store:media/../x", "\"..\"")]
    {
        user.run(&["cat", source]).misuse(why);
    }
    let help = user.run(&["--help"]);
    assert_eq!(help.err, "");
    assert!(help.success().contains("serve"));
}

#[test]
fn a_server_says_where_it_listens_and_ends_with_its_input() {
    let scene = Scene::start();
    let addresses = scene.server.addresses();
    let hosts: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.2"], "in the order in which they were given");
    for address in addresses {
        assert_ne!(address.port(), 0);
        TcpStream::connect(address).unwrap();
    }
    let secret = fs::read_to_string(scene.store.settings("key")).unwrap();
    let secret = secret.trim_end().rsplit('-').next().unwrap();
    for shown in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{shown}", scene.server.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(secret), "others can see the {shown}");
    }
    let log = scene.end();
    let is_bad = |line: &&String| line.contains(" WARN ") || line.contains(" ERROR ");
    assert_eq!(log.iter().filter(is_bad).count(), 0, "nothing was wrong: {log:#?}");
}

/// What holds identities and keys leaves no picture of its memory behind.
#[test]
fn t07_neither_serve_nor_cat_can_dump_its_memory() {
    let scene = Scene::start();
    let dumps = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(dumps(scene.server.pid()), ["0", "0"]);
    // More than fits into a pipe, so that the reader is there for as long as nobody takes it.
    fs::write(scene.store.at("media/long"), pattern(8 << 20)).unwrap();
    let mut command = scene.station.command(&["cat", "store:media/long"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(dumps(child.id()), ["0", "0"]);
    drop(out);
    finish_child(child);
    scene.end();
}

#[test]
fn a_server_ends_when_it_is_told_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let user = User::new();
        user.make_key();
        user.set("clients.toml", "");
        fs::create_dir(user.at("media")).unwrap();
        let export = export("home", &user.at("media"));
        // Told at once: whoever has read the first line can rely on it.
        let server = user.serve_logging(&[&export, "--listen", "127.0.0.1:0"], "warn");
        server.signal(signal);
        let (status, out, log) = server.ended();
        let out: Vec<&str> = out.iter().map(String::as_str).collect();
        let protection = ["data channels at least signed", "export home at least signed"];
        assert_eq!((status.code(), &out[..], log), (Some(0), &protection[..], Vec::new()), "{signal:?}");
    }
}

#[test]
fn a_server_needs_its_settings() {
    let user = User::new();
    fs::create_dir(user.at("media")).unwrap();
    let media = export("media", &user.at("media"));
    let serve = |media: &str| user.run(&["serve", media, "--listen", "127.0.0.1:0"]);
    serve(&media).failure(&["no identity in", "bowline key new"]);
    user.make_key();

    let clients = user.settings("clients.toml").display().to_string();
    serve(&media).failure(&["cannot use the list of clients", &clients, "No such file", "[[client]]"]);
    user.set("clients.toml", "[[client]]\nkey = \"abc\"\nname = \"a\"\nexports = [\"media\"]\n");
    let said = serve(&media).failure(&[&clients, "line 2", "\"abc\" is no client's key"]);
    assert!(!said.contains("try:"), "no advice to write what was written: {said}");
    user.set("clients.toml", "[[client]]\nname = \"a\"\n\n\nrights = [\"rite\"]\nkey = ");
    serve(&media).failure(&[&clients, "line 6"]);
    fs::set_permissions(user.settings("clients.toml"), Permissions::from_mode(0o602)).unwrap();
    serve(&media).failure(&[&clients, "chmod o-w"]);
    user.set("clients.toml", "");

    serve("media=/").failure(&["cannot serve", "\"media\"", "\"/\" is never exported"]);
    let missing = user.at("nothing").display().to_string();
    serve(&format!("media={missing}")).failure(&["\"media\"", "there is no directory", &missing]);
    serve(&export("media", &user.settings("key"))).failure(&["\"media\"", "is not a directory"]);
    let twice = ["serve", &media, &media, "--listen", "127.0.0.1:0"];
    user.run(&twice).failure(&["two exports \"media\""]);
    let unknown = ["serve", &media, "--listen", "127.0.0.1:0", "--export-protection", "medai=sealed"];
    user.run(&unknown).failure(&["cannot serve", "no export \"medai\" to protect", "try: serve medai=DIR"]);
    let before = user.at("before").display().to_string();
    let missing = ["serve", &media, "--listen", "127.0.0.1:0", "--previous-key", &before];
    let said = user.run(&missing).failure(&["there is no identity in", &before, "or no --previous-key"]);
    assert!(!said.contains("key new"), "a new key is no previous one: {said}");
}

#[test]
fn a_server_says_how_data_channels_are_protected() {
    let user = User::new();
    user.make_key();
    let exports = ["media", "scratch", "secret"].map(|name| {
        fs::create_dir(user.at(name)).unwrap();
        export(name, &user.at(name))
    });
    let client = |name: &str, first: char, exports: &str, protection: &str| {
        let key = format!("{first}{}", "a".repeat(51));
        format!(
            "[[client]]\nkey = \"{key}\"\nname = \"{name}\"\nexports = [{exports}]\nprotection = \"{protection}\"\n"
        )
    };
    let trusted = client("trusted", 'b', "\"media\", \"scratch\"", "clear");
    let guarded = client("guarded", 'c', "\"media\", \"secret\"", "clear");
    user.set("clients.toml", &(client("usual", 'd', "\"media\"", "signed") + &guarded));
    let [media, scratch, secret] = &exports;
    let mut arguments =
        vec![media.as_str(), scratch, secret, "--until-stdin-closes", "--listen", "127.0.0.1:0"];
    arguments.extend(["--protection", "clear", "--export-protection", "secret=sealed"]);
    arguments.extend(["--export-protection", "media=clear"]);
    let mut server = user.serve_logging(&arguments, "info");
    server.log_has("serving as root");

    // Whoever becomes less protected is named in the log, also where the log has warnings only.
    user.set("clients.toml", &(client("usual", 'd', "\"media\"", "signed") + &guarded + &trusted));
    let warning = server.log_has("data channels may be clear");
    assert!(warning.contains("WARN") && warning.contains("client=trusted"), "{warning}");
    assert!(warning.contains("file bytes can be changed on the way unnoticed"), "{warning}");
    server.log_has("client trusted at least clear");
    server.log_has("client usual at least signed");
    server.close_input();
    let (status, out, log) = server.ended();
    assert_eq!(status.code(), Some(0));
    let expected = [
        "data channels at least clear",
        "export media at least clear",
        "export scratch at least clear",
        "export secret at least sealed",
        "client guarded at least sealed",
        "client usual at least signed",
    ];
    assert_eq!(out, expected, "as it was at the start");
    assert!(!log.iter().any(|line| line.contains("WARN")), "{log:?}");

    // A server that starts with such a client warns at once.
    let again = user.serve(&arguments);
    let warning = again.log_has("data channels may be clear");
    assert!(warning.contains("WARN") && warning.contains("client=trusted"), "{warning}");
}

#[test]
fn a_server_needs_its_addresses() {
    let user = User::new();
    user.make_key();
    user.set("clients.toml", "");
    fs::create_dir(user.at("media")).unwrap();
    let export = export("media", &user.at("media"));
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |address: &str| user.run(&["serve", &export, "--listen", "127.0.0.2:0", address]);
    run(&address).failure(&["cannot listen on", &address, "in use", "port 0"]);
    // An address for documentation, which no machine has.
    run("192.0.2.1:0").failure(&["cannot listen on 192.0.2.1:0", "one of this machine's"]);
}

#[test]
fn cat_prints_the_file_and_nothing_else() {
    let scene = Scene::start();
    let content = pattern((5 << 20) + 1);
    fs::create_dir(scene.store.at("media/clips")).unwrap();
    fs::write(scene.store.at("media/clips/a b.mov"), &content).unwrap();
    fs::write(scene.store.at("media/empty"), "").unwrap();
    let done = scene.station.run(&["cat", "store:media/clips/a b.mov"]);
    assert_eq!((done.status.code(), done.err.as_str()), (Some(0), ""));
    assert!(done.out == content);
    let done = scene.station.run(&["cat", "store:media/empty"]);
    assert_eq!((done.status.code(), done.err.as_str(), done.out), (Some(0), "", Vec::new()));

    // The same with settings in other places.
    let (key, peers) = (scene.station.settings("key"), scene.station.settings("peers.toml"));
    let stranger = User::new();
    let flags = ["--key", key.to_str().unwrap(), "--peers", peers.to_str().unwrap()];
    let with_flags = stranger.run(&[&["cat", "store:media/file"], &flags[..]].concat());
    assert_eq!(with_flags.success(), "media");
    let mut by_variables = stranger.command(&["cat", "store:media/file"]);
    by_variables.env("BOWLINE_KEY", &key).env("BOWLINE_PEERS", &peers);
    assert_eq!(finish(&mut by_variables).success(), "media");
    scene.end();
}

#[test]
fn cat_says_what_the_server_does_not_give() {
    let scene = Scene::start();
    let cat = |source: &str| scene.station.run(&["cat", source]);
    let mut answers = Vec::new();
    for source in ["store:media/nothing", "store:media/no/thing", "store:nothing/file", "store:private/file"]
    {
        let said = cat(source).failure(&[&format!("cannot read {source}\n"), "no such file or export"]);
        // The hint names the export that was asked for.
        let (export, _) = source.split_once('/').unwrap();
        assert!(said.contains(&format!("try: bowline ls {export}/, to see")), "{said}");
        answers.push(said.replace(source, "").replace(export, ""));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "nobody learns what there is: {answers:?}");
    fs::create_dir(scene.store.at("media/folder")).unwrap();
    cat("store:media/folder").failure(&["store:media/folder", "it is a directory", "a file in it"]);
    std::os::unix::fs::symlink("/etc/hostname", scene.store.at("media/link")).unwrap();
    cat("store:media/link").failure(&["store:media/link", "leads outside the export"]);
    cat("other:media/file").failure_with(3, &["no peer \"other\"", "peers.toml", "bowline peer trust"]);
    scene.end();
}

#[test]
fn cat_says_why_there_is_no_session() {
    let scene = Scene::start();
    let (station, addresses) = (&scene.station, scene.server.addresses());
    let cat = |user: &User| user.run(&["cat", "store:media/file"]);

    station.set("peers.toml", &peer_entry(&scene.client_key, &addresses));
    cat(station).failure(&[
        "cannot read store:media/file",
        "key has changed and is not",
        &scene.client_key,
        "bowline key show",
    ]);

    // Bound and not listening: nobody else can have the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let nobody = socket.local_addr().unwrap().as_socket().unwrap();
    station.set("peers.toml", &peer_entry(&scene.server_key, &[nobody]));
    cat(station).failure(&["cannot reach server \"store\"", &nobody.to_string(), "refused", "bowline serve"]);

    station.set("peers.toml", "[[peer]]\nname = \"store\"\nkey = 1\n");
    cat(station).failure(&["cannot use the list of peers", "peers.toml: line 3"]);
    fs::remove_file(station.settings("peers.toml")).unwrap();
    cat(station).failure(&["no server is known yet", "does not exist", "bowline peer trust"]);

    let stranger = User::new();
    cat(&stranger).failure(&["no identity", "bowline key new"]);
    let key = stranger.make_key();
    stranger.set("peers.toml", &peer_entry(&scene.server_key, &addresses));
    let hint = format!("bowline client add NAME {key} EXPORT");
    cat(&stranger).failure(&["does not allow this client's key", &hint]);
    scene.end();
}

#[test]
fn whoever_closes_the_output_has_seen_enough() {
    let scene = Scene::start();
    let content = pattern(32 << 20);
    fs::write(scene.store.at("media/long"), &content).unwrap();
    let mut command = scene.station.command(&["cat", "store:media/long"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(start, content[..1000]);
    let done = finish_child(child);
    assert_eq!((done.status.code(), done.err.as_str()), (Some(0), ""));

    // Also where all of it fits into the buffers, and where it is a key.
    for arguments in
        [&["cat", "store:media/file"][..], &["cat", "store:media/empty"], &["key", "show"], &["--help"]]
    {
        fs::write(scene.store.at("media/empty"), "").unwrap();
        let mut command = scene.station.command(arguments);
        command.stdin(Stdio::null()).stdout(closed_pipe()).stderr(Stdio::piped());
        let done = finish_child(command.spawn().unwrap());
        assert_eq!((done.status.code(), done.err.as_str()), (Some(0), ""), "{arguments:?}");
    }
    scene.end();
}

#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let scene = Scene::start();
    for arguments in [&["cat", "store:media/file"][..], &["key", "show"]] {
        let mut command = scene.station.command(arguments);
        command.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/full").unwrap());
        let done = finish_child(command.stderr(Stdio::piped()).spawn().unwrap());
        done.failure(&["cannot write to standard output", "No space left"]);
    }
    // With nobody to tell, the exit code still tells.
    let mut command = scene.station.command(&["cat", "store:media/nothing"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(closed_pipe()).spawn().unwrap();
    assert_eq!(finish_child(child).status.code(), Some(3));
    scene.end();
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let user = User::new();
    user.make_key();
    let with_filter = |filter: &str| finish(user.command(&["key", "show"]).env("BOWLINE_LOG", filter));
    with_filter("bowline=loud").failure(&["BOWLINE_LOG", "debug"]);
    with_filter("bowline=debug").success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_taken_off_the_list_loses_its_session() {
    let scene = Scene::start();
    let session = scene.connect().await.unwrap();
    session.all_lines_up(LONG).await.unwrap();
    let file = session.open("media", "file", &OpenOptions::new().read(true)).await.unwrap();
    let mut events = session.events();

    scene.store.set("clients.toml", &client_entry("other", &scene.server_key, &RIGHTS));
    let ended = async {
        loop {
            if let SessionEvent::Ended(loss) = events.recv().await.unwrap() {
                break loss;
            }
        }
    };
    let loss = timeout(LONG, ended).await.expect("the list is in force");
    assert_eq!(loss, SessionLoss::NotAllowed);
    let outcome = file.read_at(0, &mut [0; 5]).await;
    assert!(matches!(outcome, Err(Error::SessionEnded(SessionLoss::NotAllowed))), "{outcome:?}");
    let again = scene.connect().await;
    assert!(matches!(again, Err(Error::HandshakeRefused { .. })), "{again:?}");

    scene.store.set("clients.toml", &client_entry("station", &scene.client_key, &RIGHTS));
    let connected = async { while scene.connect().await.is_err() {} };
    timeout(LONG, connected).await.expect("the list is in force");
    drop(file);
    session.close().await;
    scene.end();
}

/// From the moment at which the new list is in its place, by the file system's own note of it, to the lines of the server's
/// log about the end of each connection: both times are taken where the things happen, so this test's own turn on a
/// processor does not count. A machine that is busy with other things has three tries.
#[tokio::test(flavor = "multi_thread")]
async fn t26_a_client_that_is_taken_off_the_list_has_no_channel_a_second_later() {
    const SECOND: SignedDuration = SignedDuration::from_secs(1);
    let scene = Scene::start();
    let mut least = SignedDuration::MAX;
    for _ in 0..3 {
        let connecting = async {
            loop {
                if let Ok(session) = scene.connect().await {
                    break session;
                }
            }
        };
        let session = timeout(LONG, connecting).await.expect("the list is in force");
        session.all_lines_up(LONG).await.unwrap();
        let channels = session.channels();
        assert!(channels.len() >= 3, "one for data on each line, and one for control: {channels:?}");

        scene.store.set("clients.toml", &client_entry("other", &scene.server_key, &RIGHTS));
        let list = fs::metadata(scene.store.settings("clients.toml")).unwrap();
        let replaced = Timestamp::new(list.ctime(), i32::try_from(list.ctime_nsec()).unwrap()).unwrap();
        let mut last = replaced;
        for _ in &channels {
            let line = scene.server.log_has("connection closed");
            last = last.max(line.split(' ').next().unwrap().parse().unwrap());
        }
        least = least.min(last.duration_since(replaced));
        session.close().await;
        scene.store.set("clients.toml", &client_entry("station", &scene.client_key, &RIGHTS));
        if least < SECOND {
            break;
        }
    }
    println!("the last channel is gone {least:#} after the new list is there");
    assert!(least < SECOND, "{least:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_list_leaves_the_old_one_in_force() {
    let scene = Scene::start();
    let session = scene.connect().await.unwrap();
    let file = session.open("media", "file", &OpenOptions::new().read(true)).await.unwrap();
    let list = scene.store.settings("clients.toml");

    for (broken, why) in [("[[client]]\nkey = \"abc\"\n", "line 1"), ("[[client", "line 1")] {
        scene.store.set("clients.toml", broken);
        let warning = scene.server.log_has("the old list of clients stays in force");
        assert!(warning.contains("WARN") && warning.contains(why), "{warning}");
        assert!(warning.contains(&list.display().to_string()), "{warning}");
        assert!(!warning.contains('\u{1b}'), "no colours in a file: {warning}");
    }
    fs::remove_file(&list).unwrap();
    scene.server.log_has("the old list of clients stays in force");

    let mut read = [0; 5];
    assert_eq!(file.read_at(0, &mut read).await.unwrap(), 5);
    assert_eq!(&read, b"media");
    file.close().await.unwrap();
    session.close().await;
    scene.connect().await.unwrap().close().await;
    assert_eq!(scene.station.run(&["cat", "store:media/file"]).success(), "media");
    scene.end();
}
