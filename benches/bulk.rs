//! Bulk reads and writes over one line on loopback, and reads of 4 KiB anywhere in the file, each beside its floor: the
//! same bytes between the same two processes over a bare TCP connection, with the same chunk and no protocol.
//!
//! `cargo bench --bench bulk` measures; `BOWLINE_BENCH_MIB` and `BOWLINE_BENCH_PAIRS` set the length of the file
//! and the number of pairs, `BOWLINE_BENCH_READS` how many reads of 4 KiB a pass makes one after the other,
//! `BOWLINE_BENCH_DIR` the folder of the file. `cargo bench --bench bulk -- 'signed read'` measures the rows of that
//! name alone. Without `--bench`, as `cargo test` runs it, the program does nothing.
//! Machines are shared, so nothing here is asserted: a pair runs side by side, and the ratios inside pairs are what
//! counts. docs/performance.md says what was found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a benchmark stops where it fails, and counts in floating point"
)]

#[path = "bulk/cipher.rs"]
mod cipher;
#[path = "bulk/floor.rs"]
mod floor;
#[path = "bulk/line.rs"]
mod line;
#[path = "bulk/meter.rs"]
mod meter;
#[path = "bulk/table.rs"]
mod table;

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bowline::model::{Limits, Protection, Suite};
use meter::{Run, measure};
use table::{Cell, Pair, Row};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What marks this program's second run, and what it is then.
const LINE_SERVER: &str = "--as-line-server-of";
const FLOOR_SERVER: &str = "--as-floor-server-of";
/// The file that is read and written, in `data/`.
const FILE: &str = "file";

/// Length of a read at random.
const BLOCK: usize = 4 << 10;
/// Reads at random that are under way at once, in the rows with many.
const DEEP: usize = 32;
/// How many times as many reads a pass makes where many are under way at once: they take less time each.
const DEEP_TIMES: u64 = 4;

/// What a pass does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// So many bytes from the server's file to the client, in order.
    Read(u64),
    /// So many bytes from the client's memory to the server's file, in order.
    Write(u64),
    /// So many blocks from anywhere in the server's file, which has `blocks` of them, so many at a time.
    Random { reads: u64, blocks: u64, depth: usize },
}

/// Where reads at random begin: anywhere, and at the same places in each pass.
struct Offsets {
    state: u64,
    blocks: u64,
}

impl Offsets {
    fn new(seed: u64, blocks: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 ^ (seed << 1), blocks }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % self.blocks * BLOCK as u64
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [LINE_SERVER, folder] => line::serve(Path::new(folder)),
        [FLOOR_SERVER, folder] => floor::serve(Path::new(folder)),
        _ if arguments.iter().any(|argument| argument == "--bench") => run(&arguments),
        _ => {
            println!("nothing is measured without --bench");
            Ok(())
        }
    }
}

fn run(arguments: &[String]) -> Outcome<()> {
    let (mib, pairs) = (number("BOWLINE_BENCH_MIB", 1024)?, number("BOWLINE_BENCH_PAIRS", 5)?);
    let reads = number("BOWLINE_BENCH_READS", 20_000)?;
    if mib == 0 || pairs == 0 || reads == 0 {
        return Err("there is nothing to measure in 0 MiB, 0 pairs or 0 reads".into());
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut cells: Vec<Cell> = rows(mib << 20, reads)
        .into_iter()
        .filter(|row| wanted.is_empty() || wanted.iter().any(|name| row.name().contains(name.as_str())))
        .map(Cell::new)
        .collect();
    let base = std::env::var_os("BOWLINE_BENCH_DIR").map_or_else(default_folder, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("bowline-bench-").tempdir_in(&base)?;
    std::fs::create_dir(folder.path().join("data"))?;
    make_file(&folder.path().join("data").join(FILE), mib)?;
    println!("{}", meter::machine());
    println!(
        "{mib} MiB in {}, {pairs} pairs, chunks of {} KiB, one line on loopback",
        base.display(),
        Limits::default().chunk >> 10,
    );
    println!("{reads} reads of 4 KiB, and {} with {DEEP} at a time\n", deep_reads(reads));

    let line = line::World::start(folder.path())?;
    let mut floor = floor::Floor::start(folder.path())?;
    // The first pass brings both servers and the page cache up to temperature, and is not counted.
    for at in 0..=pairs {
        for cell in &mut cells {
            let Row { protection, suite, pass } = cell.row;
            let session = line.session(protection, suite)?;
            let cipher = cipher::cost(protection, suite);
            // Whoever comes first in one pair comes second in the next.
            let (floor, line) = if at % 2 == 0 {
                let floor = measure(floor.server(), || floor.pass(protection, pass))?;
                (floor, measure(line.server(), || session.pass(pass))?)
            } else {
                let line = measure(line.server(), || session.pass(pass))?;
                (measure(floor.server(), || floor.pass(protection, pass))?, line)
            };
            session.close();
            if at > 0 {
                cell.pairs.push(Pair { floor, line, cipher });
            }
        }
    }
    table::print(&cells);
    Ok(())
}

/// All rows, in the order of the tables.
fn rows(bytes: u64, reads: u64) -> Vec<Row> {
    let (aegis, chacha) = (Suite::Aegis128X2, Suite::ChaCha20Poly1305);
    let fast = [(Protection::Clear, aegis), (Protection::Signed, aegis), (Protection::Sealed, aegis)];
    let (signed, sealed) = ((Protection::Signed, chacha), (Protection::Sealed, chacha));
    let blocks = bytes / BLOCK as u64;
    let bulk = [Pass::Read(bytes), Pass::Write(bytes)];
    let random = [
        Pass::Random { reads, blocks, depth: 1 },
        Pass::Random { reads: deep_reads(reads), blocks, depth: DEEP },
    ];
    let all = |(protection, suite), passes: [Pass; 2]| passes.map(|pass| Row { protection, suite, pass });
    let bulk = fast.into_iter().chain([signed, sealed]).flat_map(|kind| all(kind, bulk));
    let random = fast.into_iter().chain([sealed]).flat_map(|kind| all(kind, random));
    bulk.chain(random).collect()
}

/// Reads of a pass with many at a time, as many for each place.
fn deep_reads(reads: u64) -> u64 {
    (reads * DEEP_TIMES).next_multiple_of(DEEP as u64)
}

fn number(name: &str, default: u64) -> Outcome<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}={text}: {error}").into()),
        Err(_) => Ok(default),
    }
}

/// In cargo's target folder. A folder in memory would be no fairer: tmpfs does not say what it can read at once, and
/// every read of bowline's server would take the way that is meant for bytes on a disk.
fn default_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn make_file(path: &Path, mib: u64) -> Outcome<()> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    Ok(())
}

/// A child that is this program under `mark`. It ends when its standard input closes, at the latest with us.
struct Server {
    child: Child,
    address: std::net::SocketAddr,
}

impl Server {
    fn start(mark: &str, folder: &Path) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(mark)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first)?;
        Ok(Self { child, address: first.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // A child that is gone already is what is wanted.
        drop(self.child.wait());
    }
}
