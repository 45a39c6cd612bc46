//! Peers that speak the protocol with their own hands: real handshakes through the public interface of
//! `bowline::secure`, and then whatever a test wants to send, sealed or not.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use bowline::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Entropy as _, InstanceId, Limits, Protection, PublicKey,
    RequestId, SessionId, Suite,
};
use bowline::net::{Buffers, Received, RecordReader, SystemEntropy, exchange};
use bowline::secure::{BindInitiator, Identity, Opener, Payload, RecordKeys, Sealer, SessionInitiator};
use bowline::wire::control::{Attach, Begin, Purpose, Started, WelcomeAnswer};
use bowline::wire::data::Rekey;
use bowline::wire::hello::{BindChoice, BindOffer, SessionChoice, SessionOffer};
use bowline::wire::{ClientControl, ClientData, DecodeError, Message, ServerControl, ServerData};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::LONG;

/// Any message of any stream, or none that there is: a kind and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Odd<const IS_CONTROL: bool> {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

impl<const IS_CONTROL: bool> From<Rekey> for Odd<IS_CONTROL> {
    fn from(_: Rekey) -> Self {
        Self { kind: Rekey::KIND, body: Vec::new() }
    }
}

impl<const IS_CONTROL: bool> Message for Odd<IS_CONTROL> {
    const CHANNEL: ChannelKind = if IS_CONTROL { ChannelKind::Control } else { ChannelKind::Data };

    fn kind(&self) -> u8 {
        self.kind
    }

    fn encode_body(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.body);
    }

    fn decode_body(kind: u8, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind, body: body.to_vec() })
    }
}

impl<const IS_CONTROL: bool> Odd<IS_CONTROL> {
    /// A message as it is, in whichever stream.
    pub(crate) fn of<M: Message>(message: &M) -> Self {
        let mut body = Vec::new();
        message.encode_body(&mut body);
        Self { kind: message.kind(), body }
    }

    /// What it says in a stream, if it says anything there.
    pub(crate) fn says<M: Message>(&self) -> Option<M> {
        M::decode_body(self.kind, &self.body).ok()
    }
}

/// A channel in anybody's hands.
pub(crate) struct Channel<const IS_CONTROL: bool> {
    sealer: Sealer<Odd<IS_CONTROL>>,
    reader: RecordReader<Odd<IS_CONTROL>, OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl<const IS_CONTROL: bool> Channel<IS_CONTROL> {
    pub(crate) fn new(
        stream: TcpStream,
        keys: RecordKeys,
        (number, protection): (ChannelNumber, Protection),
    ) -> Self {
        let sealer = Sealer::new(keys.send, number, protection).unwrap();
        let opener = Opener::new(keys.receive, number, protection).unwrap();
        let (read_half, writer) = stream.into_split();
        Self { sealer, reader: RecordReader::new(read_half, opener, Buffers::default()).0, writer }
    }

    /// The next record, as bytes on the wire.
    pub(crate) fn seal(&mut self, message: &Odd<IS_CONTROL>, request: u64, payload: &[u8]) -> Vec<u8> {
        let (mut out, mut payload) = (Vec::new(), payload.to_vec());
        let part = if payload.is_empty() { Payload::None } else { Payload::Buffer(&mut payload) };
        let tag = self.sealer.seal(message, RequestId(request), RequestId::FIRST, part, &mut out).unwrap();
        out.extend(payload);
        out.extend(tag.into_iter().flatten());
        out
    }

    /// Sends bytes as they are. Whether anybody takes them is for the test to find out by reading.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        drop(tokio::time::timeout(LONG, self.writer.write_all(bytes)).await.unwrap());
    }

    pub(crate) async fn send<M: Message>(&mut self, message: &M, request: u64) {
        self.send_with(message, request, &[]).await;
    }

    pub(crate) async fn send_with<M: Message>(&mut self, message: &M, request: u64, payload: &[u8]) {
        let bytes = self.seal(&Odd::of(message), request, payload);
        self.write(&bytes).await;
    }

    /// Ends this direction of the connection.
    pub(crate) async fn finish(&mut self) {
        drop(self.writer.shutdown().await);
    }

    /// The next record that comes; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Received<Odd<IS_CONTROL>>> {
        tokio::time::timeout(LONG, self.reader.next()).await.expect("something comes in time").ok()
    }

    /// The next message, which has to be there.
    pub(crate) async fn answer<M: Message>(&mut self) -> (u64, M) {
        let received = self.next().await.expect("an answer and not the end");
        match received.message {
            Ok(odd) => (received.request.0, odd.says().expect("a message of this stream")),
            Err(kind) => panic!("an answer of {kind:?}"),
        }
    }

    /// Waits until the other side has reset the connection, reading nothing of what came before that.
    pub(crate) async fn is_reset(&self) {
        self.writer.ready(tokio::io::Interest::ERROR).await.unwrap();
    }

    /// How many records come before the other side closes.
    pub(crate) async fn until_closed(&mut self) -> usize {
        let mut count = 0;
        while self.next().await.is_some() {
            count += 1;
        }
        count
    }
}

