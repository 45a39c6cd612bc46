//! The server: exports, file work, access rules.

pub mod clients;
pub mod exports;
pub mod files;

pub use clients::ClientsError;
pub use exports::{ExportError, Exports, OpenedFile};
pub use files::{CachedRead, Descriptor};
