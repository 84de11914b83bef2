//! What words of A32 and T32 come to: as llvm-mc assembles them.

use super::*;
use std::fmt::Write as _;

/// Where the instruction is.
const AT: u32 = 0x8002;
const A: InstructionSet = InstructionSet::A32;
const T: InstructionSet = InstructionSet::T32;

/// R0 is 0x1000, R2 is 0x10, and SP 0x2000.
const fn register(n: u8) -> u32 {
    match n {
        0 => 0x1000,
        2 => 0x10,
        SP => 0x2000,
        _ => 0,
    }
}

/// What is loaded or stored, where, and what becomes of the base.
fn described(set: InstructionSet, word: u32) -> String {
    let Some(form) = decode(set, word, AT, register) else { return String::from("nothing") };
    let read = |n| register(n).into();
    let address = form.what.address(AT.into(), read, read).expect("there is a base");
    let mut text = format!("{:?} {}@{address:x}", form.what.direction, form.what.bytes);
    for (n, piece) in (0..).zip(&form.pieces) {
        assert_eq!((piece.offset, piece.bytes), (n * u64::from(form.what.bytes), form.what.bytes));
        let _infallible = match piece.place {
            Place::General(register, Extension::Zero) => write!(text, " r{register}"),
            Place::General(register, extension) => write!(text, " r{register}:{extension:?}"),
            Place::Vector(register, at) => write!(text, " v{register}.{at}"),
            Place::Replicated(_) => write!(text, " all"),
        };
    }
    assert_eq!(usize::from(form.what.count), form.pieces.len());
    let _infallible = match form.action {
        Action::Transfer => Ok(()),
        action => write!(text, " {action:?}"),
    };
    match form.moved {
        Moved::By(distance) => text + &format!(" moves {distance}"),
        _ => text,
    }
}

#[test]
fn a32_forms() {
    for (word, name, expected) in [
        (0xe590_1004, "ldr r1,[r0,#4]", "Load 4@1004 r1"),
        (0xe410_1004, "ldr r1,[r0],#-4", "Load 4@1000 r1 moves -4"),
        (0xe5e0_1001, "strb r1,[r0,#1]!", "Store 1@1001 r1 moves 1"),
        (0xe4b0_1004, "ldrt r1,[r0],#4", "Load 4@1000 r1 moves 4"),
        (0xe790_1102, "ldr r1,[r0,r2,lsl #2]", "Load 4@1040 r1"),
        (0xe720_1002, "str r1,[r0,-r2]!", "Store 4@ff0 r1 moves -16"),
        (0xe59f_1008, "ldr r1,[pc,#8]", "Load 4@8010 r1"),
        (0xe0d0_10b2, "ldrh r1,[r0],#2", "Load 2@1000 r1 moves 2"),
        (0xe100_10b2, "strh r1,[r0,-r2]", "Store 2@ff0 r1"),
        (0xe1d0_11d1, "ldrsb r1,[r0,#17]", "Load 1@1011 r1:Sign32"),
        (0xe010_10f2, "ldrsh r1,[r0],-r2", "Load 2@1000 r1:Sign32 moves -16"),
        (0xe1e0_40d8, "ldrd r4,r5,[r0,#8]!", "Load 4@1008 r4 r5 moves 8"),
        (0xe000_40f2, "strd r4,r5,[r0],-r2", "Store 4@1000 r4 r5 moves -16"),
        (0xe8b0_4012, "ldm r0!,{r1,r4,lr}", "Load 4@1000 r1 r4 r14 moves 12"),
        (0xe990_0012, "ldmib r0,{r1,r4}", "Load 4@1004 r1 r4"),
        (0xe820_0012, "stmda r0!,{r1,r4}", "Store 4@ffc r1 r4 moves -8"),
        (0xe920_0012, "stmdb r0!,{r1,r4}", "Store 4@ff8 r1 r4 moves -8"),
        (0xedd0_1b02, "vldr d17,[r0,#8]", "Load 8@1008 v8.8"),
        (0xed40_1a01, "vstr s3,[r0,#-4]", "Store 4@ffc v0.12"),
        (0xecf0_0a03, "vldmia r0!,{s1,s2,s3}", "Load 4@1000 v0.4 v0.8 v0.12 moves 12"),
        (0xed20_1b04, "vstmdb r0!,{d1,d2}", "Store 8@ff0 v0.8 v1.0 moves -16"),
        (0xe140_1092, "swpb r1,r2,[r0]", "Both 1@1000 r1 Update(Swap, 2)"),
        (0xe190_1c9f, "lda r1,[r0]", "Load 4@1000 r1"),
        (0xe1e0_fc91, "stlh r1,[r0]", "Store 2@1000 r1"),
        (0xe1b0_4f9f, "ldrexd r4,r5,[r0]", "Load 4@1000 r4 r5 LoadExclusive"),
        (0xe180_3f91, "strex r3,r1,[r0]", "Store 4@1000 r1 StoreExclusive(3)"),
        (0xe590_f000, "ldr pc,[r0]", "nothing"),
        (0xe8b0_0003, "ldm r0!,{r0,r1}", "nothing"),
        (0xe890_8002, "ldm r0,{r1,pc}", "nothing"),
        (0xf420_070f, "vld1.8 {d0},[r0]", "nothing"),
        (0xe001_0392, "mul r1,r2,r3", "nothing"),
        (0xec51_0b10, "vmov r0,r1,d0", "nothing"),
        (0xe082_1003, "add r1,r2,r3", "nothing"),
        (0xef00_0000, "svc #0", "nothing"),
        (0xf5d0_f000, "pld [r0]", "nothing"),
        (0xe790_1062, "ldr r1,[r0,r2,rrx]", "nothing"),
    ] {
        assert_eq!(described(A, word), expected, "{name}");
    }
}

