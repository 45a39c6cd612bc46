//! An open file of a client: positional reads and writes over all lines of its session, and its resume key.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::Error;
use super::session::{Guard, Pending, Session};
use crate::model::{
    CreateId, Entropy as _, ExportPath, FileState, HandleId, LineSet, OpenMode, Reason, ResumeKey, Rights,
    ShareMode, SyncScope, Time, len_u64,
};
use crate::net::SystemEntropy;
use crate::session::client::{Answer, Operation};
use crate::wire::ServerControl;
use crate::wire::control::{Close, IssueKey, Open, Opened, Resume, Stat, Sync};
use crate::wire::data::{Read, Write};
use bytes::Bytes;

/// How a file is to be opened. Without [`read`](Self::read) or [`write`](Self::write) an open is refused.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    mode: OpenMode,
    lines: LineSet,
    with_key: bool,
    grace: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Neither read nor write; others may do what they like; a resume key comes with the open.
    #[must_use]
    pub fn new() -> Self {
        let mode = OpenMode { rights: Rights::NONE, share: ShareMode::ALL };
        Self { mode, lines: LineSet::ALL, with_key: true, grace: Duration::ZERO }
    }

    /// Whether to read.
    #[must_use]
    pub fn read(mut self, read: bool) -> Self {
        self.set(Rights::READ, read);
        self
    }

    /// Whether to write.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.set(Rights::WRITE, write);
        self
    }

    /// What others may do with the file while it is open.
    #[must_use]
    pub fn share(mut self, share: ShareMode) -> Self {
        self.mode.share = share;
        self
    }

    /// Keeps everybody out but this handle and its duplicates.
    #[must_use]
    pub fn exclusive(self) -> Self {
        self.share(ShareMode::NONE)
    }

    /// The lines that the handle's reads and writes may use; all of them by default.
    #[must_use]
    pub fn lines(mut self, lines: LineSet) -> Self {
        self.lines = lines;
        self
    }

    /// Whether a resume key is to come with the open. Without one, [`File::resume_key`] asks for it.
    #[must_use]
    pub fn with_key(mut self, with_key: bool) -> Self {
        self.with_key = with_key;
        self
    }

    /// How long the server is to keep the open when no channel reaches it; zero: the server's default. The server
    /// has an upper limit. To the millisecond.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    fn set(&mut self, right: Rights, on: bool) {
        let others = if right == Rights::READ { Rights::WRITE } else { Rights::READ };
        let kept = self.mode.rights.intersection(others);
        self.mode.rights = if on { kept.union(right) } else { kept };
    }
}

