//! Reading and writing a file at offsets: large ranges in chunks over all lines, many ranges at once, and appending.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};

use bytes::{Bytes, BytesMut};

use super::ahead::Window;
use super::calls::{Deadline, Pending, expect_written};
use super::error::Error;
use super::file::File;
use crate::model::len_u64;
use crate::session::client::{Answer, Operation};
use crate::wire::data::{Append, Read, Write};

impl File {
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
        self.read_vectored_at(offset, &mut [IoSliceMut::new(into)]).await
    }

    /// As [`File::read_at`], into several buffers, one after the other.
    ///
    /// # Errors
    /// As [`File::read_at`].
    ///
    /// # Cancel safety
    /// As [`File::read_at`].
    pub async fn read_vectored_at(&self, offset: u64, into: &mut [IoSliceMut<'_>]) -> Result<usize, Error> {
        let wanted = into.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let mut parts = into.iter_mut();
        let mut room: &mut [u8] = &mut [];
        let mut read = 0_usize;
        self.gather(&[(offset, wanted)], |_, bytes| {
            let mut rest: &[u8] = &bytes;
            while !rest.is_empty() {
                if room.is_empty() {
                    let Some(part) = parts.next() else { break };
                    room = part;
                    continue;
                }
                let len = rest.len().min(room.len());
                let (from, behind) = rest.split_at(len);
                let (to, left) = std::mem::take(&mut room).split_at_mut(len);
                to.copy_from_slice(from);
                (rest, room) = (behind, left);
                read = read.saturating_add(len);
            }
        })
        .await?;
        Ok(read)
    }

    /// Reads many ranges, each an offset and a length, with as many under way at once as the session's credit holds.
    /// Each comes back as its bytes, fewer than asked only at the end of the file. A range of at most one chunk
    /// ([`Limits::chunk`]) is not copied.
    ///
    /// # Errors
    /// As [`File::read_at`]; the first range that fails fails all.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// [`Limits::chunk`]: crate::model::Limits::chunk
    pub async fn read_ranges(&self, ranges: &[(u64, usize)]) -> Result<Vec<Bytes>, Error> {
        let mut gathered = vec![Gathered::default(); ranges.len()];
        self.gather(ranges, |range, bytes| {
            if let Some(gathered) = gathered.get_mut(range) {
                gathered.push(bytes);
            }
        })
        .await?;
        Ok(gathered.into_iter().map(Gathered::into_bytes).collect())
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
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(Window::of(self.limits()).chunk);
        finish_read(&mut self.begin_read(offset, len)).await
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
    /// [`File::flush`] waits for those that were sent.
    ///
    /// [`Reason::NoSpace`]: crate::model::Reason::NoSpace
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write_bytes_at(offset, Bytes::copy_from_slice(bytes)).await
    }

    /// As [`File::write_at`], from several buffers, one after the other.
    ///
    /// # Errors
    /// As [`File::write_at`].
    ///
    /// # Cancel safety
    /// As [`File::write_at`].
    pub async fn write_vectored_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<(), Error> {
        let len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let mut bytes = BytesMut::with_capacity(len);
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.write_bytes_at(offset, bytes.freeze()).await
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
        let (mut begun, deadline) = (Vec::new(), self.caller().deadline());
        while !rest.is_empty() {
            let (part, len) = self.split_chunk(&mut rest);
            begun.push((len, self.begin_write(at, (part, len), deadline, false)));
            at = at.saturating_add(u64::from(len));
        }
        // Every part is waited for within the time, so that as little as possible is under way when an error is told; the
        // last one first, so that whoever waits is woken about once, and the first error is told.
        let mut outcome = Ok(());
        for (len, mut pending) in begun.into_iter().rev() {
            let written = pending.outcome().await.and_then(|answer| expect_written(&answer, len));
            outcome = written.and(outcome);
        }
        outcome
    }

    /// Writes all of `bytes` where the file ends, and tells where that was. At most one chunk
    /// ([`Limits::chunk`]) goes at one stroke; more goes chunk by chunk, and others may append in between. The file
    /// need not be open for [`append`](super::OpenOptions::append): the right to write is enough.
    ///
    /// # Errors
    /// As [`File::write_at`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open how much is appended. As after [`Error::TimedOut`], a chunk that was sent may
    /// still be executed later, also behind newer appends.
    ///
    /// [`Limits::chunk`]: crate::model::Limits::chunk
    pub async fn append(&self, bytes: &[u8]) -> Result<u64, Error> {
        self.append_bytes(Bytes::copy_from_slice(bytes)).await
    }

    /// As [`File::append`], without a copy of the bytes.
    ///
    /// # Errors
    /// As [`File::append`].
    ///
    /// # Cancel safety
    /// As [`File::append`].
    pub async fn append_bytes(&self, bytes: Bytes) -> Result<u64, Error> {
        let mut rest = bytes;
        let (mut begin, deadline) = (None, self.caller().deadline());
        loop {
            let (part, len) = self.split_chunk(&mut rest);
            let answer = self.begin_append((part, len), deadline, false).outcome().await?;
            expect_written(&answer, len)?;
            let Answer::Appended(done) = answer else { return Err(Error::Protocol) };
            let begin = *begin.get_or_insert(done.offset);
            if rest.is_empty() {
                return Ok(begin);
            }
        }
    }

    pub(super) fn begin_read(&self, offset: u64, len: u32) -> Pending {
        self.begin_read_until(offset, len, self.caller().deadline())
    }

    pub(super) fn begin_write(
        &self,
        offset: u64,
        (bytes, len): (Bytes, u32),
        until: Deadline,
        is_accepted: bool,
    ) -> Pending {
        let write = Write { handle: self.name(), offset };
        let operation = Operation::Write(write, bytes, len);
        self.caller().begin_write((operation, len), self.lines(), until, (self.ledger(), is_accepted))
    }

    pub(super) fn begin_append(
        &self,
        (bytes, len): (Bytes, u32),
        until: Deadline,
        is_accepted: bool,
    ) -> Pending {
        let operation = Operation::Append(Append { handle: self.name() }, bytes, len);
        self.caller().begin_write((operation, len), self.lines(), until, (self.ledger(), is_accepted))
    }

    fn begin_read_until(&self, offset: u64, len: u32, deadline: Deadline) -> Pending {
        let read = Read { handle: self.name(), offset, len };
        self.caller().begin(Operation::Read(read), self.lines(), deadline)
    }

    /// Takes the next chunk off the front.
    fn split_chunk(&self, rest: &mut Bytes) -> (Bytes, u32) {
        let chunk = usize::try_from(Window::of(self.limits()).chunk).unwrap_or(usize::MAX);
        let part = rest.split_to(rest.len().min(chunk));
        let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
        (part, len)
    }

    /// Reads ranges and hands the bytes of each on in order, with its index. More is begun than the credit holds, so
    /// that it is always used up, and not more, so that what is asked for costs nothing before its turn.
    async fn gather(
        &self,
        ranges: &[(u64, usize)],
        mut take: impl FnMut(usize, Bytes) + Send,
    ) -> Result<(), Error> {
        let (window, deadline) = (Window::of(self.limits()), self.caller().deadline());
        let begun_max = window.requests.saturating_mul(2);
        let bytes_max = window.bytes.saturating_mul(2);
        let mut parts = Parts::new(ranges, window.chunk);
        let mut begun: VecDeque<(Part, Pending)> = VecDeque::new();
        let mut bytes_begun = 0_u64;
        loop {
            while begun.len() < begun_max && bytes_begun < bytes_max {
                let Some(part) = parts.next() else { break };
                bytes_begun = bytes_begun.saturating_add(u64::from(part.len));
                begun.push_back((part, self.begin_read_until(part.offset, part.len, deadline)));
            }
            let Some((part, mut pending)) = begun.pop_front() else { return Ok(()) };
            let bytes = finish_read(&mut pending).await?;
            bytes_begun = bytes_begun.saturating_sub(u64::from(part.len));
            if len_u64(bytes.len()) < u64::from(part.len) {
                // The end of the file: what was asked for behind it is empty.
                parts.end(part.range);
                while begun.front().is_some_and(|(next, _)| next.range == part.range) {
                    let left = begun.pop_front().map_or(0, |(part, _)| u64::from(part.len));
                    bytes_begun = bytes_begun.saturating_sub(left);
                }
            }
            take(part.range, bytes);
        }
    }
}

