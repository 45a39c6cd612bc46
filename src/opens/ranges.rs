//! Sets of locked ranges: those of one owner, and those of all owners of a file in one mode.
//!
//! [`Pieces`] are the locks of one owner. They are disjoint, and two that touch differ in mode: what POSIX calls
//! splitting and merging. [`RangeIndex`] answers which *other* owner has something in a range, and takes no
//! longer for it when a file has thousands of owners with thousands of ranges.
//!
//! The index is a centred interval tree without the tree. Each range belongs to a *node*: the smallest aligned
//! block of 2^level bytes that it lies in. So it lies on both sides of the middle of its node, and ranges of one
//! node differ only in how far they reach from there.
//!
//! ```text
//!   level 3   |               .               |   2..5 crosses the middle of 0..8
//!   level 1   |   .   |       |       |   .   |   6..8 crosses the middle of 6..8
//!             0   1   2   3   4   5   6   7   8
//! ```
//!
//! Within one level the order of nodes is the order of starts, and that of ends. Therefore two ordered sets are
//! enough, one by start and one by end, and three looks into them at each level that is in use (64 at most).

use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet, btree_set};

use crate::model::{ByteRange, LockMode, OpenId};

/// A range and the mode in which it is locked.
pub(super) type Lock = (ByteRange, LockMode);

/// The locks of one owner.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Pieces(BTreeMap<u64, Lock>);

/// What a call does to the locks of one owner.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Splice {
    /// What goes.
    out: Vec<Lock>,
    /// What comes in its place.
    into: Vec<Lock>,
    /// Whether others may find less in their way afterwards.
    frees: bool,
    /// Whether bytes are locked that the owner had not locked.
    gains: bool,
}

impl Splice {
    /// How many pieces an owner with `len` of them has afterwards.
    pub(super) fn len_after(&self, len: usize) -> usize {
        len.saturating_sub(self.out.len()).saturating_add(self.into.len())
    }

    pub(super) fn out(&self) -> impl Iterator<Item = Lock> {
        self.out.iter().copied()
    }

    pub(super) fn into(&self) -> impl Iterator<Item = Lock> {
        self.into.iter().copied()
    }

    pub(super) fn frees(&self) -> bool {
        self.frees
    }

    pub(super) fn gains(&self) -> bool {
        self.gains
    }
}

impl Pieces {
    /// What it takes to have `range` in the mode `target`, or unlocked for `None`. Changes nothing.
    pub(super) fn splice(&self, range: ByteRange, target: Option<LockMode>) -> Splice {
        let mut splice = Splice { gains: target.is_some() && !self.covers(range), ..Splice::default() };
        let (mut start, mut end) = (range.start(), range.end());
        let before = self.0.range(..range.start()).next_back();
        let behind = self.0.range(range.start()..=range.end());
        for (piece, mode) in before.into_iter().chain(behind).map(|(_, lock)| *lock) {
            let overlaps = piece.overlaps(range);
            let touches = piece.start() <= range.end() && range.start() <= piece.end();
            if touches && Some(mode) == target {
                start = start.min(piece.start());
                end = end.max(piece.end());
                splice.out.push((piece, mode));
            } else if overlaps {
                let left = ByteRange::between(piece.start(), range.start());
                let right = ByteRange::between(range.end(), piece.end());
                splice.out.push((piece, mode));
                splice.into.extend(left.into_iter().chain(right).map(|rest| (rest, mode)));
                splice.frees |= target != Some(LockMode::Exclusive);
            }
        }
        if let Some(mode) = target {
            splice.into.extend(ByteRange::between(start, end).map(|merged| (merged, mode)));
        }
        splice
    }

    pub(super) fn apply(&mut self, splice: &Splice) {
        for (piece, _) in splice.out() {
            self.0.remove(&piece.start());
        }
        self.0.extend(splice.into().map(|lock| (lock.0.start(), lock)));
    }

