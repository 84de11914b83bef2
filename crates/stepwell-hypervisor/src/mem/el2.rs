//! EL2's own stage 1: identity, with each section of the image as it should be.
//!
//! The boot CPU starts on [`super::early`]'s tables, which know nothing but blocks; these replace
//! them. The other CPUs start on these.

use crate::devicetree::host::{Range, Reserved};
use aarch64_paging::descriptor::El23Attributes as Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El2, MemoryRegion};
use core::sync::atomic::{AtomicU64, Ordering};
use stepwell_arch::Pa;

/// 48 bits of addresses.
const ROOT_LEVEL: usize = 0;
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

/// EL2's address space could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} at {base:#x} ({bytes:#x} bytes) cannot be mapped at EL2: is the device tree right?"
)]
pub struct MapError {
    what: &'static str,
    base: u64,
    bytes: u64,
}

static ROOT: AtomicU64 = AtomicU64::new(0);

/// First and last address of the EL2 image, its BSS included.
#[must_use]
pub fn image() -> Range {
    let base = core::ptr::addr_of!(image_base) as u64;
    let end = core::ptr::addr_of!(image_end) as u64;
    Range { base: Pa(base), bytes: end - base }
}

/// Address of the root table that [`setup`] built.
#[must_use]
pub fn root() -> u64 {
    ROOT.load(Ordering::Acquire)
}

/// Builds the tables and activates them on this CPU: all RAM but what must not be mapped, and the
/// devices.
///
/// # Errors
///
/// [`MapError`].
///
/// # Safety
///
/// `memory` must be RAM but for what of `reserved` is not to be mapped, and the image lie in it;
/// `devices` must hold no RAM that anything refers to. On the boot CPU, while it is alone.
pub unsafe fn setup(
    memory: &[Range],
    reserved: &[Reserved],
    devices: &[Range],
) -> Result<(), MapError> {
    let mut map = IdMap::new(ROOT_LEVEL, El2);
    for device in devices {
        add(&mut map, "the device", device.base.0, device.end(), DEVICE)?;
    }
    let (base, text, rodata, end) = (
        core::ptr::addr_of!(image_base) as u64,
        core::ptr::addr_of!(text_end) as u64,
        core::ptr::addr_of!(rodata_end) as u64,
        core::ptr::addr_of!(image_end) as u64,
    );
    for range in memory {
        add_ram(&mut map, range.base.0, range.end(), reserved, image())?;
    }
    add(&mut map, "the image", base, text, NORMAL | Attributes::READ_ONLY)?;
    add(&mut map, "the image", text, rodata, NORMAL | Attributes::READ_ONLY | Attributes::XN)?;
    add(&mut map, "the image", rodata, end, NORMAL | Attributes::XN)?;
    map.mark_active();
    let root = map.root_address().0 as u64;
    ROOT.store(root, Ordering::Release);
    // The tables live as long as the machine.
    core::mem::forget(map);
    change_tables(root);
    Ok(())
}

/// Maps RAM in the pieces that are left between what may not be mapped and the image.
fn add_ram(
    map: &mut IdMap<El2>,
    from: u64,
    to: u64,
    reserved: &[Reserved],
    image: Range,
) -> Result<(), MapError> {
    let holes = reserved.iter().filter(|reserved| reserved.is_unmapped);
    let holes = holes.map(|reserved| reserved.range).chain([image]);
    let mut at = from;
    while at < to {
        // The hole that begins first of those that end later than this.
        let next =
            holes.clone().filter(|hole| hole.bytes > 0 && hole.end() > at && hole.base.0 < to);
        let next = next.min_by_key(|hole| hole.base.0);
        let end = next.map_or(to, |hole| hole.base.0.max(at));
        // A page that is RAM in part is not mapped.
        let (first, last) = (at.next_multiple_of(PAGE), end & !(PAGE - 1));
        add(map, "the RAM", first, last, NORMAL | Attributes::XN)?;
        at = next.map_or(to, |hole| hole.end());
    }
    Ok(())
}

const PAGE: u64 = 4096;

fn add(
    map: &mut IdMap<El2>,
    what: &'static str,
    from: u64,
    to: u64,
    attributes: Attributes,
) -> Result<(), MapError> {
    if from >= to {
        return Ok(());
    }
    let region = MemoryRegion::new(from as usize, to as usize);
    let error = MapError { what, base: from, bytes: to - from };
    map.map_range(&region, attributes).map_err(|_| error)
}

/// Switches this CPU to other tables, with the MMU off in between.
///
/// The old tables and the new ones map the same addresses by blocks of other sizes and with other
/// attributes. Had a TLB both at once, a conflict abort would be the best that could come of it, so
/// break comes before make (Arm ARM, "Using break-before-make when updating translation table
/// entries"). Breaking what this code runs on means to go without: it is where it is with the MMU
/// on and off.
fn change_tables(root: u64) {
    // SAFETY: both tables are identity maps of everything that runs or is referred to. Between the
    // first write of SCTLR_EL2 and the last, nothing is loaded or stored: data accesses with the
    // MMU off would go past the caches.
    unsafe {
        core::arch::asm!(
            "dsb sy",
            "mrs {on}, sctlr_el2",
            "bic {off}, {on}, #1",
            "msr sctlr_el2, {off}",
            "isb",
            "msr ttbr0_el2, {root}",
            "isb",
            "tlbi alle2",
            "dsb nsh",
            "isb",
            "msr sctlr_el2, {on}",
            "isb",
            root = in(reg) root,
            on = out(reg) _,
            off = out(reg) _,
            options(nostack)
        )
    }
}
