//! Identifiers. Each is a type of its own, so that none can stand in for another.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

bytes_id! {
    /// Names a session; random, chosen by the server, and no secret.
    SessionId
}
bytes_id! {
    /// Names a running client process: two programs of one identity are two instances.
    InstanceId
}
bytes_id! {
    /// Made by the client for one open and kept with it: the same id from the same identity gets the same open.
    CreateId
}
bytes_id! {
    /// Names a session in the clear part of a bind; random, and grants nothing.
    Locator
}
bytes_id! {
    /// Made by the client for one attempt to bind a channel; used once.
    AttemptNonce
}
bytes_id! {
    /// Names a table of opens: random, made with the table, and no secret. Another id means that what the other one
    /// knew is lost.
    StoreId
}
bytes_id! {
    /// Names the time between one start of the server's machine and the next; the kernel chooses it.
    BootId
}
number_id! {
    /// Number of a channel within its session; chosen by the client, used up by its first verified record.
    ChannelNumber(u32)
}
number_id! {
    /// Number of a request within its session; rises from 1, never reused. 0 stands for "no request".
    RequestId(u64)
}
number_id! {
    /// The server's random index of an open: the file id of a resume key.
    OpenId(u64)
}
number_id! {
    /// Names a holder's handle; random, valid in its own session only.
    HandleId(u64)
}
number_id! {
    /// Index of a line in its session's list of lines.
    LineId(u8)
}

impl RequestId {
    /// The id of records that are no request and no answer, such as pings.
    pub const NONE: Self = Self(0);
    /// The first id of a session.
    pub const FIRST: Self = Self(1);

    /// The id after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A set of lines, by index; at most [`LineSet::CAPACITY`] lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineSet(u64);

impl LineSet {
    /// How many lines one session can have.
    pub const CAPACITY: u8 = 64;
    /// Every line.
    pub const ALL: Self = Self(u64::MAX);
    /// No line.
    pub const NONE: Self = Self(0);

    /// This set and `line`; a line beyond [`LineSet::CAPACITY`] is left out.
    #[must_use]
    pub fn with(self, line: LineId) -> Self {
        Self(self.0 | Self::bit(line))
    }

    /// Whether `line` is in the set.
    #[must_use]
    pub fn contains(self, line: LineId) -> bool {
        self.0 & Self::bit(line) != 0
    }

    /// The set as bits: line 0 is the lowest.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn bit(line: LineId) -> u64 {
        1_u64.checked_shl(u32::from(line.0)).unwrap_or(0)
    }
}

impl FromIterator<LineId> for LineSet {
    fn from_iter<I: IntoIterator<Item = LineId>>(lines: I) -> Self {
        lines.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_set_holds_what_was_put_in() {
        let set: LineSet = [LineId(0), LineId(63)].into_iter().collect();
        assert!(set.contains(LineId(0)) && set.contains(LineId(63)));
        assert!(!set.contains(LineId(1)) && !set.contains(LineId(64)));
        assert!(LineSet::ALL.contains(LineId(17)));
        assert_eq!(LineSet::NONE.with(LineId(200)), LineSet::NONE);
    }
}
