//! How channels of the server begin and end: the first record of a session, binds, losses. A failed bind touches
//! nothing but its own connection. protocol.md: Sessions, Binding.

use super::output::{
    BindDenial, BindFacts, Binding, CloseManner, ConnectionId, ServerNote, SessionEnd, SessionFacts,
};
use super::record::{Channel, Session};
use super::{ServerCore, ServerMessage};
use crate::model::planted::{self, Bug};
use crate::model::{
    ChannelKind, ChannelNumber, Entropy as _, EntropyError, InstanceId, Limits, Locator, Protection,
    PublicKey, RequestId, SessionId, Suite, Time,
};
use crate::session::liveness::Liveness;
use crate::session::{LossReason, server::ServerOutput};
use crate::wire::control::{Attach, Attached, Begin, BindSecret, Purpose, Started, Welcome, WelcomeAnswer};
use crate::wire::hello::{BindChoice, BindOffer, PROTOCOL_VERSION, SessionChoice, SessionOffer};
use crate::wire::{ServerControl, ServerData};

impl<P: Clone> ServerCore<P> {
    /// Whether a client may begin a session, and with what choice: asked between the two messages of the handshake.
    /// Changes nothing, because message 1 may be a replay. A version that is not in the client's offer is what this server
    /// speaks: the client is told it, and that is all.
    ///
    /// # Errors
    /// [`EntropyError`] when there is no random session id to be had.
    pub fn session_choice(
        &mut self,
        now: Time,
        client: &PublicKey,
        offer: &SessionOffer,
    ) -> Result<Option<SessionChoice>, EntropyError> {
        let is_allowed = self.policy.access(client, self.wall_us(now) / 1_000_000).is_some();
        if !is_allowed {
            return Ok(None);
        }
        // What nothing comes of needs no name.
        let session = match offer.has(PROTOCOL_VERSION) {
            true => SessionId(self.entropy.bytes()?),
            false => SessionId([0; 16]),
        };
        Ok(Some(SessionChoice { version: PROTOCOL_VERSION, session }))
    }

    /// The first record after a session handshake has verified. The connection becomes channel 0 of a new session,
    /// or gets its answer and ends.
    ///
    /// # Errors
    /// [`BindDenial`] when it is refused: the connection is to end, and hears nothing.
    pub fn handle_begin(
        &mut self,
        now: Time,
        connection: ConnectionId,
        facts: &SessionFacts,
        request: RequestId,
        begin: &Begin,
    ) -> Result<(), BindDenial> {
        if begin.offer != facts.offer || begin.choice != facts.choice {
            return Err(self.refuse_bind(connection, BindDenial::Mismatch));
        }
        let answer = match begin.purpose {
            Purpose::New { former } => {
                let whose = (&facts.client, begin.instance);
                let of_earlier_life = former.filter(|former| !self.sessions.contains_key(former));
                let former = former.filter(|former| self.end_channels_of(now, *former, whose));
                let started = self.start_session(now, facts, begin);
                let started = started.map_err(|denial| self.refuse_bind(connection, denial))?;
                if let Some(former) = former {
                    self.table.session_follows(facts.choice.session, former);
                }
                if let Some(former) = of_earlier_life {
                    self.table.session_follows_over(facts.choice.session, former, &facts.client);
                }
                WelcomeAnswer::Started(started)
            }
            Purpose::Ask(session) => match self.sessions.get(&session) {
                Some(known) if known.client == facts.client && known.instance == begin.instance => {
                    WelcomeAnswer::Lives
                }
                _ => WelcomeAnswer::Gone,
            },
        };
        let stays = matches!(answer, WelcomeAnswer::Started(_));
        let welcome = Welcome { offer: facts.offer, choice: facts.choice, answer };
        let message = ServerMessage::Control(ServerControl::Welcome(welcome));
        if stays {
            let kind = (ChannelKind::Control, Protection::Sealed);
            self.join(now, connection, facts.choice.session, ChannelNumber(0), kind);
            self.send(connection, request, message, None);
            // Behind the answer, which the client waits for first.
            self.tell_offers(facts.choice.session, &facts.client);
        } else {
            self.outputs.push_back(ServerOutput::Send { connection, request, message, payload: None });
            self.close_connection(connection, LossReason::Closed, CloseManner::InOrder);
        }
        Ok(())
    }

