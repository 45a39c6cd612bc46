//! A session of a client: the core behind its lock, its channels, and what callers wait for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::calls::Ledger;
use super::channels::run_timer;
use super::connect::{self, Credentials, Party};
use super::error::Error;
use super::grants::Offers;
use super::peers::{LineConfig, Peer};
use super::ring::{Keepers, KeyRing};
use super::{ChannelStatus, Client, SessionEvent};
use crate::model::{
    ChannelKind, ChannelNumber, Epoch, Limits, LineId, LineRole, LineSet, Protection, PublicKey, RequestId,
    SessionId, StoreId, Time, Verifier,
};
use crate::net::{Meter, Outbound, Queue};
use crate::session::client::{
    Answer, ClientCore, ClientOutput, ClientSetup, LineSetup, Operation, RequestError, Ticket, ToServer,
    give_back,
};
use crate::wire::{ClientControl, ClientData};

/// Events that a slow listener may be behind before it misses some.
const EVENTS_KEPT: usize = 256;
/// How long a closing session waits for its farewells to leave.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// A session with a server. Clones share it; it ends when the last clone and the last of its files are gone.
///
/// Channels come and go by themselves: a lost one is bound again, and what was under way on it is repeated
/// elsewhere under the same ids. If all are lost, calls wait, each for its time, until a channel is there again.
///
/// A session that the server does not know any more, because it was started anew or waited too long, comes back: another
/// one is started in its place, and every [`File`](super::File) that has a resume key is resumed in it and goes on. What
/// was asked and can run twice is asked again; of the rest that was sent, such as an append or a rename, nobody knows
/// what became: it ends with [`Reason::Unknown`](crate::model::Reason::Unknown). [`Session::events`] tells.
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
    /// Where the keys of resumable opens are kept. Not in `inner`, which tasks that are just ending still have: others
    /// may take the ring over as soon as nobody uses the session any more.
    ring: Option<Arc<KeyRing>>,
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
    /// The server's name.
    pub(super) peer: String,
    pub(super) lines: Vec<LineStatus>,
    pub(super) request_timeout: Duration,
    limits: Limits,
    events: broadcast::Sender<SessionEvent>,
    pub(super) offers: Offers,
    /// The entries of handles in the client's key ring.
    pub(super) keepers: Keepers,
    /// Deadlines may have come nearer.
    pub(super) wake: Notify,
    pub(super) stop: CancellationToken,
    pub(super) channel_tasks: TaskTracker,
    pub(super) runtime: Handle,
}

