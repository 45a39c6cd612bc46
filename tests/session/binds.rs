//! Binds in every phase of a session's end: asked for, chosen, put in force, before and after any of its ends and in
//! any order, by the session's own client and with copies of what it sent. Never is there a channel in a session that
//! has ended.
//!
//! `BOWLINE_SEED=n` runs that schedule alone; a failing run prints its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline::model::{
    AttemptNonce, Attributes, ChannelKind, ChannelNumber, Create, CreateId, Entropy as _, ExportPath,
    FileIdentity, InstanceId, Limits, OpenMode, Policy, Protection, PublicKey, RequestId, SessionId, Suite,
    Time, len_u64,
};
use bowline::session::server::{
    Binding, ClientMessage, Completion, ConnectionId, EffectId, ServerCore, ServerKeys, ServerMessage,
    ServerNote, ServerOutput, ServerSetup, SessionFacts,
};
use bowline::session::{Input, LossReason};
use bowline::wire::control::{Attach, Begin, Open, Purpose, Started, WelcomeAnswer};
use bowline::wire::hello::{BindOffer, SessionOffer};
use bowline::wire::{ServerControl, ServerData};

use super::pair::{EPOCH, Payload, SERVER_KEYS, Seed, VERIFIER, policy};

/// How many schedules there are; `BOWLINE_SCHEDULES` sets another number.
const SCHEDULES: u64 = 10_000;
const CONTROL: ConnectionId = ConnectionId(0);

/// One schedule.
struct Race {
    server: ServerCore<Payload>,
    seed: Seed,
    now: Time,
    session: SessionId,
    started: Started,
    next_connection: u64,
    next_number: u32,
    next_request: u64,
    /// Binds whose handshake is done and whose first record is to come; one may come more than once.
    chosen: Vec<Binding>,
    /// Connections that the core has made channels of the session, and not closed or lost since.
    live: BTreeSet<ConnectionId>,
    work: BTreeMap<EffectId, ()>,
    has_ended: bool,
    /// Binds that were put in force.
    bound: u64,
    /// Binds whose first record came after the session's end.
    late: u64,
    log: Vec<String>,
}

