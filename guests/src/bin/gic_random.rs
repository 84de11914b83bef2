//! Random accesses of the interrupt controller, and after each all that tells of its state.
//!
//! Interrupts are made pending and active, enabled, moved between the groups, given other priorities,
//! acknowledged and ended, with PSTATE masking them: so no exception comes, and each value is to be
//! that of plain QEMU, whatever a hypervisor has to do for it. More interrupts are active and pending
//! at a time than any CPU has list registers.
//!
//! What the architecture leaves open is not done: an end of another interrupt than the one that was
//! acknowledged last, a deactivation beside one end that deactivates.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::hardware::gic::{
    self, GICD, GICD_CTLR, GICR_SGI, ICENABLER, ICFGR, ICPENDR, IGROUPR, IPRIORITYR, ISACTIVER,
    ISENABLER, ISPENDR,
};
use stepwell_guests::hardware::{read32, uart, write32, write64};
use stepwell_guests::report::{self, Outcome};
use stepwell_guests::{read_register, write_register};

const PROGRAMS: u64 = 24;
const ACCESSES: u64 = 160;
const ICACTIVER: u64 = 0x380;
const IROUTER: u64 = 0x6000;
/// Interrupts that can be acknowledged one within the other: one for each priority, at most.
const NESTED_MAX: usize = 32;
/// INTIDs from here on are no interrupts but say why there is none.
const SPECIAL: u64 = 1020;
/// SGIs, and PPIs that nothing of the board drives.
const PRIVATE: u32 = 0x0031_ffff;

/// A sequence of numbers that is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A few of 32 bits.
    fn few_bits(&mut self) -> u32 {
        (1 << self.below(32)) | if self.below(3) == 0 { self.next() as u32 } else { 0 }
    }
}

/// One program: what it has acknowledged and not ended, newest last, with the group.
struct Program {
    random: Random,
    separate: bool,
    nested: [(u64, bool); NESTED_MAX],
    depth: usize,
    /// Ended and not deactivated yet.
    ended: [u64; NESTED_MAX],
    left: usize,
}

