//! What must not run twice, and a server that is killed while it is under way: at every moment from the request to the
//! answer, with a record of it or without, before its effect and behind it. What is told is what became of it.

use bowline::model::{Create, CreateId, ExportPath, HandleId, LinkTarget, Reason, RenameHow};
use bowline::session::client::{Answer, Ticket};
use bowline::wire::names::{HardLink, MakeDirectory, Place, Rename, Symlink};

use super::opens::refusal;
use super::pair::{LineSpec, OpenSpec, Pair, Who};
use super::{millis, seconds};

const LINES: [LineSpec; 2] = [LineSpec::BOTH, LineSpec::BOTH];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    CreateNew,
    MakeDirectory,
    Symlink,
    HardLink,
    Remove,
    Rename,
    SetLength,
    Append,
}

pub(crate) const ALL: [Change; 8] = [
    Change::CreateNew,
    Change::MakeDirectory,
    Change::Symlink,
    Change::HardLink,
    Change::Remove,
    Change::Rename,
    Change::SetLength,
    Change::Append,
];

fn path(name: &str) -> ExportPath {
    ExportPath::new(name.as_bytes()).unwrap()
}

fn place(name: &str) -> Place {
    Place { export: "data".parse().unwrap(), path: path(name) }
}

impl Change {
    pub(crate) fn ask(self, pair: &mut Pair, who: Who, handle: HandleId) -> Ticket {
        let export = || "data".parse().unwrap();
        match self {
            Self::CreateNew => {
                let create_id = CreateId([8; 16]);
                pair.open_as(who, OpenSpec { create: Create::New, create_id, ..OpenSpec::of("new") })
            }
            Self::MakeDirectory => {
                pair.control(who, MakeDirectory { place: place("new"), permissions: 0o777 })
            }
            Self::Symlink => {
                pair.control(who, Symlink { place: place("new"), target: LinkTarget::new("old").unwrap() })
            }
            Self::HardLink => {
                pair.control(who, HardLink { export: export(), from: path("old"), to: path("new") })
            }
            Self::Remove => pair.remove(who, "old"),
            Self::Rename => {
                let (from, to) = (path("old"), path("new"));
                pair.control(who, Rename { export: export(), from, to, how: RenameHow::NoReplace })
            }
            Self::SetLength => pair.set_len(who, handle, 40),
            Self::Append => pair.append(who, handle, *b"appended"),
        }
    }

    /// How often it was made, by what there is now.
    pub(crate) fn made(self, pair: &Pair) -> usize {
        match self {
            Self::CreateNew | Self::MakeDirectory | Self::Symlink | Self::HardLink => {
                usize::from(pair.disk.has("new"))
            }
            Self::Remove => usize::from(!pair.disk.has("old")),
            Self::Rename => usize::from(pair.disk.has("new") && !pair.disk.has("old")),
            Self::SetLength => usize::from(pair.disk.bytes("a").len() == 40),
            Self::Append => pair.disk.executions(b"appended"),
        }
    }
}

/// Kills the server so long after a request was made; says what the client was told.
fn killed_after(change: Change, seed: u64, after: u64) -> Result<(), Reason> {
    let mut pair = Pair::new(seed);
    pair.disk.put("a", vec![7; 64]);
    pair.disk.put("old", vec![8; 8]);
    let who = pair.complete_client(1, &LINES);
    let handle = pair.handle(who, "a");
    let request = change.ask(&mut pair, who, handle);
    pair.run_for(core::time::Duration::from_micros(after));
    pair.restart_server();
    pair.run_until("it has its answer", seconds(30), |pair| pair.outcome(who, request).is_some());
    pair.run_for(millis(100));
    let told = match pair.outcome(who, request) {
        Some(Ok(answer)) => {
            if let Answer::Appended(done) = answer {
                assert_eq!((done.offset, done.written), (64, 8));
            }
            Ok(())
        }
        _ => Err(refusal(pair.error(who, request)).reason),
    };
    let made = change.made(&pair);
    match told {
        Ok(()) => assert_eq!(made, 1, "{change:?} {seed} {after}"),
        Err(Reason::Unknown) => assert!(made <= 1, "{change:?} {seed} {after}: {made}"),
        Err(other) => panic!("{change:?} {seed} {after}: {other:?}"),
    }
    if change == Change::CreateNew && told.is_ok() {
        let (handle, _) = pair.opened(who, request);
        let write = pair.write(who, handle, 0, *b"mine");
        pair.finish(who, write);
        assert_eq!(pair.disk.bytes("new"), b"mine");
    }
    told
}

