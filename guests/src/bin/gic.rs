//! GICv3 as a guest sees it: registers, priorities, preemption, both EOI modes, pending and active.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::gic::{
    self, GICD, GICR, GICR_SGI, ICENABLER, ICFGR, ICPENDR, IPRIORITYR, ISACTIVER, ISENABLER,
    ISPENDR,
};
use stepwell_guests::hardware::{read32, read64, timer, write32, write64};
use stepwell_guests::report::{Failure, Outcome, check, require};
use stepwell_guests::{define_exact_end, instruction, read_register, write_register};

define_exact_end!();

/// Interrupts taken, oldest in the highest nibble.
static ORDER: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// 0: plain; 1: SGI 8's handler sends SGI 2, which preempts it; 2: separate deactivation.
static MODE: AtomicU64 = AtomicU64::new(0);
static ACTIVE_IN_HANDLER: AtomicU64 = AtomicU64::new(0);

fn handle(frame: &mut Frame) {
    if !frame.is_interrupt() {
        exception::unexpected(frame);
    }
    let intid = gic::acknowledge();
    if intid == gic::SPURIOUS {
        return;
    }
    ORDER.store(ORDER.load(Relaxed) << 4 | intid & 15, Relaxed);
    TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
    ACTIVE_IN_HANDLER.store(read32(GICR_SGI + ISACTIVER).into(), Relaxed);
    if MODE.load(Relaxed) == 1 && intid == 8 {
        gic::send_sgi(2, 1);
        instruction!("isb");
        instruction!("msr daifclr, #2");
        timer::wait_for(&TAKEN, 2, timer::ticks_of_us(100_000));
        instruction!("msr daifset, #2");
        ORDER.store(ORDER.load(Relaxed) << 4 | 0xe, Relaxed);
    }
    gic::end(intid);
    if MODE.load(Relaxed) == 2 {
        write_register!("icc_dir_el1", intid);
    }
}

fn distributor() -> Result<(), Failure> {
    let typer = read32(GICD + 4);
    require("GICD_TYPER.ITLinesNumber", typer & 0x1f >= 1)?;
    check("GICD_PIDR2.ArchRev", (read32(GICD + 0xffe8) >> 4 & 0xf).into(), 3)?;
    check("GICD_CTLR.ARE", (read32(GICD) & 0x10).into(), 0x10)?;
    // SPI 40.
    let (word, bit) = (4, 1 << 8);
    write32(GICD + ISENABLER + word, bit);
    check("SPI enabled", (read32(GICD + ISENABLER + word) & bit).into(), bit.into())?;
    check("read through ICENABLER", (read32(GICD + ICENABLER + word) & bit).into(), bit.into())?;
    write32(GICD + ICENABLER + word, bit);
    check("SPI disabled", (read32(GICD + ISENABLER + word) & bit).into(), 0)?;
    write32(GICD + ISPENDR + word, bit);
    check("SPI pending", (read32(GICD + ISPENDR + word) & bit).into(), bit.into())?;
    write32(GICD + ICPENDR + word, bit);
    check("SPI not pending", (read32(GICD + ISPENDR + word) & bit).into(), 0)?;
    write32(GICD + IPRIORITYR + 40, 0xa050_7030);
    check("priorities", (read32(GICD + IPRIORITYR + 40) & 0xf0f0_f0f0).into(), 0xa050_7030)?;
    write32(GICD + ICFGR + 8, 0x0002_0000);
    check("edge", (read32(GICD + ICFGR + 8) & 0x0002_0000).into(), 0x0002_0000)?;
    write32(GICD + ICFGR + 8, 0);
    write64(GICD + 0x6000 + 8 * 40, 0);
    check("GICD_IROUTER", read64(GICD + 0x6000 + 8 * 40), 0)
}

fn redistributor() -> Result<(), Failure> {
    check("GICR_PIDR2.ArchRev", (read32(GICR + 0xffe8) >> 4 & 0xf).into(), 3)?;
    let typer = read64(GICR + 8);
    check("GICR_TYPER affinity", typer >> 32, read_register!("mpidr_el1") & 0xff)?;
    check("GICR_WAKER", read32(GICR + gic::WAKER).into(), 0)?;
    write32(GICR_SGI + ISENABLER, 0xffff);
    check("SGIs enabled", (read32(GICR_SGI + ISENABLER) & 0xffff).into(), 0xffff)?;
    write32(GICR_SGI + ICENABLER, 0xff00);
    check("SGIs disabled", (read32(GICR_SGI + ISENABLER) & 0xffff).into(), 0xff)?;
    write32(GICR_SGI + ISENABLER, 0xff00);
    write32(GICR_SGI + ISPENDR, 1 << 6);
    check("SGI pending", (read32(GICR_SGI + ISPENDR) & 1 << 6).into(), 1 << 6)?;
    write32(GICR_SGI + ICPENDR, 1 << 6);
    check("SGI not pending", (read32(GICR_SGI + ISPENDR) & 1 << 6).into(), 0)?;
    write32(GICR_SGI + IPRIORITYR, 0x4030_2010);
    check("SGI priorities", read32(GICR_SGI + IPRIORITYR).into(), 0x4030_2010)
}

