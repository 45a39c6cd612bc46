//! Clients that know their keys and break the protocol, with raw sockets against a real server process. Each time the
//! server goes on, the offender's other channel lives if only one was at fault, and a bystander notices nothing.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use bowline::client::{ChannelState, File, OpenOptions, Session};
use bowline::model::{
    ChannelKind, ChannelNumber, Create, CreateId, ExportPath, HandleId, LineRole, OpenMode, Protection,
    Reason,
};
use bowline::wire::control::{Attach, Closed, Open, Stat};
use bowline::wire::data::{Ping, Pong, Read, ReadDone};
use bowline::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};
use support::raw::{Channel, Greeted, Odd, RawClient, RawSession, begin, head};
use support::{EXPORT, World, new_identity, pattern};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BOTH: [LineRole; 2] = [LineRole::Both; 2];
const DATA: u32 = 1;

/// A server, a bystander who uses it, and an offender.
struct Scene {
    world: World,
    bystander: Session,
    file: File,
}

/// The offender's session: a control channel, a data channel and an open file.
struct Offender {
    session: RawSession,
    data: Channel<false>,
    handle: HandleId,
}

impl Scene {
    async fn new() -> Self {
        let (identity, offender) = (new_identity(), new_identity());
        let entries = [support::Entry::all(identity.public()), support::Entry::all(offender.public())];
        let mut world = World::with_clients(&pattern(5000), identity, &entries).await;
        let bystander = world.connect(BOTH).await;
        let file = world.open(&bystander, &OpenOptions::new().read(true)).await.unwrap();
        world.identity = offender;
        Self { world, bystander, file }
    }

    fn client(&self) -> RawClient<'_> {
        let world = &self.world;
        RawClient { identity: &world.identity, server: world.server_key, address: world.addresses[0] }
    }

    async fn offender(&self) -> Offender {
        let client = self.client();
        let mut session = client.start().await;
        self.world.note_session(&session);
        let data = client.bind(&session, DATA, Protection::Signed).await;
        session.control.send(&open(), 1).await;
        let handle = match session.control.answer().await {
            (1, ServerControl::Opened(opened)) => opened.handle,
            other => panic!("{other:?}"),
        };
        Offender { session, data, handle }
    }

    /// The bystander's file is there, and none of its channels is gone.
    async fn assert_unharmed(&self) {
        let mut bytes = vec![0; 5000];
        assert_eq!(self.file.read_at(0, &mut bytes).await.unwrap(), 5000);
        assert!(bytes == pattern(5000));
        let channels = self.bystander.channels();
        let live = channels.iter().filter(|status| status.state == ChannelState::Live).count();
        assert_eq!((live, channels.len()), (4, 4), "{channels:?}");
    }
}

impl Offender {
    async fn assert_control_lives(&mut self) {
        self.session.control.send(&ClientControl::from(Stat { handle: self.handle }), 1000).await;
        let answer = self.session.control.answer().await;
        assert!(matches!(answer, (1000, ServerControl::Stated(_))), "{answer:?}");
    }

    async fn assert_data_lives(&mut self) {
        self.data.send(&ClientData::from(Read { handle: self.handle, offset: 0, len: 100 }), 1001).await;
        let answer = self.data.next().await.unwrap();
        assert_eq!((answer.request.0, answer.payload.as_deref()), (1001, Some(&pattern(5000)[..100])));
    }
}

fn open() -> ClientControl {
    Open {
        export: EXPORT.parse().unwrap(),
        path: ExportPath::new("file").unwrap(),
        mode: OpenMode::READ_WRITE,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: false,
        create_id: CreateId([1; 16]),
        with_key: false,
        grace_ms: 0,
        guard: false,
    }
    .into()
}

/// What is sent, and the bytes of it.
type Attempt<'a> = (&'a str, &'a dyn Fn(&mut Offender) -> Vec<u8>);

