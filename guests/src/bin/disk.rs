//! A disk: read, written, and code that is read over code which has just been executed.
//!
//! Sectors 0 and 1 hold a function each (`mov x0, #1; ret` and `mov x0, #2; ret`), sector 2 is
//! written. The same on plain QEMU, with `-global virtio-mmio.force-legacy=false`: what is printed is
//! the number of checks, and the test compares.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::asm;

use stepwell_guests::hardware::{gic, read32, read64, write32, write64};
use stepwell_guests::report::{Failure, Outcome, check, require};

/// The last slot: where QEMU has its first device.
const SLOT: u64 = 0x0a00_0000 + 31 * 0x200;
const INTID: u64 = 16 + 32 + 31;
const NOTIFY: u64 = SLOT + 0x50;
const INTERRUPT_STATUS: u64 = SLOT + 0x60;
const INTERRUPT_ACK: u64 = SLOT + 0x64;
const STATUS: u64 = SLOT + 0x70;
const NEEDS_RESET: u32 = 64;

/// Memory behind the image, of which no Rust object knows.
const TABLE: u64 = 0x4100_0000;
const AVAILABLE: u64 = TABLE + 0x1000;
const USED: u64 = TABLE + 0x2000;
const HEADER: u64 = TABLE + 0x3000;
const DONE: u64 = TABLE + 0x4000;
const BUFFER: u64 = TABLE + 0x5000;
const SIZE: u64 = 8;

const READ: u64 = 0;
const WRITE: u64 = 1;

const NEXT: u64 = 1;
const DEVICE_WRITES: u64 = 2;

struct Disk {
    asked: u64,
}

impl Disk {
    fn start() -> Result<Self, Failure> {
        check("magic", read32(SLOT).into(), 0x7472_6976)?;
        check("version", read32(SLOT + 4).into(), 2)?;
        check("device", read32(SLOT + 8).into(), 2)?;
        check("sectors", read32(SLOT + 0x100).into(), 16)?;
        for status in [0, 1, 3] {
            write32(STATUS, status);
        }
        // Version 1, and nothing else.
        for (select, features) in [(0, 0), (1, 1)] {
            write32(SLOT + 0x24, select);
            write32(SLOT + 0x20, features);
        }
        write32(STATUS, 11);
        check("features", read32(STATUS).into(), 11)?;
        for address in (TABLE..BUFFER).step_by(8) {
            write64(address, 0);
        }
        write32(SLOT + 0x30, 0);
        write32(SLOT + 0x38, SIZE as u32);
        for (register, address) in [(0x80, TABLE), (0x90, AVAILABLE), (0xa0, USED)] {
            write32(SLOT + register, address as u32);
            write32(SLOT + register + 4, 0);
        }
        write32(SLOT + 0x44, 1);
        write32(STATUS, 15);
        Ok(Self { asked: 0 })
    }

    fn describe(n: u64, address: u64, bytes: u64, flags: u64, next: u64) {
        write64(TABLE + 16 * n, address);
        write64(TABLE + 16 * n + 8, bytes | flags << 32 | next << 48);
    }

    fn notify(&mut self) {
        // SAFETY: one CPU, and no Rust object is there.
        unsafe {
            (AVAILABLE as *mut u16).add(2 + (self.asked % SIZE) as usize).write_volatile(0);
            self.asked += 1;
            asm!("dmb ish");
            (AVAILABLE as *mut u16).add(1).write_volatile(self.asked as u16);
            asm!("dmb ish");
        }
        write32(NOTIFY, 0);
    }

    fn ask(&mut self, kind: u64, sector: u64, buffer: u64) -> Result<(), Failure> {
        write64(HEADER, kind);
        write64(HEADER + 8, sector);
        write64(DONE, 0xff);
        let flags = if kind == READ { DEVICE_WRITES } else { 0 };
        Self::describe(0, HEADER, 16, NEXT, 1);
        Self::describe(1, buffer, 512, NEXT | flags, 2);
        Self::describe(2, DONE, 1, DEVICE_WRITES, 0);
        self.notify();
        // Plain QEMU's disk takes its time.
        // SAFETY: no Rust object is there.
        while unsafe { (USED as *const u16).add(1).read_volatile() } != self.asked as u16 {}
        check("status", read64(DONE) & 0xff, 0)?;
        check("interrupt status", read32(INTERRUPT_STATUS).into(), 1)?;
        let word = read32(gic::GICD + gic::ISPENDR + INTID / 32 * 4);
        require("interrupt is pending", word >> (INTID % 32) & 1 != 0)?;
        write32(INTERRUPT_ACK, 1);
        check("acknowledged", read32(INTERRUPT_STATUS).into(), 0)
    }
}

/// Reads a function over the one that is there, and calls it.
fn call(disk: &mut Disk, sector: u64) -> Result<u64, Failure> {
    disk.ask(READ, sector, BUFFER)?;
    let value: u64;
    // SAFETY: what was read is a function that uses X0 alone.
    unsafe {
        asm!("ic iallu", "dsb sy", "isb", "blr {f}", f = in(reg) BUFFER, out("x0") value,
            out("x30") _);
    }
    Ok(value)
}

fn run() -> Outcome {
    let mut disk = Disk::start()?;
    for round in 0..50 {
        let sector = round % 2;
        check("what was read is executed", call(&mut disk, sector)?, sector + 1)?;
    }
    for n in 0..64 {
        write64(BUFFER + 8 * n, n * 0x0101_0101);
    }
    disk.ask(WRITE, 2, BUFFER)?;
    disk.ask(READ, 2, BUFFER + 0x7fc)?;
    // Not aligned, and in two pages.
    // SAFETY: no Rust object is there, and bytes are always aligned.
    let byte = |n: u64| unsafe { ((BUFFER + 0x7fc + n) as *const u8).read_volatile() };
    for n in 0..512 {
        let want = if n % 8 < 4 { n / 8 } else { 0 };
        check("what was written is read", byte(n).into(), want)?;
    }
    // No buffer is empty.
    Disk::describe(0, HEADER, 0, NEXT, 1);
    disk.notify();
    while read32(STATUS) & NEEDS_RESET == 0 {}
    // QEMU says that of the queue as well.
    require("it is told", read32(INTERRUPT_STATUS) & 2 != 0)?;
    let mut disk = Disk::start()?;
    check("after a reset", call(&mut disk, 1)?, 2)?;
    Ok(52)
}

stepwell_guests::guest!("disk", run);
