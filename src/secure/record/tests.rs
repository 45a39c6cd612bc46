//! Records: what opens, what does not, and their bytes.

use super::*;
use crate::model::{Attributes, FileState, HandleId, Locator, OpenId, OpenMode, ResumeKey, SessionId};
use crate::wire::control::{BindSecret, Opened, Resume, Started, Welcome, WelcomeAnswer};
use crate::wire::data::{Ping, Write};
use crate::wire::hello::{SessionChoice, SessionOffer};
use crate::wire::{ClientControl, ClientData, ServerControl};

const CHANNEL: ChannelNumber = ChannelNumber(7);
const PAYLOAD: &[u8] = b"sixteen and more";

/// Head, body, tag, payload, tag.
const GOLDEN_SIGNED: [&str; 5] = [
    "10000000100000002100000007000000050000000000000001000000000000000300000000000000",
    "88776655443322110010000000000000",
    "3de4dbad9f0fde4dab61201730a5e5af",
    "7369787465656e20616e64206d6f7265",
    "7720e61e4abbfe20577a8c3642b83d1f",
];
const GOLDEN_SEALED: [&str; 5] = [
    "10000000100000002100000007000000050000000000000001000000000000000300000000000000",
    "c54d4d46ccfba5c73e75041f29e84339",
    "f3bd5556becc19612386524bf8873f6f",
    "09d20805c610cf5dc815fa1706fa58b3",
    "5c2eff1c6ee8941d2622860e4ff6ca97",
];

fn keys() -> DirectionKeys {
    DirectionKeys::fixed(Suite::ChaCha20Poly1305, [1; 32], [2; 32])
}

fn sealer<M: Message>(protection: Protection) -> Sealer<M> {
    Sealer::new(keys(), CHANNEL, protection).unwrap()
}

fn opener<M: Message>(protection: Protection) -> Opener<M> {
    Opener::new(keys(), CHANNEL, protection).unwrap()
}

fn write() -> ClientData {
    Write { handle: HandleId(0x1122_3344_5566_7788), offset: 4096 }.into()
}

fn ping() -> ClientData {
    Ping {}.into()
}

/// The whole record, as it goes over the wire.
fn record<M: Message>(sealer: &mut Sealer<M>, message: &M, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut payload = payload.to_vec();
    let tag =
        sealer.seal(message, RequestId(5), RequestId(3), Payload::Buffer(&mut payload), &mut out).unwrap();
    out.extend(payload);
    out.extend(tag.unwrap_or_default().iter().take(if tag.is_some() { 16 } else { 0 }));
    out
}

/// Reads a record as a receiver does; what is not there is missing.
fn open<M: Message>(opener: &mut Opener<M>, record: &[u8]) -> Result<(Incoming<M>, Vec<u8>), RecordError> {
    let (head_bytes, rest) = record.split_first_chunk().unwrap();
    let head = opener.read_head(head_bytes)?;
    let body_len = usize::try_from(head.body_len).unwrap() + 16;
    let (body, rest) = rest.split_at(body_len.min(rest.len()));
    let incoming = opener.open_body(&head, head_bytes, &mut body.to_vec())?;
    let payload_len = usize::try_from(head.payload_len).unwrap();
    let mut payload = rest[..payload_len].to_vec();
    if payload_len > 0 {
        opener.open_payload(&mut payload, rest[payload_len..].try_into().unwrap())?;
    }
    Ok((incoming, payload))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

const BOTH: [Protection; 2] = [Protection::Signed, Protection::Sealed];

#[test]
fn records_come_back_in_order() {
    for protection in BOTH {
        let (mut sealer, mut opener) = (sealer(protection), opener::<ClientData>(protection));
        assert_eq!(sealer.protection(), protection);
        for round in 0..3_u8 {
            let payload = vec![round; 100 * usize::from(round)];
            let bytes = record(&mut sealer, &write(), &payload);
            assert_eq!(open(&mut opener, &bytes), Ok((Incoming::Message(write()), payload)));
            let bytes = record(&mut sealer, &ping(), &[]);
            assert_eq!(open(&mut opener, &bytes), Ok((Incoming::Message(ping()), Vec::new())));
        }
    }
}

#[test]
fn records_are_appended_and_their_heads_tell_what_was_given() {
    let mut out = b"before".to_vec();
    let mut sealer = sealer(Protection::Signed);
    let tag = sealer.seal(&ping(), RequestId(5), RequestId(3), Payload::None, &mut out).unwrap();
    assert_eq!(tag, None);
    assert_eq!(&out[..6], b"before");
    let head_bytes: &[u8; 40] = out[6..46].try_into().unwrap();
    let head = opener::<ClientData>(Protection::Signed).read_head(head_bytes).unwrap();
    let expected = Head {
        body_len: 0,
        payload_len: 0,
        kind: 0x30,
        channel: CHANNEL,
        request: RequestId(5),
        sequence: 0,
        settled: RequestId(3),
    };
    assert_eq!(head, expected);
}

#[test]
fn signed_records_are_readable_and_sealed_ones_are_not() {
    let body = &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    let signed = record(&mut sealer(Protection::Signed), &write(), PAYLOAD);
    assert!(contains(&signed, body) && contains(&signed, PAYLOAD));
    let sealed = record(&mut sealer(Protection::Sealed), &write(), PAYLOAD);
    assert!(!contains(&sealed, &body[..4]) && !contains(&sealed, &PAYLOAD[..4]));
    assert_eq!(signed.len(), sealed.len());
}

/// Computed with another implementation of ChaCha20-Poly1305 from the layout in the module's documentation.
#[test]
fn golden_bytes() {
    let golden = [(Protection::Signed, GOLDEN_SIGNED), (Protection::Sealed, GOLDEN_SEALED)];
    for (protection, text) in golden {
        let mut sealer = sealer(protection);
        record(&mut sealer, &ping(), &[]);
        let bytes = record(&mut sealer, &write(), PAYLOAD);
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), text.concat());
    }
}

