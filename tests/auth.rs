//! Who may do what: both ends prove themselves before anything is believed or served, and a stranger to a session
//! or to an open gets one answer whatever the cause. Real server process, recorded sockets.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

mod support;

use std::sync::Arc;

use bowline::client::{ChannelState, Client, Error, OpenOptions, SessionEvent, SessionLoss};
use bowline::model::{
    AttemptNonce, ChannelKind, ChannelNumber, LineRole, LineSet, Protection, Reason, SessionId,
};
use bowline::net::SystemEntropy;
use bowline::secure::BindInitiator;
use bowline::wire::control::BindSecret;
use bowline::wire::hello::{BindOffer, Hello, Offer};
use support::recorder::{Kind, contains_secret};
use support::{Entry, LONG, World, client_log, new_identity, pattern, reason, secret_half};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

/// Sends bytes on a fresh connection and tells what comes back until the server closes it.
async fn answer_to(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.addresses[0]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good a refusal as an end.
    drop(tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_a_client_that_is_not_on_the_list_is_served_nothing() {
    let world = World::start(b"content").await;
    let stranger = Client::new(new_identity()).unwrap();
    let error = stranger.connect(&world.peer(BOTH)).await.unwrap_err();
    assert!(matches!(error, Error::HandshakeRefused { .. }), "{error}");
    world.until_log_says("is not on the list").await;
    for recording in world.recordings(0) {
        assert!(recording.to_client.is_empty(), "the stranger heard not one byte");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_requests_without_a_handshake_are_not_even_answered() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    drop(session);
    let recorded = world.recordings(0);
    let first = recorded.iter().find(|recording| recording.kind == Kind::Session).unwrap();
    // A hello with nothing but the records of somebody else's session behind it, replayed whole.
    let replayed = answer_to(&world, &first.to_server).await;
    let message2 = u16::from_le_bytes([replayed[0], replayed[1]]);
    assert_eq!(replayed.len(), usize::from(message2) + 2, "the replay gets message 2 and no record after it");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &first.to_server[100..]] {
        assert!(answer_to(&world, garbage).await.is_empty());
    }
    // Who has the hello form right but not the server's key is found out before any Diffie-Hellman.
    let hello_len =
        Hello::decode(&first.to_server[..hello_len(&first.to_server)]).map(|_| hello_len(&first.to_server));
    let mut changed = first.to_server[..hello_len.unwrap()].to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(answer_to(&world, &changed).await.is_empty());
    world.until_log_says("was not made for this server's key").await;
}

/// Length of the hello at the start of what a client sent.
fn hello_len(sent: &[u8]) -> usize {
    let part = |at: usize| usize::from(u16::from_le_bytes([sent[at], sent[at + 1]]));
    let noise = 8 + part(6);
    noise + 2 + part(noise) + 16
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_a_server_without_the_pinned_key_is_told_nothing() {
    let world = World::start(b"content").await;
    let mut peer = world.peer(BOTH);
    peer.key = new_identity().public();
    let error = Client::new(Arc::clone(&world.identity)).unwrap().connect(&peer).await.unwrap_err();
    assert!(matches!(error, Error::HandshakeRefused { .. }), "{error}");
    assert!(error.to_string().contains("its key has changed"), "{error}");
    for line in [0, 1] {
        for recording in world.recordings(line) {
            assert_eq!(recording.to_server.len(), hello_len(&recording.to_server), "message 1 and no more");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_an_answer_that_the_pinned_key_did_not_make_is_not_believed() {
    let world = World::start(b"content").await;
    // An impostor that answers with the message 2 that the true server gave to another connection.
    let session = world.connect(BOTH).await;
    drop(session);
    let recorded = world.recordings(0).into_iter().find(|recording| recording.kind == Kind::Session).unwrap();
    let impostor = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = world.peer_on(0);
    peer.lines[0].address = impostor.local_addr().unwrap();
    let impersonate = async {
        let (mut stream, _) = impostor.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let mut len = stream.read(&mut hello).await.unwrap();
        stream.write_all(&recorded.to_client).await.unwrap();
        while let Ok(more) = stream.read(&mut hello[len..]).await {
            if more == 0 {
                break;
            }
            len += more;
        }
        (hello_len(&hello), len)
    };
    let client = Client::new(Arc::clone(&world.identity)).unwrap();
    let ((hello, heard), error) =
        tokio::join!(impersonate, async { client.connect(&peer).await.unwrap_err() });
    assert!(matches!(error, Error::ServerKeyChanged { .. }), "{error}");
    assert_eq!(heard, hello, "after the hello the impostor hears nothing");
}

/// The rule that every world holds at its end, with everything at work that handles a secret: what is searched is
/// there, and a secret in it would be found.
#[tokio::test(flavor = "multi_thread")]
async fn t07_no_key_is_readable_on_the_wire_in_a_log_in_debug_or_in_an_error() {
    let world = World::start(&pattern(1000)).await;
    let session = world.connect([LineRole::Bulk, LineRole::Both]).await;
    let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
    let key = world.key_of(&file).await;
    let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
    duplicate.write_at(0, b"through the duplicate").await.unwrap();
    let mut wrong = key.clone();
    wrong.secret[0] ^= 1;
    world.note_key(&wrong);
    let error = world.resume(&session, &wrong, LineSet::ALL).await.unwrap_err();
    let shown = format!("{error} {error:?} {key:?} {file:?} {session:?} {:?} {wrong:?}", world.identity);
    for secret in [&key.secret, &wrong.secret] {
        assert_eq!(contains_secret(shown.as_bytes(), secret), None, "{shown}");
    }
    assert_eq!(contains_secret(shown.as_bytes(), &secret_half(&world.identity)), None, "{shown}");

    // Both logs tell of this session, and a key in one of them would be seen.
    let id = session.id().to_string();
    assert!(world.log().contains(&id), "the server tells of the session");
    let log = client_log().lock().unwrap().clone();
    assert!(String::from_utf8_lossy(&log).contains(&id), "the client tells of the session");
    let planted = [&log[..], key.to_text().as_bytes()].concat();
    assert!(contains_secret(&planted, &key.secret).is_some());
    world.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_allowed_client_cannot_use_a_key_and_is_not_told_why() {
    let (a, b) = (new_identity(), new_identity());
    let entries = [Entry::all(a.public()), Entry::all(b.public())];
    let world = World::with_clients(&pattern(1000), Arc::clone(&a), &entries).await;
    let session_a = world.connect(BOTH).await;
    let session_b = world.connect_as(&b, &world.peer(BOTH)).await;
    let options = OpenOptions::new().read(true).write(true);
    let file = world.open(&session_a, &options).await.unwrap();
    let key = world.key_of(&file).await;

    let stolen = world.resume(&session_b, &key, LineSet::ALL).await.unwrap_err();
    let mut unknown = key.clone();
    unknown.file_id.0 ^= 0xff;
    let nothing = world.resume(&session_b, &unknown, LineSet::ALL).await.unwrap_err();
    assert_eq!(
        stolen.to_string(),
        nothing.to_string(),
        "the right secret and a key that names nothing: one answer"
    );
    assert_eq!(stolen.reason(), Some(Reason::ResumeRefused));
    // Our log knows the difference.
    world.until_log_says("WrongIdentity").await;
    world.until_log_says("NoSuchOpen").await;

    // The failed attempts changed nothing for A.
    file.write_at(0, b"still mine").await.unwrap();
    world.resume(&session_a, &key, LineSet::ALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_allowed_client_cannot_bind_to_a_session_and_every_refusal_looks_the_same() {
    let (a, b) = (new_identity(), new_identity());
    let entries = [Entry::all(a.public()), Entry::all(b.public())];
    let world = World::with_clients(&pattern(1000), Arc::clone(&a), &entries).await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true)).await.unwrap();
    let recorded = world.data_recordings(0).remove(0);
    let bind = recorded.to_server[..hello_len(&recorded.to_server)].to_vec();
    let Offer::Bind(offer) = Hello::decode(&bind).unwrap().offer else { panic!("a bind's offer") };

    let mut attempts = vec![("a replay of A's own bind", bind)];
    let forge = |identity, offer: BindOffer| {
        let (secret, session) = (BindSecret([7; 32]), SessionId([7; 16]));
        let (_, hello) =
            BindInitiator::begin(identity, &world.server_key, &secret, session, offer, &mut SystemEntropy)
                .unwrap();
        hello
    };
    let fresh = BindOffer { number: ChannelNumber(999), nonce: AttemptNonce([9; 16]), ..offer };
    attempts.push(("B with A's locator", forge(&*b, fresh)));
    attempts.push(("A's key without the session's secret", forge(&*a, fresh)));
    let nowhere = BindOffer { locator: bowline::model::Locator([3; 16]), ..fresh };
    attempts.push(("a locator that names nothing", forge(&*b, nowhere)));
    attempts.push((
        "a control channel",
        forge(&*b, BindOffer { kind: ChannelKind::Control, protection: Protection::Sealed, ..fresh }),
    ));
    for (what, hello) in attempts {
        assert!(answer_to(&world, &hello).await.is_empty(), "{what} gets no byte");
    }
    for why in ["UnknownLocator", "Handshake"] {
        world.until_log_says(why).await;
    }
    // The session has noticed nothing.
    let mut bytes = [0; 1000];
    assert_eq!(file.read_at(0, &mut bytes).await.unwrap(), 1000);
    assert_eq!(session.channels().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_taken_off_the_list_loses_its_session() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true)).await.unwrap();
    let mut events = session.events();
    world.set_clients(&[]);
    let ended = async {
        loop {
            if let Ok(SessionEvent::Ended(loss)) = events.recv().await {
                break loss;
            }
        }
    };
    // How long it takes from the file on, tests/program.rs measures.
    let loss = tokio::time::timeout(LONG, ended).await.unwrap();
    assert_eq!(loss, SessionLoss::NotAllowed);
    let error = file.read_chunk(0, 10).await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded(SessionLoss::NotAllowed)), "{error}");
    let again = Client::new(Arc::clone(&world.identity)).unwrap().connect(&world.peer(BOTH)).await;
    assert!(matches!(again.unwrap_err(), Error::HandshakeRefused { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_gone_from_open_handles_too() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
    file.write_at(0, b"C").await.unwrap();
    world.set_clients(&[Entry { rights: &["read"], ..Entry::all(world.identity.public()) }]);
    let refused = async {
        loop {
            if let Err(error) = file.write_at(0, b"D").await {
                break error;
            }
        }
    };
    let error = tokio::time::timeout(LONG, refused).await.unwrap();
    assert_eq!(error.reason(), Some(Reason::PermissionDenied));
    let mut bytes = [0; 7];
    assert_eq!(file.read_at(0, &mut bytes).await.unwrap(), 7, "reading is still allowed");
    let denied = world.open(&session, &OpenOptions::new().write(true)).await;
    assert_eq!(reason(denied), Reason::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_protection_reaches_channels_that_are_live() {
    let world = World::start(b"content").await;
    let session = world.connect([LineRole::Bulk, LineRole::Keys]).await;
    let file = world.open(&session, &OpenOptions::new().read(true)).await.unwrap();
    let protection = |session: &bowline::client::Session| {
        let is_live = |status: &&bowline::client::ChannelStatus| {
            status.kind == ChannelKind::Data && status.state == ChannelState::Live
        };
        session.channels().iter().find(is_live).map(|status| status.protection)
    };
    assert_eq!(protection(&session), Some(Protection::Signed));
    let mut events = session.events();
    world.set_clients(&[Entry { protection: Protection::Sealed, ..Entry::all(world.identity.public()) }]);
    while protection(&session) != Some(Protection::Sealed) {
        tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap();
    }
    assert_eq!(file.read_chunk(0, 100).await.unwrap()[..], *b"content", "the open file has noticed nothing");
}
