//! The client's core alone: what a server may say is fed to it, and what it does is looked at.

mod comeback;

use core::time::Duration;

use super::*;
use crate::model::{
    Attributes, BootId, Epoch, GrantId, HandleId, LineRole, LineSet, LockMode, Protection, PublicKey,
    RawRange, Reason, Refusal, Rights, SessionId, Stability, StoreId, Verifier,
};
use crate::session::{Input, LossReason};
use crate::wire::control::{
    CancelLock, Done, Lock, LockQueued, LockWanted, Locked, Opened, Refused, Stat, Stated, Unlock,
};
use crate::wire::data::{Append, AppendDone, Read, ReadDone, Write, WriteDone};
use crate::wire::names::{
    Found, List, Listed, Lookup, MakeDirectory, Place, XattrGet, XattrList, XattrNames, XattrSet, XattrValue,
};
use crate::wire::notices::{GrantOffered, HandleEnded, Heard, LockEnded};
use crate::wire::{ClientControl, ClientData, ServerControl, ServerData};

type Core = ClientCore<&'static str>;
type Output = ClientOutput<&'static str>;

const NOW: Time = Time(1_000_000);
const HANDLE: HandleId = HandleId(7);
const RANGE: RawRange = RawRange { start: 10, len: 20 };
const C0: ChannelNumber = ChannelNumber(0);

/// A core with a control and a data channel on each of two lines.
struct Bench {
    core: Core,
    data: ChannelNumber,
    spare: ChannelNumber,
}

impl Bench {
    fn new() -> Self {
        Self::with_credit(64, 8 << 20)
    }

    fn with_credit(requests: u32, bytes: u64) -> Self {
        let line = LineSetup { role: LineRole::Both, protection: Protection::Sealed };
        let setup = ClientSetup {
            limits: Limits::default(),
            lines: vec![line; 2],
            first_line: LineId(0),
            terms: terms(requests, bytes),
        };
        let mut core = Core::new(NOW, setup);
        let mut bound = Vec::new();
        while let Some(output) = core.poll_output() {
            if let ClientOutput::Connect { number, kind, .. } = output {
                bound.push((number, kind));
            }
        }
        for &(number, _) in &bound {
            core.handle_bound(NOW, number, Protection::Sealed);
        }
        let of = |wanted| bound.iter().find(|(_, kind)| *kind == wanted).unwrap().0;
        let mut bench = Self { core, data: of(ChannelKind::Data), spare: of(ChannelKind::Control) };
        bench.outputs();
        bench
    }

    fn outputs(&mut self) -> Vec<Output> {
        core::iter::from_fn(|| self.core.poll_output()).collect()
    }

    /// Asks, and tells the ticket and the id under which it was sent.
    fn ask(&mut self, operation: Operation<&'static str>) -> (Ticket, RequestId) {
        let ticket = self.core.handle_request(NOW, operation, LineSet::ALL);
        let outputs = self.outputs();
        let id = outputs.iter().find_map(|output| match output {
            ClientOutput::Send { ticket: Some(sent), request, .. } if *sent == ticket => Some(*request),
            _ => None,
        });
        (ticket, id.unwrap_or(RequestId::NONE))
    }

    fn control(&mut self, message: impl Into<ClientControl>) -> (Ticket, RequestId) {
        self.ask(Operation::Control(message.into()))
    }

    fn lock(&mut self) -> (Ticket, RequestId) {
        self.control(lock(60_000))
    }

    fn hear(&mut self, number: ChannelNumber, request: RequestId, message: FromServer) -> Vec<Output> {
        self.hear_with(number, request, message, 0)
    }

    fn hear_with(&mut self, on: ChannelNumber, id: RequestId, what: FromServer, len: u32) -> Vec<Output> {
        let payload = (len > 0).then_some("payload");
        let input =
            Input { request: id, settled: RequestId::NONE, message: Ok(what), payload_len: len, payload };
        self.core.handle_input(NOW, on, input);
        self.outputs()
    }

    fn answer(&mut self, request: RequestId, message: impl Into<ServerControl>) -> Vec<Output> {
        self.hear(C0, request, FromServer::Control(message.into()))
    }

