//! What each fuzz target does with its bytes. `tests/corpus.rs` includes this file and does the same with the
//! committed corpus, so that what a fuzzer once found is tried in every test run, on every toolchain.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use bowline::client::{Peers, Survey};
use bowline::model::{
    AttemptNonce, ChannelKind, ChannelNumber, Entropy, EntropyError, Limits, Locator, Protection, PublicKey,
    RequestId, ResumeKey, SessionId, Suite, len_u64,
};
use bowline::secure::{
    BindInitiator, BindResponder, EnrolInitiator, EnrolResponder, Identity, Incoming, Opener, Payload,
    RecordError, RecordKeys, Sealer, SessionInitiator, SessionResponder, mac1, suites,
};
use bowline::server::{parse_clients, parse_export_argument};
use bowline::wire::control::BindSecret;
use bowline::wire::data::Rekey;
use bowline::wire::hello::{
    self, BindChoice, BindOffer, EnrolChoice, EnrolOffer, Hello, Offer, SessionChoice, SessionOffer,
};
use bowline::wire::{ClientControl, ClientData, Head, Message, ServerControl, ServerData, stored};

/// A hello is refused, or it is the one encoding of what it says.
pub fn hello(bytes: &[u8]) {
    let started = bytes.first_chunk().map(|start| hello::start(*start));
    let Ok(hello) = Hello::decode(bytes) else { return };
    assert!(matches!(started, Some(Ok(_))), "a hello was decoded whose start is refused");
    assert_eq!(hello.prologue, hello::prologue(&hello.offer), "two prologues of one offer");
    assert_eq!(hello.checked, hello::checked(&hello.prologue, &hello.noise));
    assert_eq!([&hello.checked[..], &hello.mac1].concat(), bytes, "two hellos with one meaning");
}

/// A head is refused, or it is the one encoding of what it says, within the limits.
pub fn head(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk() else { return };
    let Ok(head) = Head::decode(bytes) else { return };
    assert!(u64::from(head.body_len) <= len_u64(Limits::BODY_LEN_MAX));
    assert!(u64::from(head.payload_len) <= len_u64(Limits::PAYLOAD_LEN_MAX));
    assert_eq!(&head.encode(), bytes, "two heads with one meaning");
}

/// The first byte is a kind, the others are a body: each stream refuses them, or they are the one encoding of
/// what they say.
pub fn body(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    decodes::<ClientControl>(*kind, body);
    decodes::<ServerControl>(*kind, body);
    decodes::<ClientData>(*kind, body);
    decodes::<ServerData>(*kind, body);
}

/// Whether `body` is a message of this kind in the stream `M`.
///
/// # Panics
/// If it is one, but not as that message is encoded.
pub fn decodes<M: Message>(kind: u8, body: &[u8]) -> bool {
    let Ok(message) = M::decode_body(kind, body) else { return false };
    assert_eq!(message.kind(), kind);
    let mut encoded = Vec::new();
    message.encode_body(&mut encoded);
    assert_eq!(encoded, body, "two bodies with one meaning");
    true
}

/// The file of a key ring is refused, or what is said of it fits into it.
pub fn key_ring(bytes: &[u8]) {
    let survey = match Survey::of_bytes("a.keys".as_ref(), bytes) {
        Ok(survey) => survey,
        Err(error) => return assert_one_line(&error),
    };
    // No slot is shorter.
    assert!(survey.opens.len() <= bytes.len() / 64, "more opens than slots");
    survey.problems.iter().for_each(|problem| assert_one_line(problem));
    if let Some(open) = survey.opens.last() {
        let shown = format!("{:?}", open.kept);
        assert!(!shown.contains("bowline-resume"), "a key is shown");
    }
    // What is behind a whole ring is one slot that was being written, or damage: it takes nothing away.
    let longer = Survey::of_bytes("a.keys".as_ref(), &[bytes, &[0xff; 8]].concat());
    assert!(longer.is_ok_and(|longer| longer.opens.len() >= survey.opens.len()) || survey.opens.is_empty());
}