#[test]
fn every_bit_of_a_record_counts() {
    for protection in BOTH {
        let bytes = record(&mut sealer(protection), &write(), PAYLOAD);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut opener = opener::<ClientData>(protection);
            let outcome = open(&mut opener, &changed);
            let part = match bit / 8 {
                0..40 => "head",
                40..72 => "body",
                _ => "payload",
            };
            match (part, &outcome) {
                ("payload", Err(RecordError::Payload))
                | ("body", Err(RecordError::Body))
                | (
                    "head",
                    Err(
                        RecordError::Body
                        | RecordError::Head(_)
                        | RecordError::Order
                        | RecordError::Channel { .. }
                        | RecordError::Sequence { .. },
                    ),
                ) => {}
                _ => panic!("{protection}, bit {bit} of {part}: {outcome:?}"),
            }
            assert_eq!(open(&mut opener, &bytes), Err(RecordError::Dead), "an error is the last");
        }
    }
}

#[test]
fn a_payload_that_does_not_verify_stays_encrypted() {
    let bytes = record(&mut sealer(Protection::Sealed), &write(), PAYLOAD);
    let mut opener = opener::<ClientData>(Protection::Sealed);
    let head_bytes = bytes[..40].try_into().unwrap();
    let head = opener.read_head(head_bytes).unwrap();
    opener.open_body(&head, head_bytes, &mut bytes[40..72].to_vec()).unwrap();
    let mut payload = bytes[72..88].to_vec();
    assert_eq!(opener.open_payload(&mut payload, &[0; 16]), Err(RecordError::Payload));
    assert_eq!(payload, bytes[72..88]);
}

#[test]
fn repeated_reordered_and_missing_records_are_refused() {
    for protection in BOTH {
        let mut sealer = sealer(protection);
        let first = record(&mut sealer, &write(), PAYLOAD);
        let second = record(&mut sealer, &write(), PAYLOAD);
        let mut repeated = opener::<ClientData>(protection);
        open(&mut repeated, &first).unwrap();
        let outcome = open(&mut repeated, &first);
        assert_eq!(outcome, Err(RecordError::Sequence { expected: 1, found: 0 }));
        let outcome = open(&mut opener::<ClientData>(protection), &second);
        assert_eq!(outcome, Err(RecordError::Sequence { expected: 0, found: 1 }));
        // The same with a head whose sequence was set to what is expected.
        let mut forged = second.clone();
        forged[24] = 0;
        assert_eq!(open(&mut opener::<ClientData>(protection), &forged), Err(RecordError::Body));
    }
}

#[test]
fn payloads_of_two_records_cannot_change_places() {
    for protection in BOTH {
        let mut sealer = sealer(protection);
        let first = record(&mut sealer, &write(), b"first payload 16");
        let second = record(&mut sealer, &write(), b"second payload16");
        let spliced = [&first[..72], &second[72..]].concat();
        assert_eq!(open(&mut opener::<ClientData>(protection), &spliced), Err(RecordError::Payload));
    }
}

