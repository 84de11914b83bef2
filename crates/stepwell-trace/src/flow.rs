//! Where an A64 instruction can send the program: what the call outline and branch targets need.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, "Branches, Exception Generating and
//! System instructions". Conditional branches are plain jumps here: they do not leave a function.

use stepwell_arch::address::Va;

/// What an instruction does to the flow of control, if it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// BL, BLR and their authenticating forms. The target is known for BL alone.
    Call(Option<Va>),
    /// RET and its authenticating forms.
    Return,
    /// B, BR, conditional branches.
    Jump(Option<Va>),
    /// ERET and its authenticating forms.
    ExceptionReturn,
    /// Anything else goes on to the next instruction, or takes an exception.
    Next,
}

impl Flow {
    /// Tells what `word` at `pc` does.
    #[must_use]
    pub const fn of(word: u32, pc: Va) -> Self {
        match word {
            word if word & 0xfc00_0000 == 0x9400_0000 => Self::Call(target(pc, word, 0, 26)),
            word if word & 0xfc00_0000 == 0x1400_0000 => Self::Jump(target(pc, word, 0, 26)),
            // B.cond and BC.cond
            word if word & 0xff00_0000 == 0x5400_0000 => Self::Jump(target(pc, word, 5, 19)),
            // CBZ, CBNZ
            word if word & 0x7e00_0000 == 0x3400_0000 => Self::Jump(target(pc, word, 5, 19)),
            // TBZ, TBNZ
            word if word & 0x7e00_0000 == 0x3600_0000 => Self::Jump(target(pc, word, 5, 14)),
            // Unconditional branch (register): BR, BLR, RET, ERET, by opc; bit 24 and bits 11:10
            // are set in the authenticating forms.
            word if word & 0xfe1f_f000 == 0xd61f_0000 => match (word >> 21) & 7 {
                0 => Self::Jump(None),
                1 => Self::Call(None),
                2 => Self::Return,
                4 => Self::ExceptionReturn,
                _ => Self::Next,
            },
            _ => Self::Next,
        }
    }
}

/// Returns where `word` at `pc` branches to, if it is a branch and says so itself.
#[must_use]
pub const fn branch_target(word: u32, pc: Va) -> Option<Va> {
    match Flow::of(word, pc) {
        Flow::Call(to) | Flow::Jump(to) => to,
        Flow::Return | Flow::ExceptionReturn | Flow::Next => None,
    }
}

/// Returns the target of a branch whose offset, in words, is the signed field at `low`.
const fn target(pc: Va, word: u32, low: u32, width: u32) -> Option<Va> {
    let field = ((word >> low) as i64) << (64 - width) >> (64 - width);
    Some(pc.offset((field * 4) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows() {
        let flow = |word| Flow::of(word, Va(0x1000));
        assert_eq!(flow(0x9400_0004), Flow::Call(Some(Va(0x1010))));
        assert_eq!(flow(0x97ff_ffff), Flow::Call(Some(Va(0xffc))));
        assert_eq!(flow(0x1400_0001), Flow::Jump(Some(Va(0x1004))));
        assert_eq!(flow(0x54ff_ffe1), Flow::Jump(Some(Va(0xffc))));
        assert_eq!(flow(0xb400_0040), Flow::Jump(Some(Va(0x1008))));
        assert_eq!(flow(0x3707_ffe0), Flow::Jump(Some(Va(0xffc))));
        assert_eq!(flow(0xd61f_0200), Flow::Jump(None));
        assert_eq!(flow(0xd71f_0a11), Flow::Jump(None));
        assert_eq!(flow(0xd63f_0100), Flow::Call(None));
        assert_eq!(flow(0xd73f_0911), Flow::Call(None));
        assert_eq!(flow(0xd65f_03c0), Flow::Return);
        assert_eq!(flow(0xd65f_0bff), Flow::Return);
        assert_eq!(flow(0xd69f_03e0), Flow::ExceptionReturn);
        assert_eq!(flow(0xd69f_0fff), Flow::ExceptionReturn);
        assert_eq!(flow(0xd400_0001), Flow::Next);
        assert_eq!(flow(0xd503_201f), Flow::Next);
    }
}
