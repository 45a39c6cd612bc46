//! Opens and waits at the very moment when their time is over: what is left is somebody's or nobody's, and never both.
//! The server's core alone, with its clock and the order of what comes in the test's hand.
//!
//! `BOWLINE_SEED=n` runs that schedule alone; a failing one prints its own.

use std::time::Duration;

use bowline::model::{
    Attributes, ByteRange, ChannelKind, ChannelNumber, Create, CreateId, Entropy as _, ExportPath,
    FileIdentity, HandleId, InstanceId, Limits, LockMode, Meanwhile, OpenId, OpenMode, Policy, Protection,
    ProtectionMinima, PublicKey, RequestId, ResumeKey, SessionId, Suite, SyncScope, Time,
};
use bowline::opens::{HolderPhase, OpenPhase};
use bowline::session::server::{
    Binding, ClientMessage, Completion, ConnectionId, Effect, EffectId, ServerCore, ServerMessage,
    ServerOutput, ServerSetup, SessionFacts,
};
use bowline::session::{Input, LossReason};
use bowline::wire::control::{
    Attach, Begin, Close, Lock, LockWanted, Open, Purpose, Resume, Started, Sync, Unlock, WelcomeAnswer,
};
use bowline::wire::hello::{BindOffer, SessionOffer};
use bowline::wire::{ClientControl, ServerControl};

use super::pair::{EPOCH, Payload, SERVER_KEYS, Seed, VERIFIER, policy};
use super::seconds;

const GRACE_MS: u64 = 1_000;
const LOCKS: u64 = 100;
const FILE: FileIdentity = FileIdentity { device: 1, inode: 1, born_ns: 0 };

/// A server, and what it has said.
struct Scene {
    server: ServerCore<Payload>,
    now: Time,
    random: Seed,
    sent: Vec<(ConnectionId, RequestId, ServerControl)>,
    /// Work that was begun and not reported.
    work: Vec<EffectId>,
    closed: Vec<ConnectionId>,
    next_connection: u64,
}

