//! The server: listeners, connections, file work, and who may connect.
//!
//! [`Server`] is the shell around [`ServerCore`]: it owns sockets, descriptors and the clock, and decides nothing
//! about sessions or opens.

mod beneath;
mod change;
mod clients;
mod connection;
mod counters;
mod descriptors;
mod enrolment;
mod evidence;
mod exports;
mod files;
mod gate;
#[cfg(test)]
mod ground;
mod identities;
mod listing;
mod names;
mod persistence;
mod shared;
mod spans;
mod stat;
pub mod store;
mod work;
mod xattr;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use change::ModePolicy;
pub use clients::{
    ClientsEditError, ClientsError, ClientsProblem, add as add_client, forget as forget_client,
    load as load_clients, load_unless_blank as load_clients_unless_blank, parse as parse_clients,
};
pub use counters::{RequestCount, ServerCounts};
pub use descriptors::Bounds as DescriptorBounds;
pub use exports::{ExportError, Exports, OpenedFile, parse_export_argument};
pub use files::{CachedRead, Descriptor};
pub use persistence::{RecordError, StateConfig};

use self::descriptors::{Bounds, Descriptors};
use self::gate::Gate;
use self::identities::Identities;
use self::names::Names;
use self::persistence::{Beginning, Persistence};
use self::shared::Shared;
use self::store::StoreError;
use crate::model::{
    EffectiveProtection, Entropy as _, EntropyError, Epoch, Limits, LimitsError, OpenId, Policy, Protection,
    ProtectionMinima, StoreId, Suite, SuiteSet, Verifier,
};
use crate::net::socket::Listener;
use crate::net::{Clock, SystemEntropy, Workers, boot_id, raise_descriptor_limit, socket};
use crate::opens::RestoreError;
use crate::secure::{Identity, suites};
use crate::session::admission::AdmissionCounts;
use crate::session::server::{
    ReleaseError, ServerCore, ServerLoad, ServerSetup, ServerStatus, StartError as CoreError, StatusQuery,
};

/// What a server is started with.
#[derive(Debug)]
pub struct ServerConfig {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Who it was: while clients are given the new key one after the other, both are valid. See
    /// [`Server::set_identities`].
    pub previous_identity: Option<Arc<Identity>>,
    /// What it serves.
    pub exports: Exports,
    /// Which permission bits clients can set on what it serves.
    pub modes: ModePolicy,
    /// Whom it serves.
    pub policy: Policy,
    /// The weakest protection of its data channels; what an export demands beyond it, [`Exports::protect`] says.
    pub protection_min: Protection,
    /// The suites that it offers for data channels, as far as this build and processor have them;
    /// ChaCha20-Poly1305 always.
    pub suites: SuiteSet,
    /// Bounds.
    pub limits: Limits,
    /// Where it keeps its opens beyond its own life; `None`: nowhere, they end with it.
    pub state: Option<StateConfig>,
    /// Where it listens; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Sockets that listen already, as a service manager hands them over; they come behind those of `listen`.
    pub listeners: Vec<TcpListener>,
    /// Whether anybody who asks is shown the server's public key, so that it can be pinned; nothing else comes of it.
    pub enrolment: bool,
    /// Whether lines of the log at `debug` name files; see [`Server::set_log_names`].
    pub log_names: bool,
}

