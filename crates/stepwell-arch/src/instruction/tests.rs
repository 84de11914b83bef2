//! The decoder against hand-assembled words, and against a full disassembler as oracle.

use crate::stage1::{Access, AccessKind};
use capstone::prelude::*;
use proptest::prelude::*;

use super::*;

/// A full disassembler that answers with one line of text, or not at all.
struct Oracle(Capstone);

impl Oracle {
    fn new() -> Self {
        let builder = Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm);
        Self(builder.build().expect("the oracle is built in"))
    }

    fn text(&self, word: u32) -> Option<String> {
        let instructions = self.0.disasm_count(&word.to_le_bytes(), 0, 1).ok()?;
        let instruction = instructions.first()?;
        let operands = instruction.op_str().unwrap_or_default();
        Some(format!("{} {operands}", instruction.mnemonic()?).trim_end().to_owned())
    }
}

fn mnemonic(text: Option<&str>) -> &str {
    text.and_then(|text| text.split(' ').next()).unwrap_or_default()
}

fn general(number: u8, bytes: u8) -> String {
    match (number, bytes) {
        (31, 8) => "xzr".to_owned(),
        (31, _) => "wzr".to_owned(),
        (_, 8) => format!("x{number}"),
        (..) => format!("w{number}"),
    }
}

fn base(number: u8) -> String {
    if number == 31 { "[sp]".to_owned() } else { format!("[x{number}]") }
}

fn width_suffix(bytes: u8, pair: bool) -> &'static str {
    match (bytes, pair) {
        (1, _) => "rb",
        (2, _) => "rh",
        (_, true) => "p",
        (_, false) => "r",
    }
}

/// An exclusive as the oracle writes it.
fn exclusive_text(instruction: Instruction) -> Option<String> {
    let second = |pair, rt2, bytes| match pair {
        true => format!(", {}", general(rt2, bytes)),
        false => String::new(),
    };
    match instruction {
        Instruction::LoadExclusive { bytes, pair, acquire, rn, rt, rt2 } => Some(format!(
            "ld{}x{} {}{}, {}",
            if acquire { "a" } else { "" },
            width_suffix(bytes, pair),
            general(rt, bytes),
            second(pair, rt2, bytes),
            base(rn),
        )),
        Instruction::StoreExclusive { bytes, pair, release, rn, rs, rt, rt2 } => Some(format!(
            "st{}x{} {}, {}{}, {}",
            if release { "l" } else { "" },
            width_suffix(bytes, pair),
            general(rs, 4),
            general(rt, bytes),
            second(pair, rt2, bytes),
            base(rn),
        )),
        _ => None,
    }
}

/// Whether an exclusive is CONSTRAINED UNPREDICTABLE: another value than 31 in a field that should
/// be all ones, or a pair loaded into one register. The oracle refuses these, cores execute them.
fn is_unpredictable(word: u32, instruction: Instruction) -> bool {
    let rs = word >> 16 & 31;
    let rt2 = word >> 10 & 31;
    match instruction {
        Instruction::LoadExclusive { pair: true, rt, rt2, .. } => rs != 31 || rt == rt2,
        Instruction::LoadExclusive { .. } => rs != 31 || rt2 != 31,
        Instruction::StoreExclusive { pair, .. } => !pair && rt2 != 31,
        _ => false,
    }
}

fn check_exclusive(oracle: &Oracle, word: u32) {
    let ours = Instruction::decode(word);
    let theirs = oracle.text(word);
    match exclusive_text(ours) {
        Some(_) if theirs.is_none() => {
            assert!(is_unpredictable(word, ours), "{word:#010x}: only we decode {ours:?}");
        }
        Some(text) => assert_eq!(Some(text), theirs, "{word:#010x}"),
        None => {
            let name = mnemonic(theirs.as_deref());
            let is_exclusive = name.starts_with("ldx")
                || name.starts_with("ldax")
                || name.starts_with("stx")
                || name.starts_with("stlx");
            assert!(!is_exclusive, "{word:#010x} is {theirs:?}, we say {ours:?}");
        }
    }
}

/// The 64 opcodes of the exclusive space: size, o2, L, o1 and o0.
fn exclusive_opcodes() -> impl Iterator<Item = u32> {
    (0..64).map(|n| 0x0800_0000 | (n >> 4) << 30 | (n >> 1 & 7) << 21 | (n & 1) << 15)
}

