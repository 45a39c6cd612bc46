//! What file work reports, and what follows when a holder has drained.

use super::output::{Completion, EffectId, ServerOutput};
use super::requests::Ticket;
use super::{ServerCore, ServerMessage};
use crate::model::{
    Attributes, Entropy as _, FileIdentity, FileState, HandleId, OpenId, Reason, Refusal, ResumeKey, Rights,
    SessionId, Stability, Time,
};
use crate::opens::Admission;
use crate::wire::control::{Closed, Open, Opened, Stated, Synced};
use crate::wire::data::{ReadDone, WriteDone};
use crate::wire::{ServerControl, ServerData};

/// File work that is under way, and for whom.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) task: Task,
}

/// What a report leads to.
#[derive(Debug)]
pub(super) enum Task {
    /// The file is being opened; the table decides then.
    Open { open: Box<Open>, id: OpenId, handle: HandleId, rights: Rights },
    /// The handle exists; its state is being fetched for the answer.
    Admitted { handle: HandleId, with_key: bool },
    /// As named.
    Stat { handle: HandleId },
    /// As named.
    Sync { handle: HandleId },
    /// As named.
    Read { handle: HandleId },
    /// As named.
    Write { handle: HandleId },
}

/// What waits for a holder to drain.
#[derive(Debug)]
pub(super) enum Sequel {
    /// Its close is answered.
    Closed { ticket: Ticket },
    /// Its successor is described.
    Describe { ticket: Ticket, handle: HandleId, task: Task },
}

impl<P: Clone> ServerCore<P> {
    /// File work has been done, or failed.
    pub fn handle_completion(&mut self, now: Time, id: EffectId, completion: Completion<P>) {
        let Some(Job { ticket, task }) = self.jobs.remove(&id) else { return };
        match (task, completion) {
            (Task::Open { open, id, handle, rights }, Completion::Opened(result)) => {
                self.on_file_opened(now, ticket, (&open, id, handle, rights), result);
            }
            (Task::Admitted { handle, with_key }, Completion::Attributes(result)) => {
                self.table.end_operation(handle);
                match result
                    .and_then(|attributes| self.opened(now, ticket.session, handle, with_key, attributes))
                {
                    Ok(opened) => self.answer(ticket, opened, None),
                    Err(refusal) => self.answer_refused(ticket, refusal),
                }
            }
            (Task::Stat { handle }, Completion::Attributes(result)) => {
                let state = result.and_then(|attributes| self.state(ticket.session, handle, attributes));
                self.end(
                    ticket,
                    handle,
                    state.map(|state| (ServerControl::from(Stated { state }).into(), None)),
                );
            }
            (Task::Sync { handle }, Completion::Synced(result)) => {
                if let Err(refusal) = result {
                    self.spread_sync_error(ticket.session, handle, refusal);
                }
                self.end(ticket, handle, result.map(|()| (ServerControl::from(Synced {}).into(), None)));
            }
            (Task::Read { handle }, Completion::Read(result)) => {
                let answer = |(payload, len): (P, u32)| {
                    (ServerData::from(ReadDone {}).into(), (len > 0).then(|| (payload, u64::from(len))))
                };
                self.end(ticket, handle, result.map(answer));
            }
            (Task::Write { handle }, Completion::Written(result)) => {
                let answer = |written| {
                    let done = WriteDone { written, stability: Stability::Received };
                    (ServerData::from(done).into(), None)
                };
                self.end(ticket, handle, result.map(answer));
            }
            (task, _) => debug_assert!(false, "a report of another kind came for {task:?}"),
        }
        self.settle_table();
    }

    /// A holder is gone and nothing of it is executing.
    pub(super) fn on_drained(&mut self, handle: HandleId) {
        self.sync_errors.remove(&handle);
        for sequel in self.sequels.remove(&handle).unwrap_or_default() {
            match sequel {
                Sequel::Closed { ticket } => self.answer(ticket, ServerControl::from(Closed {}).into(), None),
                Sequel::Describe { ticket, handle, task } => {
                    if let Err(refusal) = self.describe(ticket, handle, task) {
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

    /// All holders of an open share its descriptor, and the kernel reports an error of it once: each other holder
    /// hears of it at its own next sync.
    fn spread_sync_error(&mut self, session: SessionId, handle: HandleId, refusal: Refusal) {
        let Ok(failed) = self.table.holder(session, handle).map(|holder| holder.open) else { return };
        let holders = self.table.opens().find(|open| open.open == failed).map(|open| open.holders.to_vec());
        let others = holders.unwrap_or_default().into_iter().filter(|&other| other != handle);
        self.sync_errors.extend(others.map(|other| (other, refusal)));
    }

    /// Ends an operation on a handle and its request.
    fn end(
        &mut self,
        ticket: Ticket,
        handle: HandleId,
        result: Result<(ServerMessage, Option<(P, u64)>), Refusal>,
    ) {
        self.table.end_operation(handle);
        match result {
            Ok((message, payload)) => self.answer(ticket, message, payload),
            Err(refusal) => self.answer_refused(ticket, refusal),
        }
    }

    fn on_file_opened(
        &mut self,
        now: Time,
        ticket: Ticket,
        (open, id, handle, rights): (&Open, OpenId, HandleId, Rights),
        result: Result<(FileIdentity, Attributes), Refusal>,
    ) {
        let (file, attributes) = match result {
            Ok(found) => found,
            Err(refusal) => return self.answer_refused(ticket, refusal),
        };
        match self.admit(now, ticket.session, (open, id, handle, rights), file) {
            Ok(handle) => match self.opened(now, ticket.session, handle, open.with_key, attributes) {
                Ok(opened) => self.answer(ticket, opened, None),
                Err(refusal) => self.answer_refused(ticket, refusal),
            },
            Err(refusal) => {
                self.outputs.push_back(ServerOutput::CloseFile { open: id });
                self.answer_refused(ticket, refusal);
            }
        }
    }

    /// Puts an opened file into the table. On refusal, the descriptor under `id` is nobody's.
    fn admit(
        &mut self,
        now: Time,
        session: SessionId,
        (open, id, handle, rights): (&Open, OpenId, HandleId, Rights),
        file: FileIdentity,
    ) -> Result<HandleId, Refusal> {
        // The session may have ended while the file was being opened.
        let owner = self.sessions.get(&session).ok_or(Reason::BadHandle)?.client;
        let admitted = self.table.admit(
            now,
            Admission {
                session,
                owner,
                open: id,
                handle,
                file,
                export: open.export.clone(),
                mode: open.mode,
                rights,
                create_id: open.create_id,
                grace: self.grace(open.grace_ms),
            },
        )?;
        if !admitted.is_new_open {
            // The same open was asked for twice at once; the first one stands.
            self.outputs.push_back(ServerOutput::CloseFile { open: id });
        }
        Ok(admitted.handle)
    }

    fn opened(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
        with_key: bool,
        attributes: Attributes,
    ) -> Result<ServerMessage, Refusal> {
        let state = self.state(session, handle, attributes)?;
        let key = if with_key { Some(self.issue_key(now, session, handle)?) } else { None };
        Ok(ServerControl::from(Opened { handle, state, key }).into())
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
}
