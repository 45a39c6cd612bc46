//! `bowline serve`: serve directories until told to stop.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::model::{EffectiveProtection, ExportName, Limits, Protection};
use bowline::net::{FileWatch, LOOK_EVERY};
use bowline::server::{
    ClientsError, ClientsProblem, Exports, ModePolicy, Server, ServerConfig, StartError, StateConfig,
    load_clients, load_clients_unless_blank,
};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::admin::{self, Admin, Wanted};
use super::arguments::ServeArguments;
use super::failure::{Code, Failure};
use super::output;
use super::places::{is_missing, make_one, place, server_identity, state_folder};

pub(super) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let key = place(arguments.key, "key")?;
    let (identity, _lock) = server_identity(&key, &make_one(&key))?;
    if let Some(previous) = &arguments.previous_key {
        keys_differ(&key, previous)?;
    }
    // One that is missing is not to be made anew: nobody would know it.
    let known = "the file of the key that clients know so far, or no --previous-key";
    let previous = arguments.previous_key.as_deref().map(|file| server_identity(file, known)).transpose()?;
    let (previous_identity, _previous_lock) = previous.unzip();
    let clients = place(arguments.clients, "clients.toml")?;
    let exports = exports(arguments.exports, &arguments.export_protection)?;
    for settings in [&key, &clients].into_iter().chain(&arguments.previous_key) {
        exports.keep_out(settings).map_err(|error| {
            Failure::of("cannot serve", &error).try_this("keep keys and settings outside of what is served")
        })?;
    }
    let state = match arguments.no_state {
        true => None,
        false => {
            let folder = state_folder(arguments.state_dir, &identity.public())?;
            Some(state(&exports, StateConfig { folder, durability: arguments.durability })?)
        }
    };
    let mut watch = FileWatch::new(clients.clone(), LOOK_EVERY);
    let policy = load_clients(&clients).map_err(|error| describe_clients(&error, &clients))?;
    // Before anybody hears that the server is there, and may tell it to stop.
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_failure)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signal_failure)?;
    let wanted = match arguments.admin_socket {
        Some(path) => Wanted::At(path),
        None if arguments.no_admin_socket => Wanted::None,
        None => Wanted::Usual,
    };
    let socket = admin::open(wanted, &exports)?;
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
        suites: bowline::secure::suites(),
        limits: Limits::default(),
        state,
        listen: arguments.listen,
        enrolment: !arguments.no_enrolment,
    })
    .map_err(|error| describe_start(&error))?;
    let server = Arc::new(server);
    // Before anybody hears that the server is there: it can be asked from then on.
    let admin = socket.map(|socket| Admin::start(socket, &server));
    super::user::warn_of_root();
    announce(&server)?;

    // A write beyond the process's file size limit is to fail for its client, not to end the server.
    let _file_size = signal(SignalKind::from_raw(SIGXFSZ)).map_err(signal_failure)?;
    let stdin = stdin_closed(arguments.until_stdin_closes);
    tokio::pin!(stdin);
    let failed = server.failed();
    tokio::pin!(failed);
    let failure = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            () = &mut stdin => break None,
            why = &mut failed => break Some(why),
            _ = watch.changed() => reload(&server, &clients),
        }
    };
    if let Some(admin) = admin {
        admin.stop().await;
    }
    // Nobody else has it any more.
    if let Some(server) = Arc::into_inner(server) {
        server.stop().await;
    }
    failure.map_or(Ok(()), |why| {
        Err(Failure::of("the server has stopped: it cannot keep which files are open", &*why))
    })
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

/// The first line of output: the bound addresses, for people and for parents of this process. Then how data channels
/// are protected, one fact a line.
fn announce(server: &Server) -> Result<(), Failure> {
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let effective = server.effective_protection();
    warn_of_clear(&effective);
    let mut text = format!("listening on {}\n", addresses.join(" "));
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

/// How data channels are protected at least, one fact a line. The strictest of everything that concerns it stands with
/// each name.
fn facts(effective: &EffectiveProtection) -> Vec<String> {
    let exports = effective.exports.iter().map(|(name, least)| format!("export {name} at least {least}"));
    let clients = effective.clients.iter().map(|(name, least)| format!("client {name} at least {least}"));
    let server = format!("data channels at least {}", effective.server);
    std::iter::once(server).chain(exports).chain(clients).collect()
}

/// Nobody should have to find out by looking closely.
fn warn_of_clear(effective: &EffectiveProtection) {
    let clear = effective.clients.iter().filter(|(_, least)| **least == Protection::Clear);
    for (client, _) in clear {
        tracing::warn!(
            %client,
            "data channels may be clear: file bytes can be changed on the way unnoticed"
        );
    }
}

/// A list that does not parse leaves the old one in force.
fn reload(server: &Server, clients: &Path) {
    match load_clients_unless_blank(clients) {
        // Whoever wants to allow nobody can say so in a comment; nothing at all is a writer that has just begun.
        Ok(None) => {
            tracing::warn!(file = %clients.display(), "the list of clients is blank: the old one stays in force");
        }
        Ok(Some(policy)) => {
            server.set_policy(policy);
            tracing::info!(file = %clients.display(), "the list of clients is in force");
            let effective = server.effective_protection();
            warn_of_clear(&effective);
            for fact in facts(&effective) {
                tracing::info!("{fact}");
            }
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

fn signal_failure(error: std::io::Error) -> Failure {
    Failure::of("cannot listen for signals", &error)
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
