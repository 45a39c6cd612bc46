//! The server's core: all sessions, their channels and requests, and the one open table.
//!
//! `channels` has what begins and ends a channel, `requests` how a request is claimed and answered, `io`, `names` and
//! `locks` what is asked of open files, names and ranges, `durable` what is acknowledged only when it is durable, `grants` what clients give each other, `effects` what file work reports, `notices` what a session is
//! told without being asked; `status` and `release` are for the server's administrator.
//! protocol.md: Sessions, Requests.

mod absence;
mod appends;
mod channels;
mod commits;
mod durable;
mod effects;
mod grants;
mod intents;
mod io;
mod locks;
mod names;
mod notices;
mod output;
mod record;
mod refused;
mod release;
mod requests;
mod setup;
mod status;
mod stopping;
mod throttle;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

pub use output::{
    BindDenial, BindFacts, Binding, ClientMessage, CloseManner, CommitId, Completion, ConnectionId, Effect,
    EffectId, FileTarget, NameReport, NameWork, Offence, ServerKeys, ServerMessage, ServerNote, ServerOutput,
    SessionEnd, SessionFacts,
};

pub use release::ReleaseError;
pub use status::{
    ChannelStatus, ClientLabel, HolderStatus, OpenStatus, ServerLoad, ServerStatus, SessionStatus,
    StatusCounts, StatusFrom, StatusQuery,
};

use self::appends::Appends;
use self::commits::Commits;
use self::durable::Durable;
use self::effects::{Job, Sequel};
use self::intents::Intents;
use self::locks::Fence;
use self::record::{Channel, Session};
use self::stopping::Stopping;
use self::throttle::Throttle;
use crate::model::{
    Access, ChannelKind, EffectiveProtection, Entropy, Epoch, ExportName, HandleId, Limits, Locator, OpenId,
    Policy, Protection, ProtectionMinima, PublicKey, Refusal, RequestId, Rights, SessionId, SuiteSet, Time,
    Verifier,
};
use crate::opens::{OpenTable, TableEvent};
use crate::session::{LossReason, Pulse};
use crate::wire::ServerControl;
use crate::wire::control::{EndReason, Ended};
pub use setup::{ServerSetup, StartError, StoredTable};

/// The server's side. `P` is the shell's payload; it is cloned only for an answer that goes to several channels.
pub struct ServerCore<P> {
    limits: Limits,
    server_keys: ServerKeys,
    /// Those that come, while they do: sessions may begin under them too.
    next_server_keys: Option<ServerKeys>,
    policy: Policy,
    /// When the next entry of the list of clients ends, in seconds since 1970.
    next_end_s: Option<u64>,
    /// What the server's own settings demand of data channels.
    minima: ProtectionMinima,
    /// The suites for data channels.
    suites: SuiteSet,
    entropy: Box<dyn Entropy>,
    /// The wall clock at [`Time`] 0, in microseconds since 1970.
    wall_start_us: u64,
    epoch: Epoch,
    verifier: Verifier,
    table: OpenTable,
    sessions: BTreeMap<SessionId, Session>,
    locators: HashMap<Locator, SessionId>,
    channels: BTreeMap<ConnectionId, Channel>,
    jobs: HashMap<EffectId, Job<P>>,
    sequels: HashMap<HandleId, Vec<Sequel<P>>>,
    /// What waits for pieces of file work, and which pieces those are.
    fences: HashMap<u64, Fence<P>>,
    fenced: HashMap<EffectId, Vec<u64>>,
    next_fence: u64,
    /// Opens whose file is being cut, or whose lock is being waited for, before they are given out.
    preparing: HashSet<OpenId>,
    throttle: Throttle,
    next_effect: u64,
    is_stopping: bool,
    stopping: Stopping,
    durable: Durable,
    /// Failed syncs that a holder has not heard of yet: the kernel tells an error of one descriptor once.
    sync_errors: HashMap<HandleId, Refusal>,
    /// What the step that is going on wants told and done.
    outputs: VecDeque<ServerOutput<P>>,
    /// What the shell is to do.
    ready: VecDeque<ServerOutput<P>>,
    commits: Commits<P>,
    /// What must not run twice.
    intents: Intents,
    /// Appends that wait for others of their files.
    appends: Appends<P>,
    /// Looks at the files of orphans, under way.
    looks: HashMap<EffectId, OpenId>,
    /// Orphans whose files are to be looked at when others were.
    looks_waiting: BTreeSet<OpenId>,
    /// The time of the call that is being handled.
    now: Time,
}

impl<P> core::fmt::Debug for ServerCore<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ServerCore")
            .field("sessions", &self.sessions.len())
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}

