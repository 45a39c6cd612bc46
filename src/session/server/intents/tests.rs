//! Clients that have many changes recorded and never say that they have the answers: what they can use up is theirs.

use super::*;
use crate::model::{ChannelKind, ExportPath};

const NOW: Time = Time(1_000_000);

fn intents() -> Intents {
    Intents::new(Epoch(2), NOW, (Vec::new(), None))
}

fn client(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn session(number: u64) -> SessionId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SessionId(bytes)
}

fn ticket(session_number: u64, request: u64) -> Ticket {
    Ticket { session: session(session_number), request: RequestId(request), kind: ChannelKind::Control }
}

fn change() -> IntendedChange {
    let (export, path) = ("data".parse().unwrap(), ExportPath::new(*b"new").unwrap());
    IntendedChange::MakeDirectory(IntendedName { export, path, before: NameState::default() })
}

/// What the next life would say of a request of this one; `ticket` of the one who asks.
fn told(intents: &mut Intents, who: u8, asked: Ticket) -> IntentOutcome {
    let (session, request) = (asked.session, asked.request);
    let question = Inquire { session, request, epoch: Epoch(2) };
    intents.inquire(client(who), ticket(999, 1), question)
}

/// The next life, with what this one has recorded, decided as `outcome`.
fn next_life(intents: &Intents, outcome: IntentOutcome) -> Intents {
    let records = intents.records.iter().map(|(key, intent)| {
        (*key, StoredIntent { outcome: Some(intent.outcome.unwrap_or(outcome)), ..intent.clone() })
    });
    Intents::new(Epoch(3), NOW, (records.collect(), intents.horizon))
}

#[test]
fn t33_a_client_that_settles_nothing_gives_up_its_own_oldest_records() {
    let mut intents = intents();
    intents.begin(client(2), ticket(0, 1), change());
    // A session has no more ids at once than its window is wide; there is no end of sessions.
    let width = 1_000;
    for at in 0..3 * u64::try_from(Limits::INTENTS_PER_CLIENT).unwrap() {
        let ticket = ticket(1 + at / width, 1 + at % width);
        intents.begin(client(1), ticket, change());
        assert!(intents.by_client[&client(1)].len() <= Limits::INTENTS_PER_CLIENT);
        if at % width == width - 1 {
            intents.on_session_over(NOW, ticket.session, true);
        }
    }
    assert_eq!(intents.records.len(), Limits::INTENTS_PER_CLIENT + 1);
    assert_eq!(intents.by_request.len(), intents.records.len());
    let mut next = next_life(&intents, IntentOutcome::Executed);
    assert_eq!(told(&mut next, 2, ticket(0, 1)), IntentOutcome::Executed, "nobody else's went");
    assert_eq!(told(&mut next, 1, ticket(12, 1)), IntentOutcome::Executed, "one of the newest");
    assert_eq!(told(&mut next, 1, ticket(1, 1)), IntentOutcome::Unknown, "one that was given up");
    assert_eq!(told(&mut next, 2, ticket(12, 1)), IntentOutcome::Unknown, "somebody else's");
}

#[test]
fn t33_all_clients_together_have_no_more_records_than_there_may_be() {
    let mut intents = intents();
    intents.begin(client(0), ticket(0, 1), change());
    for number in 1..=20_u8 {
        for request in 1..=u64::try_from(Limits::INTENTS_PER_CLIENT).unwrap() {
            intents.begin(client(number), ticket(u64::from(number), request), change());
            assert!(intents.records.len() <= Limits::INTENTS_TOTAL);
        }
    }
    assert_eq!(intents.records.len(), Limits::INTENTS_TOTAL);
    let mut next = next_life(&intents, IntentOutcome::Executed);
    assert_eq!(told(&mut next, 0, ticket(0, 1)), IntentOutcome::Executed, "whoever has most gives up");
}

/// The commit that says since when records are missing may be refused for another change in it.
#[test]
fn f50_that_records_were_given_up_is_stored_once_more_when_its_commit_was_refused() {
    let mut intents = intents();
    intents.begin(client(1), ticket(1, 1), change());
    intents.on_session_over(NOW, ticket(1, 1).session, true);
    let later = NOW.after(Limits::INTENT_KEPT);
    intents.expire(later);
    for _ in 0..3 {
        assert!(intents.has_changes(later));
        let mut changes = TableChanges::default();
        intents.add_changes(later, &mut changes);
        assert_eq!((changes.horizon, changes.is_urgent), (Some(Epoch(2)), true));
        assert!(!intents.has_changes(later));
        intents.store_again(later, &Records { intents: vec![1], has_horizon: true, ..Records::default() });
    }
}

/// What was given up may have been executed: from then on no record means nothing.
#[test]
fn t33_without_a_record_a_request_was_not_executed_only_if_none_was_given_up_since() {
    let mut intents = intents();
    intents.begin(client(1), ticket(1, 1), change());
    let mut next = next_life(&intents, IntentOutcome::NotExecuted);
    assert_eq!(told(&mut next, 1, ticket(1, 1)), IntentOutcome::NotExecuted);
    assert_eq!(told(&mut next, 1, ticket(1, 2)), IntentOutcome::NotExecuted, "it never had a record");
    next.expire(NOW.after(Limits::INTENT_KEPT));
    assert!(next.records.is_empty() && next.by_request.len() <= 1 && next.by_client.is_empty());
    assert_eq!(told(&mut next, 1, ticket(1, 2)), IntentOutcome::Unknown);
}
