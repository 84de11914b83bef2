//! AArch32 as EL0 of a 64-bit kernel has it: which of the two instruction sets executes, how long
//! an instruction is, whether its condition holds, and the few that Stepwell must recognise.
//!
//! [`a32`] and [`t32`] decode their words; both come to the same [`Instruction`], since the sets
//! differ in encodings and not in what the instructions do. All others are [`Instruction::Other`].
//!
//! Registers R0 to R14 are X0 to X14: User mode has no others. Register 31 stands for none, and
//! reads as zero. What the manual calls UNPREDICTABLE (the PC as an operand, a status register that
//! is also the address) is left to the CPU, whichever of the permitted things it does.
//!
//! Deliberately absent: privileged instructions, which EL0 cannot execute, and everything of
//! AArch32 at EL1, which a guest of ours cannot enter (HCR_EL2.RW is 1).
//!
//! Source: Arm ARM, DDI 0487 L.b, "The AArch32 Application Level Programmers' Model", "T32
//! Instruction Set Encoding" and "A32 Instruction Set Encoding".

pub mod a32;
pub mod t32;

use crate::SystemRegister;
use crate::bit_field::{bit, field, with_field};
use crate::generic_timer;
use crate::pstate::Pstate;

/// An instruction set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// A64: AArch64 state, 4 bytes each.
    #[default]
    A64,
    /// A32: AArch32 state with T clear, 4 bytes each.
    A32,
    /// T32: AArch32 state with T set, 2 or 4 bytes each.
    T32,
}

impl InstructionSet {
    /// The one that executes in a state.
    #[must_use]
    pub const fn of(pstate: Pstate) -> Self {
        match (pstate.is_aarch32(), pstate.0 & Pstate::T != 0) {
            (false, _) => Self::A64,
            (true, false) => Self::A32,
            (true, true) => Self::T32,
        }
    }
}

/// Condition that always holds.
pub const ALWAYS: u8 = 0b1110;

/// A decoded A32 or T32 instruction. Register number 31 stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// LDREX, LDREXB, LDREXH, LDREXD and the acquiring forms LDAEX….
    LoadExclusive {
        /// Bytes for each register: 1, 2 or 4.
        bytes: u8,
        /// Two registers are loaded (LDREXD).
        pair: bool,
        /// Base register, 0 to 14.
        rn: u8,
        /// Added to it, 0 to 1020 bytes; always 0 but for T32's LDREX.
        offset: u16,
        /// Register loaded.
        rt: u8,
        /// Second register loaded; 31 without `pair`.
        rt2: u8,
    },
    /// STREX, STREXB, STREXH, STREXD and the releasing forms STLEX….
    StoreExclusive {
        /// Bytes for each register: 1, 2 or 4.
        bytes: u8,
        /// Two registers are stored (STREXD).
        pair: bool,
        /// Base register, 0 to 14.
        rn: u8,
        /// Added to it, 0 to 1020 bytes; always 0 but for T32's STREX.
        offset: u16,
        /// Register that receives the status: 0 stored, 1 failed.
        rd: u8,
        /// Register stored.
        rt: u8,
        /// Second register stored; 31 without `pair`.
        rt2: u8,
    },
    /// CLREX.
    ClearExclusive,
    /// WFI.
    Wfi,
    /// WFE.
    Wfe,
    /// ESB, the error synchronization barrier.
    Esb,
    /// SVC.
    Svc,
    /// MRC or MRRC of a counter or timer.
    ReadTimer {
        /// The register of AArch64 that is the same.
        register: SystemRegister,
        /// Destination, 0 to 14; of MRRC the low half's.
        rt: u8,
        /// Destination of MRRC's high half.
        rt2: Option<u8>,
    },
    /// MCR or MCRR of a timer.
    WriteTimer {
        /// The register of AArch64 that is the same.
        register: SystemRegister,
        /// Source, 0 to 14; of MCRR the low half's.
        rt: u8,
        /// Source of MCRR's high half.
        rt2: Option<u8>,
    },
    /// Anything else.
    Other,
}

