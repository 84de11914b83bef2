//! The boot CPU's first steps in Rust, with its MMU off: a word on the console, then early tables.
//!
//! With the MMU off every access is to device memory. So nothing here is unaligned (the target is
//! built with strict alignment), and nothing takes a lock: exclusives need not work there.

use super::{MAX_TREE_BYTES, TREE_HEADER_BYTES};
use crate::console;
use crate::devicetree::blob;
use crate::devicetree::host::{self, HostTreeError, Range};
use crate::hw::registers::{self, mrs};
use crate::hw::{log, power};
use crate::mem::early::{ENTRIES, EarlyTables, Kind, TABLES};
use crate::mem::el2;
use core::fmt::Display;
use dtoolkit::fdt::FdtNode;
use stepwell_arch::Pa;

#[repr(C, align(4096))]
struct Tables([[u64; ENTRIES]; TABLES]);

static mut ARENA: Tables = Tables([[0; ENTRIES]; TABLES]);

/// Called by `start.S` on the boot CPU at exception level `level`, with the MMU off; `tree` is where
/// the boot loader put the device tree. Returns where there is a way to go on.
///
/// BSS is not there yet: where the image was put too near to the end of RAM, it never is.
#[unsafe(no_mangle)]
extern "C" fn early_main(tree: u64, level: u64) {
    if let Err(reason) = speak(tree, level) {
        refuse(level, &reason);
    }
}

/// Called by `start.S` after [`early_main`] and once BSS is clear, with the MMU still off. Returns
/// the address of the early tables.
#[unsafe(no_mangle)]
extern "C" fn early_tables(tree: u64) -> u64 {
    match tables(tree) {
        Ok(tables) => tables,
        Err(reason) => refuse(2, &reason),
    }
}

/// Says why there is no going on, and switches the machine off if the firmware can be asked to.
fn refuse(level: u64, reason: &dyn Display) -> ! {
    log::unlocked_line(format_args!("cannot start: {reason}"));
    // At EL3 we would be the firmware.
    if level < 3 { power::machine_off() } else { power::park() }
}

#[derive(Debug, thiserror::Error)]
enum EarlyError {
    #[error(
        "X0 is {0:#x}, and no device tree is there: start the image by the arm64 boot protocol \
         (QEMU: -kernel with the raw image; U-Boot: booti IMAGE - TREE)"
    )]
    NoTree(u64),
    #[error(transparent)]
    Tree(#[from] HostTreeError),
    #[error(
        "started at EL{0}, and a hypervisor needs EL2: have the firmware or boot loader enter it \
         there (QEMU: -machine virt,virtualization=on)"
    )]
    Level(u64),
    #[error("loaded at {0:#x}, which is no multiple of 4096: load it to another address")]
    Unaligned(u64),
    #[error(
        "the image takes the addresses from {0:#x} to {1:#x}, and the device tree has no RAM there: \
         load it where it fits (image_size in its header is what it takes)"
    )]
    NoRam(u64, u64),
    #[error("this CPU's EL2 is that of a host only (HCR_EL2.E2H stays 1): take another CPU")]
    HostOnly,
    #[error("this CPU has no pages of 4 KiB: take another CPU")]
    NoSmallPages,
    #[error(transparent)]
    Map(#[from] crate::mem::early::EarlyMapError),
}

fn root_of(tree: u64) -> Result<(FdtNode<'static>, Range), EarlyError> {
    // SAFETY: `tree` is what the boot loader left in X0: the boot protocol puts a device tree there.
    let bytes = unsafe { tree_at(tree) }.ok_or(EarlyError::NoTree(tree))?;
    let place = Range { base: Pa(tree), bytes: bytes.len() as u64 };
    let fdt = blob::open(bytes).ok_or(EarlyError::Tree(HostTreeError::NotATree))?;
    Ok((fdt.root(), place))
}

fn speak(tree: u64, level: u64) -> Result<(), EarlyError> {
    let (root, _) = root_of(tree).inspect_err(|_| {
        // SAFETY: the MMU is off, this CPU is alone and gives up, and this code runs in RAM, which no
        // board has where `virt` has its devices and which does not answer as a UART does.
        unsafe { log::guess() }
    })?;
    if let Some(console) = console::find(root) {
        // SAFETY: the device tree says that it is there; the MMU is off, both sets of tables map it as a
        // device, and this CPU is alone.
        unsafe { log::setup(console) }
    }
    let image = el2::image();
    log::unlocked_line(format_args!(
        "{} at {:#x}, EL{level}, device tree at {tree:#x}",
        env!("CARGO_PKG_VERSION"),
        image.base.0,
    ));
    if let Some(conduit) = host::conduit(root)? {
        power::use_conduit(conduit);
    }
    check_cpu(level)?;
    check_place(root, image)
}

/// The image must be where it can be: what loads it reads its header, or does not.
fn check_place(root: FdtNode<'_>, image: Range) -> Result<(), EarlyError> {
    if !image.base.is_aligned(4096) {
        return Err(EarlyError::Unaligned(image.base.0));
    }
    let banks = host::banks(root)?;
    let is_ram = |at: u64| banks.iter().any(|bank| (bank.base.0..bank.end()).contains(&at));
    if is_ram(image.base.0) && is_ram(image.end() - 1) {
        return Ok(());
    }
    Err(EarlyError::NoRam(image.base.0, image.end()))
}

fn tables(tree: u64) -> Result<u64, EarlyError> {
    let (root, place) = root_of(tree)?;
    // SAFETY: called once, on the one CPU that there is so far; nothing else refers to the arena.
    let tables = unsafe { &mut (*core::ptr::addr_of_mut!(ARENA)).0 };
    let base = core::ptr::from_ref(tables) as u64;
    let mut early = EarlyTables::new(tables, base);
    early.map(el2::image(), Kind::Image)?;
    early.map(place, Kind::Data)?;
    if let Some(console) = console::find(root) {
        early.map(console.registers, Kind::Device)?;
    }
    Ok(base)
}

fn check_cpu(level: u64) -> Result<(), EarlyError> {
    const NO_SMALL_PAGES: u64 = 0xf;
    const E2H: u64 = 1 << 34;
    if level != 2 {
        return Err(EarlyError::Level(level));
    }
    if mrs!("hcr_el2") & E2H != 0 {
        return Err(EarlyError::HostOnly);
    }
    if mrs!("id_aa64mmfr0_el1") >> 28 & 0xf == NO_SMALL_PAGES {
        return Err(EarlyError::NoSmallPages);
    }
    Ok(())
}

/// The bytes of the device tree at `address`, if one is there.
///
/// # Safety
///
/// `address` must be that of a device tree, or of nothing that answers as one does, and the tree be
/// neither written nor handed out while its bytes are used.
pub(super) unsafe fn tree_at(address: u64) -> Option<&'static [u8]> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    // What the boot loader wrote may still be in the caches only.
    registers::clean_data_cache(address, TREE_HEADER_BYTES as u64);
    // SAFETY: the caller's promise; the address is neither 0 nor misaligned.
    let header = unsafe { core::slice::from_raw_parts(address as *const u8, TREE_HEADER_BYTES) };
    let bytes = blob::total_bytes(header).filter(|&bytes| bytes <= MAX_TREE_BYTES)?;
    registers::clean_data_cache(address, bytes as u64);
    // SAFETY: as above, for as long as the tree itself says.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, bytes) })
}
