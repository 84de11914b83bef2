//! The guests: a few instructions each, and after them a branch to itself.

use stepwell_arch::Instruction;
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
pub const EXCLUSIVE_LOOP: u8 = 1;

/// The word of an instruction, as the engine's plan is made from.
#[must_use]
pub const fn instruction(op: Op) -> Instruction {
    Instruction::decode(match op {
        Op::LoadExclusive => 0xc85f_7c20,  // ldxr x0, [x1]
        Op::StoreExclusive => 0xc803_7c20, // stxr w3, x0, [x1]
        Op::ClearExclusive => 0xd503_3f5f, // clrex
        Op::Wfi => 0xd503_207f,            // wfi
        Op::Wfe => 0xd503_205f,            // wfe
        Op::Eret => 0xd69f_03e0,           // eret
        Op::Svc => 0xd400_0001,            // svc #0
        Op::WriteMask(_) => 0xd51b_4220,   // msr daif, x0
        Op::Isb => 0xd503_3fdf,            // isb
        _ => 0xd503_201f,                  // nop: it just executes, or traps
    })
}
