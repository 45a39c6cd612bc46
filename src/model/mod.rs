//! Values that every other tier shares: ids, keys, modes, names, attributes, limits. No behaviour beyond
//! parsing and comparing, no I/O, no clock, no randomness.

mod access;
mod attr;
mod entropy;
mod id;
mod intent;
mod key;
mod limits;
mod meanwhile;
mod mode;
mod name;
#[doc(hidden)]
pub mod planted;
mod protection;
mod range;
mod record;
mod refusal;
mod resume_key;
mod stored;
mod time;
mod verifier;

pub use access::{Access, EffectiveProtection, Policy, ProtectionMinima};
pub use attr::{
    Allocation, AttributeChange, Attributes, Create, FileIdentity, FileKind, FileState, Removal, RenameHow,
    Seekable, SetTime, Space, Stability, SyncScope, XattrHow,
};
pub use entropy::{Entropy, EntropyError};
pub use id::{
    AttemptNonce, BootId, ChannelNumber, CreateId, Epoch, GrantId, HandleId, InstanceId, LineId, LineSet,
    Locator, OpenId, RequestId, SessionId, StoreId,
};
pub use intent::{Evidence, IntendedChange, IntendedName, IntentOutcome, NameState, StoredIntent};
pub(crate) use key::base32;
pub use key::{KeyTextError, PublicKey};
pub use limits::{Limits, LimitsError, len_u64};
pub use meanwhile::Meanwhile;
pub use mode::{OpenMode, Rights, ShareMode};
pub use name::{ExportName, ExportPath, FileName, LinkTarget, NameError, XattrName};
pub use protection::{ChannelKind, LineRole, Protection, Suite, SuiteSet};
pub use range::{ByteRange, LockMode, RawRange};
pub use record::{Durability, Record, RecordChange, RecordKind};
pub use refusal::{Reason, Refusal};
pub use resume_key::{ResumeKey, ResumeKeyTextError, SECRET_LEN};
pub use stored::{
    Ending, FileMark, StoredEndedGrant, StoredGrant, StoredHolder, StoredKey, StoredOpen, StoredTombstone,
};
pub use time::Time;
pub use verifier::Verifier;
