//! The fast path's question, "does this instruction need the slow path?", as a table.
//!
//! The assembly at EL2 answers it with two loads and no branch for most instructions:
//!
//! 1. bits 31:24 of the instruction select a byte of [`Attention::top`];
//! 2. [`PLAIN`] goes on, [`ALWAYS`] leaves the fast path;
//! 3. [`SYSTEM`] looks at bit `7:5` of byte `23:8` in [`Attention::system`];
//! 4. [`BRANCH`] leaves it where bit 23 is set (ERET and DRPS, not BR, BLR and RET).
//!
//! The table of the system space is made from [`plan`], word by word. The classes of bits 31:24 are
//! written down here, because making them from [`plan`], too, would be four thousand million
//! decodings at each boot; host tests hold them against it, every word of the system space and
//! words from all over. Where one answer covers several instructions, the table errs on the side of
//! attention: LDAR, STLR and CAS share the bytes of the exclusives, and a word that would be a hint
//! or an MSR (immediate) but for its Rt is undefined.
//!
//! Source: Arm ARM (DDI 0487, issue L.b), "A64 instruction set encoding".

use crate::plan::{Plan, plan};
use stepwell_arch::instruction::Instruction;

/// Class of bits 31:24: never needs attention.
pub const PLAIN: u8 = 0;
/// Class of bits 31:24: always needs attention.
pub const ALWAYS: u8 = 1;
/// Class of bits 31:24: ask the system table.
pub const SYSTEM: u8 = 2;
/// Class of bits 31:24: needs attention where bit 23 is set.
pub const BRANCH: u8 = 3;

/// Rt of the instructions that have none: hints, barriers and MSR (immediate). Those with an Rt
/// need attention whatever it is, so this one stands for all.
const NO_RT: u32 = 31;

/// Bytes of the system table.
pub const SYSTEM_BYTES: usize = 1 << 16;

/// The table. Its layout is known to the assembly: `top` first, `system` right after.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Attention {
    /// Class of each value of bits 31:24.
    pub top: [u8; 256],
    /// For [`SYSTEM`]: one bit for each value of bits 23:5.
    pub system: [u8; SYSTEM_BYTES],
}

impl Default for Attention {
    fn default() -> Self {
        Self::empty()
    }
}

impl Attention {
    /// Makes a table in which everything is plain; call [`Attention::fill`].
    #[must_use]
    pub const fn empty() -> Self {
        Self { top: [PLAIN; 256], system: [0; SYSTEM_BYTES] }
    }

    /// Fills the table. Half a million decodings: once, at boot.
    pub fn fill(&mut self) {
        for (top, class) in (0_u8..=u8::MAX).zip(self.top.iter_mut()) {
            *class = match top {
                // Load/store exclusive, and what shares its space (LDAR, STLR, CAS).
                0x08 | 0x48 | 0x88 | 0xc8 => ALWAYS,
                0xd5 => SYSTEM,
                0xd6 => BRANCH,
                _ => PLAIN,
            };
        }
        for (middle, byte) in (0_u16..=u16::MAX).zip(self.system.iter_mut()) {
            let word = 0xd500_0000 | u32::from(middle) << 8 | NO_RT;
            *byte = (0..8_u32)
                .filter(|low| needs_attention(word | low << 5))
                .fold(0, |bits, low| bits | 1_u8.wrapping_shl(low));
        }
    }

    /// Answers as the assembly does.
    #[must_use]
    pub fn lookup(&self, word: u32) -> bool {
        let [top, high, low, last] = word.to_be_bytes();
        // Both tables have an entry for each index; attention would be the safe answer.
        match self.top.get(usize::from(top)).copied().unwrap_or(ALWAYS) {
            SYSTEM => {
                let byte = self.system.get(usize::from(u16::from_be_bytes([high, low])));
                byte.is_none_or(|byte| byte.wrapping_shr(u32::from(last >> 5)) & 1 != 0)
            }
            BRANCH => high & 0x80 != 0,
            class => class != PLAIN,
        }
    }
}

