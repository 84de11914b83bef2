//! The board's flash: two banks, each of two NOR chips of 16 bits side by side.
//!
//! A bank is memory until something is written to it: writes are commands of the chips, and from then
//! on it reads as what the command shows (a status, an identity, the CFI table) until another one has
//! it be memory again. What the array holds is not here: [`Bank::write`] tells what is to become of
//! it, and [`Bank::read`] that it is to be read.
//!
//! Commands and table are those of QEMU's `virt`, whose model the firmware for that board is tested
//! with. Where it departs from Intel's chips so does this: programming stores what is written, whatever was
//! there (a chip can only clear bits), erasing and programming take no time, and blocks are never locked.
//! One departure is not taken over: a block is erased by the second word of its command, not by the first.
//!
//! Sources: JEDEC JESD68.01, "Common Flash Interface (CFI)"; Intel's StrataFlash (P30) datasheet, "Device
//! commands".

use alloc::vec::Vec;
use stepwell_arch::Ipa;

/// Bytes of a bank.
pub const BANK_BYTES: u64 = 64 << 20;
/// Bytes of both, from address 0 on.
pub const FLASH_BYTES: u64 = 2 * BANK_BYTES;
/// Bytes that are erased at a time.
pub const BLOCK_BYTES: u64 = 256 << 10;
/// Bytes of the chips' write buffers: of both.
const BUFFER_BYTES: usize = 4096;
/// Bytes that a bank transfers at a time.
const BANK_WIDTH: usize = 4;

/// SR.7: the chip has done what it was told to.
const READY: u8 = 1 << 7;
/// SR.5 and SR.4: it was no command.
const COMMAND_ERROR: u8 = 1 << 5 | 1 << 4;

/// The board's flash.
#[derive(Debug, Default)]
pub struct Flash {
    /// Code at 0, variables behind it.
    pub banks: [Bank; 2],
}

/// The bank and the offset in it of an address, where that is flash's.
#[must_use]
pub const fn place(at: Ipa) -> Option<(usize, u64)> {
    if at.0 >= FLASH_BYTES {
        return None;
    }
    Some(((at.0 / BANK_BYTES) as usize, at.0 % BANK_BYTES))
}

/// What a bank reads as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shows {
    #[default]
    Array,
    Status,
    Identity,
    Query,
}

/// What is to be written next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Command,
    /// What is to be programmed.
    Data,
    /// How many words will come, less one.
    Count,
    /// So many of them.
    Words(u32),
    /// That the buffer is to be programmed.
    Program,
    /// That this block is to be erased.
    Erase(u64),
    /// Whether a block is to be locked.
    Lock,
}

/// What becomes of the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// These bytes are stored at an offset.
    Programmed(u64, &'a [u8]),
    /// The block at an offset is all ones.
    Erased(u64),
}

/// One bank.
#[derive(Debug, Default)]
pub struct Bank {
    shows: Shows,
    expects: Expects,
    status: u8,
    /// What is to be programmed, and where it begins.
    buffer: Vec<u8>,
    buffered_at: u64,
}

