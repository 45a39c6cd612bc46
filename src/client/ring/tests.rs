//! A ring's file by itself: its bytes, what a crash or a stranger can make of them, and whose it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::adopted::{Adopted, Spot};
use super::format::{Reading, Slots, body, read, slot, slot_len};
use super::*;
use crate::model::{HandleId, ResumeKey, StoreId};

fn entry(number: u8) -> Entry {
    let key = ResumeKey {
        file_id: OpenId(u64::from(number)),
        time_stamp_us: 2,
        process_id: 3,
        generation: 4,
        secret: *b"0123456789abcdef",
    };
    let kept = KeptOpen {
        id: key.file_id,
        server: PublicKey([9; 32]),
        export: "data".parse().unwrap(),
        path: ExportPath::new("a/b").unwrap(),
        mode: OpenMode::READ_WRITE,
        kept_us: 5,
    };
    Entry { kept, store: StoreId([6; 16]), handle: HandleId(u64::from(number) + 100), in_place_of: None, key }
}

fn with_path(number: u8, len: usize) -> Entry {
    let mut entry = entry(number);
    entry.kept.path = ExportPath::new("x/".repeat(len / 2) + "x").unwrap();
    entry
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for entry in entries {
        let body = body(entry);
        bytes.extend_from_slice(&slot(&body, slot_len(&body)).unwrap());
    }
    bytes
}

fn slots(bytes: &[u8]) -> Slots {
    match read(bytes) {
        Reading::Ring(slots) => slots,
        Reading::Unfinished => panic!("unfinished"),
        Reading::Unknown => panic!("unknown"),
    }
}

fn ids(slots: &Slots) -> Vec<u64> {
    slots.live.iter().map(|(_, entry)| entry.kept.id.0).collect()
}

fn ring(folder: &TempDir, number: u8) -> Arc<KeyRing> {
    Arc::new(KeyRing::create(folder.path(), InstanceId([number; 16])).unwrap())
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn take(folder: &TempDir) -> (Adopted, Vec<(Spot, u64)>) {
    let (adopted, entries) = Adopted::take(folder.path()).unwrap();
    (adopted, entries.into_iter().map(|(spot, entry)| (spot, entry.kept.id.0)).collect())
}

/// Whether the secret stands anywhere in the file, in the form in which it is written.
fn shows_key(path: &Path) -> bool {
    let text = entry(1).key.to_text();
    let secret_part = &text.as_bytes()[text.len() - 20..];
    fs::read(path).unwrap().windows(secret_part.len()).any(|window| window == secret_part)
}

#[test]
fn the_bytes_of_a_ring_are_these() {
    let bytes = bytes(&[entry(1)]);
    assert_eq!(&bytes[..19], b"bowline-key-ring-1\n");
    let slot = &bytes[19..];
    assert_eq!(slot.len(), 256);
    assert_eq!(slot[..12], [0, 1, 0, 0, 1, 0, 0, 0, 179, 0, 0, 0]);
    let mut body = [9; 32].to_vec();
    body.extend([6; 16]);
    body.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    body.extend(b"data");
    body.extend([3, 0, 0, 0, 0, 0, 0, 0]);
    body.extend(b"a/b");
    body.extend([3, 7]);
    body.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    body.extend([101, 0, 0, 0, 0, 0, 0, 0]);
    body.push(0);
    body.extend([81, 0, 0, 0, 0, 0, 0, 0]);
    body.extend(entry(1).key.to_text().as_bytes());
    assert_eq!(slot[12..12 + body.len()], body);
    assert_eq!(slot[12 + body.len()..][..16], GOLDEN_SUM);
    assert!(slot[12 + body.len() + 16..].iter().all(|&byte| byte == 0));
}

const GOLDEN_SUM: [u8; 16] =
    [0xb0, 0xeb, 0x0a, 0xf8, 0x60, 0x9b, 0x4a, 0x46, 0x3e, 0x83, 0x2e, 0x9b, 0x5c, 0xaa, 0x05, 0x64];

#[test]
fn entries_come_back_as_they_were() {
    let mut second = with_path(2, 4000);
    second.in_place_of = Some(HandleId(7));
    let entries = [entry(1), second, entry(3)];
    let slots = slots(&bytes(&entries));
    assert!(slots.live.iter().map(|(_, entry)| entry).eq(&entries));
    assert_eq!(slots.lost, 0);
}

#[test]
fn a_ring_that_was_cut_has_what_was_whole() {
    let whole = bytes(&[entry(1), entry(2), with_path(3, 300)]);
    let ends = [HEADER.len() + 256, HEADER.len() + 512, whole.len()];
    for len in 0..whole.len() {
        let cut = &whole[..len];
        if len < HEADER.len() {
            assert!(matches!(read(cut), Reading::Unfinished), "{len}");
            continue;
        }
        let slots = slots(cut);
        assert_eq!(slots.live.len(), ends.iter().filter(|&&end| end <= len).count(), "{len}");
        assert_eq!(slots.lost, 0, "a tail is no damage: {len}");
    }
}

#[test]
fn a_flipped_bit_costs_its_own_slot_and_is_told() {
    let whole = bytes(&[entry(1), entry(2), entry(3)]);
    let second = HEADER.len() + 256..HEADER.len() + 512;
    for at in second.clone() {
        for bit in 0..8 {
            let mut bad = whole.clone();
            bad[at] ^= 1 << bit;
            let slots = slots(&bad);
            let found = ids(&slots);
            let place = at - second.start;
            // A wrong length hides what is behind it too, and the state may say that there is nothing.
            match place {
                0..4 => assert!(found.starts_with(&[1]) && !found.contains(&2), "{at} {bit}: {found:?}"),
                4 if bit == 0 => assert_eq!((found, slots.lost), (vec![1, 3], 0)),
                207.. => assert_eq!(found, [1, 2, 3], "what is behind the sum says nothing"),
                _ => assert_eq!((found, slots.lost), (vec![1, 3], 1), "{at} {bit}"),
            }
        }
    }
    for at in 0..HEADER.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        assert!(matches!(read(&bad), Reading::Unknown), "{at}");
    }
}