/// The first byte chooses an open or a tombstone, the others are its record in the stored table: they are refused, or they
/// are the one encoding of what they say.
pub fn record(bytes: &[u8]) {
    let Some((kind, record)) = bytes.split_first() else { return };
    let again = match kind % 2 {
        0 => stored::decode_open(record).map(|open| stored::encode_open(&open)),
        _ => stored::decode_tombstone(record).map(|tombstone| stored::encode_tombstone(&tombstone)),
    };
    if let Ok(again) = again {
        assert_eq!(again, record, "two records with one meaning");
    }
}

/// A text is refused, or it is the one text of its key.
pub fn resume_key_text(bytes: &[u8]) {
    let Some(key) = str::from_utf8(bytes).ok().and_then(|text| text.parse::<ResumeKey>().ok()) else {
        return;
    };
    assert_eq!(key.to_text().as_bytes(), bytes, "two texts of one key");
    assert!(ResumeKey::from_bytes(&key.to_bytes()) == key, "the binary form does not come back");
}

/// The first byte chooses a stream and what its channel is like, the others are a record of it: as they came they are
/// refused, and sealed as a body with the right keys they are what [`body`] says of them.
pub fn frames(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let mode = DATA_MODES[usize::from(first / 4) % DATA_MODES.len()];
    match first % 4 {
        0 => framed::<ClientControl>(bytes, CONTROL_MODE, |keys| (keys.0.send, keys.1.receive)),
        1 => framed::<ServerControl>(bytes, CONTROL_MODE, |keys| (keys.1.send, keys.0.receive)),
        2 => framed::<ClientData>(bytes, mode, |keys| (keys.0.send, keys.1.receive)),
        _ => framed::<ServerData>(bytes, mode, |keys| (keys.1.send, keys.0.receive)),
    }
}

/// What control channels are like.
const CONTROL_MODE: (Protection, Suite) = (Protection::Sealed, Suite::ChaCha20Poly1305);
/// What data channels can be like.
pub const DATA_MODES: [(Protection, Suite); 6] = [
    (Protection::Signed, Suite::ChaCha20Poly1305),
    (Protection::Sealed, Suite::ChaCha20Poly1305),
    (Protection::Clear, Suite::ChaCha20Poly1305),
    (Protection::Signed, Suite::Aegis128X2),
    (Protection::Sealed, Suite::Aegis128X2),
    (Protection::Clear, Suite::Aegis128X2),
];

/// The first byte chooses a step of a handshake, the others are the message that it reads, behind a right check: it is
/// refused, or leads to the next step.
pub fn handshake(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let (client, server) = identities();
    let noise = bytes.get(..Limits::HELLO_LEN_MAX).unwrap_or(bytes);
    let hello = |offer: &Offer| {
        let mut hello = hello::checked(&hello::prologue(offer), noise);
        hello.extend(mac1::mac1(&server.public(), &hello));
        Hello::decode(&hello).expect("a hello with our own lengths")
    };
    match step % STEPS {
        0 => {
            let hello = hello(&Offer::Session(SessionOffer::OURS));
            assert!(mac1::verify(&server.public(), &hello));
            let Ok(responder) = SessionResponder::read(&server, &hello, &mut Fixed(3)) else { return };
            assert!(responder.client().0[31] < 0x80, "a second name of one client");
            let finished = responder.finish(SessionChoice { version: 1, session: SESSION });
            assert!(finished.is_ok(), "a hello was read that leads nowhere");
        }
        1 => {
            let offer = bind_offer(ChannelKind::Data, Protection::Signed);
            let hello = hello(&Offer::Bind(offer));
            let key = client.public();
            let read = BindResponder::read(&server, &key, &SECRET, SESSION, &hello, &mut Fixed(3));
            assert!(BindResponder::decoy(&server, &hello, &mut Fixed(3)).is_err());
            let Ok(responder) = read else { return };
            let choice = BindChoice { protection: Protection::Sealed, suite: Suite::ChaCha20Poly1305 };
            assert!(responder.finish(choice).is_ok(), "a hello was read that leads nowhere");
        }
        2 => {
            let begun = SessionInitiator::begin(&client, &server.public(), SessionOffer::OURS, &mut Fixed(2));
            let finished = begun.expect("it needs nothing from outside").0.finish(bytes);
            assert!(finished.is_err() || bytes.len() > 48, "an answer without the server's key");
        }
        3 => {
            let finished = begin_bind(bind_offer(ChannelKind::Data, Protection::Signed)).0.finish(bytes);
            assert!(finished.is_err() || bytes.len() > 48, "an answer without the server's key");
        }
        4 => {
            let hello = hello(&Offer::Enrol(EnrolOffer::OURS));
            let Ok(responder) = EnrolResponder::read(&server, &hello, &mut Fixed(3)) else { return };
            assert_eq!(hello.noise.len(), 32, "an ephemeral key and no more");
            // A key of low order is found out by the Diffie-Hellman.
            if let Ok(message2) = responder.finish(EnrolChoice { version: 1 }) {
                assert_eq!(message2.len(), 2 + ENROL_ANSWER_LEN);
            }
        }
        _ => {
            let (initiator, _) = EnrolInitiator::begin(EnrolOffer::OURS, &mut Fixed(2))
                .expect("it needs nothing from outside");
            if let Ok(key) = initiator.finish(bytes) {
                assert!(bytes.len() == ENROL_ANSWER_LEN, "a key out of an answer of another length");
                assert!(key.0[31] < 0x80, "a second name of one server");
            }
        }
    }
}