impl Bank {
    /// Tells whether it reads as memory.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.shows == Shows::Array
    }

    /// Reads 1, 2 or 4 bytes; none where they are the array's.
    #[must_use]
    pub fn read(&self, offset: u64, bytes: u8) -> Option<u64> {
        let word = (offset / BANK_WIDTH as u64) as usize;
        let (value, width) = match self.shows {
            Shows::Array => return None,
            Shows::Status => (self.status, bytes),
            Shows::Identity => (IDENTITY.get(word % 256).copied().unwrap_or(0), BANK_WIDTH as u8),
            Shows::Query => (queried(word), BANK_WIDTH as u8),
        };
        // Each chip has its half of the word.
        let value = u64::from(value);
        Some(if width > 2 { value | value << 16 } else { value })
    }

    /// Writes 1, 2 or 4 bytes. Tells what becomes of the array.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Option<Change<'_>> {
        // Chips side by side are told the same.
        let command = value as u8;
        match self.expects {
            Expects::Command => self.command(offset, command),
            Expects::Data => {
                self.expects = Expects::Command;
                self.status |= READY;
                self.buffer.clear();
                self.gather(bytes, value);
                return Some(Change::Programmed(offset, &self.buffer));
            }
            Expects::Count => {
                let words = (value & 0xffff) as u32 + 1;
                self.buffer.clear();
                self.buffered_at = offset;
                self.expects = Expects::Words(words);
                if words as usize * BANK_WIDTH > BUFFER_BYTES {
                    self.fail();
                }
            }
            Expects::Words(left) => {
                if self.buffer.is_empty() {
                    self.buffered_at = offset;
                }
                let is_next = offset == self.buffered_at + self.buffer.len() as u64;
                if !is_next || !self.gather(bytes, value) {
                    self.fail();
                } else if left == 1 {
                    self.expects = Expects::Program;
                } else {
                    self.expects = Expects::Words(left - 1);
                }
            }
            Expects::Program if command == 0xd0 => {
                self.expects = Expects::Command;
                self.status |= READY;
                return Some(Change::Programmed(self.buffered_at, &self.buffer));
            }
            Expects::Erase(block) if command == 0xd0 => {
                self.expects = Expects::Command;
                self.status |= READY;
                return Some(Change::Erased(block));
            }
            Expects::Lock if matches!(command, 0x01 | 0x2f | 0xd0) => {
                self.expects = Expects::Command;
                self.status |= READY;
            }
            Expects::Program | Expects::Erase(_) | Expects::Lock => self.show_array(),
        }
        None
    }

    fn command(&mut self, offset: u64, command: u8) {
        let (shows, expects) = match command {
            0x10 | 0x40 => (Shows::Status, Expects::Data),
            0x20 => {
                self.status |= READY;
                (Shows::Status, Expects::Erase(offset & !(BLOCK_BYTES - 1)))
            }
            0x60 => (Shows::Status, Expects::Lock),
            0x70 => (Shows::Status, Expects::Command),
            0x90 => (Shows::Identity, Expects::Command),
            0x98 => (Shows::Query, Expects::Command),
            0xe8 => {
                self.status |= READY;
                (Shows::Status, Expects::Count)
            }
            0x50 => {
                self.status = 0;
                (Shows::Array, Expects::Command)
            }
            // Read Array, AMD's Reset, and what no chip knows.
            _ => (Shows::Array, Expects::Command),
        };
        (self.shows, self.expects) = (shows, expects);
    }

    /// Adds to what is to be programmed; tells whether there was room.
    fn gather(&mut self, bytes: u8, value: u64) -> bool {
        let bytes = usize::from(bytes.min(8));
        let is_room = self.buffer.len() + bytes <= BUFFER_BYTES;
        if !is_room || self.buffer.try_reserve(bytes).is_err() {
            return false;
        }
        self.buffer.extend(value.to_le_bytes().iter().take(bytes));
        true
    }

    fn fail(&mut self) {
        self.status |= READY | COMMAND_ERROR;
        (self.shows, self.expects) = (Shows::Status, Expects::Command);
    }

    fn show_array(&mut self) {
        (self.shows, self.expects) = (Shows::Array, Expects::Command);
    }
}

/// Manufacturer (Intel) and device.
const IDENTITY: [u8; 2] = [0x89, 0x18];

/// First word of the CFI table that is not 0.
const TABLE_BEGINS: usize = 0x10;
/// The CFI table of one chip: 256 blocks of 128 KiB.
const TABLE: [u8; 38] = [
    b'Q', b'R', b'Y', // that this is it
    0x01, 0x00, // Intel's command set
    0x31, 0x00, // its own table is there
    0, 0, 0, 0, // no other command set
    0x45, 0x55, 0, 0, // Vcc 4.5 V to 5.5 V, no Vpp
    0x07, 0x07, 0x0a, 0, // typical times: a word, a buffer (2^7 us), a block (2^10 ms)
    0x04, 0x04, 0x04, 0,  // 2^4 times as long at most
    25, // 2^25 bytes
    0x02, 0x00, // 8 and 16 bits wide
    0x0b, 0x00, // 2^11 bytes of buffer
    0x01, // all blocks are alike:
    0xff, 0x00, // 256
    0x00, 0x02, // of 0x200 times 256 bytes
    b'P', b'R', b'I', b'1', b'0', // Intel's own table, of nothing
];
/// Number of protection fields, in Intel's own table.
const PROTECTION_FIELDS: (usize, u8) = (0x3f, 0x01);

