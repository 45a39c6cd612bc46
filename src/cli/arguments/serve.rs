//! The arguments of `bowline serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use bowline::model::{Durability, ExportName, NameError, Protection};
use bowline::server::parse_export_argument;
use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser as _};

use crate::cli::log::LogFormat;
use crate::cli::user::User;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ServeArguments {
    /// What to serve: a name for clients to use, and a directory. They take the place of the configuration file's exports.
    #[arg(value_name = "NAME=DIR", value_parser = OsStringValueParser::new()
        .try_map(|argument| parse_export_argument(&argument)))]
    pub(in crate::cli) exports: Vec<(ExportName, PathBuf)>,
    /// A configuration file with what is said here, in TOML; flags go before it. If neither a file nor an export is given,
    /// serve.toml in $XDG_CONFIG_HOME/bowline (~/.config/bowline) is used if it is there. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", env = "BOWLINE_SERVE_CONFIG")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Where to listen, one address per line that clients are to use; port 0 takes a free one. Sockets that systemd hands
    /// over take their place.
    #[arg(long, num_args = 1.., value_name = "ADDR", value_parser = address)]
    pub(in crate::cli) listen: Vec<SocketAddr>,
    /// The server's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    pub(in crate::cli) key: Option<PathBuf>,
    /// The server's identity before a change of keys: valid beside the other while clients are given the new key.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PREVIOUS_KEY")]
    pub(in crate::cli) previous_key: Option<PathBuf>,
    /// The list of allowed clients. It is watched: changes are in force within a second.
    #[arg(long, value_name = "FILE", env = "BOWLINE_CLIENTS")]
    pub(in crate::cli) clients: Option<PathBuf>,
    /// The weakest protection of data channels: sealed, signed, or clear, with which file bytes can be changed on the
    /// way unnoticed. Without it: signed.
    #[arg(long, value_name = "PROTECTION")]
    pub(in crate::cli) protection: Option<Protection>,
    /// The weakest protection of all data channels of the clients that may use this export.
    #[arg(long, value_name = "NAME=PROTECTION", value_parser = export_protection)]
    pub(in crate::cli) export_protection: Vec<(ExportName, Protection)>,
    /// The permission bits that clients can set, in octal: 750 keeps others away from what they make. Without it: 777.
    #[arg(long, value_name = "OCTAL", value_parser = mode_mask)]
    pub(in crate::cli) mode_mask: Option<u32>,
    /// Let clients set the set-user-id, set-group-id and sticky bits.
    #[arg(long)]
    pub(in crate::cli) allow_special_bits: bool,
    /// Show the server's public key to nobody: clients are told it by the people who run the machines.
    #[arg(long)]
    pub(in crate::cli) no_enrolment: bool,
    /// Where `bowline status` and `bowline release` reach the server. Without it, bowline/admin.sock in $XDG_RUNTIME_DIR
    /// or else in the state directory, unless another server has that.
    #[arg(long, value_name = "PATH", env = "BOWLINE_ADMIN_SOCKET", conflicts_with = "no_admin_socket")]
    pub(in crate::cli) admin_socket: Option<PathBuf>,
    /// Have no admin socket.
    #[arg(long)]
    pub(in crate::cli) no_admin_socket: bool,
    /// As whom to serve: give up root's rights before anything is opened. Without GID, the group of the same number.
    #[arg(long, value_name = "UID[:GID]")]
    pub(in crate::cli) user: Option<User>,
    /// Where the server keeps which files are open, so that they are open again after it was stopped; if nothing is
    /// said, in a folder of $XDG_STATE_HOME/bowline (~/.local/state/bowline) with the name of its key.
    #[arg(long, value_name = "DIR", env = "BOWLINE_STATE_DIR", conflicts_with = "no_state")]
    pub(in crate::cli) state_dir: Option<PathBuf>,
    /// Keep nothing: open files end with the server.
    #[arg(long)]
    pub(in crate::cli) no_state: bool,
    /// What an open file survives once the client has heard of it: the end of the server's process, or that of its
    /// machine too, for which each open waits for the disk. Without it: machine.
    #[arg(long, value_name = "process|machine")]
    pub(in crate::cli) durability: Option<Durability>,
    /// Where to answer GET /metrics for Prometheus, unencrypted and to whoever asks: an address of this machine's own.
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) metrics: Option<SocketAddr>,
    /// How the log is written: text, json, or journald with a priority before each line. Without it: journald where
    /// standard error is the journal, else text.
    #[arg(long, value_name = "FORMAT", env = "BOWLINE_LOG_FORMAT")]
    pub(in crate::cli) log_format: Option<LogFormat>,
    /// Let lines of the log at debug name files. Without it the log has the ids of opens, and no name at any level.
    #[arg(long, env = "BOWLINE_LOG_NAMES", value_parser = FalseyValueParser::new())]
    pub(in crate::cli) log_names: bool,
    /// Stop when standard input closes, as a child of another program should.
    #[arg(long)]
    pub(in crate::cli) until_stdin_closes: bool,
}

/// Permission bits in octal.
pub(in crate::cli) fn mode_mask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| "write up to three octal digits, as in 750".to_owned())
}

fn export_protection(text: &str) -> Result<(ExportName, Protection), String> {
    let (name, least) = text.split_once('=').ok_or("write NAME=PROTECTION, as in media=sealed")?;
    Ok((name.parse().map_err(|error: NameError| error.to_string())?, least.parse()?))
}

/// An address to listen on. The option takes all that follows it, an export that was meant to be one by itself included.
fn address(argument: &str) -> Result<SocketAddr, String> {
    argument.parse().map_err(|_| {
        let hint = if argument.contains('=') { "; exports stand before --listen" } else { "" };
        format!("write IP:PORT, as 127.0.0.1:4711 or [::1]:4711{hint}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_behind_the_addresses_is_told_where_it_belongs() {
        assert_eq!(address("[::1]:0").unwrap(), "[::1]:0".parse().unwrap());
        assert!(address("data=/srv").unwrap_err().ends_with("exports stand before --listen"));
        assert!(!address("localhost").unwrap_err().contains("export"));
    }
}
