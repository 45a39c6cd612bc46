//! Clients that break the protocol: the server's core alone, driven record by record. The channel on which it
//! happens is closed; the others live. And a disk that fails.

use bowline::model::{
    AttemptNonce, Attributes, ByteRange, ChannelKind, ChannelNumber, Create, CreateId, ExportPath,
    FileIdentity, HandleId, InstanceId, Limits, LockMode, OpenMode, Protection, ProtectionMinima, PublicKey,
    Reason, Refusal, RequestId, Suite, SyncScope, Time,
};
use bowline::session::server::{
    BindDenial, Binding, ClientMessage, Completion, ConnectionId, Effect, EffectId, Offence, ServerCore,
    ServerKeys, ServerMessage, ServerNote, ServerOutput, ServerSetup, SessionFacts,
};
use bowline::session::{Input, LossReason, UnknownKind};
use bowline::wire::control::{
    Attach, Begin, Close, IssueKey, KeyIssued, Lock, LockWanted, Open, Opened, Purpose, Refused, Resume,
    Stat, Sync, Synced, WelcomeAnswer,
};
use bowline::wire::data::{Ping, Read, Write};
use bowline::wire::hello::{BindOffer, SessionChoice, SessionOffer};
use bowline::wire::notices::Heard;
use bowline::wire::{ClientControl, ClientData, ServerControl, ServerData};

use super::pair::{EPOCH, Payload, SERVER_KEYS, Seed, VERIFIER, policy};

const NOW: Time = Time(5_000_000);
const CONTROL: ConnectionId = ConnectionId(0);
const DATA: ConnectionId = ConnectionId(1);
const OTHER: ConnectionId = ConnectionId(2);

/// A server, one session with a control channel and two data channels, and an open file.
struct Bare {
    server: ServerCore<Payload>,
    facts: SessionFacts,
    begin: Begin,
    protection: Protection,
    handle: HandleId,
    /// Work that was begun and not reported.
    work: Vec<(EffectId, Effect<Payload>)>,
    sent: Vec<(ConnectionId, RequestId, ServerMessage)>,
    closed: Vec<ConnectionId>,
    notes: Vec<ServerNote>,
    next: u64,
}

impl Bare {
    fn new() -> Self {
        Self::with(Protection::Sealed)
    }

    /// Data channels have this protection.
    fn with(protection: Protection) -> Self {
        let mut policy = policy();
        policy.clients.values_mut().for_each(|access| access.protection_min = protection);
        let mut server = ServerCore::new(ServerSetup {
            limits: Limits::default(),
            server_keys: SERVER_KEYS,
            policy,
            minima: ProtectionMinima { server: protection, ..ProtectionMinima::default() },
            suites: bowline::model::SuiteSet::ALWAYS,
            entropy: Box::new(Seed::new(1, 1)),
            wall_start_us: 1_700_000_000_000_000,
            epoch: EPOCH,
            verifier: VERIFIER,
            stored: None,
        })
        .unwrap();
        let (client, offer) = (PublicKey([1; 32]), SessionOffer::OURS);
        let choice = server.session_choice(NOW, &client, &offer).unwrap().unwrap();
        let facts = SessionFacts { server: SERVER_KEYS.current, client, offer, choice };
        let instance = InstanceId([1; 16]);
        let begin = Begin { offer, choice, instance, process_id: 7, purpose: Purpose::New { former: None } };
        server.handle_begin(NOW, CONTROL, &facts, RequestId::NONE, &begin).ok();
        let mut bare = Self {
            server,
            facts,
            begin,
            protection,
            handle: HandleId(0),
            work: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            notes: Vec::new(),
            next: 1,
        };
        bare.drain();
        for (connection, number) in [(DATA, 1), (OTHER, 2)] {
            assert_eq!(bare.bind(connection, number, number), None);
        }
        bare.handle = bare.open(1);
        bare
    }

