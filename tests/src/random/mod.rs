//! Random programs, stepped and unstepped.
//!
//! A *case* is a program made from a seed. It runs once on plain QEMU, which reports each
//! instruction, and several times under Stepwell, in its normal mode and in the test mode that makes
//! happen what QEMU never does. Brought into [`canonical`] form, all streams have to be equal, and so
//! has the checksum of registers and memory that the guest prints.
//!
//! The guest `random` is the ground: boot, handlers, checksum. `docs/soak.md` tells what programs
//! do.

pub mod blocks;
pub mod canonical;
pub mod case;
pub mod chance;
pub mod code;
pub mod coverage;
pub mod exclusive;
pub mod program;
