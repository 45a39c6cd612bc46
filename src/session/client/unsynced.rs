//! What a server has acknowledged for one open as received and not as durable: a map of ranges, newest over older.
//!
//! ```text
//!   write 1   aaaaaaaaaa                          pieces    aaabbbbaaa    ~~~~
//!   write 2      bbbb            becomes          of write  1  2   1      3
//!   hole  3                 ~~~~
//! ```
//!
//! Bytes are kept until a sync makes them durable, because they are gone if the server's page cache is. Each write has
//! a number, in the order in which they were acknowledged: a sync covers those that had one when it was sent. Each
//! piece has the *cache* that it is in; a piece of another cache than the present one is *stale*: it has to be written
//! again, or to be given up.
//!
//! What counts are whole writes, as long as any piece of them is kept: a payload stays in memory as a whole. So what
//! is kept is bounded by what is charged for it. This file decides nothing about sessions, handles and syncs;
//! `written` does. protocol.md: Coming back.

use core::ops::Bound;
use std::collections::BTreeMap;

use crate::model::{ByteRange, LineSet, len_u64};
use crate::session::Payload;

/// What is kept of one open.
#[derive(Debug)]
pub(super) struct Unsynced<P> {
    /// By their first bytes.
    pieces: BTreeMap<u64, Piece>,
    /// By their numbers: those of which a piece is left.
    writes: BTreeMap<u64, Write<P>>,
    /// Lengths that the file was given, each greater than the one before: one that is followed by a lesser one is told
    /// by that.
    lengths: Vec<Length>,
    /// Where the file ends at least, because bytes were written up to there that a hole has replaced.
    grown: Option<Length>,
    charge: u64,
}

/// What has become of a range.
#[derive(Debug, Clone)]
pub(super) enum Change<P> {
    /// These bytes were written.
    Bytes(P),
    /// It became a hole.
    Hole,
    /// Bytes were written, and nobody here can write them again.
    Lost,
}

/// A part of a write that nothing newer has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Behind its last byte.
    end: u64,
    write: u64,
    cache: u64,
}

#[derive(Debug)]
struct Write<P> {
    start: u64,
    change: Change<P>,
    /// What is charged for its payload.
    bytes: u64,
    lines: LineSet,
    pieces: u32,
}

/// The file was cut or extended: what was behind it reads as zeros, or was written after it.
#[derive(Debug, Clone, Copy)]
struct Length {
    len: u64,
    write: u64,
    cache: u64,
}

/// What has to be done again before bytes are written again, the next one last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resize {
    /// The file gets this length.
    To(u64),
    /// The file gets this length, if it is shorter.
    UpTo(u64),
}

/// A piece that has to be written again.
#[derive(Debug)]
pub(super) struct Stale<P> {
    pub(super) range: ByteRange,
    /// The number of its write.
    pub(super) write: u64,
    pub(super) change: Change<P>,
    /// The lines that it may go over.
    pub(super) lines: LineSet,
}

impl<P> Default for Unsynced<P> {
    fn default() -> Self {
        Self { pieces: BTreeMap::new(), writes: BTreeMap::new(), lengths: Vec::new(), grown: None, charge: 0 }
    }
}

impl<P: Payload> Unsynced<P> {
    /// Takes the place of whatever is kept of the range. `write` is higher than every number before.
    pub(super) fn keep(
        &mut self,
        range: ByteRange,
        (write, cache): (u64, u64),
        (change, lines): (Change<P>, LineSet),
    ) {
        if let Some(end) = matches!(change, Change::Hole).then(|| self.bytes_end(range)).flatten() {
            let len = self.grown.map_or(end, |grown| grown.len.max(end));
            self.grown = Some(Length { len, write, cache });
        }
        self.forget(range);
        let bytes = match &change {
            Change::Bytes(_) => range.end().saturating_sub(range.start()),
            Change::Hole | Change::Lost => 0,
        };
        self.charge = self.charge.saturating_add(bytes);
        self.writes.insert(write, Write { start: range.start(), change, bytes, lines, pieces: 0 });
        self.add(range.start(), Piece { end: range.end(), write, cache });
    }

