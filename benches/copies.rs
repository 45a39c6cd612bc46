//! `bowline cp -r` of many small files over a long way, there and back, beside one file at a time.
//!
//! `cargo bench --bench copies` measures; `BOWLINE_BENCH_FILES` and `BOWLINE_BENCH_ALONE` set how many files are copied
//! as many at a time as the program does by itself, and how many one at a time, `BOWLINE_BENCH_DELAY_MS` how long the
//! way is in each direction, `BOWLINE_BENCH_ROUNDS` how often all is done, and `BOWLINE_BENCH_DIR` the folder of the
//! files. Without `--bench`, as `cargo test` runs it, the program does nothing. docs/performance.md says what was found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a benchmark stops where it fails, and counts in floating point"
)]

#[path = "copies/path.rs"]
mod path;

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::net::Clock;
use path::LongPath;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const FILE_LEN: usize = 4 << 10;

fn main() -> Outcome<()> {
    if std::env::args().any(|argument| argument == "--bench") {
        return run();
    }
    println!("nothing is measured without --bench");
    Ok(())
}

fn run() -> Outcome<()> {
    let (many, alone) = (number("BOWLINE_BENCH_FILES", 10_000)?, number("BOWLINE_BENCH_ALONE", 200)?);
    let (delay_ms, rounds) = (number("BOWLINE_BENCH_DELAY_MS", 10)?, number("BOWLINE_BENCH_ROUNDS", 3)?);
    if many == 0 || alone == 0 || rounds == 0 {
        return Err("there is nothing to measure with 0 files or 0 rounds".into());
    }
    let base = std::env::var_os("BOWLINE_BENCH_DIR").map_or_else(default_folder, PathBuf::from);
    let scene = Scene::start(&base, Duration::from_millis(delay_ms))?;
    for (tree, files) in [("many", many), ("few", alone)] {
        make_files(&scene.client.join(tree), files)?;
        make_files(&scene.server.join("data").join(tree), files)?;
    }
    println!("{many} files of {FILE_LEN} bytes as many at a time as by default, {alone} one at a time;");
    println!("{} ms there and back, in {}, {rounds} rounds\n", 2 * delay_ms, base.display());
    // The first copy of all brings both ends up to temperature, and is not counted.
    scene.copy("few", true, "warm", &[])?;
    let mut rows = [Row::new("to the server", true), Row::new("from the server", false)];
    for round in 0..rounds {
        for row in &mut rows {
            let many = scene.copy("many", row.is_upload, &format!("many-{round}"), &[])?.per_file(many);
            let alone =
                scene.copy("few", row.is_upload, &format!("few-{round}"), &["--jobs", "1"])?.per_file(alone);
            row.rounds.push((many, alone));
        }
    }
    println!(
        "| | files/s | one at a time, files/s | times as fast | round trips of a file alone | bytes of the line for a file |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    rows.iter().for_each(|row| row.print(delay_ms as f64 / 500.0));
    Ok(())
}

/// What one file took of a copy, on average: seconds, and bytes of the line.
#[derive(Clone, Copy)]
struct Share {
    seconds: f64,
    bytes: f64,
}

/// What a copy took.
struct Took {
    span: Duration,
    bytes: u64,
}

impl Took {
    fn per_file(&self, files: u64) -> Share {
        Share { seconds: self.span.as_secs_f64() / files as f64, bytes: self.bytes as f64 / files as f64 }
    }
}

struct Row {
    name: &'static str,
    is_upload: bool,
    /// Many at a time, and one at a time.
    rounds: Vec<(Share, Share)>,
}

impl Row {
    fn new(name: &'static str, is_upload: bool) -> Self {
        Self { name, is_upload, rounds: Vec::new() }
    }

    fn print(&self, round_trip: f64) {
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            self.name,
            self.spread(|(many, _)| 1.0 / many.seconds, 0),
            self.spread(|(_, alone)| 1.0 / alone.seconds, 1),
            self.spread(|(many, alone)| alone.seconds / many.seconds, 1),
            self.spread(|(_, alone)| alone.seconds / round_trip, 1),
            self.spread(|(many, _)| many.bytes, 0),
        );
    }

    /// The median with least and most.
    fn spread(&self, value: impl Fn(&(Share, Share)) -> f64, digits: usize) -> String {
        let mut values: Vec<f64> = self.rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (least, middle, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
        format!("{middle:.digits$} [{least:.digits$}-{most:.digits$}]")
    }
}

/// A server process at the far end of a long way, and a client that knows it as `store`. Both have a home.
struct Scene {
    _folder: tempfile::TempDir,
    server: PathBuf,
    client: PathBuf,
    child: Child,
    path: Option<LongPath>,
}

impl Scene {
    fn start(base: &Path, delay: Duration) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("bowline-bench-").tempdir_in(base)?;
        let (server, client) = (folder.path().join("server"), folder.path().join("client"));
        for home in [&server, &client] {
            fs::create_dir_all(home.join("config/bowline"))?;
        }
        fs::create_dir(server.join("data"))?;
        let (server_key, client_key) = (new_key(&server)?, new_key(&client)?);
        let entry = format!(
            "[[client]]\nkey = \"{client_key}\"\nname = \"bench\"\nexports = [\"data\"]\nrights = [\"read\", \"write\"]\n"
        );
        fs::write(server.join("config/bowline/clients.toml"), entry)?;
        let export = format!("data={}", server.join("data").display());
        let arguments =
            ["serve", &export, "--until-stdin-closes", "--no-admin-socket", "--listen", "127.0.0.1:0"];
        let mut child = bowline(&server)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first)?;
        let mut scene = Self { _folder: folder, server, client, child, path: None };
        let address: SocketAddr =
            first.trim().strip_prefix("listening on ").ok_or("it does not listen")?.parse()?;
        let path = LongPath::to(address, delay)?;
        let peer = format!(
            "[[peer]]\nname = \"store\"\nkey = \"{server_key}\"\naddresses = [\"{}\"]\n",
            path.address()
        );
        fs::write(scene.client.join("config/bowline/peers.toml"), peer)?;
        scene.path = Some(path);
        Ok(scene)
    }

    /// Copies a tree to a new one of this name, checks how many files are in it, and removes it.
    fn copy(&self, tree: &str, is_upload: bool, target: &str, more: &[&str]) -> Outcome<Took> {
        let path = self.path.as_ref().ok_or("no path")?;
        let local = |name: &str| self.client.join(name).display().to_string();
        let remote = |name: &str| format!("store:data/{name}");
        let (from, to, made, source) = match is_upload {
            true => {
                (local(tree), remote(target), self.server.join("data").join(target), self.client.join(tree))
            }
            false => (remote(tree), local(target), self.client.join(target), self.client.join(tree)),
        };
        let (begin, before) = (Clock.now(), path.carried());
        let done = bowline(&self.client).args(["-q", "cp", "-r"]).args(more).args([from, to]).output()?;
        let (span, bytes) = (Clock.now().since(begin), path.carried() - before);
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into());
        }
        let (found, wanted) = (fs::read_dir(&made)?.count(), fs::read_dir(source)?.count());
        if found != wanted {
            return Err(format!("{found} files of {wanted} were copied").into());
        }
        fs::remove_dir_all(made)?;
        Ok(Took { span, bytes })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // A child that is gone already is what is wanted.
        drop(self.child.wait());
    }
}

