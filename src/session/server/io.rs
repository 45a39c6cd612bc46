//! Requests about the bytes and attributes of an open file. Range locks are mandatory: what another open has locked
//! is refused here, before any file work.

use super::ServerCore;
use super::effects::{Job, Task};
use super::output::{ConnectionId, Effect, FileTarget, NameWork};
use super::requests::Ticket;
use crate::model::planted::{self, Bug};
use crate::model::{
    Allocation, AttributeChange, ByteRange, FileIdentity, HandleId, IntendedChange, Limits, OpenId,
    Protection, RawRange, Reason, Refusal, Rights, Stability, SyncScope, Time,
};
use crate::wire::control::{Allocate, Change, Seek, Synced, Target};
use crate::wire::data::{AppendDone, Read, ReadDone, Write, WriteDone};
use crate::wire::names::XattrSet;
use crate::wire::{ServerControl, ServerData};

/// Bytes of an open that file work reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) open: OpenId,
    pub(super) range: ByteRange,
    pub(super) is_write: bool,
}

/// What is to be done once it is known where the file ends.
#[derive(Debug)]
pub(super) enum AtEnd<P> {
    /// Append; `None`: nothing, but tell the offset.
    Append(Option<P>),
    /// Change the length, and perhaps more.
    Change(AttributeChange),
    /// Reserve storage or give it back.
    Allocate(ByteRange, Allocation),
}

impl<P: Clone> ServerCore<P> {
    pub(super) fn serve_stat(&mut self, now: Time, ticket: Ticket, handle: HandleId) -> Result<(), Refusal> {
        let open = self.begin(now, ticket, handle, Rights::NONE)?;
        self.start(Job::new(ticket, Task::Stat { handle }), Effect::Attributes { open });
        Ok(())
    }

    pub(super) fn serve_sync(
        &mut self,
        now: Time,
        ticket: Ticket,
        handle: HandleId,
        scope: SyncScope,
    ) -> Result<(), Refusal> {
        let open = self.begin(now, ticket, handle, Rights::NONE)?;
        if let Some(refusal) = self.sync_errors.remove(&handle) {
            self.table.end_operation(handle);
            return Err(refusal);
        }
        if planted::is(Bug::SyncTooEarly) {
            self.table.end_operation(handle);
            self.answer(ticket, ServerControl::from(Synced {}).into(), None);
            return Ok(());
        }
        self.start(Job::new(ticket, Task::Sync { handle }), Effect::Sync { open, scope });
        Ok(())
    }

    pub(super) fn serve_read(
        &mut self,
        now: Time,
        connection: ConnectionId,
        ticket: Ticket,
        read: Read,
    ) -> Result<(), Refusal> {
        let Read { handle, offset, len } = read;
        if !is_range(offset, len) || usize::try_from(len).is_ok_and(|len| len > Limits::PAYLOAD_LEN_MAX) {
            return Err(Reason::Invalid.into());
        }
        let open = self.begin(now, ticket, handle, Rights::READ)?;
        let Some(range) = range_of(offset, len) else {
            self.table.end_operation(handle);
            self.answer(ticket, ServerData::from(ReadDone {}).into(), None);
            return Ok(());
        };
        let io = Io { open, range, is_write: false };
        let is_clear =
            self.channels.get(&connection).is_some_and(|channel| channel.protection == Protection::Clear);
        let may_lend = is_clear && len >= LENT_LEN_MIN;
        let effect = Effect::Read { open, offset, len, may_lend };
        self.start_io(now, ticket, Task::Read { handle }, (handle, io), effect)
    }

    pub(super) fn serve_write(
        &mut self,
        now: Time,
        ticket: Ticket,
        write: Write,
        payload: Option<(P, u32)>,
    ) -> Result<(), Refusal> {
        let Write { handle, offset } = write;
        let len = payload.as_ref().map_or(0, |&(_, len)| len);
        if !is_range(offset, len) {
            return Err(Reason::Invalid.into());
        }
        let open = self.begin(now, ticket, handle, Rights::WRITE)?;
        let (Some((payload, _)), Some(range)) = (payload, range_of(offset, len)) else {
            self.table.end_operation(handle);
            let done = WriteDone { written: 0, stability: Stability::Received };
            self.answer(ticket, ServerData::from(done).into(), None);
            return Ok(());
        };
        let io = Io { open, range, is_write: true };
        let effect = Effect::Write { open, offset, payload };
        self.start_io(now, ticket, Task::Write { handle }, (handle, io), effect)
    }

