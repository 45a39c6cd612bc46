//! The window of a session's request ids: what makes a mutating request run once. protocol.md: Requests.
//!
//! Ids belong to the session, so a copy of a request that arrives on another channel, or late on the first one,
//! is known by its id: it is answered again or left to its original, and never executed a second time. Below
//! `settled` the client has all answers, and every copy that still arrives is refused by its id alone.

use std::collections::BTreeMap;

use crate::model::RequestId;
use crate::model::planted::{self, Bug};

/// The requests of one session that are executing, and the kept answers `A` of those that are done.
///
/// `C` names a channel. The answer goes to every channel on which the request has arrived: the copy that arrives last
/// may be the late first one, on a channel that the client has given up.
#[derive(Debug)]
pub struct Window<C, A> {
    settled: RequestId,
    slots: BTreeMap<RequestId, Slot<C, A>>,
    width: u64,
    executing: u32,
    credited: u32,
    bytes: u64,
}

#[derive(Debug)]
enum Slot<C, A> {
    /// `credit`: the bytes that it holds, if it counts at all.
    Executing {
        channels: Vec<C>,
        credit: Option<u64>,
    },
    Done(A),
}

/// What is to be done with a request that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim<A> {
    /// It is the first copy: execute it.
    Run,
    /// Its original is executing; the answer will go where this copy came from too.
    InProgress,
    /// It is done, and this was the answer.
    Done(A),
    /// The client has its answer: drop the copy.
    Settled,
    /// No well-behaved client uses this id now.
    Beyond,
}

impl<C: Copy + PartialEq, A: Clone> Window<C, A> {
    /// An empty window over `width` ids.
    #[must_use]
    pub fn new(width: u64) -> Self {
        Self { settled: RequestId::FIRST, slots: BTreeMap::new(), width, executing: 0, credited: 0, bytes: 0 }
    }

    /// The client has all answers below `settled`. Older statements, which overtaken records bear, change nothing.
    /// A statement beyond the window is kept at its end.
    pub fn settle(&mut self, settled: RequestId) {
        let end = RequestId(self.settled.0.saturating_add(self.width));
        let settled = settled.min(end);
        if settled <= self.settled {
            return;
        }
        self.settled = settled;
        while let Some(first) = self.slots.first_entry() {
            if *first.key() >= settled || matches!(first.get(), Slot::Executing { .. }) {
                break;
            }
            first.remove();
        }
    }

    /// A whole and verified request has arrived on `channel`; it holds so many bytes of `credit` while it executes, or
    /// none needs to be had for it.
    pub fn claim(&mut self, id: RequestId, channel: C, credit: Option<u64>) -> Claim<A> {
        match self.slots.get_mut(&id) {
            Some(Slot::Executing { channels, .. }) => {
                if !channels.contains(&channel) {
                    channels.push(channel);
                }
                return Claim::InProgress;
            }
            Some(Slot::Done(_)) if planted::is(Bug::RepeatRunsAgain) => {}
            Some(Slot::Done(answer)) => return Claim::Done(answer.clone()),
            None => {}
        }
        if id < self.settled {
            return Claim::Settled;
        }
        if id.0 >= self.settled.0.saturating_add(self.width) {
            return Claim::Beyond;
        }
        self.slots.insert(id, Slot::Executing { channels: vec![channel], credit });
        self.executing = self.executing.saturating_add(1);
        self.credited = self.credited.saturating_add(u32::from(credit.is_some()));
        self.bytes = self.bytes.saturating_add(credit.unwrap_or(0));
        Claim::Run
    }

    /// A channel is gone: no answer goes there. This keeps the channels of a request within those of its session.
    pub fn forget_channel(&mut self, gone: C) {
        for slot in self.slots.values_mut() {
            if let Slot::Executing { channels, .. } = slot {
                channels.retain(|channel| *channel != gone);
            }
        }
    }

    /// The request has been executed. Tells the channels that asked and are not gone; `answer` is kept for copies,
    /// and `None` keeps nothing: a copy of such a request runs again, which is right for reads alone.
    pub fn finish(&mut self, id: RequestId, answer: Option<A>) -> Vec<C> {
        let (channels, credit) = match self.slots.get_mut(&id) {
            Some(Slot::Executing { channels, credit }) => (core::mem::take(channels), *credit),
            Some(Slot::Done(_)) | None => return Vec::new(),
        };
        self.executing = self.executing.saturating_sub(1);
        self.credited = self.credited.saturating_sub(u32::from(credit.is_some()));
        self.bytes = self.bytes.saturating_sub(credit.unwrap_or(0));
        match answer {
            // The client cannot have settled what was not answered; a peer that says so gets nothing kept.
            Some(answer) if id >= self.settled => drop(self.slots.insert(id, Slot::Done(answer))),
            _ => drop(self.slots.remove(&id)),
        }
        channels
    }

