//! The open table and its store: what the core wants stored becomes records, and records become the table of the next
//! server. The store knows nothing of opens, and the core nothing of disks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;
use tokio::runtime::Handle;

use super::evidence;
use super::exports::Exports;
use super::shared::Shared;
use super::store::{Committer, Loaded, StateDir, StateFile, StateSetup, StoreError, TableStore};
use crate::model::{
    Durability, Epoch, Evidence, IntendedChange, Limits, OpenId, PublicKey, Record, RecordChange, RecordKind,
    StoredIntent, StoredOpen, StoredTombstone, Time, Verifier,
};
use crate::opens::{Restart, TableChanges};
use crate::session::recovery::recover;
use crate::session::server::{CommitId, StoredTable};
use crate::wire::{DecodeError, stored};

/// Where a server keeps its table.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// The state directory; it is made if it is missing. Only one server can use it at a time.
    pub folder: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
}

/// A record is not what this program writes, though it is what was written.
#[derive(Debug, Error)]
#[error("the record of {kind} {key:x} is of no use: {source}")]
pub struct RecordError {
    kind: RecordKind,
    key: u64,
    source: DecodeError,
}

/// What a server begins with.
pub(super) struct Beginning {
    pub(super) epoch: Epoch,
    pub(super) verifier: Verifier,
    pub(super) table: StoredTable,
    pub(super) store: StateDir,
}

/// The committer of a running server, until it is closed.
#[derive(Default)]
pub(super) struct Persistence {
    committer: Mutex<Option<Committer>>,
    /// As long as records are of an earlier boot. The first commit of a server's life stores all of those anew.
    owed: Arc<Mutex<Option<StateFile>>>,
}

impl Beginning {
    /// Opens the state directory for a server of these keys.
    ///
    /// # Errors
    /// [`StoreError`], [`RecordError`].
    pub(super) fn load(
        config: &StateConfig,
        servers: Vec<PublicKey>,
        now: Time,
        exports: &Exports,
    ) -> Result<Self, super::StartError> {
        let setup = StateSetup::new(config.durability, servers)?;
        let (mut store, loaded) = StateDir::open(&config.folder, &setup)?;
        if let Some(aside) = &loaded.set_aside {
            tracing::warn!(
                now_at = %aside.path.display(),
                why = %crate::net::with_sources(&aside.because),
                "the table of opens cannot be believed: nobody can come back to what was in it"
            );
        }
        let verifier = Verifier { store: loaded.store_id, boot: loaded.boot_id, takeovers: loaded.takeovers };
        let (epoch, is_same_boot) = (Epoch(loaded.epoch), loaded.is_same_boot);
        let mut table = stored_table(loaded, now)?;
        decide(&mut table, &mut store, is_same_boot, |change| evidence::collect(exports, change))?;
        Ok(Self { epoch, verifier, table, store })
    }
}

impl Persistence {
    /// Has a store committed to from now on.
    ///
    /// # Errors
    /// What the system says when there is no thread to be had.
    pub(super) fn start(store: StateDir) -> std::io::Result<Self> {
        let owed = Arc::new(Mutex::new(store.owes_records()));
        Committer::start(Box::new(store))
            .map(|committer| Self { committer: Mutex::new(Some(committer)), owed })
    }

    /// Has changes stored; `shared` hears when they are.
    pub(super) fn submit(&self, shared: &Arc<Shared>, commit: CommitId, changes: TableChanges) {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(committer) = &*committer else {
            tracing::error!("a change of the table came after its store was closed");
            return;
        };
        let (shared, runtime) = (Arc::clone(shared), Handle::current());
        let since = shared.clock().now();
        let owed = Arc::clone(&self.owed);
        committer.submit(batch(changes), move |outcome| {
            // File work that waited for this begins on the runtime's blocking pool.
            let _runtime = runtime.enter();
            if outcome.is_ok() {
                shared.counters.committed(shared.clock().now().since(since));
                note_stored_anew(&owed);
            }
            on_committed(&shared, commit, outcome);
        });
    }

