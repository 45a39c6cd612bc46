//! The late first copy: a write is held in the server, its channel is cut, its client repeats it on another channel and
//! writes something newer to the same bytes, and then the first copy is let go. The newer bytes stay. A real server
//! process and real sockets; the record is held half read, or its execution in the kernel.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

mod support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bowline::client::{File, LineConfig, OpenOptions, Session};
use bowline::model::LineRole;
use bowline::net::Via;
use socket2::SockRef;
use support::recorder::{Kind, Recorder};
use support::{LONG, World, only};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

const RUNS: usize = 50;
const LEN: usize = 64 << 10;
/// Where the two writes of a run go.
const PLACES: [u64; 2] = [1 << 20, 2 << 20];

/// What a dam does with what clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Of what comes from now on so many bytes go through.
    After(usize),
    /// The client's side is reset, and the server does not hear of it.
    Cut,
}

/// A proxy that can keep back what a client has sent when that client is gone already.
struct Dam {
    address: SocketAddr,
    gate: watch::Sender<Gate>,
    /// How many bytes have come from clients while the gate was as it is.
    came: watch::Sender<usize>,
    /// Set when what was kept back is to go on to the server.
    release: watch::Sender<bool>,
    /// Changes when the server has closed that connection.
    ended: watch::Receiver<()>,
}

impl Dam {
    async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (ends, ended) = watch::channel(());
        let dam = Self {
            address: listener.local_addr().unwrap(),
            gate: watch::Sender::new(Gate::Open),
            came: watch::Sender::new(0),
            release: watch::Sender::new(false),
            ended,
        };
        let (gate, came, release) = (dam.gate.clone(), dam.came.clone(), dam.release.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(upstream).await else { continue };
                let (gate, came) = (gate.subscribe(), came.clone());
                tokio::spawn(carry(client, server, (gate, came), release.subscribe(), ends.clone()));
            }
        });
        dam
    }

    fn set(&self, gate: Gate) {
        self.came.send_replace(0);
        self.gate.send_replace(gate);
    }

    /// Waits until a client has sent so many bytes.
    async fn has(&self, len: usize) {
        let mut came = self.came.subscribe();
        timeout(LONG, came.wait_for(|came| *came >= len)).await.unwrap().unwrap();
    }
}

/// Carries one connection to its end.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    (mut gate, came): (watch::Receiver<Gate>, watch::Sender<usize>),
    mut release: watch::Receiver<bool>,
    ends: watch::Sender<()>,
) {
    let (mut kept, mut passed) = (Vec::new(), 0);
    let (mut up, mut down) = (vec![0; LEN], vec![0; LEN]);
    loop {
        let now = *gate.borrow_and_update();
        match now {
            Gate::Open | Gate::After(_) => {}
            Gate::Cut if kept.is_empty() => {}
            Gate::Cut => break,
        }
        tokio::select! {
            biased;
            changed = gate.changed() => {
                if changed.is_err() { return }
                passed = 0;
            }
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                let through = match now {
                    Gate::After(len) => read.min(len - passed),
                    _ => read,
                };
                passed += through;
                kept.extend_from_slice(&up[through..read]);
                if server.write_all(&up[..through]).await.is_err() { return }
                came.send_modify(|came| *came += read);
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() { return }
            }
        }
    }
    SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    if release.wait_for(|is_released| *is_released).await.is_err() {
        return;
    }
    server.write_all(&kept).await.unwrap();
    server.shutdown().await.unwrap();
    server.read_to_end(&mut Vec::new()).await.unwrap();
    ends.send_replace(());
}

fn content(run: usize, which: &str) -> Vec<u8> {
    format!("{which:<8}{run:>7}\n").into_bytes().repeat(LEN / 16)
}

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

