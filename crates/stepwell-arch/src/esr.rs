//! Exception syndromes: what ESR_EL2 says about an exit, and the ESR_EL1 values that we inject.
//!
//! [`EsrEl2`] is the raw register; one of the views ([`DataAbortIss`], [`StepIss`], …) gives its
//! ISS a meaning once the exception class is known. The views never check the class themselves:
//! the exit path has just matched on it, and several classes share one ISS layout.
//!
//! Deliberately absent: the ISS layout of LDC and STC beyond what all coprocessor transfers share.

use core::fmt;

use crate::SystemRegister;
use crate::aarch32::Transfer;
use crate::bit_field::{bit, field};
pub use crate::esr_el1::{EsrEl1, Origin};

/// ESR_EL2 as the exit path reads it.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, Exception Syndrome Register (EL2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EsrEl2(pub u64);

impl EsrEl2 {
    /// Exception class, bits 31:26: one of the constants of [`ec`], or a newer one.
    #[must_use]
    pub const fn ec(self) -> u8 {
        field(self.0, 31, 26) as u8
    }

    /// Instruction length, bit 25: true for 32 bits, false for a 16-bit T32 instruction.
    #[must_use]
    pub const fn il(self) -> bool {
        bit(self.0, 25)
    }

    /// Length in bytes of the instruction that trapped, to advance ELR by after emulating it.
    #[must_use]
    pub const fn instruction_bytes(self) -> u64 {
        if self.il() { 4 } else { 2 }
    }

    /// Instruction-specific syndrome, bits 24:0.
    #[must_use]
    pub const fn iss(self) -> u32 {
        field(self.0, 24, 0) as u32
    }

    /// Second instruction-specific syndrome, bits 55:32 (zero before FEAT_LS64 and its followers).
    #[must_use]
    pub const fn iss2(self) -> u32 {
        field(self.0, 55, 32) as u32
    }

    /// ISS of a data abort.
    #[must_use]
    pub const fn data_abort(self) -> DataAbortIss {
        DataAbortIss(self.iss())
    }

    /// ISS of an instruction abort.
    #[must_use]
    pub const fn instruction_abort(self) -> InstructionAbortIss {
        InstructionAbortIss(self.iss())
    }

    /// ISS of a trapped MSR, MRS or System instruction ([`ec::SYSTEM_REGISTER`]).
    #[must_use]
    pub const fn system_register(self) -> SystemRegisterIss {
        SystemRegisterIss(self.iss())
    }

    /// ISS of a trapped AArch32 MCR, MRC, MCRR or MRRC.
    #[must_use]
    pub const fn coprocessor(self) -> CoprocessorIss {
        CoprocessorIss(self.iss())
    }

    /// ISS of a trapped WFI, WFE, WFIT or WFET.
    #[must_use]
    pub const fn wfx(self) -> WfxIss {
        WfxIss(self.iss())
    }

    /// ISS of an SVC, HVC, SMC or BRK.
    #[must_use]
    pub const fn call(self) -> CallIss {
        CallIss(self.iss())
    }

    /// ISS of a Software Step exception.
    #[must_use]
    pub const fn step(self) -> StepIss {
        StepIss(self.iss())
    }

    /// ISS of an SError.
    #[must_use]
    pub const fn serror(self) -> SErrorIss {
        SErrorIss(self.iss())
    }

    /// ISS of a Watchpoint exception.
    #[must_use]
    pub const fn watchpoint(self) -> WatchpointIss {
        WatchpointIss(self.iss())
    }
}

impl fmt::Display for EsrEl2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({}, ISS {:#x})", self.0, ec::name(self.ec()), self.iss())
    }
}

/// Exception classes.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, Exception Syndrome Register (EL2), field EC.
pub mod ec {
    macro_rules! classes {
        ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
            $($(#[$doc])* pub const $name: u8 = $value;)*

            /// Names the class in a few words, for logs and stop messages.
            #[must_use]
            pub const fn name(class: u8) -> &'static str {
                match class {
                    $($name => $text,)*
                    _ => "reserved exception class",
                }
            }

            #[cfg(test)]
            pub(super) const ALL: &[u8] = &[$($name),*];
        };
    }

