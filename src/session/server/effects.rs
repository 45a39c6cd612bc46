//! What file work reports, and what follows when a holder has drained.

use super::appends::Weighed;
use super::io::{AtEnd, Io};
use super::names::NameChange;
use super::output::{Completion, EffectId, NameReport, ServerOutput};
use super::requests::Ticket;
use super::{ServerCore, ServerMessage};
use crate::model::{
    Attributes, ByteRange, Create, Entropy as _, FileIdentity, FileMark, FileState, HandleId, LockMode,
    Meanwhile, OpenId, Reason, Refusal, ResumeKey, Rights, SessionId, Time,
};
use crate::opens::{Admission, OpenTable};
use crate::session::server::Effect;
use crate::wire::control::{Changed, Closed, Done, Open, Opened, Sought, Stated, Synced};
use crate::wire::data::{ReadDone, WriteDone};
use crate::wire::{ServerControl, ServerData};

/// File work that is under way, and for whom.
#[derive(Debug)]
pub(super) struct Job<P> {
    pub(super) ticket: Ticket,
    pub(super) task: Task<P>,
    /// What it reads or writes: a lock that excludes it waits for its end.
    pub(super) io: Option<Io>,
    /// The handle through which it changes the file, if it does.
    pub(super) changes: Option<HandleId>,
}

impl<P> Job<P> {
    pub(super) fn new(ticket: Ticket, task: Task<P>) -> Self {
        Self { ticket, task, io: None, changes: None }
    }

    /// Work on these bytes.
    pub(super) fn on_bytes(ticket: Ticket, task: Task<P>, io: Io) -> Self {
        Self { io: Some(io), ..Self::new(ticket, task) }
    }
}

/// What a report leads to.
#[derive(Debug)]
pub(super) enum Task<P> {
    /// The file is being opened; the table decides then.
    Open(Box<Opening>),
    /// A file is being made that has no name yet, so that it is recorded which one it is before it gets its name.
    Make(Box<Opening>),
    /// The handle exists; its state is being fetched for the answer.
    Admitted(Giving),
    /// The handle exists, and its file is being cut to no bytes before it is given out.
    Truncate(Giving),
    /// As named.
    Stat { handle: HandleId },
    /// As named; `None`: of a name. `is_of_bytes`: of the length.
    Change { handle: Option<HandleId>, is_of_bytes: bool },
    /// As named.
    Sync { handle: HandleId },
    /// As named.
    Read { handle: HandleId },
    /// As named.
    Write { handle: HandleId },
    /// The end of the file is being looked for, because others have locked bytes of it.
    FindEnd { handle: HandleId, then: AtEnd<P> },
    /// An append's place and hash are being found out, because it is its turn.
    Weigh { handle: HandleId, file: FileIdentity, weighed: Weighed<P> },
    /// As named; `turn`: the file whose next append waits for this one.
    Append { handle: HandleId, turn: Option<FileIdentity> },
    /// As named.
    Allocate { handle: HandleId },
    /// As named.
    Seek { handle: HandleId },
    /// The files are being looked for that a change of names removes or replaces.
    Identify(Box<NameChange>),
    /// The change of names, for which these files are reserved.
    ChangeNames(Box<NameChange>, Vec<FileIdentity>),
    /// Other work on names, or on the attributes of an open file.
    Named { handle: Option<HandleId> },
}

/// A handle that is given out when its state is known, and what is told with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Giving {
    pub(super) handle: HandleId,
    /// Whether a resume key is to be issued.
    pub(super) with_key: bool,
    /// Until when its client was heard of: what became of the file since is told. `None` for a first handle.
    pub(super) since: Option<Time>,
}

/// An open that waits for its file.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) open: Open,
    pub(super) id: OpenId,
    pub(super) handle: HandleId,
    pub(super) rights: Rights,
    pub(super) lock: Option<(ByteRange, LockMode)>,
    /// The file that an earlier life of the server has made for it: no other one will do.
    pub(super) made: Option<FileIdentity>,
}

impl Opening {
    /// The work that opens its file.
    pub(super) fn effect<P>(&self) -> Effect<P> {
        let open = &self.open;
        Effect::OpenFile {
            open: self.id,
            export: open.export.clone(),
            path: open.path.clone(),
            rights: open.mode.rights,
            create: if self.made.is_some() { Create::Never } else { open.create },
            permissions: open.permissions,
        }
    }
}

