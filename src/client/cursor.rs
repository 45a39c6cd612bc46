//! The state of a stream over a file: where it stands, what was read ahead, what is being written behind. The requests
//! themselves come from outside, so that it can be driven without a server.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};

use super::ahead::{Ahead, END, Window};
use super::calls::{Reply, expect_written};
use super::error::{Error, refused};
use crate::model::{Reason, len_u64};
use crate::session::client::Answer;
use crate::wire::ServerControl;

/// The requests that a stream makes of its file.
pub(super) trait Requests {
    type Reply: Reply;

    /// What may be under way at once.
    fn window(&self) -> Window;
    /// Whether writes go to the end of the file.
    fn appends(&self) -> bool;
    fn read(&self, offset: u64, len: u32) -> Self::Reply;
    fn write(&self, offset: u64, part: (Bytes, u32)) -> Self::Reply;
    fn append(&self, part: (Bytes, u32)) -> Self::Reply;
    fn stat(&self) -> Self::Reply;
}

/// Where a stream stands.
#[derive(Debug)]
pub(super) struct Cursor<R> {
    /// Where the next read or write begins.
    at: u64,
    /// What was read and not taken, from `at` on.
    read: Bytes,
    ahead: Option<Ahead<R>>,
    /// What is being written, oldest first.
    writes: VecDeque<Behind<R>>,
    write_bytes: u64,
    failure: Failure,
    seek: Option<Seek<R>>,
}

/// A write that is under way.
#[derive(Debug)]
struct Behind<R> {
    /// Where it begins; of an append nobody knows.
    at: u64,
    len: u32,
    reply: R,
}

/// What has come of writes behind.
#[derive(Debug)]
enum Failure {
    None,
    /// Nobody has heard of it yet.
    New(Error),
    Told,
}

/// A seek that was begun.
#[derive(Debug)]
enum Seek<R> {
    To(SeekFrom),
    /// The length is being asked for.
    End(i64, R),
}

/// Bytes that are read ahead at first. Each chunk that is taken in order doubles them, up to the session's credit.
const REACH_FIRST: u64 = 128 << 10;

impl<R: Reply> Cursor<R> {
    pub(super) fn new(at: u64) -> Self {
        Self {
            at,
            read: Bytes::new(),
            ahead: None,
            writes: VecDeque::new(),
            write_bytes: 0,
            failure: Failure::None,
            seek: None,
        }
    }

    /// At least one byte and at most `len`, or none at the end of the file. It sees what was written before.
    pub(super) fn poll_read(
        &mut self,
        file: &impl Requests<Reply = R>,
        cx: &mut Context<'_>,
        len: usize,
    ) -> Poll<Result<Bytes, Error>> {
        ready!(self.poll_seek(file, cx))?;
        ready!(self.poll_settled(cx));
        if self.read.is_empty() {
            let at = self.at;
            let ahead = self.ahead.get_or_insert_with(|| Ahead::new(at, END, REACH_FIRST));
            match ready!(ahead.poll_next(cx, file.window(), Some(len_u64(len)), |at, len| file.read(at, len)))
            {
                Ok(Some(bytes)) => self.read = bytes,
                ended => {
                    // The file may have grown, or the failure passed, when it is tried again.
                    self.ahead = None;
                    return Poll::Ready(ended.map(|_| Bytes::new()));
                }
            }
        }
        let taken = self.read.split_to(self.read.len().min(len));
        self.at = self.at.saturating_add(len_u64(taken.len()));
        Poll::Ready(Ok(taken))
    }

    /// Queues the front of `from`, and tells how much of it.
    pub(super) fn poll_write(
        &mut self,
        file: &impl Requests<Reply = R>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<Result<usize, Error>> {
        ready!(self.poll_seek(file, cx))?;
        self.reap(cx);
        self.tell()?;
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let window = file.window();
        // What is appended must arrive in order, and only one after the other does.
        let depth = if file.appends() { 1 } else { window.requests };
        if self.writes.len() >= depth || self.write_bytes >= window.bytes {
            return Poll::Pending;
        }
        let len = u32::try_from(from.len()).unwrap_or(u32::MAX).min(window.chunk);
        if self.is_being_written(u64::from(len)) {
            // The server executes writes in any order, and the older bytes must not be the last ones.
            return Poll::Pending;
        }
        self.forget_reads();
        let mut rest = from;
        let part = rest.copy_to_bytes(usize::try_from(len).unwrap_or(usize::MAX).min(from.len()));
        let reply = if file.appends() { file.append((part, len)) } else { file.write(self.at, (part, len)) };
        self.writes.push_back(Behind { at: self.at, len, reply });
        self.write_bytes = self.write_bytes.saturating_add(u64::from(len));
        self.at = self.at.saturating_add(u64::from(len));
        Poll::Ready(Ok(usize::try_from(len).unwrap_or(usize::MAX)))
    }

    /// Ready when the server has everything that was written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_settled(cx));
        Poll::Ready(self.tell())
    }

