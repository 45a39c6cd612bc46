//! `bowline serve`: serve directories until told to stop.
//!
//! `file` and `settings` say what is served and how, `reload` what a running server takes of that, `service` what passes
//! between it and a service manager.

mod file;
mod metrics;
mod reload;
mod service;
mod settings;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::model::{ExportName, Protection};
use bowline::net::{Clock, FileWatch, LOOK_EVERY};
use bowline::server::{
    ClientsError, ClientsProblem, Exports, ModePolicy, Server, ServerConfig, StartError, StateConfig,
    load_clients,
};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::metrics::Metrics;
use self::reload::{InForce, facts, reload_clients, warn_of_clear};
pub(super) use self::service::Handed;
use self::service::Manager;
pub(super) use self::settings::{Settings, Source};
use super::admin::{self, Admin, Wanted};
use super::failure::{Code, Failure};
use super::places::{is_missing, make_one, place, server_identity, state_folder};
use super::{config, log, output};

pub(super) async fn run(source: Source, settings: Settings, handed: Handed) -> Result<(), Failure> {
    let manager = Manager::from_environment();
    log::show_as_in_file(settings.log.as_deref());
    let listen = listen(&settings, &handed)?;
    let key = place(settings.key.clone(), "key")?;
    let (identity, _lock) = server_identity(&key, &make_one(&key))?;
    if let Some(previous) = &settings.previous_key {
        keys_differ(&key, previous)?;
    }
    // One that is missing is not to be made anew: nobody would know it.
    let known = "the file of the key that clients know so far, or no --previous-key";
    let previous = settings.previous_key.as_deref().map(|file| server_identity(file, known)).transpose()?;
    let (previous_identity, _previous_lock) = previous.unzip();
    let clients = place(settings.clients.clone(), "clients.toml")?;
    let exports = exports(settings.exports.clone(), &settings.export_protection)?;
    for kept in
        [&key, &clients].into_iter().chain(&settings.previous_key).map(PathBuf::as_path).chain(source.file())
    {
        exports.keep_out(kept).map_err(|error| {
            Failure::of("cannot serve", &error).try_this("keep keys and settings outside of what is served")
        })?;
    }
    let state = match settings.no_state {
        true => None,
        false => {
            let folder = state_folder(settings.state_dir.clone(), &identity.public())?;
            Some(state(&exports, StateConfig { folder, durability: settings.durability })?)
        }
    };
    let watch = FileWatch::new(clients.clone(), LOOK_EVERY);
    let policy = load_clients(&clients).map_err(|error| describe_clients(&error, &clients))?;
    // Before anybody hears that the server is there, and may tell it to stop.
    let signals = Signals::new()?;
    let socket = admin::open(wanted(&settings), &exports)?;
    let watched = match settings.metrics {
        Some(address) => Some(Metrics::listen(address).await?),
        None => None,
    };
    let server = Server::start(ServerConfig {
        previous_identity,
        modes: ModePolicy {
            file_mask: settings.mode_mask,
            directory_mask: settings.mode_mask,
            allow_special_bits: settings.allow_special_bits,
        },
        protection_min: settings.protection,
        state,
        listen,
        listeners: handed.listeners,
        enrolment: settings.enrolment,
        log_names: settings.log_names,
        ..ServerConfig::new(identity, exports, policy)
    })
    .map_err(|error| describe_start(&error))?;
    let server = Arc::new(server);
    // Before anybody hears that the server is there: it can be asked from then on.
    let admin = socket.map(|socket| Admin::start(socket, &server));
    let metrics = watched.map(|listener| Metrics::start(listener, &server)).transpose();
    let metrics = metrics.map_err(|error| Failure::of("cannot answer for metrics", &error))?;
    super::user::warn_of_root();
    announce(&server, metrics.as_ref())?;
    manager.ready();
    let running =
        Running { server, admin, metrics, manager, in_force: InForce { source, settings, clients } };
    running.run(signals, watch).await
}

