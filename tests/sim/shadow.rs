//! What clients were told, and nothing that only the server knows: handles with their rights, locks, and for each block of
//! each file which version of it may be read.

use std::collections::{BTreeMap, BTreeSet};

use bowline::model::{ByteRange, HandleId, LockMode, OpenId, OpenMode, PublicKey, ResumeKey, Rights, Time};
use bowline::session::client::Ticket;

use super::pair::Who;

/// Every block has this many bytes.
pub(crate) const BLOCK: usize = 64;
/// Every file has so many blocks; appends go behind them.
pub(crate) const BLOCKS: usize = 6;
/// The files that clients share.
pub(crate) const FILES: [&str; 3] = ["a", "b", "c"];

/// Everything that was told.
#[derive(Default)]
pub(crate) struct Shadow {
    pub(crate) parts: Vec<Part>,
    pub(crate) files: [FileShadow; FILES.len()],
    /// Locks that were told and not given back.
    pub(crate) locks: BTreeMap<(OpenId, usize), LockMode>,
    pub(crate) pending: Vec<Pending>,
    /// Grants that were made and not taken.
    pub(crate) grants: Vec<GrantShadow>,
    /// Versions of blocks that a client was told are lost; each is told once.
    pub(crate) told_lost: BTreeMap<(Who, OpenId, usize), u64>,
    /// Who has asked for each append, by its bytes.
    pub(crate) appends: BTreeMap<Vec<u8>, (Who, Ticket)>,
    /// Opens that may have ended for a reason that is no fault: closed, moved, or with a table that is not believed.
    pub(crate) given_up: BTreeSet<OpenId>,
}

/// A handle.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) who: Who,
    pub(crate) name: u8,
    pub(crate) handle: HandleId,
    pub(crate) open: OpenId,
    pub(crate) file: usize,
    pub(crate) rights: Rights,
    pub(crate) life: Life,
    /// What its ring has of it.
    pub(crate) key: ResumeKey,
    /// Versions of blocks that were acknowledged to it and not yet to be durable.
    pub(crate) unsynced: BTreeMap<usize, u64>,
    /// It came of a grant, or is given up for one: it may end without its own doing.
    pub(crate) is_loose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It can be used.
    Usable,
    /// Its process is dead; its key is in the ring, with the handle as the server knew it.
    Inheritable(HandleId),
    /// Its key was presented by the next process, and there is no answer.
    Coming,
    /// It was closed, or has been told to be lost.
    Over,
}

/// One file.
#[derive(Default, Clone)]
pub(crate) struct FileShadow {
    pub(crate) blocks: [Block; BLOCKS],
}

/// One block of a file. At most one write of it is under way, of all clients, so that its versions are in order.
#[derive(Default, Clone)]
pub(crate) struct Block {
    /// The newest version that was acknowledged.
    pub(crate) acknowledged: u64,
    /// The oldest that anybody may still read: the acknowledged one, unless that was lost with a machine.
    pub(crate) floor: u64,
    /// The newest version that was sent.
    pub(crate) issued: u64,
    pub(crate) is_being_written: bool,
    /// A write of it has ended without an outcome: it may be executed late. Nobody writes it any more.
    pub(crate) is_foul: bool,
}

/// A part that was granted.
pub(crate) struct GrantShadow {
    pub(crate) key: ResumeKey,
    pub(crate) to: u8,
    pub(crate) giver: usize,
    pub(crate) rights: Rights,
    pub(crate) file: usize,
    pub(crate) moves: bool,
}

/// A request without an outcome.
pub(crate) struct Pending {
    pub(crate) who: Who,
    pub(crate) ticket: Ticket,
    pub(crate) asked_at: Time,
    pub(crate) what: Asked,
}

#[derive(Clone)]
pub(crate) enum Asked {
    Open {
        name: u8,
        file: usize,
        mode: OpenMode,
        guard: bool,
    },
    /// A part that a dead process has left.
    Inherit {
        part: usize,
        name: u8,
        handle: HandleId,
    },
    /// A grant, or the key of another process of the same identity.
    Take {
        name: u8,
        file: usize,
        rights: Rights,
        giver: usize,
        is_grant: bool,
        moves: bool,
    },
    /// Somebody else's key.
    Steal,
    Read {
        part: usize,
        block: usize,
        floor: u64,
    },
    Write {
        part: usize,
        block: usize,
        version: u64,
    },
    Append {
        part: usize,
    },
    Sync {
        part: usize,
        covers: BTreeMap<usize, u64>,
    },
    Lock {
        part: usize,
        block: usize,
        mode: LockMode,
        has_waited: bool,
    },
    Unlock {
        part: usize,
    },
    Close {
        part: usize,
        covers: BTreeMap<usize, u64>,
    },
    Grant {
        part: usize,
        to: u8,
        rights: Rights,
        moves: bool,
    },
    /// A contender, at the tick before the grace of an orphan is over or later.
    Contend {
        file: usize,
        open: OpenId,
        is_early: bool,
    },
}

impl Shadow {
    pub(crate) fn block(&mut self, file: usize, block: usize) -> &mut Block {
        &mut self.files[file].blocks[block]
    }

    /// Handles that a client can use.
    pub(crate) fn usable(&self, who: Who) -> Vec<usize> {
        let is_usable = |part: &Part| part.who == who && part.life == Life::Usable;
        (0..self.parts.len()).filter(|&at| is_usable(&self.parts[at])).collect()
    }

    /// Whether something about the locks of an open is under way.
    pub(crate) fn is_locking(&self, open: OpenId) -> bool {
        let part = |what: &Asked| match what {
            Asked::Lock { part, .. } | Asked::Unlock { part } => Some(*part),
            _ => None,
        };
        self.pending
            .iter()
            .filter_map(|pending| part(&pending.what))
            .any(|part| self.parts[part].open == open)
    }

    /// What an open had is nobody's any more.
    pub(crate) fn give_up(&mut self, open: OpenId) {
        self.given_up.insert(open);
        self.locks.retain(|(of, _), _| *of != open);
    }
}

/// Where a block is.
pub(crate) fn range_of(block: usize) -> ByteRange {
    let start = offset_of(block);
    ByteRange::between(start, start + u64::try_from(BLOCK).unwrap()).unwrap()
}

pub(crate) fn offset_of(block: usize) -> u64 {
    u64::try_from(block * BLOCK).unwrap()
}

/// The bytes of a version of a block: no two are equal. Version 0 is what a file begins with.
pub(crate) fn bytes_of(file: usize, block: usize, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; BLOCK];
    }
    format!("{} {block:>20} {version:>41}", FILES[file]).into_bytes()
}

/// Which version of a block these bytes are, if they are one.
pub(crate) fn version_of(file: usize, block: usize, bytes: &[u8]) -> Option<u64> {
    if bytes.len() != BLOCK {
        return None;
    }
    let text = std::str::from_utf8(&bytes[BLOCK - 41..]).ok()?;
    let version = text.trim().parse().unwrap_or(0);
    (*bytes == *bytes_of(file, block, version)).then_some(version)
}

pub(crate) fn identity(name: u8) -> PublicKey {
    PublicKey([name; 32])
}
