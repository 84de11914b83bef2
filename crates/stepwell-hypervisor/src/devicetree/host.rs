//! What the machine's device tree says: what there is to run on, and which domains to make.
//!
//! The tree comes from the tool, which adds the domains to what QEMU (or a board's firmware)
//! describes, in the form of Xen's dom0less binding. Nothing in it is trusted to be there or to
//! have a sensible size: each thing that we need and don't find has an error that names it, since
//! "does not boot" with an empty log is the worst a boot loader can do to its user.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property, ToCellInt};
use heapless::Vec;
use stepwell_arch::Pa;
use thiserror::Error;

/// Base and length of something in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: Pa,
    /// Bytes; the range ends within 64 bits.
    pub bytes: u64,
}

/// How the machine's firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// A place where a virtio device may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioSlot {
    /// Its registers.
    pub registers: Range,
    /// Its interrupt.
    pub intid: u32,
}

/// A domain to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConfig<'a> {
    /// Name of its node.
    pub name: &'a str,
    /// Number of vCPUs, at least one.
    pub cpus: usize,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// The kernel's image.
    pub kernel: Range,
    /// The kernel's command line.
    pub bootargs: &'a str,
    /// The initial ramdisk.
    pub ramdisk: Option<Range>,
    /// A device tree to hand to the guest as it is.
    pub devicetree: Option<Range>,
}

/// What the tree says, as far as we want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<'a> {
    /// RAM.
    pub memory: Vec<Range, 8>,
    /// Affinity (MPIDR_EL1) of each CPU.
    pub cpus: Vec<u64, 8>,
    /// First `compatible` of the first CPU, to be passed on to guests.
    pub cpu_compatible: &'a str,
    /// The GICv3's distributor.
    pub distributor: Range,
    /// The GICv3's first region of redistributors.
    pub redistributors: Range,
    /// The console, for the hypervisor's own log.
    pub pl011: Option<Range>,
    /// virtio-mmio slots, the lowest address first.
    pub virtio: Vec<VirtioSlot, 32>,
    /// How to call PSCI.
    pub psci: Conduit,
    /// Where the trace ring is.
    pub trace_ring: Option<Range>,
    /// Where the link's mailbox is.
    pub mailbox: Option<Range>,
    /// What the test mode is to do; only an image that was built with it takes this.
    pub test_mode: Option<&'a str>,
    /// The domains.
    pub domains: Vec<DomainConfig<'a>, 8>,
}

/// What is wrong with the tree: the tool's fault, or the firmware's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostTreeError {
    /// It does not begin with a header, is cut short or is damaged.
    #[error("the machine's device tree is damaged")]
    NotATree,
    /// A node is missing.
    #[error("the machine's device tree has no {0} node")]
    NodeMissing(&'static str),
    /// A property is missing.
    #[error("the machine's device tree lacks {property} in {node}")]
    PropertyMissing {
        /// The node.
        node: &'static str,
        /// The property.
        property: &'static str,
    },
    /// A property has a wrong length or an impossible value.
    #[error("the machine's device tree has a bad {property} in {node}")]
    PropertyBad {
        /// The node.
        node: &'static str,
        /// The property.
        property: &'static str,
    },
    /// There are more of something than we have room for.
    #[error("the machine's device tree has too many {0}")]
    TooMany(&'static str),
}

/// Returns the length of a tree by its header, whose first 8 bytes are enough.
#[must_use]
pub fn total_bytes(header: &[u8]) -> Option<usize> {
    const MAGIC: u32 = 0xd00d_feed;
    let word = |at: usize| {
        let bytes = header.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    };
    usize::try_from(word(4)?).ok().filter(|_| word(0) == Some(MAGIC))
}

/// Reads the machine's tree, which may be followed by anything.
///
/// # Errors
///
/// Any [`HostTreeError`].
pub fn parse(bytes: &[u8]) -> Result<Machine<'_>, HostTreeError> {
    let tree = total_bytes(bytes).and_then(|length| bytes.get(..length));
    let tree = Fdt::new(tree.ok_or(HostTreeError::NotATree)?);
    let tree = tree.map_err(|_| HostTreeError::NotATree)?;
    let root = tree.root();
    let (cpus, cpu_compatible) = cpus(root)?;
    let gic = device(root, "arm,gic-v3").ok_or(HostTreeError::NodeMissing("arm,gic-v3"))?;
    let chosen = root.child("chosen");
    Ok(Machine {
        memory: memory(root)?,
        cpus,
        cpu_compatible,
        distributor: region(gic, 0, "arm,gic-v3")?,
        redistributors: region(gic, 1, "arm,gic-v3")?,
        pl011: device(root, "arm,pl011").map(|node| region(node, 0, "arm,pl011")).transpose()?,
        virtio: virtio(root)?,
        psci: psci(root)?,
        trace_ring: chosen.map(|node| shared(node, "stepwell,trace-ring")).transpose()?.flatten(),
        mailbox: chosen.map(|node| shared(node, "stepwell,mailbox")).transpose()?.flatten(),
        test_mode: chosen.map(test_mode).transpose()?.flatten(),
        domains: chosen.map(domains).transpose()?.unwrap_or_default(),
    })
}

