//! How the core comes back: what a server may say is fed to it, and what it does is looked at.

use super::*;
use crate::model::{Create, CreateId, ExportPath, FileState, OpenId, OpenMode, ResumeKey};
use crate::wire::control::{Close, Closed, EndReason, Ended, IssueKey, KeyIssued, Open, Resume};

/// Later than anything that a bench does by itself.
const LATER: Time = Time(100_000_000);
const OTHER: HandleId = HandleId(77);

fn key(byte: u8) -> ResumeKey {
    let file_id = OpenId(u64::from(byte));
    ResumeKey { file_id, time_stamp_us: 1, process_id: 2, generation: 3, secret: [byte; 16] }
}

/// Of an open that the server has lost nothing of.
fn opened(handle: HandleId, key: Option<ResumeKey>) -> Opened {
    let mode = OpenMode::READ_WRITE;
    let state = FileState { mode, rights: mode.rights, attributes: Attributes::default() };
    Opened { handle, state, key, meanwhile: None, durable: true }
}

fn open() -> Open {
    let export = "data".parse().unwrap();
    let path = ExportPath::new("a").unwrap();
    Open {
        export,
        path,
        mode: OpenMode::READ_WRITE,
        create: Create::Never,
        truncate: false,
        permissions: 0,
        lock: None,
        resumable: true,
        create_id: CreateId([1; 16]),
        with_key: true,
        grace_ms: 0,
        guard: false,
    }
}

impl Bench {
    /// A handle with a key of this byte.
    fn held(&mut self, handle: HandleId, byte: u8) {
        let (ticket, id) = self.control(open());
        assert_eq!(completions(&self.answer(id, opened(handle, Some(key(byte))))), [(ticket, true)]);
    }

    /// The server has ended the session because it stops.
    fn stopped(&mut self) -> Vec<Output> {
        let ended = Ended { reason: EndReason::Stopping };
        self.core.handle_input(LATER, C0, input(RequestId::NONE, ended.into()));
        self.outputs()
    }

    /// Another session has begun; tells what is done then.
    fn restarted(&mut self) -> Vec<Output> {
        let terms = Terms { session: SessionId([4; 16]), ..terms(64, 8 << 20) };
        assert!(self.core.handle_restarted(LATER, LineId(0), terms));
        self.outputs()
    }
}

fn input(request: RequestId, message: ServerControl) -> Input<FromServer, &'static str> {
    let message = Ok(FromServer::Control(message));
    Input { request, settled: RequestId::NONE, message, payload_len: 0, payload: None }
}

fn requests(outputs: &[Output]) -> Vec<(RequestId, ClientControl)> {
    let send = |output: &Output| match output {
        ClientOutput::Send { request, message: ToServer::Control(message), .. } => {
            Some((*request, message.clone()))
        }
        _ => None,
    };
    outputs.iter().filter_map(send).collect()
}

fn events(outputs: &[Output]) -> Vec<SessionEvent> {
    let event = |output: &Output| match output {
        ClientOutput::Event(event) => Some(event.clone()),
        _ => None,
    };
    outputs.iter().filter_map(event).collect()
}

