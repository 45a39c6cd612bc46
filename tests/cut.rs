//! Connections of clients that may have nothing more: what is on its way to them does not arrive, whether they read or
//! not. And beginnings that are refused at their first record, which are paid for.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::model::{
    ChannelKind, ChannelNumber, Create, CreateId, ExportPath, HandleId, Limits, OpenMode, Policy, Protection,
    PublicKey,
};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use bowline::wire::control::{Attach, EndReason, Open};
use bowline::wire::data::Read;
use bowline::wire::{ClientControl, ClientData, ServerControl};
use support::raw::{Channel, Greeted, RawClient, RawSession, begin};
use support::{EXPORT, LONG, new_identity};
use tempfile::TempDir;
use tokio::time::timeout;

const CHUNK: u32 = 512 << 10;
const READS: u32 = 8;
/// The same as a number of records.
const READS_LEN: usize = 8;
/// Less than what a connection that is closed in order may take to put out what is queued.
const SOON: Duration = Duration::from_secs(1);

/// A server in this process and a client that it knows.
struct Place {
    server: Server,
    key: PublicKey,
    identity: Arc<Identity>,
    _folder: TempDir,
}

fn policy(client: PublicKey, protection: Protection) -> Policy {
    let entry = format!(
        "[[client]]\nkey = \"{client}\"\nname = \"client\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\nprotection = \"{protection}\"\n"
    );
    parse_clients(&entry).unwrap()
}

impl Place {
    fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("file")).unwrap();
        file.set_len(u64::from(CHUNK * READS)).unwrap();
        let (own, identity) = (new_identity(), new_identity());
        let key = own.public();
        let exports = Exports::open([(EXPORT.parse().unwrap(), folder.path().to_owned())]).unwrap();
        let config = ServerConfig::new(own, exports, policy(identity.public(), Protection::Signed));
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let server = Server::start(ServerConfig { limits, listen, ..config }).unwrap();
        Self { server, key, identity, _folder: folder }
    }

    fn client(&self) -> RawClient<'_> {
        RawClient { identity: &self.identity, server: self.key, address: self.server.addresses()[0] }
    }

    /// A session whose data channel has asked for all of the file and reads nothing.
    async fn slow_reader(&self) -> (RawSession, Channel<false>) {
        let client = self.client();
        let mut session = client.start().await;
        let mut data = client.bind(&session, 1, Protection::Signed).await;
        let handle = open(&mut session).await;
        for at in 0..READS {
            let read = Read { handle, offset: u64::from(at * CHUNK), len: CHUNK };
            data.send(&ClientData::from(read), u64::from(at) + 2).await;
        }
        // The first answers are on their way when this one is.
        data.next().await.unwrap();
        (session, data)
    }
}

async fn open(session: &mut RawSession) -> HandleId {
    let open = Open {
        export: EXPORT.parse().unwrap(),
        path: ExportPath::new("file").unwrap(),
        mode: OpenMode::READ,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: false,
        create_id: CreateId([1; 16]),
        with_key: false,
        grace_ms: 0,
        guard: false,
    };
    session.control.send(&ClientControl::from(open), 1).await;
    match session.control.answer().await.1 {
        ServerControl::Opened(opened) => opened.handle,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_revoked_client_that_does_not_read_is_sent_nothing_more() {
    let place = Place::start(Limits::default());
    let (mut session, mut data) = place.slow_reader().await;
    place.server.set_policy(Policy::default());
    timeout(SOON, data.is_reset()).await.expect("the connection ends though nobody reads");
    assert!(data.until_closed().await < READS_LEN - 1, "what was on its way is thrown away");
    match session.control.answer().await.1 {
        ServerControl::Ended(ended) => assert_eq!(ended.reason, EndReason::NotAllowed),
        other => panic!("{other:?}"),
    }
    assert_eq!(session.control.until_closed().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_a_channel_that_has_become_too_weak_sends_nothing_more() {
    let place = Place::start(Limits::default());
    let (mut session, mut data) = place.slow_reader().await;
    place.server.set_policy(policy(place.identity.public(), Protection::Sealed));
    timeout(SOON, data.is_reset()).await.expect("the connection ends though nobody reads");
    assert!(data.until_closed().await < READS_LEN - 1, "what was on its way is thrown away");
    // The session lives.
    place.client().bind(&session, 2, Protection::Sealed).await;
    open(&mut session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_a_beginning_that_is_refused_at_its_first_record_is_paid_for() {
    let mut limits = Limits::default();
    limits.handshake_rate = 0;
    let place = Place::start(limits);
    let (client, from) = (place.client(), IpAddr::from([127, 77, 1, 1]));
    let tokens = || place.server.tokens(from);
    let session = client.start().await;
    let full = tokens();
    // Two binds of one number are both chosen, and one is put in force.
    let kind = (ChannelKind::Data, Protection::Sealed);
    let [first, second] =
        [client.greet_bind(&session, 1, kind).await, client.greet_bind(&session, 1, kind).await];
    for (greeted, is_taken) in [(first, true), (second, false)] {
        let Greeted { stream, keys, offer, choice } = greeted;
        let mut channel = Channel::<false>::new(stream, keys, (ChannelNumber(1), choice.protection));
        channel.send(&ClientData::from(Attach { offer, choice }), 0).await;
        assert_eq!(channel.next().await.is_some(), is_taken);
    }
    timeout(LONG, half_open_is_over(&place)).await.unwrap();
    assert_eq!(tokens(), full - 1, "one token is lost, and one came back");
    // A session of a client that is revoked between its handshake and its first record.
    let Greeted { stream, keys, offer, choice } = client.greet().await;
    place.server.set_policy(Policy::default());
    let mut channel = Channel::<true>::new(stream, keys, (ChannelNumber(0), Protection::Sealed));
    channel.send(&begin(offer, choice), 0).await;
    assert!(channel.next().await.is_none());
    timeout(LONG, half_open_is_over(&place)).await.unwrap();
    assert_eq!(tokens(), full - 2);
    assert_eq!(place.server.gate().counts.proven, 2);
}

async fn half_open_is_over(place: &Place) {
    while place.server.gate().half_open > 0 {
        tokio::task::yield_now().await;
    }
}
