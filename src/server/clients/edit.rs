//! Changes of the file of allowed clients that keep everything else in it as it is.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Clients, ClientsError, ClientsProblem, parse};
use crate::model::{Access, Policy, PublicKey, Rights, len_u64};
use crate::net::KeyFileError;
use crate::net::replace::Replacement;
use crate::net::settings::{LEN_MAX, TextProblem, from_toml, is_plain_name, with_entry, without_entry};

/// Why the file of clients was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientsEditError {
    /// The file is no list of clients.
    #[error(transparent)]
    Clients(#[from] ClientsError),
    /// The name cannot stand in logs and commands.
    #[error("{0:?} is no client's name: use 1 to 64 of a-z A-Z 0-9 . _ -")]
    Name(String),
    /// There is a client of this name, with another key or other rights.
    #[error("there is a client \"{0}\" already")]
    NameTaken(String),
    /// The key is another client's.
    #[error("this key is that of the client \"{0}\" already")]
    KeyTaken(String),
    /// The file cannot be edited without guessing.
    #[error("{} cannot be edited safely", file.display())]
    Uneditable {
        /// The list of clients.
        file: PathBuf,
    },
    /// The folder of the file cannot be used.
    #[error(transparent)]
    Folder(#[from] KeyFileError),
    /// The file cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The list of clients.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Allows the client with this key what `access` says, in the file `path`; false if it says so already. The file and its
/// folders are made if they are missing, for their owner alone; the file is replaced as a whole.
///
/// # Errors
/// [`ClientsEditError`], and nothing was changed.
pub fn add(path: &Path, key: &PublicKey, access: &Access) -> Result<bool, ClientsEditError> {
    if !is_plain_name(&access.name) {
        return Err(ClientsEditError::Name(access.name.clone()));
    }
    let replacement = Replacement::begin(path)?;
    let (text, mut policy) = load_text(replacement.path())?;
    match policy.clients.get(key) {
        Some(known) if known == access => return Ok(false),
        Some(known) => return Err(ClientsEditError::KeyTaken(known.name.clone())),
        None => {}
    }
    if policy.clients.values().any(|known| known.name == access.name) {
        return Err(ClientsEditError::NameTaken(access.name.clone()));
    }
    policy.clients.insert(*key, access.clone());
    write(path, replacement, Some(with_entry(&text, &entry(key, access))), &policy)?;
    Ok(true)
}

/// Takes the client of this name off the list in the file `path`; `None` if the list has none of this name.
///
/// # Errors
/// [`ClientsEditError`], and nothing was changed.
pub fn forget(path: &Path, name: &str) -> Result<Option<(PublicKey, Access)>, ClientsEditError> {
    let replacement = Replacement::begin(path)?;
    let (text, mut policy) = load_text(replacement.path())?;
    let known = policy.clients.iter().find(|(_, access)| access.name == name);
    let Some((key, access)) = known.map(|(key, access)| (*key, access.clone())) else { return Ok(None) };
    policy.clients.remove(&key);
    let file: Result<Clients, _> = from_toml::<_, TextProblem>(&text);
    let at = file.ok().and_then(|file| {
        file.client
            .into_iter()
            .find(|entry| entry.name.get_ref() == name)
            .map(|entry| entry.name.span().start)
    });
    let edited = at.and_then(|at| without_entry(&text, "[[client]]", at));
    // A server takes a file without a byte for one that is just being written, and keeps the list that it has.
    let edited = edited.map(|text| if text.is_empty() { NOBODY.to_owned() } else { text });
    write(path, replacement, edited, &policy)?;
    Ok(Some((key, access)))
}

/// A list that allows nobody, and says so.
const NOBODY: &str = "# nobody\n";

/// Puts the edited text in the file's place, if it says what is meant and nothing else.
fn write(
    path: &Path,
    replacement: Replacement,
    edited: Option<String>,
    meant: &Policy,
) -> Result<(), ClientsEditError> {
    let is_meant =
        |text: &String| len_u64(text.len()) <= LEN_MAX && parse(text).is_ok_and(|said| said == *meant);
    let edited = edited.filter(is_meant);
    let Some(edited) = edited else { return Err(ClientsEditError::Uneditable { file: path.to_owned() }) };
    let file = replacement.path().to_owned();
    replacement.finish(&edited).map_err(|source| ClientsEditError::Write { file, source })
}

/// An entry as it is written into a list of clients.
fn entry(key: &PublicKey, access: &Access) -> String {
    let list =
        |words: Vec<String>| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let exports = list(access.exports.iter().map(ToString::to_string).collect());
    let rights = [Rights::READ, Rights::WRITE, Rights::APPEND, Rights::LOCK, Rights::GRANT];
    let rights = rights.into_iter().filter(|right| access.rights.contains(*right));
    let rights = list(rights.map(|right| right.to_string()).collect());
    format!(
        "[[client]]\nkey = \"{key}\"\nname = \"{}\"\nexports = [{exports}]\nrights = [{rights}]\nprotection = \"{}\"\n",
        access.name, access.protection_min
    )
}

fn load_text(path: &Path) -> Result<(String, Policy), ClientsError> {
    match crate::net::settings::load(path, |text| parse(text).map(|policy| (text.to_owned(), policy))) {
        Err(error) if is_missing(&error.problem) => Ok((String::new(), Policy::default())),
        read => read,
    }
}

fn is_missing(problem: &ClientsProblem) -> bool {
    matches!(problem, ClientsProblem::Text(TextProblem::Read(error)) if error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protection;

    fn access(name: &str, rights: Rights) -> Access {
        let exports = ["media".parse().unwrap(), "scratch".parse().unwrap()].into();
        Access { name: name.to_owned(), exports, rights, protection_min: Protection::Signed, expires_s: None }
    }

    #[test]
    fn clients_come_and_go_and_the_rest_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/clients.toml");
        let (one, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let all = Rights::READ.union(Rights::WRITE).union(Rights::APPEND).union(Rights::LOCK);
        assert!(add(&path, &one, &access("one", Rights::READ)).unwrap());
        let first = format!("# mine\n{}", std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, &first).unwrap();
        assert!(!add(&path, &one, &access("one", Rights::READ)).unwrap(), "it is there already");
        assert!(matches!(add(&path, &one, &access("one", all)), Err(ClientsEditError::KeyTaken(_))));
        assert!(matches!(add(&path, &other, &access("one", all)), Err(ClientsEditError::NameTaken(_))));
        assert!(matches!(add(&path, &other, &access("a b", all)), Err(ClientsEditError::Name(_))));
        assert!(add(&path, &other, &access("other", all)).unwrap());
        assert_eq!(crate::server::load_clients(&path).unwrap().clients[&other], access("other", all));
        assert_eq!(forget(&path, "nobody").unwrap(), None);
        assert_eq!(forget(&path, "other").unwrap(), Some((other, access("other", all))));
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), first.trim_end());
        // Also the last one, for servers that run.
        forget(&path, "one").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\n");
        std::fs::write(&path, entry(&one, &access("one", Rights::READ))).unwrap();
        forget(&path, "one").unwrap();
        assert_eq!(crate::server::load_clients_unless_blank(&path).unwrap(), Some(Policy::default()));
        // What stands above the next entry is that one's.
        let [first, second] = [&one, &other].map(|key| entry(key, &access(&key.fingerprint(), Rights::READ)));
        std::fs::write(&path, format!("# one\n{first}\n# the other's\n# machine\n{second}")).unwrap();
        forget(&path, &one.fingerprint()).unwrap();
        let left = std::fs::read_to_string(&path).unwrap();
        assert!(left.ends_with(&format!("# the other's\n# machine\n{second}")), "{left}");
        std::fs::write(&path, "client = []\n").unwrap();
        assert!(matches!(add(&path, &one, &access("one", all)), Err(ClientsEditError::Uneditable { .. })));
    }
}