/// A session of a client, with one control channel.
struct Member {
    session: SessionId,
    instance: InstanceId,
    started: Started,
    connection: ConnectionId,
    /// The number of its next channel.
    number: u32,
    /// The number of its next request.
    next: u64,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut limits = Limits::default();
        // Exactly what a round needs: a range that is not given back is missed in the next one.
        limits.locks_per_client = usize::try_from(LOCKS).unwrap();
        // Nobody falls silent here.
        limits.ping_idle_after = seconds(1 << 30);
        let server = ServerCore::new(ServerSetup {
            limits,
            policy: policy(),
            server_keys: SERVER_KEYS,
            minima: ProtectionMinima::default(),
            suites: bowline::model::SuiteSet::ALWAYS,
            entropy: Box::new(Seed::new(seed, 1)),
            wall_start_us: 1_700_000_000_000_000,
            epoch: EPOCH,
            verifier: VERIFIER,
            stored: None,
        });
        Self {
            server: server.unwrap(),
            now: Time(5_000_000),
            random: Seed::new(seed, 2),
            sent: Vec::new(),
            work: Vec::new(),
            closed: Vec::new(),
            next_connection: 1,
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    fn member(&mut self, name: u8) -> Member {
        let instance = InstanceId(self.random.bytes().unwrap());
        self.begin(name, instance, None)
    }

    fn begin(&mut self, name: u8, instance: InstanceId, former: Option<SessionId>) -> Member {
        let (client, offer, connection) = (PublicKey([name; 32]), SessionOffer::OURS, self.connection());
        let choice = self.server.session_choice(self.now, &client, &offer).unwrap().unwrap();
        let begin = Begin { offer, choice, instance, process_id: 7, purpose: Purpose::New { former } };
        let facts = SessionFacts { server: SERVER_KEYS.current, client, offer, choice };
        self.server.handle_begin(self.now, connection, &facts, RequestId::NONE, &begin).ok();
        self.drain();
        let Some((_, _, ServerControl::Welcome(welcome))) = self.sent.pop() else { panic!("no welcome") };
        let WelcomeAnswer::Started(started) = welcome.answer else { panic!("no session") };
        Member { session: choice.session, instance, started, connection, number: 1, next: 1 }
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send {
                    connection, request, message: ServerMessage::Control(message), ..
                } => {
                    self.sent.push((connection, request, message));
                }
                ServerOutput::Close { connection, .. } => self.closed.push(connection),
                ServerOutput::Effect { id, effect: Effect::OpenFile { .. } } => {
                    let opened = Completion::Opened(Ok((FILE, Attributes::default())));
                    self.server.handle_completion(self.now, id, opened);
                }
                ServerOutput::Effect { id, effect: Effect::Attributes { .. } } => {
                    let told = Completion::Attributes(Ok(Attributes::default()));
                    self.server.handle_completion(self.now, id, told);
                }
                ServerOutput::Effect { id, .. } => self.work.push(id),
                ServerOutput::Send { .. }
                | ServerOutput::Note(_)
                | ServerOutput::CloseFile { .. }
                | ServerOutput::Drained => {}
                ServerOutput::Commit { .. } | ServerOutput::AdoptFile { .. } => {
                    panic!("nothing is stored here")
                }
            }
        }
    }

    /// Asks, with all earlier answers taken.
    fn ask(&mut self, member: &mut Member, message: impl Into<ClientControl>) -> RequestId {
        let request = RequestId(member.next);
        member.next += 1;
        let input = Input {
            request,
            settled: request,
            message: Ok(ClientMessage::Control(message.into())),
            payload_len: 0,
            payload: None,
        };
        self.server.handle_input(self.now, member.connection, input);
        self.drain();
        request
    }

    fn answer(&self, member: &Member, request: RequestId) -> Option<&ServerControl> {
        let mut answers = self.sent.iter().filter(|(to, id, _)| (*to, *id) == (member.connection, request));
        answers.next().map(|(_, _, answer)| answer)
    }

    fn open(&mut self, member: &mut Member, with_key: bool) -> (HandleId, Option<ResumeKey>) {
        let open = Open {
            export: "data".parse().unwrap(),
            path: ExportPath::new(*b"a").unwrap(),
            mode: OpenMode::READ_WRITE,
            create: Create::Never,
            truncate: false,
            permissions: 0,
            lock: None,
            resumable: true,
            create_id: CreateId(self.random.bytes().unwrap()),
            with_key,
            grace_ms: GRACE_MS,
            guard: false,
        };
        let request = self.ask(member, open);
        match self.answer(member, request) {
            Some(ServerControl::Opened(opened)) => (opened.handle, opened.key.clone()),
            other => panic!("not opened: {other:?}"),
        }
    }

    fn lock(
        &mut self,
        member: &mut Member,
        handle: HandleId,
        (range, mode): (ByteRange, LockMode),
        wait_ms: u64,
    ) -> RequestId {
        let wanted = LockWanted { mode, range: range.raw() };
        self.ask(member, Lock { handle, wanted, wait_ms })
    }

    /// Whether a lock was given, at once or at the end of a wait.
    fn is_locked(&self, member: &Member, request: RequestId) -> bool {
        let ended = self.sent.iter().any(|(to, _, message)| {
            *to == member.connection
                && matches!(message, ServerControl::LockEnded(end) if end.lock == request && end.outcome.is_ok())
        });
        ended || matches!(self.answer(member, request), Some(ServerControl::Locked(_)))
    }

    fn lose(&mut self, connection: ConnectionId, reason: LossReason) {
        self.server.handle_lost(self.now, connection, reason);
        self.drain();
    }

    fn wake(&mut self) {
        self.server.handle_timeout(self.now);
        self.drain();
    }

    fn finish_work(&mut self) {
        for effect in std::mem::take(&mut self.work) {
            self.server.handle_completion(self.now, effect, Completion::Synced(Ok(())));
            self.drain();
        }
    }

    fn locks(&self, open: OpenId) -> usize {
        self.server.table().locks(open).len()
    }

    fn phase(&self, open: OpenId) -> Option<OpenPhase> {
        self.server.table().opens().find(|view| view.open == open).map(|view| view.phase)
    }

    /// Moments close to `around`, with many that are the same, in the order in which they come.
    fn schedule<T>(&mut self, around: Time, steps: Vec<T>) -> Vec<(Time, T)> {
        let mut planned: Vec<(u64, u64, T)> = steps
            .into_iter()
            .map(|step| (around.0 + self.random.below(7) - 3, self.random.next(), step))
            .collect();
        planned.sort_by_key(|(at, order, _)| (*at, *order));
        planned.into_iter().map(|(at, _, step)| (Time(at), step)).collect()
    }
}

