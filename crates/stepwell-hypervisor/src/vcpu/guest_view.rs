//! A standing vCPU as the guest would see it, for whoever serves the link.
//!
//! Everything comes from copies, so any CPU may look: PSTATE.SS and the debug registers are the
//! guest's own, and time is the guest's.

use super::VcpuCore;
use super::time;
use crate::domain::Domain;
use crate::hw::setup::guest_feature_id;
use crate::mem::guest::{GuestRam, OutsideRam};
use stepwell_arch::stage1::{Access, PhysicalMemory, Regime, walk};
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_wire::Registers;

/// SP_usr of AArch32, R13, is X13.
const SP_USR: u8 = 13;

/// The core registers.
#[must_use]
pub fn read(core: &VcpuCore) -> Registers {
    Registers { x: core.context.x, sp: sp(core), pc: core.context.elr, pstate: core.context.spsr }
}

fn sp(core: &VcpuCore) -> u64 {
    if core.pstate().is_aarch32() {
        core.context.register(SP_USR)
    } else if core.pstate().uses_sp_elx() {
        core.snapshot.read(SystemRegister::SP_EL1).unwrap_or(0)
    } else {
        core.context.sp_el0
    }
}

/// Writes the core registers. Refuses, and writes nothing, where PSTATE would leave EL0 and AArch64
/// EL1. In AArch32 state R13 has two names, X13 and SP: a new SP is taken before a new X13.
pub fn write(core: &mut VcpuCore, registers: &Registers) -> bool {
    let pstate = Pstate(registers.pstate);
    let mode = pstate.0 & Pstate::M_MASK;
    if ![Pstate::M_EL0T, Pstate::M_EL1T, Pstate::M_EL1H, Pstate::M_USER].contains(&mode) {
        return false;
    }
    if core.context.elr != registers.pc {
        // Whoever writes it knows what stands there.
        core.reported_pc = Some(registers.pc);
        core.is_suspended = false;
    }
    let has_new_sp = registers.sp != sp(core);
    core.context.x = registers.x;
    core.context.elr = registers.pc;
    core.context.spsr = pstate.0;
    if pstate.is_aarch32() {
        if has_new_sp {
            core.context.set_register(SP_USR, registers.sp);
        }
    } else if pstate.uses_sp_elx() {
        core.snapshot.write(SystemRegister::SP_EL1, registers.sp);
    } else {
        core.context.sp_el0 = registers.sp;
    }
    core.monitor.clear();
    core.reported_call = None;
    core.debug.reported_watch = None;
    true
}

/// Reads a system register.
#[must_use]
pub fn read_system(
    domain: &Domain,
    vcpu: u8,
    core: &VcpuCore,
    register: SystemRegister,
) -> Option<u64> {
    match register {
        SystemRegister::SP_EL0 => return Some(core.context.sp_el0),
        SystemRegister::MPIDR_EL1 => return Some(super::vmpidr(usize::from(vcpu))),
        SystemRegister::MIDR_EL1 => return Some(crate::hw::setup::midr()),
        SystemRegister::ZCR_EL1 => return core.simd.sve.as_ref().map(|sve| sve.zcr),
        SystemRegister::CNTFRQ_EL0 => return Some(crate::hw::timer::frequency_hz()),
        _ => {}
    }
    if register.is_feature_id() {
        return Some(guest_feature_id(register));
    }
    if let Some(value) = time::read_standing(domain, core, register) {
        return Some(value);
    }
    core.snapshot.read(register).or_else(|| core.debug.read(register))
}

/// Writes a system register; tells whether that was possible.
pub fn write_system(core: &mut VcpuCore, register: SystemRegister, value: u64) -> bool {
    match register {
        SystemRegister::SP_EL0 => {
            core.context.sp_el0 = value;
            true
        }
        SystemRegister::ZCR_EL1 => {
            let Some(sve) = &mut core.simd.sve else { return false };
            sve.zcr = value;
            core.simd.set_written();
            true
        }
        _ => core.snapshot.write(register, value) || core.debug.write(register, value).is_some(),
    }
}

impl PhysicalMemory for GuestRam {
    type Error = OutsideRam;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, OutsideRam> {
        let mut bytes = [0; 8];
        self.read(ipa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Translates by the guest's stage 1, whatever the permissions: a debugger looks, and changes
/// nothing.
#[must_use]
pub fn translate(domain: &Domain, core: &VcpuCore, va: Va) -> Option<Ipa> {
    let register = |register| core.snapshot.read(register).unwrap_or(0);
    let regime = Regime {
        sctlr: register(SystemRegister::SCTLR_EL1),
        tcr: register(SystemRegister::TCR_EL1),
        ttbr0: register(SystemRegister::TTBR0_EL1),
        ttbr1: register(SystemRegister::TTBR1_EL1),
        mair: register(SystemRegister::MAIR_EL1),
        pa_bits: Regime::pa_bits_of(guest_feature_id(SystemRegister::ID_AA64MMFR0_EL1) & 0xf),
    };
    walk(&regime, va, Access::PRIVILEGED_READ, &domain.ram).outcome.ok().map(|found| found.ipa)
}
