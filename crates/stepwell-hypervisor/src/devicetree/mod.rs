//! The machine's own device tree, read. (The one that a guest gets is in `stepwell_vm`.)
#![forbid(unsafe_code)]

pub mod blob;
pub mod bus;
pub mod host;
pub mod range;
