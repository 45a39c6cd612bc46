//! The records of the table, and the values that go in and come out.

use core::time::Duration;
use std::collections::BTreeSet;

use super::grants::Grants;
use super::keys::OpenKeys;
use super::state::{HolderEvent, HolderPhase, OpenEvent, OpenPhase};
use super::waits::LockOwner;
use crate::model::planted::{self, Bug};
use crate::model::{
    ByteRange, CreateId, ExportName, ExportPath, FileIdentity, FileMark, GrantId, HandleId, LockMode, OpenId,
    OpenMode, PublicKey, Reason, Refusal, RequestId, Rights, SessionId, Time,
};

/// A request to open a file, after the file was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// The session that asks.
    pub session: SessionId,
    /// The identity of that session; the open is its own.
    pub owner: PublicKey,
    /// A random id for the open, should it become a new one.
    pub open: OpenId,
    /// A random id for the holder.
    pub handle: HandleId,
    /// Which file it is.
    pub file: FileIdentity,
    /// The export through which it was found.
    pub export: ExportName,
    /// What the client wants to do, and what others may do meanwhile.
    pub mode: OpenMode,
    /// What the handle may do: the rights of the mode, and [`Rights::LOCK`] and [`Rights::GRANT`] where the
    /// client has them.
    pub rights: Rights,
    /// Made by the client for this open.
    pub create_id: CreateId,
    /// How long the open stays when no channel reaches any of its holders.
    pub grace: Duration,
    /// A lock that is taken together with the open, or neither.
    pub lock: Option<(ByteRange, LockMode)>,
    /// Whether the open can have resume keys. One that cannot ends when its session is closed on purpose.
    pub resumable: bool,
    /// Whether everybody is kept out of the orphan, compatible or not, until its grace is over.
    pub guard: bool,
    /// Where in the export the file is.
    pub path: ExportPath,
    /// How the file looks.
    pub mark: FileMark,
}

impl Admission {
    /// The open, once it is one, as the owner of locks.
    pub(super) fn lock_owner(&self) -> LockOwner {
        LockOwner { open: self.open, file: self.file, identity: self.owner }
    }
}

/// A request to open a file, before any file work: only its create id can be looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repeat<'a> {
    /// The session that asks.
    pub session: SessionId,
    /// The identity of that session.
    pub owner: &'a PublicKey,
    /// Made by the client for this open.
    pub create_id: CreateId,
    /// A random id for the holder, should a fresh one be needed.
    pub handle: HandleId,
    /// The export that the request names.
    pub export: &'a ExportName,
    /// The mode that the request names.
    pub mode: OpenMode,
    /// As [`Admission::rights`].
    pub rights: Rights,
    /// As [`Admission::resumable`].
    pub resumable: bool,
}

/// A handle was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// The open that the handle is a part of.
    pub open: OpenId,
    /// The handle, valid in the session that asked.
    pub handle: HandleId,
    /// The mode in which the file is open.
    pub mode: OpenMode,
    /// What the handle may be used for.
    pub rights: Rights,
    /// Whether the open is new. If not, a descriptor that was opened for it is not needed.
    pub is_new_open: bool,
    /// The export through which the file was opened.
    pub export: ExportName,
    /// Of a resumed handle: the session of the handle that its key was issued for; none with a grant's own key.
    pub came_from: Option<SessionId>,
    /// Until when the client was heard of for which that handle had come back, if it may not have been told of it.
    pub untold: Option<Time>,
}

/// A holder as others may see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HolderView<'a> {
    /// The open that it is a part of.
    pub open: OpenId,
    /// The session that it belongs to.
    pub session: SessionId,
    /// The name by which the client knows it.
    pub handle: HandleId,
    /// What it may be used for.
    pub rights: Rights,
    /// The mode in which the file is open.
    pub mode: OpenMode,
    /// The export through which the file was opened.
    pub export: &'a ExportName,
    /// How it stands.
    pub phase: HolderPhase,
    /// Until when it waits for its session, while it is away.
    pub deadline: Option<Time>,
    /// Operations of it that are executing.
    pub executing: u32,
}

/// An open as others may see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenView<'a> {
    /// Its random index.
    pub open: OpenId,
    /// Whose it is.
    pub owner: &'a PublicKey,
    /// The export through which the file was opened.
    pub export: &'a ExportName,
    /// Where in it the file is, as far as renames came through the server.
    pub path: &'a ExportPath,
    /// Which file it is.
    pub file: FileIdentity,
    /// Whether it can be resumed with a key.
    pub resumable: bool,
    /// The mode in which the file is open.
    pub mode: OpenMode,
    /// How it stands.
    pub phase: OpenPhase,
    /// When its grace is over, while it is orphaned.
    pub deadline: Option<Time>,
    /// Its handles.
    pub holders: &'a [HandleId],
    /// How many resume keys of it are valid.
    pub keys: usize,
}

