//! Byte-range locks, against a real server process with two clients.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bowline::client::{Client, File, OpenOptions, Session};
use bowline::model::{ByteRange, LineSet, LockMode, RawRange, Reason};
use support::{EXPORT, LONG, World, only, reason, two};

mod support;

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

async fn both(world: &World, sessions: [&Session; 2]) -> [File; 2] {
    let [a, b] = sessions;
    [world.open(a, &read_write()).await.unwrap(), world.open(b, &read_write()).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_a_locked_range_is_the_first_handles_and_its_duplicates_and_nobody_elses() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let [file, foreign] = both(&world, [&session, &other]).await;
    let key = world.key_of(&file).await;
    let duplicate = world.resume(&session, &key, only(1)).await.unwrap();
    file.try_lock(range(10, 20), LockMode::Exclusive).await.unwrap();

    // The handle and its duplicate.
    file.write_at(10, b"first").await.unwrap();
    duplicate.write_at(15, b"second").await.unwrap();
    duplicate.read_at(10, &mut [0; 5]).await.unwrap();
    // Everybody else is refused every byte of it, and no other: another client, and another open of the same one.
    let own_other = world.open(&session, &read_write()).await.unwrap();
    for outsider in [&foreign, &own_other] {
        assert_eq!(reason(outsider.read_at(19, &mut [0; 1]).await), Reason::Locked);
        assert_eq!(reason(outsider.write_at(0, &[b'x'; 11]).await), Reason::Locked);
        assert_eq!(reason(outsider.set_len(5).await), Reason::Locked);
        for mode in [LockMode::Shared, LockMode::Exclusive] {
            assert_eq!(reason(outsider.try_lock(range(0, 11), mode).await), Reason::Locked);
        }
        outsider.write_at(0, b"0123456789").await.unwrap();
        outsider.read_at(20, &mut [0; 80]).await.unwrap();
    }
    // It lasts as long as any of its handles.
    file.close().await.unwrap();
    assert_eq!(reason(foreign.read_at(10, &mut [0; 1]).await), Reason::Locked);
    duplicate.close().await.unwrap();
    let mut into = [0; 11];
    foreign.read_at(10, &mut into).await.unwrap();
    assert_eq!(&into, b"firstsecond");
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_an_exclusive_lock_on_a_range_excludes_until_it_is_given_up() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let [file, foreign] = both(&world, [&session, &other]).await;
    file.try_lock(range(0, 50), LockMode::Exclusive).await.unwrap();
    assert_eq!(reason(foreign.write_at(49, b"x").await), Reason::Locked);
    // Part of it, in the middle.
    file.unlock(range(10, 20)).await.unwrap();
    foreign.write_at(10, b"0123456789").await.unwrap();
    foreign.try_lock(range(10, 20), LockMode::Exclusive).await.unwrap();
    assert_eq!(reason(foreign.write_at(20, b"x").await), Reason::Locked);
    assert_eq!(reason(file.write_at(19, b"x").await), Reason::Locked);
    // A downgrade lets readers in.
    file.try_lock(range(20, 50), LockMode::Shared).await.unwrap();
    foreign.read_at(20, &mut [0; 30]).await.unwrap();
    assert_eq!(reason(foreign.write_at(20, b"x").await), Reason::Locked);
    file.unlock(ByteRange::ALL).await.unwrap();
    foreign.write_at(20, b"x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_a_range_is_locked_with_the_open_or_the_open_is_refused() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let locking = read_write().lock(range(0, 10), LockMode::Exclusive);
    let file = world.open(&session, &locking).await.unwrap();
    assert_eq!(reason(world.open(&other, &locking).await), Reason::Locked);
    let beside = read_write().lock(range(10, 20), LockMode::Exclusive);
    let foreign = world.open(&other, &beside).await.unwrap();
    assert_eq!(reason(file.write_at(10, b"x").await), Reason::Locked);
    assert_eq!(reason(foreign.write_at(9, b"x").await), Reason::Locked);
    file.close().await.unwrap();
    foreign.write_at(9, b"x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_the_locked_range_is_read_and_written_through_the_duplicate() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let [file, foreign] = both(&world, [&session, &other]).await;
    file.try_lock(range(40, 60), LockMode::Exclusive).await.unwrap();
    let key = world.key_of(&file).await;
    // The duplicate lives in another session of the same client, over the other line.
    let second = world.connect_as(&world.identity, &world.peer_on(1)).await;
    let duplicate = world.resume(&second, &key, LineSet::ALL).await.unwrap();
    duplicate.write_at(40, b"through a duplicate!").await.unwrap();
    let mut into = [0; 20];
    duplicate.read_at(40, &mut into).await.unwrap();
    assert_eq!(&into, b"through a duplicate!");
    file.read_at(40, &mut into).await.unwrap();
    assert_eq!(&into, b"through a duplicate!");
    assert_eq!(reason(foreign.read_at(40, &mut into).await), Reason::Locked);
    // The lock is the open's: the duplicate may give it up.
    duplicate.unlock(range(40, 60)).await.unwrap();
    foreign.read_at(40, &mut into).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_a_lock_is_waited_for_in_turn_and_no_longer_than_said() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let [file, foreign] = both(&world, [&session, &other]).await;
    let third = world.open(&session, &read_write()).await.unwrap();
    let wanted = range(0, 10);
    file.try_lock(wanted, LockMode::Exclusive).await.unwrap();
    // The server ends a wait by its own clock; it does not leave that to whatever happens next, such as the sign of life
    // of an idle channel after 5 s.
    let short = foreign.lock(wanted, LockMode::Exclusive, Duration::from_millis(50));
    let ended = tokio::time::timeout(Duration::from_secs(4), short).await.unwrap();
    assert_eq!(reason(ended), Reason::Locked);

    // Control requests of a session keep their order: a lock that was begun before a request is at the server when that
    // one is answered.
    let mut first = pin!(foreign.lock(wanted, LockMode::Exclusive, LONG));
    assert!(poll_once(first.as_mut()).await.is_none());
    foreign.stat().await.unwrap();
    let mut second = pin!(third.lock(wanted, LockMode::Exclusive, LONG));
    assert!(poll_once(second.as_mut()).await.is_none());
    third.stat().await.unwrap();
    assert!(poll_once(first.as_mut()).await.is_none(), "it waits while others have the range");

    file.unlock(wanted).await.unwrap();
    let served = tokio::select! {
        outcome = first.as_mut() => outcome.map(|()| "first"),
        outcome = second.as_mut() => outcome.map(|()| "second"),
    };
    assert_eq!(served.unwrap(), "first");
    // A notice to the second one would come before this answer.
    assert_eq!(reason(third.write_at(0, b"x").await), Reason::Locked);
    third.stat().await.unwrap();
    assert!(poll_once(second.as_mut()).await.is_none(), "it waits for the one before it as well");
    foreign.write_at(0, b"x").await.unwrap();

    foreign.unlock(wanted).await.unwrap();
    second.await.unwrap();
    third.write_at(0, b"x").await.unwrap();
    assert_eq!(reason(foreign.write_at(0, b"x").await), Reason::Locked);
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_f13_ranges_at_the_edges_are_refused_or_mean_what_posix_says() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let [file, foreign] = both(&world, [&session, &other]).await;
    let last = i64::MAX.unsigned_abs();
    // Length 0 reaches to the end of the file, wherever it will be.
    let rest = ByteRange::new(RawRange { start: 50, len: 0 }).unwrap();
    file.try_lock(rest, LockMode::Exclusive).await.unwrap();
    assert_eq!(reason(foreign.append(b"x").await), Reason::Locked);
    assert_eq!(reason(foreign.write_at(1 << 40, b"x").await), Reason::Locked);
    assert_eq!(reason(foreign.set_len(40).await), Reason::Locked, "a cut changes everything behind it");
    file.unlock(ByteRange::ALL).await.unwrap();
    foreign.try_lock(range(last, last + 1), LockMode::Exclusive).await.unwrap();
    assert_eq!(reason(file.try_lock(rest, LockMode::Shared).await), Reason::Locked);
    for (start, len) in [(last, 2), (last + 1, 1), (u64::MAX, 1), (u64::MAX, 0), (1, u64::MAX)] {
        assert_eq!(ByteRange::new(RawRange { start, len }), None, "{start} {len}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t17_a_flood_of_locks_is_refused_and_a_flood_of_waiters_goes_with_its_session() {
    let (world, session, other) = two(&[b'.'; 100]).await;
    let [file, foreign] = both(&world, [&session, &other]).await;
    // Every other byte: nothing merges.
    let lock = |at: u64| file.try_lock(range(2 * at, 2 * at + 1), LockMode::Exclusive);
    for batch in (0..4096).collect::<Vec<u64>>().chunks(32) {
        for outcome in join_all(batch.iter().map(|&at| Box::pin(lock(at))).collect()).await {
            outcome.unwrap();
        }
    }
    assert_eq!(reason(lock(4096).await), Reason::Quota);
    file.try_lock(range(0, 1), LockMode::Shared).await.unwrap();
    file.unlock(ByteRange::ALL).await.unwrap();

    // As many locks that wait as a client may have, of a session of their own.
    const WAITS: usize = 16_384;
    file.try_lock(range(0, 10), LockMode::Exclusive).await.unwrap();
    let patient = Client::new(world.identity.clone()).unwrap();
    let flooding = patient.connect(&world.peer_on(0)).await.unwrap();
    let flooder =
        flooding.open(EXPORT, "file", &read_write().resumable(false).with_key(false)).await.unwrap();
    let lock = || flooder.lock(range(0, 10), LockMode::Exclusive, 10 * LONG);
    let mut waiters: Vec<_> = (0..WAITS).map(|_| Box::pin(lock())).collect();
    for waiter in &mut waiters {
        assert!(poll_once(waiter.as_mut()).await.is_none());
    }
    // They are all there when a request that was begun behind them is answered, and they are all counted.
    flooder.stat().await.unwrap();
    assert_eq!(reason(lock().await), Reason::Quota);
    for waiter in &mut waiters {
        assert!(poll_once(waiter.as_mut()).await.is_none());
    }
    flooding.close().await;
    // None of them stands before the next one who wants the range.
    file.unlock(ByteRange::ALL).await.unwrap();
    foreign.lock(range(0, 10), LockMode::Exclusive, Duration::from_secs(1)).await.unwrap();
    for outcome in join_all(waiters).await {
        assert!(outcome.is_err());
    }
    // Nor is any of them still counted.
    let mut again = pin!(file.lock(range(0, 10), LockMode::Exclusive, LONG));
    assert!(poll_once(again.as_mut()).await.is_none());
    foreign.unlock(range(0, 10)).await.unwrap();
    again.await.unwrap();
}

/// Polls a future once and tells its outcome, if it has one.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Runs futures at once and gives their outcomes in order.
async fn join_all<F: Future + Unpin>(mut pending: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, slot) in pending.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let Poll::Ready(output) = Pin::new(future).poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().map(|slot| slot.unwrap()).collect()
}
