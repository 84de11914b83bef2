//! The blocks that a random program is made of, one function each.
//!
//! A block begins and ends with interrupts unmasked, at EL1, and leaves the fixed registers as they
//! are. What it does may depend on the data registers X0 to X15 and on memory, never on time.

use super::chance::Chance;
use super::code::{Code, SystemRegister, word};
use super::exclusive;
use super::program::{EL0_ALIAS, Exclusive, Places, reg};

const DAIF: SystemRegister = (3, 3, 4, 2, 1);
const MDSCR: SystemRegister = (2, 0, 0, 2, 2);
pub(super) const SGI1R: SystemRegister = (3, 0, 12, 11, 5);
const CNTV_TVAL: SystemRegister = (3, 3, 14, 3, 0);
const CNTV_CTL: SystemRegister = (3, 3, 14, 3, 1);
const CNTP_TVAL: SystemRegister = (3, 3, 14, 2, 0);
const CNTP_CTL: SystemRegister = (3, 3, 14, 2, 1);

/// PSTATE of EL1 with its own stack pointer, interrupts unmasked.
const EL1H: u64 = 0x205;
/// PSTATE of EL0, interrupts unmasked.
const EL0T: u64 = 0x200;
const SS: u64 = 1 << 21;

/// SGI 2, the one that programs send to themselves.
pub(super) const SGI_TO_SELF: u64 = 2 << 24 | 1;
/// SGI 3, which is in Group 0.
const FAST_SGI_TO_SELF: u64 = 3 << 24 | 1;
const SGI0R: SystemRegister = (3, 0, 12, 11, 7);

/// What blocks are written into, one after the other.
pub struct Block {
    /// The program's code so far.
    pub code: Code,
    /// The random numbers of the block that is being written.
    pub chance: Chance,
    /// The ground's places.
    pub places: Places,
    /// The CPU has FEAT_LSE.
    pub has_atomics: bool,
    /// Exception returns are made with interrupts unmasked, in the restartable sequence.
    pub restartable: bool,
    /// The exclusive loops so far.
    pub exclusives: Vec<Exclusive>,
}

type Kind = fn(&mut Block);

/// Each kind, as often as it is to come.
const KINDS: [(u32, Kind); 22] = [
    (4, Block::plain),
    (4, Block::branches),
    (3, Block::call),
    (3, Block::bounded_loop),
    (5, Block::memory),
    (6, Block::exclusive_loop),
    (4, Block::failing_exclusives),
    (2, Block::atomics),
    (4, Block::system_registers),
    (2, Block::svc),
    (2, Block::hvc),
    (2, Block::smc),
    (2, Block::brk),
    (3, Block::exception_return),
    (5, Block::el0),
    (3, Block::daif),
    (3, Block::mdscr),
    (2, Block::wait_for_interrupt),
    (2, Block::wait_for_event),
    (4, Block::faults),
    (3, Block::mmio),
    (8, Block::timer),
];

impl Block {
    /// Writes one block of a random kind.
    pub fn write(&mut self) {
        let all: u32 = KINDS.iter().map(|(weight, _)| weight).sum();
        let mut place = self.chance.below(all);
        for (weight, kind) in KINDS {
            if place < weight {
                return kind(self);
            }
            place -= weight;
        }
    }

    /// One in a few times, makes an interrupt pending so that it comes right before what follows.
    pub(super) fn poke(&mut self) {
        if self.chance.one_in(3) {
            self.certain_poke();
        }
    }

    /// As [`Block::poke`], unless its register is taken.
    pub(super) fn poke_without(&mut self, register: u32, is_taken: bool) {
        debug_assert_eq!(register, reg::SCRATCH, "the one that a poke takes");
        if !is_taken {
            self.poke();
        }
    }

    fn certain_poke(&mut self) {
        self.code.put(word::MASK);
        self.send();
        self.code.put(word::UNMASK);
    }