/// Finds a device in use at the top of the tree.
fn device<'a>(root: FdtNode<'a>, compatible: &str) -> Option<FdtNode<'a>> {
    root.children().find(|node| node.is_compatible(compatible) && is_in_use(*node))
}

fn is_in_use(node: FdtNode<'_>) -> bool {
    node.property("status").is_none_or(|status| matches!(status.value(), b"okay\0" | b"ok\0"))
}

/// Returns one of the ranges of a node's `reg`.
fn region(node: FdtNode<'_>, index: usize, name: &'static str) -> Result<Range, HostTreeError> {
    let bad = HostTreeError::PropertyBad { node: name, property: "reg" };
    let mut ranges = node
        .reg()
        .map_err(|_| bad)?
        .ok_or(HostTreeError::PropertyMissing { node: name, property: "reg" })?;
    let reg = ranges.nth(index).ok_or(bad)?;
    range(reg.address.to_int(), reg.size.to_int()).ok_or(bad)
}

/// Makes a range of two numbers, unless it would end beyond 64 bits.
fn range<E>(base: Result<u64, E>, bytes: Result<u64, E>) -> Option<Range> {
    let (base, bytes) = (base.ok()?, bytes.ok()?);
    base.checked_add(bytes).map(|_| Range { base: Pa(base), bytes })
}

fn memory(root: FdtNode<'_>) -> Result<Vec<Range, 8>, HostTreeError> {
    let is_memory = |node: &FdtNode<'_>| {
        node.property("device_type").is_some_and(|kind| kind.value() == b"memory\0")
    };
    let bad = HostTreeError::PropertyBad { node: "memory", property: "reg" };
    let mut memory = Vec::new();
    for node in root.children().filter(is_memory) {
        for reg in node.reg().map_err(|_| bad)?.into_iter().flatten() {
            let range = range(reg.address.to_int(), reg.size.to_int()).ok_or(bad)?;
            memory.push(range).map_err(|_| HostTreeError::TooMany("memory ranges"))?;
        }
    }
    if memory.is_empty() { Err(HostTreeError::NodeMissing("memory")) } else { Ok(memory) }
}

fn cpus<'a>(root: FdtNode<'a>) -> Result<(Vec<u64, 8>, &'a str), HostTreeError> {
    let node = root.child("cpus").ok_or(HostTreeError::NodeMissing("cpus"))?;
    let bad = HostTreeError::PropertyBad { node: "cpu", property: "reg" };
    let mut found = Vec::new();
    let mut compatible = None;
    for cpu in node.children().filter(|cpu| cpu.name_without_address() == "cpu") {
        // A CPU's reg has an address and no size.
        let reg = cpu
            .property("reg")
            .ok_or(HostTreeError::PropertyMissing { node: "cpu", property: "reg" })?;
        let affinity = number(reg.value()).ok_or(bad)?;
        found.push(affinity).map_err(|_| HostTreeError::TooMany("CPUs"))?;
        compatible = compatible.or_else(|| cpu.compatible()?.next());
    }
    if found.is_empty() {
        return Err(HostTreeError::NodeMissing("cpu"));
    }
    let missing = HostTreeError::PropertyMissing { node: "cpu", property: "compatible" };
    Ok((found, compatible.ok_or(missing)?))
}

