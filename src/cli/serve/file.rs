//! The configuration file of `bowline serve`: what the flags can say, in TOML, with the line of each mistake.
//!
//! ```toml
//! listen = ["192.0.2.1:4477", "192.0.2.65:4477"]
//! protection = "signed"
//! durability = "machine"
//! log = "info"
//!
//! [[export]]
//! name = "media"
//! path = "/srv/media"
//! protection = "sealed"
//! ```

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bowline::model::{Durability, ExportName, Protection};
use bowline::net::settings::{self, SettingsError, TextProblem, line_of};
use serde::Deserialize;
use toml::Spanned;

use crate::cli::arguments::mode_mask;
use crate::cli::log;
use crate::cli::user::User;

/// Why the file is not used.
pub(super) type FileError = SettingsError<TextProblem>;

/// What the file says. Whatever it does not say is for the flags, or as it is without being said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ServeFile {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) exports: Vec<(ExportName, PathBuf)>,
    pub(super) export_protection: Vec<(ExportName, Protection)>,
    pub(super) clients: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) previous_key: Option<PathBuf>,
    pub(super) protection: Option<Protection>,
    pub(super) mode_mask: Option<u32>,
    pub(super) allow_special_bits: bool,
    pub(super) enrolment: Option<bool>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) no_state: bool,
    pub(super) durability: Option<Durability>,
    pub(super) admin_socket: Option<PathBuf>,
    pub(super) no_admin_socket: bool,
    pub(super) user: Option<User>,
    pub(super) log: Option<String>,
    pub(super) log_names: bool,
    pub(super) metrics: Option<SocketAddr>,
}

/// Reads the file `path`. Paths in it that are not absolute begin in the folder that it is in.
pub(super) fn load(path: &Path) -> Result<ServeFile, FileError> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    settings::load(path, |text| parse(text, folder))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    #[serde(default)]
    export: Vec<RawExport>,
    clients: Option<PathBuf>,
    key: Option<PathBuf>,
    previous_key: Option<PathBuf>,
    protection: Option<Spanned<String>>,
    mode_mask: Option<Spanned<String>>,
    #[serde(default)]
    allow_special_bits: bool,
    enrolment: Option<bool>,
    state_dir: Option<PathBuf>,
    no_state: Option<Spanned<bool>>,
    durability: Option<Spanned<String>>,
    admin_socket: Option<PathBuf>,
    no_admin_socket: Option<Spanned<bool>>,
    user: Option<Spanned<String>>,
    log: Option<Spanned<String>>,
    #[serde(default)]
    log_names: bool,
    metrics: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExport {
    name: Spanned<String>,
    path: PathBuf,
    protection: Option<Spanned<String>>,
}

fn parse(text: &str, folder: &Path) -> Result<ServeFile, FileError> {
    let raw: Raw = settings::from_toml(text)?;
    let read = Reader { text };
    let at = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    let mut file = ServeFile::default();
    for address in &raw.listen {
        file.listen.push(read.address(address)?);
    }
    for export in raw.export {
        let name: ExportName = read.value(&export.name)?;
        if file.exports.iter().any(|(other, _)| *other == name) {
            return Err(read.wrong(&export.name, format!("there is an export \"{name}\" already")));
        }
        if let Some(least) = &export.protection {
            file.export_protection.push((name.clone(), read.value(least)?));
        }
        file.exports.push((name, folder.join(export.path)));
    }
    // What shuts another setting out is said of the line that does.
    let excludes = |flag: Option<Spanned<bool>>, other: bool, why: &str| match flag {
        Some(flag) if *flag.get_ref() && other => Err(read.wrong(&flag, why)),
        Some(flag) => Ok(*flag.get_ref()),
        None => Ok(false),
    };
    file.no_state = excludes(raw.no_state, raw.state_dir.is_some(), "no_state goes without state_dir")?;
    let has_socket = raw.admin_socket.is_some();
    let why = "no_admin_socket goes without admin_socket";
    file.no_admin_socket = excludes(raw.no_admin_socket, has_socket, why)?;
    file.protection = raw.protection.as_ref().map(|word| read.value(word)).transpose()?;
    file.durability = raw.durability.as_ref().map(|word| read.value(word)).transpose()?;
    file.user = raw.user.as_ref().map(|word| read.value(word)).transpose()?;
    file.mode_mask = raw
        .mode_mask
        .as_ref()
        .map(|mask| mode_mask(mask.get_ref()).map_err(|why| read.wrong(mask, why)))
        .transpose()?;
    file.metrics = raw.metrics.as_ref().map(|address| read.address(address)).transpose()?;
    if let Some(filter) = &raw.log {
        log::filter(filter.get_ref()).map_err(|why| read.wrong(filter, why))?;
    }
    Ok(ServeFile {
        clients: at(raw.clients),
        key: at(raw.key),
        previous_key: at(raw.previous_key),
        allow_special_bits: raw.allow_special_bits,
        enrolment: raw.enrolment,
        state_dir: at(raw.state_dir),
        admin_socket: at(raw.admin_socket),
        log: raw.log.map(Spanned::into_inner),
        log_names: raw.log_names,
        ..file
    })
}

