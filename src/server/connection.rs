//! One connection of a server: its handshake, its reader and its writer.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::counters::Handshake;
use super::enrolment;
use super::gate::HalfOpen;
use super::shared::{Shared, WriterHandle};
use super::spans::{self, Line};
use crate::model::{ChannelKind, ChannelNumber, EntropyError, Protection, PublicKey};
use crate::net::socket::Accepted;
use crate::net::{
    Backlog, GreetingError, Meter, NotDone, Outbound, Outbox, Queue, ReadError, Received, RecordReader,
    RecordWriter, SystemEntropy, outbox, read_hello, run_channel, socket,
};
use crate::secure::{
    BindResponder, HandshakeError, Identity, Opener, RecordError, RecordKeys, Sealer, SessionResponder,
};
use crate::session::LossReason;
use crate::session::server::{BindDenial, Binding, ClientMessage, ConnectionId, SessionFacts};
use crate::wire::hello::{BindOffer, Hello, Offer, PROTOCOL_VERSION, SessionOffer};
use crate::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};

/// Why a handshake came to nothing. For our log; the other side sees a closed connection in every case, but for a listed
/// client of another version.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    #[error("the hello was not made for this server's key")]
    WrongServer,
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    #[error("client {0:?} is not on the list, or its entry has expired")]
    NotAllowed(PublicKey),
    #[error(
        "client {client:?} speaks versions {} to {} of the protocol, and this server {PROTOCOL_VERSION}",
        offer.version_min, offer.version_max
    )]
    OtherVersion { client: PublicKey, offer: SessionOffer },
    #[error("the session was refused: {0:?}")]
    Session(BindDenial),
    #[error("the bind was refused: {0:?}")]
    Bind(BindDenial),
    #[error("the handshake took longer than its limit")]
    TooSlow,
    #[error("too many are in their handshake, and this one was drawn to go")]
    Drawn,
    #[error("the handshake cannot be computed")]
    NotComputed(#[from] NotDone),
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the first record was refused")]
    First(#[from] ReadError),
    #[error("the first record is no beginning")]
    NoBeginning,
    #[error("the channel's keys were refused")]
    Record(#[from] RecordError),
    #[error("the server's key was not shown")]
    Enrolment(#[from] enrolment::NotShown),
}

/// What a handshake has led to.
enum Greeted {
    Session(SessionFacts, RecordKeys),
    Bind(Binding, RecordKeys),
    /// The server's key was shown, and the connection ends.
    Enrolled,
    /// The client was told that there is no version for both, and the connection ends.
    Declined(Refused),
}

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(shared: Arc<Shared>, accepted: Accepted, place: HalfOpen, stop: CancellationToken) {
    let outcome = tokio::select! {
        () = stop.cancelled() => return,
        () = place.is_drawn() => Err(Refused::Drawn),
        // In a place of its own, which is given back: a channel lasts, and its task has to remember none of this.
        outcome = Box::pin(begin(&shared, accepted, place.source())) => outcome,
    };
    shared.counters.handshake(how(&outcome));
    match outcome {
        Ok(Running::Control(parts)) => {
            place.proven();
            run(&shared, parts).await;
        }
        Ok(Running::Data(parts)) => {
            place.proven();
            run(&shared, parts).await;
        }
        Ok(Running::Nothing) => place.shown(),
        Err(refused) => place.refused(&refused),
    }
}

/// How a handshake ended, as it is counted.
fn how(outcome: &Result<Running, Refused>) -> Handshake {
    match outcome {
        Ok(Running::Control(_) | Running::Data(_)) => Handshake::Proven,
        Ok(Running::Nothing) => Handshake::KeyShown,
        Err(refused) => match refused {
            Refused::Greeting(_) => Handshake::NoHello,
            Refused::WrongServer => Handshake::WrongServer,
            Refused::Handshake(_) | Refused::First(_) | Refused::NoBeginning | Refused::Record(_) => {
                Handshake::Failed
            }
            Refused::NotAllowed(_) => Handshake::NotAllowed,
            Refused::OtherVersion { .. } => Handshake::OtherVersion,
            Refused::Session(_) | Refused::Bind(_) | Refused::Enrolment(_) => Handshake::Refused,
            Refused::TooSlow => Handshake::TooSlow,
            Refused::Drawn => Handshake::Drawn,
            Refused::NotComputed(_) | Refused::Entropy(_) | Refused::Io(_) => Handshake::Broken,
        },
    }
}

/// A connection whose first record has been given to the core, or that has none.
enum Running {
    Control(Parts<ClientControl, ServerControl>),
    Data(Parts<ClientData, ServerData>),
    /// Nothing is to come.
    Nothing,
}

struct Parts<I: Message, O: Message> {
    reader: RecordReader<I, OwnedReadHalf>,
    writer: RecordWriter<O, OwnedWriteHalf>,
    backlog: Backlog<O>,
    connection: ConnectionId,
}

/// The handshake and the first record, within their time.
async fn begin(shared: &Arc<Shared>, accepted: Accepted, source: IpAddr) -> Result<Running, Refused> {
    let limit = shared.limits().handshake;
    let beginning = async {
        let mut stream = accepted.into_stream()?;
        match greet(shared, &mut stream, source).await? {
            Greeted::Enrolled => Ok(Running::Nothing),
            Greeted::Declined(refused) => Err(refused),
            Greeted::Session(facts, keys) => {
                let kind = (ChannelNumber(0), Protection::Sealed, source);
                let (parts, first) = open_channel(shared, stream, keys, kind, Queue::Control).await?;
                let Ok(ClientControl::Begin(begin)) = first.message else {
                    shared.lost(parts.connection, LossReason::Offence);
                    return Err(Refused::NoBeginning);
                };
                shared
                    .drive(|core, now| {
                        core.handle_begin(now, parts.connection, &facts, first.request, &begin)
                    })
                    .map_err(Refused::Session)?;
                Ok(Running::Control(parts))
            }
            Greeted::Bind(binding, keys) => {
                let kind = (binding.offer.number, binding.choice.protection, source);
                match binding.offer.kind {
                    ChannelKind::Control => {
                        let (parts, first) = open_channel(shared, stream, keys, kind, Queue::Control).await?;
                        let Ok(ClientControl::Attach(attach)) = first.message else {
                            shared.lost(parts.connection, LossReason::Offence);
                            return Err(Refused::NoBeginning);
                        };
                        shared
                            .drive(|core, now| {
                                core.handle_attach(now, parts.connection, &binding, first.request, &attach)
                            })
                            .map_err(Refused::Bind)?;
                        Ok(Running::Control(parts))
                    }
                    ChannelKind::Data => {
                        let (parts, first) = open_channel(shared, stream, keys, kind, Queue::Data).await?;
                        let Ok(ClientData::Attach(attach)) = first.message else {
                            shared.lost(parts.connection, LossReason::Offence);
                            return Err(Refused::NoBeginning);
                        };
                        shared
                            .drive(|core, now| {
                                core.handle_attach(now, parts.connection, &binding, first.request, &attach)
                            })
                            .map_err(Refused::Bind)?;
                        Ok(Running::Data(parts))
                    }
                }
            }
        }
    };
    shared.clock().timeout(limit, beginning).await.unwrap_or(Err(Refused::TooSlow))
}

/// The two messages of the handshake. The keyed check comes before everything that costs more than itself, and tells
/// which of the server's keys the hello was made for.
async fn greet(shared: &Arc<Shared>, stream: &mut TcpStream, source: IpAddr) -> Result<Greeted, Refused> {
    let hello = read_hello(stream).await?;
    let identity = shared.identities().meant_by(&hello).ok_or(Refused::WrongServer)?;
    let (message, greeted) = match hello.offer {
        Offer::Session(offer) => greet_session(shared, identity, hello, offer).await?,
        Offer::Bind(offer) => greet_bind(shared, identity, hello, offer).await?,
        Offer::Enrol(offer) => {
            let asked = (hello, offer, source);
            (enrolment::answer(shared, identity, asked).await?, Greeted::Enrolled)
        }
    };
    socket::tune(stream)?;
    socket::keep(stream)?;
    stream.write_all(&message).await?;
    Ok(greeted)
}

async fn greet_session(
    shared: &Arc<Shared>,
    identity: Arc<Identity>,
    hello: Hello,
    offer: SessionOffer,
) -> Result<(Vec<u8>, Greeted), Refused> {
    let server = identity.public();
    let responder =
        shared.compute(move || SessionResponder::read(&identity, &hello, &mut SystemEntropy)).await??;
    let client = responder.client();
    let choice = shared.drive(|core, now| core.session_choice(now, &client, &offer))?;
    let choice = choice.ok_or(Refused::NotAllowed(client))?;
    if !offer.has(choice.version) {
        // Whoever is not on the list hears nothing of this either.
        let message = shared.compute(move || responder.decline(choice.version)).await??;
        return Ok((message, Greeted::Declined(Refused::OtherVersion { client, offer })));
    }
    let (message, keys) = shared.compute(move || responder.finish(choice)).await??;
    Ok((message, Greeted::Session(SessionFacts { server, client, offer, choice }, keys)))
}

async fn greet_bind(
    shared: &Arc<Shared>,
    identity: Arc<Identity>,
    hello: Hello,
    offer: BindOffer,
) -> Result<(Vec<u8>, Greeted), Refused> {
    let server = identity.public();
    // A session belongs to the server's key that it began under: under another one it is not known.
    let facts = shared.look(|core| core.bind_facts(&offer.locator)).filter(|facts| facts.server == server);
    let Some(facts) = facts else {
        // The same work and the same end as for a wrong key.
        let refused =
            shared.compute(move || BindResponder::decoy(&identity, &hello, &mut SystemEntropy)).await?;
        shared.drive(|core, _| core.handle_bind_failed(BindDenial::UnknownLocator));
        drop(refused);
        return Err(Refused::Bind(BindDenial::UnknownLocator));
    };
    let session = facts.session;
    let read = move || {
        BindResponder::read(
            &identity,
            &facts.client,
            &facts.secret,
            facts.session,
            &hello,
            &mut SystemEntropy,
        )
    };
    let responder = shared
        .compute(read)
        .await?
        .inspect_err(|_| shared.drive(|core, _| core.handle_bind_failed(BindDenial::Handshake)))?;
    let choice = shared.drive(|core, now| core.bind_choice(now, session, &offer)).map_err(Refused::Bind)?;
    let (message, keys) = shared.compute(move || responder.finish(choice)).await??;
    Ok((message, Greeted::Bind(Binding { session, offer, choice }, keys)))
}

/// Reads the first record and gives the connection its place.
async fn open_channel<I: Message, O: Message>(
    shared: &Arc<Shared>,
    stream: TcpStream,
    keys: RecordKeys,
    (number, protection, source): (ChannelNumber, Protection, IpAddr),
    handle: impl FnOnce(Outbox<O>) -> WriterHandle,
) -> Result<(Parts<I, O>, Received<I>), Refused> {
    let line = Line::new(stream.local_addr()?, source);
    let (read_half, write_half) = stream.into_split();
    let (mut reader, meter): (_, Meter) =
        RecordReader::new(read_half, Opener::new(keys.receive, number, protection)?, shared.buffers.clone());
    let writer = RecordWriter::new(
        write_half,
        Sealer::new(keys.send, number, protection)?,
        Meter::clone(&meter),
        shared.limits().into(),
    );
    let first = reader.next().await?;
    let (outbox, backlog) = outbox();
    let connection = shared.register(handle(outbox), meter, line);
    Ok((Parts { reader, writer, backlog, connection }, first))
}

/// A message of a stream as the core takes it.
trait FromClient: Message {
    fn into_core(self) -> ClientMessage;
}

impl FromClient for ClientControl {
    fn into_core(self) -> ClientMessage {
        ClientMessage::Control(self)
    }
}

impl FromClient for ClientData {
    fn into_core(self) -> ClientMessage {
        ClientMessage::Data(self)
    }
}

async fn run<I: FromClient, O: Message + Send + Sync + 'static>(shared: &Arc<Shared>, parts: Parts<I, O>) {
    let Parts { reader, writer, backlog, connection } = parts;
    let on_record = |received| {
        let input = Received::into_input(received, FromClient::into_core, Outbound::Owned);
        shared.receive(connection, input);
    };
    let on_written = {
        let shared = Arc::clone(shared);
        move |bytes| shared.drive(|core, _| core.handle_written(connection, bytes))
    };
    let discard = |half: &OwnedReadHalf| {
        if let Err(error) = socket::discard(half.as_ref()) {
            tracing::debug!(%error, "what was sent on a connection cannot be thrown away");
        }
    };
    let span = shared.span_of(connection);
    let running = run_channel(reader, writer, backlog, on_record, on_written, discard);
    let reason = running.instrument(spans::of_tasks(&span)).await;
    // Both halves of the socket are closed by now.
    tracing::debug!(parent: &span, connection = connection.0, %reason, "connection closed");
    shared.lost(connection, reason);
}
