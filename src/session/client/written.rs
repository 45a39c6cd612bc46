//! What becomes of writes that are acknowledged as received and not as durable: they are kept, within a budget, until
//! a sync; and when the server's page cache was lost they are written again, or given up and told.
//!
//! Each open has one account of them ([`Unsynced`]), whichever handle wrote: so that a duplicate's newer bytes are over
//! the first handle's older ones. Written again is only what nobody else can have replaced meanwhile:
//!
//! | the resume said | others may write to the file | written again |
//! | --- | --- | --- |
//! | unchanged | no | yes |
//! | unchanged | yes | if no other open of this session has written since |
//! | cannot tell | no | yes |
//! | cannot tell | yes | no |
//! | changed | either | no |
//!
//! Where the server says that all is durable that it had acknowledged, nothing was lost, and nothing has to be written again.
//!
//! protocol.md: Coming back.

use core::ops::Bound;
use std::collections::BTreeSet;

use super::ClientCore;
use super::handles::{HandleLife, Outcome};
use super::output::{Answer, Operation, RequestError};
use super::request::{Purpose, Request, Rewrite};
use super::unsynced::{Change, Resize, Unsynced, merge};
use crate::model::planted::{self, Bug};
use crate::model::{
    Allocation, AttributeChange, ByteRange, HandleId, LineSet, Meanwhile, OpenId, RawRange, Reason, Refusal,
    Stability, SyncScope, Time,
};
use crate::session::Payload;
use crate::wire::control::{Allocate, Stat, Sync, Target};
use crate::wire::data::Write;
use crate::wire::{ClientControl, ServerControl, control};

/// The account of one open.
#[derive(Debug)]
pub(super) struct Written<P> {
    unsynced: Unsynced<P>,
    /// The handles of the open.
    pub(super) members: BTreeSet<HandleId>,
    /// Whether others may write to the file.
    is_shared: bool,
    /// What was given up, and no sync has told yet.
    lost: Vec<ByteRange>,
    /// How a sync has failed that nobody asked for.
    error: Option<Refusal>,
    rewriting: Option<Rewriting>,
}

/// Bytes of an open are being written again.
#[derive(Debug)]
struct Rewriting {
    /// The handle that does it.
    by: HandleId,
    /// What becomes of the file's length first, the next one last.
    lengths: Vec<Resize>,
    /// What lies before was begun.
    from: u64,
    under_way: usize,
}

impl<P> Default for Written<P> {
    fn default() -> Self {
        Self {
            unsynced: Unsynced::default(),
            members: BTreeSet::new(),
            is_shared: false,
            lost: Vec::new(),
            error: None,
            rewriting: None,
        }
    }
}

impl<P> Written<P> {
    pub(super) fn is_rewriting(&self) -> bool {
        self.rewriting.is_some()
    }
}

impl<P: Payload> ClientCore<P> {
    /// How many bytes are kept because they were acknowledged as received and not as durable: what their memory is
    /// charged.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Something was done that may be lost with the server's page cache, or a sync has made it durable.
    pub(super) fn on_done(&mut self, now: Time, request: &Request<P>, answer: &Answer<P>) {
        match (&request.operation, answer) {
            (Operation::Write(write, payload, _), Answer::Written(done)) => {
                let written = (write.offset, payload, done.written);
                self.on_written(write.handle, written, (done.stability, request.covers), request.lines);
            }
            (Operation::Append(append, payload, _), Answer::Appended(done)) => {
                let written = (done.offset, payload, done.written);
                self.on_written(append.handle, written, (done.stability, request.covers), request.lines);
            }
            (Operation::Control(asked), Answer::Control(told, _)) => {
                self.on_control_done(request, asked, told)
            }
            _ => return,
        }
        self.sync_if_much(now);
    }

