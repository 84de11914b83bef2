//! The few A64 instructions that Stepwell must recognise; all others are [`Instruction::Other`].
//!
//! The engine emulates exclusives, counts trapped instructions and steps over calls, so it needs
//! these and nothing else; text for people is made by a full disassembler on the host.
//!
//! **Should-be-one bits are ignored.** An exclusive whose unused Rs or Rt2 field is not 31 is
//! CONSTRAINED UNPREDICTABLE, and every core we know executes it as if it were. The same holds for
//! CONSTRAINED UNPREDICTABLE register overlaps: a store-exclusive with Rs equal to Rt, Rt2 or Rn,
//! and a load-exclusive pair with Rt equal to Rt2, are decoded as written, and it is up to the
//! emulation to pick one of the permitted behaviours.
//!
//! Deliberately absent: the unprivileged exclusives of FEAT_LSUI (LDTXR and relatives), the
//! stack-relative returns of FEAT_PAuth_LR, A32 and T32.
//!
//! Source: Arm ARM, DDI 0487 L.b, A64 instruction set encoding: Loads and Stores, Branches,
//! Exception Generating and System instructions.

use crate::SystemRegister;
use crate::bit_field::{bit, field};
use crate::stage1::{Access, AccessKind};

/// A decoded A64 instruction. Register number 31 is the zero register, except as `rn`, where it
/// is the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// LDXRB, LDXRH, LDXR, LDXP and their acquiring forms LDAX….
    LoadExclusive {
        /// Bytes for each register: 1, 2, 4 or 8.
        bytes: u8,
        /// Whether two registers are transferred.
        pair: bool,
        /// Whether the load acquires.
        acquire: bool,
        /// Base register.
        rn: u8,
        /// Register loaded.
        rt: u8,
        /// Second register loaded; 31 without `pair`.
        rt2: u8,
    },
    /// STXRB, STXRH, STXR, STXP and their releasing forms STLX….
    StoreExclusive {
        /// Bytes for each register: 1, 2, 4 or 8.
        bytes: u8,
        /// Whether two registers are transferred.
        pair: bool,
        /// Whether the store releases.
        release: bool,
        /// Base register.
        rn: u8,
        /// Register that receives the status: 0 stored, 1 failed.
        rs: u8,
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
    /// WFIT.
    Wfit {
        /// Register with the time-out, a CNTVCT value.
        rt: u8,
    },
    /// WFET.
    Wfet {
        /// Register with the time-out, a CNTVCT value.
        rt: u8,
    },
    /// SEV.
    Sev,
    /// SEVL.
    Sevl,
    /// SVC.
    Svc {
        /// The 16-bit immediate.
        immediate: u16,
    },
    /// HVC.
    Hvc {
        /// The 16-bit immediate.
        immediate: u16,
    },
    /// SMC.
    Smc {
        /// The 16-bit immediate.
        immediate: u16,
    },
    /// BRK.
    Brk {
        /// The 16-bit comment.
        immediate: u16,
    },
    /// HLT.
    Hlt {
        /// The 16-bit comment.
        immediate: u16,
    },
    /// ERET, ERETAA or ERETAB.
    Eret,
    /// ISB, with whatever barrier option.
    Isb,
    /// MRS.
    Mrs {
        /// Register read.
        register: SystemRegister,
        /// General-purpose register written.
        rt: u8,
    },
    /// MSR (register).
    Msr {
        /// Register written.
        register: SystemRegister,
        /// General-purpose register read.
        rt: u8,
    },
    /// MSR (immediate): DAIFSet, DAIFClr, SPSel, PAN, ….
    MsrImmediate {
        /// Selects the PSTATE field, with `op2`.
        op1: u8,
        /// Selects the PSTATE field, with `op1`.
        op2: u8,
        /// The 4-bit immediate.
        crm: u8,
    },
    /// SYS or SYSL: TLBI, AT, DC, IC and relatives.
    System {
        /// op1.
        op1: u8,
        /// CRn.
        crn: u8,
        /// CRm.
        crm: u8,
        /// op2.
        op2: u8,
        /// Register given or received; 31 for none.
        rt: u8,
        /// Whether this is SYSL, which writes `rt`.
        read: bool,
    },
    /// BL.
    Bl {
        /// Distance from the instruction itself, in bytes.
        offset: i64,
    },
    /// BLR, BLRAA, BLRAB, BLRAAZ or BLRABZ.
    Blr {
        /// Register with the target.
        rn: u8,
    },
    /// RET, RETAA or RETAB.
    Ret {
        /// Register with the target; 30 for RETAA and RETAB.
        rn: u8,
    },
    /// Anything else.
    Other,
}

