//! The guests that the tree asks for, by Xen's dom0less binding.

use super::error::{HostTreeError, region};
use crate::devicetree::bus::Place;
use crate::devicetree::range::{Range, number};
use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use heapless::Vec;
use stepwell_arch::Ipa;
use stepwell_protocol::Schedule;
use stepwell_vm::device::flash::FLASH_BYTES;
use stepwell_vm::image_layout::Linked;

/// A domain to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConfig<'a> {
    /// Name of its node.
    pub name: &'a str,
    /// Number of vCPUs, at least one.
    pub cpus: usize,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// How its vCPUs take turns, where its machine counts instructions.
    pub schedule: Option<Schedule>,
    /// The kernel's image; or the board's flash, all of it, where that has firmware.
    pub kernel: Range,
    /// That it is flash.
    pub has_firmware: bool,
    /// What fw_cfg hands out.
    pub fw_cfg: Option<Range>,
    /// The time of day that the guest begins at: seconds since 1970, and nanoseconds of the next one.
    pub time_of_day: (u32, u32),
    /// Where the kernel is to be, and its entry, where that is no matter of its header.
    pub linked: Option<Linked>,
    /// The kernel's command line.
    pub bootargs: &'a str,
    /// The initial ramdisk.
    pub ramdisk: Option<Range>,
    /// A device tree to hand to the guest as it is.
    pub devicetree: Option<Range>,
}

pub(super) fn domains<'a>(chosen: FdtNode<'a>) -> Result<Vec<DomainConfig<'a>, 8>, HostTreeError> {
    let mut domains = Vec::new();
    for node in chosen.children().filter(|node| node.is_compatible("xen,domain")) {
        let too_many = HostTreeError::TooMany { what: "domains", max: 8 };
        domains.push(domain(node)?).map_err(|_| too_many)?;
    }
    Ok(domains)
}

fn domain<'a>(node: FdtNode<'a>) -> Result<DomainConfig<'a>, HostTreeError> {
    const NAME: &str = "chosen/domU";
    let missing = |property| HostTreeError::PropertyMissing { node: NAME, property };
    let bad = |property| HostTreeError::PropertyBad { node: NAME, property };
    let value = |property| {
        let found = node.property(property).ok_or(missing(property))?;
        number(found.value()).ok_or(bad(property))
    };
    let module = |compatible| node.children().find(move |child| child.is_compatible(compatible));
    let place =
        |name| module(name).map(|module| region(&Place::direct(module), 0, name)).transpose();

    let cpus = usize::try_from(value("cpus")?).ok().filter(|&n| n > 0).ok_or(bad("cpus"))?;
    let kernel =
        module("multiboot,kernel").ok_or(HostTreeError::NodeMissing("multiboot,kernel"))?;
    let has_firmware = kernel.property(FLASH).is_some();
    let image = region(&Place::direct(kernel), 0, "multiboot,kernel")?;
    let is_flash = image.bytes == FLASH_BYTES && image.base.is_aligned(BLOCK);
    if has_firmware && !is_flash {
        return Err(bad(FLASH));
    }
    let cell = |property| match node.property(property) {
        Some(_) => u32::try_from(value(property)?).map_err(|_| bad(property)),
        None => Ok(0),
    };
    let bootargs = kernel.property("bootargs").map(|property| property.value_as::<&str>());
    Ok(DomainConfig {
        name: node.name(),
        cpus,
        schedule: schedule(node)?,
        memory_bytes: value("memory")?.checked_mul(1024).ok_or(bad("memory"))?,
        kernel: image,
        has_firmware,
        fw_cfg: place("stepwell,fw-cfg")?,
        time_of_day: (cell(TIME_OF_DAY)?, cell(TIME_OF_DAY_NS)?),
        linked: linked(kernel).map_err(bad)?,
        bootargs: bootargs.transpose().map_err(|_| bad("bootargs"))?.unwrap_or(""),
        ramdisk: place("multiboot,ramdisk")?,
        devicetree: place("multiboot,device-tree")?,
    })
}

/// In a kernel's module: it is no kernel, but both banks of the board's flash.
const FLASH: &str = "stepwell,flash";
/// In a domain: the time of day that it begins at, in seconds since 1970.
const TIME_OF_DAY: &str = "stepwell,time-of-day";
/// In a domain: how much of the next second has passed then.
const TIME_OF_DAY_NS: &str = "stepwell,time-of-day-ns";
/// Stage 2 maps it in blocks of this size.
const BLOCK: u64 = 2 << 20;

/// In a kernel's module: two addresses of two cells each, of its first byte and its entry. Xen's
/// binding leaves both to the kernel's header, which an ELF has none of.
const LINKED: &str = "stepwell,linked";

fn linked(kernel: FdtNode<'_>) -> Result<Option<Linked>, &'static str> {
    let Some(property) = kernel.property(LINKED) else { return Ok(None) };
    let (address, entry) = property.value().split_at_checked(8).ok_or(LINKED)?;
    let address = Ipa(number(address).ok_or(LINKED)?);
    Ok(Some(Linked { address, entry: Ipa(number(entry).ok_or(LINKED)?) }))
}

/// How vCPUs take turns, in the words of `stepwell record --schedule`.
fn schedule(node: FdtNode<'_>) -> Result<Option<Schedule>, HostTreeError> {
    const PROPERTY: &str = "stepwell,schedule";
    let Some(property) = node.property(PROPERTY) else { return Ok(None) };
    let word = property.value_as::<&str>().ok();
    let bad = HostTreeError::PropertyBad { node: "chosen/domU", property: PROPERTY };
    word.and_then(|word| word.parse().ok()).map(Some).ok_or(bad)
}
