//! Records on streams: signs of life, keys that are replaced, payload that nothing protects or that is sent past memory.

use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Entropy as _, HandleId, Locator, Reason, Refusal, SessionId,
    Suite,
};
use crate::net::{LentSend, SystemEntropy};
use crate::secure::{BindInitiator, BindResponder, Identity, RecordKeys};
use crate::wire::control::{BindSecret, Refused};
use crate::wire::data::{Ping, Read, ReadDone, Rekey, Write};
use crate::wire::hello::{BindChoice, BindOffer, Hello};
use crate::wire::{ClientData, ServerData};

const CHANNEL: ChannelNumber = ChannelNumber(3);
const IDS: (RequestId, RequestId) = (RequestId(9), RequestId(1));
const NEVER: RekeyLimits =
    RekeyLimits { records: u64::MAX, bytes: u64::MAX, after: Duration::from_secs(3600) };

/// Both ends' keys of a bound data channel.
fn keys(protection: Protection) -> (RecordKeys, RecordKeys) {
    let mut entropy = SystemEntropy;
    let (client, server) =
        (Identity::generate(&mut entropy).unwrap(), Identity::generate(&mut entropy).unwrap());
    let (secret, session) = (BindSecret(entropy.bytes().unwrap()), SessionId([1; 16]));
    let (locator, nonce) = (Locator([2; 16]), AttemptNonce(entropy.bytes().unwrap()));
    let suite = Suite::ChaCha20Poly1305;
    let kind = ChannelKind::Data;
    let offer = BindOffer { locator, number: CHANNEL, nonce, kind, protection, suite };
    let (initiator, hello) =
        BindInitiator::begin(&client, &server.public(), &secret, session, offer, &mut entropy).unwrap();
    let hello = Hello::decode(&hello).unwrap();
    let responder =
        BindResponder::read(&server, &client.public(), &secret, session, &hello, &mut entropy).unwrap();
    let (message, server) = responder.finish(BindChoice { protection, suite }).unwrap();
    let (_, client) = initiator.finish(&message[2..]).unwrap();
    (client, server)
}

/// What a server writes to, and what its client reads from.
fn server_to<W: Sink, R: AsyncRead + Unpin>(
    protection: Protection,
    (write, read): (W, R),
) -> (RecordWriter<ServerData, W>, RecordReader<ServerData, R>) {
    let (client, server) = keys(protection);
    let sealer = Sealer::new(server.send, CHANNEL, protection).unwrap();
    let opener = Opener::new(client.receive, CHANNEL, protection).unwrap();
    let (reader, _) = RecordReader::new(read, opener, Buffers::default());
    (RecordWriter::new(write, sealer, Meter::default(), NEVER), reader)
}

/// The two ends of a TCP connection, of which the second one's are kept together.
async fn tcp() -> (tokio::net::tcp::OwnedWriteHalf, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (one, two) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (_, write) = one.unwrap().into_split();
    (write, two.unwrap().0)
}

/// A file that ends, fails or hesitates where a test wants it to.
#[derive(Debug)]
struct Source {
    bytes: Vec<u8>,
    fails_at: Option<usize>,
    /// From where on its file system cannot send, only be read.
    unsupported_at: usize,
    /// How often the socket is said to be full first.
    full: Mutex<u32>,
    /// The most that is sent at once.
    step: usize,
}

impl Source {
    fn new(len: usize) -> Self {
        let bytes = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        Self { bytes, fails_at: None, unsupported_at: usize::MAX, full: Mutex::new(0), step: usize::MAX }
    }
}

impl Lent for Source {
    fn send(&self, socket: BorrowedFd<'_>, offset: u64, len: usize) -> LentSend {
        let from = usize::try_from(offset).unwrap();
        if self.fails_at.is_some_and(|at| from >= at) {
            return LentSend::Refused(Reason::Io.into());
        }
        if from >= self.unsupported_at {
            return LentSend::Unsupported;
        }
        let mut full = self.full.lock().unwrap();
        if *full > 0 {
            *full -= 1;
            return LentSend::Full;
        }
        let end = self.fails_at.unwrap_or(self.bytes.len()).min(self.bytes.len());
        let to = from.saturating_add(len.min(self.step)).min(end);
        match rustix::io::write(socket, self.bytes.get(from..to).unwrap_or_default()) {
            Ok(sent) => LentSend::Sent(sent),
            Err(Errno::AGAIN) => LentSend::Full,
            Err(errno) => LentSend::Broken(errno.into()),
        }
    }

