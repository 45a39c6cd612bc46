//! Parts in an open that one client grants to another: given, offered, taken, ended, and there again with the next server.

use bowline::model::{ByteRange, GrantId, HandleId, LockMode, PublicKey, Reason, Refusal, ResumeKey, Rights};
use bowline::session::client::{Answer, SessionEvent};
use bowline::wire::ServerControl;
use bowline::wire::grants::{Grant, Revoke, TakeGrant};

use super::opens::refusal;
use super::pair::{LineSpec, Pair, Who};
use super::{millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];
const READ: Rights = Rights::READ;

/// Three clients, and a handle of the first one.
fn start(seed: u64) -> (Pair, [Who; 3], HandleId, ResumeKey) {
    let mut pair = Pair::new(seed);
    pair.disk.put("a", vec![7; 1000]);
    let all = [1, 2, 3].map(|name| pair.complete_client(name, &LINES));
    let open = pair.open(all[0], "a");
    let (handle, key) = pair.opened(all[0], open);
    (pair, all, handle, key.unwrap())
}

fn to(handle: HandleId, name: u8, rights: Rights) -> Grant {
    let to = PublicKey([name; 32]);
    Grant { handle, to, rights, lasts_ms: 0, deliver: false, gives_up: false }
}

fn grant(pair: &mut Pair, who: Who, asked: Grant) -> (GrantId, Option<ResumeKey>) {
    let asked = pair.control(who, asked);
    match pair.finish(who, asked) {
        Answer::Control(ServerControl::Granted(granted), _) => (granted.grant, granted.key.clone()),
        other => panic!("not granted: {other:?}"),
    }
}

fn resumed(pair: &mut Pair, who: Who, key: &ResumeKey) -> HandleId {
    let asked = pair.resume(who, key, None);
    pair.opened(who, asked).0
}

fn denied(pair: &mut Pair, who: Who, key: &ResumeKey) -> Reason {
    let asked = pair.resume(who, key, None);
    refusal(pair.error(who, asked)).reason
}

fn offers(pair: &Pair, who: Who) -> Vec<GrantId> {
    let offer = |(_, event): &(_, SessionEvent)| match event {
        SessionEvent::GrantOffered { grant, .. } => Some(*grant),
        _ => None,
    };
    pair.events(who).iter().filter_map(offer).collect()
}

fn ends(pair: &Pair, who: Who) -> Vec<(HandleId, Refusal)> {
    let end = |(_, event): &(_, SessionEvent)| match event {
        SessionEvent::HandleEnded { handle, refusal } => Some((*handle, *refusal)),
        _ => None,
    };
    pair.events(who).iter().filter_map(end).collect()
}

#[test]
fn b18_b19_a_key_that_is_passed_on_gets_its_grantee_the_rights_that_were_given() {
    let (mut pair, [giver, grantee, third], handle, _) = start(1);
    let (_, key) = grant(&mut pair, giver, to(handle, 2, READ));
    let key = key.unwrap();
    assert_eq!(denied(&mut pair, third, &key), Reason::ResumeRefused, "another identity");
    let part = resumed(&mut pair, grantee, &key);
    let read = pair.read(grantee, part, 0, 4);
    assert_eq!(**pair.bytes(grantee, read), [7; 4]);
    let write = pair.write(grantee, part, 0, *b"nope");
    assert_eq!(refusal(pair.error(grantee, write)).reason, Reason::PermissionDenied);
    let on = pair.control(grantee, to(part, 3, READ));
    assert_eq!(refusal(pair.error(grantee, on)).reason, Reason::PermissionDenied);
    let write = pair.write(giver, handle, 0, *b"mine");
    pair.finish(giver, write);
    assert_eq!((pair.server.table().opens_len(), pair.server.table().holders_len()), (1, 2));
}