async fn finish_read(pending: &mut Pending) -> Result<Bytes, Error> {
    match pending.outcome().await? {
        Answer::Read(payload) => Ok(payload.unwrap_or_default()),
        _ => Err(Error::Protocol),
    }
}

/// A chunk of one of several ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    range: usize,
    offset: u64,
    len: u32,
}

/// The chunks of several ranges, in order.
struct Parts<'a> {
    ranges: std::iter::Enumerate<std::slice::Iter<'a, (u64, usize)>>,
    chunk: u32,
    /// Which range is being cut, where the next chunk of it begins, and how much of it is left.
    rest: Option<(usize, u64, u64)>,
}

impl<'a> Parts<'a> {
    fn new(ranges: &'a [(u64, usize)], chunk: u32) -> Self {
        Self { ranges: ranges.iter().enumerate(), chunk, rest: None }
    }

    /// Cuts no more chunks off a range.
    fn end(&mut self, range: usize) {
        self.rest = self.rest.take().filter(|rest| rest.0 != range);
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        loop {
            let Some((range, offset, left)) = self.rest.take().filter(|rest| rest.2 > 0) else {
                let (range, &(offset, len)) = self.ranges.next()?;
                self.rest = Some((range, offset, len_u64(len)));
                continue;
            };
            let len = u32::try_from(left).unwrap_or(u32::MAX).min(self.chunk);
            let taken = u64::from(len);
            self.rest = Some((range, offset.saturating_add(taken), left.saturating_sub(taken)));
            return Some(Part { range, offset, len });
        }
    }
}