#[test]
fn every_exclusive_opcode_agrees_with_the_oracle() {
    let oracle = Oracle::new();
    for opcode in exclusive_opcodes() {
        // Rs and Rt2 decide about should-be-one: all of them; Rn and Rt are plain numbers.
        for rs_rt2 in 0..1024 {
            for rn_rt in [0, 0x3ff, 0x3e0, 0x01f, 0x041] {
                let registers = (rs_rt2 >> 5) << 16 | (rs_rt2 & 31) << 10 | rn_rt;
                check_exclusive(&oracle, opcode | registers);
            }
        }
        for rn_rt in 0..1024 {
            check_exclusive(&oracle, opcode | 31 << 16 | 31 << 10 | rn_rt);
            check_exclusive(&oracle, opcode | 7 << 16 | 9 << 10 | rn_rt);
        }
    }
}

#[test]
#[ignore = "64 Mi words: minutes"]
fn every_word_of_the_exclusive_space_agrees_with_the_oracle() {
    let all: Vec<_> = exclusive_opcodes().collect();
    std::thread::scope(|scope| {
        for opcodes in all.chunks(32) {
            scope.spawn(move || {
                let oracle = Oracle::new();
                for &opcode in opcodes {
                    for registers in 0..1 << 20 {
                        let rs = registers >> 15 & 31;
                        let rest = registers & 0x7fff;
                        check_exclusive(&oracle, opcode | rs << 16 | rest);
                    }
                }
            });
        }
    });
}

#[test]
fn exclusives_decode_to_their_fields() {
    let load = |bytes, pair, acquire, rn, rt, rt2| Instruction::LoadExclusive {
        bytes,
        pair,
        acquire,
        rn,
        rt,
        rt2,
    };
    assert_eq!(Instruction::decode(0x885f_fc01), load(4, false, true, 0, 1, 31), "ldaxr w1, [x0]");
    assert_eq!(Instruction::decode(0x085f_7fe2), load(1, false, false, 31, 2, 31), "ldxrb [sp]");
    assert_eq!(Instruction::decode(0xc87f_0861), load(8, true, false, 3, 1, 2), "ldxp x1, x2");
    let store = Instruction::StoreExclusive {
        bytes: 8,
        pair: true,
        release: true,
        rn: 3,
        rs: 4,
        rt: 1,
        rt2: 2,
    };
    assert_eq!(Instruction::decode(0xc824_8861), store, "stlxp w4, x1, x2, [x3]");
    assert!(store.is_exclusive() && !store.is_load_exclusive());
    assert!(load(8, true, false, 3, 1, 2).is_load_exclusive());
    let clear = Instruction::decode(0xd503_3f5f);
    assert_eq!(clear, Instruction::ClearExclusive);
    assert!(clear.is_exclusive() && !clear.is_load_exclusive());
    assert!(!Instruction::Other.is_exclusive());
}

#[test]
fn relatives_of_the_exclusives_are_not_exclusive() {
    for (word, text) in [
        (0x88df_fc01, "ldar w1, [x0]"),
        (0x889f_fc01, "stlr w1, [x0]"),
        (0x88df_7c01, "ldlar w1, [x0]"),
        (0x889f_7c01, "stllr w1, [x0]"),
        (0x88a0_7c41, "cas w0, w1, [x2]"),
        (0x0820_7c82, "casp w0, w1, w2, w3, [x4]"),
        (0x4860_fc82, "caspal x0, x1, x2, x3, [x4]"),
        (0x08a0_7c41, "casb w0, w1, [x2]"),
    ] {
        assert_eq!(Instruction::decode(word), Instruction::Other, "{text}");
        assert_eq!(Oracle::new().text(word).as_deref(), Some(text));
    }
}

#[test]
fn should_be_one_bits_are_ignored() {
    let canonical = Instruction::decode(0x885f_7c01);
    assert_eq!(Instruction::decode(0x8840_0001), canonical);
}

#[test]
fn exception_generation_and_waiting() {
    let expected = [
        (0xd400_0001, Instruction::Svc { immediate: 0 }),
        (0xd400_0022, Instruction::Hvc { immediate: 1 }),
        (0xd41f_ffe3, Instruction::Smc { immediate: 0xffff }),
        (0xd420_8000, Instruction::Brk { immediate: 0x400 }),
        (0xd45e_0000, Instruction::Hlt { immediate: 0xf000 }),
        (0xd4a0_0001, Instruction::Other), // dcps1
        (0xd503_207f, Instruction::Wfi),
        (0xd503_205f, Instruction::Wfe),
        (0xd503_1007, Instruction::Wfet { rt: 7 }),
        (0xd503_1028, Instruction::Wfit { rt: 8 }),
        (0xd503_209f, Instruction::Sev),
        (0xd503_20bf, Instruction::Sevl),
        (0xd503_201f, Instruction::Other), // nop
        (0xd503_3fdf, Instruction::Isb),
        (0xd503_3f9f, Instruction::Other), // dsb sy
        (0xd503_30ff, Instruction::Other), // sb
    ];
    for (word, instruction) in expected {
        assert_eq!(Instruction::decode(word), instruction, "{word:#010x}");
    }
}

