//! Sessions whose channels are all lost, and sessions that their server does not know any more, against real servers
//! over real sockets: files go on, or say why they cannot.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bowline::client::{
    ChannelState, Client, Error, File, HandleLoss, LineConfig, OpenOptions, Peer, Session, SessionEvent,
};
use bowline::model::{
    ByteRange, Limits, LineRole, LockMode, Meanwhile, Protection, PublicKey, Reason, SyncScope,
};
use bowline::net::{Clock, Via};
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, parse_clients};
use rustix::process::{Pid, Signal, kill_process};
use support::recorder::{Kind, Label, Recorder};
use support::{EXPORT, Entry, LINE_1, LINE_2, LONG, Searched, World, new_identity, pattern};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];
/// How a line is lost.
const WAYS: [Way; 3] = [Way::Reset, Way::End, Way::Silence];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Connections are reset, as where a cable is pulled from a machine that lives.
    Reset,
    /// Connections are closed on purpose.
    End,
    /// Nothing passes, and nobody hears of it.
    Silence,
}

impl Way {
    /// Loses every line; new connections fail as well.
    fn lose(self, recorders: &[Recorder]) {
        for recorder in recorders {
            match self {
                Self::Reset | Self::End => recorder.refuse(true),
                Self::Silence => recorder.freeze(true),
            }
            match self {
                Self::Reset => drop(recorder.cut_all()),
                Self::End => drop(recorder.end_all()),
                Self::Silence => {}
            }
        }
    }

    fn heal(recorders: &[Recorder]) {
        for recorder in recorders {
            recorder.refuse(false);
            recorder.freeze(false);
        }
    }
}

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

/// Waits for an event of a session.
async fn told(events: &mut Receiver<SessionEvent>, is_meant: impl Fn(&SessionEvent) -> bool) -> SessionEvent {
    let waiting = async {
        loop {
            let event = events.recv().await.unwrap();
            if is_meant(&event) {
                return event;
            }
        }
    };
    timeout(LONG, waiting).await.expect("the event comes")
}

async fn lost(events: &mut Receiver<SessionEvent>) {
    told(events, |event| *event == SessionEvent::Lost).await;
}

