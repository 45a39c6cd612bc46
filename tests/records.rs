//! Records between a real server and the client library: each protection and suite, keys that are replaced under load,
//! and what is sent from a file past memory.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{ChannelStatus, Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{ChannelKind, Limits, Protection, Suite, SuiteSet};
use bowline::net::SystemEntropy;
use bowline::secure::{Identity, suites};
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use bowline::wire::Head;
use bowline::wire::data::Rekey;
use bowline::wire::hello::Hello;
use recorder::{Kind, Recorder, Recording};
use tempfile::TempDir;
use tokio::sync::broadcast::error::TryRecvError;

#[path = "support/recorder.rs"]
mod recorder;

const LINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LONG: Duration = Duration::from_secs(20);

/// A server in this process, a recorder in front of it, and an identity that it knows.
struct World {
    folder: TempDir,
    server: Server,
    recorder: Recorder,
    peer: Peer,
    client: Client,
}

impl World {
    /// Data channels on one line have this protection; the server lets all be.
    async fn start(protection: Protection, limits: &Limits, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/file"), content).unwrap();
        let identity = || Arc::new(Identity::generate(&mut SystemEntropy).unwrap());
        let (server, client) = (identity(), identity());
        let list = format!(
            "[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"data\"]\nrights = [\"read\", \"write\", \"lock\"]\n\
             protection = \"clear\"\n",
            client.public()
        );
        let exports = Exports::open([("data".parse().unwrap(), folder.path().join("data"))]).unwrap();
        let mut config = ServerConfig::new(Arc::clone(&server), exports, parse_clients(&list).unwrap());
        config.protection_min = Protection::Clear;
        config.limits = limits.clone();
        config.listen = vec![SocketAddr::new(LINE, 0)];
        let running = Server::start(config).unwrap();
        let recorder = Recorder::start(LINE, running.addresses()[0]).await.unwrap();
        let line = LineConfig { protection: Some(protection), ..LineConfig::new(recorder.address()) };
        let (name, key) = ("server".to_owned(), server.public());
        let peer = Peer { name, key, protection_min: None, lines: vec![line] };
        let client = Client::new(client).unwrap().with_limits(limits.clone());
        Self { folder, server: running, recorder, peer, client }
    }

    async fn connect(&self, client: &Client) -> (Session, File) {
        let session = client.connect(&self.peer).await.unwrap();
        session.all_lines_up(LONG).await.unwrap();
        let options = OpenOptions::new().read(true).write(true);
        let file = session.open("data", "file", &options).await.unwrap();
        (session, file)
    }

    fn data_channel(session: &Session) -> ChannelStatus {
        session.channels().into_iter().find(|channel| channel.kind == ChannelKind::Data).unwrap()
    }

    /// How often the client and the server have replaced their keys on the data channel, with no number left out.
    fn rekeys(&self, protection: Protection) -> [usize; 2] {
        let recording = self.recording();
        let tag = if protection == Protection::Clear { 0 } else { 16 };
        let (up, down) = records(&recording);
        [up, down].map(|bytes| {
            let heads = heads(bytes, tag);
            assert!(heads.iter().zip(0..).all(|(head, number)| head.sequence == number), "{protection}");
            heads.iter().filter(|head| head.kind == Rekey::KIND).count()
        })
    }

    /// The one data channel's connection, as it was recorded.
    fn recording(&self) -> Recording {
        self.recorder.connections().into_iter().find(|connection| connection.kind == Kind::BindData).unwrap()
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 7 + at) % 251).unwrap()).collect()
}

/// The heads of all whole records in what went one way behind the first flight.
fn heads(bytes: &[u8], payload_tag: usize) -> Vec<Head> {
    let mut heads = Vec::new();
    let mut rest = bytes;
    while let Some(head) = rest.first_chunk().map(|head| Head::decode(head).unwrap()) {
        let (body, payload) =
            (usize::try_from(head.body_len).unwrap(), usize::try_from(head.payload_len).unwrap());
        let len = 40 + body + 16 + if payload > 0 { payload + payload_tag } else { 0 };
        let Some(behind) = rest.get(len..) else { break };
        heads.push(head);
        rest = behind;
    }
    heads
}

