//! Any bytes as the head of a record.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::head(bytes));
