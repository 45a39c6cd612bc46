//! What comes of tampering, with both cores: the channel is dropped within one record, nothing at the server is other
//! than before, the session's other channels live, and what was under way is done elsewhere and ends right.

use bowline::model::{ChannelKind, ChannelNumber, HandleId, Limits, Protection, Suite};
use bowline::secure::suites;
use bowline::session::LossReason;
use bowline::session::client::{Answer, RequestError, Ticket};
use bowline::wire::ServerControl;

use super::link::{Borders, End, Link, Spec};
use super::pipes::{Attack, Hit, Outcome, Sent, World};
use super::samples;

/// What data channels are like.
type Mode = (Protection, Suite);

/// Each protection with each suite that this processor has instructions for.
fn modes() -> impl Iterator<Item = Mode> {
    Protection::EACH.iter().flat_map(|&protection| suites().iter().map(move |suite| (protection, suite)))
}

fn content() -> Vec<u8> {
    (0..4096_u32).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A world with an open file, and what it looks like then.
struct Scene {
    world: World,
    handle: HandleId,
    /// How many records each end had sent on each channel.
    before: Vec<Sent>,
}

impl Scene {
    fn new(mode: Mode) -> Self {
        let mut world = World::new(mode, &content());
        let handle = world.open();
        world.settle();
        let before = world.sent.clone();
        Self { world, handle, before }
    }

    /// How many records this end has sent on this channel before anything was attacked.
    fn count(&self, number: ChannelNumber, sender: End) -> usize {
        self.before.iter().filter(|sent| (sent.number, sent.sender) == (number, sender)).count()
    }

    fn ask(&mut self, what: Ask) -> Ticket {
        match what {
            Ask::Read => self.world.read(self.handle, 100, 200),
            Ask::Write => self.world.write(self.handle, 300, vec![0xaa; 200]),
            Ask::Stat => self.world.stat(self.handle),
        }
    }
}

/// What is under way while somebody tampers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Read,
    Write,
    Stat,
}

impl Ask {
    fn check(self, outcome: &Outcome) {
        match (self, outcome) {
            (Self::Read, Ok(Answer::Read(Some(bytes)))) => assert_eq!(bytes[..], content()[100..300]),
            (Self::Write, Ok(Answer::Written(done))) => assert_eq!(done.written, 200),
            (Self::Stat, Ok(Answer::Control(ServerControl::Stated(stated), _))) => {
                assert_eq!(stated.state.attributes.len, 4096);
            }
            (_, other) => panic!("{self:?} came to {other:?}"),
        }
    }
}

/// Which records of which channel carry a request or its answer, and those records' bytes: seen in a run in which
/// nobody tampers. Everything is the same in each run until somebody does. On a clear channel an answer with payload is
/// two records, of which the second one is its trailer.
fn seen(mode: Mode, ask: Ask, sender: End) -> Vec<Sent> {
    let mut scene = Scene::new(mode);
    let ticket = scene.ask(ask);
    scene.world.run_until(|world| world.outcomes.contains_key(&ticket));
    let sent = scene.world.sent[scene.before.len()..].iter().filter(|sent| sent.sender == sender).cloned();
    let sent: Vec<Sent> = sent.collect();
    let is_trailed = (mode.0, ask, sender) == (Protection::Clear, Ask::Read, End::Server);
    assert_eq!(sent.len(), if is_trailed { 2 } else { 1 }, "{mode:?}, {ask:?}, {sender:?}");
    sent
}

/// Whether nothing protects this bit: it is one of a clear channel's payload. What comes of it, `records` and
/// `tampered_lines` show.
fn is_open(mode: Mode, frame: &[u8], bit: usize) -> bool {
    mode.0 == Protection::Clear && bit >= Borders::of(frame).tag_h * 8
}

