//! Where everything lies: the guest's files in the guest's memory and in the machine's.
//!
//! In the machine's RAM the modules, the trace ring, the link's mailbox, the device channel and what is
//! set aside for checkpoints lie at the top, each on a 2 MiB border, so that the hypervisor can carve
//! the guest's memory out of what is below in one piece. In the
//! guest's RAM everything goes where QEMU's own loader would put it, so that a guest cannot tell.

use super::{Guest, MachineError, Memory};
use stepwell_arch::{Ipa, Pa};
use stepwell_link::{DEVICE_CHANNEL_BYTES, MAILBOX_BYTES};
use stepwell_trace::kernel_image::LoadPlan;
use stepwell_vm::device::flash::{BANK_BYTES, FLASH_BYTES};

/// First byte of the machine's RAM on `virt`.
pub(super) const MACHINE_RAM: Pa = Pa(0x4000_0000);
/// First byte of the guest's RAM.
pub const GUEST_RAM: Ipa = Ipa(0x4000_0000);
/// For the hypervisor itself, its heap, and the machine's device tree.
const HYPERVISOR_BYTES: u64 = 64 << 20;
/// Two million words: a full ring costs a stop, and this is half a second's worth.
const RING_BYTES: u64 = 16 << 20;
/// For what differs between the moments that are kept. What is not used of it is never touched, and
/// takes no memory; with the default guest's it is less than 1 GiB.
const CHECKPOINT_BYTES: u64 = 384 << 20;
const BLOCK: u64 = Memory::GRANULE;
/// QEMU moves an Image that would begin below this, to leave room for its own first instructions.
const LOADER_ROOM: u64 = 4096;
/// Where a kernel without a header goes.
const RAW_OFFSET: u64 = 0x8_0000;
/// The initial ramdisk goes to the middle of RAM, but no further than this.
const INITRD_OFFSET_MAX: u64 = 128 << 20;
/// Less than this no firmware can do anything with.
const FIRMWARE_NEEDS: u64 = 64 << 20;
/// The most that a generated device tree takes.
const TREE_BYTES: u64 = 1 << 20;

/// A piece of the machine's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first byte.
    pub address: Pa,
    /// Its length.
    pub bytes: u64,
}

impl Piece {
    /// Returns how far into the RAM file it begins.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.address.0 - MACHINE_RAM.0
    }
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the machine's RAM.
    pub ram_bytes: u64,
    /// The guest's memory.
    pub guest_bytes: u64,
    /// The kernel as handed to the hypervisor; or flash, where that has firmware.
    pub kernel: Piece,
    /// What fw_cfg hands out.
    pub fw_cfg: Option<Piece>,
    /// The initial ramdisk as handed to the hypervisor.
    pub initrd: Option<Piece>,
    /// The guest's device tree, where one is given.
    pub devicetree: Option<Piece>,
    /// The trace ring.
    pub ring: Piece,
    /// The link's mailbox.
    pub mailbox: Piece,
    /// What is set aside for checkpoints, where the machine can have them.
    pub checkpoints: Option<Piece>,
    /// The channel by which queues of devices are served.
    pub device_channel: Piece,
    /// Where the guest's kernel starts, in its own memory.
    pub kernel_load: Ipa,
    /// How much of its memory the kernel takes there.
    pub kernel_bytes: u64,
}

impl Layout {
    /// Where the machine's RAM begins, and with it the file.
    pub const RAM: Pa = MACHINE_RAM;

    /// Lays a guest out.
    ///
    /// # Errors
    ///
    /// [`MachineError::TooLittleMemory`].
    pub fn new(memory: Memory, guest: &Guest) -> Result<Self, MachineError> {
        Self::beside(memory, guest, None)
    }

    /// As [`Layout::new`], with memory set aside for checkpoints.
    ///
    /// # Errors
    ///
    /// As [`Layout::new`].
    pub fn with_checkpoints(memory: Memory, guest: &Guest) -> Result<Self, MachineError> {
        Self::beside(memory, guest, Some(CHECKPOINT_BYTES))
    }

