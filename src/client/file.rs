//! An open file of a client: its state, its resume key, and how it is given up. `positional` reads and writes it,
//! `locks` locks it, `attributes` and `xattr` change what is not its bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::ahead::ReadAhead;
use super::calls::{Caller, Ledger};
use super::error::{Error, refused};
use super::options::OpenOptions;
use super::ring::Keeper;
use super::session::Session;
use super::stream::FileStream;
use crate::model::{
    Attributes, FileState, HandleId, Limits, LineSet, Meanwhile, Reason, ResumeKey, Rights, SyncScope,
};
use crate::session::client::ClientCore;
use crate::wire::ServerControl;
use crate::wire::control::{Close, IssueKey, Opened, Resume, Stat, Sync};

impl Session {
    /// Opens a file of an export; [`Session::export`] is the way to everything else in it. The request travels on a
    /// control channel, encrypted.
    ///
    /// # Errors
    /// As [`Export::open`](super::Export::open).
    ///
    /// # Cancel safety
    /// As [`Export::open`](super::Export::open).
    pub async fn open(
        &self,
        export: &str,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<File, Error> {
        self.export(export)?.open(path, options).await
    }

    /// Gets a duplicate handle with a resume key: the same open file, the same rights. The request travels on a
    /// control channel, encrypted; the handle's reads and writes use `lines`.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::ResumeRefused`] for every cause that lies in the key, the identity or the
    /// open; [`Error::TimedOut`]; [`Error::SessionEnded`]. A failed resume changes nothing.
    ///
    /// # Cancel safety
    /// Cancel safe: a handle that comes after the future was dropped is closed.
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
        let caller = Caller::new(self.guard());
        let answer = caller.control(resume).await?;
        File::from_answer(caller, answer, lines)
    }
}

/// A handle of an open file. All methods take `&self`: any number of reads and writes can be under way at once.
///
/// Dropping a `File` closes its handle without waiting; [`File::close`] waits and reports errors;
/// [`File::leave_open`] gives up the handle and keeps the file open on the server.
///
/// Calls have the deadline of their client ([`Client::with_request_timeout`](super::Client::with_request_timeout)),
/// unless [`File::with_timeout`] says otherwise.
#[derive(Debug)]
pub struct File {
    caller: Caller,
    /// By which the session's core knows the handle, whatever the server calls it.
    name: HandleId,
    lines: LineSet,
    /// The state with which it was opened. What came later is kept by the core, as long as it knows the handle.
    opened: FileState,
    /// The handle's entry in the client's key ring.
    kept: Mutex<Option<Arc<Keeper>>>,
    ledger: Arc<Ledger>,
    is_closed: AtomicBool,
}

