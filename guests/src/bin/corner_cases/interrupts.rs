//! The interrupt controller: a line that stays up, other CPUs' frames, SGIs to nobody, and wakers.

use crate::show;
use stepwell_guests::hardware::gic::{
    self, GICD, GICR, GICR_SGI, GICR_STRIDE, ICENABLER, ICFGR, ICPENDR, IGROUPR, IPRIORITYR,
    ISACTIVER, ISENABLER, ISPENDR, WAKER,
};
use stepwell_guests::hardware::{read32, uart, write32, write64};
use stepwell_guests::{read_register, write_register};

const ICACTIVER: u64 = 0x380;
const IROUTER: u64 = 0x6000;
/// The UART's SPI, and its bit among those from 32 on.
const UART: u64 = 33;
const BIT: u32 = 1 << (UART - 32);
/// UARTIMSC and UARTICR, and the transmitter's interrupt in both.
const IMSC: u64 = uart::BASE + 0x38;
const ICR: u64 = uart::BASE + 0x44;
const TX: u32 = 1 << 5;

fn state(what: u64) {
    show(
        "spi",
        &[
            what,
            (read32(GICD + 4 + ISPENDR) & BIT).into(),
            (read32(GICD + 4 + ISACTIVER) & BIT).into(),
            read_register!("icc_hppir1_el1"),
            read_register!("isr_el1"),
            read_register!("icc_rpr_el1"),
        ],
    );
}

/// The UART's line, by level or by edge, ended in one go or in two.
fn line(edge: bool, two: bool) {
    write_register!("icc_ctlr_el1", u64::from(two) << 1);
    write32(GICD + ICFGR + 8, if edge { 2 << 2 } else { 0 });
    write32(GICD + 4 + ISENABLER, BIT);
    state(0);
    write32(IMSC, TX);
    state(1);
    let acknowledge = |what| {
        let intid = read_register!("icc_iar1_el1");
        show("acknowledged", &[intid]);
        state(what);
        intid
    };
    let intid = acknowledge(2);
    // Active, and pending as the line is.
    acknowledge(3);
    write_register!("icc_eoir1_el1", intid);
    state(4);
    if two {
        write_register!("icc_dir_el1", intid);
        state(5);
    }
    let again = acknowledge(6);
    write32(IMSC, 0);
    state(7);
    write32(GICD + 4 + ISPENDR, BIT);
    state(8);
    write32(GICD + 4 + ICPENDR, BIT);
    state(9);
    write32(GICD + 4 + ISPENDR, BIT);
    if again < 1020 {
        write_register!("icc_eoir1_el1", again);
        if two {
            write_register!("icc_dir_el1", again);
        }
    }
    state(10);
    write32(IMSC, TX);
    write32(GICD + 4 + ICPENDR, BIT);
    state(11);
    write32(GICD + 4 + ICENABLER, BIT);
    state(12);
    write32(GICD + 4 + ISACTIVER, BIT);
    state(13);
    write32(GICD + 4 + ICACTIVER, BIT);
    write32(GICD + 4 + ISENABLER, BIT);
    state(14);
    write32(IMSC, 0);
    write32(ICR, TX);
    write32(GICD + 4 + ICPENDR, BIT);
    state(15);
    write32(GICD + 4 + ICENABLER, BIT);
}

/// SGIs by every way of naming CPUs, of which this one is 0.0.0.0.
fn sgis() {
    const ALL_BUT_SELF: u64 = 1 << 40;
    let named = [
        1,
        2,
        0x8001,
        0x8000,
        0,
        1 << 16,
        1 | 1 << 16,
        1 << 32,
        1 | 1 << 48,
        1 | 1 << 44,
        ALL_BUT_SELF,
        ALL_BUT_SELF | 1,
        1 | 1 << 28,
        1 | 1 << 56,
    ];
    for (n, value) in named.into_iter().enumerate() {
        let intid = n as u64 & 15;
        for group in 0..3 {
            let value = value | intid << 24;
            match group {
                0 => write_register!("icc_sgi0r_el1", value),
                1 => write_register!("icc_sgi1r_el1", value),
                _ => write_register!("icc_asgi1r_el1", value),
            }
            show("sgi", &[value, group, read32(GICR_SGI + ISPENDR).into()]);
            write32(GICR_SGI + ICPENDR, 0xffff);
        }
    }
}

