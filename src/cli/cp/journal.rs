//! What of a file was copied when the program ended in the middle.
//!
//! One small file for each copy of a large file, in the user's state directory. It says which source was copied, up to
//! where its bytes are in the target's temporary file, and whose memory may still hold them: bytes that only memory had are
//! copied again when that memory is gone.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use blake2::{Blake2s256, Digest as _};
use serde::{Deserialize, Serialize};

use crate::cli::places::state_home;

/// Shortest file with a journal, in bytes: a shorter one is copied anew as fast as its journal is read.
pub(super) const LEN_MIN: u64 = 4 << 20;
/// Least progress between two entries, in bytes.
const STEP_MIN: u64 = 1 << 20;
/// Progress between two entries, as a part of the file: what is copied again is less than this, twice.
const STEP_PART: u64 = 512;

/// Which file was copied: another one is not to be mixed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) len: u64,
    pub(super) modified_ns: i64,
    pub(super) changed_ns: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    source: String,
    target: String,
    version: Version,
    /// What holds the target's bytes until they are synced: this machine since its start, or a server's.
    memory: String,
    /// Every byte before this one is in the temporary file, or in a hole.
    done: u64,
    /// Every byte before this one is on the target's disk.
    synced: u64,
}

/// The journal of one copy.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    entry: Entry,
    written: u64,
}

impl Journal {
    /// The journal of this copy, and how many bytes an earlier run has copied of the same version; `None` where there is
    /// no place for one.
    pub(super) fn open(
        source: String,
        target: String,
        version: Version,
        memory: String,
    ) -> Option<(Self, u64)> {
        let folder = state_home()?.join("bowline/copies");
        Self::open_in(&folder, Entry { source, target, version, memory, done: 0, synced: 0 })
    }

    fn open_in(folder: &Path, entry: Entry) -> Option<(Self, u64)> {
        std::fs::create_dir_all(folder).ok()?;
        let mut name = Blake2s256::new();
        for part in [&entry.source, &entry.target] {
            name.update(part.as_bytes());
            name.update([0]);
        }
        let name = data_encoding::HEXLOWER.encode(&name.finalize());
        let path = folder.join(format!("{}.json", name.get(..32)?));
        let earlier: Option<Entry> =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_same = |earlier: &Entry| {
            (&earlier.source, &earlier.target, &earlier.version)
                == (&entry.source, &entry.target, &entry.version)
        };
        let earlier = earlier.filter(is_same);
        let synced = earlier.as_ref().map_or(0, |earlier| earlier.synced);
        let done = match earlier {
            Some(earlier) if earlier.memory == entry.memory => earlier.done,
            Some(earlier) => earlier.synced,
            None => 0,
        };
        let entry = Entry { done, synced, ..entry };
        Some((Self { path, entry, written: done }, done))
    }

    /// Every byte before `done` is in the temporary file.
    pub(super) fn note(&mut self, done: u64) {
        let step = (self.entry.version.len / STEP_PART).max(STEP_MIN);
        self.entry.done = done;
        if done.saturating_sub(self.written) >= step {
            self.write();
        }
    }

    /// Every byte before `synced` is on the target's disk.
    pub(super) fn note_synced(&mut self, synced: u64) {
        self.entry.synced = synced;
        self.write();
    }

    /// The copy goes on from `done`. What an earlier run has noted beyond that holds no more, and is not to be found by a
    /// later one: so this comes before anything of the target is changed.
    ///
    /// # Errors
    /// What the system says, if the old entry can neither be replaced nor removed.
    pub(super) fn go_on_from(&mut self, done: u64) -> io::Result<()> {
        (self.entry.done, self.entry.synced) = (done, self.entry.synced.min(done));
        self.try_write().or_else(|_| match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// An entry that cannot be written costs what it would have saved, and nothing else: the one before says less.
    fn write(&mut self) {
        let _kept_as_it_was = self.try_write();
    }

    /// As a whole, so that a kill leaves the old entry or the new one.
    fn try_write(&mut self) -> io::Result<()> {
        let mut text = serde_json::to_vec(&self.entry)?;
        text.push(b'\n');
        let fresh = self.path.with_extension("new");
        std::fs::File::create(&fresh).and_then(|mut file| file.write_all(&text))?;
        std::fs::rename(&fresh, &self.path)?;
        self.written = self.entry.done;
        Ok(())
    }

    /// The copy is complete.
    pub(super) fn remove(self) {
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(len: u64, memory: &str) -> Entry {
        let version = Version { len, modified_ns: 1, changed_ns: 2 };
        let (source, target) = ("store:media/a".to_owned(), "/a".to_owned());
        Entry { source, target, version, memory: memory.to_owned(), done: 0, synced: 0 }
    }

    #[test]
    fn an_earlier_run_of_the_same_version_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let open = |len, memory| Journal::open_in(folder.path(), entry(len, memory)).unwrap();
        let len = 1 << 30;
        let (mut journal, done) = open(len, "boot 1");
        assert_eq!(done, 0);
        journal.note(1 << 20);
        // Less than the step is not worth an entry.
        assert_eq!(open(len, "boot 1").1, 0);
        journal.note(3 << 20);
        journal.note_synced(2 << 20);
        assert_eq!(open(len, "boot 1").1, 3 << 20);
        assert_eq!(open(len, "boot 2").1, 2 << 20, "what only memory had is gone");
        assert_eq!(open(len + 1, "boot 1").1, 0, "another version");
        // Another run begins anew, and is killed before it has got anywhere.
        let (mut again, _) = open(len, "boot 1");
        again.go_on_from(0).unwrap();
        assert_eq!(open(len, "boot 1").1, 0);
        assert_eq!(open(len, "boot 2").1, 0);
        journal.remove();
        assert_eq!(open(len, "boot 1").1, 0);
    }

    #[test]
    fn a_journal_that_is_none_is_as_good_as_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open_in(folder.path(), entry(1 << 30, "boot")).unwrap();
        journal.note(8 << 20);
        std::fs::write(&journal.path, b"{\"source\":").unwrap();
        assert_eq!(Journal::open_in(folder.path(), entry(1 << 30, "boot")).unwrap().1, 0);
    }
}
