//! What QEMU counts of an access to a system register that traps.
//!
//! QEMU counts the instructions of a block when it begins, and takes back those that have not executed
//! where an exception comes from a load or store. Where it comes from an access to a system register, or
//! from SMC, it takes nothing back: everything up to the end of the block has been counted, the access
//! included. Where blocks end is QEMU's choice, but a function of the code, from here on: at a branch, at
//! what changes the CPU's state, at the end of a page. An instruction that is stepped is a block by
//! itself.
//!
//! A block that would go beyond the moment at which the machine is to stop, or at which the guest's timer
//! is due, is cut there. If that is
//! what happened (the counter shows that moment), how much of the block had been left is known where the
//! code before it was straight on from where the guest was entered; else it is taken to have ended
//! there.
//!
//! Not known here: blocks of AArch32 code, in which such accesses are rare (docs/qemu.md).

use crate::cpu::Cpu;
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::operand;
use crate::vcpu::running::Running;
use stepwell_arch::Va;

/// Takes back what has been counted from the instruction at the PC on, which has trapped.
/// `is_stepped`: it is a block by itself.
pub fn uncount<C: Cpu>(running: &mut Running<'_, C>, is_stepped: bool) {
    let Some(timeline) = &running.domain.timeline else { return };
    let rest = if is_stepped { 1 } else { rest_of_block(running) };
    let core = &*running.core;
    let is_cut = core.executed_all;
    let straight = core.context.elr.wrapping_sub(core.entered_at) / 4;
    let counted = match core.executed.checked_sub(straight) {
        Some(counted) if is_cut && (1..=rest).contains(&counted) => counted,
        _ => rest.min(core.executed),
    };
    timeline.lock().uncount(counted);
    running.core.executed -= counted;
}

/// Instructions from the one at the PC to the end of its block.
fn rest_of_block<C: Cpu>(running: &Running<'_, C>) -> u64 {
    let pc = running.core.pc();
    if running.core.pstate().is_aarch32() {
        return 1;
    }
    let Some(page) = operand::code_page(running, pc) else { return 1 };
    let word = |offset| running.domain.ram.instruction(page, Va(offset)).unwrap_or(0);
    let offset = pc.0 % PAGE_BYTES;
    rest((offset..PAGE_BYTES).step_by(4).map(word))
}

/// How many of these words, the first of which has trapped, are in its block: all of them at most.
fn rest(words: impl Iterator<Item = u32>) -> u64 {
    let mut count = 0;
    for word in words {
        count += 1;
        if ends_block(word) {
            break;
        }
    }
    count.max(1)
}

/// Whether QEMU ends a block with an instruction.
const fn ends_block(word: u32) -> bool {
    match word >> 24 {
        // B, BL; CBZ and TBZ with their relatives; B.cond; exceptions; BR, BLR, RET, ERET.
        0x14..=0x17 | 0x94..=0x97 | 0x34..=0x37 | 0xb4..=0xb7 | 0x54 | 0xd4 | 0xd6 | 0xd7 => true,
        0xd5 => ends_block_as_system(word),
        _ => false,
    }
}

/// As [`ends_block`], of the system instructions.
const fn ends_block_as_system(word: u32) -> bool {
    let (is_read, op0, crn) = (word >> 21 & 1 == 1, word >> 19 & 3, word >> 12 & 0xf);
    let (op1, crm, op2) = (word >> 16 & 7, word >> 8 & 0xf, word >> 5 & 7);
    match (op0, crn) {
        // WFET and WFIT.
        (0, 1) => true,
        // YIELD, WFE, WFI among the hints.
        (0, 2) => crm == 0 && matches!(op2, 1..=3),
        // ISB and SB among the barriers.
        (0, 3) => matches!(op2, 6 | 7),
        // MSR (immediate).
        (0, 4) => true,
        // AT; of caches it has none to maintain.
        (1, 7) => matches!(crm, 8 | 9),
        // TLBI.
        (1, 8 | 9) => true,
        // NZCV is a part of the CPU's state that no translation depends on.
        (3, 4) if op1 == 3 && crm == 2 && op2 == 0 => false,
        (2 | 3, _) if !is_read => true,
        // What it reads from a device of its own: the GIC's CPU interface, the PMU, timers, RNDR.
        (3, 12) => op1 == 0 && crm >= 8,
        (3, 4) => op1 == 0 && crm == 6,
        (3, 2) => op1 == 3 && crm == 4,
        (3, 9 | 14) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MRS_ID_AA64PFR0: u32 = 0xd538_0408;
    const NOP: u32 = 0xd503_201f;
    const RET: u32 = 0xd65f_03c0;

    #[test]
    fn blocks_end_where_qemu_ends_them() {
        let ends = [
            (0x1400_0000, "b"),
            (0x9400_0006, "bl"),
            (0x5400_0001, "b.ne"),
            (0xb5ff_ffe2, "cbnz"),
            (0x3600_0000, "tbz"),
            (0xd61f_0000, "br"),
            (RET, "ret"),
            (0xd69f_03e0, "eret"),
            (0xd400_0001, "svc"),
            (0xd420_0000, "brk"),
            (0xd503_3fdf, "isb"),
            (0xd503_30ff, "sb"),
            (0xd503_207f, "wfi"),
            (0xd503_42ff, "msr daifclr"),
            (0xd510_00e9, "msr dbgwcr0_el1"),
            (0xd51b_4225, "msr daif"),
            (0xd51b_4405, "msr fpcr"),
            (0xd51c_1100, "msr hcr_el2"),
            (0xd53b_e04e, "mrs cntvct_el0"),
            (0xd538_cc00, "mrs icc_iar1_el1"),
            (0xd538_4600, "mrs icc_pmr_el1"),
            (0xd53b_2400, "mrs rndr"),
            (0xd508_871f, "tlbi vmalle1"),
            (0xd508_7800, "at s1e1r"),
        ];
        for (word, name) in ends {
            assert!(ends_block(word), "{name}");
        }
        let goes_on = [
            (NOP, "nop"),
            (MRS_ID_AA64PFR0, "mrs id_aa64pfr0_el1"),
            (0xd530_00e3, "mrs dbgwcr0_el1"),
            (0xd538_4021, "mrs elr_el1"),
            (0xd51b_4205, "msr nzcv"),
            (0xd53b_420a, "mrs nzcv"),
            (0xd503_3bbf, "dmb ish"),
            (0xd503_3f5f, "clrex"),
            (0xd50b_7420, "dc zva"),
            (0xd50b_7520, "ic ivau"),
            (0xc85f_7c00, "ldxr"),
            (0x9100_0000, "add"),
            (0xa9bf_7bfd, "stp"),
            (0xf940_0000, "ldr"),
        ];
        for (word, name) in goes_on {
            assert!(!ends_block(word), "{name}");
        }
    }

    #[test]
    fn the_rest_of_a_block_has_its_last_instruction_and_ends_with_the_page() {
        assert_eq!(rest([MRS_ID_AA64PFR0, NOP, RET, NOP].into_iter()), 3);
        assert_eq!(rest([MRS_ID_AA64PFR0, NOP].into_iter()), 2);
        assert_eq!(rest([0xd510_00e9, NOP, RET].into_iter()), 1, "what has trapped may end it");
        assert_eq!(rest([].into_iter()), 1);
    }
}
