//! Each thing that a client can ask, drawn from the seed. What it follows from the answer stands in `settle`.

use bowline::model::{Create, LockMode, OpenMode, Rights, ShareMode};
use bowline::opens::HolderPhase;
use bowline::wire::grants::Grant;

use super::pair::{OpenSpec, Who};
use super::script::Sim;
use super::shadow::{
    Asked, BLOCK, BLOCKS, FILES, GrantShadow, Life, Part, Pending, bytes_of, identity, offset_of, range_of,
};

/// Modes in which files are opened.
const MODES: [OpenMode; 4] = [
    OpenMode::READ_WRITE,
    OpenMode { rights: Rights::READ.union(Rights::WRITE), share: ShareMode::NONE },
    OpenMode { rights: Rights::READ.union(Rights::WRITE), share: ShareMode::READ.union(ShareMode::DELETE) },
    READ_ONLY,
];
/// Compatible with everything that shares reading.
pub(crate) const READ_ONLY: OpenMode = OpenMode {
    rights: Rights::READ,
    share: ShareMode::READ.union(ShareMode::WRITE).union(ShareMode::DELETE),
};
/// Handles of one client at once.
const PARTS_MAX: usize = 4;

impl Sim {
    /// A client asks something.
    pub(crate) fn ask(&mut self, who: Who, name: u8) {
        let usable = self.shadow.usable(who);
        if usable.is_empty() || (usable.len() < PARTS_MAX && self.random.chance(12)) {
            let mode = MODES[self.random.pick(MODES.len())];
            let guard = self.random.chance(15);
            let file = self.random.pick(FILES.len());
            self.ask_open(who, name, (file, mode, guard));
            return;
        }
        let part = usable[self.random.pick(usable.len())];
        match self.random.below(100) {
            0..35 => self.ask_write(part),
            35..60 => self.ask_read(part),
            60..66 => self.ask_sync(part),
            66..70 => self.ask_append(part),
            70..82 => self.ask_lock(part),
            82..88 => self.ask_unlock(part),
            88..92 => self.ask_grant(part),
            92..95 => self.ask_take(who, name),
            95..97 => self.ask_duplicate(who, name),
            _ => self.ask_close(part),
        }
    }

    pub(crate) fn ask_open(&mut self, who: Who, name: u8, (file, mode, guard): (usize, OpenMode, bool)) {
        let create_id = self.pair.create_id(who);
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap();
        let spec =
            OpenSpec { mode, create_id, grace_ms, guard, create: Create::Never, ..OpenSpec::of(FILES[file]) };
        let ticket = self.pair.open_as(who, spec);
        self.pend(who, ticket, Asked::Open { name, file, mode, guard });
    }

    pub(crate) fn ask_read(&mut self, part: usize) {
        let block = self.random.pick(BLOCKS);
        let of = &self.shadow.parts[part];
        if !of.rights.contains(Rights::READ) {
            return;
        }
        let (who, handle, file) = (of.who, of.handle, of.file);
        let floor = self.shadow.block(file, block).floor;
        let ticket = self.pair.read(who, handle, offset_of(block), u32::try_from(BLOCK).unwrap());
        self.pend(who, ticket, Asked::Read { part, block, floor });
    }

    fn ask_write(&mut self, part: usize) {
        let block = self.random.pick(BLOCKS);
        let of = &self.shadow.parts[part];
        let (who, handle, file) = (of.who, of.handle, of.file);
        if !of.rights.contains(Rights::WRITE) {
            return;
        }
        let at = self.shadow.block(file, block);
        if at.is_being_written || at.is_foul {
            return;
        }
        at.issued += 1;
        at.is_being_written = true;
        let version = at.issued;
        let ticket = self.pair.write(who, handle, offset_of(block), bytes_of(file, block, version));
        self.pend(who, ticket, Asked::Write { part, block, version });
    }

    fn ask_append(&mut self, part: usize) {
        let of = &self.shadow.parts[part];
        if !of.rights.contains(Rights::WRITE) {
            return;
        }
        let (who, handle) = (of.who, of.handle);
        self.appends += 1;
        let text = format!("append {:>8};", self.appends);
        let ticket = self.pair.append(who, handle, text.as_bytes());
        self.shadow.appends.insert(text.into_bytes(), (who, ticket));
        self.pend(who, ticket, Asked::Append { part });
    }

    pub(crate) fn ask_sync(&mut self, part: usize) {
        let of = &self.shadow.parts[part];
        let (who, handle, covers) = (of.who, of.handle, of.unsynced.clone());
        let ticket = self.pair.sync(who, handle);
        self.pend(who, ticket, Asked::Sync { part, covers });
    }

