//! A TCP proxy that knows where records begin and end, and does something to one of them: flips a bit, repeats it,
//! leaves it out, lets it change places with the next one, cuts the connection in it, or puts a record of another
//! connection before it. It reads what anybody on the way can read: hellos and heads.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::model::{ChannelKind, Limits, Protection};
use bowline::wire::hello::{self, Hello, Offer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Where a record is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Head,
    Body,
    /// The payload or its tag.
    Payload,
}

/// What is done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit {
    /// A bit of this part is flipped: the number counts on from its start, and round.
    Flip(Part, usize),
    Duplicate,
    Drop,
    Swap,
    /// So many bytes arrive, and then the end of the connection.
    Cut(usize),
    /// The latest record of another connection arrives before it.
    Splice,
}

/// Which record is hit, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kind: ChannelKind,
    /// Towards the server, or towards the client.
    pub(crate) is_up: bool,
    /// How many records of this kind of channel and direction pass before.
    pub(crate) after: usize,
    /// Only a record with a payload will do.
    pub(crate) with_payload: bool,
    pub(crate) hit: Hit,
}

/// The proxy of one line.
pub(crate) struct Tamperer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    upstream: SocketAddr,
    plan: Mutex<Option<Plan>>,
    /// How many plans were carried out.
    done: watch::Sender<usize>,
    /// The latest record of each kind of channel and direction, with the connection that it was on.
    latest: Mutex<Vec<Latest>>,
}

struct Latest {
    connection: usize,
    is_up: bool,
    frame: Vec<u8>,
}

/// What a connection is, by its hello.
#[derive(Debug, Clone, Copy)]
struct About {
    number: usize,
    kind: ChannelKind,
    protection: Protection,
}

impl Tamperer {
    /// Listens on a free port of `listen` and passes each connection on to `upstream`.
    pub(crate) async fn start(listen: IpAddr, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((listen, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(None),
            done: watch::Sender::new(0),
            latest: Mutex::new(Vec::new()),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next record that fits is hit.
    pub(crate) fn arm(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap() = Some(plan);
    }

    /// Nothing is hit any more.
    pub(crate) fn disarm(&self) {
        *self.shared.plan.lock().unwrap() = None;
    }

    /// How many records were hit.
    pub(crate) fn hits(&self) -> usize {
        *self.shared.done.borrow()
    }
}

impl Drop for Tamperer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for number in 0.. {
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A connection that ends is no failure: that is what is being tested.
            drop(carry(client, number, shared).await);
        });
    }
}

async fn carry(client: TcpStream, number: usize, shared: Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // The first flight of either side goes on as it is.
    let hello = read_hello(&mut from_client).await?;
    to_server.write_all(&hello).await?;
    let (kind, protection) = match Hello::decode(&hello).map_err(io::Error::other)?.offer {
        Offer::Bind(offer) => (offer.kind, offer.protection),
        _ => (ChannelKind::Control, Protection::Sealed),
    };
    let about = About { number, kind, protection };
    let up = pump(from_client, to_server, (about, true), Arc::clone(&shared));
    let down = async {
        let mut to_client = to_client;
        let mut len = [0; 2];
        from_server.read_exact(&mut len).await?;
        let mut message2 = vec![0; usize::from(u16::from_le_bytes(len))];
        from_server.read_exact(&mut message2).await?;
        to_client.write_all(&[&len[..], &message2].concat()).await?;
        pump(from_server, to_client, (about, false), shared).await
    };
    // Each direction goes on by itself: an end is passed on, and the other one may still have something to say.
    let (up, down) = tokio::join!(up, down);
    up.and(down)
}

async fn read_hello(stream: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; hello::START_LEN];
    stream.read_exact(&mut bytes).await?;
    let offer = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let at = bytes.len();
    bytes.resize(at + offer + 2, 0);
    stream.read_exact(&mut bytes[at..]).await?;
    let at = bytes.len();
    let noise = usize::from(u16::from_le_bytes([bytes[at - 2], bytes[at - 1]]));
    bytes.resize(at + noise + hello::MAC1_LEN, 0);
    stream.read_exact(&mut bytes[at..]).await?;
    Ok(bytes)
}

