//! Messages of control channels: everything that bears secrets or names. protocol.md: Control messages.

use serde::{Deserialize, Serialize};

use super::data::{Farewell, Ping, Pong, Rekey};
use super::grants::{Grant, Revoke, TakeGrant};
use super::hello::{BindChoice, BindOffer, SessionChoice, SessionOffer};
use super::message::stream;
use super::names::{
    Found, HardLink, Link, List, Listed, Lookup, MakeDirectory, Place, ReadLink, Remove, Rename, SpaceStated,
    StatSpace, Symlink, XattrGet, XattrList, XattrNames, XattrRemove, XattrSet, XattrValue,
};
use super::notices::{GrantOffered, HandleEnded, Heard, LockEnded};
use super::outcomes::{Inquire, Outcome};
use crate::model::{
    Allocation, AttributeChange, Attributes, Create, CreateId, Epoch, ExportName, ExportPath, FileState,
    GrantId, HandleId, InstanceId, Locator, LockMode, Meanwhile, OpenMode, RawRange, Refusal, RequestId,
    ResumeKey, Seekable, SessionId, SuiteSet, SyncScope, Verifier,
};
pub use secret::BindSecret;

stream! {
    /// What a client sends on a control channel.
    ClientControl on Control {
        /// First record after a session handshake.
        Begin = 0x01,
        /// First record after a bind handshake.
        Attach = 0x02,
        /// A sign of life is wanted.
        Ping = 0x30,
        /// A sign of life.
        Pong = 0x31,
        /// The sender closes the channel; nothing follows.
        Farewell = 0x32,
        /// The sender's next record is under new keys.
        Rekey = 0x34,
        /// Open a file.
        Open = 0x10,
        /// Get a duplicate handle.
        Resume = 0x11,
        /// Issue a resume key.
        IssueKey = 0x12,
        /// Give up a handle.
        Close = 0x13,
        /// Tell a file's state.
        Stat = 0x14,
        /// Make a file durable.
        Sync = 0x15,
        /// Change a file's attributes.
        Change = 0x16,
        /// Reserve storage or give it back.
        Allocate = 0x17,
        /// Look for data or a hole.
        Seek = 0x18,
        /// Lock a range of bytes.
        Lock = 0x19,
        /// Unlock a range of bytes.
        Unlock = 0x1a,
        /// Wait for a lock no longer.
        CancelLock = 0x1b,
        /// Let somebody else have a part in an open.
        Grant = 0x1c,
        /// Take a grant back.
        Revoke = 0x1d,
        /// Get the key of a grant that was offered.
        TakeGrant = 0x1e,
        /// Tell what became of a request of a former session.
        Inquire = 0x1f,
        /// Up to here notices have arrived.
        Heard = 0x33,
        /// Tell what a name stands for.
        Lookup = 0x40,
        /// List a part of a directory.
        List = 0x41,
        /// Tell where a symbolic link leads.
        ReadLink = 0x42,
        /// Tell how full a file system is.
        StatSpace = 0x43,
        /// Make a directory.
        MakeDirectory = 0x44,
        /// Remove a name.
        Remove = 0x45,
        /// Rename.
        Rename = 0x46,
        /// Make a symbolic link.
        Symlink = 0x47,
        /// Give a file a further name.
        HardLink = 0x48,
        /// Tell an extended attribute.
        XattrGet = 0x49,
        /// Set an extended attribute to the payload.
        XattrSet = 0x4a,
        /// List the names of extended attributes.
        XattrList = 0x4b,
        /// Remove an extended attribute.
        XattrRemove = 0x4c,
    }
}

