//! Any text as a resume key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzz::resume_key_text(bytes));