#[test]
fn only_a_client_of_the_export_can_be_granted_anything() {
    let (mut pair, [giver, ..], handle, _) = start(2);
    let asked = pair.control(giver, to(handle, 9, READ));
    assert_eq!(refusal(pair.error(giver, asked)).reason, Reason::PermissionDenied);
    let mut less = super::pair::policy();
    less.clients.get_mut(&PublicKey([1; 32])).unwrap().rights = READ.union(Rights::GRANT);
    pair.change_policy(less);
    let asked = pair.control(giver, to(handle, 2, READ.union(Rights::WRITE)));
    assert_eq!(refusal(pair.error(giver, asked)).reason, Reason::PermissionDenied, "more than it may itself");
    grant(&mut pair, giver, to(handle, 2, READ));
}

#[test]
fn a_grantee_loses_what_the_list_of_clients_takes_and_everything_with_its_giver() {
    let (mut pair, [giver, grantee, _], handle, _) = start(3);
    let (_, key) = grant(&mut pair, giver, to(handle, 2, READ.union(Rights::WRITE)));
    let part = resumed(&mut pair, grantee, &key.unwrap());
    let mut less = super::pair::policy();
    less.clients.get_mut(&PublicKey([2; 32])).unwrap().rights = READ;
    pair.change_policy(less.clone());
    let write = pair.write(grantee, part, 0, *b"nope");
    assert_eq!(refusal(pair.error(grantee, write)).reason, Reason::PermissionDenied);
    less.clients.remove(&PublicKey([1; 32]));
    pair.change_policy(less);
    pair.run_for(millis(100));
    assert_eq!(ends(&pair, grantee), [(part, Reason::Revoked.into())]);
    assert_eq!(pair.server.table().opens_len(), 0);
}

#[test]
fn b20_the_server_tells_the_sessions_that_are_there_and_those_that_come() {
    let (mut pair, [giver, grantee, third], handle, _) = start(4);
    let (id, key) = grant(&mut pair, giver, Grant { deliver: true, ..to(handle, 2, READ) });
    assert_eq!(key, None);
    pair.run_for(millis(100));
    let later = pair.complete_client(2, &LINES);
    pair.run_for(millis(100));
    assert_eq!((offers(&pair, grantee), offers(&pair, later)), (vec![id], vec![id]));
    assert_eq!(offers(&pair, third), []);
    let wrong = pair.control(third, TakeGrant { grant: id });
    assert_eq!(refusal(pair.error(third, wrong)).reason, Reason::NotFound);
    let take = pair.control(later, TakeGrant { grant: id });
    let key = pair.key(later, take).unwrap();
    resumed(&mut pair, later, &key);
    let last = pair.complete_client(2, &LINES);
    pair.run_for(millis(100));
    assert_eq!(offers(&pair, last), [], "it is taken");
}

#[test]
fn a_revocation_is_answered_when_nothing_of_the_grant_executes() {
    let (mut pair, [giver, grantee, third], handle, _) = start(5);
    let all = READ.union(Rights::WRITE).union(Rights::GRANT);
    let (id, key) = grant(&mut pair, giver, to(handle, 2, all));
    let key = key.unwrap();
    let part = resumed(&mut pair, grantee, &key);
    let (_, on) = grant(&mut pair, grantee, to(part, 3, READ.union(Rights::WRITE)));
    let last = resumed(&mut pair, third, &on.unwrap());
    pair.disk_us = (500_000, 1);
    let write = pair.write(third, last, 0, *b"late");
    pair.run_for(millis(100));
    let revoke = pair.control(giver, Revoke { handle, grant: id });
    pair.run_for(millis(100));
    assert!(pair.outcome(giver, revoke).is_none(), "the write executes");
    pair.finish(giver, revoke);
    pair.finish(third, write);
    assert_eq!(ends(&pair, grantee), [(part, Reason::Revoked.into())]);
    assert_eq!(ends(&pair, third), [(last, Reason::Revoked.into())]);
    assert_eq!(denied(&mut pair, grantee, &key), Reason::Revoked);
    assert_eq!(denied(&mut pair, third, &key), Reason::ResumeRefused);
    assert_eq!(pair.server.table().holders_len(), 1);
}

