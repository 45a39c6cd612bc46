//! File work: what the core asks for, done at once where the page cache has the bytes, else on the blocking pool.

use std::sync::Arc;

use bytes::BytesMut;

use super::change::change_open;
use super::descriptors::{Lease, Purpose};
use super::evidence;
use super::files::CachedRead;
use super::names::Outcome;
use super::shared::Shared;
use super::spans;
use super::xattr::Holder;
use crate::model::{AttributeChange, Attributes, Limits, OpenId, Reason, Refusal};
use crate::net::{Block, Outbound};
use crate::session::server::{Completion, Effect, EffectId, FileTarget, NameReport, NameWork};
use crate::wire::ServerControl;
use crate::wire::control::Done;
use crate::wire::names::{
    Found, Link, Listed, Lookup, ReadLink, SpaceStated, StatSpace, XattrNames, XattrValue,
};

/// A piece of file work.
pub(super) struct Work {
    pub(super) id: EffectId,
    pub(super) effect: Effect<Outbound>,
}

impl Shared {
    /// Does a piece of work at once and reports it, or gives it to the blocking pool, which reports later.
    pub(super) fn perform(self: &Arc<Self>, work: Work) -> Option<(EffectId, Completion<Outbound>)> {
        let Work { id, effect } = work;
        match effect {
            Effect::Read { open, offset, len, may_lend: false } => self.read(id, open, offset, len),
            Effect::Read { open, offset, len, may_lend: true } => self.with_file(id, open, move |file| {
                Completion::Read(file.and_then(|file| lend(file, offset, len)))
            }),
            Effect::Attributes { open } => self
                .with_file(id, open, |file| Completion::Attributes(file.and_then(|file| file.attributes()))),
            Effect::Write { open, offset, payload } => {
                self.later(id, move |shared| {
                    let write = |file: Lease| file.write(offset, payload.in_memory());
                    Completion::Written(shared.files.find(open).and_then(write))
                });
                None
            }
            Effect::Sync { open, scope } => {
                self.later(id, move |shared| Completion::Synced(shared.files.sync(open, scope)));
                None
            }
            effect @ (Effect::OpenFile { .. } | Effect::MakeFile { .. }) => {
                if let Effect::OpenFile { open, export, path, .. }
                | Effect::MakeFile { open, export, path, .. } = &effect
                {
                    spans::opening(*open, export, path, self.names_are_logged());
                }
                self.later(id, move |shared| shared.open_or_make(effect));
                None
            }
            Effect::Weigh { open, payload } => {
                self.later(id, move |shared| {
                    let sum = |len| (len, evidence::sum(payload.in_memory()));
                    let len = shared.files.find(open).and_then(|file| file.attributes());
                    Completion::Weighed(len.map(|attributes| sum(attributes.len)))
                });
                None
            }
            Effect::Append { open, payload } => {
                self.later(id, move |shared| {
                    let append = |file: Lease| file.append(payload.in_memory());
                    Completion::Appended(shared.files.find(open).and_then(append))
                });
                None
            }
            Effect::Change { target, change } => {
                self.later(id, move |shared| Completion::Attributes(shared.change(&target, &change)));
                None
            }
            Effect::Allocate { open, range, how } => {
                self.later(id, move |shared| {
                    let allocate = |file: Lease| file.allocate(range, how);
                    Completion::Done(shared.files.find(open).and_then(allocate))
                });
                None
            }
            Effect::Seek { open, offset, what } => {
                self.later(id, move |shared| {
                    let seek = |file: Lease| file.seek(offset, what);
                    Completion::Sought(shared.files.find(open).and_then(seek))
                });
                None
            }
            Effect::Identify { export, names } => {
                self.later(id, move |shared| Completion::Identified(shared.names.identify(&export, &names)));
                None
            }
            Effect::Name(work) => {
                self.later(id, move |shared| Completion::Named(shared.name_work(work)));
                None
            }
        }
    }

    /// Opens a file, or makes one that has no name yet.
    fn open_or_make(&self, effect: Effect<Outbound>) -> Completion<Outbound> {
        let names = &self.names;
        match effect {
            Effect::OpenFile { open, export, path, rights, create, permissions } => {
                let made = self.made.take(open);
                let opened = self.files.reserve(Purpose::New).and_then(|place| {
                    let open_file = || names.open_file(&export, &path, rights, create, permissions);
                    let opened = match made {
                        Some(made) => names.name_file(&export, &path, made),
                        None => self.files.with_room(open_file),
                    }?;
                    self.files.insert(open, (&export, &path, rights), (opened, place))
                });
                Completion::Opened(opened)
            }
            Effect::MakeFile { open, export, path, rights, permissions } => {
                let make = || names.make_file(&export, &path, rights, permissions);
                let made = self.files.with_room(make).map(|(before, made)| {
                    let file = made.as_ref().map(|made| made.identity);
                    if let Some(made) = made {
                        self.made.put(open, made);
                    }
                    (before, file)
                });
                Completion::Made(made)
            }
            _ => Completion::Opened(Err(Reason::Unsupported.into())),
        }
    }

    fn change(&self, target: &FileTarget, change: &AttributeChange) -> Result<Attributes, Refusal> {
        match target {
            FileTarget::Open(open) => change_open(&*self.files.find(*open)?, change, self.names.modes()),
            FileTarget::Name(place) => self.names.change(place, change),
        }
    }