impl<P> Task<P> {
    /// The handle that it is about, if it is about one.
    pub(super) fn handle(&self) -> Option<HandleId> {
        match self {
            Self::Open(_) | Self::Make(_) | Self::Identify(_) | Self::ChangeNames(..) => None,
            Self::Admitted(giving) | Self::Truncate(giving) => Some(giving.handle),
            Self::Change { handle, .. } | Self::Named { handle } => *handle,
            Self::Stat { handle }
            | Self::Sync { handle }
            | Self::Read { handle }
            | Self::Write { handle }
            | Self::FindEnd { handle, .. }
            | Self::Weigh { handle, .. }
            | Self::Append { handle, .. }
            | Self::Allocate { handle }
            | Self::Seek { handle } => Some(*handle),
        }
    }
}

/// What waits for a holder to drain.
#[derive(Debug)]
pub(super) enum Sequel<P> {
    /// Its close is answered.
    Closed { ticket: Ticket },
    /// A grant that it came of was revoked; what still executes beside it is waited for.
    Revoked { ticket: Ticket, executing: Vec<HandleId> },
    /// Its successor is described.
    Describe { ticket: Ticket, handle: HandleId, task: Task<P> },
}

/// The answer to a request, and its payload with its length.
type Outcome<P> = Result<(ServerMessage, Option<(P, u64)>), Refusal>;

impl<P: Clone> ServerCore<P> {
    /// File work has been done, or failed.
    pub fn handle_completion(&mut self, now: Time, id: EffectId, completion: Completion<P>) {
        self.end_expired(now);
        if let Some(open) = self.looks.remove(&id) {
            self.on_looked(open, completion);
            return;
        }
        if self.on_own_sync(id, &completion) {
            self.on_work_done(now, id);
            self.settle_table();
            return;
        }
        let Some(Job { ticket, task, changes, .. }) = self.jobs.remove(&id) else { return };
        if let Some(handle) = changes {
            self.table.note_change(now, handle);
        }
        match (task, completion) {
            (Task::Open(opening), Completion::Opened(result)) => {
                self.on_file_opened(now, ticket, &opening, result);
            }
            (Task::Make(opening), Completion::Made(result)) => self.on_made(ticket, opening, result),
            (Task::Admitted(giving) | Task::Truncate(giving), Completion::Attributes(result)) => {
                self.on_described(now, ticket, giving, result);
            }
            (Task::Stat { handle }, Completion::Attributes(result)) => {
                let state = result.and_then(|attributes| self.state(ticket.session, handle, attributes));
                self.end(ticket, handle, plain(state.map(|state| Stated { state })));
            }
            (Task::Change { handle, is_of_bytes }, Completion::Attributes(result)) => {
                let changed = result.map(|attributes| Changed { attributes });
                match handle.filter(|_| is_of_bytes) {
                    Some(handle) => self.end_change(ticket, handle, message(changed)),
                    None => self.end_maybe(ticket, handle, plain(changed)),
                }
            }
            (Task::Sync { handle }, Completion::Synced(result)) => {
                let told = self.on_synced(ticket.session, handle, result);
                self.end(ticket, handle, plain(told.map(|()| Synced {})));
            }
            (Task::Read { handle }, Completion::Read(result)) => {
                let answer = |(payload, len): (P, u32)| {
                    (ServerData::from(ReadDone {}).into(), (len > 0).then(|| (payload, u64::from(len))))
                };
                self.end(ticket, handle, result.map(answer));
            }
            (Task::Write { handle }, Completion::Written(result)) => {
                let stability = self.stability_of(ticket, handle);
                let done = |written| ServerData::from(WriteDone { written, stability }).into();
                self.end_change(ticket, handle, result.map(done));
            }
            (Task::FindEnd { handle, then }, Completion::Attributes(result)) => {
                let found = result
                    .and_then(|attributes| self.on_end_found(now, ticket, handle, then, attributes.len));
                if let Err(refusal) = found {
                    self.end(ticket, handle, Err(refusal));
                }
            }
            (Task::Weigh { handle, file, weighed }, Completion::Weighed(result)) => {
                self.on_weighed(now, ticket, (handle, file), weighed, result);
            }
            (Task::Append { handle, turn }, Completion::Appended(result)) => {
                self.on_appended(ticket, (handle, turn), result);
            }
            (Task::Allocate { handle }, Completion::Done(result)) => {
                self.end_change(ticket, handle, message(result.map(|()| Done {})));
            }
            (Task::Seek { handle }, Completion::Sought(result)) => {
                self.end(ticket, handle, plain(result.map(|offset| Sought { offset })));
            }
            (Task::Identify(change), Completion::Identified(result)) => {
                self.on_identified(now, ticket, change, result);
            }
            (Task::ChangeNames(change, reserved), Completion::Named(result)) => {
                self.on_names_changed(now, ticket, *change, &reserved, result);
            }
            (Task::Named { handle }, Completion::Named(result)) => {
                self.end_maybe(ticket, handle, result.and_then(named));
            }
            (_, _) => debug_assert!(false, "a report of another kind came for {id:?}"),
        }
        self.on_work_done(now, id);
        self.settle_table();
    }

