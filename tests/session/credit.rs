//! How much is in flight: a client never has more than its credit, and never runs into the window's end.

use bowline::model::{ChannelKind, Limits};
use bowline::session::client::Answer;
use bowline::session::server::ServerNote;

use super::pair::{Cut, LineSpec, Pair, Who};
use super::{L0, L1, kind, millis, only, seconds};

/// With three lines their windows together are more than the credit.
const LINES: [LineSpec; 3] = [LineSpec::BOTH, LineSpec::BOTH, LineSpec::BOTH];

fn start(lines: &[LineSpec]) -> (Pair, Who, bowline::model::HandleId) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![1; 2 << 20]);
    let who = pair.complete_client(1, lines);
    let handle = pair.handle(who, "a");
    (pair, who, handle)
}

fn offences(pair: &Pair) -> Vec<&ServerNote> {
    pair.notes.iter().filter(|note| matches!(note, ServerNote::Offence { .. })).collect()
}

/// The harness checks the credit after each input; here it is used up, in requests and in bytes.
#[test]
fn however_much_is_queued_the_credit_is_never_exceeded() {
    for (len, is_requests) in [(16, true), (1 << 20, false)] {
        let (mut pair, who, handle) = start(&LINES);
        for at in 0..200 {
            pair.read(who, handle, at, len);
        }
        let mut most = (0, 0);
        while pair.core(who).outstanding().0 > 0 {
            let (requests, bytes) = pair.core(who).in_flight();
            most = (most.0.max(requests), most.1.max(bytes));
            let goes_on = pair.step();
            pair.check(goes_on, "nothing happens any more");
        }
        let limits = Limits::default();
        assert!(most.0 <= limits.requests && most.1 <= limits.bytes);
        if is_requests {
            assert_eq!(most.0, limits.requests - 8, "eight are kept for control");
        } else {
            assert_eq!(most.1, limits.bytes);
        }
        assert_eq!(pair.disk.reads, 200);
    }
}

#[test]
fn control_requests_get_through_while_bulk_has_used_up_its_credit() {
    let (mut pair, who, handle) = start(&LINES[..2]);
    pair.disk.hold_reads = usize::MAX;
    for at in 0..100 {
        pair.read(who, handle, at, 16);
    }
    let stat = pair.stat(who, handle);
    assert!(matches!(pair.finish(who, stat), Answer::Control(..)));
    pair.release_disk();
    pair.finish_all(who, seconds(5));
}

/// Giving back needs no credit: 56 closes wait for as many writes that are executing, and others come beside them.
#[test]
fn closes_need_no_credit() {
    let (mut pair, who, _) = start(&LINES[..2]);
    let handles: Vec<_> = (0..140).map(|_| pair.handle(who, "a")).collect();
    pair.disk.hold_writes = usize::MAX;
    for (at, &handle) in handles.iter().take(56).enumerate() {
        pair.write(who, handle, 0, format!("write {at}").into_bytes());
    }
    pair.run_until("they are executing", seconds(1), |pair| pair.disk.held() == 56);
    let closes: Vec<_> = handles.iter().map(|&handle| pair.close(who, handle)).collect();
    pair.run_for(seconds(1));
    assert_eq!(offences(&pair), Vec::<&ServerNote>::new());
    assert_eq!(closes.iter().filter(|&&close| pair.outcome(who, close).is_some()).count(), 84);
    pair.release_disk();
    pair.finish_all(who, seconds(5));
    assert!(pair.losses(who).is_empty());
}

#[test]
fn a_request_that_waits_for_its_lost_line_holds_nobody_up() {
    let (mut pair, who, handle) = start(&LINES[..2]);
    pair.cut(who, L1, Cut::NOW);
    pair.run_for(millis(10));
    let old = pair.read_over(who, (handle, 0, 1), only(L1));
    let newer: Vec<_> = (0..5_000).map(|at| pair.read_over(who, (handle, at % 100, 1), only(L0))).collect();
    pair.run_until("the others are answered", seconds(10), |pair| {
        newer.iter().all(|&read| pair.outcome(who, read).is_some())
    });
    assert!(pair.outcome(who, old).is_none());
    pair.heal(who, L1);
    pair.finish_all(who, seconds(10));
    assert_eq!(offences(&pair), Vec::<&ServerNote>::new());
}

#[test]
fn a_sent_request_without_an_answer_stalls_newer_ones_at_the_window_but_no_control_request() {
    let (mut pair, who, handle) = start(&LINES[..2]);
    pair.disk.hold_writes = 1;
    let old = pair.write_over(who, (handle, 0), b"held".to_vec(), only(L1));
    pair.run_until("the write executes", seconds(1), |pair| pair.disk.held() == 1);
    pair.cut(who, L1, Cut::NOW);
    pair.run_for(millis(10));
    for at in 0..5_000 {
        pair.read_over(who, (handle, at % 100, 1), only(L0));
    }
    let before = pair.answered(who);
    pair.run_for(seconds(10));
    let width = usize::try_from(Limits::default().window).unwrap();
    assert_eq!(pair.answered(who), before + width - width / 16 - 1, "all within the window, but for its end");
    let stat = pair.stat(who, handle);
    pair.finish(who, stat);
    assert!(pair.outcome(who, old).is_none());
    pair.heal(who, L1);
    pair.release_disk();
    pair.finish_all(who, seconds(10));
    assert_eq!(offences(&pair), Vec::<&ServerNote>::new());
}

#[test]
fn a_withdrawn_request_is_never_sent_and_a_sent_one_goes_on() {
    let (mut pair, who, handle) = start(&LINES[..2]);
    pair.cut(who, L1, Cut::NOW);
    pair.run_for(millis(10));
    let unsent = pair.write_over(who, (handle, 0), b"nobody wants this".to_vec(), only(L1));
    let sent = pair.write_over(who, (handle, 64), b"on its way".to_vec(), only(L0));
    pair.withdraw(who, unsent);
    pair.withdraw(who, sent);
    pair.finish(who, sent);
    pair.heal(who, L1);
    pair.run_for(seconds(10));
    assert!(pair.outcome(who, unsent).is_none());
    assert_eq!(pair.sent(who).iter().filter(|record| record.kind == kind::WRITE).count(), 1);
}

/// Both lines swallow what is under way, twice in a row, faster than the server can notice: answers for far more
/// than the credit wait in writers that nobody listens to. That is no fault of the client.
#[test]
fn losing_channels_faster_than_the_server_notices_is_no_offence() {
    let (mut pair, who, handle) = start(&LINES[..2]);
    for _ in 0..200 {
        pair.read(who, handle, 0, 1 << 20);
    }
    for _ in 0..6 {
        pair.run_until("both lines are full", seconds(10), |pair| {
            let live = pair.live(who, ChannelKind::Data).len() == 2;
            live && pair.core(who).in_flight().1 == Limits::default().bytes
        });
        pair.run_for(millis(1));
        for line in [L0, L1] {
            pair.black_hole(who, line);
            pair.heal(who, line);
        }
        let before = pair.losses(who).len();
        pair.run_until("both are dead", seconds(4), |pair| pair.losses(who).len() >= before + 2);
    }
    pair.finish_all(who, seconds(30));
    assert_eq!(offences(&pair), Vec::<&ServerNote>::new());
}
