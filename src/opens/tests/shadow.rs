//! Random runs of the table beside a model that has no index, no phase and no deadline: it finds everything
//! out by looking at all its records. Each run is the same each time; a failing one is shrunk and printed.

use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::stored::{Records, restart};
use super::*;
use calls::{Call, How, REMOVED, call, locking};
use locks::{ModelLocks, Wish, held, range_of};

mod calls;
mod locks;
mod orphans;

const SESSIONS: [SessionId; 3] = [A1, A2, B1];
const QUOTA: usize = 3;
const KEYS: usize = 3;
const LAPSED: usize = 2;
const FOREVER: Time = Time(u64::MAX);
const AGE: Duration = Duration::from_secs(90);
const MODES: [OpenMode; 4] = [
    OpenMode::READ,
    OpenMode::READ_WRITE,
    EXCLUSIVE,
    OpenMode { rights: Rights::READ, share: ShareMode::READ },
];

#[derive(Clone, Debug)]
struct ModelHolder {
    handle: HandleId,
    session: SessionId,
    rights: Rights,
    /// Since when its session is away.
    away_since: Option<Time>,
    is_draining: bool,
    executing: u32,
    is_opened: bool,
}

#[derive(Clone, Debug)]
struct ModelKey {
    key: ResumeKey,
    home: HandleId,
    rights: Rights,
    is_own: bool,
}

#[derive(Clone, Debug)]
struct ModelOpen {
    id: OpenId,
    owner: PublicKey,
    file: FileIdentity,
    mode: OpenMode,
    create: CreateId,
    holders: Vec<ModelHolder>,
    keys: Vec<ModelKey>,
    issued: u32,
    resumable: bool,
    guard: bool,
}

impl ModelOpen {
    fn is_live(&self) -> bool {
        self.holders.iter().any(|holder| !holder.is_draining && holder.away_since.is_none())
    }

    fn deadline(&self) -> Option<Time> {
        let away = self.holders.iter().filter(|holder| !holder.is_draining);
        let latest = away.filter_map(|holder| holder.away_since).max().map(|since| since.after(GRACE));
        latest.filter(|_| !self.is_live())
    }

    fn is_closing(&self) -> bool {
        self.holders.iter().all(|holder| holder.is_draining)
    }

