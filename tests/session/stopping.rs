//! A server that is told to stop: what it has received it executes and answers, and its clients have the answers when it
//! says so.

use super::pair::{LineSpec, Pair, Who};
use super::{L0, L1, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

fn start() -> (Pair, Who) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![0; 8]);
    let who = pair.complete_client(1, &LINES);
    (pair, who)
}

#[test]
fn what_has_arrived_is_answered_and_what_was_not_sent_goes_to_the_next_server() {
    for seen in 0..12 {
        let (mut pair, who) = start();
        let handle = pair.handle(who, "a");
        pair.disk_us = (15_000, 10_000);
        pair.client_limits.requests = 16;
        let under_way: Vec<_> = (0..8).map(|at| pair.append(who, handle, format!("early {at}"))).collect();
        // From the moment at which the first one is sent to the one at which the last one is executed.
        pair.run_for(millis(seen * 3));
        pair.tell_server_to_stop();
        pair.run_for(millis(3));
        let late = pair.append(who, handle, *b"late");
        pair.run_until("clients have their answers", seconds(2), |pair| pair.drained == 1);
        for (at, append) in under_way.iter().enumerate() {
            let is_answered = pair.outcome(who, *append).is_some_and(Result::is_ok);
            let executions = pair.disk.executions(format!("early {at}").as_bytes());
            assert_eq!(executions, usize::from(is_answered), "{seen}: {at}");
        }
        assert_eq!((pair.outcome(who, late).is_some(), pair.disk.executions(b"late")), (false, 0));
        pair.stop_server();
        pair.restart_server();
        for append in under_way.into_iter().chain([late]) {
            pair.finish(who, append);
        }
        let once = pair
            .disk
            .writes
            .iter()
            .map(|write| write.payload.to_vec())
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!((once.len(), pair.disk.writes.len()), (9, 9), "{seen}: each runs once");
    }
}

#[test]
fn an_answer_that_waits_for_the_store_is_there_before_clients_have_their_answers() {
    let (mut pair, who) = start();
    pair.store_us = (30_000, 0);
    let open = pair.open(who, "a");
    pair.run_for(millis(10));
    pair.tell_server_to_stop();
    pair.run_until("clients have their answers", seconds(2), |pair| pair.drained == 1);
    assert!(pair.outcome(who, open).is_some_and(Result::is_ok));
}

#[test]
fn a_client_that_takes_nothing_is_waited_for_until_it_is_given_up() {
    let (mut pair, who) = start();
    let handle = pair.handle(who, "a");
    let other = pair.complete_client(2, &LINES);
    [L0, L1].into_iter().for_each(|line| pair.black_hole(who, line));
    pair.append(who, handle, *b"lost on its way");
    pair.tell_server_to_stop();
    pair.run_for(seconds(1));
    assert_eq!(pair.drained, 0);
    pair.run_until("its channels are dead", seconds(20), |pair| pair.drained == 1);
    assert!(!pair.live(other, bowline::model::ChannelKind::Control).is_empty());
}

#[test]
fn a_server_without_clients_has_nothing_to_wait_for() {
    let mut pair = Pair::new(1);
    pair.tell_server_to_stop();
    assert_eq!(pair.drained, 1);
}

/// Nobody hears it, and nobody is waited for.
#[test]
fn clients_that_are_away_are_not_waited_for() {
    let (mut pair, who) = start();
    pair.handle(who, "a");
    [L0, L1].into_iter().for_each(|line| pair.black_hole(who, line));
    let is_away = |pair: &Pair| pair.server.table().opens().any(|open| open.deadline.is_some());
    pair.run_until("it is away", seconds(60), is_away);
    pair.tell_server_to_stop();
    pair.run_for(millis(0));
    assert_eq!(pair.drained, 1);
}
