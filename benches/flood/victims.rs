//! Two clients of the server: one sets up sessions, one after the other; one reads at a steady pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::client::{Client, File, LineConfig, OpenOptions, Peer, Session};
use bowline::model::PublicKey;
use bowline::net::Via;
use bowline::secure::Identity;
use tokio::runtime::Runtime;

use super::Outcome;
use super::usage::Usage;

/// What the transfer reads at once, and how often: 50 MB/s.
const CHUNK: usize = 500_000;
const CHUNK_EVERY: Duration = Duration::from_millis(10);
/// A new session is set up this often.
const SETUP_EVERY: Duration = Duration::from_millis(20);
/// How far the file goes.
const FILE_LEN: u64 = 64 << 20;

pub(crate) struct Victims {
    client: Client,
    peer: Peer,
    file: File,
    _session: Session,
}

/// What the clients and the server went through in some seconds.
pub(crate) struct Seen {
    /// Milliseconds that each set-up took.
    pub(crate) setups: Vec<f64>,
    pub(crate) failed: usize,
    pub(crate) bytes: u64,
    pub(crate) usage: Usage,
    pub(crate) rss_before: f64,
    pub(crate) rss_peak: f64,
}

impl Seen {
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.setups.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

impl Victims {
    pub(crate) fn start(
        runtime: &Runtime,
        identity: Arc<Identity>,
        key: PublicKey,
        address: SocketAddr,
    ) -> Outcome<Self> {
        // From a network that no attacker has.
        let via = Some(Via::Address("127.0.0.7".parse()?));
        let line = LineConfig { via, ..LineConfig::new(address) };
        let peer = Peer { name: "bench".into(), key, protection_min: None, lines: vec![line] };
        let client = Client::new(identity)?;
        runtime.block_on(async {
            let session = client.connect(&peer).await?;
            let file = session.open("data", "file", &OpenOptions::new().read(true)).await?;
            Ok(Self { client, peer, file, _session: session })
        })
    }

    /// Looks at everything for a while.
    pub(crate) fn watch(&self, runtime: &Runtime, server: u32, length: Duration) -> Outcome<Seen> {
        let before = Usage::of(server)?;
        let end = Instant::now() + length;
        let ((setups, failed), bytes, rss_peak) =
            runtime.block_on(async { tokio::join!(self.set_up(end), self.transfer(end), peak(server, end)) });
        Ok(Seen {
            setups,
            failed,
            bytes: bytes?,
            usage: Usage::of(server)?.since(before),
            rss_before: before.rss_mib,
            rss_peak: rss_peak?,
        })
    }

    async fn set_up(&self, end: Instant) -> (Vec<f64>, usize) {
        let (mut took, mut failed) = (Vec::new(), 0);
        while Instant::now() < end {
            let begin = Instant::now();
            match self.client.connect(&self.peer).await {
                Ok(session) => {
                    took.push(begin.elapsed().as_secs_f64() * 1e3);
                    session.close().await;
                }
                Err(_) => failed += 1,
            }
            tokio::time::sleep(SETUP_EVERY).await;
        }
        (took, failed)
    }

    async fn transfer(&self, end: Instant) -> Outcome<u64> {
        let (mut bytes, mut at) = (0, 0);
        let mut due = tokio::time::interval(CHUNK_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        while Instant::now() < end {
            due.tick().await;
            bytes += self.file.read_chunk(at, CHUNK).await?.len() as u64;
            at = (at + CHUNK as u64) % (FILE_LEN - CHUNK as u64);
        }
        Ok(bytes)
    }
}

/// The most memory that the server has meanwhile.
async fn peak(server: u32, end: Instant) -> Outcome<f64> {
    let mut peak: f64 = 0.0;
    while Instant::now() < end {
        peak = peak.max(Usage::of(server)?.rss_mib);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(peak)
}
