//! Every bound, with its unit and its reason. Relations between bounds are checked when the crate is compiled.

use core::time::Duration;

use thiserror::Error;

/// Why bounds are not those of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A client whose line is silent could lose its files before it has found out.
    #[error("a grace of {grace:?} is shorter than {count} times the {ping:?} after which a silent channel is asked for a sign of life", count = Limits::GRACE_PINGS)]
    Grace {
        /// How long an open without a reachable channel stays.
        grace: Duration,
        /// Silence after which a channel is asked for a sign of life.
        ping: Duration,
    },
}

/// Bounds of one end. The defaults are for a local network; see each field for its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Requests of one session in flight at once. 64 keep a 10 ms path busy with 1 MiB chunks.
    pub requests: u32,
    /// Bytes of reads and writes of one session in flight at once.
    pub bytes: u64,
    /// Bytes of one session that a client keeps because its server has acknowledged them as received and not as durable.
    /// From half of it on a sync is begun; at all of it writes wait for that, but for those in flight. So no sync has more
    /// than a second's work on a slow disk before it, and a client's memory stays small.
    pub unsynced_bytes: u64,
    /// Most bytes in flight on one data channel: the window of its pull. Where two chunks do as well, it is those.
    pub channel_bytes: u64,
    /// Length of one chunk of a larger read or write, in bytes: large enough that the cost per record
    /// disappears, small enough that two lines of unequal speed end within one chunk's time of each other.
    pub chunk: u32,
    /// Mutating requests whose ids are remembered beyond the oldest unanswered one.
    pub window: u64,
    /// Sessions of one client identity: one per process, and room for those that died.
    pub sessions_per_client: usize,
    /// Channels of one session, attempts not counted.
    pub channels_per_session: usize,
    /// Opens of one client identity.
    pub opens_per_client: usize,
    /// Descriptors that a server has open for its opens, and never more than half of what its process may have: enough
    /// for everything that is really used at a time, at about 2 KiB of the kernel's memory each. Opens beyond it are
    /// there without one.
    pub descriptors_max: usize,
    /// Descriptors of them that stay open as long as their opens, because their files have no name any more, and never
    /// more than half of them: a quarter, so that removed files leave the most for those that are there.
    pub pinned_descriptors_max: usize,
    /// Resume keys that are valid at once for one open.
    pub keys_per_open: usize,
    /// Grants of one open that are in force: more than people work together on a file. With their keys and holders they
    /// fit into the record of an open.
    pub grants_per_open: usize,
    /// Grants to one identity that the server delivers and that nobody has taken: what a session is told when it begins.
    pub offers_per_client: usize,
    /// Those of them that one giver has made: an eighth, so that no single one keeps the others from reaching somebody.
    pub offers_per_giver: usize,
    /// Byte ranges that one open has locked: more than a database locks pages at once, and few enough that a lock
    /// over all of them is no work to speak of.
    pub locks_per_open: usize,
    /// Byte ranges that all opens of one client identity have locked: 16 full opens, or a few ranges for each of
    /// many; with about 200 bytes for each range it is 13 MB.
    pub locks_per_client: usize,
    /// Locks of one client identity that wait: more than a process has threads, and room for many processes. A
    /// waiter takes about 1 KiB.
    pub lock_waits_per_client: usize,
    /// Longest time that a lock waits. A client that wants to wait longer asks again.
    pub lock_wait_max: Duration,
    /// Silence with work outstanding, after which a channel is asked for a sign of life.
    pub ping_after: Duration,
    /// Silence without work, after which a channel is asked for a sign of life.
    pub ping_idle_after: Duration,
    /// Silence after a ping, after which a channel is dead. With `ping_after` it makes 3 s.
    pub dead_after_ping: Duration,
    /// How long a handshake may take from the first byte to the first record.
    pub handshake: Duration,
    /// How long a server that is told to stop waits for its clients to take their answers. It takes three round trips and
    /// what executes, and leaves most of the 5 s in which a server ends to syncing files.
    pub stop_drain: Duration,
    /// How long an open without a reachable channel stays, where the client names no time.
    pub grace_default: Duration,
    /// The longest grace that a client can ask for.
    pub grace_max: Duration,
    /// How long an open without a reachable channel stays after its grace while nobody else wants its file. A day: who
    /// shuts the lid in the evening goes on in the morning.
    pub orphan_age_max: Duration,
    /// Opens of one client that stay after their grace; beyond it the one that has waited longest goes. With less than
    /// 1 KiB each they cost a client's bound 1 MiB.
    pub lapsed_per_client: usize,
    /// Opens of all clients that stay after their grace; beyond it the oldest goes of the client that has most.
    pub lapsed_total: usize,
    /// Opens of one client that ended under it and of which is remembered why; about 200 bytes each.
    pub tombstones_per_client: usize,
    /// Such opens of all clients.
    pub tombstones_total: usize,
    /// How long it is remembered of one. A week: who was away for some days still hears why its file is gone, and what
    /// clients did before that is nobody's business any more.
    pub tombstone_age_max: Duration,
    /// Records under one key, after which a channel's sender replaces it.
    pub rekey_records: u64,
    /// Bytes under one key, after which a channel's sender replaces it.
    pub rekey_bytes: u64,
    /// Age of a key, after which a channel's sender replaces it with the next record.
    pub rekey_after: Duration,
    /// First wait before a lost channel is bound again; doubles up to `rebind_max`.
    pub rebind_min: Duration,
    /// Longest wait between two attempts to bind a channel.
    pub rebind_max: Duration,
    /// Handshakes that one source network (/24 of IPv4, /64 of IPv6) may have tried in vain or have under way at
    /// once, in tokens. A proven client's is given back, so this bounds attempts, not clients: as many as a /24 has
    /// addresses, so that a whole network can come back at the same moment.
    pub handshake_burst: u32,
    /// Tokens that a source network gets back in a second. With 150 µs for a handshake that fails, one network costs
    /// a hundredth of a processor.
    pub handshake_rate: u32,
    /// Enrolments that a server answers at once, all sources together: somebody sits before each of them.
    pub enrol_burst: u32,
    /// Enrolments that a server answers in a second, all sources together.
    pub enrol_rate: u32,
    /// Enrolments of them that one source network may have at once: far fewer, so that no single one keeps the others from
    /// learning the server's key.
    pub enrol_burst_per_network: u32,
    /// Enrolments of them that one source network may have in a second.
    pub enrol_rate_per_network: u32,
    /// Lines about refused connections that the log gets at once, all sources together; from one source network it
    /// gets one a minute.
    pub refusal_lines_burst: u32,
    /// Lines about refused connections that the log gets in a second, all sources together: with 200 bytes a line,
    /// whoever has many networks makes it grow by 3 MB an hour.
    pub refusal_lines_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 64,
            bytes: 8 << 20,
            unsynced_bytes: 64 << 20,
            channel_bytes: 4 << 20,
            chunk: 512 << 10,
            window: 4096,
            sessions_per_client: 64,
            channels_per_session: 32,
            opens_per_client: 10_000,
            descriptors_max: 16_000,
            pinned_descriptors_max: 4_000,
            keys_per_open: 16,
            grants_per_open: 32,
            offers_per_client: 256,
            offers_per_giver: 32,
            locks_per_open: 4096,
            locks_per_client: 65_536,
            lock_waits_per_client: 16_384,
            lock_wait_max: Duration::from_secs(3600),
            ping_after: Duration::from_secs(1),
            ping_idle_after: Duration::from_secs(5),
            dead_after_ping: Duration::from_secs(2),
            handshake: Duration::from_secs(5),
            stop_drain: Duration::from_secs(2),
            grace_default: Duration::from_secs(60),
            grace_max: Duration::from_secs(300),
            orphan_age_max: Duration::from_secs(86_400),
            lapsed_per_client: 1000,
            lapsed_total: 65_536,
            tombstones_per_client: 1000,
            tombstones_total: 65_536,
            tombstone_age_max: Duration::from_secs(7 * 86_400),
            rekey_records: 1 << 32,
            rekey_bytes: 1 << 40,
            rekey_after: Duration::from_secs(3600),
            rebind_min: Duration::from_millis(50),
            rebind_max: Duration::from_secs(2),
            handshake_burst: 256,
            handshake_rate: 64,
            enrol_burst: 16,
            enrol_rate: 4,
            enrol_burst_per_network: 4,
            enrol_rate_per_network: 1,
            refusal_lines_burst: 64,
            refusal_lines_rate: 4,
        }
    }
}

