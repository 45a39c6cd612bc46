//! A server of which more can be seen: handshake threads that have more to do than they can, files whose syncs fail, and
//! bounds that do not go together.

use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::*;
use crate::model::{
    ChannelNumber, Create, CreateId, ExportPath, HandleId, InstanceId, OpenMode, PublicKey, Reason,
    RequestId, ResumeKey, SyncScope,
};
use crate::net::{Buffers, NotDone, RecordReader, exchange};
use crate::secure::{Opener, Payload, Sealer, SessionInitiator};
use crate::wire::control::{Begin, Open, Opened, Purpose, Resume, Sync};
use crate::wire::hello::SessionOffer;
use crate::wire::{ClientControl, ServerControl};

const LONG: Duration = Duration::from_secs(20);

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(LONG, waiting).await.is_ok(), "never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_a_handshake_that_finds_no_place_in_the_queue_is_refused_and_nothing_stays_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (own, client) = (identity(), identity());
    let list = format!("[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"data\"]\n", client.public());
    let exports = Exports::open([("data".parse().unwrap(), folder.path().to_owned())]).unwrap();
    let mut config = ServerConfig::new(Arc::clone(&own), exports, parse_clients(&list).unwrap());
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    // Tokens do not come back by themselves, and a handshake may wait for as long as the test likes.
    (config.limits.handshake_rate, config.limits.handshake) = (0, LONG * 10);
    let burst = config.limits.handshake_burst;
    // One thread and one place in its queue.
    let workers = Workers::start("test", NonZeroUsize::MIN, 1).unwrap();
    let server = Server::with_workers(config, workers).unwrap();
    let address = server.addresses()[0];

    let (release, held) = mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let holding = tokio::spawn({
        let shared = Arc::clone(&server.shared);
        async move {
            let hold = move || {
                began.send(()).unwrap();
                held.recv_timeout(LONG * 5).ok();
            };
            shared.compute(hold).await
        }
    });
    begun.await.unwrap();
    let mut queued = Box::pin(server.shared.compute(|| ()));
    assert!(queued.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

    let begin =
        || SessionInitiator::begin(&client, &own.public(), SessionOffer::OURS, &mut SystemEntropy).unwrap();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&begin().1).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good a refusal as an end.
        drop(timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is closed at once"));
        assert!(answer.is_empty());
    }
    assert_eq!(server.shared.compute(|| ()).await, Err(NotDone::Full), "and that was the reason");
    until("nothing is half-open", || server.gate().half_open == 0).await;
    assert_eq!((server.sessions_len(), server.channels_len()), (0, 0));
    assert_eq!(server.tokens(address.ip()), burst - 5, "each has cost one token");
    drop(release);
    holding.await.unwrap().unwrap();
    assert_eq!(queued.await, Ok(()), "what had a place is done");
    // The next one finds room again.
    let (initiator, hello) = begin();
    let mut stream = TcpStream::connect(address).await.unwrap();
    initiator.finish(&timeout(LONG, exchange(&mut stream, &hello)).await.unwrap().unwrap()).unwrap();
    drop(stream);
    timeout(LONG, server.stop()).await.unwrap();
}

/// With a lease of 3 s and a grace of 5 s, another server gave a file away under a client that was about to come back.
#[tokio::test]
async fn t40_cve_leilfs_68_no_server_starts_with_a_grace_below_three_pings() {
    let folder = tempfile::tempdir().unwrap();
    let config = |grace: u64| {
        let exports = Exports::open([("data".parse().unwrap(), folder.path().to_owned())]).unwrap();
        let mut config = ServerConfig::new(identity(), exports, Policy::default());
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.limits.ping_idle_after = Duration::from_secs(3);
        config.limits.grace_default = Duration::from_secs(grace);
        config
    };
    let refused = Server::start(config(5)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a grace of 5s is shorter than 3 times the 3s after which a silent channel is asked for a sign of life"
    );
    timeout(LONG, Server::start(config(9)).unwrap().stop()).await.unwrap();
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity::generate(&mut SystemEntropy).unwrap())
}

/// A control channel in the hands of a test.
struct Channel {
    reader: RecordReader<ServerControl, OwnedReadHalf>,
    sealer: Sealer<ClientControl>,
    writer: OwnedWriteHalf,
    next: u64,
}

impl Channel {
    async fn start(server: &Server, key: &PublicKey, client: &Identity) -> Self {
        let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
        let offer = SessionOffer::OURS;
        let (initiator, hello) = SessionInitiator::begin(client, key, offer, &mut SystemEntropy).unwrap();
        let (choice, keys) = initiator.finish(&exchange(&mut stream, &hello).await.unwrap()).unwrap();
        let (reader, writer) = stream.into_split();
        let (number, protection) = (ChannelNumber(0), Protection::Sealed);
        let opener = Opener::new(keys.receive, number, protection).unwrap();
        let mut channel = Self {
            reader: RecordReader::new(reader, opener, Buffers::default()).0,
            sealer: Sealer::new(keys.send, number, protection).unwrap(),
            writer,
            next: 0,
        };
        let instance = InstanceId([1; 16]);
        let begin = Begin { offer, choice, instance, process_id: 1, purpose: Purpose::New { former: None } };
        let ServerControl::Welcome(_) = channel.ask(begin).await else { panic!("no welcome") };
        channel
    }

