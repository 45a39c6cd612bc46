//! The rules of admission, each on its own and under floods.

use core::time::Duration;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

/// Numbers that a test can play again.
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        for part in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError)
    }
}

const START: Time = Time(1_000_000_000);

fn new() -> Admission {
    Admission::new(&Limits::default())
}

/// An address of the network `network`.
fn v4(network: u16, host: u8) -> IpAddr {
    let [low, high] = network.to_le_bytes();
    Ipv4Addr::new(10, high, low, host).into()
}

fn come(admission: &mut Admission, now: Time, source: IpAddr, seed: &mut Seeded) -> Verdict {
    admission.handle_accepted(now, source, seed).unwrap()
}

fn admitted(verdict: Verdict) -> HalfOpenId {
    match verdict {
        Verdict::Admitted { id, .. } => id,
        Verdict::TurnedAway(why) => panic!("turned away: {why:?}"),
    }
}

#[test]
fn networks_are_a_24_and_a_64_and_mapped_addresses_are_what_they_map() {
    let network = |text: &str| Network::of(text.parse().unwrap());
    assert_eq!(network("192.0.2.1"), network("192.0.2.254"));
    assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.1"));
    assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::1"));
    assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    assert_eq!(network("192.0.2.1").to_string(), "192.0.2.0/24");
    assert_eq!(network("2001:db8:1:2:3::1").to_string(), "2001:db8:1:2::/64");
    assert_eq!(Network::of(Ipv6Addr::LOCALHOST.into()).to_string(), "::/64");
}

#[test]
fn proven_clients_never_run_dry_and_failures_do() {
    let (mut admission, mut seed) = (new(), Seeded(1));
    for client in 0..10_000 {
        let id = admitted(come(&mut admission, START, v4(1, u8::try_from(client % 250).unwrap()), &mut seed));
        admission.handle_proven(START, id);
    }
    assert_eq!(admission.tokens(START, v4(1, 1)), 256);
    for _ in 0..256 {
        let id = admitted(come(&mut admission, START, v4(1, 1), &mut seed));
        admission.handle_ended(id);
    }
    let dry = Verdict::TurnedAway(Why::NoToken);
    assert_eq!(come(&mut admission, START, v4(1, 200), &mut seed), dry);
    admitted(come(&mut admission, START, v4(2, 1), &mut seed));
    let later = START.after(Duration::from_secs(1));
    let through = (0..1000).filter(|_| come(&mut admission, later, v4(1, 1), &mut seed) != dry).count();
    assert_eq!(through, 64, "what a second brings back");
    assert_eq!(admission.counts().proven, 10_000);
}

#[test]
fn cve_2026_31711_every_end_of_a_half_open_connection_counts_once() {
    let (mut admission, mut seed) = (new(), Seeded(2));
    for round in 0..100_u64 {
        let now = START.after(Duration::from_secs(10 * round));
        let ids: Vec<HalfOpenId> =
            (0..100).map(|at| admitted(come(&mut admission, now, v4(at % 7, 1), &mut seed))).collect();
        assert_eq!(admission.half_open(), 100);
        for (at, id) in ids.into_iter().enumerate() {
            match at % 4 {
                0 => admission.handle_proven(now, id),
                1 => admission.handle_ended(id),
                2 => {
                    // The end of a proven connection's task comes later, and is no second end.
                    admission.handle_proven(now, id);
                    admission.handle_ended(id);
                }
                _ => {
                    admission.handle_ended(id);
                    admission.handle_proven(now, id);
                }
            }
        }
        assert_eq!(admission.half_open(), 0);
    }
    let later = START.after(Duration::from_secs(2000));
    for network in 0..7 {
        assert_eq!(admission.tokens(later, v4(network, 1)), 256);
        let at = admission.networks.place(later, Network::of(v4(network, 1)));
        assert!(admission.networks.half_open(at).is_empty());
    }
    assert_eq!(admission.counts().proven, 5000);
}

