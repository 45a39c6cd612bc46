//! Requests about names and what they stand for, and the lists that are their answers. Names exist on control
//! channels only. protocol.md: Control messages, Lists.
//!
//! Lists travel as payload, not as body: a page of a directory or an attribute's value may be longer than a body.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use super::control::Target;
use crate::model::{
    Attributes, ExportName, ExportPath, FileKind, FileName, LinkTarget, Removal, RenameHow, Space, XattrHow,
    XattrName,
};

/// A name in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The export.
    pub export: ExportName,
    /// The path in it; empty: its root.
    pub path: ExportPath,
}

/// Where a listing goes on: opaque to the client, and good for its own directory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cookie(pub [u8; Self::LEN]);

impl Cookie {
    /// Length in bytes.
    pub const LEN: usize = 24;
}

/// Tell what a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The name.
    pub place: Place,
    /// Whether a symbolic link in the last place is followed; links before it always are, beneath the export.
    pub follow: bool,
}

/// List a part of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The directory.
    pub place: Place,
    /// Where to go on; none: at the beginning.
    pub cookie: Option<Cookie>,
    /// Whether each entry comes with its attributes.
    pub with_attributes: bool,
}

/// Tell where a symbolic link leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLink {
    /// The link.
    pub place: Place,
}

/// Tell how full the file system of a name is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatSpace {
    /// Any name on it.
    pub place: Place,
}

/// Make a directory. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Its name to be.
    pub place: Place,
    /// Its permission bits; the server masks them.
    pub permissions: u32,
}

/// Remove a name. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The name.
    pub place: Place,
    /// What kind of name it must be.
    pub what: Removal,
}

/// Rename within an export. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The export.
    pub export: ExportName,
    /// The name.
    pub from: ExportPath,
    /// The name to be.
    pub to: ExportPath,
    /// What becomes of a target that is there.
    pub how: RenameHow,
}

/// Make a symbolic link. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symlink {
    /// Its name to be.
    pub place: Place,
    /// Where it leads, as it is written.
    pub target: LinkTarget,
}

/// Give a file a further name in its export. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardLink {
    /// The export.
    pub export: ExportName,
    /// A name that the file has; a symbolic link is not followed.
    pub from: ExportPath,
    /// Its further name.
    pub to: ExportPath,
}

/// Tell an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrGet {
    /// Of what.
    pub target: Target,
    /// Its name.
    pub name: XattrName,
}

/// Set an extended attribute to the payload. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrSet {
    /// Of what.
    pub target: Target,
    /// Its name.
    pub name: XattrName,
    /// Whether it may or must be there.
    pub how: XattrHow,
}

/// List the names of the extended attributes that are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrList {
    /// Of what.
    pub target: Target,
}

/// Remove an extended attribute. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrRemove {
    /// Of what.
    pub target: Target,
    /// Its name.
    pub name: XattrName,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its attributes.
    pub attributes: Attributes,
}

/// The payload is [`DirectoryEntry`]s, as [`encode_list`] writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where the listing goes on; none: it is complete.
    pub next: Option<Cookie>,
}

/// Where a symbolic link leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// As it is written.
    pub target: LinkTarget,
}

/// How full a file system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceStated {
    /// How full.
    pub space: Space,
}

/// The payload is the value; none: it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrValue {}

/// The payload is [`XattrName`]s, as [`encode_list`] writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrNames {}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The name.
    pub name: FileName,
    /// What it stands for; a symbolic link is one.
    pub kind: FileKind,
    /// Its attributes, where they were wanted and could be had.
    pub attributes: Option<Attributes>,
}

/// A value that stands in lists.
pub trait Listable: Serialize + serde::de::DeserializeOwned {}

impl Listable for DirectoryEntry {}
impl Listable for XattrName {}

/// Appends an element of a list to a payload: its encoding, as in bodies. A list is its elements, one behind the
/// other.
pub fn encode_list<T: Listable>(element: &T, to: &mut Vec<u8>) {
    codec::encode(element, to);
}

/// The elements of a payload.
///
/// # Errors
/// [`DecodeError::Malformed`] if anything in it is no element.
pub fn decode_list<T: Listable>(payload: &[u8]) -> Result<Vec<T>, DecodeError> {
    let mut rest = payload;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (element, used) = codec::decode_first(rest)?;
        elements.push(element);
        rest = rest.get(used..).filter(|_| used > 0).ok_or(DecodeError::Malformed)?;
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_elements_and_nothing_else() {
        let entry = |name: &str, attributes| DirectoryEntry {
            name: FileName::new(name).unwrap(),
            kind: FileKind::Symlink,
            attributes,
        };
        let entries = [entry("a", None), entry("b\n", Some(Attributes { len: 3, ..Attributes::default() }))];
        let mut payload = Vec::new();
        entries.iter().for_each(|entry| encode_list(entry, &mut payload));
        assert_eq!(decode_list::<DirectoryEntry>(&payload).unwrap(), entries);
        assert_eq!(decode_list::<DirectoryEntry>(&[]).unwrap(), []);
        let first = {
            let mut first = Vec::new();
            encode_list(&entries[0], &mut first);
            first.len()
        };
        for len in (1..payload.len()).filter(|&len| len != first) {
            assert!(decode_list::<DirectoryEntry>(&payload[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_hostile_list_is_refused() {
        for name in [&b".."[..], b"a/b", b"", b"a\0"] {
            let mut payload = Vec::new();
            codec::encode(&(name, FileKind::File, None::<Attributes>), &mut payload);
            assert_eq!(decode_list::<DirectoryEntry>(&payload), Err(DecodeError::Malformed), "{name:?}");
        }
        assert_eq!(decode_list::<XattrName>(&[0xff; 64]), Err(DecodeError::Malformed));
    }
}
