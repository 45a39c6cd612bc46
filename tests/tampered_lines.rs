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

use std::sync::Arc;
use std::time::Duration;

use bowline::client::{
    ChannelState, ChannelStatus, Client, File, LineConfig, OpenOptions, Peer, Session, SessionEvent,
};
use bowline::model::{ChannelKind, Limits, LineRole};
use bowline::net::Via;
use bowline::session::LossReason;
use seed::Seed;
use support::tamperer::{Hit, Part, Plan, Tamperer};
use support::{LINE_1, LINE_2, LONG, World, pattern};

const FILE_LEN: usize = 256 << 10;
/// Small enough for many records to be on their way at a time.
const PIECE: usize = 8 << 10;

/// A server, and a session with it over two lines that somebody sits on.
struct Scene {
    world: World,
    lines: [Tamperer; 2],
    session: Session,
    file: File,
    /// What the file has to be.
    content: Vec<u8>,
}

impl Scene {
    /// Lines of role `both` seal their data channels, those of role `bulk` sign them.
    async fn new(roles: [LineRole; 2]) -> Self {
        let content = pattern(FILE_LEN);
        let world = World::start(&content).await;
        let lines = [
            Tamperer::start(LINE_1, world.addresses[0]).await,
            Tamperer::start(LINE_2, world.addresses[1]).await,
        ];
        let configs = lines.iter().zip([LINE_1, LINE_2]).zip(roles).map(|((line, from), role)| LineConfig {
            address: line.address(),
            via: Some(Via::Address(from)),
            role,
            protection: None,
        });
        let peer = Peer {
            name: "server".into(),
            key: world.server_key,
            protection_min: None,
            lines: configs.collect(),
        };
        let mut limits = Limits::default();
        // A record that is left out is noticed with the next one: that is not to take long.
        limits.ping_after = Duration::from_millis(200);
        limits.dead_after_ping = Duration::from_secs(2);
        limits.chunk = u32::try_from(PIECE).unwrap();
        let client = Client::new(Arc::clone(&world.identity)).unwrap().with_limits(limits);
        let session = client.connect(&peer).await.unwrap();
        let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
        let scene = Self { world, lines, session, file, content };
        scene.all_up().await;
        scene
    }

    /// Every line has its channels.
    async fn all_up(&self) {
        let roles = self.session.lines();
        let wanted = |kind| roles.iter().filter(|line| line.config.role.carries(kind)).count();
        let mut events = self.session.events();
        while [ChannelKind::Data, ChannelKind::Control].iter().any(|&kind| self.live(kind) < wanted(kind)) {
            drop(tokio::time::timeout(LONG, events.recv()).await.expect("the channels come back"));
        }
    }

    fn live(&self, kind: ChannelKind) -> usize {
        let is_live = |status: &ChannelStatus| status.kind == kind && status.state == ChannelState::Live;
        self.session.channels().into_iter().filter(is_live).count()
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
        let hits = self.lines[line].hits();
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
                if let SessionEvent::ChannelDown { kind, reason, .. } = events.recv().await.unwrap() {
                    break (kind, reason);
                }
            }
        };
        let (kind, reason) =
            tokio::time::timeout(LONG, first).await.unwrap_or_else(|_| panic!("{plan:?} is not noticed"));
        assert_eq!(kind, plan.kind, "{plan:?}");
        assert!(matches!(reason, LossReason::Offence | LossReason::Broken | LossReason::Silent), "{reason}");
        self.all_up().await;
        while let Ok(event) = events.try_recv() {
            let is_loss = matches!(event, SessionEvent::ChannelDown { .. });
            assert!(!is_loss, "one channel is lost, and no other: {event:?} after {plan:?}");
        }
        assert!(std::fs::read(self.world.file("file")).unwrap() == self.content);
    }
}

