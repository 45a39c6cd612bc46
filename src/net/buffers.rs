//! Buffers for payload that are used again: memory that comes from the system has to be mapped and cleared page by
//! page, which for a read costs about as much as signing it. docs/performance.md has the figures.
//!
//! Nobody gives a buffer back. A second handle without bytes stays here, and once it is the only one that is left
//! the memory is free: so bytes may go to callers, queues and files, whole or in parts, for as long as they like.
//!
//! What is read from a file goes into a [`Block`]. Its memory holds something at all times, so that nothing has to be cleared
//! for the kernel to write over it, and it comes back by itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

/// Shorter payloads get memory of their own: the allocator has it at hand, and a small piece that somebody keeps
/// must not keep much more.
const LEN_MIN: usize = 64 << 10;
/// Buffers that are remembered: with payloads of 1 MiB, the memory that stays with this process when all is quiet
/// is 32 MiB.
const KEPT_MAX: usize = 32;
/// How many times longer than asked for a buffer may be.
const EXCESS_MAX: usize = 2;

/// A supply of buffers. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Supply>);

#[derive(Debug, Default)]
struct Supply {
    kept: Mutex<Vec<Kept>>,
    /// Memory of blocks that are gone.
    blocks: Mutex<Vec<Memory>>,
}

/// The handle that stays here.
#[derive(Debug)]
struct Kept {
    handle: BytesMut,
    capacity: usize,
}

impl Buffers {
    /// An empty buffer with room for `len` bytes.
    #[must_use]
    pub fn take(&self, len: usize) -> BytesMut {
        if len < LEN_MIN {
            return BytesMut::with_capacity(len);
        }
        let mut all = lock(&self.0.kept);
        // From the end: what was given out last is the likeliest to be in the processor's cache still.
        let is_free = |kept: &mut Kept| {
            let fits = len <= kept.capacity && kept.capacity <= len.saturating_mul(EXCESS_MAX);
            fits && kept.handle.try_reclaim(len)
        };
        let mut kept = match all.iter_mut().rposition(is_free) {
            Some(at) => all.remove(at),
            None => {
                if all.len() >= KEPT_MAX {
                    drop(all.remove(0));
                }
                Kept { handle: BytesMut::with_capacity(len), capacity: len }
            }
        };
        let buffer = kept.handle.split_off(0);
        all.push(kept);
        buffer
    }

    /// A block without bytes, with room for `len`.
    #[must_use]
    pub fn block(&self, len: usize) -> Block {
        let fits =
            |memory: &Memory| len <= memory.0.len() && memory.0.len() <= len.saturating_mul(EXCESS_MAX);
        let memory = if len < LEN_MIN {
            None
        } else {
            let mut all = lock(&self.0.blocks);
            all.iter().rposition(fits).map(|at| all.remove(at))
        };
        let memory = memory.unwrap_or_else(|| Memory(vec![0; len]));
        Block { memory, filled: 0, end: len, home: Arc::clone(&self.0) }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may hold the bytes of somebody's file.
struct Memory(Vec<u8>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.0.len())
    }
}

/// Bytes that are read from a file. What is behind them in its memory is nobody's, and is never seen.
#[derive(Debug)]
pub struct Block {
    memory: Memory,
    filled: usize,
    end: usize,
    home: Arc<Supply>,
}

impl Block {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.memory.0.get(..self.filled).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        self.memory.0.get_mut(..self.filled).unwrap_or_default()
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        let memory = Memory(self.as_ref().to_vec());
        Self { memory, filled: self.filled, end: self.filled, home: Arc::clone(&self.home) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.memory.0.len() < LEN_MIN {
            return;
        }
        let mut all = lock(&self.home.blocks);
        if all.len() >= KEPT_MAX {
            drop(all.remove(0));
        }
        all.push(Memory(std::mem::take(&mut self.memory.0)));
    }
}

/// What bytes can be read into.
pub trait Room {
    /// How many bytes there are.
    fn filled(&self) -> usize;

    /// Takes back all bytes behind the first `len`.
    fn cut(&mut self, len: usize);

    /// Has `write` put bytes behind those that are there, where there is room for up to `len`, and keeps as many as it
    /// tells.
    ///
    /// # Errors
    /// Those of `write`; nothing is added then.
    fn append<E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E>;
}

impl Room for Block {
    fn filled(&self) -> usize {
        self.filled
    }

    fn cut(&mut self, len: usize) {
        self.filled = self.filled.min(len);
    }

