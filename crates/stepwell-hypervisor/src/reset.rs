//! A vCPU at reset.

use crate::hw::system_registers::Snapshot;
use crate::vcpu::VcpuCore;
use spin::Once;

static RESET: Once<Snapshot> = Once::new();

/// Takes down what EL1's system registers hold before any guest has run: what the CPU itself
/// resets them to. Once, on the boot CPU.
pub fn remember() {
    RESET.call_once(Snapshot::save);
}

/// The system registers of a vCPU at reset.
#[must_use]
pub fn registers() -> Snapshot {
    RESET.get().cloned().unwrap_or_else(Snapshot::save)
}

/// Puts a vCPU into the state in which PSCI CPU_ON, or the boot, starts it: at `entry`, with
/// `argument` in X0.
pub fn reset_vcpu(core: &mut VcpuCore, entry: u64, argument: u64) {
    core.reset(&registers(), entry, argument);
}