fn frames() {
    for value in [0, 2, u32::MAX, 0] {
        write32(GICR + WAKER, value);
        show("waker", &[value.into(), read32(GICR + WAKER).into()]);
    }
    // CTLR, IIDR, TYPER, STATUSR, PROPBASER, PENDBASER, SYNCR, of LPIs that there are none.
    for offset in [0, 4, 8, 0xc, 0x10, 0x70, 0x74, 0x78, 0x7c, 0xc0] {
        let before = read32(GICR + offset);
        write32(GICR + offset, u32::MAX);
        show("redistributor", &[offset, before.into(), read32(GICR + offset).into()]);
        write32(GICR + offset, before);
    }
    // Of a CPU that there is not, the next frame is nobody's.
    for offset in [0, 8, 0x1_0000 + ISACTIVER, 0x1_0000 + ISPENDR, 0x1_0000 + IPRIORITYR] {
        show("beyond", &[offset, read32(GICR + GICR_STRIDE + offset).into()]);
    }
    for (register, value) in [
        (ISPENDR, 0x0030_0000),
        (ISACTIVER, 0x00f0_0000),
        (ICPENDR, 0x0010_0000),
        (ICACTIVER, 0x0070_0000),
        (IGROUPR, 0xf0f0_f0f0),
        (ICFGR + 4, 0xa5a5_a5a5),
        (ICFGR, u32::MAX),
        (ISPENDR, 0x0000_ffff),
        (ICPENDR, u32::MAX),
    ] {
        write32(GICR_SGI + register, value);
        let kept = read32(GICR_SGI + register);
        let active = read32(GICR_SGI + ISACTIVER);
        show("private", &[register, value.into(), kept.into(), active.into()]);
    }
    write32(GICR_SGI + ICACTIVER, u32::MAX);
    write32(GICR_SGI + IGROUPR, u32::MAX);
    for value in [1, 0x100, 1 << 31, 0xff << 32, u64::MAX, 0] {
        write64(GICD + IROUTER + 8 * UART, value);
        let low = read32(GICD + IROUTER + 8 * UART);
        let high = read32(GICD + IROUTER + 8 * UART + 4);
        show("route", &[value, low.into(), high.into()]);
    }
}

/// The CPU interface's registers, with values that are none.
fn interface() {
    for value in [0, 1, 2, 3, 7] {
        write_register!("icc_sre_el1", value);
        show("sre", &[value, read_register!("icc_sre_el1")]);
    }
    for value in [0, 1, 2, 3] {
        write_register!("icc_ctlr_el1", value);
        show("ctlr", &[value, read_register!("icc_ctlr_el1")]);
        write_register!("icc_bpr1_el1", 5);
        write_register!("icc_bpr0_el1", 4);
        let points = [read_register!("icc_bpr0_el1"), read_register!("icc_bpr1_el1")];
        show("points", &points);
    }
    write_register!("icc_ctlr_el1", 0);
    write_register!("icc_bpr0_el1", 0);
    write_register!("icc_bpr1_el1", 0);
    for value in [0, 1, 3] {
        write_register!("icc_igrpen0_el1", value);
        write_register!("icc_igrpen1_el1", value);
        show(
            "enable",
            &[value, read_register!("icc_igrpen0_el1"), read_register!("icc_igrpen1_el1")],
        );
    }
    write_register!("icc_igrpen0_el1", 0);
    for value in [0, 0x55, 0xf8, 0xff] {
        write_register!("icc_pmr_el1", value);
        show("mask", &[value, read_register!("icc_pmr_el1")]);
    }
}

pub fn look() {
    write32(GICD + 4 + IGROUPR, u32::MAX);
    for word in 0..8 {
        write32(GICD + IPRIORITYR + 32 + 4 * word, 0xa0a0_a0a0);
    }
    write64(GICD + IROUTER + 8 * UART, 0);
    for (edge, two) in [(false, false), (false, true), (true, false), (true, true)] {
        line(edge, two);
    }
    write32(GICD + ICFGR + 8, 0);
    write_register!("icc_ctlr_el1", 0);
    sgis();
    frames();
    interface();
    gic::start(0);
}
