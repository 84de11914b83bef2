//! What kinds of instructions were executed.
//!
//! Classes are those of the encoding tables in the Arm Architecture Reference Manual for
//! A-profile, "A64 instruction set encoding", split where readers of a trace want to know more.

use serde::Serialize;

/// A kind of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Class {
    /// Integer arithmetic, logic, moves, shifts.
    Integer,
    /// Multiply, divide.
    Multiply,
    /// Loads, also of SIMD registers.
    Load,
    /// Stores, also of SIMD registers.
    Store,
    /// Load- and store-exclusive.
    Exclusive,
    /// Atomics of FEAT_LSE.
    Atomic,
    /// Branches within a function or to another.
    Branch,
    /// Calls and returns.
    Call,
    /// SIMD and floating point, SVE.
    Simd,
    /// MSR, MRS, cache and TLB maintenance, SVC and the like, ERET.
    System,
    /// Barriers: DMB, DSB, ISB, SB, CLREX.
    Barrier,
    /// Hints: NOP, WFI, YIELD, pointer authentication, BTI, prefetches.
    Hint,
    /// A32 and T32: not told apart.
    AArch32,
    /// The code was not recorded, or is no instruction.
    Unknown,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Integer,
        Self::Multiply,
        Self::Load,
        Self::Store,
        Self::Exclusive,
        Self::Atomic,
        Self::Branch,
        Self::Call,
        Self::Simd,
        Self::System,
        Self::Barrier,
        Self::Hint,
        Self::AArch32,
        Self::Unknown,
    ];

    /// Returns its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "Integer",
            Self::Multiply => "Multiply, divide",
            Self::Load => "Load",
            Self::Store => "Store",
            Self::Exclusive => "Exclusive",
            Self::Atomic => "Atomic (LSE)",
            Self::Branch => "Branch",
            Self::Call => "Call, return",
            Self::Simd => "SIMD, floating point",
            Self::System => "System",
            Self::Barrier => "Barrier",
            Self::Hint => "Hint",
            Self::AArch32 => "AArch32",
            Self::Unknown => "Unknown",
        }
    }

    /// Returns the class of an instruction.
    #[must_use]
    pub const fn of(word: u32) -> Self {
        match (word >> 25) & 15 {
            0b1000 | 0b1001 => Self::Integer,
            0b1010 | 0b1011 => control(word),
            0b0100 | 0b0110 | 0b1100 | 0b1110 => memory(word),
            0b0101 | 0b1101 => register(word),
            0b0111 | 0b1111 | 0b0010 => Self::Simd,
            _ => Self::Unknown,
        }
    }
}

/// "Branches, Exception Generating and System instructions".
const fn control(word: u32) -> Class {
    match word >> 24 {
        0xd4 => Class::System,
        0xd5 => match (word >> 12) & 0xfff {
            0x032 => Class::Hint,
            0x033 => Class::Barrier,
            // MSR (immediate) and the like, SYS, MSR and MRS.
            _ => Class::System,
        },
        0xd6 | 0xd7 => match (word >> 21) & 7 {
            0 => Class::Branch,
            1 | 2 => Class::Call,
            _ => Class::System,
        },
        0x94..=0x97 => Class::Call,
        _ => Class::Branch,
    }
}

/// "Data Processing -- Register".
const fn register(word: u32) -> Class {
    let three_source = word & 0x1f00_0000 == 0x1b00_0000;
    // Data-processing (2 source): UDIV and SDIV.
    let divide = word & 0x5fe0_f800 == 0x1ac0_0800;
    if three_source || divide { Class::Multiply } else { Class::Integer }
}