/// The steps of handshakes that [`handshake`] and [`honest`] know.
pub const STEPS: u8 = 6;
/// An answer that shows a key: an ephemeral key, the key and its tag, the choice and its tag.
const ENROL_ANSWER_LEN: usize = 32 + 48 + 2 + 16;

/// A text is refused, or it is the one text of its key; and what is said of a refused identity is the same for every
/// text, so that no error repeats a secret.
pub fn key_text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string(), text, "two texts of one key");
    }
    match Identity::from_text(text) {
        Ok(identity) => {
            assert_eq!(*identity.to_text(), text, "two texts of one identity");
            assert!(!format!("{identity:?}").contains(&text[text.len() - 52..]));
        }
        Err(error) => assert_eq!(Some(error), Identity::from_text("").err(), "an error that knows its text"),
    }
}

/// The first byte chooses a kind of setting, the others are its text: it is refused with one line that can stand in
/// any log, or what comes of it can be used.
pub fn settings(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if kind % 4 == 2 {
        match parse_export_argument(OsStr::from_bytes(bytes)) {
            Ok((name, folder)) => assert!(!name.as_str().is_empty() && !folder.as_os_str().is_empty()),
            Err(error) => assert_one_line(&error),
        }
        return;
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    match kind % 4 {
        0 => match parse_clients(text) {
            Ok(policy) => assert!(policy.clients.values().all(|access| is_plain(&access.name))),
            Err(error) => assert_one_line(&error),
        },
        1 => peers(text),
        // One address, in quotes that hold whatever it is.
        _ => {
            let key = identities().1.public();
            let address: String = text.chars().map(|char| format!("\\U{:08x}", u32::from(char))).collect();
            peers(&format!("[[peer]]\nname = \"a\"\nkey = \"{key}\"\naddresses = [\"{address}\"]\n"));
        }
    }
}

fn peers(text: &str) {
    match Peers::parse(text) {
        Ok(peers) => {
            for peer in peers.iter() {
                assert!(is_plain(&peer.name) && !peer.lines.is_empty(), "{peer:?}");
                assert!(peer.lines.iter().all(|line| line.address.port() != 0), "{peer:?}");
            }
        }
        Err(error) => assert_one_line(&error),
    }
}

fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|char| char.is_ascii_graphic())
}

