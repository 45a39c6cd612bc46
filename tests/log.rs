//! What is told and to whom: names and bytes that clients choose do not get to write the server's log, and nothing that
//! can be printed shows a secret.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

use core::fmt::{Debug, Display};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, Error, OpenOptions, OptionsError, Peers, SessionEvent, SessionLoss};
use bowline::model::{
    AttemptNonce, BootId, ByteRange, ChannelKind, ChannelNumber, CreateId, Entropy, EntropyError, Epoch,
    ExportPath, FileIdentity, FileState, GrantId, HandleId, InstanceId, Limits, LineId, LineRole, LineSet,
    Locator, LockMode, OpenId, OpenMode, Policy, Protection, ProtectionMinima, PublicKey, RequestId,
    ResumeKey, Rights, SessionId, SetTime, StoreId, Suite, SuiteSet, Time, Verifier, XattrHow,
};
use bowline::net::{KeyFileError, key_file};
use bowline::opens::{Admission, Claim, OpenTable};
use bowline::secure::{
    BindInitiator, BindResponder, Identity, Incoming, Opener, Sealer, SessionInitiator, SessionResponder,
};
use bowline::server::{Exports, ServerConfig, parse_clients};
use bowline::session::Input;
use bowline::session::client::{
    Answer, ClientCore, ClientOutput, ClientSetup, FromServer, LineSetup, Operation, Terms, ToServer,
};
use bowline::session::server::{
    BindFacts, ClientMessage, ConnectionId, ServerCore, ServerKeys, ServerMessage, ServerOutput, ServerSetup,
};
use bowline::wire::control::{
    BindSecret, Granted, KeyIssued, Opened, Resume, Started, Welcome, WelcomeAnswer,
};
use bowline::wire::hello::{BindChoice, BindOffer, Hello, SessionChoice, SessionOffer};
use bowline::wire::{ClientControl, ClientData, ServerControl, ServerData};
use support::recorder::contains_secret;
use support::{EXPORT, LONG, World, new_identity};

mod support;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

/// Names that a terminal, a line-by-line reader or a C program would take for something else.
const NAMES: [&[u8]; 10] = [
    b"one\n2026-01-01T00:00:00.000000Z  INFO bowline: session started client=nobody",
    b"\r\rreturn",
    b"\x1b[2J\x1b]0;title\x07 escape",
    b"\x01\x02\x08\x7f control",
    b"tab\tvertical\x0b form\x0c",
    "\u{9b}31m \u{85} \u{2028} \u{202e}".as_bytes(),
    b"\xff\xfe\x80 no text",
    b"%s%n${jndi:x}",
    b"\" level=ERROR quote=\"",
    b"\\x1b[0m \\n backslash",
];

