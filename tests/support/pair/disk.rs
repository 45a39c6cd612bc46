//! The server's file system: paths and bytes, work that takes its time or is held, and a log of what was executed.

use std::collections::BTreeMap;

use bowline::model::{
    Allocation, Attributes, ByteRange, Create, Epoch, Evidence, ExportPath, FileIdentity, IntendedChange,
    LinkTarget, NameState, OpenId, Reason, Refusal, RenameHow, XattrHow, XattrName, len_u64,
};
use bowline::session::server::{Completion, Effect, EffectId, FileTarget, NameReport, NameWork};
use bowline::wire::control::Done;

use super::Payload;

/// The file system.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Every write that was executed, in its order.
    pub(crate) writes: Vec<Executed>,
    /// The file and the open of every write that was begun, in its order.
    pub(crate) begun: Vec<(u64, OpenId)>,
    /// Every open whose descriptor the core gave up, in its order.
    pub(crate) closed: Vec<OpenId>,
    /// How many of the next writes are held.
    pub(crate) hold_writes: usize,
    /// How many of the next reads are held.
    pub(crate) hold_reads: usize,
    /// How many of the next opens are held.
    pub(crate) hold_opens: usize,
    /// How many of the next changes of attributes are held.
    pub(crate) hold_changes: usize,
    /// How many of the next looks at names are held.
    pub(crate) hold_names: usize,
    /// Writes that begin here are refused.
    pub(crate) refuse_writes_at: Option<u64>,
    /// How the next sync fails.
    pub(crate) fail_sync: Option<Refusal>,
    /// How many reads were executed.
    pub(crate) reads: u64,
    /// How many syncs have succeeded.
    pub(crate) syncs: u64,
    /// How many files were opened.
    pub(crate) opened: u64,
    /// How often something was changed, or was to be.
    pub(crate) mutations: u64,
    /// Where links lead.
    links: BTreeMap<u64, LinkTarget>,
    xattrs: BTreeMap<(u64, XattrName), Payload>,
    inodes: BTreeMap<Vec<u8>, u64>,
    /// Files without a name, by what they are made for.
    unnamed: BTreeMap<OpenId, u64>,
    /// Files as they are in the page cache.
    files: BTreeMap<u64, Vec<u8>>,
    /// Files as they were when they were synced last.
    durable: BTreeMap<u64, Vec<u8>>,
    opens: BTreeMap<OpenId, u64>,
    /// When each file was changed last: a number that rises.
    changes: BTreeMap<u64, i64>,
    next_change: i64,
    running: BTreeMap<EffectId, Effect<Payload>>,
    held: Vec<EffectId>,
}

/// A write that was executed.
#[derive(Debug, Clone)]
pub(crate) struct Executed {
    /// What was written; tests give each write bytes of its own.
    pub(crate) payload: Payload,
    /// The open whose descriptor it went through.
    pub(crate) open: OpenId,
    /// The file.
    pub(crate) inode: u64,
    /// Where.
    pub(crate) offset: u64,
    /// Whether the server chose where.
    pub(crate) how: How,
    /// The server's life in which it was.
    pub(crate) life: Epoch,
    /// Whether the machine has ended since, and its bytes were not on the disk.
    pub(crate) is_lost: bool,
}

/// How bytes came into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    /// Where the client said.
    Written,
    /// At the end.
    Appended,
}

impl Executed {
    /// For the trace.
    pub(super) fn brief(&self) -> String {
        let text = String::from_utf8_lossy(&self.payload[..self.payload.len().min(64)]);
        let words: Vec<&str> = text.split_whitespace().collect();
        format!("{} at {} of {} through {:?}", words.join(" "), self.offset, self.inode, self.open)
    }
}

impl Disk {
    /// Makes a file, or replaces its bytes.
    pub(crate) fn put(&mut self, path: &str, bytes: Vec<u8>) {
        let found = self.inodes.get(path.as_bytes()).copied();
        let inode = found.unwrap_or_else(|| self.make(path.as_bytes()));
        self.durable.insert(inode, bytes.clone());
        self.files.insert(inode, bytes);
    }

    /// The machine has ended: what was not synced is gone.
    pub(crate) fn lose_cache(&mut self) {
        self.files.clone_from(&self.durable);
        for write in &mut self.writes {
            let from = usize::try_from(write.offset).unwrap();
            let there =
                self.files.get(&write.inode).and_then(|bytes| bytes.get(from..from + write.payload.len()));
            write.is_lost |= there != Some(&write.payload[..]);
        }
    }

