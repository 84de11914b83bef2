//! Any bytes as a recording. Checksums keep nearly all of them out: see `chunks` for what is
//! behind those.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stepwell_fuzz::read(bytes));