#[test]
fn what_is_told_of_words_alone() {
    let access = |kind, el0, pan| Some(Access { kind, el0, pan });
    let (read, write) = (AccessKind::Read, AccessKind::Write);
    let translations = [
        (0xd508_7800, access(read, false, false)),  // at s1e1r, x0
        (0xd508_7821, access(write, false, false)), // at s1e1w, x1
        (0xd508_7845, access(read, true, false)),   // at s1e0r, x5
        (0xd508_7865, access(write, true, false)),  // at s1e0w, x5
        (0xd508_7900, access(read, false, true)),   // at s1e1rp, x0
        (0xd508_7920, access(write, false, true)),  // at s1e1wp, x0
        (0xd50c_7880, None),                        // at s12e1r, x0
        (0xd508_7620, None),                        // dc ivac, x0
        (0xd508_7a40, None),                        // dc csw, x0
    ];
    for (word, expected) in translations {
        assert_eq!(Instruction::address_translation(word, true), expected, "{word:#010x}");
        let without = expected.map(|access| Access { pan: false, ..access });
        assert_eq!(Instruction::address_translation(word, false), without, "{word:#010x}");
    }
    // ESB, and the hints beside it: PSB CSYNC, and NOP.
    let barriers = [0xd503_221f, 0xd503_223f, 0xd503_201f];
    assert_eq!(barriers.map(Instruction::is_esb), [true, false, false]);
}

#[test]
fn system_registers_and_instructions() {
    let vbar = SystemRegister::VBAR_EL1;
    assert_eq!(Instruction::decode(0xd518_c003), Instruction::Msr { register: vbar, rt: 3 });
    assert_eq!(Instruction::decode(0xd538_c01f), Instruction::Mrs { register: vbar, rt: 31 });
    let daifset = Instruction::MsrImmediate { op1: 3, op2: 6, crm: 2 };
    assert_eq!(Instruction::decode(0xd503_42df), daifset, "msr daifset, #2");
    let pan = Instruction::MsrImmediate { op1: 0, op2: 4, crm: 1 };
    assert_eq!(Instruction::decode(0xd500_419f), pan, "msr pan, #1");
    for (word, text) in [(0xd500_401f, "cfinv"), (0xd500_403f, "xaflag"), (0xd500_405f, "axflag")] {
        assert_eq!(Instruction::decode(word), Instruction::Other, "{text}");
        assert_eq!(Oracle::new().text(word).as_deref(), Some(text));
    }
    let tlbi = Instruction::System { op1: 0, crn: 8, crm: 3, op2: 0, rt: 31, read: false };
    assert_eq!(Instruction::decode(0xd508_831f), tlbi, "tlbi vmalle1is");
    let sysl = Instruction::System { op1: 3, crn: 11, crm: 2, op2: 1, rt: 5, read: true };
    assert_eq!(Instruction::decode(0xd52b_b225), sysl, "sysl x5, #3, c11, c2, #1");
    assert_eq!(Instruction::decode(0xd540_0000), Instruction::Other, "the 128-bit space");
}

#[test]
fn calls_and_returns() {
    assert_eq!(Instruction::decode(0x9400_0001), Instruction::Bl { offset: 4 });
    assert_eq!(Instruction::decode(0x97ff_ffff), Instruction::Bl { offset: -4 });
    assert_eq!(Instruction::decode(0x9600_0000), Instruction::Bl { offset: -0x800_0000 });
    assert!(Instruction::decode(0x9400_0001).is_call());
    for (word, text) in [
        (0xd63f_0040, "blr x2"),
        (0xd63f_085f, "blraaz x2"),
        (0xd63f_0c5f, "blrabz x2"),
        (0xd73f_0845, "blraa x2, x5"),
        (0xd73f_0c5f, "blrab x2, sp"),
    ] {
        let call = Instruction::decode(word);
        assert_eq!(call, Instruction::Blr { rn: 2 }, "{text}");
        assert!(call.is_call());
        assert_eq!(Oracle::new().text(word).as_deref(), Some(text));
    }
    for (word, rn) in [(0xd65f_03c0, 30), (0xd65f_0040, 2), (0xd65f_0bff, 30), (0xd65f_0fff, 30)] {
        let back = Instruction::decode(word);
        assert_eq!(back, Instruction::Ret { rn });
        assert!(!back.is_call());
    }
    for word in [0xd69f_03e0, 0xd69f_0bff, 0xd69f_0fff] {
        assert_eq!(Instruction::decode(word), Instruction::Eret);
    }
    for (word, text) in [(0xd61f_0040, "br x2"), (0xd6bf_03e0, "drps"), (0x1400_0001, "b #4")] {
        assert_eq!(Instruction::decode(word), Instruction::Other, "{text}");
        assert_eq!(Oracle::new().text(word).as_deref(), Some(text));
    }
}

