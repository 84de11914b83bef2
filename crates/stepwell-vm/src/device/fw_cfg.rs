//! fw_cfg: what QEMU's boards tell their firmware, item by item.
//!
//! Items are numbers and named files, chosen by a selector, and read byte by byte from a data register or
//! all at once by a transfer into memory that the guest describes. What they hold the tool has laid out
//! beforehand ([`Items`]); there is nothing that a guest could write.
//!
//! Source: QEMU's documentation, "QEMU Firmware Configuration (fw_cfg) Device".

use alloc::vec::Vec;

/// First address of its registers.
pub const FW_CFG_BASE: u64 = 0x0902_0000;
/// Bytes of them.
pub const FW_CFG_BYTES: u64 = 0x18;

const SELECTOR: u64 = 0x08;
const DMA: u64 = 0x10;
const DMA_LOW: u64 = 0x14;
/// What the DMA register reads as, in the order of memory.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Keys of items: `FW_CFG_*` of QEMU's.
pub mod key {
    /// That this is fw_cfg.
    pub const SIGNATURE: u16 = 0x00;
    /// Which ways to read it there are.
    pub const ID: u16 = 0x01;
    /// vCPUs that are there.
    pub const NB_CPUS: u16 = 0x05;
    /// Bytes of the kernel.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Bytes of the initial ramdisk.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// vCPUs that there can be.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The kernel.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial ramdisk.
    pub const INITRD_DATA: u16 = 0x12;
    /// Bytes of the kernel's command line, its 0 included.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The kernel's command line.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// The files that there are.
    pub const FILE_DIR: u16 = 0x19;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x20;
}

/// FW_CFG_ID: the data register, and transfers.
const ID_WAYS: u32 = 0b11;
/// Bytes of a file's name in the directory.
const NAME_BYTES: usize = 56;

/// Control word of a transfer.
pub mod transfer {
    /// It failed.
    pub const ERROR: u32 = 1 << 0;
    /// Into memory.
    pub const READ: u32 = 1 << 1;
    /// Goes ahead in the item.
    pub const SKIP: u32 = 1 << 2;
    /// Chooses the item of the upper half first.
    pub const SELECT: u32 = 1 << 3;
    /// From memory: nothing here can be written.
    pub const WRITE: u32 = 1 << 4;
    /// Bytes of what describes one.
    pub const BYTES: usize = 16;
}

/// Lays items out, as bytes that [`FwCfg`] reads: their number, for each its key, its first byte and its
/// length, all of them words of 32 bits, then what they hold.
#[derive(Debug, Default)]
pub struct Items {
    items: Vec<(u16, Vec<u8>)>,
    files: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Items {
    /// Begins with what every board has.
    #[must_use]
    pub fn of_board(vcpus: u8) -> Self {
        let count = u16::from(vcpus).to_le_bytes();
        let mut items = Self::default();
        items.add(key::SIGNATURE, b"QEMU");
        items.add(key::ID, &ID_WAYS.to_le_bytes());
        items.add(key::NB_CPUS, &count);
        items.add(key::MAX_CPUS, &count);
        items
    }

    /// Adds an item.
    pub fn add(&mut self, key: u16, bytes: &[u8]) {
        self.items.push((key, bytes.to_vec()));
    }

    /// Adds two items: how long something is, and what.
    pub fn add_sized(&mut self, size_key: u16, key: u16, bytes: &[u8]) {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.add(size_key, &size.to_le_bytes());
        self.add(key, bytes);
    }

    /// Adds a file. Names are at most 55 bytes long; what is beyond is left out.
    pub fn add_file(&mut self, name: &str, bytes: &[u8]) {
        let name = name.bytes().take(NAME_BYTES - 1).collect();
        self.files.push((name, bytes.to_vec()));
    }

    /// Lays all of it out.
    #[must_use]
    pub fn to_bytes(mut self) -> Vec<u8> {
        self.files.sort();
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        let keys = key::FILE_FIRST..u16::MAX;
        for (key, (mut name, bytes)) in keys.zip(core::mem::take(&mut self.files)) {
            name.resize(NAME_BYTES, 0);
            directory.extend((bytes.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(name);
            self.items.push((key, bytes));
        }
        self.items.push((key::FILE_DIR, directory));
        let count = self.items.len() as u32;
        let mut at = 4 + 12 * count;
        let mut all = count.to_le_bytes().to_vec();
        for (key, bytes) in &self.items {
            for word in [u32::from(*key), at, bytes.len() as u32] {
                all.extend(word.to_le_bytes());
            }
            at += bytes.len() as u32;
        }
        all.extend(self.items.iter().flat_map(|(_, bytes)| bytes));
        all
    }
}

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct FwCfg {
    /// What [`Items`] has laid out; nothing where the board has none.
    items: &'static [u8],
    selected: u16,
    offset: u32,
    dma_high: u32,
}

impl FwCfg {
    /// Makes one that has these items.
    #[must_use]
    pub const fn new(items: &'static [u8]) -> Self {
        Self { items, selected: 0, offset: 0, dma_high: 0 }
    }

    /// Tells whether there is anything.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        !self.items.is_empty()
    }

    /// Reads 1, 2, 4 or 8 bytes, as a little-endian guest has them.
    pub fn read(&mut self, offset: u64, bytes: u8) -> u64 {
        let mut value = [0; 8];
        let wanted = value.get_mut(..usize::from(bytes)).unwrap_or_default();
        if !self.is_there() {
            return 0;
        }
        if offset < SELECTOR {
            let item = self.item(self.selected);
            for byte in wanted {
                *byte = item.get(self.offset as usize).copied().unwrap_or(0);
                self.offset = self.offset.saturating_add(1);
            }
        } else if let Some(first) = offset.checked_sub(DMA) {
            let from = usize::try_from(first).ok().and_then(|first| DMA_SIGNATURE.get(first..));
            for (byte, from) in wanted.iter_mut().zip(from.unwrap_or_default()) {
                *byte = *from;
            }
        }
        u64::from_le_bytes(value)
    }

    /// Writes. Tells where in memory a transfer is described that this has begun.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Option<u64> {
        match (offset, bytes) {
            (SELECTOR, 2) => self.select((value as u16).swap_bytes()),
            (DMA, 8) => return Some(value.swap_bytes()),
            (DMA, 4) => self.dma_high = (value as u32).swap_bytes(),
            (DMA_LOW, 4) => {
                let low = (value as u32).swap_bytes();
                let high = core::mem::take(&mut self.dma_high);
                return Some(u64::from(high) << 32 | u64::from(low));
            }
            _ => {}
        }
        None
    }

    /// Chooses an item.
    pub const fn select(&mut self, key: u16) {
        (self.selected, self.offset) = (key, 0);
    }

    /// Goes ahead by `bytes` bytes; returns those that are there.
    pub fn take(&mut self, bytes: u32) -> &'static [u8] {
        let item = self.item(self.selected);
        let from = item.get(self.offset as usize..).unwrap_or_default();
        self.offset = self.offset.saturating_add(bytes);
        from.get(..bytes as usize).unwrap_or(from)
    }

