//! Damage of the table's file: it is said, or it is in bytes that mean nothing. It is never half believed.

use super::disk::{Crash, Disk};
use super::*;
use crate::model::len_u64;
use crate::server::store::Damage;

/// A table after the script, as it is on the disk after a clean close or a kill.
fn table(is_closed: bool) -> (Disk, Content, u64) {
    let script = script(11, 400);
    let disk = Disk::default();
    let mut store = create(disk.medium()).unwrap();
    for batch in &script {
        store.commit(batch).unwrap();
    }
    let commits = store.commits();
    let left = disk.after(Crash::Kill, 0);
    let disk = if is_closed {
        store.close().unwrap();
        disk
    } else {
        left
    };
    (disk, contents(&script).pop().unwrap(), commits)
}

/// What a start finds in damaged bytes; none if it says that they are.
fn found(bytes: Vec<u8>, commits: u64, context: &str) -> Option<Content> {
    let disk = Disk::of(bytes);
    let outcome = reopen(disk.medium(), commits).and_then(|mut store| store.load());
    match outcome {
        Ok(records) => Some(content(records)),
        Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => {
            // What it wrote before it knew makes nobody believe it the next time.
            let again = reopen(disk.medium(), commits).and_then(|mut store| store.load());
            assert!(
                matches!(again, Err(StoreError::Damaged { .. } | StoreError::Format { .. })),
                "{context}: believed at the second start"
            );
            None
        }
        Err(error) => panic!("{context}: {error}"),
    }
}

#[test]
fn f51_each_flipped_bit_is_said_or_means_nothing() {
    for is_closed in [true, false] {
        let (disk, content, commits) = table(is_closed);
        let image = disk.bytes();
        // All of the header, where each bit counts, and every so many bits of the rest.
        let header = 0..512 * 8;
        let rest = (512 * 8..image.len() * 8).step_by(3001);
        let (mut said, mut nothing) = (0, 0);
        for bit in header.chain(rest) {
            let context = format!("closed {is_closed}, bit {} of byte {}", bit % 8, bit / 8);
            let mut bytes = image.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match found(bytes, commits, &context) {
                None => said += 1,
                Some(found) => {
                    assert!(found == content, "{context}: other content");
                    nothing += 1;
                }
            }
        }
        assert!(said > 500 && nothing > 500, "{said} said, {nothing} meant nothing");
    }
}

#[test]
fn f51_where_nobody_counts_the_last_commit_is_still_not_taken_back_in_silence() {
    // After the machine's end there is no note. One byte can still tell of another state, and nothing else.
    let (disk, content, _) = table(false);
    let image = disk.bytes();
    let before = reopen(swapped(&image).medium(), 1).unwrap().load().unwrap();
    let before = super::content(before);
    assert!(before != content);
    for bit in (0..512 * 8).chain((512 * 8..image.len() * 8).step_by(5003)) {
        let mut bytes = image.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let context = format!("bit {} of byte {}", bit % 8, bit / 8);
        if let Some(found) = found(bytes, 1, &context) {
            assert!(found == content || (bit / 8 == 9 && found == before), "{context}: other content");
        }
    }
}

/// The disk on which the byte that says which of two states is the last one says the other.
fn swapped(image: &[u8]) -> Disk {
    let mut bytes = image.to_vec();
    bytes[9] ^= 1;
    Disk::of(bytes)
}

#[test]
fn f51_lost_and_foreign_blocks_are_said_or_mean_nothing() {
    let mut random = Seeded(3);
    let (disk, content, commits) = table(false);
    let image = disk.bytes();
    let other = table(true).0.bytes();
    let mut said = 0;
    for round in 0..400 {
        let mut bytes = image.clone();
        let block = random.below(bytes.len() / 512) * 512;
        let len = (512 << random.below(5)).min(bytes.len() - block);
        let with = match round % 3 {
            0 => vec![0; len],
            1 => random.bytes(len),
            _ => {
                let from = random.below(other.len() - len);
                other[from..from + len].to_vec()
            }
        };
        bytes[block..block + len].copy_from_slice(&with);
        let context = format!("round {round}: {len} bytes at {block}");
        match found(bytes, commits, &context) {
            None => said += 1,
            Some(found) => assert!(found == content, "{context}: other content"),
        }
    }
    assert!(said > 50, "{said} of 400 were said");
}