#[test]
fn numbers_begin_anew_and_names_are_asked_for_while_handles_wait() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    let (queued, id) = bench.queued_lock();
    bench.notice(C0, 1, id, false);
    let outputs = bench.stopped();
    let is_restart =
        |output: &Output| matches!(output, ClientOutput::Restart { former } if *former == SessionId([3; 16]));
    assert!(outputs.iter().any(is_restart) && bench.core.is_coming_back());
    let (stat, _) = bench.control(Stat { handle: HANDLE });
    let (lookup, _) = bench.control(Lookup { place: place(), follow: true });
    let outputs = bench.restarted();
    let resume = Resume { key: key(1), predecessor: Some(HANDLE), with_key: true };
    let lookup_message = Lookup { place: place(), follow: true };
    assert_eq!(
        requests(&outputs),
        [(RequestId(1), lookup_message.into()), (RequestId(2), resume.into())],
        "the file's state waits"
    );
    let numbers: Vec<u32> = outputs
        .iter()
        .filter_map(|output| match output {
            ClientOutput::Connect { number, .. } => Some(number.0),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    let found = Found { attributes: Attributes::default() };
    assert_eq!(completions(&bench.answer(RequestId(1), found)), [(lookup, true)]);
    let outputs = bench.answer(RequestId(2), opened(OTHER, None));
    assert_eq!(requests(&outputs), [(RequestId(3), Stat { handle: OTHER }.into())], "by its new name");
    assert_eq!(completions(&outputs), [], "nobody has asked for the handle");
    let stated = Stated { state: opened(OTHER, None).state };
    assert_eq!(completions(&bench.answer(RequestId(3), stated)), [(stat, true)]);
    assert_eq!(bench.core.resume_key(HANDLE), Some(key(1)), "the answer had no other one");
    // Locks are told by the name that the caller knows, and notices are counted from 1.
    let (ticket, id) = bench.lock();
    let locked_by_server = Locked { handle: OTHER, range: RANGE };
    let outputs = bench.answer(id, locked_by_server.clone());
    let is_told = |output: &Output| matches!(output, ClientOutput::Complete { outcome: Ok(Answer::Control(told, _)), .. } if *told == locked().into());
    assert!(outputs.iter().any(is_told) && completions(&outputs) == [(ticket, true)]);
    let (ticket, id) = bench.queued_lock();
    let ended = LockEnded { notice: 1, lock: id, outcome: Ok(locked_by_server) };
    let outputs = bench.answer(RequestId::NONE, ended);
    assert_eq!(completions(&outputs), [(ticket, true)]);
    assert_ne!(queued, ticket);
}

/// Until it knows, the server takes what it hears of the handle for older than what others write.
#[test]
fn a_server_that_may_have_lost_something_is_told_when_nothing_is_done_again() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    bench.stopped();
    let (stat, _) = bench.control(Stat { handle: HANDLE });
    bench.restarted();
    let answer = Opened { durable: false, ..opened(OTHER, None) };
    let outputs = bench.answer(RequestId(1), answer);
    let told = Stat { handle: OTHER };
    assert_eq!(requests(&outputs), [(RequestId(2), told.clone().into())], "the caller's waits");
    let stated = || Stated { state: opened(OTHER, None).state };
    let outputs = bench.answer(RequestId(2), stated());
    assert_eq!(completions(&outputs), [], "nobody has asked for that");
    assert_eq!(requests(&outputs), [(RequestId(3), told.into())]);
    assert_eq!(completions(&bench.answer(RequestId(3), stated())), [(stat, true)]);
}

#[test]
fn what_is_reported_late_of_the_former_session_changes_nothing() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    bench.stopped();
    bench.core.handle_lost(LATER, bench.data, LossReason::Broken);
    bench.core.handle_asked(LATER, Some(false));
    bench.core.handle_bound(LATER, ChannelNumber(9), Protection::Sealed);
    let outputs = bench.outputs();
    assert!(matches!(outputs[..], [ClientOutput::Disconnect { number: ChannelNumber(9) }]), "{outputs:?}");
    assert!(bench.core.is_coming_back());
    bench.restarted();
    let terms = terms(64, 8 << 20);
    assert!(!bench.core.handle_restarted(LATER, LineId(0), terms), "one is enough");
    bench.core.handle_restart_failed(LATER, ConnectFailure::Unreachable);
    assert!(bench.outputs().is_empty());
}

#[test]
fn a_session_with_less_than_a_chunk_is_not_taken() {
    let mut bench = Bench::new();
    bench.stopped();
    let chunk = bench.core.limits().chunk;
    for terms in [Terms { payload_max: chunk - 1, ..terms(64, 8 << 20) }, terms(64, u64::from(chunk) - 1)] {
        assert!(!bench.core.handle_restarted(LATER, LineId(0), terms));
        assert!(matches!(events(&bench.outputs())[..], [SessionEvent::RestartFailed { .. }]));
        let due = bench.core.poll_timeout(LATER).unwrap();
        assert!(due > LATER);
        bench.core.handle_timeout(due);
        assert!(matches!(bench.outputs()[..], [ClientOutput::Restart { .. }]));
    }
    bench.restarted();
}

