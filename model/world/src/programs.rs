//! The guests: a few instructions each, and after them a branch to itself.

use stepwell_engine::attention::needs_attention;
use stepwell_spec::{Daif, Mdscr, Op, Program};

use Op::{
    Branch, Brk, ClearExclusive, Eret, Hvc, Isb, LoadExclusive, Mmio, Plain, ReadMask,
    RetryIfFailed, Smc, Stage1, Stage2, StoreExclusive, Svc, Wfe, Wfi, WriteIllegalSpsr, WriteMask,
    WriteMdscr,
};

const OFF: Mdscr = Mdscr { ss: false, kde: false, mde: false };
const STEP: Mdscr = Mdscr { ss: true, kde: false, mde: false };
const STEP_KERNEL: Mdscr = Mdscr { ss: true, kde: true, mde: false };

const ALL: Daif = Daif { d: true, a: true, i: true, f: true };
const NONE: Daif = Daif { d: false, a: false, i: false, f: false };
const INTERRUPTS: Daif = Daif { i: true, ..NONE };

/// What the exploration visits. Its count of states is pinned: a new program changes it.
pub const PROGRAMS: &[Program] = &[
    Program(&[Plain, Branch, Plain, Isb]),
    Program(&[LoadExclusive, StoreExclusive, RetryIfFailed]),
    Program(&[LoadExclusive, ClearExclusive, StoreExclusive]),
    Program(&[LoadExclusive, Svc, StoreExclusive]),
    Program(&[LoadExclusive, Hvc, StoreExclusive]),
    Program(&[Svc, Plain]),
    Program(&[Hvc, Smc]),
    Program(&[Eret, Plain]),
    Program(&[WriteIllegalSpsr, Eret, Plain]),
    Program(&[Stage1, Stage2]),
    Program(&[Mmio, Wfi, Wfe]),
    Program(&[Brk, Plain]),
    Program(&[WriteMdscr(STEP), Eret, Plain]),
    Program(&[WriteMdscr(OFF), Plain]),
    Program(&[WriteMdscr(STEP_KERNEL), Plain, Isb, Plain]),
    Program(&[WriteMask(INTERRUPTS), ReadMask, Svc]),
    Program(&[WriteMask(ALL), ReadMask, WriteMask(NONE), ReadMask]),
];

/// What is explored with FIQ and with SError in the place of IRQ: the loop that an interrupt
/// breaks, and what masks and unmasks.
pub const INTERRUPTED: &[Program] = &[
    Program(&[LoadExclusive, StoreExclusive, RetryIfFailed]),
    Program(&[WriteMask(ALL), ReadMask, WriteMask(NONE), ReadMask]),
];

/// The loop that livelocks where exclusives are not carried out.
pub const EXCLUSIVE_LOOP: &[Program] = &[Program(&[LoadExclusive, StoreExclusive, RetryIfFailed])];

/// One instruction before the end.
pub const SHORT: &[Program] = &[Program(&[Plain])];

/// What is explored with two vCPUs: a word that both exchange, what traps, and what waits.
pub const PAIRED: &[Program] = &[
    Program(&[LoadExclusive, StoreExclusive, RetryIfFailed]),
    Program(&[Plain, Svc, Plain]),
    Program(&[Wfi, Plain]),
];

/// As [`PAIRED`], but what waits: whoever else moves meanwhile does so for ever.
pub const PAIRED_IN_TURNS: &[Program] =
    &[Program(&[LoadExclusive, StoreExclusive, RetryIfFailed]), Program(&[Plain, Svc, Plain])];

/// The word of an instruction, as the loop fetches it.
#[must_use]
pub const fn word(op: Op) -> u32 {
    match op {
        Op::LoadExclusive => 0xc85f_7c25,      // ldxr x5, [x1]
        Op::StoreExclusive => 0xc803_7c22,     // stxr w3, x2, [x1]
        Op::ClearExclusive => 0xd503_3f5f,     // clrex
        Op::Wfi => 0xd503_207f,                // wfi
        Op::Wfe => 0xd503_205f,                // wfe
        Op::Eret => 0xd69f_03e0,               // eret
        Op::Svc => 0xd400_0001,                // svc #0
        Op::Hvc => 0xd400_0002,                // hvc #0
        Op::Smc => 0xd400_0003,                // smc #0
        Op::Brk => 0xd420_0000,                // brk #0
        Op::WriteMdscr(_) => 0xd510_0244,      // msr mdscr_el1, x4
        Op::WriteMask(_) => 0xd51b_4225,       // msr daif, x5
        Op::ReadMask => 0xd53b_4225,           // mrs x5, daif
        Op::WriteIllegalSpsr => 0xd518_4006,   // msr spsr_el1, x6
        Op::Isb => 0xd503_3fdf,                // isb
        Op::Branch => 0x1400_0002,             // b .+8
        Op::End => 0x1400_0000,                // b .
        Op::RetryIfFailed => 0x35ff_ffc3,      // cbnz w3, .-8
        Op::Stage1 => 0xf940_00e6,             // ldr x6, [x7]
        Op::Stage2 => 0x3dc0_0100,             // ldr q0, [x8]
        Op::Mmio => 0xb940_0126,               // ldr w6, [x9]
        Op::Acknowledge => 0xd538_cc06,        // mrs x6, icc_iar1_el1
        Op::Handle | Op::Plain => 0xd503_201f, // nop
    }
}

/// What the fast path takes without a look.
#[must_use]
pub fn is_plain(op: Op) -> bool {
    !needs_attention(word(op))
}
