//! The bytes of a key ring: a line that names the version, then slots of 64 bytes and multiples of them.
//!
//! ```text
//!  bowline-key-ring-1\n
//!  slot: length 4 │ state 1 │ zeros 3 │ length of the body 4 │ body │ sum 16 │ zeros
//! ```
//!
//! A slot's length never changes, so nothing that happens to one slot reaches another. State 1 is an open, 0 nothing:
//! the slot is zeros from its state on. The sum over all before it, BLAKE2s of 128 bits, tells a slot that was written
//! in part, or was damaged. What does not make a whole slot at the end was being appended when its owner died.

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::KeptOpen;
use crate::model::{ExportName, ExportPath, HandleId, OpenMode, PublicKey, ResumeKey, StoreId, len_u64};
use crate::wire::codec;

/// How a ring begins.
pub(super) const HEADER: &[u8] = b"bowline-key-ring-1\n";
/// Where the state stands in a slot: all from here on is zeros where there is no open.
pub(super) const STATE_AT: usize = 4;
const HEAD_LEN: usize = 12;
const SUM_LEN: usize = 16;
const STEP: usize = 64;
/// Longest slot, in bytes: an open with a path of 4,095 bytes takes 4.5 KiB.
const SLOT_LEN_MAX: usize = 8 << 10;
const LIVE: u8 = 1;
const FREE: u8 = 0;

/// An open and the way back to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kept: KeptOpen,
    /// The server's store, with which the key ends.
    pub(super) store: StoreId,
    /// The handle, for its successor to name.
    pub(super) handle: HandleId,
    /// The handle whose successor this one is: an entry that a crash has left of it counts no more.
    pub(super) in_place_of: Option<HandleId>,
    pub(super) key: ResumeKey,
}

/// Where a slot stands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) len: usize,
}

/// What the bytes of a ring's file are.
pub(super) enum Reading {
    Ring(Slots),
    /// Its owner died before the first line was whole, so there is no key in it.
    Unfinished,
    Unknown,
}

/// What is in a ring.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) live: Vec<(Place, Entry)>,
    /// Slots that are damaged, or more of them, but for one that was just being written.
    pub(super) lost: usize,
}

/// What a slot's body says.
#[derive(Serialize, Deserialize)]
struct Body {
    server: PublicKey,
    store: StoreId,
    export: ExportName,
    path: ExportPath,
    mode: OpenMode,
    kept_us: u64,
    handle: HandleId,
    in_place_of: Option<HandleId>,
    /// The resume key's text.
    key: String,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The body of an entry's slot.
pub(super) fn body(entry: &Entry) -> Zeroizing<Vec<u8>> {
    let Entry { kept, store, handle, in_place_of, key } = entry;
    let body = Body {
        server: kept.server,
        store: *store,
        export: kept.export.clone(),
        path: kept.path.clone(),
        mode: kept.mode,
        kept_us: kept.kept_us,
        handle: *handle,
        in_place_of: *in_place_of,
        key: key.to_text().as_str().to_owned(),
    };
    // Room for all of it at once: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SLOT_LEN_MAX));
    codec::encode(&body, &mut bytes);
    bytes
}

/// The least length of a slot for this body.
pub(super) fn slot_len(body: &[u8]) -> usize {
    HEAD_LEN.saturating_add(body.len()).saturating_add(SUM_LEN).next_multiple_of(STEP)
}

/// The slot of `len` bytes with this body in it; `None` if it is too short, or longer than any.
pub(super) fn slot(body: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
    if slot_len(body) > len || len > SLOT_LEN_MAX {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    bytes.extend_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
    bytes.extend_from_slice(&[LIVE, 0, 0, 0]);
    bytes.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(body);
    let sum = sum(&bytes);
    bytes.extend_from_slice(&sum);
    bytes.resize(len, 0);
    Some(bytes)
}

/// What the bytes of a ring's file say.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let Some(mut rest) = bytes.strip_prefix(HEADER) else {
        return if HEADER.starts_with(bytes) { Reading::Unfinished } else { Reading::Unknown };
    };
    let mut slots = Slots::default();
    let mut at = len_u64(HEADER.len());
    while let Some((slot, behind)) = first_slot(rest) {
        let place = Place { at, len: slot.len() };
        match slot.get(STATE_AT) {
            Some(&FREE) => {}
            Some(&LIVE) => match entry(slot) {
                Some(entry) => slots.live.push((place, entry)),
                // The last one was being written.
                None if behind.is_empty() => {}
                None => slots.lost += 1,
            },
            _ => slots.lost += 1,
        }
        at = at.saturating_add(len_u64(slot.len()));
        rest = behind;
    }
    if rest.len() > SLOT_LEN_MAX {
        slots.lost += 1;
    }
    Reading::Ring(slots)
}

/// The first slot and what is behind it; `None` where there is no whole one.
fn first_slot(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let is_length = (STEP..=SLOT_LEN_MAX).contains(&len) && len.is_multiple_of(STEP);
    if is_length { bytes.split_at_checked(len) } else { None }
}

/// The open in a slot, if all of it is as it was written.
fn entry(slot: &[u8]) -> Option<Entry> {
    let len = u32::from_le_bytes(*slot.get(8..)?.first_chunk()?);
    let end = HEAD_LEN.checked_add(usize::try_from(len).ok()?)?;
    let (summed, behind) = slot.split_at_checked(end)?;
    if *behind.first_chunk::<SUM_LEN>()? != sum(summed) {
        return None;
    }
    let mut body: Body = codec::decode(summed.get(HEAD_LEN..)?).ok()?;
    let key: ResumeKey = Zeroizing::new(std::mem::take(&mut body.key)).parse().ok()?;
    let kept = KeptOpen {
        id: key.file_id,
        server: body.server,
        export: body.export.clone(),
        path: body.path.clone(),
        mode: body.mode,
        kept_us: body.kept_us,
    };
    Some(Entry { kept, store: body.store, handle: body.handle, in_place_of: body.in_place_of, key })
}

fn sum(bytes: &[u8]) -> [u8; SUM_LEN] {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new(&[0; 32].into());
    mac.update(bytes);
    mac.finalize_fixed().into()
}
