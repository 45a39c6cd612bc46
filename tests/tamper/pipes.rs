//! Both cores over real handshakes, sealers and openers, and pipes in memory on which somebody sits: one thread, a
//! virtual clock that moves only when nothing else does, and a virtual disk.
//!
//! ```text
//!   ClientCore ── RecordWriter ── frames ──(the attacker)── frames ── RecordReader ── ServerCore ── Disk
//! ```
//!
//! What this shell does with cores, readers and writers is what the shells in `client` and `server` do.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use bowline::model::{
    Access, AttemptNonce, BootId, ByteRange, ChannelKind, ChannelNumber, Create, CreateId, Entropy as _,
    Epoch, ExportPath, HandleId, InstanceId, Limits, LineId, LineRole, LineSet, LockMode, OpenMode, Policy,
    Protection, ProtectionMinima, RequestId, Rights, SessionId, StoreId, Suite, SuiteSet, Time, Verifier,
    len_u64,
};
use bowline::secure::{BindInitiator, BindResponder, Identity, SessionInitiator, SessionResponder, suites};
use bowline::session::client::{
    Answer, ChannelState, ChannelStatus, ClientCore, ClientOutput, ClientSetup, ConnectFailure, FromServer,
    LineSetup, Operation, RequestError, SessionEvent, Terms, Ticket, ToServer,
};
use bowline::session::server::{
    Binding, ClientMessage, ConnectionId, ServerCore, ServerKeys, ServerNote, ServerOutput, ServerSetup,
    SessionFacts,
};
use bowline::session::{Input, LossReason};
use bowline::wire::control::{Attach, Begin, Lock, LockWanted, Open, Purpose, Started, Stat, WelcomeAnswer};
use bowline::wire::data::{Read, Write};
use bowline::wire::hello::{BindChoice, BindOffer, Hello, SessionOffer};
use bowline::wire::{ClientControl, ClientData, ServerControl, ServerData};
use bytes::Bytes;

use self::disk::Disk;
use self::wire::{Connection, Greeted, control, data, reason};
use super::link::End;
use super::seed::Seed;

#[path = "../support/pair/disk.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
pub(crate) mod disk;
#[path = "pipes/wire.rs"]
mod wire;

pub(crate) use self::wire::{Attack, Hit, Sent};

/// What the cores pass through.
pub(crate) type Payload = Bytes;
/// What came of a request.
pub(crate) type Outcome = Result<Answer<Payload>, RequestError>;

/// A server, a client, and whoever sits between them.
pub(crate) struct World {
    pub(crate) server: ServerCore<Payload>,
    pub(crate) disk: Disk,
    pub(crate) client: ClientCore<Payload>,
    pub(crate) attack: Option<Attack>,
    /// Everything that was delivered.
    pub(crate) sent: Vec<Sent>,
    pub(crate) events: Vec<SessionEvent>,
    pub(crate) notes: Vec<ServerNote>,
    pub(crate) outcomes: BTreeMap<Ticket, Outcome>,
    /// What ends of the server's channels the server's shell has seen.
    pub(crate) server_losses: Vec<(ChannelNumber, LossReason)>,
    identities: (Identity, Identity),
    session: SessionId,
    started: Started,
    /// Of data channels.
    suite: Suite,
    connections: BTreeMap<ConnectionId, Connection>,
    entropy: Seed,
    now: Time,
    next: u64,
}

const EXPORT: &str = "data";
const NO_REQUEST: (RequestId, RequestId) = (RequestId::NONE, RequestId::FIRST);

