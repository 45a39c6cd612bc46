//! What must hold of the server after each single step, whatever was asked of it and whatever has failed:
//!
//! - opens of one file that are held or orphaned are compatible, and their locks do not conflict;
//! - an orphan stays until its grace is over, across restarts as well, and a guarded one keeps everybody out;
//! - an open and a lock that were told are there until they are given back or lawfully broken;
//! - a write runs once in a life of the server, never behind a newer one that was acknowledged, never within somebody
//!   else's lock; an append runs once for ever, or again while nobody was told of it and a machine has taken its bytes;
//! - epochs rise; no key goes over a data channel; nothing grows beyond its bound.
//!
//! The rules are written anew here, with the plainest means: nothing of them is taken from the table itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline::model::{
    ByteRange, ChannelKind, Epoch, HandleId, Limits, LockMode, OpenId, OpenMode, PublicKey, Rights,
    SessionId, ShareMode, Time,
};
use bowline::opens::{HolderPhase, HolderView, OpenPhase};

use super::causes::Causes;
use super::pair::disk::How;
use super::pair::{Pair, Who};
use super::seen::{Seen, Tally};
use super::shadow::{BLOCK, FILES, Life, Shadow, range_of, version_of};

/// Each orphan has this long after a restart at least.
pub(crate) const RECOVERY: Duration = Duration::from_secs(10);

/// What was seen of the server until now.
pub(crate) struct Watch {
    opens: BTreeMap<OpenId, Known>,
    /// Holders that are away, and until when that keeps others out.
    away: BTreeMap<HandleId, Time>,
    /// The grace of every open of this run; none is longer than [`RECOVERY`].
    grace: Duration,
    guarded: BTreeSet<OpenId>,
    writes: usize,
    executed: BTreeMap<(Vec<u8>, How), (u64, Epoch)>,
    answers: usize,
    sent: BTreeMap<Who, usize>,
    epochs: BTreeMap<Who, (SessionId, Epoch)>,
    pub(crate) restarted_at: Option<Time>,
    /// Opens to which another client has written while they were orphaned, and whose owners have not heard of it.
    pub(crate) changed: BTreeSet<OpenId>,
    /// What a change that is told may come of.
    pub(crate) causes: Causes,
    /// When each open was seen first.
    pub(crate) first_seen: BTreeMap<OpenId, Time>,
    /// Opens that contenders have broken.
    pub(crate) broken: BTreeSet<OpenId>,
}

/// An open as it was at the last step.
#[derive(Clone, Copy)]
struct Known {
    owner: PublicKey,
    inode: u64,
    mode: OpenMode,
    phase: OpenPhase,
    /// A sum over its handles.
    holders: u64,
    /// Nobody may break it before.
    protected_until: Time,
}

impl Watch {
    pub(crate) fn new(grace: Duration) -> Self {
        assert!(grace <= RECOVERY);
        Self {
            opens: BTreeMap::new(),
            away: BTreeMap::new(),
            grace,
            guarded: BTreeSet::new(),
            writes: 0,
            executed: BTreeMap::new(),
            answers: 0,
            sent: BTreeMap::new(),
            epochs: BTreeMap::new(),
            restarted_at: None,
            changed: BTreeSet::new(),
            causes: Causes::default(),
            first_seen: BTreeMap::new(),
            broken: BTreeSet::new(),
        }
    }

    /// An open that was told to have a guard.
    pub(crate) fn guard(&mut self, open: OpenId) {
        self.guarded.insert(open);
    }

    /// Orphans whose time is known: they, their files, and until when they are protected.
    pub(crate) fn orphans(&self, pair: &Pair) -> Vec<(OpenId, u64, OpenMode, Time)> {
        let orphans = self.opens.iter().filter(|(_, known)| known.phase == OpenPhase::Orphaned);
        let deadline = |id| pair.server.table().open(id).and_then(|open| open.deadline);
        orphans.filter_map(|(&id, known)| Some((id, known.inode, known.mode, deadline(id)?))).collect()
    }

