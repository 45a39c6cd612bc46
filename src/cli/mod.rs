//! The program's commands. Results go to standard output, everything else to standard error.

mod admin;
mod cat;
mod grants;
mod key;
mod peer;
mod places;
mod resume;
mod serve;
mod status;
mod user;

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bowline::model::{Durability, ExportName, NameError, OpenId, Protection, PublicKey, Rights};
use bowline::server::parse_export_argument;
use cat::Source;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use peer::Host;
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing_subscriber::EnvFilter;
use user::User;

/// One open file, many lines: a file-access session layer.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make or show this machine's identity.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Serve directories to the clients on the list.
    Serve(ServeArguments),
    /// Write a file of a server to standard output.
    Cat(CatArguments),
    /// Bring back the files that programs of yours had open on servers when they died.
    Resume(ResumeArguments),
    /// Open a file of a server and let another client have a part in it.
    ///
    /// It prints the key with which the other client gets in, under its own identity alone, and keeps the file open: until
    /// Ctrl-C, or until standard input closes. The grant ends with it, unless the file is moved.
    Grant(GrantArguments),
    /// Take a part in a file that another client has open, and copy its content.
    Accept(AcceptArguments),
    /// Keep the list of known servers.
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// Show what a server on this machine has: sessions, channels, opens, holders, locks.
    Status(StatusArguments),
    /// End an open of a server on this machine, whoever holds it.
    Release(ReleaseArguments),
}

#[derive(Debug, Subcommand)]
enum PeerCommand {
    /// Show a server's key, and pin it once you say that it is the right one.
    Trust(TrustArguments),
}

#[derive(Debug, clap::Args)]
struct TrustArguments {
    /// The server: an IP address, [IPv6 address] or host name, and a port if it is not 4477.
    #[arg(value_name = "HOST[:PORT]", value_parser = Host::parse)]
    host: Host,
    /// What to call the server; without it, its host's name.
    #[arg(long, value_name = "NAME", value_parser = peer_name)]
    name: Option<String>,
    /// Do not ask: this is the server's key. It is pinned if the server proves it and lists this client.
    #[arg(long, value_name = "KEY")]
    yes: Option<PublicKey>,
    /// Let a new key take the place of the pinned one.
    #[arg(long)]
    replace: bool,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    peers: Option<PathBuf>,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a new identity in a file that only you can read.
    New {
        /// The file to make.
        #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
        file: Option<PathBuf>,
    },
    /// Show the public key of an identity and its fingerprint.
    Show {
        /// The identity's file.
        #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct ServeArguments {
    /// What to serve: a name for clients to use, and a directory.
    #[arg(required = true, value_name = "NAME=DIR", value_parser = OsStringValueParser::new()
        .try_map(|argument| parse_export_argument(&argument)))]
    exports: Vec<(ExportName, PathBuf)>,
    /// Where to listen, one address per line that clients are to use; port 0 takes a free one.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// The server's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The server's identity before a change of keys: valid beside the other while clients are given the new key.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PREVIOUS_KEY")]
    previous_key: Option<PathBuf>,
    /// The list of allowed clients. It is watched: changes are in force within a second.
    #[arg(long, value_name = "FILE", env = "BOWLINE_CLIENTS")]
    clients: Option<PathBuf>,
    /// The weakest protection of data channels: sealed, signed, or clear, with which file bytes can be changed on the
    /// way unnoticed.
    #[arg(long, value_name = "PROTECTION", default_value = "signed")]
    protection: Protection,
    /// The weakest protection of all data channels of the clients that may use this export.
    #[arg(long, value_name = "NAME=PROTECTION", value_parser = export_protection)]
    export_protection: Vec<(ExportName, Protection)>,
    /// The permission bits that clients can set, in octal: 750 keeps others away from what they make.
    #[arg(long, value_name = "OCTAL", default_value = "777", value_parser = mode_mask)]
    mode_mask: u32,
    /// Let clients set the set-user-id, set-group-id and sticky bits.
    #[arg(long)]
    allow_special_bits: bool,
    /// Show the server's public key to nobody: clients are told it by the people who run the machines.
    #[arg(long)]
    no_enrolment: bool,
    /// Where `bowline status` and `bowline release` reach the server. Without it, bowline/admin.sock in $XDG_RUNTIME_DIR
    /// or else in the state directory, unless another server has that.
    #[arg(long, value_name = "PATH", conflicts_with = "no_admin_socket")]
    admin_socket: Option<PathBuf>,
    /// Have no admin socket.
    #[arg(long)]
    no_admin_socket: bool,
    /// As whom to serve: give up root's rights before anything is opened. Without GID, the group of the same number.
    #[arg(long, value_name = "UID[:GID]")]
    user: Option<User>,
    /// Where the server keeps which files are open, so that they are open again after it was stopped; if nothing is
    /// said, in a folder of $XDG_STATE_HOME/bowline (~/.local/state/bowline) with the name of its key.
    #[arg(long, value_name = "DIR", env = "BOWLINE_STATE_DIR", conflicts_with = "no_state")]
    state_dir: Option<PathBuf>,
    /// Keep nothing: open files end with the server.
    #[arg(long)]
    no_state: bool,
    /// What an open file survives once the client has heard of it: the end of the server's process, or that of its
    /// machine too, for which each open waits for the disk.
    #[arg(long, value_name = "process|machine", default_value = "machine")]
    durability: Durability,
    /// Stop when standard input closes, as a child of another program should.
    #[arg(long)]
    until_stdin_closes: bool,
}