    /// Sends an SGI to itself, a fast one now and then.
    fn send(&mut self) {
        let is_fast = self.chance.one_in(4);
        let (sgi, register) =
            if is_fast { (FAST_SGI_TO_SELF, SGI0R) } else { (SGI_TO_SELF, SGI1R) };
        self.code.constant(reg::SCRATCH, sgi);
        self.code.msr(register, reg::SCRATCH);
        self.code.put(word::ISB);
    }

    pub(super) fn some_arithmetic(&mut self, most: u32) {
        for _ in 0..self.chance.between(1, most) {
            self.code.arithmetic(&mut self.chance);
        }
    }

    fn plain(&mut self) {
        self.some_arithmetic(6);
        self.poke();
        self.code.put(*self.chance.pick(&[word::NOP, word::DMB, word::DSB, word::ISB]));
        self.poke();
        self.some_arithmetic(6);
    }

    fn branches(&mut self) {
        for _ in 0..self.chance.between(1, 4) {
            let (register, bit) = (self.chance.data(), self.chance.below(64));
            let branch = match self.chance.below(4) {
                0 => {
                    self.code.arithmetic(&mut self.chance);
                    0x5400_0000 | self.chance.below(14)
                }
                1 => 0x3400_0000 | self.chance.below(4) << 30 & 0x8000_0000 | register,
                2 => 0x3500_0000 | self.chance.below(4) << 30 & 0x8000_0000 | register,
                _ => {
                    let invert = self.chance.below(2) << 24;
                    0x3600_0000 | invert | (bit >> 5) << 31 | (bit & 31) << 19 | register
                }
            };
            self.poke();
            let skip = self.code.forward(branch);
            self.some_arithmetic(4);
            self.code.land(skip);
        }
    }

    fn call(&mut self) {
        let over = self.code.forward(word::B);
        let function = self.code.here();
        self.some_arithmetic(4);
        self.poke();
        self.code.put(word::RET);
        self.code.land(over);
        self.poke();
        if self.chance.one_in(2) {
            self.code.branch_to(word::BL, function);
        } else {
            self.code.adr(reg::A, function);
            self.code.put(0xd63f_0000 | reg::A << 5);
        }
    }

    fn bounded_loop(&mut self) {
        let turns = self.chance.between(2, 12);
        self.code.constant(reg::COUNT, turns.into());
        let start = self.code.here();
        self.some_arithmetic(4);
        if self.chance.one_in(2) {
            self.access();
        }
        self.code.put(0xf100_0400 | reg::COUNT << 5 | reg::COUNT);
        self.code.branch_to(0x5400_0001, start);
    }

    fn memory(&mut self) {
        for _ in 0..self.chance.between(2, 6) {
            self.poke();
            self.access();
        }
    }

    /// A load or store somewhere in the data.
    fn access(&mut self) {
        let place = self.chance.between(0x100, 0xf00);
        self.code.add(reg::A, reg::DATA, place);
        self.access_by(reg::A);
    }

    /// A load or store near a base register that may be changed.
    fn access_by(&mut self, base: u32) {
        let (rt, rt2, size) = (self.chance.data(), self.chance.data(), self.chance.below(4));
        let load = self.chance.below(2);
        let near = self.chance.below(64);
        let word = match self.chance.below(8) {
            0 | 1 => 0x3900_0000 | size << 30 | load << 22 | near << 10,
            2 => 0x3800_0000 | size << 30 | load << 22 | near << 12,
            3 => 0x3800_0400 | size << 30 | load << 22 | near << 12,
            4 => 0x3800_0c00 | size << 30 | load << 22 | near << 12,
            5 | 6 => {
                // A load of a pair into one register is unpredictable.
                let rt2 = if rt2 == rt { (rt + 1) % 16 } else { rt2 };
                let form = *self.chance.pick(&[0x2900_0000, 0x2980_0000, 0x2880_0000]);
                form | self.chance.below(2) << 31 | load << 22 | (near & 31) << 15 | rt2 << 10
            }
            _ => {
                // Signed loads of less than a double word.
                let size = self.chance.below(3);
                0x3980_0000 | size << 30 | (near & 31) << 10
            }
        };
        self.code.put(word | base << 5 | rt);
    }