    /// Why the store has failed, once it has; it never does without a store.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) fn failed(&self) -> impl Future<Output = Arc<StoreError>> + Send + use<> {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = committer.as_ref().map(Committer::failed);
        async move {
            match failed {
                Some(failed) => failed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Commits what is under way and closes the store; waits for the disk.
    pub(super) fn close(&self) {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = committer.map(Committer::close) {
            tracing::error!(why = %crate::net::with_sources(&*error), "the table of opens was not closed");
        }
    }
}

fn note_stored_anew(owed: &Mutex<Option<StateFile>>) {
    let mut owed = owed.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(noted) = owed.as_ref().map(StateFile::note_stored_anew) else { return };
    match noted {
        Ok(()) => *owed = None,
        // With the next commit once more.
        Err(error) => tracing::warn!(
            why = %crate::net::with_sources(&error),
            "it could not be noted that the open table is of this boot: a start before that grants orphans more time than they have"
        ),
    }
}

fn on_committed(shared: &Arc<Shared>, commit: CommitId, outcome: Result<(), Arc<StoreError>>) {
    match outcome {
        Ok(()) => shared.drive(|core, now| core.handle_committed(now, commit)),
        Err(error) if matches!(*error, StoreError::NoSpace { .. } | StoreError::TooLong { .. }) => {
            tracing::warn!(why = %crate::net::with_sources(&*error), "an open was refused: it cannot be stored");
            shared.drive(|core, now| core.handle_commit_refused(now, commit));
        }
        // Nothing that waits for it is ever told: the server stops.
        Err(_) => {}
    }
}

/// Decides what became of the changes that were under way when the last server ended, and has it stored: whoever is
/// served from now on may change what it was decided by.
pub(super) fn decide(
    table: &mut StoredTable,
    store: &mut dyn TableStore,
    is_same_boot: bool,
    evidence: impl FnMut(&IntendedChange) -> Evidence,
) -> Result<(), StoreError> {
    let decided = recover(&table.intents, is_same_boot, evidence);
    if decided.is_empty() {
        return Ok(());
    }
    let changes: Vec<RecordChange> =
        decided.iter().map(|(key, decided)| intent(*key, Some(decided))).collect();
    store.commit(&changes)?;
    tracing::info!(changes = decided.len(), "what became of changes that were under way was decided");
    let mut decided: BTreeMap<u64, StoredIntent> = decided.into_iter().collect();
    for (key, intent) in &mut table.intents {
        if let Some(decided) = decided.remove(key) {
            *intent = decided;
        }
    }
    Ok(())
}

fn intent(key: u64, intent: Option<&StoredIntent>) -> RecordChange {
    RecordChange { kind: RecordKind::Intent, key, value: intent.map(stored::encode_intent) }
}

/// The records that say what has changed.
pub(super) fn batch(changes: TableChanges) -> Vec<RecordChange> {
    let open = |(id, open): (OpenId, Option<StoredOpen>)| RecordChange {
        kind: RecordKind::Open,
        key: id.0,
        value: open.as_ref().map(stored::encode_open),
    };
    let tombstone = |(id, tombstone): (OpenId, Option<StoredTombstone>)| RecordChange {
        kind: RecordKind::Tombstone,
        key: id.0,
        value: tombstone.as_ref().map(stored::encode_tombstone),
    };
    let horizon = changes.horizon.as_ref().map(stored::encode_horizon);
    let horizon = horizon.map(|value| RecordChange::put(RecordKind::Intent, RecordKind::HORIZON_KEY, value));
    let opens = changes.opens.into_iter().map(open);
    let tombstones = changes.tombstones.into_iter().map(tombstone);
    let intents = changes.intents.iter().map(|(key, change)| intent(*key, change.as_ref()));
    opens.chain(tombstones).chain(intents).chain(horizon).collect()
}

/// What a store holds, as the table of the server that begins.
///
/// # Errors
/// [`RecordError`].
pub(super) fn stored_table(loaded: Loaded, now: Time) -> Result<StoredTable, RecordError> {
    let (mut opens, mut tombstones) = (Vec::new(), Vec::new());
    let (mut intents, mut horizon) = (Vec::new(), None);
    for Record { kind, key, value } in loaded.records {
        let error = |source| RecordError { kind, key, source };
        match kind {
            RecordKind::Open => opens.push((OpenId(key), stored::decode_open(&value).map_err(error)?)),
            RecordKind::Tombstone => {
                tombstones.push((OpenId(key), stored::decode_tombstone(&value).map_err(error)?));
            }
            RecordKind::Intent if key == RecordKind::HORIZON_KEY => {
                horizon = Some(stored::decode_horizon(&value).map_err(error)?);
            }
            RecordKind::Intent => intents.push((key, stored::decode_intent(&value).map_err(error)?)),
            // Of a later version, which has a format of its own; none is written by this one.
            RecordKind::Grant => {}
        }
    }
    let restart = Restart {
        now,
        is_same_boot: loaded.is_same_boot,
        grace_min: Limits::RESTART_GRACE_MIN,
        renewals_max: Limits::GRACE_RENEWALS_MAX,
    };
    let hash_key = (*loaded.hash_key.bytes()).into();
    Ok(StoredTable { hash_key, restart, opens, tombstones, intents, horizon })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        CreateId, ExportPath, FileIdentity, FileMark, GrantId, HandleId, LockMode, OpenMode, RawRange,
        Rights, SessionId, StoredEndedGrant, StoredGrant, StoredHolder, StoredKey,
    };
    use crate::opens::OpenTable;

    /// An open with everything that it may have at once.
    fn largest(limits: &Limits) -> StoredOpen {
        let someone = PublicKey([1; 32]);
        let name = |len: usize| "x".repeat(len);
        let holder = |n: usize| StoredHolder {
            handle: HandleId(u64::try_from(n).unwrap()),
            session: SessionId([0xff; 16]),
            identity: someone,
            rights: Rights::ALL,
            is_opened: true,
            deadline: Some(Time(u64::MAX)),
            grant: Some(GrantId(u64::MAX)),
        };
        let key = StoredKey {
            generation: u32::MAX,
            hash: [0xff; 32],
            home: HandleId(u64::MAX),
            rights: Rights::ALL,
            is_own: true,
            grant: Some(GrantId(u64::MAX)),
        };
        let grant = StoredGrant {
            grant: GrantId(u64::MAX),
            giver: Some(HandleId(u64::MAX)),
            from: someone,
            to: someone,
            rights: Rights::ALL,
            ends: Some(Time(u64::MAX)),
            renewed_us: u64::MAX,
            is_delivered: true,
            gives_up: true,
            is_taken: true,
            parent: Some(GrantId(u64::MAX)),
            key: Some((u32::MAX, [0xff; 32])),
        };
        // Each with its own key and those of its handles.
        let ended = StoredEndedGrant {
            grant: GrantId(u64::MAX),
            to: someone,
            keys: vec![(u32::MAX, [0xff; 32]); Limits::KEYS_PER_GRANT + 1],
        };
        let keys = limits.keys_per_open + limits.grants_per_open * Limits::KEYS_PER_GRANT;
        StoredOpen {
            owner: someone,
            export: name(crate::model::ExportName::LEN_MAX).parse().unwrap(),
            path: ExportPath::new(format!("{}{}", "x/".repeat(ExportPath::LEN_MAX / 2), "x")).unwrap(),
            file: FileIdentity { device: u64::MAX, inode: u64::MAX, born_ns: i64::MAX },
            mode: OpenMode::READ_WRITE,
            create_id: CreateId([0xff; 16]),
            grace_us: u64::MAX,
            guard: true,
            wrote: true,
            others_wrote: true,
            unsynced: true,
            has_kept: true,
            lost: false,
            expected: Some(FileMark { len: u64::MAX, changed_ns: i64::MAX }),
            holders: (0..OpenTable::HOLDERS_PER_OPEN_MAX).map(holder).collect(),
            keys: vec![key; keys],
            issued: u32::MAX,
            locks: vec![
                (RawRange { start: u64::MAX, len: u64::MAX }, LockMode::Exclusive);
                limits.locks_per_open
            ],
            renewals: u8::MAX,
            grants: vec![grant; limits.grants_per_open],
            ended_grants: vec![ended; limits.grants_per_open],
        }
    }

    #[test]
    fn an_open_with_everything_that_it_may_have_can_be_stored_and_comes_back() {
        let open = largest(&Limits::default());
        assert_eq!(open.path.as_bytes().len(), ExportPath::LEN_MAX);
        let changes =
            TableChanges { opens: vec![(OpenId(1), Some(open.clone()))], ..TableChanges::default() };
        let batch = batch(changes);
        let [change] = &batch[..] else { panic!("one record") };
        assert!(change.is_within_limit(), "{} bytes", change.value_len());
        // And not by far too much: what it is made of is what the bound is for.
        assert!(change.value_len() * 4 > Limits::RECORD_LEN_MAX * 3, "{} bytes", change.value_len());
        assert_eq!(stored::decode_open(change.value.as_ref().unwrap()), Ok(open));
    }

    #[test]
    fn a_tombstone_with_everything_that_it_may_have_can_be_stored() {
        let limits = Limits::default();
        let keys = vec![(u32::MAX, [0xff; 32], Some(PublicKey([1; 32]))); limits.keys_per_open];
        let tombstone = StoredTombstone {
            order: u64::MAX,
            owner: PublicKey([1; 32]),
            keys,
            ending: crate::model::Ending::Expired,
            ended: Time(u64::MAX),
        };
        let tombstones = vec![(OpenId(1), Some(tombstone))];
        assert!(batch(TableChanges { tombstones, ..TableChanges::default() })[0].is_within_limit());
    }
}