#[derive(Debug, clap::Args)]
struct CatArguments {
    /// The file: a peer of the list of known peers, an export of it, and the path in that.
    #[arg(value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Source::parse(&argument)))]
    source: Source,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    peers: Option<PathBuf>,
}

/// Each file comes back with its locks, and what became of it meanwhile is printed. Then it is closed, so that it keeps
/// nobody out any more; with --keep it stays open on the server for its grace, and can be brought back again.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
struct ResumeArguments {
    /// List what there is, also what running programs have open, and change nothing.
    #[arg(long, group = "what")]
    list: bool,
    /// Bring back everything.
    #[arg(long, group = "what")]
    all: bool,
    /// Bring back this open; `bowline resume --list` shows its id.
    #[arg(value_name = "ID", value_parser = open_id, group = "what")]
    id: Option<OpenId>,
    /// Only of this peer of the list of known peers.
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Do not close what has come back.
    #[arg(long)]
    keep: bool,
    /// The folder with the programs' key rings; if nothing is said, keys in $XDG_STATE_HOME/bowline
    /// (~/.local/state/bowline).
    #[arg(long, value_name = "DIR")]
    ring: Option<PathBuf>,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    peers: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct GrantArguments {
    /// The file: a peer of the list of known peers, an export of it, and the path in that.
    #[arg(value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Source::parse(&argument)))]
    source: Source,
    /// The other client's public key. It has to be on the server's list of clients, with this export.
    #[arg(long, value_name = "KEY")]
    to: PublicKey,
    /// What the other client may do with the file: read, write, append, lock, and grant it on.
    #[arg(long, value_name = "RIGHT,...", value_delimiter = ',', default_value = "read",
        value_parser = grants::right)]
    rights: Vec<Rights>,
    /// How long the grant lasts, as in 90s, 30m, 8h or 7d; without it, until this ends.
    #[arg(long = "for", value_name = "TIME", value_parser = grants::span)]
    lasts: Option<Duration>,
    /// Let the server tell the other client, which runs `bowline accept --wait`; no key is printed.
    #[arg(long)]
    deliver: bool,
    /// Give the file up to the other client: when that has taken it, this ends, and the file stays open.
    #[arg(long = "move")]
    gives_up: bool,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    peers: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct AcceptArguments {
    /// The server: a peer of the list of known peers.
    #[arg(value_name = "PEER")]
    peer: String,
    /// A file with the key that the other client was given; without it, or as -, standard input.
    #[arg(value_name = "KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Wait until the server tells of a grant.
    #[arg(long, conflicts_with = "key_file")]
    wait: bool,
    /// Where the content goes, if not to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    peers: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct StatusArguments {
    #[command(flatten)]
    at: AdminArguments,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ReleaseArguments {
    /// The open, as `bowline status` shows it.
    #[arg(value_name = "OPEN_ID", value_parser = open_id)]
    open: OpenId,
    #[command(flatten)]
    at: AdminArguments,
}

/// Which server is asked.
#[derive(Debug, clap::Args)]
struct AdminArguments {
    /// The server's admin socket, if it is not in the usual place.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// As whom the server runs, if that is neither root nor you. Only root gets an answer then.
    #[arg(long, value_name = "UID")]
    owner: Option<u32>,
}

/// Runs the program: exit code 0 for success, 1 for failure, 2 for wrong usage.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match refuse_core_dumps().and_then(|()| start_log()).and_then(|()| execute(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let hint = failure.hint.map(|hint| format!("  try: {hint}\n")).unwrap_or_default();
            say(&format!("error: {}\n{hint}", failure.what));
            ExitCode::FAILURE
        }
    }
}

