//! Several channels: both are used, each can be lost, and what was under way on it goes on elsewhere.

use bowline::model::ChannelKind;
use bowline::session::LossReason;
use bowline::session::client::Answer;
use bowline::wire::ServerControl;

use super::pair::{Cut, LineSpec, Pair, Sent, Who};
use super::{L0, L1, L2, kind, millis, only, seconds};

const MIB: u32 = 1 << 20;

/// A client with a file of its own, open.
fn with_file(lines: &[LineSpec]) -> (Pair, Who, bowline::model::HandleId) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", (0..4 * MIB).map(|at| u8::try_from(at % 251).unwrap()).collect());
    let who = pair.complete_client(1, lines);
    let handle = pair.handle(who, "a");
    (pair, who, handle)
}

fn sent_of(pair: &Pair, who: Who, kind: u8) -> Vec<Sent> {
    pair.sent(who).iter().copied().filter(|sent| sent.kind == kind).collect()
}

#[test]
fn reads_and_writes_use_both_data_channels_and_come_back_right() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    let reads: Vec<_> = (0..16).map(|at| pair.read(who, handle, at * 65_536, 65_536)).collect();
    let expected = pair.disk.bytes("a").to_vec();
    for (at, read) in reads.into_iter().enumerate() {
        assert_eq!(pair.bytes(who, read).as_slice(), &expected[at * 65_536..(at + 1) * 65_536]);
    }
    for at in 0..16_u8 {
        pair.write(who, handle, u64::from(at) * 1024, vec![at + 100; 1024]);
    }
    pair.finish_all(who, seconds(5));
    for at in 0..16_u8 {
        let from = usize::from(at) * 1024;
        assert_eq!(&pair.disk.bytes("a")[from..from + 1024], vec![at + 100; 1024]);
    }
    for kind in [kind::READ, kind::WRITE] {
        let sent = sent_of(&pair, who, kind);
        assert!(sent.iter().any(|sent| sent.line == L0) && sent.iter().any(|sent| sent.line == L1));
        assert!(sent.iter().all(|sent| sent.channel == ChannelKind::Data));
    }
}

#[test]
fn keys_travel_on_control_channels_only() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    let issued = pair.issue_key(who, handle);
    let key = pair.key(who, issued).expect("a first answer has its key");
    let resumed = pair.resume(who, &key, None);
    let (duplicate, second_key) = pair.opened(who, resumed);
    assert!(second_key.is_some() && duplicate != handle);
    let read = pair.read(who, duplicate, 0, 4);
    assert_eq!(pair.bytes(who, read).len(), 4);
    let all = pair.answers.iter().chain(pair.sent(who));
    let secrets: Vec<_> = all.filter(|sent| sent.has_secret).collect();
    assert_eq!(secrets.len(), 4, "opened, issued, presented, opened: {secrets:?}");
    assert!(secrets.iter().all(|sent| sent.channel == ChannelKind::Control));
    for kind in [kind::OPEN, kind::RESUME, kind::ISSUE_KEY, kind::CLOSE] {
        assert!(sent_of(&pair, who, kind).iter().all(|sent| sent.channel == ChannelKind::Control));
    }
}

#[test]
fn a_cut_data_channel_loses_nothing_and_repeats_nothing_that_was_executed() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    let first_unsent = pair.sent(who).len();
    let writes: Vec<_> = (0..24_u64)
        .map(|at| pair.write(who, handle, at * 512, format!("write {at:>506}").into_bytes()))
        .collect();
    let reads: Vec<_> = (0..24_u64).map(|at| pair.read(who, handle, (1 << 20) + at * 512, 512)).collect();
    // Some of it has been executed, some of it has arrived, some of it is on its way.
    pair.run_for(millis(1));
    pair.cut(who, L1, Cut::NOW);
    pair.finish_all(who, seconds(5));
    for (at, _) in writes.iter().enumerate() {
        let payload = format!("write {at:>506}");
        assert_eq!(pair.disk.executions(payload.as_bytes()), 1);
        assert_eq!(&pair.disk.bytes("a")[at * 512..(at + 1) * 512], payload.as_bytes());
    }
    let sent = &pair.sent(who)[first_unsent..];
    let repeated = |ticket| sent.iter().filter(|sent| sent.ticket == Some(ticket)).count();
    assert!(reads.iter().any(|&read| repeated(read) == 2), "reads were repeated under their ids");
    assert!(writes.iter().any(|&write| repeated(write) == 2), "writes were repeated under their ids");
    assert!(writes.iter().chain(&reads).all(|&id| repeated(id) <= 2), "nothing else was");
}