    /// Whether every byte of `range` is locked, in whichever modes.
    pub(super) fn covers(&self, range: ByteRange) -> bool {
        let before = self.0.range(..=range.start()).next_back();
        let behind = self.0.range(range.start() + 1..range.end());
        let mut covered = range.start();
        for (_, (piece, _)) in before.into_iter().chain(behind) {
            if piece.start() > covered {
                break;
            }
            covered = covered.max(piece.end());
        }
        covered >= range.end()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Lock> {
        self.0.values().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Asserts that the pieces are apart, and that those which touch could not be one.
    pub(super) fn check(&self) {
        let mut before: Option<Lock> = None;
        for (start, (piece, mode)) in &self.0 {
            assert_eq!(*start, piece.start(), "a piece is filed under another start");
            if let Some((last, last_mode)) = before.replace((*piece, *mode)) {
                assert!(last.end() <= piece.start(), "{last} and {piece} overlap");
                assert!(last.end() < piece.start() || last_mode != *mode, "{last} and {piece} are one");
            }
        }
    }
}

/// Level, start or end of the range, owner.
type Entry = (u32, u64, OpenId);

const FIRST: OpenId = OpenId(0);
const LAST: OpenId = OpenId(u64::MAX);

/// The locks of all owners of a file in one mode. The ranges of one owner are disjoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RangeIndex {
    by_start: BTreeSet<Entry>,
    by_end: BTreeSet<Entry>,
    /// How many ranges each level has, where it has any.
    levels: BTreeMap<u32, usize>,
}

impl RangeIndex {
    pub(super) fn insert(&mut self, range: ByteRange, owner: OpenId) {
        let level = level_of(range);
        self.by_start.insert((level, range.start(), owner));
        self.by_end.insert((level, range.end(), owner));
        *self.levels.entry(level).or_default() += 1;
    }

    pub(super) fn remove(&mut self, range: ByteRange, owner: OpenId) {
        let level = level_of(range);
        self.by_end.remove(&(level, range.end(), owner));
        if self.by_start.remove(&(level, range.start(), owner))
            && let Some(len) = self.levels.get_mut(&level)
        {
            *len = len.saturating_sub(1);
            if *len == 0 {
                self.levels.remove(&level);
            }
        }
    }

    /// The owners but `owner` that have something in `range`, an owner of several ranges perhaps more than once.
    pub(super) fn others(&self, range: ByteRange, owner: OpenId) -> impl Iterator<Item = OpenId> {
        let found = self.levels.keys().flat_map(move |level| self.at_level(*level, range));
        // What is skipped lies in the range or on the middle of its node: no more than the owner has there.
        found.map(|(.., other)| *other).filter(move |other| *other != owner)
    }

    /// Everything of one level that overlaps `range`.
    fn at_level(&self, level: u32, range: ByteRange) -> impl Iterator<Item = &Entry> {
        let (start, end) = (range.start(), range.end());
        let starting = self.by_start.range((level, start, FIRST)..(level, end, FIRST));
        let ending = self.by_end.range((level, start + 1, FIRST)..=(level, end, LAST));
        starting.chain(ending).chain(self.around(level, range).into_iter().flatten())
    }

    /// What has all of `range` and more on both sides; perhaps with some of what starts in it.
    fn around(&self, level: u32, range: ByteRange) -> Option<btree_set::Range<'_, Entry>> {
        let (start, end) = (range.start(), range.end());
        // Then the range is in one node with it, and both lie on the middle or the range on one side of it.
        let node = (start >> level) << level;
        let half = (1_u64 << level) >> 1;
        if half == 0 || start >> level != (end - 1) >> level {
            return None;
        }
        Some(if start < node + half {
            self.by_start.range((level, node, FIRST)..(level, start, FIRST))
        } else {
            let last = (level, node + half + half, LAST);
            self.by_end.range((Bound::Excluded((level, end, LAST)), Bound::Included(last)))
        })
    }
}