    pub(super) fn serve_append(
        &mut self,
        now: Time,
        ticket: Ticket,
        handle: HandleId,
        payload: Option<(P, u32)>,
    ) -> Result<(), Refusal> {
        let open = self.begin(now, ticket, handle, Rights::APPEND)?;
        match payload {
            Some(payload) if self.records_intents() => self.append_in_turn(ticket, (handle, open), payload),
            Some((payload, _)) if self.is_unlocked(open) => {
                self.append(ticket, (handle, open), ByteRange::ALL, (payload, None));
            }
            payload => {
                let payload = payload.map(|(payload, _)| payload);
                self.find_end(ticket, (handle, open), AtEnd::Append(payload));
            }
        }
        Ok(())
    }

    /// The file's end is known, on which it depends whether a lock is in the way of a request. It can only have moved up
    /// since, unless somebody cuts the file. An operation of `handle` was begun; it is still to be ended on refusal.
    pub(super) fn on_end_found(
        &mut self,
        now: Time,
        ticket: Ticket,
        handle: HandleId,
        then: AtEnd<P>,
        end: u64,
    ) -> Result<(), Refusal> {
        let open = self.table.holder(ticket.session, handle)?.open;
        let behind = |start| ByteRange::from_start(start).ok_or(Reason::TooBig);
        let (range, task, effect) = match then {
            AtEnd::Append(None) => {
                let done = AppendDone { offset: end, written: 0, stability: Stability::Received };
                self.end(ticket, handle, Ok((ServerData::from(done).into(), None)));
                return Ok(());
            }
            AtEnd::Append(Some(payload)) => {
                (behind(end)?, Task::Append { handle, turn: None }, Effect::Append { open, payload })
            }
            AtEnd::Change(change) => {
                let range = behind(change.len.map_or(end, |len| len.min(end)))?;
                let task = Task::Change { handle: Some(handle), is_of_bytes: true };
                (range, task, Effect::Change { target: FileTarget::Open(open), change })
            }
            AtEnd::Allocate(range, how) => {
                let start = if how == Allocation::Reserve { range.start().min(end) } else { range.start() };
                let grown = ByteRange::between(start, range.end()).unwrap_or(range);
                (grown, Task::Allocate { handle }, Effect::Allocate { open, range, how })
            }
        };
        let io = Io { open, range, is_write: true };
        self.check_rewriting(handle)?;
        self.table.check_io(now, io.open, io.range, io.is_write)?;
        if let Effect::Change { change: AttributeChange { len: Some(to), .. }, .. } = &effect
            && let Some(at) = self.intended_place(open)
        {
            self.intend(ticket, IntendedChange::SetLength { at, from: end, to: *to })?;
        }
        self.start(Job::on_bytes(ticket, task, io), effect);
        Ok(())
    }

    pub(super) fn serve_change(&mut self, now: Time, ticket: Ticket, asked: Change) -> Result<(), Refusal> {
        let Change { target, change } = asked;
        let place = match target {
            Target::Handle(handle) => {
                let needed = if change.len.is_some() { Rights::WRITE } else { Rights::APPEND };
                let open = self.begin(now, ticket, handle, needed)?;
                let effect = Effect::Change { target: FileTarget::Open(open), change };
                let task = Task::Change { handle: Some(handle), is_of_bytes: change.len.is_some() };
                let Some(len) = change.len else {
                    self.start(Job::new(ticket, task), effect);
                    return Ok(());
                };
                if len >= LEN_END {
                    self.table.end_operation(handle);
                    return Err(Reason::Invalid.into());
                }
                if !self.is_unlocked(open) || self.intended_place(open).is_some() {
                    self.find_end(ticket, (handle, open), AtEnd::Change(change));
                    return Ok(());
                }
                let io = Io { open, range: ByteRange::ALL, is_write: true };
                return self.start_io(now, ticket, task, (handle, io), effect);
            }
            Target::Name(place) => place,
        };
        if change.len.is_some() {
            return Err(Reason::Invalid.into());
        }
        self.permit(now, ticket, &place.export, Rights::WRITE)?;
        if place.path.is_root() && change.permissions.is_some() {
            // Without them nothing in the export could be reached again, by anybody.
            return Err(Reason::PermissionDenied.into());
        }
        let effect = Effect::Change { target: FileTarget::Name(place), change };
        self.start(Job::new(ticket, Task::Change { handle: None, is_of_bytes: false }), effect);
        Ok(())
    }