    async fn send(&mut self, message: impl Into<ClientControl>, request: RequestId, settled: RequestId) {
        let mut out = Vec::new();
        self.sealer.seal(&message.into(), request, settled, Payload::None, &mut out).unwrap();
        self.writer.write_all(&out).await.unwrap();
    }

    async fn ask(&mut self, message: impl Into<ClientControl>) -> ServerControl {
        let request = RequestId(self.next);
        self.next += 1;
        self.send(message, request, RequestId::FIRST).await;
        loop {
            let received = timeout(LONG, self.reader.next()).await.unwrap().unwrap();
            if received.request == request {
                return received.message.unwrap();
            }
        }
    }

    async fn sync(&mut self, handle: HandleId) -> Result<(), Reason> {
        match self.ask(Sync { handle, scope: SyncScope::Data }).await {
            ServerControl::Synced(_) => Ok(()),
            ServerControl::Refused(refused) => Err(refused.refusal.reason),
            other => panic!("{other:?}"),
        }
    }

    /// The handle of what was opened, and its key.
    async fn opened(&mut self, message: impl Into<ClientControl>) -> (HandleId, Option<ResumeKey>) {
        match self.ask(message).await {
            ServerControl::Opened(Opened { handle, key, .. }) => (handle, key),
            other => panic!("{other:?}"),
        }
    }
}

/// The kernel tells of a failed write-back when a descriptor is closed, and nobody has asked: each handle of the open
/// hears of it when it asks, once.
#[tokio::test(flavor = "multi_thread")]
async fn f54_a_lost_write_is_told_once_to_each_handle_also_if_its_descriptor_was_closed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["file", "other"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let (own, client) = (identity(), identity());
    let rights = "rights = [\"read\", \"write\"]";
    let list =
        format!("[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"data\"]\n{rights}\n", client.public());
    let exports = Exports::open([("data".parse().unwrap(), folder.path().to_owned())]).unwrap();
    let mut config = ServerConfig::new(Arc::clone(&own), exports, parse_clients(&list).unwrap());
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.limits.descriptors_max = 1;
    let server = Server::start(config).unwrap();
    let mut channel = Channel::start(&server, &own.public(), &client).await;
    let open = |path: &str, create_id| Open {
        export: "data".parse().unwrap(),
        path: ExportPath::new(path).unwrap(),
        mode: OpenMode::READ_WRITE,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: true,
        create_id: CreateId([create_id; 16]),
        with_key: true,
        grace_ms: 0,
        guard: false,
    };
    let (first, key) = channel.opened(open("file", 1)).await;
    let resume = Resume { key: key.unwrap(), predecessor: None, with_key: false };
    let (second, _) = channel.opened(resume).await;

    let id = server.shared.look(|core| core.table().opens().next().map(|open| open.open)).unwrap();
    let fail_next = |bytes: &[u8]| {
        let file = server.shared.files.here(id).unwrap();
        file.write(0, bytes).unwrap();
        *file.next_sync.lock().unwrap() = Some(rustix::io::Errno::IO);
    };
    fail_next(b"lost");
    // There is one descriptor, and somebody else needs it.
    let (other, _) = channel.opened(open("other", 2)).await;
    assert!(server.shared.files.here(id).is_none());
    let mut told = Vec::new();
    for handle in [first, second, other, first, second] {
        told.push(channel.sync(handle).await);
    }
    assert_eq!(told, [Err(Reason::Io), Err(Reason::Io), Ok(()), Ok(()), Ok(())]);

    // A server that stops syncs, and says what it has lost.
    assert_eq!(channel.sync(second).await, Ok(()));
    let file = server.shared.files.here(id).unwrap();
    file.write(0, b"kept").unwrap();
    drop(channel);
    let files = Arc::clone(&server.shared.files);
    timeout(LONG, server.stop()).await.unwrap();
    assert_eq!((file.unsynced(), files.counts().opens), (None, 0));
}

/// The kind of each request is remembered until it is answered, for the counters. A copy of one that its client says to be
/// settled is never answered.
#[tokio::test(flavor = "multi_thread")]
async fn t16_requests_that_are_never_answered_take_no_memory() {
    const COPIES: u64 = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let (own, client) = (identity(), identity());
    let list = format!("[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"data\"]\n", client.public());
    let exports = Exports::open([("data".parse().unwrap(), folder.path().to_owned())]).unwrap();
    let mut config = ServerConfig::new(Arc::clone(&own), exports, parse_clients(&list).unwrap());
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let server = Server::start(config).unwrap();
    let mut channel = Channel::start(&server, &own.public(), &client).await;
    let sync = || Sync { handle: HandleId(1), scope: SyncScope::Data };
    for request in 1..=COPIES {
        channel.send(sync(), RequestId(request), RequestId(COPIES + 1)).await;
    }
    channel.next = COPIES + 1;
    assert_eq!(channel.sync(HandleId(1)).await, Err(Reason::BadHandle));
    assert_eq!(server.shared.asked(), 0);
    let counts = server.counts().requests;
    let syncs = counts.iter().find(|count| count.refused > 0);
    assert_eq!(syncs.map(|count| (count.done, count.refused)), Some((0, 1)), "{counts:?}");
    drop(channel);
    timeout(LONG, server.stop()).await.unwrap();
}