#[test]
fn a_handle_that_is_kept_to_a_line_waits_while_that_line_is_dead() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    pair.cut(who, L1, Cut::NOW);
    pair.run_for(millis(10));
    let kept = pair.read_over(who, (handle, 0, 100), only(L1));
    let free = pair.read(who, handle, 0, 100);
    assert_eq!(pair.bytes(who, free).len(), 100, "others go on");
    pair.run_for(seconds(20));
    assert!(pair.outcome(who, kept).is_none());
    pair.heal(who, L1);
    assert_eq!(pair.bytes(who, kept).len(), 100);
    let sent: Vec<_> = pair.sent(who).iter().filter(|sent| sent.ticket == Some(kept)).collect();
    assert!(sent.iter().all(|sent| sent.line == L1), "it never went over another line");
}

#[test]
fn without_a_line_for_keys_control_requests_wait_and_go_nowhere_else() {
    let (mut pair, who, handle) = with_file(&[LineSpec::KEYS, LineSpec::BULK]);
    pair.cut(who, L0, Cut::NOW);
    pair.run_for(millis(10));
    let key = pair.issue_key(who, handle);
    let read = pair.read(who, handle, 0, 10);
    assert_eq!(pair.bytes(who, read).len(), 10, "bulk goes on");
    pair.run_for(seconds(20));
    assert!(pair.outcome(who, key).is_none());
    pair.heal(who, L0);
    assert!(pair.key(who, key).is_some());
    assert!(pair.sent(who).iter().all(|sent| (sent.line == L0) == (sent.channel == ChannelKind::Control)));
    assert!(pair.answers.iter().all(|sent| (sent.line == L0) == (sent.channel == ChannelKind::Control)));
}

#[test]
fn without_a_line_for_bulk_reads_wait_and_go_nowhere_else() {
    let (mut pair, who, handle) = with_file(&[LineSpec::KEYS, LineSpec::BULK]);
    pair.cut(who, L1, Cut::NOW);
    pair.run_for(millis(10));
    let read = pair.read(who, handle, 0, 10);
    let stat = pair.stat(who, handle);
    pair.finish(who, stat);
    pair.run_for(seconds(20));
    assert!(pair.outcome(who, read).is_none());
    pair.heal(who, L1);
    assert_eq!(pair.bytes(who, read).len(), 10);
    assert!(pair.sent(who).iter().all(|sent| (sent.line == L0) == (sent.channel == ChannelKind::Control)));
}

#[test]
fn the_spare_takes_over_when_the_control_channel_is_lost() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    let before = pair.live(who, ChannelKind::Control);
    assert_eq!(before.iter().map(|channel| channel.line).collect::<Vec<_>>(), [L0, L1]);
    pair.cut(who, L0, Cut::NOW);
    pair.run_for(millis(1));
    let stat = pair.stat(who, handle);
    let asked_at = pair.now();
    pair.finish(who, stat);
    assert!(pair.now().since(asked_at) < millis(10), "it needs no new handshake");
    pair.heal(who, L0);
    pair.run_until("there is a spare again", seconds(5), |pair| {
        pair.live(who, ChannelKind::Control).len() == 2
    });
}

/// The same in three moments: before the server has the request, while the file is being opened, and when the
/// answer is on its way. Only in the last case the key is lost with it.
#[test]
fn an_open_whose_control_channel_is_lost_opens_once_and_is_answered_once() {
    for (moment, is_key_lost) in [(0, false), (3, false), (10, true)] {
        let mut pair = Pair::new(1);
        pair.disk.put("a", vec![1; 10]);
        let slow = LineSpec { delay_us: 2_000, jitter_us: 0, ..LineSpec::BOTH };
        let who = pair.complete_client(1, &[slow, slow]);
        pair.disk_us = (7_000, 0);
        let open = pair.open(who, "a");
        // 2 ms there, 7 ms of work, 2 ms back.
        pair.run_for(millis(moment));
        pair.cut(who, L0, Cut::NOW);
        let (handle, key) = pair.opened(who, open);
        pair.run_for(seconds(1));
        assert_eq!(key.is_none(), is_key_lost, "cut after {moment} ms");
        assert_eq!((pair.disk.opened, pair.disk.descriptors()), (1, 1), "cut after {moment} ms");
        assert_eq!((pair.server.table().opens_len(), pair.server.table().holders_len()), (1, 1));
        let again = pair.issue_key(who, handle);
        assert!(pair.key(who, again).is_some(), "a new request brings a key");
        let sent = pair.sent(who).iter().filter(|sent| sent.ticket == Some(open)).count();
        assert_eq!(sent, 2, "it was repeated under its id");
    }
}

