//! Power: starting CPUs and switching the machine off, by the firmware's PSCI.

use smccc::{Smc, psci};

unsafe extern "C" {
    static secondary_start: u8;
}

/// Starts CPU `cpu`, which calls `secondary_main(cpu)`.
///
/// # Errors
///
/// What PSCI answered.
pub fn start_cpu(cpu: usize) -> Result<(), psci::error::Error> {
    let entry = core::ptr::addr_of!(secondary_start) as u64;
    psci::cpu_on::<Smc>(cpu as u64, entry, cpu as u64)
}

/// Switches the machine off.
pub fn machine_off() -> ! {
    let _no_way_back = psci::system_off::<Smc>();
    loop {
        super::registers::wfi();
    }
}
