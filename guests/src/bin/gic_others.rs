//! What one CPU sees, and changes, of an interrupt that another one has acknowledged and not ended yet.
//!
//! The other one spins in between, and does nothing that a hypervisor would have to know of: its CPU
//! interface alone knows what it has acknowledged.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::cpus;
use stepwell_guests::hardware::gic::{
    self, GICD, ICFGR, IGROUPR, IPRIORITYR, ISACTIVER, ISENABLER, ISPENDR,
};
use stepwell_guests::hardware::{read32, write32, write64};
use stepwell_guests::report::{Failure, Outcome, check, require};
use stepwell_guests::{instruction, write_register};

const ICACTIVER: u64 = 0x380;
const IROUTER: u64 = 0x6000;
/// An SPI that no device drives.
const SPI: u64 = 40;
const WORD: u64 = SPI / 32 * 4;
const BIT: u32 = 1 << (SPI % 32);
const ROUNDS: u64 = 4;
/// Looks of the other CPU at what is pending, and of this one at the other's answer.
const LOOKS: u64 = 3_000_000;

/// What the other CPU is to do next.
static ORDER: AtomicU64 = AtomicU64::new(0);
/// Orders that it has carried out, and the INTID that came of the last.
static DONE: AtomicU64 = AtomicU64::new(0);
static INTID: AtomicU64 = AtomicU64::new(0);

const ACKNOWLEDGE: u64 = 1;
const DEACTIVATE: u64 = 2;
const LEAVE: u64 = 3;

fn handle(frame: &mut Frame) {
    exception::unexpected(frame);
}

extern "C" fn other() -> ! {
    gic::start(1);
    // Drops the priority and deactivates apart from each other.
    write_register!("icc_ctlr_el1", 2);
    instruction!("isb");
    loop {
        match ORDER.swap(0, SeqCst) {
            0 => continue,
            ACKNOWLEDGE => {
                let taken = (0..LOOKS).map(|_| gic::acknowledge()).find(|&n| n != gic::SPURIOUS);
                INTID.store(taken.unwrap_or(gic::SPURIOUS), SeqCst);
                if let Some(taken) = taken {
                    gic::end(taken);
                }
            }
            DEACTIVATE => {
                write_register!("icc_dir_el1", SPI);
                instruction!("isb");
            }
            _ => cpus::off(),
        }
        DONE.fetch_add(1, SeqCst);
    }
}

fn order(what: u64) -> Result<(), Failure> {
    let before = DONE.load(SeqCst);
    ORDER.store(what, SeqCst);
    let is_done = (0..100 * LOOKS).any(|_| DONE.load(SeqCst) != before);
    require("the other CPU answers", is_done)
}

fn state(register: u64) -> u64 {
    (read32(GICD + register + WORD) & BIT).into()
}

fn round(deactivate: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    write32(GICD + ISPENDR + WORD, BIT);
    order(ACKNOWLEDGE)?;
    check("INTID that the other CPU took", INTID.load(SeqCst), SPI)?;
    check("active, once it is acknowledged", state(ISACTIVER), BIT.into())?;
    check("pending, once it is acknowledged", state(ISPENDR), 0)?;
    deactivate()?;
    check("active, once it is deactivated", state(ISACTIVER), 0)
}

fn run() -> Outcome {
    gic::start(0);
    write_register!("icc_ctlr_el1", 2);
    instruction!("isb");
    let configuration = read32(GICD + ICFGR + SPI / 16 * 4) | 2 << (SPI % 16 * 2);
    write32(GICD + ICFGR + SPI / 16 * 4, configuration);
    write32(GICD + IPRIORITYR + SPI / 4 * 4, 0xa0a0_a0a0);
    write32(GICD + IGROUPR + WORD, u32::MAX);
    write64(GICD + IROUTER + 8 * SPI, 1);
    write32(GICD + ISENABLER + WORD, BIT);
    check("CPU_ON", cpus::start(1, other), 0)?;
    for _ in 0..ROUNDS {
        round(|| order(DEACTIVATE))?;
        round(|| {
            write32(GICD + ICACTIVER + WORD, BIT);
            Ok(())
        })?;
        round(|| {
            write_register!("icc_dir_el1", SPI);
            instruction!("isb");
            Ok(())
        })?;
    }
    ORDER.store(LEAVE, SeqCst);
    Ok(ROUNDS)
}

stepwell_guests::guest!("gic_others", run, handle);
