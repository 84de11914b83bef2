//! The decoders against words assembled elsewhere, and against a full disassembler as oracle.

use capstone::arch::arm::{ArchExtraMode, ArchMode};
use capstone::prelude::*;
use proptest::prelude::*;

use super::*;

const USER: Pstate = Pstate(Pstate::M_USER);

/// A full disassembler that answers with one line of text and a length, or not at all.
struct Oracle(Capstone);

impl Oracle {
    fn new(set: InstructionSet) -> Self {
        let mode = if set == InstructionSet::T32 { ArchMode::Thumb } else { ArchMode::Arm };
        let builder = Capstone::new().arm().mode(mode).extra_mode([ArchExtraMode::V8].into_iter());
        Self(builder.build().expect("the oracle is built in"))
    }

    fn text(&self, bytes: [u8; 4]) -> Option<(String, usize)> {
        let instructions = self.0.disasm_count(&bytes, 0, 1).ok()?;
        let instruction = instructions.first()?;
        let operands = instruction.op_str().unwrap_or_default();
        let text = format!("{} {operands}", instruction.mnemonic()?).trim_end().to_owned();
        Some((text, instruction.bytes().len()))
    }

    /// Disassembles what T32 finds in two halfwords.
    fn wide(&self, first: u16, second: u16) -> Option<(String, usize)> {
        let [a, b] = first.to_le_bytes();
        let [c, d] = second.to_le_bytes();
        self.text([a, b, c, d])
    }
}

fn name_of(number: u8) -> String {
    match number {
        9 => "sb".to_owned(),
        10 => "sl".to_owned(),
        11 => "fp".to_owned(),
        12 => "ip".to_owned(),
        13 => "sp".to_owned(),
        14 => "lr".to_owned(),
        15 => "pc".to_owned(),
        _ => format!("r{number}"),
    }
}

/// The operands of an exclusive, as the oracle writes them.
fn operands(instruction: Instruction) -> Option<String> {
    let place = |rn, offset| match offset {
        0 => format!("[{}]", name_of(rn)),
        _ => format!(
            "[{}, #{}]",
            name_of(rn),
            if offset > 9 { format!("{offset:#x}") } else { offset.to_string() }
        ),
    };
    let second = |pair, rt2| if pair { format!(", {}", name_of(rt2)) } else { String::new() };
    match instruction {
        Instruction::LoadExclusive { pair, rn, offset, rt, rt2, .. } => {
            Some(format!("{}{}, {}", name_of(rt), second(pair, rt2), place(rn, offset)))
        }
        Instruction::StoreExclusive { pair, rn, offset, rd, rt, rt2, .. } => Some(format!(
            "{}, {}{}, {}",
            name_of(rd),
            name_of(rt),
            second(pair, rt2),
            place(rn, offset)
        )),
        _ => None,
    }
}

fn width(bytes: u8, pair: bool) -> &'static str {
    match (bytes, pair) {
        (1, _) => "b",
        (2, _) => "h",
        (_, true) => "d",
        (_, false) => "",
    }
}

/// What of the oracle's mnemonic precedes a condition: `ldrexb` of `ldrexbeq`.
fn is_exclusive(mnemonic: &str) -> bool {
    ["ldrex", "strex", "ldaex", "stlex"].iter().any(|name| mnemonic.starts_with(name))
}

fn mentions_pc(text: &str) -> bool {
    text.contains("pc")
}

