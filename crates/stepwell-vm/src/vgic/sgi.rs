//! Software generated interrupts: what a write of ICC_SGI1R_EL1 asks for.
//!
//! With HCR_EL2.IMO or FMO set, the guest's writes of the SGI registers trap, because only EL2
//! knows which vCPU is which.

/// A decoded ICC_SGI1R_EL1, ICC_SGI0R_EL1 or ICC_ASGI1R_EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SgiRequest {
    /// 0 to 15.
    pub intid: usize,
    targets: Targets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Targets {
    AllButSelf,
    /// Aff3.Aff2.Aff1 of a cluster and a bit for each Aff0 in it.
    List {
        cluster: u64,
        list: u64,
    },
}

impl SgiRequest {
    /// Decodes the register. The Range Selector is RES0 as GICD_TYPER.RSS says.
    pub fn decode(value: u64) -> Self {
        let intid = usize::try_from(value >> 24 & 0xf).unwrap_or(0);
        let targets = if value >> 40 & 1 == 1 {
            Targets::AllButSelf
        } else {
            let cluster =
                (value >> 48 & 0xff) << 16 | (value >> 32 & 0xff) << 8 | value >> 16 & 0xff;
            Targets::List { cluster, list: value & 0xffff }
        };
        Self { intid, targets }
    }

    /// Tells whether a vCPU is meant; its affinity is its number in Aff0.
    pub const fn reaches(&self, vcpu: usize, from: usize) -> bool {
        match self.targets {
            Targets::AllButSelf => vcpu != from,
            Targets::List { cluster, list } => cluster == 0 && vcpu < 16 && list >> vcpu & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_list_names_vcpus_by_aff0() {
        let sgi = SgiRequest::decode(7 << 24 | 0b101);
        assert_eq!(sgi.intid, 7);
        assert_eq!([0, 1, 2].map(|vcpu| sgi.reaches(vcpu, 0)), [true, false, true]);
    }

    #[test]
    fn other_clusters_have_nobody_in_them() {
        for shift in [16, 32, 48] {
            assert!(!SgiRequest::decode(1 << shift | 0xffff).reaches(0, 1));
        }
    }

    #[test]
    fn irm_is_everybody_else() {
        let sgi = SgiRequest::decode(1 << 40 | 0xffff);
        assert_eq!([0, 1, 2].map(|vcpu| sgi.reaches(vcpu, 1)), [true, false, true]);
    }
}