#[test]
fn a_grant_ends_at_its_time_by_itself() {
    let (mut pair, [giver, grantee, _], handle, _) = start(6);
    let (_, key) = grant(&mut pair, giver, Grant { lasts_ms: 5000, ..to(handle, 2, READ) });
    let key = key.unwrap();
    let part = resumed(&mut pair, grantee, &key);
    pair.run_for(seconds(4));
    assert_eq!(ends(&pair, grantee), []);
    pair.run_for(seconds(2));
    assert_eq!(ends(&pair, grantee), [(part, Reason::Revoked.into())]);
    let read = pair.read(grantee, part, 0, 4);
    assert_eq!(refusal(pair.error(grantee, read)).reason, Reason::Revoked);
    assert_eq!(denied(&mut pair, grantee, &key), Reason::Revoked);
}

#[test]
fn a_move_hands_the_open_over_without_closing_it() {
    let (mut pair, [giver, grantee, third], handle, _) = start(7);
    let lock = (ByteRange::between(0, 10).unwrap(), LockMode::Exclusive);
    let locked = pair.lock(giver, handle, lock, millis(0));
    pair.finish(giver, locked);
    let rights = READ.union(Rights::WRITE);
    let (_, key) = grant(&mut pair, giver, Grant { gives_up: true, ..to(handle, 2, rights) });
    let part = resumed(&mut pair, grantee, &key.unwrap());
    pair.run_for(millis(100));
    assert_eq!(ends(&pair, giver), [(handle, Reason::TakenOver.into())]);
    pair.close_session(giver);
    pair.run_for(seconds(1000));
    // The lock of the open holds for whoever holds it, and against everybody else.
    let write = pair.write(grantee, part, 0, *b"ours");
    pair.finish(grantee, write);
    let foreign = pair.handle(third, "a");
    let read = pair.read(third, foreign, 0, 4);
    assert_eq!(refusal(pair.error(third, read)).reason, Reason::Locked);
}

#[test]
fn grants_are_there_again_with_the_next_server() {
    for is_reboot in [false, true] {
        let (mut pair, [giver, grantee, _], handle, own) = start(8);
        let (id, key) = grant(&mut pair, giver, to(handle, 2, READ));
        let key = key.unwrap();
        let part = resumed(&mut pair, grantee, &key);
        let issue = pair.issue_key(grantee, part);
        let part_key = pair.key(grantee, issue).unwrap();
        let (waiting, _) = grant(&mut pair, giver, Grant { deliver: true, ..to(handle, 3, READ) });
        if is_reboot {
            pair.reboot_server()
        } else {
            pair.restart_server()
        }
        let [giver, grantee, third] = [1, 2, 3].map(|name| pair.complete_client(name, &LINES));
        pair.run_for(millis(100));
        assert_eq!(offers(&pair, third), [waiting]);
        let part = resumed(&mut pair, grantee, &part_key);
        let handle = resumed(&mut pair, giver, &own);
        let revoke = pair.control(giver, Revoke { handle, grant: id });
        pair.finish(giver, revoke);
        pair.run_for(millis(100));
        assert_eq!(ends(&pair, grantee), [(part, Reason::Revoked.into())]);
        assert_eq!(denied(&mut pair, grantee, &part_key), Reason::Revoked);
        assert_eq!(denied(&mut pair, grantee, &key), Reason::Revoked);
    }
}

#[test]
fn a_grant_that_nobody_waited_for_is_revoked() {
    let (mut pair, [giver, ..], handle, _) = start(9);
    let asked = pair.control(giver, to(handle, 2, READ));
    pair.withdraw(giver, asked);
    pair.run_for(seconds(1));
    assert_eq!(pair.server.table().grants_len(), 0);
}
