//! `bowline serve`: serve directories until told to stop.

use std::io::ErrorKind;
use std::path::Path;

use bowline::model::Limits;
use bowline::net::{FileWatch, LOOK_EVERY};
use bowline::server::{
    ClientsError, ClientsProblem, Exports, ModePolicy, Server, ServerConfig, StartError, load_clients,
};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::places::{identity, is_missing, place};
use super::{Failure, ServeArguments};

pub(super) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let previous_identity = arguments.previous_key.map(|file| identity(Some(file))).transpose()?;
    let identity = identity(arguments.key)?;
    let clients = place(arguments.clients, "clients.toml")?;
    let exports = Exports::open(arguments.exports).map_err(|error| Failure::of("cannot serve", &error))?;
    let mut watch = FileWatch::new(clients.clone(), LOOK_EVERY);
    let policy = load_clients(&clients).map_err(|error| describe_clients(&error, &clients))?;
    // Before anybody hears that the server is there, and may tell it to stop.
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_failure)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signal_failure)?;
    let server = Server::start(ServerConfig {
        identity,
        previous_identity,
        exports,
        modes: ModePolicy {
            file_mask: arguments.mode_mask,
            directory_mask: arguments.mode_mask,
            allow_special_bits: arguments.allow_special_bits,
        },
        policy,
        protection_min: arguments.protection,
        limits: Limits::default(),
        listen: arguments.listen,
    })
    .map_err(|error| describe_start(&error))?;
    super::user::warn_of_root();
    announce(&server)?;

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
    super::show(&format!("listening on {}\n", addresses.join(" ")))
}

/// A list that does not parse leaves the old one in force.
fn reload(server: &Server, clients: &Path) {
    match load_clients(clients) {
        // Whoever wants to allow nobody can say so in a comment; nothing at all is a writer that has just begun.
        Ok(policy) if policy.clients.is_empty() && is_blank(clients) => {
            tracing::warn!(file = %clients.display(), "the list of clients is blank: the old one stays in force");
        }
        Ok(policy) => {
            server.set_policy(policy);
            tracing::info!(file = %clients.display(), "the list of clients is in force");
        }
        Err(error) => {
            tracing::warn!(why = %bowline::net::with_sources(&error), "the old list of clients stays in force");
        }
    }
}

fn is_blank(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0)
}

async fn stdin_closed(is_wanted: bool) {
    if !is_wanted {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

fn describe_clients(error: &ClientsError, file: &Path) -> Failure {
    let failure = Failure::of("cannot use the list of clients", error);
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

fn signal_failure(error: std::io::Error) -> Failure {
    Failure::of("cannot listen for signals", &error)
}
