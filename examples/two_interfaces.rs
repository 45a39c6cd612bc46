//! The main job, without arguments and without root: one open file over two local addresses.
//!
//! Act 1, the split: line 1 carries readable bulk data and nothing else; the open, its resume key and the request
//! for the duplicate handle go encrypted over line 2. Act 2, the sum: a duplicate handle reads the whole file over
//! both lines. Act 3, the loss: line 1 is cut in the middle, line 2 finishes. A recorder between the two processes shows
//! what each line carried.
//!
//! The program runs itself a second time as the server. `cargo run --release --example two_interfaces`
//!
//! Between real machines, with a server that is running and in the list of peers, and a file of it:
//! `cargo run --release --example two_interfaces -- --peer store --via eth0 --via eth1 media/clips/first.mov`. Act 3 then
//! waits for somebody to pull the cable of line 1.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "an example stops where it fails"
)]

#[path = "two_interfaces/real.rs"]
mod real;
#[path = "../tests/support/recorder.rs"]
mod recorder;

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use blake2::{Blake2s256, Digest as _};
use bowline::client::{ChannelState, ChannelStatus, Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{ChannelKind, Limits, LineRole, LineSet, PublicKey, ResumeKey, len_u64};
use bowline::net::{Clock, SystemEntropy, Via, key_file};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use recorder::{Kind, Recorder, Recording, contains_secret};
use tokio::io::AsyncReadExt as _;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const FILE_LEN: usize = 256 << 20;
const LINES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))];
/// What marks this program's second run.
const SERVER: &str = "--as-server-of";

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let runtime = tokio::runtime::Runtime::new()?;
    match (arguments.next(), arguments.next()) {
        (Some(mark), Some(folder)) if mark == SERVER => {
            runtime.block_on(serve(Path::new(&folder)))?;
            // A thread waits for standard input, and it has closed.
            runtime.shutdown_background();
            Ok(())
        }
        (None, _) => runtime.block_on(play()),
        (Some(first), second) => {
            let all = [Some(first), second].into_iter().flatten().chain(arguments);
            let all: Option<Vec<String>> = all.map(|argument| argument.into_string().ok()).collect();
            let stage = real::Stage::parse(&all.ok_or(real::USAGE)?)?;
            runtime.block_on(real::play(stage, &real::settings()?))
        }
    }
}

/// The server process: exports `folder/data` to the clients in `folder/clients.toml`.
async fn serve(folder: &Path) -> Outcome<()> {
    let identity = Identity::from_text(&key_file::read(&folder.join("server.key"))?)?;
    let exports = Exports::open([("data".parse()?, folder.join("data"))])?;
    let policy = parse_clients(&std::fs::read_to_string(folder.join("clients.toml"))?)?;
    let server = Server::start(ServerConfig {
        listen: LINES.iter().map(|&line| SocketAddr::new(line, 0)).collect(),
        ..ServerConfig::new(Arc::new(identity), exports, policy)
    })?;
    println!("{} {}", server.addresses()[0], server.addresses()[1]);
    // The parent holds the other end; when it is gone, so is this.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    server.stop().await;
    Ok(())
}

async fn play() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let (server, client) = (new_identity()?, new_identity()?);
    prepare(folder.path(), &server, &client)?;
    let digest = make_file(&folder.path().join("data/film.raw"))?;
    let (mut child, addresses) = start_server(folder.path())?;
    println!("server process {}, client process {}", child.id(), std::process::id());
    println!("file: data/film.raw, {} MiB, digest {}\n", FILE_LEN >> 20, short(&digest));

    let key = act_1(&server.public(), &client, &addresses, &digest).await?;
    act_2(&server.public(), &client, &addresses, &digest, &key).await?;
    act_3(&server.public(), &client, &addresses, &digest).await?;

    drop(child.stdin.take());
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
}