impl Instruction {
    /// Decodes an A64 instruction word (instructions are little-endian, whatever SCTLR.EE says).
    #[inline(always)]
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        if Self::is_exclusive_class(word) {
            return Self::decode_exclusive(word);
        }
        match word >> 24 {
            0xd4 => decode_exception(word),
            0xd5 => decode_system(word),
            0xd6 | 0xd7 => decode_branch_register(word),
            0x94..=0x97 => Self::Bl { offset: (((word << 6) as i32) >> 4) as i64 },
            _ => Self::Other,
        }
    }

    /// The access that AT of the stage 1 that EL1 and EL0 have translates for (SYS with op1 0, C7, C8 or
    /// C9), where PSTATE.PAN is `pan`.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, AT S1E1R and relatives.
    #[must_use]
    pub const fn address_translation(word: u32, pan: bool) -> Option<Access> {
        if word & 0xffff_fe00 != 0xd508_7800 {
            return None;
        }
        // op2 and, of those that PAN counts for, CRm 9.
        let (is_write, el0, is_restricted) =
            (word & 1 << 5 != 0, word & 1 << 6 != 0, word & 1 << 8 != 0);
        let kind = if is_write { AccessKind::Write } else { AccessKind::Read };
        Some(Access { kind, el0, pan: is_restricted && pan })
    }

    /// Tells of a word whether it is ESB, the error synchronization barrier.
    #[must_use]
    pub const fn is_esb(word: u32) -> bool {
        word == 0xd503_221f
    }

    /// Tells of a word whether [`Instruction::decode_exclusive`] knows it: loads and stores, exclusive
    /// and relatives, have 0b001000 in bits 29:24.
    #[inline(always)]
    #[must_use]
    pub const fn is_exclusive_class(word: u32) -> bool {
        word & 0x3f00_0000 == 0x0800_0000
    }

    /// As [`Instruction::decode`], of a word of the class of exclusives.
    ///
    /// o2 (bit 23) selects LDAR, STLR, LDLAR, STLLR and CAS; o1 (bit 21) selects pairs, which with
    /// a size below 4 bytes are CASP: none of those is an exclusive.
    #[inline(always)]
    #[must_use]
    pub const fn decode_exclusive(word: u32) -> Self {
        let word = word as u64;
        let size = field(word, 31, 30);
        let pair = bit(word, 21);
        if bit(word, 23) || pair && size < 2 {
            return Self::Other;
        }
        let bytes = 1_u8.wrapping_shl(size as u32);
        let ordered = bit(word, 15);
        let rn = field(word, 9, 5) as u8;
        let rt = field(word, 4, 0) as u8;
        let rt2 = if pair { field(word, 14, 10) as u8 } else { 31 };
        if bit(word, 22) {
            Self::LoadExclusive { bytes, pair, acquire: ordered, rn, rt, rt2 }
        } else {
            let rs = field(word, 20, 16) as u8;
            Self::StoreExclusive { bytes, pair, release: ordered, rn, rs, rt, rt2 }
        }
    }

    /// Tells whether this is a load-exclusive: ISS.EX of its step must be 1.
    #[must_use]
    pub const fn is_load_exclusive(self) -> bool {
        matches!(self, Self::LoadExclusive { .. })
    }

    /// Tells whether the engine must emulate this instruction while stepping.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        matches!(
            self,
            Self::LoadExclusive { .. } | Self::StoreExclusive { .. } | Self::ClearExclusive
        )
    }

    /// Tells whether this is a call, after which execution comes back to the next instruction.
    #[must_use]
    pub const fn is_call(self) -> bool {
        matches!(self, Self::Bl { .. } | Self::Blr { .. })
    }
}

