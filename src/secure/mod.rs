//! Identities, handshakes, record keys and records: bytes in, bytes out; randomness is handed in.