    fn ask_lock(&mut self, part: usize) {
        let block = self.random.pick(BLOCKS);
        let of = &self.shadow.parts[part];
        let (who, handle, open) = (of.who, of.handle, of.open);
        if self.shadow.is_locking(open) || of.is_loose {
            return;
        }
        let mode = if self.random.chance(70) { LockMode::Exclusive } else { LockMode::Shared };
        let wait = if self.random.chance(60) {
            super::script::millis(500 + self.random.below(3_000))
        } else {
            super::script::millis(0)
        };
        // It may become another one, or fail in a way that nobody can tell.
        self.shadow.locks.remove(&(open, block));
        let ticket = self.pair.lock(who, handle, (range_of(block), mode), wait);
        self.pend(who, ticket, Asked::Lock { part, block, mode, has_waited: false });
    }

    fn ask_unlock(&mut self, part: usize) {
        let block = self.random.pick(BLOCKS);
        let of = &self.shadow.parts[part];
        let (who, handle, open) = (of.who, of.handle, of.open);
        if self.shadow.is_locking(open) {
            return;
        }
        self.shadow.locks.remove(&(open, block));
        let ticket = self.pair.unlock(who, handle, range_of(block));
        self.pend(who, ticket, Asked::Unlock { part });
    }

    /// The key goes from hand to hand: the other client takes it when it likes.
    fn ask_grant(&mut self, part: usize) {
        let of = &self.shadow.parts[part];
        let (who, handle, name) = (of.who, of.handle, of.name);
        let to = 3 - name;
        if !of.rights.contains(Rights::GRANT) || of.is_loose {
            return;
        }
        let all = Rights::READ.union(Rights::WRITE).intersection(of.rights);
        let rights = if self.random.chance(50) { Rights::READ } else { all };
        let moves = self.random.chance(30);
        if moves {
            self.shadow.parts[part].is_loose = true;
        }
        let grant = Grant { handle, to: identity(to), rights, lasts_ms: 0, deliver: false, gives_up: moves };
        let ticket = self.pair.control(who, grant);
        self.pend(who, ticket, Asked::Grant { part, to, rights, moves });
    }

    fn ask_take(&mut self, who: Who, name: u8) {
        let Some(at) = self.shadow.grants.iter().position(|grant| grant.to == name) else { return };
        let grant = self.shadow.grants.swap_remove(at);
        let ticket = self.pair.resume(who, &grant.key, None);
        let GrantShadow { file, rights, giver, moves, .. } = grant;
        self.pend(who, ticket, Asked::Take { name, file, rights, giver, is_grant: true, moves });
    }

    /// Another process of the same identity has a handle of the same open, too.
    fn ask_duplicate(&mut self, who: Who, name: u8) {
        let is_other = |at: &usize| {
            let part = &self.shadow.parts[*at];
            part.name == name && part.who != who && part.life == Life::Usable && !part.is_loose
        };
        let Some(giver) = (0..self.shadow.parts.len()).find(is_other) else { return };
        let part = &self.shadow.parts[giver];
        let (file, rights, other, handle) = (part.file, part.rights, part.who, part.handle);
        let Some(key) = self.pair.core(other).resume_key(handle) else { return };
        let (session, current) = (self.pair.session(other), self.pair.core(other).current(handle));
        let holder = self.pair.server.table().holder(session, current);
        if !holder.is_ok_and(|holder| holder.phase == HolderPhase::Live) {
            // Its own process has not come back since the server was started anew, and is first.
            return;
        }
        let ticket = self.pair.resume(who, &key, None);
        self.pend(who, ticket, Asked::Take { name, file, rights, giver, is_grant: false, moves: false });
    }

    pub(crate) fn ask_close(&mut self, part: usize) {
        let of = &mut self.shadow.parts[part];
        of.life = Life::Over;
        let (who, handle, open, covers) = (of.who, of.handle, of.open, of.unsynced.clone());
        let is_last = !self.shadow.parts.iter().any(|part| part.open == open && part.life != Life::Over);
        if is_last {
            self.shadow.give_up(open);
        }
        let ticket = self.pair.close(who, handle);
        self.pend(who, ticket, Asked::Close { part, covers });
    }

    /// A process takes over what a dead one has left in the ring.
    pub(crate) fn ask_inherit(&mut self, who: Who, name: u8, part: usize) {
        let of = &mut self.shadow.parts[part];
        let Life::Inheritable(handle) = of.life else { return };
        of.life = Life::Coming;
        let key = of.key.clone();
        let ticket = self.pair.resume(who, &key, Some(handle));
        self.pend(who, ticket, Asked::Inherit { part, name, handle });
    }

    /// Somebody presents a key that was never theirs.
    pub(crate) fn ask_steal(&mut self) {
        let others: Vec<&Part> = self.shadow.parts.iter().filter(|part| part.who != self.stranger).collect();
        if others.is_empty() {
            return;
        }
        let key = others[self.random.pick(others.len())].key.clone();
        let ticket = self.pair.resume(self.stranger, &key, None);
        self.pend(self.stranger, ticket, Asked::Steal);
    }

    pub(crate) fn pend(&mut self, who: Who, ticket: bowline::session::client::Ticket, what: Asked) {
        let asked_at = self.pair.now();
        self.shadow.pending.push(Pending { who, ticket, asked_at, what });
    }
}