    fn exclusive_loop(&mut self) {
        exclusive::retry_loop(self, reg::DATA, true);
    }

    fn failing_exclusives(&mut self) {
        exclusive::failing(self);
    }

    fn atomics(&mut self) {
        if !self.has_atomics {
            return self.memory();
        }
        for _ in 0..self.chance.between(1, 4) {
            let place = self.chance.between(0x10, 0xe0) << 4;
            self.code.add(reg::A, reg::DATA, place);
            let (rs, rt, size) =
                (self.chance.data(), self.chance.data(), self.chance.below(4) << 30);
            let order = self.chance.below(4) << 22;
            let word = match self.chance.below(4) {
                0 => 0x3820_8000 | size | order,
                1 => 0x08a0_7c00 | size | (order & 1 << 22) | (order >> 23) << 15,
                // CASP of even registers.
                2 => {
                    let (rs, rt) = (rs & !1, rt & !1);
                    self.poke();
                    let wide = self.chance.below(2) << 30;
                    self.code.put(0x0820_7c00 | wide | rs << 16 | reg::A << 5 | rt);
                    continue;
                }
                _ => 0x3820_0000 | size | order | self.chance.below(8) << 12,
            };
            self.poke();
            self.code.put(word | rs << 16 | reg::A << 5 | rt);
        }
    }

    fn system_registers(&mut self) {
        const WRITABLE: [SystemRegister; 6] = [
            (3, 3, 13, 0, 2), // TPIDR_EL0
            (3, 3, 13, 0, 3), // TPIDRRO_EL0
            (3, 0, 13, 0, 4), // TPIDR_EL1
            (3, 0, 5, 1, 0),  // AFSR0_EL1
            (3, 3, 4, 2, 0),  // NZCV
            (3, 0, 13, 0, 1), // CONTEXTIDR_EL1
        ];
        const READABLE: [SystemRegister; 14] = [
            (3, 0, 4, 2, 2),   // CurrentEL
            (3, 0, 4, 2, 0),   // SPSel
            (3, 3, 14, 0, 0),  // CNTFRQ_EL0
            (3, 3, 0, 0, 1),   // CTR_EL0
            (3, 0, 0, 0, 5),   // MPIDR_EL1
            (3, 0, 12, 0, 0),  // VBAR_EL1
            (3, 0, 1, 0, 0),   // SCTLR_EL1
            (3, 0, 2, 0, 0),   // TTBR0_EL1
            (3, 0, 4, 6, 0),   // ICC_PMR_EL1
            (3, 0, 12, 12, 7), // ICC_IGRPEN1_EL1
            (2, 0, 1, 1, 4),   // OSLSR_EL1
            (3, 0, 4, 1, 0),   // SP_EL0
            (2, 0, 0, 2, 2),   // MDSCR_EL1
            (3, 3, 4, 2, 1),   // DAIF
        ];
        for _ in 0..self.chance.between(1, 4) {
            let (rt, writes) = (self.chance.data(), self.chance.one_in(2));
            self.poke();
            if writes {
                let register = *self.chance.pick(&WRITABLE);
                self.code.msr(register, rt);
                self.code.mrs(self.chance.data(), register);
            } else {
                self.code.mrs(rt, *self.chance.pick(&READABLE));
            }
        }
    }

    fn svc(&mut self) {
        self.call_with(word::SVC);
    }

    fn smc(&mut self) {
        self.call_with(word::SMC);
    }

    fn brk(&mut self) {
        self.call_with(word::BRK);
    }

