//! Reading ahead: chunks of a file in order, with many under way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::calls::Reply;
use super::error::Error;
use super::file::File;
use crate::model::{Limits, Reason, len_u64};
use crate::session::client::Answer;

/// The bytes of a file in order, from [`File::read_ahead`].
#[derive(Debug)]
pub struct ReadAhead<'a> {
    file: &'a File,
    ahead: Ahead<super::calls::Pending>,
}

impl<'a> ReadAhead<'a> {
    pub(super) fn new(file: &'a File, offset: u64, end: Option<u64>) -> Self {
        let window = Window::of(file.limits());
        Self { file, ahead: Ahead::new(offset, end.unwrap_or(END), window.bytes) }
    }

    /// The next bytes, as they came off the wire; `None` at the end.
    ///
    /// # Errors
    /// As [`File::read_at`]. The next call asks for the same bytes again: a chunk that failed is never passed over.
    ///
    /// # Cancel safety
    /// Cancel safe: a chunk that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let (file, ahead) = (self.file, &mut self.ahead);
        poll_fn(|cx| ahead.poll_next(cx, Window::of(file.limits()), None, |at, len| file.begin_read(at, len)))
            .await
    }
}

/// Where every file has ended: requests end at or below it.
pub(super) const END: u64 = i64::MAX.unsigned_abs();

/// What may be under way at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Length of a chunk, in bytes.
    pub(super) chunk: u32,
    /// Bytes in all.
    pub(super) bytes: u64,
    /// Requests in all.
    pub(super) requests: usize,
}

impl Window {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            chunk: limits.chunk.max(1),
            bytes: limits.bytes.max(1),
            requests: usize::try_from(limits.requests).unwrap_or(usize::MAX).max(1),
        }
    }
}

/// Chunks that were asked for, from one offset on without a gap.
#[derive(Debug)]
pub(super) struct Ahead<R> {
    next: u64,
    end: u64,
    begun: VecDeque<(u64, u32, R)>,
    begun_bytes: u64,
    /// How many bytes may be under way: grows while the reader goes on, so that a reader that jumps about does not ask
    /// for what it will not take.
    reach: u64,
    is_done: bool,
}

impl<R: Reply> Ahead<R> {
    /// From `offset` to `end`, at first with `reach` bytes under way.
    pub(super) fn new(offset: u64, end: u64, reach: u64) -> Self {
        Self {
            next: offset,
            end,
            begun: VecDeque::new(),
            begun_bytes: 0,
            reach: reach.max(1),
            is_done: false,
        }
    }

    /// The next bytes; `None` at the end. The reader wants `wanted` of them, if it says: where more were asked for, and
    /// somebody else has locked some, the reader's own are asked for alone.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        window: Window,
        wanted: Option<u64>,
        mut begin: impl FnMut(u64, u32) -> R,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        let (len, bytes) = loop {
            self.fill(window, &mut begin);
            let Some((offset, len, reply)) = self.begun.front_mut() else { return Poll::Ready(Ok(None)) };
            let (offset, len) = (*offset, *len);
            let error = match ready!(reply.poll_outcome(cx)) {
                Ok(Answer::Read(payload)) => break (len, payload.unwrap_or_default()),
                failed => failed.err().unwrap_or(Error::Protocol),
            };
            self.forget();
            self.next = offset;
            match wanted.filter(|&wanted| wanted > 0 && wanted < u64::from(len)) {
                Some(wanted) if error.reason() == Some(Reason::Locked) => self.reach = wanted,
                _ => return Poll::Ready(Err(error)),
            }
        };
        self.begun.pop_front();
        self.begun_bytes = self.begun_bytes.saturating_sub(u64::from(len));
        self.reach = self.reach.saturating_mul(2);
        if len_u64(bytes.len()) < u64::from(len) {
            // The end of the file: what was asked for behind it is empty.
            self.is_done = true;
            self.forget();
        }
        Poll::Ready(Ok(if bytes.is_empty() { None } else { Some(bytes) }))
    }

    /// Keeps as much under way as may be, and one chunk at least.
    fn fill(&mut self, window: Window, begin: &mut impl FnMut(u64, u32) -> R) {
        let bytes_max = window.bytes.min(self.reach);
        while !self.is_done && self.next < self.end && self.begun.len() < window.requests {
            let room = bytes_max.saturating_sub(self.begun_bytes);
            let wanted = u64::from(window.chunk).min(self.end.saturating_sub(self.next));
            if room < wanted && !self.begun.is_empty() {
                // A sliver is not worth a request while others are under way.
                break;
            }
            let len = u32::try_from(wanted.min(room)).unwrap_or(window.chunk);
            self.begun.push_back((self.next, len, begin(self.next, len)));
            self.begun_bytes = self.begun_bytes.saturating_add(u64::from(len));
            self.next = self.next.saturating_add(u64::from(len));
        }
    }

    fn forget(&mut self) {
        self.begun.clear();
        self.begun_bytes = 0;
    }
}
