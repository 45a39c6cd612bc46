//! The server: listeners, connections, file work, and who may connect.
//!
//! [`Server`] is the shell around [`ServerCore`]: it owns sockets, descriptors and the clock, and decides nothing
//! about sessions or opens.

mod beneath;
mod change;
mod clients;
mod connection;
mod enrolment;
mod exports;
mod files;
#[cfg(test)]
mod ground;
mod listing;
mod names;
mod shared;
mod work;
mod xattr;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use change::ModePolicy;
pub use clients::{ClientsError, ClientsProblem, load as load_clients, parse as parse_clients};
pub use exports::{ExportError, Exports, OpenedFile, parse_export_argument};
pub use files::{CachedRead, Descriptor};

use self::names::Names;
use self::shared::Shared;
use crate::model::{
    EffectiveProtection, Entropy as _, EntropyError, Limits, Policy, Protection, ProtectionMinima, SuiteSet,
};
use crate::net::{Clock, SystemEntropy, socket};
use crate::secure::{Identity, suites};
use crate::session::server::{ServerCore, ServerSetup};

/// What a server is started with.
#[derive(Debug)]
pub struct ServerConfig {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What it serves.
    pub exports: Exports,
    /// Which permission bits clients can set on what it serves.
    pub modes: ModePolicy,
    /// Whom it serves.
    pub policy: Policy,
    /// The weakest protection of its data channels; what an export demands beyond it, [`Exports::protect`] says.
    pub protection_min: Protection,
    /// The suites that it offers for data channels, as far as this build and processor have them.
    pub suites: SuiteSet,
    /// Bounds.
    pub limits: Limits,
    /// Where it listens; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Whether anybody who asks is shown the server's public key, so that it can be pinned; nothing else comes of it.
    pub enrolment: bool,
}

impl ServerConfig {
    /// What a server needs to be told; the rest is as it is without being said: data channels are signed at least,
    /// modes go through [`ModePolicy::default`], bounds are [`Limits::default`], whoever asks is shown its public key, and
    /// it listens nowhere yet.
    #[must_use]
    pub fn new(identity: Arc<Identity>, exports: Exports, policy: Policy) -> Self {
        Self {
            identity,
            exports,
            policy,
            protection_min: Protection::Signed,
            suites: suites(),
            modes: ModePolicy::default(),
            limits: Limits::default(),
            listen: Vec::new(),
            enrolment: true,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Nowhere to listen.
    #[error("no address to listen on was given")]
    NoAddress,
    /// There are no random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// A running server. Dropping it stops nothing; [`Server::stop`] does.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use bowline::net::SystemEntropy;
/// use bowline::secure::Identity;
/// use bowline::server::{Exports, Server, ServerConfig, load_clients};
///
/// let identity = Arc::new(Identity::generate(&mut SystemEntropy)?);
/// let exports = Exports::open(vec![("media".parse()?, "/srv/media".into())])?;
/// let policy = load_clients("/etc/bowline/clients.toml".as_ref())?;
/// let server = Server::start(ServerConfig {
///     listen: vec!["0.0.0.0:4477".parse()?],
///     ..ServerConfig::new(identity, exports, policy)
/// })?;
/// println!("listening on {:?}", server.addresses());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts a server on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Panics
    /// Outside a tokio runtime, as every tokio socket does.
    pub fn start(config: ServerConfig) -> Result<Self, StartError> {
        if config.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        let mut listeners = Vec::new();
        for address in config.listen {
            let error = |source| StartError::Listen { address, source };
            let listener = socket::listen(address).map_err(error)?;
            let bound = listener.local_addr().map_err(error)?;
            listeners.push((listener, bound));
        }
        raise_descriptor_limit();
        let clock = Clock;
        let core = ServerCore::new(ServerSetup {
            limits: config.limits.clone(),
            policy: config.policy,
            minima: ProtectionMinima { server: config.protection_min, exports: config.exports.protection() },
            suites: config.suites.intersection(suites()),
            entropy: Box::new(SystemEntropy),
            wall_start_us: clock.wall_us().saturating_sub(clock.now().0),
        })?;
        let names = Names::new(config.exports, config.modes, SystemEntropy.bytes()?);
        let shared =
            Arc::new(Shared::new(core, clock, config.identity, names, config.limits, config.enrolment));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(shared::run_timer(Arc::clone(&shared), stop.clone()));
        let mut addresses = Vec::new();
        for (listener, address) in listeners {
            addresses.push(address);
            tasks.spawn(accept_all(Arc::clone(&shared), listener, tasks.clone(), stop.clone()));
        }
        Ok(Self { shared, tasks, stop, addresses })
    }

    /// The addresses that the server listens on, in the order they were given.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Puts a list of clients in force: clients that are not on it lose their sessions now, and data channels that
    /// are weaker than is now demanded are closed, to be bound again.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.drive(|core, now| core.handle_policy(now, policy));
        self.shared.wake_timer();
    }

    /// How data channels are protected at least, with the list of clients that is in force.
    #[must_use]
    pub fn effective_protection(&self) -> EffectiveProtection {
        self.shared.look(ServerCore::effective_protection)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions_len(&self) -> usize {
        self.shared.look(|core| core.sessions_len())
    }

    /// Stops the server: clients are told, connections closed, file work finished; what takes longer than 5 s is
    /// left.
    ///
    /// # Cancel safety
    /// The server is stopping from the first poll on; dropping the future only stops waiting for it.
    pub async fn stop(self) {
        self.stop.cancel();
        self.shared.drive(|core, _| core.handle_stop());
        let done = async {
            self.tasks.close();
            self.tasks.wait().await;
            self.shared.file_work.close();
            self.shared.file_work.wait().await;
        };
        if Clock.timeout(STOP_LIMIT, done).await.is_none() {
            tracing::warn!(limit = ?STOP_LIMIT, "stopped before everything was done");
        }
    }
}

/// Takes all the descriptors that the administrator allows: each open and each connection needs one.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = ?limit.current, to = ?limit.maximum, "descriptor limit"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays at {:?}", limit.current),
    }
}

async fn accept_all(shared: Arc<Shared>, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(permit) = shared.half_open_permit() {
                    let stop = stop.clone();
                    tasks.spawn(connection::serve(Arc::clone(&shared), stream, peer, permit, stop));
                } else {
                    tracing::warn!(%peer, "refused a connection: too many are in their handshake");
                }
            }
            Err(error) => {
                // Out of descriptors, most often: wait for some to come back instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                shared.clock().sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How long a stopping server waits for its connections and its file work.
const STOP_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