/// The mnemonics that the oracle may have for one of our instructions.
fn mnemonics(instruction: Instruction) -> &'static [&'static str] {
    match instruction {
        Instruction::LoadExclusive { .. } | Instruction::StoreExclusive { .. } => &[],
        Instruction::ClearExclusive => &["clrex"],
        Instruction::Wfi => &["wfi"],
        Instruction::Wfe => &["wfe"],
        Instruction::Wfit { .. } => &["wfit"],
        Instruction::Wfet { .. } => &["wfet"],
        Instruction::Sev => &["sev"],
        Instruction::Sevl => &["sevl"],
        Instruction::Svc { .. } => &["svc"],
        Instruction::Hvc { .. } => &["hvc"],
        Instruction::Smc { .. } => &["smc"],
        Instruction::Brk { .. } => &["brk"],
        Instruction::Hlt { .. } => &["hlt"],
        Instruction::Eret => &["eret", "eretaa", "eretab"],
        Instruction::Isb => &["isb"],
        Instruction::Mrs { .. } => &["mrs"],
        Instruction::Msr { .. } | Instruction::MsrImmediate { .. } => &["msr", "smstart", "smstop"],
        Instruction::System { .. } => {
            &["sys", "sysl", "tlbi", "at", "dc", "ic", "cfp", "cpp", "dvp", "cosp", "brb"]
        }
        Instruction::Bl { .. } => &["bl"],
        Instruction::Blr { .. } => &["blr", "blraa", "blrab", "blraaz", "blrabz"],
        Instruction::Ret { .. } => &["ret", "retaa", "retab"],
        Instruction::Other => &[],
    }
}

/// Every mnemonic above: none of them may be left to `Other`.
const RECOGNISED: &[&str] = &[
    "clrex", "wfi", "wfe", "wfit", "wfet", "sev", "sevl", "svc", "hvc", "smc", "brk", "hlt",
    "eret", "eretaa", "eretab", "isb", "mrs", "msr", "sys", "sysl", "tlbi", "at", "dc", "ic", "bl",
    "blr", "blraa", "blrab", "blraaz", "blrabz", "ret", "retaa", "retab",
];

fn check_mnemonic(oracle: &Oracle, word: u32) {
    let ours = Instruction::decode(word);
    if exclusive_text(ours).is_some() {
        return check_exclusive(oracle, word);
    }
    let theirs = oracle.text(word);
    let name = mnemonic(theirs.as_deref());
    let agree = match ours {
        // The oracle prints MSR for op0 = 0, which is unallocated.
        Instruction::Other if theirs.as_deref().is_some_and(|text| text.contains(" s0_")) => true,
        Instruction::Other => !RECOGNISED.contains(&name),
        _ => mnemonics(ours).contains(&name) || theirs.is_none(),
    };
    assert!(agree, "{word:#010x} is {theirs:?}, we say {ours:?}");
}

#[test]
fn the_system_and_branch_spaces_agree_with_the_oracle() {
    let oracle = Oracle::new();
    // A prime stride visits every combination of the short fields in time.
    for top in [0x94, 0x95, 0x96, 0x97, 0xd4, 0xd5, 0xd6, 0xd7_u32] {
        for word in (top << 24..=top << 24 | 0xff_ffff).step_by(251) {
            check_mnemonic(&oracle, word);
        }
    }
    // The corners of hints, barriers and PSTATE accesses, completely.
    for word in 0xd503_0000..=0xd503_ffff {
        check_mnemonic(&oracle, word);
    }
    for top in [0xd500_4000, 0xd501_4000, 0xd502_4000, 0xd63f_0000, 0xd65f_0000, 0xd69f_0000_u32] {
        for word in top..=top | 0xfff {
            check_mnemonic(&oracle, word);
        }
    }
}

proptest! {
    #[test]
    fn any_word_agrees_with_the_oracle(word: u32) {
        check_mnemonic(&Oracle::new(), word);
    }

    #[test]
    fn a_branch_offset_is_what_the_oracle_prints(offset in 0_u32..0x400_0000) {
        let Instruction::Bl { offset: ours } = Instruction::decode(0x9400_0000 | offset) else {
            panic!("this is a BL");
        };
        let text = Oracle::new().text(0x9400_0000 | offset).expect("every BL is valid");
        let printed = text.trim_start_matches("bl #").trim_start_matches("0x");
        let theirs = u64::from_str_radix(printed, 16).expect("a hexadecimal number") as i64;
        prop_assert_eq!(ours, theirs);
    }
}
