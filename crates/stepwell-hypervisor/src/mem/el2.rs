//! EL2's own stage 1: identity, with each section of the image as it should be.
//!
//! The boot code starts on 1 GiB blocks that allow everything; this replaces them.

use crate::devicetree::host::Range;
use crate::hw::registers::{isb, msr};
use aarch64_paging::descriptor::El23Attributes as Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El2, MemoryRegion};

const ROOT_LEVEL: usize = 1;
const VALID: Attributes = Attributes::VALID.union(Attributes::ACCESSED);
/// MAIR index 0, set up by the boot code.
const DEVICE: Attributes = VALID.union(Attributes::ATTRIBUTE_INDEX_0).union(Attributes::XN);
/// MAIR index 1.
const NORMAL: Attributes =
    VALID.union(Attributes::ATTRIBUTE_INDEX_1).union(Attributes::INNER_SHAREABLE);

unsafe extern "C" {
    static image_base: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
}

/// EL2's address space could not be built: the device tree's ranges cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine's memory map cannot be mapped at EL2")]
pub struct MapError;

static ROOT: spin::Once<u64> = spin::Once::new();

/// First and last address of the EL2 image, its BSS included.
#[must_use]
pub fn image() -> Range {
    let base = core::ptr::addr_of!(image_base) as u64;
    let end = core::ptr::addr_of!(image_end) as u64;
    Range { base: stepwell_arch::Pa(base), bytes: end - base }
}

/// Builds the tables and activates them on this CPU.
///
/// # Errors
///
/// [`MapError`].
pub fn setup(memory: &[Range], devices: &[Range]) -> Result<(), MapError> {
    let mut map = IdMap::new(ROOT_LEVEL, El2);
    for device in devices {
        add(&mut map, device.base.0, device.base.0 + device.bytes, DEVICE)?;
    }
    let (base, text, rodata, end) = (
        core::ptr::addr_of!(image_base) as u64,
        core::ptr::addr_of!(text_end) as u64,
        core::ptr::addr_of!(rodata_end) as u64,
        core::ptr::addr_of!(image_end) as u64,
    );
    add(&mut map, base, text, NORMAL | Attributes::READ_ONLY)?;
    add(&mut map, text, rodata, NORMAL | Attributes::READ_ONLY | Attributes::XN)?;
    add(&mut map, rodata, end, NORMAL | Attributes::XN)?;
    for range in memory {
        let (from, to) = (range.base.0, range.base.0 + range.bytes);
        // The image lies inside one of the ranges: map around it.
        add(&mut map, from, to.min(base).max(from), NORMAL | Attributes::XN)?;
        add(&mut map, from.max(end), to.max(end), NORMAL | Attributes::XN)?;
    }
    // The tables live as long as the machine.
    map.mark_active();
    ROOT.call_once(|| map.root_address().0 as u64);
    core::mem::forget(map);
    activate();
    Ok(())
}

fn add(map: &mut IdMap<El2>, from: u64, to: u64, attributes: Attributes) -> Result<(), MapError> {
    if from >= to {
        return Ok(());
    }
    map.map_range(&MemoryRegion::new(from as usize, to as usize), attributes).map_err(|_| MapError)
}

/// Switches this CPU to the tables that [`setup`] built.
pub fn activate() {
    let Some(&root) = ROOT.get() else { return };
    crate::hw::registers::dsb();
    msr!("ttbr0_el2", root);
    isb();
    // SAFETY: both tables are identity maps of everything that runs or is referred to.
    unsafe { core::arch::asm!("tlbi alle2", "dsb nsh", "isb", options(nostack)) }
}