/// What happens close to the end of an orphan's grace.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// The server's timer comes, not always in time.
    Wake,
    /// The first message of a bind of the session that is away.
    Offer,
    /// Its first record.
    Attach,
    /// Another session of the owner presents the key; in place of the first handle?
    Resume(bool),
    /// What was executing when the channel was lost is done.
    WorkDone,
    /// Somebody else wants everything.
    Contend,
}

/// So many seeds, or as many as `BOWLINE_SCHEDULES` says, or the one of `BOWLINE_SEED`.
fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let count = number("BOWLINE_SCHEDULES").unwrap_or(count);
    number("BOWLINE_SEED").map_or_else(|| (0..count).collect(), |seed| vec![seed])
}

/// Of many schedules with two outcomes, each is had in a tenth at least.
fn assert_both_tried(one: u64, schedules: usize) {
    let all = u64::try_from(schedules).unwrap();
    assert!(all < 100 || (all / 10..all - all / 10).contains(&one), "{one} of {all}: one was hardly tried");
}

/// A scavenger that ended a session while its client was coming back freed the locks of the one for the other.
#[test]
fn a_session_that_its_client_gives_up_is_away_at_once_and_its_opens_go_on_in_the_next_one() {
    let mut scene = Scene::new(1);
    let mut former = scene.member(1);
    assert_eq!((former.started.epoch, former.started.verifier), (EPOCH, VERIFIER));
    let (handle, key) = scene.open(&mut former, true);
    let mut next = scene.begin(1, former.instance, Some(former.session));
    assert_eq!(scene.closed, [former.connection], "dead by the client's word");
    let holder = scene.server.table().holder(former.session, handle).unwrap();
    assert_eq!(holder.phase, HolderPhase::Away);
    let resume = Resume { key: key.unwrap(), predecessor: Some(handle), with_key: false };
    let request = scene.ask(&mut next, resume);
    match scene.answer(&next, request) {
        Some(ServerControl::Opened(opened)) => assert_eq!(opened.meanwhile, Some(Meanwhile::Unchanged)),
        other => panic!("not resumed: {other:?}"),
    }
    assert!(scene.server.table().holder(former.session, handle).is_err(), "the predecessor is dropped");
}

#[test]
fn a_session_is_given_up_by_its_own_instance_alone() {
    let mut scene = Scene::new(1);
    let mut member = scene.member(1);
    let (handle, _) = scene.open(&mut member, false);
    let other_instance = InstanceId([9; 16]);
    assert_ne!(member.instance, other_instance);
    scene.begin(2, member.instance, Some(member.session));
    scene.begin(1, other_instance, Some(member.session));
    scene.begin(1, member.instance, Some(SessionId([9; 16])));
    scene.begin(1, member.instance, None);
    assert!(scene.closed.is_empty());
    let holder = scene.server.table().holder(member.session, handle).unwrap();
    assert_eq!(holder.phase, HolderPhase::Live);
}

#[test]
fn cve_2026_31718_locks_of_an_orphan_that_ends_during_a_reconnect_are_held_or_gone() {
    // 100 schedules share a server: what one leaks the next one misses.
    let all = seeds(10_000);
    let run_all = |part: &[u64]| -> u64 {
        let mut orphan = Orphan::new(part[0]);
        part.iter().map(|&seed| u64::from(orphan.run(seed))).sum()
    };
    let parts: Vec<&[u64]> = all.chunks(100).collect();
    let (half, other_half) = parts.split_at(parts.len() / 2);
    let run_each = |parts: &[&[u64]]| parts.iter().map(|part| run_all(part)).sum::<u64>();
    let held = std::thread::scope(|threads| {
        let beside = threads.spawn(|| run_each(half));
        run_each(other_half) + beside.join().unwrap()
    });
    println!("{held} of {} schedules kept the open and its {LOCKS} locks, the others ended both", all.len());
    assert_both_tried(held, all.len());
}

