//! The one core of a server behind its lock, and how its outputs are carried out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

use super::counters::{Counters, kind_of};
use super::descriptors::{Descriptors, Lease};
use super::evidence::Unnamed;
use super::gate::Gate;
use super::identities::Identities;
use super::names::Names;
use super::persistence::Persistence;
use super::spans::{self, Line, Spans, Traced};
use super::work::Work;
use crate::model::{Limits, RequestId, Time, len_u64};
use crate::net::{Buffers, Clock, Meter, NotDone, Outbound, Queue, Workers};
use crate::session::server::{
    ClientMessage, CloseManner, ConnectionId, ServerCore, ServerMessage, ServerOutput,
};
use crate::session::{Input, LossReason};
use crate::wire::{ServerControl, ServerData};

/// What the connections of a server share.
pub(super) struct Shared {
    state: Mutex<State>,
    clock: Clock,
    identities: RwLock<Identities>,
    /// Held by whoever changes them, so that the core ends with those that hellos are read with.
    changing: Mutex<()>,
    limits: Limits,
    /// What is decided before a client is known.
    pub(super) gate: Arc<Gate>,
    /// What computes handshakes.
    workers: Workers,
    /// Steps of handshakes that were begun.
    computed: AtomicU64,
    /// Whether the server's key is shown to whoever asks.
    pub(super) enrolment: bool,
    /// Deadlines may have come nearer.
    wake: Notify,
    /// Notified when clients have their answers, after the server was told to stop.
    pub(super) drained: Notify,
    pub(super) names: Names,
    pub(super) files: Arc<Descriptors>,
    /// Files that have no name yet.
    pub(super) made: Unnamed,
    /// Where the core's table is kept.
    pub(super) persistence: Persistence,
    /// What runs on the blocking pool.
    pub(super) file_work: TaskTracker,
    /// Of the payload of all connections.
    pub(super) buffers: Buffers,
    pub(super) counters: Counters,
    /// Whether the log may name files.
    pub(super) log_names: AtomicBool,
}

struct State {
    core: ServerCore<Outbound>,
    spans: Spans,
    connections: HashMap<ConnectionId, Connection>,
    next_connection: u64,
}

struct Connection {
    writer: WriterHandle,
    meter: Meter,
    /// Requests that wait for their answers.
    asked: HashMap<RequestId, Asked>,
    traced: Traced,
}

/// A request that waits for its answer.
struct Asked {
    /// The kind byte.
    kind: u8,
    span: Span,
}

/// Requests whose kinds are remembered on a connection, for each that its session may have under way with credit: the
/// others are few, and more of them are not counted.
const ASKED_PER_REQUEST: usize = 4;

