//! Somebody on the wire between a client and a real server process: what is changed, repeated, left out, moved or cut
//! ends its channel, and every read and write ends right on another one.
//!
//! Each seed is one attack. `BOWLINE_SEED=N cargo test --test tampered_lines` plays one again.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

#[path = "support/pair/seed.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod seed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{
    ChannelState, ChannelStatus, Client, Error, File, LineConfig, OpenOptions, Peer, Session, SessionEvent,
};
use bowline::model::{ChannelKind, ChannelNumber, Limits, LineRole, Protection, PublicKey};
use bowline::net::Via;
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use bowline::session::LossReason;
use bowline::wire::Message as _;
use bowline::wire::data::{Rekey, Trailer};
use bowline::wire::{ClientData, ServerData};
use seed::Seed;
use support::tamperer::{Hit, Part, Plan, Source, Tamperer, Which};
use support::{EXPORT, LINE_1, LINE_2, LONG, Searched, World, new_identity, pattern};
use tempfile::TempDir;
use tokio::sync::broadcast::error::TryRecvError;

const FILE_LEN: usize = 256 << 10;
/// Small enough for many records to be on their way at a time.
const PIECE: usize = 8 << 10;

/// What the lines lead to.
struct Ground {
    addresses: Vec<SocketAddr>,
    server_key: PublicKey,
    identity: Arc<Identity>,
    /// The folder that is served.
    data: PathBuf,
    server: Behind,
}

/// Kept as long as a scene lasts.
enum Behind {
    Process(World),
    /// In this process, with what a command line cannot say.
    Here(Server, TempDir, Searched),
}

impl Ground {
    async fn process() -> Self {
        let world = World::start(&pattern(FILE_LEN)).await;
        let data = world.file("file").parent().unwrap().to_owned();
        let (addresses, identity) = (world.addresses.clone(), Arc::clone(&world.identity));
        Self { addresses, server_key: world.server_key, identity, data, server: Behind::Process(world) }
    }

    /// A server that lets data channels be clear, with these limits.
    fn here(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), pattern(FILE_LEN)).unwrap();
        let (server, identity) = (new_identity(), new_identity());
        let list = format!(
            "[[client]]\nkey = \"{}\"\nname = \"a\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\"]\n\
             protection = \"clear\"\n",
            identity.public()
        );
        let exports = Exports::open([(EXPORT.parse().unwrap(), data.clone())]).unwrap();
        let mut config = ServerConfig::new(Arc::clone(&server), exports, parse_clients(&list).unwrap());
        config.protection_min = Protection::Clear;
        config.limits = limits;
        config.listen = vec![SocketAddr::new(LINE_1, 0), SocketAddr::new(LINE_2, 0)];
        let running = Server::start(config).unwrap();
        let (addresses, server_key) = (running.addresses().to_vec(), server.public());
        let searched = Searched::new([&server, &identity]);
        Self { addresses, server_key, identity, data, server: Behind::Here(running, folder, searched) }
    }

    /// What an open came to; no log may show its key.
    fn noted(&self, opened: Result<File, Error>) -> Result<File, Error> {
        match &self.server {
            Behind::Process(world) => world.noted(opened),
            Behind::Here(_, _, searched) => searched.noted(opened),
        }
    }
}

/// Lines of role `both` seal their data channels and those of role `bulk` sign them, if nothing else is said.
#[derive(Clone, Copy)]
struct Lines {
    roles: [LineRole; 2],
    protection: Option<Protection>,
}

const BOTH: Lines = Lines { roles: [LineRole::Both; 2], protection: None };
const SIGNED: Lines = Lines { roles: [LineRole::Both, LineRole::Bulk], protection: None };
const CLEAR: Lines = Lines { roles: [LineRole::Both; 2], protection: Some(Protection::Clear) };

/// A server, and a session with it over two lines that somebody sits on.
struct Scene {
    ground: Ground,
    limits: Limits,
    lines: [Tamperer; 2],
    session: Session,
    file: File,
    /// What the file has to be.
    content: Vec<u8>,
}