#[test]
fn records_of_another_channel_direction_or_protection_are_refused() {
    for protection in BOTH {
        let bytes = record(&mut sealer(protection), &write(), PAYLOAD);
        let mut other = Opener::<ClientData>::new(keys(), ChannelNumber(8), protection).unwrap();
        let expected = RecordError::Channel { expected: ChannelNumber(8), found: CHANNEL };
        assert_eq!(open(&mut other, &bytes), Err(expected));
        let mut renamed = bytes.clone();
        renamed[12] = 8;
        let mut other = Opener::<ClientData>::new(keys(), ChannelNumber(8), protection).unwrap();
        assert_eq!(open(&mut other, &renamed), Err(RecordError::Body));
        let other_keys = DirectionKeys::fixed(Suite::ChaCha20Poly1305, [3; 32], [4; 32]);
        let mut other = Opener::<ClientData>::new(other_keys, CHANNEL, protection).unwrap();
        assert_eq!(open(&mut other, &bytes), Err(RecordError::Body));
        let [signed, sealed] = BOTH;
        let opposite = if protection == signed { sealed } else { signed };
        assert_eq!(open(&mut opener::<ClientData>(opposite), &bytes), Err(RecordError::Body));
    }
}

#[test]
fn a_head_key_opens_no_payload() {
    let bytes = record(&mut sealer(Protection::Signed), &write(), PAYLOAD);
    let same = DirectionKeys::fixed(Suite::ChaCha20Poly1305, [1; 32], [1; 32]);
    let mut opener = Opener::<ClientData>::new(same, CHANNEL, Protection::Signed).unwrap();
    assert_eq!(open(&mut opener, &bytes), Err(RecordError::Payload));
}

#[test]
fn a_message_of_another_stream_is_an_offence_and_an_unknown_one_is_not() {
    #[derive(Debug, PartialEq)]
    struct Foreign(u8);

    impl From<Rekey> for Foreign {
        fn from(_: Rekey) -> Self {
            Self(Rekey::KIND)
        }
    }

    impl Message for Foreign {
        const CHANNEL: ChannelKind = ChannelKind::Data;

        fn kind(&self) -> u8 {
            self.0
        }

        fn encode_body(&self, to: &mut Vec<u8>) {
            to.extend(b"something new");
        }

        fn decode_body(_: u8, _: &[u8]) -> Result<Self, DecodeError> {
            Err(DecodeError::Malformed)
        }
    }

    for protection in BOTH {
        // A resume and an answer to a read.
        for kind in [0x11, 0xa0] {
            let bytes = record(&mut sealer(protection), &Foreign(kind), &[]);
            let mut opener = opener::<ClientData>(protection);
            assert_eq!(open(&mut opener, &bytes), Err(RecordError::WrongStream(kind)));
            assert_eq!(open(&mut opener, &bytes), Err(RecordError::Dead));
        }
        let mut foreign = sealer(protection);
        let mut opener = opener::<ClientData>(protection);
        for _ in 0..2 {
            let bytes = record(&mut foreign, &Foreign(0x7f), PAYLOAD);
            assert_eq!(open(&mut opener, &bytes), Ok((Incoming::Unknown(0x7f), PAYLOAD.to_vec())));
        }
        let bytes = record(&mut foreign, &Foreign(0x30), &[]);
        assert_eq!(open(&mut opener, &bytes), Err(RecordError::Message(DecodeError::Trailing(13))));
    }
}

#[test]
fn parts_out_of_turn_are_refused() {
    let bytes = record(&mut sealer(Protection::Signed), &write(), PAYLOAD);
    let head_bytes: &[u8; 40] = bytes[..40].try_into().unwrap();
    let tag: &[u8; 16] = bytes[88..].try_into().unwrap();
    let at_payload = || {
        let mut opener = opener::<ClientData>(Protection::Signed);
        let head = opener.read_head(head_bytes).unwrap();
        opener.open_body(&head, head_bytes, &mut bytes[40..72].to_vec()).unwrap();
        opener
    };
    at_payload().open_payload(&mut bytes[72..88].to_vec(), tag).unwrap();

    assert_eq!(at_payload().read_head(head_bytes), Err(RecordError::Order), "the payload is missing");
    assert_eq!(at_payload().open_payload(&mut bytes[72..87].to_vec(), tag), Err(RecordError::Order));
    let mut twice = at_payload();
    twice.open_payload(&mut bytes[72..88].to_vec(), tag).unwrap();
    assert_eq!(twice.open_payload(&mut bytes[72..88].to_vec(), tag), Err(RecordError::Order));
    assert_eq!(twice.read_head(head_bytes), Err(RecordError::Dead));
    let mut early = opener::<ClientData>(Protection::Signed);
    assert_eq!(early.open_payload(&mut bytes[72..88].to_vec(), tag), Err(RecordError::Order));

    let head = Head::decode(head_bytes).unwrap();
    let other = Head { request: RequestId(6), ..head };
    for (head, body) in
        [(&other, &bytes[40..72]), (&head, &bytes[40..71]), (&head, &bytes[40..73]), (&head, &[])]
    {
        let mut opener = opener::<ClientData>(Protection::Signed);
        assert_eq!(opener.open_body(head, head_bytes, &mut body.to_vec()), Err(RecordError::Order));
    }
}

