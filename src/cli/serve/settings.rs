//! What a server is to do: the flags, and behind them the configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bowline::model::{Durability, ExportName, Protection};

use super::file::{self, ServeFile};
use crate::cli::arguments::ServeArguments;
use crate::cli::failure::{Code, Failure};
use crate::cli::places::config_home;
use crate::cli::user::User;

/// Everything that is settled before the server starts.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Settings {
    pub(super) exports: Vec<(ExportName, PathBuf)>,
    pub(super) export_protection: Vec<(ExportName, Protection)>,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) key: Option<PathBuf>,
    pub(super) previous_key: Option<PathBuf>,
    pub(super) clients: Option<PathBuf>,
    pub(super) protection: Protection,
    pub(super) mode_mask: u32,
    pub(super) allow_special_bits: bool,
    pub(super) enrolment: bool,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) no_state: bool,
    pub(super) durability: Durability,
    pub(super) admin_socket: Option<PathBuf>,
    pub(super) no_admin_socket: bool,
    pub(in crate::cli) user: Option<User>,
    pub(super) log: Option<String>,
    pub(super) log_names: bool,
    pub(super) metrics: Option<SocketAddr>,
}

/// The settings, and where they are read again.
#[derive(Debug)]
pub(in crate::cli) struct Source {
    arguments: ServeArguments,
    file: Option<PathBuf>,
}

impl Source {
    /// The flags, and the file that they name; without one, and if they name no export either, the usual file if there
    /// is one.
    pub(in crate::cli) fn new(arguments: ServeArguments) -> Self {
        let usual = || config_home().map(|home| home.join("serve.toml")).filter(|file| file.exists());
        let file = match &arguments.config {
            Some(file) => Some(file.clone()),
            None if arguments.exports.is_empty() => usual(),
            None => None,
        };
        Self { arguments, file }
    }