async fn returned(events: &mut Receiver<SessionEvent>) {
    told(events, |event| matches!(event, SessionEvent::Returned { .. })).await;
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

/// A server in this process behind two recorders, and a client that it knows. Another one can take its place.
struct Place {
    server: Option<Server>,
    recorders: Vec<Recorder>,
    identity: Arc<Identity>,
    client: Arc<Identity>,
    limits: Limits,
    folder: TempDir,
    searched: Searched,
}

impl Place {
    async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), pattern(5000)).unwrap();
        std::fs::write(folder.path().join("other"), b"other").unwrap();
        let (identity, client) = (new_identity(), new_identity());
        let searched = Searched::new([&identity, &client]);
        let recorders = Vec::new();
        let mut place = Self { server: None, recorders, identity, client, limits, folder, searched };
        let server = place.serve();
        for (line, &address) in [LINE_1, LINE_2].into_iter().zip(server.addresses()) {
            place.recorders.push(Recorder::start(line, address).await.unwrap());
        }
        place.server = Some(server);
        place
    }

    fn serve(&self) -> Server {
        let entry = format!(
            "[[client]]\nkey = \"{}\"\nname = \"client\"\nexports = [\"{EXPORT}\"]\nrights = [\"read\", \"write\", \"lock\"]\n",
            self.client.public()
        );
        let exports = Exports::open([(EXPORT.parse().unwrap(), self.folder.path().to_owned())]).unwrap();
        let config = ServerConfig::new(Arc::clone(&self.identity), exports, parse_clients(&entry).unwrap());
        let listen = vec![(LINE_1, 0).into(), (LINE_2, 0).into()];
        Server::start(ServerConfig { limits: self.limits.clone(), listen, ..config }).unwrap()
    }

    /// The server stops, and another one takes its place, which has nothing of what the first one knew.
    async fn replace_server(&mut self) {
        self.server.take().unwrap().stop().await;
        let server = self.serve();
        for (recorder, &address) in self.recorders.iter().zip(server.addresses()) {
            recorder.redirect(address);
        }
        self.server = Some(server);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    async fn connect(&self) -> Session {
        let key: PublicKey = self.identity.public();
        let lines = self.recorders.iter().zip([LINE_1, LINE_2]).map(|(recorder, from)| LineConfig {
            address: recorder.address(),
            via: Some(Via::Address(from)),
            role: LineRole::Both,
            protection: None,
        });
        let peer = Peer { name: "server".into(), key, protection_min: None, lines: lines.collect() };
        let client = Client::new(Arc::clone(&self.client)).unwrap().with_limits(self.limits.clone());
        let session = client.connect(&peer).await.unwrap();
        session.all_lines_up(LONG).await.unwrap();
        session
    }

    async fn open(&self, session: &Session, path: &str, options: &OpenOptions) -> File {
        self.searched.noted(session.open(EXPORT, path, options).await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b31_a_file_goes_on_after_its_channels_were_closed_and_it_was_kept_open() {
    let world = World::start(&pattern(5000)).await;
    let first = world.connect(BOTH).await;
    let file = world.open(&first, &read_write().exclusive()).await.unwrap();
    file.lock(range(0, 100), LockMode::Exclusive, Duration::ZERO).await.unwrap();
    file.write_at(0, b"state").await.unwrap();
    let (key, rights) = (world.key_of(&file).await, file.state().rights);
    file.leave_open();
    first.close().await;

    let second = world.connect(BOTH).await;
    let resumed = world.resume(&second, &key, bowline::model::LineSet::ALL).await.unwrap();
    assert_eq!((resumed.state().rights, resumed.state().mode.is_exclusive()), (rights, true));
    let mut bytes = [0; 5];
    resumed.read_at(0, &mut bytes).await.unwrap();
    assert_eq!(&bytes, b"state");
    // Its channels are closed, and it goes on in the same handle.
    let mut events = second.events();
    for recorder in &world.recorders {
        recorder.end_all();
    }
    lost(&mut events).await;
    resumed.write_at(5, b" goes on").await.unwrap();
    resumed.unlock(range(0, 100)).await.unwrap();
    assert_eq!(&std::fs::read(world.file("file")).unwrap()[..13], b"state goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn b32_a_file_goes_on_after_an_outage_of_one_line_or_of_all() {
    for way in WAYS {
        let content = pattern(3 << 20);
        let world = World::start(&content).await;
        let session = world.connect(BOTH).await;
        let file = Arc::new(world.open(&session, &read_write().exclusive()).await.unwrap());
        let (id, handle) = (session.id(), file.handle());
        file.lock(range(0, 100), LockMode::Exclusive, Duration::ZERO).await.unwrap();

        way.lose(&world.recorders[..1]);
        file.write_at(0, b"partial").await.unwrap();
        Way::heal(&world.recorders);

        session.all_lines_up(LONG).await.unwrap();
        let mut events = session.events();
        way.lose(&world.recorders);
        let (reader, writer) = (Arc::clone(&file), Arc::clone(&file));
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; 3 << 20];
            reader.read_at(7, &mut bytes).await.map(|read| (read, bytes))
        });
        let writing = tokio::spawn(async move { writer.write_at(0, b"outage!").await });
        lost(&mut events).await;
        assert!(!writing.is_finished(), "{way:?}");
        Way::heal(&world.recorders);
        returned(&mut events).await;
        timeout(LONG, writing).await.unwrap().unwrap().unwrap();
        let (read, bytes) = timeout(LONG, reading).await.unwrap().unwrap().unwrap();
        assert!(bytes[..read] == content[7..], "{way:?}");
        session.all_lines_up(LONG).await.unwrap();
        file.unlock(range(0, 100)).await.unwrap();
        assert_eq!((session.id(), file.handle()), (id, handle), "{way:?}: nobody had forgotten anything");
        assert_eq!(&std::fs::read(world.file("file")).unwrap()[..7], b"outage!");
    }
}

/// However its channels were lost: the file is open, somebody else is refused with the time that is left, gets it after
/// that, and then its first owner, who is back, hears it.
#[tokio::test(flavor = "multi_thread")]
async fn b11_b13_b14_b15_b16_an_open_that_was_cut_off_is_kept_for_its_grace_and_then_given_away() {
    let grace = Duration::from_secs(1);
    let one = async |way: Way| {
        let (first, second) = (new_identity(), new_identity());
        let entries = [Entry::all(first.public()), Entry::all(second.public())];
        let world = World::with_clients(&pattern(5000), first, &entries).await;
        let session = world.connect(BOTH).await;
        let file = world.open(&session, &read_write().exclusive().grace(grace)).await.unwrap();
        file.write_at(0, b"mine").await.unwrap();
        // The other one's lines are not those that are cut.
        let mut peer = world.peer(BOTH);
        for (line, address) in peer.lines.iter_mut().zip(&world.addresses) {
            line.address = *address;
        }
        let other = world.connect_as(&second, &peer).await;
        way.lose(&world.recorders);
        let mut left = None;
        let taking = async {
            loop {
                match world.open(&other, &read_write().exclusive()).await {
                    Ok(file) => return file,
                    Err(error) => {
                        assert_eq!(error.reason(), Some(Reason::Busy), "{way:?}");
                        // Until the server has noticed, nobody knows how long it takes.
                        left = left.max(error.retry_after());
                    }
                }
            }
        };
        let taken = timeout(LONG, taking).await.expect("it gives way");
        let left = left.expect("the time that is left was told");
        assert!(left > grace / 2 && left <= grace, "{way:?}: {left:?}");
        taken.write_at(0, b"hers").await.unwrap();
        Way::heal(&world.recorders);
        let error = timeout(LONG, file.write_at(0, b"mine")).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TakenOver), "{way:?}: {error}");
        assert_eq!(&std::fs::read(world.file("file")).unwrap()[..4], b"hers");
        for session in [session, other] {
            session.close().await;
        }
    };
    tokio::join!(one(Way::Reset), one(Way::End), one(Way::Silence));
}

