//! Names that come from outside: of exports and of files in them. Parsed once, here.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

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
///
/// A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportName(Arc<str>);

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
        Ok(Self(text.into()))
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

/// A path relative to its export's root: bytes, components separated by `/`, none of them empty, `.` or
/// `..`, none over 255 bytes, at most 4,095 bytes in all, no NUL. The path of no bytes is the root itself.
///
/// Whether it leaves the export (through a symbolic link) is decided by the kernel when it is opened.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExportPath(Vec<u8>);

impl ExportPath {
    /// Longest path, in bytes.
    pub const LEN_MAX: usize = 4095;
    /// Longest component, in bytes.
    pub const COMPONENT_LEN_MAX: usize = FileName::LEN_MAX;
    /// The export's root.
    pub const ROOT: Self = Self(Vec::new());

    /// The path that `bytes` spell.
    ///
    /// # Errors
    /// [`NameError`] says which rule they break.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(Self::ROOT);
        }
        if bytes.len() > Self::LEN_MAX {
            return Err(NameError::TooLong(Self::LEN_MAX));
        }
        if bytes.contains(&0) {
            return Err(NameError::Byte);
        }
        bytes.split(|&byte| byte == b'/').try_for_each(check_component)?;
        Ok(Self(bytes))
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the export's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Where this path is after `from` was renamed to `to`; `None` if it is not affected, or would be no path.
    #[must_use]
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(from.0.as_slice())?;
        if from.is_root() || to.is_root() || !(rest.is_empty() || rest.starts_with(b"/")) {
            return None;
        }
        Self::new([to.0.as_slice(), rest].concat()).ok()
    }

    /// The path of the directory, empty for the root, and the name in it; `None` for the root itself.
    #[must_use]
    pub fn split_last(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => Some((self.0.get(..at)?, self.0.get(at.checked_add(1)?..)?)),
            None => Some((&[], &self.0)),
        }
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// [`NameError::TooLong`].
    pub fn join(&self, name: &FileName) -> Result<Self, NameError> {
        let mut bytes = self.0.clone();
        if !self.is_root() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
        Self::new(bytes)
    }
}

/// One component of a path: 1 to 255 bytes, without `/` and NUL, neither `.` nor `..`. Any other byte is kept as it
/// is, whether it is valid UTF-8 or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Vec<u8>);

impl FileName {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 255;

    /// The name that `bytes` spell.
    ///
    /// # Errors
    /// [`NameError`] says which rule they break.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        if bytes.contains(&0) || bytes.contains(&b'/') {
            return Err(NameError::Byte);
        }
        check_component(&bytes)?;
        Ok(Self(bytes))
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_component(component: &[u8]) -> Result<(), NameError> {
    if matches!(component, b"" | b"." | b"..") {
        return Err(NameError::Component);
    }
    if component.len() > FileName::LEN_MAX {
        return Err(NameError::TooLong(FileName::LEN_MAX));
    }
    Ok(())
}

/// Prints no name, as [`ExportPath`] prints none.
impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileName({} bytes)", self.0.len())
    }
}

impl Serialize for FileName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<u8>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Where a symbolic link leads, as it is written: 1 to 4,095 bytes without NUL. It may be absolute or climb; whether
/// it is followed is decided when something resolves a path through it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LinkTarget(Vec<u8>);

impl LinkTarget {
    /// Longest target, in bytes.
    pub const LEN_MAX: usize = 4095;

    /// The target that `bytes` spell.
    ///
    /// # Errors
    /// [`NameError`] says which rule they break.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(NameError::Empty),
            len if len > Self::LEN_MAX => Err(NameError::TooLong(Self::LEN_MAX)),
            _ if bytes.contains(&0) => Err(NameError::Byte),
            _ => Ok(Self(bytes)),
        }
    }

    /// The target's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Prints no name, as [`ExportPath`] prints none.
impl fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkTarget({} bytes)", self.0.len())
    }
}

impl Serialize for LinkTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LinkTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<u8>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The name of an extended attribute of the `user.` namespace, with the prefix: no other namespace is served. At
/// most 255 bytes, no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct XattrName(Vec<u8>);

impl XattrName {
    /// Longest name, in bytes, as in Linux.
    pub const LEN_MAX: usize = 255;
    /// What every name begins with.
    pub const PREFIX: &'static [u8] = b"user.";

    /// The name that `bytes` spell. Only its form is checked; one that is too long for the file system is refused by
    /// it.
    ///
    /// # Errors
    /// [`NameError::Byte`] with a NUL or another namespace; [`NameError::Empty`] without anything after the prefix;
    /// [`NameError::TooLong`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        match bytes.strip_prefix(Self::PREFIX) {
            None => Err(NameError::Byte),
            Some([]) => Err(NameError::Empty),
            Some(_) if bytes.contains(&0) => Err(NameError::Byte),
            Some(_) if bytes.len() > Self::LEN_MAX => Err(NameError::TooLong(Self::LEN_MAX)),
            Some(_) => Ok(Self(bytes)),
        }
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for XattrName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for XattrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<u8>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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
        assert!(ExportPath::new("").unwrap().is_root());
        for bad in [&b"."[..], b"..", b"/a", b"a/", b"a//b", b"a/../b", b"a\0b", b"./a"] {
            assert!(ExportPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(ExportPath::new(vec![b'a'; 255]).is_ok());
        assert!(ExportPath::new(vec![b'a'; 256]).is_err());
        assert!(ExportPath::new(b"a/".repeat(2047).into_iter().chain([b'b']).collect::<Vec<_>>()).is_ok());
        assert!(ExportPath::new(b"a/".repeat(2048).into_iter().chain([b'b']).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        let split = |path: &str| {
            let path = ExportPath::new(path).unwrap();
            path.split_last().map(|(folder, name)| (folder.to_vec(), name.to_vec()))
        };
        assert_eq!(split("a"), Some((b"".to_vec(), b"a".to_vec())));
        assert_eq!(split("a/b/c"), Some((b"a/b".to_vec(), b"c".to_vec())));
        assert_eq!(split(""), None);
        let name = FileName::new("c\u{ff}").unwrap();
        assert_eq!(ExportPath::ROOT.join(&name).unwrap().as_bytes(), name.as_bytes());
        assert_eq!(ExportPath::new("a").unwrap().join(&name).unwrap().as_bytes(), "a/c\u{ff}".as_bytes());
    }

    #[test]
    fn names_targets_and_attributes_keep_to_their_rules() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b"\xff\n", b"CON"] {
            assert_eq!(FileName::new(good).unwrap().as_bytes(), good);
        }
        assert!(LinkTarget::new("../../etc/passwd").is_ok() && LinkTarget::new("/").is_ok());
        assert!(LinkTarget::new("").is_err() && LinkTarget::new(vec![b'a'; 4096]).is_err());
        for bad in ["", "user.", "a", "trusted.a", "security.selinux", "system.posix_acl_access", "user.a\0"]
        {
            assert!(XattrName::new(bad).is_err(), "{bad:?}");
        }
        assert!(XattrName::new("user.a").is_ok());
    }

    #[test]
    fn a_path_prints_redacted() {
        assert_eq!(format!("{:?}", ExportPath::new("secret/plan").unwrap()), "ExportPath(11 bytes)");
    }
}