    fn call_with(&mut self, kind: u32) {
        let immediate = self.chance.below(0xff) << 5;
        self.poke();
        self.code.put(kind | immediate);
        self.some_arithmetic(2);
    }

    /// PSCI_FEATURES of what does not exist; X1 to X3 may not survive the call.
    fn hvc(&mut self) {
        self.code.constant(0, 0x8400_000a);
        self.code.constant(1, 0x8400_00f0 + u64::from(self.chance.below(8)));
        self.poke();
        self.code.put(word::HVC);
        for register in 1..4 {
            self.code.constant(register, self.chance.next());
        }
    }

    fn exception_return(&mut self) {
        let mask = if self.chance.one_in(4) { 0x1c0 } else { 0 };
        self.code.constant(reg::B, EL1H | mask | u64::from(self.chance.below(16)) << 28);
        self.return_to(|_| {});
        self.some_arithmetic(2);
        self.code.put(word::UNMASK);
    }

    /// An exception return to the word after what `skipped` writes, with PSTATE in `reg::B`.
    fn return_to(&mut self, skipped: impl FnOnce(&mut Self)) {
        let at = self.code.words.len();
        // ADR, to be written when the target is known.
        self.code.put(word::NOP);
        self.emit_return();
        skipped(self);
        let end = self.code.here();
        let place = self.code.base + 4 * at as u64;
        self.code.words[at] = adr_word(reg::A, place, end);
    }

    /// To `reg::A` with PSTATE `reg::B`.
    fn emit_return(&mut self) {
        if self.restartable {
            if self.chance.one_in(2) {
                // The interrupt comes right before the ERET: the sequence unmasks.
                self.code.put(word::MASK);
                self.send();
            }
            self.code.branch_to(word::B, self.places.exception_return);
        } else {
            self.code.put(word::MASK);
            self.code.msr((3, 0, 4, 0, 1), reg::A);
            self.code.msr((3, 0, 4, 0, 0), reg::B);
            self.code.put(word::ERET);
        }
    }

    /// To EL0 and back, perhaps under the guest's own single-step.
    fn el0(&mut self) {
        let own_step = self.chance.one_in(2);
        self.code.adr(reg::A, 0);
        let leave = self.code.words.len() - 1;
        // STR to OWN_LEAVE.
        self.code.put(0xf900_0000 | 4 << 10 | reg::OWN << 5 | reg::A);
        let mut pstate = EL0T | u64::from(self.chance.below(16)) << 28;
        if own_step {
            // Enough for what must not come to an end half-way: see `exclusive::broken_by_steps`.
            let steps = self.chance.between(5, 14);
            self.code.constant(reg::B, steps.into());
            self.code.put(0xf900_0000 | 5 << 10 | reg::OWN << 5 | reg::B);
            self.poke();
            self.code.constant(reg::B, 1);
            self.code.msr(MDSCR, reg::B);
            self.code.put(word::ISB);
            pstate |= SS;
        }
        self.code.constant(reg::B, pstate);
        // The same code, where EL0 sees it.
        self.code.constant(reg::A, EL0_ALIAS);
        let here = self.code.words.len();
        self.code.adr(reg::C, 0);
        self.code.put(0x8b00_0000 | reg::C << 16 | reg::A << 5 | reg::A);
        self.emit_return();
        let entry = self.code.here();
        self.code.words[here] = adr_word(reg::C, self.code.base + 4 * here as u64, entry);
        if own_step {
            self.el0_under_own_step();
        } else {
            self.el0_freely();
        }
        self.code.put(word::SVC | 0xff << 5);
        let end = self.code.here();
        self.code.words[leave] = adr_word(reg::A, self.code.base + 4 * leave as u64, end);
        // Unless the steps ran out before.
        self.code.msr(MDSCR, 31);
        self.code.put(word::ISB);
    }

