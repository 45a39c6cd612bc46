//! A server whose store fails or tears at any call, while names are made, changed and removed: whatever it has left, the
//! next life says of each change what became of it. The core, its records, the store and the recovery are those of the
//! program; the folder whose names are changed is a shadow.

use std::collections::VecDeque;
use std::io::ErrorKind;

use super::disk::{Crash, Disk};
use super::*;
use crate::model::{
    Access, BootId, Entropy, EntropyError, Epoch, Evidence, ExportName, ExportPath, FileIdentity, InstanceId,
    IntendedChange, Limits, LinkTarget, NameState, Policy, Protection, ProtectionMinima, PublicKey, Reason,
    Refusal, Removal, RenameHow, RequestId, Rights, SessionId, SuiteSet, Time, Verifier,
};
use crate::opens::TableChanges;
use crate::server::persistence;
use crate::server::store::{HashKey, Loaded};
use crate::session::Input;
use crate::session::server::{
    ClientMessage, CommitId, Completion, ConnectionId, Effect, EffectId, NameReport, NameWork, ServerCore,
    ServerKeys, ServerMessage, ServerOutput, ServerSetup, SessionFacts,
};
use crate::wire::control::{Begin, Done, Purpose};
use crate::wire::hello::SessionOffer;
use crate::wire::names::{HardLink, MakeDirectory, Place, Remove, Rename, Symlink};
use crate::wire::outcomes::{Became, Inquire};
use crate::wire::{ClientControl, ServerControl};

const OPERATIONS: u64 = 400;
/// Requests that come together, and whose answers the client has together.
const TOGETHER: u64 = 8;
const CONTROL: ConnectionId = ConnectionId(0);
const CLIENT: PublicKey = PublicKey([1; 32]);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let len = bytes.len();
        bytes.copy_from_slice(&self.bytes(len));
        Ok(())
    }
}

fn export() -> ExportName {
    "data".parse().unwrap()
}

fn path(name: &str) -> ExportPath {
    ExportPath::new(name.as_bytes()).unwrap()
}

/// The operation with a number: each has names of its own, and a file where it needs one.
fn operation(at: u64) -> ClientControl {
    let (new, old) = (path(&format!("new-{at}")), path(&format!("old-{at}")));
    let place = |path| Place { export: export(), path };
    match at % 5 {
        0 => MakeDirectory { place: place(new), permissions: 0o755 }.into(),
        1 => Symlink { place: place(new), target: target() }.into(),
        2 => HardLink { export: export(), from: old, to: new }.into(),
        3 => Remove { place: place(old), what: Removal::File }.into(),
        _ => Rename { export: export(), from: old, to: new, how: RenameHow::NoReplace }.into(),
    }
}

fn target() -> LinkTarget {
    LinkTarget::new("somewhere").unwrap()
}

fn identity(inode: u64) -> FileIdentity {
    FileIdentity { device: 1, inode, born_ns: 0 }
}

/// The names that there are, and what they stand for.
#[derive(Clone)]
struct Folder(BTreeMap<Vec<u8>, u64>);

impl Folder {
    fn new() -> Self {
        Self((0..OPERATIONS).map(|at| (format!("old-{at}").into_bytes(), at + 10)).collect())
    }

    /// Whether an operation was executed.
    fn shows(&self, at: u64) -> bool {
        let has = |name: String| self.0.contains_key(name.as_bytes());
        if at % 5 == 3 { !has(format!("old-{at}")) } else { has(format!("new-{at}")) }
    }

    fn state(&self, name: &ExportPath) -> NameState {
        let file = self.0.get(name.as_bytes()).copied().map(identity);
        NameState { directory: Some(identity(1)), file }
    }

    fn evidence(&self, change: &IntendedChange) -> Evidence {
        let names = change.names();
        let states: Vec<_> = names.iter().map(|name| self.state(&name.path)).collect();
        let is_link = matches!(change, IntendedChange::Symlink(..)) && states[0].file.is_some();
        Evidence { names: states, target: is_link.then(target), ..Evidence::default() }
    }

