//! Values that every other tier shares: ids, keys, modes, names, attributes, limits. No behaviour beyond
//! parsing and comparing, no I/O, no clock, no randomness.

mod access;
mod attr;
mod entropy;
mod id;
mod key;
mod limits;
mod mode;
mod name;
mod protection;
mod range;
mod refusal;
mod resume_key;
mod time;

pub use access::{Access, EffectiveProtection, Policy, ProtectionMinima};
pub use attr::{
    Allocation, AttributeChange, Attributes, Create, FileIdentity, FileKind, FileState, Removal, RenameHow,
    Seekable, SetTime, Space, Stability, SyncScope, XattrHow,
};
pub use entropy::{Entropy, EntropyError};
pub use id::{
    AttemptNonce, ChannelNumber, CreateId, HandleId, InstanceId, LineId, LineSet, Locator, OpenId, RequestId,
    SessionId,
};
pub(crate) use key::base32;
pub use key::{KeyTextError, PublicKey};
pub use limits::{Limits, LimitsError, len_u64};
pub use mode::{OpenMode, Rights, ShareMode};
pub use name::{ExportName, ExportPath, FileName, LinkTarget, NameError, XattrName};
pub use protection::{ChannelKind, LineRole, Protection, Suite, SuiteSet};
pub use range::{ByteRange, LockMode, RawRange};
pub use refusal::{Reason, Refusal};
pub use resume_key::{ResumeKey, ResumeKeyTextError, SECRET_LEN};
pub use time::Time;