/// Everything that a client can ask with a name or a value of its own; how it ends does not matter.
async fn ask_everything(session: &bowline::client::Session, name: &[u8]) {
    let export = session.export(EXPORT).unwrap();
    let other = [name, b".other"].concat();
    let inside = [name, b"/inside"].concat();
    let mut said: Vec<String> = Vec::new();
    let mut keep = |error: Option<Error>| said.extend(error.map(|error| format!("{error} {error:?}")));
    let create = OpenOptions::new().read(true).write(true).create(true);
    keep(export.open(&other, &OpenOptions::new().read(true)).await.err());
    keep(export.create_dir(name, 0o755).await.err());
    keep(export.create_dir_all(&inside, 0o755).await.err());
    keep(export.open(name, &create).await.err());
    keep(export.symlink(name, &other).await.err());
    keep(export.read_link(&other).await.err());
    keep(export.remove_file(&other).await.err());
    let file = export.open(&other, &create).await.unwrap();
    keep(export.hard_link(&other, &inside).await.err());
    keep(export.metadata(name).await.err());
    keep(export.symlink_metadata(name).await.err());
    keep(export.try_exists(name).await.err());
    keep(export.space(name).await.err());
    keep(export.set_permissions(name, 0o700).await.err());
    keep(export.set_times(name, Some(SetTime::Now), None).await.err());
    let mut entries = export.read_dir("").await.unwrap();
    while entries.next_entry().await.unwrap().is_some() {}
    keep(export.read_dir_with_attributes(name).await.err());
    let attribute = [b"user.", name].concat();
    for attribute in [name, &attribute] {
        keep(export.set_xattr(&other, attribute, name, XattrHow::Set).await.err());
        keep(export.xattr(&other, attribute).await.err());
        keep(file.set_xattr(attribute, name, XattrHow::Replace).await.err());
        keep(file.xattr(attribute).await.err());
        keep(file.remove_xattr(attribute).await.err());
    }
    keep(export.xattr_names(&other).await.err());
    file.write_at(0, name).await.unwrap();
    file.append(name).await.unwrap();
    keep(file.lock(ByteRange::ALL, LockMode::Exclusive, Duration::ZERO).await.err());
    keep(export.open(&other, &create.clone().truncate(true).exclusive()).await.err());
    file.close().await.unwrap();
    keep(export.rename_no_replace(&other, &inside).await.err());
    keep(export.exchange(&other, &inside).await.err());
    keep(export.rename(&inside, &other).await.err());
    keep(export.remove_dir(name).await.err());
    keep(export.remove_file(&other).await.err());
    keep(session.open(&String::from_utf8_lossy(name), "file", &create).await.err());
    for text in said {
        assert!(!text.contains(char::is_control), "an error repeats what it was asked: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t39_names_and_values_do_not_write_the_log() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    for name in NAMES {
        ask_everything(&session, name).await;
    }
    // What is refused is logged too: a key that is none, and connections that are none.
    let file = session.open(EXPORT, "file", &OpenOptions::new().read(true)).await.unwrap();
    let mut key = world.key_of(&file).await;
    key.secret = *b"\n\x1b[31m\r\x07 ERROR\n\n";
    session.resume(&key, LineSet::ALL).await.unwrap_err();
    world.until_log_says("WrongSecret").await;
    for garbage in NAMES {
        let mut stream = tokio::net::TcpStream::connect(world.addresses[0]).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, garbage).await.unwrap();
    }
    let refusals = async {
        while world.log().matches("connection refused").count() < NAMES.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, refusals).await.expect("each connection is logged");
    session.close().await;

    let log = fs::read(world.folder.path().join("server.log")).unwrap();
    let log = String::from_utf8(log).expect("the log is text");
    for line in log.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        let mut words = line.split_whitespace();
        let stamp = words.next().is_some_and(|stamp| stamp.len() == 27 && stamp.ends_with('Z'));
        let level =
            words.next().is_some_and(|level| matches!(level, "TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR"));
        // Behind the spans, if it stands in any.
        let mut from = words.skip_while(|word| word.starts_with("session{") || word.contains('='));
        let from = from.next().is_some_and(|from| from.starts_with("bowline::") && from.ends_with(':'));
        assert!(stamp && level && from, "no event of ours: {line:?}");
    }
    assert!(!log.contains("client=nobody") && !log.contains('\u{202e}') && !log.contains('\u{2028}'));
}

/// How a text shows a secret of at least 8 bytes, if it does: as [`contains_secret`] finds it, or as `Debug` prints
/// bytes.
fn shown(text: &str, secret: &[u8]) -> Option<&'static str> {
    let dense: String = text.split_whitespace().collect();
    for half in [&secret[..8], &secret[secret.len() - 8..]] {
        let decimal: Vec<String> = half.iter().map(u8::to_string).collect();
        let hex: Vec<String> = half.iter().map(|byte| format!("{byte:x}")).collect();
        let prefixed: Vec<String> = half.iter().map(|byte| format!("0x{byte:x}")).collect();
        let forms = [decimal.join(","), hex.join(","), prefixed.join(","), half.escape_ascii().to_string()];
        if forms.iter().any(|form| dense.contains(form)) {
            return Some("bytes as they are printed");
        }
    }
    contains_secret(text.as_bytes(), secret)
}

