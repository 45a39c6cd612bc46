//! Where files are when nobody says so, by the XDG convention: settings in the user's configuration directory, the admin
//! socket in the runtime or the state directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::model::PublicKey;
use bowline::net::key_file::KeyLock;
use bowline::net::settings::TextProblem;
use bowline::net::{KeyFileError, key_file};
use bowline::secure::Identity;

use super::config;
use super::failure::{Code, Failure};

/// `given`, or what the settings say, or `name` in `$XDG_CONFIG_HOME/bowline` (`~/.config/bowline`).
pub(super) fn place(given: Option<PathBuf>, name: &str) -> Result<PathBuf, Failure> {
    let setting = name.trim_end_matches(".toml");
    if let Some(path) = given.or_else(|| config::path_in_files(setting)) {
        return Ok(path);
    }
    config_home().map(|home| home.join(name)).ok_or_else(|| {
        Failure::new(format!("no path for \"{name}\": neither HOME nor XDG_CONFIG_HOME is set"))
            .code(Code::Settings)
            .try_this(format!("--{setting} FILE"))
    })
}

/// The folder of this user's settings.
pub(super) fn config_home() -> Option<PathBuf> {
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|folder| folder.join("bowline"))
}

/// `given`, or the folder of this server in `$XDG_STATE_HOME/bowline` (`~/.local/state/bowline`): each key has its own.
pub(super) fn state_folder(given: Option<PathBuf>, key: &PublicKey) -> Result<PathBuf, Failure> {
    if let Some(path) = given.or_else(|| config::path_in_files("state_dir")) {
        return Ok(path);
    }
    state_home().map(|home| home.join("bowline").join(format!("server-{}", key.fingerprint()))).ok_or_else(
        || {
            Failure::new("no place to keep which files are open: neither HOME nor XDG_STATE_HOME is set")
                .try_this("--state-dir DIR, or --no-state")
        },
    )
}

/// `given`, or the folder of this user's key rings: `keys` in `$XDG_STATE_HOME/bowline` (`~/.local/state/bowline`).
pub(super) fn key_rings(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let given = given.or_else(|| config::path_in_files("ring"));
    given.or_else(|| state_home().map(|home| home.join("bowline/keys"))).ok_or_else(|| {
        Failure::new("no place for key rings: neither HOME nor XDG_STATE_HOME is set").try_this("--ring DIR")
    })
}

/// Where an admin socket is when nobody says so, the first place first: in `$XDG_RUNTIME_DIR/bowline`, which ends with the
/// user's last login, or in `$XDG_STATE_HOME/bowline` (`~/.local/state/bowline`). A server makes it in the first one. A
/// service is often started without the first variable, which its user's login has; so who looks for it looks in both.
pub(super) fn admin_sockets() -> Vec<PathBuf> {
    let folders = absolute("XDG_RUNTIME_DIR").into_iter().chain(state_home());
    let usual = folders.map(|folder| folder.join("bowline/admin.sock"));
    config::path_in_files("admin_socket").into_iter().chain(usual).collect()
}

/// The folders in which running clients have their sockets, the first place first.
pub(super) fn client_sockets() -> Vec<PathBuf> {
    let folders = absolute("XDG_RUNTIME_DIR").into_iter().chain(state_home());
    folders.map(|folder| folder.join("bowline/clients")).collect()
}

pub(super) fn state_home() -> Option<PathBuf> {
    absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
}

/// The path in an environment variable; one that is not absolute is ignored, as the convention says.
pub(super) fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The identity in `given`, or in the usual place.
pub(super) fn identity(given: Option<PathBuf>) -> Result<Arc<Identity>, Failure> {
    let path = place(given, "key")?;
    let text = key_file::read(&path).map_err(|error| describe(&path, error, &make_one(&path)))?;
    parse(&path, &text)
}

/// The identity in `given`, or in the usual place, if there is one.
pub(super) fn identity_if_any(given: Option<PathBuf>) -> Result<Option<Arc<Identity>>, Failure> {
    let path = place(given, "key")?;
    match key_file::read(&path) {
        Ok(text) => parse(&path, &text).map(Some),
        Err(KeyFileError::Missing { .. }) => Ok(None),
        Err(error) => Err(describe(&path, error, &make_one(&path))),
    }
}

/// A server's identity in `path`, which no other server uses as long as the lock is held; `if_missing` is what to try
/// if there is none.
pub(super) fn server_identity(path: &Path, if_missing: &str) -> Result<(Arc<Identity>, KeyLock), Failure> {
    let (text, lock) = key_file::read_locked(path).map_err(|error| describe(path, error, if_missing))?;
    Ok((parse(path, &text)?, lock))
}

fn parse(path: &Path, text: &str) -> Result<Arc<Identity>, Failure> {
    let identity = Identity::from_text(text).map_err(|error| {
        Failure::of(&format!("{} holds no identity", path.display()), &error).code(Code::Identity)
    })?;
    Ok(Arc::new(identity))
}

/// What makes an identity in `path`.
pub(super) fn make_one(path: &Path) -> String {
    format!("bowline key new --key {}", path.display())
}

fn describe(path: &Path, error: KeyFileError, if_missing: &str) -> Failure {
    match error {
        KeyFileError::Missing { .. } => {
            Failure::coded(Code::Identity, format!("there is no identity in {}", path.display()))
                .try_this(if_missing)
        }
        error => Failure::of("cannot use the identity", &error).code(Code::Identity),
    }
}

/// Whether a settings file is not there at all, so that it has to be written first.
pub(super) fn is_missing(problem: &TextProblem) -> bool {
    matches!(problem, TextProblem::Read(error) if error.kind() == ErrorKind::NotFound)
}