    /// Nothing here may loop until something succeeds: a step between two exclusives breaks them.
    fn el0_under_own_step(&mut self) {
        if self.chance.one_in(2) {
            exclusive::broken_by_steps(self);
        }
        for _ in 0..self.chance.between(1, 6) {
            match self.chance.below(6) {
                0 => self.code.put(word::SVC | self.chance.below(0xfe) << 5),
                1 => self.access_at_el0(),
                2 => self.code.put(word::BRK | self.chance.below(0xff) << 5),
                3 => self.code.put(word::NOP),
                4 => self.code.put(0xf940_0000 | reg::UNMAPPED << 5 | self.chance.data()),
                _ => self.code.arithmetic(&mut self.chance),
            }
        }
    }

    fn el0_freely(&mut self) {
        for _ in 0..self.chance.between(1, 5) {
            match self.chance.below(8) {
                0 => self.code.put(word::SVC | self.chance.below(0xfe) << 5),
                1 => self.code.put(word::BRK | self.chance.below(0xff) << 5),
                2 => self.access_at_el0(),
                3 => exclusive::retry_loop(self, reg::EL0_DATA, false),
                4 => self.code.mrs(self.chance.data(), (3, 3, 13, 0, 2)),
                5 => {
                    self.code.put(word::SEV);
                    self.code.put(word::WFE);
                }
                6 => self.code.put(0xf940_0000 | reg::UNMAPPED << 5 | self.chance.data()),
                _ => self.some_arithmetic(4),
            }
        }
    }

    fn access_at_el0(&mut self) {
        let place = self.chance.between(0x100, 0xf00);
        self.code.add(reg::A, reg::EL0_DATA, place);
        self.access_by(reg::A);
    }

    fn daif(&mut self) {
        for _ in 0..self.chance.between(1, 4) {
            self.poke();
            match self.chance.below(4) {
                0 => self.code.put(word::DAIFSET | self.chance.below(16) << 8),
                // SError, IRQ and FIQ.
                1 => self.code.put(word::DAIFCLR | self.chance.below(8) << 8),
                2 => {
                    let value = u64::from(self.chance.below(16)) << 6;
                    self.code.constant(reg::B, value);
                    self.code.msr(DAIF, reg::B);
                }
                _ => self.code.mrs(self.chance.data(), DAIF),
            }
            if self.chance.one_in(2) {
                self.code.mrs(self.chance.data(), DAIF);
            }
            self.code.put(word::UNMASK);
        }
        self.code.constant(reg::B, 0x200);
        self.code.msr(DAIF, reg::B);
    }

    /// Writes of MDSCR_EL1 that ask for nothing at EL1, with debug exceptions masked.
    fn mdscr(&mut self) {
        for _ in 0..self.chance.between(1, 3) {
            let bits = *self.chance.pick(&[0, 1 << 15, 1 << 12, 1 | 1 << 12, 1]);
            self.code.constant(reg::B, bits);
            self.poke();
            self.code.msr(MDSCR, reg::B);
            self.code.put(word::ISB);
            self.some_arithmetic(3);
            self.code.mrs(self.chance.data(), MDSCR);
        }
        self.code.msr(MDSCR, 31);
        self.code.put(word::ISB);
    }

    /// WFI with interrupts masked and a timer that is about to go off, or unmasked with one that
    /// keeps coming.
    fn wait_for_interrupt(&mut self) {
        if self.chance.one_in(2) {
            self.code.put(word::MASK);
            let (ticks, times) = (self.chance.between(1, 60), self.chance.between(1, 2));
            self.start_timer(ticks, times, 3_000, false);
            self.code.put(word::WFI);
            self.some_arithmetic(2);
            self.code.put(word::UNMASK);
        } else {
            // More often than there are instructions until it is switched off.
            self.start_timer(3_000, 1_000_000, 60_000, true);
            for _ in 0..self.chance.between(1, 3) {
                self.poke();
                self.code.put(word::WFI);
            }
            self.code.put(0xf900_0000 | reg::OWN << 5 | 31);
            self.code.msr(CNTV_CTL, 31);
            self.code.put(word::ISB);
        }
    }

