//! The system registers that the fake CPU has of each vCPU.

use stepwell_arch::SystemRegister;

/// What is saved and loaded with a vCPU.
pub const KEPT: [SystemRegister; 13] = [
    SystemRegister::SCTLR_EL1,
    SystemRegister::VBAR_EL1,
    SystemRegister::ESR_EL1,
    SystemRegister::FAR_EL1,
    SystemRegister::ELR_EL1,
    SystemRegister::SPSR_EL1,
    SystemRegister::SP_EL1,
    SystemRegister::TTBR0_EL1,
    SystemRegister::TTBR1_EL1,
    SystemRegister::TCR_EL1,
    SystemRegister::MAIR_EL1,
    SystemRegister::CNTV_CVAL_EL0,
    SystemRegister::CNTV_CTL_EL0,
];