    /// A file's bytes.
    pub(crate) fn bytes(&self, path: &str) -> &[u8] {
        &self.files[&self.inodes[path.as_bytes()]]
    }

    /// How often a write of this payload was executed.
    pub(crate) fn executions(&self, payload: &[u8]) -> usize {
        self.writes.iter().filter(|write| write.payload[..] == *payload).count()
    }

    /// A file's bytes as the next machine would find them.
    pub(crate) fn durable_bytes(&self, path: &str) -> &[u8] {
        &self.durable[&self.inodes[path.as_bytes()]]
    }

    /// Which file a path is.
    pub(crate) fn inode_of(&self, path: &str) -> u64 {
        self.inodes[path.as_bytes()]
    }

    /// Work that changes files and has begun, in its order: a crash may come before or after any of it.
    pub(super) fn changing(&self) -> Vec<EffectId> {
        let changes =
            |effect: &Effect<Payload>| matches!(effect, Effect::Write { .. } | Effect::Append { .. });
        self.running.iter().filter(|(_, effect)| changes(effect)).map(|(&id, _)| id).collect()
    }

    /// How many descriptors are open, those of files without a name included.
    pub(crate) fn descriptors(&self) -> usize {
        self.opens.len() + self.unnamed.len()
    }

    /// How much work is held.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes work on; says whether it is held.
    pub(super) fn begin(&mut self, id: EffectId, effect: Effect<Payload>) -> bool {
        let hold = match &effect {
            Effect::Write { .. } => &mut self.hold_writes,
            Effect::Read { .. } => &mut self.hold_reads,
            Effect::OpenFile { .. } => &mut self.hold_opens,
            Effect::Change { .. } => &mut self.hold_changes,
            Effect::Identify { .. } => &mut self.hold_names,
            _ => &mut 0,
        };
        let is_held = *hold > 0;
        *hold = hold.saturating_sub(1);
        if is_held {
            self.held.push(id);
        }
        if let Effect::Write { open, .. } | Effect::Append { open, .. } = &effect {
            self.begun.push((self.inode(*open), *open));
        }
        assert!(self.running.insert(id, effect).is_none(), "{id:?} was used twice");
        is_held
    }

    /// Everything that is held, and nothing is held from now on.
    pub(super) fn release(&mut self) -> Vec<EffectId> {
        (self.hold_writes, self.hold_reads, self.hold_opens) = (0, 0, 0);
        (self.hold_changes, self.hold_names) = (0, 0);
        core::mem::take(&mut self.held)
    }

