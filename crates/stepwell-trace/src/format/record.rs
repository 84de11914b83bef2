//! What a recording tells: one [`Record`] for each thing that happened.
//!
//! It is what the hypervisor tells ([`TraceRecord`]), in longer runs, and events of the tool's beside
//! it.

use stepwell_arch::address::Va;
use stepwell_protocol::TraceRecord;

/// One thing that happened, in the order in which it happened.
pub type Record = TraceRecord<Event>;

/// Something that is not an executed instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest executed an SMC while privileged calls were being monitored.
    PrivilegedCall {
        /// The vCPU.
        vcpu: u8,
        /// PC of the SMC.
        pc: Va,
        /// Its immediate.
        immediate: u16,
    },
    /// Words of the tool, such as why stepping was interrupted.
    Note(String),
    /// What a vCPU executes from here on it executes for this task, as the guest's kernel has it.
    Task {
        /// The vCPU.
        vcpu: u8,
        /// The task's number.
        pid: u32,
        /// Its process's number.
        tgid: u32,
        /// Its name. The guest chose it.
        name: String,
    },
}
