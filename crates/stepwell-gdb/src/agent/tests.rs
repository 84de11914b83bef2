//! Each operation by itself, and programs as GDB makes them.

use super::*;
use proptest::prelude::*;

/// A guest whose register N has the value `0x100 + N`, and whose memory at A holds A's low byte;
/// nothing is mapped from 2^32 on.
struct Known;

impl AgentContext for Known {
    fn register(&mut self, number: u16) -> Option<u64> {
        (number < 68).then(|| 0x100 + u64::from(number))
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Option<()> {
        for (byte, at) in bytes.iter_mut().zip(address..) {
            *byte = (at < 1 << 32).then_some(at as u8)?;
        }
        Some(())
    }
}

fn value(code: &[u8]) -> Result<u64, Fault> {
    evaluate(code, &mut Known)
}

/// Code that pushes a number.
fn push(value: u64) -> Vec<u8> {
    let mut code = vec![0x25];
    code.extend(value.to_be_bytes());
    code
}

/// Pushes values, executes `operation`, and returns the stack from the top down.
fn stack(values: &[u64], operation: &[u8]) -> Vec<u64> {
    let head: Vec<u8> = values.iter().flat_map(|&value| push(value)).collect();
    let mut run = Run { code: &[&head, operation].concat(), at: 0, stack: Vec::new() };
    while run.at < run.code.len() {
        assert_eq!(run.operation(&mut Known), Ok(None), "{operation:x?}");
    }
    run.stack.into_iter().rev().collect()
}

#[test]
fn arithmetic_is_that_of_64_bits() {
    let minus = |value: i64| value.wrapping_neg().cast_unsigned();
    let cases: &[(u8, u64, u64, u64)] = &[
        (0x02, u64::MAX, 2, 1),
        (0x03, 1, 2, u64::MAX),
        (0x04, 1 << 63, 3, 1 << 63),
        (0x05, minus(7), 2, minus(3)),
        (0x05, 1 << 63, u64::MAX, 1 << 63),
        (0x06, minus(7), 2, 0x7fff_ffff_ffff_fffc),
        (0x07, minus(7), 2, minus(1)),
        (0x07, 1 << 63, u64::MAX, 0),
        (0x08, minus(7), 2, 1),
        (0x09, 3, 63, 1 << 63),
        (0x09, 3, 64, 0),
        (0x09, 3, u64::MAX, 0),
        (0x0a, 1 << 63, 62, minus(2)),
        (0x0a, 1 << 63, 1 << 32, u64::MAX),
        (0x0b, 1 << 63, 62, 2),
        (0x0b, 1 << 63, 64, 0),
        (0x0f, 0b1100, 0b1010, 0b1000),
        (0x10, 0b1100, 0b1010, 0b1110),
        (0x11, 0b1100, 0b1010, 0b0110),
        (0x13, 5, 5, 1),
        (0x13, 5, 6, 0),
        (0x14, minus(1), 1, 1),
        (0x14, 1, minus(1), 0),
        (0x15, minus(1), 1, 0),
        (0x15, 1, minus(1), 1),
    ];
    for &(operation, left, right, result) in cases {
        assert_eq!(stack(&[9, left, right], &[operation]), [result, 9], "{operation:#x}");
    }
    for division in 0x05..=0x08 {
        let code = [push(1), push(0), vec![division, 0x27]].concat();
        assert_eq!(value(&code), Err(Fault::Division));
    }
}

#[test]
fn one_value_becomes_another() {
    let cases: &[(&[u8], u64, u64)] = &[
        (&[0x0e], 0, 1),
        (&[0x0e], 7, 0),
        (&[0x12], 0xff, !0xff),
        (&[0x16, 8], 0x1180, !0x7f),
        (&[0x16, 8], 0x1170, 0x70),
        (&[0x16, 1], 1, u64::MAX),
        (&[0x16, 0], 1, 0),
        (&[0x16, 64], 1 << 63, 1 << 63),
        (&[0x16, 255], 1 << 63, 1 << 63),
        (&[0x2a, 8], 0x1180, 0x80),
        (&[0x2a, 0], 1, 0),
        (&[0x2a, 64], u64::MAX, u64::MAX),
        (&[0x2a, 255], u64::MAX, u64::MAX),
        (&[0x17], 0x1f0, 0xf0),
        (&[0x18], 0x1f0, 0xf1f0),
        (&[0x19], 0x1f0, 0xf3f2_f1f0),
        (&[0x1a], 0x1f0, 0xf7f6_f5f4_f3f2_f1f0),
    ];
    for &(code, before, after) in cases {
        assert_eq!(stack(&[9, before], code), [after, 9], "{code:x?}");
    }
    let beyond = [push((1 << 32) - 7), vec![0x1a, 0x27]].concat();
    assert_eq!(value(&beyond), Err(Fault::Memory((1 << 32) - 7)));
}

#[test]
fn the_stack_is_moved_about() {
    assert_eq!(stack(&[1, 2, 3], &[0x28]), [3, 3, 2, 1], "dup");
    assert_eq!(stack(&[1, 2, 3], &[0x29]), [2, 1], "pop");
    assert_eq!(stack(&[1, 2, 3], &[0x2b]), [2, 3, 1], "swap");
    assert_eq!(stack(&[1, 2, 3], &[0x32, 0]), [3, 3, 2, 1], "pick the top");
    assert_eq!(stack(&[1, 2, 3], &[0x32, 2]), [1, 3, 2, 1], "pick the third");
    // a b c becomes c a b.
    assert_eq!(stack(&[1, 2, 3], &[0x33]), [2, 1, 3], "rot");
    for (code, count) in [(vec![0x28], 0), (vec![0x2b], 1), (vec![0x33], 2), (vec![0x32, 3], 3)] {
        let head: Vec<u8> = (0..count).flat_map(push).collect();
        assert_eq!(value(&[head, code].concat()), Err(Fault::StackEmpty));
    }
}

#[test]
fn numbers_and_registers_are_pushed() {
    let numbers = [
        0x22, 0xff, 0x23, 0xff, 0xfe, 0x24, 0xff, 0xfe, 0xfd, 0xfc, 0x25, 0xff, 0xfe, 0xfd, 0xfc,
        0xfb, 0xfa, 0xf9, 0xf8,
    ];
    let expected = [0xfffe_fdfc_fbfa_f9f8, 0xfffe_fdfc, 0xfffe, 0xff];
    assert_eq!(stack(&[], &numbers), expected);
    assert_eq!(stack(&[], &[0x26, 0, 31]), [0x100 + 31]);
    assert_eq!(value(&[0x26, 1, 0, 0x27]), Err(Fault::Register(0x100)));
}

#[test]
fn it_jumps() {
    // `$x0 == 0x100 && $x1 == 0x101`
    #[rustfmt::skip]
    let both = vec![
        0x26, 0, 0, 0x23, 1, 0, 0x13, // 0: x0 == 0x100
        0x20, 0, 13, 0x21, 0, 23, // 7: on at 13, else at 23
        0x26, 0, 1, 0x23, 1, 1, 0x13, // 13: x1 == 0x101
        0x20, 0, 28, // 20: on at 28
        0x22, 0, 0x21, 0, 30, // 23: 0, on at 30
        0x22, 1, // 28: 1
        0x27, // 30
    ];
    assert_eq!(value(&both), Ok(1));
    for at in [5, 18] {
        let mut other = both.clone();
        other[at] = 9;
        assert_eq!(value(&other), Ok(0), "{at}");
    }
    assert_eq!(value(&[0x21, 0xff, 0xff]), Err(Fault::Code));
}

#[test]
fn what_makes_no_sense_has_no_value() {
    assert_eq!(value(&[]), Err(Fault::Code));
    assert_eq!(value(&[0x27]), Err(Fault::StackEmpty));
    assert_eq!(value(&[0x22]), Err(Fault::Code), "an operand is missing");
    assert_eq!(value(&[0x21, 0, 0]), Err(Fault::TooLong));
    assert_eq!(value(&[0x22, 1, 0x21, 0, 0]), Err(Fault::StackFull));
    // Floating point, tracepoints, their variables, printf, and what there is not.
    for operation in [0x01, 0x0c, 0x0d, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x2c, 0x2d, 0x2e, 0x2f] {
        assert_eq!(value(&[operation]), Err(Fault::Operation(operation)));
    }
    for operation in [0x00, 0x30, 0x31, 0x34, 0x35, 0xff] {
        assert_eq!(value(&[operation]), Err(Fault::Operation(operation)));
    }
}

/// Bytes most of which are operations.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..0x36, 1 => Just(0x22), 1 => any::<u8>()];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    #[test]
    fn any_bytes_come_to_an_end(code in code()) {
        let mut run = Run { code: &code, at: 0, stack: Vec::new() };
        for _ in 0..STEPS_MAX {
            prop_assert!(run.stack.len() <= STACK_MAX);
            match run.operation(&mut Known) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    prop_assert_eq!(evaluate(&code, &mut Known), Ok(value));
                    return Ok(());
                }
                Err(fault) => {
                    prop_assert_eq!(evaluate(&code, &mut Known), Err(fault));
                    return Ok(());
                }
            }
        }
        prop_assert_eq!(evaluate(&code, &mut Known), Err(Fault::TooLong));
    }

    #[test]
    fn an_expression_is_what_it_says(a: u64, b: u64, c: u64) {
        // (a + b) ^ c < b
        let code = [push(a), push(b), vec![0x02], push(c), vec![0x11], push(b), vec![0x15, 0x27]];
        let expected = u64::from(a.wrapping_add(b) ^ c < b);
        prop_assert_eq!(value(&code.concat()), Ok(expected));
    }
}
