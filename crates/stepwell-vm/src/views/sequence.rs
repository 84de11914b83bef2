//! Which load-exclusive leads to an instruction.
//!
//! A breakpoint within an exclusive sequence breaks it when it is come to at full speed, since an
//! exception clears the local monitor: the store fails, the guest tries again, and comes to the
//! breakpoint again. So the load-exclusive before such a breakpoint has a BRK of its own, from which
//! on EL2 steps the sequence and keeps the monitor (`vcpu/step`, `past_breakpoint`).
//!
//! The load is looked for backwards, as far as the architecture lets sequences be long, and not
//! beyond the page. Where the guess is wrong, or the guest has patched the code since the breakpoint
//! was set, an instruction is stepped that need not have been.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Load-Exclusive and Store-Exclusive instruction usage
//! restrictions".

use stepwell_arch::Instruction;

/// Instructions before a breakpoint that are looked at: 128 bytes.
const LENGTH_MAX: usize = 32;

/// What else ends what is executed in a row: B, and branches by register.
const ENDS: [Pattern; 2] = [Pattern(0xfc00_0000, 0x1400_0000), Pattern(0xfe00_0000, 0xd600_0000)];

/// A mask, and what is left of a word by it.
struct Pattern(u32, u32);

impl Pattern {
    const fn matches(&self, word: u32) -> bool {
        word & self.0 == self.1
    }
}

/// The index of the load-exclusive of the sequence that the instruction with index `at` in a page
/// lies in, or is the store of. `word` reads an instruction of the page.
pub(super) fn load_before(at: usize, word: impl Fn(usize) -> u32) -> Option<usize> {
    for index in (at.saturating_sub(LENGTH_MAX)..at).rev() {
        let word = word(index);
        match Instruction::decode(word) {
            Instruction::LoadExclusive { .. } => return Some(index),
            // The end of another sequence.
            Instruction::StoreExclusive { .. } | Instruction::ClearExclusive => return None,
            _ if ENDS.iter().any(|end| end.matches(word)) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;
    const LDXR: u32 = 0xc85f_7c20; // ldxr x0, [x1]
    const STXR: u32 = 0xc802_7c20; // stxr w2, x0, [x1]
    const CBNZ: u32 = 0x35ff_ffa2;
    const RET: u32 = 0xd65f_03c0;
    const B: u32 = 0x1400_0001;

    fn load(at: usize, words: &[u32]) -> Option<usize> {
        load_before(at, |index| words[index])
    }

    #[test]
    fn a_sequence_is_what_lies_between_its_load_and_its_store() {
        let words = [NOP, LDXR, NOP, CBNZ, STXR, CBNZ, NOP];
        let loads: Vec<_> = (0..words.len()).map(|at| load(at, &words)).collect();
        assert_eq!(loads, [None, None, Some(1), Some(1), Some(1), None, None]);
    }

    #[test]
    fn what_is_not_executed_in_a_row_is_no_sequence() {
        for end in [RET, B, 0xd69f_03e0, 0xd503_3f5f] {
            assert_eq!(load(2, &[LDXR, end, NOP]), None, "{end:#x}");
        }
    }

    #[test]
    fn no_sequence_is_longer_than_the_architecture_has_them() {
        let mut words = [NOP; 40];
        words[2] = LDXR;
        assert_eq!(load(2 + LENGTH_MAX, &words), Some(2));
        assert_eq!(load(3 + LENGTH_MAX, &words), None);
    }
}