impl Limits {
    /// Length of a record's head, in bytes.
    pub const HEAD_LEN: usize = 40;
    /// Length of an authentication tag, in bytes.
    pub const TAG_LEN: usize = 16;
    /// Longest body of a record, in bytes: a path of 4,095 bytes and room for lists that come later. A reader
    /// allocates no more than this before the head is verified.
    pub const BODY_LEN_MAX: usize = 60 << 10;
    /// What a request for a list or an attribute's value counts while it executes, in bytes: the longest value that
    /// Linux has, and more than a page of a directory.
    pub const LIST_LEN_MAX: u64 = 64 << 10;
    /// Longest payload of a record, in bytes.
    pub const PAYLOAD_LEN_MAX: usize = 1 << 20;
    /// Longest part (offer or Noise message) of a first flight of either side, in bytes.
    pub const HELLO_LEN_MAX: usize = 1024;
    /// Records under one key that a receiver accepts: twice what a sender may send before it replaces its key.
    pub const KEY_RECORDS_MAX: u64 = 1 << 33;
    /// Bytes under one key that a receiver accepts: twice what a sender may send before it replaces its key.
    pub const KEY_BYTES_MAX: u64 = 1 << 41;
    /// Most connections of a server that have not finished their handshake.
    pub const HALF_OPEN_MAX: usize = 1024;
    /// From how many on each newcomer puts one of them at a risk, which rises to certainty at the cap: half of it, so
    /// that nobody is put at a risk by a busy morning.
    pub const HALF_OPEN_EARLY: usize = 512;
    /// Most connections of one source network among them: a quarter, so that it takes four networks to come near the
    /// cap.
    pub const HALF_OPEN_SHARE: usize = 256;
    /// Source networks that a server remembers. Each takes about 150 bytes.
    pub const NETWORKS_MAX: usize = 4096;
    /// How many times its credit a server takes from a client before it calls the client hostile: an answer
    /// that the client has, but whose buffer the server has not yet released, counts on one side only.
    pub const CREDIT_SLACK: u32 = 2;
    /// Threads of a server that wait at once for a descriptor because all are in use: half of those that it has for file
    /// work, so that the work that uses them goes on.
    pub const DESCRIPTOR_WAITERS_MAX: usize = 32;
    /// How long each of them waits: far longer than file work takes, and shorter than anybody waits for an answer.
    pub const DESCRIPTOR_WAIT: Duration = Duration::from_millis(500);
    /// Resume keys that are valid at once for the handles that came of one grant, beside its own: one for each process
    /// that the grantee is likely to share the file among.
    pub const KEYS_PER_GRANT: usize = 4;
    /// Handles of one grant: a grantee takes none of the places that the open's owner needs.
    pub const HOLDERS_PER_GRANT: usize = 8;
    /// Notices that a session has not heard, beyond which it is offered nothing, and opens and resumes nothing. Each of the
    /// handles that it has by then can still end. A notice takes up to 5 KiB, with a path of 4,095 bytes.
    pub const NOTICES_UNHEARD_MAX: usize = 1024;
    /// Attempt nonces that a session remembers.
    pub const NONCES_MAX: usize = 1024;
    /// Rows of one page of a server's status: with a microsecond for each, the server waits a millisecond for its
    /// administrator. An open with everything that it may have makes five times as many.
    pub const STATUS_ROWS_MAX: usize = 1024;
    /// Connections to a server's admin socket at once: a few people and their scripts. Others wait in the kernel.
    pub const ADMIN_CONNECTIONS_MAX: usize = 8;
    /// Longest request on the admin socket, in bytes: far more than any has.
    pub const ADMIN_REQUEST_LEN_MAX: u64 = 4 << 10;
    /// How long a request on the admin socket may take to come, and a page of its answer to be taken.
    pub const ADMIN_WAIT: Duration = Duration::from_secs(5);
    /// Lines of one session.
    pub const LINES_MAX: usize = 64;
    /// Longest record of the open table, in bytes: an open with a path of 4,095 bytes and the most locks at 20 bytes
    /// each is 84 KiB; the rest is for holders, grants and hashes of resume keys.
    pub const RECORD_LEN_MAX: usize = 128 << 10;
    /// Bytes of records that one transaction of the store takes from those that wait, beyond the first: it bounds the
    /// memory that a transaction needs, and how long those behind it wait.
    pub const COMMIT_LEN_MAX: usize = 4 << 20;
    /// Bytes of the disk that are kept for when it is full, so that closes and expiries can still be recorded. One
    /// takes a few pages of 4 KiB, and gives back as many.
    pub const STORE_RESERVE: u64 = 4 << 20;
    /// Least time that each orphan has after the server has started, whatever was left of its grace: its client may just
    /// have begun to look for the server.
    pub const RESTART_GRACE_MIN: Duration = Duration::from_secs(10);
    /// Records of changes of one client that must not run twice: with 64 requests in flight and their answers heard, a
    /// session has about a hundred. A record takes up to 9 KiB with two of the longest paths, and 300 bytes as a rule.
    pub const INTENTS_PER_CLIENT: usize = 4096;
    /// Such records of all clients.
    pub const INTENTS_TOTAL: usize = 65_536;
    /// How long they are kept, from the start of a server on, for clients that do not come back: longer than any grace.
    pub const INTENT_KEPT: Duration = Duration::from_secs(3600);
    /// How often the grace of one orphan begins anew because the server's machine was started anew. Nobody knows how long
    /// that took; and nobody is to be kept out for ever by a machine that is started again and again.
    pub const GRACE_RENEWALS_MAX: u8 = 3;
    /// Records of opens whose sessions went away or came back that one commit takes, of which one is under way at a time: all
    /// opens of a client change at once when its line is cut, nobody waits for that, and each takes some KiB until it is
    /// stored.
    pub const LAZY_RECORDS_MAX: usize = 256;
    /// Files of orphans that are looked at at once: as many as there are threads that could do it.
    pub const LOOKS_MAX: usize = 64;
    /// Opens in one key ring of a client: several servers' worth of what one client may have open.
    pub const RING_ENTRIES_MAX: usize = 65_536;
    /// Length of a key ring's file, in bytes: room for the most opens with ordinary paths, at 256 to 384 bytes each, and
    /// little enough to be read at once.
    pub const RING_LEN_MAX: u64 = 64 << 20;
    /// Opens that a new process has under way at once to get them back: as many as a session's requests.
    pub const RESUMES_AT_ONCE: usize = 64;
    /// Bytes of memory in which the store keeps what it has read and written. The kernel keeps all of the table's file as
    /// well, so this saves only the way there; a larger one gains nothing that can be measured.
    pub const STORE_CACHE: usize = 1 << 20;
    /// How many times the silence after which an idle channel is asked for a sign of life a grace has to be: one for the
    /// silence, one for the answer that does not come, one to be back.
    pub const GRACE_PINGS: u32 = 3;