/// Tampers with the request or its answer, and checks everything that must come of it.
fn tamper(mode: Mode, ask: Ask, target: &Sent, hit: Hit) {
    let what = format!("{mode:?}, {ask:?}, sent by the {:?}, {hit:?}", target.sender);
    let mut scene = Scene::new(mode);
    let before = scene.world.state();
    let Sent { number, sender, at, .. } = *target;
    assert!(at >= scene.count(number, sender), "{what}");
    let is_silent = matches!(hit, Hit::Drop | Hit::Swap);
    let is_end = matches!(hit, Hit::Cut { .. } | Hit::EndBehind);
    let is_heard = matches!(hit, Hit::Duplicate | Hit::EndBehind);
    scene.world.attack = Some(Attack { number, sender, at, hit });
    let ticket = scene.ask(ask);
    let began = scene.world.now();
    scene.world.settle();
    if !is_silent {
        assert_eq!(scene.world.now(), began, "{what}: no time has passed");
        assert_dropped(&scene.world, target, is_end, &what);
    }
    let is_executed = sender == End::Server || is_heard;
    if ask != Ask::Write || (!is_executed && !scene.world.outcomes.contains_key(&ticket)) {
        assert_eq!(scene.world.state(), before, "{what}");
    }
    scene.world.run_until(|world| world.outcomes.contains_key(&ticket));
    ask.check(&scene.world.outcomes[&ticket]);
    scene.world.run_until(|world| {
        world.live(ChannelKind::Data).len() == 2 && world.live(ChannelKind::Control).len() == 2
    });
    assert_dropped(&scene.world, target, is_end, &what);
    if ask == Ask::Write {
        assert_eq!(scene.world.disk.writes.len(), 1, "{what}: executed once");
        assert_eq!(scene.world.disk.bytes("a")[300..500], [0xaa; 200], "{what}");
    } else {
        assert_eq!(scene.world.state(), before, "{what}");
    }
}

/// The channel is gone, for its reason, and no other.
fn assert_dropped(world: &World, target: &Sent, is_end: bool, what: &str) {
    let own = if is_end { LossReason::Broken } else { LossReason::Offence };
    // Whoever finds the offence knows it; the other end sees a connection that ends.
    let expected = match target.sender {
        End::Client => (vec![(target.number, own)], vec![(target.number, LossReason::Broken)]),
        End::Server => (vec![(target.number, LossReason::Broken)], vec![(target.number, own)]),
    };
    assert_eq!((world.server_losses.clone(), world.losses()), expected, "{what}");
}

fn each_case() -> Vec<(Mode, Ask, Sent)> {
    let mut cases = Vec::new();
    for mode in modes() {
        for ask in [Ask::Read, Ask::Write, Ask::Stat] {
            for sender in [End::Client, End::Server] {
                cases.extend(seen(mode, ask, sender).into_iter().map(|target| (mode, ask, target)));
            }
        }
    }
    cases
}

#[test]
fn t01_after_a_flipped_bit_the_channel_is_gone_nothing_has_changed_and_the_request_ends_right() {
    for (mode, ask, target) in each_case() {
        let borders = Borders::of(&target.frame);
        let bits = target.frame.len() * 8;
        for bit in (0..bits).step_by(61).chain([0, 1, borders.body * 8, borders.tag_h * 8 - 1, bits - 1]) {
            // The next test has those that make one wait.
            if makes_wait(&target.frame, bit) || is_open(mode, &target.frame, bit) {
                continue;
            }
            tamper(mode, ask, &target, Hit::Flip { bit });
        }
    }
}

/// Whether the record states a longer body with this bit flipped, so that the receiver waits for what comes behind it.
fn makes_wait(frame: &[u8], bit: usize) -> bool {
    let len = u32::from_le_bytes(frame[..4].try_into().unwrap());
    let stated = if bit < 32 { len ^ (1 << bit) } else { len };
    stated > len && usize::try_from(stated).unwrap() <= Limits::BODY_LEN_MAX
}

#[test]
fn t01_a_longer_body_than_was_sent_is_waited_for_no_longer_than_a_silent_channel() {
    for (mode, ask, target) in each_case() {
        for bit in [0, 1, 6, 8, 14].into_iter().filter(|&bit| makes_wait(&target.frame, bit)) {
            let mut scene = Scene::new(mode);
            let before = scene.world.state();
            let Sent { number, sender, at, .. } = target;
            scene.world.attack = Some(Attack { number, sender, at, hit: Hit::Flip { bit } });
            let ticket = scene.ask(ask);
            let began = scene.world.now();
            scene.world.settle();
            // What stands behind the body may be enough to fill it: then it was refused, and the repeat was executed.
            if sender == End::Client && !scene.world.outcomes.contains_key(&ticket) {
                assert_eq!(scene.world.state(), before, "nothing was executed");
            }
            scene.world.run_until(|world| world.outcomes.contains_key(&ticket));
            ask.check(&scene.world.outcomes[&ticket]);
            assert!(scene.world.now().since(began) <= core::time::Duration::from_millis(3_100));
            assert_eq!(scene.world.losses().len(), 1);
            assert!(scene.world.disk.writes.len() <= 1, "executed once");
        }
    }
}

#[test]
fn t03_a_duplicate_a_gap_and_a_swap_end_the_channel_and_lose_nothing() {
    for (mode, ask, target) in each_case() {
        for hit in [Hit::Duplicate, Hit::Drop, Hit::Swap] {
            tamper(mode, ask, &target, hit);
        }
    }
}

