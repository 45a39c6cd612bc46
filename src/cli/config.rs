//! The settings of the program: from the system's file, the user's file, the environment and the arguments, each of which
//! goes before the ones named earlier; and `bowline config show`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bowline::net::settings::{self, SettingsError, TextProblem};
use serde::{Deserialize, Serialize};

use super::failure::{Code, Failure};
use super::output::{clean, line, show, style};
use super::places::{absolute, config_home, is_missing};

/// A setting: its name in files, the variable that says the same, and what holds without it.
struct Setting {
    name: &'static str,
    variable: &'static str,
    usual: &'static str,
}

const fn setting(name: &'static str, variable: &'static str, usual: &'static str) -> Setting {
    Setting { name, variable, usual }
}

/// Every setting, by name.
const SETTINGS: [Setting; 12] = [
    setting("admin_socket", "BOWLINE_ADMIN_SOCKET", "$XDG_RUNTIME_DIR/bowline/admin.sock"),
    setting("bulk_via", "BOWLINE_BULK_VIA", "the lines of the list of peers"),
    setting("clients", "BOWLINE_CLIENTS", "$XDG_CONFIG_HOME/bowline/clients.toml"),
    setting("color", "BOWLINE_COLOR", "auto"),
    setting("jobs", "BOWLINE_JOBS", "64"),
    setting("key", "BOWLINE_KEY", "$XDG_CONFIG_HOME/bowline/key"),
    setting("keys_via", "BOWLINE_KEYS_VIA", "the lines of the list of peers"),
    setting("peers", "BOWLINE_PEERS", "$XDG_CONFIG_HOME/bowline/peers.toml"),
    setting("protection", "BOWLINE_PROTECTION", "sealed; signed on lines that carry file data only"),
    setting("ring", "BOWLINE_RING", "$XDG_STATE_HOME/bowline/keys"),
    setting("state_dir", "BOWLINE_STATE_DIR", "$XDG_STATE_HOME/bowline/server-FINGERPRINT"),
    setting("via", "BOWLINE_VIA", "the lines of the list of peers"),
];

/// A value as a file gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Number(u16),
    List(Vec<String>),
}

impl Value {
    /// As the variable would say it.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::List(list) => list.join(","),
        }
    }
}

/// What stands in a file, and in which line.
type Given = BTreeMap<&'static str, (String, usize)>;

/// What the files say, the last one's before the others'.
fn defaults(files: &[(PathBuf, Given)]) -> BTreeMap<&'static str, String> {
    let mut defaults = BTreeMap::new();
    for (_, given) in files.iter().rev() {
        for (name, (text, _)) in given {
            defaults.entry(*name).or_insert_with(|| text.clone());
        }
    }
    defaults
}

/// The value of a setting in the files, if it has one there.
pub(super) fn in_files(name: &str) -> Option<String> {
    IN_FILES.get()?.get(name).cloned()
}

/// Reads the settings files, once, before anything is asked. Gives what people are to be warned of: how they are told is a
/// setting too.
pub(super) fn load() -> Result<Vec<String>, Failure> {
    let Files { given, denied } = files()?;
    // A second time in one process is a test's.
    let _first = IN_FILES.set(defaults(&given));
    let warning =
        |path: PathBuf| format!("the settings in {} are not used: they cannot be read", path.display());
    Ok(denied.into_iter().map(warning).collect())
}

static IN_FILES: OnceLock<BTreeMap<&'static str, String>> = OnceLock::new();

/// The settings files: the system's, then the user's.
#[derive(Debug, Default)]
struct Files {
    /// What they say.
    given: Vec<(PathBuf, Given)>,
    /// Those that are there and are not for this user.
    denied: Vec<PathBuf>,
}

fn files() -> Result<Files, Failure> {
    let mut files = Files::default();
    for path in [Some(PathBuf::from(SYSTEM_FILE)), config_home().map(|home| home.join("config.toml"))] {
        let Some(path) = path else { continue };
        match settings::load(&path, parse) {
            Ok(given) => files.given.push((path, given)),
            Err(error) if is_missing(&error.problem) => {}
            // Somebody else's, as where a program runs as another user than its environment says.
            Err(error) if is_denied(&error.problem) => files.denied.push(path),
            Err(error) => {
                return Err(Failure::of("cannot use the settings", &error)
                    .code(Code::Settings)
                    .try_this("bowline config show --origin, once the file is mended"));
            }
        }
    }
    Ok(files)
}

