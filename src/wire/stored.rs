//! The records of the open table as bytes. They are no messages and no part of the protocol: the store keeps them, and
//! the next server reads them. What a byte more or less in them means is decided by [`VERSION`], which stands in the store's
//! head.

use super::DecodeError;
use super::codec::{decode_record, encode_record};
use crate::model::{Epoch, StoredIntent, StoredOpen, StoredTombstone};

/// The version of what records say. It rises with each change of their bytes: those stand in the fuzzer's corpus, and a
/// test compares them.
pub const VERSION: u32 = 1;

/// The bytes of an open's record.
#[must_use]
pub fn encode_open(open: &StoredOpen) -> Vec<u8> {
    encode_record(open)
}

/// The open that a record says.
///
/// # Errors
/// [`DecodeError`]: the bytes are not its encoding.
pub fn decode_open(bytes: &[u8]) -> Result<StoredOpen, DecodeError> {
    decode_record(bytes)
}

/// The bytes of a tombstone's record.
#[must_use]
pub fn encode_tombstone(tombstone: &StoredTombstone) -> Vec<u8> {
    encode_record(tombstone)
}

/// The tombstone that a record says.
///
/// # Errors
/// [`DecodeError`]: the bytes are not its encoding.
pub fn decode_tombstone(bytes: &[u8]) -> Result<StoredTombstone, DecodeError> {
    decode_record(bytes)
}

/// The bytes of an intent's record.
#[must_use]
pub fn encode_intent(intent: &StoredIntent) -> Vec<u8> {
    encode_record(intent)
}

/// The intent that a record says.
///
/// # Errors
/// [`DecodeError`]: the bytes are not its encoding.
pub fn decode_intent(bytes: &[u8]) -> Result<StoredIntent, DecodeError> {
    decode_record(bytes)
}

/// The bytes of the record that says up to which life of the server intents were given up.
#[must_use]
pub fn encode_horizon(horizon: &Epoch) -> Vec<u8> {
    encode_record(horizon)
}

/// The life that such a record says.
///
/// # Errors
/// [`DecodeError`]: the bytes are not its encoding.
pub fn decode_horizon(bytes: &[u8]) -> Result<Epoch, DecodeError> {
    decode_record(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        CreateId, Ending, ExportPath, FileIdentity, FileMark, GrantId, HandleId, LockMode, OpenMode,
        PublicKey, RawRange, Rights, SessionId, StoredEndedGrant, StoredGrant, StoredHolder, StoredKey, Time,
    };

    fn open(locks: usize) -> StoredOpen {
        StoredOpen {
            owner: PublicKey([1; 32]),
            export: "media".parse().unwrap(),
            path: ExportPath::new(*b"films/a\xff").unwrap(),
            file: FileIdentity { device: 2, inode: 3, born_ns: 4 },
            mode: OpenMode::READ_WRITE,
            create_id: CreateId([4; 16]),
            grace_us: 5,
            guard: true,
            wrote: false,
            others_wrote: true,
            unsynced: true,
            has_kept: true,
            lost: false,
            expected: Some(FileMark { len: 6, changed_ns: -7 }),
            holders: vec![StoredHolder {
                handle: HandleId(8),
                session: SessionId([9; 16]),
                identity: PublicKey([1; 32]),
                rights: Rights::READ,
                is_opened: true,
                deadline: Some(Time(10)),
                grant: None,
            }],
            keys: vec![StoredKey {
                generation: 11,
                hash: [12; 32],
                home: HandleId(8),
                rights: Rights::READ,
                is_own: true,
                grant: Some(GrantId(15)),
            }],
            issued: 11,
            locks: vec![(RawRange { start: 13, len: 14 }, LockMode::Exclusive); locks],
            renewals: 1,
            grants: vec![StoredGrant {
                grant: GrantId(15),
                giver: Some(HandleId(8)),
                from: PublicKey([1; 32]),
                to: PublicKey([16; 32]),
                rights: Rights::READ,
                ends: Some(Time(17)),
                renewed_us: 18,
                is_delivered: true,
                gives_up: false,
                is_taken: true,
                parent: Some(GrantId(19)),
                key: Some((10, [20; 32])),
            }],
            ended_grants: vec![StoredEndedGrant {
                grant: GrantId(19),
                to: PublicKey([16; 32]),
                keys: vec![(9, [21; 32])],
            }],
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        for locks in [0, 1, 4096] {
            let record = open(locks);
            assert_eq!(decode_open(&encode_open(&record)), Ok(record));
        }
        let tombstone = StoredTombstone {
            order: 1,
            owner: PublicKey([1; 32]),
            keys: vec![(2, [3; 32], None), (3, [4; 32], Some(PublicKey([5; 32])))],
            ending: Ending::TakenOver,
            ended: Time(6),
        };
        assert_eq!(decode_tombstone(&encode_tombstone(&tombstone)), Ok(tombstone));
    }

    #[test]
    fn what_is_no_record_is_none() {
        let bytes = encode_open(&open(1));
        for len in 0..bytes.len() {
            assert!(decode_open(&bytes[..len]).is_err(), "cut to {len}");
        }
        assert_eq!(decode_open(&[&bytes[..], &[0]].concat()), Err(DecodeError::Trailing(1)));
        let long = vec![0; crate::model::Limits::RECORD_LEN_MAX + 1];
        assert_eq!(decode_open(&long), Err(DecodeError::TooLong(long.len())));
    }
}