fn interface() -> Result<(), Failure> {
    write_register!("icc_pmr_el1", 0xf0);
    check("PMR", read_register!("icc_pmr_el1"), 0xf0)?;
    check("RPR idle", read_register!("icc_rpr_el1"), 0xff)?;
    check("IGRPEN1", read_register!("icc_igrpen1_el1"), 1)?;
    check("SRE", read_register!("icc_sre_el1") & 1, 1)?;
    check("nothing pending", read_register!("icc_hppir1_el1"), gic::SPURIOUS)?;
    check("nothing to acknowledge", gic::acknowledge(), gic::SPURIOUS)
}

/// Opens the gate until so many were taken, and tells in which order.
fn deliver(wanted: u64) -> u64 {
    ORDER.store(0, Relaxed);
    TAKEN.store(0, Relaxed);
    instruction!("msr daifclr, #2");
    timer::wait_for(&TAKEN, wanted, timer::ticks_of_us(1_000_000));
    instruction!("isb");
    instruction!("msr daifset, #2");
    ORDER.load(Relaxed)
}

fn priorities() -> Result<(), Failure> {
    // SGI n has priority 0x10 * (n + 1).
    for word in 0..4_u32 {
        let first = 0x4030_2010_u32;
        let value = first.wrapping_add(0x4040_4040_u32.wrapping_mul(word));
        write32(GICR_SGI + IPRIORITYR + 4 * u64::from(word), value);
    }
    for intid in [7, 3, 9, 1] {
        gic::send_sgi(intid, 1);
    }
    check("highest pending", read_register!("icc_hppir1_el1"), 1)?;
    check("by priority", deliver(4), 0x1379)?;
    gic::send_sgi(8, 1);
    gic::send_sgi(4, 1);
    // Only priorities above 0x60: SGI 4 (0x50), not SGI 8 (0x90).
    write_register!("icc_pmr_el1", 0x60);
    check("by PMR", deliver(1), 0x4)?;
    write_register!("icc_pmr_el1", 0xff);
    check("PMR opened", deliver(1), 0x8)
}

fn modes() -> Result<(), Failure> {
    MODE.store(1, Relaxed);
    gic::send_sgi(8, 1);
    check("preemption", deliver(2), 0x82e)?;
    MODE.store(2, Relaxed);
    write_register!("icc_ctlr_el1", 2);
    check("EOImode", read_register!("icc_ctlr_el1") & 2, 2)?;
    gic::send_sgi(5, 1);
    check("EOImode 1", deliver(1), 0x5)?;
    check("deactivated", read32(GICR_SGI + ISACTIVER).into(), 0)?;
    write_register!("icc_ctlr_el1", 0);
    MODE.store(0, Relaxed);
    gic::send_sgi(6, 1);
    check("again", deliver(1), 0x6)?;
    check("active in the handler", ACTIVE_IN_HANDLER.load(Relaxed) & 1 << 6, 1 << 6)?;
    check("RPR idle again", read_register!("icc_rpr_el1"), 0xff)?;
    // Disabled: stays pending.
    write32(GICR_SGI + ICENABLER, 1 << 5);
    gic::send_sgi(5, 1);
    instruction!("msr daifclr, #2");
    timer::spin(timer::ticks_of_us(200));
    instruction!("msr daifset, #2");
    check("disabled", (read32(GICR_SGI + ISPENDR) & 1 << 5).into(), 1 << 5)?;
    write32(GICR_SGI + ISENABLER, 1 << 5);
    check("enabled later", deliver(1), 0x5)?;
    // An SPI, made pending by hand.
    write32(GICD + IPRIORITYR + 40, 0x8080_8080);
    write32(GICD + gic::IGROUPR + 4, u32::MAX);
    write32(GICD + ISENABLER + 4, 1 << 8);
    write32(GICD + ICFGR + 8, 0x0002_0000);
    write32(GICD + ISPENDR + 4, 1 << 8);
    check("SPI 40", deliver(1), 40 & 15)
}

fn run() -> Outcome {
    gic::start(0);
    distributor()?;
    redistributor()?;
    interface()?;
    exact_end();
    priorities()?;
    modes()?;
    Ok(0)
}

stepwell_guests::guest!("gic", run, handle);
