//! What can be wrong with a key ring.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::Limits;
use crate::net::KeyFileError;

/// Why a key ring cannot be used. Nothing of its content is ever in the text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The folder of the rings cannot be used.
    #[error(transparent)]
    Folder(#[from] KeyFileError),
    /// The system refused something.
    #[error("cannot {what} the key ring {path:?}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The ring's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ring has no room for another open.
    #[error(
        "the key ring {path:?} is full with {max} opens or {len_max} bytes: close files that nobody needs, or open them with resumable(false)",
        max = Limits::RING_ENTRIES_MAX,
        len_max = Limits::RING_LEN_MAX
    )]
    Full {
        /// The ring's file.
        path: PathBuf,
    },
    /// It is a folder, a link, a pipe, a device or a socket.
    #[error("the key ring {path:?} is not a regular file: move it away")]
    NotRegular {
        /// The ring's file.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error("the key ring {path:?} belongs to user {owner}: it is left alone")]
    Owner {
        /// The ring's file.
        path: PathBuf,
        /// The number of the user that it belongs to.
        owner: u32,
    },
    /// Others than its owner can use it.
    #[error(
        "others can use the key ring {path:?} (its mode is {mode:04o}): if nobody has changed it, chmod 600 {}",
        path.display()
    )]
    Permissions {
        /// The ring's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not begin as a ring of this version does.
    #[error("the key ring {path:?} is none of this version: use the program that wrote it, or move it away")]
    Unknown {
        /// The ring's file.
        path: PathBuf,
    },
    /// It is longer than any ring.
    #[error("the key ring {path:?} has more than {max} bytes: move it away", max = Limits::RING_LEN_MAX)]
    TooLong {
        /// The ring's file.
        path: PathBuf,
    },
    /// A part of it is not what was written.
    #[error(
        "the key ring {path:?} is damaged: {lost} of its opens or more cannot be read, the others are used"
    )]
    Damaged {
        /// The ring's file.
        path: PathBuf,
        /// How many, as far as can be told.
        lost: usize,
    },
}