    /// Executes work: its effect is that of this moment.
    pub(super) fn finish(&mut self, id: EffectId, life: Epoch) -> Option<Completion<Payload>> {
        let effect = self.running.remove(&id)?;
        self.mutations += u64::from(is_changing(&effect));
        Some(match effect {
            Effect::OpenFile { open, path, create, .. } => {
                let opened = self.open_file(open, &path, create);
                Completion::Opened(opened.map_err(Into::into))
            }
            Effect::MakeFile { open, path, .. } => {
                let before = self.state(&path);
                if before.file.is_some() {
                    return Some(Completion::Made(Err(Reason::Exists.into())));
                }
                let inode = self.make(b"");
                self.inodes.remove(&b""[..]);
                self.unnamed.insert(open, inode);
                Completion::Made(Ok((before, Some(identity_of(inode)))))
            }
            Effect::Weigh { open, payload } => {
                let len = len_u64(self.files[&self.inode(open)].len());
                Completion::Weighed(Ok((len, sum(&payload))))
            }
            // The file of an orphan is looked at, and somebody takes it meanwhile.
            Effect::Attributes { open } if !self.opens.contains_key(&open) => {
                Completion::Attributes(Err(Reason::BadHandle.into()))
            }
            Effect::Attributes { open } => Completion::Attributes(Ok(self.attributes(self.inode(open)))),
            Effect::Read { open, offset, len, .. } => self.read(open, offset, len),
            Effect::Write { offset, .. } if self.refuse_writes_at == Some(offset) => {
                Completion::Written(Err(Reason::NoSpace.into()))
            }
            Effect::Write { open, offset, payload } => {
                Completion::Written(Ok(self.put_bytes((open, offset), payload, How::Written, life)))
            }
            Effect::Sync { open, .. } => {
                let inode = self.inode(open);
                if let Some(refusal) = self.fail_sync.take() {
                    return Some(Completion::Synced(Err(refusal)));
                }
                self.syncs += 1;
                self.durable.insert(inode, self.files[&inode].clone());
                Completion::Synced(Ok(()))
            }
            Effect::Append { open, payload } => {
                let end = len_u64(self.files[&self.inode(open)].len());
                let len = self.put_bytes((open, end), payload, How::Appended, life);
                Completion::Appended(Ok((end, len)))
            }
            Effect::Change { target: FileTarget::Open(open), change } => {
                let inode = self.inode(open);
                if let Some(len) = change.len {
                    self.files.entry(inode).or_default().resize(usize::try_from(len).unwrap(), 0);
                }
                self.changed(inode);
                Completion::Attributes(Ok(self.attributes(inode)))
            }
            Effect::Change { target: FileTarget::Name(_), .. } => {
                Completion::Attributes(Err(Reason::Unsupported.into()))
            }
            Effect::Allocate { open, range, how } => {
                self.allocate(self.inode(open), range, how);
                Completion::Done(Ok(()))
            }
            Effect::Seek { open, offset, .. } => {
                self.inode(open);
                Completion::Sought(Ok(Some(offset)))
            }
            Effect::Identify { names, .. } => {
                Completion::Identified(Ok(names.iter().map(|name| self.state(name)).collect()))
            }
            Effect::Name(work) => Completion::Named(self.change_names(work)),
        })
    }

    fn allocate(&mut self, inode: u64, range: ByteRange, how: Allocation) {
        let bytes = self.files.entry(inode).or_default();
        if how == Allocation::Reserve {
            bytes.resize(bytes.len().max(usize::try_from(range.end()).unwrap()), 0);
        }
        if how == Allocation::PunchHole {
            let at = |offset: u64| usize::try_from(offset).unwrap().min(bytes.len());
            let (start, end) = (at(range.start()), at(range.end()));
            bytes[start..end].fill(0);
        }
    }

    fn read(&mut self, open: OpenId, offset: u64, len: u32) -> Completion<Payload> {
        self.reads += 1;
        let bytes = &self.files[&self.inode(open)];
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        let to = from.saturating_add(usize::try_from(len).unwrap()).min(bytes.len());
        let read = bytes[from..to].to_vec();
        let len = u32::try_from(read.len()).unwrap();
        Completion::Read(Ok((Payload::from(read), len)))
    }

    fn open_file(
        &mut self,
        open: OpenId,
        path: &ExportPath,
        create: Create,
    ) -> Result<(FileIdentity, Attributes), Reason> {
        let found = self.inodes.get(path.as_bytes()).copied();
        // What has got no name stays until the core gives it up.
        let inode = match (found, create) {
            (Some(_), Create::New) => return Err(Reason::Exists),
            (None, Create::Never) => return Err(Reason::NotFound),
            (Some(inode), _) => inode,
            (None, _) => match self.unnamed.get(&open).copied() {
                Some(made) => {
                    self.inodes.insert(path.as_bytes().to_vec(), made);
                    made
                }
                None => self.make(path.as_bytes()),
            },
        };
        self.unnamed.remove(&open);
        assert!(self.opens.insert(open, inode).is_none(), "{open:?} was used twice");
        self.opened += 1;
        Ok((identity_of(inode), self.attributes(inode)))
    }

    fn put_bytes(&mut self, (open, offset): (OpenId, u64), payload: Payload, how: How, life: Epoch) -> u32 {
        let inode = self.inode(open);
        self.write(inode, offset, &payload);
        let len = u32::try_from(payload.len()).unwrap();
        self.writes.push(Executed { payload, open, inode, offset, how, life, is_lost: false });
        len
    }

    /// Which file a name stands for.
    fn identity(&self, name: &ExportPath) -> Option<FileIdentity> {
        self.inodes.get(name.as_bytes()).map(|&inode| identity_of(inode))
    }

    fn state(&self, name: &ExportPath) -> NameState {
        NameState { directory: Some(identity_of(0)), file: self.identity(name) }
    }