    fn bind(&mut self, connection: ConnectionId, number: u32, nonce: u32) -> Option<BindDenial> {
        let locator = self
            .sent
            .iter()
            .find_map(|(_, _, message)| match message {
                ServerMessage::Control(ServerControl::Welcome(welcome)) => match &welcome.answer {
                    WelcomeAnswer::Started(started) => Some(started.locator),
                    _ => None,
                },
                _ => None,
            })
            .unwrap();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&nonce.to_le_bytes());
        let offer = BindOffer {
            locator,
            number: ChannelNumber(number),
            nonce: AttemptNonce(bytes),
            kind: ChannelKind::Data,
            protection: self.protection,
            suite: Suite::ChaCha20Poly1305,
        };
        let session = self.server.bind_facts(&locator).unwrap().session;
        let before = self.notes.len();
        if let Ok(choice) = self.server.bind_choice(NOW, session, &offer) {
            let binding = Binding { session, offer, choice };
            let attach = Attach { offer, choice };
            self.server.handle_attach(NOW, connection, &binding, RequestId::NONE, &attach).ok();
        }
        self.drain();
        self.notes[before..].iter().find_map(|note| match note {
            ServerNote::BindRefused { why } => Some(*why),
            _ => None,
        })
    }

    /// A handle of an open of the one file; with the same number it is the same open.
    fn open(&mut self, number: u8) -> HandleId {
        let id = self.ask_open(number);
        let (effect, _) = self.work.pop().unwrap();
        let file = FileIdentity { device: 1, inode: 1, born_ns: 0 };
        self.done(effect, Completion::Opened(Ok((file, Attributes::default()))));
        match self.answer(id) {
            ServerMessage::Control(ServerControl::Opened(opened)) => opened.handle,
            other => panic!("{other:?}"),
        }
    }

    fn ask_open(&mut self, number: u8) -> RequestId {
        let open = Open {
            export: "data".parse().unwrap(),
            path: ExportPath::new(*b"a").unwrap(),
            mode: OpenMode::READ_WRITE,
            create: Create::Never,
            truncate: false,
            permissions: 0,
            lock: None,
            resumable: true,
            create_id: CreateId([number; 16]),
            with_key: false,
            grace_ms: 0,
            guard: false,
        };
        self.control(CONTROL, open)
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { connection, request, message, .. } => {
                    let is_control = matches!(message, ServerMessage::Control(_));
                    assert_eq!(is_control, connection == CONTROL, "{message:?} cannot go on {connection:?}");
                    self.sent.push((connection, request, message));
                }
                ServerOutput::Close { connection, .. } => self.closed.push(connection),
                ServerOutput::Effect { id, effect } => self.work.push((id, effect)),
                ServerOutput::Note(note) => self.notes.push(note),
                ServerOutput::CloseFile { .. } | ServerOutput::Drained => {}
                ServerOutput::Commit { .. } | ServerOutput::AdoptFile { .. } => {
                    panic!("nothing is stored here")
                }
            }
        }
    }

    fn done(&mut self, effect: EffectId, completion: Completion<Payload>) {
        self.server.handle_completion(NOW, effect, completion);
        self.drain();
    }

    /// Sends a record under any id.
    fn send(
        &mut self,
        connection: ConnectionId,
        request: u64,
        message: Result<ClientMessage, UnknownKind>,
        payload: Option<Payload>,
    ) {
        let payload_len = payload.as_ref().map_or(0, |payload| u32::try_from(payload.len()).unwrap());
        let (request, settled) = (RequestId(request), RequestId::FIRST);
        let input = Input { request, settled, message, payload_len, payload };
        self.server.handle_input(NOW, connection, input);
        self.drain();
    }

    fn control(&mut self, connection: ConnectionId, message: impl Into<ClientControl>) -> RequestId {
        let id = self.next;
        self.next += 1;
        self.send(connection, id, Ok(ClientMessage::Control(message.into())), None);
        RequestId(id)
    }

    fn data(
        &mut self,
        connection: ConnectionId,
        message: impl Into<ClientData>,
        payload: Option<Payload>,
    ) -> RequestId {
        let id = self.next;
        self.next += 1;
        self.send(connection, id, Ok(ClientMessage::Data(message.into())), payload);
        RequestId(id)
    }

    fn read(&mut self, connection: ConnectionId, len: u32) -> RequestId {
        let read = Read { handle: self.handle, offset: 0, len };
        self.data(connection, read, None)
    }

    fn answer(&self, request: RequestId) -> &ServerMessage {
        let answers: Vec<_> = self.sent.iter().filter(|(_, id, _)| *id == request).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        &answers[0].2
    }

    /// The offender's channel is closed and the offence is noted; the other channels still answer.
    fn assert_only_closed(&mut self, connection: ConnectionId, what: Offence) {
        assert_eq!(self.closed, [connection]);
        let noted = ServerNote::Offence { session: self.facts.choice.session, what };
        assert!(self.notes.contains(&noted), "{:?}", self.notes);
        for other in [CONTROL, DATA, OTHER] {
            let before = self.sent.len();
            let ping = Ping {};
            let message = if other == CONTROL {
                ClientMessage::Control(ping.into())
            } else {
                ClientMessage::Data(ping.into())
            };
            self.send(other, 0, Ok(message), None);
            assert_eq!(self.sent.len() - before, usize::from(other != connection), "{other:?}");
        }
        assert_eq!(self.server.table().holders_len(), 1, "the handle lives");
    }
}

