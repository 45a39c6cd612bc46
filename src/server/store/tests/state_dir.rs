//! The state directory: whose it is, what a start believes, and what a kill at any step of a start leaves.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::{Signal, getpid, kill_process};
use tempfile::TempDir;

use super::*;
use crate::model::{BootId, Durability, PublicKey};
use crate::server::store::{Damage, Loaded, StateDir, StateSetup};

const SERVER: PublicKey = PublicKey([1; 32]);
const NOW: BootId = BootId([0xb1; 16]);
const LATER: BootId = BootId([0xb2; 16]);

fn setup(durability: Durability, boot: BootId) -> StateSetup {
    StateSetup { durability, servers: vec![SERVER], boot }
}

fn process() -> StateSetup {
    setup(Durability::Process, NOW)
}

fn open(folder: &TempDir, setup: &StateSetup) -> Result<(StateDir, Loaded), StoreError> {
    StateDir::open(&folder.path().join("state"), setup)
}

/// A state directory with one open in it, after a clean close or without one.
fn used(setup: &StateSetup, is_closed: bool) -> (TempDir, Loaded) {
    let folder = tempfile::tempdir().unwrap();
    let (mut state, loaded) = open(&folder, setup).unwrap();
    state.commit(&[put(1, 100)]).unwrap();
    if is_closed {
        state.close().unwrap();
    }
    (folder, loaded)
}

/// Ends its use, as a server that stops.
fn close(mut state: StateDir) {
    state.close().unwrap();
}

fn file(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join("state").join(name)
}

fn table(folder: &TempDir, loaded: &Loaded) -> PathBuf {
    file(folder, &format!("table-{}.redb", loaded.store_id))
}

fn names(folder: &TempDir) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.path().join("state")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn everything_comes_back_and_the_epoch_rises() {
    for durability in Durability::EACH {
        for is_closed in [true, false] {
            let (folder, first) = used(&setup(*durability, NOW), is_closed);
            assert_eq!((first.epoch, first.takeovers, first.boot_id), (1, 0, NOW));
            for epoch in 2..5 {
                let (mut state, loaded) = open(&folder, &setup(*durability, NOW)).unwrap();
                assert_eq!(loaded.epoch, epoch);
                assert_eq!(loaded.store_id, first.store_id);
                assert_eq!(loaded.hash_key.bytes(), first.hash_key.bytes());
                assert!(loaded.set_aside.is_none());
                assert_eq!(content(loaded.records).len(), 1);
                if is_closed {
                    state.close().unwrap();
                }
            }
        }
    }
}

#[test]
fn nobody_else_can_read_what_is_made() {
    let (folder, loaded) = used(&process(), true);
    assert_eq!(mode(&folder.path().join("state")), 0o700);
    let table = format!("table-{}.redb", loaded.store_id);
    let all = ["commits", "lock", "reserve", "resume.key", "state", &table];
    assert_eq!(names(&folder), all.map(str::to_owned).into());
    for name in all {
        assert_eq!(mode(&file(&folder, name)), 0o600, "{name}");
    }
}

#[test]
fn t11_the_key_of_the_hashes_is_in_no_other_file() {
    let (folder, loaded) = used(&process(), true);
    let key = *loaded.hash_key.bytes();
    let text = fs::read_to_string(file(&folder, "resume.key")).unwrap();
    let text = text.trim_end().strip_prefix("bowline-resume-hash-1-").unwrap().to_owned();
    assert_eq!(crate::model::base32().decode(text.as_bytes()).unwrap(), key);
    for name in names(&folder).into_iter().filter(|name| name != "resume.key") {
        let bytes = fs::read(file(&folder, &name)).unwrap();
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!holds(&key[..16]) && !holds(&key[16..]), "{name}");
        assert!(!holds(&text.as_bytes()[..16]), "{name}");
    }
    assert_eq!(format!("{:?}", loaded.hash_key), "HashKey(..)");
}

