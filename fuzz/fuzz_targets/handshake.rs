//! Any bytes as a message of a handshake.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::handshake(bytes));
