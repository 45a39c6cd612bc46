//! Buffers for payload that are used again: memory that comes from the system has to be mapped and cleared page by
//! page, which for a read costs about as much as signing it. docs/performance.md has the figures.
//!
//! Nobody gives a buffer back. A second handle without bytes stays here, and once it is the only one that is left
//! the memory is free: so bytes may go to callers, queues and files, whole or in parts, for as long as they like.

use std::sync::{Arc, Mutex, PoisonError};

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
pub struct Buffers(Arc<Mutex<Vec<Kept>>>);

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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT_MAX);
    }

    #[test]
    fn a_small_payload_does_not_hold_a_large_buffer() {
        let buffers = Buffers::default();
        let at = filled(&buffers, LEN).as_ptr();
        assert_ne!(filled(&buffers, LEN / 2 - 1).as_ptr(), at);
        drop(filled(&buffers, LEN_MIN - 1));
        assert_eq!(buffers.0.lock().unwrap().len(), 2, "a short one is not kept at all");
    }

    #[test]
    fn a_buffer_that_is_too_short_does_not_grow() {
        let buffers = Buffers::default();
        drop(filled(&buffers, LEN));
        drop(filled(&buffers, LEN + 16));
        assert_eq!(buffers.0.lock().unwrap().len(), 2);
    }
}
