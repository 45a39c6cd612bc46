//! The arguments of what deals with identities and servers.

use std::path::PathBuf;

use bowline::model::{ExportName, Protection, PublicKey, Rights};
use clap::Subcommand;

use super::{ClientArguments, peer_name};
use crate::cli::peer::Host;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
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

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClientCommand {
    /// Allow a client what a server of this machine has. A server that runs takes it within a second.
    Add(ClientAddArguments),
    /// Show the clients on the list.
    Ls {
        /// The list of allowed clients.
        #[arg(long, value_name = "FILE", env = "BOWLINE_CLIENTS")]
        clients: Option<PathBuf>,
    },
    /// Take a client off the list: within a second its channels end, and what it has open.
    Rm {
        /// What the client is called.
        #[arg(value_name = "NAME")]
        name: String,
        /// The list of allowed clients.
        #[arg(long, value_name = "FILE", env = "BOWLINE_CLIENTS")]
        clients: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ClientAddArguments {
    /// What to call the client in logs.
    #[arg(value_name = "NAME", value_parser = peer_name)]
    pub(in crate::cli) name: String,
    /// Its key, as `bowline key show` prints it there.
    #[arg(value_name = "KEY")]
    pub(in crate::cli) key: PublicKey,
    /// The exports that exist for it.
    #[arg(required = true, value_name = "EXPORT")]
    pub(in crate::cli) exports: Vec<ExportName>,
    /// What it may do: read, write or append, lock, and grant.
    #[arg(long, value_name = "RIGHT,...", value_delimiter = ',', default_value = "read",
        value_parser = crate::cli::grants::right)]
    pub(in crate::cli) rights: Vec<Rights>,
    /// The weakest protection of its data channels: sealed, signed or clear.
    #[arg(long, value_name = "PROTECTION", default_value = "signed")]
    pub(in crate::cli) protection: Protection,
    /// The list of allowed clients.
    #[arg(long, value_name = "FILE", env = "BOWLINE_CLIENTS")]
    pub(in crate::cli) clients: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PeerCommand {
    /// Add a server whose key is known.
    Add(PeerAddArguments),
    /// Show the servers on the list.
    Ls {
        /// The list of known peers.
        #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
        peers: Option<PathBuf>,
    },
    /// Show a server's key, and pin it once you say that it is the right one.
    Trust(TrustArguments),
    /// Take a server off the list.
    Rm {
        /// What the server is called.
        #[arg(value_name = "NAME")]
        name: String,
        /// The list of known peers.
        #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
        peers: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PeerAddArguments {
    /// What to call the server.
    #[arg(value_name = "NAME", value_parser = peer_name)]
    pub(in crate::cli) name: String,
    /// Its key, as `bowline key show` prints it there.
    #[arg(value_name = "KEY")]
    pub(in crate::cli) key: PublicKey,
    /// Its addresses, one for each line: IP addresses, [IPv6 addresses] or host names, and ports if they are not 4477.
    #[arg(required = true, value_name = "HOST[:PORT]", value_parser = Host::parse)]
    pub(in crate::cli) hosts: Vec<Host>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    pub(in crate::cli) peers: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TrustArguments {
    /// The server: an IP address, [IPv6 address] or host name, and a port if it is not 4477.
    #[arg(value_name = "HOST[:PORT]", value_parser = Host::parse)]
    pub(in crate::cli) host: Host,
    /// What to call the server; without it, its host's name.
    #[arg(long, value_name = "NAME", value_parser = peer_name)]
    pub(in crate::cli) name: Option<String>,
    /// Do not ask: this is the server's key. It is pinned if the server proves it and lists this client.
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) yes: Option<PublicKey>,
    /// Let a new key take the place of the pinned one.
    #[arg(long)]
    pub(in crate::cli) replace: bool,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    pub(in crate::cli) peers: Option<PathBuf>,
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    pub(in crate::cli) key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PingArguments {
    /// The server: a peer of the list of known peers.
    #[arg(value_name = "PEER")]
    pub(in crate::cli) peer: String,
    /// How often each line is asked.
    #[arg(long, short, value_name = "TIMES", default_value = "5",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(in crate::cli) count: u16,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}