    /// The file was given this length.
    pub(super) fn set_len(&mut self, len: u64, (write, cache): (u64, u64)) {
        if let Some(behind) = ByteRange::from_start(len) {
            self.forget(behind);
        }
        self.keep_lengths(|length| length.len < len);
        self.grown = None;
        self.charge = self.charge.saturating_add(PIECE_COST);
        self.lengths.push(Length { len, write, cache });
    }

    /// What is kept of the range is not wanted any more: it is durable, or something newer is.
    pub(super) fn forget(&mut self, range: ByteRange) {
        let before = self.pieces.range(..range.start()).next_back().map(|(&start, &piece)| (start, piece));
        if let Some((start, piece)) = before.filter(|(_, piece)| piece.end > range.start()) {
            if piece.end > range.end() {
                self.add(range.end(), piece);
            }
            if let Some(piece) = self.pieces.get_mut(&start) {
                piece.end = range.start();
            }
        }
        let within = (Bound::Included(range.start()), Bound::Excluded(range.end()));
        while let Some((&start, &piece)) = self.pieces.range(within).next() {
            if piece.end > range.end() {
                self.add(range.end(), piece);
            }
            self.remove(start);
        }
    }

    /// Everything with a lower number than `covers` is durable.
    pub(super) fn synced(&mut self, covers: u64) {
        let durable: Vec<u64> =
            self.pieces.iter().filter(|(_, piece)| piece.write < covers).map(|(&start, _)| start).collect();
        durable.into_iter().for_each(|start| self.remove(start));
        self.keep_lengths(|length| length.write >= covers);
        self.grown = self.grown.filter(|grown| grown.write >= covers);
    }

    /// What is to become of the file's length first: what was cut off is not to be seen again, and then the file is to be
    /// as long as it was.
    pub(super) fn stale_lengths(&self, cache: u64) -> Vec<Resize> {
        let stale = |length: &&Length| length.cache != cache;
        let (least, last) = (self.lengths.first().filter(stale), self.lengths.last().filter(stale));
        let least = least.filter(|least| last.is_some_and(|last| last.len != least.len));
        let grown = self.grown.as_ref().filter(stale).map(|grown| Resize::UpTo(grown.len));
        let set = |length: &Length| Resize::To(length.len);
        grown.into_iter().chain(last.map(set)).chain(least.map(set)).collect()
    }

    /// The file was given its lengths again.
    pub(super) fn lengths_renewed(&mut self, cache: u64) {
        self.lengths.iter_mut().chain(&mut self.grown).for_each(|length| length.cache = cache);
    }

    /// The first piece from `from` on that is in another cache.
    pub(super) fn next_stale(&self, from: u64, cache: u64) -> Option<Stale<P>> {
        let (&start, piece) = self.pieces.range(from..).find(|(_, piece)| piece.cache != cache)?;
        let write = self.writes.get(&piece.write)?;
        let range = ByteRange::between(start, piece.end)?;
        let change = match &write.change {
            Change::Bytes(payload) => {
                let part = |from: u64, to: u64| u32::try_from(to.saturating_sub(from)).ok();
                Change::Bytes(payload.part(part(write.start, start)?, part(start, piece.end)?))
            }
            Change::Hole => Change::Hole,
            Change::Lost => Change::Lost,
        };
        Some(Stale { range, write: piece.write, change, lines: write.lines })
    }

    /// A piece of a write was written again.
    pub(super) fn renewed(&mut self, range: ByteRange, write: u64, cache: u64) {
        if let Some(piece) = self.pieces.get_mut(&range.start()).filter(|piece| piece.write == write) {
            piece.cache = cache;
        }
    }

    /// Gives up what is in another cache, and tells where that was.
    pub(super) fn give_up_stale(&mut self, cache: u64) -> Vec<ByteRange> {
        let is_stale = |(_, piece): &(&u64, &Piece)| piece.cache != cache;
        let stale = self.pieces.iter().filter(is_stale);
        let mut lost: Vec<ByteRange> =
            stale.filter_map(|(&start, piece)| ByteRange::between(start, piece.end)).collect();
        lost.iter().for_each(|range| self.remove(range.start()));
        if let Some(least) = self.lengths.first().filter(|least| least.cache != cache) {
            lost.extend(ByteRange::from_start(least.len));
        }
        self.keep_lengths(|length| length.cache == cache);
        self.grown = self.grown.filter(|grown| grown.cache == cache);
        lost
    }

