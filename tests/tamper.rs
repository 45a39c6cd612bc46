//! Somebody between the two ends: every record that there is, changed in every way, and never accepted.
//!
//! `records` has the record layer alone, with keys of real handshakes; `pipes` puts both cores on top of it, and
//! `life` shows that nothing changes at the server and that the session lives on.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

#[path = "tamper/life.rs"]
mod life;
#[path = "tamper/link.rs"]
mod link;
#[path = "tamper/pipes.rs"]
mod pipes;
#[path = "tamper/records.rs"]
mod records;
#[path = "support/samples.rs"]
mod samples;
#[path = "support/pair/seed.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod seed;
