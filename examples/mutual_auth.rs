//! Who gets in, and who is believed: `cargo run --example mutual_auth`
//!
//! One server and its clients in one process, over real sockets. Each act ends in one line that says what was to happen
//! and what did; if one is not as it should be, the program ends with an error.
#![allow(clippy::indexing_slicing, reason = "an example stops where it fails")]

use std::error::Error as StdError;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, Error, LineConfig, OpenOptions, Peer, SessionEvent, SessionLoss, server_key};
use bowline::model::{Policy, PublicKey};
use bowline::net::{Clock, SystemEntropy};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T> = Result<T, Box<dyn StdError + Send + Sync>>;

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How soon a client that is taken off the list loses its session.
const PROMISE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("notes"), "for those on the list")?;
    let (identity, alice, mallory) = (new_identity()?, new_identity()?, new_identity()?);
    let key = identity.public();
    let exports = Exports::open([("data".parse()?, folder.path().into())])?;
    let config = ServerConfig::new(identity, exports, list_of(&[&alice])?);
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let server = Server::start(ServerConfig { listen, ..config })?;
    let address = server.addresses()[0];
    println!("server {} at {address}", key.fingerprint());
    println!("alice {}, mallory {}\n", alice.public().fingerprint(), mallory.public().fingerprint());

    an_unknown_server(address, key).await?;
    a_right_pair(&alice, key, address).await?;
    a_wrong_server_key(&alice, mallory.public(), address).await?;
    an_unknown_client(&mallory, key, address).await?;
    a_tampered_handshake(&alice, key, address).await?;
    // Last: after it nobody is on the list.
    a_revoked_client(&alice, key, &server).await?;
    server.stop().await;
    Ok(())
}

/// Before a key is pinned: whoever asks is shown the server's, and nothing comes of it but the key.
async fn an_unknown_server(address: SocketAddr, key: PublicKey) -> Outcome<()> {
    let shown = server_key(address, None, LIMIT).await?;
    expect("an unknown server", "shows its key, for a person to compare", shown == key, &shown.fingerprint())
}

async fn a_right_pair(alice: &Arc<Identity>, key: PublicKey, address: SocketAddr) -> Outcome<()> {
    let session = connect(alice, key, address).await?;
    let file = session.open("data", "notes", &OpenOptions::new().read(true)).await?;
    let bytes = file.read_chunk(0, 64).await?;
    file.close().await?;
    session.close().await;
    let read = String::from_utf8_lossy(&bytes).into_owned();
    expect("a right pair", "reads the file", read == "for those on the list", &read)
}

/// The client expects somebody else at this address. The server cannot read its hello, and learns not even who asked.
async fn a_wrong_server_key(alice: &Arc<Identity>, other: PublicKey, address: SocketAddr) -> Outcome<()> {
    let outcome = connect(alice, other, address).await;
    let is_refused = matches!(outcome, Err(Error::HandshakeRefused { pinned, .. }) if pinned == other);
    expect("a wrong server key", "is refused after one message", is_refused, &said(outcome))
}

async fn an_unknown_client(mallory: &Arc<Identity>, key: PublicKey, address: SocketAddr) -> Outcome<()> {
    let outcome = connect(mallory, key, address).await;
    let is_refused = matches!(outcome, Err(Error::HandshakeRefused { .. }));
    expect("an unknown client", "is refused before it can ask for anything", is_refused, &said(outcome))
}

/// One flipped bit in either message, wherever it is, and neither end believes the other.
async fn a_tampered_handshake(alice: &Arc<Identity>, key: PublicKey, address: SocketAddr) -> Outcome<()> {
    let through = |flipped| async move {
        let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = proxy.local_addr()?;
        let (passed, outcome) = tokio::join!(pass_one(proxy, address, flipped), connect(alice, key, at));
        passed?;
        Outcome::Ok(outcome)
    };
    let untouched = through(None).await?;
    expect("an untouched handshake", "passes the proxy", untouched.is_ok(), &said(untouched))?;
    let hello = through(Some(Flip::Hello)).await?;
    let is_refused = matches!(hello, Err(Error::HandshakeRefused { .. }));
    expect("a tampered hello", "is not answered by the server", is_refused, &said(hello))?;
    let answer = through(Some(Flip::Answer)).await?;
    let is_refused = matches!(answer, Err(Error::ServerKeyChanged { .. }));
    expect("a tampered answer", "is not believed by the client", is_refused, &said(answer))
}

