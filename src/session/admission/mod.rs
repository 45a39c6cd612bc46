//! Who gets a handshake: what a server decides of a connection before it has read one byte of it.
//!
//! All that is known then is where the connection comes from, so that is what is counted, by *networks*: a /24 of
//! IPv4, a /64 of IPv6. Like the cores, this is a value: time and random bytes are handed in.
//!
//! ```text
//!   accept ─▶ no token of its network ──────────────────▶ closed, unread
//!          ─▶ drawn by early drop, or no share left ────▶ closed, unread; or another one goes in its place
//!          ─▶ half-open ─▶ first record verified ───────▶ the token is given back
//!                       ─▶ refused, too slow, dropped ──▶ the token is lost
//! ```
//!
//! - **Tokens.** A network has a bucket of them (`networks`). A client that proves itself gets its token back, so honest
//!   clients never run dry, however many there are behind one address; what fails is paid for.
//! - **Half-open connections** have a cap. From half of it on each newcomer puts one connection, drawn among all and
//!   itself, at a risk that rises to certainty at the cap: whoever holds most of them loses most of them.
//! - **A share.** No network holds more than a quarter of the cap. At its share, one of its own is drawn the same way:
//!   who shares a network with an attacker is not locked out either.
//! - **Enrolment** costs the server Diffie-Hellmans for somebody whom it does not know: a small bucket for all together.
//! - **The log** gets one line per network and minute, and a bounded number of lines from all of them (`refusals`).

mod bucket;
mod half_open;
mod networks;
mod refusals;

use std::net::IpAddr;

pub use half_open::HalfOpenId;
pub use networks::Network;
pub use refusals::Said;

use self::bucket::{Bucket, Rule};
use self::half_open::Crowd;
use self::networks::Networks;
use self::refusals::Refusals;
use crate::model::{Entropy, EntropyError, Limits, Time};

/// What a server knows of the connections that have not proven anything, and of where they come from.
#[derive(Debug)]
pub struct Admission {
    networks: Networks,
    half_open: Crowd,
    enrolments: Bucket,
    enrolment_rule: Rule,
    refusals: Refusals,
    counts: AdmissionCounts,
}

/// What is to become of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It gets a handshake.
    Admitted {
        /// Its name here.
        id: HalfOpenId,
        /// One that goes in its place: it is forgotten here already, and is to be closed.
        instead_of: Option<HalfOpenId>,
    },
    /// It is closed, unread.
    TurnedAway(Why),
}

/// Why a connection is closed unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its network has no token left.
    NoToken,
    /// Too many connections are in their handshake, and it was the one that was drawn.
    Drawn,
}

/// How many connections came, and what became of them, since the server's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AdmissionCounts {
    /// Got a handshake.
    pub admitted: u64,
    /// Were closed unread for want of a token.
    pub without_token: u64,
    /// Were closed because they were drawn, unread or in their handshake.
    pub drawn: u64,
    /// Proved themselves with a first record.
    pub proven: u64,
}

