//! The fast path's question, "does this instruction need the slow path?", as a table.
//!
//! The assembly at EL2 answers it with two loads and no branch for most instructions:
//!
//! 1. bits 31:24 of the instruction select a byte of [`Attention::top`];
//! 2. [`PLAIN`] goes on, [`ALWAYS`] leaves the fast path;
//! 3. [`SYSTEM`] looks at bit `7:5` of byte `23:8` in [`Attention::system`];
//! 4. [`BRANCH`] leaves it where bit 23 is set (ERET and DRPS, not BR, BLR and RET).
//!
//! The table is made from [`plan`], so the two cannot disagree; a host test asks both about every
//! word of the system space.

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
        for (top, class) in (0_u32..).zip(self.top.iter_mut()) {
            *class = match top {
                // Load/store exclusive, and what shares its space (LDAR, STLR, CAS).
                0x08 | 0x48 | 0x88 | 0xc8 => ALWAYS,
                0xd5 => SYSTEM,
                0xd6 => BRANCH,
                _ => PLAIN,
            };
        }
        for (middle, byte) in (0_u32..).zip(self.system.iter_mut()) {
            *byte = (0..8_u32)
                .filter(|low| needs_attention(0xd500_0000 | middle << 8 | low << 5))
                .fold(0, |bits, low| bits | 1 << low);
        }
    }

    /// Answers as the assembly does.
    #[must_use]
    pub fn lookup(&self, word: u32) -> bool {
        let [top, high, low, last] = word.to_be_bytes();
        match self.top.get(usize::from(top)) {
            Some(&SYSTEM) => {
                let byte = self.system.get(usize::from(u16::from_be_bytes([high, low])));
                byte.is_none_or(|byte| byte >> (last >> 5) & 1 != 0)
            }
            Some(&BRANCH) => high & 0x80 != 0,
            Some(&class) => class != PLAIN,
            None => true,
        }
    }
}

/// Tells whether an instruction needs the slow path.
#[must_use]
pub fn needs_attention(word: u32) -> bool {
    plan(Instruction::decode(word)) != Plan::Execute
}