/// A record, and where its body's tag ends.
async fn read_record(
    stream: &mut OwnedReadHalf,
    protection: Protection,
) -> io::Result<(Vec<u8>, usize, usize)> {
    let mut frame = vec![0; Limits::HEAD_LEN];
    stream.read_exact(&mut frame).await?;
    let len = |at: usize| {
        let len = u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        usize::try_from(len).unwrap()
    };
    let (body, payload) = (len(0), len(4));
    let tag_p = if payload > 0 && protection != Protection::Clear { Limits::TAG_LEN } else { 0 };
    let tag_h = Limits::HEAD_LEN + body + Limits::TAG_LEN;
    frame.resize(tag_h + payload + tag_p, 0);
    stream.read_exact(&mut frame[Limits::HEAD_LEN..]).await?;
    Ok((frame, tag_h, payload))
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (about, is_up): (About, bool),
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut kept: Option<Vec<u8>> = None;
    loop {
        let (mut frame, tag_h, payload) = match read_record(&mut from, about.protection).await {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return to.shutdown().await,
            Err(error) => {
                SockRef::from(to.as_ref()).set_linger(Some(Duration::ZERO))?;
                return Err(error);
            }
        };
        let hit = shared.next_hit(about, is_up, payload);
        let foreign = shared.remember(about, is_up, &frame);
        match hit {
            None => {
                to.write_all(&frame).await?;
                if let Some(kept) = kept.take() {
                    to.write_all(&kept).await?;
                }
            }
            Some(Hit::Flip(part, bit)) => {
                let body = tag_h - Limits::TAG_LEN;
                let range = match part {
                    Part::Head => 0..Limits::HEAD_LEN,
                    Part::Body => Limits::HEAD_LEN..body.max(Limits::HEAD_LEN + 1),
                    Part::Payload => tag_h..frame.len(),
                };
                let bit = bit % (range.len() * 8);
                frame[range.start + bit / 8] ^= 1 << (bit % 8);
                to.write_all(&frame).await?;
            }
            Some(Hit::Duplicate) => to.write_all(&[&frame[..], &frame].concat()).await?,
            Some(Hit::Drop) => {}
            Some(Hit::Swap) => kept = Some(frame),
            Some(Hit::Cut(len)) => {
                to.write_all(&frame[..len % frame.len()]).await?;
                return to.shutdown().await;
            }
            Some(Hit::Splice) => {
                to.write_all(&foreign.unwrap_or_else(|| frame.clone())).await?;
                to.write_all(&frame).await?;
            }
        }
    }
}

impl Shared {
    /// What is to be done to this record.
    fn next_hit(&self, about: About, is_up: bool, payload: usize) -> Option<Hit> {
        let mut plan = self.plan.lock().unwrap();
        let fits = |plan: &Plan| {
            plan.kind == about.kind && plan.is_up == is_up && (payload > 0 || !plan.with_payload)
        };
        let planned = plan.as_mut().filter(|plan| fits(plan))?;
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        let hit = planned.hit;
        *plan = None;
        self.done.send_modify(|done| *done += 1);
        Some(hit)
    }

    /// Keeps the record, and gives the latest one of another connection that goes the same way.
    fn remember(&self, about: About, is_up: bool, frame: &[u8]) -> Option<Vec<u8>> {
        let mut latest = self.latest.lock().unwrap();
        let mut others = latest.iter().rev();
        let other = others.find(|other| other.is_up == is_up && other.connection != about.number);
        let foreign = other.map(|other| other.frame.clone());
        latest.retain(|known| (known.connection, known.is_up) != (about.number, is_up));
        latest.push(Latest { connection: about.number, is_up, frame: frame.to_vec() });
        if latest.len() > 16 {
            latest.remove(0);
        }
        foreign
    }
}
