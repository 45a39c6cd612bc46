//! Answers that are lost: the server has done what it was asked and has said so, nothing of that arrives, and the client asks
//! again on a new channel. Whatever was asked, that ends as if no answer had been lost: done once, and told the same.

use bowline::model::{
    Allocation, AttributeChange, ByteRange, GrantId, HandleId, LineSet, LockMode, OpenId, PublicKey, Reason,
    Rights, XattrHow, XattrName,
};
use bowline::session::client::{Answer, Operation, Ticket};
use bowline::wire::ServerControl;
use bowline::wire::control::{Allocate, Change as ChangeAttributes, Target};
use bowline::wire::grants::{Grant, Revoke};
use bowline::wire::names::{XattrRemove, XattrSet};

use super::intents::{ALL, Change};
use super::opens::refusal;
use super::pair::{Cut, LineSpec, Pair, Payload, Who};
use super::{L0, L1, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

/// A client with a handle of `a`, which has a lock, an attribute and a grant that can be taken away, and another process
/// of the same user with a handle of the same open.
struct Scene {
    pair: Pair,
    who: Who,
    handle: HandleId,
    grant: GrantId,
    beside: (Who, HandleId),
    open: OpenId,
}

impl Scene {
    fn new() -> Self {
        let mut pair = Pair::new(6);
        pair.disk.put("a", vec![7; 64]);
        pair.disk.put("old", vec![8; 8]);
        let [who, other] = [1, 1].map(|name| pair.complete_client(name, &LINES));
        let open = pair.open(who, "a");
        let (handle, key) = pair.opened(who, open);
        let resume = pair.resume(other, &key.unwrap(), None);
        let beside = (other, pair.opened(other, resume).0);
        let open = pair.server.table().opens().next().unwrap().open;
        let mut scene = Self { pair, who, handle, grant: GrantId(0), beside, open };
        let lock = scene.lock((who, handle), locked());
        let set = scene.set_attribute("user.old");
        let grant = scene.grant(2);
        scene.pair.finish(who, lock);
        scene.pair.finish(who, set);
        let granted = match scene.pair.finish(who, grant) {
            Answer::Control(ServerControl::Granted(granted), _) => granted.grant,
            other => panic!("{other:?}"),
        };
        Self { grant: granted, ..scene }
    }

    fn lock(&mut self, (who, handle): (Who, HandleId), range: ByteRange) -> Ticket {
        self.pair.lock(who, handle, (range, LockMode::Exclusive), millis(0))
    }

    fn set_attribute(&mut self, name: &str) -> Ticket {
        let (target, value) = (Target::Handle(self.handle), b"value".to_vec());
        let set = XattrSet { target, name: xattr(name), how: XattrHow::Create };
        let len = u32::try_from(value.len()).unwrap();
        let operation = Operation::ControlWith(set.into(), Payload::new(value), len);
        self.pair.request(self.who, operation, LineSet::ALL)
    }

    fn grant(&mut self, to: u8) -> Ticket {
        let (to, rights) = (PublicKey([to; 32]), Rights::READ);
        let grant = Grant { handle: self.handle, to, rights, lasts_ms: 0, deliver: true, gives_up: false };
        self.pair.control(self.who, grant)
    }

    fn allocate(&mut self, range: ByteRange, how: Allocation) -> Ticket {
        self.pair.control(self.who, Allocate { handle: self.handle, range: range.raw(), how })
    }

    /// Whether the server has answered a request, whoever hears it.
    fn has_answered(pair: &Pair, who: Who, request: Ticket) -> bool {
        let sent = pair.sent(who).iter().find(|sent| sent.ticket == Some(request));
        sent.is_some_and(|sent| {
            pair.answers.iter().any(|answer| answer.who == who && answer.request == sent.request)
        })
    }

    /// What the server sends to the client from now on does not arrive.
    fn mute(&mut self) {
        for line in [L0, L1] {
            self.pair.stall_towards_client(self.who, line);
        }
    }

    fn until_answered(&mut self, request: Ticket) {
        let who = self.who;
        self.pair
            .run_until("the server has answered", seconds(1), |pair| Self::has_answered(pair, who, request));
    }

    /// What has become of everything: of the files, of the table, and how often work was done.
    fn state(&self) -> String {
        let (disk, table) = (&self.pair.disk, self.pair.server.table());
        format!(
            "{} changes, {} opened, {} closed; {} opens, {} holders, {} grants; locks {:?}; files {}",
            disk.mutations,
            disk.opened,
            disk.closed.len(),
            table.opens_len(),
            table.holders_len(),
            table.grants_len(),
            table.locks(self.open),
            disk.everything(),
        )
    }
}

fn locked() -> ByteRange {
    ByteRange::between(0, 16).unwrap()
}

fn free() -> ByteRange {
    ByteRange::between(32, 48).unwrap()
}

fn xattr(name: &str) -> XattrName {
    XattrName::new(name.as_bytes()).unwrap()
}

/// What asks for something, and says under which ticket.
type Ask = Box<dyn Fn(&mut Scene) -> Ticket>;

/// Everything that changes something: its name, how it is asked for, and what the other process does before it is asked
/// for again. That undoes it where doing it again would not show otherwise.
fn everything() -> Vec<(String, Ask, Option<Ask>)> {
    let once = |name: &str, ask: Ask| (name.to_owned(), ask, None);
    let change =
        |what: Change| -> Ask { Box::new(move |scene| what.ask(&mut scene.pair, scene.who, scene.handle)) };
    let mut all: Vec<_> = ALL.iter().map(|&what| once(&format!("{what:?}"), change(what))).collect();
    let lock: Ask = Box::new(|scene| scene.lock((scene.who, scene.handle), free()));
    let unlock_beside: Ask = Box::new(|scene| scene.pair.unlock(scene.beside.0, scene.beside.1, free()));
    let unlock: Ask = Box::new(|scene| scene.pair.unlock(scene.who, scene.handle, locked()));
    let lock_beside: Ask = Box::new(|scene| scene.lock(scene.beside, locked()));
    all.push(("Lock".to_owned(), lock, Some(unlock_beside)));
    all.push(("Unlock".to_owned(), unlock, Some(lock_beside)));
    all.push(once("Write", Box::new(|scene| scene.pair.write(scene.who, scene.handle, 8, *b"written"))));
    all.push(once(
        "SetAttributes",
        Box::new(|scene| {
            let change = AttributeChange { permissions: Some(0o600), ..AttributeChange::default() };
            scene.pair.control(scene.who, ChangeAttributes { target: Target::Handle(scene.handle), change })
        }),
    ));
    let behind = || ByteRange::between(64, 128).unwrap();
    all.push(once("Reserve", Box::new(move |scene| scene.allocate(behind(), Allocation::Reserve))));
    all.push(once("PunchHole", Box::new(|scene| scene.allocate(free(), Allocation::PunchHole))));
    all.push(once("XattrSet", Box::new(|scene| scene.set_attribute("user.new"))));
    all.push(once(
        "XattrRemove",
        Box::new(|scene| {
            let (target, name) = (Target::Handle(scene.handle), xattr("user.old"));
            scene.pair.control(scene.who, XattrRemove { target, name })
        }),
    ));
    all.push(once("Grant", Box::new(|scene| scene.grant(3))));
    all.push(once(
        "Revoke",
        Box::new(|scene| {
            let revoke = Revoke { handle: scene.handle, grant: scene.grant };
            scene.pair.control(scene.who, revoke)
        }),
    ));
    all.push(once("Close", Box::new(|scene| scene.pair.close(scene.who, scene.handle))));
    all
}

/// What becomes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It arrives.
    Open,
    /// Its channel is cut, and with it every other one.
    Cut,
    /// What the server sends stays on its way; what the client sends arrives.
    OneWay,
}

