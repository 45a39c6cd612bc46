//! Calls: requests that somebody waits for, until when, and what becomes of those that nobody waits for any more.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Sleep, sleep_until};

use super::SessionLoss;
use super::error::{Error, refused};
use super::session::{Guard, Inner, Outcome, Watch};
use crate::model::{LineSet, Reason, Time};
use crate::session::client::{Answer, Operation, Ticket, give_back};
use crate::wire::{ClientControl, ServerControl};

/// Until when a call waits, and how long that was when it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Time,
    limit: Duration,
}

/// Who calls: a session and how long each call may take. Files and exports have one each.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    guard: Arc<Guard>,
    timeout: Duration,
}

impl Caller {
    pub(super) fn new(guard: &Arc<Guard>) -> Self {
        Self { guard: Arc::clone(guard), timeout: guard.inner().request_timeout }
    }

    pub(super) fn with_timeout(&self, timeout: Duration) -> Self {
        Self { guard: Arc::clone(&self.guard), timeout }
    }

    pub(super) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Until when a call that begins now waits.
    pub(super) fn deadline(&self) -> Deadline {
        self.deadline_in(self.timeout)
    }

    /// As [`Self::deadline`], for a call that may first keep its caller waiting for `more`.
    pub(super) fn deadline_after(&self, more: Duration) -> Deadline {
        self.deadline_in(self.timeout.saturating_add(more))
    }

    fn deadline_in(&self, limit: Duration) -> Deadline {
        Deadline { at: self.now().after(limit), limit }
    }

    pub(super) fn now(&self) -> Time {
        self.guard.inner().party.clock.now()
    }

    pub(super) async fn sleep(&self, span: Duration) {
        self.guard.inner().party.clock.sleep(span).await;
    }

    /// Begins a request.
    pub(super) fn begin(&self, operation: Operation<Bytes>, lines: LineSet, deadline: Deadline) -> Pending {
        self.begin_watched(operation, lines, deadline, None)
    }

    /// Begins a write of `len` bytes, which `ledger` keeps until its outcome is known. One that `is_accepted` has been
    /// promised to a caller who does not wait for it: the ledger keeps an error also if it is never sent.
    pub(super) fn begin_write(
        &self,
        (operation, len): (Operation<Bytes>, u32),
        lines: LineSet,
        deadline: Deadline,
        (ledger, is_accepted): (&Arc<Ledger>, bool),
    ) -> Pending {
        let watch = Watch { ledger: Arc::clone(ledger), number: ledger.enter(), len, is_accepted };
        self.begin_watched(operation, lines, deadline, Some(watch))
    }

    fn begin_watched(
        &self,
        operation: Operation<Bytes>,
        lines: LineSet,
        deadline: Deadline,
        watch: Option<Watch>,
    ) -> Pending {
        let inner = Arc::clone(self.guard.inner());
        let (ticket, receiver) = inner.request(operation, lines, watch.clone());
        Pending { inner, ticket, receiver, deadline, alarm: None, watch, is_done: false, is_timed_out: false }
    }

    /// Begins a request of control channels.
    pub(super) fn begin_control(&self, message: impl Into<ClientControl>) -> Pending {
        self.begin(Operation::Control(message.into()), LineSet::ALL, self.deadline())
    }

    /// A request of control channels and its answer.
    pub(super) async fn control(&self, message: impl Into<ClientControl>) -> Result<ServerControl, Error> {
        control_answer(self.begin_control(message).outcome().await?).map(|(answer, _)| answer)
    }

    /// A request of control channels whose answer has a payload.
    pub(super) async fn control_payload(
        &self,
        message: impl Into<ClientControl>,
    ) -> Result<(ServerControl, Bytes), Error> {
        control_answer(self.begin_control(message).outcome().await?)
    }

