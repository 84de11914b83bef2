//! A64 instructions as words, and a buffer that knows where each will lie.
//!
//! Encodings are from the Arm ARM (DDI 0487, issue L.b), "A64 Base Instruction Descriptions". Only
//! what the generator writes is here.

use super::chance::Chance;

/// A register's number; 31 is XZR, or SP as a base.
pub type Reg = u32;

/// Words of code, the first of which lies at `base`.
#[derive(Clone, Debug)]
pub struct Code {
    /// Address of the first word.
    pub base: u64,
    /// The words.
    pub words: Vec<u32>,
}

/// A branch whose target is not known yet.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    at: usize,
    word: u32,
}

/// Fields of a system register: op0, op1, CRn, CRm, op2.
pub type SystemRegister = (u32, u32, u32, u32, u32);

impl Code {
    /// Makes an empty buffer.
    #[must_use]
    pub const fn at(base: u64) -> Self {
        Self { base, words: Vec::new() }
    }

    /// Where the next word goes.
    #[must_use]
    pub fn here(&self) -> u64 {
        self.base + 4 * self.words.len() as u64
    }

    /// Adds a word.
    pub fn put(&mut self, word: u32) {
        self.words.push(word);
    }

    /// A branch to a place that comes later; `word` is the branch with offset 0.
    #[must_use]
    pub fn forward(&mut self, word: u32) -> Forward {
        self.put(word);
        Forward { at: self.words.len() - 1, word }
    }

    /// Makes a forward branch lead to here.
    pub fn land(&mut self, branch: Forward) {
        let words = self.words.len() - branch.at;
        self.words[branch.at] = branch.word | offset(branch.word, words as i64);
    }

    /// A branch to an address.
    pub fn branch_to(&mut self, word: u32, target: u64) {
        let words = (target.cast_signed() - self.here().cast_signed()) / 4;
        self.put(word | offset(word, words));
    }

    /// ADR to an address within 1 MiB.
    pub fn adr(&mut self, rd: Reg, target: u64) {
        let bytes = target.wrapping_sub(self.here()) as u32;
        self.put(0x1000_0000 | (bytes & 3) << 29 | (bytes >> 2 & 0x7_ffff) << 5 | rd);
    }

    /// Loads a constant.
    pub fn constant(&mut self, rd: Reg, value: u64) {
        self.put(0xd280_0000 | (value as u32 & 0xffff) << 5 | rd);
        for half in 1..4 {
            let part = (value >> (16 * half)) as u32 & 0xffff;
            if part != 0 {
                self.put(0xf280_0000 | half << 21 | part << 5 | rd);
            }
        }
    }

    /// MRS.
    pub fn mrs(&mut self, rt: Reg, register: SystemRegister) {
        self.put(0xd520_0000 | system(register) | rt);
    }

    /// MSR (register).
    pub fn msr(&mut self, register: SystemRegister, rt: Reg) {
        self.put(0xd500_0000 | system(register) | rt);
    }

    /// ADD (immediate), 64 bits.
    pub fn add(&mut self, rd: Reg, rn: Reg, immediate: u32) {
        self.put(0x9100_0000 | immediate << 10 | rn << 5 | rd);
    }

    /// MOV between registers.
    pub fn mov(&mut self, rd: Reg, rm: Reg) {
        self.put(0xaa00_03e0 | rm << 16 | rd);
    }

    /// EOR of two registers.
    pub fn eor(&mut self, rd: Reg, rn: Reg, rm: Reg) {
        self.put(0xca00_0000 | rm << 16 | rn << 5 | rd);
    }

    /// Any instruction that computes something of the data registers, flags included.
    pub fn arithmetic(&mut self, chance: &mut Chance) {
        const SHIFTED: [u32; 10] = [
            0x8a00_0000,
            0xaa00_0000,
            0xca00_0000,
            0xea00_0000,
            0x8a20_0000,
            0x8b00_0000,
            0xab00_0000,
            0xcb00_0000,
            0xeb00_0000,
            0xca20_0000,
        ];
        const TWO: [u32; 10] = [
            0x9bc0_7c00, // umulh
            0x9b40_7c00, // smulh
            0x9ac0_0800, // udiv
            0x9ac0_0c00, // sdiv
            0x9ac0_2000, // lslv
            0x9ac0_2400, // lsrv
            0x9ac0_2800, // asrv
            0x9ac0_2c00, // rorv
            0xba00_0000, // adcs
            0xda00_0000, // sbc
        ];
        const ONE: [u32; 5] = [0xdac0_0000, 0xdac0_0400, 0xdac0_0c00, 0xdac0_1000, 0xdac0_1400];
        let (rd, rn, rm) = (chance.data(), chance.data(), chance.data());
        let word = match chance.below(8) {
            0..=2 => {
                let base = *chance.pick(&SHIFTED);
                let shifts = if base >> 24 & 0x1f == 0x0b { 3 } else { 4 };
                let shift = chance.below(shifts) << 22 | chance.below(32) << 10;
                (base | shift | rm << 16) & !(chance.below(2) << 31)
            }
            3 => *chance.pick(&TWO) | rm << 16,
            4 => *chance.pick(&ONE),
            5 => 0x9b00_0000 | rm << 16 | chance.data() << 10 | chance.below(2) << 15,
            6 => {
                let kind = *chance.pick(&[0x9a80_0000, 0x9a80_0400, 0xda80_0000, 0xda80_0400]);
                kind | rm << 16 | chance.below(14) << 12
            }
            _ => {
                let kind = *chance.pick(&[0x9100_0000, 0xb100_0000, 0xd100_0000, 0xf100_0000]);
                kind | chance.below(4096) << 10
            }
        };
        self.put(word | rn << 5 | rd);
    }
}

