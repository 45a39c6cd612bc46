//! One run: first a part in which everything fails that can, then one in which nothing does and everything has to end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use bowline::model::{ChannelKind, HandleId, LineId, OpenMode, Reason, Time};
use bowline::opens::{HolderPhase, HolderView, OpenPhase};
use bowline::session::client::Answer;
use bowline::session::server::ServerNote;

use super::asks::READ_ONLY;
use super::pair::crash::Crash;
use super::pair::{Cut, LineSpec, OpenSpec, Pair, Payload, Seed, Who};
use super::seen::{Seen, Tally};
use super::settle::reason;
use super::shadow::{Asked, BLOCK, BLOCKS, FILES, Life, Part, Shadow, offset_of, version_of};
use super::watch::Watch;

/// Turns with faults.
const ROUNDS: u64 = 50;
const LINES: u8 = 3;

/// One run.
pub(crate) struct Sim {
    pub(crate) pair: Pair,
    pub(crate) random: Seed,
    pub(crate) shadow: Shadow,
    pub(crate) watch: Watch,
    pub(crate) tally: Tally,
    /// Of every open.
    pub(crate) grace: Duration,
    /// A client of another identity, close to the server: it contends and steals.
    pub(crate) stranger: Who,
    pub(crate) appends: u64,
    /// How many events of each client were taken in.
    pub(crate) events: BTreeMap<Who, usize>,
    /// Those who work, and their identities.
    workers: Vec<(Who, u8)>,
    kills_left: u64,
    crashes_left: u64,
    /// When the store had no room the last time.
    full_until: Time,
}

