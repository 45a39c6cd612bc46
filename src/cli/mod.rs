//! The program's commands. Results go to standard output, everything else to standard error.

mod cat;
mod key;
mod places;
mod serve;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use bowline::model::Protection;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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
    #[arg(required = true, value_name = "NAME=DIR")]
    exports: Vec<OsString>,
    /// Where to listen, one address per line that clients are to use; port 0 takes a free one.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// The server's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The list of allowed clients. It is watched: changes are in force within a second.
    #[arg(long, value_name = "FILE", env = "BOWLINE_CLIENTS")]
    clients: Option<PathBuf>,
    /// The weakest protection of data channels: signed or sealed.
    #[arg(long, value_name = "PROTECTION", default_value = "signed", value_parser = offered_protection)]
    protection: Protection,
    /// Stop when standard input closes, as a child of another program should.
    #[arg(long)]
    until_stdin_closes: bool,
}

#[derive(Debug, clap::Args)]
struct CatArguments {
    /// The file: a peer of the list of known peers, an export of it, and the path in that.
    #[arg(value_name = "PEER:EXPORT/PATH")]
    source: OsString,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    key: Option<PathBuf>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    peers: Option<PathBuf>,
}

/// Runs the program: exit code 0 for success, 1 for failure, 2 for wrong usage.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    let outcome = match arguments.command {
        Command::Key { command: KeyCommand::New { file } } => key::new(file),
        Command::Key { command: KeyCommand::Show { file } } => key::show(file),
        Command::Serve(arguments) => in_runtime(serve::run(arguments)),
        Command::Cat(arguments) => in_runtime(cat::run(arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.what);
            if let Some(hint) = failure.hint {
                eprintln!("  try: {hint}");
            }
            ExitCode::FAILURE
        }
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

fn start_log() {
    let filter = EnvFilter::try_from_env("BOWLINE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second start in one process keeps the first; there is nothing to report.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
}

fn offered_protection(text: &str) -> Result<Protection, String> {
    match text.parse()? {
        Protection::Clear => Err("\"clear\" is not offered by this version: signed or sealed".to_owned()),
        offered => Ok(offered),
    }
}
