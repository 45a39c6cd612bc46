//! How processes end and begin anew: the server's, with what its store and its disk have by then, and a client's.

use super::*;

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Its process alone.
    Process,
    /// Its machine: what was not synced is gone.
    Machine,
    /// Its machine, with a table that is not believed after that.
    MachineWithTable,
}

impl Pair {
    /// The server ends at whatever it is doing, and the next one starts at once. What the seed says of the commits that
    /// were under way is in the store, in their order; and of the writes that were executing, in the files.
    /// Tells how many commits were kept, and of how many.
    pub(crate) fn crash_server(&mut self, how: Crash, random: &mut Seed) -> (usize, usize) {
        self.note(format_args!("{how:?} crash"));
        for effect in self.disk.changing() {
            if random.chance(50) {
                self.disk.finish(effect, self.life.0);
            }
        }
        let pending = self.store.pending();
        let kept = usize::try_from(random.below(len_u64(pending) + 1)).unwrap();
        if how == Crash::MachineWithTable {
            self.replace_store();
        }
        self.restart(how == Crash::Process, kept);
        (kept, pending)
    }

    /// A client's process ends. The server hears of it at once, or only by its silence; what is on its way still arrives.
    pub(crate) fn kill_client(&mut self, who: Who, is_silent: bool) {
        self.note(format_args!("c{} ends", who.0));
        self.clients[who.0].is_dead = true;
        for (connection, known) in &mut self.network.connections {
            if known.client == who && !known.client_end.is_closed {
                known.client_end.is_closed = true;
                if !is_silent {
                    // Behind everything that was sent.
                    let (connection, at) = (*connection, known.server_end.last.max(self.now));
                    self.next_event += 1;
                    let fin = Event::Arrives { connection, at: End::Server, record: Record::Fin };
                    self.events.insert((at, self.next_event), fin);
                }
            }
        }
    }

    /// Every client that there ever was.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = Who> + use<> {
        (0..self.clients.len()).map(Who)
    }

    /// A random id.
    pub(crate) fn create_id(&mut self, who: Who) -> CreateId {
        CreateId(self.clients[who.0].entropy.bytes().unwrap())
    }

    /// Whether a client's process has ended.
    pub(crate) fn is_dead(&self, who: Who) -> bool {
        self.clients[who.0].is_dead
    }

    pub(super) fn restart(&mut self, is_same_boot: bool, kept: usize) {
        self.note(format_args!("the server starts anew"));
        for connection in self.network.connections.keys().copied().collect::<Vec<_>>() {
            if let Some(known) = self.network.connections.get_mut(&connection) {
                known.is_swallowed = true;
                known.server_end.is_closed = true;
            }
            if self.hears(connection) {
                self.plan(self.now, Event::Lost { connection, at: End::Client });
            }
        }
        self.life.0.0 += 1;
        for event in self.events.values_mut() {
            // Who was about to be heard hears that nobody is there.
            *event = match event {
                Event::AskArrives { who, .. } => Event::Asked { who: *who, lives: None },
                Event::RestartArrives { who, line, .. } => {
                    Event::Restarted { who: *who, line: *line, begun: None }
                }
                _ => continue,
            };
        }
        self.events.retain(|_, event| {
            !matches!(
                event,
                Event::Done { .. } | Event::Committed { .. } | Event::Lost { at: End::Server, .. }
            )
        });
        self.disk.forget_process();
        self.store.keep_of_pending(kept);
        if !is_same_boot {
            self.lose_machine();
        }
        let disk = &self.disk;
        let stored = self.store.load(self.now, is_same_boot, |change| disk.evidence(change));
        let seed = self.seed ^ self.now.0;
        self.server_life = self.life;
        self.server = new_server(seed, ProtectionMinima::default(), policy(), self.life, stored);
        self.drain_server();
    }

    /// Whether the client's end of a connection hears that the other one is gone: not where nothing gets through.
    fn hears(&self, connection: ConnectionId) -> bool {
        let known = &self.network.connections[&connection];
        let state = self.network.lines[&(known.client, known.line)].state;
        !matches!(state, LineState::Hole | LineState::Stalled)
    }
}
