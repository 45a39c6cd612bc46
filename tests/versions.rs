//! A client and a server that speak different versions of the protocol: each end hears so from the other, a stranger hears
//! nothing, and nobody can talk either of them into another version.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::client::{Client, Error, ErrorKind, LineConfig, Peer};
use bowline::net::{SystemEntropy, exchange, read_hello};
use bowline::secure::{HandshakeError, Identity, SessionInitiator, SessionResponder};
use bowline::wire::hello::{Hello, MAC1_LEN, Offer, PROTOCOL_VERSION, SessionOffer, prologue};
use program::User;
use support::{LONG, World, new_identity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[path = "support/program.rs"]
#[allow(dead_code, reason = "this file uses a part of it")]
mod program;

/// The version of a server to come.
const NEWER: u16 = 7;

/// A server of a later version, which has nothing for clients of this one: it tells what each asked for, and what each sent
/// after the answer.
async fn newer_server(
    identity: Arc<Identity>,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<(Offer, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, offers) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let hello = read_hello(&mut stream).await.unwrap();
            let responder = SessionResponder::read(&identity, &hello, &mut SystemEntropy).unwrap();
            stream.write_all(&responder.decline(NEWER).unwrap()).await.unwrap();
            // Whatever else the client says is not answered.
            let more = rest(&mut stream).await;
            drop(asked.send((hello.offer, more)));
        }
    });
    (address, offers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_server_is_named_with_both_versions_and_asked_once() {
    let (server, own) = (new_identity(), new_identity());
    let (address, mut offers) = newer_server(Arc::clone(&server)).await;
    let lines = vec![LineConfig::new(address)];
    let peer = Peer { name: "store".into(), key: server.public(), protection_min: None, lines };
    let error = Client::new(own).unwrap().connect(&peer).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion { theirs: NEWER, ours: PROTOCOL_VERSION, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(!error.is_retryable());
    let told = offers.recv().await;
    assert_eq!(told, Some((Offer::Session(SessionOffer::OURS), Vec::new())), "and no record follows");
    assert!(offers.try_recv().is_err(), "it is not asked again, and for nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_which_end_is_older_and_ends_with_eleven() {
    let (user, server) = (User::new(), new_identity());
    user.make_key();
    let (address, _offers) = newer_server(Arc::clone(&server)).await;
    let key = server.public();
    user.set(
        "peers.toml",
        &format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n"),
    );
    let asking = tokio::task::spawn_blocking(move || {
        let why =
            format!("the server at {address} speaks version 7 of the protocol, and this client version 1");
        let hint = "try: bowline --version here, and a newer bowline on this machine";
        user.run(&["ls", "store:media/"]).failure_with(11, &["error[version]", &why, hint]);
        let told = user.run(&["--version"]).success();
        assert!(told.contains(&format!("\nprotocol {PROTOCOL_VERSION}\n")), "{told}");
    });
    asking.await.unwrap();
}

/// What else comes until the other side closes, or resets.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("it closes"));
    bytes
}

/// A client of a later version, which knows nothing of this one.
fn newer_hello(client: &Identity, world: &World) -> (SessionInitiator, Vec<u8>) {
    let offer = SessionOffer { version_min: NEWER, version_max: NEWER + 2 };
    SessionInitiator::begin(client, &world.server_key, offer, &mut SystemEntropy).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_client_hears_the_version_if_it_is_listed_and_nothing_if_it_is_not() {
    let world = World::start(b"content").await;
    let mut stream = TcpStream::connect(world.addresses[0]).await.unwrap();
    let (initiator, hello) = newer_hello(&world.identity, &world);
    let answer = exchange(&mut stream, &hello).await.unwrap();
    assert_eq!(initiator.finish(&answer).unwrap_err(), HandshakeError::OtherVersion(PROTOCOL_VERSION));
    assert!(rest(&mut stream).await.is_empty());
    world.until_log_says("speaks versions 7 to 9 of the protocol, and this server 1").await;

    let mut stream = TcpStream::connect(world.addresses[0]).await.unwrap();
    let (_, hello) = newer_hello(&new_identity(), &world);
    stream.write_all(&hello).await.unwrap();
    assert!(rest(&mut stream).await.is_empty(), "a stranger hears nothing");
    world.until_log_says("is not on the list").await;
}

/// Somebody on the way changes what a client offers, with a right check over it: the server's key is no secret.
#[tokio::test(flavor = "multi_thread")]
async fn t06_an_offer_that_was_changed_on_the_way_gets_no_answer_of_any_version() {
    let world = World::start(b"content").await;
    for (version_min, version_max) in [(0, 0), (0, 9), (NEWER, NEWER)] {
        let (_, hello) = SessionInitiator::begin(
            &world.identity,
            &world.server_key,
            SessionOffer::OURS,
            &mut SystemEntropy,
        )
        .unwrap();
        let noise = Hello::decode(&hello).unwrap().noise;
        let changed = prologue(&Offer::Session(SessionOffer { version_min, version_max }));
        let checked = bowline::wire::hello::checked(&changed, &noise);
        let check: [u8; MAC1_LEN] = bowline::secure::mac1::mac1(&world.server_key, &checked);
        let mut stream = TcpStream::connect(world.addresses[0]).await.unwrap();
        stream.write_all(&[&checked[..], &check].concat()).await.unwrap();
        assert!(rest(&mut stream).await.is_empty(), "{version_min} to {version_max}");
    }
    // Nor can an answer of another version be made without the server's key, or one of another connection be used.
    let (impostor, own) = (new_identity(), new_identity());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_hello(&mut stream).await.unwrap();
        let somebody = new_identity();
        let (_, own_hello) =
            SessionInitiator::begin(&somebody, &impostor.public(), SessionOffer::OURS, &mut SystemEntropy)
                .unwrap();
        let hello = Hello::decode(&own_hello).unwrap();
        let responder = SessionResponder::read(&impostor, &hello, &mut SystemEntropy).unwrap();
        stream.write_all(&responder.decline(NEWER).unwrap()).await.unwrap();
    });
    let lines = vec![LineConfig::new(address)];
    let peer = Peer { name: "store".into(), key: world.server_key, protection_min: None, lines };
    let error = Client::new(own).unwrap().connect(&peer).await.unwrap_err();
    assert!(matches!(error, Error::ServerKeyChanged { .. }), "{error:?}");
    answering.await.unwrap();
}
