//! The channels of a session: how they are connected, what runs them, and how a session is started in place of one that
//! the server does not know any more.
//!
//! Whatever is done here takes its time, and the session may have been started anew meanwhile: so each task knows which
//! session it belongs to, and what it reports of another one is left out (`of_session`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::connect::{self, Bound, ControlHalves, Credentials, Halves};
use super::error::Error;
use super::session::{Inner, State, Wire, controls_of};
use crate::model::{ChannelNumber, LineId, SessionId, Time};
use crate::net::{Backlog, Clock, Meter, Outbox, Queue, Received, outbox, run_channel};
use crate::session::LossReason;
use crate::session::client::{ClientOutput, ConnectFailure, FromServer};
use crate::wire::{ClientControl, ClientData, Message, ServerControl, ServerData};

impl Inner {
    /// Connects what the core asks for, with the credentials of the session that asked.
    pub(super) fn connect(self: &Arc<Self>, output: ClientOutput<Bytes>, credentials: Credentials) {
        let inner = Arc::clone(self);
        match output {
            ClientOutput::Connect { number, line, kind, protection } => self.spawn(async move {
                let Some(line) = inner.lines.get(usize::from(line.0)) else { return };
                let (session, wanted) = (credentials.session, (number, kind, protection));
                match connect::bind(&inner.party, &credentials, &line.config, wanted).await {
                    Ok(Bound::Control(halves, protection)) => {
                        inner.run(session, number, halves, Queue::Control);
                        inner.of_session(session, |state, now| {
                            state.core.handle_bound(now, number, protection);
                        });
                    }
                    Ok(Bound::Data(halves, protection)) => {
                        inner.run(session, number, halves, Queue::Data);
                        inner.of_session(session, |state, now| {
                            state.core.handle_bound(now, number, protection);
                        });
                    }
                    Err(failure) => inner.of_session(session, |state, now| {
                        state.core.handle_connect_failed(now, number, failure);
                    }),
                }
            }),
            ClientOutput::Ask { line } => self.spawn(async move {
                let Some(line) = inner.lines.get(usize::from(line.0)) else { return };
                let session = credentials.session;
                let lives = connect::ask(&inner.party, &line.config, session).await;
                inner.of_session(session, |state, now| {
                    // Who does not answer as the server cannot say what became of the session.
                    state.trouble = lives.as_ref().err().and_then(Error::lasting);
                    state.core.handle_asked(now, lives.ok());
                });
            }),
            ClientOutput::Restart { former } => self.spawn(async move {
                let controls = controls_of(&inner.lines);
                match connect::start(&inner.party, &inner.peer, controls, Some(former)).await {
                    Ok((line, credentials, halves)) => inner.restarted(line, credentials, halves).await,
                    Err(error) => inner.restart_failed(&error),
                }
            }),
            _ => {}
        }
    }

    /// Puts a bound channel of a session to work.
    pub(super) fn run<O, I>(
        self: &Arc<Self>,
        session: SessionId,
        number: ChannelNumber,
        halves: Halves<O, I>,
        queue: impl FnOnce(Outbox<O>) -> Queue<ClientControl, ClientData>,
    ) where
        O: Message + Send + Sync + 'static,
        I: FromServerStream + Send + 'static,
    {
        let (outbox, backlog) = outbox();
        let meter = Meter::clone(&halves.meter);
        let is_wanted = {
            let mut state = self.lock();
            let is_wanted = state.credentials.session == session;
            if is_wanted {
                state.channels.insert(number, Wire { queue: queue(outbox), meter });
            }
            is_wanted
        };
        if is_wanted {
            self.spawn_channel((session, number), halves, backlog);
        }
    }

    /// A session has begun in place of the former one.
    async fn restarted(self: &Arc<Self>, line: LineId, credentials: Credentials, halves: ControlHalves) {
        let Some(terms) = credentials.terms() else {
            connect::leave(&self.party, halves).await;
            self.restart_failed(&Error::Protocol);
            return;
        };
        let (session, number) = (credentials.session, ChannelNumber(0));
        let (outbox, backlog) = outbox();
        let meter = Meter::clone(&halves.meter);
        let is_taken = self.drive(|state, now| {
            let is_taken = state.core.handle_restarted(now, line, terms);
            if is_taken {
                tracing::info!(former = %state.credentials.session, %session, "the session was started anew");
                (state.credentials, state.trouble) = (credentials, None);
                // What the core has to say on it is carried out after this.
                state.channels.clear();
                state.channels.insert(number, Wire { queue: Queue::Control(outbox), meter });
            }
            is_taken
        });
        if is_taken {
            self.spawn_channel((session, number), halves, backlog);
        } else {
            connect::leave(&self.party, halves).await;
        }
    }

    fn restart_failed(self: &Arc<Self>, error: &Error) {
        tracing::debug!(%error, "the session could not be started anew");
        let failure = match error {
            Error::Unreachable { .. } | Error::HandshakeTimedOut { .. } => ConnectFailure::Unreachable,
            _ => ConnectFailure::Refused,
        };
        self.drive(|state, now| {
            state.trouble = error.lasting();
            state.core.handle_restart_failed(now, failure);
        });
    }

    fn spawn_channel<O, I>(
        self: &Arc<Self>,
        (session, number): (SessionId, ChannelNumber),
        halves: Halves<O, I>,
        backlog: Backlog<O>,
    ) where
        O: Message + Send + Sync + 'static,
        I: FromServerStream + Send + 'static,
    {
        let Halves { writer, reader, .. } = halves;
        let inner = Arc::clone(self);
        // Not stopped by the token: its last record is a farewell, and its queue ends it.
        let task = async move {
            let on_record = |received: Received<I>| {
                let input = received.into_input(FromServerStream::into_core, BytesMut::freeze);
                inner.of_session(session, |state, now| state.core.handle_input(now, number, input));
            };
            let reason = run_channel(reader, writer, backlog, on_record, |_| (), |_| ()).await;
            inner.channel_ended(session, number, reason);
        };
        self.channel_tasks.spawn_on(task, &self.runtime);
    }

    fn channel_ended(self: &Arc<Self>, session: SessionId, number: ChannelNumber, reason: LossReason) {
        self.of_session(session, |state, now| {
            state.channels.remove(&number);
            state.core.handle_lost(now, number, reason);
        });
    }

    /// Makes a change that concerns this session, unless another one has taken its place.
    fn of_session(self: &Arc<Self>, session: SessionId, change: impl FnOnce(&mut State, Time)) {
        self.drive(|state, now| {
            if state.credentials.session == session {
                change(state, now);
            }
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
                .map(|(&number, wire)| (number, wire.meter.load(Ordering::Relaxed)))
                .collect();
            for (number, bytes) in progress {
                state.core.handle_progress(now, number, bytes);
            }
            state.core.handle_timeout(now);
        });
    }
}

/// Wakes the core when it is time.
pub(super) async fn run_timer(inner: Arc<Inner>) {
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
pub(super) trait FromServerStream: Message {
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