pub(super) struct State {
    pub(super) core: ClientCore<Bytes>,
    /// Of the present session. What is reported of another one is out of date.
    pub(super) credentials: Credentials,
    /// Why the session, or another one in its place, cannot be had back, where that lasts until something is changed.
    pub(super) trouble: Option<Error>,
    /// When the timer will look again.
    pub(super) armed: Option<Time>,
    pub(super) channels: HashMap<ChannelNumber, Wire>,
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

/// A channel's connection, as far as it takes records and counts bytes.
pub(super) struct Wire {
    pub(super) queue: Queue<ClientControl, ClientData>,
    pub(super) meter: Meter,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Session");
        if let Ok(state) = self.state.try_lock() {
            shown.field("id", &state.credentials.session);
        }
        shown.finish_non_exhaustive()
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
            epochs: Arc::clone(&client.epochs),
        };
        let lines = lines_of(peer);
        let (first_line, credentials, halves) =
            connect::start(&party, &peer.name, controls_of(&lines), None).await?;
        let terms = credentials.terms().ok_or(Error::Protocol)?;
        let core = ClientCore::new(
            client.clock.now(),
            ClientSetup {
                limits: client.limits.clone(),
                lines: lines
                    .iter()
                    .map(|line| LineSetup { role: line.config.role, protection: line.offered })
                    .collect(),
                first_line,
                terms,
            },
        );
        let limits = core.limits().clone();
        let session = credentials.session;
        let (channels, waiters) = (HashMap::new(), HashMap::new());
        let state = State { core, credentials, trouble: None, armed: None, channels, waiters };
        let inner = Arc::new(Inner {
            limits,
            state: Mutex::new(state),
            party,
            peer: peer.name.clone(),
            lines,
            request_timeout: client.request_timeout,
            events: broadcast::channel(EVENTS_KEPT).0,
            offers: Offers::default(),
            keepers: Keepers::default(),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            channel_tasks: TaskTracker::new(),
            runtime: Handle::current(),
        });
        inner.run(session, ChannelNumber(0), halves, Queue::Control);
        inner.runtime.spawn(run_timer(Arc::clone(&inner)));
        inner.drive(|_, _| ());
        Ok(Self { guard: Arc::new(Guard { inner, ring: client.ring.clone() }) })
    }

    /// The session's id, as both sides' logs show it; another one when it had to be started anew.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.guard.inner.lock().credentials.session
    }

    /// The server's life on its data store: it rises with each server process, and never falls.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.guard.inner.lock().core.terms().epoch
    }

    /// While this stays as it was, bytes that the server has acknowledged and that were not synced can still be in its
    /// memory. A session that was made anew can have another one.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.guard.inner.lock().core.terms().verifier
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

    /// Why the session cannot come back, where that is known and lasts until somebody changes something: the server does
    /// not take this client any more, is another one, or was replaced on its data store. It is tried again all the same,
    /// and calls wait for it, each for its time.
    #[must_use]
    pub fn trouble(&self) -> Option<Error> {
        self.guard.inner.trouble()
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

/// The lines that may carry control channels.
pub(super) fn controls_of(lines: &[LineStatus]) -> Vec<(LineId, LineConfig)> {
    let carries_control = |line: &&LineStatus| line.config.role.carries(ChannelKind::Control);
    lines.iter().filter(carries_control).map(|line| (line.id, line.config.clone())).collect()
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

    /// Where the keys of resumable opens are kept.
    pub(super) fn ring(&self) -> Option<&Arc<KeyRing>> {
        self.ring.as_ref()
    }

    /// Whose session it is.
    pub(super) fn server(&self) -> PublicKey {
        self.inner.party.server
    }

    /// The server's store, as it was when the session began.
    pub(super) fn store(&self) -> StoreId {
        self.inner.lock().core.terms().verifier.store
    }

    /// Whether the session is over, so that nothing reaches the server any more.
    pub(super) fn is_over(&self) -> bool {
        self.inner.lock().core.loss().is_some()
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

    /// Why the session cannot come back, if it cannot and that is known. One that is reached need not come back.
    pub(super) fn trouble(&self) -> Option<Error> {
        let state = self.lock();
        state.trouble.as_ref().filter(|_| state.channels.is_empty()).and_then(Error::lasting)
    }

    fn close(&self) {
        // Only what is needed to say farewell: tasks that are under way end by the token.
        let mut state = self.lock();
        state.core.handle_close(self.party.clock.now());
        self.drain_closing(&mut state);
        drop(state);
        self.stop.cancel();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one change and carries out what follows. Everything here is quick and never waits.
    pub(super) fn drive<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Time) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state, self.party.clock.now());
        let (mut connects, mut renewed) = (Vec::new(), Vec::new());
        while let Some(output) = state.core.poll_output() {
            match output {
                ClientOutput::Connect { .. } | ClientOutput::Ask { .. } | ClientOutput::Restart { .. } => {
                    connects.push((output, state.credentials.clone()));
                }
                other => {
                    if let ClientOutput::Event(SessionEvent::Resumed { handle, .. }) = &other {
                        renewed.push(state.core.local(*handle));
                    }
                    self.carry_out(&mut state, other);
                }
            }
        }
        let next = state.core.poll_timeout(self.party.clock.now());
        let is_nearer = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        drop(state);
        for (output, credentials) in connects {
            self.connect(output, credentials);
        }
        renewed.into_iter().for_each(|name| self.keepers.renew(self, name));
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
                tracing::debug!(session = %state.credentials.session, ?event, "session event");
                self.offers.note(&event);
                // Nobody has to listen.
                drop(self.events.send(event));
            }
            ClientOutput::Connect { .. } | ClientOutput::Ask { .. } | ClientOutput::Restart { .. } => {}
        }
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
