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
/// What QEMU's device tree for `virt` is made to have.
const QEMU_TREE_BYTES: u64 = MIB;

/// What a guest is started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Images<'a> {
    /// The kernel's first bytes, 64 if there are so many.
    pub header: &'a [u8],
    /// Bytes of the kernel.
    pub kernel_bytes: u64,
    /// Bytes of the ramdisk; 0 where there is none.
    pub ramdisk_bytes: u64,
    /// Where the kernel is linked, if that was said: an ELF.
    pub linked: Option<Linked>,
    /// The board's flash has firmware, which is started in place of a kernel.
    pub has_firmware: bool,
}

/// What an ELF says about where it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Its first byte.
    pub address: Ipa,
    /// Its entry.
    pub entry: Ipa,
}

/// Where a guest's images lie, and how it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The kernel's first byte.
    pub kernel: Ipa,
    /// Where the first vCPU begins.
    pub entry: Ipa,
    /// What it has in X0.
    pub argument: u64,
    /// What it has in X4: QEMU's boot code branches to a kernel by that register, and leaves it so.
    pub branched_by: u64,
    /// The ramdisk.
    pub ramdisk: Ipa,
    /// The device tree, in each of these places.
    pub trees: [Option<Ipa>; 2],
}

/// Lays a guest's images out as QEMU's loader does: a Linux kernel by its boot protocol, and an ELF as
/// firmware, where it is linked.
#[must_use]
pub fn layout(images: Images<'_>, memory_bytes: u64) -> Layout {
    match images.linked {
        _ if images.has_firmware => FIRMWARE_LAYOUT,
        Some(linked) => linked_layout(linked, memory_bytes),
        None => kernel_layout(images, memory_bytes),
    }
}

/// Firmware begins at the start of flash, with nothing in X0, and finds its device tree at the start of
/// RAM. There is nothing else in RAM: a kernel is fw_cfg's to hand out.
const FIRMWARE_LAYOUT: Layout = Layout {
    kernel: Ipa(0),
    entry: Ipa(0),
    argument: 0,
    branched_by: 0,
    ramdisk: RAM_BASE,
    trees: [Some(RAM_BASE), None],
};

/// An ELF begins at its entry, with nothing in X0. Its device tree is at the start of RAM, if QEMU's
/// tree would fit below the ELF. It is started without a ramdisk.
fn linked_layout(linked: Linked, memory_bytes: u64) -> Layout {
    let room = linked.address.0.saturating_sub(RAM_BASE.0);
    Layout {
        kernel: linked.address,
        entry: linked.entry,
        argument: 0,
        branched_by: 0,
        ramdisk: ramdisk_place(memory_bytes, 0),
        trees: [(room >= QEMU_TREE_BYTES).then_some(RAM_BASE), None],
    }
}

fn kernel_layout(images: Images<'_>, memory_bytes: u64) -> Layout {
    let Images { header, kernel_bytes, ramdisk_bytes, .. } = images;
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
    let ramdisk = ramdisk_place(memory_bytes, kernel.0.saturating_add(bytes));
    let tree = align_up(ramdisk.0.saturating_add(ramdisk_bytes), 2 * MIB);
    // U-Boot, which has no header, looks for its tree at the start of RAM whatever X0 says. QEMU has
    // boot code there, of which nothing is left to know.
    let at_start = (!is_image).then_some(RAM_BASE);
    Layout {
        kernel,
        entry: kernel,
        argument: tree.0,
        branched_by: kernel.0,
        ramdisk,
        trees: [Some(tree), at_start],
    }
}

