//! Copies of one request: however they arrive, a write is executed once and its answer reaches the client.

use std::time::Duration;

use bowline::model::HandleId;
use bowline::session::client::RequestError;

use super::pair::{Cut, LineSpec, Pair, Seed, Who};
use super::{L0, L1, L2, millis, seconds};

const LINES: [LineSpec; 3] = [LineSpec::KEYS, LineSpec::BULK, LineSpec::BULK];
/// The client hears that the line broke, the server does not, and what is held can still arrive there.
const UNHEARD: Cut = Cut { client_after: Duration::ZERO, server_after: seconds(30), loses_flight: false };

fn start(seed: u64, lines: &[LineSpec]) -> (Pair, Who, HandleId) {
    let mut pair = Pair::new(seed);
    pair.disk.put("a", vec![0; 64]);
    let who = pair.complete_client(1, lines);
    let handle = pair.handle(who, "a");
    (pair, who, handle)
}

#[test]
fn a_write_that_is_executing_when_its_copy_comes_is_executed_once_and_answered_where_the_copy_came() {
    let (mut pair, who, handle) = start(1, &LINES);
    pair.disk.hold_writes = 1;
    let write = pair.write(who, handle, 0, *b"one");
    pair.run_until("it is executing", seconds(1), |pair| pair.disk.held() == 1);
    pair.cut(who, L1, Cut::NOW);
    pair.run_for(seconds(1));
    assert_eq!(pair.disk.held(), 1, "the copy waits for its original");
    pair.release_disk();
    pair.finish(who, write);
    assert_eq!(pair.disk.executions(b"one"), 1);
    let lines: Vec<_> =
        pair.answers.iter().filter(|sent| sent.request == write).map(|sent| sent.line).collect();
    assert_eq!(lines, [L2]);
}

#[test]
fn a_close_is_answered_when_what_the_handle_began_is_done() {
    let (mut pair, who, handle) = start(1, &LINES);
    pair.disk.hold_writes = 1;
    let write = pair.write(who, handle, 0, *b"one");
    pair.run_until("it is executing", seconds(1), |pair| pair.disk.held() == 1);
    let close = pair.close(who, handle);
    pair.run_for(seconds(1));
    assert!(pair.outcome(who, close).is_none());
    let late = pair.write(who, handle, 0, *b"two");
    let refused = pair.error(who, late);
    assert!(
        matches!(refused, RequestError::Refused(refusal) if refusal.reason == bowline::model::Reason::BadHandle)
    );
    assert!(pair.disk.closed.is_empty());
    pair.release_disk();
    pair.finish(who, close);
    assert!(pair.outcome(who, write).is_some_and(Result::is_ok), "the write was answered first");
    assert_eq!((pair.disk.executions(b"one"), pair.disk.executions(b"two")), (1, 0));
    assert_eq!((pair.disk.closed.len(), pair.disk.descriptors()), (1, 0));
}

#[test]
fn a_close_that_is_repeated_on_the_spare_is_answered_once() {
    let (mut pair, who, handle) = start(1, &[LineSpec::BOTH, LineSpec::BOTH]);
    let close = pair.close(who, handle);
    pair.run_until("the server has answered", seconds(1), |pair| {
        pair.answers.iter().any(|answer| answer.request == close)
    });
    pair.cut(who, L0, Cut::NOW);
    pair.finish(who, close);
    assert_eq!((pair.disk.closed.len(), pair.server.table().opens_len()), (1, 0));
}
