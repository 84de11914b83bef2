//! Instruction classes: every kind of instruction that matters to a step, by which the test mode
//! counts.

use stepwell_arch::{Instruction, SystemRegister};

/// A class of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionClass {
    /// Nothing special.
    Plain,
    /// A branch, a call or a return.
    Branch,
    /// A load from memory.
    Load,
    /// A store to memory.
    Store,
    /// An atomic of FEAT_LSE.
    Atomic,
    /// A load-exclusive.
    LoadExclusive,
    /// A store-exclusive.
    StoreExclusive,
    /// CLREX.
    ClearExclusive,
    /// SVC.
    Svc,
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
    /// BRK.
    Brk,
    /// ERET.
    Eret,
    /// WFI.
    Wfi,
    /// WFE.
    Wfe,
    /// SEV and SEVL.
    Sev,
    /// ISB.
    Isb,
    /// A write of MDSCR_EL1.
    MsrMdscr,
    /// A write of DAIF, DAIFSet or DAIFClr.
    MsrDaif,
    /// A counter or timer register.
    Timer,
    /// Any other system register.
    SystemRegister,
    /// A load or store that stage 1 does not translate.
    Fault,
    /// A load or store of a device.
    Mmio,
    /// Somewhere in a run that the assembly took.
    FastRun,
}

impl InstructionClass {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 24] = [
        Self::Plain,
        Self::Branch,
        Self::Load,
        Self::Store,
        Self::Atomic,
        Self::LoadExclusive,
        Self::StoreExclusive,
        Self::ClearExclusive,
        Self::Svc,
        Self::Hvc,
        Self::Smc,
        Self::Brk,
        Self::Eret,
        Self::Wfi,
        Self::Wfe,
        Self::Sev,
        Self::Isb,
        Self::MsrMdscr,
        Self::MsrDaif,
        Self::Timer,
        Self::SystemRegister,
        Self::Fault,
        Self::Mmio,
        Self::FastRun,
    ];

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Branch => "branch",
            Self::Load => "load",
            Self::Store => "store",
            Self::Atomic => "atomic",
            Self::LoadExclusive => "load-exclusive",
            Self::StoreExclusive => "store-exclusive",
            Self::ClearExclusive => "clrex",
            Self::Svc => "svc",
            Self::Hvc => "hvc",
            Self::Smc => "smc",
            Self::Brk => "brk",
            Self::Eret => "eret",
            Self::Wfi => "wfi",
            Self::Wfe => "wfe",
            Self::Sev => "sev",
            Self::Isb => "isb",
            Self::MsrMdscr => "msr-mdscr",
            Self::MsrDaif => "msr-daif",
            Self::Timer => "timer",
            Self::SystemRegister => "system-register",
            Self::Fault => "fault",
            Self::Mmio => "mmio",
            Self::FastRun => "fast-run",
        }
    }

    /// The class of an instruction. Where its data lies is for the caller to find out: what
    /// accesses memory is [`Self::Load`], [`Self::Store`] or [`Self::Atomic`] here.
    ///
    /// Source: Arm ARM (DDI 0487, issue L.b), "A64 instruction set encoding", "Loads and Stores"
    /// and "Branches, Exception Generating and System instructions".
    #[must_use]
    pub fn of(word: u32) -> Self {
        match Instruction::decode(word) {
            Instruction::LoadExclusive { .. } => Self::LoadExclusive,
            Instruction::StoreExclusive { .. } => Self::StoreExclusive,
            Instruction::ClearExclusive => Self::ClearExclusive,
            Instruction::Svc { .. } => Self::Svc,
            Instruction::Hvc { .. } => Self::Hvc,
            Instruction::Smc { .. } => Self::Smc,
            Instruction::Brk { .. } => Self::Brk,
            Instruction::Eret => Self::Eret,
            Instruction::Wfi | Instruction::Wfit { .. } => Self::Wfi,
            Instruction::Wfe | Instruction::Wfet { .. } => Self::Wfe,
            Instruction::Sev | Instruction::Sevl => Self::Sev,
            Instruction::Isb => Self::Isb,
            Instruction::Msr { register: SystemRegister::MDSCR_EL1, .. } => Self::MsrMdscr,
            Instruction::Msr { register: SystemRegister::DAIF, .. }
            | Instruction::MsrImmediate { op1: 3, op2: 6 | 7, .. } => Self::MsrDaif,
            Instruction::Mrs { register, .. } | Instruction::Msr { register, .. } => {
                let timer = register.op0() == 3 && register.op1() == 3 && register.crn() == 14;
                if timer { Self::Timer } else { Self::SystemRegister }
            }
            _ if is_memory(word) => Self::of_memory(word),
            _ if word >> 26 & 0x1f == 0b00101
                || word >> 25 & 0x3f == 0b01_1010
                || word >> 25 & 0x3f == 0b01_1011
                || word >> 24 == 0x54
                || word >> 25 == 0b110_1011 =>
            {
                Self::Branch
            }
            _ => Self::Plain,
        }
    }

    fn of_memory(word: u32) -> Self {
        let bit = |n: u32| word >> n & 1 != 0;
        let by_l = || if bit(22) { Self::Load } else { Self::Store };
        let is_literal = word & 0x3b00_0000 == 0x1800_0000;
        // LDAR, STLR and compare-and-swap lie among the exclusives.
        let is_ordered = word & 0x3f00_0000 == 0x0800_0000;
        let is_lse = word & 0x3b20_0c00 == 0x3820_0000;
        let is_pair = word >> 27 & 7 == 0b101;
        match () {
            () if is_lse || (is_ordered && bit(21)) => Self::Atomic,
            () if is_ordered || is_pair => by_l(),
            () if is_literal || word >> 22 & 3 != 0 => Self::Load,
            () => Self::Store,
        }
    }

    /// Tells whether it accesses memory by a base register, in bits 9:5.
    #[must_use]
    pub const fn has_base(self) -> bool {
        matches!(
            self,
            Self::Load | Self::Store | Self::Atomic | Self::LoadExclusive | Self::StoreExclusive
        )
    }
}