/// What the client sent behind its hello, and the server behind its message 2.
fn records(recording: &Recording) -> (&[u8], &[u8]) {
    let part = |bytes: &[u8], at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let up = &recording.to_server;
    let offer = part(up, 6);
    let hello = 8 + offer + 2 + part(up, 8 + offer) + 16;
    Hello::decode(&up[..hello]).unwrap();
    (&up[hello..], &recording.to_client[2 + part(&recording.to_client, 0)..])
}

#[tokio::test]
async fn each_protection_and_suite_carries_what_was_written() {
    for &protection in Protection::EACH {
        for suite in suites().iter() {
            let bytes = content(3 << 20);
            let world = World::start(protection, &Limits::default(), &bytes).await;
            let (session, file) = world.connect(&world.client.clone().with_suites(SuiteSet::of(suite))).await;
            assert_eq!(World::data_channel(&session).protection, protection);
            let mut read = vec![0; bytes.len()];
            assert_eq!(file.read_at(0, &mut read).await.unwrap(), bytes.len());
            assert!(read == bytes, "{protection} {suite}");
            let mut short = vec![0; 10];
            assert_eq!(file.read_at((3 << 20) - 3, &mut short).await.unwrap(), 3, "the file ends there");
            assert_eq!(file.read_at(4 << 20, &mut short).await.unwrap(), 0);
            let written = content(700_001).into_iter().rev().collect::<Vec<u8>>();
            file.write_at(1_000_000, &written).await.unwrap();
            file.read_at(1_000_000, &mut read[..written.len()]).await.unwrap();
            assert!(read[..written.len()] == written, "{protection} {suite}");
            let on_disk = std::fs::read(world.folder.path().join("data/file")).unwrap();
            assert!(on_disk[1_000_000..][..written.len()] == written);
            // The offer is readable, and says what was chosen.
            let recording = world.recording();
            let offered = u32::from_le_bytes(recording.to_server[8 + 44..][..4].try_into().unwrap());
            assert_eq!(offered, u32::from(suite == Suite::Aegis128X2));
            session.close().await;
            world.server.stop().await;
        }
    }
}

#[tokio::test]
async fn a_suite_that_the_server_does_not_offer_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let identity = || Arc::new(Identity::generate(&mut SystemEntropy).unwrap());
    let (server, client) = (identity(), identity());
    let list = format!("[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"data\"]\n", client.public());
    let exports = Exports::open([("data".parse().unwrap(), folder.path().to_owned())]).unwrap();
    let mut config = ServerConfig::new(Arc::clone(&server), exports, parse_clients(&list).unwrap());
    config.suites = SuiteSet::ALWAYS;
    config.listen = vec![SocketAddr::new(LINE, 0)];
    let running = Server::start(config).unwrap();
    let recorder = Recorder::start(LINE, running.addresses()[0]).await.unwrap();
    let (name, lines) = ("server".to_owned(), vec![LineConfig::new(recorder.address())]);
    let peer = Peer { name, key: server.public(), protection_min: None, lines };
    let session = Client::new(client).unwrap().connect(&peer).await.unwrap();
    session.all_lines_up(LONG).await.unwrap();
    let bind =
        recorder.connections().into_iter().find(|connection| connection.kind == Kind::BindData).unwrap();
    assert_eq!(bind.to_server[8 + 44..][..4], [0; 4]);
    session.close().await;
    running.stop().await;
}

