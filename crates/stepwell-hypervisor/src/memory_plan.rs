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
    /// Starts with what the image, the boot modules, the mailbox and the trace ring take.
    #[must_use]
    pub fn new(host: &HostTree<'_>, image: Range) -> Self {
        let mut taken = Vec::new();
        let modules = host.domains.iter().flat_map(|domain| {
            [Some(domain.kernel), domain.ramdisk, domain.devicetree].into_iter().flatten()
        });
        for range in modules.chain(host.trace_ring).chain(host.mailbox).chain([image]) {
            // Four domains of three modules, a ring, a mailbox and an image are 15.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devicetree::host::{Conduit, DomainConfig};

    const MIB: u64 = 1 << 20;

    fn range(base: u64, bytes: u64) -> Range {
        Range { base: Pa(base), bytes }
    }

    fn host(memory_mib: u64) -> HostTree<'static> {
        let domain = DomainConfig {
            name: "domU0",
            cpus: 1,
            memory_bytes: 64 * MIB,
            kernel: range(0x4800_0000, 5 * MIB),
            bootargs: "",
            ramdisk: Some(range(0x4900_0000, MIB)),
            devicetree: None,
        };
        HostTree {
            memory: Vec::from_slice(&[range(0x4000_0000, memory_mib * MIB)]).unwrap(),
            cpus: Vec::from_slice(&[0]).unwrap(),
            cpu_compatible: "arm,cortex-a57",
            distributor: range(0x0800_0000, 0x1_0000),
            redistributors: range(0x080a_0000, 0xf6_0000),
            pl011: Some(range(0x0900_0000, 0x1000)),
            virtio: Vec::new(),
            psci: Conduit::Smc,
            trace_ring: Some(range(0x4a00_0000, 16 * MIB)),
            mailbox: Some(range(0x4c00_0000, 2 * MIB)),
            test_mode: None,
            domains: Vec::from_slice(&[domain]).unwrap(),
        }
    }

    fn image() -> Range {
        range(0x4020_0000, 10 * MIB)
    }

    #[test]
    fn nothing_is_handed_out_twice() {
        let host = host(512);
        let mut plan = Memory::new(&host, image());
        let mut given: std::vec::Vec<Range> = vec![
            image(),
            host.domains[0].kernel,
            host.domains[0].ramdisk.unwrap(),
            host.trace_ring.unwrap(),
            host.mailbox.unwrap(),
        ];
        while let Some(range) = plan.take(30 * MIB) {
            assert!(range.base.is_aligned(GRANULE) && range.bytes >= 30 * MIB);
            for other in &given {
                let apart = range.base.0 + range.bytes <= other.base.0
                    || other.base.0 + other.bytes <= range.base.0;
                assert!(apart, "{range:?} {other:?}");
            }
            given.push(range);
        }
        assert!(given.len() > 10);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut plan = Memory::new(&host(512), image());
        assert_eq!(plan.take(0), None);
        assert_eq!(plan.take(512 * MIB), None);
        assert_eq!(plan.take(u64::MAX), None);
    }

    #[test]
    fn devices_are_whole_pages_once() {
        let mut host = host(512);
        for slot in 0..32 {
            let registers = range(0x0a00_0000 + slot * 0x200, 0x200);
            let slot = crate::devicetree::host::VirtioSlot { registers, intid: 48 };
            host.virtio.push(slot).unwrap();
        }
        let pages = devices(&host);
        assert_eq!(pages.len(), 7, "GIC twice, UART, four pages of slots");
        assert!(pages.iter().all(|page| page.base.is_aligned(PAGE) && page.bytes % PAGE == 0));
    }
}
