//! T1 to T4 at the record layer: each kind of message, with and without payload, on every kind of channel in every
//! protection and suite that there is.

use bowline::model::{ChannelKind, Entropy as _, Limits, Protection};
use bowline::net::{ReadError, Received};
use bowline::secure::RecordError;
use bowline::wire::data::Rekey;
use bowline::wire::{ClientControl, ClientData, ServerControl, ServerData};

use super::link::{Borders, Link, Reader, Spec, Stream, each_mode};
use super::samples;
use super::seed::Seed;

/// Lengths of payload at which ciphers and their tags have borders.
const PAYLOADS: [usize; 5] = [0, 1, 16, 255, 256];
/// More than any changed length makes a reader wait for.
const FOLLOWING: usize = 128 << 10;
static ZEROS: [u8; FOLLOWING] = [0; FOLLOWING];

/// A message of a stream and the payload that it bears.
type Sample<M> = (&'static str, M, Vec<u8>);

/// A stream with samples of all its messages.
trait Sampled: Stream + Clone + PartialEq + core::fmt::Debug {
    fn samples() -> Vec<(&'static str, Self)>;
    /// Whether the protocol gives a payload to messages of this kind.
    fn has_payload(&self) -> bool;
}

impl Sampled for ClientControl {
    fn samples() -> Vec<(&'static str, Self)> {
        samples::client_control()
    }
    fn has_payload(&self) -> bool {
        matches!(self, Self::XattrSet(_))
    }
}

impl Sampled for ServerControl {
    fn samples() -> Vec<(&'static str, Self)> {
        samples::server_control()
    }
    fn has_payload(&self) -> bool {
        matches!(self, Self::Listed(_) | Self::XattrValue(_) | Self::XattrNames(_))
    }
}

impl Sampled for ClientData {
    fn samples() -> Vec<(&'static str, Self)> {
        samples::client_data()
    }
    fn has_payload(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Append(_))
    }
}

impl Sampled for ServerData {
    fn samples() -> Vec<(&'static str, Self)> {
        samples::server_data()
    }
    fn has_payload(&self) -> bool {
        matches!(self, Self::ReadDone(_))
    }
}

/// Each message of a stream, with each length of payload that it may have. New keys are no message of a reader: they
/// have tests of their own below.
fn each_sample<M: Sampled>() -> Vec<Sample<M>> {
    let mut all = Vec::new();
    for (name, message) in M::samples().into_iter().filter(|(_, message)| message.kind() != Rekey::KIND) {
        let lens = if message.has_payload() { &PAYLOADS[..] } else { &[0] };
        all.extend(lens.iter().map(|&len| (name, message.clone(), payload(len))));
    }
    all
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// As many records as that, each kind in its turn.
fn cycle<M: Sampled>(count: usize) -> Vec<(M, Vec<u8>)> {
    let samples = each_sample::<M>();
    let cycled = samples.iter().cycle().map(|(_, message, payload)| (message.clone(), payload.clone()));
    cycled.take(count).collect()
}

fn accepted<M: Sampled>(received: &Received<M>, (message, payload): (&M, &[u8])) -> bool {
    received.message.as_ref() == Ok(message) && received.payload.as_deref().unwrap_or_default() == payload
}

/// The next record is refused by the record layer, and so is everything behind it, right or wrong.
fn assert_refused<M: Sampled>(reader: &mut Reader<'_, M>, what: impl Fn() -> String) -> RecordError {
    let error = match reader.next() {
        Err(ReadError::Record(error)) => error,
        Err(other) => panic!("{}: not judged: {other}", what()),
        Ok(received) => panic!("{}: accepted as {:?}", what(), received.message),
    };
    for _ in 0..3 {
        assert!(reader.next().is_err(), "{}: something was accepted after the refusal", what());
    }
    error
}

/// T1. Every bit of the sample's record is flipped, and the record is followed by others that are right. On a clear
/// channel the payload is the stated exception: a flip in it is not noticed, and is all that is different.
fn flip_every_bit<M: Sampled>(link: &Link, name: &str, (message, payload): (&M, &[u8])) -> u64 {
    let frames = link.frames([(message.clone(), payload.to_vec()), (message.clone(), payload.to_vec())]);
    let (frame, next) = (&frames[0], &frames[1]);
    let mut untouched = link.reader::<M>(&[frame, next]);
    assert!(accepted(&untouched.next().unwrap(), (message, payload)), "{name}");
    assert!(accepted(&untouched.next().unwrap(), (message, payload)), "{name}");
    let following = next.repeat(FOLLOWING / next.len());
    let borders = Borders::of(frame);
    let is_clear = link.spec.protection == Protection::Clear;
    // Head and body have been flipped with the least payload already.
    let begin = if payload.len() > 1 { borders.tag_h } else { 0 };
    for bit in begin * 8..frame.len() * 8 {
        let mut changed = frame.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut reader = link.reader::<M>(&[&changed, &following]);
        let what = || format!("{name}, {} bytes of payload, bit {bit}, {:?}", payload.len(), link.spec);
        if is_clear && (borders.tag_h..borders.payload).contains(&(bit / 8)) {
            let received = reader.next().unwrap_or_else(|error| panic!("{}: {error}", what()));
            let flipped = &changed[borders.tag_h..borders.payload];
            assert!(accepted(&received, (message, flipped)), "{}", what());
            assert!(accepted(&reader.next().unwrap(), (message, payload)), "{}: it goes on", what());
            continue;
        }
        let error = assert_refused(&mut reader, what);
        // Behind a clear payload is its trailer, a record of its own.
        let is_payload = !is_clear && bit / 8 >= borders.tag_h;
        assert_eq!(error == RecordError::Payload, is_payload, "{}: {error}", what());
    }
    u64::try_from(frame.len() - begin).unwrap() * 8
}

fn flip_all<M: Sampled>(modes: &[Spec]) -> u64 {
    let mut flips = 0;
    for &mode in modes {
        let link = Link::new(mode).unwrap();
        // The records of a session's first channel are those of a bound control channel, under other keys: a few show it.
        let count = if mode.number == 0 { 6 } else { usize::MAX };
        for (name, message, payload) in each_sample::<M>().into_iter().take(count) {
            flips += flip_every_bit(&link, name, (&message, &payload));
        }
    }
    flips
}

#[test]
fn t01_no_flipped_bit_of_a_client_s_control_record_is_accepted() {
    println!("{} flips", flip_all::<ClientControl>(&each_mode(ChannelKind::Control)));
}

#[test]
fn t01_no_flipped_bit_of_a_server_s_control_record_is_accepted() {
    println!("{} flips", flip_all::<ServerControl>(&each_mode(ChannelKind::Control)));
}

#[test]
fn t01_no_flipped_bit_of_a_client_s_data_record_is_accepted_but_in_clear_payload() {
    println!("{} flips", flip_all::<ClientData>(&each_mode(ChannelKind::Data)));
}

#[test]
fn t01_no_flipped_bit_of_a_server_s_data_record_is_accepted_but_in_clear_payload() {
    println!("{} flips", flip_all::<ServerData>(&each_mode(ChannelKind::Data)));
}

/// A record cut at any byte is no record, whatever was before it.
fn cut_everywhere<M: Sampled>(modes: &[Spec]) {
    for &mode in modes {
        let link = Link::new(mode).unwrap();
        for (name, message, payload) in each_sample::<M>() {
            let frames =
                link.frames([(message.clone(), payload.clone()), (message.clone(), payload.clone())]);
            // A payload's own bytes are all alike: its borders are enough.
            let borders = Borders::of(&frames[1]);
            let lens = (0..=borders.tag_h).chain([borders.tag_h + 1, borders.payload.saturating_sub(1)]);
            for len in lens.chain(borders.payload..frames[1].len()).filter(|&len| len < frames[1].len()) {
                let mut reader = link.reader::<M>(&[&frames[0], &frames[1][..len]]);
                assert!(accepted(&reader.next().unwrap(), (&message, &payload)), "{name}");
                match reader.next() {
                    Err(ReadError::Ended) => assert_eq!(len, 0, "{name}: the end inside a record is no end"),
                    Err(ReadError::Broken(_)) => assert_ne!(len, 0, "{name}"),
                    other => panic!("{name}, cut to {len}: {:?}", other.map(|received| received.message)),
                }
            }
        }
    }
}

#[test]
fn t01_t05_no_record_that_was_cut_is_accepted() {
    let (control, data) = (each_mode(ChannelKind::Control), each_mode(ChannelKind::Data));
    cut_everywhere::<ClientControl>(&control[1..]);
    cut_everywhere::<ServerControl>(&control[1..]);
    cut_everywhere::<ClientData>(&data);
    cut_everywhere::<ServerData>(&data);
}

/// T2. Random bytes; random bytes behind a head that names the right channel and number; records of this channel, as
/// they were or with the next number written into them; records of another session with the right number.
fn inject<M: Sampled>(mode: Spec, seed: u64, count: usize) {
    let link = Link::new(mode).unwrap();
    let other = link.other(|spec| spec.session = 2);
    // Eight at a time, so that all messages have their turn and none is far from the beginning.
    let all = cycle::<M>(each_sample::<M>().len().next_multiple_of(8));
    let eights = all.chunks(8).map(|eight| (link.frames(eight.to_vec()), other.frames(eight.to_vec())));
    let eights: Vec<_> = eights.collect();
    assert!(count >= 8 * eights.len(), "each eight has its turn with each kind of injection, twice");
    let mut random = Seed::new(seed, 30);
    for at in 0..count {
        let (own, foreign) = &eights[at / 4 % eights.len()];
        let place = usize::try_from(random.below(8)).unwrap();
        let mut frame = vec![0; usize::try_from(1 + random.below(400)).unwrap()];
        random.fill(&mut frame).unwrap();
        match at % 4 {
            0 => {}
            1 => {
                frame.resize(frame.len().max(Limits::HEAD_LEN), 0);
                frame[..Limits::HEAD_LEN].copy_from_slice(&own[place][..Limits::HEAD_LEN]);
            }
            2 => {
                let copied = usize::try_from(random.below(8)).unwrap();
                frame = own[copied].clone();
                if copied == place {
                    frame = own[(copied + 1) % 8].clone();
                }
                if random.chance(50) {
                    frame[24..32].copy_from_slice(&u64::try_from(place).unwrap().to_le_bytes());
                }
            }
            _ => frame = foreign[place].clone(),
        }
        let before = own[..place].concat();
        let own_again = own.concat();
        let mut reader = link.reader::<M>(&[&before, &frame, &own_again, &ZEROS]);
        (0..place).for_each(|_| drop(reader.next().unwrap()));
        assert_refused(&mut reader, || format!("injection {at} of seed {seed}, {mode:?}"));
    }
}

#[test]
fn t02_none_of_10_000_injected_records_is_accepted() {
    let (control, data) = (each_mode(ChannelKind::Control), each_mode(ChannelKind::Data));
    let each = 10_000_usize.div_ceil(2 * (control.len() + data.len()));
    for &mode in &control {
        inject::<ClientControl>(mode, 1, each);
        inject::<ServerControl>(mode, 2, each);
    }
    for &mode in &data {
        inject::<ClientData>(mode, 3, each);
        inject::<ServerData>(mode, 4, each);
    }
}

/// T3. Each of `count` records is replayed at five later points, changes places with its neighbour, and is left out.
fn reorder<M: Sampled>(mode: Spec, count: usize) {
    let link = Link::new(mode).unwrap();
    let frames = link.frames(cycle::<M>(count));
    let after = |good: usize, then: &[&[u8]], what: &str| {
        let before = frames[..good].concat();
        let rest = frames[good..].concat();
        let mut parts = vec![before.as_slice()];
        parts.extend(then);
        parts.push(&rest);
        let mut reader = link.reader::<M>(&parts);
        (0..good).for_each(|_| drop(reader.next().unwrap()));
        let error = assert_refused(&mut reader, || format!("{what} behind {good} records, {mode:?}"));
        assert!(matches!(error, RecordError::Sequence { .. }), "{what}: {error}");
    };
    for at in 0..count {
        for later in [1, 2, 3, 10, 50] {
            if at + later <= count {
                after(at + later, &[&frames[at]], "a replay");
            }
        }
        if at + 1 < count {
            after(at, &[&frames[at + 1], &frames[at]], "a swap");
            after(at, &[&frames[at + 1]], "a gap");
        }
    }
}

#[test]
fn t03_none_of_1_000_records_is_accepted_again_too_early_or_too_late() {
    let modes = each_mode(ChannelKind::Data);
    let (first, rest) = modes.split_first().unwrap();
    reorder::<ClientData>(*first, 1000);
    for &mode in rest {
        reorder::<ClientData>(mode, 40);
    }
    for &mode in &modes {
        reorder::<ServerData>(mode, 40);
    }
}

#[test]
fn t03_no_control_record_is_accepted_again_too_early_or_too_late() {
    for mode in each_mode(ChannelKind::Control) {
        reorder::<ClientControl>(mode, 80);
        reorder::<ServerControl>(mode, 80);
    }
}

/// How often each splice is tried with each kind of message, each time with another number of right records before it.
const SPLICES: usize = 50;

/// T4. Records of a channel that differs from this one in one thing, with the number that is expected here.
fn splice<M: Sampled>(mode: Spec) {
    let link = Link::new(mode).unwrap();
    let mut others = vec![
        ("another attempt at the same channel", link.other(|spec| spec.attempt = 2)),
        ("another session", link.other(|spec| spec.session = 2)),
    ];
    if mode.number != 0 {
        others.push(("another channel", link.other(|spec| spec.number = 4)));
    }
    if mode.kind == ChannelKind::Control {
        let number = if mode.number == 0 { 3 } else { 0 };
        others.push(("the other handshake's channel", link.other(|spec| spec.number = number)));
    }
    for (name, message, payload) in each_sample::<M>() {
        let records = || (0..SPLICES).map(|_| (message.clone(), payload.clone()));
        let own = link.frames(records());
        for (what, other) in &others {
            let foreign = other.frames(records());
            for (place, frame) in foreign.iter().enumerate() {
                refuse_at::<M>(&link, &own, place, frame, || format!("{name} of {what}"));
                // With this channel's number in it as well, which nothing keeps an attacker from writing there.
                let mut adapted = frame.clone();
                adapted[12..16].copy_from_slice(&mode.number.to_le_bytes());
                if adapted != *frame {
                    refuse_at::<M>(&link, &own, place, &adapted, || format!("{name} of {what}, adapted"));
                }
            }
        }
    }
}

/// T4. What one end has sent comes back to it.
fn reflect<M: Sampled, B: Sampled>(mode: Spec) {
    let link = Link::new(mode).unwrap();
    for (name, message, payload) in each_sample::<M>() {
        let sent = link.frames((0..SPLICES).map(|_| (message.clone(), payload.clone())));
        let own = link.frames(cycle::<B>(SPLICES));
        for (place, frame) in sent.iter().enumerate() {
            refuse_at::<B>(&link, &own, place, frame, || format!("{name}, reflected"));
        }
    }
}

fn refuse_at<M: Sampled>(
    link: &Link,
    own: &[Vec<u8>],
    place: usize,
    foreign: &[u8],
    what: impl Fn() -> String,
) {
    let (before, rest) = (own[..place].concat(), own[place..].concat());
    let mut reader = link.reader::<M>(&[&before, foreign, &rest]);
    (0..place).for_each(|_| drop(reader.next().unwrap()));
    assert_refused(&mut reader, || format!("{} behind {place} records, {:?}", what(), link.spec));
}

#[test]
fn t04_no_control_record_of_another_channel_session_direction_or_attempt_is_accepted() {
    for mode in each_mode(ChannelKind::Control) {
        splice::<ClientControl>(mode);
        splice::<ServerControl>(mode);
        reflect::<ClientControl, ServerControl>(mode);
        reflect::<ServerControl, ClientControl>(mode);
    }
}

#[test]
fn t04_no_data_record_of_another_channel_session_direction_or_attempt_is_accepted() {
    for mode in each_mode(ChannelKind::Data) {
        splice::<ClientData>(mode);
        splice::<ServerData>(mode);
        reflect::<ClientData, ServerData>(mode);
        reflect::<ServerData, ClientData>(mode);
    }
}

/// Records each under keys of its own: `first`, new keys, `second`, new keys, `third`.
struct Rekeyed<M: Stream> {
    link: Link,
    messages: [(M, Vec<u8>); 3],
    frames: Vec<Vec<u8>>,
}

/// Where the first new keys are among the frames, and the record behind them.
const NEW_KEYS: usize = 1;
const BEHIND: usize = 2;

impl<M: Sampled> Rekeyed<M> {
    fn new(link: Link, second: (M, Vec<u8>)) -> Self {
        let other = || (M::samples().swap_remove(0).1, Vec::new());
        let messages = [other(), second, other()];
        let frames = link.rekeyed(messages.clone());
        assert_eq!(frames.len(), 5);
        Self { link, messages, frames }
    }

    /// So many messages come out of these frames, and then nothing any more: neither from them nor from all that
    /// was really sent behind what was tampered with.
    fn refuses(&self, good: usize, parts: &[&Vec<u8>], what: &str) -> RecordError {
        let mut all: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
        all.extend(self.frames[1..].iter().map(Vec::as_slice));
        all.push(&ZEROS);
        let mut reader = self.link.reader::<M>(&all);
        for (message, payload) in &self.messages[..good] {
            assert!(accepted(&reader.next().unwrap(), (message, payload)), "{what}, {:?}", self.link.spec);
        }
        assert_refused(&mut reader, || format!("{what}, {:?}", self.link.spec))
    }

    fn flip(&self) {
        let [first, new_keys, behind, ..] = &self.frames[..] else { panic!("five of them") };
        // They are the same whatever follows: once is enough.
        let bits = if self.messages[1].1.is_empty() { 0 } else { new_keys.len() * 8 };
        for bit in 0..bits {
            let mut changed = new_keys.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            self.refuses(1, &[first, &changed, behind], &format!("bit {bit} of the new keys"));
        }
        let borders = Borders::of(behind);
        let is_clear = self.link.spec.protection == Protection::Clear;
        for bit in 0..behind.len() * 8 {
            if is_clear && (borders.tag_h..borders.payload).contains(&(bit / 8)) {
                continue;
            }
            let mut changed = behind.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            self.refuses(1, &[first, new_keys, &changed], &format!("bit {bit} behind the new keys"));
        }
    }

    fn reorder(&self) {
        let [first, new_keys, behind, new_again, third] = &self.frames[..] else { panic!("five of them") };
        let cases: [(usize, &[&Vec<u8>], &str); 9] = [
            (1, &[first, behind], "new keys left out"),
            (1, &[first, new_keys, new_keys, behind], "new keys twice"),
            (1, &[first, behind, new_keys], "new keys and the next record change places"),
            (0, &[new_keys, first, behind], "new keys before the last record of the old ones"),
            (1, &[first, new_keys, new_again, third], "the record behind new keys left out"),
            (2, &[first, new_keys, behind, behind], "the record behind new keys twice"),
            (
                1,
                &[first, new_keys, new_again, behind],
                "the record behind new keys moved behind the next ones",
            ),
            (
                2,
                &[first, new_keys, behind, new_keys, third],
                "new keys replayed in the place of the next ones",
            ),
            (2, &[first, new_keys, behind, third], "the second new keys left out"),
        ];
        for (good, parts, what) in cases {
            let error = self.refuses(good, parts, what);
            assert!(matches!(error, RecordError::Sequence { .. }), "{what}: {error}");
        }
    }

    /// The new keys and the record behind them, as another channel has them in the same places.
    fn splice(&self) {
        let [first, new_keys, ..] = &self.frames[..] else { panic!("five of them") };
        let mut changes: Vec<fn(&mut Spec)> = vec![|spec| spec.attempt = 2, |spec| spec.session = 2];
        if self.link.spec.number != 0 {
            changes.push(|spec| spec.number = 4);
        }
        for change in changes {
            let other = self.link.other(change);
            let what = format!("of {:?}", other.spec);
            for adapt in [false, true] {
                let mut foreign = other.rekeyed(self.messages.clone());
                if adapt {
                    let number = self.link.spec.number.to_le_bytes();
                    foreign.iter_mut().for_each(|frame| frame[12..16].copy_from_slice(&number));
                }
                let (keys, behind) = (&foreign[NEW_KEYS], &foreign[BEHIND]);
                self.refuses(1, &[first, keys, behind], &format!("new keys and what is behind them {what}"));
                self.refuses(1, &[first, keys, &self.frames[BEHIND]], &format!("new keys {what}"));
                self.refuses(1, &[first, new_keys, behind], &format!("the record behind new keys {what}"));
            }
        }
        // The right number and channel, under the keys that were replaced.
        let [one, two, three] = self.messages.clone();
        let old = self.link.frames([one, three, two]);
        let error =
            self.refuses(1, &[first, new_keys, &old[2]], "a record of the old keys behind the new ones");
        assert_eq!(error, RecordError::Body);
    }
}

/// New keys, and the record behind them, with and without payload, in every mode. `B` is what goes the other way.
fn tamper_with_new_keys<M: Sampled, B: Sampled>(modes: &[Spec]) {
    for &mode in modes {
        let with_payload = M::samples().into_iter().find(|(_, message)| message.has_payload()).unwrap();
        for second in [(with_payload.1, payload(33)), (M::samples().swap_remove(0).1, Vec::new())] {
            let rekeyed = Rekeyed::new(Link::new(mode).unwrap(), second);
            let sent = rekeyed.frames.concat();
            let mut untouched = rekeyed.link.reader::<M>(&[&sent]);
            for (message, payload) in &rekeyed.messages {
                assert!(accepted(&untouched.next().unwrap(), (message, payload)), "{mode:?}");
            }
            rekeyed.flip();
            rekeyed.reorder();
            rekeyed.splice();
            let other = || (B::samples().swap_remove(0).1, Vec::new());
            let reflected = rekeyed.link.rekeyed([other(), other()]);
            rekeyed.refuses(
                1,
                &[&rekeyed.frames[0], &reflected[NEW_KEYS]],
                "new keys of the other direction",
            );
        }
    }
}

#[test]
fn t01_t03_t04_t29_no_tampered_new_keys_are_accepted_on_a_control_channel() {
    let modes = each_mode(ChannelKind::Control);
    tamper_with_new_keys::<ClientControl, ServerControl>(&modes);
    tamper_with_new_keys::<ServerControl, ClientControl>(&modes);
}

#[test]
fn t01_t03_t04_t29_no_tampered_new_keys_are_accepted_on_a_data_channel() {
    let modes = each_mode(ChannelKind::Data);
    tamper_with_new_keys::<ClientData, ServerData>(&modes);
    tamper_with_new_keys::<ServerData, ClientData>(&modes);
}

/// What protocol.md says of clear channels, at the record layer: a flip in the payload reaches the receiver, and every
/// other one ends the channel.
#[test]
fn f19_of_a_clear_record_only_the_payload_can_be_changed() {
    let modes = each_mode(ChannelKind::Data);
    for &mode in modes.iter().filter(|mode| mode.protection == Protection::Clear) {
        let link = Link::new(mode).unwrap();
        for len in [1, 256] {
            let write = samples::client_data().into_iter().find(|(name, _)| *name == "Write").unwrap();
            flip_every_bit(&link, write.0, (&write.1, &payload(len)));
            let done = samples::server_data().into_iter().find(|(name, _)| *name == "ReadDone").unwrap();
            flip_every_bit(&link, done.0, (&done.1, &payload(len)));
        }
    }
    // Control channels are never clear, whoever asks.
    assert!(each_mode(ChannelKind::Control).iter().all(|mode| mode.protection == Protection::Sealed));
}
