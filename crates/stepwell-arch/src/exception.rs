//! Taking an exception to EL1, as a function of values.
//!
//! The hypervisor injects exceptions (undefined instructions, aborts, the guest's own debug
//! exceptions), and the guest must find itself in its vector exactly as hardware would have put
//! it there. [`take_to_el1`] computes that; the caller writes the registers, and ESR_EL1 and
//! FAR_EL1, which depend on the cause.
//!
//! PSTATE.SS is taken as it is: SPSR_EL1 gets the old state *verbatim*. While Stepwell is
//! stepping, the SS in the live state is ours and not the guest's, so the caller hands in a state
//! whose SS is the guest's own.
//!
//! Source: Arm ARM, DDI 0487 L.b, Exception vectors; shared pseudocode `AArch64.TakeException`; and
//! SCTLR_EL1, System Control Register (EL1).

use crate::Va;
use crate::pstate::Pstate;

/// Kind of exception: the offset within the group of four vector entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionKind {
    /// Synchronous exception, +0x000.
    Synchronous,
    /// IRQ or vIRQ, +0x080.
    Irq,
    /// FIQ or vFIQ, +0x100.
    Fiq,
    /// SError or vSError, +0x180.
    SError,
}

impl ExceptionKind {
    /// Offset of this kind's entry within its group of four.
    #[must_use]
    pub const fn vector_offset(self) -> u64 {
        match self {
            Self::Synchronous => 0x000,
            Self::Irq => 0x080,
            Self::Fiq => 0x100,
            Self::SError => 0x180,
        }
    }
}

/// Features of the vCPU that change what exception entry does to PSTATE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExceptionFeatures {
    /// FEAT_PAN: SCTLR_EL1.SPAN = 0 sets PSTATE.PAN.
    pub pan: bool,
    /// FEAT_SSBS: PSTATE.SSBS becomes SCTLR_EL1.DSSBS.
    pub ssbs: bool,
    /// FEAT_MTE: PSTATE.TCO becomes 1.
    pub mte: bool,
    /// FEAT_NMI: PSTATE.ALLINT becomes the inverse of SCTLR_EL1.SPINTMASK.
    pub nmi: bool,
}

/// What a vCPU was doing when the exception was taken, and where its EL1 wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionSource {
    /// PSTATE, with the guest's own SS (see the module's documentation).
    pub pstate: Pstate,
    /// Preferred return address, which becomes ELR_EL1.
    pub return_address: Va,
    /// VBAR_EL1.
    pub vbar_el1: u64,
    /// SCTLR_EL1, for SPAN, DSSBS and SPINTMASK.
    pub sctlr_el1: u64,
    /// What the vCPU implements.
    pub features: ExceptionFeatures,
}

/// The registers of a vCPU that has just taken an exception to EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenException {
    /// New PC: the vector entry.
    pub pc: Va,
    /// New PSTATE: EL1h, everything masked, SS = 0.
    pub pstate: Pstate,
    /// SPSR_EL1: the old PSTATE, verbatim.
    pub spsr_el1: Pstate,
    /// ELR_EL1: the preferred return address.
    pub elr_el1: Va,
}

/// SCTLR_EL1.SPAN: PSTATE.PAN is left alone on exception entry.
pub const SCTLR_EL1_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: PSTATE.SSBS on exception entry.
pub const SCTLR_EL1_DSSBS: u64 = 1 << 44;
/// SCTLR_EL1.SPINTMASK: PSTATE.ALLINT is cleared on exception entry.
pub const SCTLR_EL1_SPINTMASK: u64 = 1 << 62;

/// Computes a vCPU's registers after taking an exception of `kind` to EL1 from EL0 or EL1.
///
/// Source: Arm ARM, DDI 0487 L.b, shared pseudocode `AArch64.TakeException`, and Exception vectors.
#[must_use]
pub const fn take_to_el1(source: &ExceptionSource, kind: ExceptionKind) -> TakenException {
    let group = vector_group(source.pstate);
    // VBAR_EL1 bits 10:0 are RES0: a guest that sets them gets the hardware's reading of it.
    let base = source.vbar_el1 & !0x7ff;
    TakenException {
        pc: Va(base | group | kind.vector_offset()),
        pstate: pstate_at_el1(source.pstate, source.sctlr_el1, source.features),
        spsr_el1: source.pstate,
        elr_el1: source.return_address,
    }
}

/// Offset of the group of four vector entries for an exception taken to EL1 from `pstate`.
#[must_use]
pub const fn vector_group(pstate: Pstate) -> u64 {
    match (pstate.el(), pstate.is_aarch32(), pstate.uses_sp_elx()) {
        (0, true, _) => 0x600,
        (0, false, _) => 0x400,
        (_, _, true) => 0x200,
        (_, _, false) => 0x000,
    }
}