#[test]
fn more_requests_than_twice_the_credit_close_the_channel() {
    let mut bare = Bare::new();
    let most = Limits::default().requests * Limits::CREDIT_SLACK;
    for _ in 0..most {
        bare.read(DATA, 1);
    }
    assert!(bare.closed.is_empty());
    bare.read(DATA, 1);
    assert_eq!(bare.work.len(), usize::try_from(most).unwrap());
    bare.assert_only_closed(DATA, Offence::OverCredit);
}

#[test]
fn f11_more_bytes_than_twice_the_credit_close_the_channel() {
    let mut bare = Bare::new();
    let most = Limits::default().bytes * u64::from(Limits::CREDIT_SLACK);
    for _ in 0..most >> 20 {
        bare.read(DATA, 1 << 20);
    }
    assert!(bare.closed.is_empty());
    bare.read(DATA, 1);
    bare.assert_only_closed(DATA, Offence::OverCredit);
}

/// Whoever takes an answer slowly keeps nobody waiting: not with a lock, not with the end of a handle.
#[test]
fn a_read_is_done_when_it_is_reported_whoever_takes_the_answer() {
    let mut bare = Bare::with(Protection::Clear);
    let other = bare.open(2);
    bare.read(DATA, (64 << 10) - 1);
    let (short, effect) = bare.work.pop().unwrap();
    assert!(matches!(effect, Effect::Read { may_lend: false, .. }), "sooner copied than lent: {effect:?}");
    bare.done(short, Completion::Read(Ok((Payload::new(vec![0; 100]), 100))));
    let read = bare.read(DATA, 64 << 10);
    let (lending, effect) = bare.work.pop().unwrap();
    assert!(matches!(effect, Effect::Read { may_lend: true, .. }), "{effect:?}");
    let range = ByteRange::between(50, 51).unwrap().raw();
    let wanted = LockWanted { mode: LockMode::Exclusive, range };
    let lock = bare.control(CONTROL, Lock { handle: other, wanted, wait_ms: 0 });
    let close = bare.control(CONTROL, Close { handle: bare.handle });
    let answered = |bare: &Bare, id| bare.sent.iter().any(|(_, request, _)| *request == id);
    assert!(!answered(&bare, lock) && !answered(&bare, close), "the file is still being read");
    bare.done(lending, Completion::Read(Ok((Payload::new(vec![0; 100]), 100))));
    // Nothing was written to the wire yet.
    assert!(matches!(bare.answer(read), ServerMessage::Data(ServerData::ReadDone(_))));
    assert!(matches!(bare.answer(lock), ServerMessage::Control(ServerControl::Locked(_))));
    assert!(matches!(bare.answer(close), ServerMessage::Control(ServerControl::Closed(_))));
}

#[test]
fn nothing_is_lent_to_a_channel_that_protects_payload() {
    for protection in [Protection::Signed, Protection::Sealed] {
        let mut bare = Bare::with(protection);
        bare.read(DATA, 100);
        assert!(matches!(bare.work.pop(), Some((_, Effect::Read { may_lend: false, .. }))));
    }
}

/// A client that asks and never reads the answers: they count until their buffers are free.
#[test]
fn answers_that_are_not_taken_count() {
    let mut bare = Bare::new();
    for at in 0..17 {
        assert!(bare.closed.is_empty(), "after {at}");
        bare.read(DATA, 1 << 20);
        if let Some((effect, _)) = bare.work.pop() {
            let bytes = Payload::new(vec![0; 1 << 20]);
            bare.done(effect, Completion::Read(Ok((bytes, 1 << 20))));
        }
    }
    bare.assert_only_closed(DATA, Offence::OverCredit);
    bare.server.handle_written(OTHER, 1 << 20);
    bare.read(OTHER, 1 << 20);
    assert_eq!(bare.closed, [DATA], "what the closed channel held is free again");
}

