//! Any bytes as a record of the stored table.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::record(bytes));