#[test]
fn two_servers_on_one_directory_are_one_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let (state, loaded) = open(&folder, &process()).unwrap();
    let refused = open(&folder, &process()).unwrap_err();
    let path = folder.path().join("state").canonicalize().unwrap();
    assert_eq!(
        refused.to_string(),
        format!(
            "the state directory {path:?} is in use by another server: stop that one, or give each server its own"
        )
    );
    // Without the lock's file too: the table is locked.
    fs::remove_file(file(&folder, "lock")).unwrap();
    let refused = open(&folder, &process()).unwrap_err();
    assert!(
        matches!(&refused, StoreError::InUse { path } if path.ends_with(table(&folder, &loaded).file_name().unwrap()))
    );
    drop(state);
    open(&folder, &process()).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fs::create_dir(&path).unwrap();
    for mode in [0o770, 0o702, 0o777, 0o1777] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = open(&folder, &process()).unwrap_err();
        assert!(matches!(error, StoreError::Permissions { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod go-w "), "{error}");
        assert_eq!(names(&folder).len(), 0);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    open(&folder, &process()).unwrap();
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(matches!(open(&folder, &process()), Err(StoreError::Folder { .. } | StoreError::KeyFile(_))));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a directory to another user");
        return;
    }
    let (folder, _) = used(&process(), true);
    std::os::unix::fs::chown(folder.path().join("state"), Some(4711), None).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(matches!(error, StoreError::Owner { owner: 4711, .. }), "{error}");
}

#[test]
fn a_table_of_another_boot_is_believed_if_it_waited_for_the_disk() {
    for (durability, is_closed, is_believed) in [
        (Durability::Machine, true, true),
        (Durability::Machine, false, true),
        (Durability::Process, true, true),
        (Durability::Process, false, false),
    ] {
        // With what it goes on is another question.
        for next in Durability::EACH {
            let context = format!("{durability}, closed {is_closed}, then {next}");
            let (folder, first) = used(&setup(durability, NOW), is_closed);
            let (_state, loaded) = open(&folder, &setup(*next, LATER)).unwrap();
            assert_eq!(loaded.epoch, 2, "{context}");
            assert_eq!(loaded.boot_id, LATER, "{context}");
            assert_eq!(loaded.records.len(), usize::from(is_believed), "{context}");
            assert_eq!(loaded.store_id == first.store_id, is_believed, "{context}");
            assert_eq!(loaded.set_aside.is_none(), is_believed, "{context}");
        }
    }
}

#[test]
fn a_table_that_is_not_believed_is_kept_and_told() {
    let (folder, first) = used(&process(), false);
    let bytes = fs::read(table(&folder, &first)).unwrap();
    let (state, loaded) = open(&folder, &setup(Durability::Process, LATER)).unwrap();
    let aside = loaded.set_aside.as_ref().unwrap();
    assert_eq!(
        aside.path.file_name().unwrap().to_str().unwrap(),
        format!("set-aside-{}.redb", first.store_id)
    );
    assert_eq!(fs::read(&aside.path).unwrap(), bytes);
    let because = aside.because.to_string();
    assert!(
        because.contains("has durability \"process\" and was in use when the machine stopped"),
        "{because}"
    );
    drop(state);
    // From then on there is nothing to tell.
    let (_state, again) = open(&folder, &setup(Durability::Process, LATER)).unwrap();
    assert!(again.set_aside.is_none());
    assert_eq!((again.store_id, again.epoch), (loaded.store_id, 3));
}

#[test]
fn durabilities_change_from_start_to_start() {
    let (folder, first) = used(&process(), false);
    // The same boot: believed. From this start on its commits are on the disk, and so are all before them.
    let (mut state, loaded) = open(&folder, &setup(Durability::Machine, NOW)).unwrap();
    assert_eq!(loaded.records.len(), 1);
    state.commit(&[put(2, 1)]).unwrap();
    drop(state);
    let (state, loaded) = open(&folder, &setup(Durability::Process, LATER)).unwrap();
    assert_eq!((loaded.records.len(), loaded.store_id), (2, first.store_id));
    drop(state);
    let (_state, loaded) = open(&folder, &process()).unwrap();
    assert_ne!(loaded.store_id, first.store_id, "of a later boot, and in use");
}

/// The next server ends before it has stored what it found anew.
#[test]
fn f33_records_are_of_the_earlier_boot_until_all_of_them_are_stored_anew() {
    let machine = |boot| setup(Durability::Machine, boot);
    let (folder, _) = used(&machine(NOW), false);
    let (state, loaded) = open(&folder, &machine(LATER)).unwrap();
    assert!(!loaded.is_same_boot && state.owes_records().is_some());
    drop(state);
    let (state, loaded) = open(&folder, &machine(LATER)).unwrap();
    assert!(!loaded.is_same_boot, "nobody has stored them anew");
    state.owes_records().unwrap().note_stored_anew().unwrap();
    assert!(state.owes_records().is_none());
    drop(state);
    let (state, loaded) = open(&folder, &machine(LATER)).unwrap();
    assert!(loaded.is_same_boot && state.owes_records().is_none());
}

#[test]
fn commits_wait_for_the_disk_only_where_the_machine_s_end_is_to_be_survived() {
    for (durability, waits) in [(Durability::Process, false), (Durability::Machine, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, _) = open(&folder, &setup(durability, NOW)).unwrap();
        assert_eq!(state.waits(), waits);
        // What a clean end leaves is on the disk in both.
        state.close().unwrap();
        assert!(state.waits());
    }
}

#[test]
fn f52_the_state_of_another_server_is_refused() {
    let (folder, first) = used(&process(), true);
    let other = StateSetup { servers: vec![PublicKey([2; 32])], ..process() };
    let error = open(&folder, &other).unwrap_err();
    assert!(matches!(error, StoreError::OtherIdentity { found: SERVER, .. }), "{error}");
    // The key changes: for a while both are valid, then the new one alone.
    let both = StateSetup { servers: vec![PublicKey([2; 32]), SERVER], ..process() };
    for setup in [&both, &other] {
        let (state, loaded) = open(&folder, setup).unwrap();
        assert_eq!((loaded.store_id, loaded.records.len()), (first.store_id, 1));
        close(state);
    }
    assert!(matches!(open(&folder, &process()), Err(StoreError::OtherIdentity { .. })));
    // It may also change while the server runs.
    let (mut state, _) = open(&folder, &other).unwrap();
    state.state_file().set_servers(vec![SERVER, PublicKey([2; 32])]).unwrap();
    state.commit(&[put(2, 1)]).unwrap();
    close(state);
    assert_eq!(open(&folder, &process()).unwrap().1.records.len(), 2);
}

#[test]
fn f52_a_state_of_a_newer_version_is_refused_and_left_alone() {
    let (folder, first) = used(&process(), true);
    let newer =
        fs::read_to_string(file(&folder, "state")).unwrap().replace("bowline-state 2", "bowline-state 3");
    fs::write(file(&folder, "state"), &newer).unwrap();
    let bytes = fs::read(table(&folder, &first)).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(
        error.to_string().contains("has format 3, and this program knows format 2: use the program"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(file(&folder, "state")).unwrap(), newer);
    assert_eq!(fs::read(table(&folder, &first)).unwrap(), bytes);
}

#[test]
fn f52_the_table_of_another_directory_is_refused() {
    let (folder, first) = used(&process(), true);
    let (other, second) = used(&process(), true);
    fs::copy(table(&other, &second), table(&folder, &first)).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(
        matches!(error, StoreError::OtherStore { found, expected, .. }
            if (found, expected) == (second.store_id, first.store_id)),
        "{error}"
    );
}

#[test]
fn f52_an_older_copy_of_the_table_is_refused() {
    let (folder, loaded) = used(&process(), true);
    let table = table(&folder, &loaded);
    let copy = fs::read(&table).unwrap();
    let (mut state, _) = open(&folder, &process()).unwrap();
    state.commit(&[remove(1)]).unwrap();
    close(state);
    fs::write(&table, copy).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    let is_older = |damage: &Damage| matches!(damage, Damage::Older { .. } | Damage::OlderEpoch { .. });
    assert!(matches!(&error, StoreError::Damaged { damage, .. } if is_older(damage)), "{error}");
}

#[test]
fn f51_a_damaged_state_or_table_stops_the_start() {
    type Harm = fn(&TempDir, &Loaded);
    let harms: [(&str, Harm); 7] = [
        ("state cut", |folder, _| fs::write(file(folder, "state"), "bowline-state 2\nstore ").unwrap()),
        ("state gone", |folder, _| fs::remove_file(file(folder, "state")).unwrap()),
        ("state empty", |folder, _| fs::write(file(folder, "state"), "").unwrap()),
        ("table gone", |folder, loaded| fs::remove_file(table(folder, loaded)).unwrap()),
        ("table empty", |folder, loaded| fs::write(table(folder, loaded), "").unwrap()),
        ("table is text", |folder, loaded| fs::write(table(folder, loaded), "x".repeat(9000)).unwrap()),
        ("key is text", |folder, _| {
            fs::write(file(folder, "resume.key"), "bowline-resume-hash-1-a").unwrap()
        }),
    ];
    for (name, harm) in harms {
        for is_closed in [true, false] {
            let (folder, loaded) = used(&process(), is_closed);
            harm(&folder, &loaded);
            for _ in 0..2 {
                let error = open(&folder, &process()).unwrap_err();
                assert!(matches!(error, StoreError::Damaged { .. }), "{name}: {error}");
                assert!(error.to_string().contains("put back what was there"), "{name}: {error}");
            }
        }
    }
}

#[test]
fn f51_a_table_that_lost_its_last_commit_stops_the_start() {
    let (folder, loaded) = used(&process(), false);
    let path = table(&folder, &loaded);
    let mut bytes = fs::read(&path).unwrap();
    bytes[9] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::Older { .. }, .. }), "{error}");
}

