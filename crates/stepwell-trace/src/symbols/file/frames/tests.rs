//! Rules of single functions, as gimli reads them.

use super::*;
use gimli::{BaseAddresses, DebugFrame, LittleEndian, Register, RegisterRule, UnwindContext};
use gimli::{CallFrameInstruction, CfaRule, UnwindSection};

const KERNEL: u64 = 0xffff_8000_0800_0000;

/// Where the return address is.
#[derive(Debug, PartialEq)]
enum Return {
    InX30,
    /// So far from the CFA.
    Saved(i64),
    /// As the operations of an expression.
    Expression(String),
}

/// The CFA as register and offset, and where the return address is, at each instruction.
fn rules_at(base: u64, words: &[u32]) -> Vec<(u16, i64, Return)> {
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let section = debug_frame(&[(base, code.len() as u64)], base, &code);
    let mut frame = DebugFrame::new(&section, LittleEndian);
    frame.set_address_size(8);
    let bases = BaseAddresses::default();
    let mut context = UnwindContext::new();
    let rule = |n: usize| {
        let at = base + 4 * n as u64;
        let cie = DebugFrame::cie_from_offset;
        let row = frame.unwind_info_for_address(&bases, &mut context, at, cie).unwrap();
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { panic!() };
        let found = match row.register(Register(30)) {
            RegisterRule::Offset(offset) => Return::Saved(offset),
            RegisterRule::ValExpression(expression) => {
                let expression = expression.get(&frame).unwrap();
                let encoding =
                    gimli::Encoding { format: gimli::Format::Dwarf32, version: 4, address_size: 8 };
                let mut operations = expression.operations(encoding);
                let mut text = String::new();
                while let Some(operation) = operations.next().unwrap() {
                    text += &format!("{operation:x?} ");
                }
                Return::Expression(text)
            }
            _ => Return::InX30,
        };
        (register.0, offset, found)
    };
    (0..words.len()).map(rule).collect()
}

/// As above, of a program that is no kernel: where x30 was saved.
fn rules(words: &[u32]) -> Vec<(u16, i64, Option<i64>)> {
    let saved = |found| match found {
        Return::InX30 => None,
        Return::Saved(offset) => Some(offset),
        other => panic!("{other:?}"),
    };
    let rules = rules_at(0x1000, words).into_iter();
    rules.map(|(register, offset, found)| (register, offset, saved(found))).collect()
}

#[test]
fn a_function_of_the_kernel() {
    let words = [
        0xaa1e_03e9, // mov x9, x30
        0xd503_201f, // nop
        0xd503_233f, // paciasp
        0xa9be_7bfd, // stp x29, x30, [sp, #-32]!
        0x9100_03fd, // mov x29, sp
        0x9400_0001, // bl
        0xa8c2_7bfd, // ldp x29, x30, [sp], #32
        0xd65f_03c0, // ret
        0x9400_0001, // bl: another way out
    ];
    let (outside, pushed, framed) = ((31, 0, None), (31, 32, Some(-24)), (29, 32, Some(-24)));
    let expected = [outside, outside, outside, outside, pushed, framed, framed, outside, framed];
    assert_eq!(rules(&words), expected);
}

#[test]
fn a_signature_is_taken_off() {
    let words = [
        0xd503_233f, // paciasp
        0xa9be_7bfd, // stp x29, x30, [sp, #-32]!
        0x9100_03fd, // mov x29, sp
        0xa8c2_7bfd, // ldp x29, x30, [sp], #32
        0xd503_23bf, // autiasp
        0xd65f_03c0, // ret
        0x9400_0001, // bl: another way out
    ];
    let rules = rules_at(KERNEL, &words);
    let in_x30 = |rule: &(u16, i64, Return)| match &rule.2 {
        Return::Expression(text) => {
            text.contains("Register(1e), offset: 0") && text.contains("ffff000000000000")
        }
        _ => false,
    };
    let saved = |rule: &(u16, i64, Return)| match &rule.2 {
        Return::Expression(text) => text.contains("18") && text.contains("Deref"),
        _ => false,
    };
    assert_eq!(rules[0], (31, 0, Return::InX30));
    assert!(rules[1].1 == 0 && in_x30(&rules[1]), "{rules:?}");
    assert!(rules[2].1 == 32 && saved(&rules[2]), "{rules:?}");
    assert!(rules[3].0 == 29 && saved(&rules[3]), "{rules:?}");
    assert!(rules[4].1 == 0 && in_x30(&rules[4]), "{rules:?}");
    assert_eq!(rules[5], (31, 0, Return::InX30));
    assert!(rules[6].0 == 29 && saved(&rules[6]), "{rules:?}");
}