/// A second session of the same client, whose records somebody has as well.
struct Beside {
    line: Tamperer,
    session: Session,
    file: File,
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    // A record that is left out is noticed with the next one: that is not to take long.
    limits.ping_after = Duration::from_millis(200);
    limits.dead_after_ping = Duration::from_secs(2);
    limits.chunk = u32::try_from(PIECE).unwrap();
    limits
}

impl Scene {
    async fn new(lines: Lines) -> Self {
        let ground = match lines.protection {
            Some(Protection::Clear) => Ground::here(limits()),
            _ => Ground::process().await,
        };
        Self::on(ground, lines, limits()).await
    }

    async fn on(ground: Ground, Lines { roles, protection }: Lines, limits: Limits) -> Self {
        let lines = [
            Tamperer::start(LINE_1, ground.addresses[0]).await,
            Tamperer::start(LINE_2, ground.addresses[1]).await,
        ];
        lines[0].pair_with(&lines[1]);
        lines[1].pair_with(&lines[0]);
        let configs = lines.iter().zip([LINE_1, LINE_2]).zip(roles).map(|((line, from), role)| LineConfig {
            address: line.address(),
            via: Some(Via::Address(from)),
            role,
            protection,
        });
        let peer = Peer {
            name: "server".into(),
            key: ground.server_key,
            protection_min: None,
            lines: configs.collect(),
        };
        let (session, file) = connect(&ground, &peer, &limits).await;
        let scene = Self { ground, limits, lines, session, file, content: pattern(FILE_LEN) };
        scene.all_up().await;
        scene
    }

    /// A second session, over a line of its own; from its records splices of another session are made.
    async fn beside(&self) -> Beside {
        let line = Tamperer::start(LINE_1, self.ground.addresses[0]).await;
        let (name, key) = ("server".to_owned(), self.ground.server_key);
        let lines = vec![LineConfig::new(line.address())];
        let peer = Peer { name, key, protection_min: None, lines };
        let (session, file) = connect(&self.ground, &peer, &self.limits).await;
        session.all_lines_up(LONG).await.unwrap();
        self.lines.iter().for_each(|own| own.splice_from(&line));
        let beside = Beside { line, session, file };
        beside.goes_on().await;
        beside
    }

    /// Ends what runs in this process.
    async fn end(self) {
        self.session.close().await;
        if let Behind::Here(server, _folder, _searched) = self.ground.server {
            server.stop().await;
        }
    }

    /// Every line has its channels.
    async fn all_up(&self) {
        let roles = self.session.lines();
        let wanted = |kind| roles.iter().filter(|line| line.config.role.carries(kind)).count();
        let mut events = self.session.events();
        while [ChannelKind::Data, ChannelKind::Control].iter().any(|&kind| self.live(kind) < wanted(kind)) {
            tokio::time::timeout(LONG, events.recv()).await.expect("the channels come back").unwrap();
        }
    }

    fn live(&self, kind: ChannelKind) -> usize {
        let is_live = |status: &ChannelStatus| status.kind == kind && status.state == ChannelState::Live;
        self.session.channels().into_iter().filter(is_live).count()
    }

    /// How many requests each data channel that lives has repeated.
    fn repeats(&self) -> Vec<(ChannelNumber, u64)> {
        let channels = self.session.channels().into_iter();
        let data = channels.filter(|status| status.kind == ChannelKind::Data);
        data.map(|status| (status.number, status.repeats)).collect()
    }

    /// Reads and writes over all lines, and asks for the file's state: all of it comes back right.
    async fn use_file(&mut self, random: &mut Seed) {
        let at = usize::try_from(random.below(8)).unwrap() * PIECE;
        let piece = pattern(4 * PIECE + usize::try_from(random.below(100)).unwrap());
        self.file.write_at(u64::try_from(at).unwrap(), &piece).await.unwrap();
        self.content[at..at + piece.len()].copy_from_slice(&piece);
        let mut bytes = vec![0; FILE_LEN + 100];
        assert_eq!(self.file.read_at(0, &mut bytes).await.unwrap(), FILE_LEN, "no byte less than there is");
        assert!(bytes[..FILE_LEN] == self.content, "no byte that is not the file's");
        let len = self.file.stat().await.unwrap().attributes.len;
        assert_eq!(len, u64::try_from(FILE_LEN).unwrap());
    }

