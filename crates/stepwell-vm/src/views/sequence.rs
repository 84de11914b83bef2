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

use stepwell_arch::aarch32::{self, Found};
use stepwell_arch::{DirectBranch, Instruction, InstructionSet};

/// Instructions of a page.
pub const PAGE: usize = 1024;
/// Instructions before a breakpoint that are looked at: 128 bytes.
pub const LENGTH_MAX: usize = 32;
/// The same in bytes.
const BYTES_MAX: u64 = 128;

/// What else ends what is executed in a row: B, branches by register, and what generates an exception
/// (SVC, HVC, SMC, BRK, HLT), whose return opens the monitor.
const ENDS: [Pattern; 3] = [
    Pattern(0xfc00_0000, 0x1400_0000),
    Pattern(0xfe00_0000, 0xd600_0000),
    Pattern(0xff00_0000, 0xd400_0000),
];

/// A mask, and what is left of a word by it.
struct Pattern(u32, u32);

impl Pattern {
    const fn matches(&self, word: u32) -> bool {
        word & self.0 == self.1
    }
}

/// The index of the load-exclusive of the sequence that the instruction with index `at` in a page
/// lies in, or is the store of. `word` reads an instruction of the page.
pub fn load_before(at: usize, word: impl Fn(usize) -> u32) -> Option<usize> {
    let is_end = |word| match Instruction::decode(word) {
        // The end of another sequence.
        Instruction::StoreExclusive { .. } | Instruction::ClearExclusive => true,
        _ => ENDS.iter().any(|end| end.matches(word)),
    };
    last_load(at, word, is_end)
}

/// The index of the last load-exclusive before index `at` in a page, with nothing between the two that
/// is an end.
pub(super) fn last_load(
    at: usize,
    word: impl Fn(usize) -> u32,
    is_end: impl Fn(u32) -> bool,
) -> Option<usize> {
    let is_load = |word| matches!(Instruction::decode(word), Instruction::LoadExclusive { .. });
    let mut before = (at.saturating_sub(LENGTH_MAX)..at).rev();
    before
        .find(|&index| is_load(word(index)) || is_end(word(index)))
        .filter(|&index| is_load(word(index)))
}

/// Tells whether the instruction behind the one with index `at` in a page leads to a store-exclusive whose
/// load lies before: in the page, past what is called, and past one return, to index `link`.
pub fn leads_to_store(at: usize, link: Option<usize>, word: impl Fn(usize) -> u32) -> bool {
    let (mut index, mut link) = (at + 1, link);
    for _ in 0..LENGTH_MAX {
        if index >= PAGE {
            return false;
        }
        let word = word(index);
        let next = match Instruction::decode(word) {
            Instruction::StoreExclusive { .. } => return true,
            Instruction::LoadExclusive { .. } | Instruction::ClearExclusive => return false,
            Instruction::Ret { .. } => link.take(),
            Instruction::Bl { .. } | Instruction::Blr { .. } => Some(index + 1),
            _ => match DirectBranch::decode(word) {
                Some(branch) if !branch.is_conditional => {
                    index.checked_add_signed(branch.instructions as isize)
                }
                _ if ENDS.iter().any(|end| end.matches(word)) => None,
                _ => Some(index + 1),
            },
        };
        let Some(next) = next else { return false };
        index = next;
    }
    false
}

/// Tells whether an instruction is a store-exclusive: wherever its load is, an exception has cost it
/// the monitor.
#[must_use]
pub fn is_store(word: u32) -> bool {
    matches!(Instruction::decode(word), Instruction::StoreExclusive { .. })
}

/// The same of AArch32 code, of the instruction at `offset` in a page.
#[must_use]
pub fn is_store32(set: InstructionSet, offset: u64, halfword: impl Fn(u64) -> Option<u16>) -> bool {
    let (Some(first), Some(second)) = (halfword(offset), halfword(offset + 2)) else {
        return false;
    };
    let found = Found::decode(set, u32::from(first) | u32::from(second) << 16);
    found.is_some_and(|found| {
        matches!(found.instruction, aarch32::Instruction::StoreExclusive { .. })
    })
}

/// As [`load_before`], of AArch32 code: tells whether the instruction at `offset` in a page lies in a
/// sequence.
/// `halfword` reads at an offset.
///
/// Where T32 instructions begin is not to be seen backwards, so that one may be taken for another.
#[must_use]
pub fn has_load_before32(
    set: InstructionSet,
    offset: u64,
    halfword: impl Fn(u64) -> Option<u16>,
) -> bool {
    let bytes = if set == InstructionSet::T32 { 2 } else { 4 };
    let mut at = offset;
    while at >= bytes && offset - at < BYTES_MAX {
        at -= bytes;
        let (Some(first), Some(second)) = (halfword(at), halfword(at + 2)) else { return false };
        let found = Found::decode(set, u32::from(first) | u32::from(second) << 16);
        match found.map(|found| found.instruction) {
            Some(aarch32::Instruction::LoadExclusive { .. }) => return true,
            Some(
                aarch32::Instruction::StoreExclusive { .. } | aarch32::Instruction::ClearExclusive,
            ) => return false,
            _ => {}
        }
    }
    false
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
        // With ERET, CLREX, SVC, HVC and BRK.
        for end in [RET, B, 0xd69f_03e0, 0xd503_3f5f, 0xd400_0bc1, 0xd400_0002, 0xd420_0000] {
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

    #[test]
    fn a_store_is_come_to_by_branches_and_a_return() {
        const B_BACK: u32 = 0x17ff_fffd; // b .-12
        let leads = |at: usize, link, words: &[u32]| {
            leads_to_store(at, link, |index| words.get(index).copied().unwrap_or(RET))
        };
        let words = [LDXR, CBNZ, NOP, STXR, RET, NOP, B_BACK];
        let found: Vec<_> = (0..words.len()).map(|at| leads(at, None, &words)).collect();
        assert_eq!(found, [true, true, true, false, true, true, false]);
        // From a subroutine, and not where it has a sequence of its own.
        assert!(leads(4, Some(2), &words) && !leads(0, Some(1), &[NOP, RET, RET, STXR]));
        assert!(!leads(0, None, &[NOP, LDXR, STXR]));
    }

    #[test]
    fn sequences_of_aarch32_are_found_by_halfwords() {
        const NOP32: u32 = 0xe1a0_0000;
        const LDREX: u32 = 0xe190_1f9f; // ldrex r1, [r0]
        const STREX: u32 = 0xe180_3f92; // strex r3, r2, [r0]
        let words = [NOP32, LDREX, NOP32, STREX, NOP32];
        let a32 = |at: u64| Some((words.get(at as usize / 4)? >> (at % 4 * 8)) as u16);
        let found: Vec<_> =
            (0..5).map(|n| has_load_before32(InstructionSet::A32, 4 * n, a32)).collect();
        assert_eq!(found, [false, false, true, true, false]);
        // nop, ldrex r3, [r0, #4], nop
        let halfwords = [0xbf00_u16, 0xe850, 0x3f01, 0xbf00, 0xbf00];
        let t32 = |at: u64| halfwords.get(at as usize / 2).copied();
        assert!(has_load_before32(InstructionSet::T32, 6, t32));
        assert!(!has_load_before32(InstructionSet::T32, 2, t32));
        assert!(!has_load_before32(InstructionSet::T32, 12, |_| None));
    }
}
