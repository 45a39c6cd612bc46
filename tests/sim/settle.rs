//! What an answer may be, and what follows from it for the shadow. What is not said here is a fault.

use std::collections::BTreeMap;

use bowline::model::{HandleId, LockMode, Meanwhile, OpenId, Reason, ResumeKey, Rights, Stability, Time};
use bowline::opens::OpenTable;
use bowline::session::client::{Answer, HandleLoss, RequestError, SessionEvent};
use bowline::wire::ServerControl;
use bowline::wire::control::Opened;

use super::pair::{Outcome, Who};
use super::script::Sim;
use super::seen::Seen;
use super::shadow::{
    Asked, BLOCKS, FILES, GrantShadow, Life, Part, Pending, identity, offset_of, range_of, version_of,
};
use super::watch::RECOVERY;

impl Sim {
    /// Takes in what was answered and told.
    pub(crate) fn settle(&mut self) {
        self.settle_events();
        let waiting = std::mem::take(&mut self.shadow.pending);
        waiting.iter().for_each(|pending| self.note_lost(pending));
        for mut pending in waiting {
            if let Asked::Lock { part, has_waited, .. } = &mut pending.what {
                *has_waited |= self.pair.server.table().waits_of(self.shadow.parts[*part].open) > 0;
            }
            match self.pair.take_outcome(pending.who, pending.ticket) {
                None if self.pair.is_dead(pending.who) => self.forget(pending.what),
                None => self.shadow.pending.push(pending),
                Some(outcome) => self.answered(&pending, outcome),
            }
        }
        for part in self.shadow.parts.iter_mut().filter(|part| part.life == Life::Usable) {
            if let Some(key) = self.pair.core(part.who).resume_key(part.handle) {
                part.key = key;
            }
        }
    }

    /// What a sync or a close tells to be lost, it tells for the whole open, once.
    fn note_lost(&mut self, pending: &Pending) {
        let (Asked::Sync { part, .. } | Asked::Close { part, .. }) = pending.what else { return };
        let outcome = self.pair.outcome(pending.who, pending.ticket);
        let Some(Err(RequestError::LostWrites(ranges))) = outcome else { return };
        self.tally.note(Seen::LostBytesTold);
        let (file, open) = (self.shadow.parts[part].file, self.shadow.parts[part].open);
        for block in (0..BLOCKS).filter(|block| ranges.iter().any(|range| range.overlaps(range_of(*block)))) {
            let is_kept = self.may_be_lost(pending.who, open, block);
            self.pair.check(is_kept, "bytes were told to be lost that were told to be durable");
            let newest = self.shadow.block(file, block).issued;
            self.shadow.told_lost.insert((pending.who, open, block), newest);
        }
    }

    /// Whether anything of a block was acknowledged to a client and not told to be durable, or may have been.
    fn may_be_lost(&self, who: Who, open: OpenId, block: usize) -> bool {
        let is_its = |part: &Part| part.who == who && part.open == open;
        let is_kept = |part: &Part| is_its(part) && part.unsynced.contains_key(&block);
        let is_written = |pending: &Pending| match pending.what {
            Asked::Write { part, block: at, .. } => at == block && is_its(&self.shadow.parts[part]),
            _ => false,
        };
        let file = self.shadow.parts.iter().find(|part| is_its(part)).map(|part| part.file);
        let is_foul = file.is_some_and(|file| self.shadow.files[file].blocks[block].is_foul);
        let is_gone = self.shadow.gone.contains_key(&(who, open, block));
        is_foul
            || is_gone
            || self.shadow.parts.iter().any(is_kept)
            || self.shadow.pending.iter().any(is_written)
    }

    /// Nobody will ever hear what came of it.
    fn forget(&mut self, what: Asked) {
        match what {
            Asked::Write { part, block, .. } => {
                let file = self.shadow.parts[part].file;
                let block = self.shadow.block(file, block);
                (block.is_being_written, block.is_foul) = (false, true);
            }
            Asked::Lock { has_waited: true, .. } => self.tally.note(Seen::WaiterDied),
            Asked::Inherit { part, handle, .. } => self.shadow.parts[part].life = Life::Inheritable(handle),
            _ => {}
        }
    }

