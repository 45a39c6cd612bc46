//! The same script of 5,000 random operations through bowline and on a local directory: equal results, equal trees.
//!
//! `BOWLINE_SEED=N cargo test --test script` plays a failing seed again.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bowline::model::{Allocation, LineRole, RenameHow, XattrHow};
use local::{are_both_wrong, locally, shown_local};
use remote::remotely;
use support::{EXPORT, World};

#[path = "script/local.rs"]
mod local;
#[path = "script/remote.rs"]
mod remote;
mod support;

const OPERATIONS: usize = 5_000;

/// Times that are put on files are before this one, and no clock shows them any more. In seconds since 1970.
const LONG_AGO: u64 = 1_500_000_000;

/// An outcome that both sides can have: what was told, or an error number.
type Outcome = Result<String, i32>;

/// Random numbers, by xorshift64*: the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len().try_into().unwrap())).unwrap()]
    }

    /// A path of one to three components out of a few names, so that operations meet.
    fn path(&mut self) -> String {
        const NAMES: [&str; 6] = ["a", "b", "c", "d\n", "\u{e9}", "-f"];
        let depth = self.of(&[1, 1, 1, 1, 2, 2, 3]);
        (0..depth).map(|_| self.of(&NAMES)).collect::<Vec<_>>().join("/")
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.of(&[0, 1, 10, 100, 5_000, 70_000]);
        vec![u8::try_from(self.below(256)).unwrap(); len]
    }
}

