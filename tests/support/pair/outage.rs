//! Servers that start anew, sessions that are forgotten, and how clients come back.

use super::*;

impl Pair {
    /// The server knows nothing more of the client's session, and all of its opens, as after a start that has found them
    /// in its table; every connection breaks.
    pub(crate) fn forget_session(&mut self, who: Who) {
        self.note(format_args!("the session of c{} is forgotten", who.0));
        self.forgotten.insert(self.session(who));
        let lines: Vec<(Who, LineId)> = self.network.lines.keys().copied().collect();
        for (_, line) in lines.into_iter().filter(|(whose, _)| *whose == who) {
            self.cut(who, line, Cut::NOW);
            self.heal(who, line);
        }
    }

    /// As [`Pair::forget_session`], with the server's machine started anew: what was not synced is gone.
    pub(crate) fn reboot_server_machine(&mut self, who: Who) {
        self.lose_machine();
        self.forget_session(who);
    }

    /// The server's machine starts anew: what was not synced is gone.
    pub(super) fn lose_machine(&mut self) {
        let boot = &mut self.life.1.boot.0;
        boot[0] = boot[0].wrapping_add(1);
        self.disk.lose_cache();
    }

    /// The server is told to stop.
    pub(crate) fn tell_server_to_stop(&mut self) {
        self.note(format_args!("the server is told to stop"));
        self.server.handle_drain(self.now);
        self.drain_server();
    }

    /// The server stops: every session is told.
    pub(crate) fn stop_server(&mut self) {
        self.note(format_args!("the server stops"));
        self.server.handle_stop(self.now);
        self.drain_server();
    }

    /// Another data store is there in place of the one before.
    pub(crate) fn replace_store(&mut self) {
        self.life.1.store.0[0] ^= 0xff;
        self.store = Store::default();
    }

    pub(super) fn terms(&self, session: SessionId, started: &Started) -> Terms {
        let told = Terms::new(session, started);
        if self.life == self.server_life {
            return told;
        }
        // A server that has forgotten its sessions without being started anew.
        let (epoch, verifier) = self.life;
        Terms { epoch, verifier, ..told }
    }

    pub(super) fn is_forgotten(&self, session: SessionId) -> bool {
        self.forgotten.contains(&session)
    }

    /// The server's half of a session's handshake and of its first record.
    pub(super) fn start_session(
        &mut self,
        (who, line): (Who, LineId),
        (client, instance): (PublicKey, InstanceId),
        former: Option<SessionId>,
    ) -> Option<Begun> {
        let offer = SessionOffer::OURS;
        let choice = self.server.session_choice(self.now, &client, &offer).unwrap()?;
        let connection = self.network.next_connection();
        let session = choice.session;
        let begun = Connection {
            is_bound: true,
            is_joined: true,
            ..Connection::new(who, session, line, (ChannelNumber(0), ChannelKind::Control))
        };
        self.network.connections.insert(connection, begun);
        let facts = SessionFacts { server: SERVER_KEYS.current, client, offer, choice };
        let begin = Begin { offer, choice, instance, process_id: 7, purpose: Purpose::New { former } };
        self.server.handle_begin(self.now, connection, &facts, RequestId::NONE, &begin).ok();
        let mut started = None;
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send {
                    message: ServerMessage::Control(ServerControl::Welcome(welcome)),
                    ..
                } => {
                    started = Some(welcome.answer);
                }
                other => self.carry_out_server(other),
            }
        }
        match started {
            Some(WelcomeAnswer::Started(started)) => Some(Begun { connection, session, started }),
            _ => None,
        }
    }

    /// As the shell does: the lines are tried side by side, and the first that works is taken.
    pub(super) fn begin_restart(&mut self, who: Who, former: SessionId) {
        self.note(format_args!("c{} starts a session in place of {former}", who.0));
        let lines: Vec<(LineId, LineState)> = self
            .network
            .lines
            .iter()
            .filter(|((whose, _), line)| *whose == who && line.spec.role.carries(ChannelKind::Control))
            .map(|((_, line), known)| (*line, known.state))
            .collect();
        let up = lines.iter().find(|(_, state)| *state == LineState::Up);
        if let Some(&(line, _)) = up {
            let arrives = self.now.after(self.delay(who, line));
            self.plan(arrives, Event::RestartArrives { who, line, former });
            return;
        }
        let line = lines[0].0;
        let is_silent = lines.iter().any(|(_, state)| matches!(state, LineState::Hole | LineState::Stalled));
        let fails = if is_silent { Limits::default().handshake } else { self.delay(who, line) };
        self.plan(self.now.after(fails), Event::Restarted { who, line, begun: None });
    }

    pub(super) fn restart_arrives(&mut self, who: Who, line: LineId, former: SessionId) {
        let client = &self.clients[who.0];
        let begun = self.start_session((who, line), (client.identity, client.instance), Some(former));
        let arrives = self.now.after(self.delay(who, line));
        self.plan(arrives, Event::Restarted { who, line, begun });
    }

    pub(super) fn restarted(&mut self, who: Who, line: LineId, begun: Option<Begun>) {
        let stands = |begun: &Begun| {
            let known = self.network.connections.get(&begun.connection);
            known.is_some_and(|known| !known.client_end.is_closed && !known.is_swallowed)
        };
        let is_up = self.network.lines[&(who, line)].state == LineState::Up;
        let Some(Begun { connection, session, started }) = begun.filter(|begun| is_up && stands(begun))
        else {
            self.note(format_args!("c{} could not start a session", who.0));
            self.clients[who.0].core.handle_restart_failed(self.now, ConnectFailure::Unreachable);
            self.drain_client(who);
            return;
        };
        self.note(format_args!("c{} has session {session}", who.0));
        let terms = self.terms(session, &started);
        if self.clients[who.0].core.handle_restarted(self.now, line, terms) {
            let client = &mut self.clients[who.0];
            (client.session, client.started) = (session, started);
            client.connections = BTreeMap::from([(ChannelNumber(0), connection)]);
        }
        self.drain_client(who);
    }
}