#[test]
fn f51_a_file_that_was_cut_is_said() {
    let mut random = Seeded(4);
    for is_closed in [true, false] {
        let (disk, content, commits) = table(is_closed);
        let image = disk.bytes();
        for round in 0..100 {
            let len = if round < 20 { round * 64 } else { random.below(image.len()) };
            let context = format!("closed {is_closed}, cut at {len}");
            if let Some(found) = found(image[..len].to_vec(), commits, &context) {
                assert!(found == content, "{context}: other content");
            }
        }
    }
}

#[test]
fn f51_the_commit_before_is_not_taken_for_the_last_one() {
    let (disk, _, commits) = table(false);
    let error = reopen(swapped(&disk.bytes()).medium(), commits).unwrap_err();
    let older = Damage::Older { found: commits - 1, expected: commits };
    assert!(matches!(&error, StoreError::Damaged { damage, .. } if *damage == older), "{error}");
}

#[test]
fn f51_a_record_in_the_wrong_place_is_named() {
    use redb::{Builder, TableDefinition};
    const TREE: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("bowline");
    /// What a database that does as it is told puts under a key.
    fn plant(key: (u8, u64), value: &[u8]) -> StoreError {
        let disk = Disk::default();
        let mut store = create(disk.medium()).unwrap();
        store.commit(&[put(1, 10)]).unwrap();
        store.close().unwrap();
        let backend = crate::server::store::medium::Backend::new(disk.medium());
        let database = Builder::new().create_with_backend(backend).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(TREE).unwrap().insert(key, value).unwrap();
        write.commit().unwrap();
        database.close().unwrap();
        reopen(disk.medium(), 2).and_then(|mut store| store.load()).unwrap_err()
    }
    let seal = crate::server::store::seal::Seal::new(STORE);
    let error = plant((1, 5), &seal.close(1, 6, b"what belongs to 6"));
    let damage = Damage::Record { kind: 1, key: 5 };
    assert!(matches!(&error, StoreError::Damaged { damage: found, .. } if *found == damage), "{error}");
    let error = plant((1, 5), b"short");
    assert!(matches!(&error, StoreError::Damaged { damage: found, .. } if *found == damage), "{error}");
    let error = plant((9, 5), &seal.close(9, 5, b"of a later program"));
    assert!(error.to_string().contains("has format 2 with records of kind 9"), "{error}");
    let mut head = Vec::from(3_u32.to_le_bytes());
    head.extend_from_slice(b"what only a later program understands");
    let error = plant((0, 0), &head);
    assert!(error.to_string().contains("has format 3, and this program knows format 2"), "{error}");
    // The tree of this program, and records of a later one.
    let (records, store) = (crate::wire::stored::VERSION + 1, STORE.0);
    let head = [&2_u32.to_le_bytes()[..], &records.to_le_bytes(), &store, &[0; 8], &2_u64.to_le_bytes()];
    let error = plant((0, 0), &seal.close(0, 0, &head.concat()));
    assert!(error.to_string().contains(&format!("records of version {records}, not")), "{error}");
}

#[test]
fn f52_the_table_of_another_store_is_refused() {
    let (disk, _, commits) = table(true);
    let other = StoreId([0x99; 16]);
    let expected = Expected { store: other, epoch: 0, commits };
    let error = RedbStore::open(disk.medium(), Path::new("table"), &expected).unwrap_err();
    assert!(
        matches!(error, StoreError::OtherStore { found: STORE, expected, .. } if expected == other),
        "{error}"
    );
    assert_eq!(disk.noted().map(|noted| noted <= commits), Some(true), "it was not used");
    assert!(len_u64(disk.bytes().len()) > 0);
}

#[test]
fn f52_a_table_from_an_earlier_life_is_refused() {
    let disk = Disk::default();
    let mut store = create(disk.medium()).unwrap();
    store.begin_epoch(4).unwrap();
    store.close().unwrap();
    let open = |epoch| {
        let disk = disk.after(Crash::Kill, 0);
        RedbStore::open(disk.medium(), Path::new("table"), &Expected { store: STORE, epoch, commits: 0 })
    };
    assert_eq!(open(4).unwrap().epoch(), 4);
    let error = open(5).unwrap_err();
    let older = Damage::OlderEpoch { found: 4, expected: 5 };
    assert!(matches!(&error, StoreError::Damaged { damage, .. } if *damage == older), "{error}");
}