fn queried(word: usize) -> u8 {
    if word == PROTECTION_FIELDS.0 {
        return PROTECTION_FIELDS.1;
    }
    word.checked_sub(TABLE_BEGINS).and_then(|n| TABLE.get(n)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_a_bank() {
        assert_eq!(place(Ipa(0)), Some((0, 0)));
        assert_eq!(place(Ipa(0x03ff_ffff)), Some((0, 0x03ff_ffff)));
        assert_eq!(place(Ipa(0x0400_0010)), Some((1, 0x10)));
        assert_eq!(place(Ipa(0x0800_0000)), None);
    }

    #[test]
    fn it_is_memory_until_it_is_told_otherwise() {
        let mut bank = Bank::default();
        assert_eq!((bank.is_array(), bank.read(0, 4)), (true, None));
        assert_eq!(bank.write(0, 4, 0x0070_0070), None);
        assert_eq!((bank.is_array(), bank.read(0x1234, 4)), (false, Some(0)));
        assert_eq!(bank.write(0, 4, 0x00ff_00ff), None);
        assert!(bank.is_array());
        for (command, name) in [(0xf0, "AMD's reset"), (0x00, "nothing"), (0x33, "nothing known")] {
            bank.write(0, 4, 0x0090_0090);
            assert!(!bank.is_array());
            bank.write(0, 4, command);
            assert!(bank.is_array(), "{name}");
        }
    }

    #[test]
    fn a_word_is_programmed_and_the_status_says_so_in_each_half() {
        let mut bank = Bank::default();
        assert_eq!(bank.write(0x40, 4, 0x0040_0040), None);
        let change = bank.write(0x40, 4, 0x1234_5678);
        assert_eq!(change, Some(Change::Programmed(0x40, &[0x78, 0x56, 0x34, 0x12])));
        assert_eq!(bank.read(0x40, 4), Some(0x0080_0080));
        assert_eq!(bank.read(0x40, 1), Some(0x80));
        // Cleared, and memory again.
        bank.write(0, 4, 0x0050_0050);
        assert!(bank.is_array());
        bank.write(0, 4, 0x0070_0070);
        assert_eq!(bank.read(0, 4), Some(0));
    }

    #[test]
    fn a_block_is_erased_when_that_is_confirmed() {
        let mut bank = Bank::default();
        bank.write(0x4_1234, 4, 0x0020_0020);
        assert_eq!(bank.read(0, 4), Some(0x0080_0080));
        assert_eq!(bank.write(0x4_1234, 4, 0x00d0_00d0), Some(Change::Erased(0x4_0000)));
        bank.write(0x4_1234, 4, 0x0020_0020);
        assert_eq!(bank.write(0, 4, 0x00ff_00ff), None, "thought better of");
        assert!(bank.is_array());
    }

    #[test]
    fn a_buffer_is_programmed_when_that_is_confirmed() {
        let mut bank = Bank::default();
        bank.write(0x100, 4, 0x00e8_00e8);
        assert_eq!(bank.read(0x100, 4), Some(0x0080_0080), "there is a buffer");
        bank.write(0x100, 4, 0x0001_0001);
        bank.write(0x100, 4, 0x0403_0201);
        assert_eq!(bank.write(0x104, 4, 0x0807_0605), None);
        let change = bank.write(0x100, 4, 0x00d0_00d0);
        assert_eq!(change, Some(Change::Programmed(0x100, &[1, 2, 3, 4, 5, 6, 7, 8])));
        // Not confirmed: nothing is programmed.
        bank.write(0x100, 4, 0x00e8_00e8);
        bank.write(0x100, 4, 0);
        bank.write(0x100, 4, 7);
        assert_eq!(bank.write(0x100, 4, 0x00ff_00ff), None);
        assert!(bank.is_array());
    }

    #[test]
    fn what_no_buffer_holds_is_an_error_of_the_command() {
        let mut bank = Bank::default();
        bank.write(0, 4, 0x00e8_00e8);
        bank.write(0, 4, 0xffff_ffff);
        assert_eq!(bank.read(0, 2), Some(0xb0));
        bank.write(0, 4, 0x0050_0050);
        bank.write(0, 4, 0x00e8_00e8);
        bank.write(0, 4, 0x0001_0001);
        bank.write(0, 4, 1);
        bank.write(0x80, 4, 2);
        assert_eq!(bank.read(0, 2), Some(0xb0), "elsewhere");
    }

    #[test]
    fn it_says_what_it_is() {
        let mut bank = Bank::default();
        bank.write(0, 4, 0x0090_0090);
        assert_eq!(bank.read(0, 4), Some(0x0089_0089));
        assert_eq!(bank.read(4, 4), Some(0x0018_0018));
        assert_eq!(bank.read(8, 4), Some(0));
        bank.write(0x55 * 4, 4, 0x0098_0098);
        let query: Vec<u8> = (0x10..0x13).map(|n| bank.read(n * 4, 4).unwrap_or(0) as u8).collect();
        assert_eq!(query, b"QRY");
        assert_eq!(bank.read(0x27 * 4, 4), Some(0x0019_0019));
        assert_eq!(bank.read(0x33 * 4, 4), Some(0x0049_0049));
        assert_eq!(bank.read(0x3f * 4, 4), Some(0x0001_0001));
        assert_eq!(bank.read(0x40_0000, 4), Some(0));
    }

    #[test]
    fn no_row_of_writes_does_harm() {
        let mut bank = Bank::default();
        let mut state = 1_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let commands = [0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xe8, 0xd0, 0xff, 3];
            let value = commands[(state >> 40) as usize % commands.len()];
            let offset = state >> 20 & (BANK_BYTES - 1) & !3;
            match bank.write(offset, 4, value) {
                Some(Change::Programmed(at, bytes)) => {
                    assert!(at < BANK_BYTES && bytes.len() <= BUFFER_BYTES);
                }
                Some(Change::Erased(at)) => assert_eq!(at % BLOCK_BYTES, 0),
                None => {}
            }
            let _value = bank.read(offset, 4);
        }
    }
}
