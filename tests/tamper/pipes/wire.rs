//! A connection in memory with an attacker on it: what is on its way in either direction, and both ends' sealers and
//! openers.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bowline::model::{ChannelNumber, Limits, Protection, RequestId};
use bowline::net::{Buffers, Meter, Outbound, ReadError, Received, RecordReader, RecordWriter};
use bowline::secure::{DirectionKeys, Opener, RecordKeys, Sealer};
use bowline::session::client::{FromServer, ToServer};
use bowline::session::server::{Binding, ClientMessage, ServerMessage, SessionFacts};
use bowline::session::{Input, LossReason};
use bowline::wire::{Head, Message};
use tokio::io::{AsyncRead, ReadBuf};

use super::Payload;
use crate::link::{End, Sink, now};

/// What the attacker does to a record.
#[derive(Debug, Clone)]
pub(crate) enum Hit {
    Flip {
        bit: usize,
    },
    Duplicate,
    Drop,
    /// It changes places with the next one of its direction.
    Swap,
    /// Only so many bytes of it arrive, and then the end of the stream.
    Cut {
        len: usize,
    },
    /// It arrives whole, and then the end of the stream.
    EndBehind,
    /// Another record arrives before it.
    Inject {
        frame: Vec<u8>,
    },
}

/// Which record is hit: the `at`th that this end sends on this channel.
#[derive(Debug, Clone)]
pub(crate) struct Attack {
    pub(crate) number: ChannelNumber,
    pub(crate) sender: End,
    pub(crate) at: usize,
    pub(crate) hit: Hit,
}

/// A record that was delivered, before anybody changed it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) number: ChannelNumber,
    pub(crate) sender: End,
    /// Counts what this end has sent on this channel.
    pub(crate) at: usize,
    pub(crate) frame: Vec<u8>,
}

/// One connection: what is on its way in either direction, and both ends' sealers and openers.
pub(super) struct Connection {
    pub(super) number: ChannelNumber,
    /// What its handshake has settled, until its first record is there.
    pub(super) greeted: Option<Greeted>,
    pub(super) is_bound: bool,
    pub(super) up: Way<ClientMessage>,
    pub(super) down: Way<FromServer>,
    pub(super) seal_up: Seal<ToServer>,
    pub(super) seal_down: Seal<ServerMessage>,
}

pub(super) enum Greeted {
    Session(SessionFacts),
    Bind(Binding),
}

/// Gives a message's record, and behind the payload of a clear channel its trailer's.
pub(super) type Seal<T> = Box<dyn FnMut(T, (RequestId, RequestId), Option<Payload>) -> Vec<Vec<u8>>>;

/// A record as a core gets it, or the end of the stream.
type Record<T> = Result<Input<T, Payload>, ReadError>;

/// What is on its way to one end.
pub(super) struct Way<T> {
    pub(super) frames: VecDeque<Vec<u8>>,
    /// A record that waits for the one that is to come before it.
    kept: Option<Vec<u8>>,
    delivered: usize,
    /// The sender closes behind what is on its way.
    pub(super) is_ending: bool,
    /// The receiver does not read any more.
    pub(super) is_over: bool,
    pipe: Pipe,
    reading: Pin<Box<dyn Future<Output = ()>>>,
    pub(super) read: Arc<Mutex<VecDeque<Record<T>>>>,
}