/// A client with an identity that some server knows.
pub(crate) struct RawClient<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) server: PublicKey,
    pub(crate) address: SocketAddr,
}

/// A connection after its handshake, before the first record.
pub(crate) struct Greeted<O, C> {
    pub(crate) stream: TcpStream,
    pub(crate) keys: RecordKeys,
    pub(crate) offer: O,
    pub(crate) choice: C,
}

/// A session with its first channel.
pub(crate) struct RawSession {
    pub(crate) control: Channel<true>,
    pub(crate) id: SessionId,
    pub(crate) started: Started,
}

impl RawClient<'_> {
    pub(crate) async fn connect(&self) -> TcpStream {
        // Who breaks the protocol pays for it with his network's tokens: a new network for every hundred connections,
        // 127.77.1.0 first.
        static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
        let network = 1 + CONNECTIONS.fetch_add(1, Ordering::Relaxed) / 100 % 250;
        let from = Ipv4Addr::new(127, 77, u8::try_from(network).unwrap(), 1);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The handshake of a session.
    pub(crate) async fn greet(&self) -> Greeted<SessionOffer, SessionChoice> {
        let mut stream = self.connect().await;
        let offer = SessionOffer::OURS;
        let (initiator, hello) =
            SessionInitiator::begin(self.identity, &self.server, offer, &mut SystemEntropy).unwrap();
        let message2 = exchange(&mut stream, &hello).await.unwrap();
        let (choice, keys) = initiator.finish(&message2).unwrap();
        Greeted { stream, keys, offer, choice }
    }

    pub(crate) async fn start(&self) -> RawSession {
        let Greeted { stream, keys, offer, choice } = self.greet().await;
        let mut control = Channel::new(stream, keys, (ChannelNumber(0), Protection::Sealed));
        control.send(&begin(offer, choice), 0).await;
        let started = match control.answer().await.1 {
            ServerControl::Welcome(welcome) => match welcome.answer {
                WelcomeAnswer::Started(started) => started,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        RawSession { control, id: choice.session, started }
    }

    /// The handshake of a further channel.
    pub(crate) async fn greet_bind(
        &self,
        session: &RawSession,
        number: u32,
        (kind, protection): (ChannelKind, Protection),
    ) -> Greeted<BindOffer, BindChoice> {
        let mut stream = self.connect().await;
        let offer = BindOffer {
            locator: session.started.locator,
            number: ChannelNumber(number),
            nonce: AttemptNonce(SystemEntropy.bytes().unwrap()),
            kind,
            protection,
            suite: Suite::ChaCha20Poly1305,
        };
        let (secret, id) = (&session.started.secret, session.id);
        let (initiator, hello) =
            BindInitiator::begin(self.identity, &self.server, secret, id, offer, &mut SystemEntropy).unwrap();
        let message2 = exchange(&mut stream, &hello).await.unwrap();
        let (choice, keys) = initiator.finish(&message2).unwrap();
        Greeted { stream, keys, offer, choice }
    }

    /// A data channel.
    pub(crate) async fn bind(
        &self,
        session: &RawSession,
        number: u32,
        protection: Protection,
    ) -> Channel<false> {
        let greeted = self.greet_bind(session, number, (ChannelKind::Data, protection)).await;
        let Greeted { stream, keys, offer, choice } = greeted;
        let mut channel = Channel::new(stream, keys, (offer.number, choice.protection));
        channel.send(&ClientData::from(Attach { offer, choice }), 0).await;
        let attached = channel.answer().await.1;
        assert!(matches!(attached, ServerData::Attached(_)), "{attached:?}");
        channel
    }
}

/// The first record of a session.
pub(crate) fn begin(offer: SessionOffer, choice: SessionChoice) -> ClientControl {
    let instance = InstanceId(SystemEntropy.bytes().unwrap());
    Begin { offer, choice, instance, process_id: 7, purpose: Purpose::New { former: None } }.into()
}

/// A head as it would stand in front of a record, with these lengths.
pub(crate) fn head(
    body_len: u32,
    payload_len: u32,
    (channel, sequence): (u32, u64),
) -> [u8; Limits::HEAD_LEN] {
    let mut head = [0; Limits::HEAD_LEN];
    head[0..4].copy_from_slice(&body_len.to_le_bytes());
    head[4..8].copy_from_slice(&payload_len.to_le_bytes());
    head[8] = 0x30;
    head[12..16].copy_from_slice(&channel.to_le_bytes());
    head[24..32].copy_from_slice(&sequence.to_le_bytes());
    head
}