#[test]
fn t32_forms() {
    for (word, name, expected) in [
        (0x6841, "ldr r1,[r0,#4]", "Load 4@1004 r1"),
        (0x70c1, "strb r1,[r0,#3]", "Store 1@1003 r1"),
        (0x88c1, "ldrh r1,[r0,#6]", "Load 2@1006 r1"),
        (0x5e81, "ldrsh r1,[r0,r2]", "Load 2@1010 r1:Sign32"),
        (0x5081, "str r1,[r0,r2]", "Store 4@1010 r1"),
        (0x4902, "ldr r1,[pc,#8]", "Load 4@800c r1"),
        (0x9102, "str r1,[sp,#8]", "Store 4@2008 r1"),
        (0xc812, "ldm r0!,{r1,r4}", "Load 4@1000 r1 r4 moves 8"),
        (0xc803, "ldm r0,{r0,r1}", "Load 4@1000 r0 r1"),
        (0xb502, "push {r1,lr}", "Store 4@1ff8 r1 r14 moves -8"),
        (0xbc12, "pop {r1,r4}", "Load 4@2000 r1 r4 moves 8"),
        (0x1fe0_f8d0, "ldr.w r1,[r0,#4064]", "Load 4@1fe0 r1"),
        (0x1b04_f850, "ldr r1,[r0],#4", "Load 4@1000 r1 moves 4"),
        (0x1d01_f800, "strb r1,[r0,#-1]!", "Store 1@fff r1 moves -1"),
        (0x1e04_f850, "ldrt r1,[r0,#4]", "Load 4@1004 r1"),
        (0x1012_f910, "ldrsb.w r1,[r0,r2,lsl #1]", "Load 1@1020 r1:Sign32"),
        (0x1c08_f850, "ldr.w r1,[r0,#-8]", "Load 4@ff8 r1"),
        (0x1402_e8f0, "ldrd r1,r4,[r0],#8", "Load 4@1000 r1 r4 moves 8"),
        (0x1402_e940, "strd r1,r4,[r0,#-8]", "Store 4@ff8 r1 r4"),
        (0x4012_e920, "stmdb r0!,{r1,r4,lr}", "Store 4@ff4 r1 r4 r14 moves -12"),
        (0x4002_e8b0, "ldm.w r0!,{r1,lr}", "Load 4@1000 r1 r14 moves 8"),
        (0x1a01_ed90, "vldr s2,[r0,#4]", "Load 4@1004 v0.8"),
        (0x1faf_e8d0, "lda r1,[r0]", "Load 4@1000 r1"),
        (0x1f8f_e8c0, "stlb r1,[r0]", "Store 1@1000 r1"),
        (0x1f01_e850, "ldrex r1,[r0,#4]", "Load 4@1004 r1 LoadExclusive"),
        (0x1473_e8c0, "strexd r3,r1,r4,[r0]", "Store 4@1000 r1 r4 StoreExclusive(3)"),
        (0xbd02, "pop {r1,pc}", "nothing"),
        (0xf001_e8d0, "tbb [r0,r1]", "nothing"),
        (0xf000_f890, "pld [r0]", "nothing"),
        (0x4411, "add r1,r2", "nothing"),
        (0x070f_f920, "vld1.8 {d0},[r0]", "nothing"),
    ] {
        assert_eq!(described(T, word), expected, "{name}");
    }
}

#[test]
fn no_word_panics() {
    for word in (0..=u32::MAX).step_by(1009) {
        for set in [A, T] {
            if let Some(form) = decode(set, word, AT, register) {
                assert!((1..=32).contains(&form.pieces.len()), "{set:?} {word:#x}");
            }
        }
    }
}
