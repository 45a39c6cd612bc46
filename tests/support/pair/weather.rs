//! What happens on the way: binds, deliveries, and everything that can go wrong with a line.

use std::collections::btree_map::Entry;

use super::*;

/// How a line is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// When the client hears of it.
    pub(crate) client_after: Duration,
    /// When the server hears of it.
    pub(crate) server_after: Duration,
    /// Whether what is on its way is lost; else it still arrives, as long as that end has not heard.
    pub(crate) loses_flight: bool,
}

impl Cut {
    /// Both ends hear at once, and what was on its way is lost.
    pub(crate) const NOW: Self =
        Self { client_after: Duration::ZERO, server_after: Duration::ZERO, loses_flight: true };
}

impl Pair {
    /// Breaks every connection of a line; it takes no new one until it is healed.
    pub(crate) fn cut(&mut self, who: Who, line: LineId, cut: Cut) {
        self.note(format_args!("c{} line {line} is cut", who.0));
        self.set(who, line, LineState::Down);
        for connection in self.network.on_line(who, line) {
            if let Some(record) = self.network.connections.get_mut(&connection) {
                record.is_swallowed |= cut.loses_flight;
            }
            let (client_at, server_at) = (self.now.after(cut.client_after), self.now.after(cut.server_after));
            self.plan(client_at, Event::Lost { connection, at: End::Client });
            self.plan(server_at, Event::Lost { connection, at: End::Server });
        }
    }

    /// From now on what is sent on the line vanishes, and nobody hears of it.
    pub(crate) fn black_hole(&mut self, who: Who, line: LineId) {
        self.note(format_args!("c{} line {line} is a black hole", who.0));
        self.set(who, line, LineState::Hole);
        for connection in self.network.on_line(who, line) {
            if let Some(record) = self.network.connections.get_mut(&connection) {
                record.is_swallowed = true;
            }
        }
    }

    /// From now on what is sent on the line stays on its way until the line is healed.
    pub(crate) fn stall(&mut self, who: Who, line: LineId) {
        self.note(format_args!("c{} line {line} stalls", who.0));
        self.set(who, line, LineState::Stalled);
        for connection in self.network.on_line(who, line) {
            self.hold(connection, End::Client);
            self.hold(connection, End::Server);
        }
    }

    /// From now on what the client sends on the line's connections stays on its way until [`Pair::heal`].
    pub(crate) fn stall_towards_server(&mut self, who: Who, line: LineId) {
        self.note(format_args!("c{} line {line} stalls towards the server", who.0));
        for connection in self.network.on_line(who, line) {
            self.hold(connection, End::Server);
        }
    }

    /// From now on what the server sends on the line's connections stays on its way until [`Pair::heal`].
    pub(crate) fn stall_towards_client(&mut self, who: Who, line: LineId) {
        self.note(format_args!("c{} line {line} stalls towards the client", who.0));
        for connection in self.network.on_line(who, line) {
            self.hold(connection, End::Client);
        }
    }

    /// The line works again, for new connections and for those that stalled.
    pub(crate) fn heal(&mut self, who: Who, line: LineId) {
        self.note(format_args!("c{} line {line} is healed", who.0));
        self.set(who, line, LineState::Up);
        for connection in self.network.on_line(who, line) {
            for at in [End::Client, End::Server] {
                let record = self.network.connections.get_mut(&connection);
                let held = record.and_then(|record| record.end(at).held.take()).unwrap_or_default();
                for record in held {
                    self.plan(self.now, Event::Arrives { connection, at, record });
                }
            }
        }
    }

    /// Attempts to bind on the line fail like this from now on, or work again.
    pub(crate) fn fail_binds(&mut self, who: Who, line: LineId, failure: Option<ConnectFailure>) {
        if let Some(line) = self.network.lines.get_mut(&(who, line)) {
            line.failing = failure;
        }
    }

