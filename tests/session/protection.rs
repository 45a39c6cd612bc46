//! How data channels are protected at least: four demands, of which the strictest holds, whenever it is made.

use std::collections::BTreeMap;

use bowline::model::{ChannelKind, Policy, Protection, ProtectionMinima, PublicKey};
use bowline::session::server::ServerNote;

use super::pair::{LineSpec, Pair, Who, policy};
use super::{millis, seconds};

const CLIENT: u8 = 1;

/// A list in which the client's entry demands `least` and has `exports` beside the one that it uses.
fn list(least: Protection, exports: &[&str]) -> Policy {
    let mut policy = policy();
    let access = policy.clients.get_mut(&PublicKey([CLIENT; 32])).unwrap();
    access.protection_min = least;
    access.exports.extend(exports.iter().map(|name| name.parse().unwrap()));
    policy
}

fn minima(server: Protection, exports: &[(&str, Protection)]) -> ProtectionMinima {
    let exports = exports.iter().map(|(name, least)| (name.parse().unwrap(), *least));
    ProtectionMinima { server, exports: exports.collect::<BTreeMap<_, _>>() }
}

fn line(protection: Protection) -> LineSpec {
    LineSpec { protection, ..LineSpec::BOTH }
}

/// How each of the client's live data channels is protected, as the client has been told.
fn protection(pair: &Pair, who: Who) -> Vec<Protection> {
    pair.live(who, ChannelKind::Data).iter().map(|channel| channel.protection).collect()
}

/// The same by the server's own account, of every channel that it has ever bound.
fn bound(pair: &Pair, kind: ChannelKind) -> Vec<Protection> {
    let protection = |note: &ServerNote| match note {
        ServerNote::ChannelBound { kind: of, protection, .. } if *of == kind => Some(*protection),
        _ => None,
    };
    pair.notes.iter().filter_map(protection).collect()
}

