//! Both cores in one thread: a virtual clock, virtual channels that can delay, drop, cut and reorder between
//! channels, and a virtual file system. One seed determines a run.
//!
//! ```text
//!   ClientCore ── Send ──▶ Connection (FIFO each way, own delays) ──▶ handle_input ── ServerCore ── Effect ──▶ Disk
//! ```
//!
//! After each single input all outputs of that core are carried out; carrying one out only ever plans events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bowline::model::{
    Access, Allocation, AttributeChange, BootId, ByteRange, ChannelKind, ChannelNumber, Create, CreateId,
    Entropy as _, Epoch, Evidence, HandleId, InstanceId, Limits, LineId, LineSet, LockMode, Meanwhile,
    OpenId, OpenMode, Policy, Protection, ProtectionMinima, PublicKey, RequestId, ResumeKey, Rights,
    SessionId, StoreId, Suite, SuiteSet, SyncScope, Time, Verifier, len_u64,
};
use bowline::session::client::{
    Answer, ChannelStatus, ClientCore, ClientOutput, ClientSetup, ConnectFailure, FromServer, LineSetup,
    Operation, RequestError, SessionEvent, Terms, Ticket, ToServer,
};
use bowline::session::server::{
    BindDenial, Binding, ClientMessage, CommitId, ConnectionId, EffectId, ReleaseError, ServerCore,
    ServerKeys, ServerMessage, ServerNote, ServerOutput, ServerSetup, SessionFacts, StoredTable,
};
use bowline::session::{Input, LossReason};
use bowline::wire::control::{
    Allocate, Attach, Begin, Change, Close, IssueKey, Lock, LockWanted, Open, Purpose, Resume, Started, Stat,
    Sync, Target, Unlock, WelcomeAnswer,
};
use bowline::wire::data::{Append, Read, Write};
use bowline::wire::hello::{BindOffer, SessionOffer};
use bowline::wire::names::{Place, Remove};
use bowline::wire::{ClientControl, Message, ServerControl, ServerData};

use self::disk::Disk;
pub(crate) use self::network::LineSpec;
use self::network::{Connection, End, Line, LineState, Network, Record};
pub(crate) use self::seed::Seed;
use self::store::Store;

#[path = "pair/calls.rs"]
mod calls;
#[path = "pair/crash.rs"]
pub(crate) mod crash;
#[path = "pair/disk.rs"]
pub(crate) mod disk;
#[path = "pair/network.rs"]
mod network;
#[path = "pair/outage.rs"]
mod outage;
#[path = "pair/seed.rs"]
mod seed;
#[path = "pair/store.rs"]
mod store;
#[path = "pair/weather.rs"]
mod weather;

pub(crate) use self::calls::{OpenSpec, Outcome};
pub(crate) use self::weather::Cut;

/// What the cores pass through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload(Arc<Vec<u8>>);

