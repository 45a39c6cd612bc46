//! Every message and every offer, byte by byte: as docs/protocol.md describes them, back again, and refused where
//! anything is missing, left over, too long or unknown.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;

use bowline::model::{Limits, Reason, Refusal};
use bowline::wire::control::Refused;
use bowline::wire::hello::{self, Hello, HelloError, MAC1_LEN, Offer};
use bowline::wire::{
    ClientControl, ClientData, DecodeError, Message, ServerControl, ServerData, codec, message,
};
use golden::{FIELDS, Field, GOLDEN};
use samples::{BIND_CHOICE, SESSION_CHOICE, SESSION_OFFER, Sample};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[path = "support/golden.rs"]
mod golden;
#[path = "support/samples.rs"]
mod samples;

/// The reasons of refusals by their numbers, in the words of docs/protocol.md.
const REASONS: [(Reason, &str); 32] = [
    (Reason::NotFound, "not found"),
    (Reason::PermissionDenied, "permission denied"),
    (Reason::Busy, "busy"),
    (Reason::BadHandle, "bad handle"),
    (Reason::Invalid, "invalid"),
    (Reason::IsDirectory, "is a directory"),
    (Reason::NotRegular, "not regular"),
    (Reason::Outside, "outside"),
    (Reason::NoSpace, "no space"),
    (Reason::Quota, "quota"),
    (Reason::ReadOnly, "read-only"),
    (Reason::ResumeRefused, "resume refused"),
    (Reason::Unsupported, "unsupported"),
    (Reason::Io, "input/output error"),
    (Reason::Exhausted, "exhausted"),
    (Reason::Unknown, "unknown"),
    (Reason::Exists, "exists"),
    (Reason::NotDirectory, "not a directory"),
    (Reason::NotEmpty, "not empty"),
    (Reason::Locked, "locked"),
    (Reason::Stale, "stale"),
    (Reason::TooManyLinks, "too many links"),
    (Reason::NameTooLong, "name too long"),
    (Reason::NoAttribute, "no such attribute"),
    (Reason::TooBig, "too big"),
    (Reason::Interrupted, "interrupted"),
    (Reason::AttributeTooBig, "attribute too big"),
    (Reason::AttributeNameTooLong, "attribute name too long"),
    (Reason::TakenOver, "taken over"),
    (Reason::Expired, "expired"),
    (Reason::Released, "released"),
    (Reason::Revoked, "revoked"),
];

#[test]
fn every_message_has_golden_bytes() {
    let golden: BTreeSet<_> =
        GOLDEN.iter().map(|&(stream, name, kind, _)| (stream, base(name), kind)).collect();
    let kinds: BTreeSet<_> = message::kinds().into_iter().collect();
    assert_eq!(golden, kinds, "one or more for each message of the four streams, under its kind");
}

#[test]
fn every_sample_has_its_golden_bytes() {
    let samples = samples::all();
    assert_eq!(samples.len(), GOLDEN.len());
    for Sample { stream, name, kind, body, .. } in samples {
        let (golden_kind, golden) = golden(stream, name);
        assert_eq!((kind, hex(&body)), (golden_kind, hex(&golden)), "{stream} {name}");
    }
}

