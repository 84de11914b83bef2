//! Stepwell's hypervisor: everything at EL2 that is not the step engine.
//!
//! The library builds and tests on any host. What touches the machine lies in `boot`, `hw` and
//! `mem`, behind the `el2` feature; so does what only makes sense with a guest at hand.
//!
//! | module | what it is |
//! | --- | --- |
//! | `boot` | from the boot loader to the first idle CPU, and to the domains |
//! | `hw` | registers, the world switch, the physical GIC, timers, the link's transport |
//! | [`mem`] | EL2's own translation, stage 2, guest RAM, the trace ring |
//! | `vcpu` | the loop around a guest: exits, emulation, stepping |
//! | [`vgic`], [`device`] | what the guest takes for devices |
//! | [`devicetree`] | the machine's tree, and the one that a guest gets |
//! | `domain`, `machine` | what there is, and who may run |
//! | [`image_layout`], [`memory_plan`] | where a guest's images lie; who gets which RAM |
//! | [`recorder`] | runs of the trace |
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
pub mod device;
pub mod devicetree;
#[cfg(feature = "el2")]
pub mod domain;
#[cfg(feature = "el2")]
pub mod hw;
pub mod image_layout;
#[cfg(feature = "el2")]
pub mod machine;
pub mod mem;
pub mod memory_plan;
pub mod recorder;
#[cfg(feature = "el2")]
pub mod reset;
#[cfg(feature = "el2")]
pub mod server;
#[cfg(feature = "el2")]
pub mod vcpu;
pub mod vgic;
