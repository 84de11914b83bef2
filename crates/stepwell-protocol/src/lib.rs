//! What all ends speak of, once: policies, refusals, stop reasons, registers, places and the
//! records of a trace.
//!
//! The hypervisor's loop, the link, the tool and the recording's format use these same types, so
//! that nothing is converted on the way and nothing can mean two things. They are plain values:
//! this crate does nothing with them. How they become bytes is `stepwell-wire`'s for the link and
//! `stepwell-trace`'s for files; the order of variants is what the link's encoding numbers them by,
//! so a change here raises its version.

#![cfg_attr(not(test), no_std)]
#![forbid(missing_docs, unsafe_code)]
// Outside of tests, which may fail loudly: nobody can allow these again.
#![cfg_attr(
    not(test),
    forbid(
        clippy::arithmetic_side_effects,
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

mod place;
mod policy;
mod refusal;
mod registers;
mod schedule;
mod stop;
mod trace;

pub use place::{Place, VcpuId, VcpuState, Watchpoint};
pub use policy::{InterruptPolicy, Monitor, OthersPolicy, TimePolicy, UnknownPolicy};
pub use refusal::Refusal;
pub use registers::{Registers, SimdRegisters, SveRegister, VectorLength};
pub use schedule::{Schedule, ScheduleError, TURN_MIN};
pub use stepwell_arch::debug::WatchAccess;
pub use stop::{DomainEnding, FaultKind, GuestFault, StopReason};
pub use trace::{
    Context, ExceptionCause, ExceptionEntry, MemoryAccess, MemoryAccessKind, Register, TraceDetail,
    TraceRecord, Waiting,
};

/// Most vCPUs of one domain.
pub const MAX_VCPUS: usize = 8;

/// The bit of a vCPU in a mask of them; none for a number that no vCPU has.
#[must_use]
pub const fn vcpu_bit(vcpu: usize) -> u8 {
    if vcpu < MAX_VCPUS { 1 << vcpu } else { 0 }
}

// A mask of vCPUs has a bit for each.
const _: () = assert!(MAX_VCPUS <= u8::BITS as usize);
