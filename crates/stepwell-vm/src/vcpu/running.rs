//! What is at hand while a vCPU runs.

use super::state::VcpuCore;
use crate::cpu::Cpu;
use crate::domain::{Domain, Vcpu};
use crate::machine::Machine;
use core::sync::atomic::Ordering;
use stepwell_protocol::StopReason;

/// What is at hand while a vCPU runs.
pub struct Running<'a, C: Cpu> {
    /// The machine.
    pub machine: &'a Machine<C>,
    /// The vCPU's domain.
    pub domain: &'a Domain<C>,
    /// The vCPU's number in its domain.
    pub index: usize,
    /// The vCPU.
    pub vcpu: &'a Vcpu<C>,
    /// What executes it.
    pub cpu: &'a C,
    /// Its registers and all.
    pub core: &'a mut VcpuCore<C>,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)] // copied by words where unaligned accesses are not to be had
pub enum End {
    /// For a reason of this vCPU's: its domain stops.
    Stop(StopReason),
    /// Because somebody asked.
    Asked,
    /// The guest switched the vCPU off.
    SwitchedOff,
}

impl End {
    /// What the tool is told of it.
    #[must_use]
    pub const fn reason(self) -> StopReason {
        match self {
            Self::Stop(reason) => reason,
            Self::Asked => StopReason::Paused,
            Self::SwitchedOff => StopReason::SwitchedOff,
        }
    }
}

impl<C: Cpu> Running<'_, C> {
    /// Tells whether somebody wants this vCPU to stop.
    #[must_use]
    pub fn is_called(&self) -> bool {
        self.vcpu.stop_requested.load(Ordering::Acquire)
    }
}