#[test]
fn two_handles_never_have_one_name() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    bench.stopped();
    bench.restarted();
    bench.answer(RequestId(1), opened(OTHER, None));
    // The server has given the other handle's old number to a new one.
    let (ticket, id) = bench.control(open());
    let outputs = bench.answer(id, opened(HANDLE, Some(key(2))));
    let name = outputs.iter().find_map(|output| match output {
        ClientOutput::Complete {
            ticket: of,
            outcome: Ok(Answer::Control(ServerControl::Opened(opened), _)),
        } if *of == ticket => Some(opened.handle),
        _ => None,
    });
    let name = name.unwrap();
    assert_ne!(name, HANDLE);
    assert_eq!((bench.core.current(name), bench.core.current(HANDLE)), (HANDLE, OTHER));
    let sent_for = |bench: &mut Bench, handle| {
        bench.core.handle_request(LATER, Operation::Control(Stat { handle }.into()), LineSet::ALL);
        requests(&bench.outputs()).pop().unwrap().1
    };
    assert_eq!(sent_for(&mut bench, name), Stat { handle: HANDLE }.into());
    assert_eq!(sent_for(&mut bench, HANDLE), Stat { handle: OTHER }.into());
}

#[test]
fn a_key_whose_answer_was_lost_is_asked_for_and_not_for_ever() {
    let mut bench = Bench::new();
    let (_, id) = bench.control(open());
    let mut outputs = bench.answer(id, opened(HANDLE, None));
    let mut asked = 0;
    while let Some((id, message)) = requests(&outputs).pop() {
        assert_eq!(message, IssueKey { handle: HANDLE }.into());
        asked += 1;
        outputs = bench.answer(id, KeyIssued { key: None });
        assert!(completions(&outputs).is_empty());
    }
    assert_eq!(asked, 4);
    // Who did not want one is not given one.
    let (_, id) = bench.control(Open { with_key: false, ..open() });
    assert!(requests(&bench.answer(id, opened(OTHER, None))).is_empty());
}

#[test]
fn a_handle_that_the_server_has_ended_says_why_and_is_not_resumed() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    let ended = HandleEnded { notice: 1, handle: HANDLE, refusal: Reason::Released.into() };
    bench.answer(RequestId::NONE, ended);
    let ticket =
        bench.core.handle_request(NOW, Operation::Control(Stat { handle: HANDLE }.into()), LineSet::ALL);
    let outputs = bench.outputs();
    let is_refused = |output: &Output| {
        let released = RequestError::from(Reason::Released);
        matches!(output, ClientOutput::Complete { ticket: of, outcome: Err(error) } if *of == ticket && *error == released)
    };
    assert!(outputs.iter().any(is_refused) && requests(&outputs).is_empty(), "{outputs:?}");
    bench.stopped();
    assert!(requests(&bench.restarted()).is_empty());
}

#[test]
fn what_waits_for_a_handle_can_be_withdrawn_and_a_close_is_made_good() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    bench.stopped();
    let (stat, _) = bench.control(Stat { handle: HANDLE });
    let (close, _) = bench.control(Close { handle: HANDLE });
    assert!(bench.core.handle_withdrawn(LATER, stat), "it was never sent");
    bench.restarted();
    let outputs = bench.answer(RequestId(1), opened(OTHER, None));
    assert_eq!(requests(&outputs), [(RequestId(2), Close { handle: OTHER }.into())]);
    assert_eq!(completions(&bench.answer(RequestId(2), Closed {})), [(close, true)]);
    assert_eq!(bench.core.held_handles().count(), 0);
    // One whose answer was lost with the session, on a server that has closed it.
    bench.held(HANDLE, 1);
    let (close, _) = bench.control(Close { handle: HANDLE });
    bench.stopped();
    bench.core.handle_timeout(LATER.after(Duration::from_secs(1)));
    bench.restarted();
    let refused = Refused { refusal: Reason::ResumeRefused.into() };
    assert_eq!(completions(&bench.answer(RequestId(1), refused)), [(close, true)]);
    assert_eq!(bench.core.held_handles().count(), 0);
}

