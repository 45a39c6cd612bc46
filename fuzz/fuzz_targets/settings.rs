//! Any bytes as a settings file, an export's argument or an address.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::settings(bytes));