    fn execute(&mut self, effect: Effect<()>) -> Completion<()> {
        match effect {
            Effect::Identify { names, .. } => {
                Completion::Identified(Ok(names.iter().map(|name| self.state(name)).collect()))
            }
            Effect::Name(work) => Completion::Named(self.change(work)),
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, work: NameWork<()>) -> Result<NameReport<()>, Refusal> {
        match work {
            NameWork::MakeDirectory(MakeDirectory { place, .. })
            | NameWork::Symlink(Symlink { place, .. }) => self.add(&place.path, None)?,
            NameWork::HardLink(link) => {
                let file = self.0.get(link.from.as_bytes()).copied();
                self.add(&link.to, file)?;
            }
            NameWork::Remove { remove, .. } => drop(self.0.remove(remove.place.path.as_bytes()).unwrap()),
            NameWork::Rename { rename, .. } => {
                let file = self.0.remove(rename.from.as_bytes());
                self.add(&rename.to, file)?;
            }
            other => panic!("{other:?}"),
        }
        Ok(NameReport::Answer(Done {}.into(), None))
    }

    fn add(&mut self, name: &ExportPath, file: Option<u64>) -> Result<(), Reason> {
        let inode = file.unwrap_or(self.0.len() as u64 + 10_000);
        if self.0.insert(name.as_bytes().to_vec(), inode).is_some() { Err(Reason::Exists) } else { Ok(()) }
    }
}

/// A server's life: its core, its store, and what they have not done yet.
struct Life {
    core: ServerCore<()>,
    store: RedbStore,
    session: SessionId,
    now: Time,
    commits: Vec<(CommitId, TableChanges)>,
    effects: VecDeque<(EffectId, Effect<()>)>,
    answers: BTreeMap<RequestId, ServerControl>,
    random: Seeded,
}

impl Life {
    /// Begins with what the store has; the client, whose session in an earlier life this was, has a session.
    fn begin(
        mut store: RedbStore,
        (epoch, is_same_boot): (u64, bool),
        former: Option<SessionId>,
        folder: &Folder,
    ) -> Result<Self, StoreError> {
        let now = Time(1_000_000);
        let boot_id = BootId([u8::from(is_same_boot); 16]);
        let loaded = Loaded {
            records: store.load()?,
            store_id: STORE,
            boot_id,
            is_same_boot,
            epoch,
            takeovers: 0,
            hash_key: HashKey::known(),
            set_aside: None,
        };
        let mut stored = persistence::stored_table(loaded, now).unwrap();
        persistence::decide(&mut stored, &mut store, is_same_boot, |change| folder.evidence(change))?;
        assert!(stored.intents.iter().all(|(_, intent)| intent.outcome.is_some()));
        let access = Access {
            name: "client".to_owned(),
            exports: [export()].into(),
            rights: Rights::ALL,
            protection_min: Protection::Sealed,
            expires_s: None,
        };
        let setup = ServerSetup {
            limits: Limits::default(),
            server_keys: ServerKeys { current: PublicKey([9; 32]), previous: None },
            policy: Policy { clients: [(CLIENT, access)].into_iter().collect() },
            minima: ProtectionMinima::default(),
            suites: SuiteSet::ALWAYS,
            entropy: Box::new(Seeded(epoch)),
            wall_start_us: 1_700_000_000_000_000,
            epoch: Epoch(epoch),
            verifier: Verifier { store: STORE, boot: boot_id, takeovers: 0 },
            stored: Some(stored),
        };
        let mut core = ServerCore::new(setup).unwrap();
        let offer = SessionOffer::OURS;
        let choice = core.session_choice(now, &CLIENT, &offer).unwrap().unwrap();
        let facts = SessionFacts { server: PublicKey([9; 32]), client: CLIENT, offer, choice };
        let purpose = Purpose::New { former };
        let begin = Begin { offer, choice, instance: InstanceId([1; 16]), process_id: 7, purpose };
        core.handle_begin(now, CONTROL, &facts, RequestId::NONE, &begin).unwrap();
        Ok(Self {
            core,
            store,
            session: choice.session,
            now,
            commits: Vec::new(),
            effects: VecDeque::new(),
            answers: BTreeMap::new(),
            random: Seeded(epoch),
        })
    }