/// Each of these on a data channel and on a control channel of its own: that one is closed, the other one lives.
async fn assert_each_closes(scene: &Scene, on_data: &[Attempt<'_>], on_control: &[Attempt<'_>]) {
    for (what, bytes) in on_data {
        let mut offender = scene.offender().await;
        let bytes = bytes(&mut offender);
        offender.data.write(&bytes).await;
        assert_eq!(offender.data.until_closed().await, 0, "{what}");
        offender.assert_control_lives().await;
        scene.assert_unharmed().await;
    }
    for (what, bytes) in on_control {
        let mut offender = scene.offender().await;
        let bytes = bytes(&mut offender);
        offender.session.control.write(&bytes).await;
        assert_eq!(offender.session.control.until_closed().await, 0, "{what}");
        offender.assert_data_lives().await;
        scene.assert_unharmed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f01_a_record_of_no_length_closes_its_channel() {
    let scene = Scene::new().await;
    assert_each_closes(
        &scene,
        &[
            ("nothing but zeros", &|_| vec![0; 56]),
            ("a read without a body", &|offender| {
                offender.data.seal(&Odd { kind: 0x20, body: vec![] }, 5, &[])
            }),
        ],
        &[
            ("nothing but zeros", &|_| vec![0; 56]),
            ("a stat without a body", &|offender| {
                offender.session.control.seal(&Odd { kind: 0x14, body: vec![] }, 5, &[])
            }),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_a_length_over_the_limit_closes_its_channel() {
    let scene = Scene::new().await;
    let before = memory_kib(&scene.world);
    for (body_len, payload_len) in [(u32::MAX, 0), (61_441, 0), (0, u32::MAX), (0, (1 << 20) + 1)] {
        // The data channel's own first record had number 0, the control channel has sent two.
        assert_each_closes(
            &scene,
            &[("a head alone", &|_| head(body_len, payload_len, (DATA, 1)).to_vec())],
            &[("a head alone", &|_| head(body_len, payload_len, (0, 2)).to_vec())],
        )
        .await;
    }
    let (resident, mapped) = memory_kib(&scene.world);
    // That nothing at all is taken, the reader's own tests show. One such length is 4 GiB; a thread's own heap maps 64 MiB and more at once, without taking any of it.
    assert!(resident < before.0 + (16 << 10), "{} KiB to {resident} KiB resident", before.0);
    assert!(mapped < before.1 + (1 << 20), "{} KiB to {mapped} KiB mapped", before.1);
}

/// The most that the server's process has ever had resident, and mapped.
fn memory_kib(world: &World) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmHWM:"), field("VmPeak:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn f03_a_record_that_ends_early_is_none() {
    let scene = Scene::new().await;
    let mut offender = scene.offender().await;
    let write = bowline::wire::data::Write { handle: offender.handle, offset: 0 };
    let frame = offender.data.seal(&Odd::of(&ClientData::from(write)), 5, &[0xee; 1000]);
    for len in [1, 39, 40, 60, 72, 500, frame.len() - 1] {
        let mut offender = scene.offender().await;
        let write = bowline::wire::data::Write { handle: offender.handle, offset: 0 };
        let frame = offender.data.seal(&Odd::of(&ClientData::from(write)), 5, &[0xee; 1000]);
        offender.data.write(&frame[..len]).await;
        offender.data.finish().await;
        assert_eq!(offender.data.until_closed().await, 0);
        offender.assert_control_lives().await;
        scene.assert_unharmed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_records_that_come_byte_by_byte_are_records() {
    let scene = Scene::new().await;
    let mut offender = scene.offender().await;
    for number in 0..3 {
        let read = Read { handle: offender.handle, offset: 0, len: 100 };
        let frame = offender.data.seal(&Odd::of(&ClientData::from(read)), 10 + number, &[]);
        for byte in frame {
            offender.data.write(&[byte]).await;
            // Long enough for the byte to be a segment of its own.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let answer = offender.data.next().await.unwrap();
        assert_eq!((answer.request.0, answer.payload.unwrap().len()), (10 + number, 100));
    }
    offender.assert_control_lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f05_ten_thousand_records_at_once_are_taken_in_their_order() {
    let scene = Scene::new().await;
    let mut offender = scene.offender().await;
    let mut bytes = Vec::new();
    // Signs of life, which need no answer, and every hundredth a request for one. A record out of its order would
    // end the channel.
    for number in 0..10_000 {
        let message = if number % 100 == 99 { ClientData::from(Ping {}) } else { Pong {}.into() };
        bytes.extend(offender.data.seal(&Odd::of(&message), 0, &[]));
    }
    offender.data.write(&bytes).await;
    for _ in 0..100 {
        let answer = offender.data.answer().await;
        assert!(matches!(answer, (0, ServerData::Pong(_))), "{answer:?}");
    }
    offender.assert_data_lives().await;
    offender.assert_control_lives().await;
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f06_an_unknown_kind_is_refused_and_an_unknown_flag_closes_the_channel() {
    let scene = Scene::new().await;
    let mut offender = scene.offender().await;
    for (number, kind) in [(5, 0x77), (6, 0x7f), (7, 0xff)] {
        offender.data.write_odd(kind, number).await;
        let refused = offender.data.answer().await;
        let is_refused = |reason| reason == Reason::Unsupported;
        assert!(matches!(refused, (id, ServerData::Refused(refused))
            if id == number && is_refused(refused.refusal.reason)));
        offender.session.control.write_odd(kind, number + 10).await;
        let refused = offender.session.control.answer().await;
        assert!(matches!(refused, (id, ServerControl::Refused(refused))
            if id == number + 10 && is_refused(refused.refusal.reason)));
    }
    offender.assert_data_lives().await;
    offender.assert_control_lives().await;
    for at in 9..12 {
        for bit in 0..8 {
            let flagged = |mut frame: Vec<u8>| {
                frame[at] |= 1 << bit;
                frame
            };
            let ping = |offender: &mut Offender| {
                flagged(offender.data.seal(&Odd::of(&ClientData::from(Ping {})), 0, &[]))
            };
            assert_each_closes(&scene, &[("a flag", &ping)], &[]).await;
        }
    }
    // A version or a pattern of the hello that nobody knows: closed without a byte.
    for (at, value) in [(4, 0), (4, 2), (5, 0), (5, 9)] {
        let mut hello = b"BWLN\x01\x01\x04\x00\x01\x00\x01\x00".to_vec();
        hello[at] = value;
        assert_eq!(answer_to(&scene, &hello).await, b"");
    }
    scene.assert_unharmed().await;
}

impl<const IS_CONTROL: bool> Channel<IS_CONTROL> {
    async fn write_odd(&mut self, kind: u8, request: u64) {
        let frame = self.seal(&Odd { kind, body: vec![1, 2, 3] }, request, &[]);
        self.write(&frame).await;
    }
}

/// Sends bytes on a fresh connection and tells what comes back until the server closes it.
async fn answer_to(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    let mut stream = scene.client().connect().await;
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    // A reset is as good a refusal as an end.
    drop(tokio::time::timeout(support::LONG, stream.read_to_end(&mut answer)).await.unwrap());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn f07_a_known_kind_in_the_wrong_direction_or_channel_closes_it() {
    let scene = Scene::new().await;
    let on_data = |message: Odd<false>| move |offender: &mut Offender| offender.data.seal(&message, 5, &[]);
    let on_control =
        |message: Odd<true>| move |offender: &mut Offender| offender.session.control.seal(&message, 5, &[]);
    assert_each_closes(
        &scene,
        &[
            ("an answer to a read", &on_data(Odd::of(&ServerData::from(ReadDone {})))),
            ("an open on a data channel", &on_data(Odd::of(&open()))),
            ("an answer of a control channel", &on_data(Odd::of(&ServerControl::from(Closed {})))),
        ],
        &[
            ("an answer", &on_control(Odd::of(&ServerControl::from(Closed {})))),
            ("a read on a control channel", &|offender| {
                let read = ClientData::from(Read { handle: offender.handle, offset: 0, len: 1 });
                offender.session.control.seal(&Odd::of(&read), 5, &[])
            }),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f08_a_request_before_its_session_or_its_handshake_is_answered_by_closing() {
    let scene = Scene::new().await;
    let client = scene.client();
    // Instead of the first record: an open, a sign of life, a record of a kind that nobody knows.
    let instead: [Odd<true>; 3] =
        [Odd::of(&open()), Odd::of(&ClientControl::from(Ping {})), Odd { kind: 0x77, body: vec![] }];
    for message in instead {
        let Greeted { stream, keys, .. } = client.greet().await;
        let mut control = Channel::<true>::new(stream, keys, (ChannelNumber(0), Protection::Sealed));
        let frame = control.seal(&message, 1, &[]);
        control.write(&frame).await;
        assert_eq!(control.until_closed().await, 0);
    }
    let mut offender = scene.offender().await;
    let read = ClientData::from(Read { handle: offender.handle, offset: 0, len: 1 });
    let kind = (ChannelKind::Data, Protection::Signed);
    let Greeted { stream, keys, offer, choice } = client.greet_bind(&offender.session, 2, kind).await;
    let mut data = Channel::<false>::new(stream, keys, (offer.number, choice.protection));
    data.send(&read, 1).await;
    assert_eq!(data.until_closed().await, 0);
    // Instead of the handshake, and in the middle of it.
    let frame = offender.data.seal(&Odd::of(&read), 5, &[]);
    assert_eq!(answer_to(&scene, &frame).await, b"");
    assert_eq!(
        answer_to(&scene, &[&b"BWLN\x01\x01\x04\x00\x01\x00\x01\x00"[..], &frame].concat()).await,
        b""
    );
    offender.assert_control_lives().await;
    scene.assert_unharmed().await;
}

/// Every bit of what the first record of a session repeats.
#[tokio::test(flavor = "multi_thread")]
async fn t06_a_first_record_that_repeats_something_else_begins_no_session() {
    let scene = Scene::new().await;
    let client = scene.client();
    // 4 bytes of offer, 2 of version and 16 of session.
    for bit in 0..22 * 8 {
        let Greeted { stream, keys, offer, choice } = client.greet().await;
        let mut control = Channel::<true>::new(stream, keys, (ChannelNumber(0), Protection::Sealed));
        let mut first = Odd::of(&begin(offer, choice));
        first.body[bit / 8] ^= 1 << (bit % 8);
        let frame = control.seal(&first, 0, &[]);
        control.write(&frame).await;
        assert_eq!(control.until_closed().await, 0, "bit {bit}");
    }
    scene.world.until_log_says("Mismatch").await;
    // None of those that were refused is there: a client may have 64.
    for _ in 0..60 {
        client.start().await;
    }
    scene.assert_unharmed().await;
}

/// Every bit of what the first record of a further channel repeats.
#[tokio::test(flavor = "multi_thread")]
async fn t06_a_first_record_that_repeats_something_else_binds_no_channel() {
    let scene = Scene::new().await;
    let (client, mut offender) = (scene.client(), scene.offender().await);
    let kind = (ChannelKind::Data, Protection::Signed);
    let len = {
        let Greeted { offer, choice, .. } = client.greet_bind(&offender.session, 2, kind).await;
        Odd::<false>::of(&ClientData::from(Attach { offer, choice })).body.len()
    };
    for bit in 0..len * 8 {
        let Greeted { stream, keys, offer, choice } = client.greet_bind(&offender.session, 2, kind).await;
        let mut data = Channel::<false>::new(stream, keys, (offer.number, choice.protection));
        let mut first = Odd::of(&ClientData::from(Attach { offer, choice }));
        first.body[bit / 8] ^= 1 << (bit % 8);
        let frame = data.seal(&first, 0, &[]);
        data.write(&frame).await;
        assert_eq!(data.until_closed().await, 0, "bit {bit}");
    }
    // The number is as free as it was.
    drop(client.bind(&offender.session, 2, Protection::Signed).await);
    offender.assert_data_lives().await;
    offender.assert_control_lives().await;
    scene.assert_unharmed().await;
}

/// The kinds that these tests use, as protocol.md numbers them.
#[test]
fn the_kinds_are_those_of_the_protocol() {
    let kind = |message: ClientControl| message.kind();
    assert_eq!(kind(Stat { handle: HandleId(1) }.into()), 0x14);
    assert_eq!(ClientData::from(Read { handle: HandleId(1), offset: 0, len: 1 }).kind(), 0x20);
}
