//! GICv2, which a board has that cannot have the other: distributor, and a CPU interface in memory.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::super::{read32, write32};
use super::{GICD, IPRIORITYR, ISENABLER};
use crate::hardware::cpus::{self, CPUS_MAX};

/// The CPU interface, each CPU's own.
const GICC: u64 = 0x0801_0000;
const GICC_CTLR: u64 = GICC;
const GICC_PMR: u64 = GICC + 0x04;
const GICC_IAR: u64 = GICC + 0x0c;
const GICC_EOIR: u64 = GICC + 0x10;
const GICD_CTLR: u64 = GICD;
const GICD_SGIR: u64 = GICD + 0xf00;
/// GICD_ICPIDR2, where a GICv3 has a reserved register; its bits 7:4 are the version.
const ICPIDR2: u64 = GICD + 0xfe8;
const INTID: u64 = 0x3ff;

static IS_THERE: AtomicBool = AtomicBool::new(false);
/// What each CPU's GICC_IAR has told last: with an SGI, who has sent it, which its end has to name.
static ACKNOWLEDGED: [AtomicU32; CPUS_MAX] = [const { AtomicU32::new(0) }; CPUS_MAX];

/// Whether the board has one, as [`look`] has found.
pub(super) fn is_there() -> bool {
    IS_THERE.load(Relaxed)
}

/// Looks whether the board has one.
pub(super) fn look() -> bool {
    let is_there = read32(ICPIDR2) >> 4 & 0xf == 2;
    IS_THERE.store(is_there, Relaxed);
    is_there
}

/// Brings it up for this CPU.
pub(super) fn start() {
    write32(GICD_CTLR, 1);
    for word in 0..8 {
        write32(GICD + IPRIORITYR + 4 * word, 0xa0a0_a0a0);
    }
    write32(GICC_PMR, 0xff);
    write32(GICC_CTLR, 1);
}

/// Enables an SGI or PPI of this CPU.
pub(super) fn enable(intid: u32) {
    write32(GICD + ISENABLER, 1 << intid);
}

fn acknowledged() -> &'static AtomicU32 {
    &ACKNOWLEDGED[cpus::number() % CPUS_MAX]
}

pub(super) fn acknowledge() -> u64 {
    let told = read32(GICC_IAR);
    acknowledged().store(told, Relaxed);
    u64::from(told) & INTID
}

pub(super) fn end(intid: u64) {
    let told = acknowledged().load(Relaxed);
    let is_same = u64::from(told) & INTID == intid;
    write32(GICC_EOIR, if is_same { told } else { intid as u32 });
}

pub(super) fn send_sgi(intid: u64, targets: u64) {
    write32(GICD_SGIR, (targets << 16 | intid) as u32);
}
