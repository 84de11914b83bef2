//! What a debuggee tells of its own accord.

use stepwell_arch::Va;
use stepwell_protocol::{DomainEnding, StopReason, VcpuId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vCPU stopped, and with it its whole domain.
    Stopped(Stop),
    /// The guest wrote on its serial console.
    Console {
        /// The domain.
        domain: u8,
        /// What it wrote.
        bytes: Vec<u8>,
    },
    /// A domain came to its end.
    Ended {
        /// The domain.
        domain: u8,
        /// How.
        ending: DomainEnding,
    },
}

/// One stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The vCPU that has the reason.
    pub vcpu: VcpuId,
    /// Why.
    pub reason: StopReason,
    /// The next instruction.
    pub pc: Va,
    /// Steps reported since the command that this stop answers.
    pub steps: u64,
}