impl Race {
    fn new(seed: u64) -> Self {
        let mut server = ServerCore::new(ServerSetup {
            limits: Limits::default(),
            server_keys: SERVER_KEYS,
            policy: policy(),
            minima: bowline::model::ProtectionMinima::default(),
            suites: bowline::model::SuiteSet::ALWAYS,
            entropy: Box::new(Seed::new(seed, 1)),
            wall_start_us: 1_700_000_000_000_000,
            epoch: EPOCH,
            verifier: VERIFIER,
            stored: None,
        })
        .unwrap();
        let (now, client, offer) = (Time(1_000_000), PublicKey([1; 32]), SessionOffer::OURS);
        let choice = server.session_choice(now, &client, &offer).unwrap().unwrap();
        let facts = SessionFacts { server: SERVER_KEYS.current, client, offer, choice };
        let instance = InstanceId([1; 16]);
        let begin = Begin { offer, choice, instance, process_id: 7, purpose: Purpose::New { former: None } };
        server.handle_begin(now, CONTROL, &facts, RequestId::NONE, &begin).unwrap();
        let mut started = None;
        while let Some(output) = server.poll_output() {
            if let ServerOutput::Send {
                message: ServerMessage::Control(ServerControl::Welcome(welcome)), ..
            } = output
                && let WelcomeAnswer::Started(answer) = welcome.answer
            {
                started = Some(answer);
            }
        }
        Self {
            server,
            seed: Seed::new(seed, 2),
            now,
            session: choice.session,
            started: started.unwrap(),
            next_connection: 1,
            next_number: 1,
            next_request: 1,
            chosen: Vec::new(),
            live: BTreeSet::from([CONTROL]),
            work: BTreeMap::new(),
            has_ended: false,
            bound: 0,
            late: 0,
            log: Vec::new(),
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        self.now = self.now.after(Duration::from_millis(self.seed.below(50)));
        match self.seed.below(100) {
            0..30 => self.choose(),
            30..60 => self.attach(),
            60..68 => self.lose(LossReason::Broken),
            68..76 => self.lose(LossReason::Farewell),
            76..82 => self.open(),
            82..88 => self.finish_work(),
            88..92 => self.time_passes(),
            _ => self.end(),
        }
        self.drain();
        let channels = self.server.channels_len();
        assert_eq!(
            channels,
            self.live.len(),
            "the core's channels are those that it told of: {:#?}",
            self.log
        );
    }

    /// The handshake of a bind, up to the server's choice.
    fn choose(&mut self) {
        let kind = if self.seed.chance(30) { ChannelKind::Control } else { ChannelKind::Data };
        let offer = BindOffer {
            locator: self.started.locator,
            number: ChannelNumber(self.next_number),
            nonce: AttemptNonce(self.seed.bytes().unwrap()),
            kind,
            protection: Protection::Sealed,
            suite: Suite::ChaCha20Poly1305,
        };
        // Sometimes two attempts have one number.
        self.next_number += u32::from(self.seed.chance(80));
        let Some(facts) = self.server.bind_facts(&offer.locator) else {
            assert!(self.has_ended, "the locator of a session that lives is known");
            self.log.push("no such locator".into());
            return;
        };
        assert!(!self.has_ended, "the locator of an ended session is unknown: {:#?}", self.log);
        if let Ok(choice) = self.server.bind_choice(self.now, facts.session, &offer) {
            self.log.push(format!("chosen {:?}", offer.number));
            self.chosen.push(Binding { session: facts.session, offer, choice });
        }
    }

    /// The first record of a bind, however long ago its handshake was; sometimes it comes on two connections.
    fn attach(&mut self) {
        if self.chosen.is_empty() {
            return;
        }
        let at = usize::try_from(self.seed.below(len_u64(self.chosen.len()))).unwrap();
        let binding = if self.seed.chance(80) { self.chosen.swap_remove(at) } else { self.chosen[at] };
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.late += u64::from(self.has_ended);
        self.log.push(format!("attach {:?} as {connection:?}", binding.offer.number));
        let attach = Attach { offer: binding.offer, choice: binding.choice };
        self.server.handle_attach(self.now, connection, &binding, RequestId::NONE, &attach).ok();
        let (mut is_bound, mut is_closed) = (false, false);
        while let Some(output) = self.server.poll_output() {
            match &output {
                ServerOutput::Send {
                    connection: to,
                    message:
                        ServerMessage::Control(ServerControl::Attached(_))
                        | ServerMessage::Data(ServerData::Attached(_)),
                    ..
                } if *to == connection => is_bound = true,
                ServerOutput::Close { connection: closed, .. } if *closed == connection => is_closed = true,
                _ => {}
            }
            self.take(&output);
        }
        assert!(is_bound != is_closed, "a bind is in force, or its connection is closed");
        assert!(!(is_bound && self.has_ended), "a channel in a session that has ended: {:#?}", self.log);
        if is_bound {
            self.bound += 1;
            self.live.insert(connection);
        }
    }

    fn lose(&mut self, reason: LossReason) {
        let at = usize::try_from(self.seed.below(len_u64(self.live.len().max(1)))).unwrap();
        let Some(&connection) = self.live.iter().nth(at) else { return };
        self.log.push(format!("{connection:?} is lost: {reason:?}"));
        self.live.remove(&connection);
        self.server.handle_lost(self.now, connection, reason);
    }

    fn open(&mut self) {
        let id = self.next_request;
        self.next_request += 1;
        let open = Open {
            export: "data".parse().unwrap(),
            path: ExportPath::new(*b"a").unwrap(),
            mode: OpenMode::READ_WRITE,
            create: Create::Never,
            truncate: false,
            permissions: 0,
            lock: None,
            resumable: self.seed.chance(50),
            create_id: CreateId(self.seed.bytes().unwrap()),
            with_key: false,
            grace_ms: 0,
            guard: false,
        };
        let input = Input {
            request: RequestId(id),
            settled: RequestId::FIRST,
            message: Ok(ClientMessage::Control(open.into())),
            payload_len: 0,
            payload: None,
        };
        self.log.push("open".into());
        self.server.handle_input(self.now, CONTROL, input);
    }

    fn finish_work(&mut self) {
        let Some((effect, ())) = self.work.pop_first() else { return };
        let file = FileIdentity { device: 1, inode: effect.0, born_ns: 0 };
        self.log.push(format!("{effect:?} is done"));
        self.server.handle_completion(
            self.now,
            effect,
            Completion::Opened(Ok((file, Attributes::default()))),
        );
    }

    /// Long enough for what waits for its time, now and then.
    fn time_passes(&mut self) {
        self.now = self.now.after(Duration::from_secs(self.seed.below(90)));
        self.log.push(format!("it is {:?}", self.now));
        self.server.handle_timeout(self.now);
    }

    /// An end that is nobody's bind's.
    fn end(&mut self) {
        match self.seed.below(4) {
            0 => {
                self.log.push("the client says farewell".into());
                for connection in std::mem::take(&mut self.live) {
                    self.server.handle_lost(self.now, connection, LossReason::Farewell);
                }
            }
            1 => {
                self.log.push("the client is revoked".into());
                self.server.handle_policy(self.now, Policy::default());
            }
            2 => {
                self.log.push("the server's key is retired".into());
                let keys = ServerKeys { current: PublicKey([78; 32]), previous: None };
                self.server.handle_server_keys(self.now, keys);
            }
            _ => {
                self.log.push("the server stops".into());
                self.server.handle_stop(self.now);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            self.take(&output);
        }
    }

    fn take(&mut self, output: &ServerOutput<Payload>) {
        match output {
            ServerOutput::Close { connection, .. } => drop(self.live.remove(connection)),
            ServerOutput::Effect { id, .. } => drop(self.work.insert(*id, ())),
            ServerOutput::Note(ServerNote::SessionEnded { session, .. }) if *session == self.session => {
                self.log.push("the session has ended".into());
                self.has_ended = true;
                assert!(self.live.is_empty(), "{:?} outlive the session: {:#?}", self.live, self.log);
            }
            ServerOutput::Note(ServerNote::ChannelBound { session, .. }) => {
                assert!(*session == self.session && !self.has_ended, "{:#?}", self.log);
            }
            ServerOutput::Send { .. } => {
                assert!(!self.has_ended, "something is said in a session that has ended: {:#?}", self.log);
            }
            _ => {}
        }
    }
}

#[test]
fn t28_no_bind_reaches_a_session_that_has_ended_in_ten_thousand_schedules() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let count = number("BOWLINE_SCHEDULES").unwrap_or(SCHEDULES);
    let seeds = number("BOWLINE_SEED").map_or(0..count, |seed| seed..seed + 1);
    let (mut ended, mut bound, mut late) = (0, 0, 0);
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| {
            let mut race = Race::new(seed);
            for _ in 0..40 {
                race.step();
            }
            // Whatever is still under way comes after all.
            while !race.chosen.is_empty() {
                race.attach();
            }
            assert!(!race.has_ended || race.server.channels_len() == 0);
            (race.has_ended, race.bound, race.late)
        });
        let Ok((has_ended, binds, late_binds)) = outcome else { panic!("BOWLINE_SEED={seed} repeats it") };
        ended += u64::from(has_ended);
        bound += binds;
        late += late_binds;
    }
    let all = seeds.end - seeds.start;
    if all >= 100 {
        // The schedules are about what they are meant to be about.
        let is_so = ended > all / 10 * 9 && bound > all && late > all;
        assert!(is_so, "{ended}, {bound}, {late} of {all}");
    }
}
