//! What a server counts of its own work, for whoever watches it: how often, how much, and how it ended. Nothing here names
//! a file or a client, and every label is one of a few words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Protection;
use crate::net::Outbound;
use crate::opens::OpenEnd;
use crate::session::LossReason;
use crate::session::server::{ClientMessage, Completion, ServerMessage, ServerNote, SessionEnd};
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

/// Why sessions end, channels are lost, and opens end without their clients' doing.
const SESSION_ENDS: [&str; 4] = ["closed", "expired", "not_allowed", "key_retired"];
const CHANNEL_LOSSES: [&str; 6] = ["farewell", "broken", "silent", "offence", "closed", "session_ended"];
const OPEN_ENDS: [&str; 4] = ["taken_over", "expired", "evicted", "released"];
/// How channels are protected.
const PROTECTIONS: [Protection; 3] = [Protection::Sealed, Protection::Signed, Protection::Clear];

/// Counts under a few words.
#[derive(Debug)]
struct Worded<const N: usize>([(&'static str, AtomicU64); N]);

impl<const N: usize> Worded<N> {
    fn new(words: [&'static str; N]) -> Self {
        Self(words.map(|word| (word, AtomicU64::new(0))))
    }

    fn count(&self, word: &str) {
        let own = self.0.iter().find(|(own, _)| *own == word);
        debug_assert!(own.is_some(), "{word} is one of the words");
        if let Some((_, count)) = own {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn told(&self) -> Vec<(&'static str, u64)> {
        self.0.iter().map(|(word, count)| (*word, count.load(Ordering::Relaxed))).collect()
    }
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
    session_ends: Worded<4>,
    channel_losses: Worded<6>,
    open_ends: Worded<4>,
    /// In the order of [`PROTECTIONS`]: payload that came in, and that went out.
    payload: [[AtomicU64; 2]; 3],
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
    /// Sessions that have ended, by why.
    pub session_ends: Vec<(&'static str, u64)>,
    /// Channels that sessions have lost, by why.
    pub channel_losses: Vec<(&'static str, u64)>,
    /// Opens that have ended without their clients' doing, by why.
    pub open_ends: Vec<(&'static str, u64)>,
    /// Bytes of payload that channels of each protection have carried: to this server, and from it.
    pub payload: Vec<(Protection, u64, u64)>,
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
            session_ends: Worded::new(SESSION_ENDS),
            channel_losses: Worded::new(CHANNEL_LOSSES),
            open_ends: Worded::new(OPEN_ENDS),
            payload: Default::default(),
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

    /// What the core notes, as far as it is counted.
    pub(super) fn noted(&self, note: &ServerNote) {
        match note {
            ServerNote::SessionEnded { reason, .. } => self.session_ends.count(match reason {
                SessionEnd::Closed => "closed",
                SessionEnd::Expired => "expired",
                SessionEnd::NotAllowed => "not_allowed",
                SessionEnd::KeyRetired => "key_retired",
            }),
            ServerNote::ChannelLost { reason, .. } => self.channel_losses.count(match reason {
                LossReason::Farewell => "farewell",
                LossReason::Broken => "broken",
                LossReason::Silent => "silent",
                LossReason::Offence => "offence",
                LossReason::Closed => "closed",
                LossReason::SessionEnded => "session_ended",
            }),
            ServerNote::OpenEnded { why, .. } => self.open_ends.count(match why {
                OpenEnd::TakenOver => "taken_over",
                OpenEnd::Expired => "expired",
                OpenEnd::Evicted => "evicted",
                OpenEnd::Released => "released",
            }),
            _ => {}
        }
    }

    /// A channel has carried payload to this server.
    pub(super) fn came(&self, protection: Protection, bytes: u64) {
        if let Some([came, _]) = self.payload_of(protection) {
            came.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// A channel carries payload from this server.
    pub(super) fn went(&self, protection: Protection, bytes: u64) {
        if let Some([_, went]) = self.payload_of(protection) {
            went.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn payload_of(&self, protection: Protection) -> Option<&[AtomicU64; 2]> {
        let mut all = PROTECTIONS.iter().zip(&self.payload);
        all.find(|(own, _)| **own == protection).map(|(_, counts)| counts)
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
            session_ends: self.session_ends.told(),
            channel_losses: self.channel_losses.told(),
            open_ends: self.open_ends.told(),
            payload: (PROTECTIONS.iter().zip(&self.payload))
                .map(|(protection, [came, went])| (*protection, of(came), of(went)))
                .collect(),
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
