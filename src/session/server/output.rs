//! What goes in and out of the server's core beside verified records.

use core::time::Duration;

use crate::model::{
    Allocation, AttributeChange, Attributes, ByteRange, ChannelKind, ChannelNumber, Create, ExportName,
    ExportPath, FileIdentity, NameState, OpenId, Protection, PublicKey, Refusal, RequestId, Rights, Seekable,
    SessionId, SyncScope, XattrHow, XattrName,
};
use crate::opens::{OpenEnd, ResumeDenial, TableChanges};
use crate::session::LossReason;
use crate::wire::hello::{BindChoice, BindOffer, SessionChoice, SessionOffer};
use crate::wire::names::{
    HardLink, List, Lookup, MakeDirectory, Place, ReadLink, Remove, Rename, StatSpace, Symlink,
};
use crate::wire::{ClientControl, ClientData, ServerControl, ServerData};

/// The shell's name for a connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The core's name for a piece of file work; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub u64);

/// A message from a client, by the kind of channel that it came on.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// On a control channel.
    Control(ClientControl),
    /// On a data channel.
    Data(ClientData),
}

/// A message to a client, by the kind of channel that it may go on.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// On a control channel.
    Control(ServerControl),
    /// On a data channel.
    Data(ServerData),
}

impl From<ServerControl> for ServerMessage {
    fn from(message: ServerControl) -> Self {
        Self::Control(message)
    }
}

impl From<ServerData> for ServerMessage {
    fn from(message: ServerData) -> Self {
        Self::Data(message)
    }
}

/// The keys of the server under which sessions may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerKeys {
    /// The one that it has.
    pub current: PublicKey,
    /// The one that it had, while it changes.
    pub previous: Option<PublicKey>,
}

impl ServerKeys {
    /// All of them, the present one first.
    #[must_use]
    pub fn all(&self) -> Vec<PublicKey> {
        core::iter::once(self.current).chain(self.previous).collect()
    }

    /// Whether a key is valid.
    #[must_use]
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.current == *key || self.previous.as_ref() == Some(key)
    }
}

/// What a session handshake has settled.
#[derive(Debug, Clone, Copy)]
pub struct SessionFacts {
    /// The key of the server that the client began with.
    pub server: PublicKey,
    /// The proven identity of the client.
    pub client: PublicKey,
    /// Its offer.
    pub offer: SessionOffer,
    /// The server's choice.
    pub choice: SessionChoice,
}

/// What the handshake of a bind needs to know of the session that its locator names.
#[derive(Debug, Clone)]
pub struct BindFacts {
    /// The session.
    pub session: SessionId,
    /// The key of the server that it began under: its binds use the same one.
    pub server: PublicKey,
    /// Whose it is.
    pub client: PublicKey,
    /// Of which the PSK is derived.
    pub secret: crate::wire::control::BindSecret,
}

/// What a bind handshake has settled.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The session, as [`BindFacts`] named it.
    pub session: SessionId,
    /// The client's offer.
    pub offer: BindOffer,
    /// The server's choice.
    pub choice: BindChoice,
}

/// What the core wants done.
#[derive(Debug)]
pub enum ServerOutput<P> {
    /// Give this record to the connection's writer.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The request that it answers.
        request: RequestId,
        /// The message.
        message: ServerMessage,
        /// The payload, if any.
        payload: Option<P>,
    },
    /// Close the connection.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: LossReason,
        /// What becomes of what was given to its writer.
        manner: CloseManner,
    },
    /// Do this file work and report with [`handle_completion`](super::ServerCore::handle_completion).
    Effect {
        /// Names the work in its report.
        id: EffectId,
        /// The work.
        effect: Effect<P>,
    },
    /// The open has ended; its descriptor can go. Needs no report.
    CloseFile {
        /// The open.
        open: OpenId,
    },
    /// Every client that can be reached has the answers to what it has asked, after
    /// [`handle_drain`](super::ServerCore::handle_drain). Needs no report.
    Drained,
    /// Something for the log.
    Note(ServerNote),
    /// Store this, behind all earlier commits, and report with
    /// [`handle_committed`](super::ServerCore::handle_committed).
    Commit {
        /// Names the commit in its report; rises.
        commit: CommitId,
        /// What to store.
        changes: TableChanges,
    },
    /// An open from before the server started: its file may have to be opened. Comes once for each, before anything else
    /// of it, and needs no report.
    AdoptFile {
        /// The open.
        open: OpenId,
        /// The export.
        export: ExportName,
        /// Where in it the file was last known to be.
        path: ExportPath,
        /// Which file it is: no other one will do.
        file: FileIdentity,
        /// What the descriptor must be good for.
        rights: Rights,
    },
}

/// Names a commit of the table's records. Those of one server rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// What becomes of what is on its way when a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseManner {
    /// It is put out first, if that does not take too long.
    InOrder,
    /// The client may not have it any more: a data channel sends nothing more, and a control channel has a moment to
    /// say why the session ended.
    AtOnce,
}

