//! At which exception level each vCPU executes, as a recording streams by.
//!
//! Recordings of version 1.1 and later tell. Where one does not, the address has to: kernels live
//! in the upper half of the addresses, and programs in the lower. Before a vCPU was first seen in
//! the upper half it runs what boots it, which is a kernel too.

use crate::format::Record;
use std::collections::BTreeMap;
use stepwell_arch::address::Va;

#[derive(Clone, Copy, Debug, Default)]
struct Vcpu {
    told: Option<u8>,
    seen_above: bool,
}

/// The exception levels of all vCPUs.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    vcpus: BTreeMap<u8, Vcpu>,
}

impl Levels {
    /// Takes a record into account.
    pub fn observe(&mut self, record: &Record) {
        match record {
            Record::Context(context) => self.set(context.vcpu, context.el),
            Record::ExceptionEntry(entry) => self.set(entry.vcpu, 1),
            Record::ExceptionReturn { vcpu, el, .. } => self.set(*vcpu, *el),
            Record::Run { vcpu, pc, .. } if is_above(*pc) => {
                self.vcpus.entry(*vcpu).or_default().seen_above = true;
            }
            _ => {}
        }
    }

    /// Returns the level, 0 or 1, that `vcpu` executes `pc` at.
    #[must_use]
    pub fn level(&self, vcpu: u8, pc: Va) -> u8 {
        let known = self.vcpus.get(&vcpu).copied().unwrap_or_default();
        known.told.unwrap_or_else(|| u8::from(is_above(pc) || !known.seen_above))
    }

    fn set(&mut self, vcpu: u8, level: u8) {
        self.vcpus.entry(vcpu).or_default().told = Some(level);
    }
}

const fn is_above(pc: Va) -> bool {
    pc.0 >> 63 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_believed_until_the_recording_tells() {
        let (kernel, program) = (Va(0xffff_8000_0800_0000), Va(0x40_0000));
        let mut levels = Levels::default();
        assert_eq!(levels.level(0, program), 1);
        levels.observe(&Record::Run { vcpu: 0, pc: kernel, length: 1 });
        assert_eq!((levels.level(0, kernel), levels.level(0, program)), (1, 0));
        assert_eq!(levels.level(1, program), 1, "another vCPU boots by itself");
        levels.observe(&Record::ExceptionReturn { vcpu: 0, to: kernel, el: 0 });
        assert_eq!(levels.level(0, kernel), 0);
    }
}
