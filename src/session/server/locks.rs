//! Range locks: what the table decides takes effect here. protocol.md: Locks.
//!
//! A lock is in the table at once, so that nothing new gets past it; but it is told to its owner only when what it
//! excludes and was already executing is done. Likewise an unlock waits for what its own open has executing there.
//! Both are *fences*: something that is to follow, and the pieces of file work that it waits for.
//!
//! The end of a lock that waited is a *notice*, because it answers no request that could be repeated.

use super::effects::{Job, Task};
use super::output::{Effect, EffectId};
use super::requests::Ticket;
use super::{FileTarget, ServerCore};
use crate::model::planted::{self, Bug};
use crate::model::{
    AttributeChange, ByteRange, HandleId, LockMode, OpenId, Reason, Refusal, RequestId, Rights, SessionId,
    Time,
};
use crate::opens::{LockAnswer, LockRequest};
use crate::session::server::io::Io;
use crate::wire::ServerControl;
use crate::wire::control::{Done, Lock, LockQueued, Locked, Unlock};
use crate::wire::notices::{LockEnded, Notice};

use core::time::Duration;

/// Something that waits for pieces of file work.
#[derive(Debug)]
pub(super) struct Fence<P> {
    /// How many of them are not done.
    waiting: usize,
    behind: Behind<P>,
}

/// What follows.
#[derive(Debug)]
enum Behind<P> {
    /// A lock is told to whoever asked.
    Locked { ticket: Ticket, locked: Locked },
    /// A lock that waited is told.
    LockEnded { session: SessionId, lock: RequestId, locked: Locked },
    /// The range is unlocked.
    Unlock { ticket: Ticket, handle: HandleId, range: ByteRange },
    /// A handle of an open that was there before is described.
    Give { ticket: Ticket, handle: HandleId, task: Task<P> },
    /// A handle is described, after its file was cut if that is what the task says.
    Describe { ticket: Ticket, open: OpenId, handle: HandleId, task: Task<P> },
}

impl<P: Clone> ServerCore<P> {
    pub(super) fn serve_lock(&mut self, now: Time, ticket: Ticket, lock: &Lock) -> Result<(), Refusal> {
        let &Lock { handle, wanted, wait_ms } = lock;
        let range = ByteRange::new(wanted.range).ok_or(Reason::Invalid)?;
        self.check_lock_right(now, ticket, handle)?;
        let session = self.sessions.get(&ticket.session).ok_or(Reason::BadHandle)?;
        if wait_ms > 0 && session.notices.len() >= self.limits.lock_waits_per_client {
            return Err(Reason::Quota.into());
        }
        let request = ticket.request;
        let wait = Duration::from_millis(wait_ms);
        let asked = LockRequest { request, range, mode: wanted.mode, wait };
        match self.table.lock(now, ticket.session, handle, asked)? {
            LockAnswer::Granted => {
                let open = self.table.holder(ticket.session, handle)?.open;
                let work = self.excluded_by_lock(open, range, wanted.mode);
                let locked = Locked { handle, range: range.raw() };
                self.follow(now, work, Behind::Locked { ticket, locked });
            }
            LockAnswer::Queued => {
                self.answer(ticket, ServerControl::from(LockQueued {}).into(), None);
            }
        }
        Ok(())
    }

    pub(super) fn serve_unlock(&mut self, now: Time, ticket: Ticket, unlock: &Unlock) -> Result<(), Refusal> {
        let &Unlock { handle, range } = unlock;
        let range = ByteRange::new(range).ok_or(Reason::Invalid)?;
        self.check_lock_right(now, ticket, handle)?;
        let open = self.table.holder(ticket.session, handle)?.open;
        let work = self.work_where(|io| io.open == open && io.range.overlaps(range));
        self.follow(now, work, Behind::Unlock { ticket, handle, range });
        Ok(())
    }

    pub(super) fn serve_cancel_lock(&mut self, ticket: Ticket, lock: RequestId) {
        self.table.cancel_lock(ticket.session, lock);
        self.answer(ticket, ServerControl::from(Done {}).into(), None);
    }

    /// The table has ended a lock that waited.
    pub(super) fn on_lock_ended(
        &mut self,
        (session, lock): (SessionId, RequestId),
        (handle, range, mode): (HandleId, ByteRange, LockMode),
        outcome: Result<(), Refusal>,
    ) {
        let locked = Locked { handle, range: range.raw() };
        let open = self.table.holder(session, handle).map(|holder| holder.open);
        match (outcome, open) {
            (Ok(()), Ok(open)) => {
                let work = self.excluded_by_lock(open, range, mode);
                let behind = Behind::LockEnded { session, lock, locked };
                // The time matters for what follows an unlock or an open only.
                self.follow(Time(0), work, behind);
            }
            (Ok(()), Err(refusal)) | (Err(refusal), _) => self.tell_lock_ended(session, lock, Err(refusal)),
        }
    }

