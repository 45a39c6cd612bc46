//! Any bytes as a client's hello.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::hello(bytes));
