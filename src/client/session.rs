//! A session of a client: the core behind its lock, its channels, and what callers wait for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::calls::Ledger;
use super::connect::{self, Bound, Credentials, Halves, Party};
use super::error::Error;
use super::grants::Offers;
use super::peers::{LineConfig, Peer};
use super::{ChannelStatus, Client, SessionEvent};
use crate::model::{
    ChannelKind, ChannelNumber, Limits, LineId, LineRole, LineSet, Protection, RequestId, SessionId, Time,
};
use crate::net::{Clock, Meter, Outbound, Outbox, Queue, Received, outbox, run_channel};
use crate::session::LossReason;
use crate::session::client::{
    Answer, ClientCore, ClientOutput, ClientSetup, FromServer, LineSetup, Operation, RequestError, Ticket,
    ToServer, give_back,
};
use crate::wire::control::Started;
use crate::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};

/// Events that a slow listener may be behind before it misses some.
const EVENTS_KEPT: usize = 256;
/// The least that a server may call its longest payload and its credit, in bytes. With less, one call with a large buffer would be cut
/// into so many requests that it kept this process busy beyond its deadline.
const PAYLOAD_LEN_LEAST: u32 = 64 << 10;
/// How long a closing session waits for its farewells to leave.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// A session with a server. Clones share it; it ends when the last clone and the last of its files are gone.
///
/// Channels come and go by themselves: a lost one is bound again, and what was under way on it is repeated
/// elsewhere under the same ids.
#[derive(Debug, Clone)]
pub struct Session {
    guard: Arc<Guard>,
}

/// A line and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineStatus {
    /// Its index, for [`OpenOptions::lines`](super::OpenOptions::lines).
    pub id: LineId,
    /// What the peer's entry says of it.
    pub config: LineConfig,
    /// The protection that its data channels ask for, by the peer's minimum and the line's own. What the server chose,
    /// which may be stronger, stands in [`Session::channels`].
    pub offered: Protection,
}

/// Ends the session when nobody uses it any more.
#[derive(Debug)]
pub(super) struct Guard {
    inner: Arc<Inner>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.inner.close();
    }
}

pub(super) type Outcome = Result<Answer<Bytes>, RequestError>;

pub(super) struct Inner {
    state: Mutex<State>,
    pub(super) party: Party,
    credentials: Credentials,
    lines: Vec<LineStatus>,
    pub(super) request_timeout: Duration,
    limits: Limits,
    events: broadcast::Sender<SessionEvent>,
    pub(super) offers: Offers,
    /// Deadlines may have come nearer.
    wake: Notify,
    stop: CancellationToken,
    channel_tasks: TaskTracker,
    pub(super) runtime: Handle,
}

struct State {
    core: ClientCore<Bytes>,
    /// When the timer will look again.
    armed: Option<Time>,
    channels: HashMap<ChannelNumber, Wire>,
    waiters: HashMap<Ticket, Waiter>,
}

/// Whom the outcome of a request concerns.
struct Waiter {
    /// Who waits for it; `None`: nobody any more.
    sender: Option<oneshot::Sender<Outcome>>,
    watch: Option<Watch>,
}

/// A write that a handle keeps book of.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) ledger: Arc<Ledger>,
    pub(super) number: u64,
    pub(super) len: u32,
    /// Whether a caller who does not wait for it was told that it will be done.
    pub(super) is_accepted: bool,
}

impl Watch {
    /// The write was never sent, and is not sent any more. `is_told`: whoever should know has heard of it.
    pub(super) fn undone(self, is_told: bool) {
        if self.is_accepted && !is_told {
            self.ledger.keep(Error::EarlierWrite);
        }
        self.ledger.leave(self.number);
    }
}