    /// Whether a server can keep what these bounds promise together. Both graces count: the longest one is what clients get
    /// who ask for more.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn check(&self) -> Result<(), LimitsError> {
        let (grace, ping) =
            (self.grace_default.min(self.grace_max), self.ping_after.max(self.ping_idle_after));
        if grace < ping.saturating_mul(Self::GRACE_PINGS) {
            return Err(LimitsError::Grace { grace, ping });
        }
        Ok(())
    }
}

const _: () = {
    assert!(Limits::BODY_LEN_MAX + Limits::HEAD_LEN + Limits::TAG_LEN <= 64 << 10);
    assert!(Limits::LINES_MAX == 64, "LineSet is one u64");
    assert!(
        Limits::HALF_OPEN_EARLY < Limits::HALF_OPEN_MAX && Limits::HALF_OPEN_SHARE <= Limits::HALF_OPEN_EARLY
    );
    assert!(Limits::HALF_OPEN_MAX < Limits::NETWORKS_MAX, "some network can always be forgotten");
    assert!(Limits::RECORD_LEN_MAX <= Limits::COMMIT_LEN_MAX);
};

/// A length as a 64-bit number.
#[must_use]
pub fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        let limits = Limits::default();
        let chunk = u64::from(limits.chunk);
        assert!(chunk <= len_u64(Limits::PAYLOAD_LEN_MAX));
        assert!(limits.channel_bytes >= 2 * chunk, "a window below two chunks leaves the line idle");
        assert!(limits.bytes >= limits.channel_bytes);
        assert!(limits.unsynced_bytes / 2 >= limits.bytes, "writes go on while a sync makes room");
        assert!(limits.window >= u64::from(limits.requests * Limits::CREDIT_SLACK));
        assert_eq!(limits.ping_after + limits.dead_after_ping, Duration::from_secs(3));
        assert!(limits.grace_default <= limits.grace_max);
        assert!(
            limits.offers_per_giver * 8 <= limits.offers_per_client,
            "one giver could fill somebody's offers"
        );
        assert!(limits.locks_per_open <= limits.locks_per_client, "an open could not use what it may have");
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn a_grace_is_three_pings_at_least() {
        let seconds = Duration::from_secs;
        let with = |grace_default, grace_max, ping_after, ping_idle_after| {
            Limits { grace_default, grace_max, ping_after, ping_idle_after, ..Limits::default() }.check()
        };
        let short = |grace, ping| Err(LimitsError::Grace { grace: seconds(grace), ping: seconds(ping) });
        assert_eq!(with(seconds(15), seconds(15), seconds(1), seconds(5)), Ok(()));
        assert_eq!(with(seconds(14), seconds(300), seconds(1), seconds(5)), short(14, 5));
        assert_eq!(with(seconds(60), seconds(14), seconds(1), seconds(5)), short(14, 5));
        assert_eq!(with(seconds(60), seconds(60), seconds(21), seconds(5)), short(60, 21));
        assert_eq!(
            with(seconds(60), seconds(60), seconds(1), Duration::MAX),
            Err(LimitsError::Grace { grace: seconds(60), ping: Duration::MAX })
        );
    }
}
