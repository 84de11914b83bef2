//! The text of one A64 instruction.

use capstone::arch::BuildsCapstone;
use capstone::prelude::BuildsCapstoneEndian;
use capstone::{Capstone, Endian};
use std::fmt;
use stepwell_arch::address::Va;

/// The disassembler could not be set up: ours to fix, no input can cause it.
#[derive(Debug, thiserror::Error)]
#[error("the disassembler cannot be set up: {0}")]
pub struct DisassemblerError(capstone::Error);

/// Turns instruction words into text.
pub struct Disassembler {
    capstone: Capstone,
}

impl fmt::Debug for Disassembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disassembler").finish_non_exhaustive()
    }
}

impl Disassembler {
    /// Sets one up.
    ///
    /// # Errors
    ///
    /// [`DisassemblerError`] if the library underneath was built without A64.
    pub fn new() -> Result<Self, DisassemblerError> {
        let capstone = Capstone::new()
            .arm64()
            .mode(capstone::arch::arm64::ArchMode::Arm)
            .endian(Endian::Little)
            .build()
            .map_err(DisassemblerError)?;
        Ok(Self { capstone })
    }

    /// Returns mnemonic and operands of `word` at `pc`, or `.inst` if it is no known instruction.
    #[must_use]
    pub fn text(&self, word: u32, pc: Va) -> String {
        let known = self.capstone.disasm_count(&word.to_le_bytes(), pc.0, 1).ok();
        let instruction = known.as_ref().and_then(|list| list.iter().next());
        match instruction.map(|one| (one.mnemonic(), one.op_str())) {
            Some((Some(mnemonic), Some(operands))) if !operands.is_empty() => {
                format!("{mnemonic} {operands}")
            }
            Some((Some(mnemonic), _)) => mnemonic.into(),
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
}
