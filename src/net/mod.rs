//! The tokio shell of both sides: sockets, records on them, clock, randomness, key and settings files.
//!
//! The only place with asynchronous I/O on sockets, a clock or randomness. It decides nothing about sessions or
//! opens: `session` does.

mod boot_id;
mod buffers;
mod channel;
mod clock;
mod descriptors;
mod entropy;
mod greeting;
pub mod key_file;
mod lent;
mod locked;
mod read_ahead;
mod records;
pub(crate) mod replace;
pub mod settings;
pub mod socket;
mod watch;
mod workers;

pub use boot_id::boot_id;
pub use buffers::{Block, Buffers, Room};
pub use channel::{Backlog, Outbox, Queue, outbox, run_channel, with_sources};
pub use clock::Clock;
pub use descriptors::raise_descriptor_limit;
pub use entropy::SystemEntropy;
pub use greeting::{GreetingError, exchange, read_hello};
pub use key_file::KeyFileError;
pub use lent::{Lent, LentSend, Sink};
pub(crate) use locked::Locked;
pub use records::{Meter, Outbound, ReadError, Received, RecordReader, RecordWriter, RekeyLimits};
pub use settings::SettingsError;
pub use socket::Via;
pub use watch::{FileWatch, LOOK_EVERY, Seen};
pub use workers::{NotDone, Workers};
