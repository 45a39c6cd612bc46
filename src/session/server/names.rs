//! Requests about names. The core checks rights, and that no open keeps its file's name from being taken away; the
//! shell resolves the names.
//!
//! A name that is removed or replaced may be that of an open file whose share mode forbids it. So it happens in two
//! steps: the shell tells which files the names stand for; the table says whether they may go, and keeps opens that
//! would forbid it out meanwhile; the shell does it if the names still stand for those files, else all begins anew. A name
//! that is made is looked at before as well, where changes are recorded: see `intents`.

use super::ServerCore;
use super::effects::{Job, Task, named};
use super::output::{Effect, NameReport, NameWork};
use super::requests::Ticket;
use crate::model::{
    ExportName, ExportPath, FileIdentity, IntendedChange, IntendedName, NameState, Reason, Refusal,
    RenameHow, Rights, Time,
};
use crate::wire::ClientControl;
use crate::wire::names::{
    HardLink, List, Lookup, MakeDirectory, ReadLink, Remove, Rename, StatSpace, Symlink, XattrGet, XattrList,
    XattrRemove,
};

/// How often a change of names begins anew because others change the same names.
const ATTEMPTS_MAX: u32 = 16;

/// A change of names that is looked at before it is made.
#[derive(Debug)]
pub(super) struct NameChange {
    what: What,
    attempts: u32,
}

#[derive(Debug)]
enum What {
    Remove(Remove),
    Rename(Rename),
    Make(MakeDirectory),
    Symlink(Symlink),
    HardLink(HardLink),
}

impl<P: Clone> ServerCore<P> {
    /// Serves a request about names or extended attributes; any other is unsupported here.
    pub(super) fn serve_name(
        &mut self,
        now: Time,
        ticket: Ticket,
        message: ClientControl,
    ) -> Result<(), Refusal> {
        match message {
            ClientControl::Lookup(Lookup { ref place, .. })
            | ClientControl::List(List { ref place, .. })
            | ClientControl::ReadLink(ReadLink { ref place })
            | ClientControl::StatSpace(StatSpace { ref place }) => {
                self.permit(now, ticket, &place.export, Rights::READ)?;
            }
            ClientControl::MakeDirectory(MakeDirectory { ref place, .. })
            | ClientControl::Symlink(Symlink { ref place, .. }) => {
                self.permit(now, ticket, &place.export, Rights::WRITE)?;
            }
            ClientControl::HardLink(HardLink { ref export, .. }) => {
                self.permit(now, ticket, export, Rights::WRITE)?;
            }
            _ => {}
        }
        let work = match message {
            ClientControl::Lookup(lookup) => NameWork::Lookup(lookup),
            ClientControl::List(list) => NameWork::List(list),
            ClientControl::ReadLink(read_link) => NameWork::ReadLink(read_link),
            ClientControl::StatSpace(stat_space) => NameWork::StatSpace(stat_space),
            ClientControl::MakeDirectory(make) => return self.make_name(ticket, What::Make(make)),
            ClientControl::Symlink(symlink) => return self.make_name(ticket, What::Symlink(symlink)),
            ClientControl::HardLink(link) => return self.make_name(ticket, What::HardLink(link)),
            ClientControl::Remove(remove) => {
                self.permit(now, ticket, &remove.place.export, Rights::WRITE)?;
                self.identify(ticket, NameChange { what: What::Remove(remove), attempts: 0 });
                return Ok(());
            }
            ClientControl::Rename(rename) => {
                self.permit(now, ticket, &rename.export, Rights::WRITE)?;
                self.identify(ticket, NameChange { what: What::Rename(rename), attempts: 0 });
                return Ok(());
            }
            ClientControl::XattrGet(XattrGet { target, name }) => {
                let work = |target| NameWork::XattrGet { target, name };
                return self.serve_xattr(now, ticket, target, false, work);
            }
            ClientControl::XattrList(XattrList { target }) => {
                return self.serve_xattr(now, ticket, target, false, |target| NameWork::XattrList { target });
            }
            ClientControl::XattrRemove(XattrRemove { target, name }) => {
                let work = |target| NameWork::XattrRemove { target, name };
                return self.serve_xattr(now, ticket, target, true, work);
            }
            _ => return Err(Reason::Unsupported.into()),
        };
        self.start(Job::new(ticket, Task::Named { handle: None }), Effect::Name(work));
        Ok(())
    }

    /// Whether the session's client may do this with names of an export now. An export that it may not see does not
    /// exist for it.
    pub(super) fn permit(
        &self,
        now: Time,
        ticket: Ticket,
        export: &ExportName,
        needed: Rights,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get(&ticket.session).ok_or(Reason::NotFound)?;
        let allowed = self.export_rights(now, session, export).ok_or(Reason::NotFound)?;
        if allowed.permits(needed) { Ok(()) } else { Err(Reason::PermissionDenied.into()) }
    }

    /// Makes a name. Nothing is reserved for it, so how it is before matters only if it is recorded.
    fn make_name(&mut self, ticket: Ticket, what: What) -> Result<(), Refusal> {
        if self.records_intents() {
            self.identify(ticket, NameChange { what, attempts: 0 });
        } else if let Some(work) = what.making() {
            self.start(Job::new(ticket, Task::Named { handle: None }), Effect::Name(work));
        }
        Ok(())
    }