/// Reads values, and says which line is wrong.
struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn wrong<T>(&self, value: &Spanned<T>, why: impl Into<String>) -> FileError {
        let line = Some(line_of(self.text, value.span().start));
        SettingsError { file: None, line, problem: TextProblem::Toml(why.into()) }
    }

    fn value<T: FromStr<Err: Display>>(&self, word: &Spanned<String>) -> Result<T, FileError> {
        word.get_ref()
            .parse()
            .map_err(|why: T::Err| self.wrong(word, format!("\"{}\": {why}", word.get_ref().escape_debug())))
    }

    fn address(&self, word: &Spanned<String>) -> Result<SocketAddr, FileError> {
        let why = || format!("\"{}\" is no address: write IP:PORT", word.get_ref().escape_debug());
        word.get_ref().parse().map_err(|_| self.wrong(word, why()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_all_that_flags_can() {
        let text = "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\nclients = \"clients.toml\"\nkey = \"/k\"\n\
             previous_key = \"old\"\nprotection = \"sealed\"\nmode_mask = \"750\"\nallow_special_bits = true\n\
             enrolment = false\nstate_dir = \"/s\"\ndurability = \"process\"\nadmin_socket = \"/a\"\n\
             user = \"7:8\"\nlog = \"debug\"\nlog_names = true\nmetrics = \"127.0.0.1:9\"\n\
             [[export]]\nname = \"media\"\npath = \"/srv/media\"\nprotection = \"sealed\"\n\
             [[export]]\nname = \"other\"\npath = \"o\"\n";
        let name = |name: &str| name.parse::<ExportName>().unwrap();
        let expected = ServeFile {
            listen: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            exports: vec![(name("media"), "/srv/media".into()), (name("other"), "/etc/b/o".into())],
            export_protection: vec![(name("media"), Protection::Sealed)],
            clients: Some("/etc/b/clients.toml".into()),
            key: Some("/k".into()),
            previous_key: Some("/etc/b/old".into()),
            protection: Some(Protection::Sealed),
            mode_mask: Some(0o750),
            allow_special_bits: true,
            enrolment: Some(false),
            state_dir: Some("/s".into()),
            no_state: false,
            durability: Some(Durability::Process),
            admin_socket: Some("/a".into()),
            no_admin_socket: false,
            user: Some("7:8".parse().unwrap()),
            log: Some("debug".to_owned()),
            log_names: true,
            metrics: Some("127.0.0.1:9".parse().unwrap()),
        };
        assert_eq!(parse(text, Path::new("/etc/b")).unwrap(), expected);
        assert_eq!(parse("", Path::new("/")).unwrap(), ServeFile::default());
    }

    #[test]
    fn mistakes_are_said_with_their_line() {
        let export = |more: &str| format!("\n[[export]]\nname = \"a\"\npath = \"/a\"\n{more}");
        let cases = [
            (
                "listen = [\"127.0.0.1:1\",\n\"store\"]".to_owned(),
                2,
                "\"store\" is no address: write IP:PORT",
            ),
            ("listen = \"127.0.0.1:1\"".to_owned(), 1, "invalid type: string"),
            ("\nlisten_on = []".to_owned(), 2, "unknown field `listen_on`"),
            (export("protection = \"none\""), 5, "is none of clear, signed, sealed"),
            (export("mode = 1"), 5, "unknown field `mode`"),
            (export("[[export]]\nname = \"a\"\npath = \"/b\""), 6, "there is an export \"a\" already"),
            (export("").replace("\"a\"", "\"a/b\""), 3, "\"a/b\""),
            (export("").replace("path", "#"), 2, "missing field `path`"),
            ("mode_mask = \"9\"".to_owned(), 1, "octal"),
            ("mode_mask = 750".to_owned(), 1, "invalid type: integer"),
            ("state_dir = \"/s\"\nno_state = true".to_owned(), 2, "no_state goes without state_dir"),
            ("no_admin_socket = true\nadmin_socket = \"/a\"".to_owned(), 1, "goes without admin_socket"),
            ("user = \"0\"".to_owned(), 1, "user 0 is root"),
            ("durability = \"disk\"".to_owned(), 1, "is none of"),
            ("log = \"bowline=loud\"".to_owned(), 1, "bowline=loud"),
            ("metrics = \"9\"".to_owned(), 1, "is no address"),
            ("x = ".to_owned(), 1, ""),
        ];
        for (text, line, why) in cases {
            let error = parse(&text, Path::new("/")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(why), "{text}: {error}");
        }
    }
}
