//! A disk in memory that fails, tears, forgets and fills up as it is told.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Seeded;
use crate::server::store::StoreError;
use crate::server::store::medium::Medium;
use crate::server::store::reserve::Room;

const BLOCK: usize = 4096;

/// What a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crash {
    /// The process ended: what it wrote is there, whether synced or not.
    Kill,
    /// The machine stopped: of what was not synced, each part is there or not.
    Power,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is read.
    bytes: Vec<u8>,
    /// What was there at the last sync.
    synced: Vec<u8>,
    /// What came after it.
    unsynced: Vec<Op>,
    noted: Option<u64>,
    /// Calls that change something, or make it last.
    calls: u64,
    /// The call that fails, how, and how much of it is done all the same.
    failing: Option<(u64, io::ErrorKind, Seeded)>,
    /// Blocks that were written to, and how many there can be.
    blocks: BTreeSet<usize>,
    blocks_max: Option<usize>,
    reserved: usize,
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl std::fmt::Debug for Seeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seeded({})", self.0)
    }
}

impl Disk {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let state = State { synced: bytes.clone(), bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn medium(&self) -> Arc<dyn Medium> {
        Arc::new(self.clone())
    }

    pub(super) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(super) fn noted(&self) -> Option<u64> {
        self.state().noted
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// Lets the call with this number, counted from 1, fail. A part of what it does is done, as the seed has it.
    pub(super) fn fail_at(&self, call: u64, kind: io::ErrorKind, seed: u64) {
        self.state().failing = Some((call, kind, Seeded(seed)));
    }

    /// Lets it have room for so many blocks of 4 KiB.
    pub(super) fn set_blocks_max(&self, blocks: usize) {
        self.state().blocks_max = Some(blocks);
    }

    pub(super) fn blocks(&self) -> usize {
        let state = self.state();
        state.blocks.len() + state.reserved
    }

    /// The disk as the next start finds it.
    pub(super) fn after(&self, crash: Crash, seed: u64) -> Self {
        let state = self.state();
        match crash {
            Crash::Kill => {
                let next = Self::of(state.bytes.clone());
                next.state().noted = state.noted;
                next
            }
            Crash::Power => {
                let mut random = Seeded(seed);
                let mut bytes = state.synced.clone();
                for op in &state.unsynced {
                    if let Some(op) = part(op, &mut random) {
                        apply(&mut bytes, &op);
                    }
                }
                Self::of(bytes)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// What a crash leaves of an operation: nothing, all of it, or the sectors up to some place or from there on.
fn part(op: &Op, random: &mut Seeded) -> Option<Op> {
    match (op, random.below(4)) {
        (_, 0) => None,
        (_, 1) | (Op::SetLen(_), _) => Some(op.clone()),
        (Op::Write(at, bytes), 2) => Some(Op::Write(*at, bytes[..random.below(bytes.len() + 1)].to_vec())),
        (Op::Write(at, bytes), _) => {
            let cut = random.below(bytes.len() + 1);
            Some(Op::Write(at + cut, bytes[cut..].to_vec()))
        }
    }
}

fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::SetLen(len) => bytes.resize(*len, 0),
        Op::Write(at, new) => {
            let end = at + new.len();
            // The growth that it belongs to may have been lost.
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(new);
        }
    }
}

impl State {
    /// Counts a call; a failing one does a part of `op`.
    fn call(&mut self, op: Option<Op>) -> io::Result<()> {
        self.calls += 1;
        if let Some((at, kind, random)) = &mut self.failing
            && self.calls >= *at
        {
            // What comes after the failure does nothing at all.
            let op = op.filter(|_| self.calls == *at).and_then(|op| part(&op, random));
            let kind = *kind;
            if let Some(op) = op {
                self.act(op);
            }
            return Err(kind.into());
        }
        if let Some(op) = op {
            self.take_room(&op)?;
            self.act(op);
        }
        Ok(())
    }

    fn act(&mut self, op: Op) {
        apply(&mut self.bytes, &op);
        self.unsynced.push(op);
    }

    /// Takes a block for what is written to for the first time; a length alone takes none, and a shorter one gives back.
    fn take_room(&mut self, op: &Op) -> io::Result<()> {
        match op {
            Op::SetLen(len) if *len < self.bytes.len() => {
                self.blocks.retain(|block| *block < len.div_ceil(BLOCK));
            }
            Op::SetLen(_) => {}
            Op::Write(at, bytes) => {
                for block in at / BLOCK..(at + bytes.len()).div_ceil(BLOCK) {
                    let is_full = self.blocks_max.is_some_and(|max| self.blocks.len() + self.reserved >= max);
                    if !self.blocks.contains(&block) && is_full {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    self.blocks.insert(block);
                }
            }
        }
        Ok(())
    }
}

impl Medium for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let begin = usize::try_from(at).unwrap();
        let end = begin.checked_add(into.len());
        let found = end.and_then(|end| state.bytes.get(begin..end));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().call(Some(Op::SetLen(usize::try_from(len).unwrap())))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.state().call(Some(Op::Write(usize::try_from(at).unwrap(), bytes.to_vec())))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.call(None)?;
        let State { synced, unsynced, .. } = &mut *state;
        unsynced.drain(..).for_each(|op| apply(synced, &op));
        Ok(())
    }

    fn note(&self, commits: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call(None)?;
        state.noted = Some(commits);
        Ok(())
    }

    fn claim(&self, at: u64, len: u64) -> io::Result<()> {
        let (mut state, begin) = (self.state(), usize::try_from(at).unwrap() / BLOCK);
        for block in begin..begin + usize::try_from(len).unwrap() / BLOCK {
            if state.blocks_max.is_some_and(|max| state.blocks.len() + state.reserved >= max) {
                break;
            }
            state.blocks.insert(block);
        }
        Ok(())
    }

    fn check_place(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Blocks of the disk that are taken ahead of need.
#[derive(Debug)]
pub(super) struct Reserve(pub(super) Disk, pub(super) usize);

impl Room for Reserve {
    fn take(&self) -> io::Result<()> {
        let mut state = self.0.state();
        if state.blocks_max.is_some_and(|max| state.blocks.len() + self.1 > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.reserved = self.1;
        Ok(())
    }

    fn give_back(&self) -> io::Result<u64> {
        let blocks = std::mem::take(&mut self.0.state().reserved);
        Ok(u64::try_from(blocks * BLOCK).unwrap())
    }

    fn give_back_some(&self) -> io::Result<bool> {
        Ok(false)
    }
}