    /// One attack on one line, with the file in use until it has happened, and what must come of it.
    async fn suffer(&mut self, line: usize, plan: Plan, random: &mut Seed) {
        let (hits, repeats) = (self.lines[line].hits(), self.repeats());
        let mut events = self.session.events();
        self.lines[line].arm(plan);
        let happening = async {
            while self.lines[line].hits() == hits {
                self.use_file(random).await;
            }
            // Once more, now that it has.
            self.use_file(random).await;
        };
        tokio::time::timeout(LONG, happening).await.unwrap_or_else(|_| panic!("{plan:?} does not happen"));
        let first = async {
            loop {
                if let SessionEvent::ChannelDown { number, kind, reason, .. } = events.recv().await.unwrap() {
                    break (number, kind, reason);
                }
            }
        };
        let (lost, kind, reason) =
            tokio::time::timeout(LONG, first).await.unwrap_or_else(|_| panic!("{plan:?} is not noticed"));
        assert_eq!(kind, plan.kind, "{plan:?}");
        assert!(matches!(reason, LossReason::Offence | LossReason::Broken | LossReason::Silent), "{reason}");
        self.all_up().await;
        if matches!(plan.hit, Hit::Flip(Part::Payload, _)) {
            let before =
                |number| repeats.iter().find(|(known, _)| *known == number).map_or(0, |known| known.1);
            let is_repeated = |&(number, count): &(_, u64)| number != lost && count > before(number);
            let now = self.repeats();
            assert!(now.iter().any(is_repeated), "another channel has repeated it: {repeats:?}, {now:?}");
        }
        nothing_lost(&mut events, &format!("one channel is lost by {plan:?}, and no other"));
        assert!(std::fs::read(self.ground.data.join("file")).unwrap() == self.content);
    }
}

impl Beside {
    /// Its channels were never touched.
    async fn goes_on(&self) {
        let mut bytes = vec![0; 100];
        assert_eq!(self.file.read_at(0, &mut bytes).await.unwrap(), 100);
        self.file.stat().await.unwrap();
        assert_eq!(self.line.hits(), 0);
    }

    async fn end(self) {
        self.goes_on().await;
        self.session.close().await;
    }
}

async fn connect(ground: &Ground, peer: &Peer, limits: &Limits) -> (Session, File) {
    let client = Client::new(Arc::clone(&ground.identity)).unwrap().with_limits(limits.clone());
    let session = client.connect(peer).await.unwrap();
    let options = OpenOptions::new().read(true).write(true);
    let opened = session.open(EXPORT, "file", &options).await;
    (session, ground.noted(opened).unwrap())
}

/// No channel was lost, as far as everything that was said since tells.
fn nothing_lost(events: &mut tokio::sync::broadcast::Receiver<SessionEvent>, what: &str) {
    loop {
        match events.try_recv() {
            Ok(event) => {
                assert!(!matches!(event, SessionEvent::ChannelDown { .. }), "{what}: {event:?}");
            }
            Err(TryRecvError::Empty) => return,
            Err(error) => panic!("{what}: not all was heard: {error}"),
        }
    }
}

/// An attack that a seed makes up, on a kind of channel that the line has.
fn plan(random: &mut Seed, kinds: &[ChannelKind], is_clear: bool) -> Plan {
    let kind = kinds[usize::try_from(random.below(u64::try_from(kinds.len()).unwrap())).unwrap()];
    let bit = usize::try_from(random.below(1 << 20)).unwrap();
    let source = [Source::Channel, Source::Session, Source::Direction];
    let source = source[usize::try_from(random.below(3)).unwrap()];
    let hit = match random.below(9) {
        0 | 1 => Hit::Flip(Part::Head, bit),
        2 => Hit::Flip(Part::Body, bit),
        3 if kind == ChannelKind::Data && !is_clear => Hit::Flip(Part::Payload, bit),
        4 => Hit::Duplicate,
        5 => Hit::Drop,
        6 => Hit::Swap,
        7 => Hit::Splice(source, random.chance(50)),
        _ => Hit::Cut(bit),
    };
    let with_payload = matches!(hit, Hit::Flip(Part::Payload, _));
    let which = if with_payload { Which::WithPayload } else { Which::Any };
    let after = usize::try_from(random.below(if kind == ChannelKind::Data { 20 } else { 2 })).unwrap();
    Plan { kind, is_up: random.chance(50), after, which, hit }
}