    /// What a caller has to hear in place of its sync's or close's success: what was lost before. Told once.
    pub(super) fn take_untold(&mut self, operation: &Operation<P>) -> Option<RequestError> {
        let handle = match operation {
            Operation::Control(ClientControl::Sync(sync)) => sync.handle,
            Operation::Control(ClientControl::Close(close)) => close.handle,
            _ => return None,
        };
        let written = self.written.get_mut(&self.handles.get(&handle)?.open?)?;
        if let Some(refusal) = written.error.take() {
            return Some(refusal.into());
        }
        let lost = core::mem::take(&mut written.lost);
        (!lost.is_empty()).then_some(RequestError::LostWrites(lost))
    }

    /// Whether a write has to wait for a sync that makes room.
    pub(super) fn writes_wait(&self) -> bool {
        self.syncing.is_some() && self.kept_bytes >= self.limits.unsynced_bytes
    }

    /// Whether what a request writes is kept.
    pub(super) fn is_kept(&self, request: &Request<P>) -> bool {
        let open = || request.waits_for().and_then(|handle| self.handles.get(&handle)?.open);
        request.is_writing() && open().is_some()
    }

    /// Begins a sync of the open of which most is kept, if much is kept of all.
    pub(super) fn sync_if_much(&mut self, now: Time) {
        if self.syncing.is_some() || self.kept_bytes < self.limits.unsynced_bytes.div_ceil(2) {
            return;
        }
        let live = |name: &&HandleId| self.is_live(**name);
        let most = self
            .written
            .iter()
            .filter(|(_, written)| !written.unsynced.is_empty())
            .filter_map(|(&open, written)| {
                Some((written.unsynced.charge(), open, *written.members.iter().find(live)?))
            })
            .max();
        if let Some((_, open, handle)) = most {
            self.begin_own_sync(now, open, handle);
        }
    }

    fn begin_own_sync(&mut self, now: Time, open: OpenId, handle: HandleId) {
        let sync = Operation::Control(Sync { handle, scope: SyncScope::Data }.into());
        self.syncing = Some(open);
        self.begin(now, (sync, LineSet::ALL), true, Purpose::Sync(open));
    }

    /// What came of a sync that nobody asked for.
    pub(super) fn on_own_sync(
        &mut self,
        now: Time,
        open: OpenId,
        request: &Request<P>,
        outcome: &Outcome<P>,
    ) {
        self.syncing = None;
        if let Some(handle) = self.next_to_ask(open, request, outcome) {
            self.begin_own_sync(now, open, handle);
            return;
        }
        self.with_unsynced(open, |unsynced| unsynced.synced(request.covers));
        if let (Err(RequestError::Refused(refusal)), Some(written)) = (outcome, self.written.get_mut(&open)) {
            // The kernel tells this once: from now on nobody knows what of it is on the disk.
            written.error.get_or_insert(*refusal);
        }
        self.sync_if_much(now);
        self.pull(now);
    }

    /// Through which handle of an open a sync is asked for once more that came behind the end of the one it was asked for
    /// with: that says nothing of the bytes. Each is asked once.
    fn next_to_ask(&self, open: OpenId, request: &Request<P>, outcome: &Outcome<P>) -> Option<HandleId> {
        let (Err(RequestError::Refused(refusal)), Operation::Control(ClientControl::Sync(sync))) =
            (outcome, &request.operation)
        else {
            return None;
        };
        if !matches!(refusal.reason, Reason::BadHandle | Reason::Revoked | Reason::TakenOver) {
            return None;
        }
        let members = &self.written.get(&open)?.members;
        let later = members.range((Bound::Excluded(sync.handle), Bound::Unbounded));
        later.copied().find(|name| self.is_live(*name))
    }

    fn is_live(&self, name: HandleId) -> bool {
        self.handles.get(&name).is_some_and(|held| held.standing == HandleLife::Live)
    }

