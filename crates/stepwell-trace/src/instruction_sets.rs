//! Which instruction set each vCPU executes, as a recording streams by.

use crate::format::Record;
use std::collections::BTreeMap;
use stepwell_arch::InstructionSet;

/// The instruction sets of all vCPUs: A64 but where a recording tells otherwise.
#[derive(Clone, Debug, Default)]
pub struct InstructionSets {
    vcpus: BTreeMap<u8, InstructionSet>,
}

impl InstructionSets {
    /// Takes a record into account.
    pub fn observe(&mut self, record: &Record) {
        if let Record::InstructionSet { vcpu, set } = record {
            self.vcpus.insert(*vcpu, *set);
        }
    }

    /// Returns what a vCPU executes.
    #[must_use]
    pub fn of(&self, vcpu: u8) -> InstructionSet {
        self.vcpus.get(&vcpu).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_executes_a64_until_it_is_told() {
        let mut sets = InstructionSets::default();
        sets.observe(&Record::InstructionSet { vcpu: 1, set: InstructionSet::T32 });
        assert_eq!((sets.of(0), sets.of(1)), (InstructionSet::A64, InstructionSet::T32));
    }
}