#[test]
fn t33_an_id_beyond_the_window_closes_the_channel() {
    let mut bare = Bare::new();
    let read = |handle| Ok(ClientMessage::Data(Read { handle, offset: 0, len: 1 }.into()));
    let width = Limits::default().window;
    // Settled is 1.
    bare.send(DATA, width, read(bare.handle), None);
    assert_eq!((bare.work.len(), bare.closed.len()), (1, 0));
    bare.send(DATA, width + 1, read(bare.handle), None);
    assert_eq!(bare.work.len(), 1);
    bare.assert_only_closed(DATA, Offence::RequestBeyondWindow);
}

/// A repeat by its id, and something else by what it says: the id counts. Ids may come in any order, and one that was left
/// out may still come.
#[test]
fn t33_an_id_that_is_used_again_for_something_else_executes_nothing() {
    let mut bare = Bare::new();
    let first = bare.next;
    let write = |offset| Ok(ClientMessage::Data(Write { handle: bare.handle, offset }.into()));
    let (one, other, close) = (write(0), write(4096), Close { handle: bare.handle });
    let bytes = |text: &str| Some(Payload::new(text.as_bytes().to_vec()));
    // One is left out.
    bare.send(DATA, first + 2, one.clone(), bytes("first"));
    bare.send(OTHER, first + 2, other.clone(), bytes("second"));
    bare.send(CONTROL, first + 2, Ok(ClientMessage::Control(close.clone().into())), None);
    assert_eq!(bare.work.len(), 1, "while it executes");
    let (effect, _) = bare.work.pop().unwrap();
    bare.done(effect, Completion::Written(Ok(5)));
    bare.send(OTHER, first + 2, other.clone(), bytes("second"));
    bare.send(CONTROL, first + 2, Ok(ClientMessage::Control(close.into())), None);
    assert!(bare.work.is_empty(), "after it was executed");
    let answers = bare.sent.iter().filter(|(_, id, _)| *id == RequestId(first + 2));
    for (_, _, answer) in answers {
        assert!(
            matches!(answer, ServerMessage::Data(ServerData::WriteDone(done)) if done.written == 5),
            "{answer:?}"
        );
    }
    assert_eq!(bare.server.table().holders_len(), 1, "nothing was closed");
    bare.send(DATA, first + 1, other, bytes("second"));
    assert!(matches!(bare.work[..], [(_, Effect::Write { offset: 4096, .. })]), "{:?}", bare.work);
}

/// One step back: what is below *settled* is over, whatever it says and whether it ever came.
#[test]
fn t33_an_id_that_was_settled_executes_nothing_and_is_not_answered() {
    let mut bare = Bare::new();
    let settled = bare.next + 2;
    let write = Write { handle: bare.handle, offset: 0 };
    for (connection, request) in [(DATA, settled - 1), (OTHER, 1), (DATA, settled)] {
        let message = Ok(ClientMessage::Data(write.into()));
        let (request, settled, payload) =
            (RequestId(request), RequestId(settled), Some(Payload::new(b"late".to_vec())));
        let input = Input { request, settled, message, payload_len: 4, payload };
        bare.server.handle_input(NOW, connection, input);
        bare.drain();
        assert_eq!(bare.work.len(), usize::from(request == settled));
    }
    assert!(bare.closed.is_empty() && bare.sent.iter().all(|(_, id, _)| id.0 < settled - 1));
}

#[test]
fn a_second_begin_or_attach_closes_the_channel() {
    let mut bare = Bare::new();
    let begin = ClientMessage::Control(bare.begin.clone().into());
    bare.send(CONTROL, 0, Ok(begin), None);
    bare.assert_only_closed(CONTROL, Offence::OutOfPlace);

    let mut bare = Bare::new();
    let offer = BindOffer {
        locator: bowline::model::Locator([1; 16]),
        number: ChannelNumber(9),
        nonce: AttemptNonce([9; 16]),
        kind: ChannelKind::Data,
        protection: Protection::Sealed,
        suite: Suite::ChaCha20Poly1305,
    };
    let choice =
        bowline::wire::hello::BindChoice { protection: Protection::Sealed, suite: Suite::ChaCha20Poly1305 };
    bare.send(DATA, 0, Ok(ClientMessage::Data(Attach { offer, choice }.into())), None);
    bare.assert_only_closed(DATA, Offence::OutOfPlace);
}