impl ServerConfig {
    /// What a server needs to be told; the rest is as it is without being said: data channels are signed at least,
    /// modes go through [`ModePolicy::default`], bounds are [`Limits::default`], whoever asks is shown its public key, and
    /// it listens nowhere yet.
    #[must_use]
    pub fn new(identity: Arc<Identity>, exports: Exports, policy: Policy) -> Self {
        Self {
            identity,
            previous_identity: None,
            exports,
            policy,
            protection_min: Protection::Signed,
            suites: suites(),
            modes: ModePolicy::default(),
            limits: Limits::default(),
            state: None,
            listen: Vec::new(),
            listeners: Vec::new(),
            enrolment: true,
            log_names: false,
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
    /// A socket that was handed over is of no use.
    #[error("cannot listen on a socket that was handed over")]
    Handed(#[source] io::Error),
    /// Nowhere to listen.
    #[error("no address to listen on was given")]
    NoAddress,
    /// Bounds that contradict each other.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// There are no random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The open table's store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record of it is of no use.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The records are not of one table.
    #[error("the stored table of opens is damaged: move the state directory away to begin without it")]
    Restore(#[from] RestoreError),
    /// There are no threads to compute handshakes.
    #[error("cannot start the threads that compute handshakes")]
    Threads(#[source] io::Error),
}

/// What a server knows of connections that have proven nothing, and what it has spent on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateStatus {
    /// Connections in their handshake.
    pub half_open: usize,
    /// What became of all connections so far.
    pub counts: AdmissionCounts,
    /// Steps of handshakes, each with Diffie-Hellmans, that were begun.
    pub handshake_steps: u64,
}

/// How many descriptors the opens of a server have. An open has one only while it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptorStatus {
    /// Opens, with a descriptor or without one.
    pub opens: usize,
    /// Descriptors, those included that are being opened and closed.
    pub open: usize,
    /// Descriptors of them that stay open as long as their opens, because their files have no name or could not be
    /// opened again.
    pub pinned: usize,
    /// Descriptors that were closed so far to make room for others; their opens go on.
    pub evicted: u64,
    /// The most that there are of all and of the pinned ones.
    pub bounds: DescriptorBounds,
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
        let workers = Workers::start("handshake", handshake_threads(), Limits::HALF_OPEN_MAX)
            .map_err(StartError::Threads)?;
        Self::with_workers(config, workers)
    }

    /// A server whose handshakes are computed by these threads.
    fn with_workers(config: ServerConfig, workers: Workers) -> Result<Self, StartError> {
        if config.listen.is_empty() && config.listeners.is_empty() {
            return Err(StartError::NoAddress);
        }
        config.limits.check()?;
        let mut listeners = Vec::new();
        for address in config.listen {
            let error = |source| StartError::Listen { address, source };
            let listener = socket::listen(address).map_err(error)?;
            let bound = listener.local_addr().map_err(error)?;
            listeners.push((listener, bound));
        }
        for listener in config.listeners {
            let bound = listener.local_addr().map_err(StartError::Handed)?;
            listeners.push((socket::adopt(listener).map_err(StartError::Handed)?, bound));
        }
        let bounds = Bounds::new(&config.limits, raise_descriptor_limit());
        let clock = Clock;
        let identities = Identities::new(config.identity, config.previous_identity);
        let beginning = (config.state.as_ref())
            .map(|state| Beginning::load(state, identities.public().all(), clock.now(), &config.exports))
            .transpose()?;
        let (epoch, verifier, stored, store) = match beginning {
            Some(Beginning { epoch, verifier, table, store }) => (epoch, verifier, Some(table), Some(store)),
            // The table is in memory: each start begins a store of its own.
            None => {
                let store = StoreId(SystemEntropy.bytes()?);
                (Epoch(1), Verifier { store, boot: boot_id()?, takeovers: 0 }, None, None)
            }
        };
        let core = ServerCore::new(ServerSetup {
            limits: config.limits.clone(),
            server_keys: identities.public(),
            policy: config.policy,
            minima: ProtectionMinima { server: config.protection_min, exports: config.exports.protection() },
            suites: config.suites.intersection(suites()).with(Suite::ChaCha20Poly1305),
            entropy: Box::new(SystemEntropy),
            wall_start_us: clock.wall_us().saturating_sub(clock.now().0),
            epoch,
            verifier,
            stored,
        })
        .map_err(|error| match error {
            CoreError::Restore(error) => StartError::Restore(error),
            CoreError::Entropy(error) => StartError::Entropy(error),
        })?;
        let persistence = store.map(Persistence::start).transpose().map_err(StartError::Threads)?;
        let exports = Arc::new(config.exports);
        let files = Arc::new(Descriptors::new(Arc::clone(&exports), bounds));
        let names = Names::new(exports, Arc::clone(&files), config.modes, SystemEntropy.bytes()?);
        let gate = Arc::new(Gate::new(clock, &config.limits));
        let own = (Arc::clone(&gate), workers, persistence.unwrap_or_default());
        let shared =
            Arc::new(Shared::new(core, (identities, names, files), own, config.limits, config.enrolment));
        shared.log_names.store(config.log_names, Ordering::Relaxed);
        // What the core has from before, before anybody asks for it.
        shared.drive(|_, _| ());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(gate.sum_up(stop.clone()));
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

    /// Puts other demands of the server's own on data channels in force: those that are weaker are closed now, to be bound
    /// again. What the list of clients demands holds as well.
    pub fn set_protection(&self, minima: ProtectionMinima) {
        self.shared.drive(|core, now| core.handle_minima(now, minima));
        self.shared.wake_timer();
    }

    /// Whether lines of the log at `debug` name files from now on, with what is no printable text as escapes. Without that
    /// no line does, at any level; an open has its id.
    pub fn set_log_names(&self, names: bool) {
        self.shared.log_names.store(names, Ordering::Relaxed);
    }

    /// How data channels are protected at least, with the list of clients that is in force.
    #[must_use]
    pub fn effective_protection(&self) -> EffectiveProtection {
        self.shared.look(ServerCore::effective_protection)
    }

    /// Puts other keys in force, to change the server's key without an interruption: first the new key as `current` and
    /// the old one as `previous`, while each client is given the new one; then the new one alone. A hello says by its
    /// keyed check which key it was made for. Sessions that began under a key that is neither end now, as if the server
    /// of that key had stopped.
    pub fn set_identities(&self, current: Arc<Identity>, previous: Option<Arc<Identity>>) {
        self.shared.set_identities(Identities::new(current, previous));
    }

    /// What it knows of connections that have proven nothing.
    #[must_use]
    pub fn gate(&self) -> GateStatus {
        let gate = &self.shared.gate;
        GateStatus {
            half_open: gate.half_open(),
            counts: gate.counts(),
            handshake_steps: self.shared.computed(),
        }
    }

    /// What it has done since its start.
    #[must_use]
    pub fn counts(&self) -> ServerCounts {
        self.shared.counters.counts()
    }

    /// How much it has of everything now.
    #[must_use]
    pub fn load(&self) -> ServerLoad {
        self.shared.look(ServerCore::load)
    }

    /// How many handshakes the network of `source` may begin now.
    #[must_use]
    pub fn tokens(&self, source: IpAddr) -> u32 {
        self.shared.gate.tokens(source)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions_len(&self) -> usize {
        self.shared.look(|core| core.sessions_len())
    }

    /// How many channels there are, of all sessions.
    #[must_use]
    pub fn channels_len(&self) -> usize {
        self.shared.look(|core| core.channels_len())
    }

    /// How many opens there are, orphans included.
    #[must_use]
    pub fn opens_len(&self) -> usize {
        self.shared.look(|core| core.table().opens_len())
    }

    /// A page of what the server has: sessions with their channels, then opens with their holders, locks, and what is
    /// left of their grace. The rest is asked for with [`ServerStatus::next`]; between two pages the server goes on.
    ///
    /// ```no_run
    /// # fn example(server: &bowline::server::Server) {
    /// use bowline::session::server::StatusQuery;
    ///
    /// let mut next = Some(StatusQuery::default());
    /// while let Some(query) = next {
    ///     let page = server.status(query);
    ///     for open in &page.opens {
    ///         println!("{} of {:?}: {:?}", open.open, open.owner, open.grace_left);
    ///     }
    ///     next = page.next;
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self, query: StatusQuery) -> ServerStatus {
        let clock = self.shared.clock();
        self.shared.look(|core| core.status(clock.now(), query))
    }

    /// Ends an open, whoever holds it: its handles are bad ones from now on, its resume keys die, and its locks go.
    /// What is executing is finished first.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn release(&self, open: OpenId) -> Result<(), ReleaseError> {
        self.shared.drive(|core, now| core.handle_release(now, open))
    }

    /// Waits until the store of the open table has failed, and tells why: the server is of no use then and is to be
    /// stopped. What was told before is stored, and nothing more is told.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn failed(&self) -> impl Future<Output = Arc<StoreError>> + Send + use<> {
        self.shared.persistence.failed()
    }

    /// How many descriptors its opens have.
    #[must_use]
    pub fn descriptors(&self) -> DescriptorStatus {
        let files = &self.shared.files;
        let counts = files.counts();
        DescriptorStatus {
            opens: counts.opens,
            open: counts.open,
            pinned: counts.pinned,
            evicted: files.evicted(),
            bounds: files.bounds(),
        }
    }

    /// Stops the server: clients are told to send nothing new, what they have sent is executed, and they have
    /// [`Limits::stop_drain`] to take their answers. Then connections are closed, file work finished, and what was written is synced; what
    /// takes longer than 5 s is left. Opens that can be resumed stay in the state directory, if there is one, as those of
    /// absent clients.
    ///
    /// # Cancel safety
    /// The server is stopping from the first poll on; dropping the future only stops waiting for it.
    pub async fn stop(self) {
        // They outlive their opens, so that what is being written is synced as well.
        let files = self.shared.files.all();
        self.shared.drive(|core, now| core.handle_drain(now));
        let limit = self.shared.limits().stop_drain;
        if Clock.timeout(limit, self.shared.drained.notified()).await.is_none() {
            tracing::warn!(?limit, "clients do not take their answers, and hear that the server stops");
        }
        self.stop.cancel();
        self.shared.drive(|core, now| core.handle_stop(now));
        let done = async {
            self.tasks.close();
            self.tasks.wait().await;
            self.shared.file_work.close();
            self.shared.file_work.wait().await;
            let shared = Arc::clone(&self.shared);
            let synced = tokio::task::spawn_blocking(move || {
                let synced = shared.files.sync_all(files);
                shared.persistence.close();
                synced
            })
            .await;
            if let Some(failed) = synced.ok().map(|all| all.failed).filter(|&failed| failed > 0) {
                tracing::error!(failed, "what was written to open files may not be on the disk");
            }
        };
        if Clock.timeout(STOP_LIMIT, done).await.is_none() {
            tracing::warn!(limit = ?STOP_LIMIT, "stopped before everything was done");
        }
    }
}

/// Half of the processors: the others are left to who is there already.
fn handshake_threads() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN)
}

async fn accept_all(shared: Arc<Shared>, listener: Listener, tasks: TaskTracker, stop: CancellationToken) {
    let mut admitted = 0_u32;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // One that gets no place is closed here: not a byte of it was read, and no memory taken.
            Ok(accepted) => {
                if let Some(place) = shared.gate.admit(accepted.peer().ip()) {
                    tasks.spawn(connection::serve(Arc::clone(&shared), accepted, place, stop.clone()));
                    admitted = admitted.wrapping_add(1);
                    if admitted.is_multiple_of(ADMITTED_IN_A_ROW) {
                        tokio::task::yield_now().await;
                    }
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
/// Connections that get a task before tasks have their turn: those that only wait to be refused must not look like
/// many that are half-open.
const ADMITTED_IN_A_ROW: u32 = 16;
/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(test)]
mod tests;
