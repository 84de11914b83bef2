//! Words of A64 and what they come to; the words are from an assembler.

use super::*;

fn form(word: u32) -> Form {
    Form::decode(word, false).expect("it is known")
}

/// Offset, bytes and place of each piece.
fn pieces(form: &Form) -> Vec<(u64, u8, Place), PIECES_MAX> {
    form.pieces.iter().map(|piece| (piece.offset, piece.bytes, piece.place)).collect()
}

const fn x(register: u8) -> Place {
    Place::General(register, Extension::Zero)
}

#[test]
fn registers_that_move_their_base() {
    let post = form(0xb800_4441); // str w1, [x2], #4
    assert_eq!((post.base, post.moved, &pieces(&post)[..]), (2, Moved::By(4), &[(0, 4, x(1))][..]));
    let pre = form(0x385f_fc41); // ldrb w1, [x2, #-1]!
    assert_eq!((pre.moved, &pieces(&pre)[..]), (Moved::By(-1), &[(0, 1, x(1))][..]));
    let post = form(0xa8c1_0440); // ldp x0, x1, [x2], #16
    assert_eq!(post.moved, Moved::By(16));
    assert_eq!(pieces(&post)[..], [(0, 8, x(0)), (8, 8, x(1))]);
    let authenticated = form(0xf820_0c41); // ldraa x1, [x2]!
    assert_eq!((authenticated.moved, authenticated.base), (Moved::ToAddress, 2));
    assert_eq!(form(0xf820_0441).moved, Moved::Not); // ldraa x1, [x2]
    assert_eq!(form(0xb940_0441).moved, Moved::Not); // ldr w1, [x2, #4]
    assert_eq!(form(0xb862_6841).moved, Moved::Not); // ldr w1, [x2, x2]
    assert_eq!(form(0x3cc1_0440).moved, Moved::By(16)); // ldr q0, [x2], #16
}

#[test]
fn loads_extend_as_the_instruction_says() {
    let extended = |word: u32, value: u64| {
        let Piece { bytes, place: Place::General(_, extension), .. } = form(word).pieces[0] else {
            panic!("it is a general-purpose register");
        };
        extension.extend(value, bytes)
    };
    assert_eq!(extended(0x3880_1441, 0x80), 0xffff_ffff_ffff_ff80); // ldrsb x1, [x2], #1
    assert_eq!(extended(0x38c0_1441, 0x80), 0xffff_ff80); // ldrsb w1, [x2], #1
    assert_eq!(extended(0x6940_0440, 0x8000_0000), 0xffff_ffff_8000_0000); // ldpsw x0, x1, [x2]
    assert_eq!(extended(0x9800_0001, 0x8000_0000), 0xffff_ffff_8000_0000); // ldrsw x1, .
    assert_eq!(extended(0x1800_0001, 0x8000_0000), 0x8000_0000); // ldr w1, .
    assert_eq!(extended(0x9980_0041, 0x8000_0000), 0xffff_ffff_8000_0000); // ldapursw x1, [x2]
    assert_eq!(extended(0x78c0_2441, 0x18000), 0xffff_8000); // ldrsh w1, [x2], #2
}

#[test]
fn simd_registers_go_in_halves() {
    let halves = [(0, 8, Place::Vector(3, 0)), (8, 8, Place::Vector(3, 8))];
    assert_eq!(pieces(&form(0x3dc0_0043))[..], halves); // ldr q3, [x2]
    let big = Form::decode(0x3dc0_0043, true).expect("it is known");
    assert_eq!(pieces(&big)[..], [(0, 8, Place::Vector(3, 8)), (8, 8, Place::Vector(3, 0))]);
    assert_eq!(pieces(&form(0xbd40_0043))[..], [(0, 4, Place::Vector(3, 0))]); // ldr s3, [x2]
    let pair = form(0x2d40_1043); // ldp s3, s4, [x2]
    assert_eq!(pieces(&pair)[..], [(0, 4, Place::Vector(3, 0)), (4, 4, Place::Vector(4, 0))]);
    assert!(pair.clears_rest);
}

#[test]
fn structures_lie_interleaved() {
    // ld1 {v3.4s}, [x2], #16
    let one = form(0x4cdf_7843);
    assert_eq!(pieces(&one)[..], [(0, 8, Place::Vector(3, 0)), (8, 8, Place::Vector(3, 8))]);
    assert_eq!(one.moved, Moved::By(16));
    // ld1 {v3.16b}, [x2] of big-endian data, and ld1 {v3.8h}, [x2]
    let bytes = Form::decode(0x4c40_7043, true).expect("it is known");
    assert_eq!(pieces(&bytes), pieces(&one));
    let halfwords = Form::decode(0x4c40_7443, true).expect("it is known");
    assert_eq!(pieces(&halfwords).len(), 8);
    assert_eq!([bytes.is_of_bytes, halfwords.is_of_bytes], [true, false]);
    // ld2 {v31.2s, v0.2s}, [x2], x5
    let two = form(0x0cc5_885f);
    let expected = [(0, 31, 0), (4, 0, 0), (8, 31, 4), (12, 0, 4)];
    assert_eq!(pieces(&two)[..], expected.map(|(at, v, from)| (at, 4, Place::Vector(v, from))));
    assert_eq!(two.moved, Moved::ByRegister(5));
    // ld4 {v0.16b - v3.16b}, [x2]
    let four = form(0x4c40_0040);
    assert_eq!(four.pieces.len(), 64);
    assert_eq!(four.pieces[63], Piece { offset: 63, bytes: 1, place: Place::Vector(3, 15) });
    // ld1 {v0.8b - v2.8b}, [x2]
    assert_eq!(pieces(&form(0x0c40_6040))[2], (16, 8, Place::Vector(2, 0)));
}