/// The level of the node of `range`: how many low bits its first and its last byte do not share.
pub(super) fn level_of(range: ByteRange) -> u32 {
    u64::BITS - (range.start() ^ (range.end() - 1)).leading_zeros()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    /// Ranges at both ends of what there can be, short and long ones.
    pub(in crate::opens) fn range() -> impl Strategy<Value = ByteRange> {
        let at =
            prop_oneof![0..40_u64, (0..40_u64).prop_map(|back| ByteRange::END_MAX - back), 0..1_u64 << 63];
        (at, prop_oneof![1..6_u64, 1..40_u64, 1..=1_u64 << 63])
            .prop_filter_map("beyond the end", |(start, len)| {
                ByteRange::between(start, start.checked_add(len)?.min(ByteRange::END_MAX))
            })
    }

    #[test]
    fn the_index_finds_what_overlaps_and_nothing_else() {
        let config = Config { cases: 3000, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let outcome =
            runner.run(&(vec((range(), 0..4_u64), 0..24), vec(range(), 12), 0..24_usize), |given| {
                let (ranges, asked, removed) = given;
                let mut index = RangeIndex::default();
                let mut kept: Vec<(ByteRange, OpenId)> = Vec::new();
                for (range, owner) in ranges {
                    let owner = OpenId(owner);
                    if kept.iter().all(|(other, whose)| *whose != owner || !other.overlaps(range)) {
                        kept.push((range, owner));
                        index.insert(range, owner);
                    }
                }
                kept.drain(..removed.min(kept.len())).for_each(|(range, owner)| index.remove(range, owner));
                for (range, own) in
                    asked.iter().flat_map(|range| (0..5).map(move |own| (*range, OpenId(own))))
                {
                    let found: BTreeSet<OpenId> = index.others(range, own).collect();
                    let overlapping =
                        kept.iter().filter(|(other, whose)| *whose != own && other.overlaps(range));
                    prop_assert_eq!(found, overlapping.map(|(_, whose)| *whose).collect::<BTreeSet<_>>());
                }
                kept.into_iter().for_each(|(range, owner)| index.remove(range, owner));
                prop_assert_eq!(index, RangeIndex::default());
                Ok(())
            });
        outcome.unwrap_or_else(|failure| panic!("{failure}"));
    }

    fn at(start: u64, end: u64) -> ByteRange {
        ByteRange::between(start, end).unwrap()
    }

    fn set(pieces: &mut Pieces, range: ByteRange, target: Option<LockMode>) -> String {
        let splice = pieces.splice(range, target);
        let len = splice.len_after(pieces.len());
        pieces.apply(&splice);
        pieces.check();
        assert_eq!(pieces.len(), len);
        let shown = pieces.iter().map(|(piece, mode)| match mode {
            LockMode::Shared => format!("s{piece}"),
            LockMode::Exclusive => format!("x{piece}"),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pieces_split_and_merge() {
        let (shared, exclusive) = (Some(LockMode::Shared), Some(LockMode::Exclusive));
        let mut pieces = Pieces::default();
        assert_eq!(set(&mut pieces, at(10, 20), shared), "s10..20");
        assert_eq!(set(&mut pieces, at(20, 30), shared), "s10..30");
        assert_eq!(set(&mut pieces, at(40, 50), shared), "s10..30 s40..50");
        assert_eq!(set(&mut pieces, at(30, 40), shared), "s10..50");
        assert_eq!(set(&mut pieces, at(20, 30), exclusive), "s10..20 x20..30 s30..50");
        assert_eq!(set(&mut pieces, at(5, 25), exclusive), "x5..30 s30..50");
        assert_eq!(set(&mut pieces, at(12, 14), None), "x5..12 x14..30 s30..50");
        assert_eq!(set(&mut pieces, at(12, 14), None), "x5..12 x14..30 s30..50");
        assert_eq!(set(&mut pieces, at(11, 40), shared), "x5..11 s11..50");
        assert_eq!(set(&mut pieces, ByteRange::from_start(45).unwrap(), exclusive), "x5..11 s11..45 x45..");
        assert_eq!(set(&mut pieces, ByteRange::ALL, None), "");
    }

    #[test]
    fn what_is_covered_has_no_gap() {
        let mut pieces = Pieces::default();
        assert!(!pieces.covers(at(0, 1)));
        set(&mut pieces, at(10, 20), Some(LockMode::Shared));
        set(&mut pieces, at(20, 30), Some(LockMode::Exclusive));
        set(&mut pieces, at(31, 40), Some(LockMode::Exclusive));
        for (start, end, covers) in
            [(10, 30, true), (12, 28, true), (20, 21, true), (9, 11, false), (10, 31, false), (25, 35, false)]
        {
            assert_eq!(pieces.covers(at(start, end)), covers, "{start}..{end}");
        }
    }

    #[test]
    fn only_bytes_that_were_not_locked_are_gained() {
        let mut pieces = Pieces::default();
        set(&mut pieces, at(10, 20), Some(LockMode::Exclusive));
        let gains = |start, end, target| pieces.splice(at(start, end), target).gains();
        assert!(gains(19, 21, Some(LockMode::Exclusive)) && gains(0, 1, Some(LockMode::Shared)));
        assert!(!gains(10, 20, Some(LockMode::Shared)) && !gains(12, 13, Some(LockMode::Exclusive)));
        assert!(!gains(0, 40, None));
    }

    #[test]
    fn only_what_lets_others_in_frees() {
        let mut pieces = Pieces::default();
        set(&mut pieces, at(10, 20), Some(LockMode::Exclusive));
        set(&mut pieces, at(20, 30), Some(LockMode::Shared));
        let frees = |start, end, target| pieces.splice(at(start, end), target).frees();
        assert!(frees(12, 13, None) && frees(12, 13, Some(LockMode::Shared)) && frees(29, 35, None));
        assert!(!frees(0, 10, None) && !frees(0, 40, Some(LockMode::Exclusive)));
        assert!(!frees(20, 40, Some(LockMode::Shared)));
    }
}
