//! bowline: a file-access session layer. One open file over several channels, and it stays open.

pub mod model;
pub mod opens;
pub mod session;
pub mod wire;
