//! Hypervisor control registers: each bit with the effect of setting it, in a line.
//!
//! Only layouts: which bits Stepwell sets, and why, is said where it sets them.

pub use crate::list_register::{InterruptState, ListRegister};

macro_rules! register {
    ($(#[$doc:meta])* $module:ident { $($(#[$bit_doc:meta])* $name:ident = $value:expr;)* }) => {
        $(#[$doc])*
        pub mod $module {
            $($(#[$bit_doc])* pub const $name: u64 = $value;)*
        }
    };
}

register! {
    /// Bits of HCR_EL2.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, HCR_EL2, Hypervisor Configuration Register.
    hcr_el2 {
        /// Enables stage 2 for EL1 and EL0.
        VM = 1 << 0;
        /// Makes the guest's DC ISW act as DC CISW. RES1 on most cores.
        SWIO = 1 << 1;
        /// Faults a stage-1 walk that stage 2 maps to Device memory.
        PTW = 1 << 2;
        /// Routes physical FIQs to EL2 and enables virtual ones.
        FMO = 1 << 3;
        /// Routes physical IRQs to EL2 and enables virtual ones.
        IMO = 1 << 4;
        /// Routes physical SErrors to EL2 and enables virtual ones.
        AMO = 1 << 5;
        /// Makes a virtual FIQ pending.
        VF = 1 << 6;
        /// Makes a virtual IRQ pending.
        VI = 1 << 7;
        /// Makes a virtual SError pending.
        VSE = 1 << 8;
        /// Broadcasts the guest's TLB and instruction-cache maintenance to the Inner Shareable domain.
        FB = 1 << 9;
        /// Upgrades the guest's barriers at least to Inner Shareable.
        BSU_INNER = 0b01 << 10;
        /// Makes the guest's stage 1 off and its memory cacheable. Stays 0.
        DC = 1 << 12;
        /// Traps WFI at EL0 and EL1 that would wait.
        TWI = 1 << 13;
        /// Traps WFE at EL0 and EL1 that would wait.
        TWE = 1 << 14;
        /// Traps ID group 0 (AArch32 FPSID, JIDR).
        TID0 = 1 << 15;
        /// Traps ID group 1 (REVIDR_EL1, AIDR_EL1, SMIDR_EL1).
        TID1 = 1 << 16;
        /// Traps ID group 2 (CTR_EL0, CCSIDR_EL1, CLIDR_EL1, CSSELR_EL1).
        TID2 = 1 << 17;
        /// Traps ID group 3 (the ID_* feature registers).
        TID3 = 1 << 18;
        /// Traps SMC at EL1 to EL2.
        TSC = 1 << 19;
        /// Traps IMPLEMENTATION DEFINED registers.
        TIDCP = 1 << 20;
        /// Traps ACTLR_EL1.
        TACR = 1 << 21;
        /// Traps cache maintenance by set/way.
        TSW = 1 << 22;
        /// Traps cache maintenance to the point of coherency or persistence.
        TPCP = 1 << 23;
        /// Traps cache maintenance to the point of unification.
        TPU = 1 << 24;
        /// Traps TLB maintenance.
        TTLB = 1 << 25;
        /// Traps writes of the virtual memory controls (SCTLR, TTBRx, TCR, MAIR, …).
        TVM = 1 << 26;
        /// Routes all exceptions of EL0 to EL2: there is no EL1. Stays 0 for guests.
        TGE = 1 << 27;
        /// Traps DC ZVA.
        TDZ = 1 << 28;
        /// Makes HVC undefined. Stays 0: PSCI comes in over HVC.
        HCD = 1 << 29;
        /// Traps reads of the virtual memory controls.
        TRVM = 1 << 30;
        /// Makes EL1 AArch64.
        RW = 1 << 31;
        /// Makes stage-2 data accesses Non-cacheable.
        CD = 1 << 32;
        /// Makes stage-2 instruction accesses Non-cacheable.
        ID = 1 << 33;
        /// Host mode: EL2 has the EL2&0 regime, FEAT_VHE.
        E2H = 1 << 34;
        /// Traps the LORegions registers, FEAT_LOR.
        TLOR = 1 << 35;
        /// Traps the error record registers, FEAT_RAS.
        TERR = 1 << 36;
        /// Routes synchronous External aborts of EL0 and EL1 to EL2, FEAT_RAS.
        TEA = 1 << 37;
        /// Does not trap the pointer-authentication key registers.
        APK = 1 << 40;
        /// Does not trap pointer-authentication instructions.
        API = 1 << 41;
        /// Traps EL2 registers and ERET at EL1, for nested virtualization.
        NV = 1 << 42;
        /// Changes EL1's registers for a nested host, with NV.
        NV1 = 1 << 43;
        /// Traps address translation instructions.
        AT = 1 << 44;
        /// Turns EL2 register accesses into memory accesses, with NV.
        NV2 = 1 << 45;
        /// Lets stage 2 attributes win over stage 1's, FEAT_S2FWB.
        FWB = 1 << 46;
        /// Traps ID group 4 (CCSIDR, CLIDR, CSSELR), FEAT_EVT.
        TID4 = 1 << 49;
        /// Does not trap SCXTNUM_EL1 and SCXTNUM_EL0, FEAT_CSV2_2.
        ENSCXT = 1 << 53;
        /// Allows access to allocation tags, FEAT_MTE2.
        ATA = 1 << 56;
        /// Traps GMID_EL1, FEAT_MTE2.
        TID5 = 1 << 58;
    }
}

register! {
    /// Bits of CNTHCTL_EL2 with HCR_EL2.E2H = 0.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, CNTHCTL_EL2, Counter-timer Hypervisor Control Register.
    cnthctl_el2 {
        /// Does not trap CNTPCT_EL0 (and CNTPCTSS_EL0).
        EL1PCTEN = 1 << 0;
        /// Does not trap the physical timer's CNTP_* registers.
        EL1PCEN = 1 << 1;
        /// Enables the event stream from CNTPCT_EL0.
        EVNTEN = 1 << 2;
        /// Triggers the event stream on a falling bit rather than a rising one.
        EVNTDIR = 1 << 3;
        /// Selects the counter bit of the event stream.
        EVNTI_MASK = 0xf << 4;
        /// Applies CNTPOFF_EL2 to the physical counter and timer, FEAT_ECV.
        ECV = 1 << 12;
        /// Traps the virtual timer's CNTV_* registers, FEAT_ECV.
        EL1TVT = 1 << 13;
        /// Traps CNTVCT_EL0, FEAT_ECV.
        EL1TVCT = 1 << 14;
    }
}

register! {
    /// Bits of CPTR_EL2 with HCR_EL2.E2H = 0.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, CPTR_EL2, Architectural Feature Trap Register (EL2).
    cptr_el2 {
        /// RES1 bits: 13, 9 and 7:0.
        RES1 = 0x22ff;
        /// Traps SVE. RES1 without FEAT_SVE.
        TZ = 1 << 8;
        /// Traps Advanced SIMD and floating point, and SVE with them.
        TFP = 1 << 10;
        /// Traps SME. RES1 without FEAT_SME.
        TSM = 1 << 12;
        /// Traps the trace registers.
        TTA = 1 << 20;
        /// Traps the activity monitors, FEAT_AMUv1.
        TAM = 1 << 30;
        /// Traps CPACR_EL1.
        TCPAC = 1 << 31;
    }
}

register! {
    /// Bits of ICH_HCR_EL2.
    ///
    /// Source: Arm GIC Architecture Specification, IHI 0069 H, ICH_HCR_EL2, Interrupt Controller
    /// Hyp Control Register.
    ich_hcr_el2 {
        /// Enables the virtual CPU interface.
        EN = 1 << 0;
        /// Maintenance interrupt when at most one list register is in use.
        UIE = 1 << 1;
        /// Maintenance interrupt when an EOI had no list register.
        LRENPIE = 1 << 2;
        /// Maintenance interrupt when no list register is pending.
        NPIE = 1 << 3;
        /// Maintenance interrupt when group 0 gets enabled.
        VGRP0EIE = 1 << 4;
        /// Maintenance interrupt when group 0 gets disabled.
        VGRP0DIE = 1 << 5;
        /// Maintenance interrupt when group 1 gets enabled.
        VGRP1EIE = 1 << 6;
        /// Maintenance interrupt when group 1 gets disabled.
        VGRP1DIE = 1 << 7;
        /// Traps the registers common to both groups (ICC_SGI*R, PMR, CTLR, DIR, RPR).
        TC = 1 << 10;
        /// Traps the group 0 registers.
        TALL0 = 1 << 11;
        /// Traps the group 1 registers.
        TALL1 = 1 << 12;
        /// Traps locally generated SErrors.
        TSEI = 1 << 13;
        /// Traps ICC_DIR_EL1, where supported.
        TDIR = 1 << 14;
        /// Counts EOIs that had no list register.
        EOICOUNT_MASK = 0x1f << 27;
    }
}

register! {
    /// Bits of ICH_VMCR_EL2: the guest's view of its CPU interface.
    ///
    /// Source: Arm GIC Architecture Specification, IHI 0069 H, ICH_VMCR_EL2, Interrupt Controller
    /// Virtual Machine Control Register.
    ich_vmcr_el2 {
        /// ICC_IGRPEN0_EL1: enables group 0.
        VENG0 = 1 << 0;
        /// ICC_IGRPEN1_EL1: enables group 1.
        VENG1 = 1 << 1;
        /// Lets ICC_IAR0 acknowledge group 1 (only without system registers).
        VACKCTL = 1 << 2;
        /// Signals group 0 as virtual FIQ. RES1 with system registers only.
        VFIQEN = 1 << 3;
        /// ICC_CTLR_EL1.CBPR: one binary point for both groups.
        VCBPR = 1 << 4;
        /// ICC_CTLR_EL1.EOImode: EOI only drops the priority.
        VEOIM = 1 << 9;
        /// ICC_BPR1_EL1.
        VBPR1_MASK = 0b111 << 18;
        /// ICC_BPR0_EL1.
        VBPR0_MASK = 0b111 << 21;
        /// ICC_PMR_EL1: the priority mask.
        VPMR_MASK = 0xff << 24;
    }
}

register! {
    /// Bits of ICH_MISR_EL2: why a maintenance interrupt came.
    ///
    /// Source: Arm GIC Architecture Specification, IHI 0069 H, ICH_MISR_EL2, Interrupt Controller
    /// Maintenance Interrupt State Register.
    ich_misr_el2 {
        /// A list register with its EOI bit set was ended.
        EOI = 1 << 0;
        /// Underflow: at most one list register in use.
        U = 1 << 1;
        /// An EOI had no list register.
        LRENP = 1 << 2;
        /// No list register is pending.
        NP = 1 << 3;
        /// Group 0 was enabled.
        VGRP0E = 1 << 4;
        /// Group 0 was disabled.
        VGRP0D = 1 << 5;
        /// Group 1 was enabled.
        VGRP1E = 1 << 6;
        /// Group 1 was disabled.
        VGRP1D = 1 << 7;
    }
}

register! {
    /// Fields of VTCR_EL2.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, VTCR_EL2, Virtualization Translation Control Register.
    vtcr_el2 {
        /// T0SZ: 64 minus the IPA size in bits.
        T0SZ_MASK = 0x3f;
        /// SL0 for 4 KiB granules: starts at level 2.
        SL0_4K_LEVEL2 = 0b00 << 6;
        /// SL0 for 4 KiB granules: starts at level 1.
        SL0_4K_LEVEL1 = 0b01 << 6;
        /// SL0 for 4 KiB granules: starts at level 0.
        SL0_4K_LEVEL0 = 0b10 << 6;
        /// Walks are Inner Write-Back Write-Allocate.
        IRGN0_WBWA = 0b01 << 8;
        /// Walks are Outer Write-Back Write-Allocate.
        ORGN0_WBWA = 0b01 << 10;
        /// Walks are Inner Shareable.
        SH0_INNER = 0b11 << 12;
        /// 4 KiB granule.
        TG0_4K = 0b00 << 14;
        /// PS: output address size, encoded as ID_AA64MMFR0_EL1.PARange.
        PS_SHIFT = 16;
        /// VS: 16-bit VMIDs, FEAT_VMID16.
        VS = 1 << 19;
        /// RES1.
        RES1 = 1 << 31;
    }
}

register! {
    /// Bits of CNTV_CTL_EL0, CNTP_CTL_EL0 and CNTHP_CTL_EL2.
    ///
    /// Source: Arm ARM, DDI 0487 L.b, CNTV_CTL_EL0, Counter-timer Virtual Timer Control Register.
    cntv_ctl {
        /// Enables the timer.
        ENABLE = 1 << 0;
        /// Masks its interrupt.
        IMASK = 1 << 1;
        /// The condition is met (read-only; means something only with ENABLE).
        ISTATUS = 1 << 2;
    }
}