    pub(super) fn serve_allocate(
        &mut self,
        now: Time,
        ticket: Ticket,
        asked: &Allocate,
    ) -> Result<(), Refusal> {
        let &Allocate { handle, range, how } = asked;
        // Without a length there is no telling how much is meant.
        let range = Some(range).filter(|range| range.len > 0).and_then(ByteRange::new);
        let range = range.filter(|range| range.end() < ByteRange::END_MAX).ok_or(Reason::Invalid)?;
        let open = self.begin(now, ticket, handle, Rights::WRITE)?;
        if !self.is_unlocked(open) {
            self.find_end(ticket, (handle, open), AtEnd::Allocate(range, how));
            return Ok(());
        }
        let io = Io { open, range: ByteRange::ALL, is_write: true };
        let effect = Effect::Allocate { open, range, how };
        self.start_io(now, ticket, Task::Allocate { handle }, (handle, io), effect)
    }

    pub(super) fn serve_seek(&mut self, now: Time, ticket: Ticket, asked: &Seek) -> Result<(), Refusal> {
        let &Seek { handle, offset, what } = asked;
        if i64::try_from(offset).is_err() {
            return Err(Reason::Invalid.into());
        }
        let open = self.begin(now, ticket, handle, Rights::READ)?;
        self.start(Job::new(ticket, Task::Seek { handle }), Effect::Seek { open, offset, what });
        Ok(())
    }

    /// Serves a request about extended attributes, of an open file or of a name.
    pub(super) fn serve_xattr(
        &mut self,
        now: Time,
        ticket: Ticket,
        target: Target,
        is_change: bool,
        work: impl FnOnce(FileTarget) -> NameWork<P>,
    ) -> Result<(), Refusal> {
        let (handle, target) = match target {
            Target::Handle(handle) => {
                let needed = if is_change { Rights::APPEND } else { Rights::READ };
                (Some(handle), FileTarget::Open(self.begin(now, ticket, handle, needed)?))
            }
            Target::Name(place) => {
                let needed = if is_change { Rights::WRITE } else { Rights::READ };
                self.permit(now, ticket, &place.export, needed)?;
                (None, FileTarget::Name(place))
            }
        };
        self.start(Job::new(ticket, Task::Named { handle }), Effect::Name(work(target)));
        Ok(())
    }

    pub(super) fn serve_xattr_set(
        &mut self,
        now: Time,
        ticket: Ticket,
        set: XattrSet,
        value: Option<(P, u32)>,
    ) -> Result<(), Refusal> {
        let XattrSet { target, name, how } = set;
        if value.as_ref().is_some_and(|&(_, len)| u64::from(len) > Limits::LIST_LEN_MAX) {
            return Err(Reason::AttributeTooBig.into());
        }
        let value = value.map(|(value, _)| value);
        self.serve_xattr(now, ticket, target, true, |target| NameWork::XattrSet { target, name, how, value })
    }

    /// Begins an operation on a handle: it is this session's, not draining, and has the right, by the open and by
    /// the list of clients as it is now.
    pub(super) fn begin(
        &mut self,
        now: Time,
        ticket: Ticket,
        handle: HandleId,
        needed: Rights,
    ) -> Result<OpenId, Refusal> {
        let session = self.sessions.get(&ticket.session).ok_or(Reason::BadHandle)?;
        let holder = self.table.holder(ticket.session, handle)?;
        let allowed = self.export_rights(now, session, holder.export).ok_or(Reason::PermissionDenied)?;
        if !allowed.permits(needed) {
            return Err(Reason::PermissionDenied.into());
        }
        self.table.note_told(handle);
        if needed.contains(Rights::WRITE) {
            self.check_rewriting(handle)?;
        } else {
            self.end_rewriting(handle);
        }
        self.table.begin_operation(ticket.session, handle, needed)
    }