#[test]
fn a_body_that_fits_no_slot_is_refused() {
    let body = body(&entry(1));
    assert!(slot(&body, slot_len(&body) - 64).is_none());
    assert!(slot(&body, 16 << 10).is_none());
    assert!(slot(&body, 8 << 10).is_some());
}

#[test]
fn a_ring_is_its_user_s_alone_and_goes_when_it_is_empty() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("state/keys");
    let ring = Arc::new(KeyRing::create(&folder, InstanceId([1; 16])).unwrap());
    let path = folder.join("01010101010101010101010101010101.keys");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
    let kept = ring.add(&entry(1)).unwrap();
    assert!(shows_key(&path), "or the search is of no use");
    kept.forget();
    assert!(!shows_key(&path), "it is wiped at once");
    drop(ring);
    assert!(!path.exists());
}

#[test]
fn slots_are_used_again_and_their_neighbours_stay() {
    let folder = tempfile::tempdir().unwrap();
    let ring = ring(&folder, 1);
    let path = ring.file.path().to_owned();
    let kept: Vec<Kept> = (1..=3).map(|number| ring.add(&with_path(number, 300)).unwrap()).collect();
    let len = fs::metadata(&path).unwrap().len();
    let [first, second, _third] = kept.try_into().unwrap_or_else(|_| panic!("three"));
    second.forget();
    let _shorter = ring.add(&entry(4)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), len);
    assert_eq!(ids(&slots(&fs::read(&path).unwrap())), [1, 4, 3]);
    first.forget();
    let _again = ring.add(&with_path(5, 300)).unwrap();
    let longer = ring.add(&with_path(6, 900)).unwrap();
    assert_eq!(ids(&slots(&fs::read(&path).unwrap())), [5, 4, 3, 6]);
    assert!(fs::metadata(&path).unwrap().len() > len);
    longer.forget();
}

#[test]
fn ten_thousand_opens_fit_and_what_they_leave_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let ring = ring(&folder, 1);
    let add = || ring.add(&entry(1)).unwrap();
    let mut kept: Vec<Kept> = (0..10_000).map(|_| add()).collect();
    let len = fs::metadata(ring.file.path()).unwrap().len();
    for _ in 0..10_000 {
        kept.pop().unwrap().forget();
        kept.push(add());
    }
    assert_eq!(fs::metadata(ring.file.path()).unwrap().len(), len);
    kept.into_iter().for_each(Kept::forget);
    assert!(!shows_key(ring.file.path()));
}

#[tokio::test]
async fn a_ring_with_all_that_it_may_have_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let ring = ring(&folder, 1);
    ring.lock().live = Limits::RING_ENTRIES_MAX - 1;
    let kept = ring.add(&entry(1)).unwrap();
    assert!(matches!(ring.add(&entry(2)), Err(KeyRingError::Full { .. })));
    kept.forget();
    ring.add(&entry(2)).unwrap();
    let runtime = Handle::current();
    ring.settle(&runtime).await.unwrap();
    assert_eq!((*ring.synced.lock().await, ring.lock().written), (2, 2));
    ring.lock().end = Limits::RING_LEN_MAX;
    ring.lock().live = 1;
    assert!(matches!(ring.add(&with_path(3, 900)), Err(KeyRingError::Full { .. })));
}

#[test]
fn only_a_ring_without_an_owner_is_adopted_and_by_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (living, dead) = (ring(&folder, 1), ring(&folder, 2));
    living.add(&entry(1)).unwrap();
    dead.add(&entry(2)).unwrap();
    dead.add(&entry(3)).unwrap();
    drop(dead);
    let survey = Survey::of(folder.path()).unwrap();
    let listed: Vec<_> = survey.opens.iter().map(|open| (open.kept.id.0, open.is_owner_living)).collect();
    assert_eq!(listed, [(1, true), (2, false), (3, false)]);

    let (mut adopted, entries) = take(&folder);
    assert_eq!(entries.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [2, 3]);
    assert!(take(&folder).1.is_empty(), "another one finds it locked");
    adopted.wipe(entries[0].0);
    adopted.finish();
    // What is left is there for the next one; what is empty is gone.
    let (mut adopted, entries) = take(&folder);
    assert_eq!(entries.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [3]);
    adopted.wipe(entries[0].0);
    adopted.finish();
    assert_eq!(names(&folder), ["01010101010101010101010101010101.keys"]);
}