    /// A handle was resumed: what is kept of its open and was lost with the page cache is written again, or given up,
    /// before anything else that is asked of it.
    /// `durable`: the server says that nothing was.
    pub(super) fn rewrite_or_go_on(
        &mut self,
        now: Time,
        name: HandleId,
        (meanwhile, durable): (Meanwhile, bool),
    ) {
        let open = self.handles.get(&name).and_then(|held| held.open);
        let Some((open, written)) = open.and_then(|open| Some((open, self.written.get_mut(&open)?))) else {
            self.go_on(now, name, durable);
            return;
        };
        if written.rewriting.is_some() {
            return;
        }
        if !written.unsynced.is_stale(self.cache) {
            self.go_on(now, name, durable);
            return;
        }
        if durable {
            let cache = self.cache;
            self.with_unsynced(open, |unsynced| unsynced.give_up_stale(cache));
            self.make_live(now, name);
            return;
        }
        let is_alone = match meanwhile {
            Meanwhile::Unchanged => !written.is_shared || self.sole == Some(open),
            Meanwhile::Unknown => !written.is_shared,
            Meanwhile::ChangedByClient | Meanwhile::ChangedLocally => false,
        };
        let is_alone = is_alone || planted::is(Bug::WrittenOverOthers);
        if !is_alone || !self.may_write(name) {
            self.give_up_stale(open);
            self.go_on(now, name, false);
            return;
        }
        if let Some(written) = self.written.get_mut(&open) {
            let lengths = written.unsynced.stale_lengths(self.cache);
            written.rewriting = Some(Rewriting { by: name, lengths, from: 0, under_way: 0 });
        }
        self.rewrite_on(now, open);
    }

    /// Lets a handle go on of which nothing is to be done again any more. Where something may be lost, the server has to
    /// know that first: what it has of the handle until then it takes for older than what others write.
    pub(super) fn go_on(&mut self, now: Time, name: HandleId, durable: bool) {
        if durable {
            self.make_live(now, name);
            return;
        }
        let tell = Operation::Control(Stat { handle: name }.into());
        self.begin(now, (tell, LineSet::ALL), true, Purpose::GoOn(name));
    }

    /// The server knows that nothing is done again through a handle.
    pub(super) fn on_told_to_go_on(&mut self, now: Time, name: HandleId) {
        let Some(held) = self.handles.get(&name).filter(|held| held.standing == HandleLife::Rewriting) else {
            return;
        };
        let written = held.open.and_then(|open| self.written.get(&open));
        if !written.is_some_and(Written::is_rewriting) {
            self.make_live(now, name);
        }
    }

    /// What came of something that was done again.
    pub(super) fn on_rewritten(&mut self, now: Time, open: OpenId, what: Rewrite, outcome: &Outcome<P>) {
        let cache = self.cache;
        let Some(rewriting) = self.written.get_mut(&open).and_then(|written| written.rewriting.as_mut())
        else {
            return;
        };
        rewriting.under_way = rewriting.under_way.saturating_sub(1);
        match (what, outcome) {
            (Rewrite::Length, Ok(_)) => {
                rewriting.lengths.pop();
                if rewriting.lengths.is_empty() {
                    self.with_unsynced(open, |unsynced| unsynced.lengths_renewed(cache));
                }
            }
            (Rewrite::Length, Err(_)) => {
                rewriting.lengths.clear();
                self.give_up_stale(open);
            }
            (Rewrite::Piece(range, write), outcome) => {
                let is_done = match outcome {
                    Ok(Answer::Written(done)) => {
                        u64::from(done.written) == range.end().saturating_sub(range.start())
                    }
                    Ok(_) => true,
                    Err(_) => false,
                };
                self.with_unsynced(open, |unsynced| {
                    if is_done { unsynced.renewed(range, write, cache) } else { unsynced.forget(range) }
                });
                if !is_done {
                    self.note_lost(open, vec![range]);
                }
            }
        }
        self.rewrite_on(now, open);
    }

    /// Nothing is being written again any more: the session is gone, and with it what was under way.
    pub(super) fn stop_rewriting(&mut self) {
        self.syncing = None;
        self.written.values_mut().for_each(|written| written.rewriting = None);
    }

    /// Others may write to the file of an open.
    pub(super) fn share(&mut self, open: OpenId) {
        let Some(written) = self.written.get_mut(&open).filter(|written| !written.is_shared) else { return };
        written.is_shared = true;
        if !written.unsynced.is_empty() {
            self.shared_kept = self.shared_kept.saturating_add(1);
        }
    }

