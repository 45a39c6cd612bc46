//! Any bytes as a kind and a body of each stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::body(bytes));
