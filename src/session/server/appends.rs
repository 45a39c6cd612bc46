//! Appends that are recorded before they are made: one at a time for each file, so that the place of each is known.
//! protocol.md: What became of a request.
//!
//! ```text
//!   in turn ──▶ weighed: the file's length, the hash ──▶ recorded, stored ──▶ appended ──▶ the next one's turn
//! ```
//!
//! What was appended by an open that cannot be resumed takes its turn as well, and is not recorded: its client has nothing
//! that it could ask with.

use std::collections::{HashMap, VecDeque};

use super::ServerCore;
use super::effects::{Job, Task};
use super::output::Effect;
use super::requests::Ticket;
use crate::model::{
    ByteRange, FileIdentity, HandleId, IntendedChange, IntendedName, NameState, OpenId, Reason, Refusal,
    Stability, Time,
};
use crate::wire::ServerData;
use crate::wire::data::AppendDone;

/// The appends of all files that have any; the first of each is under way.
#[derive(Debug)]
pub(super) struct Appends<P>(HashMap<FileIdentity, VecDeque<Waiting<P>>>);

#[derive(Debug)]
struct Waiting<P> {
    ticket: Ticket,
    handle: HandleId,
    open: OpenId,
    /// None once it is under way.
    payload: Option<(P, u32)>,
}

impl<P> Default for Appends<P> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// What is known of an append before it is made.
#[derive(Debug)]
pub(super) struct Weighed<P> {
    pub(super) payload: P,
    pub(super) len: u32,
}

impl<P: Clone> ServerCore<P> {
    /// Takes an append on, for which an operation of its handle was begun.
    pub(super) fn append_in_turn(
        &mut self,
        ticket: Ticket,
        (handle, open): (HandleId, OpenId),
        payload: (P, u32),
    ) {
        let Some(file) = self.table.file_of(open) else { return };
        let turns = self.appends.0.entry(file).or_default();
        turns.push_back(Waiting { ticket, handle, open, payload: Some(payload) });
        if turns.len() == 1 {
            self.weigh_next(file);
        }
    }

    /// An append was made, or has failed; `turn`: the file whose next one waits for it.
    pub(super) fn on_appended(
        &mut self,
        ticket: Ticket,
        (handle, turn): (HandleId, Option<FileIdentity>),
        result: Result<(u64, u32), Refusal>,
    ) {
        let answer = |(offset, written)| {
            let done = AppendDone { offset, written, stability: Stability::Received };
            (ServerData::from(done).into(), None)
        };
        self.end(ticket, handle, result.map(answer));
        if let Some(file) = turn {
            self.end_turn(file);
        }
    }

    /// The append whose turn it was is done: the next one's begins.
    fn end_turn(&mut self, file: FileIdentity) {
        if let Some(turns) = self.appends.0.get_mut(&file) {
            turns.pop_front();
        }
        self.weigh_next(file);
    }

    /// An append's place and hash are known.
    pub(super) fn on_weighed(
        &mut self,
        now: Time,
        ticket: Ticket,
        (handle, file): (HandleId, FileIdentity),
        Weighed { payload, len }: Weighed<P>,
        result: Result<(u64, [u8; 32]), Refusal>,
    ) {
        let begun = result.and_then(|(offset, sum)| {
            let open = self.table.holder(ticket.session, handle)?.open;
            let range = ByteRange::from_start(offset).ok_or(Reason::TooBig)?;
            self.table.check_io(now, open, range, true)?;
            if let Some(at) = self.intended_place(open) {
                self.intend(ticket, IntendedChange::Append { at, offset, len, sum })?;
            }
            self.append(ticket, (handle, open), range, (payload, Some(file)));
            Ok(())
        });
        if let Err(refusal) = begun {
            self.end(ticket, handle, Err(refusal));
            self.end_turn(file);
        }
    }

    /// Where the file of an open is, for a record; none if nobody could come back for it.
    pub(super) fn intended_place(&self, open: OpenId) -> Option<IntendedName> {
        let open = self.table.open(open).filter(|open| open.resumable && self.commits.persists())?;
        let before = NameState { directory: None, file: Some(open.file) };
        Some(IntendedName { export: open.export.clone(), path: open.path.clone(), before })
    }

    fn weigh_next(&mut self, file: FileIdentity) {
        let next = self.appends.0.get_mut(&file).and_then(VecDeque::front_mut);
        let Some(Waiting { ticket, handle, open, payload }) = next else {
            self.appends.0.remove(&file);
            return;
        };
        let Some((payload, len)) = payload.take() else { return };
        let (ticket, handle, open) = (*ticket, *handle, *open);
        let effect = Effect::Weigh { open, payload: payload.clone() };
        let weighed = Weighed { payload, len };
        self.start(Job::new(ticket, Task::Weigh { handle, file, weighed }), effect);
    }
}
