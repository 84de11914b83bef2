//! Conformance cases: pieces of code that declare what must be reported of them.
//!
//! Each case is a few instructions, run at EL1, EL0 or both, once without and once with the virtual
//! timer's interrupt pending. It declares, from Arm's manual and not from what any machine does,
//! the PCs that a stepper must report, and the exceptions that the guest must see. The guest
//! `conform` runs them all and checks what it sees itself; `tests/tests/conformance.rs` reads the
//! same declarations and compares them with what Stepwell and plain QEMU report.
//!
//! A *path* is a list of words:
//!
//! | word | meaning |
//! | --- | --- |
//! | `3`, `1-4` | the case's instructions, counted from 0 |
//! | `3+2` | two bytes into instruction 3: a misaligned PC |
//! | `sync` | the instruction before raised an exception: its vector and the case's handler |
//! | `sync0`, `sync1`, `synct` | the same, from EL0, from EL1, from EL1 on SP_EL0 |
//! | `step`, `break` | the same, of an exception that comes before the next instruction begins |
//! | `pending` | a `step` that no instruction led to: stepping began with PSTATE.SS clear |
//! | `irq`, `irq0` | the interrupt is taken here: its vector and handler, unless it is held |
//! | `fiq`, `fiq0` | the same, of one in Group 0 |
//! | `fetch`, `device` | the PC at which nothing is mapped, and that of the UART |
//!
//! Every case ends with `b conform_end`, which is its last instruction.
//!
//! The cases are compiled twice: with their code into the guest, and without it into the tests.
//!
//! Source of the paths: Arm ARM (DDI 0487, issue L.b), "Software Step exceptions", "Synchronous
//! exception prioritization for exceptions taken to AArch64 state", "Breakpoint exceptions",
//! "Watchpoint exceptions", "Exclusive access instructions and Shareable memory locations".

pub mod cases;
mod declaration;
#[cfg(all(feature = "bare", target_os = "none"))]
mod machine;
#[cfg(all(feature = "bare", target_os = "none"))]
mod mapping;
#[cfg(all(feature = "bare", target_os = "none"))]
pub mod runner;

pub use declaration::{
    Case, Caught, D, Departure, ElrPlace, FIQ, Handler, INTERRUPT_INSTRUCTIONS, IRQ, Level, Levels,
    Needs, Pending, Run, UNMAPPED, class,
};

/// Declares cases, each of which has code; makes `CASES` of them, and in the guest `CODE`.
#[macro_export]
macro_rules! conformance_cases {
    ($($name:ident: $code:literal => $case:expr,)*) => {
        /// The cases, in the order in which they run.
        pub const CASES: &[$crate::conform::Case] =
            &[$($crate::conform::Case { name: stringify!($name), ..$case },)*];

        #[cfg(all(feature = "bare", target_os = "none"))]
        mod code {
            core::arch::global_asm!(
                ".section .text.conform_cases, \"ax\"",
                ".arch_extension lse",
                ".macro unmask",
                "msr daifclr, #2",
                ".endm",
                ".macro mask",
                "msr daifset, #2",
                ".endm",
                ".macro unmask_fast",
                "msr daifclr, #1",
                ".endm",
                ".macro mask_fast",
                "msr daifset, #1",
                ".endm",
                $(concat!(
                    ".balign 16\n.globl conform_case_", stringify!($name),
                    "\nconform_case_", stringify!($name), ":\n", $code, "\nb conform_end\n"
                ),)*
                ".purgem unmask",
                ".purgem mask",
                ".purgem unmask_fast",
                ".purgem mask_fast",
                ".text",
            );
            $(
                pub mod $name {
                    unsafe extern "C" {
                        #[link_name = concat!("conform_case_", stringify!($name))]
                        pub fn start();
                    }
                }
            )*
        }

        /// Where the code of each begins.
        #[cfg(all(feature = "bare", target_os = "none"))]
        pub const CODE: &[unsafe extern "C" fn()] = &[$(code::$name::start,)*];
    };
}
