//! GICv3: distributor, this CPU's redistributor and CPU interface; or a GICv2, where the board has one.
//!
//! Of a GICv2 it has what a guest takes that has a timer and calls other CPUs, and no groups.

mod version_2;

use super::{read32, write32};

/// The distributor.
pub const GICD: u64 = 0x0800_0000;
/// The first CPU's redistributor.
pub const GICR: u64 = 0x080a_0000;
/// Its frame of SGIs and PPIs.
pub const GICR_SGI: u64 = GICR + 0x1_0000;
/// Bytes from one redistributor to the next.
pub const GICR_STRIDE: u64 = 0x2_0000;
/// GICD_CTLR.
pub const GICD_CTLR: u64 = GICD;
/// GICR_WAKER.
pub const WAKER: u64 = 0x14;
/// GICx_IGROUPR0.
pub const IGROUPR: u64 = 0x080;
/// GICx_ISENABLER0.
pub const ISENABLER: u64 = 0x100;
/// GICx_ICENABLER0.
pub const ICENABLER: u64 = 0x180;
/// GICx_ISPENDR0.
pub const ISPENDR: u64 = 0x200;
/// GICx_ICPENDR0.
pub const ICPENDR: u64 = 0x280;
/// GICx_ISACTIVER0.
pub const ISACTIVER: u64 = 0x300;
/// GICx_IPRIORITYR0.
pub const IPRIORITYR: u64 = 0x400;
/// GICx_ICFGR0.
pub const ICFGR: u64 = 0xc00;
/// INTID read from ICC_IAR1_EL1 when there is none.
pub const SPURIOUS: u64 = 1023;

/// Brings the GIC up for a CPU: group 1, all priorities let through, nothing enabled yet.
pub fn start(cpu: u64) {
    if version_2::look() {
        return version_2::start();
    }
    // Affinity routing, groups 0 and 1.
    write32(GICD_CTLR, 0x13);
    let rd = GICR + cpu * GICR_STRIDE;
    write32(rd + WAKER, 0);
    while read32(rd + WAKER) & 4 != 0 {}
    write32(rd + 0x1_0000 + IGROUPR, u32::MAX);
    for word in 0..8 {
        write32(rd + 0x1_0000 + IPRIORITYR + 4 * word, 0xa0a0_a0a0);
    }
    crate::write_register!("icc_sre_el1", 7);
    crate::write_register!("icc_pmr_el1", 0xff);
    crate::write_register!("icc_bpr1_el1", 0);
    crate::write_register!("icc_ctlr_el1", 0);
    crate::write_register!("icc_igrpen1_el1", 1);
}

/// Enables an SGI or PPI of a CPU, which with a GICv2 is the one that executes this.
pub fn enable(cpu: u64, intid: u32) {
    if version_2::is_there() {
        return version_2::enable(intid);
    }
    write32(GICR_SGI + cpu * GICR_STRIDE + ISENABLER, 1 << intid);
}

/// Puts an SGI or PPI of a CPU into Group 1, or into Group 0, which is taken as FIQ.
pub fn set_group_1(cpu: u64, intid: u32, is_group_1: bool) {
    let register = GICR_SGI + cpu * GICR_STRIDE + IGROUPR;
    let others = read32(register) & !(1 << intid);
    write32(register, others | u32::from(is_group_1) << intid);
}

/// Lets this CPU have interrupts of Group 0.
pub fn enable_group_0() {
    crate::write_register!("icc_igrpen0_el1", 1);
}

/// Takes the highest pending interrupt.
#[must_use]
pub fn acknowledge() -> u64 {
    if version_2::is_there() {
        return version_2::acknowledge();
    }
    crate::read_register!("icc_iar1_el1")
}

/// Ends it.
pub fn end(intid: u64) {
    if version_2::is_there() {
        return version_2::end(intid);
    }
    crate::write_register!("icc_eoir1_el1", intid);
}

/// Sends an SGI to CPUs of cluster 0.
pub fn send_sgi(intid: u64, targets: u64) {
    if version_2::is_there() {
        return version_2::send_sgi(intid, targets);
    }
    crate::write_register!("icc_sgi1r_el1", intid << 24 | targets);
}