    classes! {
        /// Undefined instruction, or a cause that has no class of its own.
        UNKNOWN = 0x00, "unknown reason";
        /// Trapped WFI, WFE, WFIT or WFET.
        WFX = 0x01, "trapped WFI or WFE";
        /// Trapped AArch32 MCR or MRC, coprocessor 15.
        CP15_MCR_MRC = 0x03, "trapped AArch32 MCR/MRC (cp15)";
        /// Trapped AArch32 MCRR or MRRC, coprocessor 15.
        CP15_MCRR_MRRC = 0x04, "trapped AArch32 MCRR/MRRC (cp15)";
        /// Trapped AArch32 MCR or MRC, coprocessor 14.
        CP14_MCR_MRC = 0x05, "trapped AArch32 MCR/MRC (cp14)";
        /// Trapped AArch32 LDC or STC, coprocessor 14.
        CP14_LDC_STC = 0x06, "trapped AArch32 LDC/STC (cp14)";
        /// Trapped Advanced SIMD, floating-point or SVE access.
        FP = 0x07, "trapped FP/SIMD access";
        /// Trapped AArch32 VMRS of an identification register.
        FP_ID = 0x08, "trapped AArch32 VMRS";
        /// Trapped pointer-authentication instruction.
        PAUTH = 0x09, "trapped pointer authentication";
        /// Trapped LD64B or ST64B, or another instruction without a class of its own.
        LS64 = 0x0a, "trapped LD64B/ST64B";
        /// Trapped AArch32 MRRC, coprocessor 14.
        CP14_MRRC = 0x0c, "trapped AArch32 MRRC (cp14)";
        /// Branch Target exception.
        BRANCH_TARGET = 0x0d, "branch target";
        /// Illegal Execution state: PSTATE.IL was 1.
        ILLEGAL_STATE = 0x0e, "illegal execution state";
        /// AArch32 SVC.
        SVC32 = 0x11, "AArch32 SVC";
        /// AArch32 HVC.
        HVC32 = 0x12, "AArch32 HVC";
        /// AArch32 SMC.
        SMC32 = 0x13, "AArch32 SMC";
        /// Trapped 128-bit MSRR, MRRS or SYSP.
        SYSTEM_REGISTER_128 = 0x14, "trapped 128-bit system register";
        /// AArch64 SVC.
        SVC64 = 0x15, "SVC";
        /// AArch64 HVC.
        HVC64 = 0x16, "HVC";
        /// AArch64 SMC, trapped by HCR_EL2.TSC.
        SMC64 = 0x17, "SMC";
        /// Trapped MSR, MRS or System instruction in AArch64.
        SYSTEM_REGISTER = 0x18, "trapped system register";
        /// Trapped SVE access.
        SVE = 0x19, "trapped SVE access";
        /// Trapped ERET, ERETAA or ERETAB.
        ERET = 0x1a, "trapped ERET";
        /// TSTART, FEAT_TME.
        TSTART = 0x1b, "TSTART";
        /// Pointer Authentication instruction authentication failure, FEAT_FPAC.
        PAUTH_FAIL = 0x1c, "pointer authentication failure";
        /// Trapped SME access.
        SME = 0x1d, "trapped SME access";
        /// Instruction Abort from a lower Exception level.
        IABT_LOWER = 0x20, "instruction abort";
        /// Instruction Abort taken without a change in Exception level.
        IABT_SAME = 0x21, "instruction abort (same EL)";
        /// PC alignment fault.
        PC_ALIGNMENT = 0x22, "PC alignment fault";
        /// Data Abort from a lower Exception level.
        DABT_LOWER = 0x24, "data abort";
        /// Data Abort taken without a change in Exception level.
        DABT_SAME = 0x25, "data abort (same EL)";
        /// SP alignment fault.
        SP_ALIGNMENT = 0x26, "SP alignment fault";
        /// Memory Operation exception, FEAT_MOPS.
        MOPS = 0x27, "memory operation";
        /// Trapped floating-point exception, AArch32.
        FP_EXCEPTION32 = 0x28, "AArch32 floating-point exception";
        /// Trapped floating-point exception, AArch64.
        FP_EXCEPTION64 = 0x2c, "floating-point exception";
        /// Guarded Control Stack exception, FEAT_GCS.
        GCS = 0x2d, "guarded control stack";
        /// SError.
        SERROR = 0x2f, "SError";
        /// Breakpoint exception from a lower Exception level.
        BREAKPOINT_LOWER = 0x30, "breakpoint";
        /// Breakpoint exception taken without a change in Exception level.
        BREAKPOINT_SAME = 0x31, "breakpoint (same EL)";
        /// Software Step exception from a lower Exception level.
        SOFTWARE_STEP_LOWER = 0x32, "software step";
        /// Software Step exception taken without a change in Exception level.
        SOFTWARE_STEP_SAME = 0x33, "software step (same EL)";
        /// Watchpoint exception from a lower Exception level.
        WATCHPOINT_LOWER = 0x34, "watchpoint";
        /// Watchpoint exception taken without a change in Exception level.
        WATCHPOINT_SAME = 0x35, "watchpoint (same EL)";
        /// AArch32 BKPT.
        BKPT32 = 0x38, "AArch32 BKPT";
        /// AArch32 Vector Catch.
        VECTOR_CATCH32 = 0x3a, "AArch32 vector catch";
        /// AArch64 BRK.
        BRK64 = 0x3c, "BRK";
        /// PMU Profiling exception, FEAT_EBEP.
        PMU = 0x3d, "PMU profiling";
    }
}

