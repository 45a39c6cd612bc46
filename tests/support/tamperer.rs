//! A TCP proxy that knows where records begin and end, and does something to one of them: flips a bit, repeats it,
//! leaves it out, lets it change places with the next one, cuts the connection in it, or puts a record of another
//! connection before it. Of the first flight, which stands before all records, it flips a bit. It reads what anybody on
//! the way can read: hellos and heads.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bowline::model::{ChannelKind, Limits, Protection, PublicKey};
use bowline::secure::mac1::mac1;
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
    /// A record that belongs elsewhere arrives before it, with this one's channel and number written into it if that is
    /// said. As long as there is no such record, nothing is hit.
    Splice(Source, bool),
}

/// Where a record comes from that does not belong where it is put: the latest that was seen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Another connection of the line or of the one it is paired with, in the same direction.
    Channel,
    /// The same kind of channel, in the same direction, of the proxy that was named by [`Tamperer::splice_from`].
    Session,
    /// The other direction of the same connection.
    Direction,
}

/// Which records can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Any,
    WithPayload,
    /// Those of this kind.
    Kind(u8),
}

/// Which record is hit, and how: the first that fits, behind so many others that do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kind: ChannelKind,
    /// Towards the server, or towards the client.
    pub(crate) is_up: bool,
    /// How many records that fit pass before.
    pub(crate) after: usize,
    /// Other records are not counted.
    pub(crate) which: Which,
    pub(crate) hit: Hit,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Session,
    Bind(ChannelKind),
    Enrolment,
}

/// Which bit of a first flight is flipped: of the next connection that begins like this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) handshake: Handshake,
    /// Of the client's hello, or of the server's answer.
    pub(crate) is_up: bool,
    /// Counted on from the start, and round.
    pub(crate) bit: usize,
    /// The check of a hello is made anew under this key, which is no secret.
    pub(crate) check: Option<PublicKey>,
}

/// Where a head has its kind, its channel and its number.
const KIND: usize = 8;
const CHANNEL: Range<usize> = 12..16;
const SEQUENCE: Range<usize> = 24..32;

/// The proxy of one line.
pub(crate) struct Tamperer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    upstream: SocketAddr,
    plan: Mutex<Option<Plan>>,
    flight: Mutex<Option<Flight>>,
    /// How many plans were carried out.
    done: watch::Sender<usize>,
    /// The latest record of each kind of channel and direction, with the connection that it was on.
    latest: Mutex<Vec<Latest>>,
    /// Where records of another line of the session are.
    partner: Mutex<Weak<Self>>,
    /// Where records of another session are.
    beside: Mutex<Weak<Self>>,
    /// How many records of each kind have passed, by direction.
    passed: Mutex<BTreeMap<(bool, u8), usize>>,
}

struct Latest {
    connection: usize,
    kind: ChannelKind,
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
            flight: Mutex::new(None),
            done: watch::Sender::new(0),
            latest: Mutex::new(Vec::new()),
            partner: Mutex::default(),
            beside: Mutex::default(),
            passed: Mutex::new(BTreeMap::new()),
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

    /// The next first flight that fits is hit.
    pub(crate) fn arm_flight(&self, flight: Flight) {
        *self.shared.flight.lock().unwrap() = Some(flight);
    }

    /// Nothing is hit any more.
    pub(crate) fn disarm(&self) {
        *self.shared.plan.lock().unwrap() = None;
        *self.shared.flight.lock().unwrap() = None;
    }

    /// What belongs to another session is from now on taken from what passes `other`.
    pub(crate) fn splice_from(&self, other: &Self) {
        *self.shared.beside.lock().unwrap() = Arc::downgrade(&other.shared);
    }

    /// What belongs to another channel is from now on taken from what passes `other`, if there is only one here.
    pub(crate) fn pair_with(&self, other: &Self) {
        *self.shared.partner.lock().unwrap() = Arc::downgrade(&other.shared);
    }

    /// How many records of this kind have passed in a direction.
    pub(crate) fn passed(&self, is_up: bool, kind: u8) -> usize {
        self.shared.passed.lock().unwrap().get(&(is_up, kind)).copied().unwrap_or(0)
    }