#[test]
fn a_handle_that_the_server_cannot_give_out_now_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.held(HANDLE, 1);
    bench.stopped();
    bench.restarted();
    let busy = Refused { refusal: Refusal::busy(Duration::from_millis(700)) };
    assert!(events(&bench.answer(RequestId(1), busy)).is_empty());
    // The bench's answers come at its beginning.
    bench.core.handle_timeout(NOW.after(Duration::from_millis(699)));
    assert!(requests(&bench.outputs()).is_empty());
    bench.core.handle_timeout(NOW.after(Duration::from_millis(700)));
    let asked = requests(&bench.outputs());
    assert!(matches!(asked[..], [(RequestId(2), ClientControl::Resume(_))]), "{asked:?}");
}

#[test]
fn an_open_that_must_be_new_and_is_there_may_be_the_one_that_was_asked_for() {
    for was_sent in [true, false] {
        let mut bench = Bench::new();
        let new = || Open { create: Create::New, ..open() };
        let ticket = if was_sent { Some(bench.control(new()).0) } else { None };
        bench.stopped();
        let ticket = ticket.unwrap_or_else(|| bench.control(new()).0);
        bench.restarted();
        let outputs = bench.answer(RequestId(1), Refused { refusal: Reason::Exists.into() });
        let told = outputs.iter().find_map(|output| match output {
            ClientOutput::Complete { ticket: of, outcome: Err(error) } if *of == ticket => {
                Some(error.clone())
            }
            _ => None,
        });
        let reason = if was_sent { Reason::Unknown } else { Reason::Exists };
        assert_eq!(told, Some(reason.into()));
    }
}

/// It names a request by its id, which is another one's in the next session.
#[test]
fn a_lock_that_nobody_waits_for_any_more_is_not_cancelled_in_the_next_session() {
    for is_sent in [true, false] {
        let mut bench = Bench::new();
        bench.held(HANDLE, 1);
        let (ticket, _) = bench.queued_lock();
        if !is_sent {
            for number in [C0, bench.spare] {
                bench.core.handle_lost(NOW, number, LossReason::Broken);
            }
        }
        bench.core.handle_withdrawn(NOW, ticket);
        bench.outputs();
        bench.core.handle_asked(NOW, Some(false));
        let outputs = bench.outputs();
        assert!(completions(&outputs).contains(&(ticket, false)), "{outputs:?}");
        let sent = requests(&bench.restarted());
        assert!(matches!(sent[..], [(RequestId(1), ClientControl::Resume(_))]), "{sent:?}");
    }
}

#[test]
fn a_resume_in_a_handle_s_place_waits_for_that_to_be_there_or_gone() {
    for is_back in [true, false] {
        let mut bench = Bench::new();
        bench.held(HANDLE, 1);
        bench.stopped();
        let asked = || Resume { key: key(1), predecessor: Some(HANDLE), with_key: true };
        let (ticket, _) = bench.control(asked());
        bench.restarted();
        let (outputs, predecessor) = if is_back {
            (bench.answer(RequestId(1), opened(OTHER, None)), OTHER)
        } else {
            let refused = Refused { refusal: Reason::ResumeRefused.into() };
            (bench.answer(RequestId(1), refused), HANDLE)
        };
        let sent = Resume { predecessor: Some(predecessor), ..asked() };
        assert_eq!(requests(&outputs), [(RequestId(2), sent.into())]);
        let outputs = bench.answer(RequestId(2), opened(HandleId(99), Some(key(1))));
        assert_eq!(completions(&outputs), [(ticket, true)]);
        let (late, _) = bench.control(Stat { handle: HANDLE });
        assert!(bench.core.outstanding().0 == 0, "{late:?} is refused: another handle has its place");
    }
}

#[test]
fn an_append_beyond_the_end_of_any_file_is_no_answer() {
    let mut bench = Bench::new();
    let (_, id) = bench.ask(Operation::Append(Append { handle: HANDLE }, "abcd", 4));
    let done = AppendDone { offset: u64::MAX - 2, written: 4, stability: Stability::Received };
    let on = bench.data;
    assert!(is_offence(&bench.hear(on, id, FromServer::Data(done.into()))));
}