    fn notice(&mut self, on: ChannelNumber, notice: u64, lock: RequestId, granted: bool) -> Vec<Output> {
        let outcome = if granted { Ok(locked()) } else { Err(Refusal::from(Reason::Interrupted)) };
        let ended = LockEnded { notice, lock, outcome };
        self.hear(on, RequestId::NONE, FromServer::Control(ended.into()))
    }

    /// A lock that the server has queued.
    fn queued_lock(&mut self) -> (Ticket, RequestId) {
        let (ticket, id) = self.lock();
        assert!(completions(&self.answer(id, LockQueued {})).is_empty(), "it is not answered yet");
        (ticket, id)
    }
}

fn terms(requests: u32, bytes: u64) -> Terms {
    let verifier = Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 0 };
    let (session, payload_max, epoch) = (SessionId([3; 16]), 1 << 20, Epoch(1));
    Terms { session, requests, bytes, payload_max, epoch, verifier }
}

impl Payload for &'static str {
    fn part(&self, start: u32, len: u32) -> Self {
        let start = usize::try_from(start).unwrap();
        &self[start..start + usize::try_from(len).unwrap()]
    }
}

fn lock(wait_ms: u64) -> Lock {
    Lock { handle: HANDLE, wanted: LockWanted { mode: LockMode::Exclusive, range: RANGE }, wait_ms }
}

fn locked() -> Locked {
    Locked { handle: HANDLE, range: RANGE }
}

fn place() -> Place {
    Place { export: "data".parse().unwrap(), path: crate::model::ExportPath::ROOT }
}

fn list() -> List {
    List { place: place(), cookie: None, with_attributes: false }
}

/// Requests that were answered, and whether with success.
fn completions(outputs: &[Output]) -> Vec<(Ticket, bool)> {
    let complete = |output: &Output| match output {
        ClientOutput::Complete { ticket, outcome } => Some((*ticket, outcome.is_ok())),
        _ => None,
    };
    outputs.iter().filter_map(complete).collect()
}

/// What was sent on control channels, and on which.
fn sent(outputs: &[Output]) -> Vec<(ChannelNumber, ClientControl)> {
    let send = |output: &Output| match output {
        ClientOutput::Send { number, message: ToServer::Control(message), .. } => {
            Some((*number, message.clone()))
        }
        _ => None,
    };
    outputs.iter().filter_map(send).collect()
}

fn is_offence(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        matches!(output, ClientOutput::Event(SessionEvent::ChannelDown { reason: LossReason::Offence, .. }))
    })
}

fn heard(notice: u64) -> ClientControl {
    Heard { notice }.into()
}

#[test]
fn a_lock_that_waits_holds_no_credit_and_no_window_and_ends_with_its_notice() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    assert_eq!(bench.core.in_flight(), (0, 0));
    assert_eq!(bench.core.settled(), id.next(), "a waiting lock does not hold up what is settled");
    let outputs = bench.notice(C0, 1, id, true);
    assert_eq!(completions(&outputs), [(ticket, true)]);
    assert_eq!(sent(&outputs), [(C0, heard(1))]);
    assert_eq!(bench.core.outstanding().0, 0);
}

#[test]
fn a_refusal_ends_a_waiting_lock() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    assert_eq!(completions(&bench.notice(C0, 1, id, false)), [(ticket, false)]);
}

#[test]
fn a_lock_that_waits_outlives_its_channel_and_is_not_asked_for_again() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    bench.core.handle_lost(NOW, C0, LossReason::Broken);
    assert!(sent(&bench.outputs()).is_empty(), "nothing is repeated");
    let spare = bench.spare;
    let outputs = bench.notice(spare, 1, id, true);
    assert_eq!(completions(&outputs), [(ticket, true)]);
    assert_eq!(sent(&outputs), [(spare, heard(1))], "heard on the channel that it came on");
}