    /// How many records a line's connections hold on their way to the server.
    pub(crate) fn held_towards_server(&self, who: Who, line: LineId) -> usize {
        let on_line = self.network.on_line(who, line);
        on_line
            .iter()
            .filter_map(|connection| self.network.connections[connection].server_end.held.as_ref())
            .map(VecDeque::len)
            .sum()
    }

    /// How many records a line's connections hold on their way to the client.
    pub(crate) fn held_towards_client(&self, who: Who, line: LineId) -> usize {
        let on_line = self.network.on_line(who, line);
        on_line
            .iter()
            .filter_map(|connection| self.network.connections[connection].client_end.held.as_ref())
            .map(VecDeque::len)
            .sum()
    }

    pub(super) fn connect(
        &mut self,
        who: Who,
        number: ChannelNumber,
        line: LineId,
        (kind, protection): (ChannelKind, Protection),
    ) {
        let connection = self.network.next_connection();
        self.note(format_args!("c{} binds {kind} channel {number} on line {line} as {connection:?}", who.0));
        let (state, failing) = {
            let line = &self.network.lines[&(who, line)];
            (line.state, line.failing)
        };
        self.clients[who.0].connections.insert(number, connection);
        let begun = Connection {
            protection,
            is_swallowed: state == LineState::Hole,
            ..Connection::new(who, self.session(who), line, (number, kind))
        };
        self.network.connections.insert(connection, begun);
        if state == LineState::Stalled {
            self.hold(connection, End::Client);
            self.hold(connection, End::Server);
        }
        let failing = failing.or_else(|| (state == LineState::Down).then_some(ConnectFailure::Unreachable));
        let (after, failure) = match failing {
            Some(failure) => (self.delay(who, line) * 2, failure),
            None => (Limits::default().handshake, ConnectFailure::Unreachable),
        };
        self.plan(self.now.after(after), Event::AttemptOver { connection, failure });
        if failing.is_none() {
            self.carry(connection, End::Server, Record::Hello);
        }
    }

    /// Sends something on its way. It arrives behind what was sent before it.
    pub(super) fn carry(&mut self, connection: ConnectionId, at: End, record: Record) {
        let Some((who, line)) =
            self.network.connections.get(&connection).map(|connection| (connection.client, connection.line))
        else {
            return;
        };
        let arrives = self.now.after(self.delay(who, line));
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        let direction = known.end(at);
        direction.last = direction.last.max(arrives);
        let arrives = direction.last;
        self.plan(arrives, Event::Arrives { connection, at, record });
    }

    pub(super) fn arrive(&mut self, connection: ConnectionId, at: End, record: Record) {
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        let is_swallowed = known.is_swallowed;
        let direction = known.end(at);
        if let Some(held) = &mut direction.held {
            held.push_back(record);
        } else if !is_swallowed && !direction.is_closed {
            match at {
                End::Server => self.arrive_at_server(connection, record),
                End::Client => self.arrive_at_client(connection, record),
            }
        }
        self.forget_if_over(connection);
    }

    pub(super) fn fail_attempt(&mut self, connection: ConnectionId, failure: ConnectFailure) {
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        if known.is_bound || known.client_end.is_closed {
            return;
        }
        known.client_end.is_closed = true;
        let (who, number, session) = (known.client, known.number, known.session);
        self.carry(connection, End::Server, Record::Fin);
        self.note(format_args!("c{} bind of {number} failed: {failure:?}", who.0));
        if session != self.session(who) {
            return;
        }
        self.clients[who.0].connections.remove(&number);
        self.clients[who.0].core.handle_connect_failed(self.now, number, failure);
        self.drain_client(who);
        self.forget_if_over(connection);
    }

    /// An end hears that its connection is broken.
    pub(super) fn lose(&mut self, connection: ConnectionId, at: End) {
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        if !known.end(at).is_closed {
            match at {
                End::Client => self.end_at_client(connection, ConnectFailure::Unreachable),
                End::Server => {
                    known.server_end.is_closed = true;
                    self.note(format_args!("the server hears that {connection:?} broke"));
                    self.server.handle_lost(self.now, connection, LossReason::Broken);
                    self.drain_server();
                }
            }
        }
        self.forget_if_over(connection);
    }