/// A server with a second session of the owner, and somebody else who has the file open too.
struct Orphan {
    scene: Scene,
    other: Member,
    contender: Member,
    contender_handle: HandleId,
    /// The session whose open it is, with its locks; none where a round has ended it.
    owner: Option<(Member, HandleId, ResumeKey)>,
}

impl Orphan {
    fn new(seed: u64) -> Self {
        let mut scene = Scene::new(seed);
        let (other, mut contender) = (scene.member(1), scene.member(2));
        let (contender_handle, _) = scene.open(&mut contender, false);
        Self { scene, other, contender, contender_handle, owner: None }
    }

    /// One schedule. Says whether the open has survived it.
    fn run(&mut self, seed: u64) -> bool {
        self.scene.random = Seed::new(seed, 3);
        self.scene.sent.clear();
        let (mut owner, handle, key) = match self.owner.take() {
            Some(owner) => owner,
            None => self.lock_all(seed),
        };
        let (scene, open) = (&mut self.scene, key.file_id);
        if scene.random.chance(50) {
            scene.ask(&mut owner, Sync { handle, scope: SyncScope::All });
        }
        scene.lose(owner.connection, LossReason::Broken);
        let end = scene.now.after(Duration::from_millis(GRACE_MS));

        let mut back = vec![Step::Offer, Step::Attach];
        let resume = Step::Resume(scene.random.chance(30));
        back.extend(scene.random.chance(40).then_some(resume));
        // Those who come back are a little earlier on average, so that most schedules end with locks to go on with.
        let mut steps = scene.schedule(Time(end.0 - 2), back);
        steps.extend(scene.schedule(end, vec![Step::Wake, Step::WorkDone, Step::Contend]));
        steps.sort_by_key(|(at, _)| *at);
        let (mut binding, mut lock, mut is_back) = (None, None, false);
        for (at, step) in steps {
            scene.now = at;
            match step {
                Step::Wake => scene.wake(),
                Step::Offer => binding = scene.offer(&mut owner),
                Step::Attach => {
                    if let Some(binding) = binding.take() {
                        owner.connection = scene.attach(&binding);
                        is_back = !scene.closed.contains(&owner.connection);
                    }
                }
                Step::Resume(in_place) => {
                    let predecessor = in_place.then_some(handle);
                    scene.ask(&mut self.other, Resume { key: key.clone(), predecessor, with_key: false });
                }
                Step::WorkDone => scene.finish_work(),
                Step::Contend => {
                    let all = (ByteRange::ALL, LockMode::Exclusive);
                    lock = Some(scene.lock(&mut self.contender, self.contender_handle, all, 60_000));
                }
            }
            let is_taken = lock.is_some_and(|lock| scene.is_locked(&self.contender, lock));
            let (phase, locks) = (scene.phase(open), scene.locks(open));
            let is_sound = match phase {
                Some(OpenPhase::Held | OpenPhase::Orphaned) => locks == 100 && !is_taken,
                Some(OpenPhase::Closing) => (locks == 100 && !is_taken) || locks == 0,
                Some(OpenPhase::Ended) | None => locks == 0,
            };
            assert!(is_sound, "schedule {seed}, {step:?}: {phase:?} with {locks} locks, taken: {is_taken}");
        }
        scene.now = end.after(Duration::from_millis(1));
        scene.wake();
        scene.finish_work();
        scene.server.table().check_invariants();
        let survived = scene.phase(open).is_some_and(|phase| phase == OpenPhase::Held);
        let is_taken = lock.is_some_and(|lock| scene.is_locked(&self.contender, lock));
        assert_eq!(survived, !is_taken, "schedule {seed}: the locks are the owner's or the contender's");
        if is_back && scene.server.table().has_holder(handle) {
            self.go_on(handle, open, seed);
            self.owner = Some((owner, handle, key));
        } else {
            self.end(&owner, open, seed);
        }
        survived
    }