/// How a holder came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// By a request to open: the same request of the same session gets it again.
    Opened,
    /// By a resume key.
    Resumed,
}

/// One session's part in an open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    pub(super) open: OpenId,
    pub(super) session: SessionId,
    /// The identity of that session.
    pub(super) identity: PublicKey,
    pub(super) rights: Rights,
    pub(super) phase: HolderPhase,
    /// Present while it is away.
    pub(super) deadline: Option<Time>,
    pub(super) executing: u32,
    pub(super) origin: Origin,
    /// The grant that it came of, if it did.
    pub(super) grant: Option<GrantId>,
    /// Whether a sync of it has succeeded.
    pub(super) has_synced: bool,
    /// Its locks that wait.
    pub(super) waits: BTreeSet<RequestId>,
    /// Until when the client was heard of for which it has come back, as long as that may not have been told what became
    /// of the file since.
    pub(super) untold: Option<Time>,
}

impl Holder {
    pub(super) fn new(
        open: OpenId,
        (session, identity): (SessionId, PublicKey),
        rights: Rights,
        origin: Origin,
    ) -> Self {
        let phase = HolderPhase::Live;
        let waits = BTreeSet::new();
        Self {
            open,
            session,
            identity,
            rights,
            phase,
            deadline: None,
            executing: 0,
            origin,
            grant: None,
            has_synced: false,
            waits,
            untold: None,
        }
    }

    /// The same holder, as one that came of a grant.
    pub(super) fn of_grant(self, grant: Option<GrantId>) -> Self {
        Self { grant, ..self }
    }

    pub(super) fn on_session_away(&mut self, deadline: Time) {
        let was_live = self.phase == HolderPhase::Live;
        self.step(HolderEvent::SessionAway);
        if was_live {
            self.deadline = Some(deadline);
        }
    }

    pub(super) fn on_session_back(&mut self) {
        self.step(HolderEvent::SessionBack);
        self.deadline = None;
    }

    /// Stops the intake; says whether the holder is gone by that.
    pub(super) fn on_stop(&mut self) -> bool {
        self.step(HolderEvent::Stop);
        self.deadline = None;
        self.on_maybe_idle()
    }

    /// One operation ended; says whether the holder is gone by that.
    pub(super) fn on_operation_ended(&mut self) -> bool {
        debug_assert!(self.executing > 0, "an operation ended that never began");
        self.executing = self.executing.saturating_sub(1);
        self.on_maybe_idle()
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, HolderPhase::Draining | HolderPhase::Gone)
    }

    fn on_maybe_idle(&mut self) -> bool {
        if self.executing == 0 {
            self.step(HolderEvent::Idle);
        }
        self.phase == HolderPhase::Gone
    }

    fn step(&mut self, event: HolderEvent) {
        let next = self.phase.next(event);
        debug_assert!(next.is_some(), "a holder cannot meet {event:?} while {:?}", self.phase);
        self.phase = next.unwrap_or(self.phase);
    }
}

/// The server's record of an open file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Open {
    pub(super) owner: PublicKey,
    pub(super) export: ExportName,
    pub(super) path: ExportPath,
    pub(super) file: FileIdentity,
    pub(super) mode: OpenMode,
    pub(super) create_id: CreateId,
    pub(super) grace: Duration,
    pub(super) resumable: bool,
    pub(super) guard: bool,
    pub(super) phase: OpenPhase,
    /// Present while it is orphaned.
    pub(super) deadline: Option<Time>,
    pub(super) holders: Vec<HandleId>,
    pub(super) keys: OpenKeys,
    /// Most opens have none, and there are many opens.
    pub(super) granted: Option<Box<Grants>>,
    /// How the file looks if nobody but bowline changes it; none while its owner writes.
    pub(super) expected: Option<FileMark>,
    /// Whether its owner has written since it was looked at.
    pub(super) wrote: bool,
    /// Whether anybody else has written since.
    pub(super) others_wrote: bool,
    /// Whether that stays so whatever a look says: somebody may keep bytes that are older than what others wrote.
    pub(super) keeps_mark: bool,
    /// Whether somebody has taken the place of a holder from before the server started, and did not name it: that one's
    /// client may come back, and keep bytes that are older.
    pub(super) is_usurped: bool,
    /// Whether its clients may keep anything that they have written; what has become durable since is not told to them all.
    pub(super) has_kept: bool,
    /// Whether something may have been acknowledged through it as received that is not durable.
    pub(super) unsynced: bool,
    /// Whether some of that went with a machine, and somebody may not have been told.
    pub(super) lost: bool,
    /// Whether it is being synced because another session may write from now on.
    pub(super) is_settling: bool,
    /// Whether it is of an earlier life of the server, and nobody has looked at its file since.
    pub(super) is_restored: bool,
    /// How often its grace has begun anew because the machine had been started anew.
    pub(super) renewals: u8,
    /// Whether the store has a record of it.
    pub(super) is_stored: bool,
}