/// What comes of a request: what is told, and how everything is then.
fn asked(ask: &Ask, meanwhile: Option<&Ask>, way: Way) -> (String, String) {
    let mut scene = Scene::new();
    let who = scene.who;
    let request = ask(&mut scene);
    if way == Way::OneWay {
        scene.mute();
    }
    scene.until_answered(request);
    if way == Way::Cut {
        for line in [L0, L1] {
            scene.pair.cut(who, line, Cut::NOW);
        }
    }
    if let Some(meanwhile) = meanwhile {
        let undone = meanwhile(&mut scene);
        scene.pair.finish(scene.beside.0, undone);
    }
    scene.pair.run_for(millis(100));
    assert_eq!(scene.pair.is_answered(who, request), way == Way::Open);
    if way == Way::Cut {
        for line in [L0, L1] {
            scene.pair.heal(who, line);
        }
    }
    let told = match scene.pair.finish(who, request) {
        // The key is told once, and another one asked for in its place.
        Answer::Control(ServerControl::Opened(opened), _) => {
            format!("{:?} {:?}", opened.handle, opened.state)
        }
        answer => format!("{answer:?}"),
    };
    scene.pair.run_for(seconds(1));
    let sent: Vec<_> = scene.pair.sent(who).iter().filter(|sent| sent.ticket == Some(request)).collect();
    assert_eq!(sent.len() > 1, way != Way::Open);
    assert!(sent.iter().all(|one| one.request == sent[0].request), "it is the same request");
    let is_elsewhere = sent.last().map(|last| last.number) != sent.first().map(|first| first.number);
    assert_eq!(is_elsewhere, way != Way::Open, "on a new channel");
    (told, scene.state())
}

fn check_repeats(way: Way) {
    for (name, ask, meanwhile) in everything() {
        let heard = asked(&ask, meanwhile.as_ref(), Way::Open);
        assert_eq!(asked(&ask, meanwhile.as_ref(), way), heard, "{name}");
    }
}

#[test]
fn t32_what_is_asked_again_because_its_answer_was_lost_is_done_once_and_told_the_same() {
    check_repeats(Way::Cut);
}

#[test]
fn f24_t32_what_arrives_on_a_line_that_brings_no_answers_is_done_once_and_told_the_same() {
    check_repeats(Way::OneWay);
}

/// The server that has done it is killed before its client has heard of it: at once, when only the change itself tells, or
/// when it is recorded that it was made.
#[test]
fn f24_t32_of_what_a_killed_server_has_answered_in_vain_only_a_directory_may_be_unknown() {
    for change in ALL {
        for wait in [0, 100] {
            let mut scene = Scene::new();
            let request = change.ask(&mut scene.pair, scene.who, scene.handle);
            scene.mute();
            scene.until_answered(request);
            scene.pair.run_for(millis(wait));
            scene.pair.restart_server();
            let (pair, who) = (&mut scene.pair, scene.who);
            pair.run_until("it is told", seconds(30), |pair| pair.is_answered(who, request));
            pair.run_for(seconds(1));
            assert_eq!(change.made(pair), 1, "{change:?}");
            // Nothing tells who has made a directory, until it is recorded.
            let is_known = change != Change::MakeDirectory || wait > 0;
            if is_known {
                pair.finish(who, request);
            } else {
                assert_eq!(refusal(pair.error(who, request)).reason, Reason::Unknown);
            }
        }
    }
}