/// The list changes while the client is connected.
async fn a_revoked_client(alice: &Arc<Identity>, key: PublicKey, server: &Server) -> Outcome<()> {
    let address = server.addresses()[0];
    let session = connect(alice, key, address).await?;
    let file = session.open("data", "notes", &OpenOptions::new().read(true)).await?;
    let mut events = session.events();
    let begin = Clock.now();
    server.set_policy(list_of(&[])?);
    let ending = async {
        loop {
            match events.recv().await {
                Ok(SessionEvent::Ended(loss)) => break Some(loss),
                Ok(_) => {}
                Err(_) => break None,
            }
        }
    };
    let loss = Clock.timeout(PROMISE, ending).await.flatten();
    let took = format!("after {} ms: {loss:?}", Clock.now().since(begin).as_millis());
    let has_ended = loss == Some(SessionLoss::NotAllowed);
    expect("a revoked client", "loses its session within a second", has_ended, &took)?;
    let read = file.read_chunk(0, 64).await;
    let is_over = matches!(read, Err(Error::SessionEnded(_)));
    expect("its open file", "is gone with it", is_over, &said(read))?;
    let again = connect(alice, key, address).await;
    let is_refused = matches!(again, Err(Error::HandshakeRefused { .. }));
    expect("its next connection", "is refused", is_refused, &said(again))
}

fn new_identity() -> Outcome<Arc<Identity>> {
    Ok(Arc::new(Identity::generate(&mut SystemEntropy)?))
}

/// The list of clients, as it would stand in a file.
fn list_of(clients: &[&Arc<Identity>]) -> Outcome<Policy> {
    let entry = |(at, client): (usize, &&Arc<Identity>)| {
        format!("[[client]]\nkey = \"{}\"\nname = \"client-{at}\"\nexports = [\"data\"]\n", client.public())
    };
    Ok(parse_clients(&clients.iter().enumerate().map(entry).collect::<String>())?)
}

async fn connect(
    identity: &Arc<Identity>,
    key: PublicKey,
    address: SocketAddr,
) -> Result<bowline::client::Session, Error> {
    let lines = vec![LineConfig::new(address)];
    let peer = Peer { name: "example".into(), key, protection_min: None, lines };
    Client::new(Arc::clone(identity))?.connect(&peer).await
}

/// Which of the two messages has a bit flipped on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flip {
    Hello,
    Answer,
}

/// Passes what comes first on to the server, with one bit of the handshake flipped, and what comes back; then whatever
/// follows, until either end has had enough.
async fn pass_one(proxy: TcpListener, server: SocketAddr, flipped: Option<Flip>) -> Outcome<()> {
    let (mut client, _) = proxy.accept().await?;
    drop(proxy);
    let mut server = TcpStream::connect(server).await?;
    pass_message(&mut client, &mut server, flipped == Some(Flip::Hello)).await?;
    pass_message(&mut server, &mut client, flipped == Some(Flip::Answer)).await?;
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
    Ok(())
}

/// Passes on what is there at once; a message of the handshake comes in one piece.
async fn pass_message(from: &mut TcpStream, to: &mut TcpStream, is_flipped: bool) -> Outcome<()> {
    let mut message = vec![0; 2048];
    let len = from.read(&mut message).await.unwrap_or(0);
    if is_flipped && let Some(byte) = message.get_mut(len / 2) {
        *byte ^= 1;
    }
    // Either end may have closed: that is what the other one is to hear.
    drop(to.write_all(&message[..len]).await);
    if len == 0 {
        to.shutdown().await?;
    }
    Ok(())
}

fn said<T>(outcome: Result<T, Error>) -> String {
    outcome.map_or_else(|error| error.to_string(), |_| "it worked".to_owned())
}

/// One line for each outcome; one that is not as it should be ends the program.
fn expect(who: &str, what: &str, holds: bool, said: &str) -> Outcome<()> {
    println!("[{}] {who} {what}\n     {said}", if holds { "ok" } else { "FAILED" });
    if holds { Ok(()) } else { Err(format!("{who} {what}: {said}").into()) }
}