/// Fault status code: DFSC or IFSC, six bits.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from a Data Abort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultStatus(pub u8);

impl FaultStatus {
    /// Synchronous External abort, not on a translation table walk.
    pub const EXTERNAL: Self = Self(0x10);
    /// Synchronous Tag Check Fault.
    pub const TAG_CHECK: Self = Self(0x11);
    /// Synchronous External abort on the table walk, level -1 (FEAT_LPA2).
    pub const EXTERNAL_ABOVE: Self = Self(0x13);
    /// Address size fault, level -1.
    pub const ADDRESS_SIZE_ABOVE: Self = Self(0x29);
    /// Translation fault, level -1.
    pub const TRANSLATION_ABOVE: Self = Self(0x2b);
    /// Alignment fault.
    pub const ALIGNMENT: Self = Self(0x21);
    /// Debug exception: the fixed value in breakpoint, watchpoint and step syndromes.
    pub const DEBUG: Self = Self(0x22);
    /// TLB conflict abort.
    pub const TLB_CONFLICT: Self = Self(0x30);
    /// IMPLEMENTATION DEFINED: an exclusive or atomic access that the memory does not support.
    pub const UNSUPPORTED_EXCLUSIVE: Self = Self(0x35);

    /// PAR_EL1 behind an address translation instruction that has found it.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, PAR_EL1, Physical Address Register, when the translation failed.
    #[must_use]
    pub const fn in_par_el1(self) -> u64 {
        const F: u64 = 1;
        const RES1: u64 = 1 << 11;
        F | ((self.0 & 0x3f) as u64) << 1 | RES1
    }

    /// Address size fault at `level`, -1 to 3.
    #[must_use]
    pub const fn address_size(level: i8) -> Self {
        if level < 0 { Self::ADDRESS_SIZE_ABOVE } else { Self(low(level)) }
    }

    /// Translation fault at `level`, -1 to 3.
    #[must_use]
    pub const fn translation(level: i8) -> Self {
        if level < 0 { Self::TRANSLATION_ABOVE } else { Self(0x04 | low(level)) }
    }