#[tokio::test]
async fn t29_keys_are_replaced_in_both_directions_under_load() {
    for &protection in Protection::EACH {
        let mut limits = Limits::default();
        (limits.rekey_records, limits.rekey_bytes) = (20, 3 << 20);
        let bytes = content(48 << 20);
        let world = World::start(protection, &limits, &bytes).await;
        let (session, file) = world.connect(&world.client).await;
        let mut failed = session.events();
        let reading = async {
            let mut read = vec![0; bytes.len()];
            assert_eq!(file.read_at(0, &mut read).await.unwrap(), bytes.len());
            assert!(read == bytes, "{protection}");
        };
        let writing = async {
            for at in 0..400_u32 {
                let text = at.to_le_bytes();
                file.write_at((64 << 20) + u64::from(at) * 4, &text).await.unwrap();
            }
            let big = content(16 << 20);
            file.write_at(80 << 20, &big).await.unwrap();
        };
        tokio::join!(reading, writing);
        let on_disk = std::fs::read(world.folder.path().join("data/file")).unwrap();
        assert!(
            (0..400_usize)
                .all(|at| on_disk[(64 << 20) + at * 4..][..4] == u32::try_from(at).unwrap().to_le_bytes())
        );
        assert!(on_disk[80 << 20..] == content(16 << 20));
        let rekeys = world.rekeys(protection);
        assert!(rekeys.iter().all(|&count| count >= 16), "{protection}: {rekeys:?}");
        assert_eq!(failed.try_recv(), Err(TryRecvError::Empty), "nothing happened to any channel");
        session.close().await;
        world.server.stop().await;
    }
}

/// Every other limit is far away: what is replaced here is replaced for its age.
#[tokio::test(flavor = "multi_thread")]
async fn t29_keys_are_replaced_for_their_age_in_both_directions_under_load() {
    const PIECE: usize = 64 << 10;
    let mut limits = Limits::default();
    limits.rekey_after = Duration::from_millis(20);
    let bytes = content(4 << 20);
    for &protection in Protection::EACH {
        for suite in suites().iter() {
            let world = World::start(protection, &limits, &bytes).await;
            let (session, file) = world.connect(&world.client.clone().with_suites(SuiteSet::of(suite))).await;
            let mut failed = session.events();
            let mut written = Vec::new();
            let using = async {
                // In pieces so small that three keys grow old long before the recorder has all that it keeps.
                for round in 0_usize.. {
                    let at = round * PIECE % bytes.len();
                    let mut read = vec![0; PIECE];
                    let piece = &content(PIECE + round % 1000)[round % 1000..];
                    let end = u64::try_from(bytes.len() + written.len()).unwrap();
                    let (got, put) = tokio::join!(
                        file.read_at(u64::try_from(at).unwrap(), &mut read),
                        file.write_at(end, piece)
                    );
                    put.unwrap();
                    assert_eq!(got.unwrap(), PIECE);
                    assert!(read == bytes[at..at + PIECE], "{protection} {suite}, round {round}");
                    written.extend_from_slice(piece);
                    if round % 20 == 0 && world.rekeys(protection).iter().all(|&count| count >= 3) {
                        break;
                    }
                }
            };
            tokio::time::timeout(LONG, using).await.expect("keys grow old while they are used");
            let on_disk = std::fs::read(world.folder.path().join("data/file")).unwrap();
            assert!(on_disk == [&bytes[..], &written].concat(), "{protection} {suite}");
            assert_eq!(failed.try_recv(), Err(TryRecvError::Empty), "nothing happened to any channel");
            session.close().await;
            world.server.stop().await;
        }
    }
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_sent_gives_what_it_has_and_the_session_lives() {
    let bytes = content(4 << 20);
    let world = World::start(Protection::Clear, &Limits::default(), &bytes).await;
    let (session, file) = world.connect(&world.client).await;
    let path = world.folder.path().join("data/file");
    for _ in 0..30 {
        let mut read = vec![0; bytes.len()];
        let local = std::fs::File::options().write(true).open(&path).unwrap();
        let cutting = tokio::task::spawn_blocking(move || local.set_len(1_234_567));
        let got = file.read_at(0, &mut read).await.unwrap();
        cutting.await.unwrap().unwrap();
        assert!(got >= 1_234_567, "what stayed came");
        assert!(read[..1_234_567] == bytes[..1_234_567]);
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(World::data_channel(&session).protection, Protection::Clear);
    let data = session.channels().into_iter().filter(|channel| channel.kind == ChannelKind::Data).count();
    assert_eq!(data, 1, "no channel was lost over it");
    session.close().await;
    world.server.stop().await;
}