    /// A holder is gone and nothing of it is executing.
    pub(super) fn on_drained(&mut self, handle: HandleId) {
        self.sync_errors.remove(&handle);
        self.end_rewriting(handle);
        for sequel in self.sequels.remove(&handle).unwrap_or_default() {
            match sequel {
                Sequel::Closed { ticket } => self.answer(ticket, ServerControl::from(Closed {}).into(), None),
                Sequel::Revoked { ticket, executing } => self.on_revoked(ticket, executing),
                Sequel::Describe { ticket, handle, task } => {
                    if let Err(refusal) = self.give(self.now, ticket, handle, task) {
                        self.answer_refused(ticket, refusal);
                    }
                }
            }
        }
    }

    pub(super) fn issue_key(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
    ) -> Result<ResumeKey, Refusal> {
        let process_id = self.sessions.get(&session).map_or(0, |session| session.process_id);
        let secret = self.entropy.bytes().map_err(|_| Refusal::from(Reason::Exhausted))?;
        let stamp_us = self.wall_us(now);
        self.table.issue_key(session, handle, stamp_us, process_id, secret)
    }

    /// Ends an operation on a handle and its request.
    pub(super) fn end(&mut self, ticket: Ticket, handle: HandleId, outcome: Outcome<P>) {
        self.end_maybe(ticket, Some(handle), outcome);
    }

    /// Ends a request, and its operation if it is one on a handle.
    pub(super) fn end_maybe(&mut self, ticket: Ticket, handle: Option<HandleId>, outcome: Outcome<P>) {
        if let Some(handle) = handle {
            self.table.end_operation(handle);
        }
        match outcome {
            Ok((message, payload)) => self.answer(ticket, message, payload),
            Err(refusal) => self.answer_refused(ticket, refusal),
        }
    }

    /// What the holder is told that has asked for a sync. All holders of an open share its descriptor, and the kernel
    /// reports an error of it once: each other holder hears of it at its own next sync, or now, if that is under way.
    fn on_synced(
        &mut self,
        session: SessionId,
        handle: HandleId,
        result: Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let untold = self.sync_errors.remove(&handle);
        match (result, untold) {
            (Ok(()), None) => {
                self.table.note_synced(handle);
                Ok(())
            }
            (Ok(()), Some(untold)) => Err(untold),
            // The others know: it is from them.
            (Err(refusal), Some(_)) => Err(refusal),
            (Err(refusal), None) => {
                if let Ok(open) = self.table.holder(session, handle).map(|holder| holder.open) {
                    self.spread_sync_error(open, &[handle], refusal);
                }
                Err(refusal)
            }
        }
    }

    /// Has the holders of an open hear of a failed sync, but for those that hear of it anyway.
    pub(super) fn spread_sync_error(&mut self, failed: OpenId, hearing: &[HandleId], refusal: Refusal) {
        // Any other reason means that nothing was synced, and not that anything is lost.
        if !matches!(refusal.reason, Reason::Io | Reason::NoSpace | Reason::Quota) {
            return;
        }
        let others = self.table.handles_of_open(failed).filter(|other| !hearing.contains(other));
        self.sync_errors.extend(others.map(|other| (other, refusal)));
    }