/// What a writer puts into its block in a round.
fn filling(writer: u8, round: u64) -> u8 {
    writer.wrapping_mul(31).wrapping_add(round.to_le_bytes()[0])
}

/// All lines are away for as long as it takes until each has been tried in vain a few times.
#[tokio::test(flavor = "multi_thread")]
async fn f25_all_lines_cut_and_back_calls_block_and_continue_and_lose_nothing() {
    let world = World::start(&[0; 64 << 10]).await;
    let session = world.connect(BOTH).await;
    let file = Arc::new(world.open(&session, &read_write()).await.unwrap());
    let mut events = session.events();
    let writers: Vec<_> = (0..8_u8)
        .map(|at| {
            let file = Arc::clone(&file);
            tokio::spawn(async move {
                for round in 0..200_u64 {
                    let block = u64::from(at) * 8192 + (round % 8) * 1024;
                    file.write_at(block, &[filling(at, round); 1024]).await?;
                }
                file.sync(SyncScope::Data).await
            })
        })
        .collect();
    for _ in 0..3 {
        Way::Reset.lose(&world.recorders);
        lost(&mut events).await;
        for _ in 0..10 {
            told(&mut events, |event| matches!(event, SessionEvent::LineFailed { .. })).await;
        }
        Way::heal(&world.recorders);
        returned(&mut events).await;
    }
    for writer in writers {
        timeout(LONG, writer).await.unwrap().unwrap().unwrap();
    }
    let bytes = std::fs::read(world.file("file")).unwrap();
    for (at, of_writer) in (0..8_u8).zip(bytes.chunks(8192)) {
        for (block, piece) in (0..8_u64).zip(of_writer.chunks(1024)) {
            let last = filling(at, 192 + block);
            assert!(piece.iter().all(|byte| *byte == last), "{at} {block}");
        }
    }
}

