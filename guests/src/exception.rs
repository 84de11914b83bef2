//! What an exception saved, and the way to EL0 and back.

use crate::hardware::psci;
use crate::report;

/// Exception classes (ESR_ELx.EC) that the guests meet.
pub mod class {
    /// Unknown reason: an undefined instruction.
    pub const UNKNOWN: u64 = 0x00;
    /// Illegal execution state.
    pub const ILLEGAL_STATE: u64 = 0x0e;
    /// SVC in AArch64 state.
    pub const SVC: u64 = 0x15;
    /// Instruction abort from EL0.
    pub const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
    /// Instruction abort at EL1.
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    /// PC alignment fault.
    pub const PC_ALIGNMENT: u64 = 0x22;
    /// Data abort from EL0.
    pub const DATA_ABORT_LOWER: u64 = 0x24;
    /// Data abort at EL1.
    pub const DATA_ABORT: u64 = 0x25;
    /// SP alignment fault.
    pub const SP_ALIGNMENT: u64 = 0x26;
    /// Hardware breakpoint from EL0.
    pub const BREAKPOINT_LOWER: u64 = 0x30;
    /// Software step from EL0.
    pub const SOFTWARE_STEP_LOWER: u64 = 0x32;
    /// Watchpoint from EL0.
    pub const WATCHPOINT_LOWER: u64 = 0x34;
    /// BRK in AArch64 state.
    pub const BRK: u64 = 0x3c;
}

/// SPSR for EL0 with all interrupts masked.
pub const EL0: u64 = 0x3c0;
/// SPSR for EL1 on its own stack pointer, all masked.
pub const EL1H: u64 = 0x3c5;
/// SPSR_EL1.SS.
pub const SS: u64 = 1 << 21;
/// SPSR_EL1.IL.
pub const IL: u64 = 1 << 20;
/// The immediate of the SVC by which EL0 code ends.
pub const LEAVE: u64 = 0xff;

/// The interrupted context. Its layout is that of `save_frame` in `boot.rs`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// X0 to X30.
    pub x: [u64; 31],
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// Number of the vector, 0 to 15.
    pub vector: u64,
}

const _: () = assert!(size_of::<Frame>() == 288, "boot.rs reserves so much");

unsafe extern "C" {
    fn leave_el0();
    /// Runs code at EL0 until its `svc #0xff` and returns its x0. Call [`Frame::leave_el0`] for it.
    pub safe fn enter_el0(entry: u64, argument: u64, spsr: u64, stack: u64) -> u64;
}

impl Frame {
    /// ESR_EL1.EC.
    #[must_use]
    pub fn class(&self) -> u64 {
        self.esr >> 26
    }

    /// Whether this came through an IRQ vector.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        self.vector % 4 == 1
    }

    /// The immediate of an SVC or BRK.
    #[must_use]
    pub fn immediate(&self) -> u64 {
        self.esr & 0xffff
    }

    /// Whether EL0 code asks to end.
    #[must_use]
    pub fn wants_to_leave(&self) -> bool {
        self.vector == 8 && self.class() == class::SVC && self.immediate() == LEAVE
    }

    /// Makes this exception return to the caller of [`enter_el0`].
    pub fn leave_el0(&mut self) {
        self.elr = leave_el0 as *const () as u64;
        self.spsr = EL1H;
    }
}

/// Ends the guest: for those that expect no exception. The line tells where and what it was.
pub fn unexpected(frame: &mut Frame) {
    report::line("guest: FAIL unexpected exception: vector, ESR, ELR, FAR, SPSR");
    for value in [frame.vector, frame.esr, frame.elr, frame.far, frame.spsr] {
        report::number(value);
        report::line("");
    }
    psci::system_off();
}