/// Where the server listens by itself: nowhere, if sockets were handed over.
fn listen(settings: &Settings, handed: &Handed) -> Result<Vec<SocketAddr>, Failure> {
    match (handed.listeners.is_empty(), settings.listen.is_empty()) {
        (true, true) => Err(Failure::coded(Code::Settings, "no address to listen on was given")
            .try_this("--listen ADDR, or listen = [\"ADDR\"] in the configuration file")),
        (true, false) => Ok(settings.listen.clone()),
        (false, is_empty) => {
            if !is_empty {
                tracing::info!("listening on the service manager's sockets, and on no other address");
            }
            Ok(Vec::new())
        }
    }
}

fn wanted(settings: &Settings) -> Wanted {
    match &settings.admin_socket {
        Some(path) => Wanted::At(path.clone()),
        None if settings.no_admin_socket => Wanted::None,
        None => config::path_in_files("admin_socket").map_or(Wanted::Usual, Wanted::At),
    }
}

/// The signals that the program answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// It was started on a terminal, and ends with that.
    has_terminal: bool,
    /// A write beyond the process's file size limit is to fail for its client, not to end the server.
    _file_size: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::of("cannot listen for signals", &error));
        // Before anything is listened to: `nohup` asks for what it asks by having the signal ignored.
        let has_terminal = is_terminal_there() && !is_ignored(SignalKind::hangup());
        Ok(Self {
            has_terminal,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            _file_size: listen(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    /// Whether a hangup is what it says: the terminal is gone. Any other one asks for the files to be read again.
    fn is_terminal_gone(&self) -> bool {
        self.has_terminal && !is_terminal_there()
    }

    /// Waits until the process is told to end, and tells with which number that is said.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn end(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => 128 + SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// Whether the process has a terminal that controls it.
fn is_terminal_there() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Whether the process ignores a signal; not, where the system does not tell.
fn is_ignored(kind: SignalKind) -> bool {
    let bit = u32::try_from(kind.as_raw_value()).unwrap_or(0).saturating_sub(1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> bit & 1 == 1
}

/// A server that runs, and what belongs to it.
struct Running {
    server: Arc<Server>,
    admin: Option<Admin>,
    metrics: Option<Metrics>,
    manager: Manager,
    in_force: InForce,
}

impl Running {
    /// Serves until there is a reason to stop, and stops.
    async fn run(mut self, mut signals: Signals, mut watch: FileWatch) -> Result<(), Failure> {
        let stdin = stdin_closed(self.in_force.source.ends_with_stdin());
        tokio::pin!(stdin);
        let failed = self.server.failed();
        tokio::pin!(failed);
        let every = self.manager.watchdog();
        // Whatever else happens meanwhile, and however often.
        let mut next = every.map(|every| Clock.now().after(every));
        let failure = loop {
            let alive = async {
                match next {
                    Some(next) => Clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = signals.terminate.recv() => break None,
                _ = signals.interrupt.recv() => break None,
                () = &mut stdin => break None,
                why = &mut failed => break Some(why),
                _ = signals.hangup.recv() => {
                    if signals.is_terminal_gone() {
                        break None;
                    }
                    self.manager.reloading();
                    self.in_force.reload(&self.server);
                    self.manager.ready();
                }
                _ = watch.changed() => reload_clients(&self.server, &self.in_force.clients),
                () = alive => {
                    // Nobody is told that the server is alive while its core answers nothing.
                    let _sessions = self.server.sessions_len();
                    self.manager.alive();
                    next = every.map(|every| Clock.now().after(every));
                }
            }
        };
        self.manager.stopping();
        tracing::info!("stopping: what is executing is finished; a second signal ends the server at once");
        tokio::select! {
            () = self.stop() => {}
            status = signals.end() => {
                tracing::warn!("stopped at once, whatever was executing");
                std::process::exit(status);
            }
        }
        failure.map_or(Ok(()), |why| {
            Err(Failure::of("the server has stopped: it cannot keep which files are open", &*why))
        })
    }

    async fn stop(self) {
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        if let Some(metrics) = self.metrics {
            metrics.stop().await;
        }
        // Nobody else has it any more.
        if let Some(server) = Arc::into_inner(self.server) {
            server.stop().await;
        }
    }
}

/// Clients are not to reach what the server knows of them.
fn state(exports: &Exports, state: StateConfig) -> Result<StateConfig, Failure> {
    exports.keep_out(&state.folder).map_err(|error| {
        Failure::of("cannot serve", &error).try_this("keep the server's state outside of what is served")
    })?;
    Ok(state)
}

/// One file cannot be both: it would be refused as if another server used it.
fn keys_differ(key: &Path, previous: &Path) -> Result<(), Failure> {
    let place = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    if place(key).is_some() && place(key) == place(previous) {
        let both = format!("--key and --previous-key name the same file, {}", key.display());
        return Err(Failure::coded(Code::Settings, both)
            .try_this("the key that the server had before, or no --previous-key"));
    }
    Ok(())
}

/// The signal of a write beyond the file size limit, on every Linux that bowline runs on.
const SIGXFSZ: i32 = 25;

fn exports(
    list: Vec<(ExportName, PathBuf)>,
    protection: &[(ExportName, Protection)],
) -> Result<Exports, Failure> {
    let cannot = |error| Failure::of("cannot serve", &error);
    let mut exports = Exports::open(list).map_err(cannot)?;
    for (name, least) in protection {
        exports.protect(name, *least).map_err(|error| {
            cannot(error).try_this(format!("serve {name}=DIR as well, or name an export that is served"))
        })?;
    }
    Ok(exports)
}

/// Where a server listens, as an object. How data channels are protected in detail is told by its status.
#[derive(Serialize)]
struct Listening {
    #[serde(rename = "type")]
    kind: &'static str,
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
    /// The weakest of any data channel.
    protection: String,
}

/// The first line of output: the bound addresses, for people and for parents of this process. Then how data channels
/// are protected, one fact a line.
fn announce(server: &Server, metrics: Option<&Metrics>) -> Result<(), Failure> {
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let effective = server.effective_protection();
    warn_of_clear(&effective);
    let metrics = metrics.map(|metrics| format!("http://{}/metrics", metrics.address));
    if output::style().json {
        let protection = effective.server.to_string();
        let listening = Listening { kind: "listening", addresses, metrics, protection };
        return output::show(&output::line(&listening));
    }
    let mut text = format!("listening on {}\n", addresses.join(" "));
    if let Some(metrics) = metrics {
        text.push_str(&format!("metrics on {metrics}\n"));
    }
    let facts = facts(&effective);
    let (shown, more) = facts.split_at_checked(FACTS_SHOWN).unwrap_or((&facts, &[]));
    for fact in shown {
        text.push_str(fact);
        text.push('\n');
    }
    if !more.is_empty() {
        text.push_str(&format!("and {} more\n", more.len()));
    }
    output::show(&text)
}

/// A parent may read the first line and nothing after it: what is printed at the start must fit into a pipe (64 KiB),
/// or the server would wait for its parent. A fact has less than 90 bytes.
const FACTS_SHOWN: usize = 512;

async fn stdin_closed(is_wanted: bool) {
    if !is_wanted {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

fn describe_clients(error: &ClientsError, file: &Path) -> Failure {
    let failure = Failure::of("cannot use the list of clients", error).code(Code::Settings);
    match &error.problem {
        ClientsProblem::Text(problem) if is_missing(problem) => failure.try_this(format!(
            "write a [[client]] entry with key, name and exports for each client into {}",
            file.display()
        )),
        _ => failure,
    }
}

fn describe_start(error: &StartError) -> Failure {
    let failure = Failure::of("cannot start the server", error);
    match error {
        StartError::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse => {
            failure.try_this("another port, or port 0 for a free one")
        }
        StartError::Listen { source, .. } if source.kind() == ErrorKind::AddrNotAvailable => {
            failure.try_this("an address of one of this machine's interfaces")
        }
        StartError::Listen { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            failure.try_this("a port from 1024 on")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_key_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("one"), "").unwrap();
        std::fs::write(at("other"), "").unwrap();
        std::os::unix::fs::symlink("one", at("link")).unwrap();
        assert!(keys_differ(&at("one"), &at("other")).is_ok());
        assert!(keys_differ(&at("missing"), &at("missing")).is_ok(), "whoever reads it says so");
        for same in ["one", "link"] {
            assert!(keys_differ(&at("one"), &at(same)).is_err());
        }
    }
}