/// The queue of a connection's writer.
pub(super) type WriterHandle = Queue<ServerControl, ServerData>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("identities", &self.identities()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        core: ServerCore<Outbound>,
        (identities, names, files): (Identities, Names, Arc<Descriptors>),
        (gate, workers, persistence): (Arc<Gate>, Workers, Persistence),
        limits: Limits,
        enrolment: bool,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                core,
                spans: Spans::default(),
                connections: HashMap::new(),
                next_connection: 0,
            }),
            clock: Clock,
            identities: RwLock::new(identities),
            changing: Mutex::default(),
            limits,
            gate,
            workers,
            computed: AtomicU64::new(0),
            enrolment,
            wake: Notify::new(),
            drained: Notify::new(),
            names,
            files,
            made: Unnamed::default(),
            persistence,
            file_work: TaskTracker::new(),
            buffers: Buffers::default(),
            counters: Counters::new(),
            log_names: AtomicBool::new(false),
        }
    }

    /// Makes one change to the core and carries out what follows. File work that can be done at once is done here;
    /// the rest goes to the blocking pool.
    pub(super) fn drive<T>(self: &Arc<Self>, change: impl FnOnce(&mut ServerCore<Outbound>, Time) -> T) -> T {
        self.step(|state, now| change(&mut state.core, now))
    }

    fn step<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Time) -> T) -> T {
        let (mut work, mut closing) = (Vec::new(), Vec::new());
        let value = {
            let mut state = self.lock();
            let value = change(&mut state, self.clock.now());
            self.drain(&mut state, &mut work, &mut closing);
            value
        };
        // Work that is done at once reports at once, which may lead to more work: a list, not a recursion.
        while let Some(piece) = work.pop() {
            if let Some((id, completion)) = self.perform(piece) {
                let mut state = self.lock();
                self.counters.worked(&completion);
                state.core.handle_completion(self.clock.now(), id, completion);
                self.drain(&mut state, &mut work, &mut closing);
            }
        }
        self.close_files(closing);
        value
    }

    /// Gives a verified record of a connection to the core.
    pub(super) fn receive(self: &Arc<Self>, connection: ConnectionId, input: Input<ClientMessage, Outbound>) {
        let (request, kind) = (input.request, input.message.as_ref().ok().map(kind_of));
        let asked_max = usize::try_from(self.limits.requests).unwrap_or(usize::MAX);
        let asked_max = asked_max.saturating_mul(ASKED_PER_REQUEST);
        let span = kind.map_or_else(Span::none, |kind| self.request_span(connection, request, kind));
        if let Ok(message) = &input.message
            && self.names_are_logged()
        {
            span.in_scope(|| spans::tell_names(message));
        }
        let _within = span.enter();
        self.step(|state, now| {
            state.came(&self.counters, connection, input.payload_len);
            // What the core does not answer is not remembered.
            if state.core.handle_input(now, connection, input)
                && let Some(kind) = kind
            {
                state.note(connection, (request, Asked { kind, span: span.clone() }), asked_max);
            }
        });
    }

    /// Whether the log may name files.
    pub(super) fn names_are_logged(&self) -> bool {
        self.log_names.load(Ordering::Relaxed)
    }

    /// The span of a request; none where the log shows none.
    fn request_span(&self, connection: ConnectionId, request: RequestId, kind: u8) -> Span {
        match tracing::enabled!(tracing::Level::DEBUG) && request != RequestId::NONE {
            true => spans::request_span(&self.span_of(connection), request, kind),
            false => Span::none(),
        }
    }

    /// The span of a connection's channel, once it is bound.
    pub(super) fn span_of(&self, connection: ConnectionId) -> Span {
        let state = self.lock();
        let connection = state.connections.get(&connection);
        connection.map_or_else(Span::none, |connection| connection.traced.span().clone())
    }

    /// Deadlines may have come nearer without a note of the core's.
    pub(super) fn wake_timer(&self) {
        self.wake.notify_one();
    }

    /// Looks at the core without a change.
    pub(super) fn look<T>(&self, look: impl FnOnce(&ServerCore<Outbound>) -> T) -> T {
        look(&self.lock().core)
    }

    /// Gives a connection a name and its writer a place.
    pub(super) fn register(&self, writer: WriterHandle, meter: Meter, line: Line) -> ConnectionId {
        let mut state = self.lock();
        let id = ConnectionId(state.next_connection);
        state.next_connection = state.next_connection.saturating_add(1);
        let traced = Traced::new(line);
        state.connections.insert(id, Connection { writer, meter, asked: HashMap::new(), traced });
        id
    }

    /// The connection is gone.
    pub(super) fn lost(self: &Arc<Self>, connection: ConnectionId, reason: LossReason) {
        // It is known until the log has been told.
        self.drive(|core, now| core.handle_lost(now, connection, reason));
        self.lock().connections.remove(&connection);
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// The keys that the server has now.
    pub(super) fn identities(&self) -> Identities {
        self.identities.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other keys in force. Sessions under a key that is no longer one of them end now.
    pub(super) fn set_identities(self: &Arc<Self>, identities: Identities) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = identities.public();
        // First the core takes the new keys beside the old ones, then hellos are read with the new ones alone, then the
        // old sessions end: no hello is read with a key that its first record is then refused for, unless the key ends.
        self.drive(|core, _| core.allow_server_keys(keys));
        *self.identities.write().unwrap_or_else(PoisonError::into_inner) = identities;
        self.drive(|core, now| core.handle_server_keys(now, keys));
    }

    /// Computes a step of a handshake, which takes a tenth of a millisecond.
    ///
    /// # Cancel safety
    /// As [`Workers::run`].
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        self.computed.fetch_add(1, Ordering::Relaxed);
        self.workers.run(step).await
    }

    /// How many steps of handshakes were to be computed.
    pub(super) fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A panic in another thread must not take the whole server down: the core's invariants hold after each
    /// single change or were asserted in debug builds.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(self: &Arc<Self>, state: &mut State, work: &mut Vec<Work>, closing: &mut Vec<Lease>) {
        while let Some(output) = state.core.poll_output() {
            match output {
                ServerOutput::Send { connection, request, message, payload } => {
                    if matches!(message, ServerMessage::Control(ServerControl::LockQueued(_))) {
                        // Its time may be over before anything else is due.
                        self.wake.notify_one();
                    }
                    state.send(&self.counters, connection, request, message, payload);
                }
                ServerOutput::Close { connection, manner, .. } => {
                    if let Some(connection) = state.connections.remove(&connection) {
                        match manner {
                            CloseManner::InOrder => connection.writer.close(),
                            CloseManner::AtOnce => connection.writer.cut(),
                        }
                    }
                }
                ServerOutput::Effect { id, effect } => work.push(Work { id, effect }),
                ServerOutput::CloseFile { open } => {
                    closing.extend(self.files.remove(open));
                    // One that nobody names is small, and so is its end.
                    drop(self.made.take(open));
                    // With its last open a session may have its last reason to stay.
                    self.wake.notify_one();
                }
                ServerOutput::Commit { commit, changes } => self.persistence.submit(self, commit, changes),
                ServerOutput::AdoptFile { open, export, path, file, rights } => {
                    // Its handles hear of it when they are used.
                    if let Err(refusal) = self.files.adopt(open, (&export, &path, rights), file) {
                        tracing::error!(%open, %refusal, "an open has no place for its descriptor");
                    }
                }
                ServerOutput::Drained => self.drained.notify_one(),
                ServerOutput::Note(note) => {
                    self.counters.noted(&note);
                    let of = spans::connection_of(&note).and_then(|of| state.connections.get_mut(&of));
                    state.spans.tell(&note, of.map(|of| &mut of.traced));
                    self.wake.notify_one();
                }
            }
        }
        if state.core.take_new_deadline() {
            self.wake.notify_one();
        }
    }

    fn tick(self: &Arc<Self>) {
        let wall_us = self.clock.wall_us();
        self.drive(|core, now| {
            core.handle_wall_clock(now, wall_us);
            core.handle_timeout(now);
        });
    }

    fn feed_progress(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        let now = self.clock.now();
        for (&id, connection) in &state.connections {
            let bytes = connection.meter.load(Ordering::Relaxed);
            state.core.handle_progress(now, id, bytes);
        }
    }

    /// How many requests are remembered, of all connections.
    #[cfg(test)]
    pub(super) fn asked(&self) -> usize {
        self.lock().connections.values().map(|connection| connection.asked.len()).sum()
    }

    fn next_timeout(&self) -> Option<Time> {
        let now = self.clock.now();
        self.look(|core| core.poll_timeout(now))
    }
}