    /// A handle is no part of its open any more. With the last one, what is kept of the open is forgotten.
    pub(super) fn leave_open(&mut self, name: HandleId) {
        let Some(open) = self.handles.get_mut(&name).and_then(|held| held.open.take()) else { return };
        let Some(written) = self.written.get_mut(&open) else { return };
        written.members.remove(&name);
        if written.members.is_empty() {
            self.with_unsynced(open, |unsynced| *unsynced = Unsynced::default());
            self.written.remove(&open);
        }
    }

    fn on_control_done(&mut self, request: &Request<P>, asked: &ClientControl, told: &ServerControl) {
        match (asked, told) {
            (ClientControl::Sync(sync), ServerControl::Synced(_)) => {
                if let Some(open) = self.handles.get(&sync.handle).and_then(|held| held.open) {
                    self.with_unsynced(open, |unsynced| unsynced.synced(request.covers));
                }
            }
            (ClientControl::Change(change), ServerControl::Changed(_)) => {
                if let (Target::Handle(handle), Some(len)) = (&change.target, change.change.len)
                    && let Some((open, at)) = self.next_write(*handle)
                {
                    self.with_unsynced(open, |unsynced| unsynced.set_len(len, at));
                }
            }
            (ClientControl::Allocate(allocate), ServerControl::Done(_)) => {
                let range = ByteRange::new(allocate.range).filter(|_| allocate.how == Allocation::PunchHole);
                if let Some(range) = range
                    && let Some((open, at)) = self.next_write(allocate.handle)
                {
                    self.with_unsynced(open, |unsynced| {
                        unsynced.keep(range, at, (Change::Hole, LineSet::ALL));
                    });
                }
            }
            (ClientControl::Grant(grant), ServerControl::Granted(_)) if grant.rights.is_writing() => {
                if let Some(open) = self.handles.get(&grant.handle).and_then(|held| held.open) {
                    self.share(open);
                }
            }
            _ => {}
        }
    }

    fn on_written(
        &mut self,
        handle: HandleId,
        (offset, payload, len): (u64, &P, u32),
        (stability, covers): (Stability, u64),
        lines: LineSet,
    ) {
        let Some(range) = ByteRange::between(offset, offset.saturating_add(u64::from(len))) else { return };
        let can_write = self.may_write(handle);
        let Some((open, at)) = self.next_write(handle) else { return };
        self.with_unsynced(open, |unsynced| {
            if stability == Stability::Durable {
                // It was made so by a sync of the file.
                unsynced.synced(covers);
            }
            // A length that is given again cuts off what is durable, too.
            if stability == Stability::Durable && !unsynced.has_length() {
                unsynced.forget(range);
            } else {
                let change = if can_write { Change::Bytes(payload.part(0, len)) } else { Change::Lost };
                unsynced.keep(range, at, (change, lines));
            }
        });
    }

    /// The number and the cache of a write that was just acknowledged, and the open that it belongs to; `None`: the
    /// handle could not come back, so nothing is kept for it.
    fn next_write(&mut self, handle: HandleId) -> Option<(OpenId, (u64, u64))> {
        let open = self.handles.get(&handle)?.open?;
        let written = self.written.get(&open)?;
        if written.is_shared {
            if self.sole != Some(open) {
                // Who knows whether it is the same file.
                self.sole = None;
            }
            if self.shared_kept == 0 {
                self.sole = Some(open);
            }
        }
        self.next_write = self.next_write.saturating_add(1);
        Some((open, (self.next_write, self.cache)))
    }