impl Session {
    /// Opens a file of an export. The request travels on a control channel, encrypted.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NotFound`], [`Reason::PermissionDenied`], [`Reason::Busy`] (another client
    /// keeps the file) and others; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave the file open on the server until the session ends.
    pub async fn open(
        &self,
        export: &str,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<File, Error> {
        let open = Open {
            export: export.parse().map_err(|_| refused(Reason::NotFound))?,
            path: ExportPath::new(path.as_ref()).map_err(|_| refused(Reason::Invalid))?,
            mode: options.mode,
            create_id: CreateId(SystemEntropy.bytes()?),
            with_key: options.with_key,
            grace_ms: u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = self.guard().control(open.into()).await?;
        File::from_answer(self, answer, options.lines)
    }

    /// Gets a duplicate handle with a resume key: the same open file, the same rights. The request travels on a
    /// control channel, encrypted; the handle's reads and writes use `lines`.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::ResumeRefused`] for every cause that lies in the key, the identity or the
    /// open; [`Error::TimedOut`]; [`Error::SessionEnded`]. A failed resume changes nothing.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a handle on the server until the session ends.
    pub async fn resume(&self, key: &ResumeKey, lines: LineSet) -> Result<File, Error> {
        self.resume_from(key, None, lines).await
    }

    /// As [`Session::resume`], in place of an earlier handle of the same open, of this session or of one that was
    /// lost: nothing of `predecessor` ([`File::handle`]) executes any more when the new handle is there, and none of
    /// its late writes can follow. For going on after an outage.
    ///
    /// # Errors
    /// As [`Session::resume`]; also where `predecessor` belongs to another open.
    ///
    /// # Cancel safety
    /// As [`Session::resume`].
    pub async fn resume_in_place_of(
        &self,
        predecessor: HandleId,
        key: &ResumeKey,
        lines: LineSet,
    ) -> Result<File, Error> {
        self.resume_from(key, Some(predecessor), lines).await
    }

    async fn resume_from(
        &self,
        key: &ResumeKey,
        predecessor: Option<HandleId>,
        lines: LineSet,
    ) -> Result<File, Error> {
        let resume = Resume { key: key.clone(), predecessor, with_key: true };
        let answer = self.guard().control(resume.into()).await?;
        File::from_answer(self, answer, lines)
    }
}

/// A handle of an open file. All methods take `&self`: any number of reads and writes can be under way at once.
///
/// Dropping a `File` closes its handle without waiting; [`File::close`] waits and reports errors;
/// [`File::leave_open`] gives up the handle and keeps the file open on the server.
#[derive(Debug)]
pub struct File {
    guard: Arc<Guard>,
    handle: HandleId,
    lines: LineSet,
    state: Mutex<FileState>,
    key: Mutex<Option<ResumeKey>>,
    is_closed: AtomicBool,
}

impl File {
    /// The file's state as the server told it last: the mode in which it is open, this handle's rights, size and
    /// times.
    #[must_use]
    pub fn state(&self) -> FileState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle's number, which names it to [`Session::resume_in_place_of`]. It grants nothing.
    #[must_use]
    pub fn handle(&self) -> HandleId {
        self.handle
    }

    /// Reads into `into`, from `offset` on, over all lines that the handle may use. Tells how many bytes were
    /// read: fewer than `into` has only at the end of the file.
    ///
    /// Bytes are copied into `into` once they are verified; what lies behind the returned count is unchanged.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; `into` may have been filled in part.
    pub async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, Error> {
        let (chunk, deadline) = (self.chunk_len(), self.guard.deadline());
        let mut begun = VecDeque::new();
        let mut at = offset;
        for part in into.chunks(chunk) {
            begun.push_back(self.begin_read(at, part.len()));
            at = at.saturating_add(len_u64(part.len()));
        }
        let mut read = 0_usize;
        for part in into.chunks_mut(chunk) {
            let Some(mut pending) = begun.pop_front() else { break };
            let bytes = finish_read(&mut pending, deadline).await?;
            let len = bytes.len().min(part.len());
            if let (Some(to), Some(from)) = (part.get_mut(..len), bytes.get(..len)) {
                to.copy_from_slice(from);
            }
            read = read.saturating_add(len);
            if len < part.len() {
                break;
            }
        }
        Ok(read)
    }

    /// Reads at most `len` bytes from `offset` on, and no more than one chunk ([`Limits::chunk`]); empty at the end
    /// of the file. The bytes are those that came off the wire, without a copy.
    ///
    /// # Errors
    /// As [`File::read_at`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// [`Limits::chunk`]: crate::model::Limits::chunk
    pub async fn read_chunk(&self, offset: u64, len: usize) -> Result<Bytes, Error> {
        let mut pending = self.begin_read(offset, len.min(self.chunk_len()));
        finish_read(&mut pending, self.guard.deadline()).await
    }

    /// Reads from `offset` to the end of the file (or to `end`), in order, with many chunks under way on all lines.
    #[must_use]
    pub fn read_ahead(&self, offset: u64, end: Option<u64>) -> ReadAhead<'_> {
        ReadAhead {
            file: self,
            next: offset,
            end: end.unwrap_or(u64::MAX),
            begun: VecDeque::new(),
            is_done: false,
        }
    }

    /// Writes all of `bytes` at `offset`, over all lines that the handle may use. When it returns, the server has
    /// the bytes; [`File::sync`] makes them durable.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Reason::NoSpace`] if the file system took only a part; [`Error::TimedOut`];
    /// [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open which parts are written. As after [`Error::TimedOut`], parts that were sent
    /// may still be executed later, also behind newer writes to the same bytes; parts that were not are withdrawn.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write_bytes_at(offset, Bytes::copy_from_slice(bytes)).await
    }