#[test]
fn a_secret_is_seen_in_what_debug_prints() {
    let secret = [0xd1, 0x4e, 0x8b, 0xf0, 0x37, 0xa9, 0x5c, 0x12, 0xee, 0x63];
    let text = "sixteen secrets!";
    for printed in
        [format!("{secret:?}"), format!("{secret:#?}"), format!("{secret:x?}"), format!("{secret:#x?}")]
    {
        assert!(shown(&printed, &secret).is_some(), "{printed}");
    }
    assert!(shown(&format!("{:?}", bytes::Bytes::copy_from_slice(&secret)), &secret).is_some());
    assert!(shown(&format!("{text:?}"), text.as_bytes()).is_some());
    assert!(shown("[1, 2, 3]", &secret).is_none());
}

/// What must not be shown, and what has been looked through.
struct Search {
    secrets: Vec<(&'static str, Vec<u8>)>,
    printed: usize,
}

impl Search {
    fn look(&mut self, what: &str, text: &str) {
        self.printed += 1;
        for (name, secret) in &self.secrets {
            assert_eq!(shown(text, secret), None, "{name} in {what}: {text}");
        }
    }

    fn debug(&mut self, value: &dyn Debug) {
        let plain = format!("{value:?}");
        let what: String = plain.chars().take(30).collect();
        self.look(&what, &plain);
        self.look(&what, &format!("{value:#?}"));
        self.look(&what, &format!("{value:x?}"));
    }

    fn error(&mut self, error: &(dyn std::error::Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.debug(&error);
            self.display(&error);
            next = error.source();
        }
    }

    fn display(&mut self, value: &dyn Display) {
        self.look("what is displayed", &format!("{value} {value:>100}"));
    }
}

/// Random bytes that are the same each time.
struct Counted(u64);

impl Entropy for Counted {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = self.0.to_le_bytes()[7];
        }
        Ok(())
    }
}

const SESSION: SessionId = SessionId([0x51; 16]);

struct Secrets {
    client: Identity,
    server: Arc<Identity>,
    bind: BindSecret,
    key: ResumeKey,
}

impl Secrets {
    fn new() -> Self {
        let mut random = Counted(39);
        let client = Identity::generate(&mut random).unwrap();
        let server = Arc::new(Identity::generate(&mut random).unwrap());
        let key = ResumeKey {
            file_id: OpenId(7),
            time_stamp_us: 1,
            process_id: 2,
            generation: 1,
            secret: random.bytes().unwrap(),
        };
        Self { client, server, bind: BindSecret(random.bytes().unwrap()), key }
    }

    fn search(&self) -> Search {
        let half = |identity: &Identity| {
            let text = identity.to_text().rsplit('-').next().unwrap().to_uppercase();
            data_encoding::BASE32_NOPAD.decode(text.as_bytes()).unwrap()
        };
        let secrets = vec![
            ("the client's identity", half(&self.client)),
            ("the server's identity", half(&self.server)),
            ("the session's secret", self.bind.0.to_vec()),
            ("the resume key", self.key.secret.to_vec()),
        ];
        Search { secrets, printed: 0 }
    }

    fn started(&self) -> Started {
        let secret = self.bind.clone();
        let suites = SuiteSet::ALWAYS;
        Started {
            locator: Locator([1; 16]),
            secret,
            requests: 64,
            bytes: 1 << 20,
            payload_max: 1 << 20,
            suites,
            epoch: Epoch(1),
            verifier: VERIFIER,
        }
    }

    fn resume(&self) -> Resume {
        Resume { key: self.key.clone(), predecessor: Some(HandleId(9)), with_key: true }
    }

    fn answers(&self) -> Vec<ServerControl> {
        let choice = SessionChoice { version: 1, session: SESSION };
        let answer = WelcomeAnswer::Started(self.started());
        let state = FileState { rights: Rights::ALL, mode: OpenMode::READ, ..state() };
        vec![
            Welcome { offer: SessionOffer::OURS, choice, answer }.into(),
            Opened {
                handle: HandleId(9),
                state,
                key: Some(self.key.clone()),
                meanwhile: None,
                durable: false,
            }
            .into(),
            KeyIssued { key: Some(self.key.clone()) }.into(),
            Granted { handle: HandleId(2), grant: GrantId(3), key: Some(self.key.clone()) }.into(),
        ]
    }
}