    /// How the places of a change look.
    pub(super) fn evidence(&self, change: &IntendedChange) -> Evidence {
        let names = change.names();
        let states = names.iter().map(|name| self.state(&name.path)).collect();
        let mut evidence = Evidence { names: states, ..Evidence::default() };
        let bytes = self.inodes.get(names[0].path.as_bytes()).map(|inode| &self.files[inode]);
        evidence.len = bytes.map(|bytes| len_u64(bytes.len()));
        let inode = self.inodes.get(names[0].path.as_bytes());
        evidence.target = inode.and_then(|inode| self.links.get(inode)).cloned();
        if let (IntendedChange::Append { offset, len, .. }, Some(bytes)) = (change, bytes) {
            let from = usize::try_from(*offset).unwrap();
            let part = bytes.get(from..from + usize::try_from(*len).unwrap());
            evidence.sum = part.map(sum);
        }
        evidence
    }

    /// Everything that there is, by its names.
    pub(crate) fn everything(&self) -> String {
        let all = self.inodes.iter().map(|(name, inode)| {
            let xattrs = self.xattrs.iter().filter(|((of, _), _)| of == inode);
            let xattrs: Vec<_> = xattrs.map(|((_, name), value)| (name, value)).collect();
            (String::from_utf8_lossy(name), inode, &self.files[inode], self.links.get(inode), xattrs)
        });
        format!("{:?}", all.collect::<Vec<_>>())
    }

    /// Whether there is anything of this name.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.inodes.contains_key(path.as_bytes())
    }

    /// Makes an empty file.
    fn make(&mut self, path: &[u8]) -> u64 {
        let inode = len_u64(self.files.len()) + 1;
        self.inodes.insert(path.to_vec(), inode);
        self.files.insert(inode, Vec::new());
        self.durable.insert(inode, Vec::new());
        inode
    }

    /// Names and extended attributes are made, removed and changed; nothing else is done with them here.
    fn change_names(&mut self, work: NameWork<Payload>) -> Result<NameReport<Payload>, Refusal> {
        match work {
            NameWork::Remove { remove, expected } => {
                if self.identity(&remove.place.path) != Some(expected) {
                    return Ok(NameReport::Moved);
                }
                self.inodes.remove(remove.place.path.as_bytes());
            }
            NameWork::Rename { rename, expected } if rename.how != RenameHow::Exchange => {
                if [&rename.from, &rename.to].map(|name| self.identity(name)) != expected {
                    return Ok(NameReport::Moved);
                }
                if rename.how == RenameHow::NoReplace && expected[1].is_some() {
                    return Err(Reason::Exists.into());
                }
                let inode = self.inodes.remove(rename.from.as_bytes()).unwrap();
                self.inodes.insert(rename.to.as_bytes().to_vec(), inode);
            }
            NameWork::MakeDirectory(make) => {
                if self.identity(&make.place.path).is_some() {
                    return Err(Reason::Exists.into());
                }
                self.make(make.place.path.as_bytes());
            }
            NameWork::Symlink(link) => {
                if self.identity(&link.place.path).is_some() {
                    return Err(Reason::Exists.into());
                }
                let inode = self.make(link.place.path.as_bytes());
                self.links.insert(inode, link.target);
            }
            NameWork::XattrSet { target: FileTarget::Open(open), name, how, value } => {
                let place = (self.inode(open), name);
                if how == XattrHow::Create && self.xattrs.contains_key(&place) {
                    return Err(Reason::Exists.into());
                }
                self.xattrs.insert(place, value.unwrap_or_default());
            }
            NameWork::XattrRemove { target: FileTarget::Open(open), name } => {
                if self.xattrs.remove(&(self.inode(open), name)).is_none() {
                    return Err(Reason::NoAttribute.into());
                }
            }
            NameWork::HardLink(link) => {
                if self.identity(&link.to).is_some() {
                    return Err(Reason::Exists.into());
                }
                let inode = self.inodes[link.from.as_bytes()];
                self.inodes.insert(link.to.as_bytes().to_vec(), inode);
            }
            _ => return Err(Reason::Unsupported.into()),
        }
        Ok(NameReport::Answer(Done {}.into(), None))
    }

    /// The core gives a descriptor up: nothing may be executing on it, and this says whether it is so.
    #[must_use]
    pub(super) fn close(&mut self, open: OpenId) -> bool {
        if self.unnamed.remove(&open).is_some() {
            return true;
        }
        assert!(self.opens.remove(&open).is_some(), "{open:?} was closed and not open");
        let busy = self.running.values().any(|effect| match effect {
            Effect::Read { open: on, .. }
            | Effect::Write { open: on, .. }
            | Effect::Sync { open: on, .. }
            | Effect::Append { open: on, .. }
            | Effect::Weigh { open: on, .. }
            | Effect::Change { target: FileTarget::Open(on), .. }
            | Effect::Allocate { open: on, .. }
            | Effect::Seek { open: on, .. } => *on == open,
            Effect::OpenFile { .. }
            | Effect::MakeFile { .. }
            | Effect::Attributes { .. }
            | Effect::Change { target: FileTarget::Name(_), .. }
            | Effect::Identify { .. }
            | Effect::Name(_) => false,
        });
        self.closed.push(open);
        !busy
    }

    /// An open is there from before the server started.
    pub(super) fn adopt(&mut self, open: OpenId, file: FileIdentity) {
        assert!(self.opens.insert(open, file.inode).is_none(), "{open:?} was used twice");
    }

    /// Somebody on the server changes a file, not through it.
    pub(crate) fn change_locally(&mut self, path: &str, offset: u64, bytes: &[u8]) {
        self.write(self.inodes[path.as_bytes()], offset, bytes);
    }

    /// Somebody on the server syncs a file, not through it.
    pub(crate) fn sync_locally(&mut self, path: &str) {
        let inode = self.inodes[path.as_bytes()];
        self.durable.insert(inode, self.files[&inode].clone());
    }

    /// The server's process has ended: its descriptors and what had not begun are gone.
    pub(super) fn forget_process(&mut self) {
        self.opens.clear();
        self.unnamed.clear();
        self.running.clear();
        self.held.clear();
    }

    fn inode(&self, open: OpenId) -> u64 {
        *self.opens.get(&open).unwrap_or_else(|| panic!("work on {open:?}, which is not open"))
    }

    fn attributes(&self, inode: u64) -> Attributes {
        let changed_ns = self.changes.get(&inode).copied().unwrap_or(0);
        let len = len_u64(self.files[&inode].len());
        Attributes { len, permissions: 0o644, changed_ns, ..Attributes::default() }
    }

    fn changed(&mut self, inode: u64) {
        self.next_change += 1;
        self.changes.insert(inode, self.next_change);
    }

    fn write(&mut self, inode: u64, offset: u64, payload: &[u8]) {
        let bytes = self.files.entry(inode).or_default();
        let from = usize::try_from(offset).unwrap();
        let to = from + payload.len();
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        bytes[from..to].copy_from_slice(payload);
        self.changed(inode);
    }
}

