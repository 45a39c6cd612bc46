//! What a test asks of its clients, one line each.

use super::*;

/// What came of a request.
pub(crate) type Outcome = Result<Answer<Payload>, RequestError>;

/// What is asked with an open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenSpec<'a> {
    /// The file.
    pub(crate) path: &'a str,
    /// The mode.
    pub(crate) mode: OpenMode,
    /// Whether it is made.
    pub(crate) create: Create,
    /// Whether it is cut to no bytes.
    pub(crate) truncate: bool,
    /// What is locked with it.
    pub(crate) lock: Option<LockWanted>,
    /// Whether it can be resumed.
    pub(crate) resumable: bool,
    /// Made for this open.
    pub(crate) create_id: CreateId,
    /// Whether a key is to come along.
    pub(crate) with_key: bool,
    /// The grace, in milliseconds.
    pub(crate) grace_ms: u64,
    pub(crate) guard: bool,
}

impl<'a> OpenSpec<'a> {
    /// An open that is there for reading and writing, with a key.
    pub(crate) fn of(path: &'a str) -> Self {
        Self {
            path,
            mode: OpenMode::READ_WRITE,
            create: Create::Never,
            truncate: false,
            lock: None,
            resumable: true,
            create_id: CreateId([0; 16]),
            with_key: true,
            grace_ms: 0,
            guard: false,
        }
    }
}

/// The one export.
pub(super) fn export() -> bowline::model::ExportName {
    "data".parse().unwrap()
}

/// How long a test waits for an answer where nothing is wrong.
const SOON: Duration = Duration::from_secs(20);

impl Pair {
    /// Asks for a file to be opened for reading and writing, with a key.
    pub(crate) fn open(&mut self, who: Who, path: &str) -> Ticket {
        let create_id = CreateId(self.clients[who.0].entropy.bytes().unwrap());
        self.open_as(who, OpenSpec { create_id, ..OpenSpec::of(path) })
    }

    /// Asks for a file to be opened.
    pub(crate) fn open_as(&mut self, who: Who, spec: OpenSpec<'_>) -> Ticket {
        let open = Open {
            export: export(),
            path: bowline::model::ExportPath::new(spec.path.as_bytes()).unwrap(),
            mode: spec.mode,
            create: spec.create,
            truncate: spec.truncate,
            permissions: 0o666,
            lock: spec.lock,
            resumable: spec.resumable,
            create_id: spec.create_id,
            with_key: spec.with_key,
            grace_ms: spec.grace_ms,
            guard: spec.guard,
        };
        self.control(who, open)
    }

    /// Asks for a duplicate handle.
    pub(crate) fn resume(&mut self, who: Who, key: &ResumeKey, predecessor: Option<HandleId>) -> Ticket {
        self.control(who, Resume { key: key.clone(), predecessor, with_key: true })
    }

    /// Asks for a resume key.
    pub(crate) fn issue_key(&mut self, who: Who, handle: HandleId) -> Ticket {
        self.control(who, IssueKey { handle })
    }

    /// Asks for a file's state.
    pub(crate) fn stat(&mut self, who: Who, handle: HandleId) -> Ticket {
        self.control(who, Stat { handle })
    }

    /// Asks for everything to be made durable.
    pub(crate) fn sync(&mut self, who: Who, handle: HandleId) -> Ticket {
        self.control(who, Sync { handle, scope: SyncScope::All })
    }

    /// Locks a range, waiting for it as long as said.
    pub(crate) fn lock(
        &mut self,
        who: Who,
        handle: HandleId,
        (range, mode): (ByteRange, LockMode),
        wait: Duration,
    ) -> Ticket {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap();
        self.control(who, Lock { handle, wanted: LockWanted { mode, range: range.raw() }, wait_ms })
    }

    /// Unlocks a range.
    pub(crate) fn unlock(&mut self, who: Who, handle: HandleId, range: ByteRange) -> Ticket {
        self.control(who, Unlock { handle, range: range.raw() })
    }

    /// Cuts or extends a file.
    pub(crate) fn set_len(&mut self, who: Who, handle: HandleId, len: u64) -> Ticket {
        let change = AttributeChange { len: Some(len), ..AttributeChange::default() };
        self.control(who, Change { target: Target::Handle(handle), change })
    }

    /// Makes a hole.
    pub(crate) fn punch(&mut self, who: Who, handle: HandleId, range: ByteRange) -> Ticket {
        self.control(who, Allocate { handle, range: range.raw(), how: Allocation::PunchHole })
    }

    /// Removes a file's name.
    pub(crate) fn remove(&mut self, who: Who, path: &str) -> Ticket {
        let path = bowline::model::ExportPath::new(path.as_bytes()).unwrap();
        let place = Place { export: export(), path };
        self.control(who, Remove { place, what: bowline::model::Removal::File })
    }

    /// Appends, on any line.
    pub(crate) fn append(&mut self, who: Who, handle: HandleId, bytes: impl Into<Vec<u8>>) -> Ticket {
        let payload = Payload::new(bytes.into());
        let len = u32::try_from(payload.len()).unwrap();
        self.request(who, Operation::Append(Append { handle }, payload, len), LineSet::ALL)
    }

    /// Gives a handle up.
    pub(crate) fn close(&mut self, who: Who, handle: HandleId) -> Ticket {
        self.control(who, Close { handle })
    }

    /// Reads, on any line.
    pub(crate) fn read(&mut self, who: Who, handle: HandleId, offset: u64, len: u32) -> Ticket {
        self.read_over(who, (handle, offset, len), LineSet::ALL)
    }

