//! An open file in the hands of several clients, with a real server: what is granted, passed on, delivered, revoked and
//! moved.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

use std::sync::Arc;
use std::time::Duration;

use bowline::client::{File, Grant, GrantOffer, GrantOptions, OpenOptions, Session, SessionEvent};
use bowline::model::{ByteRange, HandleId, LineRole, LineSet, LockMode, Reason, Rights};
use bowline::secure::Identity;
use support::{EXPORT, Entry, LONG, World, new_identity, pattern, reason};

mod support;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

/// A world with three clients, each with a session.
async fn three(content: &[u8]) -> (World, [Arc<Identity>; 3], [Session; 3]) {
    let all = [new_identity(), new_identity(), new_identity()];
    let entries = all.clone().map(|identity| Entry::all(identity.public()));
    let world = World::with_clients(content, Arc::clone(&all[0]), &entries).await;
    let sessions = connect_all(&world, &all).await;
    (world, all, sessions)
}

async fn connect_all(world: &World, all: &[Arc<Identity>; 3]) -> [Session; 3] {
    let [one, two, three] = all;
    let peer = world.peer(BOTH);
    let as_one = world.connect_as(one, &peer).await;
    let as_two = world.connect_as(two, &peer).await;
    [as_one, as_two, world.connect_as(three, &peer).await]
}

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

/// Grants, and notes the key as a secret.
async fn grant(world: &World, file: &File, to: &Identity, options: GrantOptions) -> Grant {
    let granted = file.grant(&to.public(), options).await.unwrap();
    if let Some(key) = &granted.key {
        world.note_key(key);
    }
    granted
}

async fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes).await.unwrap();
    bytes
}

/// Waits until the server says that a handle has ended.
async fn ended(events: &mut tokio::sync::broadcast::Receiver<SessionEvent>, handle: HandleId) -> Reason {
    loop {
        let event = tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap();
        if let SessionEvent::HandleEnded { handle: ended, refusal } = event
            && ended == handle
        {
            return refusal.reason;
        }
    }
}