    /// What is set aside for checkpoints comes first: QEMU puts its device tree below the modules, and
    /// the further from the beginning the more RAM there is.
    fn beside(
        memory: Memory,
        guest: &Guest,
        checkpoints: Option<u64>,
    ) -> Result<Self, MachineError> {
        let kernel_load = match guest.firmware {
            Some(_) => Ipa(0),
            None => GUEST_RAM.offset(kernel_offset(guest)),
        };
        let kernel_bytes = kernel_bytes(guest);
        if !fits(memory.bytes, guest) {
            let needed_mib = least_memory(guest) >> 20;
            return Err(MachineError::TooLittleMemory { needed_mib });
        }
        let mut next = MACHINE_RAM.offset(memory.bytes + HYPERVISOR_BYTES);
        let mut piece = |bytes: u64| {
            let address = next;
            next = next.offset(bytes.next_multiple_of(BLOCK));
            Piece { address, bytes }
        };
        let checkpoints = checkpoints.map(&mut piece);
        let kernel = match guest.firmware {
            Some(_) => piece(FLASH_BYTES),
            None => piece(guest.kernel.bytes.len() as u64),
        };
        let fw_cfg = guest.firmware.as_ref().map(|firmware| piece(firmware.fw_cfg.len() as u64));
        let initrd = guest.initrd.as_ref().map(|initrd| piece(initrd.len() as u64));
        let devicetree = guest.devicetree.as_ref().map(|tree| piece(tree.len() as u64));
        let ring = piece(RING_BYTES);
        let mailbox = piece(MAILBOX_BYTES);
        let device_channel = piece(DEVICE_CHANNEL_BYTES);
        Ok(Self {
            ram_bytes: next.0 - MACHINE_RAM.0,
            guest_bytes: memory.bytes,
            kernel,
            fw_cfg,
            initrd,
            devicetree,
            ring,
            mailbox,
            checkpoints,
            device_channel,
            kernel_load,
            kernel_bytes,
        })
    }

    /// Returns where the bank of flash is that the firmware's variables are in.
    #[must_use]
    pub const fn variables(&self) -> Piece {
        Piece { address: self.kernel.address.offset(BANK_BYTES), bytes: BANK_BYTES }
    }

    /// Returns what is to be written where in the machine's RAM.
    pub(super) fn pieces<'a>(&self, guest: &'a Guest) -> Vec<(Piece, &'a [u8])> {
        let optional = [(self.initrd, &guest.initrd), (self.devicetree, &guest.devicetree)];
        let optional =
            optional.into_iter().filter_map(|(piece, bytes)| Some((piece?, bytes.as_deref()?)));
        let fw_cfg = guest.firmware.as_ref().map(|firmware| firmware.fw_cfg.as_slice());
        let first = [(self.kernel, guest.kernel.bytes.as_slice())].into_iter();
        first.chain(self.fw_cfg.zip(fw_cfg)).chain(optional).collect()
    }
}

/// Returns how far into the guest's RAM its kernel starts.
fn kernel_offset(guest: &Guest) -> u64 {
    match guest.kernel.load {
        LoadPlan::Image { text_offset, .. } if text_offset >= LOADER_ROOM => text_offset,
        LoadPlan::Image { text_offset, .. } => text_offset + BLOCK,
        LoadPlan::Fixed { address, .. } => address.saturating_sub(GUEST_RAM.0),
        LoadPlan::Anywhere => RAW_OFFSET,
    }
}

fn kernel_bytes(guest: &Guest) -> u64 {
    let bytes = guest.kernel.bytes.len() as u64;
    match guest.kernel.load {
        LoadPlan::Image { image_size, .. } => image_size.max(bytes),
        LoadPlan::Fixed { .. } | LoadPlan::Anywhere => bytes,
    }
}

/// Tells whether kernel, ramdisk and device tree fit, and do not overlap.
fn fits(memory: u64, guest: &Guest) -> bool {
    if guest.firmware.is_some() {
        return FIRMWARE_NEEDS <= memory;
    }
    if let LoadPlan::Fixed { .. } = guest.kernel.load {
        // Wherever in RAM it is linked; the tree comes before it or not at all.
        return kernel_offset(guest).saturating_add(kernel_bytes(guest)) <= memory;
    }
    let initrd = (memory / 2).min(INITRD_OFFSET_MAX);
    let kernel_end = kernel_offset(guest).saturating_add(kernel_bytes(guest));
    let initrd_bytes = guest.initrd.as_ref().map_or(0, |initrd| initrd.len() as u64);
    let tree_bytes = guest.devicetree.as_ref().map_or(TREE_BYTES, |tree| tree.len() as u64);
    let tree = (initrd + initrd_bytes).next_multiple_of(BLOCK);
    kernel_end <= initrd && tree + tree_bytes <= memory
}