    fn identify(&mut self, ticket: Ticket, change: NameChange) {
        let (export, names) = change.what.names();
        let (export, names) = (export.clone(), names.into_iter().cloned().collect());
        let job = Job::new(ticket, Task::Identify(Box::new(change)));
        self.start(job, Effect::Identify { export, names });
    }

    /// The files are known that a change of names concerns.
    pub(super) fn on_identified(
        &mut self,
        now: Time,
        ticket: Ticket,
        change: Box<NameChange>,
        result: Result<Vec<NameState>, Refusal>,
    ) {
        if let Some(work) = change.what.making() {
            let intended = result.and_then(|states| change.what.intended(&states));
            return match intended.and_then(|intended| self.intend(ticket, intended)) {
                Ok(()) => self.start(Job::new(ticket, Task::Named { handle: None }), Effect::Name(work)),
                Err(refusal) => self.answer_refused(ticket, refusal),
            };
        }
        let prepared = result.and_then(|states| {
            let mut files = states.iter().map(|state| state.file);
            let first = files.next().flatten().ok_or(Reason::NotFound)?;
            let second = files.next().flatten();
            let intended = change.what.intended(&states)?;
            let is_spared =
                matches!(&change.what, What::Rename(rename) if rename.how == RenameHow::NoReplace);
            let victims: Vec<FileIdentity> =
                [Some(first), second.filter(|_| !is_spared)].into_iter().flatten().collect();
            self.table.begin_removal(now, ticket.session, &victims)?;
            Ok((first, second, victims, intended))
        });
        let (first, second, victims, intended) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return self.answer_refused(ticket, refusal),
        };
        let work = match &change.what {
            What::Remove(remove) => NameWork::Remove { remove: remove.clone(), expected: first },
            What::Rename(rename) => {
                NameWork::Rename { rename: rename.clone(), expected: [Some(first), second] }
            }
            What::Make(_) | What::Symlink(_) | What::HardLink(_) => return,
        };
        if let Err(refusal) = self.intend(ticket, intended) {
            self.table.end_removal(&victims);
            return self.answer_refused(ticket, refusal);
        }
        self.start(Job::new(ticket, Task::ChangeNames(change, victims)), Effect::Name(work));
    }

    /// A change of names was done, or the names have changed meanwhile.
    pub(super) fn on_names_changed(
        &mut self,
        now: Time,
        ticket: Ticket,
        mut change: NameChange,
        reserved: &[FileIdentity],
        result: Result<NameReport<P>, Refusal>,
    ) {
        self.table.end_removal(reserved);
        let is_moved = matches!(result, Ok(NameReport::Moved));
        if is_moved && change.attempts < ATTEMPTS_MAX {
            change.attempts = change.attempts.saturating_add(1);
            self.identify(ticket, change);
        } else {
            if result.is_ok() {
                self.note_names_changed(now, ticket, &change, reserved);
            }
            self.end_maybe(ticket, None, result.and_then(named));
        }
    }

    /// Opens follow their names, and whoever comes back hears that somebody was at the file.
    fn note_names_changed(&mut self, now: Time, ticket: Ticket, change: &NameChange, files: &[FileIdentity]) {
        if let What::Rename(Rename { export, from, to, how }) = &change.what {
            self.table.renamed(export, from, to, *how == RenameHow::Exchange);
        }
        let Some(client) = self.sessions.get(&ticket.session).map(|session| session.client) else { return };
        files.iter().for_each(|file| self.table.note_change_of_name(now, *file, client));
    }
}

impl What {
    /// The names that it is about.
    fn names(&self) -> (&ExportName, Vec<&ExportPath>) {
        match self {
            Self::Remove(Remove { place, .. })
            | Self::Make(MakeDirectory { place, .. })
            | Self::Symlink(Symlink { place, .. }) => (&place.export, vec![&place.path]),
            Self::Rename(Rename { export, from, to, .. }) | Self::HardLink(HardLink { export, from, to }) => {
                (export, vec![from, to])
            }
        }
    }

    /// The work, if it makes a name.
    fn making<P>(&self) -> Option<NameWork<P>> {
        match self {
            Self::Remove(_) | Self::Rename(_) => None,
            Self::Make(make) => Some(NameWork::MakeDirectory(make.clone())),
            Self::Symlink(symlink) => Some(NameWork::Symlink(symlink.clone())),
            Self::HardLink(link) => Some(NameWork::HardLink(link.clone())),
        }
    }

    /// What is recorded of it before it is done; `states`: of its names.
    fn intended(&self, states: &[NameState]) -> Result<IntendedChange, Refusal> {
        let (export, names) = self.names();
        let mut named = names.into_iter().zip(states).map(|(path, before)| {
            let name = IntendedName { export: export.clone(), path: path.clone(), before: *before };
            name.before.directory.map(|_| name).ok_or_else(|| Refusal::from(Reason::NotFound))
        });
        let mut next = || named.next().unwrap_or_else(|| Err(Reason::NotFound.into()));
        Ok(match self {
            Self::Remove(_) => IntendedChange::Remove(next()?),
            Self::Make(_) => IntendedChange::MakeDirectory(next()?),
            Self::Symlink(symlink) => IntendedChange::Symlink(next()?, symlink.target.clone()),
            Self::Rename(rename) => IntendedChange::Rename { from: next()?, to: next()?, how: rename.how },
            Self::HardLink(_) => {
                let file = next()?.before.file.ok_or(Reason::NotFound)?;
                IntendedChange::HardLink(next()?, file)
            }
        })
    }
}
