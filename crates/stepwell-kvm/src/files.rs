//! What a guest is made of.

use stepwell_vm::image_layout::Linked;

/// A guest's files, and what is said of it.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The kernel's bytes, as they are to lie in memory.
    pub kernel: &'a [u8],
    /// Where it is linked, if it is an ELF.
    pub linked: Option<Linked>,
    /// The initial ramdisk.
    pub ramdisk: Option<&'a [u8]>,
    /// A device tree in place of ours.
    pub devicetree: Option<&'a [u8]>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// vCPUs.
    pub vcpus: usize,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// What the machine logs is shown.
    pub verbose: bool,
}