/// How an open looks to somebody who wants to come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// A holder is live.
    Held,
    /// Orphaned, and the grace lasts for this long.
    Grace(Duration),
    /// Orphaned, and the grace is over.
    Over,
    /// It ends as soon as nothing of it is executing.
    Closing,
}

impl Open {
    pub(super) fn grants(&self) -> &Grants {
        static NONE: Grants = Grants::NONE;
        self.granted.as_deref().unwrap_or(&NONE)
    }

    pub(super) fn new(admission: &Admission, grace: Duration) -> Self {
        Self {
            owner: admission.owner,
            export: admission.export.clone(),
            path: admission.path.clone(),
            file: admission.file,
            mode: admission.mode,
            create_id: admission.create_id,
            grace,
            resumable: admission.resumable,
            guard: admission.guard,
            phase: OpenPhase::Held,
            deadline: None,
            // Most have one, and there are many opens.
            holders: Vec::with_capacity(1),
            keys: OpenKeys::default(),
            granted: None,
            expected: Some(admission.mark),
            wrote: false,
            others_wrote: false,
            keeps_mark: false,
            is_usurped: false,
            has_kept: false,
            unsynced: false,
            lost: false,
            is_settling: false,
            is_restored: false,
            renewals: 0,
            is_stored: false,
        }
    }

    pub(super) fn presence(&self, now: Time) -> Presence {
        match (self.phase, self.deadline) {
            (OpenPhase::Held, _) => Presence::Held,
            (OpenPhase::Orphaned, Some(_)) if planted::is(Bug::BrokenTooEarly) => Presence::Over,
            (OpenPhase::Orphaned, Some(deadline)) if now < deadline => Presence::Grace(deadline.since(now)),
            (OpenPhase::Orphaned, _) => Presence::Over,
            (OpenPhase::Closing | OpenPhase::Ended, _) => Presence::Closing,
        }
    }

    /// Takes the next phase; `deadline` is the latest of the holders that are away.
    pub(super) fn step(&mut self, event: OpenEvent, deadline: Option<Time>) {
        let next = self.phase.next(event);
        debug_assert!(next.is_some(), "an open cannot meet {event:?} while {:?}", self.phase);
        self.phase = next.unwrap_or(self.phase);
        self.deadline = deadline.filter(|_| self.phase == OpenPhase::Orphaned);
    }

    /// Whose a key is that came of this grant, or of none.
    pub(super) fn bearer(&self, grant: Option<GrantId>) -> PublicKey {
        let Some(grant) = grant else { return self.owner };
        // Keys end with their grant; nobody has the key of zeros.
        self.grants().find(grant).map_or(PublicKey([0; 32]), |grant| grant.to)
    }

    pub(super) fn admitted(&self, open: OpenId, handle: HandleId, rights: Rights) -> Admitted {
        Admitted {
            open,
            handle,
            mode: self.mode,
            rights,
            is_new_open: false,
            export: self.export.clone(),
            came_from: None,
            untold: None,
        }
    }

    pub(super) fn view(&self, open: OpenId) -> OpenView<'_> {
        OpenView {
            open,
            owner: &self.owner,
            export: &self.export,
            path: &self.path,
            file: self.file,
            resumable: self.resumable,
            mode: self.mode,
            phase: self.phase,
            deadline: self.deadline,
            holders: &self.holders,
            keys: self.keys.len().saturating_add(self.grants().keys_len()),
        }
    }
}

/// The most that a handle of an open in `mode` can have.
pub(super) fn rights_max(mode: OpenMode) -> Rights {
    mode.rights.union(Rights::LOCK).union(Rights::GRANT)
}

/// The rights of a first handle: those of the mode, which must all be allowed, and the two that need no mode.
pub(super) fn first_rights(mode: OpenMode, allowed: Rights) -> Result<Rights, Refusal> {
    if !is_of_use(mode.rights) {
        return Err(Reason::Invalid.into());
    }
    if !allowed.permits(mode.rights) {
        return Err(Reason::PermissionDenied.into());
    }
    Ok(allowed.with_implied().intersection(rights_max(mode)))
}

/// Whether a handle with these rights can do anything with the file's bytes.
pub(super) fn is_of_use(rights: Rights) -> bool {
    rights.intersection(Rights::BYTES) != Rights::NONE
}
