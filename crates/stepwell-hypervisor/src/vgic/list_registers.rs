//! The virtual CPU interface as EL2 sees it.

/// What the vCPU loop loads into and reads from ICH_*_EL2.
#[derive(Clone, Debug)]
pub struct CpuInterface {
    /// ICH_LR<n>_EL2.
    pub lr: [u64; 16],
    /// How many exist: ICH_VTR_EL2.ListRegs + 1.
    pub lr_count: usize,
    /// ICH_HCR_EL2 (flush writes En, NPIE, LRENPIE, VGrpnEIE, TDIR, EOIcount; other bits are kept).
    pub hcr: u64,
    /// ICH_VMCR_EL2.
    pub vmcr: u64,
    /// ICH_AP0R0_EL2.
    pub ap0r0: u64,
    /// ICH_AP1R0_EL2.
    pub ap1r0: u64,
}

impl CpuInterface {
    /// State at reset.
    #[must_use]
    pub const fn new(lr_count: usize) -> Self {
        Self { lr: [0; 16], lr_count, hcr: 0, vmcr: 0, ap0r0: 0, ap1r0: 0 }
    }
    /// Would a virtual Group 1 IRQ be taken if PSTATE.I were 0, by what is in the list registers now?
    #[must_use]
    pub fn deliverable(&self) -> bool {
        false
    }
}
