//! The guest's system registers that live in the machine while its vCPU is on its CPU.
//!
//! One vCPU has one physical CPU, pinned, so these are loaded once and never switched. When a vCPU
//! stops they are copied out, so that whoever serves the link can read and write them from another
//! CPU, and put back before it goes on.

use super::registers::{isb, mrs, mrs_over, msr};
use super::setup::read_feature_id;
use stepwell_arch::SystemRegister;
use stepwell_vm::cpu::DebugBank;
use stepwell_vm::registers::Snapshot;

macro_rules! guest_registers {
    ($($register:ident $name:literal),* $(,)?) => {
        const COUNT: usize = [$($name),*].len();

        /// Copies them from the machine.
        pub fn save(into: &mut Snapshot) {
            let values: [(SystemRegister, u64); COUNT] =
                [$((SystemRegister::$register, mrs!($name))),*];
            into.fill(values.into_iter());
        }

        #[inline(always)]
        fn write_guest(register: SystemRegister, value: u64) {
            match register {
                $(SystemRegister::$register => msr!($name, value),)*
                _ => {}
            }
        }

        #[inline(always)]
        fn read_guest(register: SystemRegister) -> Option<u64> {
            Some(match register {
                $(SystemRegister::$register => mrs!($name),)*
                _ => return None,
            })
        }
    };
}

// First what is looked for in a copy most.
guest_registers! {
    CNTV_CVAL_EL0 "cntv_cval_el0",
    CNTV_CTL_EL0 "cntv_ctl_el0",
    SCTLR_EL1 "sctlr_el1",
    TTBR0_EL1 "ttbr0_el1",
    TTBR1_EL1 "ttbr1_el1",
    TCR_EL1 "tcr_el1",
    MAIR_EL1 "mair_el1",
    CPACR_EL1 "cpacr_el1",
    AMAIR_EL1 "amair_el1",
    VBAR_EL1 "vbar_el1",
    ESR_EL1 "esr_el1",
    FAR_EL1 "far_el1",
    AFSR0_EL1 "afsr0_el1",
    AFSR1_EL1 "afsr1_el1",
    ELR_EL1 "elr_el1",
    SPSR_EL1 "spsr_el1",
    SP_EL1 "sp_el1",
    TPIDR_EL0 "tpidr_el0",
    TPIDRRO_EL0 "tpidrro_el0",
    TPIDR_EL1 "tpidr_el1",
    CONTEXTIDR_EL1 "contextidr_el1",
    PAR_EL1 "par_el1",
    CSSELR_EL1 "csselr_el1",
    CNTKCTL_EL1 "cntkctl_el1",
}

/// Puts them into the machine.
///
/// QEMU empties its TLB at each write of TCR_EL1, whatever is written: where several vCPUs share a CPU,
/// it is as it was nearly always.
pub fn load(from: &Snapshot) {
    let is_new = |register, value| register != SystemRegister::TCR_EL1 || read(register) != value;
    let new = from.iter().filter(|&(register, value)| is_new(register, value));
    new.for_each(|(register, value)| write_guest(register, value));
    isb();
}

/// Reads a register of the guest's, or an ID register of the CPU; 0 for any other.
#[inline(always)]
#[must_use]
pub fn read(register: SystemRegister) -> u64 {
    match register {
        SystemRegister::MDSCR_EL1 => mrs!("mdscr_el1"),
        SystemRegister::MDCCINT_EL1 => mrs!("mdccint_el1"),
        SystemRegister::OSLSR_EL1 => mrs!("oslsr_el1"),
        SystemRegister::OSDLR_EL1 => mrs!("osdlr_el1"),
        SystemRegister::MIDR_EL1 => mrs!("midr_el1"),
        SystemRegister::DCZID_EL0 => mrs!("dczid_el0"),
        _ if register.is_feature_id() => read_feature_id(register),
        _ => read_guest(register).unwrap_or(0),
    }
}

/// Writes a register of the guest's. Any other is left alone: what changes EL2 is not to be reached
/// this way.
#[inline(always)]
pub fn write(register: SystemRegister, value: u64) {
    match register {
        SystemRegister::MDSCR_EL1 => msr!("mdscr_el1", value),
        SystemRegister::MDCCINT_EL1 => msr!("mdccint_el1", value),
        SystemRegister::OSLAR_EL1 => msr!("oslar_el1", value),
        SystemRegister::OSDLR_EL1 => msr!("osdlr_el1", value),
        _ => write_guest(register, value),
    }
}

/// Stops the virtual timer from interrupting while its vCPU is stopped. The snapshot has its state.
///
/// CNTVOFF_EL2 goes to 0 with it, so that loading any compare value is safe on QEMU 7.2; see
/// [`super::timer::set_offset`] and [`stepwell_engine::clock::COUNTER_AT_RESET`].
pub fn stop_virtual_timer() {
    msr!("cntv_ctl_el0", 0);
    msr!("cntvoff_el2", 0);
}

macro_rules! debug_banks {
    ($($bank:ident $($n:literal $name:literal),*;)*) => {
        /// Reads a debug register; one that the CPU lacks must not be asked for.
        #[must_use]
        pub fn read_debug(bank: DebugBank, n: usize) -> u64 {
            match (bank, n) {
                $($((DebugBank::$bank, $n) => mrs!($name),)*)*
                _ => 0,
            }
        }

        /// Writes a debug register; one that the CPU lacks must not be asked for.
        pub fn write_debug(bank: DebugBank, n: usize, value: u64) {
            match (bank, n) {
                $($((DebugBank::$bank, $n) => msr!($name, value),)*)*
                _ => {}
            }
        }
    };
}