/// A dump of this process's memory would hold identities, session secrets and resume keys. The limit is handed down to
/// whatever this process becomes, and cannot be raised again without root's rights.
fn refuse_core_dumps() -> Result<(), Failure> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| Failure::of("cannot turn core dumps off", &io::Error::from(error)))
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Key { command: KeyCommand::New { file } } => key::new(file),
        Command::Key { command: KeyCommand::Show { file } } => key::show(file),
        Command::Serve(arguments) => {
            // Before there are threads: rights are given up by one thread, and those that it starts have its own.
            arguments.user.map_or(Ok(()), User::become_it)?;
            in_runtime(serve::run(arguments))
        }
        Command::Cat(arguments) => in_runtime(cat::run(arguments)),
        Command::Resume(arguments) => in_runtime(resume::run(arguments)),
        Command::Grant(arguments) => in_runtime(grants::grant(arguments)),
        Command::Accept(arguments) => in_runtime(grants::accept(arguments)),
        Command::Peer { command: PeerCommand::Trust(arguments) } => in_runtime(peer::trust(arguments)),
        Command::Status(arguments) => in_runtime(status::status(arguments)),
        Command::Release(arguments) => in_runtime(status::release(arguments)),
    }
}

/// Tells people something. If nobody can be told, there is nobody to tell that either.
fn say(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Writes results. Whoever closes the output has seen enough.
fn show(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush())).map(drop)
}

/// Whether standard output still takes something, after it was written to.
fn unless_closed(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::of("cannot write to standard output", &error)),
    }
}

/// What a user reads when a command fails.
#[derive(Debug)]
struct Failure {
    /// What failed, on what, and why.
    what: String,
    /// What to try.
    hint: Option<String>,
}

impl Failure {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn try_this(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `context`, and the error with all that is behind it.
    fn of(context: &str, error: &dyn std::error::Error) -> Self {
        Self::new(format!("{context}: {}", bowline::net::with_sources(error)))
    }
}

fn in_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::of("cannot start threads", &error))?;
    let outcome = runtime.block_on(command);
    // A thread that waits for standard input cannot be joined.
    runtime.shutdown_background();
    outcome
}

/// Threads that wait for the file system: enough to keep a disk array's queues full.
const BLOCKING_THREADS: usize = 64;

fn start_log() -> Result<(), Failure> {
    let filter = match std::env::var_os(LOG_VARIABLE) {
        None => EnvFilter::new("warn"),
        Some(_) => EnvFilter::try_from_env(LOG_VARIABLE).map_err(|error| {
            // What is behind the error says the same again.
            Failure::new(format!("cannot use the log filter in {LOG_VARIABLE}: {error}"))
                .try_this("error, warn, info, debug or trace")
        })?,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second start in one process keeps the first; there is nothing to report.
    drop(log.with_ansi(io::stderr().is_terminal()).try_init());
    Ok(())
}

/// What the log shows.
const LOG_VARIABLE: &str = "BOWLINE_LOG";

fn mode_mask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| "write up to three octal digits, as in 750".to_owned())
}

fn export_protection(text: &str) -> Result<(ExportName, Protection), String> {
    let (name, least) = text.split_once('=').ok_or("write NAME=PROTECTION, as in media=sealed")?;
    Ok((name.parse().map_err(|error: NameError| error.to_string())?, least.parse()?))
}

fn peer_name(text: &str) -> Result<String, String> {
    let is_name = bowline::net::settings::is_plain_name(text);
    is_name.then(|| text.to_owned()).ok_or_else(|| "use 1 to 64 of a-z A-Z 0-9 . _ -".to_owned())
}

fn open_id(text: &str) -> Result<OpenId, String> {
    admin::parse_open(text)
        .ok_or_else(|| "write up to 16 hexadecimal digits, as `bowline status` does".to_owned())
}
