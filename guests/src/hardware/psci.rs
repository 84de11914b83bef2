//! PSCI over HVC.

use core::arch::asm;

/// PSCI_VERSION.
pub const VERSION: u64 = 0x8400_0000;
/// CPU_OFF.
pub const CPU_OFF: u64 = 0x8400_0002;
/// CPU_ON, 64-bit convention.
pub const CPU_ON: u64 = 0xc400_0003;
/// AFFINITY_INFO, 64-bit convention.
pub const AFFINITY_INFO: u64 = 0xc400_0004;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u64 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u64 = 0x8400_0009;
/// PSCI_FEATURES.
pub const FEATURES: u64 = 0x8400_000a;

/// NOT_SUPPORTED.
pub const NOT_SUPPORTED: i32 = -1;
/// INVALID_PARAMETERS.
pub const INVALID_PARAMETERS: i32 = -2;
/// ALREADY_ON.
pub const ALREADY_ON: i32 = -4;

/// Calls the firmware.
#[inline(never)]
pub fn call(function: u64, x1: u64, x2: u64, x3: u64) -> u64 {
    let result;
    // SAFETY: SMCCC 1.0 lets the callee change x0 to x17, all of which are declared.
    unsafe {
        asm!("hvc #0", inout("x0") function => result, inout("x1") x1 => _, inout("x2") x2 => _,
            inout("x3") x3 => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _,
            out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _,
            out("x15") _, out("x16") _, out("x17") _);
    }
    result
}

/// Powers the machine off.
pub fn system_off() -> ! {
    call(SYSTEM_OFF, 0, 0, 0);
    loop {
        crate::instruction!("wfi");
    }
}