    /// Another answer takes the place of one that is kept and was never told.
    pub fn replace(&mut self, id: RequestId, answer: A) {
        if let Some(Slot::Done(kept)) = self.slots.get_mut(&id) {
            *kept = answer;
        }
    }

    /// The answers that are kept, each with its request.
    pub fn answers(&self) -> impl Iterator<Item = (RequestId, &A)> {
        self.slots.iter().filter_map(|(id, slot)| match slot {
            Slot::Done(answer) => Some((*id, answer)),
            Slot::Executing { .. } => None,
        })
    }

    /// How many requests are executing.
    #[must_use]
    pub fn executing(&self) -> u32 {
        self.executing
    }

    /// How many of them count against the session's credit.
    #[must_use]
    pub fn credited(&self) -> u32 {
        self.credited
    }

    /// How many bytes they hold.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window<char, u8> {
        Window::new(16)
    }

    #[test]
    fn the_late_first_copy_is_refused_by_its_id() {
        let mut window = window();
        // W1 is stuck on channel a, its repeat runs on b, and the client gets the answer.
        assert_eq!(window.claim(RequestId(1), 'b', Some(4)), Claim::Run);
        assert_eq!(window.finish(RequestId(1), Some(7)), ['b']);
        assert_eq!(window.claim(RequestId(1), 'a', Some(4)), Claim::Done(7), "before the client settled it");
        // W2 is sent by a client that has the answer to W1; then W1 comes at last.
        window.settle(RequestId(2));
        assert_eq!(window.claim(RequestId(2), 'b', Some(4)), Claim::Run);
        assert_eq!(window.claim(RequestId(1), 'a', Some(4)), Claim::Settled);
    }

    #[test]
    fn every_channel_that_asked_and_is_not_gone_gets_the_answer() {
        let mut window = window();
        assert_eq!(window.claim(RequestId(3), 'a', Some(10)), Claim::Run);
        for channel in ['b', 'c', 'b', 'a'] {
            assert_eq!(window.claim(RequestId(3), channel, Some(10)), Claim::InProgress);
        }
        window.forget_channel('b');
        assert_eq!((window.executing(), window.bytes()), (1, 10), "the copies count nothing");
        assert_eq!(window.finish(RequestId(3), Some(1)), ['a', 'c']);
        assert_eq!((window.executing(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_read_leaves_nothing_behind() {
        let mut window = window();
        assert_eq!(window.claim(RequestId(1), 'a', Some(1)), Claim::Run);
        assert_eq!(window.finish(RequestId(1), None), ['a']);
        assert_eq!(window.claim(RequestId(1), 'a', Some(1)), Claim::Run);
    }

    #[test]
    fn ids_beyond_the_window_are_an_offence_and_cost_nothing() {
        let mut window = window();
        assert_eq!(window.claim(RequestId(17), 'a', Some(1)), Claim::Beyond);
        assert_eq!(window.claim(RequestId(u64::MAX), 'a', Some(1)), Claim::Beyond);
        assert_eq!(window.claim(RequestId(16), 'a', Some(1)), Claim::Run);
        assert_eq!(window.claim(RequestId(0), 'a', Some(1)), Claim::Settled, "0 is no request");
    }

    #[test]
    fn settling_frees_answers_and_spares_what_executes() {
        let mut window = window();
        for id in 1..=3 {
            assert_eq!(window.claim(RequestId(id), 'a', Some(1)), Claim::Run);
        }
        window.finish(RequestId(1), Some(1));
        window.finish(RequestId(3), Some(3));
        window.settle(RequestId(4));
        assert_eq!(window.slots.len(), 2, "1 is gone, 2 executes, 3 waits behind it");
        assert_eq!(window.finish(RequestId(2), Some(2)), ['a']);
        window.settle(RequestId(5));
        assert_eq!(window.slots.len(), 0);
        window.settle(RequestId(u64::MAX));
        assert_eq!(window.settled, RequestId(21), "a statement cannot leap over the window");
    }
}