    pub(super) fn is_stale(&self, cache: u64) -> bool {
        !self.stale_lengths(cache).is_empty() || self.pieces.values().any(|piece| piece.cache != cache)
    }

    /// Whether the file has been given a length that may be lost: then bytes that are durable may be cut off again.
    pub(super) fn has_length(&self) -> bool {
        !self.lengths.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.lengths.is_empty()
    }

    /// How much memory is charged for it, in bytes: never less than its payloads have.
    pub(super) fn charge(&self) -> u64 {
        self.charge
    }

    /// Where the last bytes end that are kept within a range.
    fn bytes_end(&self, range: ByteRange) -> Option<u64> {
        let overlapping =
            self.pieces.range(..range.end()).rev().take_while(|(_, piece)| piece.end > range.start());
        let bytes = overlapping.filter(|(_, piece)| {
            self.writes.get(&piece.write).is_some_and(|write| !matches!(write.change, Change::Hole))
        });
        bytes.map(|(_, piece)| piece.end.min(range.end())).max()
    }

    fn keep_lengths(&mut self, is_kept: impl Fn(&Length) -> bool) {
        let before = len_u64(self.lengths.len());
        self.lengths.retain(is_kept);
        let gone = before.saturating_sub(len_u64(self.lengths.len()));
        self.charge = self.charge.saturating_sub(gone.saturating_mul(PIECE_COST));
    }

    /// Adds a piece of a write that is there.
    fn add(&mut self, start: u64, piece: Piece) {
        let Some(write) = self.writes.get_mut(&piece.write) else { return };
        write.pieces = write.pieces.saturating_add(1);
        self.charge = self.charge.saturating_add(PIECE_COST);
        self.pieces.insert(start, piece);
    }

    fn remove(&mut self, start: u64) {
        let Some(piece) = self.pieces.remove(&start) else { return };
        self.charge = self.charge.saturating_sub(PIECE_COST);
        let Some(write) = self.writes.get_mut(&piece.write) else { return };
        write.pieces = write.pieces.saturating_sub(1);
        if write.pieces == 0 {
            self.charge = self.charge.saturating_sub(write.bytes);
            self.writes.remove(&piece.write);
        }
    }
}