#[test]
fn a_repeated_answer_to_a_request_for_a_key_has_none_and_a_new_request_brings_one() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    let key = pair.issue_key(who, handle);
    // The answer is on its way.
    pair.run_until("the server has answered", seconds(1), |pair| {
        pair.answers.iter().any(|answer| answer.request == pair.id_of(who, key))
    });
    pair.cut(who, L0, Cut::NOW);
    assert_eq!(pair.key(who, key), None);
    let again = pair.issue_key(who, handle);
    assert!(pair.key(who, again).is_some());
}

#[test]
fn a_black_hole_is_dead_three_seconds_after_the_last_sign_and_not_before() {
    let (mut pair, who, handle) = with_file(&[LineSpec::KEYS, LineSpec::BULK, LineSpec::BULK]);
    pair.run_for(millis(500));
    pair.black_hole(who, L1);
    let start = pair.now();
    let reads = [pair.read(who, handle, 0, 10), pair.read(who, handle, 10, 10)];
    pair.run_until("the channel is dead", seconds(4), |pair| !pair.losses(who).is_empty());
    let (at, _, reason) = pair.losses(who)[0];
    assert_eq!((at.since(start), reason), (seconds(3), LossReason::Silent));
    for read in reads {
        assert_eq!(pair.bytes(who, read).len(), 10);
    }
    let after = pair.now().since(start);
    assert!(after < millis(3_050), "what waited was repeated at once on the other line: {after:?}");
}

#[test]
fn a_slow_request_on_a_channel_that_shows_life_is_not_repeated() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    pair.disk.hold_reads = 2;
    let reads = [pair.read(who, handle, 0, 10), pair.read(who, handle, 10, 10)];
    pair.run_for(seconds(60));
    assert!(pair.losses(who).is_empty());
    assert_eq!(sent_of(&pair, who, kind::READ).len(), 2, "the pongs of the server kept them where they are");
    pair.release_disk();
    for read in reads {
        assert_eq!(pair.bytes(who, read).len(), 10);
    }
}

#[test]
fn a_line_that_stalls_for_less_than_three_seconds_loses_and_repeats_nothing() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH]);
    pair.run_for(millis(500));
    pair.stall(who, L1);
    for at in 0..8 {
        pair.read(who, handle, at * 10, 10);
        pair.write(who, handle, 1_000 + at * 10, format!("write {at:>4}").into_bytes());
    }
    pair.run_for(millis(2_900));
    pair.heal(who, L1);
    pair.finish_all(who, seconds(1));
    assert!(pair.losses(who).is_empty());
    assert_eq!(sent_of(&pair, who, kind::READ).len() + sent_of(&pair, who, kind::WRITE).len(), 16);
}

#[test]
fn nothing_is_lost_when_every_line_dies_in_turn() {
    let (mut pair, who, handle) = with_file(&[LineSpec::BOTH, LineSpec::BOTH, LineSpec::BOTH]);
    for at in 0..60_u64 {
        pair.write(who, handle, at * 100, format!("write {at:>94}").into_bytes());
        match at % 20 {
            0 => pair.cut(who, L0, Cut::NOW),
            5 => pair.cut(who, L1, Cut::NOW),
            10 => pair.cut(who, L2, Cut::NOW),
            15 => [L0, L1, L2].into_iter().for_each(|line| pair.heal(who, line)),
            _ => {}
        }
        pair.run_for(millis(1));
    }
    [L0, L1, L2].into_iter().for_each(|line| pair.heal(who, line));
    pair.finish_all(who, seconds(10));
    for at in 0..60 {
        assert_eq!(pair.disk.executions(format!("write {at:>94}").as_bytes()), 1);
    }
    let stat = pair.stat(who, handle);
    assert!(matches!(pair.finish(who, stat), Answer::Control(ServerControl::Stated(_), _)));
}
