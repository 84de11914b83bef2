//! ESR_EL1 values: the syndromes of the exceptions that we inject into a guest.
//!
//! Constructors only: a guest that is being injected an exception must read exactly what hardware
//! would have written, so each one fixes every bit, IL included. IL is 1 throughout, because all
//! of these are either defined so or come from a 32-bit instruction (AArch32 guests are refused).

use core::fmt;

use crate::SystemRegister;
use crate::esr::{FaultStatus, ec};

/// Where an exception taken to EL1 comes from; it selects the lower- or same-EL class.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL1, Exception Syndrome Register (EL1), field EC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// EL0.
    LowerEl,
    /// EL1 itself.
    SameEl,
}

/// ESR_EL1 as the guest reads it in its handler.
///
/// Source: Arm ARM, DDI 0487 L.b, ESR_EL1, Exception Syndrome Register (EL1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EsrEl1(pub u64);

/// IL: the instruction has 4 bytes.
const IL: u64 = 1 << 25;
/// ISV, bit 24 of a Software Step syndrome.
const ISS_ISV: u32 = 1 << 24;
/// CM, bit 8 of data abort and watchpoint syndromes.
const ISS_CM: u32 = 1 << 8;
/// WnR, bit 6 of data abort and watchpoint syndromes.
const ISS_WNR: u32 = 1 << 6;
/// EX, bit 6 of a Software Step syndrome.
const ISS_EX: u32 = 1 << 6;

impl EsrEl1 {
    /// Builds a syndrome from an exception class and an ISS, with IL = 1.
    #[must_use]
    pub const fn new(class: u8, iss: u32) -> Self {
        Self(((class & 0x3f) as u64) << 26 | IL | (iss & 0x01ff_ffff) as u64)
    }

    /// Undefined instruction: class 0, ISS 0.
    #[must_use]
    pub const fn undefined() -> Self {
        Self::new(ec::UNKNOWN, 0)
    }

    /// Illegal Execution state.
    #[must_use]
    pub const fn illegal_state() -> Self {
        Self::new(ec::ILLEGAL_STATE, 0)
    }

    /// PC alignment fault.
    #[must_use]
    pub const fn pc_alignment() -> Self {
        Self::new(ec::PC_ALIGNMENT, 0)
    }

    /// SP alignment fault.
    #[must_use]
    pub const fn sp_alignment() -> Self {
        Self::new(ec::SP_ALIGNMENT, 0)
    }

    /// Trapped WFI of `bytes` bytes: CV 1, COND 0b1110, TI 0b00.
    #[must_use]
    pub const fn wfi(bytes: u64) -> Self {
        let Self(syndrome) = Self::new(ec::WFX, 1 << 24 | 0b1110 << 20);
        Self(if bytes == 2 { syndrome & !IL } else { syndrome })
    }

    /// Trapped WFIT with its time-out in register `rt`: CV 1, COND 0b1110, RN, RV 1, TI 0b10.
    #[must_use]
    pub const fn wfit(rt: u8) -> Self {
        let rn = ((rt & 0x1f) as u32) << 5;
        Self::new(ec::WFX, 1 << 24 | 0b1110 << 20 | rn | 1 << 2 | 0b10)
    }

    /// SVC with its immediate.
    #[must_use]
    pub const fn svc(immediate: u16) -> Self {
        Self::new(ec::SVC64, immediate as u32)
    }

    /// BRK with its comment; the class is the same from EL0 and EL1.
    #[must_use]
    pub const fn brk(comment: u16) -> Self {
        Self::new(ec::BRK64, comment as u32)
    }

    /// Trapped MSR, MRS or System instruction.
    #[must_use]
    pub const fn system_register(register: SystemRegister, rt: u8, is_read: bool) -> Self {
        let iss = (register.op0() as u32) << 20
            | (register.op2() as u32) << 17
            | (register.op1() as u32) << 14
            | (register.crn() as u32) << 10
            | ((rt & 0x1f) as u32) << 5
            | (register.crm() as u32) << 1
            | is_read as u32;
        Self::new(ec::SYSTEM_REGISTER, iss)
    }

    /// Software Step; `ex` means something only with `isv`, and is dropped without.
    #[must_use]
    pub const fn software_step(origin: Origin, isv: bool, ex: bool) -> Self {
        let class = pick(origin, ec::SOFTWARE_STEP_LOWER, ec::SOFTWARE_STEP_SAME);
        let valid = if isv { ISS_ISV } else { 0 };
        let exclusive = if isv && ex { ISS_EX } else { 0 };
        Self::new(class, valid | exclusive | FaultStatus::DEBUG.0 as u32)
    }

    /// SError; the ISS is what VSESR_EL2 would have given it.
    #[must_use]
    pub const fn serror(iss: u32) -> Self {
        Self::new(ec::SERROR, iss)
    }

    /// Breakpoint exception from DBGBVR/DBGBCR.
    #[must_use]
    pub const fn breakpoint(origin: Origin) -> Self {
        let class = pick(origin, ec::BREAKPOINT_LOWER, ec::BREAKPOINT_SAME);
        Self::new(class, FaultStatus::DEBUG.0 as u32)
    }

    /// Watchpoint exception; `cm` for a cache maintenance instruction, `wnr` for a write.
    #[must_use]
    pub const fn watchpoint(origin: Origin, cm: bool, wnr: bool) -> Self {
        let class = pick(origin, ec::WATCHPOINT_LOWER, ec::WATCHPOINT_SAME);
        Self::new(class, access(cm, wnr) | FaultStatus::DEBUG.0 as u32)
    }

    /// Data Abort, with ISV = 0 as every abort taken to EL1 has it. FAR_EL1 must be set too.
    #[must_use]
    pub const fn data_abort(origin: Origin, status: FaultStatus, cm: bool, wnr: bool) -> Self {
        let class = pick(origin, ec::DABT_LOWER, ec::DABT_SAME);
        Self::new(class, access(cm, wnr) | (status.0 & 0x3f) as u32)
    }

    /// Instruction Abort. FAR_EL1 must be set too.
    #[must_use]
    pub const fn instruction_abort(origin: Origin, status: FaultStatus) -> Self {
        let class = pick(origin, ec::IABT_LOWER, ec::IABT_SAME);
        Self::new(class, (status.0 & 0x3f) as u32)
    }

    /// Synchronous External abort on a data access: what an access to nothing gets.
    #[must_use]
    pub const fn external_data_abort(origin: Origin, wnr: bool) -> Self {
        Self::data_abort(origin, FaultStatus::EXTERNAL, false, wnr)
    }

    /// Synchronous External abort on an instruction fetch.
    #[must_use]
    pub const fn external_instruction_abort(origin: Origin) -> Self {
        Self::instruction_abort(origin, FaultStatus::EXTERNAL)
    }
}

impl fmt::Display for EsrEl1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&crate::EsrEl2(self.0), f)
    }
}

const fn pick(origin: Origin, lower: u8, same: u8) -> u8 {
    match origin {
        Origin::LowerEl => lower,
        Origin::SameEl => same,
    }
}

const fn access(cm: bool, wnr: bool) -> u32 {
    (if cm { ISS_CM } else { 0 }) | (if wnr { ISS_WNR } else { 0 })
}
