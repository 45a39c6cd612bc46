//! A commit that the store has refused, because it has no room for a new record: nothing of it is there, and all before it
//! is.
//!
//! Whoever was to get a handle of an open that cannot be stored hears *no space* instead, and so do repeats of the request,
//! wherever their answers wait. A change that cannot be recorded is not made. Whatever else the commit had is stored once
//! more, and what waited for it waits for that: nothing is told sooner for a refusal. What waits for later commits goes
//! behind it, because everything is said in its order.

use std::collections::BTreeMap;

use super::ServerCore;
use super::output::{CommitId, Completion, EffectId, ServerMessage, ServerOutput};
use crate::model::{HandleId, OpenId, Reason, SessionId, Time};
use crate::wire::ServerControl;
use crate::wire::control::Refused;

/// Reports of work that is not begun.
type Unrecorded<P> = Vec<(EffectId, Completion<P>)>;

impl<P: Clone> ServerCore<P> {
    /// The store has refused a commit, without a trace of it, because it has no room for a new record; it has all before
    /// it. Whoever was to get a handle hears that instead, a change that cannot be recorded is not made, and the other
    /// changes of the commit are to be stored once more.
    pub fn handle_commit_refused(&mut self, now: Time, commit: CommitId) {
        self.end_expired(now);
        let mut ended = self.commits.on_done(commit);
        let records = ended.pop().unwrap_or_default();
        ended.iter().for_each(|stored| self.note_stored(stored));
        // What this step may have said itself comes behind what it was waited with for.
        self.seal_step();
        let taken_back = self.take_back_unstored(&records.opens);
        // One that is still being prepared is stored when it is given out, or refused then.
        let again: Vec<OpenId> =
            records.opens.iter().copied().filter(|open| !self.table.is_unstored(*open)).collect();
        // All that waits then waits for the next commit, and goes through here in case that is refused.
        let is_stored_again =
            !again.is_empty() || !records.tombstones.is_empty() || !records.intents.is_empty();
        again.into_iter().for_each(|open| self.table.store_again(open));
        records.tombstones.iter().for_each(|open| self.table.store_end_again(*open));
        let outputs = if is_stored_again {
            self.table.mark_again(self.commits.marked());
            self.commits.release(CommitId(u64::MAX))
        } else {
            self.commits.release(commit)
        };
        let mut unrecorded = Vec::new();
        for output in outputs {
            let output = self.after_refusal(output, &taken_back, (&records.intents, &mut unrecorded));
            let queue = if is_stored_again { &mut self.outputs } else { &mut self.ready };
            queue.extend(output);
        }
        self.intents.store_again(now, &records);
        for (id, completion) in unrecorded {
            self.handle_completion(now, id, completion);
        }
        self.settle_table();
    }

    /// Takes back the handles that are to be given out, of those among these opens that are not stored. Their answers wait,
    /// or are only kept: where the channel was gone before the file was open, the request comes again on another one.
    fn take_back_unstored(&mut self, opens: &[OpenId]) -> BTreeMap<HandleId, SessionId> {
        let is_lost = |open: &OpenId| opens.contains(open) && self.table.is_unstored(*open);
        let waiting = self.commits.handles().into_iter().filter_map(|handle| {
            let (open, session) = self.table.part_of(handle)?;
            is_lost(&open).then_some((handle, session))
        });
        let mut taken_back: BTreeMap<HandleId, SessionId> = waiting.collect();
        for open in opens.iter().filter(|open| is_lost(open)) {
            for holder in self.table.holders_of(*open) {
                let Some(session) = self.sessions.get_mut(&holder.session) else { continue };
                let answers = session.window.answers();
                let is_its = |answer: &ServerMessage| matches!(answer, ServerMessage::Control(ServerControl::Opened(opened)) if opened.handle == holder.handle);
                let request = answers.into_iter().find_map(|(id, answer)| is_its(answer).then_some(id));
                if let Some(request) = request {
                    session.window.replace(request, no_space());
                    taken_back.insert(holder.handle, holder.session);
                }
            }
        }
        taken_back.keys().for_each(|handle| self.table.take_back(*handle));
        taken_back
    }

    /// What becomes of something that waited. The answer that gives a handle out is another one now, also for repeats.
    fn after_refusal(
        &mut self,
        output: ServerOutput<P>,
        taken_back: &BTreeMap<HandleId, SessionId>,
        (intents, unrecorded): (&[u64], &mut Unrecorded<P>),
    ) -> Option<ServerOutput<P>> {
        let owner = match &output {
            ServerOutput::Send { message: ServerMessage::Control(ServerControl::Opened(opened)), .. } => {
                taken_back.get(&opened.handle).copied()
            }
            _ => None,
        };
        match (output, owner) {
            (ServerOutput::Send { connection, request, .. }, Some(_)) => {
                Some(ServerOutput::Send { connection, request, message: no_space(), payload: None })
            }
            (ServerOutput::Effect { id, effect }, _) => {
                let Some(report) = self.unrecorded(id, intents, Reason::NoSpace.into()) else {
                    return Some(ServerOutput::Effect { id, effect });
                };
                unrecorded.push((id, report));
                None
            }
            (output, _) => Some(output),
        }
    }
}

/// What whoever was to get a handle hears instead.
fn no_space() -> ServerMessage {
    ServerMessage::Control(Refused { refusal: Reason::NoSpace.into() }.into())
}