impl Payload {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl std::ops::Deref for Payload {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl bowline::session::Payload for Payload {
    fn part(&self, start: u32, len: u32) -> Self {
        let start = usize::try_from(start).unwrap();
        Self::new(self[start..start + usize::try_from(len).unwrap()].to_vec())
    }
}

/// A client of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who(pub(crate) usize);

/// How many of the last events a failing run prints, where `BOWLINE_TRACE` does not say more.
const TRACE_LEN: usize = 120;
/// A core that wants this many time-outs at one moment spins.
const TIMEOUTS_MAX: u32 = 100;
/// The wall clock when the virtual clock shows 0.
const WALL_START_US: u64 = 1_700_000_000_000_000;
/// When a run starts.
const START: Time = Time(1_000_000);

/// A server, its clients and the world between them.
pub(crate) struct Pair {
    /// The server's core.
    pub(crate) server: ServerCore<Payload>,
    /// The server's file system.
    pub(crate) disk: Disk,
    /// What the server stores of its table.
    pub(crate) store: Store,
    /// How long a commit takes, in microseconds, and how much longer at most.
    pub(crate) store_us: (u64, u64),
    /// How long a piece of file work takes, in microseconds, and how much longer at most.
    pub(crate) disk_us: (u64, u64),
    /// Everything that the server's core gave to a writer.
    pub(crate) answers: Vec<Sent>,
    /// Requests that have arrived at the server, by their sessions and ids, and those of them that it has answered.
    arrived: BTreeMap<(SessionId, RequestId), bool>,
    /// How many copies of a request came while their original was executing, and how many after its answer.
    pub(crate) copies: (u64, u64),
    /// What the server's core has noted.
    pub(crate) notes: Vec<ServerNote>,
    /// What servers that start from now on, and sessions, say of their data store.
    pub(crate) life: (Epoch, Verifier),
    /// What the present server says of it.
    server_life: (Epoch, Verifier),
    /// What resumed handles are told, where it is not what the server says.
    pub(crate) meanwhile: Option<Meanwhile>,
    /// Bounds of clients that come from now on.
    pub(crate) client_limits: Limits,
    /// Sessions of which the server is to know nothing any more.
    forgotten: BTreeSet<SessionId>,
    clients: Vec<Client>,
    network: Network,
    /// Fresh handshakes that ask whether a session lives.
    asks: BTreeMap<ConnectionId, (Who, LineId)>,
    events: BTreeMap<(Time, u64), Event>,
    next_event: u64,
    now: Time,
    timeouts: u32,
    seed: u64,
    delays: Seed,
    trace: VecDeque<String>,
    trace_len: usize,
    trace_hash: u64,
}

/// A record that a core gave to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When.
    pub(crate) at: Time,
    /// Whose channel.
    pub(crate) who: Who,
    /// The channel.
    pub(crate) number: ChannelNumber,
    /// Its line.
    pub(crate) line: LineId,
    /// Kind of the channel.
    pub(crate) channel: ChannelKind,
    /// Whose request it is, if it is one of a client's.
    pub(crate) ticket: Option<Ticket>,
    /// The request.
    pub(crate) request: RequestId,
    /// Kind of the message.
    pub(crate) kind: u8,
    /// Length of the payload.
    pub(crate) len: u64,
    /// Whether it bears a resume key or a session secret.
    pub(crate) has_secret: bool,
}

struct Client {
    core: ClientCore<Payload>,
    identity: PublicKey,
    instance: InstanceId,
    session: SessionId,
    started: Started,
    /// Channels that the shell has a connection for.
    connections: BTreeMap<ChannelNumber, ConnectionId>,
    outcomes: BTreeMap<Ticket, Outcome>,
    /// Requests whose outcomes were taken out.
    taken: BTreeSet<Ticket>,
    events: Vec<(Time, SessionEvent)>,
    sent: Vec<Sent>,
    /// How many closes were sent: those need no credit.
    closes: u32,
    entropy: Seed,
    /// Its process has ended.
    is_dead: bool,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Arrives {
        connection: ConnectionId,
        at: End,
        record: Record,
    },
    /// An attempt to bind has taken as long as it may.
    AttemptOver {
        connection: ConnectionId,
        failure: ConnectFailure,
    },
    /// An end hears that its connection broke.
    Lost {
        connection: ConnectionId,
        at: End,
    },
    AskArrives {
        who: Who,
        line: LineId,
    },
    Asked {
        who: Who,
        lives: Option<bool>,
    },
    /// A handshake that is to start a session in place of `former` has reached the server.
    RestartArrives {
        who: Who,
        line: LineId,
        former: SessionId,
    },
    /// The client has its answer.
    Restarted {
        who: Who,
        line: LineId,
        begun: Option<Begun>,
    },
    Done {
        effect: EffectId,
    },
    Committed {
        commit: CommitId,
    },
}

/// A session that a server has started.
#[derive(Debug)]
struct Begun {
    connection: ConnectionId,
    session: SessionId,
    started: Started,
}

/// The server has one key.
pub(crate) const SERVER_KEYS: ServerKeys = ServerKeys { current: PublicKey([77; 32]), previous: None };

/// The server's life on its data store.
pub(crate) const EPOCH: Epoch = Epoch(1);

/// And the page cache that has what is acknowledged.
pub(crate) const VERIFIER: Verifier =
    Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 0 };