/// File work.
#[derive(Debug)]
pub enum Effect<P> {
    /// Open a file beneath its export, make it if that is wanted, and keep its descriptor under `open`; reports [`Completion::Opened`].
    OpenFile {
        /// The open to be.
        open: OpenId,
        /// The export.
        export: ExportName,
        /// The path in it.
        path: ExportPath,
        /// What the descriptor must be good for.
        rights: Rights,
        /// Whether the file is to be made.
        create: Create,
        /// Permission bits of a file that is made, before the server's mask.
        permissions: u32,
    },
    /// Make a file in the directory of `path` that has no name yet, and keep it under `open`: an [`Effect::OpenFile`] of this
    /// open gives it its name, and the end of the open gives it up. Reports [`Completion::Made`].
    MakeFile {
        /// The open to be.
        open: OpenId,
        /// The export.
        export: ExportName,
        /// The path in it.
        path: ExportPath,
        /// What the descriptor must be good for.
        rights: Rights,
        /// Permission bits of the file, before the server's mask.
        permissions: u32,
    },
    /// Tell the file's attributes; reports [`Completion::Attributes`].
    Attributes {
        /// The open.
        open: OpenId,
    },
    /// Read; reports [`Completion::Read`].
    Read {
        /// The open.
        open: OpenId,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes at most.
        len: u32,
        /// Whether a payload will do whose bytes are read only when they are sent: the answer goes to a clear channel.
        /// The core counts such a read as done when it is reported, because nobody may be kept waiting for a client
        /// that takes its answers slowly.
        may_lend: bool,
    },
    /// Write; reports [`Completion::Written`].
    Write {
        /// The open.
        open: OpenId,
        /// Where, in bytes.
        offset: u64,
        /// What.
        payload: P,
    },
    /// Make durable; reports [`Completion::Synced`].
    Sync {
        /// The open.
        open: OpenId,
        /// What.
        scope: SyncScope,
    },
    /// Tell how long the file is, and the hash of what is to be appended; reports [`Completion::Weighed`].
    Weigh {
        /// The open.
        open: OpenId,
        /// What.
        payload: P,
    },
    /// Write at the end; reports [`Completion::Appended`].
    Append {
        /// The open.
        open: OpenId,
        /// What.
        payload: P,
    },
    /// Change attributes; reports [`Completion::Attributes`], as they are afterwards.
    Change {
        /// Of what; a length is changed of opens only.
        target: FileTarget,
        /// What to change.
        change: AttributeChange,
    },
    /// Reserve storage or give it back; reports [`Completion::Done`].
    Allocate {
        /// The open.
        open: OpenId,
        /// Which bytes.
        range: ByteRange,
        /// What is to become of their storage.
        how: Allocation,
    },
    /// Look for data or a hole; reports [`Completion::Sought`].
    Seek {
        /// The open.
        open: OpenId,
        /// Where to begin, in bytes.
        offset: u64,
        /// What to look for.
        what: Seekable,
    },
    /// Tell which files names stand for, links not followed; reports [`Completion::Identified`].
    Identify {
        /// The export.
        export: ExportName,
        /// The names.
        names: Vec<ExportPath>,
    },
    /// Work on names or on extended attributes; reports [`Completion::Named`].
    Name(NameWork<P>),
}

/// What work is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileTarget {
    /// The file of an open.
    Open(OpenId),
    /// What a name stands for, links followed beneath the export.
    Name(Place),
}

/// Work on names or on extended attributes. What it takes was checked by the core as far as the core can.
#[derive(Debug)]
pub enum NameWork<P> {
    /// As the message says.
    Lookup(Lookup),
    /// As the message says.
    List(List),
    /// As the message says.
    ReadLink(ReadLink),
    /// As the message says.
    StatSpace(StatSpace),
    /// As the message says.
    MakeDirectory(MakeDirectory),
    /// As the message says.
    Symlink(Symlink),
    /// As the message says.
    HardLink(HardLink),
    /// As the message says, if the name still stands for `expected`; else [`NameReport::Moved`].
    Remove {
        /// The message.
        remove: Remove,
        /// What the name stood for when the core decided.
        expected: FileIdentity,
    },
    /// As the message says, if the names still stand for `expected`; else [`NameReport::Moved`].
    Rename {
        /// The message.
        rename: Rename,
        /// What the names stood for when the core decided.
        expected: [Option<FileIdentity>; 2],
    },
    /// As the message says.
    XattrGet {
        /// Of what.
        target: FileTarget,
        /// Its name.
        name: XattrName,
    },
    /// As the message says.
    XattrSet {
        /// Of what.
        target: FileTarget,
        /// Its name.
        name: XattrName,
        /// Whether it may or must be there.
        how: XattrHow,
        /// The value; none: it is empty.
        value: Option<P>,
    },
    /// As the message says.
    XattrList {
        /// Of what.
        target: FileTarget,
    },
    /// As the message says.
    XattrRemove {
        /// Of what.
        target: FileTarget,
        /// Its name.
        name: XattrName,
    },
}