/// Longer than anything is kept: the opens are gone and say so, and the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn f26_all_lines_cut_beyond_every_deadline_handles_say_why_and_the_session_goes_on() {
    let mut limits = Limits::default();
    limits.grace_default = Duration::from_millis(1200);
    limits.orphan_age_max = Duration::from_millis(1300);
    // Silence is noticed soon, on both sides.
    (limits.ping_after, limits.ping_idle_after, limits.dead_after_ping) =
        (Duration::from_millis(200), Duration::from_millis(200), Duration::from_millis(200));
    let place = Place::start(limits).await;
    let session = place.connect().await;
    let mut events = session.events();
    let expired = place.open(&session, "file", &read_write().grace(Duration::from_millis(100))).await;
    let keyless = place.open(&session, "other", &read_write().with_key(false)).await;
    let (id, handle) = (session.id(), expired.handle());
    for way in WAYS {
        let mut events = session.events();
        let place_id = session.id();
        way.lose(&place.recorders);
        lost(&mut events).await;
        let forgotten = async {
            while place.server().sessions_len() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, forgotten).await.expect("the server forgets the session");
        Way::heal(&place.recorders);
        // Of all three outages.
        assert_eq!(expired.stat().await.unwrap_err().reason(), Some(Reason::Expired), "{way:?}");
        assert!(matches!(keyless.stat().await, Err(Error::NotResumable)), "{way:?}");
        let export = session.export(EXPORT).unwrap();
        assert_eq!(export.metadata("file").await.unwrap().len, 5000);
        assert_ne!(session.id(), place_id, "another session has taken its place");
        let again = place.open(&session, "file", &read_write()).await;
        again.write_at(0, b"again").await.unwrap();
        again.close().await.unwrap();
        session.all_lines_up(LONG).await.unwrap();
    }
    assert_ne!(session.id(), id);
    let loss = HandleLoss::Refused(Reason::Expired.into());
    told(&mut events, |event| *event == SessionEvent::ResumeFailed { handle, loss }).await;
    keyless.close().await.expect("what is gone is closed");
    expired.close().await.expect("what is gone is closed");
}

/// A line is reset while a write of 1 MiB is on its way on both: what was not answered goes over the other line, at once.
#[tokio::test(flavor = "multi_thread")]
async fn f22_a_reset_in_the_middle_of_a_write_sends_the_rest_over_the_other_line() {
    let world = World::start(&[0; 1 << 20]).await;
    let session = world.connect(BOTH).await;
    let file = Arc::new(world.open(&session, &read_write()).await.unwrap());
    let mut took = Vec::new();
    for round in 0..20_u8 {
        let recorder = &world.recorders[usize::from(round % 2)];
        let content = vec![round + 1; 1 << 20];
        let before = data_sent(&recorder.labels());
        let writing = tokio::spawn({
            let (file, content) = (Arc::clone(&file), content.clone());
            async move { file.write_at(0, &content).await }
        });
        recorder.until(|labels| data_sent(labels) > before).await.unwrap();
        recorder.cut_all();
        let cut = Clock.now();
        timeout(LONG, writing).await.unwrap().unwrap().unwrap();
        took.push(Clock.now().since(cut));
        assert!(std::fs::read(world.file("file")).unwrap() == content, "round {round}");
        session.all_lines_up(LONG).await.unwrap();
    }
    let repeats: u64 = session.channels().iter().map(|channel| channel.repeats).sum();
    took.sort_unstable();
    println!(
        "20 resets, {repeats} repeats; the write was done {:?} (median) after its line was cut",
        took[10]
    );
    assert!(repeats > 0, "no write was cut while it was under way");
    assert!(took[10] < Duration::from_millis(50), "{took:?}");
}

/// The bytes that have gone to the server over data channels.
fn data_sent(labels: &[Label]) -> u64 {
    labels.iter().filter(|label| label.kind == Kind::BindData).map(|label| label.to_server_len).sum()
}

