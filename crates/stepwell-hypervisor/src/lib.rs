//! Stepwell's hypervisor: everything at EL2 that is not the step engine.
//!
//! The library builds and tests on any host. What touches the machine lies in `boot`, `hw` and
//! `mem`, behind the `el2` feature. The guest's
//! machine, its vCPU loop included, is in `stepwell_vm`; here is the [`Cpu`](stepwell_vm::cpu::Cpu)
//! that executes it.
//!
//! | module | what it is |
//! | --- | --- |
//! | `boot` | from the boot loader to the first idle CPU, and to the domains |
//! | [`console`] | the machine's UART: which, and how to send a byte |
//! | `hw` | registers, the world switch, the physical GIC, timers, the link's transport, the `Cpu` of the vCPU loop |
//! | `loop_cpu` | the `Cpu` that the vCPU loop runs on |
//! | [`mem`] | EL2's own translation, memory of tables, guest RAM, the trace ring |
//! | [`devicetree`] | the machine's tree |
//! | [`memory_plan`] | who gets which RAM |
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

#[cfg(feature = "el2")]
pub mod boot;
pub mod console;
pub mod devicetree;
#[cfg(feature = "el2")]
pub mod hw;
#[cfg(feature = "el2")]
#[cfg_attr(feature = "test-mode", path = "loop_cpu_tests.rs")]
pub mod loop_cpu;
pub mod mem;
pub mod memory_plan;
#[cfg(feature = "el2")]
pub mod server;