impl File {
    /// The same handle, whose calls wait this long for their answers.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.set_timeout(timeout);
        self
    }

    /// The file as a stream that reads ahead and writes behind, from its first byte on.
    #[must_use]
    pub fn into_stream(self) -> FileStream {
        self.stream_at(0)
    }

    /// As [`File::into_stream`], from `offset` on.
    #[must_use]
    pub fn stream_at(self, offset: u64) -> FileStream {
        FileStream::new(self, offset)
    }

    /// Reads from `offset` to the end of the file (or to `end`), in order, with many chunks under way on all lines.
    #[must_use]
    pub fn read_ahead(&self, offset: u64, end: Option<u64>) -> ReadAhead<'_> {
        ReadAhead::new(self, offset, end)
    }

    /// The file's state as the server told it last: the mode in which it is open, this handle's rights, size and
    /// times.
    #[must_use]
    pub fn state(&self) -> FileState {
        self.core(|core| core.file_state(self.name)).unwrap_or(self.opened)
    }

    /// The handle's number, which names it to [`Session::resume_in_place_of`] and in [`Session::events`]. It grants
    /// nothing. It is another one after the session had to be started anew.
    #[must_use]
    pub fn handle(&self) -> HandleId {
        self.core(|core| core.current(self.name))
    }

    /// What became of the file while no channel reached it, when the handle was resumed last: with a key, or by the
    /// session when that came back. None for a first handle that was never resumed. The handle goes on in any case: what
    /// follows from a change is its user's to say.
    #[must_use]
    pub fn meanwhile(&self) -> Option<Meanwhile> {
        self.core(|core| core.meanwhile(self.name))
    }

    /// Waits until the server has every write of this handle that was begun before. That is so already for writes
    /// whose calls have returned; a call that was dropped or gave up leaves writes under way. [`File::sync`] makes
    /// durable what the server has.
    ///
    /// # Errors
    /// The error of a write that nobody has heard of yet, once, or [`Error::EarlierWrite`] if a [`FileStream`] was given
    /// up before it had sent it; [`Error::TimedOut`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flush(&self) -> Result<(), Error> {
        self.ledger.settled(&self.caller).await
    }

    /// Makes everything durable that was written before: bytes and size, or all attributes as well.
    ///
    /// What was written and is not synced is kept by the session, up to [`Limits::unsynced_bytes`], and written again
    /// where the server's memory was lost and nobody else can have written there.
    ///
    /// # Errors
    /// [`Error::Refused`] if the server's file system failed; [`Error::LostWrites`], once, if bytes were lost that could
    /// not be written again; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; the sync may happen all the same.
    pub async fn sync(&self, scope: SyncScope) -> Result<(), Error> {
        match self.caller.control(Sync { handle: self.name, scope }).await? {
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
        match self.caller.control(Stat { handle: self.name }).await? {
            ServerControl::Stated(stated) => Ok(stated.state),
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
            match self.caller.control(IssueKey { handle: self.name }).await? {
                ServerControl::KeyIssued(issued) => {
                    // The core keeps it for the session's return.
                    if let Some(key) = issued.key {
                        return Ok(key);
                    }
                }
                _ => return Err(Error::Protocol),
            }
        }
        Err(refused(Reason::Unknown))
    }

    /// The resume key that is at hand without asking the server: the newest one. The session uses it when it comes back;
    /// a file without one is lost then.
    #[must_use]
    pub fn kept_key(&self) -> Option<ResumeKey> {
        self.core(|core| core.resume_key(self.name))
    }

    /// Closes the handle and waits until nothing of it is under way on the server.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`], each also as the error of a write that nobody
    /// has heard of yet; [`Error::EarlierWrite`] if a [`FileStream`] had accepted a write and was given up before it
    /// was sent; [`Error::LostWrites`] as from [`File::sync`]. The handle is given up in any case.
    ///
    /// # Cancel safety
    /// The handle is given up from the first poll on.
    pub async fn close(self) -> Result<(), Error> {
        self.shut().await
    }

    /// As [`File::close`], of a file that is dropped later.
    pub(super) async fn shut(&self) -> Result<(), Error> {
        self.give_up();
        let answer = self.caller.control(Close { handle: self.name }).await;
        // Without an answer the server may keep the file open, and then the way back to it is still of use.
        if answer.is_ok() || answer.as_ref().is_err_and(|error| error.reason().is_some()) {
            self.forget_key();
        }
        match answer? {
            // Nothing of it executes any more, and the outcomes may still be on their way.
            ServerControl::Closed(_) => self.ledger.settled(&self.caller).await,
            _ => Err(Error::Protocol),
        }
    }

    /// Gives the handle up without closing it: the file stays open on the server while the session lasts and for
    /// its grace after that. [`File::resume_key`] gets the way back, before.
    pub fn leave_open(self) {
        self.give_up();
    }

    /// Leaves it to others whether the handle is closed.
    pub(super) fn give_up(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Remembers the handle's entry in the client's key ring.
    pub(super) fn set_kept(&self, kept: Arc<Keeper>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    fn forget_key(&self) {
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take() {
            kept.forget();
        }
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.caller = self.caller.with_timeout(timeout);
    }

    pub(super) fn from_answer(caller: Caller, answer: ServerControl, lines: LineSet) -> Result<Self, Error> {
        let ServerControl::Opened(Opened { handle: name, state: opened, .. }) = answer else {
            return Err(Error::Protocol);
        };
        let (ledger, is_closed) = (Arc::default(), AtomicBool::new(false));
        Ok(Self { caller, name, lines, opened, kept: Mutex::default(), ledger, is_closed })
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The handle's name in requests.
    pub(super) fn name(&self) -> HandleId {
        self.name
    }

    pub(super) fn lines(&self) -> LineSet {
        self.lines
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Bounds in force, the server's credit included.
    pub(super) fn limits(&self) -> &Limits {
        self.caller.guard().limits()
    }

    /// Whether the file was opened to be appended to; so it is through duplicates as well.
    pub(super) fn is_appending(&self) -> bool {
        self.opened.mode.rights.contains(Rights::APPEND)
    }

    /// Keeps attributes that the server has told.
    pub(super) fn note(&self, attributes: Attributes) {
        self.core(|core| core.note_attributes(self.name, attributes));
    }

    /// Looks something up in the session's core.
    fn core<T>(&self, look: impl FnOnce(&mut ClientCore<Bytes>) -> T) -> T {
        look(&mut self.caller.guard().inner().lock().core)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.is_closed.load(Ordering::Relaxed) {
            self.caller.guard().begin_unwatched(Close { handle: self.name });
            // Where nothing reaches the server any more, the file stays open there.
            if !self.caller.guard().is_over() {
                self.forget_key();
            }
        }
        self.caller.guard().inner().keepers.remove(self.name);
    }
}

/// How often a resume key is asked for when answers come without one.
pub(super) const KEY_ATTEMPTS: usize = 4;
