//! What of the open table persists: records under keys, and how safe they are. What is in them is bytes here.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Limits;
use super::protection::named_enum;

named_enum! {
    /// What a record of the open table is about.
    RecordKind {
        /// An open, with its holders, locks and the hashes of its resume keys; its key is the open's id.
        Open = "open",
        /// What is kept of an open that was closed under its absent owner.
        Tombstone = "tombstone",
        /// A change of the file system that was begun, and whose result is not recorded yet.
        Intent = "intent",
        /// A resume key that was made for another client.
        Grant = "grant",
    }
}

named_enum! {
    /// What a committed change of the open table survives.
    Durability {
        /// The end of the server, also by `kill -9`; not that of the machine.
        Process = "process",
        /// The end of the machine too: a commit waits for the disk.
        Machine = "machine",
    }
}

impl RecordKind {
    /// The number of the one intent that is none: up to which life of the server intents were given up. The others are
    /// numbered from 1 on.
    pub const HORIZON_KEY: u64 = 0;
}

/// One record of the open table. `Debug` shows how long it is, and not what is in it: paths are.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: RecordKind,
    /// Names it among those of its kind.
    pub key: u64,
    /// What it says; at most [`Limits::RECORD_LEN_MAX`] bytes.
    pub value: Vec<u8>,
}

/// A change of one record. `Debug` shows how long the new value is, and not what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// What the record is about.
    pub kind: RecordKind,
    /// Names it among those of its kind.
    pub key: u64,
    /// What it says from now on; `None`: there is no such record any more.
    pub value: Option<Vec<u8>>,
}

impl RecordChange {
    /// A record that says this from now on, whether it was there or not.
    #[must_use]
    pub fn put(kind: RecordKind, key: u64, value: Vec<u8>) -> Self {
        Self { kind, key, value: Some(value) }
    }

    /// A record that is there no more, whether it was or not.
    #[must_use]
    pub fn remove(kind: RecordKind, key: u64) -> Self {
        Self { kind, key, value: None }
    }

    /// Length of the new value, in bytes; 0 if there is none.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len)
    }

    /// Whether the value is as short as one has to be.
    #[must_use]
    pub fn is_within_limit(&self) -> bool {
        self.value_len() <= Limits::RECORD_LEN_MAX
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {:x}, {} bytes)", self.kind, self.key, self.value.len())
    }
}

impl fmt::Debug for RecordChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "RecordChange({} {:x}, {} bytes)", self.kind, self.key, value.len()),
            None => write!(f, "RecordChange({} {:x}, removed)", self.kind, self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_content() {
        let record = Record { kind: RecordKind::Open, key: 0x1f, value: b"/secret/path".to_vec() };
        assert_eq!(format!("{record:?}"), "Record(open 1f, 12 bytes)");
        let change = RecordChange::put(RecordKind::Grant, 2, b"/secret/path".to_vec());
        assert_eq!(format!("{change:?}"), "RecordChange(grant 2, 12 bytes)");
        let change = RecordChange::remove(RecordKind::Intent, 3);
        assert_eq!(format!("{change:?}"), "RecordChange(intent 3, removed)");
    }

    #[test]
    fn the_limit_is_the_last_length_that_is_taken() {
        let of = |len| RecordChange::put(RecordKind::Open, 1, vec![0; len]);
        assert!(of(Limits::RECORD_LEN_MAX).is_within_limit());
        assert!(!of(Limits::RECORD_LEN_MAX + 1).is_within_limit());
        assert!(RecordChange::remove(RecordKind::Open, 1).is_within_limit());
    }

    #[test]
    fn a_durability_is_one_of_two_words() {
        assert_eq!("process".parse(), Ok(Durability::Process));
        assert_eq!("machine".parse(), Ok(Durability::Machine));
        let error = "disk".parse::<Durability>().unwrap_err();
        assert_eq!(error, "\"disk\" is none of process, machine");
    }
}
