//! Finds those who wait for locks of a file, in one mode, by what they wait for.
//!
//! [`WaitIndex`] says who is before a turn, overlaps a range and belongs to another owner. What it takes depends
//! on how many levels are in use (64 at most) and on the depth of a tree, and hardly on how many wait: nobody is
//! looked at one by one, neither who waits elsewhere nor who waits for the same owner.
//!
//! Levels and nodes are those of `ranges.rs`. So what overlaps a range is, within a level, what starts in one
//! span of bytes or has its last byte in another. For each there is a binary [`Tree`] ordered by that byte and
//! then by turn, with a branch only where two keys part: what it looks like depends on nothing but what is in it.
//! Each branch knows the latest and the earliest turn below it, of two owners each, so that one is left if the
//! other is the one who asks.

use core::mem;
use std::collections::BTreeMap;

use super::locks::Turn;
use super::ranges::level_of;
use crate::model::{ByteRange, OpenId};

#[cfg(test)]
std::thread_local! {
    /// How many branches and leaves this thread has looked at to answer questions.
    pub(super) static LOOKS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Those who wait for locks of a file in one mode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct WaitIndex {
    /// Where anybody waits.
    levels: BTreeMap<u32, Level>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Level {
    by_start: Tree,
    by_last: Tree,
}

impl WaitIndex {
    /// Adds a waiter; nobody else has its turn.
    pub(super) fn insert(&mut self, range: ByteRange, turn: Turn, owner: OpenId) {
        let level = self.levels.entry(level_of(range)).or_default();
        level.by_start.insert(Leaf { at: range.start(), turn, owner });
        level.by_last.insert(Leaf { at: range.end() - 1, turn, owner });
    }

    pub(super) fn remove(&mut self, range: ByteRange, turn: Turn) {
        let number = level_of(range);
        let Some(level) = self.levels.get_mut(&number) else { return };
        level.by_start.remove(key(range.start(), turn));
        level.by_last.remove(key(range.end() - 1, turn));
        if level.by_start == Tree::Empty {
            self.levels.remove(&number);
        }
    }

    /// A waiter before `turn` that overlaps `range` and is not of `owner`, if there is one. It is the last one if
    /// nobody after `turn` is like that, and some other one otherwise.
    pub(super) fn before(&self, turn: Turn, owner: OpenId, range: ByteRange) -> Option<Turn> {
        let asked = Asked { turn, owner };
        let (start, end) = (range.start(), range.end());
        let found = self.levels.iter().flat_map(|(level, trees)| {
            let (from, to) = spans(*level, range);
            [asked.find(&trees.by_start, from, end), asked.find(&trees.by_last, start, to)]
        });
        found.flatten().max()
    }
}

/// What overlaps `range` starts from the one byte on and before its end, or has its last byte from its start on
/// and before the other.
fn spans(level: u32, range: ByteRange) -> (u64, u64) {
    let (start, end) = (range.start(), range.end());
    let node = (start >> level) << level;
    let half = (1_u64 << level) >> 1;
    if half == 0 || start >> level != (end - 1) >> level {
        // No node has more than the range on both sides.
        (start, end)
    } else if start < node + half {
        // All that starts before in this node reaches over its middle, and so into the range.
        (node, end)
    } else {
        (start, node + half + half)
    }
}

/// Unique, and ordered by the byte first.
fn key(at: u64, turn: Turn) -> u128 {
    (u128::from(at) << u64::BITS) | u128::from(turn.0)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leaf {
    at: u64,
    turn: Turn,
    owner: OpenId,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Tree {
    #[default]
    Empty,
    Leaf(Leaf),
    Branch(Box<Branch>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Branch {
    /// The highest bit in which keys below differ: those without it are on the left.
    bit: u32,
    /// The bits above it, which they share; the others are zero.
    prefix: u128,
    left: Tree,
    right: Tree,
    turns: Turns,
}

impl Tree {
    /// The lowest and the highest key that can be in it.
    fn bounds(&self) -> Option<(u128, u128)> {
        match self {
            Self::Empty => None,
            Self::Leaf(leaf) => Some((key(leaf.at, leaf.turn), key(leaf.at, leaf.turn))),
            Self::Branch(branch) => {
                Some((branch.prefix, branch.prefix | (u128::MAX >> (u128::BITS - 1 - branch.bit))))
            }
        }
    }

    fn turns(&self) -> Turns {
        match self {
            Self::Empty => Turns::default(),
            Self::Leaf(leaf) => {
                let mut turns = Turns::default();
                turns.add((leaf.turn, leaf.owner));
                turns
            }
            Self::Branch(branch) => branch.turns,
        }
    }

    fn insert(&mut self, leaf: Leaf) {
        let key = key(leaf.at, leaf.turn);
        match self {
            Self::Branch(branch) if branch.has(key) => {
                branch.side(key).insert(leaf);
                branch.turns.add((leaf.turn, leaf.owner));
            }
            _ => *self = mem::take(self).join(Self::Leaf(leaf)),
        }
    }

    /// Both in one. Their bounds are apart.
    fn join(self, other: Self) -> Self {
        let (Some((here, _)), Some((there, _))) = (self.bounds(), other.bounds()) else {
            return if self == Self::Empty { other } else { self };
        };
        let Some(bit) = (here ^ there).checked_ilog2() else { return other };
        let mut turns = self.turns();
        turns.merge(&other.turns());
        let (left, right) = if here < there { (self, other) } else { (other, self) };
        Self::Branch(Box::new(Branch { bit, prefix: above(here, bit), left, right, turns }))
    }

    fn remove(&mut self, key: u128) {
        match self {
            Self::Branch(branch) if branch.has(key) => {
                branch.side(key).remove(key);
                if branch.left == Self::Empty {
                    *self = mem::take(&mut branch.right);
                } else if branch.right == Self::Empty {
                    *self = mem::take(&mut branch.left);
                } else {
                    branch.turns = branch.left.turns();
                    branch.turns.merge(&branch.right.turns());
                }
            }
            Self::Leaf(_) if self.bounds() == Some((key, key)) => *self = Self::Empty,
            _ => {}
        }
    }
}

/// The bits of a key above one, and zeros.
fn above(key: u128, bit: u32) -> u128 {
    key & !(u128::MAX >> (u128::BITS - 1 - bit))
}

impl Branch {
    fn has(&self, key: u128) -> bool {
        above(key, self.bit) == self.prefix
    }

    fn side(&mut self, key: u128) -> &mut Tree {
        if (key >> self.bit) & 1 == 0 { &mut self.left } else { &mut self.right }
    }
}

/// Who asks, and for which turn.
#[derive(Clone, Copy)]
struct Asked {
    turn: Turn,
    owner: OpenId,
}

impl Asked {
    /// Somebody in the way whose byte is from `from` on and before `to`.
    fn find(self, tree: &Tree, from: u64, to: u64) -> Option<Turn> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let (low, high) = tree.bounds()?;
        let (from_key, to_key) = (key(from, Turn(0)), key(to, Turn(0)));
        if high < from_key || low >= to_key {
            return None;
        }
        // If nobody below is in the way at all, nobody in the span is.
        let found = tree.turns().before(self)?;
        match tree {
            Tree::Branch(branch) if low < from_key || high >= to_key => {
                self.find(&branch.left, from, to).max(self.find(&branch.right, from, to))
            }
            _ => Some(found),
        }
    }
}

type Whose = (Turn, OpenId);

/// The latest and the earliest of some waiters, and those of all who do not belong to the same owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Turns {
    latest: [Option<Whose>; 2],
    earliest: [Option<Whose>; 2],
}

impl Turns {
    fn add(&mut self, new: Whose) {
        rank(&mut self.latest, new, |one, two| one > two);
        rank(&mut self.earliest, new, |one, two| one < two);
    }

    fn merge(&mut self, other: &Self) {
        let (latest, earliest) = (other.latest.into_iter().flatten(), other.earliest.into_iter().flatten());
        latest.chain(earliest).for_each(|whose| self.add(whose));
    }

    /// The latest one if that is in the way, otherwise the earliest, if that is.
    fn before(&self, asked: Asked) -> Option<Turn> {
        let other = |of: &[Option<Whose>; 2]| {
            of.iter().flatten().find(|(_, owner)| *owner != asked.owner).map(|(turn, _)| *turn)
        };
        let (latest, earliest) = (other(&self.latest), other(&self.earliest));
        latest.filter(|turn| *turn < asked.turn).or_else(|| earliest.filter(|turn| *turn < asked.turn))
    }
}

/// Keeps the best of all first, and then the best of the other owners.
fn rank(best: &mut [Option<Whose>; 2], new: Whose, is_better: impl Fn(Turn, Turn) -> bool) {
    let [first, second] = best;
    match *first {
        Some(old) if is_better(new.0, old.0) => {
            if old.1 != new.1 {
                *second = Some(old);
            }
            *first = Some(new);
        }
        None => *first = Some(new),
        Some(old) if old.1 == new.1 => {}
        Some(_) => {
            if second.is_none_or(|old| is_better(new.0, old.0)) {
                *second = Some(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::super::ranges::tests::range;
    use super::*;

    fn index_of(kept: &[(ByteRange, Turn, OpenId)]) -> WaitIndex {
        let mut index = WaitIndex::default();
        kept.iter().for_each(|(range, turn, owner)| index.insert(*range, *turn, *owner));
        index
    }

    #[test]
    fn the_index_finds_who_is_before_and_nobody_else() {
        let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let waiters = vec((range(), 0..4_u64, any::<bool>()), 0..40);
        let outcome = runner.run(&(waiters, vec((range(), 0..42_u64, 0..5_u64), 24)), |(waiters, asked)| {
            let turns = (1..).map(Turn);
            let all: Vec<_> = turns
                .zip(waiters)
                .map(|(turn, (range, owner, stays))| (range, turn, OpenId(owner), stays))
                .collect();
            let mut index = WaitIndex::default();
            all.iter().for_each(|(range, turn, owner, _)| index.insert(*range, *turn, *owner));
            let gone = all.iter().filter(|(.., stays)| !stays);
            gone.for_each(|(range, turn, ..)| index.remove(*range, *turn));
            let kept: Vec<_> = all
                .iter()
                .filter(|(.., stays)| *stays)
                .map(|(range, turn, owner, _)| (*range, *turn, *owner))
                .collect();
            prop_assert_eq!(&index, &index_of(&kept), "what it looks like depends on what is in it");
            for (range, turn, owner) in asked {
                let (turn, owner) = (Turn(turn), OpenId(owner));
                let others = kept.iter().filter(|(other, _, whose)| *whose != owner && other.overlaps(range));
                let others: Vec<Turn> = others.map(|(_, turn, _)| *turn).collect();
                let found = index.before(turn, owner, range);
                prop_assert_eq!(found.is_some(), others.iter().any(|other| *other < turn));
                prop_assert!(found.is_none_or(|found| found < turn && others.contains(&found)));
                prop_assert_eq!(index.before(Turn::LAST, owner, range), others.iter().max().copied());
            }
            kept.iter().for_each(|(range, turn, _)| index.remove(*range, *turn));
            prop_assert_eq!(index, WaitIndex::default());
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{failure}"));
    }
}