/// An instruction as it was found in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub instruction: Instruction,
    /// Its length: 2 or 4.
    pub bytes: u8,
    /// Its condition by itself: A32's field, else [`ALWAYS`]. In an IT block that decides instead.
    pub condition: u8,
}

impl Found {
    /// Decodes what `set` finds in `word`: the four bytes from the PC on. Of a 2-byte instruction
    /// the upper half is not looked at. Nothing for A64.
    #[must_use]
    pub const fn decode(set: InstructionSet, word: u32) -> Option<Self> {
        match set {
            InstructionSet::A64 => None,
            InstructionSet::A32 => Some(a32::decode(word)),
            InstructionSet::T32 => {
                let [low, high] = [word as u16, (word >> 16) as u16];
                Some(t32::decode(low, high))
            }
        }
    }

    /// Tells whether it does anything in this state: a failed condition makes it a NOP.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Conditional execution"; shared pseudocode `ConditionPassed`
    /// and `AArch32.CurrentCond`.
    #[must_use]
    pub const fn executes(self, pstate: Pstate) -> bool {
        let it = it_state(pstate);
        let is_in_it_block = it & 0xf != 0 && pstate.0 & Pstate::T != 0;
        let condition = if is_in_it_block { it >> 4 } else { self.condition };
        condition_holds(condition, pstate)
    }
}

/// Tells whether what `set` finds in `word` is a call: BL or BLX.
#[must_use]
pub const fn is_call(set: InstructionSet, word: u32) -> bool {
    match set {
        InstructionSet::A64 => crate::Instruction::decode(word).is_call(),
        InstructionSet::A32 => a32::is_call(word),
        InstructionSet::T32 => t32::is_call(word as u16, (word >> 16) as u16),
    }
}

/// Tells whether a condition, 0 to 15, holds for the flags.
///
/// Source: Arm ARM, DDI 0487 L.b, shared pseudocode `ConditionHolds`.
#[must_use]
pub const fn condition_holds(condition: u8, pstate: Pstate) -> bool {
    let n = pstate.0 & Pstate::N != 0;
    let z = pstate.0 & Pstate::Z != 0;
    let c = pstate.0 & Pstate::C != 0;
    let v = pstate.0 & Pstate::V != 0;
    let holds = match condition >> 1 & 7 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    holds != (condition & 1 != 0)
}

/// The IT state, ITSTATE\[7:0\]: 0 outside of an IT block.
///
/// Source: Arm ARM, DDI 0487 L.b, SPSR_EL2, Saved Program Status Register (EL2), field IT.
#[must_use]
pub const fn it_state(pstate: Pstate) -> u8 {
    (field(pstate.0, 15, 10) << 2 | field(pstate.0, 26, 25)) as u8
}

/// PSTATE with another IT state.
#[must_use]
pub const fn with_it_state(pstate: Pstate, it: u8) -> Pstate {
    let high = with_field(pstate.0, 15, 10, it as u64 >> 2);
    Pstate(with_field(high, 26, 25, it as u64))
}

/// PSTATE behind an instruction that was carried out in the CPU's place.
///
/// Source: Arm ARM, DDI 0487 L.b, shared pseudocode `AArch32.ITAdvance`.
#[must_use]
pub const fn it_advance(pstate: Pstate) -> Pstate {
    let it = it_state(pstate);
    let next = if it & 0x7 == 0 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    with_it_state(pstate, next)
}

/// A load- or store-exclusive by its fields, as both sets have them. Nothing where an operand makes
/// it UNPREDICTABLE.
pub(crate) const fn exclusive(access: ExclusiveFields) -> Option<Instruction> {
    let ExclusiveFields { is_load, size, rn, offset, rd, rt, rt2 } = access;
    let (bytes, pair) = match size {
        Size::Byte => (1, false),
        Size::Half => (2, false),
        Size::Word => (4, false),
        Size::Double => (4, true),
    };
    if rn == PC || rt == PC || (pair && rt2 >= PC) {
        return None;
    }
    let rt2 = if pair { rt2 } else { NONE };
    if is_load {
        if pair && rt == rt2 {
            return None;
        }
        return Some(Instruction::LoadExclusive { bytes, pair, rn, offset, rt, rt2 });
    }
    if rd == PC || rd == rn || rd == rt || rd == rt2 {
        return None;
    }
    Some(Instruction::StoreExclusive { bytes, pair, rn, offset, rd, rt, rt2 })
}