/// Seeds of one world, one after the other.
async fn play(lines: Lines, seeds: impl Iterator<Item = u64>) {
    let mut scene = Scene::new(lines).await;
    scene.play(lines, seeds).await;
    scene.end().await;
}

impl Scene {
    async fn play(&mut self, lines: Lines, seeds: impl Iterator<Item = u64>) {
        let beside = self.beside().await;
        let is_clear = lines.protection == Some(Protection::Clear);
        for seed in seeds {
            let mut random = Seed::new(seed, 50);
            let line = usize::try_from(random.below(2)).unwrap();
            // The spare control channel carries next to nothing: the one in use is on the first line.
            let kinds = if line == 0 { &KINDS[..] } else { &KINDS[..1] };
            let plan = plan(&mut random, kinds, is_clear);
            println!("BOWLINE_SEED={seed}: line {line}, {plan:?}");
            // Which of the lines has the control channel in use changes with each loss.
            let line = if plan.kind == ChannelKind::Control { self.line_in_use() } else { line };
            self.suffer(line, plan, &mut random).await;
        }
        beside.end().await;
    }
}

impl Scene {
    /// The line of the control channel that requests take.
    fn line_in_use(&self) -> usize {
        let channels = self.session.channels();
        let live = channels.iter().filter(|status| status.state == ChannelState::Live);
        let first =
            live.filter(|status| status.kind == ChannelKind::Control).min_by_key(|status| status.number);
        usize::from(first.unwrap().line.0)
    }
}

const KINDS: [ChannelKind; 2] = [ChannelKind::Data, ChannelKind::Control];