impl State {
    /// What is asked for in a request, so that its answer can be counted.
    fn note(&mut self, connection: ConnectionId, (request, asked): (RequestId, Asked), asked_max: usize) {
        let connection = self.connections.get_mut(&connection);
        if let Some(connection) = connection.filter(|connection| connection.asked.len() < asked_max) {
            connection.asked.insert(request, asked);
        }
    }

    /// A request came with payload.
    fn came(&self, counters: &Counters, connection: ConnectionId, bytes: u32) {
        let of = self.connections.get(&connection).filter(|_| bytes > 0);
        if let Some(protection) = of.and_then(|of| of.traced.protection()) {
            counters.came(protection, u64::from(bytes));
        }
    }

    fn send(
        &mut self,
        counters: &Counters,
        connection: ConnectionId,
        request: RequestId,
        message: ServerMessage,
        payload: Option<Outbound>,
    ) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        if let Some(Asked { kind, span }) = connection.asked.remove(&request) {
            let outcome = counters.answered(kind, &message);
            tracing::debug!(parent: &span, outcome, "answered");
        }
        if let (Some(payload), Some(protection)) = (&payload, connection.traced.protection()) {
            counters.went(protection, len_u64(payload.len()));
        }
        let ids = (request, RequestId::NONE);
        match (&connection.writer, message) {
            (Queue::Control(outbox), ServerMessage::Control(message)) => outbox.send(ids, message, payload),
            (Queue::Data(outbox), ServerMessage::Data(message)) => outbox.send(ids, message, payload),
            _ => debug_assert!(false, "the core answers on channels of the request's kind"),
        }
    }
}

/// Calls the core when its time has come, until `stop`.
pub(super) async fn run_timer(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let due = async {
            match shared.next_timeout() {
                Some(at) => shared.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => {}
            () = due => {
                shared.feed_progress();
                shared.tick();
            }
        }
    }
}
