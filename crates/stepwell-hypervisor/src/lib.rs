//! Stepwell's hypervisor: everything at EL2 that is not the step engine.
//!
//! The library builds and tests on any host. What touches the machine lies in `boot`, `hw` and
//! `mem`, behind the `el2` feature; so does what only makes sense with a guest at hand. The guest's
//! board, devices and stage 2 are in `stepwell_vm`.
//!
//! | module | what it is |
//! | --- | --- |
//! | `boot` | from the boot loader to the first idle CPU, and to the domains |
//! | [`console`] | the machine's UART: which, and how to send a byte |
//! | `hw` | registers, the world switch, the physical GIC, timers, the link's transport |
//! | [`mem`] | EL2's own translation, memory of tables, guest RAM, the trace ring |
//! | `vcpu` | the loop around a guest: exits, emulation, stepping |
//! | [`devicetree`] | the machine's tree |
//! | [`concurrency`] | what CPUs tell each other without a message |
//! | `domain`, `machine` | what there is, and who may run |
//! | [`memory_plan`] | who gets which RAM |
//! | `adversary` | what the test mode does to a stepped vCPU; absent from release images |
//! | `server` | the hypervisor's end of the link |

#![cfg_attr(not(test), no_std)]
// Outside of tests, which may fail loudly: nobody can allow these again. Arithmetic is not among
// them: it wraps at EL2, where overflow checks are off, and nothing divides by what a guest gives.
#![cfg_attr(
    not(test),
    forbid(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

extern crate alloc;

#[cfg(any(test, feature = "test-mode"))]
pub mod adversary;
#[cfg(feature = "el2")]
pub mod boot;
pub mod concurrency;
pub mod console;
pub mod devicetree;
#[cfg(feature = "el2")]
pub mod domain;
#[cfg(feature = "el2")]
pub mod hw;
#[cfg(feature = "el2")]
pub mod machine;
pub mod mem;
pub mod memory_plan;
#[cfg(feature = "el2")]
pub mod reset;
#[cfg(feature = "el2")]
pub mod server;
#[cfg(feature = "el2")]
pub mod vcpu;

// The vCPU loop names these as its own, because it is on its way to where they are.
pub use stepwell_vm::{device, image_layout, recorder, vgic};
