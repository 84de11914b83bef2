//! Who gets which memory: RAM less what is in use, and the devices that EL2 maps.

use crate::devicetree::host::{DomainConfig, HostTree, Range};
use heapless::Vec;
use stepwell_arch::Pa;

/// Domains' memory is given in pieces of this size, so that stage 2 maps it in blocks.
const GRANULE: u64 = 2 << 20;
/// Reserved ranges, the images of eight domains, those domains, a ring and the hypervisor.
const MAX_TAKEN: usize = 128;
const MAX_DEVICES: usize = 48;
const PAGE: u64 = 4096;

/// Why memory cannot be shared out as the device tree says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something that was loaded is not where EL2 could read it.
    #[error(
        "{what} at {:#x} ({:#x} bytes) is not in RAM, or where this image is or a reservation: \
         load it elsewhere", .range.base.0, .range.bytes
    )]
    Misplaced {
        /// What.
        what: &'static str,
        /// Where it is said to be.
        range: Range,
    },
    /// There is more to be kept in mind than there is room for.
    #[error("the machine's memory is in too many pieces: leave some reservations out")]
    TooManyPieces,
}

/// RAM, and what of it is taken.
#[derive(Debug)]
pub struct Memory {
    ram: Vec<Range, 16>,
    taken: Vec<Range, MAX_TAKEN>,
}

impl Memory {
    /// Starts with what is reserved, and what the image, the boot modules and the trace ring take.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn new(host: &HostTree<'_>, image: Range) -> Result<Self, PlanError> {
        let mut taken = Vec::new();
        let reserved = host.reserved.iter().map(|reserved| reserved.range);
        for range in reserved.chain([image]) {
            taken.push(range).map_err(|_| PlanError::TooManyPieces)?;
        }
        for (what, range) in loaded(host) {
            // A loader may have reserved what it loaded. It must be mapped, though.
            let mut unmapped = host.reserved.iter().filter(|reserved| reserved.is_unmapped);
            let is_in_ram = host.memory.iter().any(|ram| ram.contains(&range));
            let is_hidden = unmapped.any(|reserved| reserved.range.overlaps(&range));
            if !is_in_ram || is_hidden || image.overlaps(&range) {
                return Err(PlanError::Misplaced { what, range });
            }
            taken.push(range).map_err(|_| PlanError::TooManyPieces)?;
        }
        Ok(Self { ram: host.memory.clone(), taken })
    }

    /// Takes `bytes` that nothing else has.
    pub fn take(&mut self, bytes: u64) -> Option<Range> {
        let bytes = bytes.checked_next_multiple_of(GRANULE).filter(|&bytes| bytes > 0)?;
        let range = self.ram.iter().find_map(|ram| self.gap(ram, bytes))?;
        self.taken.push(range).ok()?;
        Some(range)
    }

    /// The first place in a bank of RAM where nothing is for so many bytes.
    fn gap(&self, ram: &Range, bytes: u64) -> Option<Range> {
        let mut base = ram.base.0.checked_next_multiple_of(GRANULE)?;
        loop {
            let range = Range { base: Pa(base), bytes };
            if base.checked_add(bytes)? > ram.end() {
                return None;
            }
            match self.taken.iter().find(|taken| taken.bytes > 0 && taken.overlaps(&range)) {
                None => return Some(range),
                Some(taken) => base = taken.end().checked_next_multiple_of(GRANULE)?,
            }
        }
    }
}

/// What a boot loader put into RAM for the domains and for the tool.
fn loaded<'a>(host: &'a HostTree<'_>) -> impl Iterator<Item = (&'static str, Range)> + 'a {
    let modules = |domain: &DomainConfig<'_>| {
        [
            Some(("a domain's kernel", domain.kernel)),
            domain.ramdisk.map(|range| ("a domain's ramdisk", range)),
            domain.devicetree.map(|range| ("a domain's device tree", range)),
            domain.fw_cfg.map(|range| ("what a domain's fw_cfg hands out", range)),
        ]
    };
    let ring = host.trace_ring.map(|range| ("the trace ring", range));
    let mailbox = host.mailbox.map(|range| ("the link's mailbox", range));
    let checkpoints = host.checkpoints.map(|range| ("what is set aside for checkpoints", range));
    let devices = host.device_channel.map(|range| ("the device channel", range));
    let ours = ring.into_iter().chain(mailbox).chain(checkpoints).chain(devices);
    host.domains.iter().flat_map(modules).flatten().chain(ours)
}

/// What of a domain's RAM is to be cleared before its images are loaded: what the boot loader left
/// there.
///
/// All of it, unless the tree says that RAM was zero before anything was loaded: then the tree
/// itself, and the page at the start of RAM that QEMU's own boot code is in.
#[must_use]
pub fn stale(host: &HostTree<'_>, tree: Range, domain: Range) -> Vec<Range, 2> {
    if !host.is_zeroed {
        return Vec::from_iter([domain]);
    }
    let boot_code = host.memory.first().map(|ram| Range { base: ram.base, bytes: PAGE });
    let places = [Some(tree), boot_code].into_iter().flatten();
    places.filter_map(|place| common(place, domain)).collect()
}

fn common(one: Range, other: Range) -> Option<Range> {
    let (base, end) = (one.base.max(other.base), one.end().min(other.end()));
    let bytes = end.checked_sub(base.0).filter(|&bytes| bytes > 0)?;
    Some(Range { base, bytes })
}