#[test]
fn golden_bytes_are_the_messages_again() {
    decodes("ClientControl", samples::client_control());
    decodes("ServerControl", samples::server_control());
    decodes("ClientData", samples::client_data());
    decodes("ServerData", samples::server_data());
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused() {
    for Sample { stream, name, kind, body, decode } in samples::all() {
        assert_eq!(decode(kind, &body), Ok(()), "{stream} {name}");
        for len in 0..body.len() {
            assert_eq!(
                decode(kind, &body[..len]),
                Err(DecodeError::Malformed),
                "{stream} {name} cut to {len}"
            );
        }
    }
}

#[test]
fn a_message_with_anything_behind_it_is_refused() {
    for Sample { stream, name, kind, body, decode } in samples::all() {
        let to_limit = Limits::BODY_LEN_MAX - body.len();
        for more in [1, 2, 40, to_limit] {
            for byte in [0, 1, 0xff] {
                let longer = [&body[..], &vec![byte; more]].concat();
                assert_eq!(decode(kind, &longer), Err(DecodeError::Trailing(more)), "{stream} {name}");
            }
        }
        let longer = [&body[..], &vec![0; to_limit + 1]].concat();
        assert_eq!(decode(kind, &longer), Err(DecodeError::TooLong(longer.len())), "{stream} {name}");
    }
}

#[test]
fn unknown_variants_tags_bits_and_lying_lengths_are_refused() {
    for (stream, names, at, field) in FIELDS {
        for name in *names {
            let Sample { kind, body, decode, .. } = sample(stream, name);
            let with = |bytes: &[u8]| decode(kind, &replaced(&body, *at, bytes));
            let says = |value: u64| format!("{stream} {name}: {value:#x} at {at}");
            for value in refused_values(*field) {
                let bytes = &value.to_le_bytes()[..width(*field)];
                // A shorter text at the end leaves bytes over.
                let is_refused =
                    matches!(with(bytes), Err(DecodeError::Malformed | DecodeError::Trailing(_)));
                assert!(is_refused, "{}", says(value));
            }
            for value in accepted_values(*field) {
                let bytes = &value.to_le_bytes()[..width(*field)];
                assert_eq!(with(bytes), Ok(()), "{}", says(value));
            }
        }
    }
}

#[test]
fn every_byte_that_can_be_wrong_is_in_the_table_of_fields() {
    for Sample { stream, name, kind, body, decode } in samples::all() {
        let ranges: Vec<_> = FIELDS
            .iter()
            .filter(|(of, names, ..)| *of == stream && names.contains(&name))
            .map(|&(_, _, at, field)| {
                let content = if let Field::Text(len) = field { len } else { 0 };
                at..at + width(field) + content
            })
            .collect();
        for at in (0..body.len()).filter(|at| !ranges.iter().any(|range| range.contains(at))) {
            for value in 0..=u8::MAX {
                assert_eq!(
                    decode(kind, &replaced(&body, at, &[value])),
                    Ok(()),
                    "{stream} {name}: byte {at}"
                );
            }
        }
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let long = |len: usize| b"a/".repeat(len / 2).into_iter().chain(vec![b'b'; len % 2]).collect::<Vec<_>>();
    for export in [&b"m"[..], b"A-1_b.c", &[b'x'; 64]] {
        assert_eq!(open(export, b"f"), Ok(()), "{export:?}");
    }
    for export in [&b""[..], b".", b"..", b".m", b"a/b", b"a b", b"a\0", b"\xff", "ä".as_bytes(), &[b'x'; 65]]
    {
        assert_eq!(open(export, b"f"), Err(DecodeError::Malformed), "{export:?}");
    }
    for path in [&b""[..], b"f", b"a/b", b"...", b"a\n\xff", &[b'x'; 255], &long(4095)] {
        assert_eq!(open(b"m", path), Ok(()), "{path:?}");
    }
    for path in
        [&b"."[..], b"..", b"/", b"/f", b"f/", b"a//b", b"a/../b", b"./f", b"a\0b", &[b'x'; 256], &long(4097)]
    {
        assert_eq!(open(b"m", path), Err(DecodeError::Malformed), "{path:?}");
    }
}

/// A key with the highest bit set would be a second name of somebody, and one of low order is nobody's.
#[test]
fn keys_that_no_handshake_can_prove_are_refused() {
    let to = |key: &[u8]| {
        let body = [&[1; 8][..], key, &[5], &[0; 8], &[0, 0]].concat();
        ClientControl::decode_body(0x1c, &body).map(drop)
    };
    assert_eq!(to(&[9; 32]), Ok(()));
    let near_prime = |first: u8| [&[first][..], &[0xff; 30], &[0x7f]].concat();
    let one = [&[1][..], &[0; 31]].concat();
    let of_order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800 \
                      5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157";
    let weak = [vec![0; 32], one, near_prime(0xec), near_prime(0xed), near_prime(0xee)];
    for key in weak.iter().map(Vec::as_slice).chain(bytes_of(of_order_8).chunks(32)) {
        assert_eq!(to(key), Err(DecodeError::Malformed), "{}", hex(key));
    }
    for last in 0x80..=u8::MAX {
        assert_eq!(to(&[&[9; 31][..], &[last]].concat()), Err(DecodeError::Malformed));
    }
}

#[test]
fn every_reason_has_its_number_and_its_word() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    let row = document.lines().find_map(|line| line.strip_prefix("| reasons | ")).expect("a row of reasons");
    let words: Vec<&str> = row.trim_end_matches(" |").split(", ").collect();
    assert_eq!(words.len(), REASONS.len());
    for (number, ((reason, word), documented)) in (0_u32..).zip(REASONS.into_iter().zip(words)) {
        assert_eq!(documented, format!("{number} {word}"));
        let refused = Refused { refusal: Refusal { reason, retry_after_ms: 0x0102 } };
        let bytes = [&number.to_le_bytes()[..], &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
        let control = ServerControl::from(refused.clone());
        assert_eq!(samples::body(&control), bytes, "{reason:?}");
        assert_eq!(ServerControl::decode_body(0x9f, &bytes), Ok(control));
        let data = ServerData::from(refused);
        assert_eq!(samples::body(&data), bytes, "{reason:?}");
        assert_eq!(ServerData::decode_body(0x9f, &bytes), Ok(data));
    }
}

#[test]
fn a_stream_knows_its_own_kinds_only() {
    kinds_are_its_own::<ClientControl>("ClientControl");
    kinds_are_its_own::<ServerControl>("ServerControl");
    kinds_are_its_own::<ClientData>("ClientData");
    kinds_are_its_own::<ServerData>("ServerData");
    for kind in 0..=u8::MAX {
        let is_known = message::kinds().into_iter().any(|(_, _, known)| known == kind);
        assert_eq!(message::is_known(kind), is_known, "{kind:#04x}");
    }
}

#[test]
fn offers_and_choices_have_golden_bytes() {
    // Version (2) and session id (16); protection (4) and suite (4).
    golden_value(&SESSION_OFFER, "0100 0302");
    golden_value(&SESSION_CHOICE, "0200 03x16");
    golden_value(&samples::data_offer(), "01x16 07000000 02x16 01000000 01000000 00000000");
    golden_value(&samples::control_offer(), "01x16 07000000 02x16 00000000 02000000 00000000");
    golden_value(&BIND_CHOICE, "02000000 00000000");
}

#[test]
fn first_flights_have_golden_bytes() {
    // Magic, version, pattern, length of the offer (2), offer; length of message 1 (2), message 1; mac1 (16).
    let session = "'BWLN' 01 01 0400  0100 0302  0500 'noise'  09x16";
    let bind = "'BWLN' 01 02 3000  01x16 07000000 02x16 01000000 01000000 00000000  0500 'noise'  09x16";
    for (offer, golden) in
        [(Offer::Session(SESSION_OFFER), session), (Offer::Bind(samples::data_offer()), bind)]
    {
        let golden = bytes_of(golden);
        let made = [hello::checked(&hello::prologue(&offer), b"noise"), vec![9; MAC1_LEN]].concat();
        assert_eq!(hex(&made), hex(&golden));
        let hello = Hello::decode(&golden).unwrap();
        assert_eq!((hello.offer, &hello.noise[..], hello.mac1), (offer, &b"noise"[..], [9; MAC1_LEN]));
        for len in 0..golden.len() {
            assert_eq!(Hello::decode(&golden[..len]), Err(HelloError::Length), "cut to {len}");
        }
        for more in [1, 2, 2000] {
            let longer = [&golden[..], &vec![0; more]].concat();
            assert_eq!(Hello::decode(&longer), Err(HelloError::Length), "{more} more");
        }
    }
    // The answer: the length of message 2 (2), message 2.
    assert_eq!(hello::framed(b"noise"), bytes_of("0500 'noise'"));
}

#[test]
fn a_first_flight_with_an_unknown_offer_is_refused() {
    let golden = |offer: &str| bytes_of(&format!("'BWLN' 01 02 3000 {offer} 0000 09x16"));
    let good = "01x16 07000000 02x16 01000000 01000000 00000000";
    assert!(Hello::decode(&golden(good)).is_ok());
    for bad in [
        "01x16 07000000 02x16 02000000 01000000 00000000",
        "01x16 07000000 02x16 01000000 03000000 00000000",
        "01x16 07000000 02x16 01000000 01000000 02000000",
    ] {
        assert_eq!(Hello::decode(&golden(bad)), Err(HelloError::Offer(DecodeError::Malformed)), "{bad}");
    }
    // The parts fit their lengths, and the offer does not.
    let long = bytes_of("'BWLN' 01 01 0500  0100 0100 00  0000 09x16");
    assert_eq!(Hello::decode(&long), Err(HelloError::Offer(DecodeError::Trailing(1))));
    let short = bytes_of("'BWLN' 01 01 0300  0100 01  0000 09x16");
    assert_eq!(Hello::decode(&short), Err(HelloError::Offer(DecodeError::Malformed)));
    for start in ["'BWLN' 01 01 0104", "'BWLN' 01 01 0400 0100 0100 0104"] {
        let over = [bytes_of(start), vec![0; 2000]].concat();
        assert_eq!(Hello::decode(&over), Err(HelloError::TooLong), "a part of 1,025 bytes");
    }
    assert_eq!(Limits::HELLO_LEN_MAX, 1024);
}

/// Checks that the golden bytes of each sample decode to it.
fn decodes<M: Message + PartialEq + Debug>(stream: &str, messages: Vec<(&'static str, M)>) {
    for (name, message) in messages {
        let (kind, bytes) = golden(stream, name);
        assert_eq!(M::decode_body(kind, &bytes), Ok(message), "{stream} {name}");
    }
}

/// Checks a value that is no message by itself.
fn golden_value<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, golden: &str) {
    let golden = bytes_of(golden);
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes);
    assert_eq!(hex(&bytes), hex(&golden), "{value:?}");
    assert_eq!(codec::decode::<T>(&golden).as_ref(), Ok(value));
    for len in 0..golden.len() {
        assert_eq!(codec::decode::<T>(&golden[..len]), Err(DecodeError::Malformed), "{value:?} cut to {len}");
    }
    let longer = [&golden[..], &[0]].concat();
    assert_eq!(codec::decode::<T>(&longer), Err(DecodeError::Trailing(1)), "{value:?}");
}

/// Checks that every kind byte that is not the stream's is refused by name, whatever follows it.
fn kinds_are_its_own<M: Message + PartialEq + Debug>(stream: &str) {
    let own: Vec<u8> =
        message::kinds().into_iter().filter(|(of, ..)| *of == stream).map(|(.., kind)| kind).collect();
    for kind in (0..=u8::MAX).filter(|kind| !own.contains(kind)) {
        for body in [&[][..], &[0; 8]] {
            assert_eq!(M::decode_body(kind, body), Err(DecodeError::UnknownKind(kind)), "{stream}");
        }
    }
}

/// An `Open` with these names decodes.
fn open(export: &[u8], path: &[u8]) -> Result<(), DecodeError> {
    let rest = bytes_of("03 00  00000000 00 00000000 00 01  06x16 01 3075000000000000 00");
    let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap().to_le_bytes();
    let body = [&len(export)[..], export, &len(path), path, &rest].concat();
    ClientControl::decode_body(0x10, &body).map(drop)
}

fn width(field: Field) -> usize {
    match field {
        Field::Variant(_) | Field::Carrying(_) => 4,
        Field::Tag | Field::Bits(_) => 1,
        Field::Text(_) => 8,
    }
}

fn refused_values(field: Field) -> Vec<u64> {
    match field {
        Field::Variant(count) | Field::Carrying(count) => {
            let count = u64::from(count);
            vec![count, count + 1, 0x80, 0xff, 0x100, 0x1_0000, 0x0100_0000, 0xffff_ffff]
        }
        Field::Tag => (2..=255).collect(),
        Field::Bits(known) => (0..=255).filter(|value| value & !u64::from(known) != 0).collect(),
        Field::Text(0) => vec![1 << 16, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX],
        Field::Text(_) => vec![0, 1 << 16, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX],
    }
}

fn accepted_values(field: Field) -> Vec<u64> {
    match field {
        Field::Variant(count) => (0..u64::from(count)).collect(),
        Field::Bits(known) => (0..=255).filter(|value| value & !u64::from(known) == 0).collect(),
        // What follows depends on the value.
        Field::Carrying(_) | Field::Tag => Vec::new(),
        Field::Text(len) => vec![u64::try_from(len).unwrap()],
    }
}

/// The message that a sample is of: `Begin_ask` is a form of `Begin`.
fn base(name: &str) -> &str {
    name.split('_').next().unwrap_or(name)
}

fn sample(stream: &str, name: &str) -> Sample {
    let found = samples::all().into_iter().find(|sample| sample.stream == stream && sample.name == name);
    found.unwrap_or_else(|| panic!("no sample {stream} {name}"))
}

fn golden(stream: &str, name: &str) -> (u8, Vec<u8>) {
    let found = GOLDEN.iter().find(|(of, golden, ..)| *of == stream && *golden == name);
    let (.., kind, text) = found.unwrap_or_else(|| panic!("no golden bytes for {stream} {name}"));
    (*kind, bytes_of(text))
}

fn replaced(body: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = body.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

/// The bytes that a golden text spells.
fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in text.split('\'').enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        for group in part.split_whitespace() {
            let (digits, times) = group.split_once('x').unwrap_or((group, "1"));
            let digits = data_encoding::HEXLOWER.decode(digits.as_bytes()).expect("hexadecimal digits");
            bytes.extend(digits.repeat(times.parse().expect("a count")));
        }
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