std::thread_local! {
    /// How many steps this thread's run has made: for whoever wants to know where it failed.
    pub(crate) static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// What a run tells.
pub(crate) struct Told {
    pub(crate) trace: u64,
    pub(crate) seen: Tally,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut pair = Pair::new(seed);
        let mut random = Seed::new(seed, 70);
        pair.disk_us = (random.below(300), random.below(3_000));
        pair.store_us = (random.below(100), random.below(2_000));
        pair.client_limits.requests = [4, 16][random.pick(2)];
        pair.client_limits.unsynced_bytes = [2 << 10, 64 << 20][random.pick(2)];
        for path in FILES {
            pair.disk.put(path, vec![0; BLOCK * BLOCKS]);
        }
        let grace = millis([200, 1_000, 5_000][random.pick(3)]);
        let near = LineSpec { delay_us: 0, jitter_us: 0, ..LineSpec::BOTH };
        let stranger = pair.complete_client(3, &[near]);
        let mut sim = Self {
            pair,
            shadow: Shadow::default(),
            watch: Watch::new(grace),
            tally: Tally::default(),
            grace,
            stranger,
            appends: 0,
            events: BTreeMap::new(),
            workers: Vec::new(),
            full_until: Time(0),
            kills_left: random.below(3),
            crashes_left: random.below(4),
            random,
        };
        STEPS.set(0);
        let names: &[u8] = if sim.random.chance(40) { &[1, 2, 1] } else { &[1, 2] };
        names.iter().for_each(|&name| sim.hire(name));
        sim
    }

    /// The whole of it.
    pub(crate) fn run(mut self) -> Told {
        for _ in 0..ROUNDS {
            for (who, name) in self.workers.clone() {
                for _ in 0..self.random.below(4) {
                    self.ask(who, name);
                }
                if self.random.chance(8) {
                    let line = LineId(u8::try_from(self.random.pick(usize::from(LINES))).unwrap());
                    self.strike(who, line);
                }
            }
            self.fail_something();
            let wait = if self.random.chance(10) { self.random.below(4_000) } else { self.random.below(40) };
            self.pass(millis(wait));
            self.settle();
        }
        self.quiet();
        self.tally.add(Seen::RepeatWhileExecuting, self.pair.copies.0);
        self.tally.add(Seen::RepeatAfterAnswer, self.pair.copies.1);
        Told { trace: self.pair.trace_hash(), seen: self.tally }
    }

    /// A new process of an identity begins to work.
    fn hire(&mut self, name: u8) {
        let random = &mut self.random;
        let mut line =
            |spec| LineSpec { delay_us: 50 + random.below(3_000), jitter_us: random.below(2_000), ..spec };
        let lines = [line(LineSpec::BOTH), line(LineSpec::BOTH), line(LineSpec::BULK)];
        let who = self.pair.client(name, &lines);
        self.workers.push((who, name));
    }

    /// Lets time pass, and looks after each step.
    fn pass(&mut self, span: Duration) {
        let deadline = self.pair.now().after(span);
        self.pass_until(deadline);
    }

    fn pass_until(&mut self, deadline: Time) {
        while self.pair.step_until(deadline) {
            STEPS.set(STEPS.get() + 1);
            self.watch.look(&self.pair, &self.shadow, &mut self.tally);
        }
    }

    fn fail_something(&mut self) {
        match self.random.below(100) {
            0..8 => {
                self.pair.disk.hold_writes = self.random.pick(4);
                self.pair.disk.hold_reads = self.random.pick(4);
                self.pair.disk.hold_opens = self.random.pick(3);
            }
            8..30 => self.pair.release_disk(),
            30..34 if self.kills_left > 0 => self.kill(),
            34..38 if self.crashes_left > 0 => self.crash(),
            38..50 => self.contend(),
            50..54 => self.ask_steal(),
            54..58 => {
                let file = self.random.pick(FILES.len());
                self.ask_open_and_leave(file);
            }
            58..64 => self.inherit(),
            64..68 => self.fill_the_store(!self.pair.store.is_full),
            _ if self.pair.store.is_full && self.random.chance(30) => self.fill_the_store(false),
            _ => {}
        }
    }

    /// The disk of the store has no room for new records, or has room again.
    fn fill_the_store(&mut self, is_full: bool) {
        if self.pair.store.is_full {
            self.full_until = self.pair.now();
        }
        self.pair.store.is_full = is_full;
    }

    /// Whether a request may have met a store without room since it was asked.
    pub(crate) fn has_met_a_full_store(&self, asked_at: Time) -> bool {
        self.pair.store.is_full || self.full_until >= asked_at
    }

    /// The stranger reads, if it may.
    fn ask_open_and_leave(&mut self, file: usize) {
        for part in self.shadow.usable(self.stranger) {
            self.ask_close(part);
        }
        self.ask_open(self.stranger, 3, (file, READ_ONLY, false));
    }

    /// Something happens to a line.
    fn strike(&mut self, who: Who, line: LineId) {
        let (pair, random) = (&mut self.pair, &mut self.random);
        let cut = Cut {
            client_after: millis(random.below(50)),
            server_after: millis(random.below(500)),
            loses_flight: random.chance(50),
        };
        match random.below(9) {
            0 => pair.cut(who, line, Cut::NOW),
            1 => pair.cut(who, line, cut),
            2 => pair.black_hole(who, line),
            3 => pair.stall(who, line),
            4 => {
                // What is on its way comes late, and the client has given the channel up.
                pair.stall_towards_server(who, line);
                let wait = millis(random.below(5));
                self.pass(wait);
                self.pair.cut(who, line, Cut { loses_flight: false, ..cut });
            }
            5 => (0..LINES).for_each(|line| pair.cut(who, LineId(line), cut)),
            _ => (0..LINES).for_each(|line| pair.heal(who, LineId(line))),
        }
    }

    /// A process ends; the keys that it was told are in the ring.
    fn kill(&mut self) {
        let at = self.random.pick(self.workers.len());
        let (who, name) = self.workers.swap_remove(at);
        self.kills_left -= 1;
        self.settle();
        for part in self.shadow.parts.iter_mut().filter(|part| part.who == who && part.life == Life::Usable) {
            part.life = Life::Inheritable(self.pair.core(who).current(part.handle));
        }
        self.pair.kill_client(who, self.random.chance(40));
        self.settle();
        self.hire(name);
    }

    /// The server ends, and the next one starts.
    fn crash(&mut self) {
        self.crashes_left -= 1;
        self.settle();
        let how = [
            Crash::Process,
            Crash::Process,
            Crash::Process,
            Crash::Machine,
            Crash::Machine,
            Crash::MachineWithTable,
        ];
        let how = how[self.random.pick(how.len())];
        for pending in &self.shadow.pending {
            // The process that comes first with a key takes the place of the one that it is of, and may end it.
            if let Asked::Take { giver, is_grant: false, .. } = pending.what {
                self.shadow.parts[giver].is_loose = true;
            }
        }
        let joint = self.joint_parts();
        let in_table: Vec<_> = self.pair.server.table().opens().map(|open| open.open).collect();
        let (kept, pending) = self.pair.crash_server(how, &mut self.random);
        if kept > 0 && kept < pending {
            self.tally.note(Seen::TornCommits);
        }
        let is_table_lost = how == Crash::MachineWithTable;
        if is_table_lost {
            self.tally.note(Seen::TableLost);
            let opens: Vec<_> = self.shadow.parts.iter().map(|part| part.open).collect();
            opens.into_iter().chain(in_table).for_each(|open| self.shadow.give_up(open));
        }
        if how != Crash::Process {
            self.check_joint(&joint);
            self.note_gone();
            self.lower_floors();
        }
        // What the crash itself executed belongs to the life before.
        self.watch.after_restart(&self.pair, &self.shadow, is_table_lost);
    }

    /// The parts in files that two clients have handles of, with which they may write.
    fn joint_parts(&self) -> Vec<Part> {
        let holders: Vec<HolderView<'_>> = self.pair.server.table().holders().collect();
        let is_told = |part: &&Part| {
            let handle = self.pair.core(part.who).current(part.handle);
            let is_it = |holder: &HolderView<'_>| {
                let is_there = matches!(holder.phase, HolderPhase::Live | HolderPhase::Away);
                holder.handle == handle && holder.rights.is_writing() && is_there
            };
            part.life == Life::Usable && holders.iter().any(is_it)
        };
        let told: Vec<&Part> = self.shadow.parts.iter().filter(is_told).collect();
        let is_joint =
            |part: &&&Part| told.iter().any(|other| other.file == part.file && other.who != part.who);
        told.iter().filter(is_joint).map(|&part| part.clone()).collect()
    }

    /// Of those who could write beside each other nobody has lost anything.
    fn check_joint(&mut self, parts: &[Part]) {
        for part in parts {
            for (&block, &version) in &part.unsynced {
                let found = self.durable_version(part.file, block);
                let text = format!("block {block} of {} is {found}, and {version} was told", part.file);
                let is_foul = self.shadow.block(part.file, block).is_foul;
                let gone = self.shadow.gone.get(&(part.who, part.open, block));
                if gone.is_some_and(|gone| *gone >= version) {
                    continue;
                }
                self.pair.check(is_foul || found >= version, &text);
                self.tally.note(Seen::LostBesideAnother);
            }
        }
    }

    /// Notes what may have gone with the machine, for all that its clients were told.
    fn note_gone(&mut self) {
        for part in &self.shadow.parts {
            let unsynced = part.unsynced.iter();
            self.shadow
                .gone
                .extend(unsynced.map(|(&block, &version)| ((part.who, part.open, block), version)));
        }
    }

    /// What was not durable is gone: nobody has to read it any more.
    fn lower_floors(&mut self) {
        for file in 0..FILES.len() {
            for block in 0..BLOCKS {
                let version = self.durable_version(file, block);
                let durable = self.shadow.block(file, block).durable;
                self.pair.check(version >= durable, "a write that was told to be durable is lost");
                let at = self.shadow.block(file, block);
                at.floor = at.floor.min(version);
            }
        }
        for pending in &mut self.shadow.pending {
            if let Asked::Read { part, block, floor } = &mut pending.what {
                let file = self.shadow.parts[*part].file;
                *floor = (*floor).min(self.shadow.files[file].blocks[*block].floor);
            }
        }
    }

    /// Somebody wants the file of an orphan, one tick before its grace is over or when it is.
    fn contend(&mut self) {
        let orphans = self.watch.orphans(&self.pair);
        if orphans.is_empty() || !self.pair.core(self.stranger).is_complete() {
            return;
        }
        let (open, inode, _, deadline) = orphans[self.random.pick(orphans.len())];
        let is_early = self.random.chance(50);
        let at = if is_early { Time(deadline.0 - 1) } else { Time(deadline.0 + self.random.below(2)) };
        if at < self.pair.now() {
            return;
        }
        self.pass_until(at);
        self.settle();
        let still = self.pair.server.table().open(open).and_then(|open| open.deadline) == Some(deadline);
        if !still || !self.pair.core(self.stranger).is_complete() {
            return;
        }
        for part in self.shadow.usable(self.stranger) {
            self.ask_close(part);
        }
        let file = FILES.iter().position(|path| self.pair.disk.inode_of(path) == inode).unwrap();
        let usual = std::mem::take(&mut self.pair.disk_us);
        let create_id = self.pair.create_id(self.stranger);
        let mode = OpenMode::READ_WRITE.exclusive();
        let spec =
            OpenSpec { mode, create_id, resumable: false, with_key: false, ..OpenSpec::of(FILES[file]) };
        let ticket = self.pair.open_as(self.stranger, spec);
        self.pend(self.stranger, ticket, Asked::Contend { file, open, is_early });
        self.pass_until(at);
        self.pair.disk_us = usual;
    }

    /// Whoever works under the same identity takes over what is in the ring.
    fn inherit(&mut self) {
        for (who, name) in self.workers.clone() {
            let left: Vec<usize> = (0..self.shadow.parts.len())
                .filter(|&at| {
                    let part = &self.shadow.parts[at];
                    part.name == name && matches!(part.life, Life::Inheritable(_))
                })
                .collect();
            left.into_iter().for_each(|part| self.ask_inherit(who, name, part));
        }
    }

    /// Nothing fails any more: whatever was asked is answered, what is in the ring comes back, and what was told is there.
    fn quiet(&mut self) {
        for who in self.pair.everybody() {
            (0..LINES).for_each(|line| self.pair.heal(who, LineId(line)));
        }
        self.pair.release_disk();
        self.fill_the_store(false);
        self.finish();
        for _ in 0..20 {
            self.inherit();
            self.finish();
            self.pass(millis(500));
        }
        let is_left = self.shadow.parts.iter().any(|part| matches!(part.life, Life::Inheritable(_)));
        self.pair.check(!is_left, "a key in the ring does not come back");
        for part in (0..self.shadow.parts.len())
            .filter(|&part| self.shadow.parts[part].life == Life::Usable)
            .collect::<Vec<_>>()
        {
            self.ask_read(part);
            self.ask_sync(part);
        }
        self.finish();
        for part in 0..self.shadow.parts.len() {
            if self.shadow.parts[part].life == Life::Usable {
                self.ask_close(part);
            }
        }
        self.finish();
        self.read_all();
        self.check_end_of_all();
    }

    /// Everything that was asked has its answer.
    fn finish(&mut self) {
        let deadline = self.pair.now().after(Duration::from_secs(200));
        loop {
            self.settle();
            let living = self.pair.everybody().filter(|&who| !self.pair.is_dead(who));
            let is_done = living.into_iter().all(|who| self.pair.core(who).outstanding().0 == 0);
            if is_done && self.shadow.pending.is_empty() {
                return;
            }
            self.pair
                .check(self.pair.now() < deadline, "a request has no answer, and nothing fails any more");
            self.pass(millis(50));
        }
    }

    /// Each block is as it was acknowledged last, for somebody who was not there.
    fn read_all(&mut self) {
        for (file, path) in FILES.into_iter().enumerate() {
            let deadline = self.pair.now().after(Duration::from_secs(60));
            let handle = loop {
                let open = self.pair.open(self.stranger, path);
                self.finish();
                let opened = self.pair.outcome(self.stranger, open).is_some_and(Result::is_ok);
                if opened {
                    break self.pair.opened(self.stranger, open).0;
                }
                self.pair.check(self.pair.now() < deadline, "a file is kept from everybody");
                self.pass(millis(500));
            };
            for block in 0..BLOCKS {
                let bytes = self.read_unlocked(handle, block);
                let version = version_of(file, block, &bytes);
                let at = self.shadow.block(file, block).clone();
                let is_right = version.is_some_and(|version| (at.floor..=at.issued).contains(&version));
                self.pair.check(is_right, "an acknowledged write is not there");
            }
            let close = self.pair.close(self.stranger, handle);
            self.pair.finish(self.stranger, close);
        }
    }

    /// A lock of somebody who is away is there until its grace is over.
    fn read_unlocked(&mut self, handle: HandleId, block: usize) -> Payload {
        let deadline = self.pair.now().after(Duration::from_secs(60));
        loop {
            let len = u32::try_from(BLOCK).unwrap();
            let read = self.pair.read(self.stranger, handle, offset_of(block), len);
            self.finish();
            match self.pair.take_outcome(self.stranger, read) {
                Some(Ok(Answer::Read(bytes))) => return bytes.unwrap_or_default(),
                Some(Err(error)) if reason(&error) == Some(Reason::Locked) => {}
                other => self.pair.fail(&format!("a read failed: {other:?}")),
            }
            self.pair.check(self.pair.now() < deadline, "a block is kept from everybody");
            self.pass(millis(500));
        }
    }

    fn check_end_of_all(&mut self) {
        let offence = self.pair.notes.iter().find(|note| matches!(note, ServerNote::Offence { .. }));
        self.pair.check(offence.is_none(), "a client that keeps the protocol was called an offender");
        let living: Vec<Who> = self.pair.everybody().filter(|&who| !self.pair.is_dead(who)).collect();
        for &who in &living {
            self.pair.check(self.pair.core(who).is_complete(), "a channel does not come back");
            self.pair.check(self.pair.core(who).held_handles().count() == 0, "a handle is left");
            let controls = self.pair.live(who, ChannelKind::Control).len();
            self.pair.check(controls <= 2, "more control channels than are wanted");
        }
        let held = |phase| matches!(phase, OpenPhase::Held | OpenPhase::Closing);
        let is_held = self.pair.server.table().opens().any(|open| held(open.phase));
        self.pair.check(!is_held, "an open is held, and nobody has it");
        let opens = self.pair.server.table().opens_len();
        self.pair.check(self.pair.disk.descriptors() == opens, "a descriptor was left");
    }
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