#[test]
fn a_task_begins_where_nobody_called() {
    let words: [u32; 5] = [
        0x9400_0001, // bl
        0xb400_0073, // cbz x19
        0xaa14_03e0, // mov x0, x20
        0xd63f_0260, // blr x19
        0x1400_0001, // b
    ];
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let section = debug_frame(&[(KERNEL, code.len() as u64)], KERNEL, &code);
    let mut frame = DebugFrame::new(&section, LittleEndian);
    frame.set_address_size(8);
    let bases = BaseAddresses::default();
    let found = frame.fde_for_address(&bases, KERNEL, DebugFrame::cie_from_offset).unwrap();
    let told = found.instructions(&frame, &bases).next().unwrap();
    assert_eq!(told, Some(CallFrameInstruction::Undefined { register: Register(30) }));
}

#[test]
fn a_signature_is_above_the_address() {
    assert_eq!(signature(KERNEL), 0xffff_0000_0000_0000);
    assert_eq!(signature(0xffff_ffc0_0800_0000), 0xffff_ff80_0000_0000);
    assert_eq!(signature(0x4000_0000), 0);
    assert_eq!(signature(u64::MAX), u64::MAX - 1);
}

#[test]
fn a_function_with_a_large_frame() {
    let words = [
        0xd105_03ff, // sub sp, sp, #320
        0xa910_7bfd, // stp x29, x30, [sp, #256]
        0x9104_03fd, // add x29, sp, #256
        0xd503_201f, // nop
    ];
    let expected = [(31, 0, None), (31, 320, None), (31, 320, Some(-56)), (29, 64, Some(-56))];
    assert_eq!(rules(&words), expected);
}

#[test]
fn an_entry_from_an_exception() {
    let from_el1 = [
        0xa900_07e0, // stp x0, x1, [sp]
        0xa90e_77fc, // stp x28, x29, [sp, #224]
        0x9105_43f5, // add x21, sp, #336
        0xa90f_57fe, // stp x30, x21, [sp, #240]
        0xa910_5ff6, // stp x22, x23, [sp, #256]
        0x9400_0001, // bl
    ];
    let row = |words: &[u32], at: u64, register: u16| {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let section = debug_frame(&[(0x1000, code.len() as u64)], 0x1000, &code);
        let mut frame = DebugFrame::new(&section, LittleEndian);
        frame.set_address_size(8);
        let (bases, mut context) = (BaseAddresses::default(), UnwindContext::new());
        let cie = DebugFrame::cie_from_offset;
        let row = frame.unwind_info_for_address(&bases, &mut context, 0x1000 + at, cie).unwrap();
        assert_eq!(*row.cfa(), CfaRule::RegisterAndOffset { register: Register(31), offset: 0 });
        let found = frame.fde_for_address(&bases, 0x1000 + at, cie).unwrap();
        assert!(found.is_signal_trampoline());
        assert_eq!(found.cie().return_address_register(), Register(32));
        row.register(Register(register))
    };
    for register in 0..=32 {
        let at = RegisterRule::Offset(8 * i64::from(register));
        assert_eq!(row(&from_el1, 20, register), at, "where it calls");
        assert_eq!(row(&from_el1, 16, register), RegisterRule::Undefined, "not all yet");
    }
    let mut from_el0 = from_el1;
    from_el0[2] = READS_SP_EL0;
    assert_eq!(row(&from_el0, 20, 32), RegisterRule::Undefined);
    assert_eq!(row(&from_el0, 20, 19), RegisterRule::Undefined);
}

#[test]
fn leaves_and_assembly() {
    assert_eq!(rules(&[0xd503_201f, 0xd65f_03c0]), [(31, 0, None); 2]);
    assert_eq!(rules(&[0x9400_0001, 0xd65f_03c0]), [(29, 16, Some(-8)); 2]);
}