/// What EL2 maps as devices, in whole pages, no page twice.
///
/// # Errors
///
/// [`PlanError::TooManyPieces`].
pub fn devices(host: &HostTree<'_>) -> Result<Vec<Range, MAX_DEVICES>, PlanError> {
    let slots = host.virtio.iter().map(|slot| slot.registers);
    let gic = host.gic.redistributors.iter().copied().chain([host.gic.distributor]);
    let all = gic.chain(host.console.map(|console| console.registers)).chain(slots);
    let mut pages: Vec<Range, MAX_DEVICES> = Vec::new();
    for range in all {
        let base = range.base.align_down(PAGE);
        let end = range.end().checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1));
        let range = Range { base, bytes: end.saturating_sub(base.0) };
        if !pages.iter().any(|page| page.contains(&range)) {
            pages.push(range).map_err(|_| PlanError::TooManyPieces)?;
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Console;
    use crate::devicetree::host::{Conduit, Gic, Intids, Reserved, VirtioSlot};

    const MIB: u64 = 1 << 20;

    fn range(base: u64, bytes: u64) -> Range {
        Range { base: Pa(base), bytes }
    }

    fn host(memory_mib: u64) -> HostTree<'static> {
        let domain = DomainConfig {
            name: "domU0",
            cpus: 1,
            schedule: None,
            memory_bytes: 64 * MIB,
            kernel: range(0x4800_0000, 5 * MIB),
            has_firmware: false,
            fw_cfg: None,
            time_of_day: (0, 0),
            linked: None,
            bootargs: "",
            ramdisk: Some(range(0x4900_0000, MIB)),
            devicetree: None,
        };
        HostTree {
            memory: Vec::from_slice(&[range(0x4000_0000, memory_mib * MIB)]).unwrap(),
            cpus: Vec::from_slice(&[0]).unwrap(),
            cpu_compatible: "arm,cortex-a57",
            reserved: Vec::new(),
            gic: Gic {
                distributor: range(0x0800_0000, 0x1_0000),
                redistributors: Vec::from_iter([range(0x080a_0000, 0xf6_0000)]),
                stride: None,
            },
            intids: Intids::USUAL,
            console: Some(Console::pl011(Pa(0x0900_0000))),
            virtio: Vec::new(),
            psci: Some(Conduit::Smc),
            is_zeroed: false,
            trace_ring: Some(range(0x4a00_0000, 16 * MIB)),
            mailbox: Some(range(0x4c00_0000, 2 * MIB)),
            checkpoints: Some(range(0x4d00_0000, 4 * MIB)),
            device_channel: Some(range(0x4c20_0000, 2 * MIB)),
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
        let mut plan = Memory::new(&host, image()).unwrap();
        let mut given: std::vec::Vec<Range> = vec![
            image(),
            host.domains[0].kernel,
            host.domains[0].ramdisk.unwrap(),
            host.trace_ring.unwrap(),
            host.mailbox.unwrap(),
            host.checkpoints.unwrap(),
            host.device_channel.unwrap(),
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
        let mut plan = Memory::new(&host(512), image()).unwrap();
        assert_eq!(plan.take(0), None);
        assert_eq!(plan.take(512 * MIB), None);
        assert_eq!(plan.take(u64::MAX), None);
    }

    #[test]
    fn devices_are_whole_pages_once() {
        let mut host = host(512);
        for slot in 0..32 {
            let registers = range(0x0a00_0000 + slot * 0x200, 0x200);
            let slot = VirtioSlot { registers, intid: 48 };
            host.virtio.push(slot).unwrap();
        }
        let pages = devices(&host).unwrap();
        assert_eq!(pages.len(), 7, "GIC twice, UART, four pages of slots");
        assert!(pages.iter().all(|page| page.base.is_aligned(PAGE) && page.bytes % PAGE == 0));
    }

    #[test]
    fn what_is_reserved_is_given_to_nobody() {
        let mut host = host(512);
        let reserved = range(0x4400_1000, 0x1000);
        host.reserved.push(Reserved { range: reserved, is_unmapped: false }).unwrap();
        let mut plan = Memory::new(&host, image()).unwrap();
        while let Some(given) = plan.take(2 * MIB) {
            assert!(!given.overlaps(&reserved), "{given:?}");
        }
    }

    #[test]
    fn a_module_that_cannot_be_read_is_named() {
        let misplaced = |change: &dyn Fn(&mut HostTree<'_>)| {
            let mut host = host(512);
            change(&mut host);
            Memory::new(&host, image()).map(|_| ()).unwrap_err().to_string()
        };
        let elsewhere = misplaced(&|host| host.domains[0].kernel = range(0x8000_0000, MIB));
        assert!(
            elsewhere.starts_with("a domain's kernel at 0x80000000 (0x100000 bytes) is not in")
        );
        let in_image = misplaced(&|host| host.domains[0].ramdisk = Some(image()));
        assert!(in_image.starts_with("a domain's ramdisk at 0x40200000"), "{in_image}");
        let hidden = misplaced(&|host| {
            let reserved = Reserved { range: range(0x4a00_0000, 1), is_unmapped: true };
            host.reserved.push(reserved).unwrap();
        });
        assert!(hidden.starts_with("the trace ring at 0x4a000000"), "{hidden}");
    }

    #[test]
    fn what_the_loader_left_is_cleared() {
        let mut host = host(512);
        let tree = range(0x4700_0010, 35_000);
        let domain = range(0x4000_0000, 128 * MIB);
        assert_eq!(stale(&host, tree, domain), [domain]);
        host.is_zeroed = true;
        assert_eq!(stale(&host, tree, domain), [tree, range(0x4000_0000, PAGE)]);
        let upper = range(0x4700_1000, 2 * MIB);
        assert_eq!(stale(&host, tree, upper), [range(0x4700_1000, 0x10 + 35_000 - 0x1000)]);
        assert!(stale(&host, tree, range(0x5000_0000, 2 * MIB)).is_empty());
    }
}
