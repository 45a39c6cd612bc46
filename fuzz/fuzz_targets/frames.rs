//! Any bytes as a record, as they come and sealed with the right keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::frames(bytes));
