//! Who gets which memory: RAM less what is in use, and the devices that EL2 maps.

use crate::devicetree::host::{Machine as HostTree, Range};
use heapless::Vec;
use stepwell_arch::Pa;

/// Domains' memory is given in pieces of this size, so that stage 2 maps it in blocks.
const GRANULE: u64 = 2 << 20;
const MAX_RESERVED: usize = 32;
const MAX_DEVICES: usize = 40;
const PAGE: u64 = 4096;

/// RAM, and what of it is taken.
#[derive(Debug)]
pub struct Memory {
    ram: Vec<Range, 8>,
    taken: Vec<Range, MAX_RESERVED>,
}

impl Memory {
    /// Starts with what the image, the boot modules and the trace ring take.
    #[must_use]
    pub fn new(host: &HostTree<'_>, image: Range) -> Self {
        let mut taken = Vec::new();
        let modules = host.domains.iter().flat_map(|domain| {
            [Some(domain.kernel), domain.ramdisk, domain.devicetree].into_iter().flatten()
        });
        for range in modules.chain(host.trace_ring).chain([image]) {
            // Four domains of three modules, a ring and an image are 14.
            let _fits = taken.push(range);
        }
        Self { ram: host.memory.clone(), taken }
    }

    /// Takes `bytes` that nothing else has.
    pub fn take(&mut self, bytes: u64) -> Option<Range> {
        let bytes = bytes.checked_next_multiple_of(GRANULE).filter(|&bytes| bytes > 0)?;
        for ram in &self.ram {
            let end = ram.base.0.checked_add(ram.bytes)?;
            let mut base = ram.base.0.checked_next_multiple_of(GRANULE)?;
            while base.checked_add(bytes)? <= end {
                match self.in_the_way(base, bytes) {
                    None => {
                        let range = Range { base: Pa(base), bytes };
                        self.taken.push(range).ok()?;
                        return Some(range);
                    }
                    Some(next) => base = next.checked_next_multiple_of(GRANULE)?,
                }
            }
        }
        None
    }

    /// Where the first thing ends that overlaps the range.
    fn in_the_way(&self, base: u64, bytes: u64) -> Option<u64> {
        let overlaps = |taken: &&Range| {
            taken.base.0 < base + bytes && base < taken.base.0.saturating_add(taken.bytes)
        };
        let taken = self.taken.iter().find(overlaps)?;
        Some(taken.base.0.saturating_add(taken.bytes))
    }
}

/// What EL2 maps as devices, in whole pages, no page twice.
#[must_use]
pub fn devices(host: &HostTree<'_>) -> Vec<Range, MAX_DEVICES> {
    let slots = host.virtio.iter().map(|slot| slot.registers);
    let all = [host.distributor, host.redistributors].into_iter().chain(host.pl011).chain(slots);
    let mut pages: Vec<Range, MAX_DEVICES> = Vec::new();
    for range in all {
        let base = range.base.align_down(PAGE);
        let end = range.base.0.saturating_add(range.bytes).next_multiple_of(PAGE);
        let bytes = end.saturating_sub(base.0);
        let known = pages
            .iter()
            .any(|page| page.base.0 <= base.0 && end <= page.base.0.saturating_add(page.bytes));
        if !known {
            // 32 slots and three devices at most.
            let _fits = pages.push(Range { base, bytes });
        }
    }
    pages
}
