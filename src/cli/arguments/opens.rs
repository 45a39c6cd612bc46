//! The arguments of what deals with opens: those that outlive their programs, those that two clients share, and those that
//! a server has.

use std::path::PathBuf;
use std::time::Duration;

use bowline::model::{OpenId, PublicKey, Rights};
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::{ClientArguments, open_id};
use crate::cli::grants;
use crate::cli::remote::Remote;

/// Each file comes back with its locks, and what became of it meanwhile is printed. Then it is closed, so that it keeps
/// nobody out any more; with --keep it stays open on the server for its grace, and can be brought back again.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(in crate::cli) struct ResumeArguments {
    /// List what there is, also what running programs have open, and change nothing.
    #[arg(long, group = "what")]
    pub(in crate::cli) list: bool,
    /// Bring back everything.
    #[arg(long, group = "what")]
    pub(in crate::cli) all: bool,
    /// Bring back this open; `bowline resume --list` shows its id.
    #[arg(value_name = "ID", value_parser = open_id, group = "what")]
    pub(in crate::cli) id: Option<OpenId>,
    /// Only of this peer of the list of known peers.
    #[arg(long, value_name = "PEER")]
    pub(in crate::cli) peer: Option<String>,
    /// Do not close what has come back.
    #[arg(long)]
    pub(in crate::cli) keep: bool,
    /// The folder with the programs' key rings; if nothing is said, keys in $XDG_STATE_HOME/bowline
    /// (~/.local/state/bowline).
    #[arg(long, value_name = "DIR", env = "BOWLINE_RING")]
    pub(in crate::cli) ring: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct GrantArguments {
    /// The file: a peer of the list of known peers, an export of it, and the path in that.
    #[arg(value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse_file(&argument)))]
    pub(in crate::cli) source: Remote,
    /// The other client's public key. It has to be on the server's list of clients, with this export.
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) to: PublicKey,
    /// What the other client may do with the file: read, write, append, lock, and grant it on.
    #[arg(long, value_name = "RIGHT,...", value_delimiter = ',', default_value = "read",
        value_parser = grants::right)]
    pub(in crate::cli) rights: Vec<Rights>,
    /// How long the grant lasts, as in 90s, 30m, 8h or 7d; without it, until this ends.
    #[arg(long = "for", value_name = "TIME", value_parser = grants::span)]
    pub(in crate::cli) lasts: Option<Duration>,
    /// Let the server tell the other client, which runs `bowline accept --wait`; no key is printed.
    #[arg(long)]
    pub(in crate::cli) deliver: bool,
    /// Give the file up to the other client: when that has taken it, this ends, and the file stays open.
    #[arg(long = "move")]
    pub(in crate::cli) gives_up: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AcceptArguments {
    /// The server: a peer of the list of known peers.
    #[arg(value_name = "PEER")]
    pub(in crate::cli) peer: String,
    /// A file with the key that the other client was given; without it, or as -, standard input.
    #[arg(value_name = "KEY_FILE")]
    pub(in crate::cli) key_file: Option<PathBuf>,
    /// Wait until the server tells of a grant.
    #[arg(long, conflicts_with = "key_file")]
    pub(in crate::cli) wait: bool,
    /// Where the content goes, if not to standard output.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatusArguments {
    #[command(flatten)]
    pub(in crate::cli) at: AdminArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReleaseArguments {
    /// The open, as `bowline status` shows it.
    #[arg(value_name = "OPEN_ID", value_parser = open_id)]
    pub(in crate::cli) open: OpenId,
    #[command(flatten)]
    pub(in crate::cli) at: AdminArguments,
}

/// Which server is asked.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AdminArguments {
    /// The server's admin socket, if it is not in the usual place.
    #[arg(long, value_name = "PATH", env = "BOWLINE_ADMIN_SOCKET")]
    pub(in crate::cli) socket: Option<PathBuf>,
    /// As whom the server runs, if that is neither root nor you. Only root gets an answer then.
    #[arg(long, value_name = "UID")]
    pub(in crate::cli) owner: Option<u32>,
}
