//! Stepwell's hypervisor: everything at EL2 that is not the step engine.
//!
//! The library builds and tests on any host. What touches the machine lies in `boot`, `hw` and
//! `mem`, behind the `el2` feature.

#![cfg_attr(not(test), no_std)]

pub mod device;
pub mod devicetree;
pub mod mem;
pub mod vgic;
