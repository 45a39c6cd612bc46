//! What tells after a crash whether a change was made, and files that are made before they have a name.
//!
//! It is looked for once, when a server starts and nobody is served yet, and by the paths that the records have: what a
//! program on the server has moved meanwhile is not found, and nothing is claimed of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use blake2::Blake2s256;
use blake2::digest::Digest as _;
use bytes::BytesMut;

use super::exports::{Exports, OpenedFile};
use super::names::state_of;
use crate::model::{
    Evidence, ExportName, IntendedChange, Limits, LinkTarget, OpenId, Reason, Refusal, Rights,
};

/// The hash of bytes that are to be appended.
pub(super) fn sum(bytes: &[u8]) -> [u8; 32] {
    Blake2s256::digest(bytes).into()
}

/// How the places of a change look now.
pub(super) fn collect(exports: &Exports, change: &IntendedChange) -> Evidence {
    find(exports, change).unwrap_or_else(|refusal| {
        tracing::warn!(%refusal, "what became of a change that was under way cannot be found out");
        Evidence::default()
    })
}

fn find(exports: &Exports, change: &IntendedChange) -> Result<Evidence, Refusal> {
    let names = change.names();
    let states = names.iter().map(|name| state_of(exports.root(&name.export)?, &name.path));
    let mut evidence = Evidence { names: states.collect::<Result<_, Refusal>>()?, ..Evidence::default() };
    match change {
        IntendedChange::Symlink(at, _) if evidence.names.first().is_some_and(|now| now.file.is_some()) => {
            evidence.target = link_target(exports, &at.export, at.path.as_bytes());
        }
        IntendedChange::SetLength { at, .. } => {
            evidence.len = Some(exports.open_file(&at.export, &at.path, Rights::READ)?.attributes.len);
        }
        IntendedChange::Append { at, offset, len, .. } => {
            let OpenedFile { file, attributes, .. } =
                exports.open_file(&at.export, &at.path, Rights::READ)?;
            evidence.len = Some(attributes.len);
            if attributes.len >= offset.saturating_add(u64::from(*len)) {
                let mut bytes = BytesMut::new();
                let len = usize::try_from(*len).unwrap_or(usize::MAX).min(Limits::PAYLOAD_LEN_MAX);
                bytes.reserve(len);
                file.read(*offset, u32::try_from(len).map_err(|_| Reason::Invalid)?, &mut bytes)?;
                evidence.sum = Some(sum(&bytes));
            }
        }
        _ => {}
    }
    Ok(evidence)
}

fn link_target(exports: &Exports, export: &ExportName, path: &[u8]) -> Option<LinkTarget> {
    let link = super::beneath::resolve_link(exports.root(export).ok()?, path).ok()?;
    let target = rustix::fs::readlinkat(&link, c"", Vec::new()).ok()?;
    LinkTarget::new(target.into_bytes()).ok()
}

/// Files that were made and have no name yet, under the opens that they are made for.
#[derive(Debug, Default)]
pub(super) struct Unnamed(Mutex<HashMap<OpenId, OpenedFile>>);

impl Unnamed {
    /// Keeps one.
    pub(super) fn put(&self, open: OpenId, file: OpenedFile) {
        self.files().insert(open, file);
    }

    /// The one of an open, if there is one: it is the caller's then.
    pub(super) fn take(&self, open: OpenId) -> Option<OpenedFile> {
        self.files().remove(&open)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<OpenId, OpenedFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
