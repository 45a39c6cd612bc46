//! A long way over loopback: a proxy that lets every byte through, in order and as late as a path of that length would.
//! It has no bound on what is under way, as a path whose bandwidth nobody exhausts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline::model::{Time, len_u64};
use bowline::net::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Most that is taken from a connection at once, in bytes.
const PIECE: usize = 64 << 10;

/// The proxy. It ends when it is dropped.
pub(crate) struct LongPath {
    _runtime: Runtime,
    address: SocketAddr,
    carried: Arc<AtomicU64>,
}

impl LongPath {
    /// A way to `server` that takes `delay` in each direction.
    pub(crate) fn to(server: SocketAddr, delay: Duration) -> io::Result<Self> {
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let (address, carried) = (listener.local_addr()?, Arc::<AtomicU64>::default());
        runtime.spawn(accept(listener, server, delay, Arc::clone(&carried)));
        Ok(Self { _runtime: runtime, address, carried })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went over it so far, both directions together.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, delay: Duration, carried: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        // Who finds no server finds the connection closed.
        let Ok(server) = TcpStream::connect(server).await else { continue };
        if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
            continue;
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        for (from, to) in [(from_client, to_server), (from_server, to_client)] {
            let (sender, receiver) = unbounded_channel();
            tokio::spawn(take(from, sender, delay, Arc::clone(&carried)));
            tokio::spawn(give(to, receiver));
        }
    }
}

/// Takes what comes, and notes when it is due at the other end.
async fn take(
    mut from: OwnedReadHalf,
    under_way: UnboundedSender<(Time, Vec<u8>)>,
    delay: Duration,
    carried: Arc<AtomicU64>,
) {
    loop {
        let mut bytes = Vec::with_capacity(PIECE);
        match from.read_buf(&mut bytes).await {
            Ok(read) if read > 0 => carried.fetch_add(len_u64(read), Ordering::Relaxed),
            // The end goes the same way as the bytes: behind them.
            _ => return,
        };
        if under_way.send((Clock.now().after(delay), bytes)).is_err() {
            return;
        }
    }
}

async fn give(mut to: OwnedWriteHalf, mut under_way: UnboundedReceiver<(Time, Vec<u8>)>) {
    while let Some((due, bytes)) = under_way.recv().await {
        Clock.sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The peer may be gone already; there is nobody left to tell.
    drop(to.shutdown().await);
}