#[test]
fn a_notice_may_overtake_the_answer_that_the_lock_is_queued() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.lock();
    let spare = bench.spare;
    assert_eq!(completions(&bench.notice(spare, 1, id, true)), [(ticket, true)]);
    assert_eq!(bench.core.in_flight(), (0, 0), "its credit is back");
    let outputs = bench.answer(id, LockQueued {});
    assert!(completions(&outputs).is_empty() && !is_offence(&outputs));
    // And so may it overtake the kept answer to a repeat, which is on its way to another channel.
    let (ticket, id) = bench.lock();
    bench.core.handle_lost(NOW, C0, LossReason::Broken);
    assert_eq!(sent(&bench.outputs()).len(), 1, "the repeat");
    assert_eq!(completions(&bench.notice(spare, 2, id, true)), [(ticket, true)]);
    let outputs = bench.hear(spare, id, FromServer::Control(locked().into()));
    assert!(completions(&outputs).is_empty() && !is_offence(&outputs) && sent(&outputs).is_empty());
}

#[test]
fn notices_are_taken_in_order_once_and_a_gap_is_an_offence() {
    let mut bench = Bench::new();
    let (first, id_1) = bench.queued_lock();
    let (_, id_2) = bench.queued_lock();
    assert_eq!(completions(&bench.notice(C0, 1, id_1, true)), [(first, true)]);
    let outputs = bench.notice(C0, 1, id_2, true);
    assert!(completions(&outputs).is_empty(), "a repeat says nothing new");
    assert_eq!(sent(&outputs), [(C0, heard(1))], "and is heard again");
    let unknown = bench.notice(C0, 2, RequestId(900), true);
    assert_eq!(sent(&unknown), [(C0, heard(2))], "a notice of an unknown lock is heard and ignored");
    assert!(completions(&unknown).is_empty());
    let outputs = bench.notice(C0, 4, id_2, true);
    assert!(is_offence(&outputs) && completions(&outputs).is_empty(), "3 was never sent");
    let spare = bench.spare;
    assert!(is_offence(&bench.notice(spare, 0, id_2, true)), "notices begin with 1");
}

#[test]
fn notices_of_every_kind_are_numbered_together_told_once_and_heard() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    let offered = |notice| {
        let (from, export, path) = (PublicKey([1; 32]), place().export, place().path);
        GrantOffered { notice, grant: GrantId(5), from, export, path, rights: Rights::READ }
    };
    let ended = |notice| HandleEnded { notice, handle: HANDLE, refusal: Reason::Revoked.into() };
    let hear = |bench: &mut Bench, notice: ServerControl| {
        bench.hear(C0, RequestId::NONE, FromServer::Control(notice))
    };
    let events = |outputs: &[Output]| -> Vec<SessionEvent> {
        let event = |output: &Output| match output {
            ClientOutput::Event(event) => Some(event.clone()),
            _ => None,
        };
        outputs.iter().filter_map(event).collect()
    };
    let outputs = hear(&mut bench, offered(1).into());
    let GrantOffered { grant, from, export, path, rights, .. } = offered(1);
    assert_eq!(events(&outputs), [SessionEvent::GrantOffered { grant, from, export, path, rights }]);
    assert_eq!(sent(&outputs), [(C0, heard(1))]);
    let outputs = hear(&mut bench, ended(2).into());
    let refusal = Reason::Revoked.into();
    assert_eq!(events(&outputs), [SessionEvent::HandleEnded { handle: HANDLE, refusal }]);
    assert_eq!(sent(&outputs), [(C0, heard(2))]);
    let outputs = bench.notice(C0, 3, id, true);
    assert_eq!((completions(&outputs), sent(&outputs)), (vec![(ticket, true)], vec![(C0, heard(3))]));
    for repeat in [offered(1).into(), ended(2).into()] {
        let outputs = hear(&mut bench, repeat);
        assert_eq!((events(&outputs), sent(&outputs)), (vec![], vec![(C0, heard(3))]), "a repeat");
    }
    for wrong in [offered(0).into(), offered(5).into(), ended(0).into(), ended(5).into()] {
        let mut bench = Bench::new();
        let outputs = hear(&mut bench, wrong);
        assert!(is_offence(&outputs) && sent(&outputs).is_empty());
    }
    let mut bench = Bench::new();
    let (_, stat) = bench.control(Stat { handle: HANDLE });
    assert!(is_offence(&bench.answer(stat, offered(1))), "a notice is no answer");
}