/// In the middle of RAM, but not beyond 128 MiB, or behind the kernel.
fn ramdisk_place(memory_bytes: u64, kernel_end: u64) -> Ipa {
    let half = RAM_BASE.0 + (memory_bytes / 2).min(128 * MIB);
    align_up(half.max(kernel_end), 4096)
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

    fn of_kernel(header: &[u8], memory: u64, kernel_bytes: u64, ramdisk_bytes: u64) -> Layout {
        layout(Images { header, kernel_bytes, ramdisk_bytes, ..Images::default() }, memory)
    }

    fn of_elf(address: u64, entry: u64) -> Layout {
        let linked = Some(Linked { address: Ipa(address), entry: Ipa(entry) });
        layout(Images { linked, ..Images::default() }, 512 * MIB)
    }

    #[test]
    fn an_elf_is_entered_as_firmware() {
        let places = of_elf(0x5000_0000, 0x5000_0010);
        assert_eq!((places.kernel, places.entry), (Ipa(0x5000_0000), Ipa(0x5000_0010)));
        assert_eq!((places.argument, places.trees), (0, [Some(RAM_BASE), None]));
        assert_eq!(places.branched_by, 0, "it is started without boot code");
        // Seen on QEMU 7.2 and 10.
        assert_eq!(of_elf(0x4010_0000, 0).trees[0], Some(RAM_BASE));
        assert_eq!(of_elf(0x4008_0000, 0).trees[0], None, "too little room for QEMU's tree");
        assert_eq!(of_elf(0x4000_0000, 0x4000_0000).trees[0], None);
    }

    #[test]
    fn firmware_is_entered_in_flash() {
        let places = layout(Images { has_firmware: true, ..Images::default() }, 512 * MIB);
        assert_eq!((places.entry, places.argument, places.branched_by), (Ipa(0), 0, 0));
        assert_eq!(places.trees, [Some(RAM_BASE), None]);
    }

    #[test]
    fn debians_kernel_lies_where_qemu_puts_it() {
        // Figures of linux-image-6.1.0-56-cloud-arm64, in a machine of 512 MiB.
        let places = of_kernel(&header(0, 27_983_872), 512 * MIB, 27_303_872, 1_000_000);
        assert_eq!(places.kernel, Ipa(0x4020_0000));
        assert_eq!(places.ramdisk, Ipa(0x4800_0000));
        assert_eq!(places.trees, [Some(Ipa(0x4820_0000)), None]);
    }

    #[test]
    fn a_small_machine_has_its_ramdisk_at_the_half() {
        let places = of_kernel(&header(0x8_0000, MIB), 64 * MIB, MIB, 0);
        assert_eq!(places.kernel, Ipa(0x4008_0000));
        assert_eq!(places.ramdisk, Ipa(0x4200_0000));
        assert_eq!((places.argument, places.entry), (0x4200_0000, places.kernel));
        assert_eq!(places.branched_by, places.entry.0);
    }

    #[test]
    fn the_ramdisk_comes_after_a_kernel_that_reaches_beyond_the_half() {
        let places = of_kernel(&header(0, 60 * MIB), 64 * MIB, MIB, 5);
        assert_eq!(places.ramdisk, Ipa(0x4020_0000 + 60 * MIB));
        assert!(places.argument > places.ramdisk.0);
    }

    #[test]
    fn what_is_no_image_lies_where_qemu_puts_raw_code() {
        assert_eq!(of_kernel(&[0; 64], 128 * MIB, 4096, 0).kernel, Ipa(0x4008_0000));
        let places = of_kernel(&[], 128 * MIB, 0, 0);
        assert_eq!(places.kernel, Ipa(0x4008_0000));
        assert_eq!(places.trees, [Some(Ipa(0x4400_0000)), Some(RAM_BASE)], "U-Boot looks there");
        // text_offset means nothing where image_size is 0: kernels before 3.17.
        assert_eq!(of_kernel(&header(0x1234_0000, 0), 128 * MIB, 0, 0).kernel, Ipa(0x4008_0000));
    }

    #[test]
    fn absurd_headers_do_not_overflow() {
        let places = of_kernel(&header(u64::MAX, u64::MAX), u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(places.argument, u64::MAX, "outside of any memory");
    }
}