#[test]
fn an_entry_that_has_moved_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (ring(&folder, 1), ring(&folder, 2));
    first.add(&entry(1)).unwrap();
    let mut successor = entry(1);
    successor.in_place_of = Some(successor.handle);
    successor.handle = HandleId(500);
    second.add(&successor).unwrap();
    // A duplicate of the same open is an entry of its own.
    let mut duplicate = entry(1);
    duplicate.handle = HandleId(600);
    second.add(&duplicate).unwrap();
    drop((first, second));
    let (adopted, entries) = Adopted::take(folder.path()).unwrap();
    let handles: Vec<u64> = entries.iter().map(|(_, entry)| entry.handle.0).collect();
    assert_eq!(handles, [500, 600]);
    adopted.finish();
    assert_eq!(names(&folder), ["02020202020202020202020202020202.keys"]);
}

#[test]
fn what_cannot_be_used_is_left_alone_and_named_and_the_others_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |number: u8| folder.path().join(format!("{}.keys", InstanceId([number; 16])));
    let put = |number: u8, bytes: &[u8], mode: u32| {
        fs::write(at(number), bytes).unwrap();
        fs::set_permissions(at(number), Permissions::from_mode(mode)).unwrap();
    };
    put(1, &bytes(&[entry(1)]), 0o600);
    put(2, &bytes(&[entry(2)]), 0o640);
    put(3, b"bowline-key-ring-2\nwhatever", 0o600);
    symlink(at(1), at(4)).unwrap();
    fs::create_dir(at(5)).unwrap();
    let mut damaged = bytes(&[entry(6), entry(7), entry(8)]);
    damaged[HEADER.len() + 256 + 100] ^= 1;
    put(6, &damaged, 0o600);
    fs::write(folder.path().join("other"), b"").unwrap();
    let survey = Survey::of(folder.path()).unwrap();
    assert_eq!(survey.opens.iter().map(|open| open.kept.id.0).collect::<Vec<_>>(), [1, 6, 8]);
    for (problem, (number, words)) in survey.problems.iter().zip([
        (2, "others can use"),
        (3, "none of this version"),
        (4, "not a regular file"),
        (5, "not a regular file"),
        (6, "1 of its opens or more cannot be read"),
    ]) {
        let text = problem.to_string();
        assert!(text.contains(words) && text.contains(&InstanceId([number; 16]).to_string()), "{text}");
    }
    assert_eq!(survey.problems.len(), 5);
    let (mut adopted, entries) = take(&folder);
    entries.iter().for_each(|(spot, _)| adopted.wipe(*spot));
    adopted.finish();
    assert_eq!(
        [1, 2, 3, 4, 5, 6].map(|number| at(number).symlink_metadata().is_ok()),
        [false, true, true, true, true, false]
    );
    assert_eq!(fs::read(at(3)).unwrap(), b"bowline-key-ring-2\nwhatever");
}

#[test]
fn a_ring_whose_owner_died_in_the_first_line_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{}.keys", InstanceId([1; 16])));
    fs::write(&path, b"bowline").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    take(&folder).0.finish();
    assert!(!path.exists());
}

#[test]
fn somebody_else_s_ring_is_nobody_s_here() {
    assert_eq!(file::foreign(1000, 1000), None);
    assert_eq!(file::foreign(0, 1000), Some(0), "not even root's");
    assert_eq!(file::foreign(1000, 0), Some(1000), "nor for root");
}

#[test]
fn a_folder_that_is_not_there_has_no_rings() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(Survey::of(&missing).unwrap().opens.is_empty());
    assert!(!missing.exists(), "looking makes nothing");
}

/// What a fuzzer begins with, and golden bytes at the same time: where the format changes on purpose, write them anew with
/// `BOWLINE_WRITE_SEEDS=1`, and give the header another number.
#[test]
fn the_bytes_of_a_ring_are_the_golden_ones() {
    let mut replaced = entry(3);
    replaced.in_place_of = Some(HandleId(101));
    let mut freed = bytes(&[entry(1), entry(2)]);
    let first = slot_len(&body(&entry(1)));
    freed[HEADER.len() + 4..HEADER.len() + first].fill(0);
    let seeds = [
        ("two_opens", bytes(&[entry(1), with_path(2, 300)])),
        ("in_place_of_another", bytes(&[entry(1), replaced])),
        ("freed", freed),
        ("empty", HEADER.to_vec()),
        ("cut", bytes(&[entry(1), entry(2)])[..HEADER.len() + first + 20].to_vec()),
        ("unknown", b"bowline-key-ring-2\n".to_vec()),
    ];
    for (name, bytes) in seeds {
        let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", "key_ring", name].iter().collect();
        if std::env::var_os("BOWLINE_WRITE_SEEDS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert!(fs::read(&file).unwrap() == bytes, "{name} differs: the format has changed");
    }
}