    fn item(&self, key: u16) -> &'static [u8] {
        let word = |at: usize| {
            let bytes = self.items.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let find = || {
            let count = word(0)? as usize;
            let at = (0..count).map(|n| 4 + 12 * n).find(|&at| word(at) == Some(key.into()))?;
            let (first, length) = (word(at + 4)? as usize, word(at + 8)? as usize);
            self.items.get(first..first.checked_add(length)?)
        };
        find().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> FwCfg {
        let mut items = Items::of_board(3);
        items.add_sized(key::CMDLINE_SIZE, key::CMDLINE_DATA, b"quiet\0");
        items.add_file("opt/b", b"second");
        items.add_file("etc/a", b"first");
        FwCfg::new(items.to_bytes().leak())
    }

    fn select(device: &mut FwCfg, key: u16) {
        assert_eq!(device.write(SELECTOR, 2, key.swap_bytes().into()), None);
    }

    #[test]
    fn items_are_read_in_the_order_of_memory() {
        let mut device = device();
        select(&mut device, key::SIGNATURE);
        assert_eq!(device.read(0, 4).to_le_bytes()[..4], *b"QEMU");
        assert_eq!(device.read(0, 8), 0, "behind its end");
        select(&mut device, key::CMDLINE_DATA);
        assert_eq!(device.read(0, 1), b'q'.into());
        assert_eq!(device.read(0, 8).to_le_bytes(), *b"uiet\0\0\0\0");
        select(&mut device, key::CMDLINE_SIZE);
        assert_eq!(device.read(0, 4), 6);
        select(&mut device, key::NB_CPUS);
        assert_eq!(device.read(0, 2), 3);
        select(&mut device, 0x1234);
        assert_eq!(device.read(0, 8), 0);
    }

    #[test]
    fn files_are_found_by_name() {
        let mut device = device();
        select(&mut device, key::FILE_DIR);
        let directory = device.take(4 + 2 * 64);
        assert_eq!(directory[..4], 2_u32.to_be_bytes());
        let (first, second) = directory[4..].split_at(64);
        assert_eq!(first[..8], [0, 0, 0, 5, 0, 0x20, 0, 0]);
        assert_eq!(first[8..14], *b"etc/a\0");
        assert_eq!(second[..6], [0, 0, 0, 6, 0, 0x21]);
        select(&mut device, 0x21);
        assert_eq!(device.take(100), b"second");
    }

    #[test]
    fn a_transfer_is_begun_by_its_lower_half() {
        let mut device = device();
        assert_eq!(device.read(DMA, 8).to_le_bytes(), *b"QEMU CFG");
        assert_eq!(device.read(DMA_LOW, 4).to_le_bytes()[..4], *b" CFG");
        assert_eq!(device.write(DMA, 4, 0x0100_0000), None);
        assert_eq!(device.write(DMA_LOW, 4, 0x0000_0040), Some(0x1_4000_0000));
        assert_eq!(device.write(DMA_LOW, 4, 0x0000_0040), Some(0x4000_0000));
        assert_eq!(device.write(DMA, 8, 0x4000_0000_u64.swap_bytes()), Some(0x4000_0000));
    }

    #[test]
    fn pieces_of_an_item_follow_each_other() {
        let mut device = device();
        device.select(key::CMDLINE_DATA);
        assert_eq!(
            (device.take(2), device.take(3), device.take(9)),
            (&b"qu"[..], &b"iet"[..], &b"\0"[..])
        );
        assert_eq!(device.take(u32::MAX), b"");
        assert_eq!(device.take(u32::MAX), b"");
    }

    #[test]
    fn a_board_without_any_reads_as_zero() {
        let mut device = FwCfg::default();
        assert_eq!((device.read(0, 8), device.read(DMA, 8)), (0, 0));
        for cut in 0..40 {
            let bytes = Items::of_board(1).to_bytes();
            let mut device = FwCfg::new(bytes[..cut].to_vec().leak());
            let _value = device.read(0, 8);
        }
    }
}