    fn answered(&mut self, pending: &Pending, outcome: Outcome) {
        match pending.what.clone() {
            Asked::Open { name, file, mode, guard } => {
                let rights = mode.rights.union(Rights::LOCK).union(Rights::GRANT);
                match outcome {
                    Ok(answer) => self.opened(pending, answer, (name, file, rights), guard),
                    Err(error) => self.open_refused(file, (mode, &error), pending.asked_at),
                }
            }
            Asked::Inherit { part, name, handle } => self.inherited(pending, outcome, part, (name, handle)),
            Asked::Take { name, file, rights, giver, is_grant, moves, .. } => {
                self.taken(pending, outcome, (name, file, rights), (giver, is_grant, moves));
            }
            Asked::Steal => {
                let refusal = outcome.err().and_then(|error| reason(&error));
                let is_one_answer = matches!(refusal, Some(Reason::ResumeRefused | Reason::Busy));
                self.pair.check(is_one_answer, "somebody else's key had another answer than the one refusal");
                if refusal == Some(Reason::ResumeRefused) {
                    self.tally.note(Seen::StrangerRefused);
                }
            }
            Asked::Contend { file, open, is_early } => {
                self.contended(pending, outcome, (file, open), is_early)
            }
            Asked::Read { part, block, floor } => self.read(outcome, part, (block, floor)),
            Asked::Write { part, block, version } => self.written(outcome, part, (block, version)),
            Asked::Append { part } => match outcome {
                Err(error) if reason(&error) == Some(Reason::NoSpace) => {
                    let is_lawful = self.has_met_a_full_store(pending.asked_at);
                    self.pair.check(is_lawful, "the store has room, and an append was refused");
                }
                Err(error) if reason(&error) == Some(Reason::Unknown) => self.tally.note(Seen::AppendUnknown),
                outcome => self.may_fail(part, outcome, &[Reason::Locked]),
            },
            Asked::Sync { part, covers } | Asked::Close { part, covers } => {
                self.synced(outcome, part, covers)
            }
            Asked::Lock { part, block, mode, has_waited } => {
                self.locked(outcome, (part, block, mode), has_waited);
            }
            Asked::Unlock { part } => self.may_fail(part, outcome, &[]),
            Asked::Grant { part, to, rights, moves } => self.granted(outcome, part, (to, rights), moves),
        }
    }

    /// A request may fail for these reasons, or because its open has ended lawfully.
    fn may_fail(&mut self, part: usize, outcome: Outcome, allowed: &[Reason]) {
        let Err(error) = outcome else { return };
        if reason(&error).is_some_and(|reason| allowed.contains(&reason)) {
            return;
        }
        if self.shadow.parts[part].life != Life::Usable {
            // Its user has closed it with this under way.
            return;
        }
        self.check_end(part, &format!("a request failed, and its open was nobody else's: {error:?}"));
        if is_end(&error) {
            self.drop_handle(part);
        }
    }

    /// Whoever hears that a handle is of no use any more gives it up.
    fn drop_handle(&mut self, part: usize) {
        let part = &mut self.shadow.parts[part];
        part.life = Life::Over;
        self.pair.close(part.who, part.handle);
    }

    /// A handle is gone: that may be so only where its open was broken after its grace, or given up.
    fn check_end(&self, part: usize, what: &str) {
        let of = &self.shadow.parts[part];
        self.pair.check(self.is_lawful_end(of.open) || of.is_loose, what);
    }

    fn is_lawful_end(&self, open: OpenId) -> bool {
        self.watch.broken.contains(&open) || self.shadow.given_up.contains(&open)
    }

    fn opened(
        &mut self,
        pending: &Pending,
        answer: Answer<super::pair::Payload>,
        (name, file, rights): (u8, usize, Rights),
        guard: bool,
    ) {
        let Some((opened, key)) = self.key_of(pending.who, &answer) else { return };
        let open = key.file_id;
        if guard {
            self.watch.guard(open);
        }
        self.note_same_open(pending, open);
        self.add_part(pending.who, name, (opened.handle, key), (file, rights, opened.state.rights), false);
    }

    /// The open was there before the server's last start, and its answer came after it.
    fn note_same_open(&mut self, pending: &Pending, open: OpenId) {
        let (first, start) = (self.watch.first_seen.get(&open).copied(), self.watch.restarted_at);
        if start.is_some_and(|start| pending.asked_at < start && first.is_some_and(|first| first < start)) {
            self.tally.note(Seen::OpenedByCreateId);
        }
    }

    fn add_part(
        &mut self,
        who: Who,
        name: u8,
        (handle, key): (HandleId, ResumeKey),
        (file, given, told): (usize, Rights, Rights),
        is_loose: bool,
    ) {
        let is_within = given.with_implied().contains(told);
        self.pair.check(is_within, "a handle has more rights than it was given");
        let unsynced = BTreeMap::new();
        let open = key.file_id;
        self.shadow.parts.push(Part {
            who,
            name,
            handle,
            open,
            file,
            rights: told,
            life: Life::Usable,
            key,
            unsynced,
            is_loose,
        });
    }