stream! {
    /// What a server sends on a control channel.
    ServerControl on Control {
        /// Answer to [`Begin`].
        Welcome = 0x81,
        /// Answer to [`Attach`].
        Attached = 0x82,
        /// A sign of life is wanted.
        Ping = 0x30,
        /// A sign of life.
        Pong = 0x31,
        /// The sender closes the channel; nothing follows.
        Farewell = 0x32,
        /// The sender's next record is under new keys.
        Rekey = 0x34,
        /// Answer to [`Open`] and [`Resume`].
        Opened = 0x90,
        /// Answer to [`IssueKey`] and [`TakeGrant`].
        KeyIssued = 0x92,
        /// Answer to [`Close`].
        Closed = 0x93,
        /// Answer to [`Stat`].
        Stated = 0x94,
        /// Answer to [`Sync`].
        Synced = 0x95,
        /// Answer to [`Change`].
        Changed = 0x96,
        /// Answer to requests that have nothing to tell.
        Done = 0x97,
        /// Answer to [`Seek`].
        Sought = 0x98,
        /// Answer to [`Lock`].
        Locked = 0x99,
        /// Answer to [`Lock`]: it waits, and ends with [`LockEnded`].
        LockQueued = 0x9a,
        /// Answer to [`Grant`].
        Granted = 0x9c,
        /// Answer to [`Inquire`].
        Outcome = 0x9d,
        /// Answer to any request.
        Refused = 0x9f,
        /// The session is over.
        Ended = 0xb0,
        /// A lock that waited waits no longer.
        LockEnded = 0xb1,
        /// Another client lets this one have a part in an open.
        GrantOffered = 0xb2,
        /// The server has ended a handle.
        HandleEnded = 0xb3,
        /// Answer to [`Lookup`].
        Found = 0xc0,
        /// Answer to [`List`]; the payload is the entries.
        Listed = 0xc1,
        /// Answer to [`ReadLink`].
        Link = 0xc2,
        /// Answer to [`StatSpace`].
        SpaceStated = 0xc3,
        /// Answer to [`XattrGet`]; the payload is the value.
        XattrValue = 0xc9,
        /// Answer to [`XattrList`]; the payload is the names.
        XattrNames = 0xcb,
    }
}

/// The client repeats what was negotiated, and says what it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The offer of the hello, again.
    pub offer: SessionOffer,
    /// The choice of the server, again.
    pub choice: SessionChoice,
    /// The running process.
    pub instance: InstanceId,
    /// Its process id, as the client states it: it goes into resume keys.
    pub process_id: u32,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// What a connection after a session handshake is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Start a session; the connection becomes its first control channel, number 0.
    New {
        /// A session of the same instance that the client has given up: its channels are dead by the client's word, and
        /// end before the new session starts. What it holds stays, and may be resumed.
        former: Option<SessionId>,
    },
    /// Ask whether a session still lives; the connection ends with the answer.
    Ask(SessionId),
}

/// The server repeats what was negotiated, and answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The offer as the server saw it.
    pub offer: SessionOffer,
    /// The choice, again.
    pub choice: SessionChoice,
    /// The answer to the client's purpose.
    pub answer: WelcomeAnswer,
}

/// The answer to a client's purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WelcomeAnswer {
    /// A session was started.
    Started(Started),
    /// The session lives: bind again.
    Lives,
    /// There is no such session, or it is not this client's.
    Gone,
}

/// What a client needs to use its new session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Names the session in the clear part of a bind.
    pub locator: Locator,
    /// The secret of which every bind's PSK is derived.
    #[serde(with = "secret")]
    pub secret: BindSecret,
    /// Requests that may be in flight at once.
    pub requests: u32,
    /// Bytes of reads and writes that may be in flight at once.
    pub bytes: u64,
    /// Longest payload of one record, in bytes.
    pub payload_max: u32,
    /// The suites that the server has for data channels.
    pub suites: SuiteSet,
    /// The server's life on its data store.
    pub epoch: Epoch,
    /// Whether what was acknowledged before can still be there.
    pub verifier: Verifier,
}

/// First record of a bound channel: repeats what was negotiated, and uses up the channel number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The offer of the hello, again.
    pub offer: BindOffer,
    /// The choice of the server, again.
    pub choice: BindChoice,
}