/// "Loads and Stores".
const fn memory(word: u32) -> Class {
    if word & 0x3f00_0000 == 0x0800_0000 {
        return ordered(word);
    }
    match word & 0x3b00_0000 {
        // Load register (literal): opc 11 of the general registers is PRFM.
        0x1800_0000 => {
            if word & 0xff00_0000 == 0xd800_0000 {
                Class::Hint
            } else {
                Class::Load
            }
        }
        // LDAPR and STLR (unscaled), memory tags, memory copy and set.
        0x1900_0000 => load_if(word & 0x00c0_0000 != 0),
        0x3800_0000 | 0x3900_0000 => single(word),
        // Pairs and SIMD structures.
        _ => load_if(word & 0x0040_0000 != 0),
    }
}

const fn load_if(is: bool) -> Class {
    if is { Class::Load } else { Class::Store }
}

/// "Load/store exclusive", "Load/store ordered", "Compare and swap".
const fn ordered(word: u32) -> Class {
    let (o2, o1, pair_size) = (word & (1 << 23) != 0, word & (1 << 21) != 0, word >> 31 == 1);
    match (o2, o1) {
        (true, true) => Class::Atomic,
        (true, false) => load_if(word & 0x0040_0000 != 0),
        (false, true) if !pair_size => Class::Atomic,
        (false, _) => Class::Exclusive,
    }
}

/// "Load/store register" in all its forms, and "Atomic memory operations".
const fn single(word: u32) -> Class {
    let (vector, opc) = (word & (1 << 26) != 0, (word >> 22) & 3);
    let register_or_atomic = word & 0x0120_0000 == 0x0020_0000;
    if register_or_atomic && !vector {
        match (word >> 10) & 3 {
            // LDAPR is encoded among the atomics.
            0 if word & 0x3fff_fc00 == 0x38bf_c000 => return Class::Load,
            0 => return Class::Atomic,
            // LDRAA, LDRAB.
            1 | 3 => return Class::Load,
            _ => {}
        }
    }
    if vector {
        return load_if(opc & 1 == 1);
    }
    match opc {
        0 => Class::Store,
        2 if word >> 30 == 3 => Class::Hint,
        _ => Class::Load,
    }
}

/// Tells whether `word` is a load-exclusive.
#[must_use]
pub const fn is_load_exclusive(word: u32) -> bool {
    matches!(Class::of(word), Class::Exclusive) && word & 0x0040_0000 != 0
}

/// Returns the status register of a store-exclusive.
#[must_use]
pub const fn store_exclusive_status(word: u32) -> Option<u32> {
    let stores = matches!(Class::of(word), Class::Exclusive) && word & 0x0040_0000 == 0;
    if stores { Some((word >> 16) & 31) } else { None }
}

/// Tells whether `word` is a CBNZ of this register: how a loop around a store-exclusive goes on.
#[must_use]
pub const fn is_retry_on(word: u32, register: u32) -> bool {
    word & 0x7f00_001f == 0x3500_0000 | register
}

