//! A request of the client as the core keeps it: what it asks, what it counts, which handle it names, and whether it
//! may run twice. protocol.md: Requests; Coming back.

use super::handles::Outcome;
use super::output::{Answer, Operation, Ticket};
use crate::model::planted::{self, Bug};
use crate::model::{
    ByteRange, ChannelKind, ChannelNumber, Create, HandleId, LineSet, OpenId, Reason, RequestId, StoreId,
    Time, XattrHow,
};
use crate::session::subject::subject;
use crate::wire::ClientControl;
use crate::wire::control::{Done, Open, Target};
use crate::wire::outcomes::Inquire;

/// A request without an answer. Callers know it by its ticket, which is given when it is queued, the server by its
/// id, which is given when it is first sent: what waits for a lost line holds up no window.
#[derive(Debug)]
pub(super) struct Request<P> {
    pub(super) operation: Operation<P>,
    pub(super) lines: LineSet,
    /// The channel that it is under way on; `None`: it is queued, or it is a lock that waits.
    pub(super) on: Option<ChannelNumber>,
    /// Its id in the present session, once it was sent in it.
    pub(super) id: Option<RequestId>,
    /// Whether anybody still waits for its answer: what nobody wants is given back.
    pub(super) is_wanted: bool,
    /// Who asks.
    pub(super) purpose: Purpose,
    /// When it was first sent, in whatever session.
    pub(super) sent_at: Option<Time>,
    /// Of a sync: writes with lower numbers had been acknowledged when it was sent.
    pub(super) covers: u64,
    /// Where it was sent and not answered, if it is not known whether it was executed there.
    pub(super) former: Option<Former>,
    /// Whether it was executed, and only what it answers is asked for.
    pub(super) is_executed: bool,
}

/// Where a request was sent in a session that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Former {
    /// The session, its id there, and the server's life.
    pub(super) asked: Inquire,
    /// The store of that server.
    pub(super) store: StoreId,
}

/// Who asks for something, and what its outcome is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A caller, who gets the outcome.
    Caller,
    /// The core: a handle is to be had again in a new session.
    Resume(HandleId),
    /// The core: a handle has no key, because the answer that had one was lost. So many more times, if need be.
    Key(HandleId, u8),
    /// The core: what is kept of an open has become too much.
    Sync(OpenId),
    /// The core: what became of this request in a former session.
    Inquire(Ticket),
    /// The core: the server is to know that nothing more is done again through a handle.
    GoOn(HandleId),
    /// The core: something that was acknowledged to an open is done again.
    Rewrite(OpenId, Rewrite),
}

/// What is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// The file is cut, or extended.
    Length,
    /// This piece of the write of this number.
    Piece(ByteRange, u64),
}

/// What becomes of a request whose session is gone.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and taken apart at once")]
pub(super) enum Fate<P> {
    /// It is sent once more.
    Again,
    /// The next server is asked whether it was executed.
    Ask,
    /// It ends so; and this is asked, if need be, to give back what may be left of it.
    End(Outcome<P>, Option<Operation<P>>),
}