fn is_denied(problem: &TextProblem) -> bool {
    matches!(problem, TextProblem::Read(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The settings for every user of the machine.
const SYSTEM_FILE: &str = "/etc/bowline/config.toml";

fn parse(text: &str) -> Result<Given, SettingsError<TextProblem>> {
    let table: BTreeMap<toml::Spanned<String>, Value> = settings::from_toml(text)?;
    let mut given = Given::new();
    for (name, value) in table {
        let at = settings::line_of(text, name.span().start);
        let Some(known) = SETTINGS.iter().find(|known| known.name == name.get_ref()) else {
            let names: Vec<&str> = SETTINGS.iter().map(|known| known.name).collect();
            let problem = TextProblem::Toml(format!(
                "there is no setting \"{}\": use {}",
                clean(name.get_ref()),
                names.join(", ")
            ));
            return Err(SettingsError { file: None, line: Some(at), problem });
        };
        given.insert(known.name, (value.text(), at));
    }
    Ok(given)
}

/// A setting as an object.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    origin: &'a str,
}

/// Prints every setting, its value, and where that comes from.
pub(super) fn show_all(with_origin: bool) -> Result<(), Failure> {
    let files = files()?.given;
    // Lines are described in one place: a variable that says something of them is all that counts.
    let is_line = |name: &str| name.ends_with("via");
    let mut lines = SETTINGS.iter().filter(|setting| is_line(setting.name));
    let are_lines_given = lines.any(|setting| std::env::var_os(setting.variable).is_some());
    for Setting { name, variable, usual } in SETTINGS {
        let (value, origin) = match std::env::var(variable) {
            Ok(value) => (Some(value), format!("environment: {variable}")),
            Err(_) => files
                .iter()
                .rev()
                .filter(|_| !(are_lines_given && is_line(name)))
                .find_map(|(path, given)| given.get(name).map(|(value, at)| (value, at, path)))
                .map(|(value, at, path)| (Some(value.clone()), format!("{}: line {at}", path.display())))
                .unwrap_or_else(|| (None, "usual".to_owned())),
        };
        if style().json {
            show(&line(&Shown { kind: "setting", name, value: value.as_deref(), origin: &origin }))?;
            continue;
        }
        let shown = value.as_deref().map_or_else(|| format!("({usual})"), clean);
        let origin = if with_origin { format!("  # {origin}") } else { String::new() };
        show(&format!("{name} = {shown}{origin}\n"))?;
    }
    Ok(())
}

/// A path that the files set.
pub(super) fn path_in_files(name: &str) -> Option<PathBuf> {
    let text = in_files(name)?;
    let path = Path::new(&text);
    // As a shell would, for the one form that people write.
    match path.strip_prefix("~") {
        Ok(rest) => absolute("HOME").map(|home| home.join(rest)),
        Err(_) => Some(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_parse_with_their_lines_or_say_what_is_wrong() {
        let given = parse("# mine\nkey = \"/k\"\nvia = [\"eth0\", \"eth1\"]\njobs = 8\n").unwrap();
        assert_eq!(given["key"], ("/k".to_owned(), 2));
        assert_eq!(given["via"], ("eth0,eth1".to_owned(), 3));
        assert_eq!(given["jobs"].0, "8");
        for (bad, at, why) in [
            ("\nkeys = \"/k\"", 2, "no setting \"keys\""),
            ("key = { a = 1 }", 1, "data did not match"),
            ("key = ", 1, ""),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.line == Some(at) && error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn every_setting_has_a_place_in_the_order_and_a_variable() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        for setting in &SETTINGS {
            assert_eq!(setting.variable, format!("BOWLINE_{}", setting.name.to_uppercase()));
        }
        // And each variable is heard by some command.
        fn variables(command: &clap::Command, into: &mut Vec<String>) {
            let of = command.get_arguments().filter_map(|argument| argument.get_env());
            into.extend(of.map(|variable| variable.to_string_lossy().into_owned()));
            command.get_subcommands().for_each(|part| variables(part, into));
        }
        let mut heard = Vec::new();
        variables(&<crate::cli::arguments::Arguments as clap::CommandFactory>::command(), &mut heard);
        for setting in &SETTINGS {
            assert!(heard.iter().any(|variable| variable == setting.variable), "{}", setting.variable);
        }
    }
}
