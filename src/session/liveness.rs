//! Whether a channel's transport is alive: silence, a ping, more silence, death. A slow request on a channel
//! that shows any byte is not silence.

use crate::model::{Limits, Time};

/// When a channel was last heard, and whether it owes a sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    heard: Time,
    bytes: u64,
    pinged: Option<Time>,
}

/// What silence asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing before this moment.
    Wait(Time),
    /// Send a ping.
    Ping,
    /// The channel is dead.
    Dead,
}

impl Liveness {
    /// Of a channel that was heard just now.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { heard: now, bytes: 0, pinged: None }
    }

    /// When the channel was last heard.
    #[must_use]
    pub fn heard(&self) -> Time {
        self.heard
    }

    /// Something was heard.
    pub fn on_heard(&mut self, now: Time) {
        self.heard = self.heard.max(now);
        self.pinged = None;
    }

    /// The transport has delivered `bytes` bytes since the channel began; more than last time is a sign of life,
    /// whether or not they make a whole record.
    pub fn on_progress(&mut self, now: Time, bytes: u64) {
        if bytes > self.bytes {
            self.bytes = bytes;
            self.on_heard(now);
        }
    }

    /// Something that wants an answer was sent on a channel that owed none: silence counts from here.
    pub fn on_asked(&mut self, now: Time) {
        self.heard = self.heard.max(now);
    }

    /// A ping was sent.
    pub fn on_pinged(&mut self, now: Time) {
        self.pinged = Some(now);
    }

    /// What is to be done at `now`; `is_waiting`: an answer is outstanding on the channel.
    #[must_use]
    pub fn pulse(&self, now: Time, is_waiting: bool, limits: &Limits) -> Pulse {
        if let Some(pinged) = self.pinged {
            let end = pinged.after(limits.dead_after_ping);
            return if now >= end { Pulse::Dead } else { Pulse::Wait(end) };
        }
        let patience = if is_waiting { limits.ping_after } else { limits.ping_idle_after };
        let ask = self.heard.after(patience);
        if now >= ask { Pulse::Ping } else { Pulse::Wait(ask) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn three_seconds_of_silence_with_work_are_death() {
        let limits = Limits::default();
        let mut life = Liveness::new(Time(0));
        assert_eq!(life.pulse(Time(SECOND - 1), true, &limits), Pulse::Wait(Time(SECOND)));
        assert_eq!(life.pulse(Time(SECOND), true, &limits), Pulse::Ping);
        life.on_pinged(Time(SECOND));
        assert_eq!(life.pulse(Time(3 * SECOND - 1), true, &limits), Pulse::Wait(Time(3 * SECOND)));
        assert_eq!(life.pulse(Time(3 * SECOND), true, &limits), Pulse::Dead);
    }

    #[test]
    fn any_byte_is_a_sign_of_life_and_no_byte_is_none() {
        let limits = Limits::default();
        let mut life = Liveness::new(Time(0));
        life.on_pinged(Time(SECOND));
        life.on_progress(Time(2 * SECOND), 0);
        assert_eq!(life.pulse(Time(3 * SECOND), true, &limits), Pulse::Dead);
        life.on_progress(Time(2 * SECOND), 1);
        assert_eq!(life.pulse(Time(3 * SECOND), true, &limits), Pulse::Ping);
        life.on_pinged(Time(3 * SECOND));
        life.on_progress(Time(4 * SECOND), 1);
        assert_eq!(life.pulse(Time(5 * SECOND), true, &limits), Pulse::Dead, "the same byte counts once");
    }

    #[test]
    fn an_idle_channel_is_asked_less_often() {
        let limits = Limits::default();
        let life = Liveness::new(Time(0));
        assert_eq!(life.pulse(Time(SECOND), false, &limits), Pulse::Wait(Time(5 * SECOND)));
        assert_eq!(life.pulse(Time(5 * SECOND), false, &limits), Pulse::Ping);
    }
}