impl World {
    /// A session over two lines with all its channels, those for data in this mode, and a file of this content under the name `a`.
    pub(crate) fn new((protection, suite): (Protection, Suite), content: &[u8]) -> Self {
        let mut entropy = Seed::new(1, 40);
        let identities =
            (Identity::generate(&mut entropy).unwrap(), Identity::generate(&mut entropy).unwrap());
        let mut server = new_server(&identities);
        let instance = InstanceId([9; 16]);
        let (mut connection, begin) = greet_session(&mut server, &identities, instance, &mut entropy);
        connection.up.frames.extend(begin);
        let placeholder = ClientSetup {
            limits: Limits::default(),
            lines: Vec::new(),
            first_line: LineId(0),
            terms: Terms::new(SessionId([0; 16]), &no_session()),
        };
        let mut world = Self {
            server,
            disk: Disk::default(),
            client: ClientCore::new(Time(1_000_000), placeholder),
            attack: None,
            sent: Vec::new(),
            events: Vec::new(),
            notes: Vec::new(),
            outcomes: BTreeMap::new(),
            server_losses: Vec::new(),
            identities,
            session: SessionId([0; 16]),
            started: no_session(),
            suite,
            connections: BTreeMap::from([(ConnectionId(0), connection)]),
            entropy,
            now: Time(1_000_000),
            next: 1,
        };
        world.disk.put("a", content.to_vec());
        while world.deliver() {}
        let line = LineSetup { role: LineRole::Both, protection };
        let terms = Terms::new(world.session, &world.started);
        let limits = Limits::default();
        let setup = ClientSetup { limits, lines: vec![line; 2], first_line: LineId(0), terms };
        world.client = ClientCore::new(world.now, setup);
        world.drain_client();
        world.run_until(|world| world.client.is_complete() && world.live(ChannelKind::Control).len() == 2);
        world
    }