    /// Access flag fault at `level`.
    #[must_use]
    pub const fn access_flag(level: i8) -> Self {
        Self(0x08 | low(level))
    }

    /// Permission fault at `level`.
    #[must_use]
    pub const fn permission(level: i8) -> Self {
        Self(0x0c | low(level))
    }

    /// Synchronous External abort on the table walk, at `level`, -1 to 3.
    #[must_use]
    pub const fn external_on_walk(level: i8) -> Self {
        if level < 0 { Self::EXTERNAL_ABOVE } else { Self(0x14 | low(level)) }
    }

    /// Tells whether this is a translation fault, at whatever level.
    #[must_use]
    pub const fn is_translation(self) -> bool {
        self.0 & 0x3c == 0x04 || self.0 == Self::TRANSLATION_ABOVE.0
    }

    /// Tells whether this is a permission fault, at whatever level.
    #[must_use]
    pub const fn is_permission(self) -> bool {
        self.0 & 0x3c == 0x0c
    }

    /// Tells whether this is an access flag fault, at whatever level.
    #[must_use]
    pub const fn is_access_flag(self) -> bool {
        self.0 & 0x3c == 0x08
    }

    /// Tells whether this is an address size fault, at whatever level.
    #[must_use]
    pub const fn is_address_size(self) -> bool {
        self.0 & 0x3c == 0x00 || self.0 == Self::ADDRESS_SIZE_ABOVE.0
    }

    /// Level of the table walk that faulted, -1 to 3, where the code has one.
    #[must_use]
    pub const fn level(self) -> Option<i8> {
        match self {
            Self::EXTERNAL_ABOVE | Self::ADDRESS_SIZE_ABOVE | Self::TRANSLATION_ABOVE => Some(-1),
            _ => match self.0 & 0x3f {
                0x00..=0x0f | 0x14..=0x17 | 0x1c..=0x1f => Some((self.0 & 3) as i8),
                _ => None,
            },
        }
    }
}

/// The two bits of a fault status code that tell levels 0 to 3.
const fn low(level: i8) -> u8 {
    level as u8 & 3
}

/// ISS of a Data Abort.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from a Data Abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbortIss(pub u32);

impl DataAbortIss {
    /// Whether [`size`](Self::size), [`sse`](Self::sse), [`srt`](Self::srt), [`sf`](Self::sf) and
    /// [`ar`](Self::ar) are valid (ISV). False for pairs, exclusives, writeback and SIMD.
    #[must_use]
    pub const fn isv(self) -> bool {
        bit(self.0 as u64, 24)
    }

    /// Access size in bytes, 1 to 8, from SAS.
    #[must_use]
    pub const fn size(self) -> u8 {
        1_u8.wrapping_shl(field(self.0 as u64, 23, 22) as u32)
    }

    /// Whether a load sign-extends (SSE).
    #[must_use]
    pub const fn sse(self) -> bool {
        bit(self.0 as u64, 21)
    }

    /// Register transferred (SRT); 31 is the zero register.
    #[must_use]
    pub const fn srt(self) -> u8 {
        field(self.0 as u64, 20, 16) as u8
    }

    /// Whether the register is 64 bits wide (SF).
    #[must_use]
    pub const fn sf(self) -> bool {
        bit(self.0 as u64, 15)
    }

    /// Whether the access has acquire or release semantics (AR).
    #[must_use]
    pub const fn ar(self) -> bool {
        bit(self.0 as u64, 14)
    }

    /// Whether FAR_EL2 is not valid (FnV).
    #[must_use]
    pub const fn fnv(self) -> bool {
        bit(self.0 as u64, 10)
    }

    /// External abort type (EA), IMPLEMENTATION DEFINED.
    #[must_use]
    pub const fn ea(self) -> bool {
        bit(self.0 as u64, 9)
    }

    /// Whether a cache maintenance or address translation instruction faulted (CM).
    #[must_use]
    pub const fn cm(self) -> bool {
        bit(self.0 as u64, 8)
    }

