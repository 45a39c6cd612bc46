//! What applications embed: [`Client`], [`Session`], [`File`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use bowline::client::{Client, OpenOptions, Peers};
//! use bowline::net::key_file;
//! use bowline::secure::Identity;
//!
//! let identity = Identity::from_text(&key_file::read("key".as_ref())?)?;
//! let peers = Peers::load("peers.toml".as_ref())?;
//! let peer = peers.named("store").ok_or("no such peer")?;
//!
//! let session = Client::new(Arc::new(identity))?.connect(peer).await?;
//! let file = session.open("media", "clip.mov", &OpenOptions::new().read(true)).await?;
//! let mut start = vec![0; 4096];
//! let read = file.read_at(0, &mut start).await?;
//! println!("{read} bytes of {}", file.state().attributes.len);
//! # Ok(()) }
//! ```

mod ahead;
mod attributes;
pub mod blocking;
mod calls;
mod channels;
mod connect;
mod cursor;
mod enrol;
mod error;
mod export;
mod file;
mod grants;
mod locks;
mod options;
mod peers;
mod positional;
mod read_dir;
mod reasons;
mod ring;
mod session;
mod stream;
mod xattr;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use ahead::ReadAhead;
pub use enrol::{prove, server_key};
pub use error::{Error, ErrorKind, OptionsError};
pub use export::Export;
pub use file::File;
pub use grants::{Grant, GrantOffer, GrantOptions};
pub use options::OpenOptions;
pub use peers::{
    DEFAULT_PORT, LineConfig, Peer, Peers, PeersError, PeersProblem, Pin, PinError, Pinned, Standing, forget,
    parse_address, parse_via, peer_name,
};
pub use read_dir::{DirEntry, ReadDir};
pub use ring::{KeptOpen, KeyRingError, Listed, Resumed, Survey};
pub use session::{LineStatus, Session};
pub use stream::FileStream;

pub use crate::session::client::{ChannelState, ChannelStatus, HandleLoss, SessionEvent, SessionLoss};

use ring::KeyRing;

use crate::model::{Entropy as _, EntropyError, InstanceId, Limits, SuiteSet};
use crate::net::{Buffers, Clock, SystemEntropy};
use crate::secure::{Identity, suites};
use crate::session::client::Epochs;

/// A client: an identity in a running process. Its sessions are independent of each other.
#[derive(Debug, Clone)]
pub struct Client {
    identity: Arc<Identity>,
    instance: InstanceId,
    limits: Limits,
    request_timeout: Duration,
    clock: Clock,
    /// Shared by all sessions, so that memory at rest does not grow with them.
    buffers: Buffers,
    suites: SuiteSet,
    /// The lives of servers that any of its sessions has seen.
    epochs: Arc<Mutex<Epochs>>,
    /// Where the keys of resumable opens are kept.
    ring: Option<Arc<KeyRing>>,
}

impl Client {
    /// How long a call waits for its answers, lost channels included, where nothing else is said. A call that gives
    /// up withdraws what was not sent yet; what was sent may still be executed.
    pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// A client with this identity, as a new instance.
    ///
    /// # Errors
    /// [`EntropyError`] when the system has no random bytes.
    pub fn new(identity: Arc<Identity>) -> Result<Self, EntropyError> {
        Ok(Self {
            identity,
            instance: InstanceId(SystemEntropy.bytes()?),
            limits: Limits::default(),
            request_timeout: Self::REQUEST_TIMEOUT,
            clock: Clock,
            buffers: Buffers::default(),
            suites: suites(),
            epochs: Arc::default(),
            ring: None,
        })
    }

    /// The same client with other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same client with another time that a request may go without an answer.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The same client with these suites for data channels, as far as this build and processor have them; without any,
    /// ChaCha20-Poly1305 is used.
    #[must_use]
    pub fn with_suites(mut self, allowed: SuiteSet) -> Self {
        self.suites = suites().intersection(allowed);
        self
    }

    /// The same client, which keeps the resume keys of its opens in a ring of its own in `folder`, so that another
    /// process of the same user can have the files after this one has died: [`Session::resume_all`]. The folder is made
    /// if it is missing. Opens that are not to be kept are made with
    /// [`resumable(false)`](OpenOptions::resumable).
    ///
    /// A ring is a file that only its user can read; who reads it and has the client's identity has its open files. It is
    /// locked as long as this client, a session or a file of it is there. It blocks the thread for a moment.
    ///
    /// # Errors
    /// [`KeyRingError::Folder`], [`KeyRingError::Io`].
    pub fn with_key_ring(mut self, folder: &Path) -> Result<Self, KeyRingError> {
        self.ring = Some(Arc::new(KeyRing::create(folder, self.instance)?));
        Ok(self)
    }

    /// Starts a session with `peer`, on the first of its control-capable lines that answers; the other lines join
    /// as they are reached.
    ///
    /// # Errors
    /// [`Error::NoControlLine`], [`Error::Unreachable`], [`Error::HandshakeTimedOut`],
    /// [`Error::HandshakeRefused`], [`Error::ServerKeyChanged`], [`Error::StaleServer`] or [`Error::Protocol`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up; a session that the server has started meanwhile ends by itself.
    pub async fn connect(&self, peer: &Peer) -> Result<Session, Error> {
        Session::start(self, peer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an application holds can go to other threads, and be shared by them; so can what it awaits.
    #[test]
    fn everything_is_send_and_sync() {
        fn holds<T: Send + Sync>() {}
        fn is_send(_: impl Send) {}
        holds::<(Client, Session, Export, File, FileStream, ReadDir, Error)>();
        holds::<(blocking::Client, blocking::Session, blocking::Export, blocking::File, blocking::ReadDir)>();
        // Compiled, and never run: there is no file.
        let _awaits = |file: &File, export: &Export| {
            is_send(file.read_at(0, &mut []));
            is_send(file.read_ranges(&[]));
            is_send(file.append(&[]));
            is_send(file.flush());
            is_send(export.create_dir_all("", 0));
            is_send(
                file.grant(&crate::model::PublicKey([0; 32]), GrantOptions::of(crate::model::Rights::READ)),
            );
            is_send(export.open("", &OpenOptions::new()));
        };
    }
}