/// Tells whether `word` reads ICC_IAR1_EL1, by which a guest acknowledges an interrupt.
#[must_use]
pub const fn acknowledges_interrupt(word: u32) -> bool {
    word & 0xffff_ffe0 == 0xd538_cc00
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disassemble::Disassembler;
    use stepwell_arch::address::Va;

    #[test]
    fn known_instructions() {
        let list = [
            (0x9100_0421, Class::Integer),   // add x1, x1, #1
            (0x8b02_0020, Class::Integer),   // add x0, x1, x2
            (0x9b02_7c20, Class::Multiply),  // mul x0, x1, x2
            (0x9ac2_0820, Class::Multiply),  // udiv x0, x1, x2
            (0x9ac2_2020, Class::Integer),   // lsl x0, x1, x2
            (0xf940_0020, Class::Load),      // ldr x0, [x1]
            (0xf900_0020, Class::Store),     // str x0, [x1]
            (0x5800_0040, Class::Load),      // ldr x0, literal
            (0xa9bf_7bfd, Class::Store),     // stp x29, x30, [sp, #-16]!
            (0xa8c1_7bfd, Class::Load),      // ldp x29, x30, [sp], #16
            (0x3d80_0020, Class::Store),     // str q0, [x1]
            (0x3dc0_0020, Class::Load),      // ldr q0, [x1]
            (0xf980_0020, Class::Hint),      // prfm pldl1keep, [x1]
            (0xf862_6820, Class::Load),      // ldr x0, [x1, x2]
            (0xc85f_7c20, Class::Exclusive), // ldxr x0, [x1]
            (0xc802_7c20, Class::Exclusive), // stxr w2, x0, [x1]
            (0xc87f_0440, Class::Exclusive), // ldxp x0, x1, [x2]
            (0xc8df_fc20, Class::Load),      // ldar x0, [x1]
            (0xc89f_fc20, Class::Store),     // stlr x0, [x1]
            (0xc8e0_fc41, Class::Atomic),    // casal x0, x1, [x2]
            (0x4860_7c82, Class::Atomic),    // caspa x0, x1, x2, x3, [x4]
            (0xf822_0020, Class::Atomic),    // ldadd x2, x0, [x1]
            (0xf8bf_c020, Class::Load),      // ldapr x0, [x1]
            (0x1400_0001, Class::Branch),    // b
            (0x5400_0040, Class::Branch),    // b.eq
            (0xb500_0040, Class::Branch),    // cbnz
            (0xd61f_0200, Class::Branch),    // br x16
            (0x9400_0001, Class::Call),      // bl
            (0xd63f_0100, Class::Call),      // blr x8
            (0xd65f_03c0, Class::Call),      // ret
            (0xd69f_03e0, Class::System),    // eret
            (0xd400_0001, Class::System),    // svc #0
            (0xd53b_e040, Class::System),    // mrs x0, cntvct_el0
            (0xd503_201f, Class::Hint),      // nop
            (0xd503_233f, Class::Hint),      // paciasp
            (0xd503_3fdf, Class::Barrier),   // isb
            (0xd503_3bbf, Class::Barrier),   // dmb ish
            (0x4e21_8420, Class::Simd),      // add v0.16b, v1.16b, v1.16b
            (0x1e61_2800, Class::Simd),      // fadd d0, d0, d1
            (0x0000_0000, Class::Unknown),   // udf #0
        ];
        for (word, class) in list {
            assert_eq!(Class::of(word), class, "{word:#010x}");
        }
        assert_eq!(store_exclusive_status(0xc802_7c20), Some(2));
        assert_eq!(store_exclusive_status(0xc85f_7c20), None);
        assert!(is_load_exclusive(0xc85f_7c20));
        assert!(is_retry_on(0x3500_0042, 2) && !is_retry_on(0x3500_0042, 3));
        assert!(is_retry_on(0xb5ff_ffc2, 2) && !is_retry_on(0x3400_0042, 2));
        assert!(acknowledges_interrupt(0xd538_cc05));
    }

    /// The first letters of what the disassembler says agree with the class, for a spread of words.
    #[test]
    fn the_disassembler_agrees_on_loads_and_stores() {
        let disassembler = Disassembler::new().expect("capstone has A64");
        let mut word = 0x1234_5677_u32;
        let mut seen = 0;
        for _ in 0..200_000 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let text = disassembler.text(word, Va(0x1000));
            if !matches!(word >> 25 & 15, 4 | 6 | 12 | 14) || text.starts_with(".inst") {
                continue;
            }
            let class = Class::of(word);
            let mnemonic = text.split(' ').next().unwrap_or("");
            let plain =
                ["ldr", "ldp", "ldur", "ldn", "ldar", "ldapr", "ldtr", "str", "stp", "stur"];
            if !plain.iter().any(|start| mnemonic.starts_with(start)) {
                continue;
            }
            seen += 1;
            let expected = if mnemonic.starts_with("ld") { Class::Load } else { Class::Store };
            assert_eq!(class, expected, "{word:#010x} {text}");
        }
        assert!(seen > 1000, "{seen}");
    }
}
