//! What the machine's device tree says: what there is to run on, and which domains to make.
//!
//! The tree is that of the board, by its firmware, its boot loader or QEMU, with the domains added
//! in the form of Xen's dom0less binding. Nothing in it is trusted to be there or to
//! have a sensible size: each thing that we need and don't find has an error that names it, since
//! "does not boot" with an empty log is the worst a boot loader can do to its user.
//!
//! | file | reads |
//! | --- | --- |
//! | `host/memory.rs` | RAM, and what of it is somebody else's |
//! | `host/cpus.rs` | CPUs, and how they are switched on |
//! | `host/interrupts.rs` | the GIC, and the interrupts that EL2 takes |
//! | `host/domains.rs` | the guests |

mod cpus;
mod domains;
mod error;
mod interrupts;
mod memory;

pub use super::range::Range;
pub use cpus::{Conduit, conduit};
pub use domains::DomainConfig;
pub use error::HostTreeError;
pub use interrupts::{Gic, Intids, VirtioSlot};
pub use memory::{Reserved, banks};

use super::{blob, range};
use crate::console::{self, Console};
use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};
use heapless::Vec;

/// What the tree says, as far as we want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTree<'a> {
    /// RAM.
    pub memory: Vec<Range, { memory::MAX_BANKS }>,
    /// What of the RAM, or beside it, is not ours.
    pub reserved: Vec<Reserved, { memory::MAX_RESERVED }>,
    /// Affinity (MPIDR_EL1) of each CPU, in the tree's order.
    pub cpus: Vec<u64, { cpus::MAX_CPUS }>,
    /// First `compatible` of the first CPU, to be passed on to guests.
    pub cpu_compatible: &'a str,
    /// The GICv3.
    pub gic: Gic,
    /// The interrupts that EL2 takes.
    pub intids: Intids,
    /// The UART for the hypervisor's own log.
    pub console: Option<Console>,
    /// virtio-mmio slots, the lowest address first.
    pub virtio: Vec<VirtioSlot, 32>,
    /// How to call PSCI, if it can be.
    pub psci: Option<Conduit>,
    /// Where the trace ring is.
    pub trace_ring: Option<Range>,
    /// Where the link's mailbox is.
    pub mailbox: Option<Range>,
    /// What is set aside for the moments that are kept of a domain.
    pub checkpoints: Option<Range>,
    /// Where the device channel is.
    pub device_channel: Option<Range>,
    /// RAM that nothing was loaded to is known to be zero.
    pub is_zeroed: bool,
    /// What the test mode is to do; only an image that was built with it takes this.
    pub test_mode: Option<&'a str>,
    /// The domains.
    pub domains: Vec<DomainConfig<'a>, 8>,
}

/// Reads the machine's tree.
///
/// # Errors
///
/// Any [`HostTreeError`].
pub fn parse(bytes: &[u8]) -> Result<HostTree<'_>, HostTreeError> {
    let tree = blob::open(bytes).ok_or(HostTreeError::NotATree)?;
    let root = tree.root();
    let (cpus, cpu_compatible) = cpus::cpus(root)?;
    let (gic, cells, maintenance) = interrupts::gic(root)?;
    let chosen = root.child("chosen");
    Ok(HostTree {
        memory: memory::banks(root)?,
        reserved: memory::reserved(tree)?,
        cpus,
        cpu_compatible,
        gic,
        intids: interrupts::intids(root, cells, maintenance),
        console: console::find(root),
        virtio: interrupts::virtio(root, cells)?,
        psci: conduit(root)?,
        trace_ring: chosen.map(|node| shared(node, "stepwell,trace-ring")).transpose()?.flatten(),
        mailbox: chosen.map(|node| shared(node, "stepwell,mailbox")).transpose()?.flatten(),
        checkpoints: chosen.map(|node| shared(node, "stepwell,checkpoints")).transpose()?.flatten(),
        device_channel: chosen
            .map(|node| shared(node, "stepwell,device-channel"))
            .transpose()?
            .flatten(),
        is_zeroed: chosen.is_some_and(|chosen| chosen.property(ZEROED_MEMORY).is_some()),
        test_mode: chosen.map(test_mode).transpose()?.flatten(),
        domains: chosen.map(domains::domains).transpose()?.unwrap_or_default(),
    })
}

/// In `/chosen`: the RAM is zero but for what was loaded to places that the boot protocol and this
/// tree name.
const ZEROED_MEMORY: &str = "stepwell,zeroed-memory";

/// RAM that the tool has set aside.
fn shared(chosen: FdtNode<'_>, name: &'static str) -> Result<Option<Range>, HostTreeError> {
    let Some(property) = chosen.property(name) else { return Ok(None) };
    let bad = HostTreeError::PropertyBad { node: "chosen", property: name };
    let (base, bytes) = property.value().split_at_checked(8).ok_or(bad)?;
    let shared =
        range::of(range::number(base).ok_or(()), range::number(bytes).ok_or(())).ok_or(bad)?;
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

#[cfg(test)]
mod tests;