#[test]
fn t29_a_million_records_across_a_thousand_rekeys_come_in_order_and_each_in_its_generation() {
    let (mut sealer, mut opener) = (sealer(Protection::Signed), opener::<ClientData>(Protection::Signed));
    let mut bytes = Vec::new();
    for generation in 0..1000_u64 {
        for at in 0..1000 {
            bytes.clear();
            sealer.seal(&ping(), RequestId(5), RequestId(3), Payload::None, &mut bytes).unwrap();
            assert_eq!(bytes[24..32], (generation * 1001 + at).to_le_bytes(), "the numbers have no gap");
            assert_eq!(open(&mut opener, &bytes).unwrap().0, Incoming::Message(ping()));
        }
        assert_eq!(sealer.used().records, 1000);
        assert_eq!(sealer.used().bytes, 40_000);
        bytes.clear();
        sealer.rekey(RequestId(3), &mut bytes).unwrap();
        assert_eq!(open(&mut opener, &bytes).unwrap().0, Incoming::Rekeyed);
        assert_eq!((sealer.used(), opener.direction.used), (KeyUse::default(), KeyUse::default()));
    }
}

#[test]
fn t29_keys_of_another_generation_open_nothing() {
    for protection in Protection::EACH.iter().copied() {
        let mut ahead = sealer(protection);
        let mut bytes = Vec::new();
        ahead.rekey(RequestId(3), &mut bytes).unwrap();
        let rekeyed = bytes.clone();
        let next = record(&mut ahead, &write(), PAYLOAD);
        let mut behind = opener::<ClientData>(protection);
        behind.next = 1;
        assert_eq!(open(&mut behind, &next), Err(RecordError::Body), "keys of the generation before");
        let mut opener = opener::<ClientData>(protection);
        open(&mut opener, &rekeyed).unwrap();
        assert_eq!(open(&mut opener, &next), Ok((Incoming::Message(write()), PAYLOAD.to_vec())));
        // A sealer that goes on with the old keys.
        let mut stays = sealer(protection);
        stays.next = 2;
        let old = record(&mut stays, &write(), PAYLOAD);
        assert_eq!(open(&mut opener, &old), Err(RecordError::Body));
    }
}

#[test]
fn t29_a_rekey_is_nothing_but_one() {
    for (request, payload) in [(RequestId(5), &b""[..]), (RequestId::NONE, PAYLOAD)] {
        let mut sealer = sealer::<ClientData>(Protection::Signed);
        let mut out = Vec::new();
        let mut payload = payload.to_vec();
        let message = ClientData::from(Rekey {});
        let tag =
            sealer.seal(&message, request, RequestId(3), Payload::Buffer(&mut payload), &mut out).unwrap();
        out.extend(payload);
        out.extend(tag.iter().flatten());
        let mut opener = opener::<ClientData>(Protection::Signed);
        assert_eq!(open(&mut opener, &out), Err(RecordError::Order));
        assert_eq!(open(&mut opener, &out), Err(RecordError::Dead));
    }
}

#[test]
fn t29_a_key_that_should_have_been_replaced_long_ago_is_not_listened_to() {
    let overused = [
        KeyUse { records: Limits::KEY_RECORDS_MAX, bytes: 0 },
        KeyUse { records: 0, bytes: Limits::KEY_BYTES_MAX },
    ];
    for used in overused {
        let (mut sealer, mut opener) = (sealer(Protection::Sealed), opener::<ClientData>(Protection::Sealed));
        let bytes = record(&mut sealer, &write(), PAYLOAD);
        opener.direction.used = used;
        assert_eq!(open(&mut opener, &bytes), Err(RecordError::Overused));
    }
}

