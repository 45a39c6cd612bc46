//! What applications embed.

pub mod peers;

pub use peers::{DEFAULT_PORT, LineConfig, Peer, Peers, PeersError, Via};