/// Act 1: bulk on line 1 alone, readable; everything that bears names or keys on line 2 alone, encrypted.
async fn act_1(
    server: &PublicKey,
    client: &Arc<Identity>,
    addresses: &[SocketAddr],
    digest: &[u8],
) -> Outcome<ResumeKey> {
    println!("Act 1: the split. Line 1 ({}) is for bulk data, line 2 ({}) for keys.", LINES[0], LINES[1]);
    let recorders = [
        // The start of what line 1 carries is enough to look at; all of it is counted.
        Recorder::keeping(LINES[0], addresses[0], 8 << 20).await?,
        Recorder::start(LINES[1], addresses[1]).await?,
    ];
    let recorded = [recorders[0].address(), recorders[1].address()];
    let peer = peer(server, &recorded, [LineRole::Bulk, LineRole::Keys]);
    let session = Client::new(Arc::clone(client))?.connect(&peer).await?;
    session.all_lines_up(Duration::from_secs(10)).await?;

    let first = session.open("data", "film.raw", &OpenOptions::new().read(true)).await?;
    let key = first.resume_key().await?;
    println!("  opened: {}; {} bytes", first.state().mode, first.state().attributes.len);
    println!("  resume key: file id {}, process {}, secret not shown", key.file_id, key.process_id);
    let duplicate = session.resume(&key, LineSet::ALL).await?;
    println!("  duplicate handle: {}", duplicate.state().rights);
    check("the duplicate's bytes", &digest_of(&duplicate).await?, digest)?;
    table(&session);
    duplicate.close().await?;
    // Left open on the server: the key is the way back to it, in act 2.
    first.leave_open();
    session.close().await;

    let (bulk, keys) = (recorders[0].connections(), recorders[1].connections());
    show("line 1", &bulk, &key)?;
    show("line 2", &keys, &key)?;
    let plain = file_start();
    expect("line 1 shows the file's bytes", bulk.iter().any(|line| find(&line.to_client, &plain)))?;
    expect("line 1 carries data channels only", bulk.iter().all(|line| line.kind == Kind::BindData))?;
    expect("line 2 shows no byte of the file", !keys.iter().any(|line| find(&line.to_client, &plain)))?;
    expect("line 2 shows no name", !keys.iter().any(|line| find(&line.to_server, b"film.raw")))?;
    expect(
        "line 2 carries control channels only",
        keys.iter().all(|line| matches!(line.kind, Kind::Session | Kind::BindControl)),
    )?;
    println!();
    Ok(key)
}

/// Act 2: a new session gets a duplicate of the open of act 1, and reads it over both lines at once.
async fn act_2(
    server: &PublicKey,
    client: &Arc<Identity>,
    addresses: &[SocketAddr],
    digest: &[u8],
    key: &ResumeKey,
) -> Outcome<()> {
    println!(
        "Act 2: the sum. The file of act 1 is still open; its key brings a handle that uses both lines."
    );
    let peer = peer(server, addresses, [LineRole::Both; 2]);
    let session = Client::new(Arc::clone(client))?.connect(&peer).await?;
    session.all_lines_up(Duration::from_secs(10)).await?;
    let file = session.resume(key, LineSet::ALL).await?;
    let begin = Clock.now();
    check("the bytes over both lines", &digest_of(&file).await?, digest)?;
    let rate = mib_per_s(len_u64(FILE_LEN), Clock.now().since(begin));
    table(&session);
    println!("  both lines together: {rate} MiB/s, digest of every byte included");
    let carried = session.channels().into_iter().filter(|channel| channel.kind == ChannelKind::Data);
    expect("both lines carried a part", carried.filter(|channel| channel.read_bytes > 1 << 20).count() == 2)?;
    file.close().await?;
    session.close().await;
    println!();
    Ok(())
}

/// Act 3: line 1 is lost in the middle of the file, and line 2 finishes it.
async fn act_3(
    server: &PublicKey,
    client: &Arc<Identity>,
    addresses: &[SocketAddr],
    digest: &[u8],
) -> Outcome<()> {
    println!("Act 3: the loss. Line 1 is cut in the middle of the file.");
    let recorders = [
        Recorder::keeping(LINES[0], addresses[0], 1 << 20).await?,
        Recorder::keeping(LINES[1], addresses[1], 1 << 20).await?,
    ];
    let recorded = [recorders[0].address(), recorders[1].address()];
    let peer = peer(server, &recorded, [LineRole::Both; 2]);
    let session = Client::new(Arc::clone(client))?.connect(&peer).await?;
    session.all_lines_up(Duration::from_secs(10)).await?;
    let file = session.open("data", "film.raw", &OpenOptions::new().read(true)).await?;
    let mut read = Blake2s256::new();
    let (mut len, mut is_cut) = (0, false);
    let mut bytes = file.read_ahead(0, None);
    while let Some(chunk) = bytes.next().await? {
        read.update(&chunk);
        len += chunk.len();
        if len >= FILE_LEN / 2 && !is_cut {
            // Whoever tries it again is turned away as well.
            recorders[0].refuse(true);
            println!(
                "  {} of {} MiB read: {} connections of line 1 cut",
                len >> 20,
                FILE_LEN >> 20,
                recorders[0].cut_all()
            );
            is_cut = true;
        }
    }
    drop(bytes);
    check("the bytes over what was left", &read.finalize(), digest)?;
    table(&session);
    let channels = session.channels();
    let lost = channels.iter().filter(|channel| matches!(channel.state, ChannelState::Lost(_)));
    expect("line 1 was lost", lost.count() >= 1)?;
    // A byte counts where it was answered, so what was read twice would be above the file's length.
    let answered: u64 = channels.iter().map(|channel| channel.read_bytes).sum();
    expect("every byte was read once", answered == len_u64(FILE_LEN))?;
    let limits = Limits::default();
    let repeats: u64 = channels.iter().map(|channel| channel.repeats).sum();
    let in_flight = limits.channel_bytes / u64::from(limits.chunk);
    println!("  requests that were in flight on line 1 and were sent again on line 2: {repeats}");
    expect("nothing else was asked for twice", repeats <= in_flight)?;
    file.close().await?;
    session.close().await;
    Ok(())
}