impl<T> Way<T> {
    fn new<M: Message + 'static>(
        keys: DirectionKeys,
        (number, protection): (ChannelNumber, Protection),
        message: fn(M) -> T,
    ) -> Self
    where
        T: 'static,
    {
        let (pipe, read) = (Pipe::default(), Arc::new(Mutex::new(VecDeque::new())));
        let opener = Opener::<M>::new(keys, number, protection).unwrap();
        let mut reader = RecordReader::new(pipe.clone(), opener, Buffers::default()).0;
        let results = Arc::clone(&read);
        let reading = async move {
            loop {
                let next = reader.next().await;
                let is_end = next.is_err();
                let input = next
                    .map(|received: Received<M>| received.into_input(message, |payload| payload.freeze()));
                results.lock().unwrap().push_back(input);
                if is_end {
                    return;
                }
            }
        };
        Self {
            frames: VecDeque::new(),
            kept: None,
            delivered: 0,
            is_ending: false,
            is_over: false,
            pipe,
            reading: Box::pin(reading),
            read,
        }
    }

    /// Delivers the next record, changed if it is the one that is attacked; or the end of the stream. False where
    /// neither is on its way.
    pub(super) fn step(
        &mut self,
        (number, sender): (ChannelNumber, End),
        attack: &mut Option<Attack>,
        sent: &mut Vec<Sent>,
    ) -> bool {
        let is_ended = self.pipe.is_ended();
        let Some(mut frame) = self.frames.pop_front().filter(|_| !is_ended) else {
            if is_ended || !self.is_ending {
                return false;
            }
            self.pipe.end();
            self.poll();
            return true;
        };
        let at = self.delivered;
        self.delivered += 1;
        sent.push(Sent { number, sender, at, frame: frame.clone() });
        let is_hit = |attack: &Attack| (attack.number, attack.sender, attack.at) == (number, sender, at);
        match attack.take_if(|attack| is_hit(attack)).map(|attack| attack.hit) {
            None => {
                self.pipe.push(&frame);
                if let Some(kept) = self.kept.take() {
                    self.pipe.push(&kept);
                }
            }
            Some(Hit::Flip { bit }) => {
                frame[bit / 8] ^= 1 << (bit % 8);
                self.pipe.push(&frame);
            }
            Some(Hit::Duplicate) => self.pipe.push(&[&frame[..], &frame].concat()),
            Some(Hit::Drop) => {}
            Some(Hit::Swap) => self.kept = Some(frame),
            Some(Hit::Cut { len }) => {
                self.pipe.push(&frame[..len]);
                self.pipe.end();
            }
            Some(Hit::EndBehind) => {
                self.pipe.push(&frame);
                self.pipe.end();
            }
            Some(Hit::Inject { frame: foreign }) => self.pipe.push(&[&foreign[..], &frame].concat()),
        }
        self.poll();
        true
    }

    fn poll(&mut self) {
        // A reader that has ended is not polled again: whatever comes now is dropped with its connection.
        let is_read_out = self.read.lock().unwrap().back().is_some_and(Result::is_err);
        if !self.is_over && !is_read_out {
            let _ = self.reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// Bytes on their way to a reader.
#[derive(Debug, Clone, Default)]
struct Pipe(Arc<Mutex<(VecDeque<u8>, bool)>>);

impl Pipe {
    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap().0.extend(bytes);
    }

    fn end(&self) {
        self.0.lock().unwrap().1 = true;
    }

    fn is_ended(&self) -> bool {
        self.0.lock().unwrap().1
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.0.is_empty() {
            return if pipe.1 { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let len = pipe.0.len().min(buffer.remaining());
        let bytes: Vec<u8> = pipe.0.drain(..len).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

/// What a shell tells its core of the end of a stream.
pub(super) fn reason(error: &ReadError) -> LossReason {
    match error {
        ReadError::Record(_) | ReadError::Body(_) | ReadError::Trailer => LossReason::Offence,
        _ => LossReason::Broken,
    }
}

fn seal<M: Message + 'static, T: 'static>(
    keys: DirectionKeys,
    (number, protection): (ChannelNumber, Protection),
    message: fn(T) -> Option<M>,
) -> Seal<T> {
    let sink = Sink::default();
    let sealer = Sealer::<M>::new(keys, number, protection).unwrap();
    let mut writer = RecordWriter::new(sink.clone(), sealer, Meter::default(), (&Limits::default()).into());
    Box::new(move |value, ids, payload| {
        let message = message(value).expect("a message of this kind of channel");
        let payload = payload.map(|payload| Outbound::Shared(payload.to_vec().into()));
        now(writer.write(&message, ids, payload)).unwrap();
        now(writer.flush()).unwrap();
        records(&sink.take(), protection)
    })
}

/// Records that stand one behind the other, each by itself.
fn records(mut bytes: &[u8], protection: Protection) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(head) = bytes.first_chunk() {
        let head = Head::decode(head).unwrap();
        let [body, payload] = [head.body_len, head.payload_len].map(|len| usize::try_from(len).unwrap());
        let has_tag = payload > 0 && protection != Protection::Clear;
        let tags = Limits::TAG_LEN * if has_tag { 2 } else { 1 };
        let (record, rest) = bytes.split_at(Limits::HEAD_LEN + body + payload + tags);
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

pub(super) type Channel = (ChannelNumber, Protection);

pub(super) fn control(
    greeted: Greeted,
    channel: Channel,
    client: RecordKeys,
    server: RecordKeys,
) -> Connection {
    Connection {
        number: channel.0,
        greeted: Some(greeted),
        is_bound: false,
        up: Way::new(server.receive, channel, ClientMessage::Control),
        down: Way::new(client.receive, channel, FromServer::Control),
        seal_up: seal(client.send, channel, |message| match message {
            ToServer::Control(message) => Some(message),
            ToServer::Data(_) => None,
        }),
        seal_down: seal(server.send, channel, |message| match message {
            ServerMessage::Control(message) => Some(message),
            ServerMessage::Data(_) => None,
        }),
    }
}

pub(super) fn data(greeted: Greeted, channel: Channel, client: RecordKeys, server: RecordKeys) -> Connection {
    Connection {
        number: channel.0,
        greeted: Some(greeted),
        is_bound: false,
        up: Way::new(server.receive, channel, ClientMessage::Data),
        down: Way::new(client.receive, channel, FromServer::Data),
        seal_up: seal(client.send, channel, |message| match message {
            ToServer::Data(message) => Some(message),
            ToServer::Control(_) => None,
        }),
        seal_down: seal(server.send, channel, |message| match message {
            ServerMessage::Data(message) => Some(message),
            ServerMessage::Control(_) => None,
        }),
    }
}