    /// Whether an open is there and was reachable, or may be again.
    pub(crate) fn phase(&self, open: OpenId) -> Option<OpenPhase> {
        self.opens.get(&open).map(|known| known.phase)
    }

    pub(crate) fn is_owner(&self, open: OpenId, client: &PublicKey) -> bool {
        self.opens.get(&open).is_some_and(|known| known.owner == *client)
    }

    /// Whether opens of this file are ending.
    pub(crate) fn is_draining(&self, inode: u64) -> bool {
        self.opens.values().any(|known| known.inode == inode && known.phase == OpenPhase::Closing)
    }

    /// Whether a guarded orphan keeps everybody out of this file.
    pub(crate) fn is_guarded(&self, inode: u64) -> bool {
        let guards = |(id, known): (&OpenId, &Known)| {
            known.inode == inode && known.phase == OpenPhase::Orphaned && self.guarded.contains(id)
        };
        self.opens.iter().any(guards)
    }

    /// The server has been started anew: what was told is still there, and each orphan has its time.
    pub(crate) fn after_restart(&mut self, pair: &Pair, shadow: &Shadow, is_table_lost: bool) {
        let table = pair.server.table();
        self.restarted_at = Some(pair.now());
        self.causes.after_restart();
        let protected_until = pair.now().after(RECOVERY);
        if !is_table_lost {
            for part in shadow.parts.iter().filter(|part| part.life != Life::Over) {
                let was_there = matches!(self.phase(part.open), Some(OpenPhase::Held | OpenPhase::Orphaned));
                let is_there = table.open(part.open).is_some() || shadow.given_up.contains(&part.open);
                pair.check(
                    is_there || !was_there,
                    &format!("{:?} was told and is not in the next server's table", part.open),
                );
            }
        }
        self.opens.clear();
        self.away = table.holders().map(|holder| (holder.handle, protected_until)).collect();
        for open in table.opens() {
            let is_protected = open.deadline.is_some_and(|deadline| deadline >= protected_until);
            pair.check(is_protected, "a restart leaves an orphan too little time");
            self.opens.insert(open.open, known(&open, protected_until));
        }
    }

    /// Looks at everything that the last step may have changed.
    pub(crate) fn look(&mut self, pair: &Pair, shadow: &Shadow, tally: &mut Tally) {
        self.causes.look(pair);
        self.look_at_files(pair, shadow, tally);
        self.look_at_opens(pair, shadow, tally);
        look_at_locks(pair, shadow);
        self.look_at_channels(pair);
    }

    fn look_at_opens(&mut self, pair: &Pair, shadow: &Shadow, tally: &mut Tally) {
        let (table, now) = (pair.server.table(), pair.now());
        let is_away = |holder: &HolderView<'_>| holder.phase == HolderPhase::Away;
        self.away = (table.holders().filter(is_away))
            .map(|holder| {
                let since_before = self.away.get(&holder.handle).copied();
                (holder.handle, since_before.unwrap_or_else(|| now.after(self.grace)))
            })
            .collect();
        let mut next = BTreeMap::new();
        for open in table.opens() {
            let before = self.opens.get(&open.open).copied();
            if before.is_none() {
                self.first_seen.entry(open.open).or_insert(now);
                self.check_guards(pair, (open.open, open.file.inode));
            }
            // The latest of those of its holders that are away.
            let protected = open.holders.iter().filter_map(|handle| self.away.get(handle)).max();
            let protected_until = protected.copied().unwrap_or(Time(0));
            if let Some(deadline) = open.deadline {
                pair.check(deadline >= protected_until, "the grace of an orphan is too short");
            }
            let bound = Limits::default().keys_per_open + 4 * Limits::KEYS_PER_GRANT;
            pair.check(open.keys <= bound, "an open has too many keys");
            next.insert(open.open, known(&open, protected_until));
        }
        for (id, before) in &self.opens {
            let is_back = next.get(id).is_some_and(|after| after.phase == OpenPhase::Held);
            if before.phase == OpenPhase::Orphaned
                && is_back
                && next.get(id).map(|after| after.holders) == Some(before.holders)
            {
                // In the same session: its client was away for a moment, and is told nothing.
                self.changed.remove(id);
            }
            let is_ending = next.get(id).is_none_or(|after| after.phase == OpenPhase::Closing);
            // The store has no room for its record, and so nobody was told of it.
            let is_untold = pair.store.is_full && !pair.store.opens.contains_key(id);
            if before.phase == OpenPhase::Orphaned && is_ending {
                let is_lawful = now >= before.protected_until || shadow.given_up.contains(id);
                pair.check(is_lawful || is_untold, "an orphan was broken before its grace was over");
                self.broken.insert(*id);
                tally.add(Seen::OrphanBroken, u64::from(!is_untold));
            }
        }
        self.opens = next;
        for (id, one) in &self.opens {
            for (other_id, other) in self.opens.range(..id) {
                let both = [one, other].iter().all(|open| open.phase != OpenPhase::Closing);
                if one.inode == other.inode && both {
                    pair.check(goes_with(one.mode, other.mode), "two opens of one file exclude each other");
                    check_conflicts(pair, *id, *other_id);
                }
            }
        }
    }

