//! Power: starting CPUs and switching the machine off, by the firmware's PSCI.
//!
//! Arm DEN 0022 ("Power State Coordination Interface"). Which way the firmware is called is the
//! device tree's word. An HVC from EL2 is taken to EL2, so that only a machine that looks for PSCI
//! before it takes the exception (an emulator) can mean it.

use crate::devicetree::host::Conduit;
use core::sync::atomic::{AtomicU8, Ordering};
use smccc::psci::{self, error::Error};
use smccc::{Hvc, Smc};

unsafe extern "C" {
    static secondary_start: u8;
}

const NONE: u8 = 0;
const HVC: u8 = 1;
const SMC: u8 = 2;

// In data, not in BSS, which is cleared only after this is known.
#[unsafe(link_section = ".data.early")]
static CONDUIT: AtomicU8 = AtomicU8::new(NONE);

/// Why a CPU was not switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// The device tree has no PSCI.
    #[error("the device tree has no PSCI to switch it on with (arm,psci-1.0 or arm,psci-0.2)")]
    NoPsci,
    /// The firmware refuses.
    #[error("PSCI CPU_ON says {0:?}")]
    Refused(Error),
}

/// Has PSCI called this way from now on.
pub fn use_conduit(conduit: Conduit) {
    let conduit = match conduit {
        Conduit::Hvc => HVC,
        Conduit::Smc => SMC,
    };
    CONDUIT.store(conduit, Ordering::Relaxed);
}

/// Starts the CPU of this affinity at `secondary_start`, with `argument` in X0.
///
/// # Errors
///
/// [`PowerError`].
///
/// # Safety
///
/// `argument` must be the address of what `secondary_start` reads with its MMU off (tables of EL2's, a
/// stack that is nobody else's, and a number), clean to memory, and stay so for good.
pub unsafe fn start_cpu(affinity: u64, argument: u64) -> Result<(), PowerError> {
    let entry = core::ptr::addr_of!(secondary_start) as u64;
    match CONDUIT.load(Ordering::Relaxed) {
        HVC => psci::cpu_on::<Hvc>(affinity, entry, argument).map_err(PowerError::Refused),
        SMC => psci::cpu_on::<Smc>(affinity, entry, argument).map_err(PowerError::Refused),
        _ => Err(PowerError::NoPsci),
    }
}

/// Switches the machine off, or waits for somebody to do it where there is no PSCI.
pub fn machine_off() -> ! {
    let _no_way_back = match CONDUIT.load(Ordering::Relaxed) {
        HVC => psci::system_off::<Hvc>(),
        SMC => psci::system_off::<Smc>(),
        _ => Ok(()),
    };
    park()
}

/// Waits for good.
pub fn park() -> ! {
    loop {
        super::registers::wfi();
    }
}
