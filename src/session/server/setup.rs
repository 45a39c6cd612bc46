//! What a server's core is made of, and how it takes up what an earlier one has stored.

use thiserror::Error;
use zeroize::Zeroizing;

use super::output::{ServerKeys, ServerOutput};
use crate::model::{
    Entropy, EntropyError, Epoch, Limits, OpenId, Policy, ProtectionMinima, StoredIntent, StoredOpen,
    StoredTombstone, SuiteSet, Verifier,
};
use crate::opens::{OpenTable, Restart, RestoreError};

/// What a server's core is made of.
pub struct ServerSetup {
    /// Bounds.
    pub limits: Limits,
    /// The server's own keys.
    pub server_keys: ServerKeys,
    /// Who may connect.
    pub policy: Policy,
    /// The weakest protection of data channels, of all and by exports.
    pub minima: ProtectionMinima,
    /// The suites for data channels.
    pub suites: SuiteSet,
    /// Where random bytes come from.
    pub entropy: Box<dyn Entropy>,
    /// The wall clock at [`Time`](crate::model::Time) 0, in microseconds since 1970.
    pub wall_start_us: u64,
    /// The server's life on its data store.
    pub epoch: Epoch,
    /// The page cache that has what is acknowledged as received.
    pub verifier: Verifier,
    /// What an earlier life of the server has stored; `None`: the table lives and ends with this one.
    pub stored: Option<StoredTable>,
}

/// A table that outlives its server.
pub struct StoredTable {
    /// Under which resume keys are hashed: random, made with the store, and kept apart from it.
    pub hash_key: Zeroizing<[u8; 32]>,
    /// When and where it comes back.
    pub restart: Restart,
    /// Its opens.
    pub opens: Vec<(OpenId, StoredOpen)>,
    /// What is left of those that ended.
    pub tombstones: Vec<(OpenId, StoredTombstone)>,
    /// Its records of changes of the file system, all with an outcome: [`recover`](crate::session::recovery::recover)
    /// has decided them, and what it decided is stored.
    pub intents: Vec<(u64, StoredIntent)>,
    /// Up to which life of the server such records were given up.
    pub horizon: Option<Epoch>,
}

/// Why there is no core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Without random bytes there is no safe table.
    #[error("there are no random bytes")]
    Entropy(#[from] EntropyError),
    /// The stored records are not of one table.
    #[error("the stored table of opens is damaged")]
    Restore(#[from] RestoreError),
}

impl core::fmt::Debug for StoredTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StoredTable")
            .field("opens", &self.opens.len())
            .field("tombstones", &self.tombstones.len())
            .field("intents", &self.intents.len())
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for ServerSetup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ServerSetup").field("limits", &self.limits).finish_non_exhaustive()
    }
}

pub(super) fn stored_table(stored: &StoredTable, limits: &Limits) -> Result<OpenTable, RestoreError> {
    let mut table = OpenTable::new(*stored.hash_key, limits);
    table.restore_tombstones(&stored.restart, stored.tombstones.iter().cloned());
    for (id, open) in &stored.opens {
        table.restore(&stored.restart, *id, open)?;
    }
    Ok(table)
}

pub(super) fn adopted<P>((id, open): &(OpenId, StoredOpen)) -> ServerOutput<P> {
    ServerOutput::AdoptFile {
        open: *id,
        export: open.export.clone(),
        path: open.path.clone(),
        file: open.file,
        rights: open.mode.rights,
    }
}