    fn ask(&mut self, (request, settled): (u64, u64), message: ClientControl) {
        let message = Ok(ClientMessage::Control(message));
        let (request, settled) = (RequestId(request), RequestId(settled));
        let input = Input { request, settled, message, payload_len: 0, payload: None };
        self.core.handle_input(self.now, CONTROL, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                ServerOutput::Send { request, message: ServerMessage::Control(message), .. } => {
                    self.answers.insert(request, message);
                }
                ServerOutput::Effect { id, effect } => self.effects.push_back((id, effect)),
                ServerOutput::Commit { commit, changes } => self.commits.push((commit, changes)),
                ServerOutput::Note(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Does all that there is to do: commits, all that wait in one transaction, and work, in any order.
    fn work(&mut self, folder: &mut Folder) -> Result<(), StoreError> {
        while !self.commits.is_empty() || !self.effects.is_empty() {
            if self.effects.is_empty() || (!self.commits.is_empty() && self.random.below(4) == 0) {
                let commits = std::mem::take(&mut self.commits);
                let last = commits.last().map(|(commit, _)| *commit);
                let batch: Vec<_> =
                    commits.into_iter().flat_map(|(_, changes)| persistence::batch(changes)).collect();
                self.store.commit(&batch)?;
                self.core.handle_committed(self.now, last.unwrap());
            } else if let Some((id, effect)) = self.effects.pop_front() {
                let completion = folder.execute(effect);
                self.core.handle_completion(self.now, id, completion);
            }
            self.drain();
        }
        Ok(())
    }

    /// Time passes, so that outcomes are stored which nothing else has taken along.
    fn pass(&mut self, folder: &mut Folder) -> Result<(), StoreError> {
        self.now = self.now.after(std::time::Duration::from_millis(self.random.below(30) as u64));
        if self.core.poll_timeout(self.now).is_some_and(|at| at <= self.now) {
            self.core.handle_timeout(self.now);
            self.drain();
        }
        self.work(folder)
    }
}

/// A run of the script until its store fails, and what is known of it then.
struct Run {
    session: Option<SessionId>,
    /// How many operations were asked for, and from which on the client has no answers.
    asked: u64,
    settled: u64,
    told: Vec<u64>,
    folder: Folder,
    /// The folder as it was a while before.
    earlier: Folder,
    error: Option<StoreError>,
}

fn run(disk: &Disk) -> Run {
    let folder = Folder::new();
    let earlier = folder.clone();
    let mut run = Run { session: None, asked: 0, settled: 0, told: Vec::new(), folder, earlier, error: None };
    let begun = create(disk.medium()).and_then(|store| Life::begin(store, (1, true), None, &run.folder));
    match begun {
        Ok(mut life) => {
            run.session = Some(life.session);
            run.error = script_of(&mut life, &mut run).and_then(|()| life.store.close()).err();
            // Requests are numbered from 1 on, and operations from 0.
            let done = |(request, answer): (&RequestId, &ServerControl)| {
                matches!(answer, ServerControl::Done(_)).then(|| request.0 - 1)
            };
            run.told = life.answers.iter().filter_map(done).collect();
        }
        Err(error) => run.error = Some(error),
    }
    run
}

fn script_of(life: &mut Life, run: &mut Run) -> Result<(), StoreError> {
    life.work(&mut run.folder)?;
    for first in (0..OPERATIONS).step_by(TOGETHER as usize) {
        run.earlier = run.folder.clone();
        for at in first..first + TOGETHER {
            run.asked = at + 1;
            run.settled = first;
            life.ask((at + 1, first + 1), operation(at));
        }
        life.work(&mut run.folder)?;
        life.pass(&mut run.folder)?;
    }
    Ok(())
}

/// What the next life tells of everything of which the client has no answer.
fn outcomes(life: &mut Life, run: &Run, folder: &mut Folder) -> Vec<(u64, Became)> {
    let Some(session) = run.session else { return Vec::new() };
    let open = run.settled..run.asked;
    for (at, question) in open.clone().zip(1..) {
        let asked = Inquire { session, request: RequestId(at + 1), epoch: Epoch(1) };
        life.ask((question, 1), asked.into());
    }
    life.work(folder).unwrap();
    let told = open.zip(1..).map(|(at, question)| match &life.answers[&RequestId(question)] {
        ServerControl::Outcome(outcome) => (at, outcome.became),
        other => panic!("{other:?}"),
    });
    told.collect()
}

/// How many starts were looked at, and how many changes were executed, not executed, and unknown.
type Counts = [u64; 4];

fn fail_at(call: u64) -> Counts {
    let disk = Disk::default();
    disk.fail_at(call, ErrorKind::Other, call);
    let run = run(&disk);
    assert!(matches!(run.error, Some(StoreError::Io { .. })), "call {call}: {:?}", run.error);
    let mut counts = [0; 4];
    for (crash, seed, is_folder_kept) in
        [(Crash::Kill, 0, true), (Crash::Power, call, true), (Crash::Power, !call, false)]
    {
        let context = format!("call {call}, {crash:?}, {is_folder_kept}");
        // What the machine has lost of the folder was done since the client had its last answers.
        let mut folder = if is_folder_kept { run.folder.clone() } else { run.earlier.clone() };
        let mut disk = disk.after(crash, seed);
        let is_same_boot = crash == Crash::Kill;
        // The first recovery may be cut off as well.
        if let Ok(store) = reopen(disk.medium(), 0) {
            disk.fail_at(disk.calls() + 1 + call % 4, ErrorKind::Other, call);
            drop(Life::begin(store, (2, is_same_boot), run.session, &folder));
            disk = disk.after(crash, seed);
        }
        let store = match reopen(disk.medium(), 0) {
            Ok(store) => store,
            // It was not made, and nothing was asked for.
            Err(StoreError::Damaged { .. }) if run.asked == 0 => continue,
            Err(error) => panic!("{context}: {error}"),
        };
        let mut life = Life::begin(store, (3, is_same_boot), run.session, &folder).unwrap();
        counts[0] += 1;
        for (at, became) in outcomes(&mut life, &run, &mut folder) {
            let (is_done, was_told) = (folder.shows(at), run.told.contains(&at));
            let context =
                format!("{context}: operation {at} is {became:?}, there {is_done}, told {was_told}");
            match became {
                Became::Executed => assert!(is_done, "{context}"),
                Became::NotExecuted => assert!(!is_done && (!was_told || !is_folder_kept), "{context}"),
                // A directory is known by its record alone, and what a machine has lost was recorded as done.
                _ => assert!(at % 5 == 0 && is_done || !is_folder_kept && !is_done, "{context}"),
            }
            counts[match became {
                Became::Executed => 1,
                Became::NotExecuted => 2,
                _ => 3,
            }] += 1;
        }
    }
    counts
}

#[test]
fn f49_t32_a_store_that_fails_at_any_call_leaves_it_known_what_became_of_each_change() {
    let whole = Disk::default();
    let run = run(&whole);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!((0..OPERATIONS).all(|at| run.folder.shows(at) && run.told.contains(&at)));
    let calls = whole.calls();
    assert!(calls > 800, "{calls} calls are too few to say much");
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let counts = std::thread::scope(|scope| {
        let share = |first| (first..=calls).step_by(threads as usize);
        let started: Vec<_> = (1..=threads)
            .map(|first| scope.spawn(move || share(first).map(fail_at).fold([0; 4], add)))
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).fold([0; 4], add)
    });
    let [starts, executed, not_executed, unknown] = counts;
    println!("{calls} calls, {starts} starts: {executed} executed, {not_executed} not, {unknown} unknown");
    assert!(starts > 2 * calls && executed > calls && not_executed > calls, "{counts:?}");
    assert!(unknown * 4 < executed + not_executed, "{counts:?}");
}

fn add(one: Counts, other: Counts) -> Counts {
    std::array::from_fn(|at| one[at] + other[at])
}