#[test]
fn a_notice_that_is_none_is_an_offence() {
    let mut bench = Bench::new();
    let (_, stat) = bench.control(Stat { handle: HANDLE });
    assert!(is_offence(&bench.notice(C0, 1, stat, true)), "the request was no lock");
    let mut bench = Bench::new();
    let (_, id) = bench.queued_lock();
    let other = Locked { handle: HANDLE, range: RawRange { start: 0, len: 1 } };
    let ended = LockEnded { notice: 1, lock: id, outcome: Ok(other) };
    let outputs = bench.hear(C0, RequestId::NONE, FromServer::Control(ended.clone().into()));
    assert!(is_offence(&outputs), "another range was asked for");
    let spare = bench.spare;
    let outputs = bench.hear(spare, id, FromServer::Control(ended.into()));
    assert!(is_offence(&outputs), "a notice is no answer");
}

#[test]
fn a_waiting_lock_that_nobody_wants_is_cancelled_and_given_back_if_it_was_granted() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    assert!(!bench.core.handle_withdrawn(NOW, ticket), "the server knows it");
    assert_eq!(sent(&bench.outputs()), [(C0, CancelLock { lock: id }.into())]);
    let outputs = bench.notice(C0, 1, id, true);
    let unlock = Unlock { handle: HANDLE, range: RANGE }.into();
    assert_eq!(sent(&outputs), [(C0, unlock), (C0, heard(1))]);
    // The end that was asked for gives nothing back.
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    bench.core.handle_withdrawn(NOW, ticket);
    bench.outputs();
    assert_eq!(sent(&bench.notice(C0, 1, id, false)), [(C0, heard(1))]);
}

#[test]
fn what_was_withdrawn_after_it_was_sent_is_given_back() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.lock();
    bench.core.handle_withdrawn(NOW, ticket);
    assert!(sent(&bench.outputs()).is_empty(), "it may be executing: there is nothing to cancel yet");
    let outputs = bench.answer(id, locked());
    assert_eq!(sent(&outputs), [(C0, Unlock { handle: HANDLE, range: RANGE }.into())]);

    let mut bench = Bench::new();
    let (ticket, id) = bench.lock();
    bench.core.handle_withdrawn(NOW, ticket);
    bench.outputs();
    assert_eq!(sent(&bench.answer(id, LockQueued {})), [(C0, CancelLock { lock: id }.into())]);

    let resume = crate::wire::control::IssueKey { handle: HANDLE };
    let (ticket, id) = bench.control(resume);
    bench.core.handle_withdrawn(NOW, ticket);
    let issued = crate::wire::control::KeyIssued { key: None };
    assert!(sent(&bench.answer(id, issued)).is_empty(), "a key holds nobody up");
}

#[test]
fn a_lock_is_not_taken_by_the_unlock_of_an_earlier_one_that_nobody_wanted() {
    let unlock = || ClientControl::from(Unlock { handle: HANDLE, range: RANGE });
    let mut bench = Bench::new();
    let (first, id) = bench.lock();
    bench.core.handle_withdrawn(NOW, first);
    let overlapping = |handle, start, len| {
        let wanted = LockWanted { mode: LockMode::Shared, range: RawRange { start, len } };
        Lock { handle, wanted, wait_ms: 0 }
    };
    let (second, unsent) = bench.control(overlapping(HANDLE, 29, 0));
    assert_eq!(unsent, RequestId::NONE, "it may be unlocked again");
    for apart in [overlapping(HANDLE, 30, 0), overlapping(HANDLE, 0, 10), overlapping(HandleId(8), 10, 20)] {
        assert_ne!(bench.control(apart).1, RequestId::NONE, "other bytes, or another handle");
    }
    let outputs = bench.answer(id, locked());
    assert_eq!(sent(&outputs), [(C0, unlock())]);
    // Lost before it is answered, the unlock is repeated, and the lock waits on.
    bench.core.handle_lost(NOW, C0, LossReason::Broken);
    let outputs = bench.outputs();
    let id = outputs.iter().find_map(|output| match output {
        ClientOutput::Send { request, message: ToServer::Control(message), .. } if *message == unlock() => {
            Some(*request)
        }
        _ => None,
    });
    let is_second =
        |output: &Output| matches!(output, ClientOutput::Send { ticket: Some(sent), .. } if *sent == second);
    assert!(!outputs.iter().any(is_second));
    let spare = bench.spare;
    let outputs = bench.hear(spare, id.unwrap(), FromServer::Control(Done {}.into()));
    assert!(outputs.iter().any(is_second));
}