    /// Reads, on these lines only.
    pub(crate) fn read_over(&mut self, who: Who, range: (HandleId, u64, u32), lines: LineSet) -> Ticket {
        let (handle, offset, len) = range;
        self.request(who, Operation::Read(Read { handle, offset, len }), lines)
    }

    /// Writes, on any line.
    pub(crate) fn write(
        &mut self,
        who: Who,
        handle: HandleId,
        offset: u64,
        bytes: impl Into<Vec<u8>>,
    ) -> Ticket {
        self.write_over(who, (handle, offset), bytes, LineSet::ALL)
    }

    /// Writes, on these lines only.
    pub(crate) fn write_over(
        &mut self,
        who: Who,
        (handle, offset): (HandleId, u64),
        bytes: impl Into<Vec<u8>>,
        lines: LineSet,
    ) -> Ticket {
        let payload = Payload::new(bytes.into());
        let len = u32::try_from(payload.len()).unwrap();
        self.request(who, Operation::Write(Write { handle, offset }, payload, len), lines)
    }

    /// What came of a request, if anything has.
    pub(crate) fn outcome(&self, who: Who, request: Ticket) -> Option<&Outcome> {
        self.clients[who.0].outcomes.get(&request)
    }

    /// Takes out what came of a request, if anything has.
    pub(crate) fn take_outcome(&mut self, who: Who, request: Ticket) -> Option<Outcome> {
        let client = &mut self.clients[who.0];
        let outcome = client.outcomes.remove(&request)?;
        client.taken.insert(request);
        Some(outcome)
    }

    /// Whether a request has had its answer, taken out or not.
    pub(crate) fn is_answered(&self, who: Who, request: Ticket) -> bool {
        let client = &self.clients[who.0];
        client.outcomes.contains_key(&request) || client.taken.contains(&request)
    }

    /// How many requests of a client have their answers.
    pub(crate) fn answered(&self, who: Who) -> usize {
        self.clients[who.0].outcomes.len()
    }

    /// Waits for a request that has to succeed.
    pub(crate) fn finish(&mut self, who: Who, request: Ticket) -> &Answer<Payload> {
        self.wait(who, request);
        match &self.clients[who.0].outcomes[&request] {
            Ok(answer) => answer,
            Err(error) => self.fail(&format!("{request:?} failed: {error:?}")),
        }
    }

    /// Waits for a request that has to fail.
    pub(crate) fn error(&mut self, who: Who, request: Ticket) -> RequestError {
        self.wait(who, request);
        match &self.clients[who.0].outcomes[&request] {
            Ok(answer) => self.fail(&format!("{request:?} succeeded: {answer:?}")),
            Err(error) => error.clone(),
        }
    }

    /// Waits for an open or a resume.
    pub(crate) fn opened(&mut self, who: Who, request: Ticket) -> (HandleId, Option<ResumeKey>) {
        let opened = match self.finish(who, request) {
            Answer::Control(ServerControl::Opened(opened), _) => Some((opened.handle, opened.key.clone())),
            _ => None,
        };
        opened.unwrap_or_else(|| self.fail("an open had another answer"))
    }

    /// Waits for a key.
    pub(crate) fn key(&mut self, who: Who, request: Ticket) -> Option<ResumeKey> {
        let key = match self.finish(who, request) {
            Answer::Control(ServerControl::KeyIssued(issued), _) => Some(issued.key.clone()),
            _ => None,
        };
        key.unwrap_or_else(|| self.fail("a request for a key had another answer"))
    }

    /// Opens a file for reading and writing, and waits for it.
    pub(crate) fn handle(&mut self, who: Who, path: &str) -> HandleId {
        let request = self.open(who, path);
        self.opened(who, request).0
    }

    /// Waits for a read.
    pub(crate) fn bytes(&mut self, who: Who, request: Ticket) -> Payload {
        let read = match self.finish(who, request) {
            Answer::Read(read) => Some(read.clone().unwrap_or_default()),
            _ => None,
        };
        read.unwrap_or_else(|| self.fail("a read had another answer"))
    }

    /// Waits until every request of a client has its answer, and every one has to have succeeded.
    pub(crate) fn finish_all(&mut self, who: Who, span: Duration) {
        self.run_until("every request has its answer", span, |pair| pair.core(who).outstanding().0 == 0);
        if let Some((request, error)) =
            self.clients[who.0].outcomes.iter().find_map(|(id, outcome)| Some((id, outcome.as_ref().err()?)))
        {
            self.fail(&format!("{request:?} failed: {error:?}"));
        }
    }

    /// Nobody waits for the request any more.
    pub(crate) fn withdraw(&mut self, who: Who, ticket: Ticket) {
        self.clients[who.0].core.handle_withdrawn(self.now, ticket);
    }

    fn wait(&mut self, who: Who, request: Ticket) {
        self.run_until("the request has its answer", SOON, |pair| pair.outcome(who, request).is_some());
    }

    pub(crate) fn control(&mut self, who: Who, message: impl Into<ClientControl>) -> Ticket {
        self.request(who, Operation::Control(message.into()), LineSet::ALL)
    }

    pub(crate) fn request(&mut self, who: Who, operation: Operation<Payload>, lines: LineSet) -> Ticket {
        let id = self.clients[who.0].core.handle_request(self.now, operation, lines);
        self.note(format_args!("c{} wants {id:?}", who.0));
        self.drain_client(who);
        id
    }
}

/// An outcome without its bytes.
pub(super) fn brief(outcome: &Outcome) -> String {
    match outcome {
        Ok(Answer::Read(read)) => format!("{} bytes", read.as_ref().map_or(0, |read| read.len())),
        other => format!("{other:?}"),
    }
}
