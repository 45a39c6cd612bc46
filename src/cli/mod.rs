//! The program's commands. Results go to standard output, everything else to standard error.

mod admin;
mod arguments;
mod beside;
mod cat;
mod client;
mod config;
mod cp;
mod explain;
mod failure;
mod grants;
mod key;
mod lines;
mod log;
mod ls;
mod manual;
mod names;
mod output;
mod peer;
mod ping;
mod places;
mod remote;
mod resume;
mod serve;
mod sessions;
mod status;
mod user;

use std::io;
use std::process::ExitCode;

use arguments::{Arguments, Command, CommonArguments, ConfigCommand};
use clap::{CommandFactory as _, FromArgMatches as _};
use failure::{Code, Failure};
use output::{Color, Style, complain, set_style, show, style, warn};
use rustix::process::{Resource, Rlimit, setrlimit};
use user::User;

/// Runs the program. What number it ends with stands in [`Code::exit`]; 0 is success.
pub(crate) fn run() -> ExitCode {
    let matches = arguments::matches();
    admin::name(matches.subcommand_name().unwrap_or_default());
    let parsed = Arguments::from_arg_matches(&matches);
    let Arguments { common, command } =
        parsed.unwrap_or_else(|error| error.format(&mut Arguments::command()).exit());
    let verbose = common.verbose;
    let outcome = begin(&common, &command)
        .and_then(|()| refuse_core_dumps())
        .and_then(|()| log::start(verbose, log_format(&command)))
        .and_then(|()| execute(command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if style().json {
                drop(show(&failure.json()));
            } else {
                complain(&failure);
            }
            failure.exit()
        }
    }
}

/// Reads the settings, and fixes how this process talks.
fn begin(common: &CommonArguments, command: &Command) -> Result<(), Failure> {
    let style = Style { json: common.json, quiet: common.quiet, color: common.color.unwrap_or_default() };
    let loaded = config::load();
    let color = match (common.color, config::in_files("color").as_deref()) {
        (Some(color), _) => Ok(color),
        (None, None | Some("auto")) => Ok(Color::Auto),
        (None, Some("always")) => Ok(Color::Always),
        (None, Some("never")) => Ok(Color::Never),
        (None, Some(other)) => Err(Failure::coded(Code::Settings, format!("there is no color \"{other}\""))
            .try_this("color = \"auto\", \"always\" or \"never\"")),
    };
    set_style(Style { color: color.clone().unwrap_or_default(), ..style });
    let loaded = loaded.map(|warnings| warnings.iter().for_each(|warning| warn(warning)));
    match command {
        // They are of use while settings are wrong, and need none.
        Command::Explain { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(()),
        _ => loaded.and_then(|()| color.map(drop)),
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
        Command::Ls(arguments) => in_runtime(ls::list(arguments)),
        Command::Stat(arguments) => in_runtime(ls::stat(arguments)),
        Command::Cat(arguments) => in_runtime(cat::run(arguments)),
        Command::Cp(arguments) => in_runtime(cp::run(arguments)),
        Command::Mv(arguments) => in_runtime(names::rename(arguments)),
        Command::Rm(arguments) => in_runtime(names::remove(arguments)),
        Command::Mkdir(arguments) => in_runtime(names::make(arguments)),
        Command::Key { command } => key::run(command),
        Command::Client { command } => client::run(command),
        Command::Peer { command } => in_runtime(peer::run(command)),
        Command::Ping(arguments) => in_runtime(ping::run(arguments)),
        Command::Serve(arguments) => {
            let source = serve::Source::new(*arguments);
            let settings = source.settle()?;
            let handed = serve::Handed::take()?;
            // Before there are threads: rights are given up by one thread, and those that it starts have its own.
            settings.user.map_or(Ok(()), User::become_it)?;
            in_runtime(serve::run(source, settings, handed))
        }
        Command::Status(arguments) => in_runtime(status::status(arguments)),
        Command::Release(arguments) => in_runtime(status::release(arguments)),
        Command::Resume(arguments) => in_runtime(resume::run(arguments)),
        Command::Grant(arguments) => in_runtime(grants::grant(arguments)),
        Command::Accept(arguments) => in_runtime(grants::accept(arguments)),
        Command::Config { command: ConfigCommand::Show { origin } } => config::show_all(origin),
        Command::Explain { code } => explain::run(code.as_deref()),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::man(dir),
    }
}

/// How the log is to be written; only a server is asked.
fn log_format(command: &Command) -> Option<log::LogFormat> {
    match command {
        Command::Serve(arguments) => arguments.log_format,
        _ => None,
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