    /// A request of control channels with a payload, and its answer.
    pub(super) async fn control_with(
        &self,
        message: impl Into<ClientControl>,
        payload: Bytes,
    ) -> Result<ServerControl, Error> {
        let len = u32::try_from(payload.len()).map_err(|_| refused(Reason::TooBig))?;
        let operation = Operation::ControlWith(message.into(), payload, len);
        let mut pending = self.begin(operation, LineSet::ALL, self.deadline());
        control_answer(pending.outcome().await?).map(|(answer, _)| answer)
    }

    /// A request of control channels that has nothing to tell.
    pub(super) async fn done(&self, message: impl Into<ClientControl>) -> Result<(), Error> {
        expect_done(&self.control(message).await?)
    }
}

pub(super) fn expect_done(answer: &ServerControl) -> Result<(), Error> {
    match answer {
        ServerControl::Done(_) => Ok(()),
        _ => Err(Error::Protocol),
    }
}

pub(super) fn control_answer(answer: Answer<Bytes>) -> Result<(ServerControl, Bytes), Error> {
    match answer {
        Answer::Control(answer, payload) => Ok((answer, payload.unwrap_or_default())),
        _ => Err(Error::Protocol),
    }
}

/// Whether all of a write of `len` bytes was done: a server that takes a part has no room for the rest.
pub(super) fn expect_written(answer: &Answer<Bytes>, len: u32) -> Result<(), Error> {
    let written = match answer {
        Answer::Written(done) => done.written,
        Answer::Appended(done) => done.written,
        _ => return Err(Error::Protocol),
    };
    if written == len { Ok(()) } else { Err(refused(Reason::NoSpace)) }
}

/// What may be waited for, so that what waits can be tested without a session.
pub(super) trait Reply {
    /// The outcome, once it is there. Not asked again after that.
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer<Bytes>, Error>>;
}

/// A request that somebody waits for. Dropped without its outcome, it is withdrawn if it was never sent; one that was
/// sent goes on, because the server may be executing it.
#[derive(Debug)]
pub(super) struct Pending {
    inner: Arc<Inner>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Outcome>,
    deadline: Deadline,
    /// Made when there is something to wait for, which mostly there is not.
    alarm: Option<Pin<Box<Sleep>>>,
    watch: Option<Watch>,
    is_done: bool,
    /// Its caller has heard that it has no outcome.
    is_timed_out: bool,
}

impl Pending {
    /// Waits for the outcome until the deadline. Cancel safe: the next call goes on waiting.
    pub(super) async fn outcome(&mut self) -> Result<Answer<Bytes>, Error> {
        poll_fn(|cx| self.poll_outcome(cx)).await
    }
}

impl Reply for Pending {
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer<Bytes>, Error>> {
        if self.is_done {
            return Poll::Ready(Err(Error::Protocol));
        }
        if let Poll::Ready(received) = Pin::new(&mut self.receiver).poll(cx) {
            self.is_done = true;
            let outcome = received.map_err(|_| Error::SessionEnded(SessionLoss::Closed))?;
            return Poll::Ready(outcome.map_err(Error::from));
        }
        let alarm = self.alarm.get_or_insert_with(|| {
            let _in_runtime = self.inner.runtime.enter();
            Box::pin(sleep_until(self.inner.party.clock.deadline(self.deadline.at)))
        });
        ready!(alarm.as_mut().poll(cx));
        self.is_timed_out = true;
        // Where the session cannot come back, and it is known why, that says more than the time.
        Poll::Ready(Err(self.inner.trouble().unwrap_or(Error::TimedOut(self.deadline.limit))))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_done {
            self.receiver.close();
            match self.receiver.try_recv() {
                // It was answered, and the answer was never taken.
                Ok(untaken) => {
                    if let Some(Watch { ledger, len, .. }) = &self.watch {
                        ledger.lose(&untaken, *len);
                    }
                    if let Some(message) = give_back(&untaken) {
                        self.inner.begin_unwatched(message);
                    }
                }
                Err(_) => self.inner.withdraw(self.ticket, self.is_timed_out),
            }
        }
    }
}

