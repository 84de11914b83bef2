//! What KVM calls a vCPU's registers.

use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SVE, KVM_REG_ARM64_SYSREG, KVM_REG_SIZE_U32,
    KVM_REG_SIZE_U64, KVM_REG_SIZE_U128, KVM_REG_SIZE_U256, KVM_REG_SIZE_U512, KVM_REG_SIZE_U2048,
    kvm_regs, user_fpsimd_state, user_pt_regs,
};
use std::mem::offset_of;
use stepwell_arch::SystemRegister;

/// Core registers are counted in words.
const WORD: usize = 4;

const fn core(offset: usize, size: u64) -> u64 {
    KVM_REG_ARM64 | size | KVM_REG_ARM_CORE as u64 | (offset / WORD) as u64
}

const REGS: usize = offset_of!(kvm_regs, regs);
const FP: usize = offset_of!(kvm_regs, fp_regs);

/// PC.
pub const PC: u64 = core(REGS + offset_of!(user_pt_regs, pc), KVM_REG_SIZE_U64);
/// PSTATE.
pub const PSTATE: u64 = core(REGS + offset_of!(user_pt_regs, pstate), KVM_REG_SIZE_U64);
/// SP_EL0.
pub const SP_EL0: u64 = core(REGS + offset_of!(user_pt_regs, sp), KVM_REG_SIZE_U64);
const SP_EL1: u64 = core(offset_of!(kvm_regs, sp_el1), KVM_REG_SIZE_U64);
const ELR_EL1: u64 = core(offset_of!(kvm_regs, elr_el1), KVM_REG_SIZE_U64);
const SPSR_EL1: u64 = core(offset_of!(kvm_regs, spsr), KVM_REG_SIZE_U64);
/// FPSR, of four bytes.
pub const FPSR: u64 = core(FP + offset_of!(user_fpsimd_state, fpsr), KVM_REG_SIZE_U32);
/// FPCR, of four bytes.
pub const FPCR: u64 = core(FP + offset_of!(user_fpsimd_state, fpcr), KVM_REG_SIZE_U32);

/// X`n`.
#[must_use]
pub const fn x(n: usize) -> u64 {
    core(REGS + offset_of!(user_pt_regs, regs) + 8 * n, KVM_REG_SIZE_U64)
}

/// V`n`, of 16 bytes.
#[must_use]
pub const fn v(n: usize) -> u64 {
    core(FP + offset_of!(user_fpsimd_state, vregs) + 16 * n, KVM_REG_SIZE_U128)
}

const fn sve(id: usize, size: u64) -> u64 {
    KVM_REG_ARM64 | size | KVM_REG_ARM64_SVE as u64 | id as u64
}

/// Z`n`, of 256 bytes, however many of them the CPU has.
#[must_use]
pub const fn z(n: usize) -> u64 {
    sve(n << 5, KVM_REG_SIZE_U2048)
}

/// P`n`, of 32 bytes, however many of them the CPU has.
#[must_use]
pub const fn p(n: usize) -> u64 {
    sve(0x400 | n << 5, KVM_REG_SIZE_U256)
}

/// FFR, likewise.
pub const FFR: u64 = p(16);
/// KVM_REG_ARM64_SVE_VLS: the lengths that the guest's vectors can have, a bit for each number of quadwords,
/// from one on.
pub const VECTOR_LENGTHS: u64 = sve(0xffff, KVM_REG_SIZE_U512);

const fn encoded(register: SystemRegister) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | register.0 as u64
}

/// The guest's counter, whose write moves its offset: CNTVCT_EL0. The two are each other's by an
/// accident that has become the interface (KVM's documentation, "ARM registers").
pub const COUNTER: u64 = encoded(SystemRegister::CNTV_CVAL_EL0);

/// A system register.
#[must_use]
pub const fn system(register: SystemRegister) -> u64 {
    match register {
        SystemRegister::SP_EL1 => SP_EL1,
        SystemRegister::ELR_EL1 => ELR_EL1,
        SystemRegister::SPSR_EL1 => SPSR_EL1,
        SystemRegister::CNTV_CVAL_EL0 => encoded(SystemRegister::CNTVCT_EL0),
        _ => encoded(register),
    }
}