impl Program {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let separate = random.below(2) == 1;
        Self {
            random,
            separate,
            nested: [(0, false); NESTED_MAX],
            depth: 0,
            ended: [0; NESTED_MAX],
            left: 0,
        }
    }

    /// As after a reset, but for the pages of the redistributor that are not used.
    fn reset(&self) {
        write_register!("icc_sre_el1", 7);
        write_register!("icc_ctlr_el1", u64::from(self.separate) << 1);
        write_register!("icc_pmr_el1", 0xff);
        write_register!("icc_bpr0_el1", 0);
        write_register!("icc_bpr1_el1", 0);
        write_register!("icc_igrpen0_el1", 1);
        write_register!("icc_igrpen1_el1", 1);
        write_register!("icc_ap0r0_el1", 0);
        write_register!("icc_ap1r0_el1", 0);
        write32(GICD_CTLR, 0x13);
        write32(gic::GICR + gic::WAKER, 0);
        for (base, mask) in [(GICR_SGI, PRIVATE), (GICD + 4, u32::MAX)] {
            for (register, value) in
                [(ICACTIVER, mask), (ICPENDR, mask), (ICENABLER, mask), (IGROUPR, 0x5555_5555)]
            {
                write32(base + register, value);
            }
            write32(base + ISENABLER, mask & 0xfff0_ffff);
        }
        for word in 0..16 {
            let priorities = 0x1010_1010 * (word & 7) as u32 + 0x0302_0180;
            let base = if word < 8 { GICR_SGI } else { GICD };
            write32(base + IPRIORITYR + 4 * word, priorities);
        }
        write32(GICD + ICFGR + 8, 0xaaaa_5050);
        write32(GICD + ICFGR + 12, 0xaaaa_5050);
        for spi in 32..64 {
            write64(GICD + IROUTER + 8 * spi, 0);
        }
    }

    /// One access; returns what it was and what came of it.
    fn access(&mut self) -> (&'static str, u64, u64) {
        match self.random.below(16) {
            0 | 1 => self.send(),
            2..=4 => self.write_bits(),
            5 => self.write_priority(),
            6 => self.write_distributor(),
            7 | 8 => self.write_interface(),
            9..=11 => self.acknowledge(),
            12..=14 => self.end(),
            _ => self.deactivate(),
        }
    }

    fn send(&mut self) -> (&'static str, u64, u64) {
        let value = self.random.below(16) << 24 | 1;
        match self.random.below(3) {
            0 => write_register!("icc_sgi0r_el1", value),
            1 => write_register!("icc_sgi1r_el1", value),
            _ => write_register!("icc_asgi1r_el1", value),
        }
        ("send", value, 0)
    }

    fn write_bits(&mut self) -> (&'static str, u64, u64) {
        const REGISTERS: [u64; 8] =
            [ISPENDR, ISPENDR, ISPENDR, ICPENDR, ISENABLER, ICENABLER, ICACTIVER, IGROUPR];
        let register = REGISTERS[self.random.below(8) as usize];
        let is_spi = self.random.below(2) == 1;
        let bits = self.random.few_bits();
        let (address, bits) = if is_spi {
            (GICD + 4 + register, bits)
        } else {
            (GICR_SGI + register, bits & PRIVATE)
        };
        write32(address, bits);
        ("bits", address, bits.into())
    }

    fn write_priority(&mut self) -> (&'static str, u64, u64) {
        let (intid, value) = (self.random.below(64), self.random.next() as u32 & 0xf8f8_f8f8);
        let base = if intid < 32 { GICR_SGI } else { GICD };
        write32(base + IPRIORITYR + (intid & !3), value);
        ("priority", intid, value.into())
    }

    fn write_distributor(&mut self) -> (&'static str, u64, u64) {
        if self.random.below(3) == 0 {
            let groups = self.random.below(4);
            write32(GICD_CTLR, 0x10 | groups as u32);
            return ("groups", groups, 0);
        }
        write32(GICD_CTLR, 0x13);
        let (spi, nobody) = (32 + self.random.below(32), self.random.below(3) == 0);
        write64(GICD + IROUTER + 8 * spi, if nobody { 7 } else { 0 });
        ("route", spi, nobody.into())
    }

    fn write_interface(&mut self) -> (&'static str, u64, u64) {
        let value = self.random.next();
        match self.random.below(6) {
            0 => write_register!(
                "icc_pmr_el1",
                value & 0xff | if value & 0x100 == 0 { 0xf0 } else { 0 }
            ),
            1 if self.depth == 0 => write_register!("icc_bpr0_el1", value & 7),
            2 if self.depth == 0 => write_register!("icc_bpr1_el1", value & 7),
            3 if self.depth == 0 => {
                write_register!("icc_ctlr_el1", u64::from(self.separate) << 1 | value & 1);
            }
            // Both: the highest interrupt hides all others in QEMU's CPU interface while its own group is off,
            // and in the one for guests it does not.
            _ => {
                write_register!("icc_igrpen0_el1", u64::from(value & 7 != 0));
                write_register!("icc_igrpen1_el1", u64::from(value & 7 != 0));
            }
        }
        ("interface", value, 0)
    }

    fn acknowledge(&mut self) -> (&'static str, u64, u64) {
        let is_group_1 = self.random.below(2) == 1;
        let intid = if is_group_1 {
            read_register!("icc_iar1_el1")
        } else {
            read_register!("icc_iar0_el1")
        };
        if intid < SPECIAL && self.depth < NESTED_MAX {
            self.nested[self.depth] = (intid, is_group_1);
            self.depth += 1;
        }
        ("acknowledge", is_group_1.into(), intid)
    }

    fn end(&mut self) -> (&'static str, u64, u64) {
        let Some(newest) = self.depth.checked_sub(1) else {
            write_register!("icc_eoir1_el1", 1023);
            return ("end of none", 0, 0);
        };
        let (intid, is_group_1) = self.nested[newest];
        self.depth = newest;
        if is_group_1 {
            write_register!("icc_eoir1_el1", intid);
        } else {
            write_register!("icc_eoir0_el1", intid);
        }
        if self.separate && self.left < NESTED_MAX {
            self.ended[self.left] = intid;
            self.left += 1;
        }
        ("end", is_group_1.into(), intid)
    }

    fn deactivate(&mut self) -> (&'static str, u64, u64) {
        if self.left == 0 {
            return ("nothing", 0, 0);
        }
        let chosen = self.random.below(self.left as u64) as usize;
        let intid = self.ended[chosen];
        self.left -= 1;
        self.ended[chosen] = self.ended[self.left];
        write_register!("icc_dir_el1", intid);
        ("deactivate", intid, 0)
    }
}

fn print_state((name, argument, result): (&'static str, u64, u64)) {
    let state = [
        argument,
        result,
        read_register!("icc_hppir0_el1"),
        read_register!("icc_hppir1_el1"),
        read_register!("icc_rpr_el1"),
        read_register!("icc_ap0r0_el1"),
        read_register!("icc_ap1r0_el1"),
        read_register!("isr_el1"),
        read32(GICR_SGI + ISPENDR).into(),
        read32(GICR_SGI + ISACTIVER).into(),
        read32(GICD + 4 + ISPENDR).into(),
        read32(GICD + 4 + ISACTIVER).into(),
    ];
    uart::write(name);
    for value in state {
        uart::write(" ");
        report::number(value);
    }
    report::line("");
}

fn run() -> Outcome {
    for seed in 1..=PROGRAMS {
        let mut program = Program::new(seed);
        program.reset();
        print_state(("program", seed, program.separate.into()));
        for _ in 0..ACCESSES {
            print_state(program.access());
        }
    }
    Ok(PROGRAMS * ACCESSES)
}

stepwell_guests::guest!("gic_random", run);