debug_banks! {
    BreakpointValue
        0 "dbgbvr0_el1", 1 "dbgbvr1_el1", 2 "dbgbvr2_el1", 3 "dbgbvr3_el1", 4 "dbgbvr4_el1", 5
        "dbgbvr5_el1", 6 "dbgbvr6_el1", 7 "dbgbvr7_el1", 8 "dbgbvr8_el1", 9 "dbgbvr9_el1", 10
        "dbgbvr10_el1", 11 "dbgbvr11_el1", 12 "dbgbvr12_el1", 13 "dbgbvr13_el1", 14
        "dbgbvr14_el1", 15 "dbgbvr15_el1";
    BreakpointControl
        0 "dbgbcr0_el1", 1 "dbgbcr1_el1", 2 "dbgbcr2_el1", 3 "dbgbcr3_el1", 4 "dbgbcr4_el1", 5
        "dbgbcr5_el1", 6 "dbgbcr6_el1", 7 "dbgbcr7_el1", 8 "dbgbcr8_el1", 9 "dbgbcr9_el1", 10
        "dbgbcr10_el1", 11 "dbgbcr11_el1", 12 "dbgbcr12_el1", 13 "dbgbcr13_el1", 14
        "dbgbcr14_el1", 15 "dbgbcr15_el1";
    WatchpointValue
        0 "dbgwvr0_el1", 1 "dbgwvr1_el1", 2 "dbgwvr2_el1", 3 "dbgwvr3_el1", 4 "dbgwvr4_el1", 5
        "dbgwvr5_el1", 6 "dbgwvr6_el1", 7 "dbgwvr7_el1", 8 "dbgwvr8_el1", 9 "dbgwvr9_el1", 10
        "dbgwvr10_el1", 11 "dbgwvr11_el1", 12 "dbgwvr12_el1", 13 "dbgwvr13_el1", 14
        "dbgwvr14_el1", 15 "dbgwvr15_el1";
    WatchpointControl
        0 "dbgwcr0_el1", 1 "dbgwcr1_el1", 2 "dbgwcr2_el1", 3 "dbgwcr3_el1", 4 "dbgwcr4_el1", 5
        "dbgwcr5_el1", 6 "dbgwcr6_el1", 7 "dbgwcr7_el1", 8 "dbgwcr8_el1", 9 "dbgwcr9_el1", 10
        "dbgwcr10_el1", 11 "dbgwcr11_el1", 12 "dbgwcr12_el1", 13 "dbgwcr13_el1", 14
        "dbgwcr14_el1", 15 "dbgwcr15_el1";
}

macro_rules! passed_debug_registers {
    ($($register:ident $name:literal $access:tt),* $(,)?) => {
        /// Carries out a guest's MRS or MSR of a debug register that EL2 has no use for, on the
        /// machine's. `value`: what is written, or what the destination holds before it is read,
        /// which it may go on holding. Only for an access that has trapped: the register exists.
        #[must_use]
        pub fn access_debug(register: SystemRegister, value: u64, write: bool) -> Option<u64> {
            match (register, write) {
                $((SystemRegister::$register, passed_debug_registers!(@direction $access)) => {
                    Some(passed_debug_registers!(@$access $name, value))
                })*
                _ => None,
            }
        }
    };
    (@direction read) => { false };
    (@direction write) => { true };
    (@read $name:literal, $value:ident) => { mrs_over!($name, $value) };
    (@write $name:literal, $value:ident) => {{
        msr!($name, $value);
        0
    }};
}

passed_debug_registers! {
    MDCCINT_EL1 "mdccint_el1" read,
    MDCCINT_EL1 "mdccint_el1" write,
    MDRAR_EL1 "mdrar_el1" read,
    OSDLR_EL1 "osdlr_el1" read,
    OSDLR_EL1 "osdlr_el1" write,
    DBGPRCR_EL1 "dbgprcr_el1" read,
    DBGPRCR_EL1 "dbgprcr_el1" write,
    DBGAUTHSTATUS_EL1 "dbgauthstatus_el1" read,
    DBGCLAIMSET_EL1 "dbgclaimset_el1" read,
    DBGCLAIMSET_EL1 "dbgclaimset_el1" write,
    DBGCLAIMCLR_EL1 "dbgclaimclr_el1" read,
    DBGCLAIMCLR_EL1 "dbgclaimclr_el1" write,
    OSECCR_EL1 "oseccr_el1" read,
    OSECCR_EL1 "oseccr_el1" write,
    OSDTRRX_EL1 "osdtrrx_el1" read,
    OSDTRRX_EL1 "osdtrrx_el1" write,
    OSDTRTX_EL1 "osdtrtx_el1" read,
    OSDTRTX_EL1 "osdtrtx_el1" write,
    MDCCSR_EL0 "mdccsr_el0" read,
    DBGDTR_EL0 "dbgdtr_el0" read,
    DBGDTR_EL0 "dbgdtr_el0" write,
    DBGDTRRX_EL0 "dbgdtrrx_el0" read,
    DBGDTRRX_EL0 "dbgdtrtx_el0" write,
}