    /// What an open or a resume answered, with its key; a repeated answer has none, and the client asks for one. Until it
    /// has it, it does not count as told.
    fn key_of(&mut self, who: Who, answer: &Answer<super::pair::Payload>) -> Option<(Opened, ResumeKey)> {
        let Answer::Control(ServerControl::Opened(opened), _) = answer else {
            self.pair.fail("an open had another answer")
        };
        let key = opened.key.clone().or_else(|| self.pair.core(who).resume_key(opened.handle));
        let Some(key) = key else {
            // Its user gives it up at once.
            self.pair.close(who, opened.handle);
            return None;
        };
        Some((opened.clone(), key))
    }

    fn open_refused(
        &mut self,
        file: usize,
        (mode, error): (bowline::model::OpenMode, &RequestError),
        asked_at: Time,
    ) {
        if reason(error) == Some(Reason::NoSpace) {
            self.pair
                .check(self.has_met_a_full_store(asked_at), "the store has room, and an open was refused");
            self.tally.note(Seen::OpenNotStored);
            return;
        }
        let is_busy = reason(error) == Some(Reason::Busy);
        self.pair.check(is_busy, &format!("an open was refused: {error:?}"));
        self.note_busy(file, error);
        let guarded = self.watch.is_guarded(self.pair.disk.inode_of(FILES[file]));
        if guarded && mode == super::asks::READ_ONLY {
            self.tally.note(Seen::Guarded);
        }
    }

    fn note_busy(&mut self, file: usize, error: &RequestError) {
        let inode = self.pair.disk.inode_of(FILES[file]);
        let is_drain = matches!(error, RequestError::Refused(refusal)
            if refusal.retry_after() == Some(OpenTable::DRAIN_RETRY));
        if is_drain && self.watch.is_draining(inode) {
            self.tally.note(Seen::BusyForADrain);
        }
    }

    fn contended(
        &mut self,
        pending: &Pending,
        outcome: Outcome,
        (file, open): (usize, OpenId),
        is_early: bool,
    ) {
        match outcome {
            Ok(answer) => {
                let is_gone = self.is_lawful_end(open);
                self.pair.check(!is_early || is_gone, "a contender got past an orphan within its grace");
                if !is_early {
                    self.tally.note(Seen::OneTickAfter);
                }
                if let Answer::Control(ServerControl::Opened(opened), _) = answer {
                    self.pair.close(pending.who, opened.handle);
                }
            }
            Err(error) => {
                self.pair.check(reason(&error) == Some(Reason::Busy), "a contender was not told to wait");
                self.note_busy(file, &error);
                if is_early {
                    self.tally.note(Seen::OneTickBefore);
                }
            }
        }
    }

    fn inherited(
        &mut self,
        pending: &Pending,
        outcome: Outcome,
        part: usize,
        (name, handle): (u8, HandleId),
    ) {
        let of = self.shadow.parts[part].clone();
        match outcome {
            Ok(answer) => {
                self.shadow.parts[part].life = Life::Over;
                let Some((opened, key)) = self.key_of(pending.who, &answer) else {
                    self.shadow.give_up(of.open);
                    return;
                };
                self.pair.check(key.file_id == of.open, "a key has led to another open");
                self.tally.note(Seen::Inherited);
                self.heard_meanwhile((of.open, of.name), opened.meanwhile);
                let given = (of.file, of.rights, opened.state.rights);
                self.add_part(pending.who, name, (opened.handle, key), given, of.is_loose);
            }
            Err(error) if reason(&error) == Some(Reason::Busy) => {
                self.shadow.parts[part].life = Life::Inheritable(handle);
            }
            Err(error) => {
                self.check_end(part, &format!("a key was refused within its time: {error:?}"));
                self.shadow.parts[part].life = Life::Over;
                if matches!(reason(&error), Some(Reason::TakenOver | Reason::Expired)) {
                    self.tally.note(Seen::TombstoneAnswered);
                }
            }
        }
    }