/// Exception generation: bits 31:24 are 0xd4. (DCPS1 to 3 and TCANCEL are not for us.)
const fn decode_exception(word: u32) -> Instruction {
    let immediate = (word >> 5) as u16;
    match word & 0xffe0_001f {
        0xd400_0001 => Instruction::Svc { immediate },
        0xd400_0002 => Instruction::Hvc { immediate },
        0xd400_0003 => Instruction::Smc { immediate },
        0xd420_0000 => Instruction::Brk { immediate },
        0xd440_0000 => Instruction::Hlt { immediate },
        _ => Instruction::Other,
    }
}

/// System instructions: bits 31:24 are 0xd5.
const fn decode_system(word: u32) -> Instruction {
    let rt = word as u8 & 0x1f;
    match word {
        0xd503_205f => return Instruction::Wfe,
        0xd503_207f => return Instruction::Wfi,
        0xd503_209f => return Instruction::Sev,
        0xd503_20bf => return Instruction::Sevl,
        _ => {}
    }
    match word & 0xffff_f0ff {
        0xd503_305f => return Instruction::ClearExclusive,
        0xd503_30df => return Instruction::Isb,
        _ => {}
    }
    match word & 0xffff_ffe0 {
        0xd503_1000 => return Instruction::Wfet { rt },
        0xd503_1020 => return Instruction::Wfit { rt },
        _ => {}
    }
    let operand = SystemRegister((word >> 5) as u16);
    match word & 0xfff0_0000 {
        0xd510_0000 => return Instruction::Msr { register: operand, rt },
        0xd530_0000 => return Instruction::Mrs { register: operand, rt },
        _ => {}
    }
    let (op1, crn, crm, op2) = (operand.op1(), operand.crn(), operand.crm(), operand.op2());
    match word & 0xfff8_0000 {
        0xd508_0000 => Instruction::System { op1, crn, crm, op2, rt, read: false },
        0xd528_0000 => Instruction::System { op1, crn, crm, op2, rt, read: true },
        // CFINV, XAFLAG and AXFLAG live in the same space and are plain instructions.
        0xd500_0000 if crn == 4 && rt == 31 && !(op1 == 0 && op2 < 3) => {
            Instruction::MsrImmediate { op1, op2, crm }
        }
        _ => Instruction::Other,
    }
}

/// Unconditional branch (register): bits 31:25 are 0b1101011.
const fn decode_branch_register(word: u32) -> Instruction {
    let rn = (word >> 5) as u8 & 0x1f;
    match word {
        0xd69f_03e0 | 0xd69f_0bff | 0xd69f_0fff => return Instruction::Eret,
        0xd65f_0bff | 0xd65f_0fff => return Instruction::Ret { rn: 30 },
        _ => {}
    }
    match word & 0xffff_fc1f {
        // BLR, then BLRAAZ and BLRABZ.
        0xd63f_0000 | 0xd63f_081f | 0xd63f_0c1f => return Instruction::Blr { rn },
        0xd65f_0000 => return Instruction::Ret { rn },
        _ => {}
    }
    match word & 0xffff_fc00 {
        // BLRAA and BLRAB.
        0xd73f_0800 | 0xd73f_0c00 => Instruction::Blr { rn },
        _ => Instruction::Other,
    }
}

#[cfg(test)]
mod tests;