    /// How many records and first flights were hit.
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
    let mut hello = read_hello(&mut from_client).await?;
    let (handshake, kind, protection) = match Hello::decode(&hello).map_err(io::Error::other)?.offer {
        Offer::Bind(offer) => (Handshake::Bind(offer.kind), offer.kind, offer.protection),
        Offer::Session(_) => (Handshake::Session, ChannelKind::Control, Protection::Sealed),
        Offer::Enrol(_) => (Handshake::Enrolment, ChannelKind::Control, Protection::Sealed),
    };
    let flight = shared.next_flight(handshake);
    if let Some(flight) = flight.filter(|flight| flight.is_up) {
        flip(&mut hello, flight.bit);
        if let Some(key) = &flight.check {
            let checked = hello.len() - hello::MAC1_LEN;
            let check = mac1(key, &hello[..checked]);
            hello[checked..].copy_from_slice(&check);
        }
    }
    to_server.write_all(&hello).await?;
    let about = About { number, kind, protection };
    let up = pump(from_client, to_server, (about, true), Arc::clone(&shared));
    let down = async {
        let mut to_client = to_client;
        let mut len = [0; 2];
        from_server.read_exact(&mut len).await?;
        let mut message2 = vec![0; usize::from(u16::from_le_bytes(len))];
        from_server.read_exact(&mut message2).await?;
        let mut answer = [&len[..], &message2].concat();
        if let Some(flight) = flight.filter(|flight| !flight.is_up) {
            flip(&mut answer, flight.bit);
        }
        to_client.write_all(&answer).await?;
        pump(from_server, to_client, (about, false), shared).await
    };
    // Each direction goes on by itself: an end is passed on, and the other one may still have something to say.
    let (up, down) = tokio::join!(up, down);
    up.and(down)
}

fn flip(bytes: &mut [u8], bit: usize) {
    let bit = bit % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
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
        let (hit, foreign) = shared.next_hit(about, is_up, (&frame, payload));
        shared.remember(about, is_up, &frame);
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
                flip(&mut frame[range], bit);
                to.write_all(&frame).await?;
            }
            Some(Hit::Duplicate) => to.write_all(&[&frame[..], &frame].concat()).await?,
            Some(Hit::Drop) => {}
            Some(Hit::Swap) => kept = Some(frame),
            Some(Hit::Cut(len)) => {
                to.write_all(&frame[..len % frame.len()]).await?;
                return to.shutdown().await;
            }
            Some(Hit::Splice(_, is_adapted)) => {
                let mut foreign = foreign.expect("nothing is hit without one");
                if is_adapted {
                    foreign[CHANNEL].copy_from_slice(&frame[CHANNEL]);
                    foreign[SEQUENCE].copy_from_slice(&frame[SEQUENCE]);
                }
                to.write_all(&foreign).await?;
                to.write_all(&frame).await?;
            }
        }
    }
}

impl Shared {
    /// What is to be done to a connection that begins like this.
    fn next_flight(&self, handshake: Handshake) -> Option<Flight> {
        let flight = self.flight.lock().unwrap().take_if(|flight| flight.handshake == handshake)?;
        self.done.send_modify(|done| *done += 1);
        Some(flight)
    }

    /// What is to be done to this record, and the foreign one if that is what it takes.
    fn next_hit(
        &self,
        about: About,
        is_up: bool,
        (frame, payload): (&[u8], usize),
    ) -> (Option<Hit>, Option<Vec<u8>>) {
        let mut plan = self.plan.lock().unwrap();
        let fits = |plan: &Plan| {
            let is_one = match plan.which {
                Which::Any => true,
                Which::WithPayload => payload > 0,
                Which::Kind(kind) => frame[KIND] == kind,
            };
            plan.kind == about.kind && plan.is_up == is_up && is_one
        };
        let Some(planned) = plan.as_mut().filter(|plan| fits(plan)) else { return (None, None) };
        let foreign = match planned.hit {
            Hit::Splice(source, _) => match self.foreign(about, is_up, source) {
                None => return (None, None),
                found => found,
            },
            _ => None,
        };
        if planned.after > 0 {
            planned.after -= 1;
            return (None, None);
        }
        let hit = planned.hit;
        *plan = None;
        self.done.send_modify(|done| *done += 1);
        (Some(hit), foreign)
    }

    fn foreign(&self, about: About, is_up: bool, source: Source) -> Option<Vec<u8>> {
        let find = |shared: &Self, fits: &dyn Fn(&Latest) -> bool| {
            let latest = shared.latest.lock().unwrap();
            latest.iter().rev().find(|latest| fits(latest)).map(|latest| latest.frame.clone())
        };
        match source {
            Source::Channel => {
                let own = find(self, &|latest| latest.is_up == is_up && latest.connection != about.number);
                let partner = || self.partner.lock().unwrap().upgrade();
                own.or_else(|| find(&*partner()?, &|latest| latest.is_up == is_up))
            }
            Source::Direction => {
                find(self, &|latest| latest.is_up != is_up && latest.connection == about.number)
            }
            Source::Session => {
                let beside = self.beside.lock().unwrap().upgrade()?;
                find(&beside, &|latest| latest.is_up == is_up && latest.kind == about.kind)
            }
        }
    }

    /// Keeps the record as the latest of its connection and direction.
    fn remember(&self, about: About, is_up: bool, frame: &[u8]) {
        *self.passed.lock().unwrap().entry((is_up, frame[KIND])).or_default() += 1;
        let mut latest = self.latest.lock().unwrap();
        latest.retain(|known| (known.connection, known.is_up) != (about.number, is_up));
        let (connection, kind) = (about.number, about.kind);
        latest.push(Latest { connection, kind, is_up, frame: frame.to_vec() });
        if latest.len() > 16 {
            latest.remove(0);
        }
    }
}
