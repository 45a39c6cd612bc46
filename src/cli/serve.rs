//! `bowline serve`: serve directories until told to stop.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bowline::model::Limits;
use bowline::net::{FileWatch, LOOK_EVERY};
use bowline::server::{Exports, Server, ServerConfig, load_clients, parse_export_argument};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::places::{identity, place};
use super::{Failure, ServeArguments};

pub(super) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let identity = identity(arguments.key)?;
    let clients = place(arguments.clients, "clients.toml")?;
    let exports = (arguments.exports.iter())
        .map(|argument| parse_export_argument(argument))
        .collect::<Result<Vec<_>, _>>()
        .and_then(Exports::open)
        .map_err(|error| Failure::of("cannot serve", &error))?;
    let mut watch = FileWatch::new(clients.clone(), LOOK_EVERY);
    let policy = load_clients(&clients).map_err(|error| {
        Failure::of("cannot use the list of clients", &error)
            .try_this(format!("put an entry for each client into {} (docs: README)", clients.display()))
    })?;
    let server = Server::start(ServerConfig {
        identity,
        exports,
        policy,
        protection_min: arguments.protection,
        limits: Limits::default(),
        listen: arguments.listen,
    })
    .map_err(|error| Failure::of("cannot start the server", &error))?;
    announce(&server)?;

    let mut terminate = signal(SignalKind::terminate()).map_err(signal_failure)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signal_failure)?;
    // A write beyond the process's file size limit is to fail for its client, not to end the server.
    let _file_size = signal(SignalKind::from_raw(SIGXFSZ)).map_err(signal_failure)?;
    let stdin = stdin_closed(arguments.until_stdin_closes);
    tokio::pin!(stdin);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut stdin => break,
            _ = watch.changed() => reload(&server, &clients),
        }
    }
    server.stop().await;
    Ok(())
}

/// The signal of a write beyond the file size limit, on every Linux that bowline runs on.
const SIGXFSZ: i32 = 25;

/// The first line of output: the bound addresses, for people and for parents of this process.
fn announce(server: &Server) -> Result<(), Failure> {
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {}", addresses.join(" "))
        .and_then(|()| out.flush())
        .map_err(|error| Failure::of("cannot write to standard output", &error))
}

/// A list that does not parse leaves the old one in force.
fn reload(server: &Server, clients: &Path) {
    match load_clients(clients) {
        Ok(policy) => {
            server.set_policy(policy);
            tracing::info!(file = %PathBuf::from(clients).display(), "the list of clients is in force");
        }
        Err(error) => {
            tracing::warn!(why = %bowline::net::with_sources(&error), "the old list of clients stays in force");
        }
    }
}

async fn stdin_closed(is_wanted: bool) {
    if !is_wanted {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

fn signal_failure(error: std::io::Error) -> Failure {
    Failure::of("cannot listen for signals", &error)
}
