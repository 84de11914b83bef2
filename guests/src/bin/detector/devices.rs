//! What the board's devices say that they are, and how they keep what is written.

use stepwell_guests::hardware::{gic, read32, read64, uart, write32};

use crate::value;

/// PL011: its identification, and registers that nothing here has changed.
const UART: [(&str, u64); 11] = [
    ("devices.uart.flags", 0x18),
    ("devices.uart.control", 0x30),
    ("devices.uart.line", 0x2c),
    ("devices.uart.level", 0x34),
    ("devices.uart.mask", 0x38),
    ("devices.uart.periphid0", 0xfe0),
    ("devices.uart.periphid1", 0xfe4),
    ("devices.uart.periphid2", 0xfe8),
    ("devices.uart.cellid0", 0xff0),
    ("devices.uart.cellid3", 0xffc),
    ("devices.uart.reserved", 0x0c),
];
/// Distributor.
const GICD: [(&str, u64); 8] = [
    ("devices.gicd.ctlr", 0),
    ("devices.gicd.typer", 4),
    ("devices.gicd.iidr", 8),
    ("devices.gicd.typer2", 0xc),
    ("devices.gicd.pidr2", 0xffe8),
    ("devices.gicd.pidr0", 0xffe0),
    ("devices.gicd.cidr0", 0xfff0),
    ("devices.gicd.statusr", 0x10),
];
/// Redistributor of the first CPU.
const GICR: [(&str, u64); 6] = [
    ("devices.gicr.ctlr", 0),
    ("devices.gicr.iidr", 4),
    ("devices.gicr.waker", 0x14),
    ("devices.gicr.pidr2", 0xffe8),
    ("devices.gicr.igroupr0", 0x1_0080),
    ("devices.gicr.icfgr1", 0x1_0c04),
];

pub fn look() {
    for (base, registers) in [(uart::BASE, &UART[..]), (gic::GICD, &GICD), (gic::GICR, &GICR)] {
        for &(name, offset) in registers {
            value(name, read32(base + offset).into());
        }
    }
    for cpu in 0..2 {
        value("devices.gicr.typer", read64(gic::GICR + cpu * gic::GICR_STRIDE + 8));
    }
    // All ones, where that changes nothing that this program needs; then as it was.
    for (name, at) in [
        ("devices.gicd.keeps.isenabler", gic::GICD + gic::ISENABLER + 4),
        ("devices.gicd.keeps.priority", gic::GICD + gic::IPRIORITYR + 32),
        ("devices.gicd.keeps.icfgr", gic::GICD + gic::ICFGR + 8),
        ("devices.gicr.keeps.priority", gic::GICR_SGI + gic::IPRIORITYR + 28),
        ("devices.gicr.keeps.icfgr0", gic::GICR_SGI + gic::ICFGR),
        ("devices.gicr.keeps.icfgr1", gic::GICR_SGI + gic::ICFGR + 4),
    ] {
        let before = read32(at);
        write32(at, u32::MAX);
        value(name, read32(at).into());
        write32(at, before);
    }
    write32(gic::GICD + gic::ICENABLER + 4, u32::MAX);
}
