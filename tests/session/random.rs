//! Random faults from seeds, against a shadow of what every block of a file may hold.
//!
//! `BOWLINE_SEED=n` runs that seed alone; a failing run prints its own.

use bowline::model::{ChannelKind, HandleId, LineId};
use bowline::session::client::{Answer, Ticket};
use bowline::session::server::ServerNote;

use super::pair::{Cut, LineSpec, Pair, Seed, Who};
use super::{L0, L1, L2, millis, seconds};

const SEEDS: u64 = 300;
const BLOCK: u64 = 64;
const BLOCKS: u64 = 24;

/// What one client knows of its file: each block has at most one write under way, so that its versions are in
/// order.
struct Shadow {
    who: Who,
    path: &'static str,
    handle: HandleId,
    lines: u8,
    blocks: Vec<Block>,
    reads: Vec<PendingRead>,
}

#[derive(Default, Clone)]
struct Block {
    /// The newest version that was acknowledged.
    acknowledged: u64,
    /// The newest version that was sent.
    issued: u64,
    write: Option<Ticket>,
}

struct PendingRead {
    request: Ticket,
    block: usize,
    /// What was acknowledged when it was asked for: it must not see anything older.
    least: u64,
}

#[test]
fn random_faults_lose_nothing_repeat_nothing_and_end() {
    for seed in seeds() {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in seeds().take(20) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2), "the hash tells runs apart");
}

fn seeds() -> impl Iterator<Item = u64> {
    let one: Option<u64> = std::env::var("BOWLINE_SEED").ok().map(|seed| seed.parse().expect("a number"));
    one.map_or(0..SEEDS, |seed| seed..seed + 1)
}

/// One run; tells the hash of its trace.
fn run(seed: u64) -> u64 {
    let mut pair = Pair::new(seed);
    let mut random = Seed::new(seed, 50);
    pair.disk_us = (random.below(300), random.below(3_000));
    let mut shadows =
        [(1, "a"), (2, "b")].map(|(name, path)| Shadow::start(&mut pair, &mut random, name, path));
    for _ in 0..120 {
        for shadow in &mut shadows {
            if random.chance(70) {
                shadow.ask(&mut pair, &mut random);
            }
            if random.chance(15) {
                let line = LineId(u8::try_from(random.below(u64::from(shadow.lines))).unwrap());
                strike(&mut pair, &mut random, shadow.who, line);
            }
        }
        if random.chance(10) {
            pair.disk.hold_writes = usize::try_from(random.below(4)).unwrap();
            pair.disk.hold_reads = usize::try_from(random.below(4)).unwrap();
        } else if random.chance(30) {
            pair.release_disk();
        }
        let wait = if random.chance(8) { millis(random.below(4_000)) } else { millis(random.below(12)) };
        pair.run_for(wait);
        shadows.iter_mut().for_each(|shadow| shadow.settle(&pair));
    }
    for shadow in &mut shadows {
        shadow.heal(&mut pair);
    }
    pair.release_disk();
    for shadow in &mut shadows {
        pair.finish_all(shadow.who, seconds(60));
        shadow.settle(&pair);
        shadow.read_all(&mut pair);
    }
    let offence = pair.notes.iter().any(|note| matches!(note, ServerNote::Offence { .. }));
    pair.check(!offence, "a client that keeps the protocol was called an offender");
    pair.check(pair.disk.descriptors() == 0, "a descriptor was left");
    pair.trace_hash()
}

/// Something happens to a line.
fn strike(pair: &mut Pair, random: &mut Seed, who: Who, line: LineId) {
    let cut = Cut {
        client_after: millis(random.below(50)),
        server_after: millis(random.below(500)),
        loses_flight: random.chance(50),
    };
    match random.below(8) {
        0 => pair.cut(who, line, Cut::NOW),
        1 => pair.cut(who, line, cut),
        2 => pair.black_hole(who, line),
        3 => pair.stall(who, line),
        4 => {
            // What is on its way comes late, and the client has given the channel up.
            pair.stall_towards_server(who, line);
            pair.run_for(millis(random.below(5)));
            pair.cut(who, line, Cut { loses_flight: false, ..cut });
        }
        _ => pair.heal(who, line),
    }
}