#[test]
fn f51_a_lost_note_of_commits_is_missed_while_the_machine_runs() {
    for harm in [|path: PathBuf| fs::remove_file(path).unwrap(), |path| fs::write(path, [0; 24]).unwrap()] {
        let (folder, _) = used(&setup(Durability::Machine, NOW), false);
        harm(file(&folder, "commits"));
        let error = open(&folder, &process()).unwrap_err();
        assert!(
            matches!(&error, StoreError::Damaged { damage: Damage::Missing, path } if path.ends_with("commits"))
        );
        // After the machine's end nobody expects it to be there.
        open(&folder, &setup(Durability::Machine, LATER)).unwrap();
    }
}

#[test]
fn f53_a_table_that_is_taken_away_is_noticed_at_the_next_commit() {
    type Harm = fn(&TempDir, &Loaded);
    let harms: [(&str, Harm); 4] = [
        ("deleted", |folder, loaded| fs::remove_file(table(folder, loaded)).unwrap()),
        ("replaced", |folder, loaded| {
            fs::copy(table(folder, loaded), file(folder, "copy")).unwrap();
            fs::rename(file(folder, "copy"), table(folder, loaded)).unwrap();
        }),
        ("moved, with a link to it", |folder, loaded| {
            fs::rename(table(folder, loaded), file(folder, "moved")).unwrap();
            symlink("moved", table(folder, loaded)).unwrap();
        }),
        ("its folder moved", |folder, _| {
            fs::rename(folder.path().join("state"), folder.path().join("elsewhere")).unwrap();
        }),
    ];
    for (name, harm) in harms {
        for durability in Durability::EACH {
            let folder = tempfile::tempdir().unwrap();
            let (mut state, loaded) = open(&folder, &setup(*durability, NOW)).unwrap();
            state.commit(&[put(1, 1)]).unwrap();
            harm(&folder, &loaded);
            let error = state.commit(&[put(2, 1)]).unwrap_err();
            assert!(matches!(error, StoreError::Gone { .. }), "{name}: {error}");
            assert!(matches!(state.commit(&[]), Err(StoreError::Failed)), "{name}");
            assert!(matches!(state.close(), Err(StoreError::Failed)), "{name}");
        }
    }
}