/// It answers nothing for a second, and nobody notices but by the time that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn f42_a_server_that_is_stopped_for_a_second_costs_a_second() {
    let content = pattern(1 << 20);
    let world = World::start(&content).await;
    let session = world.connect(BOTH).await;
    let file = Arc::new(world.open(&session, &read_write()).await.unwrap());
    let server = Pid::from_raw(i32::try_from(world.pid()).unwrap()).unwrap();
    let before = session.channels();
    kill_process(server, Signal::STOP).unwrap();
    let (reader, writer) = (Arc::clone(&file), Arc::clone(&file));
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 20];
        reader.read_at(0, &mut bytes).await.map(|_| bytes)
    });
    let writing = tokio::spawn(async move { writer.write_at(0, b"stopped").await });
    // How long the server is stopped is what is tested.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!reading.is_finished() && !writing.is_finished());
    kill_process(server, Signal::CONT).unwrap();
    timeout(LONG, writing).await.unwrap().unwrap().unwrap();
    let bytes = timeout(LONG, reading).await.unwrap().unwrap().unwrap();
    assert!(bytes[7..] == content[7..]);
    let after = session.channels();
    assert_eq!(after.len(), before.len(), "no channel was lost");
    assert!(after.iter().all(|channel| channel.state == ChannelState::Live && channel.repeats == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_server_process() {
    let mut world = World::start(&pattern(5000)).await;
    let session = world.connect(BOTH).await;
    let (id, epoch) = (session.id(), session.epoch());
    let mut events = session.events();
    let export = session.export(EXPORT).unwrap();
    for _ in 0..3 {
        world.kill();
        lost(&mut events).await;
        let asked = tokio::spawn({
            let export = export.clone();
            async move { export.metadata("file").await }
        });
        world.start_again();
        assert_eq!(timeout(LONG, asked).await.unwrap().unwrap().unwrap().len, 5000);
        session.all_lines_up(LONG).await.unwrap();
    }
    assert_ne!(session.id(), id);
    assert!(session.epoch() >= epoch);
    let file = world.open(&session, &read_write()).await.unwrap();
    file.write_at(0, b"goes on").await.unwrap();
    assert_eq!(&std::fs::read(world.file("file")).unwrap()[..7], b"goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_politely_is_waited_for_and_one_without_its_state_says_so() {
    let mut place = Place::start(Limits::default()).await;
    let session = place.connect().await;
    let mut events = session.events();
    let file = place.open(&session, "file", &read_write().exclusive()).await;
    file.write_at(0, b"bytes").await.unwrap();
    let handle = file.handle();
    place.replace_server().await;
    let export = session.export(EXPORT).unwrap();
    assert_eq!(export.metadata("other").await.unwrap().len, 5);
    for _ in 0..2 {
        assert!(matches!(file.stat().await, Err(Error::StateLost)));
    }
    let loss = HandleLoss::StateLost;
    told(&mut events, |event| *event == SessionEvent::ResumeFailed { handle, loss }).await;
    assert_eq!(file.meanwhile(), None::<Meanwhile>);
    let again = place.open(&session, "file", &read_write().exclusive()).await;
    let mut bytes = [0; 5];
    again.read_at(0, &mut bytes).await.unwrap();
    assert_eq!(&bytes, b"bytes");
    file.close().await.unwrap();
    again.close().await.unwrap();
    session.close().await;
    assert_eq!(place.server().opens_len(), 0);
}

/// A call waits for its time and no longer, and the session is none the worse for it.
#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_their_time_while_the_session_comes_back() {
    let mut place = Place::start(Limits::default()).await;
    let session = place.connect().await;
    let mut events = session.events();
    place.server.take().unwrap().stop().await;
    lost(&mut events).await;
    let export = session.export(EXPORT).unwrap().with_timeout(Duration::from_millis(300));
    for _ in 0..2 {
        let asked = Clock.now();
        let error = export.metadata("other").await.unwrap_err();
        // A line whose connections are closed at once is all that the client sees, and it says so if it has seen it.
        assert!(matches!(error, Error::TimedOut(_) | Error::HandshakeRefused { .. }), "{error}");
        assert!(Clock.now().since(asked) >= Duration::from_millis(300), "it ended before its time");
    }
    let server = place.serve();
    for (recorder, &address) in place.recorders.iter().zip(server.addresses()) {
        recorder.redirect(address);
    }
    place.server = Some(server);
    session.all_lines_up(LONG).await.unwrap();
    assert_eq!(export.metadata("other").await.unwrap().len, 5);
    assert!(session.lines().iter().all(|line| line.offered == Protection::Sealed));
}
