//! Arm architecture facts that the rest of Stepwell shares: register layouts, the few
//! instructions the engine must recognise, address newtypes, and the stage-1 table walk.
//!
//! Nothing in here reads a register or memory by itself; everything is a value or a function of
//! values, so that it is the same at EL2, in the model and in the tool. Nothing in here can panic
//! either, whatever a guest puts into its registers and tables.

#![cfg_attr(not(test), no_std)]
#![forbid(missing_docs, unsafe_code)]
// Outside of tests, which may fail loudly: nobody can allow these again.
#![cfg_attr(
    not(test),
    forbid(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod aarch32;
pub mod address;
mod bit_field;
pub mod debug;
pub mod esr;
mod esr_el1;
pub mod exception;
pub mod generic_timer;
pub mod hyp;
pub mod instruction;
mod list_register;
pub mod load_store;
pub mod operands;
pub mod pstate;
pub mod stage1;
pub mod system_register;

pub use aarch32::InstructionSet;
pub use address::{Ipa, Pa, Va};
pub use esr::{EsrEl1, EsrEl2};
pub use instruction::Instruction;
pub use load_store::LoadStore;
pub use operands::{DirectBranch, Operands};
pub use pstate::Pstate;
pub use system_register::SystemRegister;