/// Loads and stores: bit 27 set and bit 25 clear.
const fn is_memory(word: u32) -> bool {
    word >> 25 & 0b0101 == 0b0100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_words() {
        for (word, class, text) in [
            (0xd503_201f_u32, InstructionClass::Plain, "nop"),
            (0x9100_0421, InstructionClass::Plain, "add x1, x1, #1"),
            (0x1400_0000, InstructionClass::Branch, "b ."),
            (0x9400_0000, InstructionClass::Branch, "bl ."),
            (0x54ff_ffe1, InstructionClass::Branch, "b.ne"),
            (0xb5ff_ffc1, InstructionClass::Branch, "cbnz x1"),
            (0x3600_0000, InstructionClass::Branch, "tbz w0, #0"),
            (0xd65f_03c0, InstructionClass::Branch, "ret"),
            (0xd61f_0000, InstructionClass::Branch, "br x0"),
            (0xf940_0020, InstructionClass::Load, "ldr x0, [x1]"),
            (0xf900_0020, InstructionClass::Store, "str x0, [x1]"),
            (0xa940_0440, InstructionClass::Load, "ldp x0, x1, [x2]"),
            (0xa900_0440, InstructionClass::Store, "stp x0, x1, [x2]"),
            (0x1800_0000, InstructionClass::Load, "ldr w0, ."),
            (0x38e0_0020, InstructionClass::Atomic, "ldaddalb w0, w0, [x1]"),
            (0xf820_0020, InstructionClass::Atomic, "ldadd x0, x0, [x1]"),
            (0xc8a1_7c43, InstructionClass::Atomic, "cas x1, x3, [x2]"),
            (0xc85f_7c20, InstructionClass::LoadExclusive, "ldxr x0, [x1]"),
            (0xc800_7c22, InstructionClass::StoreExclusive, "stxr w0, x2, [x1]"),
            (0xc8df_fc20, InstructionClass::Load, "ldar x0, [x1]"),
            (0xc89f_fc20, InstructionClass::Store, "stlr x0, [x1]"),
            (0xd503_3f5f, InstructionClass::ClearExclusive, "clrex"),
            (0xd69f_03e0, InstructionClass::Eret, "eret"),
            (0xd503_42df, InstructionClass::MsrDaif, "msr daifset, #2"),
            (0xd51b_4220, InstructionClass::MsrDaif, "msr daif, x0"),
            (0xd510_0240, InstructionClass::MsrMdscr, "msr mdscr_el1, x0"),
            (0xd53b_e040, InstructionClass::Timer, "mrs x0, cntvct_el0"),
            (0xd53b_d040, InstructionClass::SystemRegister, "mrs x0, tpidr_el0"),
        ] {
            assert_eq!(InstructionClass::of(word), class, "{text}");
        }
    }

    #[test]
    fn every_class_has_a_place_and_a_name_of_its_own() {
        for (place, class) in InstructionClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place);
            let same = InstructionClass::ALL.iter().filter(|other| other.name() == class.name());
            assert_eq!(same.count(), 1);
        }
    }
}