#[test]
fn t29_sequence_numbers_end_before_they_begin_again() {
    for protection in BOTH {
        let (mut sealer, mut opener) = (sealer(protection), opener::<ClientData>(protection));
        sealer.next = u64::MAX - 1;
        opener.next = u64::MAX - 1;
        let bytes = record(&mut sealer, &write(), PAYLOAD);
        open(&mut opener, &bytes).unwrap();
        let mut out = b"before".to_vec();
        let outcome = sealer.seal(&ping(), RequestId::NONE, RequestId::NONE, Payload::None, &mut out);
        assert_eq!((outcome, out), (Err(RecordError::Exhausted), b"before".to_vec()));
        let mut last = bytes;
        last[24] = 0xff;
        assert_eq!(sealer.rekey(RequestId::NONE, &mut Vec::new()), Err(RecordError::Exhausted));
        assert_eq!(open(&mut opener, &last), Err(RecordError::Exhausted));
    }
}

#[test]
fn what_is_over_a_limit_or_cannot_be_sealed_is_not_sent() {
    struct Long(usize);

    impl From<Rekey> for Long {
        fn from(_: Rekey) -> Self {
            Self(0)
        }
    }

    impl Message for Long {
        const CHANNEL: ChannelKind = ChannelKind::Data;

        fn kind(&self) -> u8 {
            0x7f
        }

        fn encode_body(&self, to: &mut Vec<u8>) {
            to.resize(to.len() + self.0, b'x');
        }

        fn decode_body(kind: u8, _: &[u8]) -> Result<Self, DecodeError> {
            Err(DecodeError::UnknownKind(kind))
        }
    }

    let mut sealer = sealer::<Long>(Protection::Sealed);
    let mut out = b"before".to_vec();
    let mut seal = |message: &Long, payload: Payload<'_>| {
        let outcome = sealer.seal(message, RequestId(1), RequestId(1), payload, &mut out);
        let left = (out.len(), sealer.next);
        out.truncate(6);
        (outcome, left)
    };
    let (max, payload_max) = (Limits::BODY_LEN_MAX, Limits::PAYLOAD_LEN_MAX);
    let long = RecordError::TooLong { body_len: max + 1, payload_len: 0 };
    assert_eq!(seal(&Long(max + 1), Payload::None), (Err(long), (6, 0)));
    let long = RecordError::TooLong { body_len: 0, payload_len: payload_max + 1 };
    let mut payload = vec![0; payload_max + 1];
    assert_eq!(seal(&Long(0), Payload::Buffer(&mut payload)), (Err(long), (6, 0)));
    assert_eq!(seal(&Long(0), Payload::Readable(PAYLOAD)), (Err(RecordError::ReadOnly), (6, 0)));
    payload.pop();
    let (outcome, left) = seal(&Long(max), Payload::Buffer(&mut payload));
    assert!(matches!(outcome, Ok(Some(_))));
    assert_eq!(left, (6 + 40 + max + 16, 1));
}

#[test]
fn a_readable_payload_is_signed_as_it_is() {
    let (mut one, mut two) = (sealer(Protection::Signed), sealer(Protection::Signed));
    let bytes = record(&mut one, &write(), PAYLOAD);
    let mut out = Vec::new();
    let tag = two.seal(&write(), RequestId(5), RequestId(3), Payload::Readable(PAYLOAD), &mut out).unwrap();
    assert_eq!([&out[..], PAYLOAD, &tag.unwrap()].concat(), bytes);
    let none = two.seal(&write(), RequestId(5), RequestId(3), Payload::Readable(&[]), &mut out).unwrap();
    assert_eq!(none, None, "an empty payload is none");
}

#[test]
fn control_channels_are_sealed() {
    let refused = |kind, protection| RecordError::Protection { kind, protection };
    for protection in [Protection::Clear, Protection::Signed] {
        let expected = refused(ChannelKind::Control, protection);
        let sealer = Sealer::<ClientControl>::new(keys(), CHANNEL, protection);
        assert_eq!(sealer.map(|_| ()), Err(expected.clone()));
        let opener = Opener::<ServerControl>::new(keys(), CHANNEL, protection);
        assert_eq!(opener.map(|_| ()), Err(expected));
    }
}