#[test]
fn a_payload_where_none_belongs_closes_the_channel() {
    let mut bare = Bare::new();
    let read = Read { handle: bare.handle, offset: 0, len: 1 };
    bare.data(DATA, read, Some(Payload::new(vec![1])));
    assert!(bare.work.is_empty());
    bare.assert_only_closed(DATA, Offence::OutOfPlace);
}

#[test]
fn an_unknown_kind_is_refused_and_a_known_one_in_the_wrong_stream_closes_the_channel() {
    let mut bare = Bare::new();
    for (connection, id) in [(CONTROL, 100), (DATA, 101)] {
        bare.send(connection, id, Err(UnknownKind(0x77)), Some(Payload::new(vec![1; 10])));
        let refusal = match bare.answer(RequestId(id)) {
            ServerMessage::Control(ServerControl::Refused(refused)) => refused.refusal,
            ServerMessage::Data(ServerData::Refused(refused)) => refused.refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal, Reason::Unsupported.into());
    }
    assert!(bare.closed.is_empty());
    // An open, on a data channel.
    bare.send(DATA, 102, Err(UnknownKind(0x10)), None);
    bare.assert_only_closed(DATA, Offence::OutOfPlace);
}

/// One id for a request of each kind of channel: the answer of one must not come out on the other, neither when
/// it is kept nor when it is about to be made.
#[test]
fn an_id_that_is_used_on_both_kinds_of_channel_gets_no_answer_on_the_wrong_one() {
    let mut bare = Bare::new();
    let stat = Stat { handle: bare.handle };
    let read = || ClientMessage::Data(Read { handle: HandleId(1), offset: 0, len: 1 }.into());
    bare.send(CONTROL, 50, Ok(ClientMessage::Control(stat.into())), None);
    bare.send(DATA, 50, Ok(read()), None);
    let (effect, _) = bare.work.pop().unwrap();
    // `drain` looks at every answer and its channel.
    bare.done(effect, Completion::Attributes(Ok(Attributes::default())));
    bare.send(OTHER, 50, Ok(read()), None);
    assert!(bare.work.is_empty());
}

#[test]
fn f09_ranges_at_the_edge_of_what_a_file_can_have_are_refused() {
    let mut bare = Bare::new();
    let handle = bare.handle;
    let edge = u64::try_from(i64::MAX).unwrap();
    let bad = [
        bare.data(DATA, Read { handle, offset: edge, len: 1 }, None),
        bare.data(DATA, Read { handle, offset: u64::MAX, len: 1 }, None),
        bare.data(DATA, Read { handle, offset: 0, len: (1 << 20) + 1 }, None),
        bare.data(DATA, Write { handle, offset: edge }, Some(Payload::new(vec![1]))),
        bare.data(DATA, Write { handle, offset: u64::MAX }, None),
    ];
    for request in bad {
        let ServerMessage::Data(ServerData::Refused(refused)) = bare.answer(request) else {
            panic!("not refused: {:?}", bare.answer(request));
        };
        assert_eq!(refused.refusal.reason, Reason::Invalid);
    }
    let empty = [
        bare.data(DATA, Read { handle, offset: edge, len: 0 }, None),
        bare.data(DATA, Write { handle, offset: edge }, None),
    ];
    assert!(matches!(bare.answer(empty[0]), ServerMessage::Data(ServerData::ReadDone(_))));
    assert!(
        matches!(bare.answer(empty[1]), ServerMessage::Data(ServerData::WriteDone(done)) if done.written == 0)
    );
    assert!(bare.work.is_empty() && bare.closed.is_empty());
}