#[test]
fn one_element_leaves_the_others_alone() {
    let lane = form(0x4d40_9043); // ld1 {v3.s}[3], [x2]
    assert_eq!(pieces(&lane)[..], [(0, 4, Place::Vector(3, 12))]);
    assert!(!lane.clears_rest);
    let lane = form(0x4d40_8443); // ld1 {v3.d}[1], [x2]
    assert_eq!(pieces(&lane)[..], [(0, 8, Place::Vector(3, 8))]);
    let lane = form(0x4d40_5843); // ld1 {v3.h}[7], [x2]
    assert_eq!(pieces(&lane)[..], [(0, 2, Place::Vector(3, 14))]);
    let all = form(0x0ddf_c843); // ld1r {v3.2s}, [x2], #4
    assert_eq!(pieces(&all)[..], [(0, 4, Place::Replicated(3))]);
    assert_eq!((all.vector_bytes, all.moved, all.clears_rest), (8, Moved::By(4), true));
}

#[test]
fn exclusives_and_atomics() {
    assert_eq!(form(0xc85f_7c41).action, Action::LoadExclusive); // ldxr x1, [x2]
    let pair = form(0x887f_0c41); // ldxp w1, w3, [x2]
    assert_eq!(pieces(&pair)[..], [(0, 4, x(1)), (4, 4, x(3))]);
    assert_eq!(form(0xc805_7c41).action, Action::StoreExclusive(5)); // stxr w5, x1, [x2]
    assert_eq!(form(0xc8df_fc41).action, Action::Transfer); // ldar x1, [x2]
    assert_eq!(form(0xc8a5_7c41).action, Action::CompareAndSwap(5)); // cas x5, x1, [x2]
    let pair = form(0x4824_7c46); // casp x4, x5, x6, x7, [x2]
    assert_eq!(pair.action, Action::CompareAndSwap(4));
    assert_eq!(pieces(&pair)[..], [(0, 8, x(6)), (8, 8, x(7))]);
    assert_eq!(form(0xb825_0041).action, Action::Update(Operation::Add, 5)); // ldadd w5, w1, [x2]
    assert_eq!(form(0xb825_8041).action, Action::Update(Operation::Swap, 5)); // swp w5, w1, [x2]
    assert_eq!(form(0xb8bf_c041).action, Action::Transfer); // ldapr w1, [x2]
    assert_eq!(form(0xd50b_7422).action, Action::Zero); // dc zva, x2
}

#[test]
fn atomics_compute() {
    let apply = |operation: Operation, old, operand| operation.apply(old, operand, 1);
    assert_eq!(apply(Operation::Add, 0xff, 2) & 0xff, 1);
    assert_eq!(apply(Operation::Clear, 0xff, 0x0f), 0xf0);
    assert_eq!(apply(Operation::ExclusiveOr, 0xff, 0x0f), 0xf0);
    assert_eq!(apply(Operation::Set, 0xf0, 0x0f), 0xff);
    assert_eq!(apply(Operation::SignedMax, 0x80, 1), 1);
    assert_eq!(apply(Operation::SignedMin, 0x80, 1), 0x80);
    assert_eq!(apply(Operation::UnsignedMax, 0x80, 1), 0x80);
    assert_eq!(apply(Operation::UnsignedMin, 0x80, 1), 1);
    assert_eq!(apply(Operation::Swap, 0x80, 0x101), 1);
}

#[test]
fn what_is_no_such_instruction_is_none() {
    for (word, name) in [
        (0x6900_0801, "stgp x1, x2, [x0]"),
        (0xf980_0041, "prfm"),
        (0x8b01_0000, "add"),
        (0xa400_a000, "ld1b, of SVE"),
    ] {
        assert_eq!(Form::decode(word, false), None, "{name}");
    }
}

/// Pieces lie one behind the other and fill what the instruction accesses.
#[test]
fn no_word_leaves_a_gap() {
    for word in (0..=u32::MAX).step_by(1021) {
        let Some(form) = Form::decode(word, word & 1 == 1) else { continue };
        let mut next = 0;
        for piece in &form.pieces {
            assert_eq!(piece.offset, next, "{word:#x}");
            assert!(matches!(piece.bytes, 1 | 2 | 4 | 8), "{word:#x}");
            next += u64::from(piece.bytes);
        }
        assert_eq!(next, u64::from(form.what.bytes) * u64::from(form.what.count), "{word:#x}");
    }
}