#[test]
fn a_lock_goes_when_the_earlier_one_ends_without_being_granted() {
    let mut bench = Bench::new();
    let (first, id) = bench.queued_lock();
    bench.core.handle_withdrawn(NOW, first);
    bench.outputs();
    let (second, unsent) = bench.lock();
    assert_eq!(unsent, RequestId::NONE);
    let outputs = bench.notice(C0, 1, id, false);
    assert_eq!(sent(&outputs), [(C0, heard(1)), (C0, lock(60_000).into())]);
    // It ends with the session, and with its caller's patience.
    bench.core.handle_withdrawn(NOW, second);
    let (third, unsent) = bench.lock();
    assert_eq!(unsent, RequestId::NONE);
    let (fourth, _) = bench.lock();
    assert!(bench.core.handle_withdrawn(NOW, third), "it was never sent");
    bench.core.handle_close(NOW);
    assert!(completions(&bench.outputs()).contains(&(fourth, false)));
}

#[test]
fn a_lock_behind_an_unlock_waits_for_it_and_one_before_it_does_not() {
    let mut bench = Bench::new();
    let (_, id) = bench.control(Unlock { handle: HANDLE, range: RANGE });
    assert_eq!(bench.lock().1, RequestId::NONE);
    assert_eq!(sent(&bench.answer(id, Done {})), [(C0, lock(60_000).into())]);

    let mut bench = Bench::new();
    for number in [C0, bench.spare] {
        bench.core.handle_lost(NOW, number, LossReason::Broken);
    }
    bench.lock();
    bench.control(Unlock { handle: HANDLE, range: RANGE });
    bench.core.handle_timeout(NOW.after(Duration::from_secs(60)));
    for output in bench.outputs() {
        if let ClientOutput::Connect { number, kind: ChannelKind::Control, .. } = output {
            bench.core.handle_bound(NOW, number, Protection::Sealed);
        }
    }
    let unlock = Unlock { handle: HANDLE, range: RANGE };
    let order: Vec<ClientControl> = sent(&bench.outputs()).into_iter().map(|(_, message)| message).collect();
    assert_eq!(order, [lock(60_000).into(), unlock.into()]);
}

#[test]
fn a_handle_that_nobody_takes_is_closed() {
    let mode = crate::model::OpenMode::READ;
    let state = crate::model::FileState { mode, rights: mode.rights, attributes: Attributes::default() };
    let outcome = Ok(Answer::<()>::Control(
        Opened { handle: HANDLE, state, key: None, meanwhile: None, durable: false }.into(),
        None,
    ));
    let close = crate::wire::control::Close { handle: HANDLE };
    assert_eq!(give_back(&outcome), Some(close.into()));
    let stated = Ok(Answer::<()>::Control(Stated { state }.into(), None));
    assert_eq!(give_back(&stated), None);
}

#[test]
fn a_request_that_was_never_sent_is_withdrawn_without_a_trace() {
    let mut bench = Bench::new();
    for number in [C0, bench.spare] {
        bench.core.handle_lost(NOW, number, LossReason::Broken);
    }
    bench.outputs();
    let (ticket, id) = bench.lock();
    assert_eq!(id, RequestId::NONE, "there is no channel");
    assert!(bench.core.handle_withdrawn(NOW, ticket));
    assert_eq!(bench.core.outstanding().0, 0);
    let (unlock, _) = bench.control(Unlock { handle: HANDLE, range: RANGE });
    assert!(!bench.core.handle_withdrawn(NOW, unlock), "what gives back is sent all the same");
}

