//! How a file is to be opened.

use std::time::Duration;

use super::error::OptionsError;
use crate::model::{
    ByteRange, Create, CreateId, ExportName, ExportPath, LineSet, LockMode, OpenMode, Rights, ShareMode,
};
use crate::wire::control::{LockWanted, Open};

/// How a file is to be opened, with the rules of [`std::fs::OpenOptions`]: `truncate`, `create` and `create_new` need
/// `write` or `append`; `append` and `truncate` exclude each other; with `create_new` neither `create` nor `truncate`
/// matters.
///
/// ```
/// use bowline::client::OpenOptions;
/// use bowline::model::{ByteRange, LockMode};
///
/// let first_page = ByteRange::between(0, 4096).unwrap();
/// let options = OpenOptions::new().read(true).write(true).create(true).lock(first_page, LockMode::Exclusive);
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    permissions: u32,
    share: ShareMode,
    lock: Option<LockWanted>,
    resumable: bool,
    with_key: bool,
    grace: Duration,
    guard: bool,
    pub(super) lines: LineSet,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Neither read nor write; the file must be there; others may do what they like; the open can be resumed, and its
    /// resume key comes with it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            permissions: PERMISSIONS,
            share: ShareMode::ALL,
            lock: None,
            resumable: true,
            with_key: true,
            grace: Duration::ZERO,
            guard: false,
            lines: LineSet::ALL,
        }
    }

    /// Whether to read.
    #[must_use]
    pub fn read(self, read: bool) -> Self {
        Self { read, ..self }
    }

    /// Whether to write.
    #[must_use]
    pub fn write(self, write: bool) -> Self {
        Self { write, ..self }
    }

    /// Whether to write at the end of the file, wherever it is: [`File::append`](super::File::append) and the writes
    /// of streams, each at one stroke on the server. Without [`write`](Self::write) the handle can write nowhere else.
    #[must_use]
    pub fn append(self, append: bool) -> Self {
        Self { append, ..self }
    }

    /// Whether the file is cut to no bytes.
    #[must_use]
    pub fn truncate(self, truncate: bool) -> Self {
        Self { truncate, ..self }
    }

    /// Whether the file is made if it is not there.
    #[must_use]
    pub fn create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Whether the file is made and must not be there before, in no form, not even as a symbolic link.
    #[must_use]
    pub fn create_new(self, create_new: bool) -> Self {
        Self { create_new, ..self }
    }

    /// Permission bits of a file that is made; 0o666 by default. The server masks them.
    #[must_use]
    pub fn mode(self, permissions: u32) -> Self {
        Self { permissions, ..self }
    }

    /// What others may do with the file while it is open; everything by default.
    #[must_use]
    pub fn share(self, share: ShareMode) -> Self {
        Self { share, ..self }
    }

    /// Keeps everybody out but this handle and its duplicates.
    #[must_use]
    pub fn exclusive(self) -> Self {
        self.share(ShareMode::NONE)
    }

    /// Locks a range with the open: either both succeed or neither. Nothing is waited for.
    #[must_use]
    pub fn lock(self, range: ByteRange, mode: LockMode) -> Self {
        Self { lock: Some(LockWanted { mode, range: range.raw() }), ..self }
    }

    /// Whether the open can be resumed with a key after its session is gone; it can by default. One that cannot ends
    /// with its session, and does not come back when the server has forgotten that.
    #[must_use]
    pub fn resumable(self, resumable: bool) -> Self {
        Self { resumable, ..self }
    }

    /// Whether a resume key is to come with the open; one does by default if the open is resumable. Without one,
    /// [`File::resume_key`](super::File::resume_key) asks for it; until it has, the file does not come back when the
    /// server has forgotten the session.
    #[must_use]
    pub fn with_key(self, with_key: bool) -> Self {
        Self { with_key, ..self }
    }

    /// How long the server is to keep the open when no channel reaches it; zero: the server's default. The server
    /// has an upper limit. To the millisecond.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Whether the server keeps everybody out while no channel reaches the open, until its grace is over: also those
    /// whom its share mode would let in. Nobody is by default but who conflicts with it. It needs an open that is
    /// [`resumable`](Self::resumable): without, the server refuses it as invalid.
    #[must_use]
    pub fn guard(self, guard: bool) -> Self {
        Self { guard, ..self }
    }

    /// The lines that the handle's reads and writes may use; all of them by default.
    #[must_use]
    pub fn lines(self, lines: LineSet) -> Self {
        Self { lines, ..self }
    }

    /// The request that says all this.
    pub(super) fn request(
        &self,
        export: ExportName,
        path: ExportPath,
        create_id: CreateId,
    ) -> Result<Open, OptionsError> {
        let (create, truncate) = self.creation()?;
        Ok(Open {
            export,
            path,
            mode: OpenMode { rights: self.rights()?, share: self.share },
            create,
            truncate,
            permissions: self.permissions,
            lock: self.lock,
            resumable: self.resumable,
            create_id,
            with_key: self.with_key && self.resumable,
            grace_ms: millis(self.grace),
            guard: self.guard,
        })
    }

    fn rights(&self) -> Result<Rights, OptionsError> {
        let asked = [(self.read, Rights::READ), (self.write, Rights::WRITE), (self.append, Rights::APPEND)];
        let rights =
            asked.into_iter().filter(|(on, _)| *on).fold(Rights::NONE, |all, (_, one)| all.union(one));
        if rights == Rights::NONE { Err(OptionsError::NoAccess) } else { Ok(rights) }
    }

    /// Whether the file is made, and whether it is cut.
    fn creation(&self) -> Result<(Create, bool), OptionsError> {
        self.rights()?;
        if !(self.write || self.append) && (self.truncate || self.create || self.create_new) {
            return Err(OptionsError::NotWriting);
        }
        if self.append && self.truncate && !self.create_new {
            return Err(OptionsError::AppendAndTruncate);
        }
        Ok(match (self.create_new, self.create) {
            // There is nothing to cut.
            (true, _) => (Create::New, false),
            (false, true) => (Create::IfMissing, self.truncate),
            (false, false) => (Create::Never, self.truncate),
        })
    }
}

