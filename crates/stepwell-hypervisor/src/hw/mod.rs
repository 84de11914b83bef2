//! Everything that touches the machine: registers, the world switch, the physical GIC, the timers,
//! the log's UART and the link's virtio console.
//!
//! What a caller may do wrong is an error, does not type-check, or is `unsafe` with its contract. The
//! vCPU loop reaches all of it through [`el2::El2`] alone.

#![expect(unsafe_code, reason = "this is the layer that touches the machine")]

pub mod el2;
pub mod gic;
pub mod interface;
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