/// Returns the least memory that does.
fn least_memory(guest: &Guest) -> u64 {
    if guest.firmware.is_some() {
        return FIRMWARE_NEEDS;
    }
    if let LoadPlan::Fixed { .. } = guest.kernel.load {
        let end = kernel_offset(guest).saturating_add(kernel_bytes(guest));
        return end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
    }
    let files = kernel_offset(guest)
        .saturating_add(kernel_bytes(guest))
        .saturating_add(guest.initrd.as_ref().map_or(0, |initrd| initrd.len() as u64));
    let most = (files.saturating_mul(2) + 8 * BLOCK).next_multiple_of(BLOCK);
    (1..=most / BLOCK).map(|n| n * BLOCK).find(|&bytes| fits(bytes, guest)).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_trace::kernel_image::{KernelImage, RawPolicy};

    fn guest(load: LoadPlan, bytes: usize, initrd: Option<usize>) -> Guest {
        let mut kernel = KernelImage::recognise(vec![1; bytes], RawPolicy::Accept).unwrap();
        kernel.load = load;
        let initrd = initrd.map(|bytes| vec![2; bytes]);
        Guest {
            kernel,
            firmware: None,
            initrd,
            devicetree: None,
            command_line: String::new(),
            moves: true,
            loaded: None,
        }
    }

    fn image(text_offset: u64, image_size: u64) -> LoadPlan {
        LoadPlan::Image { text_offset, image_size, flags: 0 }
    }

    const MEMORY: Memory = Memory { bytes: 512 << 20 };

    #[test]
    fn kernels_start_where_qemu_would_start_them() {
        let load = |plan| Layout::new(MEMORY, &guest(plan, 100, None)).unwrap().kernel_load;
        assert_eq!(load(image(0, 1 << 20)), Ipa(0x4020_0000));
        assert_eq!(load(image(0x8_0000, 1 << 20)), Ipa(0x4008_0000));
        assert_eq!(load(LoadPlan::Anywhere), Ipa(0x4008_0000));
    }

    #[test]
    fn an_elf_may_be_anywhere_in_ram() {
        let at = |address| guest(LoadPlan::Fixed { address, entry: address }, 0x1000, None);
        for address in [0x4000_0000, 0x4800_0000, 0x5fff_f000] {
            let layout = Layout::new(MEMORY, &at(address)).unwrap();
            assert_eq!(layout.kernel_load, Ipa(address));
        }
        let error = Layout::new(MEMORY, &at(0x6000_0000)).unwrap_err();
        assert!(matches!(error, MachineError::TooLittleMemory { needed_mib: 514 }), "{error}");
    }

    #[test]
    fn nothing_overlaps_in_the_machine() {
        let guest = guest(image(0, 48 << 20), 27 << 20, Some(5 << 20 | 1));
        let layout = Layout::with_checkpoints(MEMORY, &guest).unwrap();
        let mut end = MACHINE_RAM.offset(MEMORY.bytes + HYPERVISOR_BYTES);
        let Layout { kernel, ring, mailbox, device_channel, .. } = layout;
        let (set_aside, initrd) = (layout.checkpoints.unwrap(), layout.initrd.unwrap());
        for piece in [set_aside, kernel, initrd, ring, mailbox, device_channel] {
            assert!(piece.address >= end && piece.address.is_aligned(BLOCK), "{layout:x?}");
            end = piece.address.offset(piece.bytes);
        }
        assert!(end.0 <= MACHINE_RAM.0 + layout.ram_bytes);
        assert!(layout.ram_bytes.is_multiple_of(BLOCK));
        assert_eq!(layout.pieces(&guest).len(), 2);
        let plain = Layout::new(MEMORY, &guest).unwrap();
        assert_eq!(
            (plain.checkpoints, plain.ram_bytes),
            (None, layout.ram_bytes - set_aside.bytes)
        );
    }

    #[test]
    fn too_little_memory_is_refused_with_an_amount_that_does() {
        let guest = guest(image(0, 48 << 20), 27 << 20, Some(5 << 20));
        let error = Layout::new(Memory { bytes: 32 << 20 }, &guest).unwrap_err();
        let MachineError::TooLittleMemory { needed_mib } = error else { panic!("{error}") };
        assert_eq!(needed_mib, 100);
        assert!(Layout::new(Memory { bytes: needed_mib << 20 }, &guest).is_ok());
        assert!(Layout::new(Memory { bytes: (needed_mib - 2) << 20 }, &guest).is_err());
    }
}