#[test]
fn clear_payload_is_not_protected_and_its_length_is() {
    let bytes = record(&mut sealer(Protection::Clear), &write(), PAYLOAD);
    assert_eq!(bytes.len(), 40 + 16 + 16 + PAYLOAD.len(), "no second tag");
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let outcome = open(&mut opener::<ClientData>(Protection::Clear), &changed);
        if bit < 72 * 8 {
            assert!(outcome.is_err(), "bit {bit}");
        } else {
            assert_eq!(outcome, Ok((Incoming::Message(write()), changed[72..].to_vec())));
        }
    }
    let mut opener = opener::<ClientData>(Protection::Clear);
    let head_bytes = bytes[..40].try_into().unwrap();
    let head = opener.read_head(head_bytes).unwrap();
    opener.open_body(&head, head_bytes, &mut bytes[40..72].to_vec()).unwrap();
    assert_eq!(opener.open_payload(&mut [0; 15], &[]), Err(RecordError::Order));
}

#[test]
fn only_a_clear_payload_may_be_elsewhere() {
    let seal = |protection| {
        let mut out = Vec::new();
        let payload = Payload::Elsewhere(16);
        sealer(protection).seal(&write(), RequestId(5), RequestId(3), payload, &mut out).map(|tag| (tag, out))
    };
    for protection in BOTH {
        assert_eq!(seal(protection), Err(RecordError::ReadOnly));
    }
    let (tag, out) = seal(Protection::Clear).unwrap();
    let whole = record(&mut sealer(Protection::Clear), &write(), PAYLOAD);
    assert_eq!((tag, [&out, PAYLOAD].concat()), (None, whole));
}

fn key() -> ResumeKey {
    ResumeKey { file_id: OpenId(1), time_stamp_us: 2, process_id: 3, generation: 4, secret: [0xa5; 16] }
}

fn resume() -> ClientControl {
    Resume { key: key(), predecessor: Some(HandleId(1)), with_key: true }.into()
}

#[test]
fn a_control_body_is_wiped_once_it_is_decoded() {
    let bytes = record(&mut sealer(Protection::Sealed), &resume(), &[]);
    let head_bytes = bytes[..40].try_into().unwrap();
    let mut opener = opener::<ClientControl>(Protection::Sealed);
    let head = opener.read_head(head_bytes).unwrap();
    let mut body = bytes[40..].to_vec();
    let incoming = opener.open_body(&head, head_bytes, &mut body).unwrap();
    assert_eq!(incoming, Incoming::Message(resume()));
    assert!(body.iter().all(|&byte| byte == 0));
}

#[test]
fn secrets_fit_into_the_room_that_is_made_first() {
    let state = FileState {
        mode: OpenMode::READ_WRITE,
        rights: OpenMode::READ_WRITE.rights,
        attributes: Attributes::default(),
    };
    let opened = Opened { handle: HandleId(1), state, key: Some(key()), meanwhile: None, durable: false };
    let started = Started {
        locator: Locator([1; 16]),
        secret: BindSecret([2; 32]),
        requests: 1,
        bytes: 1,
        payload_max: 1,
        suites: crate::model::SuiteSet::ALWAYS,
        epoch: crate::model::Epoch(1),
        verifier: crate::model::Verifier {
            store: crate::model::StoreId([1; 16]),
            boot: crate::model::BootId([1; 16]),
            takeovers: 0,
        },
    };
    let welcome = Welcome {
        offer: SessionOffer::OURS,
        choice: SessionChoice { version: 1, session: SessionId([1; 16]) },
        answer: WelcomeAnswer::Started(started),
    };
    let from_server: [ServerControl; 2] = [opened.into(), welcome.into()];
    let mut lens: Vec<usize> = (from_server.iter())
        .map(|message| record(&mut sealer(Protection::Sealed), message, &[]).len())
        .collect();
    lens.push(record(&mut sealer(Protection::Sealed), &resume(), &[]).len());
    assert!(lens.iter().all(|&len| len <= ROOM), "{lens:?}");
}

#[test]
fn debug_shows_no_key_and_no_payload() {
    let sealer = sealer::<ClientData>(Protection::Sealed);
    assert_eq!(format!("{sealer:?}"), "Sealer(Direction(7, sealed, chacha20-poly1305, ..), next 0)");
    let opener = opener::<ClientData>(Protection::Signed);
    assert_eq!(
        format!("{opener:?}"),
        "Opener(Direction(7, signed, chacha20-poly1305, ..), next 0, expects Record)"
    );
    assert_eq!(format!("{:?}", Payload::Readable(PAYLOAD)), "Payload(16 bytes)");
    assert!(
        !format!("{:?}", Incoming::Message(resume())).contains("165"),
        "a byte of the secret, in decimal"
    );
}
