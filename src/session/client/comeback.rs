//! How a session that its server does not know any more comes back: another one is started in its place, every handle
//! is resumed with its key, and what was asked and can run twice is asked again. protocol.md: Coming back.
//!
//! ```text
//!   running ──the server says that it does not know the session, or stops──▶ coming back
//!      ▲                                                                        │ Restart
//!      └───────────────────── handle_restarted ◀────────────────────────────────┤
//!                                                     handle_restart_failed ────┘ after a while
//! ```
//!
//! Nothing of the former session is left when the new one begins: channels, numbers, ids, credit and notices begin
//! anew. What stays are tickets, by which callers know their requests, and the names of handles.

use core::time::Duration;
use std::collections::BTreeSet;

use super::output::{Answer, ClientOutput, ConnectFailure, Operation, SessionEvent, Terms, Ticket};
use super::request::{Fate, Former, Purpose};
use super::{ClientCore, Phase};
use crate::model::{Epoch, LineId, LineSet, Reason, RequestId, Stability, StoreId, Time};
use crate::session::{LossReason, Payload};
use crate::wire::control::Done;
use crate::wire::data::AppendDone;
use crate::wire::outcomes::{Became, Inquire};
use crate::wire::{ClientControl, ServerControl};

/// An attempt to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Return {
    /// The shell is at it.
    is_trying: bool,
    /// When the next attempt may start.
    retry_at: Time,
    /// Attempts that failed in a row.
    failures: u32,
}

impl<P: Payload> ClientCore<P> {
    /// The terms of the present session, or of the last one while none has taken its place.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether another session is to take the place of the one that the server does not know any more.
    #[must_use]
    pub fn is_coming_back(&self) -> bool {
        matches!(self.phase, Phase::ComingBack(_))
    }

    /// A session was started in place of the former one; its channel 0 is on `line`. False if it cannot be used, or is
    /// not wanted any more: it is to be given up.
    pub fn handle_restarted(&mut self, now: Time, line: LineId, terms: Terms) -> bool {
        if !self.is_coming_back() {
            return false;
        }
        // What waits was cut into pieces of this size.
        let least = self.limits.chunk;
        if terms.payload_max < least || terms.bytes < u64::from(least) {
            self.handle_restart_failed(now, ConnectFailure::Refused);
            return false;
        }
        if terms.verifier != self.terms.verifier {
            self.cache = self.cache.saturating_add(1);
        }
        self.limits = super::limits_under(&self.own_limits, &terms);
        self.terms = terms;
        self.phase = Phase::Running;
        self.started_at = now;
        self.has_served = false;
        self.next_number = 1;
        self.next_request = RequestId::FIRST;
        self.heard = 0;
        self.links.clear();
        self.asked_until = None;
        self.adopt_first(now, line);
        self.seek_channels(now);
        self.resume_handles(now);
        self.inquire(now);
        self.pull(now);
        true
    }

    /// No session could be started in place of the former one. It is tried again.
    pub fn handle_restart_failed(&mut self, now: Time, failure: ConnectFailure) {
        let Phase::ComingBack(Return { failures, .. }) = self.phase else { return };
        let retry_in = self.back_off(failures);
        let failures = failures.saturating_add(1);
        self.phase = Phase::ComingBack(Return { is_trying: false, retry_at: now.after(retry_in), failures });
        self.outputs.push_back(ClientOutput::Event(SessionEvent::RestartFailed { failure, retry_in }));
    }

    /// The server does not know the session any more.
    pub(super) fn come_back(&mut self, now: Time) {
        if self.phase != Phase::Running {
            return;
        }
        // A server that takes a session and drops it again is not asked without a pause. One that has served it was
        // good for something meanwhile, however soon it was killed.
        let is_settled = self.has_served || now.since(self.started_at) >= SETTLED_AFTER;
        self.short_lives = if is_settled { 0 } else { self.short_lives.saturating_add(1) };
        let wait = self.short_lives.checked_sub(1).map_or(Duration::ZERO, |short| self.back_off(short));
        let retry_at = now.after(wait);
        self.phase = Phase::ComingBack(Return { is_trying: false, retry_at, failures: 0 });
        for number in self.channels.keys().copied().collect::<Vec<_>>() {
            self.outputs.push_back(ClientOutput::Disconnect { number });
            self.retire(now, number, LossReason::SessionEnded);
        }
        self.detach(now);
        self.try_to_return(now);
    }

