//! A recording TCP proxy: it stands between client and server, keeps what went over each connection, and can cut,
//! freeze or refuse connections. What a test knows of the wire it knows from here, not from either end's word.
#![allow(dead_code, reason = "each includer uses a part of it")]
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::model::{ChannelKind, ChannelNumber, Limits, Protection, len_u64};
use bowline::wire::hello::{self, Hello, Offer};
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// What a connection is, by the hello that its client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No whole hello came yet, or something else than one.
    Unknown,
    /// A session handshake (`IK`).
    Session,
    /// A bind handshake (`KKpsk0`) of a control channel.
    BindControl,
    /// A bind handshake (`KKpsk0`) of a data channel.
    BindData,
    /// A handshake (`XX`) that asks for the server's key.
    Enrol,
}

/// A connection as it stands, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// Counts the recorder's connections from 0.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// The channel's number, of a bind.
    pub(crate) channel: Option<ChannelNumber>,
    /// The protection that the client asked for, of a bind; the server's choice is encrypted.
    pub(crate) protection: Option<Protection>,
    /// Whether the connection still stands.
    pub(crate) is_open: bool,
    /// How many bytes the client sent; more than were kept, perhaps.
    pub(crate) to_server_len: u64,
    /// How many bytes the server sent; more than were kept, perhaps.
    pub(crate) to_client_len: u64,
}

/// A connection and what went over it.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// Counts the recorder's connections from 0.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// The channel's number, of a bind.
    pub(crate) channel: Option<ChannelNumber>,
    /// The protection that the client asked for, of a bind; the server's choice is encrypted.
    pub(crate) protection: Option<Protection>,
    /// Whether the connection still stands.
    pub(crate) is_open: bool,
    /// What the client sent: the first bytes of it, up to the recorder's limit.
    pub(crate) to_server: Vec<u8>,
    /// What the server sent: the first bytes of it, up to the recorder's limit.
    pub(crate) to_client: Vec<u8>,
}