struct Wire {
    queue: Queue<ClientControl, ClientData>,
    meter: Meter,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.credentials.session).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) async fn start(client: &Client, peer: &Peer) -> Result<Self, Error> {
        let party = Party {
            identity: Arc::clone(&client.identity),
            instance: client.instance,
            server: peer.key,
            clock: client.clock,
            limit: client.limits.handshake,
            buffers: client.buffers.clone(),
            rekey: (&client.limits).into(),
            suites: client.suites,
        };
        let lines = lines_of(peer);
        let carries_control = |line: &&LineStatus| line.config.role.carries(ChannelKind::Control);
        let controls =
            lines.iter().filter(carries_control).map(|line| (line.id, line.config.clone())).collect();
        let (first_line, credentials, halves) = connect::start(&party, &peer.name, controls).await?;
        let own_max = u32::try_from(Limits::PAYLOAD_LEN_MAX).unwrap_or(u32::MAX);
        let Started { payload_max, bytes, .. } = credentials.started;
        if payload_max < PAYLOAD_LEN_LEAST || bytes < u64::from(PAYLOAD_LEN_LEAST) {
            return Err(Error::Protocol);
        }
        let payload_max = payload_max.min(own_max);
        let core = ClientCore::new(
            client.clock.now(),
            ClientSetup {
                limits: Limits { chunk: client.limits.chunk.min(payload_max), ..client.limits.clone() },
                lines: lines
                    .iter()
                    .map(|line| LineSetup { role: line.config.role, protection: line.offered })
                    .collect(),
                first_line,
                requests: credentials.started.requests,
                bytes: credentials.started.bytes,
            },
        );
        let inner = Arc::new(Inner {
            limits: core.limits().clone(),
            state: Mutex::new(State { core, armed: None, channels: HashMap::new(), waiters: HashMap::new() }),
            party,
            credentials,
            lines,
            request_timeout: client.request_timeout,
            events: broadcast::channel(EVENTS_KEPT).0,
            offers: Offers::default(),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            channel_tasks: TaskTracker::new(),
            runtime: Handle::current(),
        });
        inner.run(ChannelNumber(0), halves, Queue::Control);
        inner.runtime.spawn(run_timer(Arc::clone(&inner)));
        inner.drive(|_, _| ());
        Ok(Self { guard: Arc::new(Guard { inner }) })
    }

    /// The session's id, as both sides' logs show it.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.guard.inner.credentials.session
    }

    /// The lines, in the order of the peer's entry.
    #[must_use]
    pub fn lines(&self) -> Vec<LineStatus> {
        self.guard.inner.lines.clone()
    }

    /// The lines of one role.
    #[must_use]
    pub fn lines_of(&self, role: LineRole) -> LineSet {
        self.lines().into_iter().filter(|line| line.config.role == role).map(|line| line.id).collect()
    }

    /// Every channel with its statistics, also those that are gone, oldest first.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelStatus> {
        self.guard.inner.lock().core.channels()
    }

    /// What happens to the session from now on. A listener that is more than 256 events behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.guard.inner.events.subscribe()
    }

    /// Waits until every line has the data channel that its role allows.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after `limit`, [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn all_lines_up(&self, limit: Duration) -> Result<(), Error> {
        let inner = &self.guard.inner;
        let mut events = inner.events.subscribe();
        let waiting = async {
            while !inner.lock().core.is_complete() {
                if let Some(loss) = inner.lock().core.loss() {
                    return Err(Error::SessionEnded(loss));
                }
                // A listener that is behind only looks once more.
                drop(events.recv().await);
            }
            Ok(())
        };
        inner.party.clock.timeout(limit, waiting).await.unwrap_or(Err(Error::TimedOut(limit)))
    }

    /// Ends the session on purpose. Files that are still open stay open on the server for their grace, and their
    /// resume keys stay good for it; use [`File::close`](super::File::close) first to close them.
    ///
    /// # Cancel safety
    /// The session is over from the first poll on.
    pub async fn close(self) {
        let inner = &self.guard.inner;
        inner.close();
        inner.channel_tasks.close();
        // Farewells leave before the caller goes on, and perhaps ends the process. A peer that takes none is left.
        let _left = inner.party.clock.timeout(FAREWELL_LIMIT, inner.channel_tasks.wait()).await;
    }

    pub(super) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }
}

/// The lines to a peer, with what their data channels ask for. Says where that is less than is usual.
fn lines_of(peer: &Peer) -> Vec<LineStatus> {
    let lines: Vec<LineStatus> = (0..=u8::MAX)
        .map(LineId)
        .zip(&peer.lines)
        .map(|(id, config)| LineStatus { id, config: config.clone(), offered: peer.offered(config) })
        .collect();
    for line in lines.iter().filter(|line| line.offered == Protection::Clear) {
        tracing::warn!(
            peer = %peer.name,
            address = %line.config.address,
            "clear data channels are asked for: file bytes can be changed on the way unnoticed"
        );
    }
    lines
}