    fn stop(&mut self, which: impl Fn(&ModelHolder) -> bool) {
        for holder in self.holders.iter_mut().filter(|holder| which(holder)) {
            holder.is_draining = true;
            self.keys.retain(|key| key.home != holder.handle);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Model {
    opens: Vec<ModelOpen>,
    away: Vec<(SessionId, Time)>,
    locks: ModelLocks,
    removals: Vec<Vec<FileIdentity>>,
    /// Which orphans an expiry has found over, and since when they are.
    lapsed: Vec<(Time, OpenId)>,
    /// The keys of opens that ended under their owners, and what those hear.
    ended: Vec<(ResumeKey, PublicKey, Reason)>,
}

impl Model {
    /// Drops what drains and executes nothing; says what the table is to tell.
    fn sweep(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for open in &mut self.opens {
            let id = open.id;
            open.holders.retain(|holder| {
                let is_gone = holder.is_draining && holder.executing == 0;
                if is_gone {
                    said.push(format!(
                        "{:?}",
                        TableEvent::Drained { session: holder.session, handle: holder.handle }
                    ));
                }
                !is_gone
            });
            if open.holders.is_empty() {
                said.push(format!("{:?}", TableEvent::CloseFile { open: id }));
            }
        }
        self.opens.retain(|open| !open.holders.is_empty());
        said
    }

    fn holders(&mut self) -> impl Iterator<Item = &mut ModelHolder> {
        self.opens.iter_mut().flat_map(|open| &mut open.holders)
    }

    fn newcomer(
        &self,
        session: SessionId,
        handle: HandleId,
        rights: Rights,
        is_opened: bool,
        now: Time,
    ) -> ModelHolder {
        let is_away = self.away.iter().any(|(away, _)| *away == session);
        let away_since = is_away.then_some(now);
        ModelHolder { handle, session, rights, away_since, is_draining: false, executing: 0, is_opened }
    }

    /// What opening has to answer: the handle, or the refusal.
    fn open(
        &mut self,
        now: Time,
        asked: &Admission,
        wish: Option<Wish>,
        is_found: bool,
    ) -> Result<Option<HandleId>, Refusal> {
        self.end_overdue(now);
        let known = |open: &&mut ModelOpen| open.owner == asked.owner && open.create == asked.create_id;
        if let Some(open) = self.opens.iter_mut().find(known) {
            if open.is_closing() {
                if open.holders.iter().any(|holder| holder.executing > 0) {
                    return Err(busy(OpenTable::DRAIN_RETRY));
                }
            } else {
                let is_same = open.mode == asked.mode && open.resumable == asked.resumable;
                if !is_same || is_found && open.file != asked.file {
                    return Err(refused(Reason::Invalid));
                }
                let id = open.id;
                let is_same = |holder: &&ModelHolder| {
                    holder.is_opened && !holder.is_draining && holder.session == asked.session
                };
                if let Some(same) = open.holders.iter().find(is_same) {
                    return Ok(Some(same.handle));
                }
                let newcomer = self.newcomer(asked.session, asked.handle, asked.rights, true, now);
                self.opens.iter_mut().find(|open| open.id == id).unwrap().holders.push(newcomer);
                return Ok(Some(asked.handle));
            }
        }
        if is_found { self.admit(now, asked, wish).map(Some) } else { Ok(None) }
    }

    fn admit(&mut self, now: Time, asked: &Admission, wish: Option<Wish>) -> Result<HandleId, Refusal> {
        if wish.is_some() && !asked.rights.contains(Rights::LOCK) {
            return Err(refused(Reason::PermissionDenied));
        }
        let is_left =
            |open: &&ModelOpen| !open.is_closing() || open.holders.iter().any(|holder| holder.executing > 0);
        let mine = || self.opens.iter().filter(is_left).filter(|open| open.owner == asked.owner);
        if mine().count() >= QUOTA && self.spare(now, asked.owner).is_none() {
            return Err(refused(Reason::Quota));
        }
        let is_removed = self.removals.iter().flatten().any(|file| *file == asked.file);
        if is_removed && !asked.mode.share.contains(ShareMode::DELETE) {
            return Err(busy(OpenTable::DRAIN_RETRY));
        }
        let guarded = self.opens.iter().filter(|open| open.file == asked.file && open.guard);
        let left = guarded.filter_map(|open| open.deadline()).map(|deadline| deadline.since(now)).max();
        if let Some(left) = left.filter(|left| *left > Duration::ZERO) {
            return Err(busy(left));
        }
        let is_rival = |open: &&ModelOpen| open.file == asked.file && !open.mode.is_compatible(asked.mode);
        let rivals = self.opens.iter().filter(is_left).filter(is_rival);
        let rivals: Vec<OpenId> = rivals.map(|open| open.id).collect();
        self.standing(now, &rivals).map_err(busy)?;
        if let Some(wish) = wish {
            if self.is_too_much(asked.open, asked.owner, wish, Some(wish.2)) {
                return Err(refused(Reason::Quota));
            }
            let keepers = self.keepers(asked.open, asked.file, wish);
            self.standing(now, &keepers).map_err(held)?;
            if self.is_behind(self.waiting().len(), asked.open, asked.file, wish) {
                return Err(held(Duration::ZERO));
            }
        }
        if self.stop_all(&rivals, Reason::TakenOver) {
            return Err(busy(OpenTable::DRAIN_RETRY));
        }
        if let Some(wish) = wish {
            let wait = self.make_lock_way(now, asked.open, asked.file, wish);
            let is_behind = self.is_behind(self.waiting().len(), asked.open, asked.file, wish);
            if is_behind || !self.keepers(asked.open, asked.file, wish).is_empty() {
                return Err(held(wait));
            }
            if self.is_too_much(asked.open, asked.owner, wish, Some(wish.2)) {
                return Err(refused(Reason::Quota));
            }
        }
        if !self.make_room(now, asked.owner) {
            return Err(busy(OpenTable::DRAIN_RETRY));
        }
        let holder = self.newcomer(asked.session, asked.handle, asked.rights, true, now);
        self.opens.push(ModelOpen {
            id: asked.open,
            owner: asked.owner,
            file: asked.file,
            mode: asked.mode,
            create: asked.create_id,
            holders: vec![holder],
            keys: Vec::new(),
            issued: 0,
            resumable: asked.resumable,
            guard: asked.guard,
        });
        if let Some(wish) = wish {
            self.set(asked.open, wish, Some(wish.2));
        }
        Ok(asked.handle)
    }

    fn resume(
        &mut self,
        now: Time,
        key: &ResumeKey,
        claim: &Claim<'_>,
        allowed: Option<Rights>,
    ) -> Option<(HandleId, Rights)> {
        let index = self.opens.iter().position(|open| open.keys.iter().any(|kept| kept.key == *key))?;
        let open = &self.opens[index];
        let kept = open.keys.iter().find(|kept| kept.key == *key)?;
        let rights = kept.rights.intersection(allowed?);
        let is_mine = open.owner == *claim.identity && !open.is_closing();
        let mut strangers =
            self.opens.iter().filter(|other| other.id != open.id).flat_map(|open| &open.holders);
        let is_strange = strangers.any(|holder| Some(holder.handle) == claim.predecessor);
        if !is_mine || is_strange || rights.intersection(EXCLUSIVE.rights) == Rights::NONE {
            return None;
        }
        self.end_overdue(now);
        let newcomer = self.newcomer(claim.session, claim.handle, rights, false, now);
        let open = &mut self.opens[index];
        for kept in open.keys.iter_mut().filter(|kept| Some(kept.home) == claim.predecessor) {
            kept.home = claim.handle;
            kept.is_own = false;
        }
        open.stop(|holder| Some(holder.handle) == claim.predecessor);
        open.holders.push(newcomer);
        Some((claim.handle, rights))
    }

    fn add_key(&mut self, session: SessionId, handle: HandleId, secret: [u8; 16]) -> Option<ResumeKey> {
        let is_home = |holder: &ModelHolder| {
            holder.handle == handle && holder.session == session && !holder.is_draining
        };
        let open = self.opens.iter_mut().find(|open| open.holders.iter().any(is_home))?;
        if !open.resumable {
            return None;
        }
        let rights = open.holders.iter().find(|holder| is_home(holder))?.rights;
        open.issued += 1;
        let key = ResumeKey {
            file_id: open.id,
            time_stamp_us: STAMP_US,
            process_id: PROCESS_ID,
            generation: open.issued,
            secret,
        };
        open.keys.retain(|kept| kept.home != handle || !kept.is_own);
        open.keys.push(ModelKey { key: key.clone(), home: handle, rights, is_own: true });
        if open.keys.len() > KEYS {
            let moved = open.keys.iter().position(|kept| !kept.is_own);
            open.keys.remove(moved.unwrap_or(0));
        }
        Some(key)
    }

    /// Every open and holder, in one form for model and table.
    fn picture(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for open in &self.opens {
            let phase = if open.is_live() {
                OpenPhase::Held
            } else if open.is_closing() {
                OpenPhase::Closing
            } else {
                OpenPhase::Orphaned
            };
            lines.push(open_line(open.id, phase, open.deadline(), open.keys.len()));
            for holder in &open.holders {
                let phase = match (holder.is_draining, holder.away_since) {
                    (true, _) => HolderPhase::Draining,
                    (false, Some(_)) => HolderPhase::Away,
                    (false, None) => HolderPhase::Live,
                };
                lines.push(holder_line(
                    open.id,
                    holder.handle,
                    holder.session,
                    phase,
                    holder.rights,
                    holder.executing,
                ));
            }
        }
        lines.extend(self.lock_lines());
        lines.sort();
        lines
    }
}

fn open_line(id: OpenId, phase: OpenPhase, deadline: Option<Time>, keys: usize) -> String {
    format!("{id:?} {phase:?} {deadline:?} {keys} keys")
}

fn holder_line(
    open: OpenId,
    handle: HandleId,
    session: SessionId,
    phase: HolderPhase,
    rights: Rights,
    executing: u32,
) -> String {
    format!("{open:?} {handle:?} {session:?} {phase:?} {rights} {executing} executing")
}

fn picture(table: &OpenTable) -> Vec<String> {
    let opens = table.opens().map(|open| open_line(open.open, open.phase, open.deadline, open.keys));
    let holders = table.holders().map(|holder| {
        holder_line(holder.open, holder.handle, holder.session, holder.phase, holder.rights, holder.executing)
    });
    let mut lines: Vec<String> = opens.chain(holders).chain(locks::lock_lines(table)).collect();
    lines.sort();
    lines
}

/// Table and model side by side, and everything that was ever given out.
struct Run {
    table: OpenTable,
    model: Model,
    now: Time,
    /// Rises: the next open, handle and secret.
    next: u64,
    handles: Vec<(SessionId, HandleId)>,
    keys: Vec<ResumeKey>,
    allowed: Option<Rights>,
    resumed: usize,
    broken: usize,
    removed: usize,
    /// How often an owner heard that another client took its file.
    told: usize,
    records: Records,
}

impl Run {
    fn new() -> Self {
        let limits = Limits {
            opens_per_client: QUOTA,
            lapsed_per_client: LAPSED,
            orphan_age_max: AGE,
            keys_per_open: KEYS,
            locks_per_open: locks::LOCKS,
            locks_per_client: locks::CLIENT_LOCKS,
            lock_waits_per_client: locks::WAITS,
            tombstone_age_max: Duration::MAX,
            ..Limits::default()
        };
        Self {
            table: OpenTable::new([0x5a; 32], &limits),
            model: Model::default(),
            now: Time(1),
            next: 1,
            handles: Vec::new(),
            keys: Vec::new(),
            allowed: Some(Rights::ALL),
            resumed: 0,
            broken: 0,
            removed: 0,
            told: 0,
            records: Records::default(),
        }
    }

    fn play(&mut self, call: &Call) {
        self.next += 1;
        match *call {
            Call::Open { session, file, mode, create, looks_first, how } => {
                let file = [FILE, OTHER_FILE][file];
                self.open(SESSIONS[session], file, (MODES[mode], create), looks_first, how);
            }
            Call::Issue { holder } => self.issue(holder),
            Call::Resume { session, key, predecessor, spoil } => {
                self.resume(SESSIONS[session], key, predecessor, spoil);
            }
            Call::Begin { holder, as_other, write } => self.begin(holder, as_other, write),
            Call::End { holder } => self.end(holder),
            Call::Close { holder } => self.close(holder),
            Call::Away { session } => self.away(SESSIONS[session]),
            Call::Back { session } => {
                self.table.session_back(SESSIONS[session]);
                self.model.away.retain(|(away, _)| *away != SESSIONS[session]);
                let back = self.model.holders().filter(|holder| holder.session == SESSIONS[session]);
                back.for_each(|holder| holder.away_since = None);
            }
            Call::Ended { session } => {
                let session = SESSIONS[session];
                self.table.session_ended(session);
                self.model.away.retain(|(away, _)| *away != session);
                self.model.opens.iter_mut().for_each(|open| open.stop(|holder| holder.session == session));
            }
            Call::Expire => {
                self.table.expire(self.now);
                let now = self.now;
                self.model.end_overdue(now);
                self.model.expire(now);
            }
            Call::Wait { ms } => self.now = self.now.after(Duration::from_millis(ms)),
            Call::Allow { rights } => self.allowed = rights,
            Call::Closed { session } => {
                let session = SESSIONS[session];
                self.table.session_closed(session);
                let finals = self.model.opens.iter_mut().filter(|open| !open.resumable);
                finals.for_each(|open| open.stop(|holder| holder.session == session));
            }
            Call::Remove { session, files } => {
                let (session, files) = (SESSIONS[session], REMOVED[files]);
                let answer = self.table.begin_removal(self.now, session, files);
                assert_eq!(answer, self.model.begin_removal(self.now, session, files));
                self.removed += usize::from(answer.is_ok());
            }
            Call::Removed => {
                if let Some(files) = self.model.removals.pop() {
                    self.table.end_removal(&files);
                }
            }
            Call::Lock { .. } | Call::Unlock { .. } | Call::Cancel { .. } | Call::Io { .. } => {
                self.play_lock(call);
            }
        }
        self.compare();
        self.records.take(&mut self.table);
    }

    fn play_lock(&mut self, call: &Call) {
        match *call {
            Call::Lock { holder, wish, wait_ms } => {
                let Some((session, handle)) = self.pick(holder) else { return };
                let (request, wait) = (RequestId(self.next), Duration::from_millis(wait_ms));
                let asked = LockRequest { request, range: range_of(wish), mode: wish.2, wait };
                let answer = self.table.lock(self.now, session, handle, asked);
                assert_eq!(answer, self.model.lock(self.now, (session, handle), request, wish, wait));
            }
            Call::Unlock { holder, wish } => {
                let Some((session, handle)) = self.pick(holder) else { return };
                let answer = self.table.unlock(self.now, session, handle, range_of(wish));
                assert_eq!(answer, self.model.unlock(self.now, session, handle, wish));
            }
            Call::Cancel { waiter } => {
                let waiting = self.model.waiting();
                let unknown = (A1, RequestId(0));
                let (session, request) =
                    waiting.get(waiter % (waiting.len() + 1)).copied().unwrap_or(unknown);
                self.table.cancel_lock(session, request);
                self.model.cancel(session, request);
            }
            Call::Io { holder, wish } => {
                let Some((_, handle)) = self.pick(holder) else { return };
                let mut opens = self.model.opens.iter();
                let has = |open: &&ModelOpen| open.holders.iter().any(|holder| holder.handle == handle);
                let open = opens.find(has).map_or(OpenId(0), |open| open.id);
                let is_write = wish.2 == LockMode::Exclusive;
                let answer = self.table.check_io(self.now, open, range_of(wish), is_write);
                assert_eq!(answer, self.model.check_io(self.now, open, wish));
            }
            _ => {}
        }
    }

    fn compare(&mut self) {
        self.table.check_invariants();
        let said = events(&mut self.table);
        self.broken += said.iter().filter(|event| matches!(event, TableEvent::CloseFile { .. })).count();
        let refusals = |event: &TableEvent| matches!(event, TableEvent::ResumeRefused { .. });
        let mut said: Vec<String> =
            said.iter().filter(|event| !refusals(event)).map(|event| format!("{event:?}")).collect();
        self.model.settle_locks();
        let mut expected = self.model.sweep();
        expected.extend(self.model.said());
        said.sort();
        expected.sort();
        assert_eq!(said, expected);
        assert_eq!(picture(&self.table), self.model.picture());
        let orphans = self.model.opens.iter().filter_map(|open| Some((open.deadline()?, open.id)));
        let ends = orphans.map(|place| match self.model.lapsed.contains(&place) {
            true => place.0.after(AGE),
            false => place.0,
        });
        // What is left of opens that ended is not modelled; it lasts longer than any run.
        let due = self.table.next_deadline().filter(|due| *due < FOREVER);
        assert_eq!(due, ends.chain(self.model.wait_deadline()).min());
        assert!(self.model.opens.iter().all(|a| {
            let mut others = self.model.opens.iter().filter(|b| b.id != a.id && b.file == a.file);
            others.all(|b| a.mode.is_compatible(b.mode))
        }));
    }

    fn open(
        &mut self,
        session: SessionId,
        file: FileIdentity,
        (mode, create): (OpenMode, u8),
        looks_first: bool,
        how: How,
    ) {
        let lock_right = if how.may_lock { Rights::LOCK } else { Rights::NONE };
        let asked = Admission {
            open: OpenId(self.next),
            handle: HandleId(self.next),
            create_id: CreateId([create; 16]),
            rights: mode.rights.union(lock_right),
            lock: how.lock.map(|wish| (range_of(wish), wish.2)),
            resumable: how.resumable,
            guard: how.guard,
            ..admission(session, 0, file, mode)
        };
        let expected = self.model.open(self.now, &asked, how.lock, !looks_first);
        let answer = if looks_first {
            let (owner, export) = (asked.owner, asked.export.clone());
            self.table.find_created(
                self.now,
                &Repeat {
                    session,
                    owner: &owner,
                    create_id: asked.create_id,
                    handle: asked.handle,
                    export: &export,
                    mode,
                    rights: asked.rights,
                    resumable: asked.resumable,
                },
            )
        } else {
            self.table.admit(self.now, asked).map(Some)
        };
        let handle = answer.map(|admitted| admitted.map(|admitted| admitted.handle));
        assert_eq!(handle, expected);
        if let Ok(Some(handle)) = handle {
            self.handles.push((session, handle));
        }
    }

    fn issue(&mut self, holder: usize) {
        let Some((session, handle)) = self.pick(holder) else { return };
        let secret = [u8::try_from(self.next % 251).unwrap(); 16];
        let key = self.table.issue_key(session, handle, STAMP_US, PROCESS_ID, secret).ok();
        assert_eq!(key, self.model.add_key(session, handle, secret));
        self.keys.extend(key);
    }

    fn resume(&mut self, session: SessionId, key: usize, predecessor: Option<usize>, spoil: Option<usize>) {
        let len = self.keys.len().min(6);
        if len == 0 {
            return;
        }
        let mut bytes = self.keys[self.keys.len() - 1 - key % len].to_bytes();
        if let Some(bit) = spoil {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let key = ResumeKey::from_bytes(&bytes);
        let allowed = self.allowed;
        let may_use = move |_: &ExportName| allowed;
        let predecessor = predecessor.and_then(|at| self.pick(at)).map(|(_, handle)| handle);
        let asked = || Claim { predecessor, may_use: &may_use, ..claim(session, self.next) };
        let expected = self.model.resume(self.now, &key, &asked(), allowed);
        let asked = asked();
        let before = image(&self.table);
        let answer = self.table.resume(self.now, &key, asked);
        match answer {
            Ok(admitted) => {
                assert_eq!(Some((admitted.handle, admitted.rights)), expected);
                self.handles.push((session, admitted.handle));
                self.resumed += 1;
            }
            Err(refusal) => {
                assert_eq!(expected, None);
                if let Some(told) = self.model.told(&key, session, allowed) {
                    assert_eq!(refusal.reason, told);
                }
                self.told += usize::from(refusal.reason == Reason::TakenOver);
                assert_eq!(image(&self.table), before);
            }
        }
    }

    fn begin(&mut self, holder: usize, as_other: bool, write: bool) {
        let Some((own, handle)) = self.pick(holder) else { return };
        let session = if as_other { SessionId([0xff; 16]) } else { own };
        let needed = if write { Rights::WRITE } else { Rights::READ };
        let answer = self.table.begin_operation(session, handle, needed).is_ok();
        let able = |holder: &&mut ModelHolder| {
            holder.handle == handle
                && holder.session == session
                && !holder.is_draining
                && holder.rights.contains(needed)
        };
        let able = self.model.holders().find(able).map(|holder| holder.executing += 1);
        assert_eq!(answer, able.is_some());
    }

    fn end(&mut self, holder: usize) {
        let Some((_, handle)) = self.pick(holder) else { return };
        let busy = |holder: &&mut ModelHolder| holder.handle == handle && holder.executing > 0;
        if let Some(holder) = self.model.holders().find(busy) {
            holder.executing -= 1;
            self.table.end_operation(handle);
        }
    }

    fn close(&mut self, holder: usize) {
        let Some((session, handle)) = self.pick(holder) else { return };
        let answer = self.table.begin_close(session, handle).is_ok();
        let mut is_open = false;
        for open in &mut self.model.opens {
            is_open |= open.holders.iter().any(|holder| holder.handle == handle && !holder.is_draining);
            open.stop(|holder| holder.handle == handle);
        }
        assert_eq!(answer, is_open);
    }

    fn away(&mut self, session: SessionId) {
        self.table.session_away(self.now, session);
        self.model.end_overdue(self.now);
        self.model.away.push((session, self.now));
        let now = self.now;
        for holder in self.model.holders().filter(|holder| holder.session == session) {
            holder.away_since = holder.away_since.or(Some(now));
        }
    }

    fn pick(&self, at: usize) -> Option<(SessionId, HandleId)> {
        // From the end: the latest are the most likely to be there still.
        let len = self.handles.len().min(8);
        (len > 0).then(|| self.handles[self.handles.len() - 1 - at % len])
    }
}

/// Plays `cases` runs of `calls` and says what they reached: resumes, opens that ended, removals, locks that were waited for.
fn reached(cases: u32, calls: impl Strategy<Value = Vec<Call>>) -> [usize; 5] {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let totals = core::cell::Cell::new([0; 5]);
    let outcome = runner.run(&calls, |calls| {
        let mut run = Run::new();
        calls.iter().for_each(|call| run.play(call));
        run.compare_restored();
        let reached = [run.resumed, run.broken, run.removed, run.told, run.model.locks.granted];
        totals.set(core::array::from_fn(|at| totals.get()[at] + reached[at]));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    totals.get()
}

#[test]
fn random_runs_agree_with_a_naive_model() {
    let reached = reached(500, vec(call(), 1..200));
    assert!(
        reached[..4].iter().zip([500, 500, 500, 10]).all(|(total, least)| *total > least),
        "too little is tested: {reached:?}"
    );
}

#[test]
fn random_locks_agree_with_a_naive_model() {
    let reached = reached(1500, locking());
    assert!(reached[4] > 4000, "too little is tested: {reached:?}");
}