fn assert_one_line(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

/// A message of any kind with any body.
struct Any<const IS_CONTROL: bool> {
    kind: u8,
    body: Vec<u8>,
}

impl<const IS_CONTROL: bool> From<Rekey> for Any<IS_CONTROL> {
    fn from(_: Rekey) -> Self {
        Self { kind: Rekey::KIND, body: Vec::new() }
    }
}

impl<const IS_CONTROL: bool> Message for Any<IS_CONTROL> {
    const CHANNEL: ChannelKind = if IS_CONTROL { ChannelKind::Control } else { ChannelKind::Data };

    fn kind(&self) -> u8 {
        self.kind
    }

    fn encode_body(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.body);
    }

    fn decode_body(kind: u8, body: &[u8]) -> Result<Self, bowline::wire::DecodeError> {
        Ok(Self { kind, body: body.to_vec() })
    }
}

type Keys = (RecordKeys, RecordKeys);
type Ends = (bowline::secure::DirectionKeys, bowline::secure::DirectionKeys);

fn framed<M: Message + PartialEq + core::fmt::Debug>(
    bytes: &[u8],
    (protection, suite): (Protection, Suite),
    ends: fn(Keys) -> Ends,
) {
    if !suites().contains(suite) {
        return;
    }
    let opener = || {
        let (send, receive) = ends(bind(BindOffer { suite, ..bind_offer(M::CHANNEL, protection) }));
        (send, Opener::<M>::new(receive, NUMBER, protection).expect("such a channel can be"))
    };
    // As they came.
    assert!(open(&mut opener().1, bytes, &[]).is_err(), "a record without the keys");
    // Sealed, with a payload that is as long as the body says in its first byte.
    let Some((&message, body)) = bytes.split_first() else { return };
    let body = body.get(..Limits::BODY_LEN_MAX).unwrap_or(body);
    let payload = vec![0x55; body.first().map_or(0, |&len| usize::from(len))];
    let (send, mut opener) = opener();
    let frame = match M::CHANNEL {
        ChannelKind::Control => seal::<true>(send, protection, (message, body), &payload),
        ChannelKind::Data => seal::<false>(send, protection, (message, body), &payload),
    };
    match open(&mut opener, &frame, &payload) {
        Ok(Incoming::Message(decoded)) => {
            let mut encoded = Vec::new();
            decoded.encode_body(&mut encoded);
            assert_eq!((decoded.kind(), &encoded[..]), (message, body), "two bodies with one meaning");
        }
        Ok(Incoming::Unknown(unknown)) => assert_eq!(unknown, message),
        Ok(Incoming::Rekeyed) => assert!(frame.is_empty(), "a rekey belongs to no request"),
        Err(RecordError::Order) => assert_eq!(message, Rekey::KIND),
        Err(error) => {
            assert!(matches!(error, RecordError::Message(_) | RecordError::WrongStream(_)), "{error}");
            assert_eq!(opener.read_head(&[0; Limits::HEAD_LEN]), Err(RecordError::Dead));
        }
    }
}

fn seal<const IS_CONTROL: bool>(
    keys: bowline::secure::DirectionKeys,
    protection: Protection,
    (kind, body): (u8, &[u8]),
    payload: &[u8],
) -> Vec<u8> {
    let mut sealer = Sealer::new(keys, NUMBER, protection).expect("such a channel can be");
    let message = Any::<IS_CONTROL> { kind, body: body.to_vec() };
    let (mut out, mut payload) = (Vec::new(), payload.to_vec());
    let part = if payload.is_empty() { Payload::None } else { Payload::Buffer(&mut payload) };
    let tag = sealer.seal(&message, RequestId(1), RequestId(1), part, &mut out).expect("within the limits");
    out.extend(payload);
    out.extend(tag.into_iter().flatten());
    out
}

/// Opens one record, with its payload if it has one, which is then `plain`.
fn open<M: Message>(opener: &mut Opener<M>, bytes: &[u8], plain: &[u8]) -> Result<Incoming<M>, RecordError> {
    let Some((head_bytes, rest)) = bytes.split_first_chunk() else { return Err(RecordError::Order) };
    let head = opener.read_head(head_bytes)?;
    let body_len = usize::try_from(head.body_len).unwrap_or(usize::MAX).saturating_add(Limits::TAG_LEN);
    let Some((body, rest)) = rest.split_at_checked(body_len) else { return Err(RecordError::Order) };
    let incoming = opener.open_body(&head, head_bytes, &mut body.to_vec())?;
    if head.payload_len > 0 {
        let payload_len = rest.len().checked_sub(opener.payload_tag_len()).ok_or(RecordError::Order)?;
        let (payload, tag) = rest.split_at(payload_len);
        let mut payload = payload.to_vec();
        opener.open_payload(&mut payload, tag)?;
        assert_eq!(payload, plain, "another payload than was sealed");
    }
    Ok(incoming)
}

