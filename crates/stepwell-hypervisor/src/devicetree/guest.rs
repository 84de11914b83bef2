//! The guest's device tree.

use stepwell_arch::Ipa;

/// What varies from guest to guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestTree<'a> {
    /// vCPUs.
    pub vcpus: usize,
    /// `compatible` of a CPU.
    pub cpu_compatible: &'a str,
    /// RAM.
    pub memory_bytes: u64,
    /// Command line.
    pub bootargs: &'a str,
    /// Initial ramdisk: first address, bytes.
    pub initrd: Option<(Ipa, u64)>,
}

/// Why no tree was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestTreeError {
    /// Ours: the buffer is too small.
    #[error("the guest's device tree does not fit into {0} bytes")]
    TooSmall(usize),
}

impl GuestTree<'_> {
    /// Writes the tree; returns its length.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, GuestTreeError> {
        Err(GuestTreeError::TooSmall(buffer.len()))
    }
}
