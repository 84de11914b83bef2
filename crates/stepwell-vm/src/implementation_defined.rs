//! IMPLEMENTATION DEFINED registers of the CPUs that a guest may take its own for.
//!
//! The real ones control prefetchers, error injection and caches that all guests share, so accesses
//! trap (HCR_EL2.TIDCP). QEMU gives its CPUs constants in their places, which software that knows the
//! CPU reads: so do we, and writes change nothing. What is not here is undefined.
//!
//! Source: Arm Cortex-A57 MPCore Processor Technical Reference Manual (DDI 0488), "AArch64
//! implementation defined registers"; those of Cortex-A53 (DDI 0500) and Cortex-A72 (100095).

use crate::vgic::GICD_BASE;
use stepwell_arch::SystemRegister;

/// L2CTLR_EL1: from bit 24 on, the number of CPUs less one.
const L2CTLR_EL1: SystemRegister = SystemRegister::new(3, 1, 11, 0, 2);
/// CBAR_EL1: where the CPU's peripherals are, read-only.
const CBAR_EL1: SystemRegister = SystemRegister::new(3, 1, 15, 3, 0);
/// L2ECTLR_EL1, L2ACTLR_EL1, CPUACTLR_EL1, CPUECTLR_EL1, CPUMERRSR_EL1, L2MERRSR_EL1.
const ZEROS: [SystemRegister; 6] = [
    SystemRegister::new(3, 1, 11, 0, 3),
    SystemRegister::new(3, 1, 15, 0, 0),
    SystemRegister::new(3, 1, 15, 2, 0),
    SystemRegister::new(3, 1, 15, 2, 1),
    SystemRegister::new(3, 1, 15, 2, 2),
    SystemRegister::new(3, 1, 15, 2, 3),
];

/// Whether the CPU of this MIDR_EL1 has these: Cortex-A53, A57 and A72, and QEMU's `max`, which is
/// made from them.
const fn has_them(midr: u64) -> bool {
    let (implementer, part) = (midr >> 24 & 0xff, midr >> 4 & 0xfff);
    matches!((implementer, part), (0x41, 0xd03 | 0xd07 | 0xd08) | (0, 0x051))
}

/// What a guest with so many vCPUs reads.
#[must_use]
pub fn read(midr: u64, register: SystemRegister, vcpus: usize) -> Option<u64> {
    match register {
        _ if !has_them(midr) => None,
        L2CTLR_EL1 => Some((vcpus.max(1) as u64 - 1) << 24),
        CBAR_EL1 => Some(GICD_BASE.0),
        _ => ZEROS.contains(&register).then_some(0),
    }
}

/// Whether a guest may write a register; the value goes nowhere.
#[must_use]
pub fn is_written(midr: u64, register: SystemRegister) -> bool {
    register != CBAR_EL1 && read(midr, register, 1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORTEX_A57: u64 = 0x411f_d070;
    const NEOVERSE_N1: u64 = 0x414f_d0c1;

    #[test]
    fn a_cortex_a57_has_eight() {
        let space = (0..=u16::MAX).map(SystemRegister);
        let there = |register: &SystemRegister| read(CORTEX_A57, *register, 2).is_some();
        let found: Vec<_> = space.filter(there).collect();
        assert_eq!(found.len(), 8);
        let read_only: Vec<_> =
            found.into_iter().filter(|&register| !is_written(CORTEX_A57, register)).collect();
        assert_eq!(read_only, [CBAR_EL1]);
        assert_eq!(read(CORTEX_A57, CBAR_EL1, 1), Some(0x0800_0000));
        assert_eq!(
            [1, 2, 4].map(|n| read(CORTEX_A57, L2CTLR_EL1, n)),
            [0, 1, 3].map(|n| Some(n << 24))
        );
        assert_eq!(read(CORTEX_A57, SystemRegister::SCTLR_EL1, 1), None);
    }

    #[test]
    fn another_cpu_has_none_of_them() {
        assert_eq!(read(NEOVERSE_N1, L2CTLR_EL1, 1), None);
        assert!(!is_written(NEOVERSE_N1, L2CTLR_EL1));
    }
}
