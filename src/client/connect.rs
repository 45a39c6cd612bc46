//! Connections of a client: the handshake that starts a session, the one that asks for it, and binds.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::error::Error;
use super::peers::LineConfig;
use crate::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Entropy as _, InstanceId, Limits, LineId, Protection,
    PublicKey, RequestId, SessionId, SuiteSet,
};
use crate::net::{
    Buffers, Clock, GreetingError, Meter, RecordReader, RecordWriter, RekeyLimits, SystemEntropy, exchange,
    socket,
};
use crate::secure::{BindInitiator, HandshakeError, Identity, Opener, RecordKeys, Sealer, SessionInitiator};
use crate::session::client::{ConnectFailure, Epochs, Terms};
use crate::wire::control::{Attach, Begin, BindSecret, Purpose, Started, WelcomeAnswer};
use crate::wire::data::Farewell;
use crate::wire::hello::{BindChoice, BindOffer, PROTOCOL_VERSION, SessionChoice, SessionOffer};
use crate::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};

/// Who connects to whom, and within what time.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub(super) identity: Arc<Identity>,
    pub(super) instance: InstanceId,
    pub(super) server: PublicKey,
    pub(super) clock: Clock,
    pub(super) limit: Duration,
    /// Of the payload of all channels.
    pub(super) buffers: Buffers,
    /// When keys of channels are replaced.
    pub(super) rekey: RekeyLimits,
    /// The suites for data channels.
    pub(super) suites: SuiteSet,
    /// The lives of servers that this client has seen.
    pub(super) epochs: Arc<Mutex<Epochs>>,
}

/// What a bind needs of its session.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) session: SessionId,
    pub(super) started: Started,
}

impl Credentials {
    /// What the server grants, if a client can do with so little.
    pub(super) fn terms(&self) -> Option<Terms> {
        let mut terms = Terms::new(self.session, &self.started);
        let least = PAYLOAD_LEN_LEAST;
        let own_max = u32::try_from(Limits::PAYLOAD_LEN_MAX).unwrap_or(u32::MAX);
        terms.payload_max = terms.payload_max.min(own_max);
        (terms.payload_max >= least && terms.bytes >= u64::from(least)).then_some(terms)
    }
}

/// Both halves of a channel in use.
#[derive(Debug)]
pub(super) struct Halves<O: Message, I: Message> {
    pub(super) writer: RecordWriter<O, OwnedWriteHalf>,
    pub(super) reader: RecordReader<I, OwnedReadHalf>,
    pub(super) meter: Meter,
}

pub(super) type ControlHalves = Halves<ClientControl, ServerControl>;
pub(super) type DataHalves = Halves<ClientData, ServerData>;

/// A channel that was bound, with the protection that the server chose.
#[derive(Debug)]
pub(super) enum Bound {
    Control(ControlHalves, Protection),
    Data(DataHalves, Protection),
}

/// A connection that has proven both identities and has sent no record yet.
pub(super) struct Proven {
    line: LineId,
    address: SocketAddr,
    stream: TcpStream,
    choice: SessionChoice,
    keys: RecordKeys,
}

