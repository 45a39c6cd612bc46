//! The tokio shell: sockets, clock, randomness, key files.