    /// A session of the owner with an open that has all the locks that it may have.
    fn lock_all(&mut self, seed: u64) -> (Member, HandleId, ResumeKey) {
        let scene = &mut self.scene;
        let mut owner = scene.member(1);
        let (handle, key) = scene.open(&mut owner, true);
        // One shared range; what is exclusive in it makes two of one, but at the edge.
        let exclusive = (0..LOCKS / 2).map(|at| (at * 20, at * 20 + 5, LockMode::Exclusive));
        for (start, end, mode) in [(0, 1000, LockMode::Shared)].into_iter().chain(exclusive) {
            let range = ByteRange::between(start, end).unwrap();
            let lock = scene.lock(&mut owner, handle, (range, mode), 0);
            assert!(scene.is_locked(&owner, lock), "schedule {seed}: an earlier lock was not given back");
        }
        (owner, handle, key.unwrap())
    }

    /// The owner is back; the others give up what they wanted.
    fn go_on(&mut self, handle: HandleId, open: OpenId, seed: u64) {
        self.close_but(&[handle]);
        let scene = &mut self.scene;
        scene.now = scene.now.after(seconds(61));
        scene.wake();
        assert_eq!(scene.locks(open), 100, "schedule {seed}");
        let counts = (scene.server.table().opens_len(), scene.server.table().holders_len());
        assert_eq!(
            (counts, scene.server.sessions_len()),
            ((2, 2), 3),
            "schedule {seed}: opens, holders, sessions"
        );
    }

    /// Everybody goes, but for the other session and the contender; nothing stays behind.
    fn end(&mut self, owner: &Member, open: OpenId, seed: u64) {
        self.scene.lose(owner.connection, LossReason::Broken);
        self.close_but(&[]);
        let scene = &mut self.scene;
        // First their graces, then the sessions themselves.
        for later in [2, 120] {
            scene.now = scene.now.after(seconds(later));
            scene.wake();
        }
        assert!(scene.phase(open).is_none(), "schedule {seed}: the open is gone");
        let locks = |scene: &Scene| -> usize {
            scene.server.table().opens().map(|view| scene.locks(view.open)).sum()
        };
        assert_eq!(locks(scene), 1, "schedule {seed}: the contender has its lock");
        scene.ask(&mut self.contender, Unlock { handle: self.contender_handle, range: ByteRange::ALL.raw() });
        assert_eq!(locks(scene), 0, "schedule {seed}");
        let counts = (scene.server.table().opens_len(), scene.server.table().holders_len());
        assert_eq!(
            (counts, scene.server.sessions_len()),
            ((1, 1), 2),
            "schedule {seed}: opens, holders, sessions"
        );
    }

    /// The owner's other session closes what it has, but for these handles.
    fn close_but(&mut self, kept: &[HandleId]) {
        let all: Vec<HandleId> = self.scene.server.table().holders().map(|holder| holder.handle).collect();
        for handle in all.into_iter().filter(|handle| !kept.contains(handle)) {
            self.scene.ask(&mut self.other, Close { handle });
        }
    }
}

impl Scene {
    fn offer(&mut self, member: &mut Member) -> Option<Binding> {
        let offer = BindOffer {
            locator: member.started.locator,
            number: ChannelNumber(member.number),
            nonce: bowline::model::AttemptNonce(self.random.bytes().unwrap()),
            kind: ChannelKind::Control,
            protection: Protection::Sealed,
            suite: Suite::ChaCha20Poly1305,
        };
        member.number += 1;
        let session = self.server.bind_facts(&offer.locator)?.session;
        let choice = self.server.bind_choice(self.now, session, &offer).ok()?;
        Some(Binding { session, offer, choice })
    }

    fn attach(&mut self, binding: &Binding) -> ConnectionId {
        let connection = self.connection();
        let attach = Attach { offer: binding.offer, choice: binding.choice };
        self.server.handle_attach(self.now, connection, binding, RequestId::NONE, &attach).ok();
        self.drain();
        connection
    }
}

/// How a waiter's session ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaving {
    /// Its last channel breaks; its open is an orphan until the grace is over.
    Breaks,
    /// It says farewell.
    SaysFarewell,
    /// It is taken off the list.
    IsTakenOff,
    /// Its entry of the list expires at this very moment, whether or not anybody has noticed.
    Expires,
}

/// A waiter whose session was over got the lock when the holder gave it up, and nobody else could have it.
#[test]
fn cve_etcd_11456_a_waiter_whose_session_is_over_never_gets_the_lock() {
    let all = seeds(1_000);
    let granted = all.iter().map(|&seed| u64::from(wait_and_leave(seed))).sum();
    println!(
        "in {granted} of {} schedules the lock was free before the waiter's session was over",
        all.len()
    );
    assert_both_tried(granted, all.len());
}

