//! Names that come from outside: of exports and of files in them. Parsed once, here.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a name is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing was given.
    #[error("the name is empty")]
    Empty,
    /// More bytes than the limit.
    #[error("the name has more than {0} bytes")]
    TooLong(usize),
    /// A byte that no name may have.
    #[error("the name has a byte that is not allowed")]
    Byte,
    /// A component that is empty, `.` or `..`.
    #[error("the path has an empty component, \".\" or \"..\"")]
    Component,
}

/// The name under which a server exports a directory: 1 to 64 of `a-z A-Z 0-9 . _ -`, not starting with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportName(String);

impl ExportName {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExportName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::LEN_MAX {
            return Err(NameError::TooLong(Self::LEN_MAX));
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.starts_with('.') || !text.bytes().all(is_allowed) {
            return Err(NameError::Byte);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExportName({})", self.0)
    }
}

impl Serialize for ExportName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExportName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A file's path relative to its export's root: bytes, components separated by `/`, none of them empty, `.` or
/// `..`, none over 255 bytes, at most 4,095 bytes in all, no NUL.
///
/// Whether it leaves the export (through a symbolic link) is decided by the kernel when it is opened.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExportPath(Vec<u8>);

impl ExportPath {
    /// Longest path, in bytes.
    pub const LEN_MAX: usize = 4095;
    /// Longest component, in bytes.
    pub const COMPONENT_LEN_MAX: usize = 255;

    /// The path that `bytes` spell.
    ///
    /// # Errors
    /// [`NameError`] says which rule they break.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > Self::LEN_MAX {
            return Err(NameError::TooLong(Self::LEN_MAX));
        }
        if bytes.contains(&0) {
            return Err(NameError::Byte);
        }
        for component in bytes.split(|&byte| byte == b'/') {
            if matches!(component, b"" | b"." | b"..") {
                return Err(NameError::Component);
            }
            if component.len() > Self::COMPONENT_LEN_MAX {
                return Err(NameError::TooLong(Self::COMPONENT_LEN_MAX));
            }
        }
        Ok(Self(bytes))
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Prints no name: logs at every level show a path's length only. Use [`ExportPath::as_bytes`] to show one to
/// its own user.
impl fmt::Debug for ExportPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExportPath({} bytes)", self.0.len())
    }
}

impl Serialize for ExportPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExportPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<u8>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_names() {
        for good in ["a", "media", "A-1_b.c"] {
            assert_eq!(good.parse::<ExportName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".x", "a/b", "a b", "ä", "a\n"] {
            assert!(bad.parse::<ExportName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<ExportName>().is_ok());
        assert!("x".repeat(65).parse::<ExportName>().is_err());
    }

    #[test]
    fn paths_keep_bytes_and_refuse_what_climbs() {
        for good in [&b"a"[..], b"a/b", b"...", b"a\n\xff", b"CON", b"-rf"] {
            assert_eq!(ExportPath::new(good).unwrap().as_bytes(), good);
        }
        for bad in [&b""[..], b".", b"..", b"/a", b"a/", b"a//b", b"a/../b", b"a\0b", b"./a"] {
            assert!(ExportPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(ExportPath::new(vec![b'a'; 255]).is_ok());
        assert!(ExportPath::new(vec![b'a'; 256]).is_err());
        assert!(ExportPath::new(b"a/".repeat(2047).into_iter().chain([b'b']).collect::<Vec<_>>()).is_ok());
        assert!(ExportPath::new(b"a/".repeat(2048).into_iter().chain([b'b']).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn a_path_prints_redacted() {
        assert_eq!(format!("{:?}", ExportPath::new("secret/plan").unwrap()), "ExportPath(11 bytes)");
    }
}