    fn name_work(&self, work: NameWork<Outbound>) -> Result<NameReport<Outbound>, Refusal> {
        let names = &self.names;
        match work {
            NameWork::Lookup(Lookup { place, follow }) => {
                names.lookup(&place, follow).map(|attributes| answer(Found { attributes }))
            }
            NameWork::List(list) => names.list(&list).map(|(page, next)| answer_with(Listed { next }, &page)),
            NameWork::ReadLink(ReadLink { place }) => {
                names.read_link(&place).map(|target| answer(Link { target }))
            }
            NameWork::StatSpace(StatSpace { place }) => {
                names.space(&place).map(|space| answer(SpaceStated { space }))
            }
            NameWork::MakeDirectory(make) => names.make_directory(&make).map(|()| answer(Done {})),
            NameWork::Symlink(symlink) => names.symlink(&symlink).map(|()| answer(Done {})),
            NameWork::HardLink(link) => names.hard_link(&link).map(|()| answer(Done {})),
            NameWork::Remove { remove, expected } => names.remove(&remove, expected).map(report),
            NameWork::Rename { rename, expected } => names.rename(&rename, expected).map(report),
            NameWork::XattrGet { target, name } => {
                self.holder(target)?.get(&name).map(|value| answer_with(XattrValue {}, &value))
            }
            NameWork::XattrSet { target, name, how, value } => {
                let value = value.as_ref().map_or(&[][..], Outbound::in_memory);
                self.holder(target)?.set(&name, how, value).map(|()| answer(Done {}))
            }
            NameWork::XattrList { target } => {
                self.holder(target)?.list().map(|list| answer_with(XattrNames {}, &list))
            }
            NameWork::XattrRemove { target, name } => {
                self.holder(target)?.remove(&name).map(|()| answer(Done {}))
            }
        }
    }

    fn holder(&self, target: FileTarget) -> Result<Holder, Refusal> {
        match target {
            FileTarget::Open(open) => self.files.find(open).map(Holder::Open),
            FileTarget::Name(place) => self.names.find(&place).map(Holder::Found),
        }
    }

    fn read(
        self: &Arc<Self>,
        id: EffectId,
        open: OpenId,
        offset: u64,
        len: u32,
    ) -> Option<(EffectId, Completion<Outbound>)> {
        let mut into = self.buffers.block(usize::try_from(len).unwrap_or(0).min(Limits::PAYLOAD_LEN_MAX));
        let file = self.files.here(open);
        if file.as_ref().is_some_and(|file| file.read_cached(offset, len, &mut into) == CachedRead::Done) {
            return Some((id, Completion::Read(Ok(answer_of(into)))));
        }
        // What the page cache had is kept; the rest waits for the disk, on the blocking pool.
        self.later(id, move |shared| {
            let have = u32::try_from(into.len()).unwrap_or(len);
            let at = offset.saturating_add(u64::from(have));
            let file = file.map_or_else(|| shared.files.find(open), Ok);
            let rest = file.and_then(|file| file.read(at, len.saturating_sub(have), &mut into));
            Completion::Read(rest.map(|()| answer_of(into)))
        });
        None
    }

    /// Does what does not wait for a disk at once if the open's descriptor is there, else on the blocking pool.
    fn with_file(
        self: &Arc<Self>,
        id: EffectId,
        open: OpenId,
        work: impl FnOnce(Result<Lease, Refusal>) -> Completion<Outbound> + Send + 'static,
    ) -> Option<(EffectId, Completion<Outbound>)> {
        match self.files.here(open) {
            Some(file) => Some((id, work(Ok(file)))),
            None => {
                self.later(id, move |shared| work(shared.files.find(open)));
                None
            }
        }
    }

    fn later(
        self: &Arc<Self>,
        id: EffectId,
        work: impl FnOnce(&Arc<Self>) -> Completion<Outbound> + Send + 'static,
    ) {
        let (shared, span) = (Arc::clone(self), spans::of_work());
        // The report is the task's only result; a server that stops waits for all of them.
        drop(self.file_work.spawn_blocking(move || {
            let _within = span.enter();
            let completion = work(&shared);
            shared.counters.worked(&completion);
            shared.drive(|core, now| core.handle_completion(now, id, completion));
        }));
    }

    /// Closes descriptors where nobody waits for the file system.
    pub(super) fn close_files(&self, files: Vec<Lease>) {
        if !files.is_empty() {
            drop(self.file_work.spawn_blocking(move || drop(files)));
        }
    }
}

/// Promises as many of the bytes at `offset` as the file has now; they are read when they are sent.
fn lend(file: Lease, offset: u64, len: u32) -> Result<(Outbound, u32), Refusal> {
    let rest = file.attributes()?.len.saturating_sub(offset);
    match u32::try_from(rest).map_or(len, |rest| rest.min(len)) {
        0 => Ok(counted(BytesMut::new())),
        promised => Ok((Outbound::Lent(Arc::new(file), offset, promised), promised)),
    }
}

fn report(outcome: Outcome) -> NameReport<Outbound> {
    match outcome {
        Outcome::Done => answer(Done {}),
        Outcome::Moved => NameReport::Moved,
    }
}

fn answer(message: impl Into<ServerControl>) -> NameReport<Outbound> {
    NameReport::Answer(message.into(), None)
}

fn answer_with(message: impl Into<ServerControl>, payload: &[u8]) -> NameReport<Outbound> {
    let payload = (!payload.is_empty()).then(|| counted(BytesMut::from(payload)));
    NameReport::Answer(message.into(), payload)
}

fn answer_of(block: Block) -> (Outbound, u32) {
    let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
    (Outbound::Block(block), len)
}

fn counted(bytes: BytesMut) -> (Outbound, u32) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    (Outbound::Owned(bytes), len)
}
