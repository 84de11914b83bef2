//! Random programs that debug themselves, and what the manual says of them.
//!
//! A guest's own breakpoints, watchpoints and steps have no witness in QEMU, which departs from the
//! manual in several places (docs/qemu.md). So the judge is an interpreter of the few instructions
//! that the programs are made of, with the debug exceptions of the manual's pseudocode ([`manual`]).
//! It shares nothing with the engine. The guest `own_debug` executes the programs, and logs each
//! exception as it finds it in its registers.
//!
//! Left out, because the manual leaves it open: what is between a write of MDSCR_EL1 and the next
//! context synchronization (here it takes effect at once, which is allowed), and store-exclusives.
//! Left out, because QEMU gets it wrong where the guest runs without EL2 in between: LDTR and STTR.

pub mod manual;
pub mod program;

pub use manual::{Event, Log, expected};
pub use program::{Program, TABLE, table};
