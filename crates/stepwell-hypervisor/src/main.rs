//! The EL2 image: the library's boot code, linked where it is loaded.

#![no_std]
#![no_main]

// Nothing else is referred to: the image's entry, and the Rust that it calls, are symbols.
use stepwell_hypervisor as _;
