//! A table that ends with the process.

use std::collections::BTreeMap;

use super::{StoreError, TableStore, check_lengths};
use crate::model::{Record, RecordChange, RecordKind};

/// The open table in memory: for servers without a state directory, and for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<(RecordKind, u64), Vec<u8>>,
    is_closed: bool,
}

impl MemoryStore {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl TableStore for MemoryStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let record = |(&(kind, key), value): (&(RecordKind, u64), &Vec<u8>)| Record {
            kind,
            key,
            value: value.clone(),
        };
        Ok(self.records.iter().map(record).collect())
    }

    fn check(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        if self.is_closed { Err(StoreError::Failed) } else { check_lengths(batch) }
    }

    fn commit(&mut self, batch: &[RecordChange]) -> Result<(), StoreError> {
        if self.is_closed {
            return Err(StoreError::Failed);
        }
        for change in batch {
            let key = (change.kind, change.key);
            match &change.value {
                Some(value) => drop(self.records.insert(key, value.clone())),
                None => drop(self.records.remove(&key)),
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_closed, true) { Err(StoreError::Failed) } else { Ok(()) }
    }
}
