//! The tokio shell: sockets, clock, randomness, key files.

pub mod clock;
pub mod entropy;
pub mod key_file;
pub mod settings;
pub mod watch;

pub use clock::Clock;
pub use entropy::SystemEntropy;
pub use key_file::KeyFileError;
pub use settings::SettingsError;
pub use watch::FileWatch;
