//! The arguments of what deals with files.

use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::ClientArguments;
use crate::cli::remote::{Place, Remote};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArguments {
    /// The directory or file: a peer of the list of known peers, an export of it, and the path in that.
    #[arg(required = true, value_name = "PEER:EXPORT[/PATH]", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse(&argument)))]
    pub(in crate::cli) places: Vec<Remote>,
    /// Show kind, permissions, length and time as well.
    #[arg(long, short)]
    pub(in crate::cli) long: bool,
    /// List what is in the directories too.
    #[arg(long, short = 'R')]
    pub(in crate::cli) recursive: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatArguments {
    /// The files.
    #[arg(required = true, value_name = "PEER:EXPORT[/PATH]", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse(&argument)))]
    pub(in crate::cli) places: Vec<Remote>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CatArguments {
    /// The files, in this order: a peer of the list of known peers, an export of it, and the path in that.
    #[arg(required = true, value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse_file(&argument)))]
    pub(in crate::cli) sources: Vec<Remote>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

/// A file is written under a temporary name beside the final one, which it takes when it is complete: nobody ever sees a
/// part under the final name. A copy that was stopped, by whatever, goes on where it was when the same command runs again.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CopyArguments {
    /// What to copy, and last where to: on one of the two sides, files of a server, PEER:EXPORT/PATH.
    #[arg(required = true, num_args = 2.., value_name = "FILE", value_parser = OsStringValueParser::new()
        .try_map(|argument| Place::parse(&argument)))]
    pub(in crate::cli) places: Vec<Place>,
    /// Copy directories with all that is in them.
    #[arg(long, short)]
    pub(in crate::cli) recursive: bool,
    /// Give copied files and directories the permissions and the times of change of the originals.
    #[arg(long, short)]
    pub(in crate::cli) preserve: bool,
    /// Leave what is there already, whatever is in it.
    #[arg(long, short, conflicts_with = "restart")]
    pub(in crate::cli) no_clobber: bool,
    /// Begin anew, also where a part is there already.
    #[arg(long)]
    pub(in crate::cli) restart: bool,
    /// How many files are copied at a time; if nothing is said, 64.
    #[arg(long, short, value_name = "FILES", env = "BOWLINE_JOBS",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(in crate::cli) jobs: Option<u16>,
    /// Do not wait until what was copied is on the disk: the end of a machine may take it.
    #[arg(long)]
    pub(in crate::cli) no_sync: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MoveArguments {
    /// What to move.
    #[arg(value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse_file(&argument)))]
    pub(in crate::cli) from: Remote,
    /// Its new name, in the same export; or a directory that takes it under the old one.
    #[arg(value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse(&argument)))]
    pub(in crate::cli) to: Remote,
    /// Fail if the new name is taken, instead of replacing what has it.
    #[arg(long, short)]
    pub(in crate::cli) no_clobber: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RemoveArguments {
    /// What to remove.
    #[arg(required = true, value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse_file(&argument)))]
    pub(in crate::cli) places: Vec<Remote>,
    /// Remove directories with all that is in them.
    #[arg(long, short)]
    pub(in crate::cli) recursive: bool,
    /// Do not fail over what is not there.
    #[arg(long, short)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MakeArguments {
    /// The directories to make.
    #[arg(required = true, value_name = "PEER:EXPORT/PATH", value_parser = OsStringValueParser::new()
        .try_map(|argument| Remote::parse_file(&argument)))]
    pub(in crate::cli) places: Vec<Remote>,
    /// Make the directories that they are in too, and do not fail over those that are there.
    #[arg(long, short)]
    pub(in crate::cli) parents: bool,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArguments,
}
