//! `bowline status` and `bowline release`: what a server process tells its administrator over its admin socket, an open
//! that the administrator ends, and who may ask.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bowline::client::{ChannelState, OpenOptions, Session};
use bowline::model::{ByteRange, LineRole, LineSet, LockMode, Reason};
use program::{Done, Server, User, client_entry, export, finish, peer_entry};
use rustix::process::{Signal, geteuid};
use serde_json::Value;
use support::{EXPORT, LONG, World, pattern, reason, two};

mod support;

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// A user without rights, by a number that nobody has.
const NOBODY: u32 = 54_321;

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

/// Runs a command of the administrator's against a socket.
fn ask(arguments: &[&str], socket: &Path) -> Done {
    User::new().run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
}

/// The objects of a status in JSON.
fn json(socket: &Path) -> Vec<Value> {
    let done = ask(&["status", "--json"], socket);
    assert_eq!(done.err, "");
    done.success().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["type"] == kind).collect()
}

/// The one open of a world, as its status tells it.
fn the_open(world: &World) -> Value {
    let objects = json(&world.admin_socket());
    let [open] = of(&objects, "open")[..] else { panic!("not one open: {objects:#?}") };
    open.clone()
}

/// Looks at a status again and again until something in it is so.
async fn until(world: &World, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let looking = async {
        loop {
            let objects = json(&world.admin_socket());
            if is_so(&objects) {
                break objects;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn another(world: &World, session: &Session) {
    fs::write(world.file("another"), "content").unwrap();
    let options = OpenOptions::new().read(true).exclusive().with_key(false);
    session.open(EXPORT, "another", &options).await.unwrap().leave_open();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_lists_what_is_open_and_locked_and_text_and_json_agree() {
    let (world, own, other) = two(&pattern(5000)).await;
    let file = world.open(&own, &read_write()).await.unwrap();
    let duplicate = world.resume(&own, &world.key_of(&file).await, LineSet::ALL).await.unwrap();
    file.try_lock(range(0, 10), LockMode::Exclusive).await.unwrap();
    file.try_lock(ByteRange::from_start(100).unwrap(), LockMode::Shared).await.unwrap();
    another(&world, &other).await;
    let objects = json(&world.admin_socket());

    let server = &objects[0];
    assert_eq!((&server["type"], &server["process_id"]), (&"server".into(), &world.pid().into()));
    assert_eq!(server["key"], world.server_key.to_string());
    assert_eq!(server["fingerprint"], world.server_key.fingerprint());
    for (what, count) in
        [("sessions", 2), ("opens", 2), ("orphans", 0), ("holders", 3), ("locks", 2), ("waits", 0)]
    {
        assert_eq!(server[what], count, "{what}");
    }
    // The sessions with the channels that the clients know of.
    assert_eq!(of(&objects, "session").len(), 2);
    for (session, name, handles) in [(&own, "client-0", 2), (&other, "client-1", 1)] {
        let id = session.id().to_string();
        let told = of(&objects, "session").into_iter().find(|told| told["session"] == id).unwrap();
        assert_eq!((&told["client_name"], &told["state"]), (&name.into(), &"live".into()));
        assert_eq!((&told["handles"], &told["kept_ms"]), (&handles.into(), &Value::Null));
        assert_eq!(told["process_id"], std::process::id());
        let channels = of(&objects, "channel").into_iter().filter(|channel| channel["session"] == id);
        let channels: BTreeSet<String> = channels
            .map(|told| {
                format!("{} {} {}", told["channel"], told["kind"], told["protection"]).replace('"', "")
            })
            .collect();
        let known = session.channels().into_iter().filter(|status| status.state == ChannelState::Live);
        let known: BTreeSet<String> =
            known.map(|status| format!("{} {} {}", status.number, status.kind, status.protection)).collect();
        assert_eq!(channels, known);
        assert_eq!(told["channels"], known.len());
    }
    // The opens.
    let opens = of(&objects, "open");
    let locked = opens.iter().find(|open| open["owner_name"] == "client-0").unwrap();
    let stat = fs::metadata(world.file("file")).unwrap();
    assert_eq!((&locked["device"], &locked["inode"]), (&stat.dev().into(), &stat.ino().into()));
    assert_eq!((&locked["state"], &locked["export"]), (&"held".into(), &EXPORT.into()));
    assert_eq!((&locked["keys"], &locked["grace_left_ms"]), (&2.into(), &Value::Null));
    assert_eq!(locked["rights"], serde_json::json!(["read", "write"]));
    let locks = serde_json::json!([
        {"start": 0, "end": 10, "mode": "exclusive"},
        {"start": 100, "end": null, "mode": "shared"},
    ]);
    assert_eq!(locked["locks"], locks);
    let alone = opens.iter().find(|open| open["owner_name"] == "client-1").unwrap();
    assert_eq!((&alone["share"], &alone["locks"]), (&serde_json::json!([]), &serde_json::json!([])));
    let holders = of(&objects, "holder");
    let of_locked: Vec<_> = holders.iter().filter(|holder| holder["open"] == locked["open"]).collect();
    assert_eq!(of_locked.len(), 2);
    for holder in of_locked {
        assert_eq!((&holder["session"], &holder["state"]), (&own.id().to_string().into(), &"live".into()));
    }

    check_fields(&objects);
    // No name of a file is told, and the text says what the objects say, in the same order.
    let text = ask(&["status"], &world.admin_socket()).success();
    for said in [&text, &format!("{objects:?}")] {
        assert!(!said.contains("another"), "{said}");
    }
    let rows = |start: &str| text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    for (kind, start) in
        [("session", "session "), ("channel", "  channel "), ("open", "open "), ("holder", "  holder ")]
    {
        let told = of(&objects, kind);
        assert_eq!(rows(start).len(), told.len(), "{text}");
        for (row, object) in rows(start).iter().zip(told) {
            let id = object[if kind == "holder" { "handle" } else { kind }].to_string();
            assert_eq!(row.split_whitespace().nth(1), Some(id.trim_matches('"')), "{text}");
        }
    }
    assert_eq!(rows("  lock "), ["  lock 0..10  exclusive", "  lock 100..  shared"]);
    check_protection(&objects, &text);
    let summary = text.lines().next().unwrap();
    for part in ["2 sessions", "2 opens (0 orphaned)", "3 holders", "2 locks", "0 waiting"] {
        assert!(summary.contains(part), "{part:?} is not in {summary}");
    }
    duplicate.close().await.unwrap();
}

/// What is in force is told, of everything and of each client, and the text has it too.
fn check_protection(objects: &[Value], text: &str) {
    let facts: Vec<_> =
        of(objects, "protection").iter().map(|fact| (fact["of"].clone(), fact["name"].clone())).collect();
    assert_eq!(facts[0], ("server".into(), Value::Null));
    for name in ["client-0", "client-1"] {
        assert!(facts.contains(&("client".into(), name.into())), "{facts:?}");
        assert!(text.lines().any(|line| line.starts_with(&format!("client {name}"))), "{text}");
    }
    let all = text.lines().find(|line| line.starts_with("data channels ")).unwrap();
    assert!(all.ends_with("at least signed"), "{text}");
}

/// Each object has the fields that the table of docs/status.md lists, and no other.
fn check_fields(objects: &[Value]) {
    check_fields_of(objects, &["server", "protection", "session", "channel", "open", "holder"]);
}

fn check_fields_of(objects: &[Value], kinds: &[&str]) {
    let documented = include_str!("../docs/status.md");
    for kind in kinds {
        let row = documented.lines().find(|line| line.starts_with(&format!("| `{kind}` |"))).unwrap();
        let fields: BTreeSet<&str> =
            row.split('|').nth(2).unwrap().split(',').map(|field| field.trim().trim_matches('`')).collect();
        for object in of(objects, kind) {
            let told =
                object.as_object().unwrap().keys().map(String::as_str).filter(|field| *field != "type");
            assert_eq!(told.collect::<BTreeSet<_>>(), fields, "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_many_pages_has_each_open_once() {
    let world = World::start(b"content").await;
    let session = world.connect([LineRole::Both; 2]).await;
    let mut files = Vec::new();
    for _ in 0..1100 {
        let options = OpenOptions::new().read(true).with_key(false);
        files.push(session.open(EXPORT, "file", &options).await.unwrap());
    }
    let objects = json(&world.admin_socket());
    let ids: Vec<u64> = of(&objects, "open")
        .iter()
        .map(|open| u64::from_str_radix(open["open"].as_str().unwrap(), 16).unwrap())
        .collect();
    assert!(ids.is_sorted() && ids.iter().collect::<BTreeSet<_>>().len() == ids.len());
    assert_eq!((ids.len(), of(&objects, "holder").len(), of(&objects, "server").len()), (1100, 1100, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_shows_its_grace_going_down() {
    let world = World::start(b"content").await;
    let session = world.connect([LineRole::Both; 2]).await;
    let file = world.open(&session, &read_write().grace(Duration::from_secs(120))).await.unwrap();
    file.leave_open();
    session.close().await;
    let is_orphaned = |objects: &[Value]| of(objects, "open").iter().any(|open| open["state"] == "orphaned");
    let objects = until(&world, "the open is an orphan", is_orphaned).await;
    assert_eq!(objects[0]["orphans"], 1);
    assert_eq!(of(&objects, "holder")[0]["state"], "away");
    let left = |objects: &[Value]| of(objects, "open")[0]["grace_left_ms"].as_u64().unwrap();
    let first = left(&objects);
    assert!((100_000..=120_000).contains(&first), "{first}");
    until(&world, "less is left", |objects| left(objects) < first).await;
    let text = ask(&["status"], &world.admin_socket()).success();
    assert!(
        text.contains(" (1 orphaned)") && text.contains("  orphaned, 1") && text.contains(" s left"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_open_is_another_client_s_at_once_and_its_holder_hears_of_it() {
    let (world, own, other) = two(&pattern(5000)).await;
    let held = world.open(&own, &read_write().exclusive()).await.unwrap();
    let key = world.key_of(&held).await;
    assert_eq!(reason(world.open(&other, &read_write()).await), Reason::Busy);

    let id = the_open(&world)["open"].as_str().unwrap().to_owned();
    let done = ask(&["release", &id], &world.admin_socket());
    assert_eq!(done.success(), format!("released open {id}\n"));
    let theirs = world.open(&other, &read_write().exclusive()).await.unwrap();
    theirs.write_at(0, b"theirs").await.unwrap();

    assert_eq!(reason(held.write_at(0, b"late").await), Reason::Released);
    assert_eq!(reason(held.read_at(0, &mut [0; 4]).await), Reason::Released);
    assert_eq!(reason(world.resume(&own, &key, LineSet::ALL).await), Reason::Released);
    assert_eq!(&fs::read(world.file("file")).unwrap()[..6], b"theirs");
    assert!(world.log().contains("the administrator has ended the open"));

    // Once more, and one that never was.
    for gone in [id.as_str(), "1"] {
        let said = ask(&["release", gone], &world.admin_socket());
        let said = said.failure_with(3, &["error[not-found]: there is no open", gone]);
        assert!(said.contains("try: an id that `bowline status` lists"), "{said}");
    }
    for bad in ["", "open", "0x1f", "12345678901234567"] {
        ask(&["release", bad], &world.admin_socket()).misuse("hexadecimal");
    }
    theirs.write_at(0, b"still").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_of_a_released_open_gets_it() {
    let (world, own, other) = two(&pattern(5000)).await;
    let held = world.open(&own, &read_write()).await.unwrap();
    let waiting = world.open(&other, &read_write()).await.unwrap();
    held.try_lock(ByteRange::ALL, LockMode::Exclusive).await.unwrap();
    let lock = tokio::spawn(async move {
        let locked = waiting.lock(range(0, 10), LockMode::Exclusive, LONG).await;
        (locked, waiting)
    });
    let objects = until(&world, "a lock waits", |objects| objects[0]["waits"] == 1).await;
    let waits = |name: &str| {
        let open = of(&objects, "open").into_iter().find(|open| open["owner_name"] == name).unwrap();
        (open["waits"].clone(), open["open"].as_str().unwrap().to_owned())
    };
    let ((none, id), (one, _)) = (waits("client-0"), waits("client-1"));
    assert_eq!((none, one), (0.into(), 1.into()));
    ask(&["release", &id], &world.admin_socket()).success();
    let (locked, waiting) = lock.await.unwrap();
    locked.unwrap();
    waiting.write_at(0, b"mine").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t37_a_socket_that_is_not_the_server_s_is_not_asked() {
    let world = World::start(b"content").await;
    let real = world.admin_socket();
    let at = |name: &str| world.folder.path().join(name);
    ask(&["status"], &real).success();

    symlink("admin.sock", at("link")).unwrap();
    ask(&["status"], &at("link")).failure(&["is no socket", "not a link to it"]);
    ask(&["release", "1"], &at("link")).failure(&["is no socket"]);
    ask(&["status"], &at("server.key")).failure(&["is no socket"]);
    ask(&["status"], &at("missing")).failure(&["there is no admin socket", "--socket PATH"]);
    drop(UnixListener::bind(at("dead")).unwrap());
    ask(&["status"], &at("dead")).failure(&["no server is behind", "bowline serve"]);

    // One that answers nothing, and one that stops in the middle.
    for (name, answer) in [("silent", ""), ("cut", "{\"type\":\"server\""), ("half", "{\"type\":\"news\"}\n")]
    {
        let listener = UnixListener::bind(at(name)).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        ask(&["status"], &at(name)).failure(&["no whole answer", "ends in the middle"]);
        answering.join().unwrap();
    }
    if !geteuid().is_root() {
        eprintln!("skipped: only root can plant another user's socket");
        return;
    }
    let _planted = UnixListener::bind(at("planted")).unwrap();
    chown(at("planted"), Some(NOBODY), None).unwrap();
    let said = ask(&["status"], &at("planted")).failure(&["belongs to user 54321"]);
    assert!(said.contains("--owner 54321"), "{said}");
}

/// The socket's mode keeps others out; where somebody has widened it, the server itself does.
#[tokio::test(flavor = "multi_thread")]
async fn t37_another_user_is_refused_also_where_the_socket_can_be_reached() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let world = World::start(b"content").await;
    // Where that user may run it.
    let program = world.folder.path().join("bowline");
    fs::copy(env!("CARGO_BIN_EXE_bowline"), &program).unwrap();
    for (path, mode) in [(world.folder.path(), 0o755), (&program, 0o755)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let socket = world.admin_socket();
    let ask = |command: &[&str]| {
        let mut asking = Command::new(&program);
        asking.args(command).arg("--socket").arg(&socket).uid(NOBODY).gid(NOBODY);
        finish(&mut asking)
    };
    ask(&["status"]).failure(&["cannot reach a server", "Permission denied"]);
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let refusal = "user 54321 may not ask this server, which runs as user 0";
    for command in [&["status"][..], &["release", "1"]] {
        ask(command).failure(&[refusal]);
    }
    let object = String::from_utf8(ask(&["status", "--json"]).out).unwrap();
    assert!(object.lines().count() == 1 && object.contains("\"type\":\"error\"") && object.contains(refusal));
    world.until_log_says("refused on the admin socket").await;
}

/// A server that has given up root's rights is asked by its own user, or by root who knows as whom it runs.
#[test]
fn root_asks_a_server_of_another_user_by_naming_that_user() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let store = store();
    fs::create_dir(store.at("run")).unwrap();
    fs::set_permissions(store.at("."), Permissions::from_mode(0o755)).unwrap();
    for at in
        ["config", "config/bowline", "config/bowline/key", "config/bowline/clients.toml", "media", "run"]
    {
        chown(store.at(at), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let socket = store.at("run/admin.sock");
    let _server =
        serve(&store, &["--admin-socket", socket.to_str().unwrap(), "--no-state", "--user", "54321"]);
    assert_eq!(fs::metadata(&socket).unwrap().uid(), NOBODY);
    ask(&["status"], &socket).failure(&["belongs to user 54321"]);
    ask(&["status", "--owner", "54320"], &socket).failure(&["belongs to user 54321"]);
    ask(&["status", "--owner", "54321"], &socket).success();
    ask(&["release", "1", "--owner", "54321"], &socket).failure(&["there is no open 1"]);
}

/// A user with an identity, an empty list of clients and a folder to serve.
fn store() -> User {
    let store = User::new();
    store.make_key();
    store.set("clients.toml", "# nobody\n");
    fs::create_dir(store.at("media")).unwrap();
    store
}

fn serve(store: &User, more: &[&str]) -> Server {
    let media = export("media", &store.at("media"));
    let usual = [&media, "--until-stdin-closes", "--listen", "127.0.0.1:0"];
    store.serve_logging(&[&usual, more].concat(), "bowline=warn")
}

fn refused(store: &User, more: &[&str], parts: &[&str]) {
    let media = export("media", &store.at("media"));
    store.run(&[&["serve", &media, "--listen", "127.0.0.1:0"], more].concat()).failure(parts);
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_admin_socket_is_its_user_s_alone_and_goes_with_the_server() {
    let store = store();
    let mut server = serve(&store, &[]);
    let socket = store.at("home/.local/state/bowline/admin.sock");
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    // Found without being named, also by a login that has a runtime directory which the server knew nothing of.
    let text = store.run(&["status"]).success();
    assert!(text.contains(&format!("process {}", server.pid())), "{text}");
    let runtime = store.at("runtime");
    let mut status = store.command(&["status", "--json"]);
    finish(status.env("XDG_RUNTIME_DIR", &runtime)).success();

    server.close_input();
    let (status, _, log) = server.ended();
    assert_eq!((status.code(), log), (Some(0), Vec::new()));
    assert!(!socket.exists());
    let places = [runtime.display().to_string(), socket.display().to_string()];
    let mut again = store.command(&["status"]);
    let said = finish(again.env("XDG_RUNTIME_DIR", &runtime))
        .failure(&["no server's admin socket", "--socket PATH"]);
    assert!(places.iter().all(|place| said.contains(place)), "{said}");

    // What a flag says goes before a variable.
    let (place, state) = (store.at("elsewhere.sock"), store.at("elsewhere"));
    let media = export("media", &store.at("media"));
    let flags = [
        "serve",
        &media,
        "--until-stdin-closes",
        "--listen",
        "127.0.0.1:0",
        "--no-admin-socket",
        "--no-state",
    ];
    let mut serve = store.command(&flags);
    serve.env("BOWLINE_ADMIN_SOCKET", &place).env("BOWLINE_STATE_DIR", &state);
    let server = Server::start(&mut serve, Vec::new());
    assert!(!socket.exists() && !place.exists() && !state.exists());
    drop(server);
    let mut serve = store.command(&flags[..5]);
    serve.env("BOWLINE_ADMIN_SOCKET", &place).env("BOWLINE_STATE_DIR", &state);
    let server = Server::start(&mut serve, Vec::new());
    assert!(!socket.exists() && place.exists() && state.exists());
    drop(server);
    let both = ["serve", "media=/srv", "--listen", "127.0.0.1:0", "--no-admin-socket", "--admin-socket", "a"];
    store.run(&both).misuse("--no-admin-socket");
}

/// The client's side: what a program that is running has with its servers, for its user alone, and as long as it runs.
#[test]
fn a_running_client_tells_its_user_what_each_line_carries() {
    let (store, station) = (store(), User::new());
    let client_key = station.make_key();
    store.set("clients.toml", &client_entry("station", &client_key, &["read"]));
    fs::write(store.at("media/file"), pattern(8 << 20)).unwrap();
    let server = serve(&store, &["--listen", "127.0.0.2:0"]);
    let key = json(&store.at("home/.local/state/bowline/admin.sock"))[0]["key"].as_str().unwrap().to_owned();
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    station.set("peers.toml", &peer_entry(&key, &server.addresses()));

    let nobody = station.run(&["status"]);
    nobody.failure(&["no server's admin socket", "no client of this user is running"]);
    // It has read more than fits into the pipe, and waits for somebody to take it.
    let mut cat = station.command(&["cat", "store:media/file"]);
    let mut cat = cat.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 1];
    cat.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let objects: Vec<Value> = station
        .run(&["status", "--json"])
        .success()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    check_fields_of(&objects, &["program", "peer-session", "peer-line", "peer-channel"]);
    let program = &objects[0];
    assert_eq!((&program["type"], &program["command"]), (&"program".into(), &"cat".into()));
    assert_eq!((&program["process_id"], &program["sessions"]), (&cat.id().into(), &1.into()));
    assert_eq!(program["key"], client_key.as_str());
    let sessions = of(&objects, "peer-session");
    assert_eq!((sessions.len(), &sessions[0]["peer"]), (1, &"store".into()));
    let lines = of(&objects, "peer-line");
    assert_eq!(lines.len(), 2);
    let sum = |objects: &[&Value], field: &str| -> u64 {
        objects.iter().map(|object| object[field].as_u64().unwrap()).sum()
    };
    let channels = of(&objects, "peer-channel");
    assert!(sum(&lines, "read_bytes") > 0 && sum(&lines, "live") > 0, "{objects:?}");
    assert_eq!(sum(&lines, "read_bytes"), sum(&channels, "read_bytes"));
    assert!(channels.iter().all(|channel| channel["session"] == sessions[0]["session"]));
    let text = station.run(&["status"]).success();
    assert!(text.starts_with(&format!("client process {} (cat): key ", cat.id())), "{text}");
    assert!(text.contains(&addresses[0]) && text.contains("channel 0  control  sealed"), "{text}");

    // Only its user may ask, and it releases nothing.
    let socket = station.at(&format!("home/.local/state/bowline/clients/{}.sock", cat.id()));
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    ask(&["release", "1"], &socket).failure(&["this is a client"]);
    // One that is killed leaves its name, which goes when somebody looks.
    cat.kill().unwrap();
    cat.wait().unwrap();
    assert!(socket.exists());
    station.run(&["status"]).failure(&["no client of this user is running"]);
    assert!(!socket.exists());
    // One that ends takes it along.
    assert_eq!(station.run(&["cat", "store:media/file"]).out.len(), 8 << 20);
    assert_eq!(fs::read_dir(socket.parent().unwrap()).unwrap().count(), 0);
    drop(server);
}

#[test]
fn of_two_servers_the_first_has_the_socket_and_the_second_serves_without_one() {
    let store = store();
    let other = store.at("other.key").display().to_string();
    store.run(&["key", "new", "--key", &other]).success();
    let first = serve(&store, &[]);
    let second = serve(&store, &["--key", &other]);
    let warning = second.log_has("serving without an admin socket");
    assert!(warning.contains("another server has the admin socket"), "{warning}");
    let text = store.run(&["status"]).success();
    assert!(text.contains(&format!("process {}", first.pid())), "{text}");
    // A place that was named is a must.
    let socket = store.at("home/.local/state/bowline/admin.sock").display().to_string();
    let third = store.at("third.key").display().to_string();
    store.run(&["key", "new", "--key", &third]).success();
    let named = ["--key", &third, "--admin-socket", &socket];
    refused(&store, &named, &["another server has the admin socket", &socket, "--no-admin-socket"]);
    assert!(store.run(&["status"]).success().contains(&format!("process {}", first.pid())));
}

/// What a server that was killed leaves in the first usual place hides neither the server in the second one nor the
/// clients, and nothing else.
#[test]
fn a_socket_that_nobody_is_behind_hides_nobody() {
    let (store, runtime) = (store(), User::new());
    let client_key = store.run(&["key", "show"]).success();
    let client_key = client_key.lines().next().unwrap().strip_prefix("key ").unwrap();
    store.set("clients.toml", &client_entry("station", client_key, &["read"]));
    fs::write(store.at("media/file"), pattern(8 << 20)).unwrap();
    let dead = runtime.at("bowline/admin.sock");
    fs::create_dir(runtime.at("bowline")).unwrap();
    fs::set_permissions(runtime.at("bowline"), Permissions::from_mode(0o700)).unwrap();
    drop(UnixListener::bind(&dead).unwrap());
    let run = |arguments: &[&str]| finish(store.command(arguments).env("XDG_RUNTIME_DIR", runtime.at("")));
    run(&["status"]).failure(&["no server's admin socket", dead.to_str().unwrap(), "no client"]);
    run(&["release", "1"]).failure(&["no server's admin socket", dead.to_str().unwrap()]);

    let mut server = serve(&store, &[]);
    let text = run(&["status"]).success();
    assert!(text.contains(&format!("process {}", server.pid())), "{text}");
    run(&["release", "1"]).failure(&["there is no open 1"]);

    store.set("peers.toml", &peer_entry(client_key, &server.addresses()));
    let mut cat = store.command(&["cat", "store:media/file"]);
    cat.env("XDG_RUNTIME_DIR", runtime.at("")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut cat = cat.spawn().unwrap();
    cat.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let both = run(&["status"]).success();
    let client = format!("client process {} (cat): key ", cat.id());
    assert!(both.contains(&format!("process {}", server.pid())) && both.contains(&client), "{both}");
    // And a server that cannot be killed twice: what it leaves in the second place is none either.
    server.signal(Signal::KILL);
    server.close_input();
    server.ended();
    assert!(store.at("home/.local/state/bowline/admin.sock").exists());
    assert!(run(&["status"]).success().starts_with(&client));
    cat.kill().unwrap();
    cat.wait().unwrap();
}

#[test]
fn what_a_killed_server_leaves_is_replaced_and_nothing_else_is() {
    let store = store();
    let socket = store.at("run/admin.sock");
    let named = ["--admin-socket", socket.to_str().unwrap()];
    let killed = serve(&store, &named);
    killed.signal(Signal::KILL);
    killed.ended();
    assert!(socket.exists());
    ask(&["status"], &socket).failure(&["no server is behind"]);
    let server = serve(&store, &named);
    assert!(ask(&["status"], &socket).success().contains(&format!("process {}", server.pid())));
    drop(server);

    for in_the_way in ["file", "link"] {
        let path = store.at("run").join(in_the_way);
        if in_the_way == "file" {
            fs::write(&path, "kept").unwrap();
        } else {
            symlink("nothing", &path).unwrap();
        }
        refused(&store, &["--admin-socket", path.to_str().unwrap()], &["is no socket", "move away"]);
        assert!(fs::symlink_metadata(&path).is_ok());
    }
    let alive = store.at("run/alive");
    let _listener = UnixListener::bind(&alive).unwrap();
    refused(&store, &["--admin-socket", alive.to_str().unwrap()], &["another server has the admin socket"]);

    fs::create_dir(store.at("open")).unwrap();
    fs::set_permissions(store.at("open"), Permissions::from_mode(0o777)).unwrap();
    let open = store.at("open/admin.sock");
    refused(
        &store,
        &["--admin-socket", open.to_str().unwrap()],
        &["others than its user can change", "0777"],
    );
    for served in ["media/admin.sock", "media/new/admin.sock"] {
        let served = store.at(served);
        refused(
            &store,
            &["--admin-socket", served.to_str().unwrap()],
            &["cannot serve", "outside of what is served"],
        );
        assert!(!served.exists());
    }
}

/// The answer to a request, in lines.
fn raw(socket: &Path, request: &[u8]) -> Vec<Value> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request).unwrap();
    let lines = BufReader::new(stream).lines();
    // What is sent after the request is not read, which may reset the connection behind the answer.
    lines.map_while(Result::ok).map(|line| serde_json::from_str(&line).unwrap()).collect()
}

#[test]
fn f64_requests_that_are_none_are_refused_and_one_connection_has_one() {
    let store = store();
    let _server = serve(&store, &[]);
    let socket = store.at("home/.local/state/bowline/admin.sock");
    for (request, why) in [
        (&b"\n"[..], "not understood"),
        (b"status\n", "not understood"),
        (b"{\"command\":\"stop\"}\n", "not understood"),
        (b"{\"command\":\"status\",\"names\":true}\n", "not understood"),
        (b"\xff\xfe\n", "not understood"),
        (&[b' '; 5000], "more than 4096 bytes"),
        (b"{\"command\":\"release\",\"open\":\"\\u001b[2J\"}\n", "is no open's id"),
    ] {
        let answer = raw(&socket, request);
        assert_eq!((answer.len(), &answer[0]["type"]), (1, &"error".into()), "{answer:?}");
        assert!(answer[0]["message"].as_str().unwrap().contains(why), "{answer:?}");
    }
    let twice = raw(&socket, b"{\"command\":\"status\"}\n{\"command\":\"status\"}\n");
    let kinds: Vec<_> = twice.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["server", "protection", "protection", "end"],
        "one answer: of all channels, and of one client"
    );
}

#[test]
fn f62_connections_that_ask_nothing_are_ended_and_keep_nobody_out_for_long() {
    let store = store();
    let _server = serve(&store, &[]);
    let socket = store.at("home/.local/state/bowline/admin.sock");
    // As many as there may be at once.
    let silent: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    store.run(&["status"]).success();
    // It had to wait until one of them was ended.
    let has_heard = |stream: &UnixStream| rustix::io::ioctl_fionread(stream).unwrap() > 0;
    assert!(silent.iter().any(has_heard), "there is one connection too many");
    for mut stream in silent {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("no request came within 5s"), "{said}");
    }
}