/// Three identities may use everything; tests take rights away.
pub(crate) fn policy() -> Policy {
    let clients = (1..=3).map(|name| {
        let access = Access {
            name: format!("client-{name}"),
            exports: [calls::export()].into(),
            rights: Rights::ALL,
            protection_min: Protection::Signed,
            expires_s: None,
        };
        (PublicKey([name; 32]), access)
    });
    Policy { clients: clients.collect() }
}

impl Pair {
    /// A server without clients.
    pub(crate) fn new(seed: u64) -> Self {
        Self::configured(seed, ProtectionMinima::default(), policy())
    }

    /// A server without clients, with settings of its own.
    pub(crate) fn configured(seed: u64, minima: ProtectionMinima, policy: Policy) -> Self {
        Self {
            server: new_server(
                seed,
                minima,
                policy,
                (EPOCH, VERIFIER),
                Store::default().load(START, true, |_| Evidence::default()),
            ),
            disk: Disk::default(),
            store: Store::default(),
            store_us: (50, 150),
            disk_us: (100, 200),
            answers: Vec::new(),
            arrived: BTreeMap::new(),
            copies: (0, 0),
            notes: Vec::new(),
            life: (EPOCH, VERIFIER),
            server_life: (EPOCH, VERIFIER),
            meanwhile: None,
            client_limits: Limits::default(),
            forgotten: BTreeSet::new(),
            clients: Vec::new(),
            network: Network::default(),
            asks: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            now: START,
            timeouts: 0,
            seed,
            delays: Seed::new(seed, 2),
            trace: VecDeque::new(),
            trace_len: std::env::var("BOWLINE_TRACE").map_or(TRACE_LEN, |len| len.parse().unwrap()),
            trace_hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Starts a session of identity `name` over these lines; its first channel is on the first line that may
    /// carry control.
    pub(crate) fn client(&mut self, name: u8, lines: &[LineSpec]) -> Who {
        let who = Who(self.clients.len());
        for (line, &spec) in (0..).map(LineId).zip(lines) {
            self.network.lines.insert((who, line), Line { spec, state: LineState::Up, failing: None });
        }
        let first = lines.iter().position(|line| line.role.carries(ChannelKind::Control)).unwrap();
        let first_line = LineId(u8::try_from(first).unwrap());
        let identity = PublicKey([name; 32]);
        let mut entropy = Seed::new(self.seed, 100 + len_u64(who.0));
        let instance = InstanceId(entropy.bytes().unwrap());
        let begun = self.start_session((who, first_line), (identity, instance), None);
        let Some(Begun { connection, session, started }) = begun else { self.fail("no session was started") };
        let setup = ClientSetup {
            limits: self.client_limits.clone(),
            lines: lines
                .iter()
                .map(|line| LineSetup { role: line.role, protection: line.protection })
                .collect(),
            first_line,
            terms: self.terms(session, &started),
        };
        self.clients.push(Client {
            core: ClientCore::new(self.now, setup),
            identity,
            instance,
            session,
            started,
            connections: BTreeMap::from([(ChannelNumber(0), connection)]),
            outcomes: BTreeMap::new(),
            taken: BTreeSet::new(),
            events: Vec::new(),
            sent: Vec::new(),
            closes: 0,
            entropy,
            is_dead: false,
        });
        self.drain_client(who);
        who
    }

    /// A client that has all its channels.
    pub(crate) fn complete_client(&mut self, name: u8, lines: &[LineSpec]) -> Who {
        let who = self.client(name, lines);
        self.run_until("all channels are bound", Duration::from_secs(10), |pair| {
            pair.core(who).is_complete()
                && pair.live(who, ChannelKind::Control).len() >= pair.controls_wanted(who)
        });
        who
    }

    /// The server's process ends, and a new one starts on its store: it knows nothing of the sessions before. Every
    /// connection breaks; what was not stored and file work that had not begun are gone.
    pub(crate) fn restart_server(&mut self) {
        self.restart(true, 0);
    }

    /// The same with the whole machine.
    pub(crate) fn reboot_server(&mut self) {
        self.restart(false, 0);
    }

    /// The same without its store.
    pub(crate) fn replace_server(&mut self) {
        self.store = Store::default();
        self.restart(true, 0);
    }

    /// The list of clients changes.
    pub(crate) fn change_policy(&mut self, policy: Policy) {
        self.note(format_args!("the list of clients changes"));
        self.server.handle_policy(self.now, policy);
        self.drain_server();
    }

    /// The server's administrator ends an open.
    pub(crate) fn release(&mut self, open: OpenId) -> Result<(), ReleaseError> {
        self.note(format_args!("the administrator ends {open:?}"));
        let released = self.server.handle_release(self.now, open);
        self.drain_server();
        released
    }

    /// The client closes its session.
    pub(crate) fn close_session(&mut self, who: Who) {
        self.clients[who.0].core.handle_close(self.now);
        self.drain_client(who);
    }

    /// What was held by the file system is executed, at once where the seed says so.
    pub(crate) fn release_disk(&mut self) {
        for effect in self.disk.release() {
            self.plan_work(effect);
        }
    }

    /// One event happens, or one core's time-out; false where nothing will ever happen.
    pub(crate) fn step(&mut self) -> bool {
        let event_at = self.events.first_key_value().map(|(&(at, _), _)| at);
        let (timeout_at, whose) = self.next_timeout();
        match (event_at, timeout_at) {
            (None, None) => return false,
            (Some(event_at), timeout_at) if timeout_at.is_none_or(|at| event_at <= at) => {
                self.advance(event_at);
                if let Some((_, event)) = self.events.pop_first() {
                    self.timeouts = 0;
                    self.happen(event);
                }
            }
            (_, Some(timeout_at)) => {
                self.advance(timeout_at);
                self.time_out(whose);
            }
            (Some(_), None) => {}
        }
        true
    }

    /// Runs until `condition`, `span` at most; panics with the seed and the last events where it does not come.
    pub(crate) fn run_until(&mut self, what: &str, span: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = self.now.after(span);
        while !condition(self) {
            if self.next_moment().is_none_or(|next| next > deadline) || !self.step() {
                self.fail(&format!("not within {span:?}: {what}"));
            }
        }
    }

    /// Runs for a time, whatever happens.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let deadline = self.now.after(span);
        while self.next_moment().is_some_and(|next| next <= deadline) {
            self.step();
        }
        self.advance(deadline);
    }

    /// One event happens, if there is one until `deadline`; else that is what the clock shows.
    pub(crate) fn step_until(&mut self, deadline: Time) -> bool {
        if self.next_moment().is_some_and(|next| next <= deadline) {
            return self.step();
        }
        self.advance(deadline);
        false
    }

    /// The virtual clock.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// A number that two runs share if they were the same.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace_hash
    }