#[test]
fn a_key_that_opens_need_must_be_there_and_be_theirs() {
    let (folder, _) = used(&process(), true);
    let key = file(&folder, "resume.key");
    let right = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(matches!(error, StoreError::HashKeyMissing { opens: 1, .. }), "{error}");
    assert!(!key.exists(), "no other key is made");
    let (other, _) = used(&process(), true);
    fs::copy(file(&other, "resume.key"), &key).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(matches!(error, StoreError::OtherHashKey { opens: 1, .. }), "{error}");
    fs::write(&key, right).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let error = open(&folder, &process()).unwrap_err();
    assert!(matches!(error, StoreError::KeyFile(_)), "{error}");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let (mut state, _) = open(&folder, &process()).unwrap();
    // Without records any key is as good.
    state.commit(&[remove(1)]).unwrap();
    close(state);
    fs::remove_file(&key).unwrap();
    let (mut state, loaded) = open(&folder, &process()).unwrap();
    state.commit(&[put(1, 1)]).unwrap();
    close(state);
    let (_, again) = open(&folder, &process()).unwrap();
    assert_eq!(again.hash_key.bytes(), loaded.hash_key.bytes());
}

#[test]
fn the_boot_is_the_kernel_s() {
    let one = StateSetup::new(Durability::Process, vec![SERVER]).unwrap();
    let two = StateSetup::new(Durability::Machine, vec![SERVER]).unwrap();
    assert_eq!(one.boot, two.boot);
    let told = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(told.trim_end().replace('-', ""), one.boot.to_string());
}

/// Names the state directory of a child, which opens it, is killed where it is told, and tells how far it came.
const CHILD: &str = "BOWLINE_TEST_STATE";
const STEPS: [&str; 8] = [
    "folder made",
    "locked",
    "swept",
    "table read",
    "key found or made",
    "epoch recorded in the table",
    "state written",
    "committed",
];