impl Admission {
    /// With full buckets and nobody there.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let enrolment_rule = Rule { size: limits.enrol_burst, rate: limits.enrol_rate };
        let of_one = Rule { size: limits.enrol_burst_per_network, rate: limits.enrol_rate_per_network };
        let handshakes = Rule { size: limits.handshake_burst, rate: limits.handshake_rate };
        Self {
            networks: Networks::new(handshakes, of_one),
            half_open: Crowd::new(),
            enrolments: Bucket::full(enrolment_rule),
            enrolment_rule,
            refusals: Refusals::new(limits),
            counts: AdmissionCounts::default(),
        }
    }

    /// A connection from `source` has been accepted. Takes memory for an admitted one at most.
    ///
    /// # Errors
    /// [`EntropyError`] when it has to be drawn and there are no random bytes. Nothing has changed then but the
    /// network's tokens; it is closed.
    pub fn handle_accepted(
        &mut self,
        now: Time,
        source: IpAddr,
        entropy: &mut dyn Entropy,
    ) -> Result<Verdict, EntropyError> {
        let at = self.networks.place(now, Network::of(source));
        if !self.networks.take_token(now, at) {
            self.counts.without_token = self.counts.without_token.saturating_add(1);
            return Ok(Verdict::TurnedAway(Why::NoToken));
        }
        let drawn = match self.draw(at, entropy)? {
            Draw::Nobody => None,
            Draw::Other(id) => Some(id),
            Draw::Newcomer => {
                self.counts.drawn = self.counts.drawn.saturating_add(1);
                return Ok(Verdict::TurnedAway(Why::Drawn));
            }
        };
        if let Some(id) = drawn {
            self.forget(id);
            self.counts.drawn = self.counts.drawn.saturating_add(1);
        }
        let id = self.half_open.enter(at);
        self.networks.enter(at, id);
        self.counts.admitted = self.counts.admitted.saturating_add(1);
        Ok(Verdict::Admitted { id, instead_of: drawn })
    }

    /// The first record of a half-open connection has verified, and it is a listed client's: it is half-open no more,
    /// and its network gets the token back.
    pub fn handle_proven(&mut self, now: Time, id: HalfOpenId) {
        if let Some(at) = self.forget(id) {
            self.networks.give_back(now, at);
            self.counts.proven = self.counts.proven.saturating_add(1);
        }
    }

    /// A half-open connection has ended in any other way. Once is enough; more often changes nothing.
    pub fn handle_ended(&mut self, id: HalfOpenId) {
        self.forget(id);
    }

    /// Whether a hello that asks for enrolment is to be answered: it takes a token of all enrolments together, and one
    /// more of its network beside the one that its connection took.
    pub fn may_enrol(&mut self, now: Time, source: IpAddr) -> bool {
        let at = self.networks.place(now, Network::of(source));
        // The network's first: whoever has none left takes nothing from the others.
        self.networks.take_token(now, at)
            && self.networks.take_enrolment(now, at)
            && self.enrolments.take(now, self.enrolment_rule)
    }

    /// A connection from `source` was refused; tells whether our log is to say so.
    pub fn handle_refused(&mut self, now: Time, source: IpAddr) -> Said {
        let at = self.networks.place(now, Network::of(source));
        self.refusals.on_refusal(now, self.networks.told(at))
    }

    /// How many refusals the log was not told of since this was asked last.
    pub fn take_untold(&mut self) -> u64 {
        self.refusals.take_untold()
    }

    /// How many connections are half-open.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// How many networks are remembered.
    #[must_use]
    pub fn networks(&self) -> usize {
        self.networks.len()
    }

    /// How many tokens the network of `source` has.
    #[must_use]
    pub fn tokens(&self, now: Time, source: IpAddr) -> u32 {
        self.networks.tokens(now, Network::of(source))
    }

    /// What became of all connections so far.
    #[must_use]
    pub fn counts(&self) -> AdmissionCounts {
        self.counts
    }

    /// Who goes because this newcomer comes: one of those who are there or itself, all with the same chance.
    fn draw(&self, at: usize, entropy: &mut dyn Entropy) -> Result<Draw, EntropyError> {
        let own = self.networks.half_open(at);
        if own.len() >= Limits::HALF_OPEN_SHARE {
            let place = below(number(entropy)?, own.len().saturating_add(1));
            return Ok(own.get(place).map_or(Draw::Newcomer, |id| Draw::Other(*id)));
        }
        let len = self.half_open.len();
        let Some(over) = len.checked_sub(Limits::HALF_OPEN_EARLY) else { return Ok(Draw::Nobody) };
        let span = Limits::HALF_OPEN_MAX.saturating_sub(Limits::HALF_OPEN_EARLY);
        // The chance is 0 at the threshold and 1 at the cap.
        if below(number(entropy)?, span) >= over {
            return Ok(Draw::Nobody);
        }
        let place = below(number(entropy)?, len.saturating_add(1));
        Ok(self.half_open.at(place).map_or(Draw::Newcomer, Draw::Other))
    }

    fn forget(&mut self, id: HalfOpenId) -> Option<usize> {
        let at = self.half_open.leave(id)?;
        self.networks.leave(at, id);
        Some(at)
    }
}

enum Draw {
    Nobody,
    Newcomer,
    Other(HalfOpenId),
}

fn number(entropy: &mut dyn Entropy) -> Result<u64, EntropyError> {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A number below `bound`; the last 64 bits make the difference in chances immeasurable.
fn below(random: u64, bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
    usize::try_from(random % bound).unwrap_or(0)
}

#[cfg(test)]
mod tests;
