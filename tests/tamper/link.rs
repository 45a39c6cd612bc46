//! Channels between a client and a server in memory, with the keys of real handshakes. A handshake can be had again,
//! with the same random bytes and so the same keys: a reader that has refused a record is of no use any more, and
//! each attempt needs a new one.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bowline::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Entropy as _, Limits, Locator, Protection, RequestId,
    SessionId, Suite,
};
use bowline::net::{Buffers, Meter, Outbound, ReadError, Received, RecordReader, RecordWriter, RekeyLimits};
use bowline::secure::{
    BindInitiator, BindResponder, Identity, Opener, RecordKeys, Sealer, SessionInitiator, SessionResponder,
    suites,
};
use bowline::wire::Head;
use bowline::wire::control::BindSecret;
use bowline::wire::data::Rekey;
use bowline::wire::hello::{BindChoice, BindOffer, Hello, SessionChoice, SessionOffer};
use bowline::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::seed::Seed;

/// An end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// A stream of messages, and who sends it.
pub(crate) trait Stream: Message {
    const SENDER: End;
}

impl Stream for ClientControl {
    const SENDER: End = End::Client;
}

impl Stream for ClientData {
    const SENDER: End = End::Client;
}

impl Stream for ServerControl {
    const SENDER: End = End::Server;
}

impl Stream for ServerData {
    const SENDER: End = End::Server;
}

/// What a channel is: everything that two handshakes can differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Channel 0 comes of the handshake of a session, all others of a bind.
    pub(crate) number: u32,
    pub(crate) kind: ChannelKind,
    pub(crate) protection: Protection,
    pub(crate) suite: Suite,
    pub(crate) session: u8,
    /// Tells attempts at one and the same channel apart.
    pub(crate) attempt: u8,
}

/// Everything that a channel of this kind can be, by the word of the handshake and of the record layer: which is what
/// protocol.md says, no more and no less.
pub(crate) fn each_mode(kind: ChannelKind) -> Vec<Spec> {
    let sealed = spec(kind, Protection::Sealed, Suite::ChaCha20Poly1305);
    let first = Spec { number: 0, ..sealed };
    let mut modes = if kind == ChannelKind::Control { vec![first] } else { Vec::new() };
    for &protection in Protection::EACH {
        // A suite that this processor has no instructions for is not offered, and slow to try.
        for suite in Suite::EACH.iter().copied().filter(|&suite| suites().contains(suite)) {
            let spec = spec(kind, protection, suite);
            if Link::new(spec).is_some() {
                modes.push(spec);
            }
        }
    }
    let stated = match kind {
        ChannelKind::Control => vec![first, sealed],
        ChannelKind::Data => [Protection::Clear, Protection::Signed, Protection::Sealed]
            .into_iter()
            .flat_map(|protection| suites().iter().map(move |suite| spec(kind, protection, suite)))
            .collect(),
    };
    assert_eq!(modes, stated, "the modes of {kind} channels");
    modes
}

fn spec(kind: ChannelKind, protection: Protection, suite: Suite) -> Spec {
    Spec { number: 3, kind, protection, suite, session: 1, attempt: 1 }
}

/// A channel between two identities, as far as its handshake.
pub(crate) struct Link {
    pub(crate) spec: Spec,
    client: Identity,
    server: Identity,
    hello: Hello,
    message2: Vec<u8>,
}

impl Link {
    /// The channel; `None` where a handshake does not lead to one, or records cannot be protected like this.
    pub(crate) fn new(spec: Spec) -> Option<Self> {
        let identity = |name| Identity::generate(&mut Seed::new(name, 1)).unwrap();
        let (client, server) = (identity(1), identity(2));
        let hello = hello(spec, &client, &server)?;
        let mut link = Self { spec, client, server, hello, message2: Vec::new() };
        link.message2 = link.server_side()?.0;
        let keys = link.keys(End::Client);
        let number = ChannelNumber(spec.number);
        let is_protected = match spec.kind {
            ChannelKind::Control => Sealer::<ClientControl>::new(keys.send, number, spec.protection).is_ok(),
            ChannelKind::Data => Sealer::<ClientData>::new(keys.send, number, spec.protection).is_ok(),
        };
        is_protected.then_some(link)
    }

    /// The same with another of what handshakes differ in.
    pub(crate) fn other(&self, change: impl FnOnce(&mut Spec)) -> Self {
        let mut spec = self.spec;
        change(&mut spec);
        assert_ne!(spec, self.spec);
        Self::new(spec).expect("a channel like the other one")
    }

    /// Seals records in their order, each as the bytes on the wire.
    pub(crate) fn frames<M: Stream>(&self, messages: impl IntoIterator<Item = (M, Vec<u8>)>) -> Vec<Vec<u8>> {
        self.written(messages, (&Limits::default()).into())
    }

    /// Seals records in their order, each of them under keys of its own: between two of them is a `Rekey` record.
    pub(crate) fn rekeyed<M: Stream>(
        &self,
        messages: impl IntoIterator<Item = (M, Vec<u8>)>,
    ) -> Vec<Vec<u8>> {
        let each = RekeyLimits { records: 1, ..(&Limits::default()).into() };
        let mut frames = Vec::new();
        for mut frame in self.written(messages, each) {
            let kind = Head::decode(frame.first_chunk().unwrap()).unwrap().kind;
            assert_eq!(kind == Rekey::KIND, !frames.is_empty(), "new keys for all but the first one");
            if kind == Rekey::KIND {
                let rest = frame.split_off(Borders::of(&frame).tag_h);
                frames.extend([frame, rest]);
            } else {
                frames.push(frame);
            }
        }
        frames
    }

