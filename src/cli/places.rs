//! Where files are when nobody says so: the user's configuration and state directories, by the XDG convention.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::net::key_file::KeyLock;
use bowline::net::settings::TextProblem;
use bowline::net::{KeyFileError, key_file};
use bowline::secure::Identity;

use super::Failure;

/// `given`, or `name` in `$XDG_CONFIG_HOME/bowline` (`~/.config/bowline`).
pub(super) fn place(given: Option<PathBuf>, name: &str) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path);
    }
    user_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join(name)).ok_or_else(|| {
        Failure::new(format!("no path for \"{name}\": neither HOME nor XDG_CONFIG_HOME is set"))
    })
}

/// `given`, or `$XDG_STATE_HOME/bowline` (`~/.local/state/bowline`): what a server keeps between its lives.
#[cfg_attr(not(test), expect(dead_code, reason = "`serve` keeps no state yet"))]
pub(super) fn state_directory(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    given.or_else(|| user_folder("XDG_STATE_HOME", ".local/state")).ok_or_else(|| {
        Failure::new("no path for the state directory: neither HOME nor XDG_STATE_HOME is set".to_owned())
    })
}

/// The folder of this program in the one that `variable` names, or in `usual` of the user's own.
fn user_folder(variable: &str, usual: &str) -> Option<PathBuf> {
    let absolute = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(usual)))
        .map(|folder| folder.join("bowline"))
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
    let identity = Identity::from_text(text)
        .map_err(|error| Failure::of(&format!("{} holds no identity", path.display()), &error))?;
    Ok(Arc::new(identity))
}

/// What makes an identity in `path`.
pub(super) fn make_one(path: &Path) -> String {
    format!("bowline key new --key {}", path.display())
}

fn describe(path: &Path, error: KeyFileError, if_missing: &str) -> Failure {
    match error {
        KeyFileError::Missing { .. } => {
            Failure::new(format!("there is no identity in {}", path.display())).try_this(if_missing)
        }
        error => Failure::of("cannot use the identity", &error),
    }
}

/// Whether a settings file is not there at all, so that it has to be written first.
pub(super) fn is_missing(problem: &TextProblem) -> bool {
    matches!(problem, TextProblem::Read(error) if error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_apart_from_the_settings() {
        let given = PathBuf::from("there");
        assert_eq!(state_directory(Some(given.clone())).ok(), Some(given));
        let usual = state_directory(None).ok();
        if let Some(usual) = usual {
            assert!(usual.is_absolute() && usual.ends_with("bowline"), "{usual:?}");
            assert_ne!(place(None, "key").ok().and_then(|key| key.parent().map(Path::to_owned)), Some(usual));
        }
    }
}
