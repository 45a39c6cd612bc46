//! What the program can be told: its commands, their arguments, and what each of them means.

mod files;
mod opens;
mod peers;
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;

use bowline::client::parse_via;
use bowline::model::{OpenId, Protection};
use bowline::net::Via;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, Parser, Subcommand};

pub(super) use files::{
    CatArguments, CopyArguments, ListArguments, MakeArguments, MoveArguments, RemoveArguments, StatArguments,
};
pub(super) use opens::{
    AcceptArguments, AdminArguments, GrantArguments, ReleaseArguments, ResumeArguments, StatusArguments,
};
pub(super) use peers::{
    ClientAddArguments, ClientCommand, KeyCommand, PeerAddArguments, PeerCommand, PingArguments,
    TrustArguments,
};
pub(super) use serve::{ServeArguments, mode_mask};

use super::config;
use super::failure::{Code, Failure};
use super::output::Color;

/// One open file, many lines: a file-access session layer.
///
/// Files of servers are written PEER:EXPORT/PATH, as in store:media/clips/first.mov. `bowline explain` says what the codes
/// of errors mean.
#[derive(Debug, Parser)]
#[command(version, long_version = LONG_VERSION, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The program's version, and what decides who can talk to whom.
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nprotocol 1");

/// How every command talks.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CommonArguments {
    /// Print one JSON object a line to standard output, and nothing else there.
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) json: bool,
    /// Say nothing but results and errors.
    #[arg(long, short, global = true, help_heading = "Output", conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more; twice, much more. BOWLINE_LOG says it more exactly.
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(super) verbose: u8,
    /// When the words "error" and "warning", and the log, have colors. If nothing is said: on a terminal, unless NO_COLOR is
    /// set.
    #[arg(long, global = true, value_name = "WHEN", env = "BOWLINE_COLOR", help_heading = "Output")]
    pub(super) color: Option<Color>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List a directory of a server.
    Ls(ListArguments),
    /// Show what a file of a server is: kind, length, times, permissions.
    Stat(StatArguments),
    /// Write files of a server to standard output.
    Cat(CatArguments),
    /// Copy files to a server or from one.
    Cp(CopyArguments),
    /// Move or rename a file of a server.
    Mv(MoveArguments),
    /// Remove files of a server.
    Rm(RemoveArguments),
    /// Make directories on a server.
    Mkdir(MakeArguments),
    /// Make or show this machine's identity.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Keep the list of clients of a server on this machine.
    Client {
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Keep the list of known servers.
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// Try each line to a server: whether it reaches it, how fast it answers, and how it is protected.
    Ping(PingArguments),
    /// Serve directories to the clients on the list.
    Serve(Box<ServeArguments>),
    /// Show what a server on this machine has: sessions, channels, opens, holders, locks.
    Status(StatusArguments),
    /// End an open of a server on this machine, whoever holds it.
    Release(ReleaseArguments),
    /// Bring back the files that programs of yours had open on servers when they died.
    Resume(ResumeArguments),
    /// Open a file of a server and let another client have a part in it.
    ///
    /// It prints the key with which the other client gets in, under its own identity alone, and keeps the file open: until
    /// Ctrl-C, or until standard input closes. The grant ends with it, unless the file is moved.
    Grant(GrantArguments),
    /// Take a part in a file that another client has open, and copy its content.
    Accept(AcceptArguments),
    /// Show the settings in force.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Say what a code of an error means, and what helps.
    Explain {
        /// The code, as in error[wrong-key]; without it, all of them.
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// Print a script with which a shell completes commands.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write that of each command into a directory.
    Man {
        /// Where to write a page for each command.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show each setting and its value.
    Show {
        /// Say as well where each value comes from.
        #[arg(long)]
        origin: bool,
    },
}

/// As whom, and from which list, a command reaches a server.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ClientArguments {
    /// The client's identity.
    #[arg(long = "key", value_name = "FILE", env = "BOWLINE_KEY")]
    pub(super) key: Option<PathBuf>,
    /// The list of known peers.
    #[arg(long, value_name = "FILE", env = "BOWLINE_PEERS")]
    pub(super) peers: Option<PathBuf>,
    #[command(flatten)]
    pub(super) lines: LineArguments,
}

/// Over which lines a command reaches a server, if not over those of its entry in the list of peers.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct LineArguments {
    /// Start lines at this interface or local address; it can be given for each one.
    #[arg(long, value_name = "INTERFACE_OR_ADDRESS", value_parser = via, env = "BOWLINE_VIA",
        value_delimiter = ',', help_heading = "Lines")]
    pub(super) via: Vec<Via>,
    /// Start a line here that carries file data only, readable on the way if nothing else is said.
    #[arg(long, value_name = "INTERFACE_OR_ADDRESS", value_parser = via, env = "BOWLINE_BULK_VIA",
        value_delimiter = ',', help_heading = "Lines")]
    pub(super) bulk_via: Vec<Via>,
    /// Start a line here that carries everything but file data: names, keys, locks, always sealed.
    #[arg(long, value_name = "INTERFACE_OR_ADDRESS", value_parser = via, env = "BOWLINE_KEYS_VIA",
        value_delimiter = ',', help_heading = "Lines")]
    pub(super) keys_via: Vec<Via>,
    /// How file data is protected: sealed, signed or clear. Whoever insists on more has it.
    #[arg(long, value_name = "PROTECTION", env = "BOWLINE_PROTECTION", help_heading = "Lines")]
    pub(super) protection: Option<Protection>,
}