/// Starts a session: tries the control-capable lines, each a little after the one before, and goes on with the
/// first whose handshake is done. `former` is the session whose place it takes.
pub(super) async fn start(
    party: &Party,
    peer: &str,
    lines: Vec<(LineId, LineConfig)>,
    former: Option<SessionId>,
) -> Result<(LineId, Credentials, ControlHalves), Error> {
    let mut attempts = JoinSet::new();
    for (at, (line, config)) in (0_u32..).zip(lines) {
        let (party, peer) = (party.clone(), peer.to_owned());
        attempts.spawn(async move {
            party.clock.sleep(HEAD_START.saturating_mul(at)).await;
            prove(&party, &peer, line, &config).await
        });
    }
    let mut failure = Error::NoControlLine(peer.to_owned());
    while let Some(joined) = attempts.join_next().await {
        let Ok(outcome) = joined else { continue };
        // The other lines stay at it until a session has begun.
        let begun = match outcome {
            Ok(proven) => begin(party, proven, former).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(session) => return Ok(session),
            // A server that answers with the wrong key is worth more words than a line that is down.
            Err(error) if rank(&error) >= rank(&failure) => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Asks whether a session lives.
pub(super) async fn ask(party: &Party, config: &LineConfig, session: SessionId) -> Result<bool, Error> {
    let asking = async {
        let proven = prove(party, "", LineId(0), config).await?;
        let (_, answer) = first_record(party, proven, Purpose::Ask(session)).await?;
        match answer {
            WelcomeAnswer::Lives => Ok(true),
            WelcomeAnswer::Gone => Ok(false),
            WelcomeAnswer::Started(_) => Err(Error::Protocol),
        }
    };
    let timed_out = Error::HandshakeTimedOut { address: config.address, limit: party.limit };
    party.clock.timeout(party.limit, asking).await.unwrap_or(Err(timed_out))
}

/// Binds a further channel to a session.
pub(super) async fn bind(
    party: &Party,
    credentials: &Credentials,
    config: &LineConfig,
    (number, kind, protection): (ChannelNumber, ChannelKind, Protection),
) -> Result<Bound, ConnectFailure> {
    let binding = async {
        let stream = socket::connect(config.address, config.via.as_ref())
            .await
            .map_err(|_| ConnectFailure::Unreachable)?;
        let nonce = AttemptNonce(SystemEntropy.bytes().map_err(|_| ConnectFailure::Unreachable)?);
        let suite = party.suites.intersection(credentials.started.suites).best_for(kind);
        let locator = credentials.started.locator;
        let offer = BindOffer { locator, number, nonce, kind, protection, suite };
        bind_on(party, &credentials.started.secret, credentials.session, stream, offer)
            .await
            .map_err(|_| ConnectFailure::Refused)
    };
    party.clock.timeout(party.limit, binding).await.unwrap_or(Err(ConnectFailure::Unreachable))
}

/// The least that a server may call its longest payload and its credit, in bytes. With less, one call with a large buffer would be cut
/// into so many requests that it kept this process busy beyond its deadline.
const PAYLOAD_LEN_LEAST: u32 = 64 << 10;
/// How much later the next line is tried while the ones before are still at it.
const HEAD_START: Duration = Duration::from_millis(250);

fn rank(error: &Error) -> u8 {
    match error {
        Error::NoControlLine(_) => 0,
        Error::Unreachable { .. } => 1,
        Error::HandshakeTimedOut { .. } => 2,
        Error::HandshakeRefused { .. } => 3,
        Error::ServerKeyChanged { .. } => 5,
        _ => 4,
    }
}

/// What a failed handshake says of the server at `address`.
fn of_handshake(error: HandshakeError, address: SocketAddr, pinned: PublicKey) -> Error {
    match error {
        // It says nothing of the server.
        HandshakeError::Entropy(error) => Error::Entropy(error),
        // What these are about was read: so it was the server that wrote it.
        HandshakeError::OtherVersion(theirs) => {
            Error::OtherVersion { address, theirs, ours: PROTOCOL_VERSION }
        }
        HandshakeError::Unoffered | HandshakeError::Choice(_) => Error::Protocol,
        _ => Error::ServerKeyChanged { address, pinned },
    }
}

pub(super) async fn prove(
    party: &Party,
    peer: &str,
    line: LineId,
    config: &LineConfig,
) -> Result<Proven, Error> {
    let address = config.address;
    let proving = async {
        let unreachable = |source| Error::Unreachable { peer: peer.to_owned(), address, source };
        let mut stream = socket::connect(address, config.via.as_ref()).await.map_err(unreachable)?;
        let failed = |error| of_handshake(error, address, party.server);
        let (initiator, hello) =
            SessionInitiator::begin(&party.identity, &party.server, SessionOffer::OURS, &mut SystemEntropy)
                .map_err(failed)?;
        let message = exchange(&mut stream, &hello).await.map_err(|error| match error {
            GreetingError::Connection(_) => {
                Error::HandshakeRefused { address, pinned: party.server, own: party.identity.public() }
            }
            GreetingError::Hello(_) => Error::Protocol,
        })?;
        let (choice, keys) = initiator.finish(&message).map_err(failed)?;
        Ok(Proven { line, address, stream, choice, keys })
    };
    let limit = party.limit;
    let timed_out = Error::HandshakeTimedOut { address, limit };
    party.clock.timeout(limit, proving).await.unwrap_or(Err(timed_out))
}

async fn begin(
    party: &Party,
    proven: Proven,
    former: Option<SessionId>,
) -> Result<(LineId, Credentials, ControlHalves), Error> {
    let (line, address, session) = (proven.line, proven.address, proven.choice.session);
    let (halves, answer) = first_record(party, proven, Purpose::New { former }).await?;
    let WelcomeAnswer::Started(started) = answer else { return Err(Error::Protocol) };
    let admitted = {
        let mut epochs = party.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.admit(started.verifier.store, started.epoch)
    };
    if let Err(seen) = admitted {
        leave(party, halves).await;
        return Err(Error::StaleServer { address, epoch: started.epoch, seen });
    }
    Ok((line, Credentials { session, started }, halves))
}

/// Gives up a session that was just started: the server need not keep it.
pub(super) async fn leave(party: &Party, mut halves: ControlHalves) {
    let farewell = async {
        let ids = (RequestId::NONE, RequestId::FIRST);
        halves.writer.write(&Farewell {}.into(), ids, None).await.ok()?;
        halves.writer.flush().await.ok()
    };
    // If it does not get there, the server waits for nothing but its time.
    let _left = party.clock.timeout(party.limit, farewell).await;
}

/// Sends the first record and reads the server's, each of which repeats what was negotiated.
pub(super) async fn first_record(
    party: &Party,
    proven: Proven,
    purpose: Purpose,
) -> Result<(ControlHalves, WelcomeAnswer), Error> {
    let Proven { stream, choice, keys, .. } = proven;
    let mut halves: ControlHalves =
        split(party, stream, keys, (ChannelNumber(0), Protection::Sealed)).map_err(|_| Error::Protocol)?;
    let offer = SessionOffer::OURS;
    let process_id = std::process::id();
    let begin = Begin { offer, choice, instance: party.instance, process_id, purpose };
    let exchange = async {
        halves.writer.write(&begin.into(), (RequestId::NONE, RequestId::FIRST), None).await.ok()?;
        halves.writer.flush().await.ok()?;
        let first = halves.reader.next().await.ok()?;
        match first.message {
            Ok(ServerControl::Welcome(welcome)) => Some(welcome),
            _ => None,
        }
    };
    let welcome = party.clock.timeout(party.limit, exchange).await.flatten().ok_or(Error::Protocol)?;
    if welcome.offer != offer || welcome.choice != choice {
        return Err(Error::Protocol);
    }
    Ok((halves, welcome.answer))
}

async fn bind_on(
    party: &Party,
    secret: &BindSecret,
    session: SessionId,
    mut stream: TcpStream,
    offer: BindOffer,
) -> io::Result<Bound> {
    let (initiator, hello) =
        BindInitiator::begin(&party.identity, &party.server, secret, session, offer, &mut SystemEntropy)
            .map_err(io::Error::other)?;
    let message = exchange(&mut stream, &hello).await.map_err(io::Error::other)?;
    let (choice, keys) = initiator.finish(&message).map_err(io::Error::other)?;
    let protection = choice.protection;
    let kind = (offer.number, protection);
    match offer.kind {
        ChannelKind::Control => {
            let mut halves: ControlHalves = split(party, stream, keys, kind)?;
            attach(&mut halves, offer, choice).await?;
            Ok(Bound::Control(halves, protection))
        }
        ChannelKind::Data => {
            let mut halves: DataHalves = split(party, stream, keys, kind)?;
            attach(&mut halves, offer, choice).await?;
            Ok(Bound::Data(halves, protection))
        }
    }
}

async fn attach<O, I>(halves: &mut Halves<O, I>, offer: BindOffer, choice: BindChoice) -> io::Result<()>
where
    O: Message + From<Attach>,
    I: Message + IsAttached,
{
    let attach = Attach { offer, choice };
    halves.writer.write(&attach.into(), (RequestId::NONE, RequestId::FIRST), None).await?;
    halves.writer.flush().await?;
    let first = halves.reader.next().await.map_err(io::Error::other)?;
    match first.message {
        Ok(message) if message.is_attached(&offer, &choice) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether a message says that the channel is bound as negotiated.
trait IsAttached {
    fn is_attached(&self, offer: &BindOffer, choice: &BindChoice) -> bool;
}

impl IsAttached for ServerControl {
    fn is_attached(&self, offer: &BindOffer, choice: &BindChoice) -> bool {
        matches!(self, Self::Attached(attached) if attached.offer == *offer && attached.choice == *choice)
    }
}

impl IsAttached for ServerData {
    fn is_attached(&self, offer: &BindOffer, choice: &BindChoice) -> bool {
        matches!(self, Self::Attached(attached) if attached.offer == *offer && attached.choice == *choice)
    }
}

fn split<O: Message, I: Message>(
    party: &Party,
    stream: TcpStream,
    keys: RecordKeys,
    (number, protection): (ChannelNumber, Protection),
) -> io::Result<Halves<O, I>> {
    let (read_half, write_half) = stream.into_split();
    let opener = Opener::new(keys.receive, number, protection).map_err(io::Error::other)?;
    let sealer = Sealer::new(keys.send, number, protection).map_err(io::Error::other)?;
    let (reader, meter) = RecordReader::new(read_half, opener, party.buffers.clone());
    let writer = RecordWriter::new(write_half, sealer, Meter::clone(&meter), party.rekey);
    Ok(Halves { writer, reader, meter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntropyError;

    #[test]
    fn only_a_key_that_does_not_fit_is_a_changed_key() {
        let (address, pinned) = (SocketAddr::from(([127, 0, 0, 1], 1)), PublicKey([1; 32]));
        let of = |error| of_handshake(error, address, pinned);
        assert!(matches!(of(HandshakeError::Entropy(EntropyError)), Error::Entropy(_)));
        assert!(matches!(of(HandshakeError::Unoffered), Error::Protocol));
        assert!(matches!(of(HandshakeError::OtherVersion(9)), Error::OtherVersion { theirs: 9, .. }));
        let changed = of(HandshakeError::WeakKey);
        assert!(matches!(changed, Error::ServerKeyChanged { .. }));
        assert!(rank(&changed) > rank(&Error::Protocol), "which line comes last does not matter");
    }
}