#[test]
fn t04_a_record_from_elsewhere_ends_the_channel_and_executes_nothing() {
    for (mode, ask, target) in each_case() {
        let scene = Scene::new(mode);
        // Everything that either end has sent on any channel, and what another session's client writes.
        let elsewhere = scene.before.iter().map(|sent| sent.frame.clone());
        let foreign = Link::new(Spec {
            number: target.number.0.max(1),
            kind: ChannelKind::Data,
            protection: mode.0,
            suite: mode.1,
            session: 9,
            attempt: 1,
        });
        let foreign = foreign
            .expect("such a channel")
            .frames(samples::client_data().into_iter().map(|(_, message)| (message, Vec::new())));
        for frame in elsewhere.chain(foreign) {
            tamper(mode, ask, &target, Hit::Inject { frame });
        }
    }
}

#[test]
fn t05_a_record_that_is_cut_is_no_record_and_an_end_without_a_farewell_is_a_loss() {
    for (mode, ask, target) in each_case() {
        for len in (0..target.frame.len()).step_by(7).chain([target.frame.len() - 1]) {
            tamper(mode, ask, &target, Hit::Cut { len });
        }
        tamper(mode, ask, &target, Hit::EndBehind);
    }
}

/// Reads and writes of a session of 500 records on one data channel, all of them checked.
fn long_run(world: &mut World, handle: HandleId) {
    let mut tickets = Vec::new();
    for round in 0..125_u64 {
        let offset = round * 32;
        let write = world.write(handle, offset, vec![u8::try_from(round).unwrap(); 16]);
        let read = world.read(handle, 4096 - 48, 64);
        tickets.push((write, read));
        if round % 4 == 3 {
            world.run_until(|world| world.client.outstanding().0 == 0);
        }
    }
    world.run_until(|world| world.client.outstanding().0 == 0);
    for (write, read) in tickets {
        match (&world.outcomes[&write], &world.outcomes[&read]) {
            // The last 48 bytes of the file, and no fewer: the last rounds have written some of them.
            (Ok(Answer::Written(done)), Ok(Answer::Read(Some(bytes)))) => {
                assert_eq!((done.written, bytes.len()), (16, 48));
            }
            other => panic!("{other:?}"),
        }
    }
    let bytes = world.disk.bytes("a");
    for round in 0..125_usize {
        assert_eq!(bytes[round * 32..round * 32 + 16], [u8::try_from(round).unwrap(); 16]);
    }
    assert_eq!(world.disk.writes.len(), 125, "each write was executed once");
}

#[test]
fn t05_a_session_of_500_records_that_is_cut_at_any_border_reads_nothing_short_and_loses_nothing() {
    // Each protection once, sealed and clear channels with the faster suite where there is one: 3,000 sessions are enough.
    let [signed, fast] = [Suite::ChaCha20Poly1305, suites().iter().last().unwrap()];
    for mode in [(Protection::Signed, signed), (Protection::Sealed, fast), (Protection::Clear, fast)] {
        let mut scene = Scene::new(mode);
        long_run(&mut scene.world, scene.handle);
        let borders: Vec<_> = scene.world.sent[scene.before.len()..].to_vec();
        assert!(borders.len() >= 500, "{} records", borders.len());
        for border in borders {
            let Sent { number, sender, at, .. } = border;
            let mut scene = Scene::new(mode);
            scene.world.attack = Some(Attack { number, sender, at, hit: Hit::EndBehind });
            long_run(&mut scene.world, scene.handle);
            scene.world.settle();
            assert_eq!(scene.world.losses(), [(number, LossReason::Broken)], "cut behind {at} of {sender:?}");
        }
    }
}

#[test]
fn t05_with_a_farewell_the_same_end_is_a_channel_that_was_closed() {
    let mut scene = Scene::new((Protection::Sealed, Suite::ChaCha20Poly1305));
    let read = scene.world.read(scene.handle, 0, 10);
    scene.world.settle();
    assert!(scene.world.outcomes[&read].is_ok());
    scene.world.close();
    scene.world.settle();
    let farewell = |note: &bowline::session::server::ServerNote| {
        use bowline::session::server::ServerNote::ChannelLost;
        matches!(note, ChannelLost { reason: LossReason::Farewell, .. })
    };
    assert_eq!(scene.world.notes.iter().filter(|note| farewell(note)).count(), 4, "{:?}", scene.world.notes);
    let late = scene.world.read(scene.handle, 0, 10);
    assert!(matches!(scene.world.outcomes[&late], Err(RequestError::Ended(_))));
}