    pub(super) fn begin_ask(&mut self, who: Who, line: LineId) {
        self.note(format_args!("c{} asks on line {line}", who.0));
        let arrives = self.now.after(self.delay(who, line));
        let unheard = self.now.after(Limits::default().handshake);
        match self.network.lines[&(who, line)].state {
            LineState::Up => self.plan(arrives, Event::AskArrives { who, line }),
            LineState::Down => self.plan(arrives, Event::Asked { who, lives: None }),
            LineState::Hole | LineState::Stalled => self.plan(unheard, Event::Asked { who, lives: None }),
        }
    }

    pub(super) fn ask(&mut self, who: Who, line: LineId) {
        let client = &self.clients[who.0];
        let (identity, instance, session) = (client.identity, client.instance, client.session);
        let offer = SessionOffer::OURS;
        if self.is_forgotten(session) {
            self.plan(self.now, Event::Asked { who, lives: Some(false) });
            return;
        }
        let Some(choice) = self.server.session_choice(self.now, &identity, &offer).unwrap() else {
            self.plan(self.now, Event::Asked { who, lives: None });
            return;
        };
        let connection = self.network.next_connection();
        self.asks.insert(connection, (who, line));
        let facts = SessionFacts { server: SERVER_KEYS.current, client: identity, offer, choice };
        let begin = Begin { offer, choice, instance, process_id: 7, purpose: Purpose::Ask(session) };
        self.server.handle_begin(self.now, connection, &facts, RequestId::NONE, &begin).ok();
        self.drain_server();
    }

    /// How long the next record takes on a line.
    pub(super) fn delay(&mut self, who: Who, line: LineId) -> Duration {
        let spec = self.network.lines[&(who, line)].spec;
        Duration::from_micros(spec.delay_us + self.delays.below(spec.jitter_us + 1))
    }

    fn arrive_at_server(&mut self, connection: ConnectionId, record: Record) {
        match record {
            Record::Hello => self.answer_hello(connection),
            Record::Attach => {
                let Some(known) = self.network.connections.get_mut(&connection) else { return };
                let Some(binding) = known.binding else { return };
                known.is_joined = true;
                let attach = Attach { offer: binding.offer, choice: binding.choice };
                self.server.handle_attach(self.now, connection, &binding, RequestId::NONE, &attach).ok();
                self.drain_server();
            }
            Record::FromClient(input) => {
                self.note(format_args!(
                    "{connection:?} brings {:?} of {:?}",
                    brief(&input.message),
                    input.request
                ));
                self.note_copy(connection, input.request);
                self.server.handle_input(self.now, connection, input);
                self.drain_server();
            }
            Record::Fin => self.lose(connection, End::Server),
            Record::Choice | Record::Attached | Record::FromServer(_) => {}
        }
    }

    fn arrive_at_client(&mut self, connection: ConnectionId, record: Record) {
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        let (who, number) = (known.client, known.number);
        if known.session != self.clients[who.0].session {
            return;
        }
        match record {
            Record::Choice => self.carry(connection, End::Server, Record::Attach),
            Record::Attached => {
                known.is_bound = true;
                let Some(protection) = known.binding.map(|binding| binding.choice.protection) else { return };
                // As the handshake does at both ends.
                assert!(protection >= known.protection, "a weaker protection than was asked for");
                self.clients[who.0].core.handle_bound(self.now, number, protection);
                self.drain_client(who);
            }
            Record::FromServer(input) => {
                if input.payload_len > 0 {
                    self.server.handle_written(connection, u64::from(input.payload_len));
                    self.drain_server();
                }
                self.note(format_args!(
                    "c{} channel {number} brings {:?}, {}",
                    who.0,
                    input.request,
                    told(&input.message)
                ));
                self.clients[who.0].core.handle_input(self.now, number, input);
                self.drain_client(who);
            }
            Record::Fin => self.end_at_client(connection, ConnectFailure::Refused),
            Record::Hello | Record::Attach | Record::FromClient(_) => {}
        }
    }