impl Guard {
    /// Bounds in force, the server's credit included.
    pub(super) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Begins a request whose outcome nobody wants to know.
    pub(super) fn begin_unwatched(&self, message: impl Into<ClientControl>) {
        self.inner.begin_unwatched(message.into());
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The tasks that carry the session's channels, for who must wait for their last words.
    pub(super) fn channel_tasks(&self) -> TaskTracker {
        self.inner.channel_tasks.clone()
    }
}

impl Inner {
    /// Queues a request; its outcome comes through the receiver.
    pub(super) fn request(
        self: &Arc<Self>,
        operation: Operation<Bytes>,
        lines: LineSet,
        watch: Option<Watch>,
    ) -> (Ticket, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.drive(|state, now| {
            let ticket = state.core.handle_request(now, operation, lines);
            state.waiters.insert(ticket, Waiter { sender: Some(sender), watch });
            ticket
        });
        (ticket, receiver)
    }

    pub(super) fn begin_unwatched(self: &Arc<Self>, message: ClientControl) {
        self.drive(|state, now| {
            state.core.handle_request(now, Operation::Control(message), LineSet::ALL);
        });
    }

    /// Nobody waits for a request any more. A write that was sent stays in its handle's book. `is_told`: its caller
    /// has heard that it has no outcome.
    pub(super) fn withdraw(self: &Arc<Self>, ticket: Ticket, is_told: bool) {
        self.drive(|state, now| {
            let is_undone = state.core.handle_withdrawn(now, ticket);
            let Some(mut waiter) = state.waiters.remove(&ticket) else { return };
            match waiter.watch.take() {
                Some(watch) if is_undone => watch.undone(is_told),
                Some(watch) => {
                    state.waiters.insert(ticket, Waiter { sender: None, watch: Some(watch) });
                }
                None => {}
            }
        });
    }

