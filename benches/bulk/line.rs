//! The same bytes through bowline: a server process, and sessions with one data channel each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{ChannelKind, Limits, LineRole, Protection, PublicKey, Suite, SuiteSet};
use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;
use bowline::server::{Exports, Server as LineServer, ServerConfig, parse_clients};
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{BLOCK, FILE, LINE_SERVER, Offsets, Outcome, Pass, Server};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A server process, and the client that it knows.
pub(crate) struct World {
    runtime: Runtime,
    server: Server,
    key: PublicKey,
    client: Client,
    /// What is written everywhere.
    chunk: Bytes,
}

/// A session whose bulk data goes over one channel, and the open file.
pub(crate) struct Opened<'a> {
    world: &'a World,
    session: Session,
    file: Arc<File>,
}

impl World {
    pub(crate) fn start(folder: &Path) -> Outcome<Self> {
        let (server, client) = (new_identity()?, new_identity()?);
        key_file::create(&folder.join("server.key"), &server.to_text())?;
        let entry = format!(
            "[[client]]\nkey = \"{}\"\nname = \"bench\"\nexports = [\"data\"]\nrights = [\"read\", \"write\"]\nprotection = \"clear\"\n",
            client.public()
        );
        std::fs::write(folder.join("clients.toml"), entry)?;
        Ok(Self {
            runtime: Runtime::new()?,
            server: Server::start(LINE_SERVER, folder)?,
            key: server.public(),
            client: Client::new(client)?,
            chunk: Bytes::from(vec![0x5a; Limits::default().chunk as usize]),
        })
    }

    /// The process id of the server.
    pub(crate) fn server(&self) -> u32 {
        self.server.child.id()
    }

    /// A new session; its data channel has this protection and suite.
    pub(crate) fn session(&self, protection: Protection, suite: Suite) -> Outcome<Opened<'_>> {
        let line = |role| LineConfig {
            address: self.server.address,
            via: None,
            role,
            protection: (role == LineRole::Bulk).then_some(protection),
        };
        let peer = Peer {
            name: "bench".into(),
            key: self.key,
            protection_min: None,
            lines: vec![line(LineRole::Bulk), line(LineRole::Keys)],
        };
        self.runtime.block_on(async {
            let client = self.client.clone().with_suites(SuiteSet::of(suite));
            let session = client.connect(&peer).await?;
            session.all_lines_up(LONG).await?;
            let data = session.channels().into_iter().filter(|channel| channel.kind == ChannelKind::Data);
            let found: Vec<Protection> = data.map(|channel| channel.protection).collect();
            if found != [protection] {
                return Err(format!("there is {found:?} where one channel is to be {protection}").into());
            }
            let options = OpenOptions::new().read(true).write(true).with_key(false);
            let file = session.open("data", FILE, &options).await?;
            Ok(Opened { world: self, session, file: Arc::new(file) })
        })
    }
}

impl Opened<'_> {
    pub(crate) fn pass(&self, pass: Pass) -> Outcome<()> {
        let (file, chunk) = (Arc::clone(&self.file), self.world.chunk.clone());
        // On one of the runtime's threads, as what programs do: another one would have to be woken for each answer.
        let passing = self.world.runtime.spawn(async move {
            match pass {
                Pass::Read(bytes) => read(&file, bytes).await,
                Pass::Write(bytes) => write(&file, &chunk, bytes).await,
                Pass::Random { reads, blocks, depth: 1 } => {
                    read_blocks(&file, reads, Offsets::new(0, blocks)).await
                }
                Pass::Random { reads, blocks, depth } => read_deep(&file, reads, blocks, depth as u64).await,
            }
        });
        self.world.runtime.block_on(passing)?
    }

    /// Closes the file and the session; what goes wrong then is no concern of the figures.
    pub(crate) fn close(self) {
        self.world.runtime.block_on(async {
            if let Some(file) = Arc::into_inner(self.file) {
                drop(file.close().await);
            }
            self.session.close().await;
        });
    }
}

async fn read(file: &File, bytes: u64) -> Outcome<()> {
    let mut chunks = file.read_ahead(0, None);
    let mut read = 0;
    while let Some(chunk) = chunks.next().await? {
        read += chunk.len() as u64;
    }
    if read == bytes { Ok(()) } else { Err(format!("{read} bytes of {bytes} came").into()) }
}

/// Writes the same chunk everywhere, as the floor does, with as much under way as there is read ahead.
async fn write(file: &Arc<File>, chunk: &Bytes, bytes: u64) -> Outcome<()> {
    let (len, limits) = (chunk.len() as u64, Limits::default());
    let mut writers = JoinSet::new();
    let step = limits.bytes / len;
    for first in 0..step {
        let (file, chunk) = (Arc::clone(file), chunk.clone());
        writers.spawn(async move {
            let mut at = first * len;
            while at < bytes {
                let part = chunk.slice(..len.min(bytes - at) as usize);
                file.write_bytes_at(at, part).await?;
                at += step * len;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

/// As many tasks as reads at a time, each with one of them.
async fn read_deep(file: &Arc<File>, reads: u64, blocks: u64, depth: u64) -> Outcome<()> {
    let mut readers = JoinSet::new();
    for reader in 0..depth {
        let (file, offsets) = (Arc::clone(file), Offsets::new(reader, blocks));
        readers.spawn(async move { read_blocks(&file, reads / depth, offsets).await });
    }
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Reads blocks one after the other.
async fn read_blocks(file: &File, reads: u64, mut offsets: Offsets) -> Outcome<()> {
    for _ in 0..reads {
        let len = file.read_chunk(offsets.next(), BLOCK).await?.len();
        if len != BLOCK {
            return Err(format!("{len} bytes of a block came").into());
        }
    }
    Ok(())
}

/// The server process.
pub(crate) fn serve(folder: &Path) -> Outcome<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let identity = Identity::from_text(&key_file::read(&folder.join("server.key"))?)?;
        let exports = Exports::open([("data".parse()?, folder.join("data"))])?;
        let policy = parse_clients(&std::fs::read_to_string(folder.join("clients.toml"))?)?;
        let mut config = ServerConfig::new(Arc::new(identity), exports, policy);
        config.protection_min = Protection::Clear;
        config.listen = vec!["127.0.0.1:0".parse()?];
        let server = LineServer::start(config)?;
        println!("{}", server.addresses()[0]);
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        server.stop().await;
        Outcome::Ok(())
    })?;
    // A thread waits for standard input, and it has closed.
    runtime.shutdown_background();
    Ok(())
}

fn new_identity() -> Outcome<Arc<Identity>> {
    Ok(Arc::new(Identity::generate(&mut SystemEntropy)?))
}