    /// A client's core.
    pub(crate) fn core(&self, who: Who) -> &ClientCore<Payload> {
        &self.clients[who.0].core
    }

    /// A client's session.
    pub(crate) fn session(&self, who: Who) -> SessionId {
        self.clients[who.0].session
    }

    /// What a client's core has told.
    pub(crate) fn events(&self, who: Who) -> &[(Time, SessionEvent)] {
        &self.clients[who.0].events
    }

    /// What a client's core gave to writers.
    pub(crate) fn sent(&self, who: Who) -> &[Sent] {
        &self.clients[who.0].sent
    }

    /// A client's live channels of one kind.
    pub(crate) fn live(&self, who: Who, kind: ChannelKind) -> Vec<ChannelStatus> {
        let mut channels = self.core(who).channels();
        channels.retain(|channel| {
            channel.kind == kind && channel.state == bowline::session::client::ChannelState::Live
        });
        channels
    }

    /// When a channel of the client went down, and why.
    pub(crate) fn losses(&self, who: Who) -> Vec<(Time, ChannelNumber, LossReason)> {
        self.events(who)
            .iter()
            .filter_map(|(at, event)| match event {
                SessionEvent::ChannelDown { number, reason, .. } => Some((*at, *number, *reason)),
                _ => None,
            })
            .collect()
    }

