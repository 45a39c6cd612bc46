//! The same bytes through bowline: a server process, and sessions with one data channel each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::{ChannelKind, Limits, LineRole, Protection, PublicKey};
use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;
use bowline::server::{Exports, ModePolicy, Server as LineServer, ServerConfig, parse_clients};
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use super::{Direction, FILE, LINE_SERVER, Outcome, Server};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// What a caller gives to one write.
const WRITE_LEN: u64 = 8 << 20;

/// A server process, and the client that it knows.
pub(crate) struct World {
    runtime: Runtime,
    server: Server,
    key: PublicKey,
    client: Client,
    buffer: Bytes,
}

/// A session whose bulk data goes over one channel, and the open file.
pub(crate) struct Pass<'a> {
    world: &'a World,
    session: Session,
    file: File,
}

impl World {
    pub(crate) fn start(folder: &Path) -> Outcome<Self> {
        let (server, client) = (new_identity()?, new_identity()?);
        key_file::create(&folder.join("server.key"), &server.to_text())?;
        let entry = format!(
            "[[client]]\nkey = \"{}\"\nname = \"bench\"\nexports = [\"data\"]\nrights = [\"read\", \"write\"]\n",
            client.public()
        );
        std::fs::write(folder.join("clients.toml"), entry)?;
        Ok(Self {
            runtime: Runtime::new()?,
            server: Server::start(LINE_SERVER, folder)?,
            key: server.public(),
            client: Client::new(client)?,
            buffer: Bytes::from(vec![0x5a; WRITE_LEN as usize]),
        })
    }

    /// The process id of the server.
    pub(crate) fn server(&self) -> u32 {
        self.server.child.id()
    }

    /// A new session; its data channel has this protection.
    pub(crate) fn session(&self, protection: Protection) -> Outcome<Pass<'_>> {
        let line = |role| LineConfig { address: self.server.address, via: None, role };
        let peer = Peer {
            name: "bench".into(),
            key: self.key,
            protection_min: Some(protection),
            lines: vec![line(LineRole::Bulk), line(LineRole::Keys)],
        };
        self.runtime.block_on(async {
            let session = self.client.connect(&peer).await?;
            session.all_lines_up(LONG).await?;
            let data = session.channels().into_iter().filter(|channel| channel.kind == ChannelKind::Data);
            let found: Vec<Protection> = data.map(|channel| channel.protection).collect();
            if found != [protection] {
                return Err(format!("there is {found:?} where one channel is to be {protection}").into());
            }
            let options = OpenOptions::new().read(true).write(true).with_key(false);
            let file = session.open("data", FILE, &options).await?;
            Ok(Pass { world: self, session, file })
        })
    }
}

impl Pass<'_> {
    pub(crate) fn pass(&self, direction: Direction, bytes: u64) -> Outcome<()> {
        match direction {
            Direction::Read => self.world.runtime.block_on(self.read(bytes)),
            Direction::Write => self.world.runtime.block_on(self.write(bytes)),
        }
    }

    /// Closes the file and the session; what goes wrong then is no concern of the figures.
    pub(crate) fn close(self) {
        self.world.runtime.block_on(async {
            drop(self.file.close().await);
            self.session.close().await;
        });
    }

    async fn read(&self, bytes: u64) -> Outcome<()> {
        let mut chunks = self.file.read_ahead(0, None);
        let mut read = 0;
        while let Some(chunk) = chunks.next().await? {
            read += chunk.len() as u64;
        }
        if read == bytes { Ok(()) } else { Err(format!("{read} bytes of {bytes} came").into()) }
    }

    async fn write(&self, bytes: u64) -> Outcome<()> {
        let mut at = 0;
        while at < bytes {
            let len = WRITE_LEN.min(bytes - at);
            self.file.write_bytes_at(at, self.world.buffer.slice(..len as usize)).await?;
            at += len;
        }
        Ok(())
    }
}

/// The server process.
pub(crate) fn serve(folder: &Path) -> Outcome<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let server = LineServer::start(ServerConfig {
            identity: Arc::new(Identity::from_text(&key_file::read(&folder.join("server.key"))?)?),
            previous_identity: None,
            exports: Exports::open([("data".parse()?, folder.join("data"))])?,
            modes: ModePolicy::default(),
            policy: parse_clients(&std::fs::read_to_string(folder.join("clients.toml"))?)?,
            protection_min: Protection::Signed,
            limits: Limits::default(),
            listen: vec!["127.0.0.1:0".parse()?],
        })?;
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