    fn read(&self, offset: u64, len: usize) -> Result<BytesMut, Refusal> {
        let from = usize::try_from(offset).unwrap().min(self.bytes.len());
        let to = from.saturating_add(len).min(self.bytes.len());
        match self.fails_at {
            Some(at) if to > at => Err(Reason::Io.into()),
            _ => Ok(BytesMut::from(&self.bytes[from..to])),
        }
    }
}

fn lent(source: Source, len: u32) -> Outbound {
    Outbound::Lent(Arc::new(source), 0, len)
}

/// Sends an answer with this payload, and reads it.
async fn answered(protection: Protection, payload: Outbound) -> Received<ServerData> {
    let (mut writer, mut reader) = server_to(protection, tcp().await);
    let writing = tokio::spawn(async move {
        writer.write(&ReadDone {}.into(), IDS, Some(payload)).await.unwrap();
        writer.write(&Ping {}.into(), IDS, None).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let received = reader.next().await.unwrap();
    assert_eq!(reader.next().await.unwrap().message, Ok(Ping {}.into()), "what follows is in order");
    drop(writing.await.unwrap());
    assert_eq!(received.request, IDS.0);
    received
}

#[tokio::test]
async fn a_payload_that_leaves_slowly_is_a_sign_of_life_and_a_ping_is_none() {
    let (near, mut far) = tokio::io::duplex(8 << 10);
    let meter = Meter::default();
    let sealer = Sealer::new(keys(Protection::Signed).0.send, CHANNEL, Protection::Signed).unwrap();
    let mut writer = RecordWriter::<ClientData, _>::new(near, sealer, Arc::clone(&meter), NEVER);
    let ids = (RequestId::NONE, RequestId::FIRST);
    writer.write(&Ping {}.into(), ids, None).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(meter.load(Ordering::Relaxed), 0, "nobody has taken the ping yet");

    let write = Write { handle: HandleId(1), offset: 0 };
    let payload = Outbound::Shared(Bytes::from(vec![7; 512 << 10]));
    let writing = tokio::spawn(async move { writer.write(&write.into(), ids, Some(payload)).await });
    let mut taken = 0;
    let mut seen = 0;
    let mut buffer = vec![0; 64 << 10];
    while taken < 512 << 10 {
        taken += far.read(&mut buffer).await.unwrap();
        let metered = meter.load(Ordering::Relaxed);
        assert!(metered >= seen);
        seen = metered;
    }
    writing.await.unwrap().unwrap();
    assert!(meter.load(Ordering::Relaxed) > 512 << 10);
    assert!(seen > 0, "it showed before the record was out");
}

/// The kinds of 100 records of 1,000 bytes each that a writer with these limits sends, and that a reader has read.
async fn kinds_sent(rekey: RekeyLimits) -> Vec<u8> {
    let (client, server) = keys(Protection::Signed);
    let sealer = Sealer::new(client.send, CHANNEL, Protection::Signed).unwrap();
    let (near, mut far): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 20);
    let mut writer = RecordWriter::<ClientData, _>::new(near, sealer, Meter::default(), rekey);
    for at in 0..100_u64 {
        let write = Write { handle: HandleId(1), offset: at };
        let payload = Outbound::Shared(Bytes::from(vec![7; 1000]));
        writer.write(&write.into(), IDS, Some(payload)).await.unwrap();
    }
    writer.flush().await.unwrap();
    drop(writer);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    let opener = Opener::<ClientData>::new(server.receive, CHANNEL, Protection::Signed).unwrap();
    let (mut reader, _) = RecordReader::new(&bytes[..], opener, Buffers::default());
    for at in 0..100 {
        let received = reader.next().await.unwrap();
        assert_eq!(received.message, Ok(Write { handle: HandleId(1), offset: at }.into()));
        assert_eq!(received.payload.unwrap()[..], [7; 1000]);
    }
    let mut kinds = Vec::new();
    let mut rest = &bytes[..];
    while let Some(head) = rest.first_chunk().map(|head| Head::decode(head).unwrap()) {
        kinds.push(head.kind);
        let len = usize::try_from(head.body_len + head.payload_len).unwrap();
        rest = &rest[40 + 16 + len + if head.payload_len > 0 { 16 } else { 0 }..];
    }
    kinds
}

#[tokio::test]
async fn t29_keys_are_replaced_by_records_by_bytes_and_by_age() {
    let rekeys = async |limits| {
        let kinds = kinds_sent(limits).await;
        kinds.iter().filter(|&&kind| kind == Rekey::KIND).count()
    };
    assert_eq!(rekeys(NEVER).await, 0);
    assert_eq!(rekeys(RekeyLimits { records: 10, ..NEVER }).await, 9);
    // Head, body and payload of each are 1,056 bytes: the tenth record reaches the limit.
    assert_eq!(rekeys(RekeyLimits { bytes: 10_560, ..NEVER }).await, 9);
    assert_eq!(rekeys(RekeyLimits { after: Duration::ZERO, ..NEVER }).await, 100);
}

#[tokio::test]
async fn an_answer_on_a_clear_channel_counts_as_far_as_its_trailer_says() {
    let shared = Outbound::Shared(Bytes::from_static(b"the whole answer"));
    let received = answered(Protection::Clear, shared).await;
    assert_eq!(received.message, Ok(ReadDone {}.into()));
    assert_eq!(received.payload.unwrap(), &b"the whole answer"[..]);
    let long = Source::new(600_000);
    let expected = long.bytes.clone();
    let received = answered(Protection::Clear, lent(long, 600_000)).await;
    assert!(received.payload.unwrap() == expected);
}

#[tokio::test]
async fn a_file_that_became_shorter_after_its_length_was_promised_gives_what_it_has() {
    for (has, promised) in [(70_000, 100_000), (5, 300), (0, 300), (1, 1 << 20)] {
        for protection in Protection::EACH {
            let source = Source::new(has);
            let expected = source.bytes.clone();
            let received = answered(*protection, lent(source, promised)).await;
            assert_eq!(received.message, Ok(ReadDone {}.into()), "{has} of {promised}, {protection}");
            assert!(received.payload.unwrap_or_default() == expected, "{has} of {promised}, {protection}");
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_any_more_refuses_the_answer() {
    for protection in Protection::EACH {
        for fails_at in [0, 1, 9_000] {
            let source = Source { fails_at: Some(fails_at), ..Source::new(10_000) };
            let received = answered(*protection, lent(source, 10_000)).await;
            let refused = Refused { refusal: Reason::Io.into() };
            assert_eq!(received.message, Ok(refused.into()), "{fails_at}, {protection}");
            assert!(received.payload.is_none());
        }
    }
}

#[tokio::test]
async fn what_a_file_system_cannot_send_is_read() {
    for at in [0, 4096, 9_999] {
        let source = Source { unsupported_at: at, step: 4096, ..Source::new(10_000) };
        let expected = source.bytes.clone();
        let received = answered(Protection::Clear, lent(source, 10_000)).await;
        assert_eq!(received.message, Ok(ReadDone {}.into()));
        assert!(received.payload.unwrap() == expected, "from {at} on");
        // And one that ends there.
        let source = Source { unsupported_at: at, step: 4096, ..Source::new(at) };
        let expected = source.bytes.clone();
        let received = answered(Protection::Clear, lent(source, 10_000)).await;
        assert!(received.payload.unwrap_or_default() == expected, "up to {at}");
    }
}

#[tokio::test]
async fn a_socket_that_is_full_is_waited_for() {
    let source = Source { full: Mutex::new(3), step: 10_000, ..Source::new(1 << 20) };
    let expected = source.bytes.clone();
    let received = answered(Protection::Clear, lent(source, 1 << 20)).await;
    assert!(received.payload.unwrap() == expected);

    // And one that is really full, until somebody reads.
    let (write, read) = tcp().await;
    socket2::SockRef::from(write.as_ref()).set_send_buffer_size(8 << 10).unwrap();
    let (mut writer, mut reader) = server_to(Protection::Clear, (write, read));
    let writing = tokio::spawn(async move {
        for _ in 0..8 {
            let payload = lent(Source::new(1 << 20), 1 << 20);
            writer.write(&ReadDone {}.into(), IDS, Some(payload)).await.unwrap();
        }
        writer.flush().await.unwrap();
        writer
    });
    for _ in 0..8 {
        assert!(reader.next().await.unwrap().payload.unwrap() == Source::new(1 << 20).bytes);
    }
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn a_payload_without_a_fitting_trailer_ends_the_channel() {
    let trailer = |request, valid| (RequestId(request), ServerData::from(Trailer { valid, refused: None }));
    let cases = [
        (trailer(9, 8), true),
        (trailer(9, 0), true),
        (trailer(9, 9), false),
        (trailer(8, 8), false),
        ((RequestId(9), Ping {}.into()), false),
        ((RequestId(9), Rekey {}.into()), false),
    ];
    for ((request, message), is_good) in cases {
        let (client, server) = keys(Protection::Clear);
        let mut sealer = Sealer::<ServerData>::new(server.send, CHANNEL, Protection::Clear).unwrap();
        let mut bytes = Vec::new();
        sealer.seal(&ReadDone {}.into(), IDS.0, IDS.1, Payload::Elsewhere(8), &mut bytes).unwrap();
        bytes.extend(b"8 bytes.");
        sealer.seal(&message, request, IDS.1, Payload::None, &mut bytes).unwrap();
        let opener = Opener::new(client.receive, CHANNEL, Protection::Clear).unwrap();
        let (mut reader, _) = RecordReader::<ServerData, _>::new(&bytes[..], opener, Buffers::default());
        let outcome = reader.next().await;
        assert_eq!(outcome.is_ok(), is_good, "{message:?}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(matches!(error, ReadError::Trailer | ReadError::Record(_)), "{error:?}");
        }
        if !is_good {
            assert!(reader.next().await.is_err(), "nothing is read after it");
        }
    }
}

#[tokio::test]
async fn what_a_client_writes_has_no_trailer() {
    let (client, server) = keys(Protection::Clear);
    let sealer = Sealer::<ClientData>::new(client.send, CHANNEL, Protection::Clear).unwrap();
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut writer = RecordWriter::new(near, sealer, Meter::default(), NEVER);
    let write = ClientData::from(Write { handle: HandleId(1), offset: 0 });
    let payload = Outbound::Shared(Bytes::from_static(b"written"));
    writer.write(&write, IDS, Some(payload)).await.unwrap();
    let read = ClientData::from(Read { handle: HandleId(1), offset: 0, len: 1 });
    writer.write(&read, IDS, None).await.unwrap();
    writer.flush().await.unwrap();
    let opener = Opener::new(server.receive, CHANNEL, Protection::Clear).unwrap();
    let (mut reader, _) = RecordReader::<ClientData, _>::new(far, opener, Buffers::default());
    let received = reader.next().await.unwrap();
    assert_eq!((received.message, received.payload.unwrap()), (Ok(write), BytesMut::from("written")));
    assert_eq!(reader.next().await.unwrap().message, Ok(read));
}

#[tokio::test]
async fn f02_a_length_over_the_limit_takes_no_memory_and_nothing_behind_its_head() {
    let over = u32::try_from(Limits::BODY_LEN_MAX).unwrap() + 1;
    for (body_len, payload_len) in [(u32::MAX, 0), (over, 0), (0, u32::MAX), (0, (1 << 20) + 1)] {
        for before in [0, 1] {
            let (client, server) = keys(Protection::Signed);
            let mut sealer = Sealer::<ClientData>::new(client.send, CHANNEL, Protection::Signed).unwrap();
            let mut bytes = Vec::new();
            for _ in 0..before {
                sealer.seal(&Ping {}.into(), IDS.0, IDS.1, Payload::None, &mut bytes).unwrap();
            }
            let head = Head {
                body_len,
                payload_len,
                kind: 0x20,
                channel: CHANNEL,
                request: IDS.0,
                sequence: before,
                settled: IDS.1,
            };
            bytes.extend(head.encode());
            let (mut near, far) = tokio::io::duplex(4096);
            near.write_all(&bytes).await.unwrap();
            let opener = Opener::new(server.receive, CHANNEL, Protection::Signed).unwrap();
            let (mut reader, meter) = RecordReader::<ClientData, _>::new(far, opener, Buffers::default());
            for _ in 0..before {
                assert_eq!(reader.next().await.unwrap().message, Ok(Ping {}.into()));
            }
            let taken = reader.body.capacity();
            assert!(taken <= Limits::TAG_LEN, "nothing has been taken so far but for a ping");
            // The head is all that there is, and the stream goes on: whoever wanted more of it would wait.
            let outcome =
                std::pin::pin!(reader.next()).poll(&mut Context::from_waker(std::task::Waker::noop()));
            let is_refused = matches!(outcome, Poll::Ready(Err(ReadError::Record(RecordError::Head(_)))));
            assert!(is_refused, "{body_len}, {payload_len}: {outcome:?}");
            assert_eq!(reader.body.capacity(), taken, "{body_len}, {payload_len}");
            near.write_all(&[0; 1000]).await.unwrap();
            assert!(reader.next().await.is_err(), "and nothing is read after it");
            assert!(reader.body.capacity() == taken && meter.load(Ordering::Relaxed) < 2000);
        }
    }
}