#[test]
fn t32_f40_a_server_that_is_killed_at_any_moment_leaves_nothing_done_twice() {
    for change in ALL {
        let mut unknown = 0;
        for after in (0..1600).step_by(20) {
            unknown += usize::from(killed_after(change, after, after).is_err());
        }
        // Nothing tells who has made a directory that was made and not recorded as made.
        let is_decided = change != Change::MakeDirectory;
        assert!(!is_decided || unknown == 0, "{change:?}: {unknown} of 80 are not known");
        assert!(is_decided || (1..=20).contains(&unknown), "{change:?}: {unknown} of 80 are not known");
    }
}

/// What was executed and not acknowledged is looked for in the file. A process that ends leaves it there, and a machine
/// what was synced: that is answered. What a machine has taken along is not there, and so is done, once for all that anybody
/// can see.
#[test]
fn t32_an_append_is_made_again_only_if_its_machine_has_lost_it() {
    for (has_machine_ended, is_synced) in [(false, false), (true, true), (true, false)] {
        let mut pair = Pair::new(4);
        pair.disk.put("a", vec![7; 64]);
        let who = pair.complete_client(1, &LINES);
        let handle = pair.handle(who, "a");
        let request = pair.append(who, handle, *b"appended");
        pair.run_until("it was executed", seconds(1), |pair| pair.disk.executions(b"appended") == 1);
        assert!(!pair.is_answered(who, request));
        if is_synced {
            pair.disk.sync_locally("a");
        }
        if has_machine_ended {
            pair.reboot_server();
        } else {
            pair.restart_server();
        }
        let told = matches!(pair.finish(who, request), Answer::Appended(done) if (done.offset, done.written) == (64, 8));
        assert!(told, "{has_machine_ended} {is_synced}");
        let is_lost = has_machine_ended && !is_synced;
        assert_eq!(pair.disk.executions(b"appended"), 1 + usize::from(is_lost));
        assert_eq!(
            pair.disk.bytes("a"),
            [&[7; 64][..], b"appended"].concat(),
            "once, as far as anybody can see"
        );
    }
}

/// The records of what the client has the answers of are not kept.
#[test]
fn a_record_goes_when_its_client_has_the_answer() {
    let mut pair = Pair::new(3);
    pair.disk.put("a", vec![7; 64]);
    pair.disk.put("old", vec![8; 8]);
    let who = pair.complete_client(1, &LINES);
    let handle = pair.handle(who, "a");
    for change in [Change::Append, Change::SetLength, Change::Rename, Change::MakeDirectory] {
        let request = change.ask(&mut pair, who, handle);
        match change {
            Change::MakeDirectory => assert_eq!(refusal(pair.error(who, request)).reason, Reason::Exists),
            _ => drop(pair.finish(who, request)),
        }
    }
    let stat = pair.stat(who, handle);
    pair.finish(who, stat);
    pair.run_for(millis(100));
    assert_eq!(pair.store.intents.len(), 0, "{:?}", pair.store.intents);
}

/// A second server that is killed before it has served anybody decides nothing anew.
#[test]
fn f41_a_server_that_is_killed_again_and_again_decides_once() {
    for change in ALL {
        let mut pair = Pair::new(5);
        pair.disk.put("a", vec![7; 64]);
        pair.disk.put("old", vec![8; 8]);
        let who = pair.complete_client(1, &LINES);
        let handle = pair.handle(who, "a");
        let request = change.ask(&mut pair, who, handle);
        pair.run_for(core::time::Duration::from_micros(700));
        for _ in 0..20 {
            pair.restart_server();
            pair.run_for(core::time::Duration::from_micros(150));
        }
        pair.run_until("it has its answer", seconds(60), |pair| pair.outcome(who, request).is_some());
        let is_known = pair.outcome(who, request).is_some_and(Result::is_ok);
        assert_eq!(change.made(&pair), 1, "{change:?}: {is_known}");
    }
}
