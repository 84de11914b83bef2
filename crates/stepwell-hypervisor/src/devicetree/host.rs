//! What the machine's device tree says.

use heapless::Vec;
use stepwell_arch::Pa;

/// Base and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: Pa,
    /// Bytes.
    pub bytes: u64,
}

/// How firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// A virtio-mmio slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioSlot {
    /// Registers.
    pub registers: Range,
    /// INTID.
    pub intid: u32,
}

/// A domain to build, from `/chosen/domU…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConfig<'a> {
    /// Node name.
    pub name: &'a str,
    /// vCPUs.
    pub cpus: usize,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// Kernel image.
    pub kernel: Range,
    /// Command line.
    pub bootargs: &'a str,
    /// Initial ramdisk.
    pub ramdisk: Option<Range>,
    /// Guest device tree to use verbatim.
    pub devicetree: Option<Range>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<'a> {
    /// RAM.
    pub memory: Vec<Range, 8>,
    /// MPIDR affinity of each CPU.
    pub cpus: Vec<u64, 8>,
    /// `compatible` of the first CPU.
    pub cpu_compatible: &'a str,
    /// GICv3 distributor.
    pub distributor: Range,
    /// GICv3 redistributors.
    pub redistributors: Range,
    /// Console.
    pub pl011: Option<Range>,
    /// virtio-mmio slots, lowest address first.
    pub virtio: Vec<VirtioSlot, 32>,
    /// PSCI conduit.
    pub psci: Conduit,
    /// Trace ring.
    pub trace_ring: Option<Range>,
    /// Domains.
    pub domains: Vec<DomainConfig<'a>, 8>,
}

/// Blames the tool (or firmware) that wrote the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostTreeError {
    /// Not a device tree.
    #[error("not a device tree")]
    NotATree,
}

/// Reads the machine's tree; `dtb` may be longer than the tree.
pub fn parse(dtb: &[u8]) -> Result<Machine<'_>, HostTreeError> {
    let _ = dtb;
    Err(HostTreeError::NotATree)
}

/// Length of the tree by its header, from its first 8 bytes.
#[must_use]
pub fn total_size(header: &[u8]) -> Option<usize> {
    let _ = header;
    None
}