/// One operation, with everything that is random about it.
#[derive(Debug)]
enum Operation {
    Write { path: String, open: Opening, offset: u64, bytes: Vec<u8> },
    Append { path: String, bytes: Vec<u8> },
    Read { path: String, offset: u64, len: usize },
    SetLen { path: String, len: u64 },
    Punch { path: String, offset: u64, len: u64 },
    Allocate { path: String, offset: u64, len: u64, how: Allocation },
    SeekHole { path: String, offset: u64 },
    SeekData { path: String, offset: u64 },
    WriteVectored { path: String, offset: u64, parts: Vec<Vec<u8>> },
    Stream { path: String, offset: u64 },
    MakeDirectory { path: String },
    RemoveFile { path: String },
    RemoveDirectory { path: String },
    Rename { from: String, to: String, how: RenameHow },
    Symlink { target: String, path: String },
    HardLink { from: String, to: String },
    ReadLink { path: String },
    Stat { path: String, follow: bool },
    List { path: String },
    Permissions { path: String, bits: u32 },
    Times { path: String, modified_s: i64 },
    XattrSet { path: String, name: &'static str, value: Vec<u8>, how: XattrHow },
    XattrGet { path: String, name: &'static str },
    XattrList { path: String },
    XattrRemove { path: String, name: &'static str },
}

#[derive(Debug, Clone, Copy)]
struct Opening {
    create: bool,
    create_new: bool,
    truncate: bool,
}

fn operation(dice: &mut Dice) -> Operation {
    const XATTRS: [&str; 3] = ["user.a", "user.b", "user.c"];
    let path = dice.path();
    match dice.below(30) {
        0..=4 => {
            let open = Opening {
                create: dice.below(4) > 0,
                create_new: dice.below(8) == 0,
                truncate: dice.below(6) == 0,
            };
            Operation::Write { path, open, offset: dice.below(200_000), bytes: dice.bytes() }
        }
        5 => Operation::Append { path, bytes: dice.bytes() },
        6 | 7 => Operation::Read { path, offset: dice.below(200_000), len: 100_000 },
        8 => Operation::SetLen { path, len: dice.of(&[0, 1, 4096, 100_000]) },
        9 => Operation::Punch { path, offset: dice.below(50_000), len: 1 + dice.below(50_000) },
        10 => Operation::SeekHole { path, offset: dice.below(10_000) },
        11 | 12 => Operation::MakeDirectory { path },
        13 => Operation::RemoveFile { path },
        14 => Operation::RemoveDirectory { path },
        15 | 16 => Operation::Rename {
            from: path,
            to: dice.path(),
            how: dice.of(&[
                RenameHow::Replace,
                RenameHow::Replace,
                RenameHow::NoReplace,
                RenameHow::Exchange,
            ]),
        },
        17 => Operation::Symlink { target: dice.of(&["a", "b", "c/a", "nowhere"]).to_owned(), path },
        18 => Operation::HardLink { from: path, to: dice.path() },
        19 => Operation::ReadLink { path },
        20 => Operation::Stat { path, follow: dice.below(2) == 0 },
        21 => Operation::List { path },
        22 => Operation::Permissions { path, bits: dice.of(&[0o600, 0o644, 0o755, 0o700]) },
        23 => Operation::Times { path, modified_s: i64::try_from(dice.below(LONG_AGO)).unwrap() },
        24 => Operation::XattrSet {
            path,
            name: dice.of(&XATTRS),
            value: dice.bytes().into_iter().take(200).collect(),
            how: dice.of(&[XattrHow::Set, XattrHow::Create, XattrHow::Replace]),
        },
        25 => Operation::Allocate {
            path,
            offset: dice.below(100_000),
            len: 1 + dice.below(50_000),
            how: dice.of(&[Allocation::Reserve, Allocation::ReserveKeepLen]),
        },
        26 => Operation::SeekData { path, offset: dice.below(10_000) },
        27 => {
            let parts = (0..dice.below(4)).map(|_| dice.bytes()).collect();
            Operation::WriteVectored { path, offset: dice.below(100_000), parts }
        }
        28 => Operation::Stream { path, offset: dice.below(100_000) },
        _ => match dice.below(3) {
            0 => Operation::XattrGet { path, name: dice.of(&XATTRS) },
            1 => Operation::XattrList { path },
            _ => Operation::XattrRemove { path, name: dice.of(&XATTRS) },
        },
    }
}

/// Error numbers that say the same: who asks for a directory to be linked or unlinked, or for a link that is none, is
/// told what it is; a loop of links leads nowhere inside, as one that leads outside.
fn classed(errno: i32) -> i32 {
    use rustix::io::Errno;
    let same = [
        (Errno::PERM, Errno::ISDIR),
        (Errno::LOOP, Errno::XDEV),
        (Errno::ACCESS, Errno::ISDIR),
        (Errno::OPNOTSUPP, Errno::INVAL),
    ];
    same.iter().find(|(one, _)| one.raw_os_error() == errno).map_or(errno, |(_, other)| other.raw_os_error())
}

/// A modification time in nanoseconds since 1970, if it is one that was put on a file: of a change that happened it says
/// no more than that, because the two sides change one after the other.
fn time_that_was_set(modified_ns: i64) -> String {
    let is_set = modified_ns < i64::try_from(LONG_AGO).unwrap() * 1_000_000_000;
    if is_set { format!("set to {modified_ns}") } else { "changed".to_owned() }
}

/// Every name beneath a directory with what it stands for, its bytes and its attributes: among them the modification time
/// that was put on it, if nothing has changed it since.
fn tree(root: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut names: Vec<_> =
            fs::read_dir(root.join(&folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(name);
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full).unwrap();
            writeln!(text, "{path:?} {}", shown_local(&metadata)).unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_symlink() {
                writeln!(text, "  -> {:?}", fs::read_link(&full).unwrap()).unwrap();
            } else {
                writeln!(text, "  {:?}", fs::read(&full).unwrap()).unwrap();
            }
            for attribute in ["user.a", "user.b", "user.c"] {
                let mut into = [0; 256];
                if let Ok(len) = rustix::fs::lgetxattr(&full, attribute, &mut into[..]) {
                    writeln!(text, "  {attribute} {:?}", &into[..len]).unwrap();
                }
            }
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_script_has_the_same_results_through_bowline_and_locally() {
    let seed: u64 = std::env::var("BOWLINE_SEED").map_or(0x00b0_a710_5eed, |seed| seed.parse().unwrap());
    println!("BOWLINE_SEED={seed}");
    let world = World::start(b"").await;
    fs::remove_file(world.file("file")).unwrap();
    let remote = world.file("");
    let local = world.folder.path().join("local");
    fs::create_dir(&local).unwrap();
    let session = world.connect([LineRole::Both; 2]).await;
    let export = session.export(EXPORT).unwrap();
    let mut dice = Dice(seed | 1);
    let (mut succeeded, mut failed) = (0, 0);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..OPERATIONS {
        let operation = operation(&mut dice);
        let is_order_open = are_both_wrong(&local, &operation);
        let mut expected: Outcome =
            locally(&local, &operation).map_err(|error| classed(error.raw_os_error().unwrap_or(-1)));
        let mut outcome: Outcome =
            remotely(&export, &operation).await.map_err(|error| classed(error.errno().unwrap_or(-2)));
        if is_order_open {
            // Each side says which of the two it saw first; both have to refuse.
            (expected, outcome) = (expected.map_err(|_| 0), outcome.map_err(|_| 0));
        }
        assert!(
            outcome == expected,
            "operation {number} of seed {seed}: {operation:?}\n  bowline: {}\n  locally: {}",
            brief(&outcome),
            brief(&expected),
        );
        let shown = format!("{operation:?}");
        let kind = kinds.entry(shown.split(' ').next().unwrap().to_owned()).or_default();
        if outcome.is_ok() {
            succeeded += 1;
            *kind += 1;
        } else {
            failed += 1;
        }
        if number % 500 == 0 {
            assert!(tree(&remote) == tree(&local), "the trees differ after operation {number}");
        }
    }
    println!("{succeeded} operations succeeded, {failed} failed alike; of these kinds: {kinds:?}");
    assert!(kinds.values().all(|&times| times > 0), "a kind that never succeeded: {kinds:?}");
    assert!(
        succeeded > OPERATIONS / 5 && failed > OPERATIONS / 20,
        "{succeeded} and {failed}: no fair script"
    );
    assert_eq!(tree(&remote), tree(&local), "the trees differ");
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Ok(text) => format!("Ok({})", text.chars().take(200).collect::<String>()),
        Err(errno) => format!("{}", std::io::Error::from_raw_os_error(*errno)),
    }
}