/// Runs this test in a process of its own, which is killed after `step`.
fn child(test: &str, folder: &TempDir, durability: Durability, boot: BootId, step: &str) -> Output {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("server::store::tests::state_dir::{test}")])
        .env(CHILD, folder.path().join("state"))
        .env("BOWLINE_TEST_STORE", format!("{durability}/{}/{step}", boot.0[0]))
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What a child does. Its end is that of a server that is killed: nothing is closed, and nothing is dropped.
fn end_in_the_middle(path: &Path) -> ! {
    let told = std::env::var("BOWLINE_TEST_STORE").unwrap();
    let [durability, boot, last] = told.split('/').collect::<Vec<_>>().try_into().unwrap();
    let setup = setup(durability.parse().unwrap(), BootId([boot.parse().unwrap(); 16]));
    let kill = || kill_process(getpid(), Signal::KILL).unwrap();
    let (mut state, loaded) = StateDir::open_by_steps(path, &setup, &mut |step| {
        if step == last {
            kill();
        }
    })
    .unwrap();
    println!("\nepoch {}", loaded.epoch);
    std::io::stdout().flush().unwrap();
    state.commit(&[put(loaded.epoch, 100), RecordChange::put(RecordKind::Grant, 1, vec![9])]).unwrap();
    println!("\ncommitted {}", loaded.epoch);
    std::io::stdout().flush().unwrap();
    kill();
    unreachable!("it was killed");
}

/// The number that a child told behind `word`.
fn told(output: &Output, word: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| line.strip_prefix(word).map(str::to_owned));
    found.map(|number| number.trim().parse().unwrap())
}

#[test]
fn f41_a_hundred_starts_that_are_killed_lose_nothing_and_no_epoch_comes_twice() {
    if let Ok(path) = std::env::var(CHILD) {
        end_in_the_middle(path.as_ref());
    }
    let test = "f41_a_hundred_starts_that_are_killed_lose_nothing_and_no_epoch_comes_twice";
    let folder = tempfile::tempdir().unwrap();
    let (mut epochs, mut committed) = (vec![0], Vec::new());
    for round in 0..100 {
        // The first starts make everything; they are killed at each of their steps too.
        let first = [
            "state begun",
            "table made",
            "key found or made",
            "epoch recorded in the table",
            "state written",
        ];
        let step = first.get(round).unwrap_or(&STEPS[round % STEPS.len()]);
        let durability = Durability::EACH[round / 8 % 2];
        let output = child(test, &folder, durability, NOW, step);
        if let Some(epoch) = told(&output, "epoch ") {
            assert!(epoch > *epochs.last().unwrap(), "epoch {epoch} after {epochs:?}");
            epochs.push(epoch);
        }
        let commit = told(&output, "committed ");
        assert_eq!(commit.is_some(), *step == "committed", "round {round} was to end at {step}");
        committed.extend(commit);
    }
    let (_state, loaded) = open(&folder, &process()).unwrap();
    assert!(loaded.epoch > *epochs.last().unwrap());
    assert!(loaded.set_aside.is_none());
    let opens = loaded.records.iter().filter(|record| record.kind == RecordKind::Open);
    assert_eq!(opens.map(|record| record.key).collect::<Vec<_>>(), committed);
    assert!(committed.len() >= 10, "{committed:?}");
    let left: Vec<_> = names(&folder).into_iter().filter(|name| name.starts_with(".new-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn f41_a_table_is_set_aside_once_however_often_the_start_is_killed() {
    if let Ok(path) = std::env::var(CHILD) {
        end_in_the_middle(path.as_ref());
    }
    let test = "f41_a_table_is_set_aside_once_however_often_the_start_is_killed";
    for steps in [
        &["table set aside", "table set aside", "state begun anew", "table made", "state written"][..],
        &["swept", "state begun anew", "key found or made", "epoch recorded in the table"],
        &["table set aside"],
    ] {
        let (folder, first) = used(&process(), false);
        for step in steps {
            child(test, &folder, Durability::Process, LATER, step);
        }
        let (_state, loaded) = open(&folder, &setup(Durability::Process, LATER)).unwrap();
        assert_ne!(loaded.store_id, first.store_id, "{steps:?}");
        assert!(loaded.records.is_empty() && loaded.epoch > first.epoch, "{steps:?}");
        let tables = |prefix| names(&folder).into_iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!((tables("table-"), tables("set-aside-")), (1, 1), "{steps:?}");
        assert!(file(&folder, &format!("set-aside-{}.redb", first.store_id)).exists(), "{steps:?}");
    }
}