    /// Panics with the seed and the last events.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let mut text = format!("{what}\nBOWLINE_SEED={} repeats it; the last events:\n", self.seed);
        for line in &self.trace {
            let _ = writeln!(text, "  {line}");
        }
        panic!("{text}");
    }

    /// Fails with the trace unless `holds`.
    pub(crate) fn check(&self, holds: bool, what: &str) {
        if !holds {
            self.fail(what);
        }
    }

    fn controls_wanted(&self, who: Who) -> usize {
        let lines = self
            .network
            .lines
            .iter()
            .filter(|((whose, _), line)| *whose == who && line.spec.role.carries(ChannelKind::Control));
        lines.count().min(2)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { connection, at, record } => self.arrive(connection, at, record),
            Event::AttemptOver { connection, failure } => self.fail_attempt(connection, failure),
            Event::Lost { connection, at } => self.lose(connection, at),
            Event::AskArrives { who, line } => self.ask(who, line),
            Event::Asked { who, .. } | Event::Restarted { who, .. } if self.clients[who.0].is_dead => {}
            Event::Asked { who, lives } => {
                self.note(format_args!("c{} hears whether its session lives: {lives:?}", who.0));
                self.clients[who.0].core.handle_asked(self.now, lives);
                self.drain_client(who);
            }
            Event::RestartArrives { who, line, former } => self.restart_arrives(who, line, former),
            Event::Restarted { who, line, begun } => self.restarted(who, line, begun),
            Event::Done { effect } => {
                let before = self.disk.writes.len();
                let Some(completion) = self.disk.finish(effect, self.life.0) else { return };
                match self.disk.writes.get(before) {
                    Some(write) => {
                        self.note(format_args!("{effect:?} has written {write}", write = write.brief()))
                    }
                    None => self.note(format_args!("{effect:?} is done")),
                }
                self.server.handle_completion(self.now, effect, completion);
                self.drain_server();
            }
            Event::Committed { commit } if self.store.is_full && self.store.refuse(commit) => {
                self.note(format_args!("{commit:?} is refused"));
                self.server.handle_commit_refused(self.now, commit);
                self.drain_server();
            }
            Event::Committed { commit } => {
                self.store.finish(commit);
                self.server.handle_committed(self.now, commit);
                self.drain_server();
            }
        }
    }

    fn time_out(&mut self, whose: Option<Who>) {
        self.timeouts += 1;
        self.check(self.timeouts < TIMEOUTS_MAX, "a core spins on its time-out");
        if let Some(who) = whose {
            self.clients[who.0].core.handle_timeout(self.now);
            self.drain_client(who);
        } else {
            self.server.handle_timeout(self.now);
            self.drain_server();
        }
    }

    fn next_timeout(&self) -> (Option<Time>, Option<Who>) {
        let clients = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| !client.is_dead)
            .filter_map(|(at, client)| Some((client.core.poll_timeout(self.now)?, Some(Who(at)))));
        let server = self.server.poll_timeout(self.now).map(|at| (at, None));
        clients.chain(server).min().map_or((None, None), |(at, whose)| (Some(at.max(self.now)), whose))
    }

    fn next_moment(&self) -> Option<Time> {
        let event_at = self.events.first_key_value().map(|(&(at, _), _)| at);
        event_at.into_iter().chain(self.next_timeout().0).min()
    }

    fn advance(&mut self, to: Time) {
        if to > self.now {
            self.now = to;
            self.timeouts = 0;
        }
    }

    fn plan(&mut self, at: Time, event: Event) {
        self.next_event += 1;
        self.events.insert((at.max(self.now), self.next_event), event);
    }

    fn plan_work(&mut self, effect: EffectId) {
        let (least, more) = self.disk_us;
        let takes = Duration::from_micros(least + self.delays.below(more + 1));
        self.plan(self.now.after(takes), Event::Done { effect });
    }

    fn drain_server(&mut self) {
        while let Some(output) = self.server.poll_output() {
            self.carry_out_server(output);
        }
    }

    fn carry_out_server(&mut self, output: ServerOutput<Payload>) {
        match output {
            ServerOutput::Send { connection, request, message, payload } => {
                self.send_to_client(connection, request, message, payload);
            }
            ServerOutput::Close { connection, reason, .. } => {
                self.note(format_args!("the server closes {connection:?}: {reason}"));
                if let Some(record) = self.network.connections.get_mut(&connection) {
                    record.server_end.is_closed = true;
                    self.carry(connection, End::Client, Record::Fin);
                }
            }
            ServerOutput::Effect { id, effect } => {
                self.note(format_args!("{id:?} begins: {}", disk::kind_of(&effect)));
                if !self.disk.begin(id, effect) {
                    self.plan_work(id);
                }
            }
            ServerOutput::CloseFile { open } => {
                let is_idle = self.disk.close(open);
                self.check(is_idle, &format!("{open:?} was closed while work of it was executing"));
            }
            ServerOutput::AdoptFile { open, file, .. } => self.disk.adopt(open, file),
            ServerOutput::Commit { commit, changes } => {
                self.note(format_args!("{commit:?} begins"));
                let (least, more) = self.store_us;
                let takes = Duration::from_micros(least + self.delays.below(more + 1));
                let at = self.store.begin(self.now, takes, commit, changes);
                self.plan(at, Event::Committed { commit });
            }
            ServerOutput::Note(note) => {
                self.note(format_args!("noted: {note:?}"));
                self.notes.push(note);
            }
        }
    }

    fn send_to_client(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        message: ServerMessage,
        payload: Option<Payload>,
    ) {
        if let (Some((who, line)), ServerMessage::Control(ServerControl::Welcome(welcome))) =
            (self.asks.remove(&connection), &message)
        {
            let lives = Some(welcome.answer == WelcomeAnswer::Lives);
            let at = self.now.after(self.delay(who, line));
            self.plan(at, Event::Asked { who, lives });
            return;
        }
        let Some(record) = self.network.connections.get(&connection) else { return };
        let (channel, kind) = match &message {
            ServerMessage::Control(message) => (ChannelKind::Control, message.kind()),
            ServerMessage::Data(message) => (ChannelKind::Data, message.kind()),
        };
        self.check(channel == record.kind, "the server gave a message to a channel that cannot carry it");
        let sent = Sent {
            at: self.now,
            who: record.client,
            number: record.number,
            line: record.line,
            channel: record.kind,
            ticket: None,
            request,
            kind,
            len: payload.as_ref().map_or(0, |payload| len_u64(payload.len())),
            has_secret: bears_secret(&message),
        };
        self.answers.push(sent);
        if let Some(is_answered) = self.arrived.get_mut(&(record.session, request)) {
            *is_answered = true;
        }
        let record = match message {
            ServerMessage::Control(ServerControl::Attached(_))
            | ServerMessage::Data(ServerData::Attached(_)) => Record::Attached,
            ServerMessage::Control(mut message) => {
                if let (ServerControl::Opened(opened), Some(told)) = (&mut message, self.meanwhile) {
                    opened.meanwhile = opened.meanwhile.map(|_| told);
                }
                Record::FromServer(input(request, RequestId::NONE, FromServer::Control(message), payload))
            }
            ServerMessage::Data(message) => {
                Record::FromServer(input(request, RequestId::NONE, FromServer::Data(message), payload))
            }
        };
        self.carry(connection, End::Client, record);
    }

    fn drain_client(&mut self, who: Who) {
        while let Some(output) = self.clients[who.0].core.poll_output() {
            self.carry_out_client(who, output);
        }
        let (requests, bytes) = self.core(who).in_flight();
        let limits = self.core(who).limits();
        let requests_max = limits.requests + self.clients[who.0].closes;
        self.check(requests <= requests_max && bytes <= limits.bytes, "the client exceeds its credit");
    }

    fn carry_out_client(&mut self, who: Who, output: ClientOutput<Payload>) {
        match output {
            ClientOutput::Connect { number, line, kind, protection } => {
                self.connect(who, number, line, (kind, protection));
            }
            ClientOutput::Ask { line } => self.begin_ask(who, line),
            ClientOutput::Restart { former } => self.begin_restart(who, former),
            ClientOutput::Send { number, ticket, request, settled, message, payload } => {
                self.send_to_server(who, number, (ticket, request, settled), message, payload);
            }
            ClientOutput::Disconnect { number } => {
                if let Some(connection) = self.clients[who.0].connections.remove(&number)
                    && let Some(record) = self.network.connections.get_mut(&connection)
                {
                    record.client_end.is_closed = true;
                    self.carry(connection, End::Server, Record::Fin);
                }
            }
            ClientOutput::Complete { ticket, outcome } => {
                self.note(format_args!(
                    "c{} request {} is complete: {}",
                    who.0,
                    ticket.0,
                    calls::brief(&outcome)
                ));
                let client = &mut self.clients[who.0];
                let is_first =
                    client.outcomes.insert(ticket, outcome).is_none() && !client.taken.contains(&ticket);
                self.check(is_first, "a request was answered twice");
            }
            ClientOutput::Event(event) => {
                self.note(format_args!("c{} event: {event:?}", who.0));
                let now = self.now;
                self.clients[who.0].events.push((now, event));
            }
        }
    }

    fn send_to_server(
        &mut self,
        who: Who,
        number: ChannelNumber,
        (ticket, request, settled): (Option<Ticket>, RequestId, RequestId),
        message: ToServer,
        payload: Option<Payload>,
    ) {
        let Some(&connection) = self.clients[who.0].connections.get(&number) else { return };
        let Some(record) = self.network.connections.get(&connection) else { return };
        let (channel, kind, has_secret) = match &message {
            ToServer::Control(message) => {
                let is_close = matches!(message, ClientControl::Close(_));
                self.clients[who.0].closes += u32::from(is_close);
                (ChannelKind::Control, message.kind(), matches!(message, ClientControl::Resume(_)))
            }
            ToServer::Data(message) => (ChannelKind::Data, message.kind(), false),
        };
        self.check(channel == record.kind, "the client gave a message to a channel that cannot carry it");
        let len = payload.as_ref().map_or(0, |payload| len_u64(payload.len()));
        let sent = Sent {
            at: self.now,
            who,
            number,
            line: record.line,
            channel,
            ticket,
            request,
            kind,
            len,
            has_secret,
        };
        self.clients[who.0].sent.push(sent);
        let message = match message {
            ToServer::Control(message) => ClientMessage::Control(message),
            ToServer::Data(message) => ClientMessage::Data(message),
        };
        self.carry(connection, End::Server, Record::FromClient(input(request, settled, message, payload)));
    }

    /// The id under which a request was sent.
    pub(crate) fn id_of(&self, who: Who, ticket: Ticket) -> RequestId {
        let sent = self.sent(who).iter().find(|sent| sent.ticket == Some(ticket));
        sent.unwrap_or_else(|| panic!("{ticket:?} was never sent")).request
    }

    fn note(&mut self, what: core::fmt::Arguments<'_>) {
        let line = format!("{:?} {what}", self.now);
        for byte in line.bytes() {
            self.trace_hash = (self.trace_hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace.len() >= self.trace_len {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }
}

fn new_server(
    seed: u64,
    minima: ProtectionMinima,
    policy: Policy,
    (epoch, verifier): (Epoch, Verifier),
    stored: StoredTable,
) -> ServerCore<Payload> {
    ServerCore::new(ServerSetup {
        limits: Limits::default(),
        server_keys: SERVER_KEYS,
        policy,
        minima,
        suites: SuiteSet::ALWAYS,
        entropy: Box::new(Seed::new(seed, 3)),
        wall_start_us: WALL_START_US,
        epoch,
        verifier,
        stored: Some(stored),
    })
    .unwrap()
}

fn input<M>(
    request: RequestId,
    settled: RequestId,
    message: M,
    payload: Option<Payload>,
) -> Input<M, Payload> {
    let payload_len = payload.as_ref().map_or(0, |payload| u32::try_from(payload.len()).unwrap());
    Input { request, settled, message: Ok(message), payload_len, payload }
}

fn bears_secret(message: &ServerMessage) -> bool {
    match message {
        ServerMessage::Control(ServerControl::Opened(opened)) => opened.key.is_some(),
        ServerMessage::Control(ServerControl::KeyIssued(issued)) => issued.key.is_some(),
        ServerMessage::Control(ServerControl::Granted(granted)) => granted.key.is_some(),
        ServerMessage::Control(ServerControl::Welcome(_)) => true,
        ServerMessage::Control(_) | ServerMessage::Data(_) => false,
    }
}