/// The offset of a branch, in its field.
fn offset(word: u32, words: i64) -> u32 {
    let words = words as u32;
    if word >> 26 & 0x1f == 0b00101 {
        words & 0x3ff_ffff
    } else if word >> 25 & 0x3f == 0b01_1011 {
        (words & 0x3fff) << 5
    } else {
        (words & 0x7_ffff) << 5
    }
}

const fn system((op0, op1, crn, crm, op2): SystemRegister) -> u32 {
    op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

/// Instructions without operands, and bases of those with a few.
pub mod word {
    /// B.
    pub const B: u32 = 0x1400_0000;
    /// BL.
    pub const BL: u32 = 0x9400_0000;
    /// RET.
    pub const RET: u32 = 0xd65f_03c0;
    /// ERET.
    pub const ERET: u32 = 0xd69f_03e0;
    /// NOP.
    pub const NOP: u32 = 0xd503_201f;
    /// WFE.
    pub const WFE: u32 = 0xd503_205f;
    /// WFI.
    pub const WFI: u32 = 0xd503_207f;
    /// SEV.
    pub const SEV: u32 = 0xd503_209f;
    /// SEVL.
    pub const SEVL: u32 = 0xd503_20bf;
    /// CLREX.
    pub const CLREX: u32 = 0xd503_3f5f;
    /// ISB.
    pub const ISB: u32 = 0xd503_3fdf;
    /// DSB SY.
    pub const DSB: u32 = 0xd503_3f9f;
    /// DMB ISH.
    pub const DMB: u32 = 0xd503_3bbf;
    /// MSR DAIFSet, #0; the immediate is at bit 8.
    pub const DAIFSET: u32 = 0xd503_40df;
    /// MSR DAIFClr, #0.
    pub const DAIFCLR: u32 = 0xd503_40ff;
    /// MSR DAIFSet, #7: SError, IRQ and FIQ masked.
    pub const MASK: u32 = DAIFSET | 7 << 8;
    /// MSR DAIFClr, #7: SError, IRQ and FIQ unmasked.
    pub const UNMASK: u32 = DAIFCLR | 7 << 8;
    /// MSR DAIFSet, #2: IRQ masked.
    pub const MASK_IRQ: u32 = DAIFSET | 2 << 8;
    /// MSR DAIFClr, #2: IRQ unmasked.
    pub const UNMASK_IRQ: u32 = DAIFCLR | 2 << 8;
    /// SVC; the immediate is at bit 5.
    pub const SVC: u32 = 0xd400_0001;
    /// HVC.
    pub const HVC: u32 = 0xd400_0002;
    /// SMC.
    pub const SMC: u32 = 0xd400_0003;
    /// BRK.
    pub const BRK: u32 = 0xd420_0000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_land() {
        let mut code = Code::at(0x1000);
        let over = code.forward(word::B);
        code.put(word::NOP);
        code.land(over);
        code.branch_to(word::BL, 0x1000);
        code.branch_to(0x5400_0001, 0x1004);
        code.branch_to(0x3600_0000, 0x1000);
        assert_eq!(code.words, [0x1400_0002, word::NOP, 0x97ff_fffe, 0x54ff_ffc1, 0x3607_ff80]);
    }

    #[test]
    fn constants_and_registers() {
        let mut code = Code::at(0);
        code.constant(3, 0x1_0000_0002);
        code.mrs(0, (3, 3, 4, 2, 1));
        code.msr((2, 0, 0, 2, 2), 0);
        assert_eq!(code.words, [0xd280_0043, 0xf2c0_0023, 0xd53b_4220, 0xd510_0240]);
    }
}