fn state() -> FileState {
    FileState { rights: Rights::ALL, mode: OpenMode::READ, attributes: bowline::model::Attributes::default() }
}

const VERIFIER: Verifier = Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 0 };

#[test]
fn t39_values_with_secrets_in_them_print_none() {
    let secrets = Secrets::new();
    let mut search = secrets.search();
    search.debug(&secrets.client);
    search.debug(&secrets.key);
    search.debug(&secrets.bind);
    search.debug(&secrets.started());
    search.debug(&BindFacts {
        session: SESSION,
        server: secrets.client.public(),
        client: secrets.client.public(),
        secret: secrets.bind.clone(),
    });

    // Every wrapper that a message travels in, on both sides.
    let (request, settled) = (RequestId(4), RequestId(4));
    for answer in secrets.answers() {
        search.debug(&answer);
        search.debug(&Incoming::Message(answer.clone()));
        search.debug(&FromServer::Control(answer.clone()));
        search.debug(&Answer::<Vec<u8>>::Control(answer.clone(), None));
        let message = ServerMessage::Control(answer.clone());
        search.debug(&message);
        let connection = ConnectionId(1);
        search.debug(&ServerOutput::<Vec<u8>>::Send { connection, request, message, payload: None });
        let input = Input { request, settled, message: Ok(answer), payload_len: 0, payload: None::<Vec<u8>> };
        search.debug(&input);
    }
    let resume = ClientControl::from(secrets.resume());
    search.debug(&resume);
    search.debug(&ClientMessage::Control(resume.clone()));
    search.debug(&Operation::<bytes::Bytes>::Control(resume.clone()));
    let message = ToServer::Control(resume.clone());
    search.debug(&message);
    let (number, ticket) = (ChannelNumber(0), None);
    search.debug(&ClientOutput::<Vec<u8>>::Send { number, ticket, request, settled, message, payload: None });

    search_keepers(&secrets, &mut search, resume);
}

/// Those that keep them.
fn search_keepers(secrets: &Secrets, search: &mut Search, resume: ClientControl) {
    let line = LineSetup { role: LineRole::Both, protection: Protection::Sealed };
    let setup = ClientSetup {
        limits: Limits::default(),
        lines: vec![line],
        first_line: LineId(0),
        terms: Terms::new(SESSION, &secrets.started()),
    };
    let mut core = ClientCore::<bytes::Bytes>::new(Time(1), setup);
    core.handle_request(Time(1), Operation::Control(resume), LineSet::ALL);
    search.debug(&core);
    // With the key that came with the handle, kept for the session's return.
    let opened = Opened {
        handle: HandleId(9),
        state: state(),
        key: Some(secrets.key.clone()),
        meanwhile: None,
        durable: false,
    };
    let message = Ok(FromServer::Control(opened.into()));
    let (request, settled) = (RequestId::FIRST, RequestId::NONE);
    let answer = Input { request, settled, message, payload_len: 0, payload: None };
    core.handle_input(Time(1), ChannelNumber(0), answer);
    assert!(core.resume_key(HandleId(9)).is_some());
    search.debug(&core);
    let minima = ProtectionMinima::default();
    let (policy, entropy) = (Policy::default(), Box::new(Counted(1)));
    let setup = ServerSetup {
        limits: Limits::default(),
        server_keys: ServerKeys { current: secrets.client.public(), previous: None },
        policy,
        minima,
        suites: SuiteSet::ALWAYS,
        entropy,
        wall_start_us: 0,
        epoch: Epoch(1),
        verifier: VERIFIER,
        stored: None,
    };
    search.debug(&setup);
    search.debug(&ServerCore::<Vec<u8>>::new(setup).unwrap());
    let mut table = OpenTable::new(secrets.bind.0, &Limits::default());
    let owner = secrets.client.public();
    let admitted = table.admit(Time(1), admission(owner)).unwrap();
    let key = table.issue_key(SESSION, admitted.handle, 1, 2, secrets.key.secret).unwrap();
    let nobody = PublicKey([3; 32]);
    let claim = Claim {
        session: SESSION,
        identity: &nobody,
        handle: HandleId(10),
        predecessor: None,
        may_use: &|_| Some(Rights::ALL),
    };
    search.debug(&claim);
    search.error(&table.resume(Time(2), &key, claim).unwrap_err());
    while let Some(event) = table.poll_event() {
        search.debug(&event);
    }
    search.debug(&table);
    search.debug(&ServerConfig::new(
        Arc::clone(&secrets.server),
        Exports::open([]).unwrap(),
        Policy::default(),
    ));
    assert!(search.printed > 100, "{}", search.printed);
}

