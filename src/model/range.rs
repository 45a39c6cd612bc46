//! Ranges of bytes and the modes in which they are locked.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How a range is locked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum LockMode {
    /// Other opens may lock it so too, and read; nobody else writes.
    Shared,
    /// No other open locks, reads or writes it.
    Exclusive,
}

/// A range of bytes that is not empty, as the wire has it: `len` 0 means "up to the end of the file, wherever it
/// will be", as in POSIX. Unchecked; [`ByteRange::new`] parses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RawRange {
    /// The first byte.
    pub start: u64,
    /// How many bytes; 0: all that follow.
    pub len: u64,
}

/// A range of bytes that is not empty and ends where a file can end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// Behind the last byte that a file can have.
    pub const END_MAX: u64 = i64::MAX.unsigned_abs() + 1;
    /// Every byte.
    pub const ALL: Self = Self { start: 0, end: Self::END_MAX };

    /// The range of `raw`; `None` if it reaches beyond the last byte that a file can have (2^63 - 1).
    #[must_use]
    pub fn new(raw: RawRange) -> Option<Self> {
        let end = match raw.len {
            0 => Self::END_MAX,
            len => raw.start.checked_add(len)?,
        };
        (raw.start < end && end <= Self::END_MAX).then_some(Self { start: raw.start, end })
    }

    /// From `start` to the end of the file, wherever it will be; `None` beyond the last byte that a file can have.
    #[must_use]
    pub fn from_start(start: u64) -> Option<Self> {
        Self::new(RawRange { start, len: 0 })
    }

    /// The range from `start` up to and without `end`, if it is one.
    #[must_use]
    pub fn between(start: u64, end: u64) -> Option<Self> {
        (start < end && end <= Self::END_MAX).then_some(Self { start, end })
    }

    /// The first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The byte behind the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Whether both have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The range as the wire has it.
    #[must_use]
    pub const fn raw(self) -> RawRange {
        let len = if self.end == Self::END_MAX { 0 } else { self.end - self.start };
        RawRange { start: self.start, len }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end == Self::END_MAX {
            write!(f, "{}..", self.start)
        } else {
            write!(f, "{}..{}", self.start, self.end)
        }
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteRange({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_ranges() {
        let new = |start, len| ByteRange::new(RawRange { start, len });
        let last = i64::MAX.unsigned_abs();
        assert_eq!(new(0, 0), Some(ByteRange::ALL));
        assert_eq!(new(last, 1).map(ByteRange::end), Some(ByteRange::END_MAX), "the last byte is one");
        assert_eq!(new(last, 0), new(last, 1));
        for (start, len) in
            [(last, 2), (last + 1, 1), (last + 1, 0), (u64::MAX, 1), (1, u64::MAX), (0, last + 2)]
        {
            assert_eq!(new(start, len), None, "{start} {len}");
        }
        assert_eq!(new(7, 3).unwrap().raw(), RawRange { start: 7, len: 3 });
        assert_eq!(new(7, 0).unwrap().raw(), RawRange { start: 7, len: 0 });
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let (a, b) = (ByteRange::between(0, 4).unwrap(), ByteRange::between(4, 8).unwrap());
        assert!(!a.overlaps(b) && !b.overlaps(a));
        assert!(a.overlaps(a) && a.overlaps(ByteRange::between(3, 5).unwrap()));
        assert_eq!(ByteRange::between(4, 4), None);
    }
}
