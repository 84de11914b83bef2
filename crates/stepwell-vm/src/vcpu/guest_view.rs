//! A stopped vCPU as the guest would see it, for whoever serves the link.
//!
//! Everything comes from copies, so any CPU may look: PSTATE.SS and the debug registers are the
//! guest's own, and time is the guest's.

use super::{address_space, time};
use crate::cpu::Context as _;
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::memory::Physical;
use crate::vcpu::acknowledged::Acknowledged;
use crate::vcpu::state::VcpuCore;
use stepwell_arch::stage1::{Access, walk};
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_protocol::Registers;

/// Writes the core registers. Refuses, and writes nothing, where PSTATE would leave EL0 and AArch64
/// EL1. In AArch32 state R13 has two names, X13 and SP: a new SP is taken before a new X13.
pub fn write<C: Cpu>(core: &mut VcpuCore<C>, registers: &Registers) -> bool {
    let pstate = Pstate(registers.pstate);
    let mode = pstate.0 & Pstate::M_MASK;
    if ![Pstate::M_EL0T, Pstate::M_EL1T, Pstate::M_EL1H, Pstate::M_USER].contains(&mode) {
        return false;
    }
    if core.context.elr != registers.pc {
        // Whoever writes it knows what is there.
        core.acknowledged = Some(Acknowledged { pc: registers.pc, act: false });
        core.is_suspended = false;
        core.wakes_at = u64::MAX;
    } else if let Some(acknowledged) = &mut core.acknowledged {
        acknowledged.act = false;
    }
    let has_new_sp = registers.sp != core.sp();
    core.context.set_general(&registers.x);
    core.context.elr = registers.pc;
    core.context.spsr = pstate.0;
    if pstate.is_aarch32() {
        if has_new_sp {
            core.context.set_register(super::state::SP_USR, registers.sp);
        }
    } else if pstate.uses_sp_elx() {
        core.snapshot.write(SystemRegister::SP_EL1, registers.sp);
    } else {
        core.context.sp_el0 = registers.sp;
    }
    core.monitor.clear();
    true
}

/// Reads a system register.
#[must_use]
pub fn read_system<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    vcpu: u8,
    core: &VcpuCore<C>,
    register: SystemRegister,
) -> Option<u64> {
    match register {
        SystemRegister::SP_EL0 => return Some(core.context.sp_el0),
        SystemRegister::MPIDR_EL1 => return Some(super::state::vmpidr(usize::from(vcpu))),
        SystemRegister::MIDR_EL1 => return Some(cpu.read(SystemRegister::MIDR_EL1)),
        SystemRegister::ZCR_EL1 => return core.simd.sve.as_ref().map(|sve| sve.zcr),
        SystemRegister::CNTFRQ_EL0 => return Some(cpu.frequency_hz()),
        _ => {}
    }
    if register.is_feature_id() {
        return Some(domain.feature_id(cpu, register));
    }
    if let Some(value) = time::read_standing(cpu, domain, core, register) {
        return Some(value);
    }
    core.snapshot.read(register).or_else(|| core.debug.read(cpu, register))
}

/// Writes a system register; tells whether that was possible.
pub fn write_system<C: Cpu>(
    cpu: &C,
    core: &mut VcpuCore<C>,
    register: SystemRegister,
    value: u64,
) -> bool {
    match register {
        SystemRegister::SP_EL0 => {
            core.context.sp_el0 = value;
            true
        }
        SystemRegister::ZCR_EL1 => {
            let Some(sve) = &mut core.simd.sve else { return false };
            sve.zcr = value;
            core.simd.is_written = true;
            true
        }
        _ => {
            core.snapshot.write(register, value) || core.debug.write(cpu, register, value).is_some()
        }
    }
}

/// Translates by the guest's stage 1, whatever the permissions: a debugger looks, and changes
/// nothing.
#[must_use]
pub fn translate<C: Cpu>(cpu: &C, domain: &Domain<C>, core: &VcpuCore<C>, va: Va) -> Option<Ipa> {
    let regime = address_space::of_stopped(cpu, core);
    walk(&regime, va, Access::PRIVILEGED_READ, &Physical(&domain.ram))
        .outcome
        .ok()
        .map(|found| found.ipa)
}