/// The channel is part of its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The offer as the server saw it.
    pub offer: BindOffer,
    /// The choice, again.
    pub choice: BindChoice,
}

/// Open a file. Mutating: it runs once for its request id, and once for its create id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The export.
    pub export: ExportName,
    /// The file in it.
    pub path: ExportPath,
    /// What the client wants to do and what others may do meanwhile.
    pub mode: OpenMode,
    /// Whether the file is to be made.
    pub create: Create,
    /// Whether the file is cut to no bytes, once nobody keeps the open out.
    pub truncate: bool,
    /// Permission bits of a file that is made; the server masks them.
    pub permissions: u32,
    /// A range that is locked with the open, or the open is refused.
    pub lock: Option<LockWanted>,
    /// Whether the open can be resumed with a key. One that cannot ends with its session.
    pub resumable: bool,
    /// Made by the client for this open; the same id gets the same open again.
    pub create_id: CreateId,
    /// Whether a resume key is to come with the answer; only with `resumable`.
    pub with_key: bool,
    /// How long the open is to stay when no channel reaches it, in milliseconds; 0: the server's default.
    pub grace_ms: u64,
    /// Whether everybody is kept out of the orphan, compatible or not, until the grace is over; only with `resumable`.
    pub guard: bool,
}

/// Get a duplicate handle with a resume key. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Names the open and authorises.
    #[serde(with = "resume_key")]
    pub key: ResumeKey,
    /// A holder of the same identity that this one replaces: it is drained and dropped.
    pub predecessor: Option<HandleId>,
    /// Whether a key for the new handle is to come with the answer.
    pub with_key: bool,
}

/// Issue a resume key for a handle; it replaces the handle's former one. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueKey {
    /// The handle.
    pub handle: HandleId,
}

/// Give up a handle. Mutating; it is answered when nothing that the handle began is executing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The handle.
    pub handle: HandleId,
}

/// Tell a file's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The handle.
    pub handle: HandleId,
}

/// Make everything that was acknowledged for a file durable. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// The handle.
    pub handle: HandleId,
    /// What is to be durable.
    pub scope: SyncScope,
}

/// A range and how it is to be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockWanted {
    /// How.
    pub mode: LockMode,
    /// Which bytes.
    pub range: RawRange,
}

/// What a request is about: an open file, or whatever has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The file of a handle.
    Handle(HandleId),
    /// What the name stands for, a symbolic link followed beneath the export.
    Name(Place),
}

/// Change attributes. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of what.
    pub target: Target,
    /// What to change; the length only through a handle.
    pub change: AttributeChange,
}

/// Reserve storage or give it back. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocate {
    /// The handle.
    pub handle: HandleId,
    /// Which bytes; a length of 0 is refused.
    pub range: RawRange,
    /// What is to become of their storage.
    pub how: Allocation,
}

/// Look for data or a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// The handle.
    pub handle: HandleId,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// What to look for.
    pub what: Seekable,
}

/// Lock a range for the open that the handle is a part of. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The handle.
    pub handle: HandleId,
    /// Which bytes and how.
    pub wanted: LockWanted,
    /// How long to wait for it, in milliseconds; 0: not at all.
    pub wait_ms: u64,
}

/// Unlock a range, whatever locks of the open lie in it. Mutating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlock {
    /// The handle.
    pub handle: HandleId,
    /// Which bytes.
    pub range: RawRange,
}

/// Wait for a lock no longer; its end is told as always. Changes nothing if it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelLock {
    /// The request that asked for it.
    pub lock: RequestId,
}

/// The attributes as they are after the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The attributes.
    pub attributes: Attributes,
}

/// It was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// What was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// Where it is, in bytes; none: there is no more of it before the end of the file.
    pub offset: Option<u64>,
}

/// The range is locked, and nothing that the lock excludes is executing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// The handle through which it was locked.
    pub handle: HandleId,
    /// Which bytes.
    pub range: RawRange,
}

/// The range is locked by others: the request waits in the order of arrival, and holds no credit meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockQueued {}