/// The seeds of a test, from `first` on: `count` of them, or as many as `BOWLINE_TAMPER_SEEDS` says.
fn seeds(first: u64, count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("BOWLINE_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("BOWLINE_TAMPER_SEEDS").unwrap_or(count)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_t02_t03_t04_t05_a_hundred_attacks_on_sealed_lines_change_no_byte() {
    play(BOTH, seeds(0, 100).into_iter()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_t02_t03_t04_t05_a_hundred_attacks_on_signed_lines_change_no_byte() {
    play(SIGNED, seeds(1 << 32, 100).into_iter()).await;
}

/// In the payload nothing is hit here: that is what clear channels leave open.
#[tokio::test(flavor = "multi_thread")]
async fn f19_attacks_on_clear_lines_elsewhere_than_in_payload_change_no_byte() {
    play(CLEAR, seeds(2 << 32, 40).into_iter()).await;
}

/// Both ends replace their keys every 20 records, and those records are hit like all others, and on purpose.
#[tokio::test(flavor = "multi_thread")]
async fn t01_t02_t03_t04_t05_t29_attacks_on_lines_with_new_keys_every_20_records_change_no_byte() {
    let mut limits = limits();
    limits.rekey_records = 20;
    for lines in [BOTH, SIGNED] {
        let mut scene = Scene::on(Ground::here(limits.clone()), lines, limits.clone()).await;
        scene.play(lines, seeds(3 << 32, 30).into_iter()).await;
        let mut random = Seed::new(2, 51);
        for hit in [Hit::Flip(Part::Head, 70), Hit::Flip(Part::Body, 3), Hit::Duplicate, Hit::Drop, Hit::Swap]
        {
            for is_up in [true, false] {
                let which = Which::Kind(Rekey::KIND);
                let plan = Plan { kind: ChannelKind::Data, is_up, after: 1, which, hit };
                scene.suffer(1, plan, &mut random).await;
            }
        }
        for is_up in [true, false] {
            let passed = scene.lines[1].passed(is_up, Rekey::KIND);
            assert!(passed >= 10, "both ends replace their keys: {passed} times");
        }
        scene.end().await;
    }
}

/// One attack in every direction and on every kind of channel.
async fn everywhere(hits: impl Fn(usize) -> Hit, kinds: &[ChannelKind], which: Which) {
    for lines in [BOTH, SIGNED] {
        let (mut scene, mut random) = (Scene::new(lines).await, Seed::new(1, 51));
        let beside = scene.beside().await;
        for (at, is_up) in [(0, true), (1, false)] {
            for &kind in kinds {
                let line = if kind == ChannelKind::Control { scene.line_in_use() } else { 1 };
                let plan = Plan { kind, is_up, after: 1, which, hit: hits(at) };
                scene.suffer(line, plan, &mut random).await;
            }
        }
        beside.end().await;
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_a_flipped_byte_in_a_head_ends_the_channel_and_nothing_acknowledged_is_lost() {
    // In the kind, in the request id and in the sequence.
    for bit in [70, 140, 200] {
        everywhere(|_| Hit::Flip(Part::Head, bit), &KINDS, Which::Any).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_flipped_byte_in_signed_or_sealed_payload_is_repeated_on_another_channel() {
    everywhere(|at| Hit::Flip(Part::Payload, 1000 + at), &KINDS[..1], Which::WithPayload).await;
}

/// What docs/security.md says of clear channels: file bytes can be changed unnoticed, in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn f19_a_flipped_bit_in_clear_payload_arrives_and_the_channel_lives_on() {
    let scene = Scene::new(CLEAR).await;
    let mut events = scene.session.events();
    let on_disk = || std::fs::read(scene.ground.data.join("file")).unwrap();
    let channels = || scene.session.channels().into_iter().map(|status| status.number).collect::<Vec<_>>();
    let (before, bit) = (channels(), 8 * 1000 + 5);
    let flipped = |bytes: &[u8]| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    };
    let arm = |is_up| {
        let (which, hit) = (Which::WithPayload, Hit::Flip(Part::Payload, bit));
        let plan = Plan { kind: ChannelKind::Data, is_up, after: 0, which, hit };
        scene.lines.iter().for_each(|line| line.arm(plan));
    };
    let hits = || scene.lines.iter().map(Tamperer::hits).sum::<usize>();
    let mut bytes = vec![0; PIECE];
    arm(false);
    while hits() == 0 {
        let seen = hits();
        assert_eq!(scene.file.read_at(0, &mut bytes).await.unwrap(), PIECE);
        let (right, wrong) = (scene.content[..PIECE].to_vec(), flipped(&scene.content[..PIECE]));
        assert!(bytes == if hits() > seen { wrong } else { right }, "what was changed is what is read");
    }
    assert!(on_disk() == scene.content, "the file is not touched by it");
    let piece: Vec<u8> = pattern(2 * PIECE).split_off(PIECE);
    let read = hits();
    arm(true);
    while hits() == read {
        let seen = hits();
        scene.file.write_at(0, &piece).await.unwrap();
        let written = if hits() > seen { flipped(&piece) } else { piece.clone() };
        assert!(on_disk()[..PIECE] == written, "what was changed is what is written");
        assert!(on_disk()[PIECE..] == scene.content[PIECE..], "where it was to be, and nowhere else");
    }
    // It was noticed by nobody, and everything goes on.
    scene.lines.iter().for_each(Tamperer::disarm);
    scene.file.write_at(0, &piece).await.unwrap();
    assert_eq!(scene.file.read_at(0, &mut bytes).await.unwrap(), PIECE);
    assert!(bytes == piece);
    nothing_lost(&mut events, "nothing is noticed");
    assert_eq!(channels(), before);
    let all = scene.session.channels();
    let mut data = all.iter().filter(|status| status.kind == ChannelKind::Data);
    assert!(data.all(|status| status.protection == Protection::Clear && status.repeats == 0));
    assert!(all.iter().any(|status| status.protection == Protection::Sealed), "control channels are sealed");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_a_flipped_bit_in_a_head_body_or_trailer_of_a_clear_channel_is_noticed() {
    let (mut scene, mut random) = (Scene::new(CLEAR).await, Seed::new(3, 51));
    let trailer = ServerData::from(Trailer { valid: 1, refused: None }).kind();
    let write =
        ClientData::from(bowline::wire::data::Write { handle: bowline::model::HandleId(1), offset: 0 });
    let cases = [
        (false, Which::WithPayload, Hit::Flip(Part::Head, 35)),
        (false, Which::WithPayload, Hit::Flip(Part::Body, 0)),
        (true, Which::WithPayload, Hit::Flip(Part::Head, 140)),
        (true, Which::Kind(write.kind()), Hit::Flip(Part::Body, 70)),
        (false, Which::Kind(trailer), Hit::Flip(Part::Head, 70)),
        (false, Which::Kind(trailer), Hit::Flip(Part::Body, 3)),
        (false, Which::Kind(trailer), Hit::Drop),
        (false, Which::Kind(trailer), Hit::Duplicate),
        (false, Which::Kind(trailer), Hit::Swap),
    ];
    for (is_up, which, hit) in cases {
        let plan = Plan { kind: ChannelKind::Data, is_up, after: 1, which, hit };
        scene.suffer(1, plan, &mut random).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_a_duplicate_ends_the_channel_and_nothing_else() {
    everywhere(|_| Hit::Duplicate, &KINDS, Which::Any).await;
}

/// A second execution of an append would lengthen the file, and one of a directory's making would be refused.
#[tokio::test(flavor = "multi_thread")]
async fn f20_what_is_sent_twice_is_executed_once() {
    for lines in [BOTH, SIGNED] {
        let scene = Scene::new(lines).await;
        let mut events = scene.session.events();
        let options = OpenOptions::new().append(true).create_new(true);
        let opened = scene.session.open(EXPORT, "log", &options).await;
        let log = scene.ground.noted(opened).unwrap();
        let (which, hit) = (Which::WithPayload, Hit::Duplicate);
        let plan = Plan { kind: ChannelKind::Data, is_up: true, after: 2, which, hit };
        scene.lines.iter().for_each(|line| line.arm(plan));
        let hits = || scene.lines.iter().map(Tamperer::hits).sum::<usize>();
        let mut content = Vec::new();
        while hits() == 0 {
            let offset = u64::try_from(content.len()).unwrap();
            let piece = format!("line {offset}\n").into_bytes();
            assert_eq!(log.append(&piece).await.unwrap(), offset, "each begins where the one before ended");
            content.extend(piece);
        }
        scene.lines.iter().for_each(Tamperer::disarm);
        lost(&mut events, ChannelKind::Data).await;
        scene.all_up().await;
        assert!(std::fs::read(scene.ground.data.join("log")).unwrap() == content);

        let plan = Plan { kind: ChannelKind::Control, which: Which::Any, ..plan };
        let line = scene.line_in_use();
        let before = scene.lines[line].hits();
        scene.lines[line].arm(plan);
        let export = scene.session.export(EXPORT).unwrap();
        let mut made = 0;
        while scene.lines[line].hits() == before {
            export.create_dir(format!("made-{made}"), 0o755).await.unwrap();
            made += 1;
        }
        lost(&mut events, ChannelKind::Control).await;
        scene.all_up().await;
        let entries = std::fs::read_dir(&scene.ground.data).unwrap().count();
        assert_eq!(entries, made + 2, "each directory, the file and the log");
        scene.end().await;
    }
}

async fn lost(events: &mut tokio::sync::broadcast::Receiver<SessionEvent>, wanted: ChannelKind) {
    let losing = async {
        while !matches!(events.recv().await.unwrap(), SessionEvent::ChannelDown { kind, .. } if kind == wanted)
        {
        }
    };
    tokio::time::timeout(LONG, losing).await.expect("it is noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_t04_records_of_another_channel_session_or_direction_end_the_channel() {
    for source in [Source::Channel, Source::Session, Source::Direction] {
        // As they were, and with the right channel and number.
        everywhere(|at| Hit::Splice(source, at == 0), &KINDS, Which::Any).await;
        everywhere(|at| Hit::Splice(source, at == 1), &KINDS, Which::Any).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_a_connection_that_is_cut_in_a_record_reads_nothing_short() {
    everywhere(|at| Hit::Cut([20, 100][at]), &KINDS, Which::Any).await;
}
