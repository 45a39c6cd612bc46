//! No key and number come together twice: every cipher of a test notes what it was used for, and channels are bound,
//! tried again, used and rekeyed in every order.

use core::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Key, RecordCipher, Tag};
use crate::model::{
    AttemptNonce, ChannelKind, ChannelNumber, HandleId, Locator, Protection, PublicKey, RequestId, SessionId,
    Suite,
};
use crate::secure::noise::testing::Seeded;
use crate::secure::record::RecordError;
use crate::secure::{
    BindInitiator, BindResponder, Identity, Payload, RecordKeys, Sealer, SessionInitiator, SessionResponder,
};
use crate::wire::control::BindSecret;
use crate::wire::data::{Read, ReadDone};
use crate::wire::hello::{BindChoice, BindOffer, Hello, PROTOCOL_VERSION, SessionChoice, SessionOffer};
use crate::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};

/// Suite, key and number of everything that was sealed; `Err`: what came twice.
type Used = Result<BTreeSet<(Suite, Key, u64)>, (Suite, u64)>;

thread_local! {
    /// What this thread has sealed since it was looked at last.
    static USED: RefCell<Used> = const { RefCell::new(Ok(BTreeSet::new())) };
}

/// A cipher that notes what it is used for.
pub(super) struct Noted {
    pub(super) suite: Suite,
    pub(super) key: Key,
    pub(super) cipher: Box<dyn RecordCipher>,
}

impl RecordCipher for Noted {
    fn seal(&self, number: u64, associated: &[u8], text: &mut [u8]) -> Result<Tag, RecordError> {
        USED.with_borrow_mut(|used| {
            let is_new = used.as_mut().is_ok_and(|used| used.insert((self.suite, self.key, number)));
            if !is_new && used.is_ok() {
                *used = Err((self.suite, number));
            }
        });
        self.cipher.seal(number, associated, text)
    }

    fn open(&self, number: u64, associated: &[u8], text: &mut [u8], tag: &Tag) -> bool {
        self.cipher.open(number, associated, text, tag)
    }
}

/// What was sealed since this was asked last: how often, or what came twice.
fn take_uses() -> Result<usize, (Suite, u64)> {
    USED.replace(Ok(BTreeSet::new())).map(|used| used.len())
}

/// One step of a session's life.
#[derive(Debug, Clone)]
enum Step {
    /// A new session handshake: the session is lost, and another one begins.
    Begin,
    /// Bind this channel, again if it was bound, as often as said: only the last attempt is used.
    Bind { channel: usize, attempts: u8, suite: Suite, protection: Protection },
    /// The client sends, on this channel.
    Ask(usize),
    /// The server sends, on this channel.
    Answer(usize),
    /// The client replaces its keys.
    RekeyClient(usize),
    /// The server replaces its keys.
    RekeyServer(usize),
}

const CHANNELS: usize = 8;

fn step() -> impl Strategy<Value = Step> {
    let suites = super::suites().iter().collect::<Vec<_>>();
    let bind = (0..CHANNELS, 1_u8..4, 0..suites.len(), 0..Protection::EACH.len());
    let bind = bind.prop_map(move |(channel, attempts, suite, protection)| Step::Bind {
        channel,
        attempts,
        suite: suites[suite],
        protection: Protection::EACH[protection],
    });
    prop_oneof![
        1 => Just(Step::Begin),
        4 => bind,
        8 => (0..CHANNELS).prop_map(Step::Ask),
        8 => (0..CHANNELS).prop_map(Step::Answer),
        3 => (0..CHANNELS).prop_map(Step::RekeyClient),
        3 => (0..CHANNELS).prop_map(Step::RekeyServer),
    ]
}

/// Both ends' sealers of a channel.
struct Channel {
    client: Sealer<ClientData>,
    server: Sealer<ServerData>,
}

/// Two ends that bind and send as they are told.
struct Ends {
    client: Identity,
    server: Identity,
    entropy: Seeded,
    sessions: u8,
    secret: BindSecret,
    session: SessionId,
    channels: [Option<Channel>; CHANNELS],
    next_number: u32,
    attempts: u64,
}

impl Ends {
    fn new(seed: u64) -> Self {
        let mut entropy = Seeded::new(seed);
        let client = Identity::generate(&mut entropy).unwrap();
        let server = Identity::generate(&mut entropy).unwrap();
        let mut ends = Self {
            client,
            server,
            entropy,
            sessions: 0,
            secret: BindSecret([0; 32]),
            session: SessionId([0; 16]),
            channels: [const { None }; CHANNELS],
            next_number: 1,
            attempts: 0,
        };
        ends.begin();
        ends
    }