/// 1,024 silent connections from many networks, with a newcomer now and then.
#[test]
fn whoever_holds_all_half_open_connections_cannot_keep_others_out() {
    let (mut admission, mut seed) = (new(), Seeded(3));
    let mut silent = std::collections::HashSet::new();
    let mut network = 0;
    while admission.half_open() < Limits::HALF_OPEN_MAX {
        network += 1;
        if let Verdict::Admitted { id, instead_of } = come(&mut admission, START, v4(network, 1), &mut seed) {
            silent.insert(id);
            silent.retain(|own| Some(*own) != instead_of);
        }
        assert!(network < 5000, "the cap is never reached");
    }
    let mut kept_out = 0;
    for _ in 0..1000 {
        match come(&mut admission, START, v4(9000, 1), &mut seed) {
            Verdict::Admitted { id, instead_of } => {
                assert!(instead_of.is_none_or(|victim| silent.remove(&victim)), "only silent ones are there");
                admission.handle_proven(START, id);
                // And the attacker fills up again.
                network += 1;
                match come(&mut admission, START, v4(network, 1), &mut seed) {
                    Verdict::Admitted { id, instead_of } => {
                        silent.insert(id);
                        assert!(instead_of.is_none_or(|victim| silent.remove(&victim)));
                    }
                    Verdict::TurnedAway(why) => assert_eq!(why, Why::Drawn),
                }
            }
            Verdict::TurnedAway(why) => {
                assert_eq!(why, Why::Drawn);
                kept_out += 1;
            }
        }
        assert!(admission.half_open() <= Limits::HALF_OPEN_MAX);
    }
    assert!(kept_out < 10, "{kept_out} of 1,000 were kept out; one in 1,025 is what is to be expected");
}

#[test]
fn the_risk_is_nothing_below_half_of_the_cap_and_rises_to_certainty() {
    let (mut admission, mut seed) = (new(), Seeded(4));
    for network in 0..512 {
        let verdict = come(&mut admission, START, v4(network, 1), &mut seed);
        assert!(matches!(verdict, Verdict::Admitted { instead_of: None, .. }), "{verdict:?}");
    }
    // What it is at some places in between, by 4,000 tries each.
    for (len, percent) in [(512, 0), (640, 25), (768, 50), (896, 75), (1024, 100)] {
        let mut admission = new();
        for network in 0..len {
            let at = admission.networks.place(START, Network::of(v4(network, 1)));
            let id = admission.half_open.enter(at);
            admission.networks.enter(at, id);
        }
        let at = admission.networks.place(START, Network::of(v4(9000, 1)));
        let drawn =
            (0..4000).filter(|_| !matches!(admission.draw(at, &mut seed).unwrap(), Draw::Nobody)).count();
        assert!(drawn.abs_diff(40 * percent) <= 120, "{drawn} of 4,000 at {len}, where {percent} % is right");
    }
}

#[test]
fn a_network_at_its_share_draws_among_its_own() {
    let limits = Limits { handshake_burst: 100_000, ..Limits::default() };
    let (mut admission, mut seed) = (Admission::new(&limits), Seeded(5));
    let other = admitted(come(&mut admission, START, v4(2, 1), &mut seed));
    for _ in 0..10_000 {
        let verdict = come(&mut admission, START, v4(1, 1), &mut seed);
        assert!(!matches!(verdict, Verdict::Admitted { instead_of: Some(id), .. } if id == other));
    }
    assert_eq!(admission.half_open(), Limits::HALF_OPEN_SHARE + 1);
    let through = (0..1000)
        .filter(|_| matches!(come(&mut admission, START, v4(1, 77), &mut seed), Verdict::Admitted { .. }))
        .count();
    assert!(through > 980, "{through} of 1,000 newcomers of the same network came in");
}