    /// Delivers, and lets time pass where nothing else happens, until it is so.
    pub(crate) fn run_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let limit = self.now.after(Duration::from_secs(60));
        while !is_so(self) {
            if !self.deliver() {
                self.pass_time();
                assert!(self.now < limit, "it takes over 60 s: {:?}, {:?}", self.events, self.notes);
            }
        }
    }

    /// Everything that is on its way arrives, and what follows from it.
    pub(crate) fn settle(&mut self) {
        while self.deliver() {}
    }

    /// Time passes until the next thing that either core waits for.
    pub(crate) fn pass_time(&mut self) {
        let next = self.client.poll_timeout(self.now).into_iter().chain(self.server.poll_timeout(self.now));
        self.now = next.min().expect("a core always waits for something").max(self.now.after(MOMENT));
        self.client.handle_timeout(self.now);
        self.drain_client();
        self.server.handle_timeout(self.now);
        self.drain_server();
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Live channels of one kind, oldest first.
    pub(crate) fn live(&self, kind: ChannelKind) -> Vec<ChannelStatus> {
        let mut channels = self.client.channels();
        channels.retain(|channel| channel.kind == kind && channel.state == ChannelState::Live);
        channels
    }

    /// The channels that the client has lost, and why.
    pub(crate) fn losses(&self) -> Vec<(ChannelNumber, LossReason)> {
        let losses = self.events.iter().filter_map(|event| match event {
            SessionEvent::ChannelDown { number, reason, .. } => Some((*number, *reason)),
            _ => None,
        });
        losses.collect()
    }

    /// Everything that a client can have at the server: sessions, opens, holders, locks, bytes, and how often
    /// something was written.
    pub(crate) fn state(&self) -> String {
        let table = self.server.table();
        table.check_invariants();
        let mut opens: Vec<_> = table.opens().map(|open| format!("{open:?}")).collect();
        let mut holders: Vec<_> =
            table.holders().map(|holder| format!("{holder:?} {:?}", table.locks(holder.open))).collect();
        opens.sort();
        holders.sort();
        let mut hasher = std::hash::DefaultHasher::new();
        self.disk.bytes("a").hash(&mut hasher);
        let (bytes, writes) = (hasher.finish(), self.disk.writes.len());
        format!("{} {opens:?} {holders:?} {bytes:x} {writes}", self.server.sessions_len())
    }

    /// Opens the file, and locks its second half.
    pub(crate) fn open(&mut self) -> HandleId {
        let open = Open {
            export: EXPORT.parse().unwrap(),
            path: ExportPath::new("a").unwrap(),
            mode: OpenMode::READ_WRITE,
            create: Create::Never,
            truncate: false,
            permissions: 0,
            lock: None,
            resumable: true,
            create_id: CreateId(self.entropy.bytes().unwrap()),
            with_key: true,
            grace_ms: 0,
            guard: false,
        };
        let ticket = self.request(Operation::Control(open.into()));
        self.run_until(|world| world.outcomes.contains_key(&ticket));
        let handle = match &self.outcomes[&ticket] {
            Ok(Answer::Control(ServerControl::Opened(opened), _)) => opened.handle,
            other => panic!("{other:?}"),
        };
        let range = ByteRange::between(1 << 20, 1 << 21).unwrap().raw();
        let wanted = LockWanted { mode: LockMode::Exclusive, range };
        let ticket = self.request(Operation::Control(Lock { handle, wanted, wait_ms: 0 }.into()));
        self.run_until(|world| world.outcomes.contains_key(&ticket));
        assert!(self.outcomes[&ticket].is_ok());
        handle
    }

    pub(crate) fn stat(&mut self, handle: HandleId) -> Ticket {
        self.request(Operation::Control(Stat { handle }.into()))
    }

    pub(crate) fn read(&mut self, handle: HandleId, offset: u64, len: u32) -> Ticket {
        self.request(Operation::Read(Read { handle, offset, len }))
    }

    pub(crate) fn write(&mut self, handle: HandleId, offset: u64, bytes: Vec<u8>) -> Ticket {
        let len = u32::try_from(bytes.len()).unwrap();
        self.request(Operation::Write(Write { handle, offset }, Payload::from(bytes), len))
    }

    /// The client closes its session.
    pub(crate) fn close(&mut self) {
        self.client.handle_close(self.now);
        self.drain_client();
    }

    fn request(&mut self, operation: Operation<Payload>) -> Ticket {
        let ticket = self.client.handle_request(self.now, operation, LineSet::ALL);
        self.drain_client();
        ticket
    }

    /// Delivers one record, or an end, of some connection; false where nothing is on its way.
    fn deliver(&mut self) -> bool {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            if self.deliver_up(id) || self.deliver_down(id) {
                return true;
            }
        }
        false
    }

    fn deliver_up(&mut self, id: ConnectionId) -> bool {
        let connection = self.connections.get_mut(&id).unwrap();
        let number = connection.number;
        if !connection.up.step((number, End::Client), &mut self.attack, &mut self.sent) {
            return false;
        }
        let read = std::mem::take(&mut *connection.up.read.lock().unwrap());
        for outcome in read {
            match outcome {
                Ok(input) => self.at_server(id, input),
                Err(error) => self.end_at_server(id, reason(&error)),
            }
            self.drain_server();
        }
        true
    }

    fn deliver_down(&mut self, id: ConnectionId) -> bool {
        let connection = self.connections.get_mut(&id).unwrap();
        let number = connection.number;
        if !connection.down.step((number, End::Server), &mut self.attack, &mut self.sent) {
            return false;
        }
        let read = std::mem::take(&mut *connection.down.read.lock().unwrap());
        for outcome in read {
            match outcome {
                Ok(input) => self.at_client(id, input),
                Err(error) => self.end_at_client(id, reason(&error)),
            }
            self.drain_client();
        }
        true
    }

    fn at_server(&mut self, id: ConnectionId, input: Input<ClientMessage, Payload>) {
        let connection = self.connections.get_mut(&id).unwrap();
        if connection.up.is_over {
            return;
        }
        match (connection.greeted.take(), &input.message) {
            (None, _) => drop(self.server.handle_input(self.now, id, input)),
            (Some(Greeted::Session(facts)), Ok(ClientMessage::Control(ClientControl::Begin(begin)))) => {
                self.server.handle_begin(self.now, id, &facts, input.request, begin).ok();
            }
            (
                Some(Greeted::Bind(binding)),
                Ok(
                    ClientMessage::Control(ClientControl::Attach(attach))
                    | ClientMessage::Data(ClientData::Attach(attach)),
                ),
            ) => drop(self.server.handle_attach(self.now, id, &binding, input.request, attach).ok()),
            (Some(_), other) => panic!("{other:?} is no beginning"),
        }
    }

    fn at_client(&mut self, id: ConnectionId, input: Input<FromServer, Payload>) {
        let connection = self.connections.get_mut(&id).unwrap();
        if connection.down.is_over {
            return;
        }
        let number = connection.number;
        if connection.is_bound {
            self.client.handle_input(self.now, number, input);
            return;
        }
        connection.is_bound = true;
        match input.message {
            Ok(FromServer::Control(ServerControl::Welcome(welcome))) => match welcome.answer {
                WelcomeAnswer::Started(started) => {
                    (self.session, self.started) = (welcome.choice.session, started);
                }
                other => panic!("{other:?}"),
            },
            Ok(
                FromServer::Control(ServerControl::Attached(attached))
                | FromServer::Data(ServerData::Attached(attached)),
            ) => self.client.handle_bound(self.now, number, attached.choice.protection),
            other => panic!("{other:?} is no beginning"),
        }
    }

    /// The server's shell drops the connection.
    fn end_at_server(&mut self, id: ConnectionId, reason: LossReason) {
        let connection = self.connections.get_mut(&id).unwrap();
        if connection.up.is_over {
            return;
        }
        (connection.up.is_over, connection.down.is_ending) = (true, true);
        self.server_losses.push((connection.number, reason));
        self.server.handle_lost(self.now, id, reason);
    }

    /// The client's shell drops the connection.
    fn end_at_client(&mut self, id: ConnectionId, reason: LossReason) {
        let connection = self.connections.get_mut(&id).unwrap();
        if connection.down.is_over {
            return;
        }
        (connection.down.is_over, connection.up.is_ending) = (true, true);
        let number = connection.number;
        if connection.is_bound {
            self.client.handle_lost(self.now, number, reason);
        } else {
            self.client.handle_connect_failed(self.now, number, ConnectFailure::Refused);
        }
    }

    fn drain_client(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Connect { number, kind, protection, .. } => {
                    self.bind(number, kind, protection);
                }
                ClientOutput::Ask { .. } => self.client.handle_asked(self.now, None),
                ClientOutput::Restart { .. } => {
                    self.client.handle_restart_failed(self.now, ConnectFailure::Unreachable);
                }
                ClientOutput::Send { number, request, settled, message, payload, .. } => {
                    if let Some((_, connection)) = self.channel(number)
                        && !connection.down.is_over
                    {
                        let frames = (connection.seal_up)(message, (request, settled), payload);
                        connection.up.frames.extend(frames);
                    }
                }
                ClientOutput::Disconnect { number } => {
                    if let Some((_, connection)) = self.channel(number) {
                        (connection.down.is_over, connection.up.is_ending) = (true, true);
                    }
                }
                ClientOutput::Complete { ticket, outcome } => {
                    assert!(self.outcomes.insert(ticket, outcome).is_none(), "{ticket:?} was answered twice");
                }
                ClientOutput::Event(event) => self.events.push(event),
            }
        }
    }

    fn drain_server(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { connection: id, request, message, payload } => {
                    let len = payload.as_ref().map_or(0, |payload| len_u64(payload.len()));
                    let connection = self.connections.get_mut(&id).unwrap();
                    if !connection.up.is_over {
                        let frames = (connection.seal_down)(message, (request, RequestId::NONE), payload);
                        connection.down.frames.extend(frames);
                    }
                    if len > 0 {
                        self.server.handle_written(id, len);
                    }
                }
                ServerOutput::Close { connection, .. } => {
                    let connection = self.connections.get_mut(&connection).unwrap();
                    (connection.up.is_over, connection.down.is_ending) = (true, true);
                }
                ServerOutput::Effect { id, effect } => {
                    self.disk.begin(id, effect);
                    let completion = self.disk.finish(id, Epoch(1)).unwrap();
                    self.server.handle_completion(self.now, id, completion);
                }
                ServerOutput::CloseFile { open } => drop(self.disk.close(open)),
                ServerOutput::Commit { .. } | ServerOutput::AdoptFile { .. } => {
                    panic!("nothing is stored here")
                }
                ServerOutput::Drained => {}
                ServerOutput::Note(note) => self.notes.push(note),
            }
        }
    }

    fn channel(&mut self, number: ChannelNumber) -> Option<(ConnectionId, &mut Connection)> {
        let found = self.connections.iter_mut().find(|(_, connection)| connection.number == number);
        found.map(|(&id, connection)| (id, connection))
    }

    /// A bind, up to its first record.
    fn bind(&mut self, number: ChannelNumber, kind: ChannelKind, protection: Protection) {
        let (server, client) = (&self.identities.1, &self.identities.0);
        let (locator, secret) = (self.started.locator, self.started.secret.clone());
        let nonce = AttemptNonce(self.entropy.bytes().unwrap());
        let suite = if kind == ChannelKind::Data { self.suite } else { Suite::ChaCha20Poly1305 };
        let offer = BindOffer { locator, number, nonce, kind, protection, suite };
        let key = server.public();
        let (initiator, hello) =
            BindInitiator::begin(client, &key, &secret, self.session, offer, &mut self.entropy).unwrap();
        let hello = Hello::decode(&hello).unwrap();
        let Some(facts) = self.server.bind_facts(&locator) else {
            self.client.handle_connect_failed(self.now, number, ConnectFailure::Refused);
            return;
        };
        let (session, whose) = (facts.session, facts.client);
        let responder =
            BindResponder::read(server, &whose, &facts.secret, session, &hello, &mut self.entropy).unwrap();
        let choice = self.server.bind_choice(self.now, session, &offer).expect("nothing speaks against it");
        let (message2, server_keys) = responder.finish(choice).unwrap();
        let (_, client_keys) = initiator.finish(&message2[2..]).unwrap();
        let greeted = Greeted::Bind(Binding { session, offer, choice });
        let channel = (number, choice.protection);
        let mut connection = match kind {
            ChannelKind::Control => control(greeted, channel, client_keys, server_keys),
            ChannelKind::Data => data(greeted, channel, client_keys, server_keys),
        };
        let attach = attach(kind, offer, choice);
        connection.up.frames.extend((connection.seal_up)(attach, NO_REQUEST, None));
        self.connections.insert(ConnectionId(self.next), connection);
        self.next += 1;
    }
}