#[test]
fn a_bind_that_repeats_a_number_or_a_nonce_touches_nothing() {
    let mut bare = Bare::new();
    let next = ConnectionId(9);
    assert_eq!(bare.bind(next, 1, 100), Some(BindDenial::NumberUsed));
    assert_eq!(bare.bind(next, 0, 101), Some(BindDenial::NumberUsed));
    assert_eq!(bare.bind(next, 7, 1), Some(BindDenial::NonceUsed));
    assert!(bare.closed.is_empty());
    for (number, connection) in (3..32).zip((10..).map(ConnectionId)) {
        assert_eq!(bare.bind(connection, number, number + 1_000), None);
    }
    assert_eq!(bare.bind(next, 40, 2_000), Some(BindDenial::TooMany));
    bare.read(OTHER, 1);
    assert_eq!(bare.work.len(), 1);
}

#[test]
fn a_first_record_that_differs_from_what_was_negotiated_begins_nothing() {
    let mut bare = Bare::new();
    let choice = SessionChoice { version: 2, ..bare.facts.choice };
    let begin = Begin { choice, ..bare.begin.clone() };
    let (facts, connection) = (bare.facts, ConnectionId(9));
    bare.server.handle_begin(NOW, connection, &facts, RequestId::NONE, &begin).ok();
    bare.drain();
    assert_eq!((bare.server.sessions_len(), bare.closed.as_slice()), (1, [connection].as_slice()));
}

#[test]
fn the_last_channel_number_is_bound_once() {
    let mut bare = Bare::new();
    // The gaps below it are closed over, so that it is the floor that has to know it.
    for at in (0_u32..1100).rev() {
        let number = u32::MAX - at;
        let connection = ConnectionId(100 + u64::from(at));
        bare.bind(connection, number, at + 1_000);
        bare.server.handle_lost(NOW, connection, LossReason::Broken);
    }
    bare.notes.clear();
    assert_eq!(bare.bind(ConnectionId(9), u32::MAX, 5_000), Some(BindDenial::NumberUsed));
    assert_eq!(bare.server.channels_len(), 3);
}

#[test]
fn a_session_begins_under_a_key_that_is_just_coming() {
    let mut bare = Bare::new();
    let coming = PublicKey([123; 32]);
    let keys = ServerKeys { current: coming, previous: None };
    let begins = |bare: &mut Bare, connection| {
        let client = bare.facts.client;
        let choice = bare.server.session_choice(NOW, &client, &bare.facts.offer).unwrap().unwrap();
        let facts = SessionFacts { server: coming, choice, ..bare.facts };
        let begin = Begin { choice, ..bare.begin.clone() };
        let begun = bare.server.handle_begin(NOW, ConnectionId(connection), &facts, RequestId::NONE, &begin);
        while bare.server.poll_output().is_some() {}
        begun
    };
    assert_eq!(begins(&mut bare, 50), Err(BindDenial::KeyRetired));
    bare.server.allow_server_keys(keys);
    assert_eq!(begins(&mut bare, 51), Ok(()));
    assert_eq!(bare.server.sessions_len(), 2, "the old key's session is there too");
    bare.server.handle_server_keys(NOW, keys);
    assert_eq!(bare.server.sessions_len(), 1);
}