    /// What the handshake of a bind needs to know; `None`: no session has this locator, and the shell answers as
    /// to any other failure.
    #[must_use]
    pub fn bind_facts(&self, locator: &Locator) -> Option<BindFacts> {
        let session = self.sessions.get(self.locators.get(locator)?)?;
        Some(BindFacts {
            session: session.id,
            server: session.server,
            client: session.client,
            secret: session.secret.clone(),
        })
    }

    /// Whether a bind may go on, and with what choice: asked once message 1 has verified, so only the session's own
    /// client gets here.
    ///
    /// # Errors
    /// [`BindDenial`], for the log: the client hears nothing.
    pub fn bind_choice(
        &mut self,
        now: Time,
        session: SessionId,
        offer: &BindOffer,
    ) -> Result<BindChoice, BindDenial> {
        self.judge_bind(now, session, offer).inspect_err(|&why| self.note(ServerNote::BindRefused { why }))
    }

    /// A bind failed before it reached the core; only for the log.
    pub fn handle_bind_failed(&mut self, why: BindDenial) {
        self.note(ServerNote::BindRefused { why });
    }

    /// The first record after a bind handshake has verified: the bind is in force.
    ///
    /// # Errors
    /// [`BindDenial`] when it is refused: the connection is to end, and hears nothing.
    pub fn handle_attach(
        &mut self,
        now: Time,
        connection: ConnectionId,
        binding: &Binding,
        request: RequestId,
        attach: &Attach,
    ) -> Result<(), BindDenial> {
        if attach.offer != binding.offer || attach.choice != binding.choice {
            return Err(self.refuse_bind(connection, BindDenial::Mismatch));
        }
        self.put_in_force(now, binding).map_err(|denial| self.refuse_bind(connection, denial))?;
        let kind = (binding.offer.kind, binding.choice.protection);
        self.join(now, connection, binding.session, binding.offer.number, kind);
        let attached = Attached { offer: binding.offer, choice: binding.choice };
        let message = match binding.offer.kind {
            ChannelKind::Control => ServerMessage::Control(attached.into()),
            ChannelKind::Data => ServerMessage::Data(ServerData::from(attached)),
        };
        self.send(connection, request, message, None);
        // Behind the answer, which the client waits for first.
        self.send_notices(binding.session);
        if self.stopping.is_begun() {
            self.tell_stopping(binding.session);
        }
        Ok(())
    }

    /// The connection is gone, or is to be closed by the shell, which has found a record that does not verify.
    pub fn handle_lost(&mut self, now: Time, connection: ConnectionId, reason: LossReason) {
        self.end_expired(now);
        self.leave(now, connection, reason);
        self.settle_table();
    }

    /// The transport of a connection has delivered `bytes` bytes since it began.
    pub fn handle_progress(&mut self, now: Time, connection: ConnectionId, bytes: u64) {
        if let Some(channel) = self.channels.get_mut(&connection) {
            channel.liveness.on_progress(now, bytes);
        }
    }

    /// The writer has put an answer with a payload of `bytes` bytes on the wire; its buffer is free.
    pub fn handle_written(&mut self, connection: ConnectionId, bytes: u64) {
        if let Some(channel) = self.channels.get_mut(&connection) {
            channel.unwritten = channel.unwritten.saturating_sub(bytes);
            channel.unwritten_answers = channel.unwritten_answers.saturating_sub(1);
        }
    }

    /// Closes a connection from our side.
    pub(super) fn close(&mut self, now: Time, connection: ConnectionId, reason: LossReason) {
        self.leave(now, connection, reason);
        self.close_connection(connection, reason, CloseManner::InOrder);
    }