/// Compares one word: what we take for an exclusive the oracle does, and the reverse.
fn check(set: InstructionSet, found: Found, theirs: Option<&(String, usize)>, word: u32) {
    let text = theirs.map_or("", |(text, _)| text.as_str());
    let mnemonic = text.split(' ').next().unwrap_or_default();
    match found.instruction {
        Instruction::LoadExclusive { bytes, pair, .. }
        | Instruction::StoreExclusive { bytes, pair, .. } => {
            // The oracle refuses should-be-one bits that are 0, and SP where Armv7 forbade it.
            let Some((text, length)) = theirs else { return };
            assert!(is_exclusive(mnemonic), "{word:#010x} is {text}, we say {found:?}");
            let ours = operands(found.instruction).expect("it is an exclusive");
            assert!(text.ends_with(&format!(" {ours}")), "{word:#010x} is {text}, not {ours}");
            let rest = &mnemonic[5..];
            let (suffix, condition) = rest.split_at(width(bytes, pair).len());
            assert_eq!(suffix, width(bytes, pair), "{word:#010x} is {text}");
            assert!(condition.len() % 2 == 0, "{word:#010x} is {text}");
            assert_eq!(*length, usize::from(found.bytes));
        }
        _ if is_exclusive(mnemonic) => {
            let unpredictable =
                mentions_pc(text) || has_overlap(text) || !has_ones(set, mnemonic, word);
            assert!(unpredictable, "{word:#010x} is {text}, we say {found:?}");
        }
        _ => {}
    }
}

/// Whether bits that should be one are, and the pair of A32 begins with an even register.
fn has_ones(set: InstructionSet, mnemonic: &str, word: u32) -> bool {
    let (is_load, is_pair) = (mnemonic.starts_with("ld"), mnemonic[5..].starts_with('d'));
    let (first, second) = (word >> 8 & 15 == 15, word & 15 == 15);
    match set {
        InstructionSet::A32 => {
            let rt = if is_load { word >> 12 } else { word };
            word >> 10 & 3 == 3 && (!is_load || second) && !(is_pair && rt & 1 != 0)
        }
        _ if word >> 21 & 0x7f == 0x42 => !is_load || first,
        _ => (!is_load || second) && (is_pair || first),
    }
}

/// Whether a status register is an operand, too, or a pair is one register: UNPREDICTABLE.
fn has_overlap(text: &str) -> bool {
    let Some((mnemonic, operands)) = text.split_once(' ') else { return false };
    let names: Vec<&str> = operands.split([',', '[', ']', ' ']).filter(|n| !n.is_empty()).collect();
    let is_store = mnemonic.starts_with("st");
    let odd = mnemonic[5..].starts_with('d') && names.len() < 3;
    if is_store { names[1..].contains(&names[0]) || odd } else { odd || names[0] == names[1] }
}

fn check_a32(oracle: &Oracle, word: u32) {
    let theirs = oracle.text(word.to_le_bytes());
    check(InstructionSet::A32, a32::decode(word), theirs.as_ref(), word);
}

#[test]
fn every_synchronization_primitive_of_a32_agrees_with_the_oracle() {
    let oracle = Oracle::new(InstructionSet::A32);
    for opcode in 0..16_u32 {
        for order in 0..4_u32 {
            for registers in 0..4096_u32 {
                let (rn, rd, rt) = (registers >> 8, registers >> 4 & 15, registers & 15);
                let is_load = opcode & 1 != 0;
                if is_load && rt != 15 {
                    continue;
                }
                for condition in [0xe_u32, 0x1] {
                    let word = condition << 28
                        | 0x0180_0090
                        | opcode << 20 & 0x0070_0000
                        | rn << 16
                        | rd << 12
                        | 0xc00
                        | order << 8
                        | rt;
                    check_a32(&oracle, word);
                }
            }
        }
    }
}

#[test]
fn every_exclusive_of_t32_agrees_with_the_oracle() {
    let oracle = Oracle::new(InstructionSet::T32);
    for first in [0xe840_u16, 0xe850, 0xe8c0, 0xe8d0] {
        for rn in 0..16_u16 {
            for second in (0..=u16::MAX).step_by(if !(2..=12).contains(&rn) { 1 } else { 7 }) {
                let first = first | rn;
                let word = u32::from(first) << 16 | u32::from(second);
                let theirs = oracle.wide(first, second);
                let found = t32::decode(first, second);
                check(InstructionSet::T32, found, theirs.as_ref(), word);
            }
        }
    }
}