fn admission(owner: PublicKey) -> Admission {
    Admission {
        session: SESSION,
        owner,
        open: OpenId(7),
        handle: HandleId(9),
        file: FileIdentity { device: 1, inode: 2, born_ns: 0 },
        export: EXPORT.parse().unwrap(),
        mode: OpenMode::READ,
        rights: Rights::READ,
        create_id: CreateId([1; 16]),
        grace: Duration::from_secs(60),
        lock: None,
        resumable: true,
        guard: false,
        path: ExportPath::new(*b"file").unwrap(),
        mark: bowline::model::FileMark { len: 0, changed_ns: 0 },
    }
}

#[test]
fn t39_handshakes_and_what_comes_of_them_print_no_secret() {
    let secrets = Secrets::new();
    let mut search = secrets.search();
    let (client, server, random) = (&secrets.client, &secrets.server, &mut Counted(7));
    let offer = SessionOffer::OURS;
    let (initiator, hello) = SessionInitiator::begin(client, &server.public(), offer, random).unwrap();
    let responder = SessionResponder::read(server, &Hello::decode(&hello).unwrap(), random).unwrap();
    search.debug(&initiator);
    search.debug(&responder);
    search.error(&initiator.finish(&[0; 80]).unwrap_err());
    let (_, keys) = responder.finish(SessionChoice { version: 1, session: SESSION }).unwrap();
    search.debug(&keys);

    let offer = BindOffer {
        locator: Locator([1; 16]),
        number: ChannelNumber(3),
        nonce: AttemptNonce([2; 16]),
        kind: ChannelKind::Data,
        protection: Protection::Signed,
        suite: Suite::ChaCha20Poly1305,
    };
    let begin = |random: &mut Counted| {
        BindInitiator::begin(client, &server.public(), &secrets.bind, SESSION, offer, random).unwrap()
    };
    let (initiator, hello) = begin(random);
    let hello = Hello::decode(&hello).unwrap();
    let read = |secret: [u8; 32], random: &mut Counted| {
        BindResponder::read(server, &client.public(), &BindSecret(secret), SESSION, &hello, random)
    };
    search.error(&read([9; 32], random).unwrap_err());
    let responder = read(secrets.bind.0, random).unwrap();
    search.debug(&initiator);
    search.debug(&responder);
    search.debug(&hello);
    let choice = BindChoice { protection: Protection::Signed, suite: Suite::ChaCha20Poly1305 };
    let (message2, server_keys) = responder.finish(choice).unwrap();
    let (_, client_keys) = initiator.finish(&message2[2..]).unwrap();
    search.debug(&(&server_keys, &client_keys));
    let sealer = Sealer::<ClientData>::new(client_keys.send, offer.number, choice.protection).unwrap();
    let mut opener = Opener::<ServerData>::new(client_keys.receive, offer.number, choice.protection).unwrap();
    search.debug(&sealer);
    search.error(&opener.read_head(&[7; Limits::HEAD_LEN]).unwrap_err());
    search.debug(&opener);
}

