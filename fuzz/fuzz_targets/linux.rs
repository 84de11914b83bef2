//! A Linux kernel whose image and memory a hostile guest wrote: every question ends.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stepwell_linux::sample::hostile::ask(bytes));
