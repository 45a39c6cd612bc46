//! bowline: a file-access session layer. One open file over several channels, and it stays open.

pub mod client;
pub mod model;
pub mod net;
pub mod opens;
pub mod secure;
pub mod server;
pub mod session;
pub mod wire;