    fn close(&self) {
        // Only what is needed to say farewell: tasks that are under way end by the token.
        let mut state = self.lock();
        state.core.handle_close(self.party.clock.now());
        self.drain_closing(&mut state);
        drop(state);
        self.stop.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one change and carries out what follows. Everything here is quick and never waits.
    fn drive<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Time) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state, self.party.clock.now());
        let mut connects = Vec::new();
        while let Some(output) = state.core.poll_output() {
            match output {
                ClientOutput::Connect { .. } | ClientOutput::Ask { .. } => connects.push(output),
                other => self.carry_out(&mut state, other),
            }
        }
        let next = state.core.poll_timeout(self.party.clock.now());
        let is_nearer = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        drop(state);
        for output in connects {
            self.connect(output);
        }
        if is_nearer {
            self.wake.notify_one();
        }
        value
    }

    /// Carries out what ends a session; nothing is connected any more.
    fn drain_closing(&self, state: &mut State) {
        while let Some(output) = state.core.poll_output() {
            self.carry_out(state, output);
        }
    }

    fn carry_out(&self, state: &mut State, output: ClientOutput<Bytes>) {
        match output {
            ClientOutput::Send { number, request, settled, message, payload, .. } => {
                state.send(number, (request, settled), message, payload);
            }
            ClientOutput::Disconnect { number } => {
                if let Some(wire) = state.channels.remove(&number) {
                    wire.queue.close();
                }
            }
            ClientOutput::Complete { ticket, outcome } => {
                // The core has given back what was withdrawn.
                if let Some(waiter) = state.waiters.remove(&ticket) {
                    state.settle(self.party.clock.now(), waiter, outcome);
                }
            }
            ClientOutput::Event(event) => {
                tracing::debug!(session = %self.credentials.session, ?event, "session event");
                self.offers.note(&event);
                // Nobody has to listen.
                drop(self.events.send(event));
            }
            ClientOutput::Connect { .. } | ClientOutput::Ask { .. } => {}
        }
    }

    fn connect(self: &Arc<Self>, output: ClientOutput<Bytes>) {
        let inner = Arc::clone(self);
        match output {
            ClientOutput::Connect { number, line, kind, protection } => {
                self.spawn(async move {
                    let Some(line) = inner.lines.get(usize::from(line.0)) else { return };
                    let wanted = (number, kind, protection);
                    match connect::bind(&inner.party, &inner.credentials, &line.config, wanted).await {
                        Ok(Bound::Control(halves, protection)) => {
                            inner.run(number, halves, Queue::Control);
                            inner.drive(|state, now| state.core.handle_bound(now, number, protection));
                        }
                        Ok(Bound::Data(halves, protection)) => {
                            inner.run(number, halves, Queue::Data);
                            inner.drive(|state, now| state.core.handle_bound(now, number, protection));
                        }
                        Err(failure) => {
                            inner.drive(|state, now| state.core.handle_connect_failed(now, number, failure));
                        }
                    }
                });
            }
            ClientOutput::Ask { line } => {
                self.spawn(async move {
                    let Some(line) = inner.lines.get(usize::from(line.0)) else { return };
                    let lives = connect::ask(&inner.party, &line.config, inner.credentials.session).await;
                    inner.drive(|state, now| state.core.handle_asked(now, lives));
                });
            }
            _ => {}
        }
    }

    /// Puts a bound channel to work.
    fn run<O, I>(
        self: &Arc<Self>,
        number: ChannelNumber,
        halves: Halves<O, I>,
        queue: impl FnOnce(Outbox<O>) -> Queue<ClientControl, ClientData>,
    ) where
        O: Message + Send + Sync + 'static,
        I: FromServerStream + Send + 'static,
    {
        let (outbox, backlog) = outbox();
        let Halves { writer, reader, meter } = halves;
        self.lock().channels.insert(number, Wire { queue: queue(outbox), meter });
        let inner = Arc::clone(self);
        // Not stopped by the token: its last record is a farewell, and its queue ends it.
        let task = async move {
            let on_record = |received: Received<I>| {
                let input = received.into_input(FromServerStream::into_core, BytesMut::freeze);
                inner.drive(|state, now| state.core.handle_input(now, number, input));
            };
            let reason = run_channel(reader, writer, backlog, on_record, |_| (), |_| ()).await;
            inner.channel_ended(number, reason);
        };
        self.channel_tasks.spawn_on(task, &self.runtime);
    }

    fn channel_ended(self: &Arc<Self>, number: ChannelNumber, reason: LossReason) {
        self.drive(|state, now| {
            state.channels.remove(&number);
            state.core.handle_lost(now, number, reason);
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn tick(self: &Arc<Self>) {
        self.drive(|state, now| {
            let progress: Vec<(ChannelNumber, u64)> = state
                .channels
                .iter()
                .map(|(&number, wire)| (number, wire.meter.load(std::sync::atomic::Ordering::Relaxed)))
                .collect();
            for (number, bytes) in progress {
                state.core.handle_progress(now, number, bytes);
            }
            state.core.handle_timeout(now);
        });
    }
}

impl State {
    /// Hands an outcome to whom it concerns.
    fn settle(&mut self, now: Time, waiter: Waiter, outcome: Outcome) {
        let (unheard, is_given_up) = match waiter.sender {
            // Whoever waited may have gone this moment, before the core could hear of it.
            Some(sender) => (sender.send(outcome).err(), true),
            None => (Some(outcome), false),
        };
        if let Some(Watch { ledger, number, len, .. }) = waiter.watch {
            if let Some(outcome) = &unheard {
                ledger.lose(outcome, len);
            }
            ledger.leave(number);
        }
        if let Some(message) = unheard.as_ref().filter(|_| is_given_up).and_then(give_back) {
            self.core.handle_request(now, Operation::Control(message), LineSet::ALL);
        }
    }

    fn send(
        &mut self,
        number: ChannelNumber,
        ids: (RequestId, RequestId),
        message: ToServer,
        payload: Option<Bytes>,
    ) {
        let Some(wire) = self.channels.get(&number) else { return };
        let payload = payload.map(Outbound::Shared);
        match (&wire.queue, message) {
            (Queue::Control(outbox), ToServer::Control(message)) => outbox.send(ids, message, payload),
            (Queue::Data(outbox), ToServer::Data(message)) => outbox.send(ids, message, payload),
            _ => debug_assert!(false, "the core sends on channels of the request's kind"),
        }
    }
}

async fn run_timer(inner: Arc<Inner>) {
    let clock: Clock = inner.party.clock;
    loop {
        let next = {
            let mut state = inner.lock();
            state.armed = state.core.poll_timeout(clock.now());
            state.armed
        };
        let due = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.wake.notified() => {}
            () = due => inner.tick(),
        }
    }
}

/// A message of a stream as the core takes it.
trait FromServerStream: Message {
    fn into_core(self) -> FromServer;
}

impl FromServerStream for ServerControl {
    fn into_core(self) -> FromServer {
        FromServer::Control(self)
    }
}

impl FromServerStream for ServerData {
    fn into_core(self) -> FromServer {
        FromServer::Data(self)
    }
}