#[test]
fn the_table_is_bounded_and_pushing_others_out_makes_no_tokens() {
    let (mut admission, mut seed) = (new(), Seeded(6));
    let spent = |admission: &mut Admission, now, network, seed: &mut Seeded| {
        while let Verdict::Admitted { id, .. } = come(admission, now, v4(network, 1), seed) {
            admission.handle_ended(id);
        }
    };
    for network in 0..4096 {
        spent(&mut admission, START, network, &mut seed);
    }
    assert_eq!(admission.networks(), 4096);
    // All buckets are empty, so nobody gets a fresh one by coming from elsewhere.
    for network in 5000..15_000 {
        let verdict = come(&mut admission, START, v4(network, 1), &mut seed);
        assert_eq!(verdict, Verdict::TurnedAway(Why::NoToken));
    }
    assert_eq!(admission.networks(), 4096);
    // Once buckets are full again they are forgotten first, and newcomers have what is theirs.
    let later = START.after(Duration::from_secs(4));
    assert_eq!(admission.tokens(later, v4(15_001, 1)), 256);
    let id = admitted(come(&mut admission, later, v4(15_001, 1), &mut seed));
    assert_eq!(admission.tokens(later, v4(15_001, 1)), 255);
    admission.handle_ended(id);
}

#[test]
fn a_network_with_something_half_open_keeps_its_place() {
    let (mut admission, mut seed) = (new(), Seeded(7));
    let held: Vec<HalfOpenId> =
        (0..500).map(|network| admitted(come(&mut admission, START, v4(network, 1), &mut seed))).collect();
    for network in 1000..20_000 {
        let id = admitted(come(&mut admission, START, v4(network, 1), &mut seed));
        admission.handle_ended(id);
    }
    assert_eq!(admission.half_open(), 500);
    for id in held {
        admission.handle_proven(START, id);
    }
    for network in 0..500 {
        assert_eq!(admission.tokens(START, v4(network, 1)), 256, "the token came back to its own network");
    }
}

#[test]
fn enrolments_have_a_small_bucket_for_all() {
    let mut admission = new();
    let asked = |admission: &mut Admission, now, networks: core::ops::Range<u16>| {
        networks.filter(|&network| admission.may_enrol(now, v4(network, 1))).count()
    };
    assert_eq!(asked(&mut admission, START, 0..100), 16);
    assert_eq!(asked(&mut admission, START.after(Duration::from_secs(1)), 0..100), 4);
    assert_eq!(
        admission.tokens(START.after(Duration::from_secs(1)), v4(99, 1)),
        255,
        "each try costs its network"
    );
}

#[test]
fn one_network_does_not_use_up_the_enrolments_of_all() {
    let mut admission = new();
    let asked = |admission: &mut Admission, now| {
        (0..100).filter(|&host| admission.may_enrol(now, v4(7, host))).count()
    };
    assert_eq!(asked(&mut admission, START), 4);
    assert!(admission.may_enrol(START, v4(8, 1)), "another one has its own");
    assert_eq!(asked(&mut admission, START.after(Duration::from_secs(1))), 1);
}

#[test]
fn without_random_bytes_nobody_is_drawn_and_nothing_leaks() {
    let (mut admission, mut seed) = (new(), Seeded(8));
    for network in 0..513 {
        admitted(come(&mut admission, START, v4(network, 1), &mut seed));
    }
    assert_eq!(admission.handle_accepted(START, v4(9000, 1), &mut NoEntropy), Err(EntropyError));
    assert_eq!(admission.half_open(), 513);
}

#[test]
fn f64_the_log_gets_one_line_per_network_and_minute_and_few_from_all() {
    let mut admission = new();
    assert_eq!(admission.handle_refused(START, v4(1, 1)), Said::Now { untold: 0 });
    for host in 0..250 {
        assert_eq!(admission.handle_refused(START, v4(1, host)), Said::Later);
    }
    assert_eq!(admission.take_untold(), 250);
    let minute = START.after(Duration::from_secs(60));
    assert_eq!(admission.handle_refused(minute, v4(1, 3)), Said::Now { untold: 250 });
    // Many networks in one second: a burst, and the rest is counted.
    let hour = START.after(Duration::from_secs(3600));
    let lines =
        (0..20_000).filter(|&network| admission.handle_refused(hour, v4(network, 1)) != Said::Later).count();
    assert_eq!(lines, 64);
    assert_eq!(admission.take_untold(), 20_000 - 64);
    assert_eq!(admission.take_untold(), 0);
}