    /// Asks for a session in place of the former one, if it is time.
    pub(super) fn try_to_return(&mut self, now: Time) {
        if let Phase::ComingBack(attempt) = &mut self.phase
            && !attempt.is_trying
            && now >= attempt.retry_at
        {
            attempt.is_trying = true;
            self.outputs.push_back(ClientOutput::Restart { former: self.terms.session });
        }
    }

    /// When there is something to do while the session is coming back.
    pub(super) fn return_deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::ComingBack(Return { is_trying: false, retry_at, .. }) => Some(retry_at),
            _ => None,
        }
    }

    /// Takes every request off the session that is gone. Those that may run twice are queued again, and wait for their
    /// handles; of the others that were sent nobody knows what became.
    fn detach(&mut self, now: Time) {
        let waiting: BTreeSet<Ticket> = core::mem::take(&mut self.waiting).into_values().collect();
        self.sent.clear();
        self.queued_control.clear();
        self.queued_free.clear();
        self.queued_data.clear();
        (self.in_flight_requests, self.in_flight_bytes) = (0, 0);
        self.stop_rewriting();
        let Terms { session, epoch, verifier, .. } = self.terms;
        let former = |request| Inquire { session, request, epoch };
        let store = verifier.store;
        // The core asks anew for what it needs itself.
        self.requests.retain(|_, request| request.purpose == Purpose::Caller);
        self.send_handles_away(now);
        for ticket in self.requests.keys().copied().collect::<Vec<_>>() {
            let Some(mut request) = self.requests.remove(&ticket) else { continue };
            if let Some(request_id) = request.id {
                request.former = Some(Former { asked: former(request_id), store });
            }
            (request.id, request.on) = (None, None);
            let is_waiting = waiting.contains(&ticket);
            let (ending, then) = match (request.fate(), self.loss_of(&request.operation)) {
                // It was not granted, and nobody waits for it.
                (Fate::Again, None) if is_waiting && !request.is_wanted => {
                    (Some(Err(Reason::Interrupted.into())), None)
                }
                (Fate::Again | Fate::Ask, None) => (None, None),
                (Fate::Again | Fate::Ask, Some(loss)) => {
                    (Some(self.end_without_handle(&request.operation, loss)), None)
                }
                (Fate::End(outcome, then), _) => (Some(outcome), then),
            };
            // What is asked about is queued when it is known not to have been executed.
            if ending.is_none() && request.former.is_none_or(|_| !matches!(request.fate(), Fate::Ask)) {
                request.former = None;
                self.enqueue(ticket, &request);
            }
            self.requests.insert(ticket, request);
            if let Some(outcome) = ending {
                self.complete(now, ticket, outcome);
            }
            if let Some(then) = then {
                self.begin(now, (then, LineSet::ALL), false, Purpose::Caller);
            }
        }
    }

    /// Asks what became of what was sent in a session that is gone and must not run twice.
    fn inquire(&mut self, now: Time) {
        let store = self.terms.verifier.store;
        let open: Vec<(Ticket, Former)> =
            self.requests.iter().filter_map(|(ticket, request)| Some((*ticket, request.former?))).collect();
        for (ticket, former) in open {
            if former.store == store {
                let ask = Operation::Control(former.asked.into());
                self.begin(now, (ask, LineSet::ALL), true, Purpose::Inquire(ticket));
            } else {
                // What that server knew is lost.
                self.complete(now, ticket, Err(Reason::Unknown.into()));
            }
        }
    }

    /// The server tells what became of a request.
    pub(super) fn on_told(&mut self, now: Time, ticket: Ticket, outcome: super::handles::Outcome<P>) {
        let became = match outcome {
            Ok(Answer::Control(ServerControl::Outcome(outcome), _)) => outcome.became,
            // It does not know such questions.
            _ => Became::Unknown,
        };
        let Some(request) = self.requests.get_mut(&ticket).filter(|request| request.former.is_some()) else {
            return;
        };
        let answer = match (became, &request.operation) {
            (Became::Executed, Operation::Control(ClientControl::Change(_))) => {
                request.is_executed = true;
                None
            }
            (Became::Executed, Operation::Control(_)) => Some(Ok(Answer::Control(Done {}.into(), None))),
            (Became::Appended { offset, written }, Operation::Append(_, _, len)) if written <= *len => {
                let stability = Stability::Received;
                Some(Ok(Answer::Appended(AppendDone { offset, written, stability })))
            }
            (Became::NotExecuted, _) => None,
            (Became::Executed | Became::Appended { .. } | Became::Unknown, _) => {
                Some(Err(Reason::Unknown.into()))
            }
        };
        if let Some(answer) = answer {
            self.complete(now, ticket, answer);
            return;
        }
        request.former = None;
        if let Some(request) = self.requests.remove(&ticket) {
            match self.loss_of(&request.operation) {
                None => {
                    self.enqueue(ticket, &request);
                    self.requests.insert(ticket, request);
                }
                Some(loss) => {
                    let ending = self.end_without_handle(&request.operation, loss);
                    self.requests.insert(ticket, request);
                    self.complete(now, ticket, ending);
                }
            }
        }
    }

    fn back_off(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.limits.rebind_min.saturating_mul(doubled).min(self.limits.rebind_max)
    }
}