/// A secret in the wrong place is refused, and not shown to whoever reads the message.
#[test]
fn t39_texts_with_secrets_in_them_are_refused_without_being_shown() {
    let secrets = Secrets::new();
    let mut search = secrets.search();
    let (identity, key) = (secrets.client.to_text(), secrets.key.to_text());
    for secret in [identity.as_str(), key.as_str()] {
        for damaged in
            [&secret[..secret.len() - 1], &secret[1..], &format!("{secret}a"), &secret.to_uppercase()]
        {
            search.error(&Identity::from_text(damaged).unwrap_err());
            search.error(&damaged.parse::<ResumeKey>().unwrap_err());
            search.error(&damaged.parse::<PublicKey>().unwrap_err());
            search.error(&ExportPath::new(format!("/{damaged}").into_bytes()).unwrap_err());
        }
        let good = "a".repeat(52);
        let whole =
            format!("[[KIND]]\nname = \"a\"\nkey = \"{good}\"\nprotection = \"signed\"\nMORE = [\"LIST\"]\n");
        let clients = whole.replace("KIND", "client").replace("MORE", "exports").replace("LIST", "media");
        let peers = whole.replace("KIND", "peer").replace("MORE", "addresses").replace("LIST", "10.0.0.1");
        parse_clients(&clients).unwrap();
        Peers::parse(&peers).unwrap();
        for place in ["\"a\"", &format!("\"{good}\""), "\"signed\"", "\"media\"", "\"10.0.0.1\"", "name = "] {
            let with = |text: &str| text.replacen(place, &format!("\"{secret}\""), 1);
            if clients.contains(place) {
                let error = parse_clients(&with(&clients)).unwrap_err();
                assert!(error.to_string().contains("a secret stands here"), "{place}: {error}");
                search.error(&error);
            }
            if peers.contains(place) {
                search.error(&Peers::parse(&with(&peers)).unwrap_err());
            }
        }
        search.error(&parse_clients(&format!("{clients}# {secret}\n")).unwrap_err());
        search.error(&Peers::parse(secret).unwrap_err());
    }
    // A key file that cannot be used.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    key_file::create(&file, &identity).unwrap();
    search.error(&key_file::create(&file, &identity).unwrap_err());
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = key_file::read(&file).unwrap_err();
    assert!(matches!(error, KeyFileError::Permissions { .. }));
    search.error(&error);
}

#[tokio::test(flavor = "multi_thread")]
async fn t39_what_applications_hold_prints_no_secret() {
    let world = World::start(b"content").await;
    let (own, key) = (&world.identity, "the resume key");
    let text = own.to_text().rsplit('-').next().unwrap().to_uppercase();
    let half = data_encoding::BASE32_NOPAD.decode(text.as_bytes()).unwrap();
    let mut search = Search { secrets: vec![("the identity", half)], printed: 0 };
    let client = Client::new(Arc::clone(own)).unwrap();
    let session = world.connect(BOTH).await;
    let options = OpenOptions::new().read(true).write(true);
    let file = world.open(&session, &options).await.unwrap();
    search.secrets.push((key, world.key_of(&file).await.secret.to_vec()));
    let export = session.export(EXPORT).unwrap();
    let mut entries = export.read_dir("").await.unwrap();
    let entry = entries.next_entry().await.unwrap();
    let values: [&dyn Debug; 10] = [
        &client,
        &session,
        &file,
        &export,
        &entries,
        &entry,
        &options,
        &session.channels(),
        &session.lines(),
        &world.peer(BOTH),
    ];
    for value in values {
        search.debug(value);
    }
    let mut wrong = world.key_of(&file).await;
    wrong.generation += 1;
    search.error(&session.resume(&wrong, LineSet::ALL).await.unwrap_err());
    let stranger = Client::new(new_identity()).unwrap();
    search.error(&stranger.connect(&world.peer(BOTH)).await.unwrap_err());
    let mut peer = world.peer(BOTH);
    peer.key = own.public();
    search.error(&client.connect(&peer).await.unwrap_err());
    search.error(&Error::Options(OptionsError::NoAccess));
    search.debug(&SessionEvent::Ended(SessionLoss::Closed));
    search.debug(&file.into_stream());
    search.debug(&InstanceId([1; 16]));
}