impl Shadow {
    fn start(pair: &mut Pair, random: &mut Seed, name: u8, path: &'static str) -> Self {
        pair.disk.put(path, vec![0; usize::try_from(BLOCK * BLOCKS).unwrap()]);
        let mut line = |spec: LineSpec| LineSpec {
            delay_us: 50 + random.below(3_000),
            jitter_us: random.below(2_000),
            ..spec
        };
        let lines = [line(LineSpec::BOTH), line(LineSpec::BOTH), line(LineSpec::BULK)];
        let lines =
            if random.chance(30) { vec![line_of(lines[0]), lines[1], lines[2]] } else { lines.to_vec() };
        let who = pair.complete_client(name, &lines);
        let handle = pair.handle(who, path);
        let blocks = vec![Block::default(); usize::try_from(BLOCKS).unwrap()];
        Self { who, path, handle, lines: u8::try_from(lines.len()).unwrap(), blocks, reads: Vec::new() }
    }

    /// Asks for a few things.
    fn ask(&mut self, pair: &mut Pair, random: &mut Seed) {
        for _ in 0..=random.below(6) {
            let at = usize::try_from(random.below(BLOCKS)).unwrap();
            let offset = u64::try_from(at).unwrap() * BLOCK;
            match random.below(20) {
                0 => drop(pair.stat(self.who, self.handle)),
                1 => drop(pair.sync(self.who, self.handle)),
                2 => drop(pair.issue_key(self.who, self.handle)),
                3..=10 if self.blocks[at].write.is_none() => {
                    let block = &mut self.blocks[at];
                    block.issued += 1;
                    let bytes = payload(self.path, at, block.issued);
                    block.write = Some(pair.write(self.who, self.handle, offset, bytes));
                }
                _ => {
                    let request = pair.read(self.who, self.handle, offset, u32::try_from(BLOCK).unwrap());
                    self.reads.push(PendingRead { request, block: at, least: self.blocks[at].acknowledged });
                }
            }
        }
    }

    /// Takes in what was answered.
    fn settle(&mut self, pair: &Pair) {
        for (at, block) in self.blocks.iter_mut().enumerate() {
            let Some(write) = block.write.filter(|&write| pair.outcome(self.who, write).is_some()) else {
                continue;
            };
            pair.check(pair.outcome(self.who, write).is_some_and(Result::is_ok), "a write failed");
            (block.acknowledged, block.write) = (block.issued, None);
            let times = pair.disk.executions(&payload(self.path, at, block.issued));
            pair.check(times == 1, "an acknowledged write was executed once");
        }
        let (who, path, blocks) = (self.who, self.path, &self.blocks);
        self.reads.retain(|read| {
            let Some(outcome) = pair.outcome(who, read.request) else { return true };
            let Ok(Answer::Read(Some(bytes))) = outcome else { pair.fail("a read failed") };
            let block = &blocks[read.block];
            let is_right =
                (read.least..=block.issued).any(|version| **bytes == payload(path, read.block, version));
            pair.check(is_right, "a read told something that was never so, or not so any more");
            false
        });
    }

    fn heal(&self, pair: &mut Pair) {
        [L0, L1, L2].into_iter().take(usize::from(self.lines)).for_each(|line| pair.heal(self.who, line));
    }

    /// Everything that was acknowledged can be read, nothing was executed twice, and all channels are back.
    fn read_all(&mut self, pair: &mut Pair) {
        for at in 0..self.blocks.len() {
            let offset = u64::try_from(at).unwrap() * BLOCK;
            let read = pair.read(self.who, self.handle, offset, u32::try_from(BLOCK).unwrap());
            let bytes = pair.bytes(self.who, read);
            let newest = self.blocks[at].acknowledged;
            pair.check(*bytes == payload(self.path, at, newest), "an acknowledged write is not there");
            for version in 1..=newest {
                let times = pair.disk.executions(&payload(self.path, at, version));
                pair.check(times == 1, "a write was executed twice");
            }
        }
        let close = pair.close(self.who, self.handle);
        pair.finish(self.who, close);
        let who = self.who;
        pair.run_until("all channels are back", seconds(10), |pair| pair.core(who).is_complete());
        pair.check(pair.live(who, ChannelKind::Control).len() <= 2, "more control channels than are wanted");
    }
}

/// The same line for control channels only.
fn line_of(line: LineSpec) -> LineSpec {
    LineSpec { role: bowline::model::LineRole::Keys, ..line }
}

/// The bytes of one version of a block: no two are equal. Version 0 is what the file began with.
fn payload(path: &str, block: usize, version: u64) -> Vec<u8> {
    let len = usize::try_from(BLOCK).unwrap();
    if version == 0 { vec![0; len] } else { format!("{path} {block:>20} {version:>41}").into_bytes() }
}