/// What work on names comes to.
#[derive(Debug)]
pub enum NameReport<P> {
    /// The answer to the request, and its payload with its length.
    Answer(ServerControl, Option<(P, u32)>),
    /// A name stands for another file than expected; nothing was done.
    Moved,
}

/// The report of a piece of file work.
#[derive(Debug)]
pub enum Completion<P> {
    /// Of [`Effect::OpenFile`]. After an error no descriptor is kept.
    Opened(Result<(FileIdentity, Attributes), Refusal>),
    /// Of [`Effect::MakeFile`]: the state of the name, and the file; none where the file system makes no file without a
    /// name: then it is made when it is opened.
    Made(Result<(NameState, Option<FileIdentity>), Refusal>),
    /// Of [`Effect::Attributes`].
    Attributes(Result<Attributes, Refusal>),
    /// Of [`Effect::Read`]: the bytes, and how many they are.
    Read(Result<(P, u32), Refusal>),
    /// Of [`Effect::Write`]: how many bytes.
    Written(Result<u32, Refusal>),
    /// Of [`Effect::Sync`].
    Synced(Result<(), Refusal>),
    /// Of [`Effect::Append`]: where the bytes are, and how many.
    Appended(Result<(u64, u32), Refusal>),
    /// Of [`Effect::Allocate`].
    Done(Result<(), Refusal>),
    /// Of [`Effect::Seek`].
    Sought(Result<Option<u64>, Refusal>),
    /// Of [`Effect::Identify`]: the state of each name.
    Identified(Result<Vec<NameState>, Refusal>),
    /// Of [`Effect::Weigh`].
    Weighed(Result<(u64, [u8; 32]), Refusal>),
    /// Of [`Effect::Name`].
    Named(Result<NameReport<P>, Refusal>),
}

/// Something for the server's log. The other side hears none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerNote {
    /// A session began.
    SessionStarted {
        /// The session.
        session: SessionId,
        /// Whose it is.
        client: PublicKey,
    },
    /// A session began under the server's previous key: its client has not been given the new one yet.
    StartedUnderPreviousKey {
        /// The session.
        session: SessionId,
        /// Whose it is.
        client: PublicKey,
    },
    /// A session is over.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Why.
        reason: SessionEnd,
    },
    /// A channel is part of its session.
    ChannelBound {
        /// Its connection.
        connection: ConnectionId,
        /// The session.
        session: SessionId,
        /// The channel.
        number: ChannelNumber,
        /// What it carries.
        kind: ChannelKind,
        /// How it is protected.
        protection: Protection,
    },
    /// A channel is gone.
    ChannelLost {
        /// Its connection.
        connection: ConnectionId,
        /// The session.
        session: SessionId,
        /// The channel.
        number: ChannelNumber,
        /// Why.
        reason: LossReason,
    },
    /// No channel reaches the session any more; its opens wait.
    SessionAway {
        /// The session.
        session: SessionId,
        /// How long it is kept at least.
        kept: Duration,
    },
    /// A bind was refused.
    BindRefused {
        /// Why.
        why: BindDenial,
    },
    /// A resume key was refused.
    ResumeRefused {
        /// The session that presented it.
        session: SessionId,
        /// Why.
        why: ResumeDenial,
    },
    /// A resume key was not looked at: too many of the same client were refused just before.
    ResumeThrottled {
        /// The session that presented it.
        session: SessionId,
    },
    /// The administrator has ended an open.
    OpenReleased {
        /// The open.
        open: OpenId,
        /// Whose it was.
        owner: PublicKey,
        /// How many holders it had.
        holders: usize,
    },
    /// An open begins to end without its client's doing.
    OpenEnded {
        /// The open.
        open: OpenId,
        /// Whose it is.
        owner: PublicKey,
        /// Why.
        why: OpenEnd,
    },
    /// A peer broke the protocol.
    Offence {
        /// The session.
        session: SessionId,
        /// What it did.
        what: Offence,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The client closed it.
    Closed,
    /// No channel came back and it holds nothing.
    Expired,
    /// The client is not allowed any more.
    NotAllowed,
    /// The server's key that it began under is no longer valid.
    KeyRetired,
}

/// Why a bind was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindDenial {
    /// No session has this locator.
    UnknownLocator,
    /// The keys do not fit.
    Handshake,
    /// The nonce was used before.
    NonceUsed,
    /// The number is or was in use.
    NumberUsed,
    /// The client is not allowed any more.
    NotAllowed,
    /// The server's key is no longer valid.
    KeyRetired,
    /// The session has all the channels that it may have.
    TooMany,
    /// The suite is not one that the server has for such a channel.
    NoSuite,
    /// The first record is not what was negotiated.
    Mismatch,
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offence {
    /// A request id far beyond the window.
    RequestBeyondWindow,
    /// More in flight than its credit allows.
    OverCredit,
    /// A message that does not belong here.
    OutOfPlace,
}