    /// Closes a connection that may carry nothing more, not even what is on its way.
    pub(super) fn cut(&mut self, now: Time, connection: ConnectionId) {
        self.leave(now, connection, LossReason::Closed);
        self.close_connection(connection, LossReason::Closed, CloseManner::AtOnce);
    }

    pub(super) fn close_connection(
        &mut self,
        connection: ConnectionId,
        reason: LossReason,
        manner: CloseManner,
    ) {
        self.outputs.push_back(ServerOutput::Close { connection, reason, manner });
    }

    fn refuse_bind(&mut self, connection: ConnectionId, why: BindDenial) -> BindDenial {
        self.note(ServerNote::BindRefused { why });
        self.close_connection(connection, LossReason::Offence, CloseManner::InOrder);
        why
    }

    fn judge_bind(
        &mut self,
        now: Time,
        session: SessionId,
        offer: &BindOffer,
    ) -> Result<BindChoice, BindDenial> {
        let session = self.sessions.get(&session).ok_or(BindDenial::UnknownLocator)?;
        let least = self.least_protection(now, session).ok_or(BindDenial::NotAllowed)?;
        if !session.is_free(offer.number) {
            return Err(BindDenial::NumberUsed);
        }
        if session.channels.len() >= self.limits.channels_per_session {
            return Err(BindDenial::TooMany);
        }
        let protection = match offer.kind {
            ChannelKind::Control => Protection::Sealed,
            ChannelKind::Data => offer.protection.max(least),
        };
        let has_suite = match offer.kind {
            ChannelKind::Control => offer.suite == Suite::ChaCha20Poly1305,
            ChannelKind::Data => self.suites.contains(offer.suite),
        };
        if !has_suite {
            return Err(BindDenial::NoSuite);
        }
        let id = session.id;
        let session = self.sessions.get_mut(&id).ok_or(BindDenial::UnknownLocator)?;
        if !session.take_nonce(offer.nonce) {
            return Err(BindDenial::NonceUsed);
        }
        Ok(BindChoice { protection, suite: offer.suite })
    }

    /// Checks once more what can have changed since the handshake, and uses the channel's number up.
    fn put_in_force(&mut self, now: Time, binding: &Binding) -> Result<(), BindDenial> {
        let session = self.sessions.get(&binding.session).ok_or(BindDenial::UnknownLocator)?;
        let least = self.least_protection(now, session).ok_or(BindDenial::NotAllowed)?;
        if binding.choice.protection < least {
            return Err(BindDenial::NotAllowed);
        }
        if session.channels.len() >= self.limits.channels_per_session {
            return Err(BindDenial::TooMany);
        }
        let session = self.sessions.get_mut(&binding.session).ok_or(BindDenial::UnknownLocator)?;
        if session.take_number(binding.offer.number) { Ok(()) } else { Err(BindDenial::NumberUsed) }
    }

    fn start_session(
        &mut self,
        now: Time,
        facts: &SessionFacts,
        begin: &Begin,
    ) -> Result<Started, BindDenial> {
        // The list of clients may have changed since the handshake.
        let is_allowed = self.policy.access(&facts.client, self.wall_us(now) / 1_000_000).is_some();
        if !is_allowed {
            return Err(BindDenial::NotAllowed);
        }
        // And so may the server's keys.
        if !self.is_server_key(&facts.server) {
            return Err(BindDenial::KeyRetired);
        }
        let own = self.sessions.values().filter(|session| session.client == facts.client).count();
        if self.is_stopping
            || self.stopping.is_begun()
            || own >= self.limits.sessions_per_client
            || self.sessions.contains_key(&facts.choice.session)
        {
            return Err(BindDenial::TooMany);
        }
        let exhausted = |_| BindDenial::TooMany;
        let locator = Locator(self.entropy.bytes().map_err(exhausted)?);
        let secret = BindSecret(self.entropy.bytes().map_err(exhausted)?);
        let id = facts.choice.session;
        let process = (begin.instance, begin.process_id);
        let mut session =
            Session::new(id, (facts.server, facts.client), process, (locator, secret.clone()), &self.limits);
        session.take_number(ChannelNumber(0));
        self.sessions.insert(id, session);
        self.locators.insert(locator, id);
        self.note(ServerNote::SessionStarted { session: id, client: facts.client });
        if self.server_keys.previous == Some(facts.server) {
            self.note(ServerNote::StartedUnderPreviousKey { session: id, client: facts.client });
        }
        Ok(Started {
            locator,
            secret,
            requests: self.limits.requests,
            bytes: self.limits.bytes,
            payload_max: u32::try_from(Limits::PAYLOAD_LEN_MAX).unwrap_or(u32::MAX),
            suites: self.suites,
            epoch: if planted::is(Bug::EpochNotRaised) { crate::model::Epoch(1) } else { self.epoch },
            verifier: self.verifier,
        })
    }