/// The program, with the settings of this home.
fn bowline(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let own = ["BOWLINE_KEY", "BOWLINE_CLIENTS", "BOWLINE_PEERS", "BOWLINE_LOG", "BOWLINE_STATE_DIR"];
    for variable in own.into_iter().chain(["XDG_RUNTIME_DIR", "XDG_STATE_HOME"]) {
        command.env_remove(variable);
    }
    command.env("HOME", home).env("XDG_CONFIG_HOME", home.join("config")).stdin(Stdio::null());
    command
}

/// Makes an identity for this home, and tells its public key.
fn new_key(home: &Path) -> Outcome<String> {
    let done = bowline(home).args(["key", "new"]).output()?;
    let text = String::from_utf8(done.stdout)?;
    let key = text.lines().find_map(|line| line.strip_prefix("key ")).ok_or("no key was made")?;
    Ok(key.to_owned())
}

fn make_files(folder: &Path, files: u64) -> Outcome<()> {
    fs::create_dir(folder)?;
    for at in 0..files {
        fs::write(folder.join(format!("file-{at:05}")), [at as u8; FILE_LEN])?;
    }
    Ok(())
}

fn number(name: &str, default: u64) -> Outcome<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}={text}: {error}").into()),
        Err(_) => Ok(default),
    }
}

/// In cargo's target folder: what is copied is to reach a disk.
fn default_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