/// The kernel reports a failed write-back once for a descriptor, and all handles of an open share one: whoever did
/// not ask must hear of it all the same, or a later sync would promise what is not there.
#[test]
fn a_failed_sync_is_told_to_every_handle_of_the_open_once() {
    let mut bare = Bare::new();
    let handle = bare.handle;
    let issued = bare.control(CONTROL, IssueKey { handle });
    let ServerMessage::Control(ServerControl::KeyIssued(KeyIssued { key: Some(key) })) =
        bare.answer(issued).clone()
    else {
        panic!("a key")
    };
    let resumed = bare.control(CONTROL, Resume { key, predecessor: None, with_key: false });
    let (effect, _) = bare.work.pop().unwrap();
    bare.done(effect, Completion::Attributes(Ok(Attributes::default())));
    let ServerMessage::Control(ServerControl::Opened(Opened { handle: duplicate, .. })) =
        bare.answer(resumed).clone()
    else {
        panic!("a duplicate")
    };

    let mut sync = |handle, outcome: Option<Result<(), Refusal>>| {
        let id = bare.control(CONTROL, Sync { handle, scope: SyncScope::Data });
        assert_eq!(bare.work.len(), usize::from(outcome.is_some()), "whether the disk is asked");
        if let Some(outcome) = outcome {
            let (effect, _) = bare.work.pop().unwrap();
            bare.done(effect, Completion::Synced(outcome));
        }
        bare.answer(id).clone()
    };
    let failed = ServerMessage::Control(Refused { refusal: Reason::Io.into() }.into());
    let done = ServerMessage::Control(Synced {}.into());
    assert_eq!(sync(duplicate, Some(Err(Reason::Io.into()))), failed);
    assert_eq!(sync(duplicate, Some(Ok(()))), done, "who has heard of it goes on");
    assert_eq!(sync(handle, None), failed, "the other handle hears of it at its next sync");
    assert_eq!(sync(handle, Some(Ok(()))), done, "once");

    // What only says that there was no descriptor is nobody else's.
    for reason in [Reason::Stale, Reason::Exhausted] {
        let refused = ServerMessage::Control(Refused { refusal: reason.into() }.into());
        assert_eq!(sync(handle, Some(Err(reason.into()))), refused);
        assert_eq!(sync(duplicate, Some(Ok(()))), done);
    }

    // Two syncs at once: the second one has waited for the first one's, and must not say that all is well.
    for second_outcome in [Ok(()), Err(Reason::Io.into())] {
        let ids =
            [handle, duplicate].map(|handle| bare.control(CONTROL, Sync { handle, scope: SyncScope::Data }));
        let [(first, _), (second, _)] = [bare.work.remove(0), bare.work.remove(0)];
        bare.done(first, Completion::Synced(Err(Reason::Io.into())));
        bare.done(second, Completion::Synced(second_outcome));
        assert_eq!(ids.map(|id| bare.answer(id).clone()), [failed.clone(), failed.clone()]);
        for handle in [handle, duplicate] {
            let id = bare.control(CONTROL, Sync { handle, scope: SyncScope::Data });
            let (effect, _) = bare.work.pop().expect("each has heard of it");
            bare.done(effect, Completion::Synced(Ok(())));
            assert_eq!(bare.answer(id), &done);
        }
    }
}

/// What ends by somebody else's will is told until the client has heard it. A client that hears nothing gets nothing more
/// whose end it would have to be told of, until it does.
#[test]
fn t16_a_client_that_hears_nothing_cannot_have_opens_end_without_bound() {
    let mut bare = Bare::new();
    let bound = Limits::NOTICES_UNHEARD_MAX;
    for at in 0..bound {
        if at > 0 {
            bare.open(1);
        }
        let open = bare.server.table().opens().next().unwrap().open;
        bare.server.handle_release(NOW, open).unwrap();
        bare.drain();
    }
    let refused = bare.ask_open(1);
    assert!(bare.work.is_empty());
    let ServerMessage::Control(ServerControl::Refused(Refused { refusal })) = bare.answer(refused) else {
        panic!("an open")
    };
    assert!(refusal.reason == Reason::Busy && refusal.retry_after().is_some(), "{refusal:?}");
    bare.send(CONTROL, 0, Ok(ClientMessage::Control(Heard { notice: 1 }.into())), None);
    bare.open(1);
    assert!(bare.closed.is_empty());
}

/// A line that comes and goes makes orphans of the same opens again and again, faster than their files can be looked at.
#[test]
fn an_open_that_comes_and_goes_waits_once_to_be_looked_at() {
    let mut bare = Bare::new();
    let opens = Limits::LOOKS_MAX + 40;
    for number in 2..=u8::try_from(opens).unwrap() {
        bare.open(number);
    }
    let mut connection = OTHER;
    for number in 3..20 {
        for lost in [CONTROL, DATA, connection] {
            bare.server.handle_lost(NOW, lost, LossReason::Closed);
        }
        bare.drain();
        connection = ConnectionId(u64::from(number));
        assert_eq!(bare.bind(connection, number, number), None);
    }
    bare.server.handle_lost(NOW, connection, LossReason::Closed);
    bare.drain();
    let mut looks = 0;
    while let Some((effect, work)) = bare.work.pop() {
        assert!(matches!(work, Effect::Attributes { .. }));
        bare.done(effect, Completion::Attributes(Ok(Attributes::default())));
        looks += 1;
    }
    // Those that were under way when it went away once more are looked at once more.
    assert!((opens..=opens + Limits::LOOKS_MAX).contains(&looks), "{looks} looks");
}