/// How much an exclusive transfers.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    Byte,
    Half,
    Word,
    Double,
}

/// Fields of an exclusive.
#[derive(Clone, Copy)]
pub(crate) struct ExclusiveFields {
    pub(crate) is_load: bool,
    pub(crate) size: Size,
    pub(crate) rn: u8,
    pub(crate) offset: u16,
    pub(crate) rd: u8,
    pub(crate) rt: u8,
    pub(crate) rt2: u8,
}

/// The PC as an operand.
const PC: u8 = 15;
/// No register.
const NONE: u8 = 31;

/// Bits 27:0 of a coprocessor transfer: A32's, and T32's with its two halves joined.
pub(crate) const fn coprocessor(word: u32) -> Instruction {
    let wide = word as u64;
    let rt = field(wide, 15, 12) as u8;
    let is_read = bit(wide, 20);
    let (register, rt2) = if word & 0x0f00_0f10 == 0x0e00_0f10 {
        let transfer = Transfer {
            opc1: field(wide, 23, 21) as u8,
            crn: field(wide, 19, 16) as u8,
            crm: field(wide, 3, 0) as u8,
            opc2: field(wide, 7, 5) as u8,
        };
        (transfer.timer(), None)
    } else if word & 0x0fe0_0f00 == 0x0c40_0f00 {
        let rt2 = field(wide, 19, 16) as u8;
        if rt2 == PC || rt2 == rt && is_read {
            return Instruction::Other;
        }
        let (opc1, crm) = (field(wide, 7, 4) as u8, field(wide, 3, 0) as u8);
        (timer_of_pair(opc1, crm), Some(rt2))
    } else {
        return Instruction::Other;
    };
    match register {
        Some(register) if rt != PC && is_read => Instruction::ReadTimer { register, rt, rt2 },
        Some(register) if rt != PC && generic_timer::is_timer(register) => {
            Instruction::WriteTimer { register, rt, rt2 }
        }
        // A counter that is written is undefined.
        _ => Instruction::Other,
    }
}

/// The operands of MCR and MRC that name a register of coprocessor 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// opc1.
    pub opc1: u8,
    /// CRn.
    pub crn: u8,
    /// CRm.
    pub crm: u8,
    /// opc2.
    pub opc2: u8,
}

impl Transfer {
    /// The 32-bit timer register that it names, if it names one. CNTFRQ is a constant and none.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, "Generic Timer registers" of AArch32.
    #[must_use]
    pub const fn timer(self) -> Option<SystemRegister> {
        match (self.opc1, self.crn, self.crm, self.opc2) {
            (0, 14, 2, 0) => Some(SystemRegister::CNTP_TVAL_EL0),
            (0, 14, 2, 1) => Some(SystemRegister::CNTP_CTL_EL0),
            (0, 14, 3, 0) => Some(SystemRegister::CNTV_TVAL_EL0),
            (0, 14, 3, 1) => Some(SystemRegister::CNTV_CTL_EL0),
            _ => None,
        }
    }
}

/// The 64-bit counter or timer register that an MCRR or MRRC of coprocessor 15 names, if it names
/// one.
///
/// Source: Arm ARM, DDI 0487 L.b, "Generic Timer registers" of AArch32.
#[must_use]
pub const fn timer_of_pair(opc1: u8, crm: u8) -> Option<SystemRegister> {
    match (opc1, crm) {
        (0, 14) => Some(SystemRegister::CNTPCT_EL0),
        (1, 14) => Some(SystemRegister::CNTVCT_EL0),
        (2, 14) => Some(SystemRegister::CNTP_CVAL_EL0),
        (3, 14) => Some(SystemRegister::CNTV_CVAL_EL0),
        (8, 14) => Some(SystemRegister::CNTPCTSS_EL0),
        (9, 14) => Some(SystemRegister::CNTVCTSS_EL0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
