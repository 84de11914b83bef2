//! The text of one instruction.

use capstone::arch::arm::ArchMode;
use capstone::arch::{BuildsCapstone, BuildsCapstoneExtraMode};
use capstone::prelude::BuildsCapstoneEndian;
use capstone::{Capstone, Endian};
use std::fmt;
use stepwell_arch::InstructionSet;
use stepwell_arch::aarch32::t32;
use stepwell_arch::address::Va;

/// The disassembler could not be set up: ours to fix, no input can cause it.
#[derive(Debug, thiserror::Error)]
#[error("the disassembler cannot be set up: {0}")]
pub struct DisassemblerError(capstone::Error);

/// Turns instruction words into text.
pub struct Disassembler {
    a64: Capstone,
    a32: Capstone,
    t32: Capstone,
}

impl fmt::Debug for Disassembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disassembler").finish_non_exhaustive()
    }
}

/// Length in bytes of the instruction that `set` finds in `word`, four bytes from its address on.
#[must_use]
pub const fn instruction_bytes(set: InstructionSet, word: u32) -> u64 {
    match set {
        InstructionSet::T32 if !t32::is_wide(word as u16) => 2,
        _ => 4,
    }
}

/// Returns the encoding as manuals print it: the first halfword of T32 comes first.
#[must_use]
pub fn encoding(set: InstructionSet, word: u32) -> String {
    match (set, instruction_bytes(set, word)) {
        (InstructionSet::T32, 2) => format!("{:04x}", word as u16),
        (InstructionSet::T32, _) => format!("{:08x}", word.rotate_left(16)),
        _ => format!("{word:08x}"),
    }
}

impl Disassembler {
    /// Sets one up.
    ///
    /// # Errors
    ///
    /// [`DisassemblerError`] if the library underneath was built without one of the sets.
    pub fn new() -> Result<Self, DisassemblerError> {
        let a64 = Capstone::new()
            .arm64()
            .mode(capstone::arch::arm64::ArchMode::Arm)
            .endian(Endian::Little)
            .build()
            .map_err(DisassemblerError)?;
        let aarch32 = |mode| {
            let extra = [capstone::arch::arm::ArchExtraMode::V8];
            let builder = Capstone::new().arm().mode(mode).extra_mode(extra.into_iter());
            builder.endian(Endian::Little).build().map_err(DisassemblerError)
        };
        Ok(Self { a64, a32: aarch32(ArchMode::Arm)?, t32: aarch32(ArchMode::Thumb)? })
    }

    /// Returns mnemonic and operands of the A64 instruction `word` at `pc`, or `.inst` if it is no
    /// known one.
    #[must_use]
    pub fn text(&self, word: u32, pc: Va) -> String {
        self.text_in(InstructionSet::A64, word, pc)
    }

    /// As [`Disassembler::text`], of any set. Of a T32 instruction of 2 bytes the upper half of
    /// `word` is not looked at.
    #[must_use]
    pub fn text_in(&self, set: InstructionSet, word: u32, pc: Va) -> String {
        let capstone = match set {
            InstructionSet::A64 => &self.a64,
            InstructionSet::A32 => &self.a32,
            InstructionSet::T32 => &self.t32,
        };
        let is_short = instruction_bytes(set, word) == 2;
        let all = word.to_le_bytes();
        let bytes = if is_short { &all[..2] } else { &all[..] };
        let known = capstone.disasm_count(bytes, pc.0, 1).ok();
        let instruction = known.as_ref().and_then(|list| list.iter().next());
        match instruction.map(|one| (one.mnemonic(), one.op_str())) {
            Some((Some(mnemonic), Some(operands))) if !operands.is_empty() => {
                format!("{mnemonic} {operands}")
            }
            Some((Some(mnemonic), _)) => mnemonic.into(),
            _ if is_short => format!(".inst.n {:#06x}", word as u16),
            _ => format!(".inst {word:#010x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_words() {
        let disassembler = Disassembler::new().expect("capstone has A64");
        let text = |word, pc| disassembler.text(word, Va(pc));
        assert_eq!(text(0xd503_201f, 0), "nop");
        assert_eq!(text(0xd65f_03c0, 0), "ret");
        assert_eq!(text(0x9400_0004, 0x1000), "bl #0x1010");
        assert_eq!(text(0xd400_0023, 0), "smc #1");
        assert_eq!(text(0x0000_0000, 0), "udf #0");
        assert_eq!(text(0xffff_ffff, 0), ".inst 0xffffffff");
    }

    #[test]
    fn words_of_aarch32() {
        let disassembler = Disassembler::new().expect("capstone has all sets");
        let text = |set, word| disassembler.text_in(set, word, Va(0x1000));
        assert_eq!(text(InstructionSet::A32, 0xe590_7030), "ldr r7, [r0, #0x30]");
        assert_eq!(text(InstructionSet::T32, 0xffff_6b07), "ldr r7, [r0, #0x30]");
        assert_eq!(text(InstructionSet::T32, 0x3f01_e850), "ldrex r3, [r0, #4]");
        assert_eq!(text(InstructionSet::T32, 0xde00), "udf #0");
        assert_eq!(text(InstructionSet::T32, 0xb6ff), ".inst.n 0xb6ff");
        assert_eq!(instruction_bytes(InstructionSet::T32, 0x3f01_e850), 4);
        assert_eq!(instruction_bytes(InstructionSet::A32, 0), 4);
        assert_eq!(encoding(InstructionSet::T32, 0x3f01_e850), "e8503f01");
        assert_eq!(encoding(InstructionSet::T32, 0xffff_6b07), "6b07");
        assert_eq!(encoding(InstructionSet::A32, 0xe590_7030), "e5907030");
    }
}