#[test]
fn the_end_of_the_session_ends_waiting_locks() {
    let mut bench = Bench::new();
    let (ticket, _) = bench.queued_lock();
    bench.core.handle_close(NOW);
    assert_eq!(completions(&bench.outputs()), [(ticket, false)]);
}

#[test]
fn lists_values_and_appends_count_as_credit() {
    let mut bench = Bench::with_credit(64, 1 << 20);
    let target = || crate::wire::control::Target::Name(place());
    let name = || crate::model::XattrName::new("user.a").unwrap();
    let of = |bench: &Bench| bench.core.in_flight().1;
    bench.control(list());
    assert_eq!(of(&bench), 64 << 10);
    bench.control(XattrGet { target: target(), name: name() });
    bench.control(XattrList { target: target() });
    assert_eq!(of(&bench), 3 * (64 << 10));
    let set = XattrSet { target: target(), name: name(), how: crate::model::XattrHow::Set };
    bench.ask(Operation::ControlWith(set.into(), "value", 5));
    bench.ask(Operation::Append(Append { handle: HANDLE }, "bytes", 1000));
    assert_eq!(of(&bench), 3 * (64 << 10) + 1005);
    let held: Vec<RequestId> = (0..20).map(|_| bench.control(list()).1).collect();
    assert!(held.contains(&RequestId::NONE) && of(&bench) <= 1 << 20, "what the credit does not hold waits");
    let before = bench.core.in_flight();
    bench.control(Unlock { handle: HANDLE, range: RANGE });
    assert_eq!(bench.core.in_flight(), before, "giving back needs no credit");
}

#[test]
fn a_page_gets_through_a_credit_smaller_than_a_page() {
    let mut bench = Bench::with_credit(64, 1000);
    let (_, id) = bench.control(list());
    assert_ne!(id, RequestId::NONE);
    assert_eq!(bench.control(list()).1, RequestId::NONE, "one at a time");
}

#[test]
fn a_control_request_bears_its_payload_and_none_if_it_is_empty() {
    let mut bench = Bench::new();
    let mut payloads = Vec::new();
    for len in [5, 0] {
        let name = crate::model::XattrName::new("user.a").unwrap();
        let target = crate::wire::control::Target::Handle(HANDLE);
        let set = XattrSet { target, name, how: crate::model::XattrHow::Set };
        bench.core.handle_request(NOW, Operation::ControlWith(set.into(), "value", len), LineSet::ALL);
        for output in bench.outputs() {
            if let ClientOutput::Send { payload, .. } = output {
                payloads.push(payload);
            }
        }
    }
    assert_eq!(payloads, [Some("value"), None]);
}

#[test]
fn only_lists_and_values_bear_payload() {
    let page = |answer: ServerControl| matches!(answer, ServerControl::Listed(_));
    for (answer, len, is_fine) in [
        (ServerControl::from(Listed { next: None }), 64 << 10, true),
        (Listed { next: None }.into(), (128 << 10) + 1, false),
        (Found { attributes: Attributes::default() }.into(), 0, false),
    ] {
        let mut bench = Bench::new();
        let (ticket, id) = bench.control(list());
        let is_page = page(answer.clone());
        let outputs = bench.hear_with(C0, id, FromServer::Control(answer), len);
        assert_eq!(is_offence(&outputs), !is_fine, "{is_page} {len}");
        assert_eq!(completions(&outputs), if is_fine { vec![(ticket, true)] } else { vec![] });
    }
    let mut bench = Bench::new();
    let (_, id) = bench.control(Lookup { place: place(), follow: true });
    let found = Found { attributes: Attributes::default() };
    assert!(is_offence(&bench.hear_with(C0, id, FromServer::Control(found.into()), 1)));
}

