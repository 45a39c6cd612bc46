//! The client for programs without async: the same names, and calls that block.
//!
//! A [`Client`] has a thread of its own that serves its sessions; calls may come from any thread but those of an async
//! runtime, which a call would hold up: there, also in tokio's `spawn_blocking`, it is refused with
//! [`Error::InsideRuntime`], and [`crate::client`] is to be used.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::io::{Read as _, Write as _};
//! use bowline::client::blocking::Client;
//! use bowline::client::{OpenOptions, Peers};
//! # let identity = std::sync::Arc::new(bowline::secure::Identity::generate(&mut bowline::net::SystemEntropy)?);
//!
//! let peers = Peers::load("peers.toml".as_ref())?;
//! let session = Client::new(identity)?.connect(peers.named("store").ok_or("no such peer")?)?;
//! let mut text = String::new();
//! session.open("media", "notes.txt", &OpenOptions::new().read(true))?.read_to_string(&mut text)?;
//! let mut copy = session.open("media", "copy.txt", &OpenOptions::new().write(true).create(true))?;
//! copy.write_all(text.as_bytes())?;
//! copy.close()?;
//! # Ok(()) }
//! ```

mod engine;
mod export;
mod file;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use export::{Export, ReadDir};
pub use file::File;

use self::engine::Engine;
use super::error::Error;
use super::options::OpenOptions;
use super::peers::Peer;
use super::{ChannelStatus, GrantOffer, KeptOpen, KeyRingError, LineStatus};
use crate::model::{GrantId, HandleId, Limits, LineSet, ResumeKey, SessionId};
use crate::secure::Identity;

/// As [`crate::client::Client`], with a thread that serves its sessions.
#[derive(Debug, Clone)]
pub struct Client {
    client: super::Client,
    engine: Arc<Engine>,
}

impl Client {
    /// As [`crate::client::Client::new`].
    ///
    /// # Errors
    /// [`Error::Entropy`]; [`Error::Thread`] when the thread cannot be started.
    pub fn new(identity: Arc<Identity>) -> Result<Self, Error> {
        Ok(Self { client: super::Client::new(identity)?, engine: Engine::start()? })
    }

    /// The same client with other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { client: self.client.with_limits(limits), ..self }
    }

    /// The same client with another time that a request may go without an answer.
    #[must_use]
    pub fn with_request_timeout(self, timeout: Duration) -> Self {
        Self { client: self.client.with_request_timeout(timeout), ..self }
    }

    /// As [`crate::client::Client::with_key_ring`].
    ///
    /// # Errors
    /// As there.
    pub fn with_key_ring(self, folder: &Path) -> Result<Self, KeyRingError> {
        Ok(Self { client: self.client.with_key_ring(folder)?, ..self })
    }

    /// As [`crate::client::Client::connect`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn connect(&self, peer: &Peer) -> Result<Session, Error> {
        let session = self.engine.run(self.client.connect(peer))?;
        self.engine.watch(session.guard().channel_tasks());
        Ok(Session { session, engine: Arc::clone(&self.engine) })
    }
}

/// As [`crate::client::Resumed`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The open.
    pub kept: KeptOpen,
    /// The file, with its locks and its rights and a new handle.
    pub outcome: Result<File, Error>,
}

/// As [`crate::client::Session`]. Dropped with the last of its files, it says farewell to the server, for which the
/// last user of a [`Client`] waits a moment.
#[derive(Debug, Clone)]
pub struct Session {
    session: super::Session,
    engine: Arc<Engine>,
}

impl Session {
    /// As [`crate::client::Session::id`].
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session.id()
    }

    /// As [`crate::client::Session::lines`].
    #[must_use]
    pub fn lines(&self) -> Vec<LineStatus> {
        self.session.lines()
    }

    /// As [`crate::client::Session::channels`].
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelStatus> {
        self.session.channels()
    }

    /// As [`crate::client::Session::all_lines_up`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn all_lines_up(&self, limit: Duration) -> Result<(), Error> {
        self.engine.run(self.session.all_lines_up(limit))
    }

    /// As [`crate::client::Session::export`].
    ///
    /// # Errors
    /// As there.
    pub fn export(&self, name: &str) -> Result<Export, Error> {
        Ok(Export::new(self.session.export(name)?, &self.engine))
    }

    /// As [`crate::client::Session::open`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn open(&self, export: &str, path: impl AsRef<[u8]>, options: &OpenOptions) -> Result<File, Error> {
        self.export(export)?.open(path, options)
    }

    /// As [`crate::client::Session::resume`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn resume(&self, key: &ResumeKey, lines: LineSet) -> Result<File, Error> {
        Ok(File::new(self.engine.run(self.session.resume(key, lines))?, &self.engine))
    }

    /// As [`crate::client::Session::resume_all`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn resume_all(&self) -> Result<Vec<Resumed>, Error> {
        self.resume_some(|_| true)
    }

    /// As [`crate::client::Session::resume_some`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn resume_some(&self, is_wanted: impl Fn(&KeptOpen) -> bool + Send) -> Result<Vec<Resumed>, Error> {
        let resumed = self.engine.run(self.session.resume_some(is_wanted))?;
        let blocking = |one: super::Resumed| Resumed {
            kept: one.kept,
            outcome: one.outcome.map(|file| File::new(file, &self.engine)),
        };
        Ok(resumed.into_iter().map(blocking).collect())
    }

    /// As [`crate::client::Session::offers`].
    #[must_use]
    pub fn offers(&self) -> Vec<GrantOffer> {
        self.session.offers()
    }

    /// As [`crate::client::Session::take_grant`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn take_grant(&self, grant: GrantId) -> Result<ResumeKey, Error> {
        self.engine.run(self.session.take_grant(grant))
    }

    /// As [`crate::client::Session::resume_in_place_of`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn resume_in_place_of(
        &self,
        predecessor: HandleId,
        key: &ResumeKey,
        lines: LineSet,
    ) -> Result<File, Error> {
        let file = self.engine.run(self.session.resume_in_place_of(predecessor, key, lines))?;
        Ok(File::new(file, &self.engine))
    }

    /// As [`crate::client::Session::close`].
    ///
    /// # Errors
    /// [`Error::InsideRuntime`]; the session is not over then.
    pub fn close(self) -> Result<(), Error> {
        let session = self.session.clone();
        self.engine.run(async move {
            session.close().await;
            Ok(())
        })
    }
}
