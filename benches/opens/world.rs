//! A server process, and the clients that it knows.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::client::{Client, LineConfig, Peer, Session};
use bowline::model::PublicKey;
use bowline::net::{SystemEntropy, key_file};
use bowline::secure::Identity;
use tempfile::TempDir;

use super::{Outcome, server};

/// A server process and the clients that it knows.
pub(crate) struct World {
    folder: TempDir,
    server: PublicKey,
    clients: Vec<Arc<Identity>>,
    durability: &'static str,
    child: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl World {
    pub(crate) fn start(durability: &'static str, clients: usize, files: usize) -> Outcome<Self> {
        let folder = folder()?;
        std::fs::create_dir(folder.path().join("data"))?;
        for file in 0..files {
            std::fs::write(folder.path().join("data").join(file.to_string()), b"content")?;
        }
        let server = Identity::generate(&mut SystemEntropy)?;
        key_file::create(&folder.path().join("server.key"), &server.to_text())?;
        let clients = (0..clients)
            .map(|_| Ok(Arc::new(Identity::generate(&mut SystemEntropy)?)))
            .collect::<Outcome<Vec<_>>>()?;
        let entry = |(at, client): (usize, &Arc<Identity>)| {
            format!(
                "[[client]]\nkey = \"{}\"\nname = \"client-{at}\"\nexports = [\"data\"]\nrights = [\"read\", \"write\", \"lock\"]\n",
                client.public()
            )
        };
        let list: String = clients.iter().enumerate().map(entry).collect();
        std::fs::write(folder.path().join("clients.toml"), list)?;
        let (child, output, address) = spawn(folder.path(), durability, "127.0.0.1:0")?;
        Ok(Self { folder, server: server.public(), clients, durability, child, output, address })
    }

    pub(crate) async fn session(&self, client: usize) -> Outcome<Session> {
        let peer = Peer {
            name: "server".into(),
            key: self.server,
            protection_min: None,
            lines: vec![LineConfig::new(self.address)],
        };
        Ok(Client::new(Arc::clone(&self.clients[client]))?.connect(&peer).await?)
    }

    /// Kills the server and starts it again; says when that was.
    pub(crate) fn restart(&mut self) -> Outcome<Instant> {
        self.child.kill()?;
        self.child.wait()?;
        let begin = Instant::now();
        (self.child, self.output, self.address) =
            spawn(self.folder.path(), self.durability, &self.address.to_string())?;
        Ok(begin)
    }

    /// Waits until the server has so many orphans, and nothing more to do with them.
    pub(crate) fn until_orphans(&mut self, count: usize) -> Outcome<()> {
        let wanted = format!("{count} orphans");
        loop {
            writeln!(self.child.stdin.as_mut().ok_or("no input")?)?;
            let mut line = String::new();
            self.output.read_line(&mut line)?;
            if line.trim() == wanted {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // What is stored of them, and looked at, goes on for a moment.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// The server's resident memory, in bytes.
    pub(crate) fn rss(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(rss.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
    }

    pub(crate) fn descriptors(&self) -> Outcome<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(
    folder: &Path,
    durability: &str,
    listen: &str,
) -> Outcome<(Child, BufReader<ChildStdout>, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([server::ARGUMENT, durability, listen])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = String::new();
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    output.read_line(&mut first)?;
    Ok((child, output, first.trim().parse()?))
}

/// A folder of our own.
pub(crate) fn folder() -> Outcome<TempDir> {
    Ok(match std::env::var_os("BOWLINE_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
    })
}