    /// Counts a request that has arrived before.
    fn note_copy(&mut self, connection: ConnectionId, request: RequestId) {
        let Some(known) = self.network.connections.get(&connection) else { return };
        match self.arrived.entry((known.session, request)) {
            Entry::Vacant(place) => drop(place.insert(false)),
            Entry::Occupied(place) if *place.get() => self.copies.1 += 1,
            Entry::Occupied(_) => self.copies.0 += 1,
        }
    }

    /// The server's half of a bind's handshake.
    fn answer_hello(&mut self, connection: ConnectionId) {
        let known = &self.network.connections[&connection];
        let (who, number, kind, protection) = (known.client, known.number, known.kind, known.protection);
        let is_known = known.session == self.session(who) && !self.is_forgotten(known.session);
        let client = &mut self.clients[who.0];
        let offer = BindOffer {
            locator: client.started.locator,
            number,
            nonce: bowline::model::AttemptNonce(client.entropy.bytes().unwrap()),
            kind,
            protection,
            suite: Suite::ChaCha20Poly1305,
        };
        let (identity, secret) = (client.identity, client.started.secret.clone());
        let binding = match self.server.bind_facts(&offer.locator).filter(|_| is_known) {
            None => None,
            Some(facts) if facts.client != identity || facts.secret != secret => {
                self.server.handle_bind_failed(BindDenial::Handshake);
                None
            }
            Some(facts) => self
                .server
                .bind_choice(self.now, facts.session, &offer)
                .ok()
                .map(|choice| Binding { session: facts.session, offer, choice }),
        };
        self.drain_server();
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        known.binding = binding;
        let answer = if binding.is_some() {
            Record::Choice
        } else {
            known.server_end.is_closed = true;
            Record::Fin
        };
        self.carry(connection, End::Client, answer);
    }

    fn end_at_client(&mut self, connection: ConnectionId, failure: ConnectFailure) {
        let Some(known) = self.network.connections.get_mut(&connection) else { return };
        if !known.is_bound {
            self.fail_attempt(connection, failure);
            return;
        }
        known.client_end.is_closed = true;
        let (who, number, session) = (known.client, known.number, known.session);
        self.note(format_args!("c{} hears that channel {number} is gone", who.0));
        if session != self.session(who) {
            return;
        }
        self.clients[who.0].connections.remove(&number);
        self.clients[who.0].core.handle_lost(self.now, number, LossReason::Broken);
        self.drain_client(who);
    }

    fn set(&mut self, who: Who, line: LineId, state: LineState) {
        if let Some(line) = self.network.lines.get_mut(&(who, line)) {
            line.state = state;
        }
    }

    fn hold(&mut self, connection: ConnectionId, at: End) {
        if let Some(known) = self.network.connections.get_mut(&connection) {
            known.end(at).held.get_or_insert_default();
        }
    }

    fn forget_if_over(&mut self, connection: ConnectionId) {
        if self.network.connections.get(&connection).is_some_and(Connection::is_over) {
            self.network.connections.remove(&connection);
        }
    }
}

fn brief(message: &Result<ClientMessage, bowline::session::UnknownKind>) -> String {
    match message {
        Ok(ClientMessage::Control(message)) => format!("{message:?}"),
        Ok(ClientMessage::Data(message)) => format!("{message:?}"),
        Err(unknown) => format!("{unknown:?}"),
    }
}

fn told(message: &Result<FromServer, bowline::session::UnknownKind>) -> String {
    match message {
        Ok(FromServer::Control(message)) => format!("{message:?}"),
        Ok(FromServer::Data(message)) => format!("{message:?}"),
        Err(unknown) => format!("{unknown:?}"),
    }
}