/// The proxy. Dropping it ends its connections with a reset.
#[derive(Debug)]
pub(crate) struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Recorder {
    /// Bytes that are kept of each direction of a connection, unless another number is given.
    pub(crate) const KEPT: usize = 64 << 20;

    /// Listens on a free port of `listen` and passes each connection on to `upstream`.
    pub(crate) async fn start(listen: IpAddr, upstream: SocketAddr) -> io::Result<Self> {
        Self::keeping(listen, upstream, Self::KEPT).await
    }

    /// As [`Recorder::start`], with at most `kept` bytes kept of each direction of a connection. All are passed
    /// on and counted. A connection whose hello is not kept whole stays [`Kind::Unknown`].
    pub(crate) async fn keeping(listen: IpAddr, upstream: SocketAddr, kept: usize) -> io::Result<Self> {
        Self::listening(listen, upstream, kept, None).await
    }

    async fn listening(
        listen: IpAddr,
        upstream: SocketAddr,
        kept: usize,
        room: Option<usize>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((listen, 0)).await?;
        if let Some(room) = room {
            // The connections that it accepts have it from their listener.
            SockRef::from(&listener).set_recv_buffer_size(room)?;
        }
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            kept,
            connections: Mutex::new(Vec::new()),
            is_frozen: watch::Sender::new(false),
            is_refusing: AtomicBool::new(false),
            changes: watch::Sender::new(()),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// As [`Recorder::start`], with little room for what was sent to it and not passed on yet: while it is frozen, a client
    /// that sends much has it in its own kernel, or in its hands.
    pub(crate) async fn narrow(listen: IpAddr, upstream: SocketAddr) -> io::Result<Self> {
        Self::listening(listen, upstream, Self::KEPT, Some(64 << 10)).await
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection so far, in the order in which they came, without the bytes.
    pub(crate) fn labels(&self) -> Vec<Label> {
        self.shared.labels()
    }

    /// Every connection so far, in the order in which they came, with the bytes.
    pub(crate) fn connections(&self) -> Vec<Recording> {
        let connections = lock(&self.shared.connections).clone();
        connections.iter().map(|connection| connection.recording()).collect()
    }

    /// Resets every connection that stands, towards both ends, and tells how many there were.
    pub(crate) fn cut_all(&self) -> usize {
        self.cut(|_| true)
    }

    /// Resets the standing connections that `is_meant`, towards both ends, and tells how many there were.
    pub(crate) fn cut(&self, is_meant: impl Fn(&Label) -> bool) -> usize {
        let connections = lock(&self.shared.connections).clone();
        let meant = connections.iter().filter(|connection| {
            let label = connection.label();
            label.is_open && is_meant(&label)
        });
        meant.map(|connection| connection.cut.cancel()).count()
    }

    /// Ends every connection that stands, towards both ends, as one that is closed on purpose, and tells how many there
    /// were.
    pub(crate) fn end_all(&self) -> usize {
        let connections = lock(&self.shared.connections).clone();
        let standing = connections.iter().filter(|connection| connection.label().is_open);
        standing.map(|connection| connection.end.cancel()).count()
    }

    /// Passes new connections on to another server from now on.
    pub(crate) fn redirect(&self, upstream: SocketAddr) {
        *lock(&self.shared.upstream) = upstream;
    }

    /// Stops passing bytes, ends and resets on, or goes on with it: a line that is silent without being down.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        self.shared.is_frozen.send_replace(is_frozen);
    }

    /// Resets each new connection at once and records nothing of it, or lets them in again.
    pub(crate) fn refuse(&self, is_refusing: bool) {
        self.shared.is_refusing.store(is_refusing, Ordering::SeqCst);
    }

    /// Waits until the connections are as `is_so` wants them.
    ///
    /// # Errors
    /// `TimedOut`, with how the connections stand, if that takes over 30 s.
    pub(crate) async fn until(&self, is_so: impl Fn(&[Label]) -> bool) -> io::Result<Vec<Label>> {
        let mut changes = self.shared.changes.subscribe();
        let reached = async {
            loop {
                changes.borrow_and_update();
                let labels = self.labels();
                // The sender lives as long as this recorder, so `changed` does not fail.
                if is_so(&labels) || changes.changed().await.is_err() {
                    return labels;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("still {:?}", self.labels())))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    kept: usize,
    connections: Mutex<Vec<Arc<Connection>>>,
    is_frozen: watch::Sender<bool>,
    is_refusing: AtomicBool,
    changes: watch::Sender<()>,
}

impl Shared {
    fn labels(&self) -> Vec<Label> {
        lock(&self.connections).iter().map(|connection| connection.label()).collect()
    }

    fn begin(&self) -> Arc<Connection> {
        let mut connections = lock(&self.connections);
        let connection = Arc::new(Connection {
            number: connections.len(),
            cut: CancellationToken::new(),
            end: CancellationToken::new(),
            is_open: AtomicBool::new(true),
            to_server: Mutex::default(),
            to_client: Mutex::default(),
        });
        connections.push(Arc::clone(&connection));
        drop(connections);
        self.changes.send_replace(());
        connection
    }
}

#[derive(Debug)]
struct Connection {
    number: usize,
    cut: CancellationToken,
    end: CancellationToken,
    is_open: AtomicBool,
    to_server: Mutex<Direction>,
    to_client: Mutex<Direction>,
}

#[derive(Debug, Default)]
struct Direction {
    kept: Vec<u8>,
    len: u64,
}

impl Connection {
    fn label(&self) -> Label {
        let to_server = lock(&self.to_server);
        let (kind, bind) = classify(&to_server.kept);
        Label {
            number: self.number,
            kind,
            channel: bind.map(|bind| bind.0),
            protection: bind.map(|bind| bind.1),
            is_open: self.is_open.load(Ordering::SeqCst),
            to_server_len: to_server.len,
            to_client_len: lock(&self.to_client).len,
        }
    }

    fn recording(&self) -> Recording {
        let Label { number, kind, channel, protection, is_open, .. } = self.label();
        let (to_server, to_client) = (lock(&self.to_server).kept.clone(), lock(&self.to_client).kept.clone());
        Recording { number, kind, channel, protection, is_open, to_server, to_client }
    }
}

/// What the client's first bytes begin.
fn classify(bytes: &[u8]) -> (Kind, Option<(ChannelNumber, Protection)>) {
    match first_flight(bytes).and_then(|flight| Hello::decode(flight).ok()).map(|hello| hello.offer) {
        None => (Kind::Unknown, None),
        Some(Offer::Session(_)) => (Kind::Session, None),
        Some(Offer::Enrol(_)) => (Kind::Enrol, None),
        Some(Offer::Bind(offer)) => {
            let kind = match offer.kind {
                ChannelKind::Control => Kind::BindControl,
                ChannelKind::Data => Kind::BindData,
            };
            (kind, Some((offer.number, offer.protection)))
        }
    }
}

/// The hello at the start of `bytes`, by the lengths that it states.
fn first_flight(bytes: &[u8]) -> Option<&[u8]> {
    let offer_len = hello::start(*bytes.first_chunk()?).ok()?;
    let noise_at = hello::START_LEN + offer_len;
    let noise_len = hello::part_len(*bytes.get(noise_at..)?.first_chunk()?).ok()?;
    bytes.get(..noise_at + 2 + noise_len + hello::MAC1_LEN)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if shared.is_refusing.load(Ordering::SeqCst) {
            reset(client);
            continue;
        }
        let connection = shared.begin();
        tokio::spawn(carry(client, connection, Arc::clone(&shared)));
    }
}

/// Carries one connection to its end.
async fn carry(mut client: TcpStream, connection: Arc<Connection>, shared: Arc<Shared>) {
    let upstream = *lock(&shared.upstream);
    let ended_well = match TcpStream::connect(upstream).await {
        Err(_) => {
            reset(client);
            false
        }
        Ok(mut server) => {
            // What comes in small pieces goes on in small pieces, at once.
            let undelayed = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
            let ended_well = undelayed.is_ok() && {
                let (client_reads, client_writes) = client.split();
                let (server_reads, server_writes) = server.split();
                let both = async {
                    tokio::try_join!(
                        pump(client_reads, server_writes, &connection.to_server, &shared),
                        pump(server_reads, client_writes, &connection.to_client, &shared),
                    )
                };
                tokio::select! {
                    () = connection.cut.cancelled() => false,
                    () = connection.end.cancelled() => true,
                    outcome = both => outcome.is_ok(),
                }
            };
            if !ended_well {
                reset(client);
                reset(server);
            }
            ended_well
        }
    };
    tracing::debug!(connection = connection.number, ended_well, "recorded connection ended");
    connection.is_open.store(false, Ordering::SeqCst);
    shared.changes.send_replace(());
}

/// Passes one direction on until its end, which it passes on too. An error ends the other direction as well.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: &Mutex<Direction>,
    shared: &Shared,
) -> io::Result<()> {
    let mut thawed = shared.is_frozen.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        // Also an end and a reset wait: nothing may pass a frozen line.
        let _ = thawed.wait_for(|is_frozen| !is_frozen).await;
        let bytes = &buffer[..read?];
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        keep(&mut lock(direction), bytes, shared.kept);
        shared.changes.send_replace(());
        to.write_all(bytes).await?;
    }
}