async fn offer(session: &Session) -> GrantOffer {
    let mut events = session.events();
    loop {
        if let Some(offer) = session.offers().pop() {
            return offer;
        }
        tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b18_b19_t08_the_holder_passes_a_key_on_and_it_is_good_for_the_grantee_alone() {
    let (world, all, [giver, grantee, third]) = three(&pattern(5000)).await;
    let file = world.open(&giver, &read_write().exclusive()).await.unwrap();
    let granted = grant(&world, &file, &all[1], GrantOptions::of(Rights::READ)).await;
    let key = granted.key.unwrap();
    assert_eq!(reason(third.resume(&key, LineSet::ALL).await), Reason::ResumeRefused);
    assert_eq!(reason(giver.resume(&key, LineSet::ALL).await), Reason::ResumeRefused);
    let part = world.resume(&grantee, &key, LineSet::ALL).await.unwrap();
    assert_eq!(part.state().rights, Rights::READ);
    assert_eq!(read_all(&part, 5000).await, pattern(5000));
    assert_eq!(reason(part.write_at(0, b"nope").await), Reason::PermissionDenied);
    assert_eq!(
        reason(part.grant(&all[2].public(), GrantOptions::of(Rights::READ)).await),
        Reason::PermissionDenied
    );
    file.write_at(0, b"mine").await.unwrap();
    assert_eq!(read_all(&part, 4).await, b"mine");
    // Without the grant the file is the giver's alone.
    assert_eq!(reason(world.open(&grantee, &OpenOptions::new().read(true)).await), Reason::Busy);
    let mut events = grantee.events();
    file.revoke(granted.id).await.unwrap();
    assert_eq!(ended(&mut events, part.handle()).await, Reason::Revoked);
    assert_eq!(reason(part.stat().await), Reason::Revoked);
    assert_eq!(reason(grantee.resume(&key, LineSet::ALL).await), Reason::Revoked);
    assert_eq!(reason(third.resume(&key, LineSet::ALL).await), Reason::ResumeRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn b20_the_server_delivers_a_grant_to_the_grantee_s_session() {
    let (world, all, [giver, grantee, third]) = three(&pattern(100)).await;
    let file = world.open(&giver, &read_write().exclusive()).await.unwrap();
    let options = GrantOptions { deliver: true, ..GrantOptions::of(Rights::READ.union(Rights::WRITE)) };
    let granted = grant(&world, &file, &all[1], options).await;
    assert_eq!(granted.key, None);
    let offered = offer(&grantee).await;
    assert_eq!((offered.grant, offered.from), (granted.id, all[0].public()));
    assert_eq!((offered.export.as_str(), offered.path.as_bytes()), (EXPORT, &b"file"[..]));
    // A session that begins later hears of it too.
    let later = world.connect_as(&all[1], &world.peer(BOTH)).await;
    assert_eq!(offer(&later).await, offered);
    assert_eq!(reason(third.take_grant(granted.id).await), Reason::NotFound);
    let key = later.take_grant(granted.id).await.unwrap();
    world.note_key(&key);
    assert_eq!(later.offers(), []);
    let part = world.resume(&later, &key, LineSet::ALL).await.unwrap();
    part.write_at(0, b"ours").await.unwrap();
    assert_eq!(read_all(&file, 4).await, b"ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn granting_on_makes_a_tree_that_ends_with_its_root_and_locks_are_the_open_s() {
    let (world, all, [giver, grantee, third]) = three(&pattern(100)).await;
    let file = world.open(&giver, &read_write().exclusive()).await.unwrap();
    let rights = Rights::READ.union(Rights::WRITE).union(Rights::LOCK).union(Rights::GRANT);
    let granted = grant(&world, &file, &all[1], GrantOptions::of(rights)).await;
    let part = world.resume(&grantee, &granted.key.unwrap(), LineSet::ALL).await.unwrap();
    let on = grant(&world, &part, &all[2], GrantOptions::of(Rights::READ)).await;
    let leaf = world.resume(&third, &on.key.unwrap(), LineSet::ALL).await.unwrap();
    let range = ByteRange::between(0, 10).unwrap();
    part.try_lock(range, LockMode::Exclusive).await.unwrap();
    file.write_at(0, b"one owner").await.unwrap();
    assert_eq!(read_all(&leaf, 9).await, b"one owner");
    assert_eq!(reason(leaf.try_lock(range, LockMode::Shared).await), Reason::PermissionDenied);
    let (mut of_part, mut of_leaf) = (grantee.events(), third.events());
    let (part_handle, leaf_handle) = (part.handle(), leaf.handle());
    file.close().await.unwrap();
    assert_eq!(ended(&mut of_part, part_handle).await, Reason::Revoked);
    assert_eq!(ended(&mut of_leaf, leaf_handle).await, Reason::Revoked);
    world.open(&third, &read_write().exclusive()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_ends_at_its_time() {
    let (world, all, [giver, grantee, _]) = three(&pattern(100)).await;
    let file = world.open(&giver, &read_write()).await.unwrap();
    let options = GrantOptions { lasts: Some(Duration::from_secs(2)), ..GrantOptions::of(Rights::READ) };
    let key = grant(&world, &file, &all[1], options).await.key.unwrap();
    let mut events = grantee.events();
    let part = world.resume(&grantee, &key, LineSet::ALL).await.unwrap();
    assert_eq!(ended(&mut events, part.handle()).await, Reason::Revoked);
    assert_eq!(reason(grantee.resume(&key, LineSet::ALL).await), Reason::Revoked);
    file.stat().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_file_goes_from_hand_to_hand_and_outlives_the_server() {
    let (mut world, all, [giver, grantee, _]) = three(&pattern(100)).await;
    let file = world.open(&giver, &read_write().exclusive()).await.unwrap();
    let options = GrantOptions { gives_up: true, ..GrantOptions::of(Rights::READ.union(Rights::WRITE)) };
    let key = grant(&world, &file, &all[1], options).await.key.unwrap();
    let mut events = giver.events();
    let part = world.resume(&grantee, &key, LineSet::ALL).await.unwrap();
    assert_eq!(ended(&mut events, file.handle()).await, Reason::TakenOver);
    file.leave_open();
    giver.close().await;
    let own = world.key_of(&part).await;
    part.leave_open();
    drop(grantee);
    world.kill();
    world.start_again();
    let [giver, grantee, third] = connect_all(&world, &all).await;
    for other in [&giver, &third] {
        assert_eq!(reason(world.open(other, &OpenOptions::new().read(true)).await), Reason::Busy);
        assert_eq!(reason(other.resume(&own, LineSet::ALL).await), Reason::ResumeRefused);
    }
    let part = world.resume(&grantee, &own, LineSet::ALL).await.unwrap();
    part.write_at(0, b"there").await.unwrap();
    part.close().await.unwrap();
    world.open(&third, &read_write().exclusive()).await.unwrap();
}