    /// Gives more to do that has to be done again, or lets the open's handles go on if nothing is left.
    fn rewrite_on(&mut self, now: Time, open: OpenId) {
        let cache = self.cache;
        while let Some(written) = self.written.get_mut(&open)
            && let Some(rewriting) = written.rewriting.as_mut()
        {
            let by = rewriting.by;
            let (operation, lines, what) = if let Some(&resize) = rewriting.lengths.last() {
                if rewriting.under_way > 0 {
                    return;
                }
                (resize_request(by, resize), LineSet::ALL, Rewrite::Length)
            } else if rewriting.under_way >= REWRITES_MAX {
                return;
            } else if let Some(stale) = written.unsynced.next_stale(rewriting.from, cache) {
                let range = stale.range;
                rewriting.from = range.end();
                let operation = match stale.change {
                    Change::Bytes(bytes) => {
                        let len = range.end().saturating_sub(range.start());
                        let write = Write { handle: by, offset: range.start() };
                        Operation::Write(write, bytes, u32::try_from(len).unwrap_or(u32::MAX))
                    }
                    Change::Hole => {
                        let how = Allocation::PunchHole;
                        Operation::Control(Allocate { handle: by, range: range.raw(), how }.into())
                    }
                    Change::Lost => {
                        self.with_unsynced(open, |unsynced| unsynced.forget(range));
                        self.note_lost(open, vec![range]);
                        continue;
                    }
                };
                (operation, stale.lines, Rewrite::Piece(range, stale.write))
            } else if rewriting.under_way > 0 {
                return;
            } else {
                written.rewriting = None;
                let waiting = written.members.clone().into_iter();
                let is_waiting = |name: &HandleId| {
                    self.handles.get(name).is_some_and(|held| held.standing == HandleLife::Rewriting)
                };
                let waiting: Vec<HandleId> = waiting.filter(is_waiting).collect();
                waiting.into_iter().for_each(|name| self.go_on(now, name, false));
                return;
            };
            rewriting.under_way = rewriting.under_way.saturating_add(1);
            self.begin(now, (operation, lines), true, Purpose::Rewrite(open, what));
        }
    }

    fn give_up_stale(&mut self, open: OpenId) {
        let cache = self.cache;
        let lost = self.with_unsynced(open, |unsynced| unsynced.give_up_stale(cache));
        self.note_lost(open, lost.unwrap_or_default());
    }

    fn note_lost(&mut self, open: OpenId, lost: Vec<ByteRange>) {
        if planted::is(Bug::LossNotTold) {
            return;
        }
        if let Some(written) = self.written.get_mut(&open) {
            written.lost.extend(lost);
            written.lost = merge(core::mem::take(&mut written.lost));
        }
    }

    /// Makes a change of what is kept of an open, and keeps the sums.
    fn with_unsynced<T>(&mut self, open: OpenId, change: impl FnOnce(&mut Unsynced<P>) -> T) -> Option<T> {
        let written = self.written.get_mut(&open)?;
        let (before, was_kept) = (written.unsynced.charge(), !written.unsynced.is_empty());
        let value = change(&mut written.unsynced);
        let (after, is_kept) = (written.unsynced.charge(), !written.unsynced.is_empty());
        self.kept_bytes = self.kept_bytes.saturating_sub(before).saturating_add(after);
        if written.is_shared && was_kept != is_kept {
            self.shared_kept =
                if is_kept { self.shared_kept.saturating_add(1) } else { self.shared_kept.saturating_sub(1) };
            if !is_kept && self.sole == Some(open) {
                self.sole = None;
            }
        }
        Some(value)
    }
}

/// The request that gives a file a length. Storage for the last byte makes it as long as that, if it is shorter.
fn resize_request<P>(handle: HandleId, resize: Resize) -> Operation<P> {
    let message: ClientControl = match resize {
        Resize::To(len) => {
            let change = AttributeChange { len: Some(len), ..AttributeChange::default() };
            control::Change { target: Target::Handle(handle), change }.into()
        }
        Resize::UpTo(len) => {
            let range = RawRange { start: len.saturating_sub(1), len: 1 };
            Allocate { handle, range, how: Allocation::Reserve }.into()
        }
    };
    Operation::Control(message)
}

/// Pieces of one open that are written again at a time: enough to keep lines busy.
const REWRITES_MAX: usize = 32;