    /// A piece of file work is done: what waited for it alone follows.
    pub(super) fn on_work_done(&mut self, now: Time, id: EffectId) {
        for fence in self.fenced.remove(&id).unwrap_or_default() {
            let Some(record) = self.fences.get_mut(&fence) else { continue };
            record.waiting = record.waiting.saturating_sub(1);
            if record.waiting == 0
                && let Some(Fence { behind, .. }) = self.fences.remove(&fence)
            {
                self.on_fence_passed(now, behind);
            }
        }
    }

    /// Work in flight, of other opens of the same file, that a lock excludes.
    pub(super) fn excluded_by_lock(&self, open: OpenId, range: ByteRange, mode: LockMode) -> Vec<EffectId> {
        let file = self.table.file_of(open);
        let is_meant = !planted::is(Bug::LockBeforeDrain);
        self.work_where(|io| {
            is_meant
                && io.open != open
                && io.range.overlaps(range)
                && (io.is_write || mode == LockMode::Exclusive)
                && self.table.file_of(io.open) == file
        })
    }

    /// Describes a new handle, or cuts its file first, once `work` is done.
    pub(super) fn describe_behind(
        &mut self,
        now: Time,
        ticket: Ticket,
        work: Vec<EffectId>,
        (open, handle): (OpenId, HandleId),
        task: Task<P>,
    ) {
        self.preparing.insert(open);
        self.follow(now, work, Behind::Describe { ticket, open, handle, task });
    }

    /// Describes a handle once `work` is done.
    pub(super) fn give_behind(
        &mut self,
        now: Time,
        ticket: Ticket,
        work: Vec<EffectId>,
        handle: HandleId,
        task: Task<P>,
    ) {
        self.follow(now, work, Behind::Give { ticket, handle, task });
    }

    fn work_where(&self, is_meant: impl Fn(&Io) -> bool) -> Vec<EffectId> {
        let is_meant = |job: &Job<P>| job.io.as_ref().is_some_and(&is_meant);
        self.jobs.iter().filter(|(_, job)| is_meant(job)).map(|(&id, _)| id).collect()
    }

    fn follow(&mut self, now: Time, work: Vec<EffectId>, behind: Behind<P>) {
        if work.is_empty() {
            self.on_fence_passed(now, behind);
            return;
        }
        let id = self.next_fence;
        self.next_fence = self.next_fence.saturating_add(1);
        self.fences.insert(id, Fence { waiting: work.len(), behind });
        for piece in work {
            self.fenced.entry(piece).or_default().push(id);
        }
    }

    fn on_fence_passed(&mut self, now: Time, behind: Behind<P>) {
        match behind {
            Behind::Locked { ticket, locked } => {
                self.answer(ticket, ServerControl::from(locked).into(), None);
            }
            Behind::LockEnded { session, lock, locked } => self.tell_lock_ended(session, lock, Ok(locked)),
            Behind::Unlock { ticket, handle, range } => {
                match self.table.unlock(now, ticket.session, handle, range) {
                    Ok(()) => self.answer(ticket, ServerControl::from(Done {}).into(), None),
                    Err(refusal) => self.answer_refused(ticket, refusal),
                }
            }
            Behind::Describe { ticket, open, handle, task: task @ Task::Truncate(_) } => {
                if let Err(refusal) = self.truncate(now, ticket, (open, handle), task) {
                    self.give_up(ticket, handle, refusal);
                }
            }
            Behind::Describe { ticket, handle, task, .. } | Behind::Give { ticket, handle, task } => {
                if let Err(refusal) = self.describe(ticket, handle, task) {
                    self.answer_refused(ticket, refusal);
                }
            }
        }
    }

    fn truncate(
        &mut self,
        now: Time,
        ticket: Ticket,
        (open, handle): (OpenId, HandleId),
        task: Task<P>,
    ) -> Result<(), Refusal> {
        self.table.begin_operation(ticket.session, handle, Rights::NONE)?;
        let change = AttributeChange { len: Some(0), ..AttributeChange::default() };
        let effect = Effect::Change { target: FileTarget::Open(open), change };
        let io = Io { open, range: ByteRange::ALL, is_write: true };
        self.start_io(now, ticket, task, (handle, io), effect)
    }

    fn tell_lock_ended(&mut self, session: SessionId, lock: RequestId, outcome: Result<Locked, Refusal>) {
        self.notify(session, |notice| Notice::LockEnded(LockEnded { notice, lock, outcome }));
    }

    fn check_lock_right(&self, now: Time, ticket: Ticket, handle: HandleId) -> Result<(), Refusal> {
        let session = self.sessions.get(&ticket.session).ok_or(Reason::BadHandle)?;
        let holder = self.table.holder(ticket.session, handle)?;
        let allowed = self.export_rights(now, session, holder.export).ok_or(Reason::PermissionDenied)?;
        if allowed.permits(Rights::LOCK) { Ok(()) } else { Err(Reason::PermissionDenied.into()) }
    }
}