#[test]
fn a_t32_instruction_is_as_long_as_the_oracle_says() {
    let oracle = Oracle::new(InstructionSet::T32);
    for first in 0..=u16::MAX {
        // NOP behind it, and a second half that many wide ones accept.
        for second in [0xbf00, 0x0000, 0x8000, 0xf000] {
            let found = t32::decode(first, second);
            if let Some((text, length)) = oracle.wide(first, second) {
                assert_eq!(usize::from(found.bytes), length, "{first:#06x} is {text}");
            }
        }
    }
}

/// Words as an assembler made them.
#[test]
fn what_else_matters() {
    let timer = |register, rt, rt2| Instruction::ReadTimer { register, rt, rt2 };
    let set = |register, rt, rt2| Instruction::WriteTimer { register, rt, rt2 };
    let rows: [(u32, Instruction, &str); 22] = [
        (0xf57f_f01f, Instruction::ClearExclusive, "clrex"),
        (0xe320_f003, Instruction::Wfi, "wfi"),
        (0x0320_f003, Instruction::Wfi, "wfieq"),
        (0xe320_f002, Instruction::Wfe, "wfe"),
        (0xe320_f010, Instruction::Esb, "esb"),
        (0xe320_f014, Instruction::Other, "csdb"),
        (0xe320_f000, Instruction::Other, "nop"),
        (0xe320_f004, Instruction::Other, "sev"),
        (0xef00_0001, Instruction::Svc, "svc #1"),
        (0x1f00_0124, Instruction::Svc, "svcne #0x124"),
        (0xec53_2f1e, timer(SystemRegister::CNTVCT_EL0, 2, Some(3)), "mrrc p15, #1, r2, r3, c14"),
        (0xec53_2f0e, timer(SystemRegister::CNTPCT_EL0, 2, Some(3)), "mrrc p15, #0, r2, r3, c14"),
        (0xec43_2f3e, set(SystemRegister::CNTV_CVAL_EL0, 2, Some(3)), "mcrr p15, #3, r2, r3, c14"),
        (0xee1e_3f33, timer(SystemRegister::CNTV_CTL_EL0, 3, None), "mrc p15, #0, r3, c14, c3, #1"),
        (0xee0e_2f13, set(SystemRegister::CNTV_TVAL_EL0, 2, None), "mcr p15, #0, r2, c14, c3, #0"),
        (0xec43_2f0e, Instruction::Other, "mcrr p15, #0, r2, r3, c14: read-only"),
        (0xec43_2f1e, Instruction::Other, "mcrr p15, #1, r2, r3, c14: read-only"),
        (0xec43_2f9e, Instruction::Other, "mcrr p15, #9, r2, r3, c14: read-only"),
        (0xee10_2e10, Instruction::Other, "mrc p14, #0, r2, c0, c0, #0"),
        (0xee1d_2f70, Instruction::Other, "mrc p15, #0, r2, c13, c0, #3"),
        (
            0xe192_1f9f,
            Instruction::LoadExclusive { bytes: 4, pair: false, rn: 2, offset: 0, rt: 1, rt2: 31 },
            "ldrex r1, [r2]",
        ),
        (0xe191_1c9f, Instruction::Other, "lda r1, [r1]"),
    ];
    for (word, instruction, text) in rows {
        let found = a32::decode(word);
        let condition = if word >> 28 == 15 { ALWAYS } else { (word >> 28) as u8 };
        assert_eq!(found, Found { instruction, bytes: 4, condition }, "{text}");
        let whole = Found::decode(InstructionSet::A32, word);
        assert_eq!(whole, Some(found), "{text}");
        // T32 has the same coprocessor transfers, by halves.
        if matches!(word >> 24, 0xec | 0xee) {
            let t32 = t32::decode((word >> 16) as u16, word as u16);
            assert_eq!(t32.instruction, instruction, "{text}");
        }
    }
    assert_eq!(Found::decode(InstructionSet::A64, 0xd503_201f), None);
}