    /// Whether stage 2 faulted on an access made by the stage-1 walk (S1PTW).
    #[must_use]
    pub const fn s1ptw(self) -> bool {
        bit(self.0 as u64, 7)
    }

    /// Whether the access was a write (WnR).
    #[must_use]
    pub const fn wnr(self) -> bool {
        bit(self.0 as u64, 6)
    }

    /// Data fault status code (DFSC).
    #[must_use]
    pub const fn dfsc(self) -> FaultStatus {
        FaultStatus(field(self.0 as u64, 5, 0) as u8)
    }
}

/// ISS of an Instruction Abort.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from an Instruction Abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionAbortIss(pub u32);

impl InstructionAbortIss {
    /// Whether FAR_EL2 is not valid (FnV).
    #[must_use]
    pub const fn fnv(self) -> bool {
        bit(self.0 as u64, 10)
    }

    /// External abort type (EA), IMPLEMENTATION DEFINED.
    #[must_use]
    pub const fn ea(self) -> bool {
        bit(self.0 as u64, 9)
    }

    /// Whether stage 2 faulted on an access made by the stage-1 walk (S1PTW).
    #[must_use]
    pub const fn s1ptw(self) -> bool {
        bit(self.0 as u64, 7)
    }

    /// Instruction fault status code (IFSC).
    #[must_use]
    pub const fn ifsc(self) -> FaultStatus {
        FaultStatus(field(self.0 as u64, 5, 0) as u8)
    }
}

/// ISS of a trapped MSR, MRS or System instruction.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from MSR, MRS, or System
/// instruction execution in AArch64 state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemRegisterIss(pub u32);

impl SystemRegisterIss {
    /// The register, or the System instruction (op0 = 1), that trapped.
    #[must_use]
    pub const fn register(self) -> SystemRegister {
        let iss = self.0 as u64;
        SystemRegister::new(
            field(iss, 21, 20) as u8,
            field(iss, 16, 14) as u8,
            field(iss, 13, 10) as u8,
            field(iss, 4, 1) as u8,
            field(iss, 19, 17) as u8,
        )
    }

    /// General-purpose register transferred (Rt); 31 is the zero register.
    #[must_use]
    pub const fn rt(self) -> u8 {
        field(self.0 as u64, 9, 5) as u8
    }

    /// Whether the instruction reads the system register (Direction).
    #[must_use]
    pub const fn is_read(self) -> bool {
        bit(self.0 as u64, 0)
    }
}

/// ISS of a trapped AArch32 MCR, MRC, MCRR or MRRC.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encodings for an exception from an MCR or MRC access
/// and from an MCRR or MRRC access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoprocessorIss(pub u32);

impl CoprocessorIss {
    /// The instruction's condition (COND), where CV says that the field is valid.
    #[must_use]
    pub const fn condition(self) -> Option<u8> {
        let iss = self.0 as u64;
        if bit(iss, 24) { Some(field(iss, 23, 20) as u8) } else { None }
    }

    /// Operands of MCR and MRC.
    #[must_use]
    pub const fn transfer(self) -> Transfer {
        let iss = self.0 as u64;
        Transfer {
            opc1: field(iss, 16, 14) as u8,
            crn: field(iss, 13, 10) as u8,
            crm: self.crm(),
            opc2: field(iss, 19, 17) as u8,
        }
    }

    /// Opc1 of MCRR and MRRC.
    #[must_use]
    pub const fn opc1_of_pair(self) -> u8 {
        field(self.0 as u64, 19, 16) as u8
    }

    /// CRm.
    #[must_use]
    pub const fn crm(self) -> u8 {
        field(self.0 as u64, 4, 1) as u8
    }

    /// General-purpose register transferred (Rt), as AArch64 numbers it.
    #[must_use]
    pub const fn rt(self) -> u8 {
        field(self.0 as u64, 9, 5) as u8
    }