    /// The client has given up a session of its own: its channels are dead by the client's word, whatever still seems to
    /// live of them. So its holders are away at once, and what it has sent and is still on its way comes to nothing. Says
    /// whether it was its own.
    fn end_channels_of(
        &mut self,
        now: Time,
        former: SessionId,
        (client, instance): (&PublicKey, InstanceId),
    ) -> bool {
        let its = |session: &&Session| session.client == *client && session.instance == instance;
        let Some(session) = self.sessions.get(&former).filter(its) else { return false };
        let connections: Vec<ConnectionId> = session.channels.values().copied().collect();
        for connection in connections {
            self.cut(now, connection);
        }
        self.settle_table();
        true
    }

    fn join(
        &mut self,
        now: Time,
        connection: ConnectionId,
        id: SessionId,
        number: ChannelNumber,
        (kind, protection): (ChannelKind, Protection),
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let shadowed = session.channels.insert(number, connection);
        session.away_until = None;
        session.has_left = false;
        session.heard = now;
        self.table.session_back(id);
        let liveness = Liveness::new(now);
        self.channels.insert(
            connection,
            Channel {
                session: id,
                number,
                kind,
                protection,
                liveness,
                pings: 0,
                unwritten: 0,
                unwritten_answers: 0,
            },
        );
        self.note(ServerNote::ChannelBound { connection, session: id, number, kind, protection });
        // Numbers are used once, so there is none; a channel that nothing leads to would outlive its session.
        if let Some(shadowed) = shadowed {
            self.cut(now, shadowed);
        }
    }

    fn leave(&mut self, now: Time, connection: ConnectionId, reason: LossReason) {
        let Some(channel) = self.channels.remove(&connection) else { return };
        let Channel { session, number, .. } = channel;
        self.note(ServerNote::ChannelLost { connection, session, number, reason });
        let Some(session) = self.sessions.get_mut(&channel.session) else { return };
        if session.channels.get(&channel.number) == Some(&connection) {
            session.channels.remove(&channel.number);
        }
        session.window.forget_channel(connection);
        self.stopping.on_taken(channel.session, connection);
        let (id, kept) = (session.id, self.limits.grace_default);
        if !session.channels.is_empty() {
            self.send_notices(id);
            return;
        }
        session.away_until = Some(now.after(kept));
        session.heard_before_away = Some(session.heard);
        session.has_left = reason == LossReason::Farewell;
        if session.has_left {
            self.table.session_closed(id);
        }
        self.table.session_away(now, id);
        self.forget_if_left(id);
        if self.sessions.contains_key(&id) {
            self.note(ServerNote::SessionAway { session: id, kept });
        }
    }

    /// Forgets a session that was closed on purpose, once it holds nothing and nothing of it is executing: what still
    /// executes has memory, which must count as somebody's.
    pub(super) fn forget_if_left(&mut self, id: SessionId) {
        let is_over = self.sessions.get(&id).is_some_and(|session| {
            session.has_left && session.channels.is_empty() && session.window.executing() == 0
        });
        if is_over && self.table.session_holders(id) == 0 {
            self.table.session_ended(id);
            self.drop_session(id, SessionEnd::Closed);
        }
    }
}
