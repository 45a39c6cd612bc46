//! bowline: a file-access session layer. One open file over several network lines at once, and it stays open.
//!
//! Applications embed [`client`]; servers run [`server`]. The tiers below are public so that they can be tested,
//! fuzzed and driven by other shells: `docs/architecture.md` has the picture, `docs/protocol.md` the wire.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let identity = std::sync::Arc::new(bowline::secure::Identity::generate(&mut bowline::net::SystemEntropy)?);
//! # let peers = bowline::client::Peers::load("peers.toml".as_ref())?;
//! # let peer = peers.named("store").ok_or("no such peer")?;
//! use bowline::client::{Client, OpenOptions};
//! use bowline::model::LineSet;
//!
//! let session = Client::new(identity)?.connect(peer).await?;
//! let file = session.open("media", "clip.mov", &OpenOptions::new().read(true)).await?;
//! let key = file.resume_key().await?;
//! let duplicate = session.resume(&key, LineSet::ALL).await?;
//! # Ok(()) }
//! ```

pub mod client;
pub mod model;
pub mod net;
pub mod opens;
pub mod secure;
pub mod server;
pub mod session;
pub mod wire;

/// The README's program, compiled as it stands.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