fn virtio(root: FdtNode<'_>) -> Result<Vec<VirtioSlot, 32>, HostTreeError> {
    const NAME: &str = "virtio,mmio";
    const SPI: u32 = 0;
    let mut slots = Vec::new();
    for node in root.children().filter(|node| node.is_compatible(NAME) && is_in_use(*node)) {
        let bad = HostTreeError::PropertyBad { node: NAME, property: "interrupts" };
        let interrupts = node.property("interrupts").ok_or(bad)?;
        let [kind, number, _flags] = interrupts.value_as::<[u32; 3]>().map_err(|_| bad)?;
        let intid = number.checked_add(32).filter(|&n| kind == SPI && n < 1020).ok_or(bad)?;
        let slot = VirtioSlot { registers: region(node, 0, NAME)?, intid };
        slots.push(slot).map_err(|_| HostTreeError::TooMany("virtio-mmio slots"))?;
    }
    slots.sort_unstable_by_key(|slot| slot.registers.base);
    Ok(slots)
}

fn psci(root: FdtNode<'_>) -> Result<Conduit, HostTreeError> {
    let node = ["arm,psci-1.0", "arm,psci-0.2"].iter().find_map(|name| device(root, name));
    let node = node.ok_or(HostTreeError::NodeMissing("psci"))?;
    let method = node.property("method");
    match method.as_ref().map(Property::value) {
        Some(b"hvc\0") => Ok(Conduit::Hvc),
        Some(b"smc\0") => Ok(Conduit::Smc),
        Some(_) => Err(HostTreeError::PropertyBad { node: "psci", property: "method" }),
        None => Err(HostTreeError::PropertyMissing { node: "psci", property: "method" }),
    }
}

/// RAM that the tool maps as well.
fn shared(chosen: FdtNode<'_>, name: &'static str) -> Result<Option<Range>, HostTreeError> {
    let Some(property) = chosen.property(name) else { return Ok(None) };
    let bad = HostTreeError::PropertyBad { node: "chosen", property: name };
    let (base, bytes) = property.value().split_at_checked(8).ok_or(bad)?;
    let shared = range(number(base).ok_or(()), number(bytes).ok_or(())).ok_or(bad)?;
    if !shared.base.is_aligned(0x1000) || shared.bytes == 0 {
        return Err(bad);
    }
    Ok(Some(shared))
}

fn test_mode(chosen: FdtNode<'_>) -> Result<Option<&str>, HostTreeError> {
    const PROPERTY: &str = "stepwell,test-mode";
    let Some(property) = chosen.property(PROPERTY) else { return Ok(None) };
    let words = property.value_as::<&str>();
    words.map(Some).map_err(|_| HostTreeError::PropertyBad { node: "chosen", property: PROPERTY })
}

fn domains<'a>(chosen: FdtNode<'a>) -> Result<Vec<DomainConfig<'a>, 8>, HostTreeError> {
    let mut domains = Vec::new();
    for node in chosen.children().filter(|node| node.is_compatible("xen,domain")) {
        domains.push(domain(node)?).map_err(|_| HostTreeError::TooMany("domains"))?;
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
    let place = |name| module(name).map(|module| region(module, 0, name)).transpose();

    let cpus = usize::try_from(value("cpus")?).ok().filter(|&n| n > 0).ok_or(bad("cpus"))?;
    let kernel =
        module("multiboot,kernel").ok_or(HostTreeError::NodeMissing("multiboot,kernel"))?;
    let bootargs = kernel.property("bootargs").map(|property| property.value_as::<&str>());
    Ok(DomainConfig {
        name: node.name(),
        cpus,
        memory_bytes: value("memory")?.checked_mul(1024).ok_or(bad("memory"))?,
        kernel: region(kernel, 0, "multiboot,kernel")?,
        bootargs: bootargs.transpose().map_err(|_| bad("bootargs"))?.unwrap_or(""),
        ramdisk: place("multiboot,ramdisk")?,
        devicetree: place("multiboot,device-tree")?,
    })
}

/// Reads a number of one or two cells.
fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => value.try_into().ok().map(u32::from_be_bytes).map(u64::from),
        8 => value.try_into().ok().map(u64::from_be_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