    /// Second general-purpose register of MCRR and MRRC (Rt2).
    #[must_use]
    pub const fn rt2(self) -> u8 {
        field(self.0 as u64, 14, 10) as u8
    }

    /// Whether the instruction reads the coprocessor's register (Direction).
    #[must_use]
    pub const fn is_read(self) -> bool {
        bit(self.0 as u64, 0)
    }
}

/// Which instruction of the WFI and WFE family trapped (TI).
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from a WF* instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrappedWait {
    /// WFI.
    Wfi,
    /// WFE.
    Wfe,
    /// WFIT, with a time-out register.
    Wfit,
    /// WFET, with a time-out register.
    Wfet,
}

/// ISS of a trapped WFI, WFE, WFIT or WFET.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from a WF* instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WfxIss(pub u32);

impl WfxIss {
    /// Which instruction trapped (TI).
    #[must_use]
    pub const fn ti(self) -> TrappedWait {
        match field(self.0 as u64, 1, 0) {
            0 => TrappedWait::Wfi,
            1 => TrappedWait::Wfe,
            2 => TrappedWait::Wfit,
            _ => TrappedWait::Wfet,
        }
    }

    /// Register that holds the time-out (RN), where RV says that the field is valid.
    #[must_use]
    pub const fn rn(self) -> Option<u8> {
        if bit(self.0 as u64, 2) { Some(field(self.0 as u64, 9, 5) as u8) } else { None }
    }
}

/// ISS of SVC, HVC, SMC and BRK.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from HVC or SVC
/// instruction execution, from SMC instruction execution in AArch64 state, and from a Software
/// Breakpoint instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallIss(pub u32);

impl CallIss {
    /// The instruction's immediate (BRK: its comment).
    #[must_use]
    pub const fn immediate(self) -> u16 {
        field(self.0 as u64, 15, 0) as u16
    }
}

/// ISS of a Software Step exception.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from a Software Step
/// exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepIss(pub u32);

impl StepIss {
    /// Whether [`ex`](Self::ex) is valid (ISV): an instruction was stepped, rather than the guest
    /// having been entered with PSTATE.SS = 0.
    #[must_use]
    pub const fn isv(self) -> bool {
        bit(self.0 as u64, 24)
    }

    /// Whether the stepped instruction was a load-exclusive (EX). Means something only with ISV.
    #[must_use]
    pub const fn ex(self) -> bool {
        bit(self.0 as u64, 6)
    }
}

/// ISS of an SError.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an SError exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SErrorIss(pub u32);

impl SErrorIss {
    /// Whether the rest is the CPU's own business (IDS).
    #[must_use]
    pub const fn ids(self) -> bool {
        bit(self.0 as u64, 24)
    }

    /// What may be done about it (AET). Means something only with [`dfsc`](Self::dfsc) 0x11.
    #[must_use]
    pub const fn aet(self) -> u8 {
        field(self.0 as u64, 12, 10) as u8
    }

    /// Kind of the error (DFSC): 0 uncategorized, 0x11 with an AET.
    #[must_use]
    pub const fn dfsc(self) -> u8 {
        field(self.0 as u64, 5, 0) as u8
    }

    /// Whether the error is uncontainable (AET 0): nobody can tell what it has spoiled.
    #[must_use]
    pub const fn is_uncontainable(self) -> bool {
        !self.ids() && self.dfsc() == 0x11 && self.aet() == 0
    }
}

/// ISS of a Watchpoint exception.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL2, ISS encoding for an exception from a Watchpoint
/// exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchpointIss(pub u32);

impl WatchpointIss {
    /// Whether a cache maintenance instruction hit the watchpoint (CM).
    #[must_use]
    pub const fn cm(self) -> bool {
        bit(self.0 as u64, 8)
    }

    /// Whether the access was a write (WnR).
    #[must_use]
    pub const fn wnr(self) -> bool {
        bit(self.0 as u64, 6)
    }
}

#[cfg(test)]
mod tests;