    /// A newcomer beside a guarded orphan whose grace is not over.
    fn check_guards(&self, pair: &Pair, (newcomer, inode): (OpenId, u64)) {
        let guards = self.opens.iter().any(|(id, known)| {
            let is_guarding = self.guarded.contains(id) && known.phase == OpenPhase::Orphaned;
            *id != newcomer && known.inode == inode && is_guarding && pair.now() < known.protected_until
        });
        pair.check(!guards, "a newcomer got past a guarded orphan");
    }

    fn look_at_files(&mut self, pair: &Pair, shadow: &Shadow, tally: &mut Tally) {
        for (at, write) in pair.disk.writes[self.writes..].iter().enumerate() {
            let Some(file) = FILES.iter().position(|path| pair.disk.inode_of(path) == write.inode) else {
                continue;
            };
            let place = (write.payload.to_vec(), write.how);
            let before = self.executed.insert(place.clone(), (1, write.life));
            if let Some((times, life)) = before {
                let is_again = life < write.life
                    && (write.how == How::Written || is_all_lost_but(pair, self.writes + at));
                pair.check(is_again, "something was executed twice");
                self.executed.insert(place, (times + 1, write.life));
            }
            let owner = self.opens.get(&write.open).map(|open| open.owner);
            for (id, known) in &self.opens {
                let is_orphan = known.inode == write.inode && known.phase == OpenPhase::Orphaned;
                if is_orphan && owner.is_some_and(|owner| owner != known.owner) {
                    self.changed.insert(*id);
                }
            }
            if write.how == How::Appended {
                let asked = shadow.appends.get(&write.payload[..]);
                let is_awaited = asked.is_some_and(|&(who, ticket)| !pair.is_answered(who, ticket));
                pair.check(is_awaited, "an append runs behind its answer");
                continue;
            }
            let block = usize::try_from(write.offset).unwrap() / BLOCK;
            let Some(version) = version_of(file, block, &write.payload) else { continue };
            let told = &shadow.files[file].blocks[block];
            let is_newest = version >= told.acknowledged || told.is_foul;
            let text = format!(
                "{:?}: version {version} of block {block} of {file} runs behind {}",
                write.open, told.acknowledged
            );
            pair.check(is_newest, &text);
            if version == told.acknowledged && before.is_some() {
                tally.note(Seen::WrittenAgain);
            }
            let excluding = shadow
                .locks
                .keys()
                .find(|(open, at)| *at == block && *open != write.open)
                .filter(|(open, _)| self.opens.get(open).is_some_and(|open| open.inode == write.inode));
            pair.check(excluding.is_none(), "a write runs within somebody else's lock");
        }
        self.writes = pair.disk.writes.len();
    }

