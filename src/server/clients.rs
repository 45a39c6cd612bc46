//! The file of allowed clients. Nobody else may connect, and a file with a mistake in it allows nobody new: it is
//! refused as a whole, with the line and the reason.
//!
//! ```toml
//! [[client]]
//! key = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
//! name = "edit-station"
//! exports = ["media", "scratch"]
//! rights = ["read", "write", "lock", "grant"]   # or "append" instead of "write"; without it: read
//! protection = "signed"                         # least protection of its data channels; without it: signed; "clear"
//!                                               # allows what the server and the exports allow too
//! expires = 2027-01-31T00:00:00Z                # without it: never
//! ```

mod edit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use edit::{ClientsEditError, add, forget};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;
use toml::value::Datetime;

use crate::model::{Access, ExportName, KeyTextError, NameError, Policy, Protection, PublicKey, Rights};
use crate::net::settings::{
    ProtectionProblem, SettingsError, TextProblem, data_protection, from_toml, is_plain_name,
    load as load_settings,
};

/// Why a file of clients is not used.
pub type ClientsError = SettingsError<ClientsProblem>;

/// What is wrong with a file of clients.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientsProblem {
    /// It cannot be read, or is no TOML of this form.
    #[error(transparent)]
    Text(#[from] TextProblem),
    /// A key that is none.
    #[error("{text:?} is no client's key: {reason}")]
    Key {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        reason: KeyTextError,
    },
    /// Two entries for one key.
    #[error("this key is that of the client {0:?} already")]
    DoubleKey(String),
    /// Two entries of one name.
    #[error("there is a client {0:?} already")]
    DoubleName(String),
    /// A name that cannot stand in logs and commands.
    #[error("{0:?} is no client's name: use 1 to 64 of a-z A-Z 0-9 . _ -")]
    Name(String),
    /// An export that cannot exist.
    #[error("{text:?} is no export's name: {reason}")]
    Export {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        reason: NameError,
    },
    /// A right that does not exist.
    #[error("{0:?} is no right: use \"read\", \"write\", \"append\", \"lock\" and \"grant\"")]
    Right(String),
    /// Rights that open nothing.
    #[error("the rights of the client {0:?} need \"read\", \"write\" or \"append\"")]
    NoUse(String),
    /// A protection that does not exist.
    #[error(transparent)]
    Protection(#[from] ProtectionProblem),
    /// A moment that depends on where the server stands.
    #[error("{0} is no moment: write date, time and offset, as in 2027-01-31T00:00:00Z")]
    Expires(Datetime),
}

/// The clients that `text` allows. An empty text is valid, and allows nobody.
///
/// # Errors
/// [`SettingsError`] with the line and a [`ClientsProblem`].
pub fn parse(text: &str) -> Result<Policy, ClientsError> {
    let file: Clients = from_toml(text)?;
    let mut clients = BTreeMap::new();
    let mut names = BTreeSet::new();
    for entry in file.client {
        let at = |span: &Spanned<String>, problem| ClientsError::at(text, &span.span(), problem);
        let key = entry.key(text)?;
        let access = entry.access(text)?;
        if !names.insert(access.name.clone()) {
            return Err(at(&entry.name, ClientsProblem::DoubleName(access.name)));
        }
        if let Some(Access { name, .. }) = clients.insert(key, access) {
            return Err(at(&entry.key, ClientsProblem::DoubleKey(name)));
        }
    }
    Ok(Policy { clients })
}

/// The clients that the file `path` allows.
///
/// # Errors
/// As [`parse`], with the file's name; [`ClientsProblem::Text`] if it cannot be read, or can be written to by
/// every user of the machine.
pub fn load(path: &Path) -> Result<Policy, ClientsError> {
    load_settings(path, parse)
}

/// As [`load`]; `None` if there is not one byte in the file, as there is while its writer has just begun.
///
/// # Errors
/// As [`load`].
pub fn load_unless_blank(path: &Path) -> Result<Option<Policy>, ClientsError> {
    // Of one reading: the file may have grown by the time it is looked at again.
    load_settings(path, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clients {
    #[serde(default)]
    client: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Spanned<String>,
    name: Spanned<String>,
    exports: Vec<Spanned<String>>,
    rights: Option<Spanned<Vec<Spanned<String>>>>,
    protection: Option<Spanned<String>>,
    expires: Option<Spanned<Datetime>>,
}

impl Entry {
    fn key(&self, text: &str) -> Result<PublicKey, ClientsError> {
        let key = self.key.get_ref();
        key.parse().map_err(|reason| {
            ClientsError::at(text, &self.key.span(), ClientsProblem::Key { text: key.clone(), reason })
        })
    }

    fn access(&self, text: &str) -> Result<Access, ClientsError> {
        let name = self.name.get_ref().clone();
        if !is_plain_name(&name) {
            return Err(ClientsError::at(text, &self.name.span(), ClientsProblem::Name(name)));
        }
        Ok(Access {
            exports: self.exports.iter().map(|export| export_name(text, export)).collect::<Result<_, _>>()?,
            rights: self.rights(text)?,
            protection_min: self.protection_min(text)?,
            expires_s: self.expires.as_ref().map(|moment| seconds(text, moment)).transpose()?,
            name,
        })
    }

    fn rights(&self, text: &str) -> Result<Rights, ClientsError> {
        let Some(words) = &self.rights else { return Ok(Rights::READ) };
        let mut rights = Rights::NONE;
        for word in words.get_ref() {
            let right = Rights::from_name(word.get_ref()).ok_or_else(|| {
                ClientsError::at(text, &word.span(), ClientsProblem::Right(word.get_ref().clone()))
            })?;
            rights = rights.union(right);
        }
        if rights.intersection(Rights::BYTES) == Rights::NONE {
            let problem = ClientsProblem::NoUse(self.name.get_ref().clone());
            return Err(ClientsError::at(text, &words.span(), problem));
        }
        Ok(rights)
    }

    fn protection_min(&self, text: &str) -> Result<Protection, ClientsError> {
        let Some(word) = &self.protection else { return Ok(Protection::Signed) };
        data_protection(word.get_ref()).map_err(|problem| ClientsError::at(text, &word.span(), problem))
    }
}

fn export_name(text: &str, export: &Spanned<String>) -> Result<ExportName, ClientsError> {
    let name = export.get_ref();
    name.parse().map_err(|reason| {
        ClientsError::at(text, &export.span(), ClientsProblem::Export { text: name.clone(), reason })
    })
}

/// Seconds since 1970, rounded down, so that nothing holds longer than is written; 0 for what lies before.
fn seconds(text: &str, moment: &Spanned<Datetime>) -> Result<u64, ClientsError> {
    let wrong = || ClientsError::at(text, &moment.span(), ClientsProblem::Expires(*moment.get_ref()));
    // The text form is the one that RFC 3339 gives; without an offset it names no moment, and is refused.
    let stamp: jiff::Timestamp = moment.get_ref().to_string().parse().map_err(|_| wrong())?;
    Ok(u64::try_from(stamp.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const KEY_B: &str = "baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// One client with `more` in its entry.
    fn client(more: &str) -> String {
        format!("[[client]]\nkey = \"{KEY_A}\"\nname = \"a\"\nexports = [\"media\"]\n{more}\n")
    }

    fn only(text: &str) -> Access {
        let policy = parse(text).unwrap();
        assert_eq!(policy.clients.len(), 1);
        policy.clients[&KEY_A.parse().unwrap()].clone()
    }

    fn refused(text: &str) -> String {
        let error = parse(text).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }

    #[test]
    fn an_entry_says_what_a_client_may_do() {
        let text = format!(
            "# comment\n[[client]]\nkey = \"{KEY_A}\"\nname = \"edit-station\"\nexports = [\"media\", \"scratch\"]\n\
             rights = [\"read\", \"write\", \"lock\", \"grant\"]\nprotection = \"sealed\"\n\
             expires = 2027-01-31T01:00:00.9+01:00\n[[client]]\nkey = \"{KEY_B}\"\nname = \"b\"\nexports = []\n"
        );
        let policy = parse(&text).unwrap();
        let station = &policy.clients[&KEY_A.parse().unwrap()];
        let exports = ["media", "scratch"].map(|name| name.parse().unwrap());
        let expected = Access {
            name: "edit-station".to_owned(),
            exports: exports.into(),
            rights: Rights::READ.union(Rights::WRITE).union(Rights::LOCK).union(Rights::GRANT),
            protection_min: Protection::Sealed,
            expires_s: Some(1_801_353_600),
        };
        assert_eq!(*station, expected);
        assert_eq!(policy.clients[&KEY_B.parse().unwrap()].exports, BTreeSet::new());
    }

    #[test]
    fn what_is_left_out_is_the_least() {
        let access = only(&client(""));
        assert_eq!(access.rights, Rights::READ);
        assert_eq!(access.protection_min, Protection::Signed);
        assert_eq!(access.expires_s, None);
        assert_eq!(only(&client("protection = \"clear\"")).protection_min, Protection::Clear);
        assert_eq!(parse("").unwrap(), Policy::default());
        assert_eq!(parse("# nobody\n").unwrap(), Policy::default());
    }

    #[test]
    fn an_expiry_before_1970_is_long_over() {
        let access = only(&client("expires = 1969-12-31T23:59:59Z"));
        assert_eq!(access.expires_s, Some(0));
    }

    #[test]
    fn mistakes_are_refused_with_line_and_reason() {
        let double = format!("{}{}", client(""), client("").replace("\"a\"", "\"b\""));
        assert_eq!(refused(&double), "line 7: this key is that of the client \"a\" already");
        let double = format!("{}{}", client(""), client("").replace(KEY_A, KEY_B));
        assert_eq!(refused(&double), "line 8: there is a client \"a\" already");
        let cases = [
            (client("right = [\"read\"]"), 5, "unknown field `right`"),
            (
                client("rights = [\"read\", \"delete\"]"),
                5,
                "\"delete\" is no right: use \"read\", \"write\", \"append\"",
            ),
            (client("rights = [\"Read\"]"), 5, "\"Read\" is no right"),
            (
                client("rights = []"),
                5,
                "the rights of the client \"a\" need \"read\", \"write\" or \"append\"",
            ),
            (client("rights = [\"lock\", \"grant\"]"), 5, "need \"read\", \"write\" or \"append\""),
            (client("rights = \"read\""), 5, "invalid type: string"),
            (client("protection = \"none\""), 5, "\"none\" is no protection: use \"clear\", \"signed\""),
            (
                client("expires = 2027-01-31T00:00:00"),
                5,
                "2027-01-31T00:00:00 is no moment: write date, time",
            ),
            (client("expires = 2027-01-31"), 5, "2027-01-31 is no moment"),
            (client("expires = \"2027-01-31T00:00:00Z\""), 5, "invalid type: string"),
            (client("expires = 2027-02-30T00:00:00Z"), 5, ""),
            (client("name = \"b\""), 5, "duplicate key"),
            (client("x = "), 5, ""),
            (client("").replace(KEY_A, "abc"), 2, "\"abc\" is no client's key: a public key has 52"),
            (client("").replace(KEY_A, &KEY_A.to_uppercase()), 2, "is written with a-z and 2-7 only"),
            (client("").replace("\"a\"", "\"a\\nb\""), 3, "\"a\\nb\" is no client's name"),
            (client("").replace("\"a\"", "\"\""), 3, "\"\" is no client's name: use 1 to 64"),
            (
                client("").replace("\"media\"", "\"me/dia\""),
                4,
                "\"me/dia\" is no export's name: the name has",
            ),
            (client("").replace("\"media\"", "7"), 4, "invalid type: integer"),
            (client("").replace("exports", "#"), 1, "missing field `exports`"),
            ("client = 1".to_owned(), 1, "invalid type: integer"),
            ("[[clients]]".to_owned(), 1, "unknown field `clients`"),
            ("\n\n[".to_owned(), 3, ""),
        ];
        for (text, line, message) in cases {
            let error = refused(&text);
            assert!(
                error.starts_with(&format!("line {line}: ")) && error.contains(message),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_blank_file_is_no_list_and_a_comment_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        std::fs::write(&path, "").unwrap();
        assert_eq!(load_unless_blank(&path).unwrap(), None);
        std::fs::write(
            &path,
            "# nobody
",
        )
        .unwrap();
        assert_eq!(load_unless_blank(&path).unwrap(), Some(Policy::default()));
        std::fs::write(&path, "[").unwrap();
        assert!(load_unless_blank(&path).is_err());
    }

    #[test]
    fn a_file_is_named_in_its_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        std::fs::write(&path, client("rights = [\"read\", \"write\"]")).unwrap();
        assert_eq!(load(&path).unwrap().clients.len(), 1);
        std::fs::write(&path, client("rights = [\"rite\"]")).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: line 5: \"rite\" is no right", path.display())), "{error}");
    }
}