    /// The settings as the flags and the file say them now.
    pub(in crate::cli) fn settle(&self) -> Result<Settings, Failure> {
        let file = match &self.file {
            None => ServeFile::default(),
            Some(path) => file::load(path).map_err(|error| {
                Failure::of("cannot use the configuration file", &error).code(Code::Settings)
            })?,
        };
        let settings = merge(&self.arguments, file);
        if settings.exports.is_empty() {
            let hint = "bowline serve NAME=DIR --listen ADDR, or --config FILE with an [[export]]";
            return Err(Failure::coded(Code::Settings, "there is nothing to serve").try_this(hint));
        }
        Ok(settings)
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn ends_with_stdin(&self) -> bool {
        self.arguments.until_stdin_closes
    }
}

/// A flag goes before what the file says of the same. Exports that are arguments take the place of the file's, with what
/// the file demands for those.
fn merge(flags: &ServeArguments, file: ServeFile) -> Settings {
    let (exports, mut demanded) = match flags.exports.is_empty() {
        true => (file.exports, file.export_protection),
        false => (flags.exports.clone(), Vec::new()),
    };
    demanded.retain(|(name, _)| !flags.export_protection.iter().any(|(other, _)| other == name));
    demanded.extend(flags.export_protection.iter().cloned());
    let says_state = flags.no_state || flags.state_dir.is_some();
    let says_socket = flags.no_admin_socket || flags.admin_socket.is_some();
    Settings {
        exports,
        export_protection: demanded,
        listen: if flags.listen.is_empty() { file.listen } else { flags.listen.clone() },
        key: flags.key.clone().or(file.key),
        previous_key: flags.previous_key.clone().or(file.previous_key),
        clients: flags.clients.clone().or(file.clients),
        protection: flags.protection.or(file.protection).unwrap_or(Protection::Signed),
        mode_mask: flags.mode_mask.or(file.mode_mask).unwrap_or(0o777),
        allow_special_bits: flags.allow_special_bits || file.allow_special_bits,
        enrolment: !flags.no_enrolment && file.enrolment.unwrap_or(true),
        state_dir: if says_state { flags.state_dir.clone() } else { file.state_dir },
        no_state: if says_state { flags.no_state } else { file.no_state },
        durability: flags.durability.or(file.durability).unwrap_or(Durability::Machine),
        admin_socket: if says_socket { flags.admin_socket.clone() } else { file.admin_socket },
        no_admin_socket: if says_socket { flags.no_admin_socket } else { file.no_admin_socket },
        user: flags.user.or(file.user),
        log: file.log,
        log_names: flags.log_names || file.log_names,
        metrics: flags.metrics.or(file.metrics),
    }
}

impl Settings {
    /// The names of the settings in which `new` differs and which a running server keeps.
    pub(super) fn fixed_differences(&self, new: &Self) -> Vec<&'static str> {
        [
            ("export", self.exports != new.exports),
            ("listen", self.listen != new.listen),
            ("key", self.key != new.key),
            ("previous_key", self.previous_key != new.previous_key),
            ("clients", self.clients != new.clients),
            ("mode_mask", self.mode_mask != new.mode_mask),
            ("allow_special_bits", self.allow_special_bits != new.allow_special_bits),
            ("enrolment", self.enrolment != new.enrolment),
            ("state_dir", self.state_dir != new.state_dir),
            ("no_state", self.no_state != new.no_state),
            ("durability", self.durability != new.durability),
            ("admin_socket", self.admin_socket != new.admin_socket),
            ("no_admin_socket", self.no_admin_socket != new.no_admin_socket),
            ("user", self.user != new.user),
            ("metrics", self.metrics != new.metrics),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{Arguments, Command};

    fn flags(line: &[&str]) -> ServeArguments {
        let words = ["bowline", "serve"].iter().chain(line);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Serve(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    fn file() -> ServeFile {
        let media: ExportName = "media".parse().unwrap();
        ServeFile {
            listen: vec!["127.0.0.1:1".parse().unwrap()],
            exports: vec![(media.clone(), "/file".into())],
            export_protection: vec![(media, Protection::Sealed)],
            protection: Some(Protection::Clear),
            mode_mask: Some(0o700),
            enrolment: Some(false),
            state_dir: Some("/state".into()),
            durability: Some(Durability::Process),
            admin_socket: Some("/socket".into()),
            ..ServeFile::default()
        }
    }

    #[test]
    fn the_file_holds_where_no_flag_says_anything() {
        let settings = merge(&flags(&[]), file());
        assert_eq!(settings.exports, file().exports);
        assert_eq!(settings.export_protection, file().export_protection);
        assert_eq!(settings.listen, file().listen);
        assert_eq!((settings.protection, settings.mode_mask), (Protection::Clear, 0o700));
        assert_eq!((settings.enrolment, settings.durability), (false, Durability::Process));
        assert_eq!((settings.state_dir, settings.no_state), (Some("/state".into()), false));
        assert_eq!(settings.admin_socket, Some("/socket".into()));
        let usual = merge(&flags(&[]), ServeFile::default());
        assert_eq!((usual.protection, usual.mode_mask, usual.enrolment), (Protection::Signed, 0o777, true));
        assert_eq!((usual.durability, usual.no_state), (Durability::Machine, false));
    }

    #[test]
    fn flags_go_before_the_file() {
        let line = [
            "media=/flag",
            "--listen",
            "127.0.0.1:2",
            "--protection",
            "sealed",
            "--mode-mask",
            "770",
            "--no-state",
            "--durability",
            "machine",
            "--no-admin-socket",
        ];
        let settings = merge(&flags(&line), file());
        assert_eq!(settings.exports[0].1, Path::new("/flag"));
        assert_eq!(settings.export_protection, [], "what the file demands is for its own exports");
        assert_eq!(settings.listen, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!((settings.protection, settings.mode_mask), (Protection::Sealed, 0o770));
        assert_eq!((settings.state_dir, settings.no_state), (None, true));
        assert_eq!((settings.admin_socket, settings.no_admin_socket), (None, true));
        assert_eq!(settings.durability, Durability::Machine);
        let weaker = merge(&flags(&["--export-protection", "media=signed"]), file());
        assert_eq!(weaker.export_protection, [("media".parse().unwrap(), Protection::Signed)]);
    }

    #[test]
    fn what_a_running_server_keeps_is_named() {
        let old = merge(&flags(&[]), file());
        let new = Settings {
            listen: Vec::new(),
            enrolment: true,
            protection: Protection::Sealed,
            log: Some("debug".to_owned()),
            log_names: true,
            ..old.clone()
        };
        assert_eq!(old.fixed_differences(&new), ["listen", "enrolment"]);
        assert!(old.fixed_differences(&old).is_empty());
    }
}