    fn written<M: Stream>(
        &self,
        messages: impl IntoIterator<Item = (M, Vec<u8>)>,
        rekey: RekeyLimits,
    ) -> Vec<Vec<u8>> {
        let keys = self.keys(M::SENDER).send;
        let sealer = Sealer::new(keys, ChannelNumber(self.spec.number), self.spec.protection).unwrap();
        let sink = Sink::default();
        let mut writer = RecordWriter::new(sink.clone(), sealer, Meter::default(), rekey);
        let seal = |(at, (message, payload)): (u64, (M, Vec<u8>))| {
            let payload = (!payload.is_empty()).then(|| Outbound::Shared(payload.into()));
            now(writer.write(&message, (RequestId(at), RequestId::FIRST), payload)).unwrap();
            now(writer.flush()).unwrap();
            sink.take()
        };
        (1..).zip(messages).map(seal).collect()
    }

    /// A reader of these bytes, which end there.
    pub(crate) fn reader<'a, M: Stream>(&self, parts: &[&'a [u8]]) -> Reader<'a, M> {
        let receiver = if M::SENDER == End::Client { End::Server } else { End::Client };
        let keys = self.keys(receiver).receive;
        let opener = Opener::new(keys, ChannelNumber(self.spec.number), self.spec.protection).unwrap();
        let mut bytes: Box<dyn AsyncRead + Unpin + 'a> = Box::new(tokio::io::empty());
        for &part in parts.iter().rev() {
            bytes = Box::new(part.chain(bytes));
        }
        Reader(RecordReader::new(bytes, opener, Buffers::default()).0)
    }

    /// The keys of one end, made anew by its half of the handshake.
    pub(crate) fn keys(&self, end: End) -> RecordKeys {
        match end {
            End::Server => self.server_side().expect("it was done before").1,
            End::Client => self.client_side(),
        }
    }

    fn server_side(&self) -> Option<(Vec<u8>, RecordKeys)> {
        let Spec { number, protection, suite, session, attempt, .. } = self.spec;
        let (session, mut entropy) = (SessionId([session; 16]), Seed::new(u64::from(attempt), 20));
        if number == 0 {
            let responder = SessionResponder::read(&self.server, &self.hello, &mut entropy).unwrap();
            return responder.finish(SessionChoice { version: 1, session }).ok();
        }
        let client = self.client.public();
        let secret = BindSecret([7; 32]);
        let responder =
            BindResponder::read(&self.server, &client, &secret, session, &self.hello, &mut entropy).unwrap();
        responder.finish(BindChoice { protection, suite }).ok()
    }

    fn client_side(&self) -> RecordKeys {
        let message2 = &self.message2[2..];
        match begin(self.spec, &self.client, &self.server).unwrap().0 {
            Initiator::Session(initiator) => initiator.finish(message2).unwrap().1,
            Initiator::Bind(initiator) => initiator.finish(message2).unwrap().1,
        }
    }
}

enum Initiator {
    Session(SessionInitiator),
    Bind(BindInitiator),
}

fn hello(spec: Spec, client: &Identity, server: &Identity) -> Option<Hello> {
    Some(Hello::decode(&begin(spec, client, server)?.1).expect("our own hello"))
}

fn begin(spec: Spec, client: &Identity, server: &Identity) -> Option<(Initiator, Vec<u8>)> {
    let Spec { number, kind, protection, suite, session, attempt } = spec;
    let (key, mut entropy) = (server.public(), Seed::new(u64::from(attempt), 10));
    if number == 0 {
        let (initiator, hello) =
            SessionInitiator::begin(client, &key, SessionOffer::OURS, &mut entropy).unwrap();
        return Some((Initiator::Session(initiator), hello));
    }
    let nonce = AttemptNonce(entropy.bytes().unwrap());
    let locator = Locator([session; 16]);
    let offer = BindOffer { locator, number: ChannelNumber(number), nonce, kind, protection, suite };
    let (secret, session) = (BindSecret([7; 32]), SessionId([session; 16]));
    let (initiator, hello) =
        BindInitiator::begin(client, &key, &secret, session, offer, &mut entropy).ok()?;
    Some((Initiator::Bind(initiator), hello))
}

/// Reads records out of bytes in memory.
pub(crate) struct Reader<'a, M: Message>(RecordReader<M, Box<dyn AsyncRead + Unpin + 'a>>);

impl<M: Message> Reader<'_, M> {
    pub(crate) fn next(&mut self) -> Result<Received<M>, ReadError> {
        now(self.0.next())
    }
}

/// Where a frame's parts end: the head, the body, its tag, the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Borders {
    pub(crate) body: usize,
    pub(crate) tag_h: usize,
    pub(crate) payload: usize,
}

impl Borders {
    /// Of the one record that `frame` is.
    pub(crate) fn of(frame: &[u8]) -> Self {
        let len = |at: usize| usize::try_from(u32::from_le_bytes(frame[at..at + 4].try_into().unwrap()));
        let body = Limits::HEAD_LEN + len(0).unwrap();
        let tag_h = body + Limits::TAG_LEN;
        Self { body, tag_h, payload: tag_h + len(4).unwrap() }
    }
}

/// What a future comes to that never has to wait.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing in memory has to be waited for"),
    }
}

/// Takes whatever is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl bowline::net::Sink for Sink {}

impl Sink {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