impl<P> Request<P> {
    /// Bytes of credit: those of the payload, on its way there or back.
    pub(super) fn bytes(&self) -> u64 {
        match &self.operation {
            Operation::Control(
                ClientControl::List(_) | ClientControl::XattrGet(_) | ClientControl::XattrList(_),
            ) => LIST_CREDIT,
            Operation::Control(_) => 0,
            Operation::Read(read) => u64::from(read.len),
            Operation::ControlWith(_, _, len)
            | Operation::Write(_, _, len)
            | Operation::Append(_, _, len) => u64::from(*len),
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        matches!(self.operation, Operation::Write(..) | Operation::Append(..))
    }

    pub(super) fn kind(&self) -> ChannelKind {
        match &self.operation {
            Operation::Control(_) | Operation::ControlWith(..) => ChannelKind::Control,
            Operation::Read(_) | Operation::Write(..) | Operation::Append(..) => ChannelKind::Data,
        }
    }

    /// How many requests of the credit it takes.
    pub(super) fn credit(&self) -> u32 {
        u32::from(!self.needs_no_credit())
    }

    /// Giving something back must not wait for others to give back.
    pub(super) fn needs_no_credit(&self) -> bool {
        matches!(
            &self.operation,
            Operation::Control(
                ClientControl::Close(_)
                    | ClientControl::Unlock(_)
                    | ClientControl::CancelLock(_)
                    | ClientControl::Revoke(_)
            )
        )
    }

    /// The handle that has to be there before it is sent: the one that it is about, or the one whose place it takes. What
    /// the core asks for itself waits for none.
    pub(super) fn waits_for(&self) -> Option<HandleId> {
        match &self.operation {
            _ if self.purpose != Purpose::Caller => None,
            Operation::Control(ClientControl::Resume(resume)) => resume.predecessor,
            operation => handle_of(operation),
        }
    }

    /// Whether something may be left of it on the server that nobody else would give back: it was sent in a session
    /// that is gone.
    pub(super) fn may_have_left_something(&self) -> bool {
        let leaves = matches!(
            &self.operation,
            Operation::Control(ClientControl::Open(_) | ClientControl::Resume(_) | ClientControl::Lock(_))
        );
        leaves && self.sent_at.is_some()
    }

    /// What becomes of it when the session that it was sent in is gone, and nobody knows whether it was executed.
    pub(super) fn fate(&self) -> Fate<P> {
        let unknown = Err(Reason::Unknown.into());
        match &self.operation {
            // What it names is gone with the session, and another request has its id in the next one.
            Operation::Control(ClientControl::CancelLock(_)) => {
                Fate::End(Ok(Answer::Control(Done {}.into(), None)), None)
            }
            _ if self.sent_at.is_none() => Fate::Again,
            Operation::Control(ClientControl::Open(open)) if open.truncate => {
                // Bytes that others have written since would be lost. An open that was made of it is given back.
                let plain = Open { create: Create::Never, truncate: false, with_key: false, ..open.clone() };
                Fate::End(unknown, Some(Operation::Control(plain.into())))
            }
            _ if self.needs_no_credit() || (!self.is_wanted && self.may_have_left_something()) => Fate::Again,
            operation if self.is_wanted && may_run_twice(operation) => Fate::Again,
            operation if self.is_wanted && is_recorded(operation) => Fate::Ask,
            _ => Fate::End(unknown, None),
        }
    }

    /// Whether it was sent before the present session was started.
    pub(super) fn is_again(&self, started_at: Time) -> bool {
        self.sent_at.is_some_and(|sent_at| sent_at < started_at)
    }

    /// Makes a lock that is asked for once more wait for no longer than what is left of its time.
    pub(super) fn shorten_wait(&mut self, now: Time) {
        if let (Some(sent_at), Operation::Control(ClientControl::Lock(lock))) =
            (self.sent_at, &mut self.operation)
        {
            let passed = u64::try_from(now.since(sent_at).as_millis()).unwrap_or(u64::MAX);
            lock.wait_ms = if self.is_wanted { lock.wait_ms.saturating_sub(passed) } else { 0 };
            self.sent_at = Some(now);
        }
    }
}

/// Whether a server records something before it does it, and can tell in its next life whether it did.
fn is_recorded<P>(operation: &Operation<P>) -> bool {
    match operation {
        Operation::Append(..) => true,
        Operation::Control(ClientControl::Change(change)) => change.change.len.is_some(),
        Operation::Control(message) => matches!(
            message,
            ClientControl::MakeDirectory(_)
                | ClientControl::Remove(_)
                | ClientControl::Rename(_)
                | ClientControl::Symlink(_)
                | ClientControl::HardLink(_)
        ),
        Operation::ControlWith(..) | Operation::Read(_) | Operation::Write(..) => false,
    }
}

/// Whether it changes nothing to have executed something twice in a row. `New` makes a file, and its second run
/// fails: so that is told apart when the answer is there.
fn may_run_twice<P>(operation: &Operation<P>) -> bool {
    match operation {
        Operation::Read(_) | Operation::Write(..) => true,
        Operation::Append(..) => planted::is(Bug::AppendRepeated),
        Operation::Control(message) | Operation::ControlWith(message, ..) => match message {
            ClientControl::Change(change) => change.change.len.is_none(),
            ClientControl::XattrSet(set) => set.how == XattrHow::Set,
            ClientControl::MakeDirectory(_)
            | ClientControl::Remove(_)
            | ClientControl::Rename(_)
            | ClientControl::Symlink(_)
            | ClientControl::HardLink(_)
            | ClientControl::XattrRemove(_)
            | ClientControl::Grant(_) => false,
            _ => true,
        },
    }
}

/// The handle that an operation is about.
pub(super) fn handle_of<P>(operation: &Operation<P>) -> Option<HandleId> {
    match operation {
        Operation::Control(message) | Operation::ControlWith(message, ..) => subject(message),
        Operation::Read(read) => Some(read.handle),
        Operation::Write(write, ..) => Some(write.handle),
        Operation::Append(append, ..) => Some(append.handle),
    }
}

/// Whether an operation opens a file that must not be there before.
pub(super) fn makes_new<P>(operation: &Operation<P>) -> bool {
    matches!(operation, Operation::Control(ClientControl::Open(open)) if open.create == Create::New)
}

/// The place in a message where the handle stands that it is about.
pub(super) fn handle_mut(message: &mut ClientControl) -> Option<&mut HandleId> {
    match message {
        ClientControl::IssueKey(message) => Some(&mut message.handle),
        ClientControl::Close(message) => Some(&mut message.handle),
        ClientControl::Stat(message) => Some(&mut message.handle),
        ClientControl::Sync(message) => Some(&mut message.handle),
        ClientControl::Allocate(message) => Some(&mut message.handle),
        ClientControl::Seek(message) => Some(&mut message.handle),
        ClientControl::Lock(message) => Some(&mut message.handle),
        ClientControl::Unlock(message) => Some(&mut message.handle),
        ClientControl::Grant(message) => Some(&mut message.handle),
        ClientControl::Revoke(message) => Some(&mut message.handle),
        ClientControl::Resume(message) => message.predecessor.as_mut(),
        _ => match target_mut(message)? {
            Target::Handle(handle) => Some(handle),
            Target::Name(_) => None,
        },
    }
}

/// Lets an operation be about another handle.
pub(super) fn rename<P>(operation: &mut Operation<P>, to: HandleId) {
    match operation {
        Operation::Control(message) | Operation::ControlWith(message, ..) => {
            if let Some(handle) = handle_mut(message) {
                *handle = to;
            }
        }
        Operation::Read(read) => read.handle = to,
        Operation::Write(write, ..) => write.handle = to,
        Operation::Append(append, ..) => append.handle = to,
    }
}

fn target_mut(message: &mut ClientControl) -> Option<&mut Target> {
    match message {
        ClientControl::Change(message) => Some(&mut message.target),
        ClientControl::XattrGet(message) => Some(&mut message.target),
        ClientControl::XattrSet(message) => Some(&mut message.target),
        ClientControl::XattrList(message) => Some(&mut message.target),
        ClientControl::XattrRemove(message) => Some(&mut message.target),
        _ => None,
    }
}

impl Ticket {
    /// The one that is given next.
    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What a request counts whose answer is a list or a value, in bytes: the length of a page.
const LIST_CREDIT: u64 = 64 << 10;
