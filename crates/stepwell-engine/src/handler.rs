//! Stepping *over* an interrupt: recognising that its handler has returned.
//!
//! The handler runs at full speed with a breakpoint where it was entered from. Reaching that PC is
//! not enough: another task may run the same code. What identifies the interrupted context is its
//! PC, its exception level and stack pointer selection, and the stack pointer itself, which no two
//! live contexts of one exception level share.

use stepwell_arch::{Pstate, Va};

/// TTBR0_EL1.BADDR. The ASID beside it may be given to another process meanwhile, and CnP be set.
const BADDR: u64 = 0x0000_ffff_ffff_fffe;

/// What was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterruptedContext {
    /// The instruction that has not executed yet.
    pub pc: Va,
    /// Exception level and stack pointer selection, PSTATE.M.
    pub mode: u64,
    /// The stack pointer in use.
    pub sp: u64,
    /// The base address in TTBR0_EL1 for an EL0 context: two processes may share a stack address.
    /// Else 0.
    pub table: u64,
}

impl InterruptedContext {
    /// Takes down what is about to be interrupted.
    #[must_use]
    pub fn new(pc: Va, pstate: Pstate, sp: u64, ttbr0: u64) -> Self {
        let table = if pstate.el() == 0 { ttbr0 & BADDR } else { 0 };
        Self { pc, mode: pstate.0 & Pstate::M_MASK, sp, table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: Va = Va(0xffff_8000_0801_0000);
    const KERNEL: Pstate = Pstate(Pstate::M_EL1H);
    const USER: Pstate = Pstate(Pstate::M_EL0T);

    #[test]
    fn the_interrupted_code_is_recognised_when_it_resumes() {
        let interrupted = InterruptedContext::new(PC, KERNEL, 0x1000, 0xaaaa);
        assert_eq!(InterruptedContext::new(PC, KERNEL, 0x1000, 0xaaaa), interrupted);
    }

    #[test]
    fn flags_and_masks_may_differ_on_return() {
        // The handler may have written SPSR_EL1: what identifies the context is its mode.
        let flags = Pstate(KERNEL.0 | Pstate::NZCV | Pstate::DAIF | Pstate::SS | Pstate::PAN);
        let interrupted = InterruptedContext::new(PC, KERNEL, 0x1000, 0);
        assert_eq!(InterruptedContext::new(PC, flags, 0x1000, 0), interrupted);
    }

    #[test]
    fn another_task_at_the_same_code_is_another_context() {
        let interrupted = InterruptedContext::new(PC, KERNEL, 0x1000, 0);
        assert_ne!(InterruptedContext::new(PC, KERNEL, 0x3000, 0), interrupted, "its stack");
        assert_ne!(InterruptedContext::new(Va(PC.0 + 4), KERNEL, 0x1000, 0), interrupted, "its PC");
        let thread = Pstate(Pstate::M_EL1T);
        assert_ne!(InterruptedContext::new(PC, thread, 0x1000, 0), interrupted, "its SPSel");
        assert_ne!(InterruptedContext::new(PC, USER, 0x1000, 0), interrupted, "its level");
    }

    #[test]
    fn two_processes_may_share_a_stack_address() {
        let interrupted = InterruptedContext::new(PC, USER, 0x7fff_f000, 0xaaaa_0000);
        assert_ne!(InterruptedContext::new(PC, USER, 0x7fff_f000, 0xbbbb_0000), interrupted);
    }

    #[test]
    fn the_kernel_is_recognised_whatever_process_is_current() {
        // A handler may leave another TTBR0_EL1 behind: the kernel's own stacks are unique.
        let interrupted = InterruptedContext::new(PC, KERNEL, 0x1000, 0xaaaa_0000);
        assert_eq!(InterruptedContext::new(PC, KERNEL, 0x1000, 0xbbbb_0000), interrupted);
    }

    #[test]
    fn a_process_is_known_by_its_table_and_not_by_its_asid() {
        let interrupted = InterruptedContext::new(PC, USER, 0x1000, 0x0007_0000_4000_0000);
        let renamed = InterruptedContext::new(PC, USER, 0x1000, 0x0009_0000_4000_0001);
        assert_eq!(renamed, interrupted);
    }
}
