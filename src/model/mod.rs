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
mod refusal;
mod resume_key;
mod time;

pub use access::{Access, Policy};
pub use attr::{Attributes, FileIdentity, FileState, Stability, SyncScope};
pub use entropy::{Entropy, EntropyError};
pub use id::{
    AttemptNonce, ChannelNumber, CreateId, HandleId, InstanceId, LineId, LineSet, Locator, OpenId, RequestId,
    SessionId,
};
pub(crate) use key::base32;
pub use key::{KeyTextError, PublicKey};
pub use limits::{Limits, len_u64};
pub use mode::{OpenMode, Rights, ShareMode};
pub use name::{ExportName, ExportPath, NameError};
pub use protection::{ChannelKind, LineRole, Protection, Suite};
pub use refusal::{Reason, Refusal};
pub use resume_key::{ResumeKey, ResumeKeyTextError, SECRET_LEN};
pub use time::Time;
