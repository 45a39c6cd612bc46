//! A server whose handshake threads have more to do than they can, and one whose bounds do not go together.

use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::net::{NotDone, exchange};
use crate::secure::SessionInitiator;
use crate::wire::hello::SessionOffer;

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