/// The highest life of each data store's server that a client has seen. A server of a lower one has been replaced, and
/// does not know it: what it says does not count.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    /// Those seen last stand last.
    seen: Vec<(StoreId, Epoch)>,
}

impl Epochs {
    /// Stores that are remembered: one for each server that a client uses, and many for one that changes its store.
    pub const STORES_MAX: usize = 256;

    /// Takes note of a server's life on a store.
    ///
    /// # Errors
    /// The highest epoch seen of this store, if this one is lower.
    pub fn admit(&mut self, store: StoreId, epoch: Epoch) -> Result<(), Epoch> {
        let known = self.seen.iter().position(|(known, _)| *known == store);
        if let Some((_, highest)) =
            known.and_then(|at| self.seen.get(at)).filter(|(_, highest)| epoch < *highest)
        {
            return Err(*highest);
        }
        if let Some(at) = known.or_else(|| (self.seen.len() >= Self::STORES_MAX).then_some(0)) {
            self.seen.remove(at);
        }
        self.seen.push((store, epoch));
        Ok(())
    }
}

/// A session that has lived so long was not one that the server dropped at once.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_of_the_same_store_is_not_admitted() {
        let mut epochs = Epochs::default();
        let store = |byte| StoreId([byte; 16]);
        assert_eq!(epochs.admit(store(1), Epoch(5)), Ok(()));
        assert_eq!(epochs.admit(store(1), Epoch(5)), Ok(()), "the same server");
        assert_eq!(epochs.admit(store(2), Epoch(1)), Ok(()), "another store");
        assert_eq!(epochs.admit(store(1), Epoch(4)), Err(Epoch(5)));
        assert_eq!(epochs.admit(store(1), Epoch(6)), Ok(()));
        assert_eq!(epochs.admit(store(1), Epoch(5)), Err(Epoch(6)));
    }

    #[test]
    fn the_store_that_was_seen_longest_ago_is_forgotten_first() {
        let mut epochs = Epochs::default();
        let store = |at: usize| {
            StoreId([
                u8::try_from(at % 256).unwrap(),
                u8::try_from(at / 256).unwrap(),
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ])
        };
        for at in 0..Epochs::STORES_MAX {
            epochs.admit(store(at), Epoch(2)).unwrap();
        }
        epochs.admit(store(0), Epoch(2)).unwrap();
        epochs.admit(store(1000), Epoch(2)).unwrap();
        assert_eq!(epochs.admit(store(0), Epoch(1)), Err(Epoch(2)));
        assert_eq!(epochs.admit(store(1), Epoch(1)), Ok(()), "it was the oldest");
        assert_eq!(epochs.seen.len(), Epochs::STORES_MAX);
    }
}