impl<P: Clone> ServerCore<P> {
    /// A server without sessions, and with the opens that an earlier one has stored.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(mut setup: ServerSetup) -> Result<Self, StartError> {
        let persists = setup.stored.is_some();
        let intents = setup.stored.as_mut().map(|stored| {
            let left = (core::mem::take(&mut stored.intents), stored.horizon);
            Intents::new(setup.epoch, stored.restart.now, left)
        });
        let intents = intents.unwrap_or_else(|| Intents::new(setup.epoch, Time(0), (Vec::new(), None)));
        let table = match &setup.stored {
            Some(stored) => setup::stored_table(stored, &setup.limits)?,
            None => OpenTable::new(setup.entropy.bytes()?, &setup.limits),
        };
        let ready = setup.stored.iter().flat_map(|stored| &stored.opens).map(setup::adopted).collect();
        let mut core = Self {
            limits: setup.limits,
            // The first call finds the one that is next.
            next_end_s: Some(0),
            server_keys: setup.server_keys,
            next_server_keys: None,
            policy: setup.policy,
            minima: setup.minima,
            suites: setup.suites,
            entropy: setup.entropy,
            wall_start_us: setup.wall_start_us,
            epoch: setup.epoch,
            verifier: setup.verifier,
            table,
            sessions: BTreeMap::new(),
            locators: HashMap::new(),
            channels: BTreeMap::new(),
            jobs: HashMap::new(),
            sequels: HashMap::new(),
            fences: HashMap::new(),
            fenced: HashMap::new(),
            next_fence: 0,
            preparing: HashSet::new(),
            throttle: Throttle::default(),
            next_effect: 0,
            is_stopping: false,
            stopping: Stopping::default(),
            durable: Durable::default(),
            sync_errors: HashMap::new(),
            outputs: VecDeque::new(),
            ready,
            commits: Commits::new(persists),
            intents,
            appends: Appends::default(),
            looks: HashMap::new(),
            looks_waiting: BTreeSet::new(),
            now: Time(0),
        };
        if let Some(stored) = setup.stored {
            // The list of clients may be another one than when the table was stored.
            core.end_forbidden_opens(stored.restart.now);
            core.settle_table();
        }
        Ok(core)
    }

    /// The list of clients has changed. Clients that are not on it any more lose their sessions and opens at once;
    /// the others' rights hold from the next request on, and data channels below what is now demanded of them, by
    /// whomever, are closed: the client binds them again, with a stronger one. Channels that are stronger than they
    /// have to be stay.
    pub fn handle_policy(&mut self, now: Time, policy: Policy) {
        self.policy = policy;
        self.next_end_s = Some(0);
        self.end_forbidden_sessions(now);
        self.end_forbidden_opens(now);
        self.close_weak_channels(now);
        self.settle_table();
    }

    /// The server demands something else of data channels than before. Those that are weaker are closed: their clients bind
    /// them again, with a stronger protection.
    pub fn handle_minima(&mut self, now: Time, minima: ProtectionMinima) {
        self.minima = minima;
        self.close_weak_channels(now);
        self.settle_table();
    }

    /// The server's keys are about to change: from now on sessions may begin under these beside the others. Follow it up
    /// with [`Self::handle_server_keys`].
    pub fn allow_server_keys(&mut self, keys: ServerKeys) {
        self.next_server_keys = Some(keys);
    }

    fn is_server_key(&self, key: &PublicKey) -> bool {
        self.server_keys.contains(key) || self.next_server_keys.is_some_and(|next| next.contains(key))
    }

    /// The server's keys have changed. Sessions that began under one that is no longer valid end at once, with what they
    /// hold: for their clients the server has stopped.
    pub fn handle_server_keys(&mut self, now: Time, keys: ServerKeys) {
        self.server_keys = keys;
        self.next_server_keys = None;
        let retired: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| !keys.contains(&session.server))
            .map(|session| session.id)
            .collect();
        for session in retired {
            self.end_session(session, EndReason::Stopping, SessionEnd::KeyRetired);
        }
        self.table.expire(now);
        self.settle_table();
    }

    /// The wall clock shows `wall_us` (microseconds since 1970) at `now`: somebody may have set it.
    pub fn handle_wall_clock(&mut self, now: Time, wall_us: u64) {
        if wall_us < self.wall_us(now) {
            // What had ended may end once more.
            self.next_end_s = Some(0);
        }
        self.wall_start_us = wall_us.saturating_sub(now.0);
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.end_expired(now);
        self.check_pulses(now);
        self.table.expire(now);
        self.intents.expire(now);
        self.throttle.forget_old(now);
        self.end_forbidden_sessions(now);
        self.settle_table();
        let gone: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| session.away_until.is_some_and(|end| now >= end))
            .filter(|session| self.table.session_holders(session.id) == 0 && session.window.executing() == 0)
            .map(|session| session.id)
            .collect();
        for session in gone {
            self.table.session_ended(session);
            self.drop_session(session, SessionEnd::Expired);
        }
    }

    /// The server is stopping: every session is told, and none begins any more.
    pub fn handle_stop(&mut self, now: Time) {
        self.now = now;
        self.is_stopping = true;
        self.intents.flush(now);
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            if self.commits.persists() {
                // The next server has what it holds, and its client comes back for it.
                self.table.session_closed(session);
                self.table.session_away(now, session);
                self.leave_session(session, EndReason::Stopping, SessionEnd::Closed);
            } else {
                self.end_session(session, EndReason::Stopping, SessionEnd::Closed);
            }
        }
        self.settle_table();
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<ServerOutput<P>> {
        if !self.outputs.is_empty() || self.table.has_changes() || self.intents.has_changes(self.now) {
            self.seal_step();
        }
        while self.stopping.is_due() {
            // Behind what this step has sent, or has wait for the store.
            self.go_on_stopping();
            self.seal_step();
        }
        self.ready.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let pulses =
            self.channels.values().map(|channel| match channel.liveness.pulse(now, false, &self.limits) {
                Pulse::Wait(until) => until,
                Pulse::Ping | Pulse::Dead => now,
            });
        let away = self.sessions.values().filter_map(|session| {
            // While holders remain, the table's own deadlines come first.
            let is_idle = session.window.executing() == 0;
            session.away_until.filter(|_| is_idle && self.table.session_holders(session.id) == 0)
        });
        let expiry = self.sessions.values().filter_map(|session| {
            let end_us = self.policy.clients.get(&session.client)?.expires_s?.saturating_mul(1_000_000);
            Some(Time(end_us.saturating_sub(self.wall_start_us)))
        });
        pulses
            .chain(away)
            .chain(expiry)
            .chain(self.table.next_deadline())
            .chain(self.intents.deadline())
            .min()
    }

    /// Whether [`Self::poll_timeout`] may say an earlier time than before, since this was asked last, without a note that
    /// told it.
    pub fn take_new_deadline(&mut self) -> bool {
        self.intents.take_new_deadline()
    }

    /// The table of opens, to look at.
    #[must_use]
    pub fn table(&self) -> &OpenTable {
        &self.table
    }

    /// How data channels are protected at least, with the list of clients that is in force.
    #[must_use]
    pub fn effective_protection(&self) -> EffectiveProtection {
        self.minima.effective(&self.policy)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// How many channels there are, of all sessions.
    #[must_use]
    pub fn channels_len(&self) -> usize {
        self.channels.len()
    }

    fn wall_us(&self, now: Time) -> u64 {
        self.wall_start_us.saturating_add(now.0)
    }

    /// What the session's client may do now.
    fn access(&self, now: Time, session: &Session) -> Option<&Access> {
        self.policy.access(&session.client, self.wall_us(now) / 1_000_000)
    }

    /// What the session's client may do on an export now.
    fn export_rights(&self, now: Time, session: &Session, export: &ExportName) -> Option<Rights> {
        let access = self.access(now, session)?;
        access.exports.contains(export).then_some(access.rights)
    }

    /// The weakest protection that data channels of the session may have now; `None`: its client may do nothing.
    fn least_protection(&self, now: Time, session: &Session) -> Option<Protection> {
        self.access(now, session).map(|access| self.minima.of(access))
    }

    fn close_weak_channels(&mut self, now: Time) {
        let least = |id: &SessionId| self.least_protection(now, self.sessions.get(id)?);
        let weak: Vec<ConnectionId> = self
            .channels
            .iter()
            .filter(|(_, channel)| least(&channel.session).is_some_and(|least| channel.protection < least))
            .map(|(&connection, _)| connection)
            .collect();
        for connection in weak {
            self.cut(now, connection);
        }
    }

    /// Ends the sessions of clients whose entries have ended by `now`. Called before anything else is done at a time,
    /// because the timer comes late: what is freed then must not be given to somebody who may not have it any more.
    fn end_expired(&mut self, now: Time) {
        self.now = now;
        self.table.end_grants(now);
        self.settle_table();
        let now_s = self.wall_us(now) / 1_000_000;
        if self.next_end_s.is_none_or(|next| now_s < next) {
            return;
        }
        let ends = self.policy.clients.values().filter_map(|access| access.expires_s);
        self.next_end_s = ends.filter(|end| *end > now_s).min();
        self.end_forbidden_sessions(now);
        self.end_forbidden_opens(now);
        self.settle_table();
    }

    fn end_forbidden_sessions(&mut self, now: Time) {
        let forbidden: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| self.access(now, session).is_none())
            .map(|session| session.id)
            .collect();
        for session in forbidden {
            self.end_session(session, EndReason::NotAllowed, SessionEnd::NotAllowed);
        }
    }

    /// Ends what clients hold that are not allowed any more and have no session, from before the server started; and what
    /// they have granted.
    fn end_forbidden_opens(&mut self, now: Time) {
        let now_s = self.wall_us(now) / 1_000_000;
        let policy = &self.policy;
        self.table.end_holders_of(|identity| policy.access(identity, now_s).is_none());
    }

    /// Ends a session and everything it holds, and tells its client on the control channels.
    fn end_session(&mut self, session: SessionId, told: EndReason, noted: SessionEnd) {
        self.table.session_ended(session);
        self.leave_session(session, told, noted);
    }

    /// Forgets a session with its channels, and tells its client on the control channels.
    fn leave_session(&mut self, session: SessionId, told: EndReason, noted: SessionEnd) {
        let manner = match noted {
            // Whoever may have nothing any more gets nothing more, not even what is on its way.
            SessionEnd::NotAllowed | SessionEnd::KeyRetired => CloseManner::AtOnce,
            SessionEnd::Closed | SessionEnd::Expired => CloseManner::InOrder,
        };
        let of_session = self.channels.iter().filter(|(_, channel)| channel.session == session);
        let connections: Vec<_> =
            of_session.map(|(&connection, channel)| (connection, channel.kind)).collect();
        for (connection, kind) in connections {
            if kind == ChannelKind::Control {
                let ended = ServerControl::Ended(Ended { reason: told });
                self.send(connection, RequestId::NONE, ended.into(), None);
            }
            let reason = LossReason::SessionEnded;
            if let Some(Channel { number, .. }) = self.channels.remove(&connection) {
                self.note(ServerNote::ChannelLost { connection, session, number, reason });
            }
            self.close_connection(connection, reason, manner);
        }
        self.drop_session(session, noted);
    }

    /// Forgets a session that has no channels and no holders (or whose holders are being drained).
    fn drop_session(&mut self, session: SessionId, reason: SessionEnd) {
        if let Some(record) = self.sessions.remove(&session) {
            self.locators.remove(&record.locator);
            // Whoever is cut off may come back and ask; whoever has said farewell does not.
            let may_ask = self.is_stopping || reason != SessionEnd::Closed;
            self.intents.on_session_over(self.now, session, may_ask);
            self.note(ServerNote::SessionEnded { session, reason });
        }
    }

    /// Carries out what the table has decided.
    fn settle_table(&mut self) {
        while let Some(event) = self.table.poll_event() {
            match event {
                TableEvent::CloseFile { open } => {
                    self.preparing.remove(&open);
                    self.outputs.push_back(ServerOutput::CloseFile { open });
                }
                TableEvent::Drained { session, handle } => {
                    self.on_drained(handle);
                    self.forget_if_left(session);
                }
                TableEvent::LockEnded { session, handle, request, range, mode, outcome } => {
                    self.on_lock_ended((session, request), (handle, range, mode), outcome);
                }
                TableEvent::HolderEnded { session, handle, reason } => {
                    self.tell_holder_ended(session, handle, reason);
                }
                TableEvent::OpenEnded { session, handle, ending } => {
                    self.tell_holder_ended(session, handle, ending.reason());
                }
                TableEvent::Ended { open, owner, why } => {
                    self.note(ServerNote::OpenEnded { open, owner, why });
                }
                TableEvent::LookAt { open } => self.look_at(open),
                TableEvent::ResumeRefused { session, why, .. } => {
                    self.note(ServerNote::ResumeRefused { session, why });
                }
            }
        }
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        message: ServerMessage,
        payload: Option<(P, u64)>,
    ) {
        let Some(channel) = self.channels.get_mut(&connection) else { return };
        let carried_by = match &message {
            ServerMessage::Control(_) => ChannelKind::Control,
            ServerMessage::Data(_) => ChannelKind::Data,
        };
        // Only a client that used one id on both kinds of channel asks for this.
        if channel.kind != carried_by {
            return;
        }
        let payload = payload.map(|(payload, bytes)| {
            channel.unwritten = channel.unwritten.saturating_add(bytes);
            channel.unwritten_answers = channel.unwritten_answers.saturating_add(1);
            payload
        });
        self.outputs.push_back(ServerOutput::Send { connection, request, message, payload });
    }

    fn note(&mut self, note: ServerNote) {
        self.outputs.push_back(ServerOutput::Note(note));
    }

    fn check_pulses(&mut self, now: Time) {
        let mut due = Vec::new();
        for (&connection, channel) in &mut self.channels {
            match channel.liveness.pulse(now, false, &self.limits) {
                Pulse::Wait(_) => {}
                Pulse::Ping => {
                    channel.liveness.on_pinged(now);
                    due.push((connection, true));
                }
                Pulse::Dead => due.push((connection, false)),
            }
        }
        for (connection, lives) in due {
            if lives {
                self.ping(connection);
            } else {
                self.close(now, connection, LossReason::Silent);
            }
        }
    }
}
