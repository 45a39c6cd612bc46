//! Bytes to values and back: hellos, record heads, message bodies. No state, no time, no keys.
//!
//! `docs/protocol.md` describes every format; `tests/tidy.rs` compares its table of messages with
//! [`message::kinds`].

pub mod codec;
pub mod control;
pub mod data;
pub mod grants;
pub mod head;
pub mod hello;
pub mod message;
pub mod names;
pub mod notices;
pub mod outcomes;
pub mod stored;

pub use codec::DecodeError;
pub use control::{ClientControl, ServerControl};
pub use data::{ClientData, ServerData};
pub use head::{Head, HeadError};
pub use message::Message;
