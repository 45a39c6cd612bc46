//! What the server tells its administrator, and an open that the administrator ends.

use bowline::model::{
    ByteRange, ChannelKind, HandleId, LockMode, OpenId, OpenMode, Protection, PublicKey, Reason, Rights,
};
use bowline::opens::{HolderPhase, OpenPhase};
use bowline::session::client::{RequestError, Ticket};
use bowline::session::server::{OpenStatus, ReleaseError, ServerNote, ServerStatus, StatusQuery};
use core::time::Duration;

use super::pair::{Cut, LineSpec, OpenSpec, Pair, SERVER_KEYS, Who};
use super::{L0, L1, millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

/// Two clients, and the files "a" and "b".
fn start() -> (Pair, Who, Who) {
    let mut pair = Pair::new(1);
    pair.disk.put("a", vec![1; 64]);
    pair.disk.put("b", vec![2; 64]);
    let [one, two] = [1, 2].map(|name| pair.complete_client(name, &LINES));
    (pair, one, two)
}

fn status(pair: &Pair) -> ServerStatus {
    let status = pair.server.status(pair.now(), StatusQuery::default());
    assert_eq!(status.next, None, "it is one page");
    status
}

fn the_open(pair: &Pair) -> OpenStatus {
    let [open] = status(pair).opens.try_into().unwrap();
    open
}

fn exclusive(pair: &mut Pair, who: Who) -> Ticket {
    let spec = OpenSpec { mode: OpenMode::READ_WRITE.exclusive(), ..OpenSpec::of("a") };
    pair.open_as(who, spec)
}

fn reason(pair: &mut Pair, who: Who, request: Ticket) -> Reason {
    match pair.error(who, request) {
        RequestError::Refused(refusal) => refusal.reason,
        other => panic!("not refused but {other:?}"),
    }
}

fn lock(pair: &mut Pair, who: Who, handle: HandleId, wait: Duration) -> Ticket {
    pair.lock(who, handle, (ByteRange::between(10, 20).unwrap(), LockMode::Exclusive), wait)
}

fn cut_all(pair: &mut Pair, who: Who) {
    [L0, L1].into_iter().for_each(|line| pair.cut(who, line, Cut::NOW));
    pair.run_for(millis(1));
}

#[test]
fn sessions_and_opens_are_told_with_all_that_they_have() {
    let (mut pair, one, two) = start();
    let first = pair.open(one, "a");
    let (first, key) = pair.opened(one, first);
    pair.handle(two, "b");
    let again = pair.open(one, "b");
    pair.opened(one, again);
    let duplicate = pair.resume(one, &key.unwrap(), None);
    pair.opened(one, duplicate);
    let locked = lock(&mut pair, one, first, Duration::ZERO);
    pair.finish(one, locked);

    let status = status(&pair);
    assert_eq!(status.key, SERVER_KEYS.current);
    let counts = status.counts;
    assert_eq!((counts.sessions, counts.channels), (2, pair.server.channels_len()));
    assert_eq!((counts.opens, counts.orphans, counts.holders), (3, 0, 4));
    assert_eq!((counts.locks, counts.waits), (1, 0));

    for (who, name, handles) in [(one, 1, 3), (two, 2, 1)] {
        let told = status.sessions.iter().find(|told| told.session == pair.session(who)).unwrap();
        assert_eq!(told.client.key, PublicKey([name; 32]));
        assert_eq!(told.client.name, Some(format!("client-{name}")));
        assert_eq!((told.handles, told.process_id, told.away, told.requests), (handles, 7, None, 0));
        // Every live channel of the client, with what both ends have agreed on.
        let of = |kind| {
            let mut numbers: Vec<_> = pair.live(who, kind).iter().map(|channel| channel.number).collect();
            numbers.sort();
            numbers
        };
        for (kind, protection) in
            [(ChannelKind::Control, Protection::Sealed), (ChannelKind::Data, LineSpec::BOTH.protection)]
        {
            let told = told.channels.iter().filter(|channel| channel.kind == kind);
            assert!(told.clone().all(|channel| channel.protection == protection && channel.unwritten == 0));
            assert_eq!(told.map(|channel| channel.number).collect::<Vec<_>>(), of(kind));
        }
    }

    let open = status.opens.iter().find(|open| open.locks.len() == 1).unwrap();
    assert_eq!(open.owner.name.as_deref(), Some("client-1"));
    assert_eq!(
        (open.export.as_str(), open.mode, open.phase),
        ("data", OpenMode::READ_WRITE, OpenPhase::Held)
    );
    assert_eq!(open.locks, [(ByteRange::between(10, 20).unwrap(), LockMode::Exclusive)]);
    assert_eq!((open.keys, open.waits, open.grace_left), (2, 0, None));
    assert_eq!(open.holders.len(), 2);
    assert_eq!(u64::from(open.holders[0].handle), first.0 >> 32);
    for holder in &open.holders {
        assert_eq!((holder.session, holder.phase), (pair.session(one), HolderPhase::Live));
        assert_eq!(holder.client.as_ref().unwrap().key, PublicKey([1; 32]));
        assert!(holder.rights.contains(Rights::READ.union(Rights::WRITE).union(Rights::LOCK)));
    }
    assert_eq!(pair.release(open.open), Ok(()));
}

#[test]
fn what_is_under_way_is_told() {
    let (mut pair, one, two) = start();
    let (held, waiting) = (pair.handle(one, "a"), pair.handle(two, "a"));
    let locked = lock(&mut pair, one, held, Duration::ZERO);
    pair.finish(one, locked);
    lock(&mut pair, two, waiting, seconds(10));
    pair.disk.hold_writes = 1;
    pair.write(one, held, 0, [7; 9]);
    pair.run_for(millis(100));
    let status = status(&pair);
    let session = status.sessions.iter().find(|told| told.session == pair.session(one)).unwrap();
    assert_eq!((session.requests, session.bytes), (1, 9));
    let waits: Vec<_> = status.opens.iter().map(|open| (open.locks.len(), open.waits)).collect();
    assert!(waits == [(1, 0), (0, 1)] || waits == [(0, 1), (1, 0)], "{waits:?}");
    let executing: u32 = status.opens.iter().flat_map(|open| &open.holders).map(|of| of.executing).sum();
    assert_eq!((executing, status.counts.waits), (1, 1));
    pair.release_disk();
}

#[test]
fn an_orphan_is_told_with_what_is_left_of_its_grace() {
    let (mut pair, one, _) = start();
    pair.handle(one, "a");
    cut_all(&mut pair, one);
    let before = the_open(&pair);
    pair.run_for(seconds(10));
    let after = the_open(&pair);
    assert_eq!((before.phase, after.phase), (OpenPhase::Orphaned, OpenPhase::Orphaned));
    assert_eq!(before.grace_left.unwrap() - after.grace_left.unwrap(), seconds(10));
    assert_eq!(after.holders[0].phase, HolderPhase::Away);
    let told = status(&pair);
    assert_eq!(told.counts.orphans, 1);
    let session = told.sessions.iter().find(|told| told.session == pair.session(one)).unwrap();
    assert_eq!((session.away, session.channels.len()), (after.grace_left, 0), "both are kept for a minute");
    // The client comes back by itself.
    [L0, L1].into_iter().for_each(|line| pair.heal(one, line));
    pair.run_for(seconds(5));
    assert_eq!((the_open(&pair).phase, the_open(&pair).grace_left), (OpenPhase::Held, None));
}

#[test]
fn a_released_open_makes_room_at_once_and_its_holder_hears_of_it() {
    let (mut pair, one, two) = start();
    let kept = pair.handle(one, "b");
    let request = exclusive(&mut pair, one);
    let (handle, key) = pair.opened(one, request);
    let locked = lock(&mut pair, one, handle, Duration::ZERO);
    pair.finish(one, locked);
    let contender = exclusive(&mut pair, two);
    assert_eq!(reason(&mut pair, two, contender), Reason::Busy);

    let open = status(&pair).opens.into_iter().find(|open| open.mode.is_exclusive()).unwrap().open;
    assert_eq!(pair.release(open), Ok(()));
    let noted = ServerNote::OpenReleased { open, owner: PublicKey([1; 32]), holders: 1 };
    assert!(pair.notes.contains(&noted), "{:?}", pair.notes);
    let contender = exclusive(&mut pair, two);
    let (theirs, _) = pair.opened(two, contender);
    let locked = lock(&mut pair, two, theirs, Duration::ZERO);
    pair.finish(two, locked);

    for request in [pair.read(one, handle, 0, 1), pair.write(one, handle, 0, [9; 1]), pair.stat(one, handle)]
    {
        assert_eq!(reason(&mut pair, one, request), Reason::Released);
    }
    let resumed = pair.resume(one, &key.unwrap(), None);
    assert_eq!(reason(&mut pair, one, resumed), Reason::Released);
    assert_eq!(pair.disk.bytes("a"), [1; 64]);
    // The rest of the session is as it was.
    let read = pair.read(one, kept, 0, 4);
    assert_eq!(pair.bytes(one, read).as_slice(), [2; 4]);
    assert_eq!(pair.release(open), Err(ReleaseError::NoSuchOpen(open)));
    assert_eq!(pair.release(OpenId(1)), Err(ReleaseError::NoSuchOpen(OpenId(1))));
}

#[test]
fn an_orphan_can_be_released_before_its_grace_is_over() {
    let (mut pair, one, two) = start();
    let request = exclusive(&mut pair, one);
    let (handle, _) = pair.opened(one, request);
    cut_all(&mut pair, one);
    let open = the_open(&pair).open;
    assert_eq!(pair.release(open), Ok(()));
    let contender = exclusive(&mut pair, two);
    pair.opened(two, contender);
    [L0, L1].into_iter().for_each(|line| pair.heal(one, line));
    let read = pair.read(one, handle, 0, 1);
    assert_eq!(reason(&mut pair, one, read), Reason::Released);
}

/// A write that was acknowledged to nobody yet must not land in the file of the next one.
#[test]
fn what_executes_on_a_released_open_is_finished_before_the_next_one_gets_the_file() {
    let (mut pair, one, two) = start();
    let request = exclusive(&mut pair, one);
    let (handle, _) = pair.opened(one, request);
    pair.disk.hold_writes = 1;
    let write = pair.write(one, handle, 0, [7; 4]);
    pair.run_until("the write executes", seconds(1), |pair| pair.disk.held() == 1);
    let open = the_open(&pair).open;
    assert_eq!(pair.release(open), Ok(()));
    let told = the_open(&pair);
    assert_eq!((told.phase, told.holders[0].phase), (OpenPhase::Closing, HolderPhase::Draining));
    assert_eq!((told.keys, told.holders[0].executing), (0, 1));
    let contender = exclusive(&mut pair, two);
    assert_eq!(reason(&mut pair, two, contender), Reason::Busy);
    assert_eq!(pair.release(open), Ok(()), "it goes on to end");
    pair.release_disk();
    pair.finish(one, write);
    let contender = exclusive(&mut pair, two);
    pair.opened(two, contender);
    assert_eq!(pair.disk.bytes("a")[..5], [7, 7, 7, 7, 1]);
}

#[test]
fn an_open_that_is_released_before_it_is_given_out_is_refused_and_leaves_nothing() {
    let (mut pair, one, two) = start();
    pair.disk.hold_changes = 1;
    let cut = pair.open_as(one, OpenSpec { truncate: true, ..OpenSpec::of("a") });
    pair.run_until("the file is being cut", seconds(1), |pair| pair.disk.held() == 1);
    let open = the_open(&pair).open;
    assert_eq!(pair.release(open), Ok(()));
    pair.release_disk();
    assert_eq!(reason(&mut pair, one, cut), Reason::BadHandle);
    pair.run_for(seconds(1));
    assert_eq!((status(&pair).opens, pair.disk.descriptors()), (Vec::new(), 0));
    pair.handle(two, "a");
}