/// 3 x 3 x 3 x 3 demands, each through a bind; the client asks for its own demand, as an honest one does.
#[test]
fn t06_the_strictest_of_client_server_export_and_entry_holds() {
    let mut cases = 0;
    for &client in Protection::EACH {
        for &server in Protection::EACH {
            for &export in Protection::EACH {
                for &entry in Protection::EACH {
                    let minima = minima(server, &[("data", export)]);
                    let mut pair = Pair::configured(1, minima, list(entry, &[]));
                    pair.disk.put("a", vec![7; 100]);
                    let who = pair.complete_client(CLIENT, &[line(client), line(client)]);
                    let expected = client.max(server).max(export).max(entry);
                    let case = format!("client {client}, server {server}, export {export}, entry {entry}");
                    assert_eq!(protection(&pair, who), [expected; 2], "{case}");
                    assert_eq!(bound(&pair, ChannelKind::Data), [expected; 2], "{case}");
                    assert!(bound(&pair, ChannelKind::Control).iter().all(|it| *it == Protection::Sealed));
                    for channel in pair.live(who, ChannelKind::Data) {
                        assert_eq!(channel.offered, client, "{case}: it is told what was asked for");
                    }
                    let handle = pair.handle(who, "a");
                    let read = pair.read(who, handle, 0, 100);
                    assert_eq!(pair.bytes(who, read).as_slice(), [7; 100], "{case}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 81);
}

/// Each line asks for itself; what the server demands it demands of all of them.
#[test]
fn lines_are_protected_as_each_asks_and_not_less_than_demanded() {
    use Protection::{Clear, Sealed, Signed};
    let offers = [line(Clear), line(Signed), line(Sealed)];
    for (demanded, expected) in
        [(Clear, [Clear, Signed, Sealed]), (Signed, [Signed, Signed, Sealed]), (Sealed, [Sealed; 3])]
    {
        let mut pair = Pair::configured(1, minima(demanded, &[]), list(Clear, &[]));
        let who = pair.complete_client(CLIENT, &offers);
        let mut found = pair.live(who, ChannelKind::Data);
        found.sort_by_key(|channel| channel.line);
        assert_eq!(found.iter().map(|channel| channel.protection).collect::<Vec<_>>(), expected);
    }
}

/// An export that the client never opens is as good as one that it reads: the channel could carry it.
#[test]
fn one_strict_export_makes_all_of_a_clients_data_channels_strict() {
    let minima = minima(Protection::Clear, &[("vault", Protection::Sealed), ("data", Protection::Clear)]);
    for (exports, expected) in [(&[][..], Protection::Clear), (&["vault"], Protection::Sealed)] {
        let list = list(Protection::Clear, exports);
        let mut pair = Pair::configured(1, minima.clone(), list);
        let who = pair.complete_client(CLIENT, &[line(Protection::Clear)]);
        assert_eq!(protection(&pair, who), [expected], "{exports:?}");
        let effective = pair.server.effective_protection();
        assert_eq!(effective.clients["client-1"], expected);
        assert_eq!(effective.clients["client-2"], Protection::Signed, "whose entry says nothing of clear");
    }
}

/// The list changes before, within and after the handshake: after each step of the setup once.
#[test]
fn t06_a_demand_that_rises_during_a_bind_holds_for_that_channel() {
    let (weak, strict) = (list(Protection::Clear, &[]), list(Protection::Sealed, &[]));
    let mut refused = 0;
    for steps in 0..60 {
        let mut pair = Pair::configured(1, minima(Protection::Clear, &[]), weak.clone());
        let who = pair.client(CLIENT, &[line(Protection::Clear)]);
        for _ in 0..steps {
            pair.step();
        }
        pair.change_policy(strict.clone());
        let is_sealed = |pair: &Pair| protection(pair, who) == [Protection::Sealed];
        pair.run_until("the data channel is sealed", seconds(20), is_sealed);
        pair.run_for(seconds(1));
        assert!(is_sealed(&pair), "after {steps} steps: {:?}", protection(&pair, who));
        refused += usize::from(pair.notes.iter().any(|note| matches!(note, ServerNote::BindRefused { .. })));
    }
    assert!(refused > 0, "no list came between the handshake and the first record");
}

/// Every way in which a new list can demand more, with something under way.
#[test]
fn a_raised_demand_closes_weaker_channels_and_what_was_under_way_goes_on() {
    let strict_entry = list(Protection::Sealed, &[]);
    let strict_export = list(Protection::Clear, &["vault"]);
    for (what, raised) in [("the entry", strict_entry), ("an export of the entry", strict_export)] {
        let minima = minima(Protection::Clear, &[("vault", Protection::Sealed)]);
        let mut pair = Pair::configured(1, minima, list(Protection::Clear, &[]));
        pair.disk.put("a", vec![7; 100]);
        // Of two lines one is strong enough already.
        let who = pair.complete_client(CLIENT, &[line(Protection::Clear), line(Protection::Sealed)]);
        let handle = pair.handle(who, "a");
        pair.disk.hold_reads = 4;
        let reads: Vec<_> = (0..4).map(|at| pair.read(who, handle, at * 10, 10)).collect();
        pair.run_for(millis(5));
        pair.change_policy(raised);
        pair.release_disk();
        pair.run_until("both are sealed", seconds(20), |pair| {
            protection(pair, who) == [Protection::Sealed; 2]
        });
        for read in reads {
            assert_eq!(pair.bytes(who, read).as_slice(), [7; 10], "{what}");
        }
        assert_eq!(pair.losses(who).len(), 1, "{what}: the stronger one was left alone");
    }
}

#[test]
fn a_lowered_demand_changes_no_channel_that_is_there() {
    let mut pair = Pair::configured(1, minima(Protection::Clear, &[]), list(Protection::Sealed, &[]));
    let who = pair.complete_client(CLIENT, &[line(Protection::Clear)]);
    pair.change_policy(list(Protection::Clear, &[]));
    pair.run_for(seconds(20));
    assert_eq!((protection(&pair, who), pair.losses(who).len()), (vec![Protection::Sealed], 0));
}
