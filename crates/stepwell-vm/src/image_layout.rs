//! Where a guest's images lie in its memory.
//!
//! QEMU's choices for `virt` (its `hw/arm/boot.c` decides), so that a guest that was made for that
//! board, or is compared with a run there, finds the same.

use crate::device::board::RAM_BASE;
use stepwell_arch::Ipa;

const MIB: u64 = 1 << 20;
/// Where QEMU puts a kernel that does not say.
const DEFAULT_TEXT_OFFSET: u64 = 0x8_0000;
const IMAGE_MAGIC: &[u8] = b"ARM\x64";

/// Where a guest's images lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The kernel, whose first byte is its entry.
    pub kernel: Ipa,
    /// The ramdisk.
    pub ramdisk: Ipa,
    /// The device tree.
    pub tree: Ipa,
}

/// Lays a guest's images out as QEMU's loader does for an arm64 kernel.
#[must_use]
pub fn layout(header: &[u8], memory_bytes: u64, kernel_bytes: u64, ramdisk_bytes: u64) -> Layout {
    let quad = |at: usize| {
        let bytes = header.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let is_image = header.get(0x38..0x3c) == Some(IMAGE_MAGIC);
    let (mut offset, mut bytes) = (DEFAULT_TEXT_OFFSET, kernel_bytes);
    // An image_size of 0 is that of a kernel older than 3.17, whose text_offset means nothing.
    if let (true, Some(text_offset), Some(image_bytes)) = (is_image, quad(8), quad(16))
        && image_bytes != 0
    {
        bytes = bytes.max(image_bytes);
        // QEMU keeps the first 4 KiB for its boot code.
        offset = if text_offset < 4096 { text_offset.saturating_add(2 * MIB) } else { text_offset };
    }
    let kernel = Ipa(RAM_BASE.0.saturating_add(offset));
    let kernel_end = kernel.0.saturating_add(bytes);
    let half = RAM_BASE.0 + (memory_bytes / 2).min(128 * MIB);
    let ramdisk = align_up(half.max(kernel_end), 4096);
    let tree = align_up(ramdisk.0.saturating_add(ramdisk_bytes), 2 * MIB);
    Layout { kernel, ramdisk, tree }
}

/// Rounds up, or to the last address of all where that is out of reach.
fn align_up(address: u64, size: u64) -> Ipa {
    Ipa(address.checked_next_multiple_of(size).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text_offset: u64, image_bytes: u64) -> Vec<u8> {
        let mut header = vec![0; 64];
        header[8..16].copy_from_slice(&text_offset.to_le_bytes());
        header[16..24].copy_from_slice(&image_bytes.to_le_bytes());
        header[0x38..0x3c].copy_from_slice(IMAGE_MAGIC);
        header
    }

    #[test]
    fn debians_kernel_lies_where_qemu_puts_it() {
        // Figures of linux-image-6.1.0-56-cloud-arm64, in a machine of 512 MiB.
        let places = layout(&header(0, 27_983_872), 512 * MIB, 27_303_872, 1_000_000);
        assert_eq!(places.kernel, Ipa(0x4020_0000));
        assert_eq!(places.ramdisk, Ipa(0x4800_0000));
        assert_eq!(places.tree, Ipa(0x4820_0000));
    }

    #[test]
    fn a_small_machine_has_its_ramdisk_at_the_half() {
        let places = layout(&header(0x8_0000, MIB), 64 * MIB, MIB, 0);
        assert_eq!(places.kernel, Ipa(0x4008_0000));
        assert_eq!(places.ramdisk, Ipa(0x4200_0000));
        assert_eq!(places.tree, Ipa(0x4200_0000));
    }

    #[test]
    fn the_ramdisk_comes_after_a_kernel_that_reaches_beyond_the_half() {
        let places = layout(&header(0, 60 * MIB), 64 * MIB, MIB, 5);
        assert_eq!(places.ramdisk, Ipa(0x4020_0000 + 60 * MIB));
        assert!(places.tree > places.ramdisk);
    }

    #[test]
    fn what_is_no_image_lies_where_qemu_puts_raw_code() {
        assert_eq!(layout(&[0; 64], 128 * MIB, 4096, 0).kernel, Ipa(0x4008_0000));
        assert_eq!(layout(&[], 128 * MIB, 0, 0).kernel, Ipa(0x4008_0000));
        // text_offset means nothing where image_size is 0: kernels before 3.17.
        assert_eq!(layout(&header(0x1234_0000, 0), 128 * MIB, 0, 0).kernel, Ipa(0x4008_0000));
    }

    #[test]
    fn absurd_headers_do_not_overflow() {
        let places = layout(&header(u64::MAX, u64::MAX), u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(places.tree, Ipa(u64::MAX), "outside of any memory");
    }
}
