//! Changes of the file system that were begun: what is recorded of each before it is made, so that it is known after a
//! crash of the server whether it was. protocol.md: What became of a request.

use serde::{Deserialize, Serialize};

use super::{
    CreateId, Epoch, ExportName, ExportPath, FileIdentity, LinkTarget, PublicKey, RenameHow, RequestId,
    SessionId,
};

/// A change that a client has asked for and that must not run twice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredIntent {
    /// Who asked.
    pub client: PublicKey,
    /// In which session.
    pub session: SessionId,
    /// Under which id.
    pub request: RequestId,
    /// In which life of the server.
    pub epoch: Epoch,
    /// What is to be changed, and how it looked before.
    pub change: IntendedChange,
    /// What came of it; none: nobody knows yet.
    pub outcome: Option<IntentOutcome>,
}

/// What is to be changed, and how it looked before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum IntendedChange {
    /// A file that must not have been there gets a name.
    Make {
        /// Where.
        at: IntendedName,
        /// The client's id of the open that it is made for.
        create_id: CreateId,
        /// The file, if it was made before it gets its name.
        file: Option<FileIdentity>,
    },
    /// A directory is made.
    MakeDirectory(IntendedName),
    /// A symbolic link is made.
    Symlink(IntendedName, LinkTarget),
    /// A file gets a further name.
    HardLink(IntendedName, FileIdentity),
    /// A name is removed.
    Remove(IntendedName),
    /// A name is changed.
    Rename {
        /// The name before.
        from: IntendedName,
        /// The name behind.
        to: IntendedName,
        /// What becomes of a target that is there.
        how: RenameHow,
    },
    /// A file is cut, or extended.
    SetLength {
        /// Where the file is.
        at: IntendedName,
        /// Its length before.
        from: u64,
        /// Its length behind.
        to: u64,
    },
    /// Bytes are written behind the last one of a file.
    Append {
        /// Where the file is.
        at: IntendedName,
        /// Its length before, so the place of the bytes.
        offset: u64,
        /// How many they are.
        len: u32,
        /// The hash of them.
        sum: [u8; 32],
    },
}

/// A name that a change is about, and what it stood for before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IntendedName {
    /// The export.
    pub export: ExportName,
    /// The path in it.
    pub path: ExportPath,
    /// What there was.
    pub before: NameState,
}

/// What a name stands for at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NameState {
    /// The directory of the name; none: there is no such directory.
    pub directory: Option<FileIdentity>,
    /// What it stands for, a link not followed; none: there is no such name.
    pub file: Option<FileIdentity>,
}

/// What came of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum IntentOutcome {
    /// It was made, or it was seen to have been made.
    Executed,
    /// Bytes were appended.
    Appended {
        /// Where they are.
        offset: u64,
        /// How many.
        written: u32,
    },
    /// It was not made, and will not be.
    NotExecuted,
    /// Nobody can tell.
    Unknown,
}

/// How the places of an intended change look when a server starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// What its names stand for, in their order; empty: it could not be found out.
    pub names: Vec<NameState>,
    /// Where the first name leads, if it is a symbolic link.
    pub target: Option<LinkTarget>,
    /// The length of the file, of changes of bytes.
    pub len: Option<u64>,
    /// The hash of what is where bytes were to be appended, as many as were to be.
    pub sum: Option<[u8; 32]>,
}

impl IntendedChange {
    /// The names that it is about.
    #[must_use]
    pub fn names(&self) -> Vec<&IntendedName> {
        match self {
            Self::Make { at, .. }
            | Self::MakeDirectory(at)
            | Self::Symlink(at, _)
            | Self::HardLink(at, _)
            | Self::Remove(at)
            | Self::SetLength { at, .. }
            | Self::Append { at, .. } => vec![at],
            Self::Rename { from, to, .. } => vec![from, to],
        }
    }
}