    /// Ready when every write has its outcome, whichever it is.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reap(cx);
        if self.writes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Begins to seek; [`Self::poll_seek`] goes on with it. A seek that is under way is forgotten.
    pub(super) fn start_seek(&mut self, to: SeekFrom) {
        self.seek = Some(Seek::To(to));
    }

    /// Goes on with a seek, and tells where the stream stands.
    pub(super) fn poll_seek(
        &mut self,
        file: &impl Requests<Reply = R>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<u64, Error>> {
        if file.appends() && self.seek.is_some() {
            // An append moves the stream to where it ended, and so it must have ended.
            ready!(self.poll_settled(cx));
        }
        loop {
            let target = match &mut self.seek {
                None => return Poll::Ready(Ok(self.at)),
                Some(Seek::To(SeekFrom::Start(at))) => Some(*at),
                Some(Seek::To(SeekFrom::Current(by))) => self.at.checked_add_signed(*by),
                Some(Seek::To(SeekFrom::End(by))) => {
                    let by = *by;
                    // The end is behind what is being written.
                    ready!(self.poll_settled(cx));
                    self.seek = Some(Seek::End(by, file.stat()));
                    continue;
                }
                Some(Seek::End(by, reply)) => match (ready!(reply.poll_outcome(cx)), *by) {
                    (Ok(Answer::Control(ServerControl::Stated(stated), _)), by) => {
                        stated.state.attributes.len.checked_add_signed(by)
                    }
                    (outcome, _) => {
                        self.seek = None;
                        return Poll::Ready(Err(outcome.err().unwrap_or(Error::Protocol)));
                    }
                },
            };
            self.seek = None;
            let Some(target) = target.filter(|&at| i64::try_from(at).is_ok()) else {
                return Poll::Ready(Err(refused(Reason::Invalid)));
            };
            if target != self.at {
                self.forget_reads();
                self.at = target;
            }
        }
    }

    /// Whether some of the next `len` bytes are in a write that is under way.
    fn is_being_written(&self, len: u64) -> bool {
        let end = self.at.saturating_add(len);
        let is_apart =
            |write: &Behind<R>| write.at >= end || write.at.saturating_add(u64::from(write.len)) <= self.at;
        !self.writes.iter().all(is_apart)
    }

    /// Takes the outcomes that are there, oldest first.
    fn reap(&mut self, cx: &mut Context<'_>) {
        while let Some(Behind { len, reply, .. }) = self.writes.front_mut() {
            let len = *len;
            let Poll::Ready(outcome) = reply.poll_outcome(cx) else { return };
            self.writes.pop_front();
            self.write_bytes = self.write_bytes.saturating_sub(u64::from(len));
            let written = outcome.and_then(|answer| {
                expect_written(&answer, len)?;
                Ok(answer)
            });
            match written {
                Ok(Answer::Appended(done)) => self.at = done.offset.saturating_add(u64::from(len)),
                Ok(_) => {}
                Err(error) if matches!(self.failure, Failure::None) => self.failure = Failure::New(error),
                // The first one is told, and what follows it follows from it.
                Err(_) => {}
            }
        }
    }

    /// Tells of a write that failed: what happened, once, and after that, that it has.
    fn tell(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.failure, Failure::Told) {
            Failure::None => {
                self.failure = Failure::None;
                Ok(())
            }
            Failure::New(error) => Err(error),
            Failure::Told => Err(Error::EarlierWrite),
        }
    }

    /// The error of a write that nobody has heard of, once.
    pub(super) fn take_untold(&mut self) -> Option<Error> {
        match std::mem::replace(&mut self.failure, Failure::Told) {
            Failure::New(error) => Some(error),
            other => {
                self.failure = other;
                None
            }
        }
    }

    /// Throws away what was read ahead. The stream stays where it is, and asks for the same bytes again.
    pub(super) fn forget_reads(&mut self) {
        self.read.clear();
        self.ahead = None;
    }
}

#[cfg(test)]
mod tests;