/// A span as the wire has it.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Permission bits of a file that is made, before the server's mask, as everywhere.
const PERMISSIONS: u32 = 0o666;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn request(options: &OpenOptions) -> Result<Open, OptionsError> {
        options.request("data".parse().unwrap(), ExportPath::new("a").unwrap(), CreateId([0; 16]))
    }

    fn of(bits: u32) -> (OpenOptions, std::fs::OpenOptions) {
        let bit = |at: u32| bits & (1 << at) != 0;
        let ours = OpenOptions::new()
            .read(bit(0))
            .write(bit(1))
            .append(bit(2))
            .truncate(bit(3))
            .create(bit(4))
            .create_new(bit(5));
        let mut theirs = std::fs::OpenOptions::new();
        theirs.read(bit(0)).write(bit(1)).append(bit(2)).truncate(bit(3)).create(bit(4)).create_new(bit(5));
        (ours, theirs)
    }

    /// The standard library is asked about each of the 64 combinations, with a file that is there and one that is not.
    #[test]
    fn the_rules_are_those_of_the_standard_library() {
        let folder = tempfile::tempdir().unwrap();
        for bits in 0..64 {
            let (ours, theirs) = of(bits);
            let path = folder.path().join(format!("{bits}"));
            std::fs::write(&path, "old").unwrap();
            let there = theirs.open(&path);
            let missing = folder.path().join(format!("{bits} missing"));
            let made = theirs.open(&missing);
            let is_invalid = |opened: &std::io::Result<std::fs::File>| {
                opened.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::InvalidInput)
            };
            let Ok(open) = request(&ours) else {
                assert!(is_invalid(&there) && is_invalid(&made), "{ours:?}");
                continue;
            };
            assert!(!is_invalid(&there), "{ours:?}");
            assert_eq!(open.create == Create::New, there.is_err(), "{ours:?}");
            assert_eq!(open.create != Create::Never, made.is_ok(), "{ours:?}");
            let len = std::fs::metadata(&path).unwrap().len();
            assert_eq!(open.truncate, len == 0, "{ours:?}");
            if let Ok(file) = there {
                let flags = rustix::fs::fcntl_getfl(file.as_fd()).unwrap();
                let can = flags & rustix::fs::OFlags::RWMODE;
                let reads = can != rustix::fs::OFlags::WRONLY;
                assert_eq!(open.mode.rights.contains(Rights::READ), reads, "{ours:?}");
                assert_eq!(open.mode.rights.is_writing(), can != rustix::fs::OFlags::RDONLY, "{ours:?}");
            }
        }
    }

    #[test]
    fn what_contradicts_itself_says_how() {
        for (options, error) in [
            (OpenOptions::new(), OptionsError::NoAccess),
            (OpenOptions::new().create(true), OptionsError::NoAccess),
            (OpenOptions::new().read(true).create(true), OptionsError::NotWriting),
            (OpenOptions::new().append(true).truncate(true), OptionsError::AppendAndTruncate),
        ] {
            assert_eq!(request(&options).unwrap_err(), error, "{options:?}");
        }
    }

    #[test]
    fn the_defaults_are_open_to_others_and_resumable() {
        let open = request(&OpenOptions::new().read(true)).unwrap();
        assert_eq!(open.mode, OpenMode::READ);
        assert_eq!((open.create, open.truncate, open.permissions), (Create::Never, false, 0o666));
        assert!(open.resumable && open.with_key && open.lock.is_none());
        assert_eq!(open.grace_ms, 0, "the server's default");
        assert!(!open.guard);
    }

    #[test]
    fn an_open_that_cannot_be_resumed_asks_for_no_key() {
        let open = request(&OpenOptions::new().read(true).resumable(false)).unwrap();
        assert!(!open.resumable && !open.with_key);
    }

    #[test]
    fn a_guard_is_asked_for() {
        assert!(request(&OpenOptions::new().read(true).guard(true)).unwrap().guard);
    }

    #[test]
    fn append_asks_for_append_and_keeps_write() {
        let rights = |options: OpenOptions| request(&options).unwrap().mode.rights;
        assert_eq!(rights(OpenOptions::new().append(true)), Rights::APPEND);
        let both = rights(OpenOptions::new().append(true).write(true));
        assert_eq!(both, Rights::APPEND.union(Rights::WRITE));
    }

    #[test]
    fn a_lock_goes_with_the_open() {
        let range = ByteRange::between(4, 8).unwrap();
        let options = OpenOptions::new().read(true).exclusive().lock(range, LockMode::Shared);
        let open = request(&options.grace(Duration::MAX)).unwrap();
        assert!(open.mode.is_exclusive());
        assert_eq!(open.lock, Some(LockWanted { mode: LockMode::Shared, range: range.raw() }));
        assert_eq!(open.grace_ms, u64::MAX);
    }
}
