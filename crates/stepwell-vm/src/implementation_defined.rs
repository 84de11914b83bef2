//! IMPLEMENTATION DEFINED registers of the CPUs that a guest may take its own for.
//!
//! The real ones control prefetchers, error injection and caches that all guests share, so accesses
//! trap (HCR_EL2.TIDCP). QEMU gives its CPUs constants in their places, which software that knows the
//! CPU reads: so do we, and writes change nothing. What is not here is undefined.
//!
//! Source: Arm Cortex-A57 MPCore Processor Technical Reference Manual (DDI 0488), "AArch64
//! implementation defined registers"; those of Cortex-A53 (DDI 0500), Cortex-A72 (100095) and
//! Neoverse N1 (100616).

use crate::vgic::GICD_BASE;
use stepwell_arch::SystemRegister;

/// A register, what a guest reads there, and whether it may write it.
type Constant = (SystemRegister, u64, bool);

/// L2CTLR_EL1: from bit 24 on, the number of CPUs less one.
const L2CTLR_EL1: SystemRegister = SystemRegister::new(3, 1, 11, 0, 2);
/// CBAR_EL1: where the CPU's peripherals are.
const CBAR_EL1: Constant = (SystemRegister::new(3, 1, 15, 3, 0), GICD_BASE.0, false);

/// Cortex-A53, A57 and A72, and QEMU's `max`, which is made from them.
const CORTEX_A57: &[Constant] = &[
    (L2CTLR_EL1, 0, true),
    (SystemRegister::new(3, 1, 11, 0, 3), 0, true), // L2ECTLR_EL1
    (SystemRegister::new(3, 1, 15, 0, 0), 0, true), // L2ACTLR_EL1
    (SystemRegister::new(3, 1, 15, 2, 0), 0, true), // CPUACTLR_EL1
    (SystemRegister::new(3, 1, 15, 2, 1), 0, true), // CPUECTLR_EL1
    (SystemRegister::new(3, 1, 15, 2, 2), 0, true), // CPUMERRSR_EL1
    (SystemRegister::new(3, 1, 15, 2, 3), 0, true), // L2MERRSR_EL1
    CBAR_EL1,
];

/// Neoverse N1.
const NEOVERSE_N1: &[Constant] = &[
    (SystemRegister::new(3, 0, 15, 0, 0), 4, false), // CPUCFR_EL1: no SCU
    (SystemRegister::new(3, 0, 15, 1, 0), 0, true),  // CPUACTLR_EL1
    (SystemRegister::new(3, 0, 15, 1, 1), 0, true),  // CPUACTLR2_EL1
    (SystemRegister::new(3, 0, 15, 1, 2), 0, true),  // CPUACTLR3_EL1
    (SystemRegister::new(3, 0, 15, 1, 4), 0x9_6156_3010, true), // CPUECTLR_EL1
    (SystemRegister::new(3, 0, 15, 2, 0), 0, true),  // ERXPFGF_EL1
    (SystemRegister::new(3, 0, 15, 2, 1), 0, true),  // ERXPFGCTL_EL1
    (SystemRegister::new(3, 0, 15, 2, 2), 0, true),  // ERXPFGCDN_EL1
    (SystemRegister::new(3, 0, 15, 2, 7), 0, true),  // CPUPWRCTLR_EL1
    (SystemRegister::new(3, 0, 15, 7, 0), 0, true),  // ATCR_EL1
    CBAR_EL1,
];

/// Those of the CPU with this MIDR_EL1.
const fn constants(midr: u64) -> &'static [Constant] {
    let (implementer, part) = (midr >> 24 & 0xff, midr >> 4 & 0xfff);
    match (implementer, part) {
        (0x41, 0xd03 | 0xd07 | 0xd08) | (0, 0x051) => CORTEX_A57,
        (0x41, 0xd0c) => NEOVERSE_N1,
        _ => &[],
    }
}

/// What a guest with so many vCPUs reads.
#[must_use]
pub fn read(midr: u64, register: SystemRegister, vcpus: usize) -> Option<u64> {
    let &(_, value, _) = constants(midr).iter().find(|(known, ..)| *known == register)?;
    Some(if register == L2CTLR_EL1 { (vcpus.max(1) as u64 - 1) << 24 } else { value })
}

/// Whether a guest may write a register; the value goes nowhere.
#[must_use]
pub fn is_written(midr: u64, register: SystemRegister) -> bool {
    constants(midr).iter().any(|&(known, _, is_written)| known == register && is_written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A57: u64 = 0x411f_d070;
    const N1: u64 = 0x414f_d0c1;
    const A76: u64 = 0x414f_d0b1;

    /// How many there are, and how many of them may be written.
    fn count(midr: u64) -> (usize, usize) {
        let all = (0..=u16::MAX).map(SystemRegister);
        let there = all.filter(|&register| read(midr, register, 1).is_some());
        let written = there.clone().filter(|&register| is_written(midr, register));
        (there.count(), written.count())
    }

    #[test]
    fn each_cpu_has_its_own() {
        assert_eq!([A57, N1, A76].map(count), [(8, 7), (11, 9), (0, 0)]);
        assert_eq!(read(A57, CBAR_EL1.0, 1), Some(0x0800_0000));
        assert_eq!(read(N1, SystemRegister::new(3, 0, 15, 0, 0), 1), Some(4));
        let cpus = |n| read(A57, L2CTLR_EL1, n);
        assert_eq!([0, 1, 2, 8].map(cpus), [0, 0, 1, 7].map(|n| Some(n << 24)));
    }
}