/// A handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Names the handle in this session.
    pub handle: HandleId,
    /// The file's state, with the mode in which it is open.
    pub state: FileState,
    /// The resume key, where one was wanted. A repeated answer has none: kept answers hold no secrets.
    #[serde(with = "resume_key::option")]
    pub key: Option<ResumeKey>,
    /// What became of the file while no channel reached the holder; none for a first handle.
    pub meanwhile: Option<Meanwhile>,
}

/// A resume key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyIssued {
    /// The key; none in a repeated answer: ask again under a new request id.
    #[serde(with = "resume_key::option")]
    pub key: Option<ResumeKey>,
}

/// Somebody else may have a part in the open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The handle that it was granted with.
    pub handle: HandleId,
    /// Names the grant, to revoke it.
    pub grant: GrantId,
    /// The grantee's resume key; none where the server delivers it, and in a repeated answer: revoke and grant again.
    #[serde(with = "resume_key::option")]
    pub key: Option<ResumeKey>,
}

/// The handle is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {}

/// A file's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// The state.
    pub state: FileState,
}

/// Everything that was acknowledged before is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {}

/// A request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
}

/// The session is over; no channel of it is served any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
}

/// Why a server ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EndReason {
    /// The client is not allowed on this server any more.
    NotAllowed,
    /// The server is stopping.
    Stopping,
}

/// The one way by which a resume key becomes bytes on a wire: as a field of a control message.
mod resume_key {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    use crate::model::ResumeKey;

    /// The binary form in two halves, because the codec's arrays end at 32 elements.
    type Halves = ([u8; 24], [u8; 16]);

    fn halves(key: &ResumeKey) -> Zeroizing<Halves> {
        let mut halves: Zeroizing<Halves> = Zeroizing::new(([0; 24], [0; 16]));
        let bytes = key.to_bytes();
        let (selector, secret) = &mut *halves;
        selector.iter_mut().chain(secret).zip(bytes.iter()).for_each(|(to, from)| *to = *from);
        halves
    }

    fn from_halves(halves: &Zeroizing<Halves>) -> ResumeKey {
        let mut bytes = Zeroizing::new([0; ResumeKey::LEN]);
        let (selector, secret) = &**halves;
        bytes.iter_mut().zip(selector.iter().chain(secret)).for_each(|(to, from)| *to = *from);
        ResumeKey::from_bytes(&bytes)
    }

    pub(super) fn serialize<S: Serializer>(key: &ResumeKey, serializer: S) -> Result<S::Ok, S::Error> {
        halves(key).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResumeKey, D::Error> {
        Halves::deserialize(deserializer).map(|halves| from_halves(&Zeroizing::new(halves)))
    }

    pub(super) mod option {
        use super::{Deserialize, Deserializer, Halves, ResumeKey, Serialize, Serializer, Zeroizing};

        pub(in super::super) fn serialize<S: Serializer>(
            key: &Option<ResumeKey>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let halves = key.as_ref().map(super::halves);
            halves.as_deref().serialize(serializer)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<ResumeKey>, D::Error> {
            let halves = Option::<Halves>::deserialize(deserializer)?.map(Zeroizing::new);
            Ok(halves.as_ref().map(super::from_halves))
        }
    }
}

/// The session secret, and the one way by which it becomes bytes.
mod secret {
    use core::fmt;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::{Zeroize, ZeroizeOnDrop};

    /// 32 random bytes that the server sends inside the first control channel; the PSK of every bind comes of
    /// them. Prints nothing, is wiped on drop, and only [`super::Started`] can carry it.
    #[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
    pub struct BindSecret(pub [u8; 32]);

    impl fmt::Debug for BindSecret {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("BindSecret(..)")
        }
    }

    pub(super) fn serialize<S: Serializer>(secret: &BindSecret, serializer: S) -> Result<S::Ok, S::Error> {
        secret.0.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BindSecret, D::Error> {
        <[u8; 32]>::deserialize(deserializer).map(BindSecret)
    }
}
