//! The gate before the handshake: carries out what [`Admission`] decides, and tells the log of refusals.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::{Limits, Time};
use crate::net::{Clock, SystemEntropy, with_sources};
use crate::session::admission::{Admission, AdmissionCounts, HalfOpenId, Network, Said, Verdict, Why};

/// What the connections of a server that have proven nothing share.
pub(super) struct Gate {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    admission: Admission,
    /// How the task of each half-open connection is told that it goes.
    ends: HashMap<HalfOpenId, CancellationToken>,
}

/// A half-open connection's place. Dropping it gives the place back, however the connection's task ends.
pub(super) struct HalfOpen {
    gate: Arc<Gate>,
    id: HalfOpenId,
    source: IpAddr,
    end: CancellationToken,
}

/// How often the log is told how many refusals it was not told of.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);

impl Gate {
    pub(super) fn new(clock: Clock, limits: &Limits) -> Self {
        let ends = HashMap::with_capacity(Limits::HALF_OPEN_MAX);
        Self { clock, state: Mutex::new(State { admission: Admission::new(limits), ends }) }
    }

    /// A place for a new connection; `None`: it is to be closed, unread, and the log has been told as much as it is to
    /// hear. Whoever goes in its place is told here.
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr) -> Option<HalfOpen> {
        let now = self.clock.now();
        let mut state = self.lock();
        let why = match state.admission.handle_accepted(now, source, &mut SystemEntropy) {
            Ok(Verdict::Admitted { id, instead_of }) => {
                if let Some(end) = instead_of.and_then(|other| state.ends.remove(&other)) {
                    end.cancel();
                }
                let end = CancellationToken::new();
                state.ends.insert(id, end.clone());
                return Some(HalfOpen { gate: Arc::clone(self), id, source, end });
            }
            Ok(Verdict::TurnedAway(Why::NoToken)) => "its network has failed too often just before",
            Ok(Verdict::TurnedAway(Why::Drawn)) => "too many are in their handshake",
            Err(_) => "there are no random bytes",
        };
        let said = state.admission.handle_refused(now, source);
        drop(state);
        warn(said, source, why);
        None
    }

    /// Whether a hello from `source` that asks for the server's key is to be answered.
    pub(super) fn may_enrol(&self, source: IpAddr) -> bool {
        self.change(|state, now| state.admission.may_enrol(now, source))
    }

    pub(super) fn half_open(&self) -> usize {
        self.lock().admission.half_open()
    }

    pub(super) fn counts(&self) -> AdmissionCounts {
        self.lock().admission.counts()
    }

    pub(super) fn tokens(&self, source: IpAddr) -> u32 {
        self.lock().admission.tokens(self.clock.now(), source)
    }

    /// Tells the log of the refusals that it was not told of, now and then, until `stop`.
    pub(super) async fn sum_up(self: Arc<Self>, stop: CancellationToken) {
        let mut is_over = false;
        while !is_over {
            tokio::select! {
                () = stop.cancelled() => is_over = true,
                () = self.clock.sleep(SUMMARY_EVERY) => {}
            }
            let untold = self.lock().admission.take_untold();
            if untold > 0 {
                tracing::info!(untold, "more connections were refused than are named here");
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, Time) -> T) -> T {
        change(&mut self.lock(), self.clock.now())
    }

    /// Nothing that is done under the lock panics half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HalfOpen {
    /// Waits until another connection has got this one's place.
    pub(super) async fn is_drawn(&self) {
        self.end.cancelled().await;
    }

    /// Where the connection comes from.
    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// The connection was shown the server's key. Its token is spent: whoever asks has proven nothing.
    pub(super) fn shown(self) {
        tracing::info!(peer = %self.source, "the server's key was shown");
    }

    /// The connection's first record is a listed client's.
    pub(super) fn proven(self) {
        self.gate.change(|state, now| {
            state.admission.handle_proven(now, self.id);
        });
    }

    /// The connection is refused, for `why`, which is put into words for the log alone.
    pub(super) fn refused(self, why: &dyn std::error::Error) {
        let said = self.gate.change(|state, now| state.admission.handle_refused(now, self.source));
        // Most refusals of a flood are only counted.
        if said != Said::Later || tracing::enabled!(tracing::Level::DEBUG) {
            tell(said, self.source, &with_sources(why));
        }
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.gate.change(|state, _| {
            state.admission.handle_ended(self.id);
            state.ends.remove(&self.id);
        });
    }
}

/// Whoever wants to hear of each one asks for `debug`.
fn tell(said: Said, source: IpAddr, why: &dyn std::fmt::Display) {
    let network = Network::of(source);
    match said {
        Said::Now { untold: 0 } => tracing::info!(peer = %source, %why, "connection refused"),
        Said::Now { untold } => {
            tracing::info!(peer = %source, %why, %network, untold, "connection refused, as others of its network were");
        }
        Said::Later => tracing::debug!(peer = %source, %why, "connection refused"),
    }
}

/// A connection that is turned away may be anybody's: whoever runs the server is to know.
fn warn(said: Said, source: IpAddr, why: &str) {
    let network = Network::of(source);
    match said {
        Said::Now { untold } => {
            tracing::warn!(peer = %source, why, %network, untold, "connection turned away")
        }
        Said::Later => tracing::debug!(peer = %source, why, "connection turned away"),
    }
}