    fn taken(
        &mut self,
        pending: &Pending,
        outcome: Outcome,
        (name, file, rights): (u8, usize, Rights),
        (giver, is_grant, moves): (usize, bool, bool),
    ) {
        // A grant ends with its giver, and a key may have been replaced since it was read: then it is refused.
        let Ok(answer) = outcome else { return };
        let Some((opened, key)) = self.key_of(pending.who, &answer) else { return };
        let giver = &self.shadow.parts[giver];
        // Whoever took the place of one from before a crash may lose it to that one after the next.
        let (who, open, is_loose) = (giver.who, giver.open, is_grant || giver.is_loose);
        self.pair.check(key.file_id == open, "a key has led to another open");
        let reach = self.pair.live(who, bowline::model::ChannelKind::Control);
        if is_grant && (reach.is_empty() || self.pair.is_dead(who)) {
            self.tally.note(Seen::GrantOfTheAbsent);
        }
        if moves {
            self.tally.note(Seen::Moved);
        }
        self.add_part(pending.who, name, (opened.handle, key), (file, rights, opened.state.rights), is_loose);
    }

    fn granted(&mut self, outcome: Outcome, part: usize, (to, rights): (u8, Rights), moves: bool) {
        match outcome {
            Ok(Answer::Control(ServerControl::Granted(granted), _)) => {
                let file = self.shadow.parts[part].file;
                let grant = |key| GrantShadow { key, to, giver: part, rights, file, moves };
                self.shadow.grants.extend(granted.key.map(grant));
            }
            // Nobody knows the outcome of one whose session was lost; of one handle there are so many at once.
            outcome => self.may_fail(part, outcome, &[Reason::Unknown, Reason::Quota]),
        }
    }

    fn read(&mut self, outcome: Outcome, part: usize, (block, floor): (usize, u64)) {
        let (file, open) = (self.shadow.parts[part].file, self.shadow.parts[part].open);
        match outcome {
            Ok(Answer::Read(Some(bytes))) => {
                let at = self.shadow.block(file, block).clone();
                let version = version_of(file, block, &bytes);
                let is_right = version.is_some_and(|version| (floor..=at.issued).contains(&version));
                let text = format!("{open:?}: block {block} of {file} is {version:?}, and {floor} was told");
                self.pair.check(is_right, &text);
            }
            outcome => self.may_fail(part, outcome, &[Reason::Locked]),
        }
    }

    fn written(&mut self, outcome: Outcome, part: usize, (block, version): (usize, u64)) {
        let file = self.shadow.parts[part].file;
        let is_locked = outcome.as_ref().err().and_then(reason) == Some(Reason::Locked);
        let at = self.shadow.block(file, block);
        at.is_being_written = false;
        if let Ok(answer) = &outcome {
            (at.acknowledged, at.floor) = (version, version);
            self.acknowledged(answer, part, (block, version));
        } else {
            at.is_foul = !is_locked;
            self.may_fail(part, outcome, &[Reason::Locked]);
        }
    }

    /// A write was acknowledged: as durable, which it is then, or as received.
    fn acknowledged(
        &mut self,
        answer: &Answer<super::pair::Payload>,
        part: usize,
        (block, version): (usize, u64),
    ) {
        let is_durable = matches!(answer, Answer::Written(done) if done.stability == Stability::Durable);
        if !is_durable {
            self.shadow.parts[part].unsynced.insert(block, version);
            return;
        }
        self.tally.note(Seen::DurableAtOnce);
        let of = &self.shadow.parts[part];
        let (file, who, open) = (of.file, of.who, of.open);
        let found = self.durable_version(file, block);
        self.pair.check(found >= version, "a write was told to be durable, and is not");
        self.shadow.block(file, block).durable = version;
        let its = self.shadow.parts.iter_mut().filter(|part| part.who == who && part.open == open);
        its.for_each(|part| {
            part.unsynced.remove(&block);
        });
    }

    /// Which version of a block the next machine would find.
    pub(crate) fn durable_version(&self, file: usize, block: usize) -> u64 {
        let start = usize::try_from(offset_of(block)).unwrap();
        let durable = self.pair.disk.durable_bytes(FILES[file]);
        let found = durable.get(start..start + super::shadow::BLOCK);
        found.and_then(|bytes| version_of(file, block, bytes)).unwrap_or(0)
    }

    /// What a sync or a close says of the bytes that were acknowledged before it.
    fn synced(&mut self, outcome: Outcome, part: usize, covers: BTreeMap<usize, u64>) {
        if !matches!(outcome, Ok(_) | Err(RequestError::LostWrites(_))) {
            return self.may_fail(part, outcome, &[Reason::BadHandle]);
        }
        let (file, of) = (self.shadow.parts[part].file, self.shadow.parts[part].clone());
        let is_close = of.life == Life::Over;
        if of.is_loose || self.is_lawful_end(of.open) && !is_close {
            return;
        }
        for (block, version) in covers {
            let found = self.durable_version(file, block);
            let told = self.shadow.told_lost.get(&(of.who, of.open, block));
            let is_told = told.is_some_and(|told| *told >= version);
            let is_foul = self.shadow.block(file, block).is_foul;
            // A close makes nothing durable, and only tells what is lost.
            let is_kept = is_close || found >= version || is_told || is_foul;
            let text = format!("synced, and block {block} of {file} is {found} instead of {version}");
            self.pair.check(is_kept, &text);
            let unsynced = &mut self.shadow.parts[part].unsynced;
            // What was written with a handle that is closed may be told of with another one of its open.
            if !is_close && unsynced.get(&block).is_some_and(|has| *has <= version) {
                unsynced.remove(&block);
            }
        }
    }

