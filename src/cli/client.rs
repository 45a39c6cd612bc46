//! `bowline client`: keep a server's list of clients.

use std::path::PathBuf;

use bowline::model::{Access, Policy, PublicKey, Rights};
use bowline::server::{ClientsEditError, ClientsProblem, add_client, forget_client, load_clients};
use serde::Serialize;

use super::arguments::{ClientAddArguments, ClientCommand};
use super::failure::{Code, Failure};
use super::output::{clean, say, show_either};
use super::places::{is_missing, place};

/// A client of the list as an object.
#[derive(Serialize)]
struct ClientObject {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    key: String,
    fingerprint: String,
    exports: Vec<String>,
    rights: String,
    protection: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_s: Option<u64>,
}

impl ClientObject {
    fn new(kind: &'static str, key: &PublicKey, access: &Access) -> Self {
        Self {
            kind,
            name: access.name.clone(),
            key: key.to_string(),
            fingerprint: key.fingerprint(),
            exports: access.exports.iter().map(ToString::to_string).collect(),
            rights: access.rights.to_string(),
            protection: access.protection_min.to_string(),
            expires_s: access.expires_s,
        }
    }
}

pub(super) fn run(command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Add(arguments) => add(arguments),
        ClientCommand::Ls { clients } => list(clients),
        ClientCommand::Rm { name, clients } => remove(&name, clients),
    }
}

fn add(arguments: ClientAddArguments) -> Result<(), Failure> {
    let ClientAddArguments { name, key, exports, rights, protection, clients } = arguments;
    let file = place(clients, "clients.toml")?;
    let rights = rights.into_iter().fold(Rights::NONE, Rights::union);
    let exports = exports.into_iter().collect();
    let access = Access { name, exports, rights, protection_min: protection, expires_s: None };
    let is_new = add_client(&file, &key, &access).map_err(|error| describe("no client was added", &error))?;
    show_either(&ClientObject::new("client_added", &key, &access), || {
        let of = if is_new { "added" } else { "there already:" };
        format!("{of} \"{}\" with the key {key} in {}\n", access.name, file.display())
    })
}

fn list(file: Option<PathBuf>) -> Result<(), Failure> {
    let file = place(file, "clients.toml")?;
    let policy = match load_clients(&file) {
        Ok(policy) => policy,
        Err(error) if matches!(&error.problem, ClientsProblem::Text(problem) if is_missing(problem)) => {
            Policy::default()
        }
        Err(error) => {
            return Err(Failure::of("cannot use the list of clients", &error)
                .code(Code::Settings)
                .try_this(format!("mend {}", file.display())));
        }
    };
    if policy.clients.is_empty() {
        say(&format!("no client is in {}: bowline client add NAME KEY EXPORT\n", file.display()));
    }
    let mut clients: Vec<_> = policy.clients.iter().collect();
    clients.sort_by_key(|(_, access)| access.name.as_str());
    for (key, access) in clients {
        let object = ClientObject::new("client", key, access);
        show_either(&object, || {
            format!(
                "{}  {}  {}  {}  at least {}\n",
                object.name,
                object.fingerprint,
                object.exports.join(","),
                object.rights,
                object.protection
            )
        })?;
    }
    Ok(())
}

fn remove(name: &str, file: Option<PathBuf>) -> Result<(), Failure> {
    let file = place(file, "clients.toml")?;
    let what = format!("\"{}\" was not taken off", clean(name));
    match forget_client(&file, name).map_err(|error| describe(&what, &error))? {
        Some((key, access)) => show_either(&ClientObject::new("client_removed", &key, &access), || {
            format!(
                "took \"{name}\" off {}; a server that runs ends its channels within a second\n",
                file.display()
            )
        }),
        None => Err(Failure::coded(Code::NotFound, what)
            .because(format!("{} has no client of this name", file.display()))
            .try_this("bowline client ls")),
    }
}

fn describe(what: &str, error: &ClientsEditError) -> Failure {
    let failure = Failure::of(what, error);
    match error {
        ClientsEditError::NameTaken(name) | ClientsEditError::KeyTaken(name) => failure
            .code(Code::Exists)
            .try_this(format!("bowline client rm {name}, if it is to be another one")),
        ClientsEditError::Clients(_) | ClientsEditError::Name(_) => failure.code(Code::Settings),
        ClientsEditError::Uneditable { .. } => failure
            .code(Code::Settings)
            .try_this("write the [[client]] by hand: its form stands in the README"),
        _ => failure,
    }
}