/// PSTATE after exception entry to EL1. NZCV, DIT and PAN survive; everything that is not named
/// here is AArch32's or RES0 and goes.
const fn pstate_at_el1(old: Pstate, sctlr_el1: u64, features: ExceptionFeatures) -> Pstate {
    let kept = old.0 & (Pstate::NZCV | Pstate::DIT | Pstate::PAN);
    let mut new = Pstate(kept | Pstate::DAIF | Pstate::M_EL1H);
    if features.pan && sctlr_el1 & SCTLR_EL1_SPAN == 0 {
        new = new.with(Pstate::PAN, true);
    }
    if features.ssbs {
        new = new.with(Pstate::SSBS, sctlr_el1 & SCTLR_EL1_DSSBS != 0);
    }
    if features.mte {
        new = new.with(Pstate::TCO, true);
    }
    if features.nmi {
        new = new.with(Pstate::ALLINT, sctlr_el1 & SCTLR_EL1_SPINTMASK == 0);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ExceptionFeatures =
        ExceptionFeatures { pan: true, ssbs: true, mte: true, nmi: true };

    fn source(pstate: u64) -> ExceptionSource {
        ExceptionSource {
            pstate: Pstate(pstate),
            return_address: Va(0x4008_1234),
            vbar_el1: 0xffff_8000_0801_0800,
            sctlr_el1: SCTLR_EL1_SPAN,
            features: ExceptionFeatures::default(),
        }
    }

    #[test]
    fn the_sixteen_vectors() {
        let groups = [(0b00100, 0x000), (0b00101, 0x200), (0b00000, 0x400), (0b10000, 0x600)];
        let kinds = [
            (ExceptionKind::Synchronous, 0x000),
            (ExceptionKind::Irq, 0x080),
            (ExceptionKind::Fiq, 0x100),
            (ExceptionKind::SError, 0x180),
        ];
        for (mode, group) in groups {
            for (kind, offset) in kinds {
                let taken = take_to_el1(&source(mode), kind);
                assert_eq!(taken.pc, Va(0xffff_8000_0801_0800 + group + offset));
            }
        }
        let mut odd = source(0);
        odd.vbar_el1 |= 0x7ff;
        assert_eq!(
            take_to_el1(&odd, ExceptionKind::Irq).pc,
            Va(0xffff_8000_0801_0c80),
            "the RES0 bits of VBAR_EL1 are no part of the address"
        );
    }

    #[test]
    fn spsr_and_elr_hold_the_old_state_verbatim() {
        let taken = take_to_el1(&source(0xf3f0_3fc5), ExceptionKind::Synchronous);
        assert_eq!(taken.spsr_el1, Pstate(0xf3f0_3fc5), "SS included: the caller decides");
        assert_eq!(taken.elr_el1, Va(0x4008_1234));
    }

    #[test]
    fn the_new_state_keeps_flags_and_masks_everything() {
        let all_set = 0xf3f0_3c05 & !Pstate::PAN;
        let taken = take_to_el1(&source(all_set), ExceptionKind::Irq);
        assert_eq!(taken.pstate.to_string(), "NZCV DAIF EL1h DIT");
        let from_aarch32 = take_to_el1(&source(0xf8ff_ffb0), ExceptionKind::Irq);
        assert_eq!(from_aarch32.pstate.to_string(), "NZCV DAIF EL1h PAN");
    }

    #[test]
    fn features_decide_over_pan_ssbs_tco_and_allint() {
        let mut from = source(Pstate::M_EL1H);
        from.features = ALL;
        from.sctlr_el1 = 0;
        let taken = take_to_el1(&from, ExceptionKind::Fiq);
        assert_eq!(taken.pstate.to_string(), "nzcv DAIF EL1h PAN TCO ALLINT");
        from.sctlr_el1 = SCTLR_EL1_SPAN | SCTLR_EL1_DSSBS | SCTLR_EL1_SPINTMASK;
        let taken = take_to_el1(&from, ExceptionKind::SError);
        assert_eq!(taken.pstate.to_string(), "nzcv DAIF EL1h TCO SSBS");
        from.pstate = Pstate(Pstate::M_EL1H | Pstate::PAN);
        let taken = take_to_el1(&from, ExceptionKind::SError);
        assert!(taken.pstate.pan(), "with SPAN = 1 the old PAN stays");
        from.features = ExceptionFeatures::default();
        from.pstate = Pstate(Pstate::M_EL1H);
        from.sctlr_el1 = SCTLR_EL1_DSSBS;
        let taken = take_to_el1(&from, ExceptionKind::SError);
        assert_eq!(taken.pstate, Pstate::EL1H_MASKED, "without the features, nothing of theirs");
    }
}