impl LineArguments {
    /// What the settings files say, where neither an argument nor a variable says anything.
    pub(super) fn or_settings(mut self) -> Result<Self, Failure> {
        let wrong = |name: &str, why: String| {
            Failure::coded(Code::Settings, format!("cannot use the setting \"{name}\"")).because(why)
        };
        if self.via.is_empty() && self.bulk_via.is_empty() && self.keys_via.is_empty() {
            for (name, vias) in
                [("via", &mut self.via), ("bulk_via", &mut self.bulk_via), ("keys_via", &mut self.keys_via)]
            {
                let text = config::in_files(name).unwrap_or_default();
                let found: Result<Vec<Via>, String> =
                    text.split(',').filter(|part| !part.is_empty()).map(via).collect();
                *vias = found.map_err(|why| wrong(name, why))?;
            }
        }
        if self.protection.is_none()
            && let Some(text) = config::in_files("protection")
        {
            let protection =
                text.parse().map_err(|_| wrong("protection", "use sealed, signed or clear".to_owned()))?;
            self.protection = Some(protection);
        }
        Ok(self)
    }
}

/// Arguments that say the same thing in several ways. What the command line says of it goes before all that variables say.
const SAME: [&[&str]; 3] =
    [&["via", "bulk_via", "keys_via"], &["state_dir", "no_state"], &["admin_socket", "no_admin_socket"]];

/// The command line, and the variables where it says nothing of the same.
pub(super) fn matches() -> ArgMatches {
    settled(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
}

fn settled(words: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    // What is wrong is reported below.
    let alone = deaf(Arguments::command(), &SAME.concat()).try_get_matches_from(&words).ok();
    let mut part = alone.as_ref();
    while let Some((_, deeper)) = part.and_then(ArgMatches::subcommand) {
        part = Some(deeper);
    }
    let is_said = |id: &&str| {
        part.is_some_and(|part| {
            part.try_contains_id(id).is_ok() && part.value_source(id) == Some(ValueSource::CommandLine)
        })
    };
    let said: Vec<&[&str]> = SAME.into_iter().filter(|same| same.iter().any(is_said)).collect();
    deaf(Arguments::command(), &said.concat()).try_get_matches_from(&words)
}

/// The command with arguments that hear no variable.
fn deaf(command: clap::Command, arguments: &[&str]) -> clap::Command {
    let command = command.mut_args(|argument| match arguments.contains(&argument.get_id().as_str()) {
        true => argument.env(None::<&'static str>),
        false => argument,
    });
    command.mut_subcommands(|part| deaf(part, arguments))
}

fn via(text: &str) -> Result<Via, String> {
    parse_via(text).ok_or_else(|| "write the name of an interface or a local IP address".to_owned())
}

fn peer_name(text: &str) -> Result<String, String> {
    let is_name = bowline::net::settings::is_plain_name(text);
    is_name.then(|| text.to_owned()).ok_or_else(|| "use 1 to 64 of a-z A-Z 0-9 . _ -".to_owned())
}

fn open_id(text: &str) -> Result<OpenId, String> {
    super::admin::parse_open(text)
        .ok_or_else(|| "write up to 16 hexadecimal digits, as `bowline status` does".to_owned())
}
