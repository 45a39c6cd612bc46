//! Any bytes as the text of a public key or of an identity.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::key_text(bytes));
