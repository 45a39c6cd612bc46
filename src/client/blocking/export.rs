//! An export and a directory's listing, with calls that block.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::engine::Engine;
use super::file::File;
use crate::client::{self, DirEntry, Error, OpenOptions};
use crate::model::{Attributes, LinkTarget, SetTime, Space, XattrHow, XattrName};

/// As [`crate::client::Export`].
#[derive(Debug, Clone)]
pub struct Export {
    export: client::Export,
    engine: Arc<Engine>,
}

/// Calls of the async export, blocking.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $value:ty;)+) => {
        impl Export {
            $(
                #[doc = concat!("As [`crate::client::Export::", stringify!($name), "`].")]
                ///
                /// # Errors
                /// As there, and [`Error::InsideRuntime`].
                pub fn $name(&self, $($argument: $kind),*) -> Result<$value, Error> {
                    self.engine.run(self.export.$name($($argument),*))
                }
            )+
        }
    };
}

calls! {
    metadata(path: impl AsRef<[u8]>) -> Attributes;
    symlink_metadata(path: impl AsRef<[u8]>) -> Attributes;
    try_exists(path: impl AsRef<[u8]>) -> bool;
    create_dir(path: impl AsRef<[u8]>, permissions: u32) -> ();
    create_dir_all(path: impl AsRef<[u8]>, permissions: u32) -> ();
    remove_file(path: impl AsRef<[u8]>) -> ();
    remove_dir(path: impl AsRef<[u8]>) -> ();
    rename(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
    rename_no_replace(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> ();
    exchange(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> ();
    symlink(target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> ();
    hard_link(original: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> ();
    read_link(path: impl AsRef<[u8]>) -> LinkTarget;
    space(path: impl AsRef<[u8]>) -> Space;
    set_permissions(path: impl AsRef<[u8]>, permissions: u32) -> Attributes;
    set_times(path: impl AsRef<[u8]>, accessed: Option<SetTime>, modified: Option<SetTime>) -> Attributes;
    xattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Bytes;
    set_xattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, value: &[u8], how: XattrHow) -> ();
    xattr_names(path: impl AsRef<[u8]>) -> Vec<XattrName>;
    remove_xattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> ();
}

impl Export {
    pub(super) fn new(export: client::Export, engine: &Arc<Engine>) -> Self {
        Self { export, engine: Arc::clone(engine) }
    }

    /// As [`crate::client::Export::with_timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self::new(self.export.with_timeout(timeout), &self.engine)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.export.name()
    }

    /// As [`crate::client::Export::open`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn open(&self, path: impl AsRef<[u8]>, options: &OpenOptions) -> Result<File, Error> {
        Ok(File::new(self.engine.run(self.export.open(path, options))?, &self.engine))
    }

    /// As [`crate::client::Export::read_dir`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir, Error> {
        Ok(self.listing(self.engine.run(self.export.read_dir(path))?))
    }

    /// As [`crate::client::Export::read_dir_with_attributes`].
    ///
    /// # Errors
    /// As there, and [`Error::InsideRuntime`].
    pub fn read_dir_with_attributes(&self, path: impl AsRef<[u8]>) -> Result<ReadDir, Error> {
        Ok(self.listing(self.engine.run(self.export.read_dir_with_attributes(path))?))
    }

    fn listing(&self, listing: client::ReadDir) -> ReadDir {
        ReadDir { listing, engine: Arc::clone(&self.engine) }
    }
}

/// As [`crate::client::ReadDir`], as an iterator. After an error it is over; but one that is asked inside an async
/// runtime tells [`Error::InsideRuntime`] and goes on elsewhere.
#[derive(Debug)]
pub struct ReadDir {
    listing: client::ReadDir,
    engine: Arc<Engine>,
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.engine.run(self.listing.next_entry()).transpose()
    }
}