fn keep(direction: &mut Direction, bytes: &[u8], kept: usize) {
    let room = kept.saturating_sub(direction.kept.len()).min(bytes.len());
    direction.kept.extend_from_slice(&bytes[..room]);
    direction.len += len_u64(bytes.len());
}

/// Closes a connection so that the other end sees a reset, not an end.
fn reset(stream: TcpStream) {
    // Where even this fails the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How `secret` stands in `haystack`, if it does: as it is, half of it, or in a text form. A half is its first or
/// last 8 bytes. Text forms are hex, base64 and base32, also where the secret is a part of what was encoded, so
/// that its digits begin at another bit.
///
/// # Panics
/// If the secret has fewer than 8 bytes: such a one stands in many places by chance.
pub(crate) fn contains_secret(haystack: &[u8], secret: &[u8]) -> Option<&'static str> {
    let (first, last) = (secret.first_chunk::<8>(), secret.last_chunk::<8>());
    let (Some(first), Some(last)) = (first, last) else { panic!("a secret has at least 8 bytes") };
    let mut needles = vec![("the bytes", secret.to_vec())];
    for half in [first, last] {
        // A text form of the whole holds that of each half, so that searching for halves finds both.
        needles.push(("half of the bytes", half.to_vec()));
        needles.push(("hex, lower case", HEXLOWER.encode(half).into_bytes()));
        needles.push(("hex, upper case", HEXUPPER.encode(half).into_bytes()));
        for before in 0..3 {
            needles.push(("base64", digits(half, before, 6, |bytes| BASE64_NOPAD.encode(bytes))));
            needles.push(("base64 for URLs", digits(half, before, 6, |bytes| BASE64URL_NOPAD.encode(bytes))));
        }
        for before in 0..5 {
            let upper = digits(half, before, 5, |bytes| BASE32_NOPAD.encode(bytes));
            needles.push(("base32, lower case", upper.to_ascii_lowercase()));
            needles.push(("base32, upper case", upper));
        }
    }
    find(haystack, &needles)
}

/// The digits of `secret`, encoded behind `before` other bytes, that depend on nothing but the secret.
fn digits(secret: &[u8], before: usize, bits: usize, encode: impl Fn(&[u8]) -> String) -> Vec<u8> {
    let encoded = encode(&[&vec![0; before][..], secret].concat()).into_bytes();
    let first = (before * 8).div_ceil(bits);
    let end = (before + secret.len()) * 8 / bits;
    encoded[first..end].to_vec()
}

/// The name of the first needle that stands in `haystack`, found in one pass over it.
fn find(haystack: &[u8], needles: &[(&'static str, Vec<u8>)]) -> Option<&'static str> {
    let pair = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    // Whether any needle begins with these two bytes: most places of the haystack are done with one look.
    let mut begins = vec![false; 1 << 16];
    needles.iter().for_each(|(_, needle)| begins[pair(needle)] = true);
    (0..haystack.len().saturating_sub(1)).find_map(|at| {
        let rest = &haystack[at..];
        let is_here = |needle: &[u8]| rest.starts_with(needle);
        begins[pair(rest)].then(|| needles.iter().find(|(_, needle)| is_here(needle)))?.map(|(name, _)| *name)
    })
}

const _: () = assert!(Recorder::KEPT > 4 * Limits::HELLO_LEN_MAX, "a hello is always kept whole");