#[test]
fn what_else_matters_in_t32() {
    let rows: [(u16, u16, Instruction, u8, &str); 12] = [
        (0xf3bf, 0x8f2f, Instruction::ClearExclusive, 4, "clrex"),
        (0xbf30, 0, Instruction::Wfi, 2, "wfi"),
        (0xf3af, 0x8003, Instruction::Wfi, 4, "wfi.w"),
        (0xbf20, 0, Instruction::Wfe, 2, "wfe"),
        (0xf3af, 0x8002, Instruction::Wfe, 4, "wfe.w"),
        (0xf3af, 0x8010, Instruction::Esb, 4, "esb.w"),
        (0xdf05, 0, Instruction::Svc, 2, "svc #5"),
        (0xde05, 0, Instruction::Other, 2, "udf #5"),
        (0xbf08, 0, Instruction::Other, 2, "it eq"),
        (0xe8df, 0xf002, Instruction::Other, 4, "tbb [pc, r2]"),
        (0xe8d1, 0x1faf, Instruction::Other, 4, "lda r1, [r1]"),
        (0xf000, 0xf801, Instruction::Other, 4, "bl"),
    ];
    for (first, second, instruction, bytes, text) in rows {
        let expected = Found { instruction, bytes, condition: ALWAYS };
        assert_eq!(t32::decode(first, second), expected, "{text}");
        let word = u32::from(first) | u32::from(second) << 16;
        assert_eq!(Found::decode(InstructionSet::T32, word), Some(expected), "{text}");
    }
}

#[test]
fn the_pc_and_registers_of_a_transfer_that_overlap_are_left_to_the_cpu() {
    for word in [0xec5f_2f1e_u32, 0xec53_ff1e, 0xec52_2f1e, 0xee1e_ff33, 0xec53_2f5e, 0xec53_2f1d] {
        assert_eq!(a32::decode(word).instruction, Instruction::Other, "{word:#010x}");
    }
    // Of a write both halves may come from one register.
    let both = a32::decode(0xec42_2f3e).instruction;
    assert!(matches!(both, Instruction::WriteTimer { rt: 2, rt2: Some(2), .. }), "{both:?}");
    for (opc1, register) in [
        (2, SystemRegister::CNTP_CVAL_EL0),
        (8, SystemRegister::CNTPCTSS_EL0),
        (9, SystemRegister::CNTVCTSS_EL0),
    ] {
        assert_eq!(timer_of_pair(opc1, 14), Some(register));
    }
    let physical = |opc2| Transfer { opc1: 0, crn: 14, crm: 2, opc2 }.timer();
    assert_eq!(physical(0), Some(SystemRegister::CNTP_TVAL_EL0));
    assert_eq!(physical(1), Some(SystemRegister::CNTP_CTL_EL0));
    assert_eq!(physical(2), None);
}

#[test]
fn the_set_goes_by_m4_and_t() {
    assert_eq!(InstructionSet::of(Pstate(Pstate::M_EL0T)), InstructionSet::A64);
    // Bit 5 means nothing in AArch64.
    assert_eq!(InstructionSet::of(Pstate(Pstate::M_EL0T | Pstate::T)), InstructionSet::A64);
    assert_eq!(InstructionSet::of(USER), InstructionSet::A32);
    assert_eq!(InstructionSet::of(Pstate(Pstate::M_USER | Pstate::T)), InstructionSet::T32);
}

/// The conditions by their definition, in the order of their numbers.
fn holds_by_the_table(condition: u8, [n, z, c, v]: [bool; 4]) -> bool {
    match condition {
        0 => z,
        1 => !z,
        2 => c,
        3 => !c,
        4 => n,
        5 => !n,
        6 => v,
        7 => !v,
        8 => c && !z,
        9 => !c || z,
        10 => n == v,
        11 => n != v,
        12 => !z && n == v,
        13 => z || n != v,
        _ => true,
    }
}