/// The clock moves at least so far, so that nothing turns on the spot.
const MOMENT: Duration = Duration::from_micros(1);

fn attach(kind: ChannelKind, offer: BindOffer, choice: BindChoice) -> ToServer {
    let attach = Attach { offer, choice };
    match kind {
        ChannelKind::Control => ToServer::Control(attach.into()),
        ChannelKind::Data => ToServer::Data(attach.into()),
    }
}

fn new_server((client, server): &(Identity, Identity)) -> ServerCore<Payload> {
    let access = Access {
        name: "client".into(),
        exports: [EXPORT.parse().unwrap()].into(),
        rights: Rights::ALL,
        protection_min: Protection::Clear,
        expires_s: None,
    };
    ServerCore::new(ServerSetup {
        limits: Limits::default(),
        policy: Policy { clients: [(client.public(), access)].into() },
        server_keys: ServerKeys { current: server.public(), previous: None },
        minima: ProtectionMinima { server: Protection::Clear, ..ProtectionMinima::default() },
        suites: suites(),
        entropy: Box::new(Seed::new(2, 40)),
        wall_start_us: 1_700_000_000_000_000,
        epoch: Epoch(1),
        verifier: VERIFIER,
        stored: None,
    })
    .unwrap()
}

/// The handshake of a session, up to its first record, which is sealed.
fn greet_session(
    core: &mut ServerCore<Payload>,
    (client, server): &(Identity, Identity),
    instance: InstanceId,
    entropy: &mut Seed,
) -> (Connection, Vec<Vec<u8>>) {
    let offer = SessionOffer::OURS;
    let (initiator, hello) = SessionInitiator::begin(client, &server.public(), offer, entropy).unwrap();
    let responder = SessionResponder::read(server, &Hello::decode(&hello).unwrap(), entropy).unwrap();
    let client = responder.client();
    let choice = core.session_choice(Time(1_000_000), &client, &offer).unwrap().unwrap();
    let (message2, server_keys) = responder.finish(choice).unwrap();
    let (_, client_keys) = initiator.finish(&message2[2..]).unwrap();
    let greeted = Greeted::Session(SessionFacts { server: server.public(), client, offer, choice });
    let channel = (ChannelNumber(0), Protection::Sealed);
    let mut connection = control(greeted, channel, client_keys, server_keys);
    let begin = Begin { offer, choice, instance, process_id: 7, purpose: Purpose::New { former: None } };
    let begin = (connection.seal_up)(ToServer::Control(begin.into()), NO_REQUEST, None);
    (connection, begin)
}

/// What there is before the server's first record has come.
fn no_session() -> Started {
    Started {
        locator: bowline::model::Locator([0; 16]),
        secret: bowline::wire::control::BindSecret([0; 32]),
        requests: 1,
        bytes: 1,
        payload_max: 1,
        suites: SuiteSet::ALWAYS,
        epoch: Epoch(1),
        verifier: VERIFIER,
    }
}

const VERIFIER: Verifier = Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 0 };
