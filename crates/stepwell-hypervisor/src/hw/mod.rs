//! Everything that touches the machine: registers, the world switch, the physical GIC, the timers,
//! the log's UART and the link's virtio console.
//!
//! Safe faces only: what a caller may do wrong is an error or does not type-check.

#![expect(unsafe_code, reason = "this is the layer that touches the machine")]

pub mod gic;
pub mod link;
pub mod log;
mod pmu;
pub mod power;
pub mod registers;
pub mod reset_registers;
pub mod setup;
pub mod simd;
pub mod system_registers;
pub mod timer;
pub mod translate;
pub mod world;