#[test]
fn conditions_hold_as_the_manual_says() {
    for condition in 0..16 {
        for bits in 0..16_u64 {
            let flags = [8, 4, 2, 1].map(|bit| bits & bit != 0);
            let pstate = Pstate(bits << 28 | Pstate::M_USER);
            let got = condition_holds(condition, pstate);
            assert_eq!(got, holds_by_the_table(condition, flags), "{condition} {flags:?}");
            let a32 = a32::decode(u32::from(condition) << 28 | 0x0320_f003);
            assert_eq!(a32.executes(pstate), got || condition == 15, "{condition} {flags:?}");
        }
    }
}

#[test]
fn an_it_block_decides_over_t32() {
    let wfi = t32::decode(0xbf30, 0);
    let t = Pstate(Pstate::M_USER | Pstate::T);
    let (z, nz) = (Pstate(t.0 | Pstate::Z), t);
    assert!(wfi.executes(z) && wfi.executes(nz), "outside of a block");
    // ITE EQ: 0b0000_1100, behind its first instruction 0b0001_1000.
    for (it, with_z) in [(0b0000_1100, true), (0b0001_1000, false)] {
        assert_eq!(wfi.executes(with_it_state(z, it)), with_z);
        assert_eq!(wfi.executes(with_it_state(nz, it)), !with_z);
    }
    // The bits are no IT state of A32's.
    let a32 = a32::decode(0xe320_f003);
    assert!(a32.executes(with_it_state(USER, 0b0000_1100)));
}

#[test]
fn an_it_block_advances_and_ends() {
    let all = with_it_state(USER, 0b0000_0101);
    let states: Vec<u8> = std::iter::successors(Some(all), |&pstate| Some(it_advance(pstate)))
        .take(5)
        .map(it_state)
        .collect();
    assert_eq!(states, [0b0000_0101, 0b0000_1010, 0b0001_0100, 0b0000_1000, 0]);
    assert_eq!(it_advance(with_it_state(USER, 0b1110_1000)), USER);
}

proptest! {
    #[test]
    fn an_it_state_is_what_was_put_there(pstate: u64, it: u8) {
        let with = with_it_state(Pstate(pstate), it);
        prop_assert_eq!(it_state(with), it);
        prop_assert_eq!(with.0 & !0x0600_fc00, pstate & !0x0600_fc00);
    }

    #[test]
    fn no_word_is_too_strange(word: u32, pstate: u64) {
        for set in [InstructionSet::A32, InstructionSet::T32] {
            let found = Found::decode(set, word).expect("one of AArch32's");
            prop_assert!(matches!(found.bytes, 2 | 4));
            let _ = found.executes(Pstate(pstate));
        }
    }

    #[test]
    fn whatever_a32_says_of_a_random_word_the_oracle_does_not_deny(word: u32) {
        let oracle = Oracle::new(InstructionSet::A32);
        check_a32(&oracle, word);
    }
}

#[test]
fn calls_of_all_sets() {
    let rows = [
        (InstructionSet::A64, 0x9400_0001, true),
        (InstructionSet::A32, 0xeb00_0001, true),
        (InstructionSet::A32, 0xfa00_0001, true),
        (InstructionSet::A32, 0x112f_ff31, true),
        (InstructionSet::A32, 0xe12f_ff11, false),
        (InstructionSet::A32, 0xea00_0001, false),
        (InstructionSet::T32, 0xf801_f000, true),
        (InstructionSet::T32, 0xe802_f000, true),
        (InstructionSet::T32, 0x4788, true),
        (InstructionSet::T32, 0x4770, false),
        (InstructionSet::T32, 0xb801_f000, false),
    ];
    for (set, word, is) in rows {
        assert_eq!(is_call(set, word), is, "{set:?} {word:#010x}");
    }
}