/// An attack that a seed makes up, on a kind of channel that the line has.
fn plan(random: &mut Seed, kinds: &[ChannelKind]) -> Plan {
    let kind = kinds[usize::try_from(random.below(u64::try_from(kinds.len()).unwrap())).unwrap()];
    let bit = usize::try_from(random.below(1 << 20)).unwrap();
    let hit = match random.below(9) {
        0 | 1 => Hit::Flip(Part::Head, bit),
        2 => Hit::Flip(Part::Body, bit),
        3 if kind == ChannelKind::Data => Hit::Flip(Part::Payload, bit),
        4 => Hit::Duplicate,
        5 => Hit::Drop,
        6 => Hit::Swap,
        7 => Hit::Splice,
        _ => Hit::Cut(bit),
    };
    let with_payload = matches!(hit, Hit::Flip(Part::Payload, _));
    let after = usize::try_from(random.below(if kind == ChannelKind::Data { 20 } else { 2 })).unwrap();
    Plan { kind, is_up: random.chance(50), after, with_payload, hit }
}

/// Seeds of one world, one after the other.
async fn play(roles: [LineRole; 2], seeds: impl Iterator<Item = u64>) {
    let mut scene = Scene::new(roles).await;
    for seed in seeds {
        let mut random = Seed::new(seed, 50);
        let line = usize::try_from(random.below(2)).unwrap();
        // The spare control channel carries next to nothing: the one in use is on the first line.
        let kinds = [ChannelKind::Data, ChannelKind::Control];
        let kinds = if line == 0 { &kinds[..] } else { &kinds[..1] };
        let plan = plan(&mut random, kinds);
        println!("BOWLINE_SEED={seed}: line {line}, {plan:?}");
        // Which of the lines has the control channel in use changes with each loss.
        let line = if plan.kind == ChannelKind::Control { scene.line_in_use() } else { line };
        scene.suffer(line, plan, &mut random).await;
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

const BOTH: [LineRole; 2] = [LineRole::Both; 2];
const SIGNED: [LineRole; 2] = [LineRole::Both, LineRole::Bulk];

fn seeds(range: std::ops::Range<u64>) -> Vec<u64> {
    let replayed = std::env::var("BOWLINE_SEED").ok().map(|seed| seed.parse().unwrap());
    replayed.map_or_else(|| range.collect(), |seed| vec![seed])
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_t02_t03_t04_t05_a_hundred_attacks_on_sealed_lines_change_no_byte() {
    play(BOTH, seeds(0..100).into_iter()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_t02_t03_t04_t05_a_hundred_attacks_on_signed_lines_change_no_byte() {
    play(SIGNED, seeds(100..200).into_iter()).await;
}

/// One attack in every direction and on every kind of channel.
async fn everywhere(hits: impl Fn(usize) -> Hit, kinds: &[ChannelKind], with_payload: bool) {
    for roles in [BOTH, SIGNED] {
        let (mut scene, mut random) = (Scene::new(roles).await, Seed::new(1, 51));
        for (at, is_up) in [(0, true), (1, false)] {
            for &kind in kinds {
                let line = if kind == ChannelKind::Control { scene.line_in_use() } else { 1 };
                let plan = Plan { kind, is_up, after: 1, with_payload, hit: hits(at) };
                scene.suffer(line, plan, &mut random).await;
            }
        }
    }
}

const KINDS: [ChannelKind; 2] = [ChannelKind::Data, ChannelKind::Control];

#[tokio::test(flavor = "multi_thread")]
async fn f17_a_flipped_byte_in_a_head_ends_the_channel_and_nothing_acknowledged_is_lost() {
    // In the kind, in the request id and in the sequence.
    everywhere(|at| Hit::Flip(Part::Head, [70, 140, 200][at]), &KINDS, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_flipped_byte_in_signed_or_sealed_payload_is_repeated_on_another_channel() {
    everywhere(|at| Hit::Flip(Part::Payload, 1000 + at), &KINDS[..1], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_a_duplicate_ends_the_channel_and_is_executed_once() {
    everywhere(|_| Hit::Duplicate, &KINDS, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_records_of_one_channel_on_another_end_that_one() {
    everywhere(|_| Hit::Splice, &KINDS, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_a_connection_that_is_cut_in_a_record_reads_nothing_short() {
    everywhere(|at| Hit::Cut([20, 100][at]), &KINDS, false).await;
}