/// Puts ranges in order and together where they touch, and makes one of the last ones where they are too many.
pub(super) fn merge(mut ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    ranges.sort_unstable();
    let mut merged: Vec<ByteRange> = Vec::new();
    for range in ranges {
        let is_full = merged.len() >= LOST_MAX;
        match merged.last_mut() {
            Some(last) if is_full || range.start() <= last.end() => {
                *last = ByteRange::between(last.start(), last.end().max(range.end())).unwrap_or(*last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What a piece is charged beside its write's payload, in bytes: its places in both maps, and room for the allocator.
const PIECE_COST: u64 = 256;
/// Ranges by which it is told what was lost.
const LOST_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    type Kept = Unsynced<Bytes>;

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::between(start, start + len).unwrap()
    }

    fn keep(kept: &mut Kept, start: u64, bytes: &'static [u8], write: u64, cache: u64) {
        let change = (Change::Bytes(Bytes::from_static(bytes)), LineSet::ALL);
        kept.keep(range(start, len_u64(bytes.len())), (write, cache), change);
    }

    /// What is written again, in order.
    fn stale(kept: &Kept, cache: u64) -> Vec<(u64, Option<Bytes>)> {
        let mut from = 0;
        let next = || {
            let stale = kept.next_stale(from, cache)?;
            from = stale.range.end();
            Some((
                stale.range.start(),
                match stale.change {
                    Change::Bytes(bytes) => Some(bytes),
                    Change::Hole | Change::Lost => None,
                },
            ))
        };
        core::iter::from_fn(next).collect()
    }

    #[test]
    fn newest_over_older_and_only_what_is_in_another_cache_is_stale() {
        let mut kept = Kept::default();
        keep(&mut kept, 10, b"aaaaaaaaaa", 1, 0);
        keep(&mut kept, 13, b"bbbb", 2, 0);
        keep(&mut kept, 18, b"cccc", 3, 1);
        let of = |at, bytes: &'static [u8]| (at, Some(Bytes::from_static(bytes)));
        assert_eq!(stale(&kept, 1), [of(10, b"aaa"), of(13, b"bbbb"), of(17, b"a")]);
        assert_eq!(stale(&kept, 0), [of(18, b"cccc")]);
        kept.renewed(range(13, 4), 2, 1);
        assert_eq!(stale(&kept, 1), [of(10, b"aaa"), of(17, b"a")]);
        assert_eq!(kept.give_up_stale(1), [range(10, 3), range(17, 1)]);
        assert!(!kept.is_stale(1) && !kept.is_empty());
    }

    #[test]
    fn a_sync_covers_what_was_acknowledged_before_it_was_sent() {
        let mut kept = Kept::default();
        keep(&mut kept, 0, b"aaaaaaaa", 1, 0);
        kept.set_len(6, (2, 0));
        keep(&mut kept, 2, b"bb", 3, 0);
        kept.synced(3);
        assert_eq!(stale(&kept, 1), [(2, Some(Bytes::from_static(b"bb")))]);
        assert_eq!(kept.stale_lengths(1), []);
        kept.synced(4);
        assert!(kept.is_empty());
        assert_eq!(kept.charge(), 0);
    }

    #[test]
    fn a_length_is_the_least_and_the_last_one() {
        let mut kept = Kept::default();
        keep(&mut kept, 0, b"aaaaaaaa", 1, 0);
        kept.set_len(100, (2, 0));
        kept.set_len(5, (3, 0));
        kept.set_len(50, (4, 0));
        assert_eq!(kept.stale_lengths(1), [Resize::To(50), Resize::To(5)]);
        assert_eq!(stale(&kept, 1), [(0, Some(Bytes::from_static(b"aaaaa")))]);
        kept.lengths_renewed(1);
        assert_eq!(kept.stale_lengths(1), []);
        kept.set_len(3, (5, 1));
        assert_eq!(kept.give_up_stale(2), [range(0, 3), ByteRange::from_start(3).unwrap()]);
        assert!(kept.is_empty());
    }

    #[test]
    fn bytes_that_a_hole_has_replaced_have_made_the_file_longer() {
        let mut kept = Kept::default();
        keep(&mut kept, 0, b"aaaaaaaa", 1, 0);
        kept.keep(range(4, 100), (2, 0), (Change::Hole, LineSet::ALL));
        assert_eq!(kept.stale_lengths(1), [Resize::UpTo(8)]);
        assert!(kept.is_stale(1) && !kept.is_stale(0));
        kept.synced(3);
        assert_eq!(kept.stale_lengths(1), []);
    }

    #[test]
    fn a_payload_counts_as_long_as_any_piece_of_it_is_kept() {
        let mut kept = Kept::default();
        keep(&mut kept, 0, &[1; 1000], 1, 0);
        keep(&mut kept, 1, &[2; 998], 2, 0);
        assert_eq!(kept.charge(), 1000 + 998 + 3 * PIECE_COST);
        keep(&mut kept, 0, b"c", 3, 0);
        assert_eq!(kept.charge(), 1000 + 998 + 1 + 3 * PIECE_COST, "its last byte is kept");
        kept.forget(range(999, 1));
        assert_eq!(kept.charge(), 998 + 1 + 2 * PIECE_COST);
    }

    #[test]
    fn lost_ranges_are_few() {
        let many = (0..10_000).map(|at| range(at * 10, 3)).rev().chain([range(3, 7)]).collect();
        let merged = merge(many);
        assert_eq!((merged.len(), merged[0]), (LOST_MAX, range(0, 13)));
        assert_eq!(merged.last().unwrap().end(), 99_993);
    }

    /// What happens to a file that a server has in its page cache.
    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, u64),
        /// A write that is durable at once.
        Durable(u64, u64),
        Hole(u64, u64),
        SetLen(u64),
        /// A sync is sent now, and has its answer so many steps later.
        Sync(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
        let range = || (0..200_u64, 1..60_u64);
        let step = prop_oneof![
            6 => range().prop_map(|(at, len)| Step::Write(at, len)),
            1 => range().prop_map(|(at, len)| Step::Durable(at, len)),
            1 => range().prop_map(|(at, len)| Step::Hole(at, len)),
            2 => (0..250_u64).prop_map(Step::SetLen),
            2 => (0..5_usize).prop_map(Step::Sync),
        ];
        proptest::collection::vec((step, any::<bool>()), 1..60)
    }

    fn fill(number: u64) -> u8 {
        u8::try_from(number).unwrap()
    }

    fn at(offset: u64) -> usize {
        usize::try_from(offset).unwrap()
    }

    fn write(file: &mut Vec<u8>, start: u64, bytes: &[u8]) {
        let (start, end) = (at(start), at(start) + bytes.len());
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
    }

    fn punch(file: &mut [u8], range: ByteRange) {
        let end = file.len().min(at(range.end()));
        let start = end.min(at(range.start()));
        file[start..end].fill(0);
    }

    fn apply(file: &mut Vec<u8>, number: u64, step: &Step) {
        match *step {
            Step::Write(start, len) | Step::Durable(start, len) => {
                write(file, start, &vec![fill(number); at(len)]);
            }
            Step::Hole(start, len) => punch(file, range(start, len)),
            Step::SetLen(len) => file.resize(at(len), 0),
            Step::Sync(_) => {}
        }
    }

    fn acknowledge(kept: &mut Kept, number: u64, step: &Step) {
        let bytes = |len: u64| Change::Bytes(Bytes::from(vec![fill(number); at(len)]));
        match *step {
            Step::Durable(start, len) if !kept.has_length() => kept.forget(range(start, len)),
            Step::Write(start, len) | Step::Durable(start, len) => {
                kept.keep(range(start, len), (number, 0), (bytes(len), LineSet::ALL));
            }
            Step::Hole(start, len) => {
                kept.keep(range(start, len), (number, 0), (Change::Hole, LineSet::ALL));
            }
            Step::SetLen(len) => kept.set_len(len, (number, 0)),
            Step::Sync(_) => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// Whatever of what is not durable is lost with the page cache: written again, the file is as it was.
        #[test]
        fn written_again_the_file_is_as_it_was(steps in steps()) {
            let mut kept = Kept::default();
            let before = vec![0xee; 150];
            let mut cache = before.clone();
            let mut syncs: Vec<(usize, u64)> = Vec::new();
            let mut covered = 0;
            for (number, (step, _)) in (1_u64..).zip(&steps) {
                apply(&mut cache, number, step);
                acknowledge(&mut kept, number, step);
                if let Step::Sync(later) = step {
                    syncs.push((at(number) + later, number));
                }
                for (_, covers) in syncs.iter().filter(|sync| sync.0 <= at(number)) {
                    kept.synced(*covers);
                    covered = covered.max(*covers);
                }
                syncs.retain(|sync| sync.0 > at(number));
                let payloads: u64 = kept.writes.values().map(|write| write.bytes).sum();
                let places = len_u64(kept.pieces.len() + kept.lengths.len());
                prop_assert_eq!(kept.charge(), payloads + places * PIECE_COST);
                prop_assert!(kept.writes.values().all(|write| write.pieces > 0));
            }
            let mut disk = before;
            for (number, (step, reached_disk)) in (1_u64..).zip(&steps) {
                if *reached_disk || number < covered || matches!(step, Step::Durable(..)) {
                    apply(&mut disk, number, step);
                }
            }
            for resize in kept.stale_lengths(1).into_iter().rev() {
                match resize {
                    Resize::To(len) => disk.resize(at(len), 0),
                    Resize::UpTo(len) => disk.resize(disk.len().max(at(len)), 0),
                }
            }
            let mut from = 0;
            while let Some(stale) = kept.next_stale(from, 1) {
                match stale.change {
                    Change::Bytes(bytes) => write(&mut disk, stale.range.start(), &bytes),
                    Change::Hole | Change::Lost => punch(&mut disk, stale.range),
                }
                from = stale.range.end();
            }
            prop_assert_eq!(disk, cache);
        }
    }
}