/// One schedule. Says whether the waiter had the lock before it left.
fn wait_and_leave(seed: u64) -> bool {
    let mut scene = Scene::new(seed);
    let leaving = [Leaving::Breaks, Leaving::SaysFarewell, Leaving::IsTakenOff, Leaving::Expires];
    let leaving = leaving[usize::try_from(scene.random.below(4)).unwrap()];
    // Whole seconds, as the list has them.
    let moment = Time(20_000_000);
    let list = list_without_waiter(leaving, moment);
    if leaving == Leaving::Expires {
        scene.server.handle_policy(scene.now, list.clone());
    }
    let (mut holder, mut waiter, mut next) = (scene.member(2), scene.member(1), scene.member(3));
    let range = ByteRange::between(0, 10).unwrap();
    let lock = (range, LockMode::Exclusive);
    let (held, _) = scene.open(&mut holder, false);
    let (waiting, key) = scene.open(&mut waiter, true);
    let (behind, _) = scene.open(&mut next, false);
    scene.lock(&mut holder, held, lock, 0);
    let wanted = scene.lock(&mut waiter, waiting, lock, 3_600_000);
    let last = scene.lock(&mut next, behind, lock, 3_600_000);
    let open = key.unwrap().file_id;

    // The holder gives up by an unlock, by closing its handle, or because its own grace is over.
    let how = scene.random.below(3);
    if how == 2 {
        scene.now = Time(moment.0 - GRACE_MS * 1_000);
        scene.lose(holder.connection, LossReason::Broken);
    }
    let mut had = None;
    // What expires does so at its moment, whether or not anything else happens then.
    let steps = if leaving == Leaving::Expires { vec![false] } else { vec![true, false] };
    for (at, is_leaving) in scene.schedule(moment, steps) {
        scene.now = at;
        if is_leaving || leaving == Leaving::Expires && at >= moment {
            had.get_or_insert_with(|| scene.locks(open));
        }
        match (is_leaving, leaving, how) {
            (true, Leaving::Breaks, _) => scene.lose(waiter.connection, LossReason::Broken),
            (true, Leaving::SaysFarewell, _) => scene.lose(waiter.connection, LossReason::Farewell),
            (true, ..) => scene.server.handle_policy(at, list.clone()),
            (false, _, 0) => drop(scene.ask(&mut holder, Unlock { handle: held, range: range.raw() })),
            (false, _, 1) => drop(scene.ask(&mut holder, Close { handle: held })),
            (false, ..) => scene.wake(),
        }
        scene.drain();
        scene.server.table().check_invariants();
        if let Some(had) = had {
            assert!(scene.locks(open) <= had, "seed {seed}, {leaving:?}: a lock for who is gone");
        }
    }
    let had = had.unwrap_or_else(|| scene.locks(open));
    assert!(
        had > 0 || !scene.is_locked(&waiter, wanted),
        "seed {seed}, {leaving:?}: it was told that it has it"
    );
    // Sooner or later the next one has it, and nothing is left of the waiter.
    for _ in 0..4 {
        scene.now = scene.now.after(seconds(30));
        scene.wake();
    }
    assert!(scene.is_locked(&next, last), "seed {seed}, {leaving:?}: the lock is lost");
    assert_eq!(scene.locks(open), 0, "seed {seed}, {leaving:?}");
    // Without a lock it is in nobody's way, and stays for its owner, if that may come back.
    let stays = matches!(leaving, Leaving::Breaks | Leaving::SaysFarewell) && had == 0;
    assert_eq!(scene.phase(open).is_some(), stays, "seed {seed}, {leaving:?}");
    had > 0
}

/// The list in which the waiter's entry is gone, or ends at `moment`.
fn list_without_waiter(leaving: Leaving, moment: Time) -> Policy {
    let (mut list, waiter) = (policy(), PublicKey([1; 32]));
    match leaving {
        Leaving::Expires => {
            let end = (1_700_000_000_000_000 + moment.0) / 1_000_000;
            list.clients.get_mut(&waiter).unwrap().expires_s = Some(end);
        }
        _ => drop(list.clients.remove(&waiter)),
    }
    list
}