/// Tells whether an instruction needs the slow path.
#[must_use]
pub fn needs_attention(word: u32) -> bool {
    plan(Instruction::decode(word)) != Plan::Execute
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static TABLE: LazyLock<Box<Attention>> = LazyLock::new(|| {
        let mut table = Box::new(Attention::empty());
        table.fill();
        table
    });

    /// Hints, barriers and MSR (immediate): where Rt is not 31, the word is undefined.
    fn has_no_rt(word: u32) -> bool {
        word & 0xfff8_f000 == 0xd500_4000
            || word & 0xffff_f000 == 0xd503_2000
            || word & 0xffff_f000 == 0xd503_3000
    }

    #[test]
    fn the_layout_is_the_assemblys() {
        assert_eq!(offset_of!(Attention, top), 0);
        assert_eq!(offset_of!(Attention, system), 256);
        assert_eq!(size_of::<Attention>(), 256 + SYSTEM_BYTES);
    }

    #[test]
    fn an_empty_table_lets_everything_by() {
        let table = Box::new(Attention::default());
        assert!(!table.lookup(0xd69f_03e0));
        assert!(!table.lookup(0x085f_7c00));
    }

    #[test]
    fn what_needs_the_slow_path_is_seen() {
        // Most have Rt = 31, and were taken for plain when the table was made with Rt = 0.
        let words = [
            (0xd503_207f, "wfi"),
            (0xd503_305f, "clrex"),
            (0xd503_3f5f, "clrex #15"),
            (0xd503_205f, "wfe"),
            (0xd503_42ff, "msr daifclr, #2"),
            (0xd538_cc00, "mrs x0, icc_iar1_el1"),
            (0xd508_871f, "tlbi vmalle1"),
            (0xd508_831f, "tlbi vmalle1is"),
        ];
        for (word, text) in words {
            assert!(needs_attention(word), "{text}");
            assert!(TABLE.lookup(word), "{text}");
        }
    }

    #[test]
    fn the_kernels_common_system_instructions_stay_on_the_fast_path() {
        let words = [
            (0xd503_201f, "nop"),
            (0xd503_3bbf, "dmb ish"),
            (0xd503_3b9f, "dsb ish"),
            (0xd503_3fdf, "isb"),
            (0xd503_42df, "msr daifset, #2"),
            (0xd53b_4220, "mrs x0, daif"),
            (0xd538_4100, "mrs x0, sp_el0"),
            (0xd538_d080, "mrs x0, tpidr_el1"),
            (0xd518_4020, "msr elr_el1, x0"),
            (0xd503_209f, "sev"),
            (0xd503_233f, "paciasp"),
        ];
        for (word, text) in words {
            assert!(!TABLE.lookup(word), "{text}");
        }
    }

    #[test]
    fn the_system_table_is_the_plan_for_every_word() {
        for word in 0xd500_0000..=0xd5ff_ffff_u32 {
            let (fast, slow) = (TABLE.lookup(word), needs_attention(word));
            if word & 31 == 31 || !has_no_rt(word) {
                assert_eq!(fast, slow, "{word:#010x}");
            } else {
                assert!(fast || !slow, "{word:#010x}");
            }
        }
    }

    #[test]
    fn of_the_branches_only_exception_and_debug_returns_are_seen() {
        for word in (0xd600_0000..=0xd6ff_ffff_u32).step_by(31) {
            assert_eq!(TABLE.lookup(word), word & 1 << 23 != 0, "{word:#010x}");
        }
        for (word, text) in
            [(0xd69f_03e0, "eret"), (0xd69f_0bff, "eretaa"), (0xd69f_0fff, "eretab")]
        {
            assert!(needs_attention(word) && TABLE.lookup(word), "{text}");
        }
        for (word, text) in [(0xd65f_03c0, "ret"), (0xd61f_0000, "br x0"), (0xd63f_0000, "blr x0")]
        {
            assert!(!TABLE.lookup(word), "{text}");
        }
    }

    #[test]
    fn every_exclusive_is_seen() {
        for size in 0..4_u32 {
            for low in 0..1 << 12_u32 {
                // o2 = 0; L, o1, Rs, o0, Rt2 vary.
                let word = size << 30 | 0x0800_0000 | low << 11;
                assert!(TABLE.lookup(word), "{word:#010x}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_that_needs_attention_is_let_by(low in 0..1_u32 << 24) {
            for top in 0..=255_u32 {
                let word = top << 24 | low;
                prop_assert!(TABLE.lookup(word) || !needs_attention(word), "{:#010x}", word);
            }
        }

        #[test]
        fn what_is_plain_by_its_top_byte_alone_is_plain(word: u32) {
            if !matches!(word >> 24, 0x08 | 0x48 | 0x88 | 0xc8 | 0xd5 | 0xd6) {
                prop_assert!(!TABLE.lookup(word));
            }
        }
    }
}