    fn on_file_opened(
        &mut self,
        now: Time,
        ticket: Ticket,
        opening: &Opening,
        result: Result<(FileIdentity, Attributes), Refusal>,
    ) {
        let (file, attributes) = match result {
            Ok(found) => found,
            Err(refusal) => {
                if opening.open.create == Create::New && opening.made.is_none() && self.records_intents() {
                    // A file that was made for it has no name, and gets none.
                    self.outputs.push_back(ServerOutput::CloseFile { open: opening.id });
                }
                return self.answer_refused(ticket, refusal);
            }
        };
        if opening.made.is_some_and(|made| made != file) {
            // The name stands for another one by now; what became of that which was made, nobody knows.
            self.outputs.push_back(ServerOutput::CloseFile { open: opening.id });
            return self.answer_refused(ticket, Reason::Unknown.into());
        }
        let admitted = match self.admit(now, ticket.session, opening, (file, FileMark::from(&attributes))) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.outputs.push_back(ServerOutput::CloseFile { open: opening.id });
                return self.answer_refused(ticket, refusal);
            }
        };
        if let Err(refusal) = self.check_prepared(ticket, &admitted, opening.handle) {
            return self.answer_refused(ticket, refusal);
        }
        let (handle, with_key) = (admitted.handle, opening.open.with_key);
        let giving = Giving { handle, with_key, since: None };
        if let Some((range, mode)) = opening.lock.filter(|_| admitted.is_new_open) {
            // An open that is locked in part from its beginning is given out when the range is quiet.
            let mut work = self.excluded_by_lock(admitted.open, range, mode);
            work.extend(self.settle_others(admitted.open));
            let task = if opening.open.truncate { Task::Truncate(giving) } else { Task::Admitted(giving) };
            return self.describe_behind(now, ticket, work, (admitted.open, handle), task);
        }
        if opening.open.truncate && admitted.is_new_open {
            let (task, work) = (Task::Truncate(giving), self.settle_others(admitted.open));
            return self.describe_behind(now, ticket, work, (admitted.open, handle), task);
        }
        let work = self.settle_others(admitted.open);
        if !work.is_empty() {
            return self.give_behind(now, ticket, work, handle, Task::Admitted(giving));
        }
        match self.opened(now, ticket.session, giving, attributes) {
            Ok(opened) => self.answer(ticket, opened, None),
            Err(refusal) => self.answer_refused(ticket, refusal),
        }
    }

    /// The state of a new handle is known, or could not be had: a handle that nobody hears of is closed.
    fn on_described(
        &mut self,
        now: Time,
        ticket: Ticket,
        giving: Giving,
        result: Result<Attributes, Refusal>,
    ) {
        let handle = giving.handle;
        if let Ok(holder) = self.table.holder(ticket.session, handle) {
            self.preparing.remove(&holder.open);
        }
        self.table.end_operation(handle);
        let opened = result.and_then(|attributes| self.opened(now, ticket.session, giving, attributes));
        match opened {
            Ok(opened) => self.answer(ticket, opened, None),
            Err(refusal) => self.give_up(ticket, handle, refusal),
        }
    }

    /// Refuses a repeated open while the first one is not given out yet: its file may still be cut, its lock may still be
    /// waited for. `new` is the handle that the repeat would have made.
    pub(super) fn check_prepared(
        &mut self,
        ticket: Ticket,
        admitted: &crate::opens::Admitted,
        new: HandleId,
    ) -> Result<(), Refusal> {
        if !self.preparing.contains(&admitted.open) {
            return Ok(());
        }
        if admitted.handle == new {
            let _gone_already = self.table.begin_close(ticket.session, new);
        }
        Err(Refusal::busy(OpenTable::DRAIN_RETRY))
    }

    /// Closes a handle that was made for a request, and refuses the request.
    pub(super) fn give_up(&mut self, ticket: Ticket, handle: HandleId, refusal: Refusal) {
        // It may be gone already, with its session.
        let _gone_already = self.table.begin_close(ticket.session, handle);
        self.answer_refused(ticket, refusal);
    }

    /// Puts an opened file into the table. On refusal, the descriptor under its id is nobody's.
    fn admit(
        &mut self,
        now: Time,
        session: SessionId,
        opening: &Opening,
        (file, mark): (FileIdentity, FileMark),
    ) -> Result<crate::opens::Admitted, Refusal> {
        // The session may have ended while the file was being opened.
        let owner = self.sessions.get(&session).ok_or(Reason::BadHandle)?.client;
        let Opening { open, id, handle, rights, lock, .. } = opening;
        let admitted = self.table.admit(
            now,
            Admission {
                session,
                owner,
                open: *id,
                handle: *handle,
                file,
                export: open.export.clone(),
                mode: open.mode,
                rights: *rights,
                create_id: open.create_id,
                grace: self.grace(open.grace_ms),
                lock: *lock,
                resumable: open.resumable,
                guard: open.guard,
                path: open.path.clone(),
                mark,
            },
        )?;
        if !admitted.is_new_open {
            // The same open was asked for twice at once; the first one stands.
            self.outputs.push_back(ServerOutput::CloseFile { open: *id });
        }
        Ok(admitted)
    }

    fn opened(
        &mut self,
        now: Time,
        session: SessionId,
        Giving { handle, with_key, since }: Giving,
        attributes: Attributes,
    ) -> Result<ServerMessage, Refusal> {
        let state = self.state(session, handle, attributes)?;
        self.table.touch_unstored(handle);
        let meanwhile = since.and_then(|since| self.meanwhile(session, handle, since, &attributes));
        let key = if with_key { Some(self.issue_key(now, session, handle)?) } else { None };
        let open = self.table.holder(session, handle)?.open;
        let durable = self.table.is_durable(open);
        self.may_rewrite((open, handle), meanwhile);
        Ok(ServerControl::from(Opened { handle, state, key, meanwhile, durable }).into())
    }

    fn meanwhile(
        &self,
        session: SessionId,
        handle: HandleId,
        since: Time,
        attributes: &Attributes,
    ) -> Option<Meanwhile> {
        let client = self.sessions.get(&session)?.client;
        let open = self.table.holder(session, handle).ok()?.open;
        Some(self.table.meanwhile(open, &client, since, attributes))
    }

    fn state(
        &self,
        session: SessionId,
        handle: HandleId,
        attributes: Attributes,
    ) -> Result<FileState, Refusal> {
        let holder = self.table.holder(session, handle)?;
        Ok(FileState { mode: holder.mode, rights: holder.rights, attributes })
    }

    /// Gives out a handle of an open that was there before: when nothing is left of others that is not durable, if it may
    /// write beside them.
    pub(super) fn give(
        &mut self,
        now: Time,
        ticket: Ticket,
        handle: HandleId,
        task: Task<P>,
    ) -> Result<(), Refusal> {
        let open = self.table.holder(ticket.session, handle)?.open;
        let work = self.settle_others(open);
        if work.is_empty() {
            return self.describe(ticket, handle, task);
        }
        self.give_behind(now, ticket, work, handle, task);
        Ok(())
    }

    /// Asks for what is told with a handle, at once.
    pub(super) fn describe(
        &mut self,
        ticket: Ticket,
        handle: HandleId,
        task: Task<P>,
    ) -> Result<(), Refusal> {
        let open = self.table.begin_operation(ticket.session, handle, Rights::NONE)?;
        self.start(Job::new(ticket, task), Effect::Attributes { open });
        Ok(())
    }
}

/// The answer of a control request without payload.
pub(super) fn plain<P, M: Into<ServerControl>>(result: Result<M, Refusal>) -> Outcome<P> {
    result.map(|message| (ServerMessage::Control(message.into()), None))
}

/// The message of an answer without payload.
fn message<M: Into<ServerControl>>(result: Result<M, Refusal>) -> Result<ServerMessage, Refusal> {
    result.map(|message| ServerMessage::Control(message.into()))
}

/// The answer that work on names made.
pub(super) fn named<P>(report: NameReport<P>) -> Outcome<P> {
    match report {
        NameReport::Answer(message, payload) => {
            Ok((message.into(), payload.map(|(payload, len)| (payload, u64::from(len)))))
        }
        NameReport::Moved => Err(Reason::Busy.into()),
    }
}
