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

/// W1 is stuck on channel A, repeated on B and answered there; W2 goes to the same bytes; then A's W1 arrives,
/// before, between or after all that, and before the server hears that A is lost.
#[test]
fn the_late_first_copy_of_a_write_never_undoes_what_came_after_it() {
    let mut arrivals = [0_u32; 3];
    for seed in 0..1_000 {
        let mut random = Seed::new(seed, 9);
        let mut line = || LineSpec { delay_us: 50 + random.below(3_000), jitter_us: 500, ..LineSpec::BULK };
        let (mut pair, who, handle) = start(seed, &[LineSpec::KEYS, line(), line()]);
        pair.disk_us = (random.below(4_000), random.below(4_000));
        pair.stall_towards_server(who, L1);
        let first = pair.write(who, handle, 0, *b"one");
        pair.run_until("W1 is stuck", seconds(1), |pair| pair.held_towards_server(who, L1) == 1);
        if random.chance(50) {
            pair.cut(who, L1, UNHEARD);
        } else {
            // The client finds out by the silence.
            pair.run_until("A is dead", seconds(4), |pair| !pair.losses(who).is_empty());
        }
        let release_at = pair.now().after(Duration::from_micros(random.below(25_000)));
        let mut second = None;
        let mut is_released = false;
        while !is_released || second.is_none_or(|second| pair.outcome(who, second).is_none()) {
            if second.is_none() && pair.outcome(who, first).is_some() {
                second = Some(pair.write(who, handle, 0, *b"two"));
            }
            if !is_released && pair.now() >= release_at {
                is_released = true;
                arrivals[pair.disk.writes.len()] += 1;
                pair.heal(who, L1);
            }
            pair.run_for(Duration::from_micros(100));
            let is_lost = pair.now().since(release_at) > seconds(20);
            pair.check(!is_lost, "an answer never came");
        }
        pair.run_for(seconds(1));
        assert_eq!(&pair.disk.bytes("a")[..3], b"two", "seed {seed}");
        assert_eq!((pair.disk.executions(b"one"), pair.disk.executions(b"two")), (1, 1), "seed {seed}");
    }
    assert!(arrivals.iter().all(|&times| times > 50), "each moment was tried: {arrivals:?}");
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
    let lines: Vec<_> = pair
        .answers
        .iter()
        .filter(|sent| sent.request == pair.id_of(who, write))
        .map(|sent| sent.line)
        .collect();
    assert_eq!(lines, [L2]);
}

/// The client has given A up and repeated on B, where the request executes; the first copy arrives last, on A,
/// of whose loss the server has not heard. The answer must not go to A alone: nobody listens there, and B is
/// alive, so the client has no reason to repeat once more.
#[test]
fn a_late_first_copy_does_not_take_the_answer_away_from_the_repeat() {
    for is_write in [true, false] {
        let (mut pair, who, handle) = start(1, &LINES);
        pair.stall_towards_server(who, L1);
        (pair.disk.hold_writes, pair.disk.hold_reads) = (9, 9);
        let request =
            if is_write { pair.write(who, handle, 0, *b"one") } else { pair.read(who, handle, 0, 3) };
        pair.run_until("it is stuck", seconds(1), |pair| pair.held_towards_server(who, L1) == 1);
        pair.cut(who, L1, UNHEARD);
        pair.run_until("its repeat executes", seconds(1), |pair| pair.disk.held() == 1);
        pair.heal(who, L1);
        pair.run_for(millis(10));
        pair.release_disk();
        pair.finish(who, request);
        assert!(pair.disk.executions(b"one") <= 1);
    }
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
    pair.finish(who, write);
    let answered = |ticket| {
        let request = pair.id_of(who, ticket);
        pair.answers.iter().position(|sent| sent.request == request).unwrap()
    };
    assert!(answered(write) < answered(close), "the write was answered first");
    assert_eq!((pair.disk.executions(b"one"), pair.disk.executions(b"two")), (1, 0));
    assert_eq!((pair.disk.closed.len(), pair.disk.descriptors()), (1, 0));
}

#[test]
fn a_close_that_is_repeated_on_the_spare_is_answered_once() {
    let (mut pair, who, handle) = start(1, &[LineSpec::BOTH, LineSpec::BOTH]);
    let close = pair.close(who, handle);
    pair.run_until("the server has answered", seconds(1), |pair| {
        pair.answers.iter().any(|answer| answer.request == pair.id_of(who, close))
    });
    pair.cut(who, L0, Cut::NOW);
    pair.finish(who, close);
    assert_eq!((pair.disk.closed.len(), pair.server.table().opens_len()), (1, 0));
}