#[test]
fn answers_fit_their_requests() {
    let target = || crate::wire::control::Target::Handle(HANDLE);
    let name = || crate::model::XattrName::new("user.a").unwrap();
    let pairs: [(ClientControl, ServerControl); 5] = [
        (lock(0).into(), locked().into()),
        (MakeDirectory { place: place(), permissions: 0o755 }.into(), Done {}.into()),
        (XattrGet { target: target(), name: name() }.into(), XattrValue {}.into()),
        (XattrList { target: target() }.into(), XattrNames {}.into()),
        (list().into(), Listed { next: None }.into()),
    ];
    for (at, (asked, _)) in pairs.iter().enumerate() {
        for (other, (_, answer)) in pairs.iter().enumerate() {
            let mut bench = Bench::new();
            let (_, id) = bench.control(asked.clone());
            assert_eq!(is_offence(&bench.answer(id, answer.clone())), at != other, "{asked:?} {answer:?}");
        }
    }
    let mut bench = Bench::new();
    let (_, id) = bench.control(lock(0));
    assert!(is_offence(&bench.answer(id, LockQueued {})), "it asked not to wait");
}

#[test]
fn appends_are_answered_as_appends() {
    let done = |written| AppendDone { offset: 9, written, stability: Stability::Received };
    let refused = Refused { refusal: Reason::NoSpace.into() };
    let cases: [(ServerData, bool); 5] = [
        (done(4).into(), true),
        (done(5).into(), false),
        (refused.into(), true),
        (WriteDone { written: 4, stability: Stability::Received }.into(), false),
        (ReadDone {}.into(), false),
    ];
    for (answer, is_fine) in cases {
        let mut bench = Bench::new();
        let (_, id) = bench.ask(Operation::Append(Append { handle: HANDLE }, "abcd", 4));
        let on = bench.data;
        let outputs = bench.hear(on, id, FromServer::Data(answer.clone()));
        assert_eq!(is_offence(&outputs), !is_fine, "{answer:?}");
        let (_, write) = bench.ask(Operation::Write(Write { handle: HANDLE, offset: 0 }, "abcd", 4));
        assert_ne!(write, RequestId::NONE);
    }
    let mut bench = Bench::new();
    let (_, id) = bench.ask(Operation::Read(Read { handle: HANDLE, offset: 0, len: 4 }));
    let refused = Refused { refusal: Reason::Io.into() };
    assert!(is_offence(&bench.answer(id, refused)), "a data request has no answer on a control channel");
}

#[test]
fn a_long_wait_without_traffic_keeps_the_lock_waiting() {
    let mut bench = Bench::new();
    let (ticket, id) = bench.queued_lock();
    bench.core.handle_timeout(NOW.after(Duration::from_millis(900)));
    assert!(completions(&bench.outputs()).is_empty());
    assert_eq!(completions(&bench.notice(C0, 1, id, true)), [(ticket, true)]);
}

/// The kinds of messages that a client sends are those that a data channel may carry, or the control channel's.
/// One request after the other leaves all channels empty each time. The line whose turn it is is known to be there, and
/// what it can carry shows.
#[test]
fn lines_that_are_equally_empty_take_turns() {
    let mut bench = Bench::new();
    let mut taken = Vec::new();
    for _ in 0..4 {
        let read = Read { handle: HANDLE, offset: 0, len: 10 };
        bench.core.handle_request(NOW, Operation::Read(read), LineSet::ALL);
        let sent = bench.outputs().into_iter().find_map(|output| match output {
            ClientOutput::Send { number, request, .. } => Some((number, request)),
            _ => None,
        });
        let (number, request) = sent.unwrap();
        bench.hear_with(number, request, FromServer::Data(ReadDone {}.into()), 10);
        taken.push(number);
    }
    assert!(taken[0] != taken[1] && taken[..2] == taken[2..], "{taken:?}");
}

#[test]
fn bytes_go_on_data_channels() {
    let mut bench = Bench::new();
    bench.core.handle_request(NOW, Operation::Append(Append { handle: HANDLE }, "a", 1), LineSet::ALL);
    let is_append = |output: &Output| {
        matches!(output, ClientOutput::Send { message: ToServer::Data(ClientData::Append(_)), .. })
    };
    assert!(bench.outputs().iter().any(is_append));
}