    /// As [`File::write_at`], without a copy of the bytes.
    ///
    /// # Errors
    /// As [`File::write_at`].
    ///
    /// # Cancel safety
    /// As [`File::write_at`].
    pub async fn write_bytes_at(&self, offset: u64, bytes: Bytes) -> Result<(), Error> {
        let mut rest = bytes;
        let mut at = offset;
        let (mut begun, deadline) = (Vec::new(), self.guard.deadline());
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(self.chunk_len()));
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let write = Write { handle: self.handle, offset: at };
            at = at.saturating_add(u64::from(len));
            begun.push((len, self.guard.begin(Operation::Write(write, part, len), self.lines)));
        }
        // Every part is waited for within the time, so that as little as possible is under way when an error is told.
        let mut outcome = Ok(());
        for (len, mut pending) in begun {
            let written = match pending.outcome(deadline).await {
                Ok(Answer::Written(done)) if done.written == len => Ok(()),
                Ok(Answer::Written(_)) => Err(refused(Reason::NoSpace)),
                Ok(_) => Err(Error::Protocol),
                Err(error) => Err(error),
            };
            outcome = outcome.and(written);
        }
        outcome
    }

    /// Makes everything durable that was written before: bytes and size, or all attributes as well.
    ///
    /// # Errors
    /// [`Error::Refused`] if the server's file system failed; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; the sync may happen all the same.
    pub async fn sync(&self, scope: SyncScope) -> Result<(), Error> {
        match self.guard.control(Sync { handle: self.handle, scope }.into()).await? {
            ServerControl::Synced(_) => Ok(()),
            _ => Err(Error::Protocol),
        }
    }

    /// Asks the server for the file's state.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stat(&self) -> Result<FileState, Error> {
        match self.guard.control(Stat { handle: self.handle }.into()).await? {
            ServerControl::Stated(stated) => {
                *self.state.lock().unwrap_or_else(PoisonError::into_inner) = stated.state;
                Ok(stated.state)
            }
            _ => Err(Error::Protocol),
        }
    }

    /// The resume key of this handle: the one that came with it, or a new one from the server.
    ///
    /// Treat it as a secret: with this client's identity it opens the file. Its text form is
    /// [`ResumeKey::to_text`].
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn resume_key(&self) -> Result<ResumeKey, Error> {
        if let Some(key) = self.kept_key() {
            return Ok(key);
        }
        // An answer that was repeated bears no key; ask again under a new id.
        for _ in 0..KEY_ATTEMPTS {
            match self.guard.control(IssueKey { handle: self.handle }.into()).await? {
                ServerControl::KeyIssued(issued) => {
                    if let Some(key) = &issued.key {
                        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
                        return Ok(key.clone());
                    }
                }
                _ => return Err(Error::Protocol),
            }
        }
        Err(refused(Reason::Unknown))
    }

    /// The resume key that is at hand without asking the server.
    #[must_use]
    pub fn kept_key(&self) -> Option<ResumeKey> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the handle and waits until nothing of it is under way on the server.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// The handle is given up from the first poll on.
    pub async fn close(self) -> Result<(), Error> {
        self.is_closed.store(true, Ordering::Relaxed);
        match self.guard.control(Close { handle: self.handle }.into()).await? {
            ServerControl::Closed(_) => Ok(()),
            _ => Err(Error::Protocol),
        }
    }

    /// Gives the handle up without closing it: the file stays open on the server while the session lasts and for
    /// its grace after that. [`File::resume_key`] gets the way back, before.
    pub fn leave_open(self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn from_answer(session: &Session, answer: ServerControl, lines: LineSet) -> Result<Self, Error> {
        let ServerControl::Opened(Opened { handle, state, key }) = answer else {
            return Err(Error::Protocol);
        };
        Ok(Self {
            guard: Arc::clone(session.guard()),
            handle,
            lines,
            state: Mutex::new(state),
            key: Mutex::new(key),
            is_closed: AtomicBool::new(false),
        })
    }

    fn chunk_len(&self) -> usize {
        usize::try_from(self.guard.limits().chunk).unwrap_or(usize::MAX).max(1)
    }

    fn begin_read(&self, offset: u64, len: usize) -> Pending {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.guard.begin(Operation::Read(Read { handle: self.handle, offset, len }), self.lines)
    }
}

async fn finish_read(pending: &mut Pending, deadline: Time) -> Result<Bytes, Error> {
    match pending.outcome(deadline).await? {
        Answer::Read(payload) => Ok(payload.unwrap_or_default()),
        Answer::Control(_) | Answer::Written(_) => Err(Error::Protocol),
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.is_closed.load(Ordering::Relaxed) {
            self.guard.begin_unwatched(Operation::Control(Close { handle: self.handle }.into()));
        }
    }
}

/// The bytes of a file in order, from [`File::read_ahead`].
#[derive(Debug)]
pub struct ReadAhead<'a> {
    file: &'a File,
    next: u64,
    end: u64,
    begun: VecDeque<(u64, usize, Pending)>,
    is_done: bool,
}

impl ReadAhead<'_> {
    /// The next bytes, as they came off the wire; `None` at the end.
    ///
    /// # Errors
    /// As [`File::read_at`].
    ///
    /// # Cancel safety
    /// Cancel safe: a chunk that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.fill();
        let deadline = self.file.guard.deadline();
        let Some((offset, len, pending)) = self.begun.front_mut() else { return Ok(None) };
        let (offset, len) = (*offset, *len);
        let bytes = match finish_read(pending, deadline).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // The next call asks for the same bytes again: a chunk that failed is never passed over.
                self.begun.clear();
                self.next = offset;
                return Err(error);
            }
        };
        self.begun.pop_front();
        if bytes.len() < len {
            // The end of the file: what was asked for behind it is empty.
            self.is_done = true;
            self.begun.clear();
        }
        Ok(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// Keeps as many chunks under way as the session's credit holds.
    fn fill(&mut self) {
        let limits = self.file.guard.limits();
        let chunk = u64::from(limits.chunk).max(1);
        let depth = usize::try_from(limits.bytes / chunk).unwrap_or(1).max(2);
        while !self.is_done && self.begun.len() < depth && self.next < self.end {
            let len = usize::try_from(chunk.min(self.end - self.next)).unwrap_or(usize::MAX);
            self.begun.push_back((self.next, len, self.file.begin_read(self.next, len)));
            self.next = self.next.saturating_add(len_u64(len));
        }
    }
}

/// How often a resume key is asked for when answers come without one.
const KEY_ATTEMPTS: usize = 4;

fn refused(reason: Reason) -> Error {
    Error::Refused(reason.into())
}