    fn locked(&mut self, outcome: Outcome, (part, block, mode): (usize, usize, LockMode), has_waited: bool) {
        let of = &self.shadow.parts[part];
        let (open, life) = (of.open, of.life);
        match outcome {
            Ok(_) => {
                if has_waited {
                    self.tally.note(Seen::WaiterServed);
                }
                if life == Life::Usable && !self.shadow.given_up.contains(&open) {
                    self.shadow.locks.insert((open, block), mode);
                }
            }
            Err(error) => {
                if has_waited && reason(&error) == Some(Reason::Interrupted) {
                    self.tally.note(Seen::WaiterDied);
                }
                let allowed = [Reason::Locked, Reason::Interrupted, Reason::Unknown, Reason::Busy];
                self.may_fail(part, Err(error), &allowed);
            }
        }
    }

    /// What clients are told without asking.
    fn settle_events(&mut self) {
        for who in self.pair.everybody() {
            let seen = self.events.entry(who).or_default();
            let events = self.pair.events(who)[*seen..].to_vec();
            *seen += events.len();
            for (at, event) in events {
                match event {
                    SessionEvent::Resumed { handle, meanwhile, .. } => {
                        let restart = self.watch.restarted_at;
                        if restart.is_some_and(|restart| at >= restart && at < restart.after(RECOVERY)) {
                            self.tally.note(Seen::ResumeInRecovery);
                        }
                        if let Some(part) = self.part_of(who, handle) {
                            let part = &self.shadow.parts[part];
                            self.heard_meanwhile((part.open, part.name), Some(meanwhile));
                        }
                    }
                    SessionEvent::ResumeFailed { handle, loss } => {
                        if matches!(loss, HandleLoss::Refused(refusal) if refusal.reason == Reason::TakenOver)
                        {
                            self.tally.note(Seen::TombstoneAnswered);
                        }
                        self.ended(who, handle, &format!("{loss:?}"));
                    }
                    SessionEvent::HandleEnded { handle, refusal } => {
                        self.ended(who, handle, &format!("{refusal:?}"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn part_of(&self, who: Who, handle: HandleId) -> Option<usize> {
        let core = self.pair.core(who);
        let is_it = |part: &Part| part.handle == handle || core.current(part.handle) == handle;
        self.shadow.parts.iter().position(|part| part.who == who && is_it(part))
    }

    fn ended(&mut self, who: Who, handle: HandleId, why: &str) {
        let Some(part) = self.part_of(who, handle) else { return };
        if self.shadow.parts[part].life != Life::Usable {
            return;
        }
        self.check_end(part, &format!("a handle has ended, and nobody has ended it: {why}"));
        self.drop_handle(part);
    }

    fn heard_meanwhile(&mut self, (open, name): (OpenId, u8), meanwhile: Option<Meanwhile>) {
        // Whoever was granted a part has come later, and need not hear what its owner has to hear.
        let is_owner = self.watch.is_owner(open, &identity(name));
        let was_changed = is_owner && self.watch.changed.remove(&open);
        match meanwhile {
            Some(Meanwhile::Unchanged) => {
                self.pair.check(!was_changed, "a change by another client was not told");
                self.tally.note(Seen::Unchanged);
            }
            Some(Meanwhile::ChangedByClient) => {
                let is_granted = self.shadow.parts.iter().any(|part| part.open == open && part.is_loose);
                if !is_granted {
                    self.watch.causes.check(&self.pair, open);
                }
                self.tally.note(Seen::ChangedByClient);
            }
            _ => {}
        }
    }
}

pub(crate) fn reason(error: &RequestError) -> Option<Reason> {
    match error {
        RequestError::Refused(refusal) => Some(refusal.reason),
        _ => None,
    }
}

/// Whether a handle that hears this is gone.
fn is_end(error: &RequestError) -> bool {
    !matches!(reason(error), Some(Reason::Locked | Reason::Busy | Reason::Unknown | Reason::Interrupted))
}