    fn append<E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let room = self.end.saturating_sub(self.filled).min(len);
        let end = self.filled.saturating_add(room);
        let written = write(self.memory.0.get_mut(self.filled..end).unwrap_or_default())?.min(room);
        self.filled = self.filled.saturating_add(written);
        Ok(written)
    }
}

/// Its memory may hold nothing yet, so it is cleared before it is written over.
impl Room for BytesMut {
    fn filled(&self) -> usize {
        self.len()
    }

    fn cut(&mut self, len: usize) {
        self.truncate(len);
    }

    fn append<E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let start = self.len();
        self.resize(start.saturating_add(len), 0);
        let outcome = self.get_mut(start..).map_or(Ok(0), write);
        let written = outcome.as_ref().map_or(0, |written| *written).min(len);
        self.truncate(start.saturating_add(written));
        outcome.map(|_| written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 512 << 10;

    /// A filled buffer.
    fn filled(buffers: &Buffers, len: usize) -> BytesMut {
        let mut buffer = buffers.take(len);
        assert!(buffer.is_empty() && buffer.capacity() >= len);
        buffer.resize(len, 1);
        buffer
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_part_of_it_is_gone() {
        let buffers = Buffers::default();
        let mut first = filled(&buffers, LEN);
        let at = first.as_ptr();
        let part = first.split_off(LEN - 16).freeze();
        drop(first);
        assert_ne!(filled(&buffers, LEN).as_ptr(), at, "a part of it is in use");
        assert_eq!(part[..], [1; 16], "and is as it was");
        drop(part);
        // The other buffer was given out later, so it comes first.
        let other = filled(&buffers, LEN);
        assert_eq!(filled(&buffers, LEN - 16).as_ptr(), at);
        drop(other);
    }

    #[test]
    fn buffers_in_use_are_not_given_out_and_not_kept_without_end() {
        let buffers = Buffers::default();
        let used: Vec<BytesMut> = (0..KEPT_MAX * 2).map(|_| filled(&buffers, LEN)).collect();
        let mut places: Vec<_> = used.iter().map(|buffer| buffer.as_ptr()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), KEPT_MAX * 2);
        drop(used);
        assert_eq!(lock(&buffers.0.kept).len(), KEPT_MAX);
    }

    #[test]
    fn a_small_payload_does_not_hold_a_large_buffer() {
        let buffers = Buffers::default();
        let at = filled(&buffers, LEN).as_ptr();
        assert_ne!(filled(&buffers, LEN / 2 - 1).as_ptr(), at);
        drop(filled(&buffers, LEN_MIN - 1));
        assert_eq!(lock(&buffers.0.kept).len(), 2, "a short one is not kept at all");
    }

    #[test]
    fn a_block_shows_what_was_written_to_it_and_its_memory_comes_back() {
        let buffers = Buffers::default();
        let write = |byte| {
            move |room: &mut [u8]| {
                room.fill(byte);
                Ok::<_, ()>(room.len() - 1)
            }
        };
        let mut block = buffers.block(LEN);
        assert!(block.is_empty());
        assert_eq!(block.append(4, write(1)), Ok(3));
        assert_eq!(block.append(usize::MAX, |_| Err(7)), Err(7));
        assert_eq!(block.append(usize::MAX, write(2)), Ok(LEN - 4));
        assert!(block.len() == LEN - 1 && block.as_ref()[..4] == [1, 1, 1, 2]);
        let at = block.as_ref().as_ptr();
        let copy = block.clone();
        assert!(copy.as_ref() == block.as_ref() && copy.as_ref().as_ptr() != at);
        block.cut(2);
        assert_eq!(block.as_mut(), [1, 1]);
        drop(block);
        // Another one has the memory, and sees nothing of what was there.
        let mut again = buffers.block(LEN - 16);
        assert!(again.is_empty() && again.as_ref().is_empty());
        assert_eq!(again.append(1 << 30, |room| Ok::<_, ()>(room.len())), Ok(LEN - 16));
        assert_eq!(again.as_ref().as_ptr(), at);
        drop(buffers.block(LEN_MIN - 1));
        assert!(lock(&buffers.0.blocks).is_empty(), "a short one is not kept");
    }

    #[test]
    fn a_buffer_that_is_too_short_does_not_grow() {
        let buffers = Buffers::default();
        drop(filled(&buffers, LEN));
        drop(filled(&buffers, LEN + 16));
        assert_eq!(lock(&buffers.0.kept).len(), 2);
    }
}
