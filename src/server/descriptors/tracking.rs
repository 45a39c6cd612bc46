//! Following files whose names change: those that clients rename, those whose names they remove, and those that are
//! told from outside.

use std::sync::Arc;

use super::table::{Path, Slot};
use super::{Descriptors, SCAN};
use crate::model::{ExportName, ExportPath, OpenId, Reason, Refusal};
use crate::server::beneath::NameIn;

/// A name that is about to go. What is open there stays open, at least as long as this is there; for good if
/// [`Leaving::gone`] was called.
pub(in crate::server) struct Leaving<'a> {
    descriptors: &'a Descriptors,
    export: ExportName,
    path: Path,
    is_gone: bool,
}

impl Descriptors {
    /// Opens again everything that is open at a name, because it is about to be removed or to get another file; nothing
    /// of it is closed before the name is gone, or the removal given up. `asked` is the path by which the name was found.
    ///
    /// # Errors
    /// [`Reason::Exhausted`] if there is no place for so many descriptors that can never be closed.
    pub(in crate::server) fn keep_open(
        &self,
        export: &ExportName,
        name: &NameIn<'_>,
        asked: &ExportPath,
    ) -> Result<Leaving<'_>, Refusal> {
        let still = self.exports.still(export)?;
        let path = Path::from(self.exports.place_of(export, name, asked));
        let away = self.table().begin_going(export, &path).ok_or(Reason::Exhausted)?;
        drop(still);
        let leaving = Leaving { descriptors: self, export: export.clone(), path, is_gone: false };
        for open in away {
            // What is stale, or forbidden, cannot be helped by staying.
            if let Err(refusal @ Refusal { reason: Reason::Exhausted | Reason::Busy, .. }) = self.find(open) {
                return Err(refusal);
            }
        }
        Ok(leaving)
    }

    /// A client has renamed `from` to `to`, a file or a directory; and `to` to `from` if they were exchanged. Tells which
    /// opens' files have another path now. The caller keeps paths from being looked at meanwhile
    /// ([`Exports::moving`]).
    ///
    /// [`Exports::moving`]: crate::server::exports::Exports::moving
    pub(in crate::server) fn renamed(
        &self,
        export: &ExportName,
        from: &[u8],
        to: &[u8],
        is_exchange: bool,
    ) -> Vec<OpenId> {
        let (from, to) = (Path::from(from), Path::from(to));
        let back = if is_exchange { self.all_beneath(export, &to) } else { Vec::new() };
        let mut moved = self.move_all(&self.all_beneath(export, &from), &from, &to);
        moved.extend(self.move_all(&back, &to, &from));
        moved
    }

    /// Where an open's file is from now on, as somebody knows who has renamed it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a server that has taken opens over is told so of later renames")
    )]
    pub(in crate::server) fn set_path(&self, open: OpenId, path: &ExportPath) {
        self.set_path_of(open, Some(path.as_bytes().into()));
    }

    pub(super) fn set_path_of(&self, open: OpenId, path: Option<Path>) {
        let mut table = self.table();
        if let Some(slot) = table.slot_of(open) {
            table.set_path(slot, path);
        }
    }

    fn all_beneath(&self, export: &ExportName, path: &Path) -> Vec<(Path, Slot)> {
        let mut all = Vec::new();
        loop {
            let more = self.table().beneath(export, path, all.last(), SCAN);
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    fn move_all(&self, all: &[(Path, Slot)], from: &Path, to: &Path) -> Vec<OpenId> {
        let mut moved = Vec::with_capacity(all.len());
        for some in all.chunks(SCAN) {
            let mut table = self.table();
            for (path, slot) in some {
                let entry = table.entry(*slot).filter(|entry| entry.path() == Some(path));
                let Some(open) = entry.map(|entry| entry.open) else { continue };
                let rest = path.get(from.len()..).unwrap_or_default();
                let new = [to, rest].concat();
                // Too long a path leads nowhere: the file cannot be opened again by it.
                table.set_path(*slot, Some(Arc::from(new)));
                moved.push(open);
            }
        }
        moved
    }
}

impl Leaving<'_> {
    /// The path of the name.
    pub(in crate::server) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The name is gone, or another file's. There is no way back to what was open there: it is not closed before its
    /// opens end.
    pub(in crate::server) fn gone(mut self) {
        self.is_gone = true;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.descriptors.table().end_going(&self.export, &self.path, self.is_gone);
        self.descriptors.places.ring();
    }
}