fn new_identity() -> Outcome<Arc<Identity>> {
    Ok(Arc::new(Identity::generate(&mut SystemEntropy)?))
}

/// What an administrator sets up once: the server's identity and its list of clients.
fn prepare(folder: &Path, server: &Identity, client: &Identity) -> Outcome<()> {
    std::fs::create_dir(folder.join("data"))?;
    key_file::create(&folder.join("server.key"), &server.to_text())?;
    let key = client.public();
    let entry = format!(
        "[[client]]\nkey = \"{key}\"\nname = \"example\"\nexports = [\"data\"]\nrights = [\"read\"]\n"
    );
    std::fs::write(folder.join("clients.toml"), entry)?;
    Ok(())
}

fn start_server(folder: &Path) -> Outcome<(Child, Vec<SocketAddr>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(SERVER)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let addresses = line.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>()?;
    Ok((child, addresses))
}

/// A line to each address, each from the local address of the same number.
fn peer(server: &PublicKey, addresses: &[SocketAddr], roles: [LineRole; 2]) -> Peer {
    let lines = addresses.iter().zip(roles).zip(LINES);
    let lines = lines
        .map(|((&address, role), from)| LineConfig {
            via: Some(Via::Address(from)),
            role,
            ..LineConfig::new(address)
        })
        .collect();
    Peer { name: "example".into(), key: *server, protection_min: None, lines }
}

/// The first bytes of the file, which are found again wherever they are readable.
fn file_start() -> Vec<u8> {
    blocks().next().unwrap_or_default()[..64].to_vec()
}

/// The file's content, a MiB at a time: different everywhere and the same on each run.
fn blocks() -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..FILE_LEN >> 20).map(move |_| {
        let mut block = Vec::with_capacity(1 << 20);
        while block.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        block
    })
}

fn make_file(path: &Path) -> Outcome<Vec<u8>> {
    let mut file = std::fs::File::create(path)?;
    let mut digest = Blake2s256::new();
    for block in blocks() {
        digest.update(&block);
        file.write_all(&block)?;
    }
    Ok(digest.finalize().to_vec())
}

async fn digest_of(file: &File) -> Outcome<Vec<u8>> {
    let mut digest = Blake2s256::new();
    let mut bytes = file.read_ahead(0, None);
    while let Some(chunk) = bytes.next().await? {
        digest.update(&chunk);
    }
    Ok(digest.finalize().to_vec())
}

fn short(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn check(what: &str, found: &[u8], wanted: &[u8]) -> Outcome<()> {
    println!("  {what}: digest {}", short(found));
    expect("the digests are equal", found == wanted)
}

fn expect(what: &str, holds: bool) -> Outcome<()> {
    println!("  [{}] {what}", if holds { "ok" } else { "FAILED" });
    if holds { Ok(()) } else { Err(what.into()) }
}

fn find(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// What the recorder saw on a line, and that no form of the key's secret was among it.
fn show(line: &str, recordings: &[Recording], key: &ResumeKey) -> Outcome<()> {
    for recording in recordings {
        let sample: String = recording
            .to_client
            .iter()
            .skip(recording.to_client.len() / 2)
            .take(12)
            .map(|byte| format!("{byte:02x} "))
            .collect();
        println!(
            "  {line} recorded: {:<11} to the server {:>7} B, to the client {:>9} B kept, … {sample}",
            format!("{:?}", recording.kind),
            recording.to_server.len(),
            recording.to_client.len(),
        );
        for bytes in [&recording.to_server, &recording.to_client] {
            if let Some(form) = contains_secret(bytes, &key.secret) {
                return Err(format!("{line} shows the resume key's secret as {form}").into());
            }
        }
    }
    Ok(())
}

fn table(session: &Session) {
    println!("  channel  line           carries  protection       bytes    requests      MiB/s");
    let lines = session.lines();
    for ChannelStatus { number, line, kind, protection, read_bytes, requests, busy, .. } in session.channels()
    {
        let via = lines.get(usize::from(line.0)).and_then(|line| line.config.via.clone());
        let rate = mib_per_s(read_bytes, busy);
        println!(
            "  {:>7}  {:<13}  {kind:<7}  {protection:<10}  {read_bytes:>10}  {requests:>9}  {:>10}",
            number.to_string(),
            via.map(|via| via.to_string()).unwrap_or_default(),
            if read_bytes > 0 { rate.to_string() } else { "-".into() },
        );
    }
}

fn mib_per_s(bytes: u64, span: Duration) -> u128 {
    (u128::from(bytes) * 1_000_000 / span.as_micros().max(1)) >> 20
}