    fn look_at_channels(&mut self, pair: &Pair) {
        for sent in &pair.answers[self.answers..] {
            let is_safe = !sent.has_secret || sent.channel == ChannelKind::Control;
            pair.check(is_safe, "a key went over a data channel");
        }
        self.answers = pair.answers.len();
        for who in pair.everybody() {
            let seen = self.sent.entry(who).or_default();
            for sent in &pair.sent(who)[*seen..] {
                let is_safe = !sent.has_secret || sent.channel == ChannelKind::Control;
                pair.check(is_safe, "a key went over a data channel");
            }
            *seen = pair.sent(who).len();
            let (session, epoch) = (pair.session(who), pair.core(who).terms().epoch);
            if let Some((former, before)) = self.epochs.insert(who, (session, epoch)) {
                pair.check(before <= epoch, "an epoch fell");
                let is_said = session == former || epoch == pair.life.0;
                pair.check(is_said, "a session has begun with another epoch than that of its server's life");
            }
            let core = pair.core(who);
            let bound = core.limits().unsynced_bytes.saturating_add(core.limits().bytes);
            pair.check(core.unsynced_bytes() <= bound, "a client keeps more than its budget");
        }
        let tombstones = Limits::default().tombstones_total;
        pair.check(pair.server.table().tombstones_len() <= tombstones, "too many tombstones");
    }
}

fn known(open: &bowline::opens::OpenView<'_>, protected_until: Time) -> Known {
    Known {
        owner: *open.owner,
        inode: open.file.inode,
        mode: open.mode,
        phase: open.phase,
        holders: open.holders.iter().fold(0, |sum, handle| sum ^ handle.0),
        protected_until,
    }
}

/// Whether of an append that has just been executed nothing is left but this time: whatever was executed of it in earlier
/// lives was not synced when their machines ended.
///
/// An append is acknowledged as received, and so is not promised to outlive the machine. If the machine ends between the
/// append and its answer, the file may be as it was before: the next life finds the end where the record says that it
/// was, tells *not executed*, and the client appends once more. That is no second time, for the bytes of the first are
/// nowhere: whoever counts them in the file finds one. A process that ends takes nothing along, so what it has appended
/// is never appended again; nor is what was synced.
fn is_all_lost_but(pair: &Pair, last: usize) -> bool {
    let (earlier, last) = (&pair.disk.writes[..last], &pair.disk.writes[last]);
    let mut same = earlier.iter().filter(|write| write.payload == last.payload);
    same.all(|write| write.is_lost && write.life < last.life)
}

/// Locks that were told, and whose open is there, are there.
fn look_at_locks(pair: &Pair, shadow: &Shadow) {
    let table = pair.server.table();
    for (&(open, block), &mode) in &shadow.locks {
        let is_there = table.open(open).is_some_and(|open| open.phase != OpenPhase::Closing);
        if !is_there {
            continue;
        }
        let wanted = range_of(block);
        let covers = |(range, has): &(ByteRange, LockMode)| {
            range.start() <= wanted.start() && range.end() >= wanted.end() && *has == mode
        };
        pair.check(table.locks(open).iter().any(covers), "a lock that was told is gone");
    }
}

fn check_conflicts(pair: &Pair, one: OpenId, other: OpenId) {
    let table = pair.server.table();
    let others = table.locks(other);
    for (range, mode) in table.locks(one) {
        let conflict = others
            .iter()
            .any(|(held, how)| held.overlaps(range) && [mode, *how].contains(&LockMode::Exclusive));
        pair.check(!conflict, "two opens have locked the same bytes");
    }
}

/// Whether two opens may be there side by side: what each does, the other shares.
fn goes_with(one: OpenMode, other: OpenMode) -> bool {
    let shares = |does: OpenMode, shared: OpenMode| {
        let reads = does.rights.contains(Rights::READ);
        let writes = does.rights.contains(Rights::WRITE) || does.rights.contains(Rights::APPEND);
        (!reads || shared.share.contains(ShareMode::READ))
            && (!writes || shared.share.contains(ShareMode::WRITE))
    };
    shares(one, other) && shares(other, one)
}
