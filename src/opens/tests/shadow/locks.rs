//! The locks of the model: a mode for each of a few cells of a file, and a list of those who wait. Nothing is
//! merged, split or remembered: ranges, obstacles and counts are found by looking at all cells.

use super::*;

/// So many cells of [`CELL_LEN`] bytes; the last one reaches to the end of the file, wherever it is.
pub(super) const CELLS: usize = 8;
const CELL_LEN: u64 = 10;
pub(super) const LOCKS: usize = 3;
pub(super) const CLIENT_LOCKS: usize = 5;
pub(super) const WAITS: usize = 3;

/// What a request is about: from one cell up to another, and how.
pub(super) type Wish = (usize, usize, LockMode);

/// The range of two cells in either order.
pub(super) fn range_of((from, to, _): Wish) -> ByteRange {
    let at = |cell: usize| CELL_LEN * u64::try_from(cell).unwrap();
    if to == CELLS { ByteRange::from_start(at(from)).unwrap() } else { range(at(from), at(to)) }
}

#[derive(Clone, Debug)]
pub(super) struct ModelWait {
    session: SessionId,
    handle: HandleId,
    request: RequestId,
    open: OpenId,
    wish: Wish,
    deadline: Time,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ModelLocks {
    held: Vec<(OpenId, [Option<LockMode>; CELLS])>,
    /// In their order.
    waits: Vec<ModelWait>,
    said: Vec<String>,
    pub(super) granted: usize,
}

fn conflicts(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

fn runs(cells: &[Option<LockMode>; CELLS]) -> Vec<Wish> {
    let mut runs: Vec<Wish> = Vec::new();
    for (at, mode) in cells.iter().enumerate().filter_map(|(at, mode)| mode.map(|mode| (at, mode))) {
        match runs.last_mut() {
            Some((_, end, last)) if *end == at && *last == mode => *end = at + 1,
            _ => runs.push((at, at + 1, mode)),
        }
    }
    runs
}

impl Model {
    fn file(&self, id: OpenId) -> Option<FileIdentity> {
        self.opens.iter().find(|open| open.id == id).map(|open| open.file)
    }

    fn cells(&self, id: OpenId) -> [Option<LockMode>; CELLS] {
        self.locks.held.iter().find(|(open, _)| *open == id).map(|(_, cells)| *cells).unwrap_or_default()
    }

    fn owner(&self, id: OpenId) -> Option<PublicKey> {
        self.opens.iter().find(|open| open.id == id).map(|open| open.owner)
    }

    pub(super) fn keepers(&self, id: OpenId, file: FileIdentity, (from, to, mode): Wish) -> Vec<OpenId> {
        let others = self.locks.held.iter().filter(|(open, _)| *open != id && self.file(*open) == Some(file));
        let excludes = |held: &Option<LockMode>| held.is_some_and(|held| conflicts(held, mode));
        others.filter(|(_, cells)| cells[from..to].iter().any(excludes)).map(|(open, _)| *open).collect()
    }

    /// As the table weighs opens: those to stop, or how long they are there.
    pub(super) fn standing(&self, now: Time, ids: &[OpenId]) -> Result<(), Duration> {
        let opens: Vec<&ModelOpen> = self.opens.iter().filter(|open| ids.contains(&open.id)).collect();
        if opens.iter().any(|open| open.is_live()) {
            return Err(Duration::ZERO);
        }
        let waits = opens.iter().map(|open| match open.deadline() {
            Some(deadline) => deadline.since(now),
            None => OpenTable::DRAIN_RETRY,
        });
        let wait = waits.max().unwrap_or_default();
        if wait > Duration::ZERO { Err(wait) } else { Ok(()) }
    }

    /// Stops opens; whether one of them is still executing.
    pub(super) fn stop_all(&mut self, ids: &[OpenId], told: Reason) -> bool {
        let mut is_executing = false;
        for open in self.opens.iter_mut().filter(|open| ids.contains(&open.id)) {
            self.ended.extend(open.keys.iter().map(|kept| (kept.key.clone(), open.owner, told)));
            open.stop(|_| true);
            is_executing |= open.holders.iter().any(|holder| holder.executing > 0);
        }
        self.settle_locks();
        is_executing
    }

    fn is_covered(&self, id: OpenId, (from, to, _): Wish) -> bool {
        self.cells(id)[from..to].iter().all(Option::is_some)
    }

    pub(super) fn is_behind(&self, before: usize, id: OpenId, file: FileIdentity, wish: Wish) -> bool {
        let (from, to, mode) = wish;
        let is_ahead = |wait: &ModelWait| {
            let (other_from, other_to, other) = wait.wish;
            wait.open != id
                && self.file(wait.open) == Some(file)
                && from < other_to
                && other_from < to
                && conflicts(mode, other)
        };
        !self.is_covered(id, wish) && self.locks.waits[..before].iter().any(is_ahead)
    }

    fn changed(&self, id: OpenId, (from, to, _): Wish, mode: Option<LockMode>) -> [Option<LockMode>; CELLS] {
        let mut cells = self.cells(id);
        cells[from..to].fill(mode);
        cells
    }

    /// Whether a change makes too many ranges.
    pub(super) fn is_too_much(
        &self,
        id: OpenId,
        owner: PublicKey,
        wish: Wish,
        mode: Option<LockMode>,
    ) -> bool {
        let (len, len_after) = (runs(&self.cells(id)).len(), runs(&self.changed(id, wish, mode)).len());
        let all = self.locks.held.iter().filter(|(open, _)| self.owner(*open) == Some(owner));
        let used = all.map(|(_, cells)| runs(cells).len()).sum::<usize>() - len + len_after;
        len_after > len && (len_after > LOCKS || used > CLIENT_LOCKS)
    }

    pub(super) fn set(&mut self, id: OpenId, wish: Wish, mode: Option<LockMode>) {
        let cells = self.changed(id, wish, mode);
        self.locks.held.retain(|(open, _)| *open != id);
        self.locks.held.push((id, cells));
    }

    fn end_wait(&mut self, at: usize, outcome: Result<(), Refusal>) -> ModelWait {
        let wait = self.locks.waits.remove(at);
        self.locks.said.push(format!(
            "{:?}",
            TableEvent::LockEnded {
                session: wait.session,
                handle: wait.handle,
                request: wait.request,
                range: range_of(wait.wish),
                mode: wait.wish.2,
                outcome,
            }
        ));
        wait
    }

    fn can_wait(&self, wait: &ModelWait) -> bool {
        let mut holders = self.opens.iter().flat_map(|open| &open.holders);
        let is_away = self.away.iter().any(|(away, _)| *away == wait.session);
        !is_away && holders.any(|holder| holder.handle == wait.handle && !holder.is_draining)
    }

    /// Drops what is gone, then serves again and again the first who can be served.
    pub(super) fn settle_locks(&mut self) {
        while let Some(at) = self.locks.waits.iter().position(|wait| !self.can_wait(wait)) {
            self.end_wait(at, Err(refused(Reason::Interrupted)));
        }
        let is_left = |open: &ModelOpen| !open.is_closing() || open.holders.iter().any(|h| h.executing > 0);
        let left: Vec<OpenId> = self.opens.iter().filter(|open| is_left(open)).map(|open| open.id).collect();
        self.locks.held.retain(|(open, _)| left.contains(open));
        let is_ready = |model: &Self, at: usize| {
            let wait = &model.locks.waits[at];
            let file = model.file(wait.open).unwrap();
            model.keepers(wait.open, file, wait.wish).is_empty()
                && !model.is_behind(at, wait.open, file, wait.wish)
        };
        self.sweep_lapsed();
        let pressed: Vec<OpenId> = (self.locks.waits.iter())
            .map(|wait| self.keepers(wait.open, self.file(wait.open).unwrap(), wait.wish))
            .filter(|keepers| keepers.iter().all(|id| self.lapsed.iter().any(|(_, lapsed)| lapsed == id)))
            .flatten()
            .collect();
        if !pressed.is_empty() {
            self.stop_all(&pressed, Reason::TakenOver);
            return self.settle_locks();
        }
        while let Some(at) = (0..self.locks.waits.len()).find(|at| is_ready(self, *at)) {
            let (id, wish) = (self.locks.waits[at].open, self.locks.waits[at].wish);
            if self.is_too_much(id, self.owner(id).unwrap(), wish, Some(wish.2)) {
                self.end_wait(at, Err(refused(Reason::Quota)));
            } else {
                self.end_wait(at, Ok(()));
                self.set(id, wish, Some(wish.2));
                self.locks.granted += 1;
            }
        }
    }

    pub(super) fn end_overdue(&mut self, now: Time) {
        self.settle_locks();
        while let Some(at) = self.locks.waits.iter().position(|wait| wait.deadline <= now) {
            self.end_wait(at, Err(refused(Reason::Locked)));
        }
        self.settle_locks();
    }

    fn locker(&self, session: SessionId, handle: HandleId) -> Result<&ModelOpen, Refusal> {
        for open in &self.opens {
            let mut holders = open.holders.iter().filter(|holder| holder.handle == handle);
            if let Some(holder) = holders.find(|holder| holder.session == session && !holder.is_draining) {
                let may_lock = holder.rights.contains(Rights::LOCK);
                return may_lock.then_some(open).ok_or_else(|| refused(Reason::PermissionDenied));
            }
        }
        Err(refused(Reason::BadHandle))
    }

    /// Stops the orphans that are in the way and over, if all are; how long to wait otherwise.
    pub(super) fn make_lock_way(
        &mut self,
        now: Time,
        id: OpenId,
        file: FileIdentity,
        wish: Wish,
    ) -> Duration {
        let keepers = self.keepers(id, file, wish);
        match self.standing(now, &keepers) {
            Err(wait) => wait,
            Ok(()) => {
                let is_executing = self.stop_all(&keepers, Reason::TakenOver);
                if is_executing { OpenTable::DRAIN_RETRY } else { Duration::ZERO }
            }
        }
    }

    pub(super) fn lock(
        &mut self,
        now: Time,
        (session, handle): (SessionId, HandleId),
        request: RequestId,
        wish: Wish,
        wait: Duration,
    ) -> Result<LockAnswer, Refusal> {
        self.end_overdue(now);
        let open = self.locker(session, handle)?;
        let (id, file, owner) = (open.id, open.file, open.owner);
        if self.is_too_much(id, owner, wish, Some(wish.2)) {
            return Err(refused(Reason::Quota));
        }
        let wait_left = self.make_lock_way(now, id, file, wish);
        if self.is_too_much(id, owner, wish, Some(wish.2)) {
            return Err(refused(Reason::Quota));
        }
        let len = self.locks.waits.len();
        if self.keepers(id, file, wish).is_empty() && !self.is_behind(len, id, file, wish) {
            self.set(id, wish, Some(wish.2));
            return Ok(LockAnswer::Granted);
        }
        if wait == Duration::ZERO {
            return Err(held(wait_left));
        }
        if self.away.iter().any(|(away, _)| *away == session) {
            return Err(refused(Reason::Interrupted));
        }
        let mine = self.locks.waits.iter().filter(|wait| self.owner(wait.open) == Some(owner));
        if mine.count() >= WAITS {
            return Err(refused(Reason::Quota));
        }
        let deadline = now.after(wait);
        self.locks.waits.push(ModelWait { session, handle, request, open: id, wish, deadline });
        Ok(LockAnswer::Queued)
    }

    pub(super) fn unlock(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
        wish: Wish,
    ) -> Result<(), Refusal> {
        self.end_overdue(now);
        let open = self.locker(session, handle)?;
        let (id, owner) = (open.id, open.owner);
        if self.is_too_much(id, owner, wish, None) {
            return Err(refused(Reason::Quota));
        }
        self.set(id, wish, None);
        Ok(())
    }

    pub(super) fn cancel(&mut self, session: SessionId, request: RequestId) {
        let is_it = |wait: &ModelWait| wait.session == session && wait.request == request;
        if let Some(at) = self.locks.waits.iter().position(is_it) {
            self.end_wait(at, Err(refused(Reason::Interrupted)));
        }
    }

    pub(super) fn check_io(&mut self, now: Time, id: OpenId, wish: Wish) -> Result<(), Refusal> {
        let Some(file) = self.file(id) else { return Ok(()) };
        let keepers = self.keepers(id, file, wish);
        if keepers.is_empty() {
            return Ok(());
        }
        self.standing(now, &keepers).map_err(held)?;
        if self.stop_all(&keepers, Reason::TakenOver) { Err(held(OpenTable::DRAIN_RETRY)) } else { Ok(()) }
    }

    pub(super) fn begin_removal(
        &mut self,
        now: Time,
        session: SessionId,
        files: &[FileIdentity],
    ) -> Result<(), Refusal> {
        self.end_overdue(now);
        let is_own = |holder: &ModelHolder| holder.session == session && !holder.is_draining;
        let keeps = |open: &&ModelOpen| {
            files.contains(&open.file)
                && !open.mode.share.contains(ShareMode::DELETE)
                && !open.holders.iter().any(is_own)
        };
        let keeping: Vec<OpenId> = self.opens.iter().filter(keeps).map(|open| open.id).collect();
        self.standing(now, &keeping).map_err(busy)?;
        let is_guarded = |open: &&ModelOpen| files.contains(&open.file) && open.guard;
        let guarded = self.opens.iter().filter(is_guarded).filter(|open| !open.holders.iter().any(is_own));
        let left = guarded.filter_map(|open| open.deadline()).map(|deadline| deadline.since(now)).max();
        if let Some(left) = left.filter(|left| *left > Duration::ZERO) {
            return Err(busy(left));
        }
        if self.stop_all(&keeping, Reason::TakenOver) {
            return Err(busy(OpenTable::DRAIN_RETRY));
        }
        self.removals.push(files.to_vec());
        Ok(())
    }

    pub(super) fn said(&mut self) -> Vec<String> {
        core::mem::take(&mut self.locks.said)
    }

    pub(super) fn wait_deadline(&self) -> Option<Time> {
        self.locks.waits.iter().map(|wait| wait.deadline).min()
    }

    pub(super) fn waiting(&self) -> Vec<WaitKey> {
        self.locks.waits.iter().map(|wait| (wait.session, wait.request)).collect()
    }

    /// Every lock and waiter, in one form for model and table.
    pub(super) fn lock_lines(&self) -> Vec<String> {
        let held = self.locks.held.iter().flat_map(|(open, cells)| {
            runs(cells).into_iter().map(move |run| format!("{open:?} has {} {:?}", range_of(run), run.2))
        });
        let waits = self.locks.waits.iter().map(|wait| {
            let key = (wait.session, wait.request);
            format!("{key:?} {:?} {:?} until {:?}", wait.handle, wait.open, wait.deadline)
        });
        held.chain(waits).collect()
    }
}

/// Locked, with a time.
pub(super) fn held(left: Duration) -> Refusal {
    Refusal { reason: Reason::Locked, ..busy(left) }
}

pub(super) fn lock_lines(table: &OpenTable) -> Vec<String> {
    let held = table.opens().flat_map(|open| {
        let locks = table.locks(open.open);
        locks.into_iter().map(move |(range, mode)| format!("{:?} has {range} {mode:?}", open.open))
    });
    let waits = table.waits.iter().map(|(key, wait)| {
        format!("{key:?} {:?} {:?} until {:?}", wait.handle, wait.owner.open, wait.deadline)
    });
    held.chain(waits).collect()
}
