//! Any bytes as the file of a key ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::key_ring(bytes));