fn identity_of(inode: u64) -> FileIdentity {
    FileIdentity { device: 1, inode, born_ns: 0 }
}

/// Something of bytes that others do not have.
fn sum(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    for (at, byte) in bytes.iter().enumerate() {
        let place = &mut sum[at % 32];
        *place = u8::wrapping_add(u8::wrapping_mul(*place, 31), *byte);
    }
    sum
}

/// Whether a piece of work changes what others can see.
fn is_changing(effect: &Effect<Payload>) -> bool {
    match effect {
        Effect::Name(work) => !matches!(
            work,
            NameWork::Lookup(_)
                | NameWork::List(_)
                | NameWork::ReadLink(_)
                | NameWork::StatSpace(_)
                | NameWork::XattrGet { .. }
                | NameWork::XattrList { .. }
        ),
        Effect::MakeFile { .. }
        | Effect::Write { .. }
        | Effect::Append { .. }
        | Effect::Change { .. }
        | Effect::Allocate { .. } => true,
        _ => false,
    }
}

/// What a piece of work is, for the trace.
pub(super) fn kind_of(effect: &Effect<Payload>) -> String {
    match effect {
        Effect::OpenFile { open, .. } => format!("open {open:?}"),
        Effect::Attributes { open } => format!("look at {open:?}"),
        Effect::Read { open, .. } => format!("read {open:?}"),
        Effect::Write { open, .. } => format!("write {open:?}"),
        Effect::Sync { open, .. } => format!("sync {open:?}"),
        Effect::Append { open, .. } => format!("append {open:?}"),
        _ => "other".to_owned(),
    }
}