/// Writes to both places until the dam's line carries one of them, and tells which that is. The other is done.
async fn stick(dam: &Dam, record: usize, file: &Arc<File>, run: usize) -> (usize, JoinSet<usize>) {
    loop {
        let mut writing = JoinSet::new();
        for (which, place) in PLACES.into_iter().enumerate() {
            let file = Arc::clone(file);
            writing.spawn(async move {
                file.write_at(place, &content(run, "first")).await.unwrap();
                which
            });
        }
        let (mut done, mut is_stuck) = (Vec::new(), false);
        loop {
            tokio::select! {
                () = dam.has(record), if !is_stuck => is_stuck = true,
                written = writing.join_next() => match written {
                    Some(which) => done.push(which.unwrap()),
                    None => break,
                }
            }
            // Each line has carried one.
            if let (true, &[which]) = (is_stuck, &done[..]) {
                return (1 - which, writing);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_fifty_first_copies_that_arrive_late_change_nothing() {
    let world = World::start(&vec![0; 4 << 20]).await;
    let dam = Dam::start(world.addresses[0]).await;
    // Names and keys go past the dam.
    let mut peer = world.peer([LineRole::Keys, LineRole::Bulk]);
    let via = Some(Via::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    peer.lines.push(LineConfig { address: dam.address, via, role: LineRole::Bulk, protection: None });
    let session = world.connect_as(&world.identity, &peer).await;
    let file = Arc::new(world.open(&session, &read_write()).await.unwrap());
    // How long a record is.
    let through_the_dam = world.open(&session, &read_write().lines(only(2))).await.unwrap();
    dam.set(Gate::Open);
    through_the_dam.write_at(PLACES[0], &content(0, "first")).await.unwrap();
    let record = *dam.came.borrow();
    assert!(record > LEN && record < LEN + 200, "{record}");

    for run in 1..=RUNS {
        // The server has nothing of the record, half of it, or all but the last byte.
        let held_after = [0, record / 2, record - 1][run % 3];
        dam.release.send_replace(false);
        dam.set(Gate::After(held_after));
        let (stuck, mut first) = stick(&dam, record, &file, run).await;
        let (mut ended, heard_before) = (dam.ended.clone(), heard(&world));
        ended.mark_unchanged();
        // Its channel is cut, and it is repeated on the other line.
        dam.set(Gate::Cut);
        assert_eq!(timeout(LONG, first.join_next()).await.unwrap().unwrap().unwrap(), stuck);
        let place = PLACES[stuck];
        let newer = content(run, "newer");
        file.write_at(place, &newer).await.unwrap();

        dam.release.send_replace(true);
        timeout(LONG, ended.changed()).await.unwrap().unwrap();
        world.until("the copy is heard to its end", || heard(&world) > heard_before).await;
        let start = usize::try_from(place).unwrap();
        let bytes = fs::read(world.file("file")).unwrap();
        assert!(bytes[start..start + LEN] == newer, "run {run}: the first copy has undone the newer one");
        dam.set(Gate::Open);
        session.all_lines_up(LONG).await.unwrap();
    }
}

/// How many channels have ended behind a whole record: after half a record the server would say so.
fn heard(world: &World) -> usize {
    world.log().matches("channel ended why=the connection ended without a farewell").count()
}

/// A file system of its own, on which everything that writes can be held in the kernel. It goes when it is dropped.
struct Frozen {
    mounted_on: PathBuf,
    is_frozen: bool,
    _image: NamedTempFile,
}

impl Frozen {
    /// Mounts one; none where that cannot be done.
    fn mount(on: &Path) -> Option<Self> {
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(32 << 20).unwrap();
        let made = run(Command::new("mkfs.ext4").arg("-q").arg(image.path()));
        let mounted = made && run(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(on));
        mounted.then(|| Self { mounted_on: on.to_owned(), is_frozen: false, _image: image })
    }

    fn freeze(&mut self, is_frozen: bool) {
        let how = if is_frozen { "--freeze" } else { "--unfreeze" };
        assert!(run(Command::new("fsfreeze").arg(how).arg(&self.mounted_on)), "fsfreeze {how}");
        self.is_frozen = is_frozen;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.is_frozen {
            self.freeze(false);
        }
        // The server still has it, until its world ends.
        assert!(run(Command::new("umount").arg("--lazy").arg(&self.mounted_on)));
    }
}

/// Whether a command is there and does what it is for.
fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|done| done.status.success())
}

fn sent(recorder: &Recorder) -> u64 {
    recorder
        .labels()
        .iter()
        .filter(|label| label.kind == Kind::BindData)
        .map(|label| label.to_server_len)
        .sum()
}

/// Waits until one of the lines has carried so much more to the server, and tells which.
async fn carrier(world: &World, before: [u64; 2]) -> usize {
    let grown = |line: usize| {
        let len = u64::try_from(LEN).unwrap();
        world.recorders[line].until(move |labels| {
            let data = labels.iter().filter(|label| label.kind == Kind::BindData);
            data.map(|label| label.to_server_len).sum::<u64>() >= before[line] + len
        })
    };
    tokio::select! {
        grown = grown(0) => grown.map(|_| 0).unwrap(),
        grown = grown(1) => grown.map(|_| 1).unwrap(),
    }
}

fn sent_by(world: &World) -> [u64; 2] {
    [0, 1].map(|line| sent(&world.recorders[line]))
}

async fn wait_for_lines(session: &Session) {
    session.all_lines_up(LONG).await.unwrap();
}

/// The first copy has begun: it is in its system call when its channel is cut. Its repeat is not executed beside it, and
/// what is written after it stands. That an append is there once shows that it ran once.
#[tokio::test(flavor = "multi_thread")]
async fn t31_a_first_copy_that_is_held_in_its_system_call_runs_once_and_before_what_is_newer() {
    let mut frozen = None;
    let world = World::prepared(b"", |data| frozen = Frozen::mount(data)).await;
    let Some(mut frozen) = frozen else {
        println!("skipped: mounting a file system needs root, mkfs.ext4 and a loop device");
        return;
    };
    let session = world.connect([LineRole::Both; 2]).await;
    let file = Arc::new(world.open(&session, &read_write()).await.unwrap());
    let mut expected = Vec::new();
    for run in 1..=RUNS {
        let (appended, newer) = (content(run, "append"), content(run, "newer"));
        frozen.freeze(true);
        let before = sent_by(&world);
        let appending = {
            let (file, bytes) = (Arc::clone(&file), appended.clone());
            tokio::spawn(async move { file.append(&bytes).await.unwrap() })
        };
        let line = carrier(&world, before).await;
        let before = sent_by(&world);
        world.recorders[line].cut_all();
        let repeated_on = carrier(&world, before).await;
        assert!(!appending.is_finished(), "run {run}: it is held");
        frozen.freeze(false);
        let at = timeout(LONG, appending).await.unwrap().unwrap();
        assert_eq!(at, u64::try_from(expected.len()).unwrap(), "run {run}, repeated on line {repeated_on}");
        file.write_at(at, &newer).await.unwrap();
        expected.extend_from_slice(&newer);
        assert!(fs::read(world.file("file")).unwrap() == expected, "run {run}");
        wait_for_lines(&session).await;
    }
    drop(file);
    session.close().await;
}
