//! What a server counts of its own work, for whoever watches it: how often, how much, and how it ended. Nothing here names
//! a file or a client, and every label is one of a few words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::net::Outbound;
use crate::session::server::{ClientMessage, Completion, ServerMessage};
use crate::wire::{ClientControl, ClientData, Message as _, ServerControl, ServerData};

/// How handshakes end, in the order of [`Handshake`].
const HANDSHAKES: [&str; HANDSHAKE_KINDS] = [
    "proven",
    "key_shown",
    "no_hello",
    "wrong_server",
    "other_version",
    "failed",
    "not_allowed",
    "refused",
    "too_slow",
    "drawn",
    "broken",
];
const HANDSHAKE_KINDS: usize = 11;

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// Its first record is a listed client's.
    Proven,
    /// The server's key was shown.
    KeyShown,
    /// What came is no hello.
    NoHello,
    /// It was made for another server's key.
    WrongServer,
    /// Its client is listed and speaks no version that this server does.
    OtherVersion,
    /// Its cryptography does not hold.
    Failed,
    /// Its client is not on the list.
    NotAllowed,
    /// The session or the bind was refused.
    Refused,
    /// It took longer than its limit.
    TooSlow,
    /// Another one got its place.
    Drawn,
    /// The connection broke, or this machine could not go on.
    Broken,
}

/// Kinds of messages, each with as many places as a kind byte has values.
type ByKind = Box<[AtomicU64]>;

fn by_kind() -> ByKind {
    (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect()
}

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Counters {
    requests: ByKind,
    refused: ByKind,
    read: AtomicU64,
    written: AtomicU64,
    handshakes: [AtomicU64; HANDSHAKE_KINDS],
    commits: AtomicU64,
    commit_us: AtomicU64,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestCount {
    /// What was asked for.
    pub kind: &'static str,
    /// How often it was answered as asked.
    pub done: u64,
    /// How often it was refused.
    pub refused: u64,
}

/// What a server has done since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCounts {
    /// Answers to requests, by the kind of the request; kinds that were never answered are left out.
    pub requests: Vec<RequestCount>,
    /// Bytes of files that were read for clients.
    pub read: u64,
    /// Bytes that clients have written to files.
    pub written: u64,
    /// Handshakes that have ended, by how.
    pub handshakes: Vec<(&'static str, u64)>,
    /// Batches of changes that the store of the open table has recorded.
    pub commits: u64,
    /// How long those waited for it, all together.
    pub commit_time: Duration,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            requests: by_kind(),
            refused: by_kind(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            handshakes: Default::default(),
            commits: AtomicU64::new(0),
            commit_us: AtomicU64::new(0),
        }
    }

    /// A request of this kind is answered; how, in a word.
    pub(super) fn answered(&self, kind: u8, answer: &ServerMessage) -> &'static str {
        let is_refusal = matches!(
            answer,
            ServerMessage::Control(ServerControl::Refused(_)) | ServerMessage::Data(ServerData::Refused(_))
        );
        let counts = if is_refusal { &self.refused } else { &self.requests };
        if let Some(count) = counts.get(usize::from(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if is_refusal { "refused" } else { "done" }
    }

    /// File work is done.
    pub(super) fn worked(&self, completion: &Completion<Outbound>) {
        match completion {
            Completion::Read(Ok((_, len))) => self.read.fetch_add(u64::from(*len), Ordering::Relaxed),
            Completion::Written(Ok(len)) | Completion::Appended(Ok((_, len))) => {
                self.written.fetch_add(u64::from(*len), Ordering::Relaxed)
            }
            _ => 0,
        };
    }

    /// A handshake has ended.
    pub(super) fn handshake(&self, how: Handshake) {
        let [
            proven,
            key_shown,
            no_hello,
            wrong_server,
            other_version,
            failed,
            not_allowed,
            refused,
            too_slow,
            drawn,
            broken,
        ] = &self.handshakes;
        let count = match how {
            Handshake::Proven => proven,
            Handshake::KeyShown => key_shown,
            Handshake::NoHello => no_hello,
            Handshake::WrongServer => wrong_server,
            Handshake::OtherVersion => other_version,
            Handshake::Failed => failed,
            Handshake::NotAllowed => not_allowed,
            Handshake::Refused => refused,
            Handshake::TooSlow => too_slow,
            Handshake::Drawn => drawn,
            Handshake::Broken => broken,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch is recorded, so long after it was handed in.
    pub(super) fn committed(&self, after: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.commit_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> ServerCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let count = |(kind, byte): (&'static str, u8)| {
            let at = |counts: &ByKind| counts.get(usize::from(byte)).map_or(0, of);
            RequestCount { kind, done: at(&self.requests), refused: at(&self.refused) }
        };
        // `Attach` is on both kinds of channels.
        let kinds =
            ClientControl::KINDS.iter().chain(ClientData::KINDS.iter().filter(|(name, _)| *name != "Attach"));
        ServerCounts {
            requests: kinds.copied().map(count).filter(|count| count.done > 0 || count.refused > 0).collect(),
            read: of(&self.read),
            written: of(&self.written),
            handshakes: HANDSHAKES.into_iter().zip(self.handshakes.iter().map(of)).collect(),
            commits: of(&self.commits),
            commit_time: Duration::from_micros(of(&self.commit_us)),
        }
    }
}

/// The kind byte of what a client asks.
pub(super) fn kind_of(message: &ClientMessage) -> u8 {
    match message {
        ClientMessage::Control(message) => message.kind(),
        ClientMessage::Data(message) => message.kind(),
    }
}