/// The writes of a handle that have no outcome yet, and the first outcome that nobody heard of: that of a write whose
/// caller had given up.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
    /// An entry has gone.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    under_way: BTreeSet<u64>,
    next: u64,
    lost: Option<Error>,
}

impl Ledger {
    /// Enters a write, and tells its number.
    pub(super) fn enter(&self) -> u64 {
        let mut entries = self.lock();
        let number = entries.next;
        entries.next = number.saturating_add(1);
        entries.under_way.insert(number);
        number
    }

    /// A write has its outcome, or was never sent.
    pub(super) fn leave(&self, number: u64) {
        self.lock().under_way.remove(&number);
        self.changed.notify_waiters();
    }

    /// Keeps the outcome of a write of `len` bytes, which nobody has heard of, if it is an error.
    pub(super) fn lose(&self, outcome: &Outcome, len: u32) {
        let outcome = match outcome {
            Ok(answer) => expect_written(answer, len),
            Err(error) => Err(Error::from(error.clone())),
        };
        if let Err(error) = outcome {
            self.keep(error);
        }
    }

    /// Keeps the error of a write that nobody has heard of. The first one is told, and what follows follows from it.
    pub(super) fn keep(&self, error: Error) {
        self.lock().lost.get_or_insert(error);
    }

    /// Waits until every write that was entered before has its outcome, and tells the error that nobody heard of, once.
    pub(super) async fn settled(&self, caller: &Caller) -> Result<(), Error> {
        let deadline = caller.deadline();
        let end = self.lock().next;
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if self.lock().under_way.first().is_none_or(|&first| first >= end) {
                    return;
                }
                changed.await;
            }
        };
        let clock = caller.guard.inner().party.clock;
        if clock.timeout(deadline.limit, waiting).await.is_none() {
            return Err(Error::TimedOut(deadline.limit));
        }
        self.take_lost()
    }

    /// The error that nobody heard of, once.
    pub(super) fn take_lost(&self) -> Result<(), Error> {
        self.lock().lost.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Stability;
    use crate::session::client::RequestError;
    use crate::wire::data::WriteDone;

    fn wrote(written: u32) -> Outcome {
        Ok(Answer::Written(WriteDone { written, stability: Stability::Received }))
    }

    #[test]
    fn a_lost_error_is_told_once_and_the_first_one_wins() {
        let ledger = Ledger::default();
        ledger.lose(&wrote(4), 4);
        assert!(ledger.take_lost().is_ok(), "all of it was written");
        ledger.lose(&wrote(3), 4);
        ledger.lose(&Err(RequestError::Refused(Reason::Io.into())), 4);
        assert_eq!(ledger.take_lost().unwrap_err().reason(), Some(Reason::NoSpace));
        assert!(ledger.take_lost().is_ok());
    }

    #[test]
    fn a_write_that_was_accepted_and_never_sent_is_an_error_unless_its_caller_has_heard() {
        for (is_accepted, is_told, is_error) in
            [(true, false, true), (true, true, false), (false, false, false)]
        {
            let ledger: Arc<Ledger> = Arc::default();
            let number = ledger.enter();
            Watch { ledger: Arc::clone(&ledger), number, len: 4, is_accepted }.undone(is_told);
            assert!(ledger.lock().under_way.is_empty());
            assert_eq!(matches!(ledger.take_lost(), Err(Error::EarlierWrite)), is_error, "{is_accepted}");
        }
    }

    #[test]
    fn numbers_leave_in_any_order() {
        let ledger = Ledger::default();
        let numbers = [ledger.enter(), ledger.enter(), ledger.enter()];
        ledger.leave(numbers[1]);
        ledger.leave(numbers[0]);
        assert_eq!(ledger.lock().under_way.first(), Some(&numbers[2]));
    }
}