    fn begin(&mut self) {
        self.sessions += 1;
        self.session = SessionId([self.sessions; 16]);
        self.secret = BindSecret([self.sessions; 32]);
        self.channels = [const { None }; CHANNELS];
        self.next_number = 1;
        let (initiator, hello) = SessionInitiator::begin(
            &self.client,
            &self.server.public(),
            SessionOffer::OURS,
            &mut self.entropy,
        )
        .unwrap();
        let hello = Hello::decode(&hello).unwrap();
        let responder = SessionResponder::read(&self.server, &hello, &mut self.entropy).unwrap();
        let choice = SessionChoice { version: PROTOCOL_VERSION, session: self.session };
        let (message, server) = responder.finish(choice).unwrap();
        let (_, client) = initiator.finish(&message[2..]).unwrap();
        // The control channel seals as well.
        let control = (ChannelNumber(0), Protection::Sealed);
        let mut up = Sealer::<ClientControl>::new(client.send, control.0, control.1).unwrap();
        let mut down = Sealer::<ServerControl>::new(server.send, control.0, control.1).unwrap();
        for _ in 0..3 {
            send(&mut up, &crate::wire::data::Ping {}.into());
            send(&mut down, &crate::wire::data::Ping {}.into());
        }
    }

    fn bind(&mut self, (suite, protection): (Suite, Protection)) -> (ChannelNumber, RecordKeys, RecordKeys) {
        let number = ChannelNumber(self.next_number);
        self.attempts += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.attempts.to_le_bytes());
        let (locator, kind, nonce) = (Locator([1; 16]), ChannelKind::Data, AttemptNonce(nonce));
        let offer = BindOffer { locator, number, nonce, kind, protection, suite };
        let server: PublicKey = self.server.public();
        let (initiator, hello) =
            BindInitiator::begin(&self.client, &server, &self.secret, self.session, offer, &mut self.entropy)
                .unwrap();
        let hello = Hello::decode(&hello).unwrap();
        let client = self.client.public();
        let responder =
            BindResponder::read(&self.server, &client, &self.secret, self.session, &hello, &mut self.entropy)
                .unwrap();
        let (message, server) = responder.finish(BindChoice { protection, suite }).unwrap();
        let (_, client) = initiator.finish(&message[2..]).unwrap();
        (number, client, server)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin => self.begin(),
            Step::Bind { channel, attempts, suite, protection } => {
                for _ in 0..attempts {
                    let (number, client, server) = self.bind((suite, protection));
                    // An attempt that failed later has sent its first record too.
                    let mut client = Sealer::new(client.send, number, protection).unwrap();
                    let mut server = Sealer::new(server.send, number, protection).unwrap();
                    send(&mut client, &ask());
                    send(&mut server, &ReadDone {}.into());
                    self.channels[channel] = Some(Channel { client, server });
                }
                self.next_number += 1;
            }
            Step::Ask(at) => self.on(at, |channel| send(&mut channel.client, &ask())),
            Step::Answer(at) => self.on(at, |channel| send(&mut channel.server, &ReadDone {}.into())),
            Step::RekeyClient(at) => self.on(at, |channel| {
                channel.client.rekey(RequestId::FIRST, &mut Vec::new()).unwrap();
            }),
            Step::RekeyServer(at) => self.on(at, |channel| {
                channel.server.rekey(RequestId::NONE, &mut Vec::new()).unwrap();
            }),
        }
    }

    fn on(&mut self, at: usize, act: impl FnOnce(&mut Channel)) {
        if let Some(channel) = &mut self.channels[at] {
            act(channel);
        }
    }
}

fn ask() -> ClientData {
    Read { handle: HandleId(1), offset: 0, len: 1 }.into()
}

fn send<M: Message>(sealer: &mut Sealer<M>, message: &M) {
    let mut payload = *b"payload";
    let payload = Payload::Buffer(&mut payload);
    sealer.seal(message, RequestId(1), RequestId(1), payload, &mut Vec::new()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn t29_no_key_and_number_come_twice_over_attempts_rekeys_and_eight_channels(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        take_uses().ok();
        let mut ends = Ends::new(seed >> 32);
        for step in &steps {
            ends.take(step);
        }
        prop_assert!(take_uses().is_ok_and(|sealed| sealed >= 6));
    }
}

#[test]
fn a_number_that_comes_twice_under_one_key_is_noticed() {
    take_uses().ok();
    let cipher = super::cipher(Suite::ChaCha20Poly1305, &[7; 32]).unwrap();
    cipher.seal(1, &[], &mut []).unwrap();
    cipher.seal(2, &[], &mut []).unwrap();
    assert_eq!(take_uses(), Ok(2));
    cipher.seal(2, &[], &mut []).unwrap();
    cipher.seal(2, &[], &mut []).unwrap();
    assert_eq!(take_uses(), Err((Suite::ChaCha20Poly1305, 2)));
}
