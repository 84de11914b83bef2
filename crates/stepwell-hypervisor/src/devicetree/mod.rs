//! Device trees: the machine's, read; the guest's, written.
#![forbid(unsafe_code)]

pub mod guest;
pub mod host;