    /// Starts work on bytes, for which an operation of `handle` was begun, unless another open has locked them.
    pub(super) fn start_io(
        &mut self,
        now: Time,
        ticket: Ticket,
        task: Task<P>,
        (handle, io): (HandleId, Io),
        effect: Effect<P>,
    ) -> Result<(), Refusal> {
        if let Err(refusal) = self.table.check_io(now, io.open, io.range, io.is_write) {
            self.table.end_operation(handle);
            return Err(refusal);
        }
        self.start(Job::on_bytes(ticket, task, io), effect);
        Ok(())
    }

    /// Whether no other open has locked any byte of the file.
    fn is_unlocked(&self, open: OpenId) -> bool {
        !self.table.has_foreign_locks(open)
    }

    /// Looks for the end of a file before anything is done there.
    fn find_end(&mut self, ticket: Ticket, (handle, open): (HandleId, OpenId), then: AtEnd<P>) {
        self.start(Job::new(ticket, Task::FindEnd { handle, then }), Effect::Attributes { open });
    }

    /// Appends, for whom an operation of `handle` was begun; `turn`: the file whose next append has its turn then.
    pub(super) fn append(
        &mut self,
        ticket: Ticket,
        (handle, open): (HandleId, OpenId),
        range: ByteRange,
        (payload, turn): (P, Option<FileIdentity>),
    ) {
        let io = Io { open, range, is_write: true };
        self.start(
            Job::on_bytes(ticket, Task::Append { handle, turn }, io),
            Effect::Append { open, payload },
        );
    }
}

/// Shortest read whose bytes are sent from the file, in bytes: copying less costs less than to send it that way, which
/// waits for another thread.
const LENT_LEN_MIN: u32 = 64 << 10;
/// Behind the greatest length that a file can have.
const LEN_END: u64 = ByteRange::END_MAX;

/// Whether a range ends within what a file can have.
fn is_range(offset: u64, len: u32) -> bool {
    i64::try_from(offset).is_ok_and(|offset| offset.checked_add(i64::from(len)).is_some())
}

/// The bytes of a read or write; `None` if there are none.
fn range_of(offset: u64, len: u32) -> Option<ByteRange> {
    Some(RawRange { start: offset, len: u64::from(len) })
        .filter(|range| range.len > 0)
        .and_then(ByteRange::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers at which arithmetic goes wrong, and their neighbours.
    fn edges() -> Vec<u64> {
        let mut edges = vec![0, 1, 2, 511, 512, 513, 4095, 4096, 4097];
        for shift in [20, 31, 32, 33, 53, 62, 63] {
            edges.extend([(1 << shift) - 1, 1 << shift, (1 << shift) + 1]);
        }
        edges.extend([u64::MAX - 4096, u64::MAX - 1, u64::MAX]);
        edges
    }

    /// The next number of a xorshift stream.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn t15_ranges_are_judged_as_numbers_without_bounds_would_be() {
        let edges = edges();
        let mut state = 0x1234_5678_9abc_def1_u64;
        for round in 0..1_000_000_u64 {
            let mut pick = || {
                let random = next(&mut state);
                let edge = edges[usize::try_from(random % u64::try_from(edges.len()).unwrap()).unwrap()];
                if random >> 60 == 0 { next(&mut state) } else { edge }
            };
            let (offset, wide) = (pick(), pick());
            let len = u32::try_from(wide % (1 << 32)).unwrap();
            let end = u128::from(offset) + u128::from(len);
            let greatest = u128::from(i64::MAX.unsigned_abs());
            assert_eq!(is_range(offset, len), end <= greatest, "round {round}: {offset} {len}");
            if is_range(offset, len) {
                assert_eq!(range_of(offset, len).is_some(), len > 0, "round {round}: {offset} {len}");
            }
            let wide_end = if wide == 0 { greatest + 1 } else { u128::from(offset) + u128::from(wide) };
            let is_lockable = u128::from(offset) <= greatest && wide_end <= greatest + 1;
            let range = ByteRange::new(RawRange { start: offset, len: wide });
            assert_eq!(range.is_some(), is_lockable, "round {round}: {offset} {wide}");
            if let Some(range) = range {
                assert_eq!(u128::from(range.end()), wide_end, "round {round}: {offset} {wide}");
            }
        }
    }
}