/// The bytes of a range, copied together only if they came in more than one chunk.
#[derive(Debug, Clone, Default)]
struct Gathered {
    first: Bytes,
    rest: Option<BytesMut>,
}

impl Gathered {
    fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() && self.rest.is_none() {
            self.first = bytes;
        } else {
            let first = &self.first;
            self.rest.get_or_insert_with(|| BytesMut::from(first.as_ref())).extend_from_slice(&bytes);
        }
    }

    fn into_bytes(self) -> Bytes {
        self.rest.map_or(self.first, BytesMut::freeze)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ranges: &[(u64, usize)]) -> Vec<(usize, u64, u32)> {
        Parts::new(ranges, 10).map(|part| (part.range, part.offset, part.len)).collect()
    }

    #[test]
    fn ranges_are_cut_in_order() {
        assert_eq!(
            parts(&[(5, 25), (0, 0), (7, 10), (9, 1)]),
            [(0, 5, 10), (0, 15, 10), (0, 25, 5), (2, 7, 10), (3, 9, 1)]
        );
        assert_eq!(parts(&[]), []);
    }

    #[test]
    fn a_range_that_has_ended_is_cut_no_more() {
        let ranges = [(0, usize::MAX), (3, 4)];
        let mut parts = Parts::new(&ranges, 10);
        assert_eq!(parts.next().map(|part| part.range), Some(0));
        parts.end(0);
        assert_eq!(parts.next(), Some(Part { range: 1, offset: 3, len: 4 }));
        parts.end(0);
        assert_eq!(parts.next(), None);
    }

    #[test]
    fn chunks_are_put_together() {
        let mut one = Gathered::default();
        one.push(Bytes::from_static(b"abc"));
        assert_eq!(one.clone().into_bytes(), "abc");
        one.push(Bytes::from_static(b"de"));
        one.push(Bytes::new());
        one.push(Bytes::from_static(b"f"));
        assert_eq!(one.into_bytes(), "abcdef");
        assert!(Gathered::default().into_bytes().is_empty());
    }
}