    fn wait_for_event(&mut self) {
        for _ in 0..self.chance.between(1, 3) {
            self.poke();
            self.code.put(*self.chance.pick(&[word::SEV, word::SEVL]));
            self.poke();
            self.code.put(word::WFE);
        }
    }

    fn faults(&mut self) {
        for _ in 0..self.chance.between(1, 3) {
            let rt = self.chance.data();
            self.poke();
            match self.chance.below(6) {
                0 => self.code.put(0xf940_0000 | reg::UNMAPPED << 5 | rt),
                1 => self.code.put(0xf900_0000 | reg::UNMAPPED << 5 | rt),
                2 => self.code.put(0xa900_0000 | 3 << 10 | reg::UNMAPPED << 5 | rt),
                // A load-exclusive that is not aligned, nor within 16 bytes that are.
                3 => {
                    self.code.add(reg::A, reg::DATA, 0x10b);
                    self.code.put(0xc85f_7c00 | reg::A << 5 | rt);
                }
                4 => self.code.put(0xf900_0000 | 64 << 10 | reg::READ_ONLY << 5 | rt),
                // A call to nowhere: the handler returns to the link register.
                _ => self.code.put(0xd63f_0000 | reg::UNMAPPED << 5),
            }
        }
    }

    fn mmio(&mut self) {
        for _ in 0..self.chance.between(1, 3) {
            let rt = self.chance.data();
            let offset = *self.chance.pick(&[0x24, 0x28, 0x38]) / 4;
            self.poke();
            if self.chance.one_in(2) {
                // UARTIBRD, UARTFBRD, UARTIMSC: written with few bits, and read back.
                self.code.constant(reg::B, self.chance.below(16).into());
                self.code.put(0xb900_0000 | offset << 10 | reg::UART << 5 | reg::B);
            }
            self.poke();
            self.code.put(0xb940_0000 | offset << 10 | reg::UART << 5 | rt);
        }
        self.code.put(0xb900_0000 | (0x38 / 4) << 10 | reg::UART << 5 | 31);
    }

    /// Sets a timer that goes off a few times.
    fn timer(&mut self) {
        let (ticks, period) = (self.chance.between(2, 300), self.chance.between(20, 400));
        let times = self.chance.between(1, 6);
        if self.chance.one_in(3) {
            self.start_physical_timer(ticks, times, period);
        } else {
            self.start_timer(ticks, times, period, true);
        }
    }

    fn start_timer(&mut self, ticks: u32, times: u32, period: u32, unmasked: bool) {
        self.code.constant(reg::A, times.into());
        self.code.constant(reg::B, period.into());
        self.code.put(0xa900_0000 | reg::B << 10 | reg::OWN << 5 | reg::A);
        self.set_timer(CNTV_TVAL, CNTV_CTL, ticks, unmasked);
    }

    fn start_physical_timer(&mut self, ticks: u32, times: u32, period: u32) {
        self.code.constant(reg::A, times.into());
        self.code.constant(reg::B, period.into());
        self.code.put(0xa900_0000 | 2 << 15 | reg::B << 10 | reg::OWN << 5 | reg::A);
        self.set_timer(CNTP_TVAL, CNTP_CTL, ticks, true);
    }

    fn set_timer(&mut self, tval: SystemRegister, ctl: SystemRegister, ticks: u32, poked: bool) {
        self.code.constant(reg::A, ticks.into());
        if poked {
            self.poke();
        }
        self.code.msr(tval, reg::A);
        self.code.constant(reg::A, 1);
        self.code.msr(ctl, reg::A);
    }
}

fn adr_word(rd: u32, place: u64, target: u64) -> u32 {
    let mut code = Code::at(place);
    code.adr(rd, target);
    code.words[0]
}