const SESSION: SessionId = SessionId([1; 16]);
const SECRET: BindSecret = BindSecret([7; 32]);
const NUMBER: ChannelNumber = ChannelNumber(3);

fn identities() -> (Identity, Identity) {
    let identity = |seed| Identity::generate(&mut Fixed(seed)).expect("there are bytes");
    (identity(10), identity(11))
}

fn bind_offer(kind: ChannelKind, protection: Protection) -> BindOffer {
    let (locator, nonce) = (Locator([1; 16]), AttemptNonce([2; 16]));
    BindOffer { locator, number: NUMBER, nonce, kind, protection, suite: Suite::ChaCha20Poly1305 }
}

fn begin_bind(offer: BindOffer) -> (BindInitiator, Vec<u8>) {
    let (client, server) = identities();
    BindInitiator::begin(&client, &server.public(), &SECRET, SESSION, offer, &mut Fixed(2))
        .expect("it needs nothing from outside")
}

/// Both ends' keys after a bind.
fn bind(offer: BindOffer) -> Keys {
    let (client, server) = identities();
    let (initiator, hello) = begin_bind(offer);
    let hello = Hello::decode(&hello).expect("our own hello");
    let choice = BindChoice { protection: offer.protection, suite: offer.suite };
    let read = BindResponder::read(&server, &client.public(), &SECRET, SESSION, &hello, &mut Fixed(3));
    let (message2, keys) = read.and_then(|read| read.finish(choice)).expect("our own hello");
    let message2 = message2.get(2..).unwrap_or_default();
    (initiator.finish(message2).expect("our own answer").1, keys)
}

/// What an honest peer says at this step of a handshake: seeds to change.
#[must_use]
pub fn honest(step: u8) -> Vec<u8> {
    let (client, server) = identities();
    let offer = bind_offer(ChannelKind::Data, Protection::Signed);
    let session = || {
        SessionInitiator::begin(&client, &server.public(), SessionOffer::OURS, &mut Fixed(2))
            .expect("it needs nothing from outside")
            .1
    };
    let decoded = |hello: &[u8]| Hello::decode(hello).expect("our own hello");
    let enrolment =
        || EnrolInitiator::begin(EnrolOffer::OURS, &mut Fixed(2)).expect("it needs nothing from outside").1;
    let message = match step % STEPS {
        0 => decoded(&session()).noise,
        1 => decoded(&begin_bind(offer).1).noise,
        2 => {
            let read = SessionResponder::read(&server, &decoded(&session()), &mut Fixed(3));
            let choice = SessionChoice { version: 1, session: SESSION };
            read.and_then(|read| read.finish(choice)).expect("our own hello").0[2..].to_vec()
        }
        3 => {
            let hello = decoded(&begin_bind(offer).1);
            let key = client.public();
            let read = BindResponder::read(&server, &key, &SECRET, SESSION, &hello, &mut Fixed(3));
            let choice = BindChoice { protection: offer.protection, suite: offer.suite };
            read.and_then(|read| read.finish(choice)).expect("our own hello").0[2..].to_vec()
        }
        4 => decoded(&enrolment()).noise,
        _ => {
            let read = EnrolResponder::read(&server, &decoded(&enrolment()), &mut Fixed(3));
            let choice = EnrolChoice { version: 1 };
            read.and_then(|read| read.finish(choice)).expect("our own hello")[2..].to_vec()
        }
    };
    [&[step][..], &message].concat()
}

/// The same bytes each time, so that a run can be had again.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(17);
            *byte = self.0;
        }
        Ok(())
    }
}
